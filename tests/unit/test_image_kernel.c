/* Kernels: bzImage with each compression, relocations, ELF, Multiboot; damage. */
#include "scanner/image/image.h"
#include "tests/unit/image_build.h"

#include <check.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { VADDR = 0xC1000000, PADDR = 0x1000000, TEXT = VADDR + 16 };

/* NOPs, at 100h a pointer to 200h; a data word that the relocation list names and that points to 300h. */
static struct buf vmlinux(void)
{
    static uint8_t code[0x1000 - 16];
    static const uint32_t data[] = {TEXT + 0x300, TEXT + 0x400};

    memset(code, 0x90, sizeof(code));
    code[0xFF] = 0xB8;
    memcpy(code + 0x100, &(uint32_t){TEXT + 0x200}, 4);
    return build_elf(
        &(struct build_elf){ET_EXEC, VADDR, PADDR, PADDR + 16, code, sizeof(code), data, 2, NULL, 0, true});
}

static void add_relocs(struct buf *b)
{
    buf_u32(b, 0);
    buf_u32(b, TEXT + 0x100);
    buf_u32(b, VADDR + 0x1000);
}

/* The compressed payload as the kernel's build makes it: its plain size is appended, gzip has it anyway. */
static struct buf payload_of(const char *kind, const struct buf *plain)
{
    struct buf p = build_packed(kind, plain->p, plain->n);

    if (strcmp(kind, "gzip") != 0) {
        buf_u32(&p, (uint32_t)plain->n);
    }
    return p;
}

static struct buf bzimage(const char *kind)
{
    struct buf plain = vmlinux(), payload, b;

    add_relocs(&plain);
    payload = payload_of(kind, &plain);
    b = build_bzimage(payload.p, payload.n, "6.1.0-test (me) #1");
    buf_free(&plain);
    buf_free(&payload);
    return b;
}

struct totals {
    unsigned runs, entries;
    bool at_200, at_300, at_400, start;
};

static bool count(void *arg, const struct image_file *file, const struct image_exec *e)
{
    struct totals *t = arg;

    ck_assert_str_eq(file->kind, "kernel");
    ck_assert(!file->user);
    ck_assert_uint_eq(e->vaddr, VADDR);
    t->runs++;
    t->entries += (unsigned)e->entry_count;
    for (size_t i = 0; i < e->entry_count; i++) {
        t->start |= e->entries[i] == TEXT;
        t->at_200 |= e->entries[i] == TEXT + 0x200;
        t->at_300 |= e->entries[i] == TEXT + 0x300;
        t->at_400 |= e->entries[i] == TEXT + 0x400;
    }
    return true;
}

START_TEST(kernel_bzimage_gives_elf_segments_version_and_relocations)
{
    struct buf b = bzimage(build_packings[_i]);
    struct image_kernel k;
    struct image_error err = {0};

    ck_assert_msg(image_kernel_parse(b.p, b.n, "linux", &k, &err), "%s: %s", build_packings[_i], err.text);
    ck_assert(k.is_bzimage && !k.is_multiboot);
    ck_assert_uint_eq(k.entry, PADDR + 16);
    ck_assert_uint_eq(k.seg_count, 2);
    ck_assert_uint_eq(k.seg[0].paddr, PADDR);
    ck_assert_uint_eq(k.seg[0].vaddr, VADDR);
    ck_assert_uint_eq(k.seg[0].off, 0x1000);
    ck_assert_uint_eq(k.seg[1].memsz, 8 + 64);
    ck_assert_str_eq(k.version, "6.1.0-test (me) #1");
    ck_assert_int_eq(strncmp(k.compression, build_packings[_i], strlen(k.compression)), 0);
    ck_assert_uint_eq(k.setup_header_len, 0x202 + 0x6A);
    ck_assert_mem_eq(k.setup_header + 0x202, "HdrS", 4);
    ck_assert_uint_eq(k.reloc_count, 2);
    ck_assert_uint_eq(k.relocs[0], TEXT + 0x100);
    ck_assert_uint_eq(k.relocs[1], VADDR + 0x1000);
    image_kernel_free(&k);
    buf_free(&b);
}
END_TEST

START_TEST(kernel_exec_entries_come_from_relocations)
{
    struct buf b = bzimage("xz");
    struct image_kernel k;
    struct image_error err = {0};
    struct totals t = {0};

    ck_assert(image_kernel_parse(b.p, b.n, "linux", &k, &err));
    ck_assert(image_kernel_exec(&k, "linux", count, &t, &err));
    ck_assert_uint_eq(t.runs, 1);
    ck_assert_msg(t.start, "entry, physical made virtual");
    ck_assert_msg(t.at_200, "relocated field in code");
    ck_assert_msg(t.at_300, "relocated field in data");
    ck_assert_msg(!t.at_400, "a data word no relocation names");
    image_kernel_free(&k);
    buf_free(&b);
}
END_TEST

