/* Random instructions: translated code against the emulator; then interrupted at every host instruction, and
 * with its data pages taken away. What is found here once becomes a named case in test_xlat_run.c. */
#include "xlat_box.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned env_count(const char *name, unsigned fallback)
{
    const char *s = getenv(name);

    return s ? (unsigned)strtoul(s, NULL, 0) : fallback;
}

/* --- generator
 * ----------------------------------------------------------------------------------------------------- */

static uint32_t pick_disp(void)
{
    switch (box_random() % 6) {
    case 0:
        return box_random() & 0xFF;
    case 1:
        return BOX_DATA + (box_random() & 0xFFFF);
    case 2:
        return 0xC0000000u + BOX_DATA + (box_random() & 0xFFFF);
    case 3:
        return 0xFFFFFF00u | (box_random() & 0xFF);
    case 4:
        return 0u - (BOX_DATA + (box_random() & 0xFFFF));
    default:
        return 0;
    }
}

/* One candidate of up to 15 bytes at p (16 valid). Not necessarily an instruction. */
static void candidate(uint8_t p[16])
{
    static const uint8_t seg[] = {0x26, 0x36, 0x3E, 0x64, 0x65, 0x2E};
    unsigned n = 0;
    uint32_t disp = pick_disp();

    for (unsigned k = 0; k < 16; k++)
        p[k] = (uint8_t)box_random();
    if (box_random() % 4 == 0)
        p[n++] = 0x66;
    if (box_random() % 8 == 0)
        p[n++] = seg[box_random() % 6];
    if (box_random() % 6 == 0)
        p[n++] = box_random() & 1 ? 0xF2 : 0xF3;
    if (box_random() % 12 == 0)
        p[n++] = 0xF0;
    if (box_random() % 2)
        p[n++] = 0x0F;
    n++; /* opcode */
    if (n >= 2 && p[n - 2] == 0x0F && (p[n - 1] == 0x38 || p[n - 1] == 0x3A))
        n++;
    p[n] = (uint8_t)box_random();
    if (box_random() & 1) /* memory forms: displacement where it is without and with SIB */
        memcpy(p + n + 1 + ((p[n] & 7) == 4), &disp, n + 2 + 4 <= 15 ? 4 : 0);
}

static bool wanted(const struct scan_insn *i, enum scan_decode_status s)
{
    if (s != SCAN_OK || i->flow != SCAN_FLOW_NEXT)
        return false;
    if (i->map == SCAN_MAP_0F && i->opcode == 0xAE &&
        i->cls == SCAN_CLASS_PLAIN) /* CLFLUSH faults; the emulator's does not */
        return false;
    switch ((enum scan_class)i->cls) {
    case SCAN_CLASS_PLAIN:
    case SCAN_CLASS_STRING:
    case SCAN_CLASS_FPU:
    case SCAN_CLASS_SIMD:
    case SCAN_CLASS_LEGACY:
    case SCAN_CLASS_PUSHF:
    case SCAN_CLASS_POPF:
    case SCAN_CLASS_PUSHSEG:
    case SCAN_CLASS_MOVFROMSEG:
    case SCAN_CLASS_CLI:
    case SCAN_CLASS_STI:
        return true;
    default:
        return false;
    }
}

static unsigned random_insn(uint8_t p[16], struct scan_insn *i)
{
    for (;;) {
        candidate(p);
        if (wanted(i, scan_decode(p, 15, 32, i)))
            return i->len;
    }
}

static void random_registers(void)
{
    for (unsigned r = 0; r < 8; r++) {
        uint32_t v = box_random();

        switch (box_random() % 8) {
        case 0:
            v &= 0xFF;
            break;
        case 1:
            break;
        case 2:
        case 3:
            v = 0xC0000000u + BOX_DATA + (v & 0xFFFF);
            break;
        default:
            v = BOX_DATA + (v & 0xFFFF);
        }
        box.cpu->gpr[r] = v;
    }
    box.cpu->gpr[CPU_ESP] = BOX_STACK - (box_random() & 0xFFC);
    box.cpu->arith = box_random() & CPU_HOST_FLAGS;
    box.cpu->vif = box_random() & CPU_IF;
    box.cpu->eip = BOX_CODE;
}

/* A repeat count that ends within the test's patience. */
static void tame_repeat(const struct scan_insn *i)
{
    if (i->cls == SCAN_CLASS_STRING)
        box.cpu->gpr[CPU_ECX] &= 63;
}

static const char *show(const uint8_t *p, size_t len)
{
    static char text[300];
    char one[128];
    size_t at = 0;

    text[0] = 0;
    while (at < len && strlen(text) < 150) {
        unsigned n = scan_disassemble(p + at, len - at, 32, (uint32_t)(BOX_CODE + at), one, sizeof one);

        snprintf(text + strlen(text), sizeof text - strlen(text), "%s; ", one);
        at += n ? n : 1;
    }
    return text;
}

/* --- one instruction
 * ----------------------------------------------------------------------------------------------- */

/* The state before, for faults. */
static const char *check_fault(void)
{
    const struct xlat_unwound *u = &box.fault.at;

    if (u->state == XLAT_RETRY)
        return "fault where the record says it cannot";
    return box_compare_before();
}

