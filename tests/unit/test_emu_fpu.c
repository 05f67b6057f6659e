/* tests/unit/test_emu_fpu.c: x87, MMX and SSE through the emulator: operands, availability faults, pending
 * and SIMD exceptions, images. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "emu_box.h"

static struct box box;
static struct cpu *c;

static void setup(void)
{
    box = box_new();
    c = box.c;
}
static void teardown(void)
{
    box_free(&box);
}

static void start(void)
{
    box_flat(&box, 0);
    c->cr4 = CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT;
    c->gpr[CPU_ESI] = BOX_DATA;
    c->gpr[CPU_EDI] = BOX_DATA + 0x100;
    memset(c->fx, 0, sizeof(c->fx));
    box_set(&box, BOX_CODE - 16, 2, 0xE3DB); /* fninit */
    c->eip = BOX_CODE - 16;
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE - 14);
    c->eip = BOX_CODE;
    c->fx[24] = 0x80, c->fx[25] = 0x1F;
}
static void steps(unsigned n)
{
    while (n--)
        ck_assert_int_eq(emu_step(box.vm), EMU_OK);
}
static void put_double(uint32_t at, double v)
{
    memcpy(box.ram + at, &v, 8);
}
static double get_double(uint32_t at)
{
    double v;
    memcpy(&v, box.ram + at, 8);
    return v;
}
static float xmm_float(unsigned r, unsigned i)
{
    float v;
    memcpy(&v, c->fx + 160 + 16 * r + 4 * i, 4);
    return v;
}
static void set_xmm_float(unsigned r, unsigned i, float v)
{
    memcpy(c->fx + 160 + 16 * r + 4 * i, &v, 4);
}
static uint16_t fsw(void)
{
    return (uint16_t)(c->fx[2] | c->fx[3] << 8);
}

START_TEST(x87_loads_computes_stores)
{
    start();
    BOX_CODE_BYTES(&box, 0xDD, 0x06, 0xDC, 0x4E, 0x08, 0xD9, 0xFA, 0xDD,
                   0x1F); /* fld; fmul; fsqrt; fstp [edi] */
    put_double(BOX_DATA, 8.0);
    put_double(BOX_DATA + 8, 4.5);
    steps(4);
    ck_assert_double_eq(get_double(BOX_DATA + 0x100), 6.0);
    ck_assert_uint_eq(fsw() >> 11 & 7, 0);
    ck_assert_uint_eq(c->fx[4], 0);
}
END_TEST

START_TEST(x87_every_memory_form_round_trips)
{
    start();
    BOX_CODE_BYTES(&box, 0xDB, 0x06, 0xDB, 0x1F,       /* fild m32; fistp m32 */
                   0xDF, 0x06, 0xDF, 0x5F, 0x08,       /* m16 */
                   0xDF, 0x2E, 0xDF, 0x7F, 0x10,       /* m64 */
                   0xD9, 0x46, 0x20, 0xD9, 0x5F, 0x20, /* float */
                   0xDB, 0x6E, 0x30, 0xDB, 0x7F, 0x30, /* 80 bits */
                   0xDF, 0x26, 0xDF, 0x77, 0x40);      /* packed BCD */
    box_set(&box, BOX_DATA, 4, 0x01234567);
    box_set(&box, BOX_DATA + 4, 4, 0x00123456);
    box_set(&box, BOX_DATA + 8, 2, 0x0012);
    box_set(&box, BOX_DATA + 0x20, 4, 0x3FC00000);
    memcpy(box.ram + BOX_DATA + 0x30, "\x00\x00\x00\x00\x00\x00\x00\xC0\x01\x40", 10);
    steps(12);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0x100, 4), 0x01234567);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0x108, 2), 0x4567);
    ck_assert(!memcmp(box.ram + BOX_DATA + 0x110, box.ram + BOX_DATA, 8));
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0x120, 4), 0x3FC00000);
    ck_assert(!memcmp(box.ram + BOX_DATA + 0x130, box.ram + BOX_DATA + 0x30, 10));
    ck_assert(!memcmp(box.ram + BOX_DATA + 0x140, box.ram + BOX_DATA, 9));
}
END_TEST

