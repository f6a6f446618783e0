import { describe, expect, test } from '@jest/globals';
import { concludeHost } from '#lib/host/info/conclude.js';
import type { BootEl, CpuVhe, KernelEl, KvmMode } from '#lib/host/info/modes.js';
import { decideMode, parseCommandLine } from '#lib/host/info/modes.js';
import type { HostInfo, ModeOrigin } from '#lib/host/info/types.js';
import { RECORDED, recorded, toNobody, withoutLog } from './recorded.ts';

/** What each host is: known from how it was started. */
const HOSTS: Readonly<Record<string, readonly [BootEl, KernelEl, CpuVhe, KvmMode, ModeOrigin]>> = {
  '6.1-vhe': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
  '6.1-nvhe': ['EL2', 'EL1', 'yes', 'nvhe', 'command-line'],
  '6.1-protected': ['EL2', 'EL1', 'yes', 'protected-nvhe', 'command-line'],
  '6.1-none': ['EL2', 'EL2', 'yes', 'none', 'command-line'],
  '6.1-a57': ['EL2', 'EL1', 'no', 'nvhe', 'cpu'],
  '6.1-a57-nvhe': ['EL2', 'EL1', 'no', 'nvhe', 'cpu'],
  '6.1-el1': ['EL1', 'EL1', 'yes', 'none', 'boot'],
  '6.1-gicv2': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
  '6.12-nvhe': ['EL2', 'EL1', 'yes', 'nvhe', 'command-line'],
  '6.12-protected': ['EL2', 'EL1', 'yes', 'protected-hvhe', 'command-line'],
  '6.12-vh0': ['EL2', 'EL1', 'yes', 'nvhe', 'command-line'],
  '6.12-el1-ignored': ['EL1', 'EL1', 'yes', 'none', 'boot'],
  '6.12-none-vh0': ['EL2', 'EL1', 'yes', 'none', 'command-line'],
  '6.12-none-hvhe': ['EL2', 'EL1', 'yes', 'none', 'command-line'],
  '6.12-a57-none': ['EL2', 'EL1', 'no', 'none', 'command-line'],
  '6.12-a57-nested': ['EL2', 'EL1', 'no', 'nvhe', 'cpu'],
  '6.12-a57-protected': ['EL2', 'EL1', 'no', 'protected-nvhe', 'command-line'],
  '6.12-16k': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
  '7.3-vhe': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
  '7.3-nvhe': ['EL2', 'EL1', 'yes', 'nvhe', 'command-line'],
  '7.3-protected': ['EL2', 'EL1', 'yes', 'protected-hvhe', 'command-line'],
  '7.3-hvhe': ['EL2', 'EL1', 'yes', 'hvhe', 'command-line'],
  '7.3-none': ['EL2', 'EL2', 'yes', 'none', 'command-line'],
  '7.3-nested-nonv2': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
  '6.12-nested': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
  '7.3-nested': ['EL2', 'EL2', 'yes', 'nested', 'command-line'],
  '7.3-16k': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
  '7.3-sve-mte': ['EL2', 'EL2', 'yes', 'vhe', 'cpu'],
};

/** Where KVM gave up, and its words: both want a GICv3. No table of exception levels knows. */
const FAILED = {
  '7.3-gicv2-protected': ['EL1', 'GICv2 not supported in protected mode'],
  '7.3-gicv2-nested': ['EL2', 'NV support requires GICv3'],
} as const;

/** The findings that {@link HOSTS} knows of, as it has them. */
const known = ({ bootEl, kernelEl, cpuVhe, kvmMode, kvmModeFrom }: HostInfo): unknown[] =>
  [bootEl, kernelEl, cpuVhe, kvmMode, kvmModeFrom].map(({ value }) => value);

test('every record is looked at', () => {
  expect(RECORDED.toSorted()).toEqual([...Object.keys(HOSTS), ...Object.keys(FAILED)].toSorted());
});

