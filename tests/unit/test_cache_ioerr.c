/* Tests of cache/: the Nth operation on the disk fails (I5, I7). For N growing until nothing fails any more.
 */
#include "tests/unit/cache_support.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BEFORE = 10, DURING = 8, LIMIT = 400 };

/* What was committed before is there, the handle works on. */
static void check_after(struct cache *c)
{
    cs_fault_clear();
    for (uint32_t n = 0; n < BEFORE; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cs_put(c, 500, 0);
    ck_assert_int_eq(cs_get(c, 500, 0, NULL), CACHE_OK);
}

static void start(void)
{
    cs_fault_clear();
    unlink(cs_path());
    struct cache *c = cs_open(CACHE_CREATE);
    for (uint32_t n = 0; n < BEFORE; n++)
        cs_put(c, n, 0);
    cs_close(c);
}

static const struct {
    int ops, rc;
    enum cache_code code;
    bool persist;
} faults[] = {
    {CS_WRITE, SQLITE_IOERR_WRITE, CACHE_ERR_IO, false},
    {CS_WRITE, SQLITE_IOERR_WRITE, CACHE_ERR_IO, true},
    {CS_SYNC, SQLITE_IOERR_FSYNC, CACHE_ERR_IO, false},
    {CS_SYNC, SQLITE_IOERR_FSYNC, CACHE_ERR_IO, true},
    {CS_WRITE, SQLITE_FULL, CACHE_ERR_FULL, false},
    {CS_WRITE | CS_SHM, SQLITE_FULL, CACHE_ERR_FULL, true},
};
enum { FAULTS = sizeof faults / sizeof *faults };

static bool message_ok(const struct cache_error *err)
{
    return strstr(err->text, "test.cache") && strlen(err->text) > 40;
}

START_TEST(nth_operation_fails_in_put_earlier_records_stay)
{
    cs_fault_register();
    for (int n = 1; n < LIMIT; n += 1 + n / 8) {
        start();
        struct cache *c = cs_open(0);
        struct cs_record s;
        struct cache_error err = {0};
        bool added;
        enum cache_code code = CACHE_OK;
        cs_fault_set(faults[_i].ops, n, faults[_i].persist, faults[_i].rc);
        uint32_t good = 0;
        for (uint32_t i = 0; i < DURING; i++) {
            cs_make(&s, 100 + i, 0);
            code = cache_put(c, &s.key, &s.r, &added, &err);
            if (code != CACHE_OK) {
                ck_assert_msg(code == faults[_i].code && message_ok(&err), "n %d: %d %s", n, (int)code,
                              err.text);
                ck_assert(!added);
                break;
            }
            good++;
        }
        int failed = cs_fault.failed;
        check_after(c);
        for (uint32_t i = 0; i < good; i++)
            ck_assert_int_eq(cs_get(c, 100 + i, 0, NULL), CACHE_OK);
        if (code != CACHE_OK) {
            ck_assert(failed > 0);
            ck_assert_int_eq(cs_get(c, 100 + good, 0, NULL), CACHE_MISS); /* I7 */
        }
        cs_close(c);
        if (!failed)
            return;
    }
    ck_abort_msg("still failing after %d operations", LIMIT);
}
END_TEST

START_TEST(nth_operation_fails_in_transaction_nothing_of_it_stays)
{
    cs_fault_register();
    unsigned refused = 0;
    for (int n = 1; n < LIMIT; n += 2 + n / 8) {
        start();
        struct cache *c = cs_open(0);
        struct cs_record s;
        struct cache_error err = {0};
        bool added;
        cs_fault_set(faults[_i].ops, n, faults[_i].persist, faults[_i].rc);
        enum cache_code code = cache_begin(c, &err), step = code;
        for (uint32_t i = 0; i < DURING && step == CACHE_OK; i++) {
            cs_make(&s, 100 + i, 0);
            step = cache_put(c, &s.key, &s.r, &added, &err);
        }
        if (step != CACHE_OK && code == CACHE_OK) { /* further steps fail the same way */
            ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), step);
            ck_assert(message_ok(&err));
        }
        if (code == CACHE_OK)
            code = cache_commit(c, &err);
        ck_assert(code == CACHE_OK || code == faults[_i].code);
        ck_assert(step == CACHE_OK || code == step);
        int failed = cs_fault.failed;
        cs_fault_clear();
        for (uint32_t i = 0; i < DURING; i++)
            ck_assert_int_eq(cs_get(c, 100 + i, 0, NULL), code == CACHE_OK ? CACHE_OK : CACHE_MISS);
        refused += code != CACHE_OK;
        check_after(c);
        cs_close(c);
        if (!failed)
            break;
    }
    ck_assert(refused > 0 ||
              faults[_i].ops == CS_SYNC); /* nothing is synced before the commit is reported: I6 */
}
END_TEST

/* The transactions above fail at their commit; here a read fails in the middle. */
START_TEST(nth_read_fails_in_transaction_nothing_of_it_stays)
{
    cs_fault_register();
    unsigned refused = 0;
    start();
    for (int n = 1; n < 30; n++) {
        struct cache *c = cs_open(0);
        struct cs_record s;
        struct cache_error err = {0};
        bool added;
        ck_assert_int_eq(cache_begin(c, &err), CACHE_OK);
        cs_put(c, 200, 0);
        cs_fault_set(CS_READ, n, false, SQLITE_IOERR_READ);
        enum cache_code step = CACHE_OK;
        for (uint32_t i = 0; i < BEFORE && step == CACHE_OK; i++) { /* what is there is read to be compared */
            cs_make(&s, i, 0);
            step = cache_put(c, &s.key, &s.r, &added, &err);
        }
        cs_fault_clear();
        cs_make(&s, 201, 0);
        ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), step);
        ck_assert_int_eq(cache_commit(c, &err), step);
        ck_assert_int_eq(cs_get(c, 200, 0, NULL), step == CACHE_OK ? CACHE_OK : CACHE_MISS);
        ck_assert_int_eq(cs_get(c, 201, 0, NULL), step == CACHE_OK ? CACHE_OK : CACHE_MISS);
        refused += step != CACHE_OK;
        for (uint32_t i = 200; i < 202 && step == CACHE_OK; i++) {
            cs_make(&s, i, 0);
            ck_assert_int_eq(cache_remove(c, &s.key, &err), CACHE_OK);
        }
        cs_close(c);
    }
    ck_assert_uint_gt(refused, 10);
}
END_TEST

START_TEST(nth_operation_fails_in_open_error_or_working_handle)
{
    cs_fault_register();
    unsigned failures = 0;
    for (int n = 1; n < LIMIT; n += 1 + n / 8) {
        cs_fault_clear();
        unlink(cs_path());
        struct cache_error err = {0};
        cs_fault_set(CS_WRITE | CS_SYNC | CS_READ | CS_OPEN | CS_TRUNCATE | CS_SHM, n, false,
                     _i ? SQLITE_FULL : SQLITE_IOERR);
        struct cache *c = cache_open(cs_path(), CACHE_CREATE, &err);
        int failed = cs_fault.failed;
        cs_fault_clear();
        if (!c) {
            failures++;
            ck_assert_msg(err.code != CACHE_OK && message_ok(&err), "%s", err.text);
            ck_assert_msg(failed > 0, "%s", err.text);
            c = cs_open(CACHE_CREATE); /* what is left behind is no hindrance */
        }
        cs_put(c, 1, 0);
        ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
        cs_close(c);
        if (!failed) {
            ck_assert_uint_gt(failures, 5);
            return;
        }
    }
    ck_abort_msg("still failing after %d operations", LIMIT);
}
END_TEST

