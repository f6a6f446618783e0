import {
  type CompileReply,
  type CompileRequest,
  type CompilerThread,
  CompileServer,
  KeptArchive,
  type KeptReply,
} from '#lib/soft/index.js';
import { Wasm } from '#lib/soft/jit/webassembly.js';

/** What a thread replies that kept the archive. */
export function replyOf(archive: KeptArchive): KeptReply {
  const { bytes, imports, shapes } = archive.link();
  return { module: new Wasm.Module(bytes), imports, shapes, used: new Uint8Array(archive.size) };
}

/** A compiler thread that is none: it compiles some looks after it was asked, and answers some looks later still, always the same. */
export class LateCompiler implements CompilerThread {
  failed = false;
  closed = false;
  /** What it was asked for so far. */
  requested = 0;
  readonly #looks: number;
  readonly #requests: { readonly request: CompileRequest; looks: number }[] = [];
  readonly #replies: { readonly reply: CompileReply | KeptReply; looks: number }[] = [];
  readonly #server: CompileServer;
  /** What was compiled since the last reply, where it is replied as what earlier runs have kept. */
  #kept = new KeptArchive();

  /**
   * @param looks how many {@link receive}s without an answer come before each of the two steps
   * @param keeps replies as if all had been compiled in earlier runs
   */
  constructor(looks: number, keeps = false) {
    this.#looks = looks;
    this.#server = keeps
      ? new CompileServer(() => {}, { keep: (region) => this.#kept.add(region, 0) })
      : new CompileServer((reply) => this.#reply(reply));
  }

  #reply(reply: CompileReply | KeptReply): void {
    this.#replies.push({ reply, looks: this.#looks });
  }

  #handle(request: CompileRequest): void {
    this.#server.handle(request);
    if (this.#kept.size === 0) return;
    this.#reply(replyOf(this.#kept));
    this.#kept = new KeptArchive();
  }

  post(request: CompileRequest): void {
    if ('regions' in request) this.requested += request.regions.length;
    this.#requests.push({ request, looks: 'memory' in request ? 0 : this.#looks });
  }

  /** Compiles what it was asked for. */
  compile(): void {
    for (const { request } of this.#requests.splice(0)) this.#handle(request);
  }

  /** Answers at the next look. */
  answer(): void {
    for (const reply of this.#replies) reply.looks = 0;
  }

  receive(): CompileReply | KeptReply | undefined {
    for (let first = this.#requests[0]; first !== undefined && first.looks-- <= 0; first = this.#requests[0]) {
      this.#requests.shift();
      this.#handle(first.request);
    }
    const reply = this.#replies[0];
    if (reply === undefined || reply.looks-- > 0) return undefined;
    return this.#replies.shift()!.reply;
  }

  close(): void {
    this.closed = true;
  }
}
