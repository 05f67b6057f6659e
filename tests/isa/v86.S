# v86.S: virtual-8086 mode without VME, which the CPU model does not have (SDM vol. 3, chapter 20).
        .include "common.inc"

        .set VSEG, 0x1000               # the code is copied there: CS = SS = DS
        .set V2, 0x38                   # a TSS of a virtual-8086 task
        .set CONF, 0x40
        .set C1, 0x48

        .section .vcode, "ax"
v_start:
        .text
        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
        .set ZERO, 0x20002
        .set IOPL3, 0x23002
# What follows up to VEND runs in virtual-8086 mode; VEND is INT3, which needs no IOPL.
        .macro V86 flags=ZERO, cs=VSEG, eip=98f-v_start
        movl %esp, x_trysp
        movl $-1, x_vec
        movl $99f, x_resume
        pushl $0x1003
        pushl $0x1002
        pushl $VSEG
        pushl $0x1001
        pushl $VSEG
        pushl $0xFFF0
        pushl $(\flags)
        pushl $(\cs)
        pushl $(\eip)
        iretl
        .section .vcode
        .code16
98:
        .endm
        .macro VEND
97:     int3
        .code32
        .text
99:
        .endm
        .macro MEETS name, vec, err, at=9b
        MET "\name", \vec, \err, \at-v_start
        .endm
# One instruction that ends in vec with the error code; with IOPL 3 it runs.
        .macro SENSITIVE name, insn:vararg
        V86 ZERO
9:      \insn
        VEND
        MEETS "\name, IOPL 0", 13, 0
        V86 0x22002
9:      \insn
        VEND
        MEETS "\name, IOPL 2", 13, 0
        V86 IOPL3
        \insn
        VEND
        MET "\name, IOPL 3", 3
        .endm
        .macro NEVER name, vec, insn:vararg
        V86 IOPL3
9:      \insn
        VEND
        MEETS "\name", \vec, 0
        .endm

        .data
        .balign 128
tss2:   .fill 26, 4, 0
vs:     .long 0
image:  .fill 10, 4, 0
count:  .long 0

        .text
# Keeps what an interrupt from virtual-8086 mode pushed
keep:   movl 4(%esp), %ecx
        .set i, 0
        .rept 9
        movl 56+i*4(%ecx), %eax
        movl %eax, image+i*4
        .set i, i+1
        .endr
        incl count
        ret

test_main:
        movl $v_start, %esi
        movl $VSEG*16, %edi
        movl $0x4000, %ecx
        cld
        rep movsl
        movl $0x10007, %eax             # 10000h to 20FFFh for ring 3
        movl $PT+0x10*4, %edi
1:      stosl
        addl $4096, %eax
        cmpl $0x21007, %eax
        jb 1b
        movl %cr3, %eax
        movl %eax, %cr3
        DESC CONF, 0, 0xFFFFF, 0xC09F
        DESC C1, 0, 0xFFFFF, 0xC0BB

        # -- State on the way in and out
        HOOK 3, keep
        V86 0x20202
        movl $0x12345678, %eax
        movw %cs, %bx
        movw %ds, %cx
        movw %es, %dx
        movw %fs, %si
        movw %gs, %di
        movw %sp, %bp
        int3
9:      incl %eax
        nop
        hlt
        VEND
        UNHOOK 3
        MEETS "back in virtual-8086 mode, then HLT", 13, 0, 97b-1
        CHECK "eax goes on", x_eax, $0x12345679
        CHECK "CS", x_ebx, $VSEG
        movzwl x_ecx, %eax
        CHECK "DS", %eax, $VSEG
        movzwl x_edx, %eax
        CHECK "ES", %eax, $0x1001
        movzwl x_esi, %eax
        CHECK "FS", %eax, $0x1002
        movzwl x_edi, %eax
        CHECK "GS", %eax, $0x1003
        CHECK "pushed EIP", image, $9b-v_start
        CHECK "pushed CS", image+4, $VSEG
        CHECK "pushed EFLAGS", image+8, $0x20202
        CHECK "pushed ESP", image+12, $0xFFF0
        CHECK "pushed SS", image+16, $VSEG
        CHECK "pushed ES", image+20, $0x1001
        CHECK "pushed DS", image+24, $VSEG
        CHECK "pushed FS", image+28, $0x1002
        CHECK "pushed GS", image+32, $0x1003
        CHECK "inside: DS is null", x_ds, $0
        CHECK "inside: ES is null", x_es, $0
        CHECK "inside: FS is null", x_fs, $0
        CHECK "inside: GS is null", x_gs, $0
        movl x_eflags, %eax
        andl $0x30000, %eax
        CHECK "VM and RF in the image of a fault", %eax, $0x30000

        # -- Sensitive to IOPL
        SENSITIVE "CLI", cli
        SENSITIVE "STI", sti
        SENSITIVE "PUSHF", pushfw
        SENSITIVE "PUSHFD", pushfl
        V86 ZERO
