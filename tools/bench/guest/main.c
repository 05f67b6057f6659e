/* tools/bench/guest/main.c: measures the rows whose names match, one line each.
 *
 * B NAME                                       a row begins
 * P NAME                                       what its first unit needed is made (where that takes long)
 * F NAME                                       its first unit is done
 * R NAME BEST_NS FIRST_NS TOTAL_NS CHECK UNITS   its best batch per unit, its first unit, time spent,
 * checksum of a unit, units done in all U NAME                                       this machine has no such
 * thing
 *
 * A reader with a clock of its own compares TOTAL_NS with the time between the two lines: a guest whose clock
 * is wrong is found out.
 *
 * bench MS PATTERNS            rows by shell patterns, comma-separated
 * bench units N PATTERNS       N units of each, once
 * bench empty N PATTERNS       what goes with N units, without the operations (rows that know how)
 * bench time NAME COMMAND...   a command, once: a row of the shell
 */
#include "bench.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_NS = 10000000, BATCH_MIN = 5 };

uint64_t bench_excluded_ns;
bool bench_empty;
const char *bench_program;
static const char *row; /* that is being measured */

void bench_prepared(void)
{
    printf("P %s\n", row);
}

uint64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t timed(bench_fn *run, uint32_t n, uint32_t *check)
{
    bench_excluded_ns = 0;
    uint64_t t0 = bench_now_ns();
    *check = run(n);
    uint64_t t = bench_now_ns() - t0;
    return t > bench_excluded_ns ? t - bench_excluded_ns : 1;
}

/* Units that take about BATCH_NS; how long setting up takes is not known, so the whole time bounds it as
 * well. */
static uint32_t calibrate(bench_fn *run, uint64_t budget, uint64_t *units)
{
    uint32_t n = 1, check;
    for (;;) {
        *units += n;
        uint64_t t0 = bench_now_ns(), t = timed(run, n, &check), whole = bench_now_ns() - t0;
        if (t >= BATCH_NS || whole >= budget / BATCH_MIN || n >= 1u << 28)
            return n;
        double grow = t < BATCH_NS / 16 ? 8 : 1.2 * BATCH_NS / (double)t;
        n = (uint32_t)(n * grow) + 1;
    }
}

static void measure(const struct bench *b, uint64_t budget)
{
    uint32_t check, again;
    row = b->name;
    printf("B %s\n", row);
    uint64_t start = bench_now_ns();
    uint64_t first = timed(b->run, 1, &check);
    if (check == BENCH_UNAVAILABLE) {
        printf("U %s\n", b->name);
        return;
    }
    printf("F %s\n", b->name);
    uint64_t units = 1;
    uint32_t n = calibrate(b->run, budget, &units);
    double best = 0;
    for (unsigned i = 0; i < BATCH_MIN || bench_now_ns() - start < budget; i++) {
        double t = (double)timed(b->run, n, &again) / n;
        units += n;
        best = i && best < t ? best : t;
        if (again != check) {
            printf("E %s: checksum %08x, then %08x\n", b->name, check, again);
            return;
        }
    }
    printf("R %s %.2f %llu %llu %08x %llu\n", b->name, best, (unsigned long long)first,
           (unsigned long long)(bench_now_ns() - start), check, (unsigned long long)units);
}

/* So many units, once: for a reader who counts what they do to the host. */
static void count(const struct bench *b, uint32_t n)
{
    uint32_t check;
    row = b->name;
    printf("B %s\n", row);
    uint64_t t = timed(b->run, n, &check);
    printf("R %s %.2f 0 %llu %08x %u\n", b->name, (double)t / n, (unsigned long long)t, check, n);
}

/* These take minutes, or say something of the host only: when named. */
static bool wanted(const char *name, const char *patterns)
{
    char list[512], *save = NULL;
    snprintf(list, sizeof(list), "%s", patterns);
    for (char *p = strtok_r(list, ",", &save); p; p = strtok_r(NULL, ",", &save))
        if (!fnmatch(p, name, 0) && (strncmp(name, "scale.", 6) || !strncmp(p, "scale.", 6)) &&
            (strncmp(name, "host.", 5) || !strncmp(p, "host.", 5)))
            return true;
    return false;
}

static int time_command(const char *name, char **argv)
{
    printf("B %s\n", name);
    uint64_t t0 = bench_now_ns();
    pid_t pid = fork();
    if (pid == 0) {
        execvp(argv[0], argv);
        _exit(127);
    }
    int status;
    waitpid(pid, &status, 0);
    uint64_t t = bench_now_ns() - t0;
    if (status)
        printf("E %s: status %x\n", name, (unsigned)status);
    else
        printf("R %s %llu %llu %llu 00000000 1\n", name, (unsigned long long)t, (unsigned long long)t,
               (unsigned long long)t);
    return status != 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], BENCH_NOTHING))
        return 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc >= 4 && !strcmp(argv[1], "time"))
        return time_command(argv[2], argv + 3);
    bench_empty = argc == 4 && !strcmp(argv[1], "empty");
    bool units = argc == 4 && (bench_empty || !strcmp(argv[1], "units"));
    if (argc != 3 && !units) {
        fprintf(stderr, "usage: %s MS PATTERNS | %s units|empty N PATTERNS | %s time NAME COMMAND...\n",
                argv[0], argv[0], argv[0]);
        return 2;
    }
    static const struct bench *const groups[] = {bench_int, bench_call, bench_x87, bench_sse,   bench_mem,
                                                 bench_smc, bench_os,   bench_io,  bench_scale, bench_host};
    bench_program = argv[0];
    const char *patterns = argv[argc - 1];
    uint64_t number = strtoull(argv[argc - 2], NULL, 10);
    for (unsigned g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
        for (const struct bench *b = groups[g]; b->name; b++)
            if (wanted(b->name, patterns))
                units ? count(b, (uint32_t)number) : measure(b, number * 1000000u);
    return 0;
}
