import { VmError } from '../errors.js';
import { type Fdt, type FdtNode, parseFdt } from './reader.js';
import { FdtWriter } from './writer.js';

/**
 * Writes a tree that was read, or made by hand. The result of `writeFdt(parseFdt(blob))` means what `blob` means.
 * @throws VmError `ERR_FDT_WRITE` for a name that the specification does not allow
 */
export function writeFdt(fdt: { root: FdtNode } & Partial<Fdt>): Uint8Array {
  const writer = new FdtWriter({ lax: true });
  for (const { address, size } of fdt.reservations ?? []) {
    // An address alone is kept by nobody: it reserves nothing.
    if (size !== 0n) writer.reserve(address, size);
  }
  const write = (node: FdtNode): void => {
    writer.beginNode(node.name);
    for (const [name, value] of node.properties) writer.bytes(name, value);
    for (const child of node.children) write(child);
    writer.endNode();
  };
  write(fdt.root);
  return writer.finish({ bootCpu: fdt.bootCpu ?? 0 });
}

/**
 * The node at an absolute path; `undefined` where there is none. A component without a unit address finds the first
 * node of that name, as in the specification's §2.2.3.
 */
export function findNode(root: FdtNode, path: string): FdtNode | undefined {
  let node: FdtNode | undefined = root;
  for (const part of path.split('/').filter((component) => component !== '')) {
    const children: FdtNode[] = node.children;
    node =
      children.find((child) => child.name === part) ??
      (part.includes('@') ? undefined : children.find((child) => child.name.startsWith(`${part}@`)));
    if (node === undefined) return undefined;
  }
  return node;
}

/** Every node that lists `compatible` among its own, in document order. */
export function findCompatible(root: FdtNode, compatible: string): FdtNode[] {
  const found: FdtNode[] = [];
  const visit = (node: FdtNode): void => {
    if (stringList(node, 'compatible')?.includes(compatible)) found.push(node);
    for (const child of node.children) visit(child);
  };
  visit(root);
  return found;
}

/** A `<stringlist>` property; `undefined` where the node has none, or it does not end with a NUL. */
export function stringList(node: FdtNode, name: string): string[] | undefined {
  const value = node.properties.get(name);
  if (value === undefined || value.at(-1) !== 0) return undefined;
  return new TextDecoder().decode(value.subarray(0, -1)).split('\0');
}

/** A property of 32-bit cells; `undefined` where the node has none, or its length is no multiple of 4. */
export function cells(node: FdtNode, name: string): number[] | undefined {
  const value = node.properties.get(name);
  if (value === undefined || value.length % 4 !== 0) return undefined;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  return Array.from({ length: value.length / 4 }, (_, i) => view.getUint32(4 * i));
}

/** What a loader writes into `/chosen` (Devicetree Specification v0.4 §3.6; Linux, Documentation/devicetree/usage-model.rst). */
export interface ChosenEdit {
  /** The kernel command line. */
  bootargs?: string;
  /** Guest-physical. */
  initrd?: { start: number; end: number };
}

/**
 * A blob like `blob`, with `/chosen` saying what is given; what is not given stays. For a device tree that the user brings.
 * @throws VmError `ERR_FDT_FORMAT`
 */
export function editChosen(blob: Uint8Array, edit: ChosenEdit): Uint8Array {
  const fdt = parseFdt(blob);
  let chosen = fdt.root.children.find((child) => child.name === 'chosen');
  if (chosen === undefined) {
    chosen = { name: 'chosen', properties: new Map(), children: [] };
    fdt.root.children.push(chosen);
  }
  if (edit.bootargs !== undefined) {
    if (edit.bootargs.includes('\0')) throw new VmError('ERR_FDT_WRITE', 'device tree: bootargs: a string holds a NUL');
    chosen.properties.set('bootargs', new TextEncoder().encode(`${edit.bootargs}\0`));
  }
  if (edit.initrd !== undefined) {
    chosen.properties.set('linux,initrd-start', quad(edit.initrd.start));
    chosen.properties.set('linux,initrd-end', quad(edit.initrd.end));
  }
  return writeFdt(fdt);
}

function quad(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}
