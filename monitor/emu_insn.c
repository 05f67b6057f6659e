/* monitor/emu_insn.c: integer instructions, stack and near branches.
 *
 * Arithmetic is done by the host's own instruction, with the guest's flags loaded before and stored after
 * (LAHF/SETO), so that results and flags, also those the manual leaves undefined, are what translated code
 * gets on the same host. The flags travel in AX: AH as LAHF has them, AL the overflow flag.
 */
#include "monitor/emu_internal.h"

#define ALWAYS static inline __attribute__((always_inline))
#define LOW5   (CPU_CF | CPU_PF | CPU_AF | CPU_ZF | CPU_SF)

ALWAYS uint32_t flags_in(const struct cpu *c)
{
    return (c->arith & LOW5) << 8 | (c->arith >> 11 & 1);
}
ALWAYS void flags_out(struct cpu *c, uint32_t ax)
{
    c->arith = (c->arith & CPU_DF) | (ax >> 8 & LOW5) | (ax & 1) << 11;
}

#define GET "addb $0x7f,%%al\n\tsahf\n\t"
#define PUT "\n\tlahf\n\tseto %%al"

/* -- The host's instructions, by size ---------------------------------------------------------------- */

#define ALU_FN(name, text, T, suffix)                                                                        \
    ALWAYS uint32_t name##_##suffix(struct cpu *c, uint32_t a0, uint32_t b0)                                 \
    {                                                                                                        \
        uint32_t ax = 0;                                                                                     \
        T a = (T)a0, b = (T)b0;                                                                              \
        __asm__(text " %[b],%[a]" PUT : [a] "+&r"(a), "+&a"(ax) : [b] "r"(b) : "cc");                        \
        flags_out(c, ax);                                                                                    \
        return a;                                                                                            \
    }
#define ALUC_FN(name, text, T, suffix)                                                                       \
    ALWAYS uint32_t name##_##suffix(struct cpu *c, uint32_t a0, uint32_t b0)                                 \
    {                                                                                                        \
        uint32_t ax = 0;                                                                                     \
        T a = (T)a0, b = (T)b0;                                                                              \
        __asm__("btl $0,%[f]\n\t" text " %[b],%[a]" PUT                                                      \
                : [a] "+&r"(a), "+&a"(ax)                                                                    \
                : [b] "r"(b), [f] "r"(c->arith)                                                              \
                : "cc");                                                                                     \
        flags_out(c, ax);                                                                                    \
        return a;                                                                                            \
    }
#define UN_FN(name, text, T, suffix)                                                                         \
    ALWAYS uint32_t name##_##suffix(struct cpu *c, uint32_t a0)                                              \
    {                                                                                                        \
        uint32_t ax = 0;                                                                                     \
        T a = (T)a0;                                                                                         \
        __asm__("btl $0,%[f]\n\t" text " %[a]" PUT : [a] "+&r"(a), "+&a"(ax) : [f] "r"(c->arith) : "cc");    \
        flags_out(c, ax);                                                                                    \
        return a;                                                                                            \
    }
#define SH_FN(name, text, T, suffix)                                                                         \
    ALWAYS uint32_t name##_##suffix(struct cpu *c, uint32_t a0, uint32_t n)                                  \
    {                                                                                                        \
        uint32_t ax = flags_in(c);                                                                           \
        T a = (T)a0;                                                                                         \
        __asm__(GET text " %%cl,%[a]" PUT : [a] "+&r"(a), "+&a"(ax) : "c"(n) : "cc");                        \
        flags_out(c, ax);                                                                                    \
        return a;                                                                                            \
    }
/* Destination and source, all flags in and out: SHLD/SHRD (count in CL), BT and its kin, BSF/BSR, IMUL. */
#define DS_FN(name, text, T, suffix)                                                                         \
    ALWAYS uint32_t name##_##suffix(struct cpu *c, uint32_t a0, uint32_t b0)                                 \
    {                                                                                                        \
        uint32_t ax = flags_in(c);                                                                           \
        T a = (T)a0, b = (T)b0;                                                                              \
        __asm__(GET text " %[b],%[a]" PUT : [a] "+&r"(a), "+&a"(ax) : [b] "r"(b) : "cc");                    \
        flags_out(c, ax);                                                                                    \
        return a;                                                                                            \
    }
#define SHD_FN(name, text, T, suffix)                                                                        \
    ALWAYS uint32_t name##_##suffix(struct cpu *c, uint32_t a0, uint32_t b0, uint32_t n)                     \
    {                                                                                                        \
        uint32_t ax = flags_in(c);                                                                           \
        T a = (T)a0, b = (T)b0;                                                                              \
        __asm__(GET text " %%cl,%[b],%[a]" PUT : [a] "+&r"(a), "+&a"(ax) : [b] "r"(b), "c"(n) : "cc");       \
        flags_out(c, ax);                                                                                    \
        return a;                                                                                            \
    }
#define ALL_SIZES(M, name, text)                                                                             \
    M(name, text "b", uint8_t, 1) M(name, text "w", uint16_t, 2) M(name, text "l", uint32_t, 4)
#define WIDE_SIZES(M, name, text) M(name, text "w", uint16_t, 2) M(name, text "l", uint32_t, 4)

ALL_SIZES(ALU_FN, add, "add")
ALL_SIZES(ALU_FN, or, "or")
ALL_SIZES(ALUC_FN, adc, "adc")
ALL_SIZES(ALUC_FN, sbb, "sbb")
ALL_SIZES(ALU_FN, and, "and")
ALL_SIZES(ALU_FN, sub, "sub")
ALL_SIZES(ALU_FN, xor, "xor")
ALL_SIZES(UN_FN, inc, "inc")
ALL_SIZES(UN_FN, dec, "dec")
ALL_SIZES(UN_FN, neg, "neg")
ALL_SIZES(SH_FN, rol, "rol")
ALL_SIZES(SH_FN, ror, "ror")
ALL_SIZES(SH_FN, rcl, "rcl")
ALL_SIZES(SH_FN, rcr, "rcr")
ALL_SIZES(SH_FN, shl, "shl")
ALL_SIZES(SH_FN, shr, "shr")
ALL_SIZES(SH_FN, sar, "sar")
WIDE_SIZES(DS_FN, bt, "bt")
WIDE_SIZES(DS_FN, bts, "bts")
WIDE_SIZES(DS_FN, btr, "btr")
WIDE_SIZES(DS_FN, btc, "btc")
WIDE_SIZES(DS_FN, bsf, "bsf")
WIDE_SIZES(DS_FN, bsr, "bsr")
WIDE_SIZES(DS_FN, imul, "imul")
WIDE_SIZES(SHD_FN, shld, "shld")
WIDE_SIZES(SHD_FN, shrd, "shrd")

#define BY_SIZE(name, size, ...)                                                                             \
    ((size) == 4 ? name##_4(__VA_ARGS__) : (size) == 2 ? name##_2(__VA_ARGS__) : name##_1(__VA_ARGS__))
#define BY_WIDE(name, size, ...) ((size) == 4 ? name##_4(__VA_ARGS__) : name##_2(__VA_ARGS__))

ALWAYS uint32_t alu(struct cpu *c, unsigned op, unsigned size, uint32_t a, uint32_t b)
{
    switch (op) {
    case 0:
        return BY_SIZE(add, size, c, a, b);
    case 1:
        return BY_SIZE(or, size, c, a, b);
    case 2:
        return BY_SIZE(adc, size, c, a, b);
    case 3:
        return BY_SIZE(sbb, size, c, a, b);
    case 4:
        return BY_SIZE(and, size, c, a, b);
    case 5:
        return BY_SIZE(sub, size, c, a, b);
    case 6:
        return BY_SIZE(xor, size, c, a, b);
    default:
        (void)BY_SIZE(sub, size, c, a, b);
        return a;
    }
}

/* -- ADD OR ADC SBB AND SUB XOR CMP ------------------------------------------------------------------ */

ALWAYS void alu_to_rm(struct emu *e, const struct dinsn *d, unsigned op, unsigned size, uint32_t b)
{
    struct cpu *c = e->c;
    if (!d->mem) {
        uint32_t v = alu(c, op, size, reg_get(c, d->rm, size), b);
        if (op != 7)
            reg_set(c, d->rm, size, v);
    } else if (op == 7) {
        (void)alu(c, op, size, emu_ld(e, d->seg, emu_ea(e, d), size), b);
    } else {
        struct emu_ref r;
        uint32_t a = emu_rmw(e, d->seg, emu_ea(e, d), size, &r);
        emu_rmw_store(e, &r, size, alu(c, op, size, a, b));
    }
}

#define ALU_HANDLERS(op, size)                                                                               \
    static void alu_eg_##op##_##size(struct emu *e, const struct dinsn *d)                                   \
    {                                                                                                        \
        alu_to_rm(e, d, op, size, reg_get(e->c, d->reg, size));                                              \
    }                                                                                                        \
    static void alu_ge_##op##_##size(struct emu *e, const struct dinsn *d)                                   \
    {                                                                                                        \
        uint32_t b = rm_get(e, d, size);                                                                     \
        uint32_t v = alu(e->c, op, size, reg_get(e->c, d->reg, size), b);                                    \
        if (op != 7)                                                                                         \
            reg_set(e->c, d->reg, size, v);                                                                  \
    }                                                                                                        \
    static void alu_ai_##op##_##size(struct emu *e, const struct dinsn *d)                                   \
    {                                                                                                        \
        uint32_t v = alu(e->c, op, size, reg_get(e->c, CPU_EAX, size), d->i.imm);                            \
        if (op != 7)                                                                                         \
            reg_set(e->c, CPU_EAX, size, v);                                                                 \
    }                                                                                                        \
    static void alu_ei_##op##_##size(struct emu *e, const struct dinsn *d)                                   \
    {                                                                                                        \
        alu_to_rm(e, d, op, size, d->i.imm);                                                                 \
    }
#define ALU_OPS(op) ALU_HANDLERS(op, 1) ALU_HANDLERS(op, 2) ALU_HANDLERS(op, 4)
#define EIGHT(M)    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
EIGHT(ALU_OPS)
#define ALU_ROW(form, op)                                                                                    \
    {                                                                                                        \
        alu_##form##_##op##_1, alu_##form##_##op##_2, alu_##form##_##op##_4                                  \
    }
#define ALU_TABLE(form)                                                                                      \
    {                                                                                                        \
        ALU_ROW(form, 0), ALU_ROW(form, 1), ALU_ROW(form, 2), ALU_ROW(form, 3), ALU_ROW(form, 4),            \
            ALU_ROW(form, 5), ALU_ROW(form, 6), ALU_ROW(form, 7)                                             \
    }
static emu_fn *const alu_eg[8][3] = ALU_TABLE(eg), *const alu_ge[8][3] = ALU_TABLE(ge),
                     *const alu_ai[8][3] = ALU_TABLE(ai), *const alu_ei[8][3] = ALU_TABLE(ei);

/* Handlers for all operand sizes at once: name_1, name_2, name_4 and a table. */
#define SIZED(name)                                                                                          \
    static void name##_1(struct emu *e, const struct dinsn *d)                                               \
    {                                                                                                        \
        name(e, d, 1);                                                                                       \
    }                                                                                                        \
    WIDE(name)
#define WIDE(name)                                                                                           \
    static void name##_2(struct emu *e, const struct dinsn *d)                                               \
    {                                                                                                        \
        name(e, d, 2);                                                                                       \
    }                                                                                                        \
    static void name##_4(struct emu *e, const struct dinsn *d)                                               \
    {                                                                                                        \
        name(e, d, 4);                                                                                       \
    }

/* -- INC DEC NOT NEG TEST ---------------------------------------------------------------------------- */

#define UNARY(name, expression)                                                                              \
    ALWAYS void op_##name(struct emu *e, const struct dinsn *d, unsigned size)                               \
    {                                                                                                        \
        struct cpu *c = e->c;                                                                                \
        if (d->mem) {                                                                                        \
            struct emu_ref r;                                                                                \
            uint32_t a = emu_rmw(e, d->seg, emu_ea(e, d), size, &r);                                         \
            emu_rmw_store(e, &r, size, expression);                                                          \
        } else {                                                                                             \
            uint32_t a = reg_get(c, d->rm, size);                                                            \
            reg_set(c, d->rm, size, expression);                                                             \
        }                                                                                                    \
    }                                                                                                        \
    SIZED(op_##name)
UNARY(inc, BY_SIZE(inc, size, c, a))
UNARY(dec, BY_SIZE(dec, size, c, a))
UNARY(neg, BY_SIZE(neg, size, c, a))
UNARY(not, ((void)c, ~a))

ALWAYS void op_inc_reg(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    unsigned r = d->i.opcode & 7;
    uint32_t a = reg_get(c, r, size);
    reg_set(c, r, size, d->i.opcode < 0x48 ? BY_WIDE(inc, size, c, a) : BY_WIDE(dec, size, c, a));
}
WIDE(op_inc_reg)

ALWAYS void op_test_eg(struct emu *e, const struct dinsn *d, unsigned size)
{
    (void)alu(e->c, 4, size, rm_get(e, d, size), reg_get(e->c, d->reg, size));
}
SIZED(op_test_eg)
ALWAYS void op_test_ei(struct emu *e, const struct dinsn *d, unsigned size)
{
    (void)alu(e->c, 4, size, rm_get(e, d, size), d->i.imm);
}
SIZED(op_test_ei)
ALWAYS void op_test_ai(struct emu *e, const struct dinsn *d, unsigned size)
{
    (void)alu(e->c, 4, size, reg_get(e->c, CPU_EAX, size), d->i.imm);
}
SIZED(op_test_ai)

/* -- Shifts and rotates ------------------------------------------------------------------------------ */

ALWAYS uint32_t shift(struct cpu *c, unsigned op, unsigned size, uint32_t a, uint32_t n)
{
    switch (op) {
    case 0:
        return BY_SIZE(rol, size, c, a, n);
    case 1:
        return BY_SIZE(ror, size, c, a, n);
    case 2:
        return BY_SIZE(rcl, size, c, a, n);
    case 3:
        return BY_SIZE(rcr, size, c, a, n);
    case 5:
        return BY_SIZE(shr, size, c, a, n);
    case 7:
        return BY_SIZE(sar, size, c, a, n);
    default: /* 4, and 6 as its alias */
        return BY_SIZE(shl, size, c, a, n);
    }
}
ALWAYS void op_shift(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    unsigned op = d->reg;
    uint32_t n = d->i.opcode < 0xD0 ? d->i.imm : d->i.opcode < 0xD2 ? 1 : c->gpr[CPU_ECX] & 0xFF;
    if (d->mem) {
        struct emu_ref r;
        uint32_t a = emu_rmw(e, d->seg, emu_ea(e, d), size, &r);
        emu_rmw_store(e, &r, size, shift(c, op, size, a, n));
    } else {
        reg_set(c, d->rm, size, shift(c, op, size, reg_get(c, d->rm, size), n));
    }
}
SIZED(op_shift)

ALWAYS void op_shd(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    uint32_t n = d->i.imm_len ? d->i.imm : c->gpr[CPU_ECX] & 0xFF, b = reg_get(c, d->reg, size), a;
    struct emu_ref r = {0};
    a = d->mem ? emu_rmw(e, d->seg, emu_ea(e, d), size, &r) : reg_get(c, d->rm, size);
    a = d->i.opcode < 0xA8 ? BY_WIDE(shld, size, c, a, b, n) : BY_WIDE(shrd, size, c, a, b, n);
    if (d->mem)
        emu_rmw_store(e, &r, size, a);
    else
        reg_set(c, d->rm, size, a);
}
WIDE(op_shd)

/* -- MUL IMUL DIV IDIV ------------------------------------------------------------------------------- */

#define MUL_FN(name, text, T, suffix, move)                                                                  \
    static void name##_##suffix(struct cpu *c, uint32_t a0, uint32_t b0, uint32_t *lo, uint32_t *hi)         \
    {                                                                                                        \
        uint32_t ax = flags_in(c), dx = 0, low;                                                              \
        T b = (T)b0;                                                                                         \
        __asm__(GET "movl %[a],%%eax\n\t" text " %[b]\n\tmovl %%eax,%[low]" PUT                              \
                : "+&a"(ax), "+&d"(dx), [low] "=&r"(low)                                                     \
                : [a] "r"(a0), [b] "r"(b)                                                                    \
                : "cc");                                                                                     \
        flags_out(c, ax);                                                                                    \
        *lo = low;                                                                                           \
        *hi = dx;                                                                                            \
    }
MUL_FN(mul, "mulb", uint8_t, 1, )
MUL_FN(mul, "mulw", uint16_t, 2, )
MUL_FN(mul, "mull", uint32_t, 4, )
MUL_FN(smul, "imulb", uint8_t, 1, )
MUL_FN(smul, "imulw", uint16_t, 2, )
MUL_FN(smul, "imull", uint32_t, 4, )

ALWAYS void put_product(struct cpu *c, unsigned size, uint32_t lo, uint32_t hi)
{
    if (size == 1) {
        reg_set(c, CPU_EAX, 2, lo);
        return;
    }
    reg_set(c, CPU_EAX, size, lo);
    reg_set(c, CPU_EDX, size, hi);
}
ALWAYS void op_mul(struct emu *e, const struct dinsn *d, unsigned size)
{
    uint32_t lo, hi, b = rm_get(e, d, size);
    BY_SIZE(mul, size, e->c, e->c->gpr[CPU_EAX], b, &lo, &hi);
    put_product(e->c, size, lo, hi);
}
SIZED(op_mul)
ALWAYS void op_imul1(struct emu *e, const struct dinsn *d, unsigned size)
{
    uint32_t lo, hi, b = rm_get(e, d, size);
    BY_SIZE(smul, size, e->c, e->c->gpr[CPU_EAX], b, &lo, &hi);
    put_product(e->c, size, lo, hi);
}
SIZED(op_imul1)
ALWAYS void op_imul2(struct emu *e, const struct dinsn *d, unsigned size)
{
    uint32_t b = rm_get(e, d, size);
    reg_set(e->c, d->reg, size, BY_WIDE(imul, size, e->c, reg_get(e->c, d->reg, size), b));
}
WIDE(op_imul2)
ALWAYS void op_imul3(struct emu *e, const struct dinsn *d, unsigned size)
{
    uint32_t b = rm_get(e, d, size);
    reg_set(e->c, d->reg, size, BY_WIDE(imul, size, e->c, b, d->i.imm));
}
WIDE(op_imul3)

/* Divisions are checked in C first (a host #DE would be a signal) and then done by the host for its flags. */
#define DIV_FN(name, text, T, suffix)                                                                        \
    static void name##_##suffix(struct cpu *c, uint32_t lo0, uint32_t hi0, uint32_t b0, uint32_t *lo,        \
                                uint32_t *hi)                                                                \
    {                                                                                                        \
        uint32_t ax = flags_in(c), dx = hi0, low;                                                            \
        T b = (T)b0;                                                                                         \
        __asm__(GET "movl %[a],%%eax\n\t" text " %[b]\n\tmovl %%eax,%[low]" PUT                              \
                : "+&a"(ax), "+&d"(dx), [low] "=&r"(low)                                                     \
                : [a] "r"(lo0), [b] "r"(b)                                                                   \
                : "cc");                                                                                     \
        flags_out(c, ax);                                                                                    \
        *lo = low;                                                                                           \
        *hi = dx;                                                                                            \
    }
DIV_FN(div, "divb", uint8_t, 1)
DIV_FN(div, "divw", uint16_t, 2)
DIV_FN(div, "divl", uint32_t, 4)
DIV_FN(idiv, "idivb", uint8_t, 1)
DIV_FN(idiv, "idivw", uint16_t, 2)
DIV_FN(idiv, "idivl", uint32_t, 4)

static uint64_t dividend(const struct cpu *c, unsigned size)
{
    if (size == 1)
        return (uint16_t)c->gpr[CPU_EAX];
    if (size == 2)
        return c->gpr[CPU_EDX] << 16 | (uint16_t)c->gpr[CPU_EAX];
    return (uint64_t)c->gpr[CPU_EDX] << 32 | c->gpr[CPU_EAX];
}
static int64_t extend(uint64_t v, unsigned bits)
{
    return (int64_t)(v << (64 - bits)) >> (64 - bits);
}
ALWAYS void op_div(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    uint32_t lo, hi, b = rm_get(e, d, size);
    uint64_t n = dividend(c, size);
    if (!b || n / b > UINT64_MAX >> (64 - 8 * size))
        emu_raise(e, CPU_EXC_DE, false, 0);
    BY_SIZE(div, size, c, c->gpr[CPU_EAX], c->gpr[CPU_EDX], b, &lo, &hi);
    put_product(c, size, lo, hi);
}
SIZED(op_div)
ALWAYS void op_idiv(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    uint32_t lo, hi, b = rm_get(e, d, size);
    int64_t n = extend(dividend(c, size), 16 * size), by = extend(b, 8 * size),
            max = INT64_MAX >> (64 - 8 * size);
    /* INT64_MIN / -1 traps on the host too. */
    if (!by || (by == -1 && n == INT64_MIN) || n / by > max || n / by < -max - 1)
        emu_raise(e, CPU_EXC_DE, false, 0);
    BY_SIZE(idiv, size, c, c->gpr[CPU_EAX], c->gpr[CPU_EDX], b, &lo, &hi);
    put_product(c, size, lo, hi);
}
SIZED(op_idiv)

/* -- Moves ------------------------------------------------------------------------------------------- */

ALWAYS void op_mov_eg(struct emu *e, const struct dinsn *d, unsigned size)
{
    rm_set(e, d, size, reg_get(e->c, d->reg, size));
}
SIZED(op_mov_eg)
ALWAYS void op_mov_ge(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, d->reg, size, rm_get(e, d, size));
}
SIZED(op_mov_ge)
ALWAYS void op_mov_ei(struct emu *e, const struct dinsn *d, unsigned size)
{
    rm_set(e, d, size, d->i.imm);
}
SIZED(op_mov_ei)
ALWAYS void op_mov_ri(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, d->i.opcode & 7, size, d->i.imm);
}
SIZED(op_mov_ri)
ALWAYS void op_mov_am(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, CPU_EAX, size, emu_ld(e, d->seg, emu_ea(e, d), size));
}
SIZED(op_mov_am)
ALWAYS void op_mov_ma(struct emu *e, const struct dinsn *d, unsigned size)
{
    emu_st(e, d->seg, emu_ea(e, d), size, e->c->gpr[CPU_EAX]);
}
SIZED(op_mov_ma)
ALWAYS void op_xchg_eg(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    uint32_t b = reg_get(c, d->reg, size), a;
    if (d->mem) {
        struct emu_ref r;
        a = emu_rmw(e, d->seg, emu_ea(e, d), size, &r);
        emu_rmw_store(e, &r, size, b);
    } else {
        a = reg_get(c, d->rm, size);
        reg_set(c, d->rm, size, b);
    }
    reg_set(c, d->reg, size, a);
}
SIZED(op_xchg_eg)
ALWAYS void op_xchg_a(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    unsigned r = d->i.opcode & 7;
    uint32_t a = reg_get(c, CPU_EAX, size), b = reg_get(c, r, size);
    reg_set(c, CPU_EAX, size, b);
    reg_set(c, r, size, a);
}
WIDE(op_xchg_a)
ALWAYS void op_lea(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, d->reg, size, emu_ea(e, d));
}
WIDE(op_lea)
ALWAYS void op_movzx8(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, d->reg, size, rm_get(e, d, 1));
}
WIDE(op_movzx8)
ALWAYS void op_movzx16(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, d->reg, size, rm_get(e, d, 2));
}
WIDE(op_movzx16)
ALWAYS void op_movsx8(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, d->reg, size, (uint32_t)(int8_t)rm_get(e, d, 1));
}
WIDE(op_movsx8)
ALWAYS void op_movsx16(struct emu *e, const struct dinsn *d, unsigned size)
{
    reg_set(e->c, d->reg, size, (uint32_t)(int16_t)rm_get(e, d, 2));
}
WIDE(op_movsx16)

