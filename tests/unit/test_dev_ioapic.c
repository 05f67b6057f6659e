/* The 82093AA: redirection, triggers, remote IRR, and how a PC is wired. */
#include "dev_apic.h"

#include "devices/chips.h"

#define PIN        14u
#define MASKED     0x10000u
#define LEVEL      0x8000u
#define LOW        0x2000u
#define REMOTE_IRR 0x4000u

static void isa_line(unsigned irq, bool level)
{
    bus_irq(m.bus, irq, level);
}

static uint32_t low_half(unsigned pin)
{
    return io_read(0x10 + 2 * pin);
}

START_TEST(registers_after_reset)
{
    ck_assert_uint_eq(io_read(0), 0);
    ck_assert_uint_eq(io_read(1), 0x00170011);
    for (unsigned pin = 0; pin < 24; pin++) {
        ck_assert_uint_eq(low_half(pin), MASKED);
        ck_assert_uint_eq(io_read(0x11 + 2 * pin), 0);
    }
    ck_assert_uint_eq(io_read(0x40), 0); /* no such register */
    io_write(1, 0);
    io_write(2, 0xFFFFFFFF);
    ck_assert_uint_eq(io_read(1), 0x00170011);
    io_write(0, 0xFFFFFFFF);
    ck_assert_uint_eq(io_read(0), 0x0F000000);
    ck_assert_uint_eq(io_read(2), 0x0F000000);
    io_entry(PIN, 0xFFFFFFFF, 0xFFFFFFFF);
    ck_assert_uint_eq(io_read(0x11 + 2 * PIN), 0xFF000000);
    ck_assert_uint_eq(low_half(PIN), 0x1AFFF);
}
END_TEST

START_TEST(edge_is_delivered_once_and_lost_while_masked)
{
    a_symmetric();
    io_entry(PIN, 0, MASKED | 0x76);
    isa_line(14, true);
    isa_line(14, false);
    io_entry(PIN, 0, 0x76);
    ck_assert(!m.intr);
    isa_line(14, true);
    isa_line(14, true);
    ck_assert_uint_eq(take(), 0x76);
    ck_assert(!m.intr);
    ck_assert(!a_bit(A_TMR, 0x76));
    ck_assert(!(low_half(PIN) & REMOTE_IRR));
}
END_TEST

START_TEST(level_waits_for_eoi_and_comes_again_while_asserted)
{
    a_symmetric();
    io_entry(PIN, 0, MASKED | LEVEL | 0x77);
    isa_line(14, true);
    ck_assert(!m.intr);
    io_entry(PIN, 0, LEVEL | 0x77);
    ck_assert(low_half(PIN) & REMOTE_IRR);
    ck_assert(a_bit(A_TMR, 0x77));
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x77);
    isa_line(14, false);
    isa_line(14, true);
    ck_assert(!m.intr);
    a_write(A_EOI, 0);
    ck_assert(m.intr);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x77);
    isa_line(14, false);
    a_write(A_EOI, 0);
    ck_assert(!m.intr);
    ck_assert(!(low_half(PIN) & REMOTE_IRR));
}
END_TEST

START_TEST(eoi_of_an_edge_with_the_same_vector_is_not_broadcast)
{
    a_symmetric();
    io_entry(PIN, 0, LEVEL | 0x77);
    isa_line(14, true);
    dev_intr_ack(m.bus);
    a_self(0x77); /* TMR is now that of an edge */
    a_write(A_EOI, 0);
    ck_assert(low_half(PIN) & REMOTE_IRR);
    take();
    ck_assert(low_half(PIN) & REMOTE_IRR);
    io_entry(PIN, 0, MASKED | 0x77); /* how Linux gets rid of it: edge, then level again */
    io_entry(PIN, 0, LEVEL | 0x77);
    ck_assert(m.intr);
}
END_TEST

START_TEST(polarity_turns_the_pin_round)
{
    a_symmetric();
    io_entry(PIN, 0, MASKED | LEVEL | LOW | 0x51);
    isa_line(14, true);
    io_entry(PIN, 0, LEVEL | LOW | 0x51);
    ck_assert(!m.intr);
    isa_line(14, false);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x51);
    isa_line(14, true);
    a_write(A_EOI, 0);
    ck_assert(!m.intr);
    io_entry(20, 0, LEVEL | LOW | 0x52); /* PCI's lines rest high */
    ck_assert(!m.intr);
    dev_ioapic_set(&m.bus->ioapic, 20, false);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x52);
}
END_TEST

START_TEST(delivery_modes)
{
    a_symmetric();
    io_entry(PIN, 0, 0x400);
    isa_line(14, true);
    ck_assert_uint_eq(m.nmis, 1);
    isa_line(14, false);
    io_entry(PIN, 0, 0x500);
    isa_line(14, true);
    ck_assert_uint_eq(m.inits, 1);
    isa_line(14, false);
    a_symmetric();
    io_entry(PIN, 0, 0x161); /* lowest priority */
    isa_line(14, true);
    ck_assert_uint_eq(take(), 0x61);
    isa_line(14, false);
    io_entry(PIN, 0, 0x200); /* SMI */
    isa_line(14, true);
    ck_assert(!m.intr);
}
END_TEST

