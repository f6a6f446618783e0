import { type Device, DeviceType, KvmError, VgicAddr, VgicCtrl, VgicGroup } from '../../../kvm/index.js';
import { attrInteger } from '../attr-value.js';
import { DeviceFd, type DeviceOwner, noAttr } from './device-fd.js';
import { Distributor } from './distributor.js';
import { isRestorable, isSavedIcc, restoreIcc, saveIcc } from './icc.js';
import { NR_PRIVATE, NR_SGIS, type VgicIrq } from './irq.js';
import { Redistributor } from './redistributor.js';
import { ADDR_UNDEFINED, type Vgic } from './vgic.js';

/** KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO: bits 31..10 of the attribute say what is asked; 0 is the line level. */
const LEVEL_INFO_SHIFT = 10n;
const LEVEL_INFO_MASK = 0x3f_ffffn;
const LEVEL_INFO_INTID = 0x3ffn;

/**
 * The device fd of a GICv3 (`Documentation/virt/kvm/devices/arm-vgic-v3.rst`). An offset without a register reads as zero and ignores
 * writes, as it does for the guest; only KVM_HAS_DEVICE_ATTR tells.
 */
export class VgicV3Device extends DeviceFd implements Device {
  readonly type = DeviceType.ARM_VGIC_V3;
  readonly #vgic: Vgic;

  constructor(vgic: Vgic, owner: DeviceOwner) {
    super(owner);
    this.#vgic = vgic;
  }

  /** @throws KvmError EINVAL the attribute names an MPIDR that no vCPU has */
  hasDeviceAttr(group: number, attr: number | bigint): boolean {
    this.check('KVM_HAS_DEVICE_ATTR');
    const id = BigInt(attr);
    switch (group) {
      case VgicGroup.ADDR:
        return (
          id === BigInt(VgicAddr.V3_DIST) ||
          id === BigInt(VgicAddr.V3_REDIST) ||
          id === BigInt(VgicAddr.V3_REDIST_REGION)
        );
      case VgicGroup.NR_IRQS:
        return true;
      case VgicGroup.CTRL:
        return id === BigInt(VgicCtrl.INIT) || id === BigInt(VgicCtrl.SAVE_PENDING_TABLES);
      case VgicGroup.DIST_REGS:
        return this.#vgic.distributor.has(offsetOf(id));
      case VgicGroup.REDIST_REGS:
        this.#checkVcpu(id, 'KVM_HAS_DEVICE_ATTR');
        return Redistributor.has(offsetOf(id));
      case VgicGroup.LEVEL_INFO:
        return ((id >> LEVEL_INFO_SHIFT) & LEVEL_INFO_MASK) === 0n;
      case VgicGroup.CPU_SYSREGS:
        this.#checkVcpu(id, 'KVM_HAS_DEVICE_ATTR');
        return isSavedIcc(Number(id & 0xffffn));
      default:
        return false;
    }
  }

  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void {
    const syscall = 'KVM_SET_DEVICE_ATTR';
    this.check(syscall);
    const id = BigInt(attr);
    switch (group) {
      case VgicGroup.ADDR:
        this.#setAddress(id, value);
        return;
      case VgicGroup.NR_IRQS:
        this.#vgic.setNrIrqs(Number(attrInteger(value, 4)));
        return;
      case VgicGroup.CTRL:
        if (id === BigInt(VgicCtrl.INIT)) this.#vgic.init();
        else if (id === BigInt(VgicCtrl.SAVE_PENDING_TABLES)) this.#savePending(syscall);
        else throw noAttr(syscall);
        return;
      case VgicGroup.DIST_REGS: {
        const register = Number(attrInteger(value, 4));
        const offset = offsetOf(id);
        this.#checkRegs(syscall, Distributor.isEarly(offset));
        if (this.#vgic.distributor.has(offset)) this.#vgic.distributor.restore(offset, register);
        return;
      }
      case VgicGroup.REDIST_REGS: {
        const register = Number(attrInteger(value, 4));
        const redistributor = this.#redistributor(id, syscall);
        const offset = offsetOf(id);
        if (Redistributor.has(offset)) redistributor.write(offset, 4, register, true);
        return;
      }
      case VgicGroup.CPU_SYSREGS: {
        const register = Number(attrInteger(value, 8) & 0xffff_ffffn);
        const { cpu } = this.#redistributor(id, syscall);
        const index = Number(id & 0xffffn);
        checkIcc(index, syscall);
        if (!isRestorable(cpu, index, register)) {
          throw new KvmError('EINVAL', syscall, 'the value claims what this CPU interface has not');
        }
        restoreIcc(cpu, index, register);
        return;
      }
      case VgicGroup.LEVEL_INFO: {
        const levels = Number(attrInteger(value, 4));
        for (const [bit, irq] of this.#levelIrqs(id, syscall)) {
          // Also of one that is edge-triggered: its configuration may be restored later.
          irq.lineLevel = ((levels >>> bit) & 1) !== 0;
          this.#vgic.route(irq);
        }
        return;
      }
      default:
        throw noAttr(syscall);
    }
  }

  getDeviceAttr(group: number, attr: number | bigint, value?: number | bigint): bigint {
    const syscall = 'KVM_GET_DEVICE_ATTR';
    this.check(syscall);
    const id = BigInt(attr);
    switch (group) {
      case VgicGroup.ADDR:
        return this.#getAddress(id, value);
      case VgicGroup.NR_IRQS:
        return BigInt(this.#vgic.nrIrqsAttr);
      case VgicGroup.DIST_REGS: {
        const offset = offsetOf(id);
        this.#checkRegs(syscall, Distributor.isEarly(offset));
        return this.#vgic.distributor.has(offset) ? BigInt(this.#vgic.distributor.save(offset)) : 0n;
      }
      case VgicGroup.REDIST_REGS: {
        const redistributor = this.#redistributor(id, syscall);
        const offset = offsetOf(id);
        return Redistributor.has(offset) ? BigInt(redistributor.read(offset, 4, true)) : 0n;
      }
      case VgicGroup.CPU_SYSREGS: {
        const { cpu } = this.#redistributor(id, syscall);
        const index = Number(id & 0xffffn);
        checkIcc(index, syscall);
        const register = saveIcc(cpu, index);
        if (register === undefined)
          throw new KvmError('EINVAL', syscall, 'priorities have five bits: one register holds them');
        return BigInt(register);
      }
      case VgicGroup.LEVEL_INFO: {
        let levels = 0;
        for (const [bit, irq] of this.#levelIrqs(id, syscall)) if (irq.lineLevel && !irq.edge) levels |= 1 << bit;
        return BigInt(levels >>> 0);
      }
      default:
        throw noAttr(syscall);
    }
  }

  #setAddress(id: bigint, value: number | bigint | Uint8Array | undefined): void {
    switch (Number(id)) {
      case VgicAddr.V3_DIST:
        this.#vgic.setDistributorBase(attrInteger(value, 8));
        return;
      case VgicAddr.V3_REDIST:
        this.#vgic.addRegion(0, attrInteger(value, 8), 0);
        return;
      case VgicAddr.V3_REDIST_REGION: {
        const region = attrInteger(value, 8);
        const count = Number(region >> 52n);
        if (count === 0 || (region & 0xf000n) !== 0n) {
          throw new KvmError('EINVAL', 'KVM_SET_DEVICE_ATTR', 'a region has a count and no flags');
        }
        this.#vgic.addRegion(Number(region & 0xfffn), region & 0xf_ffff_ffff_0000n, count);
        return;
      }
      default:
        throw noAttr('KVM_SET_DEVICE_ATTR');
    }
  }

  #getAddress(id: bigint, value: number | bigint | undefined): bigint {
    switch (Number(id)) {
      case VgicAddr.V3_DIST:
        return this.#vgic.distributorBase;
      case VgicAddr.V3_REDIST: {
        const region = this.#vgic.region(0);
        return region === undefined ? ADDR_UNDEFINED : BigInt(region.base);
      }
      case VgicAddr.V3_REDIST_REGION: {
        const index = Number(attrInteger(value, 8) & 0xfffn);
        const region = this.#vgic.region(index);
        if (region === undefined) throw new KvmError('ENOENT', 'KVM_GET_DEVICE_ATTR', `no region ${index}`);
        return (BigInt(region.count) << 52n) | BigInt(region.base) | BigInt(index);
      }
      default:
        throw noAttr('KVM_GET_DEVICE_ATTR');
    }
  }

  #savePending(syscall: string): void {
    if (!this.#vgic.initialized) throw new KvmError('ENXIO', syscall, 'the vGIC is not initialised');
    this.checkStopped(syscall);
    this.owner.finishCommands();
    if (!this.#vgic.lpis.savePending()) throw new KvmError('EFAULT', syscall, 'a pending table is not in RAM');
  }

  /**
   * Registers can be read and written only between the vGIC's initialisation and a run.
   * @param isEarly but for those that say what it is to be like
   */
  #checkRegs(syscall: string, isEarly = false): void {
    this.checkStopped(syscall);
    if (!this.#vgic.initialized && !isEarly) throw new KvmError('EBUSY', syscall, 'the vGIC is not initialised');
  }

  /** @throws KvmError EINVAL no vCPU has the affinity that the attribute names */
  #checkVcpu(id: bigint, syscall: string): void {
    if (!this.#vgic.hasAffinity(affinityOf(id))) throw new KvmError('EINVAL', syscall, 'no vCPU has this MPIDR');
  }

  #redistributor(id: bigint, syscall: string): Redistributor {
    this.#checkVcpu(id, syscall);
    this.#checkRegs(syscall);
    return this.#vgic.redistributorAt(affinityOf(id))!;
  }

  #levelIrqs(id: bigint, syscall: string): [number, VgicIrq][] {
    const redistributor = this.#redistributor(id, syscall);
    if (((id >> LEVEL_INFO_SHIFT) & LEVEL_INFO_MASK) !== 0n) {
      throw new KvmError('EINVAL', syscall, 'only the line level is known');
    }
    const first = Number(id & LEVEL_INFO_INTID);
    if (first % 32 !== 0) throw new KvmError('EINVAL', syscall, `INTID ${first} is not a multiple of 32`);
    const irqs: [number, VgicIrq][] = [];
    for (let bit = 0; bit < 32; bit++) {
      const intid = first + bit;
      // SGIs have no line.
      if (intid < NR_SGIS) continue;
      const irq = intid < NR_PRIVATE ? redistributor.irq(intid) : this.#vgic.spi(intid);
      if (irq !== undefined) irqs.push([bit, irq]);
    }
    return irqs;
  }
}

const offsetOf = (id: bigint): number => Number(id & 0xffff_ffffn);
/** Bits 63..32: Aff3.Aff2.Aff1.Aff0. */
const affinityOf = (id: bigint): number => Number((id >> 32n) & 0xffff_ffffn);

function checkIcc(index: number, syscall: string): void {
  if (!isSavedIcc(index)) throw new KvmError('ENOENT', syscall, 'no such register of the CPU interface');
}
