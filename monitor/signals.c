/* monitor/signals.c: host faults and asynchronous signals in translated code.
 *
 * A synchronous fault is first tried as a missing mapping: if the guest's page tables allow the access, the
 * page is mapped and the host instruction simply runs again; no guest state needs to be known. Otherwise the
 * fault is unwound to the guest instruction and the run loop gets it. Asynchronous signals unwind the same
 * way. Unwinding always empties the shadow stack, so that translated code may use the host stack for a few
 * instructions.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "monitor/signals.h"

#define SIG_TIMER       SIGALRM
#define SIG_KICK        SIGUSR2
#define RETRY_NS        20000u /* ask again when a signal met a sequence that cannot be unwound */
#define ALT_STACK_BYTES (256u << 10)

/* Handlers have no argument: what runs on this thread. Each vCPU has a thread of its own, to which its timer and
 * its faults are sent. */
static _Thread_local struct machine *owner;
static _Thread_local void *alt_stack;

/* glibc's ucontext order of registers, by guest register number. */
static const int greg_of[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_R14, REG_RBP, REG_RSI, REG_RDI};

static bool in_range(uint64_t rip, const char *from, const char *to)
{
    return rip >= (uint64_t)(uintptr_t)from && rip < (uint64_t)(uintptr_t)to;
}

/* Puts the guest's registers in place for the instruction boundary that rip stands for. False: cannot be done
 * here. */
static bool unwind(struct machine *m, greg_t *g, uint32_t *eip)
{
    uint64_t rip = (uint64_t)g[REG_RIP];
    if (in_range(rip, stub_code_begin, stub_code_end)) {
        if (in_range(rip, stub_lookup_plain + 1, stub_exit_begin))
            return false; /* flags are on the stack */
        *eip = (uint32_t)g[REG_R8];
        return true;
    }
    if (code_in_thunks(m, rip)) {
        bool ecx_in_r9;
        *eip = (uint32_t)g[REG_R8];
        code_unwind_thunk(m, rip, eip, &ecx_in_r9);
        if (ecx_in_r9)
            g[REG_RCX] = (uint32_t)g[REG_R9];
        return true;
    }
    struct xlat_unwound u;
    struct inst *in = code_unwind(m, rip, &u);
    if (!in)
        return false;
    *eip = in->lin + (uint32_t)u.guest_rel;
    switch (u.state) {
    case XLAT_AT:
        break;
    case XLAT_AT_R8:
        *eip = (uint32_t)g[REG_R8];
        break;
    case XLAT_AT_R8_RCX9:
        *eip = (uint32_t)g[REG_R8];
        g[REG_RCX] = (uint32_t)g[REG_R9];
        break;
    case XLAT_AT_RCX9:
        g[REG_RCX] = (uint32_t)g[REG_R9];
        break;
    case XLAT_XCHG: {
        greg_t *r = &g[greg_of[u.arg & 3]];
        uint32_t x = (uint32_t)*r;
        *r = (greg_t)((x & 0xFFFF0000u) | (x & 0xFF) << 8 | (x >> 8 & 0xFF));
        break;
    }
    case XLAT_STRING:
        g[REG_RSI] = (uint32_t)g[REG_RSI];
        g[REG_RDI] = (uint32_t)g[REG_RDI];
        if (u.arg & XLAT_ARG_DF)
            g[REG_EFL] |= CPU_DF;
        break;
    case XLAT_AT_ESP:
        g[REG_R14] = (uint32_t)((uint32_t)g[REG_R14] + 4u * (uint32_t)(int8_t)u.arg);
        break;
    case XLAT_RETRY:
        return false;
    }
    return true;
}

/* Leaves translated code through `stub` with the state unwound to. */
static void leave_through(struct machine *m, greg_t *g, uint32_t eip, const char *stub)
{
    g[REG_R8] = eip;
    g[REG_RIP] = (greg_t)(uintptr_t)stub;
    g[REG_RSP] = (greg_t)m->shadow_top;
}

