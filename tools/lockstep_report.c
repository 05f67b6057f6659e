/* tools/lockstep_report.c: what lockstep found, for people. */
#include "tools/lockstep_report.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "tools/listing.h"

enum { LISTING_AROUND = 6 };

/* -- The states, side by side
 * --------------------------------------------------------------------------------------- */

/* What is always shown, then what is shown where it differs or may matter. */
#define FIELD(field, name, always)                                                                           \
    {                                                                                                        \
        name, offsetof(struct cpu, field), sizeof(((struct cpu *)0)->field), always                          \
    }
#define SEG(n, name)                                                                                         \
    FIELD(seg[n].sel, name, true), FIELD(seg[n].base, name " base", false),                                  \
        FIELD(seg[n].limit, name " limit", false), FIELD(seg[n].attr, name " attr", false),                  \
        FIELD(seg[n].unusable, name " unusable", false), FIELD(seg_sel[n], name " (copy)", false),           \
        FIELD(seg_base[n], name " base (copy)", false)
static const struct field {
    const char *name;
    size_t at, bytes;
    bool always;
} fields[] = {
    FIELD(eip, "eip", true),
    FIELD(gpr[CPU_EAX], "eax", true),
    FIELD(gpr[CPU_ECX], "ecx", true),
    FIELD(gpr[CPU_EDX], "edx", true),
    FIELD(gpr[CPU_EBX], "ebx", true),
    FIELD(gpr[CPU_ESP], "esp", true),
    FIELD(gpr[CPU_EBP], "ebp", true),
    FIELD(gpr[CPU_ESI], "esi", true),
    FIELD(gpr[CPU_EDI], "edi", true),
    FIELD(arith, "arithmetic flags, DF", true),
    FIELD(vif, "IF", true),
    FIELD(eflags_sys, "system flags", true),
    FIELD(shadow, "interrupt shadow", true),
    FIELD(cpl, "cpl", true),
    SEG(SCAN_CS, "cs"),
    SEG(SCAN_SS, "ss"),
    SEG(SCAN_DS, "ds"),
    SEG(SCAN_ES, "es"),
    SEG(SCAN_FS, "fs"),
    SEG(SCAN_GS, "gs"),
    FIELD(seg_window[SCAN_FS], "fs host base", false),
    FIELD(seg_window[SCAN_GS], "gs host base", false),
    FIELD(ldtr.sel, "ldtr", false),
    FIELD(ldtr.base, "ldtr base", false),
    FIELD(tr.sel, "tr", false),
    FIELD(tr.base, "tr base", false),
    FIELD(gdtr.base, "gdtr base", false),
    FIELD(gdtr.limit, "gdtr limit", false),
    FIELD(idtr.base, "idtr base", false),
    FIELD(idtr.limit, "idtr limit", false),
    FIELD(cr0, "cr0", true),
    FIELD(cr2, "cr2", false),
    FIELD(cr3, "cr3", true),
    FIELD(cr4, "cr4", true),
    FIELD(dr[0], "dr0", false),
    FIELD(dr[1], "dr1", false),
    FIELD(dr[2], "dr2", false),
    FIELD(dr[3], "dr3", false),
    FIELD(dr[6], "dr6", false),
    FIELD(dr[7], "dr7", false),
    FIELD(efer, "efer", false),
    FIELD(tsc_offset, "tsc offset", false),
    FIELD(sysenter_cs, "sysenter_cs", false),
    FIELD(sysenter_esp, "sysenter_esp", false),
    FIELD(sysenter_eip, "sysenter_eip", false),
    FIELD(nmi_blocked, "nmi blocked", false),
    FIELD(halted, "halted", false),
};

static uint64_t value(const void *base, size_t at, size_t bytes)
{
    uint64_t v = 0;
    memcpy(&v, (const uint8_t *)base + at, bytes);
    return v;
}

static void row(FILE *to, const char *name, unsigned digits, uint64_t before, uint64_t translated,
                uint64_t emulated)
{
    bool differ = translated != emulated;
    fprintf(to, "  %c %-22s %*s%0*" PRIx64 " %*s%0*" PRIx64 " %*s%0*" PRIx64 "\n", differ ? '*' : ' ', name,
            (int)(16 - digits), "", (int)digits, before, (int)(16 - digits), "", (int)digits, translated,
            (int)(16 - digits), "", (int)digits, emulated);
}

static void states(FILE *to, const struct run_difference *d)
{
    fprintf(to, "    %-22s %16s %16s %16s   (* differs)\n", "state", "before", "translated", "emulated");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const struct field *f = &fields[i];
        uint64_t t = value(&d->translated, f->at, f->bytes), e = value(&d->emulated, f->at, f->bytes);
        if (f->always || t != e)
            row(to, f->name, (unsigned)f->bytes * 2, value(&d->before, f->at, f->bytes), t, e);
    }
}

/* The parts of an FXSAVE image that are guest state (SDM vol. 1, table 10-2). */
static void fpu_states(FILE *to, const struct run_difference *d)
{
    static const struct {
        const char *name;
        unsigned at, bytes;
    } part[] = {{"fcw", 0, 2}, {"fsw", 2, 2}, {"tags (abridged)", 4, 1}, {"mxcsr", 24, 4}};
    const uint8_t *b = d->before.fx, *t = d->translated.fx, *e = d->emulated.fx;
    char name[24];
    for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++)
        if (memcmp(t + part[i].at, e + part[i].at, part[i].bytes))
            row(to, part[i].name, part[i].bytes * 2, value(b, part[i].at, part[i].bytes),
                value(t, part[i].at, part[i].bytes), value(e, part[i].at, part[i].bytes));
    for (unsigned i = 0; i < 16; i++) { /* ST0-7 of ten bytes, XMM0-7 of sixteen: in two rows each */
        unsigned at = i < 8 ? 32 + 16 * i : 160 + 16 * (i - 8), high = i < 8 ? 2 : 8;
        if (!memcmp(t + at, e + at, 8 + high))
            continue;
        snprintf(name, sizeof(name), i < 8 ? "st(%u) upper" : "xmm%u upper", i & 7);
        row(to, name, high * 2, value(b, at + 8, high), value(t, at + 8, high), value(e, at + 8, high));
        snprintf(name, sizeof(name), i < 8 ? "st(%u) lower" : "xmm%u lower", i & 7);
        row(to, name, 16, value(b, at, 8), value(t, at, 8), value(e, at, 8));
    }
}

static void memory(FILE *to, const struct run_difference *d)
{
    for (unsigned i = 0; i < d->memory_count; i++) {
        const struct run_diff_byte *b = &d->memory[i];
        char before[8] = "?", lin[24] = "";
        if (b->before_known)
            snprintf(before, sizeof(before), "%02x", b->before);
        if (b->lin_known)
            snprintf(lin, sizeof(lin), " (linear %08x)", b->lin);
        fprintf(to, "  * byte at physical %09" PRIx64 "%s: before %s, translated %02x, emulated %02x\n",
                b->gpa, lin, before, b->translated, b->emulated);
    }
    if (d->memory_more)
        fprintf(to, "    and %" PRIu64 " bytes more\n", d->memory_more);
}

void lockstep_difference(FILE *to, const struct run_difference *d)
{
    char text[96] = "?", bytes[2 * SCAN_INSN_MAX_LEN + 1] = "";
    if (d->insn.len) {
        scan_disassemble(d->bytes, SCAN_INSN_MAX_LEN, 32, d->before.eip, text, sizeof(text));
        listing_hex(d->bytes, d->insn.len, SCAN_INSN_MAX_LEN, bytes);
    }
    fprintf(to, "verso: lockstep: %s differs at %08x: %s\n", d->what, d->before.eip, text);
    fprintf(to,
            "  bytes %s, class %s; instruction %" PRIu64 " of stretch %" PRIu64 ", after %" PRIu64
            " that were equal\n",
            bytes, d->insn.len ? scan_class_name((enum scan_class)d->insn.cls) : "unknown", d->in_stretch + 1,
            d->stretch, d->compared);
    if (d->since_check)
        fprintf(to,
                "  written by this instruction or one of the %" PRIu64
                " before it, which were compared otherwise "
                "(check:1 compares all memory after each)\n",
                d->since_check - 1);
    states(to, d);
    fpu_states(to, d);
    memory(to, d);
    if (!d->has_code)
        return;
    struct listing *l = calloc(1, sizeof(*l));
    if (!l)
        return;
    *l = (struct listing){.recto = d->recto,
                          .code = d->code,
                          .code_len = d->code_len,
                          .unwind = d->unwind,
                          .unwind_len = d->unwind_len,
                          .base = d->lin};
    listing_init(l);
    listing_code(to, l, (int)d->offset, LISTING_AROUND);
    free(l);
}

/* -- What was compared
 * ------------------------------------------------------------------------------------------------ */

static const char *class_name(unsigned cls)
{
    return cls < SCAN_CLASS_COUNT ? scan_class_name((enum scan_class)cls) : "unknown";
}

static void classes_text(FILE *to, const uint64_t by_class[SCAN_CLASS_COUNT + 1])
{
    for (unsigned c = 0; c <= SCAN_CLASS_COUNT; c++)
        if (by_class[c])
            fprintf(to, "    %-16s %14" PRIu64 "\n", class_name(c), by_class[c]);
}

static uint64_t sum(const uint64_t by_class[SCAN_CLASS_COUNT + 1])
{
    uint64_t n = 0;
    for (unsigned c = 0; c <= SCAN_CLASS_COUNT; c++)
        n += by_class[c];
    return n;
}

void lockstep_text(FILE *to, const struct run_result *r)
{
    fprintf(to, "lockstep\n  compared           %14" PRIu64 "  in %" PRIu64 " stretches\n",
            sum(r->lock_compared), r->counter[RUN_COUNTER_LOCKSTEP_STRETCHES]);
    classes_text(to, r->lock_compared);
    for (unsigned a = 0; a < RUN_ALONE_COUNT; a++) {
        if (!sum(r->lock_alone[a]))
            continue;
        fprintf(to, "  emulated alone     %14" PRIu64 "  %s\n", sum(r->lock_alone[a]),
                run_alone_text((enum run_alone)a));
        classes_text(to, r->lock_alone[a]);
    }
}

static void classes_json(struct json *j, const char *name, const uint64_t by_class[SCAN_CLASS_COUNT + 1])
{
    json_object(j, name);
    for (unsigned c = 0; c <= SCAN_CLASS_COUNT; c++)
        if (by_class[c])
            json_u64(j, class_name(c), by_class[c]);
    json_end_object(j);
}

void lockstep_json(struct json *j, const struct run_result *r)
{
    json_object(j, "lockstep");
    classes_json(j, "compared", r->lock_compared);
    json_object(j, "alone");
    for (unsigned a = 0; a < RUN_ALONE_COUNT; a++)
        classes_json(j, run_alone_name((enum run_alone)a), r->lock_alone[a]);
    json_end_object(j);
    json_end_object(j);
}
