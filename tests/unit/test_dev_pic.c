/* The 8259 pair: sources are COM1 (IRQ 4), the keyboard (1), the mouse (12), the RTC (8) and the PIT (0). */
#include "dev_machine.h"
#include "devices/chips.h"

static void irq(unsigned n, bool level)
{
    bus_irq(m.bus, n, level);
}

static void pulse(unsigned n)
{
    irq(n, false);
    irq(n, true);
}

static void unmask_all(void)
{
    linux_init_8259(false);
    out8(0x21, 0);
    out8(0xA1, 0);
}

START_TEST(probe_of_linux_reads_back_the_mask)
{
    /* probe_8259A(): no PIC is assumed if the mask does not read back. */
    out8(0xA1, 0xFF);
    out8(0x21, 0xFB);
    ck_assert_uint_eq(in8(0x21), 0xFB);
}
END_TEST

START_TEST(request_masked_gives_no_intr_until_unmasked)
{
    linux_init_8259(false);
    irq(4, true);
    ck_assert(!dev_intr_level(m.bus));
    out8(0x21, 0xEF);
    ck_assert(dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    ck_assert(!dev_intr_level(m.bus));
}
END_TEST

START_TEST(vectors_are_in_fixed_priority_order)
{
    static const unsigned order[] = {0, 1, 8, 10, 15, 3, 7};

    unmask_all();
    for (unsigned i = 7; i-- > 0;)
        pulse(order[i]);
    for (unsigned i = 0; i < 7; i++) {
        ck_assert_uint_eq(dev_intr_ack(m.bus), 0x30 + order[i]);
        if (order[i] >= 8)
            out8(0xA0, 0x20);
        out8(0x20, 0x20);
    }
    ck_assert(!dev_intr_level(m.bus));
}
END_TEST

START_TEST(higher_priority_nests_lower_waits)
{
    unmask_all();
    pulse(4);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    pulse(5);
    ck_assert(!dev_intr_level(m.bus));
    pulse(1);
    ck_assert(dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x31);
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0x12);
    out8(0x20, 0x0A);
    ck_assert_uint_eq(in8(0x20), 0x20);
    out8(0x20, 0x20);
    out8(0x20, 0x20);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x35);
}
END_TEST

START_TEST(line_withdrawn_before_ack_is_spurious_irq7_without_isr)
{
    unmask_all();
    irq(4, true);
    irq(4, false);
    ck_assert(!dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x37);
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0);
}
END_TEST

START_TEST(edge_line_kept_high_interrupts_once)
{
    unmask_all();
    irq(4, true);
    dev_intr_ack(m.bus);
    out8(0x20, 0x20);
    ck_assert(!dev_intr_level(m.bus));
    pulse(4);
    ck_assert(dev_intr_level(m.bus));
}
END_TEST

START_TEST(level_line_kept_high_interrupts_again)
{
    unmask_all();
    out8(0x4D0, 0xFF);
    out8(0x4D1, 0xFF);
    ck_assert_uint_eq(in8(0x4D0), 0xF8);
    ck_assert_uint_eq(in8(0x4D1), 0xDE);
    irq(11, true);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3B);
    out8(0xA0, 0x20);
    out8(0x20, 0x20);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3B);
    irq(11, false);
    out8(0xA0, 0x20);
    out8(0x20, 0x20);
    ck_assert(!dev_intr_level(m.bus));
}
END_TEST

START_TEST(specific_eoi_ends_only_its_level)
{
    unmask_all();
    pulse(4);
    dev_intr_ack(m.bus);
    pulse(1);
    dev_intr_ack(m.bus);
    out8(0x20, 0x64); /* as Linux: specific EOI of IRQ 4 */
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0x02);
}
END_TEST

START_TEST(linux_mask_and_ack_of_slave_irq_lets_next_through)
{
    unmask_all();
    pulse(8);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x38);
    pulse(12);
    ck_assert(!dev_intr_level(m.bus));
    in8(0xA1);
    out8(0xA1, 0x01);
    out8(0xA0, 0x60);
    out8(0x20, 0x62);
    ck_assert(dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3C);
}
END_TEST

START_TEST(rotate_on_eoi_makes_served_level_lowest)
{
    unmask_all();
    pulse(4);
    dev_intr_ack(m.bus);
    out8(0x20, 0xA0);
    pulse(4);
    pulse(6);
    pulse(1);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x36);
    out8(0x20, 0x20);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x31);
    out8(0x20, 0x20);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
}
END_TEST

START_TEST(set_priority_command_orders_inputs)
{
    unmask_all();
    out8(0x20, 0xC0 | 5); /* IR5 lowest: IR6 highest */
    pulse(0);
    pulse(6);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x36);
}
END_TEST

START_TEST(auto_eoi_leaves_isr_clear_and_slave_serves_all)
{
    linux_init_8259(true);
    out8(0xA0, 0x11);
    out8(0xA1, 0x38);
    out8(0xA1, 0x02);
    out8(0xA1, 0x03);
    out8(0x21, 0);
    out8(0xA1, 0);
    pulse(9);
    irq(9, false);
    pulse(10);
    pulse(12);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3A);
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0);
    ck_assert(dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x3C);
    ck_assert(!dev_intr_level(m.bus));
}
END_TEST

START_TEST(poll_acknowledges_and_names_the_level)
{
    unmask_all();
    pulse(4);
    out8(0x20, 0x0C);
    ck_assert_uint_eq(in8(0x20), 0x84);
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0x10);
    out8(0x20, 0x0C);
    ck_assert_uint_eq(in8(0x20) & 0x80, 0);
}
END_TEST

START_TEST(special_mask_mode_lets_lower_levels_through)
{
    unmask_all();
    pulse(1);
    dev_intr_ack(m.bus);
    pulse(6);
    ck_assert(!dev_intr_level(m.bus));
    out8(0x21, 0x02);
    ck_assert(!dev_intr_level(m.bus));
    out8(0x20, 0x68);
    ck_assert(dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x36);
    out8(0x20, 0x20); /* non-specific: IR1 is masked, so IR6 ends */
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0x02);
}
END_TEST

START_TEST(special_fully_nested_master_takes_higher_slave_request)
{
    unmask_all();
    pulse(12);
    dev_intr_ack(m.bus);
    pulse(8);
    ck_assert(!dev_intr_level(m.bus)); /* normal nesting: IR2 is in service */
    out8(0x20, 0x11);
    out8(0x21, 0x30);
    out8(0x21, 0x04);
    out8(0x21, 0x11);
    out8(0xA0, 0x20);
    irq(8, false);
    pulse(12);
    dev_intr_ack(m.bus);
    pulse(8);
    ck_assert(dev_intr_level(m.bus));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x38);
    pulse(3); /* below the slave at the master: waits as ever */
    ck_assert(!dev_intr_level(m.bus));
    out8(0xA0, 0x20);
    out8(0xA0, 0x20);
    out8(0x20, 0x20);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x33);
}
END_TEST

START_TEST(auto_eoi_with_rotation_makes_served_level_lowest)
{
    linux_init_8259(true);
    out8(0x21, 0);
    out8(0x20, 0x80); /* rotate in automatic EOI mode: set */
    irq(3, true);
    irq(4, true);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x33);
    pulse(3);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34); /* 3 is the lowest now */
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x33);
    out8(0x20, 0x00); /* clear: the order stays as it is */
    pulse(5);
    pulse(4);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    pulse(4);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x35);
}
END_TEST

START_TEST(poll_of_the_pair_names_the_slave_then_its_level)
{
    unmask_all();
    out8(0x20, 0x0C);
    ck_assert_uint_eq(in8(0x20) & 0x80, 0); /* nothing */
    irq(14, true);
    out8(0x20, 0x0C);
    ck_assert_uint_eq(in8(0x21), 0x82); /* the next read of either port */
    out8(0xA0, 0x0C);
    ck_assert_uint_eq(in8(0xA0), 0x86);
    ck_assert(!dev_intr_level(m.bus));
    out8(0xA0, 0x0B);
    ck_assert_uint_eq(in8(0xA0), 0x40); /* both are in service */
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0x04);
    out8(0xA0, 0x20);
    out8(0x20, 0x20);
    ck_assert_uint_eq(in8(0x20), 0); /* the selection stays */
}
END_TEST

START_TEST(non_specific_eoi_in_special_mask_mode_leaves_masked_levels_in_service)
{
    unmask_all();
    irq(1, true);
    dev_intr_ack(m.bus);
    out8(0x21, 0x02);
    out8(0x20, 0x68); /* special mask mode */
    irq(4, true);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    out8(0x20, 0x20);
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0x02);
    pulse(5);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x35);
    pulse(6);
    ck_assert(!dev_intr_level(m.bus)); /* unmasked levels in service go on to hold back lower ones */
    out8(0x20, 0x48);                  /* back */
    out8(0x20, 0x20);
    ck_assert_uint_eq(in8(0x20), 0x20); /* the highest in service was 1 */
}
END_TEST

START_TEST(icw1_resets_edges_mask_and_service)
{
    unmask_all();
    irq(4, true);
    dev_intr_ack(m.bus);
    irq(3, true);
    linux_init_8259(false);
    out8(0x21, 0);
    ck_assert(!dev_intr_level(m.bus)); /* "IR input must make a low-to-high transition" */
    out8(0x20, 0x0B);
    ck_assert_uint_eq(in8(0x20), 0);
    pulse(3);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x33);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, probe_of_linux_reads_back_the_mask);
    tcase_add_test(t, request_masked_gives_no_intr_until_unmasked);
    tcase_add_test(t, vectors_are_in_fixed_priority_order);
    tcase_add_test(t, higher_priority_nests_lower_waits);
    tcase_add_test(t, line_withdrawn_before_ack_is_spurious_irq7_without_isr);
    tcase_add_test(t, edge_line_kept_high_interrupts_once);
    tcase_add_test(t, level_line_kept_high_interrupts_again);
    tcase_add_test(t, specific_eoi_ends_only_its_level);
    tcase_add_test(t, linux_mask_and_ack_of_slave_irq_lets_next_through);
    tcase_add_test(t, rotate_on_eoi_makes_served_level_lowest);
    tcase_add_test(t, set_priority_command_orders_inputs);
    tcase_add_test(t, auto_eoi_leaves_isr_clear_and_slave_serves_all);
    tcase_add_test(t, poll_acknowledges_and_names_the_level);
    tcase_add_test(t, special_mask_mode_lets_lower_levels_through);
    tcase_add_test(t, special_fully_nested_master_takes_higher_slave_request);
    tcase_add_test(t, auto_eoi_with_rotation_makes_served_level_lowest);
    tcase_add_test(t, poll_of_the_pair_names_the_slave_then_its_level);
    tcase_add_test(t, non_specific_eoi_in_special_mask_mode_leaves_masked_levels_in_service);
    tcase_add_test(t, icw1_resets_edges_mask_and_service);
}

int main(void)
{
    return run_suite("dev_pic", add);
}
