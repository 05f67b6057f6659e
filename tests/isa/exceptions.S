# exceptions.S: which exception comes first, double faults, alignment, LOCK, undefined opcodes, lengths (SDM vol. 3, chapter 6; vol. 2, LOCK).
# Where the manual leaves the order open, the order is that of the operation in volume 2.
        .include "common.inc"

        .set X, 0x38
        .set DFTASK, 0x40
        .set A, 0x900000
        .set B, 0x901000
        .set IDT2, 0x902000-12*8        # vectors 0 to 11 in one page, the rest in the next

        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
        .macro FAULT name, vec, err, cr2, insn:vararg
        TRY 1f
9:      \insn
        movl $0, x_resume
1:      MET "\name", \vec, \err, 9b, \cr2
        .endm
        .macro UFAULT name, vec, err, insn:vararg
        USER
9:      \insn
        UEND
        MET "\name", \vec, \err, 9b
        .endm
# Runs, in ring 3, without an exception.
        .macro UFINE name, insn:vararg
        USER
        \insn
        UEND
        MET "\name", 0x80
        .endm
        .macro UD name, bytes:vararg
        TRY 1f
9:      .byte \bytes
        .rept 4
        nop
        .endr
        movl $0, x_resume
1:      MET "\name", 6,,9b
        .endm

        .data
        .balign 128
df_tss: .fill 26, 4, 0
idtr2:  .word 256*8-1
        .long IDT2
df_link: .long 0
df_error: .long 0
df_eip: .long 0
        .balign 16
v:      .fill 8, 4, 0
        .section .utext
        .balign 16
uv:     .fill 32, 4, 0
        .text

df_task: popl df_error
        movzwl df_tss, %eax
        movl %eax, df_link
        movl tss+0x20, %eax
        movl %eax, df_eip
        movl $df_back, tss+0x20
        movl $KSTACK-64, tss+0x38
        iretl
        jmp df_task

test_main:
        movl %cr0, %eax
        andl $~12, %eax
        movl %eax, %cr0
        movl %cr4, %eax
        orl $0x600, %eax
        movl %eax, %cr4
        # -- Double fault (vol. 3, table 6-5)
        movl idt+13*8+4, %esi           # #NP while #GP is delivered
        andl $~0x8000, idt+13*8+4
        movl $0x138, %eax
        FAULT "#GP, then #NP", 8, 0,, movl %eax, %fs
        DESC X, 0, 0xFFFFF, 0xC013
        movl $X, %eax
        movl idt+11*8+4, %edi
        andl $~0x8000, idt+11*8+4
        FAULT "#NP, then #NP", 8, 0,, movl %eax, %fs
        movl %edi, idt+11*8+4
        movl idt+6*8+4, %edi
        andl $~0x8000, idt+6*8+4
        FAULT "#UD, then #NP: one after the other", 11, 6*8+3,, ud2
        movl %edi, idt+6*8+4
        movl %esi, idt+13*8+4
        movl idt+14*8+4, %esi
        andl $~0x8000, idt+14*8+4
        MAP A, 0
        FAULT "#PF, then #NP", 8, 0, A, movl A, %eax
        movl %esi, idt+14*8+4
        movl idt+0*8+4, %esi
        andl $~0x8000, idt+0*8+4
        xorl %ecx, %ecx
        FAULT "#DE, then #NP", 8, 0,, divl %ecx
        movl %esi, idt+0*8+4
        movl idt+3*8+4, %esi
        andl $~0x8000, idt+3*8+4
        FAULT "INT3, #NP: no double fault, no EXT", 11, 3*8+2,, int3
        movl %esi, idt+3*8+4
        # the gates of #GP and #PF in an absent page
        movl $idt, %esi
        movl $IDT2, %edi
        movl $512, %ecx
        cld
        rep movsl
        lidt idtr2
        MAP 0x902000, 0
        FAULT "#PF, then #PF", 8, 0, IDT2+14*8, movl A, %eax
        movl $0x138, %eax
        FAULT "#GP, then #PF, then #PF", 8, 0, IDT2+14*8, movl %eax, %fs
        FAULT "INT n out of an absent page", 8, 0, IDT2+14*8, int $0x20
        FAULT "#UD is in the other page", 6,,, ud2
        MAP 0x902000, 0x902003
        lidt idtr
        # a stack that is not there: the double fault needs a task
        movl $df_tss, %eax
        movl %eax, %edx
        shll $16, %eax
        orl $103, %eax
        movl %eax, gdt+DFTASK
        shrl $16, %edx
        movzbl %dl, %eax
        orl $0x8900, %eax
        movl %eax, gdt+DFTASK+4
        movl $PD, df_tss+0x1C
        movl $PD, tss+0x1C
        movl $df_task, df_tss+0x20
        movl $2, df_tss+0x24
        movl $0x880000, df_tss+0x38
        movl $KDS, df_tss+0x48
        movl $KCS, df_tss+0x4C
        movl $KDS, df_tss+0x50
        movl $KDS, df_tss+0x54
        movl idt+8*8, %esi
        movl idt+8*8+4, %edi
        movl $(DFTASK<<16), idt+8*8
        movl $0x8500, idt+8*8+4
        MAP A, 0
        movl $A+0x800, %esp
        movl $0, df_link
9:      pushl %eax
        hlt
df_back: clts
        movl %esi, idt+8*8
        movl %edi, idt+8*8+4
        CHECK "stack not there: #DF as a task", df_link, $TSS
        CHECK "stack not there: error code", df_error, $0
        CHECK "stack not there: EIP", df_eip, $9b
        movl %cr2, %eax
        CHECK "stack not there: CR2", %eax, $(A+0x7FC)
        movl $KSTACK, %esp

        # -- Lengths
        MAP A, A+3
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
        .macro RUNAT name, lin, vec, err, cr2
        TRY 1f
        movl $(\lin), %eax
        call *%eax
        movl $0, x_resume
1:      MET "\name", \vec, \err
        .ifnb \cr2
        CHECK "\name eip", x_eip, $(\lin)
        CHECK "\name cr2", x_cr2, $(\cr2)
        .endif
        .endm
        AT A, 0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x90,0xC3
        RUNAT "15 bytes", A, -1
        AT A, 0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x90,0xC3
        RUNAT "16 bytes", A, 13, 0
        AT A, 0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0xC7,0x05,0,0,0,0,0,0,0,0,0xC3
        RUNAT "19 bytes with operands", A, 13, 0
        MAP B, 0
        AT B-14, 0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E
        RUNAT "14 prefixes in front of an absent page", B-14, 14, 0, B
        AT B-15, 0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E,0x3E
        RUNAT "15 prefixes in front of an absent page", B-15, 13, 0
        AT B-2, 0x0F, 0x0B
        RUNAT "UD2 in front of an absent page", B-2, 6
        AT B-1, 0x0F
        RUNAT "0Fh in front of an absent page", B-1, 14, 0, B
        AT B-2, 0xC7, 0x05
        RUNAT "MOV in front of an absent page", B-2, 14, 0, B
        AT B-3, 0xF0, 0x90, 0xC3
        RUNAT "LOCK NOP in front of an absent page", B-3, 6

        # -- Which one first
        MAP A, 0
        MAP B, 0
        USER                            # in ring 3, so that the fault has a stack
        movl $A, %ecx
        movl $B, %esp
9:      pushl (%ecx)
        UEND
        MET "PUSH mem: the operand first", 14, 4, 9b, A
        USER
        movl $A, %ecx
        movl $B, %esp
9:      popl (%ecx)
        UEND
        MET "POP mem: the stack first", 14, 4, 9b, B
        CHECK "POP mem: ESP", x_esp, $B
        USER
        movl $A, %ecx
        movl $B+4, %esp
9:      call *(%ecx)
        UEND
        MET "CALL mem: the target first", 14, 4, 9b, A
        USER
        movl $B+4, %esp
9:      call 1f
1:      nop
        UEND
        MET "CALL: the stack", 14, 6, 9b, B
        USER
        movl $B+8, %esp
9:      pushal
        UEND
        MET "PUSHAD: the stack", 14, 6, 9b
        CHECK "PUSHAD: ESP", x_esp, $(B+8)
        USER
        movl $B+4, %esp
