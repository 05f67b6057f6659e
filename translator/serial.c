/* translator/serial.c: a verso as one flat byte string, and back.
 *
 * Layout, all little-endian, no padding:
 *   u32 magic "XLV2", mode, options, code_len, reloc_count, link_count, unwind_len, insn_count, emulated_count
 *   relocs[reloc_count]: u32 host_off
 *   links[link_count]: u32 field_off, tail_off, i32 target
 *   code[code_len], unwind[unwind_len]
 *
 * On x86 that is what the arrays look like in memory: reading is one copy, and the arrays lie in it one behind the other.
 *
 * A string is valid only if
 *   S1 its length is exactly what the sizes say, none above its limit;
 *   S2 relocs ascend, do not overlap, and lie in the code;
 *   S3 links ascend likewise; each field is a rel32 that points at its tail, in the code;
 *   S4 the unwind records decode to the last byte, begin at host offset 0, ascend, end with the end record at
 * code_len; S5 entries are offsets in the page, each at most once.
 */
#include "translator/unwind.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC      0x32564C58u
#define HEAD_WORDS 9u
#define HEAD_SIZE  (4u * HEAD_WORDS)
#define CODE_MAX   (8u << 20)
#define COUNT_MAX  (1u << 20)

static void put_4(uint8_t **p, uint32_t v)
{
    (*p)[0] = (uint8_t)v;
    (*p)[1] = (uint8_t)(v >> 8);
    (*p)[2] = (uint8_t)(v >> 16);
    (*p)[3] = (uint8_t)(v >> 24);
    *p += 4;
}

