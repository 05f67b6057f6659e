/* translator/cpu.h: the state of one guest vCPU, as translated code, emulator and monitor share it.
 *
 * Translated code reaches the fields of the first part through r13 (see xlat.h); their offsets are part of XLAT_VERSION.
 * Plain data, no pointers to guest memory: a snapshot is a copy of it (host_* fields excepted).
 */
#ifndef VERSO_TRANSLATOR_CPU_H
#define VERSO_TRANSLATOR_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* General registers, in the order of the architecture. */
enum { CPU_EAX, CPU_ECX, CPU_EDX, CPU_EBX, CPU_ESP, CPU_EBP, CPU_ESI, CPU_EDI };

/* EFLAGS (SDM vol. 1, 3.4.3). */
enum {
    CPU_CF = 1u << 0, CPU_FLAG1 = 1u << 1, CPU_PF = 1u << 2, CPU_AF = 1u << 4, CPU_ZF = 1u << 6, CPU_SF = 1u << 7,
    CPU_TF = 1u << 8, CPU_IF = 1u << 9, CPU_DF = 1u << 10, CPU_OF = 1u << 11, CPU_IOPL = 3u << 12, CPU_NT = 1u << 14,
    CPU_RF = 1u << 16, CPU_VM = 1u << 17, CPU_AC = 1u << 18, CPU_VIF = 1u << 19, CPU_VIP = 1u << 20, CPU_ID = 1u << 21,
};
#define CPU_ARITH    (CPU_CF | CPU_PF | CPU_AF | CPU_ZF | CPU_SF | CPU_OF)
#define CPU_HOST_FLAGS (CPU_ARITH | CPU_DF) /* held in the host's RFLAGS while translated code runs */

enum {
    CPU_CR0_PE = 1u << 0, CPU_CR0_MP = 1u << 1, CPU_CR0_EM = 1u << 2, CPU_CR0_TS = 1u << 3, CPU_CR0_ET = 1u << 4,
    CPU_CR0_NE = 1u << 5, CPU_CR0_WP = 1u << 16, CPU_CR0_AM = 1u << 18, CPU_CR0_NW = 1u << 29, CPU_CR0_CD = 1u << 30,
    CPU_CR0_PG = 1u << 31,
};
enum {
    CPU_CR4_VME = 1u << 0, CPU_CR4_PVI = 1u << 1, CPU_CR4_TSD = 1u << 2, CPU_CR4_DE = 1u << 3, CPU_CR4_PSE = 1u << 4,
    CPU_CR4_PAE = 1u << 5, CPU_CR4_MCE = 1u << 6, CPU_CR4_PGE = 1u << 7, CPU_CR4_PCE = 1u << 8, CPU_CR4_OSFXSR = 1u << 9,
    CPU_CR4_OSXMMEXCPT = 1u << 10, CPU_CR4_UMIP = 1u << 11, CPU_CR4_SMAP = 1u << 21,
};
#define CPU_EFER_NXE (1u << 11)

/* Features that can be added to the CPU model, with their bit of CPUID: CPU_FEATURE(id, "name", leaf, register, bit, meaning); register 0 to 3
 * is EAX, EBX, ECX, EDX. None of them changes what is translated: the instructions and checks they bring are the emulator's and the MMU's. */
#define CPU_FEATURES(X) \
    X(UMIP, "umip", 7, 2, 2, "CR4.UMIP: SGDT, SIDT, SLDT, SMSW, STR only at CPL 0") \
    X(SMAP, "smap", 7, 1, 20, "CR4.SMAP, CLAC, STAC: the supervisor kept from user pages") \
    X(RDTSCP, "rdtscp", 0x80000001u, 3, 27, "RDTSCP, IA32_TSC_AUX") \
    X(CLFLUSHOPT, "clflushopt", 7, 1, 23, "CLFLUSHOPT") \
    X(CLWB, "clwb", 7, 1, 24, "CLWB") \
    X(PCOMMIT, "pcommit", 7, 1, 22, "PCOMMIT (no processor was sold with it)")
enum cpu_feature {
#define X(id, name, leaf, reg, bit, text) CPU_FEATURE_##id,
    CPU_FEATURES(X)
#undef X
    CPU_FEATURE_COUNT
};
static inline bool cpu_feature_in(uint32_t features, enum cpu_feature f)
{
    return features >> f & 1;
}

