import {
  GICC_BASE,
  GICC_SIZE,
  GICD_BASE,
  GICD_SIZE,
  GICD_V2_SIZE,
  GICR_BASE,
  GICR_STRIDE,
  ITS_BASE,
  ITS_SIZE,
  mpidrOf,
  PL011,
  PL031,
  PL061,
  PMU_PPI,
  POWER_KEY_GPIO,
  RAM_BASE,
  TIMER_PPIS,
  virtioSlot,
} from './board.js';
import { KEY_POWER } from './devices/power-key.js';
import { FdtWriter } from './fdt/index.js';

/** Interrupt types and flags of a GIC specifier (Linux, `Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml`). */
const GIC_SPI = 0;
const GIC_PPI = 1;
const EDGE_RISING = 1;
const LEVEL_HIGH = 4;
/** Of the AMBA clock that the PL devices are said to run on. */
const APB_HZ = 24_000_000;

const PHANDLE = { gic: 1, clock: 2, gpio: 3, its: 4 } as const;

/** What the device tree says of one machine. */
export interface BoardDescription {
  readonly cpus: number;
  /** The GIC's version; 3 if not given. */
  readonly gic?: 2 | 3 | undefined;
  /** Whether the GICv3 has an ITS. */
  readonly its?: boolean | undefined;
  /** Whether the vCPUs have PMUs. */
  readonly pmu?: boolean | undefined;
  /** Bytes. */
  readonly memorySize: number;
  /** virtio-mmio slots with a device behind them. */
  readonly virtioSlots: readonly number[];
  /** The kernel command line. */
  readonly bootargs?: string | undefined;
  /** Guest-physical, end exclusive. */
  readonly initrd?: { readonly start: number; readonly end: number } | undefined;
  /** Entropy for the guest's random number generator (`rng-seed`). */
  readonly rngSeed?: Uint8Array | undefined;
  /** For the placement of the kernel in its address space (`kaslr-seed`); none keeps it where it is linked. */
  readonly kaslrSeed?: bigint | undefined;
}

/**
 * The device tree of the board: what QEMU's `virt` says of the same parts (`hw/arm/virt.c`), with virtio_mmio nodes only
 * where there is a device, so that a guest does not probe 32 empty slots.
 */
export function boardFdt(board: BoardDescription): Uint8Array {
  const w = new FdtWriter();
  w.node('', () => {
    w.string('compatible', 'linux,dummy-virt').string('model', 'linux,dummy-virt');
    w.cells('#address-cells', 2).cells('#size-cells', 2).cells('interrupt-parent', PHANDLE.gic);
    chosen(w, board);
    w.node('psci', () => w.stringList('compatible', 'arm,psci-1.0', 'arm,psci-0.2').string('method', 'hvc'));
    cpus(w, board.cpus);
    w.node(unit('memory', RAM_BASE), () => w.string('device_type', 'memory').reg('reg', [RAM_BASE, board.memorySize]));
    timer(w, board);
    if (board.pmu === true) pmu(w, board);
    gic(w, board);
    w.node('apb-pclk', () =>
      w
        .string('compatible', 'fixed-clock')
        .cells('#clock-cells', 0)
        .cells('clock-frequency', APB_HZ)
        .string('clock-output-names', 'clk24mhz')
        .phandle(PHANDLE.clock),
    );
    platform(w);
    for (const n of board.virtioSlots) {
      const slot = virtioSlot(n);
      w.node(unit('virtio_mmio', slot.base), () =>
        w
          .string('compatible', 'virtio,mmio')
          .reg('reg', [slot.base, slot.size])
          .cells('interrupts', GIC_SPI, slot.spi, EDGE_RISING)
          .flag('dma-coherent'),
      );
    }
  });
  return w.finish();
}

function chosen(w: FdtWriter, board: BoardDescription): void {
  w.node('chosen', () => {
    w.string('stdout-path', `/${unit('pl011', PL011.base)}`);
    if (board.bootargs !== undefined) w.string('bootargs', board.bootargs);
    if (board.initrd !== undefined) {
      w.u64('linux,initrd-start', board.initrd.start).u64('linux,initrd-end', board.initrd.end);
    }
    if (board.rngSeed !== undefined) w.bytes('rng-seed', board.rngSeed);
    if (board.kaslrSeed !== undefined) w.u64('kaslr-seed', board.kaslrSeed);
  });
}