START_TEST(x87_conditions_reach_eflags)
{
    start();
    BOX_CODE_BYTES(&box, 0xD9, 0xE8, 0xD9, 0xEE, 0xDF, 0xF1, 0xDF,
                   0xE0); /* fld1; fldz; fcomip st1; fnstsw ax */
    c->arith = CPU_DF | CPU_OF;
    steps(3);
    ck_assert_uint_eq(c->arith, CPU_DF | CPU_CF);
    c->gpr[CPU_EAX] = 0xFFFF0000;
    steps(1);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0xFFFF0000u | fsw());
    ck_assert_uint_eq(fsw() >> 11 & 7, 7);
}
END_TEST

START_TEST(fpu_not_available_rules)
{
    static const struct {
        uint32_t cr0, cr4;
        uint8_t bytes[4];
        int vector;
    } t[] = {
        {CPU_CR0_TS, CPU_CR4_OSFXSR, {0xD9, 0xE8}, CPU_EXC_NM},
        {CPU_CR0_EM, CPU_CR4_OSFXSR, {0xD9, 0xE8}, CPU_EXC_NM},
        {CPU_CR0_TS, CPU_CR4_OSFXSR, {0xDB, 0xE3}, CPU_EXC_NM},
        {CPU_CR0_TS, CPU_CR4_OSFXSR, {0x9B}, -1},
        {CPU_CR0_TS | CPU_CR0_MP, CPU_CR4_OSFXSR, {0x9B}, CPU_EXC_NM},
        {CPU_CR0_TS, CPU_CR4_OSFXSR, {0x0F, 0x58, 0xC1}, CPU_EXC_NM},
        {CPU_CR0_EM, CPU_CR4_OSFXSR, {0x0F, 0x58, 0xC1}, CPU_EXC_UD},
        {0, 0, {0x0F, 0x58, 0xC1}, CPU_EXC_UD},
        {0, 0, {0x0F, 0xFC, 0xC1}, -1},
        {0, 0, {0x66, 0x0F, 0xFC, 0xC1}, CPU_EXC_UD},
        {CPU_CR0_TS, 0, {0x0F, 0x77}, CPU_EXC_NM},
        {CPU_CR0_EM, 0, {0x0F, 0x77}, CPU_EXC_UD},
        {CPU_CR0_TS, 0, {0x0F, 0xAE, 0x06}, CPU_EXC_NM},
        {CPU_CR0_TS, 0, {0x0F, 0x18, 0x06}, -1},              /* prefetch */
        {CPU_CR0_TS | CPU_CR0_EM, 0, {0x0F, 0xC3, 0x06}, -1}, /* movnti */
        {CPU_CR0_TS | CPU_CR0_EM, 0, {0x0F, 0xAE, 0xF0}, -1}, /* mfence */
    };
    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        start();
        box_code(&box, t[i].bytes, 4);
        c->cr0 |= t[i].cr0;
        c->cr4 = t[i].cr4;
        steps(1);
        ck_assert_msg(box_vector(&box) == t[i].vector, "row %u: vector %d", i, box_vector(&box));
    }
}
END_TEST

START_TEST(unmasked_x87_error_is_raised_by_the_next_waiting_instruction)
{
    start();
    BOX_CODE_BYTES(&box, 0xD9, 0x2E, 0xD9, 0xE8, 0xD9, 0xEE, 0xDE, 0xF9, /* fldcw; fld1; fldz; fdivp */
                   0xDF, 0xE0, 0xD9, 0xE8);                              /* fnstsw ax; fld1 */
    box_set(&box, BOX_DATA, 2, 0x037B);                                  /* zero divide unmasked */
    steps(5);
    ck_assert_int_eq(box_vector(&box), -1);
    ck_assert_uint_eq(c->gpr[CPU_EAX] & 0x84, 0x84);
    steps(1);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_MF);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 10);
}
END_TEST

START_TEST(host_state_is_left_alone)
{
    start();
    BOX_CODE_BYTES(&box, 0xD9, 0x2E, 0xD9, 0xE8, 0x0F, 0xAE, 0x56, 0x04, 0x0F, 0x58, 0xC1);
    box_set(&box, BOX_DATA, 2, 0x0C00);     /* truncate, everything unmasked */
    box_set(&box, BOX_DATA + 4, 4, 0x7F80); /* round to zero */
    steps(4);
    volatile double third = 1.0, by = 3.0;
    ck_assert_double_eq(third / by, 1.0 / 3.0);
    volatile long double x = 2.0L;
    ck_assert(x * x == 4.0L);
    ck_assert_int_eq((int)lrint(2.7), 3);
}
END_TEST

START_TEST(simd_computes_with_memory_and_registers)
{
    start();
    BOX_CODE_BYTES(
        &box, 0x0F, 0x10, 0x06, 0x0F, 0x58, 0x46, 0x10, 0x0F, 0x29, 0x07, /* movups; addps; movaps */
        0xF3, 0x0F, 0x2A, 0xC9, 0xF3, 0x0F, 0x2C, 0xD1, /* cvtsi2ss xmm1, ecx; cvttss2si edx, xmm1 */
        0x66, 0x0F, 0x6E, 0xD3, 0x66, 0x0F, 0x7E, 0xD5, /* movd xmm2, ebx; movd ebp, xmm2 */
        0x0F, 0x50, 0xC1, 0x0F, 0x2E, 0xC0);            /* movmskps eax, xmm1; ucomiss xmm0, xmm0 */
    for (unsigned i = 0; i < 8; i++) {
        float f = (float)i + 0.5f;
        memcpy(box.ram + BOX_DATA + 4 * i, &f, 4);
    }
    c->gpr[CPU_ECX] = (uint32_t)-7;
    c->gpr[CPU_EBX] = 0xDEADBEEF;
    steps(3);
    float sum;
    memcpy(&sum, box.ram + BOX_DATA + 0x100 + 12, 4);
    ck_assert(sum == 11.0f);
    steps(2);
    ck_assert_uint_eq(c->gpr[CPU_EDX], (uint32_t)-7);
    steps(2);
    ck_assert_uint_eq(c->gpr[CPU_EBP], 0xDEADBEEF);
    steps(2);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 1);
    ck_assert_uint_eq(c->arith, CPU_ZF);
}
END_TEST

START_TEST(aligned_forms_fault_when_not)
{
    start();
    BOX_CODE_BYTES(&box, 0x0F, 0x28, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA + 4;
    steps(1);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
    start();
    BOX_CODE_BYTES(&box, 0x0F, 0x10, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA + 4;
    steps(1);
    ck_assert_int_eq(box_vector(&box), -1);
    start();
    BOX_CODE_BYTES(&box, 0x0F, 0xAE, 0x06); /* fxsave */
    c->gpr[CPU_ESI] = BOX_DATA + 8;
    steps(1);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
}
END_TEST

START_TEST(unmasked_simd_exception_leaves_destination)
{
    start();
    BOX_CODE_BYTES(&box, 0x0F, 0x5E, 0xC1); /* divps xmm0, xmm1 */
    for (unsigned i = 0; i < 4; i++)
        set_xmm_float(0, i, 1.0f);
    c->fx[24] = 0x80, c->fx[25] = 0x1D; /* zero divide unmasked */
    steps(1);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_XM);
    ck_assert(xmm_float(0, 0) == 1.0f);
    ck_assert_uint_eq(c->fx[24] & 0x3F, 4);
    c->eip = BOX_CODE;
    c->cr4 &= ~(uint32_t)CPU_CR4_OSXMMEXCPT;
    steps(1);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_UD);
    start();
    BOX_CODE_BYTES(&box, 0x0F, 0x5E, 0xC1);
    set_xmm_float(0, 0, 1.0f);
    steps(1); /* masked */
    ck_assert_int_eq(box_vector(&box), -1);
    ck_assert(isinf(xmm_float(0, 0)));
    ck_assert_uint_eq(c->fx[24] & 4, 4);
}
END_TEST

