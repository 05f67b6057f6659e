/* Traces: both forms, selection, the ring, and files that are damaged. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/trace.h"

#define EVENTS 6000u

static uint64_t random_state = 0x5EED0001;
static uint64_t random_64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Every kind, values of every size. */
static struct trace_event any_event(uint64_t n)
{
    struct trace_event e = {.ns = n * 1000 + (random_64() & 511),
                            .eip = (uint32_t)random_64() >> (random_64() & 31),
                            .cs = (uint16_t)(random_64() & 0x18),
                            .kind = (uint8_t)(n % TRACE_KIND_COUNT),
                            .context = (uint8_t)(random_64() & 15)};
    for (unsigned i = 0; i < trace_kind_fields((enum trace_kind)e.kind); i++)
        e.field[i] = random_64() >> (random_64() & 63);
    if (trace_kind_group((enum trace_kind)e.kind) == TRACE_GROUP_FLOW)
        e.field[0] &= UINT32_MAX;
    return e;
}

static struct trace_event event[EVENTS];

/* EVENTS events written as a compact file; returns its bytes. */
static uint8_t *make_file(size_t *len, uint64_t ring)
{
    char name[] = "/tmp/verso-trace-XXXXXX";
    int fd = mkstemp(name);
    ck_assert_int_ge(fd, 0);
    unlink(name);
    struct trace_config cfg = {.fd = fd, .binary = true, .ring = ring, .filter = {.kinds = ~0ull}};
    struct trace *t = trace_open(&cfg);
    ck_assert_ptr_nonnull(t);
    random_state = 0x5EED0001;
    for (unsigned i = 0; i < EVENTS; i++) {
        event[i] = any_event(i);
        ck_assert(trace_note(t, &event[i]));
    }
    ck_assert_int_eq(trace_flush(t), 0);
    trace_close(t);
    *len = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *bytes = malloc(*len);
    ck_assert_int_eq(pread(fd, bytes, *len, 0), (ssize_t)*len);
    close(fd);
    return bytes;
}

struct seen {
    unsigned events, wrong, skips, cuts, blocks;
    bool ended;
    size_t skipped;
};

/* Reads blocks as a reader of a stream does: `step` more bytes whenever more are wanted. */
static struct seen read_all(const uint8_t *p, size_t len, size_t step)
{
    struct seen s = {0};
    size_t from = TRACE_HEADER_BYTES, have = from;
    while (from <= len) {
        struct trace_cursor c;
        struct trace_event e;
        size_t used;
        bool bad;
        switch (trace_read_block(p + from, have - from, have == len, &used, &c)) {
        case TRACE_READ_END:
            return s;
        case TRACE_READ_MORE:
            ck_assert_msg(have < len, "asks for more than there is");
            ck_assert_msg(have - from < TRACE_BLOCK_HEAD + TRACE_PAYLOAD_MAX, "asks for more than a block");
            have = len - have < step ? len : have + step;
            continue;
        case TRACE_READ_BLOCK:
            s.blocks++;
            s.ended = !c.left;
            while (trace_read_event(&c, &e, &bad)) {
                s.wrong += c.number > EVENTS || memcmp(&e, &event[c.number - 1], sizeof(e));
                s.events++;
            }
            s.wrong += bad;
            break;
        case TRACE_READ_CUT:
            s.cuts++;
            /* fall through */
        case TRACE_READ_SKIP:
            s.skips++;
            s.skipped += used;
            break;
        }
        ck_assert_uint_ge(used, 1);
        ck_assert_uint_le(used, have - from);
        from += used;
    }
    ck_abort_msg("read beyond the end");
    return s;
}

