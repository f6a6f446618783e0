import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { type Cpu, CpuStop, type Machine, type MachineMemory } from '#lib/soft/cpu/cpu.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { Random } from './random.ts';

/** Whole algorithms, made of the cryptographic instructions as their users do, against Node's own. */

const CODE = 0x4000_0000;
const HVC = 0xd4000002;
const CPACR_EL1 = sysregIndex(3, 0, 1, 0, 2);

/** An instruction with registers in the usual places. */
const op = (base: number, d: number, n: number, m = 0): number => (base | d | (n << 5) | (m << 16)) >>> 0;
const aese = (d: number, n: number): number => op(0x4e284800, d, n);
const aesd = (d: number, n: number): number => op(0x4e285800, d, n);
const aesmc = (d: number, n: number): number => op(0x4e286800, d, n);
const aesimc = (d: number, n: number): number => op(0x4e287800, d, n);
const eor = (d: number, n: number, m: number): number => op(0x6e201c00, d, n, m);
const mov = (d: number, n: number): number => op(0x4ea01c00, d, n, n);
const add4s = (d: number, n: number, m: number): number => op(0x4ea08400, d, n, m);
const add2d = (d: number, n: number, m: number): number => op(0x4ee08400, d, n, m);
const ext8 = (d: number, n: number, m: number): number => op(0x6e004000, d, n, m);

const little = (bytes: Uint8Array): bigint => bytes.reduceRight((sum, b) => (sum << 8n) | BigInt(b), 0n);
const bytesOf = (value: bigint, count = 16): Uint8Array =>
  Uint8Array.from({ length: count }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
const randomBytes = (random: Random, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, () => random.below(256));

let machine: Machine;
let memory: MachineMemory;
let cpu: Cpu;

beforeAll(() => {
  machine = createMachine();
  const allocated = machine.allocate(0x2000);
  if (allocated === undefined) throw new Error('no memory');
  memory = allocated;
  machine.map(CODE, memory.size, memory, 0, false);
  cpu = machine.createCpu({ readSysreg: () => undefined, writeSysreg: () => false });
});
afterAll(() => machine?.close());

/** Runs the instructions on V registers and gives back all of them. */
function run(words: readonly number[], v: readonly bigint[]): bigint[] {
  memory.bytes.set(new Uint8Array(Uint32Array.from([...words, HVC]).buffer));
  memory.invalidate(0, memory.size);
  cpu.reset();
  cpu.setSysreg(CPACR_EL1, 3n << 20n);
  v.forEach((value, n) => {
    cpu.setV(n, value);
  });
  cpu.setPc(BigInt(CODE));
  expect(cpu.run(100_000)).toBe(CpuStop.HVC);
  return Array.from({ length: 32 }, (_, n) => cpu.getV(n));
}

describe('AES-128', () => {
  /** The round keys (FIPS 197 §5.2); SubWord is AESE of a column in all four, which ShiftRows then leaves alone. */
  function expandKey(key: Uint8Array): bigint[] {
    const words = Array.from({ length: 4 }, (_, i) => new DataView(key.buffer).getUint32(4 * i, true));
    let constant = 1;
    for (let i = 4; i < 44; i++) {
      let t = words[i - 1]!;
      if (i % 4 === 0) {
        const column = BigInt(t);
        const same = column | (column << 32n) | (column << 64n) | (column << 96n);
        const substituted = Number(run([aese(0, 1)], [same, 0n])[0]! & 0xffff_ffffn);
        t = ((substituted >>> 8) | (substituted << 24)) ^ constant;
        constant = (constant << 1) ^ (constant & 0x80 ? 0x11b : 0);
      }
      words.push((words[i - 4]! ^ t) >>> 0);
    }
    return Array.from({ length: 11 }, (_, r) =>
      little(new Uint8Array(Uint32Array.from(words.slice(4 * r, 4 * r + 4)).buffer)),
    );
  }

  test('encrypts and decrypts blocks as Node does', () => {
    const random = new Random();
    for (let n = 0; n < 20; n++) {
      const key = randomBytes(random, 16);
      const block = randomBytes(random, 16);
      const keys = expandKey(key);
      const v = [little(block), ...keys];
      const encrypt: number[] = [];
      for (let r = 1; r <= 10; r++) encrypt.push(aese(0, r), ...(r < 10 ? [aesmc(0, 0)] : []));
      const encrypted = bytesOf(run([...encrypt, eor(0, 0, 11)], v)[0]!);
      const cipher = createCipheriv('aes-128-ecb', key, null).setAutoPadding(false);
      expect([...encrypted]).toEqual([...cipher.update(block)]);

      // The equivalent inverse cipher (§5.3.5): round keys 1 to 9 through InvMixColumns.
      const decrypt: number[] = [];
      for (let r = 2; r <= 10; r++) decrypt.push(aesimc(r, r));
      for (let r = 11; r >= 2; r--) decrypt.push(aesd(0, r), ...(r > 2 ? [aesimc(0, 0)] : []));
      const decrypted = bytesOf(run([...decrypt, eor(0, 0, 1)], [little(encrypted), ...keys])[0]!);
      const decipher = createDecipheriv('aes-128-ecb', key, null).setAutoPadding(false);
      expect([...decrypted]).toEqual([...decipher.update(encrypted)]);
    }
  });
});

describe('hashes of one block', () => {
  /** The message padded to one block, in big-endian words of `size` bytes, four or two to a vector. */
  function padded(message: Uint8Array, size: 4 | 8): bigint[] {
    const block = new Uint8Array(size * 16);
    block.set(message);
    block[message.length] = 0x80;
    new DataView(block.buffer).setUint32(block.length - 4, message.length * 8);
    return swapped(block, size);
  }
  /** Vectors of bytes whose words are turned from big-endian to the registers' order. */
  function swapped(bytes: Uint8Array, size: 4 | 8): bigint[] {
    const turned = bytes.map((_, i) => bytes[i ^ (size - 1)]!);
    return Array.from({ length: bytes.length / 16 }, (_, i) => little(turned.slice(16 * i, 16 * i + 16)));
  }
  const wordsToVectors = (words: readonly bigint[], bits: bigint): bigint[] => {
    const each = Number(128n / bits);
    return Array.from({ length: words.length / each }, (_, i) =>
      words.slice(i * each, i * each + each).reduceRight((sum, w) => (sum << bits) | w, 0n),
    );
  };
  const primes = (count: number): bigint[] => {
    const out: bigint[] = [];
    for (let n = 2n; out.length < count; n++) if (out.every((p) => n % p !== 0n)) out.push(n);
    return out;
  };
  /** The first `bits` bits after the point of the square or cube root (FIPS 180-4 §4.2, §5.3). */
  const fractionOfRoot = (n: bigint, power: bigint, bits: bigint): bigint => {
    const scaled = n << (bits * power);
    let low = 0n;
    let high = 1n << (bits + 16n);
    while (high - low > 1n) {
      const middle = (low + high) >> 1n;
      if (middle ** power <= scaled) low = middle;
      else high = middle;
    }
    return BigInt.asUintN(Number(bits), low);
  };
  const messages = (random: Random, most: number): Uint8Array[] => [
    new Uint8Array(0),
    ...Array.from({ length: 8 }, () => randomBytes(random, random.below(most + 1))),
  ];

  test('SHA-1', () => {
    const initial = wordsToVectors([0x67452301n, 0xefcdab89n, 0x98badcfen, 0x10325476n], 32n)[0]!;
    const constants = [0x5a827999n, 0x6ed9eba1n, 0x8f1bbcdcn, 0xca62c1d6n].map(
      (k) => wordsToVectors([k, k, k, k], 32n)[0]!,
    );
    // V0 abcd, V1 and V2 e, V4..V7 the schedule, V8..V11 the constants, V12 and V13 for sums and sources.
    const words: number[] = [];
    const rounds = [0x5e000000, 0x5e001000, 0x5e002000, 0x5e001000];
    for (let i = 0; i < 20; i++) {
      const w = 4 + (i % 4);
      const [now, next] = i % 2 === 0 ? [1, 2] : [2, 1];
      words.push(
        add4s(12, w, 8 + Math.floor(i / 5)),
        op(0x5e280800, next, 0),
        op(rounds[Math.floor(i / 5)]!, 0, now, 12),
      );
      if (i < 16) {
        words.push(op(0x5e003000, w, 4 + ((i + 1) % 4), 4 + ((i + 2) % 4)), op(0x5e281800, w, 4 + ((i + 3) % 4)));
      }
    }
    const random = new Random();
    for (const message of messages(random, 55)) {
      const v = [initial, 0xc3d2e1f0n, 0n, 0n, ...padded(message, 4), ...constants];
      const [abcd, e] = run([...words, add4s(0, 0, 14), add4s(1, 1, 15)], [...v, 0n, 0n, initial, 0xc3d2e1f0n]) as [
        bigint,
        bigint,
      ];
      const digest = [...bytesOf(abcd), ...bytesOf(e, 4)].map((_, i, all) => all[i ^ 3]!);
      expect(digest).toEqual([...createHash('sha1').update(message).digest()]);
    }
  });

  test('SHA-256', () => {
    const initial = wordsToVectors(
      primes(8).map((p) => fractionOfRoot(p, 2n, 32n)),
      32n,
    );
    const constants = wordsToVectors(
      primes(64).map((p) => fractionOfRoot(p, 3n, 32n)),
      32n,
    );
    // V0 abcd, V1 efgh, V4..V7 the schedule, V8..V23 the constants.
    const words: number[] = [];
    for (let i = 0; i < 16; i++) {
      const w = 4 + (i % 4);
      words.push(add4s(2, w, 8 + i), mov(3, 0), op(0x5e004000, 0, 1, 2), op(0x5e005000, 1, 3, 2));
      if (i < 12) {
        words.push(op(0x5e282800, w, 4 + ((i + 1) % 4)), op(0x5e006000, w, 4 + ((i + 2) % 4), 4 + ((i + 3) % 4)));
      }
    }
    const random = new Random();
    for (const message of messages(random, 55)) {
      const v = [...initial, 0n, 0n, ...padded(message, 4), ...constants, ...initial];
      const [abcd, efgh] = run([...words, add4s(0, 0, 24), add4s(1, 1, 25)], v) as [bigint, bigint];
      const digest = [...bytesOf(abcd), ...bytesOf(efgh)].map((_, i, all) => all[i ^ 3]!);
      expect(digest).toEqual([...createHash('sha256').update(message).digest()]);
    }
  });

  test('SHA-512', () => {
    const initial = wordsToVectors(
      primes(8).map((p) => fractionOfRoot(p, 2n, 64n)),
      64n,
    );
    const constants = wordsToVectors(
      primes(80).map((p) => fractionOfRoot(p, 3n, 64n)),
      64n,
    );
    const sha512h = (d: number, n: number, m: number): number => op(0xce608000, d, n, m);
    const sha512h2 = (d: number, n: number, m: number): number => op(0xce608400, d, n, m);
    const random = new Random();
    for (const message of messages(random, 111)) {
      // V0 ab, V1 cd, V2 ef, V3 gh, V4 new, V8..V15 the schedule, V16 the constants, V20..V22 for work.
      let v = [...initial, 0n, 0n, 0n, 0n, ...padded(message, 8), ...Array.from({ length: 16 }, () => 0n)];
      for (let i = 0; i < 40; i++) {
        const w = 8 + (i % 8);
        v[16] = constants[i]!;
        const words = [
          add2d(20, w, 16),
          ext8(20, 20, 20),
          ext8(21, 2, 3),
          ext8(22, 1, 2),
          add2d(3, 3, 20),
          sha512h(3, 21, 22),
          add2d(4, 1, 3),
          sha512h2(3, 1, 0),
          // The next round's ab, cd, ef, gh.
          mov(23, 2),
          mov(1, 0),
          mov(0, 3),
          mov(2, 4),
          mov(3, 23),
          // The schedule eight double words on.
          op(0xcec08000, w, 8 + ((i + 1) % 8)),
          ext8(20, 8 + ((i + 4) % 8), 8 + ((i + 5) % 8)),
          op(0xce608800, w, 8 + ((i + 7) % 8), 20),
        ];
        v = run(words, v);
      }
      const sum = run(
        [0, 1, 2, 3].map((n) => add2d(n, n, 24 + n)),
        [...v.slice(0, 24), ...initial],
      );
      const digest = sum
        .slice(0, 4)
        .flatMap((x) => [...bytesOf(x)])
        .map((_, i, all) => all[i ^ 7]!);
      expect(digest).toEqual([...createHash('sha512').update(message).digest()]);
    }
  });
});

describe('polynomial multiplication', () => {
  const pmull = (d: number, n: number, m: number): number => op(0x0ee0e000, d, n, m);

  test('PMULL of double words is the carry-less product', () => {
    const random = new Random();
    for (let n = 0; n < 50; n++) {
      const [a, b] = [random.interesting64(), random.interesting64()];
      let product = 0n;
      for (let bit = 0n; bit < 64n; bit++) if ((b >> bit) & 1n) product ^= a << bit;
      expect(run([pmull(0, 1, 2)], [0n, a, b])[0]).toBe(product);
      // The same of the high halves.
      expect(run([(pmull(0, 1, 2) | (1 << 30)) >>> 0], [0n, a << 64n, b << 64n])[0]).toBe(product);
    }
  });
});
