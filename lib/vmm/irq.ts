import { IrqType, type Kvm, type Vm } from '../kvm/index.js';
import { SPI_BASE } from './board.js';
import type { IrqLine } from './devices/device.js';

/**
 * Wires a device's interrupt output to SPI `spi` of the vGIC: edges by an irqfd (the default GSI table has GSI n on SPI n),
 * levels by KVM_IRQ_LINE. Closing it with the VM gives the eventfd back.
 */
export function connectIrq(kvm: Kvm, vm: Vm, spi: number): IrqLine & { close(): void } {
  const fd = kvm.createEventFd();
  vm.irqfd({ fd, gsi: spi });
  const irq = (IrqType.SPI << 24) | (SPI_BASE + spi);
  return {
    setLevel: (level) => {
      if (!vm.closed) vm.irqLine(irq, level);
    },
    pulse: () => {
      if (!vm.closed) fd.signal();
    },
    close: () => fd.close(),
  };
}
