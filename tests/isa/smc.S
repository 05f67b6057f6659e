# smc.S: code that changes code.
        .include "common.inc"
        .set A, 0x400000                # scratch page for code
        .set ALIAS, HI + 0x1000         # a second linear address of it

# Copies "mov $0x11111111, %eax; ret" to an address.
        .macro PLANT at
        movl $0x111111B8, \at
        movl $0xC3C3C311, \at + 4
        .endm
        .macro CALLAT at
        movl $(\at), %ecx
        call *%ecx
        .endm

test_main:
        # Ahead of EIP, in the page that executes
        movl $100, %edi
        xorl %ebx, %ebx
1:      movl %edi, 2f + 1
2:      movl $0, %eax                   # the very next instruction
        addl %eax, %ebx
        decl %edi
        jnz 1b
        CHECK "next instruction, 100 times", %ebx, $5050

        movl $0x22222222, 3f + 1
        nop
        nop
        jmp 2f
2:      nop
3:      movl $0, %eax
        CHECK "ahead in the same page", %eax, $0x22222222

        # Behind EIP
        xorl %esi, %esi
1:      movl $0x33333333, %eax
        incl %esi
        cmpl $2, %esi
        je 2f
        movl $0x44444444, 1b + 1
        jmp 1b
2:      CHECK "behind in the same page", %eax, $0x44444444

        # The opcode, byte and word stores
        movb $0x43, 1f                  # inc %ebx
        xorl %ebx, %ebx
1:      nop
        CHECK "opcode byte", %ebx, $1
        movw $0xCB03, 1f                # add %ebx, %ecx
        movl $5, %ecx
1:      nop
        nop
        CHECK "opcode word", %ecx, $6

        # By the instruction itself: its own bytes change after it was fetched
        movl $2f, %edi
        movl $0x90909090, %eax
        movl $10, %ebx
2:      stosl                           # becomes nop nop nop nop
        incl %ebx
        nop
        nop
        CHECK "stos on itself", %ebx, $10
        movl $3f, %edi
        movl $0x90909090, %eax
        movl $100, %ebx
        xorl %esi, %esi
3:      movl %eax, (%edi)
        incl %ebx
        nop
        incl %esi
        cmpl $1, %esi
        je 3b
        # first pass: mov, incl overwritten (bytes 2..3: incl, nop): so %ebx stays
        CHECK "mov on itself", %ebx, $100

        # rep movs over the code behind it, and over itself
        movl $1f, %esi
        movl $2f, %edi
        movl $8, %ecx
        xorl %ebx, %ebx
        jmp 3f
1:      .rept 8
        incl %ebx
        .endr
3:      rep movsb
2:      .fill 8, 1, 0x90
        CHECK "rep movsb right behind itself", %ebx, $8
        movl $1f, %esi
        movl $2f, %edi
        movl $6, %ecx
        xorl %ebx, %ebx
        jmp 2f
1:      nop
        nop
        .rept 4
        incl %ebx
        .endr
2:      rep movsb                       # two bytes: replaced by nops in the first two rounds
        nop
        nop
        nop
        nop
        # The processor may or may not fetch again between rounds: in both cases the first two bytes are gone
        movzwl 2b, %eax
        CHECK "rep movsb over itself", %eax, $0x9090

        # Another page
        PLANT A
        CALLAT A
        CHECK "other page, before", %eax, $0x11111111
        movl $0x55555555, A + 1
        CALLAT A
        CHECK "other page, after", %eax, $0x55555555
        movl $1000, %edi                # many times
        xorl %ebx, %ebx
1:      movl %edi, A + 1
        CALLAT A
        addl %eax, %ebx
        decl %edi
        jnz 1b
        CHECK "other page, 1000 times", %ebx, $500500

        # Through an alias
        MAP ALIAS, A + 7
        movl $0x66666666, ALIAS + 1
        CALLAT A
        CHECK "written through the alias", %eax, $0x66666666
        CALLAT ALIAS
        CHECK "executed at the alias", %eax, $0x66666666
        movl $0x77777777, A + 1
        CALLAT ALIAS
        CHECK "written at the page, executed at the alias", %eax, $0x77777777
        CALLAT A
        CHECK "and at the page", %eax, $0x77777777
        movl $100, %edi
        xorl %ebx, %ebx
1:      movl %edi, ALIAS + 1
        CALLAT A
        addl %eax, %ebx
        movl $1, A + 1
        CALLAT ALIAS
        addl %eax, %ebx
        decl %edi
        jnz 1b
        CHECK "alias and page in turn", %ebx, $5150

        # By every kind of write
        movl $0x01010101, %eax
        movl $(A + 1), %edi
        stosl
        CALLAT A
        CHECK "stosl", %eax, $0x01010101
        movl $(A + 1), %edi
        movl $4, %ecx
        movb $2, %al
        rep stosb
        CALLAT A
        CHECK "rep stosb", %eax, $0x02020202
        .pushsection .data
src:    .long 0x03030303
        .popsection
        movl $src, %esi
        movl $(A + 1), %edi
        movl $4, %ecx
        rep movsb
        CALLAT A
        CHECK "rep movsb", %eax, $0x03030303
        movl $(src + 3), %esi
        movl $(A + 4), %edi
        movl $4, %ecx
        std
        rep movsb
        cld
        incl A + 1
        CALLAT A
        CHECK "rep movsb down, incl", %eax, $0x03030304
        movl %esp, %ebx
        movl $(A + 5), %esp
        pushl $0x04040404
        movl %ebx, %esp
        CALLAT A
        CHECK "push", %eax, $0x04040404
        movl $0x05050505, %eax
        xchgl %eax, A + 1
        CALLAT A
        CHECK "xchg", %eax, $0x05050505
        movl $0x05050505, %eax
        movl $0x06060606, %ecx
        lock cmpxchgl %ecx, A + 1
        CALLAT A
        CHECK "cmpxchg", %eax, $0x06060606
        movl $1, %ecx
        lock xaddl %ecx, A + 1
        CALLAT A
        CHECK "xadd", %eax, $0x06060607
        pushl $0x07070707
        popl A + 1
        CALLAT A
        CHECK "pop", %eax, $0x07070707
        btsl $31, A + 1
        CALLAT A
        CHECK "bts", %eax, $0x87070707
        sete A + 1
        CALLAT A
        andl $0xFE, %eax
        CHECK "setcc", %eax, $0
        movl $0x3F800000, src
        flds src
        fstps A + 1
        CALLAT A
        CHECK "fst", %eax, $0x3F800000
        pushl %esp                      # call's return address: push at A+1..A+4
        movl %esp, %ebx
        movl $(A + 5), %esp
        call 1f
1:      movl %ebx, %esp
        popl %ecx
        CALLAT A
        CHECK "call", %eax, $1b

        # A store that straddles two pages of code
        PLANT A + 0xFF9
        movl $0x111111B8, A + 0x1001    # at 1001: mov $..., %eax; ret
        movl $0xC3C3C311, A + 0x1005
        CALLAT A + 0xFF9
        CALLAT A + 0x1001
        CHECK "straddling store, before", %eax, $0x11111111
        # One store: A+FFE is the first routine's ret (stays), A+1001 the second's opcode
        movl $0xB8900FC3, A + 0xFFE     # changes A+FFF and A+1000 only
        CALLAT A + 0xFF9
        CALLAT A + 0x1001
        CHECK "straddling store beside code", %eax, $0x11111111
        movl $0x22222222, A + 0xFFA
        movl $0xB990C390, A + 0xFFE     # nop; ret | nop; mov $0x11111111, %ecx
        movl $0, %edx
        CALLAT A + 0xFF9
        CHECK "straddling store, first page", %eax, $0x22222222
        CALLAT A + 0x1001
        CHECK "straddling store, second page", %ecx, $0x11111111
        # An instruction over the boundary, each half rewritten
        movl $0xB8, A + 0xFFC           # FFC: B8 imm32 = FFD..1000; ret at 1001
        movl $0x00000000, A + 0xFFD
        movb $0xC3, A + 0x1001
        CALLAT A + 0xFFC
        CHECK "straddling instruction, before", %eax, $0
        movb $0xAA, A + 0xFFD
        CALLAT A + 0xFFC
        CHECK "straddling instruction, first page written", %eax, $0xAA
        movb $0xBB, A + 0x1000
        CALLAT A + 0xFFC
        CHECK "straddling instruction, second page written", %eax, $0xBB0000AA
        movl $0x0D0C0B0A, A + 0xFFD
        CALLAT A + 0xFFC
        CHECK "straddling instruction, straddling store", %eax, $0x0D0C0B0A
        movw $0x4321, A + 0xFFF
        CALLAT A + 0xFFC
        CHECK "straddling instruction, word over the boundary", %eax, $0x43210B0A

        # Code in a page that holds data written in a loop
        jmp 2f
        .balign 4
counter: .long 0
2:      movl $100000, %ecx
1:      incl counter
        loop 1b
        CHECK "data in the code's page", counter, $100000
        movl $20000, %ecx
1:      incl counter
        call 3f
        loop 1b
        jmp 2f
3:      addl $2, counter
        ret
2:      CHECK "data in the code's page, calls", counter, $160000

        # Code page as DMA-like target: a whole page replaced by rep movsd, both directions
        PLANT A
        CALLAT A
        PLANT 0x401000
        movl $0x12345678, 0x401001
        movl $0x401000, %esi
        movl $A, %edi
        movl $1024, %ecx
        rep movsl
        CALLAT A
        CHECK "page copied over code", %eax, $0x12345678
        movl $0x9ABCDEF0, 0x401001
        movl $0x401FFC, %esi
        movl $(A + 0xFFC), %edi
        movl $1024, %ecx
        std
        rep movsl
        cld
        CALLAT A
        CHECK "page copied over code, downwards", %eax, $0x9ABCDEF0

        # The code that calls is itself on the stack (trampolines), 1000 different ones
        movl $1000, %edi
        xorl %ebx, %ebx
1:      pushl $0xC3
        pushl %edi
        subl $1, %esp
        movb $0xB8, (%esp)
        movl %esp, %ecx
        call *%ecx
        addl %eax, %ebx
        addl $9, %esp
        decl %edi
        jnz 1b
        CHECK "code on the stack", %ebx, $500500

        # Writing the return target: the instruction after the call
        movl $1f, %edx
        call 2f
1:      nop
        jmp 3f
2:      movb $0x4B, (%edx)              # dec %ebx
        ret
3:      CHECK "return target rewritten", %ebx, $500499

        # Ring 3 writes its own code, and code that ring 0 ran
        PLANT A
        CALLAT A
        USER
        xorl %ebx, %ebx
        movl $100, %edi
1:      movl %edi, 2f + 1
2:      movl $0, %eax
        addl %eax, %ebx
        decl %edi
        jnz 1b
        movl $0x13131313, A + 1
        movl $A, %ecx
        call *%ecx
        movl %eax, %esi
        movl $0x14141414, ALIAS + 1
        call *%ecx
        UEND
        CHECK "ring 3: ends", x_vec, $0x80
        CHECK "ring 3: next instruction", x_ebx, $5050
        CHECK "ring 3: other page", x_esi, $0x13131313
        CHECK "ring 3: alias", x_eax, $0x14141414
        CALLAT A
        CHECK "ring 3 wrote what ring 0 runs", %eax, $0x14141414
        movl $0x15151515, A + 1
        movl $A, %ecx
        USER
        call *%ecx
        UEND
        CHECK "ring 0 wrote what ring 3 runs", x_eax, $0x15151515
        # Read-only code: ring 3's write faults, also where the code is protected anyway; ring 0 with WP=0 writes
        MAP A, A + 5
        TRY 1f
2:      movl $1, A + 1
1:      MET "ring 0 writes a read-only code page", 14, 3, 2b, A + 1
        USER
2:      movl $1, 0x400001
        UEND
        MET "ring 3 writes a read-only code page", 14, 7, 2b, A + 1
        CALLAT A
        CHECK "unchanged", %eax, $0x15151515
        movl %cr0, %eax
        andl $~0x10000, %eax
        movl %eax, %cr0
        movl $0x16161616, A + 1
        CALLAT A
        CHECK "WP off: written", %eax, $0x16161616
        orl $0x10000, %eax
        movl %cr0, %eax
        orl $0x10000, %eax
        movl %eax, %cr0
        MAP A, A + 7
        jmp finish

        .section .utext
        .balign 4096
utext_end:
