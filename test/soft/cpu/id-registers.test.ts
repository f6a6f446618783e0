import { describe, expect, test } from '@jest/globals';
import { sysregIndex } from '#lib/kvm/registers.js';
import { mrs } from '../a64.ts';
import { BareMetal, DATA } from '../bare-metal.ts';

const PFR0 = sysregIndex(3, 0, 0, 4, 0);
const PFR1 = sysregIndex(3, 0, 0, 4, 1);
const ZFR0 = sysregIndex(3, 0, 0, 4, 4);
const DFR0 = sysregIndex(3, 0, 0, 5, 0);
const ISAR0 = sysregIndex(3, 0, 0, 6, 0);
const ISAR1 = sysregIndex(3, 0, 0, 6, 1);
const ISAR2 = sysregIndex(3, 0, 0, 6, 2);
const MMFR0 = sysregIndex(3, 0, 0, 7, 0);
const MMFR1 = sysregIndex(3, 0, 0, 7, 1);
const MMFR2 = sysregIndex(3, 0, 0, 7, 2);

const vm = new BareMetal();
const field = (index: number, lsb: number): number => Number((vm.sysreg(index) >> BigInt(lsb)) & 15n);

describe('an instruction is there if and only if its ID field says so', () => {
  /** Feature, ID register, lowest bit of the field, the least value that promises the instruction, the instruction. */
  test.each([
    ['FEAT_FP16 scalar', PFR0, 16, 1, 0x1ee22820],
    ['FEAT_FP16 vector', PFR0, 20, 1, 0x4e421420],
    ['FEAT_DIT', PFR0, 48, 1, 0xd503415f],
    ['FEAT_RAS DISR_EL1', PFR0, 28, 1, 0xd538c120],
    ['FEAT_RAS ERRIDR_EL1', PFR0, 28, 1, 0xd5385300],
    ['FEAT_RASv1p1 ERXMISC2_EL1', PFR0, 28, 2, 0xd5385540],
    ['FEAT_SVE', PFR0, 32, 1, 0x04210000],
    ['FEAT_SVE', ZFR0, 0, 1, 0x04210000],
    ['FEAT_SSBS2', PFR1, 4, 2, 0xd503413f],
    ['FEAT_MTE IRG', PFR1, 8, 1, 0x9adf1020],
    ['FEAT_MTE2 STG', PFR1, 8, 2, 0xd9200820],
    ['FEAT_PMUv3', DFR0, 8, 1, 0xd53b9c00],
    ['FEAT_AES', ISAR0, 4, 1, 0x4e284820],
    ['FEAT_PMULL', ISAR0, 4, 2, 0x0ee2e020],
    ['FEAT_SHA1', ISAR0, 8, 1, 0x5e280820],
    ['FEAT_SHA256', ISAR0, 12, 1, 0x5e024020],
    ['FEAT_SHA512', ISAR0, 12, 2, 0xce628020],
    ['FEAT_CRC32', ISAR0, 16, 1, 0x9ac24c20],
    ['FEAT_LSE', ISAR0, 20, 2, 0xf8200041],
    ['FEAT_RDM', ISAR0, 28, 1, 0x6e828420],
    ['FEAT_SHA3', ISAR0, 32, 1, 0xce020c20],
    ['FEAT_SM3', ISAR0, 36, 1, 0xce62c020],
    ['FEAT_SM4', ISAR0, 40, 1, 0xcec08420],
    ['FEAT_DotProd', ISAR0, 44, 1, 0x4e829420],
    ['FEAT_FHM', ISAR0, 48, 1, 0x4e22ec20],
    ['FEAT_FlagM SETF8', ISAR0, 52, 1, 0x3a00080d],
    ['FEAT_FlagM CFINV', ISAR0, 52, 1, 0xd500401f],
    ['FEAT_FlagM RMIF', ISAR0, 52, 1, 0xba008402],
    ['FEAT_FlagM2 XAFLAG', ISAR0, 52, 2, 0xd500403f],
    ['FEAT_FlagM2 AXFLAG', ISAR0, 52, 2, 0xd500405f],
    ['FEAT_TLBIOS', ISAR0, 56, 1, 0xd5088120],
    ['FEAT_TLBIRANGE', ISAR0, 56, 2, 0xd5088220],
    ['FEAT_RNG', ISAR0, 60, 1, 0xd53b2400],
    ['FEAT_DPB', ISAR1, 0, 1, 0xd50b7c20],
    ['FEAT_DPB2', ISAR1, 0, 2, 0xd50b7d20],
    ['FEAT_PAuth PACGA', ISAR1, 24, 1, 0x9ac23020],
    ['FEAT_PAuth BRAAZ', ISAR1, 4, 1, 0xd61f081f],
    ['FEAT_PAuth LDRAA', ISAR1, 4, 1, 0xf8200420],
    ['FEAT_JSCVT', ISAR1, 12, 1, 0x1e7e0020],
    ['FEAT_FCMA', ISAR1, 16, 1, 0x6e82c420],
    ['FEAT_LRCPC', ISAR1, 20, 1, 0xf8bfc020],
    ['FEAT_LRCPC2', ISAR1, 20, 2, 0xd9400020],
    ['FEAT_FRINTTS', ISAR1, 32, 1, 0x1e684020],
    ['FEAT_SB', ISAR1, 36, 1, 0xd50330ff],
    ['FEAT_SPECRES', ISAR1, 40, 1, 0xd50b7380],
    ['FEAT_BF16', ISAR1, 44, 1, 0x6e42fc20],
    ['FEAT_I8MM', ISAR1, 52, 1, 0x4e82a420],
    ['FEAT_LS64', ISAR1, 60, 1, 0xf83fd100],
    ['FEAT_MOPS', ISAR2, 16, 1, 0x19010440],
    ['FEAT_WFxT', ISAR2, 0, 2, 0xd5031000],
    ['FEAT_LOR LORID_EL1', MMFR1, 16, 1, 0xd538a4e0],
    ['FEAT_LOR LDLAR', MMFR1, 16, 1, 0xc8df7c20],
    ['FEAT_PAN', MMFR1, 20, 1, 0xd500419f],
    ['FEAT_PAN2', MMFR1, 20, 3, 0xd5087900],
    ['FEAT_UAO', MMFR2, 4, 1, 0xd500417f],
    ['EL2', PFR0, 8, 1, 0xd53c2000],
    ['UDF', PFR0, 0, 16, 0x00000000],
  ])('%s', (_name, register, lsb, least, word) => {
    const o = vm.execute([word], { x: { 0: DATA, 1: DATA, 2: DATA, 8: DATA } });
    expect(o.done || o.ec === 0).toBe(true);
    expect(o.done).toBe(field(register, lsb) >= least);
  });
});

