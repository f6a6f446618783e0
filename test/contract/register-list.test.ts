import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { RegGroup, regGroup, sysregId, sysregIndex, TARGET_GENERIC_V8, VcpuFeature } from '#lib/kvm/index.js';
import { openSoft } from '#lib/soft/index.js';

/** What a real kernel listed (data/73-registers.txt), against the software KVM; each difference with its reason. */

const RECORDED = readFileSync(new URL('data/73-registers.txt', import.meta.url), 'utf8').split('\n');
const recorded = (kind: string): string[][] =>
  RECORDED.filter((line) => line.startsWith(`${kind} `)).map((line) => line.split(' ').slice(1));

/** State that the processor here has and KVM does not keep: the OS Lock's relatives, and the context numbers of FEAT_CSV2_2. */
const MORE = [sysregId(2, 0, 0, 6, 2), sysregId(2, 0, 1, 3, 4), sysregId(3, 0, 13, 0, 7), sysregId(3, 3, 13, 0, 7)];

const hex = (ids: readonly bigint[]): string[] => ids.map((id) => `0x${id.toString(16)}`).sort();

function listOf(features: number): bigint[] {
  const vcpu = openSoft().createVm().createVcpu(0);
  vcpu.init(TARGET_GENERIC_V8, features);
  return vcpu.getRegList().filter((id) => regGroup(id) !== RegGroup.CORE);
}

describe('the software KVM lists what Linux 7.3 lists', () => {
  const psci = 1 << VcpuFeature.PSCI_0_2;

  test('registers', () => {
    expect(hex(listOf(psci))).toEqual([...recorded('R').map(([id]) => id), ...hex(MORE)].sort());
  });

  test("a PMU's registers", () => {
    const without = new Set(listOf(psci));
    const pmu = listOf(psci | (1 << VcpuFeature.PMU_V3)).filter((id) => !without.has(id));
    expect(hex(pmu)).toEqual(
      recorded('P')
        .map(([id]) => id!)
        .sort(),
    );
  });

  test('writable masks, but for those of AArch32', () => {
    const masks = [...openSoft().createVm().getRegWritableMasks()].map((mask) => `0x${mask.toString(16)}`);
    const theirs = masks.map(() => '0x0');
    for (const [index, mask] of recorded('M')) theirs[Number(index)] = mask!;
    const isAarch32 = (n: number): boolean => n >= 8 && n < 32;
    expect(masks).toEqual(theirs.map((mask, n) => (isAarch32(n) ? '0x0' : mask)));
    expect(sysregIndex(3, 0, 0, 1, 0) & 0x3f).toBe(8);
  });
});
