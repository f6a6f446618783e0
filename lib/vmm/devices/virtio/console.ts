import type { Schedule } from '../device.js';
import type { DescriptorChain } from './chain.js';
import { ConsolePort } from './console-port.js';
import { type VirtioActivation, type VirtioDevice, VirtioDeviceId } from './device.js';
import type { Virtqueue } from './queue.js';

/** Feature bits (virtio 1.2 §5.3.3). SIZE is not offered: with MULTIPORT drivers do not look at it. */
export const ConsoleFeature = {
  MULTIPORT: 1n << 1n,
  EMERG_WRITE: 1n << 2n,
} as const;

/** Control events (§5.3.6.2). RESIZE is never sent: Linux 2.6.35 to 6.14 read its fields in the other order than the specification. */
const ControlEvent = {
  DEVICE_READY: 0,
  PORT_ADD: 1,
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;

/** `struct virtio_console_control`: id, event, value. */
const CONTROL_SIZE = 8;

const QUEUE_SIZE = 64;
/** Queues: port 0's pair, the control pair, then a pair for each further port. */
const CONTROL_RX = 2;
const CONTROL_TX = 3;

/** Offsets in `struct virtio_console_config` (§5.3.4). */
const CONFIG_MAX_NR_PORTS = 4;
const CONFIG_EMERG_WR = 8;

/** Ports in a console at most: what fits the queue numbers that drivers expect. */
const MAX_PORTS = 31;

/** How a {@link VirtioConsole} is set up. */
export interface VirtioConsoleOptions {
  readonly schedule: Schedule;
  /**
   * Names of the ports after port 0, in order of their ids from 1. In the guest: `/sys/class/virtio-ports/vport*p<id>/name`.
   * 1 to 64 characters of letters, digits, `.`, `_` and `-`, each name once; at most 30.
   */
  readonly ports?: readonly string[];
}

/**
 * virtio-console (virtio 1.2 §5.3) with MULTIPORT: port 0 is a terminal, `hvc0` to Linux; the others are plain byte
 * streams with a name. With a driver that does not know MULTIPORT there is only port 0, and it is open.
 */
export class VirtioConsole implements VirtioDevice {
  readonly name = 'virtio-console';
  readonly deviceId = VirtioDeviceId.CONSOLE;
  readonly features = ConsoleFeature.MULTIPORT | ConsoleFeature.EMERG_WRITE;
  readonly queueSizes: readonly number[];
  readonly config = new Uint8Array(12);
  /** Port 0 first, the named ports after it. */
  readonly ports: readonly ConsolePort[];

  #queues: readonly Virtqueue[] = [];
  #multiport = false;
  /** DEVICE_READY was heard; ports whose PORT_READY was. Each is answered once, so that a guest cannot pile up messages. */
  #announced = false;
  readonly #readyPorts = new Set<number>();
  /** Control messages that wait for a buffer. */
  #control: Uint8Array[] = [];
  readonly #message = new Uint8Array(CONTROL_SIZE);
  readonly #messageView = new DataView(this.#message.buffer);

  /** @throws RangeError too many ports, or a name that is malformed or there twice */
  constructor(options: VirtioConsoleOptions) {
    const names = options.ports ?? [];
    if (names.length >= MAX_PORTS)
      throw new RangeError(`virtio-console: ${names.length} named ports; there is room for ${MAX_PORTS - 1}`);
    for (const [index, name] of names.entries()) {
      if (!/^[\w.-]{1,64}$/.test(name)) {
        throw new RangeError(
          `virtio-console: port name ${JSON.stringify(name)} is not 1 to 64 letters, digits, '.', '_' or '-'`,
        );
      }
      if (names.indexOf(name) !== index)
        throw new RangeError(`virtio-console: port name ${JSON.stringify(name)} is there twice`);
    }
    const host = {
      schedule: options.schedule,
      hostOpenChanged: (port: ConsolePort) => {
        // A port not announced yet says it then.
        if (this.#readyPorts.has(port.id)) this.#send(port.id, ControlEvent.PORT_OPEN, port.hostOpen ? 1 : 0);
      },
    };
    this.ports = ['hvc0', ...names].map((name, id) => new ConsolePort(id, name, id === 0, host));
    this.queueSizes = new Array<number>(2 * this.ports.length + 2).fill(QUEUE_SIZE);
    new DataView(this.config.buffer).setUint32(CONFIG_MAX_NR_PORTS, this.ports.length, true);
  }

  /** The port of that name. */
  port(name: string): ConsolePort | undefined {
    return this.ports.find((port) => port.name === name);
  }

  attach(): void {}

  activate(activation: VirtioActivation): void {
    this.#queues = activation.queues;
    this.#multiport = (activation.features & ConsoleFeature.MULTIPORT) !== 0n;
    for (const port of this.ports) {
      const rx = port.id === 0 ? 0 : 2 * port.id + 2;
      if (port.id === 0 || this.#multiport) port.connect(this.#queues[rx]!, this.#queues[rx + 1]!);
    }
    if (!this.#multiport) this.ports[0]!.setGuestOpen(true);
  }

  notify(index: number): void {
    if (index === CONTROL_RX) {
      this.#sendWaiting();
    } else if (index === CONTROL_TX) {
      this.#receive();
    } else {
      const port = this.ports[index < CONTROL_RX ? 0 : (index >>> 1) - 1];
      if ((index & 1) === 0) port?.offerRoom();
      else port?.drain();
    }
  }

  writeConfig(offset: number, _len: number, value: number): void {
    if (offset === CONFIG_EMERG_WR) this.ports[0]!.emergency(value & 0xff);
  }

  reset(): void {
    this.#queues = [];
    this.#multiport = false;
    this.#announced = false;
    this.#readyPorts.clear();
    this.#control = [];
    for (const port of this.ports) port.disconnect();
  }

  /** Hands out all output that waits for a scheduled flush. */
  flush(): void {
    for (const port of this.ports) port.flush();
  }

  close(): void {
    this.flush();
  }

  /** What the driver says on the control queue. */
  #receive(): void {
    const queue = this.#queues[CONTROL_TX];
    if (queue === undefined || !this.#multiport) return;
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      const length = chain.read(this.#message);
      queue.push(chain, 0);
      if (length === CONTROL_SIZE) this.#handle();
    }
    queue.signal();
  }

  #handle(): void {
    const id = this.#messageView.getUint32(0, true);
    const event = this.#messageView.getUint16(4, true);
    const value = this.#messageView.getUint16(6, true);
    if (event === ControlEvent.DEVICE_READY) {
      // Without value 1 the driver has given up.
      if (value !== 1 || this.#announced) return;
      this.#announced = true;
      for (const port of this.ports) this.#send(port.id, ControlEvent.PORT_ADD, 1);
      return;
    }
    const port = this.ports[id];
    if (port === undefined) return;
    if (event === ControlEvent.PORT_READY) {
      if (value === 1 && this.#announced && !this.#readyPorts.has(id)) this.#introduce(port);
    } else if (event === ControlEvent.PORT_OPEN) {
      port.setGuestOpen(value === 1);
    }
  }

  /** The name comes last: who finds a port by its name finds it connected. */
  #introduce(port: ConsolePort): void {
    this.#readyPorts.add(port.id);
    if (port.isConsole) this.#send(port.id, ControlEvent.CONSOLE_PORT, 1);
    if (port.hostOpen) this.#send(port.id, ControlEvent.PORT_OPEN, 1);
    if (!port.isConsole) this.#send(port.id, ControlEvent.PORT_NAME, 1, port.name);
  }

  #send(id: number, event: number, value: number, text = ''): void {
    const message = new Uint8Array(CONTROL_SIZE + text.length);
    const view = new DataView(message.buffer);
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    for (let i = 0; i < text.length; i++) message[CONTROL_SIZE + i] = text.charCodeAt(i);
    this.#control.push(message);
    this.#sendWaiting();
  }

  #sendWaiting(): void {
    const queue = this.#queues[CONTROL_RX];
    if (queue === undefined || this.#control.length === 0) return;
    let sent = 0;
    for (; sent < this.#control.length; sent++) {
      const chain: DescriptorChain | undefined = queue.pop();
      if (chain === undefined) break;
      const message = this.#control[sent]!;
      if (chain.writableBytes < message.length) {
        queue.fail(`chain ${chain.head}: a control message of ${message.length} bytes does not fit`);
        break;
      }
      queue.push(chain, chain.write(message));
    }
    this.#control.splice(0, sent);
    queue.signal();
  }
}