describe.each(Object.entries(HOSTS))('%s', (name, truth) => {
  const facts = recorded(name);
  const [boot, kernelEl, vhe, mode] = truth;

  test('is what it is, and surely so', () => {
    const info = concludeHost(facts);
    expect(known(info)).toEqual(truth);
    for (const { confidence, evidence } of [info.bootEl, info.kernelEl, info.kvmMode, info.kvmModeFrom]) {
      expect(confidence).toBe('certain');
      expect(evidence.length).toBeGreaterThan(0);
    }
  });

  test('is the same without the log', () => {
    const info = concludeHost(withoutLog(facts));
    expect(known(info)).toEqual(truth);
    expect(info.kvmMode.evidence).not.toEqual([]);
    expect(info.unread.map(({ source }) => source)).toContain('/dev/kmsg');
  });

  test('is the same to a user who may not open /dev/kvm', () => {
    const info = concludeHost(toNobody(facts));
    if (info.kvmModeAsked.value === 'nested' && mode !== 'nvhe') {
      // VHE may be nested VHE, which only KVM itself and the log know.
      expect(known(info)).toEqual([boot, kernelEl, vhe, 'vhe', 'cpu']);
      expect([info.kvmMode.confidence, info.kvmModeFrom.confidence]).toEqual(['guess', 'guess']);
    } else {
      expect(known(info)).toEqual(truth);
      expect(['certain', 'likely']).toContain(info.kvmMode.confidence);
    }
  });

  test('is what the decision table says, down to the words of the log', () => {
    const [, major, minor] = /^(\d+)\.(\d+)/.exec(facts.kernel)!;
    const { option, override } = parseCommandLine((facts.files['/proc/cmdline'] as { text: string }).text);
    const nv2 = concludeHost(facts).kvmMode.value === 'nested';
    const row = decideMode({ boot, vhe, nv2, option, override, kernel: [Number(major), Number(minor)] });
    expect(row).toMatchObject({ kernelEl, mode });
    expect(facts.log!.lines.filter((line) => row.says.test(line))).toHaveLength(1);
  });

  test('has a KVM or says why not', () => {
    const { device, ipaBits, pageSize } = concludeHost(facts);
    expect(pageSize.value).toBe(name.endsWith('16k') ? 16384 : 4096);
    if (mode !== 'none') {
      expect(device).toEqual({ path: '/dev/kvm', opens: true, usable: true });
      expect(ipaBits.value).toBeGreaterThanOrEqual(40);
    } else {
      expect(device).toMatchObject({ opens: false, usable: false, cause: boot === 'EL1' ? 'el1-boot' : 'disabled' });
      expect(concludeHost(toNobody(facts)).device).toEqual(device);
    }
  });
});

test('a host with a GICv2 gives its guests that, and nothing else', () => {
  const { gic, guestGics } = concludeHost(recorded('6.1-gicv2'));
  expect([gic.value, guestGics.value]).toEqual(['GICv2', ['ARM_VGIC_V2']]);
  const v3 = concludeHost(recorded('6.1-vhe'));
  expect([v3.gic.value, v3.guestGics.value]).toEqual(['GICv3', ['ARM_VGIC_V3', 'ARM_VGIC_ITS']]);
});

test('guests have what the CPU has and KVM gives: SVE, MTE, a PMU', () => {
  const { sve, mte, pmu } = concludeHost(recorded('7.3-sve-mte'));
  expect([sve, mte, pmu].map(({ host, guest }) => [host.value, guest.value])).toEqual([
    [true, true],
    [true, true],
    [true, true],
  ]);
  const n1 = concludeHost(recorded('7.3-vhe'));
  expect([n1.sve, n1.mte].map(({ host, guest }) => [host.value, guest.value])).toEqual([
    [false, false],
    [false, false],
  ]);
});

