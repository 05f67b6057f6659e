/* devices/testdev.c: the test device of kvm-unit-tests (their lib/x86 and x86 folders say what they use): a
 * 32-bit register at ports E0h-E3h (E8h-EBh: the same, byte by byte), a port that has a page's mappings
 * dropped (E4h), the interrupt lines (2000h + pin), and 64 KiB of memory-mapped store at FF000000h.
 */
#include "devices/chips.h"

#include <string.h>

static uint32_t ones(unsigned size)
{
    return 0xFFFFFFFFu >> (32 - 8 * size);
}

static uint32_t data_read(void *dev, uint32_t port, unsigned size)
{
    const struct dev_testdev *t = dev;

    return t->data >> 8 * (port & 3) & ones(size);
}

static void data_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_testdev *t = dev;
    uint32_t mask = ones(size) << 8 * (port & 3);

    t->data = (t->data & ~mask) | (value << 8 * (port & 3) & mask);
}

const struct dev_io_ops dev_testdev_data_ops = {data_read, data_write};

static uint32_t write_only(void *dev, uint32_t port, unsigned size)
{
    (void)dev;
    (void)port;
    return ones(size);
}

static void flush_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    const struct dev_testdev *t = dev;

    (void)port;
    if (size == 4)
        t->bus->host.flush_page(t->bus->opaque, value & ~0xFFFu);
}

const struct dev_io_ops dev_testdev_flush_ops = {write_only, flush_write};

static void irq_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_testdev *t = dev;
    unsigned pin = port & 0x1F;

    (void)size;
    if (pin < 16)
        bus_irq(t->bus, pin, value != 0);
    else
        dev_ioapic_set(&t->bus->ioapic, pin, value != 0);
}

const struct dev_io_ops dev_testdev_irq_ops = {write_only, irq_write};

static uint32_t iomem_read(void *dev, uint32_t addr, unsigned size)
{
    const struct dev_testdev *t = dev;
    uint32_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v |= (uint32_t)t->iomem[(addr + i) % TESTDEV_IOMEM_SIZE] << 8 * i;
    return v;
}

static void iomem_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct dev_testdev *t = dev;

    for (unsigned i = 0; i < size; i++)
        t->iomem[(addr + i) % TESTDEV_IOMEM_SIZE] = (uint8_t)(value >> 8 * i);
}

const struct dev_io_ops dev_testdev_iomem_ops = {iomem_read, iomem_write};

void dev_testdev_reset(struct dev_testdev *t)
{
    t->data = 0;
    memset(t->iomem, 0, sizeof t->iomem);
}
