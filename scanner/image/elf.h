/* scanner/image/elf.h: an opened ELF file, as the parts of this folder share it. Private to the folder. */
#ifndef VERSO_SCANNER_IMAGE_ELF_H
#define VERSO_SCANNER_IMAGE_ELF_H

#include "scanner/image/internal.h"

enum { ELF_MAX_SEGMENTS = 64, ELF_MAX_SECTIONS = 1 << 16 };

struct elf_section {
    const char *name; /* "" if it has none; lives as long as the view */
    uint32_t type, flags, addr, off, size, link, info, align, entsize;
};
struct elf_segment {
    uint32_t vaddr, paddr, off, filesz, memsz, flags;
};
struct elf_view {
    struct span file;
    void *handle; /* Elf * */
    uint16_t type;
    uint32_t entry;
    struct elf_segment seg[ELF_MAX_SEGMENTS]; /* PT_LOAD */
    unsigned seg_count;
    bool has_interp;
    struct elf_section *sec; /* malloc; by section number; NULL without section headers */
    size_t sec_count;
    struct span dynamic; /* PT_DYNAMIC */
    uint64_t end;        /* of everything headers name, in the file */
};

/* Opens a 32-bit x86 ELF file. name is used in messages. Everything in the view lies inside the file:
 * segments are checked, sections that are not inside get size 0. */
bool elf_view_open(struct elf_view *v, const uint8_t *data, size_t len, const char *name,
                   struct image_error *err);
void elf_view_close(struct elf_view *v);
/* The word at a virtual address, from a segment's file content. */
bool elf_view_word(const struct elf_view *v, uint32_t vaddr, uint32_t *word);
struct span elf_section_data(const struct elf_view *v, const struct elf_section *s);

/* Where functions start, from .eh_frame at address addr: strong starts to entry, starts of signal frames to
 * hint. */
void elf_unwind_starts(struct span frames, uint32_t addr, struct code_map *m);

/* image_elf_exec() with the kind given; "" decides by itself. */
bool elf_exec_as(const uint8_t *data, size_t len, const char *name, const char *kind, image_exec_fn fn,
                 void *arg, struct image_error *err);

/* -- Runs: pages that hold code, with the bytes the loader puts there
 * ------------------------------------------ */
struct exec_run {
    uint32_t vaddr; /* as delivered, after base has been taken off */
    uint32_t base;  /* where the code map has it: vaddr + base */
    size_t len;
    uint8_t *bytes; /* malloc */
    uint32_t code_start, code_end;
};
struct exec_job {
    struct code_map map;
    struct exec_run *run; /* malloc */
    size_t count, room;
    uint64_t exec_bytes;
};
void exec_job_free(struct exec_job *j);
/* Adds the pages of [start, end), joined with the last run if they touch it. Bytes are allocated by
 * exec_job_fill(). */
bool exec_job_pages(struct exec_job *j, uint32_t start, uint32_t end, uint32_t base);
uint8_t *exec_job_at(struct exec_job *j, uint32_t addr);
/* Gives each run to fn with its entries. */
bool exec_job_deliver(struct exec_job *j, const struct image_file *file, image_exec_fn fn, void *arg);

#endif
