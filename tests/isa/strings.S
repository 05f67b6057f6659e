# strings.S: string instructions with both address sizes, both directions, every width, every override, over pages and limits, and the
# integer instructions that walk memory by themselves: ENTER, bit strings, XLAT, PUSHA (SDM vol. 1, 7.3.9; vol. 2).
        .include "common.inc"

        .set SRC, 0x900000
        .set DST, 0x910000
        .set S1, 0x38                   # base 920000h
        .set S16, 0x40                  # base 900000h, limit FFFFh

        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
# SRC: 0, 1, 2, ...; DST: FFh
        .macro FILL
        cld
        movl $SRC, %edi
        xorl %eax, %eax
7:      stosb
        incl %eax
        cmpl $0x3000, %eax
        jb 7b
        movl $DST, %edi
        movl $0x3000, %ecx
        movb $0xFF, %al
        rep stosb
        .endm
        .macro REGS si, di, cx
        movl \si, %esi
        movl \di, %edi
        movl \cx, %ecx
        .endm
        .macro LEFT name, si, di, cx
        .ifnb \si
        CHECK "\name: esi", %esi, $(\si)
        .endif
        .ifnb \di
        CHECK "\name: edi", %edi, $(\di)
        .endif
        .ifnb \cx
        CHECK "\name: ecx", %ecx, $(\cx)
        .endif
        .endm

        .data
        .balign 16
bits:   .long 0, 0, 0, 0, 0x80000000, 0, 0, 0
table:  .ascii "abcdefghijklmnop"
flags:  .long 0
v:      .long 0

        .text
