import type { HelperEnv } from '../a64/helpers.js';
import { COPY_UNPRIVILEGED, CopyDetail } from '../a64/memory-copy.js';
import { UNPRIVILEGED } from '../jit/memory-functions.js';
import type { Mmu } from '../mmu/mmu.js';
import { ExitCode, Offset } from './layout.js';
import type { CpuState } from './state.js';

const PAGE = 4096;
/** Bytes that are copied before the processor looks at interrupts again. */
const STRETCH = 0x1_0000;
/** Bytes that cost as much of the budget as an instruction. */
const BYTES_PER_INSTRUCTION = 64;

/** ISS of a Memory Copy and Memory Set exception (Arm ARM DDI 0487 D24.2.37); Options, destreg, srcreg and sizereg from these bits on. */
const Iss = {
  SET: 1 << 24,
  OPTIONS: 19,
  EPILOGUE: 1 << 18,
  WRONG_OPTION: 1 << 17,
  OPTION_A: 1 << 16,
  RD: 10,
  RS: 5,
  RN: 0,
};

/** An address, in halves. */
interface Address {
  lo: number;
  hi: number;
}
const addressOf = (value: bigint): Address => ({
  lo: Number(BigInt.asIntN(32, value)),
  hi: Number(BigInt.asIntN(32, value >> 32n)),
});

/** The main instructions and epilogues of FEAT_MOPS: page by page, with registers that are exact wherever they stop. */
export class MemoryCopy {
  readonly #state: CpuState;
  readonly #mmu: Mmu;
  readonly #views: () => HelperEnv;
  readonly #charge: (cost: number) => void;

  /** @param charge takes off the budget what was done beside executing instructions */
  constructor(state: CpuState, mmu: Mmu, views: () => HelperEnv, charge: (cost: number) => void) {
    this.#state = state;
    this.#mmu = mmu;
    this.#views = views;
    this.#charge = charge;
  }

  /**
   * Behind ExitCode.COPY: does what the instruction at PC has left to do.
   * @returns whether it is done; if not, EXIT says why: REDIRECT where it is to be executed again
   */
  afterExit(): boolean {
    const state = this.#state;
    const detail = state.get32(Offset.DETAIL);
    state.set32(Offset.EXIT, ExitCode.NONE);
    const [rd, rs, rn] = [detail & 31, (detail >> 5) & 31, (detail >> 10) & 31] as const;
    const is = (bit: number): boolean => (detail & bit) !== 0;
    const options = detail >> CopyDetail.OPTIONS_SHIFT;
    const x = (n: number): bigint => (n === 31 ? 0n : state.get64(Offset.X + n * 8));
    let left = BigInt.asIntN(64, x(rn));
    const backwards = is(CopyDetail.MOVE) && left > 0n;
    const wrongOption = state.get32(Offset.C) !== 0;
    // Only a copy that goes backwards counts down.
    if (wrongOption || (left > 0n && !backwards)) {
      const iss =
        (is(CopyDetail.SET) ? Iss.SET : 0) |
        (options << Iss.OPTIONS) |
        (is(CopyDetail.EPILOGUE) ? Iss.EPILOGUE : 0) |
        (wrongOption ? Iss.WRONG_OPTION : 0) |
        Iss.OPTION_A |
        ((rd << Iss.RD) | (rs << Iss.RS) | (rn << Iss.RN));
      state.set32(Offset.DETAIL, iss);
      state.leave(ExitCode.WRONG_COPY);
      return false;
    }
    let moved = 0;
    while (left !== 0n && moved < STRETCH) {
      const most = Number(left < 0n ? -left : left);
      const room = Math.min(most, STRETCH - moved);
      const to = x(rd) + left - (backwards ? 1n : 0n);
      const from = is(CopyDetail.SET) ? undefined : x(rs) + left - (backwards ? 1n : 0n);
      const n = this.#piece(to, from, backwards, room, options, Number(x(rs) & 0xffn));
      if (n === 0) break;
      moved += n;
      left += BigInt(backwards ? -n : n);
      state.set64(Offset.X + rn * 8, BigInt.asUintN(64, left));
    }
    this.#charge(Math.floor(moved / BYTES_PER_INSTRUCTION));
    if (left !== 0n && state.get32(Offset.EXIT) === ExitCode.NONE) state.leave(ExitCode.REDIRECT);
    return left === 0n;
  }

  /**
   * A piece that lies in one page, or in one of each.
   * @param to where it begins, or ends where it goes backwards @param from the same of what is copied; `undefined`: `value` is set
   * @returns how many bytes it had; 0 with EXIT set
   */
  #piece(
    to: bigint,
    from: bigint | undefined,
    backwards: boolean,
    room: number,
    options: number,
    value: number,
  ): number {
    const mmu = this.#mmu;
    const target = addressOf(to);
    const source = from === undefined ? undefined : addressOf(from);
    let n = Math.min(room, this.#inPage(target, backwards));
    let src = 0;
    if (source !== undefined) {
      n = Math.min(n, this.#inPage(source, backwards));
      src = mmu.loadMiss(source.lo, source.hi, (options & COPY_UNPRIVILEGED.LOADS) !== 0 ? UNPRIVILEGED | 1 : 1);
      if (src === 0) return 0;
    }
    const dst = mmu.storeMiss(target.lo, target.hi, (options & COPY_UNPRIVILEGED.STORES) !== 0 ? UNPRIVILEGED | 1 : 1);
    if (dst === 0) return 0;
    const { u8 } = this.#views();
    const first = backwards ? 1 - n : 0;
    if (source === undefined) u8.fill(value, dst + first, dst + first + n);
    else u8.copyWithin(dst + first, src + first, src + first + n);
    return n;
  }

  /** Bytes from an address to the end of its page, or to the start; one by one where they are watched. */
  #inPage({ lo, hi }: Address, backwards: boolean): number {
    if (this.#mmu.isWatched(lo, hi)) return 1;
    const offset = lo & (PAGE - 1);
    return backwards ? offset + 1 : PAGE - offset;
  }
}
