import { type ArmNisvExit, KvmError, type MmioExit } from '../../kvm/index.js';
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
  readonly #vm: SoftVm;
  readonly #cpu: Cpu;
  readonly #stats: VcpuStats;
  #pending: Pending = Pending.NONE;
  readonly #exit: Mutable<MmioExit> = { reason: 'mmio', physAddr: 0, len: 0, isWrite: false, data: new Uint8Array(8) };
  readonly #data = new DataView(this.#exit.data.buffer);

  constructor(vm: SoftVm, cpu: Cpu, stats: VcpuStats) {
    this.#vm = vm;
    this.#cpu = cpu;
    this.#stats = stats;
  }

  /** Completes the instruction of the last exit, if it was one of these (kernel: kvm_handle_mmio_return). */
  complete(): void {
    const pending = this.#pending;
    this.#pending = Pending.NONE;
    if (pending === Pending.READ) {
      this.#cpu.completeRead(BigInt.asUintN(this.#exit.len * 8, this.#data.getBigUint64(0, true)));
    } else if (pending === Pending.WRITE) {
      this.#cpu.skipInstruction();
    }
  }

  /** The instruction takes an exception instead: nothing is left to do. */
  cancel(): void {
    this.#pending = Pending.NONE;
  }

  /** io_mem_abort. @returns the exit, where nothing in the kernel answers */
  handle(): MmioExit | ArmNisvExit | undefined {
    const { access } = this.#cpu;
    const { ipa, size, isWrite } = access;
    if (!access.isv) {
      if (!this.#vm.nisvToUser) {
        throw new KvmError('ENOSYS', 'KVM_RUN', `an access without syndrome at IPA 0x${ipa.toString(16)}`);
      }
      const esrIss = ISS_TRANSLATION_FAULT | (isWrite ? ISS_WNR : 0n);
      return { reason: 'arm_nisv', esrIss, faultIpa: ipa };
    }
    if (isWrite ? this.#write(ipa, size, access.value) : this.#read(ipa, size)) {
      this.#stats.mmioKernel++;
      return undefined;
    }
    this.#stats.mmioUser++;
    this.#data.setBigUint64(0, isWrite ? BigInt.asUintN(size * 8, access.value) : 0n, true);
    this.#exit.physAddr = ipa;
    this.#exit.len = size;
    this.#exit.isWrite = isWrite;
    this.#pending = isWrite ? Pending.WRITE : Pending.READ;
    return this.#exit;
  }

  /** @returns whether an ioeventfd, a device or a coalesced zone took the write */
  #write(ipa: number, size: number, value: bigint): boolean {
    const { bus, coalesced } = this.#vm;
    const io = bus.matchEventFd(ipa, size, value);
    if (io !== undefined) {
      // Listeners look at the vCPU: the instruction is done before they are called.
      this.#cpu.skipInstruction();
      io.fd.signalFromGuest();
      return true;
    }
    if (bus.hasDevice(ipa, size)) {
      this.#cpu.skipInstruction();
      bus.write(ipa, size, value);
      return true;
    }
    if (!coalesced.write(ipa, size, value)) return false;
    this.#cpu.skipInstruction();
    return true;
  }

  #read(ipa: number, size: number): boolean {
    const { bus } = this.#vm;
    if (!bus.hasDevice(ipa, size)) return false;
    this.#cpu.completeRead(size === 8 ? bus.read64(ipa) : BigInt(bus.read(ipa, size)));
    return true;
  }
}
