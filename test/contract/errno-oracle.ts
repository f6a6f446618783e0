import {
  Cap,
  ExitNumber,
  type GuestMemory,
  type Kvm,
  KvmError,
  Reg,
  TARGET_GENERIC_V8,
  type Vcpu,
  type VcpuExit,
  type Vm,
} from '#lib/kvm/index.js';

/** What data/*.txt calls a row, and what was answered. A row that comes again gets a number: `'then GET_MP_STATE#2'`. */
export type Rows = Map<string, string>;

/** Reads a recording: `P name result`, `C CAP(n) sys= vm=`, `R id OK value`. `X` an exit. */
export function parseRecording(text: string): Rows {
  const rows: Rows = new Map();
  for (const line of text.split('\n')) {
    if (line.startsWith('P   ')) {
      const [, name, value] = /^P (\s+.*?)(?:=|\s{2,}|\s)(\S+)$/.exec(line) ?? [];
      if (name !== undefined) record(rows, name, value!);
    } else if (line.startsWith('P target')) record(rows, 'target', line.slice('P target '.length));
    else if (line.startsWith('P ')) {
      const [, name, value] = /^P (.*?)(?:\s{2,}(\S+))?$/.exec(line) ?? [];
      if (name !== undefined && name.trim() !== '') record(rows, name, errno(value ?? ''));
    } else if (line.startsWith('X ')) {
      // The data of an MMIO exit is stale where the guest reads.
      record(rows, 'X', line.slice(2).replace(/ d [0-9a-f]{2}$/, ''));
    } else if (line.startsWith('C ')) {
      const [, name, values] = /^C (\S+\(\d+\)) (.*)$/.exec(line)!;
      record(rows, `C ${name}`, values!.replaceAll('EINVAL0', 'EINVAL'));
    } else if (line.startsWith('R ')) {
      const [, id, value] = /^R (0x[0-9a-f]+) (.*)$/.exec(line)!;
      record(rows, `R ${id}`, value!);
    }
  }
  return rows;
}

/** `EINVAL0` is an errno and its return value; `E110` is errno 11, which the probe had no name for. */
const errno = (value: string): string =>
  value === 'E110' ? 'EAGAIN' : /^E[A-Z0-9]*[A-Z]0$/.test(value) ? value.slice(0, -1) : value;

function record(rows: Rows, name: string, value: string): void {
  let key = name;
  for (let n = 2; rows.has(key); n++) key = `${name}#${n}`;
  rows.set(key, value);
}

