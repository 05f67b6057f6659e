/* Boot configurations (as strings) and ISO images (made by libarchive): entries, files, links, damage. */
#include "scanner/image/internal.h"
#include "tests/unit/image_build.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct file {
    const char *path, *text;
};

static const struct file *lookup(void *arg, const char *path)
{
    for (const struct file *f = arg; f->path != NULL; f++) {
        if (strcmp(f->path, path) == 0) {
            return f;
        }
    }
    return NULL;
}

static bool has_file(void *arg, const char *path)
{
    return lookup(arg, path) != NULL;
}

static bool read_text(void *arg, const char *path, struct image_blob *out)
{
    const struct file *f = lookup(arg, path);

    if (f != NULL) {
        *out = (struct image_blob){(uint8_t *)strdup(f->text), strlen(f->text)};
    }
    return f != NULL;
}

static struct image_boot parse(struct file *files, char *missing)
{
    struct boot_source src = {files, read_text, has_file};
    struct image_boot b;

    ck_assert(image_boot_parse(&src, &b, missing));
    return b;
}

START_TEST(isolinux_default_label_comes_first_with_kernel_initrd_append)
{
    struct file files[] = {{"/isolinux/isolinux.cfg",
                            "# comment\nDEFAULT second\nprompt 0\n"
                            "label first\n kernel /other\n append quiet\n"
                            "LABEL second\n\tMENU LABEL ^Second one\n\tkernel linux\n"
                            "\tappend initrd=/initrd.gz console=ttyS0,115200n8 \n"},
                           {"/isolinux/linux", ""},
                           {"/other", ""},
                           {NULL, NULL}};
    struct image_boot b = parse(files, NULL);

    ck_assert_uint_eq(b.count, 2);
    ck_assert_str_eq(b.config, "/isolinux/isolinux.cfg");
    ck_assert_str_eq(b.entry[0].label, "second");
    ck_assert_str_eq(b.entry[0].title, "Second one");
    ck_assert_str_eq(b.entry[0].kernel, "/isolinux/linux");
    ck_assert_str_eq(b.entry[0].initrd, "/initrd.gz");
    ck_assert_str_eq(b.entry[0].append, "console=ttyS0,115200n8");
    ck_assert(b.entry[0].is_default && !b.entry[1].is_default);
    ck_assert_str_eq(b.entry[1].kernel, "/other");
    ck_assert_str_eq(b.entry[1].append, "quiet");
    image_boot_free(&b);
}
END_TEST

/* As on Debian's own discs: the default is a menu program, the entries come by include. */
START_TEST(isolinux_menu_default_behind_includes_is_found)
{
    struct file files[] = {
        {"/isolinux/isolinux.cfg", "path \ninclude menu.cfg\ndefault vesamenu.c32\nprompt 0\n"},
        {"/isolinux/menu.cfg", "menu hshift 7\nmenu title x\ninclude gtk.cfg\nmenu include txt.cfg\n"},
        {"/isolinux/gtk.cfg", "label gtk\n kernel /gtk/vmlinuz\n append initrd=/gtk/initrd.gz --- quiet\n"},
        {"/isolinux/txt.cfg",
         "label install\n menu default\n linux /vmlinuz\n initrd /a.gz,/b.gz\nappend vga=788\n"
         "label hd\n kernel chain.c32\n"},
        {"/gtk/vmlinuz", ""},
        {"/vmlinuz", ""},
        {"/isolinux/chain.c32", ""},
        {NULL, NULL}};
    struct image_boot b = parse(files, NULL);

    ck_assert_uint_eq(b.count, 2);
    ck_assert_str_eq(b.entry[0].label, "install");
    ck_assert_str_eq(b.entry[0].initrd, "/a.gz,/b.gz");
    ck_assert_str_eq(b.entry[1].append, "--- quiet");
    image_boot_free(&b);
}
END_TEST

START_TEST(isolinux_global_append_holds_until_the_label_has_its_own)
{
    struct file files[] = {{"/isolinux.cfg",
                            "append root=/dev/a initrd=/i\nlabel a\nkernel /k\nlabel b\nkernel /k\n"
                            "append own\nlabel c\nkernel /k\nappend -\n"},
                           {"/k", ""},
                           {NULL, NULL}};
    struct image_boot b = parse(files, NULL);

    ck_assert_uint_eq(b.count, 3);
    ck_assert_str_eq(b.entry[0].append, "root=/dev/a");
    ck_assert_str_eq(b.entry[0].initrd, "/i");
    ck_assert_str_eq(b.entry[1].append, "own");
    ck_assert_str_eq(b.entry[2].append, "");
    image_boot_free(&b);
}
END_TEST

