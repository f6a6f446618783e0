import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { KvmError } from '#lib/kvm/index.js';
import { GuestAccess } from '#lib/soft/kernel/guest-access.js';
import { Memslots } from '#lib/soft/kernel/memslots.js';
import type { Distributor } from '#lib/soft/kernel/vgic/distributor.js';
import { readIcc, writeIcc } from '#lib/soft/kernel/vgic/icc.js';
import { Lpis } from '#lib/soft/kernel/vgic/lpis.js';
import { RedistributorRegion } from '#lib/soft/kernel/vgic/redistributor.js';
import { Vgic } from '#lib/soft/kernel/vgic/vgic.js';
import { SoftKvm } from '#lib/soft/soft-kvm.js';
import { makeVm } from '../../contract/machine.ts';
import { FakeMachine } from './fake-cpu.ts';

function makeVgic() {
  const lines: boolean[][] = [[], []];
  const vcpus = [0, 1].map((id) => ({
    id,
    affinity: id,
    setInterruptLines(irq: boolean, fiq: boolean): void {
      lines[id] = [irq, fiq];
    },
  }));
  const lpis = new Lpis(new GuestAccess(new Memslots(new FakeMachine(), 2 ** 40)), () => vgic);
  const vgic: Vgic = new Vgic({ model: 3, ipaSize: 2 ** 40, vcpus: () => vcpus, current: () => vcpus[0], lpis });
  vgic.setNrIrqs(64);
  vgic.init();
  return { vgic, lines, region: new RedistributorRegion([vgic.redistributor(0)!, vgic.redistributor(1)!]) };
}

const access = fc.record({
  frame: fc.constantFrom('dist', 'redist', 'icc', 'spi', 'ppi'),
  offset: fc.oneof(
    fc.integer({ min: 0, max: 0x1000 }),
    fc.integer({ min: 0x1_0000, max: 0x1_1000 }),
    fc.integer({ min: 0, max: 0x3_ffff }),
  ),
  len: fc.constantFrom(1, 2, 4),
  value: fc.integer({ min: 0, max: 0xffff_ffff }),
  write: fc.boolean(),
});

describe('a hostile guest', () => {
  test('can access the frames and ICC registers in any way, and gets numbers that fit', () => {
    fc.assert(
      fc.property(fc.array(access, { maxLength: 200 }), (accesses) => {
        const { vgic, region } = makeVgic();
        const { cpu } = vgic.redistributor(0)!;
        for (const { frame, offset, len, value, write } of accesses) {
          const at = offset & ~(len - 1);
          if (frame === 'spi') vgic.injectSpi(32 + (value % 40), write);
          else if (frame === 'ppi') vgic.injectPpi(value % 3, offset % 40, write, false);
          else if (frame === 'icc') {
            const index = 0xc600 | (offset & 0x7f);
            if (write) writeIcc(vgic, cpu, index, BigInt(value) << BigInt(offset & 31));
            else expect(readIcc(cpu, index) ?? 0).toBeGreaterThanOrEqual(0);
          } else {
            const device: Distributor | RedistributorRegion = frame === 'dist' ? vgic.distributor : region;
            const within = frame === 'dist' ? at & 0xffff : at;
            if (write) device.write(within, len, value >>> (32 - len * 8));
            else {
              const read = device.read(within, len);
              expect(read >= 0 && read < 2 ** (len * 8)).toBe(true);
            }
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  test('leaves interrupts in at most one list, and the lines follow what is signalled', () => {
    fc.assert(
      fc.property(fc.array(access, { maxLength: 150 }), (accesses) => {
        const { vgic, lines } = makeVgic();
        vgic.setEnabled(true);
        const cpus = [0, 1].map((id) => vgic.redistributor(id)!.cpu);
        for (const cpu of cpus) {
          cpu.pmr = 0xff;
          cpu.setGroupEnabled(1, true);
        }
        for (const { frame, offset, value, write } of accesses) {
          if (frame === 'spi') vgic.injectSpi(32 + (value % 32), write);
          else if (frame === 'ppi') cpus[offset & 1]!.endOfInterrupt(1, value % 64);
          else if (frame === 'icc') cpus[offset & 1]!.acknowledge(1);
          else if (frame === 'dist') vgic.distributor.write((offset & 0x7fc) | 4, 4, value);
          else vgic.setAffinity(vgic.spi(32 + (value % 32))!, offset % 3);
          for (const [id, cpu] of cpus.entries()) {
            const pending = cpu.highestPending(1) !== 1023;
            if (lines[id]![0]) expect(pending).toBe(true);
            if (pending && cpu.runningPriority === 0xff)
              expect(lines[id]![0] || vgic.spi(cpu.highestPending(1))!.priority === 0xf8).toBe(true);
          }
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe('hostile arguments', () => {
  const anything = fc.oneof(
    fc.integer(),
    fc.constantFrom(0, 1, 2, 3, 4, 5, 7, 27, 64, 0x8000000, Number.NaN, -1, 2 ** 53, Number.POSITIVE_INFINITY),
  );
  const onlyKvmErrors = (call: () => unknown): void => {
    try {
      call();
    } catch (error) {
      if (!KvmError.is(error) && !(error instanceof RangeError)) throw error;
    }
  };

  test('fail with an errno, or do no harm', () => {
    fc.assert(
      fc.property(anything, anything, anything, (a, c, d) => {
        const kvm = new SoftKvm({ clock: 'virtual', createMachine: () => new FakeMachine() });
        const { vm, vcpu, gic, memory } = makeVm(kvm, { gic: true });
        const id = Number.isSafeInteger(c) ? BigInt(c) : 0n;
        const calls: (() => unknown)[] = [
          () => vm.irqLine(a, true),
          () => vm.createVcpu(a),
          () => vm.createDevice(a),
          () => vm.enableCap(a, [c]),
          () => vm.setUserMemoryRegion({ slot: a, guestPhysAddr: c, memorySize: d, memory }),
          () => vm.getDirtyLog(a),
          () => vm.clearDirtyLog(a, c, d, new Uint8Array(8)),
          () => vm.ioeventfd({ fd: kvm.createEventFd(), addr: a, len: c, flags: d }),
          () => vm.irqfd({ fd: kvm.createEventFd(), gsi: a, flags: c }),
          () => vm.setGsiRouting([{ gsi: a, type: 'irqchip', irqchip: c, pin: d }]),
          () => vm.setGsiRouting([{ gsi: a, type: 'msi', address: id, data: c, devid: d }]),
          () => vm.signalMsi({ address: id, data: a, devid: d }),
          () => gic!.setDeviceAttr(a, id, d),
          () => gic!.getDeviceAttr(a, id, d),
          () => gic!.hasDeviceAttr(a, id),
          () => vcpu.setDeviceAttr(a, id, d),
          () => vcpu.init(a, c),
          () => vcpu.setOneReg(id, 5n),
          () => vcpu.setMpState(a as 0),
          () => vcpu.run(Number.isFinite(a) ? Math.min(a, 0.01) : -1),
        ];
        for (const call of calls) onlyKvmErrors(call);
        vm.close();
        vcpu.close();
      }),
      { numRuns: 200 },
    );
  });
});