function cpus(w: FdtWriter, count: number): void {
  w.node('cpus', () => {
    w.cells('#address-cells', 1).cells('#size-cells', 0);
    for (let id = 0; id < count; id++) {
      const mpidr = mpidrOf(id);
      w.node(unit('cpu', mpidr), () => {
        w.string('device_type', 'cpu').string('compatible', 'arm,armv8').cells('reg', mpidr);
        w.string('enable-method', 'psci');
      });
    }
  });
}

/** The flags of a PPI's specifier: a GICv2's says which CPUs have it, in bits 15..8. */
const ppiFlags = ({ cpus, gic: version = 3 }: BoardDescription): number =>
  LEVEL_HIGH | (version === 2 ? (2 ** cpus - 1) << 8 : 0);

function timer(w: FdtWriter, board: BoardDescription): void {
  const flags = ppiFlags(board);
  w.node('timer', () =>
    w
      .stringList('compatible', 'arm,armv8-timer', 'arm,armv7-timer')
      .cells('interrupts', ...TIMER_PPIS.flatMap((ppi) => [GIC_PPI, ppi, flags]))
      .flag('always-on'),
  );
}

function pmu(w: FdtWriter, board: BoardDescription): void {
  w.node('pmu', () => w.string('compatible', 'arm,armv8-pmuv3').cells('interrupts', GIC_PPI, PMU_PPI, ppiFlags(board)));
}

function gic(w: FdtWriter, { cpus, gic: version = 3, its = false }: BoardDescription): void {
  w.node(unit('intc', GICD_BASE), () => {
    w.cells('#interrupt-cells', 3).flag('interrupt-controller');
    if (version === 2) {
      w.string('compatible', 'arm,cortex-a15-gic').cells('#address-cells', 0);
      w.reg('reg', [GICD_BASE, GICD_V2_SIZE], [GICC_BASE, GICC_SIZE]).phandle(PHANDLE.gic);
      return;
    }
    w.string('compatible', 'arm,gic-v3').cells('#redistributor-regions', 1);
    w.reg('reg', [GICD_BASE, GICD_SIZE], [GICR_BASE, GICR_STRIDE * cpus]).phandle(PHANDLE.gic);
    if (!its) {
      w.cells('#address-cells', 0);
      return;
    }
    w.cells('#address-cells', 2).cells('#size-cells', 2).flag('ranges');
    w.node(unit('its', ITS_BASE), () =>
      w
        .string('compatible', 'arm,gic-v3-its')
        .flag('msi-controller')
        .cells('#msi-cells', 1)
        .reg('reg', [ITS_BASE, ITS_SIZE])
        .phandle(PHANDLE.its),
    );
  });
}

function platform(w: FdtWriter): void {
  w.node(unit('pl011', PL011.base), () =>
    w
      .stringList('compatible', 'arm,pl011', 'arm,primecell')
      .reg('reg', [PL011.base, PL011.size])
      .cells('interrupts', GIC_SPI, PL011.spi, LEVEL_HIGH)
      .cells('clocks', PHANDLE.clock, PHANDLE.clock)
      .stringList('clock-names', 'uartclk', 'apb_pclk'),
  );
  w.node(unit('pl031', PL031.base), () =>
    w
      .stringList('compatible', 'arm,pl031', 'arm,primecell')
      .reg('reg', [PL031.base, PL031.size])
      .cells('interrupts', GIC_SPI, PL031.spi, LEVEL_HIGH)
      .cells('clocks', PHANDLE.clock)
      .string('clock-names', 'apb_pclk'),
  );
  w.node(unit('pl061', PL061.base), () =>
    w
      .stringList('compatible', 'arm,pl061', 'arm,primecell')
      .reg('reg', [PL061.base, PL061.size])
      .cells('interrupts', GIC_SPI, PL061.spi, LEVEL_HIGH)
      .cells('#gpio-cells', 2)
      .flag('gpio-controller')
      .cells('#address-cells', 0)
      .cells('#interrupt-cells', 2)
      .flag('interrupt-controller')
      .cells('clocks', PHANDLE.clock)
      .string('clock-names', 'apb_pclk')
      .phandle(PHANDLE.gpio),
  );
  w.node('gpio-keys', () => {
    w.string('compatible', 'gpio-keys');
    w.node('poweroff', () =>
      w
        .string('label', 'GPIO Key Poweroff')
        .cells('linux,code', KEY_POWER)
        .cells('gpios', PHANDLE.gpio, POWER_KEY_GPIO, 0),
    );
  });
}

const unit = (name: string, address: number): string => `${name}@${address.toString(16)}`;
