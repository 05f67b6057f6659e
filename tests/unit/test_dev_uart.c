/* The 16550A at COM1: what Linux's 8250 driver probes, and the interrupt rules of National's data sheet. */
#include "dev_machine.h"

enum { DATA = 0x3F8, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR

static void only_irq4(void)
{
    linux_init_8259(false);
    out8(0x21, 0xEF);
}

static bool take_irq4(void)
{
    if (!dev_intr_level(m.bus))
        return false;
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x34);
    out8(0x20, 0x64);
    return true;
}

static size_t input(const char *s)
{
    return dev_serial_in(m.bus, (const uint8_t *)s, strlen(s));
}

START_TEST(autoconfig_of_linux_finds_a_16550a)
{
    /* drivers/tty/serial/8250/8250_port.c, autoconfig() and autoconfig_16550a() */
    uint8_t status1, iersave;

    out8(IER, 0);
    out8(0x80, 0xFF);
    ck_assert_uint_eq(in8(IER) & 0x0F, 0);
    out8(IER, 0x0F);
    out8(0x80, 0);
    ck_assert_uint_eq(in8(IER), 0x0F);
    out8(IER, 0);
    out8(MCR, 0x1A);
    ck_assert_uint_eq(in8(MSR) & 0xF0, 0x90);
    out8(MCR, 0);
    out8(LCR, 0xBF);
    out8(FCR, 0);
    out8(LCR, 0);
    out8(FCR, 0x01);
    ck_assert_uint_eq(in8(IIR) >> 6, 3);
    out8(LCR, 0x80);
    ck_assert_uint_ne(in8(IIR), 0); /* no EFR: not a 16650 */
    out8(LCR, 0xBF);
    ck_assert_uint_ne(in8(IIR), 0);
    out8(LCR, 0);
    status1 = in8(MCR);
    out8(LCR, 0xE0);
    ck_assert_uint_eq((in8(IIR) ^ status1) & 0x10, 0);
    out8(LCR, 0);
    out8(MCR, status1 ^ 0x10);
    out8(LCR, 0xE0);
    ck_assert_uint_eq(in8(IIR) & 0x10, 0); /* not a NatSemi SuperIO */
    out8(LCR, 0);
    out8(MCR, status1);
    iersave = in8(IER);
    out8(IER, iersave | 0x40);
    ck_assert_uint_eq(in8(IER) & 0x40, 0); /* not an XScale */
    out8(SCR, 0xA5);
    ck_assert_uint_eq(in8(SCR), 0xA5);
    ck_assert_uint_eq(m.serial_n, 0);
}
END_TEST

START_TEST(thre_test_of_linux_startup_finds_no_bug)
{
    /* serial8250_do_startup(): THRI must be raised again each time it is enabled. */
    uint8_t iir1, iir;

    out8(IER, 2);
    iir1 = in8(IIR);
    out8(IER, 0);
    out8(IER, 2);
    iir = in8(IIR);
    out8(IER, 0);
    ck_assert_uint_eq(iir1 & 0x0F, 2);
    ck_assert_uint_eq(iir & 0x0F, 2);
    out8(IER, 2);
    ck_assert_uint_eq(in8(LSR), 0x60);
    ck_assert_uint_eq(in8(IIR) & 0x0F, 2); /* no TXEN bug */
    ck_assert_uint_eq(in8(IIR) & 0x0F, 1); /* reading it cleared it */
}
END_TEST

START_TEST(irq_needs_out2_and_falls_when_source_is_served)
{
    only_irq4();
    out8(IER, 2);
    ck_assert(!dev_intr_level(m.bus));
    out8(MCR, 0x0B);
    ck_assert(take_irq4());
    ck_assert_uint_eq(in8(IIR) & 0x0F, 2);
    ck_assert(!dev_intr_level(m.bus));
    out8(DATA, 'x');
    ck_assert(take_irq4()); /* empty again at once: a new edge */
    out8(DATA, 'y');
    ck_assert(take_irq4()); /* even if IIR was not read in between */
    out8(IER, 0);
    ck_assert(!dev_intr_level(m.bus));
    ck_assert_str_eq(m.serial, "xy");
}
END_TEST

START_TEST(output_comes_in_order_and_lsr_stays_empty)
{
    for (const char *s = "Hello\n"; *s; s++) {
        ck_assert_uint_eq(in8(LSR) & 0x60, 0x60);
        out8(DATA, (uint8_t)*s);
    }
    ck_assert_str_eq(m.serial, "Hello\n");
}
END_TEST

START_TEST(divisor_latch_hides_data_and_ier)
{
    out8(LCR, 0x83);
    out8(DATA, 0x01);
    out8(IER, 0x02);
    ck_assert_uint_eq(in8(DATA), 0x01);
    ck_assert_uint_eq(in8(IER), 0x02);
    out8(LCR, 0x03);
    ck_assert_uint_eq(in8(IER), 0);
    ck_assert_uint_eq(m.serial_n, 0);
}
END_TEST

START_TEST(input_without_fifo_takes_one_byte)
{
    ck_assert_uint_eq(dev_serial_room(m.bus), 1);
    ck_assert_uint_eq(input("ab"), 1);
    ck_assert_uint_eq(dev_serial_room(m.bus), 0);
    ck_assert_uint_eq(in8(LSR), 0x61);
    ck_assert_uint_eq(in8(DATA), 'a');
    ck_assert_uint_eq(in8(LSR), 0x60);
    ck_assert_uint_eq(dev_serial_room(m.bus), 1);
}
END_TEST

START_TEST(input_fifo_takes_16_and_reports_trigger_then_timeout)
{
    only_irq4();
    out8(FCR, 0x81); /* trigger at 8 */
    out8(MCR, 0x0B);
    out8(IER, 0x05);
    ck_assert_uint_eq(input("0123456"), 7);
    ck_assert(take_irq4());
    ck_assert_uint_eq(in8(IIR), 0xCC);
    ck_assert_uint_eq(input("789abcdefXYZ"), 9);
    ck_assert_uint_eq(in8(IIR), 0xC4);
    for (const char *s = "0123456789abcdef"; *s; s++) {
        ck_assert_uint_eq(in8(LSR) & 1, 1);
        ck_assert_uint_eq(in8(DATA), (uint8_t)*s);
    }
    ck_assert_uint_eq(in8(LSR) & 1, 0);
    ck_assert_uint_eq(in8(IIR), 0xC1);
    ck_assert_uint_eq(dev_serial_room(m.bus), 16);
    ck_assert_uint_eq(input("q"), 1);
    ck_assert(take_irq4());
}
END_TEST

START_TEST(interrupt_sources_are_in_priority_order)
{
    out8(MCR, 0x10);
    in8(MSR);
    out8(DATA, 1);
    out8(DATA, 2);   /* overrun in loopback without FIFO */
    out8(MCR, 0x11); /* DSR changes */
    out8(IER, 0x0F);
    ck_assert_uint_eq(in8(IIR), 0x06);
    ck_assert_uint_eq(in8(LSR), 0x63);
    ck_assert_uint_eq(in8(LSR), 0x61);
    ck_assert_uint_eq(in8(IIR), 0x04);
    ck_assert_uint_eq(in8(DATA), 2);
    ck_assert_uint_eq(in8(IIR), 0x02);
    ck_assert_uint_eq(in8(IIR), 0x00);
    ck_assert_uint_eq(in8(MSR), 0x22);
    ck_assert_uint_eq(in8(IIR), 0x01);
    ck_assert_uint_eq(m.serial_n, 0);
}
END_TEST

START_TEST(loopback_disconnects_the_line)
{
    out8(FCR, 1);
    out8(MCR, 0x10);
    ck_assert_uint_eq(dev_serial_room(m.bus), 0);
    ck_assert_uint_eq(input("z"), 0);
    out8(DATA, 0x5A);
    ck_assert_uint_eq(in8(DATA), 0x5A);
    out8(MCR, 0x0B);
    ck_assert_uint_eq(in8(MSR) & 0xF0, 0xB0);
    ck_assert_uint_eq(dev_serial_room(m.bus), 16);
}
END_TEST

START_TEST(fifo_control_clears_received_bytes)
{
    out8(FCR, 1);
    input("abc");
    out8(FCR, 3);
    ck_assert_uint_eq(in8(LSR) & 1, 0);
    input("abc");
    out8(FCR, 0);
    ck_assert_uint_eq(in8(LSR) & 1, 0);
    ck_assert_uint_eq(in8(IIR) & 0xC0, 0);
}
END_TEST

START_TEST(absent_ports_read_all_ones)
{
    ck_assert_uint_eq(in8(0x2F9), 0xFF);
    ck_assert_uint_eq(in8(0x3E9), 0xFF);
    ck_assert_uint_eq(in8(0x2E9), 0xFF);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, autoconfig_of_linux_finds_a_16550a);
    tcase_add_test(t, thre_test_of_linux_startup_finds_no_bug);
    tcase_add_test(t, irq_needs_out2_and_falls_when_source_is_served);
    tcase_add_test(t, output_comes_in_order_and_lsr_stays_empty);
    tcase_add_test(t, divisor_latch_hides_data_and_ier);
    tcase_add_test(t, input_without_fifo_takes_one_byte);
    tcase_add_test(t, input_fifo_takes_16_and_reports_trigger_then_timeout);
    tcase_add_test(t, interrupt_sources_are_in_priority_order);
    tcase_add_test(t, loopback_disconnects_the_line);
    tcase_add_test(t, fifo_control_clears_received_bytes);
    tcase_add_test(t, absent_ports_read_all_ones);
}

int main(void)
{
    return run_suite("dev_uart", add);
}
