import type { Virtqueue } from './queue.js';

/** Feature bits that belong to the transport and the queues, the same for every device (virtio 1.2 §6). */
export const RingFeature = {
  INDIRECT_DESC: 1n << 28n,
  EVENT_IDX: 1n << 29n,
  VERSION_1: 1n << 32n,
} as const;

/** Device status bits (§2.1). */
export const DeviceStatus = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  DEVICE_NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Virtio device ids (§5). */
export const VirtioDeviceId = { NET: 1, BLOCK: 2, CONSOLE: 3, ENTROPY: 4, INPUT: 18 } as const;

/** What a device may ask of its transport. */
export interface VirtioTransport {
  /** The configuration space has changed: a new ConfigGeneration, and a notification to a running driver (§2.3). */
  configChanged(): void;
  /** The device cannot go on until the driver resets it (§2.1.2). */
  needsReset(reason: string): void;
}

/** What the driver settled on when it set DRIVER_OK. */
export interface VirtioActivation {
  /** The negotiated feature bits. */
  readonly features: bigint;
  /** All queues, in order; those that the driver left out are not ready and never yield a request. */
  readonly queues: readonly Virtqueue[];
}

/**
 * A virtio device, apart from its transport. The order of its life: `attach` once; then `activate`, any number of
 * `notify`, `reset`, and again. No method throws for anything that a guest does.
 */
export interface VirtioDevice {
  /** For messages, such as `'virtio-blk'`. */
  readonly name: string;
  readonly deviceId: number;
  /** The device's own feature bits; the transport adds {@link RingFeature}. */
  readonly features: bigint;
  /** The largest size of each queue: powers of two up to 32,768. */
  readonly queueSizes: readonly number[];
  /** The configuration space, little endian; the transport reads from it. */
  readonly config: Uint8Array;
  attach(transport: VirtioTransport): void;
  /** DRIVER_OK. */
  activate(activation: VirtioActivation): void;
  /** The driver made buffers available in queue `index`. Only between `activate` and `reset`. */
  notify(index: number): void;
  /** The driver wrote to the configuration space; `value` is `len` bytes wide. Absent where nothing is writable. */
  writeConfig?(offset: number, len: number, value: number): void;
  /** Back to the state before `activate`. May be called at any time, also twice. */
  reset(): void;
  close?(): void;
}
