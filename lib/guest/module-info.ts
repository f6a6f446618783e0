import { VmError } from '../vmm/errors.js';

/** What a kernel module says of itself in its `.modinfo` section. */
export interface ModuleInfo {
  /** Modules that must be loaded before it. Underscores for dashes, as the kernel names them. */
  readonly depends: readonly string[];
}

/** A module's name as the kernel has it: dashes and underscores are one. */
export function moduleName(name: string): string {
  return name.replaceAll('-', '_');
}

/**
 * Reads a module's dependencies. (`modules.dep` is made on the machine where a kernel package is installed; the package
 * itself has none.)
 *
 * @param path names the module in errors
 * @throws VmError `ERR_GUEST_MODULE` no ELF64 AArch64 object, or a section that reaches over its end
 */
export function readModuleInfo(bytes: Uint8Array, path: string): ModuleInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const check = (holds: boolean, rule: string): void => {
    if (!holds) throw new VmError('ERR_GUEST_MODULE', `kernel module ${path}: ${rule}`);
  };
  check(
    bytes.length >= 64 && view.getUint32(0) === 0x7f454c46 && bytes[4] === 2 && bytes[5] === 1,
    'it is no ELF64 file',
  );
  check(view.getUint16(18, true) === 183, 'it is not for arm64');
  const table = Number(view.getBigUint64(40, true));
  const [entrySize, count, namesIndex] = [view.getUint16(58, true), view.getUint16(60, true), view.getUint16(62, true)];
  check(
    entrySize >= 64 && table + entrySize * count <= bytes.length && namesIndex < count,
    'its section table is out of bounds',
  );
  const section = (index: number): Uint8Array => {
    const at = table + entrySize * index;
    const [offset, size] = [Number(view.getBigUint64(at + 24, true)), Number(view.getBigUint64(at + 32, true))];
    // SHT_NOBITS occupies no bytes of the file.
    if (view.getUint32(at + 4, true) === 8) return new Uint8Array(0);
    check(offset + size <= bytes.length, `section ${index} reaches over its end`);
    return bytes.subarray(offset, offset + size);
  };
  const names = section(namesIndex);
  for (let i = 0; i < count; i++) {
    const nameAt = view.getUint32(table + entrySize * i, true);
    const name = new TextDecoder().decode(names.subarray(nameAt, nameAt + '.modinfo\0'.length));
    if (name !== '.modinfo\0') continue;
    const depends = new TextDecoder()
      .decode(section(i))
      .split('\0')
      .flatMap((line) => (line.startsWith('depends=') ? line.slice('depends='.length).split(',') : []))
      .filter((dependency) => dependency !== '')
      .map(moduleName);
    return { depends };
  }
  return { depends: [] };
}

/**
 * The modules to load for `wanted`, each after those it depends on.
 *
 * @param wanted names; one that the kernel has neither as a module nor built in is left out
 * @param available the modules that there are, by name (underscores)
 * @param builtin names of those that are part of the kernel (underscores)
 * @param read a module's dependencies, by name
 * @throws VmError `ERR_GUEST_MODULE` a dependency that is nowhere, or a circle
 */
export async function loadOrder(
  wanted: readonly string[],
  available: ReadonlySet<string>,
  builtin: ReadonlySet<string>,
  read: (name: string) => Promise<ModuleInfo>,
): Promise<string[]> {
  const order: string[] = [];
  const visiting = new Set<string>();
  const visit = async (name: string, neededBy: string | undefined): Promise<void> => {
    if (order.includes(name) || builtin.has(name)) return;
    if (!available.has(name)) {
      if (neededBy === undefined) return;
      throw new VmError(
        'ERR_GUEST_MODULE',
        `kernel module ${neededBy}: it depends on ${name}, which the kernel package does not have`,
      );
    }
    if (visiting.has(name)) throw new VmError('ERR_GUEST_MODULE', `kernel module ${name}: it depends on itself`);
    visiting.add(name);
    for (const dependency of (await read(name)).depends) await visit(dependency, name);
    visiting.delete(name);
    order.push(name);
  };
  for (const name of wanted) await visit(moduleName(name), undefined);
  return order;
}
