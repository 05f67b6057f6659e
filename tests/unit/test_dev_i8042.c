/* The keyboard controller as Linux's i8042, atkbd and psmouse drivers meet it. */
#include "dev_machine.h"

static uint8_t command_read(uint8_t command)
{
    out8(0x64, command);
    ck_assert(in8(0x64) & 1);
    return in8(0x60);
}

static void expect(const char *bytes, size_t n, bool aux)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t status = in8(0x64);

        ck_assert_msg(status & 1, "byte %zu is missing", i);
        ck_assert_int_eq((status & 0x20) != 0, aux);
        ck_assert_uint_eq(in8(0x60), (uint8_t)bytes[i]);
    }
    ck_assert_uint_eq(in8(0x64) & 1, 0);
}

START_TEST(idle_status_is_unlocked_and_empty)
{
    ck_assert_uint_eq(in8(0x64) & 0x33, 0x10);
    ck_assert_uint_eq(in8(0x64) & 0xC0, 0);
}
END_TEST

START_TEST(self_test_and_interface_tests_pass)
{
    ck_assert_uint_eq(command_read(0xAA), 0x55);
    ck_assert_uint_eq(command_read(0xAB), 0x00);
    ck_assert_uint_eq(command_read(0xA9), 0x00);
    ck_assert_uint_eq(command_read(0xA4), 0xF1);
}
END_TEST

START_TEST(command_byte_reads_back)
{
    out8(0x64, 0x60);
    out8(0x60, 0x65);
    ck_assert_uint_eq(command_read(0x20), 0x65);
    out8(0x64, 0xA8);
    ck_assert_uint_eq(command_read(0x20), 0x45);
    out8(0x64, 0xA7);
    ck_assert_uint_eq(command_read(0x20), 0x65);
    out8(0x64, 0xAD);
    ck_assert_uint_eq(command_read(0x20), 0x75);
    out8(0x64, 0xAE);
    ck_assert_uint_eq(command_read(0x20), 0x65);
}
END_TEST

START_TEST(aux_loop_returns_byte_from_aux_with_irq12)
{
    /* i8042_check_aux() */
    linux_init_8259(false);
    out8(0x21, 0xFB);
    out8(0xA1, 0xEF);
    out8(0x64, 0xD3);
    out8(0x60, 0x5A);
    expect("\x5A", 1, true);
    ck_assert(!dev_intr_level(m.bus));
    out8(0x64, 0x60);
    out8(0x60, 0x46);
    out8(0x64, 0xD3);
    out8(0x60, 0xA5);
    ck_assert(dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3C);
    expect("\xA5", 1, true);
}
END_TEST

START_TEST(keyboard_answers_probe_of_atkbd)
{
    out8(0x60, 0xF2);
    expect("\xFA\xAB\x41", 3, false); /* translated */
    out8(0x60, 0xED);
    expect("\xFA", 1, false);
    out8(0x60, 0x00);
    expect("\xFA", 1, false);
    out8(0x60, 0xFF);
    expect("\xFA\xAA", 2, false);
    out8(0x60, 0xF3);
    expect("\xFA", 1, false);
    out8(0x60, 0x20);
    expect("\xFA", 1, false);
    out8(0x60, 0xF4);
    expect("\xFA", 1, false);
    out8(0x60, 0xEE);
    expect("\xEE", 1, false);
    out8(0x60, 0xEA);
    expect("\xFE", 1, false);
    out8(0x64, 0x60);
    out8(0x60, 0x05);
    out8(0x60, 0xF2);
    expect("\xFA\xAB\x83", 3, false);
    out8(0x60, 0xF0);
    out8(0x60, 0x00);
    expect("\xFA\xFA\x02", 3, false);
}
END_TEST

START_TEST(keyboard_bytes_raise_an_edge_each)
{
    linux_init_8259(false);
    out8(0x21, 0xFD);
    out8(0x60, 0xF2);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(dev_intr_level(m.bus));
        ck_assert_uint_eq(dev_intr_ack(m.bus), 0x31);
        out8(0x20, 0x61);
        in8(0x60);
    }
    ck_assert(!dev_intr_level(m.bus));
}
END_TEST

START_TEST(mouse_answers_probe_of_psmouse)
{
    out8(0x64, 0xD4);
    out8(0x60, 0xFF);
    expect("\xFA\xAA\x00", 3, true);
    out8(0x64, 0xD4);
    out8(0x60, 0xF2);
    expect("\xFA\x00", 2, true);
    out8(0x64, 0xD4);
    out8(0x60, 0xF3);
    out8(0x64, 0xD4);
    out8(0x60, 80);
    out8(0x64, 0xD4);
    out8(0x60, 0xE9);
    expect("\xFA\xFA\xFA\x00\x02\x50", 6, true);
    out8(0x64, 0xD4);
    out8(0x60, 0x12);
    expect("\xFE", 1, true);
}
END_TEST

START_TEST(disabled_keyboard_keeps_its_bytes)
{
    out8(0x60, 0xF2);
    out8(0x64, 0xAD);
    expect("\xFA", 1, false); /* this one was in the buffer */
    out8(0x64, 0xAE);
    expect("\xAB\x41", 2, false);
}
END_TEST

START_TEST(reset_and_a20_by_output_port)
{
    out8(0x64, 0xFF);
    ck_assert_uint_eq(m.resets, 0);
    out8(0x64, 0xFE);
    ck_assert_uint_eq(m.resets, 1);
    ck_assert_uint_eq(command_read(0xD0) & 3, 3);
    out8(0x64, 0xD1);
    out8(0x60, 0xDD);
    ck_assert(!m.a20);
    ck_assert_uint_eq(in8(0x92), 0);
    out8(0x64, 0xDF);
    ck_assert(m.a20);
    out8(0x64, 0xD1);
    out8(0x60, 0xDE);
    ck_assert_uint_eq(m.resets, 2);
}
END_TEST

START_TEST(flood_of_unread_bytes_is_bounded)
{
    for (unsigned i = 0; i < 1000; i++)
        out8(0x60, 0xF2);
    for (unsigned i = 0; i < 17; i++)
        in8(0x60);
    ck_assert_uint_eq(in8(0x64) & 1, 0);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, idle_status_is_unlocked_and_empty);
    tcase_add_test(t, self_test_and_interface_tests_pass);
    tcase_add_test(t, command_byte_reads_back);
    tcase_add_test(t, aux_loop_returns_byte_from_aux_with_irq12);
    tcase_add_test(t, keyboard_answers_probe_of_atkbd);
    tcase_add_test(t, keyboard_bytes_raise_an_edge_each);
    tcase_add_test(t, mouse_answers_probe_of_psmouse);
    tcase_add_test(t, disabled_keyboard_keeps_its_bytes);
    tcase_add_test(t, reset_and_a20_by_output_port);
    tcase_add_test(t, flood_of_unread_bytes_is_bounded);
}

int main(void)
{
    return run_suite("dev_i8042", add);
}
