import { type CpioEntry, charDevice, directory, file, symlink, writeCpio } from './cpio.js';
import { BYE_SECONDS, EXEC_WORD, ExecPort } from './exec-protocol.js';

/** Where the initramfs lists its modules, in the order in which they are loaded. */
const MODULES_LIST = 'etc/modules.order';
/** Steps of 20 ms that init waits for a port or a console to appear; a device answers in one or two. */
const WAIT_STEPS = 250;

/** What acpid runs for KEY_POWER: its name for the event, below its directory of handlers. */
const POWER_KEY_HANDLER = 'etc/acpi/PWRF/00000080';
/** Where the shell's process id is, when it is a shell that runs. */
const SHELL_PID = '/run/shell.pid';
/** Seconds that the shell or the command has to end after the power key; less than the grace of `MicroVm.stop()`. */
const SHUTDOWN_SECONDS = 5;

/**
 * `/init` of the default guest: a busybox sh script. It mounts, loads the modules and runs a shell on the console, or,
 * where the kernel command line has the word `elvisor.exec`, a command (see exec-protocol.ts). At the end, or when the power
 * key is pressed, it powers off.
 *
 * `elvisor.console=NAME` puts the shell on /dev/NAME; else it is on hvc0 where that is, else on the kernel's console.
 */
export function initScript(): string {
  return `#!/bin/sh
# The default guest's init, written by elvisor.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
umask 022
/bin/busybox --install -s
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts -o nosuid,noexec,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /run
mount -t tmpfs -o nosuid,nodev tmpfs /tmp
chmod 1777 /tmp
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
echo elvisor >/proc/sys/kernel/hostname
ip link set lo up

while read -r module; do
  insmod "$module" || echo "init: $module does not load" >/dev/console
done </${MODULES_LIST}
# The power key: by gpio-keys or virtio_input, whichever the kernel has.
[ -c /dev/input/event0 ] && acpid -l /dev/null

mode=shell console=
read -r cmdline </proc/cmdline
set -f
for word in $cmdline; do
  case $word in
  ${EXEC_WORD}) mode=exec ;;
  elvisor.console=*) console=\${word#*=} ;;
  esac
done
set +f

# Whether a virtio device of type $1 is there.
has_virtio() {
  for id in /sys/bus/virtio/devices/*/device; do
    [ -e "$id" ] && read -r type <"$id" && [ "$type" = "$1" ] && return 0
  done
  return 1
}

# Sets port to the device of the virtio-console port named $1. There is no udev to make /dev/virtio-ports.
find_port() {
  tries=${WAIT_STEPS}
  while [ $tries -gt 0 ]; do
    for name in /sys/class/virtio-ports/*/name; do
      if [ -e "$name" ] && read -r found <"$name" && [ "$found" = "$1" ]; then
        port=\${name%/name}
        port=/dev/\${port##*/}
        [ -c "$port" ] && return 0
      fi
    done
    tries=$((tries - 1))
    usleep 20000
  done
  echo "init: there is no virtio-console port $1" >/dev/console
  return 1
}

run_command() {
  # A port can be open once at a time: each is opened here, and inherited.
  find_port ${ExecPort.STDOUT} && exec 5>"$port" || return
  find_port ${ExecPort.STDERR} && exec 6>"$port" || return
  find_port ${ExecPort.STDIN} && exec 4<>"$port" || return
  find_port ${ExecPort.EXEC} && exec 3<>"$port" || return
  # These wait until the host has the port open: before, a read would give end of file.
  echo ready >&4
  echo 'ready 1' >&3
  read -r verb version bytes <&3
  if [ "$verb $version" != 'exec 1' ]; then
    echo "init: the request begins with '$verb $version', not 'exec 1'" >/dev/console
    return
  fi
  head -c "$bytes" <&3 >/run/request
  cd /root
  (
    . /run/request
    exec "$@"
  ) <&4 >&5 2>&6 3>&- 4>&- 5>&- 6>&-
  status=$?
  echo "exit $status" >&3
  read -r -t ${BYE_SECONDS} bye <&3
}

run_shell() {
  if [ -z "$console" ]; then
    tries=${WAIT_STEPS}
    # virtio-console is device type 3; its hvc0 comes a moment after the driver.
    while has_virtio 0x0003 && [ ! -c /dev/hvc0 ] && [ $tries -gt 0 ]; do
      tries=$((tries - 1))
      usleep 20000
    done
    if [ -c /dev/hvc0 ]; then
      console=hvc0
    else
      read -r console </sys/class/tty/console/active
      console=\${console##* }
    fi
  fi
  [ -c "/dev/$console" ] || console=console
  cd /root
  setsid -c sh -c 'echo $$ >${SHELL_PID}; exec sh -l' <"/dev/$console" >"/dev/$console" 2>&1
}

if [ $mode = exec ]; then run_command; else run_shell; fi
umount -a -r 2>/dev/null
poweroff -f
`;
}

/** Ends what runs, after which init powers off; where something does not end, powers off all the same. */
function powerKeyScript(): string {
  return `#!/bin/sh
echo 'init: the power key was pressed' >/dev/console
kill -TERM -1
# An interactive shell takes no notice of that.
[ -e ${SHELL_PID} ] && read -r pid <${SHELL_PID} && kill -HUP "$pid"
sleep ${SHUTDOWN_SECONDS}
umount -a -r 2>/dev/null
poweroff -f
`;
}

/** Read by the login shell. A plain poweroff asks init by a signal; but PID 1 is a shell that waits for this one to end. */
const PROFILE = `alias poweroff='poweroff -f' reboot='reboot -f' halt='halt -f'\n`;

/** A kernel module, and where it goes in the initramfs. */
export interface GuestModule {
  /** Absolute, such as `/lib/modules/6.1.0/virtio.ko`. */
  readonly path: string;
  /** Uncompressed. */
  readonly bytes: Uint8Array;
}

/**
 * The default guest's initramfs: busybox, the modules in the order in which they are to be loaded, and {@link initScript}.
 * @returns a newc archive; equal inputs give equal bytes
 */
export function buildInitramfs(input: { busybox: Uint8Array; modules: readonly GuestModule[] }): Uint8Array {
  const directories = new Set([
    'bin',
    'dev',
    'etc',
    'etc/acpi',
    'etc/acpi/PWRF',
    'proc',
    'root',
    'run',
    'sbin',
    'sys',
    'tmp',
    'usr',
    'usr/bin',
    'usr/sbin',
  ]);
  const modules: CpioEntry[] = input.modules.map(({ path, bytes }) => {
    const parts = path.slice(1).split('/');
    for (let i = 1; i < parts.length; i++) directories.add(parts.slice(0, i).join('/'));
    return file(path.slice(1), bytes);
  });
  return writeCpio([
    ...[...directories].sort().map((name) => directory(name)),
    charDevice('dev/console', 5, 1),
    charDevice('dev/null', 1, 3, 0o666),
    file('bin/busybox', input.busybox, 0o755),
    symlink('bin/sh', 'busybox'),
    file(POWER_KEY_HANDLER, powerKeyScript(), 0o755),
    file('etc/group', 'root:x:0:\n'),
    file('etc/profile', PROFILE),
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n'),
    file(MODULES_LIST, input.modules.map(({ path }) => `${path}\n`).join('')),
    ...modules,
    file('init', initScript(), 0o755),
  ]);
}
