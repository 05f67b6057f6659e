/* tools/listing.c: a patched page as people read it: guest and host code side by side, and its attribute map.
 *
 * The host code is walked from its first to its last byte, so that nothing in it stays unseen: landings,
 * tails and stubs as well. The left column shows a guest instruction where its canonical entry is; the unwind
 * records say which guest address a host instruction belongs to, and in what state.
 */
#include "tools/listing.h"
#include "translator/xlat.h"

#include <stdlib.h>
#include <string.h>

/* -- The attribute map
 * ---------------------------------------------------------------------------------------------- */

/* The most telling property wins. */
char listing_attr_char(uint8_t a)
{
    if (a & SCAN_ATTR_STRADDLE)
        return '>';
    if (a & SCAN_ATTR_SENSITIVE)
        return '!';
    if (a & SCAN_ATTR_ENTRY)
        return 'E';
    if (a & SCAN_ATTR_TARGET)
        return 'T';
    if ((a & SCAN_ATTR_START) && (a & SCAN_ATTR_INSIDE))
        return 'X';
    if (a & SCAN_ATTR_START)
        return a & SCAN_ATTR_SWEPT ? 's' : 'i';
    return a & SCAN_ATTR_INSIDE ? '-' : '.';
}

void listing_map(FILE *to, const uint8_t attr[SCAN_PAGE_SIZE])
{
    fprintf(to,
            "attribute map: i instruction, - inside one, E entry, T branch target, ! sensitive, s found by "
            "sweep,\n"
            "               > runs into the next page, X overlapping, . data or unknown\n");
    for (unsigned off = 0; off < SCAN_PAGE_SIZE; off += 64) {
        char line[65];
        for (unsigned i = 0; i < 64; i++)
            line[i] = listing_attr_char(attr[off + i]);
        line[64] = 0;
        fprintf(to, "  %03x  %s\n", off, line);
    }
}

/* -- The listing
 * -------------------------------------------------------------------------------------------------------- */

/* n bytes as digits into out (2 * max + 1 bytes); a '+' ends it where there are more than max. */
void listing_hex(const uint8_t *p, unsigned n, unsigned max, char *out)
{
    unsigned shown = n < max ? n : max;
    for (unsigned i = 0; i < shown; i++)
        sprintf(out + 2 * i, "%02x", p[i]);
    out[2 * shown] = 0;
    if (n > max)
        out[2 * max - 1] = '+';
}

/* Text of the guest instruction at off; returns its length. */
static unsigned guest_text(const struct listing *s, unsigned off, char *text, size_t size, const char **cls)
{
    struct scan_insn in;
    const uint8_t *p = s->recto + off;
    size_t avail = SCAN_PAGE_SIZE - off;
    *cls = NULL;
    enum scan_decode_status st = scan_decode(p, avail, 32, &in);
    if (st == SCAN_TRUNCATED) {
        snprintf(text, size, "(runs into the next page)");
        return (unsigned)avail;
    }
    if (st == SCAN_OK && scan_class_sensitive((enum scan_class)in.cls))
        *cls = scan_class_name((enum scan_class)in.cls);
    unsigned n = scan_disassemble(p, avail, 32, s->base + off, text, size);
    if (!n) {
        snprintf(text, size, "(undefined)");
        return in.len ? in.len : 1;
    }
    return n;
}

static const char *state_text(const struct xlat_unwound *u)
{
    switch (u->state) {
    case XLAT_AT:
        return "";
    case XLAT_AT_R8:
        return "eip=r8d";
    case XLAT_AT_R8_RCX9:
        return "eip=r8d ecx=r9d";
    case XLAT_AT_RCX9:
        return "ecx=r9d";
    case XLAT_XCHG:
        return "xchg";
    case XLAT_STRING:
        return u->arg & XLAT_ARG_DF ? "DF set" : "string";
    case XLAT_AT_ESP:
        return "esp saved up";
    case XLAT_RETRY:
        return "retry";
    }
    return "?";
}

static const struct listing *sort_by; /* qsort has no argument for its comparison; single thread */

static int by_host(const void *a, const void *b)
{
    unsigned x = *(const uint16_t *)a, y = *(const uint16_t *)b;
    int32_t hx = sort_by->entries[x], hy = sort_by->entries[y];
    return hx < hy ? -1 : hx > hy ? 1 : x < y ? -1 : x > y;
}

static unsigned order_entries(const struct listing *s, uint16_t *order)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        if (s->entries[i] >= 0)
            order[n++] = (uint16_t)i;
    sort_by = s;
    qsort(order, n, sizeof(*order), by_host);
    return n;
}

