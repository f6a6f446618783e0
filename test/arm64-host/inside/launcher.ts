import { expect, test } from '@jest/globals';
import { elvisor } from '../../cli/launcher.ts';

test('elvisor run boots the default guest in a VM of this kernel, and prints what the command prints', async () => {
  const { status, stdout, stderr } = await elvisor(['run', '--backend', 'kvm', '--', 'uname', '-a']);
  expect({ status, stderr }).toMatchObject({ status: 0 });
  expect(stdout).toMatch(/^Linux elvisor [0-9.]+.* aarch64 GNU\/Linux\n$/);
});
