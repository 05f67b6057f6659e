/* tests/unit/test_emu_alu.c: the emulator's integer instructions with values worked out by hand (SDM vol. 2). Everything is also
 * compared with the host processor or a model, over many values: tests/diff/. */
#include <check.h>

#include "emu_box.h"

static struct box box;

static void setup(void)
{
    box = box_new();
}

static void teardown(void)
{
    box_free(&box);
}

static uint32_t bcd(uint8_t op, uint32_t ax, uint32_t flags, uint32_t *out)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, op);
    box.c->gpr[CPU_EAX] = ax;
    cpu_set_eflags(box.c, flags);
    emu_step(box.vm);
    *out = cpu_eflags(box.c) & (CPU_CF | CPU_AF);
    return box.c->gpr[CPU_EAX] & 0xFFFF;
}

START_TEST(daa_das_every_input_as_defined)
{
    for (unsigned al = 0; al < 256; al++)
        for (unsigned f = 0; f < 4; f++) {
            bool cf = f & 1, af = f & 2, low = (al & 15) > 9 || af, high = al > 0x99 || cf;
            uint32_t flags, got = bcd(0x27, al, (cf ? CPU_CF : 0) | (af ? CPU_AF : 0), &flags);
            unsigned want = (al + (low ? 6 : 0) + (high ? 0x60 : 0)) & 0xFF;
            ck_assert_uint_eq(got, want);
            ck_assert_uint_eq(flags, (high ? CPU_CF : 0u) | (low ? CPU_AF : 0u));
            got = bcd(0x2F, al, (cf ? CPU_CF : 0) | (af ? CPU_AF : 0), &flags);
            want = (al - (low ? 6 : 0) - (high ? 0x60 : 0)) & 0xFF;
            ck_assert_uint_eq(got, want);
            ck_assert_uint_eq(flags, (high || (low && al < 6) ? CPU_CF : 0u) | (low ? CPU_AF : 0u));
        }
}
END_TEST

START_TEST(aaa_aas_adjust_both_halves)
{
    uint32_t f;
    ck_assert_uint_eq(bcd(0x37, 0x000B, 0, &f), 0x0101);
    ck_assert_uint_eq(f, CPU_CF | CPU_AF);
    ck_assert_uint_eq(bcd(0x37, 0x0035, 0, &f), 0x0005);
    ck_assert_uint_eq(f, 0);
    ck_assert_uint_eq(bcd(0x37, 0x00FA, 0, &f), 0x0200); /* the carry out of AL counts */
    ck_assert_uint_eq(bcd(0x3F, 0x020B, 0, &f), 0x0105);
    ck_assert_uint_eq(bcd(0x3F, 0x0203, CPU_AF, &f), 0x000D); /* AX - 106h, AL and 0Fh */
}
END_TEST

START_TEST(aam_aad_by_ten_and_others)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xD4, 10, 0xD5, 10, 0xD4, 0);
    box.c->gpr[CPU_EAX] = 0xFFFF0047;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EAX], 0xFFFF0701);
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EAX], 0xFFFF0047);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DE);
}
END_TEST

START_TEST(bit_string_offsets_reach_beyond_operand)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0xAB, 0x0E, 0x66, 0x0F, 0xAB, 0x0E); /* bts [esi], ecx; bts [esi], cx */
    box.c->gpr[CPU_ESI] = BOX_DATA;
    box.c->gpr[CPU_ECX] = (uint32_t)-33;
    emu_step(box.vm);
    ck_assert_uint_eq(box_get(&box, BOX_DATA - 8, 4), 1u << 31);
    box.c->gpr[CPU_ECX] = 0x12340000 | 37;
    emu_step(box.vm);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 4, 2), 1u << 5);
}
END_TEST

START_TEST(enter_nested_copies_frame_pointers)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xC8, 0x10, 0x00, 0x03, 0xC9);
    box.c->gpr[CPU_EBP] = BOX_DATA;
    box_set(&box, BOX_DATA - 4, 4, 0x11111111);
    box_set(&box, BOX_DATA - 8, 4, 0x22222222);
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EBP], BOX_STACK - 4);
    ck_assert_uint_eq(box.c->gpr[CPU_ESP], BOX_STACK - 16 - 16);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 4, 4), BOX_DATA);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 8, 4), 0x11111111);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 12, 4), 0x22222222);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 16, 4), BOX_STACK - 4);
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EBP], BOX_DATA);
    ck_assert_uint_eq(box.c->gpr[CPU_ESP], BOX_STACK);
}
END_TEST

START_TEST(movbe_cmpxchg8b_bound_salc)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x38, 0xF0, 0x06,       /* movbe eax, [esi] */
                   0x66, 0x0F, 0x38, 0xF1, 0x46, 0x04, /* movbe [esi+4], ax */
                   0x0F, 0xC7, 0x4E, 0x08,             /* cmpxchg8b [esi+8] */
                   0x0F, 0xC7, 0x4E, 0x08, 0xF9, 0xD6, /* again; stc; salc */
                   0x62, 0x46, 0x10);                  /* bound eax, [esi+16] */
    struct cpu *c = box.c;
    c->gpr[CPU_ESI] = BOX_DATA;
    box_set(&box, BOX_DATA, 4, 0x12345678);
    box_set(&box, BOX_DATA + 8, 4, 7);
    box_set(&box, BOX_DATA + 12, 4, 9);
    c->gpr[CPU_EBX] = 0xAAAA;
    c->gpr[CPU_ECX] = 0xBBBB;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0x78563412);
    emu_step(box.vm);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 4, 2), 0x1234);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 7);
    ck_assert_uint_eq(c->gpr[CPU_EDX], 9);
    ck_assert(!(c->arith & CPU_ZF));
    emu_step(box.vm);
    ck_assert(c->arith & CPU_ZF);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 8, 4), 0xAAAA);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 12, 4), 0xBBBB);
    emu_step(box.vm);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX] & 0xFF, 0xFF);
    box_set(&box, BOX_DATA + 16, 4, 0);
    box_set(&box, BOX_DATA + 20, 4, 5);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_BR);
}
END_TEST

START_TEST(loop_jcxz_count_by_address_size)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x67, 0xE2, 0x10); /* loop with CX */
    box.c->gpr[CPU_ECX] = 0x00010000;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_ECX], 0x0001FFFF);
    ck_assert_uint_eq(box.c->eip, BOX_CODE + 3 + 0x10);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xE0, 0x10); /* loopne */
    box.c->gpr[CPU_ECX] = 5;
    box.c->arith = CPU_ZF;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->eip, BOX_CODE + 2);
    ck_assert_uint_eq(box.c->gpr[CPU_ECX], 4);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x67, 0xE3, 0xF0); /* jcxz */
    box.c->gpr[CPU_ECX] = 0x00010000;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->eip, BOX_CODE + 3 - 0x10);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("emu_alu");
    TCase *t = tcase_create("alu");
    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, daa_das_every_input_as_defined);
    tcase_add_test(t, aaa_aas_adjust_both_halves);
    tcase_add_test(t, aam_aad_by_ten_and_others);
    tcase_add_test(t, bit_string_offsets_reach_beyond_operand);
    tcase_add_test(t, enter_nested_copies_frame_pointers);
    tcase_add_test(t, movbe_cmpxchg8b_bound_salc);
    tcase_add_test(t, loop_jcxz_count_by_address_size);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
