// A Worker whose guest spins: tells its vCPU's token, and then, until the first kick or for ever, runs it, here or on its own
// thread.
import { parentPort, workerData } from 'node:worker_threads';
import { openHost } from '#lib/host/index.js';
import { prepareVcpu, putSpin, RAM, RAM_SIZE } from './spinner.mjs';

const vm = openHost().createVm();
const memory = vm.createMemory(RAM_SIZE);
vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: RAM_SIZE, memory });
putSpin(memory.bytes);
const vcpu = vm.createVcpu(0);
prepareVcpu(vcpu);
const listened = openHost().createEventFd();
listened.onSignal(() => {});

function spin() {
  parentPort.postMessage(vcpu.token);
  const { reason } = vcpu.run();
  parentPort.postMessage(reason);
  if (workerData.until === 'kicked') setImmediate(spin);
}
if (workerData.until === 'ended on its own thread') {
  parentPort.on('message', () => {});
  vcpu.start({ exit() {}, failed() {} });
  parentPort.postMessage(vcpu.token);
} else {
  spin();
}
