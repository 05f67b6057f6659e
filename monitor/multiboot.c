/* monitor/multiboot.c: what a Multiboot kernel finds in memory (Multiboot Specification 0.6.96, sections 3.2 and 3.3).
 *
 * The information block with all it points to but modules and symbols is one piece, below 640 KiB unless the kernel is there; modules and
 * symbols lie above 1 MiB behind the kernel, each at a page boundary.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "monitor/boot.h"

enum {
    LOW_FROM = 0x9000,     /* below: interrupt table, BIOS data, and what kernels like to use for themselves */
    LOW_END = 0x9FC00,     /* extended BIOS data, video memory, ROM */
    HIGH_FROM = 0x100000,
    PAGE = 4096,
    RANGES_MAX = 64,
};

/* Offsets of the information block and its flags (3.3). */
enum {
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS_ADDR = 24,
    INFO_ELF_NUM = 28,
    INFO_ELF_SIZE = 32,
    INFO_ELF_ADDR = 36,
    INFO_ELF_SHNDX = 40,
    INFO_MMAP_LENGTH = 44,
    INFO_MMAP_ADDR = 48,
    INFO_LOADER_NAME = 64,
    INFO_SIZE = 116,
    MODULE_SIZE = 16,
    MMAP_ENTRY = 24, /* its size field counts the 20 bytes behind itself */
};
enum { HAS_MEMORY = 1u << 0, HAS_CMDLINE = 1u << 2, HAS_MODULES = 1u << 3, HAS_ELF = 1u << 5, HAS_MMAP = 1u << 6, HAS_NAME = 1u << 9 };
enum { SH_FLAGS = 8, SH_ADDR = 12, SHF_ALLOCATED = 2 };

static const char loader_name[] = "Verso";

struct layout {
    const struct run_config *cfg;
    uint8_t *ram;
    uint64_t top;
    struct {
        uint64_t from, to;
    } taken[RANGES_MAX];
    unsigned count;
    uint64_t kernel_end;
    char *err;
    size_t err_size;
};

static bool fail(struct layout *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct layout *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(l->err, l->err_size, format, args);
    va_end(args);
    return false;
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}
static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

/* -- Places ---------------------------------------------------------------------------------------------------------------- */

static void take(struct layout *l, uint64_t from, uint64_t len)
{
    l->taken[l->count].from = from;
    l->taken[l->count++].to = from + len;
}

/* The lowest free place from `from` on; 0 if there is none. It is taken. */
static uint32_t place(struct layout *l, uint64_t from, uint64_t len, uint64_t align)
{
    uint64_t at = (from + align - 1) & ~(align - 1);
    for (unsigned i = 0; i < l->count;) {
        if (at < l->taken[i].to && at + len > l->taken[i].from) {
            at = (l->taken[i].to + align - 1) & ~(align - 1);
            i = 0;
        } else {
            i++;
        }
    }
    if (at > l->top || len > l->top - at)
        return 0;
    take(l, at, len);
    return (uint32_t)at;
}

static bool load_kernel(struct layout *l)
{
    for (unsigned i = 0; i < l->cfg->segment_count; i++) {
        const struct run_segment *s = &l->cfg->segment[i];
        uint64_t end = (uint64_t)s->paddr + s->memsz;
        if (s->filesz > s->memsz || end > l->top)
            return fail(l, "the kernel needs memory up to %#llx, the machine has %llu MiB: give it more with -m", (unsigned long long)end,
                        (unsigned long long)(l->top >> 20));
        if (s->paddr < HIGH_FROM && end > LOW_END)
            return fail(l, "the kernel wants to be loaded at %08x to %08llx, where a PC has video memory and firmware", s->paddr,
                        (unsigned long long)end - 1);
        memset(l->ram + s->paddr, 0, s->memsz);
        memcpy(l->ram + s->paddr, s->bytes, s->filesz);
        take(l, s->paddr, s->memsz);
        if (end > l->kernel_end)
            l->kernel_end = end;
    }
    return true;
}

/* -- The block ------------------------------------------------------------------------------------------------------------- */

static bool add_modules(struct layout *l, uint8_t *list, uint8_t *strings, uint32_t strings_at)
{
    for (unsigned i = 0; i < l->cfg->module_count; i++, list += MODULE_SIZE) {
        const struct run_module *m = &l->cfg->module[i];
        size_t n = strlen(m->name) + 1;
        uint32_t at = place(l, l->kernel_end, m->len, PAGE);
        if (!at)
            return fail(l, "module %s of %u bytes does not fit beside the kernel into %llu MiB: give it more with -m", m->name, m->len,
                        (unsigned long long)(l->top >> 20));
        memcpy(l->ram + at, m->bytes, m->len);
        put32(list, at);
        put32(list + 4, at + m->len);
        put32(list + 8, strings_at);
        memcpy(strings, m->name, n);
        strings += n;
        strings_at += (uint32_t)n;
    }
    return true;
}

/* Section headers, and the sections behind them that no segment loads, whose addresses become those of memory. */
static bool add_sections(struct layout *l, uint8_t *info)
{
    const struct run_config *cfg = l->cfg;
    if (!cfg->section_count || cfg->sections_len / RUN_SECTION_HEADER < cfg->section_count)
        return true;
    uint32_t at = place(l, l->kernel_end, cfg->sections_len, PAGE);
    if (!at)
        return fail(l, "the kernel's symbols do not fit into %llu MiB: give it more with -m", (unsigned long long)(l->top >> 20));
    memcpy(l->ram + at, cfg->sections, cfg->sections_len);
    for (uint32_t i = 0; i < cfg->section_count; i++) {
        uint8_t *header = l->ram + at + i * RUN_SECTION_HEADER;
        uint32_t flags, addr;
        memcpy(&flags, header + SH_FLAGS, 4);
        memcpy(&addr, header + SH_ADDR, 4);
        if (addr && !(flags & SHF_ALLOCATED))
            put32(header + SH_ADDR, addr + at);
    }
    put32(info + INFO_ELF_NUM, cfg->section_count);
    put32(info + INFO_ELF_SIZE, RUN_SECTION_HEADER);
    put32(info + INFO_ELF_ADDR, at);
    put32(info + INFO_ELF_SHNDX, cfg->section_names);
    return true;
}

static void add_map(const struct layout *l, uint8_t *p)
{
    struct boot_range map[BOOT_RANGES];
    boot_memory_map(l->top, map);
    for (unsigned i = 0; i < BOOT_RANGES; i++, p += MMAP_ENTRY) {
        put32(p, MMAP_ENTRY - 4);
        put64(p + 4, map[i].base);
        put64(p + 12, map[i].len);
        put32(p + 20, map[i].type);
    }
}

bool multiboot_place(const struct run_config *cfg, uint8_t *ram, uint64_t ram_bytes, uint32_t *info, char *err, size_t err_size)
{
    struct layout l = {.cfg = cfg, .ram = ram, .top = ram_bytes, .kernel_end = HIGH_FROM, .err = err, .err_size = err_size};
    if (cfg->segment_count + cfg->module_count + 4 > RANGES_MAX)
        return fail(&l, "the kernel has too many segments and modules");
    take(&l, LOW_END, HIGH_FROM - LOW_END);
    if (!load_kernel(&l))
        return false;

    const char *cmdline = cfg->cmdline ? cfg->cmdline : "";
    size_t strings = 0;
    for (unsigned i = 0; i < cfg->module_count; i++)
        strings += strlen(cfg->module[i].name) + 1;
    uint32_t mods_off = (INFO_SIZE + 15) & ~15u, mmap_off = mods_off + cfg->module_count * MODULE_SIZE;
    uint32_t name_off = mmap_off + BOOT_RANGES * MMAP_ENTRY, cmd_off = name_off + sizeof(loader_name);
    uint32_t strings_off = cmd_off + (uint32_t)strlen(cmdline) + 1, size = strings_off + (uint32_t)strings;
    uint32_t at = place(&l, LOW_FROM, size, 16);
    if (!at)
        return fail(&l, "the Multiboot information does not fit into memory: give it more with -m");
    uint8_t *p = ram + at;
    memset(p, 0, size);
    memcpy(p + name_off, loader_name, sizeof(loader_name));
    memcpy(p + cmd_off, cmdline, strlen(cmdline) + 1);
    add_map(&l, p + mmap_off);
    if (!add_modules(&l, p + mods_off, p + strings_off, at + strings_off) || !add_sections(&l, p))
        return false;
    uint32_t elf = 0;
    memcpy(&elf, p + INFO_ELF_NUM, 4);
    put32(p + INFO_FLAGS, HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | (elf ? HAS_ELF : 0) | HAS_MMAP | HAS_NAME);
    put32(p + INFO_MEM_LOWER, LOW_END >> 10);
    put32(p + INFO_MEM_UPPER, (uint32_t)((ram_bytes - HIGH_FROM) >> 10));
    put32(p + INFO_CMDLINE, at + cmd_off);
    put32(p + INFO_MODS_COUNT, cfg->module_count);
    put32(p + INFO_MODS_ADDR, at + mods_off);
    put32(p + INFO_MMAP_LENGTH, BOOT_RANGES * MMAP_ENTRY);
    put32(p + INFO_MMAP_ADDR, at + mmap_off);
    put32(p + INFO_LOADER_NAME, at + name_off);
    *info = at;
    return true;
}
