/* translator/unwind.h: the byte form of unwind records; shared by the writer (translate.c), the readers and
 * the checks.
 *
 * A record covers the host bytes from its offset to the next record's. There are two streams, each in order of host offset; of records with
 * the same host offset, entries come first:
 *   u32 length of the entries in bytes, u32 length of the code (little-endian)
 *   entries: the canonical ones, state AT, offsets from the last entry's (from 0 in front of the first)
 *     0hhhhggg                  host +h (0..15), guest +g+1 (1..8)
 *     10hhhhhh                  host +h+16 (16..79), guest +5: behind a call
 *     11hhhggg                  host +h+16 (16..23), guest +g+1 (1..8), but for FFh
 *     FFh H.. G..               host +H as LEB128, guest +G as zigzag LEB128
 *   the others, host offset from the last of the others, guest offset from that of the last entry in front
 *     aaaa0sss h g              state s, arg a (signed), host +h (0..255), guest +g (signed)
 *     00011sss h ggg            the same for a = 0, guest +g (signed, little-endian): in tails, where g is a branch's distance
 *     00001sss a hhh gggg       the same with the widest fields (little-endian)
 * States that name r8d have no guest offset (g is 0).
 *
 * Two streams because a page that is loaded wants all of its entries and of the others only to know that they are well-formed, and because a
 * loop over records of one kind is predictable: with one stream the check took 7.3 us a page, of 26 in all. What
 * has no form of one byte is 45 of 780 entries of a kernel's page; without the forms for calls it was 110.
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

enum {
    UNWIND_HEAD = 8,
    UNWIND_LONG = 0xFF,      /* entries: the head of the long form */
    UNWIND_ENTRY_MAX = 11,   /* longest encoding of an entry */
    UNWIND_WIDE = 0x08,      /* others: one of the long forms */
    UNWIND_FAR = 0x10,       /* of them the shorter one */
    UNWIND_OTHER_SIZE = 3,
    UNWIND_FAR_SIZE = 5,
    UNWIND_WIDE_SIZE = 9,    /* and the longest encoding of another record */
};

/* All records, in order. */
struct unwind_reader {
    const uint8_t *entry, *entry_end, *other, *other_end;
    uint32_t code_len;
    uint32_t entry_host, other_host; /* of the last ones handed out */
    int32_t entry_rel;
    bool ended, bad;
};

static inline bool unwind_has_guest(enum xlat_state s)
{
    return s != XLAT_AT_R8 && s != XLAT_AT_R8_RCX9 && s != XLAT_RETRY;
}

void unwind_reader_init(struct unwind_reader *r, const uint8_t *unwind, uint32_t len);
/* The next record; the last one is the end of the code. False behind it and at anything malformed. Async-signal-safe. */
bool unwind_read(struct unwind_reader *r, struct unwind_rec *out);

/* Checks the whole of it against the length of the code: every record well-formed, a first entry or other at host offset 0, none outside the
 * code, no two entries for one guest offset. Makes the index in passing, as xlat_index_make() does. */
bool unwind_check(const uint8_t *unwind, uint32_t len, uint32_t code_len, struct xlat_index *index);

/* Appends records in order of host offset to out[], which has room for UNWIND_HEAD and UNWIND_WIDE_SIZE for each record that is no entry, until
 * unwind_finish(), and for UNWIND_ENTRY_MAX more for each entry there. */
struct unwind_writer {
    uint32_t entry_host, other_host;
    int32_t entry_rel;
    uint32_t entry_len;
    uint8_t entry[SCAN_PAGE_SIZE * UNWIND_ENTRY_MAX];
};
void unwind_begin(struct unwind_writer *w);
/* Returns the number of bytes written at p (none for an entry). */
unsigned unwind_put(struct unwind_writer *w, uint8_t *p, const struct unwind_rec *rec);
/* Puts head and entries in front of the len bytes put at out + UNWIND_HEAD. Returns the length of all. */
uint32_t unwind_finish(const struct unwind_writer *w, uint8_t *out, uint32_t len, uint32_t code_len);

#endif
