/**
 * npm run test:native:sanitize: builds the addon with the sanitizers (cmake-js, into build/sanitize/) and runs the native
 * tests with each. First it makes a fault of each kind (test/native/faults.cc), which must be told of. Then a report that has
 * the addon in a stack, or that cannot be shown to be Node's own, fails the run. Needs g++ with libasan, libubsan and
 * libtsan, cmake, and /dev/kvm.
 *
 *     npm run test:native:sanitize [-- [address|thread] [jest's arguments]]
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { useOwnHeaders } from './node-headers.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const SANITIZERS = {
  address: { flags: 'address,undefined', library: 'libasan.so', faults: ['overrun', 'overflow'] },
  thread: { flags: 'thread', library: 'libtsan.so', faults: ['race'] },
};
const TESTS = ['test/native', 'test/host', 'test/contract/neutral'];

/** A frame of the addon's: the file that is loaded, or, where the sanitizer knows it, the source. */
const OURS = /\b(kvm|faults)\.node|\/native\/\w+\.(cc|h):/;
/**
 * Where a stack is forgotten, the other one must be of these to be Node's own affair: what V8 and Node order by counts in
 * std::shared_ptr, which are atomics of theirs.
 */
const COUNTED = /v8::platform::DefaultJob|node::worker::Message|uv_rwlock_destroy/;

useOwnHeaders();
const args = process.argv.slice(2);
const chosen = args[0] in SANITIZERS ? [args.shift()] : Object.keys(SANITIZERS);
const tests = args.length > 0 ? args : TESTS;

/** What ends the run, after what it made is taken away. */
class Failure extends Error {}

function run(command, commandArgs) {
  const { status, signal, error } = spawnSync(command, commandArgs, { cwd: root, stdio: 'inherit' });
  return error?.message ?? (status === 0 ? undefined : `ended with ${signal ?? status}`);
}

function must(command, commandArgs) {
  const wrong = run(command, commandArgs);
  if (wrong !== undefined) throw new Failure(`${command} ${commandArgs.join(' ')}: ${wrong}`);
}

/** @returns {string[]} what was told in `dir` */
function takeReports(dir) {
  const files = readdirSync(dir).map((name) => join(dir, name));
  const reports = files.flatMap((file) => readFileSync(file, 'utf8').split(/^={18,}$/m));
  for (const file of files) rmSync(file);
  // The last line counts what was told.
  return reports.filter((report) => !/^(ThreadSanitizer: reported \d+ warnings)?$/.test(report.trim()));
}

/**
 * Whether a report is of Node alone: it is not built for ThreadSanitizer, which sees the C library's calls there, but none of
 * the atomics that put them in order. Of a race with the addon one stack at least goes through it.
 */
function isNodes(report) {
  if (OURS.test(report) || !report.includes('ThreadSanitizer: data race')) return false;
  return !report.includes('failed to restore the stack') || COUNTED.test(report);
}

/** Runs Node with the sanitizer of `name`. ThreadSanitizer knows no address space as random as today's kernels make it. */
function sanitized(name, reports, nodeArgs) {
  const { library } = SANITIZERS[name];
  const found = spawnSync('g++', [`-print-file-name=${library}`], { encoding: 'utf8' }).stdout?.trim() ?? '';
  if (!existsSync(found)) throw new Failure(`g++ has no ${library}`);
  const log = `log_path=${join(reports, 'report')}`;
  const env = {
    // node-gyp-build looks for build/Release in the folder that this names.
    ELVISOR_PREBUILD: join(root, 'build/sanitize', name),
    REQUIRE_KVM: '1',
    LD_PRELOAD: found,
    // Node itself leaves at its end what the system takes back.
    // Freed memory is kept back to find uses of it: little enough that what grows is seen.
    ASAN_OPTIONS: `detect_leaks=0:quarantine_size_mb=8:${log}`,
    UBSAN_OPTIONS: `print_stacktrace=1:${log}`,
    // What is told of Node must not change how a process ends. As much history as there can be: a stack that is forgotten
    // would leave open whose access it was; and an address that Node's report was of is told of again.
    TSAN_OPTIONS: `exitcode=0:second_deadlock_stack=1:history_size=7:suppress_equal_addresses=0:${log}`,
  };
  const settings = Object.entries(env).map(([key, value]) => `${key}=${value}`);
  return run('setarch', ['-R', 'env', ...settings, process.execPath, ...nodeArgs]);
}

/** Builds the addon with a sanitizer, runs the tests, and says what it told. */
function check(name) {
  const { flags, faults } = SANITIZERS[name];
  const dir = join(root, 'build/sanitize', name);
  const cmakeJs = join(root, 'node_modules/cmake-js/bin/cmake-js');
  must(process.execPath, [cmakeJs, 'compile', '--out', join(dir, 'build'), `--CDELVISOR_SANITIZE=${flags}`]);
  // Tests run processes of another user, who must be able to tell of faults, too.
  const reports = mkdtempSync(join(tmpdir(), 'elvisor-sanitize-'));
  chmodSync(reports, 0o777);
  try {
    for (const fault of faults) {
      const code = `require(${JSON.stringify(join(dir, 'build/faults/faults.node'))}).${fault}()`;
      // UndefinedBehaviorSanitizer, beside another, writes no file: what it tells of ends the process.
      const wrong = sanitized(name, reports, ['-e', code]);
      const told = takeReports(reports).some((report) => /\bfaults\.(cc|node)/.test(report) && !isNodes(report));
      if (!told && wrong === undefined) {
        throw new Failure(
          `${flags}: says nothing of ${fault}() in test/native/faults.cc: it would see no fault of the addon's either`,
        );
      }
    }
    const wrong = sanitized(name, reports, [
      '--experimental-vm-modules',
      '--no-warnings',
      join(root, 'node_modules/jest/bin/jest.js'),
      '-i',
      // It runs compilers and apt, into which the sanitizer would be loaded too, and nothing of the addon.
      '--testPathIgnorePatterns=/node_modules/|test/native/abi',
      '--',
      ...tests,
    ]);
    const told = takeReports(reports);
    const ours = told.filter((report) => !isNodes(report));
    for (const report of ours) console.error(report);
    if (wrong !== undefined) throw new Failure(`${flags}: jest ${wrong}`);
    if (ours.length > 0) throw new Failure(`${flags}: ${ours.length} reports`);
    const nodes = told.length === 0 ? 'no report' : `all ${told.length} reports are of Node alone`;
    console.log(`sanitize: ${flags}: clean; saw ${faults.join(' and ')} on purpose; ${nodes}`);
  } finally {
    rmSync(reports, { recursive: true, force: true });
  }
}

try {
  for (const name of chosen) check(name);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`sanitize: ${error.message}`);
  process.exitCode = 1;
}