/** Asks a backend what data/probe.c asked: the same calls in the same order, the same names. */
export function probe(kvm: Kvm, caps: Iterable<string>): Rows {
  const rows: Rows = new Map();
  const P = (name: string, call: () => unknown): boolean => {
    try {
      const value = call();
      record(rows, name, typeof value === 'number' ? String(value) : '0');
      return true;
    } catch (error) {
      if (!KvmError.is(error)) throw error;
      record(rows, name, error.code);
      return false;
    }
  };
  P('API', () => kvm.getApiVersion());
  P('MMAP_SIZE', () => kvm.getVcpuMmapSize());
  for (const type of [0, 31, 32, 33, 36, 40, 44, 48, 49, 52, 53, 0x80000000, 0x80000028, 0x40000000, 0x128]) {
    P(`CREATE_VM(0x${type.toString(16)})`, () => kvm.createVm(type).close());
  }
  const vm = kvm.createVm();
  const hex = (call: () => number): string => {
    try {
      const value = call();
      return value === 0 ? '0' : `0x${value.toString(16)}`;
    } catch (error) {
      if (!KvmError.is(error)) throw error;
      return error.code === 'EINVAL' ? 'EINVAL' : error.code;
    }
  };
  for (const row of caps) {
    const cap = Number(/\((\d+)\)/.exec(row)![1]);
    record(rows, row, `sys=${hex(() => kvm.checkExtension(cap))} vm=${hex(() => vm.checkExtension(cap))}`);
  }
  P('PREFERRED_TARGET', () => void vm.getPreferredTarget());
  const { target, features } = vm.getPreferredTarget();
  record(rows, 'target', `${target} feat ${features}`);
  for (let type = 1; type < 16; type++) {
    record(rows, `CREATE_DEVICE_TEST(${type})`, vm.testDevice(type) ? '0' : 'ENODEV');
  }
  P('CREATE_IRQCHIP(on scratch)', () => kvm.createVm().createIrqchip());
  P('IRQ_LINE no gic', () => vm.irqLine((1 << 24) | 32, true));

  const memory = vm.createMemory(0x200000);
  const region = { slot: 0, guestPhysAddr: 0x80000000, memorySize: 0x200000, memory };
  const set = (name: string, change: object): boolean =>
    P(name, () => vm.setUserMemoryRegion({ ...region, ...change }));
  set('MEM unaligned size', { memorySize: 0x1800 });
  set('MEM set', {});
  set('MEM overlap', { slot: 1 });
  set('MEM resize', { memorySize: 0x100000 });
  set('MEM slot 40000', { slot: 40000, guestPhysAddr: 0x90000000 });
  set('MEM gpa>ipa', { slot: 2, guestPhysAddr: 2 ** 50 });
  set('MEM bad flag', { slot: 2, guestPhysAddr: 0x90000000, flags: 8 });
  set('MEM delete absent', { slot: 7, memorySize: 0 });
  const vcpu = vm.createVcpu(0);
  record(rows, 'CREATE_VCPU', '0');
  P('CREATE_VCPU dup', () => vm.createVcpu(0));
  P('CREATE_VCPU 100000', () => vm.createVcpu(100000));
  P('RUN before INIT', () => void vcpu.run(1));
  P('REG_LIST before INIT', () => void vcpu.getRegList());
  for (let feature = 0; feature < 10; feature++) {
    const other = kvm.createVm();
    const cpu = other.createVcpu(0);
    const bits = feature === 5 || feature === 6 ? 0x60 : 1 << feature;
    P(`INIT feature ${feature}`, () => cpu.init(TARGET_GENERIC_V8, bits));
    if (feature === 4) {
      P('SVE RUN unfinalized', () => void cpu.run(1));
      P('SVE finalize', () => cpu.finalize(4));
      P('SVE finalize2', () => cpu.finalize(4));
    }
    if (feature === 3) P('PMU INIT w/o gic', () => cpu.setDeviceAttr(0, 1));
    cpu.close();
    other.close();
  }
  P('INIT bad target', () => vcpu.init(99, 0));
  P('INIT', () => vcpu.init(TARGET_GENERIC_V8, 4));
  P('reINIT other feat', () => vcpu.init(TARGET_GENERIC_V8, 4 | 8));
  P('reINIT same', () => vcpu.init(TARGET_GENERIC_V8, 4));
  record(rows, '  n', String(vcpu.getRegList().length));
  P('REG_LIST', () => void vcpu.getRegList());
  const sys = (crm: number, op2: number, op1 = 0): bigint =>
    0x603000000013c000n | BigInt((op1 << 11) | (crm << 3) | op2);
  const R = (id: bigint): void => {
    let answer: string;
    try {
      const value = vcpu.getOneReg(id);
      answer = value === 0n ? 'OK 0' : `OK 0x${value.toString(16)}`;
    } catch (error) {
      if (!KvmError.is(error)) throw error;
      answer = `${error.code} 0`;
    }
    record(rows, `R 0x${id.toString(16)}`, answer);
  };
  for (const id of [
    Reg.PSTATE,
    Reg.PC,
    sys(0, 0),
    sys(0, 5),
    sys(0, 1, 3),
    sys(4, 0),
    sys(4, 1),
    sys(5, 0),
    sys(7, 0),
    sys(7, 1),
    sys(7, 2),
    sys(6, 0),
    sys(6, 1),
    sys(0, 1, 1),
    Reg.PSCI_VERSION,
    Reg.fwFeatureBitmap(0),
    Reg.fwFeatureBitmap(1),
    Reg.fwFeatureBitmap(2),
    0x60300000001fffffn,
  ])
    R(id);
  P('GET_REG_WRITABLE_MASKS', () => void vm.getRegWritableMasks());
  record(rows, '  nonzero masks', String([...vm.getRegWritableMasks()].filter((mask) => mask !== 0n).length));
  P('COUNTER_OFFSET', () => vm.setCounterOffset(12345n));
  const filter = (base: number): Uint8Array => {
    const bytes = new Uint8Array(24);
    new DataView(bytes.buffer).setUint32(0, base, true);
    bytes[4] = 16;
    bytes[8] = 2;
    return bytes;
  };
  P('SMCCC filter', () => vm.setDeviceAttr(0, 0, filter(0xc3000000)));
  P('SMCCC filter dup', () => vm.setDeviceAttr(0, 0, filter(0xc3000000)));
  P('SMCCC filter reserved', () => vm.setDeviceAttr(0, 0, filter(0x80000000)));
  P('MTE_COPY_TAGS no mte', () => vm.mteCopyTags(0x80000000, 4096, new Uint8Array(256), true));

  const gic = vm.createDevice(7);
  record(rows, 'CREATE vgic3', '0');
  P('CREATE vgic3 again', () => vm.createDevice(7));
  const addr = (name: string, attr: number, value: bigint): boolean => P(name, () => gic.setDeviceAttr(0, attr, value));
  addr('DIST unaligned', 2, 0x8001000n);
  addr('DIST', 2, 0x8000000n);
  addr('DIST again', 2, 0x8000000n);
  addr('REDIST', 3, 0x80a0000n);
  addr('REDIST_REGION mixed', 5, (1n << 52n) | 0x80c0000n);
  P('NR_IRQS 33', () => gic.setDeviceAttr(3, 0, 33));
  P('NR_IRQS 256', () => gic.setDeviceAttr(3, 0, 256));
  P('NR_IRQS again', () => gic.setDeviceAttr(3, 0, 256));
  P('VGIC INIT', () => gic.setDeviceAttr(4, 0));
  P('VGIC INIT again', () => gic.setDeviceAttr(4, 0));
  P('CREATE_VCPU after INIT', () => vm.createVcpu(1));
  const its = vm.createDevice(8);
  record(rows, 'CREATE its', '0');
  P('ITS addr', () => its.setDeviceAttr(0, 4, 0x8080000n));
  P('ITS INIT', () => its.setDeviceAttr(4, 0));
  P('IRQ_LINE spi40', () => vm.irqLine((1 << 24) | 40, true));
  P('IRQ_LINE spi300>nr', () => vm.irqLine((1 << 24) | 300, true));
  P('IRQ_LINE ppi27', () => vm.irqLine((2 << 24) | 27, true));
  P('IRQ_LINE cpu type w/ vgic', () => vm.irqLine(4, true));
  P('set PC', () => vcpu.setOneReg(Reg.PC, 0x80000000n));
  runGuest(vm, vcpu, memory, rows, P);
  P('SMCCC after run', () => vm.setDeviceAttr(0, 0, filter(0xc4000000)));
  R(sys(4, 0));
  P('set ID_AA64PFR0 same', () => vcpu.setOneReg(sys(4, 0), vcpu.getOneReg(sys(4, 0))));
  P('set ID_AA64PFR0 change', () => vcpu.setOneReg(sys(4, 0), 0n));
  P('set bmap after run', () => vcpu.setOneReg(Reg.fwFeatureBitmap(0), 0n));
  probeOthers(kvm, P);
  return rows;
}

