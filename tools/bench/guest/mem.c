/* tools/bench/guest/mem.c: memory. A unit moves 256 KiB unless it says otherwise. */
#include "bench.h"

#include <emmintrin.h>
#include <stddef.h>
#include <string.h>

enum { BLOCK = 256 << 10, MIB = 1 << 20 };
static uint8_t area[4 * MIB] __attribute__((aligned(4096)));

static inline void hide(void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

static uint32_t check_block(const uint8_t *p)
{
    uint32_t h = 0, w;
    for (unsigned i = 0; i < BLOCK; i += 4093 * 4)
        memcpy(&w, p + i, 4), h = bench_mix(h, w);
    return h;
}

static void fill(uint8_t *p)
{
    for (unsigned i = 0; i < BLOCK; i++)
        p[i] = (uint8_t)(i * 7 + (i >> 8));
}

static uint32_t read(uint32_t n)
{
    fill(area);
    uint32_t sum = 0;
    while (n--) {
        const uint32_t *p = (const uint32_t *)(const void *)area;
        sum = 0;
        for (unsigned i = 0; i < BLOCK / 4; i++)
            sum += p[i];
        hide(area);
    }
    return sum;
}

static uint32_t store(uint32_t n)
{
    while (n--) {
        uint32_t *p = (uint32_t *)(void *)area;
        for (unsigned i = 0; i < BLOCK / 4; i++)
            p[i] = i;
        hide(area);
    }
    return check_block(area);
}

static uint32_t stos(uint32_t n)
{
    while (n--) {
        void *d = area;
        size_t c = BLOCK / 4;
        __asm__ volatile("rep stosl" : "+D"(d), "+c"(c) : "a"(0x5A5A1234) : "memory");
    }
    return check_block(area);
}

static uint32_t copy_by(uint32_t n, unsigned distance)
{
    fill(area);
    while (n--) {
        const uint32_t *s = (const uint32_t *)(const void *)area;
        uint32_t *d = (uint32_t *)(void *)(area + distance);
        for (unsigned i = 0; i < BLOCK / 4; i++)
            d[i] = s[i];
        hide(area);
    }
    return check_block(area + distance);
}

static uint32_t copy(uint32_t n)
{
    return copy_by(n, BLOCK + 37 * 4096);
}

/* Translators with a direct-mapped software TLB evict source and destination by turns. */
static uint32_t copy_1m(uint32_t n)
{
    return copy_by(n, MIB);
}

static uint32_t movs(uint32_t n)
{
    fill(area);
    while (n--) {
        const void *s = area;
        void *d = area + MIB + 37 * 4096;
        size_t c = BLOCK / 4;
        __asm__ volatile("rep movsl" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
    }
    return check_block(area + MIB + 37 * 4096);
}

static uint32_t copy_sse(uint32_t n)
{
    fill(area);
    while (n--) {
        const __m128i *s = (const __m128i *)(const void *)area;
        __m128i *d = (__m128i *)(void *)(area + 2 * MIB + 37 * 4096);
        for (unsigned i = 0; i < BLOCK / 16; i++)
            _mm_store_si128(d + i, _mm_load_si128(s + i));
        hide(area);
    }
    return check_block(area + 2 * MIB + 37 * 4096);
}

/* 64 copies of 1 to 64 bytes. */
static uint32_t small_movs(uint32_t n)
{
    fill(area);
    while (n--)
        for (unsigned i = 1; i <= 64; i++) {
            const void *s = area + i;
            void *d = area + MIB + i * 64;
            size_t c = i;
            __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
        }
    return check_block(area + MIB);
}

/* A random cycle through `bytes` of memory, 1024 steps a unit, each waiting for the one before. */
static uint32_t chase(uint32_t n, unsigned bytes)
{
    static uint32_t next[MIB];
    static unsigned built;
    unsigned count = bytes / 4;
    if (built != bytes) {
        uint32_t s = 41;
        for (unsigned i = 0; i < count; i++)
            next[i] = i;
        for (unsigned i = count - 1; i; i--) { /* Sattolo: one cycle */
            unsigned j = bench_random(&s) % i;
            uint32_t t = next[i];
            next[i] = next[j], next[j] = t;
        }
        built = bytes;
    }
    uint32_t at = 0;
    while (n--) {
        at = 0;
        for (int i = 0; i < 1024; i++)
            at = next[at];
    }
    return at;
}

static uint32_t chase_16k(uint32_t n)
{
    return chase(n, 16 << 10);
}

static uint32_t chase_4m(uint32_t n)
{
    return chase(n, 4 * MIB);
}

const struct bench bench_mem[] = {{"mem.read", read},
                                  {"mem.store", store},
                                  {"mem.stos", stos},
                                  {"mem.copy", copy},
                                  {"mem.copy_1m", copy_1m},
                                  {"mem.movs", movs},
                                  {"mem.copy_sse", copy_sse},
                                  {"mem.small_movs", small_movs},
                                  {"mem.chase_16k", chase_16k},
                                  {"mem.chase_4m", chase_4m},
                                  {0}};