static void die(int sig, const siginfo_t *si, const greg_t *g)
{
    static char text[400];
    struct machine *m = owner;
    uint64_t rip = (uint64_t)g[REG_RIP];
    struct inst *in = m ? code_find(m, rip) : NULL;
    int n = snprintf(text, sizeof(text),
                     "verso: internal error: signal %d at host address %#llx (access %p, guest eip about "
                     "%#x, code offset %#llx)\n",
                     sig, (unsigned long long)rip, si->si_addr, in ? in->lin : 0,
                     m ? (unsigned long long)(rip - (uint64_t)(uintptr_t)m->code_rx) : 0ull);
    if (n > 0)
        (void)!write(2, text, (size_t)n);
    signal(sig, SIG_DFL);
    if (m && m->trace)
        (void)trace_flush(m->trace); /* what led here */
}

static bool in_translated(const struct machine *m, uint64_t rip)
{
    return rip - (uint64_t)(uintptr_t)m->code_rx < m->code_used;
}

/* Is rip in the middle of a string instruction, so that esi and edi are host addresses? */
static bool in_string(struct machine *m, uint64_t rip)
{
    struct xlat_unwound u;
    return code_unwind(m, rip, &u) && u.state == XLAT_STRING;
}

/* Accesses of CPL 0 by user_window[] have their window in r9 (xlat.h), but for string instructions, whose operands lie where ESI and
 * EDI have been rebased to. */
static bool is_data_access(struct machine *m, const greg_t *g, uint64_t addr)
{
    return m->vm.cpu->cpl == 0 && addr - m->data_base < 1ull << 32 &&
           ((uint64_t)g[REG_R9] == m->data_base || in_string(m, (uint64_t)g[REG_RIP]));
}

/* A fault of CPL 0 on the way to user memory. True: the host instruction may run again. */
static bool data_fault(struct machine *m, greg_t *g, uint64_t addr)
{
    uint64_t from = m->data_base, lin = addr - from;
    if (!is_data_access(m, g, addr))
        return false;
    m->fault_addr = gva((uint32_t)lin);
    if (m->vm.cpu->cr4 & CPU_CR4_SMAP) {
        m->fault_site = true;
        m->fault_user = false;
        return false;
    }
    struct window *w = window_data(m);
    if (!w)
        return false;
    COUNT(m, FAULT_DATA);
    if (window_fault(m, w, m->fault_addr, m->fault_write) != WINDOW_MAPPED)
        return false;
    if (m->data_base == from)
        return true;
    /* The window is another one than when the registers were loaded. */
    if ((uint64_t)g[REG_R9] == from)
        g[REG_R9] = (greg_t)m->data_base;
    if (in_string(m, (uint64_t)g[REG_RIP]))
        for (const int *r = (const int[]){REG_RSI, REG_RDI, -1}; *r >= 0; r++)
            if ((uint64_t)g[*r] - from < 1ull << 32)
                g[*r] = (greg_t)((uint64_t)g[*r] - from + m->data_base);
    return true;
}

