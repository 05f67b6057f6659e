# quick.S: what the monitor remembers about segment loads, CPUID and the ways into the kernel and back must not outlive what
# it was made from. Everything is done several times, so that it is remembered, and then under changed tables.
        .include "common.inc"
        .set DESC_LO, 0x0000FFFF
        .set DESC_HI, 0x00CF9300        # writable data, accessed, 4 GiB
        .set S1, 0x38
        .set S2, 0x40
        .set S3, 0x48
        .set S4, 0x50                   # LDT
        .set L1, 0x04                   # its first entry

# A data descriptor with a base of its own (24 bits).
        .macro DESC at, base, hi=DESC_HI
        movl $(DESC_LO | ((\base) & 0xFFFF) << 16), \at
        movl $((\hi) | ((\base) >> 16 & 0xFF)), \at + 4
        .endm

        .data
        .balign 16
gdt2:   .quad 0, 0
        .quad 0x00CF9B000000FFFF, 0x00CF93000000FFFF
        .quad 0x00CFFB000000FFFF, 0x00CFF3000000FFFF
        .quad 0
        .quad 0x00CF93900000FFFF        # 38h: base 900000h
        .fill 4, 8, 0
gdt2_end:
gdtr2:  .word gdt2_end - gdt2 - 1
        .long gdt2
        .balign 16
ldt1:   .quad 0x00CF93910000FFFF        # base 910000h
ldt2:   .quad 0x00CF93920000FFFF        # base 920000h
selector: .word S1
count:  .long 0
cpu_first: .long 0, 0, 0, 0

        .text
# edx = what FS:0 reads after loading FS with cx, eight times; FAILs if they differ, or registers or flags change.
load_fs: movl $8, %esi
1:      movl $0x12345678, %eax
        stc
        movw %cx, %fs
        jnc 3f
        cmpl $0x12345678, %eax
        jne 3f
        movl %fs:0, %edx
        cmpl $8, %esi
        je 2f
        cmpl %edx, %edi
        jne 3f
2:      movl %edx, %edi
        decl %esi
        jnz 1b
        ret
3:      movl $-1, %edx
        ret

test_main:
        movl $0x11111111, 0x800000
        movl $0x22222222, 0x810000
        movl $0x33333333, 0x820000
        movl $0x44444444, 0x900000
        movl $0x55555555, 0x910000
        movl $0x66666666, 0x920000
        DESC gdt_spare, 0x800000
        DESC gdt_spare + 8, 0x810000
        DESC gdt_spare + 16, 0x820000
        movl $S1, %ecx
        call load_fs
        CHECK "one selector", %edx, $0x11111111

        # Three take turns
        xorl %ebx, %ebx
        movl $30, %ebp
1:      movl $S1, %ecx
        call load_fs
        addl %edx, %ebx
        movl $S2, %ecx
        call load_fs
        addl %edx, %ebx
        movl $S3, %ecx
        call load_fs
        addl %edx, %ebx
        decl %ebp
        jnz 1b
        CHECK "three selectors in turn", %ebx, $0xFFFFFFF4

        # The register outlives its descriptor; the next load sees the new one
        movl $S1, %ecx
        call load_fs
        DESC gdt_spare, 0x820000
        movl %fs:0, %edx
        CHECK "the old base until the next load", %edx, $0x11111111
        call load_fs
        CHECK "the new base after it", %edx, $0x33333333
        DESC gdt_spare, 0x800000
        call load_fs
        CHECK "and back", %edx, $0x11111111

        # Through memory, by POP, and 16 bits wide
        movl $10, %ebp
        xorl %ebx, %ebx
1:      movw $S2, selector
        movw selector, %fs
        addl %fs:0, %ebx
        pushl $S3
        popl %fs
        addl %fs:0, %ebx
        pushw $S1
        popw %fs
        addl %fs:0, %ebx
        pushl $S1
        pushl $S2
        popl %gs
        popl %es
        addl %gs:0, %ebx
        addl %es:0, %ebx
        pushl $KDS
        popl %es
        decl %ebp
        jnz 1b
        CHECK "memory, POP, 16 bits", %ebx, $0xFFFFFFFA
        CHECK "ESP after POPs", %esp, $(KSTACK-0x28) # where CHECK reads it
        movl %gs, %eax
        CHECK "selector of GS", %eax, $S2

        # Null
        movl $20, %ebp
1:      movl $S2, %eax
        movl %eax, %fs
        xorl %eax, %eax
        movl %eax, %fs
        decl %ebp
        jnz 1b
        TRY 1f
2:      movl %fs:0, %eax
1:      MET "use of a null selector", 13, 0, 2b
        movl $3, %eax
        movl %eax, %fs
        TRY 1f
2:      movl %fs:0, %eax
1:      MET "null with RPL 3", 13, 0, 2b
        movl $S2, %ecx
        call load_fs
        CHECK "after null", %edx, $0x22222222

        # Faulting loads leave the register as it was
        DESC gdt_spare + 8, 0x810000, 0x00CF1300
        TRY 1f
        movl $S2, %ecx
2:      movw %cx, %fs
1:      MET "not present", 11, S2, 2b
        movl $KDS, %eax                 # (the resume path loads FS)
        movl %eax, %fs
        DESC gdt_spare + 8, 0x810000, 0x00CF9900
        TRY 1f
        movl $S2, %ecx
2:      movw %cx, %fs
1:      MET "execute-only code", 13, S2, 2b
        DESC gdt_spare + 8, 0x810000
        movl $S2, %ecx
        call load_fs
        CHECK "present again", %edx, $0x22222222
        TRY 1f
        movl $0x7F8, %ecx
2:      movw %cx, %fs
1:      MET "beyond the table", 13, 0x7F8, 2b

        # Accessed is set again when it was cleared
        DESC gdt_spare, 0x800000, 0x00CF9200
        movl $S1, %ecx
        call load_fs
        CHECK "accessed: the load", %edx, $0x11111111
        movzbl gdt_spare + 5, %eax
        CHECK "accessed: the bit", %eax, $0x93

        # A limit; read-only; a small segment remembered beside a large one
        movl $20, %ebp
        xorl %ebx, %ebx
1:      DESC gdt_spare + 8, 0x810000, 0x00409300
        movw $0x0FFF, gdt_spare + 8
        movl $S2, %ecx
        call load_fs
        addl %edx, %ebx
        movl $S1, %ecx
        call load_fs
        addl %edx, %ebx
        decl %ebp
        jnz 1b
        CHECK "limits", %ebx, $0xFFFFFFFC
        movl $S2, %ecx
        call load_fs
        TRY 1f
2:      movl %fs:0xFFD, %eax
1:      MET "beyond the limit", 13, 0, 2b
        DESC gdt_spare + 8, 0x810000, 0x00CF9100
        movl $S2, %ecx
        call load_fs
        TRY 1f
2:      movl %eax, %fs:0
1:      MET "write to read-only data", 13, 0, 2b

        # Another GDT, then the first again
        movl $S1, %ecx
        call load_fs
        lgdt gdtr2
        movl %fs:0, %edx
        CHECK "LGDT changes no register", %edx, $0x11111111
        call load_fs
        CHECK "other GDT", %edx, $0x44444444
        lgdt gdtr
        call load_fs
        CHECK "first GDT", %edx, $0x11111111

        # LDTs
        .irp n, 1, 2, 1
        movl $ldt\n, %eax
        shll $16, %eax
        orl $7, %eax
        movl %eax, gdt_spare + 24
        movl $ldt\n, %eax
        shrl $16, %eax
        movzbl %al, %eax
        orl $0x8200, %eax
        movl %eax, gdt_spare + 28
        movl $S4, %eax
        lldt %ax
        movl $L1, %ecx
        call load_fs
        .if \n == 1
        CHECK "first LDT", %edx, $0x55555555
        .else
        CHECK "second LDT", %edx, $0x66666666
        .endif
        .endr
        xorl %eax, %eax
        lldt %ax
        TRY 1f
        movl $L1, %ecx
2:      movw %cx, %fs
1:      MET "no LDT", 13, L1, 2b

        # The table's page goes away, comes back with other content at the same place
        movl $S1, %ecx
        call load_fs
        movl $gdt, %esi                 # a copy of the page, with another base
        andl $~0xFFF, %esi
        movl $0x830000, %edi
        movl $2048, %ecx
        rep movsl
        movl $gdt_spare, %edi
        andl $0xFFF, %edi
        movl $(DESC_HI | 0x92), 0x830004(%edi)
        movl $gdt, %ebx
        shrl $12, %ebx
        movl PT(,%ebx,4), %ebp
        movl $0x830003, PT(,%ebx,4)
        movl PT + 4(,%ebx,4), %eax
        movl $0x831003, PT + 4(,%ebx,4)
        movl %cr3, %edx
        movl %edx, %cr3
        pushl %eax
        movl $S1, %ecx
        call load_fs
        popl %eax
        movl %ebp, PT(,%ebx,4)
        movl %eax, PT + 4(,%ebx,4)
        movl %cr3, %eax
        movl %eax, %cr3
        CHECK "the table's page replaced", %edx, $0x66666666
        movl $S1, %ecx
        call load_fs
        CHECK "and put back", %edx, $0x11111111

        # CPUID: the same answer every time, in both rings; the flags stay
        xorl %eax, %eax
        xorl %ecx, %ecx
        cpuid
        movl %ebx, cpu_first
        movl %ecx, cpu_first + 4
        movl %edx, cpu_first + 8
        movl %eax, cpu_first + 12
        movl $20, %edi
        xorl %esi, %esi
