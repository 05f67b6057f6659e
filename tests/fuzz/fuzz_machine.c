/* tests/fuzz/fuzz_machine.c: whole machines whose guests do everything wrong.
 *
 * A case (gen.h) runs translated and in the emulator alone, on a machine whose clock stands still. Both must
 * end alike, with equal registers and memory, or both run until their budget is used up; now and then a third
 * and a fourth run go through a cache, cold and warm. After each run nothing of the host's may have changed:
 * memory in front of and behind guest RAM, code memory behind its end, and the fields of struct cpu that are
 * not the guest's. The versos of the code that ran must pass the validator.
 */
#include "ambiguous.h"
#include "driver.h"
#include "layout.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "cache/cache.h"
#include "monitor/machine.h"
#include "monitor/sandbox.h"
#include "monitor/trace.h"

/* A guest that runs longer goes on for ever, unless another run of it ended: then it gets the patience. */
#define BUDGET_INSNS   10000u
#define BUDGET_US      1500u
#define PATIENCE_INSNS (20u << 20)
#define PATIENCE_US    5000000u
#define CACHED_EVERY   8u
#if defined(__SANITIZE_ADDRESS__)
#define CONFINED false /* the sanitizer makes calls of its own */
#else
#define CONFINED true
#endif
#define CANARY_BYTES 256u
#define CANARY       0xA5

struct outcome {
    enum run_end end;
    int exit_status;
    bool budget; /* ended because its budget was used up */
    struct cpu cpu;
    uint8_t *ram;
};

static FILE *nowhere; /* where guests write to the debug console */
static struct run_config cfg;
static struct run_result res;
static struct machine *machine;
static uint64_t ram_bytes;
static struct outcome translated, emulated, other;
static volatile sig_atomic_t out_of_time;
static timer_t timer;
/* In memory that all children share. */
static struct seen {
    uint64_t ends[RUN_FAILED + 1], budget, exceptions, translated_exits, pages, dropped, cached, ambiguous,
        waits;
} * seen;

static void on_time(int sig)
{
    (void)sig;
    out_of_time = 1;
    run_quit();
}

/* Budgets are short and of real time: one that the host's load uses up is only tried again with patience,
 * which is of processor time. */
static void set_time(unsigned us)
{
    struct itimerval cpu = {.it_value = {us / 1000000, us % 1000000}, .it_interval = {0, us ? 100000 : 0}};
    /* Again and again: the first may come before the machine runs. */
    struct itimerspec real = {.it_value = {0, (long)us * 1000}, .it_interval = {0, 5000000}};
    if (us >= 1000000 || !us)
        setitimer(ITIMER_PROF, &cpu, NULL);
    if (us < 1000000)
        timer_settime(timer, 0, &real, NULL);
}

/* -- Canaries ---------------------------------------------------------------------------------------- */

static struct cpu wired; /* the host's fields as they were before the run */

/* Fields of part 1 and 3 of struct cpu that nothing in a guest may change. */
static const struct {
    const char *name;
    size_t off, len;
} host_fields[] = {
#define FIELD(f)                                                                                             \
    {                                                                                                        \
#f, offsetof(struct cpu, f), sizeof(wired.f)                                                         \
    }
    FIELD(stub),      FIELD(mask_host_flags),  FIELD(mask_if), FIELD(mask_chunk),
    FIELD(host_self), FIELD(host_tsc_stopped), FIELD(tsc_hz),
#undef FIELD
};

static uint8_t *code_end(void)
{
    return machine->code_rw + machine->code_touched - CANARY_BYTES;
}

static void set_canaries(void)
{
    memcpy(&wired, machine->vm.cpu, sizeof(wired));
    if (machine->code_touched)
        memset(code_end(), CANARY, CANARY_BYTES);
}

static bool is_canary(const uint8_t *p)
{
    for (unsigned i = 0; i < CANARY_BYTES; i++)
        if (p[i] != CANARY)
            return false;
    return true;
}

