import { KvmError, Reg, RegGroup, regGroup, regSize, sysregIndex, VcpuFeature } from '../../kvm/index.js';
import { ticksAt } from './clock.js';
import { isIdRegister, setIdRegister } from './id-regs.js';
import { KEPT_REGISTERS } from './kept-registers.js';
import { PMU_REGISTERS, restorePmu, savePmu } from './pmu-registers.js';
import { PSCI_0_1, PSCI_VERSIONS } from './psci.js';
import { FW_BITMAP_VALID } from './smccc.js';
import type { SoftVcpu } from './vcpu.js';

const SP_EL0 = sysregIndex(3, 0, 4, 1, 0);
const SPSR_EL1 = sysregIndex(3, 0, 4, 0, 0);
const ELR_EL1 = sysregIndex(3, 0, 4, 0, 1);
const FPCR = sysregIndex(3, 3, 4, 4, 0);
const FPSR = sysregIndex(3, 3, 4, 4, 1);
const CCSIDR = sysregIndex(3, 1, 0, 0, 0);
const CSSELR = sysregIndex(3, 2, 0, 0, 0);
const DCZID = sysregIndex(3, 3, 0, 0, 7);
const CTR = sysregIndex(3, 3, 0, 0, 1);
const OSLSR = sysregIndex(2, 0, 1, 1, 4);
/** OSLSR_EL1: the OS Lock is implemented; it is set. */
const OSLSR_OSLM = 8n;
const OSLSR_OSLK = 2n;
/** CRn of PSTATE's parts and of what is a core register. */
const CRN_PSTATE = 4;
/** CSSELR values that KVM_REG_ARM_DEMUX_ID_CCSIDR takes. */
const CSSELR_MAX = 14;

/** Modes of PSTATE.M that a vCPU without EL2 and AArch32 can be in: EL0t, EL1t, EL1h. */
const MODES: readonly bigint[] = [0n, 4n, 5n];
const MODE_MASK = 0x1fn;

/** KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_n: "not required" of 1, 2 and 3. */
const WORKAROUNDS: readonly bigint[] = [2n, 3n, 2n];
const WORKAROUND_2_AVAILABLE = 2n;
/** KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED, of what is available. */
const WORKAROUND_2_ENABLED = 0x10n | WORKAROUND_2_AVAILABLE;
/** KVM_REG_ARCH_MASK and KVM_REG_ARM64, with the bits between architecture and group, which are zero. */
const ARCH_MASK = 0xff0f_ffff_0000_0000n;
const ARCH_ARM64 = 0x6000_0000_0000_0000n;

interface Access {
  get(vcpu: SoftVcpu): bigint;
  set(vcpu: SoftVcpu, value: bigint): void;
}

const sysreg = (index: number): Access => ({
  get: (vcpu) => vcpu.cpu.getSysreg(index) ?? 0n,
  set: (vcpu, value) => void vcpu.cpu.setSysreg(index, value),
});

/** Words of `struct kvm_regs`. */
const CORE_REG_WORDS = 0xd8;
/** The core registers, in the order of `struct kvm_regs`. */
const CORE = new Map<bigint, Access>();
for (let n = 0; n <= 30; n++) {
  CORE.set(Reg.x(n), { get: (v) => v.cpu.getX(n), set: (v, value) => v.cpu.setX(n, value) });
}
CORE.set(Reg.SP, sysreg(SP_EL0));
CORE.set(Reg.PC, { get: (v) => v.cpu.getPc(), set: (v, value) => v.cpu.setPc(value) });
CORE.set(Reg.PSTATE, { get: (v) => v.cpu.getPstate(), set: setPstate });
CORE.set(Reg.SP_EL1, { get: (v) => v.cpu.getSpEl1(), set: (v, value) => v.cpu.setSpEl1(value) });
CORE.set(Reg.ELR_EL1, sysreg(ELR_EL1));
CORE.set(Reg.SPSR_EL1, sysreg(SPSR_EL1));
[Reg.SPSR_ABT, Reg.SPSR_UND, Reg.SPSR_IRQ, Reg.SPSR_FIQ].forEach((id, i) => {
  CORE.set(id, {
    get: (v) => v.aarch32Spsr[i]!,
    set: (v, value) => {
      v.aarch32Spsr[i] = value;
    },
  });
});
for (let n = 0; n <= 31; n++) {
  CORE.set(Reg.v(n), { get: (v) => v.cpu.getV(n), set: (v, value) => v.cpu.setV(n, value) });
}
CORE.set(Reg.FPSR, sysreg(FPSR));
CORE.set(Reg.FPCR, sysreg(FPCR));

function setPstate(vcpu: SoftVcpu, value: bigint): void {
  if (!MODES.includes(value & MODE_MASK)) {
    throw invalid(`PSTATE 0x${value.toString(16)} is in a mode that the vCPU has not`);
  }
  vcpu.cpu.setPstate(value);
}

/** The timers, under ids of their own. */
const TIMERS = new Map<bigint, Access>([
  [Reg.TIMER_CTL, timerCtl('virtual')],
  [Reg.TIMER_CNT, { get: (v) => v.timer.virtual.count, set: (v, value) => setCounter(v, 'virtualOffset', value) }],
  [Reg.TIMER_CVAL, timerCval('virtual')],
  [Reg.PTIMER_CTL, timerCtl('physical')],
  [Reg.PTIMER_CVAL, timerCval('physical')],
  [Reg.PTIMER_CNT, { get: (v) => v.timer.physical.count, set: (v, value) => setCounter(v, 'physicalOffset', value) }],
]);

function timerCtl(which: 'virtual' | 'physical'): Access {
  return {
    get: (v) => BigInt(v.timer[which].ctl),
    set: (v, value) => {
      v.timer[which].ctl = Number(value & 3n);
      v.timer.update();
    },
  };
}

function timerCval(which: 'virtual' | 'physical'): Access {
  return {
    get: (v) => v.timer[which].cval,
    set: (v, value) => {
      v.timer[which].cval = value;
      v.timer.update();
    },
  };
}

/** A counter is set by its offset, which all vCPUs share; after KVM_ARM_SET_COUNTER_OFFSET it is not set at all. */
function setCounter(vcpu: SoftVcpu, which: 'virtualOffset' | 'physicalOffset', value: bigint): void {
  const { vm } = vcpu;
  if (vm.timers.offsetIsSet) return;
  vm.timers[which] = BigInt.asUintN(64, BigInt(ticksAt(vm.clock.nowNs())) - value);
  vm.rebaseTimers();
}

const FIRMWARE = new Map<bigint, Access>([[Reg.PSCI_VERSION, { get: (v) => v.psciVersion, set: setPsciVersion }]]);
WORKAROUNDS.forEach((level, i) => {
  FIRMWARE.set(Reg.fw(i + 1), {
    get: () => level,
    set: (_, value) => {
      // Workaround 2 that is available may be enabled: where it is not required, that is the same.
      const asked = i === 1 && value === WORKAROUND_2_ENABLED ? WORKAROUND_2_AVAILABLE : value;
      // Less protection than there is can be promised, more cannot.
      if (asked > level) throw invalid(`workaround ${i + 1} is at level ${level}`);
    },
  });
});
FW_BITMAP_VALID.forEach((valid, i) => {
  FIRMWARE.set(Reg.fwFeatureBitmap(i), {
    get: (v) => v.vm.fwBitmaps[i]!,
    set: (v, value) => {
      if ((value & ~valid) !== 0n) throw invalid(`bits beyond 0x${valid.toString(16)} are not offered`);
      if (value === v.vm.fwBitmaps[i]) return;
      if (v.vm.hasRun) throw new KvmError('EBUSY', 'KVM_SET_ONE_REG', 'a vCPU ran');
      v.vm.fwBitmaps[i] = value;
    },
  });
});

function setPsciVersion(vcpu: SoftVcpu, value: bigint): void {
  const has02 = vcpu.hasFeature(VcpuFeature.PSCI_0_2);
  if (has02 ? !PSCI_VERSIONS.includes(value) : value !== PSCI_0_1) {
    throw invalid(`0x${value.toString(16)} is not a PSCI version that the vCPU's features allow`);
  }
  vcpu.vm.psciVersion = value;
}

/** Whether a register that the processor holds is one of KVM's system registers, and not a core register or a timer. */
const isKvmSysreg = (index: number): boolean =>
  ((index >> 7) & 0xf) !== CRN_PSTATE && index !== DCZID && index !== CCSIDR && !TIMERS.has(sysregIdOf(index));

function sysregIdOf(index: number): bigint {
  return 0x6030_0000_0013_0000n | BigInt(index);
}

/** The registers of a PMU, by id. */
const PMU = new Map<bigint, Access>(
  PMU_REGISTERS.map((index) => [
    sysregIdOf(index),
    {
      get: (v) => savePmu(v.pmu!, index),
      set: (v, value) => restorePmu(v.pmu!, v.vm.pmu, index, value, v.vm.hasRun),
    },
  ]),
);

/** Registers with rules of their own for user space, and those that are there for it alone. */
const OTHERS = new Map<bigint, Access>([
  [sysregIdOf(OSLSR), { get: (v) => v.cpu.getSysreg(OSLSR)!, set: setOslsr }],
  ...KEPT_REGISTERS.map((index): [bigint, Access] => [
    sysregIdOf(index),
    { get: (v) => v.kept.get(index), set: (v, value) => v.kept.set(index, value) },
  ]),
]);

/** The OS Lock can be set and cleared; what else the register says is the processor's. */
function setOslsr(vcpu: SoftVcpu, value: bigint): void {
  if ((value & ~OSLSR_OSLK) !== OSLSR_OSLM) throw invalid(`OSLSR_EL1 is 0x${OSLSR_OSLM.toString(16)} but for OSLK`);
  vcpu.cpu.setSysreg(OSLSR, value);
}

/** KVM_GET_REG_LIST. */
export function getRegList(vcpu: SoftVcpu): bigint[] {
  const ids = [...CORE.keys(), ...FIRMWARE.keys(), ...TIMERS.keys(), ...(vcpu.pmu === undefined ? [] : PMU.keys())];
  for (const index of KEPT_REGISTERS) ids.push(sysregIdOf(index));
  for (const index of vcpu.cpu.sysregs()) if (isKvmSysreg(index)) ids.push(sysregIdOf(index));
  if (vcpu.cpu.getSysreg(CCSIDR) !== undefined) {
    for (let csselr = 0; csselr < CSSELR_MAX; csselr++) ids.push(Reg.ccsidr(csselr));
  }
  return ids;
}

function find(vcpu: SoftVcpu, id: bigint, syscall: string): Access {
  const known =
    CORE.get(id) ??
    TIMERS.get(id) ??
    FIRMWARE.get(id) ??
    OTHERS.get(id) ??
    (vcpu.pmu === undefined ? undefined : PMU.get(id));
  if (known !== undefined) return known;
  const index = Number(id & 0xffffn);
  if (id === sysregIdOf(index) && isKvmSysreg(index) && vcpu.cpu.getSysreg(index) !== undefined) {
    return isIdRegister(index)
      ? { get: (v) => v.cpu.getSysreg(index)!, set: (v, value) => setIdRegister(v, index, value) }
      : sysreg(index);
  }
  const csselr = index & 0xff;
  if (id === Reg.ccsidr(csselr) && csselr < CSSELR_MAX && vcpu.cpu.getSysreg(CCSIDR) !== undefined) {
    return { get: (v) => readCcsidr(v, csselr), set: (v, value) => setCcsidr(v, csselr, value) };
  }
  const hex = `0x${id.toString(16)}`;
  if ((id & ARCH_MASK) !== ARCH_ARM64) throw new KvmError('EINVAL', syscall, `${hex} is no id of an arm64 register`);
  // Inside `struct kvm_regs`, and not one of its registers with its size.
  if (regGroup(id) === RegGroup.CORE && Number(id & 0xf000_ffffn) + regSize(id) / 4 < CORE_REG_WORDS) {
    throw new KvmError('EINVAL', syscall, `${hex}: a register begins elsewhere, or has another size`);
  }
  throw new KvmError('ENOENT', syscall, `no register ${hex}`);
}

function withSelected<T>(vcpu: SoftVcpu, csselr: number, act: () => T): T {
  const selected = vcpu.cpu.getSysreg(CSSELR) ?? 0n;
  vcpu.cpu.setSysreg(CSSELR, BigInt(csselr));
  const result = act();
  vcpu.cpu.setSysreg(CSSELR, selected);
  return result;
}

function readCcsidr(vcpu: SoftVcpu, csselr: number): bigint {
  return withSelected(vcpu, csselr, () => vcpu.cpu.getSysreg(CCSIDR)!);
}

/** A vCPU can be given any caches whose lines are no shorter than CTR_EL0 says (kernel: set_ccsidr). */
function setCcsidr(vcpu: SoftVcpu, csselr: number, value: bigint): void {
  if (value === readCcsidr(vcpu, csselr)) return;
  // CSSELR_EL1.InD: IminLine of CTR_EL0, or DminLine, in words; CCSIDR_EL1.LineSize has 0 for 4 words.
  const shortest = Number((vcpu.cpu.getSysreg(CTR)! >> ((csselr & 1) === 1 ? 0n : 16n)) & 0xfn) - 2;
  if (Number(value & 7n) < shortest) throw invalid("the processor's cache lines are longer");
  withSelected(vcpu, csselr, () => vcpu.cpu.setSysreg(CCSIDR, value));
}

/** KVM_GET_ONE_REG. @throws KvmError ENOENT, EINVAL */
export function getOneReg(vcpu: SoftVcpu, id: bigint): bigint {
  return BigInt.asUintN(regSize(id) * 8, find(vcpu, id, 'KVM_GET_ONE_REG').get(vcpu));
}

/** KVM_SET_ONE_REG. @throws KvmError ENOENT, EINVAL, EBUSY */
export function setOneReg(vcpu: SoftVcpu, id: bigint, value: bigint): void {
  const access = find(vcpu, id, 'KVM_SET_ONE_REG');
  if (value !== BigInt.asUintN(regSize(id) * 8, value)) {
    throw invalid(`0x${value.toString(16)} is not an unsigned number of ${regSize(id)} bytes`);
  }
  access.set(vcpu, value);
}

const invalid = (detail: string): KvmError => new KvmError('EINVAL', 'KVM_SET_ONE_REG', detail);
