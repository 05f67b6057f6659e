/* Firmware configuration, as firmware reads it. */
#include "dev_machine.h"

static void select_item(uint16_t key)
{
    dev_port_write(m.bus, 0x510, 2, key);
}

static uint64_t next_bytes(unsigned size)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)in8(0x511) << 8 * i;
    return v;
}

static uint64_t number(uint16_t key, unsigned size)
{
    select_item(key);
    return next_bytes(size);
}

static uint32_t be(const uint8_t *p, unsigned size)
{
    uint32_t v = 0;

    while (size--)
        v = v << 8 | *p++;
    return v;
}

static void put_be(uint8_t *p, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> 8 * (size - 1 - i));
}

/* Runs a DMA access whose description is at 100h; returns its control word afterwards. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t address)
{
    put_be(m.ram + 0x100, control, 4);
    put_be(m.ram + 0x104, len, 4);
    put_be(m.ram + 0x108, address, 8);
    dev_port_write(m.bus, 0x518, 4, 0x00010000); /* 100h, big-endian */
    return be(m.ram + 0x100, 4);
}

static bool find_file(const char *name, uint16_t *key, uint32_t *len)
{
    static uint8_t directory[4 + 64 * 64];
    uint32_t n;

    select_item(0x19);
    for (unsigned i = 0; i < sizeof directory; i++)
        directory[i] = in8(0x511);
    n = be(directory, 4);
    ck_assert_uint_lt(n, 64);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *e = directory + 4 + i * 64;

        if (strcmp((const char *)e + 8, name))
            continue;
        *len = be(e, 4);
        *key = (uint16_t)be(e + 4, 2);
        return true;
    }
    return false;
}

START_TEST(signature_and_numbers)
{
    ck_assert_uint_eq(number(0, 4), 0x554D4551); /* QEMU */
    ck_assert_uint_eq(number(1, 4), 3);
    ck_assert_uint_eq(number(3, 8), 512ull << 20);
    ck_assert_uint_eq(number(5, 2), 1);
    ck_assert_uint_eq(number(0x0F, 2), 1);
    ck_assert_uint_eq(number(0x4005, 2), 1); /* "for writing": the same item */
    ck_assert_uint_eq(number(5, 4), 1);      /* zeros beyond the end */
    ck_assert_uint_eq(number(0x77, 4), 0);   /* no such item */
    out8(0x511, 0x55);                       /* writes are ignored */
    ck_assert_uint_eq(number(5, 2), 1);
}
END_TEST

START_TEST(directory_names_files_and_e820_is_all_ram)
{
    uint16_t key = 0;
    uint32_t len = 0;

    ck_assert(find_file("etc/e820", &key, &len));
    ck_assert_uint_ge(key, 0x20);
    ck_assert_uint_eq(len, 20);
    ck_assert_uint_eq(number(key, 8), 0);
    ck_assert_uint_eq(next_bytes(8), 512ull << 20);
    ck_assert_uint_eq(next_bytes(4), 1); /* RAM */
    ck_assert(!find_file("etc/none", &key, &len));
    ck_assert(dev_fw_cfg_add_file(m.bus, "opt/test", "hello", 5));
    ck_assert(find_file("opt/test", &key, &len));
    ck_assert_uint_eq(len, 5);
    ck_assert_uint_eq(number(key, 5), 0x6F6C6C6568);
}
END_TEST

START_TEST(tables_have_an_end)
{
    char name[60] = "opt/123456789012345678901234567890123456789012345678901"; /* 55 bytes */
    unsigned n = 0;

    ck_assert_uint_eq(strlen(name), 55);
    ck_assert(dev_fw_cfg_add_file(m.bus, name, name, 1));
    strcat(name, "x");
    ck_assert(!dev_fw_cfg_add_file(m.bus, name, name, 1));
    while (dev_fw_cfg_add_file(m.bus, "x", name, 1))
        ck_assert_uint_lt(++n, 1000);
    n = 0;
    while (dev_fw_cfg_add_number(m.bus, (uint16_t)(0x9000 + n), n, 4))
        ck_assert_uint_lt(++n, 1000);
    ck_assert_uint_eq(number(5, 2), 1);
    ck_assert(dev_fw_cfg_add_number(m.bus, 5, 2, 2)); /* replacing needs no room */
    ck_assert_uint_eq(number(5, 2), 2);
    ck_assert(dev_fw_cfg_add(m.bus, 5, "\3", 2));
    ck_assert_uint_eq(number(5, 2), 3);
}
END_TEST

START_TEST(dma_reads_skips_selects_and_refuses)
{
    uint16_t key;
    uint32_t len;

    ck_assert_uint_eq(dev_port_read(m.bus, 0x514, 4), 0x554D4551);
    ck_assert_uint_eq(dev_port_read(m.bus, 0x518, 4), 0x47464320);
    dev_fw_cfg_add_file(m.bus, "opt/test", "0123456789", 10);
    ck_assert(find_file("opt/test", &key, &len));
    memset(m.ram + 0x200, 0xEE, 32);
    ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0A, 4, 0x200), 0); /* select and read */
    ck_assert_int_eq(memcmp(m.ram + 0x200, "0123\xEE", 5), 0);
    ck_assert_uint_eq(dma(4, 3, 0), 0);
    ck_assert_uint_eq(dma(2, 5, 0x200), 0);
    ck_assert_int_eq(memcmp(m.ram + 0x200, "789\0\0\xEE", 6), 0);
    ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x18, 4, 0x200), 1);             /* write */
    ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0A, 16, sizeof m.ram - 8), 1); /* beyond RAM */
    ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0A, 0xFFFFFFFF, 0x200), 1);
    ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0A, 0, 0), 0);
    dev_port_write(m.bus, 0x514, 4, 0x01000000);
    dev_port_write(m.bus, 0x518, 4, 0);                              /* the description itself beyond RAM */
    ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0A, 1, 0x200), 0); /* the upper half went back to 0 */
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, signature_and_numbers);
    tcase_add_test(t, directory_names_files_and_e820_is_all_ram);
    tcase_add_test(t, tables_have_an_end);
    tcase_add_test(t, dma_reads_skips_selects_and_refuses);
}

int main(void)
{
    return run_suite("dev_fw_cfg", add);
}
