/* monitor/machine.h: what run loop, windows, code memory and signal handlers share. Internal to monitor/. */
#ifndef VERSO_MONITOR_MACHINE_H
#define VERSO_MONITOR_MACHINE_H

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "cache/cache.h"
#include "monitor/debug.h"
#include "monitor/firmware.h"
#include "monitor/quick.h"
#include "monitor/run.h"
#include "monitor/stubs.h"
#include "monitor/vm.h"
#include "translator/xlat.h"

struct machine;

/* -- window.c: the host MMU as the guest's MMU
 * -------------------------------------------------------------------------- */

#define WINDOW_MAX                  512u /* window 0 is the supervisor's; the rest are user address spaces, kept by CR3 */
#define WINDOW_BY_CR3               1024u
#define WINDOW_BELOW                (2ull << 30)
#define WINDOW_SPAN                 (42ull << 30) /* 2 GiB below, 4 GiB window, 36 GiB above; see translator/xlat.h */
#define WINDOW_VOLATILE             4096u
#define WINDOW_VOLATILE_AT          16u /* drops after which a page is no longer mapped at once */
#define WINDOW_VOLATILE_WORTH       64u /* accesses emulated without a host fault before it is: mapping and dropping cost as much */
#define WINDOW_VOLATILE_FAULT       22u /* what one with a host fault counts for */
#define REGION_PAGES                1024u
#define REGION_COUNT                1024u
#define WINDOW_IBTC_SIZE            4096u
#define WINDOW_IBTC_SIZE_SUPERVISOR 16384u

/* What a window holds of one linear page. */
enum {
    PAGE_READ = 1,
    PAGE_WRITE = 2,
    PAGE_EXEC = 4, /* code was found through this mapping */
    PAGE_HELD = 8, /* would be writable, but for a lockstep stretch that wants to see the first write */
};

/* 4 MiB of linear space in one window. */
struct region {
    uint8_t state[REGION_PAGES];
    uint32_t pfn[REGION_PAGES]; /* guest page mapped; valid where state != 0 */
    uint64_t
        entry[REGION_PAGES]; /* the leaf paging entry as it was when mapped: what revalidation compares */
    uint32_t
        rmap[REGION_PAGES]; /* next in the chain of mappings of the same guest page: a mapping id + 1, or 0 */
    uint32_t used;          /* pages with state != 0 */
    uint32_t window, index; /* where it is */
    uint32_t next_free;
    uint64_t pde[2];       /* directory entries seen (PAE: two of 2 MiB) */
    uint64_t table_gpa[2]; /* the page table behind each, or ~0 */
    uint8_t *copy[2];      /* its contents when last compared, in the bounds below */
    uint16_t first[2], last[2]; /* pages with state != 0 are in [first, last) of each; a process uses little of its page tables */
};

struct window {
    uint8_t *base; /* host address of guest linear 0 */
    bool live, user;
    bool stale; /* paging entries may have changed since it was last compared */
    uint32_t cr3;
    uint16_t next_by_cr3; /* of those with the same slot in window_by_cr3[]; 0: none */
    uint64_t used_at; /* for eviction */
    uint64_t *ibtc;
    uint32_t ibtc_mask;
    bool ibtc_dirty;
    uint32_t exec_epoch; /* never 0; changes when a page that code was found through loses its mapping */
    struct window_ahead { /* linear pages that show frames from pfn on already, without any rights (see window.c) */
        uint32_t page, count, pfn;
    } ahead;
    struct region *region[REGION_COUNT];
    uint16_t region_list[REGION_COUNT];
    uint32_t region_count;
};

enum window_result { WINDOW_MAPPED, WINDOW_EMULATE };

bool window_init(struct machine *m, char *err, size_t err_size);
void window_destroy(struct machine *m);
/* The window for the vCPU's current CPL and CR3, made or brought up to date; sets cpu->host_window, ibtc,
 * seg_window. */
void window_select(struct machine *m);
/* Makes linear page a accessible in the current window if the guest's page tables and the design allow.
 * w: the current window, or window_data(). Async-signal-safe. */
enum window_result window_fault(struct machine *m, struct window *w, gva_t a, bool write);
/* An access of CPL 0 through user_window[] met nothing: the user window of the present CR3, made and brought up to date. NULL: out of
 * address space. Async-signal-safe. */
