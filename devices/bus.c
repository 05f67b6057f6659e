/* devices/bus.c: who answers at which port, the timers, and the ports too small for a file of their own. */
#include "devices/chips.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the local APIC's timer, until the machine says otherwise. */
#define APIC_HZ_DEFAULT 100000000u

/* -- Time ------------------------------------------------------------------------------------------------ */

uint64_t bus_now(const struct dev_bus *b)
{
    return b->host.now_ns(b->opaque);
}

/* Split at whole seconds: the remainder times hz stays below 2^62. */
uint64_t bus_ticks(uint64_t ns, uint64_t hz)
{
    return ns / NS_PER_S * hz + ns % NS_PER_S * hz / NS_PER_S;
}

uint64_t bus_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    uint64_t s = ticks / hz;

    if (s >= DEV_NEVER / NS_PER_S - 1)
        return DEV_NEVER;
    return s * NS_PER_S + (ticks % hz * NS_PER_S + hz - 1) / hz;
}

static uint64_t earliest(const struct dev_bus *b)
{
    uint64_t at = DEV_NEVER;

    for (unsigned i = 0; i < DEV_TIMERS; i++) {
        if (b->due[i] < at)
            at = b->due[i];
    }
    return at;
}

static void announce(struct dev_bus *b)
{
    b->announced = earliest(b);
    b->host.set_deadline(b->opaque, b->announced);
}

void bus_timer(struct dev_bus *b, enum dev_timer which, uint64_t at_ns)
{
    b->due[which] = at_ns;
    if (!b->in_timers && earliest(b) != b->announced)
        announce(b);
}

void dev_bus_run_timers(struct dev_bus *b)
{
    uint64_t now = bus_now(b);

    b->in_timers = true;
    if (b->due[TIMER_PIT] <= now)
        dev_pit_run(&b->pit, now);
    if (b->due[TIMER_RTC] <= now)
        dev_rtc_run(&b->rtc, now);
    if (b->due[TIMER_ACPI] <= now)
        dev_acpi_run(&b->acpi, now);
    if (b->due[TIMER_LAPIC] <= now)
        dev_lapic_run(&b->lapic, now);
    b->in_timers = false;
    announce(b);
}

/* -- Signals of chips ------------------------------------------------------------------------------------ */

#define ISA_CASCADE 2u /* no line of its own */

static unsigned ioapic_pin(unsigned irq)
{
    return irq == 0 ? 2 : irq;
}

void bus_irq(struct dev_bus *b, unsigned irq, bool level)
{
    if (irq == ISA_CASCADE)
        return;
    dev_pic_set(&b->pic, irq, level);
    dev_ioapic_set(&b->ioapic, ioapic_pin(irq), level);
}

void bus_irq_pulse(struct dev_bus *b, unsigned irq)
{
    dev_pic_pulse(&b->pic, irq);
    dev_ioapic_pulse(&b->ioapic, ioapic_pin(irq));
}

void dev_nmi_line(struct dev_bus *b, bool level)
{
    bool rises = level && !b->nmi;

    b->nmi = level;
    if (b->rtc.nmi_masked) /* port 70h, bit 7 */
        return;
    if (!dev_lapic_enabled(&b->lapic) && rises)
        b->host.nmi(b->opaque);
    dev_lapic_pin(&b->lapic, 1, level);
}

/* -- From the interrupt controllers to the processor ------------------------------------------------------- */

/* The 8259's request, by whichever way it is wired through. */
static bool pic_requests(const struct dev_bus *b)
{
    return (b->pic.intr && dev_lapic_takes_extint(&b->lapic)) || dev_ioapic_extint(&b->ioapic);
}

void bus_update_intr(struct dev_bus *b)
{
    bool level = b->lapic.ready || pic_requests(b);

    if (level == b->intr)
        return;
    b->intr = level;
    b->host.intr(b->opaque, level);
}

void bus_pic_intr(struct dev_bus *b, bool level)
{
    dev_lapic_pin(&b->lapic, 0, level);
    dev_ioapic_set(&b->ioapic, 0, level);
    bus_update_intr(b);
}

/* With more than one processor, "lowest priority" will have to choose among those that match. */
bool bus_apic_message(struct dev_bus *b, enum apic_mode mode, unsigned vector, uint8_t destination, bool logical,
                      bool level)
{
    return dev_lapic_matches(&b->lapic, destination, logical) && dev_lapic_accept(&b->lapic, mode, vector, level);
}

bool bus_apic_reaches(const struct dev_bus *b, uint8_t destination, bool logical)
{
    return dev_lapic_matches(&b->lapic, destination, logical);
}

void dev_apic_set_base(struct dev_bus *b, uint64_t value)
{
    dev_lapic_set_base(&b->lapic, value);
}

void dev_apic_set_clock(struct dev_bus *b, uint32_t hz)
{
    b->lapic.hz = hz;
}

struct dev_apic_counts dev_apic_counts(const struct dev_bus *b)
{
    return b->lapic.counts;
}

/* One latch behind port 92h and the 8042's output port: whichever wrote last decides, so software that knows
 * only one of the two ways gets what it asked for. */
void bus_a20(struct dev_bus *b, bool enabled)
{
    if (enabled == b->a20)
        return;
    b->a20 = enabled;
    b->host.a20(b->opaque, enabled);
}

void bus_reset_request(struct dev_bus *b, bool soft)
{
    b->host.reset(b->opaque, soft);
}

void dev_shadow_open(struct dev_bus *b)
{
    dev_pci_shadow_open(&b->pci);
}

void bus_init_request(struct dev_bus *b)
{
    b->host.init(b->opaque);
}

/* An 8259's request comes first, as it bypasses the priorities of the local APIC (SDM vol. 3, 10.8.1). */
uint8_t dev_intr_ack(struct dev_bus *b)
{
    uint8_t vector;

    if (!b->lapic.ready || pic_requests(b)) {
        if (!pic_requests(b) && !dev_lapic_takes_extint(&b->lapic))
            return dev_lapic_ack(&b->lapic); /* withdrawn: spurious */
        dev_ioapic_extint_ack(&b->ioapic);
        vector = dev_pic_ack(&b->pic);
    } else {
        vector = dev_lapic_ack(&b->lapic);
    }
    bus_update_intr(b);
    return vector;
}

bool dev_intr_level(const struct dev_bus *b)
{
    return b->intr;
}

size_t dev_serial_in(struct dev_bus *b, const uint8_t *data, size_t n)
{
    return dev_uart_in(&b->uart, data, n);
}

size_t dev_serial_room(const struct dev_bus *b)
{
    return dev_uart_room(&b->uart);
}

/* -- Small ports ----------------------------------------------------------------------------------------- */

static uint32_t open_read(void *dev, uint32_t addr, unsigned size)
{
    (void)dev;
    (void)addr;
    return 0xFFFFFFFFu >> (32 - 8 * size);
}

static void open_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    (void)dev;
    (void)addr;
    (void)size;
    (void)value;
}

static const struct dev_io_ops open_ops = {open_read, open_write};

static uint32_t post_read(void *dev, uint32_t addr, unsigned size)
{
    const struct dev_bus *b = dev;

    (void)addr;
    (void)size;
    return b->post_code;
}

static void post_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct dev_bus *b = dev;

    (void)addr;
    (void)size;
    b->post_code = (uint8_t)value;
}

static const struct dev_io_ops post_ops = {post_read, post_write};

/* System control port A: bit 1 is A20; bit 0 going from 0 to 1 pulses INIT, and stays, so that software can tell INIT from a reset of
 * everything (82371AB data sheet, 5.1.7). */
static uint32_t port92_read(void *dev, uint32_t addr, unsigned size)
{
    const struct dev_bus *b = dev;

    (void)addr;
    (void)size;
    return (uint32_t)(b->port92 | (b->a20 ? 2 : 0));
}

static void port92_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct dev_bus *b = dev;

    (void)addr;
    (void)size;
    bool fire = (value & 1) && !(b->port92 & 1);

    bus_a20(b, (value & 2) != 0);
    b->port92 = value & 1;
    if (fire)
        bus_reset_request(b, true);
}

static const struct dev_io_ops port92_ops = {port92_read, port92_write};

/* 82371AB data sheet, 5.1.1: a command to the firmware's system management mode, and a byte that only the two of them know. */
static uint32_t apm_read(void *dev, uint32_t addr, unsigned size)
{
    const struct dev_bus *b = dev;

    (void)size;
    return b->apm[addr & 1];
}

