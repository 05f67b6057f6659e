/* tools/cmd_cache_show.c: `verso cache show`: one patched page, guest and host code side by side (listing.h). */
#include "tools/cache_cmd.h"
#include "tools/listing.h"
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
    struct listing listing;
    struct cache_buf buf;
    uint8_t attr[SCAN_PAGE_SIZE];
};

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
            map[i] = listing_attr_char(s->attr[i]);
        map[SCAN_PAGE_SIZE] = 0;
        json_string(&j, "attribute_map", map);
    }
    if (!o->no_code)
        listing_json(&j, &s->listing);
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
        listing_map(stdout, s->attr);
    if (!o->no_code)
        listing_code(stdout, &s->listing, LISTING_ALL, 0);
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
    scan_attr_join(s->rec.attr, s->attr);
    s->listing.recto = s->rec.recto;
    s->listing.code = s->verso.code;
    s->listing.code_len = s->verso.code_len;
    s->listing.unwind = s->verso.unwind;
    s->listing.unwind_len = s->verso.unwind_len;
    listing_init(&s->listing);
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
        s->listing.base = colon ? (uint32_t)strtoull(colon + 1, NULL, 16) & ~0xFFFu : 0;
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
