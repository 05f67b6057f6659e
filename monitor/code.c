/* monitor/code.c: patched pages in memory: found, loaded, made, placed, linked and dropped.
 *
 * page_code  the verso of one guest-physical page in one mode, position-independent, as the cache stores it
 * inst       a copy of it in executable memory for one linear address of that page, its relocations applied; of the code, the first
 * one is the only copy there is
 * thunk      the check in front of an entry: `r8d == this EIP?` without touching flags; what the
 * indirect-branch tables point to. Its JRCXZ is taken where the EIP is right: the processor tells jumps apart by the
 * taken ones before them, and so predicts a byte-code interpreter's next jump better than with a check that falls through
 *
 * Code memory is one memfd mapped twice, writable and executable (W^X by address). It is filled from one end,
 * with thunks between the instances (CODE_SEGMENT), and emptied as a whole when full. Dropped instances stay in place until then, unreachable: their thunks
 * lead to the miss stub, links into them are taken back and the shadow stack is emptied.
 *
 * Direct branches are linked page to page, and so is an instruction that runs into the next page (a unit, which lies in both). Supervisor: one
 * window serves all of its address spaces, so a link holds as long as the target's linear pages keep their mappings (window.c calls
 * code_unlink_linear()). User:
 * the same instance serves every process that maps the page at that address, and the neighbour page may
 * differ between them. There the rule is: if an instance is reachable in a window
 * (`reached` holds the window's exec_epoch), so is everything it is linked to, and mapped as the links
 * assume. An instance becomes reachable in a window through code_resolve() alone, which checks the closure of
 * its links and takes back those that do not hold; a window that loses a code mapping starts a new epoch, in
 * which nothing is reachable yet.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include "monitor/machine.h"
#include "monitor/profile.h"

#define LINEAR_PAGES     (1u << 20)
#define THUNK_HASH       65536u
#define LINK_MAX         (1u << 21)
#define CODE_AHEAD       (256ull << 10)
#define TABLE_AHEAD      (256u << 10)
#define HEAP_AHEAD       (1u << 20)
#define USER_LINKS_TRIED 256u
#define ENTRY_PATIENCE   3u
#define INST_HASH        65536u
#define THUNK_NUMBERS    ((uint32_t)(CODE_SIZE / THUNK_SIZE))
#define THUNK_RUN        4096u  /* bytes taken for thunks at a time */
#define THUNK_RUN_FIRST  16384u /* at the beginning of a segment */
_Static_assert(XLAT_CODE_MAX <= CODE_SEGMENT - THUNK_RUN_FIRST, "a verso fits in a segment of code memory");

struct thunk {
    uint32_t eip;
    struct inst *inst;                   /* NULL: leaves to the emulator */
    uint32_t next_of_inst, next_in_hash; /* + 1 */
    bool check;                          /* begins with the check of r8d */
};

/* In code_owner[]: thunks. */
static struct inst thunk_owner;

/* The rest is in the verso's links. Short, since there are 90 of them for each page. */
struct link_rec {
    uint32_t from, to;              /* numbers of instances; to: linked at present, + 1 */
    uint32_t target;                /* guest EIP */
    uint32_t next_by_page, next_in; /* + 1 */
};

static bool bit(const uint8_t *map, unsigned i)
{
    return map[i >> 3] >> (i & 7) & 1;
}
static void set_bit(uint8_t *map, unsigned i)
{
    map[i >> 3] |= (uint8_t)(1u << (i & 7));
}
static enum xlat_hint hint_of(const struct page_code *pc, unsigned off)
{
    return pc->notes ? (enum xlat_hint)(pc->notes->hint[off >> 2] >> 2 * (off & 3) & 3) : XLAT_HINT_NONE;
}
static bool emulates(const struct page_code *pc, unsigned off)
{
    return pc->notes && bit(pc->notes->emulate, off);
}
static bool want_notes(struct page_code *pc)
{
    if (!pc->notes)
        pc->notes = calloc(1, sizeof(*pc->notes));
    return pc->notes;
}
static bool straddles(const struct page_code *pc, unsigned off)
{
    return off >= SCAN_PAGE_SIZE - 16 && pc->straddle >> (off & 15) & 1;
}

/* The tables of this file: reserved at their greatest size, touched as they fill. */
#define ARRAYS 12u
struct array {
    void **at;
    size_t bytes;
};

static void arrays(struct machine *m, struct array out[ARRAYS])
{
#define ARRAY(field, n)                                                                                      \
    {                                                                                                        \
        (void **)&m->field, (n) * sizeof(*m->field)                                                          \
    }
    const struct array all[ARRAYS] = {
        ARRAY(code_owner, CODE_SIZE / CODE_GRANULE),
        ARRAY(thunk, THUNK_NUMBERS),
        ARRAY(thunk_hash, THUNK_HASH),
        ARRAY(page_hash, PAGE_HASH),
        ARRAY(inst_hash, INST_HASH),
        ARRAY(inst_pool, INST_MAX),
        ARRAY(reach_pool, INST_MAX),
        ARRAY(link, LINK_MAX),
        ARRAY(link_by_page[0], LINEAR_PAGES),
        ARRAY(link_by_page[1], LINEAR_PAGES),
        ARRAY(inst_at, LINEAR_PAGES),
        ARRAY(smc, m->frames),
    };
#undef ARRAY
    memcpy(out, all, sizeof(all));
}

bool code_init(struct machine *m, char *err, size_t err_size)
{
    m->code_fd = memfd_create("verso-code", MFD_CLOEXEC);
    if (m->code_fd < 0 || ftruncate(m->code_fd, (off_t)CODE_SIZE) != 0)
        goto fail;
    m->code_rw = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, m->code_fd, 0);
    m->code_rx = mmap(NULL, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, m->code_fd, 0);
    if (m->code_rw == MAP_FAILED || m->code_rx == MAP_FAILED)
        goto fail;
    struct array all[ARRAYS];
    arrays(m, all);
    for (unsigned i = 0; i < ARRAYS; i++) {
        *all[i].at = mmap(NULL, all[i].bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (*all[i].at == MAP_FAILED)
            goto fail;
    }
    mallopt(M_TOP_PAD, HEAP_AHEAD);
    mallopt(M_TRIM_THRESHOLD, 64 * HEAP_AHEAD);
    m->scan = malloc(sizeof(*m->scan));
    m->code_fill = malloc(CODE_AHEAD);
    if (!m->scan || !m->code_fill)
        goto fail;
    memset(m->code_fill, 0xCC, CODE_AHEAD);
    m->code_used = m->code_touched = 0;
    m->options = xlat_host_options();
    m->fingerprint = xlat_fingerprint(m->options);
    return true;
fail:
    snprintf(err, err_size, "cannot reserve code memory: %s", strerror(errno));
    return false;
}

/* Host offset of the entry at off, or -1. */
static int32_t entry_of(const struct page_code *pc, uint32_t off)
{
    const struct xlat_verso *v = &pc->verso;
    return pc->index.made ? xlat_index_find(&pc->index, v->unwind, off) : xlat_entry(v->unwind, v->unwind_len, off);
}

static void page_code_free(struct page_code *pc)
{
    free(pc->marks);
    free(pc->notes);
    free(pc->patch);
    if (pc->kept)
        free(pc->verso.code);
    xlat_verso_free(&pc->verso);
    free(pc);
}

void code_destroy(struct machine *m)
{
    for (unsigned i = 0; m->page_hash && i < PAGE_HASH; i++)
        for (struct page_code *pc = m->page_hash[i], *next; pc; pc = next) {
            next = pc->next;
            page_code_free(pc);
        }
    munmap(m->code_rw, CODE_SIZE);
    munmap(m->code_rx, CODE_SIZE);
    struct array all[ARRAYS];
    arrays(m, all);
    for (unsigned i = 0; i < ARRAYS; i++)
        munmap(*all[i].at, all[i].bytes);
    close(m->code_fd);
    free(m->scan);
    free(m->code_fill);
    xlat_verso_free(&m->verso);
    cache_buf_free(&m->cache_buf);
}

/* -- Writing host code
 * ---------------------------------------------------------------------------------------------------- */

static void put32(struct machine *m, uint64_t off, uint32_t v)
{
    memcpy(m->code_rw + off, &v, 4);
}

static uint64_t host_of(const struct machine *m, uint64_t off)
{
    return (uint64_t)(uintptr_t)m->code_rx + off;
}