/* Exception vectors. */
enum {
    CPU_EXC_DE, CPU_EXC_DB, CPU_EXC_NMI, CPU_EXC_BP, CPU_EXC_OF, CPU_EXC_BR, CPU_EXC_UD, CPU_EXC_NM, CPU_EXC_DF, CPU_EXC_CSO,
    CPU_EXC_TS, CPU_EXC_NP, CPU_EXC_SS, CPU_EXC_GP, CPU_EXC_PF, CPU_EXC_MF = 16, CPU_EXC_AC, CPU_EXC_MC, CPU_EXC_XM,
};

/* Hidden part of a segment register. attr holds descriptor bits 40..55 with the limit bits (48..51) zero:
 * bits 0..3 type, 4 S, 5..6 DPL, 7 P, 12 AVL, 14 D/B, 15 G (that of the VMX access rights). */
struct cpu_seg {
    uint32_t base, limit; /* limit in bytes, granularity applied */
    uint16_t sel;
    uint16_t attr;
    uint32_t unusable; /* 1: null selector or never loaded; any use through it raises #GP (#SS for SS) */
};

struct cpu_table {
    uint32_t base;
    uint16_t limit;
};

/* Indexes of cpu.stub[]: host entry points that translated code jumps to with `jmp/call [r13 + XLAT_OFF_STUB(n)]`.
 * XLAT_STUB(id, meaning); in every case r8d is a guest EIP and the guest registers and flags are intact. Those from SREG on may do what
 * EMULATE does: they only say beforehand which instruction it is. Those that are called come back when the instruction is done,
 * and otherwise drop the return address. */
#define XLAT_STUBS(X) \
    X(EMULATE, "r8d: the instruction to be run by the single-instruction emulator") \
    X(LOOKUP, "r8d: branch target outside this page (or computed): indirect-branch table, else monitor") \
    X(MISS, "r8d: branch target not found in the indirect-branch table, or that failed its check") \
    X(RESCAN, "r8d: target inside this page that the verso has no code for") \
    X(STRADDLE, "r8d: an instruction that runs into the next page") \
    X(STI, "r8d: the instruction after STI (interrupt shadow), with an interrupt pending") \
    X(POLL, "r8d: next instruction; IF has been set with an interrupt pending and no shadow (POPF)") \
    X(STEP, "r8d: next instruction (only code made with XLAT_OPT_STEP)") \
    X(SREG, "called; CPL 0: r8d: MOV to or POP into ES, DS, FS or GS; r9d: selector; r10d: segment number * CPU_MEMO_STRIDE") \
    X(CPUID, "called; r8d: CPUID") \
    X(SYSENTER, "r8d: SYSENTER") \
    X(SYSEXIT, "r8d: SYSEXIT, r10d: 0; or STI in front of SYSEXIT, r10d: 1") \
    X(INT, "r8d: INT n; r10d: vector") \
    X(IRET, "r8d: IRETD, CPL 0") \
    X(IN, "r8d: IN, CPL 0; r10d: XLAT_PORT_*") \
    X(OUT, "r8d: OUT, CPL 0; r10d: XLAT_PORT_*") \
    X(VOLATILE, "CPL 0; r8d: an instruction whose operand lies in a page that volatile_page[] has; r10d: the page's number") \
    X(RUN, "r8d: an instruction in a page that is not translated at present, since it is written too often; r10d: number of the page. The monitor's thunks only, never a verso")
enum xlat_stub {
#define X(id, text) XLAT_STUB_##id,
    XLAT_STUBS(X)
#undef X
    XLAT_STUB_COUNT,
    XLAT_STUB_OF_VERSOS = XLAT_STUB_RUN, /* those from here on are not for versos */
};
static inline bool xlat_stub_emulates(uint32_t s)
{
    return s == XLAT_STUB_EMULATE || (s >= XLAT_STUB_SREG && s < XLAT_STUB_COUNT);
}
/* Operand of the IN and OUT stubs: bits 0..15 the port, unless in DX; bits 16..18 the size in bytes; bits 24.. the length. */
#define XLAT_PORT_DX     (1u << 19)
#define XLAT_PORT(p)     ((p) & 0xFFFFu)
#define XLAT_PORT_SIZE(a) ((a) >> 16 & 7)
#define XLAT_PORT_LEN(a) ((a) >> 24)

