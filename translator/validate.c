/* translator/validate.c: proof by reading that a verso stays where it belongs. Shares nothing with the
 * emitter: host code is decoded by Zydis, and what is not known to be harmless is refused.
 *
 * What is proved, for every path through the code from any entry or branch target:
 *   V1 every byte belongs to one instruction of a linear decode; branches go to such instructions, to a stub,
 * or through the table V2 only instructions of the guest's instruction sets occur, plus RORX, PEXT, PDEP;
 * none that is privileged, far, traps on purpose, or touches segment registers; none that has REX.W, a 67h
 * prefix or an FS/GS override but for the forms named below V3 general registers stay zero-extended: no write
 * of 64 bits except to r8..r11 and the rebasing of rsi, rdi for one string instruction V4 r12, r13, r15 are
 * never written; rsp only by CALL, RET, and PUSH/POP of r8..r11 or flags in adjoining pairs V5 a memory
 * operand is [r15/r12 + reg32 + disp] (r8 to r11 only while known to be 32 bits wide) or [r15/r12 + disp] in
 * the ranges of xlat.h, [r9 + r8] with r9 just loaded from seg_window, a string operand just rebased, or a field of part 1 of struct cpu (written: vif
 * alone; of its tables, a place that PEXT has just made) V6 relocated fields are immediates (or the LEA of the landing check): adding an address to them
 * cannot change an operand's form V7 link fields are rel32 of branches; entries are instructions; the last
 * instruction does not fall through What it computes for the guest is not judged.
 */
#include "translator/unwind.h"

#include <Zydis/Zydis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPERANDS ZYDIS_MAX_OPERAND_COUNT

typedef ZydisDecodedInstruction insn_t;
typedef ZydisDecodedOperand operand_t;

/* What is known about the scratch registers along straight code; nothing after an entry or a branch target.
 */
struct known {
    unsigned clean;   /* bit n: upper half of r(8+n) is zero */
    bool r9_window;   /* r9 is a seg_window[] */
    bool r9_index;    /* r9 is PEXT of ibtc_mask */
    bool r10_table;   /* r10 is ibtc */
    bool r10_chunk;   /* r10 is PEXT of mask_chunk */
    bool r10_place;   /* r10 is PEXT of mask_volatile */
    bool rsi, rdi;    /* rebased */
    bool host_pushed; /* PUSHFQ or PUSH r8..r11 has just been done: the matching POP must come next */
};

struct check {
    const struct xlat_verso *v;
    char *why;
    size_t why_size;
    uint8_t *start, *target; /* bitmaps by host offset */
    uint32_t off;            /* of the instruction in hand */
    insn_t insn;
    operand_t op[MAX_OPERANDS];
    struct known k;
    uint32_t next_reloc, next_link;
};

static bool get_bit(const uint8_t *map, uint32_t n)
{
    return map[n / 8] >> n % 8 & 1;
}

static void set_bit(uint8_t *map, uint32_t n)
{
    map[n / 8] |= (uint8_t)(1 << n % 8);
}

static bool refuse(struct check *c, const char *what)
{
    snprintf(c->why, c->why_size, "host offset %u: %s", c->off, what);
    return false;
}

/* --- instruction sets
 * ---------------------------------------------------------------------------------------------- */

static bool set_allowed(ZydisISASet s)
{
    switch (s) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_LONGMODE:
        return true;
    default:
        return false;
    }
}

static bool category_forbidden(ZydisInstructionCategory s)
{
    switch (s) {
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SEGOP:
        return true;
    default:
        return false;
    }
}

/* Members of allowed sets that are not for translated code. */
static bool mnemonic_forbidden(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
        return true;
    default:
        return false;
    }
}

static bool is_string(const insn_t *i)
{
    return i->meta.category == ZYDIS_CATEGORY_STRINGOP;
}

static bool is_bmi(const insn_t *i)
{
    return i->mnemonic == ZYDIS_MNEMONIC_RORX || i->mnemonic == ZYDIS_MNEMONIC_PEXT ||
           i->mnemonic == ZYDIS_MNEMONIC_PDEP;
}

