#!/usr/bin/env node
/**
 * What TypeScript costs over C on this machine's own /dev/kvm: the same loops in both, in turn, with the same real-mode
 * guests (x64). Prints the medians of both and of their paired differences or ratios: what stands alone is those.
 *
 *   npm run bench:native -- [--pairs 9] [--json]
 *
 * And how long an end takes with a vCPU in KVM_RUN (bench/ends.js).
 *
 * Needs the addon (npm run build:native) and a C compiler (CC, default cc).
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { openHost } from '../dist/host/index.js';
import { commandLine } from '../scripts/command-line.js';
import { wholeNumber } from './common.js';
import { endsTable, measureEnds } from './ends.js';

const { values } = commandLine(import.meta.url, {
  options: { pairs: { type: 'string', default: '9' }, json: { type: 'boolean', default: false } },
});
const pairs = wholeNumber('bench/native', 'pairs', values.pairs, 1);
if (process.arch !== 'x64') {
  console.error(`bench/native: its guests are x64 code, and this machine is ${process.arch}`);
  process.exit(2);
}

/** Memory of the guests: 64 KiB below 4 GiB, where the reset vector is, and the first 48 again at 0. */
const MEMORY = 0x1_0000;
const LOW = 0xc000;
const HIGH = 0xffff_0000;
/** Beyond the low memory: nobody answers. */
const DEVICE = 0xd000;
/** Where the ioeventfd guest waits for its answer. */
const FLAG = 0x8000;
const GSI = 4;
const CODE = 0x1000;
const HANDLER = 0x2000;
const le16 = (value) => [value & 0xff, value >> 8];
/** mov [DEVICE], al */
const STORE = [0xa2, ...le16(DEVICE)];
const out = (port, value) => [0xb0, value, 0xe6, port];

/** @param parts code or data by address */
function image(parts) {
  const bytes = new Uint8Array(MEMORY);
  // jmp 0:CODE at the reset vector
  bytes.set([0xea, ...le16(CODE), 0, 0], 0xfff0);
  for (const [at, part] of Object.entries(parts)) bytes.set(part, Number(at));
  return bytes;
}
const spin = image({ [CODE]: [0xeb, 0xfe] });
const GUESTS = {
  // Stores for ever.
  exit: image({ [CODE]: [...STORE, 0xeb, 0xfb] }),
  // Stores, waits for the flag, takes it back, and again.
  ioeventfd: image({
    [CODE]: [...STORE, 0x80, 0x3e, ...le16(FLAG), 0, 0x74, 0xf9, 0xc6, 0x06, ...le16(FLAG), 0, 0xeb, 0xef],
  }),
  // Sets up the stack and the PIC (vectors from 0x20), stores, and halts; stores again in the handler of IRQ 4.
  irqfd: image({
    [(0x20 + GSI) * 4]: [...le16(HANDLER), 0, 0],
    [CODE]: [
      ...[0xfa, 0x31, 0xc0, 0x8e, 0xd0, 0xbc, ...le16(0x7000)],
      ...[out(0x20, 0x11), out(0x21, 0x20), out(0x21, 4), out(0x21, 1), out(0x21, 0)].flat(),
      ...[0xfb, ...STORE, 0xf4, 0xeb, 0xfd],
    ],
    [HANDLER]: [...STORE, ...out(0x20, 0x20), 0xcf],
  }),
};

const kvm = openHost();
function makeGuest(bytes, irqchip = false) {
  const vm = kvm.createVm();
  if (irqchip) vm.createIrqchip();
  const memory = vm.createMemory(MEMORY);
  memory.bytes.set(bytes);
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: LOW, memory });
  vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: HIGH, memorySize: MEMORY, memory });
  const vcpu = vm.createVcpu(0);
  const close = () => {
    for (const each of [vcpu, vm, memory]) each.close();
  };
  return { vm, memory, vcpu, close };
}

/** What the loops compute, so that they must. */
let sum = 0;
/** What answers exits: as a device of a VMM would. */
const handler = {
  write(at, value) {
    sum += at + value;
  },
};

const since = (begin, rounds) => ((performance.now() - begin) * 1e6) / rounds;

/** The loops of bench/native.c, here: nanoseconds of one round. */
const LOOPS = {
  exit(rounds) {
    const { vcpu, close } = makeGuest(GUESTS.exit);
    const begin = performance.now();
    for (let i = 0; i < rounds; ) {
      const exit = vcpu.run();
      if (exit.reason !== 'mmio') continue;
      handler.write(exit.physAddr, exit.data[0]);
      i++;
    }
    const time = since(begin, rounds);
    close();
    return time;
  },
  async 'exit, own thread'(rounds) {
    const { vcpu, close } = makeGuest(GUESTS.exit);
    const begin = performance.now();
    await new Promise((resolve, reject) => {
      const hold = setInterval(() => {}, 1000);
      let left = rounds;
      vcpu.start({
        exit(exit) {
          if (exit.reason !== 'mmio') return;
          handler.write(exit.physAddr, exit.data[0]);
          if (--left > 0) return;
          clearInterval(hold);
          vcpu.stop();
          resolve();
        },
        failed: reject,
      });
    });
    const time = since(begin, rounds);
    close();
    return time;
  },
  ioctl(rounds) {
    const KVM_CAP_NR_MEMSLOTS = 10;
    const begin = performance.now();
    for (let i = 0; i < rounds; i++) sum += kvm.checkExtension(KVM_CAP_NR_MEMSLOTS);
    return since(begin, rounds);
  },
  ioeventfd: (rounds) =>
    pingPong(rounds, 'ioeventfd', ({ memory }) => {
      memory.bytes[FLAG] = 1;
    }),
  irqfd: (rounds) => pingPong(rounds, 'irqfd', ({ line }) => line.signal()),
};

async function pingPong(rounds, mode, answer) {
  const guest = makeGuest(GUESTS[mode], mode === 'irqfd');
  const kick = kvm.createEventFd();
  const line = kvm.createEventFd();
  guest.vm.ioeventfd({ fd: kick, addr: DEVICE, len: 1 });
  if (mode === 'irqfd') guest.vm.irqfd({ fd: line, gsi: GSI });
  const to = { memory: guest.memory, line };
  const time = await new Promise((resolve, reject) => {
    const hold = setInterval(() => {}, 1000);
    let begin = 0;
    let i = -1;
    kick.onSignal(() => {
      if (i === -1) begin = performance.now();
      answer(to);
      if (++i < rounds) return;
      clearInterval(hold);
      resolve(since(begin, rounds));
    });
    // The PIC's ports are the kernel's, and nothing else exits.
    guest.vcpu.start({ exit: () => {}, failed: reject });
  });
  guest.close();
  for (const fd of [kick, line]) fd.close();
  return time;
}

const dir = mkdtempSync(join(tmpdir(), 'elvisor-bench-'));
const program = join(dir, 'native');
function must(file, args) {
  const { status, stdout, stderr, error } = spawnSync(file, args, { encoding: 'utf8' });
  if (status !== 0) throw error ?? new Error(`${file} ${args.join(' ')}: ${status}\n${stderr}`);
  return stdout;
}
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const us = (ns) => `${(ns / 1000).toFixed(2)} us`;

/** @param limit of the difference in ns, or of the ratio; none where the row is for information */
async function compare(name, { mode = name, rounds, over, times }) {
  const c = [];
  const ts = [];
  for (let i = 0; i < pairs; i++) {
    c.push(Number(must(program, [mode, String(rounds), join(dir, mode)])));
    ts.push(await LOOPS[name](rounds));
  }
  const difference = median(ts.map((t, i) => t - c[i]));
  const ratio = median(ts.map((t, i) => t / c[i]));
  const limit = over === undefined ? times && `at most ${times} times` : `at most ${us(over)} more`;
  const met = over !== undefined ? difference <= over : times === undefined ? undefined : ratio <= times;
  return { name, c: median(c), ts: median(ts), difference, ratio, limit, met };
}

async function eventLoop() {
  const { vcpu, close } = makeGuest(spin);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  vcpu.start({
    exit() {},
    failed(error) {
      throw error;
    },
  });
  delay.enable();
  await new Promise((resolve) => setTimeout(resolve, 3000));
  delay.disable();
  close();
  // The sampler's own period is in each sample.
  return { p50: delay.percentile(50), p99: delay.percentile(99), max: delay.max };
}

/** Filling memory: a guest's, and JavaScript's own. @returns the ratio of the medians' times */
function fill() {
  const SIZE = 64 << 20;
  const vm = kvm.createVm();
  const memory = vm.createMemory(SIZE);
  const own = new Uint8Array(SIZE);
  const time = (bytes, value) => {
    const begin = performance.now();
    bytes.fill(value);
    return performance.now() - begin;
  };
  for (const bytes of [memory.bytes, own]) time(bytes, 1);
  const ratios = Array.from({ length: pairs }, (_, i) => {
    const mine = time(own, i);
    return time(memory.bytes, i) / mine;
  });
  memory.close();
  vm.close();
  return median(ratios);
}

try {
  must(process.env.CC ?? 'cc', [
    '-O2',
    '-pthread',
    '-o',
    program,
    fileURLToPath(new URL('./native.c', import.meta.url)),
  ]);
  writeFileSync(join(dir, 'ioctl'), '');
  for (const [mode, bytes] of Object.entries(GUESTS)) writeFileSync(join(dir, mode), bytes);
  const rows = [
    await compare('exit', { rounds: 5000, over: 1500 }),
    await compare('exit, own thread', { mode: 'exit', rounds: 2000 }),
    await compare('ioctl', { rounds: 50_000, over: 500 }),
    await compare('ioeventfd', { rounds: 2000, times: 1.2 }),
    await compare('irqfd', { rounds: 2000, times: 1.2 }),
  ];
  const loop = await eventLoop();
  const filled = fill();
  const ends = await measureEnds(pairs);
  if (values.json) {
    console.log(JSON.stringify({ pairs, rows, eventLoop: loop, fill: filled, ends }));
  } else {
    console.log(
      `${'round'.padEnd(18)}${'C'.padStart(12)}${'TypeScript'.padStart(12)}${'difference'.padStart(12)}${'ratio'.padStart(8)}`,
    );
    for (const { name, c, ts, difference, ratio, limit, met } of rows) {
      const line = [
        name.padEnd(18),
        us(c).padStart(12),
        us(ts).padStart(12),
        us(difference).padStart(12),
        ratio.toFixed(2).padStart(8),
      ];
      console.log(line.join(''), met === undefined ? '' : ` ${met ? 'met' : 'NOT MET'}: ${limit}`);
    }
    const ms = (ns) => `${(ns / 1e6).toFixed(2)} ms`;
    console.log(
      `event loop, guest spins: p50 ${ms(loop.p50)}, p99 ${ms(loop.p99)}, max ${ms(loop.max)} (sampled every ms)`,
    );
    console.log(`filling guest memory takes ${filled.toFixed(2)} times what filling JavaScript's own does`);
    console.log(`\n${endsTable(ends)}`);
  }
  if (Number.isNaN(sum)) throw new Error('the handlers got something else than numbers');
} finally {
  kvm.close();
  rmSync(dir, { recursive: true, force: true });
}
