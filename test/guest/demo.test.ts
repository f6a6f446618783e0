import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { demoImage } from '#lib/guest/demo.js';
import { loadKernel } from '#lib/vmm/boot/index.js';
import { withPrograms } from '../oracle.ts';

test('the demo is an arm64 Image with room for its stacks', async () => {
  const kernel = await loadKernel(demoImage());
  expect(kernel).toMatchObject({ kind: 'image', textOffset: 0, pageSize: 4096 });
  expect(kernel.kind === 'image' && kernel.imageSize).toBe(demoImage().length + 3 * 4096);
});

withPrograms('qemu-system-aarch64').each([1, 3, 18])(
  'on QEMU with %i CPUs it prints, takes an interrupt, starts the others and powers off',
  (cpus) => {
    const dir = mkdtempSync(join(tmpdir(), 'elvisor-demo-'));
    try {
      const image = join(dir, 'demo.img');
      writeFileSync(image, demoImage());
      const machine = [
        '-M',
        'virt,gic-version=3',
        '-cpu',
        'cortex-a57',
        '-smp',
        `${cpus}`,
        '-m',
        '64',
        '-display',
        'none',
      ];
      const run = spawnSync(
        'qemu-system-aarch64',
        [...machine, '-serial', 'stdio', '-monitor', 'none', '-kernel', image],
        {
          encoding: 'utf8',
          timeout: 50_000,
        },
      );
      if (run.error !== undefined) throw run.error;
      const others = Array.from({ length: cpus - 1 }, (_, i) => `vCPU ${i + 1} is on, at EL1`);
      expect(run.stdout.split('\r\n')).toEqual([
        'elvisor demo: bare metal on arm64, at EL1',
        'timer: took interrupt 27',
        ...others,
        `${cpus} vCPU(s) were up. Powering off.`,
        '',
      ]);
      expect(run.status).toBe(0);
    } finally {
      rmSync(dir, { recursive: true });
    }
  },
);
