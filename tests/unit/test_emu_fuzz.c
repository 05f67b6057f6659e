/* tests/unit/test_emu_fuzz.c: garbage code on garbage state must neither crash the emulator nor leave a state
 * that no processor has.
 *
 * Seeded and reproducible: test_emu_fuzz [seed [cases]]. The tests run 100,000 cases; a nightly run gives
 * more, under the sanitizers.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "emu_box.h"

static struct box box;
static struct cpu *c;
static uint64_t seed = 1;
static unsigned long wanted = 100000;
static unsigned shutdowns, halts, exceptions;

static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

/* Addresses near what matters, selectors of the table, and noise. */
static uint32_t value(void)
{
    static const uint32_t near[] = {BOX_DATA, BOX_STACK,        BOX_CODE,    BOX_GDT, BOX_IDT,    BOX_TSS,
                                    BOX_PT,   BOX_DATA + 0xFFE, BOX_RAM - 2, 0xA0000, 0xFFFFFFFE, 0};
    switch (rnd() & 3) {
    case 0:
        return near[rnd() % (sizeof(near) / sizeof(near[0]))] + (rnd() & 15);
    case 1:
        return (rnd() % (BOX_SEL_LAST + 16)) | (rnd() & 7);
    case 2:
        return rnd() & 0x1FFFFF;
    default:
        return rnd();
    }
}

static unsigned random_code(uint8_t *p)
{
    static const uint8_t system[] = {0x8E, 0x8C, 0xCF, 0xCB, 0xCA, 0x9A, 0xEA, 0xFF, 0xCD, 0x9D, 0x9C,
                                     0xFB, 0x07, 0x17, 0x1F, 0xC4, 0xC5, 0xF4, 0x62, 0xC8, 0x61, 0x60};
    static const uint8_t system_0f[] = {0x00, 0x01, 0x02, 0x03, 0x20, 0x22, 0x21, 0x23, 0x34, 0x35,
                                        0xA1, 0xA9, 0xB2, 0xB4, 0xB5, 0xAE, 0xC7, 0x30, 0x32, 0x06};
    unsigned n = 0, total = 24 + (rnd() & 15);
    while (n < total) {
        unsigned kind = rnd() & 7;
        if (kind == 0)
            p[n++] = (const uint8_t[]){0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x26, 0x36, 0x64}[rnd() & 7];
        if (kind < 3) {
            p[n++] = 0x0F;
            p[n++] = kind == 1 ? system_0f[rnd() % sizeof(system_0f)] : (uint8_t)rnd();
        } else {
            p[n++] = kind < 5 ? system[rnd() % sizeof(system)] : (uint8_t)rnd();
        }
        p[n++] = (uint8_t)rnd();
        if (rnd() & 1)
            p[n++] = (uint8_t)rnd();
    }
    return n;
}

static void random_tables(void)
{
    for (unsigned i = rnd() & 7; i; i--)
        box.ram[BOX_GDT + rnd() % (BOX_SEL_LAST + 8)] = (uint8_t)rnd();
    for (unsigned i = rnd() & 7; i; i--)
        box.ram[BOX_IDT + rnd() % 0x800] = (uint8_t)rnd();
    for (unsigned i = rnd() & 15; i; i--)
        box.ram[BOX_TSS + rnd() % 0x500] = (uint8_t)rnd();
    for (unsigned i = 0; i < 6; i++) {
        box_set(&box, BOX_TSS2 + 0x48 + 4 * i, 2, rnd() % 0xB8);
        box_set(&box, BOX_TSS2 + 0x20 + 4 * i, 4, value());
    }
    if (rnd() & 1)
        box_gate(&box, BOX_GDT + BOX_SEL_GATE, (uint16_t)(rnd() % 0xB8), value(), 0x84 | (rnd() & 0x68));
    for (unsigned i = 0; i < 64; i++)
        box_set(&box, BOX_STACK - 0x80 + 4 * i, 4, value());
    for (unsigned i = 0; i < 64; i++)
        box_set(&box, BOX_DATA + 4 * i, 4, value());
}

static void random_paging(void)
{
    box_paging(&box);
    if (rnd() & 1)
        c->cr4 |= CPU_CR4_PSE | CPU_CR4_PGE;
    if (rnd() & 1)
        c->cr0 &= ~(uint32_t)CPU_CR0_WP;
    for (unsigned i = rnd() & 15; i; i--)
        box_set(&box, BOX_PT + (rnd() & 511) * 4, 4, rnd() & 1 ? rnd() : (rnd() & 0x1FF000) | (rnd() & 7));
    if (!(rnd() & 7))
        box_set(&box, BOX_PD, 4, rnd());
}

static void random_state(void)
{
    switch (rnd() % 6) {
    case 0:
        box_real(&box);
        break;
    case 1:
        box_v86(&box, rnd() & 3);
        break;
    case 2:
        box_flat(&box, 3);
        break;
    case 3:
        box_flat(&box, 0);
        c->seg[SCAN_CS].attr &= (uint16_t)~0x4000u;
        break;
    case 4:
        box_flat(&box, 1);
        c->seg[SCAN_CS].sel = BOX_SEL_CODE1 | 1;
        break;
    default:
        box_flat(&box, 0);
        break;
    }
    if (c->cr0 & CPU_CR0_PE) {
        random_tables();
        if (rnd() & 1)
            random_paging();
    }
    for (unsigned i = 0; i < 8; i++)
        c->gpr[i] = value();
    if (rnd() & 3)
        c->gpr[CPU_ESP] = BOX_STACK - (rnd() & 0x3F);
    c->arith = rnd() & CPU_HOST_FLAGS;
    if (!(rnd() & 7))
        c->eflags_sys |= rnd() & (CPU_TF | CPU_NT | CPU_AC | CPU_IOPL | CPU_RF);
    if (rnd() & 1)
        c->cr4 |= CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT | (rnd() & CPU_CR4_DE);
    if (!(rnd() & 3))
        c->cr0 ^= rnd() & (CPU_CR0_TS | CPU_CR0_EM | CPU_CR0_MP | CPU_CR0_NE | CPU_CR0_AM);
    if (!(rnd() & 7)) {
        c->dr[7] = (rnd() & 0xFFFF00FF) | 0x400;
        for (unsigned i = 0; i < 4; i++)
            c->dr[i] = value();
    }
    for (unsigned i = 0; i < 288; i++)
        if (!(rnd() & 7) && !(i >= 24 && i < 32) && i != 0 && i != 1 && i != 2)
            c->fx[i] = (uint8_t)rnd();
    c->fx[24] = 0x80, c->fx[25] = (uint8_t)(rnd() & 0x7F);
}

static uint32_t host_mxcsr_bits(void)
{
    uint32_t v;
    memcpy(&v, c->fx + 24, 4);
    return v;
}

static void check_state(unsigned long n)
{
    bool pe = c->cr0 & CPU_CR0_PE;
    ck_assert_msg((c->eflags_sys & CPU_FLAG1) && !(c->eflags_sys & (CPU_HOST_FLAGS | CPU_IF)),
                  "case %lu: eflags_sys %x", n, c->eflags_sys);
    ck_assert_msg(!(c->arith & ~(uint32_t)CPU_HOST_FLAGS) && !(c->vif & ~(uint32_t)CPU_IF), "case %lu: flags",
                  n);
    ck_assert_msg(c->cpl < 4, "case %lu: cpl", n);
    ck_assert_msg(!(pe && (c->eflags_sys & CPU_VM)) || c->cpl == 3, "case %lu: V86 with cpl %u", n, c->cpl);
    ck_assert_msg(pe || c->cpl == 0, "case %lu: real mode with cpl %u", n, c->cpl);
    ck_assert_msg(!(c->cr0 & CPU_CR0_PG) || pe, "case %lu: paging without protection", n);
    ck_assert_msg(!(host_mxcsr_bits() & ~0xFFFFu), "case %lu: mxcsr", n);
    for (unsigned i = 0; i < 6; i++)
        ck_assert_msg(c->seg[i].sel == c->seg_sel[i], "case %lu: selector %u", n, i);
    if (pe && !(c->eflags_sys & CPU_VM) && !c->seg[SCAN_SS].unusable && (c->seg[SCAN_SS].attr & 0x10))
        ck_assert_msg((c->seg[SCAN_SS].attr >> 5 & 3) == c->cpl || c->seg[SCAN_CS].sel == 0,
                      "case %lu: ss dpl, cpl %u", n, c->cpl);
}

START_TEST(garbage_code_on_garbage_state)
{
    for (unsigned long n = 0; n < wanted; n++) {
        uint8_t code[80];
        unsigned done, len;
        random_state();
        vm_segments_changed(box.vm);
        len = random_code(code);
        if (!(rnd() & 15)) {
            c->eip = BOX_CODE + 0x1000 - (rnd() & 15);
            memcpy(box.ram + c->eip, code, len);
        } else {
            box_code(&box, code, len);
        }
        for (unsigned k = 0; k < 4; k++) {
            enum emu_result r = emu_run(box.vm, 20, NULL, &done);
            ck_assert_msg(done <= 20, "case %lu: %u instructions", n, done);
            check_state(n);
            shutdowns += r == EMU_SHUTDOWN;
            halts += r == EMU_HALT;
            exceptions += box_vector(&box) >= 0;
            if (r == EMU_SHUTDOWN)
                break;
            if (!(rnd() & 3) && emu_interrupt(box.vm, rnd() & 255) == EMU_SHUTDOWN)
                break;
        }
    }
    ck_assert_uint_gt(exceptions, 100); /* the cases reach handlers */
    ck_assert_uint_gt(shutdowns, 10);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0) * 2 + 1;
    if (argc > 2)
        wanted = strtoul(argv[2], NULL, 0);
    box = box_new();
    c = box.c;
    Suite *s = suite_create("emu_fuzz");
    TCase *t = tcase_create("fuzz");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, garbage_code_on_garbage_state);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, argc > 1 ? CK_NOFORK : CK_FORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    box_free(&box);
    return failed != 0;
}
