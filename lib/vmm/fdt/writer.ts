import { VmError } from '../errors.js';
import {
  FDT_HEADER_SIZE,
  FDT_LAST_COMP_VERSION,
  FDT_MAGIC,
  FDT_VERSION,
  FdtToken,
  isLaxName,
  isNodeName,
  isPropertyName,
} from './format.js';
import { FDT_MAX_DEPTH } from './reader.js';

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** What a node under construction has so far. */
interface OpenNode {
  readonly path: string;
  readonly properties: Set<string>;
  readonly children: Set<string>;
}

/**
 * Writes a flattened devicetree, version 17, in document order: a node's properties, then its children
 * (Devicetree Specification v0.4, chapter 5).
 *
 * Every method but {@link finish} returns the writer. A mistake (a bad or repeated name, a value out of range, a
 * property after a child, an unbalanced node) throws VmError `ERR_FDT_WRITE`.
 *
 * @example
 * const dtb = new FdtWriter()
 *   .node('', (root) => root.cells('#address-cells', 2).cells('#size-cells', 2).node('memory@40000000', (memory) =>
 *     memory.string('device_type', 'memory').reg('reg', [0x4000_0000, 0x1000_0000])))
 *   .finish();
 */
export class FdtWriter {
  #struct = new Uint8Array(4096);
  #view = new DataView(this.#struct.buffer);
  #length = 0;
  readonly #strings: string[] = [];
  readonly #stringOffsets = new Map<string, number>();
  #stringsSize = 0;
  readonly #reservations: [bigint, bigint][] = [];
  readonly #open: OpenNode[] = [];
  readonly #phandles = new Set<number>();
  #nextPhandle = 1;
  #hasRoot = false;
  #finished = false;
  readonly #lax: boolean;

  /** @param options.lax takes names as `readFdt` takes them (up to 255 printable characters), to write again what was read */
  constructor(options: { lax?: boolean } = {}) {
    this.#lax = options.lax ?? false;
  }

  /** Adds an entry to the memory reservation block: memory that the guest must leave alone. */
  reserve(address: number | bigint, size: number | bigint): this {
    this.#check(!this.#finished, 'the tree is finished');
    const [at, bytes] = [u64(address, 'a reservation'), u64(size, 'a reservation')];
    this.#check(bytes !== 0n, 'a reservation of 0 bytes would end the list');
    this.#reservations.push([at, bytes]);
    return this;
  }