START_TEST(compact_form_gives_back_every_event)
{
    size_t len;
    uint8_t *p = make_file(&len, 0);
    struct trace_header h;
    ck_assert_int_eq(trace_get_header(p, &h), TRACE_HEADER_OK);
    ck_assert(!h.ring);
    for (size_t step = 1; step < 40000; step = step * 7 + 1) {
        struct seen s = read_all(p, len, step);
        ck_assert_uint_eq(s.events, EVENTS);
        ck_assert_uint_eq(s.wrong + s.skips, 0);
        ck_assert_uint_gt(s.blocks, 3);
        ck_assert(s.ended);
    }
    ck_assert_msg(len / EVENTS < 28, "%zu bytes for an event of random values", len / EVENTS);
    free(p);
}
END_TEST

START_TEST(a_ring_holds_the_last_events)
{
    size_t len;
    uint8_t *p = make_file(&len, 1000);
    struct trace_header h;
    ck_assert_int_eq(trace_get_header(p, &h), TRACE_HEADER_OK);
    ck_assert(h.ring);
    struct seen s = read_all(p, len, 4096);
    ck_assert_uint_eq(s.events, 1000);
    ck_assert_uint_eq(s.wrong + s.skips, 0);
    free(p);
}
END_TEST

START_TEST(a_header_that_is_not_ours_is_refused)
{
    size_t len;
    uint8_t *p = make_file(&len, 0), bad[TRACE_HEADER_BYTES];
    struct trace_header h;
    for (unsigned i = 0; i < TRACE_HEADER_BYTES; i++) {
        memcpy(bad, p, sizeof(bad));
        bad[i] ^= 0x10;
        enum trace_header_result want = i < 8    ? TRACE_HEADER_FOREIGN
                                        : i < 12 ? TRACE_HEADER_VERSION
                                                 : TRACE_HEADER_DAMAGED;
        ck_assert_int_eq(trace_get_header(bad, &h), want);
    }
    free(p);
}
END_TEST

START_TEST(a_damaged_byte_costs_one_block)
{
    size_t len;
    uint8_t *p = make_file(&len, 0);
    struct seen whole = read_all(p, len, len);
    for (size_t at = TRACE_HEADER_BYTES; at < len; at += 1 + random_64() % 200) {
        uint8_t was = p[at];
        p[at] ^= (uint8_t)(1u << (random_64() & 7));
        struct seen s = read_all(p, len, 1 + random_64() % 20000);
        ck_assert_uint_eq(s.wrong, 0);
        ck_assert_uint_ge(s.skips, 1);
        ck_assert_uint_ge(s.blocks, whole.blocks - 1);
        p[at] = was;
    }
    free(p);
}
END_TEST

START_TEST(a_file_cut_anywhere_gives_its_whole_blocks)
{
    size_t len;
    uint8_t *p = make_file(&len, 0);
    for (size_t cut = TRACE_HEADER_BYTES; cut < len; cut += 1 + random_64() % 200) {
        uint8_t *copy = malloc(cut); /* so that a sanitizer sees what lies behind */
        memcpy(copy, p, cut);
        struct seen s = read_all(copy, cut, 5000);
        ck_assert_uint_eq(s.wrong, 0);
        ck_assert(!s.ended);
        ck_assert_uint_le(s.skipped, TRACE_BLOCK_HEAD + TRACE_PAYLOAD_MAX);
        free(copy);
    }
    free(p);
}
END_TEST

START_TEST(garbage_is_skipped_and_never_believed)
{
    size_t len = 100000;
    uint8_t *p = malloc(len);
    for (unsigned round = 0; round < 50; round++) {
        for (size_t i = 0; i < len; i++)
            p[i] = (uint8_t)random_64();
        for (size_t i = TRACE_HEADER_BYTES; i + 200 < len; i += 100 + random_64() % 300) {
            memcpy(p + i, "TBLK", 4);
            p[i + 5] &= 63;
            p[i + 6] = p[i + 7] = 0;
        }
        struct seen s = read_all(p, len, 1 + random_64() % 30000);
        ck_assert_uint_eq(s.blocks, 0);
        ck_assert_uint_eq(s.skipped, len - TRACE_HEADER_BYTES);
    }
    free(p);
}
END_TEST