START_TEST(isolinux_include_of_itself_ends)
{
    struct file files[] = {
        {"/isolinux.cfg", "include isolinux.cfg\nlabel a\nkernel /k\n"}, {"/k", ""}, {NULL, NULL}};
    struct image_boot b = parse(files, NULL);

    ck_assert_uint_ge(b.count, 1);
    image_boot_free(&b);
}
END_TEST

START_TEST(boot_kernel_not_there_is_left_out_and_named)
{
    struct file files[] = {{"/isolinux.cfg", "default a\nlabel a\nkernel /gone\n"}, {NULL, NULL}};
    char missing[512];
    struct image_boot b = parse(files, missing);

    ck_assert_uint_eq(b.count, 0);
    ck_assert_str_eq(missing, "/gone");
    image_boot_free(&b);
}
END_TEST

START_TEST(grub_default_by_number_title_and_id)
{
    static const char *const wanted[] = {"1", "\"Second 'quoted'\"", "two"};
    char text[1024];
    struct file files[] = {{"/boot/grub/grub.cfg", text}, {"/boot/k1", ""}, {"/boot/k2", ""}, {NULL, NULL}};

    snprintf(text, sizeof(text),
             "set default=%s\nset root=(cd0)\nset args='ro quiet'\nif loadfont unicode ; then\n  set "
             "gfxmode=auto\nfi\n"
             "menuentry 'First' --class os {\n  linux /boot/k1 a\n  initrd /boot/i1\n}\n"
             "submenu 'More' {\n"
             "menuentry \"Second 'quoted'\" --id two {\n\tlinux\t(cd0)/boot/k2 ${args} x=\"a b\" # no\n"
             "\tinitrd /boot/i2 /boot/i3\n}\n}\n",
             wanted[_i]);
    struct image_boot b = parse(files, NULL);
    ck_assert_uint_eq(b.count, 2);
    ck_assert_str_eq(b.entry[0].kernel, "/boot/k2");
    ck_assert_str_eq(b.entry[0].title, "Second 'quoted'");
    ck_assert_str_eq(b.entry[0].label, "two");
    ck_assert_str_eq(b.entry[0].initrd, "/boot/i2,/boot/i3");
    ck_assert_str_eq(b.entry[0].append, "ro quiet x=a b");
    ck_assert_str_eq(b.entry[1].append, "a");
    ck_assert_str_eq(b.entry[1].label, "First");
    image_boot_free(&b);
}
END_TEST

/* Read behind the list of commands, once: to be run under the sanitizers. */
START_TEST(grub_empty_command_is_ignored)
{
    struct file files[] = {{"/boot/grub/grub.cfg", "\"\" /k\n'' x\n$none /k\nmenuentry g {\n\"\" y\nlinux /k g\n}\n"},
                           {"/k", ""},
                           {NULL, NULL}};
    struct image_boot b = parse(files, NULL);

    ck_assert_uint_eq(b.count, 1);
    ck_assert_str_eq(b.entry[0].append, "g");
    image_boot_free(&b);
}
END_TEST

START_TEST(boot_isolinux_wins_over_grub_and_both_are_listed)
{
    struct file files[] = {{"/boot/grub/grub.cfg", "menuentry g {\nlinux /k g\n}\n"},
                           {"/isolinux/isolinux.cfg", "label s\nkernel /k\nappend s\n"},
                           {"/k", ""},
                           {NULL, NULL}};
    struct image_boot b = parse(files, NULL);

    ck_assert_uint_eq(b.count, 2);
    ck_assert_str_eq(b.entry[0].append, "s");
    ck_assert_str_eq(b.entry[1].append, "g");
    ck_assert(!b.entry[1].is_default);
    image_boot_free(&b);
}
END_TEST

