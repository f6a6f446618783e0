// The suite's two machines: each a process, booted to the agent that runs rows.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { qemuArgs } from '../common.js';
import { TO_AGENT } from './image.js';
import { MarkReader } from './marks.js';

const MEMORY_MIB = 512;
const APPEND = 'console=ttyAMA0 loglevel=1 panic=-1 elvisor.console=ttyAMA0 iomem=relaxed';
const ELVISOR = fileURLToPath(new URL('elvisor.js', import.meta.url));
const BOOT_MS = 180_000;
const ROW_MS = 300_000;
const CLOSE_MS = 10_000;

/**
 * Command lines. `hvc` and `port` are the files that the virtio console and its named port write to, `codeCache` is where elvisor
 * keeps compiled code.
 */
const COMMANDS = {
  elvisor({ guest, disks, cpus, hvc, port, node, nodeOptions, codeCache }) {
    const options = {
      kernel: guest.kernel,
      initrd: guest.initrd,
      cmdline: APPEND,
      memory: `${MEMORY_MIB}M`,
      cpus,
      disks: [disks.root, disks.data].map((path) => ({ path, readOnly: true })),
      files: { hvc, port },
      codeCache,
    };
    return [node, [...nodeOptions, ELVISOR, JSON.stringify(options)]];
  },
  qemu({ guest, disks, cpus, hvc, port, qemu }) {
    const disk = (id, file, slot) => [
      ...['-drive', `if=none,id=${id},file=${file},format=raw,readonly=on`],
      ...['-device', `virtio-blk-device,drive=${id},bus=virtio-mmio-bus.${slot}`],
    ];
    const args = qemuArgs({ ...guest, append: APPEND, memory: String(MEMORY_MIB), cpus });
    const modern = ['-global', 'virtio-mmio.force-legacy=false'];
    const console = ['-device', 'virtio-serial-device,bus=virtio-mmio-bus.2', '-chardev', `file,id=hvc,path=${hvc}`];
    const hvc0 = ['-device', 'virtconsole,chardev=hvc'];
    const named = ['-chardev', `file,id=port,path=${port}`, '-device', 'virtserialport,chardev=port,name=bench'];
    return [
      qemu,
      [
        ...args,
        ...modern,
        ...disk('root', disks.root, 0),
        ...disk('data', disks.data, 1),
        ...console,
        ...hvc0,
        ...named,
      ],
    ];
  },
};

/** A machine that has booted. It idles between rows. */
export class Machine {
  #child;
  #name;
  #dir = mkdtempSync(join(tmpdir(), 'elvisor-suite-'));
  #errors = '';
  #onData;
  #onEnd;

  /** @param name `elvisor` or `qemu` */
  static async boot(name, parts) {
    const machine = new Machine(name, parts);
    try {
      await machine.#until(BOOT_MS, 'its shell', '~ # ');
      machine.#child.stdin.write(`${TO_AGENT}\n`);
      await machine.#until(BOOT_MS, 'the agent', '@ready\n');
      return machine;
    } catch (error) {
      await machine.close();
      throw error;
    }
  }

  constructor(name, parts) {
    this.#name = name;
    const own = (file) => join(this.#dir, file);
    const files = { hvc: own('hvc0'), port: own('port'), codeCache: parts.codeCache ?? own('code') };
    const [command, args] = COMMANDS[name]({ ...parts, ...files });
    const stdio = ['pipe', 'pipe', 'pipe', ...(name === 'elvisor' ? ['ipc'] : [])];
    this.#child = spawn(command, args, { stdio });
    this.#child.stdout.on('data', (chunk) => this.#onData?.(chunk));
    this.#child.stderr.on('data', (chunk) => {
      this.#errors = (this.#errors + chunk).slice(-4000);
    });
    this.#child.stdin.on('error', () => {});
    const ended = (how) => this.#onEnd?.(new Error(`${name} ${how}\n${this.#errors}`));
    this.#child.on('error', (error) => ended(error.message));
    this.#child.on('close', (status, signal) => ended(`ended with ${status ?? signal}`));
  }

  /**
   * Runs a row and checks what came out.
   * @param expected what it must print
   * @returns milliseconds between the marks, and of the process's CPU time in the meantime (a little before and after it)
   */
  async run(row, expected, text) {
    const reader = new MarkReader(row.name);
    this.#child.stdin.write(`${row.name}\n`);
    const before = this.#cpuMs();
    const result = await this.#wait(ROW_MS, `the end of ${row.name}`, (chunk) => reader.push(chunk, performance.now()));
    const cpuMs = this.#cpuMs() - before;
    const wrong = (what) => new Error(`cpu ${cpuMs} ${this.#name}: ${row.name}: ${what}`);
    if (result.status !== 0) throw wrong(`it ended with ${result.status}: ${result.output}`);
    if (result.output !== expected)
      throw wrong(`it printed ${JSON.stringify(result.output)}, not ${JSON.stringify(expected)}`);
    if (row.console !== undefined) {
      const { name, bytes } = row.console;
      const written = name === 'serial' ? result.written : await this.#fileBytes(name, bytes);
      if (!written.equals(text(bytes)))
        throw wrong(`the console gave ${written.length} bytes, not the ${bytes} that went in`);
    }
    return { ms: result.ms, cpuMs };
  }

  /** Of elvisor, `instructions` so far or, at the end, its `figures`: see elvisor.js. */
  ask(what) {
    return new Promise((resolve, reject) => {
      this.#onEnd = reject;
      this.#child.once('message', (answer) => {
        this.#onEnd = undefined;
        resolve(answer);
      });
      this.#child.send(what);
    });
  }

  /** elvisor is let go of, so that Node writes the profile that it was asked for; who does not end is killed. */
  async close() {
    this.#onEnd = undefined;
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      // Not 'close', which does not come where the channel was let go of first.
      const exited = new Promise((resolve) => this.#child.once('exit', resolve));
      if (this.#child.connected) this.#child.disconnect();
      else this.#child.kill('SIGKILL');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_MS);
      await exited;
      clearTimeout(timer);
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** User and system time of the process and all its threads: proc(5), stat; in ticks of 10 ms. */
  #cpuMs() {
    const fields = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return 10 * (Number(fields[11]) + Number(fields[12]));
  }

  /** Bytes of memory that the process has now: proc(5), statm; in pages of 4 KiB on the machines that run the suite. */
  residentBytes() {
    return 4096 * Number(readFileSync(`/proc/${this.#child.pid}/statm`, 'utf8').split(' ')[1]);
  }

  /** The file's contents once it has so many bytes: what it writes with may be behind the guest. */
  async #fileBytes(name, bytes) {
    const file = join(this.#dir, name);
    let written = Buffer.alloc(0);
    for (let tries = 100; tries > 0 && written.length < bytes; tries--) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (existsSync(file)) written = readFileSync(file);
    }
    return written.subarray(Math.max(0, written.length - bytes));
  }

  async #until(ms, what, mark) {
    let seen = '';
    await this.#wait(ms, what, (chunk) => {
      seen = (seen + chunk.toString('latin1')).slice(-65536);
      return seen.includes(mark) || undefined;
    });
  }

  /** Gives every chunk to `take`, until it returns something. */
  #wait(ms, what, take) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        this.#onData = undefined;
        this.#onEnd = undefined;
        settle(value);
      };
      const timer = setTimeout(
        () => finish(reject, new Error(`${this.#name}: ${what} did not come in ${ms / 1000} s\n${this.#errors}`)),
        ms,
      );
      this.#onEnd = (error) => finish(reject, error);
      this.#onData = (chunk) => {
        const found = take(chunk);
        if (found !== undefined) finish(resolve, found);
      };
    });
  }
}
