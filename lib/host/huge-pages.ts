import { readdirSync, readFileSync } from 'node:fs';

/** A folder for each size of huge pages that the host's kernel has (Linux, Documentation/admin-guide/mm/hugetlbpage.rst). */
const SYSFS = '/sys/kernel/mm/hugepages';

/** Huge pages of one size. */
export interface HugePages {
  /** Bytes of each. */
  readonly size: number;
  /** How many are set aside, and how many of these nothing uses. */
  readonly total: number;
  readonly free: number;
  /** The file that says how many shall be set aside. */
  readonly file: string;
}

/** The huge pages of this host, the smallest first; none where the kernel was built without them or `/sys` is not there. */
export function hugePages(sysfs = SYSFS): HugePages[] {
  let names: string[];
  try {
    names = readdirSync(sysfs);
  } catch {
    return [];
  }
  const count = (name: string, file: string): number => Number(readFileSync(`${sysfs}/${name}/${file}`, 'latin1'));
  return names
    .flatMap((name) => {
      const kib = /^hugepages-([1-9]\d*)kB$/.exec(name)?.[1];
      if (kib === undefined) return [];
      const [total, free] = [count(name, 'nr_hugepages'), count(name, 'free_hugepages')];
      return [{ size: Number(kib) * 1024, total, free, file: `${sysfs}/${name}/nr_hugepages` }];
    })
    .sort((a, b) => a.size - b.size);
}

/**
 * Why there is no memory of `size` bytes in huge pages, for one who can change it.
 * @param all {@link hugePages}
 */
export function whyNoHugePages(size: number, hugePageSize: number, all: readonly HugePages[]): string {
  const pages = all.find((pages) => pages.size === hugePageSize);
  if (pages === undefined) {
    const others = all.length === 0 ? 'none' : all.map((pages) => sizeName(pages.size)).join(', ');
    return `this host has no huge pages of ${sizeName(hugePageSize)}; it has ${others}`;
  }
  const needed = size / hugePageSize;
  const more = pages.total - pages.free + needed;
  return `it takes ${needed} huge pages of ${sizeName(hugePageSize)}, and ${pages.free} of ${pages.total} are free; to set them aside, as root: echo ${more} > ${pages.file}`;
}

/** `'2M'`, as sizes are written in options. */
export function sizeName(bytes: number): string {
  const units = ['K', 'M', 'G'] as const;
  let [value, unit] = [bytes / 1024, 0];
  while (value >= 1024 && value % 1024 === 0 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${value}${units[unit]}`;
}
