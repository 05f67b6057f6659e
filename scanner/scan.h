/* scanner/scan.h: bytes of a guest page to instructions, classes and an attribute map.
 *
 * Pure functions of their arguments: the same bytes, mode and entries give the same result on every machine.
 * No allocation except inside struct scan_page (an arena the caller owns and may reuse); thread-safe.
 */
#ifndef VERSO_SCANNER_SCAN_H
#define VERSO_SCANNER_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAN_PAGE_SIZE    4096u
#define SCAN_INSN_MAX_LEN 15u

/* Prefixes seen, as bits of scan_insn.prefixes. */
enum {
    SCAN_PFX_OPSIZE = 1 << 0, /* 66h */
    SCAN_PFX_ADSIZE = 1 << 1, /* 67h */
    SCAN_PFX_REPNE = 1 << 2,  /* F2h, the last one of F2h/F3h wins */
    SCAN_PFX_REP = 1 << 3,    /* F3h */
    SCAN_PFX_LOCK = 1 << 4,   /* F0h */
    SCAN_PFX_SEG = 1 << 5,    /* a segment override; scan_insn.seg says which */
};

/* Segment register numbers, in the order of the architecture (SDM vol. 2, table 3-1). */
enum { SCAN_ES, SCAN_CS, SCAN_SS, SCAN_DS, SCAN_FS, SCAN_GS, SCAN_SEG_NONE = 7 };

/* Opcode maps. */
enum { SCAN_MAP_1B, SCAN_MAP_0F, SCAN_MAP_0F38, SCAN_MAP_0F3A };

/* Where control goes after an instruction. */
enum scan_flow {
    SCAN_FLOW_NEXT,     /* the next instruction */
    SCAN_FLOW_JCC,      /* target or next (Jcc, LOOPcc, JCXZ/JECXZ) */
    SCAN_FLOW_JMP,      /* target (near direct) */
    SCAN_FLOW_CALL,     /* target; returns to next (near direct) */
    SCAN_FLOW_IJMP,     /* near indirect jump */
    SCAN_FLOW_ICALL,    /* near indirect call */
    SCAN_FLOW_RET,      /* near return */
    SCAN_FLOW_FAR,      /* far jump/call/return, IRET, SYSEXIT, INT n, SYSENTER, INT3: leaves through the monitor */
    SCAN_FLOW_STOP,     /* always faults: UD0/UD1/UD2, undefined opcode. No successor. HLT is FLOW_NEXT. */
};

/* Instruction classes: scan_class.def lists SCAN_CLASS(id, "name", sensitive, "meaning"). */
enum scan_class {
#define SCAN_CLASS(id, name, sensitive, text) SCAN_CLASS_##id,
#include "scanner/scan_class.def"
#undef SCAN_CLASS
    SCAN_CLASS_COUNT
};

/* One decoded instruction; 40 bytes, plain data. */
struct scan_insn {
    uint16_t off;      /* offset of the first byte in its page (0..4095); 0 from scan_decode() */
    uint8_t len;       /* 1..15 */
    uint8_t prefixes;  /* SCAN_PFX_* */
    uint8_t seg;       /* the override segment or SCAN_SEG_NONE */
    uint8_t map;       /* SCAN_MAP_* */
    uint8_t opcode;    /* last opcode byte */
    uint8_t op_off;    /* offset of that byte from the first byte of the instruction */
    bool has_modrm;
    uint8_t modrm, sib; /* sib valid only if has_sib */
    bool has_sib;
    uint8_t disp_off, disp_len; /* displacement bytes within the instruction; disp_len 0, 1, 2, 4. moffs count as disp */
    uint8_t imm_off, imm_len;   /* first immediate (0, 1, 2, 4 bytes; relative branch offsets count as imm) */
    uint8_t imm2_len;           /* ENTER's second byte, or the selector (2) of a far pointer: directly after the first */
    uint8_t opsize;  /* effective operand size of the v forms, 2 or 4 */
    uint8_t adsize;  /* effective address size, 2 or 4 */
    uint8_t cls;     /* enum scan_class */
    uint8_t flow;    /* enum scan_flow */
    uint8_t hint;    /* 0 from the scanner; what is known beside the bytes, for the translator: enum xlat_hint */
    uint16_t flags_read, flags_written; /* EFLAGS bits 0..11 (CF PF AF ZF SF DF OF) certainly or possibly read /
                                           certainly overwritten whatever the operands (undefined counts as written) */
    int32_t disp;    /* sign-extended */
    uint32_t imm;    /* sign-extended to 32 bits where the instruction does so; zero-extended otherwise */
    int32_t target;  /* direct branches: target relative to the first byte of the *instruction* (from scan_decode()) or of
                        the page (in a struct scan_page); may lie outside the page. Relative targets wrap at 2^32
                        (or at 2^16 with 16-bit operand size: then target holds the 16-bit sum's displacement) */
};

static inline unsigned scan_modrm_mod(const struct scan_insn *i) { return i->modrm >> 6; }
static inline unsigned scan_modrm_reg(const struct scan_insn *i) { return (i->modrm >> 3) & 7; }
static inline unsigned scan_modrm_rm(const struct scan_insn *i) { return i->modrm & 7; }
/* True if the ModRM byte names memory (LEA and multi-byte NOP included). */
static inline bool scan_has_mem(const struct scan_insn *i) { return i->has_modrm && i->modrm < 0xC0; }

enum scan_decode_status {
    SCAN_OK = 0,
    SCAN_TRUNCATED, /* avail ended inside the instruction */
    SCAN_TOO_LONG,  /* more than 15 bytes: #GP on execution */
    SCAN_INVALID,   /* undefined opcode: #UD; *out holds the length up to and with the opcode (and ModRM where the
                       processor fetches one), class SCAN_CLASS_INVALID, flow SCAN_FLOW_STOP */
};

/* Decodes one instruction at p with avail readable bytes. bits is the code size: 16 or 32.
 * Everything an i686 up to SSSE3 plus MOVBE knows decodes; what is undefined there (VEX, EVEX, XOP, SSE4, 3DNow!, MPX, CET
 * other than as the NOPs they are) is SCAN_INVALID. LOCK where it is not allowed is SCAN_INVALID. */
enum scan_decode_status scan_decode(const uint8_t *p, size_t avail, unsigned bits, struct scan_insn *out);

/* Attribute map: one byte for each byte of the recto. */
enum {
    SCAN_ATTR_DATA = 0,         /* data or unknown */
    SCAN_ATTR_INSIDE = 1 << 0,  /* inside an instruction, not its first byte */
    SCAN_ATTR_START = 1 << 1,   /* first byte of an instruction (START|INSIDE: overlapping instructions) */
    SCAN_ATTR_TARGET = 1 << 2,  /* target of a direct branch of this page */
    SCAN_ATTR_ENTRY = 1 << 3,   /* given as an entry */
    SCAN_ATTR_SENSITIVE = 1 << 4, /* START of a sensitive instruction */
    SCAN_ATTR_STRADDLE = 1 << 5,  /* START of an instruction that runs into the next page */
    SCAN_ATTR_SWEPT = 1 << 6,     /* START found by linear sweep, not by descent */
};

/* The result of scanning one page, and the arena of it. Large (about 200 KiB): allocate once, reuse. */
struct scan_page {
    unsigned bits; /* code size, 16 or 32 */
    bool unit;     /* a single instruction that runs past the page end; see scan_unit() */
    uint8_t attr[SCAN_PAGE_SIZE];
    int16_t index[SCAN_PAGE_SIZE]; /* instruction number starting at this offset, or -1 */
    unsigned count;
    struct scan_insn insn[SCAN_PAGE_SIZE]; /* sorted by off; overlapping instructions may both be present */
    uint32_t class_count[SCAN_CLASS_COUNT];
    uint8_t bytes[SCAN_PAGE_SIZE + SCAN_INSN_MAX_LEN + 1]; /* copy of the recto; a unit's bytes past the end follow */
};

/* Scans a page: recursive descent from each entry (offsets 0..4095, sorted or not, duplicates allowed), then linear sweep of
 * the gaps that follow a known boundary. An instruction that runs past the page end is recorded with
 * SCAN_ATTR_STRADDLE in attr but is not in insn[] (index -1). Undefined opcodes found by descent are in insn[]
 * (class INVALID: they fault when executed); a sweep stops in front of them. Entries out of range are ignored. */
void scan_page(const uint8_t recto[SCAN_PAGE_SIZE], unsigned bits, const uint16_t *entries, size_t n_entries,
               struct scan_page *out);

/* Scans the one instruction that starts at off in the first page and ends in the second. bytes holds 15 bytes from off on
 * (those past a non-present second page never consulted: avail says how many are valid). Returns the status of
 * scan_decode(); on SCAN_OK out->unit is true and out->insn[0] the instruction. */
enum scan_decode_status scan_unit(const uint8_t *bytes, size_t avail, unsigned off, unsigned bits, struct scan_page *out);

/* The attribute map as bit planes, as records hold it: attribute bit b of offset n is bit n % 8 of planes[SCAN_PLANE_SIZE * b + n / 8]. Of the
 * same size, but most planes are nearly empty: a record unpacks faster and no page loaded has to be gone through byte by byte. In place of INSIDE
 * stands INSIDE XOR START, which is nearly all ones where there is code. */
#define SCAN_PLANE_SIZE (SCAN_PAGE_SIZE / 8)
void scan_attr_split(const uint8_t attr[SCAN_PAGE_SIZE], uint8_t planes[SCAN_PAGE_SIZE]);
void scan_attr_join(const uint8_t planes[SCAN_PAGE_SIZE], uint8_t attr[SCAN_PAGE_SIZE]);
/* The plane of one attribute (one bit of SCAN_ATTR_*); SCAN_ATTR_INSIDE: see above. */
static inline const uint8_t *scan_attr_plane(const uint8_t planes[SCAN_PAGE_SIZE], unsigned attr)
{
    return planes + SCAN_PLANE_SIZE * (unsigned)__builtin_ctz(attr);
}

const char *scan_class_name(enum scan_class c); /* short name, e.g. "pushf" */
const char *scan_class_text(enum scan_class c); /* one line of meaning */
bool scan_class_sensitive(enum scan_class c);

/* Disassembles one instruction as text (Intel syntax, by Zydis). bits 16, 32 or 64; eip is its address. Returns the length or
 * 0 if undecodable (text is then ".byte"). */
unsigned scan_disassemble(const uint8_t *p, size_t avail, unsigned bits, uint32_t eip, char *text, size_t size);

/* Second opinion: decodes p with Zydis; returns its length, or 0 where Zydis rejects it. 16 or 32 bits. */
unsigned scan_zydis_length(const uint8_t *p, size_t avail, unsigned bits);

/* Changes whenever scan_page() may give another result for the same input. Part of the translator's fingerprint. */
#define SCAN_VERSION 5u

#endif
