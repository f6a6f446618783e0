import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sysregIndex } from '#lib/kvm/registers.js';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { newerQemuPath, oracleCache } from '../../scripts/newer-qemu.js';

/**
 * Runs instructions on given states, in Debian's qemu-aarch64 and in our engine, and gives back the states that they leave.
 * Both run the very same program, written here word by word: for each case it loads every register, executes the instructions
 * under test, and stores every register again. Under QEMU it is a static ELF of Linux; in the engine, code at EL1 in Normal memory.
 */

/** What an instruction can see and change. */
export interface State {
  /** X0 to X30. */
  x: bigint[];
  sp: bigint;
  /** Bits 31..28. */
  nzcv: number;
  fpcr: number;
  fpsr: number;
  /** V0 to V31, 128 bits each. */
  v: bigint[];
  /** The 256 bytes at {@link windowAddress}. */
  memory: Uint8Array;
}

export interface Case {
  /** One to four instructions. The first is at {@link instructionAddress}; a branch may go 8 bytes ahead or 8 back. */
  readonly words: readonly number[];
  readonly state: State;
}

export const WINDOW_SIZE = 256;
/** As many cases as one program holds. */
export const MAX_CASES = 12_000;

const QEMU = 'qemu-aarch64-static';
/** Its major version; 0 where it does not start. */
const majorOf = (program: string): number => {
  const { status, stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return status === 0 ? Number(/version (\d+)/.exec(stdout)?.[1] ?? 0) : 0;
};
/** Whether the reference is there; tests skip themselves by name where it is not. */
export const haveQemu = majorOf(QEMU) > 0;
/** One for instructions that QEMU has from this version on: the distribution's, or what `npm run fetch:oracles` has fetched. */
export const qemuFrom = (major: number): string | undefined =>
  [QEMU, newerQemuPath('user', oracleCache())].find((program) => majorOf(program) >= major);

const BASE = 0x4000_0000;
const BLOCKS = BASE + 0x1000;
const BLOCK_SIZE = 0x50;
const STATES = BASE + 0x10_0000;

/** Offsets in a case's state block. */
const At = { X: 0, SP: 248, NZCV: 256, FPCR: 264, FPSR: 272, V: 288, WINDOW: 800 } as const;
const STATE_SIZE = At.WINDOW + WINDOW_SIZE;

/** Offset of the first instruction under test in a case's block, and room for so many. */
const SLOT = 0x18;
const SLOTS = 4;

/** Address of case `index`'s window of memory, 16-byte aligned. */
export const windowAddress = (index: number): number => STATES + index * STATE_SIZE + At.WINDOW;
/** Address of case `index`'s first instruction. */
export const instructionAddress = (index: number): number => BLOCKS + index * BLOCK_SIZE + SLOT;

export const emptyState = (): State => ({
  x: Array.from({ length: 31 }, () => 0n),
  sp: 0n,
  nzcv: 0,
  fpcr: 0,
  fpsr: 0,
  v: Array.from({ length: 32 }, () => 0n),
  memory: new Uint8Array(WINDOW_SIZE),
});

// The few instructions that the program itself is made of.

const NOP = 0xd503201f;
const RET = 0xd65f03c0;
const TPIDR_EL0 = 0b11_011_1101_0000_010;
const NZCV = 0b11_011_0100_0010_000;
const FPCR = 0b11_011_0100_0100_000;
const FPSR = 0b11_011_0100_0100_001;
const msr = (register: number, rt: number): number => (0xd5000000 | (register << 5) | rt) >>> 0;
const mrs = (rt: number, register: number): number => (0xd5200000 | (register << 5) | rt) >>> 0;
const ldpX = (rt: number, rt2: number, rn: number, offset: number): number =>
  (0xa9400000 | (((offset / 8) & 0x7f) << 15) | (rt2 << 10) | (rn << 5) | rt) >>> 0;
const stpX = (rt: number, rt2: number, rn: number, offset: number): number =>
  (ldpX(rt, rt2, rn, offset) ^ (1 << 22)) >>> 0;
const ldrX = (rt: number, rn: number, offset: number): number =>
  (0xf9400000 | ((offset / 8) << 10) | (rn << 5) | rt) >>> 0;
const strX = (rt: number, rn: number, offset: number): number => (ldrX(rt, rn, offset) ^ (1 << 22)) >>> 0;
const ldpQ = (rt: number, rt2: number, rn: number, offset: number): number =>
  (0xad400000 | (((offset / 16) & 0x7f) << 15) | (rt2 << 10) | (rn << 5) | rt) >>> 0;
const stpQ = (rt: number, rt2: number, rn: number, offset: number): number =>
  (ldpQ(rt, rt2, rn, offset) ^ (1 << 22)) >>> 0;
const b = (from: number, to: number): number => (0x14000000 | (((to - from) >> 2) & 0x3ffffff)) >>> 0;
const bl = (from: number, to: number): number => (b(from, to) | 0x80000000) >>> 0;
const ldrLiteral = (rt: number, from: number, to: number): number =>
  (0x58000000 | ((((to - from) >> 2) & 0x7ffff) << 5) | rt) >>> 0;
const movz = (rd: number, value: number, shift = 0): number =>
  (0xd2800000 | ((shift / 16) << 21) | (value << 5) | rd) >>> 0;
const movk = (rd: number, value: number, shift: number): number =>
  (0xf2800000 | ((shift / 16) << 21) | (value << 5) | rd) >>> 0;
/** MOV between a register and SP: ADD #0. */
const movSp = (rd: number, rn: number): number => (0x91000000 | (rn << 5) | rd) >>> 0;
const SVC = 0xd4000001;
const HVC = 0xd4000002;
const SP = 31;

/** X0 holds the state's address: loads everything but X30. */
function restore(): number[] {
  const out: number[] = [];
  for (let n = 0; n < 32; n += 2) out.push(ldpQ(n, n + 1, 0, At.V + n * 16));
  out.push(ldrX(1, 0, At.NZCV), msr(NZCV, 1), ldrX(1, 0, At.FPCR), msr(FPCR, 1), ldrX(1, 0, At.FPSR), msr(FPSR, 1));
  out.push(ldrX(1, 0, At.SP), movSp(SP, 1));
  for (let n = 2; n < 30; n += 2) out.push(ldpX(n, n + 1, 0, At.X + n * 8));
  out.push(ldpX(0, 1, 0, At.X), RET);
  return out;
}

/** X0 holds the state's address, TPIDR_EL0 the case's X30, and X0 and X1 are already stored. */
function save(): number[] {
  const out: number[] = [];
  for (let n = 2; n < 30; n += 2) out.push(stpX(n, n + 1, 0, At.X + n * 8));
  out.push(mrs(1, TPIDR_EL0), strX(1, 0, At.X + 240));
  out.push(movSp(1, SP), strX(1, 0, At.SP));
  out.push(mrs(1, NZCV), strX(1, 0, At.NZCV), mrs(1, FPSR), strX(1, 0, At.FPSR), mrs(1, FPCR), strX(1, 0, At.FPCR));
  // What the program itself does must not depend on the case's rounding mode.
  out.push(msr(FPCR, 31));
  for (let n = 0; n < 32; n += 2) out.push(stpQ(n, n + 1, 0, At.V + n * 16));
  out.push(RET);
  return out;
}

/** Where the parts of a case's block are. */
const Block = { BACK: 0x10, AFTER: SLOT + SLOTS * 4, LITERALS: 0x40 } as const;

function block(at: number, words: readonly number[], next: number, restoreAt: number, saveAt: number): number[] {
  const after = at + Block.AFTER;
  const state = at + Block.LITERALS;
  return [
    ldrLiteral(0, at, state),
    bl(at + 4, restoreAt),
    ldrLiteral(30, at + 8, state + 8),
    b(at + 0xc, at + SLOT),
    0x91000bbd, // add x29, x29, #2: where a branch 8 bytes back lands
    b(at + 0x14, after),
    ...[...words, NOP, NOP, NOP, NOP].slice(0, SLOTS),
    msr(TPIDR_EL0, 30),
    ldrLiteral(30, after + 4, state),
    stpX(0, 1, 30, At.X),
    0xaa1e03e0, // mov x0, x30
    bl(after + 0x10, saveAt),
    b(after + 0x14, next),
  ];
}

/** write(1, STATES, bytes) until all is written; exit(0). */
const linuxEnd = (bytes: number): number[] => [
  movz(19, STATES & 0xffff),
  movk(19, STATES >>> 16, 16),
  movz(20, bytes & 0xffff),
  movk(20, bytes >>> 16, 16),
  movz(0, 1),
  movSp(1, 19),
  movSp(2, 20),
  movz(8, 64),
  SVC,
  0xf100001f, // cmp x0, #0
  0x5400008d, // b.le to the exit
  0x8b000273, // add x19, x19, x0
  0xeb000294, // subs x20, x20, x0
  0x54fffee1, // b.ne to the write
  movz(0, 0),
  movz(8, 94),
  SVC,
];

/** The whole program's memory from BASE on. @param end the instructions it ends by */
function program(cases: readonly Case[], end: readonly number[]): Uint8Array<ArrayBuffer> {
  const image = new Uint8Array(STATES - BASE + cases.length * STATE_SIZE);
  const view = new DataView(image.buffer);
  const put = (address: number, words: readonly number[]): number => {
    words.forEach((word, i) => {
      view.setUint32(address - BASE + i * 4, word, true);
    });
    return address + words.length * 4;
  };
  const restoreAt = BASE + 0x100;
  const saveAt = put(restoreAt, restore());
  const endAt = put(saveAt, save());
  put(endAt, end);
  cases.forEach((c, i) => {
    if (c.words.length > SLOTS)
      throw new RangeError(`${c.words.length} instructions in a case, but there is room for ${SLOTS}`);
    const at = BLOCKS + i * BLOCK_SIZE;
    put(at, block(at, c.words, i + 1 < cases.length ? at + BLOCK_SIZE : endAt, restoreAt, saveAt));
    const { state } = c;
    const base = STATES - BASE + i * STATE_SIZE;
    view.setBigUint64(at - BASE + Block.LITERALS, BigInt(STATES + i * STATE_SIZE), true);
    view.setBigUint64(at - BASE + Block.LITERALS + 8, BigInt.asUintN(64, state.x[30] ?? 0n), true);
    state.x.forEach((x, n) => {
      view.setBigUint64(base + At.X + n * 8, BigInt.asUintN(64, x), true);
    });
    view.setBigUint64(base + At.SP, BigInt.asUintN(64, state.sp), true);
    view.setUint32(base + At.NZCV, state.nzcv, true);
    view.setUint32(base + At.FPCR, state.fpcr, true);
    view.setUint32(base + At.FPSR, state.fpsr, true);
    state.v.forEach((v, n) => {
      view.setBigUint64(base + At.V + n * 16, BigInt.asUintN(64, v), true);
      view.setBigUint64(base + At.V + n * 16 + 8, BigInt.asUintN(64, v >> 64n), true);
    });
    image.set(state.memory.subarray(0, WINDOW_SIZE), base + At.WINDOW);
  });
  return image;
}

/** The states in a program's memory after it ran. */
function statesIn(bytes: Uint8Array): State[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / STATE_SIZE }, (_, i) => {
    const base = i * STATE_SIZE;
    const wide = (at: number): bigint => view.getBigUint64(at, true);
    return {
      x: Array.from({ length: 31 }, (_x, n) => wide(base + At.X + n * 8)),
      sp: wide(base + At.SP),
      nzcv: view.getUint32(base + At.NZCV, true),
      fpcr: view.getUint32(base + At.FPCR, true),
      fpsr: view.getUint32(base + At.FPSR, true),
      v: Array.from({ length: 32 }, (_v, n) => wide(base + At.V + n * 16) | (wide(base + At.V + n * 16 + 8) << 64n)),
      memory: bytes.slice(base + At.WINDOW, base + STATE_SIZE),
    };
  });
}