test('what needs no instruction: EL0 and EL1 in AArch64 only, no mixed endianness, three granules, 40 and 16 bits', () => {
  expect([field(PFR0, 0), field(PFR0, 4), field(PFR0, 12)]).toEqual([1, 1, 0]);
  expect([
    field(MMFR0, 0),
    field(MMFR0, 4),
    field(MMFR0, 8),
    field(MMFR0, 16),
    field(MMFR0, 20),
    field(MMFR0, 24),
    field(MMFR0, 28),
  ]).toEqual([2, 2, 0, 0, 1, 0, 0]);
  // Debug of Armv8.2, with the OS Double Lock. IESB.
  expect([field(DFR0, 0), field(DFR0, 36), field(MMFR2, 12)]).toEqual([8, 0, 1]);
  // Hardware management of access flag and dirty state; hierarchical permission disables; LSE2; no IDS; E0PD.
  expect([field(MMFR1, 0), field(MMFR1, 12), field(MMFR2, 32), field(MMFR2, 36), field(MMFR2, 60)]).toEqual([
    2, 1, 1, 0, 1,
  ]);
  // Linux wants these to leave its mitigations off.
  expect([field(PFR0, 56), field(PFR0, 60)]).toEqual([3, 1]);
});

test('the whole ID space reads at EL1, the unallocated and those of AArch32 as zero', () => {
  for (let crm = 1; crm < 8; crm++) {
    for (let op2 = 0; op2 < 8; op2++) {
      const index = sysregIndex(3, 0, 0, crm, op2);
      expect(vm.execute([mrs(5, index)], { x: { 5: 1 } }).done).toBe(true);
      expect(vm.cpu.getX(5)).toBe(vm.sysreg(index));
      if (crm < 4) expect(vm.cpu.getX(5)).toBe(0n);
    }
  }
});

test('CTR_EL0: no cache maintenance needed, 64-byte lines; DCZID_EL0: 64 bytes', () => {
  const ctr = vm.sysreg(sysregIndex(3, 3, 0, 0, 1));
  expect([(ctr >> 29n) & 1n, (ctr >> 28n) & 1n, (ctr >> 16n) & 15n, ctr & 15n, ctr >> 31n]).toEqual([
    1n,
    1n,
    4n,
    4n,
    1n,
  ]);
  expect(vm.sysreg(sysregIndex(3, 3, 0, 0, 7))).toBe(4n);
});
