/* Executable pages of ELF files: what lies in them, and the entries. */
#include "scanner/image/elf.h"
#include "tests/unit/image_build.h"

#include <check.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { BASE = 0x08048000, CODE = BASE + 16 };

struct run {
    struct image_file file;
    struct image_exec exec; /* bytes and entries copied */
};
struct runs {
    struct run v[4];
    unsigned count;
};

static bool keep(void *arg, const struct image_file *file, const struct image_exec *exec)
{
    struct runs *r = arg;

    if (r->count < 4) {
        struct run *to = &r->v[r->count++];
        uint8_t *bytes = malloc(exec->len);
        uint32_t *entries = malloc(exec->entry_count * 4 + 4);
        memcpy(bytes, exec->bytes, exec->len);
        if (exec->entry_count != 0) {
            memcpy(entries, exec->entries, exec->entry_count * 4);
        }
        to->file = *file;
        to->exec = *exec;
        to->exec.bytes = bytes;
        to->exec.entries = entries;
    }
    return true;
}

static void runs_free(struct runs *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        free((void *)(uintptr_t)r->v[i].exec.bytes);
        free((void *)(uintptr_t)r->v[i].exec.entries);
    }
}

static bool has(const struct image_exec *e, uint32_t addr)
{
    for (size_t i = 0; i < e->entry_count; i++) {
        if (e->entries[i] == addr) {
            return true;
        }
    }
    return false;
}

/* 3 pages of NOPs, a call at 0 to 2000h, an instruction across the first page end, a symbol and a data word.
 */
static struct buf sample(bool sections, uint16_t type)
{
    static uint8_t code[0x3000 - 16];
    static const uint32_t data[] = {CODE + 0x2100, 0x12345678, CODE + 0x2000 + 1}, symbols[] = {CODE + 0x123};

    memset(code, 0x90, sizeof(code));
    code[0] = 0xE8;
    memcpy(code + 1, &(int32_t){0x2000 - 5}, 4);
    code[0x1000 - 16 - 2] = 0xB8; /* mov eax, imm32 in the last two bytes of the page */
    memcpy(code + 0x1000 - 16 - 1, "\x90\x90\x90\x90", 4);
    code[0x2000] = 0xB8; /* so that 2001h is inside an instruction */
    return build_elf(
        &(struct build_elf){type, BASE, BASE, CODE, code, sizeof(code), data, 3, symbols, 1, sections});
}

START_TEST(elf_program_pages_hold_the_file_around_the_code)
{
    struct buf b = sample(true, ET_EXEC);
    struct runs r = {0};
    struct image_error err = {0};

    ck_assert_msg(image_elf_exec(b.p, b.n, "bin/sample", keep, &r, &err), "%s", err.text);
    ck_assert_uint_eq(r.count, 1);
    ck_assert_uint_eq(r.v[0].exec.vaddr, BASE);
    ck_assert_uint_eq(r.v[0].exec.len, 0x3000);
    ck_assert_uint_eq(r.v[0].exec.code_start, CODE);
    ck_assert_uint_eq(r.v[0].exec.code_end, BASE + 0x3000);
    ck_assert_mem_eq(r.v[0].exec.bytes, b.p + 0x1000, 0x3000);
    ck_assert_str_eq(r.v[0].file.kind, "program");
    ck_assert_str_eq(r.v[0].file.name, "bin/sample");
    ck_assert(r.v[0].file.user);
    ck_assert_uint_eq(r.v[0].file.file_bytes, b.n);
    ck_assert_uint_eq(r.v[0].file.exec_bytes, 0x3000 - 16);
    ck_assert(r.v[0].file.digest_lo != 0 && r.v[0].file.digest_hi != 0);
    runs_free(&r);
    buf_free(&b);
}
END_TEST