static bool is_count_branch(const insn_t *i) /* LOOPcc */
{
    return i->mnemonic == ZYDIS_MNEMONIC_LOOP || i->mnemonic == ZYDIS_MNEMONIC_LOOPE ||
           i->mnemonic == ZYDIS_MNEMONIC_LOOPNE;
}

/* LOOP without 67h would count in 64 bits; with it on anything else but JECXZ an address would be cut. */
static bool check_address_size(struct check *c)
{
    bool prefix = c->insn.attributes & ZYDIS_ATTRIB_HAS_ADDRESSSIZE;

    if (prefix ? !is_count_branch(&c->insn) && c->insn.mnemonic != ZYDIS_MNEMONIC_JECXZ
               : is_count_branch(&c->insn))
        return refuse(c, "address size");
    return true;
}

static bool check_kind(struct check *c)
{
    const insn_t *i = &c->insn;

    if (i->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return refuse(c, "privileged instruction");
    if (i->mnemonic == ZYDIS_MNEMONIC_RDTSC)
        return c->v->mode & XLAT_MODE_TSC_TRAP ? refuse(c, "RDTSC") : true;
    if (category_forbidden(i->meta.category) || mnemonic_forbidden(i->mnemonic))
        return refuse(c, "forbidden instruction");
    if (!set_allowed(i->meta.isa_set))
        return refuse(c, "foreign instruction set");
    if (i->meta.isa_set == ZYDIS_ISA_SET_BMI2 && !is_bmi(i))
        return refuse(c, "foreign BMI2 instruction");
    if (i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return refuse(c, "far branch");
    if (i->attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS))
        return refuse(c, "segment override");
    return check_address_size(c);
}

/* --- memory operands
 * ----------------------------------------------------------------------------------------------- */

static bool is_guest_index(ZydisRegister r)
{
    return (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_RDI && r != ZYDIS_REGISTER_RSP) ||
           r == ZYDIS_REGISTER_R14;
}

static bool is_scratch64(ZydisRegister r)
{
    return r >= ZYDIS_REGISTER_R8 && r <= ZYDIS_REGISTER_R11;
}

/* [r13 + r10*8 + user_window], r10 below 32. */
static bool is_user_window(const struct check *c, const operand_t *o)
{
    return c->insn.mnemonic == ZYDIS_MNEMONIC_MOV && o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->size == 64 &&
           o->mem.base == ZYDIS_REGISTER_R13 && o->mem.index == ZYDIS_REGISTER_R10 && o->mem.scale == 8 &&
           o->mem.disp.value == (int64_t)offsetof(struct cpu, user_window) && c->k.r10_chunk;
}

/* [r13 + r10*4 + volatile_page], r10 below CPU_VOLATILE. */
static bool is_volatile_page(const struct check *c, const operand_t *o)
{
    return c->insn.mnemonic == ZYDIS_MNEMONIC_MOV && o->size == 32 && o->mem.base == ZYDIS_REGISTER_R13 &&
           o->mem.index == ZYDIS_REGISTER_R10 && o->mem.scale == 4 &&
           o->mem.disp.value == (int64_t)offsetof(struct cpu, volatile_page) && c->k.r10_place;
}

static bool check_cpu_field(struct check *c, const operand_t *o)
{
    int64_t disp = o->mem.disp.value;
    uint32_t bytes = o->size / 8;

    if ((is_user_window(c, o) || is_volatile_page(c, o)) && !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
        return true;
    if (o->mem.index != ZYDIS_REGISTER_NONE || disp < 0 ||
        disp + bytes > (int64_t)offsetof(struct cpu, scratch))
        return refuse(c, "outside part 1 of struct cpu");
    if ((o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
        (disp != (int64_t)offsetof(struct cpu, vif) || bytes != 4))
        return refuse(c, "writes a field of struct cpu");
    return true;
}

static bool check_window(struct check *c, const operand_t *o)
{
    bool top = o->mem.base == ZYDIS_REGISTER_R12;
    int64_t disp = o->mem.disp.value;
    ZydisRegister index = o->mem.index;

    if (index == ZYDIS_REGISTER_NONE)
        return top == (disp < 0) ? true : refuse(c, "absolute address outside the window");
    if (is_scratch64(index)) {
        if (o->mem.scale != 1 || !(c->k.clean >> (index - ZYDIS_REGISTER_R8) & 1))
            return refuse(c, "scratch register as index");
    } else if (!is_guest_index(index)) {
        return refuse(c, "index register");
    }
    if (top != (disp < XLAT_DISP_MIN))
        return refuse(c, "displacement out of range");
    return true;
}

static bool check_memory(struct check *c, const operand_t *o)
{
    const insn_t *i = &c->insn;

    if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN || i->mnemonic == ZYDIS_MNEMONIC_NOP)
        return true;
    if (o->mem.base == ZYDIS_REGISTER_RSP) /* implicit only: CALL, RET, PUSH, POP; checked there */
        return o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ? true
                                                                : refuse(c, "operand on the host stack");
    if (is_string(i) && o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
        if (o->mem.base == ZYDIS_REGISTER_RSI)
            return c->k.rsi ? true : refuse(c, "rsi not rebased");
        return o->mem.base == ZYDIS_REGISTER_RDI && c->k.rdi ? true : refuse(c, "rdi not rebased");
    }
    if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
        return refuse(c, "hidden memory operand");
    if (o->size == 0 && i->mnemonic != ZYDIS_MNEMONIC_CLFLUSH && i->meta.category != ZYDIS_CATEGORY_PREFETCH)
        return refuse(c, "operand of unknown size");
    if (o->mem.base == ZYDIS_REGISTER_R13)
        return check_cpu_field(c, o);
    if (o->mem.base == ZYDIS_REGISTER_R15 || o->mem.base == ZYDIS_REGISTER_R12)
        return check_window(c, o);
    if (o->mem.base == ZYDIS_REGISTER_R9 && o->mem.index == ZYDIS_REGISTER_R8 && o->mem.scale == 1 &&
        o->mem.disp.value == 0 && c->k.r9_window && (c->k.clean & 1))
        return true;
    if (o->mem.base == ZYDIS_REGISTER_R10 && o->mem.index == ZYDIS_REGISTER_R9 && o->mem.scale == 8 &&
        o->mem.disp.value == 0 && c->k.r10_table && c->k.r9_index &&
        (i->mnemonic == ZYDIS_MNEMONIC_JMP || i->mnemonic == ZYDIS_MNEMONIC_CALL))
        return true;
    return refuse(c, "memory operand");
}

/* --- registers
 * ----------------------------------------------------------------------------------------------------- */

static bool is_field_load(const struct check *c, size_t from, size_t to)
{
    const operand_t *o = &c->op[1];

    return c->insn.mnemonic == ZYDIS_MNEMONIC_MOV && o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
           o->mem.base == ZYDIS_REGISTER_R13 && o->mem.index == ZYDIS_REGISTER_NONE &&
           o->mem.disp.value >= (int64_t)from && o->mem.disp.value < (int64_t)to &&
           (o->mem.disp.value - (int64_t)from) % 8 == 0 && o->size == 64;
}

static bool is_field(const operand_t *o, size_t at)
{
    return o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.base == ZYDIS_REGISTER_R13 &&
           o->mem.index == ZYDIS_REGISTER_NONE && o->mem.disp.value == (int64_t)at;
}

/* lea rsi, [r15 + rsi] or the same with rdi, or with a window in r9; the source must still be a plain 32-bit value. */
static bool is_rebase(const struct check *c, ZydisRegister r)
{
    const operand_t *o = &c->op[1];

    return c->insn.mnemonic == ZYDIS_MNEMONIC_LEA &&
           (o->mem.base == ZYDIS_REGISTER_R15 || (o->mem.base == ZYDIS_REGISTER_R9 && c->k.r9_window)) && o->mem.index == r &&
           o->mem.scale == 1 && o->mem.disp.value == 0 && !(r == ZYDIS_REGISTER_RSI ? c->k.rsi : c->k.rdi);
}

static void forget_scratch(struct check *c, ZydisRegister full)
{
    if (full == ZYDIS_REGISTER_R9)
        c->k.r9_window = c->k.r9_index = false;
    if (full == ZYDIS_REGISTER_R10)
        c->k.r10_table = c->k.r10_chunk = c->k.r10_place = false;
}

static bool write_64(struct check *c, ZydisRegister r)
{
    if (is_string(&c->insn) &&
        (r == ZYDIS_REGISTER_RSI || r == ZYDIS_REGISTER_RDI || r == ZYDIS_REGISTER_RCX))
        return true; /* RCX only counts down */
    if (r == ZYDIS_REGISTER_RSI || r == ZYDIS_REGISTER_RDI) {
        if (!is_rebase(c, r))
            return refuse(c, "64-bit write to a guest register");
        *(r == ZYDIS_REGISTER_RSI ? &c->k.rsi : &c->k.rdi) = true;
        return true;
    }
    if (!is_scratch64(r))
        return refuse(c, "64-bit write to a guest register");
    c->k.clean &= ~(1u << (r - ZYDIS_REGISTER_R8));
    if (r == ZYDIS_REGISTER_R9)
        c->k.r9_window =
            is_field_load(c, offsetof(struct cpu, seg_window), offsetof(struct cpu, mask_chunk)) ||
            is_user_window(c, &c->op[1]);
    if (r == ZYDIS_REGISTER_R9 && c->insn.mnemonic == ZYDIS_MNEMONIC_PEXT)
        c->k.r9_index = is_field(&c->op[2], offsetof(struct cpu, ibtc_mask));
    if (r == ZYDIS_REGISTER_R10)
        c->k.r10_chunk =
            c->insn.mnemonic == ZYDIS_MNEMONIC_PEXT && is_field(&c->op[2], offsetof(struct cpu, mask_chunk));
    if (r == ZYDIS_REGISTER_R10)
        c->k.r10_place =
            c->insn.mnemonic == ZYDIS_MNEMONIC_PEXT && is_field(&c->op[2], offsetof(struct cpu, mask_volatile));
    if (r == ZYDIS_REGISTER_R10)
        c->k.r10_table = is_field_load(c, offsetof(struct cpu, ibtc), offsetof(struct cpu, ibtc) + 8);
    return true;
}

static bool is_stack_insn(const insn_t *i)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPFQ:
        return true;
    default:
        return false;
    }
}

