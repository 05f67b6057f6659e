/* scanner/image/multiboot.c: the Multiboot header of a kernel and what its boot loader must have read from the
 * file (Multiboot Specification 0.6.96, section 3.1): load addresses of kernels that give their own, section
 * headers and symbols of ELF kernels.
 */
#include "scanner/image/internal.h"

#include <elf.h>
#include <stdlib.h>

enum {
    SEARCH = 8192, /* the header lies in the first 8,192 bytes, at a multiple of 4 */
    FLAGS_REQUIRED = 0xFFFF,
    FLAGS_KNOWN = IMAGE_MULTIBOOT_PAGE_ALIGN | IMAGE_MULTIBOOT_MEMORY,
    ALIGN_MAX = 4096,
};
#define MAGIC 0x1BADB002u

enum multiboot_header multiboot_find(struct span s, struct multiboot *out)
{
    uint32_t magic, sum;
    bool damaged = false;

    for (uint64_t off = 0; off + 12 <= SEARCH && span_u32(s, off, &magic); off += 4) {
        if (magic != MAGIC || !span_u32(s, off + 4, &out->flags) || !span_u32(s, off + 8, &sum)) {
            continue;
        }
        if (magic + out->flags + sum == 0) {
            out->where = off;
            return MULTIBOOT_VALID;
        }
        damaged = true;
    }
    return damaged ? MULTIBOOT_DAMAGED : MULTIBOOT_ABSENT;
}

bool multiboot_accept(const struct multiboot *m, const char *name, struct image_error *err)
{
    uint32_t unknown = m->flags & FLAGS_REQUIRED & ~(uint32_t)FLAGS_KNOWN;

    if (unknown == 0) {
        return true;
    }
    if (unknown == IMAGE_MULTIBOOT_VIDEO) {
        return image_fail(err, IMAGE_ERR_FORMAT,
                          "%s: a Multiboot kernel that requires a video mode (header flag 2); Verso has no "
                          "graphics: build it for a serial console",
                          name);
    }
    return image_fail(err, IMAGE_ERR_FORMAT,
                      "%s: a Multiboot kernel that requires what is not defined (header flags %08x); use a "
                      "kernel for Multiboot version 1",
                      name, m->flags);
}

bool multiboot_load(struct image_kernel *k, const struct multiboot *m, uint32_t *start, const char *name,
                    struct image_error *err)
{
    struct span s = {k->elf.data, k->elf.len};
    uint32_t header, load, load_end, bss_end;

    if ((m->flags & IMAGE_MULTIBOOT_ADDRESSES) == 0 || !span_u32(s, m->where + 12, &header) ||
        !span_u32(s, m->where + 16, &load) || !span_u32(s, m->where + 20, &load_end) ||
        !span_u32(s, m->where + 24, &bss_end) || !span_u32(s, m->where + 28, start)) {
        return image_fail(err, IMAGE_ERR_FORMAT,
                          "%s: a Multiboot kernel that is no ELF file and gives no load addresses", name);
    }
    if (header < load || header - load > m->where) {
        return image_fail(err, IMAGE_ERR_FORMAT, "%s: damaged Multiboot header: load address", name);
    }
    uint64_t off = m->where - (header - load);
    uint64_t size = load_end != 0 ? (uint64_t)load_end - load : s.n - off;
    if ((load_end != 0 && load_end < load) || !span_has(s, off, size) || load + size > UINT32_MAX) {
        return image_fail(err, IMAGE_ERR_TRUNCATED, "%s: truncated Multiboot kernel; copy the file again",
                          name);
    }
    uint64_t mem = bss_end > load + size ? (uint64_t)bss_end - load : size;
    k->seg[k->seg_count++] =
        (struct image_segment){load, load, (uint32_t)size, (uint32_t)mem, PF_R | PF_W | PF_X, (size_t)off};
    return true;
}

/* -- Sections: headers first, then what no segment loads, each at its alignment ------------------------- */

static bool wanted(const Elf32_Shdr *h, struct span file)
{
    return h->sh_type != SHT_NULL && h->sh_type != SHT_NOBITS && (h->sh_flags & SHF_ALLOC) == 0 &&
           h->sh_size != 0 && span_has(file, h->sh_offset, h->sh_size);
}

static size_t place(const Elf32_Shdr *h, size_t at)
{
    size_t align = h->sh_addralign != 0 && h->sh_addralign <= ALIGN_MAX ? h->sh_addralign : 1;

    return (at + align - 1) / align * align;
}

/* Sections may overlap in a hostile file, so that the sum of their sizes says nothing about the file's. */
static size_t blob_size(const uint8_t *table, size_t count, struct span file)
{
    size_t size = count * sizeof(Elf32_Shdr);
    Elf32_Shdr h;

    for (size_t i = 0; i < count && size <= IMAGE_MAX_BYTES; i++) {
        memcpy(&h, table + i * sizeof(h), sizeof(h));
        size = wanted(&h, file) ? place(&h, size) + h.sh_size : size;
    }
    return size;
}

bool multiboot_sections(struct image_kernel *k, const char *name, struct image_error *err)
{
    struct span file = {k->elf.data, k->elf.len}, table;
    Elf32_Ehdr e;

    if (file.n < sizeof(e)) {
        return true;
    }
    memcpy(&e, file.p, sizeof(e));
    size_t headers = (size_t)e.e_shnum * sizeof(Elf32_Shdr);
    if (e.e_shentsize != sizeof(Elf32_Shdr) || e.e_shnum == 0 || e.e_shstrndx >= e.e_shnum ||
        !span_sub(file, e.e_shoff, headers, &table)) {
        return true; /* a kernel runs without */
    }
    size_t size = blob_size(table.p, e.e_shnum, file), at = headers;
    uint8_t *out = size <= IMAGE_MAX_BYTES ? calloc(1, size) : NULL;
    if (out == NULL) {
        return image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory for the kernel's symbols", name);
    }
    memcpy(out, table.p, headers);
    for (size_t i = 0; i < e.e_shnum; i++) {
        Elf32_Shdr h;
        memcpy(&h, out + i * sizeof(h), sizeof(h));
        if (!wanted(&h, file)) {
            continue;
        }
        at = place(&h, at);
        memcpy(out + at, file.p + h.sh_offset, h.sh_size);
        h.sh_addr = (Elf32_Addr)at;
        at += h.sh_size;
        memcpy(out + i * sizeof(h), &h, sizeof(h));
    }
    k->sections = (struct image_blob){out, size};
    k->section_count = e.e_shnum;
    k->section_names = e.e_shstrndx;
    return true;
}