#define STUB_OFF(id) ((uint32_t)(offsetof(struct cpu, stub) + 8u * XLAT_STUB_##id))

/* mov r9,rcx; lea ecx,[r8-eip]; jrcxz 1f; mov rcx,r9; jmp [MISS]; 1: mov rcx,r9; jmp target */
static void write_thunk(struct machine *m, uint64_t off, uint32_t eip, uint64_t target_off)
{
    static const uint8_t form[THUNK_SIZE] = {0x49, 0x89, 0xC9, 0x41, 0x8D, 0x88, 0,    0, 0,    0,   0xE3,
                                             0x0A, 0x4C, 0x89, 0xC9, 0x41, 0xFF, 0xA5, 0, 0,    0,   0,
                                             0x4C, 0x89, 0xC9, 0xE9, 0,    0,    0,    0, 0xCC, 0xCC};
    memcpy(m->code_rw + off, form, THUNK_SIZE);
    put32(m, off + 6, 0u - eip);
    put32(m, off + 18, STUB_OFF(MISS));
    put32(m, off + 26, (uint32_t)(target_off - (off + 30)));
}

/* A thunk whose instance is gone: a match goes to the miss stub too. */
static void kill_thunk(struct machine *m, uint32_t n)
{
    uint64_t off = (uint64_t)n * THUNK_SIZE;
    put32(m, off + 26, (uint32_t)((off + 15) - (off + 30)));
}

/* mov r8d,eip; mov r10d,pfn; jmp [RUN]: right in any window, since the emulator looks for itself. */
static void write_run_stub(struct machine *m, uint64_t off, uint32_t eip, uint32_t pfn)
{
    static const uint8_t form[19] = {0x41, 0xB8, 0, 0, 0, 0, 0x41, 0xBA, 0, 0, 0, 0, 0x41, 0xFF, 0xA5, 0, 0, 0, 0};
    memcpy(m->code_rw + off, form, sizeof(form));
    put32(m, off + 2, eip);
    put32(m, off + 8, pfn);
    put32(m, off + 15, STUB_OFF(RUN));
}

/* mov r8d,eip; jmp [EMULATE] */
static void write_emulate_stub(struct machine *m, uint64_t off, uint32_t eip)
{
    static const uint8_t form[13] = {0x41, 0xB8, 0, 0, 0, 0, 0x41, 0xFF, 0xA5, 0, 0, 0, 0};
    memcpy(m->code_rw + off, form, sizeof(form));
    put32(m, off + 2, eip);
    put32(m, off + 9, STUB_OFF(EMULATE));
}

static struct inst **inst_bucket(struct machine *m, const struct page_code *pc, uint32_t lin)
{
    uint64_t h = ((uint64_t)(uintptr_t)pc >> 4) * 0x9E3779B97F4A7C15ull + (uint64_t)lin * 0x9E3779B1u;
    return &m->inst_hash[(h >> 24) % INST_HASH];
}

static uint32_t *thunk_bucket(struct machine *m, const struct inst *in, uint32_t eip)
{
    uint64_t h = (uint64_t)eip * 0x9E3779B1u ^ (uint32_t)(in - m->inst_pool) * 0x85EBCA6Bu;
    return &m->thunk_hash[(uint32_t)(h >> 7) % THUNK_HASH];
}

static struct inst *inst_find(struct machine *m, const struct page_code *pc, uint32_t lin)
{
    for (struct inst *in = *inst_bucket(m, pc, lin); in; in = in->next_in_hash)
        if (in->page == pc && in->lin == lin)
            return in;
    return NULL;
}

/* Memory ahead of use: one call for many pages instead of a dear fault for each. */

/* New pages of the file come from writing to it: what is written whole is not cleared first, and then there is only mapping left to do.
 * 2.3 us a page where MADV_POPULATE_WRITE alone took 3.0. Between the versos stays INT3. */
static bool fill_code(struct machine *m, uint64_t from, uint64_t size)
{
    if (lseek(m->code_fd, (off_t)from, SEEK_SET) != (off_t)from)
        return false;
    while (size) {
        ssize_t n = write(m->code_fd, m->code_fill, size < CODE_AHEAD ? size : CODE_AHEAD);
        if (n <= 0)
            return false;
        size -= (uint64_t)n;
    }
    return true;
}

