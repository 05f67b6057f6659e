# targets.S: very many targets of indirect branches in a page, and in several: thousands of small functions are called, jumped to and
# returned to. The checks in front of them (monitor/code.c, thunks) fill more than the room that a segment of code memory begins with.
        .include "common.inc"

        .set A, 0x900000
        .set PAGES, 3
        .set END, A+PAGES*0x1000

        .text
# ADD ECX, imm8 (SUB, if AL says so); RET: 1024 in each page, with numbers in no simple order
fill:   movl $A, %edi
        movl $1, %ebx
1:      imull $1103515245, %ebx, %ebx
        addl $12345, %ebx
        movb $0x83, (%edi)
        movb %al, 1(%edi)
        movl %ebx, %edx
        shrl $20, %edx
        movb %dl, 2(%edi)
        movb $0xC3, 3(%edi)
        addl $4, %edi
        cmpl $END, %edi
        jb 1b
        ret

# EDX: what going through all of them in steps of EDI bytes comes to, read from their bytes
sum:    xorl %edx, %edx
        movl $A, %esi
1:      movsbl 2(%esi), %eax
        cmpb $0xC1, 1(%esi)
        je 2f
        negl %eax
2:      addl %eax, %edx
        roll $1, %edx
        addl %edi, %esi
        cmpl $END, %esi
        jb 1b
        ret

# ECX: the same by running them
by_call:
        xorl %ecx, %ecx
        movl $A, %esi
1:      call *%esi
        roll $1, %ecx
        addl %edi, %esi
        cmpl $END, %esi
        jb 1b
        ret
by_jump:
        xorl %ecx, %ecx
        movl $A, %esi
1:      pushl $2f
        jmp *%esi
2:      roll $1, %ecx
        addl %edi, %esi
        cmpl $END, %esi
        jb 1b
        ret
# RET to where no CALL came from
by_return:
        xorl %ecx, %ecx
        movl $A, %esi
1:      pushl $2f
        pushl %esi
        ret
2:      roll $1, %ecx
        addl %edi, %esi
        cmpl $END, %esi
        jb 1b
        ret

        .macro GO how, name, step
        movl $\step, %edi
        call \how
        call sum
        CHECK "\name", %ecx, %edx
        .endm

test_main:
        movb $0xC1, %al                 # ADD
        call fill
        GO by_call, "called", 4
        GO by_call, "called again", 4
        GO by_jump, "jumped to", 4
        GO by_return, "returned to", 4
        movb $0xE9, %al                 # SUB: none of the old targets is left
        call fill
        GO by_call, "rewritten", 4
        movb $0xC1, A+0x1401            # one ADD among them
        GO by_call, "one rewritten", 4
        GO by_jump, "jumped to each second one", 8
        GO by_return, "returned to each fifth one", 20
        jmp finish
        .section .utext
        .balign 4096
utext_end:
