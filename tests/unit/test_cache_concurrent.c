/* Tests of cache/: several processes, handles and threads on one file (I8). */
#include "tests/unit/cache_support.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OWN = 150, COMMON = 50, PROCESSES = 3 };

/* Exit status 0 if all went well; runs in a child, so no ck_assert. */
static int write_and_read(uint32_t me)
{
    struct cache_error err = {0};
    struct cache *c = cache_open(cs_path(), CACHE_CREATE, &err);
    struct cs_record s;
    bool added;
    if (!c)
        return 10;
    for (uint32_t i = 0; i < OWN + COMMON; i++) {
        uint32_t n = i % 4 == 3 ? i / 4 : 1000 * (me + 1) + i;
        cs_make(&s, n, 0);
        if (i % 2)
            cache_put_later(c, &s.key, &s.r);
        else if (cache_put(c, &s.key, &s.r, &added, &err) != CACHE_OK)
            return 20 + (int)err.code;
        cache_touch(c, &s.key);
        for (uint32_t p = 0; p < PROCESSES; p++) { /* theirs: there and right, or not yet there */
            enum cache_refusal why;
            struct cache_buf buf = {0};
            struct cache_record out;
            cs_make(&s, 1000 * (p + 1) + i / 2, 0);
            enum cache_code code = cache_get(c, &s.key, s.recto, &buf, &out, &why);
            if (code != CACHE_OK && code != CACHE_MISS)
                return 40 + (int)why;
            if (code == CACHE_OK &&
                (out.verso_len != s.r.verso_len || memcmp(out.verso, s.verso, out.verso_len)))
                return 11;
            cache_buf_free(&buf);
        }
    }
    return cache_close(c, &err) == CACHE_OK ? 0 : 60 + (int)err.code;
}

START_TEST(processes_writing_one_file_all_records_there)
{
    pid_t child[PROCESSES];
    for (uint32_t p = 0; p < PROCESSES; p++)
        if ((child[p] = fork()) == 0)
            _exit(write_and_read(p)); /* they also make the file at the same time */
    for (uint32_t p = 0; p < PROCESSES; p++) {
        int status;
        ck_assert_int_eq(waitpid(child[p], &status, 0), child[p]);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "process %u: status %x", p, status);
    }
    struct cache *c = cs_open(0);
    struct cache_stats st;
    for (uint32_t i = 0; i < OWN + COMMON; i++)
        for (uint32_t p = 0; p < PROCESSES; p++)
            ck_assert_int_eq(cs_get(c, i % 4 == 3 ? i / 4 : 1000 * (p + 1) + i, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cache_stats(c, &st, NULL), CACHE_OK);
    ck_assert_uint_eq(st.records, PROCESSES * OWN + COMMON);
    ck_assert_uint_eq(st.hits_total, PROCESSES * (OWN + COMMON)); /* hits of several processes add up */
    cs_close(c);
}
END_TEST

START_TEST(processes_opening_a_new_file_at_once_all_succeed)
{
    for (unsigned round = 0; round < 10; round++) {
        int gate[2];
        char go;
        pid_t child[4];
        ck_assert_int_eq(pipe(gate), 0);
        for (unsigned p = 0; p < 4; p++)
            if ((child[p] = fork()) == 0) {
                close(gate[1]);
                if (read(gate[0], &go, 1) != 0)
                    _exit(3);
                struct cache *c = cache_open(cs_path(), CACHE_CREATE, NULL);
                _exit(c && cache_close(c, NULL) == CACHE_OK ? 0 : 1);
            }
        close(gate[0]);
        close(gate[1]);
        for (unsigned p = 0; p < 4; p++) {
            int status;
            waitpid(child[p], &status, 0);
            ck_assert_int_eq(status, 0);
        }
        unlink(cs_path());
    }
}
END_TEST

/* SQLite keeps its locks per process in memory, so a child made while a handle is open would be no
 * independent process. Forked before, it waits for a byte. */
struct other {
    pid_t pid;
    int go, said;
};

static struct other start_other(int (*fn)(int said))
{
    struct other o;
    int go[2], said[2];
    char ch;
    ck_assert_int_eq(pipe(go), 0);
    ck_assert_int_eq(pipe(said), 0);
    o.pid = fork();
    if (o.pid == 0)
        _exit(read(go[0], &ch, 1) == 1 ? fn(said[1]) : 99);
    o.go = go[1];
    o.said = said[0];
    return o;
}

