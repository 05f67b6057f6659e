/* Tests of cache/: images, listings, hits, removal, gc (I9). */
#include "tests/unit/cache_support.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct cache_error err;

static int64_t add_image(struct cache *c, const char *name, uint64_t digest)
{
    struct cache_image img = {
        .digest_lo = digest, .digest_hi = ~digest, .exec_bytes = 8192, .pages = 2, .insns = 99};
    snprintf(img.name, sizeof img.name, "%s", name);
    snprintf(img.origin, sizeof img.origin, "guest.iso");
    snprintf(img.kind, sizeof img.kind, "kernel");
    ck_assert_msg(cache_image_add(c, &img, &err) == CACHE_OK, "%s", err.text);
    return img.id;
}

static enum cache_code add_page(struct cache *c, int64_t image, uint64_t vaddr, uint32_t n)
{
    struct cs_record s;
    cs_make(&s, n, 0);
    return cache_image_page(c, image, vaddr, &s.key, &err);
}

struct seen {
    unsigned count;
    struct cache_row row[64];
    struct cache_image img[8];
    unsigned stop_at;
    struct cache *nested;
};

static int see_row(void *arg, const struct cache_row *row)
{
    struct seen *s = arg;
    if (s->count < 64)
        s->row[s->count] = *row;
    s->count++;
    if (s->nested) { /* the callback may use the handle */
        struct cache_buf buf = {0};
        struct cache_record out;
        enum cache_refusal why;
        ck_assert_int_eq(cache_get_any(s->nested, &row->key, &buf, &out, &why), CACHE_OK);
        ck_assert_uint_eq(out.insn_count, row->insn_count);
        cache_buf_free(&buf);
        ck_assert_int_eq(cache_remove(s->nested, &row->key, &err), CACHE_OK);
    }
    return s->count == s->stop_at;
}

static int see_image(void *arg, const struct cache_image *img)
{
    struct seen *s = arg;
    if (s->count < 8)
        s->img[s->count] = *img;
    s->count++;
    return 0;
}

static struct seen rows(struct cache *c, int64_t image)
{
    struct seen s = {0};
    ck_assert_int_eq(cache_each(c, image, see_row, &s, &err), CACHE_OK);
    return s;
}

static struct seen images(struct cache *c)
{
    struct seen s = {0};
    ck_assert_int_eq(cache_image_each(c, see_image, &s, &err), CACHE_OK);
    return s;
}

START_TEST(image_added_twice_is_one_with_newest_numbers)
{
    struct cache *c = cs_open(CACHE_CREATE);
    int64_t a = add_image(c, "/boot/vmlinuz", 1), b = add_image(c, "/boot/vmlinuz", 2);
    ck_assert(a != b && a && b);
    struct cache_image img = images(c).img[0];
    img.id = 0;
    img.pages = 7;
    ck_assert_int_eq(cache_image_add(c, &img, &err), CACHE_OK);
    ck_assert_int_eq(img.id, a);
    struct seen s = images(c);
    ck_assert_uint_eq(s.count, 2);
    ck_assert_str_eq(s.img[0].name, "/boot/vmlinuz");
    ck_assert_str_eq(s.img[0].origin, "guest.iso");
    ck_assert_str_eq(s.img[0].kind, "kernel");
    ck_assert_uint_eq(s.img[0].digest_lo, 1);
    ck_assert_uint_eq(s.img[0].digest_hi, ~1ull);
    ck_assert_uint_eq(s.img[0].exec_bytes, 8192);
    ck_assert_uint_eq(s.img[0].pages, 7);
    ck_assert_uint_eq(s.img[0].insns, 99);
    cs_close(c);
}
END_TEST

START_TEST(image_name_without_terminator_is_bounded)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cache_image img = {.digest_lo = 1};
    memset(img.name, 'n', sizeof img.name);
    memset(img.kind, 'k', sizeof img.kind);
    ck_assert_int_eq(cache_image_add(c, &img, &err), CACHE_OK);
    ck_assert_uint_eq(strlen(images(c).img[0].name), sizeof img.name - 1);
    ck_assert_uint_eq(strlen(images(c).img[0].kind), sizeof img.kind - 1);
    cs_close(c);
}
END_TEST