/* 0: each is searched. 1: most are found behind the last one, and searched if that cannot be read. */
START_TEST(nth_read_fails_in_get_refused_as_io)
{
    cs_fault_register();
    start();
    unsigned refused = 0;
    for (int n = 1; n < 60; n++) {
        struct cache *c = cs_open(0);
        cs_fault_set(CS_READ, n, false, SQLITE_IOERR_READ);
        for (uint32_t r = 0; r < BEFORE; r++) {
            enum cache_refusal why;
            enum cache_code code = cs_get(c, _i ? r : BEFORE - 1 - r, 0, &why);
            ck_assert(code == CACHE_OK || (code == CACHE_REFUSED && why == CACHE_REFUSAL_IO));
            refused += code != CACHE_OK;
        }
        check_after(c);
        cs_close(c);
    }
    ck_assert_uint_gt(refused, _i ? 3 : 10);
}
END_TEST

START_TEST(write_behind_fails_counted_as_dropped_and_told_at_close)
{
    cs_fault_register();
    start();
    struct cache *c = cs_open(0);
    struct cs_record s;
    struct cache_stats st = {0};
    struct cache_error err = {0};
    cs_fault_set(CS_WRITE, 1, true, faults[_i].rc);
    for (uint32_t i = 0; i < 5; i++) {
        cs_make(&s, 100 + i, 0);
        cache_put_later(c, &s.key, &s.r);
    }
    for (unsigned i = 0; i < 300 && st.dropped < 5; i++) {
        usleep(10000);
        ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    }
    ck_assert_uint_eq(st.dropped, 5); /* I11 */
    ck_assert_uint_eq(st.stored, 0);
    cs_fault_clear();
    cs_make(&s, 200, 0);
    cache_put_later(c, &s.key, &s.r); /* it goes on */
    ck_assert_int_eq(cache_close(c, &err), faults[_i].code);
    ck_assert(message_ok(&err));
    c = cs_open(0);
    ck_assert_int_eq(cs_get(c, 200, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 100, 0, NULL), CACHE_MISS);
    check_after(c);
    cs_close(c);
}
END_TEST

START_TEST(nth_operation_fails_in_gc_records_left_are_whole)
{
    cs_fault_register();
    for (int n = 1; n < LIMIT; n += 2 + n / 8) {
        start();
        struct cache *c = cs_open(0);
        struct cache_error err = {0};
        uint64_t removed = 0;
        cs_fault_set(CS_WRITE | CS_SYNC | CS_TRUNCATE, n, false, _i ? SQLITE_FULL : SQLITE_IOERR);
        enum cache_code code = cache_gc(c, 0, 30000, &removed, &err);
        int failed = cs_fault.failed;
        cs_fault_clear();
        ck_assert_msg(code == CACHE_OK || (failed && message_ok(&err)), "%s", err.text);
        unsigned found = 0;
        for (uint32_t i = 0; i < BEFORE; i++) {
            enum cache_code got = cs_get(c, i, 0, NULL);
            ck_assert(got == CACHE_OK || got == CACHE_MISS);
            found += got == CACHE_OK;
        }
        ck_assert(found == BEFORE || found < BEFORE - 2); /* all or none of the removal */
        cs_put(c, 500, 0);
        cs_close(c);
        if (!failed)
            return;
    }
    ck_abort_msg("still failing after %d operations", LIMIT);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache ioerr");
    TCase *t = tcase_create("ioerr");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, nth_operation_fails_in_put_earlier_records_stay, 0, FAULTS);
    tcase_add_loop_test(t, nth_operation_fails_in_transaction_nothing_of_it_stays, 0, FAULTS);
    tcase_add_test(t, nth_read_fails_in_transaction_nothing_of_it_stays);
    tcase_add_loop_test(t, nth_operation_fails_in_open_error_or_working_handle, 0, 2);
    tcase_add_loop_test(t, nth_read_fails_in_get_refused_as_io, 0, 2);
    tcase_add_loop_test(t, write_behind_fails_counted_as_dropped_and_told_at_close, 0, 1);
    tcase_add_loop_test(t, nth_operation_fails_in_gc_records_left_are_whole, 0, 2);
    suite_add_tcase(s, t);
    return cs_main(s);
}
