import { HostVcpu } from '#lib/host/index.js';
import {
  type Device,
  type GuestMemory,
  type IntrExit,
  type Kvm,
  KvmError,
  MpState,
  Reg,
  sysregIndex,
  TARGET_GENERIC_V8,
  type Vcpu,
  type VcpuExit,
  VcpuFeature,
  VgicAddr,
  VgicCtrl,
  VgicGroup,
  type Vm,
} from '#lib/kvm/index.js';
import { ERET, mov, mrs, msr, store, tbnz, WFI } from './asm.ts';

/** Where test guests live, and a device address that nobody answers. */
export const RAM = 0x8000_0000;
export const RAM_SIZE = 0x20_0000;
export const GICD = 0x800_0000;
export const GICR = 0x80a_0000;
export const DEVICE = 0x900_0000;
/** The exception vectors of guests that take interrupts. */
export const VECTORS = RAM + 0x1_0000;

export const Sysreg = {
  VBAR_EL1: sysregIndex(3, 0, 12, 0, 0),
  ICC_PMR: sysregIndex(3, 0, 4, 6, 0),
  ICC_IAR0: sysregIndex(3, 0, 12, 8, 0),
  ICC_EOIR0: sysregIndex(3, 0, 12, 8, 1),
  ICC_BPR0: sysregIndex(3, 0, 12, 8, 3),
  ICC_AP0R0: sysregIndex(3, 0, 12, 8, 4),
  ICC_AP1R0: sysregIndex(3, 0, 12, 9, 0),
  ICC_BPR1: sysregIndex(3, 0, 12, 12, 3),
  ICC_SRE: sysregIndex(3, 0, 12, 12, 5),
  ICC_DIR: sysregIndex(3, 0, 12, 11, 1),
  ICC_RPR: sysregIndex(3, 0, 12, 11, 3),
  ICC_SGI1R: sysregIndex(3, 0, 12, 11, 5),
  ICC_IAR1: sysregIndex(3, 0, 12, 12, 0),
  ICC_EOIR1: sysregIndex(3, 0, 12, 12, 1),
  ICC_HPPIR1: sysregIndex(3, 0, 12, 12, 2),
  ICC_CTLR: sysregIndex(3, 0, 12, 12, 4),
  ICC_IGRPEN0: sysregIndex(3, 0, 12, 12, 6),
  ICC_IGRPEN1: sysregIndex(3, 0, 12, 12, 7),
  CNTFRQ: sysregIndex(3, 3, 14, 0, 0),
  CNTVCT: sysregIndex(3, 3, 14, 0, 2),
  CNTV_TVAL: sysregIndex(3, 3, 14, 3, 0),
  CNTV_CTL: sysregIndex(3, 3, 14, 3, 1),
  CNTP_TVAL: sysregIndex(3, 3, 14, 2, 0),
  CNTP_CTL: sysregIndex(3, 3, 14, 2, 1),
  MPIDR: sysregIndex(3, 0, 0, 0, 5),
} as const;

/**
 * Code: no counter of the PMU counts, has overflowed or may interrupt, and all are zero. After a reset that is UNKNOWN. Uses X0.
 */
export const PMU_CLEARED: readonly number[] = [
  ...mov(0, 0xffff_ffff),
  msr(sysregIndex(3, 3, 9, 12, 2), 0), // PMCNTENCLR_EL0
  msr(sysregIndex(3, 0, 9, 14, 2), 0), // PMINTENCLR_EL1
  msr(sysregIndex(3, 3, 9, 12, 3), 0), // PMOVSCLR_EL0
  ...mov(0, 6), // P and C
  msr(sysregIndex(3, 3, 9, 12, 0), 0), // PMCR_EL0
];

export interface TestVm {
  readonly vm: Vm;
  readonly memory: GuestMemory;
  readonly vcpus: readonly Vcpu[];
  readonly gic: Device | undefined;
  /** Writes code to RAM. @param at guest-physical */
  load(at: number, ...code: readonly (number | number[])[]): void;
  /** The first vCPU. */
  readonly vcpu: Vcpu;
}

/** A VM with RAM and vCPUs that start at {@link RAM}; those after the first are off. */
export function makeVm(kvm: Kvm, options: { vcpus?: number; gic?: boolean; features?: number } = {}): TestVm {
  const vm = kvm.createVm();
  const memory = vm.createMemory(RAM_SIZE);
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: RAM_SIZE, memory });
  const features = options.features ?? 1 << VcpuFeature.PSCI_0_2;
  const vcpus = Array.from({ length: options.vcpus ?? 1 }, (_, id) => {
    const vcpu = vm.createVcpu(id);
    vcpu.init(TARGET_GENERIC_V8, id === 0 ? features : features | (1 << VcpuFeature.POWER_OFF));
    return vcpu;
  });
  const gic = options.gic === true ? makeGic(vm) : undefined;
  vcpus[0]!.setOneReg(Reg.PC, BigInt(RAM));
  const load = (at: number, ...code: readonly (number | number[])[]): void => {
    const words = code.flat();
    const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset + at - RAM, words.length * 4);
    for (const [i, word] of words.entries()) view.setUint32(i * 4, word, true);
    memory.written(at - RAM, words.length * 4);
  };
  return { vm, memory, vcpus, gic, load, vcpu: vcpus[0]! };
}

/** A GICv3 with 64 interrupts, initialised. */
export function makeGic(vm: Vm): Device {
  const gic = vm.createDevice(7);
  gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_DIST, GICD);
  gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST, GICR);
  gic.setDeviceAttr(VgicGroup.NR_IRQS, 0, 64);
  gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
  return gic;
}

/** Code: enables the distributor, this vCPU's CPU interface for Group 1, and PPIs and SGIs by mask. Uses X0 to X2. */
export const enableGic = (privateMask: number, vcpu = 0): number[] => [
  ...mov(0, VECTORS),
  msr(Sysreg.VBAR_EL1, 0),
  ...mov(0, 0xff),
  msr(Sysreg.ICC_PMR, 0),
  ...mov(0, 1),
  msr(Sysreg.ICC_IGRPEN1, 0),
  ...mov(1, GICD),
  ...mov(0, 0x12),
  store(4, 0, 1, 0),
  ...mov(1, GICR + vcpu * 0x2_0000 + 0x1_0000),
  ...mov(0, privateMask),
  store(4, 0, 1, 0x100),
];

/** Code: an IRQ handler at the vector of EL1h that acknowledges to X20, tells {@link DEVICE}, runs `body` and ends the interrupt. */
export const irqHandler = (...body: readonly (number | number[])[]): number[] => [
  mrs(20, Sysreg.ICC_IAR1),
  ...mov(21, DEVICE),
  store(4, 20, 21),
  ...body.flat(),
  msr(Sysreg.ICC_EOIR1, 20),
  ERET,
];
/** Of the INTIDs that tests wait for, only 1023, which stands for none, has this bit. */
const NO_INTID_BIT = 9;
/**
 * Code for a vCPU that has IRQs masked: waits until one of Group 1 is pending. Not by one WFI, which may end for no reason: with
 * the host's KVM it does wherever KVM_RUN ends. Uses X9.
 */
export const waitForIrq = (): number[] => [WFI, mrs(9, Sysreg.ICC_HPPIR1), tbnz(9, NO_INTID_BIT, -2)];
export const IRQ_VECTOR = VECTORS + 0x280;
export const FIQ_VECTOR = VECTORS + 0x300;

/** The exit as a short text: what tests compare. */
export function describeExit(exit: VcpuExit): string {
  switch (exit.reason) {
    case 'mmio': {
      const view = new DataView(exit.data.buffer, exit.data.byteOffset, 8);
      const at = `0x${exit.physAddr.toString(16)}/${exit.len}`;
      return exit.isWrite ? `write ${at} 0x${view.getBigUint64(0, true).toString(16)}` : `read ${at}`;
    }
    case 'system_event':
      return `system_event ${exit.type} ${exit.data.join(',')}`.trimEnd();
    case 'hypercall':
      return `hypercall 0x${exit.nr.toString(16)}${exit.smc ? ' smc' : ''}`;
    default:
      return exit.reason;
  }
}

/** Of `run()`, in ms: on the host longer than what a test's guest waits for, because the end of a run ends WFI, too. */
const quantumOf = (vcpu: Vcpu): number => (vcpu instanceof HostVcpu ? 20 : 1);
/** Of quanta, after which a guest that should exit is one that never does. */
const limitOf = (vcpu: Vcpu): number => (vcpu instanceof HostVcpu ? 25 : 500);

/** What a run() that nothing but time ended says of a vCPU: whether nothing will ever wake it. */
function isIdleForEver(vcpu: Vcpu, exit: IntrExit, waitsBefore: bigint): boolean {
  if (!(vcpu instanceof HostVcpu)) return exit.idleMs === Number.POSITIVE_INFINITY;
  return vcpu.getMpState() !== MpState.RUNNABLE || waitsOf(vcpu) > waitsBefore;
}
const waitsOf = (vcpu: Vcpu): bigint =>
  vcpu instanceof HostVcpu ? (vcpu.readStats().get('wfi_exit_stat')?.[0] ?? 0n) : 0n;

/** Runs a vCPU until it exits with anything but `intr`. */
export function runToExit(vcpu: Vcpu): string {
  for (let i = limitOf(vcpu); i > 0; i--) {
    const waits = waitsOf(vcpu);
    const exit = vcpu.run(quantumOf(vcpu));
    if (exit.reason !== 'intr') return describeExit(exit);
    if (isIdleForEver(vcpu, exit, waits)) return 'idle for ever';
    if (exit.idleMs !== undefined) Atomics.wait(SLEEPER, 0, 0, exit.idleMs);
  }
  throw new Error('the guest did not exit');
}
const SLEEPER = new Int32Array(new SharedArrayBuffer(4));

/** Of vCPUs that all wait, until nothing is on its way any more between them: as many as messages there are in a row. */
const HOST_IDLE_ROUNDS = 4;

/** Runs vCPUs in turn, as a VMM does, until one exits with anything but `intr`. */
export function runInTurn({ vm, vcpus }: TestVm): string {
  const asleep = new Set<Vcpu>();
  const isHost = vcpus[0] instanceof HostVcpu;
  let idleRounds = 0;
  vm.onRunnable((vcpu) => asleep.delete(vcpu));
  for (let i = limitOf(vcpus[0]!); i > 0; i--) {
    for (const vcpu of vcpus) {
      if (asleep.has(vcpu)) continue;
      const waits = waitsOf(vcpu);
      const exit = vcpu.run(quantumOf(vcpu));
      if (exit.reason !== 'intr') return `${vcpu.id}: ${describeExit(exit)}`;
      if (isIdleForEver(vcpu, exit, waits)) asleep.add(vcpu);
    }
    if (asleep.size < vcpus.length) idleRounds = 0;
    else if (!isHost || ++idleRounds === HOST_IDLE_ROUNDS) return 'idle for ever';
    // The host does not say when a vCPU becomes runnable: each runs again, and so has what another sent before it slept.
    if (isHost) asleep.clear();
  }
  throw new Error('the guest did not exit');
}

/** The errno's name that a call fails with, or 'OK'. */
export function errnoOf(call: () => unknown): string {
  try {
    call();
    return 'OK';
  } catch (error) {
    if (KvmError.is(error)) return error.code;
    throw error;
  }
}
