/* tests/unit/image_build.c: see the header. */
#include "tests/unit/image_build.h"

#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Also used outside of Check's tests (tests/fuzz). */
#define MUST(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #what);                         \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

void buf_add(struct buf *b, const void *data, size_t n)
{
    b->p = realloc(b->p, b->n + n + 1);
    MUST(b->p);
    if (n != 0) {
        memcpy(b->p + b->n, data, n);
    }
    b->n += n;
}

void buf_zero(struct buf *b, size_t n)
{
    static const uint8_t zeros[64];

    for (; n > sizeof(zeros); n -= sizeof(zeros)) {
        buf_add(b, zeros, sizeof(zeros));
    }
    buf_add(b, zeros, n);
}

void buf_align(struct buf *b, size_t align)
{
    buf_zero(b, (align - b->n % align) % align);
}

void buf_u16(struct buf *b, uint32_t v)
{
    uint16_t half = (uint16_t)v;

    buf_add(b, &half, sizeof(half));
}

void buf_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}

void buf_put32(struct buf *b, size_t at, uint32_t v)
{
    MUST(at + 4 <= b->n);
    memcpy(b->p + at, &v, sizeof(v));
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){NULL, 0};
}

/* -- Compression
 * ---------------------------------------------------------------------------------------------- */

const char *const build_packings[7] = {"gzip", "xz", "lzma", "bzip2", "lz4", "zstd", "lz4-legacy"};

static struct buf lz4_legacy(const void *data, size_t n)
{
    struct buf b = {NULL, 0};
    int room = LZ4_compressBound((int)n);
    char *packed = malloc((size_t)room);
    int len = LZ4_compress_default(data, packed, (int)n, room);

    MUST(len > 0);
    buf_u32(&b, 0x184C2102);
    buf_u32(&b, (uint32_t)len);
    buf_add(&b, packed, (size_t)len);
    free(packed);
    return b;
}

struct buf build_packed(const char *kind, const void *data, size_t n)
{
    struct archive_entry *e;
    struct archive *a;
    struct buf b = {NULL, 0};
    size_t room = n + 4096, used = 0;

    if (strcmp(kind, "lz4-legacy") == 0) {
        return lz4_legacy(data, n);
    }
    b.p = malloc(room);
    a = archive_write_new();
    e = archive_entry_new();
    MUST(archive_write_add_filter_by_name(a, kind) == ARCHIVE_OK);
    MUST(archive_write_set_format_raw(a) == ARCHIVE_OK);
    archive_write_set_bytes_in_last_block(a, 1);
    MUST(archive_write_open_memory(a, b.p, room, &used) == ARCHIVE_OK);
    archive_entry_set_filetype(e, AE_IFREG);
    MUST(archive_write_header(a, e) == ARCHIVE_OK);
    MUST(archive_write_data(a, data, n) == (la_ssize_t)n);
    MUST(archive_write_close(a) == ARCHIVE_OK);
    archive_write_free(a);
    archive_entry_free(e);
    b.n = used;
    return b;
}

/* -- cpio
 * ----------------------------------------------------------------------------------------------------- */

void build_cpio_member(struct buf *b, const struct build_member *m)
{
    char head[128];
    size_t name_len = strlen(m->name) + 1;

    snprintf(head, sizeof(head), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", m->ino,
             m->mode, 0, 0, m->nlink, 0, m->len, 8, 1, 0, 0, (unsigned)name_len, 0);
    buf_add(b, head, 110);
    buf_add(b, m->name, name_len);
    buf_align(b, 4);
    buf_add(b, m->data, m->len);
    buf_align(b, 4);
}

void build_cpio_file(struct buf *b, const char *name, const char *text)
{
    static uint32_t ino = 100;
    struct build_member m = {name, 0100644, ino++, 1, text, (uint32_t)strlen(text)};

    build_cpio_member(b, &m);
}

void build_cpio_end(struct buf *b)
{
    struct build_member m = {"TRAILER!!!", 0, 0, 1, "", 0};

    build_cpio_member(b, &m);
}

/* -- ELF
 * ------------------------------------------------------------------------------------------------------ */

struct section {
    const char *name;
    uint32_t type, flags, addr, off, size, link, info, align, entsize;
};

/* Appends string table and section headers, and enters them into the ELF header. The last section is
 * .shstrtab. */
static void add_sections(struct buf *b, struct section *s, unsigned count)
{
    uint32_t names[16] = {0};
    struct buf strings = {NULL, 0};

    buf_zero(&strings, 1);
    for (unsigned i = 1; i < count; i++) {
        names[i] = (uint32_t)strings.n;
        buf_add(&strings, s[i].name, strlen(s[i].name) + 1);
    }
    s[count - 1].off = (uint32_t)b->n;
    s[count - 1].size = (uint32_t)strings.n;
    buf_add(b, strings.p, strings.n);
    buf_free(&strings);
    buf_align(b, 4);
    buf_put32(b, 32, (uint32_t)b->n);
    for (unsigned i = 0; i < count; i++) {
        Elf32_Shdr h = {names[i],  s[i].type, s[i].flags, s[i].addr,  s[i].off,
                        s[i].size, s[i].link, s[i].info,  s[i].align, s[i].entsize};
        buf_add(b, &h, sizeof(h));
    }
    uint16_t tail[2] = {(uint16_t)count, (uint16_t)(count - 1)};
    memcpy(b->p + 48, tail, sizeof(tail));
}

static void add_header(struct buf *b, uint16_t type, uint32_t entry, uint16_t phnum)
{
    Elf32_Ehdr h = {.e_ident = {0x7F, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                    .e_type = type,
                    .e_machine = EM_386,
                    .e_version = EV_CURRENT,
                    .e_entry = entry,
                    .e_phoff = phnum != 0 ? sizeof(h) : 0,
                    .e_ehsize = sizeof(h),
                    .e_phentsize = sizeof(Elf32_Phdr),
                    .e_phnum = phnum,
                    .e_shentsize = sizeof(Elf32_Shdr)};

    buf_add(b, &h, sizeof(h));
}

static void add_symbol(struct buf *b, uint32_t name, uint32_t value, uint8_t info, uint16_t section)
{
    Elf32_Sym s = {.st_name = name, .st_value = value, .st_info = info, .st_shndx = section};

    buf_add(b, &s, sizeof(s));
}

struct buf build_elf(const struct build_elf *e)
{
    struct buf b = {NULL, 0};
    uint32_t text = 16 + e->code_len, pages = (text + 4095) & ~4095u, data_len = e->data_count * 4;
    Elf32_Phdr p[2] = {
        {PT_LOAD, 0x1000, e->vaddr, e->paddr, text, text, PF_R | PF_X, 0x1000},
        {PT_LOAD, 0x1000 + pages, e->vaddr + pages, e->paddr + pages, data_len, data_len + 64, PF_R | PF_W,
         0x1000},
    };

    add_header(&b, e->type, e->entry, 2);
    buf_add(&b, p, sizeof(p));
    buf_align(&b, 4096);
    for (int i = 0; i < 16; i++) {
        buf_add(&b, "\xEE", 1); /* in front of the section, in its page */
    }
    buf_add(&b, e->code, e->code_len);
    buf_align(&b, 4096);
    buf_add(&b, e->data, data_len);
    if (!e->sections) {
        return b;
    }
    uint32_t symbols = (uint32_t)b.n;
    add_symbol(&b, 0, 0, 0, 0);
    for (uint32_t i = 0; i < e->symbol_count; i++) {
        add_symbol(&b, 0, e->symbols[i], ELF32_ST_INFO(STB_GLOBAL, STT_FUNC), 1);
    }
    struct section s[] = {
        {"", 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {".text", SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, e->vaddr + 16, 0x1010, e->code_len, 0, 0, 16, 0},
        {".data", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, e->vaddr + pages, 0x1000 + pages, data_len, 0, 0, 4,
         0},
        {".symtab", SHT_SYMTAB, 0, 0, symbols, (uint32_t)b.n - symbols, 4, 1, 4, 16},
        {".shstrtab", SHT_STRTAB, 0, 0, 0, 0, 0, 0, 1, 0},
    };
    add_sections(&b, s, 5);
    return b;
}

struct buf build_module(void)
{
    struct buf b = {NULL, 0};

    add_header(&b, ET_REL, 0, 0);
    uint32_t text = (uint32_t)b.n;
    for (int i = 0; i < 100; i++) {
        buf_add(&b, "\x90", 1);
    }
    buf_add(&b, "\xE8\xFC\xFF\xFF\xFF\xC3", 6); /* call to be relocated; ret */
    uint32_t init = (uint32_t)b.n;
    buf_add(&b, "\x90\x90\xC3", 3);
    uint32_t exits = (uint32_t)b.n;
    buf_add(&b, "\x31\xC0\xC3", 3);
    buf_align(&b, 4);
    uint32_t data = (uint32_t)b.n;
    buf_u32(&b, 50); /* .text + 50 */
    uint32_t rel_text = (uint32_t)b.n;
    buf_u32(&b, 101);
    buf_u32(&b, ELF32_R_INFO(3, R_386_PC32));
    uint32_t rel_data = (uint32_t)b.n;
    buf_u32(&b, 0);
    buf_u32(&b, ELF32_R_INFO(1, R_386_32));
    uint32_t symbols = (uint32_t)b.n;
    add_symbol(&b, 0, 0, 0, 0);
    add_symbol(&b, 0, 0, ELF32_ST_INFO(STB_LOCAL, STT_SECTION), 1);
    add_symbol(&b, 0, 20, ELF32_ST_INFO(STB_GLOBAL, STT_FUNC), 1);
    add_symbol(&b, 0, 0, ELF32_ST_INFO(STB_GLOBAL, STT_NOTYPE), 0); /* undefined: elsewhere in the kernel */
    add_symbol(&b, 0, 0, ELF32_ST_INFO(STB_GLOBAL, STT_FUNC), 2);
    uint32_t ax = SHF_ALLOC | SHF_EXECINSTR;
    struct section s[] = {
        {"", 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {".text", SHT_PROGBITS, ax, 0, text, 106, 0, 0, 16, 0},
        {".init.text", SHT_PROGBITS, ax, 0, init, 3, 0, 0, 16, 0},
        {".exit.text", SHT_PROGBITS, ax, 0, exits, 3, 0, 0, 16, 0},
        {".data", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, 0, data, 4, 0, 0, 4, 0},
        {".rel.text", SHT_REL, 0, 0, rel_text, 8, 7, 1, 4, 8},
        {".rel.data", SHT_REL, 0, 0, rel_data, 8, 7, 4, 4, 8},
        {".symtab", SHT_SYMTAB, 0, 0, symbols, 5 * 16, 8, 2, 4, 16},
        {".shstrtab", SHT_STRTAB, 0, 0, 0, 0, 0, 0, 1, 0},
    };
    add_sections(&b, s, 9);
    return b;
}

/* -- bzImage
 * -------------------------------------------------------------------------------------------------- */

struct buf build_bzimage(const void *payload, size_t n, const char *version)
{
    struct buf b = {NULL, 0};
    uint16_t half;

    buf_zero(&b, 5 * 512); /* boot sector, four sectors of setup */
    b.p[0x1F1] = 4;
    b.p[0x1FE] = 0x55;
    b.p[0x1FF] = 0xAA;
    b.p[0x200] = 0xEB;
    b.p[0x201] = 0x6A;
    memcpy(b.p + 0x202, "HdrS", 4);
    half = 0x20F;
    memcpy(b.p + 0x206, &half, 2);
    half = 0x200; /* the version stands at 400h */
    memcpy(b.p + 0x20E, &half, 2);
    snprintf((char *)b.p + 0x400, 128, "%s", version);
    buf_put32(&b, 0x248, 16);
    buf_put32(&b, 0x24C, (uint32_t)n);
    buf_zero(&b, 16);
    buf_add(&b, payload, n);
    buf_zero(&b, 32);
    return b;
}

/* -- ISO 9660
 * ------------------------------------------------------------------------------------------------- */

void build_iso(const char *path, const struct build_file *files, size_t count, const char *boot)
{
    struct archive *a = archive_write_new();
    char option[256];

    MUST(archive_write_set_format_iso9660(a) == ARCHIVE_OK);
    if (boot != NULL) {
        snprintf(option, sizeof(option), "iso9660:boot=%s,iso9660:boot-type=no-emulation", boot);
        MUST(archive_write_set_options(a, option) == ARCHIVE_OK);
    }
    MUST(archive_write_open_filename(a, path) == ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *e = archive_entry_new();
        const char *text = files[i].data;
        archive_entry_set_pathname(e, files[i].name);
        archive_entry_set_perm(e, 0644);
        if (strncmp(text, "->", 2) == 0) {
            archive_entry_set_filetype(e, AE_IFLNK);
            archive_entry_set_symlink(e, text + 2);
        } else {
            archive_entry_set_filetype(e, AE_IFREG);
            archive_entry_set_size(e, (la_int64_t)files[i].len);
        }
        MUST(archive_write_header(a, e) == ARCHIVE_OK);
        if (archive_entry_filetype(e) == AE_IFREG) {
            MUST(archive_write_data(a, text, files[i].len) == (la_ssize_t)files[i].len);
        }
        archive_entry_free(e);
    }
    MUST(archive_write_close(a) == ARCHIVE_OK);
    archive_write_free(a);
}

/* -- Mutation
 * ------------------------------------------------------------------------------------------------- */

uint32_t build_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

struct buf build_mutant(const struct buf *from, uint64_t *state)
{
    static const uint8_t odd[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
    struct buf b = {NULL, 0};

    buf_add(&b, from->p, from->n);
    if (build_random(state) % 8 == 0) {
        b.n = build_random(state) % (from->n + 1);
        b.p = realloc(b.p, b.n + (b.n == 0)); /* so that the sanitizer sees what is read behind the end */
        return b;
    }
    for (uint32_t changes = 1 + build_random(state) % 3; changes > 0 && b.n > 0; changes--) {
        /* Headers more often than content. */
        uint32_t range = build_random(state) % 2 == 0 && b.n > 128 ? 128 : (uint32_t)b.n;
        uint32_t at = build_random(state) % range;
        b.p[at] = build_random(state) % 2 == 0 ? odd[build_random(state) % sizeof(odd)]
                                               : (uint8_t)build_random(state);
    }
    b.p = realloc(b.p, b.n);
    return b;
}
