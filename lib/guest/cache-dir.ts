import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/** The user's cache directory for elvisor: `$XDG_CACHE_HOME/elvisor`, or `~/.cache/elvisor` (XDG Base Directory Specification). */
export function cacheDir(env: NodeJS.ProcessEnv = process.env): string {
  const { XDG_CACHE_HOME: base } = env;
  // The specification has a relative path ignored.
  return join(base !== undefined && isAbsolute(base) ? base : join(homedir(), '.cache'), 'elvisor');
}
