import { KvmError, PmuAttr } from '../../kvm/index.js';
import { attrInteger } from './attr-value.js';
import { MAX_EVENT_COUNTERS, type Pmu } from './pmu.js';
import type { SoftVcpu } from './vcpu.js';
import { NR_PRIVATE, NR_SGIS } from './vgic/irq.js';

/** `struct kvm_pmu_event_filter`: base_event, nevents, action, padding. */
const FILTER_SIZE = 8;
const FILTER_ALLOW = 0;
const FILTER_DENY = 1;
const NR_EVENTS = 0x1_0000;
/** INTIDs from here on are no SPIs. */
const SPECIAL_INTIDS = 1020;

/** KVM_HAS_DEVICE_ATTR of KVM_ARM_VCPU_PMU_V3_CTRL (`Documentation/virt/kvm/devices/vcpu.rst` 1). */
export const hasPmuAttr = (vcpu: SoftVcpu, attr: bigint): boolean =>
  vcpu.pmu !== undefined && attr >= BigInt(PmuAttr.IRQ) && attr <= BigInt(PmuAttr.SET_NR_COUNTERS);

/** @throws KvmError ENODEV the vCPU has no PMU, or the vGIC is not initialised; EBUSY the PMU is; ENXIO, EINVAL, EEXIST, EFAULT */
export function setPmuAttr(vcpu: SoftVcpu, attr: bigint, value: number | bigint | Uint8Array | undefined): void {
  const { pmu, vm } = vcpu;
  if (pmu === undefined) throw fail('ENODEV', 'the vCPU has no PMU');
  if (pmu.initialized) throw fail('EBUSY', 'the PMU is initialised');
  switch (Number(attr)) {
    case PmuAttr.IRQ:
      setInterrupt(vcpu, pmu, value);
      return;
    case PmuAttr.INIT:
      initialize(vcpu, pmu);
      return;
    case PmuAttr.FILTER:
      setFilter(vcpu, value);
      return;
    case PmuAttr.SET_PMU:
      attrInteger(value, 4);
      throw fail('ENXIO', 'this machine has no PMU with a number of its own');
    case PmuAttr.SET_NR_COUNTERS: {
      const counters = Number(attrInteger(value, 4));
      if (counters > MAX_EVENT_COUNTERS) throw fail('EINVAL', `there are ${MAX_EVENT_COUNTERS} event counters`);
      if (vm.hasRun) throw fail('EBUSY', 'a vCPU ran');
      vm.pmu.eventCounters = counters;
      return;
    }
    default:
      throw fail('ENXIO', 'no such attribute');
  }
}

/** @throws KvmError EINVAL there is no vGIC; ENODEV there is no PMU; ENXIO no such attribute, or no interrupt was set */
export function getPmuAttr({ vm, pmu }: SoftVcpu, attr: bigint): bigint {
  const syscall = 'KVM_GET_DEVICE_ATTR';
  if (attr !== BigInt(PmuAttr.IRQ)) throw new KvmError('ENXIO', syscall, 'no such attribute');
  if (vm.vgic === undefined) throw new KvmError('EINVAL', syscall, 'there is no vGIC');
  if (pmu === undefined) throw new KvmError('ENODEV', syscall, 'the vCPU has no PMU');
  if (pmu.interrupt === undefined) throw new KvmError('ENXIO', syscall, 'no interrupt was set');
  return BigInt(pmu.interrupt);
}

/** A PPI is the same for all vCPUs, an SPI another one for each. */
function setInterrupt({ vm }: SoftVcpu, pmu: Pmu, value: number | bigint | Uint8Array | undefined): void {
  if (vm.vgic === undefined) throw fail('EINVAL', 'there is no vGIC');
  const intid = Number(BigInt.asIntN(32, attrInteger(value, 4)));
  if (intid < NR_SGIS || intid >= SPECIAL_INTIDS) throw fail('EINVAL', `${intid} is neither a PPI nor an SPI`);
  for (const { pmu: other } of vm.vcpuList()) {
    if (other?.interrupt === undefined) continue;
    if ((other.interrupt === intid) !== intid < NR_PRIVATE) throw fail('EINVAL', `another vCPU has ${other.interrupt}`);
  }
  if (pmu.interrupt !== undefined) throw fail('EBUSY', 'the interrupt is set');
  pmu.interrupt = intid;
}

function initialize(vcpu: SoftVcpu, pmu: Pmu): void {
  const { vgic } = vcpu.vm;
  if (vgic !== undefined) {
    if (!vgic.initialized) throw fail('ENODEV', 'the vGIC is not initialised');
    if (pmu.interrupt === undefined) throw fail('ENXIO', 'no interrupt was set');
    const irq = vgic.irq(vcpu.id, pmu.interrupt);
    if (irq === undefined) throw fail('EINVAL', `INTID ${pmu.interrupt} is not below NR_IRQS`);
    if (irq.owned) throw fail('EEXIST', `INTID ${pmu.interrupt} is another device's`);
    irq.owned = true;
  }
  pmu.initialized = true;
}

function setFilter({ vm }: SoftVcpu, value: number | bigint | Uint8Array | undefined): void {
  if (!(value instanceof Uint8Array) || value.length < FILTER_SIZE) {
    throw fail('EFAULT', 'the value is a struct kvm_pmu_event_filter, as bytes');
  }
  const view = new DataView(value.buffer, value.byteOffset, FILTER_SIZE);
  const base = view.getUint16(0, true);
  const count = view.getUint16(2, true);
  const action = view.getUint8(4);
  if (base + count > NR_EVENTS || (action !== FILTER_ALLOW && action !== FILTER_DENY)) {
    throw fail('EINVAL', 'events from 0 to 0xffff are allowed (0) or denied (1)');
  }
  if (vm.hasRun) throw fail('EBUSY', 'a vCPU ran');
  vm.pmu.filter(base, count, action === FILTER_ALLOW);
}

const fail = (code: 'EINVAL' | 'EBUSY' | 'ENODEV' | 'ENXIO' | 'EEXIST' | 'EFAULT', detail: string): KvmError =>
  new KvmError(code, 'KVM_SET_DEVICE_ATTR', detail);
