/** Exact floating point in software, as the Arm ARM's pseudocode defines it: every format, rounding mode and exception. */
export * from './arithmetic.js';
export * from './convert.js';
export * from './estimate.js';
export * from './format.js';
