/* The local APIC against SDM vol. 3, chapter 10. */
#include "dev_apic.h"

#include "devices/chips.h"

#define HZ 100000000u /* of its timer here: 10 ns a count */

static void isa_line(unsigned irq, bool level)
{
    bus_irq(m.bus, irq, level);
}

START_TEST(firmware_leaves_virtual_wire_mode)
{
    ck_assert_uint_eq(a_read(A_ID), 0);
    ck_assert_uint_eq(a_read(A_VERSION), 0x00050014);
    ck_assert_uint_eq(a_read(A_SVR), 0x10F);
    ck_assert_uint_eq(a_read(A_LINT0), 0x700);
    ck_assert_uint_eq(a_read(A_LINT1), 0x400);
    ck_assert_uint_eq(a_read(A_TIMER), 0x10000);
    ck_assert_uint_eq(a_read(A_DFR), 0xFFFFFFFF);
}
END_TEST

START_TEST(interrupts_of_the_8259_pass_through_lint0_as_extint)
{
    linux_init_8259(false);
    out8(0x21, 0xEF);
    isa_line(4, true);
    ck_assert(m.intr);
    a_write(A_TPR, 0xFF); /* ExtINT passes all priorities by */
    ck_assert(m.intr);
    a_write(A_LINT0, 0x10700);
    ck_assert(!m.intr);
    a_write(A_LINT0, 0x700);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    ck_assert(!a_bit(A_ISR, 0x34)); /* the 8259 has it in service, not the APIC */
}
END_TEST

START_TEST(lint0_in_fixed_mode_gives_its_own_vector)
{
    linux_init_8259(false);
    out8(0x21, 0xEF);
    a_write(A_LINT0, 0x51);
    isa_line(4, true);
    ck_assert_uint_eq(take(), 0x51);
    isa_line(4, false);
    isa_line(4, true);
    ck_assert_uint_eq(take(), 0x51);
    isa_line(4, false);
    a_write(A_LINT0, 0x8052); /* level: again after EOI while it lasts */
    isa_line(4, true);
    ck_assert(a_read(A_LINT0) & 0x4000);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x52);
    ck_assert(!m.intr);
    isa_line(4, false);
    isa_line(4, true);
    ck_assert(!m.intr); /* not while the first is in service */
    a_write(A_EOI, 0);
    ck_assert(m.intr);
    isa_line(4, false);
    ck_assert_uint_eq(take(), 0x52);
    ck_assert(!m.intr);
    ck_assert(!(a_read(A_LINT0) & 0x4000));
}
END_TEST

START_TEST(priorities_order_requests_and_tpr_holds_them_back)
{
    a_symmetric();
    a_self(0x41);
    a_self(0x61);
    a_self(0x52);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x61);
    ck_assert(!m.intr); /* the others are of lower priority than what is in service */
    ck_assert_uint_eq(a_read(A_PPR), 0x60);
    a_self(0x6F); /* same class */
    ck_assert(!m.intr);
    a_self(0x70);
    ck_assert_uint_eq(take(), 0x70);
    ck_assert(!m.intr);
    a_write(A_EOI, 0);
    ck_assert_uint_eq(take(), 0x6F);
    a_write(A_TPR, 0x4F);
    ck_assert_uint_eq(a_read(A_PPR), 0x4F);
    ck_assert_uint_eq(take(), 0x52);
    ck_assert(!m.intr);
    a_write(A_TPR, 0x3F);
    ck_assert_uint_eq(take(), 0x41);
    ck_assert(!m.intr);
}
END_TEST

START_TEST(isr_irr_and_tmr_show_the_vector)
{
    a_symmetric();
    a_self(0xB7);
    ck_assert(a_bit(A_IRR, 0xB7));
    ck_assert(!a_bit(A_ISR, 0xB7));
    dev_intr_ack(m.bus);
    ck_assert(!a_bit(A_IRR, 0xB7));
    ck_assert(a_bit(A_ISR, 0xB7));
    ck_assert(!a_bit(A_TMR, 0xB7));
    a_self(0xB7); /* one more may wait */
    a_self(0xB7);
    a_write(A_EOI, 0);
    ck_assert_uint_eq(take(), 0xB7);
    ck_assert(!m.intr);
    a_write(A_ISR + 0x50, 0xFFFFFFFF); /* read-only */
    a_write(A_IRR + 0x50, 0xFFFFFFFF);
    ck_assert(!m.intr);
}
END_TEST

