/* tools/bench/guest/bench.h: one table of benchmarks, built for the guest (-m32) and for the host (-m64). */
#ifndef VERSO_BENCH_H
#define VERSO_BENCH_H

#include <stdbool.h>
#include <stdint.h>

/* Does n units of work. Kernels return a checksum of the last unit, which is the same after any number of
 * them; rows of the operating system return 0. BENCH_UNAVAILABLE: this machine has no such thing (a port, a
 * VGA aperture). */
typedef uint32_t bench_fn(uint32_t n);
#define BENCH_UNAVAILABLE 0xDEADBEEFu

struct bench {
    const char *name;
    bench_fn *run;
};

/* Time that belongs to no unit, taken off the measured time: a benchmark adds what it spends on preparing. */
extern uint64_t bench_excluded_ns;
uint64_t bench_now_ns(void);
/* Tells a reader that goes by processor time where preparing ended. */
void bench_prepared(void);
/* Do all that goes with n units, and none of the operations themselves: what is left when counters of a run with it are taken from
 * those of a run without is the operations' own. Rows of page faults and protection know how. */
extern bool bench_empty;
/* This program, to be executed by fork+exec rows: it ends at once when its first argument is BENCH_NOTHING.
 */
extern const char *bench_program;
#define BENCH_NOTHING "nothing"

/* Each ends with a row without a name. */
extern const struct bench bench_int[], bench_call[], bench_x87[], bench_sse[], bench_mem[], bench_smc[],
    bench_os[], bench_io[], bench_scale[], bench_host[];

/* xorshift32: the same numbers everywhere. */
static inline uint32_t bench_random(uint32_t *s)
{
    uint32_t x = *s;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *s = x;
}

/* FNV-1a by words: order matters, so that a misplaced result shows. */
static inline uint32_t bench_mix(uint32_t h, uint32_t v)
{
    return (h ^ v) * 16777619u;
}

#endif
