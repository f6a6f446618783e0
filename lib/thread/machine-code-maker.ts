import { functionsOf, Wasm } from '../soft/index.js';
import type { CodeStore } from './code-store.js';
import { hasMachineCode, Optimizer } from './machine-code.js';

/** Nothing is begun before so long nothing else was wanted of the thread. */
const QUIET_MS = 100;
/** What else is wanted waits at most about so long, and for one function. */
const TURN_MS = 4;

/** Makes the machine code of parts that have none, one after the other, while the thread has nothing better to do. */
export class MachineCodeMaker {
  readonly #store: CodeStore;
  readonly #wanted = new Set<string>();
  #current: { readonly part: string; readonly optimizer: Optimizer } | undefined;
  #quietFrom = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(store: CodeStore) {
    this.#store = store;
  }

  /** Has the machine code of a part be made. */
  want(part: string): void {
    if (!hasMachineCode()) return;
    this.#wanted.add(part);
    this.#wait();
  }

  /** Something else was wanted of the thread. */
  busy(): void {
    this.#quietFrom = performance.now() + QUIET_MS;
  }

  #wait(): void {
    this.#timer ??= setTimeout(
      () => {
        this.#timer = undefined;
        if (performance.now() < this.#quietFrom || this.turn()) this.#wait();
      },
      Math.max(0, this.#quietFrom - performance.now()),
    ).unref();
  }

  /** Goes on with it for a moment. @returns whether there is more to do */
  turn(): boolean {
    const until = performance.now() + TURN_MS;
    do {
      this.#current ??= this.#begin();
      if (this.#current === undefined) break;
      const { part, optimizer } = this.#current;
      if (optimizer.step()) continue;
      this.#current = undefined;
      const code = optimizer.machineCode();
      if (code !== undefined) this.#store.setMachineCode(part, code);
    } while (performance.now() < until);
    return this.#current !== undefined || this.#wanted.size > 0;
  }

  #begin(): { readonly part: string; readonly optimizer: Optimizer } | undefined {
    const [part] = this.#wanted;
    if (part === undefined) return undefined;
    this.#wanted.delete(part);
    const kept = this.#store.module(part);
    if (kept === undefined) return undefined;
    try {
      const module = new Wasm.Module(kept.bytes);
      return { part, optimizer: new Optimizer(module, functionsOf(module, kept.imports)) };
    } catch {
      // V8 does not take it, or has no room.
      return undefined;
    }
  }
}
