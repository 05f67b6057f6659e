/* tests/diff/gen.c: instructions of a form, and values and memory that bring out what it does.
 *
 * The address an operand is to have is chosen first (data, page ends, limits, read-only and missing pages,
 * the wrap at 4 GiB), then registers and displacement that give it. What lies there is chosen by what reads
 * it.
 */
#include "diff.h"

#include <string.h>

uint64_t gen_state = 1;
bool gen_traps;
struct gen_coverage gen_coverage;

uint32_t gen_random(void) /* xorshift64* */
{
    gen_state ^= gen_state >> 12;
    gen_state ^= gen_state << 25;
    gen_state ^= gen_state >> 27;
    return (uint32_t)(gen_state * 0x2545F4914F6CDD1Du >> 32);
}

static bool one_in(unsigned n)
{
    return gen_random() % n == 0;
}

#define PICK(array) array[gen_random() % (sizeof array / sizeof array[0])]

/* Integers at their ends often. */
static uint32_t value(void)
{
    static const uint32_t edge[] = {0,       1,           2,           0x1F,        0x20,        0x7F,
                                    0x80,    0xFF,        0x100,       0x7FFF,      0x8000,      0xFFFF,
                                    0x10000, 0x7FFFFFFF,  0x80000000u, 0xFFFFFFFFu, 0xFFFE,      0x99,
                                    0x9A,    0x80008000u, 0x00FF00FF,  0xFFFFFF80u, 0xFFFF8000u, 0x7F80};

    switch (gen_random() % 4) {
    case 0:
        return PICK(edge);
    case 1:
        return gen_random() & 0xFF;
    default:
        return gen_random();
    }
}

/* -- Addresses
 * ------------------------------------------------------------------------------------------------------- */

/* A linear address for an operand. */
static uint32_t target_linear(enum diff_mode mode)
{
    static const uint32_t high[] = {W_HIGH, W_TOP, W_HOT};
    uint32_t in_page = one_in(3)   ? 0x1000 - gen_random() % 20
                       : one_in(2) ? gen_random() & 0xFF0
                                   : gen_random() & 0xFFF;
    uint32_t page = gen_random() % 16 << 12;

    if (diff_mode_real(mode) || mode == DIFF_PROT16_0 || mode == DIFF_PROT16_3)
        return one_in(8) ? W_HOT + (one_in(2) ? 0 : 0x10000 - gen_random() % 20) : W_HOT + page + in_page;
    switch (gen_random() % 8) {
    case 0:
    case 1:
        return W_MIXED + page % 0xA000 + in_page;
    case 2:
        return W_TOP + (one_in(2) ? 0xFFFF - gen_random() % 20 : page + in_page); /* up to the wrap */
    case 3:
        return PICK(high) + page + in_page;
    case 4:
        return one_in(4) ? gen_random() : W_HOT + page + in_page;
    default:
        return W_HOT + page + in_page;
    }
}

/* Offsets around the limit of a segment. */
static uint32_t target_offset(enum diff_mode mode, const struct cpu_seg *s)
{
    if (s->limit != 0xFFFFFFFFu && one_in(5))
        return s->limit + 8 - gen_random() % 24;
    if (s->limit == 0xFFFFFFFFu || one_in(4))
        return target_linear(mode) - s->base;
    return target_linear(DIFF_PROT16_0) - s->base;
}

static void plant(struct diff_case *d, uint32_t at, const void *bytes, unsigned len)
{
    struct diff_plant *p = &d->plant[d->plants];
    uint32_t phys;

    if (d->plants == DIFF_PLANTS || !world_rights(d->cr0 & CPU_CR0_PG, at, &phys) || phys < W_HOT ||
        phys + len > W_HOT + W_HOT_SIZE)
        return;
    p->at = phys;
    p->len = (uint8_t)len;
    memcpy(p->bytes, bytes, len);
    d->plants++;
}

/* -- Floating point
 * ----------------------------------------------------------------------------------------------------- */

static uint32_t float_value(void)
{
    static const uint32_t special[] = {0,           0x80000000u, 1,           0x007FFFFF, 0x00800000,
                                       0x7F7FFFFF,  0x7F800000,  0xFF800000u, 0x7FC00000, 0x7F800001,
                                       0xFFC00001u, 0x3F800000,  0xBF800000u, 0x3F000000, 0x4F000000,
                                       0xCF000000u, 0x5F000000,  0x80000001u};

    return one_in(3) ? gen_random() : PICK(special);
}

static uint64_t double_value(void)
{
    static const uint64_t special[] = {0,
                                       0x8000000000000000u,
                                       1,
                                       0x000FFFFFFFFFFFFFu,
                                       0x0010000000000000u,
                                       0x7FEFFFFFFFFFFFFFu,
                                       0x7FF0000000000000u,
                                       0xFFF0000000000000u,
                                       0x7FF8000000000000u,
                                       0x7FF0000000000001u,
                                       0xFFF8000000000123u,
                                       0x3FF0000000000000u,
                                       0xBFE0000000000000u,
                                       0x41E0000000000000u,
                                       0xC1E0000000200000u,
                                       0x43E0000000000000u,
                                       0x36A0000000000000u,
                                       0x47F0000000000000u};

    return one_in(3) ? (uint64_t)gen_random() << 32 | gen_random() : PICK(special);
}

static void extended_value(uint8_t *p)
{
    static const uint16_t exponent[] = {0,      1,      0x3FFF, 0x3FFE, 0x4000, 0x401E, 0x403E, 0x7FFE,
                                        0x7FFF, 0x3F81, 0x3C01, 0x4080, 0x4400, 0x403D, 0x0000, 0x3FDF};
    static const uint64_t mantissa[] = {
        0x8000000000000000u, 0, 0xC000000000000000u, 0x8000000000000001u, 0xFFFFFFFFFFFFFFFFu,
        0x4000000000000000u, 1, 0xA000000000000000u};
    uint64_t m = one_in(3) ? (uint64_t)gen_random() << 32 | gen_random() | (one_in(8) ? 0 : 1ull << 63)
                           : PICK(mantissa);
    uint16_t e = (uint16_t)((one_in(4) ? gen_random() & 0x7FFF : PICK(exponent)) | (one_in(2) ? 0x8000 : 0));

    memcpy(p, &m, 8);
    memcpy(p + 8, &e, 2);
}

static void vector_value(uint8_t *p)
{
    unsigned kind = gen_random() % 3;

    for (unsigned n = 0; n < 16; n += 8) {
        uint64_t v = kind == 0   ? double_value()
                     : kind == 1 ? (uint64_t)float_value() << 32 | float_value()
                                 : (uint64_t)value() << 32 | value();

        memcpy(p + n, &v, 8);
    }
}

static void put(uint8_t *p, unsigned size, uint32_t v)
{
    memcpy(p, &v, size);
}

/* Control words with every rounding and precision, sometimes unmasked; flags pending or not; any top and
 * tags. */
static void random_fx(struct diff_case *d)
{
    uint16_t fcw = (uint16_t)((gen_random() & 0x1F00) | 0x40 | (one_in(3) ? gen_random() & 0x3F : 0x3F));
    uint16_t fsw = (uint16_t)(gen_random() & 0x7F00);
    uint32_t mxcsr = (gen_random() & 0xE040) | (one_in(3) ? gen_random() & 0x1F80 : 0x1F80);

    memset(d->fx, 0, sizeof d->fx);
    if (one_in(6))
        fcw = 0x37F;
    if (one_in(4))
        fsw |= gen_random() & 0x7F;
    if (fsw & ~fcw & 0x3F) {
        fsw |= 0x8080;
        if (!one_in(4))
            fsw &= 0x7F00; /* a pending error is not what most cases are about */
    }
    if (one_in(4))
        mxcsr |= gen_random() & 0x3F;
    put(d->fx, 2, fcw);
    put(d->fx + 2, 2, fsw);
    d->fx[4] = one_in(3) ? (uint8_t)gen_random() : one_in(4) ? 0 : 0xFF;
    if (!diff_mode_translated(d->mode)) { /* translated code does not keep the pointers */
        put(d->fx + 6, 2, gen_random() & 0x7FF);
        put(d->fx + 8, 4, value());
        put(d->fx + 12, 2, gen_random());
        put(d->fx + 16, 4, value());
        put(d->fx + 20, 2, gen_random());
    }
    put(d->fx + 24, 4, mxcsr);
    for (unsigned n = 0; n < 8; n++) {
        if (one_in(4)) /* MMX: integers */
            for (unsigned k = 0; k < 8; k += 4)
                put(d->fx + 32 + 16 * n + k, 4, value());
        else
            extended_value(d->fx + 32 + 16 * n);
        vector_value(d->fx + 160 + 16 * n);
    }
}

/* -- State
 * ---------------------------------------------------------------------------------------------------------------
 */

static void random_control(struct diff_case *d)
{
    uint32_t cr0 = CPU_CR0_ET | CPU_CR0_NE, cr4 = CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT;

    if (d->mode != DIFF_REAL)
        cr0 |= CPU_CR0_PE | CPU_CR0_PG | CPU_CR0_WP;
    if (one_in(8))
        cr0 ^= gen_random() & (CPU_CR0_MP | CPU_CR0_AM | (d->mode == DIFF_REAL ? 0 : CPU_CR0_WP));
    if (one_in(16))
        cr4 ^= gen_random() & (CPU_CR4_OSXMMEXCPT | CPU_CR4_DE);
    if (gen_traps) {
        static const uint32_t trap[] = {CPU_CR0_TS, CPU_CR0_EM, CPU_CR0_TS | CPU_CR0_EM, 0};
        uint32_t bits = PICK(trap);

        cr0 |= bits;
        cr4 |= CPU_CR4_TSD;
        if (!bits)
            cr4 &= ~CPU_CR4_OSFXSR;
    }
    d->cr0 = cr0;
    d->cr4 = cr4;
    d->eflags = CPU_FLAG1 | (gen_random() & (CPU_ARITH | CPU_IF | CPU_IOPL));
    if (one_in(4))
        d->eflags |= CPU_DF;
    if (one_in(8))
        d->eflags |= gen_random() & (CPU_AC | CPU_ID);
    if (one_in(16) && diff_mode_cpl(d->mode) == 3) {
        d->cr0 |= CPU_CR0_AM;
        d->eflags |= CPU_AC;
    }
    if (one_in(40) && d->insns == 1)
        d->eflags |= CPU_TF; /* never in translated code */
    if (d->mode == DIFF_V86)
        d->eflags |= CPU_VM;
    if (d->mode == DIFF_V86 && one_in(2))
        d->eflags |= CPU_IOPL;
}

static uint16_t data_selector(enum diff_mode mode)
{
    static const uint16_t seg[] = {0x40, 0x40, 0x50, 0x60, 0x70, 0x20, 0xF0, 0xB0, 0x100, 0x0C, 0x14, 0x88};
    static const uint16_t prot16[] = {0xA8, 0xA8, 0xA8, 0x40, 0x60, 0x70, 0xB0, 0xA8};

    if (diff_mode_real(mode))
        return world_selector(mode, gen_random());
    if (one_in(24))
        return 0;
    return (uint16_t)((diff_mode_bits(mode) == 16 ? PICK(prot16) : PICK(seg)) | diff_mode_cpl(mode));
}

static void random_selectors(struct diff_case *d)
{
    static const uint16_t cs[DIFF_MODE_COUNT] = {0x08, 0x1B, 0x80,          0x8B,
                                                 0x90, 0x9B, W_CODE16 >> 4, W_CODE16 >> 4};
    static const uint16_t stack32[] = {0x10, 0x38, 0x48}, stack16[] = {0xA0, 0xA0, 0x58, 0x38};
    bool flat = d->mode == DIFF_FLAT0 || d->mode == DIFF_FLAT3, user = diff_mode_cpl(d->mode) == 3;

    for (unsigned s = 0; s < 6; s++)
        d->sel[s] = flat && s != SCAN_FS && s != SCAN_GS ? (user ? 0x23 : 0x10) : data_selector(d->mode);
    d->sel[SCAN_CS] = cs[d->mode];
    if (flat || diff_mode_real(d->mode))
        return;
    /* Stack segments of CPL 0; those of CPL 3 follow them in the table, or in the case of flat data two
     * places behind. */
    uint16_t ss = diff_mode_bits(d->mode) == 32 ? PICK(stack32) : PICK(stack16);

    d->sel[SCAN_SS] = !user ? ss : (uint16_t)((ss == 0x10 ? 0x20 : ss + 8) | 3);
}

static const struct cpu_seg *segment(const struct diff_case *d, unsigned seg)
{
    static struct cpu_seg s;

    s = world_segment(d->mode, seg, d->sel[seg]);
    return &s;
}

static void random_stack(struct diff_case *d)
{
    const struct cpu_seg *ss = segment(d, SCAN_SS);
    uint32_t off =
        one_in(8) ? target_offset(d->mode, ss) : W_HOT + 0x8000 + (gen_random() & 0x3FFC) - ss->base;

    if (one_in(12))
        off = one_in(2) ? gen_random() & 0x3F : 0u - (gen_random() & 0x3F);
    d->gpr[CPU_ESP] =
        ss->attr & 0x4000 || one_in(2) ? off : (off & 0xFFFF) | (one_in(2) ? 0 : gen_random() << 16);
    if (!(ss->attr & 0x4000) && one_in(2))
        d->gpr[CPU_ESP] &= 0xFFFF;
}

/* -- Operands
 * -------------------------------------------------------------------------------------------------------------
 */

/* The memory operand's register parts, solved for the offset wanted. */
static void solve32(struct diff_case *d, const struct scan_insn *i, uint32_t want)
{
    unsigned mod = scan_modrm_mod(i), base = scan_modrm_rm(i), index = 4, scale = 0;
    uint32_t disp = i->disp_len ? (uint32_t)i->disp : 0, rest;

    if (i->has_sib) {
        base = i->sib & 7;
        index = i->sib >> 3 & 7;
        scale = i->sib >> 6;
    }
    if (base == 5 && mod == 0)
        base = 8;
    if (index == 4) {
        if (base < 8)
            d->gpr[base] = want - disp;
    } else if (base == index) {
        d->gpr[base] = (want - disp) / ((1u << scale) + 1);
    } else if (base < 8) {
        if (one_in(2))
            d->gpr[index] &= 0xFF;
        d->gpr[base] = want - disp - (d->gpr[index] << scale);
    } else {
        rest = want - disp;
        d->gpr[index] = rest >> scale;
    }
}

static void solve16(struct diff_case *d, const struct scan_insn *i, uint32_t want)
{
    static const uint8_t base[8] = {CPU_EBX, CPU_EBX, CPU_EBP, CPU_EBP, CPU_ESI, CPU_EDI, CPU_EBP, CPU_EBX};
    static const uint8_t index[8] = {CPU_ESI, CPU_EDI, CPU_ESI, CPU_EDI, 8, 8, 8, 8};
    unsigned rm = scan_modrm_rm(i);
    uint32_t disp = i->disp_len ? (uint32_t)i->disp : 0;

    if (scan_modrm_mod(i) == 0 && rm == 6)
        return;
    want -= disp;
    if (index[rm] < 8)
        want -= d->gpr[index[rm]];
    d->gpr[base[rm]] = (d->gpr[base[rm]] & 0xFFFF0000u) | (want & 0xFFFF);
}

/* Which segment and which base registers (SDM vol. 1, table 3-5). */
static unsigned operand_segment(const struct scan_insn *i)
{
    unsigned rm = scan_modrm_rm(i), mod = scan_modrm_mod(i), base = i->has_sib ? i->sib & 7u : rm;

    if (i->seg != SCAN_SEG_NONE)
        return i->seg;
    if (!i->has_modrm)
        return SCAN_DS;
    if (i->adsize == 2)
        return (rm == 2 || rm == 3 || (rm == 6 && mod)) ? SCAN_SS : SCAN_DS;
    return base == 4 || (base == 5 && mod) ? SCAN_SS : SCAN_DS;
}

static uint32_t offset_of(const struct diff_case *d, const struct scan_insn *i)
{
    unsigned mod = scan_modrm_mod(i), base = i->has_sib ? i->sib & 7u : scan_modrm_rm(i),
             index = i->sib >> 3 & 7;
    uint32_t a = i->disp_len ? (uint32_t)i->disp : 0;

    if (i->adsize == 2) /* solve16() made it so, or it does not matter */
        return a;
    if (!(base == 5 && mod == 0))
        a += d->gpr[base];
    if (i->has_sib && index != 4)
        a += d->gpr[index] << (i->sib >> 6);
    return a;
}

static void plant_environment(struct diff_case *d, uint32_t lin)
{
    uint8_t b[56] = {0};

    for (unsigned n = 0; n < sizeof b; n += 4)
        put(b + n, 4, value());
    put(b, 2, (gen_random() & 0x1F3F) | 0x40 | (one_in(2) ? 0x3F : 0));
    plant(d, lin, b, sizeof b);
}

/* An FXSAVE image that the host can load: the case's own, shuffled. */
static void plant_fx(struct diff_case *d, uint32_t lin)
{
    uint8_t head[32];

    memcpy(head, d->fx, sizeof head);
    put(head + 24, 4, gen_random() & (one_in(8) ? 0x1FFFF : 0xFFFF));
    put(head + 28, 4, gen_random());
    put(head, 2, gen_random());
    put(head + 2, 2, gen_random());
    put(head + 14, 2, 0);
    put(head + 22, 2, 0);
    plant(d, lin, head, sizeof head);
}

/* Memory contents by what reads them. */
static void plant_operand(struct diff_case *d, const struct scan_insn *i, uint32_t lin)
{
    uint8_t b[32];

    if (one_in(8))
        return;
    switch ((enum scan_class)i->cls) {
    case SCAN_CLASS_FPU_ENV:
        plant_environment(d, lin);
        return;
    case SCAN_CLASS_FXSAVE:
        plant_fx(d, lin);
        return;
    case SCAN_CLASS_FPU:
    case SCAN_CLASS_SIMD:
        if (i->map == SCAN_MAP_0F && i->opcode == 0xAE) {
            put(b, 4, gen_random() & (one_in(8) ? 0x1FFFF : 0xFFFF)); /* MXCSR */
            plant(d, lin, b, 4);
            return;
        }
        for (unsigned n = 0; n < 32; n += 16)
            vector_value(b + n);
        if (one_in(2))
            extended_value(b);
        if (i->opcode == 0xDF && one_in(2)) /* packed decimal */
            for (unsigned n = 0; n < 9; n++)
                b[n] = (uint8_t)((gen_random() % 10) << 4 | gen_random() % 10);
        plant(d, lin, b, sizeof b);
        return;
    case SCAN_CLASS_LOADSEG:
    case SCAN_CLASS_FARCTL:
        put(b, 4,
            i->cls == SCAN_CLASS_LOADSEG ? value()
            : one_in(3)                  ? gen_random() & 0xFFFF
                                         : BOX_CODE + 0x3000);
        put(b + i->opsize, 4, world_selector(d->mode, gen_random()));
        plant(d, lin, b, i->opsize + 2u);
        return;
    case SCAN_CLASS_MOVTOSEG:
    case SCAN_CLASS_VERR:
    case SCAN_CLASS_LAR:
    case SCAN_CLASS_LSL:
    case SCAN_CLASS_LGDT:
        put(b, 4, i->map == SCAN_MAP_0F && i->opcode == 1 ? value() : world_selector(d->mode, gen_random()));
        plant(d, lin, b, 4);
        return;
    default:
        break;
    }
    put(b, 4, value());
    put(b + 4, 4, value());
    if (i->map == SCAN_MAP_0F && i->opcode == 0xC7 && one_in(2)) { /* CMPXCHG8B that succeeds */
        put(b, 4, d->gpr[CPU_EAX]);
        put(b + 4, 4, d->gpr[CPU_EDX]);
    }
    if (i->map == SCAN_MAP_0F && (i->opcode & 0xFE) == 0xB0 && one_in(2))
        put(b, 4, d->gpr[CPU_EAX]);
    if (i->cls == SCAN_CLASS_LEGACY && one_in(2)) { /* BOUND that holds */
        put(b, i->opsize, 0x80000000u >> (i->opsize == 2 ? 16 : 0));
        put(b + i->opsize, i->opsize, 0x7FFFFFFF >> (i->opsize == 2 ? 16 : 0));
    }
    if (i->map == SCAN_MAP_1B && i->opcode == 0xFF && one_in(2)) /* near indirect targets */
        put(b, 4, d->target ? d->target : BOX_CODE + 0x3000);
    plant(d, lin, b, 8);
}

static void memory_operand(struct diff_case *d, const struct scan_insn *i)
{
    unsigned seg = operand_segment(i);
    const struct cpu_seg s = *segment(d, seg);
    uint32_t want = target_offset(d->mode, &s),
             align = i->cls == SCAN_CLASS_SIMD || i->cls == SCAN_CLASS_FXSAVE ? 15 : 3;

    if (!one_in(4))
        want &= ~align;
    if (i->has_modrm && i->adsize == 4)
        solve32(d, i, want);
    else if (i->has_modrm)
        solve16(d, i, want);
    plant_operand(d, i, s.base + (i->adsize == 2 ? want & 0xFFFF : offset_of(d, i)));
}

/* Frames for returns: what stands on the stack. */
static void plant_stack(struct diff_case *d, const struct scan_insn *i)
{
    const struct cpu_seg ss = *segment(d, SCAN_SS);
    uint32_t sp = ss.attr & 0x4000 ? d->gpr[CPU_ESP] : d->gpr[CPU_ESP] & 0xFFFF, v[12];
    uint8_t b[48];
    bool real = diff_mode_real(d->mode);

    for (unsigned n = 0; n < 12; n++)
        v[n] = value();
    if (i->cls == SCAN_CLASS_FARCTL || i->cls == SCAN_CLASS_IRET || i->flow == SCAN_FLOW_RET) {
        v[0] = d->target && one_in(2) ? d->target : one_in(4) ? gen_random() : gen_random() & 0x8FFF;
        if (!real && diff_mode_bits(d->mode) == 32 && one_in(2))
            v[0] = BOX_CODE + 0x3000;
        v[1] = one_in(3)   ? world_selector(d->mode, gen_random())
               : real      ? W_CODE16 >> 4
               : one_in(2) ? 0x1B
                           : d->sel[SCAN_CS];
        v[2] = gen_random() & (one_in(3) ? 0x3FFFFF : 0x3F0EFF & ~(CPU_VM | CPU_TF | CPU_NT));
        if (i->cls == SCAN_CLASS_FARCTL && !real) {
            v[2] = W_HOT + 0x4000;
            v[3] = one_in(3) ? world_selector(d->mode, gen_random()) : 0x23;
            if (i->imm_len)
                for (unsigned n = 0; n < 2 && (i->imm & 0xFFFF) <= 24 && !(i->imm & 3); n++)
                    v[2 + (i->imm & 0xFFFF) / 4 + n] = n ? 0x23 : W_HOT + 0x4000;
        } else if (i->cls == SCAN_CLASS_IRET && !real) {
            v[3] = W_HOT + 0x4000;
            v[4] = one_in(3) ? world_selector(d->mode, gen_random()) : 0x23;
        }
    } else if (i->cls == SCAN_CLASS_POPSEG) {
        v[0] = world_selector(d->mode, gen_random());
    } else if (i->cls == SCAN_CLASS_POPF) {
        v[0] = gen_random() & (one_in(2) ? 0xFFFFFFFF : 0x254ED5);
    }
    for (unsigned n = 0; n < 12; n++)
        put(b + n * i->opsize, i->opsize, v[n]);
    plant(d, ss.base + sp, b, 12u * i->opsize);
}

static uint32_t port_number(void)
{
    static const uint16_t quiet[] = {0xE0,  0xE4,  0xF8,   0xFC,   0x300, 0x310,
                                     0x3E0, 0x400, 0x1234, 0xFFFE, 0x3F0, 0x2E0};

    return PICK(quiet);
}

/* Registers that instructions use without naming them. */
static void implicit_registers(struct diff_case *d, const struct scan_insn *i)
{
    const unsigned src = i->seg == SCAN_SEG_NONE ? SCAN_DS : i->seg;
    bool ins = i->map == SCAN_MAP_1B && i->opcode >= 0x6C && i->opcode <= 0x6F;

    if (i->cls == SCAN_CLASS_STRING || ins || (i->map == SCAN_MAP_0F && i->opcode == 0xF7)) {
        d->gpr[CPU_ESI] = target_offset(d->mode, segment(d, src));
        d->gpr[CPU_EDI] = target_offset(d->mode, segment(d, i->opcode == 0xF7 ? src : SCAN_ES));
        if (one_in(6))
            d->gpr[CPU_EDI] = d->gpr[CPU_ESI] + gen_random() % 16;
        d->gpr[CPU_ECX] = one_in(8) ? 0 : one_in(16) ? gen_random() & 0x7FF : gen_random() & 15;
        if (i->adsize == 2 && one_in(2))
            d->gpr[CPU_ECX] |= gen_random() << 16;
        if (one_in(3) && i->cls == SCAN_CLASS_STRING) { /* runs of equal bytes, so that comparisons go on */
            uint8_t b[32];

            memset(b, (int)(d->gpr[CPU_EAX] & 0xFF), sizeof b);
            d->gpr[CPU_EAX] = (d->gpr[CPU_EAX] & 0xFF) * 0x01010101u;
            plant(d, segment(d, src)->base + d->gpr[CPU_ESI], b, sizeof b);
            plant(d, segment(d, SCAN_ES)->base + d->gpr[CPU_EDI], b, sizeof b);
        }
    }
    if (i->map == SCAN_MAP_1B && i->opcode == 0xD7)
        d->gpr[CPU_EBX] = target_offset(d->mode, segment(d, src));
    if (i->map == SCAN_MAP_1B && (i->opcode == 0xC8 || i->opcode == 0xC9)) {
        const struct cpu_seg *ss = segment(d, SCAN_SS);

        d->gpr[CPU_EBP] =
            one_in(5) ? target_offset(d->mode, ss) : W_HOT + 0xC000 + (gen_random() & 0xFFC) - ss->base;
    }
    if (i->cls == SCAN_CLASS_IN || i->cls == SCAN_CLASS_OUT)
        d->gpr[CPU_EDX] = port_number() | (one_in(2) ? gen_random() << 16 : 0);
    if (i->cls == SCAN_CLASS_MSR)
        d->gpr[CPU_ECX] = one_in(4) ? 0x12345678 : 0x174 + gen_random() % 3;
    if ((i->map == SCAN_MAP_1B && (i->opcode & 0xFE) == 0xF6 && scan_modrm_reg(i) >= 6) && one_in(2)) {
        d->gpr[CPU_EDX] = one_in(2) ? 0 : (uint32_t)((int32_t)d->gpr[CPU_EAX] >> 31); /* quotients that fit */
        if (!(i->opcode & 1))
            d->gpr[CPU_EAX] &= 0x80FF;
    }
    if (i->map == SCAN_MAP_1B && (i->opcode & 0xFC) == 0xE0)
        d->gpr[CPU_ECX] = one_in(2) ? gen_random() % 3 | (one_in(3) ? 0x10000 : 0) : d->gpr[CPU_ECX];
    /* Bit strings reach as far as the register says: mostly not far. */
    if (i->map == SCAN_MAP_0F && scan_has_mem(i) && (i->opcode & 0xC7) == 0x83 && i->opcode >= 0xA3 &&
        !one_in(6))
        d->gpr[scan_modrm_reg(i)] = (uint32_t)((int32_t)(gen_random() << 20) >> 20);
}

/* Register operands that are more than numbers. */
static void special_registers(struct diff_case *d, const struct scan_insn *i)
{
    bool reg = i->has_modrm && !scan_has_mem(i);
    uint32_t *rm = &d->gpr[scan_modrm_rm(i)];

    switch ((enum scan_class)i->cls) {
    case SCAN_CLASS_MOVTOSEG:
    case SCAN_CLASS_VERR:
    case SCAN_CLASS_LAR:
    case SCAN_CLASS_LSL:
    case SCAN_CLASS_ARPL:
        if (reg)
            *rm = (*rm & 0xFFFF0000u) | world_selector(d->mode, gen_random());
        break;
    case SCAN_CLASS_LGDT:
        if (reg && i->opcode == 0)
            *rm = (*rm & 0xFFFF0000u) |
                  (one_in(3) ? one_in(2) ? 0xF8 : 0x30 : world_selector(d->mode, gen_random()));
        break;
    case SCAN_CLASS_MOVCR: {
        uint32_t *const value_of = rm, bits = gen_random() & gen_random();

        if (i->opcode == 0x22 && scan_modrm_reg(i) == 0)
            *value_of = one_in(4) ? gen_random()
                                  : d->cr0 ^ (bits & (CPU_CR0_TS | CPU_CR0_EM | CPU_CR0_MP | CPU_CR0_AM |
                                                      CPU_CR0_WP | CPU_CR0_NE));
        else if (i->opcode == 0x22 && scan_modrm_reg(i) == 4)
            *value_of = one_in(4) ? gen_random() & ~CPU_CR4_PAE
                                  : d->cr4 ^ (bits & (CPU_CR4_TSD | CPU_CR4_DE | CPU_CR4_OSFXSR |
                                                      CPU_CR4_OSXMMEXCPT | CPU_CR4_PGE));
        break;
    }
    case SCAN_CLASS_BRANCH:
        if (reg && i->map == SCAN_MAP_1B && i->opcode == 0xFF && !one_in(3))
            *rm = d->target && one_in(2) ? d->target : BOX_CODE + 0x3000;
        break;
    default:
        break;
    }
}

/* -- Code
 * -----------------------------------------------------------------------------------------------------------------
 */

static void count_operand(const struct scan_insn *i)
{
    if (scan_has_mem(i) && i->adsize == 2)
        gen_coverage.modrm16[i->modrm]++;
    else if (scan_has_mem(i))
        gen_coverage.modrm32[i->modrm]++;
    if (i->has_sib)
        gen_coverage.sib[scan_modrm_mod(i)][i->sib]++;
    gen_coverage.segment[i->seg == SCAN_SEG_NONE ? 6 : i->seg]++;
    if (!i->has_modrm && i->disp_len)
        gen_coverage.moffs++;
    gen_coverage.imm[i->imm_len]++;
}

static void immediate(struct diff_case *d, const struct scan_insn *i, uint8_t *p)
{
    uint32_t v = i->imm_len == 1 && one_in(2) ? gen_random() : value();

    if (!i->imm_len)
        return;
    if (i->flow == SCAN_FLOW_JCC || i->flow == SCAN_FLOW_JMP || i->flow == SCAN_FLOW_CALL) { /* relative */
        int32_t rel = (int32_t)(gen_random() % 100) + 3;

        if (i->imm_len > 1 && one_in(3))
            rel = (int32_t)(one_in(2) ? gen_random() : 0x3000 + (gen_random() & 0xFF));
        if (i->imm_len == 1 && one_in(4))
            rel = 40 + (int32_t)(gen_random() & 63);
        v = (uint32_t)rel;
    }
    if (i->cls == SCAN_CLASS_IN || i->cls == SCAN_CLASS_OUT)
        v = one_in(2) ? 0xE0 + (gen_random() & 4) : 0xF8 + (gen_random() & 4);
    if (i->cls == SCAN_CLASS_INT)
        v = one_in(2) ? 0x20 + gen_random() % 12 : one_in(2) ? 0x80 : gen_random();
    if (i->map == SCAN_MAP_1B && (i->opcode == 0xC2 || i->opcode == 0xCA))
        v = one_in(4) ? gen_random() : gen_random() & 0x1C;
    if (i->imm2_len == 2) /* far pointer */
        v = one_in(3) ? gen_random() & 0x8FFF : BOX_CODE + 0x3000;
    if (i->imm2_len == 1) /* ENTER */
        v = one_in(6) ? gen_random() : gen_random() & 0x3C;
    memcpy(p + i->imm_off, &v, i->imm_len);
    if (i->imm2_len == 2) {
        uint16_t sel =
            one_in(3) && !diff_mode_real(d->mode) ? d->sel[SCAN_CS] : world_selector(d->mode, gen_random());

        memcpy(p + i->imm_off + i->imm_len, &sel, 2);
    }
}

static uint32_t displacement(enum diff_mode mode)
{
    switch (gen_random() % 5) {
    case 0:
        return value();
    case 1:
        return target_linear(mode);
    case 2:
        return 0u - (gen_random() & 0xFFFF);
    default:
        return gen_random() & 0xFFFF;
    }
}

static unsigned put_opcode(const struct diff_form *f, uint8_t *p)
{
    unsigned n = 0;

    if (f->map != SCAN_MAP_1B)
        p[n++] = 0x0F;
    if (f->map == SCAN_MAP_0F38 || f->map == SCAN_MAP_0F3A)
        p[n++] = f->map == SCAN_MAP_0F38 ? 0x38 : 0x3A;
    p[n++] = f->opcode;
    return n;
}

/* Prefixes in any order, opcode, ModRM, SIB, displacement; then whatever the scanner says follows. */
static unsigned encode(const struct diff_form *f, enum diff_mode mode, uint8_t *p, struct scan_insn *i)
{
    static const uint8_t overrides[6] = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65};
    uint8_t prefix[5];
    unsigned count = 0, n = 0, bits = diff_mode_bits(mode);
    uint32_t disp = displacement(mode);

    if (f->lock)
        prefix[count++] = 0xF0;
    if (f->prefix)
        prefix[count++] = f->prefix;
    if (f->prefix && f->prefix != 0x66 && one_in(8))
        prefix[count++] = 0x66;
    if (one_in(bits == 16 ? 4 : 8))
        prefix[count++] = 0x67;
    if (one_in(5))
        prefix[count++] = PICK(overrides);
    for (unsigned k = count; k > 1; k--) { /* shuffle */
        unsigned j = gen_random() % k;
        uint8_t t = prefix[k - 1];

        prefix[k - 1] = prefix[j];
        prefix[j] = t;
    }
    for (unsigned k = 0; k < 16; k++)
        p[k] = (uint8_t)gen_random();
    memcpy(p, prefix, count);
    n = count;
    n += put_opcode(f, p + n);
    if (f->has_modrm) {
        unsigned mod = f->mem ? gen_random() % 3 : 3;

        p[n++] = f->whole_modrm
                     ? f->modrm
                     : (uint8_t)(mod << 6 | f->modrm << 3 | (f->mem && one_in(4) ? 4 : gen_random() & 7));
        if (f->mem && (p[n - 1] & 7) == 4)
            memcpy(p + n + 1, &disp, 4);
        else if (f->mem)
            memcpy(p + n, &disp, 4);
    } else if (f->map == SCAN_MAP_1B && (f->opcode & 0xFC) == 0xA0) {
        memcpy(p + n, &disp, 4);
    }
    if (scan_decode(p, 15, bits, i) != SCAN_OK || i->map != f->map || i->opcode != f->opcode)
        return 0;
    return i->len;
}

unsigned gen_at(const struct diff_form *f, uint32_t address, uint8_t p[16], struct scan_insn *i)
{
    unsigned n = 0;

    for (unsigned k = 0; k < 16; k++)
        p[k] = (uint8_t)gen_random();
    if (f->lock)
        p[n++] = 0xF0;
    if (f->prefix)
        p[n++] = f->prefix;
    n += put_opcode(f, p + n);
    if (f->has_modrm && f->mem)
        p[n++] = (uint8_t)(f->modrm << 3 | 5);
    else if (f->has_modrm)
        p[n++] = f->whole_modrm ? f->modrm : (uint8_t)(0xC0 | f->modrm << 3 | (gen_random() & 7));
    if (f->mem || (f->map == SCAN_MAP_1B && (f->opcode & 0xFC) == 0xA0))
        memcpy(p + n, &address, 4);
    return scan_decode(p, 15, 32, i) == SCAN_OK && i->map == f->map && i->opcode == f->opcode ? i->len : 0;
}

void gen_values(struct diff_case *d)
{
    struct scan_insn i;
    uint8_t padded[16] = {0};

    memcpy(padded, d->code, d->len < 16 ? d->len : 16);
    d->plants = 0;
    random_control(d);
    random_fx(d);
    random_selectors(d);
    for (unsigned r = 0; r < 8; r++)
        d->gpr[r] = value();
    random_stack(d);
    if (d->insns != 1 || scan_decode(padded, 15, diff_mode_bits(d->mode), &i) != SCAN_OK)
        return;
    implicit_registers(d, &i);
    special_registers(d, &i);
    if (scan_has_mem(&i) || (!i.has_modrm && i.disp_len))
        memory_operand(d, &i);
    if (i.cls == SCAN_CLASS_FARCTL || i.cls == SCAN_CLASS_IRET || i.flow == SCAN_FLOW_RET ||
        i.cls == SCAN_CLASS_POPSEG || i.cls == SCAN_CLASS_POPF ||
        (i.map == SCAN_MAP_1B && ((i.opcode >= 0x58 && i.opcode <= 0x61) || i.opcode == 0x8F)))
        plant_stack(d, &i);
}

/* Where a direct branch of the case goes, if that is inside the code pages: a HLT must stand there. */
static void find_target(struct diff_case *d, const struct scan_insn *i)
{
    uint32_t to = d->eip + (uint32_t)i->target;

    d->target = 0;
    if (i->flow == SCAN_FLOW_JCC || i->flow == SCAN_FLOW_JMP || i->flow == SCAN_FLOW_CALL) {
        if (i->opsize == 2)
            to &= 0xFFFF;
        if (to - d->eip >= d->len && to - d->eip < 200)
            d->target = to;
    } else if (i->cls == SCAN_CLASS_BRANCH) {
        d->target = d->eip + 40;
    }
}

bool gen_case(struct diff_case *d, enum diff_mode mode, const struct diff_form *f)
{
    struct scan_insn i;
    uint8_t p[16];
    unsigned len = 0;

    for (unsigned n = 0; n < 8 && !len; n++)
        len = encode(f, mode, p, &i);
    if (!len)
        return false;
    d->mode = mode;
    random_control(d);
    random_selectors(d);
    immediate(d, &i, p);
    if (scan_decode(p, 15, diff_mode_bits(mode), &i) != SCAN_OK)
        return false;
    if ((i.flow == SCAN_FLOW_JCC || i.flow == SCAN_FLOW_JMP || i.flow == SCAN_FLOW_CALL) && i.target == 0)
        return false; /* to itself, for ever */
    count_operand(&i);
    d->insns = 1;
    d->len = i.len;
    memcpy(d->code, p, i.len);
    find_target(d, &i);
    gen_values(d);
    return true;
}

/* No instruction: undefined opcodes, LOCK where it must not be, too many prefixes; or one cut off by the end
 * of its page or segment. The latter need a place of their own: d->eip is set. */
bool gen_bad(struct diff_case *d, enum diff_mode mode)
{
    static const uint8_t first[] = {0x0F, 0xF0, 0x66, 0xF2, 0xF3, 0xC4, 0xC5,
                                    0x62, 0x8F, 0xFF, 0xFE, 0xD9, 0xDB, 0xC6};
    struct scan_insn i;
    enum scan_decode_status s;

    d->mode = mode;
    d->insns = 1;
    d->target = 0;
    do {
        unsigned n = one_in(8) ? 14 : 0;

        memset(d->code, 0x66, n);
        for (; n < 16; n++)
            d->code[n] = (uint8_t)gen_random();
        if (d->code[0] != 0x66 || one_in(2))
            d->code[0] = PICK(first);
        s = scan_decode(d->code, 15, diff_mode_bits(mode), &i);
    } while (s != SCAN_INVALID && s != SCAN_TOO_LONG);
    d->len = 16;
    gen_values(d);
    return true;
}

bool gen_cut(struct diff_case *d, enum diff_mode mode)
{
    static const uint32_t end[DIFF_MODE_COUNT] = {0x105000, 0x105000, 0x104000, 0x104000,
                                                  0x9000,   0x9000,   0,        0};
    unsigned keep;

    if (!end[mode] || !gen_case(d, mode, &forms[gen_random() % form_count]) || d->len < 2)
        return false;
    keep = one_in(4) ? d->len : 1 + gen_random() % d->len; /* with room for it, at times */
    d->eip = end[mode] - keep;
    d->len = (uint8_t)keep;
    d->target = 0;
    return true;
}

/* Instructions that go on to the next one and leave what they find in order. */
static bool streamable(const struct diff_form *f)
{
    if (f->no_reference)
        return false;
    switch ((enum scan_class)f->cls) {
    case SCAN_CLASS_PLAIN:
    case SCAN_CLASS_STRING:
    case SCAN_CLASS_FPU:
    case SCAN_CLASS_SIMD:
    case SCAN_CLASS_PUSHF:
    case SCAN_CLASS_PUSHSEG:
    case SCAN_CLASS_MOVFROMSEG:
        return true;
    default:
        return false;
    }
}

/* What stands around a copy that goes down: the translator treats it as a whole. */
static unsigned copy_piece(uint8_t p[16], unsigned *insns)
{
    static const char *const piece[] = {"\xFD", "\xFD\xF3\xA4", "\xFD\xF3\xA5", "\xF3\xA4", "\x73\x01\xA4", "\x74\x02\x66\xA5", "\xFD\xF3\xA5\xFC",
                                        "\xFD\xF2\xA4\xFC", "\xFC"};
    static const uint8_t count[] = {1, 2, 2, 1, 2, 2, 3, 3, 1};
    unsigned n = gen_random() % (sizeof piece / sizeof piece[0]);

    *insns = count[n];
    memcpy(p, piece[n], strlen(piece[n]));
    return (unsigned)strlen(piece[n]);
}

void gen_stream(struct diff_case *d, enum diff_mode mode, unsigned insns)
{
    bool copies = one_in(4);

    d->mode = mode;
    d->len = d->insns = 0;
    d->target = 0;
    while (d->insns < insns) {
        const struct diff_form *f = &forms[gen_random() % form_count];
        struct scan_insn i;
        uint8_t p[16];
        unsigned count = 1, len = copies && one_in(2) ? copy_piece(p, &count) : streamable(f) ? encode(f, mode, p, &i) : 0;

        if (!len || d->len + len > DIFF_CODE_MAX)
            continue;
        memcpy(d->code + d->len, p, len);
        d->len = (uint8_t)(d->len + len);
        d->insns += count;
    }
    gen_values(d);
    for (unsigned r = 0; r < 8; r++) /* pointers, mostly */
        if (r != CPU_ESP && !one_in(3))
            d->gpr[r] = target_linear(mode);
    d->gpr[CPU_ECX] &= 63;
}
