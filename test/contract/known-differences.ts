/**
 * Rows of the recordings (data/) that a backend answers otherwise, each with its answer and the reason. Everything that
 * is not here is equal.
 */
export interface Difference {
  readonly answer: string;
  readonly reason: string;
}

/** Stands for any answer. */
export const ANY = '*';

const table = (reason: string, rows: Readonly<Record<string, string>>): [string, Difference][] =>
  Object.entries(rows).map(([row, answer]) => [row, { answer, reason }]);

/** The software backend against any host of Linux 7.3. */
const SOFT: readonly [string, Difference][] = [
  ...table('vCPUs run in turn on one thread: their number does not depend on processors', {
    'C NR_VCPUS(9)': 'sys=0x8 vm=0x8',
  }),
  ...table('the host it models has a GIC that can also be a GICv2 for guests; QEMU’s can’t', {
    'CREATE_DEVICE_TEST(5)': '0',
    'CREATE_IRQCHIP(on scratch)': '0',
    'vgic2 create': '0',
  }),
  ...table('no VFIO: there are no host devices', { 'CREATE_DEVICE_TEST(4)': 'ENODEV' }),
  ...table('no AArch32', { 'C ARM_EL1_32BIT(93)': 'sys=0 vm=0', 'INIT feature 1': 'EINVAL' }),
  ...table('no PMU of a physical processor that a vCPU could be bound to', {
    'C PMU_V3_STRICT(251)': 'sys=0 vm=0',
  }),
  ...table('no stage 2, and so no block sizes that it could be made of', {
    'C ARM_SUPPORTED_BLOCK_SIZES(229)': 'sys=0 vm=0',
  }),
  ...table('memory that fails is no event here', { 'C SEA(245)': 'sys=0 vm=0', 'ENABLE_CAP SEA': 'EINVAL' }),
];

/** What the processor is, which the CPU's own tests pin down. */
const PROCESSOR: readonly [string, Difference][] = table('the processor is its own', {
  'R 0x603000000013c000': ANY,
  'R 0x603000000013d801': ANY,
  'R 0x603000000013c020': ANY,
  'R 0x603000000013c021': ANY,
  'R 0x603000000013c028': ANY,
  'R 0x603000000013c038': ANY,
  'R 0x603000000013c039': ANY,
  'R 0x603000000013c03a': ANY,
  'R 0x603000000013c030': ANY,
  'R 0x603000000013c031': ANY,
  'R 0x603000000013c801': ANY,
  '  n': ANY,
  '  nonzero masks': ANY,
});
const ID_AA64PFR1 = 'R 0x603000000013c021';
const CTR = 'R 0x603000000013d801';

/** Against a Cortex-A57, which has less than the processor here. */
const A57: readonly [string, Difference][] = [
  ...table("the processor's PARange is 40 bits, the Cortex-A57's 44", {
    'CREATE_VM(0x2c)': 'EINVAL',
    'C ARM_VM_IPA_SIZE(165)': 'sys=0x28 vm=0x28',
  }),
  ...table('the processor has FEAT_RAS, which a Cortex-A57 has not', {
    'C ARM_INJECT_SERROR_ESR(158)': 'sys=0x1 vm=0x1',
  }),
  ...table('the processor has pointer authentication, which a Cortex-A57 has not', {
    'C ARM_PTRAUTH_ADDRESS(171)': 'sys=0x1 vm=0x1',
    'C ARM_PTRAUTH_GENERIC(172)': 'sys=0x1 vm=0x1',
    'INIT feature 5': '0',
    'INIT feature 6': '0',
  }),
];

/** Against QEMU's `max`, which has more. */
const MAX: readonly [string, Difference][] = [
  ...table("the processor's PARange is 40 bits, that of `max` 52", {
    'CREATE_VM(0x2c)': 'EINVAL',
    'CREATE_VM(0x30)': 'EINVAL',
    'CREATE_VM(0x31)': 'EINVAL',
    'CREATE_VM(0x34)': 'EINVAL',
    'C ARM_VM_IPA_SIZE(165)': 'sys=0x28 vm=0x28',
  }),
  ...table('no SVE', {
    'C ARM_SVE(170)': 'sys=0 vm=0',
    'INIT feature 4': 'EINVAL',
    'SVE RUN unfinalized': 'ENOEXEC',
    'SVE finalize': 'ENOEXEC',
    'SVE finalize2': 'ENOEXEC',
  }),
  ...table('no stage 2 that could map a device as cacheable (FEAT_S2FWB)', {
    'C ARM_CACHEABLE(243)': 'sys=EINVAL vm=0',
  }),
];