static void settle_fault(int sig, siginfo_t *si, void *context)
{
    int saved_errno = errno;
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    struct machine *m = owner;
    uint64_t rip = (uint64_t)g[REG_RIP], addr = (uint64_t)(uintptr_t)si->si_addr;
    bool descriptor = rip == (uint64_t)(uintptr_t)stub_sreg_load;
    uint64_t next;
    if (sig == SIGFPE && emu_fpu_trap(rip, &next)) {
        g[REG_RIP] = (greg_t)next;
        return;
    }
    if (!m || (!in_translated(m, rip) && !descriptor)) {
        die(sig, si, g);
        return;
    }
    m->fault_rip = rip;
    m->fault_host = addr;
    m->fault_site = m->fault_chunk = m->fault_wrap = m->fault_volatile = false;
    m->fault_write = false;
    if (sig == SIGSEGV || sig == SIGBUS) {
        if (addr - (uint64_t)(uintptr_t)m->shadow_stack < PAGE_SIZE_ + 64) {
            /* The shadow stack is full: forget it, the landings verify. */
            g[REG_RSP] = (greg_t)m->shadow_top;
            COUNT(m, FAULT_OTHER);
            errno = saved_errno;
            return;
        }
        m->fault_write = g[REG_ERR] & 2;
        uint64_t lin = addr - m->vm.cpu->host_window;
        if (lin < 1ull << 32) {
            m->fault_addr = gva((uint32_t)lin);
            if (window_fault(m, m->current, m->fault_addr, m->fault_write) == WINDOW_MAPPED) {
                errno = saved_errno;
                return;
            }
        } else if (data_fault(m, g, addr)) {
            errno = saved_errno;
            return;
        } else if (!is_data_access(m, g, addr)) {
            m->fault_site = true; /* the address wraps round, or the segment is not a flat one */
            m->fault_wrap = lin + WINDOW_BELOW < WINDOW_SPAN;
        }
    } else {
        COUNT(m, FAULT_OTHER);
    }
    if (descriptor) {
        g[REG_RIP] = (greg_t)(uintptr_t)stub_sreg_miss;
        errno = saved_errno;
        return;
    }
    uint32_t eip;
    struct inst *in = code_find(m, rip);
    if (!unwind(m, g, &eip)) {
        die(sig, si, g);
        return;
    }
    m->fault_chunk = m->fault_chunk && in && code_reaches_user(in, eip);
    leave_through(m, g, eip, stub_fault);
    errno = saved_errno;
}

static void on_fault(int sig, siginfo_t *si, void *context)
{
    struct machine *m = owner;
    if (!m) {
        settle_fault(sig, si, context);
        return;
    }
    uint8_t was = vm_doing(&m->vm, RUN_DOING_FAULT);
    COUNT(m, HOST_FAULTS);
    settle_fault(sig, si, context);
    vm_doing(&m->vm, was);
}

/* Is rip in the middle of a repeated string instruction? Then elements may have been done, and the image of EFLAGS has RF (SDM
 * vol. 3, 17.3.1.1). Not every host says in its own RF whether one was. */
static bool in_repeat(struct machine *m, uint64_t rip)
{
    struct xlat_unwound u;
    if (!code_unwind(m, rip, &u) || u.state != XLAT_STRING)
        return false;
    uint8_t first = *(const uint8_t *)(uintptr_t)rip;
    return first == 0xF3 || first == 0xF2 || (u.arg & XLAT_ARG_BEGUN);
}

static void on_event(int sig, siginfo_t *si, void *context)
{
    int saved_errno = errno;
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    struct machine *m = owner;
    if (!m)
        return;
    if (sig == SIG_KICK && si->si_code == SI_TIMER)
        m->pace = 1;
    m->vm.cpu->host_event = 1;
    if (sig == SIG_TIMER)
        __atomic_store_n(&m->timer_expired, 1, __ATOMIC_RELAXED);
    uint64_t rip = (uint64_t)g[REG_RIP];
    if (in_range(rip, stub_enter_begin, stub_enter_end)) {
        g[REG_RIP] = (greg_t)(uintptr_t)stub_enter_abort;
    } else if (in_range(rip, stub_enter_end, stub_exit_begin) || in_translated(m, rip)) {
        uint32_t eip;
        bool repeat = in_repeat(m, rip);
        if (unwind(m, g, &eip)) {
            COUNT(m, SIGNALS_ASYNC);
            if (repeat)
                m->vm.cpu->eflags_sys |= CPU_RF;
            leave_through(m, g, eip, stub_signal);
        } else {
            signals_set_timer(m, machine_now_ns() + RETRY_NS);
        }
    }
    errno = saved_errno;
}

/* -- For the profile
 * ------------------------------------------------------------------------------------------------------------------- */