START_TEST(kernel_bare_elf_is_taken_and_its_data_words_are_entries)
{
    struct buf b = vmlinux();
    struct image_kernel k;
    struct image_error err = {0};
    struct totals t = {0};

    ck_assert_msg(image_kernel_parse(b.p, b.n, "vmlinux", &k, &err), "%s", err.text);
    ck_assert(!k.is_bzimage);
    ck_assert_uint_eq(k.reloc_count, 0);
    ck_assert_str_eq(k.compression, "none");
    ck_assert(image_kernel_exec(&k, "vmlinux", count, &t, &err));
    ck_assert(t.at_300 && t.at_400);
    image_kernel_free(&k);
    buf_free(&b);
}
END_TEST

START_TEST(kernel_gzipped_elf_is_unpacked)
{
    struct buf b = vmlinux(), packed = build_packed("gzip", b.p, b.n);
    struct image_kernel k;
    struct image_error err = {0};

    ck_assert_msg(image_kernel_parse(packed.p, packed.n, "vmlinux.gz", &k, &err), "%s", err.text);
    ck_assert_str_eq(k.compression, "gzip");
    ck_assert_uint_eq(k.elf.len, b.n);
    image_kernel_free(&k);
    buf_free(&b);
    buf_free(&packed);
}
END_TEST

START_TEST(kernel_multiboot_without_elf_uses_header_addresses)
{
    struct buf b = {NULL, 0};
    struct image_kernel k;
    struct image_error err = {0};

    buf_zero(&b, 64);
    buf_u32(&b, 0x1BADB002);
    buf_u32(&b, 0x00010000);
    buf_u32(&b, 0u - 0x1BADB002u - 0x00010000u);
    buf_u32(&b, 0x100040); /* header */
    buf_u32(&b, 0x100000); /* load */
    buf_u32(&b, 0);        /* to the end of the file */
    buf_u32(&b, 0x102000); /* bss end */
    buf_u32(&b, 0x100060); /* entry */
    buf_add(&b, "\xFA\xF4", 2);
    ck_assert_msg(image_kernel_parse(b.p, b.n, "kernel", &k, &err), "%s", err.text);
    ck_assert(k.is_multiboot);
    ck_assert_uint_eq(k.entry, 0x100060);
    ck_assert_uint_eq(k.seg[0].paddr, 0x100000);
    ck_assert_uint_eq(k.seg[0].filesz, b.n);
    ck_assert_uint_eq(k.seg[0].memsz, 0x2000);
    image_kernel_free(&k);
    buf_free(&b);
}
END_TEST

/* Parses and expects this error; the message must name file and remedy. */
static void expect_error(const struct buf *b, enum image_code code, const char *remedy)
{
    struct image_kernel k;
    struct image_error err = {0};

    ck_assert(!image_kernel_parse(b->p, b->n, "boot/linux", &k, &err));
    ck_assert_msg(err.code == code, "expected %d, got %d: %s", code, err.code, err.text);
    ck_assert_msg(strstr(err.text, "boot/linux") != NULL, "%s", err.text);
    ck_assert_msg(strstr(err.text, remedy) != NULL, "%s", err.text);
    ck_assert_ptr_null(k.elf.data);
}

START_TEST(kernel_not_a_kernel_is_its_own_error)
{
    struct buf b = {NULL, 0};

    buf_add(&b, "just some text", 14);
    expect_error(&b, IMAGE_ERR_NOT_ISO, "bzImage");
    buf_free(&b);
}
END_TEST

START_TEST(kernel_truncated_is_its_own_error)
{
    struct buf b = bzimage("xz");

    b.n = 5 * 512 + 40;
    expect_error(&b, IMAGE_ERR_TRUNCATED, "copy the file again");
    b.n = 0x210;
    expect_error(&b, IMAGE_ERR_TRUNCATED, "copy the file again");
    buf_free(&b);
}
END_TEST

START_TEST(kernel_unknown_compression_is_its_own_error)
{
    struct buf b = build_bzimage("\x89LZO\0\r\n\x1A\n", 9, "x"), c = build_bzimage("what is this?", 13, "x");

    expect_error(&b, IMAGE_ERR_COMPRESSION, "repack");
    expect_error(&c, IMAGE_ERR_COMPRESSION, "repack");
    buf_free(&b);
    buf_free(&c);
}
END_TEST

