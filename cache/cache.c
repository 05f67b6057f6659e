/* cache/cache.c: the handle: opening, making the schema, transactions, get and put. */
#include "cache/cache_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- opening ---- */

static const char schema[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value);"
    "INSERT INTO meta VALUES('format', 1);"
    "CREATE TABLE record(id INTEGER PRIMARY KEY, raw_size INTEGER NOT NULL, insns INTEGER NOT NULL,"
    " sensitive INTEGER NOT NULL, created INTEGER NOT NULL, key BLOB NOT NULL, blob BLOB NOT NULL);"
    "CREATE UNIQUE INDEX record_key ON record(key);"
    "CREATE TABLE record_use(record INTEGER PRIMARY KEY, hits INTEGER NOT NULL, used INTEGER NOT NULL);"
    "CREATE TABLE image(id INTEGER PRIMARY KEY, name TEXT NOT NULL, origin TEXT NOT NULL, kind TEXT NOT NULL,"
    " digest BLOB NOT NULL, exec_bytes INTEGER NOT NULL, pages INTEGER NOT NULL, insns INTEGER NOT NULL);"
    "CREATE UNIQUE INDEX image_digest ON image(digest, name);"
    "CREATE TABLE image_page(image INTEGER NOT NULL, vaddr INTEGER NOT NULL, record INTEGER NOT NULL,"
    " PRIMARY KEY(image, vaddr, record)) WITHOUT ROWID;"
    "CREATE INDEX image_page_record ON image_page(record);"
    "PRAGMA application_id=1448235843;" /* CACHE_APPLICATION_ID */
    "PRAGMA user_version=1;";           /* CACHE_FORMAT_VERSION */
_Static_assert(CACHE_APPLICATION_ID == 1448235843 && CACHE_FORMAT_VERSION == 1, "as in the schema");

static int query_int(sqlite3 *db, const char *sql, int64_t *value)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s);
        *value = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
        if (rc == SQLITE_ROW)
            rc = SQLITE_OK;
    }
    sqlite3_finalize(s);
    return rc;
}

/* In an exclusive transaction: another process may be making the same file at this moment. */
static int make_schema(sqlite3 *db, bool *foreign)
{
    int64_t id = 0, tables = 0;
    *foreign = false;
    int rc = sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = query_int(db, "PRAGMA application_id", &id);
    if (rc == SQLITE_OK)
        rc = query_int(db, "SELECT count(*) FROM sqlite_master", &tables);
    if (rc == SQLITE_OK && id != CACHE_APPLICATION_ID) {
        *foreign = tables != 0;
        rc = *foreign ? SQLITE_NOTADB : sqlite3_exec(db, schema, NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    if (!sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* The busy handler is not asked when the journal mode changes, so this waits by itself. */
static int enter_wal(sqlite3 *db)
{
    int rc = SQLITE_BUSY;
    for (int waited = 0; (rc & 0xff) == SQLITE_BUSY && waited < CACHE_BUSY_MS; waited += 5) {
        sqlite3_stmt *s = NULL;
        rc = sqlite3_prepare_v2(db, "PRAGMA journal_mode=WAL", -1, &s, NULL);
        if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
            const char *mode = (const char *)sqlite3_column_text(s, 0);
            rc = mode && strcmp(mode, "wal") == 0 ? SQLITE_OK : SQLITE_BUSY;
        }
        sqlite3_finalize(s);
        if ((rc & 0xff) == SQLITE_BUSY)
            usleep(5000);
    }
    return rc;
}

static enum cache_code open_writer(struct cache *c, struct cache_error *err)
{
    enum cache_code code = cache_conn_open(c, &c->writer, true, err);
    if (code != CACHE_OK)
        return code;
    bool foreign = false;
    /* The head that was admitted may be that of a file whose maker was killed: this first query rolls it back to nothing. */
    int64_t id = 0;
    int rc = query_int(c->writer.db, "PRAGMA application_id", &id);
    if (rc == SQLITE_OK && id != CACHE_APPLICATION_ID)
        rc = make_schema(c->writer.db, &foreign);
    if (rc == SQLITE_OK)
        rc = enter_wal(c->writer.db);
    return rc == SQLITE_OK ? CACHE_OK : cache_sql_fail(c, &c->writer, rc, "opening", err);
}

/* What SQLite really opened, its log included, is asked once more for its ids, then for owner and mode. */
static enum cache_code check_opened(struct cache *c, struct cache_error *err)
{
    int64_t id = 0, version = 0;
    int rc = query_int(c->reader.db, "PRAGMA application_id", &id);
    if (rc == SQLITE_OK)
        rc = query_int(c->reader.db, "PRAGMA user_version", &version);
    if (rc == SQLITE_OK && (id != CACHE_APPLICATION_ID || version != CACHE_FORMAT_VERSION))
        return cache_fail(err, CACHE_ERR_NOT_CACHE, "%.200s changed while it was opened; try again",
                          c->file.path);
    if (rc == SQLITE_OK && (!cache_stmt(&c->reader, CACHE_SQL_GET) || !cache_stmt(&c->reader, CACHE_SQL_HAS)))
        rc = sqlite3_extended_errcode(c->reader.db);
    if (rc == SQLITE_ERROR) /* no such table */
        return cache_fail(err, CACHE_ERR_NOT_CACHE,
                          "%.200s carries a cache's mark but not its tables; delete it or give another path",
                          c->file.path);
    if (rc != SQLITE_OK)
        return cache_sql_fail(c, &c->reader, rc, "opening", err);
    return cache_file_recheck(&c->file, err);
}

static void init_lock(pthread_mutex_t *m)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(m, &a);
    pthread_mutexattr_destroy(&a);
}

static void free_handle(struct cache *c)
{
    cache_conn_close(&c->reader);
    cache_conn_close(&c->writer); /* last: it may checkpoint */
    cache_buf_free(&c->raw);
    cache_buf_free(&c->old);
    cache_buf_free(&c->blob);
    cache_file_free(&c->file);
    pthread_mutex_destroy(&c->reader.lock);
    pthread_mutex_destroy(&c->writer.lock);
    pthread_cond_destroy(&c->txn_done);
    free(c);
}

struct cache *cache_open(const char *path, unsigned flags, struct cache_error *err)
{
    struct cache *c = calloc(1, sizeof *c);
    if (!c) {
        cache_fail(err, CACHE_ERR_MEMORY, "no memory to open cache file %.200s", path ? path : "");
        return NULL;
    }
    c->flags = flags;
    init_lock(&c->reader.lock);
    init_lock(&c->writer.lock);
    pthread_cond_init(&c->txn_done, NULL);
    bool readonly = flags & CACHE_READONLY;
    enum cache_code code = cache_file_admit(path, flags, &c->file, err);
    if (code == CACHE_OK && !readonly)
        code = open_writer(c, err);
    if (code == CACHE_OK)
        code = cache_conn_open(c, &c->reader, false, err);
    if (code == CACHE_OK)
        code = check_opened(c, err);
    if (code == CACHE_OK && !readonly)
        code = cache_queue_start(c, err);
    if (code == CACHE_OK)
        return c;
    free_handle(c);
    return NULL;
}

enum cache_code cache_close(struct cache *c, struct cache_error *err)
{
    if (!c)
        return CACHE_OK;
    if (c->writer.db) {
        pthread_mutex_lock(&c->writer.lock);
        if (atomic_load(&c->in_txn) && !sqlite3_get_autocommit(c->writer.db))
            cache_exec(&c->writer, CACHE_SQL_ROLLBACK); /* what was not committed was not promised */
        atomic_store(&c->in_txn, false);
        pthread_cond_broadcast(&c->txn_done);
        pthread_mutex_unlock(&c->writer.lock);
    }
    enum cache_code code = cache_queue_stop(c, err);
    free_handle(c);
    return code;
}

/* ---- transactions ---- */

static enum cache_code begin_immediate(struct cache *c, struct cache_error *err)
{
    /* IMMEDIATE: the wait for other writers happens here, where it can be waited, not in the middle. */
    int rc = cache_exec(&c->writer, CACHE_SQL_BEGIN);
    return rc == SQLITE_OK ? CACHE_OK : cache_sql_fail(c, &c->writer, rc, "starting to write", err);
}

/* SQLite rolls back by itself after some errors; after this it is rolled back in any case. */
static void roll_back(struct cache *c)
{
    if (!sqlite3_get_autocommit(c->writer.db))
        cache_exec(&c->writer, CACHE_SQL_ROLLBACK);
}

static enum cache_code commit(struct cache *c, struct cache_error *err)
{
    int rc = cache_exec(&c->writer, CACHE_SQL_COMMIT);
    if (rc == SQLITE_OK) {
        atomic_store(&c->snapshot_old, true); /* what this handle stored, it sees from now on */
        return CACHE_OK;
    }
    enum cache_code code = cache_sql_fail(c, &c->writer, rc, "committing", err);
    roll_back(c);
    return code;
}

static enum cache_code readonly_error(struct cache *c, struct cache_error *err)
{
    return cache_fail(err, CACHE_ERR_OPEN, "cache file %.200s was opened read-only and cannot be changed",
                      c->file.path);
}

enum cache_code cache_begin(struct cache *c, struct cache_error *err)
{
    if (!c->writer.db)
        return readonly_error(c, err);
    pthread_mutex_lock(&c->writer.lock);
    enum cache_code code;
    if (atomic_load(&c->in_txn) && c->txn_failed == CACHE_OK)
        code = cache_fail(err, CACHE_ERR_BUSY, "a transaction on cache file %.200s is open already",
                          c->file.path);
    else
        code = begin_immediate(c, err);
    if (code == CACHE_OK) {
        c->txn_failed = CACHE_OK;
        atomic_store(&c->in_txn, true);
    }
    pthread_mutex_unlock(&c->writer.lock);
    return code;
}

enum cache_code cache_commit(struct cache *c, struct cache_error *err)
{
    if (!c->writer.db)
        return readonly_error(c, err);
    pthread_mutex_lock(&c->writer.lock);
    enum cache_code code;
    if (!atomic_load(&c->in_txn))
        code = cache_fail(err, CACHE_ERR_IO, "no transaction on cache file %.200s is open", c->file.path);
    else if (c->txn_failed != CACHE_OK)
        code = cache_fail(err, c->txn_failed,
                          "nothing of the transaction on cache file %.200s was stored: "
                          "a step of it had failed",
                          c->file.path);
    else
        code = commit(c, err);
    atomic_store(&c->in_txn, false);
    c->txn_failed = CACHE_OK;
    pthread_cond_broadcast(&c->txn_done);
    pthread_mutex_unlock(&c->writer.lock);
    return code;
}

enum cache_code cache_write_begin(struct cache *c, bool *own, struct cache_error *err)
{
    *own = false;
    pthread_mutex_lock(&c->writer.lock);
    if (!c->writer.db)
        return readonly_error(c, err);
    if (atomic_load(&c->in_txn)) {
        if (c->txn_failed != CACHE_OK)
            return cache_fail(err, c->txn_failed,
                              "an earlier step of the transaction on cache file %.200s failed", c->file.path);
        return CACHE_OK;
    }
    enum cache_code code = begin_immediate(c, err);
    *own = code == CACHE_OK;
    return code;
}

enum cache_code cache_write_end(struct cache *c, bool own, enum cache_code code, struct cache_error *err)
{
    bool failed = code != CACHE_OK && code != CACHE_MISS;
    if (own && !failed) {
        enum cache_code done = commit(c, err);
        code = done == CACHE_OK ? code : done;
    } else if (own) {
        roll_back(c);
    } else if (failed && c->writer.db && atomic_load(&c->in_txn) && c->txn_failed == CACHE_OK) {
        roll_back(c); /* I7 */
        c->txn_failed = code;
    }
    pthread_mutex_unlock(&c->writer.lock);
    return code;
}

/* ---- put ---- */

static bool same_as_stored(struct cache *c, sqlite3_stmt *find, const uint8_t *raw, size_t size)
{
    if (sqlite3_column_int64(find, 1) != (int64_t)size || !cache_buf_reserve(&c->old, size))
        return false;
    const void *blob = sqlite3_column_blob(find, 2);
    return cache_unpack(blob, (size_t)sqlite3_column_bytes(find, 2), c->old.data, size) &&
           memcmp(c->old.data, raw, size) == 0;
}

/* *present: a row with this key is there; *same: and holds these bytes. */
static int find_stored(struct cache *c, const struct cache_key *k, const uint8_t *raw, size_t size,
                       bool *present, bool *same)
{
    *present = *same = false;
    sqlite3_stmt *s = cache_stmt(&c->writer, CACHE_SQL_FIND);
    if (!s)
        return sqlite3_extended_errcode(c->writer.db);
    int rc = cache_bind_key(s, 1, k);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) {
        *present = true;
        *same = same_as_stored(c, s, raw, size);
    }
    sqlite3_reset(s);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int write_row(struct cache *c, bool present, const struct cache_key *k, const struct cache_record *r,
                     size_t raw_size, int blob_len)
{
    sqlite3_stmt *s = cache_stmt(&c->writer, present ? CACHE_SQL_REPLACE : CACHE_SQL_ADD);
    if (!s)
        return sqlite3_extended_errcode(c->writer.db);
    int rc = sqlite3_bind_int64(s, 1, (int64_t)raw_size);
    rc = rc ? rc : sqlite3_bind_int64(s, 2, r->insn_count);
    rc = rc ? rc : sqlite3_bind_int64(s, 3, r->sensitive_count);
    rc = rc ? rc : sqlite3_bind_int64(s, 4, (int64_t)time(NULL));
    rc = rc ? rc : cache_bind_key(s, 5, k);
    rc = rc ? rc : sqlite3_bind_blob(s, 6, c->blob.data, blob_len, SQLITE_STATIC);
    rc = rc ? rc : cache_step_done(s);
    sqlite3_clear_bindings(s);
    return rc;
}

enum cache_code cache_store(struct cache *c, const struct cache_key *k, const uint8_t *raw, size_t size, uint32_t plain,
                            bool *added, struct cache_error *err)
{
    struct cache_record r;
    bool present, same;
    *added = false;
    if (cache_raw_check(raw, size, k, NULL, &r) != CACHE_REFUSAL_NONE) /* I4 begins with what is written */
        return cache_fail(err, CACHE_ERR_IO, "a record for cache file %.200s is not valid and was not stored",
                          c->file.path);
    int rc = find_stored(c, k, raw, size, &present, &same);
    if (rc == SQLITE_OK && same)
        return CACHE_OK;
    if (rc == SQLITE_OK && !cache_buf_reserve(&c->blob, cache_pack_bound(size)))
        rc = SQLITE_NOMEM;
    if (rc == SQLITE_OK) {
        size_t len = cache_pack(raw, size, plain, c->blob.data);
        rc = len ? write_row(c, present, k, &r, size, (int)len) : SQLITE_ERROR;
    }
    if (rc != SQLITE_OK)
        return cache_sql_fail(c, &c->writer, rc, "storing a record", err);
    *added = true;
    return CACHE_OK;
}

enum cache_code cache_put(struct cache *c, const struct cache_key *k, const struct cache_record *r,
                          bool *added, struct cache_error *err)
{
    bool own, ignored;
    added = added ? added : &ignored;
    *added = false;
    enum cache_code code = cache_write_begin(c, &own, err);
    size_t size = cache_raw_size(r);
    if (code == CACHE_OK && !size)
        code = cache_fail(err, CACHE_ERR_IO, "a record of %u bytes is too long for cache file %.200s",
                          r->verso_len, c->file.path);
    if (code == CACHE_OK && !cache_buf_reserve(&c->raw, size))
        code = cache_fail(err, CACHE_ERR_MEMORY, "no memory to store a record in cache file %.200s",
                          c->file.path);
    if (code == CACHE_OK) {
        cache_raw_fill(c->raw.data, k, r);
        cache_raw_seal(c->raw.data, size);
        code = cache_store(c, k, c->raw.data, size, r->plain, added, err);
    }
    code = cache_write_end(c, own, code, err);
    *added = *added && code == CACHE_OK;
    return code;
}

/* ---- get ---- */

/* Test 1 and 2 of FORMAT.md section 3, on the row s stands on. */
static enum cache_refusal unpack_row(sqlite3_stmt *s, struct cache_buf *buf, size_t *size, bool *no_memory)
{
    int64_t raw_size = sqlite3_column_int64(s, 0);
    if (sqlite3_column_type(s, 0) != SQLITE_INTEGER || raw_size < CACHE_RAW_MIN || raw_size > CACHE_RAW_MAX ||
        sqlite3_column_type(s, 1) != SQLITE_BLOB)
        return CACHE_REFUSAL_SIZE;
    const uint8_t *blob = sqlite3_column_blob(s, 1);
    int len = sqlite3_column_bytes(s, 1);
    if (!blob) /* empty, or its pages could not be read */
        return len == 0 && sqlite3_errcode(sqlite3_db_handle(s)) == SQLITE_ROW ? CACHE_REFUSAL_SIZE
                                                                               : CACHE_REFUSAL_IO;
    *size = (size_t)raw_size;
    if (!cache_buf_reserve(buf, *size)) {
        *no_memory = true;
        return CACHE_REFUSAL_NONE;
    }
    return cache_unpack(blob, (size_t)len, buf->data, *size) ? CACHE_REFUSAL_NONE : CACHE_REFUSAL_LZ4;
}

/* Steps a statement for one key: SQLITE_ROW, SQLITE_DONE or an error. What a shared snapshot does not have
 * may have been stored by another process since, so a miss is asked again in a fresh one: cheap beside the
 * translation that would follow. */
static int look_up(struct cache *c, struct cache_conn *n, sqlite3_stmt *s, const struct cache_key *k, bool fresh)
{
    int rc = cache_bind_key(s, 1, k);
    rc = rc ? rc : sqlite3_step(s);
    if (rc == SQLITE_DONE && !fresh) {
        sqlite3_reset(s);
        cache_snapshot_end(c, n);
        cache_snapshot_begin(c, n, &fresh);
        rc = sqlite3_step(s);
    }
    return rc;
}

/* The row behind the one that was handed out last, if it has that key. That needs half the time of a search by key, most of which goes into
 * SQLite's code being out of the processor's caches by then: 3 us of 6. */
static sqlite3_stmt *next_row(struct cache_conn *n, const struct cache_key *k)
{
    uint8_t packed[CACHE_KEY_SIZE];
    sqlite3_stmt *s = n->stmt[CACHE_SQL_NEXT];
    if (!n->next.open)
        return NULL;
    if (!n->next.waiting && sqlite3_step(s) != SQLITE_ROW) {
        cache_next_close(n);
        return NULL;
    }
    cache_key_pack(k, packed);
    const void *key = sqlite3_column_blob(s, 2);
    n->next.waiting = !key || sqlite3_column_bytes(s, 2) != CACHE_KEY_SIZE || memcmp(key, packed, CACHE_KEY_SIZE) != 0;
    n->next.astray = n->next.astray && n->next.waiting;
    return n->next.waiting ? NULL : s;
}

/* s stands on a row that was searched by its key. The next one is looked for behind it if the last one was not where it was looked for either:
 * not after each exception. */
static void follow(struct cache_conn *n, sqlite3_stmt *s)
{
    if (n->next.open && !n->next.astray) {
        n->next.astray = true;
        return;
    }
    cache_next_close(n);
    sqlite3_stmt *next = n->snapshot_ns ? cache_stmt(n, CACHE_SQL_NEXT) : NULL;
    n->next.open = next && sqlite3_bind_int64(next, 1, sqlite3_column_int64(s, 2)) == SQLITE_OK;
    n->next.astray = false;
}

/* The row's bytes into buf; SQLite is left before they are checked. */
static enum cache_code fetch(struct cache *c, const struct cache_key *k, struct cache_buf *buf, size_t *size,
                             enum cache_refusal *why)
{
    struct cache_conn *n = cache_conn_take(c);
    bool fresh, no_memory = false;
    cache_snapshot_begin(c, n, &fresh);
    int rc = SQLITE_ROW;
    sqlite3_stmt *s = next_row(n, k);
    bool searched = !s;
    if (searched) {
        s = cache_stmt(n, CACHE_SQL_GET);
        rc = s ? look_up(c, n, s, k, fresh) : SQLITE_ERROR;
    } else {
        atomic_fetch_add_explicit(&c->get_next, 1, memory_order_relaxed);
    }
    *why = rc == SQLITE_ROW ? unpack_row(s, buf, size, &no_memory) : CACHE_REFUSAL_IO;
    if (searched && rc == SQLITE_ROW)
        follow(n, s);
    if (searched && s)
        sqlite3_reset(s);
    cache_conn_give(n);
    if (rc == SQLITE_DONE || no_memory) {
        *why = CACHE_REFUSAL_NONE;
        return no_memory ? CACHE_ERR_MEMORY : CACHE_MISS;
    }
    return *why == CACHE_REFUSAL_NONE ? CACHE_OK : CACHE_REFUSED;
}

static enum cache_code get(struct cache *c, const struct cache_key *k, const uint8_t *recto,
                           struct cache_buf *buf, struct cache_record *out, enum cache_refusal *why)
{
    uint64_t start = cache_now_ns();
    size_t size = 0;
    *out = (struct cache_record){0};
    enum cache_code code = fetch(c, k, buf, &size, why);
    if (code == CACHE_OK) {
        *why = cache_raw_check(buf->data, size, k, recto, out);
        code = *why == CACHE_REFUSAL_NONE ? CACHE_OK : CACHE_REFUSED;
    }
    atomic_fetch_add_explicit(&c->gets, 1, memory_order_relaxed);
    if (code == CACHE_OK)
        atomic_fetch_add_explicit(&c->get_hits, 1, memory_order_relaxed);
    else if (code == CACHE_MISS)
        atomic_fetch_add_explicit(&c->get_misses, 1, memory_order_relaxed);
    else if (code == CACHE_REFUSED)
        atomic_fetch_add_explicit(&c->refused[*why], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->get_ns, cache_now_ns() - start, memory_order_relaxed);
    return code;
}

enum cache_code cache_get(struct cache *c, const struct cache_key *k, const uint8_t recto[4096],
                          struct cache_buf *buf, struct cache_record *out, enum cache_refusal *why)
{
    return get(c, k, recto, buf, out, why);
}

enum cache_code cache_get_any(struct cache *c, const struct cache_key *k, struct cache_buf *buf,
                              struct cache_record *out, enum cache_refusal *why)
{
    return get(c, k, NULL, buf, out, why);
}

bool cache_has(struct cache *c, const struct cache_key *k)
{
    struct cache_conn *n = cache_conn_take(c);
    sqlite3_stmt *s = cache_stmt(n, CACHE_SQL_HAS);
    bool fresh;
    cache_snapshot_begin(c, n, &fresh);
    bool found = s && look_up(c, n, s, k, fresh) == SQLITE_ROW;
    if (s)
        sqlite3_reset(s);
    cache_conn_give(n);
    return found;
}
