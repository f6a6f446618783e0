import { sysregIndex } from '../../kvm/registers.js';
import type { Mmu } from '../mmu/mmu.js';
import { FaultStatus } from '../mmu/translate.js';
import { fromHalves } from './access.js';
import { Sctlr } from './architecture.js';
import { ExitCode, Offset } from './layout.js';
import type { CpuState } from './state.js';
import { SR } from './sysregs.js';

const cacheOp = (op1: number, crm: number, op2: number): number => sysregIndex(1, op1, 7, crm, op2);
const DC_ZVA = cacheOp(3, 4, 1);
const DC_IVAC = cacheOp(0, 6, 1);
/** IC IVAU; DC IVAC, CVAC, CVAU, CIVAC, CVAP, CVADP. */
const BY_ADDRESS: ReadonlySet<number> = new Set([
  cacheOp(3, 5, 1),
  DC_IVAC,
  cacheOp(3, 10, 1),
  cacheOp(3, 11, 1),
  cacheOp(3, 14, 1),
  cacheOp(3, 12, 1),
  cacheOp(3, 13, 1),
]);
/** IC IALLUIS, IALLU; DC ISW, CSW, CISW. */
const WHOLE: ReadonlySet<number> = new Set([
  cacheOp(0, 1, 0),
  cacheOp(0, 5, 0),
  cacheOp(0, 6, 2),
  cacheOp(0, 10, 2),
  cacheOp(0, 14, 2),
]);

/** CRm of TLBI: of one thing or all, then of a range; for the Outer and Inner Shareable domain, which are one, and this vCPU. */
const TLBI_SINGLE: readonly number[] = [1, 3, 7];
const TLBI_RANGE: readonly number[] = [5, 2, 6];
const TLBI_LOCAL: readonly number[] = [7, 6];
/** op2 of TLBI at EL1: VMALLE1, VAE1, ASIDE1, VAAE1, VALE1, VAALE1. */
const TLBI_ASID = 2;
const TLBI_ALL: readonly number[] = [0, TLBI_ASID];
const TLBI_BY_ADDRESS: readonly number[] = [1, 3, 5, 7];

/** Granules of a range above which everything is forgotten: that costs less than to look for each. */
const RANGE_LIMIT = 32n;

/** PAR_EL1 (Arm ARM DDI 0487 D24.2.149). */
const PAR_F = 1n;
const PAR_RES1 = 1n << 11n;
const OUTER_SHAREABLE = 2n;
const NORMAL_NON_CACHEABLE = 0x44n;

/** SYS instructions: cache maintenance, TLB maintenance, address translation. */
export class Maintenance {
  readonly #state: CpuState;
  readonly #mmu: Mmu;
  readonly #mmus: () => Iterable<Mmu>;
  /** The page, as which EL and since when, that was last found to be one that may be maintained: most are asked for line by line. */
  readonly #allowed = { lo: 0, hi: 0, el: -1, since: 0 };

  /** @param mmus those of every vCPU: one Inner Shareable domain */
  constructor(state: CpuState, mmu: Mmu, mmus: () => Iterable<Mmu>) {
    this.#state = state;
    this.#mmu = mmu;
    this.#mmus = mmus;
  }

  /** @param index as of a system register, with op0 = 1 @param lo the register's halves */
  sys(index: number, lo: number, hi: number): void {
    const state = this.#state;
    const op1 = (index >> 11) & 7;
    const crn = (index >> 7) & 15;
    const crm = (index >> 3) & 15;
    const op2 = index & 7;
    const isCacheOp = BY_ADDRESS.has(index) || WHOLE.has(index) || index === DC_ZVA;
    if (state.el === 0) {
      // EL0 has DC CVAU, CVAC, CVAP, CVADP, CIVAC and IC IVAU with SCTLR_EL1.UCI, and DC ZVA with DZE.
      if (op1 !== 3 || !isCacheOp) {
        state.leave(ExitCode.UNDEFINED);
        return;
      }
      if (!state.sctlr(index === DC_ZVA ? Sctlr.DZE : Sctlr.UCI)) {
        state.leave(ExitCode.SYSREG_TRAP);
        return;
      }
    }
    if (isCacheOp) this.#cache(index, lo, hi);
    else if (op1 === 0 && crn === 7 && (crm === 8 || crm === 9)) this.#translate(crm, op2, lo, hi);
    else if (op1 === 0 && crn === 8 && TLBI_SINGLE.includes(crm)) this.#tlbi(crm, op2, lo, hi);
    else if (op1 === 0 && crn === 8 && TLBI_RANGE.includes(crm) && TLBI_BY_ADDRESS.includes(op2))
      this.#tlbiRange(crm, lo, hi);
    else state.leave(ExitCode.UNDEFINED);
  }

