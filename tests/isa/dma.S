# dma.S: a device writes RAM: code that has run there is executed as it is now, on one page and across two, many times; data
# that was read is read anew. The device is fw_cfg, whose item 0 is the bytes "QEMU": PUSH ECX, INC EBP, DEC EBP, PUSH EBP.
        .include "common.inc"
        .set CODE, 0x410000
        .set ACROSS, 0x412FFE           # two of the bytes on the next page
        .set ACCESS, 0x420000           # control, length, address: big-endian
        .set DATA, 0x430000

        .data
old:    .byte 0x90, 0x90, 0xEB, 0x07    # to RET
tail:   popl %ebp
        popl %ecx
        movl $2, %eax
        ret
tail_end:

        .text
# The item's first four bytes to edi by DMA. eax: the control word afterwards.
dma:    movl $0x0A000000, ACCESS        # select item 0, read
        movl $0x04000000, ACCESS + 4
        movl $0, ACCESS + 8
        movl %edi, %eax
        bswap %eax
        movl %eax, ACCESS + 12
        movl $0x518, %edx
        movl $ACCESS, %eax
        bswap %eax
        outl %eax, %dx
        movl ACCESS, %eax
        ret
# Puts the old code at edi.
place:  movl old, %eax
        movl %eax, (%edi)
        movl $tail, %esi
        movl $(tail_end - tail), %ecx
1:      movb (%esi), %al
        movb %al, 4(%edi)
        incl %esi
        incl %edi
        loop 1b
        subl $(tail_end - tail), %edi
        ret
# Runs the code at edi; adds its answer to ebx.
run:    movl $1, %eax
        call *%edi
        addl %eax, %ebx
        ret

        .macro ROUNDS name, at
        xorl %ebx, %ebx
        movl $50, %ebp
3:      movl $\at, %edi
        call place
        call run
        call run
        call dma
        shll $8, %eax                   # an error would show
        addl %eax, %ebx
        call run
        call run
        decl %ebp
        jnz 3b
        CHECK "\name", %ebx, $(50 * 6)
        .endm

test_main:
        movl $0x518, %edx
        inl %dx, %eax
        CHECK "the register's signature", %eax, $0x47464320
        movl $0x11111111, DATA
        movl DATA, %eax
        CHECK "data before", %eax, $0x11111111
        movl $DATA, %edi
        call dma
        CHECK "no error", %eax, $0
        CHECK "data after", DATA, $0x554D4551
        ROUNDS "code on one page", CODE
        ROUNDS "code across two", ACROSS
        jmp finish
        .section .utext
utext_end:
