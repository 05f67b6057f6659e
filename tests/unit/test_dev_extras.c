/* The coprocessor error logic, and the devices that are there only if asked for. */
#include "dev_apic.h"

START_TEST(ferr_latches_irq_13_until_port_f0_is_written)
{
    linux_init_8259(false);
    out8(0x21, 0xFB);
    out8(0xA1, 0xDF);
    dev_ferr(m.bus, true);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3D);
    ck_assert(!dev_ignne(m.bus));
    out8(0xF0, 0);
    ck_assert(dev_ignne(m.bus));
    out8(0xA0, 0x20);
    out8(0x20, 0x20);
    ck_assert(!m.intr);
    dev_ferr(m.bus, true); /* the same error: no new edge */
    ck_assert(!m.intr);
    dev_ferr(m.bus, false);
    ck_assert(!dev_ignne(m.bus));
    out8(0xF0, 0); /* nothing to ignore */
    ck_assert(!dev_ignne(m.bus));
    dev_ferr(m.bus, true);
    ck_assert(m.intr);
    dev_ferr(m.bus, false); /* the latch stays */
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3D);
}
END_TEST

START_TEST(extras_are_not_there_unless_added)
{
    ck_assert_uint_eq(dev_port_read(m.bus, 0xE0, 4), 0xFFFFFFFF);
    ck_assert_uint_eq(dev_mmio_read(m.bus, 0xFF000000, 4), 0xFFFFFFFF);
    ck_assert_uint_eq(in8(0x402), 0xFF);
    for (unsigned i = 0; i < DEV_EXTRA_COUNT; i++) {
        ck_assert_uint_gt(strlen(dev_extra_name((enum dev_extra)i)), 0);
        ck_assert_uint_gt(strlen(dev_extra_text((enum dev_extra)i)), 0);
        dev_bus_add(m.bus, (enum dev_extra)i);
        dev_bus_add(m.bus, (enum dev_extra)i); /* again: nothing */
    }
    ck_assert_uint_eq(dev_port_read(m.bus, 0xE0, 4), 0);
    ck_assert_uint_eq(in8(0x402), 0xE9);
    out8(0x402, 'x');
    ck_assert_str_eq(m.debug, "x");
}
END_TEST

START_TEST(testdev_register_has_four_bytes)
{
    dev_bus_add(m.bus, DEV_EXTRA_TESTDEV);
    dev_port_write(m.bus, 0xE0, 4, 0x12345678);
    ck_assert_uint_eq(in8(0xE1), 0x56);
    dev_port_write(m.bus, 0xE2, 2, 0xABCD);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xE0, 4), 0xABCD5678);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xE8, 4), 0xABCD5678);
    dev_port_write(m.bus, 0xE8, 2, 0x1111);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xE0, 4), 0xABCD1111);
}
END_TEST

START_TEST(testdev_drives_interrupt_lines)
{
    dev_bus_add(m.bus, DEV_EXTRA_TESTDEV);
    a_symmetric();
    io_entry(14, 0, 0x8076);
    out8(0x200E, 1);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x76);
    out8(0x200E, 0);
    a_write(A_EOI, 0);
    ck_assert(!m.intr);
    io_entry(18, 0, 0x8078 | 0x2000); /* PCI's are active low */
    out8(0x2012, 0);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x78);
}
END_TEST

START_TEST(testdev_memory_and_flush_port)
{
    dev_bus_add(m.bus, DEV_EXTRA_TESTDEV);
    dev_mmio_write(m.bus, 0xFF000001, 4, 0x12345678);
    ck_assert_uint_eq(dev_mmio_read(m.bus, 0xFF000002, 2), 0x3456);
    dev_mmio_write(m.bus, 0xFF00FFFE, 4, 0xAABBCCDD); /* half of it beyond the end */
    ck_assert_uint_eq(dev_mmio_read(m.bus, 0xFF00FFFE, 4), 0xFFFFCCDD);
    ck_assert_uint_eq(dev_mmio_read(m.bus, 0xFF000000, 1), 0);
    dev_port_write(m.bus, 0xE4, 4, 0x12345);
    ck_assert_uint_eq(m.flushes, 1);
    ck_assert_uint_eq(m.flushed, 0x12000);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, ferr_latches_irq_13_until_port_f0_is_written);
    tcase_add_test(t, extras_are_not_there_unless_added);
    tcase_add_test(t, testdev_register_has_four_bytes);
    tcase_add_test(t, testdev_drives_interrupt_lines);
    tcase_add_test(t, testdev_memory_and_flush_port);
}

int main(void)
{
    return run_suite("dev_extras", add);
}