  /** Begins a node; the first is the root, whose name is `''`. */
  beginNode(name: string): this {
    this.#check(!this.#finished, 'the tree is finished');
    this.#check(this.#open.length < FDT_MAX_DEPTH, `nodes are nested deeper than ${FDT_MAX_DEPTH}`);
    const parent = this.#open.at(-1);
    if (parent === undefined) {
      this.#check(!this.#hasRoot, `node ${JSON.stringify(name)} stands beside the root: a tree has one root`);
      this.#check(name === '', `the root's name is empty, not ${JSON.stringify(name)}`);
      this.#hasRoot = true;
    } else {
      this.#check(
        this.#lax ? isLaxName(name) : isNodeName(name),
        `${JSON.stringify(name)} is no node name: 1 to 31 of A-Z a-z 0-9 , . _ + -, then @ and a unit address if any`,
      );
      this.#check(!parent.children.has(name), `node ${parent.path} already has a child ${JSON.stringify(name)}`);
      parent.children.add(name);
    }
    const path = parent === undefined ? '/' : `${parent.path === '/' ? '' : parent.path}/${name}`;
    this.#open.push({ path, properties: new Set(), children: new Set() });
    this.#word(FdtToken.BEGIN_NODE);
    this.#append(ascii(`${name}\0`));
    return this;
  }

  endNode(): this {
    this.#check(this.#open.pop() !== undefined, 'endNode() without a node');
    this.#word(FdtToken.END_NODE);
    return this;
  }

  /** A whole node: begins it, lets `body` fill it, and ends it. */
  node(name: string, body?: (node: this) => void): this {
    this.beginNode(name);
    const depth = this.#open.length;
    body?.(this);
    this.#check(
      this.#open.length === depth,
      `node ${JSON.stringify(name)}: its body left a node open or ended one too many`,
    );
    return this.endNode();
  }

  /** A property with any value. */
  bytes(name: string, value: Uint8Array): this {
    const node = this.#open.at(-1);
    this.#check(node !== undefined, `property ${JSON.stringify(name)} stands outside any node`);
    this.#check(
      this.#lax ? isLaxName(name) : isPropertyName(name),
      `${JSON.stringify(name)} is no property name: 1 to 31 of A-Z a-z 0-9 , . _ + ? # -`,
    );
    this.#check(!node.properties.has(name), `node ${node.path} already has a property ${JSON.stringify(name)}`);
    this.#check(node.children.size === 0, `node ${node.path}: property ${JSON.stringify(name)} comes after a child`);
    node.properties.add(name);
    let offset = this.#stringOffsets.get(name);
    if (offset === undefined) {
      offset = this.#stringsSize;
      this.#stringOffsets.set(name, offset);
      this.#strings.push(name);
      this.#stringsSize += name.length + 1;
    }
    this.#word(FdtToken.PROP);
    this.#word(value.length);
    this.#word(offset);
    this.#append(value);
    return this;
  }

  /** A property whose presence is its value. */
  flag(name: string): this {
    return this.bytes(name, new Uint8Array(0));
  }

  /** `<u32>` and `<prop-encoded-array>` of 32-bit cells, each 0 to 2^32-1. */
  cells(name: string, ...values: readonly number[]): this {
    const value = new Uint8Array(4 * values.length);
    const view = new DataView(value.buffer);
    for (const [i, cell] of values.entries()) {
      this.#check(Number.isInteger(cell) && cell >= 0 && cell <= 0xffff_ffff, `${name}: ${cell} is no 32-bit cell`);
      view.setUint32(4 * i, cell);
    }
    return this.bytes(name, value);
  }

  /** `<u64>`, each 0 to 2^64-1. */
  u64(name: string, ...values: readonly (number | bigint)[]): this {
    const value = new Uint8Array(8 * values.length);
    const view = new DataView(value.buffer);
    for (const [i, quad] of values.entries()) view.setBigUint64(8 * i, u64(quad, name));
    return this.bytes(name, value);
  }

  /** `reg` and `ranges`-like values under `#address-cells = 2`, `#size-cells = 2`: address and size pairs. */
  reg(name: string, ...ranges: readonly (readonly [address: number | bigint, size: number | bigint])[]): this {
    return this.u64(name, ...ranges.flat());
  }

  /** `<string>`: NUL-terminated UTF-8 (the specification wants ASCII; Linux takes bootargs as bytes). */
  string(name: string, value: string): this {
    return this.stringList(name, value);
  }

  /** `<stringlist>`: each string with its NUL. */
  stringList(name: string, ...values: readonly string[]): this {
    for (const value of values) this.#check(!value.includes('\0'), `${name}: a string holds a NUL`);
    return this.bytes(name, new TextEncoder().encode(values.map((value) => `${value}\0`).join('')));
  }

  /** Gives the node a `phandle` (a new one if none is given). */
  phandle(value: number = this.newPhandle()): this {
    this.#check(value > 0 && value < 0xffff_ffff, `phandle ${value} is out of range: 1 to 0xfffffffe`);
    this.#check(!this.#phandles.has(value), `phandle ${value} is given twice`);
    this.#phandles.add(value);
    return this.cells('phandle', value);
  }

  /** A phandle that no node of this tree has yet, to refer to a node before it is written. */
  newPhandle(): number {
    while (this.#phandles.has(this.#nextPhandle)) this.#nextPhandle++;
    return this.#nextPhandle++;
  }

  /**
   * Ends the tree.
   * @param options.bootCpu `boot_cpuid_phys`, the boot CPU's `reg`
   * @param options.padding bytes of free room at the end, for a loader that edits in place
   * @returns the blob: header, reservations, structure, strings
   */
  finish(options: { bootCpu?: number; padding?: number } = {}): Uint8Array {
    this.#check(!this.#finished, 'the tree is finished');
    this.#check(this.#hasRoot, 'the tree has no root');
    const open = this.#open.at(-1);
    this.#check(open === undefined, `node ${open?.path} is still open`);
    this.#word(FdtToken.END);
    this.#finished = true;
    const structOffset = FDT_HEADER_SIZE + 16 * (this.#reservations.length + 1);
    const stringsOffset = structOffset + this.#length;
    // Padded to 8 bytes, so that a blob can follow another in memory and stay aligned.
    const total = Math.ceil((stringsOffset + this.#stringsSize + (options.padding ?? 0)) / 8) * 8;
    const blob = new Uint8Array(total);
    const view = new DataView(blob.buffer);
    const header = [
      FDT_MAGIC,
      total,
      structOffset,
      stringsOffset,
      FDT_HEADER_SIZE,
      FDT_VERSION,
      FDT_LAST_COMP_VERSION,
      options.bootCpu ?? 0,
      this.#stringsSize,
      this.#length,
    ];
    for (const [i, word] of header.entries()) view.setUint32(4 * i, word);
    for (const [i, [address, size]] of this.#reservations.entries()) {
      view.setBigUint64(FDT_HEADER_SIZE + 16 * i, address);
      view.setBigUint64(FDT_HEADER_SIZE + 16 * i + 8, size);
    }
    blob.set(this.#struct.subarray(0, this.#length), structOffset);
    blob.set(ascii(this.#strings.map((name) => `${name}\0`).join('')), stringsOffset);
    return blob;
  }

  #check(holds: boolean, message: string): asserts holds {
    if (!holds) throw new VmError('ERR_FDT_WRITE', `device tree: ${message}`);
  }

  #reserveRoom(bytes: number): void {
    if (this.#length + bytes <= this.#struct.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#struct.length, this.#length + bytes));
    grown.set(this.#struct.subarray(0, this.#length));
    this.#struct = grown;
    this.#view = new DataView(grown.buffer);
  }

  #word(value: number): void {
    this.#reserveRoom(4);
    this.#view.setUint32(this.#length, value);
    this.#length += 4;
  }

  /** Appends and pads with zeros to a word. */
  #append(value: Uint8Array): void {
    const padded = Math.ceil(value.length / 4) * 4;
    this.#reserveRoom(padded);
    this.#struct.set(value, this.#length);
    this.#length += padded;
  }
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function u64(value: number | bigint, name: string): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new VmError('ERR_FDT_WRITE', `device tree: ${name}: ${value} is no exact integer; give a bigint`);
  }
  const quad = BigInt(value);
  if (quad < 0n || quad > U64_MAX) {
    throw new VmError('ERR_FDT_WRITE', `device tree: ${name}: ${value} does not fit 64 bits`);
  }
  return quad;
}
