import { usePage } from './page-states.js';
import type { PhysicalMap, RamRegion } from './physical.js';

/** Fault status codes without the level, as in ESR_ELx.ISS.DFSC (Arm ARM DDI 0487 D24.2.37). */
export const FaultStatus = {
  ADDRESS_SIZE: 0b000000,
  TRANSLATION: 0b000100,
  ACCESS_FLAG: 0b001000,
  PERMISSION: 0b001100,
  EXTERNAL: 0b010000,
  EXTERNAL_WALK: 0b010100,
  ALIGNMENT: 0b100001,
  /** A breakpoint or watchpoint. */
  DEBUG: 0b100010,
  /** None of the guest's: RAM may not be used, at {@link Translator.unresolved}. */
  UNRESOLVED: 0b1000000,
} as const;

/** The registers that stage 1 of the EL1&0 regime depends on, as the walk wants them: read anew with {@link setRegime} when one changes. */
export interface Regime {
  /** SCTLR_EL1.M, .WXN, .EPAN. */
  enabled: boolean;
  wxn: boolean;
  epan: boolean;
  /** TCR_EL1; its bits for what is not there are zero. */
  tcr: bigint;
  ttbr0: bigint;
  ttbr1: bigint;
  mair: bigint;
}

/** One half of the address space: what TCR_EL1 says of it. */
interface Half {
  /** Address of the table at the first level, and its alignment. */
  table: number;
  tableAlign: number;
  /** Bits of input address, the size they span, and where the upper half's range begins in 52 bits. */
  inputBits: number;
  inputSize: number;
  rangeStart: number;
  /** log2 of the granule: 12, 14 or 16. */
  granule: number;
  /** EPDn, or TnSZ is too small: walks are disabled. */
  disabled: boolean;
  /** TBIn: the top byte is ignored; and for fetches (TBIDn). */
  ignoreTop: boolean;
  ignoreTopOfPc: boolean;
  /** HPDn: hierarchical permissions are off. */
  hpd: boolean;
  /** E0PDn: EL0 accesses fault. */
  e0pd: boolean;
  /** First level of the walk. */
  level: number;
}

const LOW48 = 0xffff_ffff_ffff;
/** ID_AA64MMFR0_EL1.PARange is 40 bits. */
const PHYSICAL_LIMIT = 2 ** 40;

/** Result bits of {@link Translator.walk}. */
export interface Translation {
  /** Physical address of the page's first byte (4 KiB granularity). */
  pa: number;
  readEl0: boolean;
  writeEl0: boolean;
  execEl0: boolean;
  readEl1: boolean;
  writeEl1: boolean;
  execEl1: boolean;
  /** Level of the last descriptor. */
  level: number;
  /** Attribute index into MAIR_EL1; -1 with the MMU off. */
  attr: number;
  /** The attribute is one of the Device types: unaligned accesses fault. Not said where the MMU is off, see {@link Translator.walk}. */
  device: boolean;
  /** SH bits. */
  shareability: number;
  /** nG. */
  notGlobal: boolean;
  /** GP: an indirect branch into the page must come to a landing pad (FEAT_BTI). */
  guarded: boolean;
  /** PSTATE.PAN keeps EL1 from it: EL0 may read it or, with SCTLR_EL1.EPAN, execute it. */
  isUser: boolean;
  /**
   * Where the hardware manages the access flag and dirty state: the region that the descriptor is in, its linear address, and
   * its low word as an access leaves it, and a store. `undefined` where it is not to be changed.
   */
  table: RamRegion | undefined;
  descriptor: number;
  afterAccess: number;
  afterStore: number;
}

/**
 * The largest input addresses, by log2 of the granule: 52 bits with 64 KiB (FEAT_LVA), else 48. A smaller TnSZ is a Translation
 * fault at level 0.
 */
export const leastTsz = (granule: number): number => (granule === 16 ? 12 : 16);
/** The smallest ones: what is above acts as the limit. FEAT_TTST, which has more, is not there. */
export const MOST_TSZ = 39;
/** log2 of the granule by TCR_EL1.TG0 and .TG1; a reserved value is taken for 4 KiB. */
export const granuleOf = (half: 0 | 1, tg: number): number => (half === 0 ? [12, 16, 14, 12] : [12, 14, 12, 16])[tg]!;

