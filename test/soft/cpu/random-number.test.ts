import { expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { openSoft } from '#lib/soft/index.js';
import { DEVICE, describeExit, makeVm, RAM } from '../../contract/machine.ts';
import { hvc, mov, mrs, msr, store } from '../a64.ts';
import { BareMetal, EL0T, REG } from '../bare-metal.ts';

/** FEAT_RNG: RNDR and RNDRRS. */

const RNDR = sysregIndex(3, 3, 2, 4, 0);
const RNDRRS = sysregIndex(3, 3, 2, 4, 1);
const ISAR0 = sysregIndex(3, 0, 0, 6, 0);

test('both read what the host draws, at both ELs, and clear NZCV', () => {
  const drawn = [7n, 2n ** 64n - 1n, 0n, 1n << 63n];
  let next = 0;
  const vm = new BareMetal({ host: { random64: () => drawn[next++ % drawn.length]! } });
  expect(vm.sysreg(ISAR0) >> 60n).toBe(1n);
  for (const pstate of [undefined, EL0T]) {
    next = 0;
    const o = vm.execute(
      [
        msr(REG.NZCV, 9),
        mrs(1, RNDR),
        mrs(2, REG.NZCV),
        mrs(3, RNDRRS),
        mrs(4, RNDR),
        mrs(5, RNDRRS),
        mrs(6, REG.NZCV),
      ],
      { x: { 9: 0xf000_0000 }, ...(pstate === undefined ? {} : { pstate }) },
    );
    expect(o.done).toBe(true);
    expect([1, 3, 4, 5].map((n) => vm.cpu.getX(n))).toEqual(drawn);
    expect([vm.cpu.getX(2), vm.cpu.getX(6)]).toEqual([0n, 0n]);
  }
  // They are read-only.
  expect([vm.execute([msr(RNDR, 1)]).ec, vm.execute([msr(RNDRRS, 1)]).ec]).toEqual([0, 0]);
});

test('without a host that draws there is none', () => {
  const vm = new BareMetal();
  expect(vm.sysreg(ISAR0) >> 60n).toBe(0n);
  expect([vm.execute([mrs(1, RNDR)]).ec, vm.execute([mrs(1, RNDRRS)], { pstate: EL0T }).ec]).toEqual([0, 0]);
});

test('on the virtual clock two runs draw the same numbers, each its own; on the host clock they differ', () => {
  const run = (clock: 'host' | 'virtual'): string[] => {
    const { vcpus, load } = makeVm(openSoft({ clock }), {});
    load(RAM, [...mov(2, DEVICE), mrs(1, RNDR), store(8, 1, 2), mrs(1, RNDRRS), store(8, 1, 2), hvc(0)]);
    const exits = [];
    while (exits.length < 2) {
      const exit = vcpus[0]!.run(10);
      if (exit.reason !== 'intr') exits.push(describeExit(exit));
    }
    return exits;
  };
  const once = run('virtual');
  expect(run('virtual')).toEqual(once);
  expect(once[0]).not.toBe(once[1]);
  expect(run('host')).not.toEqual(run('host'));
});