static void op_cbw(struct emu *e, const struct dinsn *d)
{
    uint32_t a = e->c->gpr[CPU_EAX];
    if (d->i.opsize == 4)
        e->c->gpr[CPU_EAX] = (uint32_t)(int16_t)a;
    else
        reg_set(e->c, CPU_EAX, 2, (uint32_t)(int8_t)a);
}
static void op_cwd(struct emu *e, const struct dinsn *d)
{
    uint32_t a = e->c->gpr[CPU_EAX];
    if (d->i.opsize == 4)
        e->c->gpr[CPU_EDX] = (uint32_t)((int32_t)a >> 31);
    else
        reg_set(e->c, CPU_EDX, 2, (uint32_t)((int16_t)a >> 15));
}
static void op_bswap(struct emu *e, const struct dinsn *d)
{
    unsigned r = d->i.opcode & 7;
    if (d->i.opsize == 4)
        e->c->gpr[r] = __builtin_bswap32(e->c->gpr[r]);
    else
        reg_set(e->c, r, 2, 0); /* undefined; processors give zero */
}
static void op_movbe(struct emu *e, const struct dinsn *d)
{
    unsigned size = d->i.opsize;
    uint32_t ea = emu_ea(e, d), shift_by = size == 4 ? 0 : 16;
    if (d->i.opcode == 0xF0)
        reg_set(e->c, d->reg, size, __builtin_bswap32(emu_ld(e, d->seg, ea, size)) >> shift_by);
    else
        emu_st(e, d->seg, ea, size, __builtin_bswap32(e->c->gpr[d->reg]) >> shift_by);
}
static void op_movnti(struct emu *e, const struct dinsn *d)
{
    emu_st(e, d->seg, emu_ea(e, d), 4, e->c->gpr[d->reg]);
}
static void op_xlat(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned seg = d->i.seg == SCAN_SEG_NONE ? SCAN_DS : d->i.seg;
    reg_set(c, CPU_EAX, 1, emu_ld(e, seg, (c->gpr[CPU_EBX] + (c->gpr[CPU_EAX] & 0xFF)) & d->amask, 1));
}

/* -- Flags ------------------------------------------------------------------------------------------- */

static void op_nop(struct emu *e, const struct dinsn *d)
{
    (void)e, (void)d;
}
/* Faults as a load of one byte does (SDM vol. 2, CLFLUSH); there is no cache to flush. */
static void op_clflush(struct emu *e, const struct dinsn *d)
{
    emu_lin_probe(e, emu_seg_check(e, d->seg, emu_ea(e, d), 1, false), 1, false, e->user);
}
static void op_sahf(struct emu *e, const struct dinsn *d)
{
    (void)d;
    e->c->arith = (e->c->arith & ~(uint32_t)LOW5) | (e->c->gpr[CPU_EAX] >> 8 & LOW5);
}
static void op_lahf(struct emu *e, const struct dinsn *d)
{
    (void)d;
    reg_set(e->c, 4, 1, (e->c->arith & LOW5) | CPU_FLAG1);
}
static void op_flag(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    switch (d->i.opcode) {
    case 0xF5:
        c->arith ^= CPU_CF;
        break;
    case 0xF8:
        c->arith &= ~(uint32_t)CPU_CF;
        break;
    case 0xF9:
        c->arith |= CPU_CF;
        break;
    case 0xFC:
        c->arith &= ~(uint32_t)CPU_DF;
        break;
    default:
        c->arith |= CPU_DF;
        break;
    }
}
static void op_salc(struct emu *e, const struct dinsn *d)
{
    (void)d;
    reg_set(e->c, CPU_EAX, 1, e->c->arith & CPU_CF ? 0xFF : 0);
}

ALWAYS bool condition(uint32_t f, unsigned code)
{
    bool r;
    switch (code >> 1) {
    case 0:
        r = f & CPU_OF;
        break;
    case 1:
        r = f & CPU_CF;
        break;
    case 2:
        r = f & CPU_ZF;
        break;
    case 3:
        r = f & (CPU_CF | CPU_ZF);
        break;
    case 4:
        r = f & CPU_SF;
        break;
    case 5:
        r = f & CPU_PF;
        break;
    case 6:
        r = (f >> 7 ^ f >> 11) & 1;
        break;
    default:
        r = ((f >> 7 ^ f >> 11) & 1) || (f & CPU_ZF);
        break;
    }
    return r ^ (code & 1);
}
static void op_setcc(struct emu *e, const struct dinsn *d)
{
    rm_set(e, d, 1, condition(e->c->arith, d->i.opcode & 15));
}
static void op_cmovcc(struct emu *e, const struct dinsn *d)
{
    uint32_t v = rm_get(e, d, d->i.opsize); /* read, and so faults, whatever the condition */
    if (condition(e->c->arith, d->i.opcode & 15))
        reg_set(e->c, d->reg, d->i.opsize, v);
}

/* -- Near branches ----------------------------------------------------------------------------------- */

ALWAYS void branch_rel(struct emu *e, const struct dinsn *d)
{
    uint32_t to = e->next + d->i.imm;
    emu_branch(e, d->i.opsize == 4 ? to : to & 0xFFFF);
}
#define JCC(n)                                                                                               \
    static void op_jcc_##n(struct emu *e, const struct dinsn *d)                                             \
    {                                                                                                        \
        if (condition(e->c->arith, n))                                                                       \
            branch_rel(e, d);                                                                                \
    }
JCC(0)
JCC(1)
JCC(2)
JCC(3) JCC(4) JCC(5) JCC(6) JCC(7) JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14)
    JCC(15) static emu_fn *const op_jcc[16] = {
        op_jcc_0, op_jcc_1, op_jcc_2,  op_jcc_3,  op_jcc_4,  op_jcc_5,  op_jcc_6,  op_jcc_7,
        op_jcc_8, op_jcc_9, op_jcc_10, op_jcc_11, op_jcc_12, op_jcc_13, op_jcc_14, op_jcc_15};

static void op_jmp(struct emu *e, const struct dinsn *d)
{
    branch_rel(e, d);
}
static void op_loop(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.adsize;
    uint32_t n = reg_get(c, CPU_ECX, size), left = n - 1;
    bool zf = c->arith & CPU_ZF, taken;
    if (d->i.opcode == 0xE3) {
        if (!n)
            branch_rel(e, d);
        return;
    }
    left = size == 2 ? left & 0xFFFF : left;
    taken = left && (d->i.opcode == 0xE2 || zf == (d->i.opcode == 0xE1));
    if (taken)
        branch_rel(e, d);
    reg_set(c, CPU_ECX, size, left);
}
static void op_call(struct emu *e, const struct dinsn *d)
{
    uint32_t back = e->next;
    branch_rel(e, d);
    emu_push(e, d->i.opsize, back);
}
static void op_call_rm(struct emu *e, const struct dinsn *d)
{
    uint32_t to = rm_get(e, d, d->i.opsize), back = e->next;
    emu_branch(e, to);
    emu_push(e, d->i.opsize, back);
}
static void op_jmp_rm(struct emu *e, const struct dinsn *d)
{
    emu_branch(e, rm_get(e, d, d->i.opsize));
}
static void op_ret(struct emu *e, const struct dinsn *d)
{
    unsigned size = d->i.opsize;
    emu_branch(e, emu_peek(e, size, 0));
    sp_set(e, e->c->gpr[CPU_ESP] + size + (d->i.opcode == 0xC2 ? d->i.imm : 0));
}

/* -- Stack ------------------------------------------------------------------------------------------- */

ALWAYS void op_push_reg(struct emu *e, const struct dinsn *d, unsigned size)
{
    emu_push(e, size, e->c->gpr[d->i.opcode & 7]);
}
WIDE(op_push_reg)
ALWAYS void op_pop_reg(struct emu *e, const struct dinsn *d, unsigned size)
{
    uint32_t v = emu_pop(e, size);
    reg_set(e->c, d->i.opcode & 7, size, v);
}
WIDE(op_pop_reg)
static void op_push_imm(struct emu *e, const struct dinsn *d)
{
    emu_push(e, d->i.opsize, d->i.imm);
}
static void op_push_rm(struct emu *e, const struct dinsn *d)
{
    emu_push(e, d->i.opsize, rm_get(e, d, d->i.opsize));
}
/* The address of a memory destination is computed with ESP already incremented (SDM vol. 2, POP). */
static void op_pop_rm(struct emu *e, const struct dinsn *d)
{
    uint32_t v = emu_pop(e, d->i.opsize);
    rm_set(e, d, d->i.opsize, v);
}
static void op_pusha(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opsize;
    uint32_t sp = c->gpr[CPU_ESP];
    for (unsigned i = 0; i < 8; i++) /* all or nothing */
        emu_st_probe(e, SCAN_SS, (sp - (i + 1) * size) & e->smask, size);
    for (unsigned i = 0; i < 8; i++)
        emu_st(e, SCAN_SS, (sp - (i + 1) * size) & e->smask, size, c->gpr[i]);
    sp_set(e, sp - 8 * size);
}
static void op_popa(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opsize;
    uint32_t v[8];
    for (unsigned i = 0; i < 8; i++)
        v[i] = emu_peek(e, size, i);
    for (unsigned i = 0; i < 8; i++)
        if (7 - i != CPU_ESP)
            reg_set(c, 7 - i, size, v[i]);
    sp_set(e, c->gpr[CPU_ESP] + 8 * size);
}
/* SDM vol. 2, ENTER. All of it is probed first: nothing is written if any of it faults. Then one after the
 * other, since the frame pointers that are copied may lie where the first ones go. */
static void op_enter(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opsize, level = emu_imm2(d) & 31, n = level ? level + 1 : 1;
    uint32_t bp = c->gpr[CPU_EBP], sp = c->gpr[CPU_ESP];
    uint32_t frame = (sp & ~e->smask) | ((sp - size) & e->smask), end = sp - n * size - (d->i.imm & 0xFFFF);
    for (unsigned i = 1; i < level; i++)
        (void)emu_ld(e, SCAN_SS, (bp - i * size) & e->smask, size);
    for (unsigned i = 1; i <= n; i++)
        emu_st_probe(e, SCAN_SS, (sp - i * size) & e->smask, size);
    emu_st_probe(e, SCAN_SS, end & e->smask, 1); /* #PF or #SS if the new top cannot be written */
    emu_st(e, SCAN_SS, (sp - size) & e->smask, size, bp);
    for (unsigned i = 1; i < level; i++)
        emu_st(e, SCAN_SS, (sp - (i + 1) * size) & e->smask, size,
               emu_ld(e, SCAN_SS, (bp - i * size) & e->smask, size));
    if (level)
        emu_st(e, SCAN_SS, (sp - n * size) & e->smask, size, frame);
    sp_set(e, end);
    reg_set(c, CPU_EBP, size, frame);
}
static void op_leave(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opsize;
    uint32_t bp = c->gpr[CPU_EBP], v = emu_ld(e, SCAN_SS, bp & e->smask, size);
    sp_set(e, bp + size);
    reg_set(c, CPU_EBP, size, v);
}

/* -- Bits -------------------------------------------------------------------------------------------- */

ALWAYS uint32_t bit_op(struct cpu *c, unsigned op, unsigned size, uint32_t a, uint32_t n)
{
    switch (op & 3) {
    case 0:
        return BY_WIDE(bt, size, c, a, n);
    case 1:
        return BY_WIDE(bts, size, c, a, n);
    case 2:
        return BY_WIDE(btr, size, c, a, n);
    default:
        return BY_WIDE(btc, size, c, a, n);
    }
}
/* A register offset reaches beyond the operand (SDM vol. 2, BT); an immediate one does not. */
static void op_bit(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opsize, op = d->i.opcode == 0xBA ? d->reg : d->i.opcode >> 3;
    uint32_t n = d->i.opcode == 0xBA ? d->i.imm : reg_get(c, d->reg, size);
    if (!d->mem) {
        uint32_t v = bit_op(c, op, size, reg_get(c, d->rm, size), n);
        if (op & 3)
            reg_set(c, d->rm, size, v);
        return;
    }
    uint32_t ea = (uint32_t)emu_ea(e, d);
    if (d->i.opcode != 0xBA) {
        int32_t at = size == 4 ? (int32_t)n : (int16_t)n;
        ea = (ea + (uint32_t)(at >> (size == 4 ? 5 : 4)) * size) & d->amask;
    }
    if (!(op & 3)) {
        (void)bit_op(c, 0, size, emu_ld(e, d->seg, ea, size), n);
        return;
    }
    struct emu_ref r;
    uint32_t a = emu_rmw(e, d->seg, ea, size, &r);
    emu_rmw_store(e, &r, size, bit_op(c, op, size, a, n));
}
static void op_bitscan(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opsize;
    uint32_t b = rm_get(e, d, size), a = reg_get(c, d->reg, size);
    a = d->i.opcode == 0xBC ? BY_WIDE(bsf, size, c, a, b) : BY_WIDE(bsr, size, c, a, b);
    if (b)
        reg_set(c, d->reg, size, a);
}

/* -- CMPXCHG XADD CMPXCHG8B -------------------------------------------------------------------------- */

ALWAYS void op_cmpxchg(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    uint32_t acc = reg_get(c, CPU_EAX, size), src = reg_get(c, d->reg, size), a;
    struct emu_ref r = {0};
    a = d->mem ? emu_rmw(e, d->seg, emu_ea(e, d), size, &r) : reg_get(c, d->rm, size);
    (void)alu(c, 7, size, acc, a);
    if (d->mem) /* written either way (SDM vol. 2, CMPXCHG) */
        emu_rmw_store(e, &r, size, acc == a ? src : a);
    else if (acc == a)
        reg_set(c, d->rm, size, src);
    if (acc != a)
        reg_set(c, CPU_EAX, size, a);
}
SIZED(op_cmpxchg)
ALWAYS void op_xadd(struct emu *e, const struct dinsn *d, unsigned size)
{
    struct cpu *c = e->c;
    uint32_t b = reg_get(c, d->reg, size), a;
    if (d->mem) {
        struct emu_ref r;
        a = emu_rmw(e, d->seg, emu_ea(e, d), size, &r);
        emu_rmw_store(e, &r, size, alu(c, 0, size, a, b));
        reg_set(c, d->reg, size, a);
        return;
    }
    a = reg_get(c, d->rm, size);
    uint32_t sum = alu(c, 0, size, a, b);
    reg_set(c, d->reg, size, a);
    reg_set(c, d->rm, size, sum); /* XADD r,r with one register: the sum wins */
}
SIZED(op_xadd)
static void op_cmpxchg8b(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint32_t ea = emu_ea(e, d), m[2];
    emu_buf_align(e, d->seg, ea, 8, true, 8);
    emu_st_probe(e, d->seg, ea, 8);
    emu_ld_buf(e, d->seg, ea, 8, m);
    if (m[0] == c->gpr[CPU_EAX] && m[1] == c->gpr[CPU_EDX]) {
        uint32_t v[2] = {c->gpr[CPU_EBX], c->gpr[CPU_ECX]};
        emu_st_buf(e, d->seg, ea, 8, v);
        c->arith |= CPU_ZF;
        return;
    }
    emu_st_buf(e, d->seg, ea, 8, m);
    c->gpr[CPU_EAX] = m[0];
    c->gpr[CPU_EDX] = m[1];
    c->arith &= ~(uint32_t)CPU_ZF;
}

/* -- BCD (SDM vol. 2, AAA to DAS). OF, and what else is undefined, is given as Intel processors do: from the
 * last step. ---- */

static void set_szp(struct cpu *c, uint8_t v)
{
    uint32_t f = c->arith & CPU_DF;
    f |= v ? 0 : CPU_ZF;
    f |= v & 0x80 ? CPU_SF : 0;
    f |= __builtin_parity(v) ? 0 : CPU_PF;
    c->arith = f;
}
static void op_daa(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    bool sub = d->i.opcode == 0x2F, cf = c->arith & CPU_CF, af = c->arith & CPU_AF, carry = false;
    uint8_t al = (uint8_t)c->gpr[CPU_EAX], old = al;
    if ((al & 15) > 9 || af) {
        carry = cf || (sub ? al < 6 : al > 0xF9);
        al = (uint8_t)(sub ? al - 6 : al + 6);
        af = true;
    }
    if (old > 0x99 || cf) {
        al = (uint8_t)(sub ? al - 0x60 : al + 0x60);
        carry = true;
    }
    reg_set(c, CPU_EAX, 1, al);
    set_szp(c, al);
    c->arith |= (carry ? CPU_CF : 0) | (af ? CPU_AF : 0);
}
static void op_aaa(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint32_t ax = c->gpr[CPU_EAX] & 0xFFFF;
    bool adjust = (ax & 15) > 9 || (c->arith & CPU_AF);
    if (adjust)
        ax = d->i.opcode == 0x37 ? ax + 0x106 : ax - 0x106;
    ax &= 0xFF0F;
    reg_set(c, CPU_EAX, 2, ax);
    set_szp(c, (uint8_t)ax);
    c->arith |= adjust ? CPU_CF | CPU_AF : 0;
}
static void op_aam(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint8_t base = (uint8_t)d->i.imm, al = (uint8_t)c->gpr[CPU_EAX];
    if (!base)
        emu_raise(e, CPU_EXC_DE, false, 0);
    reg_set(c, CPU_EAX, 2, (uint32_t)(al / base) << 8 | al % base);
    set_szp(c, al % base);
}
static void op_aad(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint32_t ax = c->gpr[CPU_EAX];
    uint8_t al = (uint8_t)((ax & 0xFF) + (ax >> 8 & 0xFF) * d->i.imm);
    reg_set(c, CPU_EAX, 2, al);
    set_szp(c, al);
}
static void op_bound(struct emu *e, const struct dinsn *d)
{
    unsigned size = d->i.opsize;
    uint32_t ea = emu_ea(e, d);
    int32_t low = (int32_t)emu_ld(e, d->seg, ea, size),
            high = (int32_t)emu_ld(e, d->seg, (ea + size) & d->amask, size);
    int32_t v = (int32_t)reg_get(e->c, d->reg, size);
    if (size == 2)
        low = (int16_t)low, high = (int16_t)high, v = (int16_t)v;
    if (v < low || v > high)
        emu_raise(e, CPU_EXC_BR, false, 0);
}
void emu_op_ud(struct emu *e, const struct dinsn *d)
{
    (void)d;
    emu_ud(e);
}

/* -- Which handler ----------------------------------------------------------------------------------- */

#define PICK(name)     (i->opsize == 4 ? name##_4 : name##_2)
#define PICK_ANY(name) (!(i->opcode & 1) ? name##_1 : PICK(name))

static unsigned size_row(const struct scan_insn *i)
{
    return !(i->opcode & 1) ? 0 : i->opsize == 4 ? 2 : 1;
}

static emu_fn *pick_group3(const struct scan_insn *i)
{
    switch (scan_modrm_reg(i)) {
    case 0:
    case 1:
        return PICK_ANY(op_test_ei);
    case 2:
        return PICK_ANY(op_not);
    case 3:
        return PICK_ANY(op_neg);
    case 4:
        return PICK_ANY(op_mul);
    case 5:
        return PICK_ANY(op_imul1);
    case 6:
        return PICK_ANY(op_div);
    default:
        return PICK_ANY(op_idiv);
    }
}

static emu_fn *pick_group5(const struct scan_insn *i)
{
    switch (scan_modrm_reg(i)) {
    case 0:
        return PICK_ANY(op_inc);
    case 1:
        return PICK_ANY(op_dec);
    case 2:
        return op_call_rm;
    case 4:
        return op_jmp_rm;
    case 6:
        return op_push_rm;
    default: /* far forms */
        return emu_pick_sys(i);
    }
}

static emu_fn *pick_1b(const struct scan_insn *i)
{
    unsigned op = i->opcode, grp = op >> 3 & 7;
    if (op < 0x40 && (op & 7) < 6)
        return (op & 7) < 2   ? alu_eg[grp][size_row(i)]
               : (op & 7) < 4 ? alu_ge[grp][size_row(i)]
                              : alu_ai[grp][size_row(i)];
    switch (op) {
    case 0x27:
    case 0x2F:
        return op_daa;
    case 0x37:
    case 0x3F:
        return op_aaa;
    case 0x40 ... 0x4F:
        return PICK(op_inc_reg);
    case 0x50 ... 0x57:
        return PICK(op_push_reg);
    case 0x58 ... 0x5F:
        return PICK(op_pop_reg);
    case 0x60:
        return op_pusha;
    case 0x61:
        return op_popa;
    case 0x62:
        return op_bound;
    case 0x68:
    case 0x6A:
        return op_push_imm;
    case 0x69:
    case 0x6B:
        return PICK(op_imul3);
    case 0x70 ... 0x7F:
        return op_jcc[op & 15];
    case 0x80 ... 0x83:
        return alu_ei[scan_modrm_reg(i)][size_row(i)];
    case 0x84:
    case 0x85:
        return PICK_ANY(op_test_eg);
    case 0x86:
    case 0x87:
        return PICK_ANY(op_xchg_eg);
    case 0x88:
    case 0x89:
        return PICK_ANY(op_mov_eg);
    case 0x8A:
    case 0x8B:
        return PICK_ANY(op_mov_ge);
    case 0x8D:
        return PICK(op_lea);
    case 0x8F:
        return op_pop_rm;
    case 0x90:
        return op_nop;
    case 0x91 ... 0x97:
        return PICK(op_xchg_a);
    case 0x98:
        return op_cbw;
    case 0x99:
        return op_cwd;
    case 0x9E:
        return op_sahf;
    case 0x9F:
        return op_lahf;
    case 0xA0:
    case 0xA1:
        return PICK_ANY(op_mov_am);
    case 0xA2:
    case 0xA3:
        return PICK_ANY(op_mov_ma);
    case 0xA8:
    case 0xA9:
        return PICK_ANY(op_test_ai);
    case 0xB0 ... 0xB7:
        return op_mov_ri_1;
    case 0xB8 ... 0xBF:
        return PICK(op_mov_ri);
    case 0xC0:
    case 0xC1:
    case 0xD0 ... 0xD3:
        return PICK_ANY(op_shift);
    case 0xC2:
    case 0xC3:
        return op_ret;
    case 0xC6:
    case 0xC7:
        return PICK_ANY(op_mov_ei);
    case 0xC8:
        return op_enter;
    case 0xC9:
        return op_leave;
    case 0xD4:
        return op_aam;
    case 0xD5:
        return op_aad;
    case 0xD6:
        return op_salc;
    case 0xD7:
        return op_xlat;
    case 0xE0 ... 0xE3:
        return op_loop;
    case 0xE8:
        return op_call;
    case 0xE9:
    case 0xEB:
        return op_jmp;
    case 0xF5:
    case 0xF8:
    case 0xF9:
    case 0xFC:
    case 0xFD:
        return op_flag;
    case 0xF6:
    case 0xF7:
        return pick_group3(i);
    case 0xFE:
    case 0xFF:
        return pick_group5(i);
    default:
        return emu_pick_sys(i);
    }
}

static emu_fn *pick_0f(const struct scan_insn *i)
{
    unsigned op = i->opcode;
    switch (op) {
    case 0x0D:
    case 0x18 ... 0x1F:
        return op_nop;
    case 0x40 ... 0x4F:
        return op_cmovcc;
    case 0x80 ... 0x8F:
        return op_jcc[op & 15];
    case 0x90 ... 0x9F:
        return op_setcc;
    case 0xA3:
    case 0xAB:
    case 0xB3:
    case 0xBA:
    case 0xBB:
        return op_bit;
    case 0xA4:
    case 0xA5:
    case 0xAC:
    case 0xAD:
        return PICK(op_shd);
    case 0xAE: /* fences and CLFLUSH; the rest is x87/SSE */
        if (i->cls != SCAN_CLASS_PLAIN)
            return emu_pick_fpu(i);
        return scan_has_mem(i) ? op_clflush : op_nop;
    case 0xAF:
        return PICK(op_imul2);
    case 0xB0:
    case 0xB1:
        return PICK_ANY(op_cmpxchg);
    case 0xB6:
        return PICK(op_movzx8);
    case 0xB7:
        return PICK(op_movzx16);
    case 0xBC:
    case 0xBD:
        return op_bitscan;
    case 0xBE:
        return PICK(op_movsx8);
    case 0xBF:
        return PICK(op_movsx16);
    case 0xC0:
    case 0xC1:
        return PICK_ANY(op_xadd);
    case 0xC3:
        return op_movnti;
    case 0xC7:
        return scan_modrm_reg(i) == 1 ? op_cmpxchg8b : emu_op_ud;
    case 0xC8 ... 0xCF:
        return op_bswap;
    default:
        return emu_pick_sys(i);
    }
}

emu_fn *emu_pick(const struct scan_insn *i)
{
    switch (i->cls) {
    case SCAN_CLASS_STRING:
        return emu_pick_string(i);
    case SCAN_CLASS_FPU:
    case SCAN_CLASS_FPU_ENV:
    case SCAN_CLASS_SIMD:
    case SCAN_CLASS_FXSAVE:
        return emu_pick_fpu(i);
    case SCAN_CLASS_VIRT:
        return emu_pick_optional(i);
    case SCAN_CLASS_UD:
    case SCAN_CLASS_INVALID:
        return emu_op_ud;
    default:
        break;
    }
    if (i->map == SCAN_MAP_1B)
        return pick_1b(i);
    if (i->map == SCAN_MAP_0F)
        return pick_0f(i);
    return i->map == SCAN_MAP_0F38 && (i->opcode & 0xFE) == 0xF0 ? op_movbe : emu_op_ud;
}
