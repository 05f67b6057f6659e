# paging.S: page tables of every kind, rights, A and D bits, reserved bits, WP, NX, PGE, A20, and when a changed entry must be seen
# (SDM vol. 3, chapter 4). Reads, writes and fetches are done by plain instructions, so that windows and emulator both meet them.
        .include "common.inc"

        .set A, 0x900000                # page under test
        .set B, 0x910000
        .set PDX, 0x210000 + 0x10000    # directories and tables of the guest
        .set PTX, PDX + 0x1000
        .set PDPT, PDX + 0x10000
        .set PDE0, PDX + 0x11000        # four PAE directories
        .set PTE0, PDX + 0x15000        # a PAE table
        .set LARGE, 0xC00000            # 4 MiB page
        .set P, 1
        .set W, 2
        .set U, 4
        .set ACC, 0x20
        .set DIRTY, 0x40
        .set PS, 0x80
        .set G, 0x100

        .macro PTEIS name, lin, want
        movl PT+((\lin)>>12)*4, %eax
        CHECK "\name", %eax, $(\want)
        .endm
        .macro READ name, lin, vec=-1, err=0
        TRY 1f
9:      movl \lin, %ecx
        movl $0, x_resume
1:      MET "\name", \vec
        .if \vec >= 0
        CHECK "\name error code", x_err, $\err
        CHECK "\name cr2", x_cr2, $(\lin)
        .endif
        .endm
        .macro WRITE name, lin, vec=-1, err=0
        TRY 1f
9:      movl $0x77, \lin
        movl $0, x_resume
1:      MET "\name", \vec
        .if \vec >= 0
        CHECK "\name error code", x_err, $\err
        CHECK "\name cr2", x_cr2, $(\lin)
        .endif
        .endm
        .macro UREAD name, lin, vec=0x80, err=0
        USER
        movl \lin, %ecx
        UEND
        MET "\name", \vec
        .if \vec == 14
        CHECK "\name error code", x_err, $\err
        CHECK "\name cr2", x_cr2, $(\lin)
        .endif
        .endm
        .macro UWRITE name, lin, vec=0x80, err=0
        USER
        movl $0x77, \lin
        UEND
        MET "\name", \vec
        .if \vec == 14
        CHECK "\name error code", x_err, $\err
        CHECK "\name cr2", x_cr2, $(\lin)
        .endif
        .endm
# A call of RET at lin, from ring 0
        .macro FETCH name, lin, vec=-1, err=0
        TRY 1f
        movl $(\lin), %eax
        call *%eax
        movl $0, x_resume
1:      MET "\name", \vec
        .if \vec >= 0
        CHECK "\name error code", x_err, $\err
        CHECK "\name eip", x_eip, $(\lin)
        CHECK "\name cr2", x_cr2, $(\lin)
        .endif
        .endm
        .macro CR0BIT op, mask
        movl %cr0, %eax
        \op $(\mask), %eax
        movl %eax, %cr0
        .endm
        .macro CR4BIT op, mask
        movl %cr4, %eax
        \op $(\mask), %eax
        movl %eax, %cr4
        .endm
        .macro FLUSH
        movl %cr3, %eax
        movl %eax, %cr3
        .endm
        .set WP, 0x10000

        .data
        .balign 4
skipped: .long 0                        # length of the instruction
efer:   .long 0

        .text
# #PF: maps A for ring 3, not accessed, and goes on behind the instruction, which is not repeated.
skip:   movl 4(%esp), %edx
        movl $(A+P+W+U), PT+(A>>12)*4
        movl skipped, %eax
        addl %eax, 56(%edx)
        ret
# #PF: the page gets the frame that is as far behind FRAMES as the page is behind ROW, as a kernel does for fresh memory.
        .set ROW, HI + 0x40000
        .set FRAMES, 0x540000
