import type { VgicIrq } from './irq.js';
import type { Lpis } from './lpis.js';
import type { Redistributor } from './redistributor.js';
import type { Vgic } from './vgic.js';

/** Where a collection sends its LPIs: a vCPU's id, or nowhere yet. */
export interface Collection {
  readonly id: number;
  target: number | undefined;
}

/** A translation: an event of a device is an LPI, sent where its collection says. */
export interface Translation {
  readonly irq: VgicIrq;
  /** `undefined` since the collection was unmapped. */
  collection: Collection | undefined;
}

/** A device with its interrupt translation table. */
export interface ItsDevice {
  readonly id: number;
  /** Guest-physical address of the table, for saving. */
  readonly table: number;
  readonly eventBits: number;
  readonly events: Map<number, Translation>;
}

/** Translations of an ITS at most: a guest could map without end, several events to one LPI. */
const MAX_TRANSLATIONS = 2 ** 18;

/** What the guest mapped on one ITS: devices, their events, and collections. */
export class ItsMap {
  readonly lpis: Lpis;
  readonly #vgic: () => Vgic | undefined;
  readonly devices = new Map<number, ItsDevice>();
  readonly collections = new Map<number, Collection>();
  #translations = 0;

  constructor(lpis: Lpis, vgic: () => Vgic | undefined) {
    this.lpis = lpis;
    this.#vgic = vgic;
  }

  /** The redistributor that GITS commands and tables name by its GICR_TYPER.Processor_Number: the vCPU's id. */
  redistributor(target: number | undefined): Redistributor | undefined {
    return target === undefined ? undefined : this.#vgic()?.redistributor(target);
  }

  find(device: number, event: number): Translation | undefined {
    return this.devices.get(device)?.events.get(event);
  }

  /** Replaces what was mapped for the device. */
  mapDevice(id: number, table: number, eventBits: number): ItsDevice {
    this.unmapDevice(id);
    const device: ItsDevice = { id, table, eventBits, events: new Map() };
    this.devices.set(id, device);
    return device;
  }

  unmapDevice(id: number): void {
    const device = this.devices.get(id);
    if (device === undefined) return;
    this.devices.delete(id);
    this.#translations -= device.events.size;
    this.lpis.charge(device.events.size);
    for (const { irq } of device.events.values()) this.lpis.release(irq);
  }

  /** @returns the translation, or why there is none: no room for another, or the LPI's tables are not in memory */
  mapEvent(device: ItsDevice, event: number, intid: number, collection: Collection): Translation | 'full' | 'fault' {
    if (this.#translations >= MAX_TRANSLATIONS) return 'full';
    const irq = this.lpis.acquire(intid, this.redistributor(collection.target));
    if (irq === undefined) return 'fault';
    const translation = { irq, collection };
    device.events.set(event, translation);
    this.#translations++;
    return translation;
  }

  unmapEvent(device: ItsDevice, event: number): void {
    const translation = device.events.get(event);
    if (translation === undefined) return;
    device.events.delete(event);
    this.#translations--;
    this.lpis.release(translation.irq);
  }

  /** Sends the collection's LPIs to `target`. */
  mapCollection(id: number, target: number | undefined): Collection {
    const there = this.collections.get(id);
    if (there === undefined) {
      const collection = { id, target };
      this.collections.set(id, collection);
      return collection;
    }
    there.target = target;
    this.lpis.charge(this.#translations);
    for (const { irq, collection } of this.#all()) {
      if (collection === there) this.lpis.setTarget(irq, this.redistributor(target));
    }
    return there;
  }

  unmapCollection(id: number): void {
    const there = this.collections.get(id);
    if (there === undefined) return;
    this.collections.delete(id);
    this.lpis.charge(this.#translations);
    for (const translation of this.#all()) {
      if (translation.collection === there) translation.collection = undefined;
    }
  }

  move(translation: Translation, collection: Collection): void {
    translation.collection = collection;
    this.lpis.setTarget(translation.irq, this.redistributor(collection.target));
  }

  *#all(): Generator<Translation> {
    for (const device of this.devices.values()) yield* device.events.values();
  }

  clearDevices(): void {
    for (const id of [...this.devices.keys()]) this.unmapDevice(id);
  }

  clearCollections(): void {
    this.collections.clear();
    this.lpis.charge(this.#translations);
    for (const translation of this.#all()) translation.collection = undefined;
  }
}
