/* Tests of cache/: what is stored, byte by byte, and what comes out again (FORMAT.md sections 1 to 3, I3,
 * I4). */
#include "tests/unit/cache_support.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

START_TEST(get_after_put_gives_equal_record)
{
    struct cache *c = cs_open(CACHE_CREATE);
    for (uint32_t n = 0; n < 40; n++)
        cs_put(c, n, 0);
    for (uint32_t n = 0; n < 40; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cs_close(c);
    c = cs_open(0);
    for (uint32_t n = 0; n < 40; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

START_TEST(get_of_other_key_field_misses)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_buf buf = {0};
    struct cache_record out;
    enum cache_refusal why;
    cs_put(c, 1, 0);
    cs_make(&s, 1, 0);
    struct cache_key keys[4] = {s.key, s.key, s.key, s.key};
    keys[0].hash_lo ^= 1;
    keys[1].hash_hi ^= 1ull << 63;
    keys[2].mode ^= 1;
    keys[3].fingerprint ^= 1;
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(!cache_has(c, &keys[i]));
        ck_assert_int_eq(cache_get(c, &keys[i], s.recto, &buf, &out, &why), CACHE_MISS);
    }
    ck_assert(cache_has(c, &s.key));
    cache_buf_free(&buf);
    cs_close(c);
}
END_TEST

START_TEST(get_with_other_recto_refused_as_recto)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_buf buf = {0};
    struct cache_record out;
    enum cache_refusal why;
    struct cache_stats st;
    cs_put(c, 1, 0);
    cs_make(&s, 1, 0);
    s.recto[4095] ^= 1;
    ck_assert_int_eq(cache_get(c, &s.key, s.recto, &buf, &out, &why), CACHE_REFUSED);
    ck_assert_int_eq(why, CACHE_REFUSAL_RECTO);
    ck_assert_ptr_null(out.verso); /* I4: nothing in part */
    ck_assert_int_eq(cache_get_any(c, &s.key, &buf, &out, &why), CACHE_OK);
    ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    ck_assert_uint_eq(st.refused[CACHE_REFUSAL_RECTO], 1);
    ck_assert_uint_eq(st.gets, 2);
    ck_assert_uint_eq(st.get_hits, 1);
    cache_buf_free(&buf);
    cs_close(c);
}
END_TEST

START_TEST(put_of_same_bytes_adds_nothing)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    bool added;
    cs_make(&s, 3, 0);
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, NULL), CACHE_OK);
    ck_assert(added);
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, NULL), CACHE_OK);
    ck_assert(!added);
    cs_close(c);
}
END_TEST

START_TEST(put_of_other_bytes_replaces)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    bool added;
    cs_put(c, 3, 0);
    ck_assert_int_eq(cs_get(c, 3, 0, NULL), CACHE_OK);
    cs_make(&s, 3, 1);
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, NULL), CACHE_OK);
    ck_assert(added);
    ck_assert_int_eq(cs_get(c, 3, 1, NULL), CACHE_OK); /* at once, by the same handle */
    cs_close(c);
    ck_assert_int_eq(cs_sql_int("SELECT count(*) FROM record"), 1); /* I3 */
}
END_TEST

START_TEST(put_of_shortest_and_longest_verso_works)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_buf buf = {0};
    struct cache_record out;
    struct cache_error err = {0};
    enum cache_refusal why;
    bool added;
    uint8_t *big = calloc(1, (4 << 20) + 1);
    big[(4 << 20) - 1] = 77;
    cs_make(&s, 1, 0);
    s.r.verso_len = 0;
    s.r.verso = NULL;
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_OK);
    ck_assert_int_eq(cache_get(c, &s.key, s.recto, &buf, &out, &why), CACHE_OK);
    ck_assert_uint_eq(out.verso_len, 0);
    s.r.verso = big;
    s.r.verso_len = 4 << 20;
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_OK);
    ck_assert_int_eq(cache_get(c, &s.key, s.recto, &buf, &out, &why), CACHE_OK);
    ck_assert_uint_eq(out.verso_len, 4 << 20);
    ck_assert_uint_eq(out.verso[(4 << 20) - 1], 77);
    s.r.verso_len++;
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.text, "too long"));
    cache_put_later(c, &s.key, &s.r); /* dropped */
    struct cache_stats st;
    ck_assert_int_eq(cache_stats(c, &st, &err), CACHE_OK);
    ck_assert_uint_eq(st.dropped, 1);
    cache_buf_free(&buf);
    free(big);
    cs_close(c);
}
END_TEST

static uint64_t le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | p[n];
    return v;
}

