import { FIRST_LPI } from './irq.js';
import type { Collection, ItsMap } from './its-map.js';
import { ENTRY_SIZE, entryAddress, eventAddress, type TableBase } from './its-tables.js';

/** ITS commands (IHI 0069, 6.3): 32 bytes, the number in the first. */
export const COMMAND_SIZE = 32;
const Command = {
  MOVI: 0x01,
  INT: 0x03,
  CLEAR: 0x04,
  SYNC: 0x05,
  MAPD: 0x08,
  MAPC: 0x09,
  MAPTI: 0x0a,
  MAPI: 0x0b,
  INV: 0x0c,
  INVALL: 0x0d,
  MOVALL: 0x0e,
  DISCARD: 0x0f,
} as const;

/** A command's four words. */
export type CommandWords = readonly [bigint, bigint, bigint, bigint];

/** GITS_TYPER.ID_bits: bits of EventID that a device can have. */
const MAX_EVENT_BITS = 16;

const bits = (word: bigint, shift: bigint, size: bigint): number => Number((word >> shift) & ((1n << size) - 1n));

/**
 * Does what the guest's commands say. A command with an error does nothing, and the queue goes on: of the two that the
 * architecture allows, stalling and ignoring, the kernel's ITS ignores.
 */
export class ItsCommands {
  readonly #map: ItsMap;
  readonly #tables: () => { readonly devices: TableBase; readonly collections: TableBase };
  readonly #trigger: (device: number, event: number) => void;

  /** @param trigger makes the LPI of an event pending, as an MSI does */
  constructor(
    map: ItsMap,
    tables: () => { readonly devices: TableBase; readonly collections: TableBase },
    trigger: (device: number, event: number) => void,
  ) {
    this.#map = map;
    this.#tables = tables;
    this.#trigger = trigger;
  }

  execute([w0, w1, w2, w3]: CommandWords): void {
    const device = bits(w0, 32n, 32n);
    const event = bits(w1, 0n, 32n);
    const collection = bits(w2, 0n, 16n);
    const isValid = w2 >> 63n !== 0n;
    switch (bits(w0, 0n, 8n)) {
      case Command.MAPD:
        this.#mapd(device, bits(w1, 0n, 5n) + 1, bits(w2, 8n, 44n) * 256, isValid);
        return;
      case Command.MAPC:
        this.#mapc(collection, bits(w2, 16n, 32n), isValid);
        return;
      case Command.MAPTI:
        this.#mapti(device, event, bits(w1, 32n, 32n), collection);
        return;
      case Command.MAPI:
        this.#mapti(device, event, event, collection);
        return;
      case Command.MOVI:
        this.#movi(device, event, collection);
        return;
      case Command.MOVALL:
        this.#movall(bits(w2, 16n, 32n), bits(w3, 16n, 32n));
        return;
      case Command.DISCARD:
        this.#discard(device, event);
        return;
      case Command.INT:
        this.#trigger(device, event);
        return;
      case Command.CLEAR: {
        const translation = this.#map.find(device, event);
        if (translation !== undefined) this.#map.lpis.setPending(translation.irq, false);
        return;
      }
      case Command.INV: {
        const translation = this.#map.find(device, event);
        if (translation !== undefined) this.#map.lpis.configure(translation.irq);
        return;
      }
      case Command.INVALL: {
        const target = this.#map.redistributor(this.#map.collections.get(collection)?.target);
        if (target !== undefined) this.#map.lpis.configureAll(target);
        return;
      }
      // Everything is in sync at all times; and what is not known is ignored.
      default:
    }
  }

  #mapd(id: number, eventBits: number, table: number, isValid: boolean): void {
    const { memory } = this.#map.lpis;
    const entry = entryAddress(memory, this.#tables().devices, id);
    if (entry === undefined || (isValid && eventBits > MAX_EVENT_BITS)) return;
    if (isValid) {
      this.#map.mapDevice(id, table, eventBits);
    } else {
      this.#map.unmapDevice(id);
      // A later restore must not find what an earlier save left.
      memory.write64(entry, 0n);
    }
  }

  #mapc(id: number, target: number, isValid: boolean): void {
    if (!isValid) this.#map.unmapCollection(id);
    else if (this.#map.redistributor(target) !== undefined && this.#mayHave(id)) this.#map.mapCollection(id, target);
  }

  /** Whether there is such a collection, or room for it in the guest's table. */
  #mayHave(id: number): boolean {
    const { collections, lpis } = this.#map;
    return collections.has(id) || entryAddress(lpis.memory, this.#tables().collections, id) !== undefined;
  }

  #mapti(deviceId: number, event: number, intid: number, collectionId: number): void {
    const { lpis, devices, collections } = this.#map;
    const device = devices.get(deviceId);
    if (device === undefined || eventAddress(lpis.memory, device, event) === undefined) return;
    if (intid < FIRST_LPI || intid >= lpis.end || device.events.has(event)) return;
    const isNew = !collections.has(collectionId);
    if (!this.#mayHave(collectionId)) return;
    const collection = collections.get(collectionId) ?? this.#map.mapCollection(collectionId, undefined);
    const result = this.#map.mapEvent(device, event, intid, collection);
    if (typeof result === 'string' && isNew) this.#map.unmapCollection(collectionId);
  }

  #movi(device: number, event: number, collectionId: number): void {
    const translation = this.#map.find(device, event);
    const collection = this.#map.collections.get(collectionId);
    if (translation === undefined || !isMapped(translation.collection) || !isMapped(collection)) return;
    this.#map.move(translation, collection);
  }

  #movall(from: number, to: number): void {
    const source = this.#map.redistributor(from);
    const destination = this.#map.redistributor(to);
    if (source === undefined || destination === undefined || source === destination) return;
    this.#map.lpis.moveAll(source, destination);
  }

  #discard(deviceId: number, event: number): void {
    const { lpis, devices } = this.#map;
    const device = devices.get(deviceId);
    if (device === undefined || !isMapped(device.events.get(event)?.collection)) return;
    this.#map.unmapEvent(device, event);
    lpis.memory.write64(device.table + event * ENTRY_SIZE, 0n);
  }
}

function isMapped(collection: Collection | undefined): collection is Collection {
  return collection?.target !== undefined;
}
