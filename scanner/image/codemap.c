/* scanner/image/codemap.c: which bytes of the executable sections start an instruction.
 *
 * Sections are decoded from their first byte to their last: compilers put no data between functions on i386,
 * and x86 code falls back into step within a few instructions where somebody did. Certain entries (symbols,
 * unwind records) override the sweep; hints (words that look like code addresses) must agree with it, or lie
 * where it knows nothing. Nothing here has to be right for the guest to run correctly: a wrong entry costs a
 * few useless bytes in the cache.
 */
#include "scanner/image/internal.h"

#include "scanner/scan.h"

#include <stdlib.h>

enum { DECODED = MARK_START | MARK_INSIDE };

void code_map_free(struct code_map *m)
{
    for (size_t i = 0; i < m->count; i++) {
        free(m->range[i].mark);
    }
    free(m->range);
    words_free(&m->entries);
    words_free(&m->targets);
    *m = (struct code_map){0};
}

bool code_map_add(struct code_map *m, uint32_t start, uint32_t len, const uint8_t *bytes, bool sweep)
{
    size_t at = m->count;

    while (at > 0 && m->range[at - 1].start > start) {
        at--;
    }
    if (len == 0 || (uint64_t)start + len > UINT32_MAX ||
        (at < m->count && m->range[at].start - start < len) ||
        (at > 0 && start - m->range[at - 1].start < m->range[at - 1].len)) {
        return false;
    }
    if (m->count == m->room) {
        size_t room = m->room != 0 ? m->room * 2 : 16;
        struct code_range *range = realloc(m->range, room * sizeof(*range));
        if (range == NULL) {
            m->failed = true;
            return false;
        }
        m->range = range;
        m->room = room;
    }
    uint8_t *mark = calloc(len, 1);
    if (mark == NULL) {
        m->failed = true;
        return false;
    }
    memmove(&m->range[at + 1], &m->range[at], (m->count - at) * sizeof(*m->range));
    m->range[at] = (struct code_range){start, len, bytes, mark, sweep};
    m->count++;
    return true;
}

/* The range that holds addr, or NULL. Look-ups come in runs, so the last answer is tried first. */
static struct code_range *find(struct code_map *m, uint32_t addr)
{
    size_t low = 0, high = m->count;

    if (m->last < m->count && addr - m->range[m->last].start < m->range[m->last].len) {
        return &m->range[m->last];
    }
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (m->range[mid].start <= addr) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    if (low == 0 || addr - m->range[low - 1].start >= m->range[low - 1].len) {
        return NULL;
    }
    m->last = low - 1;
    return &m->range[low - 1];
}

bool code_map_has(struct code_map *m, uint32_t addr)
{
    return find(m, addr) != NULL;
}

void code_map_entry(struct code_map *m, uint32_t addr)
{
    struct code_range *r = find(m, addr);

    if (r != NULL && (r->mark[addr - r->start] & MARK_ENTRY) == 0) {
        r->mark[addr - r->start] |= MARK_ENTRY;
        words_push(&m->entries, addr);
    }
}

void code_map_hint(struct code_map *m, uint32_t addr)
{
    struct code_range *r = find(m, addr);

    if (r != NULL && (r->mark[addr - r->start] & (MARK_HINT | MARK_ENTRY)) == 0) {
        r->mark[addr - r->start] |= MARK_HINT;
        words_push(&m->targets, addr);
    }
}

void code_map_reloc(struct code_map *m, uint32_t addr)
{
    struct code_range *r = find(m, addr);

    if (r != NULL) {
        r->mark[addr - r->start] |= MARK_RELOC;
    }
}

/* Notes where a direct branch goes. Jumps inside a page are found again by every scan of that page. */
static void follow(struct code_map *m, const struct code_range *r, uint32_t off, const struct scan_insn *insn)
{
    uint32_t from = r->start + off, to = from + (uint32_t)insn->target;
    bool call = insn->flow == SCAN_FLOW_CALL;

    if ((!call && insn->flow != SCAN_FLOW_JMP && insn->flow != SCAN_FLOW_JCC) || insn->opsize != 4 ||
        (r->mark[off + insn->imm_off] & MARK_RELOC) != 0) {
        return;
    }
    if (call || (from ^ to) >= IMAGE_PAGE) {
        size_t last = m->last;
        code_map_hint(m, to);
        m->last = last;
    }
}

/* Decodes from off until something known, undecodable or the end. Returns where it stopped. */
static uint32_t decode_run(struct code_map *m, struct code_range *r, uint32_t off)
{
    while (off < r->len && (r->mark[off] & DECODED) == 0) {
        struct scan_insn insn;
        uint32_t avail = r->len - off < SCAN_INSN_MAX_LEN ? r->len - off : SCAN_INSN_MAX_LEN;
        if (scan_decode(r->bytes + off, avail, 32, &insn) != SCAN_OK) {
            return off;
        }
        unsigned clear = 1;
        while (clear < insn.len && (r->mark[off + clear] & (MARK_ENTRY | MARK_START)) == 0) {
            clear++;
        }
        if (clear < insn.len) { /* runs into something known: these bytes are data */
            off += clear;
            continue;
        }
        r->mark[off] |= MARK_START;
        for (unsigned i = 1; i < insn.len; i++) {
            r->mark[off + i] |= MARK_INSIDE;
        }
        follow(m, r, off, &insn);
        off += insn.len;
    }
    return off;
}

static void sweep_range(struct code_map *m, struct code_range *r)
{
    uint32_t off = 0;
    bool known = r->sweep;

    while (off < r->len) {
        uint8_t mark = r->mark[off];
        if ((mark & DECODED) == 0 && (known || (mark & (MARK_ENTRY | MARK_HINT)) != 0)) {
            uint32_t end = decode_run(m, r, off);
            off = end > off ? end : off + 1;
        } else {
            off++;
        }
        known = false;
    }
}

/* Targets grow while they are worked on: decoding what one leads to finds others. */
static void work_off(struct code_map *m)
{
    for (size_t i = 0; i < m->targets.count; i++) {
        uint32_t addr = m->targets.v[i];
        struct code_range *r = find(m, addr);
        if (r == NULL) {
            continue;
        }
        if ((r->mark[addr - r->start] & DECODED) == 0) {
            decode_run(m, r, addr - r->start);
        }
        if ((r->mark[addr - r->start] & MARK_START) != 0) {
            words_push(&m->entries, addr);
        }
    }
}

/* The first boundary of each page, so that a page can be entered by falling into it. */
static void add_page_starts(struct code_map *m, const struct code_range *r)
{
    uint32_t off = 0;

    while (off < r->len) {
        uint32_t next = IMAGE_PAGE - ((r->start + off) & (IMAGE_PAGE - 1));
        uint32_t end = r->len - off < next ? r->len : off + next;
        for (; off < end; off++) {
            if ((r->mark[off] & MARK_START) != 0) {
                words_push(&m->entries, r->start + off);
                break;
            }
        }
        off = end;
    }
}

bool code_map_sweep(struct code_map *m)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->range[i].sweep) {
            code_map_entry(m, m->range[i].start);
        }
    }
    for (size_t i = 0; i < m->count; i++) {
        sweep_range(m, &m->range[i]);
    }
    work_off(m);
    for (size_t i = 0; i < m->count; i++) {
        add_page_starts(m, &m->range[i]);
    }
    return code_map_finish(m);
}

bool code_map_weak(struct code_map *m, uint32_t addr)
{
    struct code_range *r = find(m, addr);

    if (r == NULL || (r->mark[addr - r->start] & MARK_START) == 0) {
        return false;
    }
    words_push(&m->entries, addr);
    return true;
}

bool code_map_finish(struct code_map *m)
{
    words_sort_unique(&m->entries);
    return !m->failed && !m->entries.failed && !m->targets.failed;
}