static unsigned one_instruction(uint32_t seed, unsigned counts[8])
{
    uint8_t p[16];
    struct scan_insn i;
    enum box_stop a, b;
    const char *diff;

    box_reset(seed);
    random_insn(p, &i);
    random_registers();
    tame_repeat(&i);
    box_copy_cpu();
    box_save();
    ck_assert(box_load(p, i.len, NULL, 0));
    if (box.verso.emulated_count > 2) { /* HLT and the undefined opcode after it count */
        counts[7]++;
        return 0;
    }
    a = box_run(10);
    b = box_run_oracle(10);
    counts[a]++;
    if (a == BOX_FAULT) {
        if (b != BOX_SHUTDOWN)
            ck_abort_msg("seed %u: %s faults at %lx, the emulator does not", seed, show(p, i.len),
                         (unsigned long)box.fault.address);
        diff = check_fault();
        if (diff && i.cls != SCAN_CLASS_STRING)
            ck_abort_msg("seed %u: %s: before the fault: %s", seed, show(p, i.len), diff);
        return 1;
    }
    if (a == BOX_SHUTDOWN && b == BOX_SHUTDOWN)
        return 1;
    ck_assert_msg(a == BOX_HLT && b == BOX_HLT, "seed %u: %s: stops %d, emulator %d", seed, show(p, i.len), a,
                  b);
    diff = box_compare();
    if (diff)
        ck_abort_msg("seed %u: %s: %s", seed, show(p, i.len), diff);
    return 1;
}

START_TEST(random_instruction_translated_agrees_with_emulator)
{
    unsigned counts[8] = {0}, n = env_count("XLAT_RANDOM", 10000), ran = 0;

    box.options = _i ? xlat_host_options() : 0;
    for (uint32_t seed = 1; seed <= n; seed++)
        ran += one_instruction(seed + _i * 0x1000000u, counts);
    printf("random instructions: %u run, %u to the end, %u faulted, %u left to the emulator\n", ran,
           counts[BOX_HLT], counts[BOX_FAULT], counts[7]);
    ck_assert_uint_gt(counts[BOX_HLT], n / 4);
}
END_TEST

/* --- programs
 * ------------------------------------------------------------------------------------------------------ */

static size_t random_program(uint8_t *code, unsigned insns)
{
    size_t len = 0;

    for (unsigned n = 0; n < insns; n++) {
        struct scan_insn i;
        uint8_t p[16];
        unsigned k = random_insn(p, &i);

        memcpy(code + len, p, k);
        len += k;
    }
    return len;
}

START_TEST(random_program_interrupted_anywhere_ends_the_same)
{
    unsigned n = env_count("XLAT_PROGRAMS", 500), used = 0, points = 0;
    uint8_t code[512];

    box.options = _i ? xlat_host_options() : 0;
    for (uint32_t seed = 1; seed <= n; seed++) {
        const char *why;
        size_t len;

        box_reset(seed + 0x2000000u);
        len = random_program(code, 4);
        random_registers();
        box.cpu->gpr[CPU_ECX] &= 63;
        box_copy_cpu();
        box_save();
        ck_assert(box_load(code, len, NULL, 0));
        if (box_run(1000) != BOX_HLT || (box.cpu->eflags_sys & CPU_TF)) /* POPF of anything */
            continue;
        used++;
        why = box_interrupt_everywhere(&points);
        ck_assert_msg(!why, "seed %u: %s: %s", seed, show(code, len), why);
    }
    printf("random programs: %u of %u run, %u points\n", used, n, points);
    ck_assert_uint_gt(used, n / 10);
}
END_TEST

START_TEST(random_program_paged_in_on_demand_ends_the_same)
{
    unsigned n = env_count("XLAT_PROGRAMS", 500), used = 0, faults = 0;
    uint8_t code[512];

    box.options = _i ? xlat_host_options() : 0;
    for (uint32_t seed = 1; seed <= n; seed++) {
        const char *why;
        size_t len;

        box_reset(seed + 0x3000000u);
        len = random_program(code, 6);
        random_registers();
        box.cpu->gpr[CPU_ECX] &= 63;
        box_copy_cpu();
        box_save();
        ck_assert(box_load(code, len, NULL, 0));
        if (box_run(1000) != BOX_HLT || (box.cpu->eflags_sys & CPU_TF))
            continue;
        used++;
        why = box_page_in_on_demand(&faults);
        ck_assert_msg(!why, "seed %u: %s: %s", seed, show(code, len), why);
    }
    printf("random programs: %u of %u run, %u faults\n", used, n, faults);
    ck_assert_uint_gt(faults, n / 10);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("xlat_random");
    TCase *t = tcase_create("random");

    tcase_set_timeout(t, 150);
    tcase_add_loop_test(t, random_instruction_translated_agrees_with_emulator, 0, 2);
    tcase_add_loop_test(t, random_program_interrupted_anywhere_ends_the_same, 0, 2);
    tcase_add_loop_test(t, random_program_paged_in_on_demand_ends_the_same, 0, 2);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    SRunner *r = srunner_create(suite());
    int failed;

    box_init();
    srunner_set_fork_status(r, CK_NOFORK); /* shared mappings and an alternate signal stack */
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
