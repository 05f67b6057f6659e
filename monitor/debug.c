/* monitor/debug.c: see debug.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "monitor/debug.h"
#include "monitor/gdb.h"
#include "monitor/lockstep.h"
#include "monitor/machine.h"

#define TRACE_HELD 4096u

/* -- Points ----------------------------------------------------------------------------------------------- */

static bool is_break(unsigned kind)
{
    return kind <= DEBUG_HARD;
}

static struct debug_point *find(struct debug *d, struct debug_point p)
{
    for (unsigned i = 0; i < d->points; i++)
        if (d->point[i].lin == p.lin && d->point[i].len == p.len && d->point[i].kind == p.kind)
            return &d->point[i];
    return NULL;
}

static bool make_point(enum debug_kind kind, uint32_t lin, uint64_t len, struct debug_point *out)
{
    *out = (struct debug_point){lin, is_break(kind) ? 1 : (uint32_t)len, (uint8_t)kind};
    return is_break(kind) || (len && len <= DEBUG_WATCH_BYTES && lin + (len - 1) <= UINT32_MAX);
}

bool debug_insert(struct machine *m, enum debug_kind kind, uint32_t lin, uint64_t len)
{
    struct debug *d = m->debug;
    struct debug_point p;
    if (!make_point(kind, lin, len, &p))
        return false;
    if (find(d, p))
        return true;
    if (d->points == DEBUG_POINTS)
        return false;
    d->point[d->points++] = p;
    return true;
}

bool debug_remove(struct machine *m, enum debug_kind kind, uint32_t lin, uint64_t len)
{
    struct debug *d = m->debug;
    struct debug_point p, *at;
    if (!make_point(kind, lin, len, &p))
        return false;
    at = find(d, p);
    if (at)
        *at = d->point[--d->points];
    return true;
}

void debug_remove_all(struct machine *m)
{
    m->debug->points = 0;
}

/* Puts the points in force. Debuggers take all of them out whenever the guest stops and put them in again before it goes on:
 * only pages that were not concerned before cost anything. */
static void apply(struct machine *m)
{
    struct debug *d = m->debug;
    static uint8_t old_break[sizeof(d->break_page)], old_watch[sizeof(d->watch_page)];
    memcpy(old_break, d->break_page, sizeof(old_break));
    memcpy(old_watch, d->watch_page, sizeof(old_watch));
    memset(d->break_page, 0, sizeof(d->break_page));
    memset(d->watch_page, 0, sizeof(d->watch_page));
    d->breaks = d->watches = 0;
    for (unsigned i = 0; i < d->points; i++) {
        const struct debug_point *p = &d->point[i];
        bool breaks = is_break(p->kind);
        uint8_t *map = breaks ? d->break_page : d->watch_page;
        uint32_t last = (p->lin + (p->len - 1)) >> 12;
        *(breaks ? &d->breaks : &d->watches) += 1;
        for (uint32_t n = p->lin >> 12; n <= last; n++) {
            if (map[n >> 3] >> (n & 7) & 1)
                continue;
            map[n >> 3] |= (uint8_t)(1u << (n & 7));
            if (breaks && !debug_page_bit(old_break, n << 12))
                code_withdraw(m, n << 12);
            else if (!breaks && !debug_page_bit(old_watch, n << 12))
                window_withdraw(m, n << 12);
        }
    }
    machine_observe(m);
}

/* -- Memory ----------------------------------------------------------------------------------------------- */

/* Host address of a byte and how many follow it in its page, or NULL. */
static uint8_t *locate(struct machine *m, bool physical, uint64_t address, bool write, size_t *room)
{
    uint64_t at = address;
    *room = PAGE_SIZE_ - (address & PAGE_MASK_);
    if (!physical) {
        struct mmu_page p;
        if (address > UINT32_MAX || !mmu_probe(&m->vm, gva((uint32_t)address), &p))
            return NULL;
        at = p.page.v | (address & PAGE_MASK_);
    }
    uint32_t frame = vm_frame(&m->vm, at & ~(uint64_t)PAGE_MASK_, write);
    return frame == VM_NO_FRAME ? NULL : m->vm.ram + (uint64_t)frame * PAGE_SIZE_ + (at & PAGE_MASK_);
}

size_t debug_read(struct machine *m, bool physical, uint64_t address, void *buf, size_t len)
{
    size_t done = 0, room;
    while (done < len) {
        const uint8_t *p = locate(m, physical, address + done, false, &room);
        if (!p)
            break;
        size_t n = room < len - done ? room : len - done;
        memcpy((uint8_t *)buf + done, p, n);
        done += n;
    }
    return done;
}

size_t debug_write(struct machine *m, bool physical, uint64_t address, const void *buf, size_t len)
{
    size_t done = 0, room;
    while (done < len) {
        uint8_t *p = locate(m, physical, address + done, true, &room);
        if (!p)
            break;
        size_t n = room < len - done ? room : len - done;
        uint64_t at = (uint64_t)(p - m->vm.ram);
        if (m->vm.code_pages[at >> 12])
            vm_code_written(&m->vm, gpa(at), (unsigned)n);
        memcpy(p, (const uint8_t *)buf + done, n);
        done += n;
    }
    return done;
}

uint32_t debug_pc(const struct machine *m)
{
    return m->vm.cpu->seg[SCAN_CS].base + m->vm.cpu->eip;
}

void debug_set_eip(struct machine *m, uint32_t eip)
{
    struct cpu *c = m->vm.cpu;
    if (eip == c->eip)
        return;
    c->eip = eip;
    c->halted = 0;
    c->shadow = 0;
    m->debug->resumed = false;
}

/* -- Stopping --------------------------------------------------------------------------------------------- */

/* The guest's clocks stood still since its time was ns and the host's counter tsc. Before its first instruction a guest cannot tell what
 * its counter was. */
static void clocks_stood(struct machine *m, uint64_t ns, uint64_t tsc)
{
    struct cpu *c = m->vm.cpu;
    c->host_event = 1;
    if (m->slow_clock || m->cfg->clock_stopped) /* it does not go by the host's anyway */
        return;
    machine_set_guest_ns(m, ns);
    machine_arm_timer(m);
    if (m->debug->ran)
        c->host_tsc_lost += __rdtsc() - tsc;
}

static void stop(struct machine *m, const struct debug_stop *why)
{
    struct debug *d = m->debug;
    uint64_t tsc = __rdtsc();
    cpu_fx_save(m->vm.cpu);
    if (m->out_len)
        machine_flush_output(m);
    d->stopped_ns = machine_guest_ns(m);
    d->stepping = d->hit = false;
    d->resumed = why->why == DEBUG_WHY_BREAK;
    d->resumed_lin = debug_pc(m);
    gdb_stopped(d->gdb, why);
    apply(m);
    if (m->stepping)
        lockstep_resync(m);
    clocks_stood(m, d->stopped_ns, tsc);
}

bool debug_called(const struct machine *m)
{
    return m->debug && gdb_calls(m->debug->gdb);
}

bool debug_holds_interrupts(const struct machine *m)
{
    return m->debug && m->debug->stepping && (m->debug->step_flags & DEBUG_STEP_NO_IRQ);
}

bool debug_attend(struct machine *m)
{
    struct debug *d = m->debug;
    if (d->hit) {
        struct debug_stop hit = d->hit_stop;
        stop(m, &hit);
        return true;
    }
    if (!gdb_calls(d->gdb) || !gdb_answer(d->gdb))
        return false;
    stop(m, &(struct debug_stop){.why = DEBUG_WHY_ASKED});
    return true;
}

bool debug_break_here(struct machine *m)
{
    struct debug *d = m->debug;
    uint32_t lin = debug_pc(m);
    bool resumed = d->resumed && d->resumed_lin == lin;
    d->resumed = false;
    if (resumed || d->stepping || !debug_breaks_in_page(d, lin))
        return false;
    for (unsigned i = 0; i < d->points; i++) {
        if (!is_break(d->point[i].kind) || d->point[i].lin != lin)
            continue;
        stop(m, &(struct debug_stop){.why = DEBUG_WHY_BREAK, .point = d->point[i]});
        return true;
    }
    return false;
}

void debug_stepped(struct machine *m)
{
    if (!m->debug->hit && !m->ended)
        stop(m, &(struct debug_stop){.why = DEBUG_WHY_STEP});
}

/* -- Start and end ---------------------------------------------------------------------------------------- */

bool debug_init(struct machine *m, char *err, size_t err_size)
{
    if (!m->cfg->gdb)
        return true;
    m->debug = calloc(1, sizeof(*m->debug));
    if (!m->debug || !(m->debug->gdb = gdb_open(m))) {
        snprintf(err, err_size, "cannot start the service for debuggers");
        return false;
    }
    if (!m->trace)
        m->trace = m->debug->trace = trace_open(&(struct trace_config){.fd = -1, .ring = TRACE_HELD});
    m->debug->step_flags = DEBUG_STEP_ENABLE | DEBUG_STEP_NO_IRQ | DEBUG_STEP_NO_TIMER;
    return true;
}

void debug_begin(struct machine *m)
{
    uint64_t ns = machine_guest_ns(m);
    if (m->cfg->gdb->wait) {
        bool came = gdb_wait(m->debug->gdb);
        clocks_stood(m, ns, 0);
        if (came)
            stop(m, &(struct debug_stop){.why = DEBUG_WHY_ASKED});
    }
    m->debug->ran = true;
}

void debug_finish(struct machine *m)
{
    if (m->end == RUN_TRIPLE_FAULT)
        stop(m, &(struct debug_stop){.why = DEBUG_WHY_SHUTDOWN});
    m->res->end = m->end;
    gdb_exited(m->debug->gdb, m->res);
}

void debug_end(struct machine *m)
{
    if (!m->debug)
        return;
    if (m->debug->gdb)
        gdb_close(m->debug->gdb);
    if (m->debug->trace)
        m->trace = NULL;
    trace_close(m->debug->trace);
    free(m->debug);
    m->debug = NULL;
}
