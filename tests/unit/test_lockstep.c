/* test_lockstep.c: lockstep sees a wrong translation. The translator is wrapped (-Wl,--wrap): its result is
 * changed in one byte of one instruction before the machine gets it. */
#include <check.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/run.h"
#include "tools/lockstep_report.h"
#include "translator/xlat.h"

#define LOAD_AT 0x100000u

extern const uint8_t lockstep_guest[], lockstep_guest_end[], lockstep_register[], lockstep_flags[],
    lockstep_branch[], lockstep_memory[], lockstep_stray[], lockstep_cli[], lockstep_x87[], lockstep_string[],
    lockstep_loops[], lockstep_ret[];

/* Which instruction is translated wrongly: the bytes `find` of its host code become `put`. */
static struct {
    const uint8_t *insn;
    uint8_t find[8], put[8];
    unsigned len;
} wrong;
static unsigned changed;

enum xlat_status __real_xlat_translate(const struct scan_page *page, uint32_t mode, uint32_t options,
                                       struct xlat_verso *out);
enum xlat_status __wrap_xlat_translate(const struct scan_page *page, uint32_t mode, uint32_t options,
                                       struct xlat_verso *out);

enum xlat_status __wrap_xlat_translate(const struct scan_page *page, uint32_t mode, uint32_t options,
                                       struct xlat_verso *out)
{
    enum xlat_status s = __real_xlat_translate(page, mode, options, out);
    if (s != XLAT_OK || !wrong.insn || page->unit || !(options & XLAT_OPT_STEP))
        return s;
    int32_t at = xlat_entry(out->unwind, out->unwind_len, (uint32_t)(wrong.insn - lockstep_guest));
    for (unsigned i = 0; at >= 0 && i < 40; i++)
        if (!memcmp(out->code + at + i, wrong.find, wrong.len)) {
            memcpy(out->code + at + i, wrong.put, wrong.len);
            changed++;
            break;
        }
    return s;
}

static struct run_result result;

/* loops: how often the guest's last part runs, 200,000 times some instructions; 0: as it is, 3 times. */
static void run(const struct run_lockstep *lock, uint32_t loops)
{
    static uint8_t image[4096];
    uint32_t size = (uint32_t)(lockstep_guest_end - lockstep_guest);
    memcpy(image, lockstep_guest, size);
    if (loops)
        memcpy(image + (lockstep_loops - lockstep_guest) + 1, &loops, 4);
    struct run_segment segment = {LOAD_AT, size, size, image};
    struct run_config cfg = {.ram_bytes = 16 << 20,
                             .segment = &segment,
                             .segment_count = 1,
                             .entry = LOAD_AT,
                             .serial_in = -1,
                             .serial_out = -1,
                             .escape = -1,
                             .lockstep = true,
                             .lock = *lock};
    changed = 0;
    run_machine(&cfg, &result);
}

static const struct run_difference *run_wrong(const uint8_t *insn, const char *find, const char *put,
                                              unsigned len, uint64_t check)
{
    struct run_lockstep all = {.check = check};
    wrong.insn = insn;
    wrong.len = len;
    memcpy(wrong.find, find, len);
    memcpy(wrong.put, put, len);
    run(&all, 0);
    wrong.insn = NULL;
    ck_assert_msg(changed > 0, "the translation was not changed");
    ck_assert_int_eq(result.end, RUN_LOCKSTEP_DIFF);
    ck_assert_ptr_nonnull(result.difference);
    return result.difference;
}

static uint32_t address(const uint8_t *insn)
{
    return LOAD_AT + (uint32_t)(insn - lockstep_guest);
}

static void expect(const struct run_difference *d, const char *what, const uint8_t *insn)
{
    ck_assert_str_eq(d->what, what);
    ck_assert_uint_eq(d->before.eip, address(insn));
    ck_assert_int_eq(d->has_code, true);
    ck_assert_int_gt(d->insn.len, 0);
    ck_assert_mem_eq(d->bytes, insn, d->insn.len);
}

/* The report as the command prints it; to be freed. */
static char *report(const struct run_difference *d)
{
    static char *text; /* static for GCC 12, which takes what open_memstream() will point it at for something
                          on this stack */
    static size_t size;
    FILE *f = open_memstream(&text, &size);
    lockstep_difference(f, d);
    fclose(f);
    return text;
}

