import * as module from 'node:module';
import { join } from 'node:path';
import { cacheDir } from '../guest/cache-dir.js';
import { privateDirectory } from '../thread/private-directory.js';

/** What Node has for this: from 22.1 on, and from 22.10 on. */
interface CompileCache {
  readonly enableCompileCache?: (directory: string) => { readonly directory?: string };
  readonly flushCompileCache?: () => void;
}

/** By then a guest has booted: what booting one needs is compiled, and V8 has not yet thrown away what it needs no more. */
const FLUSH_AFTER_MS = 3000;

/**
 * Lets V8 keep the code that it makes of elvisor's modules in the user's cache directory, so that the next start need not
 * make it again. Does nothing where Node can't, where the user has settled it for all programs (NODE_COMPILE_CACHE,
 * NODE_DISABLE_COMPILE_CACHE), and where the directory can't be written or might be written by somebody else.
 */
export function cacheCompiledCode(): void {
  const { enableCompileCache, flushCompileCache } = module as CompileCache;
  if (enableCompileCache === undefined || process.env.NODE_COMPILE_CACHE !== undefined) return;
  const directory = privateDirectory(join(cacheDir(), 'code'));
  if (directory === undefined || enableCompileCache(directory).directory === undefined) return;
  // What ends earlier is kept as it ends.
  if (flushCompileCache !== undefined) setTimeout(flushCompileCache, FLUSH_AFTER_MS).unref();
}
