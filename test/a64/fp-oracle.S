// Runs single instructions under qemu-aarch64 on states from stdin; see fp-oracle.ts for the layouts.
        .global _start
        .text
_start: mov     x0, #0
        mov     x1, #(192 << 20)
        mov     x2, #7                  // PROT_READ | PROT_WRITE | PROT_EXEC
        mov     x3, #0x22               // MAP_PRIVATE | MAP_ANONYMOUS
        mov     x4, #-1
        mov     x5, #0
        mov     x8, #222                // mmap
        svc     #0
        mov     x19, x0                 // input, output at 64 MiB, code at 128 MiB
        mov     x20, #0
1:      mov     x0, #0
        add     x1, x19, x20
        mov     x2, #0x100000
        mov     x8, #63                 // read
        svc     #0
        cmp     x0, #0
        b.le    2f
        add     x20, x20, x0
        b       1b
2:      ldr     w21, [x19]              // instructions
        ldr     w22, [x19, #4]          // tests
        mov     x9, #(64 << 20)
        add     x23, x19, x9
        add     x24, x23, x9
        add     x10, x19, #16
        mov     x12, x24
        ldr     w13, =0xd65f03c0        // ret
3:      ldr     w9, [x10], #4
        stp     w9, w13, [x12], #8
        subs    w21, w21, #1
        b.ne    3b
        add     x10, x10, #15
        and     x10, x10, #-16
        mov     x11, x23
4:      ldr     w9, [x10]
        add     x9, x24, x9, lsl #3
        ldr     w0, [x10, #8]
        msr     fpcr, x0
        ldr     w0, [x10, #12]
        msr     fpsr, x0
        ldp     x1, x2, [x10, #16]
        ldp     q0, q1, [x10, #32]
        ldp     q2, q3, [x10, #64]
        ldr     w0, [x10, #4]
        msr     nzcv, x0
        mov     x0, #-1
        blr     x9
        mrs     x3, nzcv
        mrs     x4, fpsr
        str     x0, [x11]
        stp     w3, w4, [x11, #8]
        str     q0, [x11, #16]
        add     x10, x10, #96
        add     x11, x11, #32
        subs    w22, w22, #1
        b.ne    4b
        sub     x20, x11, x23
5:      mov     x0, #1
        mov     x1, x23
        mov     x2, x20
        mov     x8, #64                 // write
        svc     #0
        cmp     x0, #0
        b.le    6f
        add     x23, x23, x0
        subs    x20, x20, x0
        b.ne    5b
6:      mov     x0, #0
        mov     x8, #93                 // exit
        svc     #0