const ACCESS_FLAG_BIT = 1 << 10;
/** AP[2]: read-only. */
const READ_ONLY = 1 << 7;
/** DBM, in the high word: read-only means writable and clean. */
const DIRTY_BIT_MODIFIER = 1 << 19;

/** Stage 1 translation of the EL1&0 regime (Arm ARM DDI 0487 D8). Addresses are two unsigned 32-bit halves, because a bigint a walk is too slow. */
export class Translator {
  readonly #map: PhysicalMap;
  readonly #memory: () => Uint32Array;
  readonly #lower: Half = newHalf();
  readonly #upper: Half = newHalf();
  #enabled = false;
  #wxn = false;
  #epan = false;
  /** TCR_EL1.HA, .HD. */
  #managesAccess = false;
  #managesDirty = false;
  /** End of the output addresses (TCR_EL1.IPS, bounded by what the processor has). */
  #outputLimit = PHYSICAL_LIMIT;
  /** Attribute indices whose byte in MAIR_EL1 is a Device type, one bit each. */
  #deviceAttributes = 0;
  /** The last successful walk. */
  readonly result: Translation = {
    pa: 0,
    readEl0: false,
    writeEl0: false,
    execEl0: false,
    readEl1: false,
    writeEl1: false,
    execEl1: false,
    level: 0,
    attr: -1,
    device: false,
    shareability: 0,
    notGlobal: false,
    guarded: false,
    isUser: false,
    table: undefined,
    descriptor: 0,
    afterAccess: 0,
    afterStore: 0,
  };
  /** After a failed walk: the fault status with its level. */
  status = 0;
  /** With FaultStatus.UNRESOLVED: the address of the descriptor. */
  unresolved = 0;

  constructor(map: PhysicalMap, memory: () => Uint32Array) {
    this.#map = map;
    this.#memory = memory;
  }

