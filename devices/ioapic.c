/* devices/ioapic.c: the 82093AA I/O APIC (Intel 290566-001; sections cited are of it).
 *
 * Pins are electrical levels: 0-15 are the ISA interrupts (0 is the 8259's INTR, interrupt 0 comes at pin 2),
 * 16-23 are PCI's, which rest high. An edge on a masked pin is lost; a level is served when it can be.
 */
#include "devices/chips.h"

#include <string.h>

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10 };
enum { INDEX_ID, INDEX_VERSION, INDEX_ARBITRATION, INDEX_REDIRECTION = 0x10 };
#define VERSION   (0x11u | (IOAPIC_PINS - 1) << 16)
#define ID_MASK   0x0F000000u
#define PINS_HIGH 0x00FF0000u /* PCI's lines rest high */

/* Redirection entries (3.2.4). */
#define ENTRY_LOGICAL    (1ull << 11)
#define ENTRY_LOW        (1ull << 13)
#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_LEVEL      (1ull << 15)
#define ENTRY_MASKED     (1ull << 16)
#define ENTRY_WRITABLE   0xFF0000000001AFFFull
#define ENTRY_MODE(e)    ((enum apic_mode)((e) >> 8 & 7))

static bool asserted(const struct dev_ioapic *a, unsigned pin)
{
    return (a->line >> pin & 1) != ((a->entry[pin] & ENTRY_LOW) != 0);
}

/* SMI, NMI, INIT and ExtINT are edges whatever the entry says. */
static bool level_triggered(uint64_t e)
{
    return (e & ENTRY_LEVEL) && (ENTRY_MODE(e) == APIC_FIXED || ENTRY_MODE(e) == APIC_LOWEST);
}

static bool deliver(struct dev_ioapic *a, unsigned pin)
{
    uint64_t e = a->entry[pin];

    return bus_apic_message(a->bus, ENTRY_MODE(e), e & 0xFF, (uint8_t)(e >> 56), (e & ENTRY_LOGICAL) != 0,
                            level_triggered(e));
}

static void service_level(struct dev_ioapic *a, unsigned pin)
{
    uint64_t *e = &a->entry[pin];

    if (!(*e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) && level_triggered(*e) && asserted(a, pin) &&
        deliver(a, pin))
        *e |= ENTRY_REMOTE_IRR;
}

/* A pin became active. */
static void edge(struct dev_ioapic *a, unsigned pin)
{
    uint64_t e = a->entry[pin];

    if (e & ENTRY_MASKED)
        return;
    if (ENTRY_MODE(e) != APIC_EXTINT) {
        (void)deliver(a, pin);
    } else if (pin) {
        a->extint |= 1u << pin;
        bus_update_intr(a->bus);
    }
}

void dev_ioapic_set(struct dev_ioapic *a, unsigned pin, bool level)
{
    bool before = asserted(a, pin);

    a->line = level ? a->line | 1u << pin : a->line & ~(1u << pin);
    if (!asserted(a, pin) || before)
        return;
    if (level_triggered(a->entry[pin]))
        service_level(a, pin);
    else
        edge(a, pin);
}

void dev_ioapic_pulse(struct dev_ioapic *a, unsigned pin)
{
    a->line &= ~(1u << pin);
    dev_ioapic_set(a, pin, true);
}

void dev_ioapic_service(struct dev_ioapic *a)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        service_level(a, pin);
    bus_update_intr(a->bus);
}

/* 3.2.4, Remote IRR: an EOI message with the vector of a level-triggered entry ends it; a line that is still
 * active interrupts again. */
void dev_ioapic_eoi(struct dev_ioapic *a, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *e = &a->entry[pin];

        if ((*e & ENTRY_REMOTE_IRR) && (*e & 0xFF) == vector) {
            *e &= ~ENTRY_REMOTE_IRR;
            service_level(a, pin);
        }
    }
}

/* -- ExtINT: the vector comes from the 8259 pair -----------------------------------------------------------
 */

