import { describe, expect, test } from '@jest/globals';
import { formatReport } from '#lib/cli/host.js';
import { concludeHost } from '#lib/host/info/conclude.js';
import type { HostFacts } from '#lib/host/info/facts.js';
import { hostInfo, type Probe, probe } from '#lib/open.js';
import { recorded, toNobody } from '../host/info/recorded.ts';
import { elvisor } from './launcher.ts';

const KVM: Probe = { kvm: { available: true }, soft: { available: true }, auto: 'kvm' };
const SOFT: Probe = { kvm: { available: false, reason: 'no' }, soft: { available: true }, auto: 'soft' };

const text = (facts: HostFacts, backends: Probe): string => formatReport({ ...concludeHost(facts), backends });
/** A row by its label, without it. */
const row = (report: string, label: string): string | undefined =>
  new RegExp(`^${label} +(.*)$`, 'm').exec(report)?.[1];

describe('the report', () => {
  test('of a host with KVM', () => {
    const report = text(recorded('7.3-protected'), KVM);
    expect(row(report, 'host')).toBe('arm64, Linux 7.3.4+deb13-cloud-arm64');
    expect(row(report, '/dev/kvm')).toBe('works');
    expect(row(report, 'backend')).toBe('auto takes kvm');
    expect(row(report, 'boot EL')).toMatch(/^EL2 +CPU: All CPU\(s\) started at EL2 \(\/dev\/kmsg\)$/);
    expect(row(report, 'kernel EL')).toMatch(/^EL1 /);
    expect(row(report, 'KVM mode')).toMatch(/^protected hVHE /);
    expect(row(report, 'mode is from')).toMatch(/^the command line +kvm-arm\.mode=protected \(\/proc\/cmdline\)$/);
    expect(row(report, "guests' GIC")).toMatch(/^GICv3, ITS /);
    expect(row(report, 'PMU')).toMatch(/^host yes, guests yes /);
    expect(report).toMatch(/\n\n.*pKVM.*\n$/);
  });

  test('says what it is not sure of, and what has had no effect', () => {
    const report = text(toNobody(recorded('6.1-protected')), SOFT);
    expect(row(report, 'KVM mode')).toMatch(/^protected nVHE, likely /);
    expect(report).toMatch(/\n\nNot read: \/dev\/kmsg \(EPERM\), journalctl.*\.\n$/);
    expect(row(text(recorded('7.3-nested-nonv2'), KVM), 'mode is from')).toMatch(/^the CPU +kvm-arm\.mode=nested/);
  });

  test('of a host without says why, and the way out', () => {
    const report = text(recorded('6.1-el1'), SOFT);
    expect(row(report, '/dev/kvm')).toBe('cannot be used');
    expect(report).toMatch(/\n +there is no \/dev\/kvm: the kernel was started at EL1.*\n +on a machine of your own/);
    expect(row(report, 'backend')).toBe('auto takes soft');
    expect(row(report, 'KVM mode')).toMatch(/^none /);
  });

  test('of a host that is not arm64 is short', () => {
    const report = text({ ...recorded('6.1-vhe'), arch: 'x64' }, SOFT);
    expect(row(report, '/dev/kvm')).toMatch(/^opens, but/);
    expect(report).not.toMatch(/EL2|VHE/);
  });

  test('has no trailing blanks', () => {
    expect(text(recorded('6.1-vhe'), KVM)).not.toMatch(/ $/m);
  });
});

test('the JSON has the fields that it has always had', () => {
  const fields = [
    ...['platform', 'arch', 'kernel', 'bootEl', 'kernelEl', 'kvmMode', 'kvmModeFrom', 'kvmModeAsked', 'cpuVhe', 'gic'],
    ...['guestGics', 'ipaBits', 'pageSize', 'capabilities', 'pmu', 'sve', 'mte', 'device', 'unread'],
  ];
  for (const name of ['6.1-vhe', '6.1-el1']) {
    const info = JSON.parse(JSON.stringify(concludeHost(recorded(name))));
    expect(Object.keys(info)).toEqual(expect.arrayContaining(fields));
    expect(info.bootEl).toEqual({ value: expect.anything(), confidence: 'certain', evidence: expect.any(Array) });
    expect(Object.keys(info.device)).toEqual(expect.arrayContaining(['path', 'opens', 'usable']));
  }
});

describe('elvisor host', () => {
  test('prints this machine, for people and as JSON', async () => {
    const plain = await elvisor(['host']);
    expect(plain).toMatchObject({ status: 0, stderr: '' });
    expect(plain.stdout).toContain(process.arch);
    const { status, stdout } = await elvisor(['host', '--json']);
    expect(status).toBe(0);
    const { backends, ...info } = JSON.parse(stdout);
    expect(backends).toEqual(probe());
    expect(info).toEqual(JSON.parse(JSON.stringify(hostInfo())));
  });

  test('refuses what it does not know', async () => {
    expect(await elvisor(['host', '--yaml'])).toMatchObject({ status: 2, stdout: '' });
  });
});

test('what elvisor run cannot use, it refuses in the words of elvisor host', async () => {
  const { device } = hostInfo();
  if (device.usable) return;
  const { status, stderr } = await elvisor(['run', '--backend', 'kvm']);
  expect(status).toBe(3);
  expect(stderr).toContain(`${device.reason}; ${device.wayOut}`);
});
