# overlap.S: instructions inside instructions, over page ends and over the ends of what was scanned: control comes to any byte, and each
# byte may begin several instructions. Everything several times, so that it is translated, linked and found again.
        .include "common.inc"

        .set A, 0x900000

        .macro TIMES n, body:vararg
        movl $\n, %ebp
6:      \body
        decl %ebp
        jnz 6b
        .endm
# A second page whose first byte, the third of an immediate, is another one each time
        .macro WRITTEN name, entry
        movl $0, sum
        movl $50, %ebp
7:      movl %ebp, %eax
        movb %al, A+0x1000
        movl $(\entry), %eax
        call *%eax
        shrl $16, %eax
        addl %eax, sum
        decl %ebp
        jnz 7b
        CHECK "\name", sum, $(50*51/2)
        .endm
# A first page that shows one frame, whose code yields 1, and another one, whose code yields 2
        .macro FIRST_IN_TURN name, entry
        movl $0, sum
        movl $20, %ebp
7:      MAP A, A+3
        movl $(\entry), %eax
        call *%eax
        addl %eax, sum
        MAP A, A+0x4003
        movl $(\entry), %eax
        call *%eax
        addl %eax, sum
        decl %ebp
        jnz 7b
        CHECK "\name", sum, $60
        .endm
# Ring 3 in an address space calls A+FF9, by that register and by EBX; EAX: what was in it behind
        .macro TWICE_IN directory, first
        movl \directory, %eax
        movl %eax, %cr3
        pushl %ebp
        USER
        movl $(A+0xFF9), \first
        call *\first
        movl $(A+0xFF9), %ebx
        call *%ebx
        UEND
        popl %ebp
        movl x_eax, %eax
        .endm
# Code bytes at an address
        .macro AT lin, bytes:vararg
        .pushsection .rodata
77:     .byte \bytes
78:
        .popsection
        movl $77b, %esi
        movl $(\lin), %edi
        movl $(78b-77b), %ecx
        cld
        rep movsb
        .endm

        .data
sum:    .long 0
        .text
# MOV EAX, imm32 whose immediate is INC ECX; INC ECX; INC ECX; RET
inner:  .byte 0xB8
inner1: .byte 0x41
inner2: .byte 0x41
inner3: .byte 0x41
inner4: .byte 0xC3
        ret
# A jump into itself: EB FF is JMP to its own second byte, FF C0 is INC EAX
self:   .byte 0xEB, 0xFF, 0xC0
        ret
# A chain: each instruction's tail is the next one's head
chain:  .byte 0x05, 0x05, 0x05, 0x05, 0x05      # ADD EAX, 05050505h at 0, 1, 2, ...
        .byte 0x05, 0x05, 0x05, 0x05, 0x05
        .byte 0x90, 0x90, 0x90, 0x90, 0xC3
# Prefixes that are and are not taken
locked: .byte 0xF0                              # LOCK
locked1: .byte 0xFF, 0x05                       # INC dword [sum]
        .long sum
        ret
opsize: .byte 0x66                              # MOV AX, imm16; then what was its upper half
opsize1: .byte 0xB8, 0x34, 0x12, 0x40, 0x40     # MOV EAX, 40401234h / INC EAX; INC EAX
        ret

test_main:
        # every start
        .macro ENTER_AT name, label, eax, ecx
        movl $5, %edi
5:      movl $0x100, %eax
        movl $0x200, %ecx
        call \label
        cmpl $(\eax), %eax
        jne 4f
        cmpl $(\ecx), %ecx
        jne 4f
        decl %edi
        jnz 5b
4:      CHECK "\name: eax", %eax, $(\eax)
        CHECK "\name: ecx", %ecx, $(\ecx)
        .endm
        ENTER_AT "outer", inner, 0xC3414141, 0x200
        ENTER_AT "inside, 1", inner1, 0x100, 0x203
        ENTER_AT "inside, 2", inner2, 0x100, 0x202
        ENTER_AT "inside, 3", inner3, 0x100, 0x201
        ENTER_AT "inside, 4", inner4, 0x100, 0x200
        ENTER_AT "a jump into itself", self, 0x101, 0x200
        ENTER_AT "second byte of it", self+1, 0x101, 0x200
        ENTER_AT "chain at 0", chain, 0x0A0A0B0A, 0x200
        ENTER_AT "chain at 1", chain+1, 0x100+0x05050505+0x90050505, 0x200
        ENTER_AT "operand size taken", opsize, 0x1236, 0x200
        ENTER_AT "operand size left out", opsize1, 0x40401234, 0x200
        movl $0, sum
        TIMES 10, call locked
        TIMES 10, call locked1
        CHECK "LOCK taken and left out", sum, $20
        # both ways in turn, so that neither is what was there first
        movl $0, sum
        movl $50, %ebp
1:      xorl %ecx, %ecx
        call inner2
        addl %ecx, sum
        call inner
        shrl $24, %eax
        addl %eax, sum
        xorl %ecx, %ecx
        call inner1
        addl %ecx, sum
        decl %ebp
        jnz 1b
        CHECK "in turn", sum, $(50*(2+0xC3+3))

        # over a page's end, beginning at each byte of it
        .set n, 1
        .rept 6
        AT A+0x1000-n, 0xB8, 0x78, 0x56, 0x34, 0x12, 0x05, 0x01, 0x00, 0x00, 0x00, 0xC3
        movl $20, %ebp
1:      movl $(A+0x1000-n), %eax
        call *%eax
        cmpl $0x12345679, %eax
        jne 2f
        decl %ebp
        jnz 1b
2:      CHECK "over a page's end", %eax, $0x12345679
        .set n, n+1
        .endr
        # the second page changes, and is another one
        AT A+0xFFD, 0xB8, 0x01, 0x00
        AT A+0x1000, 0x00, 0x00, 0xC3
        AT A+0x3000, 0x11, 0x22, 0xC3
        movl $0, sum
        movl $50, %ebp
1:      MAP A+0x1000, A+0x1003
        movl $(A+0xFFD), %eax
        call *%eax
        addl %eax, sum
        MAP A+0x1000, A+0x3003
        movl $(A+0xFFD), %eax
        call *%eax
        shrl $24, %eax
        addl %eax, sum
        decl %ebp
        jnz 1b
        CHECK "the second page in turn", sum, $(50*(1+0x22))
        MAP A+0x1000, A+0x1003
        WRITTEN "the second page written", A+0xFFD
        # both again, run into from the page's own code
        AT A+0xFF9, 0x41, 0x41, 0x41, 0x41, 0xB8, 0x01, 0x00
        AT A+0x1000, 0x00, 0x00, 0xC3
        movl $0, sum
        xorl %ecx, %ecx
        movl $50, %ebp
1:      MAP A+0x1000, A+0x1003
        movl $3, %ebx
2:      movl $(A+0xFF9), %eax
        call *%eax
        addl %eax, sum
        decl %ebx
        jnz 2b
        MAP A+0x1000, A+0x3003
        movl $3, %ebx
2:      movl $(A+0xFF9), %eax
        call *%eax
        shrl $24, %eax
        addl %eax, sum
        decl %ebx
        jnz 2b
        decl %ebp
        jnz 1b
        CHECK "run into, the second page in turn", sum, $(150*(1+0x22))
        CHECK "run into: in front of it", %ecx, $1200
        MAP A+0x1000, A+0x1003
        WRITTEN "run into, the second page written", A+0xFF9
        movb $0, A+0x1000
        # the first page is another one, with the same second one
        AT A+0x4FF9, 0x41, 0x41, 0x41, 0x41, 0xB8, 0x02, 0x00
        FIRST_IN_TURN "run into, the first page in turn", A+0xFF9
        # jumped to from a third page
        AT A+0x5000, 0xE9, 0xF8, 0xBF, 0xFF, 0xFF
        FIRST_IN_TURN "jumped to, the first page in turn", A+0x5000
        # ring 3, two address spaces with one first page and two second ones
        MAP A, A+7
        MAP A+0x1000, A+0x1007
        movl $PD, %esi
        movl $(A+0x6000), %edi
        movl $1024, %ecx
        rep movsl
        movl $(PT+0x2000), %esi
        movl $1024, %ecx
        rep movsl                       # to A+0x7000
        movl $(A+0x7007), A+0x6008
        movl $(A+0x3007), A+0x7404
        movl $0, sum
        movl $30, %ebp
1:      TWICE_IN $PD, %eax
        addl %eax, sum
        TWICE_IN $(A+0x6000), %ebx
        shrl $24, %eax
        addl %eax, sum
        decl %ebp
        jnz 1b
        movl $PD, %eax
        movl %eax, %cr3
        CHECK "run into in ring 3, two address spaces", sum, $(30*(1+0x22))
        MAP A, A+3
        MAP A+0x1000, A+0x1003
        AT A+0xFFD, 0xB8, 0x01, 0x00
        # the second page absent, then there
        MAP A+0x1000, 0
        HOOK 14, map_it
        movl $(A+0xFFD), %eax
        movb $0x77, A+0x3000
        call *%eax
        UNHOOK 14
        CHECK "the second page by a fault", %eax, $0x22770001
        CHECK "the second page by a fault: CR2", x_cr2, $(A+0x1000)
        CHECK "the second page by a fault: EIP", x_eip, $(A+0xFFD)
        MAP A+0x1000, A+0x1003
        # a branch over the end, forwards and back
        AT A+0xFFE, 0x74, 0x03, 0x40, 0x40, 0xC3, 0x48, 0xC3   # JZ +3 over the end
        movl $20, %ebp
1:      movl $10, %eax
        movl $(A+0xFFE), %ebx
        cmpl %eax, %eax
        call *%ebx
        cmpl $9, %eax
        jne 2f
        testl %eax, %eax
        call *%ebx
        cmpl $11, %eax
        jne 2f
        decl %ebp
        jnz 1b
2:      CHECK "JZ over a page's end", %ebp, $0
        AT A+0xFFE, 0x49, 0x75, 0xFD, 0xC3                      # 1: DEC ECX; JNZ 1b
        movl $20, %ebp
1:      movl $1000, %ecx
        movl $(A+0xFFE), %ebx
        call *%ebx
        decl %ebp
        jnz 1b
        CHECK "a loop over a page's end", %ecx, $0
        # a return address at the first byte of a page
        AT A+0xFFB, 0xE8, 0x01, 0x00, 0x00, 0x00, 0xC3, 0x58, 0x50, 0xC3
        movl $20, %ebp
1:      movl $(A+0xFFB), %ebx
        call *%ebx
        cmpl $(A+0x1000), %eax
        jne 2f
        decl %ebp
        jnz 1b
2:      CHECK "CALL at a page's end", %eax, $(A+0x1000)
        # wrap-around: the last byte of the address space and the first
        movl $(A+0x5000+3), PT
        movl $(PTHI+7), PD+0xFFC        # HI's table serves the last 4 MiB too
        movl $(A+0x4000+3), PTHI+0xFFC
        movl %cr3, %eax
        movl %eax, %cr3
        AT A+0x4FFE, 0xB8, 0x11
        AT A+0x5000, 0x22, 0x33, 0x44, 0xC3
        movl $20, %ebp
1:      movl $0xFFFFFFFE, %ebx
        call *%ebx
        cmpl $0x44332211, %eax
        jne 2f
        decl %ebp
        jnz 1b
2:      CHECK "over the end of the address space", %eax, $0x44332211
        movl $0x55667788, A+0x4FFC
        movl $0xFFFFFFFE, %ebx
        movl (%ebx), %eax
        CHECK "data over the end", %eax, $0x33225566
        movl $0xAABBCCDD, (%ebx)
        CHECK "data over the end, written", A+0x5000, $0xC344AABB
        movl $3, PT
        movl $0, PD+0xFFC
        movl %cr3, %eax
        movl %eax, %cr3
        jmp finish
map_it: MAP A+0x1000, A+0x3003
        ret
        .section .utext
        .balign 4096
utext_end:
