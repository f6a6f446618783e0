export { VmError } from '../errors.js';
export * from './format.js';
export * from './reader.js';
export * from './tree.js';
export * from './writer.js';