row_page: movl x_cr2, %eax
        movl %eax, %ecx
        subl $HI, %ecx
        shrl $12, %ecx
        andl $~0xFFF, %eax
        addl $(FRAMES-ROW+P+W+U+ACC+DIRTY), %eax
        movl %eax, PTHI(,%ecx,4)
        ret
test_main:
        movl $0xA, A
        movl $0xB, B

        # -- Pages touched one after the other that get frames in a row: the next ones are still not there, and are what they are mapped to
        movl $0, x_count
        HOOK 14, row_page
        movl $ROW, %edi
        USER
1:      movl %edi, (%edi)
        addl $0x1000, %edi
        cmpl $(ROW+0xA000), %edi
        jb 1b
        UEND
        MET "row of pages", 0x80
        UNHOOK 14
        CHECK "row: a fault for each and the end", x_count, $11
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
        CHECK "row: page \n", FRAMES+\n*0x1000, $ROW+\n*0x1000
        .endr
        UREAD "row: the next page, read", ROW+0xA000, 14, 4
        UWRITE "row: the next but one, written", ROW+0xB004, 14, 6
        movl $0x1234, FRAMES+0x80000
        MAP ROW+0xA000, FRAMES+0x80000+P+W+U+ACC+DIRTY
        UREAD "row: the next page with another frame", ROW+0xA000
        CHECK "row: the other frame", x_ecx, $0x1234
        MAP ROW+0xB000, FRAMES+0xB000+P+U+ACC
        UREAD "row: a page that may be read", ROW+0xB000
        UWRITE "row: but not written", ROW+0xB000, 14, 7
        MAP ROW+0xC000, FRAMES+0xC000+P+W+U
        UREAD "row: a page not dirty", ROW+0xC000
        CHECK "row: accessed only", PTHI+(ROW+0xC000-HI)/0x400, $(FRAMES+0xC000+P+W+U+ACC)
        UWRITE "row: made dirty", ROW+0xC000
        CHECK "row: dirty", PTHI+(ROW+0xC000-HI)/0x400, $(FRAMES+0xC000+P+W+U+ACC+DIRTY)
        CHECK "row: its frame", FRAMES+0xC000, $0x77
        movl $0xC340C031, FRAMES+0xD000         # xor eax, eax; inc eax; ret
        movl $FRAMES+0xD000, %eax
        call *%eax
        CHECK "row: code in the next frame", %eax, $1
        MAP ROW+0xD000, FRAMES+0xD000+P+W+U+ACC+DIRTY
        USER
        movl $0xC348C031, ROW+0xD000
        UEND
        MET "row: code written", 0x80
        movl $FRAMES+0xD000, %eax
        call *%eax
        CHECK "row: the code written is run", %eax, $-1
        MAP ROW+0x5000, 0
        UREAD "row: a page in the middle is taken away", ROW+0x5000, 14, 4
        UREAD "row: its neighbour stays", ROW+0x6000
        CHECK "row: with what it held", x_ecx, $ROW+0x6000

        # -- Rights
        MAP A, A+P+W+U
        # The handler gives the page and does not come back to the access: nobody has touched it
        .macro SKIPPED name, len, insn:vararg
        movl $0, PT+(A>>12)*4
        FLUSH
        movl $\len, skipped
        HOOK 14, skip
        USER
        \insn
        UEND
        MET "\name", 0x80
        UNHOOK 14
        PTEIS "\name: neither A nor D", A, A+P+W+U
        .endm
        SKIPPED "skipped write", 10, movl $0x77, A
        SKIPPED "skipped read", 6, movl A, %ecx
        MAP A, A+P+W+U
        UREAD "user page, read", A
        UWRITE "user page, written", A
        MAP A, A+P+U
        UREAD "read-only user page, read", A
        UWRITE "read-only user page, written", A, 14, 7
        WRITE "read-only user page, written by the supervisor, WP", A, 14, 3
        MAP A, A+P+W
        UREAD "supervisor page, read", A, 14, 5
        UWRITE "supervisor page, written", A, 14, 7
        MAP A, A+P
        READ "read-only supervisor page, read", A
        WRITE "read-only supervisor page, written, WP", A, 14, 3
        MAP A, 0
        READ "absent page, read", A, 14, 0
        WRITE "absent page, written", A, 14, 2
        UREAD "absent page, read in ring 3", A, 14, 4
        UWRITE "absent page, written in ring 3", A, 14, 6
        # directory and table entry together
        movl $(PT+0x2000+P+W), PD+8     # 800000h to BFFFFFh: supervisor only
        FLUSH
        MAP A, A+P+W+U
        UREAD "directory without U, read", A, 14, 5
        movl $(PT+0x2000+P+U), PD+8
        FLUSH
        UREAD "directory without W, read", A
        UWRITE "directory without W, written", A, 14, 7
        WRITE "directory without W, written by the supervisor", A, 14, 3
        movl $(PT+0x2000+W+U), PD+8
        FLUSH
        READ "absent table, read", A, 14, 0
        movl $(PT+0x2000+P+W+U), PD+8
        FLUSH

        # -- WP off: the supervisor writes everywhere
        CR0BIT andl, ~WP
        MAP A, A+P+U
        WRITE "WP off: read-only user page", A
        CHECK "WP off: written", A, $0x77
        UWRITE "WP off: read-only user page, ring 3", A, 14, 7
        PTEIS "WP off: A and D are set", A, A+P+U+ACC+DIRTY
        MAP B, B+P
        WRITE "WP off: read-only supervisor page", B
        movl $2000, %ecx                # so often that it is mapped
