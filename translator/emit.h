/* translator/emit.h: host bytes out: a growing buffer, REX/ModRM/SIB, and the few instructions the translator
 * uses itself.
 *
 * Callers reserve room once per guest instruction (emit_reserve()); the writers below do not check. Host
 * register numbers are those of the architecture, 0..15. All memory operands go through struct emit_mem, so
 * that no RIP-relative, 67h or rsp-based operand can come out of this file.
 */
#ifndef VERSO_TRANSLATOR_EMIT_H
#define VERSO_TRANSLATOR_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    HOST_RCX = 1,
    HOST_RBX = 3,
    HOST_RSP = 4,
    HOST_RBP = 5,
    HOST_R8 = 8,
    HOST_R9,
    HOST_R10,
    HOST_R11,
    HOST_WINTOP,
    HOST_CPU,
    HOST_ESP,
    HOST_WINDOW,
    HOST_NONE = 0xFF
};

/* More than the longest sequence made for one guest instruction or one tail. */
#define EMIT_ROOM 512u

struct emit {
    uint8_t *code; /* owned by the caller's verso */
    uint8_t *p;
    uint8_t *end;
};

/* [base + index << scale + disp]; HOST_NONE for no index. */
struct emit_mem {
    uint8_t base, index;
    int32_t disp;
    uint8_t scale;
};

static inline uint32_t emit_pos(const struct emit *e)
{
    return (uint32_t)(e->p - e->code);
}

static inline void emit_1(struct emit *e, unsigned b)
{
    *e->p++ = (uint8_t)b;
}

static inline void emit_4(struct emit *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}

static inline void emit_bytes(struct emit *e, const void *b, size_t n)
{
    memcpy(e->p, b, n);
    e->p += n;
}

/* n bytes that do nothing, in as few instructions as their lengths of at most 9 allow. */
void emit_nop(struct emit *e, unsigned n);
/* Escape bytes and opcode. map as enum SCAN_MAP_*. */
void emit_opcode(struct emit *e, unsigned map, unsigned opcode);
/* [REX] opcode ModRM [SIB] [disp]: reg and a memory operand. rex_w 0 or 1. */
void emit_op_mem(struct emit *e, unsigned rex_w, unsigned map, unsigned opcode, unsigned reg,
                 struct emit_mem m);
/* [REX] opcode ModRM: two registers, no REX byte unless one is above 7 or rex_w. */
void emit_op_reg(struct emit *e, unsigned rex_w, unsigned map, unsigned opcode, unsigned reg, unsigned rm);
/* lea dst32, [base + index << scale + disp], any part but disp may be absent; dst's upper half becomes zero.
 */
void emit_lea32(struct emit *e, unsigned dst, unsigned base, unsigned index, unsigned scale, int32_t disp);
/* The same with a 16-bit destination if opsize is 2. */
void emit_lea(struct emit *e, unsigned opsize, unsigned dst, unsigned base, unsigned index, unsigned scale,
              int32_t disp);
/* VEX three-operand forms of BMI2. */
void emit_rorx32(struct emit *e, unsigned dst, unsigned src, unsigned count);
enum emit_bmi { EMIT_PEXT = 2, EMIT_PDEP = 3 }; /* the VEX pp field */
void emit_bmi_reg(struct emit *e, enum emit_bmi op, unsigned dst, unsigned src, unsigned mask);
void emit_bmi_mem(struct emit *e, enum emit_bmi op, unsigned dst, unsigned src, struct emit_mem mask);

static inline void emit_mov32_rr(struct emit *e, unsigned dst, unsigned src)
{
    emit_op_reg(e, 0, 0, 0x89, src, dst);
}

static inline void emit_mov32_load(struct emit *e, unsigned dst, struct emit_mem m)
{
    emit_op_mem(e, 0, 0, 0x8B, dst, m);
}

static inline void emit_mov64_load(struct emit *e, unsigned dst, struct emit_mem m)
{
    emit_op_mem(e, 1, 0, 0x8B, dst, m);
}

static inline void emit_mov32_store(struct emit *e, struct emit_mem m, unsigned src)
{
    emit_op_mem(e, 0, 0, 0x89, src, m);
}

/* mov r32, imm32: the caller fills or relocates the last four bytes. */
static inline void emit_mov32_imm(struct emit *e, unsigned dst, uint32_t v)
{
    if (dst >= 8)
        emit_1(e, 0x41);
    emit_1(e, 0xB8u | (dst & 7));
    emit_4(e, v);
}

#endif
