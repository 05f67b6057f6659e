/* tests/unit/cache_support.h: what the cache suites share: a folder, records, a VFS that fails on demand. */
#ifndef VERSO_TESTS_CACHE_SUPPORT_H
#define VERSO_TESTS_CACHE_SUPPORT_H

#include "cache/cache.h"

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sqlite3.h>

/* ---- a folder of its own, mode 0700; the path of a cache in it (not made) ---- */
const char *cs_folder(void);
const char *cs_path(void);
void cs_setup(void);
void cs_teardown(void);

/* ---- records: the n-th is the same everywhere; variant changes attributes and verso, not the key ---- */
struct cs_record {
    struct cache_key key;
    struct cache_record r;
    uint8_t recto[4096], attr[4096], verso[16384];
};
void cs_make(struct cs_record *s, uint32_t n, uint32_t variant);
/* Test-failing wrappers. */
struct cache *cs_open(unsigned flags);
void cs_close(struct cache *c);
void cs_put(struct cache *c, uint32_t n, uint32_t variant);
/* What a look-up of record n gives; if it gives a record, it must be whole and of this or any (-1) variant
 * below 4. */
enum cache_code cs_get(struct cache *c, uint32_t n, int variant, enum cache_refusal *why);

/* ---- the file from outside ---- */
/* Runs SQL on the file by a connection of its own; up to one blob as ?1. */
void cs_sql(const char *sql, const void *blob, int len);
int64_t cs_sql_int(const char *sql);
uint8_t *cs_read_file(const char *path, size_t *len);
void cs_write_file(const char *path, const void *data, size_t len);
/* Content, size and names of the whole folder, as one number. */
uint64_t cs_folder_digest(void);

/* ---- faults: VFS "cs_fault" over the default one ---- */
enum {
    CS_WRITE = 1 << 0,
    CS_SYNC = 1 << 1,
    CS_READ = 1 << 2,
    CS_OPEN = 1 << 3,
    CS_TRUNCATE = 1 << 4,
    CS_SHM = 1 << 5
};
extern struct cs_fault {
    int ops;       /* CS_* that count */
    int countdown; /* the how many-th fails; 0: none */
    bool persist;  /* and all after it */
    int rc;        /* with what */
    int failed;    /* how many did */
} cs_fault;
void cs_fault_register(void);
void cs_fault_set(int ops, int countdown, bool persist, int rc);
void cs_fault_clear(void);

int cs_main(Suite *s);

#endif