/** Against Linux 6.12, the kernel of Debian 13: what came between it and the one that is modelled. */
const SINCE_6_12: readonly [string, Difference][] = [
  ...table('user space can map a guest_memfd from 6.18 on, and arm64 has it', {
    'C GUEST_MEMFD(234)': 'sys=0x1 vm=0x1',
    'C GMEM_FLAGS(244)': 'sys=0x3 vm=0x3',
    'GUEST_MEMFD flags0': '0',
    'GUEST_MEMFD MMAP|INIT_SHARED': '0',
  }),
  ...table('MIDR, REVIDR and AIDR can be written from 6.15 on', {
    'C ARM_WRITABLE_IMP(239)': 'sys=0x1 vm=0x1',
    'ENABLE_CAP WRITABLE_IMP': '0',
  }),
  ...table('a capability that 6.12 has not heard of, which only a VM knows', {
    'C ARM_CACHEABLE(243)': 'sys=EINVAL vm=0',
  }),
  ...table('features that 6.12 has not heard of', {
    'INIT feature 7': 'EINVAL',
    'INIT feature 8': '0',
    'INIT feature 9': 'EINVAL',
    'INIT HAS_EL2': 'EINVAL',
  }),
  ...table('a value that no VM can have is refused before the change is', { 'set ID_AA64PFR0 change': 'EINVAL' }),
  ...table('6.12 has PSCI 1.1', { 'R 0x6030000000140000': 'OK 0x10003' }),
];

/** Those of `differences` whose rows are none of `rows`. */
const without = (differences: readonly [string, Difference][], ...rows: readonly string[]): [string, Difference][] =>
  differences.filter(([row]) => !rows.includes(row));

/**
 * What real kernels answered, and what is known to differ. The first two are VMs like those of the software backend. Hosts in
 * other modes answer otherwise in what makes the mode: nVHE in nothing but ID_AA64MMFR1_EL1; protected KVM does not check IPA sizes and
 * makes protected VMs; nested virtualization gives vCPUs an EL2; a host with pages of 16 KiB takes no slot of 4 KiB; one with a GICv2 has no GICv3
 * and eight vCPUs. The third is an older kernel's, with a processor that has FEAT_NV2, which no VM there asked for.
 */
export const RECORDINGS: readonly {
  readonly name: string;
  readonly file: string;
  readonly differences: ReadonlyMap<string, Difference>;
}[] = [
  {
    name: '7.3 on a Cortex-A57',
    file: '73-a57-def.txt',
    differences: new Map([...SOFT, ...PROCESSOR, ...A57]),
  },
  {
    name: '7.3 on a CPU with all that QEMU has',
    file: '73-max-def.txt',
    differences: new Map([...SOFT, ...without(PROCESSOR, ID_AA64PFR1, CTR), ...MAX]),
  },
  {
    name: '6.12 on a CPU with all that QEMU has',
    file: '612-max-nested.txt',
    // What the software KVM lacks, and 6.12 too, is no difference.
    differences: new Map([
      ...without(SOFT, 'C PMU_V3_STRICT(251)', 'C SEA(245)', 'ENABLE_CAP SEA'),
      ...without(PROCESSOR, ID_AA64PFR1, CTR),
      ...without(MAX, 'C ARM_CACHEABLE(243)'),
      ...SINCE_6_12,
    ]),
  },
];

/** Rows that the contract cannot ask, and why. */
export const NOT_ASKED: ReadonlyMap<string, string> = new Map([
  ['hdr73', 'a line of the probe itself'],
  ['unknown sys ioctl', 'the contract has no ioctl numbers'],
  ['unknown vm ioctl', 'the contract has no ioctl numbers'],
  ['REG_LIST n=0', 'the contract sizes the list'],
  ['GET_REG_WRITABLE_MASKS range1', 'the contract asks for range 0'],
  ['COUNTER_OFFSET res', 'the contract has no reserved field'],
  ['SET_MEMORY_ATTRIBUTES', 'x86 only: not in the contract'],
  ['run immediate_exit', "the contract gives EINTR as the exit 'intr'"],
  ['STATS_FD vm', 'the contract reads the statistics'],
  ['  pstate', 'printed whether the call before failed or not'],
]);
