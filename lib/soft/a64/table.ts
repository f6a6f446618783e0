import { advsimd } from './advsimd.js';
import { advsimdFp } from './advsimd-fp.js';
import { atomics } from './atomics.js';
import { branches } from './branches.js';
import { dataProcessingImmediate } from './data-processing-immediate.js';
import { dataProcessingRegister } from './data-processing-register.js';
import { fp } from './fp.js';
import { loadStore } from './load-store.js';
import { memoryCopy } from './memory-copy.js';
import { pointerAuth } from './pointer-auth.js';
import type { Row } from './row.js';
import { simdLoadStore } from './simd-load-store.js';
import { system } from './system.js';

/** The A64 instruction set: every encoding once, in the order in which the decoder tries them. */
export const TABLE: readonly Row[] = [
  ...dataProcessingImmediate,
  ...branches,
  ...pointerAuth,
  ...system,
  ...loadStore,
  ...atomics,
  ...memoryCopy,
  ...simdLoadStore,
  ...dataProcessingRegister,
  ...fp,
  ...advsimd,
  ...advsimdFp,
];
