/* The guest of test_lockstep.c: loaded at 100000h, started by its 32-bit entry. Labels lockstep_* are what the suite changes the
 * translation of. */
        .intel_syntax noprefix
        .section .rodata
        .globl lockstep_guest, lockstep_guest_end
        .macro mark name
        .globl lockstep_\name
lockstep_\name:
        .endm
        .code32
        .p2align 12
lockstep_guest:
        mov     esp, 0x180000
        mov     ebp, 0x1F0000           /* data; one dword that is zero, one that is not */
        mov     dword ptr [ebp + 0x10], 0
        mov     dword ptr [ebp + 0x14], 0x0BADCAFE
        mov     eax, 0x200              /* CR4.OSFXSR: without it x87 code is not translated */
        mov     cr4, eax
        fninit
mark register
        mov     ebx, 0x12345678
mark flags
        cmp     ebx, 0x12345678
mark branch
        jmp     1f
        nop
1:
mark memory
        mov     dword ptr [ebp + 8], 0x12345678
mark stray
        mov     dword ptr [ebp + 0x10], 0
mark cli
        cli
mark x87
        fld1
        fstp    st(0)
        /* As long a run as any: more stores than are noted one by one */
        cld
        mov     edi, 0x200000
        mov     ecx, 0x10000
        mov     eax, 0x5A5A5A5A
mark string
        rep     stosd
        mov     esi, 0x240000 - 4
        mov     edi, 0x280000 - 4
        mov     ecx, 0x9000
        std
        rep     movsd
        cld
        mov     esi, 0x200000
        mov     edi, 0x25C000
        mov     ecx, 0x100
        repe    cmpsd
        pusha
        popa
        enter   16, 3
        leave
        call    2f
mark loops
        mov     edx, 3
3:      mov     ecx, 200000             /* so long that stretches spread over it */
4:      lea     eax, [eax + ecx * 4]
        xor     [ebp + 12], eax
        push    eax
        pop     dword ptr [ebp + 0x18]
        loop    4b
        dec     edx
        jnz     3b
        mov     al, 0
        out     0xF4, al
        hlt
2:
mark ret
        ret
lockstep_guest_end:
        .section .note.GNU-stack, "", @progbits
