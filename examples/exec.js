// Runs one command in a fresh VM, with its streams and its exit status.
//   node examples/exec.js sh -c 'cat /proc/cpuinfo; exit 7'
import { execInGuest, fetchDefaultGuest, guestOptions, MicroVm } from 'elvisor';

const argv = process.argv.slice(2);
if (argv.length === 0) argv.push('uname', '-a');
const guest = await fetchDefaultGuest();
const vm = await MicroVm.create({ ...guestOptions(guest, { mode: 'exec' }), signal: AbortSignal.timeout(120_000) });
try {
  const { status, exit } = await execInGuest(vm, { argv, stdout: process.stdout, stderr: process.stderr });
  if (status === undefined) console.error(`no status: ${exit.message}`);
  process.exitCode = status ?? 1;
} finally {
  await vm.close();
}
