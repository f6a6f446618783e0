import { parseRegionName } from '../open.js';
import type { SymbolTable } from '../vmm/boot/symbols.js';

/** What V8's profiler returns (Chrome DevTools Protocol, Profiler.Profile), as far as it is read here. */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
    readonly children?: readonly number[];
  }[];
  readonly samples?: readonly number[];
  /** Microseconds between two samples. */
  readonly timeDeltas?: readonly number[];
}

/** Where elvisor's time goes. */
export type Activity =
  | 'compiled'
  | 'interpreting'
  | 'translating'
  | 'decoding'
  | 'compiling'
  | 'exceptions'
  | 'devices'
  | 'collecting'
  | 'other'
  | 'idle';

export const ACTIVITIES: Readonly<Record<Activity, string>> = {
  compiled: 'compiled guest code',
  interpreting: 'interpreting guest code',
  translating: 'translating addresses',
  decoding: 'decoding instructions',
  compiling: 'asking for compiled code and installing it',
  exceptions: 'exceptions, system registers, timers, interrupts, exits',
  devices: 'devices, turns of vCPUs and of the event loop',
  collecting: 'collecting garbage',
  other: 'starting, loading, V8 and Node',
  idle: 'idle',
};

/**
 * Functions at which an activity begins, innermost first when a stack is read: all that they call is theirs. The names are those
 * of the machine (lib/soft), which calls in from generated code, and of the loop that gives vCPUs their turns and
 * of the devices' bus, which is called in the midst of a run, too (lib/vmm).
 */
export const ENTRIES: Readonly<Record<string, Activity>> = {
  loadMiss: 'translating',
  storeMiss: 'translating',
  fetchMiss: 'translating',
  decodeMiss: 'decoding',
  hot: 'compiling',
  tick: 'compiling',
  handle: 'devices',
  '#enterGuest': 'exceptions',
  '#turn': 'devices',
};

/** Functions of the interpreter's module, and V8's ways into WebAssembly. */
const INTERPRETER = /^(interpreter|(load|store)\d+u?$|js-to-wasm|wasm-to-js|GenericJSToWasmWrapper|WasmTo)/i;

/** What the samples so far amount to. Profiles are added one after the other, so that a long run needs no more memory than a short one. */
export class ProfileTally {
  /** Microseconds, by activity. */
  readonly activities = new Map<Activity, number>();
  /** Microseconds, by the name of the region's function. */
  readonly regions = new Map<string, number>();
  total = 0;

  add(profile: CpuProfile): void {
    const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
    const parents = new Map<number, number>();
    for (const { id, children } of profile.nodes) for (const child of children ?? []) parents.set(child, id);
    const activities = new Map<number, Activity>();
    const activityOf = (id: number): Activity => {
      for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
        const { functionName, url } = nodes.get(at)!.callFrame;
        const isLeaf = at === id;
        if (isLeaf && functionName === '(idle)') return 'idle';
        if (isLeaf && functionName === '(garbage collector)') return 'collecting';
        if (isLeaf && parseRegionName(functionName) !== undefined) return 'compiled';
        if (INTERPRETER.test(functionName) && (isLeaf || url.startsWith('wasm:'))) return 'interpreting';
        const activity = url.startsWith('node:') ? undefined : ENTRIES[functionName];
        if (activity !== undefined) return activity;
      }
      return 'other';
    };
    profile.samples?.forEach((id, i) => {
      // A negative delta is a sample that came out of turn.
      const micros = Math.max(0, profile.timeDeltas?.[i] ?? 0);
      let activity = activities.get(id);
      if (activity === undefined) {
        activity = activityOf(id);
        activities.set(id, activity);
      }
      this.total += micros;
      this.activities.set(activity, (this.activities.get(activity) ?? 0) + micros);
      if (activity !== 'compiled') return;
      const { functionName } = nodes.get(id)!.callFrame;
      this.regions.set(functionName, (this.regions.get(functionName) ?? 0) + micros);
    });
  }
}

/** What else a report says. */
export interface ReportContext {
  readonly title: string;
  /** The kernel's, by guest-physical address. */
  readonly symbols: SymbolTable | undefined;
  /** CPU time of the process's other threads, in microseconds; `undefined` where this Node does not tell. */
  readonly otherThreads: number | undefined;
}

/** Rows of a table at most: what comes after is named in one line. */
const MAX_ROWS = 30;

/** The report that `--trace profile` writes. */
export function formatProfile(tally: ProfileTally, context: ReportContext): string {
  const ms = (micros: number): string => (micros / 1000).toFixed(1).padStart(10);
  const share = (micros: number, of: number): string =>
    `${((100 * micros) / Math.max(1, of)).toFixed(1)} %`.padStart(8);
  const row = (micros: number, of: number, what: string): string => `${ms(micros)} ms${share(micros, of)}  ${what}`;
  const lines = [context.title, '', 'Where the time of the thread that runs the guest went:'];
  for (const [activity, what] of Object.entries(ACTIVITIES) as [Activity, string][]) {
    const micros = tally.activities.get(activity) ?? 0;
    if (micros > 0) lines.push(row(micros, tally.total, what));
  }
  lines.push(row(tally.total, tally.total, 'in all'));
  if (context.otherThreads !== undefined) {
    lines.push(
      `${ms(context.otherThreads)} ms          CPU time of other threads: compiling guest code, V8's compilers and collectors`,
    );
  }

  const compiled = tally.activities.get('compiled') ?? 0;
  const functions = new Map<string, number>();
  const regions: [micros: number, what: string][] = [];
  for (const [name, micros] of tally.regions) {
    const region = parseRegionName(name)!;
    const found = region.el === 0 || region.ipa === undefined ? undefined : context.symbols?.find(region.ipa);
    const key = found?.name ?? (region.el === 0 ? '(user space)' : '(no symbol)');
    functions.set(key, (functions.get(key) ?? 0) + micros);
    const at = found === undefined ? '' : `  ${found.name}+0x${found.offset.toString(16)}`;
    regions.push([micros, `${name.slice('guest '.length)}${at}`]);
  }
  if (regions.length === 0) {
    lines.push('', 'No guest code was hot enough to be compiled.');
    return `${lines.join('\n')}\n`;
  }
  const table = (title: string, rows: [micros: number, what: string][]): void => {
    rows.sort((a, b) => b[0] - a[0]);
    lines.push('', title, ...rows.slice(0, MAX_ROWS).map(([micros, what]) => row(micros, compiled, what)));
    const rest = rows.slice(MAX_ROWS);
    if (rest.length > 0)
      lines.push(
        row(
          rest.reduce((sum, [micros]) => sum + micros, 0),
          compiled,
          `in ${rest.length} more`,
        ),
      );
  };
  if (context.symbols !== undefined) {
    table(
      'Functions of the guest, of the time in compiled code:',
      [...functions].map(([name, micros]) => [micros, name]),
    );
  }
  table('Hot regions, by where they start:', regions);
  return `${lines.join('\n')}\n`;
}
