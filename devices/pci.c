/* devices/pci.c: PCI configuration mechanism 1, the 440FX host bridge and what is added beside it, and the reset control
 * register CF9h in the midst of its ports.
 *
 * PCI Local Bus Specification 2.2, 3.2.2.3.2: only a 32-bit access to CF8h reaches the address register;
 * others pass to the I/O devices behind it, which is how CF9h can exist. Bits 1 and 0 of the address must be zero; software
 * that sets them and reads at CFCh, as kvm-unit-tests do, means that byte (QEMU has it so).
 */
#include "devices/chips.h"

#include <string.h>

#define CONFIG_ENABLE 0x80000000u
#define CONFIG_MASK   0x80FFFFFCu
#define PAM           0x59 /* and six more: 82441FX data sheet, 3.2.18 */
enum { CF9_SYSTEM_RESET = 0x02, CF9_RESET_CPU = 0x04 };

static uint32_t low_bytes(unsigned size)
{
    return 0xFFFFFFFFu >> (32 - 8 * size);
}

static bool selects_host_bridge(const struct dev_pci *p)
{
    return (p->address & 0x80FFFF00u) == CONFIG_ENABLE;
}

/* 82441FX data sheet, 3.2: which bytes of the header and of the memory controller's registers can be written.
 */
static bool writable(unsigned reg)
{
    return reg == 0x0D || (reg >= 0x50 && reg < 0x78) || reg == 0x90 || reg == 0x91 || reg == 0x93;
}

/* -- Devices beside the host bridge (PCI 2.2, 6.1 and 6.2) --------------------------------------------------- */

enum { REG_VENDOR = 0x00, REG_COMMAND = 0x04, REG_CLASS = 0x09, REG_CACHE_LINE = 0x0C, REG_LATENCY = 0x0D, REG_BAR = 0x10 };
enum { REG_BAR_END = 0x28, REG_INTERRUPT_LINE = 0x3C };
enum { COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_MASTER = 4 };

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static struct pci_function *selected(struct dev_pci *p)
{
    if ((p->address & 0x80FF0700u) != CONFIG_ENABLE) /* bus 0, function 0 */
        return NULL;
    for (unsigned i = 0; i < p->functions; i++) {
        if (p->function[i].slot == (p->address >> 11 & 0x1F))
            return &p->function[i];
    }
    return NULL;
}

/* Puts each range where its register and the command register say. */
static void map_bars(struct dev_pci *p, struct pci_function *f)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        const struct pci_bar *bar = &f->bar[n];
        uint32_t at = get32(f->config + REG_BAR + 4 * n) & ~(bar->size - 1), command = f->config[REG_COMMAND];

        if (bar->size && bar->io)
            bus_move_ports(p->bus, bar->range, at, command & COMMAND_IO ? bar->size : 0);
        else if (bar->size)
            bus_move_mmio(p->bus, bar->range, at, command & COMMAND_MEMORY ? bar->size : 0);
    }
}

/* Which bits of a byte of the header can be written. */
static uint8_t writable_bits(const struct pci_function *f, unsigned reg)
{
    if (reg >= REG_BAR && reg < REG_BAR_END) {
        const struct pci_bar *bar = &f->bar[(reg - REG_BAR) / 4];

        return bar->size ? (uint8_t)(~(bar->size - 1) >> 8 * (reg & 3)) : 0;
    }
    switch (reg) {
    case REG_COMMAND:
        return COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER;
    case REG_CACHE_LINE:
    case REG_LATENCY:
    case REG_INTERRUPT_LINE:
        return 0xFF;
    default:
        return 0;
    }
}

static void function_write(struct dev_pci *p, struct pci_function *f, unsigned reg, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t *byte = &f->config[(reg + i) & 0xFF], mask = writable_bits(f, (reg + i) & 0xFF);

        *byte = (uint8_t)((*byte & ~mask) | (value >> 8 * i & mask));
    }
    if (reg < REG_BAR_END)
        map_bars(p, f);
}

struct pci_function *dev_pci_add(struct dev_pci *p, unsigned slot, uint16_t vendor, uint16_t device, uint32_t class_code)
{
    struct pci_function *f;

    if (p->functions == PCI_FUNCTIONS)
        return NULL;
    f = &p->function[p->functions++];
    memset(f, 0, sizeof *f);
    f->slot = (uint8_t)slot;
    put32(f->config + REG_VENDOR, (uint32_t)device << 16 | vendor);
    put32(f->config + REG_CLASS - 1, class_code << 8); /* revision 0 */
    memcpy(f->initial, f->config, sizeof f->initial);
    return f;
}

void dev_pci_add_bar(struct dev_pci *p, struct pci_function *f, unsigned n, bool io, uint32_t size, uint32_t at,
                     const struct dev_io_ops *ops, void *dev)
{
    f->bar[n] = (struct pci_bar){
        .size = size, .io = io, .range = io ? bus_add_ports(p->bus, ops, dev) : bus_add_mmio(p->bus, ops, dev)};
    put32(f->config + REG_BAR + 4 * n, at | (io ? 1 : 0));
    f->config[REG_COMMAND] |= io ? COMMAND_IO : COMMAND_MEMORY;
    memcpy(f->initial, f->config, sizeof f->initial);
    map_bars(p, f);
}

/* -- Configuration space ----------------------------------------------------------------------------------- */

static uint32_t config_read(struct dev_pci *p, unsigned offset, unsigned size)
{
    unsigned reg = (p->address & 0xFC) + offset;
    const struct pci_function *f = selected(p);
    const uint8_t *config = f ? f->config : p->host_bridge;
    uint32_t v = 0;

    if (!f && !selects_host_bridge(p))
        return low_bytes(size); /* master abort */
    for (unsigned i = 0; i < size; i++)
        v |= (uint32_t)config[(reg + i) & 0xFF] << 8 * i;
    return v;
}

static void tell_shadow(struct dev_pci *p)
{
    if (p->shadow_told && !memcmp(p->shadow, p->host_bridge + PAM, sizeof p->shadow))
        return;
    memcpy(p->shadow, p->host_bridge + PAM, sizeof p->shadow);
    p->shadow_told = true;
    p->bus->host.shadow(p->bus->opaque, p->shadow);
}

void dev_pci_shadow_open(struct dev_pci *p)
{
    memset(p->host_bridge + PAM, 0x33, sizeof p->shadow);
    p->host_bridge[PAM] = 0x30;
    tell_shadow(p);
}

static void config_write(struct dev_pci *p, unsigned offset, unsigned size, uint32_t value)
{
    unsigned reg = (p->address & 0xFC) + offset;
    struct pci_function *f = selected(p);

    if (f) {
        function_write(p, f, reg, size, value);
        return;
    }
    if (!selects_host_bridge(p))
        return;
    for (unsigned i = 0; i < size; i++) {
        if (writable((reg + i) & 0xFF))
            p->host_bridge[(reg + i) & 0xFF] = (uint8_t)(value >> 8 * i);
    }
    tell_shadow(p);
}

/* PIIX3 data sheet, "Reset Control Register": bit 2 going from 0 to 1 resets, all with bit 1 set, the processor (INIT) without. */
static void reset_control_write(struct dev_pci *p, uint8_t v)
{
    bool fire = (v & CF9_RESET_CPU) && !(p->reset_control & CF9_RESET_CPU);

    p->reset_control = v & (CF9_SYSTEM_RESET | CF9_RESET_CPU);
    if (fire)
        bus_reset_request(p->bus, !(v & CF9_SYSTEM_RESET));
}

static uint32_t pci_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_pci *p = dev;

    if (port >= 0xCFC)
        return config_read(p, (port & 3) | p->low_bits, size);
    if (port == 0xCF8 && size == 4)
        return p->address;
    if (port == 0xCF9 && size == 1)
        return p->reset_control;
    return low_bytes(size);
}

static void pci_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_pci *p = dev;

    if (port >= 0xCFC) {
        config_write(p, (port & 3) | p->low_bits, size, value);
    } else if (port == 0xCF8 && size == 4) {
        p->address = value & CONFIG_MASK;
        p->low_bits = value & 3;
    } else if (port == 0xCF9 && size == 1) {
        reset_control_write(p, (uint8_t)value);
    }
}

const struct dev_io_ops dev_pci_ops = {pci_read, pci_write};

void dev_pci_reset(struct dev_pci *p)
{
    static const uint8_t header[16] = {
        0x86, 0x80, 0x37, 0x12, /* Intel 82441FX */
        0x06, 0x00, 0x80, 0x02, /* command: memory, master; status: medium DEVSEL */
        0x02, 0x00, 0x00, 0x06, /* revision 2, host bridge */
        0x00, 0x00, 0x00, 0x00,
    };

    memset(p->host_bridge, 0, sizeof p->host_bridge);
    memcpy(p->host_bridge, header, sizeof header);
    for (unsigned i = 0; i < p->functions; i++) {
        memcpy(p->function[i].config, p->function[i].initial, sizeof p->function[i].config);
        map_bars(p, &p->function[i]);
    }
    p->address = 0;
    p->low_bits = 0;
    p->reset_control = 0;
    tell_shadow(p);
}
