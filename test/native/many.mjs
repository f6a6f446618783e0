// A child process: makes, runs and closes VMs, and prints what the process holds after the first hundred and after all of them.
import { readdirSync, readFileSync } from 'node:fs';
import { openHost } from '#lib/host/index.js';
import { prepareVcpu, putSpin, RAM, RAM_SIZE } from './spinner.mjs';

const FIRST = 100;
const ALL = Number(process.argv[2]);

/** Whatever the event loop and the garbage collector still have to let go of. */
async function settle() {
  for (let i = 0; i < 5; i++) {
    globalThis.gc();
    await new Promise((done) => setImmediate(done));
  }
}

async function held() {
  await settle();
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    mappings: readFileSync('/proc/self/maps', 'utf8').split('\n').length,
    rss: process.memoryUsage.rss(),
  };
}

async function live(n) {
  const kvm = openHost();
  const vm = kvm.createVm();
  const memory = vm.createMemory(RAM_SIZE);
  putSpin(memory.bytes);
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: RAM_SIZE, memory });
  const vcpu = vm.createVcpu(0);
  prepareVcpu(vcpu);
  const fd = kvm.createEventFd();
  fd.onSignal(() => {});
  fd.signal();
  if (n % 2 === 0) {
    vcpu.start({ exit() {}, failed() {} });
    if (n % 4 === 0) vcpu.stop();
  } else {
    vcpu.run(0);
  }
  // One in three is left to the garbage collector.
  if (n % 3 === 0) {
    vcpu.stop();
    fd.onSignal(undefined);
    return;
  }
  const all = [kvm, vm, memory, vcpu, fd];
  for (const each of n % 2 === 0 ? all : all.reverse()) each.close();
}

let before;
for (let n = 0; n < ALL; n++) {
  if (n === FIRST) before = await held();
  await live(n);
  if (n % 50 === 49) await settle();
}
console.log(JSON.stringify({ before, after: await held() }));
