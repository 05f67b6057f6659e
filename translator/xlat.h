/* translator/xlat.h: instruction lists to patched pages (versos) of 64-bit host code.
 *
 * Host registers in translated code, at every guest instruction boundary:
 *   eax ecx edx ebx ebp esi edi   the guest's, upper halves zero       r14  guest ESP, zero-extended
 *   r15  base of the window, 4 GiB-aligned                             r12  r15 + 4 GiB
 *   r13  struct cpu                                                    rsp  host stack, a shadow stack of host return addresses
 *   r8-r11 scratch, dead at boundaries       RFLAGS: CPU_HOST_FLAGS are the guest's; x87/MMX/XMM0-7 the guest's; XMM8-15 scratch
 * At an entry and wherever translated code is left without a fault or a signal. In between, r14 may be behind (XLAT_AT_ESP), and so may DF (XLAT_STRING).
 *
 * Flat mode only: CS, DS, ES, SS have base 0 and limit FFFFFFFFh, code size 32. Everything else is the emulator's.
 * Nothing in a verso depends on a host address: stubs are reached through [r13+..], the window through r12/r15/seg_window.
 * Only the fields named in relocs depend on the page's linear address.
 *
 * Precise state: every host byte has an unwind record that says what the guest state is when the host's RIP points at it.
 * Rule: prepare -> one committing host instruction -> a tail that cannot fault.
 *
 * Memory reachable by guest-controlled addressing lies in [r15 - 2 GiB, r15 + 40 GiB); the monitor keeps all of it outside the
 * 4 GiB window PROT_NONE. Allowed forms: [r15+reg32*scale+disp] with disp >= -256 MiB, [r15+disp32] disp >= 0, [r12+disp32] disp < 0,
 * [r12+reg32*scale+disp] with disp < -256 MiB, reg32 being a guest register or one of r8d..r11d; [seg_window or user_window in r9 + r8];
 * rsi/rdi rebased for string instructions (on r15, or on r9 with a user_window).
 *
 * Pure, thread-safe, no allocation beyond struct xlat_verso's own buffers.
 */
#ifndef VERSO_TRANSLATOR_XLAT_H
#define VERSO_TRANSLATOR_XLAT_H

#include "scanner/scan.h"
#include "translator/cpu.h"

/* Least displacement from a register that is reached from r15; anything below from r12. Position-independent code finds its data at
 * [GOT register - some KiB or MiB]; a kernel its tables at [index + C1xxxxxxh], which wraps. A wrong guess ends in a guard. */
#define XLAT_DISP_MIN (-(256 << 20))

#define XLAT_VERSION 23u /* change it with anything that changes the bytes produced or their meaning */

/* What the meaning of a page depends on beside its bytes: part of the cache key. */
enum {
    XLAT_MODE_USER = 1 << 0,     /* CPL 3; otherwise CPL 0. (CPL 1 and 2 are emulated) */
    XLAT_MODE_FPU_TRAP = 1 << 1, /* CR0.EM or CR0.TS set, or SSE not enabled: x87/MMX/SSE go to the emulator */
    XLAT_MODE_TSC_TRAP = 1 << 2, /* RDTSC goes to the emulator; otherwise it is executed as it is */
    XLAT_MODE_COUNT = 8
};
/* Options that change the code: part of the fingerprint. */
enum {
    XLAT_OPT_BMI2 = 1 << 0, /* host has BMI2 (rorx, pext, pdep may be used) */
    XLAT_OPT_STEP = 1 << 1, /* every transfer to another guest instruction leaves through XLAT_STUB_STEP; never cached */
};

/* Host code fields that hold guest addresses. */
struct xlat_reloc {
    uint32_t host_off; /* of a 32-bit field that holds an address relative to the page: add the page's linear address */
};

/* A patchable rel32 of a branch that leaves the page, or is where an instruction runs into the next page. It points at the link's tail (host
 * code in this verso that does `mov r8d, target; jmp [r13+stub LOOKUP]`, or STRADDLE); the monitor may make it point at the target's host code
 * directly, and back. */
