/* translator/translate.c: the page driver: order, labels, branches, links, tails, unwind records.
 *
 * Two passes over the same emitter. The first takes rel32 for every forward branch; the second knows from it
 * which of them reach with rel8. Code only shrinks from the first to the second, so a distance that fits in
 * the first fits in the second.
 */
#include "translator/context.h"

#include <limits.h>
#include <stdlib.h>

/* --- buffers
 * ----------------------------------------------------------------------------------------------------- */

static bool grow(void **array, uint32_t *cap, uint32_t need, size_t item)
{
    uint32_t n = *cap ? *cap : 256;
    void *p;

    if (need <= *cap)
        return true;
    while (n < need)
        n *= 2;
    p = realloc(*array, n * item);
    if (!p)
        return false;
    *array = p;
    *cap = n;
    return true;
}

static void fail(struct context *c, enum xlat_status s)
{
    if (!c->failed)
        c->status = s;
    c->failed = true;
}

#define RELOC_ROOM  16u
#define UNWIND_ROOM (UNWIND_HEAD + 64u * UNWIND_WIDE_SIZE)

static bool reserve_more(struct context *c)
{
    struct xlat_verso *v = c->v;
    uint32_t pos = emit_pos(&c->e);

    if ((size_t)(c->e.end - c->e.p) < EMIT_ROOM) {
        if (pos > XLAT_CODE_MAX) {
            fail(c, XLAT_TOO_BIG);
            return false;
        }
        if (!grow((void **)&v->code, &v->code_cap, pos + 16384, 1)) {
            fail(c, XLAT_NO_MEMORY);
            return false;
        }
        c->e.code = v->code;
        c->e.p = v->code + pos;
        c->e.end = v->code + v->code_cap;
    }
    if (!grow((void **)&v->relocs, &v->reloc_cap, v->reloc_count + RELOC_ROOM, sizeof *v->relocs) ||
        !grow((void **)&v->unwind, &v->unwind_cap, v->unwind_len + UNWIND_ROOM, 1))
        fail(c, XLAT_NO_MEMORY);
    return !c->failed;
}

/* Room for one instruction or tail in every growing array. */
static inline bool reserve(struct context *c)
{
    const struct xlat_verso *v = c->v;

    if ((size_t)(c->e.end - c->e.p) >= EMIT_ROOM && v->reloc_cap - v->reloc_count >= RELOC_ROOM && v->unwind_cap - v->unwind_len >= UNWIND_ROOM)
        return !c->failed;
    return reserve_more(c);
}

/* --- unwind records
 * ---------------------------------------------------------------------------------------------- */

static void flush_record(struct context *c)
{
    struct xlat_verso *v = c->v;

    if (c->has_pending)
        v->unwind_len += unwind_put(&c->unwind, v->unwind + UNWIND_HEAD + v->unwind_len, &c->pending);
    c->has_pending = false;
}

static void record(struct context *c, const struct unwind_rec *r)
{
    const struct unwind_rec *old = &c->pending;

    if (c->has_pending && !r->entry && old->state == r->state && old->arg == r->arg &&
        old->guest_rel == r->guest_rel)
        return;
    if (!c->has_pending || old->host_off != r->host_off || old->entry)
        flush_record(c);
    c->pending = *r;
    c->has_pending = true;
}

void context_at(struct context *c, enum xlat_state state, int32_t guest_rel, unsigned arg)
{
    if (!c->measured) /* the first pass is for distances only */
        return;
    struct unwind_rec r = {
        .host_off = emit_pos(&c->e), .guest_rel = guest_rel, .state = state, .arg = (uint8_t)arg};

    if (!unwind_has_guest(state))
        r.guest_rel = 0;
    if (state == XLAT_AT && c->esp_delta) {
        r.state = XLAT_AT_ESP;
        r.arg = (uint8_t)(c->esp_delta / 4);
    }
    if (state == XLAT_AT && c->backwards) {
        r.state = XLAT_STRING;
        r.arg = XLAT_ARG_DF;
    }
    record(c, &r);
}

void context_settle_esp(struct context *c)
{
    int32_t by = c->esp_delta;

    c->esp_delta = 0;
    if (by)
        emit_lea32(&c->e, HOST_ESP, HOST_ESP, HOST_NONE, 0, by);
}

void context_settle_df(struct context *c)
{
    if (c->backwards)
        emit_1(&c->e, 0xFD);
    c->backwards = false;
}

static void entry_at(struct context *c, uint32_t off)
{
    struct unwind_rec r = {
        .host_off = emit_pos(&c->e), .guest_rel = (int32_t)off, .state = XLAT_AT, .entry = true};

    c->label[off] = r.host_off;
    if (!c->measured)
        return;
    record(c, &r);
    c->est_here = c->est[off];
}

/* An instruction without an entry: ESP is not in place. */
static void inside_at(struct context *c, uint32_t off)
{
    context_at(c, XLAT_AT, (int32_t)off, 0);
    c->label[off] = emit_pos(&c->e);
    if (c->measured)
        c->est_here = c->est[off];
}

static void end_at(struct context *c)
{
    struct xlat_verso *v = c->v;

    v->code_len = emit_pos(&c->e);
    if (v->code_len > XLAT_CODE_MAX)
        fail(c, XLAT_TOO_BIG);
    if (c->has_pending && !c->pending.entry && c->pending.host_off == v->code_len)
        c->has_pending = false; /* of no bytes */
    flush_record(c);
    if (!grow((void **)&v->unwind, &v->unwind_cap, UNWIND_HEAD + v->unwind_len + c->unwind.entry_len, 1)) {
        fail(c, XLAT_NO_MEMORY);
        return;
    }
    v->unwind_len = unwind_finish(&c->unwind, v->unwind, v->unwind_len, v->code_len);
}

/* --- exits and branches
 * ------------------------------------------------------------------------------------------ */

void context_reloc_4(struct context *c, int32_t rel)
{
    c->v->relocs[c->v->reloc_count++].host_off = emit_pos(&c->e);
    emit_4(&c->e, (uint32_t)rel);
}

void context_jmp_stub(struct context *c, enum xlat_stub stub)
{
    struct emit_mem m = {HOST_CPU, HOST_NONE, (int32_t)(offsetof(struct cpu, stub) + 8 * stub), 0};

    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0xFF, 4, m);
}

void context_exit(struct context *c, enum xlat_stub stub, int32_t rel)
{
    emit_1(&c->e, 0x41); /* mov r8d, imm32 */
    emit_1(&c->e, 0xB8);
    context_reloc_4(c, rel);
    context_jmp_stub(c, stub);
}

bool context_is_outside(const struct context *c, int32_t rel)
{
    if (c->page->unit)
        return rel != (int32_t)c->page->insn[0].off;
    return rel < 0 || rel >= (int32_t)SCAN_PAGE_SIZE;
}

bool context_has_code(const struct context *c, int32_t rel)
{
    if (context_is_outside(c, rel))
        return false;
    return c->page->unit || c->page->index[rel] >= 0 || (c->page->attr[rel] & SCAN_ATTR_STRADDLE);
}

/* One tail for each (target, kind). */
static unsigned tail_label(struct context *c, enum tail_kind kind, int32_t target)
{
    uint32_t h = ((uint32_t)target * 2654435761u + kind) >> 24;
    struct tail *t;

    for (unsigned n = c->tail_hash[h]; n; n = c->tail[n - 1].next)
        if (c->tail[n - 1].target == target && c->tail[n - 1].kind == kind)
            return LABEL_TAIL + n - 1;
    if (c->tail_count == TAIL_MAX) {
        fail(c, XLAT_TOO_BIG);
        return LABEL_TAIL;
    }
    t = &c->tail[c->tail_count++];
    *t = (struct tail){.target = target, .kind = (uint16_t)kind, .next = c->tail_hash[h]};
    c->tail_hash[h] = (uint16_t)c->tail_count;
    return LABEL_TAIL + c->tail_count - 1;
}

static void add_fixup(struct context *c, unsigned label, unsigned size)
{
    if (c->fixup_count == FIXUP_MAX) {
        fail(c, XLAT_TOO_BIG);
        return;
    }
    c->fixup[c->fixup_count++] = (struct fixup){emit_pos(&c->e), (uint16_t)label, (uint8_t)size};
    if (size == 1)
        emit_1(&c->e, 0);
    else
        emit_4(&c->e, 0);
}

/* Whether rel8 will reach; see the head of this file. */
static bool is_short(const struct context *c, unsigned label)
{
    if (label >= LABEL_TAIL)
        return false;
    if (c->label[label] != LABEL_UNKNOWN)
        return emit_pos(&c->e) + 2 - c->label[label] <= 128;
    return c->measured && c->est[label] != LABEL_UNKNOWN && c->est[label] >= c->est_here &&
           c->est[label] - c->est_here <= 127;
}

static void branch_label(struct context *c, unsigned kind, unsigned label)
{
    if (kind != BRANCH_CALL && is_short(c, label)) {
        emit_1(&c->e, kind == BRANCH_JMP ? 0xEB : 0x70 | kind);
        add_fixup(c, label, 1);
        return;
    }
    if (kind == BRANCH_CALL) {
        emit_1(&c->e, 0xE8);
    } else if (kind == BRANCH_JMP) {
        emit_1(&c->e, 0xE9);
    } else {
        emit_1(&c->e, 0x0F);
        emit_1(&c->e, 0x80 | kind);
    }
    add_fixup(c, label, 4);
}

void context_branch(struct context *c, unsigned kind, int32_t rel)
{
    if (context_has_code(c, rel))
        branch_label(c, kind, (unsigned)rel);
    else
        branch_label(c, kind, tail_label(c, context_is_outside(c, rel) ? TAIL_LINK : TAIL_RESCAN, rel));
}

void context_branch_tail(struct context *c, unsigned kind, enum tail_kind tail)
{
    branch_label(c, kind, tail_label(c, tail, 0));
}

void context_transfer(struct context *c, int32_t rel)
{
    if (c->step)
        context_exit(c, XLAT_STUB_STEP, rel);
    else
        context_branch(c, BRANCH_JMP, rel);
    c->open = false;
}

/* --- flag liveness
 * ----------------------------------------------------------------------------------------------- */

/* CF PF AF ZF SF of bits 0..7 and OF folded into bit 1, which is free. */
static uint8_t fold(uint32_t f)
{
    return (uint8_t)((f & (CPU_ARITH & 0xFF)) | (f & CPU_OF ? 2 : 0));
}

/* Instructions that can raise no exception: those on registers alone, and direct branches. Others show the flags to the
 * handler, even those they would overwrite. */
static bool cannot_fault(const struct scan_insn *i)
{
    unsigned op = i->opcode;

    if (i->cls == SCAN_CLASS_BRANCH)
        return i->flow == SCAN_FLOW_JCC || i->flow == SCAN_FLOW_JMP;
    if (i->cls != SCAN_CLASS_PLAIN)
        return false;
    if (i->map == SCAN_MAP_0F && (op == 0x0D || (op >= 0x18 && op <= 0x1F))) /* hints */
        return true;
    if (scan_has_mem(i))
        return i->map == SCAN_MAP_1B && op == 0x8D; /* LEA */
    if (i->map != SCAN_MAP_1B)
        return true;
    return !(op >= 0x50 && op <= 0x5F) && op != 0x68 && op != 0x6A && op != 0x8F && !(op >= 0xA0 && op <= 0xA3) && /* stack, moffs */
           op != 0xC8 && op != 0xC9 && op != 0xD7 && !((op & 0xFE) == 0xF6 && scan_modrm_reg(i) >= 6) && op != 0xFF;
}

/* The instruction at rel, if it is behind instruction n: what has been passed already is not gone through again. -1: there is none. */
static int insn_behind(const struct context *c, int32_t rel, int n)
{
    int at = rel >= 0 && rel < (int32_t)SCAN_PAGE_SIZE ? c->page->index[rel] : -1;

    return at > n ? at : -1;
}

/* Are all these flags (folded) overwritten before they are read, from instruction n on (-1: not known)? It is asked of few places, and told
 * within a few instructions of most. */
#define DEAD_STEPS 64u
static bool all_dead(const struct context *c, int n, uint8_t flags, unsigned steps)
{
    while (n >= 0 && steps-- > 0) {
        const struct scan_insn *i = &c->page->insn[n];

        if (!cannot_fault(i) || fold(i->flags_read) & flags)
            return false;
        flags &= (uint8_t)~fold(i->flags_written);
        if (!flags)
            return true;
        if (i->flow == SCAN_FLOW_JCC && !all_dead(c, insn_behind(c, i->target, n), flags, steps /= 2))
            return false;
        n = insn_behind(c, i->flow == SCAN_FLOW_JMP ? i->target : insn_next(i), n);
    }
    return false;
}

bool context_flags_dead(const struct context *c, int32_t rel)
{
    return !c->page->unit && all_dead(c, insn_behind(c, rel, -1), fold(CPU_ARITH), DEAD_STEPS);
}

/* --- ESP
 * ------------------------------------------------------------------------------------------------------ *
 * PUSH and POP are a MOV and an LEA of r14d; in a row of them the LEAs wait for each other, a cycle each, where the processor's own stack
 * engine makes the native ones free. So in straight code the changes are saved up (esp_delta) and made by one LEA. Measured on a recursive
 * function that saves three registers: 1.37 -> 1.20 of the native time. While something is saved up, instructions have no entry: in the
 * rare case that control comes there all the same (back from a page fault, an interrupt), the monitor emulates up to the next entry. */
#define ESP_SAVED_MAX 252 /* bytes, before an instruction that changes it by 256 at most; AT_ESP holds -512 to 508 */

static bool is_joint(const struct context *c, uint32_t off)
{
    return c->joint[off >> 3] >> (off & 7) & 1;
}

static void add_joint(struct context *c, int32_t off)
{
    if (off >= 0 && off < (int32_t)SCAN_PAGE_SIZE)
        c->joint[off >> 3] |= (uint8_t)(1u << (off & 7));
}

static void add_joints(struct context *c, unsigned n)
{
    const struct scan_page *page = c->page;
    const struct scan_insn *i = &page->insn[n];

    if (page->attr[i->off] & (SCAN_ATTR_TARGET | SCAN_ATTR_ENTRY))
        add_joint(c, i->off);
    if (i->flow == SCAN_FLOW_JCC || i->flow == SCAN_FLOW_JMP || i->flow == SCAN_FLOW_CALL)
        add_joint(c, i->target);
    if (n + 1 == page->count || page->insn[n + 1].off != insn_next(i)) /* overlapping instructions */
        add_joint(c, insn_next(i));
}

/* Before an instruction: must ESP be in place? LEA between a comparison and its branch would keep them from being fused. */
static bool needs_esp(const struct context *c, unsigned n)
{
    return (c->trait[n] & (TRAIT_ESP | TRAIT_FUSED)) != TRAIT_ESP || c->esp_delta > ESP_SAVED_MAX || c->esp_delta < -ESP_SAVED_MAX ||
           is_joint(c, c->page->insn[n].off);
}

/* --- DF
 * ------------------------------------------------------------------------------------------------------ *
 * STD, a few REP MOVS, CLD: memmove() where the operands overlap. To change DF and back takes the processor 31 ns (Zen 4), a CLD that changes nothing
 * one; a REP that goes down takes another 22 to begin, and each element what it takes by instructions of its own. So what stands between STD
 * and CLD is emitted twice. First, for the way that comes from the STD, with the host's DF clear: MOVS becomes a loop, CLD nothing. This copy has
 * no entries; what leaves it otherwise than by the CLD sets DF on its way. Behind it the usual code, for what comes from elsewhere: back from a
 * page fault, mostly. bunzip2, which moves a few bytes for each symbol, runs in 0.7 of the time. */
#define DOWN_INSNS 24u /* of the copy: a libc's memmove() has 11 */
#define DOWN_BRANCHES 8u

struct down_branch {
    uint32_t field; /* host offset of its rel32 */
    int32_t target;
};

