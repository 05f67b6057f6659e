/* scanner/image/bootcfg.c: boot entries out of isolinux/syslinux and GRUB configurations.
 *
 * Both languages are read as far as boot entries need: no menus are drawn and no GRUB conditions decided
 * (every branch of an `if` is read). Rules of syslinux: doc/syslinux.txt and doc/menu.txt of that package; of
 * GRUB: the manual, chapters 6 and 16.
 */
#include "scanner/image/internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { MAX_FILES = 64, MAX_DEPTH = 16, MAX_ENTRIES = 512, MAX_LINE = 4096, MAX_VARS = 64 };

struct variable {
    char name[32], value[256];
};

struct parser {
    const struct boot_source *src;
    struct image_boot_entry *entry; /* malloc */
    size_t count, room;
    bool no_memory;
    unsigned files;
    char dir[512];            /* of the first configuration: relative names of syslinux start there */
    char wanted[256];         /* default: a label (syslinux), or title, id or number (GRUB) */
    char global_append[2048]; /* syslinux: APPEND before the first LABEL */
    bool in_entry, own_append;
    size_t menu_default; /* 1 + the entry with MENU DEFAULT */
    struct variable var[MAX_VARS];
    unsigned vars;
    unsigned braces, entry_braces; /* GRUB: nesting, and that at which the open menuentry closes */
};

void image_boot_free(struct image_boot *b)
{
    free(b->entry);
    *b = (struct image_boot){0};
}

/* Copies, cutting what does not fit: a label that long is no label. */
static void put(char *to, size_t room, const char *from)
{
    size_t len = strlen(from);

    len = len < room ? len : room - 1;
    memmove(to, from, len);
    to[len] = '\0';
}

static void add_text(char *to, size_t room, const char *text, char between)
{
    size_t have = strlen(to);

    if (*text != '\0' && have + 2 < room) {
        snprintf(to + have, room - have, "%.*s%s", have != 0, (char[]){between, 0}, text);
    }
}

static struct image_boot_entry *new_entry(struct parser *p)
{
    if (p->count == p->room) {
        size_t room = p->room != 0 ? p->room * 2 : 8;
        struct image_boot_entry *entry =
            room <= MAX_ENTRIES ? realloc(p->entry, room * sizeof(*entry)) : NULL;
        if (entry == NULL) {
            p->no_memory = room <= MAX_ENTRIES;
            return NULL;
        }
        p->entry = entry;
        p->room = room;
    }
    memset(&p->entry[p->count], 0, sizeof(p->entry[0]));
    return &p->entry[p->count++];
}

static struct image_boot_entry *open_entry(struct parser *p)
{
    return p->in_entry && p->count != 0 ? &p->entry[p->count - 1] : NULL;
}

/* Makes a name absolute: as it stands after '/', else below dir. Devices of GRUB, "(cd0)" or "($root)", go.
 */
static void absolute(const char *dir, const char *name, char *out, size_t room)
{
    const char *close = name[0] == '(' ? strchr(name, ')') : NULL;

    name = close != NULL ? close + 1 : name;
    if (name[0] == '/') {
        put(out, room, name);
    } else {
        put(out, room, strcmp(dir, "/") == 0 ? "" : dir);
        size_t have = strlen(out);
        put(out + have, room - have, "/");
        have = strlen(out);
        put(out + have, room - have, name);
    }
}

static void add_initrds(struct image_boot_entry *e, const char *list, const char *dir)
{
    char names[1024], path[512], *save = NULL;

    put(names, sizeof(names), list);
    for (char *name = strtok_r(names, ", \t", &save); name != NULL; name = strtok_r(NULL, ", \t", &save)) {
        absolute(dir, name, path, sizeof(path));
        add_text(e->initrd, sizeof(e->initrd), path, ',');
    }
}

/* Takes initrd=... out of a command line into e->initrd; the rest is e->append. */
static void set_append(struct image_boot_entry *e, const char *text, const char *dir)
{
    char line[2048], *save = NULL;

    put(line, sizeof(line), text);
    for (char *word = strtok_r(line, " \t", &save); word != NULL; word = strtok_r(NULL, " \t", &save)) {
        if (strncmp(word, "initrd=", 7) == 0) {
            add_initrds(e, word + 7, dir);
        } else {
            add_text(e->append, sizeof(e->append), word, ' ');
        }
    }
}

/* Splits off the first word of *line (modified); "" at the end. */
static char *word_of(char **line)
{
    char *start = *line + strspn(*line, " \t"), *end = start + strcspn(start, " \t");

    *line = end + (*end != '\0');
    *line += strspn(*line, " \t");
    *end = '\0';
    return start;
}

typedef void (*line_fn)(struct parser *p, char *line, unsigned depth);
static void read_config(struct parser *p, const char *path, unsigned depth, line_fn fn);

/* -- syslinux
 * ------------------------------------------------------------------------------------------------- */

static void sys_line(struct parser *p, char *line, unsigned depth);

static void sys_include(struct parser *p, const char *name, unsigned depth)
{
    char path[512];

    absolute(p->dir, name, path, sizeof(path));
    read_config(p, path, depth + 1, sys_line);
}

static void sys_menu(struct parser *p, char *rest, unsigned depth)
{
    struct image_boot_entry *e = open_entry(p);
    const char *verb = word_of(&rest);

    if (strcasecmp(verb, "include") == 0) {
        sys_include(p, word_of(&rest), depth);
    } else if (strcasecmp(verb, "default") == 0 && e != NULL) {
        p->menu_default = p->count;
    } else if (strcasecmp(verb, "label") == 0 && e != NULL) {
        e->title[0] = '\0';
        for (size_t n = 0; *rest != '\0' && n + 1 < sizeof(e->title); rest++) {
            if (*rest != '^') { /* marks the hot key */
                e->title[n++] = *rest;
                e->title[n] = '\0';
            }
        }
    }
}

static void sys_kernel(struct parser *p, struct image_boot_entry *e, char *rest)
{
    absolute(p->dir, word_of(&rest), e->kernel, sizeof(e->kernel));
    set_append(e, rest, p->dir);
}

static void sys_label(struct parser *p, const char *name)
{
    struct image_boot_entry *e = new_entry(p);

    p->in_entry = e != NULL;
    p->own_append = false;
    if (e != NULL) {
        put(e->label, sizeof(e->label), name);
        put(e->title, sizeof(e->title), name);
        absolute(p->dir, name, e->kernel,
                 sizeof(e->kernel)); /* a label without KERNEL names the kernel itself */
        set_append(e, p->global_append, p->dir);
    }
}

static void sys_append(struct parser *p, struct image_boot_entry *e, const char *rest)
{
    if (e == NULL) {
        put(p->global_append, sizeof(p->global_append), rest);
        return;
    }
    if (!p->own_append) { /* the entry's own APPEND replaces the global one */
        e->append[0] = '\0';
        p->own_append = true;
    }
    if (strcmp(rest, "-") != 0) {
        set_append(e, rest, p->dir);
    }
}

static void sys_line(struct parser *p, char *line, unsigned depth)
{
    struct image_boot_entry *e = open_entry(p);
    const char *verb = word_of(&line);

    if (verb[0] == '#' || verb[0] == '\0') {
        return;
    }
    if (strcasecmp(verb, "include") == 0) {
        sys_include(p, word_of(&line), depth);
    } else if (strcasecmp(verb, "menu") == 0) {
        sys_menu(p, line, depth);
    } else if (strcasecmp(verb, "label") == 0) {
        sys_label(p, line);
    } else if (strcasecmp(verb, "default") == 0) {
        put(p->wanted, sizeof(p->wanted), line);
    } else if (strcasecmp(verb, "append") == 0) {
        sys_append(p, e, line);
    } else if (e != NULL && (strcasecmp(verb, "kernel") == 0 || strcasecmp(verb, "linux") == 0)) {
        sys_kernel(p, e, line);
    } else if (e != NULL && strcasecmp(verb, "initrd") == 0) {
        add_initrds(e, line, p->dir);
    }
}

/* The entry that DEFAULT or MENU DEFAULT names; count if none does. */
static size_t sys_default(struct parser *p)
{
    char label[256], *rest = label;
    const char *first;

    put(label, sizeof(label), p->wanted);
    first = word_of(&rest);
    for (size_t i = 0; i < p->count; i++) {
        if (strcasecmp(p->entry[i].label, p->wanted) == 0 || strcasecmp(p->entry[i].label, first) == 0) {
            return i;
        }
    }
    return p->menu_default != 0 ? p->menu_default - 1 : p->count;
}

/* -- GRUB
 * ----------------------------------------------------------------------------------------------------- */

static const char *grub_get(const struct parser *p, const char *name, size_t len)
{
    for (unsigned i = 0; i < p->vars; i++) {
        if (strlen(p->var[i].name) == len && memcmp(p->var[i].name, name, len) == 0) {
            return p->var[i].value;
        }
    }
    return "";
}

static void grub_set(struct parser *p, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    char name[sizeof(p->var[0].name)];
    unsigned i = 0;

    if (equals == NULL || equals - assignment >= (ptrdiff_t)sizeof(name)) {
        return;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(equals - assignment), assignment);
    while (i < p->vars && strcmp(p->var[i].name, name) != 0) {
        i++;
    }
    if (i == MAX_VARS) {
        return;
    }
    p->vars += i == p->vars;
    put(p->var[i].name, sizeof(p->var[i].name), name);
    put(p->var[i].value, sizeof(p->var[i].value), equals + 1);
    if (strcmp(name, "default") == 0) {
        put(p->wanted, sizeof(p->wanted), equals + 1);
    }
}

/* Expands $name and ${name} at *from into out. Returns how much was written. */
static size_t grub_expand(const struct parser *p, const char **from, char *out, size_t room)
{
    const char *name = *from + 1;
    bool braced = *name == '{';
    const char *end = name += braced;

    while (isalnum((unsigned char)*end) || *end == '_' || (end == name && *end == '?')) {
        end++;
    }
    const char *value = grub_get(p, name, (size_t)(end - name));
    *from = end + (braced && *end == '}');
    size_t n = strlen(value) < room ? strlen(value) : room;
    memcpy(out, value, n);
    return n;
}

/* One word with quotes and variables resolved; false at the end of the line. `{`, `}` and `;` are words. */
static bool grub_word(const struct parser *p, const char **line, char *out, size_t room, bool *quoted)
{
    const char *s = *line + strspn(*line, " \t");
    size_t n = 0;
    char quote = 0;

    *quoted = false;
    if (*s == '\0' || *s == '#') {
        return false;
    }
    if (strchr("{};", *s) != NULL) {
        out[n++] = *s++;
    } else {
        while (*s != '\0' && (quote != 0 || strchr(" \t;", *s) == NULL)) {
            if (quote == 0 && (*s == '"' || *s == '\'')) {
                quote = *s++;
                *quoted = true;
            } else if (quote != 0 && *s == quote) {
                quote = 0;
                s++;
            } else if (*s == '$' && quote != '\'') {
                n += grub_expand(p, &s, out + n, room - 1 - n);
            } else {
                s += *s == '\\' && quote != '\'' && s[1] != '\0';
                if (n + 1 < room) {
                    out[n++] = *s;
                }
                s++;
            }
        }
    }
    out[n] = '\0';
    *line = s;
    return true;
}

static void grub_menuentry(struct parser *p, const char *line, bool submenu)
{
    char word[512];
    bool quoted, id = false, title = false;
    struct image_boot_entry *e = submenu ? NULL : new_entry(p);

    while (grub_word(p, &line, word, sizeof(word), &quoted)) {
        if (!quoted && strcmp(word, "{") == 0) {
            p->braces++;
        } else if (id && e != NULL) {
            put(e->label, sizeof(e->label), word);
            id = false;
        } else if (!quoted && (strcmp(word, "--id") == 0 || strcmp(word, "$menuentry_id_option") == 0)) {
            id = true;
        } else if (!title && word[0] != '-') {
            title = true;
            if (e != NULL) {
                put(e->title, sizeof(e->title), word);
            }
        }
    }
    if (e != NULL) {
        p->in_entry = true;
        p->entry_braces = p->braces;
        if (e->label[0] == '\0') {
            put(e->label, sizeof(e->label), e->title);
        }
    }
}

