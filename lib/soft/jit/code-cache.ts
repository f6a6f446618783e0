import type { Decoder } from '../a64/decode.js';
import type { HelperEnv } from '../a64/helpers.js';
import { fieldsOf } from '../a64/row.js';
import { fillRecord, RECORD_SHIFT, RECORD_SIZE } from './handler.js';
import { DECODE, type Interpreter, MAX_REGIONS, PAGE_END, REGION, UNDEFINED } from './interpreter.js';
import { canStart } from './region.js';
import { RegionCompiler } from './region-compiler.js';

const PAGE = 4096;
const RECORDS = PAGE / 4;
/** A page's records and the one after the last, which leads to the next page. */
const SLOT_SIZE = (RECORDS + 1) * RECORD_SIZE;
/** Slots are taken from linear memory in chunks of this many. */
const CHUNK = 63;
/** At most so many pages of code are held; when they are used up, all are forgotten at once. */
const MAX_SLOTS = CHUNK * 96;
/** Instructions decoded ahead at most, in a straight line. */
const DECODE_AHEAD = 64;

interface Slot {
  readonly address: number;
  /** Linear address of the page of RAM, 0 for a free slot. */
  page: number;
  /** Something of the page is decoded: stores to it must be seen. */
  tracked: boolean;
  /** Numbers of the compiled regions that start in the page. */
  regions: number[];
  /** Counts the times that the page was forgotten: a region that was waiting to be compiled is of no use afterwards. */
  generation: number;
}

/** A record that was found hot. */
interface Hot {
  readonly slot: Slot;
  readonly generation: number;
  readonly index: number;
}

/** Regions compiled at once at most, and runs that a smaller number waits for more; that one of them is hot again counts as a run. */
const BATCH = 8;
const PATIENCE = 8;

/** The decoded form of code, by page of RAM. */
export class CodeCache {
  readonly #env: HelperEnv;
  readonly #decoder: Decoder;
  readonly #allocate: (bytes: number) => number;
  readonly #onTracked: (page: number) => void;
  readonly #onFlush: () => void;
  readonly #slots: Slot[] = [];
  readonly #byPage = new Map<number, Slot>();
  #chunks: number[] = [];
  #used = 0;
  #interpreter!: Interpreter;
  #compiler!: RegionCompiler;
  #hot: Hot[] = [];
  /** Runs since the first of them was found. */
  #waited = 0;
  /** Regions compiled so far. */
  compiled = 0;
  /** Numbers of regions that are not in use; they are handed out from the end. */
  readonly #freeRegions = Array.from({ length: MAX_REGIONS }, (_, i) => MAX_REGIONS - 1 - i);

  /**
   * @param allocate takes zeroed bytes of linear memory
   * @param onTracked a page of RAM now holds decoded code: no store may go past {@link written}
   * @param onFlush every slot is free again: forget what points to one
   */
  constructor(
    env: HelperEnv,
    decoder: Decoder,
    allocate: (bytes: number) => number,
    onTracked: (page: number) => void,
    onFlush: () => void,
  ) {
    this.#env = env;
    this.#decoder = decoder;
    this.#allocate = allocate;
    this.#onTracked = onTracked;
    this.#onFlush = onFlush;
  }

  /** To be called once the interpreter is made, which needs this object first. */
  link(interpreter: Interpreter): void {
    this.#interpreter = interpreter;
    this.#compiler = new RegionCompiler(this.#decoder, interpreter);
  }

  /** The address of the page's records. @param page linear address of a page of RAM */
  slotOf(page: number): number {
    const found = this.#byPage.get(page);
    if (found !== undefined) return found.address;
    if (this.#used === MAX_SLOTS) this.flush();
    let slot = this.#slots[this.#used];
    if (slot === undefined) {
      const base = this.#allocate(CHUNK * SLOT_SIZE);
      this.#chunks.push(base);
      for (let i = 0; i < CHUNK; i++)
        this.#slots.push({ address: base + i * SLOT_SIZE, page: 0, tracked: false, regions: [], generation: 0 });
      slot = this.#slots[this.#used]!;
    }
    this.#used++;
    slot.page = page;
    slot.tracked = false;
    this.#clear(slot);
    this.#byPage.set(page, slot);
    return slot.address;
  }

  /** Makes every record of the slot one to decode. Operands stay: the instruction that stores to its own page still reads them. */
  #clear(slot: Slot): void {
    slot.generation++;
    for (const region of slot.regions) {
      this.#interpreter.setRegion(region, undefined);
      this.#freeRegions.push(region);
    }
    slot.regions = [];
    const { u16 } = this.#env;
    const end = (slot.address + RECORDS * RECORD_SIZE) >>> 1;
    for (let at = slot.address >>> 1; at < end; at += RECORD_SIZE / 2) u16[at] = DECODE;
    u16[end] = PAGE_END;
  }