9:      enter $16, $0
        UEND
        MET "ENTER: the stack", 14, 6, 9b
        CHECK "ENTER: ESP", x_esp, $(B+4)
        USER
        movl $B, %ebp
9:      leave
        UEND
        MET "LEAVE: the stack", 14, 4, 9b, B
        CHECK "LEAVE: ESP", x_esp, $USTACK
        movl $A, %esi
        movl $B, %edi
        TRY 1f
9:      movsl
1:      MET "MOVS: the source first", 14, 0, 9b, A
        movl $A, %esi
        TRY 1f
9:      cmpsl
1:      MET "CMPS: the source first", 14, 0, 9b, A
        FAULT "ADD to memory: a write at once", 14, 2, A, addl %eax, A
        FAULT "CMP with memory: a read", 14, 0, A, cmpl %eax, A
        FAULT "BT: a read", 14, 0, A, btl $1, A
        FAULT "BTS: a write", 14, 2, A, btsl $1, A
        FAULT "XADD: a write", 14, 2, A, xaddl %eax, A
        FAULT "CMPXCHG8B: a write", 14, 2, A, cmpxchg8b A
        FAULT "SETcc: a write", 14, 2, A, setz A
        FAULT "CMOVcc reads whatever the condition", 14, 0, A, cmovcl A, %eax
        FAULT "a shift by zero writes", 14, 2, A, shll $0, A
        xorl %ecx, %ecx
        FAULT "DIV by memory: #PF before #DE", 14, 0, A, divl A
        FAULT "BOUND: #PF before #BR", 14, 0, A, boundl %eax, A
        DESC X, A, 0xFFF, 0x4091
        movl $X, %eax
        movl %eax, %fs
        FAULT "segment before page", 13, 0,, movl %eax, %fs:0
        movl $X, %eax
        movl %eax, %fs
        FAULT "limit before page", 13, 0,, movl %fs:0xFFD, %eax
        # #UD before rights
        UFAULT "LOCK CLI in ring 3", 6,, .byte 0xF0, 0xFA
        UFAULT "MOV from CR1 in ring 3", 6,, .byte 0x0F, 0x20, 0xC8
        UFAULT "LGDT with a register in ring 3", 6,, .byte 0x0F, 0x01, 0xD0
        UFAULT "INVLPG with a register in ring 3", 6,, .byte 0x0F, 0x01, 0xF8
        UFAULT "LLDT in ring 3: #GP before the operand", 13, 0, lldt A
        UFAULT "LGDT in ring 3: #GP before the operand", 13, 0, lgdt A
        UFAULT "LMSW in ring 3: #GP before the operand", 13, 0, lmsw A
        UFAULT "IN in ring 3", 13, 0, inb $0x80, %al
        UFAULT "INS in ring 3: #GP before the operand", 13, 0, insb
        UFAULT "RDPMC in ring 3", 13, 0, rdpmc
        UFAULT "RDMSR in ring 3", 13, 0, rdmsr
        MAP A, A+3
        MAP B, B+3

        # -- Divisions
        .macro DIVIDE name, hi, lo, by, insn:vararg
        movl $(\hi), %edx
        movl $(\lo), %eax
        movl $(\by), %ecx
        TRY 1f
9:      \insn
        movl $0, x_resume
1:      MET "\name", 0,,9b
        CHECK "\name: eax", x_eax, $(\lo)
        CHECK "\name: edx", x_edx, $(\hi)
        .endm
        DIVIDE "DIV by zero", 0, 5, 0, divl %ecx
        DIVIDE "DIV overflow", 5, 0, 5, divl %ecx
        DIVIDE "DIV, 16 bits, overflow", 1, 0, 1, divw %cx
        DIVIDE "DIV, 8 bits, overflow", 0, 0x100, 1, divb %cl
        DIVIDE "IDIV overflow", 0x80000000, 0, -1, idivl %ecx
        DIVIDE "IDIV, one too many", 0, 0x80000000, 1, idivl %ecx
        DIVIDE "IDIV, 16 bits, overflow", 0, 0x8000, 1, idivw %cx
        DIVIDE "IDIV, 8 bits, overflow", 0, 0x0080, 1, idivb %cl
        DIVIDE "AAM 0", 0, 0x1234, 1, .byte 0xD4, 0
        movl $-1, %edx
        movl $0x80000000, %eax
        movl $1, %ecx
        idivl %ecx
        CHECK "IDIV, the least quotient", %eax, $0x80000000

        # -- Alignment: ring 3, AC and CR0.AM
        movl %cr0, %eax
        orl $0x40000, %eax
        movl %eax, %cr0
        .macro UAC name, vec, insn:vararg
        USER 0x40002
9:      \insn
        UEND
        .if \vec == 17
        MET "\name", 17, 0, 9b
        .else
        MET "\name", 0x80
        .endif
        .endm
        UAC "AC: dword at 1", 17, movl uv+1, %eax
        UAC "AC: dword at 2", 17, movl %eax, uv+2
        UAC "AC: dword at 4", 0, movl uv+4, %eax
        UAC "AC: word at 1", 17, movw uv+1, %ax
        UAC "AC: word at 2", 0, movw uv+2, %ax
        UAC "AC: byte at 1", 0, movb uv+1, %al
        UAC "AC: RMW at 2", 17, addl %eax, uv+2
        UAC "AC: x87 double at 4", 17, fldl uv+4
        UAC "AC: x87 double at 8", 0, fldl uv+8
        UAC "AC: x87 single at 2", 17, flds uv+2
        UAC "AC: x87 80 bits at 4", 17, fldt uv+4
        UAC "AC: x87 80 bits at 8", 0, fldt uv+8
        UAC "AC: MMX at 4", 17, movq uv+4, %mm0
        UAC "AC: CMPXCHG8B at 4", 17, cmpxchg8b uv+4
        UAC "AC: FNSTENV at 2", 17, fnstenv uv+2
        UAC "AC: FNSTENV at 4", 0, fnstenv uv+4
        UAC "AC: FNSAVE at 2", 17, fnsave uv+2
        UAC "AC: FLDENV, 16 bits, at 2", 0, data16 fnstenv uv+2
        UAC "AC: SGDT at 2", 17, sgdt uv+2
        UAC "AC: SGDT at 4", 0, sgdt uv+4
        UAC "AC: BOUND at 2", 17, bound %eax, uv+2
        UAC "AC: BT at 2", 17, btl $1, uv+2
        UAC "AC: MOVUPS at 1", 0, movups uv+1, %xmm0
        USER 0x40002
        movl $uv+2, %esi
9:      lodsl
        UEND
        MET "AC: LODSD", 17, 0, 9b
        USER 0x40002
        pushw %ax
9:      pushl %eax
        UEND
        MET "AC: second PUSH", 17, 0, 9b
        UFINE "no AC flag: dword at 1", movl uv+1, %eax
        movl $v, %ecx
        pushl $0x40002
        popfl
        movl 1(%ecx), %eax              # ring 0: never
        pushl $2
        popfl
        CHECK "AC in ring 0", %ecx, $v
        movl %cr0, %eax
        andl $~0x40000, %eax
        movl %eax, %cr0
        USER 0x40002
        movl uv+1, %eax
        pushfl
        popl %ebx
        UEND
        MET "AC without AM", 0x80
        CHECK "AC without AM: the flag", x_ebx, $0x40002

        # -- LOCK (vol. 2): memory destinations of these only
        .macro LOCKED name, insn:vararg
        TRY 1f
        lock \insn
        movl $0, x_resume