/* Pins the format: what FORMAT.md says, read without the library. */
START_TEST(record_bytes_are_as_documented)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    cs_put(c, 9, 0);
    cs_close(c);
    cs_make(&s, 9, 0);
    sqlite3 *db;
    sqlite3_stmt *q;
    ck_assert_int_eq(sqlite3_open(cs_path(), &db), SQLITE_OK);
    ck_assert_int_eq(
        sqlite3_prepare_v2(db, "SELECT key, raw_size, blob, insns, sensitive FROM record", -1, &q, NULL), 0);
    ck_assert_int_eq(sqlite3_step(q), SQLITE_ROW);
    const uint8_t *key = sqlite3_column_blob(q, 0);
    ck_assert_int_eq(sqlite3_column_bytes(q, 0), 32);
    ck_assert_uint_eq(le(key, 8), s.key.hash_lo);
    ck_assert_uint_eq(le(key + 8, 8), s.key.hash_hi);
    ck_assert_uint_eq(le(key + 16, 4), s.key.mode);
    ck_assert_uint_eq(le(key + 20, 4), 0);
    ck_assert_uint_eq(le(key + 24, 8), s.key.fingerprint);
    uint32_t size = (uint32_t)sqlite3_column_int(q, 1);
    ck_assert_uint_eq(size, 8272 + s.r.verso_len);
    uint8_t *raw = malloc(size);
    ck_assert_int_eq(
        LZ4_decompress_safe(sqlite3_column_blob(q, 2), (char *)raw, sqlite3_column_bytes(q, 2), (int)size),
        (int)size);
    const uint8_t *blob = sqlite3_column_blob(q, 2);
    size_t blob_len = (size_t)sqlite3_column_bytes(q, 2);
    const uint8_t *plain = memmem(blob, blob_len, raw, 64 + 4096);
    ck_assert_ptr_nonnull(plain); /* as literals of the first sequence: it is what unpacking is quick by */
    ck_assert_uint_lt((size_t)(plain - blob), 64);
    ck_assert_uint_gt(s.r.plain, 0);
    ck_assert_int_eq(memcmp(blob + blob_len - s.r.plain - 16, raw + size - s.r.plain - 16, s.r.plain + 16), 0); /* and of the last */
    ck_assert_int_eq(memcmp(raw, "VRSR", 4), 0);
    ck_assert_uint_eq(le(raw + 4, 4), 1);
    ck_assert_int_eq(memcmp(raw + 8, key, 32), 0);
    ck_assert_uint_eq(le(raw + 40, 4), 4096);
    ck_assert_uint_eq(le(raw + 44, 4), 4096);
    ck_assert_uint_eq(le(raw + 48, 4), s.r.verso_len);
    ck_assert_uint_eq(le(raw + 52, 4), s.r.insn_count);
    ck_assert_uint_eq(le(raw + 56, 4), s.r.sensitive_count);
    ck_assert_uint_eq(le(raw + 60, 4), 0);
    ck_assert_int_eq(memcmp(raw + 64, s.recto, 4096), 0);
    ck_assert_int_eq(memcmp(raw + 4160, s.attr, 4096), 0);
    ck_assert_int_eq(memcmp(raw + 8256, s.verso, s.r.verso_len), 0);
    ck_assert_int_eq(sqlite3_column_int(q, 3), (int)s.r.insn_count);
    ck_assert_int_eq(sqlite3_column_int(q, 4), (int)s.r.sensitive_count);
    sqlite3_finalize(q);
    sqlite3_close(db);
    free(raw);
    ck_assert_int_eq(cs_sql_int("PRAGMA application_id"), 0x56525343);
    ck_assert_int_eq(cs_sql_int("PRAGMA user_version"), 1);
    ck_assert_int_eq(cs_sql_int("SELECT value FROM meta WHERE name = 'format'"), 1);
}
END_TEST

START_TEST(record_with_any_part_left_plain_is_read_back)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_error err;
    bool added;
    cs_make(&s, 5, 0);
    uint32_t sizes[] = {0, 1, 14, 15, 254, 255, 256, 270, 271, 1000, s.r.verso_len - 1, s.r.verso_len, s.r.verso_len + 9000, UINT32_MAX};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cs_make(&s, 5 + i, i % 4);
        s.r.plain = sizes[i];
        ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_OK);
        ck_assert(added);
        ck_assert_int_eq(cs_get(c, 5 + i, (int)i % 4, NULL), CACHE_OK);
    }
    cs_close(c);
}
END_TEST

START_TEST(hash_of_page_is_stable)
{
    uint8_t page[4096] = {0};
    uint64_t lo, hi;
    cache_hash_page(page, &lo, &hi);
    uint64_t lo0 = lo, hi0 = hi;
    /* XXH3-128 of 4,096 zero bytes, by Debian 12's libxxhash called from another language. */
    ck_assert_uint_eq(hi, 0x3EE8DC4F9E7EE495u);
    ck_assert_uint_eq(lo, 0x93D76FE148C689BAu);
    page[4095] = 1;
    cache_hash_page(page, &lo, &hi);
    ck_assert(lo != lo0 && hi != hi0);
}
END_TEST

