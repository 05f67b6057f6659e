/* cache/cache.h: opaque records by key in one SQLite file, shared by any number of processes.
 *
 * Knows no x86. Record = parts given by the caller, stored as one LZ4 blob with an XXH3-128 digest last; format and validity rule: FORMAT.md.
 * WAL, one writer connection per handle, readers beside it. A handle may be used by several threads (it locks inside).
 * A cache file holds code that will be executed: it is opened only if it belongs to the caller and nobody else may write it (or its folder
 * entry is the caller's own; root may use root's).
 */
#ifndef VERSO_CACHE_CACHE_H
#define VERSO_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cache_code {
    CACHE_OK = 0,
    CACHE_MISS,          /* no such record (a note, not an error) */
    CACHE_REFUSED,       /* a record is there but not valid: reason says why; it has been counted */
    CACHE_ERR_OPEN,      /* cannot be opened or created (path, permission, read-only folder) */
    CACHE_ERR_NOT_CACHE, /* the file is something else */
    CACHE_ERR_VERSION,   /* a cache of another, unknown format version */
    CACHE_ERR_TRUST,     /* owner or mode would let others write it */
    CACHE_ERR_FULL,      /* disk or quota full; what was committed before stays */
    CACHE_ERR_IO,        /* I/O or database error */
    CACHE_ERR_BUSY,      /* locked by another process for longer than the timeout */
    CACHE_ERR_MEMORY,
};
/* Why a record was refused: CACHE_REFUSAL(id, name, text) in refusal.def. */
enum cache_refusal {
#define CACHE_REFUSAL(id, name, text) CACHE_REFUSAL_##id,
#include "cache/refusal.def"
#undef CACHE_REFUSAL
    CACHE_REFUSAL_COUNT
};
const char *cache_refusal_name(enum cache_refusal r);
const char *cache_refusal_text(enum cache_refusal r);

struct cache_error {
    enum cache_code code;
    char text[400]; /* one sentence: what failed, on which file, what to do */
};

struct cache_key {
    uint64_t hash_lo, hash_hi; /* XXH3-128 of the recto */
    uint32_t mode;
    uint32_t pad; /* 0 */
    uint64_t fingerprint;
};
/* XXH3-128 of a page. */
void cache_hash_page(const uint8_t page[4096], uint64_t *lo, uint64_t *hi);

/* What one record holds. Reading: pointers into memory owned by the caller's struct cache_buf, valid until its next use. */
struct cache_record {
    const uint8_t *recto; /* 4096 bytes */
    const uint8_t *attr;  /* 4096 bytes: the attribute map */
    const uint8_t *verso; /* opaque to the cache */
    uint32_t verso_len;
    uint32_t insn_count, sensitive_count; /* for listings */
    uint32_t plain; /* storing only: so many bytes at the verso's end are not compressed, as it hardly makes them less and unpacking dearer */
};
struct cache_buf {
    uint8_t *data;
    size_t cap;
};
void cache_buf_free(struct cache_buf *b);

struct cache; /* handle */
enum { CACHE_CREATE = 1 << 0, CACHE_READONLY = 1 << 1 };
/* NULL on failure with *err filled. */
struct cache *cache_open(const char *path, unsigned flags, struct cache_error *err) __attribute__((warn_unused_result));
/* Writes what is queued, closes. */
enum cache_code cache_close(struct cache *c, struct cache_error *err);

/* Looks a record up, checks it (digest, sizes, all 4,096 bytes of the recto equal to `recto`). */
enum cache_code cache_get(struct cache *c, const struct cache_key *k, const uint8_t recto[4096], struct cache_buf *buf,
                          struct cache_record *out, enum cache_refusal *why) __attribute__((warn_unused_result));
/* All records that share hash/mode/fingerprint are one: put replaces. put is immediate inside cache_begin/commit, else its own
 * transaction. A record that is already there byte for byte is left alone: *added false. */
enum cache_code cache_put(struct cache *c, const struct cache_key *k, const struct cache_record *r, bool *added,
                          struct cache_error *err) __attribute__((warn_unused_result));
enum cache_code cache_begin(struct cache *c, struct cache_error *err) __attribute__((warn_unused_result));
enum cache_code cache_commit(struct cache *c, struct cache_error *err) __attribute__((warn_unused_result));
bool cache_has(struct cache *c, const struct cache_key *k);

/* Write-behind: queues a copy; a background thread stores batches. Never blocks on I/O (a full queue drops and counts).
 * Also usable for hit counting: cache_touch() adds hits, flushed with the queue. */
void cache_put_later(struct cache *c, const struct cache_key *k, const struct cache_record *r);
void cache_touch(struct cache *c, const struct cache_key *k);

/* Images: what was pre-warmed, and which page of it is which record. */
struct cache_image {
    int64_t id;         /* out */
    char name[256];     /* path inside the ISO, or the file's name */
    char origin[256];   /* the ISO or "" */
    char kind[32];      /* "kernel", "module", "program", "library", ... */
    uint64_t digest_lo, digest_hi; /* XXH3-128 of the image's bytes */
    uint64_t exec_bytes, pages, insns;
};
/* Finds by digest+name or adds; sets img->id. */
enum cache_code cache_image_add(struct cache *c, struct cache_image *img, struct cache_error *err) __attribute__((warn_unused_result));
enum cache_code cache_image_page(struct cache *c, int64_t image, uint64_t vaddr, const struct cache_key *k, struct cache_error *err)
    __attribute__((warn_unused_result));
enum cache_code cache_image_each(struct cache *c, int (*fn)(void *arg, const struct cache_image *img), void *arg,
                                 struct cache_error *err);

/* One row of a listing, without the blob. */
struct cache_row {
    struct cache_key key;
    uint64_t stored_bytes, raw_bytes, hits;
    uint32_t insn_count, sensitive_count;
    int64_t image; /* 0: none (met at run time) */
    uint64_t vaddr;
    int64_t created_s, used_s;
};
/* image 0: all records. fn returns nonzero to stop. */
enum cache_code cache_each(struct cache *c, int64_t image, int (*fn)(void *arg, const struct cache_row *row), void *arg,
                           struct cache_error *err);
/* The stored record without a recto to compare with (for show and verify). */
enum cache_code cache_get_any(struct cache *c, const struct cache_key *k, struct cache_buf *buf, struct cache_record *out,
                              enum cache_refusal *why) __attribute__((warn_unused_result));
enum cache_code cache_remove(struct cache *c, const struct cache_key *k, struct cache_error *err);
enum cache_code cache_remove_image(struct cache *c, int64_t image, struct cache_error *err);

struct cache_stats {
    uint64_t file_bytes, records, blob_bytes, raw_bytes, images, hits_total;
    uint64_t gets, get_hits, get_misses, refused[CACHE_REFUSAL_COUNT]; /* of this handle */
    uint64_t get_next; /* look-ups that found their record behind the last one's, without a search */
    uint64_t queued, stored, replaced, dropped; /* write-behind of this handle; replaced: by a newer one that was queued before it was stored */
    uint64_t get_ns;
};
enum cache_code cache_stats(struct cache *c, struct cache_stats *out, struct cache_error *err);
/* Removes records of other fingerprints, then the least recently used until at most max_bytes of blobs remain (0: no limit); gives the space back. */
enum cache_code cache_gc(struct cache *c, uint64_t keep_fingerprint, uint64_t max_bytes, uint64_t *removed, struct cache_error *err);

#endif
