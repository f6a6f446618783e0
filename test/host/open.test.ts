import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { openHost, probeHost } from '#lib/host/index.js';
import { describeKvm } from '../native/native.ts';

const LINUX = process.platform === 'linux' && (process.arch === 'x64' || process.arch === 'arm64');

/** What a new process says of the host's KVM. */
function probeIn(nodeOptions: readonly string[], device: string, uid?: number): unknown {
  const code = `import('#lib/index.js').then(() => import('#lib/host/index.js'))
    .then((h) => console.log(JSON.stringify(h.probeHost({ device: '${device}' }))))`;
  const child = spawnSync(process.execPath, [...nodeOptions, '--input-type=module', '-e', code], {
    encoding: 'utf8',
    ...(uid === undefined ? {} : { uid }),
  });
  expect(child.stderr).toBe('');
  return JSON.parse(child.stdout);
}

describe('without what the host backend needs', () => {
  test('an addon that is not there is ENOSYS, with the way out', () => {
    const options = { addon: '/nowhere/kvm.node', device: '/dev/null' };
    expect(probeHost(options)).toMatchObject({ available: false, cause: 'addon' });
    expect(() => openHost(options)).toThrow(expect.objectContaining({ code: 'ENOSYS' }));
    if (LINUX) expect(() => openHost(options)).toThrow(/npm run build:native/);
    // Where there is no device either, that is what matters.
    const neither = { ...options, device: '/nowhere/kvm' };
    expect(() => openHost(neither)).toThrow(expect.objectContaining({ code: 'ENOENT', syscall: 'access' }));
  });

  test('a file that is no addon is named', () => {
    const addon = new URL('../../package.json', import.meta.url).pathname;
    const found = probeHost({ addon, device: '/dev/null' });
    expect(found).toMatchObject({ available: false, cause: 'addon' });
    if (LINUX) expect(found).toMatchObject({ reason: expect.stringContaining(addon) });
  });

  test('where addons are forbidden the package is imported all the same, and says why there is no KVM', () => {
    const found = probeIn(['--no-addons'], '/dev/null');
    expect(found).toMatchObject({ available: false, cause: 'addon', reason: expect.stringContaining('addon') });
  });
});

describeKvm('with the addon', () => {
  test('a device that is not there, or not KVM, is an error that says so', () => {
    expect(probeHost({ device: '/nowhere/kvm' })).toMatchObject({ available: false, cause: 'no-device' });
    expect(() => openHost({ device: '/nowhere/kvm' })).toThrow(
      expect.objectContaining({ code: 'ENOENT', syscall: 'open' }),
    );
    expect(() => openHost({ device: '/nowhere/kvm' })).toThrow(/there is no \/nowhere\/kvm.*--device=/);
    expect(probeHost({ device: '/dev/null' })).toMatchObject({ available: false, cause: 'unusable' });
    expect(() => openHost({ device: '/dev/null' })).toThrow(/\/dev\/null is not KVM/);
  });

  test('a device that may not be opened is told apart, with the way out', () => {
    const NOBODY = 65534;
    // Only root can be somebody else, and only a device that is closed to others refuses them.
    if (process.getuid?.() !== 0 || (statSync('/dev/kvm').mode & 0o006) !== 0) return;
    expect(probeIn([], '/dev/kvm', NOBODY)).toMatchObject({
      available: false,
      cause: 'permission',
      reason: expect.stringContaining('/dev/kvm'),
      wayOut: expect.stringContaining('group'),
    });
  });

  test('a probe leaves nothing open', () => {
    for (let i = 0; i < 3; i++) expect(probeHost()).toEqual({ available: true });
    const kvm = openHost();
    expect(kvm.backend).toBe('host');
    kvm.close();
    expect(kvm.closed).toBe(true);
  });
});
