/* scanner/scan.c: a page's attribute map and instruction list.
 *
 * Descent starts at the entries and follows direct branches. Every place where a walk ends in a transfer of
 * control is a known boundary; when descent is complete, the sweep walks on from those boundaries, lowest
 * first, forward only and never over anything known, so that it cannot invent an alignment. Branch targets
 * found by the sweep are swept as well, not descended into: a gap that turns out to be data then adds no
 * overlapping instructions to code that is certain.
 *
 * The result does not depend on the order of the entries: descent computes a closure, and the sweep has one
 * order.
 *
 * Each offset is decoded at most once by descent and at most once more by the sweep, and is queued at most
 * once for each: linear in the page, no recursion. Instructions are decoded into insn[] at the index of their
 * offset and moved down at the end (an offset is never below the number of instructions before it), which
 * makes them sorted without a sort.
 */
#include "scanner/scan.h"

#include <emmintrin.h>
#include <string.h>

/* Sixteen zero bytes decode as eight `add [eax], al`: padding or data, never code worth translating. */
enum { ZERO_RUN = 16, WORDS = SCAN_PAGE_SIZE / 64 };

struct scan {
    struct scan_page *page;
    /* Descent: a stack of offsets; queued has each that ever was on it. */
    unsigned descent_count;
    uint16_t descent[SCAN_PAGE_SIZE];
    uint8_t queued[SCAN_PAGE_SIZE];
    /* Sweep: a bit for each pending boundary; none is in a word below sweep_low. */
    unsigned sweep_low;
    uint64_t pending[WORDS], swept[WORDS];
    uint64_t listed[WORDS]; /* a bit for each instruction that belongs in insn[] */
};

static void enqueue_descent(struct scan *s, unsigned off)
{
    if (s->queued[off])
        return;
    s->queued[off] = 1;
    s->descent[s->descent_count++] = (uint16_t)off;
}

static void enqueue_sweep(struct scan *s, unsigned off)
{
    uint64_t bit = UINT64_C(1) << (off % 64);

    if (off >= SCAN_PAGE_SIZE || s->swept[off / 64] & bit)
        return;
    s->swept[off / 64] |= bit;
    s->pending[off / 64] |= bit;
    if (off / 64 < s->sweep_low)
        s->sweep_low = off / 64;
}

static void note(struct scan *s, unsigned off)
{
    s->listed[off / 64] |= UINT64_C(1) << (off % 64);
}

/* The lowest pending boundary; false if there is none. */
static bool next_sweep(struct scan *s, unsigned *off)
{
    for (; s->sweep_low < WORDS; s->sweep_low++) {
        uint64_t word = s->pending[s->sweep_low];
        if (!word)
            continue;
        s->pending[s->sweep_low] = word & (word - 1);
        *off = s->sweep_low * 64 + (unsigned)__builtin_ctzll(word);
        return true;
    }
    return false;
}

static bool is_start(const struct scan_page *page, unsigned off)
{
    return page->attr[off] & SCAN_ATTR_START;
}

static bool zero_run(const struct scan_page *page, unsigned off)
{
    static const uint8_t zeros[ZERO_RUN];
    return !page->bytes[off] && off + ZERO_RUN <= SCAN_PAGE_SIZE &&
           !memcmp(page->bytes + off, zeros, ZERO_RUN);
}

static bool covers_start(const struct scan_page *page, unsigned off, unsigned len)
{
    for (unsigned i = off + 1; i < off + len && i < SCAN_PAGE_SIZE; i++)
        if (is_start(page, i))
            return true;
    return false;
}

/* Eight bytes at a time: a loop over the length costs a misprediction for each instruction. */
static void mark(struct scan_page *page, unsigned off, unsigned len, unsigned attr)
{
    unsigned i = off + 1, end = off + len;

    page->attr[off] |= (uint8_t)(SCAN_ATTR_START | attr);
    if (len <= 9 && off + 9 <= SCAN_PAGE_SIZE) {
        uint64_t word, inside = UINT64_C(0x0101010101010101) * SCAN_ATTR_INSIDE;
        memcpy(&word, page->attr + i, sizeof word);
        word |= len == 9 ? inside : inside & ((UINT64_C(1) << 8 * (len - 1)) - 1);
        memcpy(page->attr + i, &word, sizeof word);
        return;
    }
    for (; i < end && i < SCAN_PAGE_SIZE; i++)
        page->attr[i] |= SCAN_ATTR_INSIDE;
}

/* -- Descent
 * ------------------------------------------------------------------------------------------------------- */

/* Where a direct branch goes, if that is in this page. A near branch with 16-bit operand size in 32-bit code
 * cuts EIP to 16 bits (SDM vol. 2, JMP): its target depends on where the page is. */
static bool branch_target(struct scan_page *page, unsigned off, const struct scan_insn *insn,
                          unsigned *target)
{
    int64_t to = (int64_t)off + insn->target;

    if ((insn->flow != SCAN_FLOW_JCC && insn->flow != SCAN_FLOW_JMP && insn->flow != SCAN_FLOW_CALL) ||
        (page->bits != 16 && insn->opsize == 2) || to < 0 || to >= (int64_t)SCAN_PAGE_SIZE)
        return false;
    *target = (unsigned)to;
    page->attr[to] |= SCAN_ATTR_TARGET;
    return true;
}

static bool falls_through(const struct scan_insn *insn)
{
    return insn->flow == SCAN_FLOW_NEXT || insn->flow == SCAN_FLOW_JCC || insn->flow == SCAN_FLOW_CALL ||
           insn->flow == SCAN_FLOW_ICALL;
}

/* Walks from off until known ground, a transfer of control or the end of the page. */
static void descend(struct scan *s, unsigned off)
{
    struct scan_page *page = s->page;
    unsigned target;

    while (off < SCAN_PAGE_SIZE && !is_start(page, off)) {
        struct scan_insn *insn = &page->insn[off];
        if (scan_decode(page->bytes + off, SCAN_PAGE_SIZE - off, page->bits, insn) == SCAN_TRUNCATED) {
            mark(page, off, SCAN_INSN_MAX_LEN, SCAN_ATTR_STRADDLE);
            return;
        }
        mark(page, off, insn->len, scan_class_sensitive(insn->cls) ? SCAN_ATTR_SENSITIVE : 0);
        note(s, off);
        if (branch_target(page, off, insn, &target))
            enqueue_descent(s, target);
        off += insn->len;
        if (falls_through(insn))
            continue;
        /* INT n comes back here; behind the others the next function begins. Undefined bytes promise nothing.
         */
        if (insn->cls != SCAN_CLASS_INVALID)
            enqueue_sweep(s, off);
        return;
    }
}

/* -- Sweep
 * ---------------------------------------------------------------------------------------------------------
 */

/* The same, but stopping in front of what nothing vouches for: undefined opcodes, runs of zeros, bytes of
 * known instructions. Goes on behind a transfer of control. */
static void sweep(struct scan *s, unsigned off)
{
    struct scan_page *page = s->page;
    unsigned target;

    while (off < SCAN_PAGE_SIZE && !(page->attr[off] & (SCAN_ATTR_START | SCAN_ATTR_INSIDE)) &&
           !zero_run(page, off)) {
        struct scan_insn *insn = &page->insn[off];
        enum scan_decode_status status =
            scan_decode(page->bytes + off, SCAN_PAGE_SIZE - off, page->bits, insn);
        unsigned len = status == SCAN_TRUNCATED ? SCAN_INSN_MAX_LEN : insn->len;
        if ((status != SCAN_OK && status != SCAN_TRUNCATED) || covers_start(page, off, len))
            return;
        if (status == SCAN_TRUNCATED) {
            mark(page, off, len, SCAN_ATTR_STRADDLE | SCAN_ATTR_SWEPT);
            return;
        }
        mark(page, off, len, SCAN_ATTR_SWEPT | (scan_class_sensitive(insn->cls) ? SCAN_ATTR_SENSITIVE : 0));
        note(s, off);
        if (branch_target(page, off, insn, &target))
            enqueue_sweep(s, target);
        off += len;
    }
}

/* -- Pages and units
 * ----------------------------------------------------------------------------------------------- */

static void reset(struct scan_page *page, unsigned bits)
{
    page->bits = bits;
    page->unit = false;
    page->count = 0;
    memset(page->attr, SCAN_ATTR_DATA, sizeof page->attr);
    memset(page->index, 0xff, sizeof page->index);
    memset(page->class_count, 0, sizeof page->class_count);
}

static void add(struct scan_page *page, unsigned off)
{
    struct scan_insn *insn = &page->insn[page->count];

    insn->off = (uint16_t)off;
    if (insn->flow == SCAN_FLOW_JCC || insn->flow == SCAN_FLOW_JMP || insn->flow == SCAN_FLOW_CALL)
        insn->target = (int32_t)((uint32_t)insn->target + off);
    page->class_count[insn->cls]++;
    page->index[off] = (int16_t)page->count++;
}

static void list(struct scan *s)
{
    struct scan_page *page = s->page;

    for (unsigned i = 0; i < WORDS; i++) {
        for (uint64_t word = s->listed[i]; word; word &= word - 1) {
            unsigned off = i * 64 + (unsigned)__builtin_ctzll(word);
            if (page->count != off)
                page->insn[page->count] = page->insn[off];
            add(page, off);
        }
    }
}

void scan_page(const uint8_t recto[SCAN_PAGE_SIZE], unsigned bits, const uint16_t *entries, size_t n_entries,
               struct scan_page *out)
{
    struct scan s;
    unsigned off;

    s.page = out;
    s.descent_count = 0;
    s.sweep_low = WORDS;
    memset(s.queued, 0, sizeof s.queued);
    memset(s.pending, 0, sizeof s.pending);
    memset(s.swept, 0, sizeof s.swept);
    memset(s.listed, 0, sizeof s.listed);
    reset(out, bits);
    memcpy(out->bytes, recto, SCAN_PAGE_SIZE);
    memset(out->bytes + SCAN_PAGE_SIZE, 0, sizeof out->bytes - SCAN_PAGE_SIZE);
    for (size_t i = 0; i < n_entries; i++) {
        if (entries[i] >= SCAN_PAGE_SIZE)
            continue;
        out->attr[entries[i]] |= SCAN_ATTR_ENTRY;
        enqueue_descent(&s, entries[i]);
    }
    while (s.descent_count)
        descend(&s, s.descent[--s.descent_count]);
    while (next_sweep(&s, &off))
        sweep(&s, off);
    list(&s);
}

/* The attribute is START without STRADDLE: in the unit the instruction is complete. */
enum scan_decode_status scan_unit(const uint8_t *bytes, size_t avail, unsigned off, unsigned bits,
                                  struct scan_page *out)
{
    struct scan_insn insn;
    enum scan_decode_status status =
        scan_decode(bytes, avail < SCAN_INSN_MAX_LEN ? avail : SCAN_INSN_MAX_LEN, bits, &insn);

    reset(out, bits);
    memset(out->bytes, 0, sizeof out->bytes);
    if (status != SCAN_OK || off >= SCAN_PAGE_SIZE)
        return status == SCAN_OK ? SCAN_INVALID : status;
    memcpy(out->bytes + off, bytes, insn.len);
    mark(out, off, insn.len, SCAN_ATTR_ENTRY | (scan_class_sensitive(insn.cls) ? SCAN_ATTR_SENSITIVE : 0));
    out->insn[0] = insn;
    add(out, off);
    out->unit = true;
    return SCAN_OK;
}

enum { INSIDE_PLANE = 0, START_PLANE = 1 };
_Static_assert(SCAN_ATTR_INSIDE == 1 << INSIDE_PLANE && SCAN_ATTR_START == 1 << START_PLANE, "as in scan.h");

void scan_attr_split(const uint8_t attr[SCAN_PAGE_SIZE], uint8_t planes[SCAN_PAGE_SIZE])
{
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(attr + i));

        for (unsigned b = 8; b--; a = _mm_add_epi8(a, a)) { /* the topmost bit of each byte, then the next */
            unsigned bits = (unsigned)_mm_movemask_epi8(a);
            planes[SCAN_PLANE_SIZE * b + i / 8] = (uint8_t)bits;
            planes[SCAN_PLANE_SIZE * b + i / 8 + 1] = (uint8_t)(bits >> 8);
        }
    }
    for (unsigned i = 0; i < SCAN_PLANE_SIZE; i++)
        planes[SCAN_PLANE_SIZE * INSIDE_PLANE + i] ^= planes[SCAN_PLANE_SIZE * START_PLANE + i];
}

void scan_attr_join(const uint8_t planes[SCAN_PAGE_SIZE], uint8_t attr[SCAN_PAGE_SIZE])
{
    for (unsigned n = 0; n < SCAN_PAGE_SIZE; n++) {
        attr[n] = 0;
        for (unsigned b = 0; b < 8; b++)
            attr[n] |= (uint8_t)((planes[SCAN_PLANE_SIZE * b + n / 8] >> n % 8 & 1) << b);
        attr[n] ^= attr[n] & SCAN_ATTR_START ? SCAN_ATTR_INSIDE : 0;
    }
}
