import { type CompileReply, type CompileRequest, type CompilerThread, CompileServer } from '#lib/soft/index.js';

/** A compiler thread that is none: it compiles some looks after it was asked, and answers some looks later still, always the same. */
export class LateCompiler implements CompilerThread {
  failed = false;
  closed = false;
  /** What it was asked for so far. */
  requested = 0;
  readonly #looks: number;
  readonly #requests: { readonly request: CompileRequest; looks: number }[] = [];
  readonly #replies: { readonly reply: CompileReply; looks: number }[] = [];
  readonly #server = new CompileServer((reply) => {
    this.#replies.push({ reply, looks: this.#looks });
  });

  /** @param looks how many {@link receive}s without an answer come before each of the two steps */
  constructor(looks: number) {
    this.#looks = looks;
  }

  post(request: CompileRequest): void {
    if ('regions' in request) this.requested += request.regions.length;
    this.#requests.push({ request, looks: 'memory' in request ? 0 : this.#looks });
  }

  /** Compiles what it was asked for. */
  compile(): void {
    for (const { request } of this.#requests.splice(0)) this.#server.handle(request);
  }

  /** Answers at the next look. */
  answer(): void {
    for (const reply of this.#replies) reply.looks = 0;
  }

  receive(): CompileReply | undefined {
    for (let first = this.#requests[0]; first !== undefined && first.looks-- <= 0; first = this.#requests[0]) {
      this.#requests.shift();
      this.#server.handle(first.request);
    }
    const reply = this.#replies[0];
    if (reply === undefined || reply.looks-- > 0) return undefined;
    return this.#replies.shift()!.reply;
  }

  close(): void {
    this.closed = true;
  }
}
