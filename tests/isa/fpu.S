# fpu.S: what the x87, MMX and SSE show and raise beside their arithmetic: last instruction and data pointers in every image, #MF and IRQ 13,
# #NM, #XM, #UD, alignment, tags (SDM vol. 1, chapters 8 to 11; vol. 3, 2.5, 6.15 and 13.1).
# An instruction without a memory operand leaves the data pointer as it was; the manual leaves it open. QEMU's TCG keeps no pointers.
# Some host processors lose the pointers of translated code when the host's kernel comes in between (no error being pending): what shows
# them is tried again, up to 50 times.
        .include "common.inc"

        .set S1, 0x38                   # data with a base
        .set VSEG, 0x1000

        .section .vcode, "ax"
v_start:
        .text
        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
        .macro CR0BIT op, mask
        movl %cr0, %eax
        \op $(\mask), %eax
        movl %eax, %cr0
        .endm
        .set TS, 8
        .set EM, 4
        .set MP, 2
        .set NE, 0x20
# The environment in env is so.
        .macro ENV name, eip, cs, fop, edp, ds
        fnstenv env
        fldenv env
        SHOWN "\name", \eip, \cs, \fop, \edp, \ds
        .endm
# Runs the instruction at 9:, then the pointers are so.
        .macro POINTS name, cs, fop, edp, ds, insn:vararg
        movl $50, tries
8:
9:      \insn
        fnstenv env
        fldenv env                      # its masks, and pointers that no host loses
        cmpl $9b, env+12
        je 7f
        decl tries
        jnz 8b
7:      SHOWN "\name", 9b, \cs, \fop, \edp, \ds
        .endm
        .macro SHOWN name, eip, cs, fop, edp, ds
        CHECK "\name: FIP", env+12, $(\eip)
        movl env+16, %eax
        CHECK "\name: FCS and opcode", %eax, $((\cs)|(\fop)<<16)
        .ifnb \edp
        CHECK "\name: FDP", env+20, $(\edp)
        movzwl env+24, %eax
        CHECK "\name: FDS", %eax, $(\ds)
        .endif
        .endm
        .macro V86
        movl %esp, x_trysp
        movl $-1, x_vec
        movl $99f, x_resume
        pushl $VSEG
        pushl $VSEG
        pushl $VSEG
        pushl $VSEG
        pushl $VSEG
        pushl $0xFFF0
        pushl $0x20002
        pushl $VSEG
        pushl $(98f-v_start)
        iretl
        .section .vcode
        .code16
98:
        .endm
        .macro VEND
        int3
        .code32
        .text
99:     movl $0, x_resume
        .endm

        .data
        .balign 64
fx:     .fill 512, 1, 0
fx2:    .fill 512, 1, 0
env:    .fill 27, 4, 0
env2:   .fill 27, 4, 0
        .balign 16
one:    .double 1.5
zero:   .double 0
ten:    .tfloat 2.25
int:    .long 3
cw:     .word 0x37F
cw_zm:  .word 0x37B                     # zero divide not masked
sw:     .word 0
word:   .word 0
mx:     .long 0x1F80
mx_zm:  .long 0x1D80                    # zero divide not masked
mx_bad: .long 0x11F80
        .balign 16
ones:   .float 1, 1, 1, 1
zeros:  .float 0, 0, 0, 0
tries:  .long 0
irqs:   .long 0
irq_eip: .long 0
irq_sw: .long 0

        .section .utext
        .balign 16
u_one:  .double 1.5
        .text
irq13:  movl 4(%esp), %ecx
        movl 56(%ecx), %eax
        movl %eax, irq_eip
        incl irqs
        fnstsw %ax
        movzwl %ax, %eax
        movl %eax, irq_sw
        outb %al, $0xF0                 # the latch; IGNNE# until the error is gone
        fnclex
        movb $0x20, %al
        outb %al, $0xA0
        outb %al, $0x20
        ret

