import { type ErrnoCode, KvmError } from '../../../kvm/index.js';
import type { IoBus, IoDevice } from '../io-bus.js';
import { PIDR2_GICV3 } from './distributor.js';
import { COMMAND_SIZE, type CommandWords, ItsCommands } from './its-commands.js';
import { ItsMap } from './its-map.js';
import { BASER_INDIRECT, ENTRY_SIZE, restoreTables, saveTables, type TableBase, tableBase } from './its-tables.js';
import type { Lpis } from './lpis.js';
import { halfOf, initialBase, sanitise, withHalf } from './table-base.js';
import type { Vgic } from './vgic.js';

/** GITS registers (IHI 0069, 12.19). The frame with GITS_TRANSLATER follows: a vCPU that writes there is no device. */
const GITS_CTLR = 0x0000;
const GITS_IIDR = 0x0004;
const GITS_TYPER = 0x0008;
const GITS_CBASER = 0x0080;
const GITS_CWRITER = 0x0088;
const GITS_CREADR = 0x0090;
const GITS_BASER = 0x0100;
const GITS_BASER_END = 0x0140;
const GITS_IDREGS = 0xffd0;
export const FRAME_SIZE = 0x1_0000;
/** Bytes: both frames. */
export const ITS_SIZE = 2 * FRAME_SIZE;

const CTLR_ENABLED = 1;
const CTLR_QUIESCENT = 1 << 31;
/** Product KVM ('K'), implementer Arm, revision 0: that of the tables' layout. */
const IIDR = 0x4b00_043b;
const IIDR_REVISION = 0xf << 12;
/** Physical LPIs; entries of 8 bytes in an ITT; 16 bits of EventID and of DeviceID; RDbase is GICR_TYPER.Processor_Number. */
const TYPER = 1n | (BigInt(ENTRY_SIZE - 1) << 4n) | (15n << 8n) | (15n << 13n);
/** Identification registers by their offset: part 0x492 of Arm, a 64 KiB frame, a GICv3. */
const ID_REGISTERS: ReadonlyMap<number, number> = new Map([
  [0xffd0, 0x40],
  [0xffe0, 0x92],
  [0xffe4, 0xb4],
  [0xffe8, PIDR2_GICV3],
  [0xfff0, 0x0d],
  [0xfff4, 0xf0],
  [0xfff8, 0x05],
  [0xfffc, 0xb1],
]);

/** GITS_CBASER and GITS_BASER<n>: Valid and the cacheability fields. */
const BASE_VALID = 1n << 63n;
const INNER = 59n;
const OUTER = 53n;
const CBASER_ADDRESS = 0xf_ffff_ffff_0000n;
/** CBASER bits 15..12: the queue is aligned to 64 KiB. */
const CBASER_UNALIGNED = 0xf000n;
/** CWRITER and CREADR: the offset of a command. */
const COMMAND_OFFSET = 0xf_ffe0;
/** BASER: type, entry size less one, and the only page size, 64 KiB. */
const TYPE_SHIFT = 56n;
const TYPE_DEVICE = 1n;
const TYPE_COLLECTION = 4n;
const BASER_FIXED = (7n << TYPE_SHIFT) | (0x1fn << 48n) | (3n << 8n);
const BASER_ENTRY = BigInt(ENTRY_SIZE - 1) << 48n;
const BASER_64K = 2n << 8n;

/** What is done for a guest in one go, in instructions: with long queues it waits, as for a real ITS, and others do not. */
const WORK_AT_ONCE = 50_000;
const COMMAND_COST = 200;

/** A virtual ITS (kernel: `struct vgic_its`): registers, command queue, and what the commands mapped. */
export class Its implements IoDevice {
  readonly #lpis: Lpis;
  readonly #map: ItsMap;
  readonly #commands: ItsCommands;
  #base: number | undefined;
  #enabled = false;
  #cbaser = 0n;
  #creadr = 0;
  #cwriter = 0;
  #deviceBaser = initialBaser(TYPE_DEVICE);
  #collectionBaser = initialBaser(TYPE_COLLECTION);

