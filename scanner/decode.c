/* scanner/decode.c: the hand-made table decoder.
 *
 * Three flat tables of eight-to-ten-byte descriptors (one-byte, 0F, and the few entries of 0F38/0F3A that the
 * CPU model has) say for each opcode what follows it and what it means; groups and the x87 refine that by
 * ModRM in refine(). The tables follow the opcode maps of SDM vol. 2, appendix A; a row that is absent is an
 * undefined opcode.
 *
 * Bounds: the fast path reads at most WINDOW bytes without a check, so shorter inputs are copied to a padded
 * buffer first; the length that comes out then tells whether padding was consulted.
 *
 * Flags: flags_written is a lower bound. Where the manual says "undefined" and processors are known to leave
 * the flag alone (DIV, MUL, BSF, BT, rotates by more than one), it is not claimed; that is allowed by the contract
 * and safer.
 */
#include "scanner/scan.h"

#include <string.h>

enum {
    WINDOW = 32
}; /* 14 prefixes, 3 opcode bytes, ModRM, SIB, disp32 and a 4-byte load of the immediate: 27 */

/* -- Descriptors
 * ------------------------------------------------------------------------------------------------- */

enum {
    CF = 1 << 0,
    PF = 1 << 2,
    AF = 1 << 4,
    ZF = 1 << 6,
    SF = 1 << 7,
    DF = 1 << 10,
    OF = 1 << 11,
    ARITH = CF | PF | AF | ZF | SF | OF,
    ALL = ARITH | DF,
};

/* Immediates: the low nibble of op.enc. */
enum {
    I_NONE,
    I_B,    /* 8 bits, zero-extended */
    I_BS,   /* 8 bits, sign-extended by the instruction */
    I_W,    /* 16 bits */
    I_Z,    /* 16 or 32 bits by operand size */
    I_REL8, /* branch offsets */
    I_RELZ,
    I_MOFFS, /* an address of address size, recorded as displacement */
    I_FAR,   /* offset by operand size, then a selector */
    I_ENTER, /* 16 bits, then 8 */
    I_KINDS,
};

enum {
    E_IMM = 0x0f,
    M = 0x10,  /* ModRM */
    MR = 0x20, /* ModRM whose mod field is ignored: always registers (MOV CR/DR) */
    L = 0x40,  /* LOCK allowed if the destination is memory */
};

/* What refine() has to look at. */
enum {
    X_UNDEFINED, /* zero: rows absent from a table */
    X_NONE,
    X_PREFIX,
    X_ESCAPE,
    X_FORM, /* op.ok says which of memory/register form and mandatory prefix exist */
    X_GRP1,
    X_GRP1A, /* only /0 exists: 8F, C6, C7 */
    X_GRP2_IMM,
    X_GRP2_1,
    X_GRP2_CL,
    X_GRP3,
    X_GRP4,
    X_GRP5,
    X_GRP6,
    X_GRP7,
    X_GRP8,
    X_GRP9,
    X_GRP12,
    X_GRP14,
    X_GRP15,
    X_SHD_IMM,
    X_FROM_SREG,
    X_TO_SREG,
    X_CMPS, /* CMPS, SCAS */
    X_CR,
    X_X87,
};

struct op {
    uint8_t enc, cls, flow, special;
    uint8_t ok; /* X_FORM: bits 0..3 memory form with no prefix, 66, F3, F2; bits 4..7 register form */
    uint8_t pad;
    uint16_t fr, fw;
};

#define OPX(x, enc, cls, fr, fw)                                                                             \
    {                                                                                                        \
        (enc), SCAN_CLASS_##cls, SCAN_FLOW_NEXT, X_##x, 0, 0, (fr), (fw)                                     \
    }
#define OP(enc, cls, fr, fw) OPX(NONE, enc, cls, fr, fw)
#define FLOW(enc, cls, flow, fr, fw)                                                                         \
    {                                                                                                        \
        (enc), SCAN_CLASS_##cls, SCAN_FLOW_##flow, X_NONE, 0, 0, (fr), (fw)                                  \
    }
#define FORM(enc, cls, ok, fr, fw)                                                                           \
    {                                                                                                        \
        (enc), SCAN_CLASS_##cls, SCAN_FLOW_NEXT, X_FORM, (ok), 0, (fr), (fw)                                 \
    }
#define PREFIX                                                                                               \
    {                                                                                                        \
        0, 0, 0, X_PREFIX, 0, 0, 0, 0                                                                        \
    }
#define ESCAPE                                                                                               \
    {                                                                                                        \
        0, 0, 0, X_ESCAPE, 0, 0, 0, 0                                                                        \
    }

/* Mandatory prefixes of FORM rows, alike in memory and register form unless shifted by MEM or REG. */
enum { P_NO = 1, P_66 = 2, P_F3 = 4, P_F2 = 8, P_ANY = 15 };
#define BOTH(p)     ((p) | (p) << 4)
#define MEM(p)      (p)
#define REG(p)      ((p) << 4)
#define SSE(p)      FORM(M, SIMD, BOTH(p), 0, 0)
#define SSE_IB(p)   FORM(M | I_B, SIMD, BOTH(p), 0, 0)
#define SSE_FORM(f) FORM(M, SIMD, f, 0, 0)

/* Conditions in encoding order: O NO B NB Z NZ BE NBE S NS P NP L NL LE NLE (SDM vol. 2, B.1.4.7). */
#define CC_ROWS(base, ROW)                                                                                   \
    [base] = ROW(OF), [base + 1] = ROW(OF), [base + 2] = ROW(CF), [base + 3] = ROW(CF),                      \
    [base + 4] = ROW(ZF), [base + 5] = ROW(ZF), [base + 6] = ROW(CF | ZF), [base + 7] = ROW(CF | ZF),        \
    [base + 8] = ROW(SF), [base + 9] = ROW(SF), [base + 10] = ROW(PF), [base + 11] = ROW(PF),                \
    [base + 12] = ROW(SF | OF), [base + 13] = ROW(SF | OF), [base + 14] = ROW(ZF | SF | OF),                 \
    [base + 15] = ROW(ZF | SF | OF)
#define JCC_8(f)  FLOW(I_REL8, BRANCH, JCC, f, 0)
#define JCC_Z(f)  FLOW(I_RELZ, BRANCH, JCC, f, 0)
#define SETCC(f)  OP(M, PLAIN, f, 0)
#define CMOVCC(f) OP(M, PLAIN, f, 0)

#define ALU(base, lock, fr)                                                                                  \
    [base... base + 1] = OP(M | lock, PLAIN, fr, ARITH), [base + 2 ... base + 3] = OP(M, PLAIN, fr, ARITH),  \
                    [base + 4] = OP(I_B, PLAIN, fr, ARITH), [base + 5] = OP(I_Z, PLAIN, fr, ARITH)

/* -- Opcode maps
 * ------------------------------------------------------------------------------------------------- */

/* clang-format off */
static const struct op map_1b[256] = {
    ALU(0x00, L, 0), [0x06] = OP(0, PUSHSEG, 0, 0), [0x07] = OP(0, POPSEG, 0, 0),
    ALU(0x08, L, 0), [0x0e] = OP(0, PUSHSEG, 0, 0), [0x0f] = ESCAPE,
    ALU(0x10, L, CF), [0x16] = OP(0, PUSHSEG, 0, 0), [0x17] = OP(0, POPSEG, 0, 0),
    ALU(0x18, L, CF), [0x1e] = OP(0, PUSHSEG, 0, 0), [0x1f] = OP(0, POPSEG, 0, 0),
    ALU(0x20, L, 0), [0x26] = PREFIX, [0x27] = OP(0, LEGACY, CF | AF, ARITH),
    ALU(0x28, L, 0), [0x2e] = PREFIX, [0x2f] = OP(0, LEGACY, CF | AF, ARITH),
    ALU(0x30, L, 0), [0x36] = PREFIX, [0x37] = OP(0, LEGACY, AF, ARITH),
    ALU(0x38, 0, 0), [0x3e] = PREFIX, [0x3f] = OP(0, LEGACY, AF, ARITH),
    [0x40 ... 0x4f] = OP(0, PLAIN, 0, ARITH & ~CF),
    [0x50 ... 0x5f] = OP(0, PLAIN, 0, 0),
    [0x60 ... 0x61] = OP(0, LEGACY, 0, 0), /* PUSHA, POPA */
    [0x62] = FORM(M, LEGACY, MEM(P_ANY), 0, 0), /* BOUND; the register form is EVEX in 64-bit code only */
    [0x63] = OP(M, ARPL, 0, ZF),
    [0x64 ... 0x67] = PREFIX,
    [0x68] = OP(I_Z, PLAIN, 0, 0), [0x69] = OP(M | I_Z, PLAIN, 0, CF | OF),
    [0x6a] = OP(I_BS, PLAIN, 0, 0), [0x6b] = OP(M | I_BS, PLAIN, 0, CF | OF),
    [0x6c ... 0x6d] = OP(0, IN, DF, 0), [0x6e ... 0x6f] = OP(0, OUT, DF, 0),
    CC_ROWS(0x70, JCC_8),
    [0x80] = OPX(GRP1, M | I_B, PLAIN, 0, ARITH), [0x81] = OPX(GRP1, M | I_Z, PLAIN, 0, ARITH),
    [0x82] = OPX(GRP1, M | I_B, LEGACY, 0, ARITH), [0x83] = OPX(GRP1, M | I_BS, PLAIN, 0, ARITH),
    [0x84 ... 0x85] = OP(M, PLAIN, 0, ARITH),
    [0x86 ... 0x87] = OP(M | L, PLAIN, 0, 0),
    [0x88 ... 0x8b] = OP(M, PLAIN, 0, 0),
    [0x8c] = OPX(FROM_SREG, M, MOVFROMSEG, 0, 0),
    [0x8d] = FORM(M, PLAIN, MEM(P_ANY), 0, 0), /* LEA */
    [0x8e] = OPX(TO_SREG, M, MOVTOSEG, 0, 0),
    [0x8f] = OPX(GRP1A, M, PLAIN, 0, 0),
    [0x90 ... 0x99] = OP(0, PLAIN, 0, 0),
    [0x9a] = FLOW(I_FAR, FARCTL, FAR, 0, 0),
    [0x9b] = OP(0, FPU, 0, 0),
    [0x9c] = OP(0, PUSHF, ALL, 0), [0x9d] = OP(0, POPF, 0, ALL),
    [0x9e] = OP(0, PLAIN, 0, SF | ZF | AF | PF | CF), [0x9f] = OP(0, PLAIN, SF | ZF | AF | PF | CF, 0),
    [0xa0 ... 0xa3] = OP(I_MOFFS, PLAIN, 0, 0),
    [0xa4 ... 0xa5] = OP(0, STRING, DF, 0), [0xa6 ... 0xa7] = OPX(CMPS, 0, STRING, DF, ARITH),
    [0xa8] = OP(I_B, PLAIN, 0, ARITH), [0xa9] = OP(I_Z, PLAIN, 0, ARITH),
    [0xaa ... 0xad] = OP(0, STRING, DF, 0), [0xae ... 0xaf] = OPX(CMPS, 0, STRING, DF, ARITH),
    [0xb0 ... 0xb7] = OP(I_B, PLAIN, 0, 0), [0xb8 ... 0xbf] = OP(I_Z, PLAIN, 0, 0),
    [0xc0 ... 0xc1] = OPX(GRP2_IMM, M | I_B, PLAIN, 0, 0),
    [0xc2] = FLOW(I_W, BRANCH, RET, 0, 0), [0xc3] = FLOW(0, BRANCH, RET, 0, 0),
    [0xc4 ... 0xc5] = FORM(M, LOADSEG, MEM(P_ANY), 0, 0), /* LES, LDS; register form: VEX, not on this CPU */
    [0xc6] = OPX(GRP1A, M | I_B, PLAIN, 0, 0), [0xc7] = OPX(GRP1A, M | I_Z, PLAIN, 0, 0),
    [0xc8] = OP(I_ENTER, PLAIN, 0, 0), [0xc9] = OP(0, PLAIN, 0, 0),
    [0xca] = FLOW(I_W, FARCTL, FAR, 0, 0), [0xcb] = FLOW(0, FARCTL, FAR, 0, 0),
    [0xcc] = FLOW(0, INT, FAR, ALL, 0), [0xcd] = FLOW(I_B, INT, FAR, ALL, 0),
    [0xce] = OP(0, INT, ALL, 0), [0xcf] = FLOW(0, IRET, FAR, ALL, ALL),
    [0xd0 ... 0xd1] = OPX(GRP2_1, M, PLAIN, 0, 0), [0xd2 ... 0xd3] = OPX(GRP2_CL, M, PLAIN, 0, 0),
    [0xd4 ... 0xd5] = OP(I_B, LEGACY, 0, ARITH), /* AAM, AAD */
    [0xd6] = OP(0, LEGACY, CF, 0), /* SALC */
    [0xd7] = OP(0, PLAIN, 0, 0),
    [0xd8 ... 0xdf] = OPX(X87, M, FPU, 0, 0),
    [0xe0 ... 0xe1] = FLOW(I_REL8, BRANCH, JCC, ZF, 0), [0xe2 ... 0xe3] = FLOW(I_REL8, BRANCH, JCC, 0, 0),
    [0xe4 ... 0xe5] = OP(I_B, IN, 0, 0), [0xe6 ... 0xe7] = OP(I_B, OUT, 0, 0),
    [0xe8] = FLOW(I_RELZ, BRANCH, CALL, 0, 0), [0xe9] = FLOW(I_RELZ, BRANCH, JMP, 0, 0),
    [0xea] = FLOW(I_FAR, FARCTL, FAR, 0, 0), [0xeb] = FLOW(I_REL8, BRANCH, JMP, 0, 0),
    [0xec ... 0xed] = OP(0, IN, 0, 0), [0xee ... 0xef] = OP(0, OUT, 0, 0),
    [0xf0] = PREFIX, [0xf1] = FLOW(0, INT, FAR, ALL, 0), [0xf2 ... 0xf3] = PREFIX,
    [0xf4] = OP(0, HLT, 0, 0), [0xf5] = OP(0, PLAIN, CF, CF),
    [0xf6] = OPX(GRP3, M, PLAIN, 0, 0), [0xf7] = OPX(GRP3, M, PLAIN, 0, 0),
    [0xf8 ... 0xf9] = OP(0, PLAIN, 0, CF),
    [0xfa] = OP(0, CLI, 0, 0), [0xfb] = OP(0, STI, 0, 0),
    [0xfc ... 0xfd] = OP(0, PLAIN, 0, DF),
    [0xfe] = OPX(GRP4, M, PLAIN, 0, 0), [0xff] = OPX(GRP5, M, PLAIN, 0, 0),
};

static const struct op map_0f[256] = {
    [0x00] = OPX(GRP6, M, PLAIN, 0, 0), [0x01] = OPX(GRP7, M, PLAIN, 0, 0),
    [0x02] = OP(M, LAR, 0, ZF), [0x03] = OP(M, LSL, 0, ZF),
    [0x05] = FLOW(0, SYSENTER, FAR, ALL, 0), [0x06] = OP(0, CLTS, 0, 0), [0x07] = FLOW(0, SYSENTER, FAR, 0, 0),
    [0x08 ... 0x09] = OP(0, INVLPG, 0, 0), [0x0b] = FLOW(0, UD, STOP, 0, 0),
    [0x0d] = FORM(M, PLAIN, MEM(P_ANY), 0, 0), /* PREFETCHW: a NOP here (SDM vol. 2, table A-3) */
    [0x10 ... 0x11] = SSE(P_ANY),
    [0x12] = SSE_FORM(MEM(P_ANY) | REG(P_NO | P_F3 | P_F2)), [0x13] = SSE_FORM(MEM(P_NO | P_66)),
    [0x14 ... 0x15] = SSE(P_NO | P_66),
    [0x16] = SSE_FORM(MEM(P_NO | P_66 | P_F3) | REG(P_NO | P_F3)), [0x17] = SSE_FORM(MEM(P_NO | P_66)),
    [0x18 ... 0x1f] = OP(M, PLAIN, 0, 0), /* prefetches and hint NOPs; MPX and CET live here unseen */
    [0x20] = OPX(CR, MR, MOVCR, 0, 0), [0x21] = OP(MR, MOVDR, 0, 0),
    [0x22] = OPX(CR, MR, MOVCR, 0, 0), [0x23] = OP(MR, MOVDR, 0, 0),
    [0x28 ... 0x29] = SSE(P_NO | P_66), [0x2a] = SSE(P_ANY), [0x2b] = SSE_FORM(MEM(P_NO | P_66)),
    [0x2c ... 0x2d] = SSE(P_ANY),
    [0x2e ... 0x2f] = FORM(M, SIMD, BOTH(P_NO | P_66), 0, ARITH), /* UCOMIS, COMIS */
    [0x30] = OP(0, MSR, 0, 0), [0x31] = OP(0, RDTSC, 0, 0), [0x32 ... 0x33] = OP(0, MSR, 0, 0),
    [0x34 ... 0x35] = FLOW(0, SYSENTER, FAR, 0, 0), [0x37] = FORM(0, VIRT, BOTH(P_NO), 0, 0), /* GETSEC */
    [0x38] = ESCAPE, [0x3a] = ESCAPE,
    CC_ROWS(0x40, CMOVCC),
    [0x50] = SSE_FORM(REG(P_NO | P_66)), [0x51] = SSE(P_ANY), [0x52 ... 0x53] = SSE(P_NO | P_F3),
    [0x54 ... 0x57] = SSE(P_NO | P_66), [0x58 ... 0x5a] = SSE(P_ANY), [0x5b] = SSE(P_NO | P_66 | P_F3),
    [0x5c ... 0x5f] = SSE(P_ANY),
    [0x60 ... 0x6b] = SSE(P_NO | P_66), [0x6c ... 0x6d] = SSE(P_66), [0x6e] = SSE(P_NO | P_66),
    [0x6f] = SSE(P_NO | P_66 | P_F3),
    [0x70] = SSE_IB(P_ANY), [0x71 ... 0x72] = OPX(GRP12, M | I_B, SIMD, 0, 0), [0x73] = OPX(GRP14, M | I_B, SIMD, 0, 0),
    [0x74 ... 0x76] = SSE(P_NO | P_66), [0x77] = FORM(0, SIMD, BOTH(P_NO), 0, 0),
    [0x78 ... 0x79] = FORM(M, VIRT, BOTH(P_NO), 0, 0), [0x7c ... 0x7d] = SSE(P_66 | P_F2),
    [0x7e ... 0x7f] = SSE(P_NO | P_66 | P_F3),
    CC_ROWS(0x80, JCC_Z),
    CC_ROWS(0x90, SETCC),
    [0xa0] = OP(0, PUSHSEG, 0, 0), [0xa1] = OP(0, POPSEG, 0, 0), [0xa2] = OP(0, CPUID, 0, 0),
    [0xa3] = OP(M, PLAIN, 0, CF), [0xa4] = OPX(SHD_IMM, M | I_B, PLAIN, 0, 0), [0xa5] = OP(M, PLAIN, 0, 0),
    [0xa8] = OP(0, PUSHSEG, 0, 0), [0xa9] = OP(0, POPSEG, 0, 0), [0xaa] = OP(0, VIRT, 0, 0), /* RSM */
    [0xab] = OP(M | L, PLAIN, 0, CF), [0xac] = OPX(SHD_IMM, M | I_B, PLAIN, 0, 0), [0xad] = OP(M, PLAIN, 0, 0),
    [0xae] = OPX(GRP15, M, PLAIN, 0, 0), [0xaf] = OP(M, PLAIN, 0, CF | OF),
    [0xb0 ... 0xb1] = OP(M | L, PLAIN, 0, ARITH), [0xb2] = FORM(M, LOADSEG, MEM(P_ANY), 0, 0),
    [0xb3] = OP(M | L, PLAIN, 0, CF), [0xb4 ... 0xb5] = FORM(M, LOADSEG, MEM(P_ANY), 0, 0),
    [0xb6 ... 0xb7] = OP(M, PLAIN, 0, 0), [0xb9] = FLOW(M, UD, STOP, 0, 0),
    [0xba] = OPX(GRP8, M | I_B, PLAIN, 0, CF), [0xbb] = OP(M | L, PLAIN, 0, CF),
    [0xbc ... 0xbd] = OP(M, PLAIN, 0, ZF), [0xbe ... 0xbf] = OP(M, PLAIN, 0, 0),
    [0xc0 ... 0xc1] = OP(M | L, PLAIN, 0, ARITH), [0xc2] = SSE_IB(P_ANY),
    [0xc3] = FORM(M, PLAIN, MEM(P_NO), 0, 0), /* MOVNTI: not subject to CR0.TS or EM */
    [0xc4] = SSE_IB(P_NO | P_66), [0xc5] = FORM(M | I_B, SIMD, REG(P_NO | P_66), 0, 0), [0xc6] = SSE_IB(P_NO | P_66),
    [0xc7] = OPX(GRP9, M, PLAIN, 0, 0), [0xc8 ... 0xcf] = OP(0, PLAIN, 0, 0),
    [0xd0] = SSE(P_66 | P_F2), [0xd1 ... 0xd5] = SSE(P_NO | P_66),
    [0xd6] = SSE_FORM(MEM(P_66) | REG(P_66 | P_F3 | P_F2)), [0xd7] = SSE_FORM(REG(P_NO | P_66)),
    [0xd8 ... 0xe5] = SSE(P_NO | P_66), [0xe6] = SSE(P_66 | P_F3 | P_F2), [0xe7] = SSE_FORM(MEM(P_NO | P_66)),
    [0xe8 ... 0xef] = SSE(P_NO | P_66),
    [0xf0] = SSE_FORM(MEM(P_F2)), [0xf1 ... 0xf6] = SSE(P_NO | P_66), [0xf7] = SSE_FORM(REG(P_NO | P_66)),
    [0xf8 ... 0xfe] = SSE(P_NO | P_66), [0xff] = FLOW(M, UD, STOP, 0, 0),
};

