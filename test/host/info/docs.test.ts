import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { concludeHost } from '#lib/host/info/conclude.js';
import { decideMode, isBefore, type ModeConditions } from '#lib/host/info/modes.js';
import { RECORDED, recorded } from './recorded.ts';

const PAGE = readFileSync(new URL('../../../docs/exception-levels.md', import.meta.url), 'utf8');

/** The decision table as the page has it. */
const ROWS = PAGE.split('\n')
  .filter((line) => /^\| (EL1|EL2|mixed) \|/.test(line))
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .map(([, boot, vhe, option, override, since, kernelEl, mode, seen]) => ({
    boot: boot!,
    vhe: vhe!.split(', '),
    nv2: option!.includes('FEAT_NV2'),
    option: option!.replace(', with FEAT_NV2', '').split(', '),
    override: override!,
    since: since === 'any' ? ([0, 0] as const) : (since!.split('.').map(Number) as [number, number]),
    kernelEl,
    mode,
    seen: seen === '–' ? [] : seen!.split(', '),
  }));

const has = (cell: readonly string[], value: string): boolean => cell[0] === 'any' || cell.includes(value);

function decideByPage(conditions: ModeConditions): (typeof ROWS)[number] | undefined {
  return ROWS.find(
    (row) =>
      row.boot === conditions.boot &&
      has(row.vhe, conditions.vhe) &&
      has(row.option, conditions.option) &&
      has([row.override], conditions.override) &&
      (!row.nv2 || conditions.nv2) &&
      !isBefore(conditions.kernel, row.since),
  );
}

test('the table in docs/exception-levels.md is the one in code', () => {
  const used = new Set<unknown>();
  for (const boot of ['EL1', 'EL2', 'mixed'] as const) {
    for (const vhe of ['no', 'yes', 'only'] as const) {
      for (const nv2 of [false, true]) {
        for (const option of ['default', 'nvhe', 'protected', 'nested', 'none'] as const) {
          for (const override of ['no', 'vh=0', 'hvhe=1'] as const) {
            for (const kernel of [
              [6, 1],
              [6, 12],
              [7, 3],
            ] as const) {
              const conditions = { boot, vhe, nv2, option, override, kernel };
              const row = decideByPage(conditions);
              used.add(row);
              const { kernelEl, mode } = decideMode(conditions);
              expect({ conditions, kernelEl: row?.kernelEl, mode: row?.mode }).toEqual({ conditions, kernelEl, mode });
            }
          }
        }
      }
    }
  }
  expect(ROWS.filter((row) => !used.has(row))).toEqual([]);
});

test('what the page says was seen was', () => {
  for (const { seen, boot, kernelEl, mode } of ROWS) {
    for (const name of seen) {
      const info = concludeHost(recorded(name));
      expect([name, info.bootEl.value, info.kernelEl.value, info.kvmMode.value]).toEqual([name, boot, kernelEl, mode]);
    }
  }
  const missing = RECORDED.filter((name) => !PAGE.includes(name));
  expect(missing).toEqual([]);
});
