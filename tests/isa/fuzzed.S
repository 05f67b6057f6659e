# fuzzed.S: what the fuzzer of whole guests found (tests/fuzz), each in its smallest form.
        .include "common.inc"
        .set LO, 0x500000               # a page that comes and goes
        .set HI_PAGE, 0x501000

        .data
count:  .long 0

        .text
test_main:
        # An access through a null FS at CPL 0 faults also where user memory is at its offset, and where the supervisor has just been at user
        # memory: once in new code, then in code that runs often.
        MAP LO, LO | 7
        movl $0x12345678, LO
        movl $20, count
1:      movl $0, %eax
        movl %eax, %fs
        TRY 2f
        movl %fs:LO, %edx
        movl $0xBAD, x_err
2:      MET "null FS, RPL 0", 13, 0
        movl $3, %eax
        movl %eax, %fs
        TRY 2f
        movl %fs:LO, %edx
        movl $0xBAD, x_err
2:      MET "null FS, RPL 3", 13, 0
        movl $3, %eax
        movl %eax, %gs
        TRY 2f
        incl %gs:LO
2:      MET "null GS, written", 13, 0
        CHECK "and user memory is as it was", LO, $0x12345678
        decl count
        jnz 1b
        movl $KDS, %eax
        movl %eax, %fs
        movl %eax, %gs

        # EFLAGS.RF loaded by IRET holds for the next instruction, and INT n pushes it (SDM vol. 3, 17.3.1.1)
        .irp flags, 0x10002, 2
        movl $20, count
1:      TRY 3f
        pushl $\flags
        pushl $KCS
        pushl $2f
        iretl
2:      int $0x81
3:      movl x_eflags, %eax
        andl $0x10000, %eax
        CHECK "RF of INT n behind IRET with flags \flags", %eax, $((\flags) & 0x10000)
        decl count
        jnz 1b
        .endr
        TRY 3f
        pushl $0x10002
        pushl $KCS
        pushl $2f
        iretl
2:      nop
        int $0x81
3:      movl x_eflags, %eax
        andl $0x10000, %eax
        CHECK "RF of INT n one instruction later", %eax, $0

        # PUSHAD that faults in the lower of two pages has not written to the upper one
        MAP HI_PAGE, HI_PAGE | 7
        movl $20, count
1:      MAP LO, LO | 7
        call push_all
        MET "PUSHAD in two pages", 0x80
        CHECK "PUSHAD in two pages: the fourth slot", HI_PAGE, $0xBBBBBBBB
        MAP LO, 0
        call push_all
        MET "PUSHAD into a page that is not there", 14, 6, , LO + 0xFFC
        CHECK "PUSHAD that faults: the first slot", HI_PAGE + 12, $0x11111111
        CHECK "PUSHAD that faults: the fourth slot", HI_PAGE, $0x11111111
        decl count
        jnz 1b
        MAP LO, LO | 3
        jmp finish

push_all:
        .irp at, 0, 4, 8, 12
        movl $0x11111111, HI_PAGE + \at
        .endr
        movl $0xAAAAAAAA, %eax
        movl $0xBBBBBBBB, %ebx
        USER
        movl $HI_PAGE + 16, %esp
        pushal
        UEND
        ret
        .section .utext
        .balign 4096
utext_end:
