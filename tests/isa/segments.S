# segments.S: descriptors, their checks, and what a loaded segment register then allows (SDM vol. 3, chapters 3 and 5).
# QEMU's TCG checks no limits and no types of accesses, Bochs does.
        .include "common.inc"

        .set S1, 0x38
        .set S2, 0x40
        .set S3, 0x48
        .set S4, 0x50
        .set LDTSEL, 0x58
        .set L1, 0x04
        .set L2, 0x0C

# A descriptor: attr is bits 40 to 55 with the limit's bits left out (so C093h: flat writable data), limit 20 bits.
        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
        .macro LOAD reg, sel
        movl $(\sel), %eax
        movl %eax, %\reg
        .endm
# Loading a register with the selector faults so.
        .macro BAD name, reg, sel, vec, err
        TRY 1f
        movl $(\sel), %eax
9:      movl %eax, %\reg
1:      MET "\name", \vec, \err, 9b
        .endm
# The instruction given faults with #GP(0) (or vec) at itself.
        .macro FAULT name, vec, insn:vararg
        TRY 1f
9:      \insn
1:      MET "\name", \vec, 0, 9b
        .endm
        .macro FINE name, insn:vararg
        TRY 1f
        \insn
        jmp 2f
1:      movl $0, x_resume
        CHECK "\name", x_vec, $-1
        jmp 3f
2:      movl $0, x_resume
        CHECK "\name", x_vec, $-1
3:
        .endm

        .data
        .balign 8
ldt:    .quad 0x00CF93B00000FFFF        # base B00000h
        .quad 0x00CFF3C00000FFFF        # base C00000h, DPL 3
ldt_end:
far16:  .word 0x1234, S1
far32:  .long 0x12345678
        .word S1
stack48: .long KSTACK
        .word KDS
save_esp: .long 0
v:      .long 0

        .text
test_main:
        movl $0xA0A0A0A0, 0xA00000
        movl $0xB0B0B0B0, 0xB00000
        movl $0xC0C0C0C0, 0xC00000

        # -- Limits
        DESC S1, 0xA00000, 0xFFF, 0x4093
        LOAD fs, S1
        FINE "last byte within the limit", movb %fs:0xFFF, %al
        FINE "last dword within the limit", movl %fs:0xFFC, %eax
        FAULT "byte behind the limit", 13, movb %fs:0x1000, %al
        LOAD fs, S1
        FAULT "dword across the limit", 13, movl %fs:0xFFD, %eax
        LOAD fs, S1
        FAULT "word across the limit, written", 13, movw %ax, %fs:0xFFF
        LOAD fs, S1
        FAULT "bit string across the limit", 13, btsl %eax, %fs:0xFFE
        LOAD fs, S1
        FAULT "8 bytes of x87 across the limit", 13, fldl %fs:0xFF9
        LOAD fs, S1
        FAULT "CMPXCHG8B across the limit", 13, cmpxchg8b %fs:0xFFA
        LOAD es, S1
        movl $0xFFE, %edi
        movl $4, %ecx
        cld
        TRY 1f
9:      rep stosb
1:      MET "REP STOSB over the limit", 13, 0, 9b
        CHECK "REP STOSB over the limit: ecx", x_ecx, $2
        CHECK "REP STOSB over the limit: edi", x_edi, $0x1000
        LOAD es, S1
        movl $0xFFD, %edi
        TRY 1f