START_TEST(boot_2000_mutated_configurations_never_crash)
{
    static const char text[] =
        "default a\nappend x initrd=/i,/j\ninclude b\nmenu label ^q\nlabel a\nkernel /k y\n"
        "initrd /i\nset v='1'\nmenuentry \"t$v ${v}\" --id i {\nlinux (cd)/k $v\ninitrd /i\n}\n";
    uint64_t state = 5;
    struct buf good = {NULL, 0};

    buf_add(&good, text, sizeof(text));
    for (int round = 0; round < 2000; round++) {
        struct buf m = build_mutant(&good, &state);
        buf_add(&m, "", 1);
        struct file files[] = {{round % 2 != 0 ? "/isolinux.cfg" : "/boot/grub/grub.cfg", (const char *)m.p},
                               {"/k", ""},
                               {NULL, NULL}};
        struct image_boot b = parse(files, NULL);
        ck_assert_uint_le(b.count, 4);
        image_boot_free(&b);
        buf_free(&m);
    }
    buf_free(&good);
}
END_TEST

/* -- ISO images
 * ----------------------------------------------------------------------------------------------- */

static char iso[64];

static void setup(void)
{
    snprintf(iso, sizeof(iso), "/tmp/verso-test-%d.iso", (int)getpid());
}

static void teardown(void)
{
    unlink(iso);
}

static const char config[] = "default go\nlabel go\nkernel /Boot/vmlinuz\nappend initrd=/boot.gz quiet\n";

static void make(const char *cfg)
{
    static uint8_t big[100000];
    struct build_file files[] = {{"isolinux/isolinux.cfg", cfg, strlen(cfg)},
                                 {"isolinux/isolinux.bin", "boot sector", 11},
                                 {"Boot/vmlinuz-6.1", big, sizeof(big)},
                                 {"Boot/vmlinuz", "->vmlinuz-6.1", 0},
                                 {"current", "->Boot", 0},
                                 {"loop", "->loop", 0},
                                 {"outside", "->../../etc/passwd", 0}};

    for (size_t i = 0; i < sizeof(big); i++) {
        big[i] = (uint8_t)(i * 7);
    }
    build_iso(iso, files, sizeof(files) / sizeof(files[0]), "isolinux/isolinux.bin");
}

START_TEST(iso_boot_entry_and_el_torito_are_found)
{
    struct image_boot b;
    struct image_error err = {0};

    make(config);
    ck_assert(image_is_iso(iso));
    ck_assert_msg(image_iso_boot(iso, &b, &err), "%s", err.text);
    ck_assert_uint_eq(b.count, 1);
    ck_assert(b.el_torito);
    ck_assert_str_eq(b.entry[0].kernel, "/Boot/vmlinuz");
    ck_assert_str_eq(b.entry[0].initrd, "/boot.gz");
    image_boot_free(&b);
}
END_TEST

