import { type DefaultGuest, fetchDefaultGuest, guestPath, listGuests } from '../guest/index.js';
import { createProgress, type Progress } from './progress.js';

/** The default guest, from the cache or fetched, with what happens on `progress`. A signal leaves nothing half-made. */
export async function fetchGuest(progress: Progress, refresh = false): Promise<DefaultGuest> {
  const abort = new AbortController();
  const onSignal = (): void => abort.abort(new Error('interrupted'));
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    return await fetchDefaultGuest({
      refresh,
      signal: abort.signal,
      onProgress: ({ stage, fraction, detail }) => progress.update(`${stage}: ${detail}`, fraction, 1),
    });
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

/** `elvisor guest fetch|list|path`. @returns the exit status */
export async function guest(action: 'fetch' | 'list' | 'path', quiet: boolean): Promise<number> {
  if (action === 'fetch') {
    const progress = createProgress(process.stderr, quiet);
    const found = await fetchGuest(progress, true).finally(() => progress.end());
    process.stdout.write(`${found.description}\n`);
    return 0;
  }
  if (action === 'list') {
    for (const { key, description } of await listGuests()) process.stdout.write(`${key}\t${description}\n`);
    return 0;
  }
  const path = await guestPath();
  if (path === undefined) {
    process.stderr.write('elvisor: there is no default guest in the cache; fetch it with: elvisor guest fetch\n');
    return 3;
  }
  process.stdout.write(`${path}\n`);
  return 0;
}