9:      popfw
        VEND
        MEETS "POPF, IOPL 0", 13, 0
        V86 ZERO
9:      iretw
        VEND
        MEETS "IRET, IOPL 0", 13, 0
        V86 ZERO
9:      int $0x80
        VEND
        MEETS "INT n, IOPL 0", 13, 0
        V86 0x22002
9:      int $0x80
        VEND
        MEETS "INT n, IOPL 2", 13, 0
        V86 IOPL3
        int $0x80
9:      nop
        VEND
        MEETS "INT n, IOPL 3", 0x80
        V86 ZERO
        int3
9:      nop
        VEND
        MEETS "INT3, IOPL 0", 3
        V86 ZERO
        movb $0x7F, %al
        incb %al
        into
9:      nop
        VEND
        MEETS "INTO, IOPL 0", 4
        V86 IOPL3
9:      int $0x90
        VEND
        MEETS "INT n to a gate of DPL 0", 13, 0x90*8+2
        V86 IOPL3
        pushl $0x7FFF7FD7               # everything
        popfl
        pushfl
        popl %eax
        pushl $2
        popfl
        pushfl
        popl %ebx
        VEND
        MET "POPFD, IOPL 3", 1          # TF was set: it traps behind the PUSHFD
        V86 IOPL3
        pushl $0x00247ED7
        popfl
        pushfl
        popl %eax
        pushl $2
        popfl
        pushfl
        popl %ebx
        VEND
        MET "POPFD, IOPL 3, no TF", 3
        CHECK "POPFD, IOPL 3: what can be set", x_eax, $0x247ED7
        CHECK "POPFD, IOPL 3: what cannot be cleared", x_ebx, $0x3002
        V86 0x23202
        pushw $0x7002
        popfw
        pushfw
        popw %ax
        pushfl
        popl %ebx
        VEND
        CHECK "POPF, IOPL 3: IOPL stays", x_ebx, $0x7002
        V86 IOPL3
        pushw $0x0AD7
        pushw %cs
        pushw $1f-v_start
        iretw
1:      pushfl
        popl %ebx
        movw %sp, %cx
        VEND
        CHECK "IRET, IOPL 3", x_ebx, $0x3AD7
        movzwl x_ecx, %eax
        CHECK "IRET, IOPL 3: SP", %eax, $0xFFF0
        V86 IOPL3
        movw $0xFFFA, %sp
9:      iretl
        VEND
        MEETS "IRETD over the stack's end", 12, 0

        # -- Never allowed
        NEVER "HLT", 13, hlt
        NEVER "CLTS", 13, clts
        NEVER "LGDT", 13, lgdtw 0
        NEVER "LIDT", 13, lidtw 0
        NEVER "LMSW", 13, lmsw %ax
        NEVER "MOV from CR0", 13, movl %cr0, %eax
        NEVER "MOV to CR3", 13, movl %eax, %cr3
        NEVER "MOV from DR7", 13, movl %dr7, %eax
        NEVER "WBINVD", 13, wbinvd
        NEVER "INVLPG", 13, invlpg (%bx)
        NEVER "RDMSR", 13, rdmsr
        NEVER "WRMSR", 13, wrmsr
        NEVER "SYSEXIT", 13, sysexit
        NEVER "SLDT", 6, sldt %ax
        NEVER "STR", 6, str %ax
        NEVER "LLDT", 6, lldt %ax
        NEVER "LTR", 6, ltr %ax
        NEVER "VERR", 6, verr %ax
        NEVER "VERW", 6, verw %ax
        NEVER "LAR", 6, larw %ax, %ax
        NEVER "LSL", 6, lslw %ax, %ax
        NEVER "ARPL", 6, .byte 0x63, 0xC0
        V86
        sgdtw 0x8000
        smsw %ax
        rdtsc
        cpuid
        VEND
        MET "SGDT, SMSW, RDTSC, CPUID", 3

        # -- Ports: the bitmap, whatever IOPL
        V86 IOPL3
        movw $0x80, %dx