test_main:
        DESC S1, 0x920000, 0xFFFFF, 0xC093
        DESC S16, 0x900000, 0xFFFF, 0x0093
        # -- MOVS
        FILL
        REGS $SRC+1, $DST, $5
        rep movsb
        LEFT "REP MOVSB", SRC+6, DST+5, 0
        CHECK "REP MOVSB: data", DST, $0x04030201
        CHECK "REP MOVSB: end", DST+4, $0xFFFFFF05
        REGS $SRC+4, $DST+0x20, $3
        rep movsl
        LEFT "REP MOVSD", SRC+16, DST+0x2C, 0
        CHECK "REP MOVSD: data", DST+0x28, $0x0F0E0D0C
        REGS $SRC+4, $DST+0x40, $3
        rep movsw
        LEFT "REP MOVSW", SRC+10, DST+0x46, 0
        CHECK "REP MOVSW: data", DST+0x42, $0x09080706
        std
        REGS $SRC+0x13, $DST+0x63, $4
        rep movsb
        LEFT "REP MOVSB backwards", SRC+0xF, DST+0x5F, 0
        CHECK "REP MOVSB backwards: data", DST+0x60, $0x13121110
        REGS $SRC+0x1C, $DST+0x8C, $4
        rep movsl
        LEFT "REP MOVSD backwards", SRC+0xC, DST+0x7C, 0
        CHECK "REP MOVSD backwards: data", DST+0x80, $0x13121110
        cld
        # onto itself: it replicates
        movl $0x44332211, SRC
        REGS $SRC, $SRC+1, $15
        rep movsb
        CHECK "MOVSB onto itself", SRC+8, $0x11111111
        movl $0x44332211, SRC
        REGS $SRC, $SRC+4, $100
        rep movsl
        CHECK "MOVSD onto itself", SRC+400, $0x44332211
        movl $0x44332211, SRC
        movl $0x88776655, SRC+4
        REGS $SRC, $SRC+2, $6
        rep movsl
        CHECK "MOVSD onto itself, by two bytes", SRC+4, $0x44334433
        FILL
        # zero times, and what a repeat leaves alone
        REGS $1, $2, $0
        rep movsb
        LEFT "REP MOVSB zero times", 1, 2, 0
        # 16-bit addresses: SI, DI, CX only
        movl $S16, %eax
        movl %eax, %ds
        movl %eax, %es
        REGS $0xABCD0010, $0x12342000, $0x77770003
        addr16 rep movsb
        movl $KDS, %eax
        movl %eax, %ds
        movl %eax, %es
        LEFT "16-bit addresses", 0xABCD0013, 0x12342003, 0x77770000
        movl SRC+0x2000, %eax
        andl $0xFFFFFF, %eax
        CHECK "16-bit addresses: data", %eax, $0x121110
        movl $S16, %eax
        movl %eax, %es
        REGS $SRC, $0x5555FFFE, $4
        movb $0x77, %al
        addr16 rep stosb                # DI wraps
        movl $KDS, %eax
        movl %eax, %es
        CHECK "DI wraps", %edi, $0x55550002
        movzwl SRC+0xFFFE, %eax
        CHECK "DI wraps: before", %eax, $0x7777
        movzwl SRC, %eax
        CHECK "DI wraps: after", %eax, $0x7777
        FILL
        # overrides: the source only
        movl $S1, %eax
        movl %eax, %fs
        movl %eax, %gs
        movl $0x5A5A5A5A, 0x920010
        REGS $0x10, $DST, $1
        movsl %fs:(%esi), %es:(%edi)
        CHECK "MOVS through FS", DST, $0x5A5A5A5A
        REGS $0x10, $DST+8, $1
        rep movsl %gs:(%esi), %es:(%edi)
        CHECK "REP MOVS through GS", DST+8, $0x5A5A5A5A
        REGS $table, $DST, $4
        rep movsb %cs:(%esi), %es:(%edi)
        CHECK "REP MOVS through CS", DST, $0x64636261
        pushl $0x1234567
        REGS %esp, $DST, $1
        movsl %ss:(%esi), %es:(%edi)
        popl %eax
        CHECK "MOVS through SS", DST, $0x1234567
        movl $0x10, %esi
        lodsl %fs:(%esi)
        CHECK "LODS through FS", %eax, $0x5A5A5A5A
        movl $0x10, %esi
        movl $DST+0x30, %edi
        movl $0x5A5A5A5A, DST+0x30
        cmpsl %es:(%edi), %fs:(%esi)
        setz %al
        movzbl %al, %eax
        CHECK "CMPS through FS", %eax, $1

        # -- STOS, LODS
        movl $0xA1B2C3D4, %eax
        movl $DST+0x100, %edi
        stosb
        stosw
        stosl
        CHECK "STOS: edi", %edi, $(DST+0x107)
        CHECK "STOS: data", DST+0x100, $0xD4C3D4D4
        movl $0, %eax
        movl $SRC+0x40, %esi
        movl $3, %ecx
        rep lodsw
        CHECK "REP LODSW", %eax, $0x4544
        # -- SCAS, CMPS
        movl $SRC, %edi
        movl $0x100, %ecx
        movb $0x20, %al
        repne scasb
        LEFT "REPNE SCASB", , SRC+0x21, 0xDF
        setz %al
        movzbl %al, %eax
        CHECK "REPNE SCASB: ZF", %eax, $1
        movl $DST+0x200, %edi
        movl $0x40, %ecx
        movb $0xFF, %al
        repe scasb
        LEFT "REPE SCASB to the end", , DST+0x240, 0
        movl $SRC, %edi
        movl $4, %ecx
        movl $0x07060504, %eax
        repne scasl
        LEFT "REPNE SCASD", , SRC+8, 2
        FILL
        REGS $SRC, $DST, $0x100
        rep movsb
        movb $0, DST+0x50
        REGS $SRC, $DST, $0x100
        repe cmpsb
        LEFT "REPE CMPSB", SRC+0x51, DST+0x51, 0xAF
        ja 1f
        hlt
1:      REGS $SRC+0x100, $DST+0x100, $0
        cmpl %eax, %eax
        repe cmpsb
        setz %al
        movzbl %al, %eax
        CHECK "REPE CMPSB zero times keeps the flags", %eax, $1
        std
        REGS $SRC+0xFC, $DST+0xFC, $0x40
        repe cmpsl
        LEFT "REPE CMPSD backwards", SRC+0x4C, DST+0x4C, 0x14
        cld
        # -- Over pages: where it stops, and that it goes on
        MAP DST+0x1000, 0
        .macro STOPS name, insn, si, di, cx, cr2, err, isi, idi, icx
        REGS $\isi, $\idi, $\icx
        TRY 1f
