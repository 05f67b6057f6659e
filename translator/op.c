/* translator/op.c: one guest instruction to host code.
 *
 * An allow-list: an opcode without a row in the tables below leaves through XLAT_STUB_EMULATE, so that
 * nothing is carried over whose meaning in 64-bit mode has not been thought about. Order inside a sequence:
 * prepare, one committing instruction, a tail that cannot fault (see unwind states in xlat.h).
 */
#include "translator/context.h"

/* --- tables
 * ------------------------------------------------------------------------------------------------------ */

/* Which ModRM fields name general registers, and of which size: number 4 is ESP (r14 here) only among the
 * 16/32-bit ones. */
enum { REG_G = 1, REG_B = 2, RM_G = 4, RM_B = 8 };

/* Tables read better by rows of the opcode map. */
/* clang-format off */
enum action {
    EMULATE,
    COPY,     /* no operand that moves: the bytes as they are */
    MODRM,    /* ModRM operand, fields as flagged */
    DIGIT,    /* the same, reg field is an opcode extension: arg is a bit mask of the ones carried over */
    OPREG,    /* register in the low three opcode bits */
    INCDEC,
    PUSH_REG, POP_REG, PUSH_IMM, PUSH_SREG, PUSHA, POPA, POP_MEM, LEAVE, PUSHF, POPF,
    JCC, JMP, CALL, RET, LOOP, GROUP5,
    MOFFS, LEA, XLATB, STRING, FROM_SREG, NOP, FPU, FWAIT, SIMD, MOVBE, FENCE, CMPXCHG8B, CLI, STI, RDTSC, BSWAP,
    TO_SREG, POP_SREG, CPUID, TRANSFER, PORT,
};

struct op_row {
    uint8_t action, fields, arg;
};

#define ALU(base) \
    [base + 0] = {MODRM, REG_B | RM_B, 0}, [base + 1] = {MODRM, REG_G | RM_G, 0}, \
    [base + 2] = {MODRM, REG_B | RM_B, 0}, [base + 3] = {MODRM, REG_G | RM_G, 0}, [base + 4 ... base + 5] = {COPY, 0, 0}

static const struct op_row map_1b[256] = {
    ALU(0x00), ALU(0x08), ALU(0x10), ALU(0x18), ALU(0x20), ALU(0x28), ALU(0x30), ALU(0x38),
    [0x06] = {PUSH_SREG, 0, SCAN_ES}, [0x07] = {POP_SREG, 0, SCAN_ES}, [0x0E] = {PUSH_SREG, 0, SCAN_CS},
    [0x16] = {PUSH_SREG, 0, SCAN_SS}, [0x1E] = {PUSH_SREG, 0, SCAN_DS},
    [0x1F] = {POP_SREG, 0, SCAN_DS},
    [0x40 ... 0x4F] = {INCDEC, 0, 0},
    [0x50 ... 0x57] = {PUSH_REG, 0, 0}, [0x58 ... 0x5F] = {POP_REG, 0, 0},
    [0x60] = {PUSHA, 0, 0}, [0x61] = {POPA, 0, 0},
    [0x68] = {PUSH_IMM, 0, 0}, [0x69] = {MODRM, REG_G | RM_G, 0},
    [0x6A] = {PUSH_IMM, 0, 0}, [0x6B] = {MODRM, REG_G | RM_G, 0},
    [0x70 ... 0x7F] = {JCC, 0, 0},
    [0x80] = {DIGIT, RM_B, 0xFF}, [0x81] = {DIGIT, RM_G, 0xFF}, [0x82] = {DIGIT, RM_B, 0xFF}, [0x83] = {DIGIT, RM_G, 0xFF},
    [0x84] = {MODRM, REG_B | RM_B, 0}, [0x85] = {MODRM, REG_G | RM_G, 0},
    [0x86] = {MODRM, REG_B | RM_B, 0}, [0x87] = {MODRM, REG_G | RM_G, 0},
    [0x88] = {MODRM, REG_B | RM_B, 0}, [0x89] = {MODRM, REG_G | RM_G, 0},
    [0x8A] = {MODRM, REG_B | RM_B, 0}, [0x8B] = {MODRM, REG_G | RM_G, 0},
    [0x8C] = {FROM_SREG, 0, 0}, [0x8D] = {LEA, 0, 0}, [0x8E] = {TO_SREG, 0, 0}, [0x8F] = {POP_MEM, 0, 0},
    [0x90] = {COPY, 0, 0}, [0x91 ... 0x97] = {OPREG, 0, 0}, [0x98 ... 0x99] = {COPY, 0, 0},
    [0x9B] = {FWAIT, 0, 0}, [0x9C] = {PUSHF, 0, 0}, [0x9D] = {POPF, 0, 0}, [0x9E ... 0x9F] = {COPY, 0, 0},
    [0xA0 ... 0xA3] = {MOFFS, 0, 0}, [0xA4 ... 0xA7] = {STRING, 0, 0}, [0xA8 ... 0xA9] = {COPY, 0, 0},
    [0xAA ... 0xAF] = {STRING, 0, 0},
    [0xB0 ... 0xB7] = {COPY, 0, 0}, [0xB8 ... 0xBF] = {OPREG, 0, 0},
    [0xC0] = {DIGIT, RM_B, 0xFF}, [0xC1] = {DIGIT, RM_G, 0xFF}, [0xC2 ... 0xC3] = {RET, 0, 0},
    [0xC6] = {DIGIT, RM_B, 0x01}, [0xC7] = {DIGIT, RM_G, 0x01}, [0xC9] = {LEAVE, 0, 0},
    [0xCD] = {TRANSFER, 0, XLAT_STUB_INT}, [0xCF] = {TRANSFER, 0, XLAT_STUB_IRET},
    [0xD0] = {DIGIT, RM_B, 0xFF}, [0xD1] = {DIGIT, RM_G, 0xFF}, [0xD2] = {DIGIT, RM_B, 0xFF}, [0xD3] = {DIGIT, RM_G, 0xFF},
    [0xD7] = {XLATB, 0, 0}, [0xD8 ... 0xDF] = {FPU, 0, 0},
    [0xE0 ... 0xE3] = {LOOP, 0, 0}, [0xE4 ... 0xE7] = {PORT, 0, 0},
    [0xE8] = {CALL, 0, 0}, [0xE9] = {JMP, 0, 0}, [0xEB] = {JMP, 0, 0}, [0xEC ... 0xEF] = {PORT, 0, 0},
    [0xF5] = {COPY, 0, 0}, [0xF6] = {DIGIT, RM_B, 0xFF}, [0xF7] = {DIGIT, RM_G, 0xFF}, [0xF8 ... 0xF9] = {COPY, 0, 0},
    [0xFA] = {CLI, 0, 0}, [0xFB] = {STI, 0, 0}, [0xFC ... 0xFD] = {COPY, 0, 0},
    [0xFE] = {DIGIT, RM_B, 0x03}, [0xFF] = {GROUP5, 0, 0},
};

static const struct op_row map_0f[256] = {
    [0x0D] = {NOP, 0, 0}, [0x10 ... 0x17] = {SIMD, 0, 0}, [0x18 ... 0x1F] = {NOP, 0, 0},
    [0x28 ... 0x2F] = {SIMD, 0, 0}, [0x31] = {RDTSC, 0, 0},
    [0x34] = {TRANSFER, 0, XLAT_STUB_SYSENTER}, [0x35] = {TRANSFER, 0, XLAT_STUB_SYSEXIT},
    [0x40 ... 0x4F] = {MODRM, REG_G | RM_G, 0}, [0x50 ... 0x77] = {SIMD, 0, 0}, [0x7C ... 0x7F] = {SIMD, 0, 0},
    [0x80 ... 0x8F] = {JCC, 0, 0}, [0x90 ... 0x9F] = {DIGIT, RM_B, 0xFF},
    [0xA0] = {PUSH_SREG, 0, SCAN_FS}, [0xA1] = {POP_SREG, 0, SCAN_FS}, [0xA2] = {CPUID, 0, 0}, [0xA3] = {MODRM, REG_G | RM_G, 0},
    [0xA4 ... 0xA5] = {MODRM, REG_G | RM_G, 0}, [0xA8] = {PUSH_SREG, 0, SCAN_GS}, [0xA9] = {POP_SREG, 0, SCAN_GS},
    [0xAB ... 0xAD] = {MODRM, REG_G | RM_G, 0}, [0xAE] = {FENCE, 0, 0}, [0xAF] = {MODRM, REG_G | RM_G, 0},
    [0xB0] = {MODRM, REG_B | RM_B, 0}, [0xB1] = {MODRM, REG_G | RM_G, 0}, [0xB3] = {MODRM, REG_G | RM_G, 0},
    [0xB6] = {MODRM, REG_G | RM_B, 0}, [0xB7] = {MODRM, REG_G | RM_G, 0},
    [0xBA] = {DIGIT, RM_G, 0xF0}, [0xBB ... 0xBD] = {MODRM, REG_G | RM_G, 0},
    [0xBE] = {MODRM, REG_G | RM_B, 0}, [0xBF] = {MODRM, REG_G | RM_G, 0},
    [0xC0] = {MODRM, REG_B | RM_B, 0}, [0xC1] = {MODRM, REG_G | RM_G, 0}, [0xC2] = {SIMD, 0, 0},
    [0xC3] = {MODRM, REG_G, 0}, [0xC4 ... 0xC6] = {SIMD, 0, 0}, [0xC7] = {CMPXCHG8B, 0, 0},
    [0xC8 ... 0xCF] = {BSWAP, 0, 0}, [0xD0 ... 0xF6] = {SIMD, 0, 0}, [0xF8 ... 0xFE] = {SIMD, 0, 0},
};
/* clang-format on */

