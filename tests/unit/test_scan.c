/* tests/unit/test_scan.c: pages and units: what descent and sweep find, what they must not invent, and the
 * invariants between attr, index and insn[] on pages of every kind. */
#include "scanner/scan.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t recto[SCAN_PAGE_SIZE];
static struct scan_page page, other;

/* A page in which nothing decodes at any alignment (FF /7 is undefined). */
static void blank(void)
{
    memset(recto, 0xff, sizeof recto);
}

static void put(unsigned off, const char *bytes, unsigned len)
{
    memcpy(recto + off, bytes, len);
}
#define PUT(off, bytes) put(off, bytes, sizeof(bytes) - 1)

static void scan_from(unsigned entry)
{
    uint16_t e = (uint16_t)entry;
    scan_page(recto, 32, &e, 1, &page);
}

static const struct scan_insn *at(unsigned off)
{
    ck_assert_msg(page.index[off] >= 0, "no instruction at %u", off);
    return &page.insn[page.index[off]];
}

static void expect_none(unsigned off)
{
    ck_assert_msg(page.index[off] < 0 && !(page.attr[off] & SCAN_ATTR_START), "an instruction at %u", off);
}

/* -- Invariants
 * ------------------------------------------------------------------------------------------------------- */

/* ck_assert() notes each success in a pipe, which takes longer than the scan. */
#define EXPECT(condition, ...)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg(__VA_ARGS__);                                                                       \
    } while (0)

static void check_attr(const struct scan_page *p, unsigned off)
{
    unsigned attr = p->attr[off];
    bool start = attr & SCAN_ATTR_START, straddle = attr & SCAN_ATTR_STRADDLE;

    EXPECT((p->index[off] >= 0) == (start && !straddle), "index and attr at %u", off);
    EXPECT(start || !(attr & (SCAN_ATTR_SENSITIVE | SCAN_ATTR_STRADDLE | SCAN_ATTR_SWEPT)), "attr %02x at %u",
           attr, off);
    EXPECT(!(attr & SCAN_ATTR_ENTRY) || start, "entry %u is no start", off);
}

static void check_insn(const struct scan_page *p, unsigned n, uint8_t *inside)
{
    const struct scan_insn *i = &p->insn[n];
    struct scan_insn again;

    EXPECT(i->len && i->off + i->len <= SCAN_PAGE_SIZE, "instruction %u at %u, length %u", n, i->off, i->len);
    EXPECT(!n || p->insn[n - 1].off < i->off, "order at %u", n);
    EXPECT(p->index[i->off] == (int)n, "index of %u", n);
    EXPECT(!!(p->attr[i->off] & SCAN_ATTR_SENSITIVE) == scan_class_sensitive(i->cls), "sensitive at %u",
           i->off);
    EXPECT(!(p->attr[i->off] & SCAN_ATTR_SWEPT) || i->cls != SCAN_CLASS_INVALID, "swept invalid at %u",
           i->off);
    scan_decode(p->bytes + i->off, SCAN_PAGE_SIZE - i->off, p->bits, &again);
    EXPECT(again.len == i->len && again.cls == i->cls, "stale instruction at %u", i->off);
    memset(inside + i->off + 1, 1, i->len - 1u);
}

/* Every in-page successor of an instruction found by descent is a start itself. */
static void check_successors(const struct scan_page *p, const struct scan_insn *i)
{
    bool next = i->flow <= SCAN_FLOW_JCC || i->flow == SCAN_FLOW_CALL || i->flow == SCAN_FLOW_ICALL;
    bool direct = i->flow == SCAN_FLOW_JCC || i->flow == SCAN_FLOW_JMP || i->flow == SCAN_FLOW_CALL;
    unsigned end = i->off + i->len;

    if (p->attr[i->off] & SCAN_ATTR_SWEPT)
        return;
    if (next && end < SCAN_PAGE_SIZE)
        EXPECT(p->attr[end] & SCAN_ATTR_START, "fall-through %u of %u", end, i->off);
    if (direct && i->opsize * 8u == p->bits && i->target >= 0 && i->target < (int)SCAN_PAGE_SIZE)
        EXPECT((p->attr[i->target] & (SCAN_ATTR_START | SCAN_ATTR_TARGET)) ==
                   (SCAN_ATTR_START | SCAN_ATTR_TARGET),
               "target %d of %u", i->target, i->off);
}

