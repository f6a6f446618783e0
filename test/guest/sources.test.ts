import { describe, expect, test } from '@jest/globals';
import { chooseSources, debianSources, formatDeb822, parseDeb822, parseOneLine } from '#lib/guest/sources.js';

const DEBIAN = `# a comment
Types: deb deb-src
URIs: http://archive.example/debian
# between fields
Suites: stable stable-updates
Components: main contrib
Architectures: amd64
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
Check-Valid-Until: no
Trusted: yes

Types: deb
URIs: http://archive.example/debian-security
Suites: stable-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://archive.example/disabled
Suites: stable
Components: main

Types: deb-src
URIs: http://archive.example/source
Suites: stable
Components: main

Types: deb
URIs: https://vendor.example/node
Suites: nodistro
Components: main
Signed-By: /usr/share/keyrings/vendor.gpg
`;

describe('parseDeb822', () => {
  test('enabled binary sources, without Trusted', () => {
    expect(parseDeb822(DEBIAN)).toEqual([
      {
        uris: ['http://archive.example/debian'],
        suites: ['stable', 'stable-updates'],
        components: ['main', 'contrib'],
        signedBy: '/usr/share/keyrings/debian-archive-keyring.gpg',
        options: { 'Check-Valid-Until': 'no' },
      },
      {
        uris: ['http://archive.example/debian-security'],
        suites: ['stable-security'],
        components: ['main'],
        signedBy: expect.stringContaining('\n -----BEGIN PGP'),
        options: {},
      },
      {
        uris: ['https://vendor.example/node'],
        suites: ['nodistro'],
        components: ['main'],
        signedBy: '/usr/share/keyrings/vendor.gpg',
        options: {},
      },
    ]);
    expect(parseDeb822('')).toEqual([]);
    expect(parseDeb822('Types: deb\nEnabled: No\nURIs: x:y\nSuites: a\n')).toEqual([]);
  });

  test('what is written is read', () => {
    const sources = parseDeb822(DEBIAN);
    expect(parseDeb822(formatDeb822(sources))).toEqual(sources);
  });
});

test('parseOneLine', () => {
  const text = `
# deb http://archive.example/commented stable main
deb-src http://archive.example/debian stable main
deb http://archive.example/debian stable main contrib # why
deb [ arch=amd64,i386 signed-by=/a.gpg,/b.gpg trusted=yes check-valid-until=no ]  http://archive.example/x  suite/updates  main
deb [arch=amd64] http://archive.example/flat ./
deb broken
`;
  expect(parseOneLine(text)).toEqual([
    { uris: ['http://archive.example/debian'], suites: ['stable'], components: ['main', 'contrib'], options: {} },
    {
      uris: ['http://archive.example/x'],
      suites: ['suite/updates'],
      components: ['main'],
      signedBy: '/a.gpg /b.gpg',
      options: { 'Check-Valid-Until': 'no' },
    },
    { uris: ['http://archive.example/flat'], suites: ['./'], components: [], options: {} },
  ]);
});

test('debianSources leaves out what is signed by others, has no main, or is a disc', () => {
  const sources = [
    ...parseDeb822(DEBIAN),
    ...parseOneLine(
      'deb cdrom:[x]/ stable main\ndeb http://archive.example/flat ./\ndeb http://archive.example/plain stable main non-free\n',
    ),
  ];
  expect(debianSources(sources).map(({ uris, components }) => [uris[0], components])).toEqual([
    ['http://archive.example/debian', ['main']],
    ['http://archive.example/debian-security', ['main']],
    ['http://archive.example/plain', ['main']],
  ]);
});

describe('chooseSources', () => {
  const host = parseDeb822(DEBIAN);

  test("the host's own, where the environment says nothing", () => {
    expect(chooseSources(host, {}, 'release', '/keyring')).toEqual(debianSources(host));
    expect(chooseSources([], {}, 'release', '/keyring')).toEqual([]);
  });

  test("another suite of the host's archive, not of its security archive", () => {
    expect(chooseSources(host.toReversed(), { suite: 'next  next-updates' }, undefined, undefined)).toEqual([
      {
        uris: ['http://archive.example/debian'],
        suites: ['next', 'next-updates'],
        components: ['main'],
        signedBy: '/usr/share/keyrings/debian-archive-keyring.gpg',
        options: { 'Check-Valid-Until': 'no' },
      },
    ]);
  });

  test("another mirror, with the host's suites, or its release", () => {
    expect(chooseSources(host, { mirror: 'http://mirror.example' }, 'release', undefined)[0]).toMatchObject({
      uris: ['http://mirror.example'],
      suites: ['stable', 'stable-updates'],
    });
    expect(chooseSources([], { mirror: 'http://mirror.example' }, 'release', '/keyring')).toEqual([
      { uris: ['http://mirror.example'], suites: ['release'], components: ['main'], signedBy: '/keyring', options: {} },
    ]);
    expect(chooseSources([], { mirror: 'http://mirror.example' }, undefined, '/keyring')).toEqual([]);
    expect(chooseSources([], { suite: 'stable' }, 'release', '/keyring')).toEqual([]);
  });
});
