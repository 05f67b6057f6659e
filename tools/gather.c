/* tools/gather.c: guest image -> distinct executable pages with their entries.
 *
 * Everything is gathered before anything is translated: a page that several images share gets the union of
 * their entries, and the result does not depend on the number of workers.
 */
#include "tools/gather.h"
#include "tools/tools.h"
#include "translator/xlat.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { GATHER_BUCKETS = 1 << 15 };

/* Makes room for one more element; false when out of memory. */
static bool grow(void *array, size_t *cap, size_t count, size_t size)
{
    void **p = array;
    if (count < *cap)
        return true;
    size_t n = *cap ? *cap * 2 : 256;
    if (n > SIZE_MAX / size)
        return false;
    void *q = realloc(*p, n * size);
    if (!q)
        return false;
    *p = q;
    *cap = n;
    return true;
}

bool gather_init(struct gather *g, uint64_t fingerprint)
{
    memset(g, 0, sizeof(*g));
    g->fingerprint = fingerprint;
    g->bucket = malloc(GATHER_BUCKETS * sizeof(*g->bucket));
    if (g->bucket)
        memset(g->bucket, 0xFF, GATHER_BUCKETS * sizeof(*g->bucket));
    return g->bucket != NULL;
}

void gather_free(struct gather *g)
{
    for (size_t i = 0; i < g->page_count; i++) {
        free(g->page[i].recto);
        free(g->page[i].entries);
    }
    free(g->page);
    free(g->use);
    free(g->image);
    free(g->bucket);
    free(g->known);
    memset(g, 0, sizeof(*g));
}

/* -- Images known already -----------------------------------------------------------------------------------
 */

struct complete_check {
    uint64_t fingerprint, rows;
    bool foreign;
};

static int check_row(void *arg, const struct cache_row *row)
{
    struct complete_check *k = arg;
    k->rows++;
    k->foreign = k->foreign || row->key.fingerprint != k->fingerprint;
    return k->foreign;
}

bool gather_known(struct gather *g, struct cache *c, struct cache_error *err)
{
    size_t n, kept = 0;
    struct cache_image *all = tools_images(c, &n, err);
    if (!all)
        return false;
    for (size_t i = 0; i < n; i++) {
        struct complete_check k = {.fingerprint = g->fingerprint};
        if (cache_each(c, all[i].id, check_row, &k, err) != CACHE_OK) {
            free(all);
            return false;
        }
        if (!k.foreign && k.rows == all[i].pages)
            all[kept++] = all[i];
    }
    g->known = all;
    g->known_count = kept;
    return true;
}

static const struct cache_image *find_known(const struct gather *g, const struct cache_image *img)
{
    for (size_t i = 0; i < g->known_count; i++) {
        const struct cache_image *k = &g->known[i];
        if (k->digest_lo == img->digest_lo && k->digest_hi == img->digest_hi && !strcmp(k->name, img->name))
            return k;
    }
    return NULL;
}

/* -- Cutting into pages
 * --------------------------------------------------------------------------------------- */

static int32_t find_page(const struct gather *g, const struct cache_key *k, const uint8_t *recto)
{
    for (int32_t i = g->bucket[k->hash_lo % GATHER_BUCKETS]; i >= 0; i = g->page[i].next) {
        const struct gather_page *p = &g->page[i];
        if (p->key.hash_lo == k->hash_lo && p->key.hash_hi == k->hash_hi && p->key.mode == k->mode &&
            !memcmp(p->recto, recto, SCAN_PAGE_SIZE))
            return i;
    }
    return -1;
}

static int32_t add_page(struct gather *g, const uint8_t *recto, uint32_t mode)
{
    struct cache_key k = {.mode = mode, .fingerprint = g->fingerprint};
    cache_hash_page(recto, &k.hash_lo, &k.hash_hi);
    int32_t i = find_page(g, &k, recto);
    if (i >= 0)
        return i;
    if (g->page_count >= INT32_MAX || !grow(&g->page, &g->page_cap, g->page_count, sizeof(*g->page)))
        return -1;
    uint8_t *copy = malloc(SCAN_PAGE_SIZE);
    if (!copy)
        return -1;
    memcpy(copy, recto, SCAN_PAGE_SIZE);
    int32_t *head = &g->bucket[k.hash_lo % GATHER_BUCKETS];
    g->page[g->page_count] = (struct gather_page){.key = k, .recto = copy, .next = *head};
    *head = (int32_t)g->page_count;
    return (int32_t)g->page_count++;
}

