/* monitor/stubs.S: the world switch. See stubs.h and translator/xlat.h for the register convention. */
#include "stub_offsets.h"

        .intel_syntax noprefix
        .text
        .p2align 6
        .globl stub_enter, stub_enter_begin, stub_enter_end, stub_enter_abort, stub_code_begin, stub_code_end
        .globl stub_emulate, stub_lookup_bmi2, stub_lookup_plain, stub_miss, stub_sti, stub_poll, stub_step
        .globl stub_sreg, stub_sreg_load, stub_sreg_miss, stub_cpuid, stub_sysenter, stub_sysexit, stub_int, stub_iret, stub_in, stub_out, stub_volatile, stub_run
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
        /* What a library's AVX code left in the upper halves makes the guest's SSE code depend on them: up to five times slower (Zen 4). */
        cmp     dword ptr [r13 + CPU_HOST_AVX], 0
        je      1f
        vzeroupper
1:      mov     r15, [r13 + CPU_HOST_WINDOW]
        mov     r12d, 1
        shl     r12, 32
        add     r12, r15
        mov     r8d, [r13 + CPU_EIP_]
        mov     r14d, [r13 + CPU_GPR + 16]
        mov     eax, [r13 + CPU_ARITH_]
        test    eax, FLAG_DF
        jnz     2f
        mov     ecx, eax /* POPF takes twenty cycles: OF by an overflow of 1 + 127, the rest by SAHF */
        mov     ah, al
        shr     ecx, 11
        add     cl, 127
        sahf
3:      mov     rsp, [r13 + CPU_HOST_SHADOW]
        mov     eax, [r13 + CPU_GPR]
        mov     ecx, [r13 + CPU_GPR + 4]
        mov     edx, [r13 + CPU_GPR + 8]
        mov     ebx, [r13 + CPU_GPR + 12]
        mov     ebp, [r13 + CPU_GPR + 20]
        mov     esi, [r13 + CPU_GPR + 24]
        mov     edi, [r13 + CPU_GPR + 28]
        jmp     [r13 + CPU_STUB_LOOKUP]
2:      push    rax
        popfq
        jmp     3b
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

/* Stubs that translated code calls. Nothing here changes flags; a signal lets it run on. */

/* MOV to or POP into a segment register at CPL 0: the same selector, whose descriptor reads the same, comes to the same. */
        .p2align 4
stub_sreg:
        mov     r11, rcx
        mov     ecx, [r13 + r10 + SREG_SEL]
        not     ecx
        lea     ecx, [rcx + r9 + 1]
        jrcxz   1f
        lea     r10, [r10 + SREG_SIZE]
        mov     ecx, [r13 + r10 + SREG_SEL]
        not     ecx
        lea     ecx, [rcx + r9 + 1]
        jrcxz   1f
stub_sreg_miss:
        mov     rcx, r11
        lea     rsp, [rsp + 8]
        mov     r9d, EXIT_SREG
        jmp     light
1:      mov     ecx, [r13 + r10 + SREG_UNUSABLE]
        jrcxz   2f
        /* A null selector leaves the hidden part as it is. */
        mov     r9d, [r13 + r10 + SREG_NUMBER]
        mov     rcx, [r13 + r10 + SREG_WINDOW]
        mov     [r13 + r9 * 8 + CPU_SEG_WINDOW], rcx
        mov     ecx, [r13 + r10 + SREG_SEL]
        mov     [r13 + r9 * 4 + CPU_SEG_SEL], ecx
        lea     r9d, [r9 + r9]
        mov     [r13 + r9 * 8 + CPU_SEG + 8], cx
        mov     dword ptr [r13 + r9 * 8 + CPU_SEG + 12], 1
        mov     rcx, r11
        ret
