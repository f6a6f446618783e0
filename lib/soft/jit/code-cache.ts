import type { Decoder } from '../a64/decode.js';
import type { HelperEnv } from '../a64/helpers.js';
import type { CompileReply, CompilerReply, CompilerThread, RegionRequest } from './compiler-thread.js';
import { RECORD_SHIFT, RECORD_SIZE } from './handler.js';
import { Instructions } from './instruction.js';
import { DECODE, type Interpreter, MAX_REGIONS, PAGE_END, REGION } from './interpreter.js';
import { KeptCode, type KeptRegion } from './kept-code.js';
import { link, type ModuleImports } from './linkage.js';
import { RecordCache } from './record-cache.js';
import { pageReader } from './region.js';
import { type Candidate, type CompiledRegion, compileRegions, regionExport } from './region-compiler.js';
import { Wasm, type WasmModule } from './webassembly.js';

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
/** Records whose being in use is noted together: where a page holds little code, the rest of its records is never touched. */
const LINE = 64;
const LINE_SHIFT = 6;

interface Slot {
  readonly address: number;
  /** Linear address of the page of RAM, 0 for a free slot. */
  page: number;
  /** The records are those of the page where it is mapped as a guarded one. */
  guarded: boolean;
  /** Something of the page is decoded: stores to it must be seen. */
  tracked: boolean;
  /** Lines of {@link LINE} records, one bit each, that may hold something else than DECODE. */
  lines: number;
  /** Numbers of the compiled regions that start in the page. */
  regions: number[];
  /** Counts the times that the page was forgotten: a region that was waiting to be compiled is of no use afterwards. */
  generation: number;
  /** Positions of records that were found hot since the page was last forgotten. */
  readonly wanted: Set<number>;
  /** Positions of loads and stores that a device has answered, since then too. */
  readonly devices: Set<number>;
  /** Kept regions in use, as long as not all of their instructions are decoded. */
  kept: KeptRegion[];
}

/** A record that was found hot. */
interface Hot extends Candidate {
  readonly slot: Slot;
  readonly generation: number;
}

/** Regions compiled at once at most, and runs that a smaller number waits for more; that one of them is hot again counts as a run. */
const BATCH = 8;
const PATIENCE = 8;
/** Regions that the compiler thread has not answered, at most, before it is sent no more of them; and so many that wait to be sent. */
const MAX_WAITING = 256;
/** Replies of the compiler thread taken at once: each is a module to instantiate. */
const REPLIES = 4;

const slotKey = (page: number, guarded: boolean): number => (guarded ? page + 1 : page);

/** The decoded form of code, by page of RAM. */
export class CodeCache {
  readonly #env: HelperEnv;
  readonly #code: Instructions;
  readonly #decoder: Decoder;
  readonly #allocate: (bytes: number) => number | undefined;
  readonly #onTracked: (page: number) => void;
  readonly #onGone: () => void;
  readonly #onFlush: () => void;
  readonly #nameOf: (page: number, records: number, index: number) => string;
  readonly #slots: Slot[] = [];
  /** By linear address of the page; one above it where it is guarded. */
  readonly #byPage = new Map<number, Slot>();
  #lastHeld: Slot | undefined;
  #chunks: number[] = [];
  #used = 0;
  #interpreter!: Interpreter;
  #records!: RecordCache;
  #guardedRecords: RecordCache | undefined;
  #thread: CompilerThread | undefined;
  #hot: Hot[] = [];
  /** What the compiler thread has been asked for, in that order. */
  readonly #sent = new Map<number, Hot>();
  #nextId = 0;
  /** Runs since the first of them was found. */
  #waited = 0;
  #kept: KeptCode | undefined;
  /** Regions compiled so far. */
  compiled = 0;
  /** Times that a kept region was put to use. */
  reused = 0;
  /** Numbers of regions that were in use and are no longer; those from {@link #nextRegion} on never were. */
  readonly #freeRegions: number[] = [];
  #nextRegion = 0;

  /**
   * @param allocate takes zeroed bytes of linear memory; `undefined` where there is no room
   * @param onTracked a page of RAM now holds decoded code: no store may go past {@link written}
   * @param onGone regions that may have been met are gone
   * @param onFlush every slot is free again: forget what points to one
   * @param nameOf what profilers call a region: the linear addresses of its page and of the page's records, and where it starts in the page
   */
  constructor(
    env: HelperEnv,
    decoder: Decoder,
    allocate: (bytes: number) => number | undefined,
    onTracked: (page: number) => void,
    onGone: () => void,
    onFlush: () => void,
    nameOf: (page: number, records: number, index: number) => string,
  ) {
    this.#env = env;
    this.#decoder = decoder;
    this.#code = new Instructions(decoder);
    this.#allocate = allocate;
    this.#onTracked = onTracked;
    this.#onGone = onGone;
    this.#onFlush = onFlush;
    this.#nameOf = nameOf;
  }