static void done(void)
{
    run_difference_free(result.difference);
    result.difference = NULL;
}

START_TEST(guest_without_a_change_is_equal_to_its_end)
{
    struct run_lockstep all = {0};
    run(&all, 0);
    ck_assert_int_eq(result.end, RUN_EXIT_PORT);
    ck_assert_int_eq(result.exit_status, 1);
    ck_assert_ptr_null(result.difference);
    ck_assert_uint_gt(result.counter[RUN_COUNTER_LOCKSTEP_INSNS], 3000000);
    ck_assert_uint_gt(result.counter[RUN_COUNTER_LOCKSTEP_PAGES], 0);
    ck_assert_uint_ge(result.lock_compared[SCAN_CLASS_STRING], 3);
    ck_assert_uint_ge(result.lock_compared[SCAN_CLASS_CLI], 1);
    /* OUT is the emulator's and is counted as such. */
    ck_assert_uint_eq(result.lock_alone[RUN_ALONE_EXIT][SCAN_CLASS_OUT], 1);
}
END_TEST

START_TEST(stretches_spread_over_the_run_and_leave_its_result)
{
    struct run_lockstep some = {.every_ms = 1, .count = 1000};
    run(&some, 100);
    ck_assert_int_eq(result.end, RUN_EXIT_PORT);
    ck_assert_int_eq(result.exit_status, 1);
    ck_assert_uint_ge(result.counter[RUN_COUNTER_LOCKSTEP_STRETCHES], 2);
    ck_assert_uint_le(result.counter[RUN_COUNTER_LOCKSTEP_INSNS],
                      result.counter[RUN_COUNTER_LOCKSTEP_STRETCHES] * 1000);
}
END_TEST

START_TEST(skip_and_count_bound_what_is_compared)
{
    struct run_lockstep some = {.skip = 100, .count = 5000};
    run(&some, 0);
    ck_assert_int_eq(result.end, RUN_QUIT);
    ck_assert_uint_eq(result.counter[RUN_COUNTER_LOCKSTEP_INSNS], 5000);
    ck_assert_uint_eq(result.counter[RUN_COUNTER_LOCKSTEP_STRETCHES], 1);
}
END_TEST

START_TEST(wrong_immediate_is_a_register_difference)
{
    const struct run_difference *d =
        run_wrong(lockstep_register, "\x78\x56\x34\x12", "\x79\x56\x34\x12", 4, 0);
    expect(d, "a register", lockstep_register);
    ck_assert_uint_eq(d->translated.gpr[CPU_EBX], 0x12345679);
    ck_assert_uint_eq(d->emulated.gpr[CPU_EBX], 0x12345678);
    char *text = report(d);
    ck_assert_ptr_nonnull(strstr(text, "* ebx "));
    ck_assert_ptr_nonnull(strstr(text, "  eax "));
    ck_assert_ptr_null(strstr(text, "* eax "));
    ck_assert_ptr_nonnull(strstr(text, "host code"));
    /* The instruction is marked in the listing, and the host code beside it is what ran. */
    ck_assert_ptr_nonnull(strstr(text, " >"));
    ck_assert_ptr_nonnull(strstr(strstr(text, " >"), "mov ebx, 0x12345678"));
    ck_assert_ptr_nonnull(strstr(strstr(text, " >"), "79563412"));
    free(text);
    done();
}
END_TEST

START_TEST(wrong_compare_is_a_difference_of_flags)
{
    const struct run_difference *d = run_wrong(lockstep_flags, "\x78\x56\x34\x12", "\x79\x56\x34\x12", 4, 0);
    expect(d, "EFLAGS", lockstep_flags);
    done();
}
END_TEST

START_TEST(wrong_target_is_a_difference_of_eip)
{
    uint32_t target = (uint32_t)(lockstep_memory - lockstep_guest);
    char find[4], put[4];
    memcpy(find, &target, 4);
    target++;
    memcpy(put, &target, 4);
    expect(run_wrong(lockstep_branch, find, put, 4, 0), "EIP", lockstep_branch);
    done();
}
END_TEST