1:      movl %ecx, A
        incl B
        decl %ecx
        jnz 1b
        CHECK "WP off: a loop of writes", A, $1
        CHECK "WP off: a loop of increments", B, $(0x77+2000)
        CR0BIT orl, WP
        WRITE "WP on again: user page", A, 14, 3
        WRITE "WP on again: supervisor page", B, 14, 3
        READ "WP on again: read", A
        CR0BIT andl, ~WP
        WRITE "WP off again", A
        CR0BIT orl, WP
        MAP B, B+P+W

        # -- A and D
        MAP A, A+P+W
        PTEIS "fresh entry", A, A+P+W
        READ "first read", A
        PTEIS "A after the read", A, A+P+W+ACC
        WRITE "first write", A
        PTEIS "D after the write", A, A+P+W+ACC+DIRTY
        SETPTE A, A+P+W                 # no INVLPG: the processor need not look again, but INVLPG makes it
        invlpg A
        movl A, %ecx
        PTEIS "A is set again", A, A+P+W+ACC
        movl $1000, %ecx
1:      movl A, %eax
        decl %ecx
        jnz 1b
        PTEIS "reads never set D", A, A+P+W+ACC
        MAP A, A+P+W
        movl $0, %eax
        lock cmpxchgl %eax, A
        PTEIS "a failing CMPXCHG writes", A, A+P+W+ACC+DIRTY
        MAP A, A+P
        TRY 1f
        movl $1, A
1:      MET "write refused", 14, 3
        movl PT+(A>>12)*4, %eax
        andl $DIRTY, %eax
        CHECK "a refused write sets no D", %eax, $0
        movl PD+8, %eax
        andl $ACC, %eax
        CHECK "A in the directory", %eax, $ACC
        # D is set before the next instruction sees the entry
        MAP A, A+P+W
        movl $5, A
        movl PT+(A>>12)*4, %ecx
        andl $DIRTY, %ecx
        CHECK "D at once", %ecx, $DIRTY
        # each ring
        MAP A, A+P+W+U
        UWRITE "ring 3 writes", A
        PTEIS "D by ring 3", A, A+P+W+U+ACC+DIRTY
        MAP A, A+P+W+U
        UREAD "ring 3 reads", A
        PTEIS "A by ring 3", A, A+P+W+U+ACC

        # -- Accesses over two pages
        MAP A, A+P+W
        MAP A+0x1000, 0
        movl $0x11111111, A+0xFFC
        TRY 1f