START_TEST(listing_gives_pages_by_address_and_records_without_image)
{
    struct cache *c = cs_open(CACHE_CREATE);
    for (uint32_t n = 0; n < 4; n++)
        cs_put(c, n, 0);
    int64_t a = add_image(c, "a", 1);
    ck_assert_int_eq(add_page(c, a, 0xFFFFFFFFC1002000, 1), CACHE_OK);
    ck_assert_int_eq(add_page(c, a, 0x1000, 0), CACHE_OK);
    ck_assert_int_eq(add_page(c, a, 0x1000, 0), CACHE_OK); /* again: nothing new */
    ck_assert_int_eq(add_page(c, a, 0x1000, 2), CACHE_OK); /* another version of the page */
    ck_assert_int_eq(add_page(c, a, 0x9000, 77), CACHE_MISS);
    struct seen s = rows(c, a);
    ck_assert_uint_eq(s.count, 3);
    struct cs_record r;
    cs_make(&r, 1, 0);
    ck_assert_uint_eq(s.row[0].vaddr,
                      0xFFFFFFFFC1002000); /* signed order: kernel addresses of 64 bits come first */
    ck_assert_int_eq(memcmp(&s.row[0].key, &r.key, sizeof r.key), 0);
    ck_assert_uint_eq(s.row[0].insn_count, r.r.insn_count);
    ck_assert_uint_eq(s.row[0].sensitive_count, r.r.sensitive_count);
    ck_assert_uint_eq(s.row[0].raw_bytes, 8272 + r.r.verso_len);
    ck_assert(s.row[0].stored_bytes > 100 && s.row[0].stored_bytes < s.row[0].raw_bytes);
    ck_assert(s.row[0].created_s > 1000000000);
    s = rows(c, 0);
    ck_assert_uint_eq(s.count, 4);
    ck_assert_int_eq(s.row[0].image, a);
    ck_assert_uint_eq(s.row[0].vaddr, 0x1000);
    ck_assert_int_eq(s.row[3].image, 0);
    cs_close(c);
}
END_TEST

START_TEST(listing_stops_when_told)
{
    struct cache *c = cs_open(CACHE_CREATE);
    for (uint32_t n = 0; n < 5; n++)
        cs_put(c, n, 0);
    struct seen s = {.stop_at = 2};
    ck_assert_int_eq(cache_each(c, 0, see_row, &s, &err), CACHE_OK);
    ck_assert_uint_eq(s.count, 2);
    cs_close(c);
}
END_TEST

START_TEST(listing_callback_may_look_up_and_remove)
{
    struct cache *c = cs_open(CACHE_CREATE);
    for (uint32_t n = 0; n < 20; n++)
        cs_put(c, n, 0);
    struct seen s = {.nested = c};
    ck_assert_int_eq(cache_each(c, 0, see_row, &s, &err), CACHE_OK);
    ck_assert_uint_eq(s.count, 20);
    ck_assert_uint_eq(rows(c, 0).count, 0);
    cs_close(c);
}
END_TEST

START_TEST(page_of_newer_fingerprint_takes_place_of_older)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    bool added;
    cs_put(c, 1, 0);
    cs_make(&s, 1, 0);
    s.key.fingerprint = 42;
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_OK);
    int64_t a = add_image(c, "a", 1);
    ck_assert_int_eq(add_page(c, a, 0x1000, 1), CACHE_OK);
    ck_assert_int_eq(cache_image_page(c, a, 0x1000, &s.key, &err), CACHE_OK);
    struct seen r = rows(c, a);
    ck_assert_uint_eq(r.count, 1);
    ck_assert_uint_eq(r.row[0].key.fingerprint, 42);
    ck_assert_uint_eq(rows(c, 0).count, 2); /* the record itself stays */
    cs_close(c);
}
END_TEST

START_TEST(hits_are_added_up_over_handles)
{
    struct cs_record s;
    cs_make(&s, 1, 0);
    for (unsigned round = 1; round <= 2; round++) {
        struct cache *c = cs_open(CACHE_CREATE);
        cs_put(c, 0, 0);
        cs_put(c, 1, 0);
        for (unsigned i = 0; i < 5; i++)
            cache_touch(c, &s.key);
        s.key.hash_lo ^= 1;
        cache_touch(c, &s.key); /* not there: nothing happens */
        s.key.hash_lo ^= 1;
        cs_close(c);
    }
    struct cache *c = cs_open(0);
    struct seen r = rows(c, 0);
    struct cache_stats st;
    ck_assert_uint_eq(r.row[0].hits, 0);
    ck_assert_int_eq(r.row[0].used_s, 0);
    ck_assert_uint_eq(r.row[1].hits, 10);
    ck_assert(r.row[1].used_s > 1000000000);
    ck_assert_int_eq(cache_stats(c, &st, &err), CACHE_OK);
    ck_assert_uint_eq(st.hits_total, 10);
    cs_close(c);
}
END_TEST

START_TEST(hits_of_many_keys_all_count)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    ck_assert_int_eq(cache_begin(c, &err), CACHE_OK);
    for (uint32_t n = 0; n < 300; n++)
        cs_put(c, n, 0);
    ck_assert_int_eq(cache_commit(c, &err), CACHE_OK);
    for (unsigned i = 0; i < 3; i++)
        for (uint32_t n = 0; n < 300; n++) {
            cs_make(&s, n, 0);
            cache_touch(c, &s.key);
        }
    cs_close(c);
    ck_assert_int_eq(cs_sql_int("SELECT count(*) FROM record_use WHERE hits = 3"), 300);
}
END_TEST

