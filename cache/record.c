/* cache/record.c: the bytes of a record and the rule that makes them valid (FORMAT.md, section 3). */
#include "cache/cache_internal.h"

#include <endian.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#ifdef CACHE_XXH_DISPATCH
#include <xxh_x86dispatch.h> /* the widest vectors the host has, instead of SSE2 */
#else
#include <xxhash.h>
#endif

#define RECORD_MAGIC   0x52535256u /* "VRSR" */
#define RECORD_VERSION 1u

enum {
    OFF_MAGIC = 0,
    OFF_VERSION = 4,
    OFF_KEY = 8,
    OFF_RECTO_LEN = 40,
    OFF_ATTR_LEN = 44,
    OFF_VERSO_LEN = 48
};
enum { OFF_INSNS = 52, OFF_SENSITIVE = 56, OFF_RESERVED = 60 };

/* ---- names ---- */

static const struct {
    const char *name, *text;
} refusals[CACHE_REFUSAL_COUNT] = {
#define CACHE_REFUSAL(id, name, text) {name, text},
#include "cache/refusal.def"
#undef CACHE_REFUSAL
};

const char *cache_refusal_name(enum cache_refusal r)
{
    return (unsigned)r < CACHE_REFUSAL_COUNT ? refusals[r].name : "unknown";
}

const char *cache_refusal_text(enum cache_refusal r)
{
    return (unsigned)r < CACHE_REFUSAL_COUNT ? refusals[r].text : "unknown";
}

/* ---- fields ---- */

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, 8);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return le64toh(v);
}

void cache_key_pack(const struct cache_key *k, uint8_t out[CACHE_KEY_SIZE])
{
    put64(out, k->hash_lo);
    put64(out + 8, k->hash_hi);
    put32(out + 16, k->mode);
    put32(out + 20, k->pad);
    put64(out + 24, k->fingerprint);
}

void cache_key_unpack(const uint8_t in[CACHE_KEY_SIZE], struct cache_key *k)
{
    k->hash_lo = get64(in);
    k->hash_hi = get64(in + 8);
    k->mode = get32(in + 16);
    k->pad = get32(in + 20);
    k->fingerprint = get64(in + 24);
}

void cache_hash_page(const uint8_t page[4096], uint64_t *lo, uint64_t *hi)
{
    XXH128_hash_t h = XXH3_128bits(page, CACHE_PAGE);
    *lo = h.low64;
    *hi = h.high64;
}

/* ---- buffers ---- */

bool cache_buf_reserve(struct cache_buf *b, size_t size)
{
    if (size <= b->cap)
        return true;
    size_t cap = (size + 65535) & ~(size_t)65535;
    uint8_t *p = realloc(b->data, cap);
    if (!p)
        return false;
    b->data = p;
    b->cap = cap;
    return true;
}

void cache_buf_free(struct cache_buf *b)
{
    free(b->data);
    *b = (struct cache_buf){0};
}

/* ---- writing ---- */

size_t cache_raw_size(const struct cache_record *r)
{
    return r->verso_len <= CACHE_VERSO_MAX ? (size_t)CACHE_RAW_MIN + r->verso_len : 0;
}

void cache_raw_fill(uint8_t *raw, const struct cache_key *k, const struct cache_record *r)
{
    put32(raw + OFF_MAGIC, RECORD_MAGIC);
    put32(raw + OFF_VERSION, RECORD_VERSION);
    cache_key_pack(k, raw + OFF_KEY);
    put32(raw + OFF_RECTO_LEN, CACHE_PAGE);
    put32(raw + OFF_ATTR_LEN, CACHE_PAGE);
    put32(raw + OFF_VERSO_LEN, r->verso_len);
    put32(raw + OFF_INSNS, r->insn_count);
    put32(raw + OFF_SENSITIVE, r->sensitive_count);
    put32(raw + OFF_RESERVED, 0);
    memcpy(raw + CACHE_OFF_RECTO, r->recto, CACHE_PAGE);
    memcpy(raw + CACHE_OFF_ATTR, r->attr, CACHE_PAGE);
    if (r->verso_len)
        memcpy(raw + CACHE_OFF_VERSO, r->verso, r->verso_len);
}

void cache_raw_seal(uint8_t *raw, size_t size)
{
    XXH128_hash_t h = XXH3_128bits(raw, size - CACHE_DIGEST_SIZE);
    put64(raw + size - 16, h.low64);
    put64(raw + size - 8, h.high64);
}

/* Head and recto are literals of the first sequence, and the end of the record those of the last: they hardly compress (890 bytes of the recto
 * and as many of the verso's tables, 8 % of a record each), and those few matches took a third of the time of unpacking (1.8 of 5.3 us). So what is
 * between is compressed by itself, and gets them in front and behind. */
enum { PLAIN = CACHE_OFF_ATTR, PLAIN_ROOM = PLAIN + 32 };
_Static_assert(PLAIN_ROOM - PLAIN >= PLAIN / 255 + 2, "room for the longer count of literals");

size_t cache_pack_bound(size_t size)
{
    return PLAIN_ROOM + (size_t)LZ4_COMPRESSBOUND(size - PLAIN);
}

