/* tools/bench/guest/call.c: calls, returns and indirect branches. */
#include "bench.h"

#define OUTLINE __attribute__((noinline, noclone))

static OUTLINE uint32_t fib(uint32_t k)
{
    return k < 2 ? k : fib(k - 1) + fib(k - 2);
}

static uint32_t recursion(uint32_t n)
{
    uint32_t r = 0;
    while (n--)
        r = fib(16);
    return r;
}

typedef int compare_fn(uint32_t a, uint32_t b);

static OUTLINE int ascending(uint32_t a, uint32_t b)
{
    return a < b ? -1 : a > b;
}

static OUTLINE void sort(uint32_t *a, int lo, int hi, compare_fn *compare)
{
    while (lo < hi) {
        uint32_t pivot = a[(lo + hi) / 2];
        int i = lo, j = hi;
        while (i <= j) {
            while (compare(a[i], pivot) < 0)
                i++;
            while (compare(a[j], pivot) > 0)
                j--;
            if (i <= j) {
                uint32_t t = a[i];
                a[i++] = a[j], a[j--] = t;
            }
        }
        sort(a, lo, j, compare);
        lo = i;
    }
}

static uint32_t quicksort(uint32_t n)
{
    static uint32_t a[1024];
    static compare_fn *volatile compare = ascending; /* not to be inlined */
    uint32_t h = 0;
    while (n--) {
        uint32_t s = 17;
        for (int i = 0; i < 1024; i++)
            a[i] = bench_random(&s);
        sort(a, 0, 1023, compare);
        h = 0;
        for (int i = 0; i < 1024; i += 33)
            h = bench_mix(h, a[i]);
    }
    return h;
}

/* Objects of eight classes in random order, each called through its table of methods. */
struct shape {
    uint32_t (*const *method)(const struct shape *);
    uint32_t side;
};
#define METHOD(k, expression)                                                                                \
    static OUTLINE uint32_t method##k(const struct shape *o)                                                 \
    {                                                                                                        \
        uint32_t x = o->side;                                                                                \
        return expression;                                                                                   \
    }                                                                                                        \
    static uint32_t (*const table##k[1])(const struct shape *) = {method##k};
METHOD(0, x *x)
METHOD(1, x * 4)
METHOD(2, x ^ 0x55)
METHOD(3, x + 9)
METHOD(4, x << 3)
METHOD(5, x - 77)
METHOD(6, x >> 1)
METHOD(7, ~x)

static uint32_t methods(uint32_t n)
{
    static uint32_t (*const *const tables[8])(const struct shape *) = {table0, table1, table2, table3,
                                                                       table4, table5, table6, table7};
    static struct shape shape[512];
    if (!shape[0].method) {
        uint32_t s = 23;
        for (int i = 0; i < 512; i++)
            shape[i].side = bench_random(&s), shape[i].method = tables[bench_random(&s) >> 9 & 7];
    }
    uint32_t h = 0;
    while (n--) {
        h = 0;
        for (int i = 0; i < 512; i++)
            h = bench_mix(h, shape[i].method[0](&shape[i]));
    }
    return h;
}

/* A byte-code machine: one jump through a table for each operation. */
static uint32_t interpreter(uint32_t n)
{
    enum { PUSH, ADD, XOR, DUP, SWAP, ROT, MUL, LOOP, END };
    /* As many values come as go: the stack is as deep after each round. */
    static const uint8_t program[] = {PUSH, 7,   ADD, DUP, ROT, PUSH, 13,   MUL,  XOR, SWAP,
                                      PUSH, 3,   ADD, DUP, ROT, ADD,  SWAP, LOOP, END};
    uint32_t out = 0;
    while (n--) {
        uint32_t stack[16] = {1, 2, 3}, *sp = stack + 3, loops = 400;
        for (const uint8_t *pc = program;;) {
            uint32_t t;
            switch (*pc++) {
            case PUSH:
                *sp++ = *pc++;
                continue;
            case ADD:
                sp--, sp[-1] += sp[0];
                continue;
            case XOR:
                sp--, sp[-1] ^= sp[0];
                continue;
            case DUP:
                *sp = sp[-1], sp++;
                continue;
            case SWAP:
                t = sp[-1], sp[-1] = sp[-2], sp[-2] = t;
                continue;
            case ROT:
                t = sp[-3], sp[-3] = sp[-2], sp[-2] = sp[-1], sp[-1] = t;
                continue;
            case MUL:
                sp--, sp[-1] *= sp[0];
                continue;
            case LOOP:
                if (--loops)
                    pc = program;
                continue;
            default:
                break;
            }
            break;
        }
        out = stack[0] ^ stack[1] ^ stack[2];
    }
    return out;
}

const struct bench bench_call[] = {{"call.fib", recursion},
                                   {"call.qsort", quicksort},
                                   {"call.methods", methods},
                                   {"call.switch", interpreter},
                                   {0}};
