import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, describe, expect, test } from '@jest/globals';
import { PrivateApt } from '#lib/guest/apt.js';
import {
  Cap,
  DeviceType,
  ExitNumber,
  GuestDebug,
  IoeventfdFlag,
  IrqfdFlag,
  IrqRoutingType,
  MemFlag,
  MpState,
  SystemEvent,
  VcpuFeature,
} from '#lib/kvm/index.js';

/**
 * What `native/kvm_abi.h` and `lib/kvm` say of the kernel's ABI, against the headers of the newest kernel that Debian has
 * (linux-libc-dev in sid): a file of static_asserts, which a C++ compiler judges.
 */
const run = promisify(execFile);
const ABI = fileURLToPath(new URL('../../native/kvm_abi.h', import.meta.url));

interface Headers {
  readonly usr: string;
  readonly version: string;
}

/** Fetches and unpacks the headers. @returns where they are, or why they are not */
async function fetchHeaders(dir: string): Promise<Headers | { readonly reason: string }> {
  try {
    await run('g++', ['--version']);
    await run('dpkg-deb', ['--version']);
    mkdirSync(join(dir, 'apt'));
    const apt = await PrivateApt.create(join(dir, 'apt'), { override: { suite: 'sid' } });
    await apt.update(() => {});
    const newest = await apt.show('linux-libc-dev');
    if (newest === undefined) return { reason: 'Debian has no linux-libc-dev' };
    const [deb] = await apt.download([newest], join(dir, 'debs'), () => {});
    await run('dpkg-deb', ['-x', deb!, join(dir, 'root')]);
    return { usr: join(dir, 'root/usr'), version: newest.version };
  } catch (error) {
    return { reason: String((error as Error).message).split('\n', 1)[0]! };
  }
}

/** Requests whose struct has another name than theirs says, or none. */
const STRUCTS: Readonly<Record<string, string>> = {
  coalesced_mmio_zone: 'kvm_coalesced_mmio_zone',
  msi: 'kvm_msi',
  reg_mask_range: 'reg_mask_range',
  run: '',
  x86_regs: 'kvm_regs',
  x86_sregs: 'kvm_sregs',
};

