/* translator/context.h: what translate.c (page driver) and op.c (one instruction) share. Internal to the
 * folder. */
#ifndef VERSO_TRANSLATOR_CONTEXT_H
#define VERSO_TRANSLATOR_CONTEXT_H

#include "translator/emit.h"
#include "translator/unwind.h"
#include "translator/xlat.h"

/* Labels 0..4095 are guest offsets of this page; from LABEL_TAIL on, tails. */
#define LABEL_TAIL    4096u
#define LABEL_UNKNOWN UINT32_MAX

enum tail_kind {
    TAIL_LINK,     /* target in another page: mov r8d, target; jmp [LOOKUP] */
    TAIL_STRADDLE, /* a link too: an instruction of this page that runs into the next: ...; jmp [STRADDLE] */
    TAIL_RESCAN,   /* target in this page without code */
    TAIL_MISS,     /* landing check failed: jmp [MISS] */
    TAIL_MISS_RCX, /* the same with ecx still held in r9d */
};

enum {
    TRAIT_ESP = 1 << 0,   /* op_works_on_esp() */
    TRAIT_STD = 1 << 1,   /* op_is_std() */
    TRAIT_FUSED = 1 << 2, /* the next one is a conditional branch: they may be one in the host */
};

struct tail {
    int32_t target;
    uint32_t host_off;
    uint16_t kind;
    uint16_t next; /* in its hash chain, number + 1 */
};

struct fixup {
    uint32_t field;
    uint16_t label;
    uint8_t size; /* 1 or 4 */
};

/* An instruction makes at most three references: its target, its successor, a landing's tail. */
#define FIXUP_MAX (3u * SCAN_PAGE_SIZE)
/* And at most two tails of its own; the two MISS tails are shared. */
#define TAIL_MAX  (2u * SCAN_PAGE_SIZE + 2u)
#define TAIL_HASH 256u

enum branch_kind { BRANCH_JMP = 16, BRANCH_CALL = 17 }; /* 0..15: Jcc with that condition */

struct context {
    struct emit e;
    const struct scan_page *page;
    struct xlat_verso *v;
    bool step, bmi2, user;
    bool fold;         /* of this instruction: its change of ESP may be saved up */
    bool backwards;    /* DF is set, but not the host's (see "DF" in translate.c) */
    int32_t esp_delta; /* guest ESP less r14d here: changes of ESP saved up */
    uint8_t *to_volatile[2]; /* branches of this instruction to its XLAT_STUB_VOLATILE exit */
    unsigned to_volatile_count;
    bool open; /* control can run off the end of what has been emitted so far for this instruction */
    bool failed;
    bool measured; /* second pass: est[] holds the host offsets of the first */
    enum xlat_status status;

    /* unwind writer: one record is held back so that it can still be replaced */
    struct unwind_rec pending;
    bool has_pending;
    struct unwind_writer unwind;

    uint32_t est_here;
    uint32_t label[SCAN_PAGE_SIZE], est[SCAN_PAGE_SIZE];
    uint8_t trait[SCAN_PAGE_SIZE]; /* by instruction number: what both passes ask of it */
    uint8_t joint[SCAN_PAGE_SIZE / 8]; /* guest offsets reached otherwise than from the instruction emitted in front: ESP must be in place */
    uint8_t align[SCAN_PAGE_SIZE]; /* by guest offset: the head of a loop, or a function, begins at a multiple of this, if not 0 */
    struct fixup fixup[FIXUP_MAX];
    unsigned fixup_count;
    struct tail tail[TAIL_MAX];
    unsigned tail_count;
    uint16_t tail_hash[TAIL_HASH];
};

static inline int32_t insn_next(const struct scan_insn *i)
{
    return (int32_t)i->off + i->len;
}

/* translate.c */
/* State of the guest from here on (until the next call). */
void context_at(struct context *c, enum xlat_state state, int32_t guest_rel, unsigned arg);
/* Appends a 32-bit field that holds guest address `rel`. */
void context_reloc_4(struct context *c, int32_t rel);
/* mov r8d, rel; jmp [stub]. */
void context_exit(struct context *c, enum xlat_stub stub, int32_t rel);
/* jmp [stub]. */
void context_jmp_stub(struct context *c, enum xlat_stub stub);
/* A direct host branch to guest offset rel: in the page, to a link, or to a tail. */
void context_branch(struct context *c, unsigned kind, int32_t rel);
/* jmp/jcc rel32 to the shared tail of that kind. */
void context_branch_tail(struct context *c, unsigned kind, enum tail_kind tail);
/* Control passes to rel for good: a branch, or the STEP exit. */
void context_transfer(struct context *c, int32_t rel);
/* True if rel is outside what this verso is made from, so that a branch to it is a link. */
bool context_is_outside(const struct context *c, int32_t rel);
/* True if the verso has (or will have) an entry for rel. */
bool context_has_code(const struct context *c, int32_t rel);
/* True if CF PF AF ZF SF OF are all overwritten before they are read after guest offset rel. */
bool context_flags_dead(const struct context *c, int32_t rel);

/* The changes of ESP saved up are made: r14d is the guest's ESP again. No flags. */
void context_settle_esp(struct context *c);
/* The host's DF is set if the guest's is. */
void context_settle_df(struct context *c);

/* op.c */
/* Does the instruction work on while changes of ESP are saved up (it names ESP in addresses at most, or changes it by a constant)? */
bool op_works_on_esp(const struct context *c, const struct scan_insn *i);
/* STD and CLD that are carried over as they are. */
bool op_is_std(const struct context *c, const struct scan_insn *i);
bool op_is_cld(const struct context *c, const struct scan_insn *i);
/* REP MOVS. */
bool op_is_repeated_move(const struct scan_insn *i);
/* Does the instruction work with c->backwards? It neither uses nor shows DF, other than by moving elements, which op_translate() then does
 * downwards; branches are left to the caller. */
bool op_works_backwards(const struct context *c, const struct scan_insn *i);
/* Host code of one instruction. Leaves c->open false if control cannot fall out of it. */
void op_translate(struct context *c, const struct scan_insn *i);

#endif
