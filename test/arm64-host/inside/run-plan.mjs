/** The machine's first program: one process for each group of tests, one after the other. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const RUN_TESTS = fileURLToPath(new URL('./run-tests.mjs', import.meta.url));
const plan = JSON.parse(readFileSync('/plan.json', 'utf8'));

for (const [group, files] of Object.entries(plan.groups)) {
  const env = { ...process.env, ...plan.env };
  const { status, signal } = spawnSync(process.execPath, ['--expose-gc', '--no-warnings', RUN_TESTS, ...files], {
    stdio: 'inherit',
    env,
  });
  console.log(`lane: ${JSON.stringify({ group, status, signal })}`);
}
