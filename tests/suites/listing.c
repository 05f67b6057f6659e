/* tests/suites/listing.c: the scanner against objdump, instruction by instruction.
 *
 *   listing compare 16|32 NAME < LISTING   objdump -d -z -w --insn-width=15 -M intel (or intel,i8086):
 * lengths and classes listing starts KERNEL < LISTING        each instruction start that scan_page() finds in
 * the kernel is one of objdump's listing extract KERNEL OUT             the ELF file inside a kernel image
 *
 * objdump says where instructions start, how long they are and what they are called; listing_classes.def says
 * which of those names the CPU model has and of what class they are. Three things objdump does otherwise are
 * undone while reading: it prints superfluous prefixes as lines of their own, joins FWAIT with the x87
 * instruction behind it, and cuts an instruction at the next symbol (".byte"). Exit status: 0 nothing but
 * known differences, 1 others, 2 wrong use or input.
 */
#include "scanner/scan.h"
#include "scanner/image/image.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- Tables
 * ----------------------------------------------------------------------------------------------------- */

enum kind {
    LENGTH,       /* both know it, the lengths differ */
    CLASS,        /* both know it, the class is not the name's */
    REFUSED,      /* of the CPU model, refused by the scanner */
    BEYOND,       /* not of the CPU model, accepted */
    ACCEPTED_BAD, /* objdump takes it for undefined, accepted */
};
static const char *const kind_names[] = {"length", "class", "refused", "beyond model", "bad accepted"};

static struct difference {
    enum kind kind;
    const char *text, *bytes, *reason;
    unsigned long seen;
} differences[] = {
#define DIFFERENCE(kind, text, bytes, reason) {kind, text, bytes, reason, 0},
#include "tests/suites/listing_differences.def"
#undef DIFFERENCE
    {0} /* end */
};

static const struct names {
    enum scan_class cls;
    const char *names;
} name_rows[] = {
#define MNEMONICS(cls, names) {SCAN_CLASS_##cls, names},
#define OPERANDS(cls, name, pattern)
#include "tests/suites/listing_classes.def"
#undef MNEMONICS
#undef OPERANDS
};

static const struct operand_rule {
    enum scan_class cls;
    const char *name, *pattern;
} operand_rules[] = {
#define MNEMONICS(cls, names)
#define OPERANDS(cls, name, pattern) {SCAN_CLASS_##cls, name, pattern},
#include "tests/suites/listing_classes.def"
#undef MNEMONICS
#undef OPERANDS
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { NAME_MAX_LEN = 24 };

/* The names of name_rows, one by one and sorted. */
static struct name {
    char text[NAME_MAX_LEN];
    enum scan_class cls;
} names[1024];
static size_t name_count;

static int name_order(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

static void names_init(void)
{
    for (size_t i = 0; i < COUNT(name_rows); i++)
        for (const char *p = name_rows[i].names; *p; p += strspn(p, " ")) {
            size_t n = strcspn(p, " ");
            if (name_count == COUNT(names) || n >= sizeof names->text)
                abort();
            memcpy(names[name_count].text, p, n);
            names[name_count++].cls = name_rows[i].cls;
            p += n;
        }
    qsort(names, name_count, sizeof *names, name_order);
}

static bool is_one_of(const char *word, const char *list)
{
    size_t n = strlen(word);
    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
            return true;
    return false;
}

/* -- A listing
 * ---------------------------------------------------------------------------------------------------- */

struct line {
    uint32_t address;
    unsigned off, len; /* in the section's bytes */
    char *text;        /* as objdump prints it; owned */
};

/* One section: its instructions and their bytes, back to back. */
struct section {
    uint8_t *bytes;
    unsigned size, capacity;
    struct line *line;
    unsigned count, line_capacity;
};

static void *grow(void *p, unsigned *capacity, unsigned wanted, size_t element)
{
    if (wanted <= *capacity)
        return p;
    *capacity = wanted + wanted / 2 + 4096;
    p = realloc(p, *capacity * element);
    if (!p)
        abort();
    return p;
}

/* "  c1000000:\t0f 0b \tud2": false if the line is no instruction. */
static bool section_add(struct section *s, char *line)
{
    char *end;
    unsigned long address = strtoul(line, &end, 16);
    unsigned value;
    int used;

    if (end == line || end[0] != ':' || end[1] != '\t')
        return false;
    s->line = grow(s->line, &s->line_capacity, s->count + 1, sizeof *s->line);
    struct line *l = &s->line[s->count];
    *l = (struct line){.address = (uint32_t)address, .off = s->size};
    for (end += 2; sscanf(end, "%2x%n", &value, &used) == 1 && used == 2; end += 3) {
        s->bytes = grow(s->bytes, &s->capacity, s->size + 1, 1);
        s->bytes[s->size++] = (uint8_t)value;
        l->len++;
    }
    end += strspn(end, " \t");
    end[strcspn(end, "\n")] = 0;
    l->text = strdup(end);
    s->count += l->len > 0;
    return true;
}

static void section_clear(struct section *s)
{
    for (unsigned i = 0; i < s->count; i++)
        free(s->line[i].text);
    s->size = s->count = 0;
}

/* -- What objdump's text says
 * -------------------------------------------------------------------------------------- */

struct meaning {
    bool lock, opsize16;
    char name[NAME_MAX_LEN]; /* "" if the line holds nothing but prefixes */
    const char *operands;    /* in the line's text */
    const char *rest;        /* the text without prefixes */
};

static const char prefix_words[] =
    "rep repz repnz lock data16 data32 addr16 addr32 cs ds es ss fs gs bnd notrack "
    "xacquire xrelease {evex} {vex}";

static struct meaning meaning_of(const char *text, const uint8_t *bytes, unsigned len, unsigned bits)
{
    struct meaning m = {.operands = text};
    char word[64];

    for (;;) {
        size_t n = strcspn(m.operands, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, m.operands);
        m.rest = m.operands;
        m.operands += n + strspn(m.operands + n, " ");
        if (!*word || !is_one_of(word, prefix_words))
            break;
        m.lock |= !strcmp(word, "lock");
    }
    snprintf(m.name, sizeof m.name, "%.*s", NAME_MAX_LEN - 1, word);
    m.opsize16 = bits == 16;
    for (unsigned i = 0; i < len && memchr("\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65", bytes[i], 11); i++)
        if (bytes[i] == 0x66) {
            m.opsize16 = bits == 32;
            break;
        }
    return m;
}

/* "?" stands for a register that does not exist. */
static bool is_bad(const char *text)
{
    return strstr(text, "(bad)") || strchr(text, '?');
}

/* SDM vol. 2, LOCK: the instructions that may have it, and only with a memory destination, which objdump
 * writes as "[ebx]" or "ds:0x0". XCHG's may be printed second. */
static bool lock_allowed(const struct meaning *m)
{
    size_t first = strcspn(m->operands, ",");

    return is_one_of(m->name,
                     "add adc and btc btr bts cmpxchg cmpxchg8b dec inc neg not or sbb sub xor xadd xchg") &&
           (strcspn(m->operands, "[:") < first || (!strcmp(m->name, "xchg") && strpbrk(m->operands, "[:")));
}

/* The class the name and its operands stand for; SCAN_CLASS_INVALID if the CPU model has no such instruction.
 */
static enum scan_class expected_class(const struct meaning *m, const uint8_t *bytes, unsigned len)
{
    struct name key;
    char operands[128];

    snprintf(key.text, sizeof key.text, "%s", m->name);
    const struct name *n = bsearch(&key, names, name_count, sizeof *names, name_order);
    if (!n || len > SCAN_INSN_MAX_LEN || is_bad(m->rest) || (m->lock && !lock_allowed(m)))
        return SCAN_CLASS_INVALID;
    /* With 16-bit operands a DWORD is a far pointer, a near one a WORD. */
    snprintf(operands, sizeof operands, "%s%s",
             m->opsize16 && !strncmp(m->operands, "DWORD", 5) ? "16:16 " : "", m->operands);
    for (size_t i = 0; i < COUNT(operand_rules); i++)
        if (!strcmp(operand_rules[i].name, m->name) && !fnmatch(operand_rules[i].pattern, operands, 0))
            return operand_rules[i].cls;
    if (n->cls == SCAN_CLASS_PLAIN && bytes[0] == 0x82)
        return SCAN_CLASS_LEGACY; /* 80h's other encoding: not in 64-bit code */
    return n->cls;
}

/* -- Comparing
 * ------------------------------------------------------------------------------------------------------- */

struct tally {
    unsigned long compared, accepted, refused, cut;
    unsigned long unknown; /* differences that are not in the table */
    struct shown {
        enum kind kind;
        char name[NAME_MAX_LEN];
    } shown[64]; /* of which one example each was printed */
    unsigned shown_count;
};

/* The first difference of its kind and name is printed, and no more than a screenful. */
static bool worth_showing(struct tally *t, enum kind kind, const char *name)
{
    for (unsigned i = 0; i < t->shown_count; i++)
        if (t->shown[i].kind == kind && !strcmp(t->shown[i].name, name))
            return false;
    if (t->shown_count == COUNT(t->shown))
        return false;
    t->shown[t->shown_count].kind = kind;
    strcpy(t->shown[t->shown_count++].name, name);
    return true;
}

static void differ(struct tally *t, enum kind kind, const uint8_t *bytes, unsigned len,
                   const struct meaning *m, const char *text, const char *ours)
{
    char hex[2 * 32 + 1] = "";

    for (unsigned i = 0; i < len && i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    for (size_t i = 0; i + 1 < COUNT(differences); i++) {
        struct difference *d = &differences[i];
        if (d->kind == kind && !fnmatch(d->text, m->rest, 0) && !fnmatch(d->bytes, hex, 0)) {
            d->seen++;
            return;
        }
    }
    t->unknown++;
    if (worth_showing(t, kind, m->name))
        printf("FAIL: %s: %s (%s), scanner: %s\n", kind_names[kind], hex, text, ours);
}

static void compare(struct tally *t, const uint8_t *bytes, unsigned avail, unsigned len, const char *text,
                    unsigned bits)
{
    struct meaning m = meaning_of(text, bytes, len, bits);
    struct scan_insn i;
    char ours[64] = "refused";
    enum scan_decode_status status = scan_decode(bytes, avail, bits, &i);
    enum scan_class expected = expected_class(&m, bytes, len);
    bool accepted = status == SCAN_OK;

    if (status == SCAN_TRUNCATED) { /* the section ends inside */
        t->cut++;
        return;
    }
    t->compared++;
    t->accepted += accepted;
    t->refused += !accepted;
    if (accepted)
        snprintf(ours, sizeof ours, "%s, %u bytes", scan_class_name(i.cls), i.len);
    if (expected == SCAN_CLASS_INVALID) {
        if (accepted)
            differ(t, is_bad(m.rest) ? ACCEPTED_BAD : BEYOND, bytes, len, &m, text, ours);
    } else if (!accepted) {
        differ(t, REFUSED, bytes, len, &m, text, ours);
    } else if (i.len != len) {
        differ(t, LENGTH, bytes, len, &m, text, ours);
    } else if (i.cls != expected) {
        differ(t, CLASS, bytes, len, &m, text, ours);
    }
}

static void compare_section(struct tally *t, const struct section *s, unsigned bits)
{
    unsigned pending = 0; /* bytes of prefixes in front that objdump printed alone */

    for (unsigned n = 0; n < s->count; n++) {
        const struct line *l = &s->line[n];
        unsigned off = l->off - pending, len = l->len + pending;
        struct meaning m = meaning_of(l->text, s->bytes + off, len, bits);

        if (!strncmp(m.rest, ".byte", 5)) {
            t->cut++;
            pending = 0;
            continue;
        }
        if (!*m.name) {
            pending = len;
            continue;
        }
        pending = 0;
        if (s->bytes[off] == 0x9b && len > 1) {
            compare(t, s->bytes + off, s->size - off, 1, "fwait", bits);
            off++, len--;
        }
        compare(t, s->bytes + off, s->size - off, len, l->text, bits);
    }
}

/* Prints the known differences that occurred; with all of them asked for, those that did not are failures. */
static bool report(const struct tally *t, bool all_rows)
{
    bool stale = false;

    for (size_t i = 0; i + 1 < COUNT(differences); i++) {
        struct difference *d = &differences[i];
        if (d->seen)
            printf("  %7lu  %s: %s: %s\n", d->seen, kind_names[d->kind], d->text, d->reason);
        else if (all_rows)
            stale = true,
            printf("FAIL: no longer a difference: %s %s %s\n", kind_names[d->kind], d->text, d->bytes);
    }
    if (t->unknown)
        printf("FAIL: %lu differences that are not in listing_differences.def\n", t->unknown);
    return !t->unknown && !stale;
}

static bool compare_file(struct tally *t, unsigned bits, const char *path)
{
    struct section s = {0};
    struct tally before = *t;
    char line[4096];
    FILE *f = fopen(path, "r");

    if (!f) {
        perror(path);
        return false;
    }
    while (fgets(line, sizeof line, f))
        if (!section_add(&s, line) && !strncmp(line, "Disassembly of section", 22)) {
            compare_section(t, &s, bits);
            section_clear(&s);
        }
    compare_section(t, &s, bits);
    section_clear(&s);
    free(s.line), free(s.bytes), fclose(f);
    printf("%s: %lu instructions compared, %lu known to both, %lu refused, %lu cut short\n", path,
           t->compared - before.compared, t->accepted - before.accepted, t->refused - before.refused,
           t->cut - before.cut);
    return t->compared > before.compared;
}

static int run_compare(char **argument, bool all_rows)
{
    struct tally t = {0};

    names_init();
    for (; argument[0] && argument[1]; argument += 2)
        if (!compare_file(&t, !strcmp(argument[0], "16") ? 16 : 32, argument[1])) {
            fprintf(stderr, "listing: no instructions in %s\n", argument[1]);
            return 2;
        }
    return report(&t, all_rows) ? 0 : 1;
}

/* -- A kernel
 * -----------------------------------------------------------------------------------------------------------
 */

static bool kernel_open(const char *path, struct image_kernel *k)
{
    struct image_error error = {0};
    struct image_blob file;

    if (image_read_file(path, &file, &error)) {
        bool good = image_kernel_parse(file.data, file.len, path, k, &error);
        image_blob_free(&file);
        if (good)
            return true;
    }
    fprintf(stderr, "listing: %s\n", error.text);
    return false;
}

static int run_extract(const char *path, const char *out)
{
    struct image_kernel k;
    FILE *f;
    int status = 2;

    if (!kernel_open(path, &k))
        return 2;
    f = fopen(out, "wb");
    if (f && fwrite(k.elf.data, 1, k.elf.len, f) == k.elf.len)
        status = 0;
    if (!f || fclose(f))
        status = 2;
    if (status)
        perror(out);
    image_kernel_free(&k);
    return status;
}

/* What objdump listed: a byte for each address, 1 where an instruction starts. */
struct starts {
    uint32_t low, high;
    uint8_t *mark;
    struct scan_page *page;
    unsigned long found, agreed, listed;
};

static bool check_page(struct starts *s, uint32_t address)
{
    for (unsigned off = 0; off < SCAN_PAGE_SIZE; off++) {
        uint32_t a = address + off;
        if (a < s->low || a >= s->high)
            continue;
        s->listed += s->mark[a - s->low];
        if (!(s->page->attr[off] & SCAN_ATTR_START))
            continue;
        s->found++;
        if (s->mark[a - s->low])
            s->agreed++;
        else if (s->found - s->agreed <= 20)
            printf("FAIL: %08x: an instruction start for the scanner, not for objdump\n", a);
    }
    return true;
}

static bool check_run(void *arg, const struct image_file *file, const struct image_exec *exec)
{
    struct starts *s = arg;
    uint16_t entries[SCAN_PAGE_SIZE];
    size_t next = 0;

    if (strcmp(file->kind, "kernel"))
        return true;
    for (size_t page = 0; page < exec->len / SCAN_PAGE_SIZE; page++) {
        uint32_t address = exec->vaddr + (uint32_t)(page * SCAN_PAGE_SIZE);
        size_t n = 0;
        for (; next < exec->entry_count && exec->entries[next] - address < SCAN_PAGE_SIZE; next++)
            entries[n++] = (uint16_t)(exec->entries[next] - address);
        scan_page(exec->bytes + page * SCAN_PAGE_SIZE, 32, entries, n, s->page);
        check_page(s, address);
    }
    return true;
}

/* Marks the instruction that line i of the listing holds, and the one behind the FWAIT that objdump joins
 * with it. */
static void mark_line(struct starts *s, const struct section *list, unsigned i)
{
    const struct line *l = &list->line[i];

    s->mark[l->address - s->low] = 1;
    if (l->len > 1 && list->bytes[l->off] == 0x9b)
        s->mark[l->address + 1 - s->low] = 1;
}

static int run_starts(const char *path, const char *listing)
{
    struct section list = {0};
    struct starts s = {.low = UINT32_MAX};
    struct image_kernel k;
    struct image_error error = {0};
    char line[4096];
    FILE *f = fopen(listing, "r");

    if (!f) {
        perror(listing);
        return 2;
    }
    while (fgets(line, sizeof line, f))
        section_add(&list, line);
    fclose(f);
    for (unsigned i = 0; i < list.count; i++) {
        uint32_t end = list.line[i].address + list.line[i].len;
        s.low = list.line[i].address < s.low ? list.line[i].address : s.low;
        s.high = end > s.high ? end : s.high;
    }
    if (!list.count || !kernel_open(path, &k))
        return 2;
    s.mark = calloc(s.high - s.low, 1);
    s.page = calloc(1, sizeof *s.page);
    if (!s.mark || !s.page)
        abort();
    for (unsigned i = 0; i < list.count; i++)
        mark_line(&s, &list, i);
    bool good = image_kernel_exec(&k, path, check_run, &s, &error);
    if (!good)
        fprintf(stderr, "listing: %s\n", error.text);
    printf("%s: %lu instruction starts of the scanner, %lu of them objdump's, which lists %lu\n", path,
           s.found, s.agreed, s.listed);
    section_clear(&list);
    free(list.line), free(list.bytes), free(s.mark), free(s.page);
    image_kernel_free(&k);
    return good && s.found && s.found == s.agreed ? 0 : 1;
}

int main(int argc, char **argv)
{
    bool all = argc > 2 && !strcmp(argv[2], "--all");

    if (argc >= 4 + all && !((argc - all) & 1) && !strcmp(argv[1], "compare"))
        return run_compare(argv + 2 + all, all);
    if (argc == 4 && !strcmp(argv[1], "extract"))
        return run_extract(argv[2], argv[3]);
    if (argc == 4 && !strcmp(argv[1], "starts"))
        return run_starts(argv[2], argv[3]);
    fprintf(stderr, "usage: listing compare [--all] BITS LISTING [BITS LISTING]... | starts KERNEL LISTING | "
                    "extract KERNEL OUT\n");
    return 2;
}