static bool check_canaries(uint64_t touched_before, char *text, size_t size)
{
    const struct cpu *c = machine->vm.cpu;
    for (size_t i = 0; i < sizeof(host_fields) / sizeof(host_fields[0]); i++)
        if (memcmp((const uint8_t *)c + host_fields[i].off, (const uint8_t *)&wired + host_fields[i].off,
                   host_fields[i].len)) {
            snprintf(text, size, "cpu.%s has changed", host_fields[i].name);
            return false;
        }
    if (*(const uint64_t *)(uintptr_t)machine->shadow_top != (uint64_t)(uintptr_t)stub_retmiss) {
        snprintf(text, size, "the bottom of the shadow stack has changed");
        return false;
    }
    if (machine->code_touched == touched_before && touched_before &&
        machine->code_used < touched_before - CANARY_BYTES && !is_canary(code_end())) {
        snprintf(text, size, "code memory behind its end has changed");
        return false;
    }
    return true;
}

/* -- One run ----------------------------------------------------------------------------------------- */

static bool open_machine(uint64_t bytes)
{
    ram_bytes = bytes;
    cfg = (struct run_config){.ram_bytes = bytes,
                              .serial_in = -1,
                              .serial_out = -1,
                              .escape = -1,
                              .clock_stopped = true,
                              .debug_console = nowhere};
    machine = machine_open(&cfg, &res);
    if (!machine) {
        fprintf(stderr, "no machine: %s\n", res.error);
        return false;
    }
    /* The page behind RAM belongs to the mapping but not to the file: touching it is fatal, so it needs no
     * canary. */
    return true;
}

/* With --once: what happens in each run goes to standard output; "exc,io,page" leaves code translated. */
static void start_trace(void)
{
    char bad[32];
    struct trace_config t = {.fd = 1};
    const char *list = getenv("FUZZ_TRACE");
    if (!list || !trace_parse_kinds(list, &t.filter.kinds, bad))
        return;
    printf("-- a run\n");
    fflush(stdout);
    if (machine->trace)
        trace_close(machine->trace);
    machine->trace = trace_open(&t);
    machine_observe(machine);
}

static void set_up(const struct fuzz_case *f)
{
    struct vm *vm = &machine->vm;
    if (!machine_power_cycle(machine)) {
        fprintf(stderr, "out of memory\n");
        exit(3);
    }
    start_trace();
    fuzz_build(f, vm, NULL);
    vm_segments_changed(vm);
    mmu_flush_tlb(vm);
    vm_paging_changed(vm, VM_FLUSH_ALL, gva(0));
}

/* What a run may use: a guest that uses it up is said to go on for ever. */
struct budget {
    uint64_t insns; /* of the emulator, where a repeated string instruction counts once */
    unsigned us;
};
static const struct budget first = {BUDGET_INSNS, BUDGET_US}, patience = {PATIENCE_INSNS, PATIENCE_US};

/* Runs the machine on from where it is. */
static bool go_on(bool emulate, struct budget budget, struct outcome *out, char *text, size_t size)
{
    cfg.emulate_only = emulate;
    cfg.stop_after_insns = emulate ? budget.insns : 0;
    machine->ended = false;
    machine->quit = 0;
    set_canaries();
    uint64_t touched = machine->code_touched;
    out_of_time = 0;
    set_time(budget.us);
    machine_run(machine);
    if (machine->trace)
        (void)trace_flush(machine->trace);
    set_time(0);
    out->end = res.end;
    out->exit_status = res.exit_status;
    out->budget = res.end == RUN_QUIT && (out_of_time || (emulate && machine->insns >= budget.insns));
    memcpy(&out->cpu, machine->vm.cpu, sizeof(out->cpu));
    memcpy(out->ram, machine->vm.ram, ram_bytes);
    if (res.end == RUN_FAILED) {
        snprintf(text, size, "the machine failed: %s", res.error);
        return false;
    }
    return check_canaries(touched, text, size);
}

static bool run_once(const struct fuzz_case *f, bool emulate, struct budget budget, struct outcome *out,
                     char *text, size_t size)
{
    set_up(f);
    return go_on(emulate, budget, out, text, size);
}

