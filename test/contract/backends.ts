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
