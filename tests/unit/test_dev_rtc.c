/* The MC146818: time, alarm and interrupts as its data sheet says, and as Linux's mc146818 code reads it. */
#include "dev_machine.h"

static uint8_t cmos(uint8_t reg)
{
    out8(0x70, reg);
    return in8(0x71);
}

static void set_cmos(uint8_t reg, uint8_t v)
{
    out8(0x70, reg);
    out8(0x71, v);
}

static void expect_time(unsigned year, unsigned month, unsigned day, unsigned hour, unsigned min,
                        unsigned sec)
{
    ck_assert_uint_eq(cmos(0x32), year >> 8);
    ck_assert_uint_eq(cmos(9), year & 0xFF);
    ck_assert_uint_eq(cmos(8), month);
    ck_assert_uint_eq(cmos(7), day);
    ck_assert_uint_eq(cmos(4), hour);
    ck_assert_uint_eq(cmos(2), min);
    ck_assert_uint_eq(cmos(0), sec);
}

static void only_irq8(void)
{
    linux_init_8259(false);
    out8(0x21, 0xFB);
    out8(0xA1, 0xFE);
}

static bool take_irq8(void)
{
    if (!dev_intr_level(m.bus))
        return false;
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x38);
    out8(0xA0, 0x60);
    out8(0x20, 0x62);
    return true;
}

START_TEST(time_at_power_on_is_epoch_and_rolls_over)
{
    expect_time(0x2023, 0x12, 0x31, 0x23, 0x59, 0x59);
    ck_assert_uint_eq(cmos(6), 1); /* Sunday */
    run_until(NS_PER_SEC);
    expect_time(0x2024, 0x01, 0x01, 0x00, 0x00, 0x00);
    ck_assert_uint_eq(cmos(6), 2);
    m.now = NS_PER_SEC + 59 * 86400 * NS_PER_SEC;
    expect_time(0x2024, 0x02, 0x29, 0x00, 0x00, 0x00);
}
END_TEST

START_TEST(uip_is_set_only_before_the_update)
{
    run_until(5 * NS_PER_SEC + 1);
    ck_assert_uint_eq(cmos(0x0A), 0x26);
    run_until(6 * NS_PER_SEC - 2228001);
    ck_assert_uint_eq(cmos(0x0A), 0x26);
    run_until(6 * NS_PER_SEC - 2228000);
    ck_assert_uint_eq(cmos(0x0A), 0xA6);
    run_until(6 * NS_PER_SEC - 1);
    ck_assert_uint_eq(cmos(0x0A), 0xA6);
    run_until(6 * NS_PER_SEC);
    ck_assert_uint_eq(cmos(0x0A), 0x26);
}
END_TEST

START_TEST(linux_set_time_with_divider_reset_starts_half_a_second_before)
{
    /* mc146818_set_time(): SET, divider reset, fields, release. */
    run_until(123456789);
    set_cmos(0x0B, 0x82);
    set_cmos(0x0A, 0x26 | 0x70);
    set_cmos(9, 0x99);
    set_cmos(8, 0x12);
    set_cmos(7, 0x31);
    set_cmos(4, 0x23);
    set_cmos(2, 0x59);
    set_cmos(0, 0x58);
    set_cmos(0x32, 0x19);
    run_for(10 * NS_PER_SEC);
    set_cmos(0x0B, 0x02);
    set_cmos(0x0A, 0x26);
    expect_time(0x1999, 0x12, 0x31, 0x23, 0x59, 0x58);
    run_for(NS_PER_SEC / 2 - 1);
    expect_time(0x1999, 0x12, 0x31, 0x23, 0x59, 0x58);
    run_for(1);
    expect_time(0x1999, 0x12, 0x31, 0x23, 0x59, 0x59);
    run_for(NS_PER_SEC);
    expect_time(0x2000, 0x01, 0x01, 0x00, 0x00, 0x00);
}
END_TEST

START_TEST(set_bit_stops_updates_and_fields_are_plain_memory)
{
    set_cmos(0x0B, 0x82);
    set_cmos(0, 0x77);
    run_for(5 * NS_PER_SEC);
    ck_assert_uint_eq(cmos(0), 0x77);
    ck_assert_uint_eq(cmos(0x0A), 0x26);
}
END_TEST

START_TEST(binary_and_12_hour_formats)
{
    set_cmos(0x0B, 0x06);
    ck_assert_uint_eq(cmos(4), 23);
    ck_assert_uint_eq(cmos(9), 23);
    ck_assert_uint_eq(cmos(0x32), 20);
    set_cmos(0x0B, 0x00);
    ck_assert_uint_eq(cmos(4), 0x91); /* 11 PM */
    run_until(NS_PER_SEC);
    ck_assert_uint_eq(cmos(4), 0x12); /* midnight is 12 AM */
    m.now = NS_PER_SEC + 12 * 3600 * NS_PER_SEC;
    ck_assert_uint_eq(cmos(4), 0x92);
    set_cmos(4, 0x01);
    set_cmos(0x0B, 0x02);
    ck_assert_uint_eq(cmos(4), 0x01);
}
END_TEST