#define CPU_VOLATILE 64u /* places in volatile_page[], by the low bits of a page's number */
#define CPU_NO_PAGE  1u  /* the sum with a page's number is never 0 */

struct cpu {
    /* -- Part 1: reached by translated code through r13. ------------------------------------------------------ */
    uint64_t ibtc;           /* host address of the current indirect-branch table: uint64_t[ibtc_mask+1] of host addresses */
    uint64_t ibtc_mask;      /* for pext: a low-bit mask; index = (eip + ror32(eip, 4)) & mask */
    uint32_t vif;            /* CPU_IF or 0: the virtual IF. Authoritative at all times */
    uint32_t irq_pending;    /* nonzero: the monitor wants control as soon as vif is set */
    uint32_t eflags_sys;     /* EFLAGS without CPU_HOST_FLAGS and without IF; bit 1 set. Authoritative at all times */
    uint32_t pad0;
    uint64_t mask_host_flags; /* constant CPU_HOST_FLAGS, for pext/pdep */
    uint64_t mask_if;         /* constant CPU_IF */
    uint64_t stub[20];       /* host addresses, by enum xlat_stub. What stands in front of them is reached with short displacements */
    uint64_t seg_base[6];    /* zero-extended bases, by segment number, for accesses through FS and GS */
    uint64_t seg_window[6];  /* host base to use with them: the window, or a PROT_NONE window when the segment is unusable or
                                not writable data of limit FFFFFFFFh (the fault handler then emulates) */
    uint64_t mask_chunk;     /* constant: the bits of a linear address that index user_window[] */
    uint64_t user_window[32]; /* for instructions of CPL 0 that reach user memory, by 128 MiB of linear space: the host base to
                                use, of the supervisor's window, the user window of the present CR3, or a PROT_NONE one */
    uint64_t mask_page;      /* constant: the bits of a linear address that are its page's number */
    uint64_t mask_volatile;  /* constant: those that index volatile_page[] */
    uint32_t volatile_page[CPU_VOLATILE]; /* for instructions of CPL 0 that meet temporary mappings (XLAT_HINT_VOLATILE): 0 less the number
                                of a linear page whose accesses go to the emulator, or CPU_NO_PAGE */
    uint32_t seg_sel[6];     /* selectors, for MOV/PUSH from Sreg; kept equal to seg[].sel */
    uint32_t scratch[6];     /* monitor's and stubs' own */

    /* -- Part 2: the architectural state outside translated code. --------------------------------------------- */
    uint32_t gpr[8];
    uint32_t eip;
    uint32_t arith;          /* CPU_HOST_FLAGS bits of EFLAGS */
    struct cpu_seg seg[6];
    struct cpu_seg ldtr, tr;
    struct cpu_table gdtr, idtr;
    uint32_t cr0, cr2, cr3, cr4;
    uint32_t dr[8];
    uint64_t pdpte[4];       /* loaded with CR3 in PAE mode (SDM vol. 3, 4.4.1) */
    uint32_t cpl;            /* 0..3 */
    uint32_t a20_mask;       /* FFFFFFFFh or FFEFFFFFh */
    uint32_t shadow;         /* interrupt shadow: CPU_SHADOW_* */
    uint32_t nmi_blocked;    /* from an NMI's delivery to the next IRET (SDM vol. 3, 6.7.1) */
    uint32_t nmi_pending;    /* one more NMI waits */
    uint32_t halted;
    uint64_t tsc_hz;         /* of the time-stamp counter, for CPUID leaves 15h and 16h; 0: not told */
    uint32_t tsc_invariant;  /* it runs at that rate whatever the processor sleeps: told, and IA32_TSC_ADJUST is there */
    uint32_t tsc_pad;
    uint32_t features;       /* CPU_FEATURE_*: what the model has beyond itself */
    uint32_t tsc_aux;        /* what RDTSCP returns in ECX */
    uint64_t efer, apic_base, pat, misc_enable, tsc_offset, bios_sign;
    uint32_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t mtrr[32];       /* monitor's own numbering */
    uint8_t fx[512] __attribute__((aligned(64))); /* FXSAVE64 image of x87/MMX/XMM0-7; outdated while host_fx_live. Its instruction
                                and data pointers are zero: they are in x87, once host_fpu_ip has been looked at */
    struct cpu_x87 {         /* last x87 instruction that was no control instruction: offsets and selectors (SDM vol. 1, 8.1.8) */
        uint32_t ip, dp;
        uint16_t cs, ds, op;
    } x87;
    uint32_t ferr;           /* the FERR# pin is asserted: an x87 error with CR0.NE clear */

