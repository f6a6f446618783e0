#!/usr/bin/env node
/**
 * Fetches what tests compare with and an older distribution does not have: QEMU 9, for memory copies (FEAT_MOPS).
 *
 *   npm run fetch:oracles
 *
 * It goes into the user's cache directory, where the tests look for it. Status 77: it cannot be had, and they are skipped by name.
 */
import { execFileSync } from 'node:child_process';
import { fetchNewerQemu, oracleCache } from './newer-qemu.js';

const SKIPPED = 77;

try {
  const program = await fetchNewerQemu('user', oracleCache());
  console.log(execFileSync(program, ['--version'], { encoding: 'utf8' }).split('\n', 1)[0]);
} catch (error) {
  console.error(`fetch:oracles: the tests of memory copies need QEMU 9, and ${error.message}`);
  process.exitCode = SKIPPED;
}
