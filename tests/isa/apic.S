# apic.S: the local APIC and the I/O APIC as a processor meets them: when interrupts and NMIs are taken, what moving and
# switching off the APIC does (SDM vol. 3, chapters 6 and 10). The chips' own registers are the unit tests'.
        .include "common.inc"

        .set LAPIC, HI                  # linear addresses of the two
        .set IOAPIC, HI + 0x1000
        .set ID, LAPIC + 0x20
        .set VERSION, LAPIC + 0x30
        .set TPR, LAPIC + 0x80
        .set EOI, LAPIC + 0xB0
        .set SVR, LAPIC + 0xF0
        .set ICR, LAPIC + 0x300
        .set TIMER, LAPIC + 0x320
        .set LINT0, LAPIC + 0x350
        .set INITIAL, LAPIC + 0x380
        .set CURRENT, LAPIC + 0x390
        .set DIVIDE, LAPIC + 0x3E0
        .set SELF, 0x44000              # ICR: fixed, to self
        .set NMI, 0x4400                # NMI to physical destination 0
        .set V1, 0x51
        .set V2, 0x61
        .set BASE, 0x1B                 # IA32_APIC_BASE
        .set HIDDEN, 0x900000           # RAM that the APIC is moved over
        .set nmis, 0x400000             # NMIs seen; ring 3 may look

        .data
        .balign 4
count1: .long 0
count2: .long 0
eip1:   .long 0
order:  .long 0                         # vectors in the order they came, a byte each
nmi_depth: .long 0
nmi_max: .long 0
nmi_eip: .long 0
nmi_todo: .long 0                       # NMIs the first handler sends

        .macro IO_WRITE index, value
        movl $(\index), IOAPIC
        movl $(\value), IOAPIC + 0x10
        .endm
        .macro SET_BASE value
        movl $BASE, %ecx
        xorl %edx, %edx
        movl $(\value), %eax
        wrmsr
        .endm
# Writing this value raises #GP(0) and changes nothing.
        .macro REFUSED name, low, high=0
        TRY 1f
        movl $BASE, %ecx
        movl $(\high), %edx
        movl $(\low), %eax
2:      wrmsr
1:      MET "\name", 13, 0, 2b
        movl $BASE, %ecx
        rdmsr
        CHECK "\name: IA32_APIC_BASE", %eax, $0xFEE00900
        .endm

        .text
take1:  movl 4(%esp), %ecx
        movl 56(%ecx), %eax
        movl %eax, eip1
        incl count1
        shll $8, order
        orl $V1, order
        movl $0, EOI
        ret
take2:  incl count2
        shll $8, order
        orl $V2, order
        movl $0, EOI
        ret
# The first NMI sends more; none of them may come before its IRET.
take_nmi:
        incl nmis
        incl nmi_depth
        movl nmi_depth, %eax
        cmpl nmi_max, %eax
        jbe 1f
        movl %eax, nmi_max
1:      movl 4(%esp), %ecx
        movl 56(%ecx), %eax
        movl %eax, nmi_eip
1:      decl nmi_todo
        js 2f
        movl $NMI, ICR
        jmp 1b
2:      decl nmi_depth
        ret

test_main:
        movl %cr0, %eax
        orl $0x10000, %eax
        movl %eax, %cr0
        MAP LAPIC, 0xFEE0001B
        MAP IOAPIC, 0xFEC0001B
        HOOK V1, take1
        HOOK V2, take2
        HOOK 2, take_nmi
        movl $0x1FF, SVR
        movl $0x10000, LINT0
        CHECK "version", VERSION, $0x00050014
        movl $BASE, %ecx
        rdmsr
        CHECK "IA32_APIC_BASE", %eax, $0xFEE00900
        CHECK "its upper half", %edx, $0
        movl $1, %eax
        cpuid
        shrl $24, %ebx
        CHECK "initial APIC ID", %ebx, $0
        shrl $9, %edx
        andl $1, %edx
        CHECK "CPUID: APIC", %edx, $1

        # Every form of MOV, often enough to be known as a device's, from both rings; nothing answers in the video aperture
        MAP 0xA0000, 0xA0007
        movl $20, %edi
        movl $-1, %ebp
        xorl %esi, %esi
1:      movl $0, %eax
        movb 0xA0010, %ah
        movb %ah, %al
        andb 0xA0011(%esi), %al
        movw 0xA0012, %bx
        andw %bx, %ax
        movl 0xA0014(,%esi,4), %ecx
        andl %ecx, %ebp
        movl 0xA0018, %edx
        andl %edx, %ebp
        movl $0x12345678, 0xA0014
        movb $1, 0xA0010(%esi,%esi)
        movb %ch, 0xA0010
        movw %bx, 0xA0020
        movl %edi, TPR
        movl TPR, %ebx
        movl $0x30, TPR
        addl TPR, %ebx
        subl %edi, %ebx
        decl %edi
        jnz 1b
        CHECK "byte and word", %eax, $0xFFFF
        CHECK "doublewords", %ebp, $-1
        CHECK "TPR by register and by immediate", %ebx, $0x30
        movl $20, %edi
2:      USER
        movl $0, %eax
        movl 0xA0014, %eax
        movl %eax, 0xA0014
        movw $1, 0xA0ffe
        movb 0xA0fff, %ah
        UEND
        decl %edi
        jz 3f
        jmp 2b
3:      CHECK "ring 3", x_eax, $-1
        # Not present, read-only, over the end of the page: what would fault still does, after all that
        movl $20, %edi
2:      MAP 0xA1000, 0
        TRY 4f
        movl 0xA0ffe, %eax
4:      MET "read over the end", 14, 0, , 0xA1000
        MAP 0xA0000, 0xA0005
        TRY 4f
        movl %eax, 0xA0ffc
4:      MET "read-only", 14, 3, , 0xA0ffc
        MAP 0xA0000, 0xA0007
        MAP 0xA1000, 0xA1003
        decl %edi
        jz 3f
        jmp 2b
3:      movl $0, TPR

        # To ourselves
        movl $(SELF+V1), ICR
        nop
        CHECK "held back by IF", count1, $0
        sti
1:      nop
        cli
        CHECK "taken once", count1, $1
        CHECK "after the instruction behind STI", eip1, $(1b+1)
        sti
        movl $(SELF+V1), ICR
1:      cli
        CHECK "taken at once", count1, $2
        CHECK "before the next instruction", eip1, $1b
        movl $0, order
        movl $(SELF+V1), ICR
        movl $(SELF+V2), ICR
        sti
        nop
        cli
        CHECK "the higher one first", order, $(V2<<8|V1)

        # The same many times, from one place
        movl $0, count1
        sti
        movl $2000, %esi
1:      movl $(SELF+V1), ICR
        decl %esi
        jnz 1b
        cli
        CHECK "two thousand", count1, $2000

        # Task priority
        movl $0, count1
        movl $0, count2
        sti
        movl $0x5F, TPR
        movl $(SELF+V1), ICR
        movl $(SELF+V2), ICR
        nop
        CHECK "held back by TPR", count1, $0
        CHECK "above TPR", count2, $1
        movl $0x40, TPR
1:      nop
        CHECK "TPR lowered", count1, $1
        CHECK "taken behind the write", eip1, $1b
        movl $0, TPR
        cli

        movl $0, nmis
        # NMIs: with IF clear, once while one waits, not before IRET
        movl $NMI, ICR
1:      nop
        CHECK "NMI", nmis, $1
        CHECK "NMI: before the next instruction", nmi_eip, $1b
        movl $0, nmis
        movl $0, nmi_max
        movl $3, nmi_todo
        movl $NMI, ICR
1:      nop
        CHECK "three NMIs in the handler are one", nmis, $2
        CHECK "NMIs are not nested", nmi_max, $1
        CHECK "the second right after IRET", nmi_eip, $1b
        movl $0, nmis
        movl $1, nmi_todo
        sti
        movl $NMI, ICR
        nop
        cli
        CHECK "the same with IF set", nmis, $2
        movl $0, nmis
        movl $KDS, %eax
        movl %eax, %ss
        movl $NMI, ICR                  # in the shadow of MOV SS
1:      nop
        CHECK "NMI after a shadow", nmis, $1
        CHECK "NMI after a shadow: place", nmi_eip, $1b

        # The timer
        movl $0, count1
        movl $V1, TIMER
        movl $0xB, DIVIDE
        movl $20000, INITIAL
        sti
1:      cmpl $0, count1
        je 1b
        cli
        CHECK "one-shot timer", count1, $1
        CHECK "it stays at zero", CURRENT, $0
        movl $0, count1
        movl $20000, INITIAL
        sti
        hlt
        cli
        CHECK "HLT ends with the timer", count1, $1
        movl $0, count1
        movl $(0x20000+V1), TIMER
        movl $20000, INITIAL
