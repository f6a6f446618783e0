import { release } from 'node:os';
import { describe, test } from '@jest/globals';
import { openHost, probeHost } from '#lib/host/index.js';
import { loadNative } from '#lib/host/native.js';
import { Cap, DeviceType, type Kvm } from '#lib/kvm/index.js';
import { openSoft } from '#lib/soft/index.js';

/** A KVM that the contract suite runs on. */
export interface Backend {
  readonly name: string;
  open(): Kvm;
  /** `run()` returns `idleMs` instead of waiting in WFI, and listeners are called from inside the guest's store. */
  readonly inTurn: boolean;
  /** The Linux that it is, or that it is a model of: major and minor version. */
  readonly linux: readonly [major: number, minor: number];
  /** Bytes of the host's pages, of which slots and logs are made. */
  readonly pageSize: number;
  /** The architecture of its guests. */
  readonly arch: 'arm64' | 'x64';
}

const SOFT = { inTurn: true, linux: [7, 3], pageSize: 4096, arch: 'arm64' } as const;
const [major = 0, minor = 0] = release().split('.').map(Number);
const HOST: Backend = {
  name: 'host',
  open: () => openHost(),
  inTurn: false,
  linux: [major, minor],
  pageSize: loadNative().native?.pageSize() ?? 4096,
  arch: process.arch === 'arm64' ? 'arm64' : 'x64',
};
const ALL: readonly Backend[] = [
  { name: 'soft', open: () => openSoft(), ...SOFT },
  { name: 'soft, virtual clock', open: () => openSoft({ clock: 'virtual' }), ...SOFT },
  HOST,
];

const host = probeHost();
/** The host's KVM is left out, by this name, where it cannot be used; `REQUIRE_KVM=1` runs, and so fails, its tests all the same. */
export const skippedBackends: readonly string[] =
  host.available || process.env.REQUIRE_KVM === '1' ? [] : [`host (${host.reason})`];

/** `ELVISOR_BACKENDS`: the names of those to test, with semicolons between; all if it is not set. */
const named = process.env.ELVISOR_BACKENDS?.split(';');
const present = ALL.filter(
  (backend) =>
    (named === undefined || named.includes(backend.name)) && (backend !== HOST || skippedBackends.length === 0),
);

/** Every backend that is there, the host's with guests of any architecture included. */
export const neutralBackends: readonly Backend[] = present;

/** Every backend that is there and has arm64 guests. */
export const backends: readonly Backend[] = present.filter(({ arch }) => arch === 'arm64');

/** `describe`, for each backend whose guests can have a GICv3; the tests of the others are skipped. */
export function describeGicv3(title: string, body: (backend: Backend) => void): void {
  for (const backend of backends) {
    const name = `${title} on ${backend.name}`;
    if (hasGicv3(backend)) describe(name, () => body(backend));
    else describe.skip(`${name} (skipped: this KVM has no GICv3)`, () => body(backend));
  }
}

/** `test`, where the backend's guests can have a GICv3. */
export const whereGicv3 = (backend: Backend): Block => (hasGicv3(backend) ? test : skipped('this KVM has no GICv3'));

/** `test`, where the backend's guests can have pointer authentication. */
export function wherePointerAuth({ open }: Backend): Block {
  const kvm = open();
  try {
    return kvm.checkExtension(Cap.ARM_PTRAUTH_ADDRESS) === 1 ? test : skipped('no pointer authentication');
  } finally {
    kvm.close();
  }
}

function hasGicv3({ open }: Backend): boolean {
  const kvm = open();
  try {
    const vm = kvm.createVm();
    const has = vm.testDevice(DeviceType.ARM_VGIC_V3);
    vm.close();
    return has;
  } finally {
    kvm.close();
  }
}

/** What `test` is, but that it may be one that skips. */
export type Block = (name: string, body: () => void | Promise<void>) => void;
export const skipped =
  (reason: string): Block =>
  (name, body) =>
    test.skip(`${name} (skipped: ${reason})`, body);

/** `test`, where the backend is that Linux or a newer one; or any, where the versions themselves are in question (`--every-version` of the lane). */
export function since({ linux }: Backend, version: `${number}.${number}`): Block {
  const [wantedMajor = 0, wantedMinor = 0] = version.split('.').map(Number);
  const [major, minor] = linux;
  const isNewEnough = major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
  return isNewEnough || process.env.ELVISOR_EVERY_VERSION === '1'
    ? test
    : skipped(`new in Linux ${version}, this is ${linux.join('.')}`);
}

/** `test`, where vCPUs run in turn on one thread and what they wait for is told: the rest of the contract says nothing of it. */
export const whereInTurn = ({ inTurn }: Backend): Block => (inTurn ? test : skipped('the kernel waits inside KVM_RUN'));

/** `test`, where the backend is the software KVM; on the host's it is skipped, for a reason that is not the kernel's age. */
export const onSoftOnly = ({ inTurn }: Backend, reason: string): Block => (inTurn ? test : skipped(reason));

/** QEMU before 8.0 leaves SSE out of the syndrome (Arm ARM DDI 0487, ISS encoding for a Data Abort): a host that it emulates is told of no sign. */
export const whereSignIsTold = (backend: Backend): Block =>
  isEmulatedHost(backend) ? skipped("the emulated host's syndrome has no SSE") : test;

/** Whether it is a kernel in the arm64 lane: its processor and GIC are QEMU's. */
export const isEmulatedHost = ({ inTurn }: Backend): boolean => !inTurn && process.env.ELVISOR_ARM64_HOST !== undefined;

const isProtected = ({ inTurn }: Backend): boolean => !inTurn && process.env.ELVISOR_ARM64_HOST === 'protected';

/** Bits of IPA that a VM made by `createVm()` has: 40, but protected KVM gives each VM all that the host has, and looks at no size. */
export const ipaBitsOf = (backend: Backend, kvm: Kvm): number =>
  isProtected(backend) ? kvm.checkExtension(Cap.ARM_VM_IPA_SIZE) : 40;

/** `test`, where KVM looks at the IPA size that it is asked for. */
export const whereIpaSizeIsChecked = (backend: Backend): Block =>
  isProtected(backend) ? skipped('protected KVM looks at no IPA size') : test;

/** `test`, on hosts whose KVM is protected and has protected VMs; or, with `false`, on all that have none. */
export const whereProtected = (backend: Backend, wanted: boolean): Block => {
  const [major, minor] = backend.linux;
  const isNewEnough = major > 7 || (major === 7 && minor >= 1);
  const isThere = isProtected(backend) && isNewEnough;
  return isThere === wanted ? test : skipped(wanted ? 'there are no protected VMs' : 'there are protected VMs');
};