static struct op_row row_of(const struct scan_insn *i)
{
    switch (i->map) {
    case SCAN_MAP_1B:
        return map_1b[i->opcode];
    case SCAN_MAP_0F:
        return map_0f[i->opcode];
    case SCAN_MAP_0F38:
        if (i->opcode == 0xF0 || i->opcode == 0xF1)
            return (struct op_row){MOVBE, 0, 0};
        return (struct op_row){SIMD, 0, 0};
    default:
        return (struct op_row){SIMD, 0, 0};
    }
}

/* --- small pieces
 * ------------------------------------------------------------------------------------------------ */

#define CPU_FIELD(field) ((struct emit_mem){HOST_CPU, HOST_NONE, (int32_t)offsetof(struct cpu, field), 0})

static struct emit_mem stack(const struct context *c, int32_t disp)
{
    return (struct emit_mem){HOST_WINDOW, HOST_ESP, disp + c->esp_delta, 0};
}

static struct emit_mem seg_sel(unsigned seg)
{
    return (struct emit_mem){HOST_CPU, HOST_NONE, (int32_t)(offsetof(struct cpu, seg_sel) + 4 * seg), 0};
}

static struct emit_mem seg_base(unsigned seg)
{
    return (struct emit_mem){HOST_CPU, HOST_NONE, (int32_t)(offsetof(struct cpu, seg_base) + 8 * seg), 0};
}

static struct emit_mem seg_window(unsigned seg)
{
    return (struct emit_mem){HOST_CPU, HOST_NONE, (int32_t)(offsetof(struct cpu, seg_window) + 8 * seg), 0};
}

static unsigned host_gpr(unsigned guest)
{
    return guest == CPU_ESP ? HOST_ESP : guest;
}

static const uint8_t *insn_bytes(const struct context *c, const struct scan_insn *i)
{
    return c->page->bytes + i->off;
}

static void emulate_as(struct context *c, const struct scan_insn *i, enum xlat_stub stub)
{
    if (c->esp_delta || c->backwards) {
        context_settle_esp(c);
        context_settle_df(c);
        context_at(c, XLAT_AT, i->off, 0);
    }
    context_exit(c, stub, i->off);
    c->v->emulated_count++;
    c->open = false;
}

static void emulate(struct context *c, const struct scan_insn *i)
{
    emulate_as(c, i, XLAT_STUB_EMULATE);
}

static bool is_opsize16(const struct scan_insn *i)
{
    return i->prefixes & SCAN_PFX_OPSIZE;
}

static bool is_far_seg(const struct scan_insn *i) /* a segment that may have a base */
{
    return i->seg == SCAN_FS || i->seg == SCAN_GS;
}

static void emit_adjust_esp(struct context *c, int32_t by)
{
    c->esp_delta += by;
    if (!c->fold)
        context_settle_esp(c);
}

/* LOCK and 66h stay. F2h and F3h stay where they are part of the opcode (SIMD); elsewhere an i686 ignores
 * them, but a newer host reads some as other instructions (F3 0F BC: TZCNT), so they go. Segment overrides
 * are resolved by the operand. */
static void put_prefixes(struct context *c, const struct scan_insn *i, bool keep_rep)
{
    if (i->prefixes & SCAN_PFX_LOCK)
        emit_1(&c->e, 0xF0);
    if (i->prefixes & SCAN_PFX_OPSIZE)
        emit_1(&c->e, 0x66);
    if (keep_rep && (i->prefixes & SCAN_PFX_REPNE))
        emit_1(&c->e, 0xF2);
    else if (keep_rep && (i->prefixes & SCAN_PFX_REP))
        emit_1(&c->e, 0xF3);
}

/* The guest's own bytes: 16 at once, of which len count; both buffers have the room. */
static void put_insn(struct context *c, const struct scan_insn *i)
{
    memcpy(c->e.p, insn_bytes(c, i), 16);
    c->e.p += i->len;
}

static void put_imm(struct context *c, const struct scan_insn *i)
{
    if (i->imm_len)
        emit_bytes(&c->e, insn_bytes(c, i) + i->imm_off, i->imm_len);
}

/* Goes on at the place that land() is called at if rcx is zero. Returns what land() wants. */
static uint8_t *jrcxz(struct context *c)
{
    emit_1(&c->e, 0xE3);
    emit_1(&c->e, 0);
    return c->e.p;
}

static void land(struct context *c, uint8_t *from)
{
    from[-1] = (uint8_t)(c->e.p - from);
}

/* --- memory operands
 * --------------------------------------------------------------------------------------------- */

struct address {
    uint8_t base, index, scale;
    int32_t disp;
};

/* 32-bit addressing form in host registers (SDM vol. 2, tables 2-2 and 2-3). bias is added to the
 * displacement: POP r/m32 sees ESP already incremented. */
static struct address parse_address(const struct context *c, const struct scan_insn *i, int32_t esp_bias)
{
    struct address a = {HOST_NONE, HOST_NONE, 0, i->disp_len ? i->disp : 0};
    unsigned mod = scan_modrm_mod(i), rm = scan_modrm_rm(i);

    if (i->has_sib) {
        unsigned base = i->sib & 7, index = i->sib >> 3 & 7;

        if (base != 5 || mod != 0)
            a.base = (uint8_t)host_gpr(base);
        if (index != 4) {
            a.index = (uint8_t)index;
            a.scale = i->sib >> 6;
        }
    } else if (rm != 5 || mod != 0) {
        a.base = (uint8_t)rm;
    }
    if (a.base == HOST_NONE && a.index != HOST_NONE && a.scale == 0) {
        a.base = a.index;
        a.index = HOST_NONE;
    }
    if (a.base == HOST_ESP)
        a.disp = (int32_t)((uint32_t)a.disp + (uint32_t)esp_bias + (uint32_t)c->esp_delta);
    return a;
}

/* r8d is an offset in segment FS or GS: makes it linear, and r9 the window to use with it. */
static struct emit_mem far_operand(struct context *c, unsigned seg)
{
    emit_mov32_load(&c->e, HOST_R9, seg_base(seg));
    emit_lea32(&c->e, HOST_R8, HOST_R8, HOST_R9, 0, 0);
    emit_mov64_load(&c->e, HOST_R9, seg_window(seg));
    return (struct emit_mem){HOST_R9, HOST_R8, 0, 0};
}

static struct emit_mem far_address(struct context *c, const struct address *a, unsigned seg)
{
    if (a->index != HOST_NONE) {
        emit_lea32(&c->e, HOST_R8, a->base, a->index, a->scale, a->disp);
        return far_operand(c, seg);
    }
    emit_mov32_load(&c->e, HOST_R8, seg_base(seg));
    if (a->base != HOST_NONE)
        emit_lea32(&c->e, HOST_R8, HOST_R8, a->base, 0, a->disp);
    else if (a->disp)
        emit_lea32(&c->e, HOST_R8, HOST_R8, HOST_NONE, 0, a->disp);
    emit_mov64_load(&c->e, HOST_R9, seg_window(seg));
    return (struct emit_mem){HOST_R9, HOST_R8, 0, 0};
}

/* r9: the window by the linear address in a register. pext r10, reg, [mask_chunk]; mov r9, [r13 + r10*8 + user_window]. */
static void user_window(struct context *c, unsigned reg)
{
    emit_bmi_mem(&c->e, EMIT_PEXT, HOST_R10, reg, CPU_FIELD(mask_chunk));
    emit_bytes(&c->e, "\x4F\x8B\x8C\xD5", 4);
    emit_4(&c->e, (uint32_t)offsetof(struct cpu, user_window));
}

/* To volatile_exit(), with the page's number in r11, if the linear address in a register lies in a page that volatile_page[] has. No flags:
 * pext r10, reg, [mask_volatile]; mov r10d, [r13 + r10*4 + volatile_page]; pext r11, reg, [mask_page]; lea ecx, [r10 + r11]; jrcxz. */
