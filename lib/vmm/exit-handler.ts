import { type IntrExit, MpState, Reg, SystemEvent, type Vcpu, type VcpuExit, type Vm } from '../kvm/index.js';
import type { MmioBus } from './mmio-bus.js';

/** SMCCC's NOT_SUPPORTED (Arm DEN0028 §7.1). */
const SMCCC_NOT_SUPPORTED = 0xffff_ffff_ffff_ffffn;

/** An event that ends the guest. */
export type FinalEvent = typeof SystemEvent.SHUTDOWN | typeof SystemEvent.RESET | typeof SystemEvent.CRASH;

/** Does what an exit asks for, before the vCPU runs on. @throws Error where the VM cannot go on */
export type ExitHandler = (vcpu: Vcpu, exit: Exclude<VcpuExit, IntrExit>) => void;

/** The handler of a VM's exits. @param ended called for an event that ends the guest */
export function exitHandler(
  { vm, bus }: { readonly vm: Vm; readonly bus: MmioBus },
  ended: (event: FinalEvent) => void,
): ExitHandler {
  const systemEvent = (vcpu: Vcpu, type: SystemEvent): void => {
    switch (type) {
      case SystemEvent.WAKEUP:
        vcpu.setMpState(MpState.RUNNABLE);
        return;
      case SystemEvent.SUSPEND:
        vcpu.setMpState(MpState.SUSPENDED);
        return;
      default:
        ended(type);
    }
  };
  return (vcpu, exit) => {
    switch (exit.reason) {
      case 'mmio':
        bus.handle(exit);
        return;
      case 'system_event':
        systemEvent(vcpu, exit.type);
        return;
      case 'hypercall':
        // Nothing is forwarded here: the VM has no SMCCC filter. A caller gets the answer of a call that does not exist.
        vcpu.setOneReg(Reg.x(0), SMCCC_NOT_SUPPORTED);
        return;
      case 'arm_nisv':
      case 'arm_ldst64b':
        // A device access without a syndrome: no device of this board can be asked. The guest gets what hardware would
        // give it, an external abort.
        vcpu.setVcpuEvents({ extDabtPending: true });
        return;
      case 'dirty_ring_full':
        vm.resetDirtyRings();
        return;
      case 'fail_entry':
        throw new Error(
          `vCPU ${vcpu.id} could not enter the guest (hardware reason 0x${exit.hardwareEntryFailureReason.toString(16)}, CPU ${exit.cpu})`,
        );
      case 'internal_error':
        throw new Error(
          `KVM internal error ${exit.suberror} on vCPU ${vcpu.id}, PC ${hex(pcOf(vcpu))}, data [${exit.data.map(hex).join(', ')}]`,
        );
      case 'memory_fault':
        throw new Error(
          `guest memory at 0x${exit.gpa.toString(16)} (${exit.size} bytes) could not be resolved for vCPU ${vcpu.id}`,
        );
      case 'arm_sea':
        throw new Error(`synchronous external abort at guest-physical 0x${exit.gpa.toString(16)}, vCPU ${vcpu.id}`);
      case 'debug':
        throw new Error(`debug exit of vCPU ${vcpu.id} at PC ${hex(pcOf(vcpu))}, with no debugger attached`);
    }
  };
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

function pcOf(vcpu: Vcpu): bigint {
  try {
    return vcpu.getOneReg(Reg.PC);
  } catch {
    return 0n;
  }
}
