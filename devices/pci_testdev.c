/* devices/pci_testdev.c: the PCI test device that QEMU's docs/specs/pci-testdev describes: BAR 0 in memory,
 * BAR 1 ports, each with a header at its start. Writing a test's number there begins it; writes of the width
 * and data that the header asks for, at the offset it names, are counted in the header.
 */
#include "devices/chips.h"

#include <string.h>

enum { SLOT = 4, VENDOR = 0x1B36, DEVICE = 0x0005, CLASS_OTHER = 0xFF0000 };
enum { MEMORY_SIZE = 4096, PORTS_SIZE = 256, MEMORY_AT = 0xFEB00000u, PORTS_AT = 0xC000 };

/* Byte offsets in the header; what follows it is the test's name. */
enum {
    HEADER_TEST = 0,
    HEADER_WIDTH = 1,
    HEADER_OFFSET = 4,
    HEADER_DATA = 8,
    HEADER_COUNT = 12,
    HEADER_NAME = 16
};
enum { HEADER_SIZE = 48 };

static const struct test {
    uint8_t width;
    bool any; /* data is not looked at */
    uint32_t data;
    const char *name;
} tests[] = {
    {1, true, 0xFA, "byte, any data"},
    {1, false, 0xCE, "byte"},
    {2, false, 0xBEEF, "word"},
    {4, false, 0x12345678, "long"},
};
enum { TESTS = sizeof tests / sizeof tests[0] };

/* Tests use the second half of their BAR, 8 bytes each. */
static uint32_t test_offset(const struct pci_testdev_bar *b, int test)
{
    return (b->ports ? PORTS_SIZE : MEMORY_SIZE) / 2 + 8 * (uint32_t)test;
}

static uint32_t offset_of(const struct pci_testdev_bar *b, uint32_t addr)
{
    return b->ports ? addr & (PORTS_SIZE - 1) : addr;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint8_t *append(uint8_t *to, const char *text)
{
    while (*text)
        *to++ = (uint8_t)*text++;
    return to;
}

static void make_header(const struct pci_testdev_bar *b, uint8_t header[HEADER_SIZE])
{
    const struct test *t;

    memset(header, 0, HEADER_SIZE);
    if (b->test < 0)
        return;
    t = &tests[b->test];
    header[HEADER_TEST] = (uint8_t)b->test;
    header[HEADER_WIDTH] = t->width;
    put32(header + HEADER_OFFSET, test_offset(b, b->test));
    put32(header + HEADER_DATA, t->data);
    put32(header + HEADER_COUNT, b->count);
    append(append(header + HEADER_NAME, b->ports ? "ports: " : "memory: "), t->name);
}

static uint32_t bar_read(void *dev, uint32_t addr, unsigned size)
{
    const struct pci_testdev_bar *b = dev;
    uint32_t at = offset_of(b, addr), v = 0;
    uint8_t header[HEADER_SIZE];

    make_header(b, header);
    for (unsigned i = 0; i < size && at + i < HEADER_SIZE; i++)
        v |= (uint32_t)header[at + i] << 8 * i;
    return v;
}

static void bar_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    struct pci_testdev_bar *b = dev;
    uint32_t at = offset_of(b, addr);

    if (at == HEADER_TEST) {
        b->test = (value & 0xFF) < TESTS ? (int)(value & 0xFF) : -1;
        b->count = 0;
    } else if (b->test >= 0 && at == test_offset(b, b->test)) {
        const struct test *t = &tests[b->test];

        b->count += t->any || (size == t->width && value == t->data);
    }
}

static const struct dev_io_ops bar_ops = {bar_read, bar_write};

void dev_pci_testdev_add(struct dev_pci_testdev *t, struct dev_pci *pci)
{
    struct pci_function *f;

    if (t->present || !(f = dev_pci_add(pci, SLOT, VENDOR, DEVICE, CLASS_OTHER)))
        return;
    t->present = true;
    t->bar[PCI_TESTDEV_PORTS].ports = true;
    dev_pci_add_bar(pci, f, 0, false, MEMORY_SIZE, MEMORY_AT, &bar_ops, &t->bar[PCI_TESTDEV_MEMORY]);
    dev_pci_add_bar(pci, f, 1, true, PORTS_SIZE, PORTS_AT, &bar_ops, &t->bar[PCI_TESTDEV_PORTS]);
}

void dev_pci_testdev_reset(struct dev_pci_testdev *t)
{
    for (unsigned i = 0; i < PCI_TESTDEV_BARS; i++) {
        t->bar[i].test = -1;
        t->bar[i].count = 0;
    }
}
