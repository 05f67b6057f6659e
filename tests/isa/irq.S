# irq.S: storms of timer interrupts over short loops: where an interrupt may be taken and where not (SDM vol. 3, 6.8), what its image of
# EFLAGS says, and that nothing is lost at any boundary. Each loop runs until so many interrupts have come.
        .include "common.inc"

        .set STORM, 80                  # interrupts for each loop
        .set PERIOD, 1000               # of the timer's input clock: 1.2 kHz

        .data
        .balign 4
ticks:  .long 0
bad1:   .long 0                         # places where no interrupt may be taken
bad2:   .long 0
only:   .long 0                         # the one place where it may, if not 0
at_bad: .long 0
other:  .long 0
closed: .long 0                         # nonzero: interrupts are off
broken: .long 0
rep_at: .long 0                         # a repeat: RF in the image while it is under way
rep_full: .long 0
rep_mid: .long 0
rep_norf: .long 0
plain_rf: .long 0
from_user: .long 0
bad_user: .long 0
v:      .long 0
gdt_ss: .word KDS

        .text
tick:   movl 4(%esp), %ecx
        incl ticks
        movl 56(%ecx), %edx
        cmpl %edx, bad1
        je 1f
        cmpl %edx, bad2
        jne 2f
1:      incl at_bad
2:      movl only, %eax
        testl %eax, %eax
        jz 3f
        cmpl %eax, %edx
        je 3f
        incl other
3:      cmpl $0, closed
        je 4f
        incl broken
4:      movl 64(%ecx), %eax
        cmpl %edx, rep_at
        jne 5f
        movl 40(%ecx), %ebx
        cmpl %ebx, rep_full
        je 6f
        incl rep_mid
        testl $0x10000, %eax
        jnz 6f
        incl rep_norf
        jmp 6f
5:      testl $0x10000, %eax
        jz 6f
        incl plain_rf
6:      testl $3, 60(%ecx)
        jz 7f
        incl from_user
        cmpl $UDS, 72(%ecx)
        je 7f
        incl bad_user
7:      movb $0x20, %al
        outb %al, $0x20
        ret

        .macro BEGIN
        .irp x, ticks, bad1, bad2, only, at_bad, other, closed, broken, rep_at, rep_full, rep_mid, rep_norf, plain_rf, from_user, bad_user
        movl $0, \x
        .endr
        .endm
        .macro UNTIL label, n=STORM
        cmpl $\n, ticks
        jb \label
        .endm
        .macro NONEBAD name
        CHECK "\name: in a shadow", at_bad, $0
        CHECK "\name: elsewhere", other, $0
        CHECK "\name: while off", broken, $0
        .endm

test_main:
        HOOK 0x20, tick
        movb $0x34, %al                 # channel 0, mode 2
        outb %al, $0x43
        movb $(PERIOD&255), %al
        outb %al, $0x40
        movb $(PERIOD>>8), %al
        outb %al, $0x40
        movb $0xFE, %al
        outb %al, $0x21

        # -- STI: off until the next instruction is done
        BEGIN
        movl $2f, bad1
        movl $3f, only
1:      sti
2:      nop
3:      cli
        movl ticks, %eax
        UNTIL 1b
        NONEBAD "STI, NOP, CLI"
        BEGIN
        movl $2f, bad1
        movl $3f, only
1:      sti
2:      incl v
3:      cli
        UNTIL 1b
        NONEBAD "STI, store, CLI"
        BEGIN
        movl $2f, bad1
        movl $3f, only
1:      sti
2:      jmp 3f
        nop
3:      cli
        UNTIL 1b
        NONEBAD "STI, JMP, CLI"
        BEGIN
        movl $2f, bad1
        movl $4f, only
1:      movl $3f, %eax
        sti
2:      call *%eax
        UNTIL 1b
        jmp 5f
3:
4:      cli
        ret
5:      NONEBAD "STI, CALL, CLI"
        BEGIN
        movl $2f, bad1
        movl $4f, only
1:      pushl $4f
        sti
2:      ret
        nop
4:      cli
        UNTIL 1b
        NONEBAD "STI, RET, CLI"
        BEGIN
        movl $2f, bad1
        movl $3f, only
        movl $2, %ebx
1:      sti
2:      pushfl                          # reads IF
3:      cli
        popl %ecx
        testl $0x200, %ecx
        jnz 4f
        incl other
4:      UNTIL 1b
        NONEBAD "STI, PUSHF, CLI"
        BEGIN
        movl $2f, bad1
1:      sti
2:      cli                             # never open
        movl $1000, %ecx
3:      decl %ecx
        jnz 3b
        decl v
        jnz 4f
4:      incl %esi
        cmpl $3000, %esi
        jb 1b
        CHECK "STI, CLI: never", ticks, $0
        BEGIN
        movl $2f, bad1
1:      sti
2:      hlt
3:      cli
        UNTIL 1b
        NONEBAD "STI, HLT"
        BEGIN
        movl $2f, bad1
1:      sti
        sti                             # the second one makes no shadow of its own
2:      cli
        incl v
        cmpl $20000, v
        jb 1b
        movl $0, v
        BEGIN
        movl $2f, bad1
        movl $1f, only
        movl $2f, bad2
        jmp 3f
        .balign 4096
        .fill 4095, 1, 0x90
3:      sti                             # at the end of a page
2:      nop
1:      cli
        UNTIL 3b
        NONEBAD "STI at the end of a page"
        BEGIN
        movl $2f, bad1
        movl $1f, only
3:      sti
2:      movl %esp, %ebp
1:      cli
        cmpl %ebp, %esp
        UNTIL 3b
        NONEBAD "STI, MOV, CLI"

        # -- MOV SS and POP SS
        BEGIN
        movl $2f, bad1
        movl $3f, bad2
        movl $KDS, %ebx
        sti
1:      movl %ebx, %ss
2:      movl %esp, %ebp
        pushl %ebx
        popl %ss
3:      movl %esp, %ebp
        UNTIL 1b
        cli
        NONEBAD "MOV SS, POP SS"
        BEGIN
        movl $2f, bad1
        sti
1:      movw gdt_ss, %ss
2:      hlt
        UNTIL 1b
        cli
        NONEBAD "MOV SS, HLT"

        # -- POPF, IRET: open at once
        BEGIN
        movl $3f, only
        movl $3f, %edx
1:      pushl $0x202
        popfl
3:      cli
        UNTIL 1b
        NONEBAD "POPF, CLI"
        BEGIN
        movl $3f, only
1:      pushl $0x202
        pushl $KCS
        pushl $3f
        iretl
3:      cli
        UNTIL 1b
        NONEBAD "IRET, CLI"

        # -- CLI keeps them out
        BEGIN
        sti
1:      cli
        incl closed
        .rept 20
        incl v
        .endr
        decl closed
        sti
        nop
        UNTIL 1b
        cli
        NONEBAD "CLI"

        # -- A repeat: interrupted between elements, RF set
        BEGIN
        movl $2f, rep_at
        movl $0x40000, rep_full
        xorl %edi, %edi
        sti
        cld
1:      movl $0x800000, %esi
        movl $0x900000, %edi
        movl $0x40000, %ecx
2:      rep movsb
        testl %ecx, %ecx
        jz 3f
        incl other
3:      cmpl $0x840000, %esi
        je 4f
        incl other
4:      UNTIL 1b
        cli
        NONEBAD "REP MOVSB"
        xorl %eax, %eax
        cmpl $0, rep_mid
        setne %al
        CHECK "REP MOVSB: interrupted", %eax, $1
        CHECK "REP MOVSB: RF in the image", rep_norf, $0
        # Backwards, as many elements as are moved one by one, and more
        .irp n, 5, 9
        BEGIN
        movl $2f, rep_at
        movl $\n, rep_full
        sti
        std
1:      movl $0x800000, %esi
        movl $0x900000, %edi
        movl $\n, %ecx
2:      rep movsb
        testl %ecx, %ecx
        jz 3f
        incl other
3:      cmpl $0x800000-\n, %esi
        je 4f
        incl other
4:      UNTIL 1b
        cli
        cld
        NONEBAD "REP MOVSB, \n backwards"
        CHECK "REP MOVSB, \n backwards: RF in the image", rep_norf, $0
        .endr
        BEGIN
        sti
1:      movl $100, %ecx
2:      movl v, %eax
        addl $3, %eax
        xorl %edx, v
        loop 2b
        UNTIL 1b
        cli
        CHECK "plain instructions: no RF", plain_rf, $0

        # -- Nothing is lost: a sum over registers, flags, stack, memory and x87, twice the same
        BEGIN
        call work
        movl %eax, v
        sti
1:      pushl v
        call work
        popl %edx
        cmpl %eax, %edx
        je 2f
        incl other
2:      UNTIL 1b, 150
        cli
        NONEBAD "a sum"

        # -- Ring 3
        BEGIN
        movl $PT+0x100*4, %edi          # the guest's pages for ring 3, so that it counts for itself
        movl $0x40, %ecx
1:      orl $4, (%edi)
        addl $4, %edi
        decl %ecx
        jnz 1b
        movl %cr3, %eax
        movl %eax, %cr3
        USER 0x202
1:      movl $50, %ecx
2:      pushl %ecx
        popl %edx
        loop 2b
        UNTIL 1b
        UEND
        xorl %eax, %eax
        cmpl $40, from_user
        setae %al
        CHECK "ring 3: interrupted there", %eax, $1
        CHECK "ring 3: SS", bad_user, $0
        # with IOPL 3, STI in ring 3 has its shadow too
        BEGIN
        movl $2f, bad1
        movl $3f, only
        movl $0, other
        USER 0x3002
1:      sti
2:      nop
3:      cli
        UNTIL 1b
        UEND
        NONEBAD "STI, NOP, CLI in ring 3"
        movb $0xFF, %al
        outb %al, $0x21
        jmp finish

# eax: the same each time
work:   movl $0x12345678, %eax
        movl $200, %ecx
        fninit
        fld1
1:      addl %ecx, %eax
        rcll $3, %eax
        pushfl
        pushal
        popal
        popfl
        adcl $0x1001, %eax
        pushl %eax
        fildl (%esp)
        fadd %st(1), %st
        fistpl (%esp)
        popl %edx
        xchgb %al, %ah
        imull $33, %edx, %edx
        xorl %edx, %eax
        bsfl %eax, %ebx
        shldl %cl, %eax, %ebx
        lahf
        leal 3(%eax,%ebx,2), %eax
        decl %ecx
        jnz 1b
        fstp %st(0)
        ret
        .section .utext
        .balign 4096
utext_end:
