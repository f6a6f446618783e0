/** Where in the guest a compiled region starts, as the name of its function says in V8's profiles (`node --cpu-prof`, the inspector, `perf`). */
export interface RegionName {
  /** Exception level that it was found hot at; `undefined`, as the address is, where the page had no translation any more. */
  readonly el: number | undefined;
  /** Virtual address. */
  readonly va: bigint | undefined;
  /** Guest-physical address. */
  readonly ipa: number | undefined;
}

const PATTERN = /^guest(?: EL([01]) 0x([0-9a-f]{16}))?(?: ipa 0x([0-9a-f]+))?$/;

const hex = (n: number, digits = 1): string => n.toString(16).padStart(digits, '0');

/**
 * @param virtual page of the region's code
 * @param ipa guest-physical address of the same page
 * @param index where in the page the region starts, in instructions
 */
export function regionName(
  virtual: { readonly el: number; readonly lo: number; readonly hi: number } | undefined,
  ipa: number | undefined,
  index: number,
): string {
  const at = virtual === undefined ? '' : ` EL${virtual.el} 0x${hex(virtual.hi, 8)}${hex(virtual.lo + index * 4, 8)}`;
  return `guest${at}${ipa === undefined ? '' : ` ipa 0x${hex(ipa + index * 4)}`}`;
}

/** Reads the name that a region of the guest has in a profile; `undefined` for the name of any other function. */
export function parseRegionName(name: string): RegionName | undefined {
  const match = PATTERN.exec(name);
  if (match === null) return undefined;
  const [, el, va, ipa] = match;
  return {
    el: el === undefined ? undefined : Number(el),
    va: va === undefined ? undefined : BigInt(`0x${va}`),
    ipa: ipa === undefined ? undefined : Number.parseInt(ipa, 16),
  };
}
