/**
 * The registers that tell a GIC where a table in memory is (GITS_CBASER, GITS_BASER<n>, GICR_PROPBASER, GICR_PENDBASER):
 * 64 bits that can be written by halves, with attributes of which a vGIC takes some only (kernel: vgic_sanitise_*).
 */

/** Shareability, in the same place in all of them: inner rather than outer. */
const SHAREABILITY = 10n;
const INNER_SHAREABLE = 1n;
const OUTER_SHAREABLE = 2n;
/** Cacheability: device and non-cacheable become read-allocate write-back, inside; outside it is the same as inside, or none. */
const RA_WB = 3n;
const NON_CACHEABLE = 1n;

/** What the fields with these lowest bits of cacheability become. */
export function sanitise(register: bigint, inner: bigint, outer: bigint): bigint {
  let value = register;
  if (field(value, SHAREABILITY, 3n) === OUTER_SHAREABLE) value = withField(value, SHAREABILITY, 3n, INNER_SHAREABLE);
  if (field(value, inner, 7n) <= NON_CACHEABLE) value = withField(value, inner, 7n, RA_WB);
  if (field(value, outer, 7n) > NON_CACHEABLE) value = withField(value, outer, 7n, 0n);
  return value;
}

/** The attributes of a register that nobody wrote yet: inner shareable, read-allocate write-back. */
export const initialBase = (inner: bigint): bigint => (INNER_SHAREABLE << SHAREABILITY) | (RA_WB << inner);

/** `register` with one half replaced. */
export const withHalf = (register: bigint, high: boolean, half: number): bigint =>
  high ? (register & 0xffff_ffffn) | (BigInt(half) << 32n) : (register & ~0xffff_ffffn) | BigInt(half);

export const halfOf = (register: bigint, high: boolean): number =>
  Number((high ? register >> 32n : register) & 0xffff_ffffn);

const field = (register: bigint, shift: bigint, mask: bigint): bigint => (register >> shift) & mask;
const withField = (register: bigint, shift: bigint, mask: bigint, value: bigint): bigint =>
  (register & ~(mask << shift)) | (value << shift);
