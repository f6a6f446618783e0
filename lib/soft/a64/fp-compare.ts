import type { Emitter, VOperand } from './emitter.js';
import {
  allocatedType,
  bitsOf,
  bytesOf,
  call,
  constant,
  type FpBytes,
  formatIndex,
  getBits,
  getFloat,
  hostType,
  unflushed,
} from './fp-emit.js';
import { fpCompare32, fpCompare64 } from './fp-helpers.js';
import { type Row, row } from './row.js';

/** Floating-point compare, conditional compare and conditional select (Arm ARM DDI 0487 C4.1.96). */

/** Sets NZCV by comparing Vn with Vm, or with zero. */
function compare(e: Emitter, bytes: FpBytes, Vn: VOperand, Vm: VOperand | undefined, signalling: boolean): void {
  const op = e.i32(formatIndex(bytes) | (signalling ? 4 : 0));
  if (bytes === 2) {
    const b = Vm === undefined ? e.i32(0) : getBits(e, Vm, 2);
    e.setNzcv(call(e, fpCompare32, op, getBits(e, Vn, 2), b));
    return;
  }
  const t = hostType(bytes);
  const a = getFloat(e, Vn, bytes);
  const b = Vm === undefined ? constant(e, bytes, 0) : getFloat(e, Vm, bytes);
  const less = e.op(`${t}.lt`, a, b);
  const notLess = e.op(`${t}.ge`, a, b);
  e.if(
    // Ordered, and no denormal that counts as zero.
    e.and(e.or(less, notLess), unflushed(e)),
    () => e.setFlags(e.sub(e.i64(0n), e.extU(less)), e.extU(e.op(`${t}.ne`, a, b)), notLess, e.i64(0n)),
    () => e.setNzcv(call(e, bytes === 8 ? fpCompare64 : fpCompare32, op, bitsOf(e, a), bitsOf(e, b))),
  );
}

/** FCCMP, FCCMPE: compares if the condition holds; otherwise NZCV is the immediate. */
const conditionalCompare = (name: string, signalling: boolean): Row =>
  row(
    name,
    `00011110 type:2 1 Vm cond:4 01 Vn ${signalling ? 1 : 0} nzcv:4#` as '00011110 type:2 1 Vm cond:4 01 Vn x nzcv:4#',
    { when: allocatedType },
    (e, f) => {
      e.if(
        e.condition(f.cond),
        () => compare(e, bytesOf(f.type), f.Vn, f.Vm, signalling),
        () => e.setNzcv(e.shl(f.nzcv, e.i32(28))),
      );
    },
  );

export const fpCompare: readonly Row[] = [
  row('FCMP', '00011110 type:2 1 Vm 00 1000 Vn 0 0 000', { when: allocatedType }, (e, f) => {
    compare(e, bytesOf(f.type), f.Vn, f.Vm, false);
  }),
  row('FCMPE', '00011110 type:2 1 Vm 00 1000 Vn 1 0 000', { when: allocatedType }, (e, f) => {
    compare(e, bytesOf(f.type), f.Vn, f.Vm, true);
  }),
  row('FCMP (zero)', '00011110 type:2 1 xxxxx 00 1000 Vn 0 1 000', { when: allocatedType }, (e, f) => {
    compare(e, bytesOf(f.type), f.Vn, undefined, false);
  }),
  row('FCMPE (zero)', '00011110 type:2 1 xxxxx 00 1000 Vn 1 1 000', { when: allocatedType }, (e, f) => {
    compare(e, bytesOf(f.type), f.Vn, undefined, true);
  }),
  conditionalCompare('FCCMP', false),
  conditionalCompare('FCCMPE', true),
  row('FCSEL', '00011110 type:2 1 Vm cond:4 11 Vn Vd', { when: allocatedType }, (e, f) => {
    const bytes = bytesOf(f.type);
    e.setScalar(f.Vd, bytes, e.select(e.condition(f.cond), getBits(e, f.Vn, bytes), getBits(e, f.Vm, bytes)));
  }),
];
