import { IrqType, KvmError } from '../../kvm/index.js';
import { NR_PRIVATE, NR_SGIS } from './vgic/irq.js';
import type { SoftVm } from './vm.js';

/**
 * KVM_IRQ_LINE (`Documentation/virt/kvm/api.rst` 4.25).
 * @param irq type, vCPU and number, as in the kernel's `irq` field
 * @throws KvmError EINVAL no such type, vCPU or number; ENXIO the vGIC has the lines, or there is none; EBUSY it is not initialised
 */
export function setIrqLine(vm: SoftVm, irq: number, level: boolean): void {
  const syscall = 'KVM_IRQ_LINE';
  const { vgic } = vm;
  const type = (irq >>> 24) & 0xf;
  const number = irq & 0xffff;
  const vcpu = vm.vcpuOf(((irq >>> 16) & 0xff) + ((irq >>> 28) & 0xf) * 256);
  if (type !== IrqType.CPU && type !== IrqType.SPI && type !== IrqType.PPI) {
    throw new KvmError('EINVAL', syscall, `interrupt type ${type} is not known`);
  }
  if ((type === IrqType.CPU) !== (vgic === undefined)) {
    throw new KvmError('ENXIO', syscall, vgic === undefined ? 'there is no vGIC' : 'the vGIC has the lines');
  }
  if (type !== IrqType.SPI && vcpu === undefined) throw new KvmError('EINVAL', syscall, 'no such vCPU');
  if (vgic === undefined) {
    if (number > 1) throw new KvmError('EINVAL', syscall, `a vCPU has lines 0 (IRQ) and 1 (FIQ), not ${number}`);
    vcpu!.setCpuLine(number === 1, level);
    return;
  }
  const isPpi = number >= NR_SGIS && number < NR_PRIVATE;
  if (type === IrqType.PPI ? !isPpi : number < NR_PRIVATE) {
    throw new KvmError('EINVAL', syscall, `INTID ${number} is not of this type`);
  }
  // A GICv2 is initialised by what comes first.
  if (vgic.model === 2) vgic.init();
  if (!vgic.initialized) throw new KvmError('EBUSY', syscall, 'the vGIC is not initialised');
  if (type === IrqType.PPI) vgic.injectPpi(vcpu!.id, number, level, false);
  else if (!vgic.injectSpi(number, level)) {
    throw new KvmError('EINVAL', syscall, `INTID ${number} is not below NR_IRQS (${vgic.nrIrqs})`);
  }
}
