# nmi.S: non-maskable interrupts, sent by the local APIC to its own processor: IF does not matter, one at a time, IRET opens again (SDM vol. 3,
# 6.7, 10.6).
        .include "common.inc"

        .set APIC, HI                   # linear; the page at FEE00000h
        .set T2, 0x38

        .data
        .balign 128
tss2:   .fill 26, 4, 0
count:  .long 0
eip:    .long 0
depth:  .long 0
deepest: .long 0
send:   .long 0
flags:  .long 0
after:  .long 0
        .text
        .macro NMI
        movl $0x4400, APIC+0x300
        .endm
# Notes where it came; sends so many more from inside.
nmi:    movl 4(%esp), %ecx
        incl count
        movl 56(%ecx), %eax
        movl %eax, eip
        movl 64(%ecx), %eax
        movl %eax, flags
        incl depth
        movl depth, %eax
        cmpl deepest, %eax
        jbe 1f
        movl %eax, deepest
1:      cmpl $0, send
        je 2f
        decl send
        NMI
        jmp 1b
2:      decl depth
        ret

test_main:
        MAP APIC, 0xFEE00007
        movl $0x1FF, APIC+0xF0          # enabled
        movl APIC+0x20, %eax
        andl $0xFF000000, %eax
        movl %eax, APIC+0x310
        HOOK 2, nmi
        # -- With IF clear, after the store
        cli
        NMI
1:      nop
        CHECK "NMI: once", count, $1
        CHECK "NMI: in front of the next instruction", eip, $1b
        movl flags, %eax
        andl $0x10200, %eax
        CHECK "NMI: IF and RF in the image", %eax, $0
        # many
        movl $0, count
        movl $100, %ecx
2:      NMI
        decl %ecx
        jnz 2b
        CHECK "NMI: 100", count, $100
        CHECK "NMI: never inside itself", deepest, $1
        # sent from inside: one waits, more are one
        movl $0, count
        movl $1, send
        NMI
1:      nop
        CHECK "NMI from inside: two", count, $2
        CHECK "NMI from inside: one after the other", deepest, $1
        CHECK "NMI from inside: EIP", eip, $1b
        movl $0, count
        movl $3, send
        NMI
        nop
        CHECK "three NMIs from inside: two in all", count, $2
        # behind MOV SS: not before the next instruction is done
        movl $KDS, %ebx
        movl $0, count
        movl %ebx, %ss
        NMI
1:      nop
        CHECK "NMI behind MOV SS", eip, $1b
        # blocked until an IRET, whichever it is
        UNHOOK 2
        movl $0, count
        TRY 1f
        NMI
        nop
1:      MET "NMI without a hook", 2
        HOOK 2, nmi                     # no IRET has been done since
        NMI
        nop
        nop
        CHECK "still blocked", count, $0
        pushl $2
        pushl $KCS
        pushl $1f
        iretl
1:      nop
        CHECK "IRET opens", count, $1
        CHECK "IRET opens: in front of its target", eip, $1b
        # an IRET that faults opens too
        UNHOOK 2
        TRY 1f
        NMI
        nop
1:      MET "NMI without a hook again", 2
        HOOK 2, nmi
        movl $0, count
        NMI
        pushl $2
        pushl $0x138
        pushl $0
        TRY 1f
9:      iretl
1:      MET "IRET that faults", 13, 0x138, 9b
        nop
        CHECK "IRET that faults opens", count, $1
        # -- Ring 3
        movl $0, count
        USER
        movl $0x4400, APIC+0x300
1:      movl $5, %ecx
        UEND
        MET "NMI in ring 3", 0x80
        CHECK "NMI in ring 3: once", count, $1
        CHECK "NMI in ring 3: EIP", eip, $1b
        CHECK "NMI in ring 3: came back", x_ecx, $5
        # -- A task gate
        movl $tss2, %eax
        movl %eax, %edx
        shll $16, %eax
        orl $103, %eax
        movl %eax, gdt+T2
        shrl $16, %edx
        movzbl %dl, %eax
        orl $0x8900, %eax
        movl %eax, gdt+T2+4
        movl $PD, tss2+0x1C
        movl $PD, tss+0x1C
        movl $nmi_task, tss2+0x20
        movl $2, tss2+0x24
        movl $0x880000, tss2+0x38
        movl $KDS, tss2+0x48
        movl $KCS, tss2+0x4C
        movl $KDS, tss2+0x50
        movl $KDS, tss2+0x54
        movl $(T2<<16), idt+2*8
        movl $0x8500, idt+2*8+4
        movl $0, count
        NMI
        nop
        CHECK "NMI through a task gate", count, $1
        NMI
        nop
        CHECK "NMI through a task gate: opened by its IRET", count, $2
        clts
        jmp finish
nmi_task: incl count
        iretl
        jmp nmi_task
        .section .utext
        .balign 4096
utext_end:
