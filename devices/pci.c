/* devices/pci.c: PCI configuration mechanism 1 with one device, the 440FX host bridge, and the reset control
 * register CF9h in its midst.
 *
 * PCI Local Bus Specification 2.2, 3.2.2.3.2: only a 32-bit access to CF8h reaches the address register;
 * others pass to the I/O devices behind it, which is how CF9h can exist.
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

static uint32_t config_read(const struct dev_pci *p, unsigned offset, unsigned size)
{
    unsigned reg = (p->address & 0xFC) + offset;
    uint32_t v = 0;

    if (!selects_host_bridge(p))
        return low_bytes(size); /* master abort */
    for (unsigned i = 0; i < size; i++)
        v |= (uint32_t)p->host_bridge[(reg + i) & 0xFF] << 8 * i;
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
    const struct dev_pci *p = dev;

    if (port >= 0xCFC)
        return config_read(p, port & 3, size);
    if (port == 0xCF8 && size == 4)
        return p->address;
    if (port == 0xCF9 && size == 1)
        return p->reset_control;
    return low_bytes(size);
}

static void pci_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_pci *p = dev;

    if (port >= 0xCFC)
        config_write(p, port & 3, size, value);
    else if (port == 0xCF8 && size == 4)
        p->address = value & CONFIG_MASK;
    else if (port == 0xCF9 && size == 1)
        reset_control_write(p, (uint8_t)value);
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
    p->address = 0;
    p->reset_control = 0;
    tell_shadow(p);
}
