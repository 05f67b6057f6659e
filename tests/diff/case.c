/* tests/diff/case.c: a case as text, run all ways and compared, made smaller. */
#include "diff.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct diff_counts diff_counts;

/* -- Text
 * ---------------------------------------------------------------------------------------------------------------
 */

static void hex(FILE *f, const uint8_t *p, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        fprintf(f, "%02x", p[k]);
}

static void plain_fx(uint8_t fx[288])
{
    memset(fx, 0, 288);
    memcpy(fx, "\x7F\x03", 2);
    memcpy(fx + 24, "\x80\x1F", 2);
}

void diff_print(FILE *f, const struct diff_case *d)
{
    uint8_t plain[288];

    plain_fx(plain);
    fprintf(f, "mode=%s insns=%u code=", diff_mode_name[d->mode], d->insns);
    hex(f, d->code, d->len);
    fprintf(f, " eip=%x target=%x eflags=%x cr0=%x cr4=%x gpr=", d->eip, d->target, d->eflags, d->cr0,
            d->cr4);
    for (unsigned r = 0; r < 8; r++)
        fprintf(f, "%s%x", r ? "," : "", d->gpr[r]);
    fprintf(f, " sel=");
    for (unsigned s = 0; s < 6; s++)
        fprintf(f, "%s%x", s ? "," : "", d->sel[s]);
    if (memcmp(d->fx, plain, sizeof plain)) {
        fprintf(f, " fx=");
        hex(f, d->fx, sizeof d->fx);
    }
    for (unsigned p = 0; p < d->plants; p++) {
        fprintf(f, " mem=%x:", d->plant[p].at);
        hex(f, d->plant[p].bytes, d->plant[p].len);
    }
    fputc('\n', f);
}

static bool take_hex(const char *s, uint8_t *out, unsigned max, unsigned *n)
{
    unsigned byte;

    for (*n = 0; s[0] && s[1] && *n < max && sscanf(s, "%2x", &byte) == 1; s += 2)
        out[(*n)++] = (uint8_t)byte;
    return !*s && *n;
}

static bool take_list(const char *s, uint32_t *out, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        char *end;

        out[n] = (uint32_t)strtoul(s, &end, 16);
        if (end == s || (n + 1 < count ? *end != ',' : *end != 0))
            return false;
        s = end + 1;
    }
    return true;
}

static bool take_mode(const char *s, enum diff_mode *mode)
{
    for (unsigned m = 0; m < DIFF_MODE_COUNT; m++)
        if (!strcmp(s, diff_mode_name[m])) {
            *mode = (enum diff_mode)m;
            return true;
        }
    return false;
}

static bool take_plant(struct diff_case *d, const char *s)
{
    const char *colon = strchr(s, ':');
    struct diff_plant *p = &d->plant[d->plants];
    unsigned n;

    if (!colon || d->plants == DIFF_PLANTS || !take_hex(colon + 1, p->bytes, DIFF_PLANT_MAX, &n))
        return false;
    p->at = (uint32_t)strtoul(s, NULL, 16);
    p->len = (uint8_t)n;
    d->plants++;
    return p->at >= W_CODE16 && p->at + n <= W_HOT + W_HOT_SIZE;
}

static bool take_field(struct diff_case *d, const char *key, const char *v)
{
    const struct {
        const char *name;
        uint32_t *at;
        unsigned count;
    } numbers[] = {{"eip", &d->eip, 1}, {"target", &d->target, 1}, {"eflags", &d->eflags, 1},
                   {"cr0", &d->cr0, 1}, {"cr4", &d->cr4, 1},       {"gpr", d->gpr, 8}};
    uint32_t list[6];
    unsigned n;

    for (unsigned k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
        if (!strcmp(key, numbers[k].name))
            return take_list(v, numbers[k].at, numbers[k].count);
    if (!strcmp(key, "mode"))
        return take_mode(v, &d->mode);
    if (!strcmp(key, "insns")) {
        d->insns = (uint8_t)atoi(v);
        return true;
    }
    if (!strcmp(key, "code")) {
        bool ok = take_hex(v, d->code, DIFF_CODE_MAX, &n);

        d->len = (uint8_t)n;
        return ok;
    }
    if (!strcmp(key, "sel")) {
        bool ok = take_list(v, list, 6);

        for (unsigned s = 0; ok && s < 6; s++)
            d->sel[s] = (uint16_t)list[s];
        return ok;
    }
    if (!strcmp(key, "fx"))
        return take_hex(v, d->fx, sizeof d->fx, &n) && n == sizeof d->fx;
    return !strcmp(key, "mem") && take_plant(d, v);
}

bool diff_parse(const char *line, struct diff_case *d, char *why, size_t size)
{
    char copy[4096], *save = NULL;

    *d = (struct diff_case){.insns = 1};
    plain_fx(d->fx);
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok_r(copy, " \t\r\n", &save); word; word = strtok_r(NULL, " \t\r\n", &save)) {
        char *eq = strchr(word, '=');

        if (eq)
            *eq = 0;
        if (!eq || !take_field(d, word, eq + 1)) {
            snprintf(why, size, "cannot read \"%s\"", word);
            return false;
        }
    }
    if (!d->len || d->eip - diff_code_page(d->mode) >= (diff_mode_bits(d->mode) == 16 ? 0xC000 : 0x5000)) {
        snprintf(why, size, "no code, or not in the code pages");
        return false;
    }
    return true;
}

