import { type Device, type Kvm, Reg, type Vcpu, VgicAddr, VgicCtrl, VgicGroup } from '#lib/kvm/index.js';
import { mov, mrs, msr, NOP, store } from './asm.ts';
import { DEVICE, enableGic, makeVm, RAM, runToExit, Sysreg, type TestVm } from './machine.ts';

export const ITS = 0x808_0000;
/** Where a device writes its MSIs. */
export const TRANSLATER = BigInt(ITS + 0x1_0040);

export const Gits = {
  CTLR: 0x0,
  IIDR: 0x4,
  TYPER: 0x8,
  CBASER: 0x80,
  CWRITER: 0x88,
  CREADR: 0x90,
  BASER0: 0x100,
  BASER1: 0x108,
} as const;
export const Gicr = { CTLR: 0x0, TYPER: 0x8, PROPBASER: 0x70, PENDBASER: 0x78, INVLPIR: 0xa0, INVALLR: 0xb0 } as const;

/** Where the tests' tables are in RAM, 64 KiB each; a pending table a vCPU. */
export const Table = {
  DEVICES: RAM + 0x10_0000,
  COLLECTIONS: RAM + 0x11_0000,
  QUEUE: RAM + 0x12_0000,
  PROPERTIES: RAM + 0x13_0000,
  PENDING: RAM + 0x14_0000,
  /** Interrupt translation tables: of device n at n * 0x1000. */
  ITT: RAM + 0x16_0000,
  /** The second level of an indirect device table. */
  SECOND: RAM + 0x17_0000,
} as const;
export const VALID = 1n << 63n;
export const INDIRECT = 1n << 62n;

/** A command: four 64-bit words (IHI 0069, 6.3). */
export type Words = readonly [bigint, bigint, bigint, bigint];
const word = (...fields: readonly (readonly [value: number | bigint, shift: number])[]): bigint =>
  fields.reduce((all, [value, shift]) => all | (BigInt(value) << BigInt(shift)), 0n);
const command = (number: number, device: number, w1: bigint, w2: bigint, w3 = 0n): Words => [
  word([number, 0], [device, 32]),
  w1,
  w2,
  w3,
];
export const Cmd = {
  mapd: (device: number, eventBits: number, itt: number, valid = true): Words =>
    command(0x08, device, BigInt(eventBits - 1), BigInt(itt) | (valid ? VALID : 0n)),
  mapc: (collection: number, vcpu: number, valid = true): Words =>
    command(0x09, 0, 0n, word([collection, 0], [vcpu, 16]) | (valid ? VALID : 0n)),
  mapti: (device: number, event: number, intid: number, collection: number): Words =>
    command(0x0a, device, word([event, 0], [intid, 32]), BigInt(collection)),
  mapi: (device: number, event: number, collection: number): Words =>
    command(0x0b, device, BigInt(event), BigInt(collection)),
  movi: (device: number, event: number, collection: number): Words =>
    command(0x01, device, BigInt(event), BigInt(collection)),
  movall: (from: number, to: number): Words => command(0x0e, 0, 0n, word([from, 16]), word([to, 16])),
  discard: (device: number, event: number): Words => command(0x0f, device, BigInt(event), 0n),
  int: (device: number, event: number): Words => command(0x03, device, BigInt(event), 0n),
  clear: (device: number, event: number): Words => command(0x04, device, BigInt(event), 0n),
  inv: (device: number, event: number): Words => command(0x0c, device, BigInt(event), 0n),
  invall: (collection: number): Words => command(0x0d, 0, 0n, BigInt(collection)),
  sync: (vcpu: number): Words => command(0x05, 0, 0n, word([vcpu, 16])),
};

export interface ItsVm extends TestVm {
  readonly gic: Device;
  readonly its: Device;
  /** GITS registers, through the device fd. */
  set(register: number, value: number | bigint): void;
  get(register: number): bigint;
  /** GICR registers of 32 bits, through the device fd. */
  setRedist(vcpu: number, register: number, value: number): void;
  getRedist(vcpu: number, register: number): number;
  /** Puts commands into the queue and has them done. */
  commands(...commands: readonly Words[]): void;
  /** A word in RAM. */
  read(at: number): bigint;
  write(at: number, value: bigint): void;
  /** An LPI's byte in the configuration table; bit 0 enables it. */
  configure(intid: number, byte: number): void;
  /** Whether an LPI's bit in a vCPU's pending table is set. */
  pendingBit(vcpu: number, intid: number): boolean;
  /** Has a vCPU execute code that leaves a value in X9, and tells it. */
  ask(vcpu: Vcpu, ...code: readonly (number | number[])[]): number;
  /** The INTID that a vCPU would acknowledge, 1023 for none. */
  pending(vcpu?: Vcpu): number;
  /** Acknowledges an interrupt and ends it. */
  take(vcpu?: Vcpu): number;
}

