/** The flattened devicetree's constants (Devicetree Specification v0.4, chapter 5). */

/** `magic`, the header's first word. */
export const FDT_MAGIC = 0xd00dfeed;
/** The version that is written, and the oldest that is read. */
export const FDT_VERSION = 17;
/** `last_comp_version` of version 17. */
export const FDT_LAST_COMP_VERSION = 16;
/** Bytes of the version 17 header: ten words. */
export const FDT_HEADER_SIZE = 40;

/** Structure block tokens (§5.4.1). */
export const FdtToken = { BEGIN_NODE: 1, END_NODE: 2, PROP: 3, NOP: 4, END: 9 } as const;

/** Longest node name before the `@`, and longest property name (§2.2.1, §2.2.4.1). */
export const FDT_MAX_NAME = 31;

const NODE_NAME = /^[0-9A-Za-z,._+-]{1,31}(@[0-9A-Za-z,._+-]{1,31})?$/;
const PROPERTY_NAME = /^[0-9A-Za-z,._+?#-]{1,31}$/;

/** Whether `name` may be a node's: `node-name@unit-address` (§2.2.1). The root's is empty. */
export function isNodeName(name: string): boolean {
  return NODE_NAME.test(name);
}

/** Whether `name` may be a property's (§2.2.4.1). */
export function isPropertyName(name: string): boolean {
  return PROPERTY_NAME.test(name);
}

/** Longest name that is read. Overlays and firmware exceed the specification's 31; a bound keeps the work linear in the blob's size. */
export const FDT_MAX_LAX_NAME = 255;

/** Whether `name` may be read and written again, though the specification would not have it. */
export function isLaxName(name: string): boolean {
  return /^[\x21-\x2e\x30-\x7e]{1,255}$/.test(name);
}

/** One entry of the memory reservation block (§5.3). */
export interface FdtReservation {
  /** Physical address. */
  readonly address: bigint;
  /** Bytes. */
  readonly size: bigint;
}
