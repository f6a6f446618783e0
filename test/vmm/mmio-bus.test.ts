import { expect, test } from '@jest/globals';
import type { MmioExit } from '#lib/kvm/index.js';
import type { MmioDevice } from '#lib/vmm/devices/device.js';
import { MmioBus } from '#lib/vmm/mmio-bus.js';

/** Remembers what it was asked. */
class Probe implements MmioDevice {
  readonly name = 'probe';
  readonly size = 0x100;
  readonly log: string[] = [];
  read(offset: number, len: number): number {
    this.log.push(`r${len}@${offset.toString(16)}`);
    return offset === 4 ? 0xffee_ddcc : 0x8877_6655;
  }
  write(offset: number, len: number, value: number): void {
    this.log.push(`w${len}@${offset.toString(16)}=${value.toString(16)}`);
  }
  reset(): void {}
}

const exit = (physAddr: number, len: number, bytes?: number[]): MmioExit => {
  const data = new Uint8Array(8).fill(0xaa);
  if (bytes !== undefined) data.set(bytes);
  return { reason: 'mmio', physAddr, len, isWrite: bytes !== undefined, data };
};

test('an access goes to the device there, by its offset, little-endian', () => {
  const bus = new MmioBus();
  const probe = new Probe();
  bus.add(0x1000, probe);
  bus.handle(exit(0x1010, 2, [0x34, 0x12]));
  bus.handle(exit(0x1010, 4, [0xef, 0xbe, 0xad, 0xde]));
  const read = exit(0x10fc, 4);
  bus.handle(read);
  expect(probe.log).toEqual(['w2@10=1234', 'w4@10=deadbeef', 'r4@fc']);
  expect([...read.data]).toEqual([0x55, 0x66, 0x77, 0x88, 0xaa, 0xaa, 0xaa, 0xaa]);
  expect(bus.accesses).toBe(3);
});

test('eight bytes are two words, low first', () => {
  const bus = new MmioBus();
  const probe = new Probe();
  bus.add(0x1000, probe);
  bus.handle(exit(0x1000, 8, [1, 0, 0, 0, 2, 0, 0, 0x80]));
  const read = exit(0x1000, 8);
  bus.handle(read);
  expect(probe.log).toEqual(['w4@0=1', 'w4@4=80000002', 'r4@0', 'r4@4']);
  expect([...read.data]).toEqual([0x55, 0x66, 0x77, 0x88, 0xcc, 0xdd, 0xee, 0xff]);
});

test('what no device answers, or not wholly, reads as zero and is counted', () => {
  const bus = new MmioBus();
  const probe = new Probe();
  bus.add(0x1000, probe);
  for (const [addr, len] of [
    [0xffc, 8],
    [0x10fe, 4],
    [0x1100, 1],
    [0, 4],
  ] as const) {
    const read = exit(addr, len);
    bus.handle(read);
    expect([...read.data]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    bus.handle(exit(addr, len, [1]));
  }
  expect(probe.log).toEqual([]);
  expect(bus.unassigned).toBe(8);
});

test('two devices cannot share an address', () => {
  const bus = new MmioBus();
  bus.add(0x1000, new Probe());
  expect(() => bus.add(0x10ff, new Probe())).toThrow(/would overlap/);
  bus.add(0x1100, new Probe());
});
