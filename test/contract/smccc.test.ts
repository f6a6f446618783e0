import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cap, type Kvm, MpState, PvtimeAttr, Reg, type Vcpu, VcpuGroup } from '#lib/kvm/index.js';
import { b, hvc, mov, smc, store } from './asm.ts';
import { backends, since } from './backends.ts';
import { DEVICE, errnoOf, makeVm, RAM, runToExit } from './machine.ts';

const PV_TIME_FEATURES = 0xc500_0020;
const PV_TIME_ST = 0xc500_0021;
const TRNG = { VERSION: 0x8400_0050, FEATURES: 0x8400_0051, UUID: 0x8400_0052, RND32: 0x8400_0053, RND64: 0xc400_0053 };
const VENDOR_UID = 0x8600_ff01;
const VENDOR_FEATURES = 0x8600_0000;
const PTP = 0x8600_0001;
const WORKAROUND_1 = 0x8000_8000;
const ARCH_FEATURES = 0x8000_0001;
const EXIT = 'write 0x9000000/4 0x0';

describe.each(backends)('SMCCC on $name', (backend) => {
  const { open } = backend;
  let kvm: Kvm;
  beforeEach(() => {
    kvm = open();
  });
  afterEach(() => kvm.close());

  /** A guest that makes the call of its X0 to X3 again and again. */
  function caller(
    instruction = hvc(),
  ): { vcpu: Vcpu; call: (...args: (number | bigint)[]) => bigint[] } & ReturnType<typeof makeVm> {
    const machine = makeVm(kvm);
    const { vcpu, load: put } = machine;
    const code = [instruction, ...mov(9, DEVICE), store(4, 31, 9)];
    put(RAM, code, b(-code.length));
    const call = (...args: (number | bigint)[]): bigint[] => {
      for (const n of [0, 1, 2, 3]) vcpu.setOneReg(Reg.x(n), BigInt(args[n] ?? 0));
      expect(runToExit(vcpu)).toBe(EXIT);
      return [0, 1, 2, 3].map((n) => BigInt.asIntN(64, vcpu.getOneReg(Reg.x(n))));
    };
    return { ...machine, call };
  }

  test('what nobody knows is not supported, and clears X1 to X3', () => {
    const { call } = caller();
    for (const fn of [0x8400_001f, 0xc600_0001, 0x8600_0040, 0x1234_5678, 0xffff_ffff]) {
      expect([fn, ...call(fn, 1, 2, 3)]).toEqual([fn, -1n, 0n, 0n, 0n]);
    }
  });

  since(backend, '6.4')(
    'workarounds answer an HVC and touch nothing that they need not; an SMC does not reach them',
    () => {
      const { call } = caller();
      expect(call(WORKAROUND_1, 1, 2, 3).filter((_, n) => n !== 1)).toEqual([0n, 2n, 3n]);
      expect(caller(smc()).call(WORKAROUND_1, 1, 2, 3)).toEqual([-1n, 0n, 0n, 0n]);
    },
  );

  since(backend, '6.14')('an SMC with an immediate is refused, and X1 to X3 stay', () => {
    expect(caller(smc(1)).call(0x8400_0000, 1, 2, 3)).toEqual([-1n, 1n, 2n, 3n]);
    expect(caller(hvc(1)).call(0x8400_0000, 1, 2, 3)).toEqual([0x1_0003n, 0n, 0n, 0n]);
  });

  test('TRNG: version, features, UUID, and as many bits as are asked for', () => {
    const { call } = caller();
    expect(call(TRNG.VERSION)).toEqual([0x1_0000n, 0n, 0n, 0n]);
    expect([TRNG.RND32, TRNG.RND64, 0x8400_0054].map((fn) => call(TRNG.FEATURES, fn)[0])).toEqual([0n, 0n, -1n]);
    expect(call(TRNG.UUID)[0]).toBe(0xe0210dn);
    expect([97, 193].map((bits, i) => call(i === 0 ? TRNG.RND32 : TRNG.RND64, bits)[0])).toEqual([-2n, -2n]);
    expect(call(TRNG.RND64, 0)).toEqual([0n, 0n, 0n, 0n]);
    const [status, high, middle, low] = call(TRNG.RND64, 65);
    expect([status, high, middle! >> 1n]).toEqual([0n, 0n, 0n]);
    expect(low).not.toBe(0n);
    const all = call(TRNG.RND32, 96).slice(1);
    expect(all.every((word) => word >= 0n && word < 1n << 32n)).toBe(true);
    expect(new Set([...all, ...call(TRNG.RND32, 96).slice(1)]).size).toBe(6);
  });

  since(backend, '6.15')('the vendor calls say KVM and its features, as the firmware bitmaps let them', () => {
    const { vcpu, call } = caller();
    expect(call(VENDOR_UID)[0]).toBe(0xb66fb428n);
    expect(call(VENDOR_FEATURES)).toEqual([3n, 0n, 0n, 0n]);
    expect(errnoOf(() => vcpu.setOneReg(Reg.fwFeatureBitmap(2), 0n))).toBe('EBUSY');
    const other = caller();
    for (const bitmap of [0, 1, 2]) other.vcpu.setOneReg(Reg.fwFeatureBitmap(bitmap), 0n);
    expect(errnoOf(() => other.vcpu.setOneReg(Reg.fwFeatureBitmap(3), 4n))).toBe('EINVAL');
    other.vcpu.setOneReg(Reg.fwFeatureBitmap(3), 3n);
    for (const fn of [VENDOR_UID, VENDOR_FEATURES, PTP, TRNG.VERSION, PV_TIME_FEATURES]) {
      expect([fn, other.call(fn)[0]]).toEqual([fn, -1n]);
    }
  });

  test('PTP tells the time of day with the counter', () => {
    const { vcpu, call } = caller();
    const [seconds, ...counters] = [0, 1].flatMap((which) => {
      const [high, low, cycleHigh, cycleLow] = call(PTP, which);
      return [((high! << 32n) | low!) / 1_000_000_000n, (cycleHigh! << 32n) | cycleLow!];
    });
    expect(seconds).toBeGreaterThan(1_700_000_000n);
    expect(counters[0]!).toBeLessThanOrEqual(vcpu.getOneReg(Reg.TIMER_CNT));
    expect(call(PTP, 2)).toEqual([-1n, 0n, 0n, 0n]);
  });

  test('SYSTEM_SUSPEND by its 32-bit form takes the low halves of its arguments', () => {
    const { vm, vcpu } = caller();
    vm.enableCap(Cap.ARM_SYSTEM_SUSPEND);
    vcpu.setOneReg(Reg.x(0), 0x8400_000en);
    vcpu.setOneReg(Reg.x(1), 0x5_0000_0001n);
    expect(runToExit(vcpu)).toBe('system_event 5');
    expect(vcpu.getOneReg(Reg.x(1))).toBe(1n);
    expect(vcpu.getOneReg(Reg.x(0))).toBe(0x8400_000en);
    expect(vcpu.getMpState()).toBe(MpState.RUNNABLE);
  });

  describe('stolen time', () => {
    const AT = RAM + 0x8000;
    const ipa = (vcpu: Vcpu, at: number): string =>
      errnoOf(() => vcpu.setDeviceAttr(VcpuGroup.PVTIME_CTRL, PvtimeAttr.IPA, BigInt(at)));

    test('has an address of 64 bytes in a memslot, once', () => {
      const { vcpu } = makeVm(kvm);
      expect(vcpu.hasDeviceAttr(VcpuGroup.PVTIME_CTRL, PvtimeAttr.IPA)).toBe(true);
      expect(vcpu.hasDeviceAttr(VcpuGroup.PVTIME_CTRL, 1)).toBe(false);
      expect(vcpu.getDeviceAttr(VcpuGroup.PVTIME_CTRL, PvtimeAttr.IPA)).toBe(0xffff_ffff_ffff_ffffn);
      expect(ipa(vcpu, AT + 0x10)).toBe('EINVAL');
      expect(ipa(vcpu, 0x1000)).toBe('EINVAL');
      expect(errnoOf(() => vcpu.setDeviceAttr(VcpuGroup.PVTIME_CTRL, 1, 0n))).toBe('ENXIO');
      expect(ipa(vcpu, AT)).toBe('OK');
      expect(ipa(vcpu, AT)).toBe('EEXIST');
      expect(vcpu.getDeviceAttr(VcpuGroup.PVTIME_CTRL, PvtimeAttr.IPA)).toBe(BigInt(AT));
    });

    test('is told to a guest that asks, where there is an address', () => {
      const without = caller();
      expect(without.call(PV_TIME_FEATURES, PV_TIME_ST)[0]).toBe(-1n);
      expect(without.call(PV_TIME_ST)[0]).toBe(-1n);
      expect(without.call(ARCH_FEATURES, PV_TIME_FEATURES)[0]).toBe(0n);
      const { vcpu, memory, call } = caller();
      expect(ipa(vcpu, AT)).toBe('OK');
      memory.bytes.fill(0xff, AT - RAM, AT - RAM + 64);
      expect([PV_TIME_FEATURES, PV_TIME_ST, 5].map((fn) => call(PV_TIME_FEATURES, fn)[0])).toEqual([0n, 0n, -1n]);
      expect(call(PV_TIME_ST)[0]).toBe(BigInt(AT));
      expect([...memory.bytes.subarray(AT - RAM, AT - RAM + 8)]).toEqual(Array(8).fill(0));
      expect([...memory.bytes.subarray(AT - RAM + 16, AT - RAM + 64)]).toEqual(Array(48).fill(0));
    });
  });
});