/** An ELF file with one segment, readable, writable and executable. */
export function elf(image: Uint8Array, base = BASE, entry = BLOCKS): Uint8Array {
  const file = new Uint8Array(0x1000 + image.length);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, 183, true); // EM_AARCH64
  view.setUint32(20, 1, true);
  view.setBigUint64(24, BigInt(entry), true);
  view.setBigUint64(32, 64n, true); // program headers
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true); // PT_LOAD
  view.setUint32(68, 7, true);
  view.setBigUint64(72, 0x1000n, true);
  view.setBigUint64(80, BigInt(base), true);
  view.setBigUint64(88, BigInt(base), true);
  view.setBigUint64(96, BigInt(image.length), true);
  view.setBigUint64(104, BigInt(image.length), true);
  view.setBigUint64(112, 0x1000n, true);
  file.set(image, 0x1000);
  return file;
}

/** The states that QEMU's user emulator leaves. @throws Error where it ends early: an instruction that it does not have, a fault */
export function runInQemu(cases: readonly Case[], qemu = QEMU): State[] {
  const bytes = cases.length * STATE_SIZE;
  const directory = mkdtempSync(join(tmpdir(), 'elvisor-oracle-'));
  try {
    const file = join(directory, 'program');
    writeFileSync(file, elf(program(cases, linuxEnd(bytes))));
    chmodSync(file, 0o755);
    const { stdout, status, signal, stderr } = spawnSync(qemu, ['-cpu', 'max', file], { maxBuffer: bytes + 4096 });
    if (status !== 0 || stdout.length !== bytes) {
      throw new Error(`${qemu} ended with ${signal ?? status} after ${stdout.length} of ${bytes} bytes: ${stderr}`);
    }
    return statesIn(new Uint8Array(stdout));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const SCTLR_EL1 = sysregIndex(3, 0, 1, 0, 0);
const PSTATE_UAO = 1n << 23n;
const SCTLR_M = 1n;
const SCTLR_SA = 1n << 3n;
const SCTLR_SA0 = 1n << 4n;
const CPACR_EL1 = sysregIndex(3, 0, 1, 0, 2);
const TTBR0_EL1 = sysregIndex(3, 0, 2, 0, 0);
const TCR_EL1 = sysregIndex(3, 0, 2, 0, 2);
const MAIR_EL1 = sysregIndex(3, 0, 10, 2, 0);
/** T0SZ, and no walks by TTBR1_EL1: the table is one of level 1. */
const TCR_39_BITS = 25n | (1n << 23n) | (25n << 16n) | (2n << 32n);
/** A block with the access flag, inner shareable. */
const BLOCK_DESCRIPTOR = 1n | (1n << 10n) | (3n << 8n);
const ESR_EL1 = sysregIndex(3, 0, 5, 2, 0);
const ELR_EL1 = sysregIndex(3, 0, 4, 0, 1);

/** The states that our engine leaves. @throws Error where an instruction takes an exception */
export function runInEngine(cases: readonly Case[]): State[] {
  const image = program(cases, [HVC]);
  const table = Math.ceil(image.length / 4096) * 4096;
  const size = table + 4096;
  const machine = createMachine();
  try {
    const memory = machine.allocate(size);
    if (memory === undefined) throw new Error(`no room for ${size} bytes of memory`);
    memory.bytes.set(image);
    // Everything is one block of 1 GiB, Normal memory, where it is: with the MMU off nothing could be misaligned.
    const block = new DataView(memory.bytes.buffer, memory.bytes.byteOffset + table + (BASE / 2 ** 30) * 8);
    block.setBigUint64(0, BigInt(BASE) | BLOCK_DESCRIPTOR, true);
    machine.map(BASE, size, memory, 0, false);
    const cpu = machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false });
    cpu.reset();
    cpu.setSysreg(CPACR_EL1, 3n << 20n);
    // LDTR and STTR act as EL1, whose memory it is.
    cpu.setPstate(cpu.getPstate() | PSTATE_UAO);
    // QEMU 7.2 does not check SP's alignment.
    cpu.setSysreg(MAIR_EL1, 0xffn);
    cpu.setSysreg(TCR_EL1, TCR_39_BITS);
    cpu.setSysreg(TTBR0_EL1, BigInt(BASE + table));
    cpu.setSysreg(SCTLR_EL1, (cpu.getSysreg(SCTLR_EL1)! & ~(SCTLR_SA | SCTLR_SA0)) | SCTLR_M);
    cpu.setPc(BigInt(BLOCKS));
    let stop: CpuStop = CpuStop.BUDGET;
    // An exception has no vectors to go to: it ends as a storm of them.
    for (let n = 0; stop === CpuStop.BUDGET && n <= cases.length / 1000; n++) stop = cpu.run(1 << 20);
    if (stop !== CpuStop.HVC) {
      const elr = Number(cpu.getSysreg(ELR_EL1) ?? 0n);
      const index = Math.floor((elr - BLOCKS) / BLOCK_SIZE);
      const words = (cases[index]?.words ?? []).map((w) => w.toString(16).padStart(8, '0'));
      throw new Error(
        `the engine stopped with ${stop} at 0x${cpu.getPc().toString(16)}; ESR_EL1 0x${cpu.getSysreg(ESR_EL1)?.toString(16)}, ` +
          `ELR_EL1 0x${elr.toString(16)}: case ${index}, ${words.join(' ')}`,
      );
    }
    return statesIn(memory.bytes.slice(STATES - BASE, image.length));
  } finally {
    machine.close();
  }
}