START_TEST(eoi_without_interrupt_does_nothing_and_a_withdrawn_one_is_spurious)
{
    a_symmetric();
    a_write(A_EOI, 0);
    a_self(0x40);
    a_write(A_TPR, 0xF0);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0xFF);
    ck_assert(!a_bit(A_ISR, 0xFF));
}
END_TEST

START_TEST(destinations_match_id_broadcast_flat_and_cluster)
{
    static const struct {
        uint32_t dfr, ldr, mode, destination;
        bool reached;
    } rows[] = {
        {0xFFFFFFFF, 0, 0x000, 3, true},        {0xFFFFFFFF, 0, 0x000, 2, false},
        {0xFFFFFFFF, 0, 0x000, 0xFF, true},     {0xFFFFFFFF, 0x04, 0x800, 0x0C, true},
        {0xFFFFFFFF, 0x04, 0x800, 0x0B, false}, {0xFFFFFFFF, 0x00, 0x800, 0x7F, false},
        {0xFFFFFFFF, 0x00, 0x800, 0xFF, true},  {0x0FFFFFFF, 0x24, 0x800, 0x2C, true},
        {0x0FFFFFFF, 0x24, 0x800, 0x2B, false}, {0x0FFFFFFF, 0x24, 0x800, 0x3C, false},
        {0xFFFFFFFF, 0x04, 0x900, 0x04, true}, /* lowest priority */
    };

    a_symmetric();
    a_write(A_ID, 3u << 24);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        a_write(A_DFR, rows[i].dfr);
        a_write(A_LDR, rows[i].ldr << 24);
        a_write(A_ICR2, rows[i].destination << 24);
        a_write(A_ICR, rows[i].mode | 0x45);
        ck_assert_msg(m.intr == rows[i].reached, "row %u", i);
        if (m.intr)
            ck_assert_uint_eq(take(), 0x45);
    }
    ck_assert_uint_eq(a_read(A_ICR2), 4u << 24);
    ck_assert_uint_eq(a_read(A_ICR), 0x945); /* delivery status: idle */
}
END_TEST

START_TEST(shorthands_self_and_all_reach_us_others_do_not)
{
    a_symmetric();
    a_write(A_ICR2, 9u << 24); /* not looked at */
    a_write(A_ICR, 0x40051);
    ck_assert_uint_eq(take(), 0x51);
    a_write(A_ICR, 0x80052);
    ck_assert_uint_eq(take(), 0x52);
    a_write(A_ICR, 0xC0053);
    ck_assert(!m.intr);
}
END_TEST

START_TEST(nmi_init_and_startup_go_past_the_vectors)
{
    a_symmetric();
    a_write(A_ICR, 0x4400);
    ck_assert_uint_eq(m.nmis, 1);
    a_write(A_ICR, 0x8500); /* INIT level de-assert: nothing */
    ck_assert_uint_eq(m.inits, 0);
    a_write(A_ICR, 0x4610); /* start-up: we do not wait for one */
    a_write(A_ICR, 0x4200); /* SMI */
    ck_assert_uint_eq(m.inits, 0);
    ck_assert_uint_eq(m.nmis, 1);
    a_self(0x40);
    a_write(A_ID, 5u << 24);
    a_write(A_ICR, 0x44500);
    ck_assert_uint_eq(m.inits, 1);
    ck_assert_uint_eq(a_read(A_ID), 5u << 24); /* the ID stays (10.4.7.3) */
    ck_assert_uint_eq(a_read(A_SVR), 0xFF);
    ck_assert_uint_eq(a_read(A_LINT0), 0x10000);
    ck_assert(!m.intr);
}
END_TEST

START_TEST(nmi_line_comes_by_lint1_or_straight_without_an_apic)
{
    dev_nmi_line(m.bus, true);
    dev_nmi_line(m.bus, true); /* an edge */
    ck_assert_uint_eq(m.nmis, 1);
    dev_nmi_line(m.bus, false);
    a_write(A_LINT1, 0x10400);
    dev_nmi_line(m.bus, true);
    ck_assert_uint_eq(m.nmis, 1);
    dev_nmi_line(m.bus, false);
    a_write(A_LINT1, 0x66);
    dev_nmi_line(m.bus, true);
    ck_assert_uint_eq(m.nmis, 1);
    ck_assert_uint_eq(take(), 0x66);
    dev_nmi_line(m.bus, false);
    dev_apic_set_base(m.bus, LAPIC | 0x100);
    dev_nmi_line(m.bus, true);
    ck_assert_uint_eq(m.nmis, 2);
    dev_nmi_line(m.bus, false);
    out8(0x70, 0x80); /* NMIs off */
    dev_nmi_line(m.bus, true);
    ck_assert_uint_eq(m.nmis, 2);
}
END_TEST

START_TEST(software_disable_masks_the_lvt_and_takes_nothing)
{
    a_symmetric();
    a_write(A_TIMER, 0x20040);
    a_self(0x50);
    a_write(A_SVR, 0xFF);
    ck_assert_uint_eq(a_read(A_TIMER), 0x30040);
    a_write(A_TIMER, 0x41);
    ck_assert_uint_eq(a_read(A_TIMER), 0x10041); /* the mask cannot be cleared */
    a_self(0x60);
    ck_assert(!a_bit(A_IRR, 0x60));
    ck_assert_uint_eq(take(), 0x50); /* what was accepted before stays */
    a_write(A_ICR, 0x4400);          /* NMIs go on */
    ck_assert_uint_eq(m.nmis, 1);
    a_write(A_SVR, 0x1FF);
    ck_assert_uint_eq(a_read(A_TIMER), 0x10041);
}
END_TEST

START_TEST(global_disable_hides_the_registers_and_joins_intr_to_the_8259)
{
    linux_init_8259(false);
    out8(0x21, 0xEF);
    a_symmetric();
    a_write(A_ID, 7u << 24);
    a_self(0x50);
    isa_line(4, true);
    dev_apic_set_base(m.bus, LAPIC | 0x100);
    ck_assert_uint_eq(a_read(A_VERSION), 0xFFFFFFFF);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    dev_apic_set_base(m.bus, LAPIC | 0x900);
    ck_assert_uint_eq(a_read(A_ID), 0); /* as after power-up (10.4.3) */
    ck_assert_uint_eq(a_read(A_SVR), 0xFF);
    ck_assert(!a_bit(A_IRR, 0x50));
}
END_TEST

START_TEST(base_moves_the_registers)
{
    dev_apic_set_base(m.bus, 0xFED40900);
    ck_assert_uint_eq(a_read(A_VERSION), 0xFFFFFFFF);
    ck_assert_uint_eq(dev_mmio_read(m.bus, 0xFED40030, 4), 0x00050014);
}
END_TEST

START_TEST(reserved_bits_read_as_zero_and_version_cannot_be_written)
{
    static const unsigned regs[] = {A_TPR,  A_LDR,   A_SVR,   A_ICR2,  A_TIMER, A_THERMAL,
                                    A_PERF, A_LINT0, A_LINT1, A_ERROR, A_DIVIDE};
    static const uint32_t want[] = {0xFF,    0xFF000000, 0x3FF,   0xFF000000, 0x300FF, 0x107FF,
                                    0x107FF, 0x1A7FF,    0x1A7FF, 0x100FF,    0xB};

    for (unsigned i = 0; i < sizeof regs / sizeof regs[0]; i++) {
        a_write(regs[i], 0xFFFFFFFF);
        ck_assert_msg(a_read(regs[i]) == want[i], "register %03x: %08x", regs[i], a_read(regs[i]));
    }
    a_write(A_VERSION, 0);
    ck_assert_uint_eq(a_read(A_VERSION), 0x00050014);
    a_write(A_DFR, 0);
    ck_assert_uint_eq(a_read(A_DFR), 0x0FFFFFFF);
}
END_TEST

START_TEST(errors_are_latched_by_a_write_and_interrupt)
{
    a_symmetric();
    a_write(A_ERROR, 0xFE);
    a_self(0x0F);
    ck_assert_uint_eq(a_read(A_ESR), 0);
    ck_assert_uint_eq(take(), 0xFE);
    a_write(A_ESR, 0);
    ck_assert_uint_eq(a_read(A_ESR), 0x20); /* send illegal vector */
    ck_assert_uint_eq(a_read(0x400), 0);
    ck_assert_uint_eq(take(), 0xFE);
    a_write(A_ESR, 0);
    ck_assert_uint_eq(a_read(A_ESR), 0x80); /* illegal register address */
    a_write(A_ESR, 0);
    ck_assert_uint_eq(a_read(A_ESR), 0);
    a_write(A_ERROR, 0x03); /* an illegal vector of its own must not go round in circles */
    a_self(0x0F);
    ck_assert(!m.intr);
    a_write(A_ESR, 0);
    ck_assert_uint_eq(a_read(A_ESR), 0x60);
}
END_TEST

