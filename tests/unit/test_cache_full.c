/* Tests of cache/: the disk is full (I7). With the shim for the moment of it, and on a small file system of
 * its own where that can be mounted. */
#include "tests/unit/cache_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

START_TEST(full_disk_at_creation_told_as_full)
{
    struct cache_error err = {0};
    cs_fault_register();
    cs_fault_set(CS_WRITE, 1, true, SQLITE_FULL);
    ck_assert_ptr_null(cache_open(cs_path(), CACHE_CREATE, &err));
    ck_assert_msg(err.code == CACHE_ERR_FULL, "%s", err.text);
    ck_assert_ptr_nonnull(strstr(err.text, "free some space"));
    ck_assert_ptr_nonnull(strstr(err.text, "test.cache"));
    cs_fault_clear();
    cs_close(cs_open(CACHE_CREATE));
}
END_TEST

START_TEST(full_disk_then_space_again_puts_go_on)
{
    cs_fault_register();
    struct cache *c = cs_open(CACHE_CREATE);
    struct cache_error err = {0};
    struct cs_record s;
    bool added;
    for (uint32_t n = 0; n < 20; n++)
        cs_put(c, n, 0);
    cs_fault_set(CS_WRITE, 1, true, SQLITE_FULL);
    for (uint32_t n = 20; n < 25; n++) {
        cs_make(&s, n, 0);
        ck_assert_int_eq(cache_put(c, &s.key, &s.r, &added, &err), CACHE_ERR_FULL);
        ck_assert_ptr_nonnull(strstr(err.text, "free some space"));
    }
    for (uint32_t n = 0; n < 25; n++) /* reading needs no space */
        ck_assert_int_eq(cs_get(c, n, 0, NULL), n < 20 ? CACHE_OK : CACHE_MISS);
    cs_fault_clear();
    cs_put(c, 20, 0);
    cs_close(c);
}
END_TEST

START_TEST(full_disk_in_write_behind_drops_and_tells)
{
    cs_fault_register();
    struct cache *c = cs_open(CACHE_CREATE);
    struct cache_error err = {0};
    struct cs_record s;
    cs_put(c, 1, 0);
    cs_fault_set(CS_WRITE, 1, true, SQLITE_FULL);
    cs_make(&s, 2, 0);
    cache_put_later(c, &s.key, &s.r);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cache_close(c, &err), CACHE_ERR_FULL);
    cs_fault_clear();
    c = cs_open(0);
    ck_assert_int_eq(cs_get(c, 1, 0, NULL), CACHE_OK);
    ck_assert_int_eq(cs_get(c, 2, 0, NULL), CACHE_MISS);
    cs_close(c);
}
END_TEST

/* Fills what is left of the file system. */
static void stuff(const char *name)
{
    char block[4096];
    int fd = open(name, O_WRONLY | O_CREAT, 0600);
    memset(block, 1, sizeof block);
    while (write(fd, block, sizeof block) == sizeof block)
        ;
    close(fd);
}

START_TEST(real_full_file_system_loses_nothing_stored)
{
    char filler[4200];
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", cs_folder(), "tmpfs", 0, "size=2m,mode=0700") != 0) {
        printf("skipped: cannot mount a small file system (%s)\n", strerror(errno));
        return;
    }
    snprintf(filler, sizeof filler, "%s/filler", cs_folder());
    struct cache *c = cs_open(CACHE_CREATE);
    struct cache_error err = {0};
    struct cs_record s;
    enum cache_code code = CACHE_OK;
    uint32_t stored = 0;
    bool added;
    while (code == CACHE_OK && stored < 2000) {
        cs_make(&s, stored, 0);
        code = cache_put(c, &s.key, &s.r, &added, &err);
        stored += code == CACHE_OK;
    }
    ck_assert_msg(code == CACHE_ERR_FULL, "%d %s", (int)code, err.text);
    ck_assert_uint_gt(stored, 20);
    stuff(filler);
    for (unsigned i = 0; i < 20; i++)
        cache_put_later(c, &s.key, &s.r);
    for (uint32_t n = 0; n < stored; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cache_close(c, &err);
    /* Nothing free at all: the log's index cannot be made. An error or a working handle, no SIGBUS. */
    c = cache_open(cs_path(), 0, &err);
    if (c) {
        for (uint32_t n = 0; n < stored; n++)
            ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
        cache_close(c, &err);
    } else {
        ck_assert_msg(err.code == CACHE_ERR_FULL || err.code == CACHE_ERR_IO || err.code == CACHE_ERR_OPEN,
                      "%s", err.text);
    }
    unlink(filler);
    c = cs_open(0);
    for (uint32_t n = 0; n < stored; n++)
        ck_assert_int_eq(cs_get(c, n, 0, NULL), CACHE_OK);
    cs_close(c);
    umount2(cs_folder(), MNT_DETACH);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache full");
    TCase *t = tcase_create("full");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, full_disk_at_creation_told_as_full);
    tcase_add_test(t, full_disk_then_space_again_puts_go_on);
    tcase_add_test(t, full_disk_in_write_behind_drops_and_tells);
    tcase_add_test(t, real_full_file_system_loses_nothing_stored);
    suite_add_tcase(s, t);
    return cs_main(s);
}
