import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What an instruction under test finds: V0..V3, X1, X2 (X0 is all ones), NZCV in bits 31..28, FPCR and FPSR. */
export interface FpCase {
  readonly word: number;
  readonly nzcv: number;
  readonly fpcr: number;
  readonly fpsr: number;
  readonly x1: bigint;
  readonly x2: bigint;
  readonly v: readonly [bigint, bigint, bigint, bigint];
}

/** What it leaves: X0, V0, NZCV and FPSR. */
export interface FpOutcome {
  readonly x0: bigint;
  readonly v0: bigint;
  readonly nzcv: number;
  readonly fpsr: number;
}

const CASE_SIZE = 96;
const OUTCOME_SIZE = 32;
const MAX_CASES = 500_000;

/** Debian's qemu-aarch64-static as the reference, behind a small assembly program that is built on first use. */
export class QemuOracle {
  readonly #directory = mkdtempSync(join(tmpdir(), 'elvisor-fp-oracle-'));
  readonly #program = join(this.#directory, 'oracle');

  /** @throws Error where the Debian packages qemu-user-static and gcc-aarch64-linux-gnu are not installed */
  constructor() {
    const source = fileURLToPath(new URL('./fp-oracle.S', import.meta.url));
    execFileSync('aarch64-linux-gnu-gcc', ['-nostdlib', '-static', '-march=armv8-a', '-o', this.#program, source]);
  }

  close(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  run(cases: readonly FpCase[]): FpOutcome[] {
    if (cases.length === 0 || cases.length > MAX_CASES) throw new RangeError(`${cases.length} cases at once`);
    const index = new Map<number, number>();
    for (const c of cases) if (!index.has(c.word)) index.set(c.word, index.size);
    const start = (16 + index.size * 4 + 15) & ~15;
    const input = Buffer.alloc(start + cases.length * CASE_SIZE);
    input.writeUInt32LE(index.size, 0);
    input.writeUInt32LE(cases.length, 4);
    for (const [word, i] of index) input.writeUInt32LE(word, 16 + i * 4);
    const wide = (value: bigint, at: number): void => {
      input.writeBigUInt64LE(BigInt.asUintN(64, value), at);
      input.writeBigUInt64LE(BigInt.asUintN(64, value >> 64n), at + 8);
    };
    cases.forEach((c, n) => {
      const at = start + n * CASE_SIZE;
      input.writeUInt32LE(index.get(c.word) ?? 0, at);
      input.writeUInt32LE(c.nzcv >>> 0, at + 4);
      input.writeUInt32LE(c.fpcr, at + 8);
      input.writeUInt32LE(c.fpsr, at + 12);
      input.writeBigUInt64LE(c.x1, at + 16);
      input.writeBigUInt64LE(c.x2, at + 24);
      c.v.forEach((value, i) => {
        wide(value, at + 32 + i * 16);
      });
    });
    const { stdout, status, signal, stderr } = spawnSync('qemu-aarch64-static', [this.#program], {
      input,
      maxBuffer: cases.length * OUTCOME_SIZE + 4096,
    });
    if (status !== 0 || stdout.length !== cases.length * OUTCOME_SIZE) {
      throw new Error(`qemu-aarch64-static ended with ${status ?? signal}: ${stderr}`);
    }
    return cases.map((_, n) => {
      const at = n * OUTCOME_SIZE;
      return {
        x0: stdout.readBigUInt64LE(at),
        nzcv: stdout.readUInt32LE(at + 8),
        fpsr: stdout.readUInt32LE(at + 12),
        v0: stdout.readBigUInt64LE(at + 16) | (stdout.readBigUInt64LE(at + 24) << 64n),
      };
    });
  }
}
