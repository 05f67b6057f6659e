/* devices/acpi.c: the fixed hardware of ACPI (PM1 event and control block, PM timer) and the tables that
 * describe the machine.
 *
 * There is no SMI command port: the machine is always in ACPI mode (ACPI 2.0, 4.7.2.5). Fixed buttons and
 * general-purpose events do not exist, so the only source of an SCI is the PM timer.
 */
#include "devices/chips.h"
#include "dsdt.hex"

#include <string.h>

#define PM_TIMER_HZ 3579545u
enum { PM1_STS = 0, PM1_EN = 2, PM1_CNT = 4, PM_TMR = 8 };
enum { TMR_STS = 0x0001 };
enum { EN_WRITABLE = 0x0721 };
enum { CNT_SCI_EN = 0x0001, CNT_BM_RLD = 0x0002, CNT_SLP_TYP = 0x1C00, CNT_SLP_EN = 0x2000 };
#define SLP_TYP_S5 (5u << 10) /* as \_S5 of dsdt.asl says */

/* -- Registers ------------------------------------------------------------------------------------------- */

static uint64_t timer_ticks(uint64_t now)
{
    return bus_ticks(now, PM_TIMER_HZ);
}

/* ACPI 2.0, 4.7.3.1.1: TMR_STS is set when the timer's highest bit changes; the timer has 32 bits
 * (TMR_VAL_EXT). */
static void bring_up_to_date(struct dev_acpi *a, uint64_t now)
{
    uint64_t half = timer_ticks(now) >> 31;

    if (half != a->seen_half)
        a->status |= TMR_STS;
    a->seen_half = half;
}

static void signal_sci(struct dev_acpi *a)
{
    uint64_t at = DEV_NEVER;

    if ((a->enable & TMR_STS) && !(a->status & TMR_STS))
        at = bus_ticks_to_ns((a->seen_half + 1) << 31, PM_TIMER_HZ);
    bus_timer(a->bus, TIMER_ACPI, at);
    bus_irq(a->bus, ACPI_SCI_IRQ, (a->status & a->enable) != 0);
}

void dev_acpi_run(struct dev_acpi *a, uint64_t now_ns)
{
    bring_up_to_date(a, now_ns);
    signal_sci(a);
}

static uint8_t read_byte(const struct dev_acpi *a, uint32_t offset, uint32_t timer)
{
    unsigned shift = 8 * (offset & 1);

    if (offset >= PM_TMR)
        return (uint8_t)(timer >> 8 * (offset & 3));
    switch (offset & ~1u) {
    case PM1_STS:
        return (uint8_t)(a->status >> shift);
    case PM1_EN:
        return (uint8_t)(a->enable >> shift);
    case PM1_CNT:
        return (uint8_t)(a->control >> shift);
    default:
        return 0;
    }
}

static uint32_t acpi_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_acpi *a = dev;
    uint32_t offset = port - ACPI_PM_BASE, value = 0, timer;
    uint64_t now = bus_now(a->bus);

    timer = (uint32_t)timer_ticks(now);
    if (offset == PM_TMR && size == 4)
        return timer;
    bring_up_to_date(a, now);
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)read_byte(a, offset + i, timer) << 8 * i;
    return value;
}

static uint16_t merge(uint16_t old, uint32_t offset, uint8_t v)
{
    return (uint16_t)(offset & 1 ? (old & 0x00FF) | v << 8 : (old & 0xFF00) | v);
}

static void write_byte(struct dev_acpi *a, uint32_t offset, uint8_t v)
{
    switch (offset & ~1u) {
    case PM1_STS: /* written ones clear */
        a->status &= (uint16_t)~merge(0, offset, v);
        break;
    case PM1_EN:
        a->enable = merge(a->enable, offset, v) & EN_WRITABLE;
        break;
    case PM1_CNT:
        a->control = (merge(a->control, offset, v) & (CNT_BM_RLD | CNT_SLP_TYP | CNT_SLP_EN)) | CNT_SCI_EN;
        break;
    default:
        break;
    }
}

static void acpi_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_acpi *a = dev;

    bring_up_to_date(a, bus_now(a->bus));
    for (unsigned i = 0; i < size; i++)
        write_byte(a, port - ACPI_PM_BASE + i, (uint8_t)(value >> 8 * i));
    signal_sci(a);
    if (!(a->control & CNT_SLP_EN))
        return;
    a->control &= (uint16_t)~CNT_SLP_EN; /* write-only: reads as 0 */
    if ((a->control & CNT_SLP_TYP) == SLP_TYP_S5)
        a->bus->host.power_off(a->bus->opaque);
}

