// How long after its start `elvisor run` executes the guest's first instruction.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../dist/bundle/cli.js', import.meta.url));

/**
 * An arm64 Image of `bytes` whose first instructions write a character to the PL011, so that its first sign of life needs no
 * more of the guest than that; it costs as much to load as a real kernel of that size.
 */
function firstSign(bytes) {
  const image = Buffer.alloc(bytes, 0xa5);
  image.fill(0, 0, 128);
  // b #64; then, behind the header: mov x1, #0x0900_0000; mov w0, #'!'; str w0, [x1]; wfi; b .-4
  // What waits for an interrupt gives the thread back: the byte is seen when it is written, not when the guest's turn is over.
  image.writeUInt32LE(0x1400_0010, 0);
  image.writeBigUInt64LE(BigInt(bytes), 16);
  image.writeBigUInt64LE(0b1010n, 24);
  image.writeUInt32LE(0x644d_5241, 56);
  const code = [0xd2a1_2001, 0x5280_0420, 0xb900_0020, 0xd503_207f, 0x17ff_ffff];
  for (const [i, word] of code.entries()) image.writeUInt32LE(word, 64 + 4 * i);
  return image;
}

/** Milliseconds from spawn to the first byte on stdout; the process is ended then. */
function firstByte(command, args, { env = process.env, signal = 'SIGKILL' } = {}) {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    let errors = '';
    child.stderr.on('data', (chunk) => {
      errors += chunk;
    });
    let time;
    child.stdout.once('data', () => {
      time = performance.now() - start;
      child.kill(signal);
    });
    child.on('error', reject);
    child.on('close', () =>
      time !== undefined ? resolve(time) : reject(new Error(`${command} ended before its first byte: ${errors}`)),
    );
  });
}

/**
 * @returns `{ node, first, start }`, milliseconds: Node's own start, and how much later the guest's first instruction was, for
 * somebody who never started elvisor before and for everybody else (V8 keeps what it compiled, on Node 22.1 and later); the
 * lowest of `tries`, because what disturbs a measurement only ever adds to it
 */
export async function startTimes({ guest, node, tries = 5 }) {
  const dir = mkdtempSync(join(tmpdir(), 'elvisor-start-'));
  try {
    const kernel = join(dir, 'Image');
    writeFileSync(kernel, firstSign(statSync(guest.kernel).size));
    const run = [CLI, 'run', '--backend', 'soft', '--kernel', kernel, '--initrd', guest.initrd];
    const withCache = (name) => ({ ...process.env, XDG_CACHE_HOME: join(dir, name) });
    const times = { node: [], first: [], start: [] };
    // What is compiled is kept as the process ends by itself.
    await firstByte(node, run, { env: withCache('kept'), signal: 'SIGTERM' });
    for (let i = 0; i < tries; i++) {
      times.node.push(await firstByte(node, ['-e', 'process.stdout.write("!")']));
      times.first.push(await firstByte(node, run, { env: withCache(`new-${i}`) }));
      times.start.push(await firstByte(node, run, { env: withCache('kept') }));
    }
    const own = Math.min(...times.node);
    return { node: own, first: Math.min(...times.first) - own, start: Math.min(...times.start) - own };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
