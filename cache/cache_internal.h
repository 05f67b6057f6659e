/* cache/cache_internal.h: what the files of cache/ share. FORMAT.md states the format and the invariants
 * I1..I12.
 *
 * Locks, in the order in which they may be taken: reader.lock, writer.lock, queue.lock. Connection locks are
 * recursive, so that the callback of a listing may use the cache.
 */
#ifndef VERSO_CACHE_CACHE_INTERNAL_H
#define VERSO_CACHE_CACHE_INTERNAL_H

#include "cache/cache.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/types.h>

/* ---- constants of the format (FORMAT.md) ---- */
#define CACHE_APPLICATION_ID 0x56525343
#define CACHE_FORMAT_VERSION 1
enum {
    CACHE_KEY_SIZE = 32,
    CACHE_PAGE = 4096,
    CACHE_OFF_RECTO = 64,
    CACHE_OFF_ATTR = CACHE_OFF_RECTO + CACHE_PAGE,
    CACHE_OFF_VERSO = CACHE_OFF_ATTR + CACHE_PAGE,
    CACHE_DIGEST_SIZE = 16,
    CACHE_RAW_MIN = CACHE_OFF_VERSO + CACHE_DIGEST_SIZE,
    CACHE_VERSO_MAX = 4 << 20,
    CACHE_RAW_MAX = CACHE_RAW_MIN + CACHE_VERSO_MAX,
};

/* ---- limits ---- */
enum {
    CACHE_BUSY_MS = 10000,        /* I8 */
    CACHE_QUEUE_RECORDS = 4096,   /* I10 */
    CACHE_QUEUE_BYTES = 64 << 20, /* I10 */
    CACHE_BATCH_RECORDS = 256,    /* of one write-behind transaction: keeps another process's wait short */
    CACHE_BATCH_DELAY_MS = 50,    /* how long a first record waits for company */
    CACHE_SNAPSHOT_MS = 100,      /* how long look-ups may share one read transaction (I8) */
    CACHE_RECENT_SLOTS = 4096,    /* of records that wait, to find one that is replaced */
    CACHE_TOUCH_SLOTS = 8192,     /* keys with hits not yet written; power of two */
};

/* For tests: the name of the VFS of the files opened from now on; NULL is SQLite's default. The string must
 * stay. */
void cache_set_vfs(const char *name);
const char *cache_vfs(void);

/* ---- record.c: the bytes of a record ---- */
void cache_key_pack(const struct cache_key *k, uint8_t out[CACHE_KEY_SIZE]);
void cache_key_unpack(const uint8_t in[CACHE_KEY_SIZE], struct cache_key *k);
/* Size of the raw record, 0 if the verso is too long. */
size_t cache_raw_size(const struct cache_record *r);
/* Writes all but the digest; raw has cache_raw_size() bytes. */
void cache_raw_fill(uint8_t *raw, const struct cache_key *k, const struct cache_record *r);
void cache_raw_seal(uint8_t *raw, size_t size);
/* Tests 3 to 7 of FORMAT.md section 3; recto may be NULL. */
enum cache_refusal cache_raw_check(const uint8_t *raw, size_t size, const struct cache_key *k,
                                   const uint8_t *recto, struct cache_record *out);
/* The blob of a raw record: its length, 0 on failure; blob has room for cache_pack_bound(size). plain: of struct cache_record. */
size_t cache_pack_bound(size_t size);
size_t cache_pack(const uint8_t *raw, size_t size, uint32_t plain, uint8_t *blob);
/* Test 2: decompresses to exactly size bytes. */
bool cache_unpack(const uint8_t *blob, size_t blob_len, uint8_t *raw, size_t size);
bool cache_buf_reserve(struct cache_buf *b, size_t size);

/* ---- file.c: which files are touched at all (I1, I2) ---- */
struct cache_file {
    char *path; /* folder resolved, last component as given: what SQLite opens */
    dev_t dev;  /* the file that was checked, compared again after SQLite opened it */
    ino_t ino;
    bool empty;     /* 0 bytes: to be made */
    bool created;   /* by this call */
    bool immutable; /* folder and file cannot be written and there is no log: SQLite needs no locks */
};
enum cache_code cache_file_admit(const char *path, unsigned flags, struct cache_file *f,
                                 struct cache_error *err) __attribute__((warn_unused_result));
/* Once more, after SQLite has opened the file, its log and its index. */
enum cache_code cache_file_recheck(const struct cache_file *f, struct cache_error *err)
    __attribute__((warn_unused_result));
void cache_file_free(struct cache_file *f);

