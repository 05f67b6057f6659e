/* Tests of cache/: kills at any instant (I6, I7). The child says over a pipe what was reported stored; all of
 * that must be there. */
#include "tests/unit/cache_support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 10, BATCH = 16, LATER = 20 };

typedef void writer(uint32_t from, int report);

static void say(int report, uint32_t n)
{
    if (write(report, &n, 4) != 4)
        _exit(3);
}

static void write_singly(uint32_t from, int report)
{
    struct cache *c = cache_open(cs_path(), CACHE_CREATE, NULL);
    struct cs_record s;
    bool added;
    for (uint32_t n = from; c; n++) {
        cs_make(&s, n, 0);
        if (cache_put(c, &s.key, &s.r, &added, NULL) != CACHE_OK)
            break;
        say(report, n);
    }
    _exit(2);
}

static void write_batches(uint32_t from, int report)
{
    struct cache *c = cache_open(cs_path(), CACHE_CREATE, NULL);
    struct cs_record s;
    bool added;
    for (uint32_t n = from; c; n += BATCH) {
        if (cache_begin(c, NULL) != CACHE_OK)
            break;
        for (uint32_t i = 0; i < BATCH; i++) {
            cs_make(&s, n + i, 0);
            if (cache_put(c, &s.key, &s.r, &added, NULL) != CACHE_OK)
                _exit(2);
        }
        if (cache_commit(c, NULL) != CACHE_OK)
            break;
        for (uint32_t i = 0; i < BATCH; i++)
            say(report, n + i);
    }
    _exit(2);
}

/* In steps, so that the count of stored ones says which. */
static void write_later(uint32_t from, int report)
{
    struct cache *c = cache_open(cs_path(), CACHE_CREATE, NULL);
    struct cs_record s;
    struct cache_stats st = {0};
    uint64_t done = 0;
    for (uint32_t n = from; c; n += LATER) {
        for (uint32_t i = 0; i < LATER; i++) {
            cs_make(&s, n + i, 0);
            cache_put_later(c, &s.key, &s.r);
        }
        for (done += LATER; st.stored < done; usleep(1000))
            if (cache_stats(c, &st, NULL) != CACHE_OK)
                _exit(2);
        for (uint32_t i = 0; i < LATER; i++)
            say(report, n + i);
    }
    _exit(2);
}

/* Runs a writer, kills it some time after its first report; returns how far its reports went. */
static uint32_t run_and_kill(writer *w, uint32_t from, unsigned us)
{
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        close(pipes[0]);
        w(from, pipes[1]);
    }
    close(pipes[1]);
    uint32_t n, end = from;
    if (read(pipes[0], &n, 4) == 4) {
        end = n + 1;
        usleep(us);
    }
    kill(child, SIGKILL);
    while (read(pipes[0], &n, 4) == 4)
        end = n + 1;
    close(pipes[0]);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the writer failed by itself: %x",
                  status);
    return end;
}

static unsigned random_us(unsigned max)
{
    static uint32_t x;
    if (!x)
        x = (uint32_t)time(NULL) ^ (uint32_t)getpid() << 16;
    x = x * 1664525 + 1013904223;
    return (x >> 8) % max;
}

static void check_whole(void)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    ck_assert_int_eq(sqlite3_open(cs_path(), &db), SQLITE_OK);
    ck_assert_int_eq(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL), SQLITE_OK);
    ck_assert_int_eq(sqlite3_step(s), SQLITE_ROW);
    ck_assert_str_eq((const char *)sqlite3_column_text(s, 0), "ok");
    sqlite3_finalize(s);
    sqlite3_close(db);
}

static void kill_rounds(writer *w, unsigned max_us, unsigned atom)
{
    uint32_t from = 0, start[ROUNDS], stop[ROUNDS];
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t end = run_and_kill(w, from, random_us(max_us));
        ck_assert_msg(end > from, "round %u stored nothing", round);
        start[round] = from;
        stop[round] = end;
        struct cache *c = cs_open(0);
        for (unsigned r = 0; r <= round; r++)
            for (uint32_t n = start[r]; n < stop[r]; n++)
                ck_assert_msg(cs_get(c, n, 0, NULL) == CACHE_OK, "record %u was reported stored and is gone",
                              n);
        /* What was on its way: each transaction wholly or not at all (I7). */
        uint32_t next = from + (end - from + atom - 1) / atom * atom;
        for (uint32_t t = next; t < next + 4 * atom; t += atom) {
            enum cache_code first = cs_get(c, t, 0, NULL);
            for (uint32_t n = t; n < t + atom; n++)
                ck_assert_int_eq(cs_get(c, n, 0, NULL), first);
        }
        cs_close(c);
        from = next + 5 * atom; /* clear of what the killed one may have left */
    }
    check_whole();
}

START_TEST(put_reported_then_killed_all_there)
{
    kill_rounds(write_singly, 60000, 1);
}
END_TEST

START_TEST(commit_reported_then_killed_all_there_and_whole)
{
    kill_rounds(write_batches, 60000, BATCH);
}
END_TEST

START_TEST(write_behind_counted_then_killed_all_there)
{
    kill_rounds(write_later, 200000, 1);
}
END_TEST

START_TEST(killed_while_the_file_is_made_next_one_makes_it)
{
    for (unsigned round = 0; round < 30; round++) {
        pid_t child = fork();
        if (child == 0) {
            struct cache *c = cache_open(cs_path(), CACHE_CREATE, NULL);
            pause();
            _exit(c != NULL);
        }
        usleep(random_us(4000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        struct cache *c = cs_open(CACHE_CREATE);
        cs_put(c, round, 0);
        ck_assert_int_eq(cs_get(c, round, 0, NULL), CACHE_OK);
        cs_close(c);
        check_whole();
        unlink(cs_path());
    }
}
END_TEST

static void collect_forever(uint32_t from, int report)
{
    struct cache *c = cache_open(cs_path(), 0, NULL);
    uint64_t removed;
    for (uint64_t limit = 3000000; c && limit > 100000; limit -= 20000) {
        if (cache_gc(c, 0, limit, &removed, NULL) != CACHE_OK)
            _exit(2);
        say(report, from);
    }
    pause();
    _exit(2);
}

START_TEST(killed_in_gc_what_is_left_is_whole)
{
    struct cache *c = cs_open(CACHE_CREATE);
    ck_assert_int_eq(cache_begin(c, NULL), CACHE_OK);
    for (uint32_t n = 0; n < 500; n++)
        cs_put(c, n, 0);
    ck_assert_int_eq(cache_commit(c, NULL), CACHE_OK);
    cs_close(c);
    for (unsigned round = 0; round < 5; round++) {
        run_and_kill(collect_forever, 0, random_us(60000));
        check_whole();
        c = cs_open(0);
        unsigned found = 0;
        for (uint32_t n = 0; n < 500; n++)
            found += cs_get(c, n, 0, NULL) == CACHE_OK;
        ck_assert_int_eq(cs_get(c, 499, 0, NULL), CACHE_OK); /* the newest goes last */
        cs_close(c);
        ck_assert_int_eq(cs_sql_int("SELECT count(*) FROM record"), found);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache crash");
    TCase *t = tcase_create("crash");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, put_reported_then_killed_all_there);
    tcase_add_test(t, commit_reported_then_killed_all_there_and_whole);
    tcase_add_test(t, write_behind_counted_then_killed_all_there);
    tcase_add_test(t, killed_while_the_file_is_made_next_one_makes_it);
    tcase_add_test(t, killed_in_gc_what_is_left_is_whole);
    suite_add_tcase(s, t);
    return cs_main(s);
}