/* -- Comparison
 * ------------------------------------------------------------------------------------------------------------
 */

static char text[600];

static const char *differ(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *differ(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return text;
}

/* Flags that the manual leaves undefined, where the model did the instruction. (What the host does is
 * compared in full: the emulator and translated code have the same host compute them.) */
static uint32_t undefined_flags(const struct diff_case *d)
{
    struct scan_insn i;
    uint8_t padded[16] = {0};

    memcpy(padded, d->code, d->len < 16 ? d->len : 16);
    if (scan_decode(padded, 15, diff_mode_bits(d->mode), &i) != SCAN_OK)
        return 0;
    if (i.map == SCAN_MAP_0F && (i.opcode & 0xC7) == 0x83 && i.opcode >= 0xA3) /* BT and its kin */
        return CPU_OF | CPU_SF | CPU_AF | CPU_PF;
    if (i.map != SCAN_MAP_1B)
        return 0;
    switch (i.opcode) {
    case 0x27:
    case 0x2F:
        return CPU_OF;
    case 0x37:
    case 0x3F:
        return CPU_OF | CPU_SF | CPU_ZF | CPU_PF;
    case 0xD4:
    case 0xD5:
        return CPU_OF | CPU_AF | CPU_CF;
    default:
        return 0;
    }
}

static bool seg_equal(const struct cpu_seg *a, const struct cpu_seg *b)
{
    if (a->sel != b->sel || a->unusable != b->unusable)
        return false;
    return a->unusable || (a->base == b->base && a->limit == b->limit && a->attr == b->attr);
}

static const char *compare_registers(const struct cpu *a, const struct cpu *b, uint32_t ignore_gpr,
                                     uint32_t undefined)
{
    static const char *const name[8] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};

    if (a->eip != b->eip)
        return differ("eip %08x / %08x", a->eip, b->eip);
    for (unsigned r = 0; r < 8; r++)
        if (a->gpr[r] != b->gpr[r] && !(ignore_gpr >> r & 1))
            return differ("%s %08x / %08x", name[r], a->gpr[r], b->gpr[r]);
    if ((cpu_eflags(a) ^ cpu_eflags(b)) & ~undefined)
        return differ("eflags %08x / %08x", cpu_eflags(a), cpu_eflags(b));
    for (unsigned s = 0; s < 6; s++)
        if (!seg_equal(&a->seg[s], &b->seg[s]))
            return differ("segment %u: %04x base %x limit %x attr %x unusable %u / %04x base %x limit %x "
                          "attr %x unusable %u",
                          s, a->seg[s].sel, a->seg[s].base, a->seg[s].limit, a->seg[s].attr,
                          a->seg[s].unusable, b->seg[s].sel, b->seg[s].base, b->seg[s].limit, b->seg[s].attr,
                          b->seg[s].unusable);
    if (!seg_equal(&a->ldtr, &b->ldtr) || !seg_equal(&a->tr, &b->tr))
        return differ("ldtr %04x tr %04x attr %x / %04x %04x %x", a->ldtr.sel, a->tr.sel, a->tr.attr,
                      b->ldtr.sel, b->tr.sel, b->tr.attr);
    if (a->cpl != b->cpl)
        return differ("cpl %u / %u", a->cpl, b->cpl);
    if (a->cr0 != b->cr0 || a->cr2 != b->cr2 || a->cr3 != b->cr3 || a->cr4 != b->cr4)
        return differ("cr0 %x cr2 %x cr3 %x cr4 %x / %x %x %x %x", a->cr0, a->cr2, a->cr3, a->cr4, b->cr0,
                      b->cr2, b->cr3, b->cr4);
    if (a->gdtr.base != b->gdtr.base || a->gdtr.limit != b->gdtr.limit || a->idtr.base != b->idtr.base ||
        a->idtr.limit != b->idtr.limit)
        return differ("gdtr %x:%x idtr %x:%x / %x:%x %x:%x", a->gdtr.base, a->gdtr.limit, a->idtr.base,
                      a->idtr.limit, b->gdtr.base, b->gdtr.limit, b->idtr.base, b->idtr.limit);
    for (unsigned n = 0; n < 8; n++)
        if (n != 4 && n != 5 && a->dr[n] != b->dr[n])
            return differ("dr%u %08x / %08x", n, a->dr[n], b->dr[n]);
    if (a->sysenter_cs != b->sysenter_cs || a->sysenter_esp != b->sysenter_esp ||
        a->sysenter_eip != b->sysenter_eip)
        return differ("sysenter registers");
    return NULL;
}

static const char *compare_fx(const struct cpu *a, const struct cpu *b, bool pointers)
{
    for (unsigned n = 0; n < 5; n++)
        if (a->fx[n] != b->fx[n])
            return differ("x87 control, status, tags %02x%02x %02x%02x %02x / %02x%02x %02x%02x %02x",
                          a->fx[1], a->fx[0], a->fx[3], a->fx[2], a->fx[4], b->fx[1], b->fx[0], b->fx[3],
                          b->fx[2], b->fx[4]);
    if (memcmp(a->fx + 24, b->fx + 24, 4))
        return differ("mxcsr %02x%02x / %02x%02x", a->fx[25], a->fx[24], b->fx[25], b->fx[24]);
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(a->fx + 32 + 16 * n, b->fx + 32 + 16 * n, 10)) {
            uint64_t x, y;

            memcpy(&x, a->fx + 32 + 16 * n, 8);
            memcpy(&y, b->fx + 32 + 16 * n, 8);
            return differ("st%u %02x%02x:%016lx / %02x%02x:%016lx", n, a->fx[41 + 16 * n], a->fx[40 + 16 * n],
                          x, b->fx[41 + 16 * n], b->fx[40 + 16 * n], y);
        }
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(a->fx + 160 + 16 * n, b->fx + 160 + 16 * n, 16)) {
            uint64_t x[2], y[2];

            memcpy(x, a->fx + 160 + 16 * n, 16);
            memcpy(y, b->fx + 160 + 16 * n, 16);
            return differ("xmm%u %016lx%016lx / %016lx%016lx", n, x[1], x[0], y[1], y[0]);
        }
    for (unsigned n = 6; n < 24 && pointers; n++)
        if (a->fx[n] != b->fx[n])
            return differ("x87 pointers: byte %u %02x / %02x", n, a->fx[n], b->fx[n]);
    return NULL;
}

static const char *compare_memory(const uint8_t *a, const uint8_t *b)
{
    uint32_t at = box.map->hot, end = at + box.map->hot_bytes;

    if (!memcmp(a + at, b + at, end - at))
        return NULL;
    while (a[at] == b[at])
        at++;
    return differ("memory at %05x: %02x%02x%02x%02x / %02x%02x%02x%02x", at, a[at], a[at + 1], a[at + 2],
                  a[at + 3], b[at], b[at + 1], b[at + 2], b[at + 3]);
}

static const char *prefixed(const char *who, const char *what)
{
    static char out[700];

    snprintf(out, sizeof out, "%s: %s", who, what);
    return out;
}

static const char *stop_name(enum diff_stop s)
{
    static const char *const name[] = {"ends", "halts", "raises", "shuts down", "is skipped", "is broken"};

    return name[s];
}

bool diff_reads_time(const struct diff_case *d)
{
    for (unsigned n = 0; n + 1 < d->len; n++)
        if (d->code[n] == 0x0F && d->code[n + 1] == 0x31)
            return true;
    return false;
}

/* The last instruction's pointers are in the image for the reference, beside it for the emulator. */
static void take_pointers(struct cpu *c)
{
    memcpy(&c->x87.op, c->fx + 6, 2);
    memcpy(&c->x87.ip, c->fx + 8, 4);
    memcpy(&c->x87.cs, c->fx + 12, 2);
    memcpy(&c->x87.dp, c->fx + 16, 4);
    memcpy(&c->x87.ds, c->fx + 20, 2);
    memset(c->fx + 6, 0, 18);
    c->host_fpu_ip = c->host_fpu_dp = 0;
}

static void put_pointers(struct cpu *c)
{
    memset(c->fx + 6, 0, 18);
    memcpy(c->fx + 6, &c->x87.op, 2);
    memcpy(c->fx + 8, &c->x87.ip, 4);
    memcpy(c->fx + 12, &c->x87.cs, 2);
    memcpy(c->fx + 16, &c->x87.dp, 4);
    memcpy(c->fx + 20, &c->x87.ds, 2);
}

