/* scanner/image/exec.c: the executable pages of ELF files, as the loader lays them out, with their entries.
 *
 * Programs and libraries: as mmap() of the file puts them. Kernel modules: as Linux's module loader lays
 * sections out (kernel/module/main.c, layout_sections: executable sections first, in their order, init
 * sections apart).
 */
#include "scanner/image/elf.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

/* Module init sections are mapped apart from the others; the code map keeps them apart by this. */
#define INIT_BASE 0x80000000u

/* -- Runs
 * ----------------------------------------------------------------------------------------------------- */

void exec_job_free(struct exec_job *j)
{
    for (size_t i = 0; i < j->count; i++) {
        free(j->run[i].bytes);
    }
    free(j->run);
    code_map_free(&j->map);
    *j = (struct exec_job){0};
}

bool exec_job_pages(struct exec_job *j, uint32_t start, uint32_t end, uint32_t base)
{
    uint32_t from = start & ~(IMAGE_PAGE - 1);
    uint64_t to = ((uint64_t)end + IMAGE_PAGE - 1) & ~(uint64_t)(IMAGE_PAGE - 1);
    struct exec_run *last = j->count != 0 ? &j->run[j->count - 1] : NULL;

    if (last != NULL && last->base == base && from <= last->vaddr + base + last->len) {
        uint64_t len = to - (last->vaddr + base);
        last->len = len > last->len ? (size_t)len : last->len;
        last->code_end = end - base;
        return true;
    }
    if (j->count == j->room) {
        size_t room = j->room != 0 ? j->room * 2 : 8;
        struct exec_run *run = realloc(j->run, room * sizeof(*run));
        if (run == NULL) {
            return false;
        }
        j->run = run;
        j->room = room;
    }
    j->run[j->count++] =
        (struct exec_run){from - base, base, (size_t)(to - from), NULL, start - base, end - base};
    return true;
}

static bool exec_job_alloc(struct exec_job *j)
{
    uint64_t total = 0;

    for (size_t i = 0; i < j->count; i++) {
        total += j->run[i].len;
        j->run[i].bytes = total <= IMAGE_MAX_BYTES ? calloc(j->run[i].len, 1) : NULL;
        if (j->run[i].bytes == NULL) {
            return false;
        }
    }
    return true;
}

uint8_t *exec_job_at(struct exec_job *j, uint32_t addr)
{
    for (size_t i = 0; i < j->count; i++) {
        uint32_t at = addr - j->run[i].base - j->run[i].vaddr;
        if (addr >= j->run[i].base && at < j->run[i].len) {
            return j->run[i].bytes + at;
        }
    }
    return NULL;
}

bool exec_job_deliver(struct exec_job *j, const struct image_file *file, image_exec_fn fn, void *arg)
{
    struct words *w = &j->map.entries;
    size_t next = 0;

    for (size_t i = 0; i < j->count; i++) {
        struct exec_run *r = &j->run[i];
        uint32_t start = r->vaddr + r->base;
        while (next < w->count && w->v[next] < start) {
            next++;
        }
        size_t first = next;
        for (; next < w->count && w->v[next] - start < r->len; next++) {
            w->v[next] -= r->base;
        }
        struct image_exec exec = {
            .vaddr = r->vaddr,
            .len = r->len,
            .bytes = r->bytes,
            .code_start = r->code_start,
            .code_end = r->code_end,
            .entries = w->v != NULL ? w->v + first : NULL,
            .entry_count = next - first,
        };
        if (!fn(arg, file, &exec)) {
            return true;
        }
    }
    return true;
}

/* -- What is executable
 * --------------------------------------------------------------------------------------- */

struct piece {
    uint32_t start, end; /* code map addresses */
    uint32_t base;
    uint32_t off; /* in the file */
    bool section;
};
struct pieces {
    struct piece *v; /* malloc */
    size_t count;
};

static int compare_pieces(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    return (x->start > y->start) - (x->start < y->start);
}

static bool is_code(const struct elf_section *s)
{
    return (s->flags & (SHF_ALLOC | SHF_EXECINSTR)) == (SHF_ALLOC | SHF_EXECINSTR) &&
           s->type == SHT_PROGBITS && s->size != 0;
}

/* Part of the memory image, and not code. */
static bool is_data(const struct elf_section *s)
{
    return (s->flags & (SHF_ALLOC | SHF_EXECINSTR)) == SHF_ALLOC && s->type != SHT_NOBITS && s->size != 0;
}

static bool in_segment(const struct elf_view *v, const struct elf_section *s, bool any)
{
    for (unsigned i = 0; i < v->seg_count; i++) {
        const struct elf_segment *g = &v->seg[i];
        uint32_t at = s->addr - g->vaddr;
        if ((any || (g->flags & PF_X) != 0) && at < g->filesz && s->size <= g->filesz - at &&
            s->off == g->off + at) {
            return true;
        }
    }
    return false;
}

/* Code of a linked file: its executable sections, or without sections its executable segments. */
static struct pieces linked_pieces(const struct elf_view *v, bool any_segment)
{
    struct pieces p = {calloc(v->sec_count + v->seg_count + 1, sizeof(*p.v)), 0};

    for (size_t i = 0; p.v != NULL && i < v->sec_count; i++) {
        const struct elf_section *s = &v->sec[i];
        if (is_code(s) && in_segment(v, s, any_segment)) {
            p.v[p.count++] = (struct piece){s->addr, s->addr + s->size, 0, s->off, true};
        }
    }
    for (unsigned i = 0; p.v != NULL && p.count == 0 && i < v->seg_count; i++) {
        const struct elf_segment *g = &v->seg[i];
        if ((g->flags & PF_X) != 0 && g->filesz != 0) {
            p.v[p.count++] = (struct piece){g->vaddr, g->vaddr + g->filesz, 0, g->off, false};
            i = v->sec_count == 0 ? i : v->seg_count;
        }
    }
    return p;
}

/* Sorts, drops what overlaps, and allocates the runs. Ends that wrap at 4 GiB are dropped too. */
static bool make_runs(struct exec_job *j, struct pieces *p)
{
    size_t kept = 0;

    qsort(p->v, p->count, sizeof(*p->v), compare_pieces);
    for (size_t i = 0; i < p->count; i++) {
        const struct piece *a = &p->v[i];
        if (a->end <= a->start || (kept != 0 && a->start < p->v[kept - 1].end)) {
            continue;
        }
        if (!exec_job_pages(j, a->start, a->end, a->base)) {
            return false;
        }
        j->exec_bytes += a->end - a->start;
        p->v[kept++] = *a;
    }
    p->count = kept;
    return exec_job_alloc(j);
}

static void add_ranges(struct exec_job *j, const struct pieces *p)
{
    for (size_t i = 0; i < p->count; i++) {
        const uint8_t *bytes = exec_job_at(j, p->v[i].start);
        if (bytes != NULL) {
            code_map_add(&j->map, p->v[i].start, p->v[i].end - p->v[i].start, bytes, p->v[i].section);
        }
    }
}

/* Copies file bytes [off, off + len) to address addr, as far as the run r and the file reach. */
static void copy_in(struct exec_run *r, struct span file, int64_t off, uint64_t addr, uint64_t len)
{
    uint64_t start = r->vaddr, end = start + r->len, to = addr + len;

    if (off < 0) {
        uint64_t skip = (uint64_t)-off;
        if (skip >= len) {
            return;
        }
        addr += skip;
        off = 0;
    }
    if (addr < start) {
        off += (int64_t)(start - addr);
        addr = start;
    }
    to = to < end ? to : end;
    if (to <= addr || (uint64_t)off >= file.n) {
        return;
    }
    len = to - addr < file.n - (uint64_t)off ? to - addr : file.n - (uint64_t)off;
    memcpy(r->bytes + (addr - start), file.p + off, len);
}

static void zero_out(struct exec_run *r, uint64_t addr, uint64_t to)
{
    uint64_t start = r->vaddr, end = start + r->len;

    addr = addr > start ? addr : start;
    to = to < end ? to : end;
    if (addr < to) {
        memset(r->bytes + (addr - start), 0, to - addr);
    }
}

/* What mmap() of the file puts into the pages of r, and the zeros the loader writes behind a writable
 * segment. */