static void check_invariants(const struct scan_page *p)
{
    static uint8_t inside[SCAN_PAGE_SIZE + SCAN_INSN_MAX_LEN];
    uint32_t classes[SCAN_CLASS_COUNT] = {0};
    unsigned straddle = SCAN_PAGE_SIZE;

    memset(inside, 0, sizeof inside);
    EXPECT(p->count <= SCAN_PAGE_SIZE, "count %u", p->count);
    for (unsigned n = 0; n < p->count; n++) {
        check_insn(p, n, inside);
        check_successors(p, &p->insn[n]);
        classes[p->insn[n].cls]++;
    }
    ck_assert_mem_eq(classes, p->class_count, sizeof classes);
    for (unsigned off = 0; off < SCAN_PAGE_SIZE; off++) {
        check_attr(p, off);
        if (off > straddle)
            inside[off] = 1;
        if (p->attr[off] & SCAN_ATTR_STRADDLE && straddle == SCAN_PAGE_SIZE)
            straddle = off;
        EXPECT(!!(p->attr[off] & SCAN_ATTR_INSIDE) == inside[off], "inside at %u", off);
    }
}

static void check_equal(const struct scan_page *a, const struct scan_page *b)
{
    ck_assert_uint_eq(a->count, b->count);
    ck_assert_mem_eq(a->attr, b->attr, sizeof a->attr);
    ck_assert_mem_eq(a->index, b->index, sizeof a->index);
    ck_assert_mem_eq(a->insn, b->insn, a->count * sizeof *a->insn);
    ck_assert_mem_eq(a->class_count, b->class_count, sizeof a->class_count);
    ck_assert_mem_eq(a->bytes, b->bytes, sizeof a->bytes);
}

/* -- Descent
 * -----------------------------------------------------------------------------------------------------------
 */

START_TEST(scan_straight_line_lists_each_instruction)
{
    blank();
    PUT(100, "\x89\xd8\x83\xc0\x05\x9c\xc3");
    scan_from(100);
    ck_assert_uint_eq(page.count, 4);
    ck_assert_uint_eq(at(100)->len, 2);
    ck_assert_uint_eq(at(102)->imm, 5);
    ck_assert_uint_eq(at(105)->cls, SCAN_CLASS_PUSHF);
    ck_assert_uint_eq(page.attr[100], SCAN_ATTR_START | SCAN_ATTR_ENTRY);
    ck_assert_uint_eq(page.attr[101], SCAN_ATTR_INSIDE);
    ck_assert_uint_eq(page.attr[105], SCAN_ATTR_START | SCAN_ATTR_SENSITIVE);
    ck_assert_uint_eq(page.attr[107], SCAN_ATTR_DATA);
    ck_assert_uint_eq(page.class_count[SCAN_CLASS_PUSHF], 1);
    check_invariants(&page);
}
END_TEST

START_TEST(scan_branches_follow_both_ways_with_targets_relative_to_the_page)
{
    blank();
    PUT(0x200, "\x74\x10\xe8\x79\x00\x00\x00\xeb\xf7"); /* jz 212; call 280; jmp 200 */
    PUT(0x212, "\xe2\xfe\xc3");
    PUT(0x280, "\x90\xc3");
    scan_from(0x200);
    ck_assert_int_eq(at(0x200)->target, 0x212);
    ck_assert_int_eq(at(0x202)->target, 0x280);
    ck_assert_int_eq(at(0x207)->target, 0x200);
    ck_assert_uint_eq(page.attr[0x280], SCAN_ATTR_START | SCAN_ATTR_TARGET);
    ck_assert(page.attr[0x212] & SCAN_ATTR_TARGET);
    ck_assert_uint_eq(at(0x281)->flow, SCAN_FLOW_RET);
    check_invariants(&page);
}
END_TEST

START_TEST(scan_targets_outside_the_page_are_kept_but_not_followed)
{
    blank();
    PUT(0, "\x74\x80\xe9\x00\x20\x00\x00"); /* jz -7E; jmp 2007 */
    scan_from(0);
    ck_assert_int_eq(at(0)->target, -0x7e);
    ck_assert_int_eq(at(2)->target, 0x2007);
    ck_assert_uint_eq(page.count, 2);
    check_invariants(&page);
}
END_TEST

