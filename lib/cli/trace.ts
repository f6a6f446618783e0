import { readFileSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { RAM_BASE } from '../vmm/board.js';
import { elfSymbols, imageAddress, isElf, kallsyms, loadKernel, type SymbolTable } from '../vmm/boot/index.js';
import type { MicroVmOptions } from '../vmm/options.js';
import { type CpuProfile, formatProfile, ProfileTally } from './profile.js';

/** Microseconds between two samples. */
const INTERVAL = 250;
/** Samples are added up so often, so that a guest may run for days. */
const HARVEST_MS = 30_000;

/** The options of a VM that say what kernel it boots. */
export type BootedKernel = Pick<MicroVmOptions, 'kernel' | 'kernelFormat'>;

/** A profile that is being taken. */
export interface ProfileTrace {
  /** Ends it and writes the report. @param booted what the guest booted, for its symbols */
  end(booted: BootedKernel): Promise<void>;
}

/**
 * Samples what this thread does, by V8's own profiler, in which the guest's compiled regions are functions like others.
 * @param to the file that the report goes to; stderr if not given
 */
export async function startProfile(to: string | undefined): Promise<ProfileTrace> {
  // What can't be written should not be found out when the guest has run.
  if (to !== undefined) writeFileSync(to, '');
  const session = new Session();
  session.connect();
  const post = (method: string, params: object = {}): Promise<object> =>
    new Promise((resolve, reject) => {
      session.post(method, params, (error, result) => (error === null ? resolve(result ?? {}) : reject(error)));
    });
  const tally = new ProfileTally();
  const cpuBefore = otherThreads();
  await post('Profiler.enable');
  await post('Profiler.setSamplingInterval', { interval: INTERVAL });
  await post('Profiler.start');
  const harvest = async (): Promise<void> => {
    tally.add(((await post('Profiler.stop')) as { readonly profile: CpuProfile }).profile);
  };
  let harvesting = Promise.resolve();
  const timer = setInterval(() => {
    harvesting = harvest().then(async () => void (await post('Profiler.start')));
  }, HARVEST_MS);
  timer.unref();
  return {
    async end(booted) {
      clearInterval(timer);
      await harvesting;
      await harvest();
      session.disconnect();
      const cpuAfter = otherThreads();
      const report = formatProfile(tally, {
        title: `elvisor profile: node ${process.version}, a sample every ${INTERVAL} us`,
        symbols: await symbolsOf(booted),
        otherThreads: cpuBefore === undefined || cpuAfter === undefined ? undefined : cpuAfter - cpuBefore,
      });
      if (to === undefined) process.stderr.write(report);
      else writeFileSync(to, report);
    },
  };
}

/** CPU time of all threads but this one, in microseconds; Node tells it from 23.9 on. */
function otherThreads(): number | undefined {
  const usage = (process as { threadCpuUsage?: () => NodeJS.CpuUsage }).threadCpuUsage?.();
  if (usage === undefined) return undefined;
  const all = process.cpuUsage();
  return all.user + all.system - usage.user - usage.system;
}

/** A kernel's symbols, where it has any. */
async function symbolsOf({ kernel, kernelFormat: format = 'auto' }: BootedKernel): Promise<SymbolTable | undefined> {
  const file = kernel instanceof Uint8Array ? kernel : readFileSync(kernel);
  const loaded = await loadKernel(file, { format });
  if (loaded.kind === 'image') return kallsyms(loaded.bytes, imageAddress(loaded, RAM_BASE));
  return loaded.kind === 'elf' && isElf(file) ? elfSymbols(file) : undefined;
}