9:      inb %dx, %al
        VEND
        MEETS "IN without a bit, IOPL 3", 13, 0
        andb $0xFE, iomap+0x10
        V86 ZERO
        inb $0x80, %al
        outb %al, $0x80
9:      inw $0x80, %ax
        VEND
        MEETS "IN of two ports, one allowed", 13, 0
        V86 ZERO
        movw $0x80, %dx
        movw $2, %cx
        movw $0x8000, %di
        rep insb
        VEND
        MET "INSB with a bit", 3
        orb $1, iomap+0x10

        # -- Addresses: 64 KiB, whatever the prefixes
        V86
        movw $0x1234, 0xFFFE
        movw 0xFFFE, %ax
        movb 0xFFFF, %bl
        VEND
        MET "the last word", 3
        movzwl x_eax, %eax
        CHECK "the last word: read", %eax, $0x1234
        movzwl 0x1FFFE, %eax
        CHECK "the last word: where", %eax, $0x1234
        V86
9:      movw 0xFFFF, %ax
        VEND
        MEETS "a word across the end", 13, 0
        V86
        movl $0x10000, %ebx
9:      movb (%ebx), %al
        VEND
        MEETS "32-bit address above the limit", 13, 0
        V86
        movl $0x8000, %ebx
        movl $0x1000, %ecx
        movl $0x55AA, (%ebx,%ecx,4)
        VEND
        MET "32-bit address below the limit", 3
        CHECK "32-bit address: where", 0x1C000, $0x55AA
        V86
        movw $0xFFFF, %bp
9:      movw (%bp), %ax
        VEND
        MEETS "a word across the end of the stack", 12, 0
        V86
        movl $0x10010, %ebp
9:      movb (%ebp), %al
        VEND
        MEETS "SS: above the limit", 12, 0
        V86
        movw $1, %sp
9:      pushw %ax
        VEND
        MEETS "PUSH with SP 1", 12, 0
        V86
        movw $0, %sp
        movl $0xAABBCCDD, %eax
        pushl %eax
        movw %sp, %bx
        VEND
        movzwl x_ebx, %eax
        CHECK "PUSH with SP 0 wraps", %eax, $0xFFFC
        CHECK "PUSH with SP 0: where", 0x1FFFC, $0xAABBCCDD
        V86
        movw $0x7FFF, %ax
        movw %ax, %es
        movw $0xF000, %es:0
        VEND
        MET "page without rights", 14, 7,, 0x7FFF0
        # far transfers
        V86
        ljmpw $0x1001, $1f-v_start-0x10
        .balign 16
1:      movw %cs, %ax
        lcallw $VSEG, $2f-v_start
        jmp 3f
2:      movw %cs, %bx
        lretw
3:      movw %cs, %cx
        VEND
        MET "far transfers", 3
        movzwl x_eax, %eax
        CHECK "JMP far: CS", %eax, $0x1001
        movzwl x_ebx, %eax
        CHECK "CALL far: CS", %eax, $VSEG
        movzwl x_ecx, %eax
        CHECK "RET far: CS", %eax, $0x1001
        V86
        movw $0xFFFF, %ax               # the greatest base
        movw %ax, %fs
        movb %fs:0x10, %al
        VEND
        MET "FFFF:0010 is 100000h", 14, 5,, 0x100000
        V86
        xorl %eax, %eax
        movl $0x10000, %eax
9:      jmp *%eax
        VEND
        MET "jump above 64 KiB", 13, 0, 9b-v_start
        V86
        lesw 0x9000, %ax
        ldsw 0x9000, %ax
        lssl %cs:0xA000, %esp
        VEND
        # -- The way in: EIP above 64 KiB; handlers of the wrong level
        TRY 1f
        .rept 4
        pushl $0
        .endr
        pushl $VSEG
        pushl $0
        pushl $ZERO
        pushl $VSEG
        pushl $0x10000
9:      iretl
1:      MET "IRET to EIP 10000h", 13, 0, 9b
        movl idt+0x80*8, %esi
        movw $CONF, idt+0x80*8+2
        V86 IOPL3
9:      int $0x80
        VEND
        MEETS "handler in conforming code", 13, CONF
        movw $C1, idt+0x80*8+2
        V86 IOPL3
9:      int $0x80
        VEND
        MEETS "handler in ring 1", 13, C1
        movl %esi, idt+0x80*8
        USER
        pushl $0x20002                  # VM is ignored outside ring 0
        pushl $UCS
        pushl $1f
        iretl
1:      pushfl
        popl %ebx
        UEND
        CHECK "IRET in ring 3 with VM", x_ebx, $2
        # CR4.VME
        TRY 1f
        movl %cr4, %eax
        orl $1, %eax
9:      movl %eax, %cr4
1:      MET "CR4.VME", 13, 0, 9b
        movl $1, %eax
        cpuid
        andl $2, %edx
        CHECK "CPUID tells no VME", %edx, $0

        # -- SYSENTER from virtual-8086 mode
        movl $0x174, %ecx
        movl $KCS, %eax
        xorl %edx, %edx
        wrmsr
        incl %ecx
        movl $0x860000, %eax
        wrmsr
        incl %ecx
        movl $1f, %eax
        wrmsr
        V86
        sysenter
        VEND
        jmp unexpected
1:      pushfl
        popl %ecx
        movl $KDS, %eax
        movl %eax, %ds
        movl x_trysp, %esp
        movl %eax, %es
        movl $0, x_resume
        CHECK "SYSENTER: VM is clear", %ecx, $2

        # -- Single step and breakpoint
        HOOK 1, keep
        movl $0, count
        V86 0x20102
        nop
        nop
        VEND
        UNHOOK 1
        CHECK "single step: traps", count, $2
        CHECK "single step: last", image, $97b-v_start
        # -- A task
        movl $tss2, %eax
        movl %eax, %edx
        shll $16, %eax
        orl $103, %eax
        movl %eax, gdt+V2
        shrl $16, %edx
        movzbl %dl, %eax
        orl $0x8900, %eax
        movl %eax, gdt+V2+4
        movl $PD, tss2+0x1C
        movl $PD, tss+0x1C
        movl $ESP0, tss2+4
        movl $KDS, tss2+8
        movl $v_task-v_start, tss2+0x20
        movl $ZERO, tss2+0x24
        movl $0xF000, tss2+0x38
        movl $0x1004, tss2+0x48         # ES CS SS DS FS GS
        movl $VSEG, tss2+0x4C
        movl $VSEG, tss2+0x50
        movl $VSEG, tss2+0x54
        movl $0x1005, tss2+0x58
        movl $0x1006, tss2+0x5C
        movl $0x680000, tss2+0x64
        movl %esp, x_trysp
        movl $1f, x_resume
        lcall $V2, $0
1:      MET "virtual-8086 task", 3,,v_task_end-v_start
        clts
        movzwl x_eax, %eax
        CHECK "virtual-8086 task: ES", %eax, $0x1004
        movzwl x_ecx, %eax
        CHECK "virtual-8086 task: GS", %eax, $0x1006
        str %eax
        CHECK "virtual-8086 task: TR", %eax, $V2
        movl x_eflags, %eax
        andl $0x24000, %eax
        CHECK "virtual-8086 task: VM and NT", %eax, $0x24000
        jmp finish

        .section .vcode
        .code16
v_task: movw %es, %ax
        movw %gs, %cx
        int3
v_task_end:
        .code32
        .section .utext
        .balign 4096
utext_end:
