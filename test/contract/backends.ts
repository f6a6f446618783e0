import { openHost, probeHost } from '#lib/host/index.js';
import type { Kvm } from '#lib/kvm/index.js';
import { openSoft } from '#lib/soft/index.js';

/** A KVM that the contract suite runs on. */
export interface Backend {
  readonly name: string;
  open(): Kvm;
  /** `run()` returns `idleMs` instead of waiting in WFI. */
  readonly inTurn: boolean;
}

/** Every backend that is there. */
export const backends: readonly Backend[] = [
  { name: 'soft', open: () => openSoft(), inTurn: true },
  { name: 'soft, virtual clock', open: () => openSoft({ clock: 'virtual' }), inTurn: true },
];

/** A KVM that the part of the suite runs on that is the same for every architecture. */
export interface NeutralBackend extends Backend {
  /** The architecture of its guests. */
  readonly arch: 'arm64' | 'x64';
}

const host = probeHost();
/** The host's KVM is left out, by this name, where it cannot be used; `REQUIRE_KVM=1` runs, and so fails, its tests all the same. */
export const skippedBackends: readonly string[] =
  host.available || process.env.REQUIRE_KVM === '1' ? [] : [`host (${host.reason})`];

/** Every backend that is there, the host's with guests of any architecture included. */
export const neutralBackends: readonly NeutralBackend[] = [
  ...backends.map((backend) => ({ ...backend, arch: 'arm64' as const })),
  ...(skippedBackends.length === 0
    ? [
        {
          name: 'host',
          open: () => openHost(),
          inTurn: false,
          arch: process.arch === 'arm64' ? 'arm64' : 'x64',
        } as const,
      ]
    : []),
];
