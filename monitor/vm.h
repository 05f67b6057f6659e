/* monitor/vm.h: one virtual machine: guest RAM, one vCPU, its bus. Shared by emulator, MMU, windows and run loop. */
#ifndef VERSO_MONITOR_VM_H
#define VERSO_MONITOR_VM_H

#include "devices/bus.h"
#include "monitor/run.h"
#include "monitor/trace.h"
#include "translator/cpu.h"

/* Guest-physical and guest-linear addresses: distinct types, never plain integers. */
typedef struct { uint64_t v; } gpa_t;
typedef struct { uint32_t v; } gva_t;
static inline gpa_t gpa(uint64_t v) { return (gpa_t){v}; }
static inline gva_t gva(uint32_t v) { return (gva_t){v}; }

#define PAGE_SIZE_  4096u
#define PAGE_MASK_  0xFFFu

struct vm;
struct scan_insn;

/* Before anything that may use the host's x87, MMX or SSE registers (see light.h). Cheap when it has been done.
 * The last instruction and data pointers are taken from FNSTENV, since FXSAVE leaves them out on some processors
 * (AMD APM vol. 2, 11.4.4), and cleared by FNINIT, so that they show what runs from now on. */
static inline void cpu_fx_save(struct cpu *c)
{
    static const uint32_t mxcsr = 0x1F80;
    uint32_t ip, dp;
    if (__builtin_expect(!c->host_fx_live, 1))
        return;
    __asm__ volatile("fxsave64 %0\n\tfnstenv %1\n\tfninit\n\tldmxcsr %2"
                     : "=m"(c->fx), "=m"(c->host_fpu_env)
                     : "m"(mxcsr));
    c->host_fx_live = 0;
    for (unsigned i = 8; i < 24; i++)
        ((volatile uint8_t *)c->fx)[i] = 0;
    __builtin_memcpy(&ip, c->host_fpu_env + 12, 4);
    __builtin_memcpy(&dp, c->host_fpu_env + 20, 4);
    if (ip)
        c->host_fpu_ip = ip;
    if (ip && dp)
        c->host_fpu_dp = dp;
}

/* IRET ends the blocking of NMIs (SDM vol. 3, 6.7.1); one that waits is taken before the next instruction. */
static inline void cpu_unblock_nmi(struct cpu *c)
{
    c->nmi_blocked = 0;
    if (c->nmi_pending)
        c->host_event = 1;
}

/* The emulator's translation cache, direct-mapped by linear page; one array for supervisor, one for user accesses. */
#define TLB_SIZE 1024u
struct tlb_entry {
    uint32_t read_tag, write_tag, exec_tag; /* linear page number << 12 | 1 when valid for that access, else 0 */
    uint32_t pad;
    uint8_t *hva; /* host address of the page in the flat view of guest RAM */
};

/* Frames: the pages of memory that a machine has. Those of RAM have the number of their guest-physical page; behind them come those of the
 * ROM, which guests reach at the end of the 4 GiB and, the last 128 KiB of it, below 1 MiB. There the chipset decides for reads and writes
 * apart whether they reach RAM or what is on the bus: the ROM, or nothing (82441FX data sheet, 3.2.18: PAM registers). */
#define VM_NO_FRAME    UINT32_MAX
#define VM_HOLE        0xA0000u  /* video memory up to here + 128 KiB */
#define VM_SHADOW      0xC0000u
#define VM_SHADOW_UNIT 0x4000u
#define VM_SHADOW_UNITS 16u
#define VM_SHADOW_ROM  0x20000u
enum { VM_HIDDEN_READ = 1, VM_HIDDEN_WRITE = 2 }; /* such accesses go past the RAM */

