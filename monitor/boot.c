/* monitor/boot.c: direct start of a 32-bit Linux kernel by its 32-bit entry (Documentation/x86/boot.rst, "32-bit boot protocol").
 *
 * Low memory as a PC's firmware would leave it: BIOS data area, boot_params at 10000h, command line at 20000h, a GDT at 1000h, ACPI tables
 * from E0000h.
 */
#include <stdio.h>
#include <string.h>

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

bool boot_direct(struct machine *m, char *err, size_t err_size)
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
    e820(p, 0, 0x9FC00, 1);
    e820(p, 0x9FC00, 0x400, 2);
    e820(p, 0xE0000, 0x20000, 2);
    e820(p, 0x100000, top - 0x100000, 1);
    put32(p + 0x1E0, (uint32_t)((top - 0x100000) >> 10)); /* alt_mem_k */

    /* BIOS data area: EBDA segment, base memory in KiB. */
    put16(ram + 0x40E, 0x9FC0);
    put16(ram + 0x413, 639);
    if (!dev_acpi_tables(m->vm.bus, BOOT_ACPI, ram + BOOT_ACPI, 0x10000)) {
        snprintf(err, err_size, "the ACPI tables do not fit");
        return false;
    }

    /* __BOOT_CS 10h, __BOOT_DS 18h. */
    put64(ram + BOOT_GDT, 0);
    put64(ram + BOOT_GDT + 8, 0);
    put64(ram + BOOT_GDT + 0x10, 0x00CF9B000000FFFFull);
    put64(ram + BOOT_GDT + 0x18, 0x00CF93000000FFFFull);
    struct cpu *c = m->vm.cpu;
    c->gdtr = (struct cpu_table){BOOT_GDT, 0x1F};
    c->idtr = (struct cpu_table){0, 0};
    for (unsigned s = 0; s < 6; s++)
        flat(&c->seg[s], 0x18, 0xC093);
    flat(&c->seg[SCAN_CS], 0x10, 0xC09B);
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[CPU_ESI] = BOOT_PARAMS;
    c->gpr[CPU_ESP] = 0x9000;
    c->cr0 = CPU_CR0_PE | CPU_CR0_ET;
    c->cpl = 0;
    /* As FNINIT leaves the x87 (RESET itself leaves a full stack with every exception unmasked). */
    c->fx[0] = 0x7F;
    c->fx[1] = 0x03;
    c->fx[4] = 0;
    cpu_set_eflags(c, CPU_FLAG1);
    c->eip = cfg->entry;
    vm_segments_changed(&m->vm);
    return true;
}
