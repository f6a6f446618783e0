import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sysregIndex } from '#lib/kvm/registers.js';
import { CpuStop } from '#lib/soft/cpu/cpu.js';
import { elf } from '../a64/oracle.ts';
import { Random } from '../a64/random.ts';
import { ERET, hvc, ISB, mov, movz, mrs, msr, svc } from './a64.ts';
import { BareMetal, CODE, DATA, EL1H, MASKED, RAM, RAM_SIZE, REG, VECTORS } from './bare-metal.ts';

/**
 * One program for EL1 and EL0, run by our engine and by qemu-system-aarch64, bit for bit the same: a list of attempts, each a few
 * instructions in a given state. What exceptions they take and what registers they leave goes into a log in memory, and the logs
 * are compared.
 */

const QEMU = 'qemu-system-aarch64';
export const haveQemuSystem = spawnSync(QEMU, ['--version']).status === 0;

/** Code that EL0 runs: whoever turns the MMU on maps it for EL0. */
export const USER_TEXT = RAM + 0x48_0000;
export const USER_TEXT_SIZE = 0x8_0000;
/** The log: to be mapped for EL1. */
export const LOG = RAM + 0x50_0000;
export const LOG_SIZE = 0x10_0000;

/** Registers that the program keeps for itself: the log's end, where to go on after an exception, and one for its own work. */
const LOG_END = 27;
const RESUME = 28;
const WORK = 29;
/** SVC that ends an attempt in another state than EL1h. */
const END = 0x1d;
const MARK = 0xfeed_0000_0000_0000n;
const BTYPE = 3n << 10n;
/**
 * Exception classes that say what PSTATE.BTYPE was: Branch Target, Illegal Execution state, Instruction Abort, PC alignment,
 * Breakpoint, Software Step and BRK. The processor may report 0 with the others (Unpredictable_ZEROBTYPE), and does; QEMU does not.
 */
const WITH_BTYPE: readonly number[] = [0x0d, 0x0e, 0x20, 0x21, 0x22, 0x30, 0x31, 0x32, 0x33, 0x3c];
const TAKEN = 0xe0e0_0000_0000_0000n;

/** STR Xt, [X27], #8. */
const log = (rt: number): number => 0xf8008400 | (LOG_END << 5) | rt;
const logWord = (rt: number): number => log(rt) >>> 0;
const adr = (rd: number, bytes: number): number =>
  (0x10000000 | ((bytes & 3) << 29) | (((bytes >> 2) & 0x7ffff) << 5) | rd) >>> 0;
const HLT_SEMIHOSTING = 0xd45e0000;

/** HVC that makes an SError pending, with the ISS in X29. */
const INJECT = 0x5e;
/** What QEMU has at EL2 for that: how it gets to EL1, and vectors. */
const EL2_START = RAM + 0x1_8000;
const EL2_VECTORS = RAM + 0x1_9000;
const EL2 = {
  HCR: sysregIndex(3, 4, 1, 1, 0),
  SPSR: sysregIndex(3, 4, 4, 0, 0),
  ELR: sysregIndex(3, 4, 4, 0, 1),
  VSESR: sysregIndex(3, 4, 5, 2, 3),
  VBAR: sysregIndex(3, 4, 12, 0, 0),
} as const;
/** HCR_EL2: RW, AMO. */
const HCR_GUEST = (1n << 31n) | (1n << 5n);
const ORR_X29_VSE = 0xb2780000 | (WORK << 5) | WORK;

export interface Attempt {
  /** Executed at EL1h before, and not expected to fault. */
  readonly setup?: readonly number[];
  readonly x?: Readonly<Record<number, bigint | number>>;
  /** PSTATE of the words under test; EL1h, masked, where not given. */
  readonly pstate?: bigint;
  readonly words: readonly number[];
  /** General-purpose registers and system registers to log afterwards. */
  readonly registers?: readonly number[];
  readonly sysregs?: readonly number[];
  /** Executed at EL1h afterwards. */
  readonly cleanup?: readonly number[];
}

/** An exception as the log has it. */
interface Taken {
  readonly vector: number;
  readonly esr: bigint;
  /** `undefined` where the architecture says it is UNKNOWN. */
  readonly far: bigint | undefined;
  readonly elr: bigint;
  readonly spsr: bigint;
  /** PAN, UAO and SSBS in the handler; not DIT, which an exception leaves as it is, and QEMU 7.2 clears. */
  readonly pstate: bigint;
}

/** What an attempt did. */
export type Result = readonly string[];

/** Exception classes that set FAR_EL1: aborts, PC alignment, watchpoints. */
const WITH_FAR: readonly number[] = [0x20, 0x21, 0x22, 0x24, 0x25, 0x34, 0x35];

/**
 * Makes and runs programs of so many attempts, until `ELVISOR_CASES` are done: one where it is not set. The numbers of each come from a
 * seed of its own, with which it is the first.
 */