static uint32_t get_4(const uint8_t **p)
{
    const uint8_t *b = *p;

    *p += 4;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static size_t flat_size(const struct xlat_verso *v)
{
    return HEAD_SIZE + (size_t)v->code_len + 4 * (size_t)v->reloc_count + 12 * (size_t)v->link_count +
           v->unwind_len;
}

_Static_assert(sizeof(struct xlat_reloc) == 4 && sizeof(struct xlat_link) == 12, "the byte form is that of memory");

static void put_array(uint8_t **p, const void *from, size_t n)
{
    if (n)
        memcpy(*p, from, n);
    *p += n;
}

size_t xlat_serialize(const struct xlat_verso *v, uint8_t *buf, size_t cap)
{
    const uint32_t head[HEAD_WORDS] = {MAGIC,         v->mode,        v->options,
                                       v->code_len,   v->reloc_count, v->link_count,
                                       v->unwind_len, v->insn_count,  v->emulated_count};
    size_t size = flat_size(v);
    uint8_t *p = buf;

    if (cap < size)
        return size;
    for (unsigned n = 0; n < HEAD_WORDS; n++)
        put_4(&p, head[n]);
    put_array(&p, v->relocs, v->reloc_count * sizeof *v->relocs);
    put_array(&p, v->links, v->link_count * sizeof *v->links);
    put_array(&p, v->code, v->code_len);
    put_array(&p, v->unwind, v->unwind_len);
    return size;
}

static bool check_relocs(const struct xlat_verso *v)
{
    uint32_t free_from = 0;

    for (uint32_t n = 0; n < v->reloc_count; n++) {
        uint32_t off = v->relocs[n].host_off;

        if (off < free_from || off >= v->code_len || v->code_len - off < 4)
            return false;
        free_from = off + 4;
    }
    return true;
}

static bool check_links(const struct xlat_verso *v)
{
    uint32_t free_from = 0;

    for (uint32_t n = 0; n < v->link_count; n++) {
        const struct xlat_link *l = &v->links[n];
        uint32_t rel;

        if (l->field_off < free_from || l->field_off >= v->code_len || v->code_len - l->field_off < 4 ||
            l->tail_off >= v->code_len)
            return false;
        memcpy(&rel, v->code + l->field_off, 4);
        if (l->field_off + 4 + rel != l->tail_off)
            return false;
        free_from = l->field_off + 4;
    }
    return true;
}

/* Records of one byte (see unwind.h) are nearly all there are: read here, since each page loaded is checked. Stops at anything else. */
static bool check_short(struct unwind_reader *r, uint32_t code_len, uint16_t *entries)
{
    const uint8_t *p = r->p;
    uint32_t host = r->host_off;
    int32_t guest = r->entry_rel;

    for (; p < r->end && !(*p & UNWIND_LONG); p++) {
        host += *p >> 3;
        guest += (*p & 7) + 1;
        if (host >= code_len || (uint32_t)guest >= SCAN_PAGE_SIZE || entries[guest] != XLAT_NO_ENTRY)
            return false;
        entries[guest] = host < XLAT_NO_ENTRY ? (uint16_t)host : XLAT_NO_ENTRY - 1;
    }
    r->p = p;
    r->host_off = host;
    r->entry_rel = guest;
    return true;
}

/* entries: all XLAT_NO_ENTRY; filled. */
static bool check_unwind(const struct xlat_verso *v, uint16_t *entries)
{
    struct unwind_reader r;
    struct unwind_rec rec;

    unwind_reader_init(&r, v->unwind, v->unwind_len);
    if (!unwind_read(&r, &rec) || rec.host_off != 0)
        return false;
    unwind_reader_init(&r, v->unwind, v->unwind_len);
    for (;;) {
        if (!check_short(&r, v->code_len, entries) || !unwind_read(&r, &rec))
            return false;
        if (rec.is_end)
            return rec.host_off == v->code_len && r.p == r.end;
        if (rec.host_off >= v->code_len)
            return false;
        if (!rec.entry)
            continue;
        if ((uint32_t)rec.guest_rel >= SCAN_PAGE_SIZE || entries[rec.guest_rel] != XLAT_NO_ENTRY)
            return false;
        entries[rec.guest_rel] = rec.host_off < XLAT_NO_ENTRY ? (uint16_t)rec.host_off : XLAT_NO_ENTRY - 1;
    }
}

static bool read_head(const uint8_t *buf, size_t len, struct xlat_verso *v)
{
    const uint8_t *p = buf;

    if (len < HEAD_SIZE || get_4(&p) != MAGIC)
        return false;
    v->mode = get_4(&p);
    v->options = get_4(&p);
    v->code_len = get_4(&p);
    v->reloc_count = get_4(&p);
    v->link_count = get_4(&p);
    v->unwind_len = get_4(&p);
    v->insn_count = get_4(&p);
    v->emulated_count = get_4(&p);
    return v->mode < XLAT_MODE_COUNT && v->code_len <= CODE_MAX && v->reloc_count <= COUNT_MAX &&
           v->link_count <= COUNT_MAX && v->unwind_len <= CODE_MAX && v->insn_count <= SCAN_PAGE_SIZE &&
           v->emulated_count <= v->insn_count && flat_size(v) == len;
}

static bool read_body(const uint8_t *p, size_t len, struct xlat_verso *v, uint16_t *entries)
{
    uint8_t *at = v->block = malloc(len ? len : 1);

    if (!at)
        return false;
    memcpy(at, p, len);
    v->relocs = (struct xlat_reloc *)(void *)at;
    at += v->reloc_count * sizeof *v->relocs;
    v->links = (struct xlat_link *)(void *)at;
    at += v->link_count * sizeof *v->links;
    v->code = at;
    v->unwind = at + v->code_len;
    return check_relocs(v) && check_links(v) && check_unwind(v, entries);
}

bool xlat_deserialize(const uint8_t *buf, size_t len, struct xlat_verso *out, uint16_t *entries)
{
    struct xlat_verso v = {0};
    uint16_t own[SCAN_PAGE_SIZE];

    xlat_verso_init(out);
    if (!entries)
        entries = own;
    memset(entries, 0xFF, sizeof own);
    if (!read_head(buf, len, &v))
        return false;
    if (!read_body(buf + HEAD_SIZE, len - HEAD_SIZE, &v, entries)) {
        xlat_verso_free(&v);
        return false;
    }
    *out = v;
    return true;
}