static void apm_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct dev_bus *b = dev;

    (void)size;
    b->apm[addr & 1] = (uint8_t)value;
    if (!(addr & 1))
        b->host.firmware_call(b->opaque, (uint8_t)value);
}

static const struct dev_io_ops apm_ops = {apm_read, apm_write};

/* The debug console of Bochs and QEMU: reading E9h there tells that it exists. */
static uint32_t debug_read(void *dev, uint32_t addr, unsigned size)
{
    (void)dev;
    (void)addr;
    (void)size;
    return 0xE9;
}

static void debug_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct dev_bus *b = dev;

    (void)addr;
    (void)size;
    b->host.debug_out(b->opaque, (uint8_t)value);
}

static const struct dev_io_ops debug_ops = {debug_read, debug_write};

/* The exit device of kvm-unit-tests: it writes 32 bits and reads nothing. */
static void exit_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct dev_bus *b = dev;

    (void)addr;
    (void)size;
    b->host.exit_code(b->opaque, (int)((value << 1 | 1) & 0x7FFFFFFF));
}

static const struct dev_io_ops exit_ops = {open_read, exit_write};

/* -- Dispatch -------------------------------------------------------------------------------------------- */

static void add_ports(struct dev_bus *b, uint32_t first, uint32_t last, const struct dev_io_ops *ops,
                      void *dev, bool wide)
{
    unsigned i = b->ranges++;

    b->range[i] = (struct dev_range){.ops = ops, .dev = dev, .first = first, .last = last, .wide = wide};
    memset(b->port_map + first, (int)i, last - first + 1);
}

static void add_mmio(struct dev_bus *b, uint64_t first, uint64_t last, const struct dev_io_ops *ops, void *dev)
{
    b->mmio[b->mmio_ranges++] = (struct dev_mmio_range){.ops = ops, .dev = dev, .first = first, .last = last};
}

unsigned bus_add_ports(struct dev_bus *b, const struct dev_io_ops *ops, void *dev)
{
    b->range[b->ranges] = (struct dev_range){.ops = ops, .dev = dev, .first = 1, .last = 0, .wide = true};
    return b->ranges++;
}

unsigned bus_add_mmio(struct dev_bus *b, const struct dev_io_ops *ops, void *dev)
{
    add_mmio(b, 1, 0, ops, dev);
    return b->mmio_ranges - 1;
}

void bus_move_ports(struct dev_bus *b, unsigned range, uint32_t first, uint32_t size)
{
    struct dev_range *r = &b->range[range];

    for (uint32_t p = r->first; p <= r->last; p++) {
        if (b->port_map[p] == range)
            b->port_map[p] = 0;
    }
    r->first = 1;
    r->last = 0;
    if (!size || first > 0x10000 - size)
        return;
    r->first = first;
    r->last = first + size - 1;
    for (uint32_t p = r->first; p <= r->last; p++) {
        if (!b->port_map[p])
            b->port_map[p] = (uint8_t)range;
    }
}

void bus_move_mmio(struct dev_bus *b, unsigned range, uint64_t first, uint64_t size)
{
    b->mmio[range].first = size ? first : 1;
    b->mmio[range].last = size ? first + size - 1 : 0;
}

static void map_ports(struct dev_bus *b)
{
    add_ports(b, 0, 0xFFFF, &open_ops, b, true);
    add_ports(b, 0x20, 0x21, &dev_pic_ops, &b->pic, false);
    add_ports(b, 0xA0, 0xA1, &dev_pic_ops, &b->pic, false);
    add_ports(b, 0x4D0, 0x4D1, &dev_elcr_ops, &b->pic, false);
    add_ports(b, 0x40, 0x43, &dev_pit_ops, &b->pit, false);
    add_ports(b, 0x61, 0x61, &dev_port61_ops, &b->pit, false);
    add_ports(b, 0x70, 0x71, &dev_rtc_ops, &b->rtc, false);
    add_ports(b, 0x3F8, 0x3FF, &dev_uart_ops, &b->uart, false);
    add_ports(b, 0x60, 0x60, &dev_i8042_ops, &b->i8042, false);
    add_ports(b, 0x64, 0x64, &dev_i8042_ops, &b->i8042, false);
    add_ports(b, 0xCF8, 0xCFF, &dev_pci_ops, &b->pci, true);
    add_ports(b, ACPI_PM_BASE, ACPI_PM_BASE + 11, &dev_acpi_ops, &b->acpi, true);
    add_ports(b, 0x80, 0x80, &post_ops, b, false);
    add_ports(b, 0x92, 0x92, &port92_ops, b, false);
    add_ports(b, 0xB2, 0xB3, &apm_ops, b, false);
    add_ports(b, 0xE9, 0xE9, &debug_ops, b, false);
    add_ports(b, 0x510, 0x511, &dev_fw_cfg_ops, &b->fw_cfg, true);
    add_ports(b, 0x514, 0x51B, &dev_fw_cfg_dma_ops, &b->fw_cfg, true);
    add_ports(b, 0xF0, 0xF0, &dev_ferr_ops, &b->ferr, false);
    add_ports(b, 0xF4, 0xF7, &exit_ops, b, true);
    add_mmio(b, IOAPIC_BASE, IOAPIC_BASE + 0xFFF, &dev_ioapic_ops, &b->ioapic);
}

uint32_t dev_port_read(struct dev_bus *b, uint16_t port, unsigned size)
{
    const struct dev_range *r = &b->range[b->port_map[port]];
    uint32_t value = 0;

    if (size == 1)
        return r->ops->read(r->dev, port, 1) & 0xFF;
    if (r->wide && port + size - 1 <= r->last && b->port_map[port + size - 1] == b->port_map[port])
        return r->ops->read(r->dev, port, size);
    for (unsigned i = 0; i < size; i++)
        value |= dev_port_read(b, (uint16_t)(port + i), 1) << 8 * i;
    return value;
}

void dev_port_write(struct dev_bus *b, uint16_t port, unsigned size, uint32_t value)
{
    const struct dev_range *r = &b->range[b->port_map[port]];

    if (size == 1) {
        r->ops->write(r->dev, port, 1, value & 0xFF);
        return;
    }
    if (r->wide && port + size - 1 <= r->last && b->port_map[port + size - 1] == b->port_map[port]) {
        r->ops->write(r->dev, port, size, size == 2 ? value & 0xFFFF : value);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        dev_port_write(b, (uint16_t)(port + i), 1, value >> 8 * i & 0xFF);
}

/* The local APIC first: nearly all such accesses are to it. */
static const struct dev_mmio_range *find_mmio(const struct dev_bus *b, uint64_t gpa)
{
    for (unsigned i = 0; i < b->mmio_ranges; i++) {
        const struct dev_mmio_range *m = &b->mmio[i];

        if (gpa >= m->first && gpa <= m->last)
            return m;
    }
    return NULL;
}

/* Does [gpa, gpa + size) touch a device at all? */
static bool any_mmio(const struct dev_bus *b, uint64_t gpa, unsigned size)
{
    for (unsigned i = 0; i < b->mmio_ranges; i++)
        if (gpa + size > b->mmio[i].first && gpa <= b->mmio[i].last)
            return true;
    return ((gpa ^ b->lapic.base) >> 12 == 0 || ((gpa + size - 1) ^ b->lapic.base) >> 12 == 0) && dev_lapic_enabled(&b->lapic);
}

static bool at_lapic(const struct dev_bus *b, uint64_t gpa, unsigned size)
{
    return (gpa ^ b->lapic.base) >> 12 == 0 && dev_lapic_enabled(&b->lapic) && (gpa & 0xFFF) + size <= 0x1000;
}

uint32_t dev_mmio_read(struct dev_bus *b, uint64_t gpa, unsigned size)
{
    const struct dev_mmio_range *m;
    uint32_t value = 0;

    if (at_lapic(b, gpa, size))
        return dev_lapic_ops.read(&b->lapic, gpa & 0xFFF, size);
    m = find_mmio(b, gpa);
    if (m && m->last - gpa >= size - 1)
        return m->ops->read(m->dev, (uint32_t)(gpa - m->first), size);
    if (size == 1 || !any_mmio(b, gpa, size))
        return 0xFFFFFFFFu >> (32 - 8 * size);
    for (unsigned i = 0; i < size; i++)
        value |= dev_mmio_read(b, gpa + i, 1) << 8 * i;
    return value;
}

void dev_mmio_write(struct dev_bus *b, uint64_t gpa, unsigned size, uint32_t value)
{
    const struct dev_mmio_range *m;

    if (at_lapic(b, gpa, size)) {
        dev_lapic_ops.write(&b->lapic, gpa & 0xFFF, size, value);
        return;
    }
    m = find_mmio(b, gpa);
    if (m && m->last - gpa >= size - 1) {
        m->ops->write(m->dev, (uint32_t)(gpa - m->first), size, value);
        return;
    }
    for (unsigned i = 0; i < size && size > 1 && any_mmio(b, gpa, size); i++)
        dev_mmio_write(b, gpa + i, 1, value >> 8 * i & 0xFF);
}

/* -- Life ------------------------------------------------------------------------------------------------ */

struct dev_bus *dev_bus_create(const struct dev_host_ops *ops, void *opaque, uint64_t ram_bytes,
                               int64_t epoch_s)
{
    struct dev_bus *b = calloc(1, sizeof *b);

    if (!b)
        return NULL;
    b->host = *ops;
    b->opaque = opaque;
    b->a20 = true;
    b->announced = DEV_NEVER;
    for (unsigned i = 0; i < DEV_TIMERS; i++)
        b->due[i] = DEV_NEVER;
    b->pic.bus = b->pit.bus = b->rtc.bus = b->uart.bus = b->i8042.bus = b->pci.bus = b->acpi.bus = b;
    b->lapic.bus = b->ioapic.bus = b->ferr.bus = b->fw_cfg.bus = b->testdev.bus = b;
    b->lapic.hz = APIC_HZ_DEFAULT;
    map_ports(b);
    dev_rtc_init(&b->rtc, ram_bytes, epoch_s);
    dev_fw_cfg_init(&b->fw_cfg, ram_bytes);
    dev_acpi_init(&b->acpi);
    dev_bus_reset(b);
    return b;
}

void dev_bus_destroy(struct dev_bus *b)
{
    free(b);
}

void dev_bus_setup(struct dev_bus *b)
{
    b->in_timers = true; /* one announcement at the end, not one a chip */
    dev_lapic_reset(&b->lapic);
    dev_ioapic_reset(&b->ioapic);
    dev_pic_reset(&b->pic);
    dev_ferr_reset(&b->ferr);
    dev_pit_reset(&b->pit);
    dev_rtc_reset(&b->rtc);
    dev_uart_reset(&b->uart);
    dev_i8042_reset(&b->i8042);
    dev_pci_reset(&b->pci);
    dev_acpi_reset(&b->acpi);
    dev_fw_cfg_reset(&b->fw_cfg);
    dev_testdev_reset(&b->testdev);
    dev_pci_testdev_reset(&b->pci_testdev);
    b->post_code = 0;
    bus_a20(b, true);
    b->in_timers = false;
    announce(b);
}

void dev_bus_reset(struct dev_bus *b)
{
    b->port92 = b->apm[0] = b->apm[1] = 0;
    dev_bus_setup(b);
}

void dev_apic_init(struct dev_bus *b)
{
    dev_lapic_init(&b->lapic);
}

/* -- Devices that are there only if asked for --------------------------------------------------------------- */

static const struct {
    const char *name, *text;
} extras[DEV_EXTRA_COUNT] = {
#define X(id, name, text) {name, text},
    DEV_EXTRAS(X)
#undef X
};

const char *dev_extra_name(enum dev_extra e)
{
    return extras[e].name;
}

const char *dev_extra_text(enum dev_extra e)
{
    return extras[e].text;
}

static void add_testdev(struct dev_bus *b)
{
    struct dev_testdev *t = &b->testdev;

    if (t->present)
        return;
    t->present = true;
    add_ports(b, 0xE0, 0xE3, &dev_testdev_data_ops, t, true);
    add_ports(b, 0xE4, 0xE7, &dev_testdev_flush_ops, t, true);
    add_ports(b, 0xE8, 0xEB, &dev_testdev_data_ops, t, false);
    add_ports(b, 0x2000, 0x2000 + IOAPIC_PINS - 1, &dev_testdev_irq_ops, t, false);
    add_mmio(b, TESTDEV_IOMEM, TESTDEV_IOMEM + TESTDEV_IOMEM_SIZE - 1, &dev_testdev_iomem_ops, t);
}

void dev_bus_add(struct dev_bus *b, enum dev_extra e)
{
    switch (e) {
    case DEV_EXTRA_TESTDEV:
        add_testdev(b);
        return;
    case DEV_EXTRA_PCI_TESTDEV:
        dev_pci_testdev_add(&b->pci_testdev, &b->pci);
        return;
    case DEV_EXTRA_DEBUGCON:
        add_ports(b, 0x402, 0x402, &debug_ops, b, false);
        return;
    default:
        return;
    }
}

/* -- Diagnostics ----------------------------------------------------------------------------------------- */

static void dump_apics(const struct dev_bus *b, void (*line)(void *opaque, const char *text), void *opaque)
{
    const struct dev_lapic *l = &b->lapic;
    char s[200];

    snprintf(s, sizeof s,
             "lapic: base %llx id %08x svr %03x tpr %02x lint %05x %05x timer %05x initial %u divide %x ready %d",
             (unsigned long long)l->base, l->id, l->svr, l->tpr, l->lvt[LAPIC_LVT_LINT0], l->lvt[LAPIC_LVT_LINT1],
             l->lvt[LAPIC_LVT_TIMER], l->initial, l->divide, l->ready);
    line(opaque, s);
    for (unsigned i = 0; i < 8; i++) {
        if (!(l->isr[i] | l->irr[i]))
            continue;
        snprintf(s, sizeof s, "lapic: vectors %02x-%02x isr %08x irr %08x tmr %08x", i * 32, i * 32 + 31, l->isr[i],
                 l->irr[i], l->tmr[i]);
        line(opaque, s);
    }
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (b->ioapic.entry[pin] == 0x10000)
            continue;
        snprintf(s, sizeof s, "ioapic: pin %u level %u entry %016llx", pin, b->ioapic.line >> pin & 1,
                 (unsigned long long)b->ioapic.entry[pin]);
        line(opaque, s);
    }
}

void dev_bus_dump(const struct dev_bus *b, void (*line)(void *opaque, const char *text), void *opaque)
{
    char s[200];

    for (unsigned i = 0; i < 2; i++) {
        const struct pic_chip *c = &b->pic.chip[i];

        snprintf(s, sizeof s,
                 "pic%u: irr %02x isr %02x imr %02x lines %02x elcr %02x base %02x init %u intr %d", i,
                 c->irr, c->isr, c->imr, c->line, c->elcr, c->base, c->init_state, b->pic.intr);
        line(opaque, s);
    }
    dump_apics(b, line, opaque);
    for (unsigned i = 0; i < 3; i++) {
        const struct pit_channel *c = &b->pit.channel[i];

        snprintf(s, sizeof s, "pit%u: mode %u control %02x count %u gate %d loaded %d running %d start %llu",
                 i, c->mode, c->control, c->count, c->gate, c->loaded, c->running,
                 (unsigned long long)c->start);
        line(opaque, s);
    }
    snprintf(s, sizeof s, "rtc: a %02x b %02x c %02x index %02x nmi_masked %d", b->rtc.cmos[10],
             b->rtc.cmos[11], b->rtc.cmos[12], b->rtc.index, b->rtc.nmi_masked);
    line(opaque, s);
    snprintf(s, sizeof s, "uart: ier %02x fcr %02x lcr %02x mcr %02x rx %u thr_event %d", b->uart.ier,
             b->uart.fcr, b->uart.lcr, b->uart.mcr, b->uart.rx_count, b->uart.thr_empty_event);
    line(opaque, s);
    snprintf(s, sizeof s, "i8042: command byte %02x full %d data %02x a20 %d", b->i8042.ram[0], b->i8042.full,
             b->i8042.data, b->a20);
    line(opaque, s);
    snprintf(s, sizeof s, "pci: address %08x", b->pci.address);
    line(opaque, s);
    snprintf(s, sizeof s, "acpi: status %04x enable %04x control %04x", b->acpi.status, b->acpi.enable,
             b->acpi.control);
    line(opaque, s);
    snprintf(s, sizeof s, "timers: now %llu pit %llu rtc %llu acpi %llu", (unsigned long long)bus_now(b),
             (unsigned long long)b->due[TIMER_PIT], (unsigned long long)b->due[TIMER_RTC],
             (unsigned long long)b->due[TIMER_ACPI]);
    line(opaque, s);
}
