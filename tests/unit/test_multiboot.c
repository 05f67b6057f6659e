/* Multiboot: what the header may ask, what is read from the file, and what the kernel finds in memory. */
#include "monitor/boot.h"
#include "scanner/image/image.h"
#include "tests/unit/image_build.h"

#include <check.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { VADDR = 0xC0100000, PADDR = 0x100000, MIB = 1 << 20, RAM = 4 * MIB };
#define MAGIC 0x1BADB002u

/* -- The file
 * ------------------------------------------------------------------------------------------------ */

/* An ELF kernel linked high and loaded at 1 MiB, with a header of these flags in its code. */
static struct buf elf_kernel(uint32_t flags, uint32_t sum_error)
{
    static uint8_t code[256];
    static const uint32_t data[] = {1, 2}, symbols[] = {VADDR + 16, VADDR + 32};
    uint32_t header[8] = {MAGIC, flags, 0u - MAGIC - flags + sum_error, 0, 0, 0, 0, 0};

    memset(code, 0x90, sizeof(code));
    memcpy(code + 32, header, sizeof(header));
    return build_elf(
        &(struct build_elf){ET_EXEC, VADDR, PADDR, VADDR + 16, code, sizeof(code), data, 2, symbols, 2, true});
}

static void expect_refusal(uint32_t flags, uint32_t sum_error, const char *text)
{
    struct buf b = elf_kernel(flags, sum_error);
    struct image_kernel k;
    struct image_error err = {0};

    ck_assert(!image_kernel_parse(b.p, b.n, "boot/os.elf", &k, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_FORMAT);
    ck_assert_msg(strstr(err.text, "boot/os.elf") && strstr(err.text, text), "%s", err.text);
    ck_assert_ptr_null(k.elf.data);
    ck_assert_ptr_null(k.sections.data);
    buf_free(&b);
}

START_TEST(header_with_known_and_optional_flags_is_accepted)
{
    static const uint32_t good[] = {0, 1, 2, 3, 0x20003, 0xFFFE0003};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct buf b = elf_kernel(good[i], 0);
        struct image_kernel k;
        struct image_error err = {0};
        ck_assert_msg(image_kernel_parse(b.p, b.n, "os", &k, &err), "%s", err.text);
        ck_assert(k.is_multiboot);
        ck_assert_uint_eq(k.multiboot_flags, good[i]);
        ck_assert_uint_eq(k.entry, PADDR + 16); /* e_entry was virtual */
        image_kernel_free(&k);
        buf_free(&b);
    }
}
END_TEST

START_TEST(header_requirements_not_met_are_refused)
{
    expect_refusal(4, 0, "video mode");
    expect_refusal(4 | 3, 0, "video mode");
    expect_refusal(8, 0, "00000008");
    expect_refusal(0x8000, 0, "00008000");
    expect_refusal(0xC, 0, "0000000c");
    expect_refusal(0x10004, 0, "video mode");
}
END_TEST

START_TEST(header_with_wrong_checksum_is_refused)
{
    expect_refusal(3, 1, "checksum");
}
END_TEST

START_TEST(header_behind_8192_bytes_does_not_count)
{
    struct buf b = elf_kernel(4, 0);
    struct image_kernel k;
    struct image_error err = {0};
    uint32_t magic = MAGIC;
    size_t at = (size_t)((uint8_t *)memmem(b.p, b.n, &magic, 4) - b.p);

    buf_put32(&b, at, 0);
    while (b.n < 8192 - 8) {
        buf_zero(&b, 4);
    }
    /* The last word of the header lies behind the limit. */
    buf_u32(&b, MAGIC);
    buf_u32(&b, 4);
    buf_u32(&b, 0u - MAGIC - 4);
    ck_assert_msg(image_kernel_parse(b.p, b.n, "os", &k, &err), "%s", err.text);
    ck_assert(!k.is_multiboot);
    image_kernel_free(&k);
    buf_free(&b);
}
END_TEST

START_TEST(header_addresses_replace_those_of_the_elf_file)
{
    struct buf b = elf_kernel(0x10000, 0);
    struct image_kernel k;
    struct image_error err = {0};
    uint32_t magic = MAGIC;
    size_t at = (size_t)((uint8_t *)memmem(b.p, b.n, &magic, 4) - b.p);

    buf_put32(&b, at + 12, 0x200020);        /* header */
    buf_put32(&b, at + 16, 0x200000);        /* load */
    buf_put32(&b, at + 20, 0x200000 + 0x80); /* load end */
    buf_put32(&b, at + 24, 0x203000);        /* bss end */
    buf_put32(&b, at + 28, 0x200004);        /* entry */
    ck_assert_msg(image_kernel_parse(b.p, b.n, "os", &k, &err), "%s", err.text);
    ck_assert_uint_eq(k.entry, 0x200004);
    ck_assert_uint_eq(k.seg_count, 1);
    ck_assert_uint_eq(k.seg[0].paddr, 0x200000);
    ck_assert_uint_eq(k.seg[0].filesz, 0x80);
    ck_assert_uint_eq(k.seg[0].memsz, 0x3000);
    ck_assert_uint_eq(k.seg[0].off, at - 32);
    ck_assert_uint_eq(k.section_count, 0);
    image_kernel_free(&k);
    buf_free(&b);
}
END_TEST

START_TEST(sections_that_no_segment_loads_are_carried_along)
{
    struct buf b = elf_kernel(3, 0);
    struct image_kernel k;
    struct image_error err = {0};
    unsigned carried = 0;

    ck_assert_msg(image_kernel_parse(b.p, b.n, "os", &k, &err), "%s", err.text);
    ck_assert_uint_gt(k.section_count, 3);
    ck_assert_uint_lt(k.section_names, k.section_count);
    for (uint32_t i = 0; i < k.section_count; i++) {
        Elf32_Shdr h;
        memcpy(&h, k.sections.data + i * sizeof(h), sizeof(h));
        if (h.sh_type == SHT_NULL || (h.sh_flags & SHF_ALLOC)) {
            continue;
        }
        ck_assert_uint_ge(h.sh_addr, k.section_count * sizeof(h));
        ck_assert_uint_le(h.sh_addr + h.sh_size, k.sections.len);
        ck_assert_mem_eq(k.sections.data + h.sh_addr, b.p + h.sh_offset, h.sh_size);
        carried++;
    }
    ck_assert_uint_ge(carried, 2); /* symbols, names */
    image_kernel_free(&k);
    buf_free(&b);
}
END_TEST

START_TEST(damaged_multiboot_kernels_never_crash)
{
    uint64_t seed = 20;
    struct buf whole = elf_kernel(3, 0);

    for (unsigned i = 0; i < 3000; i++) {
        struct buf b = build_mutant(&whole, &seed);
        struct image_kernel k;
        struct image_error err = {0};
        if (image_kernel_parse(b.p, b.n, "os", &k, &err)) {
            image_kernel_free(&k);
        } else {
            ck_assert(err.text[0] != '\0');
        }
        buf_free(&b);
    }
    buf_free(&whole);
}
END_TEST

/* -- Memory
 * -------------------------------------------------------------------------------------------------- */

static uint8_t *ram;
static char text[400];
static const uint8_t body[64] = {0xAA, 0xBB, 0xCC};

static void setup(void)
{
    ram = malloc(RAM);
    memset(ram, 0x55, RAM);
    text[0] = 0;
}
static void teardown(void)
{
    free(ram);
}

static uint32_t at32(uint32_t at)
{
    uint32_t v;
    ck_assert_uint_le(at, RAM - 4);
    memcpy(&v, ram + at, 4);
    return v;
}
static uint64_t at64(uint32_t at)
{
    return at32(at) | (uint64_t)at32(at + 4) << 32;
}

static uint32_t placed(const struct run_config *cfg)
{
    uint32_t info = 0;
    ck_assert_msg(multiboot_place(cfg, ram, RAM, &info, text, sizeof(text)), "%s", text);
    return info;
}

START_TEST(block_tells_memory_command_line_and_loader)
{
    struct run_segment s = {MIB, 0x2000, sizeof(body), body};
    struct run_config cfg = {.segment = &s, .segment_count = 1, .cmdline = "os.elf one two"};
    uint32_t info = placed(&cfg);

    ck_assert_uint_ge(info, 0x9000);
    ck_assert_uint_eq(at32(info), 1 | 4 | 8 | 0x40 | 0x200);
    ck_assert_uint_eq(at32(info + 4), 639);
    ck_assert_uint_eq(at32(info + 8), (RAM - MIB) / 1024);
    ck_assert_str_eq((const char *)ram + at32(info + 16), "os.elf one two");
    ck_assert_uint_eq(at32(info + 20), 0);
    ck_assert_str_eq((const char *)ram + at32(info + 64), "Verso");
    ck_assert_mem_eq(ram + MIB, body, sizeof(body));
    ck_assert_uint_eq(ram[MIB + sizeof(body)], 0); /* bss */
    ck_assert_uint_eq(ram[MIB + 0x1FFF], 0);
    ck_assert_uint_eq(ram[MIB + 0x2000], 0x55);
    ck_assert_uint_eq(ram[0x2000], 0x55); /* low memory is left alone */
}
END_TEST

START_TEST(memory_map_covers_ram_and_leaves_out_the_rest)
{
    struct run_segment s = {MIB, 0x2000, sizeof(body), body};
    struct run_config cfg = {.segment = &s, .segment_count = 1};
    uint32_t info = placed(&cfg), map = at32(info + 48), end = map + at32(info + 44);
    uint64_t usable = 0, last = 0;

    while (map < end) {
        ck_assert_uint_eq(at32(map), 20);
        ck_assert_uint_ge(at64(map + 4), last);
        last = at64(map + 4) + at64(map + 12);
        if (at32(map + 20) == 1) {
            usable += at64(map + 12);
            ck_assert(last <= 0x9FC00 || at64(map + 4) >= MIB);
        }
        map += at32(map) + 4;
    }
    ck_assert_uint_eq(map, end);
    ck_assert_uint_eq(last, RAM);
    ck_assert_uint_eq(usable, RAM - MIB + 0x9FC00);
}
END_TEST

START_TEST(modules_lie_behind_the_kernel_at_page_boundaries)
{
    static uint8_t one[5000], two[3] = {1, 2, 3};
    memset(one, 0x11, sizeof(one));
    struct run_segment s[2] = {{0x200000, 0x1234, sizeof(body), body}, {MIB, 0x100, sizeof(body), body}};
    struct run_module m[3] = {{one, sizeof(one), "dir/one arg"}, {two, 0, "empty"}, {two, 3, "two"}};
    struct run_config cfg = {.segment = s, .segment_count = 2, .module = m, .module_count = 3};
    uint32_t info = placed(&cfg), list = at32(info + 24);

    ck_assert_uint_eq(at32(info + 20), 3);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t from = at32(list + 16 * i), to = at32(list + 16 * i + 4);
        ck_assert_uint_eq(from % 4096, 0);
        ck_assert_uint_ge(from, 0x201234);
        ck_assert_uint_eq(to - from, m[i].len);
        ck_assert_mem_eq(ram + from, m[i].bytes, m[i].len);
        ck_assert_str_eq((const char *)ram + at32(list + 16 * i + 8), m[i].name);
        ck_assert_uint_eq(at32(list + 16 * i + 12), 0);
    }
    ck_assert_uint_ge(at32(list + 32), at32(list + 4));
}
END_TEST

START_TEST(block_gives_way_to_a_kernel_in_low_memory)
{
    struct run_segment s = {0x8000, 0x2000, sizeof(body), body};
    struct run_config cfg = {.segment = &s, .segment_count = 1, .cmdline = "x"};
    uint32_t info = placed(&cfg);

    ck_assert(info >= 0xA000);
    s.memsz = 0x9FC00 - 0x8000; /* all of it */
    ck_assert_uint_ge(placed(&cfg), MIB);
}
END_TEST

