/** The virtio devices and what they are made of. */
export { BlkFeature, type BlockBackend, SECTOR_SIZE, VirtioBlk, type VirtioBlkOptions } from './blk.js';
export { DescriptorChain } from './chain.js';
export { ConsoleFeature, VirtioConsole, type VirtioConsoleOptions } from './console.js';
export { ConsolePort, type ConsolePortHost } from './console-port.js';
export {
  DeviceStatus,
  RingFeature,
  type VirtioActivation,
  type VirtioDevice,
  VirtioDeviceId,
  type VirtioTransport,
} from './device.js';
export { VirtioInput, type VirtioInputOptions } from './input.js';
export { QUEUE_NOTIFY, VIRTIO_MMIO_SIZE, VirtioMmio, type VirtioMmioOptions } from './mmio.js';
export { overlay } from './overlay.js';
export { type QueueHost, type QueueLayout, Virtqueue } from './queue.js';
export { VirtioRng, type VirtioRngOptions } from './rng.js';
