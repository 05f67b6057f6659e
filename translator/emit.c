/* translator/emit.c: see emit.h. Encodings: SDM vol. 2, 2.1 (ModRM, SIB), 2.2.1 (REX), 2.3 (VEX). */
#include "translator/emit.h"

#include "scanner/scan.h"

/* The manual's recommended forms (SDM vol. 2, NOP, table 4-12). */
void emit_nop(struct emit *e, unsigned n)
{
    static const uint8_t form[10][9] = {{0},
                                        {0x90},
                                        {0x66, 0x90},
                                        {0x0F, 0x1F, 0x00},
                                        {0x0F, 0x1F, 0x40, 0x00},
                                        {0x0F, 0x1F, 0x44, 0x00, 0x00},
                                        {0x66, 0x0F, 0x1F, 0x44, 0x00, 0x00},
                                        {0x0F, 0x1F, 0x80, 0x00, 0x00, 0x00, 0x00},
                                        {0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
                                        {0x66, 0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00}};

    while (n) {
        unsigned len = n < 9 ? n : 9;
        emit_bytes(e, form[len], len);
        n -= len;
    }
}


void emit_opcode(struct emit *e, unsigned map, unsigned opcode)
{
    if (map != SCAN_MAP_1B)
        emit_1(e, 0x0F);
    if (map == SCAN_MAP_0F38)
        emit_1(e, 0x38);
    else if (map == SCAN_MAP_0F3A)
        emit_1(e, 0x3A);
    emit_1(e, opcode);
}

/* mod field for a displacement. rbp and r13 as base have no disp-less form: with mod 0 their code means
 * something else. */
static unsigned disp_mod(unsigned base, int32_t disp)
{
    if (disp == 0 && (base & 7) != 5)
        return 0;
    return disp >= -128 && disp <= 127 ? 1 : 2;
}

static void emit_disp(struct emit *e, unsigned mod, int32_t disp)
{
    if (mod == 1)
        emit_1(e, (uint8_t)disp);
    else if (mod == 2)
        emit_4(e, (uint32_t)disp);
}

/* ModRM, SIB and displacement of [base + index << scale + disp]. */
static void emit_modrm_mem(struct emit *e, unsigned reg, unsigned base, unsigned index, unsigned scale,
                           int32_t disp)
{
    unsigned r = (reg & 7) << 3, mod;

    if (base ==
        HOST_NONE) { /* without a base the displacement has 32 bits; only the SIB form is not RIP-relative */
        emit_1(e, r | 4);
        emit_1(e, scale << 6 | (index == HOST_NONE ? 4 : index & 7) << 3 | 5);
        emit_4(e, (uint32_t)disp);
        return;
    }
    mod = disp_mod(base, disp);
    if (index == HOST_NONE && (base & 7) != 4) {
        emit_1(e, mod << 6 | r | (base & 7));
    } else {
        emit_1(e, mod << 6 | r | 4);
        emit_1(e, scale << 6 | (index == HOST_NONE ? 4 : index & 7) << 3 | (base & 7));
    }
    emit_disp(e, mod, disp);
}

static unsigned rex_bits(unsigned w, unsigned reg, unsigned index, unsigned base)
{
    unsigned x = index != HOST_NONE && index >= 8, b = base != HOST_NONE && base >= 8;
    unsigned bits = w << 3 | (reg >> 3) << 2 | x << 1 | b;

    return bits ? 0x40 | bits : 0;
}

static void emit_rex(struct emit *e, unsigned rex)
{
    if (rex)
        emit_1(e, rex);
}

void emit_op_mem(struct emit *e, unsigned rex_w, unsigned map, unsigned opcode, unsigned reg,
                 struct emit_mem m)
{
    emit_rex(e, rex_bits(rex_w, reg, m.index, m.base));
    emit_opcode(e, map, opcode);
    emit_modrm_mem(e, reg, m.base, m.index, m.scale, m.disp);
}

void emit_op_reg(struct emit *e, unsigned rex_w, unsigned map, unsigned opcode, unsigned reg, unsigned rm)
{
    emit_rex(e, rex_bits(rex_w, reg, HOST_NONE, rm));
    emit_opcode(e, map, opcode);
    emit_1(e, 0xC0 | (reg & 7) << 3 | (rm & 7));
}

void emit_lea(struct emit *e, unsigned opsize, unsigned dst, unsigned base, unsigned index, unsigned scale,
              int32_t disp)
{
    if (opsize == 2)
        emit_1(e, 0x66);
    emit_rex(e, rex_bits(0, dst, index, base));
    emit_1(e, 0x8D);
    emit_modrm_mem(e, dst, base, index, scale, disp);
}

void emit_lea32(struct emit *e, unsigned dst, unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    if (base == HOST_NONE && index == HOST_NONE)
        emit_mov32_imm(e, dst, (uint32_t)disp);
    else
        emit_lea(e, 4, dst, base, index, scale, disp);
}

/* Three-byte VEX prefix (SDM vol. 2, 2.3.5); R, X, B and vvvv are stored inverted. */
static void emit_vex(struct emit *e, unsigned reg, unsigned index, unsigned base, unsigned map, unsigned w,
                     unsigned vvvv, unsigned pp)
{
    unsigned x = index != HOST_NONE && index >= 8;

    emit_1(e, 0xC4);
    emit_1(e, (reg < 8) << 7 | !x << 6 | (base < 8) << 5 | map);
    emit_1(e, w << 7 | (~vvvv & 15) << 3 | pp);
}

void emit_rorx32(struct emit *e, unsigned dst, unsigned src, unsigned count)
{
    emit_vex(e, dst, HOST_NONE, src, 3, 0, 0, 3);
    emit_1(e, 0xF0);
    emit_1(e, 0xC0 | (dst & 7) << 3 | (src & 7));
    emit_1(e, count);
}

void emit_bmi_reg(struct emit *e, enum emit_bmi op, unsigned dst, unsigned src, unsigned mask)
{
    emit_vex(e, dst, HOST_NONE, mask, 2, 1, src, op);
    emit_1(e, 0xF5);
    emit_1(e, 0xC0 | (dst & 7) << 3 | (mask & 7));
}

void emit_bmi_mem(struct emit *e, enum emit_bmi op, unsigned dst, unsigned src, struct emit_mem mask)
{
    emit_vex(e, dst, mask.index, mask.base, 2, 1, src, op);
    emit_1(e, 0xF5);
    emit_modrm_mem(e, dst, mask.base, mask.index, 0, mask.disp);
}
