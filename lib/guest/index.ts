export { type CachedGuest, cacheDir } from './cache.js';
export * from './debian.js';
export * from './exec-protocol.js';
