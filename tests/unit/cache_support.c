/* tests/unit/cache_support.c: see cache_support.h. */
#include "tests/unit/cache_support.h"

#include "cache/cache_internal.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- folder ---- */

static char folder[PATH_MAX - 64], path[PATH_MAX];

const char *cs_folder(void)
{
    return folder;
}

const char *cs_path(void)
{
    return path;
}

void cs_setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/verso-cache-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/test.cache", folder);
}

void cs_teardown(void)
{
    cache_set_vfs(NULL);
    chmod(folder, 0700);
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char name[PATH_MAX + 256];
        snprintf(name, sizeof name, "%s/%s", folder, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            remove(name);
    }
    if (d)
        closedir(d);
    rmdir(folder);
}

/* ---- records ---- */

static uint32_t step(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    return *x;
}

/* Like code: few byte values often, so that LZ4 has something to do. */
static void fill(uint8_t *p, size_t n, uint32_t seed)
{
    static const uint8_t common[8] = {0x8B, 0x00, 0x89, 0xE8, 0xFF, 0x45, 0x24, 0x0F};
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t r = step(&x);
        p[i] = r & 0x300 ? common[r & 7] : (uint8_t)(r >> 16);
    }
}

void cs_make(struct cs_record *s, uint32_t n, uint32_t variant)
{
    fill(s->recto, sizeof s->recto, n);
    memcpy(s->recto, &n, 4);
    fill(s->attr, sizeof s->attr, n + 1000003 * (variant + 1));
    fill(s->verso, sizeof s->verso, n + 2000003 * (variant + 1));
    s->key = (struct cache_key){.mode = n & 7, .fingerprint = 0x1122334455667788};
    cache_hash_page(s->recto, &s->key.hash_lo, &s->key.hash_hi);
    s->r = (struct cache_record){.recto = s->recto,
                                 .attr = s->attr,
                                 .verso = s->verso,
                                 .verso_len = 5000 + (n * 37 + variant * 501) % 8000,
                                 .insn_count = n + variant,
                                 .sensitive_count = n % 10,
                                 .plain = n * 11 % 3000};
}

struct cache *cs_open(unsigned flags)
{
    struct cache_error err = {0};
    struct cache *c = cache_open(path, flags, &err);
    ck_assert_msg(c != NULL, "open: %s", err.text);
    return c;
}

void cs_close(struct cache *c)
{
    struct cache_error err = {0};
    ck_assert_msg(cache_close(c, &err) == CACHE_OK, "close: %s", err.text);
}

void cs_put(struct cache *c, uint32_t n, uint32_t variant)
{
    struct cs_record s;
    struct cache_error err = {0};
    bool added;
    cs_make(&s, n, variant);
    ck_assert_msg(cache_put(c, &s.key, &s.r, &added, &err) == CACHE_OK, "put: %s", err.text);
}

static bool equals(const struct cache_record *a, const struct cache_record *b)
{
    return a->verso_len == b->verso_len && a->insn_count == b->insn_count &&
           a->sensitive_count == b->sensitive_count && memcmp(a->recto, b->recto, 4096) == 0 &&
           memcmp(a->attr, b->attr, 4096) == 0 && memcmp(a->verso, b->verso, a->verso_len) == 0;
}

enum cache_code cs_get(struct cache *c, uint32_t n, int variant, enum cache_refusal *why)
{
    struct cs_record s;
    struct cache_buf buf = {0};
    struct cache_record out;
    enum cache_refusal ignored;
    bool good = false;
    cs_make(&s, n, variant < 0 ? 0 : (uint32_t)variant);
    enum cache_code code = cache_get(c, &s.key, s.recto, &buf, &out, why ? why : &ignored);
    if (code == CACHE_OK) {
        for (uint32_t v = 0; v < 4 && !good; v++) {
            if (variant >= 0 && v != (uint32_t)variant)
                continue;
            cs_make(&s, n, v);
            good = equals(&out, &s.r);
        }
        ck_assert_msg(good, "record %u was handed out with wrong bytes", n);
    }
    cache_buf_free(&buf);
    return code;
}

/* ---- the file from outside ---- */

void cs_sql(const char *sql, const void *blob, int len)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    ck_assert_msg(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
    if (blob)
        sqlite3_bind_blob(s, 1, blob, len, SQLITE_STATIC);
    int rc = sqlite3_step(s);
    ck_assert_msg(rc == SQLITE_DONE || rc == SQLITE_ROW, "%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_finalize(s);
    sqlite3_close(db);
}

int64_t cs_sql_int(const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *s;
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    ck_assert_msg(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
    ck_assert_int_eq(sqlite3_step(s), SQLITE_ROW);
    int64_t v = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return v;
}

uint8_t *cs_read_file(const char *name, size_t *len)
{
    FILE *f = fopen(name, "rb");
    ck_assert_msg(f != NULL, "cannot read %s", name);
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(*len + 1);
    ck_assert_uint_eq(fread(p, 1, *len, f), *len);
    fclose(f);
    return p;
}

void cs_write_file(const char *name, const void *data, size_t len)
{
    FILE *f = fopen(name, "wb");
    ck_assert_msg(f != NULL, "cannot write %s", name);
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
    chmod(name, 0600);
}

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
    for (const uint8_t *p = data; n; n--)
        h = (h ^ *p++) * 0x100000001B3u;
    return h;
}

uint64_t cs_folder_digest(void)
{
    uint64_t sum = 0;
    DIR *d = opendir(folder);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) {
        char name[PATH_MAX + 256];
        struct stat st;
        snprintf(name, sizeof name, "%s/%s", folder, e->d_name);
        uint64_t h = mix(0xCBF29CE484222325u, e->d_name, strlen(e->d_name));
        if (lstat(name, &st) == 0 && S_ISREG(st.st_mode)) {
            size_t len;
            uint8_t *p = cs_read_file(name, &len);
            h = mix(h, p, len);
            free(p);
        }
        sum += h; /* the order of names does not matter */
    }
    closedir(d);
    return sum;
}

