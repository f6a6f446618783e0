import { describe, expect, test } from '@jest/globals';
import type { HostFacts, ReadResult } from '#lib/host/info/facts.js';
import { foreignHost, refusalOf, sentence, whyClosed } from '#lib/host/info/refusal.js';
import { recorded, toNobody } from './recorded.ts';

const VHE = recorded('6.1-vhe');
/** A host that has KVM, as a program sees it that has no device node. */
const HIDDEN: HostFacts = { ...VHE, open: { error: 'ENOENT', message: '' } };

const withFiles = (facts: HostFacts, files: Readonly<Record<string, ReadResult>>): HostFacts => ({
  ...facts,
  files: { ...facts.files, ...files },
});
const withLog = (facts: HostFacts, ...lines: string[]): HostFacts => ({
  ...facts,
  log: { source: '/dev/kmsg', lines },
});

const NO_SYS = { '/sys/module': { error: 'ENOENT' }, '/sys/module/kvm': { error: 'ENOENT' } };
/** A kernel that has booted at EL2 and has no KVM, and says no word of it. */
const BARE: HostFacts = {
  ...withFiles(recorded('6.1-none'), { '/proc/cmdline': { text: 'quiet' }, ...NO_SYS }),
  log: undefined,
};

describe('why there is no KVM for arm64 guests', () => {
  const cases: readonly (readonly [string, HostFacts, string, RegExp, RegExp])[] = [
    ['another system', { ...VHE, platform: 'darwin' }, 'platform', /this is darwin/, /soft/],
    ['another architecture', { ...VHE, arch: 'x64' }, 'architecture', /this host is x64/, /soft/],
    ['a container', HIDDEN, 'no-device', /the kernel has KVM/, /--device=\/dev\/kvm/],
    ['a boot at EL1', recorded('6.1-el1'), 'el1-boot', /started at EL1/, /nested virtualization/],
    ['no log', { ...recorded('6.1-el1'), log: undefined }, 'el1-boot', /started at EL1/, /firmware/],
    ['none', recorded('6.1-none'), 'disabled', /kvm-arm\.mode=none/, /boot without/],
    ['no log, none', { ...recorded('6.1-none'), log: undefined }, 'disabled', /kvm-arm\.mode=none/, /soft/],
    ['no permission', toNobody(VHE), 'permission', /by this user/, /usermod -aG kvm/],
    ['EPERM', { ...VHE, open: { error: 'EPERM', message: '' } }, 'permission', /container/, /--device/],
    ['another device', { ...VHE, open: { error: 'ENOTTY', message: 'no KVM' } }, 'unusable', /^no KVM$/, /soft/],
    ['no addon', { ...VHE, open: { addon: 'not built', access: 'ok' } }, 'addon', /^not built$/, /soft/],
    ['nothing says', BARE, 'absent', /no KVM, was started without EL2/, /--device/],
  ];

  test.each(cases)('%s', (_, facts, cause, reason, wayOut) => {
    const refusal = refusalOf(facts);
    expect(refusal).toEqual({ cause, reason: expect.stringMatching(reason), wayOut: expect.stringMatching(wayOut) });
    expect(sentence(refusal!)).toBe(`${refusal!.reason}; ${refusal!.wayOut}`);
  });

  test('there is one', () => {
    expect(refusalOf(VHE)).toBeUndefined();
    expect(whyClosed({ ...VHE, arch: 'x64' })).toBeUndefined();
    expect(foreignHost('linux', 'arm64')).toBeUndefined();
  });

  test('CPUs that were not started alike', () => {
    const lines = ['CPU: CPUs started in inconsistent modes', 'kvm [1]: HYP mode not available'];
    const facts = withLog(recorded('6.1-el1'), ...lines);
    expect(refusalOf(facts)).toMatchObject({
      cause: 'el1-boot',
      reason: expect.stringMatching(/different exception levels/),
    });
  });

  test('a kernel without KVM, by its configuration or by what is not in /sys', () => {
    const config = withFiles(BARE, { [`/boot/config-${BARE.kernel}`]: { text: '# CONFIG_KVM is not set' } });
    expect(refusalOf(config)).toMatchObject({ cause: 'not-built', wayOut: expect.stringMatching(/CONFIG_KVM=y/) });
    const sys = { '/sys/module': { text: '' }, '/sys/module/kvm': { error: 'ENOENT' } };
    expect(refusalOf(withFiles(BARE, sys))).toMatchObject({ cause: 'not-built' });
    // A container without /sys knows nothing of it.
    expect(refusalOf(withFiles(BARE, { ...sys, '/sys/module': { error: 'ENOENT' } }))).toMatchObject({
      cause: 'absent',
    });
  });

  test('a KVM that gave up says so in its own words, where they can be read', () => {
    const line = 'kvm [1]: error initializing Hyp mode: -12';
    const facts = withLog(BARE, 'kvm [1]: IPA Size Limit: 48 bits', line);
    expect(refusalOf(facts)).toMatchObject({ cause: 'failed', reason: expect.stringContaining(line) });
    const sys = { '/sys/module': { text: '' }, '/sys/module/kvm': { text: '' } };
    expect(refusalOf(withFiles(BARE, sys))).toMatchObject({
      cause: 'failed',
      wayOut: expect.stringContaining('dmesg'),
    });
  });

  test('what keeps one from the device comes before the addon that would open it', () => {
    const open = { addon: 'not built', access: 'ENOENT' };
    expect(refusalOf({ ...recorded('6.1-el1'), open })).toMatchObject({ cause: 'el1-boot' });
    expect(refusalOf({ ...VHE, open })).toMatchObject({ cause: 'no-device' });
    expect(refusalOf({ ...VHE, open: { ...open, access: 'EACCES' } })).toMatchObject({ cause: 'permission' });
  });
});
