import { Access } from '#lib/soft/cpu/access.js';
import { type Cpu, type CpuDebug, type CpuHost, CpuStop, type Machine, type MachineMemory } from '#lib/soft/cpu/cpu.js';

/** What a fake processor does at one `run()`: looks at the budget, changes its state, and says why it came back. */
export type Step = (cpu: FakeCpu, budget: number) => CpuStop;

/** A processor that follows a script of stops instead of executing instructions; after the script it waits in WFI. */
export class FakeCpu implements Cpu {
  pointerAuth = false;
  readonly host: CpuHost;
  script: Step[] = [];
  instructions = 0;
  hvcImmediate = 0;
  interruptPending = false;
  pendingSerror: bigint | undefined;
  /** PSTATE.A. */
  masksSerror = true;
  /** Calls that were made, in order. */
  readonly log: string[] = [];
  readonly access = Object.assign(new Access(), { isv: true, size: 4 });
  debugEvent = { esr: 0, far: 0n };
  debug: CpuDebug | undefined;
  readonly #x = new BigUint64Array(31);
  readonly #sysregs = new Map<number, bigint>();
  #pc = 0n;
  #pstate = 0x3c5n;
  #irq = false;
  #fiq = false;

  constructor(host: CpuHost) {
    this.host = host;
  }

  run(budget: number): CpuStop {
    const step = this.script.shift();
    const stop = step === undefined ? CpuStop.WFI : step(this, budget);
    return stop === CpuStop.MMIO && this.host.mmio?.() === true ? CpuStop.BUDGET : stop;
  }
  requestStop(): void {}
  setDebug(debug: CpuDebug | undefined): void {
    this.debug = debug;
  }
  retired(el: 0 | 1): number {
    return el === 1 ? this.instructions : 0;
  }
  completeRead(lo: number, hi: number): void {
    this.log.push(`read ${(BigInt(hi) << 32n) | BigInt(lo)}`);
  }
  skipInstruction(): void {
    this.log.push('skip');
  }
  reset(): void {
    this.#x.fill(0n);
    this.#pc = 0n;
    this.#pstate = 0x3c5n;
  }
  getX(n: number): bigint {
    return this.#x[n]!;
  }
  setX(n: number, value: bigint): void {
    this.#x[n] = value;
  }
  getPc(): bigint {
    return this.#pc;
  }
  setPc(value: bigint): void {
    this.#pc = value;
  }
  getPstate(): bigint {
    return this.#pstate;
  }
  setPstate(value: bigint): void {
    this.#pstate = value;
  }
  getV(): bigint {
    return 0n;
  }
  setV(): void {}
  getSysreg(index: number): bigint | undefined {
    return this.#sysregs.get(index);
  }
  setSysreg(index: number, value: bigint): boolean {
    this.#sysregs.set(index, value);
    return true;
  }
  sysregs(): readonly number[] {
    return [...this.#sysregs.keys()];
  }
  getSpEl1(): bigint {
    return 0n;
  }
  setSpEl1(): void {}
  setIrq(level: boolean): void {
    this.#irq = level;
    this.interruptPending = this.#irq || this.#fiq;
  }
  setFiq(level: boolean): void {
    this.#fiq = level;
    this.interruptPending = this.#irq || this.#fiq;
  }
  injectExternalAbort(): void {
    this.log.push('external abort');
  }
  injectSerror(esrIss: bigint): void {
    this.log.push(`serror ${esrIss}`);
    this.pendingSerror = esrIss;
  }
  takeSerror(): boolean {
    if (this.masksSerror || this.pendingSerror === undefined) return false;
    this.log.push('takes it');
    this.pendingSerror = undefined;
    return true;
  }
  injectUndefined(): void {
    this.log.push('undefined');
  }
}

/** Memory and processors without a guest. */
export class FakeMachine implements Machine {
  readonly cpus: FakeCpu[] = [];
  readonly available = 2 ** 30;
  readonly log: string[] = [];

  allocate(size: number): MachineMemory | undefined {
    if (size > this.available) return undefined;
    return {
      size,
      bytes: new Uint8Array(Math.min(size, 2 ** 21)),
      invalidate: () => {},
      protect: () => {},
      allows: () => true,
      used: () => new Uint8Array(),
      clearUsed: () => {},
      free: () => this.log.push(`free ${size}`),
    };
  }
  map(gpa: number, size: number): void {
    this.log.push(`map ${gpa} ${size}`);
  }
  unmap(gpa: number, size: number): void {
    this.log.push(`unmap ${gpa} ${size}`);
  }
  rearm(): void {}
  createCpu(host: CpuHost): Cpu {
    const cpu = new FakeCpu(host);
    this.cpus.push(cpu);
    return cpu;
  }
  destroyCpu(): void {
    this.log.push('destroyCpu');
  }
  close(): void {
    this.log.push('close');
  }
}
