/* tests/fuzz/driver.h: what fuzzers share: cases by seed in a child process, whose crash, hang or finding
 * names the seed and is reduced to the pieces it needs.
 *
 * Options of every fuzzer: [--from N] [--count N | --seconds N] [--findings N] run cases from seed N on;
 * [--seed N [--drop HEX]] runs one, tells its pieces and, if it fails, reduces it; [--once] with it: in this
 * very process, for a debugger; [--text FILE]: where real bytes are taken from. Exit status: 0 nothing found,
 * 1 something found, 2 usage.
 */
#ifndef VERSO_TESTS_FUZZ_DRIVER_H
#define VERSO_TESTS_FUZZ_DRIVER_H

#include "gen.h"

struct fuzz_target {
    const char *name;
    uint64_t default_count;
    uint64_t batch; /* a process runs seeds up to the next multiple of it; 0: all */
    /* In the child, before the first case. False: cannot run at all (said on standard error). */
    bool (*setup)(uint64_t first_seed);
    /* One case. False: found something, text says what. */
    bool (*run)(const struct fuzz_case *f, char *text, size_t size);
    /* In the child, after the last case or a finding: gives everything back. */
    void (*teardown)(void);
    /* In the parent, at the end: a line of what was covered; false if it was too little to mean anything (a
     * fuzzer that exercises nothing must not pass). */
    bool (*finish)(uint64_t cases, char *text, size_t size);
    /* Pieces of a case; list: described there. */
    unsigned (*pieces)(const struct fuzz_case *f, FILE *list);
};

int fuzz_main(const struct fuzz_target *t, int argc, char **argv);

#endif
