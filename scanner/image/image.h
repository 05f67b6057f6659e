/* scanner/image/image.h: what guests come in: ISO images, boot entries, kernels, ELF files, initrds.
 *
 * Parsers of hostile input: every size checked, one bounded reader, nothing trusted. They run in offline tools and, before the first
 * guest instruction, in the loader; never beside guest code.
 */
#ifndef VERSO_SCANNER_IMAGE_H
#define VERSO_SCANNER_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum image_code {
    IMAGE_OK = 0,
    IMAGE_ERR_IO,          /* cannot be read */
    IMAGE_ERR_NOT_ISO,     /* neither ISO 9660 nor a kernel nor ELF */
    IMAGE_ERR_TRUNCATED,
    IMAGE_ERR_NO_KERNEL,   /* an ISO without a boot entry that names a kernel */
    IMAGE_ERR_COMPRESSION, /* unknown or damaged compression */
    IMAGE_ERR_ELF,         /* damaged ELF */
    IMAGE_ERR_64BIT,       /* a 64-bit kernel */
    IMAGE_ERR_FORMAT,      /* any other malformed input */
    IMAGE_ERR_MEMORY,
};
struct image_error {
    enum image_code code;
    char text[400]; /* what failed, where, what to do */
};

struct image_blob {
    uint8_t *data; /* malloc; owned */
    size_t len;
};
void image_blob_free(struct image_blob *b);

/* Reads a whole file. */
bool image_read_file(const char *path, struct image_blob *out, struct image_error *err) __attribute__((warn_unused_result));

/* -- ISO 9660 (Rock Ridge, Joliet) through libarchive ------------------------------------------------------------------ */
bool image_is_iso(const char *path);
/* Reads one file of the ISO; name is absolute with '/', compared without case where the ISO has no Rock Ridge; symbolic links followed. */
bool image_iso_read(const char *iso, const char *name, struct image_blob *out, struct image_error *err) __attribute__((warn_unused_result));

/* Boot entries, from isolinux/syslinux and GRUB configurations (with includes), default one first. */
struct image_boot_entry {
    char label[128], title[256];
    char kernel[512];
    char initrd[1024]; /* comma-separated paths, "" if none */
    char append[2048]; /* without initrd= */
    bool is_default;
};
struct image_boot {
    struct image_boot_entry *entry; /* malloc */
    size_t count;
    bool el_torito;     /* a boot record is there */
    char config[512];   /* the configuration file the default came from */
};
bool image_iso_boot(const char *iso, struct image_boot *out, struct image_error *err) __attribute__((warn_unused_result));
void image_boot_free(struct image_boot *b);

/* -- Kernels --------------------------------------------------------------------------------------------------------------- */
struct image_segment {
    uint32_t paddr, vaddr, filesz, memsz;
    uint32_t flags; /* PF_X 1, PF_W 2, PF_R 4 */
    size_t off;     /* in elf.data */
};
/* Flags of a Multiboot header: 0 to 15 must be understood by whoever loads the kernel. */
enum {
    IMAGE_MULTIBOOT_PAGE_ALIGN = 1u << 0, /* modules at page boundaries */
    IMAGE_MULTIBOOT_MEMORY = 1u << 1,     /* amount of memory, and its map if there is one */
    IMAGE_MULTIBOOT_VIDEO = 1u << 2,      /* refused */
    IMAGE_MULTIBOOT_ADDRESSES = 1u << 16, /* the header gives load addresses and entry point */
};
struct image_kernel {
    struct image_blob elf;     /* the 32-bit ELF inside (vmlinux), decompressed */
    bool is_bzimage, is_multiboot;
    uint32_t multiboot_flags;  /* IMAGE_MULTIBOOT_*, of the header */
    /* Multiboot kernels in ELF: the section headers, behind them the sections that no segment loads (symbols, names). In their headers
     * sh_addr is the offset in this blob; sections with SHF_ALLOC keep their address. Empty: none. */
    struct image_blob sections;
    uint32_t section_count, section_names; /* section_names: number of the section that holds their names */
    uint32_t entry;            /* physical address to start at, paging off (ELF e_entry, made physical) */
    struct image_segment seg[16];
    unsigned seg_count;
    uint8_t setup_header[0x300]; /* bzImage: the first bytes of the boot sector from offset 0 (setup header at 1F1h) */
    size_t setup_header_len;
    char version[128];         /* "6.1.0-50-686 ..." from the setup header, or "" */
    uint32_t *relocs;          /* virtual addresses of 32-bit fields to be moved (bzImage relocation list), malloc */
    size_t reloc_count;
    char compression[16];      /* "xz", "gzip", ..., "none" */
};
bool image_kernel_parse(const uint8_t *data, size_t len, const char *name, struct image_kernel *out, struct image_error *err)
    __attribute__((warn_unused_result));
void image_kernel_free(struct image_kernel *k);

/* Decompresses gzip, xz, lzma, bzip2, lz4 (frame and legacy), zstd; out = copy if not compressed. kind (may be NULL) receives the name. */
bool image_decompress(const uint8_t *data, size_t len, struct image_blob *out, char kind[16], struct image_error *err)
    __attribute__((warn_unused_result));

/* -- Executable content ---------------------------------------------------------------------------------------------------- */
/* One executable run of an image as it will stand in guest memory; the bytes around it up to page boundaries are what the loader puts there. */
struct image_exec {
    uint32_t vaddr;          /* page-aligned virtual (or, for relocatable objects, section-relative from 0) address */
    size_t len;              /* multiple of 4096 */
    const uint8_t *bytes;    /* len bytes, valid during the callback */
    uint32_t code_start, code_end; /* the executable bytes within, as addresses */
    const uint32_t *entries; /* known instruction starts, sorted: ELF entry, function symbols, PLT, init/fini arrays, relocations and data words that
                                point into code, exception tables, first boundary of each page by linear decode of each executable section */
    size_t entry_count;
};
struct image_file {
    char name[512];      /* path in its archive */
    char kind[32];       /* "kernel", "module", "program", "library", "vdso" */
    bool user;           /* runs in ring 3 */
    uint64_t digest_lo, digest_hi; /* XXH3-128 of the file */
    uint64_t file_bytes, exec_bytes;
};
/* Calls back for each executable run of an ELF file (program, library; module objects laid out as the kernel's loader would). */
typedef bool (*image_exec_fn)(void *arg, const struct image_file *file, const struct image_exec *exec);
bool image_elf_exec(const uint8_t *data, size_t len, const char *name, image_exec_fn fn, void *arg, struct image_error *err)
    __attribute__((warn_unused_result));
bool image_kernel_exec(const struct image_kernel *k, const char *name, image_exec_fn fn, void *arg, struct image_error *err)
    __attribute__((warn_unused_result));

/* Walks an initrd: concatenated cpio archives, each plain or compressed. fn gets each regular file; false from fn stops. Hard links and duplicates
 * once. Damage after at least one good archive is reported through err but what came before has been delivered. */
typedef bool (*image_member_fn)(void *arg, const char *name, const uint8_t *data, size_t len);
bool image_initrd_each(const uint8_t *data, size_t len, image_member_fn fn, void *arg, struct image_error *err)
    __attribute__((warn_unused_result));

#endif