const struct dev_io_ops dev_acpi_ops = {acpi_read, acpi_write};

void dev_acpi_reset(struct dev_acpi *a)
{
    a->status = a->enable = 0;
    a->control = CNT_SCI_EN;
    a->seen_half = timer_ticks(bus_now(a->bus)) >> 31;
    signal_sci(a);
}

/* -- Tables (ACPI 2.0, chapter 5) --------------------------------------------------------------------------
 */

enum { RSDP_SIZE = ACPI_RSDP_SIZE, HEADER_SIZE = 36, RSDT_SIZE = HEADER_SIZE + 8, FADT_SIZE = 244, FACS_SIZE = 64 };
/* Offsets of pointers and checksums. */
enum { RSDP_CHECKSUM = 8, RSDP_RSDT = 16, CHECKSUM = 9, RSDT_FADT = HEADER_SIZE, RSDT_MADT = HEADER_SIZE + 4 };
enum { FADT_FACS = 36, FADT_DSDT = 40, FADT_X_DSDT = 140 };
/* The multiple APIC description table (5.2.10.4): header, one local APIC, one I/O APIC, two overrides, the NMI. */
enum { MADT_LAPIC_SIZE = 8, MADT_IOAPIC_SIZE = 12, MADT_OVERRIDE_SIZE = 10, MADT_NMI_SIZE = 6 };
enum { MADT_SIZE = HEADER_SIZE + 8 + MADT_LAPIC_SIZE + MADT_IOAPIC_SIZE + 2 * MADT_OVERRIDE_SIZE + MADT_NMI_SIZE };
enum { MADT_LAPIC, MADT_IOAPIC, MADT_OVERRIDE, MADT_LAPIC_NMI = 4 };
enum { MADT_PCAT_COMPAT = 1, MADT_ENABLED = 1 };
enum { MADT_ACTIVE_HIGH = 1, MADT_LEVEL = 3 << 2 };
enum { BOOT_LEGACY = 1, BOOT_8042 = 2, BOOT_NO_VGA = 4, BOOT_NO_MSI = 8, BOOT_NO_ASPM = 16 };
enum {
    FADT_WBINVD = 1 << 0,
    FADT_PROC_C1 = 1 << 2,
    FADT_NO_POWER_BUTTON = 1 << 4,
    FADT_NO_SLEEP_BUTTON = 1 << 5,
    FADT_NO_FIXED_RTC = 1 << 6,
    FADT_TIMER_32 = 1 << 8,
    FADT_RESET_REG = 1 << 10,
};

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v & 0xFFFF);
    put16(p + 2, v >> 16);
}

static void put_checksum(uint8_t *table, size_t size, size_t at)
{
    unsigned sum = 0;

    table[at] = 0;
    for (size_t i = 0; i < size; i++)
        sum += table[i];
    table[at] = (uint8_t)-sum;
}

static void put_header(uint8_t *t, const char *signature, uint32_t size, unsigned revision)
{
    memcpy(t, signature, 4);
    put32(t + 4, size);
    t[8] = (uint8_t)revision;
    memcpy(t + 10, "VERSO VERSOPC ", 14);
    put32(t + 24, 1);
    memcpy(t + 28, "VRSO", 4);
    put32(t + 32, 1);
}

/* Generic Address Structure in I/O space. */
static void put_gas(uint8_t *p, uint32_t port, unsigned bits)
{
    p[0] = 1;
    p[1] = (uint8_t)bits;
    put32(p + 4, port);
}

static void put_fadt(uint8_t *t, uint32_t facs, uint32_t dsdt)
{
    put_header(t, "FACP", FADT_SIZE, 3);
    put32(t + FADT_FACS, facs);
    put32(t + FADT_DSDT, dsdt);
    t[45] = 1; /* desktop */
    put16(t + 46, ACPI_SCI_IRQ);
    put32(t + 56, ACPI_PM_BASE + PM1_STS);
    put32(t + 64, ACPI_PM_BASE + PM1_CNT);
    put32(t + 76, ACPI_PM_BASE + PM_TMR);
    t[88] = 4;             /* PM1_EVT_LEN */
    t[89] = 2;             /* PM1_CNT_LEN */
    t[91] = 4;             /* PM_TM_LEN */
    put16(t + 96, 0x0FFF); /* no C2 */
    put16(t + 98, 0x0FFF); /* no C3 */
    t[108] = 0x32;         /* CENTURY */
    put16(t + 109, BOOT_LEGACY | BOOT_8042 | BOOT_NO_VGA | BOOT_NO_MSI | BOOT_NO_ASPM);
    put32(t + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
                       FADT_NO_FIXED_RTC | FADT_TIMER_32 | FADT_RESET_REG);
    put_gas(t + 116, 0xCF9, 8);
    t[128] = 6; /* RESET_VALUE */
    put32(t + FADT_X_DSDT, dsdt);
    put_gas(t + 148, ACPI_PM_BASE + PM1_STS, 32);
    put_gas(t + 172, ACPI_PM_BASE + PM1_CNT, 16);
    put_gas(t + 208, ACPI_PM_BASE + PM_TMR, 32);
    put_checksum(t, FADT_SIZE, CHECKSUM);
}

static uint8_t *put_override(uint8_t *p, unsigned irq, unsigned pin, unsigned flags)
{
    p[0] = MADT_OVERRIDE;
    p[1] = MADT_OVERRIDE_SIZE;
    p[3] = (uint8_t)irq;
    put32(p + 4, pin);
    put16(p + 8, flags);
    return p + MADT_OVERRIDE_SIZE;
}

/* What bus_irq() does: interrupt 0 is pin 2, the SCI is a level, all else is ISA's rising edge at the pin of its number. */
static void put_madt(uint8_t *t, const struct dev_bus *b)
{
    uint8_t *p = t + HEADER_SIZE;

    put_header(t, "APIC", MADT_SIZE, 2);
    put32(p, (uint32_t)LAPIC_BASE_DEFAULT);
    put32(p + 4, MADT_PCAT_COMPAT);
    p += 8;
    p[0] = MADT_LAPIC;
    p[1] = MADT_LAPIC_SIZE;
    p[3] = b->lapic.initial_id;
    put32(p + 4, MADT_ENABLED);
    p += MADT_LAPIC_SIZE;
    p[0] = MADT_IOAPIC;
    p[1] = MADT_IOAPIC_SIZE;
    put32(p + 4, (uint32_t)IOAPIC_BASE);
    p += MADT_IOAPIC_SIZE;
    p = put_override(p, 0, 2, 0);
    p = put_override(p, ACPI_SCI_IRQ, ACPI_SCI_IRQ, MADT_ACTIVE_HIGH | MADT_LEVEL);
    p[0] = MADT_LAPIC_NMI;
    p[1] = MADT_NMI_SIZE;
    p[2] = 0xFF; /* every processor */
    p[5] = 1;    /* LINT1 */
    put_checksum(t, MADT_SIZE, CHECKSUM);
}

static size_t align_up(size_t v, size_t to)
{
    return (v + to - 1) & ~(to - 1);
}

/* Where the tables behind the RSDP lie, from their start. base: its guest-physical address (the FACS is aligned to 64 bytes
 * there). */
struct layout {
    size_t rsdt, fadt, madt, facs, dsdt, end;
};

static struct layout lay_out(uint32_t base)
{
    struct layout l;

    l.rsdt = 0;
    l.fadt = align_up(RSDT_SIZE, 16);
    l.madt = l.fadt + align_up(FADT_SIZE, 16);
    l.facs = align_up(base + l.madt + MADT_SIZE, 64) - base;
    l.dsdt = l.facs + FACS_SIZE;
    l.end = l.dsdt + sizeof dsdt_aml_code;
    return l;
}

static void put_tables(const struct dev_bus *b, const struct layout *l, uint32_t base, uint8_t *buf)
{
    uint8_t *rsdt = buf + l->rsdt;

    put_header(rsdt, "RSDT", RSDT_SIZE, 1);
    put32(rsdt + RSDT_FADT, base + (uint32_t)l->fadt);
    put32(rsdt + RSDT_MADT, base + (uint32_t)l->madt);
    put_checksum(rsdt, RSDT_SIZE, CHECKSUM);
    put_fadt(buf + l->fadt, base + (uint32_t)l->facs, base + (uint32_t)l->dsdt);
    put_madt(buf + l->madt, b);
    memcpy(buf + l->facs, "FACS", 4);
    put32(buf + l->facs + 4, FACS_SIZE);
    buf[l->facs + 32] = 1;
    memcpy(buf + l->dsdt, dsdt_aml_code, sizeof dsdt_aml_code);
}

static void put_rsdp(uint8_t *p, uint32_t rsdt)
{
    memset(p, 0, RSDP_SIZE);
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, "VERSO ", 6);
    put32(p + RSDP_RSDT, rsdt);
    put_checksum(p, RSDP_SIZE, RSDP_CHECKSUM);
}

size_t dev_acpi_tables(const struct dev_bus *b, uint32_t gpa, uint8_t *buf, size_t cap)
{
    size_t first = align_up(RSDP_SIZE, 16);
    uint32_t base = gpa + (uint32_t)first;
    struct layout l = lay_out(base);

    if (first + l.end > cap)
        return 0;
    memset(buf, 0, first + l.end);
    put_rsdp(buf, base + (uint32_t)l.rsdt);
    put_tables(b, &l, base, buf + first);
    return first + l.end;
}

/* -- Tables for a firmware, which places them itself ---------------------------------------------------------
 *
 * QEMU's "linker/loader" (include/hw/acpi/bios-linker-loader.h there says what SeaBIOS and OVMF read): commands of 128
 * bytes, little-endian, names padded to 56 bytes. Pointers in the files are offsets until the firmware adds where it put
 * the file they point into.
 */

enum { LOADER_ALLOCATE = 1, LOADER_POINTER, LOADER_CHECKSUM };
enum { ZONE_HIGH = 1, ZONE_FSEG };
enum { NAME_SIZE = 56 };

static const char tables_file[] = "etc/acpi/tables", rsdp_file[] = "etc/acpi/rsdp";

static void put_name(uint8_t *to, const char *name)
{
    while (*name)
        *to++ = (uint8_t)*name++;
}

static uint8_t *command(struct dev_acpi *a, unsigned what, const char *file)
{
    uint8_t *c = a->loader + a->loader_size;

    a->loader_size += ACPI_LOADER_COMMAND;
    put32(c, what);
    put_name(c + 4, file);
    return c + 4 + NAME_SIZE;
}

static void load_allocate(struct dev_acpi *a, const char *file, unsigned align, unsigned zone)
{
    uint8_t *c = command(a, LOADER_ALLOCATE, file);

    put32(c, align);
    c[4] = (uint8_t)zone;
}

/* The pointer of size bytes at `offset` of the file points into the tables. */
static void load_pointer(struct dev_acpi *a, const char *file, size_t offset, unsigned size)
{
    uint8_t *c = command(a, LOADER_POINTER, file);

    put_name(c, tables_file);
    put32(c + NAME_SIZE, (uint32_t)offset);
    c[NAME_SIZE + 4] = (uint8_t)size;
}

static void load_checksum(struct dev_acpi *a, const char *file, size_t at, size_t start, size_t len)
{
    uint8_t *c = command(a, LOADER_CHECKSUM, file);

    put32(c, (uint32_t)at);
    put32(c + 4, (uint32_t)start);
    put32(c + 8, (uint32_t)len);
}

void dev_acpi_init(struct dev_acpi *a)
{
    struct layout l = lay_out(0);

    if (l.end > sizeof a->tables)
        return; /* a firmware finds none */
    put_tables(a->bus, &l, 0, a->tables);
    put_rsdp(a->rsdp, (uint32_t)l.rsdt);
    load_allocate(a, rsdp_file, 16, ZONE_FSEG);
    load_allocate(a, tables_file, 64, ZONE_HIGH);
    load_pointer(a, tables_file, l.rsdt + RSDT_FADT, 4);
    load_pointer(a, tables_file, l.rsdt + RSDT_MADT, 4);
    load_checksum(a, tables_file, l.rsdt + CHECKSUM, l.rsdt, RSDT_SIZE);
    load_pointer(a, tables_file, l.fadt + FADT_FACS, 4);
    load_pointer(a, tables_file, l.fadt + FADT_DSDT, 4);
    load_pointer(a, tables_file, l.fadt + FADT_X_DSDT, 8);
    load_checksum(a, tables_file, l.fadt + CHECKSUM, l.fadt, FADT_SIZE);
    load_pointer(a, rsdp_file, RSDP_RSDT, 4);
    load_checksum(a, rsdp_file, RSDP_CHECKSUM, 0, RSDP_SIZE);
    (void)dev_fw_cfg_add_file(a->bus, tables_file, a->tables, l.end);
    (void)dev_fw_cfg_add_file(a->bus, rsdp_file, a->rsdp, sizeof a->rsdp);
    (void)dev_fw_cfg_add_file(a->bus, "etc/table-loader", a->loader, a->loader_size);
}
