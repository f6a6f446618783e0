import { type Device, DeviceType, KvmError, VgicAddr, VgicCtrl, VgicGroup } from '../../../kvm/index.js';
import { attrInteger } from '../attr-value.js';
import type { IoBus } from '../io-bus.js';
import { DeviceFd, type DeviceOwner, noAttr } from './device-fd.js';
import { FRAME_SIZE, ITS_SIZE, type Its } from './its.js';
import { ADDR_UNDEFINED, checkRange } from './vgic.js';

/** What the device needs of its VM. */
export interface ItsOwner extends DeviceOwner {
  readonly bus: IoBus;
  /** Bytes of guest-physical address space. */
  readonly ipaSize: number;
}

const CTRL_ATTRS: readonly number[] = [
  VgicCtrl.INIT,
  VgicCtrl.ITS_SAVE_TABLES,
  VgicCtrl.ITS_RESTORE_TABLES,
  VgicCtrl.ITS_RESET,
];

/** An ITS's device fd (`Documentation/virt/kvm/devices/arm-vgic-its.rst`). */
export class ItsDeviceFd extends DeviceFd<ItsOwner> implements Device {
  readonly type = DeviceType.ARM_VGIC_ITS;
  readonly #its: Its;

  constructor(its: Its, owner: ItsOwner) {
    super(owner);
    this.#its = its;
  }

  /** @throws KvmError EINVAL an offset of ITS_REGS that is not aligned to its register */
  hasDeviceAttr(group: number, attr: number | bigint): boolean {
    const syscall = 'KVM_HAS_DEVICE_ATTR';
    this.check(syscall);
    switch (group) {
      case VgicGroup.ADDR:
        return BigInt(attr) === BigInt(VgicAddr.ITS);
      case VgicGroup.CTRL:
        return CTRL_ATTRS.includes(Number(attr));
      case VgicGroup.ITS_REGS:
        return this.#its.has(Number(attr), syscall);
      default:
        return false;
    }
  }

  setDeviceAttr(group: number, attr: number | bigint, value?: number | bigint | Uint8Array): void {
    const syscall = 'KVM_SET_DEVICE_ATTR';
    this.check(syscall);
    switch (group) {
      case VgicGroup.ADDR: {
        if (BigInt(attr) !== BigInt(VgicAddr.ITS)) throw new KvmError('ENODEV', syscall, `no address ${attr}`);
        const base = attrInteger(value, 8);
        if (this.#its.base !== undefined) throw new KvmError('EEXIST', syscall, "the ITS's address is set");
        this.#its.place(checkRange(base, ITS_SIZE, this.owner.ipaSize, FRAME_SIZE), this.owner.bus);
        return;
      }
      case VgicGroup.CTRL:
        this.#control(Number(attr), syscall);
        return;
      case VgicGroup.ITS_REGS: {
        const register = attrInteger(value, 8);
        const offset = Number(attr);
        this.#checkRegister(offset, syscall);
        this.#its.restore(offset, register);
        return;
      }
      default:
        throw noAttr(syscall);
    }
  }

  getDeviceAttr(group: number, attr: number | bigint): bigint {
    const syscall = 'KVM_GET_DEVICE_ATTR';
    this.check(syscall);
    switch (group) {
      case VgicGroup.ADDR:
        if (BigInt(attr) !== BigInt(VgicAddr.ITS)) throw new KvmError('ENODEV', syscall, `no address ${attr}`);
        return this.#its.base === undefined ? ADDR_UNDEFINED : BigInt(this.#its.base);
      case VgicGroup.ITS_REGS: {
        const offset = Number(attr);
        this.#checkRegister(offset, syscall);
        return this.#its.save(offset);
      }
      default:
        throw noAttr(syscall);
    }
  }

  /** An attribute that is not known does nothing, as in the kernel. */
  #control(attr: number, syscall: string): void {
    if (attr === VgicCtrl.INIT) return;
    this.checkStopped(syscall);
    if (attr === VgicCtrl.ITS_RESET) {
      this.#its.reset();
      return;
    }
    let error: ReturnType<Its['saveTables']>;
    if (attr === VgicCtrl.ITS_SAVE_TABLES) error = this.#its.saveTables();
    if (attr === VgicCtrl.ITS_RESTORE_TABLES) error = this.#its.restoreTables();
    if (error !== undefined) throw new KvmError(error, syscall, "the guest's ITS tables are not right");
  }

  #checkRegister(offset: number, syscall: string): void {
    const isThere = this.#its.has(offset, syscall);
    if (this.#its.base === undefined) throw new KvmError('ENXIO', syscall, "the ITS's address is not set");
    if (!isThere) throw noAttr(syscall);
    this.checkStopped(syscall);
  }
}
