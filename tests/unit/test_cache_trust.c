/* Tests of cache/: files that are no cache, or not the caller's alone (I1, I2). */
#include "tests/unit/cache_support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct cache_error err;

static char *beside(const char *suffix)
{
    static char name[4300];
    snprintf(name, sizeof name, "%s%s", cs_path(), suffix);
    return name;
}

static void expect(unsigned flags, enum cache_code code)
{
    memset(&err, 0, sizeof err);
    struct cache *c = cache_open(cs_path(), flags, &err);
    ck_assert_msg(c == NULL, "was opened");
    ck_assert_msg(err.code == code, "code %d: %s", (int)err.code, err.text);
    ck_assert_msg(strlen(err.text) > 20, "%s", err.text);
}

/* With each way to open: the code, and the folder is as it was, byte for byte. */
static void expect_untouched(enum cache_code code)
{
    uint64_t before = cs_folder_digest();
    expect(CACHE_CREATE, code);
    expect(0, code);
    expect(CACHE_READONLY, code);
    ck_assert_ptr_nonnull(strstr(err.text, "test.cache"));
    ck_assert_uint_eq(cs_folder_digest(), before);
}

static void make_cache(void)
{
    struct cache *c = cs_open(CACHE_CREATE);
    cs_put(c, 1, 0);
    cs_close(c);
}

static unsigned mode_of(const char *name)
{
    struct stat st;
    ck_assert_int_eq(lstat(name, &st), 0);
    return st.st_mode & 07777;
}

/* ---- what is no cache ---- */

START_TEST(text_file_is_refused_and_untouched)
{
    char text[9000];
    memset(text, 'x', sizeof text);
    const size_t sizes[] = {1, 15, 16, 99, 100, 4096, 9000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cs_write_file(cs_path(), text, sizes[i]);
        expect_untouched(CACHE_ERR_NOT_CACHE);
    }
}
END_TEST

START_TEST(foreign_database_is_refused_and_untouched)
{
    cs_sql("CREATE TABLE record(id, key, blob)", NULL, 0);
    chmod(cs_path(), 0600);
    expect_untouched(CACHE_ERR_NOT_CACHE);
    cs_sql("PRAGMA application_id = 252006673", NULL, 0); /* fossil's */
    expect_untouched(CACHE_ERR_NOT_CACHE);
    cs_sql("PRAGMA journal_mode = WAL", NULL, 0);
    expect_untouched(CACHE_ERR_NOT_CACHE);
}
END_TEST

/* Its log holds commits that only its own program may move into the file. */
START_TEST(foreign_database_with_log_is_refused_and_untouched)
{
    pid_t child = fork();
    if (child == 0) {
        sqlite3 *db;
        sqlite3_open(cs_path(), &db);
        sqlite3_exec(db, "PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)", NULL, NULL,
                     NULL);
        _exit(0); /* without closing: the log stays */
    }
    waitpid(child, NULL, 0);
    chmod(cs_path(), 0600);
    chmod(beside("-wal"), 0600);
    chmod(beside("-shm"), 0600);
    ck_assert_int_eq(access(beside("-wal"), F_OK), 0);
    expect_untouched(CACHE_ERR_NOT_CACHE);
}
END_TEST

START_TEST(truncated_cache_is_refused_and_untouched)
{
    make_cache();
    size_t len;
    uint8_t *file = cs_read_file(cs_path(), &len);
    const size_t sizes[] = {1, 16, 50, 99, 100, 512, 4095};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cs_write_file(cs_path(), file, sizes[i]);
        expect_untouched(CACHE_ERR_NOT_CACHE);
    }
    free(file);
}
END_TEST

START_TEST(cache_of_other_version_is_refused_and_untouched)
{
    make_cache();
    cs_sql("PRAGMA user_version = 2", NULL, 0);
    expect_untouched(CACHE_ERR_VERSION);
    ck_assert_ptr_nonnull(strstr(err.text, "version 2"));
}
END_TEST

START_TEST(empty_file_is_made_a_cache_only_with_create)
{
    cs_write_file(cs_path(), "", 0);
    expect(0, CACHE_ERR_NOT_CACHE);
    expect(CACHE_READONLY, CACHE_ERR_NOT_CACHE);
    cs_close(cs_open(CACHE_CREATE));
    cs_close(cs_open(0));
}
END_TEST

START_TEST(special_files_are_refused_without_waiting)
{
    ck_assert_int_eq(mkfifo(cs_path(), 0600), 0);
    expect(CACHE_CREATE, CACHE_ERR_NOT_CACHE);
    unlink(cs_path());
    ck_assert_int_eq(mkdir(cs_path(), 0700), 0);
    expect(CACHE_CREATE, CACHE_ERR_NOT_CACHE);
    rmdir(cs_path());
    ck_assert_ptr_null(cache_open("/dev/null", CACHE_CREATE, &err));
    ck_assert(err.code == CACHE_ERR_NOT_CACHE || err.code == CACHE_ERR_TRUST);
}
END_TEST

