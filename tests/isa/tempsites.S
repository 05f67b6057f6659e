# tempsites.S: instructions that meet temporary mappings (tempmap.S) again and again, so that they are made to look for them: the same few
# instructions on a temporary mapping, on memory that stays, and on user memory; with faults, A and D bits, code, page ends, another page
# directory (SDM vol. 3, 4.7, 4.8, 4.10.4).
        .include "common.inc"
        .set A, 0x900000                # where frames are mapped for a while; the page behind it comes and goes as well
        .set B, A + 0x1000
        .set C, 0x908000                # a third such page, in another place of the tables
        .set F1, 0x910000               # frames
        .set F2, 0x920000
        .set KEPT, 0x930000             # memory that stays
        .set CODE, 0x94D000
        .set PD2, 0x220000
        .set PT2, 0x221000              # linear 800000h to BFFFFFh in PD2
        .set USER_PAGE, HI + 0x10000
        .set LARGE, 0xC00000            # a page of 4 MiB, for a while
        .set ROUNDS, 40
        .set PTE_A, PT + (A >> 12) * 4

# The instructions. EDI: where to; ESI: where from.
        .text
        .balign 4096                    # by themselves: nothing else is made anew with them
store:  movl %eax, (%edi)
        ret
load:   movl (%esi), %eax
        ret
itself: movl %ecx, (%ecx)
        ret
into_ecx: movl 4(%esi), %ecx
        ret
high:   movb %ah, 1(%edi)
        ret
indexed: movzbl (%esi,%ecx,2), %eax
        ret
add:    adcl %eax, (%edi)
        ret
swap:   xchgl %eax, (%edi)
        ret
xadd:   lock xaddl %eax, (%edi)
        ret
cmpx:   lock cmpxchgl %edx, (%edi)
        ret
cmpx8:  lock cmpxchg8b (%edi)
        ret
reset:  lock btrl $5, (%edi)
        ret
shift:  shll $3, (%edi)
        ret
count:  incl (%edi)
        ret
set:    setc (%edi)
        ret
mul:    imull (%esi), %eax
        ret
move:   cmovcl (%esi), %eax
        ret
clear:  rep stosl
        ret
copy:   rep movsl
        ret
compare: repe cmpsl
        ret
stack:  pushl %ebx                      # an address by ESP while changes of it are saved up
        pushl %ecx
        movl 8(%esp,%edi), %eax
        popl %ecx
        popl %ebx
        ret
        .balign 4096

# In a temporary mapping of frame
        .macro AT frame, at=A
        MAP \at, \frame+3
        .endm
        .macro GONE at=A
        MAP \at, 0
        .endm

# Puts 0 to 1023 into the frame at EDI by its own address.
fill:   pushal
        xorl %eax, %eax
1:      movl %eax, (%edi,%eax,4)
        incl %eax
        cmpl $1024, %eax
        jb 1b
        popal
        ret

test_main:
        cld
        movl $KEPT, %edi
        call fill
        SETPTE USER_PAGE, 0x500007

        # A, B and C lose their mappings often
        movl $100, %ebp
1:      AT F1
        AT F1, B
        AT F1, C
        xorl %ecx, %ecx
2:      movl A(,%ecx,4), %eax
        movl B(,%ecx,4), %eax
        movl C(,%ecx,4), %eax
        incl %ecx
        cmpl $64, %ecx
        jb 2b
        GONE
        GONE B
        GONE C
        decl %ebp
        jnz 1b

        movl $ROUNDS, %ebp
