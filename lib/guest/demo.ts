import { Assembler, Cond, LR, SP, XZR } from './asm.js';

/** The board's addresses (QEMU's `virt`, which promises them to nobody but keeps them). */
const PL011 = 0x0900_0000;
const GICD = 0x0800_0000;
const GICR = 0x080a_0000;
/** The virtual timer's interrupt: PPI 11, INTID 27. */
const VTIMER = 27;

/** PSCI 1.0 function ids (Arm DEN 0022). */
const Psci = { CPU_OFF: 0x8400_0002, CPU_ON: 0xc400_0003, SYSTEM_OFF: 0x8400_0008 } as const;
const PSCI_INVALID_PARAMETERS = -2;

const STACK = 4096;

/**
 * The embedded guest: bare metal, assembled here, no download. As an arm64 Image it boots where Linux does. It prints on
 * the PL011 at which exception level it is, takes one interrupt of the virtual timer through the GICv3, starts every
 * other vCPU by PSCI (there are as many as CPU_ON takes), and powers off.
 *
 * @returns an arm64 Image
 */
export function demoImage(): Uint8Array {
  const a = new Assembler();
  header(a);
  main(a);
  secondary(a);
  interrupt(a);
  unexpected(a);
  print(a);
  vectors(a);
  const image = data(a);
  // image_size: with the stacks, which the file does not hold.
  new DataView(image.buffer).setBigUint64(16, BigInt(image.length + 3 * STACK), true);
  return image;
}

/** Linux, Documentation/arch/arm64/booting.rst, 4. */
function header(a: Assembler): void {
  a.b('main').nop();
  // text_offset 0; image_size is filled in at the end; flags: little-endian, 4 KiB pages, placed anywhere.
  a.quad(0n).quad(0n).quad(0xan).quad(0n).quad(0n).quad(0n);
  a.data(new TextEncoder().encode('ARM\x64')).word(0);
}

/** The boot vCPU: X0 is the device tree, which it does not read. */
function main(a: Assembler): void {
  a.label('main');
  stack(a, 1);
  a.adr(0, 'vectors').msr('VBAR_EL1', 0).isb();
  // The UART: 8 bits with FIFO, then on (PrimeCell UART DDI 0183 §3.3.7, §3.3.8).
  a.constant(28, PL011).movz(0, 0x70).strW(0, 28, 0x2c).movz(0, 0x301).strW(0, 28, 0x30);
  say(a, 'hello').mrs(0, 'CurrentEL').lsr(0, 0, 2).bl('number');
  say(a, 'newline');

  // The distributor: affinity routing, group 1 on (GICD_CTLR); wait for RWP.
  a.constant(1, GICD).movz(0, 0x12).strW(0, 1);
  a.label('distributor').ldrW(0, 1).tbnz(0, 31, 'distributor');
  // This vCPU's redistributor: wake it (GICR_WAKER.ProcessorSleep, ChildrenAsleep).
  a.constant(1, GICR).strW(XZR, 1, 0x14);
  a.label('redistributor').ldrW(0, 1, 0x14).tbnz(0, 2, 'redistributor');
  // Its SGI frame: the timer's PPI in group 1, priority 0x80, enabled.
  a.constant(1, GICR + 0x1_0000).constant(0, 1 << VTIMER);
  a.strW(0, 1, 0x80).movz(2, 0x80);
  a.addImm(3, 1, 0x400).strb(2, 3, VTIMER).strW(0, 1, 0x100);
  // The CPU interface: system registers, every priority, group 1 on.
  a.movz(0, 7).msr('ICC_SRE_EL1', 0).isb();
  a.movz(0, 0xff).msr('ICC_PMR_EL1', 0).movz(0, 1).msr('ICC_IGRPEN1_EL1', 0).isb();
  // The timer: a 128th of a second from now.
  a.mrs(0, 'CNTFRQ_EL0').lsr(0, 0, 7).msr('CNTV_TVAL_EL0', 0).movz(0, 1).msr('CNTV_CTL_EL0', 0).isb();
  a.adr(20, 'taken').daifClr(2);
  a.label('sleep').ldr(21, 20).cbnz(21, 'awake').wfi().b('sleep');
  a.label('awake').daifSet(2);
  say(a, 'timer').mov(0, 21).bl('number');
  say(a, 'newline');

  // The other vCPUs. The n-th has Aff0 n mod 16, Aff1 n div 16, as KVM numbers them.
  a.movz(19, 1).adr(20, 'online');
  a.label('next').ubfx(1, 19, 0, 4).lsr(2, 19, 4).orr(1, 1, 2, 8);
  a.str(XZR, 20).dsb();
  a.constant(0, Psci.CPU_ON).adr(2, 'secondary').mov(3, 19).hvc();
  a.cmnImm(0, -PSCI_INVALID_PARAMETERS).bCond(Cond.EQ, 'done');
  a.cbz(0, 'started').mov(21, 0);
  say(a, 'refused').mov(0, 21).bl('hex');
  say(a, 'newline');
  a.b('off');
  a.label('started').ldr(0, 20).cbnz(0, 'answered').wfe().b('started');
  a.label('answered').addImm(19, 19, 1).b('next');

  a.label('done').mov(0, 19).bl('number');
  say(a, 'bye');
  a.label('off').constant(0, Psci.SYSTEM_OFF).hvc();
  a.label('stuck').wfi().b('stuck');
}

