import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type DefaultGuest, fetchGuest } from '#lib/guest/debian.js';

/** The launcher as it is installed. */
export const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Whether the guests can be had here: they come from Debian's archive by apt. */
export const hasApt = spawnSync('apt-get', ['--version']).status === 0;

/** The default guest: Debian's cloud kernel, its virtio modules and busybox. */
export const cloudGuest = (): Promise<DefaultGuest> => fetchGuest({ flavour: 'cloud' });
/** The same with Debian's full kernel. */
export const fullGuest = (): Promise<DefaultGuest> => fetchGuest({ flavour: 'full' });

export interface CliResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the launcher to its end. */
export function elvisor(args: readonly string[], input = '', env: NodeJS.ProcessEnv = {}): Promise<CliResult> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [CLI, ...args],
      { env: { ...process.env, ...env }, maxBuffer: 64 * 1024 * 1024 },
      (_error, stdout, stderr) => resolve({ status: child.exitCode, stdout, stderr }),
    );
    child.stdin?.end(input);
  });
}

/** A folder that goes away with the tests of the file. */
export function scratchDir(): { readonly path: string; remove(): void; file(name: string): string } {
  const path = mkdtempSync(join(tmpdir(), 'elvisor-test-'));
  return {
    path,
    file: (name) => join(path, name),
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

/** An arm64 Image (Documentation/arch/arm64/booting.rst) whose first instruction is `words[0]`. */
export function bareImage(words: readonly number[]): Uint8Array {
  const image = new Uint8Array(4096);
  const view = new DataView(image.buffer);
  view.setUint32(0, 0x1400_0010, true); // b code, 64 bytes on
  view.setBigUint64(8, 0n, true); // text_offset
  view.setBigUint64(16, 4096n, true); // image_size
  view.setBigUint64(24, 0b1010n, true); // 4K pages, anywhere
  view.setUint32(56, 0x644d_5241, true); // "ARM\x64"
  words.forEach((word, i) => {
    view.setUint32(64 + i * 4, word, true);
  });
  return image;
}

/** A guest that never does anything but run. */
export const spinningImage = (): Uint8Array => bareImage([0x1400_0000]);

export const readBytes = (path: string): Uint8Array => new Uint8Array(readFileSync(path));
