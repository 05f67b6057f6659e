/* monitor/trace_file.c: names, selection, text lines and the compact form of traces (TRACE_FORMAT.md). Pure. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "monitor/trace.h"

/* -- Tables ----------------------------------------------------------------------------------------------- */

struct field {
    const char *name;
    enum trace_type type;
};
struct kind {
    const char *name, *text;
    enum trace_group group;
    struct field field[TRACE_FIELDS];
};

static const struct kind kinds[TRACE_KIND_COUNT] = {
#define TRACE_KIND(id, group, name, text, ...) {name, text, TRACE_GROUP_##group, {__VA_ARGS__}},
#include "monitor/trace.def"
#undef TRACE_KIND
};
static const struct {
    const char *name, *text;
} groups[TRACE_GROUP_COUNT] = {
#define TRACE_GROUP(id, name, text) {name, text},
#include "monitor/trace.def"
#undef TRACE_GROUP
};
static const char *const modes[4] = {"real", "v86", "p16", "p32"};
static const char *const whys[TRACE_WHY_COUNT] = {"off", "absent", "refused", "entry", "rescan"};

const char *trace_group_name(enum trace_group g)
{
    return groups[g].name;
}
const char *trace_group_text(enum trace_group g)
{
    return groups[g].text;
}
enum trace_group trace_kind_group(enum trace_kind k)
{
    return kinds[k].group;
}
const char *trace_kind_name(enum trace_kind k)
{
    return kinds[k].name;
}
const char *trace_kind_text(enum trace_kind k)
{
    return kinds[k].text;
}

unsigned trace_kind_fields(enum trace_kind k)
{
    unsigned n = 0;
    while (n < TRACE_FIELDS && kinds[k].field[n].name)
        n++;
    return n;
}

uint64_t trace_group_kinds(enum trace_group g)
{
    uint64_t bits = 0;
    for (unsigned k = 0; k < TRACE_KIND_COUNT; k++)
        if (kinds[k].group == g)
            bits |= 1ull << k;
    return bits;
}

/* -- Selection -------------------------------------------------------------------------------------------- */

static bool in_ranges(const struct trace_filter *f, uint32_t a)
{
    for (unsigned i = 0; i < f->ranges; i++)
        if (a >= f->range[i].first && a <= f->range[i].last)
            return true;
    return false;
}

bool trace_filter_passes(const struct trace_filter *f, const struct trace_event *e)
{
    if (!(f->kinds >> e->kind & 1) || (f->cpls && !(f->cpls >> TRACE_CPL(e->context) & 1)))
        return false;
    if (!f->ranges || in_ranges(f, e->eip))
        return true;
    return kinds[e->kind].field[0].name && kinds[e->kind].field[0].type == TRACE_ADDRESS &&
           in_ranges(f, (uint32_t)e->field[0]);
}

/* Copies the next word of a comma-separated list; NULL: there is none. */
static const char *next_word(const char *list, char *word, size_t size)
{
    if (!list || !*list)
        return NULL;
    size_t n = strcspn(list, ",");
    size_t take = n < size - 1 ? n : size - 1;
    memcpy(word, list, take);
    word[take] = 0;
    return list + n + (list[n] == ',');
}

static uint64_t named(const char *word)
{
    if (!strcmp(word, "all"))
        return (1ull << TRACE_KIND_COUNT) - 1;
    uint64_t bits = 0;
    for (unsigned g = 0; g < TRACE_GROUP_COUNT; g++)
        if (!strcmp(word, groups[g].name))
            bits |= trace_group_kinds((enum trace_group)g);
    for (unsigned k = 0; k < TRACE_KIND_COUNT && !bits; k++)
        if (!strcmp(word, kinds[k].name))
            bits |= 1ull << k;
    return bits;
}

bool trace_parse_kinds(const char *list, uint64_t *out, char bad[32])
{
    char word[32];
    *out = 0;
    while ((list = next_word(list, word, sizeof(word)))) {
        bool without = word[0] == '-';
        uint64_t bits = named(word + without);
        if (!bits) {
            memcpy(bad, word, sizeof(word));
            return false;
        }
        *out = without ? *out & ~bits : *out | bits;
    }
    memcpy(bad, "", 1);
    return *out != 0;
}

bool trace_parse_cpls(const char *list, uint8_t *cpls)
{
    char word[8];
    *cpls = 0;
    while ((list = next_word(list, word, sizeof(word)))) {
        if (word[0] < '0' || word[0] > '3' || word[1])
            return false;
        *cpls |= (uint8_t)(1u << (word[0] - '0'));
    }
    return *cpls != 0;
}

static bool parse_address(const char *text, char **end, uint64_t *out)
{
    if (!isxdigit((unsigned char)*text))
        return false;
    errno = 0;
    *out = strtoull(text, end, 16);
    return !errno && *out <= UINT32_MAX;
}

bool trace_parse_ranges(const char *list, struct trace_filter *f)
{
    char word[32], *end;
    bool any = false;
    while ((list = next_word(list, word, sizeof(word)))) {
        uint64_t first, last;
        if (f->ranges == TRACE_RANGES || !parse_address(word, &end, &first))
            return false;
        last = first;
        if (*end == '-') {
            if (!parse_address(end + 1, &end, &last))
                return false;
        } else if (*end == '+') {
            if (!parse_address(end + 1, &end, &last) || !last)
                return false;
            last += first - 1;
        }
        if (*end || last < first || last > UINT32_MAX)
            return false;
        f->range[f->ranges].first = (uint32_t)first;
        f->range[f->ranges++].last = (uint32_t)last;
        any = true;
    }
    return any;
}

/* -- Text ------------------------------------------------------------------------------------------------- */

/* Hexadecimal digits of v, at least `digits`. By hand: signal handlers get here, and a boot has hundreds of millions
 * of control transfers. */
static char *put_hex(char *p, uint64_t v, unsigned digits)
{
    while (digits < 16 && v >> 4 * digits)
        digits++;
    for (unsigned i = digits; i-- > 0;)
        *p++ = "0123456789abcdef"[v >> 4 * i & 15];
    return p;
}

static char *put_count(char *p, uint64_t v)
{
    char digits[20];
    unsigned n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n)
        *p++ = digits[--n];
    return p;
}

static char *put_text(char *p, const char *text)
{
    while (*text)
        *p++ = *text++;
    return p;
}

static char *put_context(char *p, unsigned context)
{
    p = put_text(p, modes[TRACE_MODE(context)]);
    *p++ = '/';
    *p++ = (char)('0' + TRACE_CPL(context));
    return p;
}

static char *put_field(char *p, const struct field *f, uint64_t v)
{
    *p++ = ' ';
    p = put_text(p, f->name);
    *p++ = '=';
    switch (f->type) {
    case TRACE_HEX:
        return put_hex(p, v, 1);
    case TRACE_COUNT:
        return put_count(p, v);
    case TRACE_ADDRESS:
        return put_hex(p, v, 8);
    case TRACE_ERROR:
        return v ? put_hex(p, v - 1, 1) : put_text(p, "none");
    case TRACE_CONTEXT:
        return put_context(p, (unsigned)v);
    case TRACE_WHY:
        return put_text(p, v < TRACE_WHY_COUNT ? whys[v] : "?");
    }
    return p;
}

size_t trace_text(const struct trace_event *e, char text[TRACE_TEXT_MAX])
{
    const struct kind *k = &kinds[e->kind];
    char *p = put_text(text, k->name);
    p = put_text(p, " eip=");
    p = put_hex(p, e->cs, 4);
    *p++ = ':';
    p = put_hex(p, e->eip, 8);
    *p++ = ' ';
    p = put_context(p, e->context);
    for (unsigned i = 0; i < TRACE_FIELDS && k->field[i].name; i++)
        p = put_field(p, &k->field[i], e->field[i]);
    *p = 0;
    return (size_t)(p - text);
}

/* -- The compact form ------------------------------------------------------------------------------------- */

#define SYNC        0x4B4C4254u /* "TBLK" */
#define FLAG_RING   1u
#define NEW_CONTEXT 0x80u

static const uint8_t magic[8] = {'V', 'E', 'R', 'S', 'O', 'T', 'R', 'C'};

static void put_le(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_le(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

void trace_put_header(const struct trace_header *h, uint8_t out[TRACE_HEADER_BYTES])
{
    memset(out, 0, TRACE_HEADER_BYTES);
    memcpy(out, magic, sizeof(magic));
    put_le(out + 8, TRACE_VERSION, 2);
    put_le(out + 10, TRACE_HEADER_BYTES, 2);
    put_le(out + 12, h->ring ? FLAG_RING : 0, 4);
    put_le(out + 16, h->began_ns, 8);
    put_le(out + 28, XXH32(out, 28, 0), 4);
}

enum trace_header_result trace_get_header(const uint8_t in[TRACE_HEADER_BYTES], struct trace_header *out)
{
    if (memcmp(in, magic, sizeof(magic)))
        return TRACE_HEADER_FOREIGN;
    if (get_le(in + 8, 2) != TRACE_VERSION || get_le(in + 10, 2) != TRACE_HEADER_BYTES)
        return TRACE_HEADER_VERSION;
    if (get_le(in + 28, 4) != XXH32(in, 28, 0))
        return TRACE_HEADER_DAMAGED;
    out->ring = get_le(in + 12, 4) & FLAG_RING;
    out->began_ns = get_le(in + 16, 8);
    return TRACE_HEADER_OK;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static uint32_t zigzag(uint32_t difference)
{
    return difference << 1 ^ (difference >> 31 ? UINT32_MAX : 0);
}

static uint32_t unzigzag(uint32_t v)
{
    return v >> 1 ^ (0u - (v & 1));
}

bool trace_block_add(struct trace_block *b, const struct trace_event *e)
{
    const struct kind *k = &kinds[e->kind];
    if (b->len + TRACE_RECORD_MAX > TRACE_PAYLOAD_MAX)
        return false;
    uint8_t *p = b->bytes + TRACE_BLOCK_HEAD + b->len;
    bool changed = e->context != b->context || e->cs != b->cs;
    *p++ = (uint8_t)(e->kind | (changed ? NEW_CONTEXT : 0));
    if (changed) {
        *p++ = e->context;
        put_le(p, e->cs, 2);
        p += 2;
    }
    p = put_varint(p, zigzag(e->eip - b->eip));
    p = put_varint(p, e->ns - b->ns);
    for (unsigned i = 0; i < TRACE_FIELDS && k->field[i].name; i++) {
        bool address = k->field[i].type == TRACE_ADDRESS;
        p = put_varint(p, address ? zigzag((uint32_t)e->field[i] - e->eip) : e->field[i]);
    }
    b->ns = e->ns;
    b->eip = e->eip;
    b->cs = e->cs;
    b->context = e->context;
    b->len = (uint32_t)(p - b->bytes) - TRACE_BLOCK_HEAD;
    b->records++;
    return true;
}

static uint32_t block_sum(const uint8_t *block, uint32_t len)
{
    return XXH32(block + TRACE_BLOCK_HEAD, len, XXH32(block, 20, 0));
}

void trace_block_finish(struct trace_block *b)
{
    put_le(b->bytes, SYNC, 4);
    put_le(b->bytes + 4, b->len, 4);
    put_le(b->bytes + 8, b->records, 4);
    put_le(b->bytes + 12, b->first, 8);
    put_le(b->bytes + 20, block_sum(b->bytes, b->len), 4);
}

static bool sound(const uint8_t *p, uint32_t len)
{
    return get_le(p + 20, 4) == block_sum(p, len);
}

/* Where the next block may begin, at least one byte from p on. */
static size_t next_sync(const uint8_t *p, size_t len)
{
    for (size_t i = 1; i + 4 <= len; i++)
        if (get_le(p + i, 4) == SYNC)
            return i;
    return len > 4 ? len - 3 : 1;
}

enum trace_read trace_read_block(const uint8_t *p, size_t len, bool end, size_t *used,
                                 struct trace_cursor *out)
{
    *used = 0;
    if (!len)
        return end ? TRACE_READ_END : TRACE_READ_MORE;
    if (len < TRACE_BLOCK_HEAD && !end)
        return TRACE_READ_MORE;
    bool head = len >= TRACE_BLOCK_HEAD;
    uint32_t payload = head ? (uint32_t)get_le(p + 4, 4) : 0;
    if (head && get_le(p, 4) == SYNC && payload <= TRACE_PAYLOAD_MAX) {
        bool whole = len - TRACE_BLOCK_HEAD >= payload;
        if (!whole && !end)
            return TRACE_READ_MORE;
        if (whole && sound(p, payload)) {
            *used = TRACE_BLOCK_HEAD + payload;
            *out = (struct trace_cursor){.p = p + TRACE_BLOCK_HEAD,
                                         .end = p + *used,
                                         .left = (uint32_t)get_le(p + 8, 4),
                                         .number = get_le(p + 12, 8)};
            return TRACE_READ_BLOCK;
        }
    }
    *used = next_sync(p, len);
    /* What is left at the end of the file and holds no further block was cut off there. */
    if (end && *used + 4 > len) {
        *used = len;
        return TRACE_READ_CUT;
    }
    return TRACE_READ_SKIP;
}

static bool get_varint(struct trace_cursor *c, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && c->p < c->end; shift += 7) {
        uint8_t byte = *c->p++;
        *out |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool get_distance(struct trace_cursor *c, uint32_t from, uint32_t *out)
{
    uint64_t v;
    if (!get_varint(c, &v) || v > UINT32_MAX)
        return false;
    *out = from + unzigzag((uint32_t)v);
    return true;
}

static bool get_event(struct trace_cursor *c, struct trace_event *e)
{
    if (c->p == c->end)
        return false;
    uint8_t first = *c->p++;
    uint64_t ns;
    e->kind = first & (NEW_CONTEXT - 1);
    if (e->kind >= TRACE_KIND_COUNT)
        return false;
    if (first & NEW_CONTEXT) {
        if (c->end - c->p < 3 || c->p[0] > 15)
            return false;
        c->context = *c->p++;
        c->cs = (uint16_t)get_le(c->p, 2);
        c->p += 2;
    }
    if (!get_distance(c, c->eip, &c->eip) || !get_varint(c, &ns))
        return false;
    c->ns += ns;
    for (unsigned i = 0; i < TRACE_FIELDS && kinds[e->kind].field[i].name; i++) {
        uint32_t address;
        if (kinds[e->kind].field[i].type != TRACE_ADDRESS) {
            if (!get_varint(c, &e->field[i]))
                return false;
            continue;
        }
        if (!get_distance(c, c->eip, &address))
            return false;
        e->field[i] = address;
    }
    e->ns = c->ns;
    e->eip = c->eip;
    e->cs = c->cs;
    e->context = c->context;
    return true;
}

bool trace_read_event(struct trace_cursor *c, struct trace_event *e, bool *bad)
{
    *e = (struct trace_event){0};
    *bad = false;
    if (!c->left) {
        *bad = c->p != c->end;
        return false;
    }
    if (!get_event(c, e)) {
        *bad = true;
        return false;
    }
    c->left--;
    c->number++;
    return true;
}