/* ---- paths ---- */

START_TEST(missing_file_or_folder_is_an_open_error)
{
    expect(0, CACHE_ERR_OPEN);
    expect(CACHE_READONLY, CACHE_ERR_OPEN);
    expect(CACHE_READONLY | CACHE_CREATE, CACHE_ERR_OPEN);
    ck_assert_int_ne(access(cs_path(), F_OK), 0);
    static const char *const bad[] = {"",           "/", ".", "..", "/tmp/", "/nonexistent-folder/x.cache",
                                      "/dev/null/x"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_ptr_null(cache_open(bad[i], CACHE_CREATE, &err));
        ck_assert_msg(err.code == CACHE_ERR_OPEN, "'%s': %s", bad[i], err.text);
    }
    ck_assert_ptr_null(cache_open(NULL, CACHE_CREATE, &err));
    ck_assert_ptr_null(cache_open("/nonexistent-folder/x", CACHE_CREATE, NULL)); /* err may be NULL */
}
END_TEST

START_TEST(path_of_extreme_length_is_an_open_error)
{
    char *name = malloc(70000);
    for (unsigned len = 200; len < 70000; len += len < 4400 ? 97 : 20000) {
        memset(name, 'a', len);
        name[0] = '/';
        name[len] = 0;
        ck_assert_ptr_null(cache_open(name, 0, &err));
        ck_assert_msg(err.code == CACHE_ERR_OPEN, "length %u: %s", len, err.text);
    }
    free(name);
}
END_TEST

START_TEST(relative_and_odd_paths_work)
{
    ck_assert_int_eq(chdir(cs_folder()), 0);
    static const char *const good[] = {"plain", "./dotted", "with space?immutable=1&x#%41", "file:x"};
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        struct cache *c = cache_open(good[i], CACHE_CREATE, &err);
        ck_assert_msg(c != NULL, "%s", err.text);
        ck_assert_int_eq(access(good[i], F_OK), 0);
        cs_put(c, 1, 0);
        cs_close(c);
    }
    ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

/* ---- owner and mode ---- */

START_TEST(new_file_has_mode_600_whatever_the_umask)
{
    static const mode_t masks[] = {0, 022, 077, 0277, 0777};
    umask(masks[_i]);
    struct cache *c = cs_open(CACHE_CREATE);
    cs_put(c, 1, 0);
    ck_assert_uint_eq(mode_of(cs_path()), 0600);
    ck_assert_uint_eq(mode_of(beside("-wal")), 0600);
    ck_assert_uint_eq(mode_of(beside("-shm")), 0600);
    cs_close(c);
}
END_TEST

START_TEST(file_others_may_write_is_refused)
{
    make_cache();
    chmod(cs_path(), 0620);
    expect_untouched(CACHE_ERR_TRUST);
    chmod(cs_path(), 0602);
    expect_untouched(CACHE_ERR_TRUST);
    chmod(cs_path(), 0644); /* reading is no harm */
    cs_close(cs_open(0));
    ck_assert_uint_eq(mode_of(cs_path()), 0644);
}
END_TEST

START_TEST(log_others_may_write_is_refused)
{
    make_cache();
    cs_write_file(beside("-wal"), "", 0);
    chmod(beside("-wal"), 0666);
    expect_untouched(CACHE_ERR_TRUST);
    unlink(beside("-wal"));
    cs_write_file(beside("-shm"), "", 0);
    chmod(beside("-shm"), 0620);
    expect_untouched(CACHE_ERR_TRUST);
    unlink(beside("-shm"));
    ck_assert_int_eq(symlink("/etc/passwd", beside("-journal")), 0);
    expect_untouched(CACHE_ERR_TRUST);
    unlink(beside("-journal"));
    cs_close(cs_open(0));
}
END_TEST

START_TEST(symbolic_link_is_refused)
{
    make_cache();
    ck_assert_int_eq(rename(cs_path(), beside(".real")), 0);
    ck_assert_int_eq(symlink(beside(".real"), cs_path()), 0);
    expect_untouched(CACHE_ERR_TRUST);
    unlink(cs_path());
    ck_assert_int_eq(symlink(beside(".new"), cs_path()), 0); /* dangling: nothing is made behind it */
    expect_untouched(CACHE_ERR_TRUST);
    ck_assert_int_ne(access(beside(".new"), F_OK), 0);
}
END_TEST

