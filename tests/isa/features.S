# features.S: what --cpu can add: SMAP and UMIP, in code that is translated.
# run with: --cpu atom-d510,+smap,+umip,+rdtscp
        .include "common.inc"
        .set UPAGE, 0x400000            # a page for both rings
        .set CR4_SMAP, 0x200000
        .set CR4_UMIP, 0x800

        .macro CR4 set=0, clear=0
        movl %cr4, %eax
        orl $(\set), %eax
        andl $~(\clear), %eax
        movl %eax, %cr4
        .endm

# Adds up or stores 64 words of the user's page. The same instructions again and again: they are made to leave to the emulator, or to go to user
# memory directly, after a few.
sum:    xorl %eax, %eax
        movl $64, %ecx
1:      addl UPAGE - 4(,%ecx,4), %eax
        decl %ecx
        jnz 1b
        ret
other:  xorl %eax, %eax                 # as sum, but used without SMAP only, until ring 3 has been
        movl $64, %ecx
1:      addl UPAGE - 4(,%ecx,4), %eax
        decl %ecx
        jnz 1b
        ret
fill:   movl $64, %ecx
1:      movl %ecx, UPAGE - 4(,%ecx,4)
        decl %ecx
        jnz 1b
        ret

test_main:
        movl %cr0, %eax
        orl $0x10000, %eax
        movl %eax, %cr0
        # Pages below UPAGE are the supervisor's alone but for .utext; UPAGE is the user's.
        SETPTE UPAGE, UPAGE + 7
        movl %cr3, %eax
        movl %eax, %cr3

        # Without SMAP, long enough that the sites go to user memory directly
        movl $20, %edi
1:      call fill
        call sum
        call other
        decl %edi
        jnz 1b
        CHECK "without SMAP", %eax, $2080

        CR4 CR4_SMAP
        stac
        movl $20, %edi
1:      call fill
        call sum
        decl %edi
        jnz 1b
        CHECK "SMAP, AC set", %eax, $2080
        clac
        TRY 2f
        call sum
2:      MET "SMAP, AC clear, read", 14, 1, , UPAGE + 252
        TRY 2f
        call fill
2:      MET "SMAP, AC clear, write", 14, 3, , UPAGE + 252
        # AC changes from one access to the next, by each way there is
        movl $50, %edi
        xorl %esi, %esi
3:      TRY 4f
        stac
        movl UPAGE, %eax
        clac
        movl UPAGE, %ebx
4:      cmpl $14, x_vec
        jne 5f
        incl %esi
5:      movl $0, x_resume
        TRY 6f
        pushfl
        orl $0x40000, (%esp)
        popfl
        movl UPAGE, %eax
        pushfl
        andl $~0x40000, (%esp)
        popfl
        movl UPAGE, %ebx
6:      cmpl $14, x_vec
        jne 7f
        incl %esi
7:      movl $0, x_resume
        movl counter, %eax
        incl %eax
        movl %eax, counter
        cmpl $50, %eax
        jb 3b
        CHECK "AC on and off", counter, $50
        # Strings, the stack, and read-modify-write
        stac
        movl $UPAGE, %esi
        movl $UPAGE + 0x400, %edi
        movl $64, %ecx
        rep movsl
        movl UPAGE + 0x400, %eax
        clac
        CHECK "rep movs, AC set", %eax, $1
        TRY 2f
        movl $UPAGE + 0x400, %edi
        movl $64, %ecx
        rep stosl
2:      MET "rep stos, AC clear", 14, 3, , UPAGE + 0x400
        CHECK "rep stos, AC clear: nothing done", x_ecx, $64
        TRY 2f
        incl UPAGE
2:      MET "inc, AC clear", 14, 3, , UPAGE
        # Ring 3 is not concerned, and its AC means alignment only
        USER 2
        movl UPAGE, %ebx
        incl UPAGE
        UEND
        MET "ring 3", 0x80
        CHECK "ring 3 read", x_ebx, $1
        # Ring 3 has just used the page: what was mapped for it is not for the supervisor
        TRY 2f
        call other
2:      MET "SMAP, AC clear, after ring 3", 14, 1, , UPAGE + 252
        # Off again: the sites of above
        CR4 0, CR4_SMAP
        movl $20, %edi
1:      call fill
        call sum
        decl %edi
        jnz 1b
        CHECK "SMAP off again", %eax, $2080
        CR4 CR4_SMAP
        TRY 2f
        call sum
2:      MET "SMAP on again", 14, 1, , UPAGE + 252
        CR4 0, CR4_SMAP

        # UMIP
        movl $2, %edi
1:      USER 2
        sgdtl UPAGE
        sidtl UPAGE
        sldtl %eax
        strl %eax
        smswl %eax
        UEND
        MET "UMIP off", 0x80
        decl %edi
        jnz 2f
        jmp 3f
2:      jmp 1b
3:      CR4 CR4_UMIP
        .irp insn, "sgdtl UPAGE", "sidtl UPAGE", "sldtl %eax", "strl %eax", "smswl %eax"
        USER 2
9:      \insn
        UEND
        MET "UMIP: \insn", 13, 0
        .endr
        sgdtl UPAGE
        smswl %eax
        CR4 0, CR4_UMIP

        movl $0xC0000103, %ecx
        movl $77, %eax
        xorl %edx, %edx
        wrmsr
        xorl %ecx, %ecx
        rdtscp
        CHECK "rdtscp", %ecx, $77
        jmp finish

        .data
counter: .long 0

        .section .utext
        .balign 4096
utext_end:
