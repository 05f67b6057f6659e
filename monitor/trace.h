/* monitor/trace.h: the trace of a run.
 *
 * An event is one record of plain data (struct trace_event) of a kind in trace.def. The monitor reports events by
 * TRACE(), which costs a test of one bit where the kind is not wanted. The writer (trace.c) filters them and writes
 * them as text lines or in the compact form of TRACE_FORMAT.md, at once or, as a ring, the last ones at the end.
 * trace_file.c knows both forms and reads the compact one; it is pure.
 */
#ifndef VERSO_MONITOR_TRACE_H
#define VERSO_MONITOR_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_VERSION 2u
#define TRACE_FIELDS  4u

enum trace_group {
#define TRACE_GROUP(id, name, text) TRACE_GROUP_##id,
#include "monitor/trace.def"
#undef TRACE_GROUP
    TRACE_GROUP_COUNT
};
enum trace_kind {
#define TRACE_KIND(id, group, name, text, ...) TRACE_##id,
#include "monitor/trace.def"
#undef TRACE_KIND
    TRACE_KIND_COUNT
};
_Static_assert(TRACE_KIND_COUNT <= 64, "a selection of kinds is 64 bits");

/* How a field is shown and stored. */
enum trace_type {
    TRACE_HEX,     /* hexadecimal */
    TRACE_COUNT,   /* decimal */
    TRACE_ADDRESS, /* an EIP: 32 bits, stored as the distance from the event's */
    TRACE_ERROR,   /* an error code plus one; 0: none */
    TRACE_CONTEXT, /* as trace_event.context */
    TRACE_WHY,     /* enum trace_why */
};
/* Why a page was not served from the cache. */
enum trace_why { TRACE_WHY_OFF, TRACE_WHY_ABSENT, TRACE_WHY_REFUSED, TRACE_WHY_ENTRY, TRACE_WHY_RESCAN, TRACE_WHY_COUNT };

/* trace_event.context: bits 0 and 1 the CPL, bits 2 and 3 the mode. */
enum trace_mode { TRACE_MODE_REAL, TRACE_MODE_V86, TRACE_MODE_P16, TRACE_MODE_P32 };
#define TRACE_CPL(context)  ((context) & 3u)
#define TRACE_MODE(context) ((context) >> 2 & 3u)

struct trace_event {
    uint64_t ns; /* guest time */
    uint64_t field[TRACE_FIELDS];
    uint32_t eip; /* of the instruction it happened at, or before which */
    uint16_t cs;
    uint8_t kind, context;
};

const char *trace_group_name(enum trace_group g);
const char *trace_group_text(enum trace_group g);
enum trace_group trace_kind_group(enum trace_kind k);
const char *trace_kind_name(enum trace_kind k);
const char *trace_kind_text(enum trace_kind k);
unsigned trace_kind_fields(enum trace_kind k);
/* All kinds of a group, as bits. */
uint64_t trace_group_kinds(enum trace_group g);

/* -- Selection -------------------------------------------------------------------------------------------- */

#define TRACE_RANGES 8u
struct trace_filter {
    uint64_t kinds; /* bit per enum trace_kind */
    uint8_t cpls;   /* bit per CPL; 0: all */
    unsigned ranges;
    struct {
        uint32_t first, last; /* both included */
    } range[TRACE_RANGES];    /* an event passes if its EIP, or where it goes to, lies in one; none given: all */
    uint64_t skip;            /* events that pass and are not written, before the first that is */
    uint64_t count;           /* events to be written, 0: all */
};
/* By kind, CPL and range. */
bool trace_filter_passes(const struct trace_filter *f, const struct trace_event *e);
/* "call,exc,io": groups and kinds; "all"; a name after '-' is taken out again. False: bad holds the word nobody knows. */
bool trace_parse_kinds(const char *list, uint64_t *kinds, char bad[32]);
/* "0,3". */
bool trace_parse_cpls(const char *list, uint8_t *cpls);
/* "FIRST-LAST", "FIRST+BYTES" or "ADDRESS", hexadecimal with or without 0x, several separated by commas; added to the filter. */
bool trace_parse_ranges(const char *list, struct trace_filter *f);

/* -- The two forms (trace_file.c) ------------------------------------------------------------------------- */

#define TRACE_TEXT_MAX     256u
#define TRACE_HEADER_BYTES 32u
#define TRACE_BLOCK_HEAD   24u
#define TRACE_PAYLOAD_MAX  16384u
#define TRACE_RECORD_MAX   64u /* at most so many bytes */

/* One line without its end; returns its length (less than TRACE_TEXT_MAX). Async-signal-safe. */
size_t trace_text(const struct trace_event *e, char text[TRACE_TEXT_MAX]);

struct trace_header {
    uint64_t began_ns; /* of the host's clock: nanoseconds since 1970, UTC */
    bool ring;         /* the last events of a run, not all */
};
void trace_put_header(const struct trace_header *h, uint8_t out[TRACE_HEADER_BYTES]);
enum trace_header_result { TRACE_HEADER_OK, TRACE_HEADER_FOREIGN, TRACE_HEADER_VERSION, TRACE_HEADER_DAMAGED };
enum trace_header_result trace_get_header(const uint8_t in[TRACE_HEADER_BYTES], struct trace_header *out);

/* A block: records that need no other block. Zeroed before its first record. */
struct trace_block {
    uint32_t len, records;
    uint64_t first; /* number of its first event, from 0 */
    uint64_t ns;    /* of the last record, for the differences; likewise: */
    uint32_t eip;
    uint16_t cs;
    uint8_t context;
    uint8_t bytes[TRACE_BLOCK_HEAD + TRACE_PAYLOAD_MAX]; /* the payload after room for the head */
};
/* False: the block is full. */
bool trace_block_add(struct trace_block *b, const struct trace_event *e);
/* Writes the head; the block is b->bytes, of TRACE_BLOCK_HEAD + b->len bytes. */
void trace_block_finish(struct trace_block *b);

/* Reads what is at p. end: no more bytes follow. */
enum trace_read {
    TRACE_READ_BLOCK, /* a sound block; *used bytes. Without records: the end of the trace */
    TRACE_READ_SKIP,  /* *used bytes are no sound block */
    TRACE_READ_CUT,   /* end of the file inside of a block; *used: the rest */
    TRACE_READ_MORE,  /* give more bytes; at most TRACE_BLOCK_HEAD + TRACE_PAYLOAD_MAX are ever wanted */
    TRACE_READ_END,   /* nothing left */
};
struct trace_cursor {
    const uint8_t *p, *end;
    uint32_t left; /* records */
    uint64_t number; /* of the next event */
    uint64_t ns;
    uint32_t eip;
    uint16_t cs;
    uint8_t context;
};
enum trace_read trace_read_block(const uint8_t *p, size_t len, bool end, size_t *used, struct trace_cursor *out);
/* The next event of a block. False: none left; *bad: because what follows makes no sense. */
bool trace_read_event(struct trace_cursor *c, struct trace_event *e, bool *bad);

/* -- The writer (trace.c). One thread. -------------------------------------------------------------------- */

struct trace;
struct trace_config {
    int fd;        /* owned by the caller; -1: nothing is written (a ring to be looked at) */
    bool binary;   /* TRACE_FORMAT.md instead of text */
    uint64_t ring; /* only the last so many, at the end; 0: all, at once */
    struct trace_filter filter;
};
#define TRACE_RING_MAX (16u << 20)
/* NULL: out of memory. */
struct trace *trace_open(const struct trace_config *cfg);
/* False: this was the last event wanted. */
bool trace_note(struct trace *t, const struct trace_event *e);
/* The kinds wanted now; 0 when all wanted have been written. */
uint64_t trace_wanted(const struct trace *t);
void trace_select(struct trace *t, uint64_t kinds);
/* Events that passed the filter so far; of them, those a ring still holds. */
uint64_t trace_seen(const struct trace *t);
uint64_t trace_held(const struct trace *t);
/* The n-th of the events a ring holds, 0 the oldest. */
const struct trace_event *trace_get(const struct trace *t, uint64_t n);
/* Writes text lines held back, for those who look at the file while the run goes on. */
void trace_show(struct trace *t);
/* Writes what is held back, and the end: no event may follow. The first error (an errno) of the whole trace, or 0.
 * Async-signal-safe for a process about to die. */
int trace_flush(struct trace *t);
void trace_close(struct trace *t);

#endif
