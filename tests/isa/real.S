# real.S: from protected mode to real mode and back, unreal mode, interrupts there, 16-bit protected mode, and what instructions do in each
# (SDM vol. 3, 9.9 and chapter 20; vol. 1, 3.3.5).
        .include "common.inc"

        .set RSEG, 0x1000               # the code is copied to 10000h
        .set C16, 0x38                  # base 10000h, 64 KiB, 16 bits
        .set D16, 0x40
        .set BIG, 0x48                  # flat data
        .set SMALL, 0x50                # limit FFFh
        .set C32, 0x58                  # base 10000h, 32 bits

        .section .vcode, "ax"
r_start:
        .fill 32, 1, 0                  # SI wraps to here
        .text
        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
# From here to REND in real mode: CS = DS = ES = SS = 1000h, SP = F000h. An interrupt n in between that the guest has no vector for ends it:
# n in r_vec, its IP in r_ip.
        .macro REAL
        movl $98f-r_start, %eax
        call to_real
        .section .vcode
        .code16
98:
        .endm
        .macro REND
        ljmpw $RSEG, $r_back-r_start
        .code32
        .text
        .endm
        .macro ENDED name, vec, ip
        CHECK "\name vector", r_vec, $\vec
        .ifnb \ip
        CHECK "\name ip", r_ip, $\ip-r_start
        .endif
        .endm

        .data
        .balign 4
r_vec:  .long 0
r_ip:   .long 0
r_cs:   .long 0
r_flags: .long 0
r_eax:  .long 0
r_ecx:  .long 0
r_edx:  .long 0
r_ebx:  .long 0
r_esi:  .long 0
r_edi:  .long 0
r_ebp:  .long 0
save_esp: .long 0
ivt_reg: .word 0x3FF
        .long 0
v:      .long 0

        .text
to_real: movl %esp, save_esp
        movl $-1, r_vec
        movw %ax, 0x1FF00               # where to, for the jump in real mode
        movl %cr0, %eax
        andl $0x7FFFFFFF, %eax
        movl %eax, %cr0
        lidt ivt_reg
        ljmp $C16, $1f-r_start
        .section .vcode
        .code16
1:      movw $D16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw %ax, %fs
        movw %ax, %gs
        movl %cr0, %eax
        andb $0xFE, %al
        movl %eax, %cr0
        ljmpw $RSEG, $1f-r_start
1:      movw $RSEG, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0xF000, %esp
        xorl %eax, %eax
        jmpw *0xFF00
        .balign 16
r_vectors:
        .set n, 0
        .rept 32
        pushw $n
        jmp r_trap
        .balign 8
        .set n, n+1
        .endr
r_trap: popw %cs:r_n-r_start            # vector; then IP, CS, FLAGS
        popw %cs:r_n-r_start+2
        popw %cs:r_n-r_start+4
        popw %cs:r_n-r_start+6
        movb $1, %cs:r_n-r_start+8
r_back: movl %eax, %cs:r_regs-r_start
        movl %ecx, %cs:r_regs-r_start+4
        movl %edx, %cs:r_regs-r_start+8
        movl %ebx, %cs:r_regs-r_start+12
        movl %esi, %cs:r_regs-r_start+16
        movl %edi, %cs:r_regs-r_start+20
        movl %ebp, %cs:r_regs-r_start+24
        cli
        lgdtl %cs:r_gdtr-r_start
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $KCS, $to_prot
        .balign 4
r_n:    .word 0, 0, 0, 0, 0, 0
r_regs: .fill 7, 4, 0
r_gdtr: .word gdt_end-gdt-1
        .long gdt
        .code32
        .text
to_prot: movl $KDS, %eax
        .irp s, ds, es, fs, gs, ss
        movl %eax, %\s
        .endr
        movl save_esp, %esp
        addl $4, %esp
        lidt idtr
        movl %cr0, %eax
        orl $0x80000000, %eax
        movl %eax, %cr0
        movl $RSEG*16+r_regs-r_start, %esi
        movl $r_eax, %edi
        movl $7, %ecx
        cld
        rep movsl
        cmpb $0, RSEG*16+r_n-r_start+8
        je 1f
        movb $0, RSEG*16+r_n-r_start+8
        movzwl RSEG*16+r_n-r_start, %eax
        movl %eax, r_vec
        movzwl RSEG*16+r_n-r_start+2, %eax
        movl %eax, r_ip
        movzwl RSEG*16+r_n-r_start+4, %eax
        movl %eax, r_cs
        movzwl RSEG*16+r_n-r_start+6, %eax
        movl %eax, r_flags
