// Boots the default guest, waits for its shell, runs a line in it, and shuts it down.
//   node examples/boot.js
import { fetchDefaultGuest, guestOptions, MicroVm } from 'elvisor';

const guest = await fetchDefaultGuest({ onProgress: ({ detail }) => console.error(detail) });
const vm = await MicroVm.create({ ...guestOptions(guest), memory: '512M' });
try {
  await vm.boot();
  await vm.console.waitFor('~ # ', { timeoutMs: 120_000 });
  vm.console.write('uname -sm\n');
  const [line] = await vm.console.waitFor(/^Linux \w+/m, { timeoutMs: 10_000 });
  const { reason } = await vm.kill();
  console.log(`the guest said: ${line} (${vm.backend} backend, then ${reason})`);
} finally {
  await vm.close();
}
