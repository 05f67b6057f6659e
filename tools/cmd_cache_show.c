/* tools/cmd_cache_show.c: `verso cache show`: one patched page, guest and host code side by side.
 *
 * The host code is walked from its first to its last byte, so that nothing in it stays unseen: landings,
 * tails and stubs as well. The left column shows a guest instruction where its canonical entry is; the unwind
 * records say which guest address a host instruction belongs to, and in what state.
 */
#include "tools/cache_cmd.h"
#include "translator/xlat.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct cache_options common; /* first */
    bool no_map, no_code;
};
static const struct opt options[] = {
    CACHE_OPTIONS,
    {"no-map", 0, OPT_FLAG, offsetof(struct options, no_map), NULL, "without the attribute map"},
    {"no-code", 0, OPT_FLAG, offsetof(struct options, no_code), NULL, "without the listing"},
    {0},
};

/* What a page is shown from. Large: allocated. */
struct show {
    struct cache_key key;
    struct cache_record rec;
    struct xlat_verso verso;
    uint32_t base; /* address the listing is for */
    int32_t entries[SCAN_PAGE_SIZE];
    struct cache_buf buf;
};

/* -- The attribute map
 * ---------------------------------------------------------------------------------------------- */

/* The most telling property wins. */
static char attr_char(uint8_t a)
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

static void show_map(const struct show *s)
{
    printf("attribute map: i instruction, - inside one, E entry, T branch target, ! sensitive, s found by "
           "sweep,\n"
           "               > runs into the next page, X overlapping, . data or unknown\n");
    for (unsigned off = 0; off < SCAN_PAGE_SIZE; off += 64) {
        char line[65];
        for (unsigned i = 0; i < 64; i++)
            line[i] = attr_char(s->rec.attr[off + i]);
        line[64] = 0;
        printf("  %03x  %s\n", off, line);
    }
}

/* -- The listing
 * -------------------------------------------------------------------------------------------------------- */

/* n bytes as digits into out (2 * max + 1 bytes); a '+' ends it where there are more than max. */
static void hex(const uint8_t *p, unsigned n, unsigned max, char *out)
{
    unsigned shown = n < max ? n : max;
    for (unsigned i = 0; i < shown; i++)
        sprintf(out + 2 * i, "%02x", p[i]);
    out[2 * shown] = 0;
    if (n > max)
        out[2 * max - 1] = '+';
}

/* Text of the guest instruction at off; returns its length. */
static unsigned guest_text(const struct show *s, unsigned off, char *text, size_t size, const char **cls)
{
    struct scan_insn in;
    const uint8_t *p = s->rec.recto + off;
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
        return "string";
    case XLAT_AT_ESP:
        return "esp saved up";
    case XLAT_RETRY:
        return "retry";
    }
    return "?";
}

/* Guest instructions whose canonical entry is at host offset h: all of them printed but the last, which goes
 * beside the host instruction. */
static void guest_lines(const struct show *s, const uint16_t *order, unsigned n, unsigned *next, uint32_t h,
                        char *out, size_t size, const char **cls)
{
    out[0] = 0;
    *cls = NULL;
    while (*next < n && s->entries[order[*next]] == (int32_t)h) {
        char text[64], bytes[24];
        if (out[0])
            printf("  %-58.58s |\n", out);
        unsigned off = order[(*next)++];
        unsigned len = guest_text(s, off, text, sizeof(text), cls);
        hex(s->rec.recto + off, len, 8, bytes);
        snprintf(out, size, "%c %08x %-17s %.49s", *cls ? '!' : ' ', s->base + off, bytes, text);
    }
}

static const struct show *sort_by; /* qsort has no argument for its comparison; single thread */

static int by_host(const void *a, const void *b)
{
    unsigned x = *(const uint16_t *)a, y = *(const uint16_t *)b;
    int32_t hx = sort_by->entries[x], hy = sort_by->entries[y];
    return hx < hy ? -1 : hx > hy ? 1 : x < y ? -1 : x > y;
}

static unsigned order_entries(const struct show *s, uint16_t *order)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        if (s->entries[i] >= 0)
            order[n++] = (uint16_t)i;
    sort_by = s;
    qsort(order, n, sizeof(*order), by_host);
    return n;
}

static void show_code(const struct show *s)
{
    uint16_t order[SCAN_PAGE_SIZE];
    unsigned n = order_entries(s, order), next = 0;
    printf("\n  %-58s | host code (offset, bytes, instruction, guest state where it is not plain)\n",
           "guest code (! sensitive)");
    for (uint32_t h = 0; h < s->verso.code_len;) {
        char guest[96], text[96], bytes[40];
        const char *cls;
        guest_lines(s, order, n, &next, h, guest, sizeof(guest), &cls);
        unsigned len = scan_disassemble(s->verso.code + h, s->verso.code_len - h, 64, h, text, sizeof(text));
        if (!len) {
            len = 1;
            snprintf(text, sizeof(text), ".byte");
        }
        struct xlat_unwound u = {0};
        bool known = xlat_unwind(s->verso.unwind, s->verso.unwind_len, h, &u);
        const char *state = known ? state_text(&u) : "NO RECORD";
        hex(s->verso.code + h, len, 11, bytes);
        printf("  %-58.58s | %05x %-22s %s%s%s%s%s%s\n", guest, h, bytes, text, *state ? "  ; " : "", state,
               cls ? "  [" : "", cls ? cls : "", cls ? "]" : "");
        h += len;
    }
}

static void code_json(struct json *j, const struct show *s)
{
    uint16_t order[SCAN_PAGE_SIZE];
    unsigned n = order_entries(s, order);
    json_array(j, "instructions");
    for (unsigned i = 0; i < n; i++) {
        char text[96], bytes[40];
        const char *cls;
        unsigned off = order[i], len = guest_text(s, off, text, sizeof(text), &cls);
        uint32_t from = (uint32_t)s->entries[off], to = s->verso.code_len;
        for (unsigned k = i + 1; k < n; k++)
            if (s->entries[order[k]] != s->entries[off]) {
                to = (uint32_t)s->entries[order[k]];
                break;
            }
        json_object(j, NULL);
        json_u64(j, "offset", off);
        hex(s->rec.recto + off, len, 15, bytes);
        json_string(j, "bytes", bytes);
        json_string(j, "guest", text);
        json_string(j, "sensitive", cls ? cls : "");
        json_u64(j, "host_offset", from);
        json_array(j, "host");
        for (uint32_t h = from; h < to;) {
            unsigned hl =
                scan_disassemble(s->verso.code + h, s->verso.code_len - h, 64, h, text, sizeof(text));
            json_string(j, NULL, hl ? text : ".byte");
            h += hl ? hl : 1;
        }
        json_end_array(j);
        json_end_object(j);
    }
    json_end_array(j);
}

static void show_json(const struct show *s, const struct options *o)
{
    struct json j = {.to = stdout};
    json_object(&j, NULL);
    cache_cmd_json_key(&j, &s->key);
    json_u64(&j, "instruction_count", s->rec.insn_count);
    json_u64(&j, "sensitive_count", s->rec.sensitive_count);
    json_u64(&j, "host_code_bytes", s->verso.code_len);
    json_u64(&j, "relocations", s->verso.reloc_count);
    json_u64(&j, "links", s->verso.link_count);
    json_u64(&j, "unwind_bytes", s->verso.unwind_len);
    if (!o->no_map) {
        char map[SCAN_PAGE_SIZE + 1];
        for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
            map[i] = attr_char(s->rec.attr[i]);
        map[SCAN_PAGE_SIZE] = 0;
        json_string(&j, "attribute_map", map);
    }
    if (!o->no_code)
        code_json(&j, s);
    json_end_object(&j);
    json_newline(&j);
}

static void show_text(const struct show *s, const struct options *o)
{
    char key[TOOLS_KEY_TEXT];
    printf("record %s, fingerprint %016" PRIx64 "\n", tools_key_text(&s->key, key), s->key.fingerprint);
    printf("%u instructions, %u sensitive, %u through the emulator; %u host bytes, %u relocations, %u links, "
           "%u unwind bytes\n\n",
           s->rec.insn_count, s->rec.sensitive_count, s->verso.emulated_count, s->verso.code_len,
           s->verso.reloc_count, s->verso.link_count, s->verso.unwind_len);
    if (!o->no_map)
        show_map(s);
    if (!o->no_code)
        show_code(s);
}

static int show_key(struct cache *c, const struct options *o, struct show *s)
{
    enum cache_refusal why = CACHE_REFUSAL_NONE;
    char text[TOOLS_KEY_TEXT];
    enum cache_code code = cache_get_any(c, &s->key, &s->buf, &s->rec, &why);
    if (code == CACHE_REFUSED) {
        fprintf(stderr, "verso: record %s: %s\n", tools_key_text(&s->key, text), cache_refusal_text(why));
        return STATUS_DIFFERS;
    }
    if (code != CACHE_OK) {
        fprintf(stderr, "verso: record %s cannot be read\n", tools_key_text(&s->key, text));
        return status_of_cache(code);
    }
    xlat_verso_init(&s->verso);
    if (!xlat_deserialize(s->rec.verso, s->rec.verso_len, &s->verso, NULL)) {
        fprintf(stderr, "verso: record %s: %s\n", tools_key_text(&s->key, text),
                cache_refusal_text(CACHE_REFUSAL_VERSO));
        xlat_verso_free(&s->verso);
        return STATUS_DIFFERS;
    }
    xlat_entries(s->verso.unwind, s->verso.unwind_len, s->entries);
    if (o->common.json)
        show_json(s, o);
    else
        show_text(s, o);
    xlat_verso_free(&s->verso);
    return STATUS_OK;
}

static int run(const struct cmd *self, int argc, char **argv)
{
    struct options o = {0};
    int status;
    struct cache *c = cache_cmd_open(self, &o, CACHE_READONLY, &argc, argv, &status);
    if (!c)
        return status;
    if (argc != 1) {
        opt_help(self, stderr);
        return tools_cache_close(c, STATUS_USAGE);
    }
    struct show *s = calloc(1, sizeof(*s));
    struct cache_key keys[8];
    size_t n = s ? cache_cmd_keys(c, argv[0], keys, 8, &status) : 0;
    const char *colon = strrchr(argv[0], ':');
    for (size_t i = 0; i < n && !status; i++) {
        s->key = keys[i];
        s->base = colon ? (uint32_t)strtoull(colon + 1, NULL, 16) & ~0xFFFu : 0;
        status = show_key(c, &o, s);
    }
    if (s)
        cache_buf_free(&s->buf);
    else
        status = STATUS_CACHE_MEMORY;
    free(s);
    return tools_cache_close(c, status);
}

const struct cmd cmd_cache_show = {
    .name = "cache show",
    .args = "HASH|IMAGE:ADDRESS",
    .summary = "one page: guest and host code side by side, and the attribute map",
    .opts = options,
    .run = run,
};
