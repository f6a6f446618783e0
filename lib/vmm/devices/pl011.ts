import type { Accepted, IrqLine, MmioDevice, Schedule } from './device.js';
import { OutputBuffer } from './output-buffer.js';
import { idRegister, lane, PRIMECELL_SIZE, primecellId } from './primecell.js';

/** The offsets of the data and the flag register. */
export const UARTDR = 0x000;
export const UARTFR = 0x018;

/** Register offsets (PrimeCell UART PL011 TRM DDI 0183G, table 3-1). */
const Reg = {
  DR: UARTDR,
  RSR: 0x004,
  FR: UARTFR,
  ILPR: 0x020,
  IBRD: 0x024,
  FBRD: 0x028,
  LCR_H: 0x02c,
  CR: 0x030,
  IFLS: 0x034,
  IMSC: 0x038,
  RIS: 0x03c,
  MIS: 0x040,
  ICR: 0x044,
  DMACR: 0x048,
} as const;

const FR_BUSY = 1 << 3;
const FR_RXFE = 1 << 4;
const FR_TXFF = 1 << 5;
const FR_RXFF = 1 << 6;
const FR_TXFE = 1 << 7;
const FR_RI = 1 << 8;
/** CTS, DSR and DCD: somebody is at the other end of the line. */
const FR_MODEM = 0x7;

const LCR_H_FEN = 1 << 4;

const CR_UARTEN = 1 << 0;
const CR_LBE = 1 << 7;
const CR_RXE = 1 << 9;
const CR_RESET = 0x300;

const INT_RX = 1 << 4;
const INT_TX = 1 << 5;
const INT_RT = 1 << 6;
const INT_BE = 1 << 9;
const INT_MASK = 0x7ff;

/** A character's break flag in DR; bits 11..8 are OE, BE, PE and FE. */
const DR_BE = 1 << 10;

const FIFO_DEPTH = 32;
/** RXIFLSEL: the fill levels 1/8, 1/4, 1/2, 3/4 and 7/8 of a 32-deep FIFO; the reserved values act as the last. */
const RX_TRIGGER: readonly number[] = [4, 8, 16, 24, 28, 28, 28, 28];

/** r1p5: revision 3, the one with 32-deep FIFOs. */
const ID = primecellId(0x011, 3);

/** What a {@link Pl011} is connected to. */
export interface Pl011Options {
  /** UARTINTR, level-triggered. */
  readonly irq: IrqLine;
  readonly schedule: Schedule;
  /**
   * The guest's output, gathered; the array is the receiver's to keep. `false` makes the transmit FIFO fill up (the guest
   * sees TXFF) until {@link Pl011.resumeTransmit}.
   */
  readonly onTransmit: (bytes: Uint8Array) => Accepted;
  /** The guest has room again after a {@link Pl011.receive} that took less than it was given. */
  readonly onReceiveReady?: () => void;
}

/**
 * The Arm PrimeCell UART PL011, revision r1p5 (TRM DDI 0183G), on a line that is infinitely fast: what is transmitted is
 * gone at once, and the receive timeout has always passed. There are no framing, parity or overrun errors and no DMA.
 *
 * Transmission works whatever CR says, because guests written for emulators often never enable the UART. Reception
 * needs UARTEN and RXE: before that, a driver would throw away what it finds.
 */
export class Pl011 implements MmioDevice {
  readonly name = 'pl011';
  readonly size = PRIMECELL_SIZE;

  readonly #options: Pl011Options;
  readonly #out: OutputBuffer;
  /** Received characters with their error flags: a ring of `#rxCount` entries from `#rxHead`. */
  readonly #rx = new Uint16Array(FIFO_DEPTH);
  #rxHead = 0;
  #rxCount = 0;
  #rxRefused = false;
  #readyScheduled = false;

  #rsr = 0;
  #ilpr = 0;
  #ibrd = 0;
  #fbrd = 0;
  #lcrh = 0;
  #cr = CR_RESET;
  #ifls = 0x12;
  #imsc = 0;
  #ris = 0;
  #dmacr = 0;
  #level = false;

