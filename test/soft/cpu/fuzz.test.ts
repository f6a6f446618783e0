import { expect, test } from '@jest/globals';
import { TABLE } from '#lib/soft/a64/table.js';
import { type Cpu, CpuStop, type Machine, type MachineMemory } from '#lib/soft/cpu/cpu.js';
import { createMachine } from '#lib/soft/cpu/machine.js';
import { SYSREGS } from '#lib/soft/cpu/sysregs.js';
import { Random } from '../../a64/random.ts';
import { halves } from '../a64.ts';
import { REG } from '../bare-metal.ts';

/**
 * Random instructions, system registers and page tables at EL0 and EL1. Whatever the guest does, run() comes back by itself
 * with its budget kept, nothing is thrown, and nothing but the guest's own RAM is written.
 */

const RAM = 0x4000_0000;
const RAM_SIZE = 0x10_0000;
const ROM = 0x1000_0000;
const ROM_SIZE = 0x4000;
const PAGE = 0x1000;
/** Pages of tables, at the end of RAM. */
const TABLE_PAGES = 16;
const TABLES = RAM + RAM_SIZE - TABLE_PAGES * PAGE;
const VECTORS = TABLES - PAGE;
/**
 * Goes on at the next instruction of the page in TPIDR_EL1, in a legal state: mrs x28, elr_el1; mrs x27, tpidr_el1;
 * and x28, x28, #0xffc; orr x28, x28, x27; add x28, x28, #4; msr elr_el1, x28; mrs x27, spsr_el1;
 * and x27, x27, #~(1 << 20); msr spsr_el1, x27; eret
 */
const HANDLER = [
  0xd538403c, 0xd538d09b, 0x927e279c, 0xaa1b039c, 0x9100139c, 0xd518403c, 0xd538401b, 0x926bfb7b, 0xd518401b,
  0xd69f03e0,
];
const TPIDR_EL1 = 0xc684;

const GUARD = 0xa5;

class Fuzz {
  readonly #random: Random;
  readonly #machine: Machine;
  readonly #guards: readonly MachineMemory[];
  readonly #rom: MachineMemory;
  readonly #ram: MachineMemory;
  readonly #view: DataView;
  readonly #cpus: readonly Cpu[];

