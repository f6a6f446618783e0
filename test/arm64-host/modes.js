/**
 * The hosts that the lane boots, by name. `append` is the kernel's command line; what is not given is as in `vhe`.
 *
 * @typedef {object} Mode
 * @property {string} title for people
 * @property {string} [cpu] QEMU's -cpu. Never one with SVE: QEMU up to 10.0 keeps stale code where pages are written with SVE stores
 * @property {string} [board] QEMU's -M
 * @property {string} [append] words for the kernel's command line
 * @property {readonly string[]} groups of {@link GROUPS}: what is run there
 */

const BOARD = 'virt,gic-version=3,virtualization=on';
const CPU = 'neoverse-n1';

/** @type {Readonly<Record<string, Mode>>} */
export const MODES = {
  vhe: { title: 'the kernel at EL2', groups: ['contract', 'native', 'launcher'] },
  nvhe: { title: 'the kernel at EL1', append: 'kvm-arm.mode=nvhe', groups: ['contract', 'native', 'launcher'] },
};

/** What runs without being named. */
export const DEFAULT_MODES = ['vhe', 'nvhe'];

/** Test files of a group, below test/. A group is one process of the machine's. */
export const GROUPS = {
  contract: ['contract'],
  native: ['native', 'host', 'open.test.ts'],
  launcher: ['arm64-host/inside/launcher.ts'],
};

/** @param {Mode} mode @returns {{ board: string, cpu: string, append: string }} */
export function hardware(mode) {
  return { board: mode.board ?? BOARD, cpu: mode.cpu ?? CPU, append: mode.append ?? '' };
}
