import { readdirSync, readFileSync } from 'node:fs';
import type { HostFacts } from '#lib/host/info/facts.js';

const DATA = new URL('../data/', import.meta.url);

/**
 * What real kernels said, in an emulated machine each: Debian's, at the exception level that the machine's `virtualization`
 * gives. Of the capabilities those are kept that conclusions use, and of the kernel's log the lines about exception levels.
 */
export const RECORDED: readonly string[] = readdirSync(DATA).map((file) => file.replace(/\.json$/, ''));

/** The facts of a recorded host. */
export function recorded(name: string): HostFacts {
  return (JSON.parse(readFileSync(new URL(`${name}.json`, DATA), 'utf8')) as { facts: HostFacts }).facts;
}

/** The same host, to a user who may read no kernel log. */
export function withoutLog(facts: HostFacts): HostFacts {
  return { ...facts, log: undefined, logErrors: { '/dev/kmsg': 'EPERM', 'journalctl -k -b': 'status 1' } };
}

/** The same host, to a user who may not open `/dev/kvm` either. */
export function toNobody(facts: HostFacts): HostFacts {
  return {
    ...withoutLog(facts),
    open: 'kvm' in facts.open ? { error: 'EACCES', message: 'open: EACCES' } : facts.open,
  };
}