void signals_guest_eip(struct machine *m, const greg_t *g, uint32_t *eip)
{
    uint64_t rip = (uint64_t)g[REG_RIP];
    if (in_range(rip, stub_enter_begin, stub_enter_end) || in_range(rip, stub_exit_begin, stub_exit_end))
        return; /* the guest's state is in cpu, or on the way there */
    gregset_t copy;
    memcpy(copy, g, sizeof(copy));
    uint32_t found;
    if (unwind(m, copy, &found))
        *eip = found;
}

void signals_fault_eip(struct machine *m, uint32_t *eip)
{
    struct xlat_unwound u;
    struct inst *in = code_unwind(m, m->fault_rip, &u);
    if (in)
        *eip = in->lin + (uint32_t)u.guest_rel;
}

bool signals_in_stubs(uint64_t rip)
{
    return in_range(rip, stub_enter_begin, stub_enter_end) || in_range(rip, stub_code_begin, stub_code_end) ||
           in_range(rip, stub_exit_begin, stub_exit_end);
}

bool signals_fault_begins(uint64_t rip)
{
    return rip == (uint64_t)(uintptr_t)on_fault;
}

void signals_block_events(sigset_t *set)
{
    sigaddset(set, SIG_TIMER);
    sigaddset(set, SIG_KICK);
}

/* -- Input
 * -------------------------------------------------------------------------------------------------------------------
 */

static void push_input(struct machine *m, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (;;) {
            pthread_mutex_lock(&m->input_lock);
            unsigned next = (m->input_tail + 1) % sizeof(m->input);
            bool room = next != m->input_head;
            if (room) {
                m->input[m->input_tail] = data[i];
                m->input_tail = next;
            }
            pthread_mutex_unlock(&m->input_lock);
            if (room)
                break;
            signals_kick(m);
            struct pollfd p = {m->input_stop[0], POLLIN, 0};
            if (poll(&p, 1, 20) > 0)
                return;
        }
    }
    signals_kick(m);
}

static void *input_main(void *arg)
{
    struct machine *m = arg;
    bool escaped = false;
    for (;;) {
        struct pollfd p[2] = {{m->cfg->serial_in, POLLIN, 0}, {m->input_stop[0], POLLIN, 0}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (p[1].revents)
            return NULL;
        if (!p[0].revents)
            continue;
        uint8_t buf[256], out[512];
        size_t n_out = 0;
        ssize_t n = read(m->cfg->serial_in, buf, sizeof(buf));
        if (n <= 0) {
            if (n < 0 && (errno == EINTR || errno == EAGAIN))
                continue;
            return NULL;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (escaped) {
                escaped = false;
                if (buf[i] == 'x' || buf[i] == 'X') {
                    m->quit = 1;
                    break;
                }
                if (buf[i] != m->cfg->escape)
                    out[n_out++] = (uint8_t)m->cfg->escape;
                out[n_out++] = buf[i];
            } else if (m->cfg->escape >= 0 && buf[i] == m->cfg->escape) {
                escaped = true;
            } else {
                out[n_out++] = buf[i];
            }
        }
        push_input(m, out, n_out);
    }
}

/* -- Set-up
 * --------------------------------------------------------------------------------------------------------------------
 */

void signals_kick(struct machine *m)
{
    pthread_kill(m->thread, SIG_KICK);
}

void signals_set_timer(struct machine *m, uint64_t at_ns)
{
    if (!m->timer_made)
        return;
    struct itimerspec t = {{0, 0}, {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)}};
    timer_settime(m->timer, TIMER_ABSTIME, &t, NULL);
}

void signals_set_pace(struct machine *m, uint64_t in_ns)
{
    struct itimerspec t = {{0, 0}, {(time_t)(in_ns / 1000000000u), (long)(in_ns % 1000000000u)}};
    if (m->pace_made)
        timer_settime(m->pace_timer, 0, &t, NULL);
}

