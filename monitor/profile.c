/* monitor/profile.c: the sampling profiler, and the map of code memory for `perf`. See profile.h. */
#include "monitor/profile.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/signals.h"

#define SIG_SAMPLE SIGPROF

static struct machine *sampled; /* the handler has no argument */

/* Async-signal-safe, as all up to the next banner. */
static struct run_spot *spot_for(struct run_profile *p, uint32_t eip, bool user, uint8_t doing)
{
    uint32_t h = (eip * 0x9E3779B1u ^ doing * 0x85EBCA6Bu ^ user) >> 8;
    for (uint32_t i = 0; i < RUN_SPOT_TRIES; i++) {
        struct run_spot *s = &p->spot[(h + i) % RUN_SPOT_MAX];
        if (!s->samples) {
            s->eip = eip;
            s->user = user;
            s->doing = doing;
        }
        if (s->eip == eip && s->user == user && s->doing == doing)
            return s;
    }
    return NULL;
}

static void note(struct machine *m, uint8_t doing, uint32_t eip)
{
    struct run_profile *p = m->cfg->profile;
    p->by[doing]++;
    if (doing == RUN_DOING_IDLE)
        return;
    struct run_spot *s = spot_for(p, eip, m->vm.cpu->cpl == 3, doing);
    if (s)
        s->samples++;
    else
        p->spots_lost++;
}

static void on_sample(int sig, siginfo_t *si, void *context)
{
    (void)sig;
    (void)si;
    int saved_errno = errno;
    const ucontext_t *uc = context;
    struct machine *m = sampled;
    uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    uint32_t eip = m->vm.cpu->eip;
    uint8_t doing = m->vm.doing;
    if (rip - (uint64_t)(uintptr_t)m->code_rx < m->code_used)
        doing = RUN_DOING_TRANSLATED;
    else if (signals_in_stubs(rip))
        doing = RUN_DOING_SWITCH;
    else if (signals_fault_begins(rip))
        doing = RUN_DOING_FAULT; /* delivered together with the fault, before its handler said so */
    if (doing == RUN_DOING_TRANSLATED || doing == RUN_DOING_SWITCH)
        signals_guest_eip(m, uc->uc_mcontext.gregs, &eip);
    else if (doing == RUN_DOING_FAULT)
        signals_fault_eip(m, &eip);
    note(m, doing, eip);
    errno = saved_errno;
}

/* -- Start and end
 * ------------------------------------------------------------------------------------------------------------------
 */

bool profile_start(struct machine *m, char *err, size_t err_size)
{
    if (!m->cfg->profile)
        return true;
    memset(m->cfg->profile, 0, sizeof(*m->cfg->profile));
    m->cfg->profile->hz = RUN_PROFILE_HZ;
    sampled = m;
    struct sigaction sa = {.sa_sigaction = on_sample, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    /* A signal that met this handler instead of the translated code below it would not make that code leave.
     */
    signals_block_events(&sa.sa_mask);
    sigaction(SIG_SAMPLE, &sa, &m->profile_action);
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIG_SAMPLE};
    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    long period = 1000000000 / RUN_PROFILE_HZ;
    struct itimerspec every = {{0, period}, {0, period}};
    if (timer_create(CLOCK_MONOTONIC, &ev, &m->profile_timer) != 0 ||
        timer_settime(m->profile_timer, 0, &every, NULL) != 0) {
        snprintf(err, err_size, "cannot create a timer for the profile: %s", strerror(errno));
        return false;
    }
    m->profiling = true;
    return true;
}

void profile_stop(struct machine *m)
{
    if (m->profiling)
        timer_delete(m->profile_timer);
    m->profiling = false;
    if (sampled == m) {
        sigaction(SIG_SAMPLE, &m->profile_action, NULL);
        sampled = NULL;
    }
}

const char *run_doing_name(enum run_doing d)
{
    static const char *const names[] = {
#define RUN_DOING(id, name, text) name,
#include "monitor/doing.def"
#undef RUN_DOING
    };
    return names[d];
}

const char *run_doing_text(enum run_doing d)
{
    static const char *const texts[] = {
#define RUN_DOING(id, name, text) text,
#include "monitor/doing.def"
#undef RUN_DOING
    };
    return texts[d];
}

/* -- The map for perf
 * ---------------------------------------------------------------------------------------------------------------
 */

static void map_line(struct machine *m, const struct inst *in, uint32_t from, uint32_t to, uint32_t off)
{
    if (to > from)
        fprintf(m->cfg->perf_map, "%llx %x %s:%08x\n",
                (unsigned long long)(uintptr_t)m->code_rx + in->code_off + from, to - from,
                in->page->mode & XLAT_MODE_USER ? "user" : "kernel", in->lin + off);
}

/* A line from each entry to the next: host code lies in the order of the guest's. */
void profile_placed(struct machine *m, const struct inst *in)
{
    static _Thread_local int32_t host[SCAN_PAGE_SIZE];
    if (!m->cfg->perf_map)
        return;
    const struct xlat_verso *v = &in->page->verso;
    xlat_entries(v->unwind, v->unwind_len, host);
    uint32_t from = 0, from_off = in->page->unit ? in->page->unit_off : 0;
    for (uint32_t off = 0; off < SCAN_PAGE_SIZE; off++) {
        bool entry = in->page->entry[off >> 3] >> (off & 7) & 1;
        if (!entry || host[off] < (int32_t)from)
            continue;
        map_line(m, in, from, (uint32_t)host[off], from_off);
        from = (uint32_t)host[off];
        from_off = off;
    }
    map_line(m, in, from, in->code_len, from_off);
}

void profile_flushed(struct machine *m)
{
    FILE *f = m->cfg->perf_map;
    if (f && (fflush(f) || fseek(f, 0, SEEK_SET) || ftruncate(fileno(f), 0)))
        clearerr(f); /* old names stay; perf takes some of them */
}
