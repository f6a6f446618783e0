/** WebAssembly value types that the engine uses. */
export type WasmType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

/** A numeric or vector instruction: no control flow, no memory, no side effect. */
export interface WasmOp {
  readonly code: readonly number[];
  readonly params: readonly WasmType[];
  readonly result: WasmType;
  /** Bytes of lane immediate that follow the opcode: 0, 1 (a lane) or 16 (a shuffle). */
  readonly lanes: 0 | 1 | 16;
}

const ops = new Map<string, WasmOp>();

const leb = (n: number): number[] => (n < 0x80 ? [n] : [(n & 0x7f) | 0x80, ...leb(n >>> 7)]);

/** Gives consecutive opcodes from `first` to the names in `list`; `-` leaves one out. Signature as in `ii:i`. */
function define(
  prefix: string,
  first: number,
  signature: string,
  list: string,
  simd = false,
  lanes: 0 | 1 | 16 = 0,
): void {
  const letter: Record<string, WasmType> = { i: 'i32', l: 'i64', f: 'f32', d: 'f64', v: 'v128' };
  const [params = '', result = ''] = signature.split(':');
  let code = first;
  for (const name of list.split(' ')) {
    if (name !== '-') {
      ops.set(`${prefix}${name}`, {
        code: simd ? [0xfd, ...leb(code)] : [code],
        params: [...params].map((c) => letter[c] as WasmType),
        result: letter[result] as WasmType,
        lanes,
      });
    }
    code++;
  }
}

const INT_COMPARE = 'eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u';
const FLOAT_COMPARE = 'eq ne lt gt le ge';
const INT_BINARY = 'add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr';
const FLOAT_UNARY = 'abs neg ceil floor trunc nearest sqrt';
const FLOAT_BINARY = 'add sub mul div min max copysign';
define('i32.', 0x45, 'i:i', 'eqz');
define('i32.', 0x46, 'ii:i', INT_COMPARE);
define('i64.', 0x50, 'l:i', 'eqz');
define('i64.', 0x51, 'll:i', INT_COMPARE);
define('f32.', 0x5b, 'ff:i', FLOAT_COMPARE);
define('f64.', 0x61, 'dd:i', FLOAT_COMPARE);
define('i32.', 0x67, 'i:i', 'clz ctz popcnt');
define('i32.', 0x6a, 'ii:i', INT_BINARY);
define('i64.', 0x79, 'l:l', 'clz ctz popcnt');
define('i64.', 0x7c, 'll:l', INT_BINARY);
define('f32.', 0x8b, 'f:f', FLOAT_UNARY);
define('f32.', 0x92, 'ff:f', FLOAT_BINARY);
define('f64.', 0x99, 'd:d', FLOAT_UNARY);
define('f64.', 0xa0, 'dd:d', FLOAT_BINARY);
define('i32.', 0xa7, 'l:i', 'wrap_i64');
define('i64.', 0xac, 'i:l', 'extend_i32_s extend_i32_u');
define('f32.', 0xb2, 'i:f', 'convert_i32_s convert_i32_u');
define('f32.', 0xb4, 'l:f', 'convert_i64_s convert_i64_u');
define('f32.', 0xb6, 'd:f', 'demote_f64');
define('f64.', 0xb7, 'i:d', 'convert_i32_s convert_i32_u');
define('f64.', 0xb9, 'l:d', 'convert_i64_s convert_i64_u');
define('f64.', 0xbb, 'f:d', 'promote_f32');
define('i32.', 0xbc, 'f:i', 'reinterpret_f32');
define('i64.', 0xbd, 'd:l', 'reinterpret_f64');
define('f32.', 0xbe, 'i:f', 'reinterpret_i32');
define('f64.', 0xbf, 'l:d', 'reinterpret_i64');
define('i32.', 0xc0, 'i:i', 'extend8_s extend16_s');
define('i64.', 0xc2, 'l:l', 'extend8_s extend16_s extend32_s');
for (const [name, sub, params, result] of [
  ['i32.trunc_sat_f32_s', 0, 'f32', 'i32'],
  ['i32.trunc_sat_f32_u', 1, 'f32', 'i32'],
  ['i32.trunc_sat_f64_s', 2, 'f64', 'i32'],
  ['i32.trunc_sat_f64_u', 3, 'f64', 'i32'],
  ['i64.trunc_sat_f32_s', 4, 'f32', 'i64'],
  ['i64.trunc_sat_f32_u', 5, 'f32', 'i64'],
  ['i64.trunc_sat_f64_s', 6, 'f64', 'i64'],
  ['i64.trunc_sat_f64_u', 7, 'f64', 'i64'],
] as const) {
  ops.set(name, { code: [0xfc, sub], params: [params], result, lanes: 0 });
}

// Fixed-width SIMD, by opcode number after the 0xfd prefix.
define('i8x16.', 13, 'vv:v', 'shuffle', true, 16);
define('i8x16.', 14, 'vv:v', 'swizzle', true);
define('', 15, 'i:v', 'i8x16.splat i16x8.splat i32x4.splat', true);
define('', 18, 'l:v', 'i64x2.splat', true);
define('', 19, 'f:v', 'f32x4.splat', true);
define('', 20, 'd:v', 'f64x2.splat', true);
define('', 21, 'v:i', 'i8x16.extract_lane_s i8x16.extract_lane_u', true, 1);
define('', 23, 'vi:v', 'i8x16.replace_lane', true, 1);
define('', 24, 'v:i', 'i16x8.extract_lane_s i16x8.extract_lane_u', true, 1);
define('', 26, 'vi:v', 'i16x8.replace_lane', true, 1);
define('', 27, 'v:i', 'i32x4.extract_lane', true, 1);
define('', 28, 'vi:v', 'i32x4.replace_lane', true, 1);
define('', 29, 'v:l', 'i64x2.extract_lane', true, 1);
define('', 30, 'vl:v', 'i64x2.replace_lane', true, 1);
define('', 31, 'v:f', 'f32x4.extract_lane', true, 1);
define('', 32, 'vf:v', 'f32x4.replace_lane', true, 1);
define('', 33, 'v:d', 'f64x2.extract_lane', true, 1);
define('', 34, 'vd:v', 'f64x2.replace_lane', true, 1);
define('i8x16.', 35, 'vv:v', INT_COMPARE, true);
define('i16x8.', 45, 'vv:v', INT_COMPARE, true);
define('i32x4.', 55, 'vv:v', INT_COMPARE, true);
define('f32x4.', 65, 'vv:v', FLOAT_COMPARE, true);
define('f64x2.', 71, 'vv:v', FLOAT_COMPARE, true);
define('v128.', 77, 'v:v', 'not', true);
define('v128.', 78, 'vv:v', 'and andnot or xor', true);
define('v128.', 82, 'vvv:v', 'bitselect', true);
define('v128.', 83, 'v:i', 'any_true', true);
define('', 94, 'v:v', 'f32x4.demote_f64x2_zero f64x2.promote_low_f32x4', true);
define('i8x16.', 96, 'v:v', 'abs neg popcnt', true);
define('i8x16.', 99, 'v:i', 'all_true bitmask', true);
define('i8x16.', 101, 'vv:v', 'narrow_i16x8_s narrow_i16x8_u', true);
define('', 103, 'v:v', 'f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest', true);
define('i8x16.', 107, 'vi:v', 'shl shr_s shr_u', true);
define('i8x16.', 110, 'vv:v', 'add add_sat_s add_sat_u sub sub_sat_s sub_sat_u', true);
define('', 116, 'v:v', 'f64x2.ceil f64x2.floor', true);
define('i8x16.', 118, 'vv:v', 'min_s min_u max_s max_u', true);
define('', 122, 'v:v', 'f64x2.trunc', true);
define('i8x16.', 123, 'vv:v', 'avgr_u', true);
define(
  '',
  124,
  'v:v',
  'i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u',
  true,
);
define('i16x8.', 128, 'v:v', 'abs neg', true);
define('i16x8.', 130, 'vv:v', 'q15mulr_sat_s', true);
define('i16x8.', 131, 'v:i', 'all_true bitmask', true);
define('i16x8.', 133, 'vv:v', 'narrow_i32x4_s narrow_i32x4_u', true);
define('i16x8.', 135, 'v:v', 'extend_low_i8x16_s extend_high_i8x16_s extend_low_i8x16_u extend_high_i8x16_u', true);
define('i16x8.', 139, 'vi:v', 'shl shr_s shr_u', true);
define('i16x8.', 142, 'vv:v', 'add add_sat_s add_sat_u sub sub_sat_s sub_sat_u', true);
define('', 148, 'v:v', 'f64x2.nearest', true);
define(
  'i16x8.',
  149,
  'vv:v',
  'mul min_s min_u max_s max_u - avgr_u extmul_low_i8x16_s extmul_high_i8x16_s extmul_low_i8x16_u extmul_high_i8x16_u',
  true,
);
define('i32x4.', 160, 'v:v', 'abs neg', true);
define('i32x4.', 163, 'v:i', 'all_true bitmask', true);
define('i32x4.', 167, 'v:v', 'extend_low_i16x8_s extend_high_i16x8_s extend_low_i16x8_u extend_high_i16x8_u', true);
define('i32x4.', 171, 'vi:v', 'shl shr_s shr_u', true);
define('i32x4.', 174, 'vv:v', 'add', true);
define('i32x4.', 177, 'vv:v', 'sub', true);
define('i32x4.', 181, 'vv:v', 'mul min_s min_u max_s max_u dot_i16x8_s', true);
define('i32x4.', 188, 'vv:v', 'extmul_low_i16x8_s extmul_high_i16x8_s extmul_low_i16x8_u extmul_high_i16x8_u', true);
define('i64x2.', 192, 'v:v', 'abs neg', true);
define('i64x2.', 195, 'v:i', 'all_true bitmask', true);
define('i64x2.', 199, 'v:v', 'extend_low_i32x4_s extend_high_i32x4_s extend_low_i32x4_u extend_high_i32x4_u', true);
define('i64x2.', 203, 'vi:v', 'shl shr_s shr_u', true);
define('i64x2.', 206, 'vv:v', 'add', true);
define('i64x2.', 209, 'vv:v', 'sub', true);
define(
  'i64x2.',
  213,
  'vv:v',
  'mul eq ne lt_s gt_s le_s ge_s extmul_low_i32x4_s extmul_high_i32x4_s extmul_low_i32x4_u extmul_high_i32x4_u',
  true,
);
define('f32x4.', 224, 'v:v', 'abs neg', true);
define('f32x4.', 227, 'v:v', 'sqrt', true);
define('f32x4.', 228, 'vv:v', 'add sub mul div min max pmin pmax', true);
define('f64x2.', 236, 'v:v', 'abs neg', true);
define('f64x2.', 239, 'v:v', 'sqrt', true);
define('f64x2.', 240, 'vv:v', 'add sub mul div min max pmin pmax', true);
define(
  '',
  248,
  'v:v',
  'i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s f32x4.convert_i32x4_u',
  true,
);
define(
  '',
  252,
  'v:v',
  'i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u',
  true,
);

/** The instruction of that name. @throws Error where there is none: a mistake in the caller */
export function wasmOp(name: string): WasmOp {
  const op = ops.get(name);
  if (op === undefined) throw new Error(`no WebAssembly instruction is named ${name}`);
  return op;
}
