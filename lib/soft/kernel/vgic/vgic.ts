import { KvmError } from '../../../kvm/index.js';
import type { IoBus } from '../io-bus.js';
import { CpuFrame, GICC_SIZE } from './cpu-frame.js';
import { CpuInterface, type Deactivation, type VgicVcpu } from './cpu-interface.js';
import { Distributor, GICD_SIZE } from './distributor.js';
import { DistributorV2, GICD_V2_SIZE } from './distributor-v2.js';
import { NR_PRIVATE, NR_SGIS, VgicIrq } from './irq.js';
import type { Lpis } from './lpis.js';
import { GICR_SIZE, Redistributor, RedistributorRegion } from './redistributor.js';

/** A region of redistributors, as KVM_DEV_ARM_VGIC_GRP_ADDR sets it. */
interface RegionAddress {
  readonly base: number;
  /** Redistributors in it; 0 for the one region of KVM_VGIC_V3_ADDR_TYPE_REDIST, which holds all. */
  readonly count: number;
}

/** What `VgicAddr` reads while an address is not set (VGIC_ADDR_UNDEF). */
export const ADDR_UNDEFINED = 0xffff_ffff_ffff_ffffn;
/** Frames are aligned to this, by the model. */
const FRAME_ALIGN = { 2: 0x1000, 3: 0x10000 } as const;
/** VGIC_NR_IRQS_LEGACY: what NR_IRQS is where nobody set it. */
const DEFAULT_NR_IRQS = 256;
/** Most INTIDs a vGIC can have, reserved ones included. */
const MAX_NR_IRQS = 1024;

/** What a vGIC needs of its VM. */
export interface VgicParts {
  /** GICv2 or GICv3. */
  readonly model: 2 | 3;
  /** Bytes of guest-physical address space. */
  readonly ipaSize: number;
  /** The VM's vCPUs, in the order of their creation. */
  readonly vcpus: () => Iterable<VgicVcpu>;
  /** The vCPU whose access to a frame is being answered. */
  readonly current: () => VgicVcpu | undefined;
  /** The VM's LPIs, which its ITSs map. */
  readonly lpis: Lpis;
}

/**
 * A GICv2 or GICv3 in the kernel: `struct vgic_dist`. Interrupts are routed to the CPU interface that lists them; a CPU interface
 * drives its vCPU's IRQ and FIQ lines as soon as anything changes.
 */
export class Vgic implements Deactivation {
  readonly model: 2 | 3;
  readonly distributor: Distributor;
  readonly distributorV2: DistributorV2;
  readonly lpis: Lpis;
  readonly current: () => VgicVcpu | undefined;
  readonly #ipaSize: number;
  readonly #vcpus: () => Iterable<VgicVcpu>;
  #distBase: number | undefined;
  #cpuBase: number | undefined;
  readonly #regions: RegionAddress[] = [];
  #nrIrqs = 0;
  #initialized = false;
  #mapped = false;
  #enabled = false;
  #spis: VgicIrq[] = [];
  readonly #redistributors = new Map<number, Redistributor>();
  readonly #byAffinity = new Map<number, Redistributor>();
  /** Called when the guest ends a level-triggered SPI: where RESAMPLE irqfds learn of it. */
  onLevelEnded: ((spi: number) => void) | undefined;

  constructor({ model, ipaSize, vcpus, current, lpis }: VgicParts) {
    this.model = model;
    this.#ipaSize = ipaSize;
    this.#vcpus = vcpus;
    this.current = current;
    this.lpis = lpis;
    this.distributor = new Distributor(this);
    this.distributorV2 = new DistributorV2(this);
  }

  /** Whether there are LPIs. */
  get hasIts(): boolean {
    return this.model === 3 && this.lpis.hasIts;
  }

  get vcpuCount(): number {
    return [...this.#vcpus()].length;
  }

  /** @param affinity Aff3.Aff2.Aff1.Aff0 */
  hasAffinity(affinity: number): boolean {
    for (const vcpu of this.#vcpus()) if (vcpu.affinity === affinity) return true;
    return false;
  }

  hasVcpu(id: number): boolean {
    for (const vcpu of this.#vcpus()) if (vcpu.id === id) return true;
    return false;
  }

  get initialized(): boolean {
    return this.#initialized;
  }

  get enabled(): boolean {
    return this.#enabled;
  }

  /** INTIDs, SGIs and PPIs included. */
  get nrIrqs(): number {
    return this.#nrIrqs === 0 ? DEFAULT_NR_IRQS : this.#nrIrqs;
  }

  /** What KVM_DEV_ARM_VGIC_GRP_NR_IRQS reads: without SPIs as long as nobody has said how many. */
  get nrIrqsAttr(): number {
    return this.#nrIrqs === 0 ? NR_PRIVATE : this.#nrIrqs;
  }

  /** KVM_DEV_ARM_VGIC_GRP_NR_IRQS. @throws KvmError EINVAL, EBUSY */
  setNrIrqs(value: number): void {
    if (value < NR_PRIVATE + 32 || value > MAX_NR_IRQS || value % 32 !== 0) {
      throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', `NR_IRQS is a multiple of 32 from 64 to 1024, not ${value}`);
    }
    if (this.#initialized || this.#nrIrqs !== 0) {
      throw new KvmError('EBUSY', 'KVM_SET_DEVICE_ATTR', 'NR_IRQS is already set, or the vGIC initialised');
    }
    this.#nrIrqs = value;
  }

  get distributorBase(): bigint {
    return this.#distBase === undefined ? ADDR_UNDEFINED : BigInt(this.#distBase);
  }

  /** @throws KvmError EEXIST, EINVAL, E2BIG */
  setDistributorBase(base: bigint): void {
    if (this.#distBase !== undefined) {
      throw new KvmError('EEXIST', 'KVM_SET_DEVICE_ATTR', "the distributor's address is set");
    }
    const size = this.model === 2 ? GICD_V2_SIZE : GICD_SIZE;
    this.#distBase = checkRange(base, size, this.#ipaSize, FRAME_ALIGN[this.model]);
  }

  /** GICv2: where the CPU interface's frame is. */
  get cpuBase(): bigint {
    return this.#cpuBase === undefined ? ADDR_UNDEFINED : BigInt(this.#cpuBase);
  }

  /** @throws KvmError EEXIST, EINVAL, E2BIG */
  setCpuBase(base: bigint): void {
    if (this.#cpuBase !== undefined) {
      throw new KvmError('EEXIST', 'KVM_SET_DEVICE_ATTR', "the CPU interface's address is set");
    }
    this.#cpuBase = checkRange(base, GICC_SIZE, this.#ipaSize, FRAME_ALIGN[2]);
  }

  /** The index-th redistributor region. */
  region(index: number): RegionAddress | undefined {
    return this.#regions[index];
  }

  /**
   * Adds a redistributor region (kernel: vgic_v3_alloc_redist_region).
   * @param count redistributors in it, 0 for as many as there are vCPUs
   * @throws KvmError EEXIST, EINVAL, E2BIG
   */
  addRegion(index: number, base: bigint, count: number): void {
    const last = this.#regions.at(-1);
    if (last !== undefined && count === 0 && last.count === 0) {
      throw new KvmError('EEXIST', 'KVM_SET_DEVICE_ATTR', "the redistributors' address is set");
    }
    const mixes = last !== undefined && count === 0 && last.count !== 0;
    if (mixes || index !== this.#regions.length) {
      const rule = 'REDIST and REDIST_REGION do not mix, and regions come in the order of their index';
      throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', rule);
    }
    const size = (count === 0 ? this.vcpuCount : count) * GICR_SIZE;
    const start = Number(base);
    if (this.#overlapsFrames(start, size)) {
      throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', `the region overlaps another at 0x${start.toString(16)}`);
    }
    checkRange(base, size, this.#ipaSize, FRAME_ALIGN[3]);
    this.#regions.push({ base: start, count });
  }

  #regionSize({ count }: RegionAddress): number {
    return (count === 0 ? this.vcpuCount : count) * GICR_SIZE;
  }

  /** Whether a range overlaps the distributor or a region of redistributors. */
  #overlapsFrames(start: number, size: number): boolean {
    const overlaps = (at: number, bytes: number): boolean => start < at + bytes && at < start + size;
    if (this.#distBase !== undefined && overlaps(this.#distBase, GICD_SIZE)) return true;
    return this.#regions.some((region) => overlaps(region.base, this.#regionSize(region)));
  }

  /** GICR_TYPER.Last: no redistributor follows at once, in its region or in one that begins where its region ends. */
  isLast(redistributor: Redistributor): boolean {
    const all = [...this.#redistributors.values()];
    let first = 0;
    for (const { base, count } of this.#regions) {
      const here = count === 0 ? all.slice(first) : all.slice(first, first + count);
      first += here.length;
      if (!here.includes(redistributor)) continue;
      if (here.at(-1) !== redistributor) return false;
      const isFull = here.length === count;
      const follows = this.#regions.some((other) => other.base === base + count * GICR_SIZE && first < all.length);
      return !(isFull && follows);
    }
    return false;
  }

  /** KVM_DEV_ARM_VGIC_CTRL_INIT: makes the interrupts; idempotent. No vCPU can be made afterwards. */
  init(): void {
    if (this.#initialized) return;
    this.#nrIrqs = this.nrIrqs;
    for (const vcpu of this.#vcpus()) {
      const cpu = new CpuInterface(vcpu, this);
      // A GICv2 begins with everything as IRQ.
      if (this.model === 2) cpu.control = { ...cpu.control, fiqEn: false };
      const redistributor = new Redistributor(this, cpu);
      this.#redistributors.set(vcpu.id, redistributor);
    }
    this.indexAffinities();
    const [first] = this.#redistributors.values();
    for (let intid = NR_PRIVATE; intid < this.#nrIrqs; intid++) {
      const irq = new VgicIrq(intid, first?.cpu, true);
      this.prepare(irq);
      this.#spis.push(irq);
    }
    this.#initialized = true;
  }

  /** A vCPU's affinity may have changed. */
  indexAffinities(): void {
    this.#byAffinity.clear();
    for (const redistributor of this.#redistributors.values()) {
      this.#byAffinity.set(redistributor.cpu.vcpu.affinity, redistributor);
    }
  }

  /** A GICv2's interrupts begin in Group 0, a GICv3's in Group 1. */
  prepare(irq: VgicIrq): void {
    irq.group = this.model === 2 ? 0 : 1;
  }

  /**
   * Puts the frames on the bus (kernel: kvm_vgic_map_resources), at the first run of the first vCPU.
   * @throws KvmError ENXIO an address is missing, EBUSY not initialised, EINVAL a region is too small or overlaps
   */
  mapResources(bus: IoBus): void {
    if (this.#mapped) return;
    if (this.model === 2) this.#mapV2(bus);
    else this.#mapV3(bus);
    this.#mapped = true;
  }

  /** A GICv2 need not have been initialised. */
  #mapV2(bus: IoBus): void {
    if (this.#distBase === undefined || this.#cpuBase === undefined) {
      throw new KvmError('ENXIO', 'KVM_RUN', "the vGIC's addresses are not all set");
    }
    if (this.#distBase < this.#cpuBase + GICC_SIZE && this.#cpuBase < this.#distBase + GICD_V2_SIZE) {
      throw new KvmError('EINVAL', 'KVM_RUN', "the vGIC's frames overlap");
    }
    this.init();
    bus.addDevice(this.#distBase, GICD_V2_SIZE, this.distributorV2);
    bus.addDevice(this.#cpuBase, GICC_SIZE, new CpuFrame(this));
  }

  #mapV3(bus: IoBus): void {
    const capacity = this.#regions.reduce((sum, r) => sum + (r.count === 0 ? Number.POSITIVE_INFINITY : r.count), 0);
    const vcpus = [...this.#vcpus()];
    if (this.#distBase === undefined || capacity < vcpus.length) {
      throw new KvmError('ENXIO', 'KVM_RUN', "the vGIC's addresses are not all set");
    }
    const distributor = this.#distBase;
    const overlaps = this.#regions.some(
      (r) => r.base < distributor + GICD_SIZE && distributor < r.base + this.#regionSize(r),
    );
    if (overlaps) throw new KvmError('EINVAL', 'KVM_RUN', "the vGIC's frames overlap");
    if (!this.#initialized) throw new KvmError('EBUSY', 'KVM_RUN', 'the vGIC is not initialised');
    let left = [...this.#redistributors.values()];
    for (const region of this.#regions) {
      const here = left.slice(0, region.count === 0 ? left.length : region.count);
      left = left.slice(here.length);
      if (here.length > 0) bus.addDevice(region.base, here.length * GICR_SIZE, new RedistributorRegion(here));
    }
    bus.addDevice(distributor, GICD_SIZE, this.distributor);
  }

  redistributor(vcpuId: number): Redistributor | undefined {
    return this.#redistributors.get(vcpuId);
  }

  /** @param affinity Aff3.Aff2.Aff1.Aff0 */
  redistributorAt(affinity: number): Redistributor | undefined {
    return this.#byAffinity.get(affinity);
  }

  spi(intid: number): VgicIrq | undefined {
    return this.#spis[intid - NR_PRIVATE];
  }

  setEnabled(enabled: boolean): void {
    if (this.#enabled === enabled) return;
    this.#enabled = enabled;
    for (const irq of this.#spis) this.route(irq);
    for (const { irq } of this.#private()) this.route(irq);
  }

  *#private(): Generator<{ irq: VgicIrq }> {
    for (const redistributor of this.#redistributors.values()) {
      for (let intid = 0; intid < NR_PRIVATE; intid++) yield { irq: redistributor.irq(intid)! };
    }
  }

  /** GICD_IROUTER. */
  setAffinity(irq: VgicIrq, affinity: number): void {
    irq.affinity = affinity;
    irq.target = this.#byAffinity.get(affinity)?.cpu;
    this.route(irq);
  }

  /** GICv2's GICD_ITARGETSR: the first of the vCPUs named; with none, the first of all. */
  setTargets(irq: VgicIrq, targets: number): void {
    irq.targets = targets & (2 ** this.vcpuCount - 1);
    const id = irq.targets === 0 ? 0 : 31 - Math.clz32(irq.targets & -irq.targets);
    irq.target = this.#redistributors.get(id)?.cpu;
    this.route(irq);
  }

  /** Puts `irq` into the list of the CPU interface that shall signal it (kernel: vgic_target_oracle), and out of any other. */
  route(irq: VgicIrq): void {
    const from = irq.holder;
    let to: CpuInterface | undefined;
    if (irq.active) to = from ?? irq.target;
    else if (irq.enabled && irq.pending && this.#enabled) to = irq.target;
    if (from !== undefined && from !== to) {
      from.remove(irq);
      from.update();
    }
    if (to === undefined) return;
    to.hold(irq);
    to.update();
  }

  deactivated(irq: VgicIrq): void {
    this.route(irq);
    if (!irq.edge && irq.intid >= NR_PRIVATE) this.onLevelEnded?.(irq.intid - NR_PRIVATE);
  }

  /** kvm_vgic_inject_irq for an SPI. @returns whether there is such an SPI */
  injectSpi(intid: number, level: boolean, owner = false): boolean {
    const irq = this.spi(intid);
    if (irq === undefined) return false;
    if (irq.owned === owner) this.#inject(irq, level);
    return true;
  }

  /** A private or shared interrupt, as a vCPU sees it. */
  irq(vcpuId: number, intid: number): VgicIrq | undefined {
    return intid < NR_PRIVATE ? this.#redistributors.get(vcpuId)?.irq(intid) : this.spi(intid);
  }

  /** kvm_vgic_inject_irq for a PPI. @param owner the vCPU's own timer drives it */
  injectPpi(vcpuId: number, intid: number, level: boolean, owner: boolean): void {
    const irq = this.#redistributors.get(vcpuId)?.irq(intid);
    if (irq !== undefined && irq.owned === owner) this.#inject(irq, level);
  }

  #inject(irq: VgicIrq, level: boolean): void {
    if (irq.edge) {
      if (!level) return;
      irq.pendingLatch = true;
    } else {
      if (irq.lineLevel === level) return;
      irq.lineLevel = level;
    }
    this.route(irq);
  }

  /**
   * ICC_SGI1R_EL1, ICC_SGI0R_EL1 and ICC_ASGI1R_EL1 (kernel: vgic_v3_dispatch_sgi). Aff0 of a vCPU is below 16, so that
   * no range selector (RS) is offered, and it is ignored.
   * @param group1 whether the register may make Group 1 interrupts pending: those of ICC_SGI1R_EL1
   */
  sendSgi(self: CpuInterface, value: bigint, group1: boolean): void {
    const intid = Number((value >> 24n) & 0xfn);
    if ((value & (1n << 40n)) !== 0n) {
      for (const { cpu, irq } of this.#sgis(intid)) if (cpu !== self) this.#sendSgi(irq, group1);
      return;
    }
    const aff3 = Number((value >> 48n) & 0xffn);
    const aff2 = Number((value >> 32n) & 0xffn);
    const aff1 = Number((value >> 16n) & 0xffn);
    const list = Number(value & 0xffffn);
    for (let i = 0; i < NR_SGIS; i++) {
      if ((list & (1 << i)) === 0) continue;
      const redistributor = this.#byAffinity.get(aff3 * 2 ** 24 + ((aff2 << 16) | (aff1 << 8) | i));
      if (redistributor !== undefined) this.#sendSgi(redistributor.irq(intid)!, group1);
    }
  }

  *#sgis(intid: number): Generator<{ cpu: CpuInterface; irq: VgicIrq }> {
    for (const redistributor of this.#redistributors.values()) {
      yield { cpu: redistributor.cpu, irq: redistributor.irq(intid)! };
    }
  }

  #sendSgi(irq: VgicIrq, group1: boolean): void {
    if (irq.group === 1 && !group1) return;
    irq.pendingLatch = true;
    this.route(irq);
  }
}

/**
 * The address of a GIC's frames (kernel: vgic_check_iorange).
 * @throws KvmError EINVAL not aligned, or wrapping around; E2BIG beyond the IPA size
 */
export function checkRange(base: bigint, size: number, ipaSize: number, alignment: number): number {
  if (base % BigInt(alignment) !== 0n) {
    throw new KvmError(
      'EINVAL',
      'KVM_SET_DEVICE_ATTR',
      `0x${base.toString(16)} is not aligned to 0x${alignment.toString(16)}`,
    );
  }
  if (base + BigInt(size) > 0xffff_ffff_ffff_ffffn) {
    throw new KvmError(
      'EINVAL',
      'KVM_SET_DEVICE_ATTR',
      `0x${base.toString(16)} is so high that the frame wraps around`,
    );
  }
  if (base + BigInt(size) > BigInt(ipaSize)) {
    throw new KvmError('E2BIG', 'KVM_SET_DEVICE_ATTR', `0x${base.toString(16)} is beyond the IPA size`);
  }
  return Number(base);
}
