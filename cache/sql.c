/* cache/sql.c: connections to SQLite, statements kept prepared, errors in words. */
#include "cache/cache_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static const char *const sql_text[CACHE_SQL_COUNT] = {
#define CACHE_SQL(id, text) text,
#include "cache/sql.def"
#undef CACHE_SQL
};

/* ---- errors ---- */

static enum cache_code code_of(int rc, int system)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return CACHE_ERR_FULL;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return CACHE_ERR_BUSY;
    case SQLITE_NOMEM:
        return CACHE_ERR_MEMORY;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return CACHE_ERR_OPEN;
    case SQLITE_NOTADB:
        return CACHE_ERR_NOT_CACHE;
    case SQLITE_IOERR:
        if (rc == SQLITE_IOERR_NOMEM)
            return CACHE_ERR_MEMORY;
        return system == ENOSPC || system == EDQUOT ? CACHE_ERR_FULL : CACHE_ERR_IO;
    default:
        return CACHE_ERR_IO;
    }
}

static const char *advice(enum cache_code code, int rc)
{
    switch (code) {
    case CACHE_ERR_FULL:
        return "free some space; what was stored before stays";
    case CACHE_ERR_BUSY:
        return "another process holds it; try again";
    case CACHE_ERR_MEMORY:
        return "free some memory";
    case CACHE_ERR_OPEN:
        return "check the permissions of the file and its folder, or open it read-only";
    case CACHE_ERR_NOT_CACHE:
        return "give another path for the cache";
    default:
        return (rc & 0xff) == SQLITE_CORRUPT ? "the file is damaged: delete it, it can be made again"
                                             : "check the disk, or delete the file: it can be made again";
    }
}

enum cache_code cache_sql_fail(const struct cache *c, const struct cache_conn *n, int rc, const char *what,
                               struct cache_error *err)
{
    int system = n->db ? sqlite3_system_errno(n->db) : 0;
    enum cache_code code = code_of(rc, system);
    return cache_fail(err, code, "%s failed on cache file %.150s: %.60s%s%s; %s", what, c->file.path,
                      sqlite3_errstr(rc), (rc & 0xff) == SQLITE_IOERR && system ? ", " : "",
                      (rc & 0xff) == SQLITE_IOERR && system ? strerror(system) : "", advice(code, rc));
}

/* ---- statements ---- */

sqlite3_stmt *cache_stmt(struct cache_conn *n, enum cache_sql id)
{
    if (!n->stmt[id] &&
        sqlite3_prepare_v3(n->db, sql_text[id], -1, SQLITE_PREPARE_PERSISTENT, &n->stmt[id], NULL))
        return NULL;
    return n->stmt[id];
}

int cache_bind_key(sqlite3_stmt *s, int at, const struct cache_key *k)
{
    uint8_t packed[CACHE_KEY_SIZE];
    cache_key_pack(k, packed);
    return sqlite3_bind_blob(s, at, packed, sizeof packed, SQLITE_TRANSIENT);
}

int cache_step_done(sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    int reset = sqlite3_reset(s);
    if (rc == SQLITE_DONE || rc == SQLITE_ROW)
        return reset;
    return rc;
}

int cache_exec(struct cache_conn *n, enum cache_sql id)
{
    sqlite3_stmt *s = cache_stmt(n, id);
    return s ? cache_step_done(s) : sqlite3_extended_errcode(n->db);
}

/* ---- connections ---- */

/* file:PATH?immutable=1; anything that means something in a URI as %XX. */
static void immutable_uri(const char *path, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "file:");
    for (; *path && n + 20 < size; path++) {
        unsigned char ch = (unsigned char)*path;
        bool plain = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
                     strchr("/._-", ch);
        n += (size_t)snprintf(out + n, size - n, plain ? "%c" : "%%%02X", ch);
    }
    snprintf(out + n, size - n, "?immutable=1");
}

static int open_db(struct cache *c, struct cache_conn *n)
{
    char uri[3 * 4096 + 32];
    const char *name = c->file.path;
    /* The reader beside a writer may write the log's index, so it is not opened read-only; query_only binds
     * it. */
    int flags = c->flags & CACHE_READONLY ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
    flags |= SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_PRIVATECACHE;
    if (c->file.immutable) {
        immutable_uri(c->file.path, uri, sizeof uri);
        name = uri;
        flags |= SQLITE_OPEN_URI;
    }
    int rc = sqlite3_open_v2(name, &n->db, flags, cache_vfs());
    if (rc != SQLITE_OK)
        return n->db ? sqlite3_extended_errcode(n->db) : rc;
    if (!(c->flags & CACHE_READONLY) && sqlite3_db_readonly(n->db, "main") == 1)
        return SQLITE_READONLY;
    return SQLITE_OK;
}

