/* tests/fuzz/fuzz_parse.c: damaged bytes for everything that reads bytes of others.
 *
 * A case takes one of the good inputs made at start, damages it in up to 24 places (each a piece that can be
 * left out), and gives it to its reader. Whatever the reader says, it must come back, read nothing outside
 * its input (the input ends at a page that cannot be read) and give back what it took (the sanitizers look at
 * that). Of what passes, the promises are checked: a verso's records must decode, its fields lie inside.
 */
#include "driver.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "monitor/trace.h"
#include "scanner/image/image.h"
#include "tests/unit/image_build.h"
#include "translator/xlat.h"

#define GUARDED (8u << 20)
#define DAMAGE  24u

struct rng {
    uint64_t s;
};

static uint32_t rnd(struct rng *r)
{
    r->s += 0x9E3779B97F4A7C15ull;
    uint64_t x = r->s;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return (uint32_t)((x ^ x >> 31) >> 16);
}

/* -- Readers ------------------------------------------------------------------------------------------ */

static struct image_error err;
/* In memory that all children share. */
static struct seen {
    uint64_t given, accepted;
} * seen;

static void touch(const uint8_t *p, size_t n)
{
    static volatile uint8_t sink;
    for (size_t i = 0; i < n; i += 64)
        sink ^= p[i];
    if (n)
        sink ^= p[n - 1];
}

static const char *check_verso(const struct xlat_verso *v, const struct xlat_index *index)
{
    static int32_t all[SCAN_PAGE_SIZE];
    char why[200];
    for (uint32_t i = 0; i < v->reloc_count; i++)
        if (v->relocs[i].host_off > v->code_len || v->code_len - v->relocs[i].host_off < 4)
            return "a relocation outside the code passed";
    for (uint32_t i = 0; i < v->link_count; i++)
        if (v->links[i].field_off + 4ull > v->code_len || v->links[i].tail_off >= v->code_len)
            return "a link outside the code passed";
    for (uint32_t at = 0; at < v->code_len; at += 1 + v->code_len / 512) {
        struct xlat_unwound u;
        if (!xlat_unwind(v->unwind, v->unwind_len, at, &u))
            return "a byte of code without an unwind record passed";
    }
    xlat_entries(v->unwind, v->unwind_len, all);
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        if (all[i] >= (int32_t)v->code_len ||
            (all[i] >= 0 && xlat_entry(v->unwind, v->unwind_len, i) != all[i]))
            return "an entry outside the code passed";
    for (unsigned i = 0; index->made && i < SCAN_PAGE_SIZE; i++)
        if (xlat_index_find(index, v->unwind, i) != all[i])
            return "an index that differs from the entries";
    (void)xlat_validate(v, why, sizeof(why));
    return NULL;
}

static const char *read_verso(const uint8_t *p, size_t n, bool *ok)
{
    struct xlat_verso v;
    struct xlat_index index;
    *ok = xlat_deserialize(p, n, &v, &index);
    const char *wrong = *ok ? check_verso(&v, &index) : NULL;
    xlat_verso_free(&v);
    return wrong;
}

static struct cache_key record_key;

/* The digest is made right: what is behind it is to be tried. Every other case goes through the decompressor
 * first. */
static const char *read_record(const uint8_t *p, size_t n, bool *ok)
{
    static uint8_t raw[1u << 18];
    struct cache_record r;
    struct xlat_verso v;
    struct xlat_index index;
    if (n > sizeof(raw) || n < CACHE_RAW_MIN)
        return NULL;
    memcpy(raw, p, n);
    cache_raw_seal(raw, n);
    *ok = cache_raw_check(raw, n, &record_key, NULL, &r) == CACHE_REFUSAL_NONE;
    if (!*ok)
        return NULL;
    touch(r.recto, 4096);
    touch(r.attr, 4096);
    if (r.verso + r.verso_len > raw + n)
        return "a verso outside its record passed";
    const char *wrong = NULL;
    if (xlat_deserialize(r.verso, r.verso_len, &v, &index))
        wrong = check_verso(&v, &index);
    xlat_verso_free(&v);
    return wrong;
}

static const char *read_packed_record(const uint8_t *p, size_t n, bool *ok)
{
    static uint8_t raw[1u << 18];
    *ok = cache_unpack(p, n, raw, CACHE_RAW_MIN + 1000);
    return NULL;
}

static bool see_exec(void *arg, const struct image_file *file, const struct image_exec *x)
{
    (void)file;
    if (x->len % 4096 || x->code_start > x->code_end)
        *(const char **)arg = "executable bytes that are no pages";
    touch(x->bytes, x->len);
    for (size_t i = 1; i < x->entry_count; i++)
        if (x->entries[i] <= x->entries[i - 1])
            *(const char **)arg = "entries that do not ascend";
    return true;
}

static const char *read_elf(const uint8_t *p, size_t n, bool *ok)
{
    const char *wrong = NULL;
    *ok = image_elf_exec(p, n, "fuzz", see_exec, &wrong, &err);
    return wrong;
}

static const char *read_kernel(const uint8_t *p, size_t n, bool *ok)
{
    const char *wrong = NULL;
    struct image_kernel k = {0};
    *ok = image_kernel_parse(p, n, "fuzz", &k, &err);
    if (*ok) {
        for (unsigned i = 0; i < k.seg_count; i++)
            if (k.seg[i].off > k.elf.len || k.seg[i].filesz > k.elf.len - k.seg[i].off ||
                k.seg[i].filesz > k.seg[i].memsz)
                wrong = "a segment outside the kernel passed";
            else
                touch(k.elf.data + k.seg[i].off, k.seg[i].filesz);
        if (!wrong)
            *ok = image_kernel_exec(&k, "fuzz", see_exec, &wrong, &err);
        image_kernel_free(&k);
    }
    return wrong;
}

static bool see_member(void *arg, const char *name, const uint8_t *data, size_t len)
{
    (void)arg;
    touch((const uint8_t *)name, strlen(name));
    touch(data, len);
    return true;
}

static const char *read_initrd(const uint8_t *p, size_t n, bool *ok)
{
    *ok = image_initrd_each(p, n, see_member, NULL, &err);
    return NULL;
}

static const char *read_packed(const uint8_t *p, size_t n, bool *ok)
{
    struct image_blob b = {0};
    char kind[16];
    *ok = image_decompress(p, n, &b, kind, &err);
    if (*ok) {
        touch(b.data, b.len);
        image_blob_free(&b);
    }
    return NULL;
}

static char iso_path[64];
static int iso_fd = -1;

static const char *read_iso(const uint8_t *p, size_t n, bool *ok)
{
    struct image_boot boot = {0};
    if (ftruncate(iso_fd, 0) || pwrite(iso_fd, p, n, 0) != (ssize_t)n)
        return "no room for an image";
    *ok = image_is_iso(iso_path) && image_iso_boot(iso_path, &boot, &err);
    if (*ok) {
        for (size_t i = 0; i < boot.count; i++) {
            struct image_blob b = {0};
            if (image_iso_read(iso_path, boot.entry[i].kernel, &b, &err))
                image_blob_free(&b);
        }
        image_boot_free(&boot);
    }
    return NULL;
}

static const char *read_trace(const uint8_t *p, size_t n, bool *ok)
{
    struct trace_header h;
    struct trace_cursor c;
    struct trace_event e;
    size_t at = TRACE_HEADER_BYTES, used;
    bool bad;
    *ok = n >= TRACE_HEADER_BYTES && trace_get_header(p, &h) == TRACE_HEADER_OK;
    while (at <= n) {
        enum trace_read r = trace_read_block(p + at, n - at, true, &used, &c);
        if (r == TRACE_READ_BLOCK)
            while (trace_read_event(&c, &e, &bad)) {
                char text[TRACE_TEXT_MAX];
                if (trace_text(&e, text) >= sizeof(text))
                    return "an event's line is too long";
            }
        else if (r != TRACE_READ_SKIP)
            break;
        if (!used)
            break;
        at += used;
    }
    return NULL;
}

/* -- Good inputs -------------------------------------------------------------------------------------- */

static struct input {
    const char *name;
    const char *(*read)(const uint8_t *p, size_t n, bool *ok);
    struct buf good;
} inputs[24];
static unsigned input_count;

