// Indirect branches in a program that is marked for BTI, as the guest's init: each is made by a child of its own, and a line of
// output is what became of it, by wait4(2), in hexadecimal.

        .arch   armv8.5-a

        .equ    SYS_write, 64
        .equ    SYS_exit, 93
        .equ    SYS_reboot, 142
        .equ    SYS_clone, 220
        .equ    SYS_wait4, 260
        .equ    SIGCHLD, 17

        .macro  syscall number
        mov     x8, #\number
        svc     #0
        .endm

        // What comes up to `end` is made by a child.
        .macro  child end
        mov     x0, #SIGCHLD
        mov     x1, xzr
        mov     x2, xzr
        mov     x3, xzr
        mov     x4, xzr
        syscall SYS_clone
        cbnz    x0, \end
        .endm

        .text
        .global _start
_start:
        child   1f
        adr     x0, at_bti_c
        blr     x0
1:      bl      report
        child   2f
        adr     x0, at_bti_j
        blr     x0
2:      bl      report
        child   3f
        adr     x0, at_neither
        blr     x0
3:      bl      report
        child   4f
        adr     x0, at_bti_c
        br      x0
4:      bl      report
        child   5f
        adr     x16, at_bti_c
        br      x16
5:      bl      report
        child   6f
        adr     x0, at_bti_j
        br      x0
6:      bl      report
        child   7f
        adr     x0, at_paciasp
        blr     x0
7:      bl      report
        child   8f
        adr     x0, at_paciasp
        br      x0
8:      bl      report
        // The same, hot: 20,000 calls that are fine, and one that is not.
        child   9f
        mov     x19, #20000
        adr     x20, returns
hot:    blr     x20
        subs    x19, x19, #1
        b.ne    hot
        add     x20, x20, #4
        blr     x20
9:      bl      report
        movz    x0, #0xdead
        movk    x0, #0xfee1, lsl #16
        movz    x1, #0x1969
        movk    x1, #0x2812, lsl #16
        movz    x2, #0xfedc
        movk    x2, #0x4321, lsl #16
        syscall SYS_reboot

at_bti_c:
        bti     c
        mov     x0, #0x0c
        syscall SYS_exit
at_bti_j:
        bti     j
        mov     x0, #0x0e
        syscall SYS_exit
at_neither:
        mov     x0, #0x01
        syscall SYS_exit
at_paciasp:
        paciasp
        mov     x0, #0x0a
        syscall SYS_exit
returns:
        bti     c
        ret

// Waits for the child and prints its status.
report:
        mov     x21, x30
        sub     sp, sp, #32
        mov     x1, sp
        mov     x2, xzr
        mov     x3, xzr
        syscall SYS_wait4
        ldr     w9, [sp]
        mov     w10, #0x20
        mov     w11, #'='
        strb    w11, [sp, #8]
        strb    w10, [sp, #9]
        add     x12, sp, #10
        mov     x13, #8
digit:  ror     w9, w9, #28
        and     w14, w9, #15
        cmp     w14, #9
        add     w15, w14, #'0'
        add     w16, w14, #'a' - 10
        csel    w15, w15, w16, ls
        strb    w15, [x12], #1
        subs    x13, x13, #1
        b.ne    digit
        mov     w15, #'\n'
        strb    w15, [x12]
        mov     x0, #1
        add     x1, sp, #8
        mov     x2, #11
        syscall SYS_write
        add     sp, sp, #32
        ret     x21