const char *diff_check(const struct diff_case *d)
{
    bool translate = diff_translates(d);
    enum diff_stop t = DIFF_SKIP, e, r;
    uint32_t ignore = diff_reads_time(d) ? 1u << CPU_EAX | 1u << CPU_EDX : 0;
    const char *why = NULL, *who = "translated / emulated";

    world_start(d);
    take_pointers(box.cpu);
    take_pointers(box.oracle->cpu);
    if (translate)
        t = run_translated(d);
    e = run_emulated(d, d->insns + 64);
    r = ref_run(d, d->insns + 8);
    if (ref_vector == CPU_EXC_DB && undefined_flags(d)) /* they stand in the frame of the single step */
        r = DIFF_SKIP;
    diff_counts.cases++;
    diff_counts.translated += translate;
    diff_counts.native += r != DIFF_SKIP && (ref_how & REF_NATIVE);
    diff_counts.modelled += r != DIFF_SKIP && !(ref_how & REF_NATIVE);
    diff_counts.unreferenced += r == DIFF_SKIP;
    diff_counts.shutdown += e == DIFF_SHUTDOWN;
    diff_counts.halted += e == DIFF_HALT;
    if (ref_vector >= 0 && ref_vector < 32)
        diff_counts.vector[ref_vector]++;
    if (e == DIFF_BROKEN)
        why = differ("the emulator does not reach the end");
    else if (translate && t != e)
        why = differ("translated code %s (signal %d at host %u, guest %d), the emulator %s", stop_name(t),
                     box.fault.signal, box.fault.host_off, box.fault.at.guest_rel, stop_name(e));
    else if (e == DIFF_SHUTDOWN || r == DIFF_SHUTDOWN)
        why = r == DIFF_SKIP || e == r
                  ? NULL
                  : differ("the emulator %s, the reference %s", stop_name(e), stop_name(r));
    if (why || e == DIFF_SHUTDOWN) {
        world_end(d);
        return why;
    }
    if (translate) {
        why = compare_registers(box.cpu, box.oracle->cpu, ignore, 0);
        why = why ? why : compare_fx(box.cpu, box.oracle->cpu, false);
        why = why ? why : compare_memory(box.ram, box.oracle_ram);
    }
    if (!why && r != DIFF_SKIP) {
        uint32_t undefined = ref_vector < 0 && !(ref_how & REF_NATIVE) ? undefined_flags(d) : 0;

        who = "emulated / reference";
        put_pointers(box.oracle->cpu);
        if ((r == DIFF_HALT) != (e == DIFF_HALT))
            why = differ("the emulator %s, the reference %s", stop_name(e), stop_name(r));
        why = why ? why : compare_registers(box.oracle->cpu, ref_cpu, ignore, undefined);
        why = why ? why : compare_fx(box.oracle->cpu, ref_cpu, true);
        why = why ? why : compare_memory(box.oracle_ram, ref_ram);
        if (why && ref_vector >= 0)
            why = differ("%s (the reference raised vector %d)", strdup(why), ref_vector);
    }
    world_end(d);
    return why ? prefixed(who, why) : NULL;
}

/* -- Smaller
 * ------------------------------------------------------------------------------------------------------------------
 */

static bool fails(const struct diff_case *d)
{
    return diff_check(d) != NULL;
}

static bool try_instead(struct diff_case *d, const struct diff_case *smaller)
{
    if (!memcmp(d, smaller, sizeof *d) || !fails(smaller))
        return false;
    *d = *smaller;
    return true;
}

void diff_minimise(struct diff_case *d)
{
    struct diff_case s = *d;

    plain_fx(s.fx);
    try_instead(d, &s);
    for (unsigned p = 0; p < d->plants;) {
        s = *d;
        memmove(&s.plant[p], &s.plant[p + 1], (DIFF_PLANTS - 1 - p) * sizeof s.plant[0]);
        s.plants--;
        p += !try_instead(d, &s);
    }
    for (unsigned r = 0; r < 8; r++) {
        s = *d;
        s.gpr[r] = r == CPU_ESP ? W_HOT + 0x8000 : 0;
        try_instead(d, &s);
    }
    for (unsigned bit = 0; bit < 32; bit++) {
        s = *d;
        s.eflags &= ~(1u << bit) | CPU_FLAG1 | CPU_VM;
        try_instead(d, &s);
    }
    s = *d;
    s.cr4 = CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT;
    try_instead(d, &s);
    for (unsigned bit = 0; bit < 20; bit++) {
        s = *d;
        if ((1u << bit) & (CPU_CR0_TS | CPU_CR0_EM | CPU_CR0_MP | CPU_CR0_AM))
            s.cr0 &= ~(1u << bit);
        try_instead(d, &s);
    }
    for (unsigned n = 0; n < 288 && memcmp(d->fx + n, "\0\0\0\0", 4); n += 16) {
        s = *d;
        if (n >= 32)
            memset(s.fx + n, 0, 16);
        try_instead(d, &s);
    }
}
