/* tools/cmd_prewarm.c: `verso prewarm`: guest image -> patched pages in the cache, before the guest ever
 * runs.
 *
 * gather.c cuts the image into distinct pages; N workers scan, cross-check and translate them; the calling
 * thread alone writes, in transactions of BATCH records, and announces only what is committed. Images are
 * entered last, when all their pages are stored: an image in the cache is complete, and a killed run is
 * continued by the next.
 */
#include "tools/gather.h"
#include "tools/json.h"
#include "tools/tools.h"
#include "translator/xlat.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 256, QUEUE = 512, CODE_BITS = 32 };

struct options {
    const char *cache, *entry;
    struct opt_list initrd;
    uint64_t jobs;
    bool json, validate, verbose;
};

static const struct opt options[] = {
    {"cache", 0, OPT_STRING, offsetof(struct options, cache), "FILE",
     "the cache ($XDG_CACHE_HOME/verso/cache.db)"},
    {"jobs", 'j', OPT_UINT, offsetof(struct options, jobs), "N", "translating threads (all cores)"},
    {"entry", 0, OPT_STRING, offsetof(struct options, entry), "LABEL",
     "only this boot entry of an ISO (all)"},
    {"initrd", 0, OPT_LIST, offsetof(struct options, initrd), "FILE", "also an initrd that is in no ISO"},
    {"validate", 0, OPT_FLAG, offsetof(struct options, validate), NULL,
     "prove each patched page safe before it is stored"},
    {"verbose", 'v', OPT_FLAG, offsetof(struct options, verbose), NULL, "name every page that is refused"},
    {"json", 0, OPT_FLAG, offsetof(struct options, json), NULL, "JSON lines on standard output"},
    {0},
};

/* A translated page on its way from a worker to the storing thread. */
struct job {
    struct gather_page *page;
    uint8_t *verso;
    uint32_t verso_len, tables_len, code_len, insns, sensitive;
    uint8_t attr[SCAN_PAGE_SIZE];
};

struct tally {
    uint64_t insns, code_bytes, emulated, lengths_compared, length_differences;
    uint64_t class_count[SCAN_CLASS_COUNT];
};

struct work {
    struct gather *g;
    struct cache *cache;
    const struct options *opt;
    uint32_t xlat_options;
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    struct job *queue[QUEUE];
    unsigned head, count, running;
    size_t next_page, done;
    bool stop;
    struct tally tally;
};

/* -- Workers
 * -------------------------------------------------------------------------------------------------- */

struct worker {
    struct work *w;
    pthread_t thread;
    struct scan_page *scan;
    struct xlat_verso verso;
    struct cache_buf buf;
    struct tally tally;
};

/* Merges the entries of a stored record into p's. True if the record has them all already: nothing to do.
 * A run may have added entries the offline tool does not know; they must survive. */
static bool merge_stored(struct worker *k, struct gather_page *p)
{
    struct cache_record r;
    enum cache_refusal why;
    if (!cache_has(k->w->cache, &p->key) ||
        cache_get(k->w->cache, &p->key, p->recto, &k->buf, &r, &why) != CACHE_OK)
        return false;
    const uint8_t *stored_entry = scan_attr_plane(r.attr, SCAN_ATTR_ENTRY);
    bool all = true;
    for (uint32_t i = 0; i < p->entry_count; i++)
        all = all && (stored_entry[p->entries[i] / 8] >> p->entries[i] % 8 & 1);
    p->insns = r.insn_count;
    if (all)
        return true;
    unsigned stored = 0;
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        stored += stored_entry[i / 8] >> i % 8 & 1;
    uint16_t *e = realloc(p->entries, (p->entry_count + stored) * sizeof(*e));
    if (!e)
        return false;
    p->entries = e;
    p->entry_cap = p->entry_count + stored;
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        if (stored_entry[i / 8] >> i % 8 & 1)
            p->entries[p->entry_count++] = (uint16_t)i;
    return false;
}

/* Compares every instruction length with Zydis. Instructions the CPU model does not have fault when executed:
 * their length has no effect. */
static unsigned length_differences(struct worker *k, const struct gather_page *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < k->scan->count; i++) {
        const struct scan_insn *s = &k->scan->insn[i];
        if (s->cls == SCAN_CLASS_INVALID || s->cls == SCAN_CLASS_UD)
            continue;
        k->tally.lengths_compared++;
        unsigned z = scan_zydis_length(p->recto + s->off, SCAN_PAGE_SIZE - s->off, CODE_BITS);
        if (z == s->len)
            continue;
        n++;
        if (k->w->opt->verbose) {
            char key[TOOLS_KEY_TEXT];
            fprintf(stderr, "verso: page %s offset %03x: length %u, Zydis says %u\n",
                    tools_key_text(&p->key, key), s->off, s->len, z);
        }
    }
    k->tally.length_differences += n;
    return n;
}

static struct job *make_job(struct worker *k, struct gather_page *p)
{
    struct job *j = malloc(sizeof(*j));
    size_t need = xlat_serialize(&k->verso, NULL, 0);
    if (!j || need > UINT32_MAX || !(j->verso = malloc(need))) {
        free(j);
        return NULL;
    }
    j->page = p;
    j->verso_len = (uint32_t)xlat_serialize(&k->verso, j->verso, need);
    j->tables_len = xlat_serialized_tables(&k->verso);
    j->code_len = k->verso.code_len;
    j->insns = p->insns = k->scan->count;
    j->sensitive = 0;
    for (unsigned c = 0; c < SCAN_CLASS_COUNT; c++)
        if (scan_class_sensitive((enum scan_class)c))
            j->sensitive += k->scan->class_count[c];
    scan_attr_split(k->scan->attr, j->attr);
    return j;
}

static struct job *refuse(struct gather_page *p, enum page_fate fate)
{
    p->fate = (uint8_t)fate;
    return NULL;
}

static struct job *one_page(struct worker *k, struct gather_page *p)
{
    if (!p->entry_count)
        return refuse(p, PAGE_NO_CODE);
    if (merge_stored(k, p))
        return refuse(p, PAGE_PRESENT);
    scan_page(p->recto, CODE_BITS, p->entries, p->entry_count, k->scan);
    if (length_differences(k, p))
        return refuse(p, PAGE_DIFFERS);
    switch (xlat_translate(k->scan, p->key.mode, k->w->xlat_options, &k->verso)) {
    case XLAT_OK:
        break;
    case XLAT_TOO_BIG:
        return refuse(p, PAGE_TOO_BIG);
    case XLAT_NO_MEMORY:
        return refuse(p, PAGE_NO_MEMORY);
    }
    if (k->w->opt->validate) {
        char why[200] = "", key[TOOLS_KEY_TEXT];
        if (!xlat_validate(&k->verso, why, sizeof(why))) {
            fprintf(stderr, "verso: page %s not proved safe: %s\n", tools_key_text(&p->key, key), why);
            return refuse(p, PAGE_INVALID);
        }
    }
    struct job *j = make_job(k, p);
    if (!j)
        return refuse(p, PAGE_NO_MEMORY);
    k->tally.insns += k->scan->count;
    k->tally.code_bytes += k->verso.code_len;
    k->tally.emulated += k->verso.emulated_count;
    for (unsigned c = 0; c < SCAN_CLASS_COUNT; c++)
        k->tally.class_count[c] += k->scan->class_count[c];
    return j;
}

static void add_tally(struct tally *to, const struct tally *from)
{
    to->insns += from->insns;
    to->code_bytes += from->code_bytes;
    to->emulated += from->emulated;
    to->lengths_compared += from->lengths_compared;
    to->length_differences += from->length_differences;
    for (unsigned c = 0; c < SCAN_CLASS_COUNT; c++)
        to->class_count[c] += from->class_count[c];
}

static void free_job(struct job *j)
{
    if (j)
        free(j->verso);
    free(j);
}

static void *work_thread(void *arg)
{
    struct worker *k = arg;
    struct work *w = k->w;
    pthread_mutex_lock(&w->lock);
    while (!w->stop && w->next_page < w->g->page_count) {
        struct gather_page *p = &w->g->page[w->next_page++];
        pthread_mutex_unlock(&w->lock);
        struct job *j = one_page(k, p);
        pthread_mutex_lock(&w->lock);
        while (j && w->count == QUEUE && !w->stop)
            pthread_cond_wait(&w->emptied, &w->lock);
        if (j && w->stop) {
            p->fate = PAGE_NOT_STORED;
            free_job(j);
        } else if (j) {
            w->queue[(w->head + w->count++) % QUEUE] = j;
            pthread_cond_signal(&w->filled);
        } else {
            w->done++;
        }
    }
    w->running--;
    add_tally(&w->tally, &k->tally);
    pthread_cond_signal(&w->filled);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* -- Progress
 * --------------------------------------------------------------------------------------------------- */

struct progress {
    bool json, bar;
    uint64_t start_ns, last_ns, stored; /* stored: records committed */
};

static void show_progress(struct progress *pr, size_t done, size_t total, bool last)
{
    uint64_t now = tools_now_ns(), gap = pr->bar || pr->json ? 100000000u : 1000000000u;
    if (!last && now - pr->last_ns < gap)
        return;
    pr->last_ns = now;
    if (pr->json) {
        struct json j = {.to = stdout};
        json_object(&j, NULL);
        json_string(&j, "event", "progress");
        json_u64(&j, "pages", done);
        json_u64(&j, "of", total);
        json_u64(&j, "stored", pr->stored);
        json_u64(&j, "ms", (now - pr->start_ns) / 1000000u);
        json_end_object(&j);
        json_newline(&j);
    } else if (pr->bar) {
        char bar[41];
        size_t n = total ? done * 40 / total : 40;
        memset(bar, '.', 40);
        memset(bar, '#', n);
        bar[40] = 0;
        fprintf(stderr, "\r[%s] %zu/%zu pages, %" PRIu64 " stored%s", bar, done, total, pr->stored,
                last ? "\n" : "");
    } else {
        fprintf(stderr, "%zu/%zu pages, %" PRIu64 " stored\n", done, total, pr->stored);
    }
}

/* -- Storing
 * ---------------------------------------------------------------------------------------------------- */

/* Takes up to BATCH jobs; 0 when all workers are done and nothing is left. Waits at most 100 ms (progress).
 */
static unsigned take_jobs(struct work *w, struct job **out, bool *finished)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&w->lock);
    while (w->count < BATCH && w->running)
        if (pthread_cond_timedwait(&w->filled, &w->lock, &until))
            break;
    unsigned n = 0;
    while (n < BATCH && w->count) {
        out[n++] = w->queue[w->head];
        w->head = (w->head + 1) % QUEUE;
        w->count--;
    }
    *finished = !w->running && !w->count;
    pthread_cond_broadcast(&w->emptied);
    pthread_mutex_unlock(&w->lock);
    return n;
}

static enum cache_code store_batch(struct cache *c, struct job **jobs, unsigned n, struct cache_error *err)
{
    enum cache_code code = cache_begin(c, err);
    for (unsigned i = 0; code == CACHE_OK && i < n; i++) {
        const struct job *j = jobs[i];
        struct cache_record r = {.recto = j->page->recto,
                                 .attr = j->attr,
                                 .verso = j->verso,
                                 .verso_len = j->verso_len,
                                 .insn_count = j->insns,
                                 .sensitive_count = j->sensitive,
                                 .plain = j->tables_len};
        bool added = false;
        code = cache_put(c, &j->page->key, &r, &added, err);
        j->page->fate = added ? PAGE_ADDED : PAGE_PRESENT;
    }
    if (code == CACHE_OK)
        code = cache_commit(c, err);
    if (code != CACHE_OK)
        for (unsigned i = 0; i < n; i++)
            jobs[i]->page->fate = PAGE_NOT_STORED;
    return code;
}

