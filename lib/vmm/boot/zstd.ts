import { decompress } from 'fzstd';
import { concat, corrupt, MAX_DECOMPRESSED, SKIPPABLE_MAGIC, tooBig, ZSTD_MAGIC } from './compress.js';

/** Most that a block decompresses to (RFC 8878 §3.1.1.2.4). */
const ZSTD_BLOCK_MAX = 128 * 1024;
const MARK_SIZE = 16;

/**
 * Decompresses a Zstandard file: any number of frames, skippable ones too. Frame checksums are not checked.
 * @param what names the input in errors
 * @throws VmError `ERR_KERNEL_COMPRESSION` corrupt or truncated; `ERR_KERNEL_TOO_BIG` over `limit` bytes
 */
export function unzstd(bytes: Uint8Array, limit: number = MAX_DECOMPRESSED, what = 'kernel'): Uint8Array {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (let at = 0; at < bytes.length; ) {
    let frame: ZstdFrame;
    try {
      frame = scanFrame(bytes, at);
    } catch (error) {
      throw corrupt(what, 'zstd', error);
    }
    if (frame.blocksStart !== undefined) {
      const chunk = decodeFrame(bytes.subarray(at, frame.end), frame, limit - size, what, limit);
      size += chunk.length;
      chunks.push(chunk);
    }
    at = frame.end;
  }
  return concat(chunks, size);
}

interface ZstdFrame {
  /** Offset of what follows the frame. */
  end: number;
  /** Offset of the first block in the frame; `undefined` for a skippable frame. */
  blocksStart?: number;
  /** Offset in the frame of the last block's header, and where its data end. */
  lastHeader: number;
  blocksEnd: number;
  /** Frame_Content_Size, where the frame says it. */
  contentSize: number | undefined;
  /** No more than this comes out. */
  bound: number;
}

/** Walks a frame's block headers, so that its size and a bound of its output are known before a byte is decoded. */
function scanFrame(bytes: Uint8Array, start: number): ZstdFrame {
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, bytes.byteLength - start);
  const magic = view.getUint32(0, true);
  if (magic >>> 4 === SKIPPABLE_MAGIC >>> 4) {
    const end = start + 8 + view.getUint32(4, true);
    if (end > bytes.length) throw new RangeError('a skippable frame is truncated');
    return { end, lastHeader: 0, blocksEnd: 0, contentSize: 0, bound: 0 };
  }
  if (magic !== ZSTD_MAGIC) throw new RangeError(`what is at byte ${start} is no frame`);
  const descriptor = view.getUint8(4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  let at = 5 + (singleSegment ? 0 : 1) + dictionaryBytes;
  let contentSize: number | undefined;
  if (sizeFlag === 3) contentSize = Number(view.getBigUint64(at, true));
  else if (sizeFlag === 2) contentSize = view.getUint32(at, true);
  else if (sizeFlag === 1) contentSize = view.getUint16(at, true) + 256;
  else if (singleSegment) contentSize = view.getUint8(at);
  at += sizeFlag === 0 ? (singleSegment ? 1 : 0) : 1 << sizeFlag;
  const blocksStart = at;
  for (let bound = 0; ; ) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const [last, type, size] = [(header & 1) !== 0, (header >> 1) & 3, header >> 3];
    if (type === 3) throw new RangeError('a block is of the reserved type');
    if (size > ZSTD_BLOCK_MAX) throw new RangeError('a block is larger than 128 KiB');
    const lastHeader = at;
    at += 3 + (type === 1 ? 1 : size);
    bound += type === 2 ? ZSTD_BLOCK_MAX : size;
    if (start + at > bytes.length) throw new RangeError('the last block is truncated');
    if (last) {
      const end = start + at + ((descriptor & 4) !== 0 ? 4 : 0);
      if (end > bytes.length) throw new RangeError('the checksum is missing');
      return { end, blocksStart, lastHeader, blocksEnd: at, contentSize, bound };
    }
  }
}

/**
 * Decodes one frame in one pass into one buffer (fzstd's streaming form moves the whole window at every block: with the
 * 128 MiB window that kernels are compressed with, minutes). It does not tell how much came out where the frame does not
 * say so: a raw block with a random mark is put after the last block, and looked for.
 */
function decodeFrame(frame: Uint8Array, scan: ZstdFrame, room: number, what: string, limit: number): Uint8Array {
  const { contentSize, bound } = scan;
  if (contentSize !== undefined && contentSize > room) throw tooBig(what, limit);
  const capacity = Math.min(bound, room, contentSize ?? bound);
  const output = new Uint8Array(capacity + MARK_SIZE);
  const mark = crypto.getRandomValues(new Uint8Array(MARK_SIZE));
  const start = scan.blocksStart!;
  // The marked frame: no content size, no checksum, the smallest window: fzstd takes the buffer for the window.
  const marked = new Uint8Array(6 + (scan.blocksEnd - start) + 3 + MARK_SIZE);
  marked.set([0x28, 0xb5, 0x2f, 0xfd, 0, 0x70]);
  marked.set(frame.subarray(start, scan.blocksEnd), 6);
  marked[6 + scan.lastHeader - start]! &= 0xfe;
  marked.set([(MARK_SIZE << 3) | 1, 0, 0], marked.length - MARK_SIZE - 3);
  marked.set(mark, marked.length - MARK_SIZE);
  let size: number;
  try {
    decompress(marked, output);
    size = lastIndexOf(output, mark);
  } catch (error) {
    if (bound > room) throw tooBig(what, limit);
    throw corrupt(what, 'zstd', error);
  }
  if (size < 0 || (contentSize !== undefined && size !== contentSize)) {
    throw corrupt(what, 'zstd', new RangeError('a frame gives another size than it says'));
  }
  return output.subarray(0, size);
}

function lastIndexOf(bytes: Uint8Array, mark: Uint8Array): number {
  for (let at = bytes.length - mark.length; at >= 0; at--) {
    let i = 0;
    while (i < mark.length && bytes[at + i] === mark[i]) i++;
    if (i === mark.length) return at;
  }
  return -1;
}
