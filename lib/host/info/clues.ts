import type { Claim } from './claims.js';
import type { HostFacts } from './facts.js';
import { type BootEl, type CommandLineMode, type KernelEl, parseCommandLine } from './modes.js';

/** The names of sources that several findings rest on. */
export const Source = { CMDLINE: '/proc/cmdline', CPUINFO: '/proc/cpuinfo', INTERRUPTS: '/proc/interrupts' } as const;

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
  const text = fileText(facts, Source.CMDLINE);
  return text === undefined ? undefined : parseCommandLine(text);
}

/** What of the command line decides, in its own words. */
export function commandLineSaid({ asked, override }: CommandLineMode): string {
  if (asked !== undefined) return `kvm-arm.mode=${asked}`;
  return { no: 'no kvm-arm.mode=', 'vh=0': 'id_aa64mmfr1.vh=0', 'hvhe=1': 'arm64_sw.hvhe=1' }[override];
}

/** The kernel's major and minor number. */
export function releaseOf(facts: HostFacts): readonly [major: number, minor: number] {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(facts.kernel) ?? [];
  return [Number(major ?? 0), Number(minor ?? 0)];
}

/** A field of `/proc/cpuinfo`, of the first CPU. */
export function cpuinfo(facts: HostFacts, name: string): string | undefined {
  return new RegExp(`^${name}\\s*: *(.*)$`, 'm').exec(fileText(facts, Source.CPUINFO) ?? '')?.[1];
}

/** Whether KVM has come up: it registers its device only then. */
export function kvmIsUp(facts: HostFacts): Claim<true> | undefined {
  if ('kvm' in facts.open) {
    return { value: true, confidence: 'certain', source: facts.device, said: 'KVM_GET_API_VERSION is 12' };
  }
  const misc = fileText(facts, '/proc/misc');
  return misc ? { value: true, confidence: 'certain', source: '/proc/misc', said: misc } : undefined;
}

/** Whether KVM lets guests have an EL2. */
export function hasGuestEl2(facts: HostFacts): boolean {
  return 'kvm' in facts.open && facts.open.kvm.capabilities.ARM_EL2 === 1;
}

/** The line of `/proc/interrupts` that an interrupt's name ends. */
function interruptLine(facts: HostFacts, name: string): string | undefined {
  return fileText(facts, Source.INTERRUPTS)
    ?.split('\n')
    .find((line) => line.trimEnd().endsWith(name));
}

/** A claim that an interrupt makes by being there. */
export function interruptClaim<T>(facts: HostFacts, name: string, value: T): Claim<T> | undefined {
  if (interruptLine(facts, name) === undefined) return undefined;
  return { value, confidence: 'certain', source: Source.INTERRUPTS, said: `${name} is there` };
}

/** What an interrupt's number says of the kernel's timer. */
interface TimerClue {
  readonly boot: BootEl;
  readonly kernel: KernelEl;
  readonly name: string;
}

/**
 * The PPI of the kernel's own timer, which tells which timer that is, and so where the kernel runs (`arch_timer_select_ppi`):
 * at EL2 the hypervisor's, at EL1 the physical one, or the virtual one where the kernel was not started at EL2.
 */
const TIMER_PPIS: { readonly [intid: string]: TimerClue } = {
  26: { boot: 'EL2', kernel: 'EL2', name: "the EL2 physical timer's" },
  28: { boot: 'EL2', kernel: 'EL2', name: "the EL2 virtual timer's" },
  30: { boot: 'EL2', kernel: 'EL1', name: "the EL1 physical timer's" },
  27: { boot: 'EL1', kernel: 'EL1', name: "the EL1 virtual timer's" },
};

/** What the kernel's own timer says; nothing on hosts without a GIC, which number their interrupts in other ways. */
export function timerClue(facts: HostFacts): (Omit<TimerClue, 'name'> & { readonly said: string }) | undefined {
  const line = interruptLine(facts, 'arch_timer');
  const intid = line === undefined ? undefined : /\bGIC\S*\s+(\d+)\s/.exec(line)?.[1];
  const clue = intid === undefined ? undefined : TIMER_PPIS[intid];
  return clue && { boot: clue.boot, kernel: clue.kernel, said: `arch_timer is on ${intid}, ${clue.name} PPI` };
}

/** Bits 11:8 of a vCPU's ID_AA64MMFR1_EL1: a kernel that hides VHE from itself hides it from guests, too. */
export function guestVh(facts: HostFacts): { readonly value: number; readonly said: string } | undefined {
  const mmfr1 = 'kvm' in facts.open ? facts.open.kvm.mmfr1 : undefined;
  if (mmfr1 === undefined) return undefined;
  const value = Number((BigInt(mmfr1) >> 8n) & 0xfn);
  return { value, said: `ID_AA64MMFR1_EL1 is ${mmfr1}: VH is ${value}` };
}