START_TEST(accesses_of_other_widths_are_defined)
{
    ck_assert_uint_eq(dev_mmio_read(m.bus, LAPIC + A_VERSION, 1), 0x14);
    ck_assert_uint_eq(dev_mmio_read(m.bus, LAPIC + A_VERSION + 2, 2), 0x05);
    ck_assert_uint_eq(dev_mmio_read(m.bus, LAPIC + A_VERSION + 1, 4), 0x0500);
    ck_assert_uint_eq(dev_mmio_read(m.bus, LAPIC + A_VERSION + 4, 4), 0);
    dev_mmio_write(m.bus, LAPIC + A_TPR, 1, 0x55);
    dev_mmio_write(m.bus, LAPIC + A_TPR, 2, 0x55);
    dev_mmio_write(m.bus, LAPIC + A_TPR + 1, 4, 0x55);
    ck_assert_uint_eq(a_read(A_TPR), 0);
    ck_assert_uint_eq(dev_mmio_read(m.bus, LAPIC + 0xFFE, 4) >> 16, 0xFFFF); /* half of it beyond the page */
}
END_TEST

/* -- The timer ---------------------------------------------------------------------------------------------
 */

static void timer(uint32_t lvt, uint32_t divide, uint32_t initial)
{
    dev_apic_set_clock(m.bus, HZ);
    a_symmetric();
    a_write(A_TIMER, lvt);
    a_write(A_DIVIDE, divide);
    a_write(A_INITIAL, initial);
}

START_TEST(one_shot_counts_down_interrupts_once_and_stays_at_zero)
{
    timer(0x40, 0xB, 1000); /* 10 us */
    run_for(4000);
    ck_assert_uint_eq(a_read(A_CURRENT), 600);
    ck_assert(!m.intr);
    run_for(5990);
    ck_assert_uint_eq(a_read(A_CURRENT), 1);
    ck_assert(!m.intr);
    run_for(10);
    ck_assert_uint_eq(a_read(A_CURRENT), 0);
    ck_assert_uint_eq(take(), 0x40);
    run_for(50000);
    ck_assert(!m.intr);
    ck_assert_uint_eq(a_read(A_CURRENT), 0);
    ck_assert_uint_eq(a_read(A_INITIAL), 1000);
    a_write(A_INITIAL, 1000);
    a_write(A_INITIAL, 0); /* stops */
    run_for(50000);
    ck_assert(!m.intr);
}
END_TEST

START_TEST(periodic_repeats_in_phase_also_for_a_late_host)
{
    timer(0x20041, 0xB, 10000); /* 100 us */
    for (unsigned i = 0; i < 5; i++) {
        run_for(100000);
        ck_assert_uint_eq(take(), 0x41);
    }
    m.now += 250000; /* nobody ran */
    dev_bus_run_timers(m.bus);
    ck_assert_uint_eq(take(), 0x41);
    ck_assert(!m.intr);
    ck_assert_uint_eq(a_read(A_CURRENT), 5000);
    run_for(49990);
    ck_assert(!m.intr);
    run_for(10);
    ck_assert_uint_eq(take(), 0x41);
}
END_TEST

START_TEST(divider_values)
{
    static const uint8_t code[8] = {0xB, 0, 1, 2, 3, 8, 9, 0xA}; /* 1, 2, 4, ... 128 */

    for (unsigned i = 0; i < 8; i++) {
        timer(0x10040, code[i], 1000000);
        run_for(128 * 10 * 100);
        ck_assert_msg(1000000 - a_read(A_CURRENT) == 12800u >> i, "divider %u", 1u << i);
    }
}
END_TEST

