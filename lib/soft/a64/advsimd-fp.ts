import { advsimdFpByElement } from './advsimd-fp-by-element.js';
import { advsimdFpConvert } from './advsimd-fp-convert.js';
import { advsimdFpReduce } from './advsimd-fp-reduce.js';
import { advsimdFpThreeSame } from './advsimd-fp-three-same.js';
import { advsimdFpTwoMisc } from './advsimd-fp-two-misc.js';
import type { Row } from './row.js';

/** Vector floating point, and its scalar forms among the Advanced SIMD encodings, half precision included (FEAT_FP16, FEAT_FHM, FEAT_FCMA). */
export const advsimdFp: readonly Row[] = [
  ...advsimdFpThreeSame,
  ...advsimdFpTwoMisc,
  ...advsimdFpConvert,
  ...advsimdFpByElement,
  ...advsimdFpReduce,
];