struct xlat_link {
    uint32_t field_off; /* host offset of the rel32 */
    uint32_t tail_off;  /* host offset of its tail */
    int32_t target;     /* guest target relative to the page start */
};

/* Guest state at a host byte (see xlat_unwind()). */
enum xlat_state {
    XLAT_AT,        /* before the instruction at eip: every guest register is in place */
    XLAT_AT_R8,     /* same, eip is r8d */
    XLAT_AT_R8_RCX9,/* same, eip is r8d, and ecx is held in r9d (landing check) */
    XLAT_AT_RCX9,   /* same as XLAT_AT, ecx held in r9d */
    XLAT_XCHG,      /* as XLAT_AT, but the two 8-bit halves of one register are exchanged: arg = register 0..3 (AL/AH..BL/BH) */
    XLAT_STRING,    /* as XLAT_AT, but esi/edi may hold rebased 64-bit host addresses: truncate both to 32 bits (repeat counts
                       are exact: a restarted repeat goes on); arg: bits of XLAT_ARG_* */
    XLAT_AT_ESP,    /* as XLAT_AT, but ESP is r14d + 4 * (int8_t)arg: adjustments are saved up over pushes and pops */
    XLAT_RETRY,     /* in the middle of a short sequence that cannot be unwound but cannot fault either: let it run on and ask
                       again a few instructions later. Only for asynchronous signals; keep such sequences under 8 instructions */
};
enum {
    XLAT_ARG_BEGUN = 1, /* elements of the repeat have been done */
    XLAT_ARG_DF = 2,    /* DF is set, though not in the host's flags: code behind an STD */
};
struct xlat_unwound {
    enum xlat_state state;
    int32_t guest_rel; /* eip relative to the page start */
    uint8_t arg;
};

/* A patched page. All arrays are owned by it: each by malloc(), grown and reused by xlat_translate(); or, after xlat_deserialize() and
 * xlat_verso_pack(), all in one block but for the code, which is the caller's. */
struct xlat_verso {
    uint32_t mode, options;
    uint8_t *code;
    uint32_t code_len, code_cap;
    struct xlat_reloc *relocs;
    uint32_t reloc_count, reloc_cap;
    struct xlat_link *links;
    uint32_t link_count, link_cap;
    uint8_t *unwind; /* compact delta-coded records; decoded by the functions below only */
    uint32_t unwind_len, unwind_cap;
    void *block; /* NULL, or what the arrays beside the code lie in */
    uint32_t insn_count, emulated_count; /* guest instructions; those of them that leave through XLAT_STUB_EMULATE */
};

/* What is known of an instruction beside its bytes (scan_insn.hint): how its operand behaved. Code made with hints is not for the cache. */
enum xlat_hint {
    XLAT_HINT_NONE,
    XLAT_HINT_USER, /* CPL 0: the operand lies where user_window[] says, by its address. Needs BMI2 */
    XLAT_HINT_WRAP, /* the address wraps round at 4 GiB */
    /* CPL 0: the operand often lies in a page that volatile_page[] has: leaves through XLAT_STUB_VOLATILE then, and otherwise goes by
     * user_window[]. Needs BMI2 */
    XLAT_HINT_VOLATILE,
};

/* Is there a form for the hint? */
bool xlat_takes_hint(const struct scan_insn *i, enum xlat_hint hint);

/* No verso has more host code; a page of the longest forms stays well below. */
#define XLAT_CODE_MAX (448u << 10)

enum xlat_status { XLAT_OK = 0, XLAT_NO_MEMORY, XLAT_TOO_BIG };

/* Translates a scanned page (or unit). bits must be 32. Leaves *out valid (possibly empty) on failure. */
enum xlat_status xlat_translate(const struct scan_page *page, uint32_t mode, uint32_t options, struct xlat_verso *out)
    __attribute__((warn_unused_result));
void xlat_verso_init(struct xlat_verso *v);
void xlat_verso_free(struct xlat_verso *v);
/* A copy whose tables take no more room than they need; its code is that of v, which may be used again as soon as that has been placed. False
 * (and *out empty): out of memory. */
bool xlat_verso_pack(const struct xlat_verso *v, struct xlat_verso *out) __attribute__((warn_unused_result));

/* The record that covers host_off. False if host_off is outside the code. Async-signal-safe. */
bool xlat_unwind(const uint8_t *unwind, uint32_t unwind_len, uint32_t host_off, struct xlat_unwound *out);
/* Marks along the unwind records, so that a search need not begin at the first. xlat_marks(): how many there are (one for each
 * XLAT_MARK_EVERY records); written only if cap suffices. xlat_unwind_marked(): as xlat_unwind(). Async-signal-safe. */
#define XLAT_MARK_EVERY 32u
struct xlat_mark {
    uint32_t first; /* host offset of the record behind the mark */
    /* The reader's state there: places in the records, and what the last records in front of them say. */
    uint32_t entry_at, entry_host, other_at, other_host;
    int32_t entry_rel;
};
uint32_t xlat_marks(const uint8_t *unwind, uint32_t unwind_len, struct xlat_mark *marks, uint32_t cap);
bool xlat_unwind_marked(const uint8_t *unwind, uint32_t unwind_len, const struct xlat_mark *marks, uint32_t mark_count,
                        uint32_t host_off, struct xlat_unwound *out);
/* The host offset of the canonical entry of the instruction at guest offset guest_off (0..4095), or -1 if the
 * verso has none: no such instruction, or one that ESP is not in place at (XLAT_AT_ESP), to be emulated. Async-signal-safe. */
int32_t xlat_entry(const uint8_t *unwind, uint32_t unwind_len, uint32_t guest_off);
/* Fills entries[0..4095] with the host offset for each guest offset, or -1. */
void xlat_entries(const uint8_t *unwind, uint32_t unwind_len, int32_t entries[SCAN_PAGE_SIZE]);

/* The entries for many look-ups: which there are, and from where to read on for them. */
struct xlat_index {
    bool made;                         /* false: there is none */
    uint16_t end;                      /* of the entries in the records */
    uint64_t has[SCAN_PAGE_SIZE / 64]; /* a bit for each guest offset */
    struct {
        uint16_t at, host; /* place in the unwind records and host offset behind the last entry in front of these 64 */
    } from[SCAN_PAGE_SIZE / 64];
};
/* Makes it from the records; it is not made if a page's overlapping instructions are not in order, or its code or records are too long. */
void xlat_index_make(const uint8_t *unwind, uint32_t unwind_len, uint32_t code_len, struct xlat_index *out);
/* As xlat_entry(). The index must have been made from these records. Async-signal-safe. */
int32_t xlat_index_find(const struct xlat_index *x, const uint8_t *unwind, uint32_t guest_off);

/* One flat, checked byte form of a verso (little-endian, sizes first), and back. serialize: returns the size needed; writes only
 * if cap suffices. deserialize: validates every size, offset and order; false on anything wrong (out then empty). out->code stays in buf: it is
 * read once, when it is placed. index (may be NULL): as by xlat_index_make(). */
size_t xlat_serialize(const struct xlat_verso *v, uint8_t *buf, size_t cap);
/* So many bytes at the end of that form hardly compress. */
uint32_t xlat_serialized_tables(const struct xlat_verso *v);
bool xlat_deserialize(const uint8_t *buf, size_t len, struct xlat_verso *out, struct xlat_index *index)
    __attribute__((warn_unused_result));

/* Everything beside recto and mode that the bytes depend on: XLAT_VERSION, SCAN_VERSION, CPU model, cache-relevant options. */
uint64_t xlat_fingerprint(uint32_t options);
/* The options that fit this host (BMI2 or not). */
uint32_t xlat_host_options(void);

/* Independent of the emitter: walks the host code of a verso and proves that every memory operand is one of the forms above or a
 * field of part 1 of struct cpu, every branch stays in the code at a boundary or goes through a stub, no forbidden
 * instruction occurs, and r12, r13, r15 and rsp are never changed otherwise than by call/ret/pushfq/pop pairs. False: why says what and
 * where. */
bool xlat_validate(const struct xlat_verso *v, char *why, size_t why_size);

#endif
