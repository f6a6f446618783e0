import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** What a script says of itself: the comment that it begins with. */
export function usage(source) {
  const comment = /^(?:#!.*\n)?\/\*\*\n((?: \*.*\n)+?) \*\//.exec(source);
  if (comment === null) throw new Error('a script begins with a comment that says how it is used');
  return comment[1].replace(/^ \* ?/gm, '');
}

/**
 * The command line of the script at the address `script`, as parseArgs of node:util reads it. `--help` prints the comment
 * that the script begins with and ends the process with 0; what it does not know ends it with 2.
 */
export function commandLine(script, { options, ...config }) {
  let parsed;
  try {
    parsed = parseArgs({ options: { ...options, help: { type: 'boolean', short: 'h' } }, ...config });
  } catch (error) {
    if (!error.code?.startsWith('ERR_PARSE_ARGS')) throw error;
    console.error(`${process.argv0} ${process.argv[1]}: ${error.message.split('. ', 1)[0]}; --help says what there is`);
    process.exit(2);
  }
  if (parsed.values.help) {
    process.stdout.write(usage(readFileSync(fileURLToPath(script), 'utf8')));
    process.exit(0);
  }
  return parsed;
}
