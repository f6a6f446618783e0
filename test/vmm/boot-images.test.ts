import { describe, expect, test } from '@jest/globals';
import { nodeScheduler } from '#lib/node/scheduler.js';
import { DTB_MAX_SIZE, placeBoot } from '#lib/vmm/boot/index.js';
import { VmError } from '#lib/vmm/errors.js';
import { prepare } from '#lib/vmm/micro-vm.js';
import type { MicroVmOptions } from '#lib/vmm/options.js';
import type { InputFile, Platform } from '#lib/vmm/platform.js';
import { FakeKvm, tinyKernel } from './fake-kvm.ts';

const RAM_BASE = 0x4000_0000;

/** A platform with these files; what is done with them is told in `log`. */
function platformOf(files: Readonly<Record<string, Uint8Array>>, more: Partial<Platform> = {}) {
  const log: string[] = [];
  const platform: Platform = {
    createScheduler: nodeScheduler,
    openKvm: () => {
      throw new Error('tests bring their own Kvm');
    },
    openFile: (source): InputFile => {
      const name = String(source);
      const bytes = files[name]!;
      log.push(`open ${name}`);
      return {
        size: bytes.length,
        read: async (into, position) => {
          await new Promise((resolve) => setImmediate(resolve));
          log.push(`read ${name} ${position}+${into.length}`);
          into.set(bytes.subarray(position, position + into.length));
        },
        close: () => void log.push(`close ${name}`),
      };
    },
    readFile: async (source) => {
      log.push(`read all of ${String(source)}`);
      return files[String(source)]!;
    },
    ...more,
  };
  return { platform, log };
}

async function create(given: ReturnType<typeof platformOf>, options: Partial<MicroVmOptions> = {}) {
  const fake = new FakeKvm(function* () {});
  const made = prepare({ kernel: 'Image', memory: '16M', kvm: fake.kvm, ...options }, given.platform);
  return { fake, made };
}

/** An Image of several of the pieces that its head is read in. */
function image(): Uint8Array {
  const bytes = new Uint8Array(20_000).map((_, i) => i * 7);
  bytes.set(tinyKernel().subarray(0, 64));
  return bytes;
}

describe('an Image that is a file', () => {
  const files = { Image: image(), initrd: new Uint8Array(5000).map((_, i) => i + 1) };

  test('is read into the RAM where it is to be, with its initrd, and by nobody else', async () => {
    const given = platformOf(files);
    const { fake, made } = await create(given, { initrd: 'initrd' });
    const { machine } = await made;
    const { bytes } = fake.vms[0]!.memory!;
    const { entry, initrd } = placeBoot({
      ram: { base: RAM_BASE, size: 16 << 20 },
      kernel: { kind: 'image', wrappers: [], bytes: files.Image, textOffset: 0, imageSize: 20_000, pageSize: 4096 },
      initrdSize: 5000,
      dtbSize: DTB_MAX_SIZE,
    });
    expect(bytes.subarray(entry - RAM_BASE, entry - RAM_BASE + 20_000)).toEqual(files.Image);
    expect(bytes.subarray(initrd!.start - RAM_BASE, initrd!.end - RAM_BASE)).toEqual(files.initrd);
    expect(given.log).toEqual([
      ...['open Image', 'read Image 0+4096', 'open initrd', 'read Image 0+20000', 'read initrd 0+5000'],
      ...['close Image', 'close initrd'],
    ]);
    machine.close();
  });

  test('is read into the part of RAM where it is to be, where a KVM has parts, and put there once', async () => {
    const given = platformOf(files);
    const fake = new FakeKvm(function* () {});
    const parts: [number, number][] = [];
    fake.parts = parts;
    const options = { kernel: 'Image', initrd: 'initrd', memory: '16M', kvm: fake.kvm };
    const { machine } = await prepare(options, given.platform);
    const { bytes } = fake.vms[0]!.memory!;
    const lengths = parts.map(([, length]) => length);
    expect(lengths).toEqual([20_000, 5000, lengths[2]]);
    const [kernel, initrd, dtb] = parts.map(([offset, length]) => bytes.subarray(offset, offset + length));
    expect([kernel, initrd]).toEqual([files.Image, files.initrd]);
    expect([...dtb!.subarray(0, 4)]).toEqual([0xd0, 0x0d, 0xfe, 0xed]);
    machine.close();
  });

  test('may have an initrd that was given as bytes', async () => {
    const given = platformOf(files);
    const { fake, made } = await create(given, { initrd: files.initrd });
    const { machine } = await made;
    const found = Buffer.from(fake.vms[0]!.memory!.bytes).indexOf(files.initrd);
    expect(found).toBeGreaterThan(20_000);
    machine.close();
  });

  test('is given up whole where a part can’t be read: not before the other is read, and nothing stays open', async () => {
    const given = platformOf(files);
    const { openFile } = given.platform;
    let memory: { readonly closed: boolean } | undefined;
    const platform: Platform = {
      ...given.platform,
      openFile: (source, what) => {
        const file = openFile!(source, what)!;
        if (what !== 'kernel') {
          const read = async (): Promise<void> => {
            for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
            given.log.push(`memory ${memory!.closed ? 'closed' : 'open'}`);
          };
          return { ...file, read };
        }
        return {
          ...file,
          read: async (into, position) => {
            if (into.length > 4096) throw new VmError('ERR_FILE', 'kernel: it became shorter');
            await file.read(into, position);
          },
        };
      },
    };
    const fake = new FakeKvm(function* () {});
    const made = prepare({ kernel: 'Image', initrd: 'initrd', memory: '16M', kvm: fake.kvm }, platform);
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    memory = fake.vms[0]!.memory!;
    await expect(made).rejects.toMatchObject({ code: 'ERR_FILE' });
    expect(given.log).toContain('memory open');
    expect(given.log.slice(-2)).toEqual(['close Image', 'close initrd']);
    expect(memory.closed).toBe(true);
  });

  test('is read while the machine is built, whose RAM stays until then where it can’t be', async () => {
    const given = platformOf(files);
    const { openFile } = given.platform;
    let closedAtEnd: boolean | undefined;
    const platform: Platform = {
      ...given.platform,
      openFile: (source, what) => {
        const file = openFile!(source, what)!;
        return {
          ...file,
          read: async (into, position) => {
            await file.read(into, position);
            if (into.length === 5000) closedAtEnd = fake.vms[0]!.memory!.closed;
          },
        };
      },
    };
    const fake = new FakeKvm(function* () {});
    const options = { kernel: 'Image', initrd: 'initrd', memory: '16M', kvm: fake.kvm, gic: 2 } as const;
    await expect(prepare(options, platform)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
    expect(given.log).toContain('read initrd 0+5000');
    expect(closedAtEnd).toBe(false);
    expect(fake.vms[0]!.memory!.closed).toBe(true);
    expect(given.log.slice(-2)).toEqual(['close Image', 'close initrd']);
  });

  test('is closed where there is no KVM', async () => {
    const given = platformOf(files);
    await expect(prepare({ kernel: 'Image', memory: '16M' }, given.platform)).rejects.toThrow('bring their own');
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(given.log.at(-1)).toBe('close Image');
  });

  test('that does not fit is refused as ever', async () => {
    const given = platformOf({ Image: Buffer.concat([image(), new Uint8Array(20 << 20)]) });
    const { made } = await create(given);
    await expect(made).rejects.toMatchObject({ code: 'ERR_KERNEL_TOO_BIG' });
    expect(given.log.at(-1)).toBe('close Image');
  });
});

test('what is no Image is read whole, to be unpacked', async () => {
  const given = platformOf({ Image: new Uint8Array(100) });
  const { made } = await create(given);
  await expect(made).rejects.toMatchObject({ code: 'ERR_KERNEL_FORMAT' });
  expect(given.log).toEqual(['open Image', 'read Image 0+100', 'close Image', 'read all of Image']);
});

test('what can’t be opened for that is read whole', async () => {
  const given = platformOf({ Image: image() }, { openFile: () => undefined });
  const { made } = await create(given);
  (await made).machine.close();
  expect(given.log).toEqual(['read all of Image']);
});
