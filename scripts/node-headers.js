import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Lets node-gyp and cmake-js compile against the headers of the Node that runs this, where it has them: none are fetched then. */
export function useOwnHeaders() {
  const dir = resolve(process.execPath, '../..');
  if (existsSync(join(dir, 'include/node/node_api.h'))) process.env.npm_config_nodedir ??= dir;
}