START_TEST(scan_16_bit_branch_in_32_bit_code_is_not_followed)
{
    blank();
    PUT(0, "\x66\xe9\x10\x00");
    PUT(0x14, "\x90\xc3");
    scan_from(0);
    expect_none(0x14);
    ck_assert(!(page.attr[0x14] & SCAN_ATTR_TARGET));
    uint16_t entry = 0;
    scan_page(recto, 16, &entry, 1, &page); /* there 66h makes it 32 bits wide */
    ck_assert_uint_eq(at(0)->len, 6);
    PUT(0, "\xe9\x11\x00");
    scan_page(recto, 16, &entry, 1, &page);
    ck_assert_uint_eq(at(0x14)->len, 1);
    check_invariants(&page);
}
END_TEST

START_TEST(scan_overlapping_instructions_are_both_listed)
{
    blank();
    PUT(0x40, "\xb8\x90\x90\x90\xc3\xeb\xfa"); /* mov eax, c3909090; jmp 41 */
    scan_from(0x40);
    ck_assert_uint_eq(at(0x40)->len, 5);
    ck_assert_uint_eq(at(0x41)->len, 1);
    ck_assert_uint_eq(page.attr[0x41], SCAN_ATTR_START | SCAN_ATTR_INSIDE | SCAN_ATTR_TARGET);
    ck_assert_uint_eq(at(0x44)->flow, SCAN_FLOW_RET);
    ck_assert_uint_eq(page.count, 6);
    check_invariants(&page);
}
END_TEST

START_TEST(scan_instruction_over_the_page_end_is_marked_not_listed)
{
    blank();
    PUT(0xffd, "\x90\xb8\x01");
    scan_from(0xffd);
    ck_assert_uint_eq(page.count, 1);
    ck_assert_uint_eq(page.attr[0xffe], SCAN_ATTR_START | SCAN_ATTR_STRADDLE);
    ck_assert_uint_eq(page.attr[0xfff], SCAN_ATTR_INSIDE);
    ck_assert_int_eq(page.index[0xffe], -1);
    PUT(0xffd, "\xb8\x01\x02"); /* the last byte: a prefix alone */
    PUT(0xfff, "\x66");
    scan_from(0xfff);
    ck_assert_uint_eq(page.count, 0);
    ck_assert_uint_eq(page.attr[0xfff], SCAN_ATTR_START | SCAN_ATTR_STRADDLE | SCAN_ATTR_ENTRY);
    check_invariants(&page);
}
END_TEST

START_TEST(scan_undefined_opcode_by_descent_is_listed_and_ends_the_walk)
{
    blank();
    PUT(0, "\x90\x0f\x04\x90\xc3");
    scan_from(0);
    ck_assert_uint_eq(at(1)->cls, SCAN_CLASS_INVALID);
    ck_assert_uint_eq(at(1)->flow, SCAN_FLOW_STOP);
    expect_none(3);
    check_invariants(&page);
}
END_TEST

START_TEST(scan_entries_out_of_range_and_duplicates_are_harmless)
{
    static const uint16_t entries[] = {4096, 65535, 7, 7, 0, 7};

    blank();
    PUT(0, "\xc3");
    PUT(7, "\xc3");
    scan_page(recto, 32, entries, 6, &page);
    ck_assert_uint_eq(page.count, 2);
    scan_page(recto, 32, NULL, 0, &page);
    ck_assert_uint_eq(page.count, 0);
    check_invariants(&page);
}
END_TEST

/* -- Sweep
 * -------------------------------------------------------------------------------------------------------------
 */

START_TEST(sweep_behind_return_finds_next_function_and_its_targets)
{
    blank();
    PUT(0, "\xc3\x90\x74\x20\xc3"); /* ret; nop; jz 24; ret */
    PUT(0x24, "\x40\xc3");
    scan_from(0);
    ck_assert_uint_eq(page.attr[1], SCAN_ATTR_START | SCAN_ATTR_SWEPT);
    ck_assert_uint_eq(page.attr[0x24], SCAN_ATTR_START | SCAN_ATTR_TARGET | SCAN_ATTR_SWEPT);
    ck_assert_uint_eq(at(0x25)->flow, SCAN_FLOW_RET);
    expect_none(5);
    check_invariants(&page);
}
END_TEST

START_TEST(sweep_after_int_n_continues_where_the_handler_returns)
{
    blank();
    PUT(0, "\xcd\x80\x9c\xc3");
    scan_from(0);
    ck_assert_uint_eq(page.attr[2], SCAN_ATTR_START | SCAN_ATTR_SWEPT | SCAN_ATTR_SENSITIVE);
    check_invariants(&page);
}
END_TEST

START_TEST(sweep_stops_at_zero_run_and_takes_short_zeros)
{
    memset(recto, 0, sizeof recto);
    PUT(0, "\xc3");
    PUT(17, "\xc3");
    scan_from(0);
    ck_assert_uint_eq(page.count, 1);
    PUT(16, "\xc3"); /* 15 zeros: seven pairs and one that swallows the C3 */
    scan_from(0);
    ck_assert_uint_gt(page.count, 1);
    check_invariants(&page);
}
END_TEST

START_TEST(sweep_never_runs_over_known_code)
{
    static const uint16_t entries[] = {0, 3};

    blank();
    PUT(0, "\xc3\x90\xb8\x90\x90\xc3"); /* ret; nop; mov eax, ... whose second byte is an entry */
    scan_page(recto, 32, entries, 2, &page);
    ck_assert(page.attr[1] & SCAN_ATTR_SWEPT);
    expect_none(2);
    ck_assert_uint_eq(page.attr[3], SCAN_ATTR_START | SCAN_ATTR_ENTRY);
    check_invariants(&page);
}
END_TEST

START_TEST(sweep_does_not_start_without_a_boundary)
{
    memset(recto, 0x90, sizeof recto);
    scan_from(4000);
    expect_none(3999);
    ck_assert_uint_eq(page.count, 96);
    scan_page(recto, 32, NULL, 0, &page);
    ck_assert_uint_eq(page.count, 0);
}
END_TEST

/* -- Pages of every kind
 * ------------------------------------------------------------------------------------------------ */

static void check_planes(const struct scan_page *p)
{
    uint8_t planes[SCAN_PAGE_SIZE], back[SCAN_PAGE_SIZE];

    scan_attr_split(p->attr, planes);
    for (unsigned attr = SCAN_ATTR_INSIDE; attr <= SCAN_ATTR_SWEPT; attr <<= 1)
        for (unsigned off = 0; off < SCAN_PAGE_SIZE; off++)
            EXPECT((scan_attr_plane(planes, attr)[off / 8] >> off % 8 & 1) ==
                       (attr == SCAN_ATTR_INSIDE ? !!(p->attr[off] & SCAN_ATTR_INSIDE) ^ !!(p->attr[off] & SCAN_ATTR_START) : !!(p->attr[off] & attr)),
                   "attribute %02x of %u", attr, off);
    scan_attr_join(planes, back);
    ck_assert_mem_eq(back, p->attr, sizeof back);
}

