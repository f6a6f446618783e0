import { VmError } from '../errors.js';
import {
  FDT_HEADER_SIZE,
  FDT_LAST_COMP_VERSION,
  FDT_MAGIC,
  FDT_MAX_LAX_NAME,
  FDT_VERSION,
  type FdtReservation,
  FdtToken,
  isLaxName,
} from './format.js';

/** A node of a tree that was read. Names and values are as in the blob; it may be edited, and written again by `writeFdt`. */
export interface FdtNode {
  /** `node-name@unit-address`; empty for the root. */
  name: string;
  /** In the blob's order. Values are copies. */
  properties: Map<string, Uint8Array>;
  children: FdtNode[];
}

/** A whole blob. */
export interface Fdt {
  readonly root: FdtNode;
  readonly reservations: FdtReservation[];
  /** `boot_cpuid_phys`. */
  readonly bootCpu: number;
}

/** Largest blob that is read: the arm64 boot protocol's limit (Linux, Documentation/arch/arm64/booting.rst, 2). */
export const FDT_MAX_SIZE = 2 * 1024 * 1024;
/** Deepest nesting that is read. Linux unflattens no deeper (`FDT_MAX_DEPTH`, drivers/of/fdt.c). */
export const FDT_MAX_DEPTH = 64;

/**
 * Reads a flattened devicetree, version 17 or compatible with it (Devicetree Specification v0.4, chapter 5). The blob
 * may be hostile: every offset and length is checked, the work and the memory are linear in its size.
 *
 * @throws VmError `ERR_FDT_FORMAT`, with the offset and the rule that is broken
 */
export function parseFdt(blob: Uint8Array): Fdt {
  return new Parser(blob).parse();
}

/** The root node of {@link parseFdt}. */
export function readFdt(blob: Uint8Array): FdtNode {
  return parseFdt(blob).root;
}

class Parser {
  readonly #blob: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  #structEnd = 0;
  #strings: Uint8Array = new Uint8Array(0);
  readonly #names = new Map<number, string>();

