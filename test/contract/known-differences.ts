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

/** The software backend against a Cortex-A57 host of Linux 7.3. */
export const SOFT: ReadonlyMap<string, Difference> = new Map([
  ...table("the processor's PARange is 40 bits, the Cortex-A57's 44", {
    'CREATE_VM(0x2c)': 'EINVAL',
    'C ARM_VM_IPA_SIZE(165)': 'sys=0x28 vm=0x28',
  }),
  ...table('vCPUs run in turn on one thread: their number does not depend on processors', {
    'C NR_VCPUS(9)': 'sys=0x8 vm=0x8',
  }),
  ...table('no coalesced MMIO: the contract has no ring to read', {
    'C COALESCED_MMIO(15)': 'sys=0 vm=0',
    COALESCED: 'EINVAL',
  }),
  ...table('no debug exits yet', {
    'C SET_GUEST_DEBUG(23)': 'sys=0 vm=0',
    'C GUEST_DEBUG_HW_BPS(119)': 'sys=0 vm=0',
    'C GUEST_DEBUG_HW_WPS(120)': 'sys=0 vm=0',
    'C SET_GUEST_DEBUG2(195)': 'sys=0 vm=0',
  }),
  ...table('no VFIO: there are no host devices', { 'CREATE_DEVICE_TEST(4)': 'ENODEV' }),
  ...table('no AArch32', { 'C ARM_EL1_32BIT(93)': 'sys=0 vm=0', 'INIT feature 1': 'EINVAL' }),
  ...table('no PMU', {
    'C ARM_PMU_V3(126)': 'sys=0 vm=0',
    'C PMU_V3_STRICT(251)': 'sys=0 vm=0',
    'INIT feature 3': 'EINVAL',
    'PMU INIT w/o gic': 'ENODEV',
    'PMU INIT no irqchip': 'ENODEV',
    'PMU INIT twice': 'ENODEV',
  }),
  ...table('no paravirtual time', {
    'C STEAL_TIME(187)': 'sys=0 vm=0',
    'PVTIME misaligned': 'ENXIO',
    'PVTIME no memslot': 'ENXIO',
    'PVTIME ok': 'ENXIO',
    'PVTIME again': 'ENXIO',
    'R 0x6030000000160001': 'OK 0',
  }),
  ...table('no dirty rings: the bitmap is there', {
    'C DIRTY_LOG_RING_ACQ_REL(223)': 'sys=0 vm=0',
    'C DIRTY_LOG_RING_WITH_BITMAP(225)': 'sys=0 vm=0',
    'ENABLE_CAP DIRTY_RING 64K': 'EINVAL',
  }),
  ...table('no stage 2 and so no block sizes', { 'C ARM_SUPPORTED_BLOCK_SIZES(229)': 'sys=0 vm=0' }),
  ...table('no guest_memfd: all guest memory is the machine’s', {
    'C GUEST_MEMFD(234)': 'sys=0 vm=0',
    'C GMEM_FLAGS(244)': 'sys=0 vm=0',
    'GUEST_MEMFD flags0': 'EINVAL',
    'GUEST_MEMFD MMAP|INIT_SHARED': 'EINVAL',
  }),
  ...table('no memory errors to hand on', { 'C SEA(245)': 'sys=0 vm=0', 'ENABLE_CAP SEA': 'EINVAL' }),
  // ANY: these say what the processor is, which the CPU's own tests pin down.
  ...table('the processor is its own, with more than a Cortex-A57 has', {
    'R 0x603000000013c000': ANY,
    'R 0x603000000013d801': ANY,
    'R 0x603000000013c020': ANY,
    'R 0x603000000013c020#2': ANY,
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
  }),
]);

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
