/* tools/bench/guest/smc.c: code that writes code. The bytes used mean the same in 32-bit and 64-bit mode. */
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

typedef uint32_t code_fn(void);

static uint8_t *page(void)
{
    static uint8_t *p;
    if (!p) {
        p = mmap(0, 16384, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            p = NULL;
    }
    return p;
}

static uint32_t call(uint8_t *at)
{
    code_fn *f;
    memcpy(&f, &at, sizeof(f));
    return f();
}

/* mov eax, imm32; add eax, imm32 (five times); ret */
static void emit(uint8_t *at, uint32_t seed)
{
    *at++ = 0xB8;
    memcpy(at, &seed, 4), at += 4;
    for (uint32_t i = 0; i < 5; i++) {
        *at++ = 0x05;
        seed += i;
        memcpy(at, &seed, 4), at += 4;
    }
    *at = 0xC3;
}

/* A just-in-time compiler: each function is written and then called eight times. */
static uint32_t jit(uint32_t n)
{
    uint8_t *p = page();
    if (!p)
        return BENCH_UNAVAILABLE;
    uint32_t h = 0;
    while (n--) {
        h = 0;
        for (uint32_t i = 0; i < 16; i++) {
            emit(p + i * 64, i * 12345);
            for (int k = 0; k < 8; k++)
                h = bench_mix(h, call(p + i * 64));
        }
    }
    return h;
}

/* One immediate of a function that stays: each write followed by one call. */
static uint32_t patch(uint32_t n)
{
    uint8_t *p = page();
    if (!p)
        return BENCH_UNAVAILABLE;
    emit(p + 4096, 1);
    uint32_t h = 0;
    while (n--) {
        h = 0;
        for (uint32_t i = 0; i < 16; i++) {
            memcpy(p + 4096 + 1, &i, 4);
            h = bench_mix(h, call(p + 4096));
        }
    }
    return h;
}

/* Data beside code: a counter in the page of the function that is called. */
static uint32_t data(uint32_t n)
{
    uint8_t *p = page();
    if (!p)
        return BENCH_UNAVAILABLE;
    emit(p + 8192, 5);
    uint32_t *counter = (uint32_t *)(void *)(p + 8192 + 2048), h = 0;
    while (n--) {
        h = 0;
        for (uint32_t i = 0; i < 16; i++) {
            *(volatile uint32_t *)counter = i;
            h = bench_mix(h, call(p + 8192) + *(volatile uint32_t *)counter);
        }
    }
    return h;
}

/* Code that is written once and called often: what a warmed-up compiler's page costs. */
static uint32_t settled(uint32_t n)
{
    uint8_t *p = page();
    if (!p)
        return BENCH_UNAVAILABLE;
    emit(p + 12288, 77);
    uint32_t h = 0;
    while (n--) {
        h = 0;
        for (int i = 0; i < 256; i++)
            h = bench_mix(h, call(p + 12288));
    }
    return h;
}

const struct bench bench_smc[] = {
    {"smc.jit", jit}, {"smc.patch", patch}, {"smc.data", data}, {"smc.settled", settled}, {0}};
