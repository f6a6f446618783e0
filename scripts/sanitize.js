/**
 * npm run test:native:sanitize: builds the addon with the sanitizers (cmake-js, into build/sanitize/) and runs the native
 * tests with each. A report that has the addon in
 * a stack fails the run. Needs g++ with libasan, libubsan and libtsan, cmake, and /dev/kvm.
 *
 *     npm run test:native:sanitize [-- [address|thread] [jest's arguments]]
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { useOwnHeaders } from './node-headers.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const SANITIZERS = {
  address: { flags: 'address,undefined', library: 'libasan.so' },
  thread: { flags: 'thread', library: 'libtsan.so' },
};
const TESTS = ['test/native', 'test/host', 'test/contract/neutral'];

useOwnHeaders();
const args = process.argv.slice(2);
const chosen = args[0] in SANITIZERS ? [args.shift()] : Object.keys(SANITIZERS);
const tests = args.length > 0 ? args : TESTS;

function must(command, commandArgs, env = {}) {
  const { status, error } = spawnSync(command, commandArgs, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (status === 0) return;
  console.error(`sanitize: ${command} ${commandArgs.join(' ')}: ${error?.message ?? `exit ${status}`}`);
  process.exit(1);
}

/** The reports that have the addon in a stack: Node, which is not built for it, makes ThreadSanitizer tell of its own threads. */
function ofOurs(text) {
  return text.split(/^={18,}$/m).filter((report) => report.includes('kvm.node'));
}

for (const name of chosen) {
  const { flags, library } = SANITIZERS[name];
  const dir = join(root, 'build', 'sanitize', name);
  const reports = join(dir, 'reports');
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports, { recursive: true });
  const cmakeJs = join(root, 'node_modules/cmake-js/bin/cmake-js');
  // node-gyp-build looks for build/Release in the folder that ELVISOR_PREBUILD names.
  must(process.execPath, [cmakeJs, 'compile', '--out', join(dir, 'build'), `--CDELVISOR_SANITIZE=${flags}`]);
  const found = spawnSync('g++', [`-print-file-name=${library}`], { encoding: 'utf8' }).stdout?.trim() ?? '';
  if (!existsSync(found)) {
    console.error(`sanitize: g++ has no ${library}`);
    process.exit(1);
  }
  const log = `log_path=${join(reports, 'report')}`;
  const env = {
    ELVISOR_PREBUILD: dir,
    REQUIRE_KVM: '1',
    LD_PRELOAD: found,
    // Node itself leaves at its end what the system takes back.
    // Freed memory is kept back to find uses of it: little enough that what grows is seen.
    ASAN_OPTIONS: `detect_leaks=0:quarantine_size_mb=8:${log}`,
    UBSAN_OPTIONS: `print_stacktrace=1:${log}`,
    // What is told of Node must not change how a process ends.
    TSAN_OPTIONS: `exitcode=0:second_deadlock_stack=1:${log}`,
  };
  // ThreadSanitizer knows no address space as random as today's kernels make it.
  const jest = [
    '--experimental-vm-modules',
    '--no-warnings',
    join(root, 'node_modules/jest/bin/jest.js'),
    '-i',
    // It runs compilers and apt, into which the sanitizer would be loaded too, and nothing of the addon.
    '--testPathIgnorePatterns=/node_modules/|test/native/abi',
    '--',
    ...tests,
  ];
  const settings = Object.entries(env).map(([key, value]) => `${key}=${value}`);
  must('setarch', ['-R', 'env', ...settings, process.execPath, ...jest]);
  const told = readdirSync(reports).flatMap((file) => ofOurs(readFileSync(join(reports, file), 'utf8')));
  for (const report of told) console.error(report);
  if (told.length > 0) process.exit(1);
  console.log(`sanitize: ${flags}: clean`);
}
