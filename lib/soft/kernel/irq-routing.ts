import { type IrqRoutingEntry, KvmError, type Msi } from '../../kvm/index.js';

/** KVM_CAP_IRQ_ROUTING: GSIs from 0 to 4,095. */
export const NR_GSIS = 4096;
/** KVM_IRQCHIP_NUM_PINS: SPIs that a routing table can name. */
const NR_PINS = 1020 - 32;

/** Where irqfds lead: GSI to SPI (0 is INTID 32), or to an MSI. */
export class IrqRouting {
  #spis: ReadonlyMap<number, number> | undefined;
  #gsis: ReadonlyMap<number, number> = new Map();
  #msis: ReadonlyMap<number, Msi> = new Map();

  /** The SPI of `gsi`; before KVM_SET_GSI_ROUTING, gsi n is SPI n. */
  spi(gsi: number): number | undefined {
    if (this.#spis !== undefined) return this.#spis.get(gsi);
    return gsi < NR_PINS ? gsi : undefined;
  }

  /** The MSI of `gsi`. */
  msi(gsi: number): Msi | undefined {
    return this.#msis.get(gsi);
  }

  /** The GSI that leads to `spi`: of several the last of the table, as in the kernel. */
  gsi(spi: number): number | undefined {
    return this.#spis === undefined ? spi : this.#gsis.get(spi);
  }

  /** KVM_SET_GSI_ROUTING. @throws KvmError EINVAL; nothing changes then */
  set(entries: readonly IrqRoutingEntry[]): void {
    if (entries.length > NR_GSIS) throw invalid(`${entries.length} entries are more than ${NR_GSIS}`);
    const spis = new Map<number, number>();
    const gsis = new Map<number, number>();
    const msis = new Map<number, Msi>();
    for (const entry of entries) {
      if (!Number.isInteger(entry.gsi) || entry.gsi < 0 || entry.gsi >= NR_GSIS) {
        throw invalid(`gsi ${entry.gsi} is not below ${NR_GSIS}`);
      }
      if (spis.has(entry.gsi) || msis.has(entry.gsi)) throw invalid(`gsi ${entry.gsi} is there twice`);
      if (entry.type === 'msi') {
        msis.set(entry.gsi, { ...entry });
        continue;
      }
      if (entry.irqchip !== 0 || (entry.flags ?? 0) !== 0) throw invalid('an irqchip entry is of irqchip 0, no flags');
      if (!Number.isInteger(entry.pin) || entry.pin < 0 || entry.pin >= NR_PINS) {
        throw invalid(`pin ${entry.pin} is not below ${NR_PINS}`);
      }
      spis.set(entry.gsi, entry.pin);
      gsis.set(entry.pin, entry.gsi);
    }
    this.#spis = spis;
    this.#gsis = gsis;
    this.#msis = msis;
  }
}

const invalid = (detail: string): KvmError => new KvmError('EINVAL', 'KVM_SET_GSI_ROUTING', detail);
