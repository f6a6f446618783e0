import type { CapName } from '../../kvm/index.js';
import { type Claim, weigh } from './claims.js';
import { cpuinfo, fileText, kvmIsUp, logLine, Source } from './clues.js';
import type { HostFacts } from './facts.js';
import { kvmModeAskedOf, kvmModeFromOf, kvmModeOf } from './kvm-mode.js';
import { bootElOf, cpuVheOf, kernelElOf } from './levels.js';
import { refusalOf } from './refusal.js';
import type { FeatureFindings, Finding, HostInfo } from './types.js';

const CHECK_EXTENSION = 'KVM_CHECK_EXTENSION';

/** Draws the conclusions: a function of the facts alone. */
export function concludeHost(facts: HostFacts): HostInfo {
  const { platform, arch, kernel, device } = facts;
  const refusal = refusalOf(facts);
  const opens = 'kvm' in facts.open;
  return {
    platform,
    arch,
    kernel,
    bootEl: bootElOf(facts),
    kernelEl: kernelElOf(facts),
    kvmMode: kvmModeOf(facts),
    kvmModeFrom: kvmModeFromOf(facts),
    kvmModeAsked: kvmModeAskedOf(facts),
    cpuVhe: cpuVheOf(facts),
    gic: gicOf(facts),
    guestGics: guestGicsOf(facts),
    ipaBits: ipaBitsOf(facts),
    pageSize: weigh([
      facts.pageSize === 0
        ? undefined
        : {
            value: facts.pageSize,
            confidence: 'certain',
            source: '/proc/self/auxv',
            said: `AT_PAGESZ is ${facts.pageSize}`,
          },
    ]),
    capabilities: capabilitiesOf(facts),
    pmu: pmuOf(facts),
    sve: { host: cpuFeature(facts, 'sve'), guest: guestFeature(facts, 'ARM_SVE') },
    mte: { host: cpuFeature(facts, 'mte'), guest: guestFeature(facts, 'ARM_MTE') },
    device: { path: device, opens, ...(refusal === undefined ? { usable: true } : { usable: false, ...refusal }) },
    unread: unreadOf(facts),
  };
}

function gicOf(facts: HostFacts): Finding<string> {
  if (facts.arch !== 'arm64') return weigh<string>([]);
  const interrupt = /\b((?:GIC|AIC)\S*)\s+\d+\s.*\barch_timer$/m.exec(fileText(facts, Source.INTERRUPTS) ?? '')?.[1];
  // Old kernels call a GICv2 GIC-0, after its number; a GICv5 has names for its parts.
  const name = interrupt?.startsWith('GIC-') ? 'GICv2' : interrupt?.replace(/^(GICv\d|AIC).*/, '$1');
  const line = logLine(facts, /\bGICv\d: /);
  return weigh<string>([
    name === undefined
      ? undefined
      : {
          value: name,
          confidence: 'certain',
          source: Source.INTERRUPTS,
          said: `arch_timer is an interrupt of ${interrupt}`,
        },
    line === undefined
      ? undefined
      : { value: /GICv\d/.exec(line)![0], confidence: 'likely', source: facts.log!.source, said: line },
  ]);
}

function guestGicsOf(facts: HostFacts): Finding<readonly string[]> {
  const vgics = 'kvm' in facts.open ? facts.open.kvm.vgics : undefined;
  if (vgics === undefined) return weigh<readonly string[]>([]);
  const said = vgics.length === 0 ? 'ENODEV for each' : `${vgics.join(', ')} can be made`;
  return weigh<readonly string[]>([{ value: vgics, confidence: 'certain', source: 'KVM_CREATE_DEVICE_TEST', said }]);
}

function ipaBitsOf(facts: HostFacts): Finding<number> {
  const bits = 'kvm' in facts.open ? facts.open.kvm.capabilities.ARM_VM_IPA_SIZE : undefined;
  const line = logLine(facts, /IPA Size Limit: \d+ bits/i);
  return weigh<number>([
    bits === undefined
      ? undefined
      : { value: bits, confidence: 'certain', source: CHECK_EXTENSION, said: `KVM_CAP_ARM_VM_IPA_SIZE is ${bits}` },
    line === undefined
      ? undefined
      : { value: Number(/(\d+) bits/.exec(line)![1]), confidence: 'certain', source: facts.log!.source, said: line },
  ]);
}

function capabilitiesOf(facts: HostFacts): HostInfo['capabilities'] {
  if (!('kvm' in facts.open)) return weigh<never>([]);
  const { capabilities } = facts.open.kvm;
  const said = `${Object.keys(capabilities).length} of KVM_CAP_* are not 0`;
  return weigh([{ value: capabilities, confidence: 'certain', source: CHECK_EXTENSION, said }]);
}

function guestFeature(facts: HostFacts, name: CapName): Finding<boolean> {
  if (!('kvm' in facts.open) || facts.arch !== 'arm64') return weigh<boolean>([]);
  const value = facts.open.kvm.capabilities[name] ?? 0;
  return weigh([
    { value: value > 0, confidence: 'certain', source: CHECK_EXTENSION, said: `KVM_CAP_${name} is ${value}` },
  ]);
}

function cpuFeature(facts: HostFacts, name: string): Finding<boolean> {
  const features = cpuinfo(facts, 'Features')?.split(/\s+/);
  if (features === undefined || facts.arch !== 'arm64') return weigh<boolean>([]);
  const value = features.includes(name);
  // The kernel names only what it lets user space use.
  const confidence = value ? 'certain' : 'likely';
  return weigh([{ value, confidence, source: Source.CPUINFO, said: value ? name : `no ${name} among the features` }]);
}

function pmuOf(facts: HostFacts): FeatureFindings {
  const paths = Object.keys(facts.files).filter((path) => path.includes('armv8_pmuv3'));
  const path = paths.find((each) => fileText(facts, each) !== undefined);
  const claim: Claim<boolean> | undefined =
    facts.arch !== 'arm64' || paths.length === 0
      ? undefined
      : path === undefined
        ? { value: false, confidence: 'likely', source: paths[0]!, said: 'ENOENT' }
        : { value: true, confidence: 'certain', source: path, said: 'is there' };
  return { host: weigh([claim]), guest: guestFeature(facts, 'ARM_PMU_V3') };
}

/** What would have been of use. A file that is not there has nothing to say. */
function unreadOf(facts: HostFacts): HostInfo['unread'] {
  if (facts.arch !== 'arm64') return [];
  const unread = Object.entries(facts.files).flatMap(([source, file]) =>
    'error' in file && file.error !== 'ENOENT' && file.error !== 'ENOTDIR' ? [{ source, error: file.error }] : [],
  );
  if (facts.log === undefined) {
    unread.push(...Object.entries(facts.logErrors).map(([source, error]) => ({ source, error })));
  }
  if ('addon' in facts.open && kvmIsUp(facts) !== undefined)
    unread.push({ source: facts.device, error: facts.open.addon });
  return unread;
}
