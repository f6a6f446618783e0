import { type Device, DeviceType, KvmError, VgicAddr, VgicCtrl, VgicGroup } from '../../../kvm/index.js';
import { attrInteger } from '../attr-value.js';
import { DeviceFd, type DeviceOwner, noAttr } from './device-fd.js';
import { Distributor } from './distributor.js';
import { isRestorable, restoreIcc, saveIcc } from './icc.js';
import type { VgicIrq } from './irq.js';
import { Redistributor } from './redistributor.js';
import { ADDR_UNDEFINED, type Vgic } from './vgic.js';

/** KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO: bits 31..10 of the attribute say what is asked; 0 is the line level. */
const LEVEL_INFO_SHIFT = 10n;
const LEVEL_INFO_MASK = 0x3f_ffffn;
const LEVEL_INFO_INTID = 0x3ffn;

/** The device fd of a GICv3 (`Documentation/virt/kvm/devices/arm-vgic-v3.rst`). */
export class VgicV3Device extends DeviceFd implements Device {
  readonly type = DeviceType.ARM_VGIC_V3;
  readonly #vgic: Vgic;

  constructor(vgic: Vgic, owner: DeviceOwner) {
    super(owner);
    this.#vgic = vgic;
  }

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
        return Distributor.has(offsetOf(id));
      case VgicGroup.REDIST_REGS:
        return Redistributor.has(offsetOf(id));
      case VgicGroup.LEVEL_INFO:
        return ((id >> LEVEL_INFO_SHIFT) & LEVEL_INFO_MASK) === 0n;
      case VgicGroup.CPU_SYSREGS: {
        const redistributor = this.#vgic.redistributorAt(affinityOf(id));
        return redistributor !== undefined && saveIcc(redistributor.cpu, Number(id & 0xffffn)) !== undefined;
      }
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
        this.#checkRegs(syscall);
        const offset = offsetOf(id);
        if (!Distributor.has(offset)) throw noAttr(syscall);
        this.#vgic.distributor.restore(offset, register);
        return;
      }
      case VgicGroup.REDIST_REGS: {
        const register = Number(attrInteger(value, 4));
        const redistributor = this.#redistributor(id, syscall);
        const offset = offsetOf(id);
        if (!Redistributor.has(offset)) throw noAttr(syscall);
        redistributor.write(offset, 4, register, true);
        return;
      }
      case VgicGroup.CPU_SYSREGS: {
        const register = Number(attrInteger(value, 8) & 0xffff_ffffn);
        const { cpu } = this.#redistributor(id, syscall);
        const index = Number(id & 0xffffn);
        if (saveIcc(cpu, index) === undefined) throw noAttr(syscall);
        if (!isRestorable(cpu, index, register)) {
          throw new KvmError('EINVAL', syscall, 'the value claims what this CPU interface has not');
        }
        restoreIcc(cpu, index, register);
        return;
      }
      case VgicGroup.LEVEL_INFO: {
        const levels = Number(attrInteger(value, 4));
        for (const [bit, irq] of this.#levelIrqs(id, syscall)) {
          if (irq.edge) continue;
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
        return BigInt(this.#vgic.nrIrqs);
      case VgicGroup.DIST_REGS: {
        this.#checkRegs(syscall);
        const offset = offsetOf(id);
        if (!Distributor.has(offset)) throw noAttr(syscall);
        return BigInt(this.#vgic.distributor.save(offset));
      }
      case VgicGroup.REDIST_REGS: {
        const redistributor = this.#redistributor(id, syscall);
        const offset = offsetOf(id);
        if (!Redistributor.has(offset)) throw noAttr(syscall);
        return BigInt(redistributor.read(offset, 4, true));
      }
      case VgicGroup.CPU_SYSREGS: {
        const register = saveIcc(this.#redistributor(id, syscall).cpu, Number(id & 0xffffn));
        if (register === undefined) throw noAttr(syscall);
        return BigInt(register);
      }
      case VgicGroup.LEVEL_INFO: {
        let levels = 0;
        for (const [bit, irq] of this.#levelIrqs(id, syscall)) if (irq.lineLevel) levels |= 1 << bit;
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
      // The GICv2's addresses are known, but not to this model.
      case VgicAddr.V2_DIST:
      case VgicAddr.V2_CPU:
        throw new KvmError('ENODEV', 'KVM_SET_DEVICE_ATTR', 'not an address of a GICv3');
      default:
        throw new KvmError('ENODEV', 'KVM_SET_DEVICE_ATTR', `no address ${id}`);
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
        throw new KvmError('ENODEV', 'KVM_GET_DEVICE_ATTR', `no address ${id}`);
    }
  }

  #savePending(syscall: string): void {
    if (!this.#vgic.initialized) throw new KvmError('ENXIO', syscall, 'the vGIC is not initialised');
    this.checkStopped(syscall);
    this.owner.finishCommands();
    if (!this.#vgic.lpis.savePending()) throw new KvmError('EFAULT', syscall, 'a pending table is not in RAM');
  }

  /** Registers can be read and written only between the vGIC's initialisation and a run. */
  #checkRegs(syscall: string): void {
    if (!this.#vgic.initialized) throw new KvmError('EBUSY', syscall, 'the vGIC is not initialised');
    this.checkStopped(syscall);
  }

  #redistributor(id: bigint, syscall: string): Redistributor {
    const redistributor = this.#vgic.redistributorAt(affinityOf(id));
    if (redistributor === undefined && this.#vgic.initialized) {
      throw new KvmError('EINVAL', syscall, 'no vCPU has this MPIDR');
    }
    this.#checkRegs(syscall);
    return redistributor!;
  }

  #levelIrqs(id: bigint, syscall: string): [number, VgicIrq][] {
    if (((id >> LEVEL_INFO_SHIFT) & LEVEL_INFO_MASK) !== 0n) {
      throw new KvmError('EINVAL', syscall, 'only the line level is known');
    }
    const first = Number(id & LEVEL_INFO_INTID);
    if (first % 32 !== 0) throw new KvmError('EINVAL', syscall, `INTID ${first} is not a multiple of 32`);
    const redistributor = this.#redistributor(id, syscall);
    const irqs: [number, VgicIrq][] = [];
    for (let bit = 0; bit < 32; bit++) {
      const intid = first + bit;
      const irq = intid < 32 ? redistributor.irq(intid) : this.#vgic.spi(intid);
      if (irq !== undefined) irqs.push([bit, irq]);
    }
    return irqs;
  }
}

const offsetOf = (id: bigint): number => Number(id & 0xffff_ffffn);
/** Bits 63..32: Aff3.Aff2.Aff1.Aff0. */
const affinityOf = (id: bigint): number => Number((id >> 32n) & 0xffff_ffffn);
