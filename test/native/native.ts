import { describe } from '@jest/globals';
import { probeHost } from '#lib/host/index.js';
import { type Handle, loadNative, type Native } from '#lib/host/native.js';

const host = probeHost();
/** Where it is set, a host without a usable KVM fails these tests instead of skipping them. */
const REQUIRED = process.env.REQUIRE_KVM === '1';

type Block = (name: string, body: () => void) => void;
const skipped =
  (reason: string): Block =>
  (name, body) =>
    describe.skip(`${name} (skipped: ${reason})`, body);

/** `describe`, on hosts whose KVM can be used. */
export const describeKvm: Block = host.available || REQUIRED ? describe : skipped(host.available ? '' : host.reason);
/** `describe`, where in addition the host's guests are x86: the tests bring guests in its machine code. */
export const describeX64: Block = process.arch === 'x64' ? describeKvm : skipped('needs an x64 host');

/** The addon. */
export function addon(): Native {
  const result = loadNative();
  if (result.native === undefined) throw new Error(result.reason);
  return result.native;
}

/** A call's result that must be a handle. */
export function handle<T extends Handle>(result: T | number): T {
  if (typeof result === 'number') throw new Error(`errno ${-result}`);
  return result;
}

/** A call's result that must be an ArrayBuffer. */
export function buffer(result: ArrayBuffer | number): ArrayBuffer {
  if (typeof result === 'number') throw new Error(`errno ${-result}`);
  return result;
}