START_TEST(destination_that_does_not_exist_gets_nothing)
{
    a_symmetric();
    io_entry(PIN, 1u << 24, LEVEL | 0x61);
    isa_line(14, true);
    ck_assert(!m.intr);
    ck_assert(!(low_half(PIN) & REMOTE_IRR));
    a_write(A_ID, 1u << 24); /* the level is still there when somebody takes it */
    ck_assert_uint_eq(take(), 0x61);
    isa_line(14, false);
    take();
    io_entry(PIN, 0x02u << 24, LEVEL | 0x800 | 0x62);
    isa_line(14, true);
    ck_assert(!m.intr);
    a_write(A_LDR, 0x03u << 24);
    ck_assert_uint_eq(take(), 0x62);
}
END_TEST

START_TEST(level_that_met_a_disabled_apic_is_taken_when_it_is_enabled)
{
    a_symmetric();
    a_write(A_SVR, 0xFF);
    io_entry(PIN, 0, LEVEL | 0x61);
    isa_line(14, true);
    ck_assert(!m.intr);
    a_write(A_SVR, 0x1FF);
    ck_assert_uint_eq(take(), 0x61);
}
END_TEST

START_TEST(isa_interrupt_0_is_pin_2_and_the_others_their_own)
{
    a_symmetric();
    for (unsigned irq = 0; irq < 16; irq++) {
        unsigned pin = irq ? irq : 2;

        isa_line(irq, false);
        if (irq == 2)
            continue;
        io_entry(pin, 0, 0x40 + irq);
        isa_line(irq, true);
        ck_assert_uint_eq(take(), 0x40 + irq);
        io_entry(pin, 0, MASKED);
    }
}
END_TEST

START_TEST(the_8254_ticks_at_pin_2)
{
    a_symmetric();
    io_entry(2, 0, 0x30);
    out8(0x43, 0x34);
    out8(0x40, 0x9C); /* 1 ms */
    out8(0x40, 0x04);
    for (unsigned i = 0; i < 5; i++) {
        run_for(NS_PER_MS);
        ck_assert_uint_eq(take(), 0x30);
    }
}
END_TEST

START_TEST(extint_at_pin_0_fetches_from_the_8259)
{
    linux_init_8259(false);
    out8(0x21, 0xE7);
    a_symmetric();
    io_entry(0, 0, 0x700);
    isa_line(3, true);
    isa_line(4, true);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x33);
    ck_assert(!m.intr); /* in service at the 8259 */
    out8(0x20, 0x20);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    out8(0x20, 0x20);
    ck_assert(!m.intr);
    isa_line(3, false);
    isa_line(3, true);
    ck_assert(m.intr);
    io_entry(0, 0, MASKED | 0x700);
    ck_assert(!m.intr);
}
END_TEST

START_TEST(extint_at_another_pin_asks_once_an_edge)
{
    a_symmetric();
    linux_init_8259(false);
    io_entry(PIN, 0, 0x700);
    isa_line(14, true);
    ck_assert(m.intr);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x37); /* the 8259 has nothing: spurious */
    ck_assert(!m.intr);
}
END_TEST

START_TEST(accesses_of_other_widths_are_defined)
{
    dev_mmio_write(m.bus, IOAPIC, 1, 1); /* the select register has one byte */
    ck_assert_uint_eq(dev_mmio_read(m.bus, IOAPIC + 0x10, 4), 0x00170011);
    ck_assert_uint_eq(dev_mmio_read(m.bus, IOAPIC + 0x12, 1), 0x17);
    ck_assert_uint_eq(dev_mmio_read(m.bus, IOAPIC + 0x20, 4), 0);
    dev_mmio_write(m.bus, IOAPIC, 4, 0);
    dev_mmio_write(m.bus, IOAPIC + 0x10, 2, 0xFFFF);
    dev_mmio_write(m.bus, IOAPIC + 0x12, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(dev_mmio_read(m.bus, IOAPIC + 0x10, 4), 0);
    ck_assert_uint_eq(dev_mmio_read(m.bus, IOAPIC + 0xFFE, 4) >> 16, 0xFFFF);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, registers_after_reset);
    tcase_add_test(t, edge_is_delivered_once_and_lost_while_masked);
    tcase_add_test(t, level_waits_for_eoi_and_comes_again_while_asserted);
    tcase_add_test(t, eoi_of_an_edge_with_the_same_vector_is_not_broadcast);
    tcase_add_test(t, polarity_turns_the_pin_round);
    tcase_add_test(t, delivery_modes);
    tcase_add_test(t, destination_that_does_not_exist_gets_nothing);
    tcase_add_test(t, level_that_met_a_disabled_apic_is_taken_when_it_is_enabled);
    tcase_add_test(t, isa_interrupt_0_is_pin_2_and_the_others_their_own);
    tcase_add_test(t, the_8254_ticks_at_pin_2);
    tcase_add_test(t, extint_at_pin_0_fetches_from_the_8259);
    tcase_add_test(t, extint_at_another_pin_asks_once_an_edge);
    tcase_add_test(t, accesses_of_other_widths_are_defined);
}

int main(void)
{
    return run_suite("dev_ioapic", add);
}
