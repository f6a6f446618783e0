import type { ErrnoCode } from '../../../kvm/index.js';
import type { GuestAccess } from '../guest-access.js';
import { FIRST_LPI } from './irq.js';
import type { Collection, ItsDevice, ItsMap } from './its-map.js';

/**
 * The ITS's tables in guest memory, in the kernel's layout: "ITS Table ABI REV0" of arm-vgic-its.rst. All entries are eight
 * bytes. Devices and events are at their index, each with the distance to the next; collections come one after the other.
 */
export const ENTRY_SIZE = 8;
/** Pages of GITS_BASER<n> tables and of second-level device tables. */
const TABLE_PAGE = 0x1_0000;

/** GITS_BASER<n>: Valid, Indirect, pages less one, and the address, whose bits 51..48 are at 15..12. */
const BASER_VALID = 1n << 63n;
export const BASER_INDIRECT = 1n << 62n;
const BASER_PAGES = 0xffn;
const BASER_ADDRESS = 0xffff_ffff_0000n;
const BASER_ADDRESS_TOP = 0xf000n;

/** DTE: V, distance to the next, bits 51..8 of the ITT's address, bits of EventID less one. */
const DTE_VALID = 1n << 63n;
const DTE_NEXT_SHIFT = 49n;
const DTE_NEXT_MAX = 0x3fff;
const DTE_TABLE_SHIFT = 5n;
const DTE_TABLE_MASK = 0xfff_ffff_ffffn;
const DTE_SIZE_MASK = 0x1fn;
/** ITE: distance to the next, INTID, collection. */
const ITE_NEXT_SHIFT = 48n;
const ITE_NEXT_MAX = 0xffff;
const ITE_INTID_SHIFT = 16n;
/** CTE: V, vCPU, collection. */
const CTE_VALID = 1n << 63n;
const CTE_TARGET_SHIFT = 16n;
const CTE_UNMAPPED = 0xffff_ffff;
const ICID_MASK = 0xffffn;
/** First-level device table entry: V and the second level's address. */
const L1_VALID = 1n << 63n;
const L1_ADDRESS = 0xf_ffff_ffff_0000n;

/** DeviceIDs and collection ids have 16 bits. */
const MAX_ID = 0x1_0000;

/** Where a table is. */
export interface TableBase {
  readonly isValid: boolean;
  readonly isIndirect: boolean;
  readonly address: number;
  /** Bytes. */
  readonly size: number;
}

export const tableBase = (baser: bigint): TableBase => ({
  isValid: (baser & BASER_VALID) !== 0n,
  isIndirect: (baser & BASER_INDIRECT) !== 0n,
  address: Number((baser & BASER_ADDRESS) | ((baser & BASER_ADDRESS_TOP) << 36n)),
  size: (Number(baser & BASER_PAGES) + 1) * TABLE_PAGE,
});

/** Where the entry of `id` is in guest memory; `undefined` where the table has none (kernel: vgic_its_check_id). */
export function entryAddress(memory: GuestAccess, table: TableBase, id: number): number | undefined {
  if (id >= MAX_ID) return undefined;
  let address: number;
  if (table.isIndirect) {
    const perPage = TABLE_PAGE / ENTRY_SIZE;
    const index = Math.floor(id / perPage);
    if (index >= table.size / ENTRY_SIZE) return undefined;
    const entry = memory.read64(table.address + index * ENTRY_SIZE);
    if (entry === undefined || (entry & L1_VALID) === 0n) return undefined;
    address = Number(entry & L1_ADDRESS) + (id % perPage) * ENTRY_SIZE;
  } else {
    if (id >= table.size / ENTRY_SIZE) return undefined;
    address = table.address + id * ENTRY_SIZE;
  }
  return memory.isVisible(address) ? address : undefined;
}

/** Where an event's entry is; `undefined` where the device's table has none (kernel: vgic_its_check_event_id). */
export function eventAddress(memory: GuestAccess, device: ItsDevice, event: number): number | undefined {
  if (event >= 2 ** device.eventBits) return undefined;
  const address = device.table + event * ENTRY_SIZE;
  return memory.isVisible(address) ? address : undefined;
}

/** KVM_DEV_ARM_ITS_SAVE_TABLES. @returns the errno, or `undefined` */
export function saveTables(map: ItsMap, devices: TableBase, collections: TableBase): ErrnoCode | undefined {
  const { memory } = map.lpis;
  if (devices.isValid) {
    const sorted = [...map.devices.values()].sort((a, b) => a.id - b.id);
    for (const [i, device] of sorted.entries()) {
      const address = entryAddress(memory, devices, device.id);
      if (address === undefined) return 'EINVAL';
      const error = saveEvents(memory, device);
      if (error !== undefined) return error;
      const next = Math.min((sorted[i + 1]?.id ?? device.id) - device.id, DTE_NEXT_MAX);
      const entry =
        DTE_VALID |
        (BigInt(next) << DTE_NEXT_SHIFT) |
        (BigInt(device.table / 256) << DTE_TABLE_SHIFT) |
        BigInt(device.eventBits - 1);
      if (!memory.write64(address, entry)) return 'EFAULT';
    }
  }
  return collections.isValid ? saveCollections(memory, map, collections) : undefined;
}

function saveEvents(memory: GuestAccess, device: ItsDevice): ErrnoCode | undefined {
  // An event whose collection was unmapped can't be told in this layout, and goes nowhere.
  const events: [number, number, Collection][] = [];
  for (const [event, { irq, collection }] of device.events) {
    if (collection !== undefined) events.push([event, irq.intid, collection]);
  }
  events.sort(([a], [b]) => a - b);
  for (const [i, [event, intid, collection]] of events.entries()) {
    const next = Math.min((events[i + 1]?.[0] ?? event) - event, ITE_NEXT_MAX);
    const entry = (BigInt(next) << ITE_NEXT_SHIFT) | (BigInt(intid) << ITE_INTID_SHIFT) | BigInt(collection.id);
    if (!memory.write64(device.table + event * ENTRY_SIZE, entry)) return 'EFAULT';
  }
  return undefined;
}

function saveCollections(memory: GuestAccess, map: ItsMap, table: TableBase): ErrnoCode | undefined {
  let at = 0;
  for (const { id, target } of map.collections.values()) {
    if (at >= table.size) return 'EINVAL';
    const entry = CTE_VALID | (BigInt(target ?? CTE_UNMAPPED) << CTE_TARGET_SHIFT) | BigInt(id);
    if (!memory.write64(table.address + at, entry)) return 'EFAULT';
    at += ENTRY_SIZE;
  }
  // An entry that is not valid ends a table that is not full.
  return at === table.size || memory.write64(table.address + at, 0n) ? undefined : 'EFAULT';
}

/**
 * Entries that a restore looks at, at most: a device table full of devices that share a table without a last entry would
 * otherwise be 2^32.
 */
const MAX_SCANNED = 2 ** 23;

/** What an entry says: how far the next one is, 0 for the last; or what is wrong with it. */
type Step = number | ErrnoCode;

/** KVM_DEV_ARM_ITS_RESTORE_TABLES. @returns the errno, or `undefined` */
export function restoreTables(map: ItsMap, devices: TableBase, collections: TableBase): ErrnoCode | undefined {
  if (collections.isValid) {
    const error = restoreCollections(map, collections);
    if (error !== undefined) return error;
  }
  if (!devices.isValid) return undefined;
  const scanner = new Scanner(map.lpis.memory);
  const restore = (id: number, entry: bigint): Step => restoreDevice(map, scanner, id, entry);
  const result = devices.isIndirect
    ? scanner.scan(devices.address, devices.size, 0, (index, entry) => {
        if ((entry & L1_VALID) === 0n) return 1;
        const first = index * (TABLE_PAGE / ENTRY_SIZE);
        return scanner.scan(Number(entry & L1_ADDRESS), TABLE_PAGE, first, restore);
      })
    : scanner.scan(devices.address, devices.size, 0, restore);
  return typeof result === 'string' ? result : undefined;
}

/** Walks tables (kernel: scan_its_table). */
class Scanner {
  readonly #memory: GuestAccess;
  #left = MAX_SCANNED;

  constructor(memory: GuestAccess) {
    this.#memory = memory;
  }

  /** @returns 0 where the last entry was found, 1 where the table ended first, or the errno */
  scan(base: number, size: number, firstId: number, visit: (id: number, entry: bigint) => Step): Step {
    for (let at = 0; at < size; ) {
      if (--this.#left < 0) return 'EINVAL';
      const entry = this.#memory.read64(base + at);
      if (entry === undefined) return 'EFAULT';
      const step = visit(firstId + at / ENTRY_SIZE, entry);
      if (typeof step === 'string' || step === 0) return step;
      at += step * ENTRY_SIZE;
    }
    return 1;
  }
}

function restoreCollections(map: ItsMap, table: TableBase): ErrnoCode | undefined {
  for (let at = 0; at < table.size; at += ENTRY_SIZE) {
    const entry = map.lpis.memory.read64(table.address + at);
    if (entry === undefined) return 'EFAULT';
    if ((entry & CTE_VALID) === 0n) return undefined;
    const target = Number((entry >> CTE_TARGET_SHIFT) & 0xffff_ffffn);
    const id = Number(entry & ICID_MASK);
    if (target !== CTE_UNMAPPED && map.redistributor(target) === undefined) return 'EINVAL';
    if (map.collections.has(id)) return 'EEXIST';
    if (id >= table.size / ENTRY_SIZE) return 'EINVAL';
    map.mapCollection(id, target === CTE_UNMAPPED ? undefined : target);
  }
  return undefined;
}

function restoreDevice(map: ItsMap, scanner: Scanner, id: number, entry: bigint): Step {
  if ((entry & DTE_VALID) === 0n) return 1;
  const eventBits = Number(entry & DTE_SIZE_MASK) + 1;
  const table = Number(((entry >> DTE_TABLE_SHIFT) & DTE_TABLE_MASK) << 8n);
  if (id >= MAX_ID || eventBits > 16) return 'EINVAL';
  const device = map.mapDevice(id, table, eventBits);
  const result = scanner.scan(table, 2 ** eventBits * ENTRY_SIZE, 0, (event, ite) =>
    restoreEvent(map, device, event, ite),
  );
  if (typeof result === 'string') {
    map.unmapDevice(id);
    return result;
  }
  return Number((entry >> DTE_NEXT_SHIFT) & BigInt(DTE_NEXT_MAX));
}

function restoreEvent(map: ItsMap, device: ItsDevice, event: number, entry: bigint): Step {
  const intid = Number((entry >> ITE_INTID_SHIFT) & 0xffff_ffffn);
  if (intid === 0) return 1;
  if (intid < FIRST_LPI || intid >= map.lpis.end) return 'EINVAL';
  const next = Number(entry >> ITE_NEXT_SHIFT);
  if (event + next >= 2 ** device.eventBits) return 'EINVAL';
  const collection = map.collections.get(Number(entry & ICID_MASK));
  if (collection === undefined) return 'EINVAL';
  if (eventAddress(map.lpis.memory, device, event) === undefined) return 'EINVAL';
  const result = map.mapEvent(device, event, intid, collection);
  if (result === 'full') return 'ENOMEM';
  return result === 'fault' ? 'EFAULT' : next;
}
