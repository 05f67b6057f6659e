/* tests/diff/main.c: differential tests; see diff.h for the idea, tests/README.md for the commands. */
#include "diff.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLOTS = 12, SLOT_BYTES = 320, FAILURES_SHOWN = 20 };

static struct options {
    uint64_t cases, seed;
    unsigned states; /* value sets for one piece of code */
    int mode;        /* -1: all */
    const char *replay;
    bool keep_going;
    uint64_t programs, program; /* that change themselves: how many, and the first seed */
} opt = {100000, 1, 1, -1, NULL, false, 0, 1};

static unsigned failures;
static struct {
    uint64_t interrupts, points, withdrawals, faults, straddles, streams, bad, cut, elsewhere;
} variants;

/* -- One page of cases
 * ------------------------------------------------------------------------------------------------------- */

static struct diff_case slot[SLOTS + 1];
static unsigned slots;

static void show(const struct diff_case *d, const char *variant, const char *why)
{
    char insn[128];
    unsigned at = 0;

    printf("FAIL %s%s\n  ", variant, why);
    while (at < d->len) {
        unsigned n = scan_disassemble(d->code + at, d->len - at, diff_mode_bits(d->mode), d->eip + at, insn,
                                      sizeof insn);

        printf("%s; ", insn);
        at += n ? n : 1;
    }
    printf("\n  ");
    diff_print(stdout, d);
    fflush(stdout);
}

static void place_code(void)
{
    static uint16_t entries[2 * SLOTS + 4];
    enum diff_mode mode = slot[0].mode;
    size_t n = 0;

    world_set_mode(mode);
    box.mode = diff_xlat_mode(&slot[0]);
    world_clear_code(mode);
    for (unsigned k = 0; k < slots; k++) {
        world_code(&slot[k]);
        entries[n++] = slot[k].eip & 0xFFF;
        if (slot[k].target)
            entries[n++] = slot[k].target & 0xFFF;
    }
    if (diff_mode_translated(mode) && !box_translate(entries, n)) {
        fprintf(stderr, "diff: a page cannot be translated\n");
        exit(1);
    }
}

/* Alone in its page, made smaller, shown. */
static void failed(const struct diff_case *d, const char *variant, const char *why)
{
    struct diff_case saved = slot[0], small = *d;
    unsigned saved_slots = slots;

    if (++failures <= FAILURES_SHOWN) {
        slot[0] = *d;
        slots = 1;
        place_code();
        if (diff_check(d)) {
            diff_minimise(&small);
            why = diff_check(&small);
            show(&small, variant, why ? why : "?");
        } else {
            show(d, variant, why);
        }
        slot[0] = saved;
        slots = saved_slots;
        place_code();
    }
    if (failures >= FAILURES_SHOWN && !opt.keep_going) {
        printf("too many failures\n");
        exit(1);
    }
}

/* The same code stopped at each host instruction, and with its memory taken away. */
static void disturb(const struct diff_case *d)
{
    unsigned points = 0, faults = 0;
    const char *why;

    if (diff_reads_time(d))
        return;
    world_start(d);
    box_save();
    box.stop_not = d->eip;
    bool ends = box_run(200) == BOX_HLT, elsewhere = box_differs_elsewhere(false);
    ends &= box_run_oracle(200) == BOX_HLT;
    if (elsewhere) { /* by chance it writes where nothing is put back: it would go on from what it did before */
        variants.elsewhere++;
        if (box_differs_elsewhere(true) && ends)
            failed(d, "elsewhere: ", "memory that no case is meant to write differs");
    } else if (ends) {
        why = box_interrupt_range(d->eip & 0xFFF, (d->eip + d->len) & 0xFFF, &points);
        variants.interrupts++;
        variants.points += points;
        if (why)
            failed(d, "interrupted: ", why);
        why = box_page_in_on_demand(&faults);
        variants.withdrawals++;
        variants.faults += faults;
        if (why)
            failed(d, "withdrawn: ", why);
    }
    world_end(d);
}

/* Streams are few, and have more host instructions between them. */
static bool chosen(const struct diff_case *d)
{
    return diff_translates(d) && gen_random() % (d->insns > 1 ? 2 : 24) == 0;
}

static void check(struct diff_case *d, struct diff_form *f)
{
    uint64_t before = diff_counts.unreferenced;
    const char *why = diff_check(d);

    if (f) {
        f->made[d->mode]++;
        f->compared[d->mode] += diff_counts.unreferenced == before;
    }
    if (why)
        failed(d, "", why);
    else if (chosen(d))
        disturb(d);
}

