import { describe, expect, test } from '@jest/globals';
import { parseRegionName, regionName } from '#lib/soft/jit/region-name.js';

describe('names of regions', () => {
  test('say exception level, virtual and guest-physical address of the first instruction', () => {
    const name = regionName({ el: 1, lo: 0x0801_2000, hi: 0xffff_ffc0 }, 0x4021_2000, 0x28);
    expect(name).toBe('guest EL1 0xffffffc0080120a0 ipa 0x402120a0');
    expect(parseRegionName(name)).toEqual({ el: 1, va: 0xffff_ffc0_0801_20a0n, ipa: 0x4021_20a0 });
  });

  test('leave out what is not known', () => {
    expect(parseRegionName(regionName(undefined, 0x4000_0000, 1))).toEqual({
      el: undefined,
      va: undefined,
      ipa: 0x4000_0004,
    });
    const user = regionName({ el: 0, lo: 0x40_0000, hi: 0 }, undefined, 0);
    expect(user).toBe('guest EL0 0x0000000000400000');
    expect(parseRegionName(user)).toEqual({ el: 0, va: 0x40_0000n, ipa: undefined });
    expect(regionName(undefined, undefined, 0)).toBe('guest');
  });

  test.each(['interpreter', 'guestFork', 'guest EL2 0x0', 'guest ipa 0x1 ', ''])('are not %j', (name) => {
    expect(parseRegionName(name)).toBeUndefined();
  });
});
