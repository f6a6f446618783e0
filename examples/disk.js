// Writes to a disk in one VM and reads it back in another: what a guest wrote is in the file when it has powered off.
//   node examples/disk.js
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execInGuest, fetchDefaultGuest, guestOptions, MicroVm } from 'elvisor';

const guest = await fetchDefaultGuest();
const dir = await mkdtemp(join(tmpdir(), 'elvisor-disk-'));
const path = join(dir, 'disk.img');

async function run(script, disk) {
  const vm = await MicroVm.create({ ...guestOptions(guest, { mode: 'exec' }), disks: [disk] });
  try {
    const { stdout, stderr } = process;
    const { status } = await execInGuest(vm, { argv: ['sh', '-ec', script], stdout, stderr });
    if (status !== 0) throw new Error(`the script ended with ${status}`);
  } finally {
    await vm.close();
  }
}

try {
  await writeFile(path, '');
  await truncate(path, 64 * 2 ** 20);
  await run('mke2fs /dev/vda >/dev/null; mkdir /mnt; mount -t ext4 /dev/vda /mnt; date > /mnt/when; umount /mnt', {
    path,
  });
  await run('mkdir /mnt; mount -t ext4 -o ro /dev/vda /mnt; echo "written at $(cat /mnt/when)"', {
    path,
    readOnly: true,
  });
} finally {
  await rm(dir, { recursive: true, force: true });
}
