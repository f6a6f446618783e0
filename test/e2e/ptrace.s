// A tracer and what it traces, as the guest's init: single steps, a hardware watchpoint and a hardware breakpoint by ptrace.
// Each line of its output is a letter and a number in hexadecimal; addresses are distances from `tracee`.

        .equ    SYS_write, 64
        .equ    SYS_exit, 93
        .equ    SYS_kill, 129
        .equ    SYS_reboot, 142
        .equ    SYS_getpid, 172
        .equ    SYS_clone, 220
        .equ    SYS_ptrace, 117
        .equ    SYS_wait4, 260
        .equ    SIGCHLD, 17
        .equ    SIGSTOP, 19
        .equ    PTRACE_TRACEME, 0
        .equ    PTRACE_CONT, 7
        .equ    PTRACE_SINGLESTEP, 9
        .equ    PTRACE_GETSIGINFO, 0x4202
        .equ    PTRACE_GETREGSET, 0x4204
        .equ    PTRACE_SETREGSET, 0x4205
        .equ    NT_PRSTATUS, 1
        .equ    NT_ARM_HW_BREAK, 0x402
        .equ    NT_ARM_HW_WATCH, 0x403

        .macro  syscall number
        mov     x8, #\number
        svc     #0
        .endm

        // ptrace(request, child, x2, x3)
        .macro  trace request
        mov     x0, #\request
        mov     x1, x19
        syscall SYS_ptrace
        .endm

        // Prints a letter and X0.
        .macro  say letter
        mov     x1, #\letter
        bl      print
        .endm

        // Sets the first register of a set: address and control.
        .macro  arm_debug set, address, control
        adr     x9, registers
        adr     x10, \address
        mov     w11, #\control
        str     x10, [x9, #8]
        str     w11, [x9, #16]
        mov     x10, #24
        bl      vector
        mov     x2, #\set
        trace   PTRACE_SETREGSET
        say     '='
        .endm

        .text
        .global _start
_start:
        mov     x0, #SIGCHLD
        mov     x1, xzr
        mov     x2, xzr
        mov     x3, xzr
        mov     x4, xzr
        syscall SYS_clone
        cbz     x0, child
        mov     x19, x0
        bl      wait

        // What there is: the version of the debug architecture, and how many.
        adr     x9, registers
        mov     x10, #264
        bl      vector
        mov     x2, #NT_ARM_HW_BREAK
        trace   PTRACE_GETREGSET
        ldr     w0, [x9]
        say     'B'
        adr     x9, registers
        mov     x10, #264
        bl      vector
        mov     x2, #NT_ARM_HW_WATCH
        trace   PTRACE_GETREGSET
        ldr     w0, [x9]
        say     'W'

1:      mov     x2, xzr
        mov     x3, xzr
        trace   PTRACE_SINGLESTEP
        bl      wait
        bl      where
        mov     x20, x0
        say     's'
        cmp     x20, #(stepped - tracee)
        b.ne    1b

        // Stores to the upper half of the doubleword that is stored.
        arm_debug NT_ARM_HW_WATCH, word + 4, 0x1f5
        bl      resume
        arm_debug NT_ARM_HW_WATCH, word + 4, 0
        arm_debug NT_ARM_HW_BREAK, breakpoint, 0x1e5
        bl      resume
        arm_debug NT_ARM_HW_BREAK, breakpoint, 0
        mov     x2, xzr
        mov     x3, xzr
        trace   PTRACE_CONT
        bl      wait

        ldr     w0, =0xfee1dead
        ldr     w1, =672274793
        ldr     w2, =0x4321fedc
        syscall SYS_reboot
        b       .

        // Runs the child to its next signal: code and address of it, and PC.
resume: mov     x22, x30
        mov     x2, xzr
        mov     x3, xzr
        trace   PTRACE_CONT
        bl      wait
        mov     x2, xzr
        adr     x3, buffer
        trace   PTRACE_GETSIGINFO
        adr     x9, buffer
        ldr     w0, [x9, #8]
        say     'c'
        adr     x9, buffer
        ldr     x0, [x9, #16]
        adr     x10, tracee
        sub     x0, x0, x10
        say     'a'
        bl      where
        say     'p'
        ret     x22

        // Waits for the child, and prints the status.
wait:   mov     x21, x30
        mov     x0, x19
        adr     x1, buffer
        mov     x2, xzr
        mov     x3, xzr
        syscall SYS_wait4
        ldr     w0, buffer
        say     '?'
        ret     x21

        // The child's PC.
where:  mov     x21, x30
        adr     x9, buffer
        mov     x10, #272
        bl      vector
        mov     x2, #NT_PRSTATUS
        trace   PTRACE_GETREGSET
        adr     x9, buffer
        ldr     x0, [x9, #256]
        adr     x10, tracee
        sub     x0, x0, x10
        ret     x21

        // X3: an iovec of X9 and X10.
vector: adr     x3, iovec
        stp     x9, x10, [x3]
        ret

print:  adr     x2, line
        strb    w1, [x2]
        add     x3, x2, #10
        mov     x4, #8
1:      and     w5, w0, #15
        cmp     w5, #10
        add     w6, w5, #'0'
        add     w7, w5, #('a' - 10)
        csel    w5, w6, w7, lo
        strb    w5, [x3, #-1]!
        lsr     x0, x0, #4
        subs    x4, x4, #1
        b.ne    1b
        mov     x0, #1
        mov     x1, x2
        mov     x2, #11
        syscall SYS_write
        ret

child:  mov     x0, #PTRACE_TRACEME
        syscall SYS_ptrace
        syscall SYS_getpid
        mov     x1, #SIGSTOP
        syscall SYS_kill
tracee: mov     x9, #2
1:      subs    x9, x9, #1
        b.ne    1b
        mov     x8, #SYS_getpid
        svc     #0
        nop
stepped:
        adr     x11, word
        ldr     x10, [x11]
        mov     x10, #0x1234
        str     x10, [x11]
        nop
breakpoint:
        ldr     x0, [x11]
        and     x0, x0, #0xff
        syscall SYS_exit

        .data
line:   .ascii  "? 00000000\n"
        .balign 8
iovec:  .skip   16
registers:
        .skip   264
buffer: .skip   272
word:   .quad   0
        .quad   0
