/* tests/diff/ref.h: what ref.c and model.c share. */
#ifndef VERSO_TESTS_DIFF_REF_H
#define VERSO_TESTS_DIFF_REF_H

#include <Zydis/Zydis.h>
#include <setjmp.h>

#include "diff.h"

/* The instruction as Zydis has it, and what its prefixes say. */
struct ref {
    struct cpu *c;
    enum diff_mode mode;
    unsigned cpl0; /* CPL when it began */
    uint8_t bytes[16], len;
    ZydisDecodedInstruction in;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    unsigned osz, asz; /* operand and address size in bytes */
    unsigned opcode, modrm, reg, rm;
    bool has_modrm, mem;
    bool p66, lock;
    uint8_t rep; /* F2h, F3h or 0 */
    uint8_t seg; /* override or SCAN_SEG_NONE */
    uint32_t imm, imm2, next;
    bool halted;
    bool traps; /* EFLAGS.TF was set; cleared by what holds the single step back */
    /* A fault leaves through here. */
    jmp_buf out;
    unsigned vector;
    bool has_error;
    uint32_t error;
    bool skip; /* something that has no reference */
};
extern struct ref ref;

enum { KIND_FAULT, KIND_TRAP, KIND_SOFT };

_Noreturn void ref_raise(unsigned vector, bool has_error, uint32_t error);
_Noreturn void ref_skip(void);
void ref_deliver(unsigned vector, unsigned kind, bool has_error, uint32_t error, uint32_t eip, unsigned ext);
/* Effective address and default segment of the ModRM memory operand. */
uint32_t ref_ea(void);
unsigned ref_seg(void);
/* Limit and rights of a segment; the linear address. */
uint32_t ref_segment(unsigned seg, uint32_t off, unsigned size, bool write);
/* Linear accesses; user: with the rights of CPL 3. */
void ref_touch(uint32_t lin, unsigned size, bool write, bool user);
uint32_t ref_read(uint32_t lin, unsigned size, bool user);
void ref_write(uint32_t lin, unsigned size, uint32_t v, bool user);
uint32_t ref_page_error(uint32_t lin, bool write, bool user);
bool ref_aligns(void);
uint32_t ref_get(unsigned reg, unsigned size);
void ref_put(unsigned reg, unsigned size, uint32_t v);
/* x87, MMX or SSE: raises #NM, #UD, #MF that come before the instruction. */
enum ref_unit { UNIT_NONE, UNIT_X87, UNIT_WAIT, UNIT_MMX, UNIT_SSE };
void ref_need(enum ref_unit unit);
/* True: done (ref.next is where to go on). False: not an instruction of the model. */
bool model_instruction(void);

#endif
