/* tests/diff/native.c: one instruction on the host processor.
 *
 * The code given is run with the guest's numbers in the host registers of the same name, the stack pointer
 * among them, so nothing but the instruction itself may touch the stack: the way in and out goes by r15, and
 * signals come on a stack of their own. A fault is caught, its vector, error code and address are noted, and
 * control goes on at the way out with the registers as they are; of a repeated string instruction that is how
 * far it got.
 *
 * EFLAGS.AC is set for the instruction where the guest would have its alignment checked (Linux sets CR0.AM);
 * the handler takes it back before it touches anything, since it would have its own accesses checked.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "diff.h"

struct call {
    uint8_t fx[512]; /* offset 0 */
    uint64_t gpr[8]; /* 512 */
    uint64_t flags;  /* 576 */
    uint64_t rsp;    /* 584: the host's */
    uint64_t entry;  /* 592 */
    uint64_t exit;   /* 600 */
    uint64_t use_fx; /* 608 */
    uint64_t calm;   /* 616: flags of the host */
    uint32_t mxcsr;  /* 624 */
} __attribute__((aligned(64)));

static struct call call;
static uint8_t *code;
static volatile sig_atomic_t active;
static volatile uint64_t trap_vector, trap_error, trap_address;
static struct sigaction old_action[32];

void native_enter(struct call *c);
extern char native_exit[];
void native_trampoline(int sig, siginfo_t *si, void *context);
void native_signal(int sig, siginfo_t *si, void *context);

__asm__(
    ".pushsection .text\n.intel_syntax noprefix\n"
    "native_enter:\n"
    " push rbx\n push rbp\n push r12\n push r13\n push r14\n push r15\n mov r15, rdi\n mov [r15 + 584], rsp\n"
    " cmp qword ptr [r15 + 608], 0\n je 1f\n fxrstor64 [r15]\n"
    "1: push [r15 + 576]\n popfq\n"
    " mov rax, [r15 + 512]\n mov rcx, [r15 + 520]\n mov rdx, [r15 + 528]\n mov rbx, [r15 + 536]\n"
    " mov rsp, [r15 + 544]\n mov rbp, [r15 + 552]\n mov rsi, [r15 + 560]\n mov rdi, [r15 + 568]\n"
    " jmp [r15 + 592]\n"
    "native_exit:\n"
    " mov [r15 + 512], rax\n mov [r15 + 520], rcx\n mov [r15 + 528], rdx\n mov [r15 + 536], rbx\n"
    " mov [r15 + 544], rsp\n mov [r15 + 552], rbp\n mov [r15 + 560], rsi\n mov [r15 + 568], rdi\n"
    " mov rsp, [r15 + 584]\n pushfq\n pop [r15 + 576]\n push [r15 + 616]\n popfq\n"
    " cmp qword ptr [r15 + 608], 0\n je 1f\n fxsave64 [r15]\n fninit\n ldmxcsr [r15 + 624]\n"
    "1: pop r15\n pop r14\n pop r13\n pop r12\n pop rbp\n pop rbx\n ret\n"
    "native_trampoline:\n pushfq\n and dword ptr [rsp], 0xfffbffff\n popfq\n jmp native_signal\n"
    ".att_syntax\n.popsection\n");
_Static_assert(offsetof(struct call, gpr) == 512 && offsetof(struct call, rsp) == 584 &&
                   offsetof(struct call, mxcsr) == 624,
               "native_enter");

void native_signal(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;

    if (!active) {
        old_action[sig].sa_sigaction(sig, si, context);
        return;
    }
    trap_vector = (uint64_t)g[REG_TRAPNO];
    trap_error = (uint64_t)g[REG_ERR];
    trap_address = (uint64_t)g[REG_CR2];
    active = 0;
    g[REG_EFL] &= ~(greg_t)0x50100; /* AC, RF, TF */
    g[REG_RIP] = (greg_t)(uintptr_t)native_exit;
}

void native_init(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = native_trampoline,
                           .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    sigemptyset(&sa.sa_mask);
    for (unsigned n = 0; n < sizeof signals / sizeof signals[0]; n++)
        sigaction(signals[n], &sa, &old_action[signals[n]]);
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        exit(2);
    call.entry = (uint64_t)(uintptr_t)code;
    call.exit = (uint64_t)(uintptr_t)native_exit;
    call.mxcsr = 0x1F80;
    call.calm = 0x202;
}

static void load_fx(const struct cpu *c)
{
    memcpy(call.fx, c->fx, 288);
    memset(call.fx + 8, 0, 16); /* no pointers: the host would check them */
}

static void store_fx(struct cpu *c)
{
    memcpy(c->fx, call.fx, 6);
    memcpy(c->fx + 24, call.fx + 24, 4);
    memcpy(c->fx + 32, call.fx + 32, 256);
}

int native_run(struct cpu *c, const uint8_t *bytes, unsigned n, bool align, bool fx, uint32_t *error,
               uint32_t *cr2)
{
    static const uint8_t leave[] = {0x41, 0xFF, 0xA7, 0x58, 0x02, 0, 0}; /* jmp [r15 + 600] */

    memcpy(code, bytes, n);
    memcpy(code + n, leave, sizeof leave);
    for (unsigned r = 0; r < 8; r++)
        call.gpr[r] = c->gpr[r];
    call.flags = (cpu_eflags(c) & CPU_HOST_FLAGS) | 0x202 | (align ? CPU_AC : 0);
    call.use_fx = fx;
    if (fx)
        load_fx(c);
    trap_vector = 255;
    active = 1;
    native_enter(&call);
    active = 0;
    for (unsigned r = 0; r < 8; r++)
        c->gpr[r] = (uint32_t)call.gpr[r];
    cpu_set_eflags(c, (cpu_eflags(c) & ~(uint32_t)CPU_HOST_FLAGS) | (call.flags & CPU_HOST_FLAGS));
    if (fx)
        store_fx(c);
    *error = (uint32_t)trap_error;
    *cr2 = (uint32_t)trap_address;
    return trap_vector == 255 ? -1 : (int)trap_vector;
}