static void end_other(struct other o)
{
    int status;
    ck_assert_int_eq(waitpid(o.pid, &status, 0), o.pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the other process: %x", status);
}

static int hold_for_a_while(int said)
{
    struct cache *c = cache_open(cs_path(), CACHE_CREATE, NULL);
    if (!c || cache_begin(c, NULL) != CACHE_OK || write(said, "x", 1) != 1)
        return 1;
    usleep(400000);
    return cache_commit(c, NULL) == CACHE_OK ? 0 : 2;
}

START_TEST(writer_waits_for_other_writer)
{
    struct other o = start_other(hold_for_a_while);
    struct cache *c = cs_open(CACHE_CREATE);
    struct cs_record s;
    char ch;
    ck_assert_int_eq(write(o.go, "x", 1), 1);
    ck_assert_int_eq(read(o.said, &ch, 1), 1);
    cs_make(&s, 2, 0);
    cache_put_later(c, &s.key, &s.r);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_MISS); /* readers do not wait */
    cs_put(c, 1, 0);
    end_other(o);
    cs_close(c);
    c = cs_open(0);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 2, 0, NULL), CACHE_OK);
    cs_close(c);
}
END_TEST

static int open_and_close(int said)
{
    (void)said;
    struct cache *c = cache_open(cs_path(), 0, NULL);
    return c && cache_close(c, NULL) == CACHE_OK ? 0 : 1;
}

/* A closed descriptor would take the POSIX locks of the whole process on the file with it; then another
 * process's last close would delete the log under the first handle. */
START_TEST(second_handle_of_process_closed_first_keeps_its_locks)
{
    struct other o = start_other(open_and_close);
    char log[4200];
    snprintf(log, sizeof log, "%s-wal", cs_path());
    struct cache *a = cs_open(CACHE_CREATE);
    cs_put(a, 1, 0);
    cs_close(cs_open(0));
    ck_assert_int_eq(write(o.go, "x", 1), 1);
    end_other(o);
    ck_assert_int_eq(access(log, F_OK), 0);
    cs_put(a, 2, 0);
    cs_close(a);
    a = cs_open(0);
    ck_assert_int_eq(cs_get(a, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(a, 2, 0, NULL), CACHE_OK);
    cs_close(a);
}
END_TEST

START_TEST(addition_by_other_handle_found_at_once_replacement_soon)
{
    struct cache *a = cs_open(CACHE_CREATE), *b = cs_open(0);
    cs_put(a, 1, 0);
    ck_assert_int_eq(cs_get(b, 1, 0, NULL), CACHE_OK);
    cs_put(a, 2, 0);
    ck_assert_int_eq(cs_get(b, 2, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(b, 1, 0, NULL), CACHE_OK);
    cs_put(a, 1, 1);
    ck_assert_int_eq(cs_get(b, 1, -1, NULL), CACHE_OK); /* the old one or the new one */
    usleep(250000);
    ck_assert_int_eq(cs_get(b, 1, 1, NULL), CACHE_OK);
    cs_close(b);
    cs_close(a);
}
END_TEST

static struct cache *shared;

static void *thread_main(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    struct cs_record s;
    struct cache_buf buf = {0};
    struct cache_record out;
    enum cache_refusal why;
    bool added;
    uintptr_t bad = 0;
    for (uint32_t i = 0; i < 120; i++) {
        uint32_t n = (i * 7 + me * 31) % 100;
        cs_make(&s, n, i % 3);
        if (i % 3 == 0)
            bad += cache_put(shared, &s.key, &s.r, &added, NULL) != CACHE_OK;
        else
            cache_put_later(shared, &s.key, &s.r);
        enum cache_code code = cache_get(shared, &s.key, s.recto, &buf, &out, &why);
        bad += code != CACHE_OK && code != CACHE_MISS;
        cache_touch(shared, &s.key);
        if (me == 0 && i % 20 == 0)
            bad += cache_begin(shared, NULL) != CACHE_OK || cache_commit(shared, NULL) != CACHE_OK;
        struct cache_stats st;
        bad += i % 10 == 0 && cache_stats(shared, &st, NULL) != CACHE_OK;
    }
    cache_buf_free(&buf);
    return (void *)bad;
}

START_TEST(threads_on_one_handle_all_work)
{
    pthread_t t[4];
    shared = cs_open(CACHE_CREATE);
    for (uintptr_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&t[i], NULL, thread_main, (void *)i), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        ck_assert_ptr_null(bad);
    }
    cs_close(shared);
    shared = cs_open(0);
    for (uint32_t n = 0; n < 100; n++) {
        enum cache_code code = cs_get(shared, n, -1, NULL);
        ck_assert(code == CACHE_OK || code == CACHE_MISS);
    }
    cs_close(shared);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache concurrent");
    TCase *t = tcase_create("concurrent");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, processes_writing_one_file_all_records_there);
    tcase_add_test(t, processes_opening_a_new_file_at_once_all_succeed);
    tcase_add_test(t, writer_waits_for_other_writer);
    tcase_add_test(t, second_handle_of_process_closed_first_keeps_its_locks);
    tcase_add_test(t, addition_by_other_handle_found_at_once_replacement_soon);
    tcase_add_test(t, threads_on_one_handle_all_work);
    suite_add_tcase(s, t);
    return cs_main(s);
}
