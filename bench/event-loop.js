// How long the event loop waits while a guest boots and computes: `node bench/event-loop.js`. The delay is the time between
// when a timer was due and when it ran (perf_hooks.monitorEventLoopDelay), sampled every millisecond.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fetchDefaultGuest, guestOptions, MicroVm } from 'elvisor';

const guest = await fetchDefaultGuest();
const vm = await MicroVm.create(guestOptions(guest, { quiet: true }));
const ms = (ns) => `${(ns / 1e6).toFixed(1)} ms`;

async function measure(what, work) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await work();
  delay.disable();
  console.log(`${what}: p50 ${ms(delay.percentile(50))}, p99 ${ms(delay.percentile(99))}, max ${ms(delay.max)}`);
}

try {
  await measure('boot', async () => {
    await vm.boot();
    await vm.console.waitFor('~ # ', { timeoutMs: 120_000 });
  });
  await measure('sha256sum of 32 MiB', async () => {
    vm.console.write("head -c 33554432 /dev/zero | sha256sum; echo do''ne\n");
    await vm.console.waitFor(/done\r?\n/, { timeoutMs: 120_000 });
  });
  await measure('a shell loop', async () => {
    vm.console.write("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo do''ne\n");
    await vm.console.waitFor(/done\r?\n/, { timeoutMs: 120_000 });
  });
} finally {
  await vm.close();
}
