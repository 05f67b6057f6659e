/* tests/fuzz/guest.S: what a fuzzed guest has for a kernel: it writes each exception down and goes on with the next chunk of the case.
 *
 * Placed at LAY_HANDLER. Entry points: fuzz_guest_vectors + 16 * vector for vectors 0 to 32 (32: all above), fuzz_guest_df (the
 * double-fault task), fuzz_guest_go (start). A record of the log: registers as pushed, vector, error code, EIP, CS, EFLAGS, and two
 * words above them (ESP and SS if the level changed), then CR2, CR0 and DR6.
 */
#include "layout.h"

        .section .rodata
        .globl fuzz_guest, fuzz_guest_end, fuzz_guest_df, fuzz_guest_go
        .balign 16
        .code32
        .intel_syntax noprefix
fuzz_guest:
        .set    BASE, fuzz_guest
fuzz_guest_vectors:
        .set    vector, 0
        .rept   33
        .balign 16
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
        push    0
        .endif
        push    vector
        jmp     common
        .set    vector, vector + 1
        .endr
        .balign 16

fuzz_guest_df:                          /* a task of its own: takes the processor back, whatever the stack was */
        push    99
        call    log_all
        mov     byte ptr ds:[LAY_GDT + SEL_TSS + 5], 0x89
        mov     eax, SEL_TSS
        ltr     ax
        push    2
        popfd
        mov     word ptr ds:[LAY_GDT + SEL_TSS_DF + 4], 0x8900 + (LAY_TSS_DF >> 16)
        mov     dword ptr ds:[LAY_TSS_DF + 0x20], offset fuzz_guest_df - BASE + LAY_HANDLER
        mov     dword ptr ds:[LAY_TSS_DF + 0x38], LAY_KSTACK - 0x800
        mov     dword ptr ds:[LAY_TSS_DF + 0x24], 2
fuzz_guest_go:
        mov     ebx, ds:[LAY_VAR_NEXT]
        cmp     ebx, ds:[LAY_VAR_LAST]
        jae     finish
        add     dword ptr ds:[LAY_VAR_NEXT], LAY_FRAME
        mov     eax, SEL_DATA0
        mov     ss, eax
        mov     esp, ebx
        pop     gs
        pop     fs
        pop     es
        pop     ds
        popad
        iretd

common:
        pushad
        push    ds
        push    es
        push    fs
        push    gs
        mov     eax, SEL_DATA0
        mov     ds, eax
        mov     es, eax
        call    log_all
        jmp     fuzz_guest_go

log_all:                                /* 4 + 8 + 7 words above the return address */
        cld
        mov     edi, ds:[LAY_VAR_LOG]
        cmp     edi, LAY_LOG_END - LAY_RECORD
        ja      finish
        lea     esi, [esp + 4]
        mov     ecx, 19
        rep     movsd es:[edi], ss:[esi]
        mov     eax, cr2
        stosd
        mov     eax, cr0
        stosd
        mov     eax, dr6
        stosd
        add     edi, LAY_RECORD - 4 * 22
        mov     ds:[LAY_VAR_LOG], edi
        ret

finish:
        mov     al, 2
        out     0xF4, al
        cli
        hlt
        jmp     finish
fuzz_guest_end:
        .att_syntax
        .code64
        .section .note.GNU-stack, "", @progbits
