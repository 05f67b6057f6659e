/* tools/cmd_cache_verify.c: `verso cache verify`: make every record again from its recto, and compare.
 *
 * Scan and translation are pure, so equal input gives equal bytes (DESIGN.md, section 2). The entries are
 * recovered from the stored attribute map. What this build's translator did not make cannot be derived again;
 * it is never executed either, because its fingerprint is part of the key, and is counted, not failed.
 */
#include "tools/cache_cmd.h"
#include "translator/xlat.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define VERDICTS(X)                                                                                          \
    X(EQUAL, "equal", 1, "derived again, byte for byte the same")                                            \
    X(OTHER, "other_translator", 1, "made by another translator: cannot be derived here and is never used")  \
    X(GONE, "gone", 1, "removed while we were looking")                                                      \
    X(REFUSED, "refused", 0, "damaged: see the reasons")                                                     \
    X(MALFORMED, "malformed", 0, "the patched page is not well-formed")                                      \
    X(ATTRIBUTES, "attributes", 0, "another attribute map")                                                  \
    X(DIFFERS, "differs", 0, "another patched page")                                                         \
    X(UNSAFE, "unsafe", 0, "the validator could not prove it safe")                                          \
    X(FAILED, "failed", 0, "could not be checked (memory or I/O)")
enum { MAX_NAMED = 20 }; /* records named on standard error; all are counted */
enum verdict {
#define X(id, name, good, text) VERDICT_##id,
    VERDICTS(X)
#undef X
        VERDICT_COUNT
};
static const struct {
    const char *name, *text;
    bool good;
} verdicts[] = {
#define X(id, name, good, text) {name, text, good},
    VERDICTS(X)
#undef X
};

struct options {
    struct cache_options common; /* first */
    uint64_t jobs;
    bool no_validate;
};
static const struct opt options[] = {
    CACHE_OPTIONS,
    {"jobs", 'j', OPT_UINT, offsetof(struct options, jobs), "N", "threads (all cores)"},
    {"no-validate", 0, OPT_FLAG, offsetof(struct options, no_validate), NULL,
     "compare only, without the proof of safety"},
    {0},
};

struct verify {
    struct cache *cache;
    const struct options *opt;
    struct cache_key *key;
    size_t count, cap, next;
    bool no_memory;
    pthread_mutex_t lock;
    unsigned named;
    uint64_t total[VERDICT_COUNT], refused[CACHE_REFUSAL_COUNT];
};

struct checker {
    struct verify *v;
    pthread_t thread;
    struct scan_page *scan;
    struct xlat_verso made, stored;
    struct cache_buf buf;
    uint8_t *flat;
    size_t flat_cap;
};

static int collect(void *arg, const struct cache_row *row)
{
    struct verify *v = arg;
    if (v->count == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 1024;
        struct cache_key *p = realloc(v->key, cap * sizeof(*p));
        if (!p) {
            v->no_memory = true;
            return 1;
        }
        v->key = p;
        v->cap = cap;
    }
    v->key[v->count++] = row->key;
    return 0;
}

static int by_key(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct cache_key));
}

/* A page that several images share is listed once for each. */
static void drop_duplicates(struct verify *v)
{
    size_t n = 0;
    if (v->count)
        qsort(v->key, v->count, sizeof(*v->key), by_key);
    for (size_t i = 0; i < v->count; i++)
        if (!n || by_key(&v->key[n - 1], &v->key[i]))
            v->key[n++] = v->key[i];
    v->count = n;
}

static bool serialized(struct checker *k, size_t *len)
{
    *len = xlat_serialize(&k->made, NULL, 0);
    if (*len > k->flat_cap) {
        uint8_t *p = realloc(k->flat, *len);
        if (!p)
            return false;
        k->flat = p;
        k->flat_cap = *len;
    }
    return xlat_serialize(&k->made, k->flat, k->flat_cap) == *len;
}

static enum verdict derive(struct checker *k, const struct cache_key *key, const struct cache_record *r,
                           uint32_t xopt, char *why, size_t why_size)
{
    uint16_t entries[SCAN_PAGE_SIZE];
    uint8_t planes[SCAN_PAGE_SIZE];
    const uint8_t *entry = scan_attr_plane(r->attr, SCAN_ATTR_ENTRY);
    size_t n = 0, len;
    uint64_t lo, hi;
    cache_hash_page(r->recto, &lo, &hi);
    if (lo != key->hash_lo || hi != key->hash_hi)
        return VERDICT_REFUSED;
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        if (entry[i / 8] >> i % 8 & 1)
            entries[n++] = (uint16_t)i;
    scan_page(r->recto, 32, entries, n, k->scan);
    scan_attr_split(k->scan->attr, planes);
    if (memcmp(planes, r->attr, SCAN_PAGE_SIZE))
        return VERDICT_ATTRIBUTES;
    if (xlat_translate(k->scan, key->mode, xopt, &k->made) != XLAT_OK || !serialized(k, &len))
        return VERDICT_FAILED;
    xlat_verso_free(&k->stored); /* of the record before */
    xlat_verso_init(&k->stored);
    if (!xlat_deserialize(r->verso, r->verso_len, &k->stored, NULL))
        return VERDICT_MALFORMED;
    if (len != r->verso_len || memcmp(k->flat, r->verso, len))
        return VERDICT_DIFFERS;
    if (!k->v->opt->no_validate && !xlat_validate(&k->stored, why, why_size))
        return VERDICT_UNSAFE;
    return VERDICT_EQUAL;
}

static enum verdict check(struct checker *k, const struct cache_key *key, char *why, size_t why_size,
                          enum cache_refusal *refusal)
{
    struct cache_record r;
    uint32_t xopt;
    switch (cache_get_any(k->v->cache, key, &k->buf, &r, refusal)) {
    case CACHE_OK:
        break;
    case CACHE_MISS:
        return VERDICT_GONE;
    case CACHE_REFUSED:
        snprintf(why, why_size, "%s", cache_refusal_text(*refusal));
        return VERDICT_REFUSED;
    default:
        return VERDICT_FAILED;
    }
    if (!cache_cmd_xlat_options(key->fingerprint, &xopt))
        return VERDICT_OTHER;
    return derive(k, key, &r, xopt, why, why_size);
}

static void *check_thread(void *arg)
{
    struct checker *k = arg;
    struct verify *v = k->v;
    pthread_mutex_lock(&v->lock);
    while (v->next < v->count) {
        const struct cache_key *key = &v->key[v->next++];
        pthread_mutex_unlock(&v->lock);
        char why[300] = "", text[TOOLS_KEY_TEXT];
        enum cache_refusal refusal = CACHE_REFUSAL_NONE;
        enum verdict d = check(k, key, why, sizeof(why), &refusal);
        pthread_mutex_lock(&v->lock);
        v->total[d]++;
        if (refusal < CACHE_REFUSAL_COUNT)
            v->refused[refusal]++;
        if (!verdicts[d].good && v->named++ < MAX_NAMED)
            fprintf(stderr, "verso: record %s: %s%s%s\n", tools_key_text(key, text), verdicts[d].text,
                    *why ? ": " : "", why);
    }
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

static unsigned run_threads(struct verify *v, unsigned jobs)
{
    struct checker *k = calloc(jobs, sizeof(*k));
    unsigned n = 0;
    pthread_mutex_init(&v->lock, NULL);
    for (; k && n < jobs; n++) {
        k[n].v = v;
        xlat_verso_init(&k[n].made);
        xlat_verso_init(&k[n].stored);
        k[n].scan = malloc(sizeof(*k->scan));
        if (!k[n].scan || pthread_create(&k[n].thread, NULL, check_thread, &k[n])) {
            free(k[n].scan);
            break;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(k[i].thread, NULL);
        free(k[i].scan);
        free(k[i].flat);
        xlat_verso_free(&k[i].made);
        xlat_verso_free(&k[i].stored);
        cache_buf_free(&k[i].buf);
    }
    free(k);
    return n;
}

static void report(const struct verify *v, bool json, uint64_t ns)
{
    struct json j = {.to = stdout};
    if (!json) {
        if (!v->opt->no_validate)
            printf("(what is equal was proved safe by the validator as well)\n");
        for (unsigned i = 0; i < VERDICT_COUNT; i++)
            if (v->total[i] || i == VERDICT_EQUAL)
                printf("%-17s %8" PRIu64 "  %s\n", verdicts[i].name, v->total[i], verdicts[i].text);
        for (unsigned i = 1; i < CACHE_REFUSAL_COUNT; i++)
            if (v->refused[i])
                printf("  refused %-8s%8" PRIu64 "  %s\n", cache_refusal_name((enum cache_refusal)i),
                       v->refused[i], cache_refusal_text((enum cache_refusal)i));
        printf("records           %8zu  in %.2f s\n", v->count, (double)ns / 1e9);
        return;
    }
    json_object(&j, NULL);
    json_u64(&j, "records", v->count);
    for (unsigned i = 0; i < VERDICT_COUNT; i++)
        json_u64(&j, verdicts[i].name, v->total[i]);
    json_object(&j, "reasons");
    for (unsigned i = 1; i < CACHE_REFUSAL_COUNT; i++)
        json_u64(&j, cache_refusal_name((enum cache_refusal)i), v->refused[i]);
    json_end_object(&j);
    json_u64(&j, "ms", ns / 1000000u);
    json_end_object(&j);
    json_newline(&j);
}

static int run(const struct cmd *self, int argc, char **argv)
{
    struct options o = {0};
    struct cache_error err = {0};
    int status;
    struct cache *c = cache_cmd_open(self, &o, CACHE_READONLY, &argc, argv, &status);
    if (!c)
        return status;
    uint64_t start = tools_now_ns();
    struct verify v = {.cache = c, .opt = &o};
    if (cache_each(c, 0, collect, &v, &err) != CACHE_OK) {
        status = tools_cache_failed(&err);
    } else {
        drop_duplicates(&v);
        if (v.no_memory ||
            !run_threads(&v, o.jobs ? (unsigned)(o.jobs > 256 ? 256 : o.jobs) : tools_cpus())) {
            fprintf(stderr, "verso: out of memory\n");
            status = STATUS_CACHE_MEMORY;
        }
    }
    if (v.named > MAX_NAMED)
        fprintf(stderr, "verso: ... and %u more\n", v.named - MAX_NAMED);
    if (!status) {
        report(&v, o.common.json, tools_now_ns() - start);
        for (unsigned i = 0; i < VERDICT_COUNT; i++)
            if (!verdicts[i].good && v.total[i])
                status = STATUS_DIFFERS;
    }
    free(v.key);
    return tools_cache_close(c, status);
}

const struct cmd cmd_cache_verify = {
    .name = "cache verify",
    .args = "",
    .summary = "derive every page again, compare bytes, and prove the host code safe",
    .opts = options,
    .run = run,
};
