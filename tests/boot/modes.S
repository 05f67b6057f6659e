# modes.S: from the reset vector through every mode in which firmware runs.
        .include "rom.inc"

# An exception or interrupt in real mode: counted at 620h, and on at the address in 624h.
        .set HITS, 0x620
        .set RESUME, 0x624
handler: incw %ss:HITS
        addw $6, %sp
        jmp *%ss:RESUME
        .macro VECTOR n, to
        movw $\to, \n * 4
        movw $0xF000, \n * 4 + 2
        .endm
        .macro EXPECT label
        movw $\label, %ss:RESUME
        movw $0, %ss:HITS
        .endm

        .balign 8
gdt:    .quad 0
        .quad 0x00009B0F0000FFFF        # 08h: code, 16 bits, base F0000h
        .quad 0x000093000000FFFF        # 10h: data, 16 bits, base 0, 64 KiB
        .quad 0x00CF9B000000FFFF        # 18h: code, 32 bits, flat
        .quad 0x00CF93000000FFFF        # 20h: data, 32 bits, flat
        .quad 0x00009301000000FF        # 28h: data, base 10000h, 256 bytes
gdt_end:
gdtr:   .word gdt_end - gdt - 1
        .long gdt + LOW
idtr_real: .word 0x3FF
        .long 0

rom_main:
        # -- as RESET leaves it (SDM vol. 3, table 9-1)
        movzwl %bx, %eax
        CHECK "reset: CS after the far jump", 0xF000
        movl %edi, %eax
        CHECK "reset: EDX has the signature", 0x000106CA
        movl %esi, %eax
        CHECK "reset: CR0", 0x60000010
        movl %cr3, %eax
        CHECK "reset: CR3", 0
        movl %cr4, %eax
        CHECK "reset: CR4", 0
        sidtw 0x700
        movzwl 0x700, %eax
        CHECK "reset: IDT limit", 0xFFFF
        movl %dr6, %eax
        CHECK "reset: DR6", 0xFFFF0FF0
        movl %dr7, %eax
        CHECK "reset: DR7", 0x400

        # -- the ROM: both places show it, neither takes a write
        movw $0xF000, %ax
        movw %ax, %es
        movzbl %es:0xFFF0, %eax
        CHECK "rom: the far jump below 1 MiB", 0xEA
        movl %es:scratch, %eax
        CHECK "rom: before a write", 0x11223344
        movl $0x55667788, %es:scratch
        movl %es:scratch, %eax
        CHECK "rom: after a write", 0x11223344
        lock incl %es:scratch
        movl %es:scratch, %eax
        CHECK "rom: after a locked increment", 0x11223344
        movw $0xE000, %ax
        movw %ax, %es
        movl %es:0x1234, %eax
        CHECK "rom: nothing below a ROM of 64 KiB", 0xFFFFFFFF

        # -- segment limit: #GP at a word that begins at FFFFh; the stack wraps
        VECTOR 13, handler
        VECTOR 12, handler
        EXPECT 1f
        movw 0xFFFF, %ax
1:      movzwl HITS, %eax
        CHECK "real: word at FFFFh", 1
        EXPECT 1f
        movb 0xFFFF, %al
1:      movzwl HITS, %eax
        CHECK "real: byte at FFFFh", 0
        EXPECT 1f
        movl $0x10000, %ebx
        movb (%ebx), %al
1:      movzwl HITS, %eax
        CHECK "real: byte at 10000h", 1
        movw %sp, %cx
        xorw %sp, %sp
        pushw $0x4321
        movw %sp, %bx
        movw %cx, %sp
        movzwl %bx, %eax
        CHECK "real: push at SP = 0", 0xFFFE
        movzwl 0xFFFE, %eax
        CHECK "real: pushed there", 0x4321
        # BP+SI wraps in 16 bits
        movl $0xCAFE1234, 0x0800
        movw $0xFFF0, %bx
        movw $0x0810, %si
        movl (%bx,%si), %eax
        CHECK "real: 16-bit address wraps", 0xCAFE1234

        # -- A20 (port 92h, then the 8042): FFFF:0010 is 0:0 without it
        movl $0x600DBEEF, 0x0900
        movw $0xFFFF, %ax
        movw %ax, %es
        movl $0x0BADF00D, %es:0x0910
        movl 0x0900, %eax
        CHECK "a20: on, 1 MiB is not 0", 0x600DBEEF
        inb $0x92, %al
        andb $0xFC, %al
        outb %al, $0x92
        movl %es:0x0910, %eax
        CHECK "a20: off by port 92h, read", 0x600DBEEF
        movl $0x12121212, %es:0x0910
        movl 0x0900, %eax
        CHECK "a20: off by port 92h, write", 0x12121212
        inb $0x92, %al
        orb $2, %al
        andb $0xFE, %al
        outb %al, $0x92
        movl %es:0x0910, %eax
        CHECK "a20: on by port 92h", 0x0BADF00D
        movb $0xD1, %al
        outb %al, $0x64
        movb $0xDD, %al
        outb %al, $0x60
        movl %es:0x0910, %eax
        CHECK "a20: off by the 8042", 0x12121212
        movb $0xDF, %al
        outb %al, $0x60
        movb $0xD1, %al
        outb %al, $0x64
        movb $0xDF, %al
        outb %al, $0x60
        movl %es:0x0910, %eax
        CHECK "a20: on by the 8042", 0x0BADF00D

        # -- 16-bit protected mode: base and limit of a descriptor
        lgdtl %cs:gdtr
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpw $0x08, $prot16
prot16: movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %ss
        movw $0x28, %ax
        movw %ax, %fs
        movl $0x77777777, %fs:0x10
        movw %cs, %ax
        movzwl %ax, %eax
        CHECK "16-bit protected: CS", 8
        movl $100, %ecx
        xorl %eax, %eax
1:      addl %ecx, %eax
        decw %cx
        jnz 1b
        CHECK "16-bit protected: a loop", 5050

        # -- back to real mode with the big segment left in DS: unreal mode
        movw $0x20, %ax
        movw %ax, %ds
        movw %ax, %es
        movl %cr0, %eax
        andb $0xFE, %al
        movl %eax, %cr0
        ljmpw $0xF000, $unreal
unreal: movl $0x10010, %ebx
        movl (%ebx), %eax
        CHECK "unreal: what the 16-bit code stored", 0x77777777
        movl $0x1A2B3C4D, %eax
        movl $0x300000, %ebx
        movl %eax, (%ebx)
        xorl %eax, %eax
        movl (%ebx), %eax
        CHECK "unreal: 3 MiB", 0x1A2B3C4D
        movl $scratch + HIGH, %ebx
        movl $1, (%ebx)
        movl (%ebx), %eax
        CHECK "unreal: the ROM at 4 GiB takes no write", 0x11223344
        # the string instructions, with 32-bit addresses
        movl $scratch + HIGH, %esi
        xorw %ax, %ax
        movw %ax, %fs                   # a load in real mode: base 0, but the limit stays what it was
        lidtl %cs:idtr_real
        EXPECT 1f
        movb %fs:0x100, %al
1:      movzwl %ss:HITS, %eax
        CHECK "unreal: a limit of 256 bytes", 1
        movl $0x1000, %edi
        movl $8, %ecx
        rep movsb %ds:(%esi), %es:(%edi)
        movl 0x1000, %eax
        CHECK "unreal: copied from the ROM", 0x11223344
        xorw %ax, %ax
        movw %ax, %ds                   # the limit stays what it was
        movl $0x300000, %ebx
        movl (%ebx), %eax
        CHECK "unreal: a load in real mode keeps the limit", 0x1A2B3C4D
        lidtl %cs:idtr_real
        EXPECT 1f
        int $13
1:      movzwl HITS, %eax
        CHECK "unreal: interrupts work", 1

        # -- 32-bit flat code, run in the ROM at both of its places, and in RAM
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $0x18, $flat32 + LOW
        .code32
flat32: movl $0x20, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl $0x7000, %esp
        movl $5, %edi
1:      movl $sum + LOW, %eax
        call *%eax
        decl %edi
        jnz 1b
        CHECK32 "flat: code in the ROM below 1 MiB", 500500
        movl $5, %edi
