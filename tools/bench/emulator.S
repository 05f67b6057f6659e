# emulator.S: straight code for the single-instruction emulator (emulator.sh): arithmetic, moves, memory, calls and branches, as compilers
# mix them. MODE 16: real mode; 32: flat protected mode; 33: the same with paging. LOOPS times about 140 instructions.
        .intel_syntax noprefix
        .set MB_MAGIC, 0x1BADB002
        .set TEXT, 0x10000
        .text
        .code32
        .globl _start
        .balign 4
base:   .long   MB_MAGIC, 0, -MB_MAGIC
_start: mov     esp, 0x7F000
        cld

        .macro body                     # at 16 and 32 bits alike
        mov     edi, 0x6000
        xor     eax, eax
        mov     ebx, 1
1:      mov     ecx, 8
2:      mov     eax, [edi]
        add     eax, ebx
        mov     [edi], eax
        lea     edx, [eax + ecx * 4]
        and     edx, 0xFFFF
        cmp     edx, 0x8000
        jae     3f
        inc     word ptr [edi + 4]
3:      movzx   edx, byte ptr [edi + 5]
        shl     edx, 3
        xor     ebx, edx
        push    ebx
        call    5f
        pop     ebx
        test    al, 1
        jz      4f
        sub     ebx, 7
4:      dec     ecx
        jnz     2b
        dec     esi
        jnz     1b
        jmp     6f
5:      add     dword ptr [edi + 8], 3
        ret
6:
        .endm

.if MODE == 16
        lgdt    gdtr
        ljmp    0x08, 1f - base
        .code16
1:      mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     eax, cr0
        and     al, 0xFE
        mov     cr0, eax
        ljmp    TEXT / 16, 1f - base
1:      xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esi, LOOPS
        body
        mov     al, 0
        out     0xF4, al
        hlt
        .balign 8
gdt:    .quad   0
        .quad   0x00009B010000FFFF      # 16-bit code at TEXT
        .quad   0x000093000000FFFF
gdtr:   .word   23
        .long   gdt
.else
.if MODE == 33
        mov     edi, 0x8000             # 4 MiB, one large page
        mov     dword ptr [edi], 0x83
        mov     eax, cr4
        or      al, 0x10
        mov     cr4, eax
        mov     cr3, edi
        mov     eax, cr0
        or      eax, 0x80000000
        mov     cr0, eax
.endif
        mov     esi, LOOPS
        body
        mov     al, 0
        out     0xF4, al
        hlt
.endif
        .section .note.GNU-stack, "", @progbits