1:      xorl %eax, %eax
        xorl %ecx, %ecx
        stc
        cpuid
        adcl $0, %esi
        cmpl cpu_first, %ebx
        jne 2f
        cmpl cpu_first + 4, %ecx
        jne 2f
        cmpl cpu_first + 8, %edx
        jne 2f
        cmpl cpu_first + 12, %eax
        jne 2f
        movl $0x80000000, %eax
        cpuid
        cmpl $0x80000004, %eax
        jb 2f
        movl $1, %eax
        cpuid
        testl $1, %edx                  # FPU
        jz 2f
        decl %edi
        jnz 1b
2:      CHECK "CPUID: 20 times", %edi, $0
        CHECK "CPUID: flags", %esi, $20
        movl $20, %edi
        USER
1:      xorl %eax, %eax
        xorl %ecx, %ecx
        cpuid
        decl %edi
        jnz 1b
        UEND
        movl cpu_first, %eax
        CHECK "CPUID in ring 3", x_ebx, %eax
        movl cpu_first + 8, %eax
        CHECK "CPUID in ring 3, edx", x_edx, %eax

        # INT from ring 3 and back
        HOOK 0x81, count_it
        orb $0x60, idt + 0x81 * 8 + 5
        movl $50, %edi
        USER
1:      stc
        int $0x81
        jnc 2f
        decl %edi
        jnz 1b
2:      UEND
        CHECK "INT 81h: times", count, $50
        CHECK "INT 81h: all came back with CF", x_edi, $0
        # The gate closes
        movl $50, %edi
        andb $~0x60, idt + 0x81 * 8 + 5
        USER
9:      int $0x81
        UEND
        MET "INT 81h: gate of DPL 0", 13, 0x40A, 9b
        orb $0x60, idt + 0x81 * 8 + 5
        # Another kernel stack
        movl $0x850000, tss + 4
        USER
        int $0x81
        UEND
        CHECK "ESP0 changed: times", count, $51
        CHECK "ESP0 changed: the stack", stack_seen, $(0x850000 - 0x14)
        movl $ESP0, tss + 4
        # SYSENTER and SYSEXIT
        movl $0x174, %ecx
        movl $KCS, %eax
        xorl %edx, %edx
        wrmsr
        incl %ecx
        movl $0x860000, %eax
        wrmsr
        incl %ecx
        movl $fast_entry, %eax
        wrmsr
        movl $0, count
        movl $50, %edi
        USER 0x202
1:      movl $2f, %edx
        movl %esp, %ecx
        stc
        sysenter
2:      jnc 3f
        decl %edi
        jnz 1b
3:      UEND
        CHECK "SYSENTER: times", count, $50
        CHECK "SYSENTER: came back", x_edi, $0
        CHECK "SYSENTER: the stack", stack_seen, $0x860000
        movl x_cs, %eax
        CHECK "SYSEXIT: CS", %eax, $UCS
        movl x_ss, %eax
        CHECK "SYSEXIT: SS", %eax, $UDS
        movl $0x174, %ecx
        xorl %eax, %eax
        xorl %edx, %edx
        wrmsr
        USER
9:      sysenter
        UEND
        MET "SYSENTER without a segment", 13, 0, 9b

        # IRET to ring 0, with and without NT
        movl $20, %ebp
        xorl %ebx, %ebx
1:      pushl $0x803                    # OF CF
        pushl $KCS
        pushl $2f
        iretl
2:      jno 3f
        adcl $0, %ebx
        decl %ebp
        jnz 1b
3:      CHECK "IRET to ring 0", %ebx, $20
        CHECK "IRET to ring 0: ESP", %esp, $(KSTACK-0x28) # where CHECK reads it
        pushl $2
        pushl $(KCS+4)
        pushl $2f
        TRY 1f
9:      iretl
2:      nop
1:      MET "IRET to a selector of no LDT", 13, KCS+4, 9b
        jmp finish

count_it: incl count
        movl 4(%esp), %eax              # where the frame is: 4 segment registers and 8 others, vector, error code below EIP
        addl $56, %eax
        movl %eax, stack_seen
        ret
        .data
stack_seen: .long 0
        .text
fast_entry: pushfl
        popl %eax
        testl $0x200, %eax              # interrupts are off
        jnz 1f
        incl count
1:      movl %esp, stack_seen
        sti
        stc
        sysexit

        .section .utext
        .balign 4096
utext_end:
