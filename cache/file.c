/* cache/file.c: which files are touched at all.
 *
 * A cache file holds host code that will be run, so whoever can write it owns this process: owner and mode of
 * the file, of SQLite's files beside it and of the folder are checked (I2). And a path given by mistake may
 * name anything: what is not a cache is found out by reading 100 bytes, before SQLite may write to it (I1).
 */
#include "cache/cache_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static _Atomic(const char *) vfs_name;

void cache_set_vfs(const char *name)
{
    vfs_name = name;
}

const char *cache_vfs(void)
{
    return vfs_name;
}

enum cache_code cache_fail(struct cache_error *err, enum cache_code code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    err->code = code;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return code;
}

/* ---- I2: owner and mode ---- */

static bool others_write(const struct stat *st)
{
    return (st->st_mode & 022) != 0;
}

static enum cache_code check_folder(const char *folder, struct cache_error *err)
{
    struct stat st;
    if (stat(folder, &st) != 0)
        return cache_fail(err, CACHE_ERR_OPEN, "folder %.200s of the cache file cannot be examined: %s",
                          folder, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return cache_fail(err, CACHE_ERR_OPEN, "%.200s is not a folder, so no cache file can be in it",
                          folder);
    /* The folder's owner can put another file in place of ours at any time, sticky or not. */
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return cache_fail(err, CACHE_ERR_TRUST,
                          "folder %.200s belongs to user %u, who could replace the cache file in it; "
                          "put the cache into a folder of your own",
                          folder, (unsigned)st.st_uid);
    /* A group of the user's own (user private groups, umask 002) is not "others". */
    bool group = (st.st_mode & 020) && st.st_gid != getegid() && st.st_gid != 0;
    if (!(st.st_mode & S_ISVTX) && ((st.st_mode & 002) || group))
        return cache_fail(
            err, CACHE_ERR_TRUST,
            "folder %.200s can be written by other users, who could replace the cache file in it; "
            "use another folder or chmod go-w it",
            folder);
    return CACHE_OK;
}

static enum cache_code check_stat(const char *path, const struct stat *st, struct cache_error *err)
{
    if (S_ISLNK(st->st_mode))
        return cache_fail(err, CACHE_ERR_TRUST,
                          "cache file %.200s is a symbolic link; give the path of the file itself", path);
    if (!S_ISREG(st->st_mode))
        return cache_fail(err, CACHE_ERR_NOT_CACHE,
                          "%.200s is not a regular file; give another path for the cache", path);
    if (st->st_uid != geteuid())
        return cache_fail(
            err, CACHE_ERR_TRUST,
            "cache file %.200s belongs to user %u, not to you (user %u); it holds code that would be run: "
            "make a cache of your own",
            path, (unsigned)st->st_uid, (unsigned)geteuid());
    if (others_write(st))
        return cache_fail(
            err, CACHE_ERR_TRUST,
            "cache file %.200s (mode %03o) can be written by other users; it holds code that would be run: "
            "delete it, or chmod go-w it if you trust its contents",
            path, (unsigned)(st->st_mode & 0777));
    return CACHE_OK;
}

/* SQLite's log and index of it are as dangerous as the file. */
static enum cache_code check_companions(const char *path, struct cache_error *err)
{
    static const char *const suffix[] = {"-wal", "-shm", "-journal"};
    for (unsigned i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        char name[PATH_MAX];
        struct stat st;
        int len = snprintf(name, sizeof name, "%s%s", path, suffix[i]);
        if (len < 0 || (size_t)len >= sizeof name)
            return cache_fail(err, CACHE_ERR_OPEN, "path %.200s... of the cache file is too long", path);
        if (lstat(name, &st) != 0)
            continue;
        enum cache_code code = check_stat(name, &st, err);
        if (code != CACHE_OK)
            return code == CACHE_ERR_NOT_CACHE ? CACHE_ERR_TRUST : code;
    }
    return CACHE_OK;
}

enum cache_code cache_file_recheck(const struct cache_file *f, struct cache_error *err)
{
    struct stat st;
    if (lstat(f->path, &st) != 0 || st.st_dev != f->dev || st.st_ino != f->ino)
        return cache_fail(err, CACHE_ERR_TRUST,
                          "cache file %.200s was replaced while it was opened; try again", f->path);
    enum cache_code code = check_stat(f->path, &st, err);
    return code == CACHE_OK ? check_companions(f->path, err) : code;
}

/* ---- I1: is it a cache? ---- */

static uint32_t big32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Reads through SQLite's VFS: to close a descriptor of our own would drop the POSIX locks that another handle
 * of this process has on the same file (fcntl(2)), and with them the protection of its log. */
static int read_head(const char *path, uint8_t head[100])
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(cache_vfs());
    if (!vfs)
        return SQLITE_CANTOPEN;
    sqlite3_file *file = sqlite3_malloc(vfs->szOsFile);
    sqlite3_filename name = sqlite3_create_filename(path, "", "", 0, NULL);
    int rc = SQLITE_NOMEM;
    if (file && name) {
        memset(file, 0, (size_t)vfs->szOsFile);
        rc = vfs->xOpen(vfs, name, file, SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB, NULL);
        if (rc == SQLITE_OK)
            rc = file->pMethods->xRead(file, head, 100, 0);
        if (file->pMethods)
            file->pMethods->xClose(file);
    }
    sqlite3_free_filename(name);
    sqlite3_free(file);
    return rc;
}

static enum cache_code not_cache(const char *path, const char *why, struct cache_error *err)
{
    return cache_fail(err, CACHE_ERR_NOT_CACHE,
                      "%.200s is not a cache file (%s); nothing was changed, give another path for the cache",
                      path, why);
}

static enum cache_code check_head(const char *path, uint64_t size, struct cache_error *err)
{
    uint8_t head[100];
    if (size < sizeof head)
        return not_cache(path, "too short", err);
    int rc = read_head(path, head);
    if ((rc & 0xff) == SQLITE_CANTOPEN)
        return cache_fail(err, CACHE_ERR_OPEN, "cache file %.200s cannot be read; check its permissions",
                          path);
    if (rc != SQLITE_OK)
        return cache_fail(err, CACHE_ERR_IO, "reading the head of cache file %.200s failed: %s", path,
                          sqlite3_errstr(rc));
    if (memcmp(head, "SQLite format 3", 16) != 0)
        return not_cache(path, "it has no database header", err);
    if (big32(head + 68) != CACHE_APPLICATION_ID)
        return not_cache(path, "it is a database of another program", err);
    uint32_t page = (uint32_t)head[16] << 8 | head[17];
    if (size < (page == 1 ? 65536 : page))
        return not_cache(path, "it is cut short", err);
    uint32_t version = big32(head + 60);
    if (version != CACHE_FORMAT_VERSION)
        return cache_fail(err, CACHE_ERR_VERSION,
                          "cache file %.200s has format version %u, this program knows %u; "
                          "delete it or give another path",
                          path, version, CACHE_FORMAT_VERSION);
    return CACHE_OK;
}

/* ---- admission ---- */

/* Folder resolved, last component as given: links in the way are the caller's business once the real folder
 * passed, a link as the last component is not followed. */
