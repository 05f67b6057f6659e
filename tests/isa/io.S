# io.S: ports, IOPL and the permission bitmap (SDM vol. 1, chapter 19), from ring 3 and for every width, by plain and string instructions.
# quick.c has a form of the rule for translated code: each check is done several times, so that both are met.
        .include "common.inc"

        .set T16, 0x38
        .set SPARE, 0x40
        .set D1, 0x48
        .set C1, 0x50

        .macro ALLOW port
        andb $(0xFF&~(1<<((\port)&7))), iomap+((\port)>>3)
        .endm
        .macro DENY port
        orb $(1<<((\port)&7)), iomap+((\port)>>3)
        .endm
        .macro NO name, insn:vararg
        .rept 3
        USER
        movw $0x80, %dx
        movl $0x700000, %edi
        movl $0x700000, %esi
        movl $2, %ecx
9:      \insn
        UEND
        .endr
        MET "\name", 13, 0, 9b
        .endm
        .macro YES name, insn:vararg
        .rept 3
        USER
        movw $0x80, %dx
        movl $0x700000, %edi
        movl $0x700000, %esi
        movl $2, %ecx
        .rept 3
        \insn
        .endr
        UEND
        .endr
        MET "\name", 0x80
        .endm
        .macro RELOAD
        movb $0x89, gdt_tss+5
        movw $TSS, %ax
        ltr %ax
        .endm

        .text
test_main:
        # -- The bitmap
        NO "closed: IN", inb $0x80, %al
        NO "closed: OUT", outb %al, $0x80
        NO "closed: IN DX", inb %dx, %al
        NO "closed: INS", insb
        NO "closed: OUTS", outsb
        ALLOW 0x80
        YES "open: IN", inb $0x80, %al
        YES "open: OUT", outb %al, $0x80
        YES "open: IN DX", inb %dx, %al
        YES "open: OUT DX", outb %al, %dx
        YES "open: INS", insb
        YES "open: REP OUTS", rep outsb
        NO "one bit: IN AX", inw $0x80, %ax
        NO "one bit: OUT EAX", outl %eax, $0x80
        NO "one bit: INSW", insw
        NO "the next port", inb $0x81, %al
        NO "the port before", inb $0x7F, %al
        ALLOW 0x81
        YES "two bits: IN AX", inw $0x80, %ax
        YES "two bits: OUTSW", outsw
        NO "two bits: IN EAX", inl $0x80, %eax
        ALLOW 0x82
        NO "three bits: IN EAX", inl $0x80, %eax
        ALLOW 0x83
        YES "four bits: IN EAX", inl $0x80, %eax
        YES "four bits: INSD", insl
        DENY 0x83
        NO "closed again", outl %eax, $0x80
        # over a byte of the map
        ALLOW 0x87
        NO "across a byte, one bit", inw $0x87, %ax
        ALLOW 0x88
        YES "across a byte, both", inw $0x87, %ax
        # refused with nothing done
        USER
        movl $0x700000, %edi
        movl $3, %ecx
        movw $0x90, %dx
9:      rep insb
        UEND
        MET "REP INS refused", 13, 0, 9b
        CHECK "REP INS refused: ecx", x_ecx, $3
        CHECK "REP INS refused: edi", x_edi, $0x700000
        USER
        xorl %ecx, %ecx
        movw $0x90, %dx
        rep insb
        rep outsb
        UEND
        MET "REP INS zero times asks for no right", 0x80
        MAP 0x700000, 0
        USER
        movl $0x700000, %edi
        movw $0x80, %dx
9:      insb
        UEND
        MET "INS into an absent page", 14, 6, 9b, 0x700000
        USER
        movl $0x6FFFFE, %edi
        movl $4, %ecx
        movw $0x80, %dx
        cld
9:      rep insb
        UEND
        MET "REP INS into an absent page", 14, 6, 9b, 0x700000
        CHECK "REP INS into an absent page: ecx", x_ecx, $2
        USER
        movl $0x6FFFFE, %esi
        movl $4, %ecx
        movw $0x80, %dx
9:      rep outsb
        UEND
        MET "REP OUTS out of an absent page", 14, 4, 9b, 0x700000
        CHECK "REP OUTS out of an absent page: ecx", x_ecx, $2
        MAP 0x700000, 0x700007

        # -- IOPL 3: no map is looked at
        USER 0x3002
        movw $0x3F6, %dx
        inb $0x90, %al
        inl %dx, %eax
        UEND
        MET "IOPL 3", 0x80
        USER 0x2002
9:      inb $0x90, %al
        UEND
        MET "IOPL 2 in ring 3", 13, 0, 9b
        # ring 1
        movl $0x0000FFFF, gdt+C1
        movl $0x00CFBB00, gdt+C1+4
        movl $0x0000FFFF, gdt+D1
        movl $0x00CFB300, gdt+D1+4
        .macro RING1 flags
        movl %esp, x_trysp
        movl $-1, x_vec
        movl $99f, x_resume
        pushl $(D1+1)
        pushl $0x880000
        pushl $(\flags)
        pushl $(C1+1)
        pushl $98f
        iretl
98:
        .endm
        RING1 0x1002
        inb $0x90, %al
        int $0x80
99:     MET "IOPL 1 in ring 1", 0x80
        RING1 2
        inb $0x80, %al
9:      inb $0x90, %al
        int $0x80
99:     MET "IOPL 0 in ring 1: the map", 13, 0, 9b

        # -- Where the map lies
        movw $(iomap-tss+1), tss+0x66   # one byte on: port 78h has the bits of 80h
        USER
        inb $0x78, %al
9:      inb $0x7F, %al
        UEND
        MET "map base moved", 0x80
        movw $(iomap-tss), tss+0x66
        # the limit: two bytes are read always
        movw $(iomap-tss+0x10), gdt_tss # the byte of 80h is inside, the next is not
        RELOAD
        NO "second byte outside the TSS", inb $0x80, %al
        movw $(iomap-tss+0x11), gdt_tss
        RELOAD
        YES "second byte just inside", inb $0x80, %al
        NO "port behind the limit", inb $0x90, %al
        movw $0x66, gdt_tss             # the base field is outside
        RELOAD
        NO "no base field", inb $0x80, %al
        movw $0x67, gdt_tss
        RELOAD
        NO "no map", inb $0x80, %al
        movw $0xFFFF, tss+0x66
        movw $(tss_end-tss), gdt_tss
        RELOAD
        NO "base FFFFh", inb $0x80, %al
        movw $(iomap-tss), tss+0x66
        # the last port: the byte behind the map is there and is all ones
        ALLOW 0x3FF
        YES "port 3FFh", movw $0x3FF, %dx; inb %dx, %al
        USER
        movw $0x3FF, %dx
9:      inw %dx, %ax
        UEND
        MET "ports 3FFh and 400h", 13, 0, 9b
        # a page of the TSS that may not be read: it is not read as ring 3
        YES "the TSS is the supervisor's", inb $0x80, %al
        # the bits change between two uses
        movl $50, %ebx
1:      DENY 0x80
        USER
9:      inb $0x80, %al
        UEND
        cmpl $13, x_vec
        jne 2f
        ALLOW 0x80
        USER
        inb $0x80, %al
        UEND
        cmpl $0x80, x_vec
        jne 2f
        movl count, %ebx
        decl count
        jnz 1b
2:      CHECK "opened and closed 50 times", count, $0
        # ring 0 asks nobody
        movw $0x3F6, %dx
        inb %dx, %al
        inb $0x90, %al
        jmp finish
        .data
count:  .long 50
        .section .utext
        .balign 4096
utext_end:
