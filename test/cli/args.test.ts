import { describe, expect, test } from '@jest/globals';
import { parseCommandLine, parseDisk, type RunArgs, UsageError } from '#lib/cli/args.js';
import { barLine, createProgress } from '#lib/cli/progress.js';
import { statusOf } from '#lib/cli/status.js';
import { VmError } from '#lib/vmm/errors.js';

const run = (...argv: string[]): RunArgs => {
  const invocation = parseCommandLine(['run', ...argv]);
  if (invocation.command !== 'run') throw new Error(`expected run, got ${invocation.command}`);
  return invocation.args;
};

describe('run', () => {
  test('all options', () => {
    expect(
      run(
        ...[
          '--backend',
          'soft',
          '--kernel',
          'Image',
          '--kernel-format',
          'raw',
          '--initrd=rd',
          '--append',
          '-x console=ttyAMA0',
          '--dtb',
          'b.dtb',
        ],
        ...['--memory', '1G', '--cpus', '4', '--disk', 'a.img', '--disk', 'b.img,ro,overlay', '--clock', 'virtual'],
        ...['--gic', '2', '--its', '--pmu', '--huge-pages', '2M'],
        ...['--no-reboot', '--timeout', '1.5', '--quiet', '--code-cache', 'none'],
      ),
    ).toEqual({
      backend: 'soft',
      kernel: 'Image',
      kernelFormat: 'raw',
      initrd: 'rd',
      append: '-x console=ttyAMA0',
      dtb: 'b.dtb',
      memory: 2 ** 30,
      hugePages: 2 ** 21,
      cpus: 4,
      gic: 2,
      its: true,
      pmu: true,
      disks: [
        { path: 'a.img', readOnly: false, overlay: false },
        { path: 'b.img', readOnly: true, overlay: true },
      ],
      clock: 'virtual',
      codeCache: 'none',
      noReboot: true,
      timeoutMs: 1500,
      quiet: true,
      profile: undefined,
      command: undefined,
    });
  });

  test('a profile is one of the software machine', () => {
    expect(run('--trace', 'profile')).toMatchObject({ backend: 'soft', profile: { file: undefined } });
    expect(run('--trace=profile=a=b.txt')).toMatchObject({ backend: 'soft', profile: { file: 'a=b.txt' } });
    expect(() => run('--trace', 'profile', '--backend', 'kvm')).toThrow(/looks into the software machine/);
    for (const wrong of ['frob', 'profile=', 'profiles', ''])
      expect(() => run('--trace', wrong)).toThrow(/--trace: expected profile or profile=FILE/);
  });

  test('what follows -- is the command, options of its own and further -- included', () => {
    expect(run('--quiet', '--', 'sh', '-c', 'x', '--', '--quiet').command).toEqual(['sh', '-c', 'x', '--', '--quiet']);
    expect(run().command).toBeUndefined();
  });

  test.each([
    [['--frob'], /unknown option --frob/],
    [['-k', 'x'], /unknown option -k/],
    [['uname'], /unexpected argument "uname"; a command for the guest goes after --/],
    [['--'], /no command follows/],
    [['--kernel'], /--kernel needs a value/],
    [['--kernel', ''], /--kernel: expected a file/],
    [['--kernel', 'a', '--kernel', 'b'], /--kernel is given twice/],
    [['--quiet=yes'], /--quiet takes no value/],
    [['--backend', 'xen'], /--backend: expected auto, kvm, soft, got "xen"/],
    [['--clock', 'sun'], /--clock: expected host, virtual/],
    [['--kernel', 'k', '--kernel-format', 'flat'], /--kernel-format: expected auto, raw, got "flat"/],
    [['--kernel-format', 'raw'], /--kernel-format belongs to a kernel of your own/],
    [['--gic', '4'], /--gic: expected 2, 3, got "4"/],
    [['--its=yes'], /--its takes no value/],
    [['--cpus', '0'], /--cpus: expected a number from 1 to 123, got "0"/],
    [['--cpus', '4096'], /from 1 to 123, got "4096"/],
    [['--cpus', '2.5'], /from 1 to 123/],
    [['--memory', '0'], /--memory: "0" is no amount of memory/],
    [['--memory', '1'], /--memory: "1" is 1 byte, less than the smallest machine/],
    [['--memory', '512'], /for mebibytes, write 512M/],
    [['--memory', '1T'], /--memory: "1T" is more than the board can have/],
    [['--memory', '1.5G'], /expected a size such as 256M or 1G, got "1.5G"/],
    [['--memory', '1025K'], /no whole number of mebibytes/],
    [['--timeout', '0'], /--timeout: expected seconds, more than 0/],
    [['--timeout', '-1'], /--timeout: expected seconds/],
    [['--timeout', '9999999999'], /at most 2147483/],
    [['--initrd', 'x'], /--initrd belongs to a kernel of your own/],
    [['--append', 'x'], /--append belongs to a kernel of your own/],
    [['--kernel', 'k', '--', 'ls'], /a COMMAND runs in the default guest/],
    [['--disk', ',ro'], /names no file/],
    [['--disk', 'a,rw'], /after the file come ro and overlay, not "rw"/],
    [['--disk', 'a,ro,ro'], /says ro twice/],
  ])('%j is refused', (argv, message) => {
    const call = (): unknown => run(...argv);
    expect(call).toThrow(UsageError);
    expect(call).toThrow(message);
  });
});