START_TEST(mxcsr_reserved_bits_fault)
{
    start();
    BOX_CODE_BYTES(&box, 0x0F, 0xAE, 0x16);
    box_set(&box, BOX_DATA, 4, 0x11F80);
    steps(1);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
}
END_TEST

START_TEST(mmx_aliases_x87_registers)
{
    start();
    BOX_CODE_BYTES(&box, 0x0F, 0x6F, 0x06, 0x0F, 0xFD, 0xC0, 0x0F, 0x7F, 0x07, 0x0F,
                   0x77); /* movq; paddw; movq; emms */
    box_set(&box, BOX_DATA, 4, 0x00010002);
    box_set(&box, BOX_DATA + 4, 4, 0x7FFF8000);
    steps(1);
    ck_assert_uint_eq(c->fx[4], 0xFF);
    steps(2);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0x100, 4), 0x00020004);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0x104, 4), 0xFFFE0000);
    ck_assert_uint_eq(c->fx[32 + 8] & c->fx[32 + 9], 0xFF); /* exponent all ones */
    steps(1);
    ck_assert_uint_eq(c->fx[4], 0);
}
END_TEST

START_TEST(masked_stores_touch_only_selected_bytes)
{
    start();
    BOX_CODE_BYTES(&box, 0x66, 0x0F, 0xF7, 0xC1);
    for (unsigned i = 0; i < 16; i++) {
        c->fx[160 + i] = (uint8_t)(0x10 + i);
        c->fx[176 + i] = i % 3 ? 0 : 0x80;
    }
    memset(box.ram + BOX_DATA + 0x100, 0xEE, 16);
    steps(1);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(box.ram[BOX_DATA + 0x100 + i], i % 3 ? 0xEE : 0x10 + i);
}
END_TEST

START_TEST(fnstenv_shows_guest_pointers_and_masks)
{
    start();
    BOX_CODE_BYTES(&box, 0xDD, 0x06, 0xD9, 0xEE, 0xD9, 0x37); /* fld [esi]; fldz; fnstenv [edi] */
    put_double(BOX_DATA, 3.0);
    c->fx[0] = 0x7B; /* zero divide unmasked */
    steps(3);
    uint32_t at = BOX_DATA + 0x100;
    ck_assert_uint_eq(box_get(&box, at, 4), 0xFFFF037B);
    ck_assert_uint_eq(box_get(&box, at + 4, 4), 0xFFFF3000);
    ck_assert_uint_eq(box_get(&box, at + 8, 4), 0xFFFF1FFF); /* ST0 zero, ST1 valid */
    ck_assert_uint_eq(box_get(&box, at + 12, 4), BOX_CODE + 2);
    ck_assert_uint_eq(box_get(&box, at + 16, 4), BOX_SEL_CODE0 | 0x1EEu << 16);
    ck_assert_uint_eq(box_get(&box, at + 20, 4), BOX_DATA);
    ck_assert_uint_eq(box_get(&box, at + 24, 2), BOX_SEL_DATA0);
    ck_assert_uint_eq(c->fx[0], 0x7F);
}
END_TEST

START_TEST(fnsave_frstor_round_trip)
{
    start();
    BOX_CODE_BYTES(&box, 0xD9, 0xEB, 0xD9, 0xE8, 0xDD, 0x36, 0xDD, 0x26, 0xDD,
                   0x1F); /* fldpi; fld1; fnsave; frstor; fstp */
    steps(3);
    ck_assert_uint_eq(c->fx[4], 0);
    ck_assert_uint_eq(fsw(), 0);
    steps(2);
    ck_assert_double_eq(get_double(BOX_DATA + 0x100), 1.0);
    ck_assert_uint_eq(fsw() >> 11 & 7, 7);
    ck_assert_uint_eq(c->fx[4], 0x80);
}
END_TEST