9:      movl $0x22222222, A+0xFFE
1:      MET "write into an absent second page", 14, 2, 9b, A+0x1000
        CHECK "the first page is untouched", A+0xFFC, $0x11111111
        TRY 1f
9:      addl $0x10000, A+0xFFD
1:      MET "RMW into an absent second page", 14, 2, 9b, A+0x1000
        MAP A, 0
        TRY 1f
9:      movl A+0xFFE, %eax
1:      MET "both absent: the first one", 14, 0, 9b, A+0xFFE
        MAP A, A+P+W
        MAP A+0x1000, A+0x1000+P
        TRY 1f
9:      movl $0x33333333, A+0xFFE
1:      MET "write into a read-only second page", 14, 3, 9b, A+0x1000
        CHECK "the first page is untouched again", A+0xFFC, $0x11111111
        MAP A+0x1000, A+0x1000+P+W
        # two linear pages, one frame; the data is the same at once
        MAP A, B+P+W
        movl $0x1234, A+8
        CHECK "alias", B+8, $0x1234
        movl $0x4321, B+8
        CHECK "alias, the other way", A+8, $0x4321
        # remapped under use
        movl $0, %edx
        movl $500, %ecx
1:      MAP A, B+P+W
        movl $1, A+16
        MAP A, B+0x1000+P+W
        movl $2, A+16
        cmpl $1, B+16
        jne 2f
        cmpl $2, B+0x1000+16
        jne 2f
        incl %edx
        decl %ecx
        jnz 1b
