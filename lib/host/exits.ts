import { ExitNumber, type IntrExit, KvmError, type MmioExit, type SystemEvent, type VcpuExit } from '../kvm/index.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Offsets in `struct kvm_run` (include/uapi/linux/kvm.h). */
const EXIT_REASON = 8;
/** The union of what exits say. */
const U = 32;
/** `s.regs.device_irq_level` of arm64. */
const DEVICE_IRQ_LEVEL = 304;
const MAX_DATA = 16;
const HYPERCALL_EXIT_SMC = 1;
const HYPERCALL_EXIT_16BIT = 2;

/** `struct kvm_run`, read where the kernel writes it. */
export class RunArea {
  readonly buffer: ArrayBuffer;
  readonly #view: DataView;
  readonly #mmio: Mutable<MmioExit>;
  readonly intr: IntrExit = { reason: 'intr', idleMs: undefined };

  constructor(buffer: ArrayBuffer) {
    this.buffer = buffer;
    this.#view = new DataView(buffer);
    this.#mmio = { reason: 'mmio', physAddr: 0, len: 0, isWrite: false, data: new Uint8Array(buffer, U + 8, 8) };
  }

  get exitReason(): number {
    return this.#view.getUint32(EXIT_REASON, true);
  }

  get deviceIrqLevel(): number {
    return this.#view.getUint8(DEVICE_IRQ_LEVEL);
  }

  /** The exit that KVM_RUN left. @throws KvmError EOPNOTSUPP an exit that is not of arm64 */
  exit(): VcpuExit {
    const view = this.#view;
    const reason = this.exitReason;
    switch (reason) {
      case ExitNumber.mmio: {
        const exit = this.#mmio;
        exit.physAddr = this.#address(U);
        exit.len = view.getUint32(U + 16, true);
        exit.isWrite = view.getUint8(U + 20) !== 0;
        return exit;
      }
      case ExitNumber.intr:
        return this.intr;
      case ExitNumber.hypercall: {
        const flags = view.getUint32(U + 64, true);
        const nr = view.getUint32(U, true);
        return {
          reason: 'hypercall',
          nr,
          smc: (flags & HYPERCALL_EXIT_SMC) !== 0,
          is16bit: (flags & HYPERCALL_EXIT_16BIT) !== 0,
        };
      }
      case ExitNumber.debug:
        return { reason: 'debug', hsr: view.getUint32(U, true), far: this.#u64(U + 8) };
      case ExitNumber.fail_entry:
        return { reason: 'fail_entry', hardwareEntryFailureReason: this.#u64(U), cpu: view.getUint32(U + 8, true) };
      case ExitNumber.internal_error:
        return { reason: 'internal_error', suberror: view.getUint32(U, true), data: this.#data() };
      case ExitNumber.system_event:
        return { reason: 'system_event', type: view.getUint32(U, true) as SystemEvent, data: this.#data() };
      case ExitNumber.arm_nisv:
        return { reason: 'arm_nisv', esrIss: this.#u64(U), faultIpa: this.#address(U + 8) };
      case ExitNumber.dirty_ring_full:
        return { reason: 'dirty_ring_full' };
      case ExitNumber.memory_fault:
        return {
          reason: 'memory_fault',
          flags: this.#u64(U),
          gpa: this.#address(U + 8),
          size: this.#address(U + 16),
        };
      case ExitNumber.arm_sea:
        return {
          reason: 'arm_sea',
          flags: this.#u64(U),
          esr: this.#u64(U + 8),
          gva: this.#u64(U + 16),
          gpa: this.#address(U + 24),
        };
      case ExitNumber.arm_ldst64b:
        return { reason: 'arm_ldst64b', esrIss: this.#u64(U), faultIpa: this.#address(U + 8) };
      default:
        throw new KvmError('EOPNOTSUPP', 'KVM_RUN', `exit reason ${reason} is none of arm64's`);
    }
  }

  #u64(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }

  /** A guest-physical address, below 2^52. */
  #address(at: number): number {
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
  }

  /** `ndata` and `data[16]` behind a u32. */
  #data(): bigint[] {
    const count = Math.min(this.#view.getUint32(U + 4, true), MAX_DATA);
    return Array.from({ length: count }, (_, i) => this.#u64(U + 8 + i * 8));
  }
}