static void add(const char *name, const char *(*read)(const uint8_t *, size_t, bool *), struct buf b)
{
    inputs[input_count++] = (struct input){name, read, b};
}

/* A page of valid instructions, as far as random bytes are that. */
static struct buf good_verso(struct rng *r, uint8_t recto[SCAN_PAGE_SIZE])
{
    static struct scan_page page;
    static const uint16_t entries[] = {0, 64, 512, 2048};
    static const uint8_t common[16] = {0x89, 0x8B, 0x01, 0x03, 0x50, 0x58, 0x74, 0x75,
                                       0xE8, 0xE9, 0x90, 0x40, 0xC3, 0xB8, 0x0F, 0x83};
    struct xlat_verso v;
    struct buf b = {0};
    for (unsigned i = 0; i < SCAN_PAGE_SIZE; i++)
        recto[i] = rnd(r) % 3 ? common[rnd(r) & 15] : (uint8_t)rnd(r);
    scan_page(recto, 32, entries, 4, &page);
    xlat_verso_init(&v);
    if (xlat_translate(&page, 0, xlat_host_options(), &v) == XLAT_OK) {
        b.n = xlat_serialize(&v, NULL, 0);
        b.p = malloc(b.n);
        if (b.p)
            (void)xlat_serialize(&v, b.p, b.n);
    }
    xlat_verso_free(&v);
    return b;
}

static struct buf good_record(struct rng *r)
{
    uint8_t recto[SCAN_PAGE_SIZE], attr[SCAN_PAGE_SIZE] = {0};
    struct buf v = good_verso(r, recto), b = {0};
    struct cache_record rec = {recto, attr, v.p, (uint32_t)v.n, 100, 3, 0};
    cache_hash_page(recto, &record_key.hash_lo, &record_key.hash_hi);
    b.n = cache_raw_size(&rec);
    b.p = malloc(b.n);
    if (b.p) {
        cache_raw_fill(b.p, &record_key, &rec);
        cache_raw_seal(b.p, b.n);
    }
    buf_free(&v);
    return b;
}

static struct buf good_elf(uint16_t type, bool sections)
{
    static const uint8_t code[] = {0x55, 0x89, 0xE5, 0xE8, 0, 0, 0, 0, 0x5D, 0xC3, 0x90, 0x90, 0xEB, 0xFE};
    static const uint32_t data[] = {0x00101010, 0x00101014, 5}, symbols[] = {0x00101010, 0x00101018};
    return build_elf(&(struct build_elf){.type = type,
                                         .vaddr = 0x00101000,
                                         .paddr = 0x00101000,
                                         .entry = 0x00101010,
                                         .code = code,
                                         .code_len = sizeof(code),
                                         .data = data,
                                         .data_count = 3,
                                         .symbols = symbols,
                                         .symbol_count = 2,
                                         .sections = sections});
}

static struct buf good_initrd(void)
{
    struct buf b = {0};
    struct buf elf = good_elf(2, true);
    build_cpio_file(&b, "etc/motd", "hello");
    build_cpio_member(&b, &(struct build_member){"bin/sh", 0100755, 3, 1, elf.p, (uint32_t)elf.n});
    build_cpio_member(&b, &(struct build_member){"bin/ls", 0100755, 3, 2, NULL, 0});
    build_cpio_end(&b);
    buf_free(&elf);
    return b;
}

static struct buf good_iso(void)
{
    static const char cfg[] = "default live\ninclude more.cfg\nlabel live\n  kernel /live/vmlinuz\n  append "
                              "initrd=/live/a.gz,/live/b quiet\n"
                              "label two\n linux /boot/k\n initrd /i\nprompt 0\ntimeout 50\n";
    static const char more[] = "menu begin\nlabel three\n menu label ^Third\n kernel k3\nmenu end\n";
    static const char grub[] =
        "set default=1\nmenuentry \"A\" { linux /live/vmlinuz ro $x \"y z\"\n initrd /live/a.gz }\n"
        "submenu 'S' { menuentry 'B' --id b { linux /boot/k } }\nsource /more.cfg\n";
    char path[] = "/tmp/fuzz-iso-XXXXXX";
    int fd = mkstemp(path);
    struct buf b = {0};
    if (fd < 0)
        return b;
    const struct build_file files[] = {{"isolinux/isolinux.cfg", cfg, sizeof(cfg) - 1},
                                       {"isolinux/more.cfg", more, sizeof(more) - 1},
                                       {"boot/grub/grub.cfg", grub, sizeof(grub) - 1},
                                       {"live/vmlinuz", "kernel", 6},
                                       {"isolinux/isolinux.bin", "boot", 4}};
    build_iso(path, files, 5, "isolinux/isolinux.bin");
    struct image_blob blob = {0};
    if (image_read_file(path, &blob, &err)) {
        buf_add(&b, blob.data, blob.len);
        image_blob_free(&blob);
    }
    close(fd);
    unlink(path);
    return b;
}

