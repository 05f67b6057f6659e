/* tools/gather.h: everything executable in a guest image, cut into pages and deduplicated. The first half of
 * prewarm. */
#ifndef VERSO_TOOLS_GATHER_H
#define VERSO_TOOLS_GATHER_H

#include "cache/cache.h"
#include "scanner/image/image.h"
#include "scanner/scan.h"

#include <stdio.h>

/* What became of a page; each has a count in the summary. */
#define PAGE_FATES(X)                                                                                        \
    X(PENDING, "pending", "not worked on yet")                                                               \
    X(ADDED, "added", "translated and stored")                                                               \
    X(PRESENT, "present", "already stored with every entry known")                                           \
    X(NO_CODE, "no_entry", "no instruction boundary known: left to run time")                                \
    X(DIFFERS, "length_differs", "refused: Zydis sees other instruction lengths")                            \
    X(TOO_BIG, "too_big", "refused: too large to translate")                                                 \
    X(INVALID, "not_validated", "refused: the validator could not prove the host code safe")                 \
    X(NO_MEMORY, "no_memory", "out of memory")                                                               \
    X(NOT_STORED, "not_stored", "the cache could not store it")
enum page_fate {
#define X(id, name, text) PAGE_##id,
    PAGE_FATES(X)
#undef X
        PAGE_FATE_COUNT
};

/* One distinct page: content and mode. */
struct gather_page {
    struct cache_key key;
    uint8_t *recto;    /* 4096 bytes, owned */
    uint16_t *entries; /* owned; duplicates possible */
    uint32_t entry_count, entry_cap;
    int32_t next;   /* in the same hash bucket */
    uint32_t insns; /* set by the worker */
    uint8_t fate;   /* enum page_fate; written by whoever handles the page, read after all are done */
};

/* Which image has it where. */
struct gather_use {
    uint32_t page, image;
    uint64_t vaddr;
};

struct gather_image {
    struct cache_image img;
    bool known; /* complete in the cache already: not cut up again */
};

struct gather {
    uint64_t fingerprint;
    struct gather_page *page;
    size_t page_count, page_cap;
    struct gather_use *use;
    size_t use_count, use_cap;
    struct gather_image *image;
    size_t image_count, image_cap;
    int32_t *bucket; /* GATHER_BUCKETS heads, -1: empty */
    /* Images the cache knows completely, by digest. */
    struct cache_image *known;
    size_t known_count;
    uint64_t exec_bytes; /* code bytes of all images, those already known included */
    unsigned damaged;    /* members that are ELF files but cannot be read */
    FILE *notes;         /* where notes about damaged members go; NULL: nowhere */
    bool no_memory;
    char origin[256];   /* current */
    uint32_t cur_index; /* the image being cut */
};

bool gather_init(struct gather *g, uint64_t fingerprint);
void gather_free(struct gather *g);
/* Reads the list of images of c and keeps those that are complete with the current fingerprint. */
bool gather_known(struct gather *g, struct cache *c, struct cache_error *err);

/* path: ISO (label: NULL or "all" for every boot entry), kernel or ELF file. *status is set on failure and a
 * message printed. */
bool gather_path(struct gather *g, const char *path, const char *label, int *status);
/* A bare initrd. */
bool gather_initrd(struct gather *g, const char *path, int *status);

#endif
