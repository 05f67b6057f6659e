/* monitor/emu_mem.c: memory as the emulator sees it: segment checks, the TLB's slow side, page-crossing
 * accesses, MMIO.
 *
 * An access that crosses a page is checked on both pages before a byte moves, so that a faulting store leaves
 * memory as it was.
 */
#include "monitor/emu_internal.h"

static uint8_t *tlb_insert(struct vm *vm, uint32_t lin, unsigned access, const struct mmu_page *p, uint32_t frame)
{
    bool supervisor_at_user = p->user && !(access & MMU_USER) && (vm->cpu->cr4 & CPU_CR4_SMAP);
    unsigned index = lin >> 12 & (TLB_SIZE - 1);
    struct tlb_entry *t = &vm->tlb[!!(access & MMU_USER)][index];
    uint32_t tag = (lin & ~PAGE_MASK_) | 1;
    uint8_t *hva = vm_view(vm, (uint64_t)frame << 12);
    if (t->read_tag != tag || t->hva != hva) {
        *t = (struct tlb_entry){.read_tag = tag, .hva = hva};
        if (vm->tlb_filled < sizeof(vm->tlb_index) / sizeof(vm->tlb_index[0]))
            vm->tlb_index[vm->tlb_filled] = (uint16_t)index;
        vm->tlb_filled++;
        if (p->size_log2 > 12)
            vm->tlb_large[lin >> 28] |= 1ull << (lin >> 22 & 63);
    }
    if (access & MMU_EXEC)
        t->exec_tag = tag;
    if (supervisor_at_user)
        t->read_tag = 0; /* found for a fetch; data is asked about each time */
    if ((access & MMU_WRITE) && !vm->code_pages[frame] && likely(!vm->mirror))
        t->write_tag = tag;
    return hva;
}

uint8_t *emu_tlb_fill(struct emu *e, uint32_t lin, unsigned access, uint64_t *page_gpa)
{
    struct mmu_page p;
    struct mmu_fault f;
    if (!mmu_walk(e->vm, gva(lin), access, &p, &f)) {
        /* The TLB must not keep what has just been found wrong (SDM vol. 3, 4.10.4.1: a #PF drops the page's
         * entries). */
        mmu_flush_tlb_page(e->vm, gva(lin));
        e->c->cr2 = f.addr.v;
        emu_raise(e, CPU_EXC_PF, true, f.error_code);
    }
    *page_gpa = p.page.v;
    uint32_t frame = vm_frame(e->vm, p.page.v, access & MMU_WRITE);
    if (frame == VM_NO_FRAME)
        return NULL;
    if (unlikely(e->vm->mirror_log) && (access & MMU_WRITE))
        vm_mirror_page(e->vm, frame);
    /* One entry serves reads and writes; where these differ (RAM behind a ROM) writes are not remembered. Nor is what depends on EFLAGS.AC
     * (SMAP). */
    bool asks_ac = p.user && !(access & (MMU_USER | MMU_EXEC)) && (e->c->cr4 & CPU_CR4_SMAP);
    if (unlikely(asks_ac || ((access & MMU_WRITE) && vm_frame(e->vm, p.page.v, false) != frame)))
        return vm_view(e->vm, (uint64_t)frame << 12);
    return tlb_insert(e->vm, lin, access, &p, frame);
}

/* -- One page ---------------------------------------------------------------------------------------- */

struct span {
    uint8_t *p; /* NULL: MMIO at gpa */
    uint64_t gpa;
};

/* Watchpoints are noted by the access that really happens, not by probes. */
static struct span span_at(struct emu *e, uint32_t lin, unsigned access)
{
    struct span s;
    uint64_t page;
    uint8_t *hva = emu_tlb_fill(e, lin, access, &page);
    s.gpa = page + (lin & PAGE_MASK_);
    s.p = hva ? hva + (lin & PAGE_MASK_) : NULL;
    return s;
}

uint32_t emu_mmio_read(struct vm *vm, uint64_t gpa, unsigned size)
{
    uint8_t was = vm_doing(vm, RUN_DOING_DEVICES);
    uint32_t v = dev_mmio_read(vm->bus, gpa, size);
    vm_doing(vm, was);
    vm_mmio_access(vm, gpa, size, v, false);
    return v;
}

void emu_mmio_write(struct vm *vm, uint64_t gpa, unsigned size, uint32_t v)
{
    uint8_t was = vm_doing(vm, RUN_DOING_DEVICES);
    vm_mmio_access(vm, gpa, size, v, true);
    dev_mmio_write(vm->bus, gpa, size, v);
    vm_doing(vm, was);
}