2:      CHECK "remapped 1000 times", %edx, $500

        # -- An entry made present needs no flush
        MAP A, 0
        READ "absent again", A, 14, 0
        SETPTE A, B+P+W
        READ "made present without INVLPG", A
        # rights raised without a flush: a fault drops what is remembered, the retry goes through
        MAP A, B+P
        movl A, %ecx
        SETPTE A, B+P+W
        HOOK 14, back_to_it
        movl $0x99, A
        UNHOOK 14
        CHECK "rights raised", B, $0x99
        # CR3 drops it
        MAP A, B+P+W
        movl A, %ecx
        SETPTE A, 0
        FLUSH
        READ "absent after CR3", A, 14, 0

        # -- Global pages
        CR4BIT orl, 0x80
        MAP A, B+P+W+G
        movl A, %ecx
        SETPTE A, 0
        invlpg A
        READ "INVLPG drops a global page", A, 14, 0
        MAP A, B+P+W+G
        movl A, %ecx
        SETPTE A, 0
        CR4BIT andl, ~0x80
        READ "CR4.PGE drops global pages", A, 14, 0

        # -- 4 MiB pages
        CR4BIT orl, 0x10
        movl $(LARGE+P+W+U+PS), PD+(LARGE>>20)
        FLUSH
        movl $0xCC, LARGE+0x123000
        UREAD "4 MiB page in ring 3", LARGE+0x123000
        CHECK "4 MiB page: value", x_ecx, $0xCC
        CHECK "4 MiB page: A and D", PD+(LARGE>>20), $(LARGE+P+W+U+PS+ACC+DIRTY)
        movl $(LARGE+P+PS), PD+(LARGE>>20)
        FLUSH
        movl LARGE+0x1000, %ecx
        CHECK "4 MiB page: A only", PD+(LARGE>>20), $(LARGE+P+PS+ACC)
        WRITE "4 MiB page, read-only", LARGE+0x2000, 14, 3
        UREAD "4 MiB page of the supervisor", LARGE+0x3000, 14, 5
        movl $(LARGE+0x2000+P+W+PS), PD+(LARGE>>20)
        FLUSH
        READ "4 MiB page, reserved bit 13", LARGE+0x4000, 14, 9
        WRITE "4 MiB page, reserved bit 13, written", LARGE+0x4000, 14, 11
        UWRITE "4 MiB page, reserved bit 13, ring 3", LARGE+0x4000, 14, 15
        movl $(LARGE+0x2000+W+PS), PD+(LARGE>>20)
        FLUSH
        READ "absent 4 MiB page: no reserved bits", LARGE+0x4000, 14, 0
        # the same linear memory through another frame; INVLPG of any address drops it all
        movl $(0x800000+P+W+PS), PD+(LARGE>>20)
        FLUSH
        movl $0xB1, B+0x40
        movl LARGE+0x110040, %ecx
        CHECK "4 MiB page elsewhere", %ecx, $0xB1
        movl $(LARGE+P+W+PS), PD+(LARGE>>20)
        invlpg LARGE+0x3FF000
        movl $0xC1, LARGE+0x110040
        CHECK "INVLPG of another address of it", B+0x40, $0xB1
        CR4BIT andl, ~0x10              # PS means nothing now: a table at LARGE
        movl $(LARGE+P+W+PS), PD+(LARGE>>20)
        movl $(B+P+W), PTX
        movl $(PTX+P+W+PS), PD+(LARGE>>20)
        FLUSH
        movl $0xB2, B
        movl LARGE, %ecx
        CHECK "PS without CR4.PSE", %ecx, $0xB2
        movl $(PT+0x3007), PD+(LARGE>>20)
        FLUSH

        # -- Instruction fetches
        MAP A, A+P+W+U
        movb $0xC3, A
        FETCH "fetch", A
        MAP A, 0
        FETCH "fetch from an absent page", A, 14, 0
        MAP A, A+P+W                    # no NX here: no I bit either
        USER
        movl $A, %eax
        jmp *%eax
        UEND
        MET "fetch from a supervisor page", 14, 5, A, A
        # an instruction over two pages, the second absent
        MAP A+0x1000, 0
        movl $0x90909090, A+0xFFC
        movb $0xB8, A+0xFFE             # MOV EAX, imm32
        TRY 1f
        movl $(A+0xFFC), %eax
        jmp *%eax
1:      MET "instruction into an absent page", 14, 0, A+0xFFE, A+0x1000
        # one that ends at the last byte does not touch it
        movb $0xC3, A+0xFFF
        FETCH "instruction up to the last byte", A+0xFFF
        MAP A+0x1000, A+0x1000+P+W

        # -- PAE
        movl $PDPT, %edi
        movl $0x9000, %ecx
        xorl %eax, %eax
        cld
        rep stosl
        movl $PDX, %eax
        .set n, 0
        .rept 4
        movl $(PDE0+n*0x1000+1), PDPT+n*8
        .set n, n+1
        .endr
        movl $PDE0, %edi                # 2 MiB pages: 0 to 16 MiB, for both rings like the first 4 MiB of the others
        movl $(P+W+U+PS), %eax
        movl $8, %ecx
1:      movl %eax, (%edi)
        addl $8, %edi
        addl $0x200000, %eax
        decl %ecx
        jnz 1b
        movl $(PTE0+P+W+U), PDE0+4*8    # 800000h to 9FFFFFh through a table
        movl $PTE0, %edi
        movl $(0x800000+P+W), %eax
        movl $512, %ecx