START_TEST(change_of_divider_or_mode_keeps_the_count)
{
    timer(0x10040, 0xB, 1000000);
    run_for(1000);
    ck_assert_uint_eq(a_read(A_CURRENT), 999900);
    a_write(A_DIVIDE, 0); /* by two */
    ck_assert_uint_eq(a_read(A_CURRENT), 999900);
    run_for(2000);
    ck_assert_uint_eq(a_read(A_CURRENT), 999800);
    a_write(A_TIMER, 0x30040);
    ck_assert_uint_eq(a_read(A_CURRENT), 999800);
    run_for(2000 * 9998);
    ck_assert_uint_eq(a_read(A_CURRENT), 1000000); /* began again */
    run_for(2000);
    a_write(A_TIMER, 0x10040); /* to one-shot in the second period */
    ck_assert_uint_eq(a_read(A_CURRENT), 999900);
    run_for(2000 * 9999);
    ck_assert_uint_eq(a_read(A_CURRENT), 0);
    a_write(A_TIMER, 0x30040); /* expired: stays at zero until it is set */
    run_for(2000);
    ck_assert_uint_eq(a_read(A_CURRENT), 0);
}
END_TEST

START_TEST(masked_timer_wakes_nobody_and_leaves_no_interrupt_behind)
{
    timer(0x30040, 0xB, 10000);
    ck_assert_uint_gt(m.deadline, m.now + 100000); /* the 8254's, at 18.2 Hz */
    run_for(1050000);
    ck_assert(!m.intr);
    a_write(A_TIMER, 0x20040);
    ck_assert(!m.intr);
    run_for(50000);
    ck_assert_uint_eq(take(), 0x40);
}
END_TEST

START_TEST(expiry_is_not_lost_by_a_write_that_comes_before_the_host)
{
    timer(0x40, 0xB, 100);
    m.now += 5000; /* due, but the timers were not run */
    a_write(A_TIMER, 0x10040);
    ck_assert_uint_eq(take(), 0x40);
}
END_TEST

START_TEST(fast_periodic_timer_is_bounded)
{
    unsigned before;

    timer(0x20040, 0xB, 1);
    before = m.deadlines;
    run_for(NS_PER_MS);
    ck_assert_uint_le(m.deadlines - before, 60);
}
END_TEST

START_TEST(writes_are_counted)
{
    struct dev_apic_counts n;

    a_symmetric();
    a_self(0x40);
    take();
    a_write(A_TPR, 0x10);
    a_write(A_TPR, 0);
    a_write(A_INITIAL, 5);
    n = dev_apic_counts(m.bus);
    ck_assert_uint_eq(n.eoi, 1);
    ck_assert_uint_eq(n.tpr, 2);
    ck_assert_uint_eq(n.icr, 1);
    ck_assert_uint_eq(n.timer, 1);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, firmware_leaves_virtual_wire_mode);
    tcase_add_test(t, interrupts_of_the_8259_pass_through_lint0_as_extint);
    tcase_add_test(t, lint0_in_fixed_mode_gives_its_own_vector);
    tcase_add_test(t, priorities_order_requests_and_tpr_holds_them_back);
    tcase_add_test(t, isr_irr_and_tmr_show_the_vector);
    tcase_add_test(t, eoi_without_interrupt_does_nothing_and_a_withdrawn_one_is_spurious);
    tcase_add_test(t, destinations_match_id_broadcast_flat_and_cluster);
    tcase_add_test(t, shorthands_self_and_all_reach_us_others_do_not);
    tcase_add_test(t, nmi_init_and_startup_go_past_the_vectors);
    tcase_add_test(t, nmi_line_comes_by_lint1_or_straight_without_an_apic);
    tcase_add_test(t, software_disable_masks_the_lvt_and_takes_nothing);
    tcase_add_test(t, global_disable_hides_the_registers_and_joins_intr_to_the_8259);
    tcase_add_test(t, base_moves_the_registers);
    tcase_add_test(t, reserved_bits_read_as_zero_and_version_cannot_be_written);
    tcase_add_test(t, errors_are_latched_by_a_write_and_interrupt);
    tcase_add_test(t, accesses_of_other_widths_are_defined);
    tcase_add_test(t, one_shot_counts_down_interrupts_once_and_stays_at_zero);
    tcase_add_test(t, periodic_repeats_in_phase_also_for_a_late_host);
    tcase_add_test(t, divider_values);
    tcase_add_test(t, change_of_divider_or_mode_keeps_the_count);
    tcase_add_test(t, masked_timer_wakes_nobody_and_leaves_no_interrupt_behind);
    tcase_add_test(t, expiry_is_not_lost_by_a_write_that_comes_before_the_host);
    tcase_add_test(t, fast_periodic_timer_is_bounded);
    tcase_add_test(t, writes_are_counted);
}

int main(void)
{
    return run_suite("dev_lapic", add);
}