  constructor(lpis: Lpis, vgic: () => Vgic | undefined) {
    this.#lpis = lpis;
    this.#map = new ItsMap(lpis, vgic);
    this.#commands = new ItsCommands(
      this.#map,
      () => this.#tables(),
      (device, event) => void this.trigger(device, event),
    );
    lpis.addIts();
  }

  /** Guest-physical, once it is set. */
  get base(): number | undefined {
    return this.#base;
  }

  /** Puts the frames on the bus. */
  place(base: number, bus: IoBus): void {
    bus.addDevice(base, ITS_SIZE, this);
    this.#base = base;
  }

  /** Whether an MSI to `address` is for this ITS; the kernel looks at the device there, not at the register. */
  answers(address: bigint): boolean {
    return this.#base !== undefined && address >= this.#base && address < this.#base + ITS_SIZE;
  }

  /**
   * An MSI (kernel: vgic_its_trigger_msi).
   * @returns whether the event is mapped; EBUSY where the ITS or the vCPU's LPIs are off
   */
  trigger(device: number, event: number): boolean | 'EBUSY' {
    if (!this.#enabled) return 'EBUSY';
    const translation = this.#map.find(device, event);
    const target = this.#map.redistributor(translation?.collection?.target);
    if (translation === undefined || target === undefined) return false;
    if (!target.lpisEnabled) return 'EBUSY';
    this.#lpis.setPending(translation.irq, true);
    return true;
  }

  // --- Commands -----------------------------------------------------------------------------------------------------

  /** Whether commands wait to be done. */
  get isBusy(): boolean {
    return this.#enabled && this.#creadr !== this.#cwriter;
  }

  /** Does commands until the queue is empty, or for as long as one go may take. */
  proceed(): void {
    let left = WORK_AT_ONCE;
    while (this.isBusy && left > 0) {
      const before = this.#lpis.work;
      this.#lpis.charge(COMMAND_COST);
      const command = this.#fetch(Number(this.#cbaser & CBASER_ADDRESS) + this.#creadr);
      // A command that is in no memory is ignored as one with an error is.
      if (command !== undefined) this.#commands.execute(command);
      this.#creadr = (this.#creadr + COMMAND_SIZE) % this.#queueSize;
      left -= this.#lpis.work - before;
    }
  }

  /** Does all commands that wait: what user space sees has them behind it, as in the kernel. */
  finish(): void {
    while (this.isBusy) this.proceed();
  }

  #fetch(address: number): CommandWords | undefined {
    const { memory } = this.#lpis;
    const words = [0, 8, 16, 24].map((offset) => memory.read64(address + offset));
    return words.includes(undefined) ? undefined : (words as unknown as CommandWords);
  }

  get #queueSize(): number {
    return (Number(this.#cbaser & 0xffn) + 1) * 0x1000;
  }

  // --- Registers ----------------------------------------------------------------------------------------------------

  isWide(offset: number): boolean {
    return offset === GITS_TYPER || (offset >= GITS_CBASER && offset < GITS_BASER_END && this.#isRegister(offset));
  }

  #isRegister(offset: number): boolean {
    return (
      offset < GITS_TYPER + 8 ||
      (offset >= GITS_CBASER && offset < GITS_CREADR + 8) ||
      (offset >= GITS_BASER && offset < GITS_BASER_END) ||
      (offset >= GITS_IDREGS && offset < FRAME_SIZE)
    );
  }

  read(offset: number, len: number): number {
    if (len !== 4) return 0;
    // A guest that waits for its commands is one that they can be done for.
    if (offset === GITS_CREADR) this.proceed();
    switch (offset) {
      case GITS_CTLR:
        return ((this.#enabled ? CTLR_ENABLED : 0) | (this.#creadr === this.#cwriter ? CTLR_QUIESCENT : 0)) >>> 0;
      case GITS_IIDR:
        return IIDR;
      default:
        return offset >= GITS_IDREGS && offset < FRAME_SIZE
          ? (ID_REGISTERS.get(offset) ?? 0)
          : halfOf(this.#wide(offset & ~7), (offset & 4) !== 0);
    }
  }

  #wide(offset: number): bigint {
    switch (offset) {
      case GITS_TYPER:
        return TYPER;
      case GITS_CBASER:
        return this.#cbaser;
      case GITS_CWRITER:
        return BigInt(this.#cwriter);
      case GITS_CREADR:
        return BigInt(this.#creadr);
      case GITS_BASER:
        return this.#deviceBaser;
      case GITS_BASER + 8:
        return this.#collectionBaser;
      default:
        return 0n;
    }
  }

  write(offset: number, len: number, value: number): void {
    if (len !== 4) return;
    const isHigh = (offset & 4) !== 0;
    switch (offset & ~7) {
      case GITS_CTLR:
        if (!isHigh) this.#writeCtlr(value);
        return;
      case GITS_CBASER:
        if (this.#enabled) return;
        this.#cbaser = sanitise(withHalf(this.#cbaser, isHigh, value), INNER, OUTER) & ~CBASER_UNALIGNED;
        this.#creadr = 0;
        this.#cwriter = 0;
        return;
      case GITS_CWRITER: {
        if (isHigh) return;
        const offset = value & COMMAND_OFFSET;
        if (offset >= this.#queueSize) return;
        this.#cwriter = offset;
        this.proceed();
        return;
      }
      case GITS_BASER:
        if (this.#enabled) return;
        this.#deviceBaser = nextBaser(withHalf(this.#deviceBaser, isHigh, value), TYPE_DEVICE);
        if ((this.#deviceBaser & BASE_VALID) === 0n) this.#map.clearDevices();
        return;
      case GITS_BASER + 8:
        if (this.#enabled) return;
        this.#collectionBaser =
          nextBaser(withHalf(this.#collectionBaser, isHigh, value), TYPE_COLLECTION) & ~BASER_INDIRECT;
        if ((this.#collectionBaser & BASE_VALID) === 0n) this.#map.clearCollections();
        return;
      default:
    }
  }

  /** Enabling without a queue and both tables is UNPREDICTABLE, and does nothing. */
  #writeCtlr(value: number): void {
    const enable = (value & CTLR_ENABLED) !== 0;
    if (enable && !this.#enabled) {
      if ((this.#cbaser & this.#deviceBaser & this.#collectionBaser & BASE_VALID) === 0n) return;
    }
    this.#enabled = enable;
    this.proceed();
  }

  #tables(): { readonly devices: TableBase; readonly collections: TableBase } {
    return { devices: tableBase(this.#deviceBaser), collections: tableBase(this.#collectionBaser) };
  }

  // --- User space ---------------------------------------------------------------------------------------------------

  /** Whether `offset` is right for KVM_DEV_ARM_VGIC_GRP_ITS_REGS. @throws KvmError EINVAL not aligned to the register */
  has(offset: number, syscall: string): boolean {
    const is32 = offset < GITS_TYPER || offset >= GITS_IDREGS;
    if (offset % (is32 ? 4 : 8) !== 0) {
      throw new KvmError('EINVAL', syscall, `0x${offset.toString(16)} is not aligned to its register`);
    }
    return this.#isRegister(offset);
  }

  save(offset: number): bigint {
    this.finish();
    if (offset < GITS_TYPER || offset >= GITS_IDREGS) return BigInt(this.read(offset, 4));
    return this.#wide(offset);
  }

  /** @throws KvmError EBUSY GITS_CREADR of an ITS that is enabled; EINVAL what the queue or the layouts have not */
  restore(offset: number, value: bigint): void {
    const syscall = 'KVM_SET_DEVICE_ATTR';
    this.finish();
    if (offset === GITS_IIDR) {
      if ((Number(value & 0xffff_ffffn) & IIDR_REVISION) !== 0) {
        throw new KvmError('EINVAL', syscall, 'there is no layout but that of revision 0');
      }
    } else if (offset === GITS_CREADR) {
      if (this.#enabled) throw new KvmError('EBUSY', syscall, 'GITS_CREADR can be set only while the ITS is off');
      const next = Number(value & 0xffff_ffffn) & COMMAND_OFFSET;
      if (next >= this.#queueSize) throw new KvmError('EINVAL', syscall, 'GITS_CREADR is beyond the queue');
      this.#creadr = next;
    } else if (offset < GITS_TYPER) {
      this.write(offset, 4, halfOf(value, false));
    } else {
      this.write(offset, 4, halfOf(value, false));
      this.write(offset + 4, 4, halfOf(value, true));
    }
    this.finish();
  }

  /** KVM_DEV_ARM_ITS_SAVE_TABLES. @returns the errno, or `undefined` */
  saveTables(): ErrnoCode | undefined {
    this.finish();
    const { devices, collections } = this.#tables();
    return saveTables(this.#map, devices, collections);
  }

  /** KVM_DEV_ARM_ITS_RESTORE_TABLES. @returns the errno, or `undefined` */
  restoreTables(): ErrnoCode | undefined {
    const { devices, collections } = this.#tables();
    return restoreTables(this.#map, devices, collections);
  }

  /** KVM_DEV_ARM_ITS_CTRL_RESET. */
  reset(): void {
    this.#collectionBaser &= ~BASE_VALID;
    this.#deviceBaser &= ~BASE_VALID;
    this.#cbaser = 0n;
    this.#creadr = 0;
    this.#cwriter = 0;
    this.#enabled = false;
    this.#map.clearDevices();
    this.#map.clearCollections();
  }
}

const nextBaser = (value: bigint, type: bigint): bigint =>
  sanitise((value & ~BASER_FIXED) | (type << TYPE_SHIFT) | BASER_ENTRY | BASER_64K, INNER, OUTER);

const initialBaser = (type: bigint): bigint => nextBaser(initialBase(INNER), type);
