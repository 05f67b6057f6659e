/* monitor/stubs.S: the world switch. See stubs.h and translator/xlat.h for the register convention. */
#include "stub_offsets.h"

        .intel_syntax noprefix
        .text
        .p2align 6
        .globl stub_enter, stub_enter_begin, stub_enter_end, stub_enter_abort, stub_code_begin, stub_code_end
        .globl stub_emulate, stub_lookup_bmi2, stub_lookup_plain, stub_miss, stub_sti, stub_poll, stub_step
        .globl stub_retmiss, stub_signal, stub_fault, stub_exit_begin, stub_exit_end
stub_code_begin:

/* uint32_t stub_enter(struct cpu *cpu). A signal between the check of host_event and the first guest instruction must not be lost: the
 * handler sends a RIP in [stub_enter_begin, stub_enter_end) to stub_enter_abort, where everything but the x87/SSE state is still in cpu,
 * and that too unless host_fx_live says that it has not been there since the last exit. */
        .type stub_enter, @function
stub_enter:
        endbr64
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        sub     rsp, 8
        mov     r13, rdi
        mov     [r13 + CPU_HOST_RSP], rsp
stub_enter_begin:
        cmp     dword ptr [r13 + CPU_HOST_EVENT], 0
        jne     stub_enter_abort
        cmp     dword ptr [r13 + CPU_HOST_FX_LIVE], 0
        jne     1f
        fxrstor64 [r13 + CPU_FX]
1:      mov     r15, [r13 + CPU_HOST_WINDOW]
        mov     r12d, 1
        shl     r12, 32
        add     r12, r15
        mov     r8d, [r13 + CPU_EIP_]
        mov     r14d, [r13 + CPU_GPR + 16]
        mov     eax, [r13 + CPU_ARITH_]
        or      eax, 2
        push    rax
        popfq
        mov     rsp, [r13 + CPU_HOST_SHADOW]
        mov     eax, [r13 + CPU_GPR]
        mov     ecx, [r13 + CPU_GPR + 4]
        mov     edx, [r13 + CPU_GPR + 8]
        mov     ebx, [r13 + CPU_GPR + 12]
        mov     ebp, [r13 + CPU_GPR + 20]
        mov     esi, [r13 + CPU_GPR + 24]
        mov     edi, [r13 + CPU_GPR + 28]
        jmp     [r13 + CPU_STUB_LOOKUP]
stub_enter_end:

/* The bottom of the shadow stack: puts itself back and finds the target like any indirect branch. */
        .p2align 4
stub_retmiss:
        lea     rsp, [rsp - 8]
        jmp     [r13 + CPU_STUB_LOOKUP]

        .p2align 4
stub_lookup_bmi2:
        rorx    r9d, r8d, 4
        lea     r9d, [r9 + r8]
        pext    r9, r9, [r13 + CPU_IBTC_MASK]
        mov     r10, [r13 + CPU_IBTC]
        jmp     [r10 + r9 * 8]

/* Without BMI2: the same index, flags kept by hand. */
        .p2align 4
stub_lookup_plain:
        pushfq
        mov     r9d, r8d
        ror     r9d, 4
        add     r9d, r8d
        and     r9, [r13 + CPU_IBTC_MASK]
        mov     r10, [r13 + CPU_IBTC]
        popfq
        jmp     [r10 + r9 * 8]

/* The guest's registers to cpu; rsp to the run loop's stack. */
        .macro SAVE_GUEST
        mov     [r13 + CPU_HOST_SHADOW], rsp
        mov     rsp, [r13 + CPU_HOST_RSP]
        mov     [r13 + CPU_GPR], eax
        mov     [r13 + CPU_GPR + 4], ecx
        mov     [r13 + CPU_GPR + 8], edx
        mov     [r13 + CPU_GPR + 12], ebx
        mov     [r13 + CPU_GPR + 16], r14d
        mov     [r13 + CPU_GPR + 20], ebp
        mov     [r13 + CPU_GPR + 24], esi
        mov     [r13 + CPU_GPR + 28], edi
        mov     [r13 + CPU_EIP_], r8d
        pushfq
        pop     rax
        and     eax, HOST_FLAGS
        mov     [r13 + CPU_ARITH_], eax
        mov     dword ptr [r13 + CPU_HOST_FX_LIVE], 1
        .endm

        .p2align 4
stub_exit_begin:
stub_enter_abort:
        mov     eax, EXIT_ABORTED
        jmp     leave_fx
stub_miss:
        mov     r9d, EXIT_MISS
        jmp     leave
stub_poll:
        mov     r9d, EXIT_POLL
        jmp     leave
stub_step:
        mov     r9d, EXIT_STEP
        jmp     leave
stub_signal:
        mov     r9d, EXIT_SIGNAL
        jmp     leave
stub_fault:
        mov     r9d, EXIT_FAULT
leave:
        SAVE_GUEST
        mov     eax, r9d
leave_fx:
        cmp     dword ptr [r13 + CPU_HOST_FX_LIVE], 0
        je      1f
        fxsave64 [r13 + CPU_FX]
        mov     dword ptr [r13 + CPU_HOST_FX_LIVE], 0
1:      cld
        ldmxcsr default_mxcsr[rip]
        mov     rsp, [r13 + CPU_HOST_RSP]
        add     rsp, 8
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        ret

/* Light exits (light.h): the instruction is emulated with the guest's x87/SSE state left where it is. */
        .p2align 4
stub_sti:
        mov     r9d, EXIT_STI
        jmp     1f
stub_emulate:
        mov     r9d, EXIT_EMULATE
1:      SAVE_GUEST
        mov     rdi, [r13 + CPU_HOST_SELF]
        mov     esi, r9d
        cld
        call    light_emulate
        cmp     eax, GO_ON
        je      stub_enter_begin
        jmp     leave_fx
stub_exit_end:
stub_code_end:
        .p2align 2
default_mxcsr:
        .long 0x1f80
        .section .note.GNU-stack, "", @progbits