START_TEST(refusals_have_names_and_texts)
{
    for (unsigned i = 0; i < CACHE_REFUSAL_COUNT; i++) {
        ck_assert_ptr_nonnull(cache_refusal_name((enum cache_refusal)i));
        ck_assert(strlen(cache_refusal_text((enum cache_refusal)i)) > 5);
        for (unsigned j = 0; j < i; j++)
            ck_assert_str_ne(cache_refusal_name((enum cache_refusal)i),
                             cache_refusal_name((enum cache_refusal)j));
    }
    ck_assert_str_eq(cache_refusal_name(CACHE_REFUSAL_COUNT), "unknown");
}
END_TEST

START_TEST(transaction_seen_by_own_handle_before_commit_by_others_after)
{
    struct cache *a = cs_open(CACHE_CREATE), *b = cs_open(0);
    struct cache_error err = {0};
    ck_assert_int_eq(cache_begin(a, &err), CACHE_OK);
    ck_assert_int_eq(cache_begin(a, &err), CACHE_ERR_BUSY); /* not nested */
    cs_put(a, 1, 0);
    ck_assert_int_eq(cs_get(a, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(b, 1, 0, NULL), CACHE_MISS);
    ck_assert_int_eq(cache_commit(a, &err), CACHE_OK);
    ck_assert_int_eq(cs_get(b, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cache_commit(a, &err), CACHE_ERR_IO); /* none open */
    ck_assert_int_eq(cache_begin(a, &err), CACHE_OK);
    cs_put(a, 2, 0);
    cs_close(a); /* without commit: not promised, not stored */
    ck_assert_int_eq(cs_get(b, 2, 0, NULL), CACHE_MISS);
    cs_close(b);
}
END_TEST

START_TEST(failed_step_fails_whole_transaction_next_begin_starts_anew)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_error err = {0};
    bool added;
    ck_assert_int_eq(cache_begin(c, &err), CACHE_OK);
    cs_put(c, 1, 0);
    cs_make(&s, 2, 0);
    s.r.verso_len = (4 << 20) + 1;
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_ERR_IO);
    cs_make(&s, 3, 0);
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_ERR_IO);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_MISS);
    ck_assert_int_eq(cache_begin(c, &err), CACHE_OK);
    cs_put(c, 4, 0);
    ck_assert_int_eq(cache_commit(c, &err), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 3, 0, NULL), CACHE_MISS);
    ck_assert_int_eq(cs_get(c, 4, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

START_TEST(put_later_is_stored_by_close)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_stats st;
    for (uint32_t n = 0; n < 600; n++) { /* more than two batches */
        cs_make(&s, n, 0);
        cache_put_later(c, &s.key, &s.r);
    }
    ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    ck_assert_uint_eq(st.queued, 600);
    ck_assert_uint_eq(st.dropped, 0);
    cs_close(c);
    c = cs_open(0);
    for (uint32_t n = 0; n < 600; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

START_TEST(put_later_while_running_is_stored_soon)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_stats st = {0};
    cs_make(&s, 1, 0);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_MISS); /* a read transaction is open now */
    cache_put_later(c, &s.key, &s.r);
    for (unsigned i = 0; i < 300 && !st.stored; i++) {
        usleep(10000);
        ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    }
    ck_assert_uint_eq(st.stored, 1);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

/* Each of 40 keys up to three times, so that what is replaced stands first, last and between. */
START_TEST(put_later_of_what_waits_replaces_it)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_stats st;
    struct cache_error err;
    uint32_t last[40], times = 0;
    ck_assert_int_eq(cache_begin(c, &err), CACHE_OK); /* write-behind waits */
    usleep(100000);
    cs_make(&s, 1000, 0);
    cache_put_later(c, &s.key, &s.r); /* what the thread may have taken already */
    usleep(200000);
    for (uint32_t n = 0; n < 40; n++)
        for (uint32_t i = 0; i <= n % 3; i++, times++) {
            cs_make(&s, n, last[n] = (n + i) % 4);
            cache_put_later(c, &s.key, &s.r);
        }
    for (uint32_t n = 0; n < 40; n += 3, times++) {
        cs_make(&s, n, last[n] = (n + 3) % 4);
        cache_put_later(c, &s.key, &s.r);
    }
    ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    ck_assert_uint_eq(st.queued, times + 1);
    ck_assert_uint_eq(st.replaced, times - 40);
    ck_assert_uint_eq(st.dropped, 0);
    ck_assert_int_eq(cache_commit(c, &err), CACHE_OK);
    cs_close(c);
    c = cs_open(0);
    ck_assert_int_eq(cs_sql_int("SELECT count(*) FROM record"), 41);
    for (uint32_t n = 0; n < 40; n++)
        ck_assert_int_eq(cs_get(c, n, (int)last[n], NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

START_TEST(put_later_into_full_queue_drops_and_counts)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_stats st;
    struct cache_error err;
    cs_make(&s, 0, 0);
    ck_assert_int_eq(cache_begin(c, &err), CACHE_OK); /* write-behind waits */
    for (uint32_t n = 0; n < 5000; n++) {
        s.key.hash_lo = n;
        cache_put_later(c, &s.key, &s.r);
    }
    ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    ck_assert_uint_eq(st.queued, 5000);
    ck_assert_uint_eq(st.dropped, 5000 - 4096); /* I10 */
    ck_assert_int_eq(cache_commit(c, &err), CACHE_OK);
    cs_close(c);
    ck_assert_int_eq(cs_sql_int("SELECT count(*) FROM record"), 4096);
}
END_TEST

/* In the order in which they were stored, with exceptions, jumps, misses and repetitions; while another handle changes what is stored. */
START_TEST(get_in_any_order_finds_what_is_stored)
{
    enum { RECORDS = 60, LOOKS = 3000 };
    struct cache *a = cs_open(CACHE_CREATE), *b = cs_open(0);
    struct cache_stats st;
    struct cs_record s;
    int variant[RECORDS]; /* -1: not stored */
    uint32_t random = 1, at = 0;
    for (uint32_t n = 0; n < RECORDS; n++)
        cs_put(a, n, (uint32_t)(variant[n] = 0));
    for (unsigned i = 0; i < LOOKS; i++) {
        random = random * 1664525 + 1013904223;
        uint32_t n = random >> 28 ? at : random >> 8 & 31;
        at = (random >> 24) % 37 ? (n + 1) % RECORDS : random % RECORDS;
        if (i % 100 == 99) { /* seen at once by the handle that does it */
            variant[n] = variant[n] < 0 ? 1 : i % 200 == 199 ? -1 : variant[n] ^ 1;
            cs_make(&s, n, 0);
            if (variant[n] < 0)
                ck_assert_int_eq(cache_remove(a, &s.key, NULL), CACHE_OK);
            else
                cs_put(a, n, (uint32_t)variant[n]);
        }
        ck_assert_int_eq(cs_get(a, n, variant[n], NULL), variant[n] < 0 ? CACHE_MISS : CACHE_OK);
        enum cache_code other = cs_get(b, n, -1, NULL); /* may not have seen the last change */
        ck_assert(other == CACHE_OK || other == CACHE_MISS);
    }
    ck_assert_int_eq(cache_stats(a, &st, NULL), CACHE_OK);
    ck_assert_uint_gt(st.get_next, LOOKS / 2);
    ck_assert_uint_lt(st.get_next, LOOKS - 200);
    cs_close(b);
    cs_close(a);
}
END_TEST

START_TEST(snapshot_of_idle_handle_lets_log_shrink)
{
    struct cache *a = cs_open(CACHE_CREATE);
    cs_put(a, 1, 0);
    ck_assert_int_eq(cs_get(a, 1, 0, NULL), CACHE_OK); /* opens a shared read transaction */
    usleep(400000);
    /* TRUNCATE needs that nobody reads: the first column is 0 then. */
    ck_assert_int_eq(cs_sql_int("PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    cs_close(a);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache format");
    TCase *t = tcase_create("format");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, get_after_put_gives_equal_record);
    tcase_add_test(t, get_of_other_key_field_misses);
    tcase_add_test(t, get_with_other_recto_refused_as_recto);
    tcase_add_test(t, put_of_same_bytes_adds_nothing);
    tcase_add_test(t, put_of_other_bytes_replaces);
    tcase_add_test(t, put_of_shortest_and_longest_verso_works);
    tcase_add_test(t, record_bytes_are_as_documented);
    tcase_add_test(t, record_with_any_part_left_plain_is_read_back);
    tcase_add_test(t, hash_of_page_is_stable);
    tcase_add_test(t, refusals_have_names_and_texts);
    tcase_add_test(t, transaction_seen_by_own_handle_before_commit_by_others_after);
    tcase_add_test(t, failed_step_fails_whole_transaction_next_begin_starts_anew);
    tcase_add_test(t, put_later_is_stored_by_close);
    tcase_add_test(t, put_later_while_running_is_stored_soon);
    tcase_add_test(t, put_later_of_what_waits_replaces_it);
    tcase_add_test(t, put_later_into_full_queue_drops_and_counts);
    tcase_add_test(t, get_in_any_order_finds_what_is_stored);
    tcase_add_test(t, snapshot_of_idle_handle_lets_log_shrink);
    suite_add_tcase(s, t);
    return cs_main(s);
}