/** Where CPU_ON starts a vCPU: X0 is its number. It says so, tells the boot vCPU, and goes off. */
function secondary(a: Assembler): void {
  a.label('secondary');
  // One stack for all: the next is started when this one has no more use for it.
  stack(a, 2);
  a.mov(22, 0).adr(0, 'vectors').msr('VBAR_EL1', 0).isb().constant(28, PL011);
  say(a, 'cpu').mov(0, 22).bl('number');
  say(a, 'at').mrs(0, 'CurrentEL').lsr(0, 0, 2).bl('number');
  say(a, 'newline');
  a.adr(1, 'online').movz(0, 1).str(0, 1).dsb().sev();
  a.constant(0, Psci.CPU_OFF).hvc().b('stuck');
}

/** The IRQ handler: acknowledges, remembers which it was, silences the timer. */
function interrupt(a: Assembler): void {
  a.label('irq').stpPre(0, 1, SP, -16);
  a.mrs(0, 'ICC_IAR1_EL1').adr(1, 'taken').str(0, 1);
  a.msr('CNTV_CTL_EL0', XZR).isb().msr('ICC_EOIR1_EL1', 0);
  a.ldpPost(0, 1, SP, 16).eret();
}

/** Any other exception: says which, and powers off. */
function unexpected(a: Assembler): void {
  a.label('exception').constant(28, PL011);
  say(a, 'fault').mrs(0, 'ESR_EL1').bl('hex');
  say(a, 'elr').mrs(0, 'ELR_EL1').bl('hex');
  say(a, 'newline');
  a.b('off');
}

/** Printing, with the UART's base in X28: `puts` (X0), `number` (X0 in decimal), `hex` (X0). They use X0 to X7. */
function print(a: Assembler): void {
  // X1 is the byte; UARTFR.TXFF is bit 5.
  a.label('putc').ldrW(2, 28, 0x18).tbnz(2, 5, 'putc').strW(1, 28).ret();

  a.label('puts').stpPre(LR, XZR, SP, -16);
  a.label('puts_next').ldrbPost(1, 0, 1).cbz(1, 'puts_end').bl('putc').b('puts_next');
  a.label('puts_end').ldpPost(LR, XZR, SP, 16).ret();

  // The digits come out last first, so they go through the stack: X4 counts them.
  a.label('number').stpPre(LR, XZR, SP, -16).movz(3, 10).movz(4, 0);
  a.label('number_digit')
    .udiv(5, 0, 3)
    .msub(6, 5, 3, 0)
    .stpPre(6, XZR, SP, -16)
    .addImm(4, 4, 1)
    .mov(0, 5)
    .cbnz(0, 'number_digit');
  a.label('number_put').ldpPost(1, XZR, SP, 16).addImm(1, 1, 0x30).bl('putc').subImm(4, 4, 1).cbnz(4, 'number_put');
  a.ldpPost(LR, XZR, SP, 16).ret();

  a.label('hex').stpPre(LR, XZR, SP, -16).movz(4, 16);
  a.label('hex_digit').lsr(1, 0, 60).addImm(1, 1, 0x30).cmpImm(1, 0x3a).bCond(Cond.LO, 'hex_put').addImm(1, 1, 0x27);
  a.label('hex_put')
    .bl('putc')
    .add(0, 0, 0)
    .add(0, 0, 0)
    .add(0, 0, 0)
    .add(0, 0, 0)
    .subImm(4, 4, 1)
    .cbnz(4, 'hex_digit');
  a.ldpPost(LR, XZR, SP, 16).ret();
}

/** The vector table: 16 entries of 0x80 bytes (Arm ARM DDI 0487 D1.3.1.1); the sixth is an IRQ at EL1 on its own stack. */
function vectors(a: Assembler): void {
  a.align(2048).label('vectors');
  for (let i = 0; i < 16; i++) a.align(0x80).b(i === 5 ? 'irq' : 'exception');
  a.align(0x80);
}

function data(a: Assembler): Uint8Array {
  a.align(8).label('taken').quad(0n).label('online').quad(0n);
  const texts: Record<string, string> = {
    hello: 'elvisor demo: bare metal on arm64, at EL',
    timer: 'timer: took interrupt ',
    cpu: 'vCPU ',
    at: ' is on, at EL',
    refused: 'PSCI CPU_ON failed with 0x',
    bye: ' vCPU(s) were up. Powering off.\n',
    fault: 'unexpected exception: ESR 0x',
    elr: ' ELR 0x',
    newline: '\n',
  };
  for (const [name, text] of Object.entries(texts)) a.label(name).text(text.replaceAll('\n', '\r\n'));
  a.align(16).label('end');
  return a.assemble();
}

/** SP to the top of the `n`-th stack above the image. */
function stack(a: Assembler, n: number): void {
  a.adr(9, 'end')
    .constant(10, n * STACK)
    .add(9, 9, 10)
    .addImm(SP, 9, 0);
}

/** Prints a text by its label. */
function say(a: Assembler, label: string): Assembler {
  return a.adr(0, label).bl('puts');
}
