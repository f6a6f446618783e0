import { type ArmNisvExit, KvmError, type MmioExit, type Vcpu } from '../../kvm/index.js';
import type { Cpu } from '../cpu/cpu.js';
import type { VcpuStats } from './stats.js';
import type { SoftVm } from './vm.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** ISS of a data abort without a syndrome: WnR, and a translation fault at level 1, where KVM's stage 2 has it. */
const ISS_WNR = 1n << 6n;
const ISS_TRANSLATION_FAULT = 5n;
/** What is left to do of the last exit. */
const Pending = { NONE: 0, READ: 1, WRITE: 2 } as const;
type Pending = (typeof Pending)[keyof typeof Pending];

/** A vCPU's accesses to what no RAM answers (kernel: `arch/arm64/kvm/mmio.c`). */
export class VcpuMmio {
  readonly #vcpu: Vcpu;
  readonly #vm: SoftVm;
  readonly #cpu: Cpu;
  readonly #stats: VcpuStats;
  /** In this run user space was told of an access, by its listener or an eventfd. */
  toldUser = false;
  #pending: Pending = Pending.NONE;
  readonly #exit: Mutable<MmioExit> = { reason: 'mmio', physAddr: 0, len: 0, isWrite: false, data: new Uint8Array(8) };
  /** The same bytes: linear memory, too, is only for hosts with the low byte first. */
  readonly #words = new Uint32Array(this.#exit.data.buffer);

  constructor(vcpu: Vcpu, vm: SoftVm, cpu: Cpu, stats: VcpuStats) {
    this.#vcpu = vcpu;
    this.#vm = vm;
    this.#cpu = cpu;
    this.#stats = stats;
  }

  /** KVM_RUN begins. */
  enter(): void {
    this.complete();
    this.toldUser = false;
  }

  /** Completes the instruction of the last exit, if it was one of these (kernel: kvm_handle_mmio_return). */
  complete(): void {
    const pending = this.#pending;
    this.#pending = Pending.NONE;
    if (pending === Pending.READ) {
      this.#cpu.completeRead(this.#words[0]!, this.#words[1]!);
    } else if (pending === Pending.WRITE) {
      this.#cpu.skipInstruction();
    }
  }

  /** The instruction takes an exception instead: nothing is left to do. */
  cancel(): void {
    this.#pending = Pending.NONE;
  }

  /** io_mem_abort, as far as it leads to no exit. @returns whether the kernel or the VM's listener did the access */
  answer(): boolean {
    const { ipa, size, isWrite, isv } = this.#cpu.access;
    if (!isv) return false;
    if (isWrite ? this.#write() : this.#read(ipa, size)) {
      this.#stats.mmioKernel++;
      return true;
    }
    const listener = this.#vm.mmioListener;
    if (listener === undefined) return false;
    listener(this.#vcpu, this.#describe());
    this.complete();
    return true;
  }

  /** The exit of an access that {@link answer} did not do. */
  exit(): MmioExit | ArmNisvExit {
    const { ipa, isWrite, isv } = this.#cpu.access;
    if (isv) return this.#describe();
    if (!this.#vm.nisvToUser) {
      throw new KvmError('ENOSYS', 'KVM_RUN', `an access without syndrome at IPA 0x${ipa.toString(16)}`);
    }
    return { reason: 'arm_nisv', esrIss: ISS_TRANSLATION_FAULT | (isWrite ? ISS_WNR : 0n), faultIpa: ipa };
  }

  #describe(): MmioExit {
    const { ipa, size, isWrite, valueLo, valueHi } = this.#cpu.access;
    this.#stats.mmioUser++;
    this.toldUser = true;
    this.#words[0] = isWrite ? valueLo : 0;
    this.#words[1] = isWrite ? valueHi : 0;
    this.#exit.physAddr = ipa;
    this.#exit.len = size;
    this.#exit.isWrite = isWrite;
    this.#pending = isWrite ? Pending.WRITE : Pending.READ;
    return this.#exit;
  }

  /** @returns whether an ioeventfd, a device or a coalesced zone took the write */
  #write(): boolean {
    const { bus, coalesced } = this.#vm;
    const { ipa, size, valueLo, valueHi } = this.#cpu.access;
    const io = bus.matchEventFd(ipa, size, valueLo, valueHi);
    if (io !== undefined) {
      // Listeners look at the vCPU: the instruction is done before they are called.
      this.#cpu.skipInstruction();
      this.toldUser = true;
      io.fd.signalFromGuest();
      return true;
    }
    const range = bus.find(ipa, size);
    if (range !== undefined) {
      this.#cpu.skipInstruction();
      range.write(ipa, size, valueLo, valueHi);
      // What an ITS was asked to do has its time of the slice.
      if (this.#vm.lpis.work > 0) this.#cpu.requestStop();
      return true;
    }
    if (!coalesced.takes(ipa, size)) return false;
    coalesced.write(ipa, size, this.#cpu.access.value);
    this.#cpu.skipInstruction();
    return true;
  }

  #read(ipa: number, size: number): boolean {
    const range = this.#vm.bus.find(ipa, size);
    if (range === undefined) return false;
    if (size < 8) this.#cpu.completeRead(range.read(ipa, size), 0);
    else this.#cpu.completeRead(range.readHalf(ipa, 0), range.readHalf(ipa, 4));
    return true;
  }
}
