// The marks on a guest's console between which the host measures: `@start NAME`, `@end NAME STATUS`, what came out,
// `@done NAME`. Between start and end there is nothing but what the row itself writes to that console.

const MAX_MARK = 80;

/** Reads one row's marks from the console's bytes, in pieces as they come. */
export class MarkReader {
  #name;
  #start;
  #end;
  #status;
  /** What came since the last mark, in pieces. */
  #pieces = [];

  constructor(name) {
    this.#name = name;
  }

  /**
   * @param chunk bytes from the console
   * @param now when they came, in milliseconds
   * @returns the row's result when it is complete: `{ ms, status, output, written }`, else `undefined`
   */
  push(chunk, now) {
    this.#pieces.push(chunk);
    if (this.#start === undefined) {
      if (this.#take(`@start ${this.#name}\n`) === undefined) return undefined;
      this.#start = now;
    }
    if (this.#end === undefined) {
      const before = this.#take(`@end ${this.#name} `);
      if (before === undefined) return undefined;
      this.#end = { now, written: before };
    }
    if (this.#status === undefined) {
      const status = this.#take('\n');
      if (status === undefined) return undefined;
      this.#status = Number(status.toString('latin1'));
    }
    const output = this.#take(`@done ${this.#name}\n`);
    if (output === undefined) return undefined;
    const { now: end, written } = this.#end;
    return { ms: end - this.#start, status: this.#status, output: output.toString('utf8').trimEnd(), written };
  }

  /** What is before `mark`; it and the mark are taken. `undefined`, and nothing taken, where there is none. */
  #take(mark) {
    // A long row writes megabytes: only the end can hold a mark that was not there before.
    const last = this.#pieces.at(-1);
    const tail = Buffer.concat([this.#tail(), last]);
    if (!tail.includes(mark)) return undefined;
    const all = Buffer.concat(this.#pieces);
    const at = all.indexOf(mark);
    this.#pieces = [all.subarray(at + mark.length)];
    return all.subarray(0, at);
  }

  /** The last bytes of what came before the last piece. */
  #tail() {
    const tail = [];
    for (let i = this.#pieces.length - 2, bytes = 0; i >= 0 && bytes < MAX_MARK; i--) {
      tail.unshift(this.#pieces[i]);
      bytes += this.#pieces[i].length;
    }
    return Buffer.concat(tail);
  }
}