static void count(const struct outcome *o)
{
    seen->ends[o->end]++;
    seen->budget += o->budget;
    seen->exceptions += res.counter[RUN_COUNTER_EXCEPTIONS];
    seen->translated_exits += res.counter[RUN_COUNTER_EXITS];
    seen->pages += res.counter[RUN_COUNTER_PAGE_OFF];
    seen->dropped += res.counter[RUN_COUNTER_PAGE_DROPPED];
}

static bool validate_code(char *text, size_t size)
{
    for (uint32_t i = 0; i < machine->inst_used; i++) {
        const struct inst *in = &machine->inst_pool[i];
        char why[200] = "no memory";
        if (in->dead)
            continue;
        struct xlat_verso v = in->page->verso; /* as it was made */
        v.code = code_of_page(machine, in->page);
        bool safe = v.code && xlat_validate(&v, why, sizeof(why));
        free(v.code);
        if (safe)
            continue;
        snprintf(text, size, "the verso at %08x is not safe: %s", in->lin, why);
        return false;
    }
    return true;
}

/* -- Comparing --------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t off, len;
} state_fields[] = {
#define FIELD(f)                                                                                             \
    {                                                                                                        \
#f, offsetof(struct cpu, f), sizeof(wired.f)                                                         \
    }
    FIELD(eip),         FIELD(gpr[0]),       FIELD(gpr[1]),       FIELD(gpr[2]),     FIELD(gpr[3]),
    FIELD(gpr[4]),      FIELD(gpr[5]),       FIELD(gpr[6]),       FIELD(gpr[7]),     FIELD(arith),
    FIELD(vif),         FIELD(seg[0]),       FIELD(seg[1]),       FIELD(seg[2]),     FIELD(seg[3]),
    FIELD(seg[4]),      FIELD(seg[5]),       FIELD(ldtr),         FIELD(tr),         FIELD(gdtr),
    FIELD(idtr),        FIELD(cr0),          FIELD(cr2),          FIELD(cr3),        FIELD(cr4),
    FIELD(dr),          FIELD(pdpte),        FIELD(cpl),          FIELD(a20_mask),   FIELD(shadow),
    FIELD(efer),        FIELD(apic_base),    FIELD(pat),          FIELD(halted),     FIELD(nmi_blocked),
    FIELD(sysenter_cs), FIELD(sysenter_esp), FIELD(sysenter_eip), FIELD(tsc_offset),
#undef FIELD
};

static void hex(char *to, size_t size, const uint8_t *p, size_t len)
{
    *to = 0;
    for (size_t i = len < 16 ? len : 16; i-- && size > 2; to += 2, size -= 2)
        snprintf(to, size, "%02x", p[i]);
}

static bool differ(char *text, size_t size, const char *what, const void *a, const void *b, size_t len)
{
    char ta[40], tb[40];
    hex(ta, sizeof(ta), a, len);
    hex(tb, sizeof(tb), b, len);
    snprintf(text, size, "%s differs: %s and %s", what, ta, tb);
    return false;
}

/* Without the pointers of the last x87 instruction. */
static bool same_fx(const struct cpu *a, const struct cpu *b, char *text, size_t size)
{
    static const struct {
        const char *name;
        unsigned off, len, count;
    } parts[] = {{"FCW", 0, 2, 1},    {"FSW", 2, 2, 1},        {"FTW", 4, 1, 1},
                 {"MXCSR", 24, 4, 1}, {"ST or MM", 32, 10, 8}, {"XMM", 160, 16, 8}};
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        for (unsigned k = 0; k < parts[i].count; k++) {
            unsigned at = parts[i].off + 16 * k;
            char what[32];
            snprintf(what, sizeof(what), "%s%u", parts[i].name, k);
            if (memcmp(a->fx + at, b->fx + at, parts[i].len))
                return differ(text, size, what, a->fx + at, b->fx + at, parts[i].len);
        }
    return true;
}

/* A processor may set the accessed flag for an access that then does not happen (SDM vol. 3, 4.8): of two
 * operands of one instruction the host may reach the second before it finds that the first faults. */
