/* tools/cmd_trace.c: `verso trace`: reads a compact trace (monitor/TRACE_FORMAT.md).
 *
 * The file may be anything: every length is checked by the reader, damage is skipped to the next sound block and
 * told, and what is sound is shown.
 */
#include "tools/json.h"
#include "tools/tools.h"
#include "tools/trace_select.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER = 1 << 18, TARGETS_SHOWN = 10, TARGET_HASH = 65536, TARGET_TRIES = 32, LAST_MAX = 1 << 24,
       HEADER_DAMAGED = -1 };

struct options {
    struct trace_select select;
    uint64_t last;
    const char *stats;
    bool time, number;
};

#define AT(field) offsetof(struct options, field)
static const struct opt options[] = {
    {"events", 0, OPT_STRING, AT(select.events), "LIST", "only these groups or kinds; \"list\" shows them (all)"},
    {"eip", 0, OPT_STRING, AT(select.eip), "RANGES", "only what happens in, or leads to, FIRST-LAST,..."},
    {"cpl", 0, OPT_STRING, AT(select.cpl), "LIST", "only at these privilege levels"},
    {"skip", 0, OPT_UINT, AT(select.skip), "N", "leave out the first N of those"},
    {"count", 0, OPT_UINT, AT(select.count), "N", "show no more than N"},
    {"last", 0, OPT_UINT, AT(last), "N", "show the last N only"},
    {"stats", 0, OPT_OPTIONAL, AT(stats), "json", "count instead of showing"},
    {"time", 't', OPT_FLAG, AT(time), NULL, "show the guest's time in front of each event, in microseconds"},
    {"number", 'n', OPT_FLAG, AT(number), NULL, "show each event's number"},
    {0},
};

/* Where control goes to, and how often. */
struct target {
    uint32_t to;
    uint64_t times;
};

struct stats {
    uint64_t kind[TRACE_KIND_COUNT], cpl[4], mode[4], vector[256];
    uint64_t first_ns, last_ns, events;
    struct target target[TARGET_HASH];
    uint64_t targets_lost;
};

struct reader {
    const struct options *o;
    struct trace_filter filter;
    struct stats *stats;
    struct trace_event *last; /* ring of o->last */
    uint64_t *last_number;
    uint64_t passed, shown, missing, skipped_bytes, gaps, next;
    bool any, cut, ended, done;
};

/* -- Statistics ------------------------------------------------------------------------------------------- */

static void count_target(struct stats *s, uint32_t to)
{
    uint32_t h = to * 0x9E3779B1u >> 16;
    for (unsigned i = 0; i < TARGET_TRIES; i++) {
        struct target *t = &s->target[(h + i) % TARGET_HASH];
        if (t->times && t->to != to)
            continue;
        t->to = to;
        t->times++;
        return;
    }
    s->targets_lost++;
}

static void count(struct stats *s, const struct trace_event *e)
{
    if (!s->events++)
        s->first_ns = e->ns;
    s->last_ns = e->ns;
    s->kind[e->kind]++;
    s->cpl[TRACE_CPL(e->context)]++;
    s->mode[TRACE_MODE(e->context)]++;
    if (e->kind == TRACE_EXCEPTION || e->kind == TRACE_IRQ)
        s->vector[e->field[0] & 0xFF]++;
    if (e->kind == TRACE_CALL)
        count_target(s, (uint32_t)e->field[0]);
}

static int by_times(const void *a, const void *b)
{
    const struct target *x = a, *y = b;
    if (x->times != y->times)
        return x->times > y->times ? -1 : 1;
    return x->to < y->to ? -1 : x->to > y->to;
}

static const char *const mode_name[4] = {"real", "v86", "p16", "p32"};

static void stats_text(const struct stats *s)
{
    printf("events            %" PRIu64 " in %.6f s of guest time\n", s->events, (double)(s->last_ns - s->first_ns) / 1e9);
    for (unsigned k = 0; k < TRACE_KIND_COUNT; k++)
        if (s->kind[k])
            printf("  %-12s %12" PRIu64 "  %s\n", trace_kind_name((enum trace_kind)k), s->kind[k],
                   trace_kind_text((enum trace_kind)k));
    printf("by CPL           ");
    for (unsigned i = 0; i < 4; i++)
        printf(" %u: %" PRIu64, i, s->cpl[i]);
    printf("\nby mode          ");
    for (unsigned i = 0; i < 4; i++)
        printf(" %s: %" PRIu64, mode_name[i], s->mode[i]);
    printf("\n");
    for (unsigned v = 0; v < 256; v++)
        if (s->vector[v])
            printf("  vector %02x    %12" PRIu64 "\n", v, s->vector[v]);
    for (unsigned i = 0; i < TARGETS_SHOWN && s->target[i].times; i++)
        printf("%s  %08" PRIx32 "     %12" PRIu64 "\n", i ? "" : "most called\n", s->target[i].to, s->target[i].times);
    if (s->targets_lost)
        printf("  %" PRIu64 " calls of too many places to tell\n", s->targets_lost);
}

