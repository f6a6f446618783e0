import { beforeEach, describe, expect, test } from '@jest/globals';
import { Pl061 } from '#lib/vmm/devices/pl061.js';
import { PowerKey } from '#lib/vmm/devices/power-key.js';
import { TestIrq, TestTime } from './bench.ts';

const [DIR, IS, IBE, IEV, IE, RIS, MIS, IC] = [0x400, 0x404, 0x408, 0x40c, 0x410, 0x414, 0x418, 0x41c] as const;
const ALL = 0x3fc;

describe('PL061', () => {
  let irq: TestIrq;
  let driven: [number, number][];
  let gpio: Pl061;
  const rd = (offset: number) => gpio.read(offset, 1);
  const wr = (offset: number, value: number) => gpio.write(offset, 1, value);

  beforeEach(() => {
    irq = new TestIrq();
    driven = [];
    gpio = new Pl061({ irq, onOutput: (levels, outputs) => driven.push([levels, outputs]) });
  });

  test('is identified as Arm part 061', () => {
    expect([0xfe0, 0xfe4, 0xfe8, 0xfec, 0xff0, 0xff4, 0xff8, 0xffc].map(rd)).toEqual([
      0x61, 0x10, 0x04, 0, 0x0d, 0xf0, 0x05, 0xb1,
    ]);
  });

  test('masks data by the address', () => {
    gpio.setInput(3, true);
    gpio.setInput(5, true);
    expect(rd(ALL)).toBe(0x28);
    expect(rd(1 << (3 + 2))).toBe(0x08);
    expect(rd(1 << (4 + 2))).toBe(0);
    wr(DIR, 0xc0);
    wr(0x80 << 2, 0xff); // only bit 7
    expect(rd(ALL)).toBe(0xa8);
    expect(driven.at(-1)).toEqual([0x80, 0xc0]);
  });

  test('outputs follow the guest and not the world', () => {
    wr(DIR, 0x08);
    gpio.setInput(3, true);
    expect(rd(ALL)).toBe(0);
    wr(DIR, 0);
    expect(rd(ALL)).toBe(0x08);
  });

  test('sees the edge that IEV chooses, or both', () => {
    wr(IE, 0x08);
    wr(IEV, 0x08);
    gpio.setInput(3, true);
    expect([rd(RIS), rd(MIS), irq.level]).toEqual([8, 8, true]);
    wr(IC, 0x08);
    expect(irq.level).toBe(false);
    gpio.setInput(3, false);
    expect(irq.level).toBe(false);
    wr(IEV, 0);
    gpio.setInput(3, true);
    expect(irq.level).toBe(false);
    gpio.setInput(3, false);
    expect(irq.level).toBe(true);
    wr(IC, 0xff);
    wr(IBE, 0x08);
    gpio.setInput(3, true);
    expect(irq.level).toBe(true);
    wr(IC, 0xff);
    gpio.setInput(3, false);
    expect(irq.level).toBe(true);
  });

  test('a level interrupt lasts as long as the level, whatever IC says', () => {
    wr(IS, 0x01);
    wr(IEV, 0x01);
    wr(IE, 0x01);
    expect(irq.level).toBe(false);
    gpio.setInput(0, true);
    wr(IC, 0x01);
    expect(irq.level).toBe(true);
    gpio.setInput(0, false);
    expect(irq.level).toBe(false);
    gpio.setInput(0, true);
    gpio.setInput(0, false);
    expect(rd(RIS)).toBe(0); // no edge is kept
  });

  test('reset clears the registers and keeps the inputs; a line that is none is refused', () => {
    wr(IE, 0xff);
    wr(IEV, 0xff);
    gpio.setInput(2, true);
    gpio.reset();
    expect([rd(IE), rd(RIS), irq.level, rd(ALL)]).toEqual([0, 0, false, 4]);
    expect(() => gpio.setInput(8, true)).toThrow(RangeError);
    expect(() => gpio.setInput(-1, true)).toThrow(RangeError);
  });

  test('the power key is down for 100 ms, once for presses in between', () => {
    const time = new TestTime();
    const key = new PowerKey({ timers: time, wires: [(down) => gpio.setInput(3, down)] });
    wr(IE, 0x08);
    wr(IBE, 0x08);
    key.press();
    expect([rd(ALL), irq.level, key.pressed]).toEqual([0x08, true, true]);
    wr(IC, 0x08);
    time.advance(50);
    key.press();
    expect(irq.level).toBe(false);
    time.advance(49);
    expect(rd(ALL)).toBe(0x08);
    time.advance(1);
    expect([rd(ALL), irq.level, key.pressed]).toEqual([0, true, false]);
    key.press();
    key.close();
    expect([rd(ALL), time.timers]).toEqual([0, 0]);
  });
});
