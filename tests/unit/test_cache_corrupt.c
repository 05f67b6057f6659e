/* Tests of cache/: damaged files. Whatever the bytes are: the right reason, never wrong bytes, never a crash
 * (I4, I5). */
#include "tests/unit/cache_support.h"

#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { RECORDS = 12 };

static void make_cache(void)
{
    struct cache *c = cs_open(CACHE_CREATE);
    for (uint32_t n = 0; n < RECORDS; n++)
        cs_put(c, n, 0);
    cs_close(c);
}

static enum cache_refusal refusal_of(uint32_t n)
{
    struct cache *c = cs_open(0);
    enum cache_refusal why = CACHE_REFUSAL_NONE;
    enum cache_code code = cs_get(c, n, 0, &why);
    ck_assert_int_eq(code, why == CACHE_REFUSAL_NONE ? CACHE_OK : CACHE_REFUSED);
    struct cache_stats st;
    ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    if (why != CACHE_REFUSAL_NONE)
        ck_assert_uint_eq(st.refused[why], 1);
    for (uint32_t m = 0; m < RECORDS; m++) /* I5: the others are as they were */
        if (m != n)
            ck_assert_int_eq(cs_get(c, m, 0, NULL), CACHE_OK);
    cs_close(c);
    return why;
}

/* The blob of record n (rows are in order of putting). */
static uint8_t *read_blob(uint32_t n, int *len, int *raw_size)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    ck_assert_int_eq(sqlite3_open(cs_path(), &db), SQLITE_OK);
    ck_assert_int_eq(sqlite3_prepare_v2(db, "SELECT blob, raw_size FROM record WHERE id = ?1", -1, &s, NULL),
                     0);
    sqlite3_bind_int64(s, 1, n + 1);
    ck_assert_int_eq(sqlite3_step(s), SQLITE_ROW);
    *len = sqlite3_column_bytes(s, 0);
    *raw_size = sqlite3_column_int(s, 1);
    uint8_t *p = malloc((size_t)*len);
    memcpy(p, sqlite3_column_blob(s, 0), (size_t)*len);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return p;
}

START_TEST(blob_byte_flipped_at_every_97th_position_refused)
{
    make_cache();
    int len, raw_size;
    uint8_t *blob = read_blob(5, &len, &raw_size);
    unsigned lz4 = 0, digest = 0, equal = 0;
    for (int at = 0; at < len; at += 97) {
        blob[at] ^= 0x20;
        cs_sql("UPDATE record SET blob = ?1 WHERE id = 6", blob, len);
        blob[at] ^= 0x20;
        enum cache_refusal why = refusal_of(5);
        lz4 += why == CACHE_REFUSAL_LZ4;
        digest += why == CACHE_REFUSAL_DIGEST;
        equal +=
            why == CACHE_REFUSAL_NONE; /* a match found elsewhere: the same bytes, compared by cs_get() */
        ck_assert_msg(why == CACHE_REFUSAL_LZ4 || why == CACHE_REFUSAL_DIGEST || why == CACHE_REFUSAL_NONE,
                      "at %d: %s", at, cache_refusal_name(why));
    }
    ck_assert_msg(digest > 10 && equal <= 2, "lz4 %u digest %u equal %u", lz4, digest, equal);
    cs_sql("UPDATE record SET blob = ?1 WHERE id = 6", blob, len);
    ck_assert_int_eq(refusal_of(5), CACHE_REFUSAL_NONE);
    free(blob);
}
END_TEST

START_TEST(blob_cut_or_extended_refused_as_lz4)
{
    make_cache();
    int len, raw_size;
    uint8_t *blob = read_blob(5, &len, &raw_size);
    blob = realloc(blob, (size_t)len + 1);
    blob[len] = 0;
    const int cuts[] = {1, 2, 10, len / 2, len - 1, len + 1};
    for (unsigned i = 0; i < 6; i++) {
        cs_sql("UPDATE record SET blob = ?1 WHERE id = 6", blob, cuts[i]);
        ck_assert_int_eq(refusal_of(5), CACHE_REFUSAL_LZ4);
    }
    free(blob);
}
END_TEST

/* Column values of the row, each with the reason it must give. */
static const struct {
    const char *sql;
    enum cache_refusal why;
} rows[] = {
    {"UPDATE record SET raw_size = raw_size - 1 WHERE id = 6", CACHE_REFUSAL_LZ4},
    {"UPDATE record SET raw_size = raw_size + 1 WHERE id = 6", CACHE_REFUSAL_LZ4},
    {"UPDATE record SET raw_size = 0 WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET raw_size = -1 WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET raw_size = 8271 WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET raw_size = 8272 + 4194305 WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET raw_size = 9223372036854775807 WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET raw_size = 'x' WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET blob = x'' WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET blob = 'text' WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET blob = 7 WHERE id = 6", CACHE_REFUSAL_SIZE},
    {"UPDATE record SET blob = zeroblob(100000) WHERE id = 6", CACHE_REFUSAL_LZ4},
    /* SQLite's limit for a value is set to 16 MiB. */
    {"UPDATE record SET blob = zeroblob(20000000) WHERE id = 6", CACHE_REFUSAL_IO},
};