START_TEST(wrong_store_is_a_difference_of_memory)
{
    const struct run_difference *d = run_wrong(lockstep_memory, "\x78\x56\x34\x12", "\x78\x57\x34\x12", 4, 0);
    expect(d, "memory", lockstep_memory);
    ck_assert_uint_eq(d->memory_count, 1);
    ck_assert_uint_eq(d->memory[0].gpa, 0x1F0009);
    ck_assert_int_eq(d->memory[0].lin_known, true);
    ck_assert_uint_eq(d->memory[0].lin, 0x1F0009);
    ck_assert_uint_eq(d->memory[0].before, 0);
    ck_assert_uint_eq(d->memory[0].translated, 0x57);
    ck_assert_uint_eq(d->memory[0].emulated, 0x56);
    char *text = report(d);
    ck_assert_ptr_nonnull(strstr(text, "translated 57, emulated 56"));
    free(text);
    done();
}
END_TEST

/* C7 /0 [r15 + rbp + disp8]: what should have been written is there already, so only memory elsewhere tells.
 */
START_TEST(store_elsewhere_is_found_at_once_if_asked_for)
{
    const struct run_difference *d = run_wrong(lockstep_stray, "\x2F\x10", "\x2F\x14", 2, 1);
    expect(d, "memory that the instruction does not write", lockstep_stray);
    ck_assert_uint_eq(d->memory_count, 4);
    ck_assert_uint_eq(d->memory[0].gpa, 0x1F0014);
    ck_assert_uint_eq(d->since_check, 1);
    done();
}
END_TEST

START_TEST(store_elsewhere_is_found_at_the_end_at_the_latest)
{
    const struct run_difference *d = run_wrong(lockstep_stray, "\x2F\x10", "\x2F\x14", 2, 0);
    ck_assert_uint_gt(d->since_check, 1);
    ck_assert_uint_eq(d->memory[0].gpa, 0x1F0014);
    done();
}
END_TEST

/* C7 /0 [r13 + disp8], imm32 */
START_TEST(wrong_virtual_if_is_a_difference)
{
    const char find[5] = {offsetof(struct cpu, vif), 0, 0, 0, 0}, put[5] = {offsetof(struct cpu, vif), 0, CPU_IF >> 8, 0, 0};
    expect(run_wrong(lockstep_cli, find, put, 5, 0), "IF", lockstep_cli);
    done();
}
END_TEST

START_TEST(wrong_constant_is_a_difference_of_x87_state)
{
    const struct run_difference *d = run_wrong(lockstep_x87, "\xD9\xE8", "\xD9\xEB", 2, 0); /* FLDPI */
    expect(d, "the x87/SSE state", lockstep_x87);
    char *text = report(d);
    ck_assert_ptr_nonnull(strstr(text, "* st(0) upper"));
    free(text);
    done();
}
END_TEST

START_TEST(wrong_string_instruction_is_a_difference)
{
    const struct run_difference *d = run_wrong(lockstep_string, "\xF3\xAB", "\xF3\xAA", 2, 0);
    expect(d, "a register", lockstep_string);
    done();
}
END_TEST

/* LEA r14d, [r14 + 4] */
START_TEST(wrong_stack_pointer_after_ret_is_a_difference)
{
    expect(run_wrong(lockstep_ret, "\x76\x04", "\x76\x08", 2, 0), "a register", lockstep_ret);
    done();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lockstep");
    TCase *t = tcase_create("lockstep");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, guest_without_a_change_is_equal_to_its_end);
    tcase_add_test(t, stretches_spread_over_the_run_and_leave_its_result);
    tcase_add_test(t, skip_and_count_bound_what_is_compared);
    tcase_add_test(t, wrong_immediate_is_a_register_difference);
    tcase_add_test(t, wrong_compare_is_a_difference_of_flags);
    tcase_add_test(t, wrong_target_is_a_difference_of_eip);
    tcase_add_test(t, wrong_store_is_a_difference_of_memory);
    tcase_add_test(t, store_elsewhere_is_found_at_once_if_asked_for);
    tcase_add_test(t, store_elsewhere_is_found_at_the_end_at_the_latest);
    tcase_add_test(t, wrong_virtual_if_is_a_difference);
    tcase_add_test(t, wrong_constant_is_a_difference_of_x87_state);
    tcase_add_test(t, wrong_string_instruction_is_a_difference);
    tcase_add_test(t, wrong_stack_pointer_after_ret_is_a_difference);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