1:      movl $sum + HIGH, %eax
        call *%eax
        decl %edi
        jnz 1b
        CHECK32 "flat: code in the ROM at 4 GiB", 500500
        movl $0x9090C3CC, sum + LOW     # no effect
        movl $sum + LOW, %eax
        call *%eax
        CHECK32 "flat: code in the ROM does not change", 500500
        movl $0x9090C3CC, sum + HIGH
        movl $sum + HIGH, %eax
        call *%eax
        CHECK32 "flat: nor at 4 GiB", 500500

        # -- shadow RAM (82441FX, PAM0): F0000h to FFFFFh is ROM; reads ROM, writes RAM; RAM; RAM that takes no write
        movl $0xCAFEBABE, shadowed + LOW
        movl shadowed + LOW, %eax
        CHECK32 "shadow: closed", 0x33445566
        movb $0x20, %al
        call pam0
        movl $rom + LOW, %esi
        movl %esi, %edi
        movl $0x4000, %ecx
        rep movsl                       # the ROM into the RAM behind it
        movl $0xCAFEBABE, shadowed + LOW
        movl shadowed + LOW, %eax
        CHECK32 "shadow: writes to RAM, reads from ROM", 0x33445566
        movl $sum + LOW, %eax
        call *%eax
        CHECK32 "shadow: code from ROM", 500500
        movb $0xC3, sum + LOW           # RET, in the RAM
        movb $0x30, %al
        call pam0
        movl shadowed + LOW, %eax
        CHECK32 "shadow: RAM", 0xCAFEBABE
        movl $123, %eax
        movl $sum + LOW, %edx
        call *%edx
        CHECK32 "shadow: code from RAM", 123
        movl $sum + HIGH, %eax
        call *%eax
        CHECK32 "shadow: the ROM at 4 GiB is the same", 500500
        movl $0x1234, shadowed + LOW
        movl shadowed + LOW, %eax
        CHECK32 "shadow: RAM takes a write", 0x1234
        movb $0x10, %al
        call pam0
        movl $0x5678, shadowed + LOW
        movl shadowed + LOW, %eax
        CHECK32 "shadow: RAM that takes no write", 0x1234
        movb $0x00, %al
        call pam0
        movl shadowed + LOW, %eax
        CHECK32 "shadow: closed again", 0x33445566
        movl $sum + LOW, %eax
        call *%eax
        CHECK32 "shadow: code from ROM again", 500500

        # -- paging on, the ROM mapped elsewhere
        movl $0x100000, %edi
        movl $0x87, %eax                # 0 to 4 MiB as they are
        movl %eax, (%edi)
        movl $0xFFC00087, %eax          # the last 4 MiB at 40000000h and where they are
        movl %eax, 0x400(%edi)
        movl %eax, 0xFFC(%edi)
        movl %cr4, %eax
        orl $0x10, %eax
        movl %eax, %cr4
        movl %edi, %cr3
        movl %cr0, %eax
        orl $0x80010000, %eax
        movl %eax, %cr0
        movl $sum + HIGH - 0xFFC00000 + 0x40000000, %eax
        call *%eax
        CHECK32 "paging: code in the ROM", 500500
        movl $7, scratch + HIGH - 0xFFC00000 + 0x40000000
        movl scratch + HIGH - 0xFFC00000 + 0x40000000, %eax
        CHECK32 "paging: the ROM takes no write", 0x11223344
        movl %cr0, %eax
        andl $0x7FFFFFFF, %eax
        movl %eax, %cr0

        # -- and back
        ljmpl $0x08, $back16
        .code16
back16: movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl %cr0, %eax
        andb $0xFE, %al
        movl %eax, %cr0
        ljmpw $0xF000, $real
real:   xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        EXPECT 1f
        movl $0x10000, %ebx
        movb (%ebx), %al
1:      movzwl HITS, %eax
        CHECK "real again: the limit of 64 KiB is back", 1
        jmp rom_end

        .code32
pam0:   pushl %eax
        movl $0x80000058, %eax
        movw $0xCF8, %dx
        outl %eax, %dx
        popl %eax
        movw $0xCFD, %dx
        outb %al, %dx
        ret
        .balign 64
sum:    movl $1000, %ecx
        xorl %eax, %eax
1:      addl %ecx, %eax
        decl %ecx
        jnz 1b
        ret
        .balign 64
scratch: .long 0x11223344
shadowed: .long 0x33445566
