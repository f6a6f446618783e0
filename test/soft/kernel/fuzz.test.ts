import { afterAll, describe, expect, test } from '@jest/globals';
import {
  Cap,
  type Device,
  type EventFd,
  type GuestMemory,
  type HostPower,
  type Kvm,
  KvmError,
  Reg,
  type Vcpu,
  type Vm,
} from '#lib/kvm/index.js';
import { openSoft } from '#lib/soft/index.js';
import { Random } from '../../a64/random.ts';
import { b, ERET, mov, mrs, msr, store, WFI } from '../../contract/asm.ts';
import { DEVICE, GICD, GICR, makeGic, makeVm, RAM, Sysreg, VECTORS } from '../../contract/machine.ts';

/** Numbers that calls may be given. */
class Arguments extends Random {
  /** Small, round, at a limit, or nonsense. */
  argument(): number {
    const small = this.below(8);
    const page = this.below(64) * 4096;
    return this.pick([
      small,
      small,
      page,
      page,
      RAM + page,
      GICD,
      this.u32(),
      2 ** this.below(54),
      -1,
      0.5,
      Number.NaN,
    ]);
  }
}

/** One that stays, and one that is new each time; ELVISOR_SEED repeats it. */
const fresh = new Random().seed;
const seeds = [
  ['a fixed seed', 0x5eed],
  ['a fresh seed', fresh],
] as const;
afterAll(() => console.info(`fuzzed with ELVISOR_SEED=${fresh}`));

const GUARD = 0xa5;

describe.each(seeds)('contract calls in random order, %s', (_, seed) => {
  const ROUNDS = 40;
  const CALLS = 150;

  test('fail with an errno or do what they say, and touch nothing else', () => {
    const random = new Arguments(seed);
    let done = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const kvm = openSoft({ clock: 'virtual', maxMemory: 32 * 2 ** 20 });
      const objects = startedVm(kvm, random, round % 4);
      const { vm, vcpus, devices, memories, fds } = objects;
      // Never in a slot.
      const guard = vm.createMemory(0x1_0000);
      guard.bytes.fill(GUARD);
      const calls = contractCalls(random, objects);
      const names = Object.keys(calls);
      const order: string[] = [];
      for (let n = 0; n < CALLS; n++) {
        const name = random.pick(names);
        order.push(name);
        try {
          calls[name]!();
          done++;
        } catch (error) {
          // A VM whose first run failed answers nothing else any more.
          if (KvmError.is(error, 'EIO')) break;
          if (KvmError.is(error) || error instanceof RangeError) continue;
          throw new Error(`with ELVISOR_SEED=${seed}, round ${round}: ${order.slice(-12).join(', ')}`, {
            cause: error,
          });
        }
      }
      expect(guard.bytes.every((byte) => byte === GUARD)).toBe(true);
      for (const what of [...vcpus, ...devices, ...memories, ...fds, guard, vm, kvm]) what.close();
    }
    // They are not all refused.
    expect(done).toBeGreaterThan(ROUNDS * 20);
  });
});

/** A VM with nothing (0), and one more with each number: memory and vCPUs, an initialised vGIC, a run. */
function startedVm(kvm: Kvm, random: Arguments, stage: number): Objects {
  const vm = kvm.createVm();
  if (random.below(4) === 0) vm.enableCap(Cap.DIRTY_LOG_RING_ACQ_REL, [4096]);
  const fds = [kvm.createEventFd()];
  const memories = [vm.createMemory(0x8_0000)];
  const [vcpus, devices]: [Vcpu[], Device[]] = [[], []];
  const objects = { vm, vcpus, devices, memories, fds, power: kvm.power!, makeFd: () => kvm.createEventFd() };
  if (stage === 0) return objects;
  const code = [...mov(1, RAM + 0x2000), store(8, 1, 1), ...mov(1, DEVICE), store(4, 1, 1), WFI, b(-2)];
  new Uint32Array(memories[0]!.bytes.buffer, memories[0]!.bytes.byteOffset).set(code);
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: RAM, memorySize: 0x8_0000, memory: memories[0]!, flags: 1 });
  for (let id = 0; id < 2; id++) {
    const vcpu = vm.createVcpu(id);
    vcpus.push(vcpu);
    vcpu.init(5, 4);
    vcpu.setOneReg(Reg.PC, BigInt(RAM));
  }
  if (stage > 1) devices.push(makeGic(vm));
  if (stage > 2) vcpus[0]!.run(0.001);
  return objects;
}

interface Objects {
  readonly vm: Vm;
  readonly vcpus: Vcpu[];
  readonly devices: Device[];
  readonly memories: GuestMemory[];
  readonly fds: EventFd[];
  readonly power: HostPower;
  makeFd(): EventFd;
}

function contractCalls(
  random: Arguments,
  { vm, vcpus, devices, memories, fds, power, makeFd }: Objects,
): Record<string, () => unknown> {
  const caps = Object.values(Cap);
  const enabled = [Cap.ARM_NISV_TO_USER, Cap.ARM_SYSTEM_SUSPEND, Cap.MANUAL_DIRTY_LOG_PROTECT2, Cap.HALT_POLL];
  const a = (): number => random.argument();
  const attr = (): number | bigint =>
    random.pick<number | bigint>([0, 1, 2, 3, 4, 5, BigInt(random.u32()), random.interesting64()]);
  const value = (): number | bigint | Uint8Array =>
    random.pick<number | bigint | Uint8Array>([
      a(),
      random.interesting64(),
      Uint8Array.from({ length: random.below(32) }, () => random.u32()),
    ]);
  const withVcpu = (call: (vcpu: Vcpu) => unknown) => (): unknown =>
    vcpus.length === 0 ? 0 : call(random.pick(vcpus));
  const withDevice = (call: (device: Device) => unknown) => (): unknown =>
    devices.length === 0 ? 0 : call(random.pick(devices));
  const register = (vcpu: Vcpu): bigint => random.pick([...vcpu.getRegList(), random.interesting64()]);
  const features = (): number => random.pick([4, 4, 12, 0x64, 0, random.u32()]);
  const region = (): object => {
    const memory = random.pick(memories);
    const flags = random.pick([0, 0, 1, 2, 3, 4, random.below(16)]);
    return {
      slot: random.below(6),
      guestPhysAddr: RAM + random.below(64) * 4096,
      memorySize: random.below(16) * 4096,
      memory,
      flags,
    };
  };
  return {
    checkExtension: () => vm.checkExtension(random.pick([...caps, a()])),
    enableCap: () =>
      vm.enableCap(
        random.pick([...enabled, random.pick(caps)]),
        [random.pick([0, 1, 3, 65536, a()])],
        random.below(8) === 0 ? 1 : 0,
      ),
    createMemory: () => memories.push(vm.createMemory(random.pick([4096, 65536, a()]))),
    createGuestMemfd: () => memories.push(vm.createGuestMemfd(random.pick([4096, a()]), random.below(5))),
    setUserMemoryRegion: () => vm.setUserMemoryRegion(region() as never),
    setUserMemoryRegionWild: () =>
      vm.setUserMemoryRegion({
        slot: a(),
        guestPhysAddr: a(),
        memorySize: a(),
        memory: random.pick(memories),
        memoryOffset: a(),
      }),
    createVcpu: () => vcpus.push(vm.createVcpu(random.pick([0, 1, 2, 3, a()]))),
    createDevice: () => devices.push(vm.createDevice(random.pick([5, 7, 7, 8, a()]))),
    testDevice: () => vm.testDevice(a()),
    irqLine: () =>
      vm.irqLine(
        random.pick([(1 << 24) | (32 + random.below(64)), (2 << 24) | random.below(40), random.u32()]),
        random.below(2) === 1,
      ),
    setGsiRouting: () =>
      vm.setGsiRouting([
        { gsi: random.below(64), type: 'irqchip', irqchip: 0, pin: random.below(64) },
        {
          gsi: 64 + random.below(64),
          type: 'msi',
          address: random.interesting64(),
          data: random.u32(),
          devid: random.below(16),
        },
      ]),
    signalMsi: () => vm.signalMsi({ address: random.interesting64(), data: random.u32(), devid: random.below(8) }),
    irqfd: () =>
      vm.irqfd({
        fd: random.pick(fds),
        gsi: random.pick([random.below(64), a()]),
        flags: random.below(3),
        resampleFd: makeFd(),
      }),
    ioeventfd: () =>
      vm.ioeventfd({
        fd: random.pick(fds),
        addr: random.pick([DEVICE, a()]),
        len: random.pick([0, 1, 2, 4, 8, 3]),
        flags: random.below(8),
        datamatch: random.interesting64(),
      }),
    eventFd: () =>
      random.pick([
        () => fds.push(makeFd()),
        () => random.pick(fds).signal(1 + random.below(3)),
        () => random.pick(fds).read(),
      ])(),
    coalesced: () =>
      random.pick([
        () => vm.registerCoalescedMmio(a(), a()),
        () => vm.unregisterCoalescedMmio(a(), a()),
        () => vm.takeCoalescedMmio(),
      ])(),
    getDirtyLog: () => vm.getDirtyLog(random.below(6)),
    clearDirtyLog: () =>
      vm.clearDirtyLog(
        random.below(6),
        random.pick([0, 64, a()]),
        random.pick([64, 8, a()]),
        new Uint8Array(8).fill(255),
      ),
    resetDirtyRings: () => vm.resetDirtyRings(),
    setCounterOffset: () => vm.setCounterOffset(random.interesting64()),
    setVmAttr: () => vm.setDeviceAttr(random.below(2), attr(), value()),
    readStats: () => [vm, ...vcpus].map((of) => of.readStats()),
    // A host that sleeps for good would leave nothing to be tried.
    hostPower: () => {
      power.suspend();
      if (vcpus.length > 0 && random.below(2) === 0) random.pick(vcpus).run(0.001);
      power.resume();
    },
    notifier: () => {
      const { notifier } = random.pick(memories);
      const [offset, length] = [random.below(4) * 4096, random.pick([4096, a()])];
      random.pick([
        () => notifier!.protect(offset, length, random.pick(['none', 'read', 'read-write', 'read-write'] as const)),
        () =>
          notifier!.onFault(random.below(2) === 0 ? undefined : () => notifier!.protect(offset, 4096, 'read-write')),
        () => notifier!.discard(offset, length),
        () => notifier!.clearYoung(offset, length),
      ])();
    },
    init: withVcpu((vcpu) => vcpu.init(random.pick([5, 5, 5, a()]), features())),
    finalize: withVcpu((vcpu) => vcpu.finalize(a())),
    run: withVcpu((vcpu) => vcpu.run(random.pick([0.001, 0.01]))),
    kick: withVcpu((vcpu) => vcpu.kick()),
    getOneReg: withVcpu((vcpu) => vcpu.getOneReg(register(vcpu))),
    setOneReg: withVcpu((vcpu) => vcpu.setOneReg(register(vcpu), random.interesting64())),
    mpState: withVcpu((vcpu) => vcpu.setMpState(random.pick([0, 5, 10, a()]) as 0)),
    events: withVcpu((vcpu) => {
      const [serrorPending, serrorHasEsr, extDabtPending] = [0, 1, 2].map(() => random.below(4) === 0) as [
        boolean,
        boolean,
        boolean,
      ];
      vcpu.setVcpuEvents({ serrorPending, serrorHasEsr, serrorEsr: random.interesting64(), extDabtPending });
      return vcpu.getVcpuEvents();
    }),
    guestDebug: withVcpu((vcpu) =>
      vcpu.setGuestDebug({
        control: random.pick([0, 1, 3, 0x20001, random.u32()]),
        bcr: [random.interesting64()],
        bvr: [random.interesting64()],
        wcr: [random.interesting64()],
        wvr: [random.interesting64()],
      }),
    ),
    collectDirtyPages: withVcpu((vcpu) => vcpu.collectDirtyPages()),
    setVcpuAttr: withVcpu((vcpu) => vcpu.setDeviceAttr(random.below(4), attr(), value())),
    getVcpuAttr: withVcpu((vcpu) => vcpu.getDeviceAttr(random.below(4), attr())),
    setDeviceAttr: withDevice((device) => device.setDeviceAttr(random.below(11), attr(), value())),
    initDevice: withDevice((device) => device.setDeviceAttr(4, 0)),
    placeDevice: withDevice((device) =>
      device.setDeviceAttr(0, random.pick([0, 1, 2, 3, 4]), random.pick([GICD, GICR, 0x808_0000])),
    ),
    getDeviceAttr: withDevice((device) => device.getDeviceAttr(random.below(11), attr(), random.interesting64())),
  };
}

describe.each(seeds)('a guest that knows no rules, %s', (_, seed) => {
  /** Runs one instruction after another of a guest whose exceptions all end in an exit. */
  function instructions(gic: boolean, features: number) {
    const kvm = openSoft({ clock: 'virtual' });
    const machine = makeVm(kvm, { gic, features });
    const { vm, vcpu, load: put } = machine;
    vm.enableCap(Cap.ARM_NISV_TO_USER);
    if ((features & 8) !== 0) {
      if (gic) vcpu.setDeviceAttr(0, 0, 23);
      vcpu.setDeviceAttr(0, 1);
    }
    const guard = vm.createMemory(0x1_0000);
    guard.bytes.fill(GUARD);
    for (let vector = 0; vector < 0x800; vector += 0x80)
      put(VECTORS + vector, mov(20, DEVICE + 0x10), store(4, 31, 20), ERET);
    const run = (word: number, registers: readonly [number, bigint][], el: 0 | 1): string => {
      vcpu.init(5, features);
      put(RAM, word, mov(20, DEVICE), store(4, 31, 20), b(0));
      vcpu.setOneReg(0x6030_0000_0013_0000n | BigInt(Sysreg.VBAR_EL1), BigInt(VECTORS));
      for (const [n, value] of registers) vcpu.setOneReg(0x6030_0000_0010_0000n | BigInt(n * 2), value);
      vcpu.setOneReg(0x6030_0000_0010_0042n, el === 0 ? 0x3c0n : 0x3c5n);
      vcpu.setOneReg(0x6030_0000_0010_0040n, BigInt(RAM));
      return vcpu.run(0.02).reason;
    };
    return {
      run,
      end: () => {
        expect(guard.bytes.every((byte) => byte === GUARD)).toBe(true);
        vm.close();
      },
    };
  }

  test('can read and write every system register of the space, at both ELs', () => {
    const random = new Arguments(seed);
    const seen = new Set<string>();
    for (const [gic, features] of [
      [true, 4 | 8],
      [false, 4],
    ] as const) {
      const { run, end } = instructions(gic, features);
      for (let n = 0; n < 2500; n++) {
        // The crowded parts of the space more often than the rest.
        const crn = random.pick([random.below(16), 0, 4, 9, 12, 14]);
        const index =
          0x8000 |
          (random.below(2) << 14) |
          (random.pick([0, 0, 3, 3, random.below(8)]) << 11) |
          (crn << 7) |
          random.below(128);
        const word = random.below(2) === 0 ? mrs(1, index) : msr(index, 1);
        seen.add(run(word, [[1, random.interesting64()]], random.pick([1, 1, 0])));
      }
      end();
    }
    // Whatever it did, it came to its end, an exception, or a turn that was over.
    expect([...seen].filter((reason) => reason !== 'mmio' && reason !== 'intr')).toEqual([]);
  });

  test('can access every frame of the vGIC in every width, aligned or not', () => {
    const random = new Arguments(seed);
    const seen = new Set<string>();
    const { run, end } = instructions(true, 4);
    for (let n = 0; n < 4000; n++) {
      const [base, size] = random.pick([
        [GICD, 0x1_0000],
        [GICR, 0x2_0000],
      ] as const);
      const offset = random.pick([random.below(size), random.below(0x1100), 0x1_0000 + random.below(0x1100)]) % size;
      const address = BigInt(base + (random.below(8) === 0 ? offset : offset & ~7));
      // STR and LDR of 1, 2, 4 and 8 bytes, signed loads, pairs, write-back, an exclusive, an atomic, a vector.
      const word = random.pick([
        ...[0x3900_0022, 0x7900_0022, 0xb900_0022, 0xf900_0022, 0x3940_0022, 0x7940_0022, 0xb940_0022, 0xf940_0022],
        ...[0x3980_0022, 0xa900_0822, 0xa940_0c22, 0xb800_4422, 0xc85f_7c22, 0xf822_0023, 0x3d80_0022, 0x3dc0_0022],
      ]);
      seen.add(
        run(
          word,
          [
            [1, address],
            [2, random.interesting64()],
          ],
          1,
        ),
      );
    }
    end();
    expect([...seen].filter((reason) => !['mmio', 'intr', 'arm_nisv'].includes(reason))).toEqual([]);
  });

  test('can make every SMCCC call', () => {
    const random = new Arguments(seed);
    const seen = new Set<string>();
    const { run, end } = instructions(false, 4);
    for (let n = 0; n < 2000; n++) {
      const owner = random.pick([
        0x8000_0000, 0xc000_0000, 0x8400_0000, 0xc400_0000, 0x8500_0000, 0xc500_0000, 0x8600_0000, 0x95c1_ba5e,
      ]);
      const fn = random.pick([owner + random.below(0x60), random.u32()]);
      const conduit = random.pick([0xd400_0002, 0xd400_0003, 0xd400_0022]);
      seen.add(
        run(
          conduit,
          [
            [0, BigInt(fn)],
            [1, random.interesting64()],
            [2, random.interesting64()],
            [3, random.interesting64()],
          ],
          1,
        ),
      );
    }
    end();
    expect([...seen].filter((reason) => !['mmio', 'intr', 'system_event'].includes(reason))).toEqual([]);
  });
});
