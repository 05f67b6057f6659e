/* scanner/image/elf.c: opening ELF files through libelf, with every range checked against the file. */
#include "scanner/image/elf.h"

#include <gelf.h>
#include <stdlib.h>

static bool fail(struct image_error *err, const char *name, const char *what)
{
    return image_fail(err, IMAGE_ERR_ELF, "%s: damaged ELF file: %s; copy the file again", name, what);
}

/* What libelf does not decide: class, machine, kind. */
static bool check_ident(struct span file, const char *name, struct image_error *err)
{
    uint16_t machine;

    if (!span_starts(file, ELFMAG, SELFMAG)) {
        return image_fail(err, IMAGE_ERR_ELF, "%s: not an ELF file", name);
    }
    if (!span_u16(file, 18, &machine) || file.n < sizeof(Elf32_Ehdr)) {
        return fail(err, name, "the header is cut short");
    }
    if (file.p[EI_CLASS] == ELFCLASS64 || machine == EM_X86_64) {
        return image_fail(err, IMAGE_ERR_64BIT,
                          "%s: a 64-bit x86-64 file; Verso runs 32-bit x86 guests: use the i386 (686) build",
                          name);
    }
    if (file.p[EI_CLASS] != ELFCLASS32 || file.p[EI_DATA] != ELFDATA2LSB ||
        (machine != EM_386 && machine != 6)) {
        return image_fail(err, IMAGE_ERR_ELF,
                          "%s: an ELF file for another processor (machine %u); use an i386 file", name,
                          machine);
    }
    return true;
}

static void note_end(struct elf_view *v, uint64_t off, uint64_t len)
{
    v->end = off + len > v->end ? off + len : v->end;
}

static bool add_load(struct elf_view *v, const GElf_Phdr *p, const char *name, struct image_error *err)
{
    if (!span_has(v->file, p->p_offset, p->p_filesz)) {
        return fail(err, name, "a segment lies outside the file");
    }
    if (p->p_memsz < p->p_filesz || p->p_vaddr + p->p_memsz > 1ull << 32 ||
        p->p_paddr + p->p_memsz > 1ull << 32) {
        return fail(err, name, "a segment's size is impossible");
    }
    if (p->p_memsz == 0) {
        return true;
    }
    if (v->seg_count == ELF_MAX_SEGMENTS) {
        return fail(err, name, "more than 64 segments to load");
    }
    v->seg[v->seg_count++] = (struct elf_segment){
        .vaddr = (uint32_t)p->p_vaddr,
        .paddr = (uint32_t)p->p_paddr,
        .off = (uint32_t)p->p_offset,
        .filesz = (uint32_t)p->p_filesz,
        .memsz = (uint32_t)p->p_memsz,
        .flags = p->p_flags,
    };
    return true;
}

static bool read_segments(struct elf_view *v, const GElf_Ehdr *e, const char *name, struct image_error *err)
{
    size_t count;

    if (e->e_phnum == 0) {
        return true;
    }
    if (elf_getphdrnum(v->handle, &count) != 0 ||
        !span_has(v->file, e->e_phoff, (uint64_t)count * e->e_phentsize)) {
        return fail(err, name, "the program headers lie outside the file");
    }
    note_end(v, e->e_phoff, (uint64_t)count * e->e_phentsize);
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr p;
        if (gelf_getphdr(v->handle, (int)i, &p) == NULL) {
            return fail(err, name, "a program header cannot be read");
        }
        if (p.p_type == PT_LOAD && !add_load(v, &p, name, err)) {
            return false;
        }
        if (p.p_type == PT_LOAD) {
            note_end(v, p.p_offset, p.p_filesz);
        }
        v->has_interp |= p.p_type == PT_INTERP;
        if (p.p_type == PT_DYNAMIC) {
            (void)!span_sub(v->file, p.p_offset, p.p_filesz, &v->dynamic);
        }
    }
    return true;
}

