/**
 * The board: QEMU `virt`'s memory map (`hw/arm/virt.c`, base_memmap and a15irqmap), so that kernels and images built for it
 * run unchanged. Guests should read everything but the RAM base from the device tree.
 */

/** A device's place: guest-physical base and size in bytes, and its interrupt as an SPI number (INTID minus 32), where it has one. */
export interface BoardSlot {
  readonly base: number;
  readonly size: number;
  readonly spi: number;
}

/** The first INTID that is a shared peripheral interrupt (Arm IHI 0069 §2.2.1). */
export const SPI_BASE = 32;

/** GICv3 distributor: 64 KiB. */
export const GICD_BASE = 0x0800_0000;
export const GICD_SIZE = 0x1_0000;
/** GICv2: distributor (4 KiB, at {@link GICD_BASE}) and CPU interface (8 KiB); what limits it to eight vCPUs is its registers. */
export const GICD_V2_SIZE = 0x1000;
export const GICC_BASE = 0x0801_0000;
export const GICC_SIZE = 0x2000;
export const MAX_CPUS_GICV2 = 8;
/** ITS: control frame and translation frame, 64 KiB each. */
export const ITS_BASE = 0x0808_0000;
export const ITS_SIZE = 0x2_0000;
/** GICv3 redistributors: two 64 KiB frames a vCPU. */
export const GICR_BASE = 0x080a_0000;
export const GICR_STRIDE = 0x2_0000;
/** Up to the PL011; the space of 123 redistributors, which is what limits the number of vCPUs. */
export const GICR_SPACE = 0x00f6_0000;
export const MAX_CPUS = GICR_SPACE / GICR_STRIDE;

export const PL011: BoardSlot = { base: 0x0900_0000, size: 0x1000, spi: 1 };
export const PL031: BoardSlot = { base: 0x0901_0000, size: 0x1000, spi: 2 };
export const PL061: BoardSlot = { base: 0x0903_0000, size: 0x1000, spi: 7 };
/** The PL061 line that the power key pulls (QEMU: GPIO 3). */
export const POWER_KEY_GPIO = 3;

const VIRTIO_BASE = 0x0a00_0000;
const VIRTIO_SIZE = 0x200;
const VIRTIO_SPI = 16;
/** virtio-mmio slots. */
export const VIRTIO_SLOTS = 32;
/** Slot `n` of the virtio-mmio transports, 0 to 31. */
export const virtioSlot = (n: number): BoardSlot => ({
  base: VIRTIO_BASE + n * VIRTIO_SIZE,
  size: VIRTIO_SIZE,
  spi: VIRTIO_SPI + n,
});

/** Interrupts of the vGIC, SGIs and PPIs included: what QEMU gives this board (256 SPIs). */
export const NR_IRQS = 288;

/** PPIs of the generic timer, as the device tree counts them (INTID minus 16): secure physical, physical, virtual, hypervisor. */
export const TIMER_PPIS = [13, 14, 11, 10] as const;

/** PPI of the PMUs, counted so too; its INTID is 16 more. */
export const PMU_PPI = 7;

export const RAM_BASE = 0x4000_0000;
/** QEMU's limit for RAM below the high memory regions: 255 GiB. */
export const MAX_RAM = 255 * 2 ** 30;
/** RAM is given in whole mebibytes. */
export const RAM_UNIT = 2 ** 20;

/** MPIDR affinity of vCPU `id`: 16 to an Aff0 group, as KVM derives it (`arch/arm64/kvm/sys_regs.c`, reset_mpidr). */
export const mpidrOf = (id: number): number => (id & 0xf) | (((id >> 4) & 0xff) << 8);

/** IPA bits that RAM of `size` bytes needs, for KVM_CREATE_VM: at least 36, which every arm64 host has. */
export function ipaBitsFor(size: number): number {
  let bits = 36;
  while (2 ** bits < RAM_BASE + size) bits++;
  return bits;
}