9:      \insn
1:      MET "\name", 14, \err, 9b, \cr2
        CHECK "\name: esi", x_esi, $(\si)
        CHECK "\name: edi", x_edi, $(\di)
        CHECK "\name: ecx", x_ecx, $(\cx)
        .endm
        STOPS "MOVSB up to an absent page", "rep movsb", SRC+0x10, DST+0x1000, 0x10, DST+0x1000, 2, SRC, DST+0xFF0, 0x20
        STOPS "MOVSD, the last one across", "rep movsl", SRC+12, DST+0xFFE, 5, DST+0x1000, 2, SRC, DST+0xFF2, 8
        STOPS "STOSW up to an absent page", "rep stosw", 0, DST+0x1000, 8, DST+0x1000, 2, 0, DST+0xFF0, 0x10
        STOPS "LODSB up to an absent page", "rep lodsb", DST+0x1000, 0, 4, DST+0x1000, 0, DST+0xFF0, 0, 0x14
        STOPS "CMPSB up to an absent page", "repne cmpsb", SRC+0x10, DST+0x1000, 0x10, DST+0x1000, 0, SRC, DST+0xFF0, 0x20
        std
        STOPS "MOVSB down to an absent page", "rep movsb", SRC+0xF, DST+0x1FFF, 1, DST+0x1FFF, 2, SRC+0x10, DST+0x2000, 2
        cld
        HOOK 14, map_it                 # mapped by the handler: it goes on where it stopped
        REGS $SRC+0x20, $DST+0xFF0, $0x40
        rep movsb
        UNHOOK 14
        LEFT "goes on behind the fault", SRC+0x60, DST+0x1030, 0
        CHECK "goes on behind the fault: data", DST+0x1000, $0x33323130
        # long ones, over many pages
        REGS $0x800000, $0xA00000, $0x40000
        movl $0xC001D00D, %eax
        movl $0x800000, %edi
        movl $0x40000, %ecx
        pushl %esi
        rep stosl
        popl %esi
        REGS $0x800000, $0xA00000, $0x40000
        rep movsl
        LEFT "1 MiB", 0x900000, 0xB00000, 0
        CHECK "1 MiB: data", 0xAFFFFC, $0xC001D00D
        REGS $0x800000, $0xA00000, $0x40000
        repe cmpsl
        LEFT "1 MiB compared", 0x900000, 0xB00000, 0

        # -- Bit strings: offsets beyond the operand, negative ones too
        movl $bits+16, %ebx
        movl $-1, %eax
        btl %eax, (%ebx)
        setc %cl
        movl $31, %eax
        btsl %eax, -8(%ebx)
        movl $-97, %eax
        btsl %eax, (%ebx)
        CHECK "BTS by -97", bits, $0x80000000
        CHECK "BTS by 31", bits+8, $0x80000000
        movl $31, %eax
        btrl %eax, (%ebx)
        CHECK "BTR by 31", bits+16, $0
        movl $100, %eax
        btcl %eax, (%ebx)
        CHECK "BTC by 100", bits+28, $0x10
        movl $0, bits+12
        movw $-1, %ax
        btsw %ax, (%ebx)
        CHECK "BTS, 16 bits, by -1", bits+12, $0x80000000
        movw $-16, %ax
        btsw %ax, (%ebx)
        CHECK "BTS, 16 bits, by -16", bits+12, $0x80010000
        movl $0, bits+16
        btsl $33, (%ebx)                # an immediate is taken modulo 32
        CHECK "BTS by immediate 33", bits+16, $2
        movl $0x7FFFFFFF, %eax          # 256 MiB minus one bit away: an absent page
        TRY 1f
9:      btl %eax, (%ebx)
1:      MET "BT far away", 14, 0, 9b

        # -- XLAT
        movl $table, %ebx
        movl $0xFFFFFF03, %eax
        xlatb
        CHECK "XLAT", %eax, $0xFFFFFF64
        movl $S1, %eax
        movl %eax, %fs
        movl $0x20, %ebx
        movb $0x42, 0x920025
        movb $5, %al
        xlatb %fs:(%ebx)
        movzbl %al, %eax
        CHECK "XLAT through FS", %eax, $0x42

        # -- ENTER with levels
        movl %esp, v
        movl $0xC00, %ecx
        leal -0x400(%esp), %ebp
        movl $0x11111111, -4(%ebp)
        movl $0x22222222, -8(%ebp)
        movl %ebp, %esi
        enter $0x20, $3
        movl (%ebp), %eax
        CHECK "ENTER 3: old EBP", %eax, %esi
        movl -4(%ebp), %eax
        CHECK "ENTER 3: first frame pointer", %eax, $0x11111111
        movl -8(%ebp), %eax
        CHECK "ENTER 3: second frame pointer", %eax, $0x22222222
        movl -12(%ebp), %eax
        CHECK "ENTER 3: its own", %eax, %ebp
        movl v, %eax
        subl $4+12+0x20, %eax
        movl %esp, %ebx
        CHECK "ENTER 3: ESP", %ebx, %eax
        leave
        movl %esp, %ebx
        movl v, %eax
        CHECK "LEAVE: ESP", %ebx, %eax
        CHECK "LEAVE: EBP", %ebp, %esi
        # frame pointers that lie where the first ones are pushed: one after the other
        movl %esp, %ebp
        enter $0, $3                    # copies [ebp-4], its own push of EBP, and [ebp-8], the copy
        movl -4(%ebp), %eax
        movl (%ebp), %ebx
        CHECK "ENTER over itself: first copy", %eax, %ebx
        movl -8(%ebp), %eax
        CHECK "ENTER over itself: second copy", %eax, %ebx
        leave
        # 31 levels, and 33 is 1
        movl %esp, v
        leal -0x400(%esp), %ebp
        enter $0, $31
        movl v, %eax
        subl $4*32, %eax
        movl %esp, %ebx
        CHECK "ENTER 31: ESP", %ebx, %eax
        leave
        enter $0, $33
        movl v, %eax
        subl $8, %eax
        movl %esp, %ebx
        CHECK "ENTER 33: ESP", %ebx, %eax
        leave
        # -- PUSHA, POPA with ESP; PUSH and POP of ESP and through it
        movl %esp, v
        pushal
        movl 12(%esp), %ebx
        popal
        movl v, %eax
        pushl %esp
        popl %ecx
        CHECK "PUSH ESP", %ecx, %eax
        pushl $0x900
        movl %esp, v
        popl %esp
        movl %esp, %ebx
        movl v, %esp
        addl $4, %esp
        CHECK "POP ESP", %ebx, $0x900
        pushl $0x1
        pushl $0x2
        popl (%esp)                     # the address with ESP already moved
        popl %ebx
        CHECK "POP [ESP]", %ebx, $2
        pushl $0x3
        pushl (%esp)
        popl %ebx
        popl %ecx
        CHECK "PUSH [ESP]", %ebx, $3

        # -- BCD
        .macro BCD name, insn, ax, want, cf, flags=0
        movl $(\flags), %eax
        pushl $(2+\flags)
        popfl
        movl $(\ax), %eax
        \insn
        pushfl
        popl %ebx
        andl $0x11, %ebx
        CHECK "\name", %eax, $(\want)
        CHECK "\name: CF AF", %ebx, $(\cf)
        .endm
        BCD "DAA 9A", daa, 0x9A, 0x00, 0x11
        BCD "DAA 0B", daa, 0x0B, 0x11, 0x10
        BCD "DAA 99 AF", daa, 0x99, 0x9F, 0x10, 0x10
        BCD "DAA 05 CF", daa, 0x05, 0x65, 0x01, 1
        BCD "DAS 9A", das, 0x9A, 0x34, 0x11
        BCD "DAS 03 AF", das, 0x03, 0xFD, 0x11, 0x10
        BCD "AAA 010B", aaa, 0x010B, 0x0201, 0x11
        BCD "AAA FF", aaa, 0x01FF, 0x0305, 0x11
        BCD "AAS 0000 AF", aas, 0x0200, 0x000A, 0x11, 0x10
        movl $0x123F, %eax
        aam
        CHECK "AAM", %eax, $0x0603
        movl $0x123F, %eax
        .byte 0xD4, 16
        CHECK "AAM 16", %eax, $0x030F
        movl $0x0603, %eax
        aad
        CHECK "AAD", %eax, $0x3F
        movl $0x0603, %eax
        .byte 0xD5, 16
        CHECK "AAD 16", %eax, $0x63
        stc
        .byte 0xD6                      # SALC
        movzbl %al, %eax
        CHECK "SALC", %eax, $0xFF
        jmp finish

map_it: MAP DST+0x1000, DST+0x1000+3
        ret
        .section .utext
        .balign 4096
utext_end:
