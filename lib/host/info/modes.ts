/**
 * The decision table of `docs/exception-levels.md`: what the level that the kernel was started at, the CPU's VHE and the
 * command line make of the kernel's exception level and of KVM.
 */

/** The exception level that the boot loader started the kernel's CPUs at. */
export type BootEl = 'EL1' | 'EL2' | 'mixed';
/** The exception level that the kernel runs at. */
export type KernelEl = 'EL1' | 'EL2';
/** FEAT_VHE: the CPU has none; it has; or its HCR_EL2.E2H is stuck at 1, so that its EL2 has no other shape. */
export type CpuVhe = 'no' | 'yes' | 'only';
/** What KVM is: the words of its own message at boot. `nested`: VHE, and guests may use EL2. `none`: there is no KVM. */
export type KvmMode = 'vhe' | 'nested' | 'nvhe' | 'hvhe' | 'protected-nvhe' | 'protected-hvhe' | 'none';
/** `kvm-arm.mode=`; `default` where it is not given or not understood. */
export type ModeOption = 'default' | 'nvhe' | 'protected' | 'nested' | 'none';
/** What else on the command line decides: `id_aa64mmfr1.vh=0` hides VHE, `arm64_sw.hvhe=1` keeps it for the hypervisor alone. */
export type ModeOverride = 'no' | 'vh=0' | 'hvhe=1';

/** What decides. */
export interface ModeConditions {
  readonly boot: BootEl;
  readonly vhe: CpuVhe;
  /** Whether the CPU has FEAT_NV2, without which `nested` is nothing. */
  readonly nv2: boolean;
  readonly option: ModeOption;
  readonly override: ModeOverride;
  /** Major and minor number of the kernel's release. */
  readonly kernel: readonly [major: number, minor: number];
}

/** What becomes of it. */
export interface ModeOutcome {
  readonly kernelEl: KernelEl;
  readonly mode: KvmMode;
  /** What KVM writes to the kernel's log at the end, or why it gives up. */
  readonly says: RegExp;
}

/** A row: what is left out may be anything. */
export interface ModeRow extends ModeOutcome {
  readonly when: {
    readonly boot?: BootEl;
    readonly vhe?: CpuVhe;
    readonly nv2?: boolean;
    readonly option?: readonly ModeOption[];
    readonly override?: readonly ModeOverride[];
    /** From this release of Linux on. */
    readonly since?: readonly [major: number, minor: number];
  };
}

/** Linux 6.5 brought VHE for the hypervisor alone, and with it `Protected hVHE`. */
export const HVHE = [6, 5] as const;
/** Linux 6.16 lets guests have EL2. Before, `nested` is accepted, and nothing comes of it. */
const NESTED = [6, 16] as const;

const NO_HYP = /HYP mode not available/;
const DISABLED = /KVM disabled from command line/;
const VHE = /: VHE(?:\+NV2)? mode initialized/;
const NVHE = /: Hyp (?:nVHE )?mode initialized/;
const HYP_HVHE = /: Hyp (?:hVHE )?mode initialized/;
const PROTECTED = /: Protected nVHE mode initialized/;
const PROTECTED_HVHE = /: Protected [hn]VHE mode initialized/;

/** The first row that fits decides. A kernel that was not started at EL2 has no way there: nothing else matters then. */
// biome-ignore format: a table is read by its columns
export const MODE_TABLE: readonly ModeRow[] = [
  { when: { boot: 'EL1' },                                                       kernelEl: 'EL1', mode: 'none',           says: NO_HYP },
  { when: { boot: 'mixed' },                                                     kernelEl: 'EL1', mode: 'none',           says: NO_HYP },

  { when: { vhe: 'no', option: ['none'] },                                       kernelEl: 'EL1', mode: 'none',           says: DISABLED },
  { when: { vhe: 'no', option: ['protected'] },                                  kernelEl: 'EL1', mode: 'protected-nvhe', says: PROTECTED },
  { when: { vhe: 'no' },                                                         kernelEl: 'EL1', mode: 'nvhe',           says: NVHE },

  // protected keeps the kernel at EL1, by hiding VHE from it or, since there is that, by keeping VHE for the hypervisor.
  { when: { option: ['protected'], since: HVHE },                                kernelEl: 'EL1', mode: 'protected-hvhe', says: PROTECTED_HVHE },
  { when: { vhe: 'yes', option: ['protected'] },                                 kernelEl: 'EL1', mode: 'protected-nvhe', says: PROTECTED },
  { when: { vhe: 'yes', option: ['nvhe'] },                                      kernelEl: 'EL1', mode: 'nvhe',           says: NVHE },

  // none switches KVM off and leaves the kernel where it is: at EL2, unless something keeps it from there.
  { when: { option: ['none'], override: ['hvhe=1'], since: HVHE },               kernelEl: 'EL1', mode: 'none',           says: DISABLED },
  { when: { vhe: 'yes', option: ['none'], override: ['vh=0'] },                  kernelEl: 'EL1', mode: 'none',           says: DISABLED },
  { when: { option: ['none'] },                                                  kernelEl: 'EL2', mode: 'none',           says: DISABLED },

  // A kernel at EL1 answers nested with a warning, and goes on as if it were not there.
  { when: { option: ['default', 'nested'], override: ['hvhe=1'], since: HVHE },  kernelEl: 'EL1', mode: 'hvhe',           says: HYP_HVHE },
  { when: { vhe: 'yes', option: ['default', 'nested'], override: ['vh=0'] },     kernelEl: 'EL1', mode: 'nvhe',           says: NVHE },
  { when: { option: ['nested'], nv2: true, since: NESTED },                      kernelEl: 'EL2', mode: 'nested',         says: VHE },

  // What is left, CPUs that have VHE only among it: they ignore nvhe, and protected where there is no hVHE.
  { when: {},                                                                    kernelEl: 'EL2', mode: 'vhe',            says: VHE },
];

/** The row that decides. */
export function decideMode(conditions: ModeConditions): ModeRow {
  const row = MODE_TABLE.find(({ when }) => {
    const { boot, vhe, nv2, option, override, since } = when;
    return (
      (boot === undefined || boot === conditions.boot) &&
      (vhe === undefined || vhe === conditions.vhe) &&
      (nv2 === undefined || nv2 === conditions.nv2) &&
      (option === undefined || option.includes(conditions.option)) &&
      (override === undefined || override.includes(conditions.override)) &&
      (since === undefined || !isBefore(conditions.kernel, since))
    );
  });
  if (row === undefined) throw new Error('the last row fits everything');
  return row;
}

/** Whether one release of Linux is before another. */
export function isBefore(a: readonly [number, number], b: readonly [number, number]): boolean {
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
}

/** What of a kernel's command line decides. */
export interface CommandLineMode {
  readonly option: ModeOption;
  readonly override: ModeOverride;
  /** The value of the last `kvm-arm.mode=`, also one that no kernel knows; `undefined` where there is none. */
  readonly asked: string | undefined;
}

const OPTIONS: readonly string[] = ['nvhe', 'protected', 'nested', 'none'] satisfies readonly ModeOption[];

/**
 * Reads a command line as the kernel does: `-` and `_` are the same in a name, the last that is understood counts, and
 * what follows `--` is init's (`kernel/params.c`, `arch/arm64/kernel/pi/idreg-override.c`).
 */
export function parseCommandLine(commandLine: string): CommandLineMode {
  let option: ModeOption = 'default';
  let override: ModeOverride = 'no';
  let asked: string | undefined;
  for (const word of commandLine.split(/\s+/)) {
    if (word === '--') break;
    const [, name, value] = /^"?([^="]+)=(?:"?)([^"]*)/.exec(word) ?? [];
    switch (name?.replaceAll('-', '_')) {
      case 'kvm_arm.mode':
        asked = value;
        if (OPTIONS.includes(value!)) option = value as ModeOption;
        break;
      case 'id_aa64mmfr1.vh':
        if (/^(0x)?0$/i.test(value!)) override = 'vh=0';
        break;
      case 'arm64_sw.hvhe':
        if (/^(0x)?1$/i.test(value!)) override = 'hvhe=1';
        break;
    }
  }
  return { option, override, asked };
}