struct vm {
    struct cpu *cpu;       /* 64-byte aligned; r13 of translated code */
    struct dev_bus *bus;
    uint8_t *ram;          /* flat read/write view of all frames: hva = ram + frame * 4096; of RAM: ram + gpa */
    uint64_t ram_bytes;
    uint64_t apic_page;    /* guest-physical page of RAM that the local APIC hides, with bit 0 set; or 0 */
    uint64_t rom_bytes;    /* of the ROM that ends at 4 GiB; its frames follow those of RAM */
    uint8_t hidden[VM_SHADOW_UNITS]; /* VM_HIDDEN_*, from C0000h in units of 16 KiB */
    uint8_t *code_pages;   /* one byte per frame: nonzero if a verso was made from it: stores there must call vm_code_written() first */
    struct tlb_entry tlb[2][TLB_SIZE]; /* [0] supervisor, [1] user */
    uint64_t tlb_large[16];            /* bit per 4 MiB of linear space: the TLB holds pieces of a large page there (mmu.c, emu_mem.c) */
    uint32_t tlb_filled;               /* entries filled since the last flush; their indexes if they are few */
    uint16_t tlb_index[64];
    /* Lockstep only (lockstep.h): while a stretch is compared, the emulator has copies of its own of the pages that translated code may
     * write. NULL otherwise. */
    uint8_t *mirror;       /* as ram; only frames with mirrored[] set mean anything */
    uint8_t *mirrored;     /* by frame */
    bool mirror_log;       /* stores go to the copy alone and are noted: the instruction is being compared. Otherwise to both */
    bool x87_blind;        /* x87 pointers read as zero: what hosts keep of them depends on when they interrupt (deterministic runs) */
    void *run;             /* the run loop's own (monitor/run.c) */
    volatile uint8_t doing; /* enum run_doing: what the vCPU's thread is at (profile.h) */
    uint8_t observe; /* VM_OBSERVE_*: what the emulator is to report; machine_observe() sets it */
};
enum {
    VM_OBSERVE_FLOW = 1,  /* control transfers, to vm_transfer() */
    VM_OBSERVE_BREAK = 2, /* asks vm_break_at() before each instruction but the first of a run */
    VM_OBSERVE_WATCH = 4, /* data accesses, to vm_watched() and vm_watch_hit() */
    VM_OBSERVE_ONE = 8,   /* string instructions stop after each element */
};

/* Where an instruction is, for those who report it. */
struct vm_place {
    uint32_t eip;
    uint16_t cs;
    uint8_t context; /* as trace_event.context */
};
static inline struct vm_place vm_place(const struct cpu *c)
{
    unsigned mode = !(c->cr0 & CPU_CR0_PE) ? TRACE_MODE_REAL : c->eflags_sys & CPU_VM ? TRACE_MODE_V86
                    : c->seg[1].attr & 0x4000 ? TRACE_MODE_P32 : TRACE_MODE_P16;
    return (struct vm_place){c->eip, c->seg[1].sel, (uint8_t)(mode << 2 | (c->cpl & 3))};
}

/* The frame below 1 MiB that an access to this page reaches; mmu.c. Async-signal-safe. */
uint32_t vm_low_frame(const struct vm *vm, uint64_t page, bool write);
/* The frame that an access to a guest-physical page reaches, or VM_NO_FRAME. Nothing but devices is there then; a write to ROM reaches
 * nothing. Async-signal-safe. */
static inline uint32_t vm_frame(const struct vm *vm, uint64_t page, bool write)
{
    if (__builtin_expect((page | 1) == vm->apic_page, 0))
        return VM_NO_FRAME;
    if (__builtin_expect(page < vm->ram_bytes, 1))
        return page - VM_HOLE >= 0x60000u ? (uint32_t)(page >> 12) : vm_low_frame(vm, page, write);
    uint64_t end = 1ull << 32;
    if (write || page >= end || page < end - vm->rom_bytes)
        return VM_NO_FRAME;
    return (uint32_t)((vm->ram_bytes + vm->rom_bytes - (end - page)) >> 12);
}
/* Host address of a byte of a frame (at: frame number * 4096 + offset) as the emulator and the page-table walk see it; valid to the end of
 * the frame. Async-signal-safe. */
static inline uint8_t *vm_view(const struct vm *vm, uint64_t at)
{
    return (__builtin_expect(vm->mirror != NULL, 0) && vm->mirrored[at >> 12] ? vm->mirror : vm->ram) + at;
}
/* Only while vm->mirror is set. The emulator is about to write a frame / stores v (1, 2 or 4 bytes, not across a page) in RAM. */
void vm_mirror_page(struct vm *vm, uint64_t frame);
void vm_mirror_store(struct vm *vm, gpa_t a, unsigned size, uint32_t v);
/* Host address of len bytes at a guest-physical address within one page that a read reaches, or NULL. Async-signal-safe. */
static inline uint8_t *vm_readable(const struct vm *vm, uint64_t a)
{
    uint32_t frame = vm_frame(vm, a & ~0xFFFull, false);
    return frame == VM_NO_FRAME ? NULL : vm_view(vm, ((uint64_t)frame << 12) + (a & 0xFFF));
}

/* Says what the thread is at from now on; returns what it was at, to be said again afterwards. Async-signal-safe. */
static inline uint8_t vm_doing(struct vm *vm, uint8_t what)
{
    uint8_t was = vm->doing;
    vm->doing = what;
    return was;
}

