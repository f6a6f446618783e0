import { commandLineOf, fileText, logLine } from './clues.js';
import { configFiles, type HostFacts } from './facts.js';
import { bootElOf } from './levels.js';
import type { Refusal } from './types.js';

/**
 * Why there is no KVM for arm64 guests. `platform`: not Linux; `architecture`: not arm64; `addon`: none for this machine.
 * Without a `/dev/kvm`: `el1-boot`: the kernel was not started at EL2; `disabled`: by `kvm-arm.mode=none`; `not-built`: the
 * kernel is without KVM; `failed`: KVM gave up at boot; `no-device`: the kernel has KVM, but the device node is not here;
 * `absent`: nothing says why. With one: `permission`: it may not be opened; `unusable`: it is not KVM as we know it.
 */
export type RefusalCause =
  | 'platform'
  | 'architecture'
  | 'addon'
  | 'el1-boot'
  | 'disabled'
  | 'not-built'
  | 'failed'
  | 'no-device'
  | 'absent'
  | 'permission'
  | 'unusable';

const SOFT = 'use the software backend (soft)';

/** Why the device runs no arm64 guests; `undefined` where it does. */
export function refusalOf(facts: HostFacts): Refusal | undefined {
  return foreignHost(facts.platform, facts.arch) ?? whyClosed(facts);
}

/** Why no KVM of such a host would do; `undefined` where it might. */
export function foreignHost(platform: string, arch: string): Refusal | undefined {
  if (platform !== 'linux') return refusal('platform', `KVM is the Linux kernel's, and this is ${platform}`);
  if (arch === 'arm64') return undefined;
  return refusal('architecture', `/dev/kvm runs arm64 guests on arm64 hosts only, and this host is ${arch}`);
}

/** Why the device does not open, whatever guests it would run; `undefined` where it does. */
export function whyClosed(facts: HostFacts): Refusal | undefined {
  const { open, device } = facts;
  if ('kvm' in open) return undefined;
  // Where the device itself is out of reach, that there is no addon either is the lesser trouble.
  switch ('addon' in open ? open.access : open.error) {
    case 'ENOENT':
      return whyAbsent(facts);
    case 'EACCES':
      return refusal(
        'permission',
        `${device} may not be opened by this user`,
        'add the user to the group that owns it (usually: sudo usermod -aG kvm $USER, then log in again)',
      );
    case 'EPERM':
      return refusal(
        'permission',
        `${device} may not be opened in this container`,
        `start it with the device (--device=${device})`,
      );
  }
  if ('addon' in open) return refusal('addon', open.addon);
  return refusal('unusable', open.message);
}

/** Why there is no device. */
function whyAbsent(facts: HostFacts): Refusal {
  const { device } = facts;
  if (fileText(facts, '/proc/misc')?.includes('kvm')) {
    return refusal(
      'no-device',
      `the kernel has KVM, but there is no ${device} here`,
      `in a container, start it with the device (--device=${device}); else: mknod ${device} c 10 232`,
    );
  }
  const boot = bootElOf(facts);
  if (boot.value === 'EL1' || boot.value === 'mixed') {
    return refusal(
      'el1-boot',
      boot.value === 'EL1'
        ? `there is no ${device}: the kernel was started at EL1, and KVM needs EL2`
        : `there is no ${device}: the kernel's CPUs were started at different exception levels, and KVM needs all at EL2`,
      'on a machine of your own, have the firmware start the kernel at EL2; in a virtual machine, ask for nested virtualization',
    );
  }
  const disabled = logLine(facts, /KVM disabled from command line/);
  if (disabled !== undefined || commandLineOf(facts)?.option === 'none') {
    return refusal(
      'disabled',
      `there is no ${device}: KVM is switched off by kvm-arm.mode=none on the kernel's command line`,
      'boot without that option',
    );
  }
  if (isBuiltWithout(facts)) {
    return refusal(
      'not-built',
      `there is no ${device}: the kernel was built without KVM`,
      'boot one with CONFIG_KVM=y',
    );
  }
  const failed = logLine(facts, /kvm \[\d+\]: .*(error|fail|cannot|giving up|not supported|unsupported)/i);
  const isBuiltIn = facts.arch === 'arm64' && fileText(facts, '/sys/module/kvm') !== undefined;
  if (failed !== undefined || isBuiltIn) {
    return refusal(
      'failed',
      `there is no ${device}: KVM gave up when the kernel booted${failed === undefined ? '' : `: ${failed}`}`,
      failed === undefined ? "see what the kernel's log says of kvm (as root: dmesg | grep kvm)" : undefined,
    );
  }
  const arm64Only = facts.arch === 'arm64' ? ' was started without EL2 or with kvm-arm.mode=none,' : '';
  return refusal(
    'absent',
    `there is no ${device}: the kernel has no KVM,${arm64Only} or this is a container without the device`,
    `in a container, start it with --device=${device}`,
  );
}

/** On arm64 KVM is never a module: what is not in the kernel from the start does not come. */
function isBuiltWithout(facts: HostFacts): boolean {
  if (facts.arch !== 'arm64') return false;
  const config = configFiles(facts.kernel).map((path) => fileText(facts, path));
  const module = facts.files['/sys/module/kvm'];
  return (
    config.includes('# CONFIG_KVM is not set') ||
    (fileText(facts, '/sys/module') !== undefined &&
      module !== undefined &&
      'error' in module &&
      module.error === 'ENOENT')
  );
}

function refusal(cause: RefusalCause, reason: string, wayOut?: string): Refusal {
  return { cause, reason, wayOut: wayOut === undefined ? SOFT : `${wayOut}, or ${SOFT}` };
}

/** A refusal as one sentence. */
export const sentence = ({ reason, wayOut }: Refusal): string => `${reason}; ${wayOut}`;
