/* monitor/window.c: the host MMU is the guest's MMU.
 *
 * A window is 4 GiB of host addresses that shows one guest linear address space. Window 0 is the supervisor's
 * and is shared by all of the guest's page directories; every user address space has a window of its own,
 * found by CR3. Pages are mapped when they are first touched. A window is a tagged TLB: each mapped page
 * remembers the paging entry it came from, each region (4 MiB) the page tables behind it, and after a CR3
 * load or a flush the remembered bytes are compared with the guest's present ones: what is equal stays, what
 * differs goes (SDM vol. 3, 4.10.4: a TLB may drop anything at any time, and must drop what was flushed).
 *
 * Supervisor code's accesses to user pages are never mapped into window 0 but emulated: the user half of it
 * would have to be dropped at each address-space switch, and a mapping call and a first touch cost more than
 * emulating (sites that do it often are made to leave to the emulator without a fault, see
 * code_force_emulation()).
 *
 * Mapping calls use MAP_POPULATE: measured on a host with dear page faults, mapping 16 pages populated
 * takes 6.5 us, mapping one and touching it 15 us.
 *
 * A process that fills fresh memory touches page after page, and a kernel hands out frames in a row. Where the last
 * pages of user code show that, the mapping call takes in the pages and frames that would come next, whose rights are
 * taken away at once: they stay as unmapped as they were to everything but window.ahead. If the guest does map
 * one to that frame, giving it its rights is enough: 2 us a page, both calls included, where a mapping call for each
 * takes 4.5.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>

#include "monitor/machine.h"

#define REGION_POOL    8192u
#define RUN_SUPERVISOR 64u /* pages mapped at once at most, beside the faulting one */
#define RUN_USER       16u
#define RUN_AHEAD      16u
#define CHUNK_FLIPS    8u
#define MOVE_MAX       8u /* pages that one comparison of a table maps anew: many at once are a new use of the address space */

/* Bits of a paging entry whose change makes a mapping wrong: P, R/W, U/S, PS, frame, NX. Accessed and dirty
 * only when they were cleared. */
#define ENTRY_KEY (~0xF78ull)
#define ENTRY_RW  (1ull << 1)
#define ENTRY_A   (1ull << 5)
#define ENTRY_D   (1ull << 6)

static bool entry_same(uint64_t was, uint64_t is)
{
    uint64_t diff = was ^ is;
    uint64_t cleared = was & ~is;
    return !(diff & ENTRY_KEY & ~(ENTRY_A | ENTRY_D)) && !(cleared & (ENTRY_A | ENTRY_D));
}

/* Mapping ids: region number * 1024 + page. */
static uint32_t mapping_id(const struct machine *m, const struct region *r, unsigned page)
{
    return (uint32_t)(r - m->region_pool) * REGION_PAGES + page;
}

/* WINDOW_SPAN bytes with linear 0 at a multiple of 4 GiB, which is returned; what was reserved to find it is given back. */
static uint8_t *reserve_span(void)
{
    const uint64_t align = 4ull << 30;
    uint8_t *p = mmap(NULL, WINDOW_SPAN + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    uint64_t from = (uint64_t)(uintptr_t)p, base = (from + WINDOW_BELOW + align - 1) & ~(align - 1);
    uint64_t before = base - WINDOW_BELOW - from;
    if (before)
        munmap(p, before);
    if (before < align)
        munmap(p + before + WINDOW_SPAN, align - before);
    return p + before + WINDOW_BELOW;
}

bool window_init(struct machine *m, char *err, size_t err_size)
{
    m->window = calloc(WINDOW_MAX, sizeof(*m->window));
    m->window_count = 0;
    memset(m->window_by_cr3, 0, sizeof(m->window_by_cr3));
    m->rmap = calloc(m->frames, sizeof(*m->rmap));
    m->region_pool = mmap(NULL, REGION_POOL * sizeof(struct region), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    m->poison = reserve_span();
    if (!m->window || !m->rmap || m->region_pool == MAP_FAILED || !m->poison) {
        snprintf(err, err_size, "cannot reserve address space for windows: %s", strerror(errno));
        return false;
    }
    m->region_free = UINT32_MAX;
    return true;
}

static void flush_ibtc(struct window *w)
{
    if (!w->ibtc_dirty)
        return;
    for (uint32_t i = 0; i <= w->ibtc_mask; i++)
        w->ibtc[i] = (uint64_t)(uintptr_t)stub_miss;
    w->ibtc_dirty = false;
}

static bool window_make(struct window *w, bool user)
{
    w->base = reserve_span();
    if (!w->base)
        return false;
    uint32_t n = user ? WINDOW_IBTC_SIZE : WINDOW_IBTC_SIZE_SUPERVISOR;
    w->ibtc = mmap(NULL, n * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (w->ibtc == MAP_FAILED) {
        munmap(w->base - WINDOW_BELOW, WINDOW_SPAN);
        return false;
    }
    w->ibtc_mask = n - 1;
    w->user = user;
    w->exec_epoch = 1;
    w->live = true;
    w->ibtc_dirty = true;
    flush_ibtc(w);
    return true;
}

void window_destroy(struct machine *m)
{
    for (unsigned i = 0; m->window && i < m->window_count; i++) {
        struct window *w = &m->window[i];
        if (!w->live)
            continue;
        uint64_t p = (uint64_t)(uintptr_t)w->base - WINDOW_BELOW;
        munmap((void *)(uintptr_t)p, WINDOW_SPAN);
        munmap(w->ibtc, (w->ibtc_mask + 1) * sizeof(uint64_t));
    }
    for (uint32_t i = 0; i < m->region_pool_used; i++) {
        free(m->region_pool[i].copy[0]);
        free(m->region_pool[i].copy[1]);
    }
    free(m->window);
    free(m->rmap);
    munmap(m->region_pool, REGION_POOL * sizeof(struct region));
    if (m->poison)
        munmap(m->poison - WINDOW_BELOW, WINDOW_SPAN);
}

void window_forget_branches(struct machine *m)
{
    for (unsigned i = 0; i < m->window_count; i++)
        if (m->window[i].live)
            flush_ibtc(&m->window[i]);
    machine_reset_shadow(m);
}

/* -- Reverse mappings
 * ---------------------------------------------------------------------------------------------------- */

static void rmap_add(struct machine *m, struct region *r, unsigned page, uint32_t pfn)
{
    r->rmap[page] = m->rmap[pfn];
    m->rmap[pfn] = mapping_id(m, r, page) + 1;
}

static void rmap_remove(struct machine *m, struct region *r, unsigned page)
{
    uint32_t id = mapping_id(m, r, page) + 1;
    uint32_t *link = &m->rmap[r->pfn[page]];
    while (*link && *link != id) {
        uint32_t at = *link - 1;
        link = &m->region_pool[at / REGION_PAGES].rmap[at % REGION_PAGES];
    }
    if (*link)
        *link = r->rmap[page];
}

/* -- Regions
 * --------------------------------------------------------------------------------------------------------------
 */

static int host_rights(bool write)
{
    return write ? PROT_READ | PROT_WRITE : PROT_READ;
}

/* What linear pages from lin on show is about to change. */
static void forget_ahead(struct window *w, uint32_t lin, uint64_t len)
{
    uint64_t begin = (uint64_t)w->ahead.page * PAGE_SIZE_, end = begin + (uint64_t)w->ahead.count * PAGE_SIZE_;
    if (lin < end && begin < lin + len)
        w->ahead.count = 0;
}

/* Linear pages of a window show frames from pfn on: one host call, page tables filled. False: the host has no room for more mappings. */
static bool show_ram(const struct machine *m, struct window *w, uint32_t lin, uint32_t pfn, unsigned n, bool write)
{
    forget_ahead(w, lin, (uint64_t)n * PAGE_SIZE_);
    return mmap(w->base + lin, (size_t)n * PAGE_SIZE_, host_rights(write), MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                m->ram_fd, (off_t)pfn * PAGE_SIZE_) != MAP_FAILED;
}

static void unmap_host(struct machine *m, struct window *w, uint32_t lin, uint64_t len)
{
    COUNT(m, MMAPS);
    COUNT(m, UNMAPS);
    forget_ahead(w, lin, len);
    if (mmap(w->base + lin, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
        MAP_FAILED) {
        /* Out of VMAs: taking the rights away without splitting is not possible; empty the whole window,
         * which merges all of it. */
        w->ahead.count = 0;
        (void)!mmap(w->base, 4ull << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                    -1, 0);
    }
}

/* A supervisor page has lost its mapping. */
static void note_loss(struct machine *m, uint32_t lin)
{
    uint8_t *losses = &m->window_volatile[window_volatile_slot(lin)];
    if (*losses < WINDOW_VOLATILE_AT)
        ++*losses;
    else
        window_volatile_tell(m, lin, true);
}

/* A host fault at a supervisor page: is the access to be emulated, because the page is a temporary mapping? */
static bool volatile_fault(struct machine *m, uint32_t lin)
{
    if (m->window_volatile[window_volatile_slot(lin)] < WINDOW_VOLATILE_AT || !window_volatile_yet(m, lin, WINDOW_VOLATILE_FAULT))
        return false;
    window_volatile_tell(m, lin, true);
    return true;
}

static void forget_page(struct machine *m, struct window *w, struct region *r, unsigned page)
{
    if (r->state[page] & PAGE_EXEC) {
        flush_ibtc(w);
        machine_reset_shadow(m);
        w->exec_epoch++;
        if (!w->user)
            code_unlink_linear(m, (r->index * REGION_PAGES + page) * PAGE_SIZE_);
    }
    if (r->state[page] & (PAGE_READ | PAGE_WRITE)) {
        rmap_remove(m, r, page);
        if (!w->user)
            note_loss(m, (r->index * REGION_PAGES + page) * PAGE_SIZE_);
    }
    r->state[page] = 0;
    r->used--;
}

static void region_release(struct machine *m, struct window *w, struct region *r)
{
    for (uint32_t i = 0; i < w->region_count; i++)
        if (w->region_list[i] == r->index) {
            w->region_list[i] = w->region_list[--w->region_count];
            break;
        }
    w->region[r->index] = NULL;
    r->next_free = m->region_free;
    m->region_free = (uint32_t)(r - m->region_pool);
}

/* Drops pages [first, last) of a region with one host call. */
static void drop_range(struct machine *m, struct window *w, struct region *r, unsigned first, unsigned last)
{
    bool mapped = false;
    for (unsigned i = first; i < last; i++) {
        if (!r->state[i])
            continue;
        mapped |= (r->state[i] & (PAGE_READ | PAGE_WRITE)) != 0;
        forget_page(m, w, r, i);
    }
    if (mapped)
        unmap_host(m, w, (r->index * REGION_PAGES + first) * PAGE_SIZE_,
                   (uint64_t)(last - first) * PAGE_SIZE_);
}

static void drop_page(struct machine *m, struct window *w, struct region *r, unsigned page)
{
    drop_range(m, w, r, page, page + 1);
}

static void window_reset(struct machine *m, struct window *w)
{
    if (!w->region_count) { /* nothing is mapped outside a region */
        flush_ibtc(w);
        w->stale = false;
        return;
    }
    while (w->region_count) {
        struct region *r = w->region[w->region_list[0]];
        for (unsigned i = 0; i < REGION_PAGES; i++)
            if (r->state[i])
                forget_page(m, w, r, i);
        region_release(m, w, r);
    }
    unmap_host(m, w, 0, 4ull << 30);
    flush_ibtc(w);
    w->stale = false;
}

void window_reset_all(struct machine *m)
{
    for (unsigned i = 0; i < m->window_count; i++)
        if (m->window[i].live)
            window_reset(m, &m->window[i]);
}

void window_power_cycle(struct machine *m)
{
    window_reset_all(m);
    for (unsigned i = 0; i < m->window_count; i++)
        m->window[i].used_at = 0;
    m->current = m->last_user = m->data = NULL;
    m->data_base = m->window_clock = 0;
    m->user_chunks = 0;
    memset(m->chunk_flips, 0, sizeof(m->chunk_flips));
    memset(m->window_volatile, 0, sizeof(m->window_volatile));
    memset(m->window_volatile_use, 0, sizeof(m->window_volatile_use));
    m->paging_cr0 = m->paging_cr4 = 0;
    m->paging_efer = 0;
}

static struct region *region_get(struct machine *m, struct window *w, uint32_t index)
{
    if (w->region[index])
        return w->region[index];
    struct region *r;
    if (m->region_free != UINT32_MAX) {
        r = &m->region_pool[m->region_free];
        m->region_free = r->next_free;
    } else if (m->region_pool_used < REGION_POOL) {
        r = &m->region_pool[m->region_pool_used++];
        /* Reserved here, touched when compared: no allocation in the fault path. */
    } else {
        return NULL;
    }
    memset(r->state, 0, sizeof(r->state));
    r->used = 0;
    r->window = (uint32_t)(w - m->window);
    r->index = index;
    r->pde[0] = r->pde[1] = 0;
    r->table_gpa[0] = r->table_gpa[1] = ~0ull;
    for (unsigned half = 0; half < 2; half++)
        r->first[half] = REGION_PAGES, r->last[half] = 0;
    w->region[index] = r;
    w->region_list[w->region_count++] = (uint16_t)index;
    return r;
}

/* -- Comparing with the guest's page tables
 * -------------------------------------------------------------------------------- */

static uint64_t read_entry(const struct machine *m, uint64_t at, bool pae)
{
    const void *p = vm_readable(&m->vm, at);
    if (!p)
        return 0;
    return pae ? *(const uint64_t *)p : *(const uint32_t *)p;
}

static bool paging_on(const struct machine *m)
{
    return m->vm.cpu->cr0 & CPU_CR0_PG;
}

static bool pae_on(const struct machine *m)
{
    return m->vm.cpu->cr4 & CPU_CR4_PAE;
}

/* The paging entry that maps a page just walked or probed. */
static uint64_t leaf_entry(const struct machine *m, const struct mmu_page *p)
{
    return read_entry(m, p->pte.v ? p->pte.v : p->pde.v, pae_on(m));
}

/* The directory entry that covers linear address a under the current CR3. */
static uint64_t directory_entry(const struct machine *m, uint32_t a)
{
    const struct cpu *c = m->vm.cpu;
    if (!pae_on(m))
        return read_entry(m, (c->cr3 & 0xFFFFF000u) + (a >> 22) * 4, false);
    uint64_t pdpte = c->pdpte[a >> 30];
    if (!(pdpte & 1))
        return 0;
    return read_entry(m, (pdpte & 0xFFFFFF000ull) + ((a >> 21) & 511) * 8, true);
}

/* The rights the host mapping may have for a walked page. */
static bool may_write(const struct machine *m, const struct window *w, const struct mmu_page *p, uint32_t frame)
{
    if (m->vm.code_pages[frame] || !(p->dirty || !paging_on(m)) || vm_frame(&m->vm, p->page.v, true) != frame)
        return false;
    return mmu_may_write(m->vm.cpu, p->writable, w->user);
}

/* What an entry that changed means for its page's mapping. */
enum change { KEEP, READ_ONLY, WRITABLE, DROP };

/* Only R/W differs, or D was cleared: the page stays, with other rights. Kernels write-protect pages for fork() and give the right back when
 * nobody shares them any more; a mapping made again costs a host fault each time. */
static enum change change_of(struct machine *m, const struct window *w, const struct region *r, unsigned page, uint64_t e)
{
    uint64_t was = r->entry[page];
    struct mmu_page p;
    if (entry_same(was, e) && !((was ^ e) & ENTRY_D))
        return KEEP;
    if (((was ^ e) & ENTRY_KEY & ~(ENTRY_A | ENTRY_D | ENTRY_RW)) || !(e & ENTRY_A) || !(r->state[page] & (PAGE_READ | PAGE_WRITE)) ||
        !mmu_probe(&m->vm, gva((r->index * REGION_PAGES + page) * PAGE_SIZE_), &p) ||
        vm_frame(&m->vm, p.page.v, false) != r->pfn[page])
        return entry_same(was, e) ? KEEP : DROP;
    bool write = may_write(m, w, &p, r->pfn[page]);
    return write == !!(r->state[page] & (PAGE_WRITE | PAGE_HELD)) ? KEEP : write ? WRITABLE : READ_ONLY;
}

/* The same change for pages [first, last), with one host call. Pages to be dropped may have unmapped ones between them; others are
 * neighbours. */
static void apply_change(struct machine *m, struct window *w, struct region *r, enum change c, unsigned first, unsigned last)
{
    if (c == KEEP)
        return;
    /* A stretch of lockstep wants to see the first write: the page stays read-only for the host. */
    uint8_t right = c == READ_ONLY ? 0 : m->stepping ? PAGE_HELD : PAGE_WRITE;
    if (c != DROP) {
        COUNT_ADD(m, RIGHTS_COMPARE, last - first);
        COUNT(m, MPROTECTS);
        if (mprotect(w->base + (uint64_t)(r->index * REGION_PAGES + first) * PAGE_SIZE_, (uint64_t)(last - first) * PAGE_SIZE_,
                     right == PAGE_WRITE ? PROT_READ | PROT_WRITE : PROT_READ) == 0) {
            for (unsigned i = first; i < last; i++)
                r->state[i] = (uint8_t)((r->state[i] & ~(PAGE_WRITE | PAGE_HELD)) | right);
            return;
        }
    }
    drop_range(m, w, r, first, last);
}

/* The page of user code shows another frame now, with A (and, to be written, D) set as for one that has been reached: most likely it is about
 * to be (a copy on write). Mapped in place, instead of being dropped and mapped at the next fault. False: to be dropped. */
static bool move_page(struct machine *m, struct window *w, struct region *r, unsigned page, uint64_t e)
{
    uint32_t lin = (r->index * REGION_PAGES + page) * PAGE_SIZE_;
    struct mmu_page p;
    if (!w->user || m->stepping || (r->state[page] & PAGE_EXEC) || !(r->state[page] & (PAGE_READ | PAGE_WRITE)) || !(e & ENTRY_A) ||
        debug_watches_page(m->debug, lin) || !mmu_probe(&m->vm, gva(lin), &p) || !p.user || !p.accessed)
        return false;
    uint32_t pfn = vm_frame(&m->vm, p.page.v, false);
    if (pfn == VM_NO_FRAME)
        return false;
    bool write = may_write(m, w, &p, pfn);
    COUNT(m, MMAPS);
    if (!show_ram(m, w, lin, pfn, 1, write))
        return false;
    COUNT(m, MOVE_COMPARE);
    rmap_remove(m, r, page);
    r->pfn[page] = pfn;
    rmap_add(m, r, page, pfn);
    r->state[page] = write ? PAGE_READ | PAGE_WRITE : PAGE_READ;
    return true;
}

/* Puts the bounds where pages are; false: there are none any more. */
static bool narrow(struct region *r, unsigned half)
{
    unsigned first = r->first[half], last = r->last[half];
    while (first < last && !r->state[first])
        first++;
    while (first < last && !r->state[last - 1])
        last--;
    r->first[half] = (uint16_t)(first < last ? first : REGION_PAGES);
    r->last[half] = (uint16_t)(first < last ? last : 0);
    return first < last;
}

static void compare_half(struct machine *m, struct window *w, struct region *r, unsigned half, bool pae)
{
    unsigned pages = pae ? 512 : 1024, first = half * pages;
    uint32_t lin = (r->index * REGION_PAGES + first) * PAGE_SIZE_;
    uint64_t pde = directory_entry(m, lin);
    bool large = (pde & 0x80) && (pae || (m->vm.cpu->cr4 & CPU_CR4_PSE));
    if (!(pde & 1) || !entry_same(r->pde[half], pde)) {
        drop_range(m, w, r, first, first + pages);
        r->pde[half] = pde;
        r->table_gpa[half] = ~0ull;
        return;
    }
    if (large)
        return;
    uint64_t table = pde & 0xFFFFFF000ull;
    if (table + PAGE_SIZE_ > m->vm.ram_bytes)
        return;
    if (r->first[half] >= r->last[half])
        return;
    const uint8_t *now = m->vm.ram + table;
    unsigned size = PAGE_SIZE_ / pages, from = (r->first[half] - first) * size;
    if (r->copy[half] && r->table_gpa[half] == table &&
        !memcmp(r->copy[half] + from, now + from, (r->last[half] - r->first[half]) * size))
        return;
    enum change run = KEEP;
    unsigned moved = 0;
    unsigned begin = first, last = first; /* pages [begin, last) are to be changed likewise */
    for (unsigned i = r->first[half]; i < r->last[half]; i++) {
        if (!r->state[i]) {
            if (run != DROP && run != KEEP) {
                apply_change(m, w, r, run, begin, last);
                run = KEEP;
            }
            continue;
        }
        uint64_t e = pae ? ((const uint64_t *)(const void *)now)[i - first] : ((const uint32_t *)(const void *)now)[i - first];
        enum change c = change_of(m, w, r, i, e);
        if (c == DROP && moved < MOVE_MAX && move_page(m, w, r, i, e)) {
            moved++;
            c = KEEP;
        }
        if (c == DROP)
            COUNT(m, DROP_COMPARE);
        else
            r->entry[i] = e;
        if (c != run) {
            apply_change(m, w, r, run, begin, last);
            run = c;
            begin = i;
        }
        last = i + 1;
    }
    apply_change(m, w, r, run, begin, last);
    if (!r->copy[half])
        r->copy[half] = malloc(PAGE_SIZE_);
    if (!narrow(r, half) || !r->copy[half])
        return;
    from = (r->first[half] - first) * size;
    memcpy(r->copy[half] + from, now + from, (r->last[half] - r->first[half]) * size);
    r->table_gpa[half] = table;
}

/* Brings a window up to date with the guest's page tables. */
static void window_revalidate(struct machine *m, struct window *w)
{
    w->stale = false;
    if (!paging_on(m))
        return;
    bool pae = pae_on(m);
    for (uint32_t i = 0; i < w->region_count;) {
        struct region *r = w->region[w->region_list[i]];
        compare_half(m, w, r, 0, pae);
        if (pae)
            compare_half(m, w, r, 1, pae);
        if (r->used == 0)
            region_release(m, w, r);
        else
            i++;
    }
}

/* -- Selection
 * --------------------------------------------------------------------------------------------------------------
 */

static uint16_t *cr3_slot(struct machine *m, uint32_t cr3)
{
    return &m->window_by_cr3[(cr3 >> 12 ^ cr3 >> 5) % WINDOW_BY_CR3];
}

/* At most one window has a CR3: each is found through the slot of the one it has. */
static struct window *find_user_window(struct machine *m, uint32_t cr3)
{
    for (unsigned i = *cr3_slot(m, cr3); i; i = m->window[i].next_by_cr3)
        if (m->window[i].cr3 == cr3)
            return &m->window[i];
    return NULL;
}

static void give_window(struct machine *m, struct window *w, uint32_t cr3)
{
    uint16_t self = (uint16_t)(w - m->window);
    for (uint16_t *link = cr3_slot(m, w->cr3); *link; link = &m->window[*link].next_by_cr3)
        if (*link == self) {
            *link = w->next_by_cr3;
            break;
        }
    w->cr3 = cr3;
    w->next_by_cr3 = *cr3_slot(m, cr3);
    *cr3_slot(m, cr3) = self;
}

/* Does nothing of the directory that cr3 named lead anywhere any more? Kernels take an address space's tables apart when its last process
 * ends; a window kept for it would only hold memory. */
static bool abandoned(const struct machine *m, const struct window *w)
{
    for (uint32_t i = 0; i < w->region_count; i++) {
        uint32_t lin = (uint32_t)w->region_list[i] * REGION_PAGES * PAGE_SIZE_;
        uint64_t at = (w->cr3 & 0xFFFFF000u) + (lin >> 22) * 4;
        if (pae_on(m)) {
            uint64_t pdpte = read_entry(m, (w->cr3 & ~31u) + (lin >> 30) * 8, true);
            if (!(pdpte & 1))
                continue;
            at = (pdpte & 0xFFFFFF000ull) + ((lin >> 21) & 511) * 8; /* the first of the region's two */
            if (read_entry(m, at + 8, true) & 1)
                return false;
        }
        if (read_entry(m, at, pae_on(m)) & 1)
            return false;
    }
    return true;
}

/* A window for an address space that has none: one that is of no use any more, a new one, or the one not used for longest. */
static struct window *user_window_for(struct machine *m)
{
    struct window *oldest = NULL, *idle = NULL;
    for (unsigned i = 1; i < m->window_count; i++) {
        struct window *w = &m->window[i];
        if (w == m->current || w == m->data || !w->live)
            continue;
        if (!idle && paging_on(m) && abandoned(m, w))
            idle = w;
        if (!oldest || w->used_at < oldest->used_at)
            oldest = w;
    }
    struct window *fresh = m->window_count < WINDOW_MAX ? &m->window[m->window_count ? m->window_count : 1] : NULL;
    if (!idle && fresh && window_make(fresh, true)) {
        m->window_count = (unsigned)(fresh - m->window) + 1;
        return fresh;
    }
    if (idle)
        oldest = idle;
    if (oldest) {
        if (!idle)
            COUNT(m, WINDOW_EVICTIONS);
        window_reset(m, oldest);
    }
    return oldest;
}

static struct window *user_window(struct machine *m)
{
    uint32_t cr3 = m->vm.cpu->cr3;
    struct window *w = find_user_window(m, cr3);
    if (w)
        return w;
    w = user_window_for(m);
    if (w)
        give_window(m, w, cr3);
    return w;
}

bool window_mark_chunk(struct machine *m, gva_t a, bool user)
{
    unsigned chunk = a.v >> CPU_CHUNK_SHIFT;
    if ((m->user_chunks >> chunk & 1) == user)
        return true;
    if (m->chunk_flips[chunk] >= CHUNK_FLIPS)
        return false;
    m->chunk_flips[chunk]++;
    m->user_chunks ^= 1u << chunk;
    m->data_base = 0;
    window_publish_data(m);
    return true;
}

struct window *window_data(struct machine *m)
{
    struct window *w = user_window(m);
    if (!w)
        return NULL;
    if (w->stale)
        window_revalidate(m, w);
    m->data = w;
    window_publish_data(m);
    return w;
}

void window_select(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    struct window *w = m->current;
    bool user = c->cpl == 3;
    if (!w || w->user != user || (user && w->cr3 != c->cr3)) {
        if (user) {
            w = user_window(m);
        } else {
            w = &m->window[0];
            if (!w->live && !window_make(w, false))
                w = NULL;
            if (!m->window_count)
                m->window_count = 1;
        }
        if (!w) {
            m->ended = true;
            m->end = RUN_FAILED;
            snprintf(m->res->error, sizeof(m->res->error), "cannot reserve address space for a window");
            return;
        }
        window_enter(m, w);
    }
    if (w->stale) {
        uint8_t was = vm_doing(&m->vm, RUN_DOING_WINDOW);
        window_revalidate(m, w);
        vm_doing(&m->vm, was);
    }
    window_publish(m, w);
}

void window_paging_changed(struct machine *m, enum vm_flush what, gva_t page)
{
    struct cpu *c = m->vm.cpu;
    uint32_t cr0 = c->cr0 & (CPU_CR0_PG | CPU_CR0_WP), cr4 = c->cr4 & (CPU_CR4_PSE | CPU_CR4_PAE | CPU_CR4_SMAP);
    if (cr0 != m->paging_cr0 || cr4 != m->paging_cr4 || (c->efer & CPU_EFER_NXE) != m->paging_efer) {
        m->paging_cr0 = cr0;
        m->paging_cr4 = cr4;
        m->paging_efer = c->efer & CPU_EFER_NXE;
        window_reset_all(m);
        m->data = find_user_window(m, c->cr3);
        window_publish_data(m);
        return;
    }
    if (what == VM_FLUSH_PAGE) {
        COUNT(m, INVLPG);
        window_volatile_begin(m, page.v);
        struct window *supervisor = &m->window[0], *user = find_user_window(m, c->cr3);
        struct region *r = supervisor->live ? supervisor->region[page.v >> 22] : NULL;
        if (r && paging_on(m)) /* the page may be a large one: all of its region that has changed goes */
            compare_half(m, supervisor, r, pae_on(m) ? page.v >> 21 & 1 : 0, pae_on(m));
        if (user) {
            /* Invalidations come in runs from the supervisor; compared once, on the way back to user code. */
            user->stale = true;
            window_publish_data(m);
        }
        return;
    }
    m->paging_epoch++;
    if (what == VM_FLUSH_CR3)
        COUNT(m, CR3_LOADS);
    if (!m->data || m->data->cr3 != c->cr3)
        m->data = find_user_window(m, c->cr3);
    /* A CR3 load must not cost more the more address spaces there are: it looks at those two only. */
    for (unsigned i = 0; what == VM_FLUSH_ALL && i < m->window_count; i++)
        m->window[i].stale = true;
    m->window[0].stale = true;
    if (m->data)
        m->data->stale = true;
    /* The kernel will look at the new address space before it returns there. */
    if (m->data && m->data->stale && paging_on(m))
        window_revalidate(m, m->data);
    window_publish_data(m);
}

/* -- Mapping
 * ----------------------------------------------------------------------------------------------------------------
 */

/* The remembered page table must show what the page was mapped from: were it left as it was when last
 * compared, an entry that changes back to that would pass for unchanged. */
static void note_entry(struct machine *m, struct region *r, unsigned page, uint64_t entry)
{
    r->entry[page] = entry;
    bool pae = pae_on(m);
    unsigned half = pae ? page / 512 : 0;
    if (page < r->first[half])
        r->first[half] = (uint16_t)page;
    if (page >= r->last[half])
        r->last[half] = (uint16_t)(page + 1);
    if (!r->copy[half])
        return;
    if (pae)
        ((uint64_t *)(void *)r->copy[half])[page % 512] = entry;
    else
        ((uint32_t *)(void *)r->copy[half])[page] = (uint32_t)entry;
}

static void note_page(struct machine *m, struct window *w, struct region *r, unsigned page, uint32_t pfn,
                      uint64_t entry, uint8_t state)
{
    (void)w;
    if (m->stepping && (state & PAGE_WRITE))
        vm_mirror_page(&m->vm, pfn);
    if (!r->state[page])
        r->used++;
    if (!(r->state[page] & (PAGE_READ | PAGE_WRITE)) && (state & (PAGE_READ | PAGE_WRITE))) {
        r->pfn[page] = pfn;
        rmap_add(m, r, page, pfn);
    }
    r->pfn[page] = pfn;
    note_entry(m, r, page, entry);
    r->state[page] = (uint8_t)((r->state[page] & PAGE_EXEC) | state);
}

/* Remembers the directory entry above a page just walked (paging on). */
static void note_directory(struct machine *m, struct region *r, uint32_t lin)
{
    unsigned half = pae_on(m) ? (lin >> 21) & 1 : 0;
    r->pde[half] = directory_entry(m, lin);
}

/* Page n of r is about to get frame pfn, as the ones in front of it got the ones in front: how many more may well follow? */
static unsigned pages_ahead(const struct machine *m, const struct window *w, const struct region *r, uint32_t n, uint32_t pfn)
{
    unsigned page = n % REGION_PAGES, count = 0;
    if (!w->user || m->stepping || !page || !(r->state[page - 1] & PAGE_WRITE) || r->pfn[page - 1] + 1 != pfn)
        return 0;
    while (count < RUN_AHEAD && page + 1 + count < REGION_PAGES && !r->state[page + 1 + count] &&
           (uint64_t)(pfn + 2 + count) * PAGE_SIZE_ <= m->vm.ram_bytes)
        count++;
    return count;
}

/* Pages that have just been shown get no rights. */
static void close_ahead(struct machine *m, struct window *w, uint32_t page, uint32_t pfn, unsigned count)
{
    COUNT(m, MPROTECTS);
    if (mprotect(w->base + (uint64_t)page * PAGE_SIZE_, (uint64_t)count * PAGE_SIZE_, PROT_NONE) != 0)
        unmap_host(m, w, page * PAGE_SIZE_, (uint64_t)count * PAGE_SIZE_);
    else
        w->ahead = (struct window_ahead){page, count, pfn};
}

/* Page n is to show frame pfn: true if it did already but for its rights, and has them now. */
static bool open_ahead(struct machine *m, struct window *w, uint32_t n, uint32_t pfn, bool write)
{
    struct window_ahead *a = &w->ahead;
    uint32_t skipped = n - a->page;
    if (skipped >= a->count || pfn - a->pfn != skipped ||
        mprotect(w->base + (uint64_t)n * PAGE_SIZE_, PAGE_SIZE_, host_rights(write)) != 0)
        return false;
    *a = (struct window_ahead){n + 1, a->count - skipped - 1, pfn + 1};
    COUNT(m, MPROTECTS);
    COUNT(m, MAP_OPENED);
    COUNT(m, PAGES_MAPPED);
    return true;
}

/* Maps n pages, and closed ones behind them. */
static bool map_host(struct machine *m, struct window *w, uint32_t lin, uint32_t pfn, unsigned n, bool write, unsigned ahead)
{
    COUNT(m, MMAPS);
    COUNT_ADD(m, PAGES_MAPPED, n);
    for (int attempt = 0; attempt < 2; attempt++) {
        if (show_ram(m, w, lin, pfn, n + ahead, write)) {
            if (ahead)
                close_ahead(m, w, lin / PAGE_SIZE_ + n, pfn + n, ahead);
            return true;
        }
        /* Most likely the host's limit of mappings per process: start over with few. */
        window_reset_all(m);
        COUNT(m, WINDOW_EVICTIONS);
    }
    return false;
}

/* True if linear page lin could share a mapping call with a neighbour that maps pfn with these rights. */
static bool run_fits(struct machine *m, struct window *w, uint32_t lin, uint32_t pfn, bool write,
                     struct mmu_page *p)
{
    uint32_t n = lin >> 12;
    struct region *r = w->region[n / REGION_PAGES];
    if (r && (r->state[n % REGION_PAGES] & (PAGE_READ | PAGE_WRITE)))
        return false;
    if (debug_watches_page(m->debug, lin))
        return false;
    if (!mmu_probe(&m->vm, gva(lin), p) || vm_frame(&m->vm, p->page.v, false) != pfn)
        return false;
    if (w->user ? !p->user : (p->user && paging_on(m)))
        return false;
    /* An entry not accessed yet must stay so until the guest touches it. */
    if (paging_on(m) && !(leaf_entry(m, p) & ENTRY_A))
        return false;
    return may_write(m, w, p, pfn) == write;
}

enum window_result window_fault(struct machine *m, struct window *w, gva_t a, bool write)
{
    struct mmu_page p;
    struct mmu_fault f;
    bool user = m->vm.cpu->cpl == 3;
    m->fault_site = m->fault_user = m->fault_chunk = m->fault_volatile = false;
    if (!mmu_walk(&m->vm, a, (write ? MMU_WRITE : 0) | (user ? MMU_USER : 0), &p, &f))
        return WINDOW_EMULATE;
    m->fault_site = true;
    uint32_t pfn = vm_frame(&m->vm, p.page.v, false);
    if (pfn == VM_NO_FRAME)
        return WINDOW_EMULATE;
    bool of_user = p.user && paging_on(m);
    m->fault_user = !w->user && of_user;
    m->fault_chunk = m->fault_user || (!user && w->user && !of_user);
    if (m->fault_chunk)
        return WINDOW_EMULATE;
    m->fault_volatile = !w->user && volatile_fault(m, a.v);
    if (m->fault_volatile || debug_watches_page(m->debug, a.v)) {
        m->fault_site = false; /* the page, not the instruction, is the odd one */
        return WINDOW_EMULATE;
    }
    if (write)
        p.dirty = true;
    bool can_write = may_write(m, w, &p, pfn);
    if (write && !can_write) {
        COUNT(m, FAULT_CODE);
        if (w->user && !user)
            m->fault_site = false; /* what the supervisor puts into user memory is seldom in a page of code */
        return WINDOW_EMULATE;
    }

    uint32_t lin = a.v & ~PAGE_MASK_, n = lin >> 12;
    struct region *r = region_get(m, w, n / REGION_PAGES);
    if (!r) {
        window_reset_all(m);
        r = region_get(m, w, n / REGION_PAGES);
    }
    uint8_t old = r->state[n % REGION_PAGES];
    if (old & (PAGE_READ | PAGE_WRITE)) {
        /* Mapped read-only, or the host dropped it: only this page. A changed frame cannot be here without a
         * flush, but is legal. */
        if (r->pfn[n % REGION_PAGES] != pfn)
            drop_page(m, w, r, n % REGION_PAGES);
        else
            COUNT(m, FAULT_DIRTY);
    }

    unsigned limit = w->user ? RUN_USER : RUN_SUPERVISOR, before = 0, after = 0;
    struct mmu_page q;
    uint32_t first_in_region = n & ~(REGION_PAGES - 1);
    bool fresh = !(old & (PAGE_READ | PAGE_WRITE));
    /* Aligned blocks: neighbours below and above inside the same block of `limit` pages. */
    while (fresh && (n - before) % limit != 0 && n - before > first_in_region && pfn > before &&
           run_fits(m, w, lin - (before + 1) * PAGE_SIZE_, pfn - before - 1, can_write, &q))
        before++;
    while (fresh && (n + after + 1) % limit != 0 &&
           run_fits(m, w, lin + (after + 1) * PAGE_SIZE_, pfn + after + 1, can_write, &q))
        after++;

    unsigned count = before + after + 1;
    uint32_t start = n - before;
    bool alone = fresh && can_write && count == 1;
    if (!(alone && open_ahead(m, w, n, pfn, can_write)) &&
        !map_host(m, w, start * PAGE_SIZE_, pfn - before, count, can_write, alone ? pages_ahead(m, w, r, n, pfn) : 0))
        return WINDOW_EMULATE;
    r = region_get(m, w, n / REGION_PAGES); /* map_host() may have emptied everything */
    if (paging_on(m))
        note_directory(m, r, lin);
    uint8_t state = can_write ? PAGE_READ | PAGE_WRITE : PAGE_READ;
    for (unsigned i = 0; i < count; i++) {
        uint32_t page = start + i;
        uint64_t e = 0;
        if (paging_on(m) && mmu_probe(&m->vm, gva(page * PAGE_SIZE_), &q))
            e = leaf_entry(m, &q);
        note_page(m, w, r, page % REGION_PAGES, pfn - before + i, e, state);
        if (!w->user)
            window_volatile_tell(m, page * PAGE_SIZE_, false);
    }
    COUNT(m, FAULT_MAP);
    if (!w->user)
        COUNT(m, MAP_SUPERVISOR);
    return WINDOW_MAPPED;
}

void window_map_volatile(struct machine *m, gva_t a)
{
    struct mmu_page p;
    uint8_t was = vm_doing(&m->vm, RUN_DOING_FAULT);
    window_volatile_tell(m, a.v, false);
    if (mmu_probe(&m->vm, a, &p) && p.accessed && !window_allows(m, a, false) && window_fault(m, m->current, a, false) == WINDOW_MAPPED)
        COUNT(m, MAP_AHEAD);
    vm_doing(&m->vm, was);
}

void window_withdraw(struct machine *m, uint32_t lin)
{
    for (unsigned i = 0; i < WINDOW_MAX; i++) {
        struct window *w = &m->window[i];
        struct region *r = w->live ? w->region[lin >> 22] : NULL;
        if (r && r->state[lin >> 12 & (REGION_PAGES - 1)])
            drop_page(m, w, r, lin >> 12 & (REGION_PAGES - 1));
    }
}

bool window_allows(const struct machine *m, gva_t a, bool write)
{
    const struct region *r = m->current->region[a.v >> 22];
    return r && (r->state[a.v >> 12 & (REGION_PAGES - 1)] & (write ? PAGE_WRITE : PAGE_READ));
}

void window_note_exec(struct machine *m, gva_t a, uint32_t pfn)
{
    struct window *w = m->current;
    uint32_t n = a.v >> 12;
    struct region *r = region_get(m, w, n / REGION_PAGES);
    if (!r) {
        window_reset_all(m);
        r = region_get(m, w, n / REGION_PAGES);
    }
    unsigned page = n % REGION_PAGES;
    if (r->state[page] & PAGE_EXEC && r->pfn[page] == pfn)
        return;
    if (r->state[page] && r->pfn[page] != pfn)
        drop_page(m, w, r, page);
    uint64_t e = 0;
    struct mmu_page p;
    if (paging_on(m)) {
        if (mmu_probe(&m->vm, a, &p))
            e = leaf_entry(m, &p);
        note_directory(m, r, a.v);
    }
    if (!r->state[page]) {
        r->used++;
        r->pfn[page] = pfn;
        note_entry(m, r, page, e);
    }
    r->state[page] |= PAGE_EXEC;
}

uint32_t window_exec_pfn(const struct window *w, uint32_t lin)
{
    uint32_t n = lin >> 12;
    const struct region *r = w->region[n / REGION_PAGES];
    return r && (r->state[n % REGION_PAGES] & PAGE_EXEC) ? r->pfn[n % REGION_PAGES] : UINT32_MAX;
}

void window_protect(struct machine *m, uint32_t pfn)
{
    for (uint32_t id = m->rmap[pfn]; id;
         id = m->region_pool[(id - 1) / REGION_PAGES].rmap[(id - 1) % REGION_PAGES]) {
        struct region *r = &m->region_pool[(id - 1) / REGION_PAGES];
        unsigned page = (id - 1) % REGION_PAGES;
        r->state[page] &= (uint8_t)~PAGE_HELD;
        if (!(r->state[page] & PAGE_WRITE))
            continue;
        struct window *w = &m->window[r->window];
        COUNT(m, MPROTECTS);
        TRACE(m, PAGE_PROTECT, (uint64_t)(r->index * REGION_PAGES + page) * PAGE_SIZE_, (uint64_t)pfn * PAGE_SIZE_);
        if (mprotect(w->base + (uint64_t)(r->index * REGION_PAGES + page) * PAGE_SIZE_, PAGE_SIZE_,
                     PROT_READ) != 0) {
            window_reset(m, w); /* out of VMAs; the list has changed under us: start again */
            window_protect(m, pfn);
            return;
        }
        r->state[page] &= (uint8_t)~PAGE_WRITE;
    }
}

/* -- Lockstep
 * ---------------------------------------------------------------------------------------------------------------
 */

/* Pages of a region in state `from` get state `to` and the host's rights prot, a call for each run of them.
 */
static bool change_writes(struct machine *m, struct window *w, struct region *r, uint8_t from, uint8_t to,
                          int prot)
{
    for (unsigned i = 0, n; i < REGION_PAGES; i += n) {
        for (n = 0; i + n < REGION_PAGES && (r->state[i + n] & from); n++)
            r->state[i + n] = (uint8_t)((r->state[i + n] & ~from) | to);
        if (!n) {
            n = 1;
            continue;
        }
        COUNT(m, MPROTECTS);
        if (mprotect(w->base + (uint64_t)(r->index * REGION_PAGES + i) * PAGE_SIZE_, (size_t)n * PAGE_SIZE_,
                     prot))
            return false;
    }
    return true;
}

static void change_all_writes(struct machine *m, uint8_t from, uint8_t to, int prot)
{
    for (unsigned i = 0; i < m->window_count; i++) {
        struct window *w = &m->window[i];
        for (uint32_t n = 0; w->live && n < w->region_count; n++)
            if (!change_writes(m, w, w->region[w->region_list[n]], from, to, prot)) {
                window_reset(m, w); /* out of VMAs: pages come back when they are touched */
                break;
            }
    }
}

void window_hold_writes(struct machine *m)
{
    change_all_writes(m, PAGE_WRITE, PAGE_HELD, PROT_READ);
}

void window_give_writes(struct machine *m)
{
    change_all_writes(m, PAGE_HELD, PAGE_WRITE, PROT_READ | PROT_WRITE);
}
