import { fpArithmetic } from './fp-arithmetic.js';
import { fpCompare } from './fp-compare.js';
import { fpConvertRows } from './fp-convert.js';
import { fpMove } from './fp-move.js';
import type { Row } from './row.js';

/** Scalar floating point (Arm ARM DDI 0487 C4.1.96), half precision included (FEAT_FP16). */
export const fp: readonly Row[] = [...fpMove, ...fpArithmetic, ...fpCompare, ...fpConvertRows];
