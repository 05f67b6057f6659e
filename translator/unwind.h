/* translator/unwind.h: the byte form of unwind records; shared by the writer (translate.c), the readers and
 * the checks.
 *
 * A record covers the host bytes from its offset to the next record's. Records are in order of host offset.
 * Two forms: 0hhhhggg                 AT, canonical entry: host offset +h (0..15), guest offset +g+1 (1..8)
 * from the last entry's 1esssxaa H.. [G..]       any: e canonical entry, sss enum xlat_state, x guest offset
 * follows, aa arg; H host delta as LEB128, G guest delta from the last entry's, zigzag LEB128; AT_ESP has its arg in a byte of its own
 * behind them, and aa 0. The last record
 * is C0h|RETRY: the end of the code (an entry with that state means nothing else). The "last entry" is the
 * last record with e set, guest offset 0 in front of the first. States that name r8d have no guest offset.
 */
#ifndef VERSO_TRANSLATOR_UNWIND_H
#define VERSO_TRANSLATOR_UNWIND_H

#include "translator/xlat.h"

struct unwind_rec {
    uint32_t host_off;
    int32_t guest_rel;
    enum xlat_state state;
    uint8_t arg;
    bool entry;
    bool is_end; /* nothing but host_off is meant: the length of the code */
};

/* Longest encoding of one record: head, host delta (5), guest delta (5), arg. */
#define UNWIND_REC_MAX 12u

#define UNWIND_LONG 0x80u /* set in the first byte of all but the short form */

struct unwind_reader {
    const uint8_t *p, *end;
    uint32_t host_off;
    int32_t entry_rel;
};

static inline bool unwind_has_guest(enum xlat_state s)
{
    return s != XLAT_AT_R8 && s != XLAT_AT_R8_RCX9 && s != XLAT_RETRY;
}

void unwind_reader_init(struct unwind_reader *r, const uint8_t *unwind, uint32_t len);
/* The next record. False at the end and at anything malformed (then r->p != r->end). Async-signal-safe. */
bool unwind_read(struct unwind_reader *r, struct unwind_rec *out);
/* Appends rec, where *host_off and *entry_rel are the writer's state (both start at 0). Returns the number of
 * bytes, at most UNWIND_REC_MAX. rec->host_off must not be below *host_off. */
unsigned unwind_write(uint8_t *p, const struct unwind_rec *rec, uint32_t *host_off, int32_t *entry_rel);

#endif