again:  movl $F1, %edi
        call fill
        movl $F2, %edi
        call fill
        movl $0x500000, %edi
        call fill

        # Each on a temporary mapping
        AT F1
        movl $A, %edi
        leal 0x100(%edi), %esi
        movl $0x12345678, %eax
        stc
        call store
        setc %dl
        CHECK "store", F1, $0x12345678
        CHECK "store: not in the other frame", F2, $0
        movzbl %dl, %edx
        CHECK "store: CF", %edx, $1
        call load
        CHECK "load", %eax, $0x40
        leal 0x200(%edi), %ecx
        call itself
        CHECK "address and value in ECX", F1 + 0x200, $(A + 0x200)
        CHECK "ECX stays", %ecx, $(A + 0x200)
        call into_ecx
        CHECK "load of ECX", %ecx, $0x41
        movl $0xABCD, %eax
        call high
        CHECK "high byte", F1, $0x1234AB78
        CHECK "high byte: EAX stays", %eax, $0xABCD
        movl $2, %ecx
        call indexed
        CHECK "index in ECX", %eax, $0x41
        CHECK "index in ECX stays", %ecx, $2
        movl $-1, %eax
        addl $0x10, %edi
        cmpl $-1, %eax                  # CF 0, ZF 1
        stc
        call add                        # 4 + FFFFFFFFh + 1
        setc %cl
        setz %ch
        movzwl %cx, %ecx
        CHECK "ADC", F1 + 0x10, $4
        CHECK "ADC: CF and ZF", %ecx, $1
        call swap
        CHECK "XCHG", %eax, $4
        movl $7, %eax
        call xadd
        CHECK "XADD", F1 + 0x10, $6
        CHECK "XADD: old value", %eax, $-1
        movl $6, %eax
        movl $0x77, %edx
        call cmpx
        CHECK "CMPXCHG", F1 + 0x10, $0x77
        movl $0x77, %eax
        movl $5, %edx
        movl $0x88, %ebx
        movl $0x99, %ecx
        call cmpx8
        CHECK "CMPXCHG8B", F1 + 0x10, $0x88
        CHECK "CMPXCHG8B: high half", F1 + 0x14, $0x99
        CHECK "CMPXCHG8B: ECX", %ecx, $0x99
        movl $0x24, F1 + 0x10
        call reset
        CHECK "BTR", F1 + 0x10, $4
        call shift
        CHECK "SHL", F1 + 0x10, $0x20
        call count
        CHECK "INC", F1 + 0x10, $0x21
        stc
        call set
        CHECK "SETC", F1 + 0x10, $1
        movl $3, %eax
        call mul
        CHECK "IMUL", %eax, $0xC0
        stc
        call move
        CHECK "CMOVC", %eax, $0x40
        movl $(A + 0x300), %edi
        subl %esp, %edi
        addl $4, %edi                   # the return address
        movl $0x31, %ebx
        call stack
        CHECK "by ESP", %eax, $0xC0
        CHECK "by ESP: EBX", %ebx, $0x31

        # String instructions: into, from, between temporary mappings
        AT F2, B
        movl $A, %esi
        movl $(KEPT + 0x1000), %edi
        movl $0x400, %ecx
        movl $0x1111, F1
        call copy
        CHECK "copy from it: first", KEPT + 0x1000, $0x1111
        CHECK "copy from it: last", KEPT + 0x1FFC, $0x3FF
        CHECK "copy from it: ESI", %esi, $B
        CHECK "copy from it: EDI", %edi, $(KEPT + 0x2000)
        CHECK "copy from it: ECX", %ecx, $0
        movl $A, %esi
        movl $B, %edi
        movl $0x400, %ecx
        call compare
        CHECK "compare: ESI", %esi, $(A + 4)
        movl $A, %esi
        movl $B, %edi
        movl $0x400, %ecx
        call copy
        CHECK "copy between two: first", F2, $0x1111
        CHECK "copy between two: EDI", %edi, $(B + 0x1000)
        movl $0x5A, %eax
        movl $(A + 0xFF0), %edi
        movl $8, %ecx
        call clear
        CHECK "over the end of the page: first frame", F1 + 0xFFC, $0x5A
        CHECK "over the end of the page: second frame", F2 + 0xC, $0x5A
        CHECK "over the end of the page: not beyond", F2 + 0x10, $1
        movl $0xAABBCCDD, %eax
        movl $(A + 0xFFE), %edi
        call store
        CHECK "operand over the end: first frame", F1 + 0xFFC, $0xCCDD005A
        CHECK "operand over the end: second frame", F2, $0xAABB
        movl $A, %esi                   # backwards
        movl $(KEPT + 0x1010), %edi
        addl $0x10, %esi
        movl $4, %ecx
        std
        call copy
        cld
        CHECK "backwards", KEPT + 0x1008, $2
        CHECK "backwards: ESI", %esi, $A

        # The same instructions where nothing is temporary, and on user memory
        movl $KEPT, %esi
        movl $(KEPT + 0x3000), %edi
        call load
        CHECK "kept: load", %eax, $0
        movl $0x33, %eax
        call store
        CHECK "kept: store", KEPT + 0x3000, $0x33
        movl $0x400, %ecx
        call copy
        CHECK "kept: copy", KEPT + 0x3FFC, $0x3FF
        movl $(USER_PAGE + 4), %esi
        call load
        CHECK "user: load", %eax, $1
        movl $USER_PAGE, %edi
        movl $0x44, %eax
        call store
        CHECK "user: store", 0x500000, $0x44
        movl $A, %esi                   # from a temporary mapping to the user
        movl $0x400, %ecx
        call copy
        CHECK "to the user", 0x500000, $0x1111
        CHECK "to the user: last", 0x500FF8, $0x5A

        # Rights, A and D
        MAP A, 0
        TRY 1f
        movl $A, %esi
        movl $0x123, %ecx
        call load
