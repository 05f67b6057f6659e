/* scanner/image/internal.h: what the parsers share: errors, one bounded reader, growing arrays, the code map.
 */
#ifndef VERSO_SCANNER_IMAGE_INTERNAL_H
#define VERSO_SCANNER_IMAGE_INTERNAL_H

#include "scanner/image/image.h"

#include <string.h>

/* Nothing a guest comes in may unpack to more than this: a small file must not take the host's memory. */
#define IMAGE_MAX_BYTES ((size_t)1 << 30)
#define IMAGE_PAGE      4096u

/* Writes the message and returns false, so that a parser can `return image_fail(...)`. err may be NULL. */
bool image_fail(struct image_error *err, enum image_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* -- The bounded reader: every access to input goes through these
 * --------------------------------------------- */
struct span {
    const uint8_t *p;
    size_t n;
};

static inline bool span_has(struct span s, uint64_t off, uint64_t len)
{
    return off <= s.n && len <= s.n - off;
}

static inline bool span_sub(struct span s, uint64_t off, uint64_t len, struct span *out)
{
    if (!span_has(s, off, len)) {
        return false;
    }
    *out = (struct span){s.p + off, (size_t)len};
    return true;
}

/* Little-endian loads; what lies outside reads as false and leaves 0. */
static inline bool span_u8(struct span s, uint64_t off, uint8_t *v)
{
    bool ok = span_has(s, off, 1);
    *v = ok ? s.p[off] : 0;
    return ok;
}

static inline bool span_u16(struct span s, uint64_t off, uint16_t *v)
{
    *v = 0;
    if (!span_has(s, off, sizeof(*v))) {
        return false;
    }
    memcpy(v, s.p + off, sizeof(*v));
    return true;
}

static inline bool span_u32(struct span s, uint64_t off, uint32_t *v)
{
    *v = 0;
    if (!span_has(s, off, sizeof(*v))) {
        return false;
    }
    memcpy(v, s.p + off, sizeof(*v));
    return true;
}

static inline bool span_starts(struct span s, const char *magic, size_t len)
{
    return s.n >= len && memcmp(s.p, magic, len) == 0;
}

/* -- Growing array of words
 * ----------------------------------------------------------------------------------- */
struct words {
    uint32_t *v; /* malloc */
    size_t count, room;
    bool failed; /* an allocation failed; later pushes do nothing */
};
void words_push(struct words *w, uint32_t value);
void words_sort_unique(struct words *w);
void words_free(struct words *w);

/* -- Compression
 * ---------------------------------------------------------------------------------------------- */
enum packing {
    PACKING_NONE,
    PACKING_GZIP,
    PACKING_XZ,
    PACKING_LZMA,
    PACKING_BZIP2,
    PACKING_LZ4,
    PACKING_LZ4_LEGACY,
    PACKING_ZSTD,
    PACKING_LZOP, /* recognised to be named in the message, not supported */
};
enum packing packing_of(struct span s);
const char *packing_name(enum packing p);
/* Unpacks the first stream of s (its kind is packing_of(s)); *used receives the length of the stream. */
bool packing_unpack(struct span s, struct image_blob *out, size_t *used, struct image_error *err);

/* -- Multiboot headers (multiboot.c)
 * -------------------------------------------------------------------------- */
struct multiboot {
    uint64_t where; /* of the header in the file */
    uint32_t flags;
};
enum multiboot_header {
    MULTIBOOT_ABSENT,
    MULTIBOOT_VALID,   /* *out is filled */
    MULTIBOOT_DAMAGED, /* the magic number, but the checksum is wrong */
};
enum multiboot_header multiboot_find(struct span s, struct multiboot *out);
/* Refuses what the header requires and Verso cannot give. */
bool multiboot_accept(const struct multiboot *m, const char *name, struct image_error *err);
/* The one segment of a kernel whose header gives its addresses (flag 16); *start receives the entry point. */
bool multiboot_load(struct image_kernel *k, const struct multiboot *m, uint32_t *start, const char *name,
                    struct image_error *err);
/* Fills k->sections from the ELF file in k->elf; nothing if it has no usable section headers. */
bool multiboot_sections(struct image_kernel *k, const char *name, struct image_error *err);

/* -- Boot configurations
 * -------------------------------------------------------------------------------------- */
struct boot_source {
    void *arg;
    bool (*read)(void *arg, const char *path, struct image_blob *out); /* false: no such file */
    bool (*exists)(void *arg, const char *path);
};
/* Finds and parses the configurations; entries whose kernel is not there are left out. missing (may be NULL,
 * 512 bytes) receives the first kernel named by an entry but absent. False only without memory. */
bool image_boot_parse(const struct boot_source *src, struct image_boot *out, char *missing);

/* -- Code map: which bytes of the executable sections start an instruction
 * -------------------------------------- */
enum {
    MARK_START = 1 << 0,  /* an instruction starts here */
    MARK_INSIDE = 1 << 1, /* inside an instruction */
    MARK_ENTRY = 1 << 2,  /* certainly an instruction start: a symbol, an unwind record, the ELF entry */
    MARK_HINT = 1 << 3,   /* believed only where the sweep agrees or has nothing to say */
    MARK_RELOC = 1 << 4,  /* a field that a relocation will fill in: no branch target can be read here */
};
struct code_range {
    uint32_t start; /* address of the first byte */
    uint32_t len;
    const uint8_t *bytes; /* borrowed */
    uint8_t *mark;        /* MARK_* for each byte; malloc */
    bool sweep;           /* the range is known to begin with an instruction (a section) */
};
struct code_map {
    struct code_range *range; /* sorted by start, disjoint; malloc */
    size_t count, room;
    size_t last;          /* the range that answered last */
    struct words entries; /* the result */
    struct words targets; /* work list */
    bool failed;
};
void code_map_free(struct code_map *m);
/* Adds a range; false if it overlaps another or memory ran out (then it is left out). */
bool code_map_add(struct code_map *m, uint32_t start, uint32_t len, const uint8_t *bytes, bool sweep);
bool code_map_has(struct code_map *m, uint32_t addr);
void code_map_entry(struct code_map *m, uint32_t addr);
void code_map_hint(struct code_map *m, uint32_t addr);
void code_map_reloc(struct code_map *m, uint32_t addr);
/* Decodes everything, follows calls and cross-page jumps, leaves m->entries sorted and unique. */
bool code_map_sweep(struct code_map *m);
/* After the sweep: is addr a decoded instruction start? If so it is added to the entries. */
bool code_map_weak(struct code_map *m, uint32_t addr);
/* After all: sorts entries. */
bool code_map_finish(struct code_map *m);

#endif
