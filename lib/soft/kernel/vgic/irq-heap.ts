import type { VgicIrq } from './irq.js';

/** Whether `a` is signalled before `b`: the higher priority (the lower number) first, then the lower INTID. */
export const precedes = (a: VgicIrq, b: VgicIrq): boolean =>
  a.priority < b.priority || (a.priority === b.priority && a.intid < b.intid);

/**
 * The pending interrupts of one group at one CPU interface: a binary heap, so that a guest with tens of thousands of
 * pending LPIs still has its next one at once. An interrupt is in one heap at most and knows its place there.
 */
export class IrqHeap {
  readonly #heap: VgicIrq[] = [];

  get first(): VgicIrq | undefined {
    return this.#heap[0];
  }

  /** Adds `irq`, or moves it to where its priority now belongs. */
  put(irq: VgicIrq): void {
    if (this.#heap[irq.heapIndex] !== irq) {
      irq.heapIndex = this.#heap.length;
      this.#heap.push(irq);
    }
    this.#settle(irq);
  }

  remove(irq: VgicIrq): void {
    const at = irq.heapIndex;
    if (this.#heap[at] !== irq) return;
    irq.heapIndex = -1;
    const last = this.#heap.pop()!;
    if (last === irq) return;
    this.#place(last, at);
    this.#settle(last);
  }

  *[Symbol.iterator](): Generator<VgicIrq> {
    yield* this.#heap.slice();
  }

  #place(irq: VgicIrq, at: number): void {
    this.#heap[at] = irq;
    irq.heapIndex = at;
  }

  #settle(irq: VgicIrq): void {
    let at = irq.heapIndex;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!precedes(irq, this.#heap[parent]!)) break;
      this.#place(this.#heap[parent]!, at);
      at = parent;
    }
    for (;;) {
      let child = at * 2 + 1;
      if (child >= this.#heap.length) break;
      if (child + 1 < this.#heap.length && precedes(this.#heap[child + 1]!, this.#heap[child]!)) child++;
      if (!precedes(this.#heap[child]!, irq)) break;
      this.#place(this.#heap[child]!, at);
      at = child;
    }
    this.#place(irq, at);
  }
}
