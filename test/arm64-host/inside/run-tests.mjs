/** Runs test files in this process, by jest's own engine, and tells each test as a line of JSON: `lane: {…}`. */
import { addEventHandler, getState, resetState, run, setState } from 'jest-circus';

const TEST_TIMEOUT_MS = 60_000;
const tell = (what) => process.stdout.write(`lane: ${JSON.stringify(what)}\n`);

let failed = false;
/** Names from the outermost block, as jest joins them. */
function nameOf(test) {
  const names = [test.name];
  for (let block = test.parent; block?.parent !== undefined; block = block.parent) names.unshift(block.name);
  return names.join(' ');
}

let file;
addEventHandler((event) => {
  if (event.name === 'test_start') tell({ file, start: nameOf(event.test) });
  else if (event.name === 'test_skip') tell({ file, test: nameOf(event.test), status: 'skipped' });
  else if (event.name === 'test_done') {
    const errors = event.test.errors.map((error) => textOf([error].flat()[0]));
    if (errors.length > 0) failed = true;
    tell({ file, test: nameOf(event.test), status: errors.length > 0 ? 'failed' : 'passed', errors });
  }
});

for (file of process.argv.slice(2)) {
  resetState();
  setState({ ...getState(), testTimeout: TEST_TIMEOUT_MS });
  try {
    await import(new URL(`../../../${file}`, import.meta.url));
    const { unhandledErrors } = await run();
    if (unhandledErrors.length > 0) throw new Error(unhandledErrors.join('\n'));
  } catch (error) {
    failed = true;
    tell({ file, test: 'the file', status: 'failed', errors: [textOf(error)] });
  }
  // What a file leaves to the garbage collector is not the next one's.
  for (let i = 0; i < 3; i++) {
    globalThis.gc();
    await new Promise((done) => setImmediate(done));
  }
}

function textOf(error) {
  return String(error?.stack ?? error).slice(0, 4000);
}
// What a test has left open must not keep the machine running.
process.exit(failed ? 1 : 0);