static int store_all(struct work *w, struct progress *pr)
{
    struct job *jobs[BATCH];
    struct cache_error err = {0};
    enum cache_code code = CACHE_OK;
    for (bool finished = false; !finished;) {
        unsigned n = take_jobs(w, jobs, &finished), added = 0;
        if (n && code == CACHE_OK)
            code = store_batch(w->cache, jobs, n, &err);
        else if (n)
            for (unsigned i = 0; i < n; i++)
                jobs[i]->page->fate = PAGE_NOT_STORED;
        for (unsigned i = 0; i < n; i++) {
            added += jobs[i]->page->fate == PAGE_ADDED;
            free_job(jobs[i]);
        }
        pthread_mutex_lock(&w->lock);
        w->stop = w->stop || code != CACHE_OK;
        w->done += n;
        size_t done = w->done;
        pthread_cond_broadcast(&w->emptied);
        pthread_mutex_unlock(&w->lock);
        pr->stored += added;
        show_progress(pr, done, w->g->page_count, finished);
    }
    if (code == CACHE_OK)
        return STATUS_OK;
    int status = tools_cache_failed(&err);
    fprintf(stderr, "verso: %" PRIu64 " records were stored before that and stay\n", pr->stored);
    return status;
}

static bool fate_stored(const struct gather_page *p)
{
    return p->fate == PAGE_ADDED || p->fate == PAGE_PRESENT;
}

/* Enters the images, after all their pages. A refused page counts as one of its image's without being
 * entered: that image is looked at again next time, since memory, validator or translator may have become
 * better. */
static enum cache_code store_images(struct gather *g, struct cache *c, struct cache_error *err)
{
    for (size_t i = 0; i < g->use_count; i++) {
        const struct gather_page *p = &g->page[g->use[i].page];
        struct cache_image *img = &g->image[g->use[i].image].img;
        img->pages += p->fate != PAGE_NO_CODE;
        img->insns += fate_stored(p) ? p->insns : 0;
    }
    enum cache_code code = cache_begin(c, err);
    for (size_t i = 0; code == CACHE_OK && i < g->image_count; i++)
        if (!g->image[i].known)
            code = cache_image_add(c, &g->image[i].img, err);
    for (size_t i = 0; code == CACHE_OK && i < g->use_count; i++) {
        const struct gather_page *p = &g->page[g->use[i].page];
        if (fate_stored(p))
            code = cache_image_page(c, g->image[g->use[i].image].img.id, g->use[i].vaddr, &p->key, err);
    }
    return code == CACHE_OK ? cache_commit(c, err) : code;
}

static void free_workers(struct worker *k, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(k[i].scan);
        xlat_verso_free(&k[i].verso);
        cache_buf_free(&k[i].buf);
    }
    free(k);
}

static int translate_all(struct work *w, unsigned jobs, struct progress *pr)
{
    struct worker *k = calloc(jobs, sizeof(*k));
    unsigned started = 0;
    if (!k)
        return STATUS_IMAGE_MEMORY;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->filled, NULL);
    pthread_cond_init(&w->emptied, NULL);
    w->running = jobs;
    for (; started < jobs; started++) {
        k[started].w = w;
        xlat_verso_init(&k[started].verso);
        k[started].scan = malloc(sizeof(*k->scan));
        if (!k[started].scan || pthread_create(&k[started].thread, NULL, work_thread, &k[started]))
            break;
    }
    pthread_mutex_lock(&w->lock);
    w->running -= jobs - started;
    pthread_mutex_unlock(&w->lock);
    int status = STATUS_HOST;
    if (started)
        status = store_all(w, pr);
    else
        fprintf(stderr, "verso: no thread could be started\n");
    for (unsigned i = 0; i < started; i++)
        pthread_join(k[i].thread, NULL);
    free_workers(k, jobs);
    return status;
}

/* -- Summary
 * ------------------------------------------------------------------------------------------------------ */

static const char *const fate_names[] = {
#define X(id, name, text) name,
    PAGE_FATES(X)
#undef X
};
static const char *const fate_texts[] = {
#define X(id, name, text) text,
    PAGE_FATES(X)
#undef X
};

struct summary {
    uint64_t images, known_images, pages, insns, exec_bytes, blob_bytes, file_bytes, ns,
        fate[PAGE_FATE_COUNT];
    double ratio;
};

static void sum_up(const struct work *w, const struct cache_stats *cs, uint64_t ns, struct summary *s)
{
    const struct gather *g = w->g;
    memset(s, 0, sizeof(*s));
    s->images = g->image_count;
    for (size_t i = 0; i < g->image_count; i++) {
        s->known_images += g->image[i].known;
        s->pages += g->image[i].img.pages;
        s->insns += g->image[i].img.insns;
    }
    for (size_t i = 0; i < g->page_count; i++)
        s->fate[g->page[i].fate]++;
    s->exec_bytes = g->exec_bytes;
    s->blob_bytes = cs->blob_bytes;
    s->file_bytes = cs->file_bytes;
    s->ratio = s->exec_bytes ? (double)s->file_bytes / (double)s->exec_bytes : 0;
    s->ns = ns;
}

static void summary_json(const struct work *w, const struct summary *s)
{
    struct json j = {.to = stdout};
    json_object(&j, NULL);
    json_string(&j, "event", "summary");
    json_u64(&j, "images", s->images);
    json_u64(&j, "images_known", s->known_images);
    json_u64(&j, "pages", s->pages);
    json_u64(&j, "distinct_pages", w->g->page_count);
    json_object(&j, "page_results");
    for (unsigned i = 1; i < PAGE_FATE_COUNT; i++)
        json_u64(&j, fate_names[i], s->fate[i]);
    json_end_object(&j);
    json_u64(&j, "records_added", s->fate[PAGE_ADDED]);
    json_u64(&j, "instructions", s->insns);
    json_u64(&j, "instructions_translated", w->tally.insns);
    json_u64(&j, "lengths_compared", w->tally.lengths_compared);
    json_u64(&j, "length_differences", w->tally.length_differences);
    json_u64(&j, "damaged_members", w->g->damaged);
    json_object(&j, "sensitive");
    for (unsigned c = 0; c < SCAN_CLASS_COUNT; c++)
        if (scan_class_sensitive((enum scan_class)c))
            json_u64(&j, scan_class_name((enum scan_class)c), w->tally.class_count[c]);
    json_end_object(&j);
    json_u64(&j, "executable_bytes", s->exec_bytes);
    json_u64(&j, "host_code_bytes", w->tally.code_bytes);
    json_u64(&j, "cache_blob_bytes", s->blob_bytes);
    json_u64(&j, "cache_file_bytes", s->file_bytes);
    json_real(&j, "cache_to_executable", s->ratio);
    json_u64(&j, "ms", s->ns / 1000000u);
    json_end_object(&j);
    json_newline(&j);
}

static void summary_text(const struct work *w, const struct summary *s)
{
    char a[16], b[16];
    printf("images          %" PRIu64 " (%" PRIu64 " known already)\n", s->images, s->known_images);
    printf("pages           %" PRIu64 " in images; %zu distinct ones looked at\n", s->pages,
           w->g->page_count);
    for (unsigned i = 1; i < PAGE_FATE_COUNT; i++)
        if (s->fate[i] || i == PAGE_ADDED || i == PAGE_PRESENT)
            printf("  %-14s %" PRIu64 "  %s\n", fate_names[i], s->fate[i], fate_texts[i]);
    printf("instructions    %" PRIu64 " in images; %" PRIu64 " translated now, %" PRIu64
           " of them to the emulator\n",
           s->insns, w->tally.insns, w->tally.emulated);
    printf("length check    %" PRIu64 " compared with Zydis, %" PRIu64 " differ\n", w->tally.lengths_compared,
           w->tally.length_differences);
    if (w->g->damaged)
        printf("left out        %u damaged members of initrds\n", w->g->damaged);
    if (w->tally.insns)
        printf("sensitive       (in pages translated now)\n");
    for (unsigned i = 0; i < SCAN_CLASS_COUNT && w->tally.insns; i++)
        if (scan_class_sensitive((enum scan_class)i))
            printf("  %-14s %" PRIu64 "  %s\n", scan_class_name((enum scan_class)i), w->tally.class_count[i],
                   scan_class_text((enum scan_class)i));
    printf("executable      %s; host code made now %s\n", tools_bytes(s->exec_bytes, a),
           tools_bytes(w->tally.code_bytes, b));
    printf("cache           %s in records, file %s: %.2f times the executable bytes\n",
           tools_bytes(s->blob_bytes, a), tools_bytes(s->file_bytes, b), s->ratio);
    printf("records added   %" PRIu64 "\n", s->fate[PAGE_ADDED]);
    printf("time            %.2f s\n", (double)s->ns / 1e9);
}

/* -- The command
 * ---------------------------------------------------------------------------------------------------- */

static int gather_all(struct gather *g, struct cache *cache, const struct options *o, int argc, char **argv)
{
    struct cache_error err = {0};
    int status = STATUS_OK;
    if (!gather_known(g, cache, &err))
        return tools_cache_failed(&err);
    for (int i = 0; i < argc; i++)
        if (!gather_path(g, argv[i], o->entry, &status))
            return status;
    for (unsigned i = 0; i < o->initrd.count; i++)
        if (!gather_initrd(g, o->initrd.item[i], &status))
            return status;
    return STATUS_OK;
}

/* Sizes as they are when nothing is open any more: the write-ahead log has been folded into the file then. */
static int settled_stats(const char *path, struct cache_stats *out)
{
    struct cache_error err = {0};
    int status = STATUS_OK;
    struct cache *c =
        tools_cache_open(path, 0, &status); /* not read-only: the last close then removes the log */
    if (!c)
        return status;
    if (cache_stats(c, out, &err) != CACHE_OK)
        status = tools_cache_failed(&err);
    return tools_cache_close(c, status);
}

static int report(const struct work *w, const struct options *o, uint64_t ns)
{
    struct cache_stats cs = {0};
    struct summary s;
    int status = settled_stats(o->cache, &cs);
    if (status)
        return status;
    sum_up(w, &cs, ns, &s);
    if (o->json)
        summary_json(w, &s);
    else
        summary_text(w, &s);
    return STATUS_OK;
}

static int fill(struct work *w, struct progress *pr, int argc, char **argv)
{
    const struct options *o = w->opt;
    struct cache_error err = {0};
    int status = gather_all(w->g, w->cache, o, argc, argv);
    if (status == STATUS_OK && w->g->page_count)
        status = translate_all(w, o->jobs ? (unsigned)(o->jobs > 256 ? 256 : o->jobs) : tools_cpus(), pr);
    if (status == STATUS_OK && store_images(w->g, w->cache, &err) != CACHE_OK)
        status = tools_cache_failed(&err);
    return status;
}

static int prewarm(struct cache *cache, const struct options *o, int argc, char **argv)
{
    uint32_t xopt = xlat_host_options();
    struct gather g;
    if (!gather_init(&g, xlat_fingerprint(xopt))) {
        fprintf(stderr, "verso: out of memory\n");
        return tools_cache_close(cache, STATUS_IMAGE_MEMORY);
    }
    g.notes = stderr;
    struct progress pr = {.json = o->json, .bar = isatty(2), .start_ns = tools_now_ns()};
    struct work w = {.g = &g, .cache = cache, .opt = o, .xlat_options = xopt};
    int status = tools_cache_close(cache, fill(&w, &pr, argc, argv));
    if (status == STATUS_OK)
        status = report(&w, o, tools_now_ns() - pr.start_ns);
    gather_free(&g);
    return status;
}

static int run(const struct cmd *self, int argc, char **argv)
{
    struct options o = {0};
    switch (opt_parse(self, &o, &argc, argv)) {
    case OPT_HELP:
        return STATUS_OK;
    case OPT_BAD:
        return STATUS_USAGE;
    case OPT_DONE:
        break;
    }
    if (argc < 1 && !o.initrd.count) {
        opt_help(self, stderr);
        return STATUS_USAGE;
    }
    int status = STATUS_OK;
    struct cache *cache = tools_cache_open(o.cache, CACHE_CREATE, &status);
    if (!cache)
        return status;
    return prewarm(cache, &o, argc, argv);
}

const struct cmd cmd_prewarm = {
    .name = "prewarm",
    .args = "GUEST.iso|KERNEL|ELF ...",
    .summary = "fill the cache with the patched pages of everything executable in a guest",
    .opts = options,
    .run = run,
    .notes = "Reads the kernels and initrds of an ISO's boot entries, or bare kernels and ELF files. Running "
             "it again adds\n"
             "nothing; what it reports as stored survives a kill at any time.",
};
