// One of the suite's two machines: a microVM by import, in a process of its own. The PL011 is stdin and stdout, the virtio
// console and its port go to files; the parent asks for the engine's figures by IPC.
import { createWriteStream } from 'node:fs';
import { limitYoungGeneration, lowerHelperThreads, MicroVm, open } from '../../dist/bundle/index.js';
import { residentBytes, watchPauses } from './process.js';

// As `elvisor run` does.
lowerHelperThreads();
limitYoungGeneration();

const { files, codeCache, ...options } = JSON.parse(process.argv[2]);

/** A KVM that lets the guest's RAM be seen. */
const kvm = open({ backend: 'soft', codeCache });
let ram;
const createVm = kvm.createVm.bind(kvm);
kvm.createVm = (...args) => {
  const vm = createVm(...args);
  const createMemory = vm.createMemory.bind(vm);
  vm.createMemory = (size) => {
    ram = createMemory(size);
    return ram;
  };
  return vm;
};

/** The longest time that V8 compiled while the event loop waited. */
let compiling = 0;
WebAssembly.Module = new Proxy(WebAssembly.Module, {
  construct(target, args) {
    const start = performance.now();
    const module = new target(...args);
    compiling = Math.max(compiling, performance.now() - start);
    return module;
  },
});

/** Guest RAM that is in memory; where the host does not tell, the pages of 4 KiB that are not zero. */
function touchedBytes() {
  const resident = residentBytes(ram.bytes.byteOffset, ram.bytes.length);
  if (resident !== undefined) return resident;
  const words = new BigUint64Array(ram.bytes.buffer, ram.bytes.byteOffset, ram.bytes.length >>> 3);
  let pages = 0;
  for (let page = 0; page < words.length; page += 512) {
    for (let i = page; i < page + 512; i++) {
      if (words[i] === 0n) continue;
      pages++;
      break;
    }
  }
  return pages * 4096;
}

const vm = await MicroVm.create({ ...options, kvm, console: 'hvc0', ports: ['bench'] });
process.stdin.pipe(vm.serial, { end: false });
vm.serial.pipe(process.stdout);
vm.console.pipe(createWriteStream(files.hvc));
vm.ports.get('bench').pipe(createWriteStream(files.port));
const instructions = () => vm.stats().vcpuStats.reduce((sum, { instructions: [count] }) => sum + Number(count), 0);

/** What the machine was like so far, all in all. */
function figures() {
  return {
    ...endPauses(),
    compilingMs: compiling,
    peakBytes: process.resourceUsage().maxRSS * 1024,
    touchedBytes: touchedBytes(),
  };
}

process.on('message', (asked) => process.send(asked === 'figures' ? figures() : instructions()));
process.on('disconnect', () => process.exit());
const endPauses = watchPauses();
await vm.boot();
process.exitCode = (await vm.exited).reason === 'poweroff' ? 0 : 1;
