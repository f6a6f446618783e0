import { KvmError, PvtimeAttr, TimerAttr, VcpuGroup } from '../../kvm/index.js';
import { attrInteger } from './attr-value.js';
import { getPmuAttr, hasPmuAttr, setPmuAttr } from './pmu-attributes.js';
import type { SoftVcpu } from './vcpu.js';
import { NR_PRIVATE, NR_SGIS } from './vgic/irq.js';

const isTimer = (attr: bigint): boolean => attr >= BigInt(TimerAttr.VTIMER) && attr <= BigInt(TimerAttr.HPTIMER);

const isPvtime = (group: number, attr: bigint): boolean =>
  group === VcpuGroup.PVTIME_CTRL && attr === BigInt(PvtimeAttr.IPA);

/** KVM_HAS_DEVICE_ATTR of a vCPU fd (`Documentation/virt/kvm/devices/vcpu.rst`). */
export function hasVcpuAttr(vcpu: SoftVcpu, group: number, attr: bigint): boolean {
  if (group === VcpuGroup.PMU_V3_CTRL) return hasPmuAttr(vcpu, attr);
  return isPvtime(group, attr) || (group === VcpuGroup.TIMER_CTRL && isTimer(attr));
}

/** @throws KvmError ENXIO no such attribute; EINVAL no free PPI; EBUSY a vCPU ran; EFAULT; and what each attribute says */
export function setVcpuAttr(
  vcpu: SoftVcpu,
  group: number,
  attr: bigint,
  value: number | bigint | Uint8Array | undefined,
): void {
  const syscall = 'KVM_SET_DEVICE_ATTR';
  if (group === VcpuGroup.PMU_V3_CTRL) {
    setPmuAttr(vcpu, attr, value);
    return;
  }
  if (isPvtime(group, attr)) {
    vcpu.stolenTime.setBase(attrInteger(value, 8));
    return;
  }
  if (group !== VcpuGroup.TIMER_CTRL) throw noAttr(syscall);
  const { vm } = vcpu;
  if (vm.vgic === undefined) throw new KvmError('EINVAL', syscall, 'timers have PPIs only where there is a vGIC');
  const ppi = Number(BigInt.asIntN(32, attrInteger(value, 4)));
  if (ppi < NR_SGIS || ppi >= NR_PRIVATE) throw new KvmError('EINVAL', syscall, `${ppi} is not a PPI (16 to 31)`);
  if (vm.hasRun) throw new KvmError('EBUSY', syscall, 'a vCPU ran');
  if (!isTimer(attr)) throw noAttr(syscall);
  vm.timers.ppis[Number(attr)] = ppi;
}

/** @throws KvmError ENXIO no such attribute */
export function getVcpuAttr(vcpu: SoftVcpu, group: number, attr: bigint): bigint {
  if (group === VcpuGroup.PMU_V3_CTRL) return getPmuAttr(vcpu, attr);
  if (!hasVcpuAttr(vcpu, group, attr)) throw noAttr('KVM_GET_DEVICE_ATTR');
  if (isPvtime(group, attr)) return vcpu.stolenTime.attribute;
  return BigInt(vcpu.vm.timers.ppis[Number(attr)]!);
}

const noAttr = (syscall: string): KvmError => new KvmError('ENXIO', syscall, 'no such attribute');