static enum cache_code resolve(const char *path, struct cache_file *f, struct cache_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    if (!*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
        return cache_fail(err, CACHE_ERR_OPEN, "'%.200s' does not name a cache file", path);
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    char *real = folder ? realpath(folder, NULL) : NULL;
    int error = errno;
    free(folder);
    if (!real)
        return cache_fail(err, error == ENOMEM ? CACHE_ERR_MEMORY : CACHE_ERR_OPEN,
                          "folder of cache file %.200s cannot be reached: %s; create it first", path,
                          strerror(error));
    enum cache_code code = check_folder(real, err);
    if (code == CACHE_OK && asprintf(&f->path, "%s/%s", strcmp(real, "/") ? real : "", base) < 0) {
        f->path = NULL;
        code = cache_fail(err, CACHE_ERR_MEMORY, "no memory to open cache file %.200s", path);
    }
    if (code == CACHE_OK && strlen(f->path) + 16 > PATH_MAX)
        code = cache_fail(err, CACHE_ERR_OPEN, "path %.200s... of the cache file is too long", path);
    free(real);
    return code;
}

/* Mode 0600 whatever the umask. O_EXCL: a file made by somebody else in between is looked at like any other.
 */
static enum cache_code create(struct cache_file *f, struct cache_error *err)
{
    int fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return CACHE_OK;
    if (fd < 0) {
        bool full = errno == ENOSPC || errno == EDQUOT;
        return cache_fail(err, full ? CACHE_ERR_FULL : CACHE_ERR_OPEN,
                          "cache file %.200s cannot be created: %s%s", f->path, strerror(errno),
                          full ? "; free some space"
                          : errno == EACCES || errno == EROFS
                              ? "; use a folder you can write, or run without a cache"
                              : "");
    }
    f->created = true;
    int failed = fchmod(fd, 0600);
    close(fd);
    if (failed)
        return cache_fail(err, CACHE_ERR_OPEN, "mode of the new cache file %.200s cannot be set: %s", f->path,
                          strerror(errno));
    return CACHE_OK;
}

static bool has_log(const char *path)
{
    char name[PATH_MAX];
    struct stat st;
    snprintf(name, sizeof name, "%.*s-wal", (int)(sizeof name - 8), path);
    return lstat(name, &st) == 0 && st.st_size > 0;
}

static bool folder_writable(const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder ? 1 : 0] = 0;
    return faccessat(AT_FDCWD, folder, W_OK, AT_EACCESS) == 0;
}

static enum cache_code admit_resolved(unsigned flags, struct cache_file *f, struct cache_error *err)
{
    bool readonly = flags & CACHE_READONLY;
    struct stat st;
    enum cache_code code = CACHE_OK;
    if (lstat(f->path, &st) != 0) {
        if (errno != ENOENT)
            return cache_fail(err, CACHE_ERR_OPEN, "cache file %.200s cannot be examined: %s", f->path,
                              strerror(errno));
        if (readonly || !(flags & CACHE_CREATE))
            return cache_fail(err, CACHE_ERR_OPEN, "cache file %.200s does not exist; check the path",
                              f->path);
        if ((code = create(f, err)) != CACHE_OK)
            return code;
        if (lstat(f->path, &st) != 0)
            return cache_fail(err, CACHE_ERR_OPEN, "cache file %.200s cannot be examined: %s", f->path,
                              strerror(errno));
    }
    if ((code = check_stat(f->path, &st, err)) != CACHE_OK)
        return code;
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    f->empty = st.st_size == 0;
    if (f->empty && (readonly || !(flags & CACHE_CREATE)))
        return not_cache(f->path, "it is empty", err);
    if (!f->empty && (code = check_head(f->path, (uint64_t)st.st_size, err)) != CACHE_OK)
        return code;
    if ((code = check_companions(f->path, err)) != CACHE_OK)
        return code;
    bool writable = folder_writable(f->path);
    if (!readonly && (!writable || faccessat(AT_FDCWD, f->path, W_OK, AT_EACCESS) != 0))
        return cache_fail(
            err, CACHE_ERR_OPEN,
            "cache file %.200s or its folder cannot be written (%s); open it read-only or use another "
            "folder",
            f->path, strerror(errno));
    f->immutable = readonly && !writable && !has_log(f->path);
    return CACHE_OK;
}

enum cache_code cache_file_admit(const char *path, unsigned flags, struct cache_file *f,
                                 struct cache_error *err)
{
    *f = (struct cache_file){0};
    int rc = sqlite3_initialize();
    if (rc != SQLITE_OK)
        return cache_fail(err, CACHE_ERR_MEMORY, "SQLite does not start: %s", sqlite3_errstr(rc));
    if (!path)
        return cache_fail(err, CACHE_ERR_OPEN, "no path of a cache file given");
    enum cache_code code = resolve(path, f, err);
    return code == CACHE_OK ? admit_resolved(flags, f, err) : code;
}

void cache_file_free(struct cache_file *f)
{
    free(f->path);
    f->path = NULL;
}