static bool check_write(struct check *c, const operand_t *o)
{
    ZydisRegister r = o->reg.value, full;

    if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
        return true;
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        break;
    case ZYDIS_REGCLASS_SEGMENT:
    case ZYDIS_REGCLASS_CONTROL:
    case ZYDIS_REGCLASS_DEBUG:
    case ZYDIS_REGCLASS_TABLE:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
        return refuse(c, "writes a system register");
    default:
        return true; /* flags, x87, MMX, XMM */
    }
    full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    if (full == ZYDIS_REGISTER_RSP)
        return o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && is_stack_insn(&c->insn)
                   ? true
                   : refuse(c, "writes rsp");
    if (full == ZYDIS_REGISTER_R12 || full == ZYDIS_REGISTER_R13 || full == ZYDIS_REGISTER_R15)
        return refuse(c, "writes a pinned register");
    if ((full == ZYDIS_REGISTER_RSI && c->k.rsi) || (full == ZYDIS_REGISTER_RDI && c->k.rdi)) {
        if (is_string(&c->insn))
            return true;
        if (c->insn.mnemonic != ZYDIS_MNEMONIC_MOV || o->size != 32)
            return refuse(c, "rebased register written");
        *(full == ZYDIS_REGISTER_RSI ? &c->k.rsi : &c->k.rdi) = false;
        return true;
    }
    if (o->size == 64)
        return write_64(c, full);
    if (!is_scratch64(full))
        return true;
    forget_scratch(c, full);
    if (o->size == 32)
        c->k.clean |= 1u << (full - ZYDIS_REGISTER_R8);
    return true;
}

/* PUSHFQ; POP r8..r11 and PUSH r8..r11; POPFQ, each pair unbroken. */
static bool check_host_stack(struct check *c)
{
    const insn_t *i = &c->insn;
    bool push = i->mnemonic == ZYDIS_MNEMONIC_PUSH || i->mnemonic == ZYDIS_MNEMONIC_PUSHFQ;
    bool pop = i->mnemonic == ZYDIS_MNEMONIC_POP || i->mnemonic == ZYDIS_MNEMONIC_POPFQ;

    if (c->k.host_pushed != pop)
        return refuse(c, "push and pop do not pair");
    if ((i->mnemonic == ZYDIS_MNEMONIC_PUSH || i->mnemonic == ZYDIS_MNEMONIC_POP) &&
        (c->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || !is_scratch64(c->op[0].reg.value)))
        return refuse(c, "push or pop of something else than r8..r11");
    c->k.host_pushed = push;
    return true;
}

/* --- control
 * ------------------------------------------------------------------------------------------------------- */

static bool is_unconditional(const insn_t *i)
{
    return i->mnemonic == ZYDIS_MNEMONIC_JMP || i->mnemonic == ZYDIS_MNEMONIC_RET;
}

static bool check_branch(struct check *c)
{
    const insn_t *i = &c->insn;
    const operand_t *o = &c->op[0];

    if (i->mnemonic == ZYDIS_MNEMONIC_RET)
        return i->operand_count_visible == 0 ? true : refuse(c, "RET n");
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative)
        return true; /* targets were checked in the first walk */
    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || i->operand_width != 64)
        return refuse(c, "indirect branch");
    int64_t stub = o->mem.disp.value - (int64_t)offsetof(struct cpu, stub);
    if (o->mem.base == ZYDIS_REGISTER_R13 && (stub < 0 || stub % 8 != 0 || stub >= 8 * (int64_t)XLAT_STUB_OF_VERSOS))
        return refuse(c, "branch through something else than a stub");
    return o->mem.base == ZYDIS_REGISTER_R13 || o->mem.base == ZYDIS_REGISTER_R10
               ? true
               : refuse(c, "indirect branch");
}

static bool is_branch(const insn_t *i)
{
    return i->meta.category == ZYDIS_CATEGORY_COND_BR || i->meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
           i->meta.category == ZYDIS_CATEGORY_CALL || i->meta.category == ZYDIS_CATEGORY_RET;
}

/* Links and relocations that lie in this instruction: only where they may. */
static bool check_fields(struct check *c)
{
    const struct xlat_verso *v = c->v;
    const insn_t *i = &c->insn;
    uint32_t end = c->off + i->length, tail = end - 4;
    bool rel32 = is_branch(i) && i->raw.imm[0].is_relative && i->raw.imm[0].size == 32;
    bool imm32 = i->raw.imm[0].size == 32 && !i->raw.imm[0].is_relative && i->raw.imm[1].size == 0 &&
                 (i->mnemonic == ZYDIS_MNEMONIC_MOV || i->mnemonic == ZYDIS_MNEMONIC_CMP);
    bool lea32 = i->mnemonic == ZYDIS_MNEMONIC_LEA && i->raw.disp.size == 32 && c->op[0].size == 32;

    if (c->next_link < v->link_count && v->links[c->next_link].field_off < end) {
        if (!rel32 || v->links[c->next_link].field_off != tail)
            return refuse(c, "link field");
        c->next_link++;
    }
    if (c->next_reloc < v->reloc_count && v->relocs[c->next_reloc].host_off < end) {
        if (!(imm32 || lea32) || v->relocs[c->next_reloc].host_off != tail)
            return refuse(c, "relocation field");
        c->next_reloc++;
    }
    return true;
}

static bool rex_w_allowed(const struct check *c)
{
    const insn_t *i = &c->insn;

    return is_bmi(i) || ((i->mnemonic == ZYDIS_MNEMONIC_LEA || i->mnemonic == ZYDIS_MNEMONIC_MOV) &&
                         c->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER);
}

static bool check_insn(struct check *c)
{
    if (!check_kind(c) || !check_fields(c) || !check_host_stack(c))
        return false;
    if ((c->insn.attributes & ZYDIS_ATTRIB_HAS_REX) && c->insn.raw.rex.W && !rex_w_allowed(c))
        return refuse(c, "REX.W");
    for (unsigned n = 0; n < c->insn.operand_count; n++)
        if (c->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && !check_memory(c, &c->op[n]))
            return false;
    for (unsigned n = 0; n < c->insn.operand_count; n++)
        if (c->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (c->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && !check_write(c, &c->op[n]))
            return false;
    if (!is_branch(&c->insn))
        return true;
    if (c->k.rsi || c->k.rdi || (c->k.host_pushed && c->insn.mnemonic != ZYDIS_MNEMONIC_CALL))
        return refuse(c, "branch in the middle of a sequence");
    return check_branch(c);
}

/* --- walks
 * ---------------------------------------------------------------------------------------------------------
 */

static bool mark_target(struct check *c, int64_t target)
{
    if (target < 0 || target >= (int64_t)c->v->code_len)
        return refuse(c, "branch out of the code");
    set_bit(c->target, (uint32_t)target);
    return true;
}

/* First walk: instruction starts and branch targets. */
static bool walk_starts(struct check *c, const ZydisDecoder *d)
{
    bool open = true;

    for (c->off = 0; c->off < c->v->code_len; c->off += c->insn.length) {
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, NULL, c->v->code + c->off, c->v->code_len - c->off,
                                                        &c->insn)))
            return refuse(c, "does not decode");
        set_bit(c->start, c->off);
        if (c->insn.raw.imm[0].is_relative && is_branch(&c->insn) &&
            !mark_target(c, (int64_t)c->off + c->insn.length + c->insn.raw.imm[0].value.s))
            return false;
        open = !is_unconditional(&c->insn);
    }
    return open && c->v->code_len ? refuse(c, "runs off the end") : true;
}

static bool mark_entries(struct check *c)
{
    struct unwind_reader r;
    struct unwind_rec rec;

    unwind_reader_init(&r, c->v->unwind, c->v->unwind_len);
    while (unwind_read(&r, &rec)) {
        c->off = rec.host_off;
        if (rec.is_end)
            return rec.host_off == c->v->code_len ? true : refuse(c, "end of the unwind records");
        if (rec.host_off >= c->v->code_len)
            return refuse(c, "unwind record outside the code");
        if (rec.entry)
            set_bit(c->target, rec.host_off);
    }
    return refuse(c, "unwind records damaged");
}

static bool check_targets(struct check *c)
{
    for (c->off = 0; c->off < c->v->code_len; c->off++)
        if (get_bit(c->target, c->off) && !get_bit(c->start, c->off))
            return refuse(c, "target inside an instruction");
    return true;
}

/* Second walk: every instruction in its context. */
static bool walk_insns(struct check *c, const ZydisDecoder *d)
{
    for (c->off = 0; c->off < c->v->code_len; c->off += c->insn.length) {
        if (!ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(d, c->v->code + c->off, c->v->code_len - c->off, &c->insn, c->op)))
            return refuse(c, "does not decode");
        if (get_bit(c->target, c->off)) {
            if (c->k.rsi || c->k.rdi || c->k.host_pushed)
                return refuse(c, "entry in the middle of a sequence");
            c->k = (struct known){0};
        }
        if (!check_insn(c))
            return false;
        if (c->insn.meta.category == ZYDIS_CATEGORY_CALL || is_unconditional(&c->insn))
            c->k = (struct known){0};
    }
    if (c->next_link != c->v->link_count || c->next_reloc != c->v->reloc_count)
        return refuse(c, "field outside the code or out of order");
    return true;
}

static bool check_links(struct check *c)
{
    for (uint32_t n = 0; n < c->v->link_count; n++) {
        const struct xlat_link *l = &c->v->links[n];

        c->off = l->field_off;
        if (l->tail_off >= c->v->code_len || !get_bit(c->start, l->tail_off))
            return refuse(c, "link tail");
        set_bit(c->target, l->tail_off);
    }
    return true;
}

bool xlat_validate(const struct xlat_verso *v, char *why, size_t why_size)
{
    struct check c = {.v = v, .why = why, .why_size = why_size};
    ZydisDecoder d;
    bool ok;

    if (why_size)
        why[0] = 0;
    if (v->code_len > XLAT_CODE_MAX)
        return refuse(&c, "too long");
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    c.start = calloc(v->code_len / 8 + 1, 1);
    c.target = calloc(v->code_len / 8 + 1, 1);
    ok = c.start && c.target ? walk_starts(&c, &d) && mark_entries(&c) && check_links(&c) &&
                                   check_targets(&c) && walk_insns(&c, &d)
                             : refuse(&c, "no memory");
    free(c.start);
    free(c.target);
    return ok;
}
