/* scanner/image/iso.c: ISO 9660 with Rock Ridge or Joliet through libarchive; the El Torito boot record by
 * hand, because libarchive gives no block addresses.
 */
#include "scanner/image/internal.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 2048, FIRST_DESCRIPTOR = 16, MAX_NODES = 1 << 20, MAX_LINKS = 16, PATH_BYTES = 1024 };

/* -- Volume descriptors (ECMA-119, section 8)
 * ----------------------------------------------------------------- */

static bool read_sector(int fd, uint64_t number, uint8_t out[SECTOR])
{
    ssize_t n = pread(fd, out, SECTOR, (off_t)(number * SECTOR));

    return n == SECTOR;
}

static bool is_descriptor(const uint8_t sector[SECTOR])
{
    return memcmp(sector + 1, "CD001", 5) == 0;
}

bool image_is_iso(const char *path)
{
    uint8_t sector[SECTOR];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is = fd >= 0 && read_sector(fd, FIRST_DESCRIPTOR, sector) && is_descriptor(sector);

    if (fd >= 0) {
        close(fd);
    }
    return is;
}

/* El Torito 1.0, section 2: the boot record names the catalog; its first entry validates itself by a sum of
 * zero. */
static bool has_boot_catalog(int fd, const uint8_t record[SECTOR])
{
    uint8_t sector[SECTOR];
    uint32_t where;
    uint16_t sum = 0;

    if (memcmp(record + 7, "EL TORITO SPECIFICATION", 23) != 0) {
        return false;
    }
    memcpy(&where, record + 0x47, sizeof(where));
    if (!read_sector(fd, where, sector) || sector[0] != 1 || sector[30] != 0x55 || sector[31] != 0xAA) {
        return false;
    }
    for (int i = 0; i < 32; i += 2) {
        sum = (uint16_t)(sum + (sector[i] | sector[i + 1] << 8));
    }
    return sum == 0 && sector[32] == 0x88;
}

static bool has_el_torito(const char *path)
{
    uint8_t sector[SECTOR];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool found = false;

    for (uint64_t n = FIRST_DESCRIPTOR; fd >= 0 && n < FIRST_DESCRIPTOR + 64 && !found; n++) {
        if (!read_sector(fd, n, sector) || !is_descriptor(sector) || sector[0] == 255) {
            break;
        }
        found = sector[0] == 0 && has_boot_catalog(fd, sector);
    }
    if (fd >= 0) {
        close(fd);
    }
    return found;
}

/* Tells "cannot be read", "no ISO" and "cut short" apart before libarchive sees the file. */
static bool check_volume(const char *path, struct image_error *err)
{
    uint8_t sector[SECTOR];
    uint32_t blocks;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = false;

    if (fd < 0 || fstat(fd, &st) != 0) {
        image_fail(err, IMAGE_ERR_IO, "%s: %s; give the path of a readable ISO image", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        image_fail(err, IMAGE_ERR_IO, "%s: a directory; give the path of an ISO image", path);
    } else if (!read_sector(fd, FIRST_DESCRIPTOR, sector) || !is_descriptor(sector)) {
        image_fail(
            err, IMAGE_ERR_NOT_ISO,
            "%s: not an ISO 9660 image (no volume descriptor in sector 16); give an ISO image, a kernel or "
            "an ELF file",
            path);
    } else {
        memcpy(&blocks, sector + 80, sizeof(blocks)); /* volume space size */
        /* 150 blocks of padding are sometimes counted but not written. */
        uint64_t need = blocks > 150 ? (uint64_t)(blocks - 150) * SECTOR : 0;
        ok = !S_ISREG(st.st_mode) || (uint64_t)st.st_size >= need;
        if (!ok) {
            image_fail(err, IMAGE_ERR_TRUNCATED,
                       "%s: truncated ISO image: %lld of %llu bytes are there; copy or download it again",
                       path, (long long)st.st_size, (unsigned long long)blocks * SECTOR);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* -- The directory tree
 * --------------------------------------------------------------------------------------- */

struct node {
    char *path; /* no leading slash */
    char *link; /* target of a symbolic link, or of a hard one with a leading slash; else NULL */
    bool regular;
};
struct tree {
    struct node *node; /* malloc */
    size_t count, room;
    bool exact; /* Rock Ridge: names keep their case */
};

static void tree_free(struct tree *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->node[i].path);
        free(t->node[i].link);
    }
    free(t->node);
    *t = (struct tree){0};
}

static const char *bare(const char *path)
{
    while (*path == '/' || (*path == '.' && path[1] == '/')) {
        path++;
    }
    return path;
}

static bool tree_add(struct tree *t, struct archive_entry *entry)
{
    const char *path = archive_entry_pathname(entry), *hard = archive_entry_hardlink(entry);
    const char *soft = archive_entry_symlink(entry);
    struct node n = {0};

    if (path == NULL) {
        return true; /* a name that cannot be shown cannot be named either */
    }
    if (t->count == t->room) {
        size_t room = t->room != 0 ? t->room * 2 : 256;
        struct node *node = room <= MAX_NODES ? realloc(t->node, room * sizeof(*node)) : NULL;
        if (node == NULL) {
            return false;
        }
        t->node = node;
        t->room = room;
    }
    n.path = strdup(bare(path));
    n.regular = archive_entry_filetype(entry) == AE_IFREG;
    if (hard != NULL && asprintf(&n.link, "/%s", bare(hard)) < 0) {
        n.link = NULL;
    } else if (hard == NULL && soft != NULL) {
        n.link = strdup(soft);
    }
    if (n.path == NULL || ((hard != NULL || soft != NULL) && n.link == NULL)) {
        free(n.path);
        free(n.link);
        return false;
    }
    t->node[t->count++] = n;
    return true;
}

static struct archive *iso_open(const char *iso, struct image_error *err)
{
    struct archive *a = archive_read_new();

    if (a == NULL) {
        image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory to read the ISO image", iso);
        return NULL;
    }
    if (archive_read_support_format_iso9660(a) != ARCHIVE_OK ||
        archive_read_open_filename(a, iso, 1 << 16) != ARCHIVE_OK) {
        image_fail(err, IMAGE_ERR_IO, "%s: cannot be read: %s", iso, archive_error_string(a));
        archive_read_free(a);
        return NULL;
    }
    return a;
}

static bool fail_damaged(struct archive *a, const char *iso, struct image_error *err)
{
    const char *text = archive_error_string(a);
    bool cut = text != NULL && (strstr(text, "runcated") != NULL || strstr(text, "nd of file") != NULL);

    return image_fail(err, cut ? IMAGE_ERR_TRUNCATED : IMAGE_ERR_FORMAT,
                      "%s: %s ISO image (%.200s); copy or download it again", iso,
                      cut ? "truncated" : "damaged", text != NULL ? text : "no reason given");
}

static bool tree_load(const char *iso, struct tree *t, struct image_error *err)
{
    struct archive_entry *entry;
    struct archive *a;
    int result;
    bool ok = true;

    *t = (struct tree){0};
    if (!check_volume(iso, err) || (a = iso_open(iso, err)) == NULL) {
        return false;
    }
    while (ok && (result = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
        if (result < ARCHIVE_WARN) {
            ok = fail_damaged(a, iso, err);
        } else if (!tree_add(t, entry)) {
            ok = image_fail(err, IMAGE_ERR_MEMORY, "%s: more files than can be held in memory", iso);
        }
    }
    const char *format = archive_format_name(a);
    t->exact = format != NULL && strstr(format, "Rockridge") != NULL;
    archive_read_free(a);
    if (!ok) {
        tree_free(t);
    }
    return ok;
}

static const struct node *tree_find(const struct tree *t, const char *path)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->node[i].path, path) == 0) {
            return &t->node[i];
        }
    }
    for (size_t i = 0; i < t->count && !t->exact; i++) {
        if (strcasecmp(t->node[i].path, path) == 0) {
            return &t->node[i];
        }
    }
    return NULL;
}

/* Replaces the link at `here` (a prefix of the path) by its target: new path = directory of here, target,
 * rest. */
static bool follow(char path[PATH_BYTES], const char *here, const char *target, const char *rest)
{
    char joined[PATH_BYTES];
    const char *slash = strrchr(here, '/');
    int dir = target[0] == '/' || slash == NULL ? 0 : (int)(slash - here);
    int n = snprintf(joined, sizeof(joined), "%.*s/%s/%s", dir, here, target, rest);

    if (n < 0 || n >= (int)sizeof(joined)) {
        return false;
    }
    memcpy(path, joined, sizeof(joined));
    return true;
}

/* Appends one component to `here`; false if it does not fit. */
static bool descend(char here[PATH_BYTES], const char *part, size_t len)
{
    size_t have = strlen(here);

    if (len == 2 && part[0] == '.' && part[1] == '.') {
        char *slash = strrchr(here, '/');
        *(slash != NULL ? slash : here) = '\0';
        return true;
    }
    if (len == 0 || (len == 1 && part[0] == '.')) {
        return true;
    }
    if (have + len + 2 > PATH_BYTES) {
        return false;
    }
    if (have != 0) {
        here[have++] = '/';
    }
    memcpy(here + have, part, len);
    here[have + len] = '\0';
    return true;
}

/* The regular file that a path names, symbolic links followed in every component; NULL if there is none. */
static const struct node *tree_resolve(const struct tree *t, const char *name)
{
    char path[PATH_BYTES], here[PATH_BYTES] = "";
    const struct node *node = NULL;
    unsigned links = 0;
    const char *p = path;

    if (snprintf(path, sizeof(path), "%s", name) >= (int)sizeof(path)) {
        return NULL;
    }
    while (*p != '\0') {
        size_t len = strcspn(p, "/");
        const char *rest = p + len + (p[len] == '/');
        if (!descend(here, p, len)) {
            return NULL;
        }
        node = tree_find(t, here);
        if (node != NULL && node->link != NULL) {
            if (++links > MAX_LINKS || !follow(path, here, node->link, rest)) {
                return NULL;
            }
            here[0] = '\0';
            node = NULL;
            p = path;
            continue;
        }
        p = rest;
    }
    return node != NULL && node->regular ? node : NULL;
}