static void prefault_code(struct machine *m, uint64_t end)
{
    while (m->code_touched < end) {
        uint64_t n = CODE_SIZE - m->code_touched < CODE_AHEAD ? CODE_SIZE - m->code_touched : CODE_AHEAD;
        bool filled = fill_code(m, m->code_touched, n);
        madvise(m->code_rw + m->code_touched, n, filled ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
        madvise(m->code_rx + m->code_touched, n, MADV_POPULATE_READ);
        m->code_touched += n;
    }
}

static void prefault_table(void *table, size_t item, uint32_t need, uint32_t *touched, uint32_t max)
{
    while (*touched < need) {
        uint32_t n = (uint32_t)(TABLE_AHEAD / item), from = *touched;
        n = max - from < n ? max - from : n;
        uintptr_t begin = ((uintptr_t)table + from * item) & ~(uintptr_t)PAGE_MASK_;
        madvise((void *)begin, (uintptr_t)table + (from + n) * item - begin, MADV_POPULATE_WRITE);
        *touched += n;
    }
}

/* malloc() takes HEAP_AHEAD at a time from the end of the heap (see code_init()). */
static void prefault_heap(struct machine *m)
{
    uintptr_t end = (uintptr_t)sbrk(0), from = m->heap_touched;
    if (end == from)
        return;
    if (from && end > from && end - from <= 16 * HEAP_AHEAD) {
        from = (from + PAGE_MASK_) & ~(uintptr_t)PAGE_MASK_;
        madvise((void *)from, (end & ~(uintptr_t)PAGE_MASK_) - from, MADV_POPULATE_WRITE);
    }
    m->heap_touched = end;
}

/* -- Links
 * -----------------------------------------------------------------------------------------------------------------
 */

static struct inst *link_from(const struct machine *m, uint32_t n)
{
    return &m->inst_pool[m->link[n].from];
}

/* What a branch is linked to, or NULL. */
static struct inst *link_at(const struct machine *m, uint32_t n)
{
    return m->link[n].to ? &m->inst_pool[m->link[n].to - 1] : NULL;
}

/* Does a branch to that offset want this verso of the page? An instruction that runs into the next page is in a unit. */
static bool is_meant(uint32_t target, const struct inst *from, const struct inst *to)
{
    uint32_t off = target & PAGE_MASK_;
    if (!to->page->unit)
        return !straddles(to->page, off);
    return to->page->unit_off == off && to->lin == target - off && (from->lin != to->lin || from->page->pfn == to->page->pfn);
}

static bool linkable(const struct machine *m, uint32_t n, const struct inst *to)
{
    const struct inst *from = link_from(m, n);
    return !m->link[n].to && !from->dead && !to->dead && is_meant(m->link[n].target, from, to) && from->page->mode == to->page->mode &&
           from->page->verso.options == to->page->verso.options;
}

/* Makes the branch of a living instance go to an offset in code memory, or to its tail again (UINT64_MAX). */
static void point_branch(struct machine *m, uint32_t n, uint64_t to)
{
    const struct inst *from = link_from(m, n);
    const struct xlat_link *x = &from->page->verso.links[n - from->link_first];
    uint64_t field = from->code_off + (uint64_t)x->field_off;
    put32(m, field, (uint32_t)((to == UINT64_MAX ? from->code_off + (uint64_t)x->tail_off : to) - (field + 4)));
}

static void link_to(struct machine *m, uint32_t n, struct inst *to)
{
    struct link_rec *l = &m->link[n];
    int32_t host = entry_of(to->page, l->target & PAGE_MASK_);
    if (host < 0)
        return;
    point_branch(m, n, to->code_off + (uint64_t)(uint32_t)host);
    l->to = (uint32_t)(to - m->inst_pool) + 1;
    l->next_in = to->in_links;
    to->in_links = n + 1;
    COUNT(m, LINKS);
}

/* The branch goes through the table again; that of a dead instance is never executed. The record stays in the list of its target's page. */
static void unlink_branch(struct machine *m, uint32_t n)
{
    if (!link_from(m, n)->dead)
        point_branch(m, n, UINT64_MAX);
    m->link[n].to = m->link[n].next_in = 0;
}

static void unlink_all_into(struct machine *m, struct inst *to)
{
    for (uint32_t n = to->in_links, next; n; n = next) {
        next = m->link[n - 1].next_in;
        unlink_branch(m, n - 1);
    }
    to->in_links = 0;
}

static void unlink_one(struct machine *m, uint32_t n)
{
    uint32_t *at = &link_at(m, n)->in_links;
    while (*at != n + 1)
        at = &m->link[*at - 1].next_in;
    *at = m->link[n].next_in;
    unlink_branch(m, n);
}

static void links_of_new(struct machine *m, struct inst *in)
{
    const struct xlat_verso *v = &in->page->verso;
    uint32_t *by_page = m->link_by_page[!!(in->page->mode & XLAT_MODE_USER)];
    in->link_first = m->link_used;
    in->link_count = v->link_count;
    for (uint32_t i = 0; i < v->link_count; i++) {
        uint32_t n = m->link_used++;
        uint32_t target = in->lin + (uint32_t)v->links[i].target;
        m->link[n] = (struct link_rec){(uint32_t)(in - m->inst_pool), 0, target, by_page[target >> 12], 0};
        by_page[target >> 12] = n + 1;
    }
}

/* Calls back for records of living code that branches to linear page lin, newest first; forgets those of dead
 * code. Processes come and go at random addresses, so that user lists grow long with code that never runs
 * again: at most `limit` are looked at. */
static void each_link_to(struct machine *m, bool user, uint32_t lin, unsigned limit, struct inst *to,
                         void (*fn)(struct machine *, uint32_t n, struct inst *to))
{
    uint32_t *prev = &m->link_by_page[user][lin >> 12];
    for (uint32_t n = *prev; n && limit; n = *prev, limit--) {
        struct link_rec *l = &m->link[n - 1];
        if (link_from(m, n - 1)->dead) {
            *prev = l->next_by_page;
            continue;
        }
        fn(m, n - 1, to);
        prev = &l->next_by_page;
    }
}

static void link_supervisor(struct machine *m, uint32_t n, struct inst *to)
{
    if (linkable(m, n, to))
        link_to(m, n, to);
}

static struct page_code *page_find(struct machine *m, uint32_t pfn, uint32_t mode);

/* A unit's own page may hold the oldest of many branches to that page, or code that was made since the unit was. */
static void link_own_page(struct machine *m, struct inst *unit, void (*fn)(struct machine *, uint32_t n, struct inst *to))
{
    struct page_code *pc = page_find(m, unit->page->pfn, unit->page->mode);
    const struct inst *own = pc ? inst_find(m, pc, unit->lin) : NULL;
    for (uint32_t n = own ? own->link_first : 0; own && n < own->link_first + own->link_count; n++)
        if (m->link[n].target == unit->lin + unit->page->unit_off)
            fn(m, n, unit);
}

/* `in` is now what supervisor code finds at its linear page. */
static void publish_linear(struct machine *m, struct inst *in)
{
    struct inst *was = m->inst_at[in->lin >> 12];
    if (was == in)
        return;
    if (!in->page->unit) {
        if (was)
            unlink_all_into(m, was);
        m->inst_at[in->lin >> 12] = in;
    } else if (in->reached[0] == m->current->exec_epoch) {
        link_own_page(m, in, link_supervisor);
        return;
    }
    each_link_to(m, false, in->lin, UINT32_MAX, in, link_supervisor);
    in->reached[0] = m->current->exec_epoch;
    for (uint32_t n = in->link_first; n < in->link_first + in->link_count; n++) {
        struct inst *to = m->inst_at[m->link[n].target >> 12];
        if (to)
            link_supervisor(m, n, to);
    }
}

static void unlink_unit(struct machine *m, uint32_t n, struct inst *to)
{
    (void)to;
    const struct inst *at = link_at(m, n);
    if (at && at->page->unit)
        unlink_one(m, n);
}

void code_unlink_linear(struct machine *m, uint32_t lin)
{
    /* Units lie in this page and the next, or in the one before and this. */
    each_link_to(m, false, lin, UINT32_MAX, NULL, unlink_unit);
    each_link_to(m, false, lin - PAGE_SIZE_, UINT32_MAX, NULL, unlink_unit);
    struct inst *in = m->inst_at[lin >> 12];
    if (!in)
        return;
    unlink_all_into(m, in);
    m->inst_at[lin >> 12] = NULL;
}

/* -- Links of user code
 * ------------------------------------------------------------------------------------------------------ */

static bool reached_in(const struct machine *m, const struct inst *in, unsigned w)
{
    return m->window[w].live && in->reached[w] == m->window[w].exec_epoch;
}

/* A link may be made if everywhere its source can run, its target is what the branch means. */
static void link_user(struct machine *m, uint32_t n, struct inst *to)
{
    if (!linkable(m, n, to))
        return;
    for (unsigned w = 1; w < m->window_count; w++)
        if (reached_in(m, link_from(m, n), w) && !reached_in(m, to, w))
            return;
    link_to(m, n, to);
}

/* The instance that user code of the current window would find at linear page lin, if it has been there. */
static struct inst *user_inst(struct machine *m, uint32_t lin, uint32_t mode)
{
    uint32_t pfn = window_exec_pfn(m->current, lin);
    struct page_code *pc = pfn == UINT32_MAX ? NULL : page_find(m, pfn, mode);
    return pc ? inst_find(m, pc, lin & ~PAGE_MASK_) : NULL;
}

/* Does the current window show the frame at a linear page? Notes the mapping if so. */
static bool shows(struct machine *m, uint32_t lin, uint32_t wanted)
{
    uint32_t pfn = window_exec_pfn(m->current, lin);
    if (pfn == wanted)
        return true;
    struct mmu_page p;
    struct mmu_fault f;
    if (pfn != UINT32_MAX || !mmu_walk(&m->vm, gva(lin), MMU_EXEC | MMU_USER, &p, &f) ||
        vm_frame(&m->vm, p.page.v, false) != wanted)
        return false;
    window_note_exec(m, gva(lin), wanted);
    return true;
}

/* Is `to` what the current window has at its address? */
static bool still_mapped(struct machine *m, const struct inst *to)
{
    return shows(m, to->lin, to->page->pfn) && (!to->page->unit || shows(m, to->lin + PAGE_SIZE_, to->page->pfn2));
}

/* Makes `in` reachable in the current window: checks the closure of its links, then links what can be linked.
 */
static void reach_user(struct machine *m, struct inst *in)
{
    struct window *w = m->current;
    unsigned id = (unsigned)(w - m->window);
    if (in->reached[id] == w->exec_epoch) {
        if (in->page->unit)
            link_own_page(m, in, link_user);
        return;
    }
    static _Thread_local struct inst *work[INST_MAX];
    unsigned depth = 0;
    uint32_t epoch = w->exec_epoch;
    in->reached[id] = epoch;
    work[depth++] = in;
    while (depth) {
        struct inst *at = work[--depth];
        for (uint32_t n = at->link_first; n < at->link_first + at->link_count; n++) {
            struct inst *to = link_at(m, n);
            if (!to || to->reached[id] == epoch)
                continue;
            if (!still_mapped(m, to)) {
                unlink_one(m, n);
                continue;
            }
            to->reached[id] = epoch;
            work[depth++] = to;
        }
    }
    if (w->exec_epoch !=
        epoch) { /* noting a mapping displaced another: nothing is reachable, and nothing gets linked now */
        in->reached[id] = 0;
        return;
    }
    each_link_to(m, true, in->lin, USER_LINKS_TRIED, in, link_user);
    if (in->page->unit)
        link_own_page(m, in, link_user);
    for (uint32_t n = in->link_first; n < in->link_first + in->link_count; n++) {
        struct inst *to = m->link[n].to ? NULL : user_inst(m, m->link[n].target, in->page->mode);
        if (to && to->reached[id] == epoch)
            link_user(m, n, to);
    }
}

/* -- Instances
 * -------------------------------------------------------------------------------------------------------------
 */

/* Empties the tables entry by entry, as far as they are filled. */
static void forget_insts(struct machine *m)
{
    for (uint32_t i = 0; i < m->inst_used; i++) {
        struct inst *in = &m->inst_pool[i];
        for (uint32_t n = in->thunks; n; n = m->thunk[n - 1].next_of_inst)
            *thunk_bucket(m, in, m->thunk[n - 1].eip) = 0;
        m->inst_at[in->lin >> 12] = NULL;
        if (in->dead)
            continue;
        *inst_bucket(m, in->page, in->lin) = NULL;
        in->page->insts = NULL;
    }
    for (uint32_t i = 0; i < m->link_used; i++) {
        m->link_by_page[0][m->link[i].target >> 12] = 0;
        m->link_by_page[1][m->link[i].target >> 12] = 0;
        m->inst_at[m->link[i].target >> 12] = NULL;
    }
    memset(m->code_owner, 0, m->code_used / CODE_GRANULE * sizeof(*m->code_owner));
    memset(m->thunk_room, 0, sizeof(m->thunk_room));
    memset(m->reach_pool, 0, m->reach_used * sizeof(*m->reach_pool));
    m->inst_used = m->reach_used = m->link_used = 0;
    m->code_used = 0;
}

/* -- Where a verso's code is
 * ------------------------------------------------------------------------------------------------------ */

/* Puts a verso's code at dst, for linear address lin. From where it is kept in code memory: what was done to it there is undone. */
static void put_code(const struct machine *m, const struct page_code *pc, uint8_t *dst, uint32_t lin)
{
    const struct xlat_verso *v = &pc->verso;
    uint32_t move = v->code ? lin : lin - pc->home_lin;
    memcpy(dst, v->code ? v->code : m->code_rw + pc->home, v->code_len);
    for (uint32_t i = 0; i < pc->patch_count; i++)
        memcpy(dst + pc->patch[i].host, pc->patch[i].bytes, sizeof(pc->patch[i].bytes));
    for (uint32_t i = 0; i < v->link_count && !v->code; i++) {
        uint32_t rel = v->links[i].tail_off - (v->links[i].field_off + 4);
        memcpy(dst + v->links[i].field_off, &rel, 4);
    }
    for (uint32_t i = 0; i < v->reloc_count; i++) {
        uint32_t field;
        memcpy(&field, dst + v->relocs[i].host_off, 4);
        field += move;
        memcpy(dst + v->relocs[i].host_off, &field, 4);
    }
}

uint8_t *code_of_page(const struct machine *m, const struct page_code *pc)
{
    uint8_t *code = malloc(pc->verso.code_len + 1);
    if (code)
        put_code(m, pc, code, 0);
    return code;
}

/* 5 bytes at host are about to be changed in an instance. False: out of memory. */
static bool note_patch(const struct machine *m, const struct inst *in, uint32_t host)
{
    struct page_code *pc = in->page;
    if (in->code_off != pc->home)
        return true;
    struct page_patch *all = realloc(pc->patch, (pc->patch_count + 1) * sizeof(*all));
    if (!all)
        return false;
    pc->patch = all;
    all[pc->patch_count].host = host;
    memcpy(all[pc->patch_count].bytes, m->code_rw + in->code_off + host, sizeof(all->bytes));
    pc->patch_count++;
    return true;
}

/* Code memory is to be emptied: all versos but one are forgotten, to be loaded or made again. */
static void drop_versos(struct machine *m, const struct page_code *keep)
{
    for (unsigned b = 0; b < PAGE_HASH; b++)
        for (struct page_code **at = &m->page_hash[b], *pc; (pc = *at);) {
            if (pc == keep) {
                at = &pc->next;
                continue;
            }
            *at = pc->next;
            page_code_free(pc);
        }
}

/* keep: a verso that is needed right after. False: it has been forgotten all the same, being out of memory. */
static bool flush_all(struct machine *m, struct page_code *keep)
{
    if (!keep->verso.code) {
        uint8_t *code = code_of_page(m, keep);
        keep->verso.code = code;
        keep->kept = code != NULL;
        keep->patch_count = 0;
    }
    bool kept = keep->verso.code != NULL;
    COUNT(m, CODE_FLUSHES);
    emu_x87_settle(&m->vm);
    TRACE(m, PAGE_FLUSH, m->code_used);
    forget_insts(m);
    drop_versos(m, kept ? keep : NULL);
    window_forget_branches(m);
    profile_flushed(m);
    return kept;
}

void code_reset(struct machine *m)
{
    forget_insts(m);
    memset(m->smc, 0, m->frames * sizeof(*m->smc));
    for (uint32_t pfn = 0; pfn < m->frames; pfn++) {
        if (!m->vm.code_pages[pfn])
            continue;
        struct page_code **bucket = &m->page_hash[code_page_bucket(pfn)];
        for (struct page_code *pc = *bucket, *next; pc; pc = next) {
            next = pc->next;
            page_code_free(pc);
        }
        *bucket = NULL;
        m->vm.code_pages[pfn] = 0;
    }
}

/* Bytes of code memory from its present end on. */
static void take_code(struct machine *m, uint64_t bytes, struct inst *owner)
{
    prefault_code(m, m->code_used + bytes);
    for (uint64_t g = m->code_used / CODE_GRANULE; g < (m->code_used + bytes) / CODE_GRANULE; g++)
        m->code_owner[g] = owner;
    m->code_used += bytes;
}

/* Code memory's end becomes a run of thunks of that segment. */
static void take_thunk_run(struct machine *m, unsigned segment, uint32_t bytes)
{
    m->thunk_room[segment].next = (uint32_t)(m->code_used / THUNK_SIZE);
    m->thunk_room[segment].end = (uint32_t)((m->code_used + bytes) / THUNK_SIZE);
    take_code(m, bytes, &thunk_owner);
}

/* The offset of that much room for code in one segment, or UINT64_MAX: code memory is full. */
static uint64_t place_code(struct machine *m, uint64_t room)
{
    uint64_t left = CODE_SEGMENT - m->code_used % CODE_SEGMENT;
    bool begin = left == CODE_SEGMENT || left < room;
    uint64_t at = begin ? m->code_used + left % CODE_SEGMENT : m->code_used;
    if (at + (begin ? THUNK_RUN_FIRST : 0) + room > CODE_SIZE)
        return UINT64_MAX;
    if (begin) {
        take_code(m, at - m->code_used, NULL);
        take_thunk_run(m, (unsigned)(at / CODE_SEGMENT), THUNK_RUN_FIRST);
    }
    return m->code_used;
}

/* A thunk's number for code at that offset; UINT32_MAX: code memory is full. */
static uint32_t thunk_take(struct machine *m, uint64_t code_off)
{
    unsigned segment = (unsigned)(code_off / CODE_SEGMENT);
    if (m->thunk_room[segment].next == m->thunk_room[segment].end) {
        if (place_code(m, THUNK_RUN) == UINT64_MAX)
            return UINT32_MAX;
        if (m->thunk_room[segment].next == m->thunk_room[segment].end) /* it is not the segment that has just begun */
            take_thunk_run(m, segment, THUNK_RUN);
    }
    return m->thunk_room[segment].next++;
}

/* NULL: pc has been forgotten, for want of memory for its code. */
static struct inst *inst_make(struct machine *m, struct page_code *pc, uint32_t lin)
{
    const struct xlat_verso *v = &pc->verso;
    uint64_t room = (v->code_len + CODE_GRANULE - 1) & ~(uint64_t)(CODE_GRANULE - 1);
    if (m->inst_used == INST_MAX || m->link_used + v->link_count > LINK_MAX || place_code(m, room) == UINT64_MAX) {
        if (!flush_all(m, pc))
            return NULL;
        place_code(m, room);
    }
    prefault_table(m->inst_pool, sizeof(*m->inst_pool), m->inst_used + 1, &m->inst_touched, INST_MAX);
    prefault_table(m->link, sizeof(*m->link), m->link_used + v->link_count, &m->link_touched, LINK_MAX);
    struct inst *in = &m->inst_pool[m->inst_used++];
    *in = (struct inst){.page = pc, .lin = lin, .code_off = (uint32_t)m->code_used, .code_len = v->code_len};
    take_code(m, room, in);
    in->reached = &in->reached_0;
    if (pc->mode & XLAT_MODE_USER) {
        prefault_table(m->reach_pool, sizeof(*m->reach_pool), m->reach_used + 1, &m->reach_touched, INST_MAX);
        in->reached = m->reach_pool[m->reach_used++];
    }
    put_code(m, pc, m->code_rw + in->code_off, lin);
    if (v->code) { /* from now on this is where it is kept */
        if (pc->kept)
            free(v->code);
        pc->kept = false;
        pc->verso.code = NULL;
        pc->home = in->code_off;
        pc->home_lin = lin;
    }
    in->next = pc->insts;
    pc->insts = in;
    struct inst **bucket = inst_bucket(m, pc, lin);
    in->next_in_hash = *bucket;
    *bucket = in;
    COUNT_ADD(m, CODE_BYTES, v->code_len);
    links_of_new(m, in);
    profile_placed(m, in);
    TRACE(m, PAGE_PLACE, lin, (uint64_t)pc->pfn * PAGE_SIZE_, v->code_len);
    return in;
}

static struct inst *inst_get(struct machine *m, struct page_code *pc, uint32_t lin)
{
    struct inst *found = inst_find(m, pc, lin);
    if (found)
        return found;
    if (pc->insts)
        COUNT(m, PAGE_REUSED);
    return inst_make(m, pc, lin);
}

static void inst_kill(struct machine *m, struct inst *in)
{
    struct inst **at = inst_bucket(m, in->page, in->lin);
    while (*at != in)
        at = &(*at)->next_in_hash;
    *at = in->next_in_hash;
    in->dead = true;
    for (uint32_t n = in->thunks; n; n = m->thunk[n - 1].next_of_inst)
        kill_thunk(m, n - 1);
    unlink_all_into(m, in);
    if (m->inst_at[in->lin >> 12] == in)
        m->inst_at[in->lin >> 12] = NULL;
    for (uint64_t g = in->code_off / CODE_GRANULE; g * CODE_GRANULE < in->code_off + (uint64_t)in->code_len;
         g++)
        m->code_owner[g] = NULL;
    in->page = NULL;
}

static struct inst *owner_of(const struct machine *m, uint64_t rip)
{
    uint64_t off = rip - (uint64_t)(uintptr_t)m->code_rx;
    return off < m->code_used ? m->code_owner[off / CODE_GRANULE] : NULL;
}

struct inst *code_find(struct machine *m, uint64_t rip)
{
    struct inst *owner = owner_of(m, rip);
    return owner != &thunk_owner ? owner : NULL;
}

struct inst *code_unwind(struct machine *m, uint64_t rip, struct xlat_unwound *out)
{
    struct inst *in = code_find(m, rip);
    if (!in)
        return NULL;
    const struct page_code *pc = in->page;
    uint32_t off = (uint32_t)(rip - (uint64_t)(uintptr_t)m->code_rx) - in->code_off;
    bool known = xlat_unwind_marked(pc->verso.unwind, pc->verso.unwind_len, pc->marks, pc->mark_count, off, out);
    return known ? in : NULL;
}

void code_mark(struct inst *in)
{
    struct page_code *pc = in->page;
    if (pc->marked)
        return;
    pc->marked = true;
    uint32_t n = xlat_marks(pc->verso.unwind, pc->verso.unwind_len, NULL, 0);
    if (n < 2) /* too short to want any */
        return;
    pc->marks = malloc(n * sizeof(*pc->marks));
    if (pc->marks)
        pc->mark_count = xlat_marks(pc->verso.unwind, pc->verso.unwind_len, pc->marks, n);
}

bool code_in_thunks(struct machine *m, uint64_t rip)
{
    return owner_of(m, rip) == &thunk_owner;
}

/* UINT32_MAX: code memory is full. */
static uint32_t thunk_get(struct machine *m, struct inst *in, uint32_t eip, uint32_t host)
{
    uint32_t *bucket = thunk_bucket(m, in, eip);
    for (uint32_t n = *bucket; n; n = m->thunk[n - 1].next_in_hash)
        if (m->thunk[n - 1].inst == in && m->thunk[n - 1].eip == eip)
            return n - 1;
    uint32_t n = thunk_take(m, in->code_off);
    if (n == UINT32_MAX)
        return n;
    m->thunk[n] = (struct thunk){eip, in, in->thunks, *bucket, true};
    *bucket = n + 1;
    in->thunks = n + 1;
    write_thunk(m, (uint64_t)n * THUNK_SIZE, eip, in->code_off + host);
    return n;
}

/* -- Making versos
 * -----------------------------------------------------------------------------------------------------------
 */

/* What is kept of the attribute map. */
static void note_attr(struct page_code *pc, const uint8_t planes[SCAN_PAGE_SIZE])
{
    const uint8_t *either = scan_attr_plane(planes, SCAN_ATTR_INSIDE), *entry = scan_attr_plane(planes, SCAN_ATTR_ENTRY);
    memcpy(pc->start, scan_attr_plane(planes, SCAN_ATTR_START), sizeof(pc->start));
    const uint8_t *straddle = scan_attr_plane(planes, SCAN_ATTR_STRADDLE) + SCAN_PLANE_SIZE - 2;
    pc->straddle = (uint16_t)(straddle[0] | straddle[1] << 8);
    for (unsigned i = 0; i < SCAN_PLANE_SIZE; i++) {
        pc->covered[i] = pc->start[i] | either[i];
        pc->entry[i] |= entry[i];
    }
    /* A straddling instruction begins in the last bytes and covers all that follow. */
    for (unsigned i = SCAN_PAGE_SIZE - SCAN_INSN_MAX_LEN; i < SCAN_PAGE_SIZE; i++)
        if (straddles(pc, i))
            for (unsigned j = i; j < SCAN_PAGE_SIZE; j++)
                set_bit(pc->covered, j);
}

/* Is there an instruction at off? It may be one without an entry (XLAT_AT_ESP). */
static bool has_code(const struct page_code *pc, uint32_t off)
{
    return straddles(pc, off) || bit(pc->start, off);
}

/* Control came to an instruction without an entry. Interrupts and faults do that anywhere; a branch (from another page, or computed) does
 * it at the same place again, and then gets its entry. */
static bool wants_entry(struct page_code *pc, uint32_t off)
{
    if (pc->missed != off)
        pc->missed = (uint16_t)off, pc->missed_times = 0;
    return ++pc->missed_times > ENTRY_PATIENCE;
}

static struct cache_key key_of(const struct machine *m, const struct page_code *pc)
{
    return (struct cache_key){pc->hash_lo, pc->hash_hi, pc->mode, 0, m->fingerprint};
}

/* Why is a page not in the cache? Told by where it is: the image's bytes are known to the offline tool. */
static void count_absent(struct machine *m, const struct page_code *pc)
{
    uint64_t at = (uint64_t)pc->pfn * PAGE_SIZE_;
    TRACE(m, PAGE_MISS, at, TRACE_WHY_ABSENT);
    for (unsigned i = 0; i < m->cfg->segment_count; i++) {
        const struct run_segment *s = &m->cfg->segment[i];
        if (!(pc->mode & XLAT_MODE_USER) && at + PAGE_SIZE_ > s->paddr &&
            at < (uint64_t)s->paddr + s->filesz) {
            COUNT(m, PAGE_MISS_PATCHED);
            return;
        }
    }
    if (pc->mode & XLAT_MODE_USER)
        COUNT(m, PAGE_MISS_NONE);
    else
        COUNT(m, PAGE_MISS_RELOCATED);
}

/* Loads the record for a page. True: pc is filled and has the entry. */
static bool load_page(struct machine *m, struct page_code *pc, const uint8_t *recto, uint32_t off)
{
    struct cache_key key = key_of(m, pc);
    struct cache_record rec;
    uint64_t at = (uint64_t)pc->pfn * PAGE_SIZE_;
    enum cache_refusal why = CACHE_REFUSAL_NONE;
    enum cache_code got = cache_get(m->cfg->cache, &key, recto, &m->cache_buf, &rec, &why);
    if (got == CACHE_REFUSED) {
        COUNT(m, PAGE_MISS_REFUSED);
        TRACE(m, PAGE_MISS, at, TRACE_WHY_REFUSED);
        return false;
    }
    if (got != CACHE_OK) {
        count_absent(m, pc);
        return false;
    }
    if (!xlat_deserialize(rec.verso, rec.verso_len, &pc->verso, &pc->index) || pc->verso.mode != pc->mode ||
        pc->verso.options != m->options) {
        COUNT(m, PAGE_MISS_REFUSED);
        TRACE(m, PAGE_MISS, at, TRACE_WHY_REFUSED);
        return false;
    }
    note_attr(pc, rec.attr);
    if (!has_code(pc, off)) {
        COUNT(m, PAGE_MISS_ENTRY);
        TRACE(m, PAGE_MISS, at, TRACE_WHY_ENTRY);
        return false;
    }
    COUNT(m, PAGE_HIT);
    TRACE(m, PAGE_HIT, at, pc->verso.code_len);
    cache_touch(m->cfg->cache, &key);
    return true;
}

static void store_page(struct machine *m, const struct page_code *pc, const uint8_t planes[SCAN_PAGE_SIZE])
{
    static _Thread_local uint8_t *buf;
    static _Thread_local size_t cap;
    size_t need = xlat_serialize(&pc->verso, buf, cap);
    if (need > cap) {
        free(buf);
        cap = need + 65536;
        buf = malloc(cap);
        if (!buf) {
            cap = 0;
            return;
        }
        need = xlat_serialize(&pc->verso, buf, cap);
    }
    uint32_t sensitive = 0;
    for (unsigned c = 0; c < SCAN_CLASS_COUNT; c++)
        if (scan_class_sensitive((enum scan_class)c))
            sensitive += m->scan->class_count[c];
    struct cache_key key = key_of(m, pc);
    struct cache_record rec = {m->vm.ram + (uint64_t)pc->pfn * PAGE_SIZE_,
                               planes,
                               buf,
                               (uint32_t)need,
                               m->scan->count,
                               sensitive,
                               xlat_serialized_tables(&pc->verso)};
    cache_put_later(m->cfg->cache, &key, &rec);
}

/* The verso of m->scan. Its code is lent by m->verso until it is placed. */
static bool translate(struct machine *m, struct page_code *pc)
{
    struct xlat_verso *v = &pc->verso;
    xlat_verso_free(v); /* a stored one that did not do */
    if (xlat_translate(m->scan, pc->mode, m->options, &m->verso) != XLAT_OK || !xlat_verso_pack(&m->verso, v))
        return false;
    xlat_index_make(v->unwind, v->unwind_len, v->code_len, &pc->index);
    return true;
}

/* planes: filled. */
static bool translate_page(struct machine *m, struct page_code *pc, const uint8_t *recto, uint32_t off,
                           uint8_t planes[SCAN_PAGE_SIZE])
{
    uint16_t entries[SCAN_PAGE_SIZE];
    size_t n = 0;
    set_bit(pc->entry, off);
    for (unsigned i = 0; i < sizeof(pc->entry); i++)
        for (unsigned byte = pc->entry[i]; byte; byte &= byte - 1)
            entries[n++] = (uint16_t)(8 * i + (unsigned)__builtin_ctz(byte));
    scan_page(recto, 32, entries, n, m->scan);
    for (unsigned i = 0; pc->notes && i < m->scan->count; i++)
        if (emulates(pc, m->scan->insn[i].off)) {
            m->scan->insn[i].cls = SCAN_CLASS_VIRT; /* a class that always leaves to the emulator */
            pc->forced = true;
        } else if (hint_of(pc, m->scan->insn[i].off)) {
            m->scan->insn[i].hint = (uint8_t)hint_of(pc, m->scan->insn[i].off);
            pc->forced = true;
        }
    scan_attr_split(m->scan->attr, planes);
    note_attr(pc, planes);
    return translate(m, pc);
}

static void enter_page(struct machine *m, struct page_code *pc)
{
    unsigned b = code_page_bucket(pc->pfn);
    pc->made_ns = machine_now_ns();
    pc->next = m->page_hash[b];
    m->page_hash[b] = pc;
    m->vm.code_pages[pc->pfn] |= pc->unit ? CODE_PAGE_UNIT : CODE_PAGE_VERSO;
    window_protect(m, pc->pfn);
    mmu_flush_tlb_writes(&m->vm, gpa((uint64_t)pc->pfn * PAGE_SIZE_));
}

static struct page_code *page_find(struct machine *m, uint32_t pfn, uint32_t mode)
{
    for (struct page_code *pc = m->page_hash[code_page_bucket(pfn)]; pc; pc = pc->next)
        if (pc->pfn == pfn && pc->mode == mode && !pc->unit && pc->verso.options == m->options)
            return pc;
    return NULL;
}

/* ns: processor time of a page's load and placing, told apart by the time-stamp counter: to its being loaded and to its being placed (the same
 * if it was not). A look at the clock is a system call and takes as long as a good part of a load: about one of them lies between the two that
 * ns is the difference of, and is left out. */
static void count_load(struct machine *m, uint64_t ns, uint64_t clock_tsc, uint64_t load_tsc, uint64_t all_tsc)
{
    double unit = (double)ns / (double)(clock_tsc + all_tsc);
    COUNT_ADD(m, CACHE_NS, (uint64_t)((double)load_tsc * unit));
    COUNT_ADD(m, PLACE_NS, (uint64_t)((double)(all_tsc - load_tsc) * unit));
}

static void page_remove(struct machine *m, struct page_code *pc)
{
    emu_x87_settle(&m->vm);
    struct page_code **at = &m->page_hash[code_page_bucket(pc->pfn)];
    while (*at != pc)
        at = &(*at)->next;
    *at = pc->next;
    for (struct inst *in = pc->insts, *next; in; in = next) {
        next = in->next;
        inst_kill(m, in);
    }
    machine_reset_shadow(m);
    page_code_free(pc);
}

/* Makes or loads the verso of a page with an entry at eip, and places it for that. old: one that will not do; its entries are taken over, and it
 * is removed unless NULL is returned. */
static struct page_code *page_make(struct machine *m, uint32_t pfn, uint32_t mode, uint32_t eip, struct page_code *old)
{
    uint32_t off = eip & PAGE_MASK_;
    /* What is written while it runs is of no use to a later run. */
    bool stored = false, cached = m->cfg->cache && !(m->options & XLAT_OPT_STEP) && m->smc[pfn].level < SMC_UNCACHED;
    uint64_t asked = __rdtsc(), t = cached ? machine_cpu_ns() : 0, begun = __rdtsc();
    struct page_code *pc = calloc(1, sizeof(*pc));
    if (!pc)
        return NULL;
    prefault_heap(m);
    const uint8_t *recto = m->vm.ram + (uint64_t)pfn * PAGE_SIZE_;
    pc->pfn = pfn;
    pc->mode = mode;
    xlat_verso_init(&pc->verso);
    if (old) {
        memcpy(pc->entry, old->entry, sizeof(pc->entry));
        if (old->notes && !want_notes(pc)) {
            page_code_free(pc);
            return NULL;
        }
        if (old->notes)
            *pc->notes = *old->notes;
        pc->forced = old->forced;
    }
    uint8_t was = vm_doing(&m->vm, RUN_DOING_CACHE);
    if (cached) {
        cache_hash_page(recto, &pc->hash_lo, &pc->hash_hi);
        stored = pc->stored = !old && load_page(m, pc, recto, off);
        uint64_t loaded = __rdtsc() - begun, all = loaded;
        if (stored) {
            (void)inst_make(m, pc, eip & ~PAGE_MASK_); /* it is not NULL: pc has its code */
            all = __rdtsc() - begun;
        }
        count_load(m, machine_cpu_ns() - t, begun - asked, loaded, all);
    } else {
        COUNT(m, PAGE_OFF);
    }
    if (!stored) {
        t = machine_cpu_ns();
        vm_doing(&m->vm, RUN_DOING_TRANSLATE);
        uint8_t planes[SCAN_PAGE_SIZE];
        bool made = translate_page(m, pc, recto, off, planes);
        vm_doing(&m->vm, was);
        if (!made) {
            page_code_free(pc);
            return NULL;
        }
        COUNT_ADD(m, TRANSLATE_NS, machine_cpu_ns() - t);
        COUNT_ADD(m, TRANSLATE_INSNS, pc->verso.insn_count);
        if (!cached)
            TRACE(m, PAGE_MISS, (uint64_t)pfn * PAGE_SIZE_, TRACE_WHY_OFF);
        else if (old)
            TRACE(m, PAGE_MISS, (uint64_t)pfn * PAGE_SIZE_, TRACE_WHY_RESCAN);
        TRACE(m, PAGE_SCAN, (uint64_t)pfn * PAGE_SIZE_, pc->verso.insn_count, pc->verso.code_len);
        if (cached && !m->cfg->cache_readonly && !pc->forced)
            store_page(m, pc, planes);
        if (old) /* in front of the placing, which may empty code memory */
            page_remove(m, old);
        (void)inst_make(m, pc, eip & ~PAGE_MASK_);
    }
    vm_doing(&m->vm, was);
    enter_page(m, pc);
    return pc;
}

/* -- Page-straddling instructions
 * --------------------------------------------------------------------------------------------- */

/* eip: of the instruction. */
static struct page_code *unit_get(struct machine *m, uint32_t pfn, uint32_t pfn2, uint32_t mode, uint32_t eip)
{
    uint32_t off = eip & PAGE_MASK_;
    for (struct page_code *pc = m->page_hash[code_page_bucket(pfn)]; pc; pc = pc->next)
        if (pc->pfn == pfn && pc->unit && pc->unit_off == off && pc->pfn2 == pfn2 && pc->mode == mode &&
            pc->verso.options == m->options)
            return pc;
    struct page_code *pc = calloc(1, sizeof(*pc));
    if (!pc)
        return NULL;
    uint8_t bytes[2 * SCAN_INSN_MAX_LEN];
    unsigned first = SCAN_PAGE_SIZE - off;
    memcpy(bytes, m->vm.ram + (uint64_t)pfn * PAGE_SIZE_ + off, first);
    memcpy(bytes + first, m->vm.ram + (uint64_t)pfn2 * PAGE_SIZE_, SCAN_INSN_MAX_LEN);
    xlat_verso_init(&pc->verso);
    pc->pfn = pfn;
    pc->pfn2 = pfn2;
    pc->unit = true;
    pc->unit_off = (uint16_t)off;
    pc->mode = mode;
    if (scan_unit(bytes, SCAN_INSN_MAX_LEN, off, 32, m->scan) != SCAN_OK || !translate(m, pc)) {
        page_code_free(pc);
        return NULL;
    }
    COUNT(m, UNITS);
    TRACE(m, PAGE_UNIT, (uint64_t)pfn * PAGE_SIZE_ + off, (uint64_t)pfn2 * PAGE_SIZE_);
    (void)inst_make(m, pc, eip & ~PAGE_MASK_);
    enter_page(m, pc);
    m->vm.code_pages[pfn2] |= CODE_PAGE_UNIT;
    window_protect(m, pfn2);
    mmu_flush_tlb_writes(&m->vm, gpa((uint64_t)pfn2 * PAGE_SIZE_));
    return pc;
}

/* Units whose second page is pfn hang in the buckets of their first page, which is usually the neighbour in
 * the file but may be any. */
static void units_drop(struct machine *m, uint32_t pfn)
{
    for (unsigned b = 0; b < PAGE_HASH; b++)
        for (struct page_code *pc = m->page_hash[b], *next; pc; pc = next) {
            next = pc->next;
            if (pc->unit && (pc->pfn == pfn || pc->pfn2 == pfn))
                page_remove(m, pc);
        }
}

/* -- Writes to code
 * ------------------------------------------------------------------------------------------------------------
 */

/* The guest bytes of the instruction at guest_rel of a page or unit. */
static void guest_insn(const struct machine *m, const struct page_code *pc, uint32_t guest_rel,
                       struct scan_insn *i)
{
    uint8_t bytes[SCAN_INSN_MAX_LEN];
    uint32_t first = SCAN_PAGE_SIZE - guest_rel;
    unsigned n = first < sizeof(bytes) ? first : (unsigned)sizeof(bytes);
    memcpy(bytes, m->vm.ram + (uint64_t)pc->pfn * PAGE_SIZE_ + guest_rel, n);
    if (pc->unit && n < sizeof(bytes)) {
        memcpy(bytes + n, m->vm.ram + (uint64_t)pc->pfn2 * PAGE_SIZE_, sizeof(bytes) - n);
        n = sizeof(bytes);
    }
    if (scan_decode(bytes, n, 32, i) != SCAN_OK)
        *i = (struct scan_insn){.seg = SCAN_SEG_NONE};
}

bool vm_x87_origin(struct vm *vm, uint32_t host_ip, struct vm_x87_origin *out)
{
    if (!vm->run)
        return false;
    struct machine *m = machine_of(vm);
    uint64_t rip = (uint64_t)(uintptr_t)m->code_rx + (uint32_t)(host_ip - (uint32_t)(uintptr_t)m->code_rx);
    struct xlat_unwound u;
    struct inst *in = code_unwind(m, rip, &u);
    if (!in)
        return false;
    struct scan_insn i;
    guest_insn(m, in->page, (uint32_t)u.guest_rel & PAGE_MASK_, &i);
    *out = (struct vm_x87_origin){.eip = in->lin + (uint32_t)u.guest_rel,
                                  .user = in->page->mode & XLAT_MODE_USER,
                                  .seg = SCAN_SEG_NONE};
    if (i.opcode >> 3 == 0x1B && i.map == SCAN_MAP_1B) /* D8 to DF */
        out->opcode = (uint16_t)((i.opcode & 7) << 8 | i.modrm);
    if (scan_has_mem(&i))
        out->seg = i.seg == SCAN_SEG_NONE ? (uint8_t)emu_default_seg(&i) : i.seg;
    return true;
}

void code_drop_page(struct machine *m, uint32_t pfn)
{
    uint64_t made_ns = 0;
    TRACE(m, PAGE_DROP, (uint64_t)pfn * PAGE_SIZE_);
    for (struct page_code *pc = m->page_hash[code_page_bucket(pfn)], *next; pc; pc = next) {
        next = pc->next;
        if (pc->pfn == pfn && !pc->unit) {
            made_ns = pc->made_ns;
            page_remove(m, pc);
            COUNT(m, PAGE_DROPPED);
        }
    }
    if (m->vm.code_pages[pfn] & CODE_PAGE_UNIT)
        units_drop(m, pfn);
    m->vm.code_pages[pfn] = 0;
    if (made_ns)
        smc_dropped(m, pfn, made_ns);
}

/* -- Resolution
 * -----------------------------------------------------------------------------------------------------------------
 */

/* Code in a page that is not translated at present. The stub is found like a thunk, by its EIP. */
static enum code_result resolve_untranslated(struct machine *m, uint32_t eip, uint32_t pfn)
{
    m->operand = pfn;
    uint64_t near = m->code_used ? m->code_used - 1 : 0;
    uint32_t n = m->light ? thunk_take(m, near) : UINT32_MAX;
    uint32_t stub = n != UINT32_MAX ? thunk_take(m, near) : UINT32_MAX;
    if (stub == UINT32_MAX)
        return CODE_RUN;
    m->thunk[n] = (struct thunk){.eip = eip, .check = true};
    m->thunk[stub] = (struct thunk){.eip = eip};
    write_run_stub(m, (uint64_t)stub * THUNK_SIZE, eip, pfn);
    write_thunk(m, (uint64_t)n * THUNK_SIZE, eip, (uint64_t)stub * THUNK_SIZE);
    struct window *w = m->current;
    w->ibtc[ibtc_index(eip, w->ibtc_mask)] = host_of(m, (uint64_t)n * THUNK_SIZE);
    w->ibtc_dirty = true;
    return CODE_RUN;
}

void code_withdraw(struct machine *m, uint32_t lin)
{
    emu_x87_settle(&m->vm);
    for (uint32_t i = 0; i < m->inst_used; i++) {
        struct inst *in = &m->inst_pool[i];
        if (in->lin != lin || in->dead)
            continue;
        struct inst **at = &in->page->insts;
        while (*at != in)
            at = &(*at)->next;
        *at = in->next;
        inst_kill(m, in);
    }
    window_forget_branches(m);
}

/* The next branch of an instance to its straddling instruction comes here, and finds its unit, as long as it is not linked: a unit made for an
 * earlier verso of the page is in the table already. */
static void find_unit_again(struct machine *m, const struct inst *in)
{
    struct window *w = m->current;
    for (uint32_t n = in->link_first; n < in->link_first + in->link_count; n++) {
        const struct link_rec *l = &m->link[n];
        if (!l->to && l->target >> 12 == in->lin >> 12)
            w->ibtc[ibtc_index(l->target, w->ibtc_mask)] = (uint64_t)(uintptr_t)stub_miss;
    }
}

enum code_result code_resolve(struct machine *m, uint32_t eip, struct mmu_fault *fault)
{
    if (debug_breaks_in_page(m->debug, eip))
        return CODE_EMULATE;
    uint32_t lin = eip & ~PAGE_MASK_, off = eip & PAGE_MASK_;
    unsigned access = MMU_EXEC | (m->mode & XLAT_MODE_USER ? MMU_USER : 0);
    struct mmu_page p;
    if (!mmu_walk(&m->vm, gva(eip), access, &p, fault))
        return CODE_PAGE_FAULT;
    uint32_t pfn = vm_frame(&m->vm, p.page.v, false);
    if (pfn == VM_NO_FRAME)
        return CODE_EMULATE;

    struct page_code *pc = page_find(m, pfn, m->mode);
    if (!pc && smc_emulates(m, pfn) && !m->stepping)
        return resolve_untranslated(m, eip, pfn);
    if (!pc)
        pc = page_make(m, pfn, m->mode, eip, NULL);
    bool inside = pc && has_code(pc, off) && !straddles(pc, off) && entry_of(pc, off) < 0;
    if (inside && !wants_entry(pc, off))
        return CODE_EMULATE;
    if (pc && (inside || !has_code(pc, off))) {
        COUNT(m, PAGE_RESCAN);
        struct page_code *old = pc;
        pc = page_make(m, pfn, m->mode, eip, old);
        if (!pc)
            page_remove(m, old);
    }
    if (!pc || !has_code(pc, off))
        return CODE_EMULATE;

    if (straddles(pc, off)) {
        struct mmu_page p2;
        if (!mmu_walk(&m->vm, gva(lin + PAGE_SIZE_), access, &p2, fault))
            return CODE_EMULATE; /* the emulator finds out whether the fetch really gets there */
        uint32_t pfn2 = vm_frame(&m->vm, p2.page.v, false);
        if (pfn2 == VM_NO_FRAME)
            return CODE_EMULATE;
        pc = unit_get(m, pfn, pfn2, m->mode, eip);
        if (!pc)
            return CODE_EMULATE;
        window_note_exec(m, gva(lin + PAGE_SIZE_), pfn2);
    }
    struct inst *in = inst_get(m, pc, lin);
    int32_t host = in ? entry_of(pc, off) : -1;
    if (host < 0)
        return CODE_EMULATE;
    uint32_t n = thunk_get(m, in, eip, (uint32_t)host);
    if (n == UINT32_MAX) {
        in = flush_all(m, pc) ? inst_get(m, pc, lin) : NULL;
        if (!in)
            return CODE_EMULATE;
        n = thunk_get(m, in, eip, (uint32_t)host);
    }
    window_note_exec(m, gva(lin), pfn);
    struct window *w = m->current;
    w->ibtc[ibtc_index(eip, w->ibtc_mask)] = host_of(m, (uint64_t)n * THUNK_SIZE);
    w->ibtc_dirty = true;
    if (m->options & XLAT_OPT_STEP) /* nothing is linked with that; what is reached at full speed stays linked */
        return CODE_OK;
    if (m->mode & XLAT_MODE_USER)
        reach_user(m, in);
    else
        publish_linear(m, in);
    if (pc->straddle && !pc->unit)
        find_unit_again(m, in);
    return CODE_OK;
}

void code_force_emulation(struct machine *m, struct inst *in, uint32_t eip)
{
    struct page_code *pc = in->page;
    uint32_t off = eip & PAGE_MASK_;
    if (eip - in->lin >= PAGE_SIZE_)
        return;
    int32_t host = entry_of(pc, off);
    bool again = emulates(pc, off); /* its entry leads to the emulator: what faulted has none (the way from an STD to a CLD) */
    if (!want_notes(pc))
        return;
    set_bit(pc->notes->emulate, off);
    TRACE(m, PAGE_FORCE, eip, 0);
    struct scan_insn insn;
    if (pc->unit || scan_decode(m->vm.ram + (uint64_t)pc->pfn * PAGE_SIZE_ + off, SCAN_PAGE_SIZE - off, 32,
                                &insn) != SCAN_OK)
        return;
    /* The instruction behind it must have an entry to go on at. */
    bool room = !again && host >= 0 && (uint32_t)host + 5 <= in->code_len &&
                (off + insn.len >= SCAN_PAGE_SIZE || entry_of(pc, off + insn.len) >= 0);
    for (unsigned i = 1; i < 5 && room; i++) {
        struct xlat_unwound u;
        /* Another instruction's entry among the bytes to be overwritten? */
        if (xlat_unwind(pc->verso.unwind, pc->verso.unwind_len, (uint32_t)host + i, &u) && u.guest_rel >= 0 &&
            u.guest_rel < (int32_t)SCAN_PAGE_SIZE && u.guest_rel != (int32_t)off &&
            xlat_entry(pc->verso.unwind, pc->verso.unwind_len, (uint32_t)u.guest_rel) == host + (int32_t)i)
            room = false;
    }
    uint32_t n = room ? thunk_take(m, in->code_off) : UINT32_MAX;
    if (n == UINT32_MAX || !note_patch(m, in, (uint32_t)host)) {
        (void)page_make(m, pc->pfn, pc->mode, eip, pc);
        return;
    }
    m->thunk[n] = (struct thunk){.eip = eip};
    uint64_t stub = (uint64_t)n * THUNK_SIZE, at = in->code_off + (uint64_t)(uint32_t)host;
    write_emulate_stub(m, stub, eip);
    m->code_rw[at] = 0xE9;
    put32(m, at + 1, (uint32_t)(stub - (at + 5)));
}

static bool hint_fits(const struct machine *m, const struct page_code *pc, enum xlat_hint hint,
                      const struct scan_insn *i)
{
    bool by_address = hint == XLAT_HINT_USER || hint == XLAT_HINT_VOLATILE;
    return xlat_takes_hint(i, hint) && (!by_address || ((m->options & XLAT_OPT_BMI2) && !(pc->mode & XLAT_MODE_USER)));
}

bool code_reaches_user(const struct inst *in, uint32_t eip)
{
    if (in->page->unit || eip - in->lin >= PAGE_SIZE_)
        return false;
    enum xlat_hint hint = hint_of(in->page, eip & PAGE_MASK_);
    return hint == XLAT_HINT_USER || hint == XLAT_HINT_VOLATILE;
}

bool code_force_hint(struct machine *m, struct inst *in, uint32_t eip, enum xlat_hint hint)
{
    struct page_code *pc = in->page;
    uint32_t off = eip & PAGE_MASK_;
    struct scan_insn insn;
    enum xlat_hint was = hint_of(pc, off);
    /* What looks for temporary mappings goes by user_window[] otherwise, and wraps round where it must. */
    if (pc->unit || eip - in->lin >= PAGE_SIZE_ || was == hint || (was && hint != XLAT_HINT_VOLATILE) || emulates(pc, off) ||
        scan_decode(m->vm.ram + (uint64_t)pc->pfn * PAGE_SIZE_ + off, SCAN_PAGE_SIZE - off, 32, &insn) !=
            SCAN_OK ||
        !hint_fits(m, pc, hint, &insn) || !want_notes(pc))
        return false;
    pc->notes->hint[off >> 2] |= (uint8_t)(hint << 2 * (off & 3));
    (void)page_make(m, pc->pfn, pc->mode, eip, pc);
    if (hint == XLAT_HINT_VOLATILE)
        COUNT(m, SITES_VOLATILE);
    else if (hint == XLAT_HINT_USER)
        COUNT(m, SITES_USER);
    else
        COUNT(m, SITES_WRAP);
    TRACE(m, PAGE_FORCE, eip, hint);
    return true;
}

const struct page_code *code_for(struct machine *m, uint32_t eip)
{
    struct mmu_page p;
    uint32_t pfn = mmu_probe(&m->vm, gva(eip), &p) ? vm_frame(&m->vm, p.page.v, false) : VM_NO_FRAME;
    if (pfn == VM_NO_FRAME)
        return NULL;
    for (struct page_code *pc = m->page_hash[code_page_bucket(pfn)]; pc; pc = pc->next)
        if (pc->pfn == pfn && pc->mode == m->mode && pc->verso.options == m->options &&
            xlat_entry(pc->verso.unwind, pc->verso.unwind_len, eip & PAGE_MASK_) >= 0)
            return pc;
    return NULL;
}

/* What a host address in the thunk area means for the guest's state. */
void code_unwind_thunk(struct machine *m, uint64_t rip, uint32_t *eip, bool *ecx_in_r9)
{
    uint64_t off = rip - (uint64_t)(uintptr_t)m->code_rx;
    const struct thunk *t = &m->thunk[off / THUNK_SIZE];
    *ecx_in_r9 = t->check && off % THUNK_SIZE >= 3;
    if (!t->check)
        *eip = t->eip;
}
