import type { Helper } from './emitter.js';

/** What helpers in TypeScript see of the machine: the whole linear memory, with the running vCPU's state at STATE in it. The arrays are replaced when the memory grows: read them from here each time. */
export interface HelperEnv {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly u64: BigUint64Array;
  readonly i64: BigInt64Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
}

/** The functions behind {@link Helper} declarations, by name. i32 arguments are numbers, i64 bigints. */
export type HelperTable = Readonly<Record<string, (...args: never[]) => number | bigint | undefined>>;

/** Declares a helper; `signature` as in `'il:l'`, nothing after the colon where it returns nothing. */
export function helper(name: string, signature: string): Helper {
  const letter = { i: 'i32', l: 'i64', f: 'f32', d: 'f64', v: 'v128' } as const;
  const [params = '', result = ''] = signature.split(':');
  const types = [...params].map((c) => letter[c as keyof typeof letter]);
  return result === ''
    ? { name, params: types }
    : { name, params: types, result: letter[result as keyof typeof letter] };
}