/* ---- sql.c: connections ---- */
enum cache_sql {
#define CACHE_SQL(id, text) CACHE_SQL_##id,
#include "cache/sql.def"
#undef CACHE_SQL
    CACHE_SQL_COUNT
};
struct cache_conn {
    sqlite3 *db;
    pthread_mutex_t lock;
    sqlite3_stmt *stmt[CACHE_SQL_COUNT]; /* prepared at first use */
    uint64_t snapshot_ns;                /* since when look-ups share a read transaction; 0: they do not */
    /* CACHE_SQL_NEXT, in that transaction. A run asks for records much in the order in which an earlier one stored them. */
    struct {
        bool open;    /* it goes on behind a record that was handed out */
        bool waiting; /* it stands on a row that was not */
        bool astray;  /* that row was not what was asked for last */
    } next;
    struct cache_mapping *mapping;       /* NULL: SQLite maps the file as it likes, or not at all */
};
struct cache_queue;

struct cache {
    struct cache_file file;
    unsigned flags;
    struct cache_conn reader, writer; /* writer.db is NULL if read-only */
    struct cache_buf raw, old, blob;  /* scratch of the writer, under its lock */
    atomic_bool in_txn;         /* between cache_begin() and cache_commit(); changes under writer.lock */
    enum cache_code txn_failed; /* the open transaction was rolled back because of this */
    pthread_cond_t txn_done;    /* with writer.lock: write-behind waits for the end of a transaction */
    atomic_bool snapshot;       /* reader.snapshot_ns is not 0: to be ended by the thread */
    atomic_bool snapshot_old;   /* this handle has committed something since */
    struct cache_queue *queue;  /* NULL if read-only */
    atomic_uint_fast64_t gets, get_hits, get_next, get_misses, get_ns, refused[CACHE_REFUSAL_COUNT];
};

enum cache_code cache_fail(struct cache_error *err, enum cache_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The code and sentence for a failed SQLite call. */
enum cache_code cache_sql_fail(const struct cache *c, const struct cache_conn *n, int rc, const char *what,
                               struct cache_error *err);
enum cache_code cache_conn_open(struct cache *c, struct cache_conn *n, bool write, struct cache_error *err)
    __attribute__((warn_unused_result));
void cache_conn_close(struct cache_conn *n);
/* The statement, reset and ready to bind; NULL on error. Under the connection's lock. */
sqlite3_stmt *cache_stmt(struct cache_conn *n, enum cache_sql id);
int cache_bind_key(sqlite3_stmt *s, int at, const struct cache_key *k);
/* Steps a statement without result rows and resets it; SQLITE_OK or an error. */
int cache_step_done(sqlite3_stmt *s);
int cache_exec(struct cache_conn *n, enum cache_sql id);
/* The connection that sees what the caller has written: locked. */
struct cache_conn *cache_conn_take(struct cache *c);
void cache_conn_give(struct cache_conn *n);
/* Look-ups in a row share one read transaction: to begin and end one costs three system calls, measured 7.5
 * us of a look-up's 18. Begins it unless there is one that may still be used; *fresh: it was begun now. Under
 * the connection's lock. */
void cache_snapshot_begin(struct cache *c, struct cache_conn *n, bool *fresh);
void cache_snapshot_end(struct cache *c, struct cache_conn *n);
/* Leaves the row that CACHE_SQL_NEXT stands on. */
void cache_next_close(struct cache_conn *n);
/* Ends the reader's if it is too old and nobody is using it. An open one would keep the log from being
 * reused. */
void cache_snapshot_expire(struct cache *c);
uint64_t cache_now_ns(void);

/* ---- mapping.c: the reader's mapping of the file is kept while the file keeps its size ---- */
void cache_mapping_keep(struct cache_conn *n);
/* Look-ups pause: its pages are let go. Under the connection's lock. */
void cache_mapping_idle(struct cache_conn *n);
/* Behind closing the connection. */
void cache_mapping_free(struct cache_conn *n);

/* ---- cache.c ---- */
/* Opens a transaction unless the caller's is open; *own says so. Takes writer.lock, which stays held until
 * cache_write_end() also on failure. */
enum cache_code cache_write_begin(struct cache *c, bool *own, struct cache_error *err)
    __attribute__((warn_unused_result));
/* Commits or rolls back by code, gives writer.lock back, returns what became of it. */
enum cache_code cache_write_end(struct cache *c, bool own, enum cache_code code, struct cache_error *err)
    __attribute__((warn_unused_result));
/* Stores a sealed raw record inside a transaction. */
enum cache_code cache_store(struct cache *c, const struct cache_key *k, const uint8_t *raw, size_t size, uint32_t plain,
                            bool *added, struct cache_error *err) __attribute__((warn_unused_result));

/* ---- behind.c ---- */
enum cache_code cache_queue_start(struct cache *c, struct cache_error *err)
    __attribute__((warn_unused_result));
/* Drains, ends the thread; the first error the thread met. */
enum cache_code cache_queue_stop(struct cache *c, struct cache_error *err);
/* A read transaction was begun: end it in time. */
void cache_queue_watch(struct cache *c);
void cache_queue_stats(struct cache *c, struct cache_stats *out);

#endif
