/**
 * The hosts that the lane boots, by name. What is not given is as in {@link BASE}.
 *
 * @typedef {object} Mode
 * @property {string} title for people
 * @property {string} board QEMU's -M
 * @property {string} cpu QEMU's -cpu. Never one with SVE: QEMU up to 10.0 keeps stale code where pages are written with SVE stores
 * @property {string} append words for the kernel's command line
 * @property {keyof typeof import('./sources.js').KERNELS} kernel
 * @property {number} qemu the first QEMU that has it, by its major version
 * @property {readonly (keyof typeof GROUPS)[]} groups what is run there
 * @property {Readonly<Record<string, unknown>>} says what `elvisor host` must say there, by the fields of `HostInfo`
 */

/** Test files of a group, below test/. A group is one process of the machine's. */
export const GROUPS = {
  host: ['arm64-host/inside/host.ts'],
  contract: ['contract'],
  native: ['native', 'host/open.test.ts', 'open.test.ts'],
  launcher: ['arm64-host/inside/launcher.ts'],
};

/** What a host without KVM is good for. */
const WITHOUT_KVM = /** @type {const} */ (['host', 'launcher']);

/** @type {Mode} */
const BASE = {
  title: '',
  board: 'virt,gic-version=3,virtualization=on',
  cpu: 'neoverse-n1',
  append: '',
  kernel: 'debian',
  qemu: 6,
  groups: ['host', 'contract', 'native', 'launcher'],
  says: {},
};

/** The kernel's log, which says it all, is open to root. */
const usable = { bootEl: 'EL2', cpuVhe: 'yes', device: true };

/** @type {Readonly<Record<string, Mode>>} */
export const MODES = {
  vhe: {
    ...BASE,
    title: 'the kernel at EL2',
    says: { ...usable, kernelEl: 'EL2', kvmMode: 'vhe', kvmModeFrom: 'cpu', gic: 'GICv3', pageSize: 4096 },
  },
  nvhe: {
    ...BASE,
    title: 'the kernel at EL1, because its command line says so',
    append: 'kvm-arm.mode=nvhe',
    says: { ...usable, kernelEl: 'EL1', kvmMode: 'nvhe', kvmModeFrom: 'command-line', kvmModeAsked: 'nvhe' },
  },
  hvhe: {
    ...BASE,
    title: 'the kernel at EL1, its hypervisor with VHE',
    append: 'arm64_sw.hvhe=1',
    kernel: 'newest',
    says: { ...usable, kernelEl: 'EL1', kvmMode: 'hvhe', kvmModeFrom: 'command-line' },
  },
  protected: {
    ...BASE,
    title: 'pKVM',
    append: 'kvm-arm.mode=protected',
    kernel: 'newest',
    says: { ...usable, kernelEl: 'EL1', kvmMode: 'protected-hvhe', kvmModeFrom: 'command-line' },
  },
  nested: {
    ...BASE,
    title: 'guests at EL2',
    cpu: 'max,pauth-impdef=on,sve=off,sme=off',
    append: 'kvm-arm.mode=nested',
    kernel: 'newest',
    qemu: 9,
    says: { ...usable, kernelEl: 'EL2', kvmMode: 'nested', kvmModeFrom: 'command-line' },
  },
  none: {
    ...BASE,
    title: 'KVM turned off',
    append: 'kvm-arm.mode=none',
    groups: WITHOUT_KVM,
    says: { bootEl: 'EL2', kernelEl: 'EL2', kvmMode: 'none', kvmModeFrom: 'command-line', device: 'disabled' },
  },
  el1: {
    ...BASE,
    title: 'started at EL1',
    board: 'virt,gic-version=3',
    groups: WITHOUT_KVM,
    says: { bootEl: 'EL1', kernelEl: 'EL1', kvmMode: 'none', kvmModeFrom: 'boot', device: 'el1-boot' },
  },
  gicv2: {
    ...BASE,
    title: 'an interrupt controller as the Raspberry Pi 4 has it',
    board: 'virt,gic-version=2,virtualization=on',
    says: { ...usable, kvmMode: 'vhe', gic: 'GICv2', guestGics: ['ARM_VGIC_V2'] },
  },
  '16k': {
    ...BASE,
    title: 'pages of 16 KiB',
    kernel: '16k',
    says: { ...usable, kvmMode: 'vhe', pageSize: 16384 },
  },
  6.12: {
    ...BASE,
    title: 'the kernel of Debian 13',
    kernel: '6.12',
    says: { ...usable, kvmMode: 'vhe' },
  },
  newest: {
    ...BASE,
    title: 'the newest kernel that Debian has released',
    kernel: 'newest',
    says: { ...usable, kvmMode: 'vhe' },
  },
  a57: {
    ...BASE,
    title: 'the processor that the recordings of test/contract/data are of, with the newest kernel',
    cpu: 'cortex-a57',
    kernel: 'newest',
    says: { ...usable, cpuVhe: 'no', kernelEl: 'EL1', kvmMode: 'nvhe', kvmModeFrom: 'cpu', ipaBits: 44 },
  },
};

/** What runs without being named. */
export const DEFAULT_MODES = ['vhe', 'nvhe'];