START_TEST(update_interrupt_every_second_until_register_c_read)
{
    only_irq8();
    run_until(NS_PER_SEC / 2);
    cmos(0x0C);
    set_cmos(0x0B, 0x12);
    ck_assert(!dev_intr_level(m.bus));
    run_until(NS_PER_SEC - 1);
    ck_assert(!dev_intr_level(m.bus));
    run_until(NS_PER_SEC);
    ck_assert(take_irq8());
    run_until(4 * NS_PER_SEC);
    ck_assert(!take_irq8()); /* the pin is still active: no new edge */
    ck_assert_uint_eq(cmos(0x0C),
                      0xF0); /* PF and AF (00:00:00 is the alarm) are set without PIE and AIE too */
    ck_assert_uint_eq(cmos(0x0C), 0);
    run_until(5 * NS_PER_SEC);
    ck_assert(take_irq8());
}
END_TEST

START_TEST(alarm_interrupt_at_its_time_and_with_wildcards)
{
    only_irq8();
    set_cmos(5, 0x00);
    set_cmos(3, 0x01);
    set_cmos(1, 0x30);
    cmos(0x0C);
    set_cmos(0x0B, 0x22);
    run_until(90 * NS_PER_SEC);
    ck_assert(!dev_intr_level(m.bus));
    run_until(91 * NS_PER_SEC); /* 00:01:30 */
    ck_assert(take_irq8());
    ck_assert_uint_eq(cmos(0x0C) & 0xA0, 0xA0);
    set_cmos(5, 0xC0);
    set_cmos(3, 0xFF);
    set_cmos(1, 0x15);
    for (unsigned i = 0; i < 3; i++) {
        run_until((136 + 60 * i) * NS_PER_SEC - 1);
        ck_assert(!take_irq8());
        run_until((136 + 60 * i) * NS_PER_SEC);
        ck_assert(take_irq8());
        cmos(0x0C);
    }
    set_cmos(1, 0x99); /* never */
    ck_assert_uint_ne(m.deadline, 0);
    run_for(200 * NS_PER_SEC);
    ck_assert(!take_irq8());
}
END_TEST

START_TEST(periodic_interrupt_has_the_rate_of_register_a)
{
    unsigned n = 0;

    only_irq8();
    set_cmos(0x0A, 0x26);
    cmos(0x0C);
    set_cmos(0x0B, 0x42);
    while (m.now < 2 * NS_PER_SEC) {
        m.now = m.deadline;
        dev_bus_run_timers(m.bus);
        if (take_irq8()) {
            ck_assert_uint_eq(cmos(0x0C) & 0xC0, 0xC0);
            n++;
        }
    }
    ck_assert_uint_eq(n, 2048);
}
END_TEST

START_TEST(cmos_holds_memory_sizes_and_checksum)
{
    unsigned sum = 0;

    ck_assert_uint_eq(cmos(0x15) | cmos(0x16) << 8, 640);
    ck_assert_uint_eq(cmos(0x17) | cmos(0x18) << 8, 0xFFFF);
    ck_assert_uint_eq(cmos(0x30) | cmos(0x31) << 8, 0xFFFF);
    ck_assert_uint_eq((cmos(0x34) | cmos(0x35) << 8) * 65536u, (512u - 16u) << 20);
    ck_assert_uint_eq(cmos(0x0D), 0x80);
    for (uint8_t i = 0x10; i < 0x2E; i++)
        sum += cmos(i);
    ck_assert_uint_eq(cmos(0x2E) << 8 | cmos(0x2F), sum);
    set_cmos(0x40, 0x5A);
    ck_assert_uint_eq(cmos(0xC0), 0x5A); /* bit 7 of the index is the NMI mask */
}
END_TEST

START_TEST(garbage_time_is_survived)
{
    for (unsigned v = 0; v < 256; v++) {
        for (uint8_t reg = 0; reg < 10; reg++)
            set_cmos(reg, (uint8_t)(v * 7 + reg));
        set_cmos(0x32, (uint8_t)v);
        set_cmos(0x0B, (uint8_t)v);
        set_cmos(0x0A, (uint8_t)(v * 3));
        m.now += 100000000;
        dev_bus_run_timers(m.bus);
        cmos(0x0C);
        cmos(4);
    }
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, time_at_power_on_is_epoch_and_rolls_over);
    tcase_add_test(t, uip_is_set_only_before_the_update);
    tcase_add_test(t, linux_set_time_with_divider_reset_starts_half_a_second_before);
    tcase_add_test(t, set_bit_stops_updates_and_fields_are_plain_memory);
    tcase_add_test(t, binary_and_12_hour_formats);
    tcase_add_test(t, update_interrupt_every_second_until_register_c_read);
    tcase_add_test(t, alarm_interrupt_at_its_time_and_with_wildcards);
    tcase_add_test(t, periodic_interrupt_has_the_rate_of_register_a);
    tcase_add_test(t, cmos_holds_memory_sizes_and_checksum);
    tcase_add_test(t, garbage_time_is_survived);
}

int main(void)
{
    return run_suite("dev_rtc", add);
}