/* A block whose checksum is right and whose records are anything: whoever makes such a file makes the sum, too. */
START_TEST(records_of_random_bytes_do_no_harm)
{
    for (unsigned round = 0; round < 20000; round++) {
        struct trace_block b = {.len = (uint32_t)(random_64() % 300), .records = (uint32_t)(random_64() % 100)};
        for (unsigned i = 0; i < b.len; i++)
            b.bytes[TRACE_BLOCK_HEAD + i] = (uint8_t)(random_64() & (round & 1 ? 0x3F : 0xFF));
        trace_block_finish(&b);
        size_t size = TRACE_BLOCK_HEAD + b.len, used;
        uint8_t *copy = malloc(size);
        memcpy(copy, b.bytes, size);
        struct trace_cursor c;
        ck_assert_int_eq(trace_read_block(copy, size, true, &used, &c), TRACE_READ_BLOCK);
        struct trace_event e;
        bool bad;
        unsigned n = 0;
        char text[TRACE_TEXT_MAX];
        while (trace_read_event(&c, &e, &bad)) {
            ck_assert_uint_lt(trace_text(&e, text), TRACE_TEXT_MAX);
            n++;
        }
        ck_assert_uint_le(n, b.records);
        ck_assert(bad || n == b.records);
        free(copy);
    }
}
END_TEST

START_TEST(text_shows_every_field)
{
    char text[TRACE_TEXT_MAX];
    struct trace_event e = {.field = {0xE, 3, 0x4000}, .eip = 0xC1000000u, .cs = 0x60, .kind = TRACE_EXCEPTION, .context = 12};
    trace_text(&e, text);
    ck_assert_str_eq(text, "exception eip=0060:c1000000 p32/0 vector=e error=2 cr2=4000");
    e = (struct trace_event){.field = {0x1234, 0x23, 15}, .eip = 0xF000, .cs = 0xF000, .kind = TRACE_IRET};
    trace_text(&e, text);
    ck_assert_str_eq(text, "iret eip=f000:0000f000 real/0 to=00001234 cs=23 then=p32/3");
    for (unsigned k = 0; k < TRACE_KIND_COUNT; k++) { /* the longest there are */
        e = (struct trace_event){.field = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}, .kind = (uint8_t)k, .context = 15};
        for (unsigned i = 0; i < TRACE_FIELDS; i++)
            if (!strncmp(trace_kind_name((enum trace_kind)k), "far", 3) || trace_kind_group((enum trace_kind)k) == TRACE_GROUP_FLOW)
                e.field[i] = 15;
        ck_assert_uint_lt(trace_text(&e, text), TRACE_TEXT_MAX);
    }
}
END_TEST

START_TEST(selection_by_name)
{
    uint64_t kinds;
    char bad[32];
    ck_assert(trace_parse_kinds("call,exc", &kinds, bad));
    ck_assert_uint_eq(kinds, 1ull << TRACE_CALL | 1ull << TRACE_EXCEPTION | 1ull << TRACE_SHUTDOWN | 1ull << TRACE_RESET);
    ck_assert(trace_parse_kinds("all,-flow,-page", &kinds, bad));
    ck_assert_uint_eq(kinds & (trace_group_kinds(TRACE_GROUP_FLOW) | trace_group_kinds(TRACE_GROUP_PAGE)), 0);
    ck_assert_uint_ne(kinds & 1ull << TRACE_IN, 0);
    ck_assert(!trace_parse_kinds("call,nonsense,exc", &kinds, bad));
    ck_assert_str_eq(bad, "nonsense");
    ck_assert(!trace_parse_kinds("", &kinds, bad));
    ck_assert(!trace_parse_kinds("exc,-exc", &kinds, bad));
}
END_TEST

