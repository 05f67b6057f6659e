/* PCI mechanism 1, as Linux's pci_check_type1() and its scan of bus 0 see it. */
#include "dev_machine.h"

static uint32_t config(uint32_t address, unsigned size)
{
    dev_port_write(m.bus, 0xCF8, 4, 0x80000000u | address);
    return dev_port_read(m.bus, (uint16_t)(0xCFC + (address & 3)), size);
}

START_TEST(type1_check_of_linux_passes)
{
    uint32_t old;

    out8(0xCFB, 0x01);
    old = dev_port_read(m.bus, 0xCF8, 4);
    dev_port_write(m.bus, 0xCF8, 4, 0x80000000u);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xCF8, 4), 0x80000000u);
    dev_port_write(m.bus, 0xCF8, 4, old);
    ck_assert_uint_eq(config(0x0A, 2), 0x0600);
}
END_TEST

START_TEST(host_bridge_is_found_at_every_width)
{
    ck_assert_uint_eq(config(0, 4), 0x12378086);
    ck_assert_uint_eq(config(0, 2), 0x8086);
    ck_assert_uint_eq(config(2, 2), 0x1237);
    ck_assert_uint_eq(config(3, 1), 0x12);
    ck_assert_uint_eq(config(0x0E, 1), 0);
    ck_assert_uint_eq(config(8, 4), 0x06000002);
    ck_assert_uint_eq(config(0x10, 4), 0);
}
END_TEST

START_TEST(other_functions_read_all_ones)
{
    for (uint32_t dev = 1; dev < 32; dev++)
        ck_assert_uint_eq(config(dev << 11, 4), 0xFFFFFFFF);
    ck_assert_uint_eq(config(1 << 8, 4), 0xFFFFFFFF);
    ck_assert_uint_eq(config(1 << 16, 2), 0xFFFF);
}
END_TEST

START_TEST(read_only_registers_ignore_writes)
{
    config(0x10, 4);
    dev_port_write(m.bus, 0xCFC, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(config(0x10, 4), 0);
    config(0, 4);
    dev_port_write(m.bus, 0xCFC, 4, 0);
    ck_assert_uint_eq(config(0, 4), 0x12378086);
    config(0x59, 1);
    dev_port_write(m.bus, 0xCFD, 1, 0x30); /* PAM0 */
    ck_assert_uint_eq(config(0x58, 4), 0x3000);
}
END_TEST

START_TEST(address_not_enabled_reads_all_ones)
{
    dev_port_write(m.bus, 0xCF8, 4, 0);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xCFC, 4), 0xFFFFFFFF);
}
END_TEST

START_TEST(cf9_resets_on_rising_bit_2_only)
{
    out8(0xCF9, 0x02);
    ck_assert_uint_eq(m.resets, 0);
    out8(0xCF9, 0x06);
    ck_assert_uint_eq(m.resets, 1);
    out8(0xCF9, 0x06);
    ck_assert_uint_eq(m.resets, 1);
    ck_assert_uint_eq(m.softs, 0);
    out8(0xCF9, 0x00);
    out8(0xCF9, 0x04);
    ck_assert_uint_eq(m.resets, 2);
    ck_assert_uint_eq(m.softs, 1);
    out8(0xCF9, 0x06);
    dev_port_write(m.bus, 0xCF8, 4, 0x80000600); /* a 32-bit write is not for CF9h */
    ck_assert_uint_eq(in8(0xCF9), 0x06);
}
END_TEST

START_TEST(shadow_registers_are_told_when_they_change)
{
    unsigned told = m.shadows;
    ck_assert_uint_ge(told, 1);
    ck_assert_uint_eq(m.pam[0], 0);
    dev_port_write(m.bus, 0xCF8, 4, 0x80000058);
    out8(0xCFD, 0x30);
    ck_assert_uint_eq(m.shadows, told + 1);
    ck_assert_uint_eq(m.pam[0], 0x30);
    out8(0xCFD, 0x30);
    ck_assert_uint_eq(m.shadows, told + 1);
    dev_port_write(m.bus, 0xCF8, 4, 0x8000005C);
    dev_port_write(m.bus, 0xCFC, 4, 0x44332211);
    ck_assert_uint_eq(m.shadows, told + 2);
    ck_assert_uint_eq(m.pam[3], 0x11);
    ck_assert_uint_eq(m.pam[6], 0x44);
    dev_shadow_open(m.bus);
    ck_assert_uint_eq(m.pam[0], 0x30);
    ck_assert_uint_eq(m.pam[6], 0x33);
    dev_bus_reset(m.bus);
    ck_assert_uint_eq(m.pam[6], 0);
}
END_TEST

START_TEST(last_config_dword_at_unaligned_widths_stays_inside)
{
    dev_port_write(m.bus, 0xCF8, 4, 0x800000FC);
    for (uint16_t p = 0xCFC; p < 0xD00; p++) {
        dev_port_read(m.bus, p, 1);
        dev_port_read(m.bus, p, 2);
        dev_port_read(m.bus, p, 4);
        dev_port_write(m.bus, p, 4, 0x12345678);
    }
    ck_assert_uint_eq(config(0, 4), 0x12378086);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, type1_check_of_linux_passes);
    tcase_add_test(t, host_bridge_is_found_at_every_width);
    tcase_add_test(t, other_functions_read_all_ones);
    tcase_add_test(t, read_only_registers_ignore_writes);
    tcase_add_test(t, address_not_enabled_reads_all_ones);
    tcase_add_test(t, cf9_resets_on_rising_bit_2_only);
    tcase_add_test(t, shadow_registers_are_told_when_they_change);
    tcase_add_test(t, last_config_dword_at_unaligned_widths_stays_inside);
}

int main(void)
{
    return run_suite("dev_pci", add);
}