/* -- Files
 * ---------------------------------------------------------------------------------------------------- */

static bool read_data(struct archive *a, struct archive_entry *entry, const char *iso, const char *name,
                      struct image_blob *out, struct image_error *err)
{
    la_int64_t size = archive_entry_size(entry), n = 0;

    if (size < 0 || (uint64_t)size > IMAGE_MAX_BYTES) {
        return image_fail(err, IMAGE_ERR_FORMAT, "%s: %s is larger than 1 GiB", iso, name);
    }
    out->data = malloc((size_t)size + 1);
    if (out->data == NULL) {
        return image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory for %s (%lld bytes)", iso, name,
                          (long long)size);
    }
    while (out->len < (size_t)size &&
           (n = archive_read_data(a, out->data + out->len, (size_t)size - out->len)) > 0) {
        out->len += (size_t)n;
    }
    if (n < 0) {
        return fail_damaged(a, iso, err);
    }
    if (out->len != (size_t)size) {
        return image_fail(
            err, IMAGE_ERR_TRUNCATED,
            "%s: truncated ISO image: %s ends after %zu of %lld bytes; copy or download it again", iso, name,
            out->len, (long long)size);
    }
    return true;
}

static bool extract(const char *iso, const char *path, struct image_blob *out, struct image_error *err)
{
    struct archive_entry *entry;
    struct archive *a = iso_open(iso, err);
    int result;
    bool ok = false, found = false;

    if (a == NULL) {
        return false;
    }
    while (!found && (result = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
        const char *name = archive_entry_pathname(entry);
        if (result < ARCHIVE_WARN) {
            fail_damaged(a, iso, err);
            break;
        }
        found = name != NULL && strcmp(bare(name), path) == 0;
        if (found) {
            ok = read_data(a, entry, iso, path, out, err);
        }
    }
    archive_read_free(a);
    if (!ok) {
        image_blob_free(out);
    }
    return ok;
}

bool image_iso_read(const char *iso, const char *name, struct image_blob *out, struct image_error *err)
{
    struct tree t;
    const struct node *node;
    bool ok = false;

    *out = (struct image_blob){NULL, 0};
    if (!tree_load(iso, &t, err)) {
        return false;
    }
    node = tree_resolve(&t, name);
    if (node == NULL) {
        image_fail(err, IMAGE_ERR_IO, "%s: no file %s on this ISO image", iso, name);
    } else {
        ok = extract(iso, node->path, out, err);
    }
    tree_free(&t);
    return ok;
}

/* -- Boot entries
 * --------------------------------------------------------------------------------------------- */

struct iso_source {
    const char *iso;
    const struct tree *tree;
    struct image_error *err;
};

static bool source_exists(void *arg, const char *path)
{
    const struct iso_source *s = arg;

    return tree_resolve(s->tree, path) != NULL;
}

static bool source_read(void *arg, const char *path, struct image_blob *out)
{
    const struct iso_source *s = arg;
    const struct node *node = tree_resolve(s->tree, path);

    *out = (struct image_blob){NULL, 0};
    return node != NULL && extract(s->iso, node->path, out, s->err);
}

bool image_iso_boot(const char *iso, struct image_boot *out, struct image_error *err)
{
    struct image_error inner = {0};
    struct tree t;
    char missing[512];
    bool ok;

    *out = (struct image_boot){0};
    if (!tree_load(iso, &t, err)) {
        return false;
    }
    struct iso_source from = {iso, &t, &inner};
    struct boot_source src = {&from, source_read, source_exists};
    ok = image_boot_parse(&src, out, missing);
    tree_free(&t);
    if (!ok) {
        return image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory for the boot configuration", iso);
    }
    out->el_torito = has_el_torito(iso);
    if (out->count != 0) {
        return true;
    }
    image_boot_free(out);
    if (inner.code != IMAGE_OK) {
        return image_fail(err, inner.code, "%s", inner.text);
    }
    if (missing[0] != '\0') {
        return image_fail(
            err, IMAGE_ERR_NO_KERNEL,
            "%s: the boot configuration names the kernel %s, which is not on the image; give kernel and "
            "initrd as files (--kernel, --initrd)",
            iso, missing);
    }
    return image_fail(
        err, IMAGE_ERR_NO_KERNEL,
        "%s: no boot entry that names a kernel (no isolinux, syslinux or GRUB configuration with one); "
        "give kernel and initrd as files (--kernel, --initrd)",
        iso);
}
