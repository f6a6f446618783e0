// The emulated arm64 host of test/arm64-host (mode vhe), for benches: boots it and runs a shell script there in place of the
// tests. An instruction is a nanosecond of its time, so that figures are those of code, on any machine and however busy it is.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { directory, file, writeCpio } from '../dist/guest/cpio.js';
import { crossCompile } from '../test/arm64-host/addon.js';
import { projectLayer, systemLayer } from '../test/arm64-host/layers.js';
import { boot } from '../test/arm64-host/machine.js';
import { MODES } from '../test/arm64-host/modes.js';
import { cacheDir, debianGuest, nodeForArm64 } from '../test/arm64-host/sources.js';
import { needProgram, qemuVersion } from '../test/arm64-host/spawn.js';

const BENCH = fileURLToPath(new URL('.', import.meta.url));

/**
 * What every such host has: Node, elvisor as it is built, and these benches, all below /elvisor.
 * @throws Skip where something that it needs is not there
 */
export async function prepareHost() {
  const release = qemuVersion();
  needProgram('aarch64-linux-gnu-gcc', 'gcc-aarch64-linux-gnu');
  const cache = cacheDir();
  mkdirSync(cache, { recursive: true });
  const [guest, node] = [await debianGuest(), await nodeForArm64(cache)];
  const benches = readdirSync(BENCH).filter((name) => name.endsWith('.js'));
  return {
    cache,
    kernel: guest.kernel,
    title: `QEMU ${release} emulating ${guest.description}`,
    layers: Buffer.concat([
      await systemLayer(guest, node),
      await projectLayer(await crossCompile(cache, node), guest),
      writeCpio([
        directory('elvisor/bench'),
        ...benches.map((name) => file(`elvisor/bench/${name}`, readFileSync(`${BENCH}/${name}`))),
      ]),
    ]),
  };
}

/**
 * Boots it and runs `script` in its shell.
 * @param {object} options
 * @param {string} options.name for messages
 * @param {{ kernel: string, layers: Buffer }} options.host
 * @param {string} options.script
 * @param {string} options.initrd a file to write
 * @param {(line: string) => void} options.onLine of the console
 * @returns {Promise<string[]>} what went wrong: nothing, or why the script did not come to its end
 */
export async function runScript({ name, host, script, initrd, onLine }) {
  const shell = `${script}\necho 'lane: ${JSON.stringify({ group: name, status: 0 })}'`;
  // In place of the lane's plan: the machine's first program is Node.
  const plan = `import { spawnSync } from 'node:child_process';\nspawnSync('sh', ['-c', ${JSON.stringify(shell)}], { stdio: 'inherit' });\n`;
  writeFileSync(
    initrd,
    Buffer.concat([host.layers, writeCpio([file('elvisor/test/arm64-host/inside/run-plan.mjs', plan)])]),
  );
  const wrong = [];
  await boot({
    mode: MODES.vhe,
    seed: 42,
    kernel: host.kernel,
    initrd,
    groups: [name],
    onResult: ({ errors = [] }) => wrong.push(...errors),
    onLine,
  });
  return wrong;
}
