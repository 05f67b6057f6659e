/* tests/unit/test_decode.c: the table decoder against Zydis over every opcode, ModRM byte and prefix
 * combination, against its contract at the edges of the input, and against the manual for classes, flows and
 * flags.
 *
 * Where the two decoders may differ stands in differences[], with the reason; a difference that no longer
 * occurs fails too.
 */
#include "scanner/scan.h"

#include <Zydis/Zydis.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CF = 0x001, PF = 0x004, AF = 0x010, ZF = 0x040, SF = 0x080, DF = 0x400, OF = 0x800 };
enum { ARITH = CF | PF | AF | ZF | SF | OF, TRACKED = ARITH | DF };

static const char *hex(const uint8_t *p, unsigned n)
{
    static char text[64];
    for (unsigned i = 0; i < n && i < 20; i++)
        snprintf(text + 3 * i, 4, "%02x ", p[i]);
    return text;
}

/* -- Zydis
 * -----------------------------------------------------------------------------------------------------------
 */

static ZydisDecoder decoders[2]; /* 16, 32 bits */

static void decoders_init(void)
{
    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
}

static bool zydis(const uint8_t *p, unsigned bits, ZydisDecodedInstruction *z)
{
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoders[bits == 32], NULL, p, SCAN_INSN_MAX_LEN, z));
}

/* What the CPU model has. Anything else is to be undefined. */
static bool model_has(const ZydisDecodedInstruction *z)
{
    switch (z->meta.isa_ext) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_MOVBE:
    case ZYDIS_ISA_EXT_CLFSH:
    case ZYDIS_ISA_EXT_PAUSE:
    case ZYDIS_ISA_EXT_LONGMODE: /* SYSCALL */
    case ZYDIS_ISA_EXT_VTX:      /* these three are named, to be refused by the monitor */
    case ZYDIS_ISA_EXT_SVM:
    case ZYDIS_ISA_EXT_SMX:
    case ZYDIS_ISA_EXT_SMAP: /* features that can be added (cpu.h) */
    case ZYDIS_ISA_EXT_RDTSCP:
    case ZYDIS_ISA_EXT_CLFLUSHOPT:
    case ZYDIS_ISA_EXT_CLWB:
        return true;
    case ZYDIS_ISA_EXT_MONITOR:
        return true;
    default:
        return false;
    }
}

/* -- Known differences
 * ----------------------------------------------------------------------------------------------- */

enum verdict { ZYDIS_ONLY, OURS_ONLY, OURS_BEYOND_MODEL };

struct difference {
    enum verdict verdict;
    uint8_t map, opcode_low, opcode_high;
    const char *reason;
    unsigned seen;
};

static struct difference differences[] = {
    {ZYDIS_ONLY, SCAN_MAP_0F, 0x0d, 0x0d,
     "register form of PREFETCHW: a NOP on some hosts, undefined on others", 0},
    {ZYDIS_ONLY, SCAN_MAP_0F38, 0x80, 0x81, "INVEPT, INVVPID: no guest of this model gets that far", 0},
    {OURS_ONLY, SCAN_MAP_0F, 0x1a, 0x1b, "MPX restricts forms; without MPX these are hint NOPs", 0},
    {OURS_ONLY, SCAN_MAP_0F, 0xae, 0xae, "PCOMMIT was withdrawn", 0},
    {OURS_BEYOND_MODEL, SCAN_MAP_0F, 0x0d, 0x0d, "PREFETCHW executes as a NOP", 0},
    {OURS_BEYOND_MODEL, SCAN_MAP_0F, 0x18, 0x1e, "hint NOPs that MPX, CET and CLDEMOTE have taken", 0},
    {OURS_BEYOND_MODEL, SCAN_MAP_0F, 0xbc, 0xbd, "TZCNT, LZCNT execute as BSF, BSR", 0},
};

static bool known(enum verdict verdict, const struct scan_insn *i)
{
    for (size_t k = 0; k < sizeof differences / sizeof *differences; k++) {
        struct difference *d = &differences[k];
        if (d->verdict == verdict && d->map == i->map && i->opcode >= d->opcode_low &&
            i->opcode <= d->opcode_high) {
            d->seen++;
            return true;
        }
    }
    return false;
}

/* ck_assert() notes each success in a pipe; ten million of them take longer than the decoding. */
#define EXPECT(condition, ...)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg(__VA_ARGS__);                                                                       \
    } while (0)

/* -- One comparison
 * -------------------------------------------------------------------------------------------------- */

static void compare_immediate(const uint8_t *p, const struct scan_insn *i, const ZydisDecodedInstruction *z)
{
    uint32_t mask = i->imm_len == 4 ? UINT32_MAX : (1u << 8 * i->imm_len) - 1;

    EXPECT(i->imm_len * 8 == z->raw.imm[0].size, "imm_len %u: %s", i->imm_len, hex(p, i->len));
    EXPECT(i->imm2_len * 8 == z->raw.imm[1].size, "imm2_len %u: %s", i->imm2_len, hex(p, i->len));
    if (!i->imm_len)
        return;
    EXPECT(i->imm_off == z->raw.imm[0].offset, "imm_off %u: %s", i->imm_off, hex(p, i->len));
    EXPECT((i->imm & mask) == ((uint32_t)z->raw.imm[0].value.u & mask), "imm %x: %s", i->imm, hex(p, i->len));
}

static void compare_fields(const uint8_t *p, unsigned bits, const struct scan_insn *i,
                           const ZydisDecodedInstruction *z)
{
    bool cr = i->map == SCAN_MAP_0F && i->opcode >= 0x20 && i->opcode <= 0x23;

    EXPECT(i->opcode == z->opcode, "opcode %02x: %s", i->opcode, hex(p, i->len));
    EXPECT(p[i->op_off] == i->opcode, "op_off %u: %s", i->op_off, hex(p, i->len));
    EXPECT(i->has_modrm == !!(z->attributes & ZYDIS_ATTRIB_HAS_MODRM), "has_modrm: %s", hex(p, i->len));
    EXPECT(i->has_sib == !!(z->attributes & ZYDIS_ATTRIB_HAS_SIB), "has_sib: %s", hex(p, i->len));
    if (i->has_modrm && !cr)
        EXPECT(scan_modrm_mod(i) == z->raw.modrm.mod && scan_modrm_reg(i) == z->raw.modrm.reg &&
                   scan_modrm_rm(i) == z->raw.modrm.rm,
               "modrm %02x: %s", i->modrm, hex(p, i->len));
    if (cr)
        EXPECT(!scan_has_mem(i), "MOV CR/DR names no memory: %s", hex(p, i->len));
    EXPECT(i->disp_len * 8 == z->raw.disp.size, "disp_len %u: %s", i->disp_len, hex(p, i->len));
    if (i->disp_len)
        EXPECT(i->disp_off == z->raw.disp.offset && i->disp == (int32_t)z->raw.disp.value,
               "disp %x at %u: %s", i->disp, i->disp_off, hex(p, i->len));
    EXPECT(i->adsize * 8 == z->address_width, "adsize %u: %s", i->adsize, hex(p, i->len));
    EXPECT((i->opsize == 4) == ((bits == 32) != !!(i->prefixes & SCAN_PFX_OPSIZE)), "opsize: %s",
           hex(p, i->len));
    compare_immediate(p, i, z);
}

/* A repeated CMPS or SCAS tests the ZF that it has just made, not the one it found. */
static bool tests_own_zf(const struct scan_insn *i)
{
    return i->cls == SCAN_CLASS_STRING && (i->prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE));
}

/* Written: ours must be a subset of theirs. Read: ours must be a superset. */
static void compare_flags(const uint8_t *p, const struct scan_insn *i, const ZydisDecodedInstruction *z)
{
    const ZydisAccessedFlags *f = z->cpu_flags;
    uint32_t read = f->tested & TRACKED & ~(tests_own_zf(i) ? ZF : 0u);
    uint32_t theirs = f->modified | f->set_0 | f->set_1 | f->undefined;

    EXPECT(!(i->flags_written & ~theirs & TRACKED), "written %03x, Zydis %03x: %s", i->flags_written,
           theirs & TRACKED, hex(p, i->len));
    EXPECT(!(read & ~i->flags_read), "read %03x, Zydis %03x: %s", i->flags_read, read, hex(p, i->len));
}

static void compare(const uint8_t *p, unsigned bits)
{
    ZydisDecodedInstruction z;
    struct scan_insn i;
    bool theirs = zydis(p, bits, &z), ours = scan_decode(p, SCAN_INSN_MAX_LEN, bits, &i) == SCAN_OK;

    if (!ours) {
        EXPECT(i.cls == SCAN_CLASS_INVALID && i.flow == SCAN_FLOW_STOP, "class or flow of undefined %s",
               hex(p, 15));
        if (theirs && model_has(&z))
            EXPECT(known(ZYDIS_ONLY, &i), "only Zydis knows %s: %s", ZydisMnemonicGetString(z.mnemonic),
                   hex(p, 15));
        return;
    }
    EXPECT(i.len >= 1 && i.len <= SCAN_INSN_MAX_LEN, "length %u: %s", i.len, hex(p, 15));
    if (!theirs) {
        EXPECT(known(OURS_ONLY, &i), "Zydis rejects %u-bit %s", bits, hex(p, 15));
        return;
    }
    EXPECT(i.len == z.length, "length %u, Zydis %u (%s): %s", i.len, z.length,
           ZydisMnemonicGetString(z.mnemonic), hex(p, 15));
    compare_fields(p, bits, &i, &z);
    if (!model_has(&z))
        EXPECT(known(OURS_BEYOND_MODEL, &i), "the CPU model lacks %s: %s", ZydisMnemonicGetString(z.mnemonic),
               hex(p, 15));
    else
        compare_flags(p, &i, &z);
}

/* -- Exhaustive and random
 * ------------------------------------------------------------------------------------------- */

static const char *const prefix_sets[] = {
    "",         "\x66",     "\x67",     "\xf2",     "\xf3",         "\xf0",
    "\x2e",     "\x64",     "\x66\x67", "\x66\xf2", "\x66\xf3",     "\xf2\x66",
    "\xf2\xf3", "\xf3\xf2", "\xf0\x66", "\xf0\xf2", "\x65\x67\xf0", "\x26\x36\x3e",
};

static unsigned put_opcode(uint8_t *p, unsigned n, unsigned map, unsigned opcode)
{
    if (map != SCAN_MAP_1B)
        p[n++] = 0x0f;
    if (map >= SCAN_MAP_0F38)
        p[n++] = map == SCAN_MAP_0F38 ? 0x38 : 0x3a;
    p[n++] = (uint8_t)opcode;
    return n;
}

static void compare_map(const char *prefixes, unsigned map, unsigned bits)
{
    static const uint8_t rest[] = {0x85, 0xf1, 0x82, 0x93, 0xa4, 0xb5, 0xc6, 0xd7};
    uint8_t p[32] = {0};
    unsigned start = (unsigned)strlen(prefixes);

    memcpy(p, prefixes, start);
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        unsigned n = put_opcode(p, start, map, opcode);
        for (unsigned modrm = 0; modrm < 256; modrm++) {
            p[n] = (uint8_t)modrm;
            memcpy(p + n + 1, rest, sizeof rest);
            compare(p, bits);
        }
    }
}

START_TEST(decode_every_opcode_modrm_prefix_agrees_with_zydis)
{
    decoders_init();
    for (size_t i = 0; i < sizeof prefix_sets / sizeof *prefix_sets; i++)
        for (unsigned map = SCAN_MAP_1B; map <= SCAN_MAP_0F3A; map++)
            compare_map(prefix_sets[i], map, (unsigned)_i);
    if (_i != 32)
        return;
    for (size_t i = 0; i < sizeof differences / sizeof *differences; i++)
        ck_assert_msg(differences[i].seen, "no longer a difference: %s", differences[i].reason);
}
END_TEST

static uint64_t next_random(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static void fill_random(uint8_t *p, size_t n, uint64_t *state)
{
    static const uint8_t favoured[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x0f, 0x64, 0x2e};
    for (size_t i = 0; i < n; i++) {
        uint64_t r = next_random(state);
        p[i] = (uint8_t)(i < 6 && r >> 60 < 3 ? favoured[r >> 32 & 7] : r >> 40);
    }
}

START_TEST(decode_random_bytes_agrees_with_zydis)
{
    uint64_t state = 0x5eed0001;
    uint8_t p[32];

    decoders_init();
    for (unsigned i = 0; i < 200000; i++) {
        fill_random(p, sizeof p, &state);
        compare(p, i & 1 ? 32 : 16);
    }
}
END_TEST

START_TEST(decode_every_sib_and_16_bit_form_agrees_with_zydis)
{
    decoders_init();
    for (unsigned modrm = 0; modrm < 256; modrm++)
        for (unsigned sib = 0; sib < 256; sib++) {
            uint8_t p[32] = {
                0x67, 0x81, (uint8_t)modrm, (uint8_t)sib, 0xfe, 0x81, 0x7f, 0x92, 1, 2, 3, 4, 5, 6, 7, 8};
            compare(p, 16), compare(p, 32), compare(p + 1, 16), compare(p + 1, 32);
        }
}
END_TEST

/* -- The edges of the input
 * ------------------------------------------------------------------------------------------ */

START_TEST(decode_cut_input_is_truncated_and_exact_input_is_enough)
{
    uint64_t state = 0x5eed0002;
    uint8_t p[64];
    struct scan_insn whole, part;

    for (unsigned i = 0; i < 50000; i++) {
        fill_random(p, sizeof p, &state);
        enum scan_decode_status status = scan_decode(p, sizeof p, 32, &whole);
        if (status == SCAN_TOO_LONG)
            continue;
        ck_assert_int_eq(scan_decode(p, whole.len, 32, &part), status);
        ck_assert_mem_eq(&part, &whole, sizeof part);
        for (unsigned cut = 0; cut < whole.len; cut++)
            ck_assert_msg(scan_decode(p, cut, 32, &part) == SCAN_TRUNCATED, "cut to %u: %s", cut,
                          hex(p, whole.len));
    }
}
END_TEST

START_TEST(decode_sixteen_bytes_is_too_long_fifteen_are_not)
{
    uint8_t p[32];
    struct scan_insn i;

    memset(p, 0x66, sizeof p);
    p[14] = 0x90;
    ck_assert_int_eq(scan_decode(p, 32, 32, &i), SCAN_OK);
    ck_assert_uint_eq(i.len, 15);
    p[14] = 0x66, p[15] = 0x90;
    ck_assert_int_eq(scan_decode(p, 32, 32, &i), SCAN_TOO_LONG);
    ck_assert_int_eq(scan_decode(p, 15, 32, &i), SCAN_TOO_LONG);
    ck_assert_int_eq(scan_decode(p, 14, 32, &i), SCAN_TRUNCATED);
    memset(p, 0x2e, 6); /* 6 + C7 84 sib disp32 imm32 = 17 */
    memcpy(p + 6, "\xc7\x84\x24\x01\x02\x03\x04\x05\x06\x07\x08", 11);
    ck_assert_int_eq(scan_decode(p, 32, 32, &i), SCAN_TOO_LONG);
    ck_assert_int_eq(scan_decode(p + 2, 30, 32, &i), SCAN_OK);
    ck_assert_uint_eq(i.len, 15);
}
END_TEST

START_TEST(decode_undefined_reports_length_of_what_was_fetched)
{
    struct scan_insn i;

    ck_assert_int_eq(scan_decode((const uint8_t *)"\x0f\x04\x90", 3, 32, &i), SCAN_INVALID);
    ck_assert_uint_eq(i.len, 2);
    ck_assert_int_eq(scan_decode((const uint8_t *)"\xff\xf8\x90", 3, 32, &i), SCAN_INVALID);
    ck_assert_uint_eq(i.len, 2);
    ck_assert_int_eq(scan_decode((const uint8_t *)"\xc4\xe2\x79", 3, 32, &i), SCAN_INVALID);
    ck_assert_int_eq(scan_decode((const uint8_t *)"\x62\xf1\x79", 3, 32, &i), SCAN_INVALID);
}
END_TEST

/* -- Classes, flows, flags
 * -------------------------------------------------------------------------------------------- */

struct example {
    const char *bytes; /* 16 or more follow as zeros */
    unsigned len;
    enum scan_class cls;
    enum scan_flow flow;
};
#define ROW(b, cls, flow)                                                                                    \
    {                                                                                                        \
        b, sizeof(b) - 1, SCAN_CLASS_##cls, SCAN_FLOW_##flow                                                 \
    }

static const struct example examples[] = {
    ROW("\x90", PLAIN, NEXT),
    ROW("\xf3\x90", PLAIN, NEXT),
    ROW("\xd7", PLAIN, NEXT),
    ROW("\xc8\x10\x00\x00", PLAIN, NEXT),
    ROW("\xc9", PLAIN, NEXT),
    ROW("\x0f\xae\xf0", PLAIN, NEXT),
    ROW("\x0f\x18\x00", PLAIN, NEXT),
    ROW("\xf3\x0f\x1e\xfb", PLAIN, NEXT),
    ROW("\x0f\xc7\x08", PLAIN, NEXT),
    ROW("\x0f\xae\x38", PLAIN, NEXT),
    ROW("\x0f\x38\xf0\x00", PLAIN, NEXT),
    ROW("\xf3\x0f\xbc\xc1", PLAIN, NEXT),
    ROW("\xf3\xa4", STRING, NEXT),
    ROW("\xa7", STRING, NEXT),
    ROW("\xf2\xae", STRING, NEXT),
    ROW("\x74\x00", BRANCH, JCC),
    ROW("\xe2\x00", BRANCH, JCC),
    ROW("\xe3\x00", BRANCH, JCC),
    ROW("\xeb\x00", BRANCH, JMP),
    ROW("\xc3", BRANCH, RET),
    ROW("\xc2\x04\x00", BRANCH, RET),
    ROW("\xff\xd0", BRANCH, ICALL),
    ROW("\xff\x20", BRANCH, IJMP),
    ROW("\xd8\xc0", FPU, NEXT),
    ROW("\x9b", FPU, NEXT),
    ROW("\xdf\xc0", FPU, NEXT),
    ROW("\xdc\xd0", FPU, NEXT),
    ROW("\xdb\xe0", FPU, NEXT),
    ROW("\xd9\x30", FPU_ENV, NEXT),
    ROW("\xdd\x20", FPU_ENV, NEXT),
    ROW("\xdd\x30", FPU_ENV, NEXT),
    ROW("\xd9\x20", FPU_ENV, NEXT),
    ROW("\x0f\x77", SIMD, NEXT),
    ROW("\x0f\xae\x10", SIMD, NEXT),
    ROW("\x66\x0f\x38\x00\xc1", SIMD, NEXT),
    ROW("\x0f\xae\x00", FXSAVE, NEXT),
    ROW("\x0f\xae\x08", FXSAVE, NEXT),
    ROW("\x60", LEGACY, NEXT),
    ROW("\x27", LEGACY, NEXT),
    ROW("\x62\x00", LEGACY, NEXT),
    ROW("\xd6", LEGACY, NEXT),
    ROW("\xd4\x0a", LEGACY, NEXT),
    ROW("\x82\xc0\x01", LEGACY, NEXT),
    ROW("\xcb", FARCTL, FAR),
    ROW("\xca\x04\x00", FARCTL, FAR),
    ROW("\xff\x18", FARCTL, FAR),
    ROW("\xff\x28", FARCTL, FAR),
    ROW("\xc4\x00", LOADSEG, NEXT),
    ROW("\xc5\x00", LOADSEG, NEXT),
    ROW("\x0f\xb2\x00", LOADSEG, NEXT),
    ROW("\x0f\xb4\x00", LOADSEG, NEXT),
    ROW("\x0f\xb5\x00", LOADSEG, NEXT),
    ROW("\x0f\x01\x00", SGDT, NEXT),
    ROW("\x0f\x01\x08", SIDT, NEXT),
    ROW("\x0f\x00\x00", SLDT, NEXT),
    ROW("\x0f\x00\xc8", STR, NEXT),
    ROW("\x0f\x01\x20", SMSW, NEXT),
    ROW("\x0f\x01\xe0", SMSW, NEXT),
    ROW("\x9c", PUSHF, NEXT),
    ROW("\x9d", POPF, NEXT),
    ROW("\xcf", IRET, FAR),
    ROW("\x06", PUSHSEG, NEXT),
    ROW("\x0e", PUSHSEG, NEXT),
    ROW("\x16", PUSHSEG, NEXT),
    ROW("\x1e", PUSHSEG, NEXT),
    ROW("\x0f\xa0", PUSHSEG, NEXT),
    ROW("\x0f\xa8", PUSHSEG, NEXT),
    ROW("\x07", POPSEG, NEXT),
    ROW("\x17", POPSEG, NEXT),
    ROW("\x1f", POPSEG, NEXT),
    ROW("\x0f\xa1", POPSEG, NEXT),
    ROW("\x0f\xa9", POPSEG, NEXT),
    ROW("\x8c\xd8", MOVFROMSEG, NEXT),
    ROW("\x8e\xd0", MOVTOSEG, NEXT),
    ROW("\x0f\x00\xe0", VERR, NEXT),
    ROW("\x0f\x00\xe8", VERR, NEXT),
    ROW("\x0f\x02\xc0", LAR, NEXT),
    ROW("\x0f\x03\xc0", LSL, NEXT),
    ROW("\x63\xc0", ARPL, NEXT),
    ROW("\xfa", CLI, NEXT),
    ROW("\xfb", STI, NEXT),
    ROW("\xf4", HLT, NEXT),
    ROW("\xe4\x60", IN, NEXT),
    ROW("\xed", IN, NEXT),
    ROW("\xf3\x6d", IN, NEXT),
    ROW("\xe6\x60", OUT, NEXT),
    ROW("\xee", OUT, NEXT),
    ROW("\x6e", OUT, NEXT),
    ROW("\xcd\x80", INT, FAR),
    ROW("\xcc", INT, FAR),
    ROW("\xf1", INT, FAR),
    ROW("\xce", INT, NEXT),
    ROW("\x0f\x34", SYSENTER, FAR),
    ROW("\x0f\x35", SYSENTER, FAR),
    ROW("\x0f\x05", SYSENTER, FAR),
    ROW("\x0f\x07", SYSENTER, FAR),
    ROW("\x0f\x01\x10", LGDT, NEXT),
    ROW("\x0f\x01\x18", LGDT, NEXT),
    ROW("\x0f\x00\xd0", LGDT, NEXT),
    ROW("\x0f\x00\xd8", LGDT, NEXT),
    ROW("\x0f\x01\xf0", LGDT, NEXT),
    ROW("\x0f\x06", CLTS, NEXT),
    ROW("\x0f\x20\xc0", MOVCR, NEXT),
    ROW("\x0f\x22\x18", MOVCR, NEXT),
    ROW("\x0f\x21\xf8", MOVDR, NEXT),
    ROW("\x0f\x23\xf8", MOVDR, NEXT),
    ROW("\x0f\x01\x38", INVLPG, NEXT),
    ROW("\x0f\x08", INVLPG, NEXT),
    ROW("\x0f\x09", INVLPG, NEXT),
    ROW("\x0f\x30", MSR, NEXT),
    ROW("\x0f\x32", MSR, NEXT),
    ROW("\x0f\x33", MSR, NEXT),
    ROW("\x0f\xa2", CPUID, NEXT),
    ROW("\x0f\x31", RDTSC, NEXT),
    ROW("\x0f\x01\xc1", VIRT, NEXT),
    ROW("\x0f\x01\xc8", VIRT, NEXT),
    ROW("\x0f\x01\xd8", VIRT, NEXT),
    ROW("\x0f\xaa", VIRT, NEXT),
    ROW("\x0f\x0b", UD, STOP),
    ROW("\x0f\xb9\xc0", UD, STOP),
    ROW("\x0f\xff\xc0", UD, STOP),
};

static void check_example(const struct example *e, const char *prefix, unsigned bits)
{
    uint8_t p[40] = {0};
    struct scan_insn i;
    unsigned n = (unsigned)strlen(prefix);

    memcpy(p, prefix, n);
    memcpy(p + n, e->bytes, e->len);
    enum scan_decode_status status = scan_decode(p, sizeof p, bits, &i);
    ck_assert_msg(status == SCAN_OK, "status %d: %s", status, hex(p, n + e->len));
    ck_assert_msg(i.cls == e->cls, "class %s, not %s: %s", scan_class_name(i.cls), scan_class_name(e->cls),
                  hex(p, n + e->len));
    ck_assert_msg(i.flow == e->flow, "flow %u, not %u: %s", i.flow, e->flow, hex(p, n + e->len));
}

START_TEST(decode_each_class_in_both_operand_sizes_has_its_class_and_flow)
{
    bool seen[SCAN_CLASS_COUNT] = {false};

    for (size_t k = 0; k < sizeof examples / sizeof *examples; k++) {
        const struct example *e = &examples[k];
        bool simd = e->cls == SCAN_CLASS_SIMD || e->cls == SCAN_CLASS_FXSAVE || e->cls == SCAN_CLASS_VIRT ||
                    (uint8_t)e->bytes[1] == 0xae; /* 66h means something else there */
        seen[e->cls] = true;
        check_example(e, "", 32);
        check_example(e, "", 16);
        if (!simd)
            check_example(e, "\x66", 32);
        check_example(e, "\x67", 32);
    }
    for (unsigned c = 0; c < SCAN_CLASS_COUNT; c++)
        ck_assert_msg(seen[c] || c == SCAN_CLASS_INVALID, "no example of class %s", scan_class_name(c));
}
END_TEST

START_TEST(decode_lock_is_valid_only_before_listed_instructions_with_memory)
{
    static const struct {
        const char *bytes;
        bool valid;
    } rows[] = {
        {"\xf0\x01", true},          {"\xf0\x01\xc0", false},     {"\xf0\x03\x00", false},
        {"\xf0\x39\x00", false},     {"\xf0\x83\x38\x01", false}, {"\xf0\x83\x00\x01", true},
        {"\xf0\xff\x00", true},      {"\xf0\xff\x10", false},     {"\xf0\xf7\x10", true},
        {"\xf0\xf7\x20", false},     {"\xf0\x0f\xba\x20", false}, {"\xf0\x0f\xba\x28\x01", true},
        {"\xf0\x87\x00", true},      {"\xf0\x89\x00", false},     {"\xf0\x0f\xc7\x08", true},
        {"\xf0\x0f\xb1\x08", true},  {"\xf0\x90", false},         {"\xf0\x0f\xab\x00", true},
        {"\xf0\x0f\xa3\x00", false}, {"\xf0\x0f\xc1\x00", true},  {"\xf0\x0f\x22\xc0", false},
        {"\xf0\xd8\x00", false},     {"\xf0\xd1\x00", false},     {"\xf0\xa4", false},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        uint8_t p[16] = {0};
        struct scan_insn i;
        memcpy(p, rows[k].bytes, strlen(rows[k].bytes));
        ck_assert_msg((scan_decode(p, 16, 32, &i) == SCAN_OK) == rows[k].valid, "%s", hex(p, 4));
    }
}
END_TEST

START_TEST(decode_flags_of_counts_and_repeats_are_conservative)
{
    static const struct {
        const char *bytes;
        unsigned len, read, written;
    } rows[] = {
        {"\x01\xc0", 2, 0, ARITH},
        {"\x11\xc0", 2, CF, ARITH},
        {"\x83\xd0\x01", 3, CF, ARITH},
        {"\x40", 1, 0, ARITH & ~CF},
        {"\xff\xc8", 2, 0, ARITH & ~CF},
        {"\xd3\xe0", 2, 0, 0},
        {"\xd3\xd0", 2, CF, 0},
        {"\xc1\xe0\x00", 3, 0, 0},
        {"\xc1\xe0\x20", 3, 0, 0},
        {"\xc1\xe0\x05", 3, 0, ARITH},
        {"\xd1\xe8", 2, 0, ARITH},
        {"\xc1\xc0\x05", 3, 0, CF},
        {"\xd1\xc0", 2, 0, CF | OF},
        {"\xd1\xd8", 2, CF, CF | OF},
        {"\xf7\xd0", 2, 0, 0},
        {"\xf7\xd8", 2, 0, ARITH},
        {"\xa6", 1, DF, ARITH},
        {"\xf3\xa6", 2, DF, 0},
        {"\xa4", 1, DF, 0},
        {"\x74\x00", 2, ZF, 0},
        {"\x7f\x00", 2, ZF | SF | OF, 0},
        {"\x0f\x42\xc1", 3, CF, 0},
        {"\x0f\x9a\xc0", 3, PF, 0},
        {"\x9c", 1, TRACKED, 0},
        {"\x9d", 1, 0, TRACKED},
        {"\xfc", 1, 0, DF},
        {"\xf5", 1, CF, CF},
        {"\x9e", 1, 0, ARITH & ~OF},
        {"\xf7\xf1", 2, 0, 0},
        {"\x0f\xa5\xc1", 3, 0, 0},
        {"\x0f\xa4\xc1\x04", 4, 0, ARITH},
        {"\x0f\x2f\xc1", 3, 0, ARITH},
        {"\xdb\xf1", 2, 0, 0},
        {"\xe1\x00", 2, ZF, 0},
        {"\xd6", 1, CF, 0},
        {"\x0f\xb1\x08", 3, 0, ARITH},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct scan_insn i;
        ck_assert_int_eq(scan_decode((const uint8_t *)rows[k].bytes, rows[k].len, 32, &i), SCAN_OK);
        ck_assert_msg(i.flags_read == rows[k].read && i.flags_written == rows[k].written,
                      "read %03x written %03x: %s", i.flags_read, i.flags_written,
                      hex((const uint8_t *)rows[k].bytes, rows[k].len));
    }
}
END_TEST

START_TEST(decode_immediates_extend_as_the_instruction_does)
{
    static const struct {
        const char *bytes;
        unsigned len, bits;
        uint32_t imm;
    } rows[] = {
        {"\x83\xc0\xff", 3, 32, 0xffffffff}, {"\x80\xc0\xff", 3, 32, 0xff},
        {"\x6a\x80", 2, 32, 0xffffff80},     {"\x66\x83\xc0\xff", 4, 32, 0xffffffff},
        {"\x66\x05\xff\xff", 4, 32, 0xffff}, {"\xe4\xff", 2, 32, 0xff},
        {"\xcd\x80", 2, 32, 0x80},           {"\xc2\xff\xff", 3, 32, 0xffff},
        {"\x6b\xc0\x80", 3, 32, 0xffffff80}, {"\xb8\x78\x56\x34\x92", 5, 32, 0x92345678},
        {"\xb8\x78\xf6", 3, 16, 0xf678},     {"\xc1\xe0\xff", 3, 32, 0xff},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct scan_insn i;
        ck_assert_int_eq(scan_decode((const uint8_t *)rows[k].bytes, rows[k].len, rows[k].bits, &i), SCAN_OK);
        ck_assert_msg(i.imm == rows[k].imm, "%x: %s", i.imm,
                      hex((const uint8_t *)rows[k].bytes, rows[k].len));
    }
}
END_TEST

START_TEST(decode_branch_targets_count_from_the_instruction_and_wrap)
{
    struct scan_insn i;

    scan_decode((const uint8_t *)"\xeb\xfe", 2, 32, &i);
    ck_assert_int_eq(i.target, 0);
    scan_decode((const uint8_t *)"\xe8\x00\x10\x00\x00", 5, 32, &i);
    ck_assert_int_eq(i.target, 0x1005);
    scan_decode((const uint8_t *)"\xe9\xfd\xff\xff\x7f", 5, 32, &i);
    ck_assert_int_eq(i.target, INT32_MIN + 2);
    scan_decode((const uint8_t *)"\xe9\xfe\x7f", 3, 16, &i);
    ck_assert_int_eq(i.target, (int16_t)0x8001);
    scan_decode((const uint8_t *)"\x66\xe9\x00\x10\x00\x00", 6, 16, &i);
    ck_assert_int_eq(i.target, 0x1006);
    scan_decode((const uint8_t *)"\x2e\x0f\x84\xfc\xff\xff\xff", 7, 32, &i);
    ck_assert_int_eq(i.target, 3);
}
END_TEST

START_TEST(decode_last_repeat_and_segment_prefix_win)
{
    struct scan_insn i;

    scan_decode((const uint8_t *)"\xf3\xf2\x64\x2e\xa4", 5, 32, &i);
    ck_assert_uint_eq(i.prefixes, SCAN_PFX_REPNE | SCAN_PFX_SEG);
    ck_assert_uint_eq(i.seg, SCAN_CS);
    scan_decode((const uint8_t *)"\xf2\xf3\x2e\x65\xa4", 5, 32, &i);
    ck_assert_uint_eq(i.prefixes, SCAN_PFX_REP | SCAN_PFX_SEG);
    ck_assert_uint_eq(i.seg, SCAN_GS);
    scan_decode((const uint8_t *)"\xa4", 1, 32, &i);
    ck_assert_uint_eq(i.seg, SCAN_SEG_NONE);
}
END_TEST

/* -- Classes and disassembly as text
 * ---------------------------------------------------------------------------------- */

START_TEST(class_text_out_of_range_is_harmless)
{
    ck_assert_str_eq(scan_class_name(SCAN_CLASS_PUSHF), "pushf");
    ck_assert(scan_class_sensitive(SCAN_CLASS_PUSHF));
    ck_assert(!scan_class_sensitive(SCAN_CLASS_PLAIN));
    ck_assert_str_eq(scan_class_name(SCAN_CLASS_COUNT), "?");
    ck_assert(!scan_class_sensitive((enum scan_class)1000));
}
END_TEST

START_TEST(disassemble_known_and_undecodable_bytes)
{
    char text[80];

    ck_assert_uint_eq(scan_disassemble((const uint8_t *)"\x89\xd8", 2, 32, 0, text, sizeof text), 2);
    ck_assert_str_eq(text, "mov eax, ebx");
    ck_assert_uint_eq(scan_disassemble((const uint8_t *)"\x48\x89\xd8", 3, 64, 0, text, sizeof text), 3);
    ck_assert_str_eq(text, "mov rax, rbx");
    ck_assert_uint_eq(scan_disassemble((const uint8_t *)"\xeb\x0e", 2, 32, 0x1000, text, sizeof text), 2);
    ck_assert_ptr_nonnull(strstr(text, "1010"));
    ck_assert_uint_eq(scan_disassemble((const uint8_t *)"\x0f\x04", 2, 32, 0, text, sizeof text), 0);
    ck_assert_str_eq(text, ".byte");
    ck_assert_uint_eq(scan_disassemble((const uint8_t *)"\x89", 1, 32, 0, text, sizeof text), 0);
    ck_assert_uint_eq(scan_disassemble((const uint8_t *)"\x89\xd8", 2, 32, 0, text, 0), 0);
    ck_assert_uint_eq(scan_disassemble((const uint8_t *)"\x89\xd8", 2, 32, 0, text, 4), 0);
    ck_assert_uint_eq(scan_zydis_length((const uint8_t *)"\x89\xd8", 2, 32), 2);
    ck_assert_uint_eq(scan_zydis_length((const uint8_t *)"\xb8\x00\x00\x00\x00", 5, 16), 3);
    ck_assert_uint_eq(scan_zydis_length((const uint8_t *)"\x89\xd8", 2, 64), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decode");
    TCase *oracle = tcase_create("zydis"), *edge = tcase_create("edges"), *meaning = tcase_create("meaning");

    tcase_set_timeout(oracle, 120);
    tcase_add_loop_test(oracle, decode_every_opcode_modrm_prefix_agrees_with_zydis, 16, 17);
    tcase_add_loop_test(oracle, decode_every_opcode_modrm_prefix_agrees_with_zydis, 32, 33);
    tcase_add_test(oracle, decode_random_bytes_agrees_with_zydis);
    tcase_add_test(oracle, decode_every_sib_and_16_bit_form_agrees_with_zydis);
    tcase_add_test(edge, decode_cut_input_is_truncated_and_exact_input_is_enough);
    tcase_add_test(edge, decode_sixteen_bytes_is_too_long_fifteen_are_not);
    tcase_add_test(edge, decode_undefined_reports_length_of_what_was_fetched);
    tcase_add_test(meaning, decode_each_class_in_both_operand_sizes_has_its_class_and_flow);
    tcase_add_test(meaning, decode_lock_is_valid_only_before_listed_instructions_with_memory);
    tcase_add_test(meaning, decode_flags_of_counts_and_repeats_are_conservative);
    tcase_add_test(meaning, decode_immediates_extend_as_the_instruction_does);
    tcase_add_test(meaning, decode_branch_targets_count_from_the_instruction_and_wrap);
    tcase_add_test(meaning, decode_last_repeat_and_segment_prefix_win);
    tcase_add_test(meaning, class_text_out_of_range_is_harmless);
    tcase_add_test(meaning, disassemble_known_and_undecodable_bytes);
    suite_add_tcase(suite, oracle);
    suite_add_tcase(suite, edge);
    suite_add_tcase(suite, meaning);

    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