/**
 * A VM with a GICv3 and an ITS, none of whose vCPUs takes an interrupt by itself. All work at the CPU interface is done by `ask`:
 * so nothing waits, and a kernel whose KVM_RUN sleeps in WFI is as good as one that returns.
 * @param executes whether the vCPUs can, and have their interfaces set up
 */
export function makeIts(kvm: Kvm, vcpus = 1, executes = true): ItsVm {
  const test = makeVm(kvm, { vcpus, gic: true });
  const { vm, memory, gic } = test;
  const its = vm.createDevice(8);
  its.setDeviceAttr(VgicGroup.ADDR, VgicAddr.ITS, ITS);
  its.setDeviceAttr(VgicGroup.CTRL, VgicCtrl.INIT);
  const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.size);
  const set = (register: number, value: number | bigint): void =>
    its.setDeviceAttr(VgicGroup.ITS_REGS, register, value);
  const get = (register: number): bigint => its.getDeviceAttr(VgicGroup.ITS_REGS, register);
  // Code is never written twice to an address: nobody has to maintain caches.
  let code = RAM + 0x2_0000;
  const ask = (vcpu: Vcpu, ...body: readonly (number | number[])[]): number => {
    // The vCPU may have a store to complete, which passes the first instruction.
    const words = [NOP, ...body.flat(), ...mov(21, DEVICE), store(8, 9, 21)];
    test.load(code, words);
    vcpu.setOneReg(Reg.PC, BigInt(code));
    code += words.length * 4;
    return Number(runToExit(vcpu).split(' ')[2]);
  };
  const setRedist = (vcpu: number, register: number, value: number): void =>
    gic!.setDeviceAttr(VgicGroup.REDIST_REGS, (BigInt(vcpu) << 32n) | BigInt(register), value);
  for (const vcpu of test.vcpus) {
    vcpu.setMpState(0);
    if (executes) ask(vcpu, enableGic(0, vcpu.id));
  }
  return {
    ...test,
    gic: gic!,
    its,
    set,
    get,
    setRedist,
    getRedist: (vcpu, register) =>
      Number(gic!.getDeviceAttr(VgicGroup.REDIST_REGS, (BigInt(vcpu) << 32n) | BigInt(register))),
    commands(...commands) {
      let at = Number(get(Gits.CWRITER));
      for (const words of commands) {
        for (const [i, value] of words.entries()) view.setBigUint64(Table.QUEUE - RAM + at + i * 8, value, true);
        at = (at + 32) % 0x1_0000;
      }
      set(Gits.CWRITER, at);
    },
    read: (at) => view.getBigUint64(at - RAM, true),
    write: (at, value) => view.setBigUint64(at - RAM, value, true),
    configure: (intid, byte) => view.setUint8(Table.PROPERTIES - RAM + intid - 8192, byte),
    pendingBit: (vcpu, intid) =>
      (view.getUint8(Table.PENDING + vcpu * 0x1_0000 - RAM + Math.floor(intid / 8)) & (1 << (intid % 8))) !== 0,
    ask,
    pending: (vcpu = test.vcpu) => ask(vcpu, mrs(9, Sysreg.ICC_HPPIR1)),
    take: (vcpu = test.vcpu) => ask(vcpu, mrs(9, Sysreg.ICC_IAR1), msr(Sysreg.ICC_EOIR1, 9)),
  };
}

/** Gives the ITS its tables and queue, every vCPU its LPIs, and turns all of it on. */
export function startIts(test: ItsVm, deviceTable: bigint = BigInt(Table.DEVICES)): ItsVm {
  for (const { id } of test.vcpus) {
    test.setRedist(id, Gicr.PROPBASER, Table.PROPERTIES + 15);
    test.setRedist(id, Gicr.PENDBASER, Table.PENDING + id * 0x1_0000);
    test.setRedist(id, Gicr.CTLR, 1);
  }
  test.set(Gits.CBASER, VALID | BigInt(Table.QUEUE) | 15n);
  test.set(Gits.BASER0, VALID | deviceTable);
  test.set(Gits.BASER1, VALID | BigInt(Table.COLLECTIONS));
  test.set(Gits.CTLR, 1);
  return test;
}
