import { expect, test } from '@jest/globals';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import type { SoftMachine } from '#lib/soft/cpu/machine.js';
import { addImm, blr, cbnz, hvc, ISB, movz, RET, store, subsImm } from '../a64.ts';
import { BareMetal, DATA } from '../bare-metal.ts';

/** A guest that makes code for ever is given a bounded amount of memory for it, and goes on. */

const ADD_X2_X1 = 0x8b010042;
const ADD_X0_PAGE = 0x91400400; // add x0, x0, #1, lsl #12
/** ADD W4, W4, #32: the immediate of a MOVZ goes up by one. */
const NEXT_MOVZ = 0x11008084;

/** Linear memory that is kept for decoded code and vCPUs. */
const RESERVED = 128 * 1024 * 1024;

const ROUNDS = 3;

test.each([
  // Decoded, they would be more than is kept for them.
  ['more pages of code than are held at once', 8600, 1],
  ['more regions than are held at once', 300, 64],
])('%s', (_name, pages, functions) => {
  const size = 0x1000 / functions - ((0x1000 / functions) % 8);
  const vm = new BareMetal({ threshold: 1, ram: DATA - 0x4000_0000 + pages * 0x1000 });
  const machine = vm.machine as SoftMachine;
  // Writes MOVZ X1, #n and RET as each function of a page, n being another each time round, and calls each twice.
  const body: number[] = [];
  for (let f = 0; f < functions; f++) body.push(store(4, 4, 0, f * size), store(4, 5, 0, f * size + 4));
  body.push(ISB);
  for (let f = 0; f < functions; f++) {
    body.push(addImm(6, 0, f * size), blr(6), ADD_X2_X1, blr(6), ADD_X2_X1);
  }
  body.push(ADD_X0_PAGE, subsImm(3, 3, 1));
  const at = vm.place([...body, cbnz(3, -body.length), NEXT_MOVZ, hvc(0)]);
  const { available } = machine;
  vm.cpu.setX(4, BigInt(movz(1, 1)));
  vm.cpu.setX(5, BigInt(RET));
  for (let n = 1; n <= ROUNDS; n++) {
    vm.cpu.setPc(BigInt(at));
    vm.cpu.setX(0, BigInt(DATA));
    vm.cpu.setX(2, 0n);
    vm.cpu.setX(3, BigInt(pages));
    while (vm.cpu.run(1000) === CpuStop.BUDGET);
    expect(vm.cpu.hvcImmediate).toBe(0);
    expect(vm.cpu.getX(2)).toBe(BigInt(2 * n * functions * pages));
    expect(available - machine.available).toBeLessThan(RESERVED);
  }
  // Nearly all of them were compiled, each time: numbers of regions do not run out.
  expect(machine.stats.regions).toBeGreaterThan(0.97 * ROUNDS * pages * functions);
});

test('where linear memory is used up, pages of code have the room of earlier ones', () => {
  const PAGES = 200;
  const vm = new BareMetal({ threshold: 1, ram: DATA - 0x4000_0000 + PAGES * 0x1000 });
  // Some code has been met by then.
  vm.execute([addImm(1, 1, 1)]);
  vm.machine.allocate(vm.machine.available);
  expect(() => {
    for (;;) vm.createCpu();
  }).toThrow('no room');
  for (let n = 0; n < PAGES; n++) vm.place([addImm(2, 2, 1), RET], DATA + n * 0x1000);
  const at = vm.place([blr(0), ADD_X0_PAGE, subsImm(3, 3, 1), cbnz(3, -3), hvc(0)]);
  for (let n = 1; n <= ROUNDS; n++) {
    expect(vm.start(at, { x: { 0: DATA, 2: 0, 3: PAGES } }).done).toBe(true);
    expect(vm.cpu.getX(2)).toBe(BigInt(PAGES));
  }
});
