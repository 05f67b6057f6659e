# targets.S: very many targets of indirect branches in one page, and in several: each instruction of a page of INCs is called, jumped to and
# returned to. The checks in front of them (monitor/code.c, thunks) fill more than the room that a segment of code memory begins with.
        .include "common.inc"

        .set A, 0x900000

# Page \page of A: 4095 times the instruction, RET
        .macro FILL page, insn
        movl $(A+(\page)*0x1000), %edi
        movl $4095, %ecx
        movb $(\insn), %al
        cld
        rep stosb
        movb $0xC3, (%edi)
        .endm

        .text
# EBX: a page, ESI: its first target, EDI: bytes between targets. Out: ECX, what the INCs or DECs came to
by_call:
        xorl %ecx, %ecx
1:      leal (%ebx,%esi), %eax
        call *%eax
        addl %edi, %esi
        cmpl $0x1000, %esi
        jb 1b
        ret
by_jump:
        xorl %ecx, %ecx
1:      pushl $2f
        leal (%ebx,%esi), %eax
        jmp *%eax
2:      addl %edi, %esi
        cmpl $0x1000, %esi
        jb 1b
        ret
# RET to where no CALL came from
by_return:
        xorl %ecx, %ecx
1:      pushl $2f
        leal (%ebx,%esi), %eax
        pushl %eax
        ret
2:      addl %edi, %esi
        cmpl $0x1000, %esi
        jb 1b
        ret

        .macro GO how, page, first, step
        movl $(A+(\page)*0x1000), %ebx
        movl $\first, %esi
        movl $\step, %edi
        call \how
        .endm

test_main:
        FILL 0, 0x41                    # INC ECX
        FILL 1, 0x41
        FILL 2, 0x49                    # DEC ECX
        # 4095 + 4094 + ... + 0
        GO by_call, 0, 0, 1
        CHECK "called, each byte", %ecx, $(4095*4096/2)
        GO by_call, 0, 0, 1
        CHECK "called again", %ecx, $(4095*4096/2)
        GO by_jump, 0, 0, 1
        CHECK "jumped to", %ecx, $(4095*4096/2)
        GO by_return, 0, 0, 1
        CHECK "returned to", %ecx, $(4095*4096/2)
        # 4095 + 4092 + ... + 0: each third, in the other pages
        GO by_call, 1, 0, 3
        CHECK "another page", %ecx, $(4095*1366/2)
        GO by_call, 2, 0, 3
        CHECK "a third", %ecx, $(-4095*1366/2)
        # written: none of the old targets is left
        FILL 0, 0x49
        GO by_call, 0, 0, 1
        CHECK "rewritten", %ecx, $(-4095*4096/2)
        movb $0x41, A+0x7FF             # one INC among the DECs, at 2047: for each target up to it two more
        GO by_call, 0, 0, 1
        CHECK "one byte rewritten", %ecx, $(-4095*4096/2+2*2048)
        GO by_call, 1, 0, 3
        CHECK "the other page as it was", %ecx, $(4095*1366/2)
        jmp finish
        .section .utext
        .balign 4096
utext_end:
