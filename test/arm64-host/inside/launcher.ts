import { expect, test } from '@jest/globals';
import { elvisor } from '../../cli/launcher.ts';

const HAS_KVM = process.env.REQUIRE_KVM === '1';
const run = () => elvisor(['run', '--backend', 'kvm', '--', 'uname', '-a']);

if (HAS_KVM) {
  test('elvisor run boots the default guest as a VM of this kernel, and prints what the command prints', async () => {
    const { status, stdout, stderr } = await run();
    expect({ status, stderr }).toMatchObject({ status: 0 });
    expect(stdout).toMatch(/^Linux elvisor [0-9.]+.* aarch64 GNU\/Linux\n$/);
  });
} else {
  test('elvisor run --backend kvm says why there is no KVM, and what to do', async () => {
    const { status, stdout, stderr } = await run();
    expect({ status: status !== 0, stdout }).toEqual({ status: true, stdout: '' });
    expect(stderr).toMatch(/^elvisor: backend kvm is not available: .*\/dev\/kvm.*soft/);
  });
}