START_TEST(folder_link_is_followed_to_a_folder_of_our_own)
{
    char link[4300], name[4400];
    snprintf(link, sizeof link, "%s/link", cs_folder());
    snprintf(name, sizeof name, "%s/test.cache", link);
    make_cache();
    ck_assert_int_eq(symlink(cs_folder(), link), 0);
    struct cache *c = cache_open(name, 0, &err);
    ck_assert_msg(c != NULL, "%s", err.text);
    cs_close(c);
}
END_TEST

START_TEST(folder_others_may_write_is_refused_unless_sticky)
{
    make_cache();
    chmod(cs_folder(), 0777);
    expect(CACHE_CREATE, CACHE_ERR_TRUST);
    chmod(cs_folder(), 01777);
    cs_close(cs_open(0));
    chmod(cs_folder(), 0702);
    expect(0, CACHE_ERR_TRUST);
}
END_TEST

START_TEST(foreign_owner_is_refused)
{
    if (geteuid() != 0) {
        printf("skipped: needs root to give a file away\n");
        return;
    }
    make_cache();
    ck_assert_int_eq(chown(cs_path(), 65534, 65534), 0);
    expect_untouched(CACHE_ERR_TRUST);
    ck_assert_int_eq(chown(cs_path(), 0, 0), 0);
    cs_write_file(beside("-wal"), "", 0);
    ck_assert_int_eq(chown(beside("-wal"), 65534, 65534), 0);
    expect_untouched(CACHE_ERR_TRUST);
    unlink(beside("-wal"));
    ck_assert_int_eq(chown(cs_folder(), 65534, 65534), 0);
    expect(CACHE_CREATE, CACHE_ERR_TRUST);
    ck_assert_int_eq(chown(cs_folder(), 0, 0), 0);
    cs_close(cs_open(0));
}
END_TEST

/* ---- what cannot be written ---- */

/* Root may write everywhere, so this goes on as another user; a user who is not root is that user. */
static void become_user(void)
{
    if (geteuid() != 0)
        return;
    ck_assert_int_eq(chown(cs_folder(), 65534, 65534), 0);
    ck_assert_int_eq(setresgid(65534, 65534, 65534), 0);
    ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
}

START_TEST(folder_not_writable_new_file_is_an_open_error)
{
    become_user();
    chmod(cs_folder(), 0500);
    expect(CACHE_CREATE, CACHE_ERR_OPEN);
    ck_assert_ptr_nonnull(strstr(err.text, "Permission denied"));
}
END_TEST

START_TEST(folder_not_writable_opens_read_only)
{
    become_user();
    make_cache();
    chmod(cs_folder(), 0500);
    uint64_t before = cs_folder_digest();
    expect(0, CACHE_ERR_OPEN);
    expect(CACHE_CREATE, CACHE_ERR_OPEN);
    struct cache *c = cs_open(CACHE_READONLY);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 2, 0, NULL), CACHE_MISS);
    cs_close(c);
    ck_assert_uint_eq(cs_folder_digest(), before);
}
END_TEST

START_TEST(file_not_writable_opens_read_only)
{
    become_user();
    make_cache();
    chmod(cs_path(), 0400);
    expect(0, CACHE_ERR_OPEN);
    struct cache *c = cs_open(CACHE_READONLY);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    cs_close(c);
    chmod(cs_path(), 0000);
    expect(CACHE_READONLY, CACHE_ERR_OPEN);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache trust");
    TCase *t = tcase_create("trust");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, text_file_is_refused_and_untouched);
    tcase_add_test(t, foreign_database_is_refused_and_untouched);
    tcase_add_test(t, foreign_database_with_log_is_refused_and_untouched);
    tcase_add_test(t, truncated_cache_is_refused_and_untouched);
    tcase_add_test(t, cache_of_other_version_is_refused_and_untouched);
    tcase_add_test(t, empty_file_is_made_a_cache_only_with_create);
    tcase_add_test(t, special_files_are_refused_without_waiting);
    tcase_add_test(t, missing_file_or_folder_is_an_open_error);
    tcase_add_test(t, path_of_extreme_length_is_an_open_error);
    tcase_add_test(t, relative_and_odd_paths_work);
    tcase_add_loop_test(t, new_file_has_mode_600_whatever_the_umask, 0, 5);
    tcase_add_test(t, file_others_may_write_is_refused);
    tcase_add_test(t, log_others_may_write_is_refused);
    tcase_add_test(t, symbolic_link_is_refused);
    tcase_add_test(t, folder_link_is_followed_to_a_folder_of_our_own);
    tcase_add_test(t, folder_others_may_write_is_refused_unless_sticky);
    tcase_add_test(t, foreign_owner_is_refused);
    tcase_add_test(t, folder_not_writable_new_file_is_an_open_error);
    tcase_add_test(t, folder_not_writable_opens_read_only);
    tcase_add_test(t, file_not_writable_opens_read_only);
    suite_add_tcase(s, t);
    return cs_main(s);
}