/* The count of a sequence's literals: the token's upper half, then bytes to be added up as long as they are 255. */
static size_t put_count(uint8_t *p, size_t literals, uint8_t token)
{
    size_t n = 1;
    p[0] = (uint8_t)((literals < 15 ? literals : 15) << 4 | (token & 15));
    if (literals < 15)
        return n;
    for (literals -= 15; literals >= 255; literals -= 255)
        p[n++] = 255;
    p[n++] = (uint8_t)literals;
    return n;
}

static size_t get_count(const uint8_t *p, size_t *literals)
{
    size_t n = 1;
    *literals = p[0] >> 4;
    if (*literals < 15)
        return n;
    do
        *literals += p[n];
    while (p[n++] == 255);
    return n;
}

/* Where the last sequence of a block begins, which has literals only. */
static size_t last_sequence(const uint8_t *block, size_t len)
{
    for (size_t at = 0;;) {
        size_t literals, end = at + get_count(block + at, &literals);
        end += literals;
        if (end >= len)
            return at;
        bool more = (block[at] & 15) == 15;
        for (end += 2; more; end++) /* of the match: its distance, and the rest of its length */
            more = block[end] == 255;
        at = end;
    }
}

size_t cache_pack(const uint8_t *raw, size_t size, uint32_t plain, uint8_t *blob)
{
    uint8_t *mid = blob + PLAIN_ROOM;
    size_t tail = plain + (size_t)CACHE_DIGEST_SIZE, room = cache_pack_bound(size) - PLAIN_ROOM, literals;
    tail = tail < size - PLAIN ? tail : size - PLAIN;
    int len = LZ4_compress_default((const char *)raw + PLAIN, (char *)mid, (int)(size - PLAIN - tail), (int)room);
    if (len <= 0)
        return 0;
    size_t last = last_sequence(mid, (size_t)len), n = 0;
    if (last) {
        size_t had = get_count(mid, &literals);
        n = put_count(blob, literals + PLAIN, mid[0]);
        memcpy(blob + n, raw, PLAIN);
        memmove(blob + n + PLAIN, mid + had, last - had);
        n += PLAIN + last - had;
    }
    get_count(mid + last, &literals);
    literals = last ? literals + tail : size;
    n += put_count(blob + n, literals, 0);
    memcpy(blob + n, raw + size - literals, literals);
    return n + literals;
}

/* ---- reading ---- */

bool cache_unpack(const uint8_t *blob, size_t blob_len, uint8_t *raw, size_t size)
{
    if (!blob || blob_len == 0 || blob_len > INT32_MAX || size > CACHE_RAW_MAX)
        return false;
    return LZ4_decompress_safe((const char *)blob, (char *)raw, (int)blob_len, (int)size) == (int)size;
}

static bool digest_ok(const uint8_t *raw, size_t size)
{
    XXH128_hash_t h = XXH3_128bits(raw, size - CACHE_DIGEST_SIZE);
    return get64(raw + size - 16) == h.low64 && get64(raw + size - 8) == h.high64;
}

static bool key_ok(const uint8_t *raw, const struct cache_key *k)
{
    uint8_t packed[CACHE_KEY_SIZE];
    cache_key_pack(k, packed);
    return memcmp(raw + OFF_KEY, packed, sizeof packed) == 0;
}

enum cache_refusal cache_raw_check(const uint8_t *raw, size_t size, const struct cache_key *k,
                                   const uint8_t *recto, struct cache_record *out)
{
    if (size < CACHE_RAW_MIN || size > CACHE_RAW_MAX)
        return CACHE_REFUSAL_SIZE;
    if (!digest_ok(raw, size))
        return CACHE_REFUSAL_DIGEST;
    if (get32(raw + OFF_MAGIC) != RECORD_MAGIC || get32(raw + OFF_VERSION) != RECORD_VERSION ||
        get32(raw + OFF_RESERVED) != 0)
        return CACHE_REFUSAL_HEADER;
    if (get32(raw + OFF_RECTO_LEN) != CACHE_PAGE || get32(raw + OFF_ATTR_LEN) != CACHE_PAGE ||
        get32(raw + OFF_VERSO_LEN) != size - CACHE_RAW_MIN)
        return CACHE_REFUSAL_SIZE;
    if (!key_ok(raw, k))
        return CACHE_REFUSAL_KEY;
    /* The hash is not proof: equal hashes with other bytes would run the wrong code. */
    if (recto && memcmp(raw + CACHE_OFF_RECTO, recto, CACHE_PAGE) != 0)
        return CACHE_REFUSAL_RECTO;
    *out = (struct cache_record){
        .recto = raw + CACHE_OFF_RECTO,
        .attr = raw + CACHE_OFF_ATTR,
        .verso = raw + CACHE_OFF_VERSO,
        .verso_len = get32(raw + OFF_VERSO_LEN),
        .insn_count = get32(raw + OFF_INSNS),
        .sensitive_count = get32(raw + OFF_SENSITIVE),
    };
    return CACHE_REFUSAL_NONE;
}
