/**
 * What the guest runs: other people's tests of a processor, from Debian's packages, and known answers where a package has no
 * test of itself. Each is a shell script that ends with status 0 where all is well, and prints what it did.
 *
 * @typedef {object} Check
 * @property {string} name
 * @property {string} run in the guest, by its shell
 * @property {RegExp} says must be in what it prints: a test that runs nothing is no success
 * @property {number} [cpus] 1 if not given
 */

/** Python's tests of itself (libpython3.N-testsuite): floating point, big integers, hashes. */
const PYTHON = ['cmath', 'complex', 'decimal', 'float', 'fractions', 'hashlib', 'int', 'long', 'math', 'statistics'];
PYTHON.push('strtod', 'struct', 'zlib');

/** Of stress-ng, each with `--verify`: what it computes is compared with what it must be. How often, so that the time is bounded. */
const STRESS = {
  cpu: ['--cpu-method all', 90],
  matrix: ['--matrix-method all --matrix-size 64', 60],
  'matrix-3d': ['--matrix-3d-method all --matrix-3d-size 32', 40],
  vecmath: ['', 20],
  vecwide: ['', 20],
  vecfp: ['--vecfp-method all', 20],
  fp: ['--fp-method all', 40],
  atomic: ['', 100],
  crypt: ['', 20],
  hash: ['--hash-method all', 40],
  funccall: ['--funccall-method longdouble', 40],
  goto: ['', 100],
  memcpy: ['--memcpy-method all', 20],
  str: ['--str-method all', 40],
  wcs: ['--wcs-method all', 40],
  qsort: ['--qsort-size 65536', 4],
  bsearch: ['--bsearch-size 65536', 4],
  vm: ['--vm-bytes 8M --vm-method all', 40],
  nop: ['--nop-instr random', 40],
  icache: ['', 200],
  jpeg: ['--jpeg-height 256 --jpeg-width 256', 4],
  zlib: ['--zlib-method random', 4],
  mmap: ['--mmap-bytes 4M', 4],
  signest: ['', 20],
  sigfpe: ['', 200],
  sigsegv: ['', 200],
};

/** Those whose point is that there are several of them. */
const STRESS_SMP = {
  atomic: ['', 100],
  futex: ['', 500],
  mutex: ['', 500],
  membarrier: ['', 20],
  lockbus: ['', 20],
};

const stress =
  (smp) =>
  ([name, [options, ops]]) => ({
    name: `stress-ng ${name}${smp ? ', two vCPUs' : ''}`,
    cpus: smp ? 2 : 1,
    run: `cd /tmp && stress-ng --verify --no-rand-seed --timeout 0 --${name} ${smp ? 2 : 1} --${name}-ops ${ops} ${options} 2>&1`,
    says: /successful run completed/,
  });

/** Programs of rt-tests on two vCPUs: what processes tell each other, and priorities that are inherited. Some are quiet where all is well. */
const RT = {
  pi_stress: 'pi_stress --quiet --groups=1 --inversions=2000 --duration=60',
  ptsematest: 'ptsematest --smp --loops=500 --quiet',
  svsematest: 'svsematest --smp --loops=500 --quiet',
  sigwaittest: 'sigwaittest --smp --loops=500 --quiet',
  signaltest: 'signaltest --threads=4 --loops=2000 --quiet',
};
const rt = ([name, command]) => ({
  name: `rt-tests ${name}`,
  cpus: 2,
  run: `cd /tmp && ${command} 2>&1 && echo "${name} is done"`,
  says: new RegExp(`^${name} is done$`, 'm'),
});

/** Loads modules of Debian's full kernel that test themselves, or the kernel, as they are loaded. */
const module = (name, says) => ({
  name: `kernel ${name}`,
  run: `depmod -a && busybox dmesg -n 1 && { modprobe ${name}; busybox dmesg -r; }`,
  says,
});

/** @type {readonly Check[]} */
export const CHECKS = [
  ...PYTHON.map((name) => ({
    name: `python ${name}`,
    run: `cd /tmp && python3 -m test test_${name} 2>&1`,
    says: /Tests result: SUCCESS/,
  })),
  { name: 'gmp', run: 'python3 /checks/gmp.py', says: /\d+ identities hold/ },
  { name: 'openssl known answers', run: 'sh /checks/openssl-answers.sh', says: /\d+ answers are right/ },
  {
    name: 'openssl with and without instructions',
    run: 'sh /checks/openssl-paths.sh',
    says: /\d+ results are the same/,
  },
  ...Object.entries(STRESS).map(stress(false)),
  ...Object.entries(STRESS_SMP).map(stress(true)),
  ...Object.entries(RT).map(rt),
  module('test_bpf', /test_bpf: Summary: \d+ PASSED, 0 FAILED/),
  module('test_user_copy', /test_user_copy: tests passed/),
  {
    name: 'kernel static keys',
    run: 'depmod -a && modprobe test_static_keys && echo loaded',
    says: /^loaded$/m,
  },
  {
    name: 'kernel crypto',
    run: 'sh /checks/crypto.sh',
    says: /\d+ implementations passed their self-tests, 0 failed/,
  },
];