/* linux, linux16, linuxefi, multiboot: a path and a command line. */
static void grub_kernel(const struct parser *p, struct image_boot_entry *e, const char *line)
{
    char word[512];
    bool quoted;

    e->kernel[0] = e->append[0] = '\0';
    while (grub_word(p, &line, word, sizeof(word), &quoted) && (quoted || strcmp(word, ";") != 0)) {
        if (e->kernel[0] == '\0') {
            absolute("", word, e->kernel, sizeof(e->kernel));
        } else {
            add_text(e->append, sizeof(e->append), word, ' ');
        }
    }
}

static void grub_initrd(const struct parser *p, struct image_boot_entry *e, const char *line)
{
    char word[512], path[512];
    bool quoted;

    while (grub_word(p, &line, word, sizeof(word), &quoted) && (quoted || strcmp(word, ";") != 0)) {
        absolute("", word, path, sizeof(path));
        add_text(e->initrd, sizeof(e->initrd), path, ',');
    }
}

static bool one_of(const char *word, const char *list)
{
    size_t len = strlen(word);

    for (const char *at = list; len && (at = strstr(at, word)) != NULL; at++) {
        if ((at == list || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0')) {
            return true;
        }
    }
    return false;
}

static void grub_line(struct parser *p, char *text, unsigned depth)
{
    const char *line = text;
    char word[512], path[512];
    bool quoted;
    struct image_boot_entry *e = open_entry(p);

    if (!grub_word(p, &line, word, sizeof(word), &quoted)) {
        return;
    }
    if (strcmp(word, "}") == 0) {
        if (p->in_entry && p->braces == p->entry_braces) {
            p->in_entry = false;
        }
        p->braces -= p->braces != 0;
    } else if (strcmp(word, "menuentry") == 0 || strcmp(word, "submenu") == 0) {
        grub_menuentry(p, line, word[0] == 's');
    } else if (strcmp(word, "set") == 0) {
        if (grub_word(p, &line, word, sizeof(word), &quoted)) {
            grub_set(p, word);
        }
    } else if (one_of(word, "source configfile")) {
        if (e == NULL && grub_word(p, &line, word, sizeof(word), &quoted)) {
            absolute("", word, path, sizeof(path));
            read_config(p, path, depth + 1, grub_line);
        }
    } else if (e != NULL && one_of(word, "linux linux16 linuxefi multiboot kernel")) {
        grub_kernel(p, e, line);
    } else if (e != NULL && one_of(word, "initrd initrd16 initrdefi")) {
        grub_initrd(p, e, line);
    } else if (strchr(text, '{') != NULL && strchr(text, '}') == NULL) {
        p->braces++; /* a function body */
    }
}

static size_t grub_default(struct parser *p)
{
    char *end;
    unsigned long number = strtoul(p->wanted, &end, 10);

    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->entry[i].label, p->wanted) == 0 || strcmp(p->entry[i].title, p->wanted) == 0) {
            return i;
        }
    }
    return end != p->wanted && *end == '\0' && number < p->count ? number : p->count;
}

/* -- Both
 * ----------------------------------------------------------------------------------------------------- */

static void read_lines(struct parser *p, const struct image_blob *text, unsigned depth, line_fn fn)
{
    char line[MAX_LINE];
    size_t n = 0;

    for (size_t i = 0; i <= text->len; i++) {
        int c = i < text->len ? text->data[i] : '\n';
        if (c == '\n') {
            while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t' || line[n - 1] == '\r')) {
                n--;
            }
            line[n] = '\0';
            n = 0;
            fn(p, line, depth);
        } else if (n + 1 < sizeof(line) && c != 0) {
            line[n++] = (char)c;
        }
    }
}

static void read_config(struct parser *p, const char *path, unsigned depth, line_fn fn)
{
    struct image_blob text;

    if (depth > MAX_DEPTH || p->files >= MAX_FILES || !p->src->read(p->src->arg, path, &text)) {
        return;
    }
    p->files++;
    read_lines(p, &text, depth, fn);
    image_blob_free(&text);
}