9:      stosl
1:      MET "STOSD across the limit", 13, 0, 9b
        CHECK "STOSD across the limit: edi", x_edi, $0xFFD
        DESC S1, 0xA00000, 0, 0xC093
        LOAD fs, S1
        FINE "limit 0 with G is FFFh", movb %fs:0xFFF, %al
        FAULT "limit 0 with G ends there", 13, movb %fs:0x1000, %al
        DESC S1, 0xA00000, 0, 0x4093
        LOAD fs, S1
        FINE "limit 0 is one byte", movb %fs:0, %al
        FAULT "limit 0: the second byte", 13, movw %fs:0, %ax
        # base + offset wraps
        DESC S1, 0xFFA00000, 0xFFFFF, 0xC093
        LOAD fs, S1
        movl %fs:0x1000000, %ecx
        CHECK "base and offset wrap", %ecx, $0xA0A0A0A0

        # -- Expand-down
        DESC S1, 0x9FF000, 0xFFF, 0x4097
        LOAD fs, S1
        FINE "expand-down: first byte", movb %fs:0x1000, %al
        FAULT "expand-down: below", 13, movb %fs:0xFFF, %al
        LOAD fs, S1
        FAULT "expand-down: across", 13, movl %fs:0xFFE, %eax
        LOAD fs, S1
        FINE "expand-down, B: above FFFFh", movb %fs:0x10000, %al
        DESC S1, 0x9FF000, 0xFFF, 0x0097
        LOAD fs, S1
        FINE "expand-down, no B: FFFFh", movb %fs:0xFFFF, %al
        FAULT "expand-down, no B: 10000h", 13, movb %fs:0x10000, %al
        LOAD fs, S1
        FAULT "expand-down, no B: across FFFFh", 13, movw %fs:0xFFFF, %ax
        DESC S1, 0x9FF000, 0xFFFFF, 0xC097
        LOAD fs, S1
        FAULT "expand-down of the greatest limit is empty", 13, movb %fs:0xFFFFFFFF, %al

        # -- Types
        DESC S1, 0xA00000, 0xFFFFF, 0xC091
        LOAD fs, S1
        FINE "read-only data is read", movl %fs:0, %eax
        FAULT "read-only data is written", 13, movl %eax, %fs:0
        LOAD fs, S1
        FAULT "read-only data, XCHG", 13, xchgl %eax, %fs:0
        LOAD fs, S1
        FAULT "read-only data, CMPXCHG", 13, cmpxchgl %eax, %fs:0
        DESC S1, 0xA00000, 0xFFFFF, 0xC09B
        LOAD fs, S1
        FINE "readable code is read", movl %fs:0, %eax
        FAULT "code is written", 13, movl %eax, %fs:0
        FAULT "written through CS", 13, movl %eax, %cs:v
        FINE "read through CS", movl %cs:v, %eax
        DESC S1, 0xA00000, 0xFFFFF, 0xC099
        BAD "execute-only code as data", fs, S1, 13, S1
        DESC S1, 0xA00000, 0xFFFFF, 0x4082
        BAD "LDT descriptor as data", fs, S1, 13, S1
        DESC S1, 0xA00000, 0xFFFFF, 0xC080
        BAD "type 0 as data", es, S1, 13, S1

        # -- Null, absent, out of the table
        LOAD fs, 0
        FAULT "read through null", 13, movb %fs:0, %al
        LOAD gs, 3
        movl %gs, %ecx
        CHECK "null with RPL 3", %ecx, $3
        FAULT "written through null", 13, movb %al, %gs:0
        TRY 1f
        xorl %eax, %eax
        movl %eax, %ds
9:      movl v, %eax
1:      MET "null DS", 13, 0, 9b
        BAD "null SS", ss, 0, 13, 0
        BAD "null SS with RPL", ss, 2, 13, 0
        DESC S1, 0xA00000, 0xFFFFF, 0xC013
        BAD "absent DS", ds, S1, 11, S1
        BAD "absent SS", ss, S1, 12, S1
        BAD "behind the GDT", fs, 0x138, 13, 0x138
        BAD "behind the GDT, SS, RPL kept out", ss, 0x13B, 13, 0x138
        xorl %eax, %eax
        lldt %ax                        # RESET leaves one of 64 KiB at 0
        BAD "LDT that is not there", fs, L1, 13, L1
        TRY 1f
9:      movl %eax, %cs
1:      MET "MOV to CS", 6,,9b

        # -- LDT
        DESC LDTSEL, 0, 15, 0x82
        movl $ldt, %eax
        movw %ax, gdt+LDTSEL+2
        shrl $16, %eax
        movb %al, gdt+LDTSEL+4
        movb %ah, gdt+LDTSEL+7
        movw $LDTSEL, %ax
        lldt %ax
        sldt %ecx
        CHECK "SLDT", %ecx, $LDTSEL
        LOAD fs, L1
        movl %fs:0, %ecx
        CHECK "through the LDT", %ecx, $0xB0B0B0B0
        BAD "behind the LDT", fs, 0x14, 13, 0x14
        LOAD fs, (L2+3)
        movl %fs:0, %ecx
        CHECK "DPL 3 at CPL 0", %ecx, $0xC0C0C0C0
        DESC S2, 0, 0xFFFFF, 0xC093
        TRY 1f
        movw $S2, %ax
9:      lldt %ax
1:      MET "LLDT of data", 13, S2, 9b
        TRY 1f
        movw $L1, %ax
9:      lldt %ax
1:      MET "LLDT out of the LDT", 13, L1, 9b
        DESC S2, 0, 0xFFFFF, 0x02
        TRY 1f
        movw $S2, %ax
9:      lldt %ax
1:      MET "LLDT of an absent one", 11, S2, 9b
        TRY 1f
        movw $TSS, %ax
