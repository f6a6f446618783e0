import {
  type CompileRequest,
  type CompilerReply,
  type CompilerThread,
  CompileServer,
  KeptArchive,
  type KeptModule,
  type KeptModuleReply,
  type KeptPart,
} from '#lib/soft/index.js';
import { Wasm } from '#lib/soft/jit/webassembly.js';

/** Parts of regions of earlier runs. */
export class KeptParts {
  readonly #modules: KeptModule[] = [];

  /** Makes an archive a part. */
  add(archive: KeptArchive): KeptPart {
    const module = archive.link();
    return { id: this.#modules.push(module) - 1, shapes: module.shapes };
  }

  /** What a thread replies that is asked for a part. */
  reply(part: number): KeptModuleReply {
    const { bytes, imports } = this.#modules[part]!;
    return { part, found: { module: new Wasm.Module(bytes), imports } };
  }
}

/** A compiler thread that is none: it compiles some looks after it was asked, and answers some looks later still, always the same. */
export class LateCompiler implements CompilerThread {
  failed = false;
  closed = false;
  /** What it was asked for so far. */
  requested = 0;
  readonly #looks: number;
  readonly #requests: { readonly request: CompileRequest; looks: number }[] = [];
  readonly #replies: { readonly reply: CompilerReply; looks: number }[] = [];
  readonly #server: CompileServer;
  /** What was compiled since the last reply, where it is replied as what earlier runs have kept. */
  #kept = new KeptArchive();
  readonly #parts = new KeptParts();

  /**
   * @param looks how many {@link receive}s without an answer come before each of the two steps
   * @param keeps replies as if all had been compiled in earlier runs
   */
  constructor(looks: number, keeps = false) {
    this.#looks = looks;
    this.#server = keeps
      ? new CompileServer(({ done }) => this.#reply({ done, compiled: undefined }), {
          keep: (region) => this.#kept.add(region),
        })
      : new CompileServer((reply) => this.#reply(reply));
  }

  #reply(reply: CompilerReply, looks = this.#looks): void {
    this.#replies.push({ reply, looks });
  }

  #handle(request: CompileRequest): void {
    this.#server.handle(request);
    if ('part' in request) this.#reply(this.#parts.reply(request.part), 0);
    if (this.#kept.size === 0) return;
    this.#reply({ parts: [this.#parts.add(this.#kept)] });
    this.#kept = new KeptArchive();
  }

  post(request: CompileRequest): void {
    if ('regions' in request) this.requested += request.regions.length;
    this.#requests.push({ request, looks: 'regions' in request ? this.#looks : 0 });
  }

  /** Compiles what it was asked for. */
  compile(): void {
    for (const { request } of this.#requests.splice(0)) this.#handle(request);
  }

  /** Answers at the next look. */
  answer(): void {
    for (const reply of this.#replies) reply.looks = 0;
  }

  receive(): CompilerReply | undefined {
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