START_TEST(kernel_damaged_compression_is_its_own_error)
{
    struct buf b = bzimage("xz");

    memset(b.p + 5 * 512 + 16 + 30, 0x55, 20); /* behind the stream header */
    expect_error(&b, IMAGE_ERR_COMPRESSION, "copy the file again");
    buf_free(&b);
}
END_TEST

START_TEST(kernel_64_bit_is_its_own_error)
{
    struct buf elf = vmlinux(), b = bzimage("xz"), c;

    b.p[0x236] = 1; /* XLF_KERNEL_64 */
    expect_error(&b, IMAGE_ERR_64BIT, "i386");
    elf.p[4] = ELFCLASS64;
    expect_error(&elf, IMAGE_ERR_64BIT, "i386");
    c = build_bzimage(elf.p, elf.n, "x");
    expect_error(&c, IMAGE_ERR_64BIT, "i386");
    buf_free(&elf);
    buf_free(&b);
    buf_free(&c);
}
END_TEST

START_TEST(kernel_old_protocol_is_a_format_error)
{
    struct buf b = bzimage("xz");

    b.p[0x206] = 5;
    expect_error(&b, IMAGE_ERR_FORMAT, "2.08");
    buf_free(&b);
}
END_TEST

START_TEST(kernel_damaged_elf_inside_is_its_own_error)
{
    struct buf elf = vmlinux(), b;

    buf_put32(&elf, 52 + 4, 0x70000000);
    b = build_bzimage(elf.p, elf.n, "x");
    expect_error(&b, IMAGE_ERR_ELF, "copy the file again");
    buf_free(&elf);
    buf_free(&b);
}
END_TEST

START_TEST(kernel_relocation_outside_the_kernel_is_refused)
{
    struct buf elf = vmlinux(), b;

    buf_u32(&elf, 0);
    buf_u32(&elf, 0xC8000000);
    b = build_bzimage(elf.p, elf.n, "x");
    expect_error(&b, IMAGE_ERR_FORMAT, "relocation");
    buf_free(&elf);
    buf_free(&b);
}
END_TEST

static bool ignore(void *arg, const struct image_file *file, const struct image_exec *e)
{
    unsigned *sum = arg;

    (void)file;
    for (size_t i = 0; i < e->len; i += 64) {
        *sum += e->bytes[i];
    }
    return true;
}

START_TEST(kernel_2000_mutants_never_crash)
{
    struct buf plain = vmlinux(), b;
    uint64_t state = 99 + (uint64_t)_i;
    unsigned good = 0, sum = 0;

    add_relocs(&plain);
    b = _i == 0 ? build_bzimage(plain.p, plain.n, "x") : _i == 1 ? bzimage("gzip") : vmlinux();
    for (int round = 0; round < 2000; round++) {
        struct buf m = build_mutant(&b, &state);
        struct image_error err = {0};
        struct image_kernel k;
        if (image_kernel_parse(m.p, m.n, "mutant", &k, &err)) {
            good += image_kernel_exec(&k, "mutant", ignore, &sum, &err) || err.code != IMAGE_OK;
            image_kernel_free(&k);
        } else {
            good += err.code != IMAGE_OK;
        }
        buf_free(&m);
    }
    ck_assert_uint_eq(good, 2000);
    buf_free(&plain);
    buf_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image_kernel");
    TCase *t = tcase_create("kernel");
    SRunner *runner;

    tcase_set_timeout(t, 100);
    tcase_add_loop_test(t, kernel_bzimage_gives_elf_segments_version_and_relocations, 0, 7);
    tcase_add_test(t, kernel_exec_entries_come_from_relocations);
    tcase_add_test(t, kernel_bare_elf_is_taken_and_its_data_words_are_entries);
    tcase_add_test(t, kernel_gzipped_elf_is_unpacked);
    tcase_add_test(t, kernel_multiboot_without_elf_uses_header_addresses);
    tcase_add_test(t, kernel_not_a_kernel_is_its_own_error);
    tcase_add_test(t, kernel_truncated_is_its_own_error);
    tcase_add_test(t, kernel_unknown_compression_is_its_own_error);
    tcase_add_test(t, kernel_damaged_compression_is_its_own_error);
    tcase_add_test(t, kernel_64_bit_is_its_own_error);
    tcase_add_test(t, kernel_old_protocol_is_a_format_error);
    tcase_add_test(t, kernel_damaged_elf_inside_is_its_own_error);
    tcase_add_test(t, kernel_relocation_outside_the_kernel_is_refused);
    tcase_add_loop_test(t, kernel_2000_mutants_never_crash, 0, 3);
    suite_add_tcase(suite, t);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