static uint32_t span_read(struct emu *e, struct span s, unsigned size)
{
    return s.p ? host_load(s.p, size) : emu_mmio_read(e->vm, s.gpa, size);
}

static void span_write(struct emu *e, struct span s, unsigned size, uint32_t v)
{
    if (!s.p) {
        emu_mmio_write(e->vm, s.gpa, size, v);
        emu_stop(e); /* a device may have something to say */
        return;
    }
    if (e->vm->code_pages[s.gpa >> 12])
        vm_code_written(e->vm, gpa(s.gpa), size);
    if (unlikely(e->vm->mirror != NULL))
        vm_mirror_store(e->vm, gpa(s.gpa), size, v);
    else
        host_store(s.p, size, v);
}

static unsigned in_page(uint32_t lin, unsigned size)
{
    unsigned room = PAGE_SIZE_ - (lin & PAGE_MASK_);
    return size < room ? size : room;
}

uint32_t emu_lin_read(struct emu *e, uint32_t lin, unsigned size, bool user)
{
    unsigned access = user ? MMU_USER : e->implicit, first = in_page(lin, size);
    if (unlikely(e->bp_data))
        emu_data_watch(e, lin, size, false);
    struct span a = span_at(e, lin, access);
    if (first == size)
        return span_read(e, a, size);
    struct span b = span_at(e, lin + first, access);
    uint32_t v = 0;
    for (unsigned i = 0; i < size; i++) {
        struct span s = i < first ? a : b;
        unsigned off = i < first ? i : i - first;
        s.gpa += off;
        s.p = s.p ? s.p + off : NULL;
        v |= span_read(e, s, 1) << 8 * i;
    }
    return v;
}

void emu_lin_write(struct emu *e, uint32_t lin, unsigned size, uint32_t v, bool user)
{
    unsigned access = MMU_WRITE | (user ? MMU_USER : e->implicit), first = in_page(lin, size);
    struct span a = span_at(e, lin, access);
    if (first == size) {
        if (unlikely(e->bp_data))
            emu_data_watch(e, lin, size, true);
        span_write(e, a, size, v);
        return;
    }
    struct span b = span_at(e, lin + first, access);
    if (unlikely(e->bp_data))
        emu_data_watch(e, lin, size, true);
    for (unsigned i = 0; i < size; i++) {
        struct span s = i < first ? a : b;
        unsigned off = i < first ? i : i - first;
        s.gpa += off;
        s.p = s.p ? s.p + off : NULL;
        span_write(e, s, 1, v >> 8 * i & 0xFF);
    }
}

void emu_lin_probe(struct emu *e, uint32_t lin, unsigned len, bool write, bool user)
{
    unsigned access = (write ? MMU_WRITE : 0) | (user ? MMU_USER : 0);
    uint32_t last = lin + len - 1;
    (void)span_at(e, lin, access);
    for (uint32_t page = lin & ~PAGE_MASK_; page != (last & ~PAGE_MASK_);) {
        page += PAGE_SIZE_;
        (void)span_at(e, page, access);
    }
}

uint32_t emu_sys_read(struct emu *e, uint32_t lin, unsigned size)
{
    const struct tlb_entry *t = &e->vm->tlb[0][lin >> 12 & (TLB_SIZE - 1)];
    if (t->read_tag == ((lin & ~PAGE_MASK_) | 1) && (lin & PAGE_MASK_) + size <= PAGE_SIZE_)
        return host_load(t->hva + (lin & PAGE_MASK_), size);
    bool bp = e->bp_data;
    e->bp_data = false; /* descriptor and TSS accesses are not watched */
    e->implicit = MMU_IMPLICIT;
    uint32_t v = emu_lin_read(e, lin, size, false);
    e->bp_data = bp;
    e->implicit = 0;
    return v;
}

void emu_sys_write(struct emu *e, uint32_t lin, unsigned size, uint32_t v)
{
    bool bp = e->bp_data;
    e->bp_data = false;
    e->implicit = MMU_IMPLICIT;
    emu_lin_write(e, lin, size, v, false);
    e->bp_data = bp;
    e->implicit = 0;
}

/* -- Segments (SDM vol. 3, 5.3 to 5.5) --------------------------------------------------------------- */

static _Noreturn void seg_fault(struct emu *e, unsigned seg)
{
    emu_raise(e, seg == SCAN_SS ? CPU_EXC_SS : CPU_EXC_GP, true, e->ext);
}

