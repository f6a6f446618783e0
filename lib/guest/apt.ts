import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { VmError } from '../vmm/errors.js';
import {
  type AptSource,
  chooseSources,
  formatDeb822,
  parseDeb822,
  parseOneLine,
  type SourceOverride,
} from './sources.js';
import { isMissingProgram, type Ran, run } from './spawn.js';

/** The way out of every failure to fetch. */
export const OWN_GUEST = 'or bring your own guest: --kernel FILE and --initrd FILE';

/** A package that apt can give. */
export interface AptPackage {
  readonly name: string;
  readonly version: string;
  /** Names of what it depends on, the first of each alternative. */
  readonly depends: readonly string[];
}

export interface AptProgress {
  /** 0 to 1. */
  readonly fraction: number;
  readonly detail: string;
}

export interface PrivateAptOptions {
  signal?: AbortSignal | undefined;
  override: SourceOverride;
  /** Debian's name of the packages' architecture. Default: `arm64`. */
  architecture?: string | undefined;
  /** The host's sources, in place of those that its own apt reads. For tests. */
  sources?: readonly AptSource[] | undefined;
}

/** Settings of the host's apt that reaching its archive may need. Those that would take unsigned packages are not among them. */
const HOST_SETTINGS =
  /^(Acquire::(http|https|ftp|socks|tor)::|Acquire::(Retries|ForceIPv[46]|Check-Valid-Until|Check-Date|Max-FutureTime|Queue-Mode)\b)/i;

/** Where Debian's keyring package puts its keys. */
const KEYRINGS = ['/usr/share/keyrings/debian-archive-keyring.pgp', '/usr/share/keyrings/debian-archive-keyring.gpg'];

/**
 * An apt of our own: for arm64, or another architecture, with its own state, cache and sources, all below one directory. Of the host's apt it
 * reads the sources, the proxy and the trusted keys; it writes nothing of the host's. apt checks the signatures.
 */
export class PrivateApt {
  readonly #dir: string;
  readonly #signal: AbortSignal | undefined;
  /** The sources are the host's: any archive may be among them. */
  readonly #hosts: boolean;
  #sources: readonly AptSource[];

  private constructor(dir: string, sources: readonly AptSource[], options: PrivateAptOptions) {
    this.#dir = dir;
    this.#sources = sources;
    this.#signal = options.signal;
    this.#hosts = options.override.mirror === undefined;
  }

  /**
   * Sets it up in `dir`, an empty directory.
   * @throws VmError `ERR_GUEST_NO_APT` this machine has no apt; `ERR_GUEST_SOURCES` it has no Debian sources;
   * `ERR_GUEST_CACHE` a path that apt's configuration can't hold
   */
  static async create(dir: string, options: PrivateAptOptions): Promise<PrivateApt> {
    if (/["\\\n;{}]/.test(dir)) {
      throw new VmError(
        'ERR_GUEST_CACHE',
        `guest: the cache directory ${JSON.stringify(dir)} has a character that apt's configuration can't hold; set XDG_CACHE_HOME to another`,
      );
    }
    const { architecture = 'arm64' } = options;
    const dump = await host(['dump'], options.signal);
    const settings = dump.split('\n').filter((line) => HOST_SETTINGS.test(line));
    const sources = chooseSources(
      options.sources ?? (await hostSources(options.signal)),
      options.override,
      await debianRelease(),
      await firstReadable(KEYRINGS),
    );
    if (sources.length === 0) {
      throw new VmError(
        'ERR_GUEST_SOURCES',
        `guest: this machine's apt has no Debian sources to fetch the default guest from; set ELVISOR_DEBIAN_MIRROR and ELVISOR_DEBIAN_SUITE, ${OWN_GUEST}`,
      );
    }
    for (const part of ['state/lists/partial', 'cache/archives/partial', 'log', 'parts', 'sources', 'preferences']) {
      await mkdir(join(dir, part), { recursive: true });
    }
    await writeFile(join(dir, 'state/status'), '');
    await writeFile(
      join(dir, 'apt.conf'),
      [
        ...settings,
        `APT::Architecture "${architecture}";`,
        `APT::Architectures { "${architecture}"; };`,
        // As root, apt would fetch as a user that can't write here.
        'APT::Sandbox::User "root";',
        'APT::Get::AllowUnauthenticated "false";',
        'Acquire::AllowInsecureRepositories "false";',
        'Acquire::Languages { "none"; };',
        'Acquire::PDiffs "false";',
        `Dir::State "${dir}/state";`,
        `Dir::State::status "${dir}/state/status";`,
        `Dir::Cache "${dir}/cache";`,
        `Dir::Log "${dir}/log";`,
        'Dir::Etc::main "/dev/null";',
        `Dir::Etc::parts "${dir}/parts";`,
        'Dir::Etc::sourcelist "/dev/null";',
        `Dir::Etc::sourceparts "${dir}/sources";`,
        'Dir::Etc::preferences "/dev/null";',
        `Dir::Etc::preferencesparts "${dir}/preferences";`,
        '',
      ].join('\n'),
    );
    const apt = new PrivateApt(dir, sources, options);
    await apt.#writeSources();
    return apt;
  }

  /**
   * Fetches the package lists, and drops sources that turn out not to be Debian's.
   * @throws VmError `ERR_GUEST_FETCH` the archive can't be reached, or its signature is not good; `ERR_GUEST_SOURCES`
   */
  async update(onProgress: (progress: AptProgress) => void): Promise<void> {
    const ran = await this.#apt('apt-get', ['update', '-o', 'APT::Update::Error-Mode=any'], onProgress);
    if (ran.status !== 0) throw fetchFailed('the package lists', ran);
    if (!this.#hosts) return;
    const format = '$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)';
    const targets = await this.#apt('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
    const foreign = targets.stdout
      .toString()
      .split('\n')
      .map((line) => line.split('\t'))
      .filter(([origin, uri]) => uri !== undefined && origin !== 'Debian' && origin !== 'Debian Backports');
    if (foreign.length === 0) return;
    const isForeign = (uri: string, suite: string) =>
      foreign.some(([, foreignUri, release]) => slash(foreignUri!) === slash(uri) && release === suite);
    const kept = this.#sources.flatMap((source) =>
      source.uris.map((uri) => ({
        ...source,
        uris: [uri],
        suites: source.suites.filter((suite) => !isForeign(uri, suite)),
      })),
    );
    this.#sources = kept.filter(({ suites }) => suites.length > 0);
    if (this.#sources.length === 0) {
      const origins = [...new Set(foreign.map(([origin]) => JSON.stringify(origin)))].join(', ');
      throw new VmError(
        'ERR_GUEST_SOURCES',
        `guest: this machine's apt sources are of ${origins}, not of "Debian"; set ELVISOR_DEBIAN_MIRROR and ELVISOR_DEBIAN_SUITE, ${OWN_GUEST}`,
      );
    }
    await this.#writeSources();
  }

  /** The candidate for a package; `undefined` where the archive has none. */
  async show(name: string): Promise<AptPackage | undefined> {
    const ran = await this.#apt('apt-cache', ['show', '--no-all-versions', name]);
    if (ran.status !== 0) return undefined;
    const fields = new Map<string, string>();
    // Only the first stanza: it is the candidate.
    for (const line of ran.stdout.toString().split(/\n\n/, 1)[0]!.split('\n')) {
      const field = /^([A-Za-z0-9-]+): (.*)$/.exec(line);
      if (field !== null && !fields.has(field[1]!)) fields.set(field[1]!, field[2]!);
    }
    const version = fields.get('Version');
    if (fields.get('Package') !== name || version === undefined) return undefined;
    const depends = [fields.get('Pre-Depends'), fields.get('Depends')]
      .flatMap((list) => list?.split(',') ?? [])
      .map((dependency) => /^\s*([a-z0-9][a-z0-9+.-]+)/.exec(dependency)?.[1])
      .filter((dependency) => dependency !== undefined);
    return { name, version, depends };
  }

  /**
   * Downloads packages to `dir`, verified against the signed lists.
   * @returns the files' paths
   * @throws VmError `ERR_GUEST_FETCH`
   */
  async download(
    packages: readonly AptPackage[],
    dir: string,
    onProgress: (progress: AptProgress) => void,
  ): Promise<string[]> {
    await mkdir(dir, { recursive: true });
    const ran = await this.#apt(
      'apt-get',
      ['download', ...packages.map(({ name, version }) => `${name}=${version}`)],
      onProgress,
      dir,
    );
    if (ran.status !== 0) throw fetchFailed(packages.map(({ name }) => name).join(', '), ran);
    const files = (await readdir(dir)).filter((file) => file.endsWith('.deb'));
    if (files.length !== packages.length) {
      throw new VmError(
        'ERR_GUEST_FETCH',
        `guest: apt-get download gave ${files.length} packages of ${packages.length}; try again, ${OWN_GUEST}`,
      );
    }
    return files.map((file) => join(dir, file));
  }

  async #writeSources(): Promise<void> {
    await writeFile(join(this.#dir, 'sources/elvisor.sources'), formatDeb822(this.#sources));
  }

  async #apt(
    command: string,
    args: readonly string[],
    onProgress?: (progress: AptProgress) => void,
    cwd = this.#dir,
  ): Promise<Ran> {
    const status = onProgress === undefined ? [] : ['-q', '-o', 'APT::Status-Fd=3'];
    return await aptRun(command, [...status, ...args], {
      cwd,
      signal: this.#signal,
      env: { ...process.env, APT_CONFIG: join(this.#dir, 'apt.conf') },
      ...(onProgress === undefined
        ? {}
        : {
            onStatusLine: (line) => {
              const match = /^dlstatus:[^:]*:([0-9.]+):(.*)$/.exec(line);
              if (match !== null) onProgress({ fraction: Math.min(Number(match[1]) / 100, 1), detail: match[2]! });
            },
          }),
    });
  }
}

async function aptRun(...args: Parameters<typeof run>): Promise<Ran> {
  try {
    return await run(...args);
  } catch (error) {
    if (!isMissingProgram(error)) throw error;
    throw new VmError(
      'ERR_GUEST_NO_APT',
      `guest: there is no ${args[0]} on this machine to fetch the default guest with; run elvisor on Debian, ${OWN_GUEST}`,
      { cause: error },
    );
  }
}

/** What the host's apt-config says. */
async function host(args: readonly string[], signal: AbortSignal | undefined): Promise<string> {
  const ran = await aptRun('apt-config', args, { signal });
  if (ran.status !== 0) {
    throw new VmError(
      'ERR_GUEST_NO_APT',
      `guest: this machine's apt is not usable: ${lastLines(ran.stderr)}; ${OWN_GUEST}`,
    );
  }
  return ran.stdout.toString();
}

/** The sources that the host's apt reads, from where it reads them. */
async function hostSources(signal: AbortSignal | undefined): Promise<AptSource[]> {
  const paths = await host(['shell', 'list', 'Dir::Etc::sourcelist/f', 'parts', 'Dir::Etc::sourceparts/d'], signal);
  const path = (name: string) => new RegExp(`^${name}='(.*)'$`, 'm').exec(paths)?.[1];
  const sources: AptSource[] = [];
  const list = path('list');
  if (list !== undefined) sources.push(...parseOneLine(await textOf(list)));
  const parts = path('parts');
  const files = parts === undefined ? [] : await readdir(parts).catch(() => []);
  for (const file of files.sort()) {
    if (file.endsWith('.list')) sources.push(...parseOneLine(await textOf(join(parts!, file))));
    else if (file.endsWith('.sources')) sources.push(...parseDeb822(await textOf(join(parts!, file))));
  }
  return sources;
}

/** The host's release, where the host is Debian. */
async function debianRelease(): Promise<string | undefined> {
  const text = await textOf('/etc/os-release');
  if (!/^ID="?debian"?$/m.test(text)) return undefined;
  return /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(text)?.[1];
}

async function firstReadable(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if ((await readFile(path).catch(() => undefined)) !== undefined) return path;
  return undefined;
}

async function textOf(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '');
}

function slash(uri: string): string {
  return uri.endsWith('/') ? uri : `${uri}/`;
}

function fetchFailed(what: string, ran: Ran): VmError {
  return new VmError(
    'ERR_GUEST_FETCH',
    `guest: apt can't fetch ${what}: ${lastLines(ran.stderr)}; check the network and the archive, ${OWN_GUEST}`,
  );
}

/** What a program said that matters: its errors, or its last line. */
export function lastLines(stderr: string): string {
  const lines = stderr
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const errors = lines.filter((line) => /^(E|Err|error|dpkg-deb: error):?/i.test(line));
  return (errors.length > 0 ? errors.slice(0, 3) : lines.slice(-1)).join(' ') || 'it gives no reason';
}
