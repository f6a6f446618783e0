import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Assembler, Cond, LR, SP, SYSTEM_REGISTERS, type SystemRegister, XZR } from '#lib/guest/asm.js';
import { withPrograms } from '../oracle.ts';

/** What GNU as makes of a source. */
function gnu(source: string): Uint8Array {
  const dir = mkdtempSync(join(tmpdir(), 'elvisor-asm-'));
  try {
    writeFileSync(join(dir, 'a.s'), source);
    for (const [command, ...args] of [
      ['aarch64-linux-gnu-as', '-march=armv8-a', '-o', 'a.o', 'a.s'],
      ['aarch64-linux-gnu-objcopy', '-O', 'binary', 'a.o', 'a.bin'],
    ] as const) {
      const run = spawnSync(command, args, { cwd: dir, encoding: 'utf8' });
      if (run.error !== undefined) throw run.error;
      expect([run.stderr, run.status]).toEqual(['', 0]);
    }
    return new Uint8Array(readFileSync(join(dir, 'a.bin')));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const PAIRS: [string, (a: Assembler) => unknown][] = [
  ['back:', (a) => a.label('back')],
  ['movz x3, #0xffff, lsl #48', (a) => a.movz(3, 0xffff, 48)],
  ['movz x0, #1', (a) => a.movz(0, 1)],
  ['movk x30, #0x1234, lsl #16', (a) => a.movk(30, 0x1234, 16)],
  [
    'movz x1, #0xcdef\n movk x1, #0x89ab, lsl #16\n movk x1, #0x123, lsl #48',
    (a) => a.constant(1, 0x0123_0000_89ab_cdefn),
  ],
  [
    'movz x1, #0xffff\n movk x1, #0xffff, lsl #16\n movk x1, #0xffff, lsl #32\n movk x1, #0xffff, lsl #48',
    (a) => a.constant(1, -1),
  ],
  ['mov x1, x29', (a) => a.mov(1, 29)],
  ['mov x1, xzr', (a) => a.mov(1, XZR)],
  ['add x1, sp, #0xfff', (a) => a.addImm(1, SP, 0xfff)],
  ['mov sp, x9', (a) => a.addImm(SP, 9, 0)],
  ['sub sp, sp, #16', (a) => a.subImm(SP, SP, 16)],
  ['cmp x7, #0x3a', (a) => a.cmpImm(7, 0x3a)],
  ['cmn x7, #2', (a) => a.cmnImm(7, 2)],
  ['add x1, x2, x30', (a) => a.add(1, 2, 30)],
  ['udiv x1, x2, x3', (a) => a.udiv(1, 2, 3)],
  ['msub x1, x2, x3, x4', (a) => a.msub(1, 2, 3, 4)],
  ['orr x1, x2, x3, lsl #8', (a) => a.orr(1, 2, 3, 8)],
  ['lsr x1, x2, #63', (a) => a.lsr(1, 2, 63)],
  ['ubfx x1, x2, #3, #4', (a) => a.ubfx(1, 2, 3, 4)],
  ['ldr x1, [sp, #32760]', (a) => a.ldr(1, SP, 32760)],
  ['str xzr, [x2, #8]', (a) => a.str(XZR, 2, 8)],
  ['ldr w1, [x2, #16380]', (a) => a.ldrW(1, 2, 16380)],
  ['str w1, [x2]', (a) => a.strW(1, 2)],
  ['strb w1, [x2, #4095]', (a) => a.strb(1, 2, 4095)],
  ['ldrb w1, [x2], #-256', (a) => a.ldrbPost(1, 2, -256)],
  ['stp x1, x2, [sp, #-16]!', (a) => a.stpPre(1, 2, SP, -16)],
  ['ldp x30, xzr, [sp], #504', (a) => a.ldpPost(LR, XZR, SP, 504)],
  ['adr x5, back', (a) => a.adr(5, 'back')],
  ['adr x5, ahead + 0', (a) => a.adr(5, 'ahead')],
  ['b back', (a) => a.b('back')],
  ['bl ahead', (a) => a.bl('ahead')],
  ['b.lo back', (a) => a.bCond(Cond.LO, 'back')],
  ['b.le ahead', (a) => a.bCond(Cond.LE, 'ahead')],
  ['cbz x9, ahead', (a) => a.cbz(9, 'ahead')],
  ['cbnz x9, back', (a) => a.cbnz(9, 'back')],
  ['tbz x9, #63, back', (a) => a.tbz(9, 63, 'back')],
  ['tbnz x9, #5, ahead', (a) => a.tbnz(9, 5, 'ahead')],
  ['ret', (a) => a.ret()],
  ['eret', (a) => a.eret()],
  ['msr daifset, #2', (a) => a.daifSet(2)],
  ['msr daifclr, #15', (a) => a.daifClr(15)],
  ['hvc #0xffff', (a) => a.hvc(0xffff)],
  ['nop', (a) => a.nop()],
  ['wfe', (a) => a.wfe()],
  ['wfi', (a) => a.wfi()],
  ['sev', (a) => a.sev()],
  ['dsb sy', (a) => a.dsb()],
  ['isb', (a) => a.isb()],
  ...(Object.keys(SYSTEM_REGISTERS) as SystemRegister[])
    .filter((name) => name !== 'ICC_EOIR1_EL1')
    .map((name): [string, (a: Assembler) => unknown] => [`mrs x4, ${name}`, (a) => a.mrs(4, name)]),
  ['msr VBAR_EL1, x3', (a) => a.msr('VBAR_EL1', 3)],
  ['msr ICC_EOIR1_EL1, xzr', (a) => a.msr('ICC_EOIR1_EL1', XZR)],
  ['.asciz "text"', (a) => a.text('text')],
  ['.balign 8, 0', (a) => a.align(8)],
  ['ahead: .quad 0x123456789abcdef0', (a) => a.label('ahead').quad(0x1234_5678_9abc_def0n)],
  ['.word 0x80000001', (a) => a.word(0x8000_0001)],
];

describe('Assembler', () => {
  withPrograms('aarch64-linux-gnu-as')('every instruction is as GNU as has it', () => {
    const theirs = gnu(`${PAIRS.map(([text]) => text).join('\n')}\n`);
    const a = new Assembler();
    const starts = PAIRS.map(([, emit]) => {
      const start = a.offset;
      emit(a);
      return start;
    });
    const ours = a.assemble();
    const differing = PAIRS.filter((_, i) => {
      const [start, end] = [starts[i]!, starts[i + 1] ?? ours.length];
      return Buffer.compare(ours.subarray(start, end), theirs.subarray(start, end)) !== 0;
    }).map(([text]) => text);
    expect(differing).toEqual([]);
    expect(ours.length).toBe(theirs.length);
  });

  test.each<[string, (a: Assembler) => unknown, RegExp]>([
    ['a register above 31', (a) => a.mov(32, 0), /32 is no register/],
    ['an immediate of 17 bits', (a) => a.movz(0, 0x1_0000), /does not fit 16 bits/],
    ['an unaligned offset', (a) => a.ldr(0, 1, 4), /does not fit 12 bits/],
    ['a negative offset', (a) => a.strW(0, 1, -4), /does not fit 12 bits/],
    ['a pair too far', (a) => a.stpPre(0, 1, 2, 512), /does not fit 7 bits with a sign/],
    ['a label twice', (a) => a.label('x').label('x'), /there twice/],
    ['a label that is nowhere', (a) => a.b('x').assemble(), /is nowhere/],
    ['a label too far', (a) => a.label('x').zeros(32772).tbz(0, 0, 'x').assemble(), /does not fit 14 bits/],
    ['a branch to no instruction', (a) => a.b('x').zeros(2).label('x').assemble(), /does not fit/],
  ])('refuses %s', (_, emit, message) => {
    expect(() => emit(new Assembler())).toThrow(message);
  });
});
