import { type Irqfd, IrqfdFlag, KvmError, type Msi } from '../../kvm/index.js';
import { asEventFd, type SoftEventFd } from './eventfd.js';
import type { IrqRouting } from './irq-routing.js';
import { NR_PRIVATE } from './vgic/irq.js';
import type { Vgic } from './vgic/vgic.js';

interface Assigned {
  readonly gsi: number;
  readonly fd: SoftEventFd;
  readonly resampleFd: SoftEventFd | undefined;
}

/** The irqfds of a VM: eventfds that inject an interrupt when they are signalled (`Documentation/virt/kvm/api.rst` 4.75). */
export class Irqfds {
  readonly #routing: IrqRouting;
  readonly #vgic: () => Vgic | undefined;
  readonly #sendMsi: (msi: Msi) => void;
  readonly #assigned = new Map<SoftEventFd, Assigned>();
  /** Resampling irqfds share a level a GSI. */
  readonly #resampled = new Map<number, Set<Assigned>>();

  /** @param sendMsi delivers an MSI, or not, with nobody to tell */
  constructor(routing: IrqRouting, vgic: () => Vgic | undefined, sendMsi: (msi: Msi) => void) {
    this.#routing = routing;
    this.#vgic = vgic;
    this.#sendMsi = sendMsi;
  }

  /** KVM_IRQFD. @throws KvmError EINVAL flags or gsi; EAGAIN no initialised vGIC; EBUSY the eventfd has an irqfd; EBADF */
  set(irqfd: Irqfd): void {
    const flags = irqfd.flags ?? 0;
    if ((flags & ~(IrqfdFlag.DEASSIGN | IrqfdFlag.RESAMPLE)) !== 0) {
      throw new KvmError('EINVAL', 'KVM_IRQFD', `flags 0x${flags.toString(16)} are not all known`);
    }
    // One that no route can have is taken, too, and leads nowhere.
    if (!Number.isInteger(irqfd.gsi) || irqfd.gsi < 0 || irqfd.gsi > 0xffff_ffff) {
      throw new KvmError('EINVAL', 'KVM_IRQFD', `gsi ${irqfd.gsi} is no unsigned number of 32 bits`);
    }
    if ((flags & IrqfdFlag.DEASSIGN) !== 0) this.#deassign(irqfd);
    else this.#assign(irqfd, (flags & IrqfdFlag.RESAMPLE) !== 0);
  }

  #assign(irqfd: Irqfd, resample: boolean): void {
    if (this.#vgic()?.initialized !== true) {
      throw new KvmError('EAGAIN', 'KVM_IRQFD', 'the vGIC is not initialised');
    }
    const fd = asEventFd(irqfd.fd, 'KVM_IRQFD');
    let resampleFd: SoftEventFd | undefined;
    if (resample) {
      if (irqfd.resampleFd === undefined) throw new KvmError('EBADF', 'KVM_IRQFD', 'RESAMPLE needs a resampleFd');
      resampleFd = asEventFd(irqfd.resampleFd, 'KVM_IRQFD');
    }
    if (fd.hasIrqfd) throw new KvmError('EBUSY', 'KVM_IRQFD', 'the eventfd has an irqfd, of this VM or another');
    const { gsi } = irqfd;
    // A signal only raises (kernel: kvm_arch_set_irq_inatomic): a level that nobody resamples stays high. A count that was there
    // before comes and goes (irqfd_inject).
    let isNew = true;
    const sink = (): void => {
      this.#line(gsi, true);
      if (isNew && !resample) this.#line(gsi, false);
    };
    const assigned: Assigned = { gsi, fd, resampleFd };
    this.#assigned.set(fd, assigned);
    if (resample) {
      const sharing = this.#resampled.get(gsi) ?? new Set();
      this.#resampled.set(gsi, sharing.add(assigned));
    }
    fd.bindIrqfd(sink, () => this.#remove(assigned));
    isNew = false;
  }

  #deassign(irqfd: Irqfd): void {
    const assigned = this.#assigned.get(asEventFd(irqfd.fd, 'KVM_IRQFD'));
    if (assigned !== undefined && assigned.gsi === irqfd.gsi) this.#remove(assigned);
  }

  #remove(assigned: Assigned): void {
    if (this.#assigned.get(assigned.fd) !== assigned) return;
    this.#assigned.delete(assigned.fd);
    assigned.fd.unbindIrqfd();
    const sharing = this.#resampled.get(assigned.gsi);
    if (sharing?.delete(assigned) === true && sharing.size === 0) {
      this.#resampled.delete(assigned.gsi);
      // The last one of a level leaves it low, as in the kernel.
      this.#line(assigned.gsi, false);
    }
  }

  #line(gsi: number, level: boolean): void {
    const spi = this.#routing.spi(gsi);
    if (spi !== undefined) this.#vgic()?.injectSpi(spi + NR_PRIVATE, level);
    const msi = level ? this.#routing.msi(gsi) : undefined;
    if (msi !== undefined) this.#sendMsi(msi);
  }

  /** The guest ended a level-triggered SPI: lowers the line and tells who resamples, who may raise it again. */
  levelEnded(spi: number): void {
    if (this.#resampled.size === 0) return;
    const gsi = this.#routing.gsi(spi);
    const sharing = gsi === undefined ? undefined : this.#resampled.get(gsi);
    if (gsi === undefined || sharing === undefined) return;
    this.#line(gsi, false);
    for (const { resampleFd } of [...sharing]) if (resampleFd?.closed === false) resampleFd.signal();
  }

  close(): void {
    for (const assigned of [...this.#assigned.values()]) {
      assigned.fd.unbindIrqfd();
    }
    this.#assigned.clear();
    this.#resampled.clear();
  }
}