static void fill_mapped(const struct elf_view *v, struct exec_run *r)
{
    for (unsigned i = 0; i < v->seg_count; i++) {
        const struct elf_segment *s = &v->seg[i];
        uint64_t lead = s->vaddr & (IMAGE_PAGE - 1), end = (uint64_t)s->vaddr + s->filesz;
        uint64_t page_end = (end + IMAGE_PAGE - 1) & ~(uint64_t)(IMAGE_PAGE - 1);
        if (s->filesz == 0) {
            continue;
        }
        if ((s->off & (IMAGE_PAGE - 1)) != lead) { /* cannot be mapped; only the content is sure */
            copy_in(r, v->file, s->off, s->vaddr, s->filesz);
            continue;
        }
        copy_in(r, v->file, (int64_t)s->off - (int64_t)lead, s->vaddr - lead, page_end - (s->vaddr - lead));
        if ((s->flags & PF_W) != 0 && s->memsz > s->filesz) {
            zero_out(r, end, page_end);
        }
    }
}

/* A kernel's loader copies segments; between them memory is zero. */
static void fill_copied(const struct elf_view *v, struct exec_run *r)
{
    for (unsigned i = 0; i < v->seg_count; i++) {
        copy_in(r, v->file, v->seg[i].off, v->seg[i].vaddr, v->seg[i].filesz);
    }
}

/* -- Entries of linked files
 * ---------------------------------------------------------------------------------- */

static void symbol_entries(const struct elf_view *v, const struct elf_section *s, struct code_map *m)
{
    struct span data = elf_section_data(v, s);
    uint32_t value;
    uint16_t section;
    uint8_t info;

    for (uint64_t off = 0; span_has(data, off, 16); off += 16) {
        (void)!span_u32(data, off + 4, &value);
        (void)!span_u8(data, off + 12, &info);
        (void)!span_u16(data, off + 14, &section);
        unsigned type = info & 15;
        if (section == SHN_UNDEF || section == SHN_ABS) {
            continue;
        }
        if (type == STT_FUNC || type == STT_GNU_IFUNC) {
            code_map_entry(m, value);
        } else if (type == STT_NOTYPE && s->type == SHT_SYMTAB) { /* a label of assembly code */
            code_map_hint(m, value);
        }
    }
}

static void pointer_at(const struct elf_view *v, uint32_t where, struct code_map *m)
{
    uint32_t word;

    if (elf_view_word(v, where, &word)) {
        code_map_hint(m, word);
    }
}

/* Dynamic relocations whose result is known: load address plus the word in place. */
static void relative_relocs(const struct elf_view *v, struct span data, struct code_map *m)
{
    uint32_t where, info;

    for (uint64_t off = 0; span_u32(data, off, &where) && span_u32(data, off + 4, &info); off += 8) {
        if ((info & 0xFF) == R_386_RELATIVE || (info & 0xFF) == R_386_IRELATIVE) {
            pointer_at(v, where, m);
        }
    }
}

/* RELR (generic ABI): an even word is an address, an odd one a bitmap of the 31 words behind the last. */
static void relr_relocs(const struct elf_view *v, struct span data, struct code_map *m)
{
    uint32_t word, where = 0;

    for (uint64_t off = 0; span_u32(data, off, &word); off += 4) {
        if ((word & 1) == 0) {
            pointer_at(v, word, m);
            where = word + 4;
            continue;
        }
        for (uint32_t bits = word >> 1, at = where; bits != 0; bits >>= 1, at += 4) {
            if ((bits & 1) != 0) {
                pointer_at(v, at, m);
            }
        }
        where += 31 * 4;
    }
}

static void array_entries(struct span data, struct code_map *m)
{
    uint32_t word;

    for (uint64_t off = 0; span_u32(data, off, &word); off += 4) {
        code_map_hint(m, word);
    }
}

static void stub_entries(const struct elf_section *s, uint32_t step, struct code_map *m)
{
    for (uint32_t off = 0; off < s->size; off += step) {
        code_map_hint(m, s->addr + off);
    }
}

