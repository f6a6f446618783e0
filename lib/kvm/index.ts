export * from './attributes.js';
export * from './capabilities.js';
export * from './contract.js';
export * from './errors.js';
export * from './exits.js';
export * from './registers.js';
