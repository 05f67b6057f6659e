/* tests/unit/image_build.h: builds small ISO images, cpio archives, ELF files and kernels in memory. */
#ifndef VERSO_TESTS_IMAGE_BUILD_H
#define VERSO_TESTS_IMAGE_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *p; /* malloc */
    size_t n;
};
void buf_add(struct buf *b, const void *data, size_t n);
void buf_zero(struct buf *b, size_t n);
void buf_align(struct buf *b, size_t align);
void buf_u16(struct buf *b, uint32_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_put32(struct buf *b, size_t at, uint32_t v);
void buf_free(struct buf *b);

/* Compresses with gzip, xz, lzma, bzip2, lz4, zstd or lz4-legacy. Fails the test where that does not work. */
extern const char *const build_packings[7];
struct buf build_packed(const char *kind, const void *data, size_t n);

struct build_member {
    const char *name;
    uint32_t mode, ino, nlink;
    const void *data;
    uint32_t len;
};
void build_cpio_member(struct buf *b, const struct build_member *m);
void build_cpio_file(struct buf *b, const char *name, const char *text);
void build_cpio_end(struct buf *b);

/* A linked ELF file: code at vaddr (multiple of 4096) + 16, file offset 1000h + 16, and a word array of data
 * in a second segment, one page behind. With sections .text, .data, .symtab if asked for. */
struct build_elf {
    uint16_t type;
    uint32_t vaddr, paddr, entry;
    const uint8_t *code;
    uint32_t code_len;
    const uint32_t *data;
    uint32_t data_count;
    const uint32_t *symbols; /* functions */
    uint32_t symbol_count;
    bool sections;
};
struct buf build_elf(const struct build_elf *e);

/* A kernel module: .text (100 NOPs, a call to be relocated, RET), .init.text, .data with a pointer into .text
 * at 50, .exit.text. */
struct buf build_module(void);

/* A bzImage of protocol 2.15 around a payload. */
struct buf build_bzimage(const void *payload, size_t n, const char *version);

/* An ISO image at path, with Rock Ridge. A text that starts with "->" makes a symbolic link. El Torito if
 * boot is the name of a file. */
struct build_file {
    const char *name;
    const void *data;
    size_t len;
};
void build_iso(const char *path, const struct build_file *files, size_t count, const char *boot);

uint32_t build_random(uint64_t *state);
/* A copy of *from, changed in up to three bytes or cut short. */
struct buf build_mutant(const struct buf *from, uint64_t *state);

#endif
