/* The ACPI fixed hardware and the tables, walked as an operating system does. */
#include "dev_machine.h"

static uint8_t tables[4096];

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)(p[0] | p[1] << 8 | p[2] << 16) | (uint32_t)p[3] << 24;
}

static unsigned sum(const uint8_t *p, size_t n)
{
    unsigned s = 0;

    while (n--)
        s += *p++;
    return s & 0xFF;
}

/* The table at a guest-physical address, after checking its header. */
static const uint8_t *table(uint32_t base, size_t size, uint32_t at, const char *signature)
{
    ck_assert_uint_ge(at, base);
    ck_assert_uint_le(at - base + 36, size);
    ck_assert_int_eq(memcmp(tables + (at - base), signature, 4), 0);
    ck_assert_uint_le(at - base + get32(tables + (at - base) + 4), size);
    return tables + (at - base);
}

/* The interrupts' wiring, as the chips do it: entry by entry. */
static void check_madt(const uint8_t *madt)
{
    static const uint8_t entries[] = {
        0, 8,  0,    0, 1, 0, 0,    0,                 /* local APIC 0, enabled */
        1, 12, 0,    0, 0, 0, 0xC0, 0xFE, 0,  0, 0, 0, /* I/O APIC 0 at FEC00000h, from interrupt 0 */
        2, 10, 0,    0, 2, 0, 0,    0,    0,  0,       /* ISA 0 is pin 2 */
        2, 10, 0,    9, 9, 0, 0,    0,    13, 0,       /* ISA 9: level, active high */
        4, 6,  0xFF, 0, 0, 1,                          /* NMI at every LINT1 */
    };

    ck_assert_uint_eq(sum(madt, get32(madt + 4)), 0);
    ck_assert_uint_eq(get32(madt + 36), 0xFEE00000);
    ck_assert_uint_eq(get32(madt + 40), 1); /* there is an 8259 pair */
    ck_assert_uint_eq(get32(madt + 4), 44 + sizeof entries);
    ck_assert_int_eq(memcmp(madt + 44, entries, sizeof entries), 0);
}

/* tables[] is what lies at base. */
static void walk_from(const uint8_t *rsdp, uint32_t base, size_t size)
{
    const uint8_t *rsdt, *fadt, *facs, *dsdt;

    ck_assert_int_eq(memcmp(rsdp, "RSD PTR ", 8), 0);
    ck_assert_uint_eq(sum(rsdp, 20), 0);
    rsdt = table(base, size, get32(rsdp + 16), "RSDT");
    ck_assert_uint_eq(sum(rsdt, get32(rsdt + 4)), 0);
    ck_assert_uint_eq(get32(rsdt + 4), 44);
    fadt = table(base, size, get32(rsdt + 36), "FACP");
    check_madt(table(base, size, get32(rsdt + 40), "APIC"));
    ck_assert_uint_eq(sum(fadt, get32(fadt + 4)), 0);
    ck_assert_uint_eq(get32(fadt + 48), 0);     /* SMI_CMD: always in ACPI mode */
    ck_assert_uint_eq(get32(fadt + 56), 0x600); /* PM1a_EVT_BLK */
    ck_assert_uint_eq(get32(fadt + 64), 0x604);
    ck_assert_uint_eq(get32(fadt + 76), 0x608);
    ck_assert_uint_eq(get32(fadt + 112) >> 8 & 1, 1); /* TMR_VAL_EXT */
    ck_assert_uint_eq(fadt[109] & 2, 2);              /* there is an 8042 */
    facs = table(base, size, get32(fadt + 36), "FACS");
    ck_assert_uint_eq(get32(fadt + 36) % 64, 0);
    ck_assert_uint_eq(get32(facs + 4), 64);
    dsdt = table(base, size, get32(fadt + 40), "DSDT");
    ck_assert_uint_eq(sum(dsdt, get32(dsdt + 4)), 0);
    ck_assert_ptr_nonnull(memmem(dsdt, get32(dsdt + 4), "_S5_", 4));
}

static void walk(uint32_t base)
{
    size_t size = dev_acpi_tables(m.bus, base, tables, sizeof tables);

    ck_assert_uint_gt(size, 0);
    walk_from(tables, base, size);
}

/* -- What a firmware does with fw_cfg's files
 * ---------------------------------------------------------------- */

static size_t read_file(const char *name, uint8_t *out, size_t cap)
{
    uint8_t entry[64];
    unsigned n = 0, files;

    dev_port_write(m.bus, 0x510, 2, 0x19);
    for (unsigned i = 0; i < 4; i++)
        n = n << 8 | in8(0x511);
    for (files = n; files; files--) {
        for (unsigned i = 0; i < 64; i++)
            entry[i] = in8(0x511);
        if (!strcmp((const char *)entry + 8, name))
            break;
    }
    ck_assert_uint_gt(files, 0);
    n = (unsigned)(entry[0] << 24 | entry[1] << 16 | entry[2] << 8 | entry[3]);
    ck_assert_uint_le(n, cap);
    dev_port_write(m.bus, 0x510, 2, (uint32_t)(entry[4] << 8 | entry[5]));
    for (unsigned i = 0; i < n; i++)
        out[i] = in8(0x511);
    return n;
}

#define LOADED_AT 0x1FFE1000u

START_TEST(firmware_links_the_tables_where_it_puts_them)
{
    static uint8_t loader[4096], rsdp[64];
    size_t size = read_file("etc/acpi/tables", tables, sizeof tables);
    size_t commands = read_file("etc/table-loader", loader, sizeof loader) / 128;
    unsigned allocated = 0;

    ck_assert_uint_eq(read_file("etc/acpi/rsdp", rsdp, sizeof rsdp), 20);
    for (size_t i = 0; i < commands; i++) {
        const uint8_t *c = loader + 128 * i;
        bool in_rsdp = !strcmp((const char *)c + 4, "etc/acpi/rsdp");
        uint8_t *file = in_rsdp ? rsdp : tables;

        ck_assert(in_rsdp || !strcmp((const char *)c + 4, "etc/acpi/tables"));
        switch (get32(c)) {
        case 1:
            ck_assert_uint_eq(get32(c + 60), in_rsdp ? 16 : 64);
            ck_assert_uint_eq(c[64], in_rsdp ? 2 : 1);
            allocated++;
            break;
        case 2: {
            uint32_t at = get32(c + 116), v = get32(file + at) + LOADED_AT;

            ck_assert_str_eq((const char *)c + 60, "etc/acpi/tables");
            ck_assert_uint_eq(allocated, 2);
            ck_assert(c[120] == 4 || c[120] == 8);
            memcpy(file + at, &v, 4);
            break;
        }
        case 3:
            file[get32(c + 60)] -= (uint8_t)sum(file + get32(c + 64), get32(c + 68));
            break;
        default:
            ck_abort_msg("command %u", get32(c));
        }
    }
    ck_assert_uint_eq(LOADED_AT % 64, 0);
    walk_from(rsdp, LOADED_AT, size);
}
END_TEST

START_TEST(tables_are_linked_and_summed_at_any_address)
{
    walk(0xE0000);
    walk(0xF0010);
    walk(0x9FC30);
}
END_TEST

START_TEST(tables_do_not_fit_gives_zero_and_touches_nothing)
{
    size_t size = dev_acpi_tables(m.bus, 0xE0000, tables, sizeof tables);
    uint8_t *exact = malloc(size);

    ck_assert_uint_eq(dev_acpi_tables(m.bus, 0xE0000, exact, size), size);
    memset(exact, 0xA5, size);
    ck_assert_uint_eq(dev_acpi_tables(m.bus, 0xE0000, exact, size - 1), 0);
    ck_assert_uint_eq(exact[0], 0xA5);
    free(exact);
}
END_TEST

START_TEST(pm_timer_counts_3579545_hz_in_32_bits)
{
    ck_assert_uint_eq(dev_port_read(m.bus, 0x608, 4), 0);
    run_until(NS_PER_SEC);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x608, 4), 3579545);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x608, 2), 3579545 & 0xFFFF);
    ck_assert_uint_eq(in8(0x60A), 3579545 >> 16);
    m.now = 1201 * NS_PER_SEC;
    ck_assert_uint_eq(dev_port_read(m.bus, 0x608, 4), (uint32_t)(1201ull * 3579545));
}
END_TEST

START_TEST(sci_en_reads_set_and_s5_powers_off_once)
{
    ck_assert_uint_eq(dev_port_read(m.bus, 0x604, 2), 1);
    dev_port_write(m.bus, 0x604, 2, 5 << 10);
    ck_assert_uint_eq(m.power_offs, 0);
    dev_port_write(m.bus, 0x604, 2, 5 << 10 | 1 << 13);
    ck_assert_uint_eq(m.power_offs, 1);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x604, 2), 5 << 10 | 1);
    dev_port_write(m.bus, 0x604, 2, 1 << 10 | 1 << 13);
    ck_assert_uint_eq(m.power_offs, 1);
}
END_TEST

START_TEST(s5_by_bytes_powers_off)
{
    out8(0x605, 5 << 2 | 1 << 5);
    ck_assert_uint_eq(m.power_offs, 1);
}
END_TEST

START_TEST(timer_overflow_raises_level_sci_until_status_cleared)
{
    uint64_t half = ((1ull << 31) * NS_PER_SEC + 3579544) / 3579545;

    linux_init_8259(false);
    out8(0x4D1, 0x02);
    out8(0x21, 0xFB);
    out8(0xA1, 0xFD);
    dev_port_write(m.bus, 0x602, 2, 1);
    run_until(half - 1);
    ck_assert(!dev_intr_level(m.bus));
    run_until(half);
    ck_assert_uint_eq(dev_intr_ack(m.bus), 0x39);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x600, 2), 1);
    dev_port_write(m.bus, 0x600, 2, 1);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x600, 2), 0);
    out8(0xA0, 0x20);
    out8(0x20, 0x20);
    ck_assert(!dev_intr_level(m.bus));
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, tables_are_linked_and_summed_at_any_address);
    tcase_add_test(t, firmware_links_the_tables_where_it_puts_them);
    tcase_add_test(t, tables_do_not_fit_gives_zero_and_touches_nothing);
    tcase_add_test(t, pm_timer_counts_3579545_hz_in_32_bits);
    tcase_add_test(t, sci_en_reads_set_and_s5_powers_off_once);
    tcase_add_test(t, s5_by_bytes_powers_off);
    tcase_add_test(t, timer_overflow_raises_level_sci_until_status_cleared);
}

int main(void)
{
    return run_suite("dev_acpi", add);
}
