/* translator/unwind.c: see unwind.h for the byte form, xlat.h for the meaning. */
#include "translator/unwind.h"

#include <emmintrin.h>
#include <string.h>

enum { STATE = 0x07, ARG_SHIFT = 4, XCHG_ARG = 0x03 };

static uint32_t get_4(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_4(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* -- Reading
 * ------------------------------------------------------------------------------------------------------ */

struct streams {
    const uint8_t *entry, *entry_end, *other, *other_end;
    uint32_t code_len;
};

static bool open_streams(const uint8_t *unwind, uint32_t len, struct streams *s)
{
    if (len < UNWIND_HEAD || get_4(unwind) > len - UNWIND_HEAD)
        return false;
    s->entry = unwind + UNWIND_HEAD;
    s->entry_end = s->other = s->entry + get_4(unwind);
    s->other_end = unwind + len;
    s->code_len = get_4(unwind + 4);
    return true;
}

static bool read_leb(const uint8_t **p, const uint8_t *end, uint32_t *out)
{
    uint32_t v = 0;

    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint8_t b;

        if (*p == end)
            return false;
        b = *(*p)++;
        if (shift == 28 && b > 0x0F)
            return false;
        v |= (uint32_t)(b & 0x7F) << shift;
        if (!(b & 0x80)) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* The long form of an entry. False also if it begins behind the code. */
static bool read_long(const uint8_t **p, const uint8_t *end, uint32_t code_len, uint32_t *host, int32_t *guest)
{
    uint32_t h, g;

    (*p)++; /* UNWIND_LONG */
    if (!read_leb(p, end, &h) || !read_leb(p, end, &g) || h >= code_len || *host >= code_len - h)
        return false;
    *host += h;
    *guest = (int32_t)((uint32_t)*guest + ((g >> 1) ^ -(g & 1)));
    return true;
}

/* What the forms of one byte add to the last entry's offsets. */
#define ANY_1_8(h) {h, 1}, {h, 2}, {h, 3}, {h, 4}, {h, 5}, {h, 6}, {h, 7}, {h, 8}
#define CALL_8(h) {h, 5}, {h + 1, 5}, {h + 2, 5}, {h + 3, 5}, {h + 4, 5}, {h + 5, 5}, {h + 6, 5}, {h + 7, 5}
static const struct {
    uint8_t host, guest;
} step[256] = {ANY_1_8(0),  ANY_1_8(1),  ANY_1_8(2),  ANY_1_8(3),  ANY_1_8(4),  ANY_1_8(5),  ANY_1_8(6),  ANY_1_8(7),
               ANY_1_8(8),  ANY_1_8(9),  ANY_1_8(10), ANY_1_8(11), ANY_1_8(12), ANY_1_8(13), ANY_1_8(14), ANY_1_8(15),
               CALL_8(16),  CALL_8(24),  CALL_8(32),  CALL_8(40),  CALL_8(48),  CALL_8(56),  CALL_8(64),  CALL_8(72),
               ANY_1_8(16), ANY_1_8(17), ANY_1_8(18), ANY_1_8(19), ANY_1_8(20), ANY_1_8(21), ANY_1_8(22), ANY_1_8(23)};

static inline void read_short(uint8_t b, uint32_t *host, int32_t *guest)
{
    *host += step[b].host;
    *guest = (int32_t)((uint32_t)*guest + step[b].guest);
}

static bool is_far(const uint8_t *p)
{
    return (*p & (UNWIND_WIDE | UNWIND_FAR)) == (UNWIND_WIDE | UNWIND_FAR);
}

static bool is_widest(const uint8_t *p)
{
    return (*p & (UNWIND_WIDE | UNWIND_FAR)) == UNWIND_WIDE;
}

static unsigned other_size(const uint8_t *p)
{
    return !(*p & UNWIND_WIDE) ? UNWIND_OTHER_SIZE : *p & UNWIND_FAR ? UNWIND_FAR_SIZE : UNWIND_WIDE_SIZE;
}

static uint32_t other_host(const uint8_t *p)
{
    return is_widest(p) ? get_4(p + 1) >> 8 : p[1];
}

/* All of it but the host offset. */
static void read_other(const uint8_t *p, int32_t entry_rel, struct xlat_unwound *out)
{
    int32_t guest = is_widest(p) ? (int32_t)get_4(p + 5) : is_far(p) ? (int32_t)get_4(p + 1) >> 8 : (int8_t)p[2];
    int arg = is_widest(p) ? (int8_t)p[1] : is_far(p) ? 0 : (int8_t)*p >> ARG_SHIFT;

    out->state = (enum xlat_state)(*p & STATE);
    out->guest_rel = unwind_has_guest(out->state) ? (int32_t)((uint32_t)entry_rel + (uint32_t)guest) : 0;
    out->arg = (uint8_t)(out->state == XLAT_AT_ESP ? arg : arg & XCHG_ARG);
}

void unwind_reader_init(struct unwind_reader *r, const uint8_t *unwind, uint32_t len)
{
    struct streams s;

    *r = (struct unwind_reader){.bad = true};
    if (!open_streams(unwind, len, &s))
        return;
    *r = (struct unwind_reader){.entry = s.entry,
                                .entry_end = s.entry_end,
                                .other = s.other,
                                .other_end = s.other_end,
                                .code_len = s.code_len};
}

/* The entry at p, behind which *p is then. */
static bool read_entry(const uint8_t **p, const uint8_t *end, uint32_t code_len, uint32_t *host, int32_t *guest)
{
    if (**p == UNWIND_LONG)
        return read_long(p, end, code_len, host, guest);
    read_short(*(*p)++, host, guest);
    return true;
}

static bool take_entry(struct unwind_reader *r, const struct unwind_reader *behind, struct unwind_rec *out)
{
    *r = *behind;
    *out = (struct unwind_rec){.host_off = r->entry_host, .guest_rel = r->entry_rel, .state = XLAT_AT, .entry = true};
    return true;
}

static bool take_other(struct unwind_reader *r, struct unwind_rec *out)
{
    struct xlat_unwound u;

    read_other(r->other, r->entry_rel, &u);
    r->other_host += other_host(r->other);
    r->other += other_size(r->other);
    *out = (struct unwind_rec){.host_off = r->other_host, .guest_rel = u.guest_rel, .state = u.state, .arg = u.arg};
    return true;
}

bool unwind_read(struct unwind_reader *r, struct unwind_rec *out)
{
    struct unwind_reader next = *r;
    bool has_entry = r->entry < r->entry_end, has_other = r->other < r->other_end;

    if (r->bad || r->ended)
        return false;
    r->bad = (has_entry && !read_entry(&next.entry, next.entry_end, next.code_len, &next.entry_host, &next.entry_rel)) ||
             (has_other && (uint32_t)(r->other_end - r->other) < other_size(r->other));
    if (r->bad)
        return false;
    if (has_entry && (!has_other || next.entry_host <= r->other_host + other_host(r->other)))
        return take_entry(r, &next, out);
    if (has_other)
        return take_other(r, out);
    r->ended = true;
    *out = (struct unwind_rec){.host_off = r->code_len, .state = XLAT_RETRY, .is_end = true};
    return true;
}

/* The last entry at or in front of host_off, from one that *host and *guest tell on. */
static bool last_entry(const struct streams *s, uint32_t host_off, uint32_t *host, int32_t *guest)
{
    uint32_t h = *host;
    int32_t g = *guest;
    bool found = false;

    for (const uint8_t *p = s->entry; p < s->entry_end;) {
        if (!read_entry(&p, s->entry_end, s->code_len, &h, &g) || h > host_off)
            break;
        *host = h;
        *guest = g;
        found = true;
    }
    return found;
}

/* The last of the others at or in front of host_off, or NULL; *host: from where on, and where it begins. */
static const uint8_t *last_other(const struct streams *s, uint32_t host_off, uint32_t *host)
{
    const uint8_t *found = NULL;
    uint32_t h = *host;

    for (const uint8_t *p = s->other; p < s->other_end; p += other_size(p)) {
        if ((uint32_t)(s->other_end - p) < other_size(p))
            break;
        h += other_host(p);
        if (h > host_off)
            break;
        *host = h;
        found = p;
    }
    return found;
}

bool xlat_unwind(const uint8_t *unwind, uint32_t unwind_len, uint32_t host_off, struct xlat_unwound *out)
{
    return xlat_unwind_marked(unwind, unwind_len, NULL, 0, host_off, out);
}

uint32_t xlat_marks(const uint8_t *unwind, uint32_t unwind_len, struct xlat_mark *marks, uint32_t cap)
{
    struct unwind_reader r, before;
    struct unwind_rec rec;
    uint32_t n = 0;

    unwind_reader_init(&r, unwind, unwind_len);
    for (uint32_t i = 0; before = r, unwind_read(&r, &rec); i++) {
        if (i % XLAT_MARK_EVERY != 0)
            continue;
        if (n < cap)
            marks[n] = (struct xlat_mark){.first = rec.host_off,
                                          .entry_at = (uint32_t)(before.entry - unwind),
                                          .entry_host = before.entry_host,
                                          .other_at = (uint32_t)(before.other - unwind),
                                          .other_host = before.other_host,
                                          .entry_rel = before.entry_rel};
        n++;
    }
    return n;
}

/* The last mark at or in front of host_off, or NULL. */
static const struct xlat_mark *find_mark(const struct xlat_mark *marks, uint32_t count, uint32_t host_off)
{
    uint32_t low = 0, high = count; /* marks below low begin at or in front of host_off, those from high on behind it */

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (marks[middle].first <= host_off)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &marks[low - 1] : NULL;
}

bool xlat_unwind_marked(const uint8_t *unwind, uint32_t unwind_len, const struct xlat_mark *marks, uint32_t mark_count,
                        uint32_t host_off, struct xlat_unwound *out)
{
    const struct xlat_mark *mark = find_mark(marks, mark_count, host_off);
    uint32_t entry_host = 0, at_other = 0;
    int32_t guest = 0;
    struct streams s;

    if (!open_streams(unwind, unwind_len, &s) || host_off >= s.code_len)
        return false;
    if (mark) { /* what covers host_off is behind it: nothing in front of it is looked for */
        s.entry = unwind + mark->entry_at;
        s.other = unwind + mark->other_at;
        entry_host = mark->entry_host;
        at_other = mark->other_host;
        guest = mark->entry_rel;
    }
    bool has_entry = last_entry(&s, host_off, &entry_host, &guest);
    const uint8_t *other = last_other(&s, host_off, &at_other);
    if (other && (!has_entry || at_other >= entry_host)) {
        read_other(other, guest, out);
        return true;
    }
    *out = (struct xlat_unwound){.state = XLAT_AT, .guest_rel = guest};
    return has_entry;
}

int32_t xlat_entry(const uint8_t *unwind, uint32_t unwind_len, uint32_t guest_off)
{
    struct streams s;
    uint32_t host = 0;
    int32_t guest = 0;

    if (!open_streams(unwind, unwind_len, &s))
        return -1;
    for (const uint8_t *p = s.entry; p < s.entry_end;) {
        if (!read_entry(&p, s.entry_end, s.code_len, &host, &guest))
            return -1;
        if ((uint32_t)guest == guest_off)
            return (int32_t)host;
    }
    return -1;
}

void xlat_entries(const uint8_t *unwind, uint32_t unwind_len, int32_t entries[SCAN_PAGE_SIZE])
{
    struct streams s;
    uint32_t host = 0;
    int32_t guest = 0;

    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        entries[i] = -1;
    if (!open_streams(unwind, unwind_len, &s))
        return;
    for (const uint8_t *p = s.entry; p < s.entry_end;) {
        if (!read_entry(&p, s.entry_end, s.code_len, &host, &guest))
            return;
        if ((uint32_t)guest < SCAN_PAGE_SIZE)
            entries[guest] = (int32_t)host;
    }
}

/* -- The index
 * ------------------------------------------------------------------------------------------------------ */

/* Bits set. (The compiler's own is a call of a table look-up where POPCNT may not be assumed.) */
static uint32_t count_bits(uint64_t v)
{
    v -= v >> 1 & UINT64_C(0x5555555555555555);
    v = (v & UINT64_C(0x3333333333333333)) + (v >> 2 & UINT64_C(0x3333333333333333));
    return (uint32_t)(((v + (v >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F)) * UINT64_C(0x0101010101010101) >> 56);
}

int32_t xlat_index_find(const struct xlat_index *x, const uint8_t *unwind, uint32_t guest_off)
{
    uint64_t has = x->has[guest_off >> 6], bit = UINT64_C(1) << (guest_off & 63);
    const uint8_t *p = unwind + x->from[guest_off >> 6].at;
    uint32_t host = x->from[guest_off >> 6].host;
    int32_t guest = 0;

    if (!(has & bit))
        return -1;
    for (uint32_t n = count_bits(has & (bit - 1)) + 1; n; n--)
        if (!read_entry(&p, unwind + x->end, UINT32_MAX, &host, &guest))
            return -1;
    return (int32_t)host;
}

enum { MARK = 0x80, WORDS = SCAN_PAGE_SIZE / 64 };

/* Where the entries are (marks[]: MARK), and where each one was read: behind[w] is the state behind the last one in front of word w. Returns
 * how many there are. */
static unsigned index_fill(struct xlat_index *x, const uint8_t marks[SCAN_PAGE_SIZE], const uint32_t behind[WORDS + 1])
{
    unsigned n = 0;
    uint32_t last = behind[0];

    for (unsigned w = 0; w < WORDS; w++) {
        uint64_t has = 0;

        for (unsigned i = 0; i < 4; i++) {
            __m128i m = _mm_loadu_si128((const __m128i *)(const void *)(marks + 64 * w + 16 * i));
            has |= (uint64_t)(unsigned)_mm_movemask_epi8(m) << 16 * i;
        }
        x->has[w] = has;
        x->from[w].at = (uint16_t)last;
        x->from[w].host = (uint16_t)(last >> 16);
        n += count_bits(has);
        if (has)
            last = behind[w + 1];
    }
    return n;
}

/* -- Checking
 * ------------------------------------------------------------------------------------------------------ */

/* *first: host offset of the first one. */
static bool check_entries(const struct streams *s, uint32_t *first, struct xlat_index *index)
{
    uint8_t marks[SCAN_PAGE_SIZE] = {0};
    uint32_t behind[WORDS + 1] = {UNWIND_HEAD}, host = 0; /* see index_fill() */
    const uint8_t *p = s->entry, *begin = p - UNWIND_HEAD;
    int32_t guest = 0;
    unsigned n = 0;
    bool in_order = s->code_len <= UINT16_MAX && s->entry_end - begin <= UINT16_MAX;

    *first = UINT32_MAX;
    while (p < s->entry_end) {
        int32_t last = n++ ? guest : -1;

        if (!read_entry(&p, s->entry_end, s->code_len, &host, &guest))
            return false;
        in_order = in_order && guest > last;
        *first = n == 1 ? host : *first;
        const uint8_t *after = p;
        for (;; read_short(*p++, &host, &guest)) { /* nearly all are in order by their form */
            if ((uint32_t)guest >= SCAN_PAGE_SIZE)
                return false;
            marks[guest] = MARK;
            behind[((uint32_t)guest >> 6) + 1] = (uint32_t)(p - begin) | host << 16;
            if (p == s->entry_end || *p == UNWIND_LONG)
                break;
        }
        n += (unsigned)(p - after);
    }
    index->made = in_order;
    index->end = (uint16_t)(s->entry_end - begin);
    return (!n || host < s->code_len) && index_fill(index, marks, behind) == n;
}

void xlat_index_make(const uint8_t *unwind, uint32_t unwind_len, uint32_t code_len, struct xlat_index *out)
{
    struct streams s;
    uint32_t first;

    out->made = false;
    if (open_streams(unwind, unwind_len, &s) && s.code_len == code_len && !check_entries(&s, &first, out))
        out->made = false;
}

static bool check_others(const struct streams *s, uint32_t *first)
{
    const uint8_t *p = s->other;
    uint32_t host = 0;

    *first = p < s->other_end && s->other_end - p >= (int)other_size(p) ? other_host(p) : UINT32_MAX;
    while (s->other_end - p >= UNWIND_OTHER_SIZE) {
        if (*p & UNWIND_WIDE) {
            if (s->other_end - p < (int)other_size(p) || *p & ~(UNWIND_WIDE | UNWIND_FAR | STATE))
                return false;
            host += other_host(p);
            p += other_size(p);
        } else {
            host += p[1];
            p += UNWIND_OTHER_SIZE;
        }
        if (host >= s->code_len)
            return false;
    }
    return p == s->other_end;
}

bool unwind_check(const uint8_t *unwind, uint32_t len, uint32_t code_len, struct xlat_index *index)
{
    struct streams s;
    uint32_t entry, other;

    index->made = false;
    bool right = open_streams(unwind, len, &s) && s.code_len == code_len && check_entries(&s, &entry, index) && check_others(&s, &other) &&
                 (entry == 0 || other == 0);
    index->made = index->made && right;
    return right;
}

/* -- Writing
 * ------------------------------------------------------------------------------------------------------ */

static unsigned write_leb(uint8_t *p, uint32_t v)
{
    unsigned n = 0;

    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

void unwind_begin(struct unwind_writer *w)
{
    w->entry_host = w->other_host = w->entry_len = 0;
    w->entry_rel = 0;
}

/* The byte that says so, or UNWIND_LONG. */
static unsigned short_form(uint32_t host, uint32_t guest)
{
    if (guest == 5 && host >= 16 && host < 80)
        return 0x80 | (host - 16);
    if (guest - 1 >= 8 || host >= 24)
        return UNWIND_LONG;
    return host < 16 ? host << 3 | (guest - 1) : 0xC0 | (host - 16) << 3 | (guest - 1); /* 23 and 8: UNWIND_LONG too */
}

static void put_entry(struct unwind_writer *w, const struct unwind_rec *rec)
{
    uint32_t host = rec->host_off - w->entry_host, guest = (uint32_t)rec->guest_rel - (uint32_t)w->entry_rel;
    uint8_t *p = w->entry + w->entry_len;

    w->entry_host = rec->host_off;
    w->entry_rel = rec->guest_rel;
    unsigned form = short_form(host, guest);
    *p++ = (uint8_t)form;
    if (form == UNWIND_LONG) {
        p += write_leb(p, host);
        p += write_leb(p, guest << 1 ^ -(guest >> 31));
    }
    w->entry_len = (uint32_t)(p - w->entry);
}

unsigned unwind_put(struct unwind_writer *w, uint8_t *p, const struct unwind_rec *rec)
{
    if (rec->entry) {
        put_entry(w, rec);
        return 0;
    }
    uint32_t host = rec->host_off - w->other_host;
    int32_t guest = unwind_has_guest(rec->state) ? (int32_t)((uint32_t)rec->guest_rel - (uint32_t)w->entry_rel) : 0;
    int arg = (int8_t)rec->arg;

    w->other_host = rec->host_off;
    if (host < 256 && guest == (int8_t)guest && arg >= -8 && arg < 8) {
        p[0] = (uint8_t)((unsigned)arg << ARG_SHIFT | rec->state);
        p[1] = (uint8_t)host;
        p[2] = (uint8_t)guest;
        return UNWIND_OTHER_SIZE;
    }
    if (host < 256 && guest >= -(1 << 23) && guest < 1 << 23 && !arg) {
        p[0] = (uint8_t)(UNWIND_WIDE | UNWIND_FAR | rec->state);
        put_4(p + 1, host | (uint32_t)guest << 8);
        return UNWIND_FAR_SIZE;
    }
    p[0] = (uint8_t)(UNWIND_WIDE | rec->state);
    put_4(p + 1, host << 8 | rec->arg);
    put_4(p + 5, (uint32_t)guest);
    return UNWIND_WIDE_SIZE;
}

uint32_t unwind_finish(const struct unwind_writer *w, uint8_t *out, uint32_t len, uint32_t code_len)
{
    memmove(out + UNWIND_HEAD + w->entry_len, out + UNWIND_HEAD, len);
    memcpy(out + UNWIND_HEAD, w->entry, w->entry_len);
    put_4(out, w->entry_len);
    put_4(out + 4, code_len);
    return UNWIND_HEAD + w->entry_len + len;
}
