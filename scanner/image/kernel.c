/* scanner/image/kernel.c: kernels: bzImage, ELF, Multiboot (whose header is read in multiboot.c).
 *
 * bzImage: Documentation/x86/boot.rst of Linux (boot protocol 2.08 and later: payload_offset,
 * payload_length). What is appended to the ELF file in the payload: arch/x86/boot/compressed/misc.c,
 * handle_relocations().
 */
#include "scanner/image/elf.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SETUP_SECTS = 0x1F1,
    BOOT_FLAG = 0x1FE,
    HEADER_LENGTH = 0x201, /* second byte of the jump at 200h: the header ends at 202h plus this */
    HEADER_MAGIC = 0x202,
    PROTOCOL = 0x206,
    KERNEL_VERSION = 0x20E,
    XLOADFLAGS = 0x236,
    PAYLOAD_OFFSET = 0x248,
    PAYLOAD_LENGTH = 0x24C,
    MAX_WRAPS = 3,
};

void image_kernel_free(struct image_kernel *k)
{
    image_blob_free(&k->elf);
    image_blob_free(&k->sections);
    free(k->relocs);
    *k = (struct image_kernel){0};
}

/* -- ELF
 * ------------------------------------------------------------------------------------------------------ */

/* e_entry may be physical (Linux) or virtual. */
static bool find_entry(struct image_kernel *k, uint32_t entry)
{
    for (unsigned i = 0; i < k->seg_count; i++) {
        if (entry - k->seg[i].paddr < k->seg[i].memsz) {
            k->entry = entry;
            return true;
        }
    }
    for (unsigned i = 0; i < k->seg_count; i++) {
        if (entry - k->seg[i].vaddr < k->seg[i].memsz) {
            k->entry = entry - k->seg[i].vaddr + k->seg[i].paddr;
            return true;
        }
    }
    return false;
}

/* Fills k from the ELF file in k->elf; *end receives where the ELF file ends in it. */
static bool parse_elf(struct image_kernel *k, const char *name, uint64_t *end, struct image_error *err)
{
    struct elf_view v;
    bool ok;

    if (!elf_view_open(&v, k->elf.data, k->elf.len, name, err)) {
        return false;
    }
    *end = v.end;
    ok = v.type == ET_EXEC || v.type == ET_DYN;
    if (!ok) {
        image_fail(err, IMAGE_ERR_NOT_ISO, "%s: an ELF object, not a kernel; give vmlinux or bzImage", name);
    } else if (v.seg_count > sizeof(k->seg) / sizeof(k->seg[0])) {
        ok = image_fail(err, IMAGE_ERR_ELF, "%s: damaged ELF file: more than 16 segments to load", name);
    }
    for (unsigned i = 0; ok && i < v.seg_count; i++) {
        const struct elf_segment *s = &v.seg[i];
        k->seg[k->seg_count++] =
            (struct image_segment){s->paddr, s->vaddr, s->filesz, s->memsz, s->flags, s->off};
    }
    if (ok && !find_entry(k, v.entry)) {
        ok = image_fail(err, IMAGE_ERR_ELF, "%s: damaged ELF file: the entry point is in no segment", name);
    }
    elf_view_close(&v);
    return ok;
}

/* -- bzImage
 * -------------------------------------------------------------------------------------------------- */

static bool is_bzimage(struct span s)
{
    uint16_t flag;

    return span_u16(s, BOOT_FLAG, &flag) && flag == 0xAA55 && s.n >= HEADER_MAGIC + 4 &&
           memcmp(s.p + HEADER_MAGIC, "HdrS", 4) == 0;
}

static void read_version(struct image_kernel *k, struct span setup)
{
    uint16_t pointer;
    uint8_t c;
    size_t n = 0;

    if (!span_u16(setup, KERNEL_VERSION, &pointer) || pointer == 0) {
        return;
    }
    while (n + 1 < sizeof(k->version) && span_u8(setup, 0x200ull + pointer + n, &c) && c >= ' ' && c < 0x7F) {
        k->version[n++] = (char)c;
    }
    k->version[n] = '\0';
}