1:      MET "LOCK \name", -1
        .endm
        .macro UNLOCKED name, bytes:vararg
        UD "LOCK \name", 0xF0, \bytes
        .endm
        movl $v, %ecx
        LOCKED "ADD", addl %eax, (%ecx)
        LOCKED "ADC imm", adcb $1, (%ecx)
        LOCKED "AND", andl %eax, (%ecx)
        LOCKED "BTC", btcl %eax, v
        LOCKED "BTR imm", btrl $3, (%ecx)
        LOCKED "BTS", btsl $3, (%ecx)
        LOCKED "CMPXCHG", cmpxchgl %edx, (%ecx)
        LOCKED "CMPXCHG8B", cmpxchg8b (%ecx)
        LOCKED "DEC", decb (%ecx)
        LOCKED "INC", incl (%ecx)
        LOCKED "NEG", negl (%ecx)
        LOCKED "NOT", notw (%ecx)
        LOCKED "OR", orl %eax, (%ecx)
        LOCKED "SBB", sbbl $5, (%ecx)
        LOCKED "SUB", subl %eax, (%ecx)
        LOCKED "XADD", xaddl %eax, (%ecx)
        LOCKED "XCHG", xchgl %eax, (%ecx)
        LOCKED "XOR", xorl %eax, (%ecx)
        UNLOCKED "ADD, register destination", 0x01, 0xC0
        UNLOCKED "ADD from memory", 0x03, 0x01
        UNLOCKED "CMP", 0x39, 0x01
        UNLOCKED "CMP imm", 0x83, 0x39, 0
        UNLOCKED "TEST", 0x85, 0x01
        UNLOCKED "MOV", 0x89, 0x01
        UNLOCKED "BT", 0x0F, 0xA3, 0x01
        UNLOCKED "BT imm", 0x0F, 0xBA, 0x21, 1
        UNLOCKED "INC, register", 0xFF, 0xC0
        UNLOCKED "INC, short form", 0x40
        UNLOCKED "PUSH", 0x50
        UNLOCKED "CALL", 0xFF, 0x11
        UNLOCKED "SHL", 0xD1, 0x21
        UNLOCKED "XCHG, registers", 0x87, 0xC1
        UNLOCKED "CMPXCHG, registers", 0x0F, 0xB1, 0xC1
        UNLOCKED "MOVSB", 0xA4
        UNLOCKED "FLD", 0xD9, 0x01
        UNLOCKED "SETcc", 0x0F, 0x94, 0x01
        UNLOCKED "MUL", 0xF7, 0x21
        UNLOCKED "TEST imm", 0xF7, 0x01, 0, 0, 0, 0

        # -- Undefined
        UD "UD2", 0x0F, 0x0B
        UD "UD1", 0x0F, 0xB9, 0xC0
        UD "UD0", 0x0F, 0xFF, 0xC0
        UD "0F 04", 0x0F, 0x04
        UD "SYSCALL", 0x0F, 0x05
        UD "SYSRET", 0x0F, 0x07
        UD "0F 0A", 0x0F, 0x0A
        UD "RSM", 0x0F, 0xAA
        UD "8F /1", 0x8F, 0xC8
        UD "C6 /1", 0xC6, 0xC8, 0
        UD "FE /2", 0xFE, 0xD0
        UD "FF /7", 0xFF, 0xF8
        UD "LEA with a register", 0x8D, 0xC0
        UD "BOUND with a register", 0x62, 0xC0
        UD "LDS with a register", 0xC5, 0xC0
        UD "far CALL with a register", 0xFF, 0xD8
        UD "far JMP with a register", 0xFF, 0xE8
        UD "SGDT with a register", 0x0F, 0x01, 0xC0
        UD "CMPXCHG8B with a register", 0x0F, 0xC7, 0xC8
        UD "0F 00 /6", 0x0F, 0x00, 0xF0
        UD "0F BA /0", 0x0F, 0xBA, 0xC0, 1
        UD "MOV to CS", 0x8E, 0xC8
        UD "MOV from segment 6", 0x8C, 0xF0
        UD "MOV CR8", 0x0F, 0x20, 0xC0+8*5
        UD "RDRAND", 0x0F, 0xC7, 0xF0
        UD "XGETBV", 0x0F, 0x01, 0xD0
        UD "MONITOR", 0x0F, 0x01, 0xC8
        UD "VMCALL", 0x0F, 0x01, 0xC1
        UD "POPCNT", 0xF3, 0x0F, 0xB8, 0xC0
        UD "VADDPS", 0xC5, 0xF8, 0x58, 0xC0
        UD "SSE4.1", 0x66, 0x0F, 0x38, 0x17, 0xC0
        UD "D9 D1", 0xD9, 0xD1
        UD "REP with 0F 0B", 0xF3, 0x0F, 0x0B
        jmp finish
        .section .utext
        .balign 4096
utext_end:
