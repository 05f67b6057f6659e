/* monitor/trace.c: the writer of traces, and what the rest of the monitor reports events with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "monitor/machine.h"
#include "monitor/trace.h"

#define TEXT_BYTES 65536u

struct trace {
    struct trace_config cfg;
    uint64_t seen;    /* events that passed the filter */
    uint64_t written; /* of them, handed on: to the ring or the file */
    uint64_t began_ns;
    int error;
    bool header_done;
    struct trace_event *ring; /* cfg.ring entries; event n is at n % cfg.ring */
    struct trace_block block;
    char text[TEXT_BYTES];
    size_t text_len;
};

struct trace *trace_open(const struct trace_config *cfg)
{
    struct timespec now;
    struct trace *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->cfg = *cfg;
    clock_gettime(CLOCK_REALTIME, &now);
    t->began_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (cfg->ring && !(t->ring = calloc(cfg->ring, sizeof(*t->ring)))) {
        free(t);
        return NULL;
    }
    return t;
}

void trace_close(struct trace *t)
{
    if (!t)
        return;
    free(t->ring);
    free(t);
}

static void write_all(struct trace *t, const void *bytes, size_t len)
{
    const char *p = bytes;
    while (len && !t->error) {
        ssize_t n = write(t->cfg.fd, p, len);
        if (n < 0 && errno != EINTR)
            t->error = errno;
        if (n <= 0)
            continue;
        p += n;
        len -= (size_t)n;
    }
}

static void flush_block(struct trace *t)
{
    if (!t->header_done) {
        uint8_t header[TRACE_HEADER_BYTES];
        trace_put_header(&(struct trace_header){t->began_ns, t->ring != NULL}, header);
        write_all(t, header, sizeof(header));
        t->header_done = true;
    }
    if (!t->block.records)
        return;
    trace_block_finish(&t->block);
    write_all(t, t->block.bytes, TRACE_BLOCK_HEAD + t->block.len);
    t->block.records = 0;
}

static void put_end(struct trace *t)
{
    t->block.len = 0;
    t->block.first = t->cfg.filter.skip + t->written;
    trace_block_finish(&t->block);
    write_all(t, t->block.bytes, TRACE_BLOCK_HEAD);
}

static void put_binary(struct trace *t, const struct trace_event *e, uint64_t number)
{
    struct trace_block *b = &t->block;
    if (b->records && trace_block_add(b, e))
        return;
    flush_block(t);
    b->len = 0;
    b->first = number;
    b->ns = 0;
    b->eip = 0;
    b->cs = 0;
    b->context = 0;
    (void)trace_block_add(b, e);
}

static void put_text(struct trace *t, const struct trace_event *e)
{
    if (t->text_len + TRACE_TEXT_MAX + 1 > TEXT_BYTES) {
        write_all(t, t->text, t->text_len);
        t->text_len = 0;
    }
    t->text_len += trace_text(e, t->text + t->text_len);
    t->text[t->text_len++] = '\n';
}

static void put(struct trace *t, const struct trace_event *e, uint64_t number)
{
    if (t->cfg.binary)
        put_binary(t, e, number);
    else
        put_text(t, e);
}

static bool is_complete(const struct trace *t)
{
    return t->error || (t->cfg.filter.count && t->written >= t->cfg.filter.count);
}

bool trace_note(struct trace *t, const struct trace_event *e)
{
    if (is_complete(t) || !trace_filter_passes(&t->cfg.filter, e))
        return !is_complete(t);
    if (t->seen++ < t->cfg.filter.skip)
        return true;
    if (t->ring)
        t->ring[t->written % t->cfg.ring] = *e;
    else if (t->cfg.fd >= 0)
        put(t, e, t->seen - 1);
    t->written++;
    return !is_complete(t);
}

uint64_t trace_wanted(const struct trace *t)
{
    return is_complete(t) ? 0 : t->cfg.filter.kinds;
}

void trace_select(struct trace *t, uint64_t kinds)
{
    t->cfg.filter.kinds = kinds;
}

uint64_t trace_seen(const struct trace *t)
{
    return t->seen;
}

uint64_t trace_held(const struct trace *t)
{
    if (!t->ring)
        return 0;
    return t->written < t->cfg.ring ? t->written : t->cfg.ring;
}

const struct trace_event *trace_get(const struct trace *t, uint64_t n)
{
    return &t->ring[(t->written - trace_held(t) + n) % t->cfg.ring];
}

void trace_show(struct trace *t)
{
    write_all(t, t->text, t->text_len);
    t->text_len = 0;
}

int trace_flush(struct trace *t)
{
    if (t->cfg.fd < 0)
        return 0;
    uint64_t held = trace_held(t);
    for (uint64_t n = 0; n < held; n++)
        put(t, trace_get(t, n), t->cfg.filter.skip + t->written - held + n);
    if (t->cfg.binary) {
        flush_block(t);
        put_end(t);
    } else {
        trace_show(t);
    }
    return t->error;
}

/* -- The machine's side ----------------------------------------------------------------------------------- */

void machine_observe(struct machine *m)
{
    m->tracing = m->trace ? trace_wanted(m->trace) : 0;
    const struct debug *d = m->debug;
    bool flow = m->tracing & trace_group_kinds(TRACE_GROUP_FLOW), points = d && (d->breaks || d->watches);
    m->vm.observe = (uint8_t)((flow ? VM_OBSERVE_FLOW : 0) | (d && d->breaks ? VM_OBSERVE_BREAK : 0) |
                              (d && d->watches ? VM_OBSERVE_WATCH : 0) | (d && d->stepping ? VM_OBSERVE_ONE : 0));
    m->light = LIGHT_POSSIBLE && !m->stepping && !m->tracing && !points;
}

void machine_trace(struct machine *m, enum trace_kind kind, struct vm_place at, const uint64_t field[TRACE_FIELDS])
{
    struct trace_event e = {.ns = machine_guest_ns(m),
                            .eip = at.eip,
                            .cs = at.cs,
                            .kind = (uint8_t)kind,
                            .context = at.context};
    memcpy(e.field, field, sizeof(e.field));
    if (!trace_note(m->trace, &e))
        machine_observe(m);
}