/* Adds the entries [from, to) of one page; the arrays of a file are sorted, so a page's are neighbours. */
static bool add_entries(struct gather_page *p, const uint32_t *from, const uint32_t *to, uint32_t base)
{
    size_t n = (size_t)(to - from);
    if (p->entry_count + n > p->entry_cap) {
        size_t cap = p->entry_count + n;
        uint16_t *e = realloc(p->entries, cap * sizeof(*e));
        if (!e)
            return false;
        p->entries = e;
        p->entry_cap = (uint32_t)cap;
    }
    for (; from < to; from++)
        p->entries[p->entry_count++] = (uint16_t)(*from - base);
    return true;
}

static bool cut(void *arg, const struct image_file *file, const struct image_exec *x)
{
    struct gather *g = arg;
    struct cache_image *img = &g->image[g->cur_index].img;
    /* The file's own kind comes first; what is embedded in it (a vDSO in a kernel) has another. */
    if (!img->kind[0] || !strcmp(img->kind, "vdso"))
        snprintf(img->kind, sizeof(img->kind), "%s", file->kind);
    img->exec_bytes += x->code_end - x->code_start;
    uint32_t mode = file->user ? XLAT_MODE_USER : 0;
    const uint32_t *e = x->entries, *end = e + x->entry_count;
    for (size_t off = 0; off + SCAN_PAGE_SIZE <= x->len; off += SCAN_PAGE_SIZE) {
        uint32_t base = x->vaddr + (uint32_t)off;
        while (e < end && *e < base)
            e++;
        const uint32_t *first = e;
        while (e < end && *e - base < SCAN_PAGE_SIZE)
            e++;
        int32_t i = add_page(g, x->bytes + off, mode);
        if (i < 0 || !add_entries(&g->page[i], first, e, base) ||
            !grow(&g->use, &g->use_cap, g->use_count, sizeof(*g->use))) {
            g->no_memory = true;
            return false;
        }
        g->use[g->use_count++] = (struct gather_use){(uint32_t)i, g->cur_index, base};
    }
    return true;
}

/* Starts an image; false if the cache knows it completely (nothing to do) or memory is out (g->no_memory). */
static bool begin_image(struct gather *g, const char *name, const uint8_t *data, size_t len)
{
    if (!grow(&g->image, &g->image_cap, g->image_count, sizeof(*g->image))) {
        g->no_memory = true;
        return false;
    }
    struct gather_image *gi = &g->image[g->image_count];
    memset(gi, 0, sizeof(*gi));
    XXH128_hash_t h = XXH3_128bits(data, len);
    gi->img.digest_lo = h.low64;
    gi->img.digest_hi = h.high64;
    snprintf(gi->img.name, sizeof(gi->img.name), "%.*s", (int)sizeof(gi->img.name) - 1, name);
    memcpy(gi->img.origin, g->origin, sizeof(gi->img.origin));
    g->cur_index = (uint32_t)g->image_count++;
    const struct cache_image *k = find_known(g, &gi->img);
    if (!k)
        return true;
    gi->img = *k;
    gi->known = true;
    g->exec_bytes += k->exec_bytes;
    return false;
}

static void end_image(struct gather *g)
{
    g->exec_bytes += g->image[g->cur_index].img.exec_bytes;
}

static bool is_elf(const uint8_t *data, size_t len)
{
    return len >= 52 && !memcmp(data, "\177ELF", 4);
}

