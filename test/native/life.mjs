// A child process: takes a VM's life as far as `step`, then ends as `end` says. Prints the step when it is there.
import { Worker } from 'node:worker_threads';
import { openHost } from '#lib/host/index.js';
import { prepareVcpu, putSpin, RAM, RAM_SIZE } from './spinner.mjs';

const [step, end] = process.argv.slice(2);
const steps = [
  'import',
  'open',
  'vm',
  'memory',
  'slot',
  'vcpu',
  'listen',
  'signalled',
  'ran',
  'started',
  'worker',
  'worker-started',
];
const upTo = (name) => steps.indexOf(name) <= steps.indexOf(step);

const held = [];
const hold = (value) => {
  held.push(value);
  return value;
};
if (upTo('open')) {
  const kvm = hold(openHost());
  if (upTo('vm')) {
    const vm = hold(kvm.createVm());
    const memory = upTo('memory') ? hold(vm.createMemory(RAM_SIZE)) : undefined;
    if (upTo('slot')) vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: RAM_SIZE, memory });
    const vcpu = upTo('vcpu') ? hold(vm.createVcpu(0)) : undefined;
    const fd = upTo('listen') ? hold(kvm.createEventFd()) : undefined;
    fd?.onSignal(() => {});
    if (upTo('signalled')) fd.signal();
    if (upTo('ran')) {
      putSpin(memory.bytes);
      prepareVcpu(vcpu);
      if (vcpu.run(1).reason !== 'intr') throw new Error('no intr');
    }
    if (upTo('started')) vcpu.start({ exit() {}, failed() {} });
  }
}
let worker;
if (upTo('worker')) {
  const until = step === 'worker-started' ? 'ended on its own thread' : 'ended';
  worker = new Worker(new URL('./spin-worker.mjs', import.meta.url), { workerData: { until } });
  await new Promise((done) => worker.once('message', done));
}
process.stdout.write(step);
switch (end) {
  case 'natural':
    // What the process holds does not keep it alive; a Worker does.
    worker?.unref();
    break;
  case 'exit':
    process.exit(0);
    break;
  case 'throw':
    throw new Error('thrown on purpose');
  case 'terminate':
    await worker?.terminate();
    break;
  case 'close':
    for (const value of held) value.close();
    break;
  case 'close-reversed':
    for (const value of held.reverse()) value.close();
    break;
  case 'collect': {
    held.length = 0;
    for (let i = 0; i < 3; i++) {
      globalThis.gc();
      await new Promise((done) => setImmediate(done));
    }
    break;
  }
}