static bool inside_limit(const struct cpu_seg *s, uint32_t off, unsigned size)
{
    uint64_t last = (uint64_t)off + size - 1;
    if ((s->attr & (SEG_CODE | SEG_CE)) == SEG_CE) /* expand-down */
        return off > s->limit && last <= (s->attr & SEG_DB ? 0xFFFFFFFFu : 0xFFFFu);
    /* A limit of 4 GiB: whether an access may wrap is the implementation's choice (vol. 3, 5.3.1); here it
     * may. */
    return last <= s->limit || s->limit == 0xFFFFFFFFu;
}

static bool access_allowed(const struct emu *e, const struct cpu_seg *s, bool write)
{
    if (emu_real(e))
        return true;
    if (s->unusable)
        return false;
    if (s->attr & SEG_CODE)
        return !write && (s->attr & SEG_RW);
    return !write || (s->attr & SEG_RW);
}

uint32_t emu_seg_check(struct emu *e, unsigned seg, uint32_t off, unsigned size, bool write)
{
    const struct cpu_seg *s = &e->c->seg[seg];
    if (!access_allowed(e, s, write) || !inside_limit(s, off, size))
        seg_fault(e, seg);
    return s->base + off;
}

void emu_check_align(struct emu *e, uint32_t lin, unsigned size)
{
    unsigned align = size == 10 ? 8 : size == 6 ? 4 : size; /* SDM vol. 3, table 6-7 */
    if (align && !(align & (align - 1)) && (lin & (align - 1)))
        emu_raise(e, CPU_EXC_AC, true, 0);
}

/* -- Operands wider than a register ------------------------------------------------------------------ */

static uint32_t buf_lin(struct emu *e, unsigned seg, uint32_t off, unsigned len, bool write)
{
    return emu_seg_check(e, seg, off, len, write);
}

void emu_buf_align(struct emu *e, unsigned seg, uint32_t off, unsigned len, bool write, unsigned align)
{
    if (likely(!e->align))
        return;
    if (buf_lin(e, seg, off, len, write) & (align - 1))
        emu_raise(e, CPU_EXC_AC, true, 0);
}

void emu_ld_buf(struct emu *e, unsigned seg, uint32_t off, unsigned len, void *buf)
{
    uint32_t lin = buf_lin(e, seg, off, len, false);
    uint8_t *out = buf;
    emu_lin_probe(e, lin, len, false, e->user);
    while (len) {
        unsigned n = in_page(lin, len);
        const uint8_t *p = tlb_read(e, lin, n);
        if (p) {
            memcpy(out, p, n);
        } else { /* MMIO, or watched */
            n = len >= 4 ? 4 : len >= 2 ? 2 : 1;
            uint32_t v = emu_lin_read(e, lin, n, e->user);
            memcpy(out, &v, n);
        }
        out += n, lin += n, len -= n;
    }
}

void emu_st_probe(struct emu *e, unsigned seg, uint32_t off, unsigned len)
{
    uint32_t lin = buf_lin(e, seg, off, len, true);
    if (unlikely(e->align) && len <= 8)
        emu_check_align(e, lin, len);
    emu_lin_probe(e, lin, len, true, e->user);
}

void emu_st_buf(struct emu *e, unsigned seg, uint32_t off, unsigned len, const void *buf)
{
    uint32_t lin = buf_lin(e, seg, off, len, true);
    const uint8_t *in = buf;
    emu_lin_probe(e, lin, len, true, e->user);
    while (len) {
        unsigned n = in_page(lin, len);
        uint8_t *p = tlb_write(e, lin, n);
        if (p) {
            memcpy(p, in, n);
        } else { /* MMIO, code or watched */
            n = len >= 4 ? 4 : len >= 2 ? 2 : 1;
            uint32_t v = 0;
            memcpy(&v, in, n);
            emu_lin_write(e, lin, n, v, e->user);
        }
        in += n, lin += n, len -= n;
    }
}

/* -- Data breakpoints (SDM vol. 3, 17.2) ------------------------------------------------------------- */

void emu_data_watch(struct emu *e, uint32_t lin, unsigned size, bool write)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    const struct cpu *c = e->c;
    if ((e->vm->observe & VM_OBSERVE_WATCH) && !e->watched) {
        e->watched = vm_watched(e->vm, lin, size, write, &e->watched_at);
        if (e->watched)
            emu_stop(e);
    }
    for (unsigned i = 0; i < 4; i++) {
        unsigned kind = c->dr[7] >> (16 + 4 * i) & 3, len = lengths[c->dr[7] >> (18 + 4 * i) & 3];
        uint32_t at = c->dr[i] & ~(len - 1u);
        if (!(c->dr[7] >> 2 * i & 3) || !(kind == 3 || (kind == 1 && write)))
            continue;
        if (lin <= at + (len - 1) && at <= lin + (size - 1)) {
            e->db_bits |= 1u << i;
            e->attn = true;
        }
    }
}
