import { VmError } from '../errors.js';

/** Inflates a gzip stream to at most `limit` bytes; a seam for hosts with a faster one than the platform's streams. */
export type Gunzip = (bytes: Uint8Array, limit: number) => Uint8Array | Promise<Uint8Array>;

/** Largest decompressed kernel, in bytes. */
export const MAX_DECOMPRESSED = 1024 * 1024 * 1024;

/** Whether `bytes` begin a gzip member (RFC 1952 §2.3.1). */
export function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b && bytes[2] === 8;
}

/** Magic numbers of a Zstandard frame (RFC 8878 §3.1.1), and of the first skippable one (§3.1.2). */
export const ZSTD_MAGIC = 0xfd2fb528;
export const SKIPPABLE_MAGIC = 0x184d2a50;

/** Whether `bytes` begin a Zstandard frame (RFC 8878 §3.1.1), or a skippable one (§3.1.2). */
export function isZstd(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false;
  const magic = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  return magic === ZSTD_MAGIC || magic >>> 4 === SKIPPABLE_MAGIC >>> 4;
}

/**
 * Inflates a gzip file by the platform's `DecompressionStream`.
 * @param what names the input in errors
 * @throws VmError `ERR_KERNEL_COMPRESSION` corrupt or truncated; `ERR_KERNEL_TOO_BIG` over `limit` bytes
 */
export async function gunzip(
  bytes: Uint8Array,
  limit: number = MAX_DECOMPRESSED,
  what = 'kernel',
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const stream = new DecompressionStream('gzip');
  const writer = stream.writable.getWriter();
  // A failure shows on the reading side; here it only must not go unhandled.
  const written = writer.write(bytes).then(() => writer.close());
  written.catch(() => {});
  const reader = stream.readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      if (size > limit) {
        await reader.cancel().catch(() => {});
        throw tooBig(what, limit);
      }
      chunks.push(value);
    }
  } catch (error) {
    if (VmError.is(error)) throw error;
    throw corrupt(what, 'gzip', error);
  }
  return concat(chunks, size);
}

export function concat(chunks: readonly Uint8Array[], size: number): Uint8Array {
  if (chunks.length === 1) return chunks[0]!;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

export function tooBig(what: string, limit: number): VmError {
  return new VmError('ERR_KERNEL_TOO_BIG', `${what}: it decompresses to more than the limit of ${limit} bytes`);
}

export function corrupt(what: string, format: string, cause: unknown): VmError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new VmError(
    'ERR_KERNEL_COMPRESSION',
    `${what}: the ${format} data are corrupt or truncated (${detail}); copy or download it again`,
    { cause },
  );
}