START_TEST(elf_program_entries_come_from_every_source)
{
    struct buf b = sample(true, ET_EXEC);
    struct runs r = {0};
    struct image_error err = {0};

    ck_assert(image_elf_exec(b.p, b.n, "sample", keep, &r, &err));
    const struct image_exec *e = &r.v[0].exec;
    ck_assert_msg(has(e, CODE), "ELF entry");
    ck_assert_msg(has(e, CODE + 0x123), "function symbol");
    ck_assert_msg(has(e, CODE + 0x2000), "call target");
    ck_assert_msg(has(e, BASE + 0x1003), "first boundary behind an instruction across the page end");
    ck_assert_msg(has(e, BASE + 0x2000), "first boundary of the last page");
    ck_assert_msg(has(e, CODE + 0x2100), "data word");
    ck_assert_msg(!has(e, CODE + 0x2001), "data word into an instruction");
    ck_assert_msg(!has(e, BASE + 0x1000), "inside an instruction");
    for (size_t i = 1; i < e->entry_count; i++) {
        ck_assert_uint_lt(e->entries[i - 1], e->entries[i]);
    }
    runs_free(&r);
    buf_free(&b);
}
END_TEST

START_TEST(elf_program_without_sections_uses_segments)
{
    struct buf b = sample(false, ET_EXEC);
    struct runs r = {0};
    struct image_error err = {0};

    ck_assert(image_elf_exec(b.p, b.n, "sample", keep, &r, &err));
    ck_assert_uint_eq(r.count, 1);
    ck_assert_uint_eq(r.v[0].exec.len, 0x3000);
    ck_assert(has(&r.v[0].exec, CODE));
    ck_assert(has(&r.v[0].exec, BASE + 0x1003));
    ck_assert(!has(&r.v[0].exec, BASE));
    runs_free(&r);
    buf_free(&b);
}
END_TEST

START_TEST(elf_module_is_laid_out_as_the_kernel_does)
{
    struct buf b = build_module();
    struct runs r = {0};
    struct image_error err = {0};

    ck_assert_msg(image_elf_exec(b.p, b.n, "a.ko", keep, &r, &err), "%s", err.text);
    ck_assert_uint_eq(r.count, 2);
    const struct image_exec *core = &r.v[0].exec, *init = &r.v[1].exec;
    ck_assert_str_eq(r.v[0].file.kind, "module");
    ck_assert(!r.v[0].file.user);
    ck_assert_uint_eq(core->vaddr, 0);
    ck_assert_uint_eq(core->len, 4096);
    ck_assert_uint_eq(core->bytes[100], 0xE8);
    ck_assert_mem_eq(core->bytes + 112, "\x31\xC0\xC3", 3); /* .exit.text behind .text, aligned to 16 */
    ck_assert_uint_eq(core->code_end, 115);
    ck_assert_uint_eq(init->vaddr, 0);
    ck_assert_mem_eq(init->bytes, "\x90\x90\xC3", 3);
    runs_free(&r);
    buf_free(&b);
}
END_TEST

START_TEST(elf_module_entries_follow_relocations_not_unrelocated_fields)
{
    struct buf b = build_module();
    struct runs r = {0};
    struct image_error err = {0};

    ck_assert(image_elf_exec(b.p, b.n, "a.ko", keep, &r, &err));
    const struct image_exec *core = &r.v[0].exec;
    ck_assert_msg(has(core, 0), "section start");
    ck_assert_msg(has(core, 20), "function symbol");
    ck_assert_msg(has(core, 50), "relocated data word");
    ck_assert_msg(has(core, 112), "start of .exit.text");
    ck_assert_msg(!has(core, 101), "target of a call that is still to be relocated");
    ck_assert_msg(has(&r.v[1].exec, 0), "init function");
    ck_assert_uint_eq(r.v[1].exec.entry_count, 1);
    runs_free(&r);
    buf_free(&b);
}
END_TEST

START_TEST(unwind_records_give_function_starts)
{
    static uint8_t nops[256];
    struct buf b = {NULL, 0};
    struct code_map m = {0};

    memset(nops, 0x90, sizeof(nops));
    ck_assert(code_map_add(&m, 0x1000, sizeof(nops), nops, true));
    buf_u32(&b, 16); /* CIE: "zR", pc-relative signed words */
    buf_u32(&b, 0);
    buf_add(&b, "\1zR\0\1\x7C\x08\1\x1B\0\0\0", 12);
    buf_u32(&b, 16); /* FDE */
    buf_u32(&b, (uint32_t)b.n);
    buf_u32(&b, 0x1040 - (0x5000 + (uint32_t)b.n));
    buf_u32(&b, 32);
    buf_u32(&b, 0);
    buf_u32(&b, 0);
    elf_unwind_starts((struct span){b.p, b.n}, 0x5000, &m);
    ck_assert(code_map_sweep(&m));
    ck_assert_uint_eq(m.entries.count, 2);
    ck_assert_uint_eq(m.entries.v[1], 0x1040);
    code_map_free(&m);
    buf_free(&b);
}
END_TEST

