import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { askKvm, collectFacts, type HostSource } from '#lib/host/info/collect.js';
import { concludeHost } from '#lib/host/info/conclude.js';
import { access, thisMachine } from '#lib/host/info/system.js';
import { openSoft } from '#lib/soft/index.js';

const CLOSED = { error: 'ENOENT', message: 'there is none' } as const;

/** A host that has these files and logs, and nothing else. */
function source(files: Readonly<Record<string, string>>, others: Partial<HostSource> = {}): HostSource {
  return {
    platform: 'linux',
    arch: 'arm64',
    kernel: '6.1.0',
    pageSize: () => 4096,
    read: (path) => (path in files ? { text: files[path]! } : { error: 'ENOENT' }),
    logs: [],
    open: () => CLOSED,
    ...others,
  };
}

describe('the facts', () => {
  test('of a file are the lines that matter', () => {
    const interrupts =
      ' 10: 1 GICv3 30 Level arch_timer\n 11: 5 GICv3 42 Level uart\n 12: 0 GICv3 27 Level kvm guest vtimer\n';
    const { files } = collectFacts(
      source({ '/proc/interrupts': interrupts, '/proc/cmdline': 'quiet\n', '/proc/device-tree/psci/method': 'smc\0' }),
      '/dev/kvm',
    );
    expect(files['/proc/interrupts']).toEqual({ text: interrupts.replace(/ 11.*\n/, '').trimEnd() });
    expect(files['/proc/cmdline']).toEqual({ text: 'quiet' });
    expect(files['/proc/device-tree/psci/method']).toEqual({ text: 'smc' });
    expect(files['/proc/misc']).toEqual({ error: 'ENOENT' });
  });

  test('say what each CPU says alike once', () => {
    const cpu = 'processor\t: 0\nFeatures\t: fp\n\n';
    const { files } = collectFacts(source({ '/proc/cpuinfo': cpu + cpu }), '/dev/kvm');
    expect(files['/proc/cpuinfo']).toEqual({ text: 'Features\t: fp' });
  });

  test('are of the first log that has something to say', () => {
    const logs = [
      { source: 'forbidden', read: () => ({ error: 'EPERM' }) },
      { source: 'wrapped', read: () => ({ text: 'usb 1-1: new device\n' }) },
      { source: 'journal', read: () => ({ text: 'x\nkvm [1]: VHE mode initialized successfully\n' }) },
      { source: 'never asked', read: () => ({ text: 'kvm [1]: HYP mode not available' }) },
    ];
    const { log, logErrors } = collectFacts(source({}, { logs }), '/dev/kvm');
    expect(log).toEqual({ source: 'journal', lines: ['kvm [1]: VHE mode initialized successfully'] });
    expect(Object.keys(logErrors)).toEqual(['forbidden', 'wrapped']);
  });

  test('are none of files where there is no Linux', () => {
    const read = (): never => {
      throw new Error('nothing to read here');
    };
    expect(collectFacts(source({}, { platform: 'darwin', read }), '/dev/kvm').files).toEqual({});
  });

  test('leave KVM closed', () => {
    const kvm = openSoft();
    collectFacts(source({}, { open: () => ({ kvm }) }), '/dev/kvm');
    expect(kvm.closed).toBe(true);
  });

  test('that say nothing lead to no conclusion', () => {
    const info = concludeHost(
      collectFacts(source({}, { read: () => ({ error: 'EACCES' }), pageSize: () => 0 }), '/dev/kvm'),
    );
    for (const name of [
      'bootEl',
      'kernelEl',
      'kvmMode',
      'kvmModeFrom',
      'cpuVhe',
      'gic',
      'ipaBits',
      'pageSize',
    ] as const) {
      expect([name, info[name]]).toEqual([name, { value: null, confidence: 'none', evidence: [] }]);
    }
    expect(info.unread.map(({ source, error }) => `${source} ${error}`)).toContain('/proc/interrupts EACCES');
    expect(info.device).toMatchObject({ usable: false, cause: 'absent' });
  });
});

test('what KVM is asked, the software KVM answers as the kernel does', () => {
  const kvm = openSoft();
  try {
    expect(askKvm(kvm, true)).toEqual({
      capabilities: expect.objectContaining({ ARM_VM_IPA_SIZE: kvm.checkExtension(165), MAX_VCPUS: 512 }),
      createVm31: 'EINVAL',
      vgics: expect.arrayContaining(['ARM_VGIC_V3']),
      mmfr1: expect.stringMatching(/^0x[0-9a-f]+$/),
    });
    expect(Object.keys(askKvm(kvm, false))).toEqual(['capabilities']);
  } finally {
    kvm.close();
  }
});

describe('this machine', () => {
  const machine = thisMachine(() => CLOSED, { quick: true });

  test('has files, directories, and what is not there', () => {
    expect(machine.read(import.meta.dirname)).toEqual({ text: '' });
    expect(machine.read(import.meta.filename)).toEqual({ text: expect.stringContaining('has files, directories') });
    expect(machine.read('/nowhere/file')).toEqual({ error: 'ENOENT' });
    expect([access('/nowhere/kvm'), access('/dev/null')]).toEqual(['ENOENT', 'ok']);
  });

  test('has packed files', () => {
    const dir = mkdtempSync(join(tmpdir(), 'elvisor-'));
    try {
      writeFileSync(join(dir, 'config.gz'), gzipSync('# CONFIG_KVM is not set\n'));
      writeFileSync(join(dir, 'broken.gz'), 'no gzip');
      expect(machine.read(join(dir, 'config.gz'))).toEqual({ text: '# CONFIG_KVM is not set\n' });
      expect(machine.read(join(dir, 'broken.gz'))).toEqual({ error: 'Z_DATA_ERROR' });
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  test('has pages, and a log that is readable or not', () => {
    if (process.platform !== 'linux') return;
    expect([4096, 16384, 65536]).toContain(machine.pageSize());
    for (const log of machine.logs) {
      const result = log.read();
      if ('error' in result) expect(result.error).toMatch(/^E[A-Z]+$/);
      else expect(result.text).not.toMatch(/^\d+,\d+,\d+,/m);
    }
  });
});
