import { describe, expect, test } from '@jest/globals';
import { PmuAttr, Reg, sysregIndex, VcpuFeature, VcpuGroup } from '#lib/kvm/index.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { addImm, b, daifClr, ERET, load, mov, mrs, msr, NOP, store } from '../../contract/asm.ts';
import {
  DEVICE,
  enableGic,
  IRQ_VECTOR,
  irqHandler,
  makeVm,
  PMU_CLEARED,
  RAM,
  runToExit,
  Sysreg,
  VECTORS,
} from '../../contract/machine.ts';

const PMCR = sysregIndex(3, 3, 9, 12, 0);
const CNTENSET = sysregIndex(3, 3, 9, 12, 1);
const OVSCLR = sysregIndex(3, 3, 9, 12, 3);
const CCNTR = sysregIndex(3, 3, 9, 13, 0);
const CCFILTR = sysregIndex(3, 3, 14, 15, 7);
const INTENSET = sysregIndex(3, 0, 9, 14, 1);
const evcntr = (n: number): number => sysregIndex(3, 3, 14, 8, n);
const evtyper = (n: number): number => sysregIndex(3, 3, 14, 12, n);
const ELR = sysregIndex(3, 0, 4, 0, 1);
const SPSR = sysregIndex(3, 0, 4, 0, 0);
const ESR = sysregIndex(3, 0, 5, 2, 0);
const INST_RETIRED = 8;
const CHAIN = 0x1e;
const NOT_AT_EL1 = 2 ** 31;
const NOT_AT_EL0 = 2 ** 30;
const SVC = 0xd4000001;
const PPI = 23;

const set = (index: number, value: number | bigint): number[] => [...mov(0, value), msr(index, 0)];
/** SUBS X`n`, X`n`, #1; B.NE over `words` back. */
const loopOn = (n: number, words: number): number[] => [
  (0xf1000400 | (n << 5) | n) >>> 0,
  (0x54000001 | ((-(words + 1) & 0x7ffff) << 5)) >>> 0,
];
const exitNow = [...mov(9, DEVICE), store(4, 31, 9)];

describe.each([
  ['interpreted', undefined],
  ['compiled', 2],
] as const)('counting, %s', (_, threshold) => {
  function start(gic = false) {
    const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => createMachine({ threshold }) });
    const features = (1 << VcpuFeature.PSCI_0_2) | (1 << VcpuFeature.PMU_V3);
    const machine = makeVm(kvm, { features, gic });
    if (gic) machine.vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.IRQ, PPI);
    machine.vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.INIT);
    return machine;
  }

  test.each([1, 10, 5000])('%i turns of a loop are exactly their instructions', (turns) => {
    const { vcpu, load: put } = start();
    const body = [NOP, addImm(3, 3, 1), NOP];
    put(
      RAM,
      ...PMU_CLEARED,
      set(evtyper(0), INST_RETIRED),
      set(evtyper(1), INST_RETIRED + NOT_AT_EL1),
      set(CNTENSET, 0x8000_0003),
      mov(2, turns),
      mov(0, 1),
      msr(PMCR, 0),
      ...[body, loopOn(2, body.length)].flat(),
      [mrs(4, CCNTR), mrs(5, evcntr(0)), mrs(6, evcntr(1))],
      exitNow,
    );
    runToExit(vcpu);
    // The MSR that starts the counters is the first that they count; each MRS sees those before it.
    const expected = 1 + turns * 5;
    const counts = [4, 5, 6].map((n) => Number(vcpu.getOneReg(Reg.x(n))));
    expect(counts).toEqual([expected, expected + 1, 0]);
  });

  test('EL0 and EL1 are told apart, exceptions and what they hit included', () => {
    const { vcpu, load: put } = start();
    const EL0_CODE = RAM + 0x4000;
    const turns = 100;
    // Three instructions and an SVC a turn at EL0; then a UDF, which is not retired.
    put(EL0_CODE, NOP, SVC, ...loopOn(2, 2), 0);
    put(
      VECTORS + 0x400,
      [mrs(20, ESR), (0xd35afc00 | (20 << 5) | 20) >>> 0, (0xf100541f | (20 << 5)) >>> 0, 0x54000041 >>> 0, ERET],
      [mrs(4, evcntr(0)), mrs(5, evcntr(1)), mrs(6, CCNTR)],
      exitNow,
    );
    put(
      RAM,
      ...PMU_CLEARED,
      set(Sysreg.VBAR_EL1, VECTORS),
      set(evtyper(0), INST_RETIRED + NOT_AT_EL1),
      set(evtyper(1), INST_RETIRED + NOT_AT_EL0),
      set(CNTENSET, 0x8000_0003),
      set(SPSR, 0x3c0),
      set(ELR, EL0_CODE),
      mov(2, turns),
      mov(0, 1),
      msr(PMCR, 0),
      ERET,
    );
    runToExit(vcpu);
    const [atEl0, atEl1, both] = [4, 5, 6].map((n) => Number(vcpu.getOneReg(Reg.x(n)))) as [number, number, number];
    expect(atEl0).toBe(4 * turns);
    // MSR and ERET, five instructions an SVC, four and an MRS after the UDF.
    expect(atEl1).toBe(2 + 5 * turns + 5);
    expect(both).toBe(atEl0 + atEl1 + 1);
  });

  test('a chain of two counters counts on past 32 bits', () => {
    const { vcpu, load: put } = start();
    put(
      RAM,
      ...PMU_CLEARED,
      set(evtyper(2), INST_RETIRED),
      set(evtyper(3), CHAIN),
      set(evcntr(2), 0xffff_fff0),
      set(CNTENSET, 0xc),
      mov(2, 50),
      mov(0, 1),
      msr(PMCR, 0),
      ...[NOP, loopOn(2, 1)].flat(),
      [mrs(4, evcntr(2)), mrs(5, evcntr(3)), mrs(6, OVSCLR)],
      exitNow,
    );
    runToExit(vcpu);
    const [low, high, overflows] = [4, 5, 6].map((n) => vcpu.getOneReg(Reg.x(n)));
    expect([low! & 0xffff_ffffn, high, overflows]).toEqual([151n - 16n, 1n, 4n]);
  });

  test.each([
    ['at any EL', 0],
    ['at EL1 only', NOT_AT_EL0],
  ])('an overflow of what is counted %s interrupts when it happens', (_name, filter) => {
    const { vcpu, load: put } = start(true);
    const period = 20_000;
    const pass = [mrs(4, CCNTR), msr(OVSCLR, 30)];
    put(IRQ_VECTOR, irqHandler(pass));
    put(
      RAM,
      ...PMU_CLEARED,
      enableGic(2 ** PPI),
      mov(30, 0xffff_ffff),
      set(CCFILTR, filter),
      set(CCNTR, 2n ** 64n - BigInt(period)),
      set(CNTENSET, 2 ** 31),
      set(INTENSET, 2 ** 31),
      daifClr(2),
      set(PMCR, 1),
      addImm(3, 3, 1),
      b(-1),
    );
    expect(runToExit(vcpu)).toBe(`write 0x9000000/4 0x${PPI.toString(16)}`);
    // Two instructions a turn; the interrupt comes within a few of the overflow.
    const turns = Number(vcpu.getOneReg(Reg.x(3)));
    vcpu.run(0.001);
    expect(turns * 2).toBeGreaterThanOrEqual(period - 4);
    expect(Number(BigInt.asIntN(64, vcpu.getOneReg(Reg.x(4))))).toBeLessThan(500);
  });

  test('what the host does, and waiting, is not counted', () => {
    const { vcpu, load: put } = start();
    put(
      RAM,
      ...PMU_CLEARED,
      set(CNTENSET, 2 ** 31),
      mov(9, DEVICE),
      mov(0, 1),
      msr(PMCR, 0),
      load(4, 1, 9),
      mrs(4, CCNTR),
      exitNow,
    );
    expect(runToExit(vcpu)).toBe('read 0x9000000/4');
    for (let i = 0; i < 3; i++) vcpu.getOneReg(Reg.PSTATE);
    runToExit(vcpu);
    expect(vcpu.getOneReg(Reg.x(4))).toBe(2n);
  });
});