9:      ltr %ax
1:      MET "LTR of a busy TSS", 13, TSS, 9b
        TRY 1f
        xorl %eax, %eax
9:      ltr %ax
1:      MET "LTR of null", 13, 0, 9b
        TRY 1f
        movw $L1, %ax
9:      ltr %ax
1:      MET "LTR out of the LDT", 13, L1, 9b
        DESC S2, 0, 0xFFF, 0x09
        TRY 1f
        movw $S2, %ax
9:      ltr %ax
1:      MET "LTR of an absent TSS", 11, S2, 9b
        # the LDT goes away: what was loaded from it stays
        LOAD fs, L1
        xorl %eax, %eax
        lldt %ax
        movl %fs:0, %ecx
        CHECK "LDT gone, register stays", %ecx, $0xB0B0B0B0
        BAD "LDT gone, loaded anew", gs, L1, 13, L1

        # -- Descriptor caches outlive their table
        DESC S1, 0xA00000, 0xFFFFF, 0xC093
        LOAD fs, S1
        LOAD es, S1
        DESC S1, 0xB00000, 0xFFFFF, 0xC093
        movl %fs:0, %ecx
        CHECK "GDT changed, FS", %ecx, $0xA0A0A0A0
        movl %es:0, %ecx
        CHECK "GDT changed, ES", %ecx, $0xA0A0A0A0
        LOAD fs, S1
        movl %fs:0, %ecx
        CHECK "GDT changed, FS loaded anew", %ecx, $0xB0B0B0B0
        DESC S1, 0xC00000, 0xFFFFF, 0xC013
        movl %fs:0, %ecx
        CHECK "descriptor made absent, FS", %ecx, $0xB0B0B0B0
        LOAD es, KDS
        # DS and SS flat in the cache, small in the table: limits do not count until the next load
        DESC S1, 0, 0xFFFFF, 0xC093
        DESC S2, 0, 0xFFFFF, 0xC093
        LOAD ds, S1
        LOAD ss, S2
        DESC S1, 0, 0xFF, 0x4093
        movl $0, gdt+S2
        movl $0, gdt+S2+4
        movl $77, v
        pushl v
        popl %ecx
        CHECK "stale DS and SS", %ecx, $77
        LOAD ss, KDS
        LOAD ds, KDS

        # -- Accessed
        DESC S1, 0xA00000, 0xFFFFF, 0xC092
        LOAD fs, S1
        movzbl gdt+S1+5, %ecx
        CHECK "loading sets accessed", %ecx, $0x93
        DESC S1, 0xA00000, 0xFFFFF, 0xC09A
        LOAD fs, S1
        movzbl gdt+S1+5, %ecx
        CHECK "loading readable code as data sets accessed", %ecx, $0x9B
        movl $S1, %eax
        DESC S1, 0xA00000, 0xFFFFF, 0xC092
        verr %ax
        lar %ax, %ecx
        movzbl gdt+S1+5, %ecx
        CHECK "VERR and LAR do not", %ecx, $0x92

        # -- Privilege of data segments
        DESC S1, 0xA00000, 0xFFFFF, 0xC093
        BAD "RPL 3, DPL 0", fs, (S1+3), 13, S1
        BAD "SS with RPL 1", ss, (KDS+1), 13, KDS
        DESC S1, 0xA00000, 0xFFFFF, 0xC0F3
        BAD "SS of DPL 3 at CPL 0", ss, S1, 13, S1
        DESC S1, 0xA00000, 0xFFFFF, 0xC091
        BAD "read-only SS", ss, S1, 13, S1
        BAD "code as SS", ss, KCS, 13, KCS
        USER
        movl $KDS, %eax
9:      movl %eax, %fs
        UEND
        MET "ring 3 loads DPL 0", 13, KDS, 9b
        DESC S1, 0xA00000, 0xFFFFF, 0xC09F
        USER
        movl $S1+3, %eax
        movl %eax, %fs
        UEND
        MET "ring 3 loads conforming code of DPL 0", 0x80
        USER
        movl $UDS-3, %eax
9:      movl %eax, %ss
        UEND
        MET "ring 3 loads SS with RPL 0", 13, UDS-3, 9b

        # -- LES LDS LSS LFS LGS
        DESC S1, 0xA00000, 0xFFFFF, 0xC093
        movl $-1, %ecx
        les far32, %ecx
        CHECK "LES: offset", %ecx, $0x12345678
        movl %es, %ecx
        CHECK "LES: selector", %ecx, $S1
        LOAD es, KDS
        movl $-1, %ecx
        lgsw far16, %cx
        CHECK "LGS, 16 bits", %ecx, $0xFFFF1234
        movl %gs:0, %ecx
        CHECK "LGS: usable", %ecx, $0xA0A0A0A0
        movl %esp, stack48
        lss stack48, %esp
        CHECK "LSS", %ecx, $0xA0A0A0A0
        DESC S1, 0xA00000, 0xFFFFF, 0xC013
        movl $55, %ecx
        TRY 1f
9:      lfs far32, %ecx
1:      MET "LFS of an absent one", 11, S1, 9b
        CHECK "LFS of an absent one: register", x_ecx, $55
        TRY 1f
9:      .byte 0xC4, 0xC0
1:      MET "LES with a register", 6,,9b

        # -- LAR LSL VERR VERW ARPL
        .macro QUERY name, insn, sel, want, zf
        movl $0x77777777, %ecx
        movl $(\sel), %eax
        \insn %eax, %ecx
        setz %dl
        movzbl %dl, %edx
        CHECK "\name: ZF", %edx, $\zf
        CHECK "\name", %ecx, $\want
        .endm
        DESC S1, 0xA00000, 0x54321, 0xD0F3
        QUERY "LAR", lar, S1, 0x00D0F300, 1
        QUERY "LSL", lsl, S1, 0x54321FFF, 1
        DESC S1, 0xA00000, 0x54321, 0x4093
        QUERY "LSL in bytes", lsl, S1, 0x54321, 1
        QUERY "LAR of DPL 0 with RPL 3", lar, (S1+3), 0x77777777, 0
        DESC S1, 0xA00000, 0x54321, 0x409F
        QUERY "LAR of conforming code with RPL 3", lar, (S1+3), 0x00409F00, 1
        QUERY "LAR of null", lar, 3, 0x77777777, 0
        QUERY "LSL behind the table", lsl, 0x138, 0x77777777, 0
        QUERY "LSL of the TSS", lsl, TSS, (tss_end-tss), 1
        DESC S1, 0x10, 0, 0x8C
        QUERY "LAR of a call gate", lar, S1, 0x8C00, 1
        QUERY "LSL of a call gate", lsl, S1, 0x77777777, 0
        DESC S1, 0x10, 0, 0x85
        QUERY "LAR of a task gate", lar, S1, 0x8500, 1
        DESC S1, 0x10, 0, 0x8E
        QUERY "LAR of an interrupt gate", lar, S1, 0x77777777, 0
        DESC S1, 0x10, 0, 0x80
        QUERY "LAR of type 0", lar, S1, 0x77777777, 0
        DESC S1, 0, 0x3FF, 0x13
        QUERY "LSL of an absent one", lsl, S1, 0x3FF, 1
        DESC S1, 0, 0xFFFFF, 0xC0F3
        movl $0x77777777, %ecx
        movl $S1, %eax
        larw %ax, %cx
        CHECK "LAR, 16 bits", %ecx, $0x7777F300
        lslw %ax, %cx
        CHECK "LSL, 16 bits", %ecx, $0x7777FFFF
        .macro VERIFY name, insn, sel, zf
        movl $(\sel), %eax
        \insn %ax
        setz %dl
        movzbl %dl, %edx
        CHECK "\name", %edx, $\zf
        .endm
        VERIFY "VERR data", verr, S1, 1
        VERIFY "VERW data", verw, S1, 1
        DESC S1, 0, 0xFFFFF, 0xC0F1
        VERIFY "VERW read-only data", verw, S1, 0
        VERIFY "VERR read-only data", verr, S1, 1
        VERIFY "VERR readable code", verr, KCS, 1
        VERIFY "VERW code", verw, KCS, 0
        DESC S1, 0, 0xFFFFF, 0xC099
        VERIFY "VERR execute-only code", verr, S1, 0
        VERIFY "VERR of a TSS", verr, TSS, 0
        VERIFY "VERR null", verr, 0, 0
        VERIFY "VERR DPL 0 with RPL 3", verr, (KDS+3), 0
        movl $0xFFFF0010, %eax
        movl $0x3, %ecx
        arpl %cx, %ax
        setz %dl
        movzbl %dl, %edx
        CHECK "ARPL raises", %eax, $0xFFFF0013
        CHECK "ARPL raises: ZF", %edx, $1
        movl $1, %ecx
        arpl %cx, %ax
        setz %dl
        movzbl %dl, %edx
        CHECK "ARPL leaves", %eax, $0xFFFF0013
        CHECK "ARPL leaves: ZF", %edx, $0

        jmp finish
        .section .utext
        .balign 4096
utext_end:
