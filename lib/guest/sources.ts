/** One archive that apt takes packages from (sources.list(5)). */
export interface AptSource {
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** A keyring's path, a fingerprint, or a whole key (its lines as they stand in the file). */
  readonly signedBy?: string;
  /** Options that a host needs for its archive to be taken at all, by their deb822 names. */
  readonly options: Readonly<Record<string, string>>;
}

/** What is kept of a source's options. `Trusted` is not: what comes unsigned is not taken, whatever the host does. */
const KEPT_OPTIONS = ['Check-Valid-Until', 'Check-Date', 'Valid-Until-Max', 'Snapshot'] as const;

/**
 * Reads a `.sources` file (deb822): the enabled binary-package sources.
 */
export function parseDeb822(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const stanza of text.split(/\n[ \t]*\n/)) {
    const fields = new Map<string, string>();
    let current: string | undefined;
    for (const line of stanza.split('\n')) {
      if (line.startsWith('#')) continue;
      const field = /^([A-Za-z0-9-]+)[ \t]*:(.*)$/.exec(line);
      if (field !== null) {
        current = field[1]!.toLowerCase();
        fields.set(current, field[2]!.trim());
      } else if (current !== undefined && /^[ \t]/.test(line)) {
        fields.set(current, `${fields.get(current)}\n${line}`);
      }
    }
    const words = (name: string) => (fields.get(name) ?? '').split(/\s+/).filter((word) => word !== '');
    if (!words('types').includes('deb') || /^(no|false|0|off|without|disable)$/i.test(fields.get('enabled') ?? ''))
      continue;
    const options: Record<string, string> = {};
    for (const name of KEPT_OPTIONS) {
      const value = fields.get(name.toLowerCase());
      if (value !== undefined) options[name] = value;
    }
    const signedBy = fields.get('signed-by');
    sources.push({
      uris: words('uris'),
      suites: words('suites'),
      components: words('components'),
      ...(signedBy === undefined ? {} : { signedBy }),
      options,
    });
  }
  return sources;
}

/** Reads a `.list` file (one line a source): the binary-package sources. */
export function parseOneLine(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)/.exec(line);
    if (match === null) continue;
    const [, bracket = '', uri = '', suite = '', components = ''] = match;
    const given = new Map(
      bracket
        .split(/\s+/)
        .filter((option) => option.includes('='))
        .map((option) => [option.slice(0, option.indexOf('=')).toLowerCase(), option.slice(option.indexOf('=') + 1)]),
    );
    const options: Record<string, string> = {};
    for (const name of KEPT_OPTIONS) {
      const value = given.get(name.toLowerCase());
      if (value !== undefined) options[name] = value;
    }
    const signedBy = given.get('signed-by')?.replaceAll(',', ' ');
    sources.push({
      uris: [uri],
      suites: [suite],
      components: components.split(/\s+/).filter((word) => word !== ''),
      ...(signedBy === undefined ? {} : { signedBy }),
      options,
    });
  }
  return sources;
}

/**
 * Of a host's sources, those that can be Debian's own: component `main`, and signed by Debian's keyring, or by the keys
 * that apt trusts for any source. (Whether it is Debian's, its Release file says, once it is fetched.) Each is taken
 * without its other components and without its limit to the host's architecture.
 */
export function debianSources(sources: readonly AptSource[]): AptSource[] {
  return sources
    .filter(
      ({ components, signedBy }) =>
        components.includes('main') && (signedBy === undefined || /debian-archive|PGP PUBLIC KEY/.test(signedBy)),
    )
    .map((source) => ({
      ...source,
      uris: source.uris.filter((uri) => !uri.startsWith('cdrom:')),
      components: ['main'],
    }))
    .filter(({ uris, suites }) => uris.length > 0 && suites.length > 0);
}

/** What the environment says in place of the host's sources. */
export interface SourceOverride {
  /** `ELVISOR_DEBIAN_MIRROR`: an archive's URI. */
  readonly mirror?: string;
  /** `ELVISOR_DEBIAN_SUITE`: one suite or more, separated by blanks. */
  readonly suite?: string;
}

/**
 * The sources to use: the host's, with the mirror or the suite that the environment gives.
 * @param release the host's own Debian release (`VERSION_CODENAME`), for a mirror without a suite
 * @param keyring the keyring that signs a mirror's archive, where no source of the host's says one
 * @returns empty where neither the host nor the environment says enough
 */
export function chooseSources(
  host: readonly AptSource[],
  override: SourceOverride,
  release: string | undefined,
  keyring: string | undefined,
): AptSource[] {
  const debian = debianSources(host);
  const suites = override.suite?.split(/\s+/).filter((suite) => suite !== '') ?? [];
  if (override.mirror === undefined && suites.length === 0) return debian;
  // The security archive is another one: its suites are not found beside the release's own.
  const base = debian.find((source) => source.suites.some((suite) => !/[-/](security|updates)/.test(suite)));
  const uris = override.mirror === undefined ? (base?.uris ?? []) : [override.mirror];
  const wanted = suites.length > 0 ? suites : (base?.suites ?? (release === undefined ? [] : [release]));
  if (uris.length === 0 || wanted.length === 0) return [];
  const signedBy = base?.signedBy ?? keyring;
  return [
    {
      uris,
      suites: wanted,
      components: ['main'],
      ...(signedBy === undefined ? {} : { signedBy }),
      options: base?.options ?? {},
    },
  ];
}

/** The sources as a deb822 file. */
export function formatDeb822(sources: readonly AptSource[]): string {
  return sources
    .map(({ uris, suites, components, signedBy, options }) => {
      const lines = [
        'Types: deb',
        `URIs: ${uris.join(' ')}`,
        `Suites: ${suites.join(' ')}`,
        `Components: ${components.join(' ')}`,
      ];
      if (signedBy !== undefined) lines.push(`Signed-By: ${signedBy}`);
      for (const [name, value] of Object.entries(options)) lines.push(`${name}: ${value}`);
      return `${lines.join('\n')}\n`;
    })
    .join('\n');
}
