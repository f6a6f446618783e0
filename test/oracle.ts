import { spawnSync } from 'node:child_process';
import { test } from '@jest/globals';

/**
 * `test`, where every one of the programs is installed; else `test.skip`: on a machine without an oracle, what needs it
 * is reported as skipped. `.ci/run` installs them all.
 */
export function withPrograms(...programs: readonly string[]): typeof test {
  const missing = programs.some((program) => spawnSync(program, ['--version']).error !== undefined);
  return missing ? (test.skip as typeof test) : test;
}
