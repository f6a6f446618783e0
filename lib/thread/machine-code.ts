/**
 * V8's machine code of a module, as bytes for other processes. V8 has this for browsers' caches; it checks that the bytes are of the
 * same version, processor features and flags, but trusts them otherwise as it trusts its own code: whatever else they are, they end the
 * process or do worse. So nothing may come here but what {@link Optimizer} made of the very same module.
 */
import type { WasmModule } from '../soft/index.js';
import { nativeFunction, withFlagsOfStart } from './v8-flags.js';

/** V8's functions for it: in Node 20 to 24, not in 26. */
interface Runtime {
  readonly serialize: (module: WasmModule) => ArrayBuffer;
  readonly deserialize: (code: ArrayBuffer, bytes: Uint8Array) => WasmModule | undefined;
  readonly optimize: (f: unknown) => void;
  readonly isOptimized: (f: unknown) => boolean;
}

let found: Runtime | undefined | null;

function runtime(): Runtime | undefined {
  if (found === undefined) {
    try {
      found = {
        serialize: nativeFunction(['m'], 'return %SerializeWasmModule(m)') as Runtime['serialize'],
        deserialize: nativeFunction(['c', 'b'], 'return %DeserializeWasmModule(c, b)') as Runtime['deserialize'],
        optimize: nativeFunction(['f'], '%WasmTierUpFunction(f)'),
        isOptimized: nativeFunction(['f'], 'return %IsTurboFanFunction(f)') as Runtime['isOptimized'],
      };
    } catch {
      found = null;
    }
  }
  return found ?? undefined;
}

/** Whether this V8 gives machine code away, and takes it. */
export const hasMachineCode = (): boolean => runtime() !== undefined;

/** Optimises the functions of a module, one at a time. */
export class Optimizer {
  readonly #module: WasmModule;
  readonly #runtime: Runtime;
  readonly #functions: readonly unknown[];
  #next = 0;

  /**
   * @param functions all of the module's that are to be optimised, of an instance
   * @throws where V8 gives no machine code away
   */
  constructor(module: WasmModule, functions: readonly unknown[]) {
    const own = runtime();
    if (own === undefined) throw new Error('this V8 gives no machine code away');
    this.#runtime = own;
    this.#module = module;
    this.#functions = functions;
  }

  /** Optimises one function, which takes from a fraction of a millisecond to some 60. @returns whether there is another */
  step(): boolean {
    const f = this.#functions[this.#next];
    if (f === undefined) return false;
    // The machine's V8 may have done it by itself: what is compiled of the same bytes is one module in a process.
    if (!this.#runtime.isOptimized(f)) this.#runtime.optimize(f);
    return ++this.#next < this.#functions.length;
  }

  /** The machine code of all; `undefined` where it can't be had: V8 does not optimise while it is debugged, or its flags have changed. */
  machineCode(): Uint8Array<ArrayBuffer> | undefined {
    const { serialize, isOptimized } = this.#runtime;
    // Code that is not optimised V8 leaves out, and it ends the process where that is all.
    if (this.#functions.length === 0 || !this.#functions.every(isOptimized)) return undefined;
    const code = withFlagsOfStart(() => serialize(this.#module));
    return code === undefined ? undefined : new Uint8Array(code);
  }
}

/**
 * A module from its bytes and its machine code.
 * @param bytes as the machine code was made from, to the last
 * @param code what {@link Optimizer.machineCode} answered
 * @returns `undefined` where V8 wants to compile it itself: the code is another version's, another processor's, or made with other flags
 */
export function withMachineCode(bytes: Uint8Array<ArrayBuffer>, code: Uint8Array<ArrayBuffer>): WasmModule | undefined {
  const own = runtime();
  // V8 wants a buffer of its own.
  const buffer = code.buffer.slice(code.byteOffset, code.byteOffset + code.length);
  return own === undefined ? undefined : withFlagsOfStart(() => own.deserialize(buffer, bytes));
}
