import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { usage } from '../../scripts/command-line.js';

const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));

describe('the command line of benches and of the tests that are programs', () => {
  const SCRIPTS = ['boot', 'ends', 'launch', 'native', 'suite/generate', 'suite/suite'].map(
    (name) => `bench/${name}.js`,
  );

  test.each([...SCRIPTS, 'test/arm64-host/main.js', 'test/guest-suites/main.js'])(
    '%s names each of its options',
    (name) => {
      const source = readFileSync(path(name), 'utf8');
      const said = usage(source);
      const options = Array.from(
        source.matchAll(/[ {]'?([a-z0-9-]+)'?: \{ type: '(?:string|boolean)'/g),
        ([, name]) => name,
      );
      expect(options).not.toEqual([]);
      for (const option of options) expect(said).toMatch(new RegExp(`--${option}(?![a-z0-9-])`));
      expect(said).not.toMatch(/\* |\*\//);
    },
  );

  test('--help prints it, and an option that is not there is an error that names it', () => {
    const run = (option: string) =>
      spawnSync(process.execPath, [path('bench/suite/suite.js'), option], { encoding: 'utf8' });
    const help = run('--help');
    expect([help.status, help.stderr]).toEqual([0, '']);
    expect(help.stdout).toMatch(/^The suite: .*\n(.*\n)+ +node bench\/suite\/suite\.js \[ROW\.\.\.\]/);
    const wrong = run('--pears');
    expect([wrong.status, wrong.stdout]).toEqual([2, '']);
    expect(wrong.stderr).toMatch(/suite\.js: Unknown option '--pears'; --help says what there is\n$/);
  });
});
