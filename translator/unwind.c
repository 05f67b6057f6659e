/* translator/unwind.c: see unwind.h for the byte form, xlat.h for the meaning. */
#include "translator/unwind.h"

enum { LONG = UNWIND_LONG, ENTRY = 0x40, HAS_GUEST = 0x04, ARG = 0x03 };

void unwind_reader_init(struct unwind_reader *r, const uint8_t *unwind, uint32_t len)
{
    r->p = unwind;
    r->end = unwind ? unwind + len : unwind;
    r->host_off = 0;
    r->entry_rel = 0;
}

static bool read_leb(struct unwind_reader *r, uint32_t *out)
{
    uint32_t v = 0;

    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint8_t b;

        if (r->p == r->end)
            return false;
        b = *r->p++;
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

static bool read_long(struct unwind_reader *r, uint8_t head, struct unwind_rec *out)
{
    uint32_t host, guest = 0;

    out->state = (enum xlat_state)(head >> 3 & 7);
    out->is_end = (head & ENTRY) && out->state == XLAT_RETRY;
    out->entry = (head & ENTRY) && !out->is_end;
    out->arg = head & ARG;
    if (unwind_has_guest(out->state) != !!(head & HAS_GUEST) || (out->entry && out->state != XLAT_AT))
        return false;
    if (!read_leb(r, &host) || ((head & HAS_GUEST) && !read_leb(r, &guest)))
        return false;
    if (host > UINT32_MAX - r->host_off)
        return false;
    r->host_off += host;
    out->guest_rel = 0;
    if (out->state == XLAT_AT_ESP) {
        if (out->arg || r->p == r->end)
            return false;
        out->arg = *r->p++;
    }
    if (head & HAS_GUEST)
        out->guest_rel = (int32_t)((uint32_t)r->entry_rel + ((guest >> 1) ^ -(guest & 1)));
    return true;
}

bool unwind_read(struct unwind_reader *r, struct unwind_rec *out)
{
    uint8_t head;

    if (r->p == r->end)
        return false;
    head = *r->p;
    if (head & LONG) {
        struct unwind_reader at = *r;

        at.p++;
        if (!read_long(&at, head, out))
            return false;
        *r = at;
    } else {
        r->p++;
        r->host_off += head >> 3;
        out->guest_rel = (int32_t)((uint32_t)r->entry_rel + (head & 7) + 1);
        out->state = XLAT_AT;
        out->entry = true;
        out->is_end = false;
        out->arg = 0;
    }
    out->host_off = r->host_off;
    if (out->entry)
        r->entry_rel = out->guest_rel;
    return true;
}

static unsigned write_leb(uint8_t *p, uint32_t v)
{
    unsigned n = 0;

    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

unsigned unwind_write(uint8_t *p, const struct unwind_rec *rec, uint32_t *host_off, int32_t *entry_rel)
{
    uint32_t host = rec->host_off - *host_off, guest = (uint32_t)rec->guest_rel - (uint32_t)*entry_rel;
    unsigned n = 0;

    *host_off = rec->host_off;
    if (rec->entry)
        *entry_rel = rec->guest_rel;
    if (rec->entry && host < 16 && guest - 1 < 8) {
        p[0] = (uint8_t)(host << 3 | (guest - 1));
        return 1;
    }
    p[n++] = (uint8_t)(LONG | (rec->entry || rec->is_end ? ENTRY : 0) | rec->state << 3 |
                       (unwind_has_guest(rec->state) ? HAS_GUEST : 0) | (rec->state == XLAT_AT_ESP ? 0 : rec->arg & ARG));
    n += write_leb(p + n, host);
    if (unwind_has_guest(rec->state))
        n += write_leb(p + n, guest << 1 ^ -(guest >> 31));
    if (rec->state == XLAT_AT_ESP)
        p[n++] = rec->arg;
    return n;
}

static bool find(struct unwind_reader *r, uint32_t host_off, struct xlat_unwound *out)
{
    struct unwind_rec rec;
    bool found = false;

    while (unwind_read(r, &rec) && rec.host_off <= host_off) {
        if (rec.is_end)
            return false;
        out->state = rec.state;
        out->guest_rel = rec.guest_rel;
        out->arg = rec.arg;
        found = true;
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
            marks[n] = (struct xlat_mark){rec.host_off, (uint32_t)(before.p - unwind), before.host_off, before.entry_rel};
        n++;
    }
    return n;
}

bool xlat_unwind_marked(const uint8_t *unwind, uint32_t unwind_len, const struct xlat_mark *marks, uint32_t mark_count,
                        uint32_t host_off, struct xlat_unwound *out)
{
    struct unwind_reader r;
    uint32_t low = 0, high = mark_count; /* marks below low begin at or in front of host_off, those from high on behind it */

    unwind_reader_init(&r, unwind, unwind_len);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (marks[middle].first <= host_off)
            low = middle + 1;
        else
            high = middle;
    }
    if (low) {
        r.p = unwind + marks[low - 1].at;
        r.host_off = marks[low - 1].host_off;
        r.entry_rel = marks[low - 1].entry_rel;
    }
    return find(&r, host_off, out);
}

int32_t xlat_entry(const uint8_t *unwind, uint32_t unwind_len, uint32_t guest_off)
{
    struct unwind_reader r;
    struct unwind_rec rec;

    unwind_reader_init(&r, unwind, unwind_len);
    while (unwind_read(&r, &rec))
        if (rec.entry && (uint32_t)rec.guest_rel == guest_off)
            return (int32_t)rec.host_off;
    return -1;
}

void xlat_entries(const uint8_t *unwind, uint32_t unwind_len, int32_t entries[SCAN_PAGE_SIZE])
{
    struct unwind_reader r;
    struct unwind_rec rec;

    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        entries[i] = -1;
    unwind_reader_init(&r, unwind, unwind_len);
    while (unwind_read(&r, &rec))
        if (rec.entry && (uint32_t)rec.guest_rel < SCAN_PAGE_SIZE)
            entries[rec.guest_rel] = (int32_t)rec.host_off;
}