test('other command lines', () => {
  expect(parseCommandLine(['--help'])).toEqual({ command: 'help' });
  expect(parseCommandLine(['run', '--help'])).toEqual({ command: 'help' });
  expect(parseCommandLine(['--version'])).toEqual({ command: 'version' });
  expect(parseCommandLine(['guest', 'path'])).toEqual({ command: 'guest', action: 'path', quiet: false });
  expect(parseCommandLine(['host'])).toEqual({ command: 'host', json: false });
  expect(parseCommandLine(['host', '--json'])).toEqual({ command: 'host', json: true });
  expect(parseCommandLine(['host', '--help'])).toEqual({ command: 'help' });
  expect(parseCommandLine(['demo', '--cpus', '3'])).toMatchObject({ command: 'demo', args: { cpus: 3 } });
  for (const argv of [
    [],
    ['guest'],
    ['guest', 'burn'],
    ['guest', 'path', 'x'],
    ['boot'],
    ['host', '--xml'],
    ['--frob'],
    ['demo', '--disk', 'x'],
    ['demo', '--its'],
    ['dtb', '--', 'ls'],
  ]) {
    expect(() => parseCommandLine(argv)).toThrow(UsageError);
  }
});

test('a disk is FILE[,ro][,overlay]', () => {
  expect(parseDisk('/a b/c.img')).toEqual({ path: '/a b/c.img', readOnly: false, overlay: false });
  expect(parseDisk('x,overlay')).toEqual({ path: 'x', readOnly: false, overlay: true });
});

test('an error’s exit status', () => {
  expect(statusOf(new UsageError('x'))).toBe(2);
  expect(statusOf(new VmError('ERR_KERNEL_ARCH', 'x'))).toBe(2);
  expect(statusOf(Object.assign(new Error('x'), { code: 'ERR_DISK_SIZE' }))).toBe(2);
  expect(statusOf(new VmError('ERR_BACKEND_UNAVAILABLE', 'x'))).toBe(3);
  expect(statusOf(new VmError('ERR_GUEST_NO_APT', 'x'))).toBe(3);
  expect(statusOf(new TypeError('x'))).toBe(1);
});

describe('progress', () => {
  const stream = (isTTY: boolean): { isTTY: boolean; columns: number; text: string; write(t: string): void } => ({
    isTTY,
    columns: 60,
    text: '',
    write(text) {
      this.text += text;
    },
  });

  test('is a bar on a terminal, gone at its end', () => {
    const tty = stream(true);
    const progress = createProgress(tty, false);
    progress.update('fetching', 1, 2);
    expect(tty.text).toContain(barLine('fetching', 1, 2));
    progress.end();
    expect(tty.text.endsWith('\r\x1b[K')).toBe(true);
  });

  test('is a line a label elsewhere, and nothing with --quiet', () => {
    const pipe = stream(false);
    const progress = createProgress(pipe, false);
    for (let i = 0; i < 10; i++) progress.update('fetching', i, 10);
    progress.update('unpacking');
    expect(pipe.text).toBe('elvisor: fetching\nelvisor: unpacking\n');
    const silent = stream(false);
    createProgress(silent, true).update('x');
    expect(silent.text).toBe('');
  });

  test('a bar stays in its bounds', () => {
    expect(barLine('x', 5, 2)).toBe(`[${'#'.repeat(24)}] 100% x`);
    expect(barLine('x', -1, 2)).toBe(`[${' '.repeat(24)}]   0% x`);
    expect(barLine('x', 1, 0)).toBe('x');
  });
});
