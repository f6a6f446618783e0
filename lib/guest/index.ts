export type { CachedGuest } from './cache.js';
export { cacheDir } from './cache-dir.js';
export * from './debian.js';
export * from './exec-protocol.js';
