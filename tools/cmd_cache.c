/* tools/cmd_cache.c: `verso cache`: look into the cache and keep it small. */
#include "tools/cache_cmd.h"
#include "translator/xlat.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct cache *cache_cmd_open(const struct cmd *self, void *options, unsigned flags, int *argc, char **argv,
                             int *status)
{
    *status = STATUS_OK;
    switch (opt_parse(self, options, argc, argv)) {
    case OPT_HELP:
        return NULL;
    case OPT_BAD:
        *status = STATUS_USAGE;
        return NULL;
    case OPT_DONE:
        break;
    }
    return tools_cache_open(((struct cache_options *)options)->cache, flags, status);
}

int64_t cache_cmd_image(struct cache *c, const char *what, struct cache_image *out, int *status)
{
    struct cache_error err = {0};
    size_t n, found = 0;
    struct cache_image *img = tools_images(c, &n, &err);
    if (!img) {
        *status = tools_cache_failed(&err);
        return 0;
    }
    char *end;
    long long id = strtoll(what, &end, 10);
    bool number = *what && !*end;
    for (int pass = 0; pass < 2 && !found; pass++)
        for (size_t i = 0; i < n; i++) {
            size_t a = strlen(img[i].name), b = strlen(what);
            bool same = number ? img[i].id == id
                        : pass == 0
                            ? !strcmp(img[i].name, what)
                            : a > b && !strcmp(img[i].name + a - b, what) && (img[i].name[a - b - 1] == '/');
            if (same && !found++)
                *out = img[i];
        }
    free(img);
    if (found == 1)
        return out->id;
    fprintf(stderr,
            found ? "verso: several images are called \"%s\": use the number of one (verso cache ls)\n"
                  : "verso: the cache knows no image \"%s\" (verso cache ls lists them)\n",
            what);
    *status = STATUS_NOT_FOUND;
    return 0;
}

/* -- Finding records
 * --------------------------------------------------------------------------------------------- */

struct key_search {
    const char *prefix; /* lower-case hex digits, or NULL: by address */
    size_t prefix_len;
    uint64_t vaddr;
    struct cache_key *keys;
    size_t max, count;
};

static bool matches(const struct key_search *s, const struct cache_row *row)
{
    if (!s->prefix)
        return row->vaddr == (s->vaddr & ~(uint64_t)0xFFF);
    char text[40];
    snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, row->key.hash_hi, row->key.hash_lo);
    return !strncasecmp(text, s->prefix, s->prefix_len);
}

static int search_row(void *arg, const struct cache_row *row)
{
    struct key_search *s = arg;
    if (!matches(s, row))
        return 0;
    for (size_t i = 0; i < s->count; i++) /* a record may be listed once for each image */
        if (!memcmp(&s->keys[i], &row->key, sizeof(row->key)))
            return 0;
    s->keys[s->count++] = row->key;
    return s->count == s->max;
}

size_t cache_cmd_keys(struct cache *c, const char *what, struct cache_key *keys, size_t max, int *status)
{
    struct key_search s = {.keys = keys, .max = max};
    struct cache_image img = {0};
    const char *colon = strrchr(what, ':');
    if (colon) {
        char name[600], *end;
        snprintf(name, sizeof(name), "%.*s", (int)(colon - what < 599 ? colon - what : 599), what);
        s.vaddr = strtoull(colon + 1, &end, 16);
        if (!colon[1] || *end) {
            fprintf(stderr, "verso: \"%s\" is no hexadecimal address\n", colon + 1);
            *status = STATUS_USAGE;
            return 0;
        }
        if (!cache_cmd_image(c, name, &img, status))
            return 0;
    } else {
        s.prefix = what;
        s.prefix_len = strspn(what, "0123456789abcdefABCDEF");
        if (s.prefix_len < 4 || (what[s.prefix_len] && what[s.prefix_len] != '/')) {
            fprintf(stderr, "verso: \"%s\" is neither a record's hash (4 digits or more) nor IMAGE:ADDRESS\n",
                    what);
            *status = STATUS_USAGE;
            return 0;
        }
    }
    struct cache_error err = {0};
    if (cache_each(c, img.id, search_row, &s, &err) != CACHE_OK) {
        *status = tools_cache_failed(&err);
        return 0;
    }
    if (!s.count) {
        fprintf(stderr, "verso: the cache has no record \"%s\"\n", what);
        *status = STATUS_NOT_FOUND;
    }
    return s.count;
}

void cache_cmd_json_key(struct json *j, const struct cache_key *k)
{
    char hash[40], mode[16], fp[20];
    snprintf(hash, sizeof(hash), "%016" PRIx64 "%016" PRIx64, k->hash_hi, k->hash_lo);
    snprintf(fp, sizeof(fp), "%016" PRIx64, k->fingerprint);
    json_string(j, "hash", hash);
    json_string(j, "mode", tools_mode_text(k->mode, mode));
    json_string(j, "fingerprint", fp);
}

bool cache_cmd_xlat_options(uint64_t fingerprint, uint32_t *options)
{
    static const uint32_t known[] = {0, XLAT_OPT_BMI2};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (xlat_fingerprint(known[i]) == fingerprint) {
            *options = known[i];
            return true;
        }
    return false;
}

/* -- ls
 * ------------------------------------------------------------------------------------------------------------
 */

static const struct opt plain_options[] = {CACHE_OPTIONS, {0}};

struct totals {
    uint64_t rows, stored, hits, insns, sensitive;
};

static int add_row(void *arg, const struct cache_row *row)
{
    struct totals *t = arg;
    t->rows++;
    t->stored += row->stored_bytes;
    t->hits += row->hits;
    t->insns += row->insn_count;
    t->sensitive += row->sensitive_count;
    return 0;
}

/* Counts the records no image has: met at run time. */
static int add_orphan(void *arg, const struct cache_row *row)
{
    return row->image ? 0 : add_row(arg, row);
}

static void image_json(struct json *j, const struct cache_image *img, const struct totals *t)
{
    json_object(j, NULL);
    json_i64(j, "id", img->id);
    json_string(j, "name", img->name);
    json_string(j, "origin", img->origin);
    json_string(j, "kind", img->kind);
    json_u64(j, "pages", t->rows);
    json_u64(j, "executable_bytes", img->exec_bytes);
    json_u64(j, "instructions", img->insns);
    json_u64(j, "sensitive", t->sensitive);
    json_u64(j, "stored_bytes", t->stored);
    json_u64(j, "hits", t->hits);
    json_end_object(j);
}

static void image_text(int64_t id, const char *kind, const struct totals *t, const char *origin,
                       const char *name)
{
    char bytes[16];
    printf("%6" PRId64 "  %-8s %7" PRIu64 " %10s %9" PRIu64 " %7" PRIu64 " %8" PRIu64 "  %s%s%s\n", id, kind,
           t->rows, tools_bytes(t->stored, bytes), t->insns, t->sensitive, t->hits, origin,
           *origin ? " : " : "", name);
}

static int list_images(struct cache *c, bool json)
{
    struct cache_error err = {0};
    size_t n;
    struct cache_image *img = tools_images(c, &n, &err);
    if (!img)
        return tools_cache_failed(&err);
    struct json j = {.to = stdout};
    enum cache_code code = CACHE_OK;
    if (json)
        json_array(&j, NULL);
    else
        printf("    id  kind       pages     stored     insns   sens.     hits  image\n");
    for (size_t i = 0; code == CACHE_OK && i < n; i++) {
        struct totals t = {0};
        code = cache_each(c, img[i].id, add_row, &t, &err);
        if (json)
            image_json(&j, &img[i], &t);
        else if (code == CACHE_OK)
            image_text(img[i].id, img[i].kind, &t, img[i].origin, img[i].name);
    }
    struct totals orphans = {0};
    if (code == CACHE_OK)
        code = cache_each(c, 0, add_orphan, &orphans, &err);
    if (json) {
        json_end_array(&j);
        json_newline(&j);
    } else if (orphans.rows) {
        image_text(0, "-", &orphans, "", "(met at run time, in no image)");
    }
    free(img);
    return code == CACHE_OK ? STATUS_OK : tools_cache_failed(&err);
}

