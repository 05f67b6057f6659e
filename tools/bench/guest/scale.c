/* tools/bench/guest/scale.c: the same work among more of something: processes, pages of code. */
#include "bench.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

/* -- A token goes round a ring of processes, each of which touches a few pages of its own. A unit is one hop. */

enum { RING_MAX = 500, RING_PAGES = 16, RING_WARM = 10 };

static void member(int in, int out, volatile uint8_t *own)
{
    char token;
    while (read(in, &token, 1) == 1) {
        for (int i = 0; i < RING_PAGES; i++)
            own[i * 4096]++;
        if (write(out, &token, 1) != 1)
            break;
    }
    _exit(0);
}

static uint32_t ring(uint32_t n, int processes)
{
    static uint8_t own[RING_PAGES * 4096];
    int first[2], prev, next[2];
    pid_t pid[RING_MAX];
    char token = 1;
    uint64_t t0 = bench_now_ns();
    if (pipe(first))
        return BENCH_UNAVAILABLE;
    prev = first[0];
    for (int i = 0; i < processes; i++) {
        if (pipe(next))
            return BENCH_UNAVAILABLE;
        pid[i] = fork();
        if (pid[i] == 0) {
            close(first[1]), close(next[0]);
            member(prev, next[1], own);
        }
        close(prev), close(next[1]);
        prev = next[0];
    }
    /* Some rounds before the measured ones: pages are there, and what a translator does once or twice is done. */
    for (int i = 0; i < RING_WARM; i++)
        if (write(first[1], &token, 1) != 1 || read(prev, &token, 1) != 1)
            return BENCH_UNAVAILABLE;
    uint64_t begin = bench_now_ns();
    bench_excluded_ns += begin - t0;
    uint32_t hops = 0;
    for (; hops < n; hops += (uint32_t)processes)
        if (write(first[1], &token, 1) != 1 || read(prev, &token, 1) != 1)
            return BENCH_UNAVAILABLE;
    t0 = bench_now_ns();
    bench_excluded_ns += (uint64_t)((double)(t0 - begin) * (hops - n) / hops); /* rounds are whole */
    close(first[1]);
    for (int i = 0; i < processes; i++)
        waitpid(pid[i], NULL, 0);
    close(prev);
    bench_excluded_ns += bench_now_ns() - t0;
    return 0;
}

/* -- Code: a page is a function of many instructions; pages are executed one after the other. A unit is one page. The first call makes
 * the pages and executes all of them once, and that is part of the first unit. */

enum { PAGE = 4096, STEPS = 600, CODE_MAX = 100 };

/* add eax, imm32 ...; ret. No two pages are the same, and none is like one of another row. */
static void make_code(uint8_t *p, uint32_t seed)
{
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t value = seed * 1000 + i;
        *p++ = 0x05;
        memcpy(p, &value, 4), p += 4;
    }
    *p = 0xC3;
}

static void execute(uint8_t *p)
{
    uint32_t (*f)(void);
    memcpy(&f, &p, sizeof(f));
    (void)f();
}

static uint32_t code(uint32_t n, uint32_t mib)
{
    static uint8_t *area;
    static uint32_t made, at;
    uint32_t count = mib * 256;
    if (made != mib) {
        uint64_t t0 = bench_now_ns();
        if (area)
            munmap(area, CODE_MAX << 20);
        area = mmap(0, CODE_MAX << 20, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (area == MAP_FAILED)
            return BENCH_UNAVAILABLE;
        for (uint32_t i = 0; i < count; i++)
            make_code(area + (size_t)i * PAGE, mib * CODE_MAX * 256 + i);
        made = mib;
        at = 0;
        bench_prepared();
        bench_excluded_ns += bench_now_ns() - t0;
        for (uint32_t i = 0; i < count; i++)
            execute(area + (size_t)i * PAGE);
    }
    while (n--)
        execute(area + (size_t)(at++ % count) * PAGE);
    return 0;
}

/* -- Data: half of the machine's memory is touched page by page, in the first unit; then a unit is a store to a random page of it. */

static uint32_t half(uint32_t n)
{
    static volatile uint8_t *area;
    static uint32_t pages, seed = 41;
    if (!area) {
        struct sysinfo si;
        if (sysinfo(&si))
            return BENCH_UNAVAILABLE;
        pages = (uint32_t)((uint64_t)si.totalram * si.mem_unit / 2 / PAGE);
        area = mmap(0, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (area == MAP_FAILED)
            return BENCH_UNAVAILABLE;
        for (uint32_t i = 0; i < pages; i++)
            area[(size_t)i * PAGE] = 1;
    }
    while (n--)
        area[(size_t)(bench_random(&seed) % pages) * PAGE]++;
    return 0;
}

#define RING(k)                                                                                              \
    static uint32_t ring_##k(uint32_t n)                                                                     \
    {                                                                                                        \
        return ring(n, k);                                                                                   \
    }
#define CODE(k)                                                                                              \
    static uint32_t code_##k(uint32_t n)                                                                     \
    {                                                                                                        \
        return code(n, k);                                                                                   \
    }
RING(4)
RING(20)
RING(60)
RING(125)
RING(250)
RING(500)
CODE(1)
CODE(10)
CODE(25)
CODE(50)
CODE(75)
CODE(100)

const struct bench bench_scale[] = {
    {"scale.ring_4", ring_4},     {"scale.ring_20", ring_20},   {"scale.ring_60", ring_60},   {"scale.ring_125", ring_125},
    {"scale.ring_250", ring_250}, {"scale.ring_500", ring_500}, {"scale.code_1", code_1},     {"scale.code_10", code_10},
    {"scale.code_25", code_25},   {"scale.code_50", code_50},   {"scale.code_75", code_75},   {"scale.code_100", code_100},
    {"scale.half", half},         {0}};
