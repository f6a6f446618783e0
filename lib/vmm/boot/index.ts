export * from './compress.js';
export * from './elf.js';
export * from './image.js';
export * from './kernel.js';
export * from './placement.js';
export * from './zboot.js';