test_main:
        CR0BIT andl, ~(TS+EM)
        CR0BIT orl, (MP+NE)
        movl %cr4, %eax
        orl $0x600, %eax                # OSFXSR, OSXMMEXCPT
        movl %eax, %cr4
        DESC S1, 0x800000, 0xFFFFF, 0xC093
        fninit

        # -- Pointers
        POINTS "FLD", KCS, 0x505, one, KDS, fldl one
        fninit
        fld1
        POINTS "FADD", KCS, 0x405, one, KDS, faddl one
        movl $int, %ebp
        POINTS "through SS", KCS, 0x245, int, KDS, fiaddl (%ebp)
        movl $S1, %eax
        movl %eax, %fs
        movl $0x40000000, 0x800010
        POINTS "through FS with a base", KCS, 0x00D, 0x10, S1, fmuls %fs:0x10
        POINTS "no operand: FDP stays", KCS, 0x1E0, 0x10, S1, fchs
        movl $9b, %ebx
        .macro LAST name
        fnstenv env
        fldenv env
        CHECK "\name: FIP", env+12, %ebx
        CHECK "\name: FCS and opcode", env+16, $(KCS|0x1E0<<16)
        CHECK "\name: FDP", env+20, $0x10
        .endm
        # control instructions leave them
        fldcw cw
        fnstcw word
        fnstsw word
        fnstsw %ax
        fnclex
        fwait
        LAST "control instructions"
        # so do instructions of MMX and SSE, and much else in between
        movaps ones, %xmm1
        addps %xmm1, %xmm1
        movl $100000, %ecx
1:      decl %ecx
        jnz 1b
        LAST "SSE and a loop"
        fninit
        ENV "FNINIT", 0, 0, 0, 0, 0
        # FXSAVE shows them, FXRSTOR puts them back
        movl $50, tries
1:      fldl one
p5:     fstpl fx2
        fxsave fx
        cmpl $p5, fx+8
        je 2f
        decl tries
        jnz 1b
2:      movzwl fx+6, %eax
        CHECK "FXSAVE: opcode", %eax, $0x51D
        CHECK "FXSAVE: FIP", fx+8, $p5
        movzwl fx+12, %eax
        CHECK "FXSAVE: FCS", %eax, $KCS
        CHECK "FXSAVE: FDP", fx+16, $fx2
        movzwl fx+20, %eax
        CHECK "FXSAVE: FDS", %eax, $KDS
        CHECK "FXSAVE: MXCSR mask", fx+28, $0xFFFF
        fld1
        fxrstor fx
        ENV "FXRSTOR", p5, KCS, 0x51D, fx2, KDS
        fninit
        fxrstor fx
        movl $0x12345678, env+12
        movl $0x05550021, env+16
        movl $0x87654321, env+20
        movl $0xFFFF0043, env+24
        fldenv env
        fnstenv env2
        CHECK "FLDENV, FNSTENV: FIP", env2+12, $0x12345678
        CHECK "FLDENV, FNSTENV: FCS and opcode", env2+16, $0x05550021
        CHECK "FLDENV, FNSTENV: FDP", env2+20, $0x87654321
        movzwl env2+24, %eax
        CHECK "FLDENV, FNSTENV: FDS", %eax, $0x43
        movl $100000, %ecx              # across an exit and more
1:      decl %ecx
        jnz 1b
        inb $0x80, %al
        fnstenv env2
        CHECK "FLDENV, much later: FIP", env2+12, $0x12345678
        fninit
        # the last x87 instruction was ring 3's
        movl $50, tries
again:  USER
u0:     fldl u_one
        UEND
        fxsave fx
        fstp %st(0)
        cmpl $u0, fx+8
        je 1f
        decl tries
        jnz again
1:      CHECK "by ring 3: FIP", fx+8, $u0
        movzwl fx+12, %eax
        CHECK "by ring 3: FCS", %eax, $UCS
        CHECK "by ring 3: FDP", fx+16, $u_one
        movzwl fx+20, %eax
        CHECK "by ring 3: FDS", %eax, $UDS
        movzwl fx+6, %eax
        CHECK "by ring 3: opcode", %eax, $0x505
        fninit
        # 14 bytes
        movl $50, tries
1:
p6:     fldl one
        data16 fnstenv env
        fninit
        movl $p6, %eax
        cmpw %ax, env+6
        je 2f
        decl tries
        jnz 1b