/** The guest of data/probe.c: MMIO, a forwarded hypercall, an access without syndrome, SYSTEM_OFF. */
function runGuest(
  vm: Vm,
  vcpu: Vcpu,
  memory: GuestMemory,
  rows: Rows,
  P: (name: string, call: () => unknown) => boolean,
): void {
  const code = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, 64);
  const words = [
    0xd2a12000, 0x52800c41, 0x39000001, 0xb9400002, 0xd2b86000, 0xd4000002, 0xd2a12003, 0x3800146a, 0x52b08000,
    0x72800100, 0xd4000002,
  ];
  for (const [i, word] of words.entries()) code.setUint32(i * 4, word, true);
  memory.written(0, words.length * 4);
  for (let step = 0; step < 12; step++) {
    let exit: VcpuExit;
    try {
      exit = vcpu.run();
    } catch (error) {
      if (!KvmError.is(error)) throw error;
      record(rows, 'X', `run=${error.code} reason=0`);
      if (error.code !== 'ENOSYS' || !P('  NISV enable', () => vm.enableCap(Cap.ARM_NISV_TO_USER))) return;
      continue;
    }
    const reason = ExitNumber[exit.reason];
    if (exit.reason === 'mmio') {
      record(
        rows,
        'X',
        `run=0 reason=${reason} mmio 0x${exit.physAddr.toString(16)} len ${exit.len} w ${exit.isWrite ? 1 : 0}`,
      );
    } else if (exit.reason === 'hypercall') {
      record(rows, 'X', `run=0 reason=${reason} hypercall nr 0x${exit.nr.toString(16)} flags ${exit.smc ? 1 : 0}`);
    } else if (exit.reason === 'arm_nisv') {
      record(
        rows,
        'X',
        `run=0 reason=${reason} nisv esr_iss 0x${exit.esrIss.toString(16)} ipa 0x${exit.faultIpa.toString(16)}`,
      );
      const pc = vcpu.getOneReg(Reg.PC);
      record(rows, `R 0x${Reg.PC.toString(16)}`, `OK 0x${pc.toString(16)}`);
      vcpu.setOneReg(Reg.PC, pc + 4n);
    } else if (exit.reason === 'system_event') {
      record(rows, 'X', `run=0 reason=${reason} sysevent ${exit.type} ndata ${exit.data.length} data0 ${exit.data[0]}`);
      return;
    } else {
      record(rows, 'X', `run=0 reason=${reason}`);
    }
  }
}

function probeOthers(kvm: Kvm, P: (name: string, call: () => unknown) => boolean): void {
  const init = (cpu: Vcpu, features = 4): Vcpu => {
    cpu.init(TARGET_GENERIC_V8, features);
    return cpu;
  };
  const vm = kvm.createVm();
  P('GUEST_MEMFD flags0', () => void vm.createGuestMemfd(0x200000, 0));
  P('GUEST_MEMFD MMAP|INIT_SHARED', () => void vm.createGuestMemfd(0x200000, 3));
  P('GUEST_MEMFD badflag', () => void vm.createGuestMemfd(0x200000, 4));
  P('GUEST_MEMFD unaligned', () => void vm.createGuestMemfd(0x1800, 0));
  const memory = vm.createMemory(0x200000);
  P('MEM 4K slot', () => vm.setUserMemoryRegion({ slot: 3, guestPhysAddr: 0x80000000, memorySize: 4096, memory }));
  P('ENABLE_CAP MTE', () => vm.enableCap(205));
  P('ENABLE_CAP flags=1', () => vm.enableCap(177, [], 1));
  P('ENABLE_CAP unknown', () => vm.enableCap(9999));
  P('ENABLE_CAP SYSTEM_SUSPEND', () => vm.enableCap(216));
  P('ENABLE_CAP EAGER after slot', () => vm.enableCap(228, [0x200000]));
  P('ENABLE_CAP DIRTY_RING 64K', () => vm.enableCap(223, [0x10000]));
  P('ENABLE_CAP WRITABLE_IMP', () => vm.enableCap(239));
  P('ENABLE_CAP SEA', () => vm.enableCap(245));
  const fd = kvm.createEventFd();
  P('IRQFD before GIC', () => vm.irqfd({ fd, gsi: 0 }));
  const io = { addr: 0x9000000, len: 4, fd };
  P('IOEVENTFD', () => vm.ioeventfd(io));
  P('IOEVENTFD dup', () => vm.ioeventfd(io));
  P('IOEVENTFD len3', () => vm.ioeventfd({ ...io, len: 3 }));
  P('IOEVENTFD PIO', () => vm.ioeventfd({ ...io, addr: 0x100, flags: 2 }));
  P('IOEVENTFD deassign absent', () => vm.ioeventfd({ ...io, addr: 0x777, flags: 4 }));
  P('COALESCED', () => vm.registerCoalescedMmio(0xa000000, 16));
  const cpu = init(vm.createVcpu(0));
  const gic = vm.createDevice(7);
  P('vgic3 after vcpu', () => void gic);
  P('INIT w/o addr', () => gic.setDeviceAttr(4, 0));
  P('RUN with vgic, no addr', () => void cpu.run(1));
  P('then GET_MP_STATE', () => cpu.getMpState());

  const uninitialised = kvm.createVm();
  const cpu2 = init(uninitialised.createVcpu(0));
  uninitialised.createDevice(7);
  P('RUN vgic uninit', () => void cpu2.run(1));
  P('then GET_MP_STATE', () => cpu2.getMpState());
  const v2 = kvm.createVm();
  v2.createVcpu(0);
  P('vgic2 create', () => void v2.createDevice(5));

  // The probe gave this vCPU a PMU; where there is none the attributes are asked without.
  const attrs = kvm.createVm();
  const cpu3 = attrs.createVcpu(0);
  try {
    init(cpu3, 4 | 8);
  } catch {
    init(cpu3);
  }
  P('PMU INIT no irqchip', () => cpu3.setDeviceAttr(0, 1));
  P('PMU INIT twice', () => cpu3.setDeviceAttr(0, 1));
  P('PVTIME misaligned', () => cpu3.setDeviceAttr(2, 0, 0x80000010n));
  P('PVTIME no memslot', () => cpu3.setDeviceAttr(2, 0, 0x80000000n));
  const ram = attrs.createMemory(0x200000);
  attrs.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0x80000000, memorySize: 0x200000, memory: ram });
  P('PVTIME ok', () => cpu3.setDeviceAttr(2, 0, 0x80000000n));
  P('PVTIME again', () => cpu3.setDeviceAttr(2, 0, 0x80000000n));
  P('TIMER irq 23', () => cpu3.setDeviceAttr(1, 0, 23));
  P('TIMER irq 40', () => cpu3.setDeviceAttr(1, 0, 40));
  const nested = kvm.createVm().createVcpu(0);
  P('INIT HAS_EL2', () => nested.init(TARGET_GENERIC_V8, 4 | (1 << 7)));
  P('get PSTATE', () => void nested.getOneReg(Reg.PSTATE));
}
