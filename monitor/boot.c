/* monitor/boot.c: starting kernels without a firmware: Linux by its 32-bit entry (Documentation/x86/boot.rst, "32-bit boot protocol"), and
 * Multiboot kernels (what those find in memory: multiboot.c).
 *
 * Low memory as a PC's firmware would leave it: BIOS data area, ACPI tables from E0000h. Linux: boot_params at 10000h, command line at
 * 20000h, a GDT at 1000h.
 */
#include <stdio.h>
#include <string.h>

#include "monitor/boot.h"
#include "monitor/machine.h"

#define BOOT_GDT     0x1000u
#define BOOT_PARAMS  0x10000u
#define BOOT_CMDLINE 0x20000u
#define BOOT_ACPI    0xE0000u
#define CMDLINE_MAX  2047u

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}
static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}
static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

void boot_memory_map(uint64_t ram_bytes, struct boot_range map[BOOT_RANGES])
{
    map[0] = (struct boot_range){0, 0x9FC00, 1};
    map[1] = (struct boot_range){0x9FC00, 0x400, 2};
    map[2] = (struct boot_range){0xE0000, 0x20000, 2};
    map[3] = (struct boot_range){0x100000, ram_bytes - 0x100000, 1};
}

/* BIOS data area and ACPI tables. */
static bool low_memory(struct machine *m, char *err, size_t err_size)
{
    firmware_leave(m);
    put16(m->vm.ram + 0x40E, 0x9FC0); /* segment of the extended BIOS data */
    put16(m->vm.ram + 0x413, 639);    /* KiB of base memory */
    if (!dev_acpi_tables(m->vm.bus, BOOT_ACPI, m->vm.ram + BOOT_ACPI, 0x10000)) {
        snprintf(err, err_size, "the ACPI tables do not fit");
        return false;
    }
    return true;
}

static void e820(uint8_t *params, uint64_t base, uint64_t len, uint32_t type)
{
    uint8_t *count = params + 0x1E8;
    uint8_t *e = params + 0x2D0 + 20u * *count;
    put64(e, base);
    put64(e + 8, len);
    put32(e + 16, type);
    ++*count;
}

static void flat(struct cpu_seg *s, uint16_t sel, uint16_t attr)
{
    *s = (struct cpu_seg){.base = 0, .limit = 0xFFFFFFFFu, .sel = sel, .attr = attr};
}

static bool linux_place(struct machine *m, char *err, size_t err_size)
{
    const struct run_config *cfg = m->cfg;
    uint8_t *ram = m->vm.ram;
    uint64_t top = cfg->ram_bytes, kernel_end = 0;
    for (unsigned i = 0; i < cfg->segment_count; i++) {
        const struct run_segment *s = &cfg->segment[i];
        if (s->paddr < 0x100000 || s->filesz > s->memsz || s->memsz > top || s->paddr > top - s->memsz) {
            snprintf(err, err_size, "the kernel needs memory up to %#llx, the machine has %llu MiB: give it more with -m",
                     (unsigned long long)s->paddr + s->memsz, (unsigned long long)(top >> 20));
            return false;
        }
        memcpy(ram + s->paddr, s->bytes, s->filesz);
        if ((uint64_t)s->paddr + s->memsz > kernel_end)
            kernel_end = (uint64_t)s->paddr + s->memsz;
    }

    uint8_t *p = ram + BOOT_PARAMS;
    if (cfg->setup_header_len > 0x202) {
        /* Only the header itself: its length byte is the jump's offset at 201h. */
        size_t end = 0x202u + cfg->setup_header[0x201];
        if (end > cfg->setup_header_len)
            end = cfg->setup_header_len;
        if (end > 0x290)
            end = 0x290;
        memcpy(p + 0x1F1, cfg->setup_header + 0x1F1, end - 0x1F1);
    } else {
        memcpy(p + 0x202, "HdrS", 4);
        put16(p + 0x206, 0x20F);
        put32(p + 0x22C, 0x37FFFFFF);
    }
    p[0x210] = 0xFF;                     /* type_of_loader: undefined */
    p[0x211] = (uint8_t)((p[0x211] | 1) & ~0x20); /* LOADED_HIGH, not quiet */
    if (cfg->initrd_len) {
        uint32_t limit;
        memcpy(&limit, p + 0x22C, 4);
        if (!limit)
            limit = 0x37FFFFFF;
        uint64_t high = top < (uint64_t)limit + 1 ? top : (uint64_t)limit + 1;
        if (cfg->initrd_len > high || ((high - cfg->initrd_len) & ~0xFFFull) < kernel_end) {
            snprintf(err, err_size, "an initrd of %llu MiB does not fit beside the kernel into %llu MiB: give it more with -m",
                     (unsigned long long)(cfg->initrd_len >> 20), (unsigned long long)(top >> 20));
            return false;
        }
        uint64_t at = (high - cfg->initrd_len) & ~0xFFFull;
        memcpy(ram + at, cfg->initrd, cfg->initrd_len);
        put32(p + 0x218, (uint32_t)at);
        put32(p + 0x21C, (uint32_t)cfg->initrd_len);
    }
    size_t cmd = strlen(cfg->cmdline ? cfg->cmdline : "");
    if (cmd > CMDLINE_MAX) {
        snprintf(err, err_size, "the kernel command line has %zu bytes, at most %u are possible", cmd, CMDLINE_MAX);
        return false;
    }
    memcpy(ram + BOOT_CMDLINE, cfg->cmdline ? cfg->cmdline : "", cmd + 1);
    put32(p + 0x228, BOOT_CMDLINE);

    p[0x1E8] = 0;
    struct boot_range map[BOOT_RANGES];
    boot_memory_map(top, map);
    for (unsigned i = 0; i < BOOT_RANGES; i++)
        e820(p, map[i].base, map[i].len, map[i].type);
    put32(p + 0x1E0, (uint32_t)((top - 0x100000) >> 10)); /* alt_mem_k */

    /* __BOOT_CS 10h, __BOOT_DS 18h. */
    put64(ram + BOOT_GDT, 0);
    put64(ram + BOOT_GDT + 8, 0);
    put64(ram + BOOT_GDT + 0x10, 0x00CF9B000000FFFFull);
    put64(ram + BOOT_GDT + 0x18, 0x00CF93000000FFFFull);
    return true;
}

/* What a firmware or a test may ask for about what was loaded, as QEMU's -kernel tells it. */
static void tell_fw_cfg(const struct machine *m)
{
    const struct run_config *cfg = m->cfg;
    struct dev_bus *b = m->vm.bus;
    const char *cmdline = cfg->cmdline ? cfg->cmdline : "";
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_KERNEL_ENTRY, cfg->entry, 4);
    if (cfg->segment_count == 1) {
        (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_KERNEL_ADDR, cfg->segment[0].paddr, 4);
        (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_KERNEL_SIZE, cfg->segment[0].filesz, 4);
        (void)dev_fw_cfg_add(b, DEV_FW_CFG_KERNEL_DATA, cfg->segment[0].bytes, cfg->segment[0].filesz);
    }
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_CMDLINE_SIZE, strlen(cmdline) + 1, 4);
    (void)dev_fw_cfg_add(b, DEV_FW_CFG_CMDLINE_DATA, cmdline, strlen(cmdline) + 1);
    (void)dev_fw_cfg_add_number(b, DEV_FW_CFG_INITRD_SIZE, cfg->initrd_len, 4);
    (void)dev_fw_cfg_add(b, DEV_FW_CFG_INITRD_DATA, cfg->initrd, cfg->initrd_len);
}

/* Flat 32-bit protected mode without paging, as both protocols want it (for Multiboot: 3.2). */
static void flat_state(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    for (unsigned s = 0; s < 6; s++)
        flat(&c->seg[s], 0x18, 0xC093);
    flat(&c->seg[SCAN_CS], 0x10, 0xC09B);
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[CPU_ESP] = 0x9000;
    c->cr0 = CPU_CR0_PE | CPU_CR0_ET;
    c->cpl = 0;
    /* As FNINIT leaves the x87 (RESET itself leaves a full stack with every exception unmasked). */
    c->fx[0] = 0x7F;
    c->fx[1] = 0x03;
    c->fx[4] = 0;
    cpu_set_eflags(c, CPU_FLAG1);
    c->eip = m->cfg->entry;
    vm_segments_changed(&m->vm);
}

bool boot_start(struct machine *m, char *err, size_t err_size)
{
    struct cpu *c = m->vm.cpu;
    uint32_t info;
    if (m->cfg->boot == RUN_BOOT_FIRMWARE)
        return true; /* as reset */
    if (!low_memory(m, err, err_size))
        return false;
    tell_fw_cfg(m);
    switch (m->cfg->boot) {
    case RUN_BOOT_LINUX:
        if (!linux_place(m, err, err_size))
            return false;
        flat_state(m);
        c->gdtr = (struct cpu_table){BOOT_GDT, 0x1F};
        c->idtr = (struct cpu_table){0, 0};
        c->gpr[CPU_ESI] = BOOT_PARAMS;
        return true;
    case RUN_BOOT_MULTIBOOT:
        if (!multiboot_place(m->cfg, m->vm.ram, m->cfg->ram_bytes, &info, err, err_size))
            return false;
        flat_state(m);
        c->gpr[CPU_EAX] = 0x2BADB002;
        c->gpr[CPU_EBX] = info;
        /* The clock ticks, as firmware has it: a kernel may go back to real mode. */
        dev_port_write(m->vm.bus, 0x21, 1, 0xFA);
        return true;
    case RUN_BOOT_FIRMWARE:
        break;
    }
    return false;
}