2:      mov     r9d, [r13 + r10 + SREG_LIN]
stub_sreg_load:
        mov     rcx, [r15 + r9]
        mov     r9, [r13 + r10 + SREG_RAW]
        not     rcx
        lea     rcx, [rcx + r9 + 1]
        jrcxz   3f
        jmp     stub_sreg_miss
3:      mov     r9d, [r13 + r10 + SREG_NUMBER]
        mov     ecx, [r13 + r10 + SREG_BASE]
        mov     [r13 + r9 * 8 + CPU_SEG_BASE], rcx
        mov     rcx, [r13 + r10 + SREG_WINDOW]
        mov     [r13 + r9 * 8 + CPU_SEG_WINDOW], rcx
        mov     ecx, [r13 + r10 + SREG_SEL]
        mov     [r13 + r9 * 4 + CPU_SEG_SEL], ecx
        lea     r9d, [r9 + r9]
        mov     rcx, [r13 + r10 + SREG_SEG]
        mov     [r13 + r9 * 8 + CPU_SEG], rcx
        mov     rcx, [r13 + r10 + SREG_SEG + 8]
        mov     [r13 + r9 * 8 + CPU_SEG + 8], rcx
        mov     rcx, r11
        ret

        .p2align 4
stub_cpuid:
        mov     r11, rcx
        movzx   r9d, al
        movzx   r9d, byte ptr [r13 + r9 + CPUID_OF]
        lea     r9d, [r9 * 8]
        lea     r9d, [r9 * 4]
        mov     ecx, [r13 + r9 + CPUID_LEAF]
        not     ecx
        lea     ecx, [rcx + rax + 1]
        jrcxz   1f
        jmp     2f
1:      mov     ecx, [r13 + r9 + CPUID_SUBLEAF]
        not     ecx
        lea     ecx, [rcx + r11 + 1]
        jrcxz   1f
        jmp     2f
1:      mov     ecx, [r13 + r9 + CPUID_INVALID]
        jrcxz   1f
2:      mov     rcx, r11
        lea     rsp, [rsp + 8]
        mov     r9d, EXIT_CPUID
        jmp     light
1:      mov     eax, [r13 + r9 + CPUID_EAX]
        mov     ebx, [r13 + r9 + CPUID_EBX]
        mov     ecx, [r13 + r9 + CPUID_ECX]
        mov     edx, [r13 + r9 + CPUID_EDX]
        ret

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
        fxsave64 [r13 + CPU_FX] /* as cpu_fx_save() does, vm.h */
        mov     dword ptr [r13 + CPU_HOST_FX_LIVE], 0
        fnstenv [r13 + CPU_HOST_FPU_ENV]
        fninit
        mov     qword ptr [r13 + CPU_FX + 8], 0
        mov     qword ptr [r13 + CPU_FX + 16], 0
        mov     ecx, [r13 + CPU_HOST_FPU_ENV + 12]
        test    ecx, ecx
        je      1f
        mov     [r13 + CPU_HOST_FPU_IP], ecx
        mov     ecx, [r13 + CPU_HOST_FPU_ENV + 20]
        test    ecx, ecx
        je      1f
        mov     [r13 + CPU_HOST_FPU_DP], ecx
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
        .macro LIGHT name, why
\name:  mov     r9d, \why
        jmp     light
        .endm
        LIGHT   stub_sti, EXIT_STI
        LIGHT   stub_sysenter, EXIT_SYSENTER
        LIGHT   stub_sysexit, EXIT_SYSEXIT
        LIGHT   stub_int, EXIT_INT
        LIGHT   stub_iret, EXIT_IRET
        LIGHT   stub_in, EXIT_IN
        LIGHT   stub_out, EXIT_OUT
        LIGHT   stub_volatile, EXIT_VOLATILE
        LIGHT   stub_run, EXIT_RUN
stub_emulate:
        mov     r9d, EXIT_EMULATE
light:  SAVE_GUEST
        mov     rdi, [r13 + CPU_HOST_SELF]
        mov     esi, r9d
        mov     edx, r10d
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
