/* tools/profile_report.c: the profile of a run as text and JSON. */
#include "tools/profile_report.h"

#include <inttypes.h>
#include <stdlib.h>

enum { TOP_TEXT = 20, TOP_JSON = 200, PAGE_MASK = 0xFFF };

/* Samples of one guest address, or of one page: in all, and by what was done for it. */
struct line {
    uint32_t at;
    bool user;
    uint64_t samples;
    uint64_t by[RUN_DOING_COUNT];
};

static int by_address(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->user != y->user)
        return x->user ? 1 : -1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int by_samples(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->samples != y->samples)
        return x->samples > y->samples ? -1 : 1;
    return by_address(a, b);
}

/* Lines by address & mask, most samples first. Returns their number; *out is the caller's to free, NULL
 * without memory. */
static size_t collect(const struct run_profile *p, uint32_t mask, struct line **out)
{
    size_t n = 0, kept = 0;
    struct line *l = calloc(RUN_SPOT_MAX, sizeof(*l));
    *out = l;
    if (!l)
        return 0;
    for (size_t i = 0; i < RUN_SPOT_MAX; i++) {
        const struct run_spot *s = &p->spot[i];
        if (!s->samples)
            continue;
        l[n] = (struct line){.at = s->eip & mask, .user = s->user, .samples = s->samples};
        l[n++].by[s->doing] = s->samples;
    }
    qsort(l, n, sizeof(*l), by_address);
    for (size_t i = 0; i < n; i++) {
        if (kept && !by_address(&l[kept - 1], &l[i])) {
            l[kept - 1].samples += l[i].samples;
            for (unsigned d = 0; d < RUN_DOING_COUNT; d++)
                l[kept - 1].by[d] += l[i].by[d];
        } else {
            l[kept++] = l[i];
        }
    }
    qsort(l, kept, sizeof(*l), by_samples);
    return kept;
}

static uint64_t total_of(const struct run_profile *p)
{
    uint64_t total = 0;
    for (unsigned d = 0; d < RUN_DOING_COUNT; d++)
        total += p->by[d];
    return total;
}

static void lines_text(FILE *to, const struct run_profile *p, const char *title, uint32_t mask)
{
    uint64_t total = total_of(p);
    struct line *l;
    size_t n = collect(p, mask, &l);
    fprintf(to, "%s\n", title);
    for (size_t i = 0; i < n && i < TOP_TEXT; i++) {
        fprintf(to, "  %5.1f %%  %s %08" PRIx32 " ", 100.0 * (double)l[i].samples / (double)total,
                l[i].user ? "user  " : "kernel", l[i].at);
        for (unsigned d = 0; d < RUN_DOING_COUNT; d++)
            if (l[i].by[d])
                fprintf(to, " %s %" PRIu64, run_doing_name((enum run_doing)d), l[i].by[d]);
        fputc('\n', to);
    }
    free(l);
}

void profile_text(FILE *to, const struct run_profile *p)
{
    uint64_t total = total_of(p);
    fprintf(to, "profile           %" PRIu64 " samples, %u a second of real time\n", total, p->hz);
    if (!total)
        return;
    for (unsigned d = 0; d < RUN_DOING_COUNT; d++)
        fprintf(to, "  %5.1f %%  %-12s %10" PRIu64 "  %s\n", 100.0 * (double)p->by[d] / (double)total,
                run_doing_name((enum run_doing)d), p->by[d], run_doing_text((enum run_doing)d));
    lines_text(to, p, "guest pages, with what was done at or for them", ~(uint32_t)PAGE_MASK);
    lines_text(to, p, "guest instructions", ~0u);
    if (p->spots_lost)
        fprintf(to, "%" PRIu64 " samples at too many places to tell\n", p->spots_lost);
}

static void lines_json(struct json *j, const struct run_profile *p, const char *key, uint32_t mask)
{
    struct line *l;
    size_t n = collect(p, mask, &l);
    json_array(j, key);
    for (size_t i = 0; i < n && i < TOP_JSON; i++) {
        json_object(j, NULL);
        json_u64(j, "address", l[i].at);
        json_bool(j, "user", l[i].user);
        json_u64(j, "samples", l[i].samples);
        for (unsigned d = 0; d < RUN_DOING_COUNT; d++)
            if (l[i].by[d])
                json_u64(j, run_doing_name((enum run_doing)d), l[i].by[d]);
        json_end_object(j);
    }
    json_end_array(j);
    free(l);
}

void profile_json(struct json *j, const struct run_profile *p)
{
    json_object(j, "profile");
    json_u64(j, "hz", p->hz);
    json_u64(j, "samples", total_of(p));
    json_u64(j, "spots_lost", p->spots_lost);
    json_object(j, "by");
    for (unsigned d = 0; d < RUN_DOING_COUNT; d++)
        json_u64(j, run_doing_name((enum run_doing)d), p->by[d]);
    json_end_object(j);
    lines_json(j, p, "pages", ~(uint32_t)PAGE_MASK);
    lines_json(j, p, "instructions", ~0u);
    json_end_object(j);
}
