import { expect, test } from '@jest/globals';
import { open, probe } from '#lib/open.js';

test('probe says what is there, and why not', () => {
  const { kvm, soft, auto } = probe();
  expect(kvm).toEqual({ available: false, reason: expect.stringMatching(/\/dev\/kvm/) });
  expect(soft).toEqual({ available: true });
  expect(auto).toBe('soft');
});

test('auto and soft open the software KVM', () => {
  for (const backend of ['auto', 'soft', undefined] as const) {
    const kvm = open({ backend, clock: 'virtual' });
    expect(kvm.backend).toBe('soft');
    expect(kvm.getApiVersion()).toBe(12);
    kvm.close();
  }
});

test('what cannot be opened is an error that says why', () => {
  expect(() => open({ backend: 'kvm' })).toThrow(
    expect.objectContaining({
      code: 'ERR_BACKEND_UNAVAILABLE',
      message: expect.stringContaining(String((probe().kvm as { reason: string }).reason)),
    }),
  );
  expect(() => open({ backend: 'xen' as never })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  expect(() => open({ clock: 'sun' as never })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
});
