const MASK = 0xffff_ffff_ffff_ffffn;
const GOLDEN_GAMMA = 0x9e37_79b9_7f4a_7c15n;

/**
 * Where the guest's TRNG takes its bits: the host's generator; on a virtual clock a fixed sequence (SplitMix64), because
 * two runs of the same guest shall be the same run. Keys made by such a guest are not secret.
 */
export function createRandom(clock: 'host' | 'virtual'): () => bigint {
  if (clock === 'host') return () => crypto.getRandomValues(new BigUint64Array(1))[0]!;
  let state = 0n;
  return () => {
    state = (state + GOLDEN_GAMMA) & MASK;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & MASK;
    return z ^ (z >> 31n);
  };
}