/* -- Provided by the run loop (monitor/run.c), used by emulator and MMU. --------------------------------------------------- */
/* Bytes [a, a+len) of a page with code_pages[] set are about to change. May clear code_pages[] (whole page) or keep it. */
void vm_code_written(struct vm *vm, gpa_t a, unsigned len);
/* For counters and traces; they change nothing. An exception is about to be delivered (cpu->eip: where it is reported); a port was accessed. */
void vm_exception(struct vm *vm, unsigned vector, bool has_error, uint32_t error);
void vm_port_access(struct vm *vm, uint16_t port, unsigned size, uint32_t value, bool write);
void vm_mmio_access(struct vm *vm, uint64_t gpa, unsigned size, uint32_t value, bool write);
/* A control transfer (a kind of group FLOW) has been done: from there to the present state. vector: of ENTER. */
void vm_transfer(struct vm *vm, enum trace_kind kind, struct vm_place from, unsigned vector);
/* For a debugger (debug.h). Is a run of the emulator to end in front of the instruction at linear address lin? */
bool vm_break_at(struct vm *vm, uint32_t lin);
/* The number of the watchpoint that an access touches, plus one, or 0; *at: the first byte of it touched. The instruction that
 * did it is complete: vm_watch_hit(). */
unsigned vm_watched(struct vm *vm, uint32_t lin, unsigned size, bool write, uint32_t *at);
void vm_watch_hit(struct vm *vm, unsigned watched, uint32_t at);
/* Paging state changed: what = VM_FLUSH_*. The MMU has flushed its own TLB already. */
enum vm_flush { VM_FLUSH_CR3, VM_FLUSH_PAGE, VM_FLUSH_ALL };
void vm_paging_changed(struct vm *vm, enum vm_flush what, gva_t page);
/* IA32_APIC_BASE was written (cpu->apic_base): tells the local APIC, and which RAM it hides now. */
void vm_apic_base_changed(struct vm *vm);
/* The x87 instruction of translated code at the host address whose low half is host_ip. Fails if there is no such code (any more). */
struct vm_x87_origin {
    uint32_t eip;    /* offset in CS: code is flat */
    uint16_t opcode; /* as the x87 keeps it, 11 bits */
    bool user;
    uint8_t seg;     /* of its memory operand, SCAN_SEG_NONE if it has none */
};
bool vm_x87_origin(struct vm *vm, uint32_t host_ip, struct vm_x87_origin *out);

/* What may be done through a segment of the greatest limit without looking at it again, in protected mode (SDM vol. 3, 3.4.5.1 and 5.3):
 * data that does not expand down is read, and written if it is writable; code is read if it is readable. By type bits 3..1. */
enum { SEG_FREE_READ = 1, SEG_FREE_WRITE = 2 };
static inline unsigned cpu_seg_free(const struct cpu_seg *s)
{
    static const uint8_t by_type[8] = {SEG_FREE_READ, SEG_FREE_READ | SEG_FREE_WRITE, 0, 0, 0, SEG_FREE_READ, 0, SEG_FREE_READ};
    return s->unusable || s->limit != 0xFFFFFFFFu ? 0 : by_type[s->attr >> 1 & 7];
}

/* -- mmu.c ---------------------------------------------------------------------------------------------------------------- */
/* MMU_IMPLICIT: of the supervisor, to a descriptor table or TSS, whatever the CPL (SDM vol. 3, 4.6.1). */
enum { MMU_WRITE = 1, MMU_USER = 2, MMU_EXEC = 4, MMU_IMPLICIT = 8 };
/* Does SMAP forbid an access to user pages? Implicit accesses do not ask EFLAGS.AC (SDM vol. 3, 4.6.1). */
static inline bool mmu_smap(const struct cpu *c, unsigned access)
{
    return (c->cr4 & CPU_CR4_SMAP) && !(access & (MMU_USER | MMU_EXEC)) &&
           ((access & MMU_IMPLICIT) || !(c->eflags_sys & CPU_AC));
}
struct mmu_fault {
    uint32_t error_code; /* of the #PF: P, W, U, RSVD, I (SDM vol. 3, 4.7) */
    gva_t addr;
};
struct mmu_page {
    gpa_t page;        /* of the 4 KiB page, A20 applied */
    bool user, writable, executable, dirty, global; /* combined rights of all levels (writable: the R/W bits, WP not considered) */
    bool accessed;     /* at all levels */
    unsigned size_log2; /* 12, 21 or 22 */
    gpa_t pde, pte;    /* guest-physical addresses of the entries used (pte.v = 0 for a large page or paging off) */
};
/* Walks the guest's page tables for an access (MMU_*; MMU_USER = CPL 3 access). Checks rights (CR0.WP, NX, reserved bits), sets A and, for writes,
 * D. True: *out is filled. False: *fault is. Paging off: identity. Entries outside RAM read as all ones (not present enough: RSVD or NP as it
 * falls). Async-signal-safe. */
bool mmu_walk(struct vm *vm, gva_t a, unsigned access, struct mmu_page *out, struct mmu_fault *fault);
/* May a page with these rights be written? The supervisor may write any page unless CR0.WP is set (SDM vol. 3, 4.6.1). */
static inline bool mmu_may_write(const struct cpu *c, bool writable, bool user)
{
    return writable || (!user && !(c->cr0 & CPU_CR0_WP));
}
/* The same without setting A/D bits or checking rights: is it mapped, and how? */
bool mmu_probe(struct vm *vm, gva_t a, struct mmu_page *out);
void mmu_flush_tlb(struct vm *vm);               /* everything */
void mmu_flush_tlb_page(struct vm *vm, gva_t a); /* one page, both arrays */
void mmu_flush_tlb_writes(struct vm *vm, gpa_t page); /* no write_tag may remain for this physical page */

/* -- emu*.c: the single-instruction emulator --------------------------------------------------------------------------------- */
enum emu_result {
    EMU_OK,           /* one instruction done, or an exception or interrupt delivered into the guest (state is consistent) */
    EMU_HALT,         /* HLT executed: cpu->halted set, eip after it */
    EMU_SHUTDOWN,     /* triple fault */
};
/* Executes one instruction at cpu->eip in whatever mode the vCPU is in; a repeat string instruction runs until done, a fault, or 4096
 * elements (eip then stays). Exceptions are delivered through the IDT before it returns. Clears cpu->shadow when the shadowed instruction completed.
 * Uses cpu->fx as the x87/SSE state. */
enum emu_result emu_step(struct vm *vm);
/* Up to n instructions, as long as nothing special happens (result is EMU_OK and irq_pending && vif is false and stop is not set); *done is the number.
 * The fast path of code that is not translated. */
enum emu_result emu_run(struct vm *vm, unsigned n, volatile int *stop, unsigned *done);
/* Delivers an exception (fault semantics: eip of the faulting instruction is in cpu->eip), with the double and triple fault rules. */
enum emu_result emu_exception(struct vm *vm, unsigned vector, bool has_error, uint32_t error_code);
/* #PF: sets CR2 and delivers. */
enum emu_result emu_page_fault(struct vm *vm, const struct mmu_fault *f);
/* Delivers an external interrupt (vector from dev_intr_ack()), or NMI (vector 2). The caller checked IF and shadow, for an NMI
 * nmi_blocked and shadow. */
enum emu_result emu_interrupt(struct vm *vm, unsigned vector);
/* Brings cpu->x87 up to date with what translated code has run. To be called before code memory changes. */
void emu_x87_settle(struct vm *vm);
/* The segment of a memory operand without override: SS with EBP or ESP as the base (SDM vol. 1, 3.7.4). */
unsigned emu_default_seg(const struct scan_insn *i);
/* Processor state after RESET (SDM vol. 3, table 9-1). */
void emu_reset(struct vm *vm);
/* After INIT: x87/SSE state, MSRs and the time-stamp counter stay (same table). */
void emu_init(struct vm *vm);
/* Fixed, named CPU model. */
void emu_cpuid(const struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
#define EMU_CPU_MODEL "atom-d510" /* family 6 model 28 */
/* Unmasked SIMD exceptions of the instructions that the emulator has the host run come as SIGFPE on its thread. caught: whoever handles that
 * signal asks emu_fpu_trap() (per thread; off at first). emu_fpu_trap(): was that it? *next is where the host goes on. Async-signal-safe. */
void emu_fpu_catch(bool caught);
bool emu_fpu_trap(uint64_t rip, uint64_t *next);
/* Recomputes seg_base[], seg_window[] selection inputs, seg_sel[] after any change to seg[]; provided by run.c. */
void vm_segments_changed(struct vm *vm);

/* Loads a segment register as MOV Sreg would, with all checks; used by tests and loaders too. False: exception pending description in *vector, *error. */
bool emu_load_segment(struct vm *vm, unsigned seg, uint16_t sel, unsigned *vector, uint32_t *error);
/* Loads control register n (0, 2, 3, 4) as MOV CR at CPL 0 would; otherwise the same. */
bool emu_load_control(struct vm *vm, unsigned n, uint32_t v, unsigned *vector, uint32_t *error);

/* The x87 environment as FSTENV gives it, and as FLDENV takes it (SDM vol. 1, figure 8-9). */
struct emu_fpu_env {
    uint16_t control, status, tags;
    struct cpu_x87 last;
};
void emu_fpu_get_env(struct vm *vm, struct emu_fpu_env *out);
void emu_fpu_set_env(struct vm *vm, const struct emu_fpu_env *env);

#endif
