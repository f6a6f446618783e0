import { IoeventfdFlag, type Kvm, type Vm } from '../kvm/index.js';
import { virtioSlot } from './board.js';
import type { VmConsole } from './console.js';
import type { GuestRam } from './devices/device.js';
import {
  type BlockBackend,
  type ConsolePort,
  QUEUE_NOTIFY,
  VirtioBlk,
  VirtioConsole,
  type VirtioDevice,
  type VirtioInput,
  VirtioMmio,
  VirtioRng,
} from './devices/virtio/index.js';
import { connectIrq } from './irq.js';
import type { VmConsoles } from './micro-vm.js';
import type { MmioBus } from './mmio-bus.js';
import { needsVirtioConsole, type ResolvedOptions, virtioDeviceCount } from './options.js';
import type { FillRandom } from './random.js';
import type { RunLoop } from './run-loop.js';

/** What {@link connectVirtio} works on. */
export interface VirtioParts {
  readonly options: ResolvedOptions;
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly bus: MmioBus;
  readonly ram: GuestRam;
  readonly loop: RunLoop;
  readonly disks: readonly BlockBackend[];
  readonly consoles: VmConsoles;
  readonly random: FillRandom;
  /** The keyboard that holds the power key. */
  readonly keyboard: VirtioInput;
}

/** Slots that hold a device with these options: disks first, so that their names in the guest do not depend on the rest. */
export function virtioSlotsOf(options: ResolvedOptions): number[] {
  return Array.from({ length: virtioDeviceCount(options) }, (_, n) => n);
}

/**
 * Puts the virtio devices on the board. A queue's notification is an ioeventfd on QueueNotify with the queue's index as
 * datamatch, an interrupt is an irqfd, as on the real kernel: neither is an exit there.
 */
export function connectVirtio(parts: VirtioParts): {
  readonly slots: readonly number[];
  /** Hands out what the devices still gather, whatever holds it back: the machine is about to go. */
  flush(): void;
  close(): void;
} {
  const { options, loop } = parts;
  const closers: (() => void)[] = [];
  let next = 0;
  const plug = (virtio: VirtioDevice): void => {
    const slot = virtioSlot(next++);
    const irq = connectIrq(parts.kvm, parts.vm, slot.spi);
    closers.push(() => irq.close());
    const transport = new VirtioMmio({ device: virtio, ram: parts.ram, irq });
    for (let queue = 0; queue < transport.queueCount; queue++) {
      const fd = parts.kvm.createEventFd();
      closers.push(() => fd.close());
      fd.onSignal(() => transport.notify(queue));
      parts.vm.ioeventfd({
        fd,
        addr: slot.base + QUEUE_NOTIFY,
        len: 4,
        datamatch: BigInt(queue),
        flags: IoeventfdFlag.DATAMATCH,
      });
    }
    parts.bus.add(slot.base, transport);
    closers.push(() => transport.reset());
  };
  for (const [n, backend] of parts.disks.entries()) {
    plug(new VirtioBlk({ backend, schedule: loop.defer, id: `elvisor-disk-${n}` }));
  }
  let device: VirtioConsole | undefined;
  if (needsVirtioConsole(options)) {
    device = new VirtioConsole({ schedule: loop.defer, ports: options.ports });
    const { hvc0, ports } = parts.consoles;
    for (const [name, core] of [...(hvc0 === undefined ? [] : [['hvc0', hvc0] as const]), ...ports]) {
      connectPort(device.port(name)!, core);
    }
    plug(device);
  }
  if (options.rng) {
    plug(
      new VirtioRng({
        getRandomValues: options.clock === 'virtual' ? seededBytes() : parts.random,
      }),
    );
  }
  plug(parts.keyboard);
  return {
    slots: virtioSlotsOf(options),
    flush: () => {
      for (const port of device?.ports ?? []) {
        port.resume();
        port.flush();
      }
    },
    close: () => {
      for (const close of closers.splice(0).reverse()) close();
    },
  };
}

function connectPort(port: ConsolePort, core: VmConsole): void {
  port.onData = (bytes) => core.output(bytes);
  port.onWritable = () => core.inputReady();
  // What was written before the guest opened the port waits in the console.
  port.onOpen = () => core.inputReady();
  core.connect({
    receive: (bytes) => (port.hostOpen ? port.write(bytes) : bytes.length),
    resumeTransmit: () => port.resume(),
    // A terminal has no end of file of its own: for hvc0, ^D is a byte like any other.
    ...(port.isConsole ? {} : { hangUp: () => port.close() }),
  });
}

/** The same bytes in every run, for the virtual clock: xorshift64*, which is no source of secrets. */
function seededBytes(): (into: Uint8Array) => void {
  let state = 0x9e37_79b9_7f4a_7c15n;
  return (into) => {
    for (let i = 0; i < into.length; i++) {
      state ^= state >> 12n;
      state = BigInt.asUintN(64, state ^ (state << 25n));
      state ^= state >> 27n;
      into[i] = Number(BigInt.asUintN(64, state * 0x2545_f491_4f6c_dd1dn) >> 56n);
    }
  };
}