START_TEST(fxsave_image_has_32_bit_form_and_spares_the_rest)
{
    start();
    BOX_CODE_BYTES(&box, 0xDD, 0x06, 0x0F, 0xAE, 0x07, 0x0F, 0xAE,
                   0x0F); /* fld; fxsave [edi]; fxrstor [edi] */
    put_double(BOX_DATA, 1.0);
    memset(box.ram + BOX_DATA + 0x100, 0xEE, 512);
    memset(c->fx + 160, 0x3C, 128);
    steps(2);
    uint32_t at = BOX_DATA + 0x100;
    ck_assert_uint_eq(box_get(&box, at, 2), 0x37F);
    ck_assert_uint_eq(box_get(&box, at + 4, 1), 0x80);
    ck_assert_uint_eq(box_get(&box, at + 8, 4), BOX_CODE);
    ck_assert_uint_eq(box_get(&box, at + 12, 2), BOX_SEL_CODE0);
    ck_assert_uint_eq(box_get(&box, at + 16, 4), BOX_DATA);
    ck_assert_uint_eq(box_get(&box, at + 20, 2), BOX_SEL_DATA0);
    ck_assert_uint_eq(box_get(&box, at + 24, 4), 0x1F80);
    ck_assert_uint_eq(box_get(&box, at + 28, 4), 0xFFFF);
    ck_assert_uint_eq(box_get(&box, at + 160, 4), 0x3C3C3C3C);
    ck_assert_uint_eq(box_get(&box, at + 288, 4), 0xEEEEEEEE);
    box_set(&box, at + 160, 4, 0x12345678);
    box_set(&box, at + 288, 4, 0);
    steps(1);
    ck_assert_uint_eq(c->fx[160], 0x78);
    ck_assert_uint_eq(c->fx[4], 0x80);
}
END_TEST

START_TEST(store_to_missing_page_changes_nothing)
{
    start();
    box_paging(&box);
    BOX_CODE_BYTES(&box, 0xD9, 0xE8, 0xDD, 0x1E);
    box_pte(&box, BOX_DATA, 5);
    steps(1);
    uint8_t before[288];
    memcpy(before, c->fx, sizeof(before));
    steps(1);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_PF);
    ck_assert(!memcmp(before, c->fx, sizeof(before)));
}
END_TEST

START_TEST(many_different_instructions_share_the_thunk_table)
{
    /* PSHUFD with every immediate: more thunks than any small table holds without collisions. */
    start();
    for (unsigned i = 0; i < 4; i++)
        memcpy(c->fx + 176 + 4 * i, &(uint32_t){i + 1}, 4);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned imm = 0; imm < 256; imm++)
            for (unsigned dst = 2; dst < 8; dst++) {
                uint32_t got[4];
                BOX_CODE_BYTES(&box, 0x66, 0x0F, 0x70, (uint8_t)(0xC1 | dst << 3), (uint8_t)imm);
                c->eip = BOX_CODE;
                steps(1);
                memcpy(got, c->fx + 160 + 16 * dst, 16);
                for (unsigned i = 0; i < 4; i++)
                    ck_assert_uint_eq(got[i], (imm >> 2 * i & 3) + 1);
            }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("emu_fpu");
    TCase *t = tcase_create("fpu");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, x87_loads_computes_stores);
    tcase_add_test(t, x87_every_memory_form_round_trips);
    tcase_add_test(t, x87_conditions_reach_eflags);
    tcase_add_test(t, fpu_not_available_rules);
    tcase_add_test(t, unmasked_x87_error_is_raised_by_the_next_waiting_instruction);
    tcase_add_test(t, host_state_is_left_alone);
    tcase_add_test(t, simd_computes_with_memory_and_registers);
    tcase_add_test(t, aligned_forms_fault_when_not);
    tcase_add_test(t, unmasked_simd_exception_leaves_destination);
    tcase_add_test(t, mxcsr_reserved_bits_fault);
    tcase_add_test(t, mmx_aliases_x87_registers);
    tcase_add_test(t, masked_stores_touch_only_selected_bytes);
    tcase_add_test(t, fnstenv_shows_guest_pointers_and_masks);
    tcase_add_test(t, fnsave_frstor_round_trip);
    tcase_add_test(t, fxsave_image_has_32_bit_form_and_spares_the_rest);
    tcase_add_test(t, store_to_missing_page_changes_nothing);
    tcase_add_test(t, many_different_instructions_share_the_thunk_table);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
