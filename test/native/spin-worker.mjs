// A Worker whose guest spins: tells its vCPU's token, and then, until the first kick or for ever, runs it, here or on its own
// thread.
import { parentPort, workerData } from 'node:worker_threads';
import { openHost } from '#lib/host/index.js';

const vm = openHost().createVm();
const memory = vm.createMemory(0x2000);
vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0xffff_e000, memorySize: 0x2000, memory });
memory.bytes.set([0xeb, 0xfe], 0x1ff0);
const vcpu = vm.createVcpu(0);
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