1:      pushl $2
        popfl
        jmp *%ss:back_to
        .data
back_to: .long 0
        .text
# Entered with the offset in eax; the text behind REND goes on here.
        .macro REALTEST
        movl $96f, back_to
        REAL
        .endm
        .macro RDONE
        REND
96:
        .endm

test_main:
        movl $r_start, %esi
        movl $RSEG*16, %edi
        movl $0x3000, %ecx
        cld
        rep movsl
        DESC C16, 0x10000, 0xFFFF, 0x009B
        DESC D16, 0x10000, 0xFFFF, 0x0093
        DESC BIG, 0, 0xFFFFF, 0x8093
        DESC SMALL, 0x10000, 0xFFF, 0x0093
        DESC C32, 0x10000, 0xFFFF, 0x409B
        xorl %ebx, %ebx                 # vectors 0 to 31
1:      leal r_vectors-r_start(,%ebx,8), %eax
        orl $(RSEG<<16), %eax
        movl %eax, (,%ebx,4)
        incl %ebx
        cmpl $32, %ebx
        jb 1b

        # -- Registers, addresses
        REALTEST
        movl $0x12345678, %ebx
        movw %cs, %cx
        movw $0x2000, %ax
        movw %ax, %es
        movw $0xBEEF, %es:0x1234
        movw %es, %dx
        movl %cr0, %eax
        andl $0x80000001, %eax
        RDONE
        CHECK "real mode: no exception", r_vec, $-1
        CHECK "real mode: 32-bit register", r_ebx, $0x12345678
        movzwl r_ecx, %eax
        CHECK "real mode: CS", %eax, $RSEG
        movzwl 0x21234, %eax
        CHECK "real mode: segment * 16", %eax, $0xBEEF
        CHECK "real mode: CR0", r_eax, $0
        REALTEST
9:      movw 0xFFFF, %ax
        RDONE
        ENDED "word at FFFFh", 13, 9b
        REALTEST
        movw $0xFFFF, %bp
9:      movw (%bp), %ax
        RDONE
        ENDED "word at SS:FFFFh", 12, 9b
        REALTEST
        movl $0x10000, %esi
9:      lodsb %ds:(%esi)
        RDONE
        ENDED "32-bit address above the limit", 13, 9b
        REALTEST
        movw $0xFFFF, %si
        movw $0xA5A5, %ax
        movb $0x77, 0xFFFF
        movb $0x88, 0
        lodsb
        movb %al, %bl
        lodsb
        RDONE
        movzbl r_ebx, %eax
        CHECK "LODSB at FFFFh", %eax, $0x77
        movzbl r_eax, %eax
        CHECK "SI wraps", %eax, $0x88
        # -- Interrupts
        REALTEST
        movw $0, %ax
        movw %ax, %fs
        movw $1f-r_start, %fs:0x60*4
        movw $RSEG, %fs:0x60*4+2
        pushfw
        popw %ax
        orw $0x100, %ax
        movl $0xFFFFFFFF, %ebx
        sti
        stc
        int $0x60
2:      pushfw
        popw %cx
        jmp 3f
1:      pushfw
        popw %bx
        movw %sp, %bp
        movw (%bp), %dx
        movw 4(%bp), %si
        iretw
3:      movw %sp, %di
        cli
        RDONE
        CHECK "INT n in real mode: no exception", r_vec, $-1
        movzwl r_ebx, %eax
        andl $0x300, %eax
        CHECK "INT n in real mode: IF and TF inside", %eax, $0
        movzwl r_edx, %eax
        CHECK "INT n in real mode: IP pushed", %eax, $2b-r_start
        movzwl r_esi, %eax
        andl $0x201, %eax
        CHECK "INT n in real mode: FLAGS pushed", %eax, $0x201
        movzwl r_ecx, %eax
        andl $0x201, %eax
        CHECK "IRET in real mode: FLAGS back", %eax, $0x201
        movzwl r_edi, %eax
        CHECK "IRET in real mode: SP", %eax, $0xF000
        REALTEST
        lidtl %cs:1f-r_start
9:      int $0x20
1:      .word 0x7F
        .long 0
        RDONE
        ENDED "INT n behind the table", 13, 9b
        # IOPL and NT can be changed, VM cannot
        REALTEST
        pushl $0x00027002
        popfl
        pushfl
        popl %eax
        pushl $2
        popfl
        RDONE
        CHECK "POPFD in real mode", r_eax, $0x7002
        # -- Undefined here
        .macro UNDEFINED name, insn:vararg
        REALTEST
9:      \insn
        RDONE
        ENDED "\name", 6, 9b
        .endm
        UNDEFINED "SLDT", sldt %ax
        UNDEFINED "LTR", ltr %ax
        UNDEFINED "VERR", verr %ax
        UNDEFINED "LAR", larw %ax, %ax
        UNDEFINED "LSL", lslw %ax, %ax
        UNDEFINED "ARPL", .byte 0x63, 0xC0
        UNDEFINED "UD2", ud2
        UNDEFINED "LOCK NOP", .byte 0xF0, 0x90
        REALTEST
9:      sysenter
        RDONE
        ENDED "SYSENTER", 13, 9b
        REALTEST
9:      sysexit
        RDONE
        ENDED "SYSEXIT", 13, 9b
        REALTEST
        movb $0, %cl
9:      divb %cl
        RDONE
        ENDED "DIV", 0, 9b
        REALTEST
        movw $10, %ax
        movw $5, %cs:2f-r_start
        movw $9, %cs:2f-r_start+2
9:      boundw %ax, %cs:2f-r_start
2:      .long 0
        RDONE
        ENDED "BOUND", 5, 9b
        REALTEST
        movb $0x7F, %al
        incb %al
        into
9:      nop
        RDONE
        ENDED "INTO", 4, 9b
        REALTEST
        smsw %ax
        cli
        sti
        cli
        inb $0x80, %al
        movl %dr7, %ecx
        movl %cr3, %edx
        rdtsc
        RDONE
        CHECK "system instructions: no exception", r_vec, $-1
        # #NM, single step
        REALTEST
        movl %cr0, %ebx
        movl %ebx, %eax
        orb $8, %al
        movl %eax, %cr0
9:      fninit
        RDONE
        clts
        ENDED "x87 with CR0.TS", 7, 9b
        REALTEST
        pushw $0x102
        popfw
        nop
9:      nop
        RDONE
        ENDED "single step", 1, 9b
        movl r_flags, %eax
        andl $0x100, %eax
        CHECK "single step: TF pushed", %eax, $0x100
        # -- Operand and address sizes
        REALTEST
        movl $0xFFFFFFFF, %eax
        movw $0x1234, %ax
        movl %eax, %ebx
        movl $0x8000, %esi
        movl $0x11223344, (%esi)
        movl $0x55667788, 4(%esi)
        movl $0xABCD9000, %edi          # only DI counts
        movl $2, %ecx
        rep movsl
        movl %edi, %edx
        .byte 0x67                      # 32-bit addresses
        lodsl
        RDONE
        CHECK "16-bit operand keeps the upper half", r_ebx, $0xFFFF1234
        CHECK "MOVSD with DI: edi", r_edx, $0xABCD9008
        CHECK "MOVSD with DI: data", 0x19004, $0x55667788
        REALTEST
        movl $0x12340002, %ecx          # LOOP counts CX, with 67h ECX
        xorw %ax, %ax
1:      incw %ax
        loop 1b
        movl %ecx, %ebx
        movl $3, %ecx
1:      incw %ax
        addr32 loop 1b
        movl $0x10000, %ecx
        jcxz 1f
        orw $0x100, %ax
1:      jecxz 1f
        orw $0x200, %ax
1:      nop
        RDONE
        CHECK "LOOP: ecx", r_ebx, $0x12340000
        movzwl r_eax, %eax
        CHECK "LOOP, JCXZ, JECXZ", %eax, $0x205
        REALTEST
        movl $0x11111111, %eax
        pushal
        movw %sp, 0x9200
        popal
        pushaw
        movw %sp, 0x9202
        popaw
        enterw $16, $0
        movw %bp, %dx
        leavew
        callw 1f
1:      popw %si
        calll 1f
1:      popl %edi
        RDONE
        CHECK "PUSHAD and PUSHA: SP", RSEG*16+0x9200, $0xEFF0EFE0
        movzwl r_edx, %eax
        CHECK "ENTER: BP", %eax, $0xEFFE
        # IP wraps at 64 KiB for a 16-bit jump; it does not run over it
        REALTEST
        movb $0xEB, 0xFFF0
        movb $0x0C, 0xFFF1              # jmp short FFFE
        movb $0x90, 0xFFFE
9:      movb $0x90, 0xFFFF
        ljmpw $RSEG, $0xFFF0
        RDONE
        CHECK "running over FFFFh vector", r_vec, $13
        CHECK "running over FFFFh ip", r_ip, $0
        # -- Far transfers
        REALTEST
        lcallw $0x1001, $1f-r_start-16
2:      movw %cs, %cx
        jmp 3f
1:      movw %cs, %bx
        lretw
3:      pushw $RSEG
        pushw $1f-r_start
        lretw $4
1:      movw %sp, %dx
        RDONE
        movzwl r_ebx, %eax
        CHECK "CALL far: CS", %eax, $0x1001
        movzwl r_ecx, %eax
        CHECK "RET far: CS", %eax, $RSEG
        movzwl r_edx, %eax
        CHECK "RET far 4: SP", %eax, $0xF004

        # -- Unreal mode: limits stay when real mode is entered, and when a register is loaded there
        REALTEST
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        movw $BIG, %bx
        movw %bx, %es
        movw $SMALL, %bx
        movw %bx, %fs
        andb $0xFE, %al
        movl %eax, %cr0
        xorw %bx, %bx
        movw %bx, %es
        movw $RSEG, %bx
        movw %bx, %fs
        movl $0x900000, %edi
        movl $0x00C0FFEE, %es:(%edi)
        movl %es:(%edi), %ecx
        movb %fs:0xFFF, %dl
9:      movb %fs:0x1000, %dl
        RDONE
        CHECK "unreal: 4 GiB", r_ecx, $0x00C0FFEE
        CHECK "unreal: where", 0x900000, $0x00C0FFEE
        ENDED "unreal: a small limit stays too", 13, 9b
        REALTEST                        # protected mode without reloading anything: the real-mode bases hold
        movw $0x1234, %ds:0x9100
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        movw 0x9100, %bx
        movw %cs, %cx
        andb $0xFE, %al
        movl %eax, %cr0
        movw 0x9100, %dx
        RDONE
        movzwl r_ebx, %eax
        CHECK "protected mode by PE alone: DS", %eax, $0x1234
        movzwl r_ecx, %eax
        CHECK "protected mode by PE alone: CS", %eax, $RSEG
        movzwl r_edx, %eax
        CHECK "and back: DS", %eax, $0x1234

        # -- 16-bit protected mode, with paging
        movl %esp, save_esp
        movl $D16, %eax
        movl %eax, %ss
        movl $0xABCD8000, %esp          # only SP counts
        ljmp $C16, $p16-r_start
        .section .vcode
        .code16
p16:    pushw $0x1111
        pushl $0x22222222
        movl %esp, %ebx
        popl %ecx
        popw %dx
        movw $0xFFFE, %sp
        pushw %ax
        pushw %ax
        movl %esp, %esi
        callw 1f
1:      popw %di
        ljmpl $C32, $p32-r_start
        .code32
p32:    movl $0x12345678, %ebp
        ljmp $KCS, $p_done
        .text
p_done: movl %ebx, v
        movl $KDS, %eax
        movl %eax, %ss
        movl save_esp, %esp
        CHECK "16-bit stack: ESP", v, $0xABCD7FFA
        CHECK "16-bit stack: POP", %ecx, $0x22222222
        CHECK "16-bit stack: SP moves alone", %esi, $0xABCDFFFA
        CHECK "32-bit code with a base", %ebp, $0x12345678
        jmp finish
        .section .utext
        .balign 4096
utext_end:
