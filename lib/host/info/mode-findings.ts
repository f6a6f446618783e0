import { type Claim, weigh } from './claims.js';
import type { HostFacts } from './facts.js';
import { bootElOf, commandLineOf, fileText, kernelElOf, kvmIsUp, logClaim, logLine } from './levels.js';
import { type CpuVhe, decideMode, isBefore, type KvmMode, type ModeConditions } from './modes.js';
import type { Finding, ModeOrigin } from './types.js';

const CMDLINE = '/proc/cmdline';
const CPUINFO = '/proc/cpuinfo';
/** All of Apple's cores have an EL2 that is stuck in its VHE shape. */
const IMPLEMENTER_APPLE = '0x61';

/** Bits 11:8 of a vCPU's ID_AA64MMFR1_EL1, which a kernel that hides VHE from itself hides from guests, too. */
function vh(facts: HostFacts): { readonly value: number; readonly said: string } | undefined {
  const mmfr1 = 'kvm' in facts.open ? facts.open.kvm.mmfr1 : undefined;
  if (mmfr1 === undefined) return undefined;
  const value = Number((BigInt(mmfr1) >> 8n) & 0xfn);
  return { value, said: `ID_AA64MMFR1_EL1 is ${mmfr1}: VH is ${value}` };
}

function cpuinfo(facts: HostFacts, name: string): string | undefined {
  return new RegExp(`^${name}\\s*: *(.*)$`, 'm').exec(fileText(facts, CPUINFO) ?? '')?.[1];
}

/** Whether the CPU has VHE. */
export function cpuVheOf(facts: HostFacts): Finding<CpuVhe> {
  if (facts.arch !== 'arm64') return weigh<CpuVhe>([]);
  const implementer = cpuinfo(facts, 'CPU implementer');
  const has: CpuVhe = implementer === IMPLEMENTER_APPLE ? 'only' : 'yes';
  const kernelEl = kernelElOf(facts);
  const field = vh(facts);
  const features = cpuinfo(facts, 'Features')?.split(/\s+/);
  const line = commandLineOf(facts);
  const hidden = line === undefined || line.option !== 'default' || line.override !== 'no';
  return weigh<CpuVhe>([
    kernelEl.value === 'EL2'
      ? { ...kernelEl.evidence[0]!, value: has, confidence: kernelEl.confidence as 'certain' }
      : undefined,
    logClaim(facts, /detected: VHE for hypervisor only/, has),
    // What the kernel says of an override: that it took something away, or that nothing was there.
    logClaim(facts, /ID_AA64MMFR1_EL1\[11:8\]: forced to 0/, has),
    logClaim(facts, /ID_AA64MMFR1_EL1\[11:8\]: already set to 0/, 'no'),
    field && (field.value > 0 || !hidden)
      ? { value: field.value > 0 ? has : 'no', confidence: 'certain', source: 'KVM_GET_ONE_REG', said: field.said }
      : undefined,
    has === 'only'
      ? { value: has, confidence: 'likely', source: CPUINFO, said: `CPU implementer ${implementer}, which is Apple` }
      : undefined,
    // Both came with Armv8.1, which does not allow an EL2 without VHE.
    features && {
      value: features.includes('atomics') ? has : 'no',
      confidence: 'likely',
      source: CPUINFO,
      said: features.includes('atomics') ? 'atomics: Armv8.1 or later' : 'no atomics: older than Armv8.1',
    },
  ]);
}

/** What decides, as far as it is known; `undefined` where the command line or the boot's exception level is not. */
function conditionsOf(facts: HostFacts): Omit<ModeConditions, 'vhe'> | undefined {
  const line = commandLineOf(facts);
  const boot = bootElOf(facts).value;
  if (line === undefined || boot === null) return undefined;
  return {
    boot,
    nv2: hasNested(facts) || logLine(facts, /detected: Nested Virtualization Support/) !== undefined,
    option: line.option,
    override: line.override,
    kernel: releaseOf(facts),
  };
}

/** The kernel's major and minor number. */
function releaseOf(facts: HostFacts): readonly [number, number] {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(facts.kernel) ?? [];
  return [Number(major ?? 0), Number(minor ?? 0)];
}

const hasNested = (facts: HostFacts): boolean => 'kvm' in facts.open && facts.open.kvm.capabilities.ARM_EL2 === 1;

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
    logClaim(facts, /: VHE mode initialized/, hasNested(facts) ? 'nested' : 'vhe'),
    logClaim(facts, /: Protected hVHE mode initialized/, 'protected-hvhe'),
    logClaim(facts, /: Protected nVHE mode initialized/, hypVhe ? 'protected-hvhe' : 'protected-nvhe'),
    logClaim(facts, /: Hyp hVHE mode initialized/, 'hvhe'),
    logClaim(facts, /: Hyp (nVHE )?mode initialized/, hypVhe ? 'hvhe' : 'nvhe'),
  ];
}

/** Signs that there is no KVM. */
function absence(facts: HostFacts): (Claim<KvmMode> | undefined)[] {
  const boot = bootElOf(facts);
  return [
    boot.value === 'EL1' || boot.value === 'mixed'
      ? { ...boot.evidence[0]!, value: 'none', confidence: boot.confidence as 'certain' }
      : undefined,
    fileText(facts, '/proc/misc') === '' && kvmIsUp(facts) === undefined
      ? { value: 'none', confidence: 'certain', source: '/proc/misc', said: 'no kvm is registered' }
      : undefined,
  ];
}

/** What a KVM that runs shows of itself. */
function probedModes(facts: HostFacts): (Claim<KvmMode> | undefined)[] {
  const up = kvmIsUp(facts);
  const kernelEl = kernelElOf(facts);
  if (up === undefined || kernelEl.value === null || kernelEl.confidence === 'none') return [];
  const kvm = 'kvm' in facts.open ? facts.open.kvm : undefined;
  if (kernelEl.value === 'EL2') {
    if (kvm?.capabilities.ARM_EL2 === 1) {
      return [{ value: 'nested', confidence: 'certain', source: 'KVM_CHECK_EXTENSION', said: 'KVM_CAP_ARM_EL2 is 1' }];
    }
    // Without KVM's word it may be nested.
    const confidence = kvm === undefined && commandLineOf(facts)?.option === 'nested' ? 'guess' : kernelEl.confidence;
    return kernelEl.evidence.map((evidence) => ({ ...evidence, value: 'vhe', confidence }));
  }
  const field = vh(facts);
  const bits31 = kvm?.createVm31;
  if (bits31 === undefined || field === undefined) return [];
  // pKVM takes any size of a guest's address space and gives the host's own; nobody promises that it will, and 6.1 did not.
  if (bits31 !== 'ok' && isBefore(releaseOf(facts), [6, 12])) return [];
  const isProtected = bits31 === 'ok';
  const shape = field.value > 0 ? 'hvhe' : 'nvhe';
  const value: KvmMode = isProtected ? `protected-${shape}` : shape;
  return [
    {
      value,
      confidence: 'likely',
      source: 'KVM_CREATE_VM',
      said: isProtected ? '31 bits of IPA are accepted, as only protected KVM does' : `31 bits of IPA: ${bits31}`,
    },
    { value, confidence: 'likely', source: 'KVM_GET_ONE_REG', said: field.said },
  ];
}

/** What the decision table makes of the command line, where KVM runs, and the kernel where the table has it. */
function predictedMode(facts: HostFacts): Claim<KvmMode> | undefined {
  const conditions = conditionsOf(facts);
  const vhe = cpuVheOf(facts).value;
  if (conditions === undefined || vhe === null || kvmIsUp(facts) === undefined) return undefined;
  const { mode, kernelEl } = decideMode({ ...conditions, vhe });
  if (kernelEl !== kernelElOf(facts).value) return undefined;
  const { asked } = commandLineOf(facts)!;
  return {
    value: mode,
    confidence: 'likely',
    source: CMDLINE,
    said: asked === undefined ? 'no kvm-arm.mode=' : `kvm-arm.mode=${asked}`,
  };
}

/** What `kvm-arm.mode=` asks for. */
export function kvmModeAskedOf(facts: HostFacts): Finding<string> {
  const asked = facts.arch === 'arm64' ? commandLineOf(facts)?.asked : undefined;
  return weigh(
    asked === undefined
      ? []
      : [{ value: asked, confidence: 'certain', source: CMDLINE, said: `kvm-arm.mode=${asked}` }],
  );
}

/** Whether the mode would be another without the command line. The table knows. */
export function kvmModeFromOf(facts: HostFacts): Finding<ModeOrigin> {
  const mode = kvmModeOf(facts);
  const boot = bootElOf(facts);
  const conditions = conditionsOf(facts);
  if (mode.value === null || conditions === undefined) return weigh<ModeOrigin>([]);
  if (boot.value !== 'EL2') {
    return { value: 'boot', confidence: boot.confidence, evidence: boot.evidence };
  }
  const line = commandLineOf(facts)!;
  const plain = { ...conditions, option: 'default', override: 'no' } as const;
  const vhe = cpuVheOf(facts);
  const known: readonly CpuVhe[] = vhe.value === null ? ['no', 'yes', 'only'] : [vhe.value];
  const changed = known
    .filter((cpu) => decideMode({ ...conditions, vhe: cpu }).mode === mode.value)
    .map((cpu) => decideMode({ ...plain, vhe: cpu }).mode !== mode.value);
  const said =
    line.asked !== undefined
      ? `kvm-arm.mode=${line.asked}`
      : line.override === 'no'
        ? 'no kvm-arm.mode='
        : { 'vh=0': 'id_aa64mmfr1.vh=0', 'hvhe=1': 'arm64_sw.hvhe=1' }[line.override];
  const [first] = changed;
  // The table has another mode: somebody else had a hand in it.
  if (first === undefined) return weigh<ModeOrigin>([]);
  const evidence = [{ source: CMDLINE, said }, ...(line.asked === undefined ? [] : vhe.evidence.slice(0, 1))];
  const confidence =
    line.option === 'default' && line.override === 'no'
      ? 'certain'
      : changed.some((each) => each !== first)
        ? 'guess'
        : vhe.confidence === 'certain' || vhe.confidence === 'none'
          ? 'certain'
          : vhe.confidence;
  return { value: first ? 'command-line' : 'cpu', confidence, evidence };
}