  constructor(options: Pl011Options) {
    this.#options = options;
    this.#out = new OutputBuffer({
      capacity: 4096,
      burst: Number.POSITIVE_INFINITY, // a character is an MMIO exit each: the guest cannot flood the host
      deliver: options.onTransmit,
      schedule: options.schedule,
      onRoom: () => this.#raise(INT_TX),
    });
  }

  /**
   * Bytes arriving on the line.
   * @returns how many were taken; if fewer than given, `onReceiveReady` says when to offer the rest
   */
  receive(bytes: Uint8Array): number {
    let taken = 0;
    if (this.#receiving) {
      taken = Math.min(bytes.length, this.#depth - this.#rxCount);
      for (let i = 0; i < taken; i++) this.#push(bytes[i]!);
      if (taken > 0) this.#received();
    }
    if (taken < bytes.length) this.#rxRefused = true;
    return taken;
  }

  /** A break condition on the line (Linux takes one as the start of a magic SysRq). @returns whether there was room */
  receiveBreak(): boolean {
    if (!this.#receiving || this.#rxCount === this.#depth) return false;
    this.#push(DR_BE);
    this.#ris |= INT_BE;
    this.#received();
    return true;
  }

  /** Hands out what waits for the scheduled flush; for the end of the VM. */
  flush(): void {
    this.#out.flush();
  }

  /** Whether the guest is to be interrupted when it can transmit (UARTIMSC.TXIM). */
  get interruptsToTransmit(): boolean {
    return (this.#imsc & INT_TX) !== 0;
  }

  /**
   * What the guest reads from UARTFR for as long as all that happens is that it transmits some hundred characters; `undefined` where that
   * may change it.
   */
  get steadyFlags(): number | undefined {
    return this.#out.flowing && (this.#cr & CR_LBE) === 0 ? this.#flags() : undefined;
  }

  /** Ends the hold that an `onTransmit` answering `false` began. */
  resumeTransmit(): void {
    this.#out.resume();
  }

  read(offset: number, len: number): number {
    return lane(this.#readRegister(offset & ~3), offset, len);
  }

  write(offset: number, _len: number, value: number): void {
    // A write must start at its register; APB has no byte lanes here.
    if ((offset & 3) === 0) this.#writeRegister(offset, value);
  }

  reset(): void {
    this.#out.flush();
    this.#emptyRx();
    this.#rsr = 0;
    this.#ilpr = 0;
    this.#ibrd = 0;
    this.#fbrd = 0;
    this.#lcrh = 0;
    this.#cr = CR_RESET;
    this.#ifls = 0x12;
    this.#imsc = 0;
    this.#ris = 0;
    this.#dmacr = 0;
    this.#updateIrq();
  }

  #readRegister(register: number): number {
    switch (register) {
      case Reg.DR:
        return this.#pop();
      case Reg.RSR:
        return this.#rsr;
      case Reg.FR:
        return this.#flags();
      case Reg.ILPR:
        return this.#ilpr;
      case Reg.IBRD:
        return this.#ibrd;
      case Reg.FBRD:
        return this.#fbrd;
      case Reg.LCR_H:
        return this.#lcrh;
      case Reg.CR:
        return this.#cr;
      case Reg.IFLS:
        return this.#ifls;
      case Reg.IMSC:
        return this.#imsc;
      case Reg.RIS:
        return this.#ris;
      case Reg.MIS:
        return this.#ris & this.#imsc;
      case Reg.DMACR:
        return this.#dmacr;
      default:
        return idRegister(ID, register);
    }
  }

  #writeRegister(register: number, value: number): void {
    switch (register) {
      case Reg.DR:
        this.#transmit(value & 0xff);
        break;
      case Reg.RSR: // ECR: any value clears the errors
        this.#rsr = 0;
        break;
      case Reg.ILPR:
        this.#ilpr = value & 0xff;
        break;
      case Reg.IBRD:
        this.#ibrd = value & 0xffff;
        break;
      case Reg.FBRD:
        this.#fbrd = value & 0x3f;
        break;
      case Reg.LCR_H:
        // Switching between FIFO and single-character mode empties both FIFOs (TRM 3.3.7).
        if (((this.#lcrh ^ value) & LCR_H_FEN) !== 0) this.#emptyRx();
        this.#lcrh = value & 0xff;
        this.#updateIrq();
        break;
      case Reg.CR:
        this.#cr = value & 0xff87;
        if (this.#receiving) this.#offerRoom();
        break;
      case Reg.IFLS:
        this.#ifls = value & 0x3f;
        break;
      case Reg.IMSC:
        this.#imsc = value & INT_MASK;
        this.#updateIrq();
        break;
      case Reg.ICR:
        this.#ris &= ~value;
        this.#updateIrq();
        break;
      case Reg.DMACR:
        this.#dmacr = value & 0x7;
        break;
    }
  }

  get #receiving(): boolean {
    const enabled = CR_UARTEN | CR_RXE;
    return (this.#cr & enabled) === enabled;
  }

  get #depth(): number {
    return (this.#lcrh & LCR_H_FEN) !== 0 ? FIFO_DEPTH : 1;
  }

  get #trigger(): number {
    return (this.#lcrh & LCR_H_FEN) !== 0 ? RX_TRIGGER[(this.#ifls >>> 3) & 7]! : 1;
  }

  #flags(): number {
    let flags = this.#modem();
    flags |= this.#out.full ? FR_TXFF | FR_BUSY : FR_TXFE;
    if (this.#rxCount === 0) flags |= FR_RXFE;
    else if (this.#rxCount >= this.#depth) flags |= FR_RXFF;
    return flags;
  }

  #modem(): number {
    if ((this.#cr & CR_LBE) === 0) return FR_MODEM;
    // Loopback: RTS to CTS, DTR to DSR, Out1 to DCD, Out2 to RI (TRM 2.4.6).
    const cr = this.#cr;
    return (
      ((cr >>> 11) & 1) | (((cr >>> 10) & 1) << 1) | (((cr >>> 12) & 1) << 2) | ((cr & (1 << 13)) !== 0 ? FR_RI : 0)
    );
  }

  #transmit(byte: number): void {
    if ((this.#cr & CR_LBE) !== 0) {
      if (this.#receiving && this.#rxCount < this.#depth) {
        this.#push(byte);
        this.#received();
      }
    } else if (!this.#out.put(byte)) {
      return; // A full FIFO ignores the write.
    }
    // The character has left the FIFO at once, so its level has fallen through the trigger.
    this.#raise(INT_TX);
  }

  #push(character: number): void {
    this.#rx[(this.#rxHead + this.#rxCount++) % FIFO_DEPTH] = character;
  }

  #pop(): number {
    if (this.#rxCount === 0) return 0;
    const character = this.#rx[this.#rxHead]!;
    this.#rxHead = (this.#rxHead + 1) % FIFO_DEPTH;
    this.#rxCount--;
    this.#rsr = character >>> 8;
    if (this.#rxCount < this.#trigger) this.#ris &= ~INT_RX;
    if (this.#rxCount === 0) this.#ris &= ~INT_RT;
    this.#updateIrq();
    this.#offerRoom();
    return character;
  }

  #received(): void {
    this.#raise(this.#rxCount >= this.#trigger ? INT_RX | INT_RT : INT_RT);
  }

  #emptyRx(): void {
    this.#rxHead = 0;
    this.#rxCount = 0;
    this.#ris &= ~(INT_RX | INT_RT);
    this.#offerRoom();
  }

  /**
   * Tells whoever was refused, but not from inside the guest's access: a driver that empties the FIFO as it starts up
   * would otherwise find it filled again as it reads.
   */
  #offerRoom(): void {
    if (!this.#rxRefused || this.#readyScheduled) return;
    this.#readyScheduled = true;
    this.#options.schedule(this.#onScheduled);
  }

  readonly #onScheduled = (): void => {
    this.#readyScheduled = false;
    if (!this.#rxRefused || !this.#receiving || this.#rxCount >= this.#depth) return;
    this.#rxRefused = false;
    this.#options.onReceiveReady?.();
  };

  #raise(interrupts: number): void {
    this.#ris |= interrupts;
    this.#updateIrq();
  }

  #updateIrq(): void {
    const level = (this.#ris & this.#imsc) !== 0;
    if (level === this.#level) return;
    this.#level = level;
    this.#options.irq.setLevel(level);
  }
}
