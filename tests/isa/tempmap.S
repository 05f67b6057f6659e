# tempmap.S: a page that is mapped to one frame, then another, again and again, as kernels reach memory above their direct mapping: used
# at length each time, or for one store. Each use must see the frame that is mapped now. (How it is done is tests/unit/tempmap.sh's matter.)
        .include "common.inc"
        .set A, 0x900000                # where they are mapped
        .set F1, 0x910000               # two frames
        .set F2, 0x920000
        .set WORDS, 512
        .set ROUNDS, 100

        .text
# Adds up what A shows to EDX.
sum:    xorl %ecx, %ecx
1:      addl A(,%ecx,4), %edx
        incl %ecx
        cmpl $WORDS, %ecx
        jb 1b
        ret

test_main:
        cld
        movl $1, %eax
        movl $F1, %edi
        movl $WORDS, %ecx
        rep stosl
        movl $2, %eax
        movl $F2, %edi
        movl $WORDS, %ecx
        rep stosl

        xorl %edx, %edx
        movl $ROUNDS, %ebp
1:      MAP A, F1+3
        call sum
        MAP A, 0
        MAP A, F2+3
        call sum
        MAP A, 0
        decl %ebp
        jnz 1b
        CHECK "used at length", %edx, $(ROUNDS * WORDS * 3)

        movl $ROUNDS, %ebp
1:      MAP A, F1+3
        incl A
        MAP A, 0
        MAP A, F2+3
        incl A+4
        MAP A, 0
        decl %ebp
        jnz 1b
        movl F1, %eax
        CHECK "one store each, first frame", %eax, $(ROUNDS + 1)
        movl F2+4, %eax
        CHECK "one store each, second frame", %eax, $(ROUNDS + 2)
        movl F2, %eax
        CHECK "nothing else written", %eax, $2

        # Without an invalidation between: what is mapped where nothing was needs none (SDM vol. 3, 4.10.4.3).
        xorl %edx, %edx
        movl $ROUNDS, %ebp
1:      SETPTE A, F2+3
        call sum
        MAP A, 0
        decl %ebp
        jnz 1b
        CHECK "mapped without an invalidation", %edx, $(ROUNDS * (WORDS * 2 + ROUNDS))
        MAP A, A+3
        jmp finish

        .section .utext
        .balign 4096
utext_end:
