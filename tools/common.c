/* tools/common.c: helpers of the subcommands. */
#include "tools/tools.h"
#include "translator/xlat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Makes every missing folder above path with mode 0700 (the XDG base directory specification asks for that).
 */
static bool make_folders(char *path)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        bool ok = !mkdir(path, 0700) || errno == EEXIST;
        *p = '/';
        if (!ok)
            return false;
    }
    return true;
}

static bool default_path(char *out, size_t size)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;
    if (xdg && xdg[0] == '/')
        n = snprintf(out, size, "%s/verso/cache.db", xdg);
    else if (home && home[0] == '/')
        n = snprintf(out, size, "%s/.cache/verso/cache.db", home);
    else
        return false;
    return n > 0 && (size_t)n < size;
}

struct cache *tools_cache_open(const char *path, unsigned flags, int *status)
{
    char buf[4096];
    if (!path) {
        if (!default_path(buf, sizeof(buf))) {
            fprintf(stderr,
                    "verso: neither XDG_CACHE_HOME nor HOME says where the cache is: use --cache FILE\n");
            *status = STATUS_CACHE_OPEN;
            return NULL;
        }
        if ((flags & CACHE_CREATE) && !make_folders(buf)) {
            fprintf(stderr, "verso: cannot make the folder of %s: %s; use --cache FILE\n", buf,
                    strerror(errno));
            *status = STATUS_CACHE_OPEN;
            return NULL;
        }
        path = buf;
    }
    struct cache_error err = {0};
    struct cache *c = cache_open(path, flags, &err);
    if (!c)
        *status = tools_cache_failed(&err);
    return c;
}

int tools_cache_failed(const struct cache_error *err)
{
    fprintf(stderr, "verso: %s\n", err->text[0] ? err->text : "cache error");
    return status_of_cache(err->code);
}

int tools_cache_close(struct cache *c, int status)
{
    struct cache_error err = {0};
    if (c && cache_close(c, &err) != CACHE_OK) {
        int s = tools_cache_failed(&err);
        return status ? status : s;
    }
    return status;
}

const char *tools_bytes(uint64_t n, char *buf)
{
    if (n < 10240)
        snprintf(buf, 16, "%" PRIu64 " B", n);
    else if (n < 10ull << 20)
        snprintf(buf, 16, "%.1f KiB", (double)n / 1024);
    else
        snprintf(buf, 16, "%.1f MiB", (double)n / (1 << 20));
    return buf;
}

uint64_t tools_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

unsigned tools_cpus(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 256 ? 256 : (unsigned)n;
}

const char *tools_mode_text(uint32_t mode, char *buf)
{
    snprintf(buf, 16, "%s%s%s", mode & XLAT_MODE_USER ? "u" : "s", mode & XLAT_MODE_FPU_TRAP ? "+fpu" : "",
             mode & XLAT_MODE_TSC_TRAP ? "+tsc" : "");
    return buf;
}

const char *tools_key_text(const struct cache_key *k, char *buf)
{
    char mode[16];
    snprintf(buf, TOOLS_KEY_TEXT, "%016" PRIx64 "%016" PRIx64 "/%s", k->hash_hi, k->hash_lo,
             tools_mode_text(k->mode, mode));
    return buf;
}

struct image_list {
    struct cache_image *item;
    size_t count, cap;
    bool failed;
};

static int add_image(void *arg, const struct cache_image *img)
{
    struct image_list *l = arg;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct cache_image *p = realloc(l->item, cap * sizeof(*p));
        if (!p) {
            l->failed = true;
            return 1;
        }
        l->item = p;
        l->cap = cap;
    }
    l->item[l->count++] = *img;
    return 0;
}

struct cache_image *tools_images(struct cache *c, size_t *count, struct cache_error *err)
{
    struct image_list l = {.item = calloc(64, sizeof(*l.item)), .cap = 64};
    *count = 0;
    enum cache_code code = l.item ? cache_image_each(c, add_image, &l, err) : CACHE_ERR_MEMORY;
    if (code == CACHE_OK && !l.failed) {
        *count = l.count;
        return l.item;
    }
    if (code == CACHE_OK || code == CACHE_ERR_MEMORY) {
        err->code = CACHE_ERR_MEMORY;
        snprintf(err->text, sizeof(err->text), "out of memory for the list of images");
    }
    free(l.item);
    return NULL;
}

const struct image_boot_entry *tools_boot_entry(const struct image_boot *b, const char *label)
{
    for (size_t i = 0; label && i < b->count; i++)
        if (!strcasecmp(b->entry[i].label, label) || !strcmp(b->entry[i].title, label))
            return &b->entry[i];
    if (label)
        return NULL;
    for (size_t i = 0; i < b->count; i++)
        if (b->entry[i].is_default)
            return &b->entry[i];
    return b->count ? &b->entry[0] : NULL;
}

const char *tools_next_path(const char *list, char *out, size_t size)
{
    while (*list == ',')
        list++;
    if (!*list)
        return NULL;
    size_t n = strcspn(list, ",");
    snprintf(out, size, "%.*s", (int)(n < size ? n : size - 1), list);
    return list + n;
}