/* ---- faults ---- */

struct cs_fault cs_fault;

struct fault_file {
    sqlite3_file base;
    sqlite3_file *real; /* directly behind */
};

static int fault(int op)
{
    if (!(cs_fault.ops & op) || cs_fault.countdown == 0)
        return SQLITE_OK;
    if (cs_fault.countdown > 1) {
        cs_fault.countdown--;
        return SQLITE_OK;
    }
    if (!cs_fault.persist)
        cs_fault.countdown = 0;
    cs_fault.failed++;
    return cs_fault.rc;
}

#define REAL(f)         (((struct fault_file *)(f))->real)
#define CALL(f, m, ...) REAL(f)->pMethods->m(REAL(f), ##__VA_ARGS__)

static int f_close(sqlite3_file *f)
{
    return REAL(f)->pMethods ? CALL(f, xClose) : SQLITE_OK;
}
static int f_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    int rc = fault(CS_READ);
    return rc ? rc : CALL(f, xRead, p, n, at);
}
static int f_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    int rc = fault(CS_WRITE);
    return rc ? rc : CALL(f, xWrite, p, n, at);
}
static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    int rc = fault(CS_TRUNCATE);
    return rc ? rc : CALL(f, xTruncate, size);
}
static int f_sync(sqlite3_file *f, int flags)
{
    int rc = fault(CS_SYNC);
    return rc ? rc : CALL(f, xSync, flags);
}
static int f_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return CALL(f, xFileSize, size);
}
static int f_lock(sqlite3_file *f, int how)
{
    return CALL(f, xLock, how);
}
static int f_unlock(sqlite3_file *f, int how)
{
    return CALL(f, xUnlock, how);
}
static int f_reserved(sqlite3_file *f, int *out)
{
    return CALL(f, xCheckReservedLock, out);
}
static int f_control(sqlite3_file *f, int op, void *arg)
{
    return CALL(f, xFileControl, op, arg);
}
static int f_sector(sqlite3_file *f)
{
    return CALL(f, xSectorSize);
}
static int f_device(sqlite3_file *f)
{
    return CALL(f, xDeviceCharacteristics);
}
static int f_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **out)
{
    int rc = fault(CS_SHM);
    return rc ? rc : CALL(f, xShmMap, region, size, extend, out);
}
static int f_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return CALL(f, xShmLock, at, n, flags);
}
static void f_shm_barrier(sqlite3_file *f)
{
    CALL(f, xShmBarrier);
}
static int f_shm_unmap(sqlite3_file *f, int del)
{
    return CALL(f, xShmUnmap, del);
}
/* No mapping: every read is to come through f_read(). */
static int f_fetch(sqlite3_file *f, sqlite3_int64 at, int n, void **out)
{
    (void)f, (void)at, (void)n;
    *out = NULL;
    return SQLITE_OK;
}
static int f_unfetch(sqlite3_file *f, sqlite3_int64 at, void *p)
{
    (void)f, (void)at, (void)p;
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    3,          f_close,       f_read,      f_write,   f_truncate, f_sync,   f_size,
    f_lock,     f_unlock,      f_reserved,  f_control, f_sector,   f_device, f_shm_map,
    f_shm_lock, f_shm_barrier, f_shm_unmap, f_fetch,   f_unfetch,
};

static sqlite3_vfs *under;

static int v_open(sqlite3_vfs *v, sqlite3_filename name, sqlite3_file *f, int flags, int *out)
{
    (void)v;
    struct fault_file *ff = (struct fault_file *)f;
    ff->real = (sqlite3_file *)(ff + 1);
    memset(ff->real, 0, (size_t)under->szOsFile);
    int rc = fault(CS_OPEN);
    if (rc == SQLITE_OK)
        rc = under->xOpen(under, name, ff->real, flags, out);
    ff->base.pMethods = rc == SQLITE_OK ? &methods : NULL;
    return rc;
}

void cs_fault_register(void)
{
    static sqlite3_vfs shim;
    sqlite3_initialize();
    if (!under) {
        under = sqlite3_vfs_find(NULL);
        shim = *under;
        shim.pNext = NULL;
        shim.zName = "cs_fault";
        shim.szOsFile = (int)sizeof(struct fault_file) + under->szOsFile;
        shim.xOpen = v_open;
        sqlite3_vfs_register(&shim, 0);
    }
    cache_set_vfs("cs_fault");
}

void cs_fault_set(int ops, int countdown, bool persist, int rc)
{
    cs_fault = (struct cs_fault){.ops = ops, .countdown = countdown, .persist = persist, .rc = rc};
}

void cs_fault_clear(void)
{
    cs_fault = (struct cs_fault){0};
}

int cs_main(Suite *s)
{
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_FORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