void listing_init(struct listing *l)
{
    xlat_entries(l->unwind, l->unwind_len, l->entries);
}

/* Guest instructions in order of host code, [first, last) of them to be shown. */
struct walk {
    uint16_t order[SCAN_PAGE_SIZE];
    unsigned first, last;
    int mark;
};

static struct walk walk_of(const struct listing *s, int mark, unsigned around)
{
    struct walk w = {.mark = mark};
    unsigned at = 0, count = order_entries(s, w.order);
    w.last = count;
    if (mark == LISTING_ALL)
        return w;
    while (at < count && w.order[at] != mark)
        at++;
    w.first = at > around ? at - around : 0;
    if (w.last > at + 1 + around)
        w.last = at + 1 + around;
    return w;
}

/* Guest instructions whose canonical entry is at host offset h: all of them printed but the last, which goes
 * beside the host instruction. */
static void guest_lines(FILE *to, const struct listing *s, const struct walk *w, unsigned *next, uint32_t h,
                        char *out, size_t size, const char **cls)
{
    out[0] = 0;
    *cls = NULL;
    while (*next < w->last && s->entries[w->order[*next]] == (int32_t)h) {
        char text[64], bytes[24];
        if (out[0])
            fprintf(to, " %-59.59s |\n", out);
        unsigned off = w->order[(*next)++];
        unsigned len = guest_text(s, off, text, sizeof(text), cls);
        listing_hex(s->recto + off, len, 8, bytes);
        snprintf(out, size, "%c%c %08x %-17s %.49s", w->mark == (int)off ? '>' : ' ', *cls ? '!' : ' ',
                 s->base + off, bytes, text);
    }
}

void listing_code(FILE *to, const struct listing *s, int mark, unsigned around)
{
    struct walk w = walk_of(s, mark, around);
    unsigned next = w.first, count = order_entries(s, w.order);
    uint32_t from = w.first && w.first < count ? (uint32_t)s->entries[w.order[w.first]] : 0;
    uint32_t end = w.last < count ? (uint32_t)s->entries[w.order[w.last]] : s->code_len;
    fprintf(to, "\n  %-58s | host code (offset, bytes, instruction, guest state where it is not plain)\n",
            "guest code (! sensitive)");
    for (uint32_t h = from; h < end;) {
        char guest[96], text[96], bytes[40];
        const char *cls;
        guest_lines(to, s, &w, &next, h, guest, sizeof(guest), &cls);
        unsigned len = scan_disassemble(s->code + h, s->code_len - h, 64, h, text, sizeof(text));
        if (!len) {
            len = 1;
            snprintf(text, sizeof(text), ".byte");
        }
        struct xlat_unwound u = {0};
        bool known = xlat_unwind(s->unwind, s->unwind_len, h, &u);
        const char *state = known ? state_text(&u) : "NO RECORD";
        listing_hex(s->code + h, len, 11, bytes);
        fprintf(to, " %-59.59s | %05x %-22s %s%s%s%s%s%s\n", guest, h, bytes, text, *state ? "  ; " : "",
                state, cls ? "  [" : "", cls ? cls : "", cls ? "]" : "");
        h += len;
    }
}

void listing_json(struct json *j, const struct listing *s)
{
    uint16_t order[SCAN_PAGE_SIZE];
    unsigned n = order_entries(s, order);
    json_array(j, "instructions");
    for (unsigned i = 0; i < n; i++) {
        char text[96], bytes[40];
        const char *cls;
        unsigned off = order[i], len = guest_text(s, off, text, sizeof(text), &cls);
        uint32_t from = (uint32_t)s->entries[off], to = s->code_len;
        for (unsigned k = i + 1; k < n; k++)
            if (s->entries[order[k]] != s->entries[off]) {
                to = (uint32_t)s->entries[order[k]];
                break;
            }
        json_object(j, NULL);
        json_u64(j, "offset", off);
        listing_hex(s->recto + off, len, 15, bytes);
        json_string(j, "bytes", bytes);
        json_string(j, "guest", text);
        json_string(j, "sensitive", cls ? cls : "");
        json_u64(j, "host_offset", from);
        json_array(j, "host");
        for (uint32_t h = from; h < to;) {
            unsigned hl = scan_disassemble(s->code + h, s->code_len - h, 64, h, text, sizeof(text));
            json_string(j, NULL, hl ? text : ".byte");
            h += hl ? hl : 1;
        }
        json_end_array(j);
        json_end_object(j);
    }
    json_end_array(j);
}