static bool accessed_early(uint8_t was_translated, uint8_t was_emulated, uint64_t at)
{
    return (was_translated ^ was_emulated) == 0x20 && (was_translated & 0x21) == 0x21 && at >= LAY_PD &&
           at < LAY_FREE && at % 4 == 0;
}

static bool same(const struct outcome *a, const struct outcome *b, char *text, size_t size)
{
    if (a->end != b->end || a->exit_status != b->exit_status || a->budget != b->budget) {
        snprintf(text, size, "ends differ: %d (status %d%s) and %d (status %d%s), at %08x and %08x", a->end,
                 a->exit_status, a->budget ? ", budget" : "", b->end, b->exit_status,
                 b->budget ? ", budget" : "", a->cpu.eip, b->cpu.eip);
        return false;
    }
    if (a->budget)
        return true; /* stopped somewhere */
    for (uint64_t at = 0; at < ram_bytes; at += 4096)
        if (memcmp(a->ram + at, b->ram + at, 4096)) {
            unsigned i = 0;
            char what[64];
            while (i < 4096 && (a->ram[at + i] == b->ram[at + i] ||
                                accessed_early(a->ram[at + i], b->ram[at + i], at + i)))
                i++;
            if (i == 4096)
                continue;
            i &= ~3u;
            snprintf(what, sizeof(what), "memory at %llx", (unsigned long long)(at + i));
            return differ(text, size, what, a->ram + at + i, b->ram + at + i, 4);
        }
    for (size_t i = 0; i < sizeof(state_fields) / sizeof(state_fields[0]); i++) {
        const uint8_t *pa = (const uint8_t *)&a->cpu + state_fields[i].off,
                      *pb = (const uint8_t *)&b->cpu + state_fields[i].off;
        /* The shadow of an STI whose next instruction shuts the processor down is nobody's any more. */
        if (a->end == RUN_TRIPLE_FAULT && state_fields[i].off == offsetof(struct cpu, shadow))
            continue;
        if (memcmp(pa, pb, state_fields[i].len))
            return differ(text, size, state_fields[i].name, pa, pb, state_fields[i].len);
    }
    uint32_t fa = a->cpu.eflags_sys & ~(uint32_t)CPU_RF, fb = b->cpu.eflags_sys & ~(uint32_t)CPU_RF;
    if (fa != fb)
        return differ(text, size, "eflags_sys", &fa, &fb, 4);
    return same_fx(&a->cpu, &b->cpu, text, size);
}

/* -- A case ------------------------------------------------------------------------------------------ */

/* Translated, and again with more patience where the emulator found an end. */
static bool run_both(const struct fuzz_case *f, char *text, size_t size)
{
    if (!run_once(f, false, first, &translated, text, size))
        return false;
    count(&translated);
    if (f->seed % 4 == 0 && !validate_code(text, size))
        return false;
    if (!run_once(f, true, first, &emulated, text, size))
        return false;
    if (translated.budget == emulated.budget)
        return true;
    seen->waits++;
    if (emulated.budget)
        return go_on(true, patience, &emulated, text, size);
    return run_once(f, false, patience, &translated, text, size);
}

/* In some batches cases go through a cache, too: opening one takes more system calls than a guest may come
 * near to. */
static bool in_cached_batch(uint64_t seed)
{
    return seed / FUZZ_BATCH % 4 == 3;
}

/* Guests that differ have come to an end, so this one does, too, if only after a long loop. */
static bool ambiguous(const struct fuzz_case *f)
{
    set_up(f);
    return fuzz_ambiguous(&machine->vm, other.ram, PATIENCE_INSNS, &machine->ended);
}

static bool run_cached(const struct fuzz_case *f, char *text, size_t size)
{
    static const char *const names[] = {"cache cold: ", "cache warm: "};
    char path[64];
    snprintf(path, sizeof(path), "/dev/shm/fuzz-%ld.db", (long)getpid());
    for (unsigned i = 0; i < 2 && !translated.budget; i++) {
        struct cache_error err = {0};
        size_t n = strlen(names[i]);
        cfg.cache = cache_open(path, CACHE_CREATE, &err);
        if (!cfg.cache) {
            snprintf(text, size, "no cache: %s", err.text);
            return false;
        }
        memcpy(text, names[i], n);
        bool ok = run_once(f, false, patience, &other, text + n, size - n) &&
                  same(&translated, &other, text + n, size - n);
        seen->cached += res.counter[RUN_COUNTER_PAGE_HIT];
        (void)cache_close(cfg.cache, &err);
        cfg.cache = NULL;
        if (!ok)
            return false;
    }
    unlink(path);
    return true;
}

