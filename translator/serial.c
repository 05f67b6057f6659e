/* translator/serial.c: a verso as one flat byte string, and back.
 *
 * Layout, all little-endian, no padding:
 *   u32 magic "XLV3", mode, options, code_len, reloc_count, link_count, fields_len, unwind_len, insn_count, emulated_count
 *   code[code_len]
 *   fields[fields_len]: where relocations are, then where links are: each the distance from the end of the field before (from 0 for the first
 *     of either) as LEB128
 *   unwind[unwind_len]
 * The rest of a link stands in the code: its field points at the tail, which is `mov r8d, target; ...`.
 *
 * A string is valid only if
 *   S1 its length is exactly what the sizes say, none above its limit;
 *   S2 relocs lie in the code, and fields_len is what they and the links take;
 *   S3 links likewise; each field is a rel32 that points at a tail in the code;
 *   S4 the unwind records decode to the last byte, begin at host offset 0, lie in the code, and their code length is code_len;
 *   S5 entries are offsets in the page, each at most once.
 */
#include "translator/unwind.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC      0x33564C58u
#define HEAD_WORDS 10u
#define HEAD_SIZE  (4u * HEAD_WORDS)
#define BYTES_MAX  (8u << 20)
#define COUNT_MAX  (1u << 20)
#define TAIL_SIZE  6u /* of which mov r8d, imm32 at least */

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

/* -- Writing
 * ------------------------------------------------------------------------------------------------------ */

/* Appends a distance, or counts its bytes (p NULL). */
static size_t put_distance(uint8_t *p, uint32_t d)
{
    size_t n = 0;

    for (; d >= 0x80; d >>= 7, n++)
        if (p)
            p[n] = (uint8_t)(d | 0x80);
    if (p)
        p[n] = (uint8_t)d;
    return n + 1;
}

static size_t put_fields(const struct xlat_verso *v, uint8_t *p)
{
    size_t n = 0;

    for (uint32_t i = 0, end = 0; i < v->reloc_count; i++) {
        n += put_distance(p ? p + n : NULL, v->relocs[i].host_off - end);
        end = v->relocs[i].host_off + 4;
    }
    for (uint32_t i = 0, end = 0; i < v->link_count; i++) {
        n += put_distance(p ? p + n : NULL, v->links[i].field_off - end);
        end = v->links[i].field_off + 4;
    }
    return n;
}

static void put_bytes(uint8_t **p, const void *from, size_t n)
{
    if (n)
        memcpy(*p, from, n);
    *p += n;
}

size_t xlat_serialize(const struct xlat_verso *v, uint8_t *buf, size_t cap)
{
    size_t fields = put_fields(v, NULL), size = HEAD_SIZE + v->code_len + fields + v->unwind_len;
    const uint32_t head[HEAD_WORDS] = {MAGIC,         v->mode,       v->options,       v->code_len,   v->reloc_count,
                                       v->link_count, (uint32_t)fields, v->unwind_len, v->insn_count, v->emulated_count};
    uint8_t *p = buf;

    if (cap < size)
        return size;
    for (unsigned n = 0; n < HEAD_WORDS; n++)
        put_4(&p, head[n]);
    put_bytes(&p, v->code, v->code_len);
    p += put_fields(v, p);
    put_bytes(&p, v->unwind, v->unwind_len);
    return size;
}

uint32_t xlat_serialized_tables(const struct xlat_verso *v)
{
    return (uint32_t)put_fields(v, NULL) + v->unwind_len;
}

/* -- Reading
 * ------------------------------------------------------------------------------------------------------ */

/* The offset of the next field, which begins where *end says or later; *end: behind it. False if it is not in the code. */
static bool read_field(const uint8_t **p, const uint8_t *stop, uint32_t code_len, uint32_t *end, uint32_t *off)
{
    uint32_t d = 0;
    uint8_t b = 0x80;

    for (unsigned shift = 0; b & 0x80; shift += 7) {
        if (*p == stop || shift > 21)
            return false;
        b = *(*p)++;
        d |= (uint32_t)(b & 0x7F) << shift;
    }
    *off = *end + d; /* both below 2^28 */
    *end = *off + 4;
    return *end <= code_len;
}

static bool read_link(const struct xlat_verso *v, struct xlat_link *l)
{
    uint32_t rel;

    memcpy(&rel, v->code + l->field_off, 4);
    l->tail_off = l->field_off + 4 + rel;
    if (v->code_len < TAIL_SIZE || l->tail_off > v->code_len - TAIL_SIZE || v->code[l->tail_off] != 0x41 ||
        v->code[l->tail_off + 1] != 0xB8)
        return false;
    memcpy(&l->target, v->code + l->tail_off + 2, 4);
    return true;
}

static bool read_fields(const struct xlat_verso *v, const uint8_t *p, const uint8_t *stop)
{
    for (uint32_t i = 0, end = 0; i < v->reloc_count; i++)
        if (!read_field(&p, stop, v->code_len, &end, &v->relocs[i].host_off))
            return false;
    for (uint32_t i = 0, end = 0; i < v->link_count; i++)
        if (!read_field(&p, stop, v->code_len, &end, &v->links[i].field_off) || !read_link(v, &v->links[i]))
            return false;
    return p == stop;
}

static bool read_head(const uint8_t *buf, size_t len, struct xlat_verso *v, uint32_t *fields_len)
{
    const uint8_t *p = buf;

    if (len < HEAD_SIZE || get_4(&p) != MAGIC)
        return false;
    v->mode = get_4(&p);
    v->options = get_4(&p);
    v->code_len = get_4(&p);
    v->reloc_count = get_4(&p);
    v->link_count = get_4(&p);
    *fields_len = get_4(&p);
    v->unwind_len = get_4(&p);
    v->insn_count = get_4(&p);
    v->emulated_count = get_4(&p);
    return v->mode < XLAT_MODE_COUNT && v->code_len <= XLAT_CODE_MAX && v->reloc_count <= COUNT_MAX &&
           v->link_count <= COUNT_MAX && *fields_len <= BYTES_MAX && v->unwind_len <= BYTES_MAX &&
           v->insn_count <= SCAN_PAGE_SIZE && v->emulated_count <= v->insn_count &&
           HEAD_SIZE + (size_t)v->code_len + *fields_len + v->unwind_len == len;
}

/* Room for all arrays but the code, by their counts, in one block: those of wider items first. */
static bool take_block(struct xlat_verso *v)
{
    size_t relocs = v->reloc_count * sizeof *v->relocs, links = v->link_count * sizeof *v->links;
    uint8_t *at = v->block = malloc(relocs + links + v->unwind_len + 1);

    if (!at)
        return false;
    v->relocs = (struct xlat_reloc *)(void *)at;
    v->links = (struct xlat_link *)(void *)(at + relocs);
    v->unwind = at + relocs + links;
    return true;
}

bool xlat_verso_pack(const struct xlat_verso *v, struct xlat_verso *out)
{
    *out = *v;
    out->code_cap = out->reloc_cap = out->link_cap = out->unwind_cap = 0;
    if (!take_block(out)) {
        xlat_verso_init(out);
        return false;
    }
    memcpy(out->relocs, v->relocs, v->reloc_count * sizeof *v->relocs);
    if (v->link_count)
        memcpy(out->links, v->links, v->link_count * sizeof *v->links);
    memcpy(out->unwind, v->unwind, v->unwind_len);
    return true;
}

static bool read_body(const uint8_t *p, uint32_t fields_len, struct xlat_verso *v, struct xlat_index *index)
{
    const uint8_t *fields = p + v->code_len, *unwind = fields + fields_len;

    if (!take_block(v))
        return false;
    v->code = (uint8_t *)(uintptr_t)p; /* nobody writes to it: the type is that of a verso being made */
    memcpy(v->unwind, unwind, v->unwind_len);
    return read_fields(v, fields, unwind) && unwind_check(v->unwind, v->unwind_len, v->code_len, index);
}

bool xlat_deserialize(const uint8_t *buf, size_t len, struct xlat_verso *out, struct xlat_index *index)
{
    struct xlat_verso v = {0};
    struct xlat_index own;
    uint32_t fields_len;

    xlat_verso_init(out);
    index = index ? index : &own;
    index->made = false;
    if (!read_head(buf, len, &v, &fields_len))
        return false;
    if (!read_body(buf + HEAD_SIZE, fields_len, &v, index)) {
        index->made = false;
        xlat_verso_free(&v);
        return false;
    }
    *out = v;
    return true;
}
