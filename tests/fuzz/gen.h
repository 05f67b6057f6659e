/* tests/fuzz/gen.h: a guest made from a seed: tables, page tables, registers and pieces of code, most of them
 * hostile. */
#ifndef VERSO_TESTS_FUZZ_GEN_H
#define VERSO_TESTS_FUZZ_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "monitor/vm.h"

/* A case consists of pieces, each made from the seed and its own number, so that leaving one out changes no
 * other: code of a piece left out becomes NOPs, a change of state does not happen. */
#define FUZZ_PIECES 512u

struct fuzz_case {
    uint64_t seed;
    uint8_t dropped[FUZZ_PIECES / 8]; /* bit set: left out */
    const uint8_t *text;              /* real code to cut pieces from; may be empty */
    size_t text_len;
};

static inline bool fuzz_is_dropped(const struct fuzz_case *f, unsigned piece)
{
    return f->dropped[piece / 8 % sizeof(f->dropped)] >> piece % 8 & 1;
}

/* RAM of the machine that a case wants, in bytes; the same within a batch of seeds. */
#define FUZZ_BATCH 500u
uint64_t fuzz_ram_bytes(const struct fuzz_case *f);
/* Fills RAM (all of it: what is not used becomes zero) and the vCPU, which must be as after RESET. Returns
 * the number of pieces. list: NULL, or where each piece is described in a line. The caller tells the machine
 * that segments and paging changed. */
unsigned fuzz_build(const struct fuzz_case *f, struct vm *vm, FILE *list);

#endif
