// What counts itself by perf_event_open, as the guest's init. Each line of its output is a letter and a number in hexadecimal.

        .equ    SYS_ioctl, 29
        .equ    SYS_read, 63
        .equ    SYS_write, 64
        .equ    SYS_reboot, 142
        .equ    SYS_perf_event_open, 241
        .equ    PERF_EVENT_IOC_ENABLE, 0x2400
        .equ    PERF_EVENT_IOC_DISABLE, 0x2401
        .equ    PERF_EVENT_IOC_REFRESH, 0x2402
        .equ    PERF_COUNT_HW_CPU_CYCLES, 0
        .equ    PERF_COUNT_HW_INSTRUCTIONS, 1
        // struct perf_event_attr.
        .equ    ATTR_CONFIG, 8
        .equ    ATTR_SAMPLE_PERIOD, 16

        .macro  syscall number
        mov     x8, #\number
        svc     #0
        .endm

        // Opens an event of this process, at EL0 only, that does not count yet.
        .macro  open event, period
        adr     x0, attr
        mov     x1, #\event
        str     x1, [x0, #ATTR_CONFIG]
        ldr     x1, =\period
        str     x1, [x0, #ATTR_SAMPLE_PERIOD]
        mov     x1, xzr
        mov     x2, #-1
        mov     x3, #-1
        mov     x4, xzr
        syscall SYS_perf_event_open
        mov     x19, x0
        .endm

        .macro  control request, argument
        mov     x0, x19
        mov     x1, #\request
        mov     x2, #\argument
        syscall SYS_ioctl
        .endm

        // Prints a letter and what the event has counted.
        .macro  say letter
        mov     x0, x19
        adr     x1, count
        mov     x2, #8
        syscall SYS_read
        ldr     x0, count
        mov     x1, #\letter
        bl      print
        .endm

        // Three instructions a turn.
        .macro  turns number
        ldr     x20, =\number
1:      nop
        subs    x20, x20, #1
        b.ne    1b
        .endm

        .text
        .global _start
_start:
        // 3,000,000 instructions of the loop, its LDR, and the five of the ioctl that ends it.
        open    PERF_COUNT_HW_INSTRUCTIONS, 0
        control PERF_EVENT_IOC_ENABLE, 0
        turns   1000000
        control PERF_EVENT_IOC_DISABLE, 0
        say     'i'
        open    PERF_COUNT_HW_CPU_CYCLES, 0
        control PERF_EVENT_IOC_ENABLE, 0
        turns   1000000
        control PERF_EVENT_IOC_DISABLE, 0
        say     'c'
        // The third overflow ends it, long before the loop does.
        open    PERF_COUNT_HW_INSTRUCTIONS, 100000
        control PERF_EVENT_IOC_REFRESH, 3
        turns   1000000
        say     's'

        ldr     w0, =0xfee1dead
        ldr     w1, =672274793
        ldr     w2, =0x4321fedc
        syscall SYS_reboot
        b       .

// Prints the letter in X1 and X0.
print:  adr     x2, line
        strb    w1, [x2]
        add     x2, x2, #9
        mov     x3, #8
1:      and     w4, w0, #15
        lsr     x0, x0, #4
        cmp     w4, #10
        add     w5, w4, #'0'
        add     w6, w4, #('a' - 10)
        csel    w4, w5, w6, lo
        strb    w4, [x2], #-1
        subs    x3, x3, #1
        b.ne    1b
        mov     x0, #1
        adr     x1, line
        mov     x2, #11
        mov     x8, #SYS_write
        svc     #0
        ret

        .ltorg
        .balign 8
        // type, size, config, sample_period, sample_type, read_format, flags (disabled, exclude_kernel, exclude_hv), the rest.
attr:   .word   0, 64
        .quad   0, 0, 0, 0, 0x61, 0, 0
count:  .quad   0
line:   .ascii  "? 00000000\n"
