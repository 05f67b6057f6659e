/* monitor/gdb_regs.c: the registers a debugger sees: one table for numbers, sizes, types, values and target.xml.
 *
 * Numbers 0 to 40 are those every GDB for i386 knows; behind them comes what GDB leaves to the target.
 */
#include <stdio.h>
#include <string.h>

#include "monitor/gdb.h"
#include "monitor/machine.h"

/* What a register is; arg says which of them. */
enum source {
    FROM_GPR,
    FROM_EIP,
    FROM_EFLAGS,
    FROM_SELECTOR,
    FROM_ST,
    FROM_FPU, /* enum fpu_part */
    FROM_XMM,
    FROM_MXCSR,
    FROM_PC, /* CS base + EIP */
    FROM_CPL,
    FROM_CR,
    FROM_EFER,
    FROM_DR,
    FROM_BASE,
    FROM_LIMIT,
    FROM_ATTRIBUTES,
    FROM_TABLE_BASE, /* GDTR, IDTR */
    FROM_TABLE_LIMIT,
};
enum fpu_part { FPU_CONTROL, FPU_STATUS, FPU_TAGS, FPU_CODE_SEL, FPU_CODE, FPU_DATA_SEL, FPU_DATA, FPU_OPCODE };
enum { SEG_LDTR = 6, SEG_TR = 7 }; /* after the six of the instruction set */
enum feature { CORE, SSE, SYSTEM, FEATURES };

struct reg {
    const char *name, *type;
    uint8_t bytes, feature, source, arg;
};

#define SEG(name, n)                                                                                         \
    {name "_base", "data_ptr", 4, SYSTEM, FROM_BASE, n}, {name "_limit", "uint32", 4, SYSTEM, FROM_LIMIT, n}, \
        {name "_attr", "uint32", 4, SYSTEM, FROM_ATTRIBUTES, n}
#define ST(n)  {"st" #n, "i387_ext", 10, CORE, FROM_ST, n}
#define XMM(n) {"xmm" #n, "vec128", 16, SSE, FROM_XMM, n}
#define DR(n)  {"dr" #n, "uint32", 4, SYSTEM, FROM_DR, n}
static const struct reg regs[] = {
    {"eax", "int32", 4, CORE, FROM_GPR, CPU_EAX},
    {"ecx", "int32", 4, CORE, FROM_GPR, CPU_ECX},
    {"edx", "int32", 4, CORE, FROM_GPR, CPU_EDX},
    {"ebx", "int32", 4, CORE, FROM_GPR, CPU_EBX},
    {"esp", "data_ptr", 4, CORE, FROM_GPR, CPU_ESP},
    {"ebp", "data_ptr", 4, CORE, FROM_GPR, CPU_EBP},
    {"esi", "int32", 4, CORE, FROM_GPR, CPU_ESI},
    {"edi", "int32", 4, CORE, FROM_GPR, CPU_EDI},
    {"eip", "code_ptr", 4, CORE, FROM_EIP, 0},
    {"eflags", "i386_eflags", 4, CORE, FROM_EFLAGS, 0},
    {"cs", "int32", 4, CORE, FROM_SELECTOR, SCAN_CS},
    {"ss", "int32", 4, CORE, FROM_SELECTOR, SCAN_SS},
    {"ds", "int32", 4, CORE, FROM_SELECTOR, SCAN_DS},
    {"es", "int32", 4, CORE, FROM_SELECTOR, SCAN_ES},
    {"fs", "int32", 4, CORE, FROM_SELECTOR, SCAN_FS},
    {"gs", "int32", 4, CORE, FROM_SELECTOR, SCAN_GS},
    ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7),
    {"fctrl", "int", 4, CORE, FROM_FPU, FPU_CONTROL},
    {"fstat", "int", 4, CORE, FROM_FPU, FPU_STATUS},
    {"ftag", "int", 4, CORE, FROM_FPU, FPU_TAGS},
    {"fiseg", "int", 4, CORE, FROM_FPU, FPU_CODE_SEL},
    {"fioff", "int", 4, CORE, FROM_FPU, FPU_CODE},
    {"foseg", "int", 4, CORE, FROM_FPU, FPU_DATA_SEL},
    {"fooff", "int", 4, CORE, FROM_FPU, FPU_DATA},
    {"fop", "int", 4, CORE, FROM_FPU, FPU_OPCODE},
    XMM(0), XMM(1), XMM(2), XMM(3), XMM(4), XMM(5), XMM(6), XMM(7),
    {"mxcsr", "i386_mxcsr", 4, SSE, FROM_MXCSR, 0},
    {"pc_linear", "code_ptr", 4, SYSTEM, FROM_PC, 0},
    {"cpl", "uint32", 4, SYSTEM, FROM_CPL, 0},
    {"cr0", "verso_cr0", 4, SYSTEM, FROM_CR, 0},
    {"cr2", "data_ptr", 4, SYSTEM, FROM_CR, 2},
    {"cr3", "uint32", 4, SYSTEM, FROM_CR, 3},
    {"cr4", "verso_cr4", 4, SYSTEM, FROM_CR, 4},
    {"efer", "uint64", 8, SYSTEM, FROM_EFER, 0},
    SEG("es", SCAN_ES), SEG("cs", SCAN_CS), SEG("ss", SCAN_SS), SEG("ds", SCAN_DS), SEG("fs", SCAN_FS), SEG("gs", SCAN_GS),
    {"ldtr", "uint32", 4, SYSTEM, FROM_SELECTOR, SEG_LDTR},
    SEG("ldtr", SEG_LDTR),
    {"tr", "uint32", 4, SYSTEM, FROM_SELECTOR, SEG_TR},
    SEG("tr", SEG_TR),
    {"gdtr_base", "data_ptr", 4, SYSTEM, FROM_TABLE_BASE, 0},
    {"gdtr_limit", "uint32", 4, SYSTEM, FROM_TABLE_LIMIT, 0},
    {"idtr_base", "data_ptr", 4, SYSTEM, FROM_TABLE_BASE, 1},
    {"idtr_limit", "uint32", 4, SYSTEM, FROM_TABLE_LIMIT, 1},
    DR(0), DR(1), DR(2), DR(3), DR(6), DR(7),
};
#define REGS (sizeof(regs) / sizeof(regs[0]))

/* Offsets in an FXSAVE image (SDM vol. 1, table 10-2). */
enum { FX_MXCSR = 24, FX_ST = 32, FX_XMM = 160 };

unsigned gdb_reg_count(void)
{
    return REGS;
}

unsigned gdb_reg_count_general(void)
{
    unsigned n = 0;
    while (n < REGS && regs[n].feature != SYSTEM)
        n++;
    return n;
}

unsigned gdb_reg_size(unsigned n)
{
    return regs[n].bytes;
}

/* -- Reading ---------------------------------------------------------------------------------------------- */

static const struct cpu_seg *segment(const struct cpu *c, unsigned n)
{
    return n == SEG_LDTR ? &c->ldtr : n == SEG_TR ? &c->tr : &c->seg[n];
}

static uint16_t *fpu_word(struct emu_fpu_env *env, enum fpu_part part)
{
    switch (part) {
    case FPU_CONTROL:
        return &env->control;
    case FPU_STATUS:
        return &env->status;
    case FPU_TAGS:
        return &env->tags;
    case FPU_CODE_SEL:
        return &env->last.cs;
    case FPU_DATA_SEL:
        return &env->last.ds;
    default:
        return &env->last.op;
    }
}

static uint32_t *fpu_offset(struct emu_fpu_env *env, enum fpu_part part)
{
    return part == FPU_CODE ? &env->last.ip : part == FPU_DATA ? &env->last.dp : NULL;
}

static uint32_t fpu_get(struct vm *vm, enum fpu_part part)
{
    struct emu_fpu_env env;
    emu_fpu_get_env(vm, &env);
    return fpu_offset(&env, part) ? *fpu_offset(&env, part) : *fpu_word(&env, part);
}

static uint64_t value_of(struct machine *m, const struct reg *r)
{
    const struct cpu *c = m->vm.cpu;
    const uint32_t cr[5] = {c->cr0, 0, c->cr2, c->cr3, c->cr4};
    const struct cpu_table *table = r->arg ? &c->idtr : &c->gdtr;
    switch ((enum source)r->source) {
    case FROM_GPR:
        return c->gpr[r->arg];
    case FROM_EIP:
        return c->eip;
    case FROM_EFLAGS:
        return cpu_eflags(c);
    case FROM_SELECTOR:
        return segment(c, r->arg)->sel;
    case FROM_FPU:
        return fpu_get(&m->vm, (enum fpu_part)r->arg);
    case FROM_PC:
        return debug_pc(m);
    case FROM_CPL:
        return c->cpl;
    case FROM_CR:
        return cr[r->arg];
    case FROM_EFER:
        return c->efer;
    case FROM_DR:
        return c->dr[r->arg];
    case FROM_BASE:
        return segment(c, r->arg)->base;
    case FROM_LIMIT:
        return segment(c, r->arg)->limit;
    case FROM_ATTRIBUTES:
        return segment(c, r->arg)->attr;
    case FROM_TABLE_BASE:
        return table->base;
    case FROM_TABLE_LIMIT:
        return table->limit;
    case FROM_ST:
    case FROM_XMM:
    case FROM_MXCSR:
        break;
    }
    return 0;
}

/* Registers that lie in the FXSAVE image as they are. */
static uint8_t *in_image(struct cpu *c, const struct reg *r)
{
    switch ((enum source)r->source) {
    case FROM_ST:
        return c->fx + FX_ST + 16 * r->arg;
    case FROM_XMM:
        return c->fx + FX_XMM + 16 * r->arg;
    case FROM_MXCSR:
        return c->fx + FX_MXCSR;
    default:
        return NULL;
    }
}

unsigned gdb_reg_get(struct machine *m, unsigned n, uint8_t out[GDB_REG_BYTES])
{
    const struct reg *r = &regs[n];
    const uint8_t *image = in_image(m->vm.cpu, r);
    uint64_t v = image ? 0 : value_of(m, r);
    memset(out, 0, GDB_REG_BYTES);
    memcpy(out, image ? image : (const uint8_t *)&v, r->bytes); /* the host's byte order is the target's */
    return r->bytes;
}

/* -- Writing ---------------------------------------------------------------------------------------------- */

/* As MOV Sreg; CS in real and virtual-8086 mode as a far jump. */
static bool set_selector(struct machine *m, unsigned seg, uint32_t v)
{
    struct cpu *c = m->vm.cpu;
    unsigned vector;
    uint32_t error, cr2 = c->cr2;
    bool real = !(c->cr0 & CPU_CR0_PE) || (c->eflags_sys & CPU_VM);
    if (v == segment(c, seg)->sel)
        return true;
    if (v > 0xFFFF || seg >= SEG_LDTR)
        return false;
    if (seg == SCAN_CS) {
        if (!real)
            return false;
        c->seg[SCAN_CS].sel = (uint16_t)v;
        c->seg[SCAN_CS].base = v << 4;
        vm_segments_changed(&m->vm);
        return true;
    }
    bool ok = emu_load_segment(&m->vm, seg, (uint16_t)v, &vector, &error);
    c->cr2 = cr2;
    return ok;
}

/* Whether the processor is in virtual-8086 mode is not for a debugger to change: the segments would have to, too. */
static bool set_eflags(struct machine *m, uint32_t v)
{
    struct cpu *c = m->vm.cpu;
    if ((v ^ cpu_eflags(c)) & CPU_VM)
        return false;
    cpu_set_eflags(c, v);
    return true;
}

static void set_fpu(struct vm *vm, enum fpu_part part, uint32_t v)
{
    struct emu_fpu_env env;
    emu_fpu_get_env(vm, &env);
    if (fpu_offset(&env, part))
        *fpu_offset(&env, part) = v;
    else
        *fpu_word(&env, part) = (uint16_t)v;
    emu_fpu_set_env(vm, &env);
}

static bool set_value(struct machine *m, const struct reg *r, uint32_t v)
{
    struct cpu *c = m->vm.cpu;
    switch ((enum source)r->source) {
    case FROM_GPR:
        c->gpr[r->arg] = v;
        return true;
    case FROM_EIP:
        debug_set_eip(m, v);
        return true;
    case FROM_EFLAGS:
        return set_eflags(m, v);
    case FROM_SELECTOR:
        return set_selector(m, r->arg, v);
    case FROM_FPU:
        set_fpu(&m->vm, (enum fpu_part)r->arg, v);
        return true;
    case FROM_CR: {
        unsigned vector;
        uint32_t error;
        return emu_load_control(&m->vm, r->arg, v, &vector, &error);
    }
    default:
        return false;
    }
}

bool gdb_reg_set(struct machine *m, unsigned n, const uint8_t *in)
{
    const struct reg *r = &regs[n];
    uint8_t *image = in_image(m->vm.cpu, r), now[GDB_REG_BYTES];
    uint32_t v;
    memcpy(&v, in, 4);
    if (r->source == FROM_MXCSR && v >> 16) /* reserved: FXRSTOR would fault */
        return false;
    if (image) {
        memcpy(image, in, r->bytes);
        return true;
    }
    gdb_reg_get(m, n, now);
    return !memcmp(now, in, r->bytes) || set_value(m, r, v);
}

/* -- target.xml ------------------------------------------------------------------------------------------- */

/* Flags by bit; NULL: reserved. */
static const char *const eflags_bit[32] = {[0] = "CF", [1] = "",    [2] = "PF",  [4] = "AF",  [6] = "ZF",  [7] = "SF",
                                           [8] = "TF", [9] = "IF",  [10] = "DF", [11] = "OF", [14] = "NT", [16] = "RF",
                                           [17] = "VM", [18] = "AC", [19] = "VIF", [20] = "VIP", [21] = "ID"};
static const char *const mxcsr_bit[32] = {"IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM", [15] = "FZ"};
static const char *const cr0_bit[32] = {"PE", "MP", "EM", "TS", "ET", "NE", [16] = "WP", [18] = "AM", [29] = "NW", "CD", "PG"};
static const char *const cr4_bit[32] = {"VME", "PVI", "TSD", "DE", "PSE", "PAE", "MCE", "PGE", "PCE", "OSFXSR", "OSXMMEXCPT", "UMIP",
                                        [20] = "SMEP", "SMAP"};
static const char *const feature_name[FEATURES] = {"org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.verso.i386.system"};

static char xml[16384];
static size_t xml_len;

static void put(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void put(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(xml + xml_len, sizeof(xml) - xml_len, format, args);
    va_end(args);
    if (n > 0)
        xml_len += (size_t)n;
}

static void put_flags(const char *id, const char *const bit[32])
{
    put("<flags id=\"%s\" size=\"4\">", id);
    for (unsigned i = 0; i < 32; i++)
        if (bit[i])
            put("<field name=\"%s\" start=\"%u\" end=\"%u\"/>", bit[i], i, i);
    put("</flags>\n");
}

static void put_types(enum feature f)
{
    static const struct {
        const char *id, *type;
        unsigned count;
    } vectors[] = {{"v4f", "ieee_single", 4}, {"v2d", "ieee_double", 2}, {"v16i8", "int8", 16},
                   {"v8i16", "int16", 8},     {"v4i32", "int32", 4},     {"v2i64", "int64", 2}};
    static const char *const member[] = {"v4_float", "v2_double", "v16_int8", "v8_int16", "v4_int32", "v2_int64"};
    if (f == CORE)
        put_flags("i386_eflags", eflags_bit);
    if (f == SSE) {
        for (unsigned i = 0; i < 6; i++)
            put("<vector id=\"%s\" type=\"%s\" count=\"%u\"/>", vectors[i].id, vectors[i].type, vectors[i].count);
        put("<union id=\"vec128\">");
        for (unsigned i = 0; i < 6; i++)
            put("<field name=\"%s\" type=\"%s\"/>", member[i], vectors[i].id);
        put("<field name=\"uint128\" type=\"uint128\"/></union>\n");
        put_flags("i386_mxcsr", mxcsr_bit);
    }
    if (f == SYSTEM) {
        put_flags("verso_cr0", cr0_bit);
        put_flags("verso_cr4", cr4_bit);
    }
}

const char *gdb_target_xml(size_t *len)
{
    if (!xml_len) {
        put("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target><architecture>i386</architecture>\n");
        for (unsigned f = 0; f < FEATURES; f++) {
            put("<feature name=\"%s\">\n", feature_name[f]);
            put_types((enum feature)f);
            for (unsigned n = 0; n < REGS; n++)
                if (regs[n].feature == f)
                    put("<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"%s/>\n", regs[n].name, regs[n].bytes * 8u,
                        regs[n].type, n, f == SYSTEM ? " group=\"system\"" : regs[n].source == FROM_FPU ? " group=\"float\"" : "");
            put("</feature>\n");
        }
        put("</target>\n");
    }
    *len = xml_len;
    return xml;
}
