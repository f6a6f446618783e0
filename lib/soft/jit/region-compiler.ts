import type { Decoder } from '../a64/decode.js';
import { REGION_PARAMS, RegionLowering } from './compiler.js';
import { type Linkage, LinkedModule } from './linkage.js';
import { formRegion, type PageReader, type Region } from './region.js';
import { FunctionBody } from './wasm-module.js';

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
    const module = new LinkedModule(this.#linkage);
    for (const { region } of regions) {
      for (const block of region.blocks)
        for (const { shape } of block.instructions) module.require(shape.helpers, shape.memoryFunctions);
    }
    regions.forEach(({ region }, n) => {
      const body = new FunctionBody(REGION_PARAMS.length);
      new RegionLowering(body, module.memory, module.helper).compile(region);
      module.builder.addFunction({ params: REGION_PARAMS, results: [] }, body, `r${n}`);
    });
    const instance = module.instantiate();
    regions.forEach(({ candidate }, n) => {
      candidate.install(instance.exports[`r${n}`]);
    });
  }
}