/* The number of the instruction that ends the copy to be made behind the STD that instruction n is; 0 if it is none, or nothing is moved. */
static unsigned downwards_end(const struct context *c, unsigned n)
{
    const struct scan_page *page = c->page;
    unsigned end = n + 1, branches = 0;
    bool moves = false;

    if (!(c->trait[n] & TRAIT_STD))
        return 0;
    for (; end < page->count && end - n <= DOWN_INSNS; end++) {
        const struct scan_insn *i = &page->insn[end];

        branches += i->flow == SCAN_FLOW_JCC;
        if (i->off != insn_next(i - 1) || !op_works_backwards(c, i) || branches > DOWN_BRANCHES)
            break;
        moves |= op_is_repeated_move(i);
    }
    return moves ? end : 0;
}

/* Branches to rel end here. Returns whether there were any. */
static bool land_branches(struct context *c, struct down_branch *b, unsigned count, int32_t rel)
{
    bool any = false;

    for (unsigned n = 0; n < count; n++) {
        if (!b[n].field || b[n].target != rel)
            continue;
        uint32_t distance = emit_pos(&c->e) - (b[n].field + 4);
        memcpy(c->e.code + b[n].field, &distance, 4);
        b[n].field = 0;
        any = true;
    }
    return any;
}

/* To the usual code for rel. */
static void leave_downwards(struct context *c, int32_t rel)
{
    context_at(c, XLAT_AT, rel, 0);
    context_settle_df(c);
    context_at(c, XLAT_AT, rel, 0);
    context_transfer(c, rel);
}

/* Host code of the STD that instruction n is, and of those behind it up to end. */
static void emit_downwards(struct context *c, unsigned n, unsigned end)
{
    const struct scan_insn *i = &c->page->insn[n];
    struct down_branch branch[DOWN_BRANCHES];
    unsigned count = 0;

    context_settle_esp(c);
    context_at(c, XLAT_AT, i->off, 0);
    emit_1(&c->e, 0xFC); /* the guest may have set DF before */
    c->backwards = true;
    c->fold = false;
    for (i++; i < &c->page->insn[end]; i++) {
        if (!reserve(c))
            return;
        land_branches(c, branch, count, i->off);
        context_at(c, XLAT_AT, i->off, 0);
        if (i->flow != SCAN_FLOW_JCC) {
            op_translate(c, i);
            continue;
        }
        emit_1(&c->e, 0x0F);
        emit_1(&c->e, 0x80 | (i->opcode & 15));
        branch[count++] = (struct down_branch){emit_pos(&c->e), i->target};
        emit_4(&c->e, 0);
    }
    if (!reserve(c))
        return;
    int32_t rel = insn_next(i - 1);
    land_branches(c, branch, count, rel);
    bool is_cld = end < c->page->count && i->off == rel && op_is_cld(c, i);
    if (is_cld)
        c->backwards = false;
    leave_downwards(c, is_cld ? insn_next(i) : rel);
    for (unsigned k = 0; k < count; k++) {
        if (!reserve(c))
            return;
        c->backwards = true;
        rel = branch[k].target;
        if (land_branches(c, branch, count, rel))
            leave_downwards(c, rel);
    }
    c->backwards = false;
}

/* --- alignment
 * ------------------------------------------------------------------------------------------------------ */

/* A loop of a few instructions takes twice the time where its body lies across two lines of the host's instruction cache: compilers align
 * loops for that reason, and functions, and what they did is lost in the translation. Measured: a summing loop of four instructions
 * 40 -> 21 us; a recursive function 3.0 -> 2.6 us. */
#define LOOP_SHORT 64 /* guest bytes */
#define ALIGN_SHORT 32u
#define ALIGN_LONG 16u
#define ALIGN_START 8u
#define HOST_LINE 64u

/* Does nothing fall into an instruction at a multiple of 8 but what fills up to there? Functions and cases of a switch begin so. */
static bool is_start(const struct context *c, unsigned n)
{
    const struct scan_insn *i = &c->page->insn[n];

    while (n > 0) {
        const struct scan_insn *before = &c->page->insn[--n];

        if (insn_next(before) != (int32_t)before[1].off || before->off + before->len + ALIGN_LONG <= i->off)
            return false;
        if (before->flow == SCAN_FLOW_JMP || before->flow == SCAN_FLOW_IJMP || before->flow == SCAN_FLOW_RET || before->flow == SCAN_FLOW_STOP)
            return true;
        if (before->flow != SCAN_FLOW_NEXT || is_joint(c, before->off))
            return false;
    }
    return false;
}

