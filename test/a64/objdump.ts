import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** binutils' disassembler, from Debian's binutils-aarch64-linux-gnu. */
const OBJDUMP = 'aarch64-linux-gnu-objdump';
export const haveObjdump = spawnSync(OBJDUMP, ['--version']).status === 0;

/**
 * The text of each word, mnemonic and operands separated by one space, or `undefined` where binutils knows no instruction.
 * @throws Error where binutils does not give a line for every word
 */
export function disassemble(words: readonly number[]): (string | undefined)[] {
  const directory = mkdtempSync(join(tmpdir(), 'elvisor-objdump-'));
  try {
    const file = join(directory, 'words.bin');
    writeFileSync(file, new Uint8Array(new Uint32Array(words).buffer));
    const { stdout, status, stderr } = spawnSync(OBJDUMP, ['-D', '-z', '-b', 'binary', '-m', 'aarch64', file], {
      maxBuffer: 1 << 30,
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
      out.push(/^(\.inst|udf)\b/.test(text) ? undefined : text.replace(/\s+/g, ' ').trim());
    }
    if (out.length !== words.length) throw new Error(`${OBJDUMP} gave ${out.length} lines for ${words.length} words`);
    return out;
  } finally {
    rmSync(directory, { recursive: true });
  }
}