/* Exception tables of Linux since 4.6: fault, fixup (both relative to their own place), type. */
static void extable_entries(const struct elf_section *s, struct span data, struct code_map *m)
{
    uint32_t fault, fixup;

    for (uint64_t off = 0; span_u32(data, off, &fault) && span_u32(data, off + 4, &fixup); off += 12) {
        code_map_hint(m, s->addr + (uint32_t)off + fault);
        code_map_hint(m, s->addr + (uint32_t)off + 4 + fixup);
    }
}

static void section_entries(const struct elf_view *v, const struct elf_section *s, struct code_map *m)
{
    struct span data = elf_section_data(v, s);

    if (s->type == SHT_SYMTAB || s->type == SHT_DYNSYM) {
        symbol_entries(v, s, m);
    } else if (s->type == SHT_REL && (s->flags & SHF_ALLOC) != 0) {
        relative_relocs(v, data, m);
    } else if (s->type == SHT_INIT_ARRAY || s->type == SHT_FINI_ARRAY || s->type == SHT_PREINIT_ARRAY) {
        array_entries(data, m);
    } else if (strcmp(s->name, ".relr.dyn") == 0) {
        relr_relocs(v, data, m);
    } else if (strcmp(s->name, ".eh_frame") == 0) {
        elf_unwind_starts(data, s->addr, m);
    } else if (strcmp(s->name, "__ex_table") == 0 && v->type == ET_EXEC) {
        extable_entries(s, data, m);
    } else if (strcmp(s->name, ".plt") == 0 || strcmp(s->name, ".plt.sec") == 0) {
        stub_entries(s, 16, m);
    } else if (strcmp(s->name, ".plt.got") == 0) {
        stub_entries(s, 8, m);
    }
}

/* The value of a dynamic tag, 0 if it is not there. */
static uint32_t dynamic_tag(const struct elf_view *v, uint32_t wanted, bool *found)
{
    uint32_t tag, value;

    *found = false;
    for (uint64_t off = 0;
         span_u32(v->dynamic, off, &tag) && span_u32(v->dynamic, off + 4, &value) && tag != DT_NULL;
         off += 8) {
        if (tag == wanted) {
            *found = true;
            return value;
        }
    }
    return 0;
}

/* Words of data that, taken as an address or (in position-independent code: switch tables) as a distance from
 * the global offset table, are an instruction start. */
static void weak_words(const struct elf_view *v, struct code_map *m)
{
    bool has_got;
    uint32_t got = dynamic_tag(v, DT_PLTGOT, &has_got), word;

    for (size_t i = 0; i < v->sec_count; i++) {
        const struct elf_section *s = &v->sec[i];
        if (!is_data(s) || s->type != SHT_PROGBITS || strncmp(s->name, ".eh_frame", 9) == 0) {
            continue;
        }
        struct span data = elf_section_data(v, s);
        for (uint64_t off = -s->off & 3; span_u32(data, off, &word); off += 4) {
            if (v->type == ET_EXEC) {
                code_map_weak(m, word);
            }
            if (has_got && (s->flags & SHF_WRITE) == 0) {
                code_map_weak(m, got + word);
            }
        }
    }
}

/* -- Programs, libraries
 * -------------------------------------------------------------------------------------- */

static const char *linked_kind(const struct elf_view *v)
{
    bool soname;

    dynamic_tag(v, DT_SONAME, &soname);
    return v->type == ET_EXEC || (v->has_interp && !soname) || (!soname && v->entry != 0) ? "program"
                                                                                          : "library";
}

static void dynamic_entries(const struct elf_view *v, struct code_map *m)
{
    bool found;
    uint32_t init = dynamic_tag(v, DT_INIT, &found);

    if (found) {
        code_map_entry(m, init);
    }
    init = dynamic_tag(v, DT_FINI, &found);
    if (found) {
        code_map_entry(m, init);
    }
}

static bool linked_job(const struct elf_view *v, struct exec_job *j)
{
    struct pieces p = linked_pieces(v, false);

    if (p.v == NULL || !make_runs(j, &p)) {
        free(p.v);
        return false;
    }
    for (size_t i = 0; i < j->count; i++) {
        fill_mapped(v, &j->run[i]);
    }
    add_ranges(j, &p);
    free(p.v);
    code_map_entry(&j->map, v->entry);
    dynamic_entries(v, &j->map);
    for (size_t i = 0; i < v->sec_count; i++) {
        section_entries(v, &v->sec[i], &j->map);
    }
    if (!code_map_sweep(&j->map)) {
        return false;
    }
    weak_words(v, &j->map);
    return code_map_finish(&j->map);
}

