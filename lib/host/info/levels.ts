import { type Claim, weigh } from './claims.js';
import type { HostFacts } from './facts.js';
import { type BootEl, type CommandLineMode, type KernelEl, parseCommandLine } from './modes.js';
import type { Finding } from './types.js';

/** A file's text, where it could be read. */
export function fileText(facts: HostFacts, path: string): string | undefined {
  const file = facts.files[path];
  return file !== undefined && 'text' in file ? file.text : undefined;
}

/** The first line of the kernel's log that matches, where there is a log. */
export function logLine(facts: HostFacts, pattern: RegExp): string | undefined {
  return facts.log?.lines.find((line) => pattern.test(line));
}

/** A claim that a line of the kernel's log makes. */
export function logClaim<T>(facts: HostFacts, pattern: RegExp, value: T): Claim<T> | undefined {
  const said = logLine(facts, pattern);
  return said === undefined ? undefined : { value, confidence: 'certain', source: facts.log!.source, said };
}

export function commandLineOf(facts: HostFacts): CommandLineMode | undefined {
  const text = fileText(facts, '/proc/cmdline');
  return text === undefined ? undefined : parseCommandLine(text);
}

/** Whether KVM has come up: it registers its device only then. */
export function kvmIsUp(facts: HostFacts): Claim<true> | undefined {
  if ('kvm' in facts.open) {
    return { value: true, confidence: 'certain', source: facts.device, said: 'KVM_GET_API_VERSION is 12' };
  }
  const misc = fileText(facts, '/proc/misc');
  if (misc) return { value: true, confidence: 'certain', source: '/proc/misc', said: misc.trim() };
  return undefined;
}

/** A line of `/proc/interrupts`. */
function interruptLine(facts: HostFacts, name: string): string | undefined {
  return fileText(facts, '/proc/interrupts')
    ?.split('\n')
    .find((line) => line.trimEnd().endsWith(name))
    ?.replace(/\s+/g, ' ')
    .trim();
}

/**
 * The PPI of the kernel's own timer, which tells which timer that is, and so where the kernel runs (`arch_timer_select_ppi`):
 * at EL2 the hypervisor's, at EL1 the physical one, or the virtual one where the kernel was not started at EL2.
 */
const TIMER_PPIS: {
  readonly [intid: string]: { readonly boot: BootEl; readonly kernel: KernelEl; readonly name: string };
} = {
  26: { boot: 'EL2', kernel: 'EL2', name: "the EL2 physical timer's" },
  28: { boot: 'EL2', kernel: 'EL2', name: "the EL2 virtual timer's" },
  30: { boot: 'EL2', kernel: 'EL1', name: "the EL1 physical timer's" },
  27: { boot: 'EL1', kernel: 'EL1', name: "the EL1 virtual timer's" },
};

function timer(facts: HostFacts) {
  const line = interruptLine(facts, 'arch_timer');
  const intid = line === undefined ? undefined : /\bGIC\S* (\d+) /.exec(line)?.[1];
  const ppi = intid === undefined ? undefined : TIMER_PPIS[intid];
  return ppi === undefined ? undefined : { ...ppi, said: `arch_timer is on ${intid}, ${ppi.name} PPI` };
}

const INTERRUPTS = '/proc/interrupts';

/** The exception level that the kernel was started at. */
export function bootElOf(facts: HostFacts): Finding<BootEl> {
  if (facts.arch !== 'arm64') return weigh<BootEl>([]);
  const up = kvmIsUp(facts);
  const vtimer = interruptLine(facts, 'kvm guest vtimer');
  const ppi = timer(facts);
  const psci = fileText(facts, '/proc/device-tree/psci/method');
  return weigh<BootEl>([
    logClaim(facts, /All CPU\(s\) started at EL2/, 'EL2'),
    logClaim(facts, /All CPU\(s\) started at EL1/, 'EL1'),
    logClaim(facts, /CPUs? started in inconsistent modes/, 'mixed'),
    // It says so, too, where the CPUs were not started alike.
    lowered(logClaim(facts, /HYP mode not available/, 'EL1')),
    ppi && {
      value: ppi.boot,
      confidence: ppi.boot === 'EL2' ? 'certain' : 'likely',
      source: INTERRUPTS,
      said: ppi.said,
    },
    vtimer === undefined ? undefined : { value: 'EL2', confidence: 'certain', source: INTERRUPTS, said: vtimer },
    up && { ...up, value: 'EL2' },
    // Firmware at EL3 answers SMC. HVC goes to somebody at EL2, who has started the kernel below.
    psci === 'hvc'
      ? { value: 'EL1', confidence: 'likely', source: '/proc/device-tree/psci/method', said: psci }
      : undefined,
  ]);
}

/** The exception level that the kernel runs at. */
export function kernelElOf(facts: HostFacts): Finding<KernelEl> {
  if (facts.arch !== 'arm64') return weigh<KernelEl>([]);
  const ppi = timer(facts);
  const ptimer = interruptLine(facts, 'kvm guest ptimer');
  const boot = bootElOf(facts);
  return weigh<KernelEl>([
    ppi && { value: ppi.kernel, confidence: 'certain', source: INTERRUPTS, said: ppi.said },
    // A kernel at EL1 needs the physical timer itself, and gives guests none of their own.
    ptimer === undefined ? undefined : { value: 'EL2', confidence: 'certain', source: INTERRUPTS, said: ptimer },
    logClaim(facts, /detected: Virtualization Host Extensions/, 'EL2'),
    logClaim(facts, /\]: VHE(\+NV2)? mode initialized/, 'EL2'),
    logClaim(facts, /(Hyp|Protected) ([nh]VHE )?mode initialized/, 'EL1'),
    logClaim(facts, /detected: (VHE for hypervisor only|Protected KVM)/, 'EL1'),
    boot.value === 'EL1' || boot.value === 'mixed'
      ? {
          value: 'EL1',
          confidence: boot.confidence as 'certain',
          source: boot.evidence[0]!.source,
          said: boot.evidence[0]!.said,
        }
      : undefined,
  ]);
}

function lowered<T>(claim: Claim<T> | undefined): Claim<T> | undefined {
  return claim && { ...claim, confidence: 'likely' };
}
