import { readInput } from '../node/platform.js';
import { RAM_BASE } from '../vmm/board.js';
import { DTB_MAX_SIZE, loadKernel, placeBoot } from '../vmm/boot/index.js';
import { machineDtb } from '../vmm/machine.js';
import { resolveOptions } from '../vmm/options.js';
import { virtioSlotsOf } from '../vmm/virtio-wiring.js';
import { type RunArgs, UsageError } from './args.js';
import { vmOptions } from './run.js';

/**
 * `elvisor dtb`: writes the device tree that `elvisor run` with the same options would give the guest. Without `--kernel`
 * there is no initrd in it, because it is not known where that would be.
 * @returns the exit status
 */
export async function dtb(args: RunArgs): Promise<number> {
  if (process.stdout.isTTY)
    throw new UsageError('dtb: a device tree is no text; write it to a file: elvisor dtb > out.dtb');
  const options = resolveOptions({
    ...vmOptions(args),
    // Only its size matters, and only where there is an initrd.
    kernel: args.kernel ?? new Uint8Array(0),
    ...(args.append === undefined ? {} : { cmdline: args.append }),
  });
  const own = args.dtb === undefined ? undefined : await readInput(args.dtb, 'dtb');
  let initrd: { readonly start: number; readonly end: number } | undefined;
  if (args.kernel !== undefined && args.initrd !== undefined) {
    const kernel = await loadKernel(await readInput(args.kernel, 'kernel'), {
      limit: options.memory,
      format: options.kernelFormat,
    });
    const { length } = await readInput(args.initrd, 'initrd');
    const ram = { base: RAM_BASE, size: options.memory };
    initrd = placeBoot({ ram, kernel, initrdSize: length, dtbSize: DTB_MAX_SIZE }).initrd;
  }
  process.stdout.write(machineDtb(options, own, virtioSlotsOf(options), initrd));
  return 0;
}
