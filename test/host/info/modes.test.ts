import { describe, expect, test } from '@jest/globals';
import {
  type CpuVhe,
  decideMode,
  type KernelEl,
  type KvmMode,
  MODE_TABLE,
  type ModeConditions,
  parseCommandLine,
} from '#lib/host/info/modes.js';

const OLD = [6, 1] as const;
const NEW = [7, 3] as const;

/** What decides, on a kernel that was started at EL2 with nothing on its command line, and what differs from that. */
const at = (vhe: CpuVhe, others: Partial<ModeConditions> = {}): ModeConditions => ({
  boot: 'EL2',
  vhe,
  nv2: false,
  option: 'default',
  override: 'no',
  kernel: NEW,
  ...others,
});

describe('the decision table', () => {
  // From Linux's sources and, where a lab could be had, from what such a host became (reference: docs/exception-levels.md).
  const rows: readonly (readonly [ModeConditions, KernelEl, KvmMode])[] = [
    [at('yes', { boot: 'EL1' }), 'EL1', 'none'],
    [at('yes', { boot: 'EL1', option: 'none' }), 'EL1', 'none'],
    [at('yes', { boot: 'EL1', option: 'nvhe' }), 'EL1', 'none'],
    [at('no', { boot: 'EL1', option: 'protected' }), 'EL1', 'none'],
    [at('yes', { boot: 'EL1', option: 'nested', nv2: true }), 'EL1', 'none'],
    [at('yes', { boot: 'mixed' }), 'EL1', 'none'],
    [at('no'), 'EL1', 'nvhe'],
    [at('no', { option: 'nvhe' }), 'EL1', 'nvhe'],
    [at('no', { option: 'protected' }), 'EL1', 'protected-nvhe'],
    [at('no', { option: 'protected', kernel: OLD }), 'EL1', 'protected-nvhe'],
    [at('no', { option: 'nested' }), 'EL1', 'nvhe'],
    [at('no', { option: 'none' }), 'EL1', 'none'],
    [at('no', { override: 'hvhe=1' }), 'EL1', 'nvhe'],
    [at('yes'), 'EL2', 'vhe'],
    [at('yes', { option: 'nvhe' }), 'EL1', 'nvhe'],
    [at('yes', { override: 'vh=0' }), 'EL1', 'nvhe'],
    [at('yes', { override: 'hvhe=1' }), 'EL1', 'hvhe'],
    [at('yes', { override: 'hvhe=1', kernel: OLD }), 'EL2', 'vhe'],
    [at('yes', { option: 'protected' }), 'EL1', 'protected-hvhe'],
    [at('yes', { option: 'protected', kernel: [6, 5] }), 'EL1', 'protected-hvhe'],
    [at('yes', { option: 'protected', kernel: [6, 4] }), 'EL1', 'protected-nvhe'],
    [at('yes', { option: 'protected', kernel: OLD }), 'EL1', 'protected-nvhe'],
    [at('yes', { option: 'nested', nv2: true }), 'EL2', 'nested'],
    [at('yes', { option: 'nested', nv2: true, kernel: [6, 12] }), 'EL2', 'vhe'],
    [at('yes', { option: 'nested', nv2: true, override: 'vh=0' }), 'EL1', 'nvhe'],
    [at('yes', { option: 'nested' }), 'EL2', 'vhe'],
    [at('yes', { option: 'none' }), 'EL2', 'none'],
    [at('yes', { option: 'none', override: 'vh=0' }), 'EL1', 'none'],
    [at('yes', { option: 'none', override: 'hvhe=1' }), 'EL1', 'none'],
    [at('only'), 'EL2', 'vhe'],
    [at('only', { option: 'nvhe' }), 'EL2', 'vhe'],
    [at('only', { override: 'vh=0' }), 'EL2', 'vhe'],
    [at('only', { override: 'hvhe=1' }), 'EL1', 'hvhe'],
    [at('only', { option: 'protected' }), 'EL1', 'protected-hvhe'],
    [at('only', { option: 'protected', kernel: OLD }), 'EL2', 'vhe'],
    [at('only', { option: 'none', override: 'vh=0' }), 'EL2', 'none'],
    [at('only', { option: 'nested', nv2: true }), 'EL2', 'nested'],
  ];

  test.each(rows)('%j', (conditions, kernelEl, mode) => {
    expect(decideMode(conditions)).toMatchObject({ kernelEl, mode });
  });

  test('no row of it is without effect', () => {
    const used = new Set(rows.map(([conditions]) => decideMode(conditions)));
    expect(MODE_TABLE.filter((row) => !used.has(row))).toEqual([]);
  });

  test('a kernel at EL2 was started there, by a CPU that has VHE', () => {
    for (const boot of ['EL1', 'EL2', 'mixed'] as const) {
      for (const vhe of ['no', 'yes', 'only'] as const) {
        for (const nv2 of [false, true]) {
          for (const option of ['default', 'nvhe', 'protected', 'nested', 'none'] as const) {
            for (const override of ['no', 'vh=0', 'hvhe=1'] as const) {
              for (const kernel of [OLD, [6, 12], NEW] as const) {
                const { kernelEl, mode } = decideMode({ boot, vhe, nv2, option, override, kernel });
                if (kernelEl === 'EL2') expect([boot, vhe]).not.toContain(boot === 'EL2' ? 'no' : boot);
                if (mode === 'vhe' || mode === 'nested') expect(kernelEl).toBe('EL2');
                else if (mode !== 'none') expect(kernelEl).toBe('EL1');
                if (boot !== 'EL2' || option === 'none') expect(mode).toBe('none');
              }
            }
          }
        }
      }
    }
  });
});

describe('a command line', () => {
  test.each([
    ['', 'default', 'no', undefined],
    ['quiet console=ttyAMA0', 'default', 'no', undefined],
    ['kvm-arm.mode=nvhe', 'nvhe', 'no', 'nvhe'],
    ['kvm_arm.mode=protected quiet', 'protected', 'no', 'protected'],
    ['"kvm-arm.mode=nested"', 'nested', 'no', 'nested'],
    ['kvm-arm.mode="none"', 'none', 'no', 'none'],
    ['kvm-arm.mode=nvhe kvm-arm.mode=protected', 'protected', 'no', 'protected'],
    ['kvm-arm.mode=nvhe kvm-arm.mode=fast', 'nvhe', 'no', 'fast'],
    ['kvm-arm.mode=vhe', 'default', 'no', 'vhe'],
    ['kvm-arm.mode', 'default', 'no', undefined],
    ['xkvm-arm.mode=nvhe', 'default', 'no', undefined],
    ['init=/bin/sh -- kvm-arm.mode=nvhe', 'default', 'no', undefined],
    ['id_aa64mmfr1.vh=0', 'default', 'vh=0', undefined],
    ['id-aa64mmfr1.vh=0x0', 'default', 'vh=0', undefined],
    ['id_aa64mmfr1.vh=1', 'default', 'no', undefined],
    ['arm64_sw.hvhe=1\n', 'default', 'hvhe=1', undefined],
    ['arm64_sw.hvhe=0', 'default', 'no', undefined],
  ])('%j', (line, option, override, asked) => {
    expect(parseCommandLine(line)).toEqual({ option, override, asked });
  });
});