  /** Linear address of the instruction that a record stands for. */
  instructionAt(record: number): number {
    const slot = this.#slotHolding(record);
    return slot.page + ((record - slot.address) >> (RECORD_SHIFT - 2));
  }

  #slotHolding(record: number): Slot {
    for (let i = this.#chunks.length - 1; i >= 0; i--) {
      const base = this.#chunks[i]!;
      if (record >= base && record < base + CHUNK * SLOT_SIZE)
        return this.#slots[i * CHUNK + Math.floor((record - base) / SLOT_SIZE)]!;
    }
    throw new Error('no slot holds that record');
  }

  /** Decodes from a record on, in a straight line, up to a branch or something decoded before. */
  decode(record: number): void {
    const { u32, u16 } = this.#env;
    const slot = this.#slotHolding(record);
    if (!slot.tracked) {
      slot.tracked = true;
      this.#onTracked(slot.page);
    }
    let index = (record - slot.address) >> RECORD_SHIFT;
    for (let n = 0; n < DECODE_AHEAD && index < RECORDS; n++, index++) {
      const at = slot.address + index * RECORD_SIZE;
      if (u16[at >>> 1] !== DECODE) return;
      const word = u32[(slot.page + index * 4) >>> 2]!;
      const row = this.#decoder.decode(word);
      if (row === undefined) {
        u16[at >>> 1] = UNDEFINED;
        return;
      }
      const position = index * 4;
      const raw = fieldsOf(row, word);
      const handler = this.#interpreter.handler(row, raw, (imm) => position + imm >= 0 && position + imm < PAGE);
      fillRecord(handler.layout, row, raw, handler.near, u16, u32, at);
      u16[at >>> 1] = handler.number;
      if (row.ends) return;
    }
  }

  /** A record has been branched to often: its region will be compiled, with others. @returns whether that was done now */
  hot(record: number): boolean {
    if (this.#env.u16[record >>> 1] === REGION) return false;
    const slot = this.#slotHolding(record);
    const { generation } = slot;
    const index = (record - slot.address) >> RECORD_SHIFT;
    if (!canStart(this.#decoder, this.#env.u32[(slot.page >>> 2) + index]!)) return false;
    // What becomes hot again while it waits makes the wait shorter.
    if (this.#hot.some((h) => h.slot === slot && h.generation === generation && h.index === index)) return this.#wait();
    this.#hot.push({ slot, generation, index });
    if (this.#hot.length < BATCH) return false;
    this.#compile();
    return true;
  }

  /** To be called between runs, when nothing holds the address of a record: compiles what has waited long enough. */
  tick(): void {
    if (this.#hot.length === 0) return;
    if (this.#freeRegions.length === 0) this.flush();
    else this.#wait();
  }

  #wait(): boolean {
    if (++this.#waited < PATIENCE) return false;
    this.#compile();
    return true;
  }

  #compile(): void {
    const hot = this.#hot;
    this.#hot = [];
    this.#waited = 0;
    const { u16, u32 } = this.#env;
    const recordAt = (h: Hot): number => h.slot.address + h.index * RECORD_SIZE;
    // A slot in which nothing is decoded is not tracked: a region must not go in there.
    const isDecoded = (handler: number): boolean => handler !== DECODE && handler !== REGION;
    const alive = hot.filter((h) => h.slot.generation === h.generation && isDecoded(u16[recordAt(h) >>> 1]!));
    const done = this.#compiler.compile(
      alive.map((h) => ({
        page: {
          word: (index) => u32[(h.slot.page >>> 2) + index]!,
          executed: (index) => u16[(h.slot.address + index * RECORD_SIZE) >>> 1] !== DECODE,
        },
        entry: h.index,
        install: (f) => {
          const region = this.#freeRegions.pop();
          if (region === undefined) return;
          this.#interpreter.setRegion(region, f);
          this.compiled++;
          h.slot.regions.push(region);
          const at = recordAt(h);
          u32[(at + 8) >>> 2] = this.#interpreter.regionIndex(region);
          u16[at >>> 1] = REGION;
        },
      })),
    );
    this.#hot.push(...alive.slice(done));
  }

  /** Whether a store to the page must be reported by {@link written}. */
  tracks(page: number): boolean {
    return this.#byPage.get(page)?.tracked === true;
  }

  /** A page of RAM is stored to: what was decoded of it is forgotten, and it is no longer tracked. */
  written(page: number): void {
    const slot = this.#byPage.get(page);
    if (slot === undefined || !slot.tracked) return;
    slot.tracked = false;
    this.#clear(slot);
  }

  /** Forgets everything. */
  flush(): void {
    for (const slot of this.#byPage.values()) {
      this.#clear(slot);
      slot.page = 0;
    }
    this.#hot = [];
    this.#byPage.clear();
    this.#used = 0;
    this.#onFlush();
  }
}
