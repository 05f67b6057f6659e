/* devices/fw_cfg.c: firmware configuration as QEMU's docs/specs/fw_cfg describes it (sections cited are of
 * it): items by key, read byte by byte at port 511h or copied by DMA. Firmware, and kvm-unit-tests, learn
 * from it what the machine has. Nothing here can be written by the guest.
 *
 * The items are the machine's configuration and are made before it starts; what changes while it runs is the
 * selected key, the offset in its data and the upper half of the DMA address.
 */
#include "devices/chips.h"

#include <string.h>

enum { SELECT = 0x510, DATA = 0x511, DMA = 0x514, DMA_LAST = 0x51B };
enum { ID_TRADITIONAL = 1, ID_DMA = 2 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };
#define KEY_WRITE_CHANNEL 0x4000u /* says "written" of old; the item is the same */
#define DMA_CHUNK         4096u

/* -- Items -------------------------------------------------------------------------------------------------
 */

static const struct fw_cfg_item *find(const struct dev_fw_cfg *f, uint16_t key)
{
    for (unsigned i = 0; i < f->items; i++) {
        if (f->item[i].key == key)
            return &f->item[i];
    }
    return NULL;
}

bool dev_fw_cfg_add(struct dev_bus *b, uint16_t key, const void *data, size_t len)
{
    struct dev_fw_cfg *f = &b->fw_cfg;
    struct fw_cfg_item *item = (struct fw_cfg_item *)(uintptr_t)find(f, key);

    if (len > UINT32_MAX || (!item && f->items == FW_CFG_ITEMS))
        return false;
    if (!item)
        item = &f->item[f->items++];
    *item = (struct fw_cfg_item){.key = key, .len = (uint32_t)len, .data = data};
    return true;
}

bool dev_fw_cfg_add_number(struct dev_bus *b, uint16_t key, uint64_t value, unsigned size)
{
    struct dev_fw_cfg *f = &b->fw_cfg;
    unsigned n = 0;
    uint8_t *at;

    while (n < f->numbers && f->number_key[n] != key)
        n++;
    if (n == FW_CFG_ITEMS)
        return false;
    f->number_key[n] = key;
    f->numbers += n == f->numbers;
    at = f->number[n];
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> 8 * i);
    return dev_fw_cfg_add(b, key, at, size);
}

static void put_be(uint8_t *p, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> 8 * (size - 1 - i));
}

static uint64_t get_be(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v = v << 8 | p[i];
    return v;
}

/* "File Directory": the count, then size, key, a reserved word and the name of each, big-endian. */
bool dev_fw_cfg_add_file(struct dev_bus *b, const char *name, const void *data, size_t len)
{
    struct dev_fw_cfg *f = &b->fw_cfg;
    uint8_t *entry = f->directory + 4 + (size_t)f->files * FW_CFG_ENTRY_SIZE;
    uint16_t key = (uint16_t)(FW_CFG_FILE_FIRST + f->files);

    if (f->files == FW_CFG_FILES || strlen(name) >= FW_CFG_NAME_SIZE || !dev_fw_cfg_add(b, key, data, len))
        return false;
    memset(entry, 0, FW_CFG_ENTRY_SIZE);
    put_be(entry, len, 4);
    put_be(entry + 4, key, 2);
    memcpy(entry + 8, name, strlen(name));
    f->files++;
    put_be(f->directory, f->files, 4);
    return dev_fw_cfg_add(b, DEV_FW_CFG_FILE_DIR, f->directory, 4 + (size_t)f->files * FW_CFG_ENTRY_SIZE);
}

/* -- Reading -----------------------------------------------------------------------------------------------
 */

static void select_key(struct dev_fw_cfg *f, uint16_t key)
{
    f->key = (uint16_t)(key & ~KEY_WRITE_CHANNEL);
    f->offset = 0;
}

/* The next n bytes, zeros beyond the item's end. */
static void next_bytes(struct dev_fw_cfg *f, uint8_t *out, uint32_t n)
{
    const struct fw_cfg_item *item = find(f, f->key);
    uint32_t have = item && f->offset < item->len ? item->len - f->offset : 0;

    have = have < n ? have : n;
    if (have)
        memcpy(out, item->data + f->offset, have);
    memset(out + have, 0, n - have);
    f->offset = f->offset > UINT32_MAX - n ? UINT32_MAX : f->offset + n;
}

static uint32_t fw_cfg_read(void *dev, uint32_t port, unsigned size)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = 0xFF; /* the selector is write-only */

        if (port + i == DATA)
            next_bytes(dev, &byte, 1);
        v |= (uint32_t)byte << 8 * i;
    }
    return v;
}

static void fw_cfg_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    if (port == SELECT && size == 2)
        select_key(dev, (uint16_t)value);
}

const struct dev_io_ops dev_fw_cfg_ops = {fw_cfg_read, fw_cfg_write};

/* -- DMA ("Guest-side DMA Interface") ----------------------------------------------------------------------
 */

static bool copy_out(struct dev_fw_cfg *f, uint64_t to, uint32_t len)
{
    const struct dev_host_ops *host = &f->bus->host;
    uint8_t chunk[DMA_CHUNK];

    while (len) {
        uint32_t n = len < DMA_CHUNK ? len : DMA_CHUNK;

        next_bytes(f, chunk, n);
        if (!host->dma_write(f->bus->opaque, to, chunk, n))
            return false;
        to += n;
        len -= n;
    }
    return true;
}

/* What there is to do for a control word: the new one, 0 or DMA_ERROR. */
static uint32_t transfer(struct dev_fw_cfg *f, uint32_t control, uint32_t len, uint64_t address)
{
    if (control & DMA_SELECT)
        select_key(f, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        return copy_out(f, address, len) ? 0 : DMA_ERROR;
    if (control & DMA_WRITE)
        return DMA_ERROR; /* every item is read-only */
    if (control & DMA_SKIP)
        f->offset = f->offset > UINT32_MAX - len ? UINT32_MAX : f->offset + len;
    return 0;
}

static void dma_start(struct dev_fw_cfg *f)
{
    const struct dev_host_ops *host = &f->bus->host;
    uint64_t at = f->dma;
    uint8_t access[16], control[4]; /* control, length, address; big-endian */

    f->dma = 0;
    if (!host->dma_read(f->bus->opaque, at, access, sizeof access))
        return;
    put_be(control,
           transfer(f, (uint32_t)get_be(access, 4), (uint32_t)get_be(access + 4, 4), get_be(access + 8, 8)),
           4);
    (void)host->dma_write(f->bus->opaque, at, control, sizeof control);
}

static uint32_t dma_read(void *dev, uint32_t port, unsigned size)
{
    static const uint8_t signature[8] = {'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G'};
    uint32_t v = 0;

    (void)dev;
    for (unsigned i = 0; i < size; i++)
        v |= (uint32_t)signature[(port - DMA + i) & 7] << 8 * i;
    return v;
}

/* The register is big-endian; its last byte starts the operation. */
static void dma_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_fw_cfg *f = dev;

    for (unsigned i = 0; i < size; i++) {
        unsigned shift = 8 * (DMA_LAST - (port + i));

        f->dma = (f->dma & ~(0xFFull << shift)) | (uint64_t)(value >> 8 * i & 0xFF) << shift;
    }
    if (port + size - 1 == DMA_LAST)
        dma_start(f);
}

const struct dev_io_ops dev_fw_cfg_dma_ops = {dma_read, dma_write};

/* -- Life --------------------------------------------------------------------------------------------------
 */

/* Room in the tables is for all of these: the results need not be looked at. */
void dev_fw_cfg_init(struct dev_fw_cfg *f, uint64_t ram_bytes)
{
    static const uint8_t signature[4] = {'Q', 'E', 'M', 'U'}, uuid[16];
    struct dev_bus *b = f->bus;

    (void)dev_fw_cfg_add(b, DEV_FW_CFG_SIGNATURE, signature, sizeof signature);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4);
    (void)dev_fw_cfg_add(b, DEV_FW_CFG_UUID, uuid, sizeof uuid);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_RAM_SIZE, ram_bytes, 8);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_NOGRAPHIC, 1, 2);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_NB_CPUS, 1, 2);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_BOOT_MENU, 0, 2);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_MAX_CPUS, 1, 2);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_IRQ0_OVERRIDE, 1, 4); /* interrupt 0 is pin 2 */
    /* etc/e820: address, length, type (1: RAM), of 8, 8 and 4 bytes, little-endian. */
    memset(f->e820, 0, sizeof f->e820);
    for (unsigned i = 0; i < 8; i++)
        f->e820[8 + i] = (uint8_t)(ram_bytes >> 8 * i);
    f->e820[16] = 1;
    (void)dev_fw_cfg_add_file(b, "etc/e820", f->e820, sizeof f->e820);
}

void dev_fw_cfg_reset(struct dev_fw_cfg *f)
{
    f->dma = 0;
    select_key(f, DEV_FW_CFG_SIGNATURE);
}
