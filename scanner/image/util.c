/* scanner/image/util.c: errors, blobs, files, growing arrays. */
#include "scanner/image/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

bool image_fail(struct image_error *err, enum image_code code, const char *format, ...)
{
    va_list args;

    if (err == NULL) {
        return false;
    }
    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return false;
}

void image_blob_free(struct image_blob *b)
{
    free(b->data);
    *b = (struct image_blob){NULL, 0};
}

static bool read_all(int fd, uint8_t *data, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = read(fd, data + done, len - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

bool image_read_file(const char *path, struct image_blob *out, struct image_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    *out = (struct image_blob){NULL, 0};
    if (fd < 0 || fstat(fd, &st) != 0) {
        image_fail(err, IMAGE_ERR_IO, "%s: %s; give the path of a readable file", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        image_fail(err, IMAGE_ERR_IO, "%s: not a regular file; give an ISO image, a kernel or an ELF file",
                   path);
    } else if ((uint64_t)st.st_size > IMAGE_MAX_BYTES) {
        image_fail(err, IMAGE_ERR_FORMAT, "%s: larger than 1 GiB; only ISO images may be", path);
    } else if ((out->data = malloc((size_t)st.st_size + 1)) == NULL) {
        image_fail(err, IMAGE_ERR_MEMORY, "%s: no memory for %lld bytes", path, (long long)st.st_size);
    } else if (!read_all(fd, out->data, (size_t)st.st_size)) {
        image_fail(err, IMAGE_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
        image_blob_free(out);
    } else {
        out->len = (size_t)st.st_size;
    }
    if (fd >= 0) {
        close(fd);
    }
    return out->data != NULL;
}

void words_push(struct words *w, uint32_t value)
{
    if (w->count == w->room && !w->failed) {
        size_t room = w->room != 0 ? w->room * 2 : 1024;
        uint32_t *v = realloc(w->v, room * sizeof(*v));
        if (v == NULL) {
            w->failed = true;
        } else {
            w->v = v;
            w->room = room;
        }
    }
    if (!w->failed) {
        w->v[w->count++] = value;
    }
}

static int compare_words(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

void words_sort_unique(struct words *w)
{
    size_t kept = 0;

    if (w->count == 0) {
        return;
    }
    qsort(w->v, w->count, sizeof(*w->v), compare_words);
    for (size_t i = 0; i < w->count; i++) {
        if (kept == 0 || w->v[i] != w->v[kept - 1]) {
            w->v[kept++] = w->v[i];
        }
    }
    w->count = kept;
}

void words_free(struct words *w)
{
    free(w->v);
    *w = (struct words){0};
}
