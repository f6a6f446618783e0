import { type Device, DeviceType, KvmError, VgicAddr, VgicCtrl, VgicGroup } from '../../../kvm/index.js';
import { attrInteger } from '../attr-value.js';
import { hasGicc, restoreGicc, saveGicc } from './cpu-frame.js';
import { DeviceFd, type DeviceOwner, noAttr } from './device-fd.js';
import type { Vgic } from './vgic.js';

/**
 * The device fd of a GICv2 (`Documentation/virt/kvm/devices/arm-vgic.rst`). An offset without a register reads as zero and ignores
 * writes; only KVM_HAS_DEVICE_ATTR tells.
 */
export class VgicV2Device extends DeviceFd implements Device {
  readonly type = DeviceType.ARM_VGIC_V2;
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
        return id === BigInt(VgicAddr.V2_DIST) || id === BigInt(VgicAddr.V2_CPU);
      case VgicGroup.NR_IRQS:
        return true;
      case VgicGroup.CTRL:
        return id === BigInt(VgicCtrl.INIT);
      case VgicGroup.DIST_REGS:
        return this.#vgic.distributorV2.has(offsetOf(id));
      case VgicGroup.CPU_REGS:
        return hasGicc(offsetOf(id));
      default:
        return false;
    }
  }

  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void {
    const syscall = 'KVM_SET_DEVICE_ATTR';
    this.check(syscall);
    const id = BigInt(attr);
    switch (group) {
      case VgicGroup.ADDR: {
        const base = attrInteger(value, 8);
        if (id === BigInt(VgicAddr.V2_DIST)) this.#vgic.setDistributorBase(base);
        else if (id === BigInt(VgicAddr.V2_CPU)) this.#vgic.setCpuBase(base);
        else throw noAttr(syscall);
        return;
      }
      case VgicGroup.NR_IRQS:
        this.#vgic.setNrIrqs(Number(attrInteger(value, 4)));
        return;
      case VgicGroup.CTRL:
        if (id !== BigInt(VgicCtrl.INIT)) throw noAttr(syscall);
        this.#vgic.init();
        return;
      case VgicGroup.DIST_REGS: {
        const register = Number(attrInteger(value, 4));
        const { vcpu, offset } = this.#register(id, syscall);
        if (this.#vgic.distributorV2.has(offset)) this.#vgic.distributorV2.restore(vcpu, offset, register);
        return;
      }
      case VgicGroup.CPU_REGS: {
        const register = Number(attrInteger(value, 4));
        const { vcpu, offset } = this.#register(id, syscall);
        if (hasGicc(offset)) restoreGicc(this.#vgic.redistributor(vcpu)!.cpu, offset, register);
        return;
      }
      default:
        throw noAttr(syscall);
    }
  }

  getDeviceAttr(group: number, attr: number | bigint): bigint {
    const syscall = 'KVM_GET_DEVICE_ATTR';
    this.check(syscall);
    const id = BigInt(attr);
    switch (group) {
      case VgicGroup.ADDR:
        if (id === BigInt(VgicAddr.V2_DIST)) return this.#vgic.distributorBase;
        if (id === BigInt(VgicAddr.V2_CPU)) return this.#vgic.cpuBase;
        throw noAttr(syscall);
      case VgicGroup.NR_IRQS:
        return BigInt(this.#vgic.nrIrqsAttr);
      case VgicGroup.DIST_REGS: {
        const { vcpu, offset } = this.#register(id, syscall);
        return this.#vgic.distributorV2.has(offset) ? BigInt(this.#vgic.distributorV2.save(vcpu, offset)) : 0n;
      }
      case VgicGroup.CPU_REGS: {
        const { vcpu, offset } = this.#register(id, syscall);
        return hasGicc(offset) ? BigInt(saveGicc(this.#vgic.redistributor(vcpu)!.cpu, offset) ?? 0) : 0n;
      }
      default:
        throw noAttr(syscall);
    }
  }

  /** Bits 39..32 are the vCPU's id, the low ones the offset. The access initialises the vGIC. */
  #register(id: bigint, syscall: string): { vcpu: number; offset: number } {
    const vcpu = Number((id >> 32n) & 0xffn);
    this.checkStopped(syscall);
    if (!this.#vgic.hasVcpu(vcpu)) throw new KvmError('EINVAL', syscall, `there is no vCPU ${vcpu}`);
    this.#vgic.init();
    return { vcpu, offset: offsetOf(id) };
  }
}

const offsetOf = (id: bigint): number => Number(id & 0xffff_ffffn);
