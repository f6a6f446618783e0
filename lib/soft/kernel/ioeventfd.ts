import { type Ioeventfd, IoeventfdFlag, KvmError } from '../../kvm/index.js';
import { asEventFd } from './eventfd.js';
import type { IoBus } from './io-bus.js';

const KNOWN = IoeventfdFlag.DATAMATCH | IoeventfdFlag.PIO | IoeventfdFlag.DEASSIGN;

/**
 * KVM_IOEVENTFD (`Documentation/virt/kvm/api.rst` 4.59).
 * @param pio the bus of KVM_IOEVENTFD_FLAG_PIO, which no arm64 guest reaches
 * @throws KvmError EINVAL, EEXIST, ENOENT, EBADF
 */
export function setIoeventfd(ioeventfd: Ioeventfd, mmio: IoBus, pio: IoBus): void {
  const { addr, len } = ioeventfd;
  const flags = ioeventfd.flags ?? 0;
  if ((flags & ~KNOWN) !== 0) throw invalid(`flags 0x${flags.toString(16)} are not all known`);
  if (len !== 0 && len !== 1 && len !== 2 && len !== 4 && len !== 8)
    throw invalid(`length ${len} is not 0, 1, 2, 4 or 8`);
  if (!Number.isSafeInteger(addr) || addr < 0 || !Number.isSafeInteger(addr + len)) {
    throw invalid(`${addr} is not an address`);
  }
  const matches = (flags & IoeventfdFlag.DATAMATCH) !== 0;
  if (matches && len === 0) throw invalid('DATAMATCH needs a length');
  const datamatch = matches ? BigInt.asUintN(64, ioeventfd.datamatch ?? 0n) : undefined;
  const fd = asEventFd(ioeventfd.fd, 'KVM_IOEVENTFD');
  const bus = (flags & IoeventfdFlag.PIO) === 0 ? mmio : pio;
  const io = { addr, len, datamatch, fd };
  if ((flags & IoeventfdFlag.DEASSIGN) !== 0) bus.removeEventFd(io);
  else bus.addEventFd(io);
}

const invalid = (detail: string): KvmError => new KvmError('EINVAL', 'KVM_IOEVENTFD', detail);