/* -- Kernel modules
 * ------------------------------------------------------------------------------------------- */

struct module {
    const struct elf_view *v;
    uint32_t *addr; /* of each executable section in the code map; 0xFFFFFFFF for others; malloc */
    struct code_map *map;
    uint32_t symbols; /* number of the symbol table */
};

/* module_init_section() of Linux: by name. */
static bool is_init(const struct elf_section *s)
{
    return strncmp(s->name, ".init", 5) == 0;
}

static bool layout_part(struct module *mod, struct pieces *p, bool init)
{
    uint64_t at = init ? INIT_BASE : 0;

    for (size_t i = 0; i < mod->v->sec_count; i++) {
        const struct elf_section *s = &mod->v->sec[i];
        uint64_t align = s->align != 0 ? s->align : 1;
        if (!is_code(s) || is_init(s) != init) {
            continue;
        }
        at = (at + align - 1) / align * align;
        if (align > IMAGE_PAGE || at + s->size > (init ? UINT32_MAX : INIT_BASE)) {
            return false;
        }
        mod->addr[i] = (uint32_t)at;
        at += s->size;
        p->v[p->count++] = (struct piece){mod->addr[i], (uint32_t)at, init ? INIT_BASE : 0, s->off, true};
    }
    return true;
}

struct symbol {
    uint32_t addr; /* in the code map */
    bool code;
};

static struct symbol symbol_of(const struct module *mod, uint32_t number)
{
    struct span table = elf_section_data(mod->v, &mod->v->sec[mod->symbols]);
    struct symbol none = {0, false};
    uint32_t value;
    uint16_t section;

    if (!span_u32(table, (uint64_t)number * 16 + 4, &value) ||
        !span_u16(table, (uint64_t)number * 16 + 14, &section) || section >= mod->v->sec_count ||
        mod->addr[section] == UINT32_MAX) {
        return none;
    }
    return (struct symbol){mod->addr[section] + value, true};
}

static void module_symbols(struct module *mod)
{
    struct span table = elf_section_data(mod->v, &mod->v->sec[mod->symbols]);
    uint32_t name;
    uint8_t info;

    for (uint32_t i = 0; span_has(table, (uint64_t)i * 16, 16); i++) {
        struct symbol s = symbol_of(mod, i);
        (void)!span_u32(table, (uint64_t)i * 16, &name);
        (void)!span_u8(table, (uint64_t)i * 16 + 12, &info);
        if (s.code && (info & 15) == STT_FUNC) {
            code_map_entry(mod->map, s.addr);
        } else if (s.code && (info & 15) == STT_NOTYPE && name != 0) {
            code_map_hint(mod->map, s.addr);
        }
    }
}

/* Relocations of section `target`: the fields are no code yet, and the symbols that lie in code are entries.
 */
static void module_relocs(struct module *mod, const struct elf_section *rel)
{
    const struct elf_section *target = &mod->v->sec[rel->info];
    struct span data = elf_section_data(mod->v, rel), content = elf_section_data(mod->v, target);
    bool code = mod->addr[rel->info] != UINT32_MAX;
    uint32_t where, info, addend;

    for (uint64_t off = 0; span_u32(data, off, &where) && span_u32(data, off + 4, &info); off += 8) {
        unsigned type = info & 0xFF;
        struct symbol s = symbol_of(mod, info >> 8);
        if (code) {
            code_map_reloc(mod->map, mod->addr[rel->info] + where);
        }
        if (!s.code || !span_u32(content, where, &addend)) {
            continue;
        }
        if (type == R_386_32) {
            code_map_hint(mod->map, s.addr + addend);
        } else if (type == R_386_PC32 || type == R_386_PLT32) {
            /* In code the field ends the instruction it is relative to; in tables it is relative to itself.
             */
            code_map_hint(mod->map, s.addr + addend + (code ? 4 : 0));
        }
    }
}

static bool module_entries(struct module *mod)
{
    const struct elf_view *v = mod->v;

    for (size_t i = 0; i < v->sec_count; i++) {
        if (v->sec[i].type == SHT_SYMTAB) {
            mod->symbols = (uint32_t)i;
        }
    }
    if (mod->symbols != 0) {
        module_symbols(mod);
    }
    for (size_t i = 0; i < v->sec_count; i++) {
        const struct elf_section *s = &v->sec[i];
        if (s->type == SHT_REL && s->info < v->sec_count && (v->sec[s->info].flags & SHF_ALLOC) != 0) {
            module_relocs(mod, s);
        }
    }
    return code_map_sweep(mod->map);
}

static bool module_fill(struct exec_job *j, const struct elf_view *v, const struct pieces *p)
{
    for (size_t i = 0; i < p->count; i++) {
        uint8_t *to = exec_job_at(j, p->v[i].start);
        struct span from;
        if (to == NULL || !span_sub(v->file, p->v[i].off, p->v[i].end - p->v[i].start, &from)) {
            return false;
        }
        memcpy(to, from.p, from.n);
    }
    return true;
}

static bool module_job(const struct elf_view *v, struct exec_job *j)
{
    struct module mod = {.v = v, .map = &j->map};
    struct pieces p = {calloc(v->sec_count + 1, sizeof(*p.v)), 0};
    bool ok;

    mod.addr = malloc((v->sec_count + 1) * sizeof(*mod.addr));
    ok = mod.addr != NULL && p.v != NULL;
    if (ok) {
        memset(mod.addr, 0xFF, (v->sec_count + 1) * sizeof(*mod.addr));
        ok = layout_part(&mod, &p, false) && layout_part(&mod, &p, true) && make_runs(j, &p) &&
             module_fill(j, v, &p);
    }
    if (ok) {
        add_ranges(j, &p);
        ok = module_entries(&mod);
    }
    free(mod.addr);
    free(p.v);
    return ok;
}

/* -- Entry points
 * --------------------------------------------------------------------------------------------- */

static void describe(struct image_file *f, const uint8_t *data, size_t len, const char *name,
                     const char *kind)
{
    XXH128_hash_t digest = XXH3_128bits(data, len);

    *f = (struct image_file){.digest_lo = digest.low64, .digest_hi = digest.high64, .file_bytes = len};
    snprintf(f->name, sizeof(f->name), "%s", name);
    snprintf(f->kind, sizeof(f->kind), "%s", kind);
}

bool elf_exec_as(const uint8_t *data, size_t len, const char *name, const char *kind, image_exec_fn fn,
                 void *arg, struct image_error *err)
{
    struct elf_view v;
    struct exec_job j = {0};
    struct image_file file;
    bool ok;

    if (!elf_view_open(&v, data, len, name, err)) {
        return false;
    }
    bool module = v.type == ET_REL;
    if (!module && v.type != ET_EXEC && v.type != ET_DYN) {
        elf_view_close(&v);
        return image_fail(err, IMAGE_ERR_ELF,
                          "%s: an ELF file of a kind that holds no code to run (a core dump?)", name);
    }
    describe(&file, data, len, name, kind[0] != '\0' ? kind : module ? "module" : linked_kind(&v));
    file.user = !module;
    ok = module ? module_job(&v, &j) : linked_job(&v, &j);
    if (ok) {
        file.exec_bytes = j.exec_bytes;
        exec_job_deliver(&j, &file, fn, arg);
    } else {
        image_fail(err, IMAGE_ERR_ELF, "%s: damaged ELF file: its sections cannot be laid out in memory",
                   name);
    }
    exec_job_free(&j);
    elf_view_close(&v);
    return ok;
}

bool image_elf_exec(const uint8_t *data, size_t len, const char *name, image_exec_fn fn, void *arg,
                    struct image_error *err)
{
    return elf_exec_as(data, len, name, "", fn, arg, err);
}

/* -- Kernels
 * -------------------------------------------------------------------------------------------------- */

/* A view of what image_kernel_parse() found where there is no ELF file (Multiboot's own header). */
static void flat_view(struct elf_view *v, const struct image_kernel *k)
{
    *v = (struct elf_view){.file = {k->elf.data, k->elf.len}, .type = ET_EXEC};
    for (unsigned i = 0; i < k->seg_count; i++) {
        const struct image_segment *s = &k->seg[i];
        if (span_has(v->file, s->off, s->filesz)) {
            v->seg[v->seg_count++] =
                (struct elf_segment){s->vaddr, s->paddr, (uint32_t)s->off, s->filesz, s->memsz, s->flags};
        }
    }
}

static uint32_t kernel_entry(const struct image_kernel *k)
{
    for (unsigned i = 0; i < k->seg_count; i++) {
        if (k->entry - k->seg[i].paddr < k->seg[i].memsz) {
            return k->entry - k->seg[i].paddr + k->seg[i].vaddr;
        }
    }
    return k->entry;
}

static bool kernel_job(const struct elf_view *v, const struct image_kernel *k, struct exec_job *j)
{
    struct pieces p = linked_pieces(v, true);

    if (p.v == NULL || !make_runs(j, &p)) {
        free(p.v);
        return false;
    }
    for (size_t i = 0; i < j->count; i++) {
        fill_copied(v, &j->run[i]);
    }
    add_ranges(j, &p);
    free(p.v);
    code_map_entry(&j->map, kernel_entry(k));
    for (size_t i = 0; i < v->sec_count; i++) {
        section_entries(v, &v->sec[i], &j->map);
    }
    for (size_t i = 0; i < k->reloc_count; i++) {
        pointer_at(v, k->relocs[i], &j->map);
    }
    if (!code_map_sweep(&j->map)) {
        return false;
    }
    if (k->reloc_count == 0) {
        weak_words(v, &j->map);
    }
    return code_map_finish(&j->map);
}

static bool is_vdso(struct span s)
{
    uint16_t type, machine;

    return span_starts(s, ELFMAG "\1\1\1", SELFMAG + 3) && span_u16(s, 16, &type) && type == ET_DYN &&
           span_u16(s, 18, &machine) && machine == EM_386;
}

/* The kernel carries the vDSO as page-aligned data and maps it into every process. */
static bool kernel_vdso(const struct elf_view *v, const char *name, image_exec_fn fn, void *arg)
{
    char label[512];

    for (unsigned i = 0; i < v->seg_count; i++) {
        const struct elf_segment *g = &v->seg[i];
        for (uint64_t at = -g->vaddr & (IMAGE_PAGE - 1); at < g->filesz; at += IMAGE_PAGE) {
            struct span s;
            struct elf_view inner;
            struct image_error ignored;
            if (!span_sub(v->file, g->off + at, g->filesz - at, &s) || !is_vdso(s) ||
                !elf_view_open(&inner, s.p, s.n, name, &ignored)) {
                continue;
            }
            size_t len = inner.end < s.n ? (size_t)inner.end : s.n;
            elf_view_close(&inner);
            snprintf(label, sizeof(label), "%.480s (vdso)", name);
            (void)!elf_exec_as(s.p, len, label, "vdso", fn, arg, &ignored);
        }
    }
    return true;
}

bool image_kernel_exec(const struct image_kernel *k, const char *name, image_exec_fn fn, void *arg,
                       struct image_error *err)
{
    struct elf_view v;
    struct exec_job j = {0};
    struct image_file file;
    bool ok;

    if (!span_starts((struct span){k->elf.data, k->elf.len}, ELFMAG, SELFMAG)) {
        flat_view(&v, k);
    } else if (!elf_view_open(&v, k->elf.data, k->elf.len, name, err)) {
        return false;
    }
    describe(&file, k->elf.data, k->elf.len, name, "kernel");
    ok = kernel_job(&v, k, &j);
    if (ok) {
        file.exec_bytes = j.exec_bytes;
        exec_job_deliver(&j, &file, fn, arg);
        kernel_vdso(&v, name, fn, arg);
    } else {
        image_fail(err, IMAGE_ERR_ELF, "%s: damaged kernel: its sections cannot be laid out in memory", name);
    }
    exec_job_free(&j);
    elf_view_close(&v);
    return ok;
}