1:      MET "not present", 14, 0, load, A
        CHECK "not present: ECX", x_ecx, $0x123
        TRY 1f
        movl $(A + 8), %edi
        movl $8, %ecx
        call clear
1:      MET "not present, REP", 14, 2, clear, A+8
        CHECK "not present, REP: ECX", x_ecx, $8
        AT F1
        GONE B
        TRY 1f
        movl $(A + 0xFF8), %edi
        movl $8, %ecx
        movl $0x77, %eax
        call clear
1:      MET "not present, in the middle", 14, 2, clear, B
        CHECK "not present, in the middle: ECX", x_ecx, $6
        CHECK "not present, in the middle: EDI", x_edi, $B
        CHECK "not present, in the middle: done", F1 + 0xFFC, $0x77
        MAP A, F1+1
        TRY 1f
        movl $(A + 4), %edi
        movl $0x99, %ecx
        call store
1:      MET "read-only", 14, 3, store, A+4
        CHECK "read-only: unchanged", F1 + 4, $1
        CHECK "read-only: ECX", x_ecx, $0x99
        AT F1
        movl $A, %esi
        call load
        CHECK "A", PTE_A, $(F1 + 0x23)
        movl $A, %edi
        call store
        CHECK "A and D", PTE_A, $(F1 + 0x63)

        # Mapped to another frame and invalidated; mapped where nothing was, without an invalidation
        movl $1, F1
        movl $2, F2
        AT F1
        movl $A, %esi
        call load
        movl %eax, %ebx
        AT F2
        call load
        CHECK "another frame", %eax, $2
        CHECK "the frame before", %ebx, $1
        GONE
        SETPTE A, F1+3
        call load
        CHECK "mapped without an invalidation", %eax, $1

        # Code that is written through such a mapping
        movl $0x111111B8, CODE          # mov $0x11111111, %eax; ret
        movl $0xC3C3C311, CODE + 4
        movl $CODE, %edx
        call *%edx
        CHECK "code", %eax, $0x11111111
        AT CODE
        movl $A, %edi
        movl $0x222222B8, %eax
        call store
        call *%edx
        CHECK "code written", %eax, $0x11222222
        movl $0x90909090, %eax
        movl $1, %ecx
        call clear
        call *%edx                      # four NOPs; ADC %eax, %ebx; RET
        CHECK "code overwritten by a string", CODE, $0x90909090
        CHECK "and run", %eax, $0x90909090
        movl $0xC3, %eax
        call store
        movl $0x55, %eax
        call *%edx
        CHECK "code written again", %eax, $0x55

        # Another page directory shows another frame there
        movl $PD, %esi
        movl $PD2, %edi
        movl $0x400, %ecx
        call copy
        movl $(PT + 0x2000), %esi
        movl $PT2, %edi
        movl $0x400, %ecx
        call copy
        movl $(PT2 + 3), PD2 + 8
        movl $(F2 + 3), PT2 + ((A >> 12) & 1023) * 4
        AT F1
        movl $A, %esi
        call load
        movl %eax, %ebx
        movl $PD2, %eax
        movl %eax, %cr3
        call load
        movl %eax, %ecx
        movl $PD, %eax
        movl %eax, %cr3
        call load
        CHECK "first directory", %ebx, $1
        CHECK "second directory", %ecx, $2
        CHECK "back", %eax, $1
        GONE

        # A use of some length, after which it is mapped; then invalidated
        AT F1
        movl $512, %ecx
        movl $A, %esi
        xorl %edx, %edx
2:      call load
        addl %eax, %edx
        loop 2b
        CHECK "long use", %edx, $512
        AT F2
        call load
        CHECK "another frame after long use", %eax, $2
        GONE
        TRY 1f
        call load
1:      MET "gone after long use", 14, 0, load, A
        decl %ebp
        jnz again

        # INVLPG in a large page: all of it goes, whichever of its addresses is named (SDM vol. 3, 4.10.4.1)
        movl %cr4, %eax
        orl $0x10, %eax                 # PSE
        movl %eax, %cr4
        movl $0x800083, PD + (LARGE >> 20)
        invlpg LARGE
        movl LARGE + 0x110000, %ebx     # F1 by the large page
        movl $0x400083, PD + (LARGE >> 20)
        invlpg LARGE + 0x300000
        movl $0x66, 0x510000
        movl LARGE + 0x110000, %eax
        CHECK "large page: first", %ebx, $1
        CHECK "large page: after INVLPG elsewhere in it", %eax, $0x66
        jmp finish

        .section .utext
        .balign 4096
utext_end:
