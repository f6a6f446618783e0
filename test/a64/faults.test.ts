import { afterEach, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { type Cpu, CpuStop, type Machine } from '#lib/soft/cpu/cpu.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { mapFlat } from '../soft/bare-metal.ts';

/** What instructions do where they do not complete: exceptions, exits, and a state that is as it was before. */

const RAM = 0x4000_0000;
const CODE = RAM + 0x1000;
const DATA = RAM + 0x2000;
const DEVICE = 0x0900_0000;
const VBAR_EL1 = sysregIndex(3, 0, 12, 0, 0);
const SCTLR_EL1 = sysregIndex(3, 0, 1, 0, 0);
const ESR_EL1 = sysregIndex(3, 0, 5, 2, 0);
const FAR_EL1 = sysregIndex(3, 0, 6, 0, 0);
const ELR_EL1 = sysregIndex(3, 0, 4, 0, 1);
const HVC_1 = 0xd4000022;

let machine: Machine | undefined;
afterEach(() => {
  machine?.close();
  machine = undefined;
});

/** Translation tables. */
const TABLES = RAM + 0x10_0000;

/** A processor at EL1, in Normal memory; an exception taken there ends in HVC #1. */
function setUp(...words: readonly number[]): Cpu {
  machine = createMachine();
  const memory = machine.allocate(0x3000);
  if (memory === undefined) throw new Error('no memory');
  const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.length);
  // Synchronous exceptions from EL1 and from EL0.
  for (const vector of [0x200, 0x400]) view.setUint32(vector, HVC_1, true);
  words.forEach((word, i) => {
    view.setUint32(CODE - RAM + i * 4, word, true);
  });
  machine.map(RAM, 0x3000, memory, 0, false);
  const tables = machine.allocate(0x2000);
  if (tables === undefined) throw new Error('no memory');
  machine.map(TABLES, 0x2000, tables, 0, true);
  const cpu = machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false });
  cpu.reset();
  cpu.setSysreg(VBAR_EL1, BigInt(RAM));
  // nAA, which is set at reset, would let ordered accesses cross 16 bytes.
  cpu.setSysreg(SCTLR_EL1, cpu.getSysreg(SCTLR_EL1)! & ~(1n << 6n));
  const table = new DataView(tables.bytes.buffer, tables.bytes.byteOffset);
  mapFlat(cpu, (pa, value) => table.setBigUint64(pa - TABLES, value, true), TABLES);
  cpu.setPc(BigInt(CODE));
  for (let n = 0; n < 31; n++) cpu.setX(n, BigInt(0x1000 + n));
  return cpu;
}

/** Runs to the exception and gives its ESR_EL1.EC and ISS. */
function exception(cpu: Cpu): { ec: number; iss: number } {
  expect(cpu.run(100)).toBe(CpuStop.HVC);
  expect(cpu.hvcImmediate).toBe(1);
  const esr = Number(cpu.getSysreg(ESR_EL1));
  return { ec: esr >>> 26, iss: esr & 0x1ff_ffff };
}

describe('alignment of atomic accesses', () => {
  const X1 = 1 << 5;
  const accesses: readonly (readonly [string, number, number, boolean])[] = [
    ['LDXR X', 0xc85f7c00 | X1 | 2, 8, false],
    ['STXR X', 0xc8007c00 | (3 << 16) | X1 | 2, 8, true],
    ['LDXP X', 0xc87f0000 | (4 << 10) | X1 | 2, 16, false],
    ['LDAR W', 0x88dffc00 | X1 | 2, 4, false],
    ['STLR H', 0x489ffc00 | X1 | 2, 2, true],
    ['LDAPR X', 0xf8bfc000 | X1 | 2, 8, false],
    ['LDADDAL X', 0xf8e00000 | (3 << 16) | X1 | 2, 8, false],
    ['SWPH', 0x78208000 | (3 << 16) | X1 | 2, 2, false],
    ['CAS W', 0x88a07c00 | (3 << 16) | X1 | 2, 4, false],
    ['CASP X', 0x48207c00 | (4 << 16) | X1 | 2, 16, false],
  ];

  test.each(accesses)('%s across 16 bytes faults', (_name, word, bytes, isWrite) => {
    const cpu = setUp(word);
    const va = BigInt(DATA + 16 - bytes + 1);
    cpu.setX(1, va);
    // DFSC 0x21 is an alignment fault; bit 6 is WnR.
    expect(exception(cpu)).toEqual({ ec: 0x25, iss: 0x21 | (isWrite ? 1 << 6 : 0) });
    expect(cpu.getSysreg(FAR_EL1)).toBe(va);
    expect(cpu.getSysreg(ELR_EL1)).toBe(BigInt(CODE));
    for (let n = 2; n < 31; n++) expect(cpu.getX(n)).toBe(BigInt(0x1000 + n));
  });

  test.each(accesses.filter(([, , bytes]) => bytes < 16))('%s within 16 bytes does not', (_name, word) => {
    const cpu = setUp(word, 0xd4000002);
    cpu.setX(1, BigInt(DATA + 1));
    expect(cpu.run(100)).toBe(CpuStop.HVC);
    expect(cpu.hvcImmediate).toBe(0);
  });
});