static void volatile_check(struct context *c, const struct scan_insn *i, unsigned reg)
{
    emit_bmi_mem(&c->e, EMIT_PEXT, HOST_R10, reg, CPU_FIELD(mask_volatile));
    emit_bytes(&c->e, "\x47\x8B\x94\x95", 4);
    emit_4(&c->e, (uint32_t)offsetof(struct cpu, volatile_page));
    emit_bmi_mem(&c->e, EMIT_PEXT, HOST_R11, reg, CPU_FIELD(mask_page));
    emit_mov32_rr(&c->e, HOST_R9, HOST_RCX);
    context_at(c, XLAT_AT_RCX9, i->off, 0);
    emit_lea32(&c->e, HOST_RCX, HOST_R10, HOST_R11, 0, 0);
    c->to_volatile[c->to_volatile_count++] = jrcxz(c);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
    context_at(c, XLAT_AT, i->off, 0);
}

/* Behind the instruction, which goes on over it. ESP is in place (op_works_on_esp()). */
static void volatile_exit(struct context *c, const struct scan_insn *i)
{
    uint8_t *over;

    context_at(c, XLAT_AT, insn_next(i), 0);
    emit_1(&c->e, 0xEB);
    emit_1(&c->e, 0);
    over = c->e.p;
    context_at(c, XLAT_AT_RCX9, i->off, 0);
    for (unsigned n = 0; n < c->to_volatile_count; n++)
        land(c, c->to_volatile[n]);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
    context_at(c, XLAT_AT, i->off, 0);
    emit_mov32_rr(&c->e, HOST_R10, HOST_R11);
    context_exit(c, XLAT_STUB_VOLATILE, i->off);
    land(c, over);
}

static struct emit_mem user_address(struct context *c, const struct address *a, const struct scan_insn *i)
{
    emit_lea32(&c->e, HOST_R8, a->base, a->index, a->scale, a->disp);
    if (i->hint == XLAT_HINT_VOLATILE)
        volatile_check(c, i, HOST_R8);
    user_window(c, HOST_R8);
    return (struct emit_mem){HOST_R9, HOST_R8, 0, 0};
}

/* Emits what the operand needs beforehand (r8, r9, r10, no flags) and returns its host form. */
static struct emit_mem prepare_address(struct context *c, const struct address *a, const struct scan_insn *i)
{
    uint8_t near = a->disp < XLAT_DISP_MIN ? HOST_WINTOP : HOST_WINDOW;

    if (i->hint == XLAT_HINT_USER || i->hint == XLAT_HINT_VOLATILE)
        return user_address(c, a, i);
    if (is_far_seg(i))
        return far_address(c, a, i->seg);
    if (a->base == HOST_NONE && a->index == HOST_NONE)
        return (struct emit_mem){a->disp < 0 ? HOST_WINTOP : HOST_WINDOW, HOST_NONE, a->disp, 0};
    if (i->hint == XLAT_HINT_WRAP) {
        emit_lea32(&c->e, HOST_R8, a->base, a->index, a->scale, a->disp);
        return (struct emit_mem){HOST_WINDOW, HOST_R8, 0, 0};
    }
    if (a->base != HOST_NONE && a->index != HOST_NONE) { /* a LEA of three parts takes some processors twice as long as one of two */
        emit_lea32(&c->e, HOST_R8, a->base, a->index, a->scale, 0);
        return (struct emit_mem){near, HOST_R8, a->disp, 0};
    }
    if (a->base == HOST_NONE) /* a table by index: a sum beyond 4 GiB lands in the guard (XLAT_HINT_WRAP) */
        return (struct emit_mem){near, a->index, a->disp, a->scale};
    return (struct emit_mem){near, a->base, a->disp, 0};
}

static struct emit_mem prepare_mem(struct context *c, const struct scan_insn *i)
{
    struct address a = parse_address(c, i, 0);

    return prepare_address(c, &a, i);
}

/* Operands whose address the emulator must make: 16-bit addressing, and any access through CS, which cannot
 * be written (SDM vol. 3, 5.5; reads through it are not worth telling apart). */
static bool mem_is_odd(const struct scan_insn *i)
{
    return i->adsize != 4 || i->seg == SCAN_CS;
}

/* AH, CH, DH, BH cannot be named beside r15 (REX makes them SPL..DIL): exchange the halves around the
 * operation. The address is computed first, since it may use the same register. */
static void high_byte_mem(struct context *c, const struct scan_insn *i)
{
    unsigned low = scan_modrm_reg(i) - 4, halves = 0xC0 | low << 3 | (low + 4);
    struct address a = parse_address(c, i, 0);
    struct emit_mem m = prepare_address(c, &a, i);

    if (m.base != HOST_R9 && m.index != HOST_R8) {
        emit_lea32(&c->e, HOST_R8, a.base, a.index, a.scale, a.disp);
        m = (struct emit_mem){HOST_WINDOW, HOST_R8, 0, 0};
    }
    emit_1(&c->e, 0x86);
    emit_1(&c->e, halves);
    context_at(c, XLAT_XCHG, i->off, low);
    put_prefixes(c, i, false);
    emit_op_mem(&c->e, 0, i->map, i->opcode, low, m);
    context_at(c, XLAT_XCHG, insn_next(i), low);
    emit_1(&c->e, 0x86);
    emit_1(&c->e, halves);
}

/* CMPXCHG r/m8, AH would compare with the wrong half; nobody writes it. */
static bool high_byte_mem_is_odd(const struct scan_insn *i)
{
    return i->map == SCAN_MAP_0F && i->opcode == 0xB0 && scan_modrm_reg(i) == 4;
}

static void modrm_mem(struct context *c, const struct scan_insn *i, unsigned fields, bool keep_rep)
{
    unsigned reg = scan_modrm_reg(i);
    struct emit_mem m;

    if (mem_is_odd(i)) {
        emulate(c, i);
        return;
    }
    if ((fields & REG_B) && reg >= 4) {
        if (high_byte_mem_is_odd(i))
            emulate(c, i);
        else
            high_byte_mem(c, i);
        return;
    }
    m = prepare_mem(c, i);
    put_prefixes(c, i, keep_rep);
    emit_op_mem(&c->e, 0, i->map, i->opcode, fields & REG_G ? host_gpr(reg) : reg, m);
    put_imm(c, i);
}

static void modrm_reg(struct context *c, const struct scan_insn *i, unsigned fields, bool keep_rep)
{
    unsigned reg = scan_modrm_reg(i), rm = scan_modrm_rm(i);

    if (fields & REG_G)
        reg = host_gpr(reg);
    if (fields & RM_G)
        rm = host_gpr(rm);
    if (reg == HOST_ESP && (fields & RM_B) && rm >= 4) { /* MOVZX ESP, AH: no encoding holds both */
        emulate(c, i);
        return;
    }
    if (i->prefixes == 0 && reg < 8 && rm < 8 && insn_bytes(c, i)[i->op_off] == i->opcode) {
        put_insn(c, i);
        return;
    }
    put_prefixes(c, i, keep_rep);
    emit_op_reg(&c->e, 0, i->map, i->opcode, reg, rm);
    put_imm(c, i);
}

static void modrm(struct context *c, const struct scan_insn *i, unsigned fields, bool keep_rep)
{
    if (scan_has_mem(i))
        modrm_mem(c, i, fields, keep_rep);
    else
        modrm_reg(c, i, fields, keep_rep);
}

/* ADD or SUB ESP, constant, whose flags nobody reads; LEA ESP, [ESP + constant]: by how much ESP changes, or 0. */
static int32_t esp_step(const struct context *c, const struct scan_insn *i)
{
    uint32_t by = 0;

    if (i->map != SCAN_MAP_1B || i->opsize != 4)
        return 0;
    if ((i->opcode == 0x81 || i->opcode == 0x83) && !scan_has_mem(i) && scan_modrm_rm(i) == CPU_ESP &&
        context_flags_dead(c, insn_next(i)))
        by = scan_modrm_reg(i) == 0 ? i->imm : scan_modrm_reg(i) == 5 ? 0u - i->imm : 0;
    if (i->opcode == 0x8D && scan_has_mem(i) && i->adsize == 4 && scan_modrm_reg(i) == CPU_ESP && scan_modrm_rm(i) == 4 &&
        (i->sib & 0x3F) == 0x24 && scan_modrm_mod(i))
        by = (uint32_t)i->disp;
    return by % 4 || by + 256 > 512 ? 0 : (int32_t)by;
}

static void digit(struct context *c, const struct scan_insn *i, struct op_row row)
{
    struct scan_insn alias;

    if (c->fold && esp_step(c, i)) {
        emit_adjust_esp(c, esp_step(c, i));
        return;
    }
    if (!(row.arg >> scan_modrm_reg(i) & 1)) {
        emulate(c, i);
        return;
    }
    if (i->map == SCAN_MAP_1B && i->opcode == 0x82) { /* alias of 80h, gone in 64-bit mode */
        alias = *i;
        alias.opcode = 0x80;
        i = &alias;
    }
    modrm(c, i, row.fields, false);
}

/* --- plain forms
 * ------------------------------------------------------------------------------------------------- */

/* No operand that moves. F3 90 is PAUSE: the one prefix that means something here. */
static void copy(struct context *c, const struct scan_insn *i)
{
    if (i->map == SCAN_MAP_1B && i->opcode == 0x90 && !(i->prefixes & SCAN_PFX_REP)) /* NOP: nothing but its entry */
        return;
    put_prefixes(c, i, i->map == SCAN_MAP_1B && i->opcode == 0x90);
    emit_opcode(&c->e, i->map, i->opcode);
    put_imm(c, i);
}

static void opreg(struct context *c, const struct scan_insn *i)
{
    unsigned reg = host_gpr(i->opcode & 7);

    put_prefixes(c, i, false);
    if (reg >= 8)
        emit_1(&c->e, 0x41);
    emit_opcode(&c->e, i->map, (i->opcode & 0xF8u) | (reg & 7));
    put_imm(c, i);
}

static void bswap(struct context *c, const struct scan_insn *i)
{
    if (is_opsize16(i)) /* undefined result */
        emulate(c, i);
    else
        opreg(c, i);
}

static void incdec(struct context *c, const struct scan_insn *i)
{
    put_prefixes(c, i, false);
    emit_op_reg(&c->e, 0, SCAN_MAP_1B, 0xFF, i->opcode >> 3 & 1, host_gpr(i->opcode & 7));
}

/* A0-A3 take a 64-bit address in 64-bit mode: re-encoded as 8A, 8B, 88, 89. */
static void moffs(struct context *c, const struct scan_insn *i)
{
    static const uint8_t opcode[4] = {0x8A, 0x8B, 0x88, 0x89};
    struct address a = {HOST_NONE, HOST_NONE, 0, i->disp};
    struct emit_mem m;

    if (mem_is_odd(i)) {
        emulate(c, i);
        return;
    }
    m = prepare_address(c, &a, i);
    put_prefixes(c, i, false);
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, opcode[i->opcode & 3], 0, m);
}

static void lea(struct context *c, const struct scan_insn *i)
{
    struct address a = parse_address(c, i, 0);

    if (i->adsize != 4 || !scan_has_mem(i))
        emulate(c, i);
    else if (c->fold && esp_step(c, i))
        emit_adjust_esp(c, esp_step(c, i));
    else if (i->opsize == 4 && a.index == HOST_NONE && a.disp == 0 && a.base == host_gpr(scan_modrm_reg(i)))
        ; /* LEA r, [r]: how assemblers fill; the upper half is zero as it is */
    else
        emit_lea(&c->e, i->opsize, host_gpr(scan_modrm_reg(i)), a.base, a.index, a.scale, a.disp);
}

static void xlatb(struct context *c, const struct scan_insn *i)
{
    struct emit_mem m = {HOST_WINDOW, HOST_R8, 0, 0};

    if (mem_is_odd(i)) {
        emulate(c, i);
        return;
    }
    emit_op_reg(&c->e, 0, SCAN_MAP_0F, 0xB6, HOST_R8, 0); /* movzx r8d, al */
    emit_lea32(&c->e, HOST_R8, HOST_RBX, HOST_R8, 0, 0);
    if (is_far_seg(i))
        m = far_operand(c, i->seg);
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0x8A, 0, m);
}

/* --- strings
 * ----------------------------------------------------------------------------------------------------- */

static void rebase(struct context *c, const struct scan_insn *i, unsigned reg)
{
    unsigned base = HOST_WINDOW;

    if (i->hint == XLAT_HINT_USER || i->hint == XLAT_HINT_VOLATILE) {
        user_window(c, reg);
        base = HOST_R9;
    }
    emit_op_mem(&c->e, 1, SCAN_MAP_1B, 0x8D, reg, (struct emit_mem){base, (uint8_t)reg, 0, 0});
}

/* One host instruction of the guest's string instruction. The window is aligned to 4 GiB: the low half of a rebased pointer is the guest's
 * own. */
static void string_op(struct context *c, const struct scan_insn *i)
{
    unsigned op = i->opcode & 0xFE;
    bool si = op == 0xA4 || op == 0xA6 || op == 0xAC, di = op != 0xAC;

    if (si && i->hint == XLAT_HINT_VOLATILE)
        volatile_check(c, i, CPU_ESI);
    if (di && i->hint == XLAT_HINT_VOLATILE)
        volatile_check(c, i, CPU_EDI);
    if (si) {
        rebase(c, i, CPU_ESI);
        context_at(c, XLAT_STRING, i->off, 0);
    }
    if (di)
        rebase(c, i, CPU_EDI);
    context_at(c, XLAT_STRING, i->off, 0);
    put_prefixes(c, i, true);
    emit_1(&c->e, i->opcode);
    context_at(c, XLAT_STRING, insn_next(i), 0);
    if (si)
        emit_mov32_rr(&c->e, CPU_ESI, CPU_ESI);
    if (di)
        emit_mov32_rr(&c->e, CPU_EDI, CPU_EDI);
}

/* One element of MOVS from top to bottom; rcx too with a repeat. From the store on it cannot be started over: it may have overwritten what
 * was loaded. */
static void move_downwards(struct context *c, const struct scan_insn *i, bool rep)
{
    static const struct emit_mem from = {HOST_WINDOW, CPU_ESI, 0, 0}, to = {HOST_WINDOW, CPU_EDI, 0, 0};
    int32_t size = i->opcode == 0xA4 ? 1 : i->opsize;
    unsigned wide = i->opcode & 1;

    put_prefixes(c, i, false);
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0x8A | wide, HOST_R8, from);
    put_prefixes(c, i, false);
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0x88 | wide, HOST_R8, to);
    context_at(c, XLAT_RETRY, 0, 0);
    emit_lea32(&c->e, CPU_ESI, CPU_ESI, HOST_NONE, 0, -size);
    emit_lea32(&c->e, CPU_EDI, CPU_EDI, HOST_NONE, 0, -size);
    if (rep)
        emit_lea32(&c->e, HOST_RCX, HOST_RCX, HOST_NONE, 0, -1);
}

#define MOVES_UNROLLED 2u

/* MOVS where DF is known to be set. With a repeat, the guest is in front of the same instruction with less to do behind each element, and,
 * behind the first, in the middle of it. */
static void movs_downwards(struct context *c, const struct scan_insn *i)
{
    uint8_t *out[1 + MOVES_UNROLLED];
    uint32_t again = 0;

    if (!op_is_repeated_move(i)) {
        move_downwards(c, i, false);
        return;
    }
    for (unsigned n = 0; n <= MOVES_UNROLLED; n++) {
        if (n == 1)
            again = emit_pos(&c->e);
        context_at(c, XLAT_STRING, i->off, XLAT_ARG_DF | (n ? XLAT_ARG_BEGUN : 0));
        out[n] = jrcxz(c);
        move_downwards(c, i, true);
    }
    context_at(c, XLAT_STRING, i->off, XLAT_ARG_DF | XLAT_ARG_BEGUN);
    emit_1(&c->e, 0xEB);
    emit_1(&c->e, (again - emit_pos(&c->e) - 1) & 0xFF);
    for (unsigned n = 0; n <= MOVES_UNROLLED; n++)
        land(c, out[n]);
}

static void string(struct context *c, const struct scan_insn *i)
{
    unsigned op = i->opcode & 0xFE;
    bool si = op == 0xA4 || op == 0xA6 || op == 0xAC;

    if (i->adsize != 4 || (si && is_far_seg(i)))
        emulate(c, i);
    else if (c->backwards)
        movs_downwards(c, i);
    else
        string_op(c, i);
}

/* --- stack
 * ------------------------------------------------------------------------------------------------------- */

/* Storing the same value twice is harmless, so everything up to the end of the LEA is "before". */
static void push_reg(struct context *c, unsigned host)
{
    emit_mov32_store(&c->e, stack(c, -4), host);
    emit_adjust_esp(c, -4);
}

static void push_imm(struct context *c, const struct scan_insn *i)
{
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0xC7, 0, stack(c, -4));
    emit_4(&c->e, i->imm_len == 1 ? (uint32_t)(int8_t)i->imm : i->imm);
    emit_adjust_esp(c, -4);
}

static void push_rel(struct context *c, int32_t rel)
{
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0xC7, 0, stack(c, -4));
    context_reloc_4(c, rel);
    emit_adjust_esp(c, -4);
}

static void push_sreg(struct context *c, unsigned seg)
{
    emit_mov32_load(&c->e, HOST_R11, seg_sel(seg));
    push_reg(c, HOST_R11);
}

/* The store may overlap the source: once it is done, starting over could read the changed value. */
static void push_mem(struct context *c, const struct scan_insn *i)
{
    emit_mov32_load(&c->e, HOST_R11, prepare_mem(c, i));
    emit_mov32_store(&c->e, stack(c, -4), HOST_R11);
    if (!c->fold)
        context_at(c, XLAT_RETRY, 0, 0);
    emit_adjust_esp(c, -4);
}

/* Starting over would load the same once more, but an interrupt in front of POP must find the register as it was. */
static void pop_reg(struct context *c, unsigned reg)
{
    emit_mov32_load(&c->e, host_gpr(reg), stack(c, 0));
    if (reg == CPU_ESP)
        return;
    if (!c->fold)
        context_at(c, XLAT_RETRY, 0, 0);
    emit_adjust_esp(c, 4);
}

/* The address is computed with ESP already incremented (SDM vol. 2, POP). */
static void pop_mem(struct context *c, const struct scan_insn *i)
{
    struct address a = parse_address(c, i, 4);

    if (!scan_has_mem(i)) {
        pop_reg(c, scan_modrm_rm(i));
        return;
    }
    emit_mov32_load(&c->e, HOST_R11, stack(c, 0));
    emit_mov32_store(&c->e, prepare_address(c, &a, i), HOST_R11);
    context_at(c, XLAT_RETRY, 0, 0);
    emit_adjust_esp(c, 4);
}

/* EBP is loaded last but one: until then nothing has changed. With ESP already raised an interrupt would
 * overwrite the slot that a second start reads, hence the temporary. */
static void leave(struct context *c)
{
    emit_lea32(&c->e, HOST_R8, HOST_RBP, HOST_NONE, 0, 4);
    emit_mov32_load(&c->e, HOST_RBP, (struct emit_mem){HOST_WINDOW, HOST_RBP, 0, 0});
    c->esp_delta = 0; /* ESP is loaded, whatever it was */
    context_at(c, XLAT_RETRY, 0, 0);
    emit_mov32_rr(&c->e, HOST_ESP, HOST_R8);
}

/* As with POPA. The lowest slot is written with what it holds, so that a fault in the second of two pages leaves the first one as
 * it was. */
static void pusha(struct context *c)
{
    emit_mov32_load(&c->e, HOST_R8, stack(c, -32));
    emit_mov32_store(&c->e, stack(c, -32), HOST_R8);
    for (unsigned reg = 0; reg < 8; reg++)
        emit_mov32_store(&c->e, stack(c, -4 * (int32_t)(reg + 1)), host_gpr(reg));
    emit_adjust_esp(c, -32);
}

/* 32 bytes lie in at most two pages: once the highest and the lowest slot have been read, nothing else can
 * fault. */
static void popa(struct context *c)
{
    emit_mov32_load(&c->e, HOST_R8, stack(c, 28));
    for (unsigned slot = 0; slot < 8; slot++) {
        if (7 - slot != CPU_ESP)
            emit_mov32_load(&c->e, 7 - slot, stack(c, 4 * (int32_t)slot));
        if (slot == 0)
            context_at(c, XLAT_RETRY, 0, 0);
    }
    emit_adjust_esp(c, 32);
}

/* --- PUSHF, POPF, CLI, STI
 * --------------------------------------------------------------------------------------- */

/* dst = src & the bits set in mask, flags untouched; mask in a register or in struct cpu. */
static void and_mask_reg(struct context *c, unsigned dst, unsigned src, unsigned mask)
{
    emit_bmi_reg(&c->e, EMIT_PEXT, dst, src, mask);
    emit_bmi_reg(&c->e, EMIT_PDEP, dst, dst, mask);
}

static void and_mask_mem(struct context *c, unsigned dst, unsigned src, struct emit_mem mask)
{
    emit_bmi_mem(&c->e, EMIT_PEXT, dst, src, mask);
    emit_bmi_mem(&c->e, EMIT_PDEP, dst, dst, mask);
}

static void pop_host(struct context *c, unsigned reg) /* pop r8..r11 */
{
    emit_1(&c->e, 0x41);
    emit_1(&c->e, 0x58 | (reg & 7));
}

static void push_host(struct context *c, unsigned reg)
{
    emit_1(&c->e, 0x41);
    emit_1(&c->e, 0x50 | (reg & 7));
}

/* op r/m32, imm32 on r8..r15 (81h /n). */
static void alu_imm(struct context *c, unsigned n, unsigned reg, uint32_t imm)
{
    emit_op_reg(&c->e, 0, SCAN_MAP_1B, 0x81, n, reg);
    emit_4(&c->e, imm);
}

enum { ALU_OR = 1, ALU_AND = 4 };

/* RF and VM read as zero in the image (SDM vol. 2, PUSHF). */
#define IMAGE_SYS (~(uint32_t)(CPU_RF | CPU_VM | CPU_HOST_FLAGS | CPU_IF))

static void pushf_bmi2(struct context *c)
{
    emit_1(&c->e, 0x9C);
    pop_host(c, HOST_R8);
    and_mask_mem(c, HOST_R8, HOST_R8, CPU_FIELD(mask_host_flags));
    emit_mov32_load(&c->e, HOST_R9, CPU_FIELD(eflags_sys));
    emit_mov32_imm(&c->e, HOST_R10, IMAGE_SYS);
    and_mask_reg(c, HOST_R9, HOST_R9, HOST_R10);
    emit_lea32(&c->e, HOST_R8, HOST_R8, HOST_R9, 0, 0);
    emit_mov32_load(&c->e, HOST_R9, CPU_FIELD(vif));
    emit_lea32(&c->e, HOST_R8, HOST_R8, HOST_R9, 0, 0);
}

static void pushf_plain(struct context *c, const struct scan_insn *i)
{
    emit_1(&c->e, 0x9C);
    pop_host(c, HOST_R9);
    emit_mov32_rr(&c->e, HOST_R8, HOST_R9);
    emit_mov32_load(&c->e, HOST_R10, CPU_FIELD(eflags_sys));
    alu_imm(c, ALU_AND, HOST_R8, CPU_HOST_FLAGS);
    context_at(c, XLAT_RETRY, 0, 0); /* the flags are ours until POPFQ */
    alu_imm(c, ALU_AND, HOST_R10, IMAGE_SYS);
    emit_op_reg(&c->e, 0, SCAN_MAP_1B, 0x09, HOST_R10, HOST_R8);
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0x0B, HOST_R8, CPU_FIELD(vif));
    push_host(c, HOST_R9);
    emit_1(&c->e, 0x9D);
    context_at(c, XLAT_AT, i->off, 0);
}

static void pushf(struct context *c, const struct scan_insn *i)
{
    if (is_opsize16(i)) {
        emulate(c, i);
        return;
    }
    if (c->bmi2)
        pushf_bmi2(c);
    else
        pushf_plain(c, i);
    push_reg(c, HOST_R8);
}

/* What POPF changes beside the flags the host holds is left to the emulator: the exit is taken unless those
 * bits of the image (r8d) equal the present ones. At CPL 0 IF is taken inline too; at CPL 3 IOPL in the image
 * is ignored, and so is IF unless IOPL is 3, which is not known here, hence compared (SDM vol. 2, POPF, table
 * "Effect of POPF/POPFD on the EFLAGS"). */
static void popf_check(struct context *c, const struct scan_insn *i)
{
    uint32_t mask = CPU_TF | CPU_NT | CPU_AC | CPU_VIF | CPU_VIP | CPU_ID;
    uint8_t *ok;

    mask |= c->user ? CPU_IF : CPU_IOPL;
    emit_mov32_load(&c->e, HOST_R9, CPU_FIELD(eflags_sys));
    if (c->user) {
        emit_mov32_load(&c->e, HOST_R10, CPU_FIELD(vif));
        emit_lea32(&c->e, HOST_R9, HOST_R9, HOST_R10, 0, 0);
    }
    emit_mov32_imm(&c->e, HOST_R11, mask);
    emit_bmi_reg(&c->e, EMIT_PEXT, HOST_R10, HOST_R8, HOST_R11);
    emit_bmi_reg(&c->e, EMIT_PEXT, HOST_R11, HOST_R9, HOST_R11);
    emit_op_reg(&c->e, 0, SCAN_MAP_1B, 0xF7, 2, HOST_R11); /* not */
    emit_mov32_rr(&c->e, HOST_R9, HOST_RCX);
    emit_lea32(&c->e, HOST_RCX, HOST_R10, HOST_R11, 0, 1);
    context_at(c, XLAT_AT_RCX9, i->off, 0);
    ok = jrcxz(c);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
    context_at(c, XLAT_AT, i->off, 0);
    context_exit(c, XLAT_STUB_EMULATE, i->off);
    land(c, ok);
    context_at(c, XLAT_AT_RCX9, i->off, 0);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
    context_at(c, XLAT_AT, i->off, 0);
}

/* If vif (in r10d) and irq_pending: leave through POLL. */
static void popf_poll(struct context *c, const struct scan_insn *i)
{
    uint8_t *masked, *none;

    context_at(c, XLAT_AT, insn_next(i), 0);
    emit_mov32_rr(&c->e, HOST_R9, HOST_RCX);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R10);
    context_at(c, XLAT_AT_RCX9, insn_next(i), 0);
    masked = jrcxz(c);
    emit_mov32_load(&c->e, HOST_RCX, CPU_FIELD(irq_pending));
    none = jrcxz(c);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
    context_at(c, XLAT_AT, insn_next(i), 0);
    context_exit(c, XLAT_STUB_POLL, insn_next(i));
    land(c, masked);
    land(c, none);
    context_at(c, XLAT_AT_RCX9, insn_next(i), 0);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
}

static void popf(struct context *c, const struct scan_insn *i)
{
    if (is_opsize16(i) || !c->bmi2) {
        emulate(c, i);
        return;
    }
    emit_mov32_load(&c->e, HOST_R8, stack(c, 0));
    popf_check(c, i);
    if (!c->user)
        and_mask_mem(c, HOST_R10, HOST_R8, CPU_FIELD(mask_if));
    and_mask_mem(c, HOST_R8, HOST_R8, CPU_FIELD(mask_host_flags));
    emit_lea32(&c->e, HOST_R8, HOST_R8, HOST_NONE, 0, CPU_FLAG1);
    push_host(c, HOST_R8);
    emit_1(&c->e, 0x9D);
    context_at(c, XLAT_RETRY, 0, 0);
    emit_adjust_esp(c, 4);
    if (c->user)
        return;
    emit_mov32_store(&c->e, CPU_FIELD(vif), HOST_R10);
    popf_poll(c, i);
}

static void set_vif(struct context *c, uint32_t value)
{
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0xC7, 0, CPU_FIELD(vif));
    emit_4(&c->e, value);
}

static void cli(struct context *c, const struct scan_insn *i)
{
    if (c->user) /* IOPL decides */
        emulate(c, i);
    else
        set_vif(c, 0);
}

/* STI holds interrupts off until after the next instruction (SDM vol. 2, STI). Where that one is run by the
 * monitor (HLT above all: an interrupt between the two would be slept through), the monitor runs STI too and
 * keeps the shadow itself. */
static const struct scan_insn *next_in_page(const struct context *c, const struct scan_insn *i)
{
    int32_t next = insn_next(i);
    int n = !c->page->unit && next < (int32_t)SCAN_PAGE_SIZE ? c->page->index[next] : -1;

    return n >= 0 ? &c->page->insn[n] : NULL;
}

static bool next_is_sensitive(const struct context *c, const struct scan_insn *i)
{
    const struct scan_insn *n = next_in_page(c, i);

    return n && scan_class_sensitive((enum scan_class)n->cls);
}

static bool next_is_sysexit(const struct context *c, const struct scan_insn *i)
{
    const struct scan_insn *n = next_in_page(c, i);

    return n && n->map == SCAN_MAP_0F && n->opcode == 0x35 && !n->prefixes;
}

/* A pending interrupt is delivered by the monitor, with the shadow. One that arrives while this sequence runs
 * waits for its end (RETRY); the monitor sees the STI in front of EIP and runs the next instruction first. */
static void sti(struct context *c, const struct scan_insn *i)
{
    uint8_t *ok;

    if (!c->user && next_is_sysexit(c, i)) { /* the way out of a system call: both at once */
        emit_mov32_imm(&c->e, HOST_R10, 1);
        emulate_as(c, i, XLAT_STUB_SYSEXIT);
        return;
    }
    if (c->user || next_is_sensitive(c, i)) {
        emulate(c, i);
        return;
    }
    set_vif(c, CPU_IF);
    context_at(c, XLAT_RETRY, 0, 0);
    emit_mov32_rr(&c->e, HOST_R9, HOST_RCX);
    emit_mov32_load(&c->e, HOST_RCX, CPU_FIELD(irq_pending));
    ok = jrcxz(c);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
    context_exit(c, XLAT_STUB_STI, insn_next(i));
    land(c, ok);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
}

/* MOV r/m, Sreg: a 32-bit register gets the selector zero-extended, memory always 16 bits (SDM vol. 2, MOV).
 */
static void from_sreg(struct context *c, const struct scan_insn *i)
{
    unsigned seg = scan_modrm_reg(i);
    struct emit_mem m;

    if (seg > SCAN_GS || (scan_has_mem(i) && mem_is_odd(i))) {
        emulate(c, i);
    } else if (scan_has_mem(i)) {
        m = prepare_mem(c, i);
        emit_mov32_load(&c->e, HOST_R11, seg_sel(seg));
        emit_1(&c->e, 0x66);
        emit_mov32_store(&c->e, m, HOST_R11);
    } else {
        if (is_opsize16(i))
            emit_1(&c->e, 0x66);
        emit_mov32_load(&c->e, host_gpr(scan_modrm_rm(i)), seg_sel(seg));
    }
}

/* call [r13+stub], with the instruction's EIP in r8d: comes back when the instruction is done. */
static void call_stub(struct context *c, const struct scan_insn *i, enum xlat_stub stub)
{
    emit_1(&c->e, 0x41); /* mov r8d, imm32 */
    emit_1(&c->e, 0xB8);
    context_reloc_4(c, i->off);
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0xFF, 2,
                (struct emit_mem){HOST_CPU, HOST_NONE, (int32_t)(offsetof(struct cpu, stub) + 8 * stub), 0});
    c->v->emulated_count++;
}

/* r9d: selector. The stub knows what the last loads at CPL 0 came to. */
static void load_sreg(struct context *c, const struct scan_insn *i, unsigned seg)
{
    emit_mov32_imm(&c->e, HOST_R10, seg * CPU_MEMO_STRIDE);
    call_stub(c, i, XLAT_STUB_SREG);
}

static bool is_data_seg(unsigned seg)
{
    return seg == SCAN_ES || seg == SCAN_DS || seg == SCAN_FS || seg == SCAN_GS;
}

static void to_sreg(struct context *c, const struct scan_insn *i)
{
    unsigned seg = scan_modrm_reg(i);

    if (c->user || !is_data_seg(seg) || (scan_has_mem(i) && mem_is_odd(i))) {
        emulate(c, i);
        return;
    }
    if (scan_has_mem(i)) /* movzx r9d, r/m16 */
        emit_op_mem(&c->e, 0, SCAN_MAP_0F, 0xB7, HOST_R9, prepare_mem(c, i));
    else
        emit_op_reg(&c->e, 0, SCAN_MAP_0F, 0xB7, HOST_R9, host_gpr(scan_modrm_rm(i)));
    load_sreg(c, i, seg);
}

static void pop_sreg(struct context *c, const struct scan_insn *i, unsigned seg)
{
    if (c->user || is_opsize16(i)) {
        emulate(c, i);
        return;
    }
    emit_op_mem(&c->e, 0, SCAN_MAP_0F, 0xB7, HOST_R9, stack(c, 0));
    load_sreg(c, i, seg);
    emit_adjust_esp(c, 4);
}

static void cpuid(struct context *c, const struct scan_insn *i)
{
    if (i->len == 2)
        call_stub(c, i, XLAT_STUB_CPUID);
    else
        emulate(c, i);
}

/* SYSENTER, SYSEXIT, INT n, IRETD. */
static void transfer(struct context *c, const struct scan_insn *i, enum xlat_stub stub)
{
    bool plain = !i->prefixes && !is_opsize16(i);

    if (stub == XLAT_STUB_INT || stub == XLAT_STUB_SYSEXIT)
        emit_mov32_imm(&c->e, HOST_R10, (uint32_t)i->imm & 0xFF);
    emulate_as(c, i, plain ? stub : XLAT_STUB_EMULATE);
}

static void port(struct context *c, const struct scan_insn *i)
{
    uint32_t size = !(i->opcode & 1) ? 1 : is_opsize16(i) ? 2 : 4;
    uint32_t where = i->opcode & 8 ? XLAT_PORT_DX : (uint32_t)i->imm & 0xFF;

    emit_mov32_imm(&c->e, HOST_R10, where | size << 16 | (uint32_t)i->len << 24);
    emulate_as(c, i, i->opcode & 2 ? XLAT_STUB_OUT : XLAT_STUB_IN);
}

/* --- branches
 * ---------------------------------------------------------------------------------------------------- */

static void jcc(struct context *c, const struct scan_insn *i)
{
    unsigned cc = i->opcode & 15;

    if (!c->step) {
        context_branch(c, cc, i->target);
        return;
    }
    emit_1(&c->e, 0x70 | (cc ^ 1));
    emit_1(&c->e, 10); /* over the exit: mov r8d, imm32; jmp [r13+disp8] */
    context_exit(c, XLAT_STUB_STEP, i->target);
}

/* LOOPcc and JECXZ reach 127 bytes only: through a jump. 67h keeps the counter 32 bits wide. */
static void loop(struct context *c, const struct scan_insn *i)
{
    uint8_t *over;

    if (i->adsize != 4) {
        emulate(c, i);
        return;
    }
    emit_1(&c->e, 0x67);
    emit_1(&c->e, i->opcode);
    emit_1(&c->e, 2);
    context_at(c, XLAT_AT, insn_next(i), 0);
    emit_1(&c->e, 0xEB);
    emit_1(&c->e, 0);
    over = c->e.p;
    context_at(c, XLAT_AT, i->target, 0);
    if (c->step)
        context_exit(c, XLAT_STUB_STEP, i->target);
    else
        context_branch(c, BRANCH_JMP, i->target);
    land(c, over);
}

/* The callee came back: r8d is where to. It is here only if that is R; otherwise it goes to the miss tail.
 * CMP where the flags are dead, else without touching them: ~r8d + R + 1 = R - r8d. */
static void landing(struct context *c, int32_t ret)
{
    uint8_t *ok;

    context_at(c, XLAT_AT_R8, 0, 0);
    if (!context_has_code(c, ret) &&
        !context_is_outside(c, ret)) { /* nothing to go on with: no-return call */
        context_jmp_stub(c, XLAT_STUB_MISS);
        c->open = false;
        return;
    }
    if (context_flags_dead(c, ret)) {
        emit_op_reg(&c->e, 0, SCAN_MAP_1B, 0x81, 7, HOST_R8); /* cmp r8d, R */
        context_reloc_4(c, ret);
        context_branch_tail(c, 5, TAIL_MISS);
        return;
    }
    emit_mov32_rr(&c->e, HOST_R9, HOST_RCX);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R8);
    context_at(c, XLAT_AT_R8_RCX9, 0, 0);
    emit_op_reg(&c->e, 0, SCAN_MAP_1B, 0xF7, 2, HOST_RCX); /* not ecx */
    emit_1(&c->e, 0x8D);                                   /* lea ecx, [rcx + R + 1] */
    emit_1(&c->e, 0x89);
    context_reloc_4(c, ret + 1);
    ok = jrcxz(c);
    context_branch_tail(c, BRANCH_JMP, TAIL_MISS_RCX);
    land(c, ok);
    context_at(c, XLAT_AT_RCX9, ret, 0);
    emit_mov32_rr(&c->e, HOST_RCX, HOST_R9);
}

static void jmp(struct context *c, const struct scan_insn *i)
{
    if (is_opsize16(i))
        emulate(c, i);
    else
        context_transfer(c, i->target);
}

static void call(struct context *c, const struct scan_insn *i)
{
    int32_t ret = insn_next(i);

    c->fold = false; /* whatever is saved up is to be made on the way */
    if (is_opsize16(i)) {
        emulate(c, i);
        return;
    }
    push_rel(c, ret);
    context_at(c, XLAT_AT, i->target, 0);
    if (i->target == ret) /* CALL to the next instruction reads EIP: no return will match it */
        return;
    if (c->step) {
        context_transfer(c, i->target);
        return;
    }
    context_branch(c, BRANCH_CALL, i->target);
    landing(c, ret);
}

/* r8d: target. jmp (4) or call (2) through the indirect-branch table; digit is that of FF /n. */
static void indirect(struct context *c, unsigned n)
{
    if (c->step) {
        context_jmp_stub(c, XLAT_STUB_STEP);
        return;
    }
    if (!c->bmi2) {
        emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0xFF, n,
                    (struct emit_mem){HOST_CPU, HOST_NONE,
                                      (int32_t)(offsetof(struct cpu, stub) + 8 * XLAT_STUB_LOOKUP), 0});
        return;
    }
    emit_rorx32(&c->e, HOST_R9, HOST_R8, 4);
    emit_lea32(&c->e, HOST_R9, HOST_R9, HOST_R8, 0, 0);
    emit_bmi_mem(&c->e, EMIT_PEXT, HOST_R9, HOST_R9, CPU_FIELD(ibtc_mask));
    emit_mov64_load(&c->e, HOST_R10, CPU_FIELD(ibtc));
    emit_1(&c->e, 0x43); /* FF /n [r10 + r9*8] */
    emit_1(&c->e, 0xFF);
    emit_1(&c->e, n << 3 | 4);
    emit_1(&c->e, 3 << 6 | 1 << 3 | 2);
}

static void load_target(struct context *c, const struct scan_insn *i)
{
    if (scan_has_mem(i))
        emit_mov32_load(&c->e, HOST_R8, prepare_mem(c, i));
    else
        emit_mov32_rr(&c->e, HOST_R8, host_gpr(scan_modrm_rm(i)));
}

static void icall(struct context *c, const struct scan_insn *i)
{
    c->fold = false;
    load_target(c, i);
    emit_op_mem(&c->e, 0, SCAN_MAP_1B, 0xC7, 0, stack(c, -4));
    context_reloc_4(c, insn_next(i));
    if (scan_has_mem(i)) /* the store may have changed what the target was loaded from */
        context_at(c, XLAT_RETRY, 0, 0);
    emit_adjust_esp(c, -4);
    context_at(c, XLAT_AT_R8, 0, 0);
    indirect(c, 2);
    if (c->step)
        c->open = false;
    else
        landing(c, insn_next(i));
}

static void ret(struct context *c, const struct scan_insn *i)
{
    c->fold = false;
    if (is_opsize16(i)) {
        emulate(c, i);
        return;
    }
    emit_mov32_load(&c->e, HOST_R8, stack(c, 0));
    emit_adjust_esp(c, 4 + (i->imm_len ? (int32_t)(i->imm & 0xFFFF) : 0));
    context_at(c, XLAT_AT_R8, 0, 0);
    if (c->step)
        context_jmp_stub(c, XLAT_STUB_STEP);
    else
        emit_1(&c->e, 0xC3);
    c->open = false;
}

static void group5(struct context *c, const struct scan_insn *i)
{
    unsigned n = scan_modrm_reg(i);

    if (n <= 1) {
        modrm(c, i, RM_G, false);
    } else if ((n != 2 && n != 4 && n != 6) || is_opsize16(i) || (scan_has_mem(i) && mem_is_odd(i))) {
        emulate(c, i);
    } else if (n == 2) {
        icall(c, i);
    } else if (n == 4) {
        load_target(c, i);
        indirect(c, 4);
        c->open = false;
    } else if (scan_has_mem(i)) {
        push_mem(c, i);
    } else {
        push_reg(c, host_gpr(scan_modrm_rm(i)));
    }
}

/* --- x87, MMX, SSE
 * ----------------------------------------------------------------------------------------------- */

/* The few SIMD instructions with a general register. */
static unsigned simd_fields(const struct scan_insn *i)
{
    bool scalar = i->prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE);

    if (i->map != SCAN_MAP_0F)
        return 0;
    switch (i->opcode) {
    case 0x2A: /* CVTPI2PS; CVTSI2SS and CVTSI2SD with a prefix */
        return scalar ? RM_G : 0;
    case 0x2C:
    case 0x2D: /* CVTTPS2PI, ...; CVTTSS2SI, ... with a prefix */
        return scalar ? REG_G : 0;
    case 0x50: /* MOVMSKPS */
    case 0xC5: /* PEXTRW */
    case 0xD7: /* PMOVMSKB */
    case 0xC3: /* MOVNTI */
        return REG_G;
    case 0x6E: /* MOVD to */
    case 0xC4: /* PINSRW */
        return RM_G;
    case 0x7E: /* MOVD from; MOVQ xmm, xmm with F3h */
        return i->prefixes & SCAN_PFX_REP ? 0 : RM_G;
    default:
        return 0;
    }
}

static void simd(struct context *c, const struct scan_insn *i)
{
    if (i->cls != SCAN_CLASS_SIMD)
        emulate(c, i);
    else if (i->has_modrm)
        modrm(c, i, simd_fields(i), true);
    else
        copy(c, i); /* EMMS */
}

static void fpu(struct context *c, const struct scan_insn *i)
{
    if (i->cls == SCAN_CLASS_FPU)
        modrm(c, i, 0, false);
    else
        emulate(c, i);
}

static void movbe(struct context *c, const struct scan_insn *i)
{
    if (!scan_has_mem(i) || (i->prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE)))
        emulate(c, i);
    else
        modrm(c, i, REG_G, false);
}

/* 0F AE: LDMXCSR, STMXCSR, CLFLUSH, fences; all without a mandatory prefix. The rest saves or restores more
 * state than the guest has. */
static void fence(struct context *c, const struct scan_insn *i)
{
    unsigned allowed = scan_has_mem(i) ? 1u << 2 | 1u << 3 | 1u << 7 : 1u << 5 | 1u << 6 | 1u << 7;

    if (!(allowed >> scan_modrm_reg(i) & 1) ||
        (i->prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE | SCAN_PFX_OPSIZE)))
        emulate(c, i);
    else
        modrm(c, i, 0, false);
}

static void cmpxchg8b(struct context *c, const struct scan_insn *i)
{
    if (scan_modrm_reg(i) != 1 || !scan_has_mem(i))
        emulate(c, i);
    else
        modrm(c, i, 0, false);
}

/* --- dispatch
 * ---------------------------------------------------------------------------------------------------- */

static void stack_op(struct context *c, const struct scan_insn *i, struct op_row row)
{
    if (is_opsize16(i) || (scan_has_mem(i) && mem_is_odd(i))) {
        emulate(c, i);
        return;
    }
    switch ((enum action)row.action) {
    case PUSH_REG:
        push_reg(c, host_gpr(i->opcode & 7));
        break;
    case POP_REG:
        pop_reg(c, i->opcode & 7);
        break;
    case PUSH_IMM:
        push_imm(c, i);
        break;
    case PUSH_SREG:
        push_sreg(c, row.arg);
        break;
    case PUSHA:
        pusha(c);
        break;
    case POPA:
        popa(c);
        break;
    case LEAVE:
        leave(c);
        break;
    default:
        if (scan_modrm_reg(i) == 0)
            pop_mem(c, i);
        else
            emulate(c, i);
        break;
    }
}

/* It clears the last instruction's pointers, as the monitor does with the host's at each exit: nothing would
 * tell the one from the other. */
static bool is_fninit(const struct scan_insn *i)
{
    return i->map == SCAN_MAP_1B && i->opcode == 0xDB && i->modrm == 0xE3;
}

static bool must_emulate(const struct context *c, const struct scan_insn *i)
{
    bool fpu_trap = c->v->mode & XLAT_MODE_FPU_TRAP;

    switch ((enum scan_class)i->cls) {
    case SCAN_CLASS_INVALID:
    case SCAN_CLASS_UD:
    case SCAN_CLASS_VIRT:
    case SCAN_CLASS_FPU_ENV:
    case SCAN_CLASS_FXSAVE:
        return true;
    case SCAN_CLASS_FPU:
        return fpu_trap || is_fninit(i);
    case SCAN_CLASS_SIMD:
        return fpu_trap;
    default:
        return false;
    }
}

/* Does a ModRM operand name ESP as a register? */
static bool names_esp(const struct scan_insn *i, unsigned fields)
{
    return ((fields & REG_G) && scan_modrm_reg(i) == CPU_ESP) || ((fields & RM_G) && !scan_has_mem(i) && scan_modrm_rm(i) == CPU_ESP);
}

/* AH..BH beside memory: see high_byte_mem(). */
static bool exchanges_halves(const struct scan_insn *i, unsigned fields)
{
    return (fields & REG_B) && scan_modrm_reg(i) >= 4 && scan_has_mem(i);
}

bool op_works_on_esp(const struct context *c, const struct scan_insn *i)
{
    struct op_row row = row_of(i);

    if (must_emulate(c, i) || i->hint == XLAT_HINT_VOLATILE)
        return false;
    switch ((enum action)row.action) {
    case COPY:
    case NOP:
    case PUSH_IMM:
    case LEAVE:
        return true;
    case PUSH_REG:
    case POP_REG:
    case OPREG:
    case INCDEC:
    case BSWAP:
        return (i->opcode & 7) != CPU_ESP;
    case CALL:
    case RET:
        return true;
    case LEA:
        return scan_modrm_reg(i) != CPU_ESP || esp_step(c, i);
    case MODRM:
        return !names_esp(i, row.fields) && !exchanges_halves(i, row.fields);
    case DIGIT:
        return !names_esp(i, row.fields) || esp_step(c, i);
    case GROUP5:
        switch (scan_modrm_reg(i)) {
        case 0:
        case 1:
        case 2:
            return scan_has_mem(i) || scan_modrm_rm(i) != CPU_ESP;
        case 6:
            return scan_has_mem(i);
        default:
            return false;
        }
    case MOFFS:
    case FPU:
        return true;
    case SIMD:
        return !names_esp(i, simd_fields(i));
    default:
        return false;
    }
}

bool op_is_std(const struct context *c, const struct scan_insn *i)
{
    return i->map == SCAN_MAP_1B && i->opcode == 0xFD && !must_emulate(c, i);
}

bool op_is_cld(const struct context *c, const struct scan_insn *i)
{
    return i->map == SCAN_MAP_1B && i->opcode == 0xFC && !must_emulate(c, i);
}

bool op_is_repeated_move(const struct scan_insn *i)
{
    return i->map == SCAN_MAP_1B && (i->opcode & 0xFE) == 0xA4 && (i->prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE));
}

bool op_works_backwards(const struct context *c, const struct scan_insn *i)
{
    struct op_row row = row_of(i);

    if (must_emulate(c, i) || (scan_has_mem(i) && mem_is_odd(i)) || i->hint == XLAT_HINT_VOLATILE)
        return false;
    switch ((enum action)row.action) {
    case COPY:
        return !op_is_std(c, i) && !op_is_cld(c, i);
    case NOP:
    case OPREG:
    case INCDEC:
    case BSWAP:
    case LEA:
    case MOFFS:
        return true;
    case MODRM:
    case DIGIT:
        return !exchanges_halves(i, row.fields);
    case JCC:
        return !is_opsize16(i);
    case STRING:
        return (i->opcode & 0xFE) == 0xA4 && i->adsize == 4 && !is_far_seg(i) && !i->hint;
    default:
        return false;
    }
}

/* MOV, MOVZX, MOVSX, CMOVcc, SETcc, arithmetic, shifts, bits by a constant, CMPXCHG, XADD: one memory operand, no implied one; and string
 * instructions. */
static bool may_go_by_address(const struct scan_insn *i)
{
    if (i->cls == SCAN_CLASS_STRING)
        return true;
    if (!scan_has_mem(i))
        return false;
    if (i->cls != SCAN_CLASS_PLAIN || !(i->seg == SCAN_SEG_NONE || i->seg == SCAN_DS || i->seg == SCAN_ES))
        return false;
    unsigned op = i->opcode;
    if (i->map == SCAN_MAP_1B)
        return op < 0x40 || op == 0x69 || op == 0x6B || (op >= 0x80 && op <= 0x8B) || op == 0xC0 || op == 0xC1 || op == 0xC6 || op == 0xC7 ||
               (op >= 0xD0 && op <= 0xD3) || op == 0xF6 || op == 0xF7 || (op >= 0xFE && scan_modrm_reg(i) <= 1);
    if (i->map == SCAN_MAP_0F)
        return (op >= 0x40 && op <= 0x4F) || (op >= 0x90 && op <= 0x9F) || op == 0xAF || op == 0xB0 || op == 0xB1 || op == 0xB6 ||
               op == 0xB7 || op == 0xBA || (op >= 0xBE && op <= 0xC1) || (op == 0xC7 && scan_modrm_reg(i) == 1);
    return false;
}

bool xlat_takes_hint(const struct scan_insn *i, enum xlat_hint hint)
{
    if (i->adsize != 4)
        return false;
    if (hint == XLAT_HINT_USER || hint == XLAT_HINT_VOLATILE)
        return may_go_by_address(i);
    return scan_has_mem(i) && i->seg != SCAN_FS && i->seg != SCAN_GS;
}

static void translate(struct context *c, const struct scan_insn *i)
{
    struct op_row row = row_of(i);

    if (must_emulate(c, i)) {
        emulate(c, i);
        return;
    }
    switch ((enum action)row.action) {
    case EMULATE:
        emulate(c, i);
        break;
    case COPY:
        copy(c, i);
        break;
    case MODRM:
        modrm(c, i, row.fields, false);
        break;
    case DIGIT:
        digit(c, i, row);
        break;
    case OPREG:
        opreg(c, i);
        break;
    case INCDEC:
        incdec(c, i);
        break;
    case PUSH_REG:
    case POP_REG:
    case PUSH_IMM:
    case PUSH_SREG:
    case PUSHA:
    case POPA:
    case POP_MEM:
    case LEAVE:
        stack_op(c, i, row);
        break;
    case PUSHF:
        pushf(c, i);
        break;
    case POPF:
        popf(c, i);
        break;
    case JCC:
        if (is_opsize16(i))
            emulate(c, i);
        else
            jcc(c, i);
        break;
    case JMP:
        jmp(c, i);
        break;
    case CALL:
        call(c, i);
        break;
    case RET:
        ret(c, i);
        break;
    case LOOP:
        if (is_opsize16(i))
            emulate(c, i);
        else
            loop(c, i);
        break;
    case GROUP5:
        group5(c, i);
        break;
    case MOFFS:
        moffs(c, i);
        break;
    case LEA:
        lea(c, i);
        break;
    case XLATB:
        xlatb(c, i);
        break;
    case STRING:
        string(c, i);
        break;
    case FROM_SREG:
        from_sreg(c, i);
        break;
    case NOP:
        break; /* nothing but its entry; hints and prefetches cannot fault */
    case FPU:
        fpu(c, i);
        break;
    case FWAIT:
        if (c->v->mode & XLAT_MODE_FPU_TRAP)
            emulate(c, i);
        else
            copy(c, i);
        break;
    case SIMD:
        simd(c, i);
        break;
    case MOVBE:
        movbe(c, i);
        break;
    case FENCE:
        fence(c, i);
        break;
    case CMPXCHG8B:
        cmpxchg8b(c, i);
        break;
    case CLI:
        cli(c, i);
        break;
    case STI:
        sti(c, i);
        break;
    case RDTSC:
        if (c->v->mode & XLAT_MODE_TSC_TRAP)
            emulate(c, i);
        else
            copy(c, i);
        break;
    case BSWAP:
        bswap(c, i);
        break;
    case TO_SREG:
        to_sreg(c, i);
        break;
    case POP_SREG:
        pop_sreg(c, i, row.arg);
        break;
    case CPUID:
        cpuid(c, i);
        break;
    case TRANSFER:
        transfer(c, i, (enum xlat_stub)row.arg);
        break;
    case PORT:
        port(c, i);
        break;
    }
}

void op_translate(struct context *c, const struct scan_insn *i)
{
    c->to_volatile_count = 0;
    translate(c, i);
    if (c->to_volatile_count)
        volatile_exit(c, i);
}