2:      movl $p6, %eax
        movzwl %ax, %eax
        movzwl env+6, %ecx
        CHECK "14 bytes: FIP", %ecx, %eax
        movzwl env+8, %ecx
        CHECK "14 bytes: FCS", %ecx, $KCS
        movl $one, %eax
        movzwl %ax, %eax
        movzwl env+10, %ecx
        CHECK "14 bytes: FDP", %ecx, %eax
        movzwl env+12, %ecx
        CHECK "14 bytes: FDS", %ecx, $KDS
        # reserved halves
        fninit
        fnstenv env
        CHECK "28 bytes: control", env, $0xFFFF037F
        CHECK "28 bytes: status", env+4, $0xFFFF0000
        CHECK "28 bytes: tags", env+8, $0xFFFFFFFF
        # virtual-8086 mode: linear addresses
        movl $v_start, %esi
        movl $VSEG*16, %edi
        movl $0x400, %ecx
        cld
        rep movsl
        movl $0x10007, %eax
        movl $PT+0x10*4, %edi
1:      stosl
        addl $4096, %eax
        cmpl $0x20007, %eax
        jb 1b
        movl %cr3, %eax
        movl %eax, %cr3
        V86
        fninit
v0:     fldl %ds:0x4000
        fnstenv 0x5000
        fldenv 0x5000
        .byte 0x66
        fnstenv 0x6000
        VEND
        CHECK "virtual-8086 mode: vector", x_vec, $3
        movzwl 0x15006, %ecx
        CHECK "virtual-8086, 14 bytes: FIP", %ecx, $v0-v_start
        movzwl 0x15008, %ecx
        CHECK "virtual-8086, 14 bytes: FIP 19..16 and opcode", %ecx, $0x1506
        movzwl 0x1500A, %ecx
        CHECK "virtual-8086, 14 bytes: FDP", %ecx, $0x4000
        movzwl 0x1500C, %ecx
        CHECK "virtual-8086, 14 bytes: FDP 19..16", %ecx, $0x1000
        movzwl 0x1600C, %ecx
        CHECK "virtual-8086, 28 bytes: FIP", %ecx, $v0-v_start
        CHECK "virtual-8086, 28 bytes: FIP 31..16 and opcode", 0x16010, $0x1506
        movzwl 0x16014, %ecx
        CHECK "virtual-8086, 28 bytes: FDP", %ecx, $0x4000
        CHECK "virtual-8086, 28 bytes: FDP 31..16", 0x16018, $0x1000

        # -- TOP and registers
        fninit
        fld1
        fldl one                        # R6 = 1.5, R7 = 1, TOP 6
        fnstenv env
        movl env+4, %eax
        andl $0x3800, %eax
        CHECK "TOP", %eax, $0x3000
        movzwl env+8, %eax
        CHECK "tags", %eax, $0x0FFF
        andw $~0x3800, env+4
        orw $0x3800, env+4              # TOP 7: ST(0) is R7 now
        fldenv env
        fstl fx
        CHECK "FLDENV moves TOP, not the registers: ST(0)", fx+4, $0x3FF00000
        fincstp
        fincstp
        fincstp
        fincstp
        fincstp
        fincstp
        fincstp
        fstpl fx                        # R6
        CHECK "FLDENV: the other register", fx+4, $0x3FF80000
        fninit
        fldt ten
        fld1
        fnsave env
        fnstenv env2
        movzwl env2+8, %eax
        CHECK "FNSAVE empties the registers", %eax, $0xFFFF
        movzwl env2, %eax
        CHECK "FNSAVE initialises", %eax, $0x37F
        CHECK "FNSAVE: ST(1)", env+28+10+4, $0x90000000
        frstor env
        fstpl fx
        fstpl fx+8
        CHECK "FRSTOR: ST(0)", fx+4, $0x3FF00000
        CHECK "FRSTOR: ST(1)", fx+12, $0x40020000
        # MMX
        fninit
        fld1
        movl $0x55, %eax
        movd %eax, %mm3
        fnstenv env
        movl env+8, %eax
        andl $0xC0, %eax
        CHECK "MMX: the register's tag", %eax, $0x80
        movl env+4, %eax
        andl $0x3800, %eax
        CHECK "MMX: TOP", %eax, $0
        emms
        fnstenv env
        movzwl env+8, %eax
        CHECK "EMMS: tags", %eax, $0xFFFF
        fxsave fx
        movzwl fx+32+3*16+8, %eax
        CHECK "MMX: upper half of the register", %eax, $0xFFFF
        CHECK "MMX: register", fx+32+3*16, $0x55

        # -- #MF
        fninit
        fldcw cw_zm
        fld1
