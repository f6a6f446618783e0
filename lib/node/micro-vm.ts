import { MicroVmBase, prepare } from '../vmm/micro-vm.js';
import type { MicroVmOptions } from '../vmm/options.js';
import { ConsoleDuplex } from './console-duplex.js';
import { nodePlatform } from './platform.js';

/**
 * A microVM on Node: its console and ports are `Duplex` streams, its images and disks are files. State changes and exits
 * are published on the diagnostics channels `elvisor:vm:state` and `elvisor:vm:exit`.
 *
 * @example
 * const vm = await MicroVm.create({ kernel: 'Image', initrd: 'initrd.img', cmdline: 'console=ttyAMA0' });
 * try {
 *   vm.console.pipe(process.stdout);
 *   await vm.boot();
 *   await vm.console.waitFor('login: ', { timeoutMs: 60_000 });
 *   console.log((await vm.stop()).reason);
 * } finally {
 *   await vm.close();
 * }
 */
export class MicroVm extends MicroVmBase<ConsoleDuplex> {
  /**
   * Checks the options, opens the KVM and the disks, and loads the kernel: a VM that needs only `boot()`.
   * @throws VmError of what is wrong: ERR_INVALID_OPTION, ERR_FILE, ERR_KERNEL_*, ERR_INITRD_*, ERR_DISK_*,
   * ERR_MEMORY_UNAVAILABLE, ERR_BACKEND_UNAVAILABLE, ERR_ABORTED. Nothing stays open.
   */
  static async create(options: MicroVmOptions): Promise<MicroVm> {
    return new MicroVm(await prepare(options, nodePlatform), (core) => new ConsoleDuplex(core));
  }
}