static int configure(struct cache_conn *n, bool write)
{
    sqlite3_extended_result_codes(n->db, 1);
    sqlite3_busy_timeout(n->db, CACHE_BUSY_MS); /* I8 */
    /* I12. Owner and mode already keep strangers out; this keeps a damaged schema from doing anything. */
    sqlite3_db_config(n->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(n->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(n->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(n->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_limit(n->db, SQLITE_LIMIT_LENGTH, 16 << 20);
    sqlite3_limit(n->db, SQLITE_LIMIT_ATTACHED, write ? 1 : 0); /* VACUUM attaches one */
    const char *pragmas = write
                              ? "PRAGMA page_size=4096; PRAGMA secure_delete=OFF; PRAGMA synchronous=NORMAL;"
                                "PRAGMA wal_autocheckpoint=4096; PRAGMA journal_size_limit=67108864;"
                                "PRAGMA cache_size=-16384;"
                              : "PRAGMA query_only=1; PRAGMA cache_size=-16384; PRAGMA mmap_size=4294967296;";
    return sqlite3_exec(n->db, pragmas, NULL, NULL, NULL);
}

enum cache_code cache_conn_open(struct cache *c, struct cache_conn *n, bool write, struct cache_error *err)
{
    int rc = open_db(c, n);
    if (rc == SQLITE_OK)
        rc = configure(n, write);
    if (rc == SQLITE_OK && !write)
        cache_mapping_keep(n);
    return rc == SQLITE_OK ? CACHE_OK : cache_sql_fail(c, n, rc, "opening", err);
}

void cache_conn_close(struct cache_conn *n)
{
    for (unsigned i = 0; i < CACHE_SQL_COUNT; i++) {
        sqlite3_finalize(n->stmt[i]);
        n->stmt[i] = NULL;
    }
    sqlite3_close(n->db);
    n->db = NULL;
    cache_mapping_free(n);
}

struct cache_conn *cache_conn_take(struct cache *c)
{
    if (c->writer.db && atomic_load(&c->in_txn)) {
        pthread_mutex_lock(&c->writer.lock);
        if (atomic_load(&c->in_txn))
            return &c->writer;
        pthread_mutex_unlock(&c->writer.lock);
    }
    pthread_mutex_lock(&c->reader.lock);
    return &c->reader;
}

void cache_conn_give(struct cache_conn *n)
{
    pthread_mutex_unlock(&n->lock);
}

/* ---- snapshots ---- */

uint64_t cache_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool too_old(const struct cache_conn *n)
{
    return cache_now_ns() - n->snapshot_ns > (uint64_t)CACHE_SNAPSHOT_MS * 1000000;
}

void cache_snapshot_begin(struct cache *c, struct cache_conn *n, bool *fresh)
{
    *fresh = true;
    /* No thread to end it, or the writer, which sees its own transaction: each look-up by itself. */
    if (!c->queue || n != &c->reader)
        return;
    if (n->snapshot_ns && (too_old(n) || atomic_exchange(&c->snapshot_old, false)))
        cache_snapshot_end(c, n);
    *fresh = n->snapshot_ns == 0;
    if (!*fresh)
        return;
    atomic_store(&c->snapshot_old, false);
    if (cache_exec(n, CACHE_SQL_SNAPSHOT) == SQLITE_OK) {
        n->snapshot_ns = cache_now_ns();
        atomic_store(&c->snapshot, true);
        cache_queue_watch(c);
    }
}

void cache_next_close(struct cache_conn *n)
{
    if (n->next.open)
        sqlite3_reset(n->stmt[CACHE_SQL_NEXT]);
    n->next.open = n->next.waiting = false;
}

void cache_snapshot_end(struct cache *c, struct cache_conn *n)
{
    if (n != &c->reader || !n->snapshot_ns)
        return;
    cache_next_close(n);
    cache_exec(n, CACHE_SQL_COMMIT);
    n->snapshot_ns = 0;
    atomic_store(&c->snapshot, false);
}

void cache_snapshot_expire(struct cache *c)
{
    if (!atomic_load(&c->snapshot) || pthread_mutex_trylock(&c->reader.lock) != 0)
        return;
    if (c->reader.snapshot_ns && too_old(&c->reader)) {
        cache_snapshot_end(c, &c->reader);
        cache_mapping_idle(&c->reader);
    }
    pthread_mutex_unlock(&c->reader.lock);
}
