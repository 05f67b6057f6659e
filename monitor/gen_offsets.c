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
    DEF(CPU_IBTC, offsetof(struct cpu, ibtc));
    DEF(CPU_IBTC_MASK, offsetof(struct cpu, ibtc_mask));
    DEF(CPU_HOST_RSP, offsetof(struct cpu, host_rsp));
    DEF(CPU_HOST_SHADOW, offsetof(struct cpu, host_shadow));
    DEF(CPU_HOST_WINDOW, offsetof(struct cpu, host_window));
    DEF(CPU_HOST_EVENT, offsetof(struct cpu, host_event));
    DEF(CPU_HOST_FX_LIVE, offsetof(struct cpu, host_fx_live));
    DEF(CPU_HOST_SELF, offsetof(struct cpu, host_self));
    DEF(CPU_STUB_LOOKUP, offsetof(struct cpu, stub) + 8 * XLAT_STUB_LOOKUP);
    DEF(HOST_FLAGS, CPU_HOST_FLAGS);
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