  /**
   * To be called once the interpreter is made, which needs this object first.
   * @param thread compiles; this thread does where there is none
   */
  link(interpreter: Interpreter, thread?: CompilerThread): void {
    this.#interpreter = interpreter;
    this.#records = new RecordCache(this.#decoder, interpreter, false);
    this.#thread = thread;
    thread?.post({ memory: interpreter.memory });
  }

  /**
   * The address of the page's records.
   * @param page linear address of a page of RAM
   * @param guarded as which it is mapped: the same page can be both
   */
  slotOf(page: number, guarded: boolean): number {
    const key = slotKey(page, guarded);
    const found = this.#byPage.get(key);
    if (found !== undefined) return found.address;
    if (this.#used === MAX_SLOTS) this.flush();
    const slot = this.#freeSlot();
    this.#used++;
    slot.page = page;
    slot.guarded = guarded;
    slot.tracked = false;
    // The records are clear: memory is zero when it is new, and every slot was cleared before it became free again.
    this.#byPage.set(key, slot);
    return slot.address;
  }

  /** The next slot that holds no page: of a new chunk, where there is room for one, else all are freed. */
  #freeSlot(): Slot {
    const free = this.#slots[this.#used];
    if (free !== undefined) return free;
    const base = this.#allocate(CHUNK * SLOT_SIZE);
    if (base === undefined) {
      if (this.#slots.length === 0) throw new Error('no room for decoded code');
      this.flush();
      return this.#slots[0]!;
    }
    this.#chunks.push(base);
    for (let i = 0; i < CHUNK; i++)
      this.#slots.push({
        address: base + i * SLOT_SIZE,
        page: 0,
        guarded: false,
        tracked: false,
        lines: 0,
        regions: [],
        generation: 0,
        wanted: new Set(),
        devices: new Set(),
        kept: [],
      });
    return this.#slots[this.#used]!;
  }

  /** Makes every record of the slot one to decode. Operands stay: the instruction that stores to its own page still reads them. */
  #clear(slot: Slot): void {
    slot.generation++;
    if (slot.regions.length > 0) this.#onGone();
    for (const region of slot.regions) {
      this.#interpreter.setRegion(region, undefined);
      this.#freeRegions.push(region);
    }
    slot.regions = [];
    slot.kept = [];
    if (slot.wanted.size > 0) slot.wanted.clear();
    if (slot.devices.size > 0) slot.devices.clear();
    const { u16 } = this.#env;
    for (let line = 0; slot.lines >>> line !== 0; line++) {
      if ((slot.lines & (1 << line)) === 0) continue;
      const first = (slot.address + line * LINE * RECORD_SIZE) >>> 1;
      for (let n = 0; n < LINE; n++) u16[first + n * (RECORD_SIZE / 2)] = DECODE;
    }
    slot.lines = 0;
  }

  /** Linear address of the instruction that a record stands for. */
  instructionAt(record: number): number {
    const slot = this.#slotHolding(record);
    return slot.page + ((record - slot.address) >> (RECORD_SHIFT - 2));
  }

  /** Whether a record is one of a guarded page. */
  isGuarded(record: number): boolean {
    return this.#slotHolding(record).guarded;
  }

  #slotHolding(record: number): Slot {
    const last = this.#lastHeld;
    if (last !== undefined && record >= last.address && record < last.address + SLOT_SIZE) return last;
    this.#lastHeld = this.#findHolding(record);
    return this.#lastHeld;
  }

  #findHolding(record: number): Slot {
    for (let i = this.#chunks.length - 1; i >= 0; i--) {
      const base = this.#chunks[i]!;
      if (record >= base && record < base + CHUNK * SLOT_SIZE)
        return this.#slots[i * CHUNK + Math.floor((record - base) / SLOT_SIZE)]!;
    }
    throw new Error('no slot holds that record');
  }

  /** Decodes from a record on, in a straight line, up to a branch or something decoded before. */
  decode(record: number): void {
    const { u16 } = this.#env;
    const slot = this.#slotHolding(record);
    if (!slot.tracked) {
      slot.tracked = true;
      this.#onTracked(slot.page);
    }
    const records = this.#recordsOf(slot);
    let index = (record - slot.address) >> RECORD_SHIFT;
    for (let n = 0; n < DECODE_AHEAD && index < RECORDS; n++, index++) {
      if (u16[(slot.address + index * RECORD_SIZE) >>> 1] !== DECODE) return;
      // What a region executes needs no records.
      if (this.#kept !== undefined && this.#reuse(this.#kept, slot, index)) return;
      if (this.#write(slot, records, index)) return;
    }
  }

  /** Writes the record of an instruction. @returns whether a straight run of code ends there */
  #write(slot: Slot, records: RecordCache, index: number): boolean {
    const { u32, u16 } = this.#env;
    slot.lines |= 1 << (index >> LINE_SHIFT);
    if (index === RECORDS - 1) u16[(slot.address + RECORDS * RECORD_SIZE) >>> 1] = PAGE_END;
    return records.write(u32[(slot.page >>> 2) + index]!, index * 4, u32, slot.address + index * RECORD_SIZE);
  }

  #recordsOf(slot: Slot): RecordCache {
    if (!slot.guarded) return this.#records;
    this.#guardedRecords ??= new RecordCache(this.#decoder, this.#interpreter, true);
    return this.#guardedRecords;
  }

  /** Looks for a kept region of an instruction that is about to be executed. @returns whether there is one in its place now */
  #reuse(kept: KeptCode, slot: Slot, index: number): boolean {
    const found = kept.find(index, slot.guarded, this.#env.u32, slot.page);
    if (found === undefined || !this.#place(slot, found.f, found.entries)) return false;
    slot.kept.push(found);
    this.reused++;
    return true;
  }

  /** Decodes what kept regions hold in place of executing it: it is code that runs, for who forms a region. */
  #decodeKept(slot: Slot): void {
    const { u16 } = this.#env;
    for (const { positions } of slot.kept) {
      for (const index of positions)
        if (u16[(slot.address + index * RECORD_SIZE) >>> 1] === DECODE) this.#write(slot, this.#recordsOf(slot), index);
    }
    slot.kept = [];
  }

  /** A record has been branched to often: its region will be compiled, with others. @returns whether that was done now */
  hot(record: number): boolean {
    const { u16, u32 } = this.#env;
    if (u16[record >>> 1] === REGION) return false;
    const slot = this.#slotHolding(record);
    const index = (record - slot.address) >> RECORD_SHIFT;
    // What becomes hot again while it waits makes the wait shorter.
    if (slot.wanted.has(index)) return this.#thread === undefined && this.#wait();
    if (this.#code.of(u32[(slot.page >>> 2) + index]!, slot.guarded)?.meaning.allowed !== true) return false;
    slot.wanted.add(index);
    this.#decodeKept(slot);
    this.#hot.push({
      slot,
      generation: slot.generation,
      entry: index,
      records: slot.address,
      name: this.#nameOf(slot.page, slot.address, index),
      page: pageReader(this.#env, slot.page, slot.address, slot.guarded, slot.devices),
    });
    if (this.#hot.length < BATCH) return false;
    if (this.#thread === undefined) this.#compile();
    else this.#send(this.#thread);
    return this.#thread === undefined;
  }

  /** The record's instruction is a load or store with a syndrome, and not RAM answers it: compiled code is to be prepared for that. */
  accessesDevice(record: number): void {
    const slot = this.#slotHolding(record);
    slot.devices.add((record - slot.address) >> RECORD_SHIFT);
  }

  /** To be called between runs, when nothing holds the address of a record: compiles what has waited long enough. */
  tick(): void {
    if (this.#thread !== undefined) this.#receive(this.#thread);
    if (this.#hot.length === 0) return;
    if (this.#freeRegions.length === 0 && this.#nextRegion === MAX_REGIONS) this.flush();
    else if (this.#thread !== undefined) this.#send(this.#thread);
    else this.#wait();
  }

  #wait(): boolean {
    if (this.#hot.length === 0 || ++this.#waited < PATIENCE) return false;
    this.#compile();
    return true;
  }

  #compile(): void {
    const list = this.#hot.filter((h) => this.#isAlive(h));
    this.#waited = 0;
    const compiled = compileRegions(this.#code, list, new Set());
    this.#hot = list;
    if (compiled !== undefined) this.#install(new Wasm.Module(compiled.bytes), compiled.imports, compiled.regions);
  }

  #send(thread: CompilerThread): void {
    // Where the thread gets no processor, what was found hot first may not be hot any more, and what still is will be found again.
    for (const h of this.#hot.splice(0, this.#hot.length - MAX_WAITING)) h.slot.wanted.delete(h.entry);
    if (this.#sent.size >= MAX_WAITING) return;
    const regions = this.#hot
      .filter((h) => this.#isAlive(h))
      .map((h): RegionRequest => {
        const id = this.#nextId++;
        this.#sent.set(id, h);
        return {
          id,
          page: h.slot.page,
          records: h.slot.address,
          guarded: h.slot.guarded,
          entry: h.entry,
          devices: [...h.slot.devices],
          name: h.name,
        };
      });
    this.#hot = [];
    if (regions.length > 0) thread.post({ regions });
  }

  #receive(thread: CompilerThread): void {
    for (let n = 0; n < REPLIES; n++) {
      const reply = thread.receive();
      if (reply === undefined) break;
      this.#take(reply, thread);
    }
    if (!thread.failed) return;
    this.#thread = undefined;
    this.#hot.push(...this.#sent.values());
    this.#sent.clear();
  }

  #take(reply: CompilerReply, thread: CompilerThread): void {
    if ('done' in reply) {
      this.#installReply(reply);
    } else if ('parts' in reply) {
      this.#kept ??= new KeptCode(this.#interpreter, (part) => thread.post({ part }));
      this.#kept.add(reply.parts);
      this.#reuseDecoded(this.#kept);
    } else {
      for (const { page, guarded, position } of this.#kept?.arrived(reply) ?? []) {
        const slot = this.#byPage.get(slotKey(page, guarded));
        if (slot !== undefined) this.#reuseAt(this.#kept!, slot, position);
      }
    }
  }

  #installReply({ done, compiled }: CompileReply): void {
    if (compiled !== undefined) {
      const regions = compiled.regions.map(({ id, entries }) => ({ candidate: this.#sent.get(id), entries }));
      this.#install(compiled.module, compiled.imports, regions);
    }
    // What was sent earlier and has not come can't be compiled, or can be entered as part of another region.
    for (const id of this.#sent.keys()) {
      if (id > done) break;
      this.#sent.delete(id);
    }
  }

  /** Uses kept regions in what is decoded already. */
  #reuseDecoded(kept: KeptCode): void {
    for (const slot of this.#byPage.values()) {
      if (!slot.tracked) continue;
      for (let index = 0; index < RECORDS; index++) this.#reuseAt(kept, slot, index);
    }
  }

  /** Looks for a kept region of a record, if that is decoded and is no region's yet. */
  #reuseAt(kept: KeptCode, slot: Slot, index: number): void {
    const handler = this.#env.u16[(slot.address + index * RECORD_SIZE) >>> 1];
    if (handler !== DECODE && handler !== REGION) this.#reuse(kept, slot, index);
  }

  /** Whether the page still holds what it held when the record was found hot, and is still tracked; if not, it may be found hot again. */
  #isAlive(h: Hot): boolean {
    if (h.slot.generation !== h.generation) return false;
    const handler = this.#env.u16[(h.slot.address + h.entry * RECORD_SIZE) >>> 1]!;
    if (handler !== DECODE && handler !== REGION) return true;
    h.slot.wanted.delete(h.entry);
    return false;
  }

  /** @param regions what the module's functions are for; without effect where the page has changed since */
  #install(module: WasmModule, imports: ModuleImports, regions: readonly CompiledRegion<Hot | undefined>[]): void {
    const { exports } = link(module, imports, this.#interpreter);
    regions.forEach(({ candidate, entries }, n) => {
      if (candidate === undefined || !this.#isAlive(candidate)) return;
      if (this.#place(candidate.slot, exports[regionExport(n)], entries)) this.compiled++;
    });
  }

  /** Puts a region's function where it may be entered, but for where another's is. @returns whether there was room for it */
  #place(slot: Slot, f: unknown, entries: Iterable<number>): boolean {
    const { u16, u32 } = this.#env;
    const region = this.#takeRegion();
    if (region === undefined) return false;
    this.#interpreter.setRegion(region, f);
    slot.regions.push(region);
    for (const index of entries) {
      const at = slot.address + index * RECORD_SIZE;
      if (u16[at >>> 1] === REGION) continue;
      slot.lines |= 1 << (index >> LINE_SHIFT);
      u32[(at + 8) >>> 2] = this.#interpreter.regionIndex(region);
      u16[at >>> 1] = REGION;
    }
    return true;
  }

  #takeRegion(): number | undefined {
    return this.#freeRegions.pop() ?? (this.#nextRegion < MAX_REGIONS ? this.#nextRegion++ : undefined);
  }

  /** Pages of RAM whose code is held. */
  get pages(): number {
    return this.#byPage.size;
  }

  /** Whether a store to the page must be reported by {@link written}. */
  tracks(page: number): boolean {
    return (
      this.#byPage.get(page)?.tracked === true ||
      (this.#guardedRecords !== undefined && this.#byPage.get(slotKey(page, true))?.tracked === true)
    );
  }

  /** A page of RAM is stored to: what was decoded of it is forgotten, and it is no longer tracked. */
  written(page: number): void {
    this.#forget(this.#byPage.get(page));
    if (this.#guardedRecords !== undefined) this.#forget(this.#byPage.get(slotKey(page, true)));
  }

  #forget(slot: Slot | undefined): void {
    if (slot?.tracked !== true) return;
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