1:      sti
        hlt
        cli
        cmpl $5, count1
        jb 1b
        movl $0, INITIAL
        movl $0x10000, TIMER
        sti
        nop
        cli
        movl $0, count1
        CHECK "periodic timer", count1, $0

        # The 8254 at pin 2 of the I/O APIC: as an NMI it ends HLT with IF clear
        movl $0, nmis
        IO_WRITE 0x15, 0
        IO_WRITE 0x14, 0x400
        movb $0x30, %al                 # channel 0, mode 0
        outb %al, $0x43
        movb $0xFF, %al
        outb %al, $0x40
        movb $0x03, %al
        outb %al, $0x40
        hlt
        CHECK "NMI ends HLT", nmis, $1
        IO_WRITE 0x14, V2
        movl $0, count2
        movb $0x30, %al
        outb %al, $0x43
        movb $0xFF, %al
        outb %al, $0x40
        movb $0x03, %al
        outb %al, $0x40
        sti
        hlt
        cli
        CHECK "interrupt by pin 2", count2, $1
        IO_WRITE 0x14, 0x10000

        # An NMI while ring 3 runs
        movl $0, nmis
        movl $1, nmi_todo
        IO_WRITE 0x14, 0x400
        movb $0x30, %al
        outb %al, $0x43
        movb $0xFF, %al
        outb %al, $0x40
        movb $0x03, %al
        outb %al, $0x40
        USER
1:      cmpl $2, nmis
        jb 1b
        UEND
        CHECK "NMIs in ring 3", nmis, $2
        IO_WRITE 0x14, 0x10000

        # IA32_APIC_BASE
        REFUSED "bit 0", 0xFEE00901
        REFUSED "bit 9", 0xFEE00B00
        REFUSED "bit 10 without x2APIC", 0xFEE00D00
        REFUSED "beyond MAXPHYADDR", 0xFEE00900, 0x10
        movl $0x11111111, HIDDEN + 0x30
        movl $0x22222222, HIDDEN + 0x80
        xorl %ebx, %ebx
        movl $4, %esi                   # one place sees RAM and APIC in turn
3:      SET_BASE HIDDEN + 0x900
        call 4f
        SET_BASE 0xFEE00900
        call 4f
        decl %esi
        jnz 3b
        jmp 5f
4:      roll $1, %ebx
        addl HIDDEN + 0x30, %ebx
        movl $0x10, HIDDEN + 0x80
        ret
5:      movl $8, %esi                   # the same sum
        xorl %edx, %edx
1:      roll $1, %edx
        movl $0x00050014, %eax
        testl $1, %esi
        jz 2f
        movl $0x11111111, %eax
2:      addl %eax, %edx
        decl %esi
        jnz 1b
        CHECK "over RAM and away in turn", %ebx, %edx
        CHECK "RAM below it", HIDDEN + 0x30, $0x11111111
        CHECK "stores went to each", HIDDEN + 0x80, $0x10
        CHECK "and to the other", TPR, $0x10
        movl $0, TPR
        SET_BASE HIDDEN + 0x900
        CHECK "nothing at the old place", VERSION, $0xFFFFFFFF
        SET_BASE 0xFEE00900
        movl $(SELF+V1), ICR            # lost when it is switched off
        SET_BASE 0xFEE00100
        CHECK "switched off", VERSION, $0xFFFFFFFF
        movl $1, %eax
        cpuid
        shrl $9, %edx
        andl $1, %edx
        CHECK "CPUID without it", %edx, $0
        SET_BASE 0xFEE00900
        CHECK "as after power-up", SVR, $0xFF
        movl $1, %eax
        cpuid
        shrl $9, %edx
        andl $1, %edx
        CHECK "CPUID with it", %edx, $1
        movl $0, count1
        movl $0x1FF, SVR
        sti
        nop
        cli
        CHECK "the request is lost", count1, $0
        # Down, from and to the APIC, often enough that the instruction no longer tries the memory first: the element is moved once, DF is set at
        # it and clear behind, and the same instruction reaches RAM afterwards.
        movl $20, %ebx
        xorl %ebp, %ebp
1:      movl $VERSION, %esi
        movl $nmis+0x10, %edi
        movl $1, %ecx
        cmpl $5, %ebx
        ja 2f
        movl $count1, %esi
2:      std
        rep movsl
        cld
        leal 4(%edi), %esi
        lodsl
        subl nmis+0x10, %eax
        orl %eax, %ebp
        subl $nmis+0x14, %esi
        orl %esi, %ebp
        decl %ebx
        jnz 1b
        CHECK "moved down from the APIC: pointers and DF", %ebp, $0
        movl nmis+0x10, %eax
        CHECK "moved down from RAM by the same instruction", %eax, count1
        movl $20, %ebx
        movl $0x30, nmis+0x10
1:      movl $nmis+0x10, %esi
        movl $TPR, %edi
        movl $1, %ecx
        std
        rep movsl
        cld
        decl %ebx
        jnz 1b
        CHECK "moved down to the APIC", TPR, $0x30
        CHECK "and the pointer behind it", %edi, $TPR-4
        movl $0, TPR
        jmp finish
        .section .utext
utext_end:
