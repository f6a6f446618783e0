import { createFpHelpers } from './fp-helpers.js';
import { createFpVectorHelpers } from './fp-vector-helpers.js';
import type { HelperEnv, HelperTable } from './helpers.js';

/** Makers of every helper that rows call, but for those of the processor itself. */
export const HELPERS: readonly ((env: HelperEnv) => HelperTable)[] = [createFpHelpers, createFpVectorHelpers];