    /* -- Part 3: the host's side of the world switch (monitor/stubs.S). Not guest state. ------------------------ */
    uint64_t host_rsp;       /* stack pointer of the run loop while translated code runs */
    uint64_t host_shadow;    /* stack pointer of translated code while the run loop runs */
    uint64_t host_window;    /* r15 to enter with */
    uint64_t host_self;      /* what light exits are called with (monitor/light.h) */
    /* Lockstep and a debugger's stops take time that the guest must not see: its counter stands at host_tsc_at while host_tsc_stopped, and
     * otherwise lags behind the host's by host_tsc_lost. */
    uint64_t host_tsc_at, host_tsc_lost;
    uint32_t host_tsc_stopped;
    uint32_t host_event;     /* set by signal handlers: do not enter, look at the world first */
    uint32_t host_avx;       /* the host has AVX: upper halves of vector registers are cleared on the way in */
    uint32_t host_fx_live;   /* the guest's x87/MMX/SSE state is in the host's registers, newer than fx[] */
    uint8_t host_fpu_env[28]; /* FNSTENV when it was last saved */
    uint32_t host_fpu_ip, host_fpu_dp; /* low halves of the host addresses of the last x87 instruction run by translated code and of its
                                operand, 0 if none since x87 was last brought up to date (emu_x87_settle()) */
    struct cpu_fpu_segments { /* what it used, by CPL 0 and 3: the segments with which translated code was last entered */
        uint32_t sel[6], base[2]; /* base: of FS and GS */
    } host_fpu_seg[2];
    /* What loading a segment register at CPL 0 and CPUID came to lately (monitor/light.c): the stubs repeat it. */
    struct cpu_sreg_memo {
        uint32_t sel;        /* UINT32_MAX: none */
        uint32_t lin;        /* linear address of its descriptor, */
        uint64_t raw;        /* which had this value; not looked at if seg.unusable */
        uint64_t window;     /* for seg_window[] */
        uint32_t seg_number, pad;
        struct cpu_seg seg;
    } host_sreg[6][2];
    struct cpu_table host_sreg_gdtr, host_sreg_ldtr; /* while these are the tables */
    struct cpu_cpuid_memo {
        uint32_t leaf, subleaf, invalid, eax, ecx, edx, ebx, pad;
    } host_cpuid[8];
    uint8_t host_cpuid_of[256]; /* by the low byte of the leaf: index into host_cpuid[] */
    uint64_t host_cpuid_key[3];  /* while what CPUID depends on is this */
};
#define CPU_MEMO_STRIDE ((uint32_t)(2 * sizeof(struct cpu_sreg_memo)))
#define CPU_CHUNK_SHIFT 27
#define CPU_CHUNKS      32u
enum { CPU_SHADOW_STI = 1, CPU_SHADOW_MOVSS = 2 };

/* EFLAGS as the guest sees it. */
static inline uint32_t cpu_eflags(const struct cpu *c)
{
    return c->eflags_sys | c->vif | c->arith;
}
/* Stores all of EFLAGS (reserved bits forced as the architecture has them). No privilege checks. */
static inline void cpu_set_eflags(struct cpu *c, uint32_t f)
{
    c->arith = f & CPU_HOST_FLAGS;
    c->vif = f & CPU_IF;
    c->eflags_sys = (f & (CPU_TF | CPU_IOPL | CPU_NT | CPU_RF | CPU_VM | CPU_AC | CPU_VIF | CPU_VIP | CPU_ID)) | CPU_FLAG1;
}

#endif