m0:     fdivl zero
        fnstsw %ax                      # does not wait
        andl $0x8084, %eax
        CHECK "zero divide: ES, B, ZE", %eax, $0x8084
        TRY 1f
m1:     fld1
1:      MET "#MF", 16,,m1
        fnstenv env
        SHOWN "#MF", m0, KCS, 0x435, zero, KDS
        movzwl env, %eax
        CHECK "FNSTENV stores the masks", %eax, $0x37B
        fldenv env                      # the error is pending again
        TRY 1f
m2:     fwait
1:      MET "#MF by FWAIT", 16,,m2
        TRY 1f
m3:     movd %eax, %mm0
1:      MET "#MF by MMX", 16,,m3
        TRY 1f
        addps %xmm1, %xmm1
        sfence
        fnstcw word
        fnstsw word
        fxsave fx
        jmp 2f
1:      hlt
2:      movl $0, x_resume
        USER
m4:     fabs
        UEND
        MET "#MF in ring 3", 16,,m4
        fnclex
        fabs
        fnstsw %ax
        andl $0x80FF, %eax
        CHECK "FNCLEX", %eax, $0
        # unmasking makes an old flag pending
        fninit
        fld1
        fdivl zero
        TRY 1f
        fldcw cw_zm
m5:     fabs
1:      MET "FLDCW unmasks", 16,,m5
        fnclex

        # -- IRQ 13: CR0.NE clear
        HOOK 0x2D, irq13
        movb $0xFB, %al                 # cascade and IRQ 13
        outb %al, $0x21
        movb $0xDF, %al
        outb %al, $0xA1
        CR0BIT andl, ~NE
        fninit
        fldcw cw_zm
        fld1
        fdivl zero
        sti
        nop
        CHECK "IRQ 13: not before the next waiting instruction", irqs, $0
        fnstsw %ax
n0:     fld1
        cli
        CHECK "IRQ 13: once", irqs, $1
        CHECK "IRQ 13: in front of the waiting instruction", irq_eip, $n0
        movl irq_sw, %eax
        andl $0x80, %eax
        CHECK "IRQ 13: ES", %eax, $0x80
        fnstsw %ax
        andl $0x3880, %eax
        CHECK "IRQ 13: the instruction ran afterwards", %eax, $0x3000
        # by FWAIT and MMX
        fninit
        fldcw cw_zm
        fld1
        fdivl zero
        sti
n1:     fwait
        cli
        CHECK "IRQ 13, FWAIT", irq_eip, $n1
        fninit
        fldcw cw_zm
        fld1
        fdivl zero
        sti
        nop
n2:     pxor %mm0, %mm0
        cli
        emms
        CHECK "IRQ 13, MMX", irq_eip, $n2
        CHECK "IRQ 13: three times", irqs, $3
        # many times, so that nothing depends on the first
        movl $50, %ecx
1:      fninit
        fldcw cw_zm
        fld1
        fdivl zero
        sti
        fld1
        cli
        decl %ecx
        jnz 1b
        CHECK "IRQ 13: 50 times", irqs, $53
        UNHOOK 0x2D
        CR0BIT orl, NE
        fninit
        movb $0xFF, %al
        outb %al, $0x21
        outb %al, $0xA1

        # -- #NM and #UD by CR0 and CR4
        .macro RAISES name, vec, insn:vararg
        TRY 1f
9:      \insn
        movl $0, x_resume
