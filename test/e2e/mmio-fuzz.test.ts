import { writeFileSync } from 'node:fs';
import { afterAll, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/index.js';
import { MicroVm } from '#lib/node/micro-vm.js';
import {
  GICC_BASE,
  GICC_SIZE,
  GICD_BASE,
  GICD_SIZE,
  GICR_BASE,
  GICR_STRIDE,
  ITS_BASE,
  ITS_SIZE,
  PL011,
  PL031,
  PL061,
  RAM_BASE,
  virtioSlot,
} from '#lib/vmm/board.js';
import { Random } from '../a64/random.ts';
import { addImm, b, ERET, hvc, ISB, mov, mrs, msr } from '../contract/asm.ts';
import { scratchDir } from './guest.ts';

/** A guest that accesses every device of the board, at any offset and in every width, and powers off when it is done. */
const ACCESSES = 6000;
/** Where a raw kernel is put. */
const CODE = RAM_BASE + 0x8_0000;
const VECTORS = 0x800;
const TABLE = 0x1000;
const MAIN = 0x2000;
/** RAM that devices may be pointed to. */
const PLAYGROUND = RAM_BASE + 0x300_0000;
const [VBAR, ELR] = [sysregIndex(3, 0, 12, 0, 0), sysregIndex(3, 0, 4, 0, 1)];

const scratch = scratchDir();
afterAll(() => scratch.remove());
const disk = scratch.file('disk');
writeFileSync(disk, new Uint8Array(64 * 1024));

type Region = readonly [base: number, size: number];
const DEVICES: readonly Region[] = [
  ...[PL011, PL031, PL061].map(({ base, size }): Region => [base, size]),
  ...Array.from({ length: 5 }, (_, n): Region => [virtioSlot(31 - n).base, virtioSlot(0).size]),
  ...Array.from({ length: 5 }, (_, n): Region => [virtioSlot(n).base, virtioSlot(0).size]),
  // Where nothing is, and where one thing ends and another begins.
  [0, 0x1000],
  [PL011.base - 8, 16],
  [GICD_BASE + GICD_SIZE - 8, 16],
];
const GICS: Readonly<Record<2 | 3, readonly Region[]>> = {
  2: [
    [GICD_BASE, 0x1000],
    [GICC_BASE, GICC_SIZE],
  ],
  3: [
    [GICD_BASE, GICD_SIZE],
    [GICR_BASE, GICR_STRIDE],
    [ITS_BASE, ITS_SIZE],
  ],
};
/** To or from X2 at X1: STR and LDR of 1, 2, 4 and 8 bytes, signed, by pairs, exclusive, atomic, with write-back, of a vector. */
const WORDS = [
  ...[0x3900_0022, 0x7900_0022, 0xb900_0022, 0xf900_0022, 0x3940_0022, 0x7940_0022, 0xb940_0022, 0xf940_0022],
  ...[0x3900_0022, 0x7900_0022, 0xb900_0022, 0xf900_0022, 0x3940_0022, 0x7940_0022, 0xb940_0022, 0xf940_0022],
  ...[0x3980_0022, 0xa900_0822, 0xa940_0c22, 0xb800_4422, 0xc85f_7c22, 0xf822_0023, 0x3d80_0022, 0x3dc0_0022],
];

/** The value of a store: something for a register, or an address that a device may use. */
const valueFor = (random: Random): bigint =>
  random.below(3) === 0 ? BigInt(PLAYGROUND + random.below(0x10_0000)) : random.interesting64();

function image(random: Random, regions: readonly Region[]): Uint8Array {
  const words = new Map<number, readonly number[]>();
  words.set(0, [b(MAIN / 4)]);
  // Whatever it is, the next instruction is next.
  const vector = [mrs(28, ELR), addImm(28, 28, 4), msr(ELR, 28), ERET];
  for (let n = 0; n < 16; n++) words.set(VECTORS + n * 0x80, vector);
  // 1 GiB of devices as Normal memory, so that they can be accessed unaligned, and 1 GiB of RAM.
  words.set(TABLE, [0x701, 0, RAM_BASE | 0x701, 0]);
  const registers: readonly (readonly [number, number | bigint])[] = [
    [VBAR, CODE + VECTORS],
    [sysregIndex(3, 0, 10, 2, 0), 0xff], // MAIR_EL1
    [sysregIndex(3, 0, 2, 0, 2), 25n | (0b11n << 12n) | (1n << 23n) | (2n << 32n)], // TCR_EL1
    [sysregIndex(3, 0, 2, 0, 0), CODE + TABLE], // TTBR0_EL1
    [sysregIndex(3, 0, 1, 0, 2), 3 << 20], // CPACR_EL1
    [sysregIndex(3, 0, 1, 0, 0), 0x30d0_0801], // SCTLR_EL1
  ];
  const main = registers.flatMap(([index, value]) => [...mov(0, value), msr(index, 0), ISB]);
  for (let n = 0; n < ACCESSES; n++) {
    const [base, size] = random.pick(regions);
    const offset = random.pick([random.below(size), random.below(Math.min(size, 0x200))]);
    const address = base + (random.below(8) === 0 ? offset : offset & ~7);
    main.push(...mov(1, address), ...mov(2, valueFor(random)), random.pick(WORDS));
  }
  words.set(MAIN, [...main, ...mov(0, 0x8400_0008), hvc()]);
  const bytes = new DataView(new ArrayBuffer(MAIN + (main.length + 16) * 4));
  for (const [at, code] of words) for (const [n, word] of code.entries()) bytes.setUint32(at + n * 4, word, true);
  return new Uint8Array(bytes.buffer);
}

const fresh = new Random().seed;
afterAll(() => console.info(`fuzzed with ELVISOR_SEED=${fresh}`));

test.each([
  [3, 'a fixed seed', 0x5eed],
  [3, 'a fresh seed', fresh],
  [2, 'a fixed seed', 0x5eed],
  [2, 'a fresh seed', fresh],
] as const)(
  'a guest accesses every device with a GICv%i, %s',
  async (gic, _, seed) => {
    const vm = await MicroVm.create({
      kernel: image(new Random(seed), [...DEVICES, ...GICS[gic], ...GICS[gic]]),
      kernelFormat: 'raw',
      memory: '64M',
      backend: 'soft',
      clock: 'virtual',
      gic,
      its: gic === 3,
      disks: [{ path: disk, overlay: true }],
      ports: ['port'],
      console: 'hvc0',
      timeoutMs: 60_000,
      noReboot: true,
    });
    try {
      await vm.boot();
      const exit = await vm.exited;
      expect({ ...exit, seed }).toMatchObject({ reason: 'poweroff', seed });
      expect(vm.stats().mmio.answered).toBeGreaterThan(ACCESSES / 8);
      expect(vm.stats().exits.arm_nisv).toBeGreaterThan(0);
    } finally {
      await vm.close();
    }
  },
  90_000,
);
