/* tests/diff/forms.c: every opcode form of the CPU model, found by asking the scanner.
 *
 * A form is an opcode with its mandatory or repeat prefix, memory or register operand, the reg field of ModRM
 * (an opcode extension for some, a register for others: both are worth having one by one), and LOCK where it
 * is allowed. Register forms of x87 and of 0F 01 are told apart by the whole ModRM byte. Nothing is listed by
 * hand, so nothing can be forgotten.
 */
#include "diff.h"

#include <stdlib.h>
#include <string.h>

#define FORM_MAX 40000u
struct diff_form *forms;
unsigned form_count;

/* Without a second opinion: what the answer is, is Verso's own choice. */
static const struct {
    uint8_t map, opcode;
    const char *reason;
} unreferenced[] = {
    {SCAN_MAP_0F, 0xA2, "CPUID says what emu_cpuid() says"},
};

static bool valid(const uint8_t *p, unsigned n, struct scan_insn *i)
{
    uint8_t bytes[16] = {0};

    memcpy(bytes, p, n);
    return scan_decode(bytes, 15, 32, i) == SCAN_OK;
}

static bool told_by_whole_modrm(const struct scan_insn *i)
{
    return (i->map == SCAN_MAP_1B && i->opcode >= 0xD8 && i->opcode <= 0xDF) ||
           (i->map == SCAN_MAP_0F && i->opcode == 0x01);
}

static void add(const struct diff_form *f)
{
    if (form_count == FORM_MAX) {
        fprintf(stderr, "diff: too many opcode forms\n");
        exit(2);
    }
    forms[form_count] = *f;
    for (unsigned n = 0; n < sizeof unreferenced / sizeof unreferenced[0]; n++)
        if (unreferenced[n].map == f->map && unreferenced[n].opcode == f->opcode)
            forms[form_count].no_reference = (uint8_t)(n + 1);
    form_count++;
}

static void add_modrm(struct diff_form *f, uint8_t *bytes, unsigned n)
{
    struct scan_insn i;

    for (unsigned m = 0; m < 256; m++) {
        bytes[n] = (uint8_t)m;
        if ((m < 0xC0 && (m & 0xC7)) || !valid(bytes, n + 1, &i)) /* memory: [eax] stands for all */
            continue;
        f->mem = m < 0xC0 && scan_has_mem(&i);
        f->whole_modrm = m >= 0xC0 && told_by_whole_modrm(&i);
        if (m < 0xC0 && !f->mem) /* the mod field is ignored */
            continue;
        if (m >= 0xC0 && !f->whole_modrm && (m & 7))
            continue;
        f->modrm = f->whole_modrm ? (uint8_t)m : (uint8_t)(m >> 3 & 7);
        f->cls = i.cls;
        add(f);
    }
}

static void add_opcode(unsigned map, unsigned opcode, unsigned prefix, bool lock)
{
    struct diff_form f = {
        .map = (uint8_t)map, .opcode = (uint8_t)opcode, .prefix = (uint8_t)prefix, .lock = lock};
    uint8_t bytes[8];
    struct scan_insn i;
    unsigned n = 0;
    bool any = false;

    if (lock)
        bytes[n++] = 0xF0;
    if (prefix)
        bytes[n++] = (uint8_t)prefix;
    if (map != SCAN_MAP_1B)
        bytes[n++] = 0x0F;
    if (map == SCAN_MAP_0F38 || map == SCAN_MAP_0F3A)
        bytes[n++] = map == SCAN_MAP_0F38 ? 0x38 : 0x3A;
    bytes[n++] = (uint8_t)opcode;
    for (unsigned m = 0; m < 256 && !any; m += 8) { /* with some ModRM, or none */
        bytes[n] = (uint8_t)m;
        any = valid(bytes, n + 1, &i) && i.op_off == n - 1 && i.map == map;
    }
    if (!any)
        return;
    f.has_modrm = i.has_modrm;
    f.cls = i.cls;
    if (f.has_modrm)
        add_modrm(&f, bytes, n);
    else
        add(&f);
}

void forms_init(void)
{
    static const uint8_t prefixes[4] = {0, 0x66, 0xF3, 0xF2};

    forms = calloc(FORM_MAX, sizeof *forms);
    if (!forms)
        exit(2);
    for (unsigned map = SCAN_MAP_1B; map <= SCAN_MAP_0F3A; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned p = 0; p < 8; p++)
                add_opcode(map, opcode, prefixes[p & 3], p & 4);
}

const char *form_reason(const struct diff_form *f)
{
    return f->no_reference ? unreferenced[f->no_reference - 1].reason : NULL;
}

void form_name(const struct diff_form *f, char *text, size_t size)
{
    static const char *const map[4] = {"", "0f", "0f38", "0f3a"};
    char modrm[24] = "";

    if (f->whole_modrm)
        snprintf(modrm, sizeof modrm, " %02x", f->modrm);
    else if (f->has_modrm)
        snprintf(modrm, sizeof modrm, " /%u %s", f->modrm, f->mem ? "mem" : "reg");
    snprintf(text, size, "%s%.*s%s%02x%s (%s)", f->lock ? "lock " : "", f->prefix ? 3 : 0,
             f->prefix == 0x66   ? "66 "
             : f->prefix == 0xF3 ? "f3 "
                                 : "f2 ",
             map[f->map], f->opcode, modrm, scan_class_name((enum scan_class)f->cls));
}
