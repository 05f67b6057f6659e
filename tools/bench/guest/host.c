/* tools/bench/guest/host.c: what the host charges for the operations that a monitor in user space is made of.
 * Only the host's build has them. */
#define _GNU_SOURCE /* memfd_create(), names of registers */
#include "bench.h"

#ifdef __x86_64__
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 256, OTHER = 97 /* of the file's pages, so that neighbours do not merge */ };

/* A file without a name, all its pages there; -1 where there is no memory. */
static int file(void)
{
    static int fd;
    if (fd)
        return fd;
    fd = memfd_create("bench", 0);
    if (fd < 0 || ftruncate(fd, PAGES * PAGE))
        return fd = -1;
    volatile uint8_t *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return fd = -1;
    for (int i = 0; i < PAGES; i++)
        p[i * PAGE] = 1;
    return munmap((void *)(uintptr_t)p, PAGES * PAGE) ? -1 : fd;
}

static uint8_t *map_at(uint8_t *at, int page, int pages, int flags)
{
    void *p = mmap(at, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | flags, file(),
                   (off_t)page * PAGE);
    return p == MAP_FAILED ? NULL : p;
}

/* Over the faulting store, which is three bytes long. */
static void step_over(int sig, siginfo_t *si, void *context)
{
    (void)sig, (void)si;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 3;
}

/* A store that faults, its handler on a stack of its own, and the way back. */
static uint32_t sigsegv(uint32_t n)
{
    static uint8_t stack[64 << 10];
    uint8_t *p = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction sa = {.sa_sigaction = step_over, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old;
    if (p == MAP_FAILED || sigaltstack(&alt, NULL) || sigaction(SIGSEGV, &sa, &old))
        return BENCH_UNAVAILABLE;
    while (n--)
        __asm__ volatile(".byte 0xC6, 0x00, 0x00" : : "a"(p) : "memory"); /* movb $0, (%rax) */
    sigaction(SIGSEGV, &old, NULL);
    munmap(p, PAGE);
    return 0;
}

/* One page of the file over whatever is there, page tables filled. */
static uint32_t mmap_page(uint32_t n)
{
    uint8_t *p = map_at(NULL, 0, PAGES, MAP_POPULATE);
    if (!p)
        return BENCH_UNAVAILABLE;
    for (uint32_t i = 0; i < n; i++)
        if (!map_at(p + i % PAGES * PAGE, (int)(i * OTHER % PAGES), 1, MAP_FIXED | MAP_POPULATE))
            return BENCH_UNAVAILABLE;
    munmap(p, PAGES * PAGE);
    return 0;
}

/* One page's right to be written, taken or given. */
static uint32_t mprotect_page(uint32_t n)
{
    uint8_t *p = map_at(NULL, 0, PAGES, MAP_POPULATE);
    if (!p)
        return BENCH_UNAVAILABLE;
    for (uint32_t i = 0; i < n; i++)
        if (mprotect(p + i / 2 * 2 % PAGES * PAGE, PAGE, i & 1 ? PROT_READ | PROT_WRITE : PROT_READ))
            return BENCH_UNAVAILABLE;
    munmap(p, PAGES * PAGE);
    return 0;
}

/* The first store to a page that is mapped, but in no page table yet. */
static uint32_t touch(uint32_t n)
{
    while (n) {
        uint32_t part = n < PAGES ? n : PAGES;
        uint64_t t0 = bench_now_ns();
        volatile uint8_t *p = map_at(NULL, 0, PAGES, 0);
        if (!p)
            return BENCH_UNAVAILABLE;
        bench_excluded_ns += bench_now_ns() - t0;
        for (uint32_t i = 0; i < part; i++)
            p[i * PAGE] = 1;
        t0 = bench_now_ns();
        munmap((void *)(uintptr_t)p, PAGES * PAGE);
        bench_excluded_ns += bench_now_ns() - t0;
        n -= part;
    }
    return 0;
}

const struct bench bench_host[] = {{"host.sigsegv", sigsegv},
                                   {"host.mmap", mmap_page},
                                   {"host.mprotect", mprotect_page},
                                   {"host.touch", touch},
                                   {0}};
#else
const struct bench bench_host[] = {{0}};
#endif
