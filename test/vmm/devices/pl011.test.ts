import { beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Pl011 } from '#lib/vmm/devices/pl011.js';
import { ascii, TestIrq, TestScheduler, text } from './bench.ts';

const DR = 0x00;
const FR = 0x18;
const LCR_H = 0x2c;
const CR = 0x30;
const IFLS = 0x34;
const IMSC = 0x38;
const RIS = 0x3c;
const MIS = 0x40;
const ICR = 0x44;

const RXFE = 0x10;
const TXFF = 0x20;
const RXFF = 0x40;
const TXFE = 0x80;
const RX = 0x10;
const TX = 0x20;
const RT = 0x40;

describe('PL011', () => {
  let irq: TestIrq;
  let scheduler: TestScheduler;
  let sent: Uint8Array[];
  let holds: boolean;
  let ready: number;
  let uart: Pl011;
  const rd = (offset: number) => uart.read(offset, 4);
  const wr = (offset: number, value: number) => uart.write(offset, 4, value);
  /** As Linux's pl011_startup: FIFOs on, UART and receiver enabled. */
  const enable = () => {
    wr(LCR_H, 0x70);
    wr(CR, 0x301);
  };

  beforeEach(() => {
    irq = new TestIrq();
    scheduler = new TestScheduler();
    sent = [];
    holds = false;
    ready = 0;
    uart = new Pl011({
      irq,
      schedule: scheduler.schedule,
      onTransmit: (bytes) => {
        sent.push(bytes);
        return !holds;
      },
      onReceiveReady: () => {
        ready++;
      },
    });
  });

  test('is identified as revision r1p5 of Arm part 011, whose FIFOs Linux takes to be 32 deep', () => {
    const id = (base: number) => [0, 4, 8, 12].map((n) => rd(base + n));
    expect(id(0xfe0)).toEqual([0x11, 0x10, 0x34, 0x00]);
    expect(id(0xff0)).toEqual([0x0d, 0xf0, 0x05, 0xb1]);
  });

  test('has the reset values of the manual', () => {
    expect(rd(CR)).toBe(0x300);
    expect(rd(IFLS)).toBe(0x12);
    expect([rd(IMSC), rd(RIS), rd(MIS), rd(LCR_H)]).toEqual([0, 0, 0, 0]);
    expect(rd(FR) & (RXFE | TXFF | RXFF | TXFE)).toBe(RXFE | TXFE);
  });

  test('gathers what is transmitted into one piece a turn', () => {
    for (const byte of ascii('hello')) uart.write(DR, 1, byte);
    expect(sent).toEqual([]);
    scheduler.turn();
    expect(sent.map((piece) => text(piece))).toEqual(['hello']);
    expect(scheduler.pending).toBe(0);
  });

  test('hands out a full buffer without waiting for the turn, in order', () => {
    const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i & 0xff);
    for (const byte of bytes) wr(DR, byte);
    expect(sent.length).toBe(2);
    scheduler.turn();
    expect(Uint8Array.from(sent.flatMap((piece) => [...piece]))).toEqual(bytes);
  });

  test('fills its FIFO while the receiver holds back, and interrupts when there is room again', () => {
    holds = true;
    wr(DR, 0x41);
    scheduler.turn();
    for (let i = 0; i < 4096; i++) {
      expect(rd(FR) & TXFF).toBe(0);
      wr(DR, 0x42);
    }
    expect(rd(FR) & (TXFF | TXFE)).toBe(TXFF);
    wr(ICR, 0x7ff);
    wr(IMSC, TX);
    wr(DR, 0x43); // lost, as with a full FIFO
    expect(irq.level).toBe(false);
    holds = false;
    uart.resumeTransmit();
    expect(irq.level).toBe(true);
    expect(rd(FR) & (TXFF | TXFE)).toBe(TXFE);
    expect(text(...sent)).toBe(`A${'B'.repeat(4096)}`);
  });

  test('raises TX after each character until it is cleared', () => {
    wr(IMSC, TX);
    expect(irq.level).toBe(false);
    wr(DR, 0x41);
    expect(irq.level).toBe(true);
    expect(rd(MIS)).toBe(TX);
    wr(ICR, TX);
    expect(irq.level).toBe(false);
  });

  test('receives nothing before the receiver is enabled, and then says that it is ready, from the next turn', () => {
    expect(uart.receive(ascii('abc'))).toBe(0);
    wr(CR, 0x301);
    expect(ready).toBe(0);
    scheduler.turn();
    expect(ready).toBe(1);
    expect(uart.receive(ascii('abc'))).toBe(1); // FIFOs are off: one character
    expect(rd(FR) & RXFF).toBe(RXFF);
    expect(rd(DR)).toBe(0x61);
  });

  test('takes 32 characters into the FIFO and asks for the rest when there is room', () => {
    enable();
    const input = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
    expect(uart.receive(input)).toBe(32);
    expect(rd(FR) & (RXFF | RXFE)).toBe(RXFF);
    expect(uart.receive(input.subarray(32))).toBe(0);
    const got = Array.from({ length: 32 }, () => rd(DR));
    expect(rd(FR) & RXFE).toBe(RXFE);
    scheduler.turn();
    expect(ready).toBe(1);
    expect(uart.receive(input.subarray(32))).toBe(8);
    got.push(...Array.from({ length: 8 }, () => rd(DR)));
    expect(got).toEqual([...input]);
    scheduler.turn();
    expect(ready).toBe(1);
  });

  test('raises RX at the trigger level and RT below it, and drops them as the FIFO empties', () => {
    enable();
    wr(IFLS, 1 << 3); // 1/4: 8 characters
    wr(IMSC, RX | RT);
    uart.receive(ascii('1234567'));
    expect(rd(RIS)).toBe(RT);
    uart.receive(ascii('8'));
    expect(rd(RIS)).toBe(RX | RT);
    expect(irq.level).toBe(true);
    rd(DR);
    expect(rd(RIS)).toBe(RT);
    for (let i = 0; i < 7; i++) rd(DR);
    expect(rd(RIS)).toBe(0);
    expect(irq.level).toBe(false);
  });

  test('clears interrupts by ICR while characters wait', () => {
    enable();
    wr(IMSC, RT);
    uart.receive(ascii('x'));
    wr(ICR, RT);
    expect(irq.level).toBe(false);
    expect(rd(DR)).toBe(0x78);
  });

  test('marks a break in DR and RSR', () => {
    enable();
    expect(uart.receiveBreak()).toBe(true);
    expect(rd(RIS) & 0x200).toBe(0x200);
    expect(rd(DR)).toBe(0x400);
    expect(rd(0x04)).toBe(4);
    wr(0x04, 0);
    expect(rd(0x04)).toBe(0);
  });

  test('empties the FIFO when the FIFOs are switched', () => {
    enable();
    uart.receive(ascii('abc'));
    wr(LCR_H, 0x60);
    expect(rd(FR) & RXFE).toBe(RXFE);
    expect(rd(RIS) & RT).toBe(0);
  });

  test('loops back what is sent, and its modem outputs, in loopback mode', () => {
    enable();
    wr(CR, 0x301 | 0x80 | 0x800);
    wr(DR, 0x5a);
    expect(rd(DR)).toBe(0x5a);
    expect(rd(FR) & 0x107).toBe(1); // RTS to CTS
    scheduler.turn();
    expect(sent).toEqual([]);
  });

  test('reads narrow accesses from their byte lanes and ignores writes that start inside a register', () => {
    wr(0x24, 0x1234);
    expect(uart.read(0x24, 1)).toBe(0x34);
    expect(uart.read(0x25, 1)).toBe(0x12);
    expect(uart.read(0x24, 2)).toBe(0x1234);
    uart.write(0x25, 1, 0xff);
    expect(rd(0x24)).toBe(0x1234);
  });

  test('reset gives the registers back their values and lets go of the interrupt', () => {
    enable();
    wr(IMSC, RT);
    uart.receive(ascii('x'));
    expect(irq.level).toBe(true);
    uart.reset();
    expect(irq.level).toBe(false);
    expect([rd(CR), rd(LCR_H), rd(IMSC), rd(RIS)]).toEqual([0x300, 0, 0, 0]);
    expect(rd(FR) & RXFE).toBe(RXFE);
  });

  test('takes any access of any guest', () => {
    const access = fc.record({
      offset: fc.oneof(fc.nat(0xfff), fc.constantFrom(DR, FR, LCR_H, CR, IMSC, ICR)),
      len: fc.constantFrom(1, 2, 4),
      value: fc.option(fc.nat(0xffff_ffff)),
      input: fc.nat(40),
    });
    fc.assert(
      fc.property(fc.array(access, { maxLength: 100 }), (accesses) => {
        for (const { offset, len, value, input } of accesses) {
          if (value === null) {
            const read = uart.read(offset, len);
            expect(read >= 0 && read < 2 ** (8 * len) && Number.isInteger(read)).toBe(true);
          } else {
            uart.write(offset, len, value % 2 ** (8 * len));
          }
          expect(uart.receive(new Uint8Array(input))).toBeLessThanOrEqual(input);
          expect(irq.level).toBe(rd(MIS) !== 0);
        }
      }),
      { numRuns: 50 },
    );
  });
});
