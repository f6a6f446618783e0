import { readFileSync } from 'node:fs';
import { HELP, type Invocation, parseCommandLine } from './args.js';
import { describe, Status, statusOf } from './status.js';

async function dispatch(invocation: Invocation): Promise<number> {
  switch (invocation.command) {
    case 'help':
      process.stdout.write(HELP);
      return Status.OK;
    case 'version': {
      const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
      process.stdout.write(`elvisor ${(JSON.parse(manifest) as { version: string }).version}\n`);
      return Status.OK;
    }
    case 'run':
      return (await import('./run.js')).run(invocation.args);
    case 'demo':
      return (await import('./demo.js')).demo(invocation.args);
    case 'guest':
      return (await import('./guest.js')).guest(invocation.action, invocation.quiet);
    case 'host':
      return (await import('./host.js')).host(invocation.json);
    case 'dtb':
      return (await import('./dtb.js')).dtb(invocation.args);
  }
}

/** Waits until a stream has handed on what was written to it, or has broken. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.destroyed || stream.errored !== null) resolve();
    else {
      stream.once('error', () => resolve());
      stream.write('', () => resolve());
    }
  });
}

async function main(argv: readonly string[]): Promise<number> {
  // A reader that went away (`elvisor run | head`) is dealt with where the writing is done.
  process.stdout.on('error', () => {});
  process.stderr.on('error', () => {});
  try {
    return await dispatch(parseCommandLine(argv));
  } catch (error) {
    process.stderr.write(`elvisor: ${describe(error)}\n`);
    return statusOf(error);
  }
}

const status = await main(process.argv.slice(2));
await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
process.exit(status);
