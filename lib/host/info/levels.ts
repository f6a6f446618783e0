import { type Claim, weigh } from './claims.js';
import {
  commandLineOf,
  commandLineSaid,
  cpuinfo,
  fileText,
  guestVh,
  hasGuestEl2,
  interruptClaim,
  kvmIsUp,
  logClaim,
  logLine,
  releaseOf,
  Source,
  timerClue,
} from './clues.js';
import type { HostFacts } from './facts.js';
import {
  type BootEl,
  type CpuVhe,
  decideMode,
  HVHE,
  isBefore,
  type KernelEl,
  type ModeConditions,
  type ModeRow,
} from './modes.js';
import type { Finding } from './types.js';

const PSCI_METHOD = '/proc/device-tree/psci/method';
/** All of Apple's cores have an EL2 that is stuck in its VHE shape. */
const IMPLEMENTER_APPLE = '0x61';

/** The exception level that the kernel was started at. */
export function bootElOf(facts: HostFacts): Finding<BootEl> {
  if (facts.arch !== 'arm64') return weigh<BootEl>([]);
  const up = kvmIsUp(facts);
  const timer = timerClue(facts);
  const noHyp = logClaim<BootEl>(facts, /HYP mode not available/, 'EL1');
  return weigh<BootEl>([
    logClaim(facts, /All CPU\(s\) started at EL2/, 'EL2'),
    logClaim(facts, /All CPU\(s\) started at EL1/, 'EL1'),
    logClaim(facts, /CPUs? started in inconsistent modes/, 'mixed'),
    // KVM says so, too, where the CPUs were not started alike.
    noHyp && { ...noHyp, confidence: 'likely' },
    timer && {
      value: timer.boot,
      confidence: timer.boot === 'EL2' ? 'certain' : 'likely',
      source: Source.INTERRUPTS,
      said: timer.said,
    },
    interruptClaim(facts, 'kvm guest vtimer', 'EL2'),
    up && { ...up, value: 'EL2' },
    // Firmware at EL3 answers SMC. HVC goes to somebody at EL2, who has started the kernel below.
    fileText(facts, PSCI_METHOD) === 'hvc'
      ? { value: 'EL1', confidence: 'likely', source: PSCI_METHOD, said: 'hvc' }
      : undefined,
  ]);
}

/** The exception level that the kernel runs at. */
export function kernelElOf(facts: HostFacts): Finding<KernelEl> {
  if (facts.arch !== 'arm64') return weigh<KernelEl>([]);
  const timer = timerClue(facts);
  const predicted = predictedRow(facts);
  return weigh<KernelEl>([
    timer && { value: timer.kernel, confidence: 'certain', source: Source.INTERRUPTS, said: timer.said },
    // A kernel at EL1 needs the physical timer itself, and gives guests none of their own.
    interruptClaim(facts, 'kvm guest ptimer', 'EL2'),
    logClaim(facts, /detected: Virtualization Host Extensions/, 'EL2'),
    logClaim(facts, /\]: VHE(\+NV2)? mode initialized/, 'EL2'),
    logClaim(facts, /(Hyp|Protected) ([nh]VHE )?mode initialized/, 'EL1'),
    logClaim(facts, /detected: (VHE for hypervisor only|Protected KVM)/, 'EL1'),
    ...notAboveBoot(facts),
    predicted && {
      value: predicted.kernelEl,
      confidence: 'likely',
      source: Source.CMDLINE,
      said: commandLineSaid(commandLineOf(facts)!),
    },
  ]);
}

/** What was not started at EL2 does not get there. */
function notAboveBoot(facts: HostFacts): Claim<'EL1'>[] {
  const { value, confidence, evidence } = bootElOf(facts);
  if ((value !== 'EL1' && value !== 'mixed') || confidence === 'none') return [];
  return evidence.map((each) => ({ ...each, value: 'EL1', confidence }));
}

/** Whether the CPU has VHE. */
export function cpuVheOf(facts: HostFacts): Finding<CpuVhe> {
  if (facts.arch !== 'arm64') return weigh<CpuVhe>([]);
  const { value, confidence, evidence } = kernelElOf(facts);
  const atEl2 = value === 'EL2' && confidence === 'certain' ? evidence : [];
  const has = vheShape(facts);
  return weigh<CpuVhe>([
    ...atEl2.map((each) => ({ ...each, value: has, confidence: 'certain' as const })),
    ...vheSigns(facts),
  ]);
}

const vheShape = (facts: HostFacts): CpuVhe =>
  cpuinfo(facts, 'CPU implementer') === IMPLEMENTER_APPLE ? 'only' : 'yes';

/** What says whether the CPU has VHE, but for where the kernel runs. */
function vheSigns(facts: HostFacts): (Claim<CpuVhe> | undefined)[] {
  const has = vheShape(facts);
  const vh = guestVh(facts);
  const features = cpuinfo(facts, 'Features')?.split(/\s+/);
  return [
    logClaim(facts, /detected: VHE for hypervisor only/, has),
    // What the kernel says of an override: that it took something away, or that nothing was there.
    logClaim(facts, /ID_AA64MMFR1_EL1\[11:8\]: forced to 0/, has),
    logClaim(facts, /ID_AA64MMFR1_EL1\[11:8\]: already set to 0/, 'no'),
    vh && (vh.value > 0 || !mayHideVhe(facts))
      ? { value: vh.value > 0 ? has : 'no', confidence: 'certain', source: 'KVM_GET_ONE_REG', said: vh.said }
      : undefined,
    has === 'only'
      ? { value: has, confidence: 'likely', source: Source.CPUINFO, said: 'CPU implementer 0x61: Apple' }
      : undefined,
    // LSE came with Armv8.1, which does not allow an EL2 without VHE.
    features && {
      value: features.includes('atomics') ? has : 'no',
      confidence: 'likely',
      source: Source.CPUINFO,
      said: features.includes('atomics') ? 'atomics: Armv8.1 or later' : 'no atomics: older than Armv8.1',
    },
  ];
}

/** Whether the command line may have taken VHE away: `protected` did, before it kept it for the hypervisor. */
function mayHideVhe(facts: HostFacts): boolean {
  const line = commandLineOf(facts);
  if (line === undefined || line.override === 'vh=0' || line.option === 'nvhe') return true;
  return line.option === 'protected' && isBefore(releaseOf(facts), HVHE);
}

/** What decides, but for the CPU's VHE, as far as it is known. */
export function conditionsOf(facts: HostFacts): Omit<ModeConditions, 'vhe'> | undefined {
  const line = commandLineOf(facts);
  const boot = bootElOf(facts).value;
  if (line === undefined || boot === null) return undefined;
  const nv2 = hasGuestEl2(facts) || logLine(facts, /detected: Nested Virtualization Support/) !== undefined;
  return { boot, nv2, option: line.option, override: line.override, kernel: releaseOf(facts) };
}

/** The row of the decision table that this host should be, as far as can be known without looking at what it is. */
export function predictedRow(facts: HostFacts): ModeRow | undefined {
  const conditions = conditionsOf(facts);
  const vhe = weigh(vheSigns(facts)).value;
  return conditions === undefined || vhe === null ? undefined : decideMode({ ...conditions, vhe });
}
