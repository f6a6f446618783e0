import { advsimdFp } from '#lib/soft/a64/advsimd-fp.js';
import { differential } from './fp-differential.ts';

differential('vector floating point as qemu-aarch64 does it', advsimdFp);
