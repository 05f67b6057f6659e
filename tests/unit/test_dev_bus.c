/* Dispatch, the small ports, reset, and garbage written to every port. */
#include "dev_machine.h"

START_TEST(unowned_ports_read_ones_and_ignore_writes)
{
    ck_assert_uint_eq(dev_port_read(m.bus, 0x300, 1), 0xFF);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x300, 2), 0xFFFF);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x300, 4), 0xFFFFFFFF);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xFFFE, 4) >> 16, 0xFFFF); /* wraps at 64 KiB */
    dev_port_write(m.bus, 0x300, 4, 0x12345678);
}
END_TEST

START_TEST(wide_access_to_byte_chip_is_split)
{
    linux_init_8259(false);
    dev_port_write(m.bus, 0x20, 2, 0x5A0B); /* OCW3 and the mask */
    ck_assert_uint_eq(in8(0x21), 0x5A);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x20, 2), 0x5A00);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x3F7, 2) & 0xFF, 0xFF);
}
END_TEST

START_TEST(mmio_reads_ones)
{
    ck_assert_uint_eq(dev_mmio_read(m.bus, 0xB8000, 2), 0xFFFF);
    ck_assert_uint_eq(dev_mmio_read(m.bus, 0xFED00000, 4), 0xFFFFFFFF);
    dev_mmio_write(m.bus, 0xB8000, 1, 1);
}
END_TEST

START_TEST(exit_device_gives_value_times_two_plus_one)
{
    dev_port_write(m.bus, 0xF4, 4, 21);
    ck_assert_int_eq(m.exit_code, 43);
    out8(0xF4, 0);
    ck_assert_int_eq(m.exit_code, 1);
    ck_assert_uint_eq(m.exits, 2);
}
END_TEST

START_TEST(debug_console_and_post_port)
{
    ck_assert_uint_eq(in8(0xE9), 0xE9);
    out8(0xE9, 'h');
    out8(0xE9, 'i');
    ck_assert_str_eq(m.debug, "hi");
    out8(0x80, 0x77);
    ck_assert_uint_eq(in8(0x80), 0x77);
}
END_TEST

START_TEST(port92_switches_a20_and_resets)
{
    ck_assert_uint_eq(in8(0x92), 2);
    out8(0x92, 0);
    ck_assert(!m.a20);
    out8(0x92, 2);
    ck_assert(m.a20);
    ck_assert_uint_eq(m.resets, 0);
    out8(0x92, 3);
    ck_assert_uint_eq(m.resets, 1);
    ck_assert_uint_eq(m.softs, 1);
    out8(0x92, 3); /* only as it rises */
    ck_assert_uint_eq(m.resets, 1);
    ck_assert_uint_eq(in8(0x92), 3);
    dev_bus_reset(m.bus);
    ck_assert_uint_eq(in8(0x92), 2);
}
END_TEST

START_TEST(apm_control_calls_the_firmware)
{
    out8(0xB3, 0x77);
    ck_assert_uint_eq(m.calls, 0);
    out8(0xB2, 0x42);
    ck_assert_uint_eq(m.calls, 1);
    ck_assert_uint_eq(m.command, 0x42);
    ck_assert_uint_eq(in8(0xB2), 0x42);
    ck_assert_uint_eq(in8(0xB3), 0x77);
}
END_TEST

START_TEST(reset_brings_back_the_state_of_power_on)
{
    linux_init_8259(false);
    out8(0x21, 0);
    out8(0x92, 0);
    out8(0x3FC, 0x0B);
    out8(0x3F9, 0x02);
    ck_assert(m.intr);
    dev_bus_reset(m.bus);
    ck_assert(!m.intr);
    ck_assert(m.a20);
    ck_assert_uint_eq(in8(0x21), 0xFF);
    ck_assert_uint_eq(in8(0x3F9), 0);
    ck_assert_uint_lt(m.deadline, m.now + NS_PER_SEC);
}
END_TEST

START_TEST(garbage_on_every_port_is_survived)
{
    uint32_t x = 2463534242u;

    for (unsigned i = 0; i < 400000; i++) {
        unsigned size;
        uint16_t port;

        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        size = 1u << x % 3;
        port = (uint16_t)(x & 0x10000 ? x >> 8 : (x >> 8) % 0x100);
        if ((x >> 20) % 16 == 3)
            port = (uint16_t)(0x3F8 + (x >> 24) % 8);
        if ((x >> 20) % 16 == 4)
            port = (uint16_t)(0x600 + (x >> 24) % 12);
        dev_port_write(m.bus, port, size, x * 2654435761u);
        dev_port_read(m.bus, port, size);
        dev_mmio_write(m.bus, (x & 0x200000 ? 0xFEE00000 : 0xFEC00000) + (x >> 7 & 0xFFF), size, x * 40503u);
        dev_mmio_read(m.bus, (x & 0x400000 ? 0xFEE00000 : 0xFEC00000) + (x >> 9 & 0xFFF), size);
        m.now += x % 100000;
        if (m.deadline <= m.now)
            dev_bus_run_timers(m.bus);
        if (m.intr)
            dev_intr_ack(m.bus);
        dev_serial_in(m.bus, (const uint8_t *)"abc", 3);
    }
}
END_TEST

static void count_line(void *opaque, const char *text)
{
    ck_assert_uint_gt(strlen(text), 4);
    ++*(unsigned *)opaque;
}

START_TEST(dump_has_a_line_for_each_chip)
{
    unsigned lines = 0;

    dev_bus_dump(m.bus, count_line, &lines);
    ck_assert_uint_ge(lines, 10);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, unowned_ports_read_ones_and_ignore_writes);
    tcase_add_test(t, wide_access_to_byte_chip_is_split);
    tcase_add_test(t, mmio_reads_ones);
    tcase_add_test(t, exit_device_gives_value_times_two_plus_one);
    tcase_add_test(t, debug_console_and_post_port);
    tcase_add_test(t, port92_switches_a20_and_resets);
    tcase_add_test(t, apm_control_calls_the_firmware);
    tcase_add_test(t, reset_brings_back_the_state_of_power_on);
    tcase_add_test(t, garbage_on_every_port_is_survived);
    tcase_add_test(t, dump_has_a_line_for_each_chip);
}

int main(void)
{
    return run_suite("dev_bus", add);
}