static const struct op map_0f38[256] = {
    [0x00 ... 0x0b] = SSE(P_NO | P_66), [0x1c ... 0x1e] = SSE(P_NO | P_66),
    [0xf0 ... 0xf1] = FORM(M, PLAIN, MEM(P_NO | P_66), 0, 0), /* MOVBE */
};

static const struct op map_0f3a[256] = {
    [0x0f] = SSE_IB(P_NO | P_66), /* PALIGNR */
};
/* clang-format on */

/* -- Addressing forms (SDM vol. 2, tables 2-1 to 2-3)
 * ------------------------------------------------------------- */

enum { SIB = 8 }; /* beside the displacement's length in the low bits */

/* By mod * 8 + rm. */
static const uint8_t form32[32] = {
    0, 0, 0, 0, SIB,     4, 0, 0, /* [reg], disp32 */
    1, 1, 1, 1, SIB | 1, 1, 1, 1, /* [reg + disp8] */
    4, 4, 4, 4, SIB | 4, 4, 4, 4, /* [reg + disp32] */
};
static const uint8_t form16[32] = {
    0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
};

/* Bytes of the first immediate by kind and operand size (address size for moffs): 16, 32 bits. */
static const uint8_t imm_bytes[I_KINDS][2] = {
    [I_NONE] = {0, 0}, [I_B] = {1, 1},    [I_BS] = {1, 1},    [I_W] = {2, 2},   [I_Z] = {2, 4},
    [I_REL8] = {1, 1}, [I_RELZ] = {2, 4}, [I_MOFFS] = {0, 0}, [I_FAR] = {2, 4}, [I_ENTER] = {2, 2},
};
static const bool imm_signed[I_KINDS] = {[I_BS] = true, [I_REL8] = true, [I_RELZ] = true};
static const uint8_t imm2_bytes[I_KINDS] = {[I_FAR] = 2, [I_ENTER] = 1};

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t zero_extended(uint32_t v, unsigned bytes)
{
    return (uint32_t)(v & (((uint64_t)1 << (8 * bytes)) - 1));
}

static inline uint32_t sign_extended(uint32_t v, unsigned bytes)
{
    unsigned shift = 64 - 8 * bytes;
    return bytes ? (uint32_t)((int64_t)((uint64_t)v << shift) >> shift) : 0;
}

/* -- Groups
 * ------------------------------------------------------------------------------------------------------ */

/* What refine() may change. */
struct refined {
    uint8_t enc, cls, flow;
    uint16_t fr, fw;
};

static unsigned mandatory(unsigned prefixes) /* bit P_*; F2 and F3 outrank 66 (SDM vol. 2, 2.1.2) */
{
    if (prefixes & SCAN_PFX_REPNE)
        return P_F2;
    if (prefixes & SCAN_PFX_REP)
        return P_F3;
    return prefixes & SCAN_PFX_OPSIZE ? P_66 : P_NO;
}

static const uint16_t grp1_reads[8] = {0, 0, CF, CF, 0, 0, 0, 0};

/* Shifts and rotates by a count known to be nonzero. OF after a rotate is defined for a count of 1 only. */
static void shift_flags(struct refined *r, unsigned reg, bool by_one)
{
    if (reg < 4)
        r->fw = by_one ? CF | OF : CF;
    else
        r->fw = ARITH;
}

static bool grp3(struct refined *r, unsigned reg, bool wide)
{
    switch (reg) {
    case 0:
    case 1: /* TEST; /1 is the alias */
        r->enc |= wide ? I_Z : I_B;
        r->fw = ARITH;
        break;
    case 2: /* NOT */
        r->enc |= L;
        break;
    case 3: /* NEG */
        r->enc |= L;
        r->fw = ARITH;
        break;
    case 4:
    case 5: /* MUL, IMUL */
        r->fw = CF | OF;
        break;
    default: /* DIV, IDIV: flags undefined, left alone by some processors */
        break;
    }
    return true;
}

static bool grp5(struct refined *r, unsigned reg, bool mem)
{
    switch (reg) {
    case 0:
    case 1:
        r->enc |= L;
        r->fw = ARITH & ~CF;
        return true;
    case 2:
    case 4:
        r->cls = SCAN_CLASS_BRANCH;
        r->flow = reg == 2 ? SCAN_FLOW_ICALL : SCAN_FLOW_IJMP;
        return true;
    case 3:
    case 5:
        r->cls = SCAN_CLASS_FARCTL;
        r->flow = SCAN_FLOW_FAR;
        return mem;
    default:
        return reg == 6; /* PUSH */
    }
}

static bool grp6(struct refined *r, unsigned reg)
{
    static const uint8_t cls[8] = {SCAN_CLASS_SLDT, SCAN_CLASS_STR,  SCAN_CLASS_LGDT,
                                   SCAN_CLASS_LGDT, SCAN_CLASS_VERR, SCAN_CLASS_VERR};
    r->cls = cls[reg];
    r->fw = reg >= 4 ? ZF : 0;
    return reg < 6;
}

/* Register forms of 0F 01: VMX, MONITOR, SVM, CLAC, STAC and RDTSCP are named so that the monitor can trap them; XGETBV, TSX, SGX and the
 * rest do not exist on the CPU model. */
static bool grp7_reg(struct refined *r, unsigned modrm, unsigned mandatory_prefix)
{
    bool vmx = modrm >= 0xc1 && modrm <= 0xc4;
    bool monitor = modrm == 0xc8 || modrm == 0xc9;
    bool svm = modrm >= 0xd8 && modrm <= 0xdf;
    bool smap = modrm == 0xca || modrm == 0xcb, rdtscp = modrm == 0xf9;
    unsigned reg = modrm >> 3 & 7;

    if (vmx || monitor || svm || smap || rdtscp) {
        r->cls = SCAN_CLASS_VIRT;
        return svm || rdtscp || mandatory_prefix == P_NO;
    }
    r->cls = reg == 4 ? SCAN_CLASS_SMSW : SCAN_CLASS_LGDT;
    return reg == 4 || reg == 6;
}

static bool grp7(struct refined *r, unsigned modrm, unsigned mandatory_prefix)
{
    static const uint8_t cls[8] = {SCAN_CLASS_SGDT, SCAN_CLASS_SIDT,    SCAN_CLASS_LGDT, SCAN_CLASS_LGDT,
                                   SCAN_CLASS_SMSW, SCAN_CLASS_INVALID, SCAN_CLASS_LGDT, SCAN_CLASS_INVLPG};
    if (modrm >= 0xc0)
        return grp7_reg(r, modrm, mandatory_prefix);
    r->cls = cls[modrm >> 3 & 7];
    return r->cls != SCAN_CLASS_INVALID;
}

static bool grp9(struct refined *r, unsigned reg, bool mem, unsigned mandatory_prefix)
{
    if (reg == 1) { /* CMPXCHG8B */
        r->enc |= L;
        r->fw = ZF;
        return mem;
    }
    r->cls = SCAN_CLASS_VIRT; /* VMPTRLD, VMCLEAR, VMXON; VMPTRST. Register forms are RDRAND, RDSEED */
    return mem && ((reg == 6 && mandatory_prefix != P_F2) || (reg == 7 && mandatory_prefix == P_NO));
}

static bool grp15(struct refined *r, unsigned modrm, unsigned mandatory_prefix)
{
    unsigned reg = modrm >> 3 & 7;
    bool mem = modrm < 0xc0;
    static const uint8_t cls[8] = {SCAN_CLASS_FXSAVE,  SCAN_CLASS_FXSAVE,  SCAN_CLASS_SIMD,
                                   SCAN_CLASS_SIMD,    SCAN_CLASS_INVALID, SCAN_CLASS_INVALID,
                                   SCAN_CLASS_INVALID, SCAN_CLASS_PLAIN};
    if (mandatory_prefix == P_66 && (mem ? reg >= 6 : modrm == 0xf8)) { /* CLWB, CLFLUSHOPT, PCOMMIT */
        r->cls = SCAN_CLASS_VIRT;
        return true;
    }
    if (mandatory_prefix != P_NO)
        return false;
    if (!mem) /* LFENCE, MFENCE, SFENCE */
        return reg >= 5;
    r->cls = cls[reg];
    return r->cls != SCAN_CLASS_INVALID;
}

/* Register forms of D8..DF, a bit for each of C0..FF. Aliases that all processors know (FCOM2, FXCH4, FFREEP,
 * FSTP8, ...) and the 8087/80287 control instructions that became NOPs are valid; what the manual reserves is
 * not. */
static const uint64_t x87_reg[8] = {
    0xffffffffffffffff, /* D8 */
    0xffff7f33ff01ffff, /* D9: FXCH, FNOP, FSTP1, FCHS FABS, FTST FXAM, FLD const, transcendental */
    0x00000200ffffffff, /* DA: FCMOVcc, FUCOMPP */
    0x00ffff1fffffffff, /* DB: FCMOVNcc, FNENI FNDISI FNCLEX FNINIT FNSETPM, FUCOMI, FCOMI */
    0xffffffffffffffff, /* DC */
    0x0000ffffffffffff, /* DD: FFREE, FXCH4, FST, FSTP, FUCOM, FUCOMP */
    0xffffffff02ffffff, /* DE: FADDP .. FCOMP5, FCOMPP, FSUBRP .. FDIVP */
    0x00ffff01ffffffff, /* DF: FFREEP, FXCH7, FSTP8, FSTP9, FNSTSW AX, FUCOMIP, FCOMIP */
};
/* Memory forms, a bit for each reg. */
static const uint8_t x87_mem[8] = {0xff, 0xfd, 0xff, 0xaf, 0xff, 0xdf, 0xff, 0xff};

/* FCOMI and its like are not claimed to write flags: an unmasked invalid operand leaves them (SDM vol. 2,
 * FCOMI). */
static bool x87(struct refined *r, unsigned opcode, unsigned modrm)
{
    static const uint16_t fcmov[4] = {CF, ZF, CF | ZF, PF};
    unsigned reg = modrm >> 3 & 7;

    if (modrm < 0xc0) {
        if ((opcode == 0xd9 || opcode == 0xdd) && (reg == 4 || reg == 6))
            r->cls = SCAN_CLASS_FPU_ENV;
        return x87_mem[opcode & 7] >> reg & 1;
    }
    if ((opcode == 0xda || opcode == 0xdb) && reg < 4)
        r->fr = fcmov[reg];
    return x87_reg[opcode & 7] >> (modrm - 0xc0) & 1;
}

/* Completes the descriptor of an opcode that needs more than its byte. imm8 is the byte where an 8-bit
 * immediate would be. False: undefined. */
static bool refine(struct refined *r, const struct op *op, unsigned opcode, unsigned modrm, unsigned prefixes,
                   unsigned opsize, unsigned imm8)
{
    unsigned reg = modrm >> 3 & 7;
    bool mem = modrm < 0xc0;
    unsigned p = mandatory(prefixes);

    switch (op->special) {
    case X_FORM:
        return op->ok & (mem ? p : p << 4);
    case X_GRP1:
        r->fr = grp1_reads[reg];
        r->enc |= reg == 7 ? 0 : L;
        return true;
    case X_GRP1A:
        return reg == 0;
    case X_GRP2_IMM:
        r->fr = reg == 2 || reg == 3 ? CF : 0; /* RCL, RCR */
        if (imm8 & 31) /* a masked count of zero leaves all flags (SDM vol. 2, SAL/SAR/SHL/SHR) */
            shift_flags(r, reg, (imm8 & 31) == 1);
        return true;
    case X_GRP2_1:
        r->fr = reg == 2 || reg == 3 ? CF : 0;
        shift_flags(r, reg, true);
        return true;
    case X_GRP2_CL:
        r->fr = reg == 2 || reg == 3 ? CF : 0;
        return true;
    case X_GRP3:
        return grp3(r, reg, opcode & 1);
    case X_GRP4:
        r->enc |= L;
        r->fw = ARITH & ~CF;
        return reg < 2;
    case X_GRP5:
        return grp5(r, reg, mem);
    case X_GRP6:
        return grp6(r, reg);
    case X_GRP7:
        return grp7(r, modrm, p);
    case X_GRP8: /* BT, BTS, BTR, BTC */
        r->enc |= reg > 4 ? L : 0;
        return reg >= 4;
    case X_GRP9:
        return grp9(r, reg, mem, p);
    case X_GRP12:
        return !mem && (reg == 2 || reg == 4 || reg == 6) && (p & (P_NO | P_66));
    case X_GRP14:
        return !mem &&
               (((reg == 2 || reg == 6) && (p & (P_NO | P_66))) || ((reg == 3 || reg == 7) && p == P_66));
    case X_GRP15:
        return grp15(r, modrm, p);
    case X_SHD_IMM: /* a count beyond a 16-bit operand: everything undefined */
        r->fw = (imm8 & 31) && (imm8 & 31) <= 8 * opsize ? ARITH : 0;
        return true;
    case X_FROM_SREG:
        return reg < 6;
    case X_TO_SREG:
        return reg < 6 && reg != SCAN_CS;
    case X_CMPS: /* a repeat count of zero leaves the flags */
        r->fw = prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE) ? 0 : ARITH;
        return true;
    case X_CR:
        return 0x1d >> reg & 1; /* CR0, CR2, CR3, CR4 */
    case X_X87:
        return x87(r, opcode, modrm);
    default:
        return false;
    }
}

/* -- The decoder
 * ------------------------------------------------------------------------------------------------- */

static void take_prefix(struct scan_insn *o, unsigned byte)
{
    switch (byte) {
    case 0x66:
        o->prefixes |= SCAN_PFX_OPSIZE;
        return;
    case 0x67:
        o->prefixes |= SCAN_PFX_ADSIZE;
        return;
    case 0xf0:
        o->prefixes |= SCAN_PFX_LOCK;
        return;
    case 0xf2:
        o->prefixes = (uint8_t)((o->prefixes & ~SCAN_PFX_REP) | SCAN_PFX_REPNE);
        return;
    case 0xf3:
        o->prefixes = (uint8_t)((o->prefixes & ~SCAN_PFX_REPNE) | SCAN_PFX_REP);
        return;
    default: /* 26 2E 36 3E: ES CS SS DS; 64 65: FS GS */
        o->prefixes |= SCAN_PFX_SEG;
        o->seg = (uint8_t)(byte < 0x64 ? byte >> 3 & 3 : SCAN_FS + byte - 0x64);
        return;
    }
}

static enum scan_decode_status refuse(struct scan_insn *o, enum scan_decode_status status, unsigned len)
{
    o->len = (uint8_t)len;
    o->cls = SCAN_CLASS_INVALID;
    o->flow = SCAN_FLOW_STOP;
    o->has_sib = false; /* nothing that depends on bytes behind len */
    o->sib = o->disp_off = o->disp_len = o->imm_off = o->imm_len = o->imm2_len = 0;
    o->disp = o->target = 0;
    o->imm = 0;
    return status;
}

/* len is what the decoder consumed: says whether the input had it and the architecture allows it, else
 * status. */
static enum scan_decode_status settle(struct scan_insn *o, enum scan_decode_status status, unsigned len,
                                      size_t avail)
{
    if (len > avail && avail < SCAN_INSN_MAX_LEN)
        return refuse(o, SCAN_TRUNCATED, (unsigned)avail);
    if (len > SCAN_INSN_MAX_LEN)
        return refuse(o, SCAN_TOO_LONG, SCAN_INSN_MAX_LEN);
    return refuse(o, status, len);
}

static const struct op *opcode_row(const uint8_t *p, unsigned *at, unsigned *map, unsigned *opcode)
{
    unsigned n = *at, b = p[n++];

    *map = SCAN_MAP_0F;
    if (b == 0x38 || b == 0x3a) {
        *map = b == 0x38 ? SCAN_MAP_0F38 : SCAN_MAP_0F3A;
        b = p[n++];
    }
    *opcode = b;
    *at = n;
    return *map == SCAN_MAP_0F ? &map_0f[b] : *map == SCAN_MAP_0F38 ? &map_0f38[b] : &map_0f3a[b];
}

/* p has WINDOW readable bytes; avail of them are real. */
static enum scan_decode_status decode(const uint8_t *p, size_t avail, unsigned bits, struct scan_insn *o)
{
    unsigned n = 0, opcode, map = SCAN_MAP_1B, form = 0, modrm = 0, fixed_end, opsize, adsize;
    const struct op *op;

    *o = (struct scan_insn){.seg = SCAN_SEG_NONE};
    while ((op = &map_1b[opcode = p[n++]])->special == X_PREFIX) {
        take_prefix(o, opcode);
        if (n == SCAN_INSN_MAX_LEN)
            return settle(o, SCAN_TOO_LONG, SCAN_INSN_MAX_LEN + 1, avail);
    }
    opsize = (bits == 32) != ((o->prefixes & SCAN_PFX_OPSIZE) != 0) ? 4 : 2;
    adsize = (bits == 32) != ((o->prefixes & SCAN_PFX_ADSIZE) != 0) ? 4 : 2;
    if (op->special == X_ESCAPE)
        op = opcode_row(p, &n, &map, &opcode);
    o->map = (uint8_t)map;
    o->opcode = (uint8_t)opcode;
    o->op_off = (uint8_t)(n - 1);
    o->opsize = (uint8_t)opsize;
    o->adsize = (uint8_t)adsize;

    struct refined r = {op->enc, op->cls, op->flow, op->fr, op->fw};
    if (r.enc & (M | MR)) {
        modrm = p[n++];
        if (r.enc & MR) /* MOV CR/DR: the mod field is ignored (SDM vol. 2, MOV control registers) */
            modrm |= 0xc0;
        o->has_modrm = true;
        o->modrm = (uint8_t)modrm;
        if (modrm < 0xc0)
            form = (adsize == 4 ? form32 : form16)[(modrm >> 3 & 0x18) | (modrm & 7)];
    }
    fixed_end = n;
    if (form) {
        unsigned disp_len = form & 7;
        if (form & SIB) {
            o->has_sib = true;
            o->sib = p[n++];
            if ((o->sib & 7) == 5 && modrm < 0x40)
                disp_len = 4;
        }
        o->disp_off = (uint8_t)n;
        o->disp_len = (uint8_t)disp_len;
        o->disp = (int32_t)sign_extended(load32(p + n), disp_len);
        n += disp_len;
    }
    bool valid = op->special == X_NONE || refine(&r, op, opcode, modrm, o->prefixes, opsize, p[n]);
    unsigned kind = r.enc & E_IMM;

    valid = valid && (!(o->prefixes & SCAN_PFX_LOCK) || ((r.enc & L) && modrm < 0xc0)); /* SDM vol. 2, LOCK */
    if (!valid) { /* the length goes first: too long is #GP, whatever it would be (found on hardware) */
        n += kind == I_MOFFS ? adsize : imm_bytes[kind][opsize >> 2] + imm2_bytes[kind];
        return settle(o, SCAN_INVALID, n > SCAN_INSN_MAX_LEN ? n : fixed_end, avail);
    }
    if (kind == I_MOFFS) {
        o->disp_off = (uint8_t)n;
        o->disp_len = (uint8_t)adsize;
        o->disp = (int32_t)sign_extended(load32(p + n), adsize);
        n += adsize;
    } else if (kind) {
        unsigned len = imm_bytes[kind][opsize >> 2];
        uint32_t v = load32(p + n);
        o->imm_off = (uint8_t)n;
        o->imm_len = (uint8_t)len;
        o->imm2_len = imm2_bytes[kind];
        o->imm = imm_signed[kind] ? sign_extended(v, len) : zero_extended(v, len);
        n += len + o->imm2_len;
        if (kind == I_REL8 || kind == I_RELZ) {
            uint32_t target = n + o->imm;
            o->target = opsize == 2 ? (int16_t)target : (int32_t)target;
        }
    }
    if (n > avail || n > SCAN_INSN_MAX_LEN)
        return settle(o, SCAN_OK, n, avail);
    o->len = (uint8_t)n;
    o->cls = r.cls;
    o->flow = r.flow;
    o->flags_read = r.fr;
    o->flags_written = r.fw;
    return SCAN_OK;
}

enum scan_decode_status scan_decode(const uint8_t *p, size_t avail, unsigned bits, struct scan_insn *out)
{
    uint8_t padded[WINDOW] = {0};

    if (avail >= WINDOW)
        return decode(p, avail, bits, out);
    if (avail)
        memcpy(padded, p, avail);
    return decode(padded, avail, bits, out);
}
