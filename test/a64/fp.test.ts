import { fp } from '#lib/soft/a64/fp.js';
import { differential } from './fp-differential.ts';

differential('scalar floating point as qemu-aarch64 does it', fp);