START_TEST(row_with_bad_column_refused)
{
    make_cache();
    cs_sql(rows[_i].sql, NULL, 0);
    enum cache_refusal why = refusal_of(5);
    ck_assert_msg(why == rows[_i].why, "%s: %s", rows[_i].sql, cache_refusal_name(why));
}
END_TEST

/* Content errors under a good digest: what a wrong writer would leave. */
static const struct {
    int at;
    uint32_t value;
    enum cache_refusal why;
} fields[] = {
    {0, 0x12345678, CACHE_REFUSAL_HEADER},
    {4, 2, CACHE_REFUSAL_HEADER},
    {60, 1, CACHE_REFUSAL_HEADER},
    {40, 4095, CACHE_REFUSAL_SIZE},
    {44, 4097, CACHE_REFUSAL_SIZE},
    {48, 0, CACHE_REFUSAL_SIZE},
    {48, 0xFFFFFFFF, CACHE_REFUSAL_SIZE},
    {8, 1, CACHE_REFUSAL_KEY},
    {20, 1, CACHE_REFUSAL_KEY},
    {24, 0x77, CACHE_REFUSAL_KEY},
    {28, 1, CACHE_REFUSAL_KEY},
    {36, 9, CACHE_REFUSAL_KEY},
    {64, 0xCCCCCCCC, CACHE_REFUSAL_RECTO},
    {4156, 0xCCCCCCCC, CACHE_REFUSAL_RECTO},
};

START_TEST(field_wrong_under_good_digest_refused)
{
    make_cache();
    int len, raw_size;
    uint8_t *blob = read_blob(5, &len, &raw_size), *raw = malloc((size_t)raw_size);
    ck_assert_int_eq(LZ4_decompress_safe((char *)blob, (char *)raw, len, raw_size), raw_size);
    memcpy(raw + fields[_i].at, &fields[_i].value, 4);
    XXH128_hash_t h = XXH3_128bits(raw, (size_t)raw_size - 16);
    memcpy(raw + raw_size - 16, &h.low64, 8);
    memcpy(raw + raw_size - 8, &h.high64, 8);
    int bound = LZ4_compressBound(raw_size);
    uint8_t *again = malloc((size_t)bound);
    len = LZ4_compress_default((char *)raw, (char *)again, raw_size, bound);
    cs_sql("UPDATE record SET blob = ?1 WHERE id = 6", again, len);
    enum cache_refusal why = refusal_of(5);
    ck_assert_msg(why == fields[_i].why, "field at %d: %s", fields[_i].at, cache_refusal_name(why));
    free(blob);
    free(raw);
    free(again);
}
END_TEST

START_TEST(record_under_other_key_refused_as_key)
{
    make_cache();
    int len, raw_size;
    uint8_t *blob = read_blob(4, &len, &raw_size);
    cs_sql("UPDATE record SET raw_size = (SELECT raw_size FROM record WHERE id = 5), blob = ?1 WHERE id = 6",
           blob, len);
    ck_assert_int_eq(refusal_of(5), CACHE_REFUSAL_KEY);
    free(blob);
}
END_TEST

START_TEST(refused_record_is_healed_by_put)
{
    make_cache();
    cs_sql("UPDATE record SET blob = x'00112233' WHERE id = 6", NULL, 0);
    ck_assert_int_eq(refusal_of(5), CACHE_REFUSAL_LZ4);
    struct cache *c = cs_open(0);
    cs_put(c, 5, 0);
    cs_close(c);
    ck_assert_int_eq(refusal_of(5), CACHE_REFUSAL_NONE);
}
END_TEST

static int count_row(void *arg, const struct cache_row *row)
{
    (void)row;
    return ++*(unsigned *)arg > 1000;
}

static int count_image(void *arg, const struct cache_image *img)
{
    (void)img;
    return ++*(unsigned *)arg > 1000;
}

/* Everything a run and the tools do with a file, whatever is in it. Any error will do, wrong bytes and
 * signals will not. */
static void use_everything(void)
{
    struct cache_error err = {0};
    struct cache *c = cache_open(cs_path(), 0, &err);
    if (!c) {
        ck_assert(err.code != CACHE_OK && strlen(err.text) > 20);
        return;
    }
    unsigned seen = 0;
    struct cache_stats st;
    for (uint32_t n = 0; n < RECORDS; n++)
        cs_get(c, n, -1, NULL);
    cache_each(c, 0, count_row, &seen, &err);
    cache_each(c, 1, count_row, &seen, &err);
    cache_image_each(c, count_image, &seen, &err);
    cache_stats(c, &st, &err);
    struct cs_record s;
    bool added;
    cs_make(&s, 3, 1);
    cache_touch(c, &s.key);
    (void)!cache_put(c, &s.key, &s.r, &added, &err);
    cs_get(c, 3, -1, NULL);
    cache_close(c, &err);
}

START_TEST(file_byte_flipped_anywhere_never_gives_wrong_bytes)
{
    make_cache();
    size_t len;
    uint8_t *file = cs_read_file(cs_path(), &len);
    uint32_t x = 12345;
    /* The first page and the heads of all pages are where SQLite's own structures are: denser there. */
    for (size_t at = 0; at < len; at += at < 4096 ? 23 : at % 4096 < 64 ? 31 : 997) {
        uint8_t old = file[at];
        x = x * 1103515245 + 12345;
        file[at] = (uint8_t)(x >> 16);
        cs_write_file(cs_path(), file, len);
        file[at] = old;
        use_everything();
    }
    free(file);
}
END_TEST

START_TEST(file_cut_anywhere_never_gives_wrong_bytes)
{
    make_cache();
    size_t len;
    uint8_t *file = cs_read_file(cs_path(), &len);
    for (size_t cut = 1; cut < len; cut = cut < 5000 ? cut * 2 + 1 : cut + 4096 + cut % 999) {
        cs_write_file(cs_path(), file, cut);
        use_everything();
    }
    free(file);
}
END_TEST

START_TEST(log_of_garbage_is_ignored)
{
    make_cache();
    char log[4200];
    uint8_t junk[40000];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = (uint8_t)((x = x * 1103515245 + 12345) >> 16);
    snprintf(log, sizeof log, "%s-wal", cs_path());
    cs_write_file(log, junk, sizeof junk);
    struct cache *c = cs_open(0);
    for (uint32_t n = 0; n < RECORDS; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

START_TEST(key_of_wrong_length_is_not_listed)
{
    make_cache();
    cs_sql("UPDATE record SET key = x'0102' WHERE id = 6", NULL, 0);
    struct cache *c = cs_open(0);
    unsigned seen = 0;
    ck_assert_int_eq(cache_each(c, 0, count_row, &seen, NULL), CACHE_OK);
    ck_assert_uint_eq(seen, RECORDS - 1);
    ck_assert_int_eq(cs_get(c, 5, 0, NULL), CACHE_MISS);
    cs_close(c);
}
END_TEST

/* I12. */
START_TEST(trigger_in_schema_does_not_run)
{
    make_cache();
    cs_sql("CREATE TRIGGER evil AFTER INSERT ON record BEGIN DELETE FROM record; END", NULL, 0);
    struct cache *c = cs_open(0);
    cs_put(c, 100, 0);
    for (uint32_t n = 0; n < RECORDS; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

START_TEST(view_in_place_of_table_is_not_a_cache)
{
    make_cache();
    cs_sql("ALTER TABLE record RENAME TO other", NULL, 0);
    cs_sql("CREATE VIEW record AS SELECT * FROM other", NULL, 0);
    struct cache_error err = {0};
    ck_assert_ptr_null(cache_open(cs_path(), 0, &err));
    ck_assert_msg(err.code == CACHE_ERR_NOT_CACHE, "%s", err.text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache corrupt");
    TCase *t = tcase_create("corrupt");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, blob_byte_flipped_at_every_97th_position_refused);
    tcase_add_test(t, blob_cut_or_extended_refused_as_lz4);
    tcase_add_loop_test(t, row_with_bad_column_refused, 0, (int)(sizeof rows / sizeof *rows));
    tcase_add_loop_test(t, field_wrong_under_good_digest_refused, 0, (int)(sizeof fields / sizeof *fields));
    tcase_add_test(t, record_under_other_key_refused_as_key);
    tcase_add_test(t, refused_record_is_healed_by_put);
    tcase_add_test(t, file_byte_flipped_anywhere_never_gives_wrong_bytes);
    tcase_add_test(t, file_cut_anywhere_never_gives_wrong_bytes);
    tcase_add_test(t, log_of_garbage_is_ignored);
    tcase_add_test(t, key_of_wrong_length_is_not_listed);
    tcase_add_test(t, trigger_in_schema_does_not_run);
    tcase_add_test(t, view_in_place_of_table_is_not_a_cache);
    suite_add_tcase(s, t);
    return cs_main(s);
}