/* -- Rounds
 * --------------------------------------------------------------------------------------------------------------------
 */

static unsigned *order;

static void shuffle(void)
{
    for (unsigned n = form_count; n > 1; n--) {
        unsigned k = gen_random() % n, t = order[n - 1];

        order[n - 1] = order[k];
        order[k] = t;
    }
}

/* Page ends at each byte of the instruction in turn. */
static uint32_t slot_eip(enum diff_mode mode, unsigned k, unsigned len)
{
    static unsigned split;

    if (k < SLOTS)
        return diff_code_page(mode) + 32 + k % SLOTS * SLOT_BYTES;
    variants.straddles++;
    return diff_code_page(mode) + 0x1000 - 1 - split++ % (len - 1);
}

static void page_of_forms(enum diff_mode mode, unsigned first)
{
    struct diff_form *of[SLOTS + 1];

    slots = 0;
    for (unsigned n = 0; n <= SLOTS && first + n < form_count; n++) {
        struct diff_form *f = &forms[order[first + n]];
        struct diff_case *d = &slot[slots];

        for (unsigned tries = 0; tries < 8; tries++) {
            /* The length decides where the last one begins: made twice with the same random numbers. */
            uint64_t state = gen_state;

            d->eip = diff_code_page(mode) + 32 + slots % SLOTS * SLOT_BYTES;
            if (!gen_case(d, mode, f))
                continue;
            if (slots == SLOTS && d->len < 2) /* nothing to be split */
                break;
            if (slots == SLOTS) {
                d->eip = slot_eip(mode, slots, d->len);
                gen_state = state;
                if (!gen_case(d, mode, f))
                    continue;
            }
            of[slots++] = f;
            break;
        }
    }
    if (!slots)
        return;
    place_code();
    for (unsigned k = 0; k < slots; k++)
        for (unsigned s = 0; s < opt.states; s++) {
            if (s)
                gen_values(&slot[k]);
            check(&slot[k], of[k]);
        }
}

static void page_of_streams(enum diff_mode mode)
{
    for (slots = 0; slots < SLOTS; slots++) {
        slot[slots].eip = diff_code_page(mode) + 32 + slots * SLOT_BYTES;
        gen_stream(&slot[slots], mode, 2 + gen_random() % 5);
    }
    place_code();
    variants.streams += slots;
    for (unsigned k = 0; k < slots; k++)
        check(&slot[k], NULL);
}

/* Undefined opcodes in a page; instructions cut off one by one, since they share their place. */
static void page_of_bad_code(enum diff_mode mode)
{
    for (slots = 0; slots < SLOTS; slots++) {
        slot[slots].eip = diff_code_page(mode) + 32 + slots * SLOT_BYTES;
        gen_bad(&slot[slots], mode);
    }
    place_code();
    variants.bad += slots;
    for (unsigned k = 0; k < slots; k++)
        check(&slot[k], NULL);
    for (unsigned n = 0; n < 6; n++) {
        slot[0].eip = diff_code_page(mode) + 32;
        if (!gen_cut(&slot[0], mode))
            continue;
        slots = 1;
        variants.cut++;
        world_set_mode(mode);
        world_code(&slot[0]);
        check(&slot[0], NULL);
        world_clear_code(mode);
        world_uncode(&slot[0]);
    }
}

static void run(void)
{
    for (unsigned round = 0; diff_counts.cases < opt.cases; round++) {
        shuffle();
        for (unsigned first = 0; first < form_count && diff_counts.cases < opt.cases; first += SLOTS + 1) {
            enum diff_mode mode = (enum diff_mode)((round + first / (SLOTS + 1)) % DIFF_MODE_COUNT);

            if (opt.mode >= 0)
                mode = (enum diff_mode)opt.mode;
            gen_traps = gen_random() % 10 == 0;
            box.options = gen_random() % 8   ? xlat_host_options()
                          : gen_random() % 2 ? 0
                                             : xlat_host_options() | XLAT_OPT_STEP;
            box.hint = gen_random() % 4 == 0 && (box.options & XLAT_OPT_BMI2) ? (enum xlat_hint)(gen_random() % (XLAT_HINT_VOLATILE + 1))
                                                                              : XLAT_HINT_NONE;
            page_of_forms(mode, first);
            if (gen_random() % 4 == 0)
                page_of_streams(mode);
            if (gen_random() % 16 == 0)
                page_of_bad_code(mode);
        }
    }
}