static struct buf good_trace(struct rng *r)
{
    static struct trace_block blk;
    struct buf b = {0};
    uint8_t head[TRACE_HEADER_BYTES];
    trace_put_header(&(struct trace_header){.began_ns = 5}, head);
    buf_add(&b, head, sizeof(head));
    for (unsigned i = 0; i < 2; i++) {
        memset(&blk, 0, sizeof(blk));
        for (unsigned k = 0; k < 60; k++) {
            struct trace_event e = {
                .ns = k * 1000, .eip = rnd(r), .cs = 8, .kind = (uint8_t)(rnd(r) % TRACE_KIND_COUNT)};
            for (unsigned f = 0; f < TRACE_FIELDS; f++)
                e.field[f] = rnd(r);
            (void)trace_block_add(&blk, &e);
        }
        trace_block_finish(&blk);
        buf_add(&b, blk.bytes, TRACE_BLOCK_HEAD + blk.len);
    }
    return b;
}

static bool setup(uint64_t first_seed)
{
    struct rng r = {1};
    (void)first_seed;
    if (input_count)
        return true; /* in the parent, before the fork */
    uint8_t recto[SCAN_PAGE_SIZE];
    snprintf(iso_path, sizeof(iso_path), "/tmp/fuzz-image-XXXXXX");
    iso_fd = mkstemp(iso_path);
    for (unsigned i = 0; i < 3; i++)
        add("verso", read_verso, good_verso(&r, recto));
    add("record", read_record, good_record(&r));
    add("elf program", read_elf, good_elf(2, true));
    add("elf without sections", read_elf, good_elf(3, false));
    add("module", read_elf, build_module());
    struct buf kernel = good_elf(2, true);
    add("elf kernel", read_kernel, good_elf(2, true));
    for (unsigned i = 0; i < 7; i++) {
        struct buf packed = build_packed(build_packings[i], kernel.p, kernel.n);
        if (i < 3)
            add("bzImage", read_kernel, build_bzimage(packed.p, packed.n, "6.1.0-fuzz"));
        add("packed", read_packed, packed);
    }
    add("packed record", read_packed_record, build_packed("lz4", kernel.p, kernel.n));
    add("initrd", read_initrd, good_initrd());
    struct buf initrd = good_initrd();
    add("packed initrd", read_initrd, build_packed("gzip", initrd.p, initrd.n));
    add("iso", read_iso, good_iso());
    add("trace", read_trace, good_trace(&r));
    buf_free(&kernel);
    buf_free(&initrd);
    for (unsigned i = 0; i < input_count; i++) {
        bool ok = false;
        const char *wrong =
            inputs[i].good.n ? inputs[i].read(inputs[i].good.p, inputs[i].good.n, &ok) : "not made";
        if (wrong || (!ok && inputs[i].read != read_packed_record)) {
            fprintf(stderr, "the undamaged %s is refused: %s %s\n", inputs[i].name, wrong ? wrong : "",
                    err.text);
            return false;
        }
    }
    return iso_fd >= 0;
}

static void teardown(void)
{
    for (unsigned i = 0; i < input_count; i++)
        buf_free(&inputs[i].good);
    unlink(iso_path);
}

/* -- Damage -------------------------------------------------------------------------------------------- */

static uint32_t interesting(struct rng *r)
{
    static const uint32_t v[] = {0,          1,          2,          0x7F,      0x80,   0xFF,
                                 0x100,      0xFFF,      0x1000,     0x7FFF,    0xFFFF, 0x10000,
                                 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF};
    return rnd(r) & 1 ? v[rnd(r) % 16] : rnd(r) >> (rnd(r) & 31);
}