/** The static_asserts for the addon's header: every request number and every struct in it. */
function assertsOfAbi(arch: 'arm64' | 'x86'): string[] {
  const text = readFileSync(ABI, 'utf8');
  const start = text.indexOf('#ifdef __x86_64__\nconstexpr');
  const x86Requests = start < 0 ? '' : text.slice(start);
  const requests = [...text.matchAll(/\b([A-Z][A-Z0-9_]+) = io(?:_\w+)?(?:<\w+>)?\(/g)].map(([, name = '']) => name);
  expect(requests.length).toBeGreaterThan(40);
  const structs = [...text.matchAll(/^struct (\w+) \{/gm)].map(([, name = '']) => name);
  const asserts = requests
    .filter((name) => arch === 'x86' || !x86Requests.includes(`${name} =`))
    // Arm's structs, and so the numbers that have their sizes in them, are not those of x86.
    .filter((name) => arch === 'arm64' || !/^ARM_|VCPU_EVENTS|GUEST_DEBUG/.test(name))
    .map((name) => `static_assert(elvisor::abi::${name} == KVM_${name}, "KVM_${name}");`);
  for (const name of structs) {
    const theirs = STRUCTS[name] ?? `kvm_${name}`;
    const ofX86 = name.startsWith('x86_');
    const ofArm = /^(arm_|vcpu_init|vcpu_events|guest_debug|reg_mask_range)/.test(name);
    if (theirs === '' || (arch === 'arm64' ? ofX86 : ofArm)) continue;
    asserts.push(`static_assert(sizeof(elvisor::abi::${name}) == sizeof(struct ${theirs}), "struct ${theirs}");`);
  }
  asserts.push(
    'static_assert(offsetof(struct kvm_run, immediate_exit) == offsetof(elvisor::abi::run, immediate_exit));',
    'static_assert(offsetof(struct kvm_run, exit_reason) == offsetof(elvisor::abi::run, exit_reason));',
    'static_assert(sizeof(struct kvm_run) >= elvisor::abi::run_size);',
  );
  return asserts;
}

/** What the contract knows of Linux 7.3 and its headers of kernels before do not. */
const SINCE_7_3 = /PMU_V3_STRICT/;

/** Those for the contract's numbers. @param version of the headers */
function assertsOfContract(version: string): string[] {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const old = major < 7 || (major === 7 && minor < 3);
  const named = (prefix: string, numbers: Readonly<Record<string, number>>, not: RegExp = /^$/): string[] =>
    Object.entries(numbers)
      .filter(([name]) => !not.test(name))
      .map(([name, value]) => `static_assert((${prefix}${name}) == ${value}u, "${prefix}${name}");`);
  const exits = Object.entries(ExitNumber).map(([name, value]) => [name.toUpperCase(), value] as const);
  const asserts = [
    ...named('KVM_CAP_', Cap),
    ...named('KVM_EXIT_', Object.fromEntries(exits)),
    ...named('KVM_SYSTEM_EVENT_', SystemEvent, /^WAKEUP|SUSPEND$/),
    ...named('KVM_DEV_TYPE_', DeviceType),
    ...named('KVM_MEM_', MemFlag),
    ...named('KVM_IRQFD_FLAG_', IrqfdFlag),
    ...named('KVM_IRQ_ROUTING_', IrqRoutingType),
    ...named('KVM_MP_STATE_', MpState),
    ...['DATAMATCH', 'PIO', 'DEASSIGN'].map(
      (name) => `static_assert(KVM_IOEVENTFD_FLAG_${name} == ${IoeventfdFlag[name as keyof typeof IoeventfdFlag]});`,
    ),
    `static_assert(KVM_GUESTDBG_ENABLE == ${GuestDebug.ENABLE} && KVM_GUESTDBG_SINGLESTEP == ${GuestDebug.SINGLESTEP});`,
    `static_assert(KVM_GUESTDBG_USE_SW_BP == ${GuestDebug.USE_SW_BP} && KVM_GUESTDBG_USE_HW == ${GuestDebug.USE_HW});`,
    ...named('KVM_ARM_VCPU_', VcpuFeature),
  ];
  return old ? asserts.filter((line) => !SINCE_7_3.test(line)) : asserts;
}

const dir = mkdtempSync(join(tmpdir(), 'elvisor-abi-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const headers = await fetchHeaders(dir);
const title =
  'reason' in headers
    ? `the kernel's ABI (skipped: ${headers.reason})`
    : `the kernel's ABI, as in linux-libc-dev ${headers.version}`;

('reason' in headers ? describe.skip : describe)(title, () => {
  const { usr } = headers as Headers;

  /** What the compiler says of a file of asserts. */
  async function judge(arch: 'arm64' | 'x86', asserts: readonly string[]): Promise<string> {
    const file = join(dir, `${arch}.cc`);
    // Nothing is compiled, and both architectures have the same types: any g++ will do, once it has its own headers.
    const as =
      arch === 'arm64'
        ? ['#undef __x86_64__', '#define __aarch64__ 1']
        : ['#undef __aarch64__', '#define __x86_64__ 1'];
    // The addon's header first: some of its names are macros in the kernel's.
    const includes = ['<cstddef>', '<cstdint>', `"${ABI}"`, '<linux/kvm.h>'].map((name) => `#include ${name}`);
    const lines = [...includes.slice(0, 2), ...as, ...includes.slice(2), ...asserts];
    writeFileSync(file, `${lines.join('\n')}\n`);
    // Debian has one tree of them for all architectures, or one for each of its own.
    const machine = [
      join(usr, 'lib/linux/uapi', arch),
      join(usr, 'include', arch === 'x86' ? 'x86_64-linux-gnu' : 'aarch64-linux-gnu'),
    ].filter((path) => existsSync(path));
    const paths = [...machine, join(usr, 'include')].flatMap((path) => ['-I', path]);
    const args = ['-std=c++20', '-fsyntax-only', '-w', ...paths, file];
    return await run('g++', args).then(
      () => '',
      ({ stderr }: { stderr: string }) => stderr,
    );
  }

  test('the addon has the same numbers and structs on arm64, and so has the contract', async () => {
    const asserts = [...assertsOfAbi('arm64'), ...assertsOfContract((headers as Headers).version)];
    expect(asserts.length).toBeGreaterThan(120);
    expect(await judge('arm64', asserts)).toBe('');
  });

  test('the addon has the same on x64, where its tests run', async () => {
    expect(await judge('x86', assertsOfAbi('x86'))).toBe('');
  });

  test('a number that is not the same is told', async () => {
    expect(await judge('arm64', ['static_assert(KVM_CAP_ARM_PSCI == 88, "a wrong number");'])).toContain(
      'a wrong number',
    );
  });
});