  /**
   * Caches are coherent and every store to code is seen: maintenance by address only checks that the address may be used. With
   * the MMU off, all memory is Device memory, on which DC ZVA is an Alignment fault.
   */
  #cache(index: number, lo: number, hi: number): void {
    const { el } = this.#state;
    const el0 = el === 0;
    const t = this.#mmu.translator;
    if (index === DC_ZVA && !this.#state.sctlr(Sctlr.M) && t.walk(lo, hi, el0))
      this.#mmu.dataAbort(FaultStatus.ALIGNMENT, lo, hi, true);
    if (!BY_ADDRESS.has(index)) return;
    const known = this.#allowed;
    const { changes } = this.#mmu.contexts;
    const isKnown = (known.lo ^ lo) >>> 12 === 0 && known.hi === hi && known.el === el && known.since === changes;
    if (isKnown && index !== DC_IVAC) return;
    if (!t.walk(lo, hi, el0)) this.#mmu.maintenanceAbort(t.status, lo, hi);
    else {
      const { result } = t;
      // Invalidation without cleaning may undo stores, so it wants the permission to store.
      const allowed = el0 ? result.readEl0 : index !== DC_IVAC || result.writeEl1;
      if (!allowed) this.#mmu.maintenanceAbort(FaultStatus.PERMISSION | result.level, lo, hi);
      else if (index === DC_IVAC) this.#mmu.watchInvalidation(lo, hi);
      else {
        known.lo = lo;
        known.hi = hi;
        known.el = el;
        known.since = changes;
      }
    }
  }

  #tlbi(crm: number, op2: number, valueLo: number, valueHi: number): void {
    const byAddress = TLBI_BY_ADDRESS.includes(op2);
    if (!byAddress && !TLBI_ALL.includes(op2)) {
      this.#state.leave(ExitCode.UNDEFINED);
      return;
    }
    // VA bits 55..12 are in bits 43..0.
    const lo = (valueLo << 12) >>> 0;
    const hi = ((valueHi & 0xfff) << 12) | (valueLo >>> 20);
    this.#invalidate(crm, (mmu) => {
      if (byAddress) return mmu.contexts.flushPage(lo, hi, mmu.translator.granule(hi));
      if (op2 === TLBI_ASID) mmu.contexts.flushAsid(mmu.asidOf(valueHi >>> 16));
      else mmu.contexts.flush();
      return true;
    });
  }

  /** TLBI RVA*: (NUM + 1) << (5 * SCALE + 1) granules from BaseADDR on (Arm ARM DDI 0487 C5.5, FEAT_TLBIRANGE). */
  #tlbiRange(crm: number, lo: number, hi: number): void {
    const tg = (hi >> 14) & 3;
    if (tg === 0) return;
    const granule = 10 + 2 * tg;
    const scale = (hi >> 12) & 3;
    const count = BigInt(((hi >> 7) & 0x1f) + 1) << BigInt(5 * scale + 1);
    const base = BigInt.asIntN(37, fromHalves(lo, hi)) << BigInt(granule);
    this.#invalidate(crm, (mmu) => {
      if (count > RANGE_LIMIT) {
        mmu.contexts.flush();
        return true;
      }
      let fetched = false;
      for (let n = 0n; n < count; n++) {
        const va = BigInt.asUintN(64, base + (n << BigInt(granule)));
        if (mmu.contexts.flushPage(Number(va & 0xffff_ffffn), Number(va >> 32n), granule)) fetched = true;
      }
      return fetched;
    });
  }

  /** @param forget takes translations away; says whether the next instruction's may be among them */
  #invalidate(crm: number, forget: (mmu: Mmu) => boolean): void {
    for (const mmu of TLBI_LOCAL.includes(crm) ? [this.#mmu] : this.#mmus()) {
      // The code after this instruction may be somewhere else now.
      if (forget(mmu) && mmu === this.#mmu) this.#state.leave(ExitCode.RESYNC);
    }
  }

  /** AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP, S1E1WP: the result goes to PAR_EL1. */
  #translate(crm: number, op2: number, lo: number, hi: number): void {
    const state = this.#state;
    const withPan = crm === 9;
    if (op2 > (withPan ? 1 : 3)) {
      state.leave(ExitCode.UNDEFINED);
      return;
    }
    const el0 = op2 >= 2;
    const isWrite = (op2 & 1) === 1;
    const t = this.#mmu.translator;
    let status = -1;
    if (t.walk(lo, hi, el0)) {
      const r = t.result;
      const pan = withPan && r.isUser && state.get32(Offset.PAN) !== 0;
      const allowed = isWrite ? (el0 ? r.writeEl0 : r.writeEl1 && !pan) : el0 ? r.readEl0 : r.readEl1 && !pan;
      if (!allowed) status = FaultStatus.PERMISSION | r.level;
    } else status = t.status;
    if ((status & ~3) === FaultStatus.EXTERNAL_WALK || status === FaultStatus.UNRESOLVED) {
      // An external abort is not a result but an exception.
      this.#mmu.maintenanceAbort(status, lo, hi);
      return;
    }
    if (status >= 0) {
      state.set64(SR.PAR_EL1.offset, PAR_F | (BigInt(status) << 1n) | PAR_RES1);
      return;
    }
    const { attr, device, pa, shareability } = t.result;
    const memory = attr < 0 ? 0n : (state.get64(SR.MAIR_EL1.offset) >> BigInt(attr * 8)) & 0xffn;
    const isOuter = attr < 0 || device || memory === NORMAL_NON_CACHEABLE;
    const sh = isOuter ? OUTER_SHAREABLE : BigInt(shareability);
    state.set64(SR.PAR_EL1.offset, BigInt(pa) | (memory << 56n) | (sh << 7n) | PAR_RES1);
  }
}
