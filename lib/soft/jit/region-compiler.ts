import { REGION_PARAMS, REGION_RESULTS, RegionLowering } from './compiler.js';
import { FLAGS_FUNCTION, FLAGS_SIGNATURE } from './flags-function.js';
import { MAX_HANDLERS, MAX_REGIONS, RECORD_SHIFT } from './handler.js';
import type { Instructions } from './instruction.js';
import {
  DEVICE_SIZES,
  deviceFunctionName,
  type ImportedFunction,
  LinkedModule,
  type ModuleImports,
} from './linkage.js';
import { formRegion, type PageReader, type Region } from './region.js';
import { TAIL_CALLS } from './tail-calls.js';
import { FunctionBody } from './wasm-module.js';

/** A region that waits to be compiled. */
export interface Candidate {
  readonly page: PageReader;
  /** Linear address of the page's records. */
  readonly records: number;
  /** Position of the entry in the page. */
  readonly entry: number;
  /** What profilers call the region's function. */
  readonly name: string;
}

/** Regions compiled to one module: a module costs V8 50 to 270 µs by itself. */
export interface CompiledRegions<C extends Candidate> {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly imports: ModuleImports;
  /** The functions imported, by their index. */
  readonly functions: readonly ImportedFunction[];
  /** The candidates in it; the n-th one's function is exported as `regionExport(n)`. */
  readonly regions: readonly (CompiledRegion<C> & { readonly region: Region; readonly body: FunctionBody })[];
}

export interface CompiledRegion<C> {
  readonly candidate: C;
  /** Where it may be entered: positions in the page, the candidate's first. */
  readonly entries: readonly number[];
}

/** Instructions in a module, about: some milliseconds of work. */
const MAX_INSTRUCTIONS = 160;

const DEVICE_FUNCTIONS = DEVICE_SIZES.flatMap((bytes) => [
  deviceFunctionName('load', bytes),
  deviceFunctionName('store', bytes),
]);

export const regionExport = (n: number): string => `r${n}`;

export const REGION_SIGNATURE = { params: REGION_PARAMS, results: REGION_RESULTS };

/**
 * A module for regions' functions, none of which is in it yet.
 * @returns with the function type of regions, where they call each other: the same in all modules, so that bodies fit into any
 */
export function regionModule(): { readonly module: LinkedModule; readonly linkType: number | undefined } {
  const module = new LinkedModule(TAIL_CALLS ? MAX_HANDLERS + MAX_REGIONS : undefined);
  return { module, linkType: TAIL_CALLS ? module.builder.type(REGION_SIGNATURE) : undefined };
}

/**
 * Compiles candidates, taking them off the list's front until enough instructions are together for one module. Those at which
 * the region of another can be entered are left out.
 * @param entered entries of what was compiled of the same list before, as addresses of their records; those of this are added
 * @returns `undefined` where none of those taken can be compiled
 */
export function compileRegions<C extends Candidate>(
  code: Instructions,
  list: C[],
  entered: Set<number>,
): CompiledRegions<C> | undefined {
  const regions: { readonly candidate: C; readonly region: Region }[] = [];
  for (let instructions = 0; list.length > 0 && instructions < MAX_INSTRUCTIONS; ) {
    const candidate = list.shift()!;
    const { page, records, entry } = candidate;
    const recordOf = (index: number): number => records + (index << RECORD_SHIFT);
    if (page.isEntry(entry) || entered.has(recordOf(entry))) continue;
    const region = formRegion(code, page, entry);
    if (region === undefined) continue;
    for (const index of region.entries) entered.add(recordOf(index));
    regions.push({ candidate, region });
    for (const block of region.blocks) instructions += block.instructions.length;
  }
  if (regions.length === 0) return undefined;
  const { module, linkType } = regionModule();
  const flags = module.import({ kind: 'memory', name: FLAGS_FUNCTION, signature: FLAGS_SIGNATURE });
  for (const { region } of regions) {
    for (const block of region.blocks)
      for (const { meaning } of block.instructions) module.require(meaning.helpers, meaning.memoryFunctions);
    if (region.devices.size > 0) module.require([], DEVICE_FUNCTIONS);
  }
  const compiled = regions.map(({ candidate, region }, n) => {
    const body = new FunctionBody(REGION_PARAMS.length);
    new RegionLowering(body, { memory: module.memory, helper: module.helper, flags }, linkType).compile(region);
    module.builder.addFunction(REGION_SIGNATURE, body, regionExport(n), candidate.name);
    return { candidate, entries: region.entries, region, body };
  });
  return { bytes: module.build(), imports: module.imports, functions: module.functions, regions: compiled };
}
