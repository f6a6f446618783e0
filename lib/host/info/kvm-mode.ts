import { type Claim, weigh } from './claims.js';
import {
  commandLineOf,
  commandLineSaid,
  fileText,
  guestVh,
  hasGuestEl2,
  kvmIsUp,
  logClaim,
  logLine,
  releaseOf,
  Source,
} from './clues.js';
import type { HostFacts } from './facts.js';
import { bootElOf, conditionsOf, cpuVheOf, kernelElOf, predictedRow } from './levels.js';
import { type CpuVhe, decideMode, isBefore, type KvmMode } from './modes.js';
import type { Confidence, Finding, ModeOrigin } from './types.js';

/** What KVM is. */
export function kvmModeOf(facts: HostFacts): Finding<KvmMode> {
  if (facts.arch !== 'arm64') return weigh<KvmMode>([]);
  return weigh<KvmMode>([...logModes(facts), ...absence(facts), ...probedModes(facts), predictedMode(facts)]);
}

/** What KVM's own message at boot says. Its words have changed: before 6.6 it did not say which VHE a hypervisor below the kernel has. */
function logModes(facts: HostFacts): (Claim<KvmMode> | undefined)[] {
  const hypVhe = logLine(facts, /detected: VHE for hypervisor only/) !== undefined;
  return [
    logClaim(facts, /HYP mode not available|KVM disabled from command line/, 'none'),
    logClaim(facts, /: VHE\+NV2 mode initialized/, 'nested'),
    logClaim(facts, /: VHE mode initialized/, hasGuestEl2(facts) ? 'nested' : 'vhe'),
    logClaim(facts, /: Protected hVHE mode initialized/, 'protected-hvhe'),
    logClaim(facts, /: Protected nVHE mode initialized/, hypVhe ? 'protected-hvhe' : 'protected-nvhe'),
    logClaim(facts, /: Hyp hVHE mode initialized/, 'hvhe'),
    logClaim(facts, /: Hyp (nVHE )?mode initialized/, hypVhe ? 'hvhe' : 'nvhe'),
  ];
}

/** Signs that there is no KVM. */
function absence(facts: HostFacts): (Claim<KvmMode> | undefined)[] {
  const boot = bootElOf(facts);
  const { confidence } = boot;
  const bootedBelow = (boot.value === 'EL1' || boot.value === 'mixed') && confidence !== 'none' ? boot.evidence : [];
  return [
    ...bootedBelow.map((each) => ({ ...each, value: 'none', confidence }) as Claim<KvmMode>),
    fileText(facts, '/proc/misc') === '' && kvmIsUp(facts) === undefined
      ? { value: 'none', confidence: 'certain', source: '/proc/misc', said: 'no kvm is registered' }
      : undefined,
  ];
}

/** What a KVM that runs shows of itself. */
function probedModes(facts: HostFacts): Claim<KvmMode>[] {
  const { value: level, confidence, evidence } = kernelElOf(facts);
  if (kvmIsUp(facts) === undefined || level === null || confidence === 'none') return [];
  const kvm = 'kvm' in facts.open ? facts.open.kvm : undefined;
  if (level === 'EL2') {
    if (hasGuestEl2(facts)) {
      return [{ value: 'nested', confidence: 'certain', source: 'KVM_CHECK_EXTENSION', said: 'KVM_CAP_ARM_EL2 is 1' }];
    }
    // Where KVM can't be asked it may be nested.
    const mayBeNested = kvm === undefined && commandLineOf(facts)?.option === 'nested';
    return evidence.map((each) => ({ ...each, value: 'vhe', confidence: mayBeNested ? 'guess' : confidence }));
  }
  const vh = guestVh(facts);
  const bits31 = kvm?.createVm31;
  if (bits31 === undefined || vh === undefined) return [];
  // pKVM takes any size of a guest's address space and gives the host's own; nobody promises that it will, and 6.1 did not.
  if (bits31 !== 'ok' && isBefore(releaseOf(facts), [6, 12])) return [];
  const shape = vh.value > 0 ? 'hvhe' : 'nvhe';
  const value: KvmMode = bits31 === 'ok' ? `protected-${shape}` : shape;
  const said = bits31 === 'ok' ? '31 bits of IPA are accepted, as only pKVM does' : `31 bits of IPA: ${bits31}`;
  return [
    { value, confidence: 'likely', source: 'KVM_CREATE_VM', said },
    { value, confidence: 'likely', source: 'KVM_GET_ONE_REG', said: vh.said },
  ];
}

/** What the decision table makes of the command line, where KVM runs, and the kernel where the table has it. */
function predictedMode(facts: HostFacts): Claim<KvmMode> | undefined {
  const row = predictedRow(facts);
  if (row === undefined || kvmIsUp(facts) === undefined || row.kernelEl !== kernelElOf(facts).value) return undefined;
  const line = commandLineOf(facts)!;
  const mayBeNested = row.mode === 'vhe' && line.option === 'nested' && !('kvm' in facts.open);
  const confidence = mayBeNested ? 'guess' : 'likely';
  return { value: row.mode, confidence, source: Source.CMDLINE, said: commandLineSaid(line) };
}

/** What `kvm-arm.mode=` asks for. */
export function kvmModeAskedOf(facts: HostFacts): Finding<string> {
  const asked = facts.arch === 'arm64' ? commandLineOf(facts)?.asked : undefined;
  if (asked === undefined) return weigh<string>([]);
  return weigh([{ value: asked, confidence: 'certain', source: Source.CMDLINE, said: `kvm-arm.mode=${asked}` }]);
}

const CPUS: readonly CpuVhe[] = ['no', 'yes', 'only'];

/** Whether the mode would be another without what the command line says. The table knows. */
export function kvmModeFromOf(facts: HostFacts): Finding<ModeOrigin> {
  const { value: mode, confidence: modeConfidence } = kvmModeOf(facts);
  const boot = bootElOf(facts);
  const conditions = conditionsOf(facts);
  const line = commandLineOf(facts);
  if (mode === null || conditions === undefined || line === undefined) return weigh<ModeOrigin>([]);
  if (boot.value !== 'EL2') return { value: 'boot', confidence: boot.confidence, evidence: boot.evidence };
  const said = { source: Source.CMDLINE, said: commandLineSaid(line) };
  if (line.option === 'default' && line.override === 'no') {
    return { value: 'cpu', confidence: 'certain', evidence: [said] };
  }
  const without = { ...conditions, option: 'default', override: 'no' } as const;
  const originOn = (cpu: CpuVhe): ModeOrigin | undefined => {
    if (decideMode({ ...conditions, vhe: cpu }).mode !== mode) return undefined;
    return decideMode({ ...without, vhe: cpu }).mode === mode ? 'cpu' : 'command-line';
  };
  const doubted = (confidence: Confidence): Confidence => (modeConfidence === 'guess' ? 'guess' : confidence);
  // Mostly it is the same whatever the CPU has.
  const origins = new Set(CPUS.map(originOn).filter((origin) => origin !== undefined));
  const [value] = origins;
  if (value !== undefined && origins.size === 1) return { value, confidence: doubted('certain'), evidence: [said] };
  const vhe = cpuVheOf(facts);
  const onThis = vhe.value === null ? undefined : originOn(vhe.value);
  // Where the table has another mode, something that is not in it had a hand in it.
  if (onThis === undefined) return weigh<ModeOrigin>([]);
  return { value: onThis, confidence: doubted(vhe.confidence), evidence: [said, ...vhe.evidence.slice(0, 1)] };
}