/* Address space in pages; machines that are gone must have given theirs back. */
static uint64_t address_space(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    if (f && fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages;
}

static void run_programs(void)
{
    uint64_t streams = 0, first = 0, last;

    for (uint64_t seed = opt.program; seed < opt.program + opt.programs; seed++) {
        unsigned n;
        const char *why = smc_check(seed, &n);

        streams += n;
        if (seed == opt.program)
            first = address_space();
        if (!why)
            continue;
        printf("FAIL program %lu: %s\n", (unsigned long)seed, why);
        if (++failures >= FAILURES_SHOWN && !opt.keep_going)
            break;
    }
    last = address_space();
    if (last > first + (1u << 18)) { /* 1 GiB: a window is 4 and more */
        printf("FAIL machines leave address space behind: %lu MiB\n", (unsigned long)((last - first) >> 8));
        failures++;
    }
    printf("%lu programs that change themselves, %lu streams:", (unsigned long)opt.programs,
           (unsigned long)streams);
    for (unsigned k = 0; smc_kind_name(k); k++)
        printf("%s %lu %s", k ? "," : "", (unsigned long)smc_runs[k], smc_kind_name(k));
    printf("\n%u failures\n", failures);
}

/* -- What was covered
 * ------------------------------------------------------------------------------------------------------------
 */

static unsigned report_forms(void)
{
    unsigned never = 0, alone = 0;
    char name[80];

    for (unsigned n = 0; n < form_count; n++) {
        uint64_t made = 0, compared = 0;

        for (unsigned m = 0; m < DIFF_MODE_COUNT; m++) {
            made += forms[n].made[m];
            compared += forms[n].compared[m];
        }
        form_name(&forms[n], name, sizeof name);
        if (!made && never++ < 20)
            printf("FAIL never generated: %s\n", name);
        if (ref_native_possible() && made >= 4 && !compared && !form_reason(&forms[n]) && alone++ < 20)
            printf("FAIL never compared with a reference: %s\n", name);
        if (compared && form_reason(&forms[n]) && alone++ < 20)
            printf("FAIL has a reference after all: %s\n", name);
    }
    printf("forms: %u, never generated %u, without reference %u\n", form_count, never, alone);
    return never + alone;
}

static unsigned missing(const char *what, unsigned n)
{
    if (n)
        printf("FAIL operand kinds never generated: %u of %s\n", n, what);
    return n;
}

static unsigned report_operands(void)
{
    const struct gen_coverage *g = &gen_coverage;
    unsigned bad = 0, n = 0;

    for (unsigned m = 0; m < 0xC0; m++)
        n += !g->modrm32[m];
    bad += missing("32-bit ModRM bytes", n);
    n = 0;
    for (unsigned m = 0; m < 0xC0; m++)
        n += !g->modrm16[m];
    bad += missing("16-bit ModRM bytes", n);
    n = 0;
    for (unsigned m = 0; m < 3; m++)
        for (unsigned s = 0; s < 256; s++)
            n += !g->sib[m][s];
    bad += missing("SIB bytes by mod", n);
    n = !g->moffs || !g->imm[1] || !g->imm[2] || !g->imm[4];
    for (unsigned s = 0; s < 7; s++)
        n += !g->segment[s];
    return bad + missing("segment overrides, immediates, moffs", n);
}

static unsigned report_vectors(void)
{
    static const uint8_t wanted[] = {CPU_EXC_DE, CPU_EXC_DB, CPU_EXC_BR, CPU_EXC_UD, CPU_EXC_NM, CPU_EXC_NP,
                                     CPU_EXC_SS, CPU_EXC_GP, CPU_EXC_PF, CPU_EXC_MF, CPU_EXC_AC, CPU_EXC_XM};
    unsigned bad = 0;

    printf("exceptions:");
    for (unsigned n = 0; n < sizeof wanted; n++) {
        printf(" %u:%lu", wanted[n], (unsigned long)diff_counts.vector[wanted[n]]);
        bad += !diff_counts.vector[wanted[n]] && (ref_native_possible() || wanted[n] < CPU_EXC_MF);
    }
    printf("\n");
    if (bad)
        printf("FAIL an exception that cases should have met did not come up\n");
    return bad;
}

static unsigned report(void)
{
    const struct diff_counts *c = &diff_counts;
    unsigned bad = 0;

    printf("%lu cases, seed %lu: %lu translated, %lu natively, %lu by the model, %lu without reference; %lu "
           "shutdowns, %lu halts\n",
           (unsigned long)c->cases, (unsigned long)opt.seed, (unsigned long)c->translated,
           (unsigned long)c->native, (unsigned long)c->modelled, (unsigned long)c->unreferenced,
           (unsigned long)c->shutdown, (unsigned long)c->halted);
    printf("variants: %lu streams, %lu undefined, %lu cut off, %lu across a page end, %lu interrupted at %lu "
           "points, %lu with %lu pages withdrawn, %lu write where nothing is put back\n",
           (unsigned long)variants.streams, (unsigned long)variants.bad, (unsigned long)variants.cut,
           (unsigned long)variants.straddles, (unsigned long)variants.interrupts,
           (unsigned long)variants.points, (unsigned long)variants.withdrawals,
           (unsigned long)variants.faults, (unsigned long)variants.elsewhere);
    if (!ref_native_possible())
        printf("no native execution here: low addresses cannot be mapped\n");
    if (opt.mode < 0 && opt.cases >= 100000) /* fewer cannot cover it all */
        bad = report_forms() + report_operands() + report_vectors();
    printf("%u failures\n", failures);
    return bad;
}

/* -- Command line
 * -----------------------------------------------------------------------------------------------------------------
 */

/* Each line of the file is a case; # begins a comment. */
static int replay(const char *path)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "r") : stdin;
    char line[4096], why[200];
    unsigned n = 0;

    if (!f) {
        perror(path);
        return 3;
    }
    while (fgets(line, sizeof line, f)) {
        struct diff_case d;
        const char *diff;

        if (line[0] == '#' || line[0] == '\n')
            continue;
        if (!diff_parse(line, &d, why, sizeof why)) {
            fprintf(stderr, "diff: %s: case %u: %s\n", path, n + 1, why);
            return 3;
        }
        slot[0] = d;
        slots = 1;
        place_code();
        diff = diff_check(&d);
        if (diff) {
            failures++;
            show(&d, "", diff);
        } else if (diff_translates(&d)) {
            disturb(&d);
        }
        n++;
    }
    if (f != stdin)
        fclose(f);
    printf("%u cases replayed, %u failures\n", n, failures);
    return failures || !n;
}

