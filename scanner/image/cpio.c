/* scanner/image/cpio.c: an initrd as Linux reads it
 * (Documentation/driver-api/early-userspace/buffer-format.rst): cpio archives in the newc format one behind
 * the other, zero bytes between them, each plain or compressed.
 *
 * Read by hand and not by libarchive, which stops at the first trailer and does not say where that was.
 */
#include "scanner/image/internal.h"

#include <stdlib.h>
#include <xxhash.h>

enum { HEADER = 110, NAME_MAX_BYTES = 4096, MODE_TYPE = 0170000, MODE_REGULAR = 0100000, DEPTH = 4 };

/* Keys of what was delivered: open addressing, 0 is free. */
struct seen {
    uint64_t *key;
    size_t count, room;
};

struct walk {
    image_member_fn fn;
    void *arg;
    struct seen seen;
    unsigned segment;
    bool stopped, no_memory;
};

static bool seen_grow(struct seen *s)
{
    size_t room = s->room != 0 ? s->room * 2 : 4096;
    uint64_t *key = calloc(room, sizeof(*key));

    if (key == NULL) {
        return false;
    }
    for (size_t i = 0; i < s->room; i++) {
        size_t at = s->key[i] & (room - 1);
        while (s->key[i] != 0 && key[at] != 0) {
            at = (at + 1) & (room - 1);
        }
        if (s->key[i] != 0) {
            key[at] = s->key[i];
        }
    }
    free(s->key);
    s->key = key;
    s->room = room;
    return true;
}

/* True if key is new (or memory ran out: then it is better delivered twice than never). */
static bool seen_add(struct seen *s, uint64_t key)
{
    key |= 1;
    if ((s->count + 1) * 2 > s->room && !seen_grow(s)) {
        return true;
    }
    for (size_t at = key & (s->room - 1);; at = (at + 1) & (s->room - 1)) {
        if (s->key[at] == key) {
            return false;
        }
        if (s->key[at] == 0) {
            s->key[at] = key;
            s->count++;
            return true;
        }
    }
}

static bool hex_field(const uint8_t *p, uint32_t *out)
{
    uint32_t v = 0;

    for (int i = 0; i < 8; i++) {
        int c = p[i];
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0) {
            return false;
        }
        v = v << 4 | (uint32_t)digit;
    }
    *out = v;
    return true;
}

struct member {
    uint32_t ino, mode, nlink, size, major, minor, name_len;
    const char *name;
    struct span data;
    size_t next; /* offset of the next header */
};

/* Reads the member at off of s (off is a multiple of 4, so are the paddings). */
static bool member_read(struct span s, size_t off, struct member *m)
{
    static const uint8_t order[] = {0, 1, 4, 6, 7, 8, 11}; /* of the 13 fields of eight digits */
    uint32_t *field[] = {&m->ino, &m->mode, &m->nlink, &m->size, &m->major, &m->minor, &m->name_len};
    struct span head, name;
    uint64_t at;

    if (!span_sub(s, off, HEADER, &head)) {
        return false;
    }
    for (unsigned i = 0; i < sizeof(order); i++) {
        if (!hex_field(head.p + 6 + 8 * order[i], field[i])) {
            return false;
        }
    }
    if (m->name_len == 0 || m->name_len > NAME_MAX_BYTES || !span_sub(s, off + HEADER, m->name_len, &name) ||
        name.p[m->name_len - 1] != 0) {
        return false;
    }
    m->name = (const char *)name.p;
    at = ((uint64_t)off + HEADER + m->name_len + 3) & ~3ull;
    if (!span_sub(s, at, m->size, &m->data)) {
        return false;
    }
    at = (at + m->size + 3) & ~3ull;
    m->next = at < s.n ? (size_t)at : s.n;
    return true;
}

static bool member_wanted(struct walk *w, const struct member *m)
{
    if ((m->mode & MODE_TYPE) != MODE_REGULAR) {
        return false;
    }
    if (m->nlink > 1) {
        /* Only one link carries the data; the others are empty or repeat it. */
        uint32_t id[4] = {m->ino, m->major, m->minor, w->segment};
        return m->size != 0 && seen_add(&w->seen, XXH3_64bits_withSeed(id, sizeof(id), 1));
    }
    /* A later member of the same name replaces the earlier one, so it counts if its content differs. */
    return seen_add(&w->seen,
                    XXH3_64bits_withSeed(m->data.p, m->data.n, XXH3_64bits(m->name, strlen(m->name))));
}

static size_t skip_zeros(struct span s, size_t off)
{
    while (off < s.n && s.p[off] == 0) {
        off++;
    }
    return off;
}

static bool is_cpio(struct span s)
{
    return span_starts(s, "070701", 6) || span_starts(s, "070702", 6);
}

/* One archive from *off up to and with its trailer. */
static bool walk_archive(struct walk *w, struct span s, size_t *off, struct image_error *err)
{
    while (*off < s.n && !w->stopped) {
        struct span rest = {s.p + *off, s.n - *off};
        struct member m;
        if (!is_cpio(rest) || !member_read(s, *off, &m)) {
            return image_fail(err, rest.n < HEADER || is_cpio(rest) ? IMAGE_ERR_TRUNCATED : IMAGE_ERR_FORMAT,
                              "initrd: damaged or cut cpio archive at byte %zu of %zu; copy the file again",
                              *off, s.n);
        }
        *off = m.next;
        if (strcmp(m.name, "TRAILER!!!") == 0) {
            return true;
        }
        if (member_wanted(w, &m)) {
            w->stopped = !w->fn(w->arg, m.name, m.data.p, m.data.n);
        }
    }
    return true;
}

static bool walk_all(struct walk *w, struct span s, unsigned depth, struct image_error *err)
{
    size_t off = skip_zeros(s, 0);

    while (off < s.n && !w->stopped) {
        struct span rest = {s.p + off, s.n - off};
        struct image_blob plain;
        size_t used;
        bool ok;
        w->segment++;
        if (is_cpio(rest)) {
            if (off % 4 != 0) {
                return image_fail(err, IMAGE_ERR_FORMAT, "initrd: a cpio archive starts at odd byte %zu",
                                  off);
            }
            ok = walk_archive(w, s, &off, err);
        } else if (depth == DEPTH) {
            return image_fail(err, IMAGE_ERR_FORMAT, "initrd: compressed more than %d times", DEPTH);
        } else {
            ok = packing_unpack(rest, &plain, &used, err);
            if (ok) {
                ok = walk_all(w, (struct span){plain.data, plain.len}, depth + 1, err);
                image_blob_free(&plain);
                off += used;
            }
        }
        if (!ok) {
            return false;
        }
        off = skip_zeros(s, off);
    }
    return true;
}

bool image_initrd_each(const uint8_t *data, size_t len, image_member_fn fn, void *arg,
                       struct image_error *err)
{
    struct walk w = {.fn = fn, .arg = arg};
    bool ok = walk_all(&w, (struct span){data, len}, 0, err);

    free(w.seen.key);
    return ok;
}