static void align_target(struct context *c, const struct scan_insn *i)
{
    if ((i->flow != SCAN_FLOW_JCC && i->flow != SCAN_FLOW_JMP) || i->target < 0 || i->target > (int32_t)i->off || !context_has_code(c, i->target))
        return;
    uint8_t most = (int32_t)i->off - i->target <= LOOP_SHORT ? ALIGN_SHORT : ALIGN_LONG, *a = &c->align[i->target];
    *a = *a < most ? most : *a;
}

static void align_starts(struct context *c)
{
    for (unsigned off = 0; off < SCAN_PAGE_SIZE; off += ALIGN_START) {
        int n = c->page->index[off];

        if (n >= 0 && !c->align[off] && is_start(c, (unsigned)n))
            c->align[off] = ALIGN_START;
    }
}

static unsigned align_most(const struct context *c, unsigned off)
{
    return c->align[off] == ALIGN_SHORT || c->align[off] == ALIGN_START ? HOST_LINE - 1 : c->align[off] ? c->align[off] - 1u : 0;
}

#define LANDING_USUAL 13u /* the check behind a call: cmp r8d, imm32; jne rel32 */

/* Host bytes from a head to the end of the first instruction that is sure or likely to leave the straight line, by the first pass; UINT_MAX if
 * not known. */
static unsigned run_from_head(const struct context *c, unsigned n)
{
    const struct scan_insn *head = &c->page->insn[n];

    for (; n + 1 < c->page->count; n++) {
        const struct scan_insn *i = &c->page->insn[n];
        unsigned next = c->page->insn[n + 1].off;

        if (insn_next(i) != (int32_t)next || c->est[next] == LABEL_UNKNOWN)
            return UINT_MAX;
        if ((i->flow != SCAN_FLOW_NEXT && i->flow != SCAN_FLOW_JCC) || (i->flow == SCAN_FLOW_JCC && i->target <= (int32_t)i->off))
            return c->est[next] - align_most(c, next) - c->est[head->off] -
                   (i->flow == SCAN_FLOW_CALL || i->flow == SCAN_FLOW_ICALL ? LANDING_USUAL : 0);
    }
    return UINT_MAX;
}

/* Versos are placed at multiples of 256. The first pass takes the most room that can be needed, so that code still only shrinks. What fits in
 * one line of the host's begins where it does: an indirect jump that the processor has to fetch a second line for on the way from the head, or on
 * the way back to it, is predicted worse (an interpreter's loop: 3.0 -> 1.5 ns a round on Zen 4; all the cases of its switch: 1.8 -> 1.3). */
static void align_here(struct context *c, unsigned n)
{
    unsigned off = c->page->insn[n].off, align = c->align[off], pad = align_most(c, off);

    if (!align)
        return;
    if (!c->measured) {
        c->e.p += pad;
        return;
    }
    context_at(c, XLAT_AT, (int32_t)off, 0);
    unsigned run = run_from_head(c, n), pos = emit_pos(&c->e);

    pad = (0u - pos) & (align - 1);
    if (align != ALIGN_LONG && run <= HOST_LINE && (pos + pad) % HOST_LINE + run > HOST_LINE)
        pad = (0u - pos) & (HOST_LINE - 1);
    emit_nop(&c->e, pad);
}

/* --- passes
 * ------------------------------------------------------------------------------------------------------ */

/* Next offset >= from at which a straddling instruction starts, or SCAN_PAGE_SIZE. It starts in the page's
 * last 14 bytes. */
static unsigned next_straddle(const struct scan_page *page, unsigned from)
{
    unsigned off = from < SCAN_PAGE_SIZE - SCAN_INSN_MAX_LEN ? SCAN_PAGE_SIZE - SCAN_INSN_MAX_LEN : from;

    while (off < SCAN_PAGE_SIZE &&
           (page->unit || !(page->attr[off] & SCAN_ATTR_STRADDLE) || page->index[off] >= 0))
        off++;
    return off;
}

static void emit_items(struct context *c)
{
    const struct scan_page *page = c->page;
    unsigned first_straddle = next_straddle(page, 0);

    for (unsigned n = 0; n < page->count; n++) {
        const struct scan_insn *i = &page->insn[n];
        unsigned following = n + 1 < page->count ? page->insn[n + 1].off : first_straddle;

        if (!reserve(c))
            return;
        if (c->esp_delta && needs_esp(c, n)) {
            context_at(c, XLAT_AT, i->off, 0);
            context_settle_esp(c);
        }
        align_here(c, n);
        if (c->esp_delta)
            inside_at(c, i->off);
        else
            entry_at(c, i->off);
        c->open = true;
        c->fold = c->trait[n] & TRAIT_ESP;
        unsigned end = downwards_end(c, n);
        if (end)
            emit_downwards(c, n, end);
        else
            op_translate(c, i);
        if (!c->open) {
            c->esp_delta = 0;
            continue;
        }
        context_at(c, XLAT_AT, insn_next(i), 0);
        bool next = n + 1 < page->count && page->insn[n + 1].off == insn_next(i);
        if (!next) { /* another page, an overlapping instruction, or one that runs into the next page */
            context_settle_esp(c);
            context_at(c, XLAT_AT, insn_next(i), 0);
        }
        if (c->step || insn_next(i) != (int32_t)following || following == SCAN_PAGE_SIZE)
            context_transfer(c, insn_next(i));
    }
    for (unsigned off = first_straddle; off < SCAN_PAGE_SIZE; off = next_straddle(page, off + 1)) {
        if (!reserve(c))
            return;
        entry_at(c, off);
        if (c->step)
            context_exit(c, XLAT_STUB_STRADDLE, (int32_t)off);
        else
            branch_label(c, BRANCH_JMP, tail_label(c, TAIL_STRADDLE, (int32_t)off));
    }
}

static void emit_tail(struct context *c, struct tail *t)
{
    static const enum xlat_stub leaves_by[] = {
        [TAIL_LINK] = XLAT_STUB_LOOKUP, [TAIL_STRADDLE] = XLAT_STUB_STRADDLE, [TAIL_RESCAN] = XLAT_STUB_RESCAN};

    t->host_off = emit_pos(&c->e);
    switch ((enum tail_kind)t->kind) {
    case TAIL_LINK:
    case TAIL_STRADDLE:
    case TAIL_RESCAN:
        context_at(c, XLAT_AT, t->target, 0);
        context_exit(c, leaves_by[t->kind], t->target);
        break;
    case TAIL_MISS_RCX:
        context_at(c, XLAT_AT_R8_RCX9, 0, 0);
        emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
        /* fall through */
    case TAIL_MISS:
        context_at(c, XLAT_AT_R8, 0, 0);
        context_jmp_stub(c, XLAT_STUB_LOOKUP); /* a return elsewhere than to its call: an indirect branch like any other */
        break;
    }
}

static void emit_tails(struct context *c)
{
    for (unsigned n = 0; n < c->tail_count; n++) {
        if (!reserve(c))
            return;
        emit_tail(c, &c->tail[n]);
    }
}

static uint8_t traits_of(const struct context *c, unsigned n)
{
    const struct scan_insn *i = &c->page->insn[n];
    bool fused = n + 1 < c->page->count && i[1].flow == SCAN_FLOW_JCC;

    return (uint8_t)((op_works_on_esp(c, i) ? TRAIT_ESP : 0) | (op_is_std(c, i) ? TRAIT_STD : 0) | (fused ? TRAIT_FUSED : 0));
}

/* What the passes go by. The instructions of a page are more than the first-level cache holds: they are gone through once. */
static void survey(struct context *c)
{
    bool plain = !c->step && !c->page->unit;

    memset(c->joint, 0, sizeof c->joint);
    memset(c->align, 0, sizeof c->align);
    for (unsigned n = 0; n < c->page->count; n++) {
        add_joints(c, n);
        c->trait[n] = plain ? traits_of(c, n) : 0;
        if (plain)
            align_target(c, &c->page->insn[n]);
    }
    if (plain)
        align_starts(c);
}

static bool run_pass(struct context *c)
{
    struct xlat_verso *v = c->v;

    v->reloc_count = v->link_count = v->unwind_len = v->emulated_count = 0;
    v->insn_count = c->page->count;
    c->e = (struct emit){v->code, v->code, v->code + v->code_cap};
    c->has_pending = false;
    unwind_begin(&c->unwind);
    c->fixup_count = c->tail_count = 0;
    c->esp_delta = 0;
    c->backwards = false;
    memset(c->label, 0xFF, sizeof c->label);
    memset(c->tail_hash, 0, sizeof c->tail_hash);
    if (!reserve(c))
        return false;
    emit_items(c);
    if (!c->failed)
        emit_tails(c);
    if (c->failed || !reserve(c))
        return false;
    end_at(c);
    return !c->failed;
}

static void add_link(struct context *c, const struct fixup *f, const struct tail *t)
{
    struct xlat_verso *v = c->v;

    if (!grow((void **)&v->links, &v->link_cap, v->link_count + 1, sizeof *v->links)) {
        fail(c, XLAT_NO_MEMORY);
        return;
    }
    v->links[v->link_count++] = (struct xlat_link){f->field, t->host_off, t->target};
}

static void resolve_fixups(struct context *c)
{
    for (unsigned n = 0; n < c->fixup_count && !c->failed; n++) {
        const struct fixup *f = &c->fixup[n];
        const struct tail *t = f->label >= LABEL_TAIL ? &c->tail[f->label - LABEL_TAIL] : NULL;
        uint32_t to = t ? t->host_off : c->label[f->label];
        int32_t rel = (int32_t)(to - (f->field + f->size));

        if (f->size == 1)
            c->v->code[f->field] = (uint8_t)rel;
        else
            memcpy(c->v->code + f->field, &rel, 4);
        if (to == LABEL_UNKNOWN || (f->size == 1 && (rel < -128 || rel > 127)))
            fail(c, XLAT_TOO_BIG); /* cannot happen: every label that has code is placed */
        if (t && (t->kind == TAIL_LINK || t->kind == TAIL_STRADDLE))
            add_link(c, f, t);
    }
}

void xlat_verso_init(struct xlat_verso *v)
{
    *v = (struct xlat_verso){0};
}

void xlat_verso_free(struct xlat_verso *v)
{
    if (v->block) {
        free(v->block);
        xlat_verso_init(v);
        return;
    }
    free(v->code);
    free(v->relocs);
    free(v->links);
    free(v->unwind);
    xlat_verso_init(v);
}

enum xlat_status xlat_translate(const struct scan_page *page, uint32_t mode, uint32_t options,
                                struct xlat_verso *out)
{
    struct context c;

    if (out->block)
        xlat_verso_free(out);
    c.page = page;
    c.v = out;
    c.step = options & XLAT_OPT_STEP;
    c.bmi2 = options & XLAT_OPT_BMI2;
    c.user = mode & XLAT_MODE_USER;
    c.failed = c.measured = c.fold = false;
    c.esp_delta = 0;
    c.status = XLAT_OK;
    out->mode = mode;
    out->options = options;
    survey(&c);
    if (run_pass(&c)) {
        memcpy(c.est, c.label, sizeof c.est);
        c.measured = true;
        if (run_pass(&c))
            resolve_fixups(&c);
    }
    if (c.failed)
        out->code_len = out->reloc_count = out->link_count = out->unwind_len = out->insn_count =
            out->emulated_count = 0;
    return c.status;
}

uint64_t xlat_fingerprint(uint32_t options)
{
    const uint64_t part[] = {XLAT_VERSION,
                             SCAN_VERSION,
                             options,
                             offsetof(struct cpu, gpr),
                             offsetof(struct cpu, ibtc),
                             offsetof(struct cpu, seg_base),
                             offsetof(struct cpu, seg_sel)};
    uint64_t h = 14695981039346656037u; /* FNV-1a, over words */

    for (size_t n = 0; n < sizeof part / sizeof part[0]; n++)
        h = (h ^ part[n]) * 1099511628211u;
    return h ^ h >> 29;
}

uint32_t xlat_host_options(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("bmi2") ? XLAT_OPT_BMI2 : 0;
}