static int usage(void)
{
    fputs("usage: verso_diff [--cases N] [--seed N] [--states N] [--mode NAME] [--keep-going] [--nightly]\n"
          "       verso_diff --programs N [--program SEED]\n"
          "       verso_diff --replay FILE\n",
          stderr);
    return 2;
}

static bool take_mode(const char *s)
{
    for (int m = 0; m < DIFF_MODE_COUNT; m++)
        if (!strcmp(s, diff_mode_name[m]))
            opt.mode = m;
    return opt.mode >= 0;
}

static bool options(int argc, char **argv)
{
    for (int n = 1; n < argc; n++) {
        const char *v = n + 1 < argc ? argv[n + 1] : NULL;

        if (!strcmp(argv[n], "--nightly")) {
            opt.cases = 10000000;
            opt.states = 4;
            opt.programs = 2000;
            continue;
        }
        if (!strcmp(argv[n], "--keep-going")) {
            opt.keep_going = true;
            continue;
        }
        if (!v)
            return false;
        n++;
        if (!strcmp(argv[n - 1], "--cases"))
            opt.cases = strtoull(v, NULL, 0);
        else if (!strcmp(argv[n - 1], "--seed"))
            opt.seed = strtoull(v, NULL, 0);
        else if (!strcmp(argv[n - 1], "--states"))
            opt.states = (unsigned)strtoul(v, NULL, 0);
        else if (!strcmp(argv[n - 1], "--programs")) {
            opt.programs = strtoull(v, NULL, 0);
            opt.cases = 0;
        } else if (!strcmp(argv[n - 1], "--program"))
            opt.program = strtoull(v, NULL, 0);
        else if (!strcmp(argv[n - 1], "--replay"))
            opt.replay = v;
        else if (strcmp(argv[n - 1], "--mode") || !take_mode(v))
            return false;
    }
    return (opt.cases || opt.programs) && opt.states;
}

int main(int argc, char **argv)
{
    unsigned bad;

    if (!options(argc, argv))
        return usage();
    world_init();
    forms_init();
    if (opt.replay)
        return replay(opt.replay);
    if (opt.programs)
        run_programs();
    if (opt.programs && !opt.cases)
        return failures != 0;
    gen_state = opt.seed * 0x9E3779B97F4A7C15u | 1;
    order = calloc(form_count, sizeof *order);
    if (!order)
        return 2;
    for (unsigned n = 0; n < form_count; n++)
        order[n] = n;
    run();
    bad = report();
    return bad || failures;
}