1:      MET "\name", \vec
        .endm
        CR0BIT orl, TS
        RAISES "TS: x87", 7, fld1
        RAISES "TS: FNSTSW", 7, fnstsw %ax
        RAISES "TS: FNINIT", 7, fninit
        RAISES "TS: MMX", 7, pxor %mm0, %mm0
        RAISES "TS: EMMS", 7, emms
        RAISES "TS: SSE", 7, xorps %xmm0, %xmm0
        RAISES "TS: LDMXCSR", 7, ldmxcsr mx
        RAISES "TS: FXSAVE", 7, fxsave fx
        RAISES "TS and MP: FWAIT", 7, fwait
        RAISES "TS: SFENCE", -1, sfence
        RAISES "TS: PREFETCHNTA", -1, prefetchnta one
        RAISES "TS: MOVNTI", -1, movnti %eax, fx
        CR0BIT andl, ~MP
        RAISES "TS without MP: FWAIT", -1, fwait
        CR0BIT orl, MP
        CR0BIT andl, ~TS
        RAISES "MP without TS: FWAIT", -1, fwait
        CR0BIT orl, EM
        RAISES "EM: x87", 7, fld1
        RAISES "EM: FXSAVE", 7, fxsave fx
        RAISES "EM: MMX", 6, pxor %mm0, %mm0
        RAISES "EM: SSE", 6, xorps %xmm0, %xmm0
        RAISES "EM: LDMXCSR", 6, ldmxcsr mx
        RAISES "EM: FWAIT", -1, fwait
        CR0BIT orl, TS
        RAISES "EM and TS: MMX", 6, pxor %mm0, %mm0
        RAISES "EM and TS: x87", 7, fld1
        CR0BIT andl, ~(TS+EM)
        movl %cr4, %eax
        andl $~0x200, %eax
        movl %eax, %cr4
        RAISES "no OSFXSR: SSE", 6, xorps %xmm0, %xmm0
        RAISES "no OSFXSR: LDMXCSR", 6, ldmxcsr mx
        RAISES "no OSFXSR: MMX", -1, pxor %mm0, %mm0
        RAISES "no OSFXSR: x87", -1, fninit
        RAISES "no OSFXSR: FXSAVE", -1, fxsave fx
        RAISES "no OSFXSR: SFENCE", -1, sfence
        RAISES "no OSFXSR: PSHUFW", -1, pshufw $0, %mm0, %mm0
        emms
        movl %cr4, %eax
        orl $0x200, %eax
        movl %eax, %cr4
        # rights and faults come after #NM
        CR0BIT orl, TS
        MAP 0x900000, 0
        RAISES "TS and an absent page", 7, fldl 0x900000
        CR0BIT andl, ~TS
        RAISES "an absent page", 14, fldl 0x900000
        MAP 0x900000, 0x900003

        # -- SIMD exceptions
        ldmxcsr mx_zm
        movaps ones, %xmm0
        TRY 1f
s0:     divps zeros, %xmm0
1:      MET "#XM", 19,,s0
        stmxcsr fx
        movl fx, %eax
        andl $4, %eax
        CHECK "#XM: ZE", %eax, $4
        movaps %xmm0, fx
        CHECK "#XM: the register is untouched", fx, $0x3F800000
        movl %cr4, %eax
        andl $~0x400, %eax
        movl %eax, %cr4
        TRY 1f
s1:     divps zeros, %xmm0
1:      MET "no OSXMMEXCPT: #UD", 6,,s1
        movl %cr4, %eax
        orl $0x400, %eax
        movl %eax, %cr4
        ldmxcsr mx
        TRY 1f
s2:     ldmxcsr mx_bad
1:      MET "LDMXCSR, reserved bit", 13, 0, s2
        fxsave fx
        movl $0x11F80, fx+24
        TRY 1f
s3:     fxrstor fx
1:      MET "FXRSTOR, reserved bit of MXCSR", 13, 0, s3
        TRY 1f
s4:     fxsave fx+8
1:      MET "FXSAVE, not aligned", 13, 0, s4
        TRY 1f
s5:     movaps one+8-4, %xmm0
1:      MET "MOVAPS, not aligned", 13, 0, s5
        TRY 1f
s6:     addps fx+4, %xmm0
1:      MET "ADDPS, not aligned", 13, 0, s6
        # FSAVE into an absent page: nothing has changed
        fninit
        fld1
        MAP 0x901000, 0
        TRY 1f
s7:     fnsave 0x901000-64
1:      MET "FNSAVE into an absent page", 14, 2, s7, 0x901000
        fnstenv env
        movzwl env+8, %eax
        CHECK "FNSAVE into an absent page: registers stay", %eax, $0x3FFF
        MAP 0x901000, 0x901003
        jmp finish

        .section .utext
        .balign 4096
utext_end:
