# usermem.S: the supervisor's string instructions on user memory, between user and kernel memory, over page ends where the one becomes the
# other, with faults in the middle, after changes of the page tables, by the same few instructions again and again (SDM vol. 2, MOVS;
# vol. 3, 4.6). Kernel memory is at K, user memory at HI.
        .include "common.inc"
        .set K, 0x900000
        .set K2, 0x910000
        .set U, HI + 0x10000            # eight user pages
        .set FRAME, 0x500000            # they lie here
        .set PTLOW, 0x220000            # page table of linear 3FC00000h to 3FFFFFFFh
        .set EDGE, HI                   # kernel page below, user page from here on

# The same instructions for every check: they are made to go to user memory directly after a few.
        .text
movsd_: rep movsl
        ret
movsb_: rep movsb
        ret
stosd_: rep stosl
        ret
scasb_: repne scasb
        ret
cmpsb_: repe cmpsb
        ret
lodsd_: lodsl
        ret
one_:   movsb
        ret
# K: 0, 1, 2, ...; U: FFh
fill:   pushal
        cld
        movl $K, %edi
        xorl %eax, %eax
1:      stosl
        incl %eax
        cmpl $0x2000, %eax
        jb 1b
        movl $FRAME, %edi             # by the kernel's own mapping
        movl $0x2000, %ecx
        movl $-1, %eax
        rep stosl
        popal
        ret
        .macro REGS si, di, cx
        movl $(\si), %esi
        movl $(\di), %edi
        movl $(\cx), %ecx
        .endm
        .macro LEFT name, si, di, cx
        CHECK "\name: esi", %esi, $(\si)
        CHECK "\name: edi", %edi, $(\di)
        CHECK "\name: ecx", %ecx, $(\cx)
        .endm
# What a fault in the middle left
        .macro AT name, si, di, cx
        CHECK "\name: esi", x_esi, $(\si)
        CHECK "\name: edi", x_edi, $(\di)
        CHECK "\name: ecx", x_ecx, $(\cx)
        .endm
        .macro RELOAD_CR3
        movl %cr3, %eax
        movl %eax, %cr3
        .endm

test_main:
        .set n, 0
        .rept 8
        SETPTE U+n*0x1000, FRAME+n*0x1000+7
        .set n, n + 1
        .endr
        SETPTE EDGE, FRAME+0x8007
        movl $PTLOW, %edi
        movl $1024, %ecx
        xorl %eax, %eax
        rep stosl
        movl $(K2 + 0x8003), PTLOW + 0xFFC
        movl $(PTLOW + 7), PD + ((EDGE - 1) >> 22) * 4
        RELOAD_CR3

        movl $40, %ebp
1:      call fill
        REGS K, U+2, 0x700
        call movsd_                     # to user memory, over a page end
        LEFT "to user", K+0x1C00, U+0x1C02, 0
        CHECK "to user: first", U+2, $0
        CHECK "to user: last", U+0x1BFE, $0x6FF
        CHECK "to user: behind", U+0x1C04, $-1
        CHECK "to user: in front", U+1, $0xFF
        REGS U+0x802, K2, 0x101
        call movsb_                     # from user memory
        LEFT "from user", U+0x903, K2+0x101, 0
        CHECK "from user", K2+0x100-4, $0x23F
        REGS U+2, U+0x3002, 0x600
        call movsd_                     # inside user memory
        LEFT "in user", U+0x1802, U+0x4802, 0
        CHECK "in user", U+0x3002+0x1400, $0x500
        REGS K, K2, 0x500
        call movsd_                     # no user memory at all
        LEFT "in kernel", K+0x1400, K2+0x1400, 0
        CHECK "in kernel", K2+0x13FC, $0x4FF
        std
        REGS K+0x13FC, U+0x13FE, 0x500
        call movsd_
        cld
        LEFT "down", K-4, U-2, 0
        CHECK "down", U+0x13FE-0x100, $0x4BF
        movl $0x5A5A5A5A, %eax
        REGS 0, U+0x5000, 0x401
        call stosd_
        LEFT "fill user", 0, U+0x6004, 0
        CHECK "fill user: last", U+0x6000, $0x5A5A5A5A
        CHECK "fill user: behind", U+0x6004, $-1
        movb $0xFF, %al
        REGS 0, U+0x5000, 0x3000
        call scasb_
        LEFT "search user", 0, U+0x6005, 0x3000-0x1005
        movl %cr0, %edx
        REGS U+2, K, 0x1400
        movl $77, U + 0x1000 + 2
        call cmpsb_
        LEFT "compare", U+0x1003, K+0x1001, 0x3FF
        REGS U+0x1002, 0, 0
        call lodsd_
        LEFT "load", U+0x1006, 0, 0
        CHECK "load", %eax, $77
        REGS K+4, U, 0
        call one_
        LEFT "one byte", K+5, U+1, 0
        REGS K, U, 0
        call movsb_                     # nothing to do
        LEFT "none", K, U, 0

        # Where the kernel's memory ends and the user's begins
        REGS K, EDGE-0x20, 0x10
        call movsd_
        LEFT "over the edge", K+0x40, EDGE+0x20, 0
        CHECK "over the edge: last", EDGE+0x1C, $15
        CHECK "over the edge: below", K2+0x8FE0, $0
        REGS EDGE-0x20, K2, 0x10
        call movsd_
        LEFT "from over the edge", EDGE+0x20, K2+0x40, 0
        CHECK "from over the edge", K2+0x3C, $15
        std
        REGS EDGE+0x1C, EDGE+0x5C, 0x10
        call movsd_
        cld
        LEFT "down the edge", EDGE-0x24, EDGE+0x1C, 0
        CHECK "down the edge", EDGE+0x20, $0

        # The page tables have just been changed: one page is another one now; nothing is known of the user's memory
        SETPTE U+0x2000, FRAME+0x9007
        testl $1, %ebp
        jz 2f
        RELOAD_CR3
        jmp 3f
2:      invlpg U + 0x2000
3:      REGS K, U + 0x1F00, 0x80
        call movsd_
        LEFT "another page", K+0x200, U+0x2100, 0
        CHECK "another page: there", FRAME+0x9000, $64
        CHECK "another page: not here", FRAME+0x2000, $-1
        MAP U+0x2000, FRAME+0x2007

        # A page is missing in the middle
        MAP U+0x2000, FRAME+0x2006
        TRY 4f
        REGS K, U+0x1F02, 0x100
        call movsd_
4:      MET "missing", 14, 2, movsd_, U + 0x2000
        AT "missing", K+0xFC, U+0x1FFE, 0xC1
        TRY 4f
        REGS U+0x1F00, K2, 0x200
        call movsb_
4:      MET "missing source", 14, 0, movsb_, U + 0x2000
        AT "missing source", U+0x2000, K2+0x100, 0x100
        # It is the first to be reached, with the user's memory just forgotten
        invlpg U + 0x1000
        TRY 4f
        REGS K, U+0x2004, 0x100
        call movsd_
4:      MET "missing first", 14, 2, movsd_, U+0x2004
        AT "missing first", K, U+0x2004, 0x100
        # Read-only, dirty before; WP is set
        MAP U+0x2000, FRAME+0x2065
        TRY 4f
        REGS K, U+0x1F00, 0x100
        call movsd_
4:      MET "read-only", 14, 3, movsd_, U + 0x2000
        AT "read-only", K+0x100, U+0x2000, 0xC0
        MAP U+0x2000, FRAME+0x2007

        # Ring 3 uses the memory in between
        movl $2, U
        USER 2
        incl U
        movl U, %edx
        UEND
        MET "ring 3", 0x80
        CHECK "ring 3", x_edx, $3
        REGS U, K2, 4
        call movsb_
        CHECK "behind ring 3", K2, $3

        # Code of ring 3 that the supervisor writes
        REGS code_, U+0x7000, code_end-code_
        movb %al, counter
        call movsb_
        movl %ebp, U + 0x7001
        USER 2
        movl $(U + 0x7000), %ecx
        call *%ecx
        UEND
        CHECK "code", x_eax, %ebp
        REGS counter, U+0x7001, 1
        movb $0x99, counter
        call movsb_
        USER 2
        movl $(U + 0x7000), %ecx
        call *%ecx
        UEND
        movzbl x_eax, %eax
        CHECK "code, written again", %eax, $0x99

        decl %ebp
        jz 5f
        jmp 1b

        # A kernel page among the user's: no form of these instructions reaches both without a look
5:      MAP U + 0x1000, FRAME + 0x1003
        movl $40, %ebp
6:      call fill
        REGS K, U+0xF00, 0x800
        call movsd_
        LEFT "mixed", K+0x2000, U+0x2F00, 0
        CHECK "mixed", U+0x1000, $0x40
        CHECK "mixed: last", U+0x2EFC, $0x7FF
        USER 2
        movl U + 0x1000, %eax
        UEND
        MET "mixed, ring 3", 14, 5, , U+0x1000
        decl %ebp
        jz finish
        jmp 6b

code_:  movl $0, %eax
        ret
code_end:

        .data
counter: .long 0

        .section .utext
        .balign 4096
utext_end:
