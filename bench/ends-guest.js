// Child of bench/ends.js: a process, or a Worker of it, that has a vCPU in KVM_RUN, or, to compare with, none.
//     ends-guest.js WHERE WITH END      WHERE: thread (vcpu.start()), worker (vcpu.run() in a Worker); WITH: vm, nothing
// Says when it began to end (CLOCK_MONOTONIC, ns).
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { openHost } from '../dist/host/index.js';
import { prepareVcpu, putSpin, RAM, RAM_SIZE } from '../test/native/spinner.mjs';

const kvm = openHost();

function spinningVcpu() {
  const vm = kvm.createVm();
  const memory = vm.createMemory(RAM_SIZE);
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: RAM_SIZE, memory });
  putSpin(memory.bytes);
  const vcpu = vm.createVcpu(0);
  prepareVcpu(vcpu);
  return vcpu;
}

function occupy({ where, what }, ready) {
  const vcpu = what === 'vm' ? spinningVcpu() : undefined;
  if (where === 'thread') vcpu?.start({ exit() {}, failed() {} });
  ready();
  // A Worker that nothing ends stays.
  if (where === 'worker')
    vcpu === undefined ? Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0) : vcpu.run();
}

if (isMainThread) {
  const [where, what, end] = process.argv.slice(2);
  if (where === 'worker') {
    const worker = new Worker(new URL(import.meta.url), { workerData: { where, what } });
    await new Promise((ready) => worker.once('message', ready));
    worker.unref();
  } else {
    occupy({ where, what }, () => {});
  }
  // By then it is in the guest.
  await sleep(30);
  writeSync(1, String(process.hrtime.bigint()));
  if (end === 'process.exit') process.exit(0);
  if (end === 'throw') throw new Error('thrown on purpose');
} else {
  if (workerData.where === 'thread') parentPort.on('message', () => {});
  occupy(workerData, () => parentPort.postMessage('ready'));
}
