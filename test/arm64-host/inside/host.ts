import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

/** What the mode is, by the fields of HostInfo: a finding's value, and of `device` whether it is usable or the refusal's cause. */
const MODE = JSON.parse(process.env.ELVISOR_ARM64_HOST_SAYS ?? '{}') as Readonly<Record<string, unknown>>;
const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
/** Who is not root is told less: the kernel's log is closed to him, and here /dev/kvm too. */
const NOBODY = 65534;

interface Finding {
  readonly value: unknown;
  readonly confidence: string;
}
interface Device {
  readonly usable: boolean;
  readonly cause?: string;
}

function elvisorHost(uid?: number): Readonly<Record<string, Finding & Device>> {
  const child = spawnSync(process.execPath, [MAIN, 'host', '--json'], {
    encoding: 'utf8',
    ...(uid === undefined ? {} : { uid }),
  });
  expect(child).toMatchObject({ stderr: '' });
  return JSON.parse(child.stdout);
}

const said = (info: ReturnType<typeof elvisorHost>, field: string): unknown =>
  field === 'device' ? (info.device?.usable === true ? true : info.device?.cause) : info[field]?.value;

test('elvisor host says what this mode is', () => {
  const info = elvisorHost();
  const fields = Object.keys(MODE);
  expect(fields.length).toBeGreaterThan(0);
  expect(Object.fromEntries(fields.map((field) => [field, said(info, field)]))).toEqual(MODE);
});

test('elvisor host says nothing that is wrong to a user who may read less', () => {
  const info = elvisorHost(NOBODY);
  for (const field of Object.keys(MODE)) {
    // A guess says that it is one: whether KVM is nested, for one, only KVM and the log know.
    if (field === 'device' || info[field]?.value === null || info[field]?.confidence === 'guess') continue;
    expect([field, said(info, field)]).toEqual([field, MODE[field]]);
  }
});