static bool routes_extint(const struct dev_ioapic *a, unsigned pin)
{
    uint64_t e = a->entry[pin];

    return !(e & ENTRY_MASKED) && ENTRY_MODE(e) == APIC_EXTINT &&
           bus_apic_reaches(a->bus, (uint8_t)(e >> 56), (e & ENTRY_LOGICAL) != 0);
}

/* Pin 0 is the 8259's request itself and is looked at as it is; other pins ask once an edge. */
bool dev_ioapic_extint(const struct dev_ioapic *a)
{
    if (asserted(a, 0) && routes_extint(a, 0))
        return true;
    for (unsigned pin = 1; pin < IOAPIC_PINS && a->extint; pin++) {
        if ((a->extint >> pin & 1) && routes_extint(a, pin))
            return true;
    }
    return false;
}

void dev_ioapic_extint_ack(struct dev_ioapic *a)
{
    a->extint &= a->extint - 1; /* one request, one acknowledge */
}

/* -- Registers (3.1, 3.2) ----------------------------------------------------------------------------------
 */

static void write_entry(struct dev_ioapic *a, unsigned half, uint32_t v)
{
    unsigned pin = half / 2, shift = half % 2 * 32;
    uint64_t *e = &a->entry[pin], mask = ENTRY_WRITABLE & (0xFFFFFFFFull << shift);
    bool before = asserted(a, pin);

    *e = (*e & ~mask) | ((uint64_t)v << shift & mask);
    if (!level_triggered(*e)) /* made edge-triggered: what it waited for does not come */
        *e &= ~ENTRY_REMOTE_IRR;
    if ((*e & ENTRY_MASKED) || ENTRY_MODE(*e) != APIC_EXTINT)
        a->extint &= ~(1u << pin);
    if (!before && asserted(a, pin) && !level_triggered(*e)) /* the polarity was changed */
        edge(a, pin);
    service_level(a, pin);
    bus_update_intr(a->bus);
}

static uint32_t read_index(const struct dev_ioapic *a)
{
    unsigned i = a->select;

    if (i >= INDEX_REDIRECTION && i < INDEX_REDIRECTION + 2 * IOAPIC_PINS) {
        i -= INDEX_REDIRECTION;
        return (uint32_t)(a->entry[i / 2] >> i % 2 * 32);
    }
    switch (i) {
    case INDEX_ID:
    case INDEX_ARBITRATION: /* loaded when the ID is written; there is no arbitration after that */
        return a->id;
    case INDEX_VERSION:
        return VERSION;
    default:
        return 0;
    }
}

static void write_index(struct dev_ioapic *a, uint32_t v)
{
    unsigned i = a->select;

    if (i >= INDEX_REDIRECTION && i < INDEX_REDIRECTION + 2 * IOAPIC_PINS)
        write_entry(a, i - INDEX_REDIRECTION, v);
    else if (i == INDEX_ID)
        a->id = v & ID_MASK;
}

/* "Accesses must be 32-bit" (3.1). Reads of other widths give the bytes of the register, other writes reach
 * the select register's only byte and nothing else. */
static uint32_t ioapic_read(void *dev, uint32_t addr, unsigned size)
{
    const struct dev_ioapic *a = dev;
    unsigned at = addr & 15;
    uint32_t v = 0;

    if (at < 4 && (addr & 0xF0) == REG_SELECT)
        v = a->select;
    else if (at < 4 && (addr & 0xF0) == REG_WINDOW)
        v = read_index(a);
    return at < 4 ? v >> 8 * at & (0xFFFFFFFFu >> (32 - 8 * size)) : 0;
}

static void ioapic_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct dev_ioapic *a = dev;

    if ((addr & 0xFF) == REG_SELECT)
        a->select = (uint8_t)value;
    else if ((addr & 0xFF) == REG_WINDOW && size == 4)
        write_index(a, value);
}

const struct dev_io_ops dev_ioapic_ops = {ioapic_read, ioapic_write};

void dev_ioapic_reset(struct dev_ioapic *a)
{
    a->id = 0;
    a->select = 0;
    a->extint = 0;
    a->line |= PINS_HIGH;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        a->entry[pin] = ENTRY_MASKED;
    bus_update_intr(a->bus);
}