describe('accesses outside RAM', () => {
  // The syndrome is valid for single registers without write-back only (Arm ARM DDI 0487 D24.2.37).
  test.each([
    ['LDRSH X2, [X1]', 0x79800022, { isWrite: false, isv: true, size: 2, signExtend: true, sf: true, srt: 2 }],
    ['LDRSB W2, [X1]', 0x39c00022, { isWrite: false, isv: true, size: 1, signExtend: true, sf: false, srt: 2 }],
    ['LDR W2, [X1]', 0xb9400022, { isWrite: false, isv: true, size: 4, signExtend: false, sf: false, srt: 2 }],
    ['LDUR X2, [X1]', 0xf8400022, { isWrite: false, isv: true, size: 8, signExtend: false, sf: true, srt: 2 }],
    ['LDR X2, [X1, XZR]', 0xf87f6822, { isWrite: false, isv: true, size: 8, signExtend: false, sf: true, srt: 2 }],
    ['LDAR W2, [X1]', 0x88dffc22, { isWrite: false, isv: true, size: 4, signExtend: false, sf: false, srt: 2 }],
    ['LDTR W2, [X1]', 0xb8400822, { isWrite: false, isv: true, size: 4, signExtend: false, sf: false, srt: 2 }],
    ['STR W2, [X1]', 0xb9000022, { isWrite: true, isv: true, size: 4, sf: false, srt: 2, value: 0x1002n }],
    ['STRB WZR, [X1]', 0x3900003f, { isWrite: true, isv: true, size: 1, sf: false, srt: 31, value: 0n }],
    ['LDR X2, [X1], #8', 0xf8408422, { isWrite: false, isv: false }],
    ['STR X2, [X1, #0]!', 0xf8000c22, { isWrite: true, isv: false }],
    ['LDP X2, X3, [X1]', 0xa9400c22, { isWrite: false, isv: false }],
    ['STP X2, X3, [X1], #16', 0xa8810c22, { isWrite: true, isv: false }],
    ['LDADD X3, X2, [X1]', 0xf8230022, { isWrite: false, isv: false }],
  ] as const)('%s stops with its syndrome and changes nothing', (_name, word, access) => {
    const cpu = setUp(word);
    cpu.setX(1, BigInt(DEVICE));
    expect(cpu.run(100)).toBe(CpuStop.MMIO);
    expect(cpu.access).toMatchObject({ ...access, ipa: DEVICE });
    expect(cpu.getPc()).toBe(BigInt(CODE));
    expect(cpu.getX(1)).toBe(BigInt(DEVICE));
    for (let n = 2; n < 31; n++) expect(cpu.getX(n)).toBe(BigInt(0x1000 + n));
  });

  test('a load is completed with its extension', () => {
    const cpu = setUp(0x79800022, 0x39c00022 + 1, 0xd4000002);
    cpu.setX(1, BigInt(DEVICE));
    expect(cpu.run(100)).toBe(CpuStop.MMIO);
    cpu.completeRead(0x8001, 0);
    expect(cpu.run(100)).toBe(CpuStop.MMIO);
    cpu.completeRead(0x80, 0);
    expect(cpu.run(100)).toBe(CpuStop.HVC);
    expect(cpu.getX(2)).toBe(0xffff_ffff_ffff_8001n);
    expect(cpu.getX(3)).toBe(0xffff_ff80n);
  });

  test('a pair that runs over the end of RAM changes neither register nor base', () => {
    const cpu = setUp(0xa8c10c22); // LDP X2, X3, [X1], #16
    cpu.setX(1, BigInt(RAM + 0x3000 - 8));
    expect(cpu.run(100)).toBe(CpuStop.MMIO);
    expect([1, 2, 3].map((n) => cpu.getX(n))).toEqual([BigInt(RAM + 0x3000 - 8), 0x1002n, 0x1003n]);
  });
});

describe('exception generation', () => {
  test.each([
    ['SVC #0x1234', 0xd4024681, 0x15, 0x1234, 4],
    ['BRK #0xffff', 0xd43fffe0, 0x3c, 0xffff, 0],
    ['UDF', 0x00000000, 0, 0, 0],
    ['HLT, with no debugger', 0xd4400000, 0, 0, 0],
  ])('%s', (_name, word, ec, iss, past) => {
    const cpu = setUp(word);
    expect(exception(cpu)).toEqual({ ec, iss });
    expect(cpu.getSysreg(ELR_EL1)).toBe(BigInt(CODE + past));
  });

  test('HVC and SMC stop with their immediate', () => {
    const hvc = setUp(0xd40acf02);
    expect(hvc.run(100)).toBe(CpuStop.HVC);
    expect(hvc.hvcImmediate).toBe(0x5678);
    expect(hvc.getPc()).toBe(BigInt(CODE + 4));
    machine?.close();
    const smc = setUp(0xd40acf03);
    expect(smc.run(100)).toBe(CpuStop.SMC);
    expect(smc.hvcImmediate).toBe(0x5678);
    expect(smc.getPc()).toBe(BigInt(CODE));
  });

  test.each([
    ['HVC', 0xd4000002],
    ['SMC', 0xd4000003],
  ])('%s is UNDEFINED at EL0', (_name, word) => {
    const cpu = setUp(word);
    cpu.setPstate(0n);
    expect(exception(cpu)).toEqual({ ec: 0, iss: 0 });
    expect(cpu.getSysreg(ELR_EL1)).toBe(BigInt(CODE));
  });

  test('a branch to a misaligned address faults at its target', () => {
    const cpu = setUp(0xd61f0020); // BR X1
    cpu.setX(1, BigInt(DATA + 2));
    expect(exception(cpu)).toEqual({ ec: 0x22, iss: 0 });
    expect(cpu.getSysreg(ELR_EL1)).toBe(BigInt(DATA + 2));
    expect(cpu.getSysreg(FAR_EL1)).toBe(BigInt(DATA + 2));
  });
});
