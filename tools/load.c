/* tools/load.c: the guest's image parsed in a forked child, handed over through a memfd. */
#include "tools/load.h"
#include "tools/tools.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The head of the memfd. All offsets are from its start. */
struct handoff {
    uint32_t status; /* enum status */
    uint32_t boot; /* enum run_boot */
    uint32_t rom_len;
    uint64_t rom_off;
    uint32_t entry, segment_count, initrd_len;
    uint64_t initrd_off;
    uint32_t setup_header_len;
    uint32_t module_count, sections_len, section_count, section_names;
    uint64_t sections_off;
    char title[256], error[600], cmdline[LOAD_CMDLINE];
    char kernel[LOAD_NAME]; /* on the ISO */
    uint8_t setup_header[0x300];
    struct {
        uint32_t paddr, memsz, filesz;
        uint64_t off;
    } segment[LOAD_SEGMENTS];
    struct {
        uint32_t off, len; /* in the initrd */
        char name[LOAD_NAME];
    } module[LOAD_MODULES];
};

/* -- The child
 * ------------------------------------------------------------------------------------------------- */

static bool write_at(int fd, uint64_t off, const void *data, size_t len)
{
    for (const uint8_t *p = data; len;) {
        ssize_t n = pwrite(fd, p, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return true;
}

static bool image_failed(struct handoff *h, const struct image_error *err)
{
    h->status = (uint32_t)status_of_image(err->code);
    snprintf(h->error, sizeof(h->error), "%s", err->text);
    return false;
}

static bool failed(struct handoff *h, enum status status, const char *text)
{
    h->status = status;
    snprintf(h->error, sizeof(h->error), "%s", text);
    return false;
}

/* Appends one initrd, at a multiple of 4 (Linux's unpacker aligns archives so), and notes it as a module. */
static bool append_initrd(struct handoff *h, struct image_blob *all, const struct image_blob *b, const char *name)
{
    size_t at = (all->len + 3) & ~(size_t)3;
    if (h->module_count == LOAD_MODULES)
        return failed(h, STATUS_USAGE, "more than 16 initrds");
    uint8_t *p = at + b->len < UINT32_MAX ? realloc(all->data, at + b->len + 1) : NULL;
    if (!p)
        return failed(h, STATUS_IMAGE_MEMORY, "out of memory for the initrd");
    h->module[h->module_count].off = (uint32_t)at;
    h->module[h->module_count].len = (uint32_t)b->len;
    snprintf(h->module[h->module_count++].name, LOAD_NAME, "%.255s", name);
    memset(p + all->len, 0, at - all->len);
    memcpy(p + at, b->data, b->len);
    all->data = p;
    all->len = at + b->len;
    return true;
}

static bool set_cmdline(struct handoff *h, const char *append, const char *extra)
{
    int n = snprintf(h->cmdline, sizeof(h->cmdline), "%s%s%s", append, extra && *append ? " " : "",
                     extra ? extra : "");
    /* COMMAND_LINE_SIZE of i386 is 2048 with the closing zero (arch/x86/include/asm/setup.h) */
    if (n < 0 || (size_t)n >= sizeof(h->cmdline))
        return failed(h, STATUS_USAGE, "the kernel command line is longer than 2047 bytes");
    return true;
}

static bool read_iso(const struct load_request *r, struct handoff *h, struct image_blob *kernel,
                     struct image_blob *initrd)
{
    struct image_error err = {0};
    struct image_boot boot = {0};
    if (!image_is_iso(r->iso)) {
        /* A bare kernel given in the place of the ISO is named as such by the kernel parser's own message. */
        snprintf(h->title, sizeof(h->title), "%.200s", r->iso);
        return (image_read_file(r->iso, kernel, &err) || image_failed(h, &err)) &&
               set_cmdline(h, r->append ? r->append : "", r->append_extra);
    }
    if (!image_iso_boot(r->iso, &boot, &err))
        return image_failed(h, &err);
    const struct image_boot_entry *e = tools_boot_entry(&boot, r->entry);
    bool ok = e != NULL;
    if (!e) {
        char text[400];
        int n = snprintf(text, sizeof(text), "%.100s has no boot entry \"%.60s\"; it has:", r->iso,
                         r->entry ? r->entry : "");
        for (size_t i = 0; i < boot.count && n > 0 && n < 330; i++)
            n += snprintf(text + n, sizeof(text) - (size_t)n, " %.60s", boot.entry[i].label);
        failed(h, r->entry ? STATUS_NOT_FOUND : STATUS_IMAGE_NO_KERNEL, text);
    }
    if (ok) {
        snprintf(h->title, sizeof(h->title), "%.100s: %.100s", e->label, e->kernel);
        snprintf(h->kernel, sizeof(h->kernel), "%.255s", e->kernel);
        ok = image_iso_read(r->iso, e->kernel, kernel, &err) || image_failed(h, &err);
    }
    char path[512];
    for (const char *p = ok ? e->initrd : ""; ok && (p = tools_next_path(p, path, sizeof(path)));) {
        struct image_blob b = {0};
        ok = (image_iso_read(r->iso, path, &b, &err) || image_failed(h, &err)) &&
             append_initrd(h, initrd, &b, path);
        image_blob_free(&b);
    }
    if (ok)
        ok = set_cmdline(h, r->append ? r->append : e->append, r->append_extra);
    image_boot_free(&boot);
    return ok;
}

static bool read_files(const struct load_request *r, struct handoff *h, struct image_blob *kernel,
                       struct image_blob *initrd)
{
    struct image_error err = {0};
    if (!r->iso) {
        snprintf(h->title, sizeof(h->title), "%.200s", r->kernel);
        if (!image_read_file(r->kernel, kernel, &err))
            return image_failed(h, &err);
        if (!set_cmdline(h, r->append ? r->append : "", r->append_extra))
            return false;
    }
    for (unsigned i = 0; i < r->initrd.count; i++) {
        struct image_blob b = {0};
        bool ok = (image_read_file(r->initrd.item[i], &b, &err) || image_failed(h, &err)) &&
                  append_initrd(h, initrd, &b, r->initrd.item[i]);
        image_blob_free(&b);
        if (!ok)
            return false;
    }
    return true;
}

/* The command line of a Multiboot kernel begins with the kernel's own name, as boot loaders have it. */
static bool name_in_front(struct handoff *h, const char *name)
{
    char args[LOAD_CMDLINE];
    memcpy(args, h->cmdline, sizeof(args));
    return set_cmdline(h, name, args);
}

static bool hand_over(int fd, struct handoff *h, const struct image_kernel *k,
                      const struct image_blob *initrd)
{
    uint64_t off = (sizeof(*h) + 4095) & ~4095ull;
    if (k->seg_count > LOAD_SEGMENTS || k->setup_header_len > sizeof(h->setup_header) ||
        initrd->len > UINT32_MAX)
        return failed(h, STATUS_IMAGE_FORMAT,
                      "the kernel has too many segments, or the initrd is larger than 4 GiB");
    h->entry = k->entry;
    h->segment_count = k->seg_count;
    h->setup_header_len = (uint32_t)k->setup_header_len;
    memcpy(h->setup_header, k->setup_header, k->setup_header_len);
    for (unsigned i = 0; i < k->seg_count; i++) {
        const struct image_segment *s = &k->seg[i];
        if (s->off > k->elf.len || s->filesz > k->elf.len - s->off)
            return failed(h, STATUS_IMAGE_TRUNCATED, "a kernel segment runs past the end of the file");
        h->segment[i].paddr = s->paddr;
        h->segment[i].memsz = s->memsz;
        h->segment[i].filesz = s->filesz;
        h->segment[i].off = off;
        if (!write_at(fd, off, k->elf.data + s->off, s->filesz))
            return failed(h, STATUS_IMAGE_MEMORY, "out of memory while handing the kernel over");
        off = (off + s->filesz + 4095) & ~4095ull;
    }
    h->initrd_off = off;
    h->initrd_len = (uint32_t)initrd->len;
    if (!write_at(fd, off, initrd->data, initrd->len))
        return failed(h, STATUS_IMAGE_MEMORY, "out of memory while handing the initrd over");
    h->sections_off = k->sections.len ? off + ((initrd->len + 4095) & ~4095ull) : 0; /* nothing there: the file may end before */
    h->sections_len = (uint32_t)k->sections.len;
    h->section_count = k->section_count;
    h->section_names = k->section_names;
    if (!write_at(fd, h->sections_off, k->sections.data, k->sections.len))
        return failed(h, STATUS_IMAGE_MEMORY, "out of memory while handing the symbols over");
    return true;
}

enum { ROM_UNIT = 64 << 10, ROM_MAX = 16 << 20 };

/* A ROM image is no format: only its size can be wrong. */
static void hand_over_rom(const struct load_request *r, int fd, struct handoff *h)
{
    struct image_blob rom = {0};
    struct image_error err = {0};
    snprintf(h->title, sizeof(h->title), "%.200s", r->bios);
    if (!image_read_file(r->bios, &rom, &err)) {
        image_failed(h, &err);
        return;
    }
    if (!rom.len || rom.len % ROM_UNIT || rom.len > ROM_MAX) {
        snprintf(h->error, sizeof(h->error),
                 "%.300s: a ROM image has 64 KiB to 16 MiB and a multiple of 64 KiB; this file has %zu bytes", r->bios,
                 rom.len);
        h->status = STATUS_IMAGE_FORMAT;
        return;
    }
    h->boot = RUN_BOOT_FIRMWARE;
    h->rom_off = (sizeof(*h) + 4095) & ~4095ull;
    h->rom_len = (uint32_t)rom.len;
    if (!write_at(fd, h->rom_off, rom.data, rom.len))
        failed(h, STATUS_IMAGE_MEMORY, "out of memory while handing the ROM over");
}

static void child(const struct load_request *r, int fd)
{
    struct handoff *h = calloc(1, sizeof(*h));
    if (!h)
        _exit(1);
    struct image_blob kernel = {0}, initrd = {0};
    struct image_kernel k = {0};
    struct image_error err = {0};
    const char *name = r->iso ? r->iso : r->kernel;
    if (r->bios)
        hand_over_rom(r, fd, h);
    bool ok = !r->bios && (!r->iso || read_iso(r, h, &kernel, &initrd)) && read_files(r, h, &kernel, &initrd);
    if (ok && !image_kernel_parse(kernel.data, kernel.len, name, &k, &err))
        ok = image_failed(h, &err);
    if (ok && k.is_multiboot) {
        h->boot = RUN_BOOT_MULTIBOOT;
        ok = name_in_front(h, h->kernel[0] ? h->kernel : name);
    }
    if (ok)
        hand_over(fd, h, &k, &initrd);
    if (!write_at(fd, 0, h, sizeof(*h)))
        _exit(1);
    _exit(0);
}

/* -- The parent
 * ------------------------------------------------------------------------------------------------ */

static int complain(int status, const char *text)
{
    fprintf(stderr, "verso: %s\n", text);
    return status;
}

static bool inside(uint64_t off, uint64_t n, uint64_t len)
{
    return off <= len && n <= len - off;
}

/* Modules and section headers of a Multiboot kernel. */
static int check_multiboot(const struct handoff *h, const uint8_t *map, size_t len, struct load_guest *out)
{
    if (h->module_count > LOAD_MODULES || !inside(h->sections_off, h->sections_len, len) ||
        h->section_count > h->sections_len / RUN_SECTION_HEADER)
        return complain(STATUS_IMAGE_FORMAT, "the kernel's sections do not make sense");
    for (unsigned i = 0; i < h->module_count; i++) {
        if (!inside(h->module[i].off, h->module[i].len, h->initrd_len) ||
            !memchr(h->module[i].name, 0, sizeof(h->module[i].name)))
            return complain(STATUS_IMAGE_FORMAT, "a module does not lie in the file");
        out->module[i] = (struct run_module){map + h->initrd_off + h->module[i].off, h->module[i].len,
                                             h->module[i].name};
    }
    out->module_count = h->module_count;
    out->sections = map + h->sections_off;
    out->sections_len = h->sections_len;
    out->section_count = h->section_count;
    out->section_names = h->section_names;
    return STATUS_OK;
}

/* Nothing in h is trusted: the child may have been taken over by what it parsed. */
static int check(const struct handoff *h, const uint8_t *map, size_t len, uint64_t ram,
                 struct load_guest *out)
{
    if (h->status) {
        fprintf(stderr, "verso: %.599s\n", h->error);
        return h->status < 256 ? (int)h->status : STATUS_IMAGE_FORMAT;
    }
    memcpy(out->title, h->title, sizeof(out->title));
    out->cmdline = h->cmdline;
    if (h->boot == RUN_BOOT_FIRMWARE) {
        if (!inside(h->rom_off, h->rom_len, len) || !h->rom_len || h->rom_len % ROM_UNIT || h->rom_len > ROM_MAX)
            return complain(STATUS_IMAGE_FORMAT, "the ROM image does not make sense");
        out->boot = RUN_BOOT_FIRMWARE;
        out->rom = map + h->rom_off;
        out->rom_len = h->rom_len;
        return STATUS_OK;
    }
    if (h->segment_count > LOAD_SEGMENTS || !h->segment_count ||
        h->setup_header_len > sizeof(h->setup_header))
        return complain(STATUS_IMAGE_FORMAT, "the kernel's segments do not make sense");
    for (unsigned i = 0; i < h->segment_count; i++) {
        uint64_t off = h->segment[i].off;
        uint32_t filesz = h->segment[i].filesz, memsz = h->segment[i].memsz;
        if (off > len || filesz > len - off || filesz > memsz)
            return complain(STATUS_IMAGE_FORMAT, "a kernel segment does not lie in the file");
        if (h->segment[i].paddr >= ram || memsz > ram - h->segment[i].paddr)
            return complain(STATUS_IMAGE_MEMORY,
                            "the kernel does not fit into the guest's RAM: use a larger -m");
        out->segment[i] = (struct run_segment){h->segment[i].paddr, memsz, filesz, map + off};
    }
    if (h->initrd_len && (h->initrd_off > len || h->initrd_len > len - h->initrd_off))
        return complain(STATUS_IMAGE_FORMAT, "the initrd does not lie in the file");
    if (h->initrd_len > ram / 2)
        return complain(STATUS_IMAGE_MEMORY,
                        "the initrd takes more than half of the guest's RAM: use a larger -m");
    out->boot = h->boot == RUN_BOOT_MULTIBOOT ? RUN_BOOT_MULTIBOOT : RUN_BOOT_LINUX;
    out->segment_count = h->segment_count;
    out->entry = h->entry;
    out->setup_header = h->setup_header;
    out->setup_header_len = h->setup_header_len;
    out->initrd = h->initrd_len ? map + h->initrd_off : NULL;
    out->initrd_len = h->initrd_len;
    return check_multiboot(h, map, len, out);
}

int load_guest(const struct load_request *r, struct load_guest *out)
{
    memset(out, 0, sizeof(*out));
    int fd = memfd_create("verso-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return complain(STATUS_HOST, "cannot make a memory file for the guest image");
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        close(fd);
        return complain(STATUS_HOST, "cannot start a process for the image parsers");
    }
    if (!pid)
        child(r, fd);
    int ws;
    while (waitpid(pid, &ws, 0) < 0 && errno == EINTR)
        ;
    /* Sealed: nobody can change or shrink it under the checks below. */
    struct stat st;
    bool ok = WIFEXITED(ws) && WEXITSTATUS(ws) == 0 &&
              !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) &&
              !fstat(fd, &st) && (size_t)st.st_size >= sizeof(struct handoff);
    if (!ok) {
        close(fd);
        return complain(STATUS_IMAGE_FORMAT,
                        "the image parsers failed on this guest (their process ended abnormally)");
    }
    size_t len = (size_t)st.st_size;
    uint8_t *map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return complain(STATUS_IMAGE_MEMORY, "out of memory for the guest image");
    out->map = map;
    out->map_len = len;
    const struct handoff *h = (const struct handoff *)map;
    if (!memchr(h->cmdline, 0, sizeof(h->cmdline)) || !memchr(h->title, 0, sizeof(h->title)) ||
        !memchr(h->error, 0, sizeof(h->error))) {
        load_guest_free(out);
        return complain(STATUS_IMAGE_FORMAT, "the image parsers handed over garbage");
    }
    int status = check(h, map, len, r->ram_bytes, out);
    if (status != STATUS_OK)
        load_guest_free(out);
    return status;
}

void load_guest_free(struct load_guest *g)
{
    if (g->map)
        munmap(g->map, g->map_len);
    g->map = NULL;
}