1:      movl %eax, (%edi)
        addl $8, %edi
        addl $4096, %eax
        decl %ecx
        jnz 1b
        movl %cr0, %eax                 # paging off, PAE, on again
        andl $0x7FFFFFFF, %eax
        movl %eax, %cr0
        CR4BIT orl, 0x20
        movl $PDPT, %eax
        movl %eax, %cr3
        movl %cr0, %eax
        orl $0x80000000, %eax
        movl %eax, %cr0
        .macro XPTE lo, hi=0, lin=A
        movl $(\lo), PTE0+(((\lin)>>12)&511)*8
        movl $(\hi), PTE0+(((\lin)>>12)&511)*8+4
        invlpg \lin
        .endm
        movl $0xAE, A
        READ "PAE: read", A
        CHECK "PAE: A and D", PTE0+((A>>12)&511)*8, $(A+P+W+ACC+DIRTY)
        XPTE A+P+W+U
        UWRITE "PAE: ring 3", A
        XPTE A+P+U
        UWRITE "PAE: read-only", A, 14, 7
        WRITE "PAE: read-only, supervisor", A, 14, 3
        XPTE 0
        READ "PAE: absent", A, 14, 0
        XPTE A+P+W, 0x10
        READ "PAE: reserved bit 36", A, 14, 9
        XPTE A+P+W, 0x40000000
        READ "PAE: reserved bit 62", A, 14, 9
        XPTE A+P+W, 0x80000000
        READ "PAE: bit 63 without EFER.NXE", A, 14, 9
        XPTE A+W, 0xFFFFFFFF
        READ "PAE: absent, reserved bits do not count", A, 14, 0
        XPTE A+P+W+PS
        READ "PAE: PAT bit, which this model has not", A, 14, 9
        XPTE B+P+W
        movl $0xB4, B
        movl A, %ecx
        CHECK "PAE: another frame", %ecx, $0xB4
        movl $(0xA00000+P+W+PS), PDE0+6*8
        FLUSH
        movl $0x2A, 0xA12340
        movl 0xC12340, %ecx
        CHECK "PAE: 2 MiB page", %ecx, $0x2A
        movl $(0xA00000+0x1000+P+W+PS), PDE0+6*8
        FLUSH
        READ "PAE: 2 MiB page, reserved bit 12", 0xC12340, 14, 9
        movl $(0xC00000+P+W+U+PS), PDE0+6*8
        FLUSH
        # PDPTEs are registers: changes count at the next load of CR3
        movl $(0xC00000+P+W+U+PS), PDE0+0x1000
        movl $0xD0, 0xC00010
        movl HI+0x10, %ecx
        CHECK "PAE: second PDPTE", %ecx, $0xD0
        movl $0, PDPT+8
        invlpg HI
        movl HI+0x10, %ecx
        CHECK "PAE: a changed PDPTE is not seen yet", %ecx, $0xD0
        FLUSH
        READ "PAE: absent PDPTE", HI+0x10, 14, 0
        movl $(PDE0+0x1000+1+2), PDPT+8 # reserved bit 1
        movl %cr3, %ebx
        TRY 1f
9:      movl %ebx, %cr3
1:      MET "PAE: reserved bit of a PDPTE", 13, 0, 9b
        READ "PAE: the old PDPTEs stay", HI+0x10, 14, 0
        movl $(PDE0+0x1000+2), PDPT+8   # absent: no matter
        FLUSH
        READ "PAE: reserved bit of an absent PDPTE", HI+0x10, 14, 0
        # -- NX
        movl $0xC0000080, %ecx
        rdmsr
        movl %eax, efer
        orl $0x800, %eax
        wrmsr
        XPTE A+P+W+U
        movb $0xC3, A
        FETCH "NX off in the entry", A
        XPTE A+P+W+U, 0x80000000
        READ "NX: read", A
        WRITE "NX: written", A
        movb $0xC3, A
        FETCH "NX: fetch", A, 14, 0x11
        USER
        movl $A, %eax
        jmp *%eax
        UEND
        MET "NX: fetch in ring 3", 14, 0x15, A, A
        XPTE 0
        FETCH "NX: fetch from an absent page", A, 14, 0x10
        XPTE A+P+W
        USER
        movl $A, %eax
        jmp *%eax
        UEND
        MET "NX: fetch from a supervisor page in ring 3", 14, 0x15, A, A
        movl $0x80000000, PDE0+4*8+4    # in the directory
        FLUSH
        XPTE A+P+W
        FETCH "NX in the directory", A, 14, 0x11
        movl $0, PDE0+4*8+4
        FLUSH
        # code that runs, then becomes NX, then runs again
        XPTE A+P+W
        movb $0xC3, A
        movl $100, %edi
1:      movl $A, %eax
        call *%eax
        decl %edi
        jnz 1b
        XPTE A+P+W, 0x80000000
        FETCH "NX after 100 calls", A, 14, 0x11
        XPTE A+P+W
        FETCH "no NX again", A
        movl $0xC0000080, %ecx
        xorl %edx, %edx
        movl efer, %eax
        wrmsr
        # back to 32-bit tables
        movl %cr0, %eax
        andl $0x7FFFFFFF, %eax
        movl %eax, %cr0
        CR4BIT andl, ~0x20
        movl $PD, %eax
        movl %eax, %cr3
        movl %cr0, %eax
        orl $0x80000000, %eax
        movl %eax, %cr0

        # -- Paging off: linear is physical
        movl $0x0FF, B
        MAP A, B+P+W
        movl $0x55, A
        movl %cr0, %eax
        andl $0x7FFFFFFF, %eax
        movl %eax, %cr0
        movl A, %ecx
        movl B, %edx
        orl $0x80000000, %eax
        movl %eax, %cr0
        CHECK "paging off: the frame", %edx, $0x55
        MAP A, A+P+W
        CHECK "paging off: the page", A, %ecx
        TRY 1f
        movl %cr0, %eax
        andl $0x7FFFFFFE, %eax
        orl $0x80000000, %eax
9:      movl %eax, %cr0
1:      MET "PG without PE", 13, 0, 9b
        TRY 1f
        movl %cr0, %eax
        orl $0x20000000, %eax
        andl $~0x40000000, %eax
9:      movl %eax, %cr0
1:      MET "NW without CD", 13, 0, 9b
        TRY 1f
        movl %cr4, %eax
        orl $0x80000000, %eax
9:      movl %eax, %cr4
1:      MET "reserved bit of CR4", 13, 0, 9b
        movl %cr0, %ebx
        movl %ebx, %eax
        orl $0x0000FFC0, %eax
        movl %eax, %cr0
        movl %cr0, %eax
        CHECK "reserved bits of CR0 stay zero", %eax, %ebx
        TRY 1f
9:      .byte 0x0F, 0x20, 0xC8          # CR1
1:      MET "MOV from CR1", 6,,9b
        TRY 1f
9:      .byte 0x0F, 0x22, 0xE8          # CR5
1:      MET "MOV to CR5", 6,,9b

        # -- A20
        movl $0x1111, 0x600000
        movl $0x2222, 0x700000
        movl $a20_code, %esi            # from a place with bit 20 clear, like stack and page tables
        movl $0x610000, %edi
        movl $(a20_end-a20_code), %ecx
        cld
        rep movsb
        movl $0x610000, %eax
        call *%eax
        CHECK "A20 masked", %esi, $0x1111
        movl 0x700000, %ecx
        CHECK "A20 open", %ecx, $0x2222
        CHECK "A20 masked: write", 0x600004, $0x3333
        CHECK "A20 masked: not there", 0x700004, $0
        CHECK "A20 masked: a loop of writes", 0x600008, $1000
        jmp finish
back_to_it: ret
a20_code: inb $0x92, %al
        andb $0xFD, %al
        outb %al, $0x92
        movl 0x700000, %esi             # bit 20 of the physical address is masked
        movl $0x3333, 0x700004
        movl $1000, %ecx
1:      incl 0x700008
        decl %ecx
        jnz 1b
        inb $0x92, %al
        orb $2, %al
        outb %al, $0x92
        ret
a20_end:
        .section .utext
        .balign 4096
utext_end:
