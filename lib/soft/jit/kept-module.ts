import type { ModuleImports } from './linkage.js';

/** The regions of an archive in one module. */
export interface KeptModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly imports: ModuleImports;
  /** The shapes one behind the other, in the order of the module's functions. */
  readonly shapes: Uint32Array<ArrayBuffer>;
}

/** u32 words before everything else: bytes of the imports. */
const HEAD = 1;

const padded = (bytes: number): number => (bytes + 3) & ~3;

/** A module as bytes, but for its shapes, to be used in other runs as it is. */
export function serializeKeptModule({ bytes, imports }: Omit<KeptModule, 'shapes'>): Uint8Array<ArrayBuffer> {
  const names = new TextEncoder().encode(JSON.stringify(imports));
  const moduleAt = HEAD * 4 + padded(names.length);
  const out = new Uint8Array(moduleAt + bytes.length);
  new Uint32Array(out.buffer, 0, HEAD).set([names.length]);
  out.set(names, HEAD * 4);
  out.set(bytes, moduleAt);
  return out;
}

/** Reads what {@link serializeKeptModule} wrote. @returns `undefined` where that is not what the bytes are */
export function parseKeptModule(bytes: Uint8Array<ArrayBuffer>): Omit<KeptModule, 'shapes'> | undefined {
  if (bytes.length < HEAD * 4 || bytes.byteOffset % 4 !== 0) return undefined;
  const [names] = new Uint32Array(bytes.buffer, bytes.byteOffset, HEAD) as unknown as [number];
  const moduleAt = HEAD * 4 + padded(names);
  if (moduleAt > bytes.length) return undefined;
  const imports = parseImports(bytes.subarray(HEAD * 4, HEAD * 4 + names));
  return imports === undefined ? undefined : { bytes: bytes.subarray(moduleAt), imports };
}

function parseImports(bytes: Uint8Array): ModuleImports | undefined {
  try {
    const value = JSON.parse(new TextDecoder().decode(bytes)) as Partial<ModuleImports> | null;
    const areNames = (list: unknown): boolean => Array.isArray(list) && list.every((name) => typeof name === 'string');
    if (!areNames(value?.helpers) || !areNames(value?.memoryFunctions) || typeof value?.table !== 'boolean')
      return undefined;
    return value as ModuleImports;
  } catch {
    return undefined;
  }
}
