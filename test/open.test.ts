import { expect, test } from '@jest/globals';
import { probeHost } from '#lib/host/index.js';
import { open, probe } from '#lib/open.js';

/** The host's KVM runs arm64 guests on arm64 hosts only. */
const HAS_KVM = process.arch === 'arm64' && probeHost().available;

test('probe says what is there, and why not', () => {
  const { kvm, soft, auto } = probe();
  expect(kvm).toEqual(HAS_KVM ? { available: true } : { available: false, reason: expect.stringMatching(/kvm/) });
  expect(soft).toEqual({ available: true });
  expect(auto).toBe(HAS_KVM ? 'kvm' : 'soft');
});

test('auto and soft open the software KVM where the clock is virtual', () => {
  for (const backend of ['auto', 'soft', undefined] as const) {
    const kvm = open({ backend, clock: 'virtual' });
    expect(kvm.backend).toBe('soft');
    expect(kvm.getApiVersion()).toBe(12);
    kvm.close();
  }
});

(HAS_KVM ? test : test.skip)("kvm and auto open the host's KVM", () => {
  for (const backend of ['auto', 'kvm', undefined] as const) {
    const kvm = open({ backend });
    expect(kvm.backend).toBe('host');
    kvm.close();
  }
});

(HAS_KVM ? test.skip : test)("without the host's KVM, kvm is an error that says why", () => {
  expect(() => open({ backend: 'kvm' })).toThrow(
    expect.objectContaining({
      code: 'ERR_BACKEND_UNAVAILABLE',
      message: expect.stringContaining(String((probe().kvm as { reason: string }).reason)),
    }),
  );
});

test('what is no backend and no clock is an error', () => {
  expect(() => open({ backend: 'xen' as never })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  expect(() => open({ clock: 'sun' as never })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  expect(() => open({ codeCache: '' })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
});
