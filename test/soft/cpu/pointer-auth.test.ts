import { beforeEach, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { computePac } from '#lib/soft/a64/qarma.js';
import { emitFunctions, instantiateFunctions, pureFunction } from '#lib/soft/jit/pure-function.js';
import { Random } from '../../a64/random.ts';
import { b, ISB, mov, mrs, msr, svc } from '../a64.ts';
import { BareMetal, DATA, EL0T, REG } from '../bare-metal.ts';
import { eachProgram, haveQemuSystem, SystemProgram } from '../system-oracle.ts';

/** FEAT_PAuth: the cipher by its published vectors, the instructions against QEMU, and what a vCPU without it does. */

const ISAR1 = sysregIndex(3, 0, 0, 6, 1);
const key = (n: number): number => sysregIndex(3, 0, 2, 1 + (n >> 2), n & 3);
const KEYS = Array.from({ length: 10 }, (_, n) => key(n));
const EN = [1n << 31n, 1n << 30n, 1n << 27n, 1n << 13n] as const;
const ALL_ENABLED = EN.reduce((a, c) => a | c);
const SCTLR_RES1 = 0x30d0_0980n;
/** Layouts of pointers in one program, with eight attempts each. */
const LAYOUTS = 60;

/** Data-processing (1 source): PACIA 0 to AUTDB 7, their Z forms from 8, XPACI 16, XPACD 17. */
const oneSource = (opcode: number, rd: number, rn = 31): number => (0xdac10000 | (opcode << 10) | (rn << 5) | rd) >>> 0;
const pacga = (rd: number, rn: number, rm: number): number => (0x9ac03000 | (rm << 16) | (rn << 5) | rd) >>> 0;
const hint = (n: number): number => (0xd503201f | (n << 5)) >>> 0;
const XPACLRI = 7;
const HINTS_1716 = [8, 10, 12, 14] as const;
const HINTS_LR = [24, 25, 26, 27, 28, 29, 30, 31] as const;
/** BRAAZ, BRABZ, BLRAAZ … by what bits 24, 22..21 and 10 say; Rm is 31 where there is none. */
const branch = (opc: number, withModifier: boolean, isB: boolean, rn: number, rm: number): number =>
  (0xd61f0800 | (withModifier ? 1 << 24 : 0) | (opc << 21) | (isB ? 1 << 10 : 0) | (rn << 5) | rm) >>> 0;
const ldra = (isB: boolean, imm10: number, writeBack: boolean, rt: number, rn: number): number =>
  (0xf8200400 |
    (isB ? 1 << 23 : 0) |
    ((imm10 >> 9) << 22) |
    ((imm10 & 0x1ff) << 12) |
    (writeBack ? 1 << 11 : 0) |
    (rn << 5) |
    rt) >>>
  0;

test('QARMA: the vector of its paper', () => {
  const cipher = pureFunction({ data: 'i64', modifier: 'i64', key0: 'i64', key1: 'i64' }, (e, a) =>
    computePac(e, a.data, a.modifier, a.key0, a.key1),
  );
  const pac = instantiateFunctions(emitFunctions({ cipher })).cipher as unknown as (
    data: bigint,
    modifier: bigint,
    key0: bigint,
    key1: bigint,
  ) => bigint;
  const found = pac(0xfb62_3599_da6e_8127n, 0x477d_469d_ec0b_8762n, 0x84be_85ce_9804_e94bn, 0xec28_02d4_e0a4_88e9n);
  // r = 5, with sigma 2.
  expect(BigInt.asUintN(64, found)).toBe(0xc003_b939_99b3_3765n);
});

(haveQemuSystem ? describe : describe.skip)(
  `as QEMU does it${haveQemuSystem ? '' : ' (qemu-system-aarch64 is not installed)'}`,
  () => {
    /** Pointers of every kind: good ones of both halves, tagged ones, what is neither. */
    const pointer = (random: Random): bigint => {
      const bits = 25n + BigInt(random.below(30));
      const low = random.u64() & ((1n << bits) - 1n);
      switch (random.below(5)) {
        case 0:
          return low;
        case 1:
          return BigInt.asUintN(64, ~low);
        case 2:
          return low | (BigInt(random.below(256)) << 56n);
        case 3:
          return BigInt.asUintN(56, ~low) | (BigInt(random.below(256)) << 56n);
        default:
          return random.u64();
      }
    };

    /**
     * The same with bit 63 as bit 55: where only one half ignores the top byte, or the halves differ in size, QEMU 7.2 tells them
     * apart by other bits than AddPAC does.
     */
    const withHalf = (p: bigint): bigint => BigInt.asUintN(63, p) | (((p >> 55n) & 1n) << 63n);

    test('signing, authenticating and stripping in every layout of pointers', () => {
      eachProgram(LAYOUTS * 8, (random) => {
        const program = new SystemProgram();
        program.vm.cpu.pointerAuth = true;
        const x = (n: number): number => n;
        for (let n = 0; n < LAYOUTS; n++) {
          // T0SZ, T1SZ and both granules; TBI and TBID of both halves. The MMU is off.
          const isEven = random.below(2) === 0;
          const is64K = random.below(3) === 0;
          const size = (): number => (is64K ? 12 + random.below(28) : 16 + random.below(24));
          const tsz = size();
          const tcr =
            BigInt(tsz) |
            (BigInt(isEven ? tsz : size()) << 16n) |
            (is64K ? (1n << 14n) | (3n << 30n) : 2n << 30n) |
            (BigInt(isEven ? random.pick([0, 3]) : random.below(4)) << 37n) |
            (BigInt(isEven ? random.pick([0, 3]) : random.below(4)) << 51n);
          // With no key enabled at all QEMU 7.2 takes XPACI and XPACD for disabled too.
          const enabled = random.below(3) === 0 ? EN.filter((_, k) => k === n % 4 || random.below(2) === 0) : EN;
          const sctlr = enabled.reduce((a, c) => a | c, SCTLR_RES1);
          program.emit(...mov(0, tcr), msr(REG.TCR_EL1, 0), ...mov(0, sctlr), msr(REG.SCTLR_EL1, 0));
          for (const index of KEYS) program.emit(...mov(0, random.u64()), msr(index, 0));
          program.emit(ISB);
          for (let k = 0; k < 4; k++) {
            let p = pointer(random);
            if (!isEven) p = withHalf(p);
            const which = random.below(4);
            // Signed, authenticated, authenticated with another modifier, with another key, stripped, generic.
            program.attempt(`TCR 0x${tcr.toString(16)} pointer 0x${p.toString(16)} key ${which}`, {
              x: { 1: p, 2: random.u64(), 3: p, 4: p, 5: p, 6: p, 7: p, 8: random.u64() },
              words: [
                oneSource(which, x(1), 2),
                0xaa0103e3, // mov x3, x1
                oneSource(4 + which, x(3), 2),
                0xaa0103e4,
                oneSource(4 + which, x(4), 8),
                0xaa0103e5,
                oneSource(4 + (which ^ 1), x(5), 2),
                0xaa0103e6,
                oneSource(16 + (which >> 1), x(6)),
                oneSource(8 + which, x(7)),
                pacga(9, 1, 2),
              ],
              registers: [1, 3, 4, 5, 6, 7, 9],
            });
            const sp = random.u64() & ~15n;
            program.attempt(`hints on 0x${p.toString(16)}`, {
              x: { 9: sp, 16: random.u64(), 17: p, 30: p },
              words: [
                0x9100013f, // mov sp, x9
                hint(random.pick(HINTS_1716)),
                hint(random.pick(HINTS_LR)),
                0xaa1e03e1, // mov x1, x30
                // What is signed already has any bit 63.
                isEven ? hint(random.pick(HINTS_LR)) : hint(0),
                0xaa1e03e2,
                hint(XPACLRI),
              ],
              registers: [17, 1, 2, 30],
            });
          }
        }
        const wrong = program.run().filter((r) => r.ours.join() !== r.qemu.join());
        expect({ seed: random.seed, wrong: wrong.slice(0, 5) }).toEqual({ seed: random.seed, wrong: [] });
      });
    });

    test('branches, loads and exception returns', () => {
      const random = new Random();
      const program = new SystemProgram();
      program.vm.cpu.pointerAuth = true;
      program.vm.write64(DATA + 0x800, 0x1234_5678n);
      program.emit(...mov(0, SCTLR_RES1 | ALL_ENABLED), msr(REG.SCTLR_EL1, 0), ...mov(0, 16n | (16n << 16n)));
      program.emit(msr(REG.TCR_EL1, 0));
      for (const index of KEYS) program.emit(...mov(0, random.u64()), msr(index, 0));
      program.emit(ISB);
      const modifier = random.u64() & ~15n;
      for (const isB of [false, true]) {
        for (const isGood of [true, false]) {
          const name = `${isB ? 'B' : 'A'}, ${isGood ? 'good' : 'bad'}`;
          for (const opc of [0, 1, 2]) {
            for (const withModifier of [false, true]) {
              // RET has its modifier in SP.
              if (opc === 2 && withModifier) continue;
              const signs = (withModifier || opc === 2 ? 0 : 8) + (isB ? 1 : 0);
              program.attempt(`branch ${opc} ${withModifier} ${name}`, {
                x: { 3: modifier, 5: 0 },
                words: [
                  0x9100007f, // mov sp, x3
                  0x100000fe, // adr x30, to the last instruction
                  oneSource(signs, 30, signs === 8 || signs === 9 ? 31 : 3),
                  isGood ? hint(0) : 0xd26d03de, // eor x30, x30, #1 << 19
                  0xaa1e03e4, // mov x4, x30
                  opc === 2 ? branch(2, false, isB, 31, 31) : branch(opc, withModifier, isB, 4, withModifier ? 3 : 31),
                  0x910004a5, // add x5, x5, #1, which is not reached
                  b(1),
                  0xaa1e03e6, // mov x6, x30
                ],
                registers: [4, 5, 6],
              });
            }
          }
          for (const writeBack of [false, true]) {
            program.attempt(`load ${writeBack} ${name}`, {
              x: { 1: DATA + 0x1000, 2: 0 },
              words: [
                oneSource(10 + (isB ? 1 : 0), 1),
                isGood ? hint(0) : 0xd2570021, // eor x1, x1, #1 << 41
                ldra(isB, 0x300, writeBack, 2, 1),
              ],
              registers: [1, 2],
            });
          }
          program.attempt(`ERETA ${name}`, {
            x: { 3: modifier, 5: 0 },
            words: [
              0x9100007f,
              0x100000fe, // adr x30, to the last instruction
              oneSource(isB ? 1 : 0, 30, 3),
              isGood ? hint(0) : 0xd26d03de,
              msr(REG.ELR_EL1, 30),
              0xd2807880 | 5, // mov x5, #0x3c4: EL1t
              msr(REG.SPSR_EL1, 5),
              isB ? 0xd69f0fff : 0xd69f0bff,
              mrs(7, REG.SPSEL),
            ],
            registers: [5, 7],
          });
        }
      }
      const wrong = program.run().filter((r) => r.ours.join() !== r.qemu.join());
      expect({ seed: random.seed, wrong: wrong.slice(0, 5) }).toEqual({ seed: random.seed, wrong: [] });
    });
  },
);

describe('a vCPU', () => {
  let vm: BareMetal;
  beforeEach(() => {
    vm = new BareMetal();
  });
  const fields = (): bigint => (vm.sysreg(ISAR1) >> 4n) & 0xff0_00ffn;
  const WORDS = [oneSource(0, 1, 2), oneSource(15, 1), oneSource(16, 1), pacga(1, 2, 3), ldra(false, 0, false, 1, 2)];

  test('without it: hints do nothing, the rest is UNDEFINED, keys and enables are not there', () => {
    expect(fields()).toBe(0n);
    for (const word of [...WORDS, branch(0, false, false, 1, 31), branch(2, false, true, 31, 31), 0xd69f0bff])
      expect([word.toString(16), vm.execute([word], { x: { 1: DATA, 2: DATA } }).ec]).toEqual([word.toString(16), 0]);
    for (const n of [XPACLRI, ...HINTS_1716, ...HINTS_LR]) {
      const o = vm.execute([hint(n)], { x: { 17: 1n << 60n, 16: 1, 30: 1n << 60n } });
      expect([o.done, vm.cpu.getX(17), vm.cpu.getX(30)]).toEqual([true, 1n << 60n, 1n << 60n]);
    }
    for (const index of KEYS) {
      expect(vm.cpu.getSysreg(index)).toBeUndefined();
      expect(vm.cpu.setSysreg(index, 1n)).toBe(false);
      expect([vm.execute([mrs(1, index)]).ec, vm.execute([msr(index, 1)]).ec]).toEqual([0, 0]);
    }
    expect(vm.cpu.sysregs()).not.toContain(KEYS[0]);
    expect(vm.execute([msr(REG.SCTLR_EL1, 1), mrs(2, REG.SCTLR_EL1)], { x: { 1: ALL_ENABLED } }).done).toBe(true);
    expect(vm.cpu.getX(2) & ALL_ENABLED).toBe(0n);
  });

  test('with it: the ID register says so, EL1 has the keys, and a reset keeps the feature', () => {
    vm.cpu.pointerAuth = true;
    expect(fields()).toBe(0x10_0001n);
    vm.cpu.reset();
    expect([vm.cpu.pointerAuth, fields()]).toEqual([true, 0x10_0001n]);
    vm = new BareMetal();
    vm.cpu.pointerAuth = true;
    for (const [n, index] of KEYS.entries()) {
      expect(vm.execute([msr(index, 1), mrs(2, index)], { x: { 1: n + 7 } }).done).toBe(true);
      expect([vm.cpu.getX(2), vm.sysreg(index)]).toEqual([BigInt(n + 7), BigInt(n + 7)]);
      expect(vm.execute([mrs(2, index)], { pstate: EL0T }).ec).toBe(0);
    }
    expect(vm.cpu.sysregs()).toEqual(expect.arrayContaining(KEYS));
    for (const word of WORDS) expect(vm.execute([word], { x: { 1: DATA, 2: DATA } }).done).toBe(true);
    vm.cpu.pointerAuth = false;
    expect(fields()).toBe(0n);
    expect(vm.execute([WORDS[0]!]).ec).toBe(0);
  });

  test('EL0 signs with the enables of SCTLR_EL1 too', () => {
    vm.cpu.pointerAuth = true;
    vm.cpu.setSysreg(REG.SCTLR_EL1, SCTLR_RES1 | EN[0]);
    const o = vm.execute([oneSource(0, 1, 2), oneSource(1, 3, 2), svc(9)], {
      pstate: EL0T,
      x: { 1: DATA, 2: 5, 3: DATA },
    });
    expect(o.iss).toBe(9);
    expect([vm.cpu.getX(1) === BigInt(DATA), vm.cpu.getX(3) === BigInt(DATA)]).toEqual([false, true]);
  });
});