static int print_row(void *arg, const struct cache_row *row)
{
    struct json *j = arg;
    char key[TOOLS_KEY_TEXT];
    if (!j) {
        printf("%08" PRIx64 "  %-36s %5u insns %4u sens. %6" PRIu64 " B %6" PRIu64 " hits\n", row->vaddr,
               tools_key_text(&row->key, key), row->insn_count, row->sensitive_count, row->stored_bytes,
               row->hits);
        return 0;
    }
    json_object(j, NULL);
    cache_cmd_json_key(j, &row->key);
    json_i64(j, "image", row->image);
    json_u64(j, "vaddr", row->vaddr);
    json_u64(j, "instructions", row->insn_count);
    json_u64(j, "sensitive", row->sensitive_count);
    json_u64(j, "stored_bytes", row->stored_bytes);
    json_u64(j, "raw_bytes", row->raw_bytes);
    json_u64(j, "hits", row->hits);
    json_i64(j, "created", row->created_s);
    json_i64(j, "used", row->used_s);
    json_end_object(j);
    return 0;
}

static int print_orphan(void *arg, const struct cache_row *row)
{
    return row->image ? 0 : print_row(arg, row);
}

static int list_pages(struct cache *c, const char *what, bool json)
{
    struct cache_image img = {0};
    struct cache_error err = {0};
    int status = STATUS_OK;
    bool orphans = !strcmp(what, "0");
    if (!orphans && !cache_cmd_image(c, what, &img, &status))
        return status;
    struct json j = {.to = stdout};
    if (json)
        json_array(&j, NULL);
    if (cache_each(c, img.id, orphans ? print_orphan : print_row, json ? &j : NULL, &err) != CACHE_OK)
        return tools_cache_failed(&err);
    if (json) {
        json_end_array(&j);
        json_newline(&j);
    }
    return STATUS_OK;
}

static int run_ls(const struct cmd *self, int argc, char **argv)
{
    struct cache_options o = {0};
    int status;
    struct cache *c = cache_cmd_open(self, &o, CACHE_READONLY, &argc, argv, &status);
    if (!c)
        return status;
    if (!argc)
        status = list_images(c, o.json);
    for (int i = 0; i < argc && !status; i++)
        status = list_pages(c, argv[i], o.json);
    return tools_cache_close(c, status);
}

static const struct cmd cmd_ls = {
    .name = "cache ls",
    .args = "[IMAGE ...]",
    .summary = "list the images, or the pages of images (by number or name; 0: pages in no image)",
    .opts = plain_options,
    .run = run_ls,
};

/* -- stats
 * ---------------------------------------------------------------------------------------------------------
 */

/* Reads every record once, so that what is damaged shows with its reason. */
struct scan_all {
    struct cache_key *key;
    size_t count, cap;
    bool failed;
    uint64_t sensitive, insns, user, current;
};

static int collect(void *arg, const struct cache_row *row)
{
    struct scan_all *s = arg;
    uint32_t options;
    if (s->count && !memcmp(&s->key[s->count - 1], &row->key, sizeof(row->key)))
        return 0;
    if (s->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 1024;
        struct cache_key *p = realloc(s->key, cap * sizeof(*p));
        if (!p) {
            s->failed = true;
            return 1;
        }
        s->key = p;
        s->cap = cap;
    }
    s->key[s->count++] = row->key;
    s->insns += row->insn_count;
    s->sensitive += row->sensitive_count;
    s->user += (row->key.mode & XLAT_MODE_USER) != 0;
    s->current += cache_cmd_xlat_options(row->key.fingerprint, &options);
    return 0;
}

static void stats_json(const struct cache_stats *s, const struct scan_all *a)
{
    struct json j = {.to = stdout};
    json_object(&j, NULL);
    json_u64(&j, "file_bytes", s->file_bytes);
    json_u64(&j, "records", s->records);
    json_u64(&j, "images", s->images);
    json_u64(&j, "blob_bytes", s->blob_bytes);
    json_u64(&j, "raw_bytes", s->raw_bytes);
    json_u64(&j, "hits_total", s->hits_total);
    json_u64(&j, "instructions", a->insns);
    json_u64(&j, "sensitive", a->sensitive);
    json_u64(&j, "user_records", a->user);
    json_u64(&j, "usable_records", a->current);
    json_object(&j, "refused");
    for (unsigned i = 1; i < CACHE_REFUSAL_COUNT; i++)
        json_u64(&j, cache_refusal_name((enum cache_refusal)i), s->refused[i]);
    json_end_object(&j);
    json_end_object(&j);
    json_newline(&j);
}

static void stats_text(const struct cache_stats *s, const struct scan_all *a)
{
    char buf[16];
    printf("file            %s\n", tools_bytes(s->file_bytes, buf));
    printf("images          %" PRIu64 "\n", s->images);
    printf("records         %" PRIu64 " (%" PRIu64 " user, %" PRIu64 " supervisor; %" PRIu64
           " of this build's translator)\n",
           s->records, a->user, s->records - a->user, a->current);
    printf("stored          %s", tools_bytes(s->blob_bytes, buf));
    printf(", uncompressed %s\n", tools_bytes(s->raw_bytes, buf));
    printf("instructions    %" PRIu64 ", sensitive %" PRIu64 "\n", a->insns, a->sensitive);
    printf("hits            %" PRIu64 "\n", s->hits_total);
    uint64_t refused = 0;
    for (unsigned i = 1; i < CACHE_REFUSAL_COUNT; i++)
        refused += s->refused[i];
    printf("refused now     %" PRIu64 " of the records, every one read once\n", refused);
    for (unsigned i = 1; i < CACHE_REFUSAL_COUNT; i++)
        if (s->refused[i])
            printf("  %-13s %" PRIu64 "  %s\n", cache_refusal_name((enum cache_refusal)i), s->refused[i],
                   cache_refusal_text((enum cache_refusal)i));
}

static int run_stats(const struct cmd *self, int argc, char **argv)
{
    struct cache_options o = {0};
    struct cache_error err = {0};
    struct cache_stats s = {0};
    struct scan_all a = {0};
    int status;
    struct cache *c = cache_cmd_open(self, &o, CACHE_READONLY, &argc, argv, &status);
    if (!c)
        return status;
    enum cache_code code = cache_each(c, 0, collect, &a, &err);
    struct cache_buf buf = {0};
    for (size_t i = 0; code == CACHE_OK && i < a.count; i++) {
        struct cache_record r;
        enum cache_refusal why;
        enum cache_code got = cache_get_any(c, &a.key[i], &buf, &r, &why);
        (void)got; /* counted in the handle's statistics */
    }
    cache_buf_free(&buf);
    if (code == CACHE_OK)
        code = cache_stats(c, &s, &err);
    if (code != CACHE_OK)
        status = tools_cache_failed(&err);
    else if (o.json)
        stats_json(&s, &a);
    else
        stats_text(&s, &a);
    free(a.key);
    return tools_cache_close(c, status);
}

static const struct cmd cmd_stats = {
    .name = "cache stats",
    .args = "",
    .summary = "sizes, hits, and records refused with their reasons",
    .opts = plain_options,
    .run = run_stats,
};

/* -- gc and rm
 * ------------------------------------------------------------------------------------------------------ */

struct gc_options {
    struct cache_options common; /* first */
    uint64_t max;
};
static const struct opt gc_options[] = {
    CACHE_OPTIONS,
    {"max", 0, OPT_SIZE, offsetof(struct gc_options, max), "SIZE",
     "then remove the least used beyond this size (MiB, K, M, G)"},
    {0},
};

static int run_gc(const struct cmd *self, int argc, char **argv)
{
    struct gc_options o = {0};
    struct cache_error err = {0};
    int status;
    struct cache *c = cache_cmd_open(self, &o, 0, &argc, argv, &status);
    if (!c)
        return status;
    uint64_t removed = 0;
    if (cache_gc(c, xlat_fingerprint(xlat_host_options()), o.max, &removed, &err) != CACHE_OK) {
        status = tools_cache_failed(&err);
    } else if (o.common.json) {
        struct json j = {.to = stdout};
        json_object(&j, NULL);
        json_u64(&j, "removed", removed);
        json_end_object(&j);
        json_newline(&j);
    } else {
        printf("%" PRIu64 " records removed\n", removed);
    }
    return tools_cache_close(c, status);
}

static const struct cmd cmd_gc = {
    .name = "cache gc",
    .args = "",
    .summary = "remove records of other translator versions, and by size; give the space back",
    .opts = gc_options,
    .run = run_gc,
};

static bool is_record_name(const char *what)
{
    return strchr(what, ':') || (strspn(what, "0123456789abcdefABCDEF") >= 16);
}

static int remove_one(struct cache *c, const char *what)
{
    struct cache_error err = {0};
    int status = STATUS_OK;
    enum cache_code code = CACHE_OK;
    if (is_record_name(what)) {
        struct cache_key keys[8];
        size_t n = cache_cmd_keys(c, what, keys, 8, &status);
        for (size_t i = 0; code == CACHE_OK && i < n; i++)
            code = cache_remove(c, &keys[i], &err);
    } else {
        struct cache_image img;
        int64_t id = cache_cmd_image(c, what, &img, &status);
        if (id)
            code = cache_remove_image(c, id, &err);
    }
    return code == CACHE_OK ? status : tools_cache_failed(&err);
}

static int run_rm(const struct cmd *self, int argc, char **argv)
{
    struct cache_options o = {0};
    int status;
    struct cache *c = cache_cmd_open(self, &o, 0, &argc, argv, &status);
    if (!c)
        return status;
    if (!argc) {
        opt_help(self, stderr);
        status = STATUS_USAGE;
    }
    int done = 0;
    for (; done < argc && !status; done++)
        status = remove_one(c, argv[done]);
    if (o.json) {
        struct json j = {.to = stdout};
        json_object(&j, NULL);
        json_i64(&j, "removed", status ? done - 1 : done);
        json_end_object(&j);
        json_newline(&j);
    }
    return tools_cache_close(c, status);
}

static const struct cmd cmd_rm = {
    .name = "cache rm",
    .args = "IMAGE|HASH|IMAGE:ADDRESS ...",
    .summary = "remove images with their pages, or single records (hash: 16 digits or more)",
    .opts = plain_options,
    .run = run_rm,
};

/* -- The table
 * ------------------------------------------------------------------------------------------------------- */

static const struct cmd *const actions[] = {&cmd_ls,           &cmd_cache_show, &cmd_stats,
                                            &cmd_cache_verify, &cmd_gc,         &cmd_rm};

static void help(FILE *to)
{
    fprintf(to, "usage: verso cache ACTION [options] ...\n\nactions:\n");
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        fprintf(to, "  %-8s %s\n", actions[i]->name + strlen("cache "), actions[i]->summary);
    fprintf(to, "\nverso cache ACTION --help shows the options of one.\n");
}

static int run(const struct cmd *self, int argc, char **argv)
{
    (void)self;
    if (argc && !strcmp(argv[0], "--help")) {
        help(stdout);
        return STATUS_OK;
    }
    for (size_t i = 0; argc && i < sizeof(actions) / sizeof(actions[0]); i++)
        if (!strcmp(argv[0], actions[i]->name + strlen("cache ")))
            return actions[i]->run(actions[i], argc - 1, argv + 1);
    if (argc)
        fprintf(stderr, "verso cache: unknown action \"%s\"\n", argv[0]);
    help(stderr);
    return STATUS_USAGE;
}

const struct cmd cmd_cache = {
    .name = "cache",
    .args = "ls|show|stats|verify|gc|rm ...",
    .summary = "look into the cache, check it, make it smaller",
    .run = run,
};
