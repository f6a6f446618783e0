import type { DescriptorChain } from './chain.js';
import { type VirtioActivation, type VirtioDevice, VirtioDeviceId } from './device.js';
import type { Virtqueue } from './queue.js';

/** Queues (virtio 1.2 §5.8.2). */
const EVENTS = 0;
const STATUS = 1;
const QUEUE_SIZE = 64;

/** `struct virtio_input_config` (§5.8.5): select, subsel, size, 5 reserved bytes, 128 bytes of what was selected. */
const CONFIG_SIZE = 2;
const CONFIG_DATA = 8;
const CONFIG_BYTES = CONFIG_DATA + 128;

/** What `select` may ask for. */
const Select = { ID_NAME: 0x01, ID_DEVIDS: 0x03, EV_BITS: 0x11 } as const;

/** `struct virtio_input_devids`: BUS_VIRTUAL (Linux, `input.h`) and no vendor. */
const DEVIDS = Uint8Array.of(0x06, 0, 0, 0, 0, 0, 0, 0);

/** Event types and codes (Linux, `input-event-codes.h`). */
const EV_SYN = 0;
const EV_KEY = 1;
const SYN_REPORT = 0;

/** `struct virtio_input_event`: type, code, value. */
const EVENT_SIZE = 8;
/** Events that wait for a driver's buffers at most; one that gives none is not listening. */
const MAX_WAITING = 64;

/** How a {@link VirtioInput} is set up. */
export interface VirtioInputOptions {
  /** What the guest shows, in ASCII: 1 to 128 characters. */
  readonly label: string;
  /** Key codes that it has, 0 to 767 (Linux, `input-event-codes.h`). */
  readonly keys: readonly number[];
}

/** virtio-input (virtio 1.2 §5.8): a keyboard of a few keys. */
export class VirtioInput implements VirtioDevice {
  readonly name = 'virtio-input';
  readonly deviceId = VirtioDeviceId.INPUT;
  readonly features = 0n;
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(CONFIG_BYTES);

  readonly #label: Uint8Array;
  readonly #keyBits: Uint8Array;
  #queues: readonly Virtqueue[] = [];
  #waiting: Uint8Array[] = [];

  constructor(options: VirtioInputOptions) {
    this.#label = new TextEncoder().encode(options.label);
    this.#keyBits = new Uint8Array((Math.max(...options.keys) >>> 3) + 1);
    for (const key of options.keys) this.#keyBits[key >>> 3]! |= 1 << (key & 7);
  }

  attach(): void {}

  activate(activation: VirtioActivation): void {
    this.#queues = activation.queues;
  }

  /** A key goes down or up. Without a driver nobody is told. */
  setKey(code: number, down: boolean): void {
    if (this.#queues.length === 0 || this.#waiting.length >= MAX_WAITING) return;
    this.#waiting.push(event(EV_KEY, code, down ? 1 : 0), event(EV_SYN, SYN_REPORT, 0));
    this.#send(this.#queues[EVENTS]!);
  }

  notify(index: number): void {
    const queue = this.#queues[index];
    if (queue === undefined) return;
    if (index === EVENTS) this.#send(queue);
    else if (index === STATUS) takeStatus(queue);
  }

  writeConfig(offset: number, len: number, value: number): void {
    // Only select and subsel are the driver's, in one access or two.
    for (let i = 0; i < len && offset + i < CONFIG_SIZE; i++) this.config[offset + i] = value >>> (8 * i);
    const selected = this.#selected(this.config[0]!, this.config[1]!);
    this.config[CONFIG_SIZE] = selected.length;
    this.config.fill(0, CONFIG_DATA);
    this.config.set(selected, CONFIG_DATA);
  }

  reset(): void {
    this.#queues = [];
    this.#waiting = [];
  }

  #selected(select: number, subsel: number): Uint8Array {
    if (select === Select.ID_NAME && subsel === 0) return this.#label;
    if (select === Select.ID_DEVIDS && subsel === 0) return DEVIDS;
    if (select === Select.EV_BITS && subsel === EV_KEY) return this.#keyBits;
    // §5.8.5.2: a size of 0 says that there is nothing.
    return new Uint8Array(0);
  }

  #send(queue: Virtqueue): void {
    while (this.#waiting.length > 0) {
      const chain: DescriptorChain | undefined = queue.pop();
      if (chain === undefined) break;
      if (chain.writableBytes < EVENT_SIZE) {
        queue.fail(`chain ${chain.head}: no room for an event of ${EVENT_SIZE} bytes`);
        break;
      }
      queue.push(chain, chain.write(this.#waiting.shift()!));
    }
    queue.signal();
  }
}

/** LEDs and sounds, of which this keyboard has none: given back unread. */
function takeStatus(queue: Virtqueue): void {
  for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) queue.push(chain, 0);
  queue.signal();
}

function event(type: number, code: number, value: number): Uint8Array {
  const bytes = new Uint8Array(EVENT_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, type, true);
  view.setUint16(2, code, true);
  view.setUint32(4, value, true);
  return bytes;
}
