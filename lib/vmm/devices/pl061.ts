import type { IrqLine, MmioDevice } from './device.js';
import { idRegister, lane, PRIMECELL_SIZE, primecellId } from './primecell.js';

/** Register offsets (PrimeCell GPIO PL061 TRM DDI 0190B, table 3-1). Below DIR, address bits 9..2 mask the data. */
const Reg = {
  DIR: 0x400,
  IS: 0x404,
  IBE: 0x408,
  IEV: 0x40c,
  IE: 0x410,
  RIS: 0x414,
  MIS: 0x418,
  IC: 0x41c,
  AFSEL: 0x420,
} as const;

const ID = primecellId(0x061, 0);

/** What a {@link Pl061} is connected to. */
export interface Pl061Options {
  /** GPIOINTR, level-triggered. */
  readonly irq: IrqLine;
  /** The guest drives its outputs: the levels of the lines whose direction is out, and which those are. */
  readonly onOutput?: (levels: number, outputs: number) => void;
}

/** The Arm PrimeCell GPIO PL061 (TRM DDI 0190B): eight lines, each an input or an output, with one combined interrupt. */
export class Pl061 implements MmioDevice {
  readonly name = 'pl061';
  readonly size = PRIMECELL_SIZE;

  readonly #options: Pl061Options;
  /** What the world drives the lines to. */
  #inputs = 0;
  /** What the guest wrote for its outputs. */
  #outputs = 0;
  #dir = 0;
  #is = 0;
  #ibe = 0;
  #iev = 0;
  #ie = 0;
  /** Edges seen and not cleared; levels are not kept here. */
  #edges = 0;
  #afsel = 0;
  #level = false;

  constructor(options: Pl061Options) {
    this.#options = options;
  }

  /**
   * Drives a line from outside. Lines that the guest has made outputs keep their level.
   * @param line 0 to 7
   * @throws RangeError another line
   */
  setInput(line: number, level: boolean): void {
    if (!Number.isInteger(line) || line < 0 || line > 7)
      throw new RangeError(`GPIO line ${line}: the PL061 has lines 0 to 7`);
    const before = this.#pins();
    this.#inputs = level ? this.#inputs | (1 << line) : this.#inputs & ~(1 << line);
    this.#edgesFrom(before);
  }

  read(offset: number, len: number): number {
    return lane(this.#readRegister(offset & ~3), offset, len);
  }

  write(offset: number, _len: number, value: number): void {
    if ((offset & 3) !== 0) return;
    const byte = value & 0xff;
    if (offset < Reg.DIR) {
      const mask = (offset >>> 2) & this.#dir;
      this.#drive((this.#outputs & ~mask) | (byte & mask), this.#dir);
      return;
    }
    switch (offset) {
      case Reg.DIR:
        this.#drive(this.#outputs, byte);
        return;
      case Reg.IS:
        this.#is = byte;
        // An edge seen before means nothing to a level-sensitive line.
        this.#edges &= ~byte;
        break;
      case Reg.IBE:
        this.#ibe = byte;
        break;
      case Reg.IEV:
        this.#iev = byte;
        break;
      case Reg.IE:
        this.#ie = byte;
        break;
      case Reg.IC:
        this.#edges &= ~byte;
        break;
      case Reg.AFSEL:
        this.#afsel = byte;
        break;
    }
    this.#updateIrq();
  }

  /** Power-on state of the registers; the lines keep what the world drives them to. */
  reset(): void {
    this.#outputs = 0;
    this.#dir = 0;
    this.#is = 0;
    this.#ibe = 0;
    this.#iev = 0;
    this.#ie = 0;
    this.#edges = 0;
    this.#afsel = 0;
    this.#updateIrq();
  }

  #readRegister(register: number): number {
    if (register < Reg.DIR) return this.#pins() & (register >>> 2);
    switch (register) {
      case Reg.DIR:
        return this.#dir;
      case Reg.IS:
        return this.#is;
      case Reg.IBE:
        return this.#ibe;
      case Reg.IEV:
        return this.#iev;
      case Reg.IE:
        return this.#ie;
      case Reg.RIS:
        return this.#ris();
      case Reg.MIS:
        return this.#ris() & this.#ie;
      case Reg.AFSEL:
        return this.#afsel;
      default:
        return idRegister(ID, register);
    }
  }

  /** The lines' levels, whoever drives them. */
  #pins(): number {
    return (this.#outputs & this.#dir) | (this.#inputs & ~this.#dir & 0xff);
  }

  #drive(outputs: number, dir: number): void {
    const before = this.#pins();
    const changed = outputs !== this.#outputs || dir !== this.#dir;
    this.#outputs = outputs;
    this.#dir = dir;
    this.#edgesFrom(before);
    if (changed) this.#options.onOutput?.(outputs & dir, dir);
  }

  #edgesFrom(before: number): void {
    const after = this.#pins();
    const changed = before ^ after;
    // Both edges where IBE says so, else the one that IEV chooses: rising where set, falling where clear.
    const wanted = changed & (this.#ibe | ~(after ^ this.#iev));
    this.#edges |= wanted & ~this.#is & 0xff;
    this.#updateIrq();
  }

  #ris(): number {
    const levels = ~(this.#pins() ^ this.#iev) & this.#is & 0xff;
    return this.#edges | levels;
  }

  #updateIrq(): void {
    const level = (this.#ris() & this.#ie) !== 0;
    if (level === this.#level) return;
    this.#level = level;
    this.#options.irq.setLevel(level);
  }
}
