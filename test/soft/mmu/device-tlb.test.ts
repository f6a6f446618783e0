import { beforeEach, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { ldp, load, msr, NOP, store, sys, TLBI_VMALLE1, tlbiAside1, tlbiOperand, tlbiVae1 } from '../a64.ts';
import { BareMetal, DATA, EL0T, EL1H, type Granule, MASKED, PageTables, REG, withMmu } from '../bare-metal.ts';

const VA = 0x8080_0000_0000n;
const UART = 0x900_0000;
const RTC = 0x901_0000;
const PERMISSION_3 = 15;

let vm: BareMetal;
let tables: PageTables;
const start = (granule: Granule = 12): void => {
  vm = new BareMetal();
  tables = withMmu(vm, { granule });
};
beforeEach(() => start());

/** Where an access goes: the guest-physical address, or the status of the fault. */
function where(word: number, va: bigint, options: { before?: number[]; pstate?: bigint; x1?: bigint } = {}): number {
  const { before = [], pstate, x1 = 0n } = options;
  const o = vm.execute([...before, word, NOP], { x: { 0: va, 1: x1 }, ...(pstate === undefined ? {} : { pstate }) });
  if (o.stop === CpuStop.MMIO) return vm.cpu.access.ipa;
  expect(o.done).toBe(false);
  return o.iss & 0x3f;
}
const READ = load(4, 2, 0);
const WRITE = store(4, 2, 0);

describe.each([
  ['VMALLE1', TLBI_VMALLE1],
  ['VAE1', tlbiVae1(1)],
  ['ASIDE1', tlbiAside1(1)],
  ['VALE1', sys(0, 8, 7, 5, 1)],
])('TLBI %s', (_name, word) => {
  test.each([12, 14, 16] as const)('forgets a device page of granule 2^%d', (granule) => {
    start(granule);
    const va = VA + BigInt((1 << granule) - 0x1000);
    const shift = (1 << granule) - 0x1000;
    tables.map(VA, UART);
    for (let n = 0; n < 3; n++)
      expect([where(READ, va), where(WRITE, va + 8n)]).toEqual([UART + shift, UART + shift + 8]);
    tables.map(VA, RTC);
    expect(where(READ, va, { before: [word], x1: tlbiOperand(VA) })).toBe(RTC + shift);
    expect(where(WRITE, va)).toBe(RTC + shift);
    tables.map(VA, RTC, { ap: 2 });
    expect(where(READ, va, { before: [word], x1: tlbiOperand(VA) })).toBe(RTC + shift);
    expect(where(WRITE, va)).toBe(PERMISSION_3);
  });
});

test('a block of devices is forgotten by any address in it', () => {
  tables.map(VA, 0x800_0000, { level: 2 });
  expect([where(READ, VA), where(READ, VA + 0x5000n)]).toEqual([0x800_0000, 0x800_5000]);
  tables.map(VA, 0xa00_0000, { level: 2 });
  expect(where(READ, VA + 0x5000n, { before: [tlbiVae1(1)], x1: tlbiOperand(VA + 0x1000n) })).toBe(0xa00_5000);
});

test('permissions are those of the EL, of PSTATE.PAN, and of loads and stores', () => {
  tables.map(VA, UART, { ap: 0 });
  expect(where(READ, VA)).toBe(UART);
  expect(where(READ, VA, { pstate: EL0T })).toBe(PERMISSION_3);
  tables.map(VA + 0x1000n, UART, { ap: 1 });
  expect(where(READ, VA + 0x1000n, { pstate: EL0T })).toBe(UART);
  expect(where(READ, VA + 0x1000n)).toBe(UART);
  expect(where(READ, VA + 0x1000n, { pstate: EL1H | MASKED | (1n << 22n) })).toBe(PERMISSION_3);
  tables.map(VA + 0x2000n, UART, { ap: 2 });
  expect(where(READ, VA + 0x2000n)).toBe(UART);
  expect(where(WRITE, VA + 0x2000n)).toBe(PERMISSION_3);
});

test('another address space has devices elsewhere', () => {
  tables.map(VA, UART, { notGlobal: true });
  const other = new PageTables(vm, DATA + 0x10_0000);
  other.map(VA, RTC, { notGlobal: true });
  other.mapRange(0x4000_0000, 0x4000_0000, DATA - 0x4000_0000);
  const use = (root: number, asid: bigint): number[] => {
    vm.cpu.setX(3, BigInt(root) | (asid << 48n));
    return [msr(REG.TTBR1_EL1, 3), msr(REG.TTBR0_EL1, 3)];
  };
  for (let n = 0; n < 3; n++) {
    expect(where(READ, VA, { before: use(tables.root, 1n) })).toBe(UART);
    expect(where(READ, VA, { before: use(other.root, 2n) })).toBe(RTC);
  }
});

test('a page becomes RAM, and is a device again', () => {
  tables.map(VA, UART);
  expect(where(READ, VA)).toBe(UART);
  vm.machine.map(UART, 0x1000, vm.memory, DATA - 0x4000_0000, false);
  vm.write64(DATA, 0x1234n);
  expect(vm.execute([READ], { x: { 0: VA } }).done).toBe(true);
  expect(vm.cpu.getX(2)).toBe(0x1234n);
  vm.machine.unmap(UART, 0x1000);
  expect([where(READ, VA), where(WRITE, VA)]).toEqual([UART, UART]);
  // Read-only: loads are RAM's, stores are not.
  vm.machine.map(UART, 0x1000, vm.memory, DATA - 0x4000_0000, true);
  for (let n = 0; n < 2; n++) {
    expect(vm.execute([READ], { x: { 0: VA } }).done).toBe(true);
    expect(where(WRITE, VA)).toBe(UART);
  }
});

test('what is no aligned element is looked at each time', () => {
  const ALIGNMENT = 0x21;
  tables.map(VA, UART, { attr: 1 });
  tables.map(VA + 0x1000n, UART, { attr: 0 });
  for (const va of [VA, VA + 0x1000n]) expect(where(READ, va)).toBe(UART);
  expect(where(READ, VA + 2n)).toBe(ALIGNMENT);
  expect(where(READ, VA + 0x1002n)).toBe(UART + 2);
  expect(vm.cpu.access).toMatchObject({ isv: true, size: 4 });
  expect(where(ldp(2, 3, 0), VA)).toBe(UART);
  expect(vm.cpu.access.isv).toBe(false);
  expect(where(READ, VA + 0xffen + 0x1000n)).toBe(UART + 0xffe);
  expect(vm.cpu.access.isv).toBe(false);
});

test('a watched page is asked each time', () => {
  tables.map(VA, UART);
  expect(where(READ, VA)).toBe(UART);
  // DBGWVR0_EL1 and DBGWCR0_EL1 (E, PAC 3, LSC 3, all bytes); MDSCR_EL1.MDE and KDE.
  vm.cpu.setSysreg(sysregIndex(2, 0, 0, 0, 6), VA);
  vm.cpu.setSysreg(sysregIndex(2, 0, 0, 0, 7), (0xffn << 5n) | (3n << 3n) | (3n << 1n) | 1n);
  vm.cpu.setSysreg(REG.MDSCR_EL1, (1n << 15n) | (1n << 13n));
  vm.cpu.setSysreg(sysregIndex(2, 0, 1, 1, 4), 8n);
  const unmasked = EL1H | 0x1c0n;
  expect(where(READ, VA, { pstate: unmasked })).toBe(0x22);
  expect(where(READ, VA + 8n, { pstate: unmasked })).toBe(UART + 8);
});
