/* The 8254 and port 61h, against the mode definitions of its data sheet and what Linux does with it. */
#include "dev_machine.h"

#define PIT_HZ 1193182ull

/* The first nanosecond of a tick. */
static uint64_t tick_ns(uint64_t tick)
{
    return (tick * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ;
}

static void at_tick(uint64_t tick)
{
    run_until(tick_ns(tick));
}

static unsigned read16(uint16_t port)
{
    unsigned low = in8(port);

    return low | (unsigned)in8(port) << 8;
}

static void program(unsigned channel, uint8_t control, unsigned count)
{
    out8(0x43, (uint8_t)(channel << 6 | control));
    out8((uint16_t)(0x40 + channel), (uint8_t)count);
    out8((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static bool out2(void)
{
    return (in8(0x61) & 0x20) != 0;
}

static void only_irq0(void)
{
    linux_init_8259(false);
    out8(0x21, 0xFE);
    while (dev_intr_level(m.bus)) {
        dev_intr_ack(m.bus);
        out8(0x20, 0x60);
    }
    m.rises = 0;
}

/* Takes IRQ 0 as a handler would, and says whether there was one. */
static bool take_irq0(void)
{
    if (!dev_intr_level(m.bus))
        return false;
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x30);
    out8(0x20, 0x60);
    return true;
}

START_TEST(quick_calibration_of_linux_sees_every_msb)
{
    /* arch/x86/kernel/tsc.c, quick_pit_calibrate(): gate on, speaker off, channel 2 mode 0, count FFFF; then
     * each MSB in turn lasts 256 ticks, read as LSB/MSB pairs without a latch. */
    uint64_t first = 0, last = 0;

    run_until(12345678);
    out8(0x61, (uint8_t)((in8(0x61) & ~2) | 1));
    out8(0x43, 0xB0);
    out8(0x42, 0xFF);
    out8(0x42, 0xFF);
    in8(0x42);
    ck_assert_uint_eq(in8(0x42), 0xFF);
    for (unsigned msb = 0xFE; msb >= 0xF0; msb--) {
        unsigned reads = 0;

        for (;;) {
            m.now += 1000;
            in8(0x42);
            if (in8(0x42) != msb + 1)
                break;
            reads++;
        }
        ck_assert_uint_gt(reads, 100);
        if (msb == 0xFE)
            first = m.now;
        last = m.now;
    }
    /* 14 steps of 256 ticks, to the microsecond of the loop */
    ck_assert_uint_le(llabs((long long)(last - first) - (long long)(14 * 256 * NS_PER_SEC / PIT_HZ)), 2000);
}
END_TEST

START_TEST(mode0_channel2_out_rises_after_count_plus_one_clocks)
{
    /* mach_countup() of the PM timer's and the APIC's calibration polls bit 5 of port 61h. */
    at_tick(1000);
    out8(0x61, 1);
    program(2, 0x30, 11932);
    ck_assert(!out2());
    at_tick(1000 + 11932);
    ck_assert(!out2());
    at_tick(1000 + 11932 + 1);
    ck_assert(out2());
    ck_assert_uint_eq(read16(0x42), 0);
    at_tick(1000 + 11932 + 2);
    ck_assert_uint_eq(read16(0x42), 0xFFFF); /* wraps and counts on */
    ck_assert(out2());
}
END_TEST

START_TEST(mode0_gate_low_holds_the_count)
{
    out8(0x61, 1);
    program(2, 0x30, 1000);
    at_tick(101);
    ck_assert_uint_eq(read16(0x42), 900);
    out8(0x61, 0);
    at_tick(5000);
    ck_assert_uint_eq(read16(0x42), 900);
    ck_assert(!out2());
    out8(0x61, 1);
    at_tick(5899);
    ck_assert(!out2());
    at_tick(5900);
    ck_assert(out2());
}
END_TEST

START_TEST(mode0_first_byte_of_new_count_stops_counting)
{
    out8(0x61, 1);
    program(2, 0x30, 100);
    at_tick(200);
    ck_assert(out2());
    out8(0x42, 50);
    ck_assert(!out2());
    at_tick(1000);
    ck_assert(!out2());
    out8(0x42, 0);
    at_tick(1050);
    ck_assert(!out2());
    at_tick(1051);
    ck_assert(out2());
}
END_TEST

START_TEST(mode1_gate_edge_triggers_one_shot_and_retriggers)
{
    out8(0x61, 0);
    program(2, 0x32, 100);
    at_tick(500);
    ck_assert(out2());
    out8(0x61, 1);
    at_tick(501);
    ck_assert(!out2());
    at_tick(560);
    out8(0x61, 0);
    ck_assert(!out2());
    out8(0x61, 1);
    at_tick(660);
    ck_assert(!out2());
    at_tick(661);
    ck_assert(out2());
}
END_TEST

START_TEST(mode2_counts_from_n_to_1_and_out_is_low_for_one_tick)
{
    out8(0x61, 1);
    program(2, 0x34, 10);
    for (unsigned t = 1; t < 35; t++) {
        at_tick(t);
        ck_assert_uint_eq(read16(0x42), 10 - (t - 1) % 10);
        ck_assert_int_eq(out2(), (t - 1) % 10 != 9);
    }
}
END_TEST

START_TEST(mode2_new_count_is_used_from_the_next_cycle)
{
    out8(0x61, 1);
    program(2, 0x34, 100);
    at_tick(31);
    out8(0x42, 40);
    out8(0x42, 0);
    at_tick(100);
    ck_assert_uint_eq(read16(0x42), 1);
    at_tick(101);
    ck_assert_uint_eq(read16(0x42), 40);
    at_tick(141);
    ck_assert_uint_eq(read16(0x42), 40);
}
END_TEST

START_TEST(mode2_gate_low_forces_out_high_and_edge_reloads)
{
    out8(0x61, 1);
    program(2, 0x34, 10);
    at_tick(10);
    ck_assert(!out2());
    out8(0x61, 0);
    ck_assert(out2());
    at_tick(20);
    out8(0x61, 1);
    at_tick(21);
    ck_assert_uint_eq(read16(0x42), 10);
}
END_TEST

START_TEST(mode3_even_and_odd_counts_give_square_wave)
{
    out8(0x61, 1);
    program(2, 0x36, 8);
    for (unsigned t = 1; t < 30; t++) {
        at_tick(t);
        ck_assert_int_eq(out2(), (t - 1) % 8 < 4);
        ck_assert_uint_eq(read16(0x42), 8 - 2 * ((t - 1) % 4));
    }
    at_tick(100);
    program(2, 0x36, 7);
    for (unsigned t = 101; t < 130; t++) {
        at_tick(t);
        ck_assert_int_eq(out2(), (t - 101) % 7 < 4); /* (N+1)/2 high, (N-1)/2 low */
        ck_assert_uint_eq(read16(0x42) & 1, 0);
    }
}
END_TEST

START_TEST(mode4_strobe_is_one_tick_low_once)
{
    out8(0x61, 1);
    program(2, 0x38, 20);
    at_tick(20);
    ck_assert(out2());
    at_tick(21);
    ck_assert(!out2());
    at_tick(22);
    ck_assert(out2());
    at_tick(65536 + 21 + 100);
    ck_assert(out2());
}
END_TEST

START_TEST(mode5_strobe_follows_the_gate_edge)
{
    out8(0x61, 0);
    program(2, 0x3A, 20);
    at_tick(50);
    ck_assert(out2());
    out8(0x61, 1);
    at_tick(70);
    ck_assert(out2());
    at_tick(71);
    ck_assert(!out2());
    at_tick(72);
    ck_assert(out2());
}
END_TEST

START_TEST(latch_holds_count_until_both_bytes_read)
{
    program(0, 0x34, 0x1234);
    at_tick(1 + 0x34);
    out8(0x43, 0x00);
    at_tick(1 + 0x234);
    out8(0x43, 0x00); /* ignored: the first is not read yet */
    ck_assert_uint_eq(read16(0x40), 0x1200);
    ck_assert_uint_eq(read16(0x40), 0x1000);
}
END_TEST

START_TEST(read_back_gives_status_before_count)
{
    program(0, 0x34, 0x1234);
    out8(0x43, 0xC2);                                 /* status and count of channel 0 */
    ck_assert_uint_eq(in8(0x40), 0x80 | 0x40 | 0x34); /* OUT high, null count: not loaded yet */
    read16(0x40);
    at_tick(1 + 4);
    out8(0x43, 0xC2);
    ck_assert_uint_eq(in8(0x40), 0x80 | 0x34);
    ck_assert_uint_eq(read16(0x40), 0x1230);
    out8(0x43, 0xE2); /* status only */
    ck_assert_uint_eq(in8(0x40), 0xB4);
}
END_TEST

START_TEST(low_and_high_byte_access_modes)
{
    out8(0x61, 1);
    out8(0x43, 0x94); /* channel 2, LSB only, mode 2 */
    out8(0x42, 200);
    at_tick(11);
    ck_assert_uint_eq(in8(0x42), 190);
    ck_assert_uint_eq(in8(0x42), 190);
    out8(0x43, 0xA4); /* MSB only */
    out8(0x42, 2);
    at_tick(11 + 1 + 256);
    ck_assert_uint_eq(in8(0x42), 1);
}
END_TEST

START_TEST(bcd_counts_in_decimal)
{
    out8(0x61, 1);
    program(2, 0x35, 0x1000);
    at_tick(2);
    ck_assert_uint_eq(read16(0x42), 0x0999);
    at_tick(1001);
    ck_assert_uint_eq(read16(0x42), 0x1000);
    program(2, 0x31, 0); /* 10,000 */
    at_tick(1001 + 1);
    ck_assert_uint_eq(read16(0x42), 0);
    at_tick(1001 + 2);
    ck_assert_uint_eq(read16(0x42), 0x9999);
}
END_TEST

START_TEST(channel0_periodic_has_no_drift_in_a_minute)
{
    unsigned ticks = 0;

    only_irq0();
    program(0, 0x34, 4772); /* Linux, HZ=250 */
    ck_assert(!dev_intr_level(m.bus));
    while (m.now < 60 * NS_PER_SEC) {
        m.now = m.deadline;
        dev_bus_run_timers(m.bus);
        ticks += take_irq0();
    }
    ck_assert_uint_eq(m.now, tick_ns(1 + (uint64_t)ticks * 4772));
    ck_assert_uint_eq(ticks, (60 * PIT_HZ + 4771) / 4772);
}
END_TEST

START_TEST(channel0_late_host_merges_ticks_and_keeps_phase)
{
    only_irq0();
    program(0, 0x34, 11932);
    m.now = tick_ns(1 + 11932 * 3 + 5000);
    dev_bus_run_timers(m.bus);
    ck_assert(take_irq0());
    ck_assert(!take_irq0());
    ck_assert_uint_eq(m.deadline, tick_ns(1 + 11932 * 4));
}
END_TEST

START_TEST(channel0_oneshot_mode4_and_mode0_interrupt_once)
{
    only_irq0();
    program(0, 0x38, 5000); /* pit_set_oneshot() + pit_next_event() */
    at_tick(5001);
    ck_assert(!dev_intr_level(m.bus));
    at_tick(5002);
    ck_assert(take_irq0());
    at_tick(300000);
    ck_assert(!take_irq0());
    ck_assert_uint_eq(m.deadline, UINT64_MAX);
    out8(0x40, 0x88); /* the next event: only the count */
    out8(0x40, 0x13);
    at_tick(310000);
    ck_assert(take_irq0());
    program(0, 0x30, 100);
    ck_assert(!dev_intr_level(m.bus));
    at_tick(400000);
    ck_assert(take_irq0());
    at_tick(600000);
    ck_assert(!take_irq0());
}
END_TEST

START_TEST(channel0_mode3_interrupts_once_a_period)
{
    unsigned ticks = 0;

    only_irq0();
    program(0, 0x36, 0);
    while (m.now < NS_PER_SEC) {
        m.now = m.deadline;
        dev_bus_run_timers(m.bus);
        ticks += take_irq0();
    }
    ck_assert_uint_eq(ticks, 19); /* 18.2 a second, up to the first after it */
}
END_TEST

START_TEST(channel0_tiny_period_does_not_flood_the_host)
{
    only_irq0();
    program(0, 0x34, 2);
    m.deadlines = 0;
    run_for(NS_PER_MS);
    ck_assert_uint_lt(m.deadlines, 100);
    ck_assert(take_irq0());
    program(0, 0x34, 1); /* illegal in mode 2 */
    take_irq0();
    ck_assert_uint_eq(m.deadline, UINT64_MAX);
}
END_TEST

START_TEST(edge_due_is_not_lost_by_reprogramming)
{
    only_irq0();
    program(0, 0x34, 1000);
    m.now = tick_ns(1500);
    program(0, 0x34, 2000);
    ck_assert(take_irq0());
    ck_assert_uint_eq(m.deadline, tick_ns(1500 + 1 + 2000));
}
END_TEST

START_TEST(port61_refresh_bit_toggles_every_15_us)
{
    unsigned changes = 0;
    uint8_t last = in8(0x61) & 0x10;

    for (unsigned us = 0; us < 15086; us++) {
        m.now += 1000;
        changes += (in8(0x61) & 0x10) != last;
        last = in8(0x61) & 0x10;
    }
    ck_assert_uint_ge(changes, 999);
    ck_assert_uint_le(changes, 1001);
    out8(0x61, 0xFF);
    ck_assert_uint_eq(in8(0x61) & 0xCF, 0x0F);
}
END_TEST

START_TEST(counter_agrees_with_time_after_days)
{
    out8(0x61, 1);
    program(2, 0x34, 0); /* 65,536 */
    m.now = 1000 * 86400ull * NS_PER_SEC + 123456789;
    ck_assert_uint_eq(read16(0x42),
                      (65536 - ((unsigned __int128)m.now * PIT_HZ / NS_PER_SEC - 1) % 65536) & 0xFFFF);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, quick_calibration_of_linux_sees_every_msb);
    tcase_add_test(t, mode0_channel2_out_rises_after_count_plus_one_clocks);
    tcase_add_test(t, mode0_gate_low_holds_the_count);
    tcase_add_test(t, mode0_first_byte_of_new_count_stops_counting);
    tcase_add_test(t, mode1_gate_edge_triggers_one_shot_and_retriggers);
    tcase_add_test(t, mode2_counts_from_n_to_1_and_out_is_low_for_one_tick);
    tcase_add_test(t, mode2_new_count_is_used_from_the_next_cycle);
    tcase_add_test(t, mode2_gate_low_forces_out_high_and_edge_reloads);
    tcase_add_test(t, mode3_even_and_odd_counts_give_square_wave);
    tcase_add_test(t, mode4_strobe_is_one_tick_low_once);
    tcase_add_test(t, mode5_strobe_follows_the_gate_edge);
    tcase_add_test(t, latch_holds_count_until_both_bytes_read);
    tcase_add_test(t, read_back_gives_status_before_count);
    tcase_add_test(t, low_and_high_byte_access_modes);
    tcase_add_test(t, bcd_counts_in_decimal);
    tcase_add_test(t, channel0_periodic_has_no_drift_in_a_minute);
    tcase_add_test(t, channel0_late_host_merges_ticks_and_keeps_phase);
    tcase_add_test(t, channel0_oneshot_mode4_and_mode0_interrupt_once);
    tcase_add_test(t, channel0_mode3_interrupts_once_a_period);
    tcase_add_test(t, channel0_tiny_period_does_not_flood_the_host);
    tcase_add_test(t, edge_due_is_not_lost_by_reprogramming);
    tcase_add_test(t, port61_refresh_bit_toggles_every_15_us);
    tcase_add_test(t, counter_agrees_with_time_after_days);
}

int main(void)
{
    return run_suite("dev_pit", add);
}