void signals_wait(struct machine *m)
{
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIG_TIMER);
    sigaddset(&block, SIG_KICK);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    if (!m->vm.cpu->host_event && !m->quit)
        ppoll(NULL, 0, NULL, &old);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Other threads of the process (input, cache writer) stay on the vCPU's present processor. Every change of a
 * mapping has to be told to all processors that lately ran any thread of the process, by an interrupt that is
 * waited for; they have little to do, and this keeps that number at one. */
static void gather_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET((unsigned)sched_getcpu() % CPU_SETSIZE, &here);
    pid_t self = (pid_t)syscall(SYS_gettid);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);
        if (tid > 0 && tid != self)
            (void)sched_setaffinity(tid, sizeof(here), &here);
    }
    if (d)
        closedir(d);
}

static struct sigaction old_actions[6];
static const int fault_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

bool signals_init(struct machine *m, char *err, size_t err_size)
{
    m->thread = pthread_self();
    pthread_mutex_init(&m->input_lock, NULL);
    m->input_stop[0] = m->input_stop[1] = -1;
    alt_stack = mmap(NULL, ALT_STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    stack_t ss = {.ss_sp = alt_stack, .ss_size = ALT_STACK_BYTES};
    if (alt_stack == MAP_FAILED || sigaltstack(&ss, NULL) != 0) {
        snprintf(err, err_size, "cannot set up a signal stack: %s", strerror(errno));
        return false;
    }
    owner = m;
    emu_fpu_catch(true);
    struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    sigaddset(&sa.sa_mask, SIG_TIMER);
    sigaddset(&sa.sa_mask, SIG_KICK);
    sa.sa_sigaction = on_fault;
    for (unsigned i = 0; i < 4; i++)
        sigaction(fault_signals[i], &sa, &old_actions[i]);
    sa.sa_sigaction = on_event;
    sa.sa_flags |= SA_RESTART;
    sigaction(SIG_TIMER, &sa, &old_actions[4]);
    sigaction(SIG_KICK, &sa, &old_actions[5]);
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIG_TIMER};
    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &ev, &m->timer) != 0) {
        snprintf(err, err_size, "cannot create a timer: %s", strerror(errno));
        return false;
    }
    m->timer_made = true;
    if (m->cfg->lockstep) {
        ev.sigev_signo = SIG_KICK;
        m->pace_made = timer_create(CLOCK_MONOTONIC, &ev, &m->pace_timer) == 0;
    }
    if (m->cfg->serial_in >= 0) {
        if (pipe(m->input_stop) != 0) {
            snprintf(err, err_size, "cannot create a pipe: %s", strerror(errno));
            return false;
        }
        sigset_t all, old;
        sigfillset(&all);
        sigdelset(&all, SIGSYS); /* which says that a system call is forbidden (sandbox.h) */
        pthread_sigmask(SIG_BLOCK, &all, &old); /* the input thread takes no signals */
        m->input_started = pthread_create(&m->input_thread, NULL, input_main, m) == 0;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    gather_threads();
    return true;
}

void signals_end(struct machine *m)
{
    if (m->timer_made)
        timer_delete(m->timer);
    if (m->pace_made)
        timer_delete(m->pace_timer);
    m->timer_made = m->pace_made = false;
    if (m->input_started) {
        (void)!write(m->input_stop[1], "", 1);
        pthread_join(m->input_thread, NULL);
    }
    for (int i = 0; i < 2; i++)
        if (m->input_stop[i] > 0)
            close(m->input_stop[i]);
    if (owner == m) {
        for (unsigned i = 0; i < 4; i++)
            sigaction(fault_signals[i], &old_actions[i], NULL);
        sigaction(SIG_TIMER, &old_actions[4], NULL);
        sigaction(SIG_KICK, &old_actions[5], NULL);
        stack_t off = {.ss_flags = SS_DISABLE};
        sigaltstack(&off, NULL);
        munmap(alt_stack, ALT_STACK_BYTES);
        emu_fpu_catch(false);
        owner = NULL;
    }
}