  constructor(blob: Uint8Array) {
    this.#blob = blob;
    this.#view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  }

  parse(): Fdt {
    const size = this.#blob.length;
    this.#check(size >= FDT_HEADER_SIZE, 0, `${size} bytes are too few for a header of ${FDT_HEADER_SIZE}`);
    const header = (index: number) => this.#view.getUint32(4 * index);
    this.#check(
      header(0) === FDT_MAGIC,
      0,
      'the magic number is not d00dfeed: this is no device tree blob (.dtb); compile a .dts with dtc',
    );
    const total = header(1);
    this.#check(total <= size, 4, `the header says ${total} bytes, the blob has ${size}: it is truncated`);
    this.#check(total <= FDT_MAX_SIZE, 4, `${total} bytes are over the limit of ${FDT_MAX_SIZE}`);
    this.#check(total >= FDT_HEADER_SIZE, 4, `a total size of ${total} does not hold the header`);
    const version = header(5);
    const compatible = header(6);
    this.#check(
      version >= FDT_VERSION && compatible <= FDT_VERSION && compatible >= FDT_LAST_COMP_VERSION,
      20,
      `version ${version} (compatible with ${compatible}) is not supported: only ${FDT_VERSION} is`,
    );
    const [structOffset, stringsOffset, reservationsOffset] = [header(2), header(3), header(4)];
    const [stringsSize, structSize] = [header(8), header(9)];
    this.#check(structOffset % 4 === 0, 8, 'the structure block is not aligned to 4 bytes');
    this.#check(
      structOffset >= FDT_HEADER_SIZE && structOffset + structSize <= total,
      8,
      'the structure block lies outside the blob',
    );
    this.#check(structSize % 4 === 0, 36, "the structure block's size is no multiple of 4");
    this.#check(
      stringsOffset >= FDT_HEADER_SIZE && stringsOffset + stringsSize <= total,
      12,
      'the strings block lies outside the blob',
    );
    this.#check(
      reservationsOffset % 8 === 0 && reservationsOffset >= FDT_HEADER_SIZE,
      16,
      'the memory reservation block is misplaced',
    );
    this.#strings = this.#blob.subarray(stringsOffset, stringsOffset + stringsSize);
    const reservations = this.#reservations(reservationsOffset, total);
    this.#at = structOffset;
    this.#structEnd = structOffset + structSize;
    return { root: this.#tree(), reservations, bootCpu: header(7) };
  }

  #reservations(offset: number, total: number): FdtReservation[] {
    const found: FdtReservation[] = [];
    for (let at = offset; ; at += 16) {
      this.#check(at + 16 <= total, at, 'the memory reservation block has no end');
      const reservation = { address: this.#view.getBigUint64(at), size: this.#view.getBigUint64(at + 8) };
      if (reservation.address === 0n && reservation.size === 0n) return found;
      found.push(reservation);
    }
  }

  /** The structure block, without recursion: the nesting is the blob's to choose. */
  #tree(): FdtNode {
    const open: { node: FdtNode; childNames: Set<string> }[] = [];
    let root: FdtNode | undefined;
    for (;;) {
      const at = this.#at;
      const token = this.#word();
      const parent = open.at(-1);
      switch (token) {
        case FdtToken.NOP:
          break;
        case FdtToken.BEGIN_NODE: {
          const node: FdtNode = { name: this.#nodeName(), properties: new Map(), children: [] };
          this.#check(open.length < FDT_MAX_DEPTH, at, `nodes are nested deeper than ${FDT_MAX_DEPTH}`);
          if (parent === undefined) {
            this.#check(root === undefined, at, 'there is a second root node');
            this.#check(node.name === '', at, "the root node's name is not empty");
            root = node;
          } else {
            this.#check(isLaxName(node.name), at, `${JSON.stringify(node.name)} is no node name`);
            this.#check(!parent.childNames.has(node.name), at, `node ${JSON.stringify(node.name)} is there twice`);
            parent.childNames.add(node.name);
            parent.node.children.push(node);
          }
          open.push({ node, childNames: new Set() });
          break;
        }
        case FdtToken.END_NODE:
          this.#check(open.pop() !== undefined, at, 'a node ends that did not begin');
          break;
        case FdtToken.PROP: {
          this.#check(parent !== undefined, at, 'a property stands outside any node');
          this.#check(parent.node.children.length === 0, at, 'a property comes after a child node');
          const length = this.#word();
          const name = this.#propertyName(this.#word());
          this.#check(!parent.node.properties.has(name), at, `property ${JSON.stringify(name)} is there twice`);
          this.#check(
            length <= this.#structEnd - this.#at,
            at,
            `property ${JSON.stringify(name)}: ${length} bytes reach over the structure block's end`,
          );
          parent.node.properties.set(name, this.#blob.slice(this.#at, this.#at + length));
          this.#at += Math.ceil(length / 4) * 4;
          break;
        }
        case FdtToken.END:
          this.#check(parent === undefined, at, `node ${JSON.stringify(parent?.node.name)} does not end`);
          this.#check(root !== undefined, at, 'there is no root node');
          return root;
        default:
          this.#fail(at, `0x${token.toString(16)} is no token`);
      }
    }
  }

  #word(): number {
    this.#check(this.#at + 4 <= this.#structEnd, this.#at, 'the structure block has no end token');
    const word = this.#view.getUint32(this.#at);
    this.#at += 4;
    return word;
  }

  #nodeName(): string {
    const name = this.#terminated(this.#blob, this.#at, this.#structEnd, this.#at);
    this.#at += Math.ceil((name.length + 1) / 4) * 4;
    return name;
  }

  #propertyName(offset: number): string {
    let name = this.#names.get(offset);
    if (name === undefined) {
      this.#check(
        offset < this.#strings.length,
        this.#at,
        `a property's name lies outside the strings block (offset ${offset})`,
      );
      name = this.#terminated(this.#strings, offset, this.#strings.length, this.#at);
      this.#check(isLaxName(name), this.#at, `${JSON.stringify(name)} is no property name`);
      this.#names.set(offset, name);
    }
    return name;
  }

  #terminated(bytes: Uint8Array, start: number, end: number, at: number): string {
    let name = '';
    for (let i = start; i < end; i++) {
      const byte = bytes[i]!;
      if (byte === 0) return name;
      this.#check(byte > 0x20 && byte < 0x7f, at, `a name holds the byte 0x${byte.toString(16)}`);
      this.#check(name.length < FDT_MAX_LAX_NAME, at, `a name is longer than ${FDT_MAX_LAX_NAME} characters`);
      name += String.fromCharCode(byte);
    }
    return this.#fail(at, 'a name has no end');
  }

  #check(holds: boolean, at: number, rule: string): asserts holds {
    if (!holds) this.#fail(at, rule);
  }

  #fail(at: number, rule: string): never {
    throw new VmError('ERR_FDT_FORMAT', `device tree blob: at byte ${at}: ${rule}`);
  }
}
