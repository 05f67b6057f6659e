/* monitor/sandbox.c: see sandbox.h. The filter is a BPF program made from sandbox.def: one comparison for
 * each call, and what its check adds. (seccomp_data: number, architecture, instruction pointer, six 64-bit
 * arguments.) */
#include "monitor/sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

/* What the arguments of a call must be; the number is that of the argument. Arguments are looked at in their
 * low halves, which is all that these calls use. */
enum check { ANY, NO_EXEC_2, SELF_0, THREAD_0, TERMINAL_1, READ_ONLY_2 };

static const struct {
    unsigned when;
    unsigned number;
    enum check check;
    const char *name;
} calls[] = {
#define SANDBOX(when, call, check, reason) {SANDBOX_##when, SYS_##call, check, #call},
#include "monitor/sandbox.def"
#undef SANDBOX
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

#define X32_CALLS 0x40000000u /* the x32 ABI reports the same architecture */

static int exit_status;

const char *sandbox_call_name(long number)
{
    for (size_t i = 0; i < CALLS; i++)
        if ((long)calls[i].number == number)
            return calls[i].name;
    return NULL;
}

/* -- The filter --------------------------------------------------------------------------------------------
 */

/* At most six instructions for a call, and the frame. */
struct program {
    struct sock_filter insn[16 + 8 * CALLS];
    unsigned n;
};

static void emit(struct program *p, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    p->insn[p->n++] = (struct sock_filter){code, yes, no, k};
}

static void load(struct program *p, size_t offset)
{
    emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void load_argument(struct program *p, unsigned n)
{
    load(p, offsetof(struct seccomp_data, args) + 8 * n);
}

static void finish(struct program *p, uint32_t action)
{
    emit(p, BPF_RET | BPF_K, action, 0, 0);
}

/* Allows if (argument & mask) == value; goes on otherwise. */
static void allow_masked(struct program *p, unsigned argument, uint32_t mask, uint32_t value)
{
    load_argument(p, argument);
    emit(p, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    finish(p, SECCOMP_RET_ALLOW);
}

static void allow_one_of(struct program *p, unsigned argument, const uint32_t *values, unsigned n)
{
    load_argument(p, argument);
    for (unsigned i = 0; i < n; i++) {
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, values[i], 0, 1);
        finish(p, SECCOMP_RET_ALLOW);
    }
}

static void allow(struct program *p, enum check check)
{
    static const uint32_t terminal[] = {TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ};
    switch (check) {
    case ANY:
        finish(p, SECCOMP_RET_ALLOW);
        break;
    case NO_EXEC_2:
        allow_masked(p, 2, PROT_EXEC, 0);
        break;
    case SELF_0:
        allow_masked(p, 0, UINT32_MAX, (uint32_t)getpid());
        break;
    case THREAD_0:
        allow_masked(p, 0, CLONE_THREAD, CLONE_THREAD);
        break;
    case TERMINAL_1:
        allow_one_of(p, 1, terminal, sizeof(terminal) / sizeof(terminal[0]));
        break;
    case READ_ONLY_2:
        allow_masked(p, 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY);
        break;
    }
}

static void make(struct program *p, unsigned when)
{
    p->n = 0;
    load(p, offsetof(struct seccomp_data, arch));
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    finish(p, SECCOMP_RET_KILL_PROCESS);
    for (size_t i = 0; i < CALLS; i++) {
        if (!(calls[i].when & when))
            continue;
        struct program body = {.n = 0};
        allow(&body, calls[i].check);
        load(p, offsetof(struct seccomp_data, nr));
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, (uint8_t)body.n);
        memcpy(p->insn + p->n, body.insn, body.n * sizeof(body.insn[0]));
        p->n += body.n;
    }
    /* clone3() has its flags in memory, where a filter cannot look: the C library falls back to clone(). */
    load(p, offsetof(struct seccomp_data, nr));
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
    finish(p, SECCOMP_RET_ERRNO | ENOSYS);
    finish(p, SECCOMP_RET_TRAP);
}

/* -- A call that is not allowed ----------------------------------------------------------------------------
 */

static void on_forbidden(int sig, siginfo_t *si, void *context)
{
    char text[160];
    (void)sig;
    (void)context;
    const char *name = sandbox_call_name(si->si_syscall);
    int n = snprintf(
        text, sizeof(text),
        "verso: internal error: system call %d%s%s%s at %p is not allowed while a guest runs; stopped\n",
        si->si_syscall, name ? " (" : "", name ? name : "", name ? ", with other arguments)" : "",
        si->si_call_addr);
    if (n > 0)
        (void)!write(2, text, (size_t)n);
    syscall(SYS_exit_group, exit_status); /* not _exit(): a sanitizer would have its say first */
}

bool sandbox_enter(unsigned when, int status, char *why, size_t why_size)
{
    static struct program program; /* too large for the stack of a thread */
    struct sigaction sa = {.sa_sigaction = on_forbidden, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old;
    sigset_t sys, before;
    exit_status = status;
    make(&program, when | SANDBOX_ALWAYS);
    sigfillset(&sa.sa_mask);
    sigemptyset(&sys);
    sigaddset(&sys, SIGSYS);
    sigaction(SIGSYS, &sa, &old);
    pthread_sigmask(SIG_UNBLOCK, &sys, &before);
    struct sock_fprog f = {(unsigned short)program.n, program.insn};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &f) == 0)
        return true;
    snprintf(why, why_size, "%s", strerror(errno));
    sigaction(SIGSYS, &old, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return false;
}
