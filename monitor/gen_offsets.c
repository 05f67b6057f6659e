/* Prints struct offsets for stubs.S; compiled to assembly at build time, never linked. */
#include <stddef.h>
#include "monitor/stubs.h"
#define DEF(name, value) __asm__ volatile("\n.ascii \"->#define " #name " %0\"" : : "i"(value))
void gen_offsets(void);
void gen_offsets(void)
{
    DEF(CPU_GPR, offsetof(struct cpu, gpr));
    DEF(CPU_EIP_, offsetof(struct cpu, eip));
    DEF(CPU_ARITH_, offsetof(struct cpu, arith));
    DEF(CPU_FX, offsetof(struct cpu, fx));
    DEF(CPU_HOST_AVX, offsetof(struct cpu, host_avx));
    DEF(CPU_IBTC, offsetof(struct cpu, ibtc));
    DEF(CPU_IBTC_MASK, offsetof(struct cpu, ibtc_mask));
    DEF(CPU_HOST_RSP, offsetof(struct cpu, host_rsp));
    DEF(CPU_HOST_SHADOW, offsetof(struct cpu, host_shadow));
    DEF(CPU_HOST_WINDOW, offsetof(struct cpu, host_window));
    DEF(CPU_HOST_EVENT, offsetof(struct cpu, host_event));
    DEF(CPU_HOST_FX_LIVE, offsetof(struct cpu, host_fx_live));
    DEF(CPU_HOST_SELF, offsetof(struct cpu, host_self));
    DEF(CPU_STUB_LOOKUP, offsetof(struct cpu, stub) + 8 * XLAT_STUB_LOOKUP);
    DEF(CPU_SEG, offsetof(struct cpu, seg));
    DEF(CPU_SEG_SEL, offsetof(struct cpu, seg_sel));
    DEF(CPU_SEG_BASE, offsetof(struct cpu, seg_base));
    DEF(CPU_SEG_WINDOW, offsetof(struct cpu, seg_window));
#define MEMO(f) (offsetof(struct cpu, host_sreg) + offsetof(struct cpu_sreg_memo, f))
    DEF(SREG_SEL, MEMO(sel));
    DEF(SREG_LIN, MEMO(lin));
    DEF(SREG_RAW, MEMO(raw));
    DEF(SREG_WINDOW, MEMO(window));
    DEF(SREG_NUMBER, MEMO(seg_number));
    DEF(SREG_SEG, MEMO(seg));
    DEF(SREG_BASE, MEMO(seg.base));
    DEF(SREG_UNUSABLE, MEMO(seg.unusable));
    DEF(SREG_SIZE, sizeof(struct cpu_sreg_memo));
#undef MEMO
#define MEMO(f) (offsetof(struct cpu, host_cpuid) + offsetof(struct cpu_cpuid_memo, f))
    DEF(CPUID_LEAF, MEMO(leaf));
    DEF(CPUID_SUBLEAF, MEMO(subleaf));
    DEF(CPUID_INVALID, MEMO(invalid));
    DEF(CPUID_EAX, MEMO(eax));
    DEF(CPUID_ECX, MEMO(ecx));
    DEF(CPUID_EDX, MEMO(edx));
    DEF(CPUID_EBX, MEMO(ebx));
    DEF(CPUID_OF, offsetof(struct cpu, host_cpuid_of));
#undef MEMO
    DEF(CPU_HOST_FPU_ENV, offsetof(struct cpu, host_fpu_env));
    DEF(CPU_HOST_FPU_IP, offsetof(struct cpu, host_fpu_ip));
    DEF(CPU_HOST_FPU_DP, offsetof(struct cpu, host_fpu_dp));
    DEF(HOST_FLAGS, CPU_HOST_FLAGS);
    DEF(FLAG_DF, CPU_DF);
    DEF(EXIT_SREG, XLAT_STUB_SREG);
    DEF(EXIT_CPUID, XLAT_STUB_CPUID);
    DEF(EXIT_SYSENTER, XLAT_STUB_SYSENTER);
    DEF(EXIT_SYSEXIT, XLAT_STUB_SYSEXIT);
    DEF(EXIT_INT, XLAT_STUB_INT);
    DEF(EXIT_IRET, XLAT_STUB_IRET);
    DEF(EXIT_IN, XLAT_STUB_IN);
    DEF(EXIT_OUT, XLAT_STUB_OUT);
    DEF(EXIT_VOLATILE, XLAT_STUB_VOLATILE);
    DEF(EXIT_RUN, XLAT_STUB_RUN);
    DEF(EXIT_EMULATE, XLAT_STUB_EMULATE);
    DEF(EXIT_MISS, XLAT_STUB_MISS);
    DEF(EXIT_STI, XLAT_STUB_STI);
    DEF(EXIT_POLL, XLAT_STUB_POLL);
    DEF(EXIT_STEP, XLAT_STUB_STEP);
    DEF(EXIT_ABORTED, STUB_EXIT_ABORTED);
    DEF(EXIT_SIGNAL, STUB_EXIT_SIGNAL);
    DEF(EXIT_FAULT, STUB_EXIT_FAULT);
    DEF(GO_ON, STUB_GO_ON);
}
