/** A bar of 24 characters and a few words: fits 80 columns. */
const BAR = 24;
const MIN_REDRAW_MS = 50;

/** Shows how far something long has come. */
export interface Progress {
  /** @param done @param total in the same unit; without a total only the label is shown */
  update(label: string, done?: number, total?: number): void;
  /** A line of its own. */
  note(text: string): void;
  /** Takes the bar away. */
  end(): void;
}

/** What {@link createProgress} writes to: stderr. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** On a terminal a bar that is redrawn in place, elsewhere one line a label; with `quiet`, nothing. */
export function createProgress(stream: ProgressStream, quiet: boolean): Progress {
  if (quiet) return { update() {}, note() {}, end() {} };
  let label = '';
  if (stream.isTTY !== true) {
    return {
      update(next) {
        if (next === label) return;
        label = next;
        stream.write(`elvisor: ${next}\n`);
      },
      note: (text) => void stream.write(`elvisor: ${text}\n`),
      end() {},
    };
  }
  let drawn = 0;
  let last = '';
  const clear = (): void => {
    if (last !== '') stream.write('\r\x1b[K');
    last = '';
  };
  return {
    update(next, done, total) {
      const now = performance.now();
      if (next === label && now - drawn < MIN_REDRAW_MS && done !== total) return;
      label = next;
      drawn = now;
      const line = barLine(next, done, total).slice(0, Math.max(20, (stream.columns ?? 80) - 1));
      if (line !== last) stream.write(`\r${line}\x1b[K`);
      last = line;
    },
    note(text) {
      clear();
      stream.write(`elvisor: ${text}\n`);
    },
    end: clear,
  };
}

/** One line of a bar. */
export function barLine(label: string, done?: number, total?: number): string {
  if (done === undefined || total === undefined || total <= 0) return label;
  const part = Math.min(Math.max(done / total, 0), 1);
  const full = Math.round(part * BAR);
  return `[${'#'.repeat(full)}${' '.repeat(BAR - full)}] ${String(Math.floor(part * 100)).padStart(3)}% ${label}`;
}
