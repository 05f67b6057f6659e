/* cache/list.c: images, listings, removal, statistics, and giving space back. */
#include "cache/cache_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int prepare_failed(struct cache_conn *n)
{
    return sqlite3_extended_errcode(n->db);
}

/* For listings, which want the newest state. */
static struct cache_conn *take_fresh(struct cache *c)
{
    struct cache_conn *n = cache_conn_take(c);
    cache_snapshot_end(c, n);
    return n;
}

/* ---- images ---- */

static void pack_digest(const struct cache_image *img, uint8_t out[16])
{
    uint8_t packed[CACHE_KEY_SIZE];
    struct cache_key k = {.hash_lo = img->digest_lo, .hash_hi = img->digest_hi};
    cache_key_pack(&k, packed);
    memcpy(out, packed, 16);
}

static int bind_text(sqlite3_stmt *s, int at, const char *text, size_t cap)
{
    return sqlite3_bind_text(s, at, text, (int)strnlen(text, cap), SQLITE_TRANSIENT);
}

static int image_find(struct cache *c, const struct cache_image *img, int64_t *id)
{
    uint8_t digest[16];
    pack_digest(img, digest);
    sqlite3_stmt *s = cache_stmt(&c->writer, CACHE_SQL_IMAGE_FIND);
    if (!s)
        return prepare_failed(&c->writer);
    int rc = sqlite3_bind_blob(s, 1, digest, 16, SQLITE_TRANSIENT);
    rc = rc ? rc : bind_text(s, 2, img->name, sizeof img->name);
    rc = rc ? rc : sqlite3_step(s);
    *id = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int image_write(struct cache *c, const struct cache_image *img, bool known)
{
    uint8_t digest[16];
    pack_digest(img, digest);
    sqlite3_stmt *s = cache_stmt(&c->writer, known ? CACHE_SQL_IMAGE_UPDATE : CACHE_SQL_IMAGE_ADD);
    if (!s)
        return prepare_failed(&c->writer);
    int rc = bind_text(s, 1, img->name, sizeof img->name);
    rc = rc ? rc : bind_text(s, 2, img->origin, sizeof img->origin);
    rc = rc ? rc : bind_text(s, 3, img->kind, sizeof img->kind);
    rc = rc ? rc : sqlite3_bind_blob(s, 4, digest, 16, SQLITE_TRANSIENT);
    rc = rc ? rc : sqlite3_bind_int64(s, 5, (int64_t)img->exec_bytes);
    rc = rc ? rc : sqlite3_bind_int64(s, 6, (int64_t)img->pages);
    rc = rc ? rc : sqlite3_bind_int64(s, 7, (int64_t)img->insns);
    return rc ? rc : cache_step_done(s);
}

enum cache_code cache_image_add(struct cache *c, struct cache_image *img, struct cache_error *err)
{
    bool own;
    int64_t id = 0;
    enum cache_code code = cache_write_begin(c, &own, err);
    if (code == CACHE_OK) {
        int rc = image_find(c, img, &id);
        rc = rc ? rc : image_write(c, img, id != 0);
        if (rc != SQLITE_OK)
            code = cache_sql_fail(c, &c->writer, rc, "entering an image", err);
        else if (!id)
            id = sqlite3_last_insert_rowid(c->writer.db);
    }
    code = cache_write_end(c, own, code, err);
    if (code == CACHE_OK)
        img->id = id;
    return code;
}

/* The id of a record, 0 if there is none. */
static int record_find(struct cache *c, const struct cache_key *k, int64_t *id)
{
    sqlite3_stmt *s = cache_stmt(&c->writer, CACHE_SQL_HAS);
    if (!s)
        return prepare_failed(&c->writer);
    int rc = cache_bind_key(s, 1, k);
    rc = rc ? rc : sqlite3_step(s);
    *id = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* A page of an image may have several records (modes, versions that boot will make of it), but all of one
 * fingerprint: those of an earlier translator make place. */
static int page_write(struct cache *c, int64_t image, uint64_t vaddr, int64_t record,
                      const struct cache_key *k)
{
    uint8_t packed[CACHE_KEY_SIZE];
    cache_key_pack(k, packed);
    sqlite3_stmt *s = cache_stmt(&c->writer, CACHE_SQL_PAGE_STALE);
    if (!s)
        return prepare_failed(&c->writer);
    int rc = sqlite3_bind_int64(s, 1, image);
    rc = rc ? rc : sqlite3_bind_int64(s, 2, (int64_t)vaddr);
    rc = rc ? rc : sqlite3_bind_blob(s, 3, packed + 24, 8, SQLITE_TRANSIENT);
    rc = rc ? rc : cache_step_done(s);
    if (rc != SQLITE_OK)
        return rc;
    s = cache_stmt(&c->writer, CACHE_SQL_PAGE_ADD);
    if (!s)
        return prepare_failed(&c->writer);
    rc = sqlite3_bind_int64(s, 1, image);
    rc = rc ? rc : sqlite3_bind_int64(s, 2, (int64_t)vaddr);
    rc = rc ? rc : sqlite3_bind_int64(s, 3, record);
    return rc ? rc : cache_step_done(s);
}

enum cache_code cache_image_page(struct cache *c, int64_t image, uint64_t vaddr, const struct cache_key *k,
                                 struct cache_error *err)
{
    bool own;
    int64_t record = 0;
    enum cache_code code = cache_write_begin(c, &own, err);
    if (code == CACHE_OK) {
        int rc = record_find(c, k, &record);
        if (rc == SQLITE_OK && record)
            rc = page_write(c, image, vaddr, record, k);
        if (rc != SQLITE_OK)
            code = cache_sql_fail(c, &c->writer, rc, "entering a page of an image", err);
        else if (!record)
            code = cache_fail(err, CACHE_MISS,
                              "a page was entered for an image before its record was stored in %.200s",
                              c->file.path);
    }
    return cache_write_end(c, own, code, err);
}

static void copy_text(char *out, size_t cap, sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    snprintf(out, cap, "%s", text ? text : "");
}

static void read_image(sqlite3_stmt *s, struct cache_image *img)
{
    uint8_t packed[CACHE_KEY_SIZE] = {0};
    struct cache_key k;
    const void *digest = sqlite3_column_blob(s, 4);
    if (digest && sqlite3_column_bytes(s, 4) == 16)
        memcpy(packed, digest, 16);
    cache_key_unpack(packed, &k);
    *img = (struct cache_image){.id = sqlite3_column_int64(s, 0),
                                .digest_lo = k.hash_lo,
                                .digest_hi = k.hash_hi,
                                .exec_bytes = (uint64_t)sqlite3_column_int64(s, 5),
                                .pages = (uint64_t)sqlite3_column_int64(s, 6),
                                .insns = (uint64_t)sqlite3_column_int64(s, 7)};
    copy_text(img->name, sizeof img->name, s, 1);
    copy_text(img->origin, sizeof img->origin, s, 2);
    copy_text(img->kind, sizeof img->kind, s, 3);
}

enum cache_code cache_image_each(struct cache *c, int (*fn)(void *arg, const struct cache_image *img),
                                 void *arg, struct cache_error *err)
{
    static const char sql[] =
        "SELECT id, name, origin, kind, digest, exec_bytes, pages, insns FROM image ORDER BY id";
    struct cache_conn *n = take_fresh(c);
    sqlite3_stmt *s = NULL;
    int stop = 0, rc = sqlite3_prepare_v2(n->db, sql, -1, &s, NULL);
    while (rc == SQLITE_OK && !stop && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct cache_image img;
        read_image(s, &img);
        stop = fn(arg, &img);
        rc = SQLITE_OK;
    }
    enum cache_code code =
        rc == SQLITE_OK || rc == SQLITE_DONE ? CACHE_OK : cache_sql_fail(c, n, rc, "listing images", err);
    sqlite3_finalize(s);
    cache_conn_give(n);
    return code;
}

/* ---- records ---- */

#define ROW_COLUMNS                                                                                          \
    "r.key, length(r.blob), r.raw_size, coalesce(u.hits, 0), r.insns, r.sensitive, r.created, "              \
    "coalesce(u.used, 0)"
static const char sql_all[] =
    "SELECT " ROW_COLUMNS ", coalesce((SELECT min(image) FROM image_page p WHERE p.record = r.id), 0), "
    "coalesce((SELECT vaddr FROM image_page p WHERE p.record = r.id ORDER BY image, vaddr LIMIT 1), 0) "
    "FROM record r LEFT JOIN record_use u ON u.record = r.id ORDER BY r.id";
static const char sql_image[] =
    "SELECT " ROW_COLUMNS ", p.image, p.vaddr FROM image_page p JOIN record r ON r.id = p.record "
    "LEFT JOIN record_use u ON u.record = r.id WHERE p.image = ?1 ORDER BY p.vaddr, p.record";

static bool read_row(sqlite3_stmt *s, struct cache_row *row)
{
    const void *key = sqlite3_column_blob(s, 0);
    if (!key || sqlite3_column_bytes(s, 0) != CACHE_KEY_SIZE)
        return false;
    *row = (struct cache_row){.stored_bytes = (uint64_t)sqlite3_column_int64(s, 1),
                              .raw_bytes = (uint64_t)sqlite3_column_int64(s, 2),
                              .hits = (uint64_t)sqlite3_column_int64(s, 3),
                              .insn_count = (uint32_t)sqlite3_column_int64(s, 4),
                              .sensitive_count = (uint32_t)sqlite3_column_int64(s, 5),
                              .created_s = sqlite3_column_int64(s, 6),
                              .used_s = sqlite3_column_int64(s, 7),
                              .image = sqlite3_column_int64(s, 8),
                              .vaddr = (uint64_t)sqlite3_column_int64(s, 9)};
    cache_key_unpack(key, &row->key);
    return true;
}

enum cache_code cache_each(struct cache *c, int64_t image, int (*fn)(void *arg, const struct cache_row *row),
                           void *arg, struct cache_error *err)
{
    struct cache_conn *n = take_fresh(c);
    sqlite3_stmt *s = NULL;
    int stop = 0, rc = sqlite3_prepare_v2(n->db, image ? sql_image : sql_all, -1, &s, NULL);
    if (rc == SQLITE_OK && image)
        rc = sqlite3_bind_int64(s, 1, image);
    while (rc == SQLITE_OK && !stop && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct cache_row row;
        if (read_row(s, &row)) /* a damaged key cannot be looked up: such a row does not exist for anybody */
            stop = fn(arg, &row);
        rc = SQLITE_OK;
    }
    enum cache_code code =
        rc == SQLITE_OK || rc == SQLITE_DONE ? CACHE_OK : cache_sql_fail(c, n, rc, "listing records", err);
    sqlite3_finalize(s);
    cache_conn_give(n);
    return code;
}

/* ---- removal ---- */

static int remove_record(struct cache *c, int64_t id)
{
    static const enum cache_sql steps[] = {CACHE_SQL_REMOVE, CACHE_SQL_REMOVE_USE,
                                           CACHE_SQL_REMOVE_PAGE}; /* I9 */
    int rc = SQLITE_OK;
    for (unsigned i = 0; i < sizeof steps / sizeof *steps && rc == SQLITE_OK; i++) {
        sqlite3_stmt *s = cache_stmt(&c->writer, steps[i]);
        if (!s)
            return prepare_failed(&c->writer);
        rc = sqlite3_bind_int64(s, 1, id);
        rc = rc ? rc : cache_step_done(s);
    }
    return rc;
}

enum cache_code cache_remove(struct cache *c, const struct cache_key *k, struct cache_error *err)
{
    bool own;
    int64_t id = 0;
    enum cache_code code = cache_write_begin(c, &own, err);
    if (code == CACHE_OK) {
        int rc = record_find(c, k, &id);
        if (rc == SQLITE_OK && id)
            rc = remove_record(c, id);
        if (rc != SQLITE_OK)
            code = cache_sql_fail(c, &c->writer, rc, "removing a record", err);
        else if (!id)
            code = cache_fail(err, CACHE_MISS, "no such record in cache file %.200s", c->file.path);
    }
    return cache_write_end(c, own, code, err);
}

/* Runs one statement with one integer; *changes (may be NULL) grows by the rows it changed. */
static int run_int(struct cache *c, const char *sql, int64_t value, uint64_t *changes)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(c->writer.db, sql, -1, &s, NULL);
    if (rc == SQLITE_OK && sqlite3_bind_parameter_count(s))
        rc = sqlite3_bind_int64(s, 1, value);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s);
        rc = rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
        if (rc == SQLITE_OK && changes)
            *changes += (uint64_t)sqlite3_changes64(c->writer.db);
    }
    sqlite3_finalize(s);
    return rc;
}