/* A kernel or an ELF program, by what it is. */
static bool gather_kernel(struct gather *g, const char *name, const uint8_t *data, size_t len,
                          struct image_error *err)
{
    if (!begin_image(g, name, data, len))
        return !g->no_memory;
    struct image_kernel k = {0};
    bool parsed = image_kernel_parse(data, len, name, &k, err), ok;
    bool kernel = parsed && (k.is_bzimage || k.is_multiboot || !is_elf(data, len));
    for (unsigned i = 0; parsed && i < k.seg_count; i++) /* a vmlinux is linked high and loaded low */
        kernel = kernel || k.seg[i].vaddr != k.seg[i].paddr;
    if (kernel)
        ok = image_kernel_exec(&k, name, cut, g, err);
    else
        ok = is_elf(data, len) && image_elf_exec(data, len, name, cut, g, err);
    if (parsed)
        image_kernel_free(&k);
    end_image(g);
    return ok && !g->no_memory;
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

/* Notes a member that is an ELF file but cannot be cut up; the rest of the initrd is still worth having. */
static void note_damaged(struct gather *g, const struct image_error *err)
{
    g->damaged++;
    if (g->notes)
        fprintf(g->notes, "verso: left out: %s\n", err->text);
}

static bool member(void *arg, const char *name, const uint8_t *data, size_t len)
{
    struct gather *g = arg;
    struct image_blob plain = {0};
    struct image_error err = {0};
    if (has_suffix(name, ".ko.xz") || has_suffix(name, ".ko.gz") || has_suffix(name, ".ko.zst")) {
        if (!image_decompress(data, len, &plain, NULL, &err)) {
            note_damaged(g, &err);
            return true;
        }
        data = plain.data;
        len = plain.len;
    }
    /* e_machine EM_386 in a 32-bit little-endian file; others are no code of this machine */
    if (is_elf(data, len) && data[4] == 1 && data[5] == 1 && data[18] == 3 && data[19] == 0) {
        if (begin_image(g, name, data, len)) {
            if (!image_elf_exec(data, len, name, cut, g, &err) && !g->no_memory)
                note_damaged(g, &err);
            end_image(g);
        }
    }
    image_blob_free(&plain);
    return !g->no_memory;
}

static bool failed(const struct image_error *err, int *status)
{
    fprintf(stderr, "verso: %s\n", err->text);
    *status = (int)status_of_image(err->code);
    return false;
}

/* True the first time a path is seen. */
static bool first_time(char (*seen)[512], unsigned *count, unsigned max, const char *path)
{
    for (unsigned i = 0; i < *count; i++)
        if (!strcmp(seen[i], path))
            return false;
    if (*count < max)
        snprintf(seen[(*count)++], sizeof(seen[0]), "%s", path);
    return true;
}

static bool iso_kernel(struct gather *g, const char *iso, const char *path, struct image_error *err)
{
    struct image_blob b = {0};
    bool ok = image_iso_read(iso, path, &b, err) && gather_kernel(g, path, b.data, b.len, err);
    image_blob_free(&b);
    return ok;
}

static bool iso_initrd(struct gather *g, const char *iso, const char *path, struct image_error *err)
{
    struct image_blob b = {0};
    bool ok = image_iso_read(iso, path, &b, err);
    if (ok && !image_initrd_each(b.data, b.len, member, g, err)) {
        /* What came before the damage has been delivered and is kept. */
        if (!g->no_memory)
            note_damaged(g, err);
    }
    image_blob_free(&b);
    return ok && !g->no_memory;
}

enum { MAX_PATHS = 64 };

static bool gather_iso(struct gather *g, const char *iso, const char *label, struct image_error *err,
                       int *status)
{
    struct image_boot boot = {0};
    if (!image_iso_boot(iso, &boot, err))
        return failed(err, status);
    bool all = !label || !strcmp(label, "all"), found = false, ok = true;
    char(*seen)[512] = calloc(MAX_PATHS, sizeof(*seen));
    unsigned seen_count = 0;
    for (size_t i = 0; ok && seen && i < boot.count; i++) {
        const struct image_boot_entry *e = &boot.entry[i];
        if (!all && tools_boot_entry(&boot, label) != e)
            continue;
        found = true;
        if (first_time(seen, &seen_count, MAX_PATHS, e->kernel))
            ok = iso_kernel(g, iso, e->kernel, err);
        char path[512];
        for (const char *p = e->initrd; ok && (p = tools_next_path(p, path, sizeof(path)));)
            if (first_time(seen, &seen_count, MAX_PATHS, path))
                ok = iso_initrd(g, iso, path, err);
    }
    if (!seen)
        g->no_memory = true;
    free(seen);
    image_boot_free(&boot);
    if (ok && !found && !g->no_memory) {
        fprintf(stderr, "verso: %s has no boot entry \"%s\"\n", iso, label ? label : "");
        *status = all ? STATUS_IMAGE_NO_KERNEL : STATUS_NOT_FOUND;
        return false;
    }
    return ok || g->no_memory ? ok : failed(err, status);
}

bool gather_path(struct gather *g, const char *path, const char *label, int *status)
{
    struct image_error err = {0};
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    snprintf(g->origin, sizeof(g->origin), "%.*s", (int)sizeof(g->origin) - 1, base);
    bool ok;
    if (image_is_iso(path)) {
        ok = gather_iso(g, path, label, &err, status);
    } else {
        struct image_blob b = {0};
        g->origin[0] = 0;
        ok = image_read_file(path, &b, &err) && gather_kernel(g, base, b.data, b.len, &err);
        image_blob_free(&b);
        if (!ok && !g->no_memory)
            failed(&err, status);
    }
    if (g->no_memory) {
        fprintf(stderr, "verso: out of memory while reading %s\n", path);
        *status = STATUS_IMAGE_MEMORY;
        return false;
    }
    return ok;
}

bool gather_initrd(struct gather *g, const char *path, int *status)
{
    struct image_error err = {0};
    struct image_blob b = {0};
    const char *base = strrchr(path, '/');
    snprintf(g->origin, sizeof(g->origin), "%.*s", (int)sizeof(g->origin) - 1, base ? base + 1 : path);
    bool ok = image_read_file(path, &b, &err);
    size_t before = g->image_count;
    if (ok && !image_initrd_each(b.data, b.len, member, g, &err)) {
        ok = g->image_count > before && !g->no_memory; /* damage at the end: keep what is there */
        if (ok)
            note_damaged(g, &err);
    }
    image_blob_free(&b);
    return ok || failed(&err, status);
}
