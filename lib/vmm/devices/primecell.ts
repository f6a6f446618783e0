/** What the Arm PrimeCell peripherals (PL011, PL031, PL061) share: 32-bit registers on APB and an identification block. */

/** Offset of PeriphID0; eight registers of one byte each follow to the end of the 4 KiB page. */
const ID_BASE = 0xfe0;

/** Bytes of address space of every PrimeCell peripheral. */
export const PRIMECELL_SIZE = 0x1000;

/**
 * PeriphID0 to 3 and PCellID0 to 3.
 * @param part the part number as BCD in three digits, such as `0x011`
 * @param revision PeriphID2 bits 7..4
 */
export function primecellId(part: number, revision: number): readonly number[] {
  // Designer 0x41 ('A', Arm) straddles PeriphID1 and PeriphID2; the four PCellID bytes read 0xb105f00d.
  return [part & 0xff, 0x10 | (part >>> 8), (revision << 4) | 0x4, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
}

/** The identification register at `register`, 0 where there is none. */
export function idRegister(id: readonly number[], register: number): number {
  return register < ID_BASE ? 0 : (id[(register - ID_BASE) >>> 2] ?? 0);
}

/** The `len` bytes at `offset` of a 32-bit register: a narrow read sees the register's own byte lanes. */
export function lane(register: number, offset: number, len: number): number {
  const shifted = register >>> ((offset & 3) * 8);
  return len >= 4 ? shifted : shifted & (len === 2 ? 0xffff : 0xff);
}