/* I9, after records went in bulk. */
static int remove_orphans(struct cache *c)
{
    int rc = run_int(c, "DELETE FROM record_use WHERE record NOT IN (SELECT id FROM record)", 0, NULL);
    return rc ? rc
              : run_int(c, "DELETE FROM image_page WHERE record NOT IN (SELECT id FROM record)", 0, NULL);
}

enum cache_code cache_remove_image(struct cache *c, int64_t image, struct cache_error *err)
{
    bool own;
    uint64_t images = 0;
    enum cache_code code = cache_write_begin(c, &own, err);
    if (code == CACHE_OK) {
        /* Records that other images share stay. */
        int rc =
            run_int(c,
                    "DELETE FROM record WHERE id IN (SELECT record FROM image_page WHERE image = ?1 EXCEPT "
                    "SELECT record FROM image_page WHERE image <> ?1)",
                    image, NULL);
        rc = rc ? rc : run_int(c, "DELETE FROM image_page WHERE image = ?1", image, NULL);
        rc = rc ? rc : remove_orphans(c);
        rc = rc ? rc : run_int(c, "DELETE FROM image WHERE id = ?1", image, &images);
        if (rc != SQLITE_OK)
            code = cache_sql_fail(c, &c->writer, rc, "removing an image", err);
        else if (!images)
            code = cache_fail(err, CACHE_MISS, "no image %lld in cache file %.200s", (long long)image,
                              c->file.path);
    }
    return cache_write_end(c, own, code, err);
}