START_TEST(section_headers_give_addresses_in_memory)
{
    struct {
        Elf32_Shdr h[3];
        char names[8];
    } blob = {.names = "names"};
    blob.h[1] = (Elf32_Shdr){.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC, .sh_addr = VADDR, .sh_size = 64};
    blob.h[2] = (Elf32_Shdr){.sh_type = SHT_STRTAB, .sh_addr = sizeof(blob.h), .sh_size = 6};
    struct run_segment s = {MIB, 0x2000, sizeof(body), body};
    struct run_config cfg = {.segment = &s,
                             .segment_count = 1,
                             .sections = (const uint8_t *)&blob,
                             .sections_len = sizeof(blob),
                             .section_count = 3,
                             .section_names = 2};
    uint32_t info = placed(&cfg), headers = at32(info + 36);
    Elf32_Shdr h[3];

    ck_assert_uint_eq(at32(info) & 0x30, 0x20);
    ck_assert_uint_eq(at32(info + 28), 3);
    ck_assert_uint_eq(at32(info + 32), 40);
    ck_assert_uint_eq(at32(info + 40), 2);
    memcpy(h, ram + headers, sizeof(h));
    ck_assert_uint_eq(h[0].sh_addr, 0);
    ck_assert_uint_eq(h[1].sh_addr, VADDR);
    ck_assert_str_eq((const char *)ram + h[2].sh_addr, "names");
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    static uint8_t big[RAM];
    struct run_segment s = {MIB, 0x2000, sizeof(body), body};
    struct run_module m = {big, RAM - MIB, "big"};
    struct run_config cfg = {.segment = &s, .segment_count = 1, .module = &m, .module_count = 1};
    uint32_t info;

    ck_assert(!multiboot_place(&cfg, ram, RAM, &info, text, sizeof(text)));
    ck_assert_ptr_nonnull(strstr(text, "big"));
    cfg.module_count = 0;
    s.memsz = RAM;
    ck_assert(!multiboot_place(&cfg, ram, RAM, &info, text, sizeof(text)));
    ck_assert_ptr_nonnull(strstr(text, "-m"));
    s = (struct run_segment){0xB8000, 64, 64, body};
    ck_assert(!multiboot_place(&cfg, ram, RAM, &info, text, sizeof(text)));
    ck_assert_ptr_nonnull(strstr(text, "video memory"));
    s = (struct run_segment){0x9F000, 0x1000, 64, body};
    ck_assert(!multiboot_place(&cfg, ram, RAM, &info, text, sizeof(text)));
    s = (struct run_segment){0xFFFFF000, 0x2000, 64, body};
    ck_assert(!multiboot_place(&cfg, ram, RAM, &info, text, sizeof(text)));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("multiboot");
    TCase *t = tcase_create("file");
    tcase_add_test(t, header_with_known_and_optional_flags_is_accepted);
    tcase_add_test(t, header_requirements_not_met_are_refused);
    tcase_add_test(t, header_with_wrong_checksum_is_refused);
    tcase_add_test(t, header_behind_8192_bytes_does_not_count);
    tcase_add_test(t, header_addresses_replace_those_of_the_elf_file);
    tcase_add_test(t, sections_that_no_segment_loads_are_carried_along);
    tcase_add_test(t, damaged_multiboot_kernels_never_crash);
    suite_add_tcase(s, t);
    t = tcase_create("memory");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, block_tells_memory_command_line_and_loader);
    tcase_add_test(t, memory_map_covers_ram_and_leaves_out_the_rest);
    tcase_add_test(t, modules_lie_behind_the_kernel_at_page_boundaries);
    tcase_add_test(t, block_gives_way_to_a_kernel_in_low_memory);
    tcase_add_test(t, section_headers_give_addresses_in_memory);
    tcase_add_test(t, what_does_not_fit_is_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
