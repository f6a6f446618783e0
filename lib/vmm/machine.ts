import {
  Cap,
  DeviceType,
  type Kvm,
  KvmError,
  PmuAttr,
  Reg,
  sysregId,
  type Vcpu,
  VcpuFeature,
  VcpuGroup,
  VgicAddr,
  VgicCtrl,
  VgicGroup,
  type Vm,
} from '../kvm/index.js';
import {
  GICC_BASE,
  GICD_BASE,
  GICR_BASE,
  ITS_BASE,
  NR_IRQS,
  PL011,
  PL031,
  PL061,
  PMU_PPI,
  POWER_KEY_GPIO,
  RAM_BASE,
} from './board.js';
import { boardFdt } from './board-fdt.js';
import { DTB_MAX_SIZE, type Kernel } from './boot/index.js';
import type { VmClock } from './devices/device.js';
import { Pl011, UARTDR, UARTFR } from './devices/pl011.js';
import { Pl031 } from './devices/pl031.js';
import { Pl061 } from './devices/pl061.js';
import { KEY_POWER, PowerKey } from './devices/power-key.js';
import type { BlockBackend } from './devices/virtio/blk.js';
import { VirtioInput } from './devices/virtio/input.js';
import { VmError } from './errors.js';
import { editChosen } from './fdt/index.js';
import { BoardRam } from './guest-ram.js';
import { connectIrq } from './irq.js';
import type { VmConsoles } from './micro-vm.js';
import { MmioBus } from './mmio-bus.js';
import type { ResolvedOptions } from './options.js';
import { type FillRandom, webRandom } from './random.js';
import type { ExitCounts, RunLoop, RunLoopEvents } from './run-loop.js';
import type { Scheduler } from './scheduler.js';
import { ThreadLoop } from './thread-loop.js';
import { TurnLoop } from './turn-loop.js';
import { connectVirtio } from './virtio-wiring.js';
import type { VmMemory } from './vm-memory.js';

/** What a machine is built from. */
export interface MachineParts {
  readonly options: ResolvedOptions;
  readonly scheduler: Scheduler;
  readonly kvm: Kvm;
  readonly disks: readonly BlockBackend[];
  readonly consoles: VmConsoles;
  readonly random: FillRandom;
}

/** What a machine starts with in its RAM. */
export interface BootImages {
  readonly kernel: Kernel;
  readonly initrd: Uint8Array | undefined;
  readonly dtb: Uint8Array | undefined;
}

/** Counters of a machine. */
export interface MachineStats {
  readonly cpus: number;
  /** Bytes of RAM. */
  readonly memory: number;
  /** Exits, by reason. */
  readonly exits: Readonly<ExitCounts>;
  /** MMIO exits that a device answered, and those that none did. */
  readonly mmio: { readonly answered: number; readonly unassigned: number };
  /** Times the run loop had the thread, and milliseconds it slept because every vCPU was idle. */
  readonly turns: number;
  readonly idleMs: number;
  /** What the backend counts, a vCPU each (KVM_GET_STATS_FD). */
  readonly vcpuStats: readonly Readonly<Record<string, readonly bigint[]>>[];
}

/** The virtual clock's wall time at boot: 2025-01-01T00:00:00Z. */
const VIRTUAL_EPOCH_MS = 1_735_689_600_000;
/** CNTFRQ_EL0 where the backend does not say: that of QEMU's boards. */
const USUAL_COUNTER_HZ = 62_500_000;
const CNTFRQ_EL0 = sysregId(3, 3, 14, 0, 0);
/** Bytes of `rng-seed`: what Linux's pool takes in full. */
const RNG_SEED_BYTES = 64;
const GIC_TYPE = { 2: DeviceType.ARM_VGIC_V2, 3: DeviceType.ARM_VGIC_V3 } as const;

/**
 * One board, from power-on to power-off: a VM with its RAM, vCPUs, vGIC and devices. {@link load} puts the kernel into it
 * and vCPU 0 at its entry. A reboot is a new one. Built in the order that every kernel accepts (create all vCPUs, init them, vGIC, irqfds).
 */
export class Machine {
  readonly loop: RunLoop;
  /** Set by the owner before the loop starts. */
  events: RunLoopEvents | undefined;
  readonly #vm: Vm;
  readonly #ram: VmMemory;
  readonly #gic: 2 | 3;
  readonly #vcpus: Vcpu[] = [];
  readonly #bus = new MmioBus();
  readonly #consoles: VmConsoles;
  readonly #random: FillRandom;
  readonly #options: ResolvedOptions;
  readonly #powerKey: PowerKey;
  /** Given back in reverse order. */
  readonly #closers: (() => void)[] = [];
  /** Hand out what devices still gather. */
  readonly #flushers: (() => void)[] = [];
  readonly #virtioSlots: readonly number[];
  #last: MachineStats | undefined;

  /**
   * @param ram becomes the machine's, which closes it, but where this throws
   * @throws VmError what this KVM has not; KvmError
   */
  constructor(parts: MachineParts, ram: VmMemory) {
    const { options, kvm, consoles } = parts;
    this.#options = options;
    this.#consoles = consoles;
    this.#random = parts.random;
    this.#ram = ram;
    this.#vm = ram.vm;
    try {
      this.#gic = this.#chooseGic();
      this.#createVcpus();
      this.#createVgic();
      const clock = options.clock === 'virtual' ? virtualClock(this.#vcpus[0]!) : hostClock(parts.scheduler);
      const Loop = this.#vcpus.every((vcpu) => vcpu.start !== undefined) ? ThreadLoop : TurnLoop;
      this.loop = new Loop({
        vm: this.#vm,
        vcpus: this.#vcpus,
        bus: this.#bus,
        scheduler: parts.scheduler,
        clock,
        virtualClock: options.clock === 'virtual',
        events: {
          entered: () => this.events?.entered(),
          systemEvent: (type) => {
            this.#flush();
            this.events?.systemEvent(type);
          },
          failed: (error) => {
            this.#flush();
            this.events?.failed(error);
          },
          handOut: () => this.events?.handOut(),
        },
      });
      this.#closers.push(() => this.loop.close());
      const keyboard = new VirtioInput({ label: 'power key', keys: [KEY_POWER] });
      this.#powerKey = this.#createPlatform(kvm, clock, keyboard);
      const virtio = connectVirtio({
        ...parts,
        vm: this.#vm,
        bus: this.#bus,
        ram: new BoardRam(RAM_BASE, ram.memory),
        loop: this.loop,
        keyboard,
      });
      this.#flushers.push(() => virtio.flush());
      this.#closers.push(() => virtio.close());
      this.#virtioSlots = virtio.slots;
      this.#closers.unshift(() => ram.close());
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Presses the power key for a moment. */
  pressPowerKey(): void {
    this.#powerKey.press();
  }

  stats(): MachineStats {
    return (
      this.#last ?? {
        cpus: this.#options.cpus,
        memory: this.#options.memory,
        exits: { ...this.loop.exits },
        mmio: { answered: this.#bus.accesses, unassigned: this.#bus.unassigned },
        turns: this.loop.turns,
        idleMs: this.loop.idleMs,
        vcpuStats: this.#vcpus.map((vcpu) => Object.fromEntries(vcpu.readStats())),
      }
    );
  }

  /** Puts the counters aside and gives everything back. */
  close(): void {
    if (this.loop !== undefined) this.#last ??= this.stats();
    this.#flush();
    for (const close of this.#closers.splice(0).reverse()) close();
    const { serial, hvc0, ports } = this.#consoles;
    for (const core of [serial, hvc0, ...ports.values()]) core?.disconnect();
  }

  #flush(): void {
    for (const flush of this.#flushers) flush();
  }

  #createVcpus(): void {
    const { cpus } = this.#options;
    const max = this.#vm.checkExtension(Cap.MAX_VCPUS);
    if (max > 0 && cpus > max) {
      throw new VmError('ERR_INVALID_OPTION', `cpus: this KVM runs at most ${max} in a VM, not ${cpus}`);
    }
    const { target } = this.#vm.getPreferredTarget();
    for (let id = 0; id < cpus; id++) {
      const vcpu = this.#vm.createVcpu(id);
      this.#vcpus.push(vcpu);
      this.#closers.push(() => vcpu.close());
    }
    if (this.#options.pmu && this.#vm.checkExtension(Cap.ARM_PMU_V3) === 0) {
      throw new VmError('ERR_INVALID_OPTION', 'pmu: this KVM has none for its guests; leave the option out');
    }
    const features = (1 << VcpuFeature.PSCI_0_2) | (this.#options.pmu ? 1 << VcpuFeature.PMU_V3 : 0);
    // All but the first wait for PSCI CPU_ON.
    for (const vcpu of this.#vcpus) {
      vcpu.init(target, vcpu.id === 0 ? features : features | (1 << VcpuFeature.POWER_OFF));
    }
  }

  /** The version asked for; else a GICv3, or a GICv2 on hosts that have nothing else (the Raspberry Pi 4, for one). */
  #chooseGic(): 2 | 3 {
    const { gic, its } = this.#options;
    const has = (version: 2 | 3): boolean => this.#vm.testDevice(GIC_TYPE[version]);
    if (gic !== undefined && !has(gic)) {
      throw new VmError('ERR_INVALID_OPTION', `gic: this KVM has no GICv${gic}; leave the option out`);
    }
    if (gic !== undefined || has(3)) return gic ?? 3;
    if (its) throw new VmError('ERR_INVALID_OPTION', 'its: this KVM has no GICv3; leave the option out');
    if (has(2)) return 2;
    throw new VmError('ERR_BACKEND_UNAVAILABLE', 'this KVM has neither a GICv3 nor a GICv2 for its guests');
  }

  #createVgic(): void {
    const version = this.#gic;
    const gic = this.#vm.createDevice(GIC_TYPE[version]);
    this.#closers.push(() => gic.close());
    gic.setDeviceAttr(VgicGroup.NR_IRQS, 0, NR_IRQS);
    if (version === 2) {
      gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_DIST, BigInt(GICD_BASE));
      gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V2_CPU, BigInt(GICC_BASE));
    } else {
      gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_DIST, BigInt(GICD_BASE));
      gic.setDeviceAttr(VgicGroup.ADDR, VgicAddr.V3_REDIST, BigInt(GICR_BASE));
    }
    gic.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
    if (this.#options.its) this.#createIts();
    if (!this.#options.pmu) return;
    for (const vcpu of this.#vcpus) {
      vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.IRQ, PMU_PPI + 16);
      vcpu.setDeviceAttr(VcpuGroup.PMU_V3_CTRL, PmuAttr.INIT);
    }
  }