/* ---- gc ---- */

static int collect(struct cache *c, uint64_t keep_fingerprint, uint64_t max_bytes, uint64_t *removed)
{
    int rc = SQLITE_OK;
    if (keep_fingerprint) {
        uint8_t packed[CACHE_KEY_SIZE];
        struct cache_key k = {.fingerprint = keep_fingerprint};
        cache_key_pack(&k, packed);
        char sql[128];
        int n = snprintf(sql, sizeof sql, "DELETE FROM record WHERE substr(key, 25, 8) <> x'");
        for (unsigned i = 0; i < 8; i++)
            n += snprintf(sql + n, sizeof sql - (size_t)n, "%02x", packed[24 + i]);
        snprintf(sql + n, sizeof sql - (size_t)n, "'");
        rc = run_int(c, sql, 0, removed);
    }
    if (rc == SQLITE_OK && max_bytes)
        rc = run_int(
            c,
            "DELETE FROM record WHERE id IN (SELECT id FROM (SELECT r.id AS id, sum(length(r.blob)) OVER "
            "(ORDER BY max(r.created, coalesce(u.used, 0)) DESC, r.id DESC) AS total "
            "FROM record r LEFT JOIN record_use u ON u.record = r.id) WHERE total > ?1)",
            max_bytes > INT64_MAX ? INT64_MAX : (int64_t)max_bytes, removed);
    rc = rc ? rc : remove_orphans(c);
    /* An image none of whose pages are left is no longer known. */
    return rc ? rc
              : run_int(c, "DELETE FROM image WHERE pages > 0 AND id NOT IN (SELECT image FROM image_page)",
                        0, NULL);
}

