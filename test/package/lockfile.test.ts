import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';

interface Locked {
  readonly version?: string;
  readonly resolved?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const read = (name: string): unknown => JSON.parse(readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8'));
const { packages } = read('package-lock.json') as { packages: Readonly<Record<string, Locked>> };
const manifest = read('package.json') as Locked;

/** The entry that `name` resolves to from a package's folder, as Node looks it up. */
function find(from: string, name: string): Locked | undefined {
  for (let at = from; ; at = at.slice(0, Math.max(at.lastIndexOf('/node_modules/'), 0))) {
    const found = packages[at === '' ? `node_modules/${name}` : `${at}/node_modules/${name}`];
    if (found !== undefined || at === '') return found;
  }
}

describe('package-lock.json', () => {
  test('is of this package.json', () => {
    const { version, dependencies, devDependencies } = packages['']!;
    expect({ version, dependencies, devDependencies }).toEqual({
      version: manifest.version,
      dependencies: manifest.dependencies,
      devDependencies: manifest.devDependencies,
    });
  });

  test('has every dependency, those of other platforms too, without which npm ci refuses it', () => {
    // A registry that does not serve them makes `npm install` leave them out without a word.
    const missing: string[] = [];
    for (const [path, { dependencies, optionalDependencies }] of Object.entries(packages)) {
      for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
        if (find(path, name) === undefined) missing.push(`${path}: ${name}`);
      }
    }
    expect(missing).toEqual([]);
  });

  test('takes its packages from one registry at most, and safely', () => {
    const urls = Object.values(packages).flatMap(({ resolved }) => (resolved === undefined ? [] : [new URL(resolved)]));
    expect(urls.filter((url) => url.protocol !== 'https:')).toEqual([]);
    expect(new Set(urls.map((url) => url.host)).size).toBeLessThanOrEqual(1);
  });
});