export function eachProgram(attempts: number, run: (random: Random) => void): void {
  const cases = Number(process.env.ELVISOR_CASES ?? 0);
  for (let done = 0, random = new Random(); ; random = new Random(random.u32())) {
    run(random);
    done += attempts;
    if (done >= cases) return;
  }
}

export class SystemProgram {
  readonly vm: BareMetal;
  readonly #names: string[] = [];
  readonly #words: number[] = [];
  #userText = USER_TEXT;
  #hasEl2 = false;

  constructor() {
    this.vm = new BareMetal();
    for (let n = 0; n < 16; n++) this.vm.place(handler(n), VECTORS + n * 0x80);
    this.emit(
      ...mov(0, VECTORS),
      msr(REG.VBAR_EL1, 0),
      ...mov(0, 3n << 20n),
      msr(REG.CPACR_EL1, 0),
      ...mov(LOG_END, LOG),
      msr(REG.NZCV, 31),
      ISB,
    );
  }

  /** Instructions at EL1h, outside of any attempt. */
  emit(...words: readonly number[]): void {
    this.#words.push(...words);
  }

  attempt(name: string, a: Attempt): void {
    const index = this.#names.push(name) - 1;
    const { pstate, words, registers = [], sysregs = [], setup = [], cleanup = [] } = a;
    this.emit(...mov(WORK, MARK | BigInt(index)), logWord(WORK), ...setup);
    for (const [n, value] of Object.entries(a.x ?? {})) this.emit(...mov(Number(n), value));
    let inner: number[];
    if (pstate === undefined) inner = [...words];
    else {
      const at = this.vm.place([...words, svc(END)], this.#userText);
      this.#userText += Math.ceil(((words.length + 1) * 4) / 64) * 64;
      if (this.#userText > USER_TEXT + USER_TEXT_SIZE) throw new Error('no room for code of EL0');
      inner = [...mov(WORK, pstate), msr(REG.SPSR_EL1, WORK), ...mov(WORK, at), msr(REG.ELR_EL1, WORK), ERET];
    }
    this.emit(adr(RESUME, (inner.length + 1) * 4), ...inner);
    for (const n of registers) this.emit(logWord(n));
    for (const index of sysregs) this.emit(mrs(WORK, index), logWord(WORK));
    this.emit(...cleanup);
  }

  /** Instructions at EL1 that make a virtual SError pending, as a hypervisor does. @param iss 25 bits */
  injectSerror(iss: number): number[] {
    this.#hasEl2 = true;
    return [...mov(WORK, iss), hvc(INJECT)];
  }

  /** Runs the program on both. @throws Error where one does not come to its end */
  run(cpu = 'max,sve=off,sme=off,lpa2=off,pauth-impdef=off'): { readonly name: string; ours: Result; qemu: Result }[] {
    const end = CODE + this.#words.length * 4;
    if (end + 64 * 4 > DATA) throw new Error('the program is too long');
    this.vm.place(this.#words, CODE);
    const directory = mkdtempSync(join(tmpdir(), 'elvisor-system-'));
    try {
      const logFile = join(directory, 'log');
      // The image is taken before our engine runs: tables and data are as they were made.
      this.vm.place(semihostingEnd(end, logFile, this.vm), end);
      const image = join(directory, 'image');
      // An ELF file from the start of RAM: QEMU puts no device tree there then.
      if (this.#hasEl2) placeEl2(this.vm);
      writeFileSync(image, elf(this.vm.memory.bytes.slice(0, RAM_SIZE), RAM, this.#hasEl2 ? EL2_START : CODE));
      this.vm.place([hvc(0)], end);
      let ours = this.vm.start(CODE, { x: {} });
      while (ours.stop === CpuStop.HVC && ours.hvc === INJECT) {
        this.vm.cpu.injectSerror(this.vm.cpu.getX(WORK));
        ours = this.vm.outcome(this.vm.run());
      }
      if (ours.stop !== CpuStop.HVC || ours.hvc !== 0)
        throw new Error(
          `the engine stopped with ${ours.stop} at 0x${this.vm.cpu.getPc().toString(16)}, in "${this.#names.at(this.#read(this.vm.memory.bytes.slice(LOG - RAM, LOG - RAM + LOG_SIZE)).length - 1)}"`,
        );
      const ourLog = this.vm.memory.bytes.slice(LOG - RAM, LOG - RAM + LOG_SIZE);
      const args = ['-M', this.#hasEl2 ? 'virt,virtualization=on' : 'virt', '-cpu', cpu, '-m', '128M'];
      args.push('-display', 'none', '-serial', 'none', '-monitor', 'none');
      args.push('-semihosting-config', 'enable=on,target=native');
      args.push('-kernel', image);
      const { status, signal, stderr } = spawnSync(QEMU, args, { timeout: 120_000, encoding: 'utf8' });
      if (status !== 0) throw new Error(`${QEMU} ended with ${signal ?? status}: ${stderr}`);
      const qemuLog = new Uint8Array(readFileSync(logFile));
      const a = this.#read(ourLog);
      const b = this.#read(qemuLog);
      return this.#names.map((name, i) => ({ name, ours: a[i] ?? [], qemu: b[i] ?? [] }));
    } finally {
      rmSync(directory, { recursive: true });
      // V8 sees a few words of each program, and not the memory behind them: hundreds would be kept.
      this.vm.machine.close();
    }
  }

  #read(bytes: Uint8Array): Result[] {
    const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length >> 3);
    const out: string[][] = [];
    for (let at = 0; at < words.length; at++) {
      const word = words[at]!;
      if (word === MARK + BigInt(out.length)) out.push([]);
      else if (word >> 8n === TAKEN >> 8n) {
        const [esr, far, elr, spsr] = words.subarray(at + 1, at + 5) as unknown as [bigint, bigint, bigint, bigint];
        const pstate = words.subarray(at + 5, at + 8).reduce((bits, part) => bits | part);
        at += 7;
        const ec = Number(esr >> 26n) & 0x3f;
        // Interrupts leave no syndrome.
        const vector = Number(word & 0xffn);
        out.at(-1)?.push(
          describe({
            vector,
            esr,
            far: WITH_FAR.includes(ec) ? far : undefined,
            elr,
            spsr: WITH_BTYPE.includes(ec) ? spsr : spsr & ~BTYPE,
            pstate,
          }),
        );
      } else if (out.length === this.#names.length && word === 0n && words.subarray(at).every((w) => w === 0n)) break;
      else out.at(-1)?.push(`0x${word.toString(16)}`);
    }
    return out;
  }
}

const describe = (t: Taken): string =>
  `vector 0x${(t.vector * 0x80).toString(16)} ESR 0x${t.esr.toString(16)} ELR 0x${t.elr.toString(16)} SPSR 0x${t.spsr.toString(16)}, in the handler 0x${t.pstate.toString(16)}` +
  (t.far === undefined ? '' : ` FAR 0x${t.far.toString(16)}`);

/** Logs the exception and goes on at X28, at EL1h. */
function handler(n: number): number[] {
  return [
    ...mov(WORK, TAKEN | BigInt(n)),
    logWord(WORK),
    ...[REG.ESR_EL1, REG.FAR_EL1, REG.ELR_EL1, REG.SPSR_EL1, REG.PAN, REG.UAO, REG.SSBS].flatMap((r) => [
      mrs(WORK, r),
      logWord(WORK),
    ]),
    msr(REG.ELR_EL1, RESUME),
    movz(WORK, Number(EL1H | MASKED)),
    msr(REG.SPSR_EL1, WORK),
    ERET,
  ];
}

/** Goes to EL1, and comes back for {@link INJECT}. */
function placeEl2(vm: BareMetal): void {
  const start = (
    [
      [EL2.VBAR, EL2_VECTORS],
      [EL2.HCR, HCR_GUEST],
      [EL2.SPSR, EL1H | MASKED],
      [EL2.ELR, CODE],
    ] as const
  ).flatMap(([index, value]) => [...mov(0, value), msr(index, 0)]);
  vm.place([...start, ERET], EL2_START);
  vm.place(
    [msr(EL2.VSESR, WORK), mrs(WORK, EL2.HCR), ORR_X29_VSE >>> 0, msr(EL2.HCR, WORK), ERET],
    EL2_VECTORS + 0x400,
  );
}

/** Turns the MMU off, writes the log to a file of the host, and ends QEMU. */
function semihostingEnd(at: number, file: string, vm: BareMetal): number[] {
  const blocks = DATA - 0x1000;
  const name = new TextEncoder().encode(`${file}\0`);
  vm.memory.bytes.set(name, blocks + 0x100 - RAM);
  const put = (offset: number, ...values: number[]): number => {
    values.forEach((value, i) => {
      vm.write64(blocks + offset + i * 8, BigInt(value));
    });
    return blocks + offset;
  };
  const open = put(0, blocks + 0x100, 5, name.length - 1);
  const write = put(0x20, 0, LOG, LOG_SIZE);
  const exit = put(0x40, 0x20026, 0);
  const call = (op: number, block: number): number[] => [movz(0, op), ...mov(1, block), HLT_SEMIHOSTING];
  if (at > blocks) throw new Error('the program is too long');
  return [
    ...mov(0, 0x30d0_0980),
    msr(REG.SCTLR_EL1, 0),
    ISB,
    ...call(1, open),
    ...mov(1, write),
    0xf9000020, // str x0, [x1]
    ...call(5, write),
    ...call(0x18, exit),
    0x14000000,
  ];
}