test.each(Object.entries(FAILED))('%s: a KVM that gave up is none, and why is in its words', (name, [el, words]) => {
  const facts = recorded(name);
  expect(concludeHost(facts)).toMatchObject({
    bootEl: { value: 'EL2' },
    kernelEl: { value: el },
    kvmMode: { value: 'none', confidence: 'certain' },
    device: { cause: 'failed', reason: expect.stringContaining(words) },
  });
  expect(concludeHost(withoutLog(facts))).toMatchObject({ kvmMode: { value: 'none' }, device: { cause: 'failed' } });
});

test('where /proc/interrupts is hidden, as containers may have it, the command line and KVM tell', () => {
  for (const [name, truth] of Object.entries(HOSTS)) {
    const facts = withoutLog(recorded(name));
    const hidden = { ...facts, files: { ...facts.files, '/proc/interrupts': { text: '' } } };
    if (truth[3] !== 'none') expect([name, ...known(concludeHost(hidden))]).toEqual([name, ...truth]);
  }
});

describe('what no lab had', () => {
  const vhe = recorded('6.12-16k');
  const files = (others: Readonly<Record<string, string>>) => ({
    ...vhe.files,
    ...Object.fromEntries(Object.entries(others).map(([path, text]) => [path, { text }])),
  });

  test('Apple numbers its interrupts in its own way, and its CPUs have VHE only', () => {
    const apple = {
      '/proc/interrupts':
        '2: 9 AIC 0 Level arch_timer\n3: 0 AIC 2 Level kvm guest ptimer\n4: 0 AIC 3 Level kvm guest vtimer',
      '/proc/cpuinfo': 'Features : fp asimd atomics\nCPU implementer : 0x61',
    };
    const plain = withoutLog({ ...vhe, files: files(apple) });
    expect(known(concludeHost(plain))).toEqual(['EL2', 'EL2', 'only', 'vhe', 'cpu']);
    expect(concludeHost(plain).gic.value).toBe('AIC');
    // nvhe is refused there: it is still VHE, and by the CPU.
    const refused = { ...plain, files: files({ ...apple, '/proc/cmdline': 'kvm-arm.mode=nvhe' }) };
    expect(known(concludeHost(refused))).toEqual(['EL2', 'EL2', 'only', 'vhe', 'cpu']);
  });

  test('an interrupt controller by other names', () => {
    const gic = (line: string) =>
      concludeHost({ ...vhe, files: files({ '/proc/interrupts': line }), log: undefined }).gic.value;
    expect(gic('3: 5 7 GIC-0 26 Level arch_timer')).toBe('GICv2');
    expect(gic('3: 5 7 GICv5-PPI 28 Level arch_timer')).toBe('GICv5');
    expect(gic('3: 5 7 PLIC 28 Level arch_timer')).toBeNull();
  });

  test('CPUs that were not started alike', () => {
    const log = {
      source: '/dev/kmsg',
      lines: ['CPU: CPUs started in inconsistent modes', 'kvm [1]: HYP mode not available'],
    };
    const facts = { ...recorded('6.1-el1'), log };
    expect(known(concludeHost(facts)).toSpliced(2, 1)).toEqual(['mixed', 'EL1', 'none', 'boot']);
  });

  test('what contradicts itself is told with less confidence', () => {
    const facts = { ...vhe, files: files({ '/proc/interrupts': '13: 1 GICv3 30 Level arch_timer' }) };
    const { kernelEl } = concludeHost(facts);
    expect(kernelEl.confidence).toBe('likely');
    expect(kernelEl.evidence.length).toBeGreaterThan(1);
  });

  test('no arm64, no exception level', () => {
    for (const others of [{ arch: 'x64' }, { platform: 'darwin', files: {}, log: undefined, arch: 'arm' }]) {
      const info = concludeHost({ ...vhe, ...others });
      expect(known(info)).toEqual([null, null, null, null, null]);
      expect(info.device.usable).toBe(false);
    }
  });
});
