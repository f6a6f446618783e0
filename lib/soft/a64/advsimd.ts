import { advsimdAcross } from './advsimd-across.js';
import { advsimdByElement } from './advsimd-by-element.js';
import { advsimdCopy } from './advsimd-copy.js';
import { advsimdPermute } from './advsimd-permute.js';
import { advsimdScalar } from './advsimd-scalar.js';
import { advsimdShiftImm } from './advsimd-shift-imm.js';
import { advsimdThreeDifferent } from './advsimd-three-different.js';
import { advsimdThreeSame } from './advsimd-three-same.js';
import { advsimdTwoMisc } from './advsimd-two-misc.js';
import { crypto } from './crypto.js';
import type { Row } from './row.js';

/** Advanced SIMD integer data processing and cryptography. */
export const advsimd: readonly Row[] = [
  // The modified immediates are the shifts by immediate with immh = 0, which have no row there.
  ...advsimdCopy,
  ...advsimdPermute,
  ...advsimdThreeSame,
  ...advsimdThreeDifferent,
  ...advsimdTwoMisc,
  ...advsimdAcross,
  ...advsimdShiftImm,
  ...advsimdByElement,
  ...advsimdScalar,
  ...crypto,
];