static uint64_t next_random(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

START_TEST(scan_uniform_pages_keep_invariants)
{
    static const uint16_t entries[] = {0, 1, 2048, 4081, 4095};

    for (unsigned byte = 0; byte < 256; byte++) {
        memset(recto, (int)byte, sizeof recto);
        for (unsigned bits = 16; bits <= 32; bits += 16) {
            scan_page(recto, bits, entries, 5, &page);
            check_invariants(&page);
        }
    }
}
END_TEST

static size_t random_page(uint64_t *state, uint16_t *entries)
{
    size_t n = next_random(state) % 12;

    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        recto[i] = (uint8_t)(next_random(state) >> 32);
    for (size_t i = 0; i < n; i++)
        entries[i] = (uint16_t)(next_random(state) >> 32) % 4200;
    return n;
}

START_TEST(scan_random_pages_keep_invariants_and_repeat)
{
    uint64_t state = 0x5eed0003;
    uint16_t entries[12];

    for (unsigned i = 0; i < 60; i++) {
        unsigned bits = i & 1 ? 32 : 16;
        size_t n = random_page(&state, entries);
        scan_page(recto, bits, entries, n, &page);
        check_invariants(&page);
        memset(&other, (int)i, sizeof other); /* a used arena must not show through */
        scan_page(recto, bits, entries, n, &other);
        check_equal(&page, &other);
        check_planes(&page);
    }
}
END_TEST

START_TEST(scan_result_does_not_depend_on_entry_order)
{
    uint64_t state = 0x5eed0004;
    uint16_t entries[12], reversed[12];

    for (unsigned i = 0; i < 60; i++) {
        size_t n = random_page(&state, entries);
        for (size_t k = 0; k < n; k++)
            reversed[k] = entries[n - 1 - k];
        scan_page(recto, 32, entries, n, &page);
        scan_page(recto, 32, reversed, n, &other);
        check_equal(&page, &other);
    }
}
END_TEST

/* -- Units
 * --------------------------------------------------------------------------------------------------------------
 */

START_TEST(unit_straddling_instruction_is_decoded_whole)
{
    static const uint8_t bytes[15] = {0xe8, 0x01, 0x10, 0x00, 0x00, 0x90};

    ck_assert_int_eq(scan_unit(bytes, sizeof bytes, 0xffe, 32, &page), SCAN_OK);
    ck_assert(page.unit);
    ck_assert_uint_eq(page.count, 1);
    ck_assert_uint_eq(page.insn[0].len, 5);
    ck_assert_uint_eq(page.insn[0].off, 0xffe);
    ck_assert_int_eq(page.insn[0].target, 0xffe + 5 + 0x1001);
    ck_assert_int_eq(page.index[0xffe], 0);
    ck_assert_int_eq(page.index[0], -1);
    ck_assert_mem_eq(page.bytes + 0xffe, bytes, 5);
    ck_assert_uint_eq(page.bytes[0xffe + 5], 0);
}
END_TEST

START_TEST(unit_longest_at_last_byte_fits)
{
    uint8_t bytes[15];

    memset(bytes, 0x2e, sizeof bytes);
    bytes[14] = 0x90;
    ck_assert_int_eq(scan_unit(bytes, sizeof bytes, 4095, 32, &page), SCAN_OK);
    ck_assert_uint_eq(page.insn[0].len, 15);
    ck_assert_mem_eq(page.bytes + 4095, bytes, 15);
}
END_TEST

START_TEST(unit_bad_input_is_refused)
{
    static const uint8_t cut[] = {0xb8, 1, 2}, undefined[15] = {0x0f, 0x04};
    uint8_t prefixes[15];

    memset(prefixes, 0x66, sizeof prefixes);
    ck_assert_int_eq(scan_unit(cut, sizeof cut, 0xffe, 32, &page), SCAN_TRUNCATED);
    ck_assert(!page.unit);
    ck_assert_uint_eq(page.count, 0);
    ck_assert_int_eq(scan_unit(undefined, sizeof undefined, 0xfff, 32, &page), SCAN_INVALID);
    ck_assert(!page.unit);
    ck_assert_int_eq(scan_unit(prefixes, sizeof prefixes, 0xfff, 32, &page), SCAN_TOO_LONG);
    ck_assert_int_eq(scan_unit((const uint8_t *)"\x90", 1, 4096, 32, &page), SCAN_INVALID);
    ck_assert_int_eq(scan_unit(cut, 0, 0xfff, 32, &page), SCAN_TRUNCATED);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("scan");
    TCase *descent = tcase_create("descent"), *sweep = tcase_create("sweep"), *any = tcase_create("any page"),
          *unit = tcase_create("unit");

    tcase_add_test(descent, scan_straight_line_lists_each_instruction);
    tcase_add_test(descent, scan_branches_follow_both_ways_with_targets_relative_to_the_page);
    tcase_add_test(descent, scan_targets_outside_the_page_are_kept_but_not_followed);
    tcase_add_test(descent, scan_16_bit_branch_in_32_bit_code_is_not_followed);
    tcase_add_test(descent, scan_overlapping_instructions_are_both_listed);
    tcase_add_test(descent, scan_instruction_over_the_page_end_is_marked_not_listed);
    tcase_add_test(descent, scan_undefined_opcode_by_descent_is_listed_and_ends_the_walk);
    tcase_add_test(descent, scan_entries_out_of_range_and_duplicates_are_harmless);
    tcase_add_test(sweep, sweep_behind_return_finds_next_function_and_its_targets);
    tcase_add_test(sweep, sweep_after_int_n_continues_where_the_handler_returns);
    tcase_add_test(sweep, sweep_stops_at_zero_run_and_takes_short_zeros);
    tcase_add_test(sweep, sweep_never_runs_over_known_code);
    tcase_add_test(sweep, sweep_does_not_start_without_a_boundary);
    tcase_add_test(any, scan_uniform_pages_keep_invariants);
    tcase_add_test(any, scan_random_pages_keep_invariants_and_repeat);
    tcase_add_test(any, scan_result_does_not_depend_on_entry_order);
    tcase_set_timeout(any, 60);
    tcase_add_test(unit, unit_straddling_instruction_is_decoded_whole);
    tcase_add_test(unit, unit_longest_at_last_byte_fits);
    tcase_add_test(unit, unit_bad_input_is_refused);
    suite_add_tcase(suite, descent);
    suite_add_tcase(suite, sweep);
    suite_add_tcase(suite, any);
    suite_add_tcase(suite, unit);

    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