/* Section headers are no part of a program that runs: where they are damaged, a program does without. */
static bool read_sections(struct elf_view *v, const GElf_Ehdr *e)
{
    size_t count, names;

    if (e->e_shoff == 0 || elf_getshdrnum(v->handle, &count) != 0 || count == 0 || count > ELF_MAX_SECTIONS ||
        !span_has(v->file, e->e_shoff, (uint64_t)count * e->e_shentsize) ||
        e->e_shentsize != sizeof(Elf32_Shdr)) {
        return false;
    }
    v->sec = calloc(count, sizeof(*v->sec));
    if (v->sec == NULL) {
        return false;
    }
    names = elf_getshdrstrndx(v->handle, &names) == 0 ? names : 0;
    note_end(v, e->e_shoff, (uint64_t)count * e->e_shentsize);
    for (size_t i = 0; i < count; i++) {
        struct elf_section *s = &v->sec[i];
        Elf_Scn *scn = elf_getscn(v->handle, i);
        GElf_Shdr h;
        s->name = "";
        if (scn == NULL || gelf_getshdr(scn, &h) == NULL) {
            continue;
        }
        const char *name = names != 0 ? elf_strptr(v->handle, names, h.sh_name) : NULL;
        *s = (struct elf_section){
            .name = name != NULL ? name : "",
            .type = h.sh_type,
            .flags = (uint32_t)h.sh_flags,
            .addr = (uint32_t)h.sh_addr,
            .off = (uint32_t)h.sh_offset,
            .size = (uint32_t)h.sh_size,
            .link = h.sh_link,
            .info = h.sh_info,
            .align = (uint32_t)h.sh_addralign,
            .entsize = (uint32_t)h.sh_entsize,
        };
        if (s->type != SHT_NOBITS && s->type != SHT_NULL) {
            s->size = span_has(v->file, s->off, s->size) ? s->size : 0;
            note_end(v, s->off, s->size);
        }
    }
    v->sec_count = count;
    return true;
}

bool elf_view_open(struct elf_view *v, const uint8_t *data, size_t len, const char *name,
                   struct image_error *err)
{
    GElf_Ehdr e;
    bool sections;

    *v = (struct elf_view){.file = {data, len}};
    if (!check_ident(v->file, name, err)) {
        return false;
    }
    elf_version(EV_CURRENT);
    /* libelf takes a plain pointer for both reading and writing; opened like this, it only reads. */
    v->handle = elf_memory((char *)(uintptr_t)data, len);
    if (v->handle == NULL || gelf_getehdr(v->handle, &e) == NULL) {
        elf_view_close(v);
        return fail(err, name, "the header cannot be read");
    }
    v->type = e.e_type;
    v->entry = (uint32_t)e.e_entry;
    note_end(v, 0, e.e_ehsize);
    if (!read_segments(v, &e, name, err)) {
        elf_view_close(v);
        return false;
    }
    sections = read_sections(v, &e);
    if (!sections && v->type == ET_REL) {
        elf_view_close(v);
        return fail(err, name, "the section headers cannot be read");
    }
    if (v->seg_count == 0 && v->type != ET_REL) {
        elf_view_close(v);
        return fail(err, name, "nothing to load");
    }
    return true;
}

void elf_view_close(struct elf_view *v)
{
    if (v->handle != NULL) {
        elf_end(v->handle);
    }
    free(v->sec);
    *v = (struct elf_view){0};
}

bool elf_view_word(const struct elf_view *v, uint32_t vaddr, uint32_t *word)
{
    for (unsigned i = 0; i < v->seg_count; i++) {
        const struct elf_segment *s = &v->seg[i];
        uint32_t at = vaddr - s->vaddr;
        if (at < s->filesz && s->filesz - at >= sizeof(*word)) {
            return span_u32(v->file, (uint64_t)s->off + at, word);
        }
    }
    return false;
}

struct span elf_section_data(const struct elf_view *v, const struct elf_section *s)
{
    struct span data = {v->file.p, 0};

    if (s->type != SHT_NOBITS && s->type != SHT_NULL) {
        (void)!span_sub(v->file, s->off, s->size, &data);
    }
    return data;
}