enum cache_code cache_gc(struct cache *c, uint64_t keep_fingerprint, uint64_t max_bytes, uint64_t *removed,
                         struct cache_error *err)
{
    bool own;
    uint64_t gone = 0;
    cache_conn_give(take_fresh(c)); /* an open snapshot would keep the log from being cut */
    enum cache_code code = cache_write_begin(c, &own, err);
    if (code == CACHE_OK && !own) {
        pthread_mutex_unlock(&c->writer.lock);
        return cache_fail(err, CACHE_ERR_BUSY, "gc of cache file %.200s inside a transaction; end it first",
                          c->file.path);
    }
    if (code == CACHE_OK) {
        int rc = collect(c, keep_fingerprint, max_bytes, &gone);
        if (rc != SQLITE_OK)
            code = cache_sql_fail(c, &c->writer, rc, "removing records", err);
    }
    /* The lock is recursive: kept for VACUUM, which runs outside a transaction. */
    pthread_mutex_lock(&c->writer.lock);
    code = cache_write_end(c, own, code, err);
    if (code == CACHE_OK) {
        if (removed)
            *removed = gone;
        int rc = sqlite3_exec(c->writer.db, "VACUUM", NULL, NULL, NULL);
        if (rc != SQLITE_OK)
            code = cache_sql_fail(c, &c->writer, rc, "giving space back (records are removed)", err);
        else /* readers may keep the log from shrinking now; the last close shrinks it */
            sqlite3_wal_checkpoint_v2(c->writer.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    }
    pthread_mutex_unlock(&c->writer.lock);
    return code;
}

/* ---- statistics ---- */

static uint64_t file_size(const char *path, const char *suffix)
{
    char name[PATH_MAX];
    struct stat st;
    snprintf(name, sizeof name, "%.*s%s", (int)(sizeof name - 8), path, suffix);
    return stat(name, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* total(), not sum(): a damaged row must not make it overflow into an error. */
static int count_stored(struct cache_conn *n, struct cache_stats *out)
{
    static const char sql[] =
        "SELECT count(*), cast(total(length(blob)) AS INTEGER), cast(total(raw_size) AS INTEGER), "
        "(SELECT count(*) FROM image), (SELECT cast(total(hits) AS INTEGER) FROM record_use) FROM record";
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(n->db, sql, -1, &s, NULL);
    rc = rc ? rc : sqlite3_step(s);
    if (rc == SQLITE_ROW) {
        out->records = (uint64_t)sqlite3_column_int64(s, 0);
        out->blob_bytes = (uint64_t)sqlite3_column_int64(s, 1);
        out->raw_bytes = (uint64_t)sqlite3_column_int64(s, 2);
        out->images = (uint64_t)sqlite3_column_int64(s, 3);
        out->hits_total = (uint64_t)sqlite3_column_int64(s, 4);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(s);
    return rc;
}

enum cache_code cache_stats(struct cache *c, struct cache_stats *out, struct cache_error *err)
{
    *out = (struct cache_stats){.file_bytes = file_size(c->file.path, "") + file_size(c->file.path, "-wal"),
                                .gets = c->gets,
                                .get_hits = c->get_hits,
                                .get_misses = c->get_misses,
                                .get_next = c->get_next,
                                .get_ns = c->get_ns};
    for (unsigned i = 0; i < CACHE_REFUSAL_COUNT; i++)
        out->refused[i] = c->refused[i];
    cache_queue_stats(c, out);
    struct cache_conn *n = take_fresh(c);
    int rc = count_stored(n, out);
    enum cache_code code = rc == SQLITE_OK ? CACHE_OK : cache_sql_fail(c, n, rc, "counting", err);
    cache_conn_give(n);
    return code;
}