static bool run_case(const struct fuzz_case *f, char *text, size_t size)
{
    if (!run_both(f, text, size))
        return false;
    if (!same(&translated, &emulated, text, size)) {
        if (!ambiguous(f))
            return false;
        seen->ambiguous++;
        return true;
    }
    return !in_cached_batch(f->seed) || f->seed % CACHED_EVERY || run_cached(f, text, size);
}

static bool set_up_process(uint64_t first_seed)
{
    char why[100];
    struct outcome *all[] = {&translated, &emulated, &other};
    nowhere = fopen("/dev/null", "we");
    if (!nowhere)
        return false;
    struct sigaction sa = {.sa_handler = on_time, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigfillset(&sa.sa_mask);
    sigaction(SIGPROF, &sa, NULL);
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
    if (timer_create(CLOCK_MONOTONIC, &ev, &timer)) {
        perror("timer_create");
        return false;
    }
    for (unsigned i = 0; i < 3; i++)
        if (!(all[i]->ram = malloc(2u << 20)))
            return false;
    /* No case may reach a system call: the process has given up all that the machine does not need. */
    if (!open_machine(fuzz_ram_bytes(&(struct fuzz_case){.seed = first_seed})))
        return false;
    if (CONFINED && !in_cached_batch(first_seed) && !sandbox_enter(SANDBOX_CACHE, 99, why, sizeof(why)))
        fprintf(stderr, "no filter of system calls: %s\n", why);
    return true;
}

static void teardown(void)
{
    if (machine)
        machine_close(machine);
    fclose(nowhere);
    free(translated.ram);
    free(emulated.ram);
    free(other.ram);
}

static bool finish(uint64_t cases, char *text, size_t size)
{
    snprintf(text, size,
             "ends: exit %llu, triple fault %llu, reset %llu, halted or budget %llu (%llu); %llu exceptions, "
             "%llu exits, %llu pages, %llu dropped, "
             "%llu from the cache, %llu waits, %llu depended on a TLB",
             (unsigned long long)seen->ends[RUN_EXIT_PORT], (unsigned long long)seen->ends[RUN_TRIPLE_FAULT],
             (unsigned long long)seen->ends[RUN_RESET], (unsigned long long)seen->ends[RUN_QUIT],
             (unsigned long long)seen->budget, (unsigned long long)seen->exceptions,
             (unsigned long long)seen->translated_exits, (unsigned long long)seen->pages,
             (unsigned long long)seen->dropped, (unsigned long long)seen->cached,
             (unsigned long long)seen->waits, (unsigned long long)seen->ambiguous);
    return cases < 1000 || (seen->exceptions > cases && seen->pages > cases && seen->ends[RUN_TRIPLE_FAULT] &&
                            seen->ends[RUN_EXIT_PORT]);
}

static unsigned pieces(const struct fuzz_case *f, FILE *list)
{
    static struct cpu c __attribute__((aligned(64)));
    static struct vm vm;
    memset(&c, 0, sizeof(c));
    vm.cpu = &c;
    vm.ram_bytes = fuzz_ram_bytes(f);
    vm.ram = malloc(vm.ram_bytes);
    if (!vm.ram)
        return 0;
    unsigned n = fuzz_build(f, &vm, list);
    free(vm.ram);
    return n;
}

int main(int argc, char **argv)
{
    static const struct fuzz_target target = {"fuzz_machine", 100000,   FUZZ_BATCH, set_up_process,
                                              run_case,       teardown, finish,     pieces};
    seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return seen == MAP_FAILED ? 2 : fuzz_main(&target, argc, argv);
}
