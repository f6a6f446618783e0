import { beforeEach, describe, expect, test } from '@jest/globals';
import { Pl031 } from '#lib/vmm/devices/pl031.js';
import { TestIrq, TestTime } from './bench.ts';

const [DR, MR, LR, CR, IMSC, RIS, MIS, ICR] = [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c] as const;

describe('PL031', () => {
  let irq: TestIrq;
  let time: TestTime;
  let rtc: Pl031;
  const rd = (offset: number) => rtc.read(offset, 4);
  const wr = (offset: number, value: number) => rtc.write(offset, 4, value);

  beforeEach(() => {
    irq = new TestIrq();
    time = new TestTime(1_700_000_000_250);
    rtc = new Pl031({ irq, clock: time, timers: time });
  });

  test('is identified as Arm part 031 and runs from the start', () => {
    expect([0xfe0, 0xfe4, 0xfe8, 0xfec, 0xff0, 0xff4, 0xff8, 0xffc].map(rd)).toEqual([
      0x31, 0x10, 0x14, 0, 0x0d, 0xf0, 0x05, 0xb1,
    ]);
    expect(rd(CR)).toBe(1);
    wr(CR, 0);
    expect(rd(CR)).toBe(1);
  });

  test('counts seconds by the wall clock, at their boundaries', () => {
    expect(rd(DR)).toBe(1_700_000_000);
    time.advance(749);
    expect(rd(DR)).toBe(1_700_000_000);
    time.advance(1);
    expect(rd(DR)).toBe(1_700_000_001);
  });

  test('can be set, also to before 1970 as 32 bits have it, and goes on from there', () => {
    wr(LR, 0xffff_ffff);
    expect(rd(DR)).toBe(0xffff_ffff);
    expect(rd(LR)).toBe(0xffff_ffff);
    time.advance(1000);
    expect(rd(DR)).toBe(0);
  });

  test('interrupts in the second that MR names', () => {
    wr(IMSC, 1);
    wr(MR, 1_700_000_005);
    time.advance(4749);
    expect(irq.level).toBe(false);
    time.advance(1);
    expect(irq.level).toBe(true);
    expect([rd(RIS), rd(MIS)]).toEqual([1, 1]);
    wr(ICR, 1);
    expect(irq.level).toBe(false);
  });

  test('interrupts at once for the present second, and masks', () => {
    wr(MR, rd(DR));
    expect([rd(RIS), rd(MIS)]).toEqual([1, 0]);
    expect(irq.level).toBe(false);
    wr(IMSC, 1);
    expect(irq.level).toBe(true);
  });

  test('keeps an alarm that is decades away, in steps that a timer can hold', () => {
    wr(MR, 1_700_000_000 + 40 * 365 * 86400);
    time.advance(40 * 365 * 86_400_000 - 251);
    expect(rd(RIS)).toBe(0);
    time.advance(251);
    expect(rd(RIS)).toBe(1);
    expect(time.timers).toBe(0);
  });

  test('a new match, a reset and close cancel the alarm', () => {
    wr(MR, 1_700_000_005);
    wr(MR, 1_700_000_009);
    expect(time.timers).toBe(1);
    time.advance(6000);
    expect(rd(RIS)).toBe(0);
    rtc.reset();
    expect(time.timers).toBe(0);
    wr(MR, 1_700_000_020);
    rtc.close();
    expect(time.timers).toBe(0);
  });
});