START_TEST(iso_file_is_read_through_symbolic_links)
{
    struct image_blob blob;
    struct image_error err = {0};

    make(config);
    ck_assert_msg(image_iso_read(iso, "/current/vmlinuz", &blob, &err), "%s", err.text);
    ck_assert_uint_eq(blob.len, 100000);
    ck_assert_uint_eq(blob.data[99999], (uint8_t)(99999 * 7));
    image_blob_free(&blob);
    ck_assert(!image_iso_read(iso, "/loop", &blob, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_IO);
    ck_assert(!image_iso_read(iso, "/outside", &blob, &err));
    ck_assert(!image_iso_read(iso, "/boot/VMLINUZ", &blob, &err)); /* Rock Ridge names keep their case */
    ck_assert_ptr_nonnull(strstr(err.text, iso));
}
END_TEST

static void expect_error(enum image_code code, const char *remedy)
{
    struct image_boot b;
    struct image_error err = {0};

    ck_assert(!image_iso_boot(iso, &b, &err));
    ck_assert_msg(err.code == code, "expected %d, got %d: %s", code, err.code, err.text);
    ck_assert_msg(strstr(err.text, iso) != NULL && strstr(err.text, remedy) != NULL, "%s", err.text);
}

START_TEST(iso_not_an_iso_is_its_own_error)
{
    FILE *f = fopen(iso, "w");

    for (int i = 0; i < 20000; i++) {
        fputs("not an ISO image ", f);
    }
    fclose(f);
    ck_assert(!image_is_iso(iso));
    expect_error(IMAGE_ERR_NOT_ISO, "give an ISO image");
}
END_TEST

START_TEST(iso_missing_file_is_an_io_error)
{
    expect_error(IMAGE_ERR_IO, "readable");
}
END_TEST

START_TEST(iso_without_kernel_is_its_own_error)
{
    struct build_file files[] = {{"readme.txt", "hello", 5}};

    make("default a\nlabel a\nkernel /nowhere\n");
    expect_error(IMAGE_ERR_NO_KERNEL, "/nowhere");
    build_iso(iso, files, 1, NULL);
    expect_error(IMAGE_ERR_NO_KERNEL, "--kernel");
}
END_TEST

static void set_volume_blocks(uint32_t blocks)
{
    FILE *f = fopen(iso, "r+");

    ck_assert_int_eq(fseek(f, 16 * 2048 + 80, SEEK_SET), 0);
    ck_assert_uint_eq(fwrite(&blocks, 1, 4, f), 4);
    fclose(f);
}

START_TEST(iso_truncated_is_its_own_error)
{
    struct image_blob blob;
    struct image_error err = {0};

    make(config);
    set_volume_blocks(100000); /* far more than the file has */
    expect_error(IMAGE_ERR_TRUNCATED, "download it again");
    /* The volume descriptor promises less than the files need: only reading one shows it. */
    make(config);
    set_volume_blocks(40);
    ck_assert(image_iso_read(iso, "/Boot/vmlinuz-6.1", &blob, &err));
    image_blob_free(&blob);
    ck_assert_int_eq(truncate(iso, 48 * 2048), 0);
    ck_assert(!image_iso_read(iso, "/Boot/vmlinuz-6.1", &blob, &err));
    ck_assert_msg(err.code == IMAGE_ERR_TRUNCATED, "%d %s", err.code, err.text);
    ck_assert_ptr_nonnull(strstr(err.text, iso));
}
END_TEST

START_TEST(iso_300_mutants_never_crash)
{
    struct image_error err = {0};
    struct image_blob whole;
    struct buf good = {NULL, 0};
    uint64_t state = 11;

    make(config);
    ck_assert(image_read_file(iso, &whole, &err));
    buf_add(&good, whole.data, whole.len);
    image_blob_free(&whole);
    for (int round = 0; round < 300; round++) {
        struct buf m = build_mutant(&good, &state);
        struct image_blob blob;
        struct image_boot b;
        for (int i = 0; i < 4 && m.n > 40 * 2048; i++) { /* descriptors and directories */
            m.p[16 * 2048 + build_random(&state) % (24 * 2048)] = (uint8_t)build_random(&state);
        }
        FILE *f = fopen(iso, "w");
        ck_assert_uint_eq(fwrite(m.p, 1, m.n, f), m.n);
        fclose(f);
        if (image_iso_boot(iso, &b, &err)) {
            if (image_iso_read(iso, b.entry[0].kernel, &blob, &err)) {
                image_blob_free(&blob);
            }
            image_boot_free(&b);
        }
        buf_free(&m);
    }
    buf_free(&good);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image_boot");
    TCase *t = tcase_create("config"), *i = tcase_create("iso");
    SRunner *runner;

    tcase_add_test(t, isolinux_default_label_comes_first_with_kernel_initrd_append);
    tcase_add_test(t, isolinux_menu_default_behind_includes_is_found);
    tcase_add_test(t, isolinux_global_append_holds_until_the_label_has_its_own);
    tcase_add_test(t, isolinux_include_of_itself_ends);
    tcase_add_test(t, boot_kernel_not_there_is_left_out_and_named);
    tcase_add_loop_test(t, grub_default_by_number_title_and_id, 0, 3);
    tcase_add_test(t, boot_isolinux_wins_over_grub_and_both_are_listed);
    tcase_add_test(t, grub_empty_command_is_ignored);
    tcase_add_test(t, boot_2000_mutated_configurations_never_crash);
    tcase_set_timeout(t, 60);
    suite_add_tcase(suite, t);
    tcase_add_checked_fixture(i, setup, teardown);
    tcase_add_test(i, iso_boot_entry_and_el_torito_are_found);
    tcase_add_test(i, iso_file_is_read_through_symbolic_links);
    tcase_add_test(i, iso_not_an_iso_is_its_own_error);
    tcase_add_test(i, iso_missing_file_is_an_io_error);
    tcase_add_test(i, iso_without_kernel_is_its_own_error);
    tcase_add_test(i, iso_truncated_is_its_own_error);
    tcase_add_test(i, iso_300_mutants_never_crash);
    tcase_set_timeout(i, 60);
    suite_add_tcase(suite, i);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
