# resets.S: every way to reset, and what of the machine it resets. Each start of the ROM looks at what the one before left and goes on to the
# next. INIT leaves the shadow RAM open, port 92h and the x87 alone; a reset of everything does not.
        .include "rom.inc"
        .set TURN, 0x614                # the way tried last

        # Marks what a reset changes; a way to reset follows.
        .macro WAY n
        movw $\n, TURN
        call mark
        .endm

rom_main:
        incw STATE
        movw TURN, %ax
        cmpw $8, %ax
        ja lost
        movw %ax, %bx
        addw %bx, %bx
        jmp *%cs:turns(%bx)
lost:   movw %ax, %ax
        movzwl %ax, %eax
        CHECK "a turn that is none", 0
        jmp rom_end
turns:  .word turn0, turn1, turn2, turn3, turn4, turn5, turn6, turn7, turn8

        # EAX: bit 0: the shadow RAM is open; 1: port 92h, bit 0; 2: the x87 control word is the marked one; 3: CR0.PE;
        # 4: the mask of the 8259; 5: CR0.CD
left:   xorl %ebx, %ebx
        movl $0x80000058, %eax
        movw $0xCF8, %dx
        outl %eax, %dx
        movw $0xCFD, %dx
        inb %dx, %al
        testb $0x30, %al
        jz 1f
        orb $1, %bl
1:      inb $0x92, %al
        testb $1, %al
        jz 1f
        orb $2, %bl
1:      fnstcw 0x700
        cmpw $0x0A7F, 0x700
        jne 1f
        orb $4, %bl
1:      movl %cr0, %eax
        testb $1, %al
        jz 1f
        orb $8, %bl
1:      inb $0x21, %al
        cmpb $0xA5, %al
        jne 1f
        orb $16, %bl
1:      movl %cr0, %eax
        testl $0x40000000, %eax
        jz 1f
        orb $32, %bl
1:      movl %ebx, %eax
        ret

mark:   movl $0x80000058, %eax
        movw $0xCF8, %dx
        outl %eax, %dx
        movw $0xCFD, %dx
        movb $0x10, %al                 # reads from the RAM, where a copy is
        outb %al, %dx
        inb $0x92, %al
        orb $2, %al
        andb $0xFE, %al
        outb %al, $0x92
        movw $0x0A7F, 0x700
        fldcw 0x700
        movb $0xA5, %al
        outb %al, $0x21
        movl %cr0, %eax
        andl $0x9FFFFFFF, %eax
        movl %eax, %cr0
        ret

        # The ROM is copied into the RAM behind it once: after INIT the machine goes on in there.
turn0:  movl $0x80000058, %eax
        movw $0xCF8, %dx
        outl %eax, %dx
        movw $0xCFD, %dx
        movb $0x20, %al
        outb %al, %dx
        movw $0xF000, %ax
        movw %ax, %ds
        movw %ax, %es
        xorw %si, %si
        xorw %di, %di
        movw $0x8000, %cx
        rep movsw
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        WAY 1
        inb $0x92, %al
        orb $1, %al
        outb %al, $0x92
        jmp wait

turn1:  call left
        CHECK "port 92h: INIT", 1 + 2 + 4 + 16
        WAY 2
        movb $0xFE, %al
        outb %al, $0x64
        jmp wait

turn2:  call left
        CHECK "8042, pulse: INIT", 1 + 4 + 16
        WAY 3
        movb $0xD1, %al
        outb %al, $0x64
        movb $0xDE, %al
        outb %al, $0x60
        jmp wait

turn3:  call left
        CHECK "8042, output port: INIT", 1 + 4 + 16
        WAY 4
        movw $0xCF9, %dx
        movb $0, %al
        outb %al, %dx
        movb $4, %al
        outb %al, %dx
        jmp wait

turn4:  call left
        CHECK "CF9h, soft: INIT", 1 + 4 + 16
        WAY 5
        lidtl %cs:no_idt
        int3
        jmp wait

turn5:  call left
        CHECK "triple fault in real mode: INIT", 1 + 4 + 16
        WAY 6
        call enter
        ljmpl $0x08, $fault32 + LOW
        jmp wait

turn6:  call left
        CHECK "triple fault with paging: INIT", 1 + 4 + 16
        movl %cr3, %eax
        CHECK "INIT clears CR3", 0
        movl %cr2, %eax
        CHECK "INIT clears CR2", 0
        WAY 7
        movw $0xCF9, %dx
        movb $2, %al
        outb %al, %dx
        movb $6, %al
        outb %al, %dx
        jmp wait

turn7:  call left
        CHECK "CF9h, hard: everything", 32
        movzwl STATE, %eax
        CHECK "starts counted in RAM", 8
        fninit
        movw $0x0A7F, 0x700
        WAY 8
        lidtl %cs:no_idt
        call enter
        ljmpl $0x08, $spin32 + LOW
        jmp wait

        # Translated code that resets from a loop.
turn8:  call left
        CHECK "port 92h out of a loop: INIT", 1 + 2 + 4 + 16
        jmp rom_end

wait:   cli
1:      hlt
        jmp 1b

        .balign 8
gdt:    .quad 0
        .quad 0x00CF9B000000FFFF
        .quad 0x00CF93000000FFFF
gdtr:   .word 23
        .long gdt + LOW
no_idt: .word 0
        .long 0

enter:  popw %cx
        lgdtl %cs:gdtr
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        jmp *%cx
        .code32
fault32: movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %ss
        movl $0x7000, %esp
        movl $0x100000, %edi
        movl $0x87, (%edi)
        movl %cr4, %eax
        orl $0x10, %eax
        movl %eax, %cr4
        movl %edi, %cr3
        movl %cr0, %eax
        orl $0x80000000, %eax
        movl %eax, %cr0
        movl 0x80000000, %eax           # a page fault, and no IDT
        hlt
spin32: movl $0x10, %eax
        movl %eax, %ds
        movl $1000, %ecx
1:      decl %ecx
        jnz 1b
        inb $0x92, %al
        orb $1, %al
        outb %al, $0x92
1:      incl %ecx
        jmp 1b
