import type { Decoder } from '../a64/decode.js';
import { REGION_PARAMS, RegionLowering } from './compiler.js';
import { type Linkage, memoryFunctionName, signatureOf } from './linkage.js';
import { formRegion, type PageReader, type Region } from './region.js';
import { FunctionBody, ModuleBuilder } from './wasm-module.js';
import { Wasm } from './webassembly.js';

/** A region that waits to be compiled. */
export interface Candidate {
  readonly page: PageReader;
  /** Position of the entry in the page. */
  readonly entry: number;
  /** Called with the compiled function; the page may have changed since, so look before using it. */
  readonly install: (f: unknown) => void;
}

/** Instructions in a module, about: some milliseconds of work. */
const MAX_INSTRUCTIONS = 160;

/** Compiles regions, several to a module: a module costs V8 50 to 270 µs by itself. */
export class RegionCompiler {
  readonly #decoder: Decoder;
  readonly #linkage: Linkage;

  constructor(decoder: Decoder, linkage: Linkage) {
    this.#decoder = decoder;
    this.#linkage = linkage;
  }

  /**
   * Compiles candidates until enough instructions are together: the rest of the machine waits meanwhile.
   * @returns how many of the candidates it has dealt with
   */
  compile(candidates: readonly Candidate[]): number {
    const regions: { candidate: Candidate; region: Region }[] = [];
    let done = 0;
    for (let instructions = 0; done < candidates.length && instructions < MAX_INSTRUCTIONS; done++) {
      const candidate = candidates[done]!;
      const region = formRegion(this.#decoder, candidate.page, candidate.entry);
      if (region === undefined) continue;
      regions.push({ candidate, region });
      for (const block of region.blocks) instructions += block.instructions.length;
    }
    if (regions.length > 0) this.#build(regions);
    return done;
  }

  #build(regions: readonly { candidate: Candidate; region: Region }[]): void {
    const linkage = this.#linkage;
    const module = new ModuleBuilder();
    module.importMemory(linkage.maximumPages, linkage.shared);
    const imports: Record<string, unknown> = { memory: linkage.memory };
    const indices = new Map<string, number>();
    for (const { region } of regions) {
      for (const { shape } of region.blocks.flatMap((b) => b.instructions)) {
        for (const h of shape.helpers) {
          if (indices.has(h.name)) continue;
          indices.set(h.name, module.importFunction(h.name, signatureOf(h)));
          imports[h.name] = linkage.helper(h);
        }
        for (const name of shape.memoryFunctions) {
          if (indices.has(name)) continue;
          indices.set(name, module.importFunction(name, { params: ['i64'], results: ['i32'] }));
          imports[name] = linkage.memoryFunction(name);
        }
      }
    }
    const memory = {
      load: (bytes: number, unprivileged: boolean) => indices.get(memoryFunctionName('load', bytes, unprivileged))!,
      store: (bytes: number, unprivileged: boolean) => indices.get(memoryFunctionName('store', bytes, unprivileged))!,
    };
    regions.forEach(({ region }, n) => {
      const body = new FunctionBody(REGION_PARAMS.length);
      new RegionLowering(body, memory, (h) => indices.get(h.name)!).compile(region);
      module.addFunction({ params: REGION_PARAMS, results: [] }, body, `r${n}`);
    });
    const instance = new Wasm.Instance(new Wasm.Module(module.build()), { e: imports });
    regions.forEach(({ candidate }, n) => {
      candidate.install(instance.exports[`r${n}`]);
    });
  }
}
