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

static void config_write(uint32_t address, unsigned size, uint32_t v)
{
    dev_port_write(m.bus, 0xCF8, 4, 0x80000000u | address);
    dev_port_write(m.bus, (uint16_t)(0xCFC + (address & 3)), size, v);
}

#define TESTDEV (4u << 11)

START_TEST(low_bits_of_the_address_name_a_byte_and_read_as_zero)
{
    dev_port_write(m.bus, 0xCF8, 4, 0x80000002u);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xCF8, 4), 0x80000000u);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xCFC, 2), 0x1237);
    ck_assert_uint_eq(dev_port_read(m.bus, 0xCFE, 2), 0x1237);
}
END_TEST

START_TEST(test_device_has_a_header_and_two_bars)
{
    dev_bus_add(m.bus, DEV_EXTRA_PCI_TESTDEV);
    dev_bus_add(m.bus, DEV_EXTRA_PCI_TESTDEV); /* again: nothing */
    ck_assert_uint_eq(config(TESTDEV, 4), 0x00051B36);
    ck_assert_uint_eq(config(TESTDEV + 8, 4), 0xFF000000);
    ck_assert_uint_eq(config(TESTDEV + 4, 2), 3);
    ck_assert_uint_eq(config(TESTDEV | 1 << 8, 4), 0xFFFFFFFF); /* one function only */
    config_write(TESTDEV, 4, 0);                               /* read-only */
    ck_assert_uint_eq(config(TESTDEV, 4), 0x00051B36);
    config_write(TESTDEV + 0x3C, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(config(TESTDEV + 0x3C, 4), 0xFF);
    /* Sizes, as firmware asks for them */
    config_write(TESTDEV + 0x10, 4, 0xFFFFFFFF);
    config_write(TESTDEV + 0x14, 4, 0xFFFFFFFF);
    config_write(TESTDEV + 0x18, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(config(TESTDEV + 0x10, 4), 0xFFFFF000);
    ck_assert_uint_eq(config(TESTDEV + 0x14, 4), 0xFFFFFF01);
    ck_assert_uint_eq(config(TESTDEV + 0x18, 4), 0);
}
END_TEST

static uint32_t mem(uint32_t at, unsigned size)
{
    return dev_mmio_read(m.bus, at, size);
}

START_TEST(bars_move_and_go_with_the_command_register)
{
    dev_bus_add(m.bus, DEV_EXTRA_PCI_TESTDEV);
    dev_mmio_write(m.bus, 0xFEB00000, 1, 0);
    ck_assert_uint_eq(mem(0xFEB00001, 1), 1);
    config_write(TESTDEV + 0x10, 4, 0xE0001000);
    ck_assert_uint_eq(mem(0xFEB00001, 1), 0xFF);
    ck_assert_uint_eq(mem(0xE0001001, 1), 1);
    config_write(TESTDEV + 4, 2, 1);
    ck_assert_uint_eq(mem(0xE0001001, 1), 0xFF);
    out8(0xC000, 0);
    ck_assert_uint_eq(in8(0xC001), 1);
    config_write(TESTDEV + 0x14, 4, 0x300); /* what is there already stays: COM1 is at 3F8h */
    ck_assert_uint_eq(in8(0xC001), 0xFF);
    ck_assert_uint_eq(in8(0x301), 1);
    ck_assert_uint_eq(in8(0x3FD), 0x60);
    config_write(TESTDEV + 0x14, 4, 0);
    ck_assert_uint_eq(in8(0x301), 0xFF);
    ck_assert_uint_eq(in8(0x3FD), 0x60);
    config_write(TESTDEV + 4, 2, 0);
    ck_assert_uint_eq(in8(1), 0xFF);
    dev_bus_reset(m.bus);
    ck_assert_uint_eq(config(TESTDEV + 0x14, 4), 0xC001);
    out8(0xC000, 1);
    ck_assert_uint_eq(in8(0xC001), 1);
    ck_assert_uint_eq(mem(0xFEB00000, 4), 0); /* no test chosen */
}
END_TEST

START_TEST(tests_of_the_test_device_count_matching_writes)
{
    dev_bus_add(m.bus, DEV_EXTRA_PCI_TESTDEV);
    for (unsigned test = 0;; test++) {
        uint32_t width, at, data;

        dev_mmio_write(m.bus, 0xFEB00000, 1, test);
        out8(0xC000, (uint8_t)test);
        width = mem(0xFEB00001, 1);
        if (width != 1 && width != 2 && width != 4) {
            ck_assert_uint_ge(test, 3);
            break;
        }
        ck_assert_uint_eq(mem(0xFEB0000C, 4), 0);
        at = 0xFEB00000 + mem(0xFEB00004, 4);
        data = mem(0xFEB00008, 4);
        ck_assert_uint_eq(mem(0xFEB00010, 4), 0x6F6D656D); /* "memo" */
        for (unsigned i = 0; i < 16; i++)
            dev_mmio_write(m.bus, at, width, data);
        dev_mmio_write(m.bus, at + 4, width, data);
        ck_assert_uint_eq(mem(0xFEB0000C, 4), 16);
        dev_mmio_write(m.bus, at, width, data ^ 1);
        ck_assert_uint_eq(mem(0xFEB0000C, 4), test ? 16 : 17);
        at = 0xC000 + dev_port_read(m.bus, 0xC004, 4);
        dev_port_write(m.bus, (uint16_t)at, width, data);
        ck_assert_uint_eq(dev_port_read(m.bus, 0xC00C, 4), 1);
    }
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
    tcase_add_test(t, low_bits_of_the_address_name_a_byte_and_read_as_zero);
    tcase_add_test(t, test_device_has_a_header_and_two_bars);
    tcase_add_test(t, bars_move_and_go_with_the_command_register);
    tcase_add_test(t, tests_of_the_test_device_count_matching_writes);
}

int main(void)
{
    return run_suite("dev_pci", add);
}