static void stats_json(const struct reader *r)
{
    const struct stats *s = r->stats;
    struct json j = {.to = stdout};
    json_object(&j, NULL);
    json_u64(&j, "events", s->events);
    json_u64(&j, "ns", s->last_ns - s->first_ns);
    json_u64(&j, "damaged_places", r->gaps);
    json_u64(&j, "skipped_bytes", r->skipped_bytes);
    json_u64(&j, "missing_events", r->missing);
    json_bool(&j, "cut", r->cut);
    json_object(&j, "kinds");
    for (unsigned k = 0; k < TRACE_KIND_COUNT; k++)
        if (s->kind[k])
            json_u64(&j, trace_kind_name((enum trace_kind)k), s->kind[k]);
    json_end_object(&j);
    json_object(&j, "modes");
    for (unsigned i = 0; i < 4; i++)
        json_u64(&j, mode_name[i], s->mode[i]);
    json_end_object(&j);
    json_array(&j, "cpl");
    for (unsigned i = 0; i < 4; i++)
        json_u64(&j, NULL, s->cpl[i]);
    json_end_array(&j);
    json_array(&j, "called");
    for (unsigned i = 0; i < 100 && s->target[i].times; i++) {
        json_object(&j, NULL);
        json_u64(&j, "address", s->target[i].to);
        json_u64(&j, "times", s->target[i].times);
        json_end_object(&j);
    }
    json_end_array(&j);
    json_end_object(&j);
    json_newline(&j);
}

/* -- Events ----------------------------------------------------------------------------------------------- */

static void show(const struct reader *r, const struct trace_event *e, uint64_t number)
{
    char text[TRACE_TEXT_MAX];
    trace_text(e, text);
    if (r->o->number)
        printf("%" PRIu64 " ", number);
    if (r->o->time)
        printf("%" PRIu64 ".%03u ", e->ns / 1000, (unsigned)(e->ns % 1000));
    puts(text);
}

static void take(struct reader *r, const struct trace_event *e, uint64_t number)
{
    if (!trace_filter_passes(&r->filter, e) || r->passed++ < r->filter.skip)
        return;
    if (r->stats) {
        count(r->stats, e);
    } else if (r->last) {
        r->last[r->shown % r->o->last] = *e;
        r->last_number[r->shown % r->o->last] = number;
    } else {
        show(r, e, number);
    }
    r->shown++;
    r->done = r->filter.count && r->shown >= r->filter.count;
}

static void show_last(const struct reader *r)
{
    uint64_t n = r->shown < r->o->last ? r->shown : r->o->last;
    for (uint64_t i = r->shown - n; i < r->shown; i++)
        show(r, &r->last[i % r->o->last], r->last_number[i % r->o->last]);
}

static void damage(struct reader *r, uint64_t at, const char *what)
{
    if (r->gaps++ < 10)
        fprintf(stderr, "verso trace: %s at byte %" PRIu64 "\n", what, at);
}

static void read_events(struct reader *r, struct trace_cursor *c, uint64_t at)
{
    struct trace_event e;
    bool bad = false;
    if (r->any && c->number != r->next) {
        r->missing += c->number > r->next ? c->number - r->next : 0;
        damage(r, at, "events are missing");
    }
    r->ended = !c->left;
    r->any = true;
    r->next = c->number + c->left;
    while (!r->done && trace_read_event(c, &e, &bad))
        take(r, &e, c->number - 1);
    if (bad)
        damage(r, at, "a block whose records make no sense");
}

/* Reads to the end, or as far as wanted. False: the file cannot be read. */
static bool read_blocks(struct reader *r, int fd)
{
    static uint8_t buffer[BUFFER];
    size_t len = 0, from = 0;
    uint64_t base = TRACE_HEADER_BYTES; /* offset in the file of buffer[0] */
    bool end = false, skipping = false;
    while (!r->done) {
        struct trace_cursor c;
        size_t used;
        enum trace_read got = trace_read_block(buffer + from, len - from, end, &used, &c);
        if (got == TRACE_READ_END) {
            if (!r->ended)
                damage(r, base + from, "no end: the run was killed, or the file is cut off");
            return true;
        }
        if (got == TRACE_READ_MORE) {
            memmove(buffer, buffer + from, len - from);
            base += from;
            len -= from;
            from = 0;
            ssize_t n = read(fd, buffer + len, sizeof(buffer) - len);
            if (n < 0 && errno != EINTR)
                return false;
            end = n == 0;
            len += n > 0 ? (size_t)n : 0;
            continue;
        }
        if (got == TRACE_READ_BLOCK) {
            read_events(r, &c, base + from);
            skipping = false;
        } else {
            if (!skipping)
                damage(r, base + from, got == TRACE_READ_CUT ? "the file is cut off" : "damage");
            r->cut |= got == TRACE_READ_CUT;
            r->skipped_bytes += used;
            skipping = true;
        }
        from += used;
    }
    return true;
}

static int read_header(int fd, const char *name)
{
    uint8_t bytes[TRACE_HEADER_BYTES];
    struct trace_header h;
    size_t len = 0;
    while (len < sizeof(bytes)) {
        ssize_t n = read(fd, bytes + len, sizeof(bytes) - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fprintf(stderr, "verso: %s: %s\n", name, strerror(errno));
            return STATUS_IO;
        }
        if (!n)
            break;
        len += (size_t)n;
    }
    enum trace_header_result got = len < sizeof(bytes) ? TRACE_HEADER_FOREIGN : trace_get_header(bytes, &h);
    switch (got) {
    case TRACE_HEADER_OK:
        return STATUS_OK;
    case TRACE_HEADER_FOREIGN:
        fprintf(stderr, "verso: %s: not a compact trace\n", name);
        return STATUS_TRACE;
    case TRACE_HEADER_VERSION:
        fprintf(stderr, "verso: %s: a trace of another version\n", name);
        return STATUS_TRACE;
    case TRACE_HEADER_DAMAGED:
        break;
    }
    fprintf(stderr, "verso: %s: the header is damaged; going on\n", name);
    return HEADER_DAMAGED;
}

static bool prepare(struct reader *r)
{
    r->stats = r->o->stats ? calloc(1, sizeof(*r->stats)) : NULL;
    if (r->o->stats)
        return r->stats;
    if (!r->o->last)
        return true;
    r->last = calloc(r->o->last, sizeof(*r->last));
    r->last_number = calloc(r->o->last, sizeof(*r->last_number));
    return r->last && r->last_number;
}

static void finish(struct reader *r)
{
    if (r->stats) {
        qsort(r->stats->target, TARGET_HASH, sizeof(r->stats->target[0]), by_times);
        if (!strcmp(r->o->stats, "json"))
            stats_json(r);
        else
            stats_text(r->stats);
    } else if (r->last) {
        show_last(r);
    }
    if (r->gaps)
        fprintf(stderr, "verso trace: %" PRIu64 " damaged places, %" PRIu64 " bytes skipped, %" PRIu64 " events missing\n",
                r->gaps, r->skipped_bytes, r->missing);
}

static int read_trace(const struct options *o, const char *name)
{
    struct reader r = {.o = o};
    if (!trace_select_parse("trace", "", &o->select, "all", &r.filter))
        return STATUS_USAGE;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "verso: %s: %s\n", name, strerror(errno));
        return STATUS_IO;
    }
    int status = read_header(fd, name);
    bool damaged = status == HEADER_DAMAGED;
    if (!status || damaged) {
        status = STATUS_OK;
        if (!prepare(&r)) {
            fprintf(stderr, "verso trace: out of memory\n");
            status = STATUS_IO;
        } else if (!read_blocks(&r, fd)) {
            fprintf(stderr, "verso: %s: %s\n", name, strerror(errno));
            status = STATUS_IO;
        }
        finish(&r);
        if (fflush(stdout) || ferror(stdout))
            status = STATUS_IO;
        if (!status && (r.gaps || damaged))
            status = STATUS_TRACE;
    }
    close(fd);
    free(r.stats);
    free(r.last);
    free(r.last_number);
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
    if (o.select.events && !strcmp(o.select.events, "list")) {
        trace_select_list();
        return STATUS_OK;
    }
    if (argc != 1) {
        fprintf(stderr, "verso trace: give one file (verso trace --help)\n");
        return STATUS_USAGE;
    }
    if (o.stats && *o.stats && strcmp(o.stats, "json") && strcmp(o.stats, "text")) {
        fprintf(stderr, "verso trace: --stats is text or json\n");
        return STATUS_USAGE;
    }
    if (o.last > LAST_MAX) {
        fprintf(stderr, "verso trace: --last takes at most %d\n", LAST_MAX);
        return STATUS_USAGE;
    }
    return read_trace(&o, argv[0]);
}

const struct cmd cmd_trace = {
    .name = "trace",
    .args = "FILE",
    .summary = "read a trace written by verso run --trace-format binary",
    .opts = options,
    .run = run,
    .notes = "Status 6: not a trace, or parts of it are damaged or missing; what is sound is shown.",
};