  constructor(random: Random, threshold: number | undefined) {
    this.#random = random;
    this.#machine = createMachine({ threshold });
    const before = this.#machine.allocate(0x2_0000)!;
    this.#ram = this.#machine.allocate(RAM_SIZE)!;
    const between = this.#machine.allocate(0x2_0000)!;
    this.#rom = this.#machine.allocate(ROM_SIZE)!;
    const after = this.#machine.allocate(0x2_0000)!;
    this.#guards = [before, between, after];
    for (const guard of this.#guards) guard.bytes.fill(GUARD);
    this.#rom.bytes.fill(GUARD);
    // The first page is the guest's by another address too.
    this.#machine.map(RAM, RAM_SIZE, this.#ram, 0, false, () => {});
    this.#machine.map(0, PAGE, this.#ram, 0, false);
    this.#machine.map(ROM, ROM_SIZE, this.#rom, 0, true);
    this.#view = new DataView(this.#ram.bytes.buffer, this.#ram.bytes.byteOffset, RAM_SIZE);
    this.#cpus = [0, 1].map(() => {
      const cpu = this.#machine.createCpu({
        readSysreg: () => (random.below(4) === 0 ? undefined : this.#value()),
        writeSysreg: () => {
          const choice = random.below(8);
          if (choice === 0) cpu.setIrq(random.below(2) === 0);
          if (choice === 1) cpu.requestStop();
          return choice !== 2;
        },
      });
      return cpu;
    });
  }

  /** Numbers that mean something: addresses near borders, small ones, single bits. */
  #value(): bigint {
    const r = this.#random;
    const wide = (BigInt(r.u32()) << 32n) | BigInt(r.u32());
    switch (r.below(8)) {
      case 0:
        return wide;
      case 1:
        return 1n << BigInt(r.below(64));
      case 2:
        return BigInt(r.below(64));
      case 3:
        return BigInt.asUintN(64, -BigInt(r.below(0x4000)));
      case 4:
        return BigInt([0x900_0000, ROM, ROM + ROM_SIZE - 8, RAM + RAM_SIZE - 8, RAM - 8][r.below(5)]! + r.below(16));
      default:
        return BigInt(RAM + r.below(RAM_SIZE));
    }
  }

  #instruction(): number {
    const r = this.#random;
    const any = r.u32();
    switch (r.below(16)) {
      case 0:
        return any;
      case 1:
        // MSR, MRS and SYS of any encoding; then of a register that is there.
        return (0xd5000000 | (any & 0x3fffff)) >>> 0;
      case 2:
      case 3: {
        const { index } = SYSREGS[r.below(SYSREGS.length)]!;
        return ((r.below(2) === 0 ? 0xd5000000 : 0xd5200000) | (index << 5) | r.below(31)) >>> 0;
      }
      case 4:
        // TLBI, AT, DC, IC.
        return (0xd5087000 | (any & 0x70fff)) >>> 0;
      case 5:
        return [0xd69f03e0, 0xd5033fdf, 0xd4000001, 0xd503201f, 0xd65f03c0][r.below(5)]!;
      case 6:
      case 7:
        // Short branches.
        return (0x54000000 | ((any & 0x1f) << 5) | r.below(15) | (r.below(2) << 23)) >>> 0;
      default: {
        const row = TABLE[r.below(TABLE.length)]!;
        return ((any & ~row.mask) | row.value) >>> 0;
      }
    }
  }

  #descriptor(): bigint {
    const r = this.#random;
    const target = r.below(3) === 0 ? RAM + r.below(RAM_SIZE) : TABLES + r.below(TABLE_PAGES) * PAGE;
    const attributes = (BigInt(r.u32()) << 32n) & 0x78ff_0000_0000_0000n;
    const address = r.below(16) === 0 ? this.#value() : BigInt(target);
    return (address & 0xffff_ffff_f000n) | attributes | BigInt(r.u32() & 0xfff) | (r.below(8) === 0 ? 0n : 0x403n);
  }

  #round(): void {
    const r = this.#random;
    const first = r.below((VECTORS - RAM) / PAGE) * (PAGE / 4);
    for (let n = 0; n < 256; n++) this.#view.setUint32((first + n) * 4, this.#instruction(), true);
    for (let n = 0; n < TABLE_PAGES * 64; n++) {
      const at = TABLES - RAM + r.below((TABLE_PAGES * PAGE) / 8) * 8;
      this.#view.setBigUint64(at, this.#descriptor(), true);
    }
    this.#ram.invalidate(first * 4, PAGE);
    for (let vector = 0; vector < 16; vector++) {
      for (const [n, word] of HANDLER.entries())
        this.#view.setUint32(VECTORS - RAM + vector * 0x80 + n * 4, word, true);
    }
    this.#ram.invalidate(VECTORS - RAM, RAM_SIZE - (VECTORS - RAM));
    const cpu = this.#cpus[r.below(2)]!;
    for (let n = 0; n < 31; n++) cpu.setX(n, this.#value());
    for (let n = 0; n < 32; n++) cpu.setV(n, (this.#value() << 64n) | this.#value());
    // Half of the time with the MMU on, in any configuration, and the code mapped where it is as often as not.
    const mmu = r.below(2) === 0;
    const identity = r.below(4) !== 0;
    if (identity) {
      this.#view.setBigUint64(TABLES - RAM + 8, BigInt(RAM) | 0x401n | (BigInt([0, 2, 3][r.below(3)]!) << 6n), true);
    }
    cpu.setSysreg(REG.SCTLR_EL1, (this.#value() & ~1n) | (mmu ? 1n : 0n));
    cpu.setSysreg(REG.TCR_EL1, identity ? 0x2_8019_0019n | (this.#value() & 0x7fe0_0000_0000n) : this.#value());
    cpu.setSysreg(REG.TTBR0_EL1, identity ? BigInt(TABLES) : this.#value());
    cpu.setSysreg(REG.TTBR1_EL1, this.#value());
    cpu.setSysreg(REG.MAIR_EL1, this.#value() | this.#value());
    cpu.setSysreg(REG.VBAR_EL1, r.below(8) === 0 ? this.#value() : BigInt(VECTORS));
    cpu.setSysreg(TPIDR_EL1, BigInt(RAM + first * 4));
    cpu.setSysreg(REG.CPACR_EL1, r.below(8) === 0 ? this.#value() : 3n << 20n);
    cpu.setSysreg(REG.SPSR_EL1, BigInt(r.u32()));
    cpu.setSysreg(REG.ELR_EL1, this.#value());
    cpu.setSysreg(REG.CNTKCTL_EL1, this.#value());
    cpu.setPstate(BigInt((r.u32() & 0xffff_ffe0) | [0, 0, 4, 5, 5, 5][r.below(6)]!) & 0xffff_ffffn);
    cpu.setPc(BigInt(RAM + (first + r.below(64)) * 4));
    this.#run(cpu);
  }

  #run(cpu: Cpu): void {
    const r = this.#random;
    for (let stops = 0; stops < 12; stops++) {
      const budget = r.below(400);
      const before = cpu.instructions;
      const stop = cpu.run(budget);
      const executed = cpu.instructions - before;
      // Straight code goes on to the end of its page, at most.
      expect(executed).toBeLessThanOrEqual(budget + 1100);
      expect(executed).toBeGreaterThanOrEqual(0);
      switch (stop) {
        case CpuStop.MMIO: {
          const { access } = cpu;
          expect(access.ipa).toBeLessThan(2 ** 40);
          expect([1, 2, 4, 8, 16]).toContain(access.size);
          const choice = r.below(8);
          if (choice === 0) cpu.injectExternalAbort();
          else if (choice === 1) cpu.injectUndefined();
          else if (!access.isWrite && access.isv) cpu.completeRead(...halves(this.#value()));
          else cpu.skipInstruction();
          break;
        }
        case CpuStop.SMC:
          cpu.skipInstruction();
          break;
        default:
      }
      if (r.below(16) === 0) cpu.setFiq(r.below(2) === 0);
      if (r.below(16) === 0) cpu.injectSerror(this.#value());
    }
  }

  run(rounds: number): void {
    for (let n = 0; n < rounds; n++) this.#round();
    for (const guard of [...this.#guards, this.#rom]) {
      const touched = guard.bytes.findIndex((v) => v !== GUARD);
      expect(touched).toBe(-1);
    }
    this.#machine.close();
  }
}

const fresh = new Random().seed;
test.each([
  ['interpreted', 1, undefined],
  ['interpreted', fresh, undefined],
  ['compiled', 2, 1],
  ['compiled', fresh, 1],
])('%s, seed %d', (_name, seed, threshold) => {
  new Fuzz(new Random(seed), threshold).run(200);
});