struct window *window_data(struct machine *m);
/* Is the page mapped in the current window with that right already? */
bool window_allows(const struct machine *m, gva_t a, bool write);
void window_paging_changed(struct machine *m, enum vm_flush what, gva_t page);
/* Notes that code at linear page a of the current window comes from guest page pfn. */
void window_note_exec(struct machine *m, gva_t a, uint32_t pfn);
/* The guest page that code at linear page a of window w was found in, or UINT32_MAX. */
uint32_t window_exec_pfn(const struct window *w, uint32_t lin);
/* Linear page lin has a watchpoint now: it is mapped in no window. */
void window_withdraw(struct machine *m, uint32_t lin);
/* Takes write access to a guest page away in every window. */
void window_protect(struct machine *m, uint32_t pfn);
/* Empties every window's branch table and the shadow stack: they know EIPs only, not what code was made for.
 */
void window_forget_branches(struct machine *m);
void window_reset_all(struct machine *m);
/* A lockstep stretch begins: no page is writable any more until it is written to (PAGE_HELD). It ends: all are again. */
void window_hold_writes(struct machine *m);
void window_give_writes(struct machine *m);
/* As after window_init(), but address space once reserved is kept. */
void window_power_cycle(struct machine *m);

/* -- code.c: patched pages in memory
 * -------------------------------------------------------------------------------------- */

#define CODE_SIZE    (384ull << 20)
#define CODE_GRANULE 256u /* instances start at multiples of it */
#define INST_MAX     131072u
#define THUNK_SIZE   32u /* a thunk's number is its offset in code memory in these */
/* Thunks lie near their code: a jump across more than a MiB costs 1 to 2 cycles more on some processors (Zen 4). Each segment begins with room for
 * some; what does not fit goes where code memory ends at the time. */
#define CODE_SEGMENT  (512u << 10)
#define CODE_SEGMENTS ((unsigned)(CODE_SIZE / CODE_SEGMENT))

/* What was learnt of a page's instructions while they ran. */
struct page_notes {
    uint8_t emulate[SCAN_PAGE_SIZE / 8]; /* instructions made to leave to the emulator */
    uint8_t hint[SCAN_PAGE_SIZE / 4];    /* enum xlat_hint of each instruction, two bits */
};

/* Bytes of code that a jump was written over. */
struct page_patch {
    uint32_t host;
    uint8_t bytes[5];
};

/* The verso of one guest page in one mode, as made or loaded. It is placed at once, since until then its code is lent (by m->verso or the cache);
 * from then on the code is kept where it was placed first, and verso.code is NULL. */
struct page_code {
    uint32_t pfn, mode;
    bool unit, forced; /* forced: holds instructions made to be emulated because they kept faulting */
    bool stored;       /* came from the cache */
    bool kept;         /* verso.code is a copy of its own: code memory is being emptied */
    uint16_t unit_off;
    uint32_t pfn2; /* unit: the second page */
    uint64_t hash_lo, hash_hi;
    struct xlat_verso verso;
    uint32_t home, home_lin; /* the code of its first instance: offset from code_rx, linear address; if verso.code is NULL */
    struct page_patch *patch; /* what has been changed in it beside relocations and links */
    uint32_t patch_count;
    uint16_t straddle; /* bit set: the instruction at that one of the last 16 bytes goes on in the next page */
    uint8_t start[SCAN_PAGE_SIZE / 8];   /* bit set: an instruction begins here (straddling ones included) */
    uint8_t covered[SCAN_PAGE_SIZE / 8]; /* bit set: byte of an instruction */
    uint8_t entry[SCAN_PAGE_SIZE / 8];   /* entries it was made for */
    struct page_notes *notes;            /* NULL: none */
    struct xlat_index index; /* of the entries; made with the verso if it can be */
    struct xlat_mark *marks; /* of the unwind records; made when an instruction faults */
    uint32_t mark_count;
    bool marked; /* they have been made, as far as any are wanted */
    struct inst *insts;
    struct page_code *next; /* same hash bucket */
    uint64_t made_ns;
    uint16_t missed, missed_times; /* the instruction without an entry that was wanted last, and how often */
};

/* A verso placed in code memory for one linear page. */
struct inst {
    struct page_code *page;
    uint32_t lin;                /* linear address of the page */
    uint32_t code_off, code_len; /* offset from code_rx */
    struct inst *next;           /* of the same page_code */
    struct inst *next_in_hash;
    uint32_t thunks;                 /* list of thunk numbers + 1 */
    uint32_t in_links;               /* list of link records + 1 that jump into this one */
    uint32_t link_first, link_count; /* its own outgoing records */
    bool dead;
    /* By window: its exec_epoch in which this instance and (user code) all it links to were found mapped. The supervisor has one window. */
    uint32_t *reached, reached_0;
};

/* Bits of vm.code_pages[]. */
#define CODE_PAGE_VERSO 1u
#define CODE_PAGE_UNIT  2u /* holds a part of a page-straddling instruction */
#define PAGE_HASH       16384u
static inline unsigned code_page_bucket(uint32_t pfn) /* index of page_hash[] */
{
    return (pfn * 0x9E3779B1u >> 12) % PAGE_HASH;
}

bool code_init(struct machine *m, char *err, size_t err_size);
void code_destroy(struct machine *m);
/* As code_init() left it. Takes time for what was used, not for the size of the tables. */
void code_reset(struct machine *m);
/* Finds or makes the check thunk for eip, in the current mode and window. Host address, or 0: *fault tells
 * why (page fault, or not translatable: emulate). */
enum code_result {
    CODE_OK,
    CODE_PAGE_FAULT,
    CODE_EMULATE,
    CODE_RUN /* smc_run() of page m->operand */
};
enum code_result code_resolve(struct machine *m, uint32_t eip, struct mmu_fault *fault);
/* The instance that holds host address rip, or NULL. Async-signal-safe. */
struct inst *code_find(struct machine *m, uint64_t rip);
/* The guest's state there; NULL: no placed verso's code. Async-signal-safe. */
struct inst *code_unwind(struct machine *m, uint64_t rip, struct xlat_unwound *out);
/* Code of in has been unwound and may be again: from now on quicker. */
void code_mark(struct inst *in);
bool code_in_thunks(struct machine *m, uint64_t rip);
void code_unwind_thunk(struct machine *m, uint64_t rip, uint32_t *eip, bool *ecx_in_r9);
void code_drop_page(struct machine *m, uint32_t pfn);
/* The code of a verso as it was made, with addresses relative to its page: code_len bytes, the caller's to free(). NULL: out of memory. */
uint8_t *code_of_page(const struct machine *m, const struct page_code *pc);
/* The linear page of the supervisor window lost its mapping: links into it are taken back. */
void code_unlink_linear(struct machine *m, uint32_t lin);
/* Linear page lin has a breakpoint now: nothing placed for it can be reached any more, in any window (code_resolve() makes nothing new
 * there). */
void code_withdraw(struct machine *m, uint32_t lin);
/* An instruction keeps faulting: from now on it leaves to the emulator at once. */
void code_force_emulation(struct machine *m, struct inst *in, uint32_t eip);
/* An instruction's operand keeps lying where its form does not reach, or reaches badly: it is made anew with the hint. False: it is not of a form that can
 * be, or has been. */
bool code_force_hint(struct machine *m, struct inst *in, uint32_t eip, enum xlat_hint hint);
bool code_reaches_user(const struct inst *in, uint32_t eip);
/* The verso that an instruction at eip runs in now, in the current mode; NULL: none. */
const struct page_code *code_for(struct machine *m, uint32_t eip);

/* -- smc.c: pages that are written while they run */
struct smc_page {
    uint32_t left; /* instructions to be emulated in it before the next verso is made */
    uint32_t level;
};
/* From this level on a page's versos are not for the cache. Kernels that patch themselves while they boot stay below. */
#define SMC_UNCACHED 4u
/* A verso made at made_ns has been dropped because its page was written. */
void smc_dropped(struct machine *m, uint32_t pfn, uint64_t made_ns);
/* Is the page's code to be emulated for now? */
#define smc_emulates(m, pfn) ((m)->smc[pfn].left != 0)
/* Emulates at cpu->eip, which is in guest page pfn: until control leaves that linear page, the page's turn is over, or something is to be
 * looked at. Runs in light exits. If pfn is not the page any more, only the count is wrong. */
enum emu_result smc_run(struct machine *m, uint32_t pfn);

/* -- machine
 * ----------------------------------------------------------------------------------------------------------------
 */

#define SITE_TABLE     4096u
#define EMULATE_SAMPLE 64u /* one in so many emulated instructions is timed */
/* Sanitized code calls a run-time library that uses SSE registers, code that is not optimized calls memcpy()
 * for every copy. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define LIGHT_POSSIBLE false
#else
#define LIGHT_POSSIBLE true
#endif

struct lockstep;

struct machine {
    struct vm vm; /* first: struct vm * and struct machine * convert */
    const struct run_config *cfg;
    struct run_result *res;
    uint64_t *counter; /* res->counter */

    int ram_fd;
    uint32_t frames; /* of RAM and ROM (vm.h) */

    /* windows */
    struct window *window; /* [WINDOW_MAX] */
    unsigned window_count; /* those behind it have never been used */
    uint16_t window_by_cr3[WINDOW_BY_CR3]; /* the first user window of those whose CR3 has this slot; 0: none */
    struct window *current;
    struct window *last_user; /* the user window last selected */
    struct window *data;      /* the user window of the present CR3, if there is one */
    uint64_t data_base;       /* what user_window[] has for user chunks */
    uint32_t user_chunks;     /* bit per 128 MiB: user memory, as far as the supervisor reached for it */
    uint8_t chunk_flips[CPU_CHUNKS];
    uint8_t *poison;          /* a span like a window's, all PROT_NONE: 4 GiB for unusable segments, and behind them 4 for unusable user memory */
    struct region *region_pool;
    uint32_t region_pool_used, region_free;
    uint32_t *rmap; /* per guest page: first mapping id + 1 */
    uint64_t window_clock;
    uint8_t window_volatile[WINDOW_VOLATILE]; /* drops of supervisor pages, by hash, up to WINDOW_VOLATILE_AT */
    struct {
        uint32_t epoch; /* paging_epoch of the last access */
        uint32_t uses;  /* accesses emulated since then, or since the page was invalidated; with a host fault: WINDOW_VOLATILE_FAULT */
    } window_volatile_use[WINDOW_VOLATILE];
    uint32_t paging_epoch; /* CR3 loads and changes of all paging entries */
    uint32_t paging_cr0, paging_cr4;
    uint64_t paging_efer;

    /* code */
    int code_fd;
    uint8_t *code_fill; /* what fresh code memory is filled with */
    uint8_t *code_rw, *code_rx;
    uint64_t code_used, code_touched;
    uint32_t inst_touched, link_touched, reach_touched; /* items of the tables that have memory */
    uintptr_t heap_touched;
    struct inst **code_owner; /* by granule: the instance, a mark for thunks, NULL between */
    struct {
        uint32_t next, end; /* numbers of the free thunks */
    } thunk_room[CODE_SEGMENTS];
    struct thunk *thunk; /* by number */
    uint32_t *thunk_hash;
    struct page_code **page_hash;
    struct inst *inst_pool;
    struct inst **inst_hash;
    uint32_t inst_used;
    uint32_t (*reach_pool)[WINDOW_MAX]; /* what instances of user code have for each window */
    uint32_t reach_used;
    struct link_rec *link;
    uint32_t link_used;
    uint32_t *link_by_page[2]; /* supervisor, user; by linear page of the target: list of link records + 1 */
    struct inst **inst_at;     /* by linear page: the supervisor's instance reached through window 0 now */
    struct xlat_verso verso; /* being made */
    struct scan_page *scan;
    struct cache_buf cache_buf;
    uint32_t options;
    uint64_t fingerprint;

    struct smc_page *smc; /* by guest page */

    /* sites that fault again and again */
    struct {
        uint32_t eip, count;
    } site[SITE_TABLE];

    /* execution */
    uint32_t mode;           /* XLAT_MODE_* for the current state */
    bool flat;               /* segments allow translated code */
    bool light;              /* light exits are allowed (light.h) */
    struct debug *debug;     /* a debugger may come; NULL: none may */
    struct trace *trace;     /* NULL: none */
    uint64_t tracing;        /* kinds of events wanted now */
    bool sti_seen;           /* an interrupt waits for the instruction behind what may be an STI */
    struct lockstep *lockstep; /* NULL: not asked for */
    bool stepping;           /* in a lockstep stretch: code made with XLAT_OPT_STEP, no light exits */
    bool slow_clock;         /* the guest's clock goes by instructions (lockstep) */
    enum emu_result light_result;
    uint32_t why, operand; /* r9d and r10d of the last exit that emulates */
    bool intr; /* level of the 8259's request */
    uint8_t *shadow_stack;
    uint64_t shadow_size, shadow_top;
    gva_t fault_addr;
    uint64_t fault_rip, fault_host; /* host addresses of the instruction and of the access */
    bool fault_write,
        fault_chunk, /* user_window[] was wrong for the page of an instruction that goes by it */
        fault_wrap, /* the address wrapped round at 4 GiB */
        fault_volatile, /* the page is a temporary mapping, not mapped yet */
        fault_user, /* the page is the user's and the access the supervisor's, in the supervisor's window */
        fault_site; /* fault_site: the walk succeeded, the instruction has to be emulated all the same */
    gva_t pf_addr;  /* last #PF given to the guest: mapped on the way back */
    bool pf_pending, pf_write;

    /* time, signals, input */
    pthread_t thread;
    timer_t timer, profile_timer, pace_timer;
    bool timer_made, profiling, pace_made;
    volatile sig_atomic_t pace; /* the pace timer has fired (lockstep) */
    struct sigaction profile_action; /* what SIGPROF did before */
    uint64_t t0_ns, deadline_ns; /* deadline: guest time */
    uint64_t clock_scale, clock_tsc0, clock_ns0; /* guest time from the time-stamp counter (32 bits behind the point); scale 0: not used */
    int timer_expired;
    volatile sig_atomic_t quit;
    bool ended;
    enum run_end end;
    enum restart restart; /* wanted before the next instruction */
    pthread_t input_thread;
    bool input_started;
    int input_stop[2];
    pthread_mutex_t input_lock;
    uint8_t input[4096];
    unsigned input_head, input_tail;
    uint64_t insns;
    char out[4096];
    unsigned out_len;
};

static inline struct machine *machine_of(struct vm *vm)
{
    return (struct machine *)(void *)vm;
}
/* trace.c. Reports an event of group FLOW's or another kind, field values in the order of trace.def; only if wanted. */
void machine_trace(struct machine *m, enum trace_kind kind, struct vm_place at, const uint64_t field[TRACE_FIELDS]);
/* What is to be reported has changed: decides what the emulator reports and whether light exits are possible. */
void machine_observe(struct machine *m);
#define TRACE(m, kind, ...)                                                                                  \
    do {                                                                                                     \
        if (__builtin_expect((m)->tracing >> TRACE_##kind & 1, 0)) {                                         \
            cpu_fx_save((m)->vm.cpu);                                                                        \
            machine_trace((m), TRACE_##kind, vm_place((m)->vm.cpu),                                          \
                          (const uint64_t[TRACE_FIELDS]){__VA_ARGS__});                                      \
        }                                                                                                    \
    } while (0)
#define COUNT(m, id)        ((m)->counter[RUN_COUNTER_##id]++)
#define COUNT_ADD(m, id, n) ((m)->counter[RUN_COUNTER_##id] += (n))

uint64_t machine_now_ns(void);
uint64_t machine_cpu_ns(void); /* processor time of the calling thread */
/* The guest's time since its start. */
uint64_t machine_guest_ns(const struct machine *m);
/* From now on the guest's clock goes on at ns; it goes by the time-stamp counter if that is fit for it; the host's timer is set to
 * deadline_ns. */
void machine_set_guest_ns(struct machine *m, uint64_t ns);
void machine_start_clock(struct machine *m);
void machine_arm_timer(struct machine *m);
/* host.c: for the bus, with the machine as its opaque pointer. */
extern const struct dev_host_ops machine_host_ops;
/* The run loop ends before the next guest instruction. The first call decides. */
void machine_end(struct machine *m, enum run_end end);
void machine_flush_output(struct machine *m);
/* Before each entry into translated code: mode and window for the present state. Ends the machine on failure.
 */
void machine_prepare(struct machine *m);
static inline uint32_t ibtc_index(uint32_t eip, uint32_t mask)
{
    return (eip + (eip >> 4 | eip << 28)) & mask;
}
/* Empties the shadow stack: its return addresses may lead to code that is no longer right. */
static inline void machine_reset_shadow(struct machine *m)
{
    m->vm.cpu->host_shadow = m->shadow_top;
}

/* The shadow stack of one window means nothing in another: an EIP may be different code there. */
static inline void window_enter(struct machine *m, struct window *w)
{
    w->used_at = ++m->window_clock;
    m->current = w;
    if (w->user)
        m->last_user = m->data = w;
    machine_reset_shadow(m);
    COUNT(m, WINDOW_SWITCHES);
}
/* Tells instructions of CPL 0 where user memory is. Where there is none, not the address that stands for unusable segments
 * (window_for()): the fault handler tells the two by it. */
static inline void window_publish_data(struct machine *m)
{
    /* With SMAP user memory is reached only by the emulator, which looks at EFLAGS.AC each time. */
    bool usable = m->data && !m->data->stale && !(m->vm.cpu->cr4 & CPU_CR4_SMAP);
    uint64_t base = usable ? (uint64_t)(uintptr_t)m->data->base : (uint64_t)(uintptr_t)m->poison + (4ull << 30);
    if (base == m->data_base || !m->window[0].live)
        return;
    m->data_base = base;
    for (unsigned i = 0; i < CPU_CHUNKS; i++)
        m->vm.cpu->user_window[i] = m->user_chunks >> i & 1 ? base : (uint64_t)(uintptr_t)m->window[0].base;
}
/* Supervisor pages that lose their mapping again and again: temporary mappings, such as those a kernel patches its text through, or
 * reaches page tables and others' pages above its direct mapping through. */
static inline uint32_t window_volatile_slot(uint32_t lin)
{
    return (lin >> 12 ^ lin >> 22) % WINDOW_VOLATILE;
}
/* An access to such a page without a mapping: is it to be emulated, because the page may be invalidated before a mapping has paid? A store
 * or two of patched text are, clearing a page is; a loop over a page table is not. cost: 1 or WINDOW_VOLATILE_FAULT. */
static inline bool window_volatile_yet(struct machine *m, uint32_t lin, uint32_t cost)
{
    uint32_t slot = window_volatile_slot(lin);
    if (m->window_volatile_use[slot].epoch != m->paging_epoch) {
        m->window_volatile_use[slot].epoch = m->paging_epoch;
        m->window_volatile_use[slot].uses = 0;
    }
    uint32_t before = m->window_volatile_use[slot].uses;
    m->window_volatile_use[slot].uses = before + cost;
    return before < WINDOW_VOLATILE_WORTH;
}
/* The page has been invalidated: its next use begins. */
static inline void window_volatile_begin(struct machine *m, uint32_t lin)
{
    m->window_volatile_use[window_volatile_slot(lin)].uses = 0;
}
/* The next access by an instruction that looks for temporary mappings (XLAT_HINT_VOLATILE) leaves to the emulator, or does not. A matter of
 * time only: either is right. */
static inline void window_volatile_tell(struct machine *m, uint32_t lin, bool emulate)
{
    uint32_t *at = &m->vm.cpu->volatile_page[lin / PAGE_SIZE_ % CPU_VOLATILE], is = 0u - lin / PAGE_SIZE_;
    if (emulate)
        *at = is;
    else if (*at == is)
        *at = CPU_NO_PAGE;
}
/* The temporary mapping is used at length: maps it if A says that it has been used, so that the next access takes no host fault. */
void window_map_volatile(struct machine *m, gva_t a);
/* Linear address a turned out to be user memory, or not to be, when the supervisor reached for it. False: it does so too often. */
bool window_mark_chunk(struct machine *m, gva_t a, bool user);
/* What an access through segment seg goes to: the window for writable data of the greatest limit that does not expand down,
 * whatever its base; otherwise nothing. */
static inline uint64_t window_for(const struct machine *m, const struct window *w, unsigned seg)
{
    bool whole = cpu_seg_free(&m->vm.cpu->seg[seg]) == (SEG_FREE_READ | SEG_FREE_WRITE);
    return whole ? (uint64_t)(uintptr_t)w->base : (uint64_t)(uintptr_t)m->poison;
}
/* Tells translated code about the window it is to use. */
static inline void window_publish(struct machine *m, const struct window *w)
{
    struct cpu *c = m->vm.cpu;
    c->host_window = (uint64_t)(uintptr_t)w->base;
    c->ibtc = (uint64_t)(uintptr_t)w->ibtc;
    c->ibtc_mask = w->ibtc_mask;
    c->seg_window[SCAN_FS] = window_for(m, w, SCAN_FS);
    c->seg_window[SCAN_GS] = window_for(m, w, SCAN_GS);
    struct cpu_fpu_segments *s = &c->host_fpu_seg[c->cpl == 3];
    for (unsigned i = 0; i < 6; i++)
        s->sel[i] = c->seg[i].sel;
    s->base[0] = c->seg[SCAN_FS].base;
    s->base[1] = c->seg[SCAN_GS].base;
    window_publish_data(m);
    quick_check_memory(c);
}

/* run.c: run_machine() in its parts, for those who run many machines in one process (tests/fuzz); the vCPU's thread.
 * machine_open(): a machine without a guest, vCPU as after RESET, RAM zero. cfg and res must outlive it. NULL: res->error says why.
 * machine_run(): to its end, which is in res. machine_power_cycle(): as machine_open() left it, but RAM is as it was; false: out of
 * memory. Only between runs. */
struct machine *machine_open(const struct run_config *cfg, struct run_result *res);
void machine_run(struct machine *m);
bool machine_power_cycle(struct machine *m);
void machine_close(struct machine *m);
#endif
