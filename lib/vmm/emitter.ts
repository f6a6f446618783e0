/** A listener of one event of {@link Emitter}. */
type Listener<A extends unknown[]> = (...args: A) => void;

/**
 * Typed events, the few calls of Node's EventEmitter that everybody uses, without Node. A listener that throws does not
 * stop the others, nor the VM: the error is thrown again from a microtask, where it is the program's uncaught exception.
 */
export class Emitter<Events extends { [K in keyof Events]: unknown[] }> {
  readonly #listeners = new Map<keyof Events, Listener<never>[]>();

  /** Calls `listener` at every `event`. */
  on<K extends keyof Events>(event: K, listener: Listener<Events[K]>): this {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener as Listener<never>]);
    return this;
  }

  /** Calls `listener` at the next `event` only. */
  once<K extends keyof Events>(event: K, listener: Listener<Events[K]>): this {
    const wrapped: Listener<Events[K]> = (...args) => {
      this.off(event, wrapped);
      listener(...args);
    };
    return this.on(event, wrapped);
  }

  /** Takes back an `on`. */
  off<K extends keyof Events>(event: K, listener: Listener<Events[K]>): this {
    const left = (this.#listeners.get(event) ?? []).filter((l) => l !== (listener as Listener<never>));
    this.#listeners.set(event, left);
    return this;
  }

  protected emit<K extends keyof Events>(event: K, ...args: Events[K]): void {
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        (listener as Listener<Events[K]>)(...args);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