  #createIts(): void {
    if (!this.#vm.testDevice(DeviceType.ARM_VGIC_ITS)) {
      throw new VmError('ERR_INVALID_OPTION', 'its: this KVM has no ITS; leave the option out');
    }
    const its = this.#vm.createDevice(DeviceType.ARM_VGIC_ITS);
    this.#closers.push(() => its.close());
    its.setDeviceAttr(VgicGroup.ADDR, VgicAddr.ITS, BigInt(ITS_BASE));
    its.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
  }

  #createPlatform(kvm: Kvm, clock: VmClock, keyboard: VirtioInput): PowerKey {
    const irq = (spi: number): ReturnType<typeof connectIrq> => {
      const line = connectIrq(kvm, this.#vm, spi);
      this.#closers.push(() => line.close());
      return line;
    };
    const timers = this.loop;
    const { serial } = this.#consoles;
    const pl011 = new Pl011({
      irq: irq(PL011.spi),
      schedule: this.loop.gather,
      onTransmit: (bytes) => serial.output(bytes),
      onReceiveReady: () => serial.inputReady(),
    });
    this.#flushers.push(() => {
      pl011.resumeTransmit();
      pl011.flush();
    });
    serial.connect({
      receive: (bytes) => {
        this.loop.unsettle();
        return pl011.receive(bytes);
      },
      resumeTransmit: () => pl011.resumeTransmit(),
    });
    this.loop.coalesce({
      address: PL011.base + UARTDR,
      size: 4,
      mayWait: () => !pl011.interruptsToTransmit,
      status: { address: PL011.base + UARTFR, value: () => pl011.steadyFlags },
    });
    const gpio = new Pl061({ irq: irq(PL061.spi) });
    const pl031 = new Pl031({ irq: irq(PL031.spi), clock, timers });
    const powerKey = new PowerKey({
      timers,
      wires: [(down) => gpio.setInput(POWER_KEY_GPIO, down), (down) => keyboard.setKey(KEY_POWER, down)],
    });
    this.#bus.add(PL011.base, pl011);
    this.#bus.add(PL031.base, pl031);
    this.#bus.add(PL061.base, gpio);
    this.#closers.push(() => {
      powerKey.close();
      pl031.close();
    });
    return powerKey;
  }

  /**
   * Puts kernel, initrd and device tree into RAM, where they are not there already, and vCPU 0 at the entry (Linux, `Documentation/arch/arm64/booting.rst`).
   * @throws VmError what is wrong with the kernel, initrd, device tree or memory size
   */
  load(images: BootImages): void {
    const { kernel, initrd } = images;
    const placement = this.#ram.place(kernel, initrd?.length);
    for (const load of placement.kernel) this.#ram.put(load);
    if (initrd !== undefined) this.#ram.put({ address: placement.initrd!.start, bytes: initrd, size: initrd.length });
    const options = { ...this.#options, gic: this.#gic };
    const dtb = machineDtb(options, images.dtb, this.#virtioSlots, placement.initrd, this.#random);
    if (dtb.length > DTB_MAX_SIZE) {
      throw new VmError('ERR_DTB_TOO_BIG', `dtb: ${dtb.length} bytes; the boot protocol allows ${DTB_MAX_SIZE}`);
    }
    this.#ram.put({ address: placement.dtb, bytes: dtb, size: dtb.length });
    this.#ram.settled();
    const boot = this.#vcpus[0]!;
    boot.setOneReg(Reg.x(0), BigInt(placement.dtb));
    boot.setOneReg(Reg.PC, BigInt(placement.entry));
  }
}

/** The device tree that a machine with these options is given: the user's own, or the board's. */
export function machineDtb(
  options: ResolvedOptions,
  own: Uint8Array | undefined,
  virtioSlots: readonly number[],
  initrd: { readonly start: number; readonly end: number } | undefined,
  random: FillRandom = webRandom,
): Uint8Array {
  if (own !== undefined) {
    return editChosen(own, {
      ...(options.cmdline === undefined ? {} : { bootargs: options.cmdline }),
      ...(initrd === undefined ? {} : { initrd }),
    });
  }
  // On the virtual clock two runs are the same run: the seed is no secret, but always the same, and KASLR is left out.
  const virtual = options.clock === 'virtual';
  const seed = new Uint8Array(RNG_SEED_BYTES);
  if (virtual) for (let i = 0; i < seed.length; i++) seed[i] = (i * 167 + 13) & 0xff;
  else random(seed);
  const kaslr = new BigUint64Array(1);
  if (!virtual) random(new Uint8Array(kaslr.buffer));
  return boardFdt({
    cpus: options.cpus,
    gic: options.gic ?? 3,
    its: options.its,
    pmu: options.pmu,
    memorySize: options.memory,
    virtioSlots,
    bootargs: options.cmdline ?? '',
    initrd,
    rngSeed: seed,
    kaslrSeed: virtual ? undefined : kaslr[0],
  });
}

const hostClock = (scheduler: Scheduler): VmClock => ({ now: () => scheduler.now(), wallMs: () => Date.now() });

/** The guest's own counter as a clock: the only time there is when time is counted in instructions. */
function virtualClock(vcpu: Vcpu): VmClock {
  let hz = USUAL_COUNTER_HZ;
  try {
    hz = Number(vcpu.getOneReg(CNTFRQ_EL0)) || USUAL_COUNTER_HZ;
  } catch (error) {
    // A kernel does not give this register to user space.
    if (!KvmError.is(error)) throw error;
  }
  const now = (): number => (vcpu.closed ? 0 : (Number(vcpu.getOneReg(Reg.TIMER_CNT)) * 1000) / hz);
  return { now, wallMs: () => VIRTUAL_EPOCH_MS + now() };
}
