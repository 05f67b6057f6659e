/* Initrds: concatenated cpio archives, each plain or compressed; decompression; damage. */
#include "scanner/image/image.h"
#include "tests/unit/image_build.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    char names[512]; /* "name=content;" in order */
    unsigned count, stop_after;
};

static bool note(void *arg, const char *name, const uint8_t *data, size_t len)
{
    struct seen *s = arg;
    size_t have = strlen(s->names);

    snprintf(s->names + have, sizeof(s->names) - have, "%s=%.*s;", name, (int)(len < 40 ? len : 40),
             (const char *)data);
    return ++s->count != s->stop_after;
}

static struct buf two_files(void)
{
    struct buf b = {NULL, 0};

    build_cpio_member(&b, &(struct build_member){"bin", 0040755, 1, 2, "", 0});
    build_cpio_file(&b, "bin/one", "first");
    build_cpio_member(&b, &(struct build_member){"bin/link", 0120777, 2, 1, "one", 3});
    build_cpio_file(&b, "bin/two", "second");
    build_cpio_end(&b);
    return b;
}

static bool each(const struct buf *b, struct seen *s, struct image_error *err)
{
    *err = (struct image_error){0};
    return image_initrd_each(b->p, b->n, note, s, err);
}

START_TEST(initrd_plain_cpio_gives_regular_files_only)
{
    struct buf b = two_files();
    struct seen s = {0};
    struct image_error err;

    ck_assert(each(&b, &s, &err));
    ck_assert_str_eq(s.names, "bin/one=first;bin/two=second;");
    buf_free(&b);
}
END_TEST

START_TEST(initrd_compressed_archive_gives_its_files)
{
    struct buf plain = two_files(), b = build_packed(build_packings[_i], plain.p, plain.n);
    struct seen s = {0};
    struct image_error err;

    ck_assert_msg(each(&b, &s, &err), "%s: %s", build_packings[_i], err.text);
    ck_assert_str_eq(s.names, "bin/one=first;bin/two=second;");
    buf_free(&b);
    buf_free(&plain);
}
END_TEST

/* As a microcode archive stands in front of the real one, and a third behind it. */
START_TEST(initrd_compressed_between_plain_archives_gives_all)
{
    struct buf b = {NULL, 0}, inner = two_files(),
               packed = build_packed(build_packings[_i], inner.p, inner.n);
    struct seen s = {0};
    struct image_error err;

    build_cpio_file(&b, "early", "microcode");
    build_cpio_end(&b);
    buf_align(&b, 512);
    buf_add(&b, packed.p, packed.n);
    buf_zero(&b, 4);
    buf_align(&b, 512);
    build_cpio_file(&b, "late", "third");
    build_cpio_end(&b);
    ck_assert_msg(each(&b, &s, &err), "%s: %s", build_packings[_i], err.text);
    ck_assert_str_eq(s.names, "early=microcode;bin/one=first;bin/two=second;late=third;");
    buf_free(&b);
    buf_free(&inner);
    buf_free(&packed);
}
END_TEST

START_TEST(initrd_two_compressed_archives_back_to_back_give_both)
{
    struct buf one = {NULL, 0}, two = two_files(), a, b;
    struct seen s = {0};
    struct image_error err;

    build_cpio_file(&one, "zero", "0");
    build_cpio_end(&one);
    a = build_packed(build_packings[_i], one.p, one.n);
    b = build_packed(build_packings[_i], two.p, two.n);
    buf_add(&a, b.p, b.n);
    ck_assert_msg(each(&a, &s, &err), "%s: %s", build_packings[_i], err.text);
    ck_assert_str_eq(s.names, "zero=0;bin/one=first;bin/two=second;");
    buf_free(&a);
    buf_free(&b);
    buf_free(&one);
    buf_free(&two);
}
END_TEST

START_TEST(initrd_hard_links_give_content_once)
{
    struct buf b = {NULL, 0};
    struct seen s = {0};
    struct image_error err;

    build_cpio_member(&b, &(struct build_member){"a", 0100644, 7, 3, "", 0});
    build_cpio_member(&b, &(struct build_member){"b", 0100644, 7, 3, "data", 4});
    build_cpio_member(&b, &(struct build_member){"c", 0100644, 7, 3, "data", 4});
    build_cpio_end(&b);
    ck_assert(each(&b, &s, &err));
    ck_assert_str_eq(s.names, "b=data;");
    buf_free(&b);
}
END_TEST

START_TEST(initrd_same_file_in_two_archives_gives_it_once_but_changed_one_again)
{
    struct buf b = {NULL, 0};
    struct seen s = {0};
    struct image_error err;

    build_cpio_file(&b, "a", "same");
    build_cpio_file(&b, "b", "old");
    build_cpio_end(&b);
    build_cpio_file(&b, "a", "same");
    build_cpio_file(&b, "b", "new");
    build_cpio_end(&b);
    ck_assert(each(&b, &s, &err));
    ck_assert_str_eq(s.names, "a=same;b=old;b=new;");
    buf_free(&b);
}
END_TEST

START_TEST(initrd_callback_false_stops_without_error)
{
    struct buf b = two_files();
    struct seen s = {.stop_after = 1};
    struct image_error err;

    ck_assert(each(&b, &s, &err));
    ck_assert_str_eq(s.names, "bin/one=first;");
    buf_free(&b);
}
END_TEST

START_TEST(initrd_cut_second_archive_gives_first_and_truncated)
{
    struct buf b = two_files(), more = two_files();
    struct seen s = {0};
    struct image_error err;

    buf_add(&b, more.p, 60);
    ck_assert(!each(&b, &s, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_TRUNCATED);
    ck_assert_ptr_nonnull(strstr(err.text, "copy the file again"));
    ck_assert_str_eq(s.names, "bin/one=first;bin/two=second;");
    buf_free(&b);
    buf_free(&more);
}
END_TEST

START_TEST(initrd_unknown_compression_is_its_own_error)
{
    struct seen s = {0};
    struct image_error err;

    ck_assert(!image_initrd_each((const uint8_t *)"\x89LZO\0\r\n", 7, note, &s, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_COMPRESSION);
    ck_assert_ptr_nonnull(strstr(err.text, "lzop"));
    ck_assert(!image_initrd_each((const uint8_t *)"hello world", 11, note, &s, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_COMPRESSION);
    ck_assert_ptr_nonnull(strstr(err.text, "repack"));
}
END_TEST

START_TEST(initrd_damaged_stream_is_a_compression_error)
{
    struct buf plain = two_files(), b = build_packed(build_packings[_i], plain.p, plain.n);
    struct seen s = {0};
    struct image_error err;

    b.n -= b.n / 2; /* cut in the middle */
    ck_assert_msg(!each(&b, &s, &err), "%s", build_packings[_i]);
    ck_assert_msg(err.code == IMAGE_ERR_COMPRESSION || err.code == IMAGE_ERR_TRUNCATED, "%s: %d %s",
                  build_packings[_i], err.code, err.text);
    buf_free(&b);
    buf_free(&plain);
}
END_TEST

START_TEST(decompress_with_bytes_behind_gives_the_stream)
{
    struct buf b;
    struct image_blob out;
    struct image_error err;
    uint8_t data[10000];
    char kind[16];

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * i / 100);
    }
    b = build_packed(build_packings[_i], data, sizeof(data));
    buf_u32(&b, sizeof(data)); /* as the kernel's build appends the size */
    ck_assert_msg(image_decompress(b.p, b.n, &out, kind, &err), "%s: %s", build_packings[_i], err.text);
    ck_assert_uint_eq(out.len, sizeof(data));
    ck_assert_mem_eq(out.data, data, sizeof(data));
    ck_assert_int_eq(strncmp(kind, build_packings[_i], strlen(kind)), 0);
    image_blob_free(&out);
    buf_free(&b);
}
END_TEST

START_TEST(decompress_plain_data_gives_a_copy)
{
    struct image_blob out;
    struct image_error err;
    char kind[16];

    ck_assert(image_decompress((const uint8_t *)"plain", 5, &out, kind, &err));
    ck_assert_uint_eq(out.len, 5);
    ck_assert_str_eq(kind, "none");
    image_blob_free(&out);
}
END_TEST

START_TEST(initrd_2000_mutants_never_crash)
{
    struct buf plain = two_files(), both = two_files(), packed;
    uint64_t state = 42 + (uint64_t)_i;
    unsigned good = 0;

    packed = build_packed(build_packings[_i], plain.p, plain.n);
    buf_align(&both, 512);
    buf_add(&both, packed.p, packed.n);
    for (int round = 0; round < 2000 / 7; round++) {
        struct buf m = build_mutant(round % 2 != 0 ? &both : &packed, &state);
        struct seen s = {0};
        struct image_error err;
        good += each(&m, &s, &err) || err.code != IMAGE_OK;
        buf_free(&m);
    }
    ck_assert_uint_eq(good, 2000 / 7);
    buf_free(&plain);
    buf_free(&both);
    buf_free(&packed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image_initrd");
    TCase *t = tcase_create("initrd");
    SRunner *runner;

    tcase_set_timeout(t, 60);
    tcase_add_test(t, initrd_plain_cpio_gives_regular_files_only);
    tcase_add_loop_test(t, initrd_compressed_archive_gives_its_files, 0, 7);
    tcase_add_loop_test(t, initrd_compressed_between_plain_archives_gives_all, 0, 7);
    tcase_add_loop_test(t, initrd_two_compressed_archives_back_to_back_give_both, 0, 7);
    tcase_add_test(t, initrd_hard_links_give_content_once);
    tcase_add_test(t, initrd_same_file_in_two_archives_gives_it_once_but_changed_one_again);
    tcase_add_test(t, initrd_callback_false_stops_without_error);
    tcase_add_test(t, initrd_cut_second_archive_gives_first_and_truncated);
    tcase_add_test(t, initrd_unknown_compression_is_its_own_error);
    tcase_add_loop_test(t, initrd_damaged_stream_is_a_compression_error, 0, 7);
    tcase_add_loop_test(t, decompress_with_bytes_behind_gives_the_stream, 0, 7);
    tcase_add_test(t, decompress_plain_data_gives_a_copy);
    tcase_add_loop_test(t, initrd_2000_mutants_never_crash, 0, 7);
    suite_add_tcase(suite, t);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
