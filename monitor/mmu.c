/* monitor/mmu.c: the page-table walker (SDM vol. 3, 4.3 and 4.4) and the emulator's TLB.
 *
 * The walker reads paging entries straight from guest RAM with single loads and sets A and D with atomic ORs;
 * it allocates nothing, takes no lock and calls nothing, so it may run in a signal handler. The CPU model has
 * neither PAT nor PSE-36: the bits that belong to them are reserved. MAXPHYADDR is 36.
 */
#include <string.h>

#include "monitor/vm.h"

enum {
    PTE_P = 1u << 0,
    PTE_W = 1u << 1,
    PTE_U = 1u << 2,
    PTE_A = 1u << 5,
    PTE_D = 1u << 6,
    PTE_PS = 1u << 7,
    PTE_G = 1u << 8,
};
#define PTE_NX           (1ull << 63)
#define PAE_FRAME        0xFFFFFF000ull
#define PAE_RESERVED     0x7FFFFFF000000000ull /* bits 62:36 */
#define PDE4M_RESERVED   0x003FF000u           /* bits 21:13 (PSE-36) and 12 (PAT) */
#define PDE2M_RESERVED   0x001FF000ull
#define ERROR_P          1u
#define ERROR_W          2u
#define ERROR_U          4u
#define ERROR_RSVD       8u
#define ERROR_I          16u

static uint64_t a20(const struct vm *vm, uint64_t a)
{
    return a & (0xFFFFFFFF00000000ull | vm->cpu->a20_mask);
}

uint32_t vm_low_frame(const struct vm *vm, uint64_t page, bool write)
{
    uint64_t below = 0x100000 - page; /* so far in front of 1 MiB */
    if (page < VM_SHADOW)
        return VM_NO_FRAME;
    if (!(vm->hidden[(page - VM_SHADOW) / VM_SHADOW_UNIT] & (write ? VM_HIDDEN_WRITE : VM_HIDDEN_READ)))
        return (uint32_t)(page >> 12);
    if (write || below > VM_SHADOW_ROM || below > vm->rom_bytes)
        return VM_NO_FRAME;
    return (uint32_t)((vm->ram_bytes + vm->rom_bytes - below) >> 12);
}

static uint64_t read_entry(const struct vm *vm, uint64_t a, unsigned size)
{
    const void *p = vm_readable(vm, a);
    if (!p)
        return UINT64_MAX >> (64 - 8 * size);
    if (size == 4)
        return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
    return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
}

/* A and D lie in the low byte of either entry size. */
static void set_bits(const struct vm *vm, uint64_t a, uint64_t entry, uint8_t bits)
{
    uint32_t frame = (entry & bits) != bits ? vm_frame(vm, a & ~(uint64_t)PAGE_MASK_, true) : VM_NO_FRAME;
    uint64_t at = ((uint64_t)frame << 12) + (a & PAGE_MASK_);
    if (frame == VM_NO_FRAME)
        return;
    __atomic_fetch_or(vm->ram + at, bits, __ATOMIC_RELAXED);
    if (vm->mirror)
        *vm_view(vm, at) |= bits;
}

enum walked { WALKED, WALK_ABSENT, WALK_RESERVED };

struct walk {
    uint64_t pde, pte; /* entries */
    bool nx;
};

static enum walked walk_legacy(const struct vm *vm, uint32_t a, struct mmu_page *out, struct walk *w)
{
    const struct cpu *c = vm->cpu;
    out->pde = gpa(a20(vm, (c->cr3 & ~PAGE_MASK_) + (a >> 22) * 4));
    w->pde = read_entry(vm, out->pde.v, 4);
    if (!(w->pde & PTE_P))
        return WALK_ABSENT;
    if ((w->pde & PTE_PS) && (c->cr4 & CPU_CR4_PSE)) {
        if (w->pde & PDE4M_RESERVED)
            return WALK_RESERVED;
        out->page = gpa(a20(vm, (w->pde & 0xFFC00000u) | (a & 0x3FF000u)));
        out->size_log2 = 22;
        return WALKED;
    }
    out->pte = gpa(a20(vm, (w->pde & ~(uint64_t)PAGE_MASK_) + (a >> 12 & 0x3FF) * 4));
    w->pte = read_entry(vm, out->pte.v, 4);
    if (!(w->pte & PTE_P))
        return WALK_ABSENT;
    if (w->pte & PTE_PS) /* bit 7 is PAT in a PTE: reserved here */
        return WALK_RESERVED;
    out->page = gpa(a20(vm, w->pte & ~(uint64_t)PAGE_MASK_));
    out->size_log2 = 12;
    return WALKED;
}

static enum walked walk_pae(const struct vm *vm, uint32_t a, struct mmu_page *out, struct walk *w)
{
    const struct cpu *c = vm->cpu;
    uint64_t pdpte = c->pdpte[a >> 30];
    uint64_t reserved = PAE_RESERVED | (c->efer & CPU_EFER_NXE ? 0 : PTE_NX);
    if (!(pdpte & PTE_P))
        return WALK_ABSENT;
    out->pde = gpa(a20(vm, (pdpte & PAE_FRAME) + (a >> 21 & 0x1FF) * 8));
    w->pde = read_entry(vm, out->pde.v, 8);
    if (!(w->pde & PTE_P))
        return WALK_ABSENT;
    if (w->pde & reserved)
        return WALK_RESERVED;
    w->nx = w->pde & PTE_NX;
    if (w->pde & PTE_PS) {
        if (w->pde & PDE2M_RESERVED)
            return WALK_RESERVED;
        out->page = gpa(a20(vm, (w->pde & 0xFFFE00000ull) | (a & 0x1FF000u)));
        out->size_log2 = 21;
        return WALKED;
    }
    out->pte = gpa(a20(vm, (w->pde & PAE_FRAME) + (a >> 12 & 0x1FF) * 8));
    w->pte = read_entry(vm, out->pte.v, 8);
    if (!(w->pte & PTE_P))
        return WALK_ABSENT;
    if (w->pte & (reserved | PTE_PS))
        return WALK_RESERVED;
    w->nx |= !!(w->pte & PTE_NX);
    out->page = gpa(a20(vm, w->pte & PAE_FRAME));
    out->size_log2 = 12;
    return WALKED;
}

static enum walked walk(const struct vm *vm, uint32_t a, struct mmu_page *out, struct walk *w)
{
    const struct cpu *c = vm->cpu;
    *out = (struct mmu_page){.page = {0}};
    *w = (struct walk){0};
    if (!(c->cr0 & CPU_CR0_PG)) {
        *out = (struct mmu_page){.page = gpa(a20(vm, a & ~PAGE_MASK_)),
                                 .user = true,
                                 .writable = true,
                                 .executable = true,
                                 .accessed = true,
                                 .dirty = true,
                                 .size_log2 = 12};
        return WALKED;
    }
    enum walked r = c->cr4 & CPU_CR4_PAE ? walk_pae(vm, a, out, w) : walk_legacy(vm, a, out, w);
    if (r != WALKED)
        return r;
    uint64_t leaf = out->pte.v ? w->pte : w->pde;
    uint64_t both = out->pte.v ? w->pde & w->pte : w->pde;
    out->user = both & PTE_U;
    out->writable = both & PTE_W;
    out->executable = !w->nx;
    out->accessed = both & PTE_A;
    out->dirty = leaf & PTE_D;
    out->global = (leaf & PTE_G) && (c->cr4 & CPU_CR4_PGE);
    return WALKED;
}

static bool refuse(const struct vm *vm, uint32_t a, unsigned access, uint32_t cause, struct mmu_fault *fault)
{
    const struct cpu *c = vm->cpu;
    uint32_t e = cause;
    if (access & MMU_WRITE)
        e |= ERROR_W;
    if (access & MMU_USER)
        e |= ERROR_U;
    /* I/D is reported only where an instruction fetch can be told apart (SDM vol. 3, 4.7). */
    if ((access & MMU_EXEC) && (c->cr4 & CPU_CR4_PAE) && (c->efer & CPU_EFER_NXE))
        e |= ERROR_I;
    *fault = (struct mmu_fault){e, gva(a)};
    return false;
}

bool mmu_walk(struct vm *vm, gva_t a, unsigned access, struct mmu_page *out, struct mmu_fault *fault)
{
    struct walk w;
    switch (walk(vm, a.v, out, &w)) {
    case WALK_ABSENT:
        return refuse(vm, a.v, access, 0, fault);
    case WALK_RESERVED:
        return refuse(vm, a.v, access, ERROR_P | ERROR_RSVD, fault);
    case WALKED:
        break;
    }
    if (!(vm->cpu->cr0 & CPU_CR0_PG))
        return true;
    bool write_ok = mmu_may_write(vm->cpu, out->writable, access & MMU_USER);
    if (((access & MMU_USER) && !out->user) || (out->user && mmu_smap(vm->cpu, access)) || ((access & MMU_WRITE) && !write_ok) ||
        ((access & MMU_EXEC) && !out->executable))
        return refuse(vm, a.v, access, ERROR_P, fault);
    uint8_t leaf = access & MMU_WRITE ? PTE_A | PTE_D : PTE_A;
    if (out->pte.v) {
        set_bits(vm, out->pde.v, w.pde, PTE_A);
        set_bits(vm, out->pte.v, w.pte, leaf);
    } else {
        set_bits(vm, out->pde.v, w.pde, leaf);
    }
    if (access & MMU_WRITE)
        out->dirty = true;
    return true;
}

bool mmu_probe(struct vm *vm, gva_t a, struct mmu_page *out)
{
    struct walk w;
    return walk(vm, a.v, out, &w) == WALKED;
}

/* A flush costs a memset of 48 KiB only if many entries were filled since the last one. */
void mmu_flush_tlb(struct vm *vm)
{
    if (vm->tlb_filled <= sizeof(vm->tlb_index) / sizeof(vm->tlb_index[0])) {
        for (uint32_t i = 0; i < vm->tlb_filled; i++)
            vm->tlb[0][vm->tlb_index[i]] = vm->tlb[1][vm->tlb_index[i]] = (struct tlb_entry){0};
    } else {
        memset(vm->tlb, 0, sizeof(vm->tlb));
    }
    vm->tlb_filled = 0;
    memset(vm->tlb_large, 0, sizeof(vm->tlb_large));
}

/* All of a large page goes, whichever of its addresses is named (SDM vol. 3, 4.10.2.3 and 4.10.4.1). */
static void flush_large(struct vm *vm, uint32_t a)
{
    for (unsigned u = 0; u < 2; u++)
        for (unsigned i = 0; i < TLB_SIZE; i++)
            if ((vm->tlb[u][i].read_tag ^ a) >> 22 == 0)
                vm->tlb[u][i] = (struct tlb_entry){0};
}

void mmu_flush_tlb_page(struct vm *vm, gva_t a)
{
    if (vm->tlb_large[a.v >> 28] >> (a.v >> 22 & 63) & 1)
        flush_large(vm, a.v);
    for (unsigned u = 0; u < 2; u++)
        vm->tlb[u][a.v >> 12 & (TLB_SIZE - 1)] = (struct tlb_entry){0};
}

void mmu_flush_tlb_writes(struct vm *vm, gpa_t page)
{
    const uint8_t *hva = vm->ram + (page.v & ~(uint64_t)PAGE_MASK_);
    for (unsigned u = 0; u < 2; u++)
        for (unsigned i = 0; i < TLB_SIZE; i++)
            if (vm->tlb[u][i].hva == hva)
                vm->tlb[u][i].write_tag = 0;
}
