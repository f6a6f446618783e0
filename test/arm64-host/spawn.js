import { spawn, spawnSync } from 'node:child_process';
import { Skip } from './skip.js';

/** @param {string} program @param {string} where the package that has it, in Debian @throws {Skip} */
export function needProgram(program, where) {
  if (spawnSync(program, ['--version'], { stdio: 'ignore' }).error !== undefined) {
    throw new Skip(`there is no ${program} on this machine (Debian: ${where})`);
  }
}

/** @param {string} [program] @returns {number} QEMU's major version @throws {Skip} */
export function qemuVersion(program = 'qemu-system-aarch64') {
  needProgram(program, 'qemu-system-arm');
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return Number(/version (\d+)/.exec(stdout)?.[1] ?? 0);
}

/**
 * Runs a program to its end and gives what it printed.
 * @param {string} program @param {readonly string[]} args @param {import('node:child_process').SpawnOptions} [options]
 * @returns {Promise<string>}
 */
export function run(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.on('error', reject);
    child.on('close', (status) => {
      if (status === 0) resolve(stdout);
      else reject(new Error(`${program} ${args[0] ?? ''} ended with ${status}:\n${(stderr + stdout).slice(-4000)}`));
    });
  });
}
