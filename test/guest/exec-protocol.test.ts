import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ExecDecoder, encodeExecRequest } from '#lib/guest/exec-protocol.js';
import { VmError } from '#lib/vmm/errors.js';

const bytes = (text: string) => new TextEncoder().encode(text);

describe('encodeExecRequest', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elvisor-exec-'));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  /** What a shell makes of a request's body, read as the guest's init reads it. */
  function interpret(message: Uint8Array): { argv: string[]; cwd: string; variable: string; status: number | null } {
    const end = message.indexOf(0x0a);
    const body = message.subarray(end + 1);
    expect(new TextDecoder().decode(message.subarray(0, end))).toBe(`exec 1 ${body.length}`);
    writeFileSync(join(dir, 'request'), body);
    const script = '. ./request; printf "%s\\0" "$PWD" "$VARIABLE" "$@"';
    const run = spawnSync('sh', ['-c', script], { cwd: dir, encoding: 'utf8', env: { ...process.env } });
    const [cwd = '', variable = '', ...argv] = run.stdout.split('\0').slice(0, -1);
    return { argv, cwd, variable, status: run.status };
  }

  test('a shell reads any strings as they are', () => {
    const text = fc
      .string({ unit: 'binary', maxLength: 20 })
      .map((value) => value.replaceAll(/\0|[\ud800-\udfff]/g, "'"));
    fc.assert(
      fc.property(fc.array(text, { minLength: 1, maxLength: 4 }), text, (rest, variable) => {
        const argv = ['command', ...rest];
        expect(interpret(encodeExecRequest({ argv, env: { VARIABLE: variable }, cwd: '/' }))).toEqual({
          argv,
          cwd: '/',
          variable,
          status: 0,
        });
      }),
      { numRuns: 60 },
    );
  });

  test('nothing in it is run', () => {
    const argv = ['$(touch hacked)', '`touch hacked`', "'; touch hacked; '", '\\', '$HOME', '*', '-n', ''];
    expect(interpret(encodeExecRequest({ argv })).argv).toEqual(argv);
    expect(spawnSync('ls', [dir], { encoding: 'utf8' }).stdout).toBe('request\n');
  });

  test('a directory that is not there ends with 126', () => {
    expect(interpret(encodeExecRequest({ argv: ['a'], cwd: '/no/such' })).status).toBe(126);
  });

  test.each<[string, () => Uint8Array, RegExp]>([
    ['no command', () => encodeExecRequest({ argv: [] }), /it is empty/],
    ['an empty command', () => encodeExecRequest({ argv: ['', 'a'] }), /it is empty/],
    ['a NUL in an argument', () => encodeExecRequest({ argv: ['a', 'b\0c'] }), /argument 1 holds a NUL/],
    ['a NUL in a variable', () => encodeExecRequest({ argv: ['a'], env: { X: '\0' } }), /the variable X holds a NUL/],
    [
      'a variable that is no name',
      () => encodeExecRequest({ argv: ['a'], env: { 'X;reboot': '' } }),
      /"X;reboot" is no name/,
    ],
    ['a relative directory', () => encodeExecRequest({ argv: ['a'], cwd: 'tmp' }), /"tmp" is not absolute/],
  ])('refuses %s', (_, encode, message) => {
    expect(encode).toThrow(
      expect.objectContaining({ code: 'ERR_EXEC_REQUEST', message: expect.stringMatching(message) }),
    );
  });
});

describe('ExecDecoder', () => {
  test('reads lines in whatever pieces they come', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 255 }), fc.array(fc.nat(20), { maxLength: 6 }), (status, cuts) => {
        const message = bytes(`ready 1\nexit ${status}\n`);
        const at = [0, ...cuts.filter((cut) => cut < message.length).sort((a, b) => a - b), message.length];
        const decoder = new ExecDecoder();
        const events = at.slice(1).flatMap((end, i) => decoder.push(message.subarray(at[i]!, end)));
        expect(events).toEqual([{ type: 'ready' }, { type: 'exit', status }]);
      }),
    );
  });

  test.each(['ready 2\n', 'exit 256\n', 'exit -1\n', 'exit 07\n', 'exit\n', '\n', 'ready 1\r\n', 'x'.repeat(65)])(
    'refuses %j',
    (line) => {
      expect(() => new ExecDecoder().push(bytes(line))).toThrow(expect.objectContaining({ code: 'ERR_EXEC_PROTOCOL' }));
    },
  );

  test('whatever bytes: events or a VmError', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 5 }), (pieces) => {
        const decoder = new ExecDecoder();
        try {
          for (const piece of pieces) decoder.push(piece);
        } catch (error) {
          if (!VmError.is(error, 'ERR_EXEC_PROTOCOL')) throw error;
        }
      }),
    );
  });
});
