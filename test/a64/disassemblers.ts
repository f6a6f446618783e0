import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from '@jest/globals';
import type { Row } from '#lib/soft/a64/row.js';

/** Somebody else's idea of which words are instructions, and which. */
export interface Disassembler {
  readonly name: string;
  /** Debian's package that has it. */
  readonly debian: string;
  readonly isThere: boolean;
  /**
   * The text of each word, mnemonic and operands separated by one space, or `undefined` where it knows no instruction.
   * @throws Error where it does not say something of every word
   */
  disassemble(words: readonly number[]): (string | undefined)[];
}

const isThere = (program: string): boolean => spawnSync(program, ['--version']).status === 0;
const MAX_OUTPUT = 1 << 30;

const OBJDUMP = 'aarch64-linux-gnu-objdump';
const binutils: Disassembler = {
  name: 'binutils',
  debian: 'binutils-aarch64-linux-gnu',
  isThere: isThere(OBJDUMP),
  disassemble(words) {
    const directory = mkdtempSync(join(tmpdir(), 'elvisor-objdump-'));
    try {
      const file = join(directory, 'words.bin');
      writeFileSync(file, new Uint8Array(new Uint32Array(words).buffer));
      const { stdout, status, stderr } = spawnSync(OBJDUMP, ['-D', '-z', '-b', 'binary', '-m', 'aarch64', file], {
        maxBuffer: MAX_OUTPUT,
        encoding: 'utf8',
      });
      if (status !== 0) throw new Error(`${OBJDUMP} ended with ${status}: ${stderr}`);
      const out: (string | undefined)[] = [];
      for (const line of stdout.split('\n')) {
        const [, word, text] = /^\s*[0-9a-f]+:\s+([0-9a-f]{8})\s+(.*)$/.exec(line) ?? [];
        if (word === undefined || text === undefined) continue;
        if (Number.parseInt(word, 16) !== (words[out.length] ?? -1) >>> 0) {
          throw new Error(`${OBJDUMP} skipped a word before ${line}`);
        }
        out.push(/^(\.inst|udf)\b/.test(text) ? undefined : oneLine(text));
      }
      if (out.length !== words.length) throw new Error(`${OBJDUMP} gave ${out.length} lines for ${words.length} words`);
      return out;
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
};

const LLVM_MC = 'llvm-mc';
/** All that LLVM 14 has: without, it knows Armv8.0-A alone. */
const FEATURES =
  'v8.8a aes altnzcv am amvs bf16 brbe bti ccdp ccidx ccpp complxnum crc crypto dit dotprod el2vmsa el3 ete f32mm f64mm flagm ' +
  'fp-armv8 fp16fml fptoint fullfp16 hbc hcx i8mm jsconv lor ls64 lse lse2 mops mpam mte neon nv pan pan-rwv pauth perfmon ' +
  'predres rand ras rcpc rcpc-immo rdm sb sel2 sha2 sha3 sm4 spe spe-eef specrestrict ssbs sve sve2 sve2-aes sve2-bitperm ' +
  'sve2-sha3 sve2-sm4 tlb-rmi tme tracev8.4 trbe uaops vh wfxt xs';
const llvm: Disassembler = {
  name: 'LLVM',
  debian: 'llvm',
  isThere: isThere(LLVM_MC),
  disassemble(words) {
    const bytes = (word: number): string => [0, 8, 16, 24].map((at) => `0x${hex2((word >>> at) & 0xff)}`).join(',');
    const args = [
      '--disassemble',
      '--triple=aarch64',
      '--show-encoding',
      `--mattr=${FEATURES.split(' ')
        .map((f) => `+${f}`)
        .join()}`,
    ];
    const { stdout, status, stderr } = spawnSync(LLVM_MC, args, {
      input: words.map((word) => `${bytes(word).replaceAll(',', ' ')}\n`).join(''),
      maxBuffer: MAX_OUTPUT,
      encoding: 'utf8',
    });
    // What is no instruction is a warning, and says nothing on stdout: the encodings say whose lines these are.
    if (status !== 0) throw new Error(`${LLVM_MC} ended with ${status}: ${stderr.slice(0, 2000)}`);
    const texts = new Map<string, string>();
    for (const [, text, encoding] of stdout.matchAll(/^\s*(.*?)\s*\/\/ encoding: \[(.*)\]$/gm))
      texts.set(encoding!, oneLine(text!));
    if (texts.size === 0 && words.length > 0) throw new Error(`${LLVM_MC} knows none of ${words.length} words`);
    return words.map((word) => {
      const text = texts.get(bytes(word));
      return text?.startsWith('udf') ? undefined : text;
    });
  },
};

const hex2 = (n: number): string => n.toString(16).padStart(2, '0');
const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim();

const DISASSEMBLERS: readonly Disassembler[] = [binutils, llvm];

/** Tests with each of them; with one that is not there they are skipped by name. */
export function eachDisassembler(title: string, tests: (disassembler: Disassembler) => void): void {
  for (const disassembler of DISASSEMBLERS) {
    const { name, debian } = disassembler;
    if (disassembler.isThere) describe(`${title} ${name}`, () => tests(disassembler));
    else describe.skip(`${title} ${name} (Debian's ${debian} is not installed)`, () => tests(disassembler));
  }
}

const field = (word: number, low: number, bits: number): number => (word >>> low) & ((1 << bits) - 1);
const ONES = 31;
/** By the start of a row's name: fields that should be ones or zero and are not, or bits that are no part of an index. */
const NOT_AS_IT_SHOULD_BE: readonly (readonly [RegExp, (word: number) => boolean])[] = [
  [/^(LDXP|LDXR)/, (word) => field(word, 16, 5) !== ONES || (field(word, 21, 1) === 0 && field(word, 10, 5) !== ONES)],
  [/^(STXR)/, (word) => field(word, 10, 5) !== ONES],
  [/^[SU]MULH/, (word) => field(word, 10, 5) !== ONES],
  [/^FCMPE? \(zero\)/, (word) => field(word, 16, 5) !== 0],
  [/^INS \(element\)/, (word) => field(word, 11, 4) % lowestBit(field(word, 16, 5)) !== 0],
  [/^DUP \(general\)/, (word) => field(word, 16, 5) !== lowestBit(field(word, 16, 5))],
];
const lowestBit = (n: number): number => n & -n;

/** Whether the architecture leaves it to the processor if the word, which the row has, is an instruction: LLVM says no, QEMU and we yes. */
export const mayBeUndefined = ({ name }: Disassembler, row: Row, word: number): boolean =>
  name === 'LLVM' && NOT_AS_IT_SHOULD_BE.some(([start, isNot]) => start.test(row.name) && isNot(word));