/* True for what syslinux runs itself: menus, boot sectors, other loaders. */
static bool is_loader(const char *kernel)
{
    static const char *const suffix[] = {".c32", ".com", ".cbt", ".bin", ".bss", ".bs", ".0", ".img", ".efi"};
    size_t len = strlen(kernel);

    for (size_t i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++) {
        size_t n = strlen(suffix[i]);
        if (len > n && strcasecmp(kernel + len - n, suffix[i]) == 0) {
            return true;
        }
    }
    return kernel[0] == '\0';
}

/* Drops entries that start nothing we can load; `wanted` follows its entry. */
static size_t keep_kernels(struct parser *p, size_t wanted, char *missing)
{
    size_t kept = 0, at = SIZE_MAX;

    for (size_t i = 0; i < p->count; i++) {
        if (is_loader(p->entry[i].kernel)) {
            continue;
        }
        if (!p->src->exists(p->src->arg, p->entry[i].kernel)) {
            if (missing != NULL && missing[0] == '\0') {
                put(missing, 512, p->entry[i].kernel);
            }
            continue;
        }
        at = i == wanted ? kept : at;
        memmove(&p->entry[kept++], &p->entry[i], sizeof(p->entry[0]));
    }
    p->count = kept;
    return at == SIZE_MAX ? 0 : at;
}

static bool join(struct image_boot *out, struct parser *p, const char *config, size_t wanted)
{
    size_t room = out->count + p->count;
    struct image_boot_entry *entry = realloc(out->entry, room * sizeof(*entry));

    if (entry == NULL) {
        return false;
    }
    out->entry = entry;
    if (out->count == 0) { /* the first configuration says what starts by default */
        put(out->config, sizeof(out->config), config);
        out->entry[out->count] = p->entry[wanted];
        out->entry[out->count++].is_default = true;
    } else {
        out->entry[out->count++] = p->entry[wanted];
    }
    for (size_t i = 0; i < p->count; i++) {
        if (i != wanted) {
            out->entry[out->count++] = p->entry[i];
        }
    }
    return true;
}

static bool parse_one(const struct boot_source *src, const char *path, line_fn fn, struct image_boot *out,
                      char *missing)
{
    struct parser *p = calloc(1, sizeof(*p));
    const char *slash = strrchr(path, '/');
    bool ok = p != NULL;

    if (!ok) {
        return false;
    }
    p->src = src;
    snprintf(p->dir, sizeof(p->dir), "%.*s", (int)(slash - path), path);
    put(p->wanted, sizeof(p->wanted), fn == sys_line ? "linux" : "0");
    read_config(p, path, 0, fn);
    ok = !p->no_memory;
    size_t wanted = keep_kernels(p, fn == sys_line ? sys_default(p) : grub_default(p), missing);
    if (ok && p->count != 0) {
        ok = join(out, p, path, wanted);
    }
    free(p->entry);
    free(p);
    return ok;
}

bool image_boot_parse(const struct boot_source *src, struct image_boot *out, char *missing)
{
    static const struct {
        const char *path;
        line_fn fn;
    } places[] = {
        /* isolinux.doc: these, in this order; the first one there is used. */
        {"/boot/isolinux/isolinux.cfg", sys_line},
        {"/isolinux/isolinux.cfg", sys_line},
        {"/isolinux.cfg", sys_line},
        {"/boot/syslinux/syslinux.cfg", sys_line},
        {"/syslinux/syslinux.cfg", sys_line},
        {"/syslinux.cfg", sys_line},
        {"/boot/extlinux/extlinux.conf", sys_line},
        {"/boot/grub/grub.cfg", grub_line},
        {"/boot/grub2/grub.cfg", grub_line},
        {"/grub/grub.cfg", grub_line},
        {"/EFI/BOOT/grub.cfg", grub_line},
        {"/EFI/debian/grub.cfg", grub_line},
    };
    bool done[2] = {false, false};
    char none[512];

    missing = missing != NULL ? missing : none;
    missing[0] = '\0';
    *out = (struct image_boot){0};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        bool grub = places[i].fn == grub_line;
        size_t before = out->count;
        if (done[grub] || !src->exists(src->arg, places[i].path)) {
            continue;
        }
        if (!parse_one(src, places[i].path, places[i].fn, out, missing)) {
            image_boot_free(out);
            return false;
        }
        done[grub] = out->count > before;
    }
    return true;
}