static const char *damage(struct rng *r, uint8_t *p, size_t *n, size_t room)
{
    if (!*n)
        return "nothing left";
    /* Most formats have what matters at their beginning. */
    size_t at = rnd(r) & 1 ? rnd(r) % *n : rnd(r) % (*n < 256 ? *n : 256);
    size_t len = 1 + rnd(r) % 64, left = *n - at;
    if (len > left)
        len = left;
    uint32_t v = interesting(r);
    switch (rnd(r) % 9) {
    case 0:
    case 1:
        p[at] ^= (uint8_t)(1u << (rnd(r) & 7));
        return "a bit";
    case 2:
        p[at] = (uint8_t)v;
        return "a byte";
    case 3:
    case 4:
        memcpy(p + at, &v, left < 4 ? left : 4);
        return "a word";
    case 5: {
        uint32_t w = 0;
        memcpy(&w, p + at, left < 4 ? left : 4);
        w += (rnd(r) & 7) - 4;
        memcpy(p + at, &w, left < 4 ? left : 4);
        return "a little more or less";
    }
    case 6:
        *n = rnd(r) % 4 ? at : *n;
        return "cut";
    case 7: /* taken out */
        memmove(p + at, p + at + len, left - len);
        *n -= len;
        return "bytes missing";
    default: /* repeated */
        if (*n + len > room)
            return "full";
        memmove(p + at + len, p + at, left);
        *n += len;
        return "bytes repeated";
    }
}

/* The damaged input, so that it ends where reading is no longer possible. */
static const struct input *prepare(const struct fuzz_case *f, uint8_t **p, size_t *n, FILE *list)
{
    static uint8_t *guarded, *work;
    if (!guarded) {
        work = malloc(GUARDED);
        guarded = mmap(NULL, GUARDED + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (!work || guarded == MAP_FAILED || mprotect(guarded + GUARDED, 4096, PROT_NONE))
            return NULL;
    }
    struct rng r = {f->seed * 0x2545F4914F6CDD1Dull};
    const struct input *in = &inputs[rnd(&r) % input_count];
    unsigned times = 1 + rnd(&r) % (rnd(&r) & 1 ? 4 : DAMAGE);
    *n = in->good.n;
    memcpy(work, in->good.p, *n);
    if (list)
        fprintf(list, "     %s, %zu bytes\n", in->name, *n);
    for (unsigned i = 0; i < times; i++) {
        struct rng own = {f->seed * 0x9E3779B97F4A7C15ull + i};
        if (fuzz_is_dropped(f, i))
            continue;
        const char *what = damage(&own, work, n, GUARDED);
        if (list)
            fprintf(list, "%4u %s\n", i, what);
    }
    *p = guarded + GUARDED - *n;
    memcpy(*p, work, *n);
    return in;
}

static bool run_case(const struct fuzz_case *f, char *text, size_t size)
{
    uint8_t *p;
    size_t n;
    const struct input *in = prepare(f, &p, &n, NULL);
    if (!in)
        exit(3);
    bool ok = false;
    const char *wrong = in->read(p, n, &ok);
    seen->given++;
    seen->accepted += ok;
    if (wrong)
        snprintf(text, size, "%s: %s", in->name, wrong);
    return !wrong;
}

static bool finish(uint64_t cases, char *text, size_t size)
{
    snprintf(text, size, "%llu of %llu accepted all the same", (unsigned long long)seen->accepted,
             (unsigned long long)seen->given);
    return cases < 1000 || (seen->accepted > cases / 100 && seen->accepted < cases / 4 * 3);
}

static unsigned pieces(const struct fuzz_case *f, FILE *list)
{
    uint8_t *p;
    size_t n;
    if (!input_count && !setup(0))
        return 0;
    (void)prepare(f, &p, &n, list);
    return DAMAGE;
}

int main(int argc, char **argv)
{
    static const struct fuzz_target target = {"fuzz_parse", 100000,   0,      setup,
                                              run_case,     teardown, finish, pieces};
    seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return seen == MAP_FAILED ? 2 : fuzz_main(&target, argc, argv);
}