  setRegime(r: Regime): void {
    this.#enabled = r.enabled;
    this.#wxn = r.wxn;
    this.#epan = r.epan;
    const bits = (lsb: number, width: number): number => Number((r.tcr >> BigInt(lsb)) & ((1n << BigInt(width)) - 1n));
    const tg0 = granuleOf(0, bits(14, 2));
    const tg1 = granuleOf(1, bits(30, 2));
    const ips = [32, 36, 40, 40, 40, 40, 40, 40][bits(32, 3)]!;
    this.#outputLimit = 2 ** ips;
    this.#managesAccess = bits(39, 1) === 1;
    this.#managesDirty = this.#managesAccess && bits(40, 1) === 1;
    this.#deviceAttributes = 0;
    for (let n = 0; n < 8; n++) if (((r.mair >> BigInt(n * 8)) & 0xf0n) === 0n) this.#deviceAttributes |= 1 << n;
    setHalf(this.#lower, r.ttbr0, bits(0, 6), tg0, bits(7, 1), bits(37, 1), bits(51, 1), bits(41, 1), bits(55, 1));
    setHalf(this.#upper, r.ttbr1, bits(16, 6), tg1, bits(23, 1), bits(38, 1), bits(52, 1), bits(42, 1), bits(56, 1));
  }

  /** TTBR0_EL1 or TTBR1_EL1 have changed, and nothing else of the regime. */
  setTables(ttbr0: bigint, ttbr1: bigint): void {
    setTable(this.#lower, ttbr0);
    setTable(this.#upper, ttbr1);
  }

  #halfOf(hi: number): Half {
    return (hi & 0x0080_0000) !== 0 ? this.#upper : this.#lower;
  }

  /** TBI of the half that a PC is in, with the MMU off too (AArch64.AddrTop): a branch there drops the top byte. */
  ignoresTop(hi: number): boolean {
    return this.#halfOf(hi).ignoreTopOfPc;
  }

  /** log2 of the granule of the half that the address is in. */
  granule(hi: number): number {
    return this.#halfOf(hi).granule;
  }

  /**
   * Translates the page of an address; permissions are left to the caller, but for E0PD. Alignment, too: with the MMU off every
   * data access is to Device memory, which `device` does not say.
   * @returns whether it succeeded: {@link result}, else {@link status}
   */
  walk(lo: number, hi: number, el0: boolean, isFetch = false): boolean {
    const out = this.result;
    const half = this.#halfOf(hi);
    const ignoresTop = isFetch ? half.ignoreTopOfPc : half.ignoreTop;
    if (!this.#enabled) {
      const pa = (hi & 0xf_ffff) * 0x1_0000_0000 + (lo >>> 0);
      // The address must fit the physical address size, up to a top byte that TBI says to ignore.
      const top = ignoresTop ? hi & 0x00f0_0000 : hi & 0xfff0_0000;
      if (top !== 0 || pa >= PHYSICAL_LIMIT) {
        this.status = FaultStatus.ADDRESS_SIZE;
        return false;
      }
      out.pa = pa - (lo & 0xfff);
      out.readEl0 = out.writeEl0 = out.execEl0 = out.readEl1 = out.writeEl1 = out.execEl1 = true;
      out.level = 0;
      out.attr = -1;
      out.device = false;
      out.notGlobal = false;
      out.guarded = false;
      out.isUser = false;
      out.table = undefined;
      return true;
    }
    const upper = (hi & 0x0080_0000) !== 0;
    const va = (hi & 0xf_ffff) * 0x1_0000_0000 + (lo >>> 0);
    // Bits above the input size must all equal bit 55, but for an ignored top byte.
    const top = ignoresTop ? hi & 0x00f0_0000 : hi & 0xfff0_0000;
    const wanted = upper ? (ignoresTop ? 0x00f0_0000 : 0xfff0_0000 | 0) : 0;
    const inRange = upper ? va >= half.rangeStart : va < half.inputSize;
    if (top !== wanted || !inRange || half.disabled || (el0 && half.e0pd)) {
      this.status = FaultStatus.TRANSLATION;
      return false;
    }
    const memory = this.#memory();
    const stride = half.granule - 3;
    let table = half.table;
    let tableNoEl0 = false;
    let tableReadonly = false;
    let tablePxn = false;
    let tableUxn = false;
    for (let level = half.level; ; level++) {
      const shift = half.granule + (3 - level) * stride;
      const width = level === half.level ? half.inputBits - shift : stride;
      const index = (shift >= 32 ? hi >>> (shift - 32) : (lo >>> shift) | (hi << (32 - shift))) & ((1 << width) - 1);
      const address = table + index * 8;
      if (table >= this.#outputLimit) {
        this.status = FaultStatus.ADDRESS_SIZE | (level === half.level ? 0 : level - 1);
        return false;
      }
      const region = this.#map.find(address);
      if (region === undefined) {
        this.status = FaultStatus.EXTERNAL_WALK | level;
        return false;
      }
      if (!usePage(region, address - region.base, false)) {
        this.status = FaultStatus.UNRESOLVED;
        this.unresolved = address;
        return false;
      }
      const at = (region.linear + (address - region.base)) >>> 2;
      const low = memory[at]!;
      const high = memory[at + 1]!;
      if ((low & 1) === 0) {
        this.status = FaultStatus.TRANSLATION | level;
        return false;
      }
      const outputAddress = (high & 0xffff) * 0x1_0000_0000 + ((low & 0xffff_f000) >>> 0);
      if (level < 3 && (low & 2) !== 0) {
        table = (high & 0xffff) * 0x1_0000_0000 + ((low & -(1 << half.granule)) >>> 0);
        if (!half.hpd) {
          tablePxn ||= (high & (1 << 27)) !== 0;
          tableUxn ||= (high & (1 << 28)) !== 0;
          tableNoEl0 ||= (high & (1 << 29)) !== 0;
          tableReadonly ||= (high & (1 << 30)) !== 0;
        }
        continue;
      }
      const block = level < 3;
      const blockAllowed = half.granule === 12 ? level === 1 || level === 2 : level === 2;
      if (block ? !blockAllowed : (low & 2) === 0) {
        this.status = FaultStatus.TRANSLATION | level;
        return false;
      }
      if (outputAddress >= this.#outputLimit) {
        this.status = FaultStatus.ADDRESS_SIZE | level;
        return false;
      }
      if ((low & ACCESS_FLAG_BIT) === 0 && !this.#managesAccess) {
        this.status = FaultStatus.ACCESS_FLAG | level;
        return false;
      }
      if (shift === 12) out.pa = outputAddress;
      else {
        // The page in the block, which is at most 1 GiB: the address's bits below the block's size.
        const within = (1 << shift) - 1;
        out.pa = (high & 0xffff) * 0x1_0000_0000 + (((low & ~within) | (lo & within & ~0xfff)) >>> 0);
      }
      out.level = level;
      out.attr = (low >> 2) & 7;
      out.device = (this.#deviceAttributes & (1 << out.attr)) !== 0;
      out.shareability = (low >> 8) & 3;
      out.notGlobal = (low & (1 << 11)) !== 0;
      out.guarded = (high & (1 << 18)) !== 0;
      const el0Access = (low & (1 << 6)) !== 0 && !tableNoEl0;
      const isClean = this.#managesDirty && (low & READ_ONLY) !== 0 && (high & DIRTY_BIT_MODIFIER) !== 0;
      const writable = ((low & READ_ONLY) === 0 || isClean) && !tableReadonly;
      const pxn = (high & (1 << 21)) !== 0 || tablePxn;
      const uxn = (high & (1 << 22)) !== 0 || tableUxn;
      out.readEl1 = true;
      out.writeEl1 = writable;
      out.readEl0 = el0Access;
      out.writeEl0 = el0Access && writable;
      // A page that EL0 can write is never executable at EL1; WXN makes that so for each EL's own writes.
      out.execEl1 = !pxn && !(el0Access && writable) && !(this.#wxn && writable);
      out.execEl0 = !uxn && !(this.#wxn && out.writeEl0);
      out.isUser = el0Access || (this.#epan && out.execEl0);
      if (!isClean && (low & ACCESS_FLAG_BIT) !== 0) out.table = undefined;
      else {
        out.table = region;
        out.descriptor = at << 2;
        out.afterAccess = low | ACCESS_FLAG_BIT;
        out.afterStore = isClean ? out.afterAccess & ~READ_ONLY : out.afterAccess;
      }
      return true;
    }
  }
}

function newHalf(): Half {
  return {
    table: 0,
    tableAlign: 4096,
    inputBits: 48,
    inputSize: 2 ** 48,
    rangeStart: 0,
    granule: 12,
    disabled: false,
    ignoreTop: false,
    ignoreTopOfPc: false,
    hpd: false,
    e0pd: false,
    level: 0,
  };
}

function setTable(h: Half, ttbr: bigint): void {
  const base = Number(ttbr & BigInt(LOW48) & ~1n);
  h.table = base - (base % h.tableAlign);
}

function setHalf(
  h: Half,
  ttbr: bigint,
  tsz: number,
  granule: number,
  epd: number,
  tbi: number,
  tbid: number,
  hpd: number,
  e0pd: number,
): void {
  const least = leastTsz(granule);
  h.inputBits = 64 - Math.min(Math.max(tsz, least), MOST_TSZ);
  h.inputSize = 2 ** h.inputBits;
  h.rangeStart = 2 ** 52 - h.inputSize;
  h.granule = granule;
  const stride = granule - 3;
  h.level = 4 - Math.ceil((h.inputBits - granule) / stride);
  const firstBits = h.inputBits - (granule + (3 - h.level) * stride);
  h.tableAlign = 2 ** Math.max(firstBits + 3, 6);
  setTable(h, ttbr);
  h.disabled = epd === 1 || tsz < least;
  h.ignoreTop = tbi === 1;
  h.ignoreTopOfPc = tbi === 1 && tbid === 0;
  h.hpd = hpd === 1;
  h.e0pd = e0pd === 1;
}
