/* monitor/quick.c on a bare machine. */
#include "monitor/quick.h"
#include "emu_box.h"

#include <check.h>

static struct box box;

START_TEST(iret_to_same_level_from_conforming_segment_loads_all_of_cs)
{
    static const uint32_t frame[3] = {BOX_CODE, BOX_SEL_CODE0, CPU_FLAG1 | CPU_CF};
    box_flat(&box, 0);
    /* The emulator's TLB is to know the stack and the GDT: POP EAX; PUSH EAX; MOV EAX, sel; MOV FS, AX */
    BOX_CODE_BYTES(&box, 0x58, 0x50, 0xB8, BOX_SEL_DATA0, 0, 0, 0, 0x8E, 0xE0);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(emu_step(box.vm), EMU_OK);
    box_set(&box, BOX_GDT + BOX_SEL_CODE0 + 5, 1, 0x9B);
    box.c->seg[SCAN_CS].sel = BOX_SEL_CONF0;
    box.c->seg[SCAN_CS].attr = 0xC09F;
    for (unsigned i = 0; i < 3; i++)
        box_set(&box, BOX_STACK + 4 * i, 4, frame[i]);
    ck_assert(quick_iret(box.vm));
    ck_assert_uint_eq(box.c->seg[SCAN_CS].sel, BOX_SEL_CODE0);
    ck_assert_uint_eq(box.c->seg[SCAN_CS].attr, 0xC09B);
    ck_assert_uint_eq(box.c->eip, BOX_CODE);
    ck_assert_uint_eq(box.c->gpr[CPU_ESP], BOX_STACK + 12);
}
END_TEST

int main(void)
{
    box = box_new();
    Suite *s = suite_create("quick");
    TCase *t = tcase_create("quick");
    tcase_add_test(t, iret_to_same_level_from_conforming_segment_loads_all_of_cs);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    box_free(&box);
    return failed != 0;
}
