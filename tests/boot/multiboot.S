# multiboot.S: prints what a Multiboot kernel is given (Multiboot 0.6.96, 3.2 and 3.3): registers, command line, modules with their first
# bytes, memory, symbols. FLAGS are those of the header.
        .ifndef FLAGS
        .set FLAGS, 3
        .endif
        .ifndef ERROR
        .set ERROR, 0
        .endif
        .text
        .globl _start
_start: jmp start
        .balign 4
        .long 0x1BADB002, FLAGS, -(0x1BADB002 + FLAGS) + ERROR

        .macro SAY text
        .pushsection .rodata
.Lt\@:  .asciz "\text"
        .popsection
        pushl $.Lt\@
        call puts
        addl $4, %esp
        .endm
        .macro WORD text, value
        SAY "\text "
        pushl \value
        call puthex
        addl $4, %esp
        SAY "\n"
        .endm

start:  movl %eax, got_eax
        movl %ebx, %ebp                 # the information block
        movl $stack, %esp
        pushfl
        popl got_eflags
        movl %cr0, %eax
        movl %eax, got_cr0
        WORD "eax", got_eax
        movl got_eflags, %eax
        andl $0x20200, %eax
        WORD "eflags VM and IF", %eax
        movl got_cr0, %eax
        andl $0x80000001, %eax
        WORD "cr0 PG and PE", %eax
        movl %ds:bss_word, %eax
        WORD "bss", %eax
        movl (%ebp), %eax
        WORD "flags", %eax
        movl 4(%ebp), %eax
        WORD "mem_lower", %eax
        movl 8(%ebp), %eax
        WORD "mem_upper", %eax
        SAY "cmdline "
        pushl 16(%ebp)
        call puts
        addl $4, %esp
        SAY "\nloader "
        pushl 64(%ebp)
        call puts
        addl $4, %esp
        SAY "\n"
        movl 20(%ebp), %edi
        movl 24(%ebp), %esi
        WORD "modules", %edi
1:      decl %edi
        js 2f
        SAY "module "
        pushl 8(%esi)
        call puts
        addl $4, %esp
        movl 4(%esi), %eax
        subl (%esi), %eax
        WORD " length", %eax
        movl (%esi), %eax
        andl $0xFFF, %eax
        WORD "  at page offset", %eax
        movl (%esi), %eax
        movl (%eax), %eax
        WORD "  begins with", %eax
        addl $16, %esi
        jmp 1b
2:      movl 48(%ebp), %esi
        movl %esi, %edi
        addl 44(%ebp), %edi
1:      cmpl %edi, %esi
        jae 2f
        SAY "map "
        pushl 4(%esi)
        call puthex
        SAY " "
        pushl 12(%esi)
        call puthex
        SAY " "
        pushl 20(%esi)
        call puthex
        addl $12, %esp
        SAY "\n"
        addl (%esi), %esi
        addl $4, %esi
        jmp 1b
        # the section that holds the sections' names begins with a zero byte, and names this file's .text
2:      testl $0x20, (%ebp)
        jz 3f
        movl 40(%ebp), %eax
        imull 32(%ebp), %eax
        addl 36(%ebp), %eax
        movl 12(%eax), %esi             # sh_addr
        movl 36(%ebp), %eax
        addl $40, %eax                  # section 1
        addl (%eax), %esi
        SAY "section 1 "
        pushl %esi
        call puts
        addl $4, %esp
        SAY "\n"
3:      SAY "done\n"
        xorl %eax, %eax
        outb %al, $0xF4
1:      hlt
        jmp 1b

puts:   pushal
        movl 36(%esp), %esi
        movl $0x3F8, %edx
1:      lodsb
        testb %al, %al
        jz 2f
        outb %al, %dx
        jmp 1b
2:      popal
        ret
puthex: pushal
        movl 36(%esp), %ebx
        movl $8, %ecx
        movl $0x3F8, %edx
1:      roll $4, %ebx
        movb %bl, %al
        andb $15, %al
        addb $'0', %al
        cmpb $'9', %al
        jbe 2f
        addb $7, %al
2:      outb %al, %dx
        loop 1b
        popal
        ret

        .data
got_eax: .long 0
got_eflags: .long 0
got_cr0: .long 0
        .bss
bss_word: .long 0
        .space 4096
stack:
