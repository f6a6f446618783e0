// The suite's rows: what the guest runs, between two marks on its console, and what must come out.
import { createHash } from 'node:crypto';

/** Bytes of /data/text. */
const TEXT_BYTES = 4 << 20;
/** What awk counts of it. */
const AWK_BYTES = 512 << 10;
const TREE_FILES = 1000;

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Marsaglia's xorshift32: the same numbers everywhere. */
function random(seed) {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Lines of made-up words, some of which are frequent: text as compressors and sort like it. */
function makeText() {
  const next = random(1);
  const words = Array.from({ length: 5000 }, () => {
    let word = '';
    for (let length = 2 + next(9); length > 0; length--) word += 'etaoinshrdlucmfwypvbgkqjxz'[next(next(26) + 1)];
    return word;
  });
  let text = '';
  while (text.length < TEXT_BYTES) {
    const line = [];
    for (let n = 3 + next(10); n > 0; n--) line.push(words[next(next(words.length) + 1)]);
    text += `${line.join(' ')}\n`;
  }
  return Buffer.from(text.slice(0, text.lastIndexOf('\n', TEXT_BYTES - 1) + 1), 'latin1');
}

/** What is below /data in the guest: paths and contents. */
export function makeData() {
  const text = makeText();
  const files = new Map([['text', text]]);
  const next = random(2);
  for (let i = 0; i < TREE_FILES; i++) {
    const at = next(text.length - 20000);
    files.set(`tree/${i % 20}/${((i / 20) % 10) | 0}/file${i}`, text.subarray(at, at + next(20000)));
  }
  return files;
}

/** The second disk: every sector says which it is. */
export function makeDisk() {
  const disk = Buffer.alloc(64 << 20);
  for (let at = 0; at < disk.length; at += 512) disk.writeBigUInt64LE(BigInt(at) * 0x9e3779b1n, at);
  return disk;
}

const PYTHON = `
def sieve(n):
    marks = bytearray([1]) * n
    for i in range(2, int(n ** 0.5) + 1):
        if marks[i]:
            marks[i*i::i] = bytes(len(range(i*i, n, i)))
    return sum(marks) - 2
class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None
def insert(root, key):
    while True:
        side = 'left' if key < root.key else 'right'
        below = getattr(root, side)
        if below is None:
            setattr(root, side, Node(key))
            return
        root = below
def depth(node):
    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))
root, key = Node(500000), 1
for _ in range(8000):
    key = key * 48271 % 2147483647
    insert(root, key % 1000000)
words = {}
for line in open('/data/text').read().split('\\n')[:12000]:
    for word in line.split():
        words[word] = words.get(word, 0) + 1
top = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:3]
print(sieve(300000), depth(root), sum(x * x % 7 for x in range(200000)), len(words), top[0][1])
`;
const PYTHON_FLOATS = `
x, y, total = 0.1, 0.2, 0.0
for i in range(200000):
    x = x * 3.7 * (1.0 - x)
    y = y + x / (i + 1.0)
    total += x * y - 0.5
print('%.9f %.9f' % (y, total / 200000))
`;
const LUA = `
local function dot(a, b) local s = 0.0 for i = 1, #a do s = s + a[i] * b[i] end return s end
local n, a, b = 60, {}, {}
for i = 1, n do a[i], b[i] = {}, {} for j = 1, n do a[i][j] = (i * j % 7) / 3.0; b[i][j] = (i + j % 5) / 2.0 end end
local sum = 0.0
for round = 1, 12 do for i = 1, n do for j = 1, n do sum = sum + dot(a[i], b[j]) end end end
print(string.format('%.6f', sum))
`;
const SQL = `
PRAGMA journal_mode=OFF;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price INTEGER, kind INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
  INSERT INTO item SELECT i, 'item' || (i * 7919 % 20011), i * 31 % 1009, i % 17 FROM n;
CREATE INDEX by_price ON item(price);
SELECT kind, count(*), sum(price) FROM item WHERE price BETWEEN 100 AND 500 GROUP BY kind ORDER BY 3 DESC LIMIT 2;
SELECT count(*) FROM item a JOIN item b ON a.price = b.price WHERE a.id < 2000 AND b.kind = 3;
SELECT name FROM item ORDER BY name LIMIT 1 OFFSET 9000;
UPDATE item SET price = price + 1 WHERE kind = 5;
SELECT sum(price) FROM item WHERE name LIKE '%99%';
`;
const AWK = `
{ for (i = 1; i <= NF; i++) { seen[$i]++; letters += length($i) } if ($1 ~ /^t[aeiou]/) hits++ }
END { for (w in seen) n++; print NR, n, letters, hits }
`;

/** Files below /bench in the guest that the rows use. */
export const SCRIPTS = {
  'benchmark.py': PYTHON,
  'floats.py': PYTHON_FLOATS,
  'dot.lua': LUA,
  'queries.sql': SQL,
  'count.awk': AWK,
};

const COPY_TEXT = 'cp /data/text /tmp/text';
const COLD = 'echo 3 >/proc/sys/vm/drop_caches';
const plain = (command) => `OPENSSL_armcap=1 ${command}`;

/**
 * The rows. `run` is sh, measured; `setup` is sh, before it, not measured. `expect` is what `run` prints (without the last
 * newline); a function gets what {@link makeData} made. `console` names the one that `run` writes to, and how many bytes of the text.
 */
export const ROWS = [
  // Integer.
  row('list', 'integer', 'a linked list sorted, searched, reversed', 'integer list 2500', '22c13ae81305f76b'),
  row('matrix', 'integer', 'products of 16-bit matrices', 'integer matrix 5000', '1bcb69d0133ebd6a'),
  row('state', 'integer', 'a state machine over text', 'integer state 20000', 'c61c8119318ef68d'),
  row('crc', 'integer', 'CRC-16 by bits, CRC-32 by a table', 'integer crc 70000', '000042c0cfbdd7e9'),
  {
    ...tool('gzip', 'integer', 'gzip -6 of 4 MiB of text, and back'),
    setup: COPY_TEXT,
    run: 'gzip -6 </tmp/text | gzip -d | sha256sum',
    expect: (data) => `${sha256(data.get('text'))}  -`,
  },
  {
    ...tool('zstd', 'integer', 'zstd -5 of 4 MiB of text, and back'),
    setup: COPY_TEXT,
    run: 'zstd -5 -q -T1 -c /tmp/text | zstd -d -q | sha256sum',
    expect: (data) => `${sha256(data.get('text'))}  -`,
  },
  {
    ...tool('sort', 'integer', 'sort of the lines of 4 MiB of text'),
    setup: COPY_TEXT,
    run: 'LC_ALL=C sort --parallel=1 /tmp/text | sha256sum',
    expect: (data) => `${sha256(sortLines(data.get('text')))}  -`,
  },
  {
    ...tool('sqlite3', 'integer', 'sqlite3: a table of 20,000 rows, an index, queries'),
    run: 'sqlite3 :memory: </bench/queries.sql',
    expect: 'off\n8|470|141363\n7|470|141248\n2333\nitem18101\n279635',
  },
  // Cryptography.
  row('sha256', 'crypto', 'SHA-256, with the extension', 'crypto sha256 3000', '970a57f5c1d90672'),
  row('sha256-plain', 'crypto', 'SHA-256, without', plain('crypto sha256 800'), 'a01554783692d5ef'),
  row('aes-gcm', 'crypto', 'AES-256-GCM, with the extensions', 'crypto aes-gcm 1000', '53a1cbff8f116793'),
  row('aes-gcm-plain', 'crypto', 'AES-256-GCM, without', plain('crypto aes-gcm 150'), '86e5b5bedd7ca468'),
  row('rsa2048', 'crypto', 'RSA-2048 signatures', 'crypto rsa2048 200', 'b0e8dc6f3ee80128'),
  // Floating point.
  row('matmul', 'floating point', 'products of float matrices, scalar', 'floating matmul 500', '40efc64ace620000'),
  row('matmul-neon', 'floating point', 'the same with NEON', 'floating matmul-neon 800', '40efca963ebe0000'),
  row('fft', 'floating point', 'FFT of 4,096 doubles', 'floating fft 400', '4056f1374bbd9d02'),
  row('mandelbrot', 'floating point', 'the Mandelbrot set in doubles', 'floating mandelbrot 700', '000000000151f6a7'),
  row('bodies', 'floating point', 'five bodies: division, square root', 'floating bodies 600000', 'c0c5b9648edc54bd'),
  { ...tool('lua', 'floating point', 'lua: dot products'), run: 'lua5.4 /bench/dot.lua', expect: '36868259.999997' },
  {
    ...tool('python-floats', 'floating point', 'python3: a float loop'),
    run: 'python3 /bench/floats.py',
    expect: '8.451837988 4.698213650',
  },
  // Branches and calls.
  row('recursion', 'calls', 'fib(36)', 'calls recursion 36', '0000000000e3d1b0'),
  row('pointers', 'calls', 'calls through pointers', 'calls pointers 30000000', '759241fe0ab34889'),
  row('interpreter', 'calls', "a stack machine's switch", 'calls interpreter 3000000', '6db6db6db6db6d4d'),
  {
    ...tool('python', 'calls', 'python3: sieve, tree, words'),
    run: 'python3 /bench/benchmark.py',
    expect: '25997 30 399999 4455 294',
  },
  {
    ...tool('awk', 'calls', 'busybox awk: words of 512 KiB of text'),
    setup: `head -c ${AWK_BYTES} /data/text >/tmp/text`,
    run: 'busybox awk -f /bench/count.awk /tmp/text',
    expect: (data) => countWords(data.get('text').subarray(0, AWK_BYTES)),
  },
  // Memory.
  row('copy', 'memory', 'memcpy, 64 KiB to 4 MiB', 'memory copy 6000', '47aa03874ee888f7'),
  row('chase', 'memory', 'a random chase through 64 MiB', 'memory chase 6000000', '00000000000cae1c'),
  row('stride', 'memory', 'sums over 8 MiB with strides', 'memory stride 150', '278a906873365c4b'),
  // System.
  row('fork-exec', 'system', 'fork, exec and wait', 'system fork-exec 200', hex(200)),
  row('ping-pong', 'system', 'two processes and two pipes', 'system ping-pong 5000', 'bb18f14c90da37d0'),
  row('getpid', 'system', 'getpid', 'system getpid 60000', hex(60000)),
  row('faults', 'system', 'pages touched for the first time', 'system faults 25000', '0000000000006849'),
  row('maps', 'system', 'mmap, touch, munmap', 'system maps 5000', '0000000000099a5c'),
  row('switches', 'system', 'four processes that yield', 'system switches 10000', hex(40000)),
  // Devices.
  row('blk-read', 'devices', 'virtio-blk, 1 MiB after the other', 'devices sequential 1000', 'b1c0ad2234000000'),
  row('blk-random', 'devices', 'virtio-blk, 4 KiB from anywhere', 'devices scattered 3000', 'c1aba07072c40000'),
  row('mmio', 'devices', "a device's register read", 'devices mmio 2000000', '000000000b903480'),
  {
    ...tool('uart', 'devices', '512 KiB to the PL011'),
    setup: 'head -c 524288 /data/text >/tmp/text',
    run: 'cat /tmp/text >/dev/ttyAMA0',
    console: { name: 'serial', bytes: 524288 },
    expect: '',
  },
  {
    ...tool('hvc', 'devices', '512 KiB to the virtio console'),
    setup: 'head -c 524288 /data/text >/tmp/text',
    run: 'exec 3<>/dev/hvc0; stty raw -echo -opost <&3; cat /tmp/text >&3',
    console: { name: 'hvc0', bytes: 524288 },
    expect: '',
  },
  {
    ...tool('port', 'devices', '10 MiB to a virtio-console port'),
    setup: 'cat /data/text /data/text /data/text | head -c 10485760 >/tmp/text',
    run: 'cat /tmp/text >$(echo /dev/vport*p1)',
    console: { name: 'port', bytes: 10485760 },
    expect: '',
  },
  // Several CPUs.
  ...[2, 4].flatMap((cpus) => [
    {
      ...row(`timers-${cpus}`, 'CPUs', `sleeps of 20 us on ${cpus} vCPUs`, `smp timers ${4000 / cpus}`, hex(4000)),
      cpus,
    },
    {
      ...row(`wakeups-${cpus}`, 'CPUs', `a token round ${cpus} vCPUs`, `smp wakeups ${4000 / cpus}`, hex(4000)),
      cpus,
    },
    {
      ...row(`ipis-${cpus}`, 'CPUs', `barriers on ${cpus} vCPUs by IPI`, `smp ipis ${800 / cpus}`, hex(800 / cpus)),
      cpus,
    },
  ]),
  // A file system.
  {
    ...tool('find', 'files', 'find / of a cold ext4'),
    setup: COLD,
    run: 'find /data/tree -type f -size +0 | wc -l; find / -xdev >/dev/null',
    expect: (data) => String([...data].filter(([name, bytes]) => name.startsWith('tree/') && bytes.length > 0).length),
  },
  {
    ...tool('tar', 'files', 'tar of 1,000 files, and a checksum'),
    setup: COLD,
    run: 'tar -c --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=644 --format=ustar -C /data tree | cksum',
    expect: '2589158384 11089920',
  },
];

/** What limits elvisor, by row, where a profile has shown it. */
export const LIMITS = {
  stride: 'more pages than the first level of the translation tables holds: each miss is a look into the second',
  chase: 'the host’s caches: each load is a look into two translation tables and then a miss in memory',
  mmio: 'some nine calls in TypeScript lead from compiled code to the device and back',
  'fork-exec': 'kernel code: two fifths in the interpreter, a tenth in walks and in finding code again after TLBI',
  maps: 'kernel code: a third in the interpreter, a twentieth in walks and in finding code again after TLBI',
  'blk-read': 'kernel code: a third in the interpreter; a seventh is reading the file',
  'blk-random': 'kernel code: a third in the interpreter; a twentieth is reading the file',
  port: 'kernel code: a quarter in the interpreter; a tenth is handing the bytes on',
  'timers-2': 'kernel code: a third in the interpreter, for each path is run about as often as makes it hot',
  'wakeups-2': 'kernel code: a third in the interpreter, for each path is run about as often as makes it hot',
  'timers-4':
    'kernel code: half in compiled code, two fifths of it from V8’s baseline compiler; a quarter in V8 itself',
  'wakeups-4':
    'kernel code: half in compiled code, two fifths of it from V8’s baseline compiler; a quarter in V8 itself',
  'ipis-2': 'a third in the interpreter; too short a run for the rest to be more than start-up',
  python: 'more than a quarter in the interpreter: code that is spread wide, calls and indirect branches',
  lua: 'code across pages: from region to region every dozen instructions, two thirds by direct branches',
  sqlite3: 'from region to region every dozen instructions; a seventh is interpreted while it is compiled',
  awk: 'calls across pages: from region to region every 14 instructions',
  zstd: 'one large region of compiled code; a sixth in the interpreter',
  rsa2048:
    'bignum loops: a product of 64 by 64 bits is four multiplications in WebAssembly, and V8 keeps half of the registers on its stack',
  pointers: 'from region to region twice a call: by the pointer, and back',
  interpreter: 'one region of compiled code, which is hardly ever left',
  list: 'loads and stores one by one: a third of the compiled code’s time is looks into the translation tables',
  crc: 'two loops with a load for each byte: a third of the compiled code’s time is looks into the translation tables',
  copy: 'two fifths in the copying loop; a fifth in TypeScript, half of that in walks of the guest’s tables',
};

/** The same work in growing amounts, for the plot of time against guest instructions: about 0.1 to 10 G of them. */
export const LINEAR = [
  [420, '03d773339b3ca82b'],
  [1260, '7704c681977ac4e3'],
  [4200, '2a0865da55909489'],
  [12600, '916c63e5cbae8960'],
  [42000, '8f973718b557e1f2'],
].map(([count, result]) => row(`linear-${count}`, 'linear', '', `integer list ${count}`, result));

/** Code that is written, run and discarded, again and again: see generate.js. */
export const GENERATE = row(
  'generate',
  'generate',
  'code that never was before',
  'generate code 10',
  'bc9b0bb3f05d294c',
);

/** A kernel module that is loaded and removed, again and again: the default guest's own, which is seen through its init's root. */
const TIMES = 50;
export const MODULES = {
  name: 'modules',
  group: 'generate',
  what: 'a kernel module loaded and removed',
  cpus: 1,
  run: `
set -e
root=/proc/1/root
module=$(echo $root/lib/modules/*/kernel/drivers/char/hw_random/virtio-rng.ko)
i=0
while [ $i -lt ${TIMES} ]; do
  $root/bin/busybox rmmod virtio_rng
  $root/bin/busybox insmod $module
  i=$((i + 1))
done
echo $i`,
  expect: String(TIMES),
};

/** A row of one of the project's own programs, which says what it ran and what came out. */
function row(name, group, what, command, result) {
  const kernel = command.split(' ').at(-2);
  return { name, group, what, cpus: 1, run: `PATH=/bench:$PATH ${command}`, expect: `${kernel} ${result}` };
}

/** A row of a program from Debian. */
function tool(name, group, what) {
  return { name, group, what, cpus: 1 };
}

function hex(n) {
  return n.toString(16).padStart(16, '0');
}

function sortLines(text) {
  const lines = text.toString('latin1').trimEnd().split('\n').sort();
  return Buffer.from(`${lines.join('\n')}\n`, 'latin1');
}

/** What count.awk counts. */
function countWords(text) {
  const lines = text.toString('latin1').trimEnd().split('\n');
  const words = lines.flatMap((line) => line.split(' '));
  const hits = lines.filter((line) => /^t[aeiou]/.test(line)).length;
  return [lines.length, new Set(words).size, words.reduce((sum, word) => sum + word.length, 0), hits].join(' ');
}
