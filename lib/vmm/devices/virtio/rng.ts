import { type VirtioActivation, type VirtioDevice, VirtioDeviceId } from './device.js';
import type { Virtqueue } from './queue.js';

/** Bytes given for one request at most; the driver asks again for more (virtio 1.2 §5.4.6.2 lets the device give fewer). */
const MAX_BYTES = 4096;

/** How a {@link VirtioRng} is set up. */
export interface VirtioRngOptions {
  /** Fills an array of at most 4,096 bytes with random ones: Web Crypto's `getRandomValues`, or a seeded generator. */
  readonly getRandomValues: (into: Uint8Array<ArrayBuffer>) => unknown;
}

/** virtio-rng, the entropy device (virtio 1.2 §5.4). */
export class VirtioRng implements VirtioDevice {
  readonly name = 'virtio-rng';
  readonly deviceId = VirtioDeviceId.ENTROPY;
  readonly features = 0n;
  readonly queueSizes = [16];
  readonly config = new Uint8Array(0);

  readonly #options: VirtioRngOptions;
  /** Web Crypto fills no shared memory, which guest memory may be. */
  readonly #bytes = new Uint8Array(MAX_BYTES);
  #queue: Virtqueue | undefined;

  constructor(options: VirtioRngOptions) {
    this.#options = options;
  }

  attach(): void {}

  activate(activation: VirtioActivation): void {
    this.#queue = activation.queues[0];
  }

  notify(_index: number): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      if (chain.writableBytes === 0) {
        queue.fail(`chain ${chain.head}: nothing to fill`);
        break;
      }
      const bytes = this.#bytes.subarray(0, Math.min(chain.writableBytes, MAX_BYTES));
      this.#options.getRandomValues(bytes);
      queue.push(chain, chain.write(bytes));
      bytes.fill(0); // What one guest was given is nobody else's to find.
    }
    queue.signal();
  }

  reset(): void {
    this.#queue = undefined;
  }
}