/** Runs at most {@link MAX_CASES} cases on both. */
export function runCases(
  cases: readonly Case[],
  qemu = QEMU,
): {
  readonly qemu: readonly State[];
  readonly engine: readonly State[];
} {
  if (cases.length > MAX_CASES) throw new RangeError(`${cases.length} cases, but a program holds ${MAX_CASES}`);
  return { qemu: runInQemu(cases, qemu), engine: runInEngine(cases) };
}

/** What differs between two states, in words. */
export function differences(engine: State, qemu: State): string[] {
  const out: string[] = [];
  const compare = (name: string, a: bigint | number, b: bigint | number): void => {
    if (a !== b) out.push(`${name} is 0x${a.toString(16)}, QEMU has 0x${b.toString(16)}`);
  };
  for (let n = 0; n < 31; n++) compare(`X${n}`, engine.x[n] ?? 0n, qemu.x[n] ?? 0n);
  compare('SP', engine.sp, qemu.sp);
  compare('NZCV', engine.nzcv, qemu.nzcv);
  compare('FPCR', engine.fpcr, qemu.fpcr);
  compare('FPSR', engine.fpsr, qemu.fpsr);
  for (let n = 0; n < 32; n++) compare(`V${n}`, engine.v[n] ?? 0n, qemu.v[n] ?? 0n);
  for (let n = 0; n < WINDOW_SIZE; n++) compare(`byte ${n}`, engine.memory[n] ?? 0, qemu.memory[n] ?? 0);
  return out;
}