static bool reloc_inside(const struct image_kernel *k, uint32_t at)
{
    for (unsigned i = 0; i < k->seg_count; i++) {
        uint32_t off = at - k->seg[i].vaddr;
        if (off < k->seg[i].filesz && k->seg[i].filesz - off >= 4) {
            return true;
        }
    }
    return false;
}

/* The list is read from the end back to a zero word. None if the kernel was built without. */
static bool read_relocs(struct image_kernel *k, struct span list, const char *name, struct image_error *err)
{
    size_t count = 0, last = list.n / 4;
    uint32_t word;

    /* The list's end is the payload's end, whatever the alignment of its start. */
    list = (struct span){list.p + list.n % 4, last * 4};
    while (count < last && span_u32(list, (last - 1 - count) * 4, &word) && word != 0) {
        count++;
    }
    if (count == 0) {
        return true;
    }
    if (count == last) {
        return image_fail(err, IMAGE_ERR_FORMAT, "%s: damaged kernel: the relocation list has no start",
                          name);
    }
    k->relocs = malloc(count * sizeof(*k->relocs));
    if (k->relocs == NULL) {
        return image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory for the relocation list", name);
    }
    for (size_t i = 0; i < count; i++) {
        (void)!span_u32(list, (last - count + i) * 4, &k->relocs[i]);
        if (!reloc_inside(k, k->relocs[i])) {
            return image_fail(err, IMAGE_ERR_FORMAT,
                              "%s: damaged kernel: relocation %zu points to %08x, outside it", name, i,
                              k->relocs[i]);
        }
    }
    k->reloc_count = count;
    return true;
}

static bool unpack_payload(struct image_kernel *k, struct span payload, const char *name,
                           struct image_error *err)
{
    struct image_error inner = {0};
    size_t used;

    if (span_starts(payload, ELFMAG, SELFMAG)) {
        strcpy(k->compression, "none");
        k->elf.data = malloc(payload.n);
        if (k->elf.data == NULL) {
            return image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory for the kernel", name);
        }
        memcpy(k->elf.data, payload.p, payload.n);
        k->elf.len = payload.n;
        return true;
    }
    snprintf(k->compression, sizeof(k->compression), "%s", packing_name(packing_of(payload)));
    if (!packing_unpack(payload, &k->elf, &used, &inner)) {
        return image_fail(err, inner.code, "%s: the kernel inside: %s", name, inner.text);
    }
    return true;
}

static bool parse_bzimage(struct image_kernel *k, struct span s, const char *name, struct image_error *err)
{
    uint8_t sects, more;
    uint16_t protocol, flags = 0;
    uint32_t offset, length;
    uint64_t start, end;
    struct span payload;

    k->is_bzimage = true;
    if (!span_u8(s, SETUP_SECTS, &sects) || !span_u8(s, HEADER_LENGTH, &more) ||
        !span_u16(s, PROTOCOL, &protocol) || !span_u32(s, PAYLOAD_OFFSET, &offset) ||
        !span_u32(s, PAYLOAD_LENGTH, &length)) {
        return image_fail(err, IMAGE_ERR_TRUNCATED, "%s: truncated kernel; copy the file again", name);
    }
    if (protocol < 0x208) {
        return image_fail(err, IMAGE_ERR_FORMAT,
                          "%s: a kernel of boot protocol %u.%02u; 2.08 (Linux 2.6.26) or later is needed",
                          name, protocol >> 8, protocol & 0xFF);
    }
    if (protocol >= 0x20C && span_u16(s, XLOADFLAGS, &flags) && (flags & 1) != 0) { /* XLF_KERNEL_64 */
        return image_fail(err, IMAGE_ERR_64BIT,
                          "%s: a 64-bit Linux kernel; Verso runs 32-bit x86 guests: use the i386 (686) build",
                          name);
    }
    k->setup_header_len = HEADER_MAGIC + (size_t)more;
    if (k->setup_header_len > sizeof(k->setup_header) || k->setup_header_len > s.n) {
        return image_fail(err, IMAGE_ERR_TRUNCATED,
                          "%s: truncated kernel: the setup header; copy the file again", name);
    }
    memcpy(k->setup_header, s.p, k->setup_header_len);
    start = ((uint64_t)(sects != 0 ? sects : 4) + 1) * 512; /* 0 means 4 */
    read_version(k, (struct span){s.p, s.n < start ? s.n : (size_t)start});
    if (!span_sub(s, start + offset, length, &payload)) {
        return image_fail(err, IMAGE_ERR_TRUNCATED,
                          "%s: truncated kernel: %zu bytes, its payload ends at %llu; copy the file again",
                          name, s.n, (unsigned long long)(start + offset + length));
    }
    if (!unpack_payload(k, payload, name, err) || !parse_elf(k, name, &end, err)) {
        return false;
    }
    if (end < k->elf.len) {
        struct span list = {k->elf.data + end, k->elf.len - (size_t)end};
        if (!read_relocs(k, list, name, err)) {
            return false;
        }
        k->elf.len = (size_t)end;
    }
    return true;
}

/* -- Entry point
 * ---------------------------------------------------------------------------------------------- */

static bool copy_whole(struct image_kernel *k, struct span s, const char *name, struct image_error *err)
{
    k->elf.data = malloc(s.n + 1);
    if (k->elf.data == NULL) {
        return image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory for the kernel", name);
    }
    memcpy(k->elf.data, s.p, s.n);
    k->elf.len = s.n;
    return true;
}

/* The addresses of the header, if it has any, take the place of those of the ELF file (3.1.3). */
static bool parse_multiboot(struct image_kernel *k, struct span s, const struct multiboot *m, bool elf,
                            const char *name, struct image_error *err)
{
    uint32_t start;
    uint64_t end;

    k->is_multiboot = true;
    k->multiboot_flags = m->flags;
    if (!multiboot_accept(m, name, err) || !copy_whole(k, s, name, err)) {
        return false;
    }
    if (elf && (m->flags & IMAGE_MULTIBOOT_ADDRESSES) == 0) {
        return parse_elf(k, name, &end, err) && multiboot_sections(k, name, err);
    }
    if (!multiboot_load(k, m, &start, name, err)) {
        return false;
    }
    return find_entry(k, start) ||
           image_fail(err, IMAGE_ERR_FORMAT, "%s: damaged Multiboot header: entry point", name);
}

static bool parse(struct image_kernel *k, struct span s, const char *name, unsigned wraps,
                  struct image_error *err)
{
    bool elf = span_starts(s, ELFMAG, SELFMAG);
    uint64_t end;

    if (!elf && is_bzimage(s)) {
        return parse_bzimage(k, s, name, err);
    }
    struct multiboot m;
    enum multiboot_header header = multiboot_find(s, &m);
    if (header == MULTIBOOT_VALID) {
        return parse_multiboot(k, s, &m, elf, name, err);
    }
    if (header == MULTIBOOT_DAMAGED) {
        return image_fail(err, IMAGE_ERR_FORMAT,
                          "%s: damaged Multiboot header: wrong checksum; build or copy the kernel again", name);
    }
    if (elf) {
        return copy_whole(k, s, name, err) && parse_elf(k, name, &end, err);
    }
    if (packing_of(s) != PACKING_NONE && wraps < MAX_WRAPS) {
        struct image_error inner = {0};
        struct image_blob plain;
        size_t used;
        if (!packing_unpack(s, &plain, &used, &inner)) {
            return image_fail(err, inner.code, "%s: %s", name, inner.text);
        }
        bool ok = parse(k, (struct span){plain.data, plain.len}, name, wraps + 1, err);
        if (k->compression[0] == '\0' || strcmp(k->compression, "none") == 0) {
            snprintf(k->compression, sizeof(k->compression), "%s", packing_name(packing_of(s)));
        }
        image_blob_free(&plain);
        return ok;
    }
    return image_fail(err, IMAGE_ERR_NOT_ISO,
                      "%s: neither an ISO image nor a kernel (bzImage, ELF, Multiboot); give one of these",
                      name);
}

bool image_kernel_parse(const uint8_t *data, size_t len, const char *name, struct image_kernel *out,
                        struct image_error *err)
{
    *out = (struct image_kernel){0};
    if (!parse(out, (struct span){data, len}, name, 0, err)) {
        image_kernel_free(out);
        return false;
    }
    if (out->compression[0] == '\0') {
        strcpy(out->compression, "none");
    }
    return true;
}