START_TEST(selection_by_address_and_level)
{
    struct trace_filter f = {.kinds = ~0ull};
    ck_assert(trace_parse_ranges("c1000000-c1000fff,0x100+10,42", &f));
    struct trace_event e = {.eip = 0xC1000FFF, .kind = TRACE_IN};
    ck_assert(trace_filter_passes(&f, &e));
    e.eip = 0xC1001000;
    ck_assert(!trace_filter_passes(&f, &e));
    e.field[0] = 0x10F;
    ck_assert(!trace_filter_passes(&f, &e)); /* a port is no address */
    e.kind = TRACE_CALL;
    ck_assert(trace_filter_passes(&f, &e));
    e.field[0] = 0x110;
    ck_assert(!trace_filter_passes(&f, &e));
    e.eip = 0x42;
    ck_assert(trace_filter_passes(&f, &e));
    ck_assert(trace_parse_cpls("1,3", &f.cpls));
    ck_assert(!trace_filter_passes(&f, &e));
    e.context = 3;
    ck_assert(trace_filter_passes(&f, &e));
    static const char *const wrong[] = {"", "x", "5-4", "1-", "1+0", "fffffff0+11", "100000000", "1,,2", "1-2-3"};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct trace_filter g = {0};
        ck_assert_msg(!trace_parse_ranges(wrong[i], &g), "\"%s\" was accepted", wrong[i]);
    }
    ck_assert(!trace_parse_ranges("1,2,3,4,5,6,7,8,9", &(struct trace_filter){0}));
    ck_assert(!trace_parse_cpls("4", &f.cpls));
    ck_assert(!trace_parse_cpls("", &f.cpls));
}
END_TEST

START_TEST(limits_begin_and_end_a_trace)
{
    struct trace_config cfg = {.fd = -1, .ring = 100, .filter = {.kinds = 1ull << TRACE_IN, .skip = 3, .count = 4}};
    struct trace *t = trace_open(&cfg);
    for (unsigned i = 0; i < 20; i++) {
        struct trace_event e = {.eip = i, .kind = i & 1 ? TRACE_OUT : TRACE_IN};
        ck_assert_int_eq(trace_note(t, &e), i < 12);
    }
    ck_assert_uint_eq(trace_wanted(t), 0);
    ck_assert_uint_eq(trace_held(t), 4);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_eq(trace_get(t, i)->eip, 6 + 2 * i);
    trace_close(t);
}
END_TEST

START_TEST(an_error_is_kept_and_ends_the_trace)
{
    int fd[2];
    ck_assert_int_eq(pipe(fd), 0);
    struct trace_config cfg = {.fd = fd[0], .filter = {.kinds = ~0ull}}; /* the end that cannot be written */
    struct trace *t = trace_open(&cfg);
    struct trace_event e = {.kind = TRACE_IN};
    unsigned n = 0;
    while (trace_note(t, &e) && n < 1000000)
        n++;
    ck_assert_uint_lt(n, 1000000);
    ck_assert_int_ne(trace_flush(t), 0);
    ck_assert_uint_eq(trace_wanted(t), 0);
    trace_close(t);
    close(fd[0]);
    close(fd[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("trace");
    TCase *file = tcase_create("file"), *select = tcase_create("selection"), *writer = tcase_create("writer");
    tcase_set_timeout(file, 60);
    tcase_add_test(file, compact_form_gives_back_every_event);
    tcase_add_test(file, a_ring_holds_the_last_events);
    tcase_add_test(file, a_header_that_is_not_ours_is_refused);
    tcase_add_test(file, a_damaged_byte_costs_one_block);
    tcase_add_test(file, a_file_cut_anywhere_gives_its_whole_blocks);
    tcase_add_test(file, garbage_is_skipped_and_never_believed);
    tcase_add_test(file, records_of_random_bytes_do_no_harm);
    tcase_add_test(file, text_shows_every_field);
    tcase_add_test(select, selection_by_name);
    tcase_add_test(select, selection_by_address_and_level);
    tcase_add_test(writer, limits_begin_and_end_a_trace);
    tcase_add_test(writer, an_error_is_kept_and_ends_the_trace);
    suite_add_tcase(s, file);
    suite_add_tcase(s, select);
    suite_add_tcase(s, writer);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