START_TEST(sweep_entry_inside_an_instruction_resynchronises)
{
    static const uint8_t code[] = {0x90, 0xB8, 0x90, 0x90,
                                   0x90, 0x90, 0xC3}; /* data byte B8 in front of code */
    struct code_map m = {0};

    ck_assert(code_map_add(&m, 0x2000, sizeof(code), code, true));
    code_map_entry(&m, 0x2002);
    ck_assert(code_map_sweep(&m));
    ck_assert(code_map_weak(&m, 0x2003));
    ck_assert(!code_map_weak(&m, 0x2001));
    code_map_free(&m);
}
END_TEST

START_TEST(elf_64_bit_is_its_own_error)
{
    struct buf b = sample(true, ET_EXEC);
    struct runs r = {0};
    struct image_error err = {0};

    b.p[4] = ELFCLASS64;
    ck_assert(!image_elf_exec(b.p, b.n, "bin/big", keep, &r, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_64BIT);
    ck_assert_ptr_nonnull(strstr(err.text, "bin/big"));
    ck_assert_ptr_nonnull(strstr(err.text, "i386"));
    buf_free(&b);
}
END_TEST

START_TEST(elf_damaged_is_its_own_error_and_names_the_file)
{
    struct buf b = sample(true, ET_EXEC);
    struct runs r = {0};
    struct image_error err = {0};

    buf_put32(&b, 52 + 4, 0x7FFFFFFF); /* offset of the first segment */
    ck_assert(!image_elf_exec(b.p, b.n, "bin/bad", keep, &r, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_ELF);
    ck_assert_ptr_nonnull(strstr(err.text, "bin/bad"));
    ck_assert_ptr_nonnull(strstr(err.text, "copy the file again"));
    ck_assert(!image_elf_exec(b.p, 40, "cut", keep, &r, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_ELF);
    ck_assert(!image_elf_exec((const uint8_t *)"text", 4, "text", keep, &r, &err));
    ck_assert_int_eq(err.code, IMAGE_ERR_ELF);
    ck_assert_uint_eq(r.count, 0);
    buf_free(&b);
}
END_TEST

START_TEST(elf_2000_mutants_never_crash)
{
    struct buf b = _i == 0 ? sample(true, ET_EXEC) : _i == 1 ? sample(true, ET_DYN) : build_module();
    uint64_t state = 7 + (uint64_t)_i;
    unsigned good = 0;

    for (int round = 0; round < 2000; round++) {
        struct buf m = build_mutant(&b, &state);
        struct runs r = {0};
        struct image_error err = {0};
        good += image_elf_exec(m.p, m.n, "mutant", keep, &r, &err) || err.code != IMAGE_OK;
        runs_free(&r);
        buf_free(&m);
    }
    ck_assert_uint_eq(good, 2000);
    buf_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image_elf");
    TCase *t = tcase_create("elf");
    SRunner *runner;

    tcase_set_timeout(t, 100);
    tcase_add_test(t, elf_program_pages_hold_the_file_around_the_code);
    tcase_add_test(t, elf_program_entries_come_from_every_source);
    tcase_add_test(t, elf_program_without_sections_uses_segments);
    tcase_add_test(t, elf_module_is_laid_out_as_the_kernel_does);
    tcase_add_test(t, elf_module_entries_follow_relocations_not_unrelocated_fields);
    tcase_add_test(t, unwind_records_give_function_starts);
    tcase_add_test(t, sweep_entry_inside_an_instruction_resynchronises);
    tcase_add_test(t, elf_64_bit_is_its_own_error);
    tcase_add_test(t, elf_damaged_is_its_own_error_and_names_the_file);
    tcase_add_loop_test(t, elf_2000_mutants_never_crash, 0, 3);
    suite_add_tcase(suite, t);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
