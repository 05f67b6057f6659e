/* scanner/image/decompress.c: the compressors of kernels and initrds, through libarchive.
 *
 * libarchive decodes all of them, but it was made for whole files: what follows a stream (the next segment of
 * an initrd, the size word behind a kernel's payload) makes its xz and zstd filters fail and lose what they
 * hold. So the end of an xz, zstd or lz4 stream is found here first, from the format's own framing, and
 * libarchive gets exactly the stream. gzip, bzip2 and lzma stop by themselves and report what they used.
 */
#include "scanner/image/internal.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>

static const struct {
    enum packing kind;
    const char *name;
    const char *magic;
    size_t len;
} packings[] = {
    {PACKING_GZIP, "gzip", "\x1f\x8b\x08", 3},
    {PACKING_XZ, "xz",
     "\xfd"
     "7zXZ\0",
     6},
    {PACKING_LZMA, "lzma", "\x5d\0\0", 3},
    {PACKING_BZIP2, "bzip2", "BZh", 3},
    {PACKING_LZ4, "lz4", "\x04\x22\x4d\x18", 4},
    {PACKING_LZ4_LEGACY, "lz4", "\x02\x21\x4c\x18", 4},
    {PACKING_ZSTD, "zstd", "\x28\xb5\x2f\xfd", 4},
    {PACKING_LZOP, "lzop", "\x89LZO", 4},
};

enum packing packing_of(struct span s)
{
    for (size_t i = 0; i < sizeof(packings) / sizeof(packings[0]); i++) {
        if (span_starts(s, packings[i].magic, packings[i].len)) {
            return packings[i].kind;
        }
    }
    return PACKING_NONE;
}

const char *packing_name(enum packing p)
{
    for (size_t i = 0; i < sizeof(packings) / sizeof(packings[0]); i++) {
        if (packings[i].kind == p) {
            return packings[i].name;
        }
    }
    return "none";
}

/* -- Where a stream ends
 * -------------------------------------------------------------------------------------- */

/* CRC32 as xz uses it (IEEE 802.3); only headers are summed, so bit by bit is fast enough. */
static uint32_t crc32_of(struct span s)
{
    uint32_t crc = ~0u;

    for (size_t i = 0; i < s.n; i++) {
        crc ^= s.p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1)));
        }
    }
    return ~crc;
}

static bool xz_integer(struct span s, size_t *off, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
        uint8_t byte;
        if (!span_u8(s, (*off)++, &byte)) {
            return false;
        }
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            return true;
        }
    }
    return false;
}

/* Sums the blocks an xz index lists (xz file format 1.0.4, section 4). */
static bool xz_index_blocks(struct span index, uint64_t *blocks)
{
    size_t off = 1;
    uint64_t records, unpadded, plain;

    *blocks = 0;
    if (!xz_integer(index, &off, &records) || records > index.n) {
        return false;
    }
    for (uint64_t i = 0; i < records; i++) {
        if (!xz_integer(index, &off, &unpadded) || !xz_integer(index, &off, &plain) ||
            unpadded > IMAGE_MAX_BYTES) {
            return false;
        }
        *blocks += (unpadded + 3) & ~3ull;
    }
    return true;
}

/* True if an xz stream that starts at s.p ends at end: footer, its check sum, the index and its sizes agree.
 */
static bool xz_ends_at(struct span s, size_t end)
{
    struct span footer, index;
    uint32_t crc, back;
    uint64_t size, blocks;

    if (!span_sub(s, end - 12, 12, &footer) || memcmp(footer.p + 8, s.p + 6, 2) != 0 ||
        !span_u32(footer, 0, &crc) || !span_u32(footer, 4, &back) ||
        crc != crc32_of((struct span){footer.p + 4, 6})) {
        return false;
    }
    size = ((uint64_t)back + 1) * 4;
    if (size > end - 24 || !span_sub(s, end - 12 - size, size, &index) || index.p[0] != 0 ||
        !span_u32(index, size - 4, &crc) || crc != crc32_of((struct span){index.p, (size_t)size - 4})) {
        return false;
    }
    return xz_index_blocks(index, &blocks) && blocks + size + 24 == end;
}

static size_t xz_extent(struct span s)
{
    for (size_t at = 24; at + 8 <= s.n + 2; at += 4) {
        if (at + 8 <= s.n && s.p[at + 6] == 'Y' && s.p[at + 7] == 'Z' && xz_ends_at(s, at + 8)) {
            return at + 8;
        }
    }
    return 0;
}

/* RFC 8878, section 3.1.1. */
static size_t zstd_extent(struct span s)
{
    static const uint8_t dictionary[4] = {0, 1, 2, 4}, content[4] = {0, 2, 4, 8};
    uint8_t flags;
    uint64_t off = 4;

    if (!span_u8(s, off++, &flags)) {
        return 0;
    }
    bool single = flags & 0x20;
    off += !single + dictionary[flags & 3] + (single && flags >> 6 == 0 ? 1 : content[flags >> 6]);
    for (;;) {
        uint32_t head;
        if (!span_has(s, off, 3)) {
            return 0;
        }
        head = s.p[off] | (uint32_t)s.p[off + 1] << 8 | (uint32_t)s.p[off + 2] << 16;
        off += 3 + ((head >> 1 & 3) == 1 ? 1 : head >> 3); /* type 1 repeats one byte */
        if (head & 1) {
            off += flags & 4 ? 4 : 0;
            return off <= s.n ? (size_t)off : 0;
        }
    }
}

/* LZ4 frame format 1.6.3. */
static size_t lz4_extent(struct span s)
{
    uint8_t flags;
    uint32_t size;
    uint64_t off = 7;

    if (!span_u8(s, 4, &flags)) {
        return 0;
    }
    off += (flags & 8 ? 8 : 0) + (flags & 1 ? 4 : 0);
    for (;;) {
        if (!span_u32(s, off, &size)) {
            return 0;
        }
        off += 4;
        if (size == 0) {
            off += flags & 4 ? 4 : 0;
            return off <= s.n ? (size_t)off : 0;
        }
        off += (uint64_t)(size & 0x7FFFFFFF) + (flags & 0x10 ? 4 : 0);
    }
}

/* The legacy format has no end mark: it ends at the end of the data or where no block size can be. */
static size_t lz4_legacy_extent(struct span s)
{
    const uint32_t bound = (8u << 20) + (8u << 20) / 255 + 16;
    uint64_t off = 4;
    uint32_t size;

    while (span_u32(s, off, &size) && size != 0 && size <= bound && span_has(s, off + 4, size)) {
        off += 4 + (uint64_t)size;
    }
    return off > 4 ? (size_t)off : 0;
}

/* -- Unpacking
 * ------------------------------------------------------------------------------------------------ */

static int support_filter(struct archive *a, enum packing kind)
{
    switch (kind) {
    case PACKING_GZIP:
        return archive_read_support_filter_gzip(a);
    case PACKING_XZ:
        return archive_read_support_filter_xz(a);
    case PACKING_LZMA:
        return archive_read_support_filter_lzma(a);
    case PACKING_BZIP2:
        return archive_read_support_filter_bzip2(a);
    case PACKING_LZ4:
    case PACKING_LZ4_LEGACY:
        return archive_read_support_filter_lz4(a);
    case PACKING_ZSTD:
        return archive_read_support_filter_zstd(a);
    default:
        return ARCHIVE_FATAL;
    }
}

/* Reads all of the open entry. A text, or NULL if all is well. */
static const char *read_entry(struct archive *a, struct image_blob *out)
{
    size_t room = 0;

    for (;;) {
        if (out->len == room) {
            size_t more = room != 0 ? room * 2 : 1u << 20;
            uint8_t *data = more <= IMAGE_MAX_BYTES * 2 ? realloc(out->data, more) : NULL;
            if (data == NULL) {
                return "no memory";
            }
            out->data = data;
            room = more;
        }
        la_ssize_t n = archive_read_data(a, out->data + out->len, room - out->len);
        if (n < 0) {
            return archive_error_string(a) != NULL ? archive_error_string(a) : "damaged";
        }
        if (n == 0) {
            return NULL;
        }
        out->len += (size_t)n;
        if (out->len > IMAGE_MAX_BYTES) {
            return "unpacks to more than 1 GiB";
        }
    }
}

static size_t extent_of(struct span s, enum packing kind)
{
    switch (kind) {
    case PACKING_XZ:
        return xz_extent(s);
    case PACKING_ZSTD:
        return zstd_extent(s);
    case PACKING_LZ4:
        return lz4_extent(s);
    case PACKING_LZ4_LEGACY:
        return lz4_legacy_extent(s);
    default:
        return s.n;
    }
}

static const char *unpack_archive(struct archive *a, struct span s, enum packing kind, struct image_blob *out)
{
    struct archive_entry *entry;
    int result;

    if (support_filter(a, kind) < ARCHIVE_WARN || archive_read_support_format_raw(a) != ARCHIVE_OK ||
        archive_read_support_format_empty(a) != ARCHIVE_OK) {
        return "this libarchive was built without it";
    }
    result = archive_read_open_memory(a, s.p, s.n);
    if (result == ARCHIVE_OK) {
        result = archive_read_next_header(a, &entry);
    }
    if (result == ARCHIVE_EOF) {
        out->data = malloc(1);
        return out->data != NULL ? NULL : "no memory";
    }
    if (result != ARCHIVE_OK || archive_filter_count(a) < 2) {
        return archive_error_string(a) != NULL ? archive_error_string(a) : "damaged header";
    }
    return read_entry(a, out);
}

bool packing_unpack(struct span s, struct image_blob *out, size_t *used, struct image_error *err)
{
    enum packing kind = packing_of(s);
    size_t extent = extent_of(s, kind);
    struct archive *a;
    const char *problem;

    *out = (struct image_blob){NULL, 0};
    *used = 0;
    if (kind == PACKING_NONE || kind == PACKING_LZOP) {
        return image_fail(err, IMAGE_ERR_COMPRESSION,
                          "unknown compression (%s); repack with gzip, xz, lzma, bzip2, lz4 or zstd",
                          kind == PACKING_LZOP ? "lzop is not supported" : "no known magic number");
    }
    if (extent == 0) {
        return image_fail(err, IMAGE_ERR_COMPRESSION,
                          "damaged %s data: its end is missing; copy the file again", packing_name(kind));
    }
    a = archive_read_new();
    if (a == NULL) {
        return image_fail(err, IMAGE_ERR_MEMORY, "no memory to decompress");
    }
    problem = unpack_archive(a, (struct span){s.p, extent}, kind, out);
    if (problem != NULL) {
        image_fail(err, IMAGE_ERR_COMPRESSION, "damaged %s data: %s; copy the file again", packing_name(kind),
                   problem);
        image_blob_free(out);
    } else {
        la_int64_t taken = archive_filter_bytes(a, -1);
        bool framed = kind != PACKING_GZIP && kind != PACKING_BZIP2 && kind != PACKING_LZMA;
        *used = framed || taken <= 0 || (uint64_t)taken > extent ? extent : (size_t)taken;
    }
    archive_read_free(a);
    return problem == NULL;
}

static bool append(struct image_blob *to, struct image_blob *more)
{
    uint8_t *data;

    if (to->data == NULL) {
        *to = *more;
        *more = (struct image_blob){NULL, 0};
        return true;
    }
    data = realloc(to->data, to->len + more->len + 1);
    if (data == NULL || to->len + more->len > IMAGE_MAX_BYTES) {
        to->data = data != NULL ? data : to->data;
        return false;
    }
    if (more->len)
        memcpy(data + to->len, more->data, more->len);
    to->data = data;
    to->len += more->len;
    return true;
}

bool image_decompress(const uint8_t *data, size_t len, struct image_blob *out, char kind[16],
                      struct image_error *err)
{
    struct span s = {data, len};
    enum packing first = packing_of(s);

    *out = (struct image_blob){NULL, 0};
    if (kind != NULL) {
        strcpy(kind, packing_name(first));
    }
    if (first == PACKING_NONE) {
        out->data = malloc(len + 1);
        if (out->data == NULL) {
            return image_fail(err, IMAGE_ERR_MEMORY, "no memory for %zu bytes", len);
        }
        memcpy(out->data, data, len);
        out->len = len;
        return true;
    }
    /* Streams of one kind one behind the other are one file, as for the tools that write them. */
    do {
        struct image_blob part;
        size_t used;
        if (!packing_unpack(s, &part, &used, err)) {
            image_blob_free(out);
            return false;
        }
        bool fits = append(out, &part);
        image_blob_free(&part);
        if (!fits) {
            image_blob_free(out);
            return image_fail(err, IMAGE_ERR_COMPRESSION, "unpacks to more than 1 GiB, or no memory");
        }
        s = (struct span){s.p + used, s.n - used};
    } while (s.n > 0 && packing_of(s) == first);
    return true;
}