START_TEST(touch_of_more_keys_than_slots_does_no_harm)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cache_key k = {.mode = 1};
    for (uint32_t n = 0; n < 30000; n++) {
        k.hash_lo = n;
        cache_touch(c, &k);
    }
    cs_close(c);
}
END_TEST

START_TEST(remove_takes_record_and_what_names_it)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    cs_put(c, 1, 0);
    cs_put(c, 2, 0);
    int64_t a = add_image(c, "a", 1);
    ck_assert_int_eq(add_page(c, a, 0x1000, 1), CACHE_OK);
    cs_make(&s, 1, 0);
    cache_touch(c, &s.key);
    ck_assert_int_eq(cache_remove(c, &s.key, &err), CACHE_OK);
    ck_assert_int_eq(cache_remove(c, &s.key, &err), CACHE_MISS);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_MISS);
    ck_assert_int_eq(cs_get(c, 2, 0, NULL), CACHE_OK);
    ck_assert_uint_eq(rows(c, a).count, 0);
    cs_close(c);
    ck_assert_int_eq(
        cs_sql_int("SELECT (SELECT count(*) FROM record_use) + (SELECT count(*) FROM image_page)"), 0);
}
END_TEST

START_TEST(remove_image_keeps_records_others_share)
{
    struct cache *c = cs_open(CACHE_CREATE);
    for (uint32_t n = 0; n < 4; n++)
        cs_put(c, n, 0);
    int64_t a = add_image(c, "a", 1), b = add_image(c, "b", 2);
    ck_assert_int_eq(add_page(c, a, 0x1000, 0), CACHE_OK);
    ck_assert_int_eq(add_page(c, a, 0x2000, 1), CACHE_OK);
    ck_assert_int_eq(add_page(c, b, 0x1000, 1), CACHE_OK);
    ck_assert_int_eq(add_page(c, b, 0x2000, 2), CACHE_OK);
    ck_assert_int_eq(cache_remove_image(c, a, &err), CACHE_OK);
    ck_assert_int_eq(cache_remove_image(c, a, &err), CACHE_MISS);
    ck_assert_int_eq(cs_get(c, 0, 0, NULL), CACHE_MISS);
    for (uint32_t n = 1; n < 4; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    ck_assert_uint_eq(images(c).count, 1);
    ck_assert_uint_eq(rows(c, b).count, 2);
    cs_close(c);
}
END_TEST

START_TEST(gc_removes_other_fingerprints_and_gives_space_back)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_stats before, after;
    bool added;
    uint64_t removed = 0;
    int64_t a = add_image(c, "old", 1), b = add_image(c, "new", 2);
    for (uint32_t n = 0; n < 100; n++) {
        cs_make(&s, n, 0);
        s.key.fingerprint = n < 90 ? 5 : 6;
        ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_OK);
        ck_assert_int_eq(cache_image_page(c, n < 90 ? a : b, n * 4096, &s.key, &err), CACHE_OK);
    }
    cs_close(c);
    c = cs_open(0);
    ck_assert_int_eq(cache_stats(c, &before, &err), CACHE_OK);
    ck_assert_int_eq(cache_gc(c, 6, 0, &removed, &err), CACHE_OK);
    ck_assert_uint_eq(removed, 90);
    ck_assert_int_eq(cache_stats(c, &after, &err), CACHE_OK);
    ck_assert_uint_eq(after.records, 10);
    ck_assert_uint_eq(after.images, 1);
    ck_assert(after.file_bytes * 4 < before.file_bytes);
    ck_assert_uint_eq(rows(c, b).count, 10);
    ck_assert_int_eq(cache_gc(c, 0, 0, &removed, &err), CACHE_OK); /* 0: any fingerprint stays */
    ck_assert_uint_eq(removed, 0);
    cs_close(c);
    ck_assert_int_eq(
        cs_sql_int("SELECT count(*) FROM image_page WHERE record NOT IN (SELECT id FROM record)"), 0);
}
END_TEST

START_TEST(gc_to_size_keeps_most_recently_used)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cache_stats st;
    struct cs_record s;
    uint64_t removed = 0;
    for (uint32_t n = 0; n < 50; n++)
        cs_put(c, n, 0);
    cs_close(c);
    cs_sql("UPDATE record SET created = 1000000000 + id", NULL, 0);
    c = cs_open(0);
    cs_make(&s, 0, 0); /* the oldest, but used now */
    cache_touch(c, &s.key);
    cs_close(c);
    c = cs_open(0);
    ck_assert_int_eq(cache_stats(c, &st, &err), CACHE_OK);
    uint64_t limit = st.blob_bytes / 5;
    ck_assert_int_eq(cache_gc(c, 0, limit, &removed, &err), CACHE_OK);
    ck_assert_int_eq(cache_stats(c, &st, &err), CACHE_OK);
    ck_assert(st.blob_bytes <= limit && st.blob_bytes > limit * 3 / 4);
    ck_assert_uint_eq(removed + st.records, 50);
    ck_assert_int_eq(cs_get(c, 0, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_MISS);
    ck_assert_int_eq(cs_get(c, 49, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cache_gc(c, 0, 1, &removed, &err), CACHE_OK);
    ck_assert_uint_eq(rows(c, 0).count, 0);
    cs_close(c);
}
END_TEST

START_TEST(gc_inside_transaction_is_refused)
{
    struct cache *c = cs_open(CACHE_CREATE);
    uint64_t removed;
    ck_assert_int_eq(cache_begin(c, &err), CACHE_OK);
    cs_put(c, 1, 0);
    ck_assert_int_eq(cache_gc(c, 1, 0, &removed, &err), CACHE_ERR_BUSY);
    ck_assert_int_eq(cache_commit(c, &err), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

START_TEST(gc_beside_reading_handle_leaves_it_working)
{
    struct cache *a = cs_open(CACHE_CREATE), *b = cs_open(0);
    uint64_t removed;
    for (uint32_t n = 0; n < 60; n++)
        cs_put(a, n, 0);
    for (uint32_t n = 0; n < 60; n++)
        ck_assert_int_eq(cs_get(b, n, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cache_gc(a, 0, 100000, &removed, &err), CACHE_OK);
    ck_assert(removed > 0);
    for (unsigned i = 0; i < 3; i++) {
        for (uint32_t n = 0; n < 60; n++) {
            enum cache_code code = cs_get(b, n, 0, NULL); /* bytes are checked inside */
            ck_assert(code == CACHE_OK || code == CACHE_MISS);
        }
        usleep(120000);
    }
    cs_close(a);
    cs_close(b);
}
END_TEST

START_TEST(readonly_handle_reads_and_refuses_changes)
{
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    struct cache_image img = {.name = "x"};
    uint64_t removed;
    bool added;
    cs_put(c, 1, 0);
    cs_close(c);
    c = cs_open(CACHE_READONLY);
    cs_make(&s, 2, 0);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 2, 0, NULL), CACHE_MISS);
    ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_ERR_OPEN);
    ck_assert_ptr_nonnull(strstr(err.text, "read-only"));
    ck_assert_int_eq(cache_begin(c, &err), CACHE_ERR_OPEN);
    ck_assert_int_eq(cache_commit(c, &err), CACHE_ERR_OPEN);
    ck_assert_int_eq(cache_remove(c, &s.key, &err), CACHE_ERR_OPEN);
    ck_assert_int_eq(cache_remove_image(c, 1, &err), CACHE_ERR_OPEN);
    ck_assert_int_eq(cache_image_add(c, &img, &err), CACHE_ERR_OPEN);
    ck_assert_int_eq(cache_gc(c, 1, 1, &removed, &err), CACHE_ERR_OPEN);
    cache_put_later(c, &s.key, &s.r);
    cache_touch(c, &s.key);
    ck_assert_uint_eq(rows(c, 0).count, 1);
    cs_close(c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache list");
    TCase *t = tcase_create("list");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, image_added_twice_is_one_with_newest_numbers);
    tcase_add_test(t, image_name_without_terminator_is_bounded);
    tcase_add_test(t, listing_gives_pages_by_address_and_records_without_image);
    tcase_add_test(t, listing_stops_when_told);
    tcase_add_test(t, listing_callback_may_look_up_and_remove);
    tcase_add_test(t, page_of_newer_fingerprint_takes_place_of_older);
    tcase_add_test(t, hits_are_added_up_over_handles);
    tcase_add_test(t, hits_of_many_keys_all_count);
    tcase_add_test(t, touch_of_more_keys_than_slots_does_no_harm);
    tcase_add_test(t, remove_takes_record_and_what_names_it);
    tcase_add_test(t, remove_image_keeps_records_others_share);
    tcase_add_test(t, gc_removes_other_fingerprints_and_gives_space_back);
    tcase_add_test(t, gc_to_size_keeps_most_recently_used);
    tcase_add_test(t, gc_inside_transaction_is_refused);
    tcase_add_test(t, gc_beside_reading_handle_leaves_it_working);
    tcase_add_test(t, readonly_handle_reads_and_refuses_changes);
    suite_add_tcase(s, t);
    return cs_main(s);
}
