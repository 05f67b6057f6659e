/* Tables of a verso: unwind coverage, entries, links, units, straddling, determinism, byte form, validator.
 */
#include "scanner/scan.h"
#include "translator/unwind.h"
#include "translator/xlat.h"

#include <Zydis/Zydis.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Check writes a file for each ck_assert: too slow for inner loops. */
#define EXPECT(x)                                                                                            \
    do {                                                                                                     \
        if (!(x))                                                                                            \
            ck_abort_msg("%s", #x);                                                                          \
    } while (0)

_Static_assert(offsetof(struct cpu, stub) == 48 && XLAT_STUB_OF_VERSOS == 17, "the branches through stubs in the tables below");

static struct scan_page page;
static uint32_t seed_state;

static uint32_t next_random(void)
{
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 17;
    seed_state ^= seed_state << 5;
    return seed_state;
}

/* A page that looks like code: instructions drawn from common compiler output, then noise. */
static void make_recto(uint8_t recto[4096], uint32_t seed)
{
    static const char *const piece[] = {"\x55\x89\xE5",
                                        "\x53\x56\x57",
                                        "\x83\xEC\x10",
                                        "\x8B\x45\x08",
                                        "\x89\x44\x24\x04",
                                        "\xE8\x10\x20\xFF\xFF",
                                        "\xE8\x05\x01\x01\x01",
                                        "\x85\xC0",
                                        "\x74\x06",
                                        "\x75\xF0",
                                        "\x0F\x84\x10\x20\x01\x01",
                                        "\x5F\x5E\x5B",
                                        "\xC9\xC3",
                                        "\xFF\x55\xFC",
                                        "\xFF\xE0",
                                        "\xF3\xA5",
                                        "\x64\xA1\x10\x20\x30\x40",
                                        "\x9C\xFA",
                                        "\x9D\xFB\x90",
                                        "\x0F\xA2",
                                        "\x88\x63\x05",
                                        "\xA1\x10\x20\x30\xC0",
                                        "\x8B\x04\x8D\x10\x20\x30\xC0",
                                        "\xF4",
                                        "\xC2\x08\x01",
                                        "\x0F\xB6\xC0",
                                        "\xE2\xF8",
                                        "\x61\x60",
                                        "\x0F\x1F\x44\x55\x02",
                                        "\xF0\x0F\xB1\x11",
                                        "\xFF\x35\x11\x22\x33\x44",
                                        "\x8C\xD8",
                                        "\xD9\x45\x08",
                                        "\x0F\x10\x45\x10",
                                        "\x8F\x45\x08"};
    unsigned at = 0;

    seed_state = seed * 2654435761u | 1;
    while (at + 16 < 4096) {
        const char *s = piece[next_random() % (sizeof piece / sizeof piece[0])];
        size_t n = strlen(s);

        memcpy(recto + at, s, n);
        at += (unsigned)n;
        if (next_random() % 64 == 0)
            recto[at++] = (uint8_t)next_random();
    }
    for (; at < 4096; at++)
        recto[at] = (uint8_t)next_random();
}

static void translate(uint32_t seed, uint32_t mode, uint32_t options, struct xlat_verso *v)
{
    static const uint16_t entries[] = {0, 100, 1000, 2001, 4000, 4095};
    uint8_t recto[4096];

    make_recto(recto, seed);
    scan_page(recto, 32, entries, sizeof entries / sizeof entries[0], &page);
    ck_assert_int_eq(xlat_translate(&page, mode, options, v), XLAT_OK);
}

#define OPTIONS 4u /* BMI2 x STEP */

/* Instructions at which ESP is not in place, by the records. */
static void find_inside(const struct xlat_verso *v, bool inside[4096])
{
    struct unwind_reader r;
    struct unwind_rec rec;

    memset(inside, 0, 4096 * sizeof(inside[0]));
    unwind_reader_init(&r, v->unwind, v->unwind_len);
    while (unwind_read(&r, &rec))
        if (rec.state == XLAT_AT_ESP && rec.guest_rel >= 0 && rec.guest_rel < 4096)
            inside[rec.guest_rel] = true;
}

START_TEST(every_host_instruction_of_a_page_has_a_record_and_every_instruction_an_entry_or_esp_not_in_place)
{
    struct xlat_verso v;
    struct xlat_unwound u;
    int32_t entries[4096];
    bool inside[4096];
    unsigned found = 0, without = 0, recorded = 0;

    xlat_verso_init(&v);
    for (uint32_t seed = 1; seed < 40; seed++) {
        translate(seed, seed % XLAT_MODE_COUNT, _i, &v);
        for (uint32_t off = seed % 13; off < v.code_len; off += 13) /* each look-up reads from the start */
            EXPECT(xlat_unwind(v.unwind, v.unwind_len, off, &u));
        ck_assert(!xlat_unwind(v.unwind, v.unwind_len, v.code_len, &u));
        xlat_entries(v.unwind, v.unwind_len, entries);
        find_inside(&v, inside);
        for (unsigned off = 0; off < 4096; off++) {
            bool has = page.index[off] >= 0 || (page.attr[off] & SCAN_ATTR_STRADDLE);

            EXPECT(entries[off] < 0 || has);
            if (has && entries[off] < 0) {
                EXPECT(!(v.options & XLAT_OPT_STEP) &&
                       !(page.attr[off] & (SCAN_ATTR_TARGET | SCAN_ATTR_ENTRY | SCAN_ATTR_STRADDLE)));
                without++;
                recorded += inside[off]; /* NOPs have no bytes to record */
            }
            if (off % 31 == seed % 31)
                EXPECT(entries[off] == xlat_entry(v.unwind, v.unwind_len, off));
            found += has;
        }
    }
    ck_assert_uint_gt(found, 10000);
    ck_assert((without > 0) == !(v.options & XLAT_OPT_STEP));
    ck_assert_uint_ge(recorded, without - without / 20);
    xlat_verso_free(&v);
}
END_TEST

START_TEST(marks_change_no_unwinding)
{
    struct xlat_verso v;

    xlat_verso_init(&v);
    for (uint32_t seed = 1; seed < 20; seed++) {
        static struct xlat_mark marks[4096];
        uint32_t count;

        translate(seed, seed % XLAT_MODE_COUNT, _i, &v);
        count = xlat_marks(v.unwind, v.unwind_len, NULL, 0);
        ck_assert_uint_gt(count, 8);
        ck_assert_uint_le(count, sizeof marks / sizeof marks[0]);
        ck_assert_uint_eq(xlat_marks(v.unwind, v.unwind_len, marks, count), count);
        for (uint32_t off = 0; off <= v.code_len; off += 1 + off % 3) {
            struct xlat_unwound a = {0}, b = {0};
            bool known = xlat_unwind(v.unwind, v.unwind_len, off, &a);

            EXPECT(xlat_unwind_marked(v.unwind, v.unwind_len, marks, count, off, &b) == known);
            EXPECT(!known || (a.state == b.state && a.guest_rel == b.guest_rel && a.arg == b.arg));
        }
    }
    xlat_verso_free(&v);
}
END_TEST

START_TEST(entries_and_tails_lie_on_host_instruction_boundaries)
{
    struct xlat_verso v;
    ZydisDecoder d;
    ZydisDecodedInstruction insn;
    static uint8_t start[1 << 20];

    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    xlat_verso_init(&v);
    for (uint32_t seed = 1; seed < 40; seed++) {
        struct unwind_reader r;
        struct unwind_rec rec;

        translate(seed, 0, _i, &v);
        ck_assert_uint_lt(v.code_len, sizeof start);
        memset(start, 0, v.code_len);
        for (uint32_t off = 0; off < v.code_len; off += insn.length) {
            start[off] = 1;
            EXPECT(
                ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, v.code + off, v.code_len - off, &insn)));
        }
        unwind_reader_init(&r, v.unwind, v.unwind_len);
        while (unwind_read(&r, &rec) && !rec.is_end)
            EXPECT(start[rec.host_off]);
        for (uint32_t n = 0; n < v.link_count; n++)
            EXPECT(start[v.links[n].tail_off]);
    }
    xlat_verso_free(&v);
}
END_TEST

START_TEST(translate_twice_into_used_verso_gives_same_bytes)
{
    struct xlat_verso a, b;
    size_t size;
    uint8_t *x, *y;

    xlat_verso_init(&a);
    xlat_verso_init(&b);
    translate(5, 1, _i, &b); /* leftovers must not show */
    for (uint32_t seed = 1; seed < 20; seed++) {
        translate(seed, 0, _i, &a);
        translate(seed, 0, _i, &b);
        size = xlat_serialize(&a, NULL, 0);
        ck_assert_uint_eq(size, xlat_serialize(&b, NULL, 0));
        x = malloc(size);
        y = malloc(size);
        xlat_serialize(&a, x, size);
        xlat_serialize(&b, y, size);
        ck_assert_mem_eq(x, y, size);
        free(x);
        free(y);
    }
    xlat_verso_free(&a);
    xlat_verso_free(&b);
}
END_TEST

START_TEST(serialized_verso_read_back_is_equal)
{
    struct xlat_verso a, b;
    struct xlat_index index;
    int32_t entries[4096];
    size_t size;
    uint8_t *x, *y;

    xlat_verso_init(&a);
    translate(3, XLAT_MODE_USER, _i, &a);
    size = xlat_serialize(&a, NULL, 0);
    x = malloc(size);
    y = malloc(size);
    ck_assert_uint_eq(xlat_serialize(&a, x, size - 1), size);
    ck_assert_uint_eq(xlat_serialize(&a, x, size), size);
    ck_assert(xlat_deserialize(x, size, &b, &index));
    xlat_entries(a.unwind, a.unwind_len, entries);
    ck_assert(index.made);
    for (unsigned off = 0; off < 4096; off++)
        EXPECT(xlat_index_find(&index, b.unwind, off) == entries[off]);
    ck_assert_uint_eq(a.link_count, b.link_count);
    ck_assert_mem_eq(a.links, b.links, a.link_count * sizeof *a.links);
    ck_assert_uint_eq(xlat_serialize(&b, y, size), size);
    ck_assert_mem_eq(x, y, size);
    ck_assert_uint_eq(b.mode, XLAT_MODE_USER);
    xlat_verso_free(&b);
    free(x);
    free(y);
    xlat_verso_free(&a);
}
END_TEST

/* -- Unwind records by themselves
 * ------------------------------------------------------------------------------------------------------ */

enum { RECORDS = 400 };
static struct unwind_writer writer;
static uint8_t unwind_bytes[UNWIND_HEAD + RECORDS * (UNWIND_WIDE_SIZE + UNWIND_ENTRY_MAX)];

/* Records of every form: most deltas small, some that need the wide forms. */
static uint32_t make_records(struct unwind_rec rec[RECORDS], uint32_t *code_len)
{
    static const enum xlat_state state[] = {XLAT_AT,   XLAT_AT_R8,  XLAT_AT_R8_RCX9, XLAT_AT_RCX9,
                                            XLAT_XCHG, XLAT_STRING, XLAT_AT_ESP,     XLAT_RETRY};
    uint32_t host = 0, guest = 0, len = 0;

    unwind_begin(&writer);
    for (unsigned n = 0; n < RECORDS; n++) {
        struct unwind_rec *r = &rec[n];

        *r = (struct unwind_rec){.host_off = host, .entry = next_random() % 2 && guest < 4000};
        if (r->entry) {
            guest += 1 + next_random() % (n % 8 ? 8 : 20);
            r->guest_rel = (int32_t)guest;
        } else {
            r->state = state[next_random() % 8];
            r->arg = (uint8_t)(r->state == XLAT_AT_ESP ? next_random() : r->state == XLAT_XCHG || r->state == XLAT_STRING ? next_random() % 4 : 0);
            if (unwind_has_guest(r->state))
                r->guest_rel = (int32_t)(n % 8 ? guest + next_random() % 16 : n % 16 ? next_random() : guest + next_random() % (1u << 24) - (1u << 23));
        }
        len += unwind_put(&writer, unwind_bytes + UNWIND_HEAD + len, r);
        host += 1 + next_random() % (n % 16 ? 12 : 500);
    }
    *code_len = host;
    return unwind_finish(&writer, unwind_bytes, len, host);
}

START_TEST(unwind_records_written_are_read_back_and_found)
{
    static struct unwind_rec rec[RECORDS];
    struct xlat_index index;

    for (uint32_t seed = 1; seed < 200; seed += 7) {
        struct unwind_reader r;
        struct unwind_rec got;
        struct xlat_unwound u;
        uint32_t code_len, len;

        seed_state = seed;
        len = make_records(rec, &code_len);
        ck_assert(unwind_check(unwind_bytes, len, code_len, &index));
        ck_assert(!unwind_check(unwind_bytes, len, code_len + 1, &index));
        ck_assert(!unwind_check(unwind_bytes, len - 1, code_len, &index));
        unwind_reader_init(&r, unwind_bytes, len);
        for (unsigned n = 0; n < RECORDS; n++) {
            ck_assert(unwind_read(&r, &got));
            EXPECT(got.host_off == rec[n].host_off && got.guest_rel == rec[n].guest_rel && got.state == rec[n].state &&
                   got.arg == rec[n].arg && got.entry == rec[n].entry && !got.is_end);
            ck_assert(xlat_unwind(unwind_bytes, len, (n + 1 < RECORDS ? rec[n + 1].host_off : code_len) - 1, &u));
            EXPECT(u.state == rec[n].state && u.guest_rel == rec[n].guest_rel && u.arg == rec[n].arg);
            if (rec[n].entry)
                EXPECT(xlat_entry(unwind_bytes, len, (uint32_t)rec[n].guest_rel) == (int32_t)rec[n].host_off);
        }
        ck_assert(unwind_read(&r, &got) && got.is_end && got.host_off == code_len);
        ck_assert(!unwind_read(&r, &got));
        ck_assert(!xlat_unwind(unwind_bytes, len, code_len, &u));
    }
}
END_TEST

static bool check_entries_at(const int32_t *guest, const uint32_t *host, unsigned n, struct xlat_index *index)
{
    unwind_begin(&writer);
    for (unsigned i = 0; i < n; i++)
        (void)unwind_put(&writer, NULL, &(struct unwind_rec){.host_off = host[i], .guest_rel = guest[i], .entry = true});
    return unwind_check(unwind_bytes, unwind_finish(&writer, unwind_bytes, 0, 100), 100, index);
}

START_TEST(unwind_entries_twice_or_outside_are_refused)
{
    static const uint32_t host[] = {0, 10, 20}, late[] = {1, 10, 20}, outside[] = {0, 10, 100};
    static const int32_t plain[] = {0, 5, 9}, back[] = {0, 9, 5}, twice[] = {0, 5, 5}, again[] = {5, 9, 5}, beyond[] = {0, 5, 4096},
                         before[] = {0, 5, -1};
    struct xlat_index index;

    ck_assert(check_entries_at(plain, host, 3, &index));
    ck_assert_int_eq(xlat_index_find(&index, unwind_bytes, 9), 20);
    ck_assert_int_eq(xlat_index_find(&index, unwind_bytes, 8), -1);
    ck_assert(check_entries_at(back, host, 3, &index)); /* overlapping instructions: right, but not indexed in passing */
    ck_assert(!index.made);
    ck_assert(!check_entries_at(twice, host, 3, &index));
    ck_assert(!check_entries_at(again, host, 3, &index));
    ck_assert(!check_entries_at(beyond, host, 3, &index));
    ck_assert(!check_entries_at(before, host, 3, &index));
    ck_assert(!check_entries_at(plain, late, 3, &index));
    ck_assert(!check_entries_at(plain, outside, 3, &index));
    ck_assert(!check_entries_at(plain, host, 0, &index));
}
END_TEST

START_TEST(serialized_verso_cut_or_extended_is_refused)
{
    struct xlat_verso a, b;
    size_t size;
    uint8_t *x;

    xlat_verso_init(&a);
    translate(3, 0, 0, &a);
    size = xlat_serialize(&a, NULL, 0);
    x = calloc(1, size + 1);
    xlat_serialize(&a, x, size);
    for (size_t len = 0; len < size; len += 1 + len / 64)
        EXPECT(!xlat_deserialize(x, len, &b, NULL));
    ck_assert(!xlat_deserialize(x, size + 1, &b, NULL));
    ck_assert_ptr_null(b.code);
    free(x);
    xlat_verso_free(&a);
}
END_TEST

/* Any damage is refused or yields tables in bounds; never a crash. What is accepted must still be safe to
 * validate and to unwind. */
START_TEST(serialized_verso_damaged_never_crashes)
{
    struct xlat_verso a, b;
    struct xlat_unwound u;
    size_t size;
    uint8_t *x, *y;
    char why[200];
    int32_t entries[4096];
    unsigned accepted = 0;

    xlat_verso_init(&a);
    translate(11, 0, 1, &a);
    size = xlat_serialize(&a, NULL, 0);
    x = malloc(size);
    y = malloc(size);
    xlat_serialize(&a, x, size);
    seed_state = 99;
    for (unsigned n = 0; n < 4000; n++) {
        memcpy(y, x, size);
        for (unsigned k = next_random() % 3 + 1; k; k--)
            y[n % 2 ? next_random() % size : size - 1 - next_random() % a.unwind_len] =
                (uint8_t)next_random();
        if (n % 16 == 0)
            y[next_random() % 36] ^= (uint8_t)(1 << next_random() % 8);
        if (!xlat_deserialize(y, size, &b, NULL))
            continue;
        accepted++;
        xlat_entries(b.unwind, b.unwind_len, entries);
        for (unsigned k = 0; k < 4096; k++)
            EXPECT(entries[k] < (int32_t)b.code_len);
        xlat_unwind(b.unwind, b.unwind_len, next_random() % (b.code_len + 1), &u);
        if (n % 8 == 0)
            (void)xlat_validate(&b, why, sizeof why);
        xlat_verso_free(&b);
    }
    ck_assert_uint_gt(accepted, 100);
    free(x);
    free(y);
    xlat_verso_free(&a);
}
END_TEST

START_TEST(validator_on_translated_pages_accepts)
{
    struct xlat_verso v;
    char why[200];

    xlat_verso_init(&v);
    for (uint32_t seed = 1; seed < 30; seed++) {
        translate(seed, seed % XLAT_MODE_COUNT, _i, &v);
        ck_assert_msg(xlat_validate(&v, why, sizeof why), "seed %u: %s", seed, why);
    }
    xlat_verso_free(&v);
}
END_TEST

struct hostile {
    const char *what, *bytes;
    size_t len;
};
#define H(what, bytes)                                                                                       \
    {                                                                                                        \
        what, bytes, sizeof bytes - 1                                                                        \
    }
static const struct hostile hostile[] = {
    H("syscall", "\x0F\x05"),
    H("sysenter", "\x0F\x34"),
    H("int 80h", "\xCD\x80"),
    H("int3", "\xCC"),
    H("hlt", "\xF4"),
    H("in al, dx", "\xEC"),
    H("cli", "\xFA"),
    H("cpuid", "\x0F\xA2"),
    H("wrfsbase eax", "\xF3\x0F\xAE\xD0"),
    H("mov fs, eax", "\x8E\xE0"),
    H("ud2", "\x0F\x0B"),
    H("xgetbv", "\x0F\x01\xD0"),
    H("wrpkru", "\x0F\x01\xEF"),
    H("mov [rax], eax", "\x89\x00"),
    H("mov eax, [rip]", "\x8B\x05\0\0\0\0"),
    H("mov eax, [rsp]", "\x8B\x04\x24"),
    H("mov eax, fs:[0]", "\x64\x8B\x04\x25\0\0\0\0"),
    H("mov eax, [r15+r8*8]", "\x43\x8B\x04\xC7"),
    H("mov eax, [r15+r12*8]", "\x43\x8B\x04\xE7"),
    H("mov eax, [r15-1]", "\x41\x8B\x47\xFF"),
    H("mov eax, [r12+8]", "\x41\x8B\x44\x24\x08"),
    H("mov eax, [r15+rsp form: r12 index]", "\x43\x8B\x04\x27"),
    H("mov eax, [r15+r8], r8 unknown", "\x43\x8B\x04\x07"),
    H("mov eax, [r15+rax-1G]", "\x41\x8B\x84\x07\0\0\0\xC0"),
    H("mov eax, [r12+rax]", "\x41\x8B\x04\x04"),
    H("mov eax, [r9+r8]", "\x43\x8B\x04\x01"),
    H("mov r9d, [r13+0]; mov eax, [r9+r8]", "\x45\x8B\x4D\x00\x43\x8B\x04\x01"),
    H("mov [r13], eax", "\x41\x89\x45\x00"),
    H("mov eax, [r13-4]", "\x41\x8B\x45\xFC"),
    H("mov eax, [r13+4096]", "\x41\x8B\x85\0\x10\0\0"),
    H("jmp rax", "\xFF\xE0"),
    H("jmp [r13+184]", "\x41\xFF\xA5\xB8\0\0\0"),
    H("jmp [r13+52]", "\x41\xFF\x65\x34"),
    H("jmp [r13+40]", "\x41\xFF\x65\x28"),
    H("jmp [r10+r9*8]", "\x43\xFF\x24\xCA"),
    H("retf", "\xCB"),
    H("ret 8", "\xC2\x08\0"),
    H("iretq", "\x48\xCF"),
    H("jmp far [r13]", "\x41\xFF\x6D\x00"),
    H("mov rsp, rax", "\x48\x89\xC4"),
    H("mov esp, eax", "\x89\xC4"),
    H("add esp, 4", "\x83\xC4\x04"),
    H("mov r15, rax", "\x49\x89\xC7"),
    H("mov r12d, eax", "\x41\x89\xC4"),
    H("xchg r13, rax", "\x49\x95"),
    H("inc r15b", "\x41\xFE\xC7"),
    H("push rax", "\x50"),
    H("pop r8", "\x41\x58"),
    H("popfq", "\x9D"),
    H("leave", "\xC9"),
    H("enter", "\xC8\0\0\0"),
    H("mov rax, -1", "\x48\xC7\xC0\xFF\xFF\xFF\xFF"),
    H("add rax, rbx", "\x48\x01\xD8"),
    H("movsxd rax, eax", "\x48\x63\xC0"),
    H("cdqe", "\x48\x98"),
    H("movq rax, xmm0", "\x66\x48\x0F\x7E\xC0"),
    H("lea rax, [rax+rax]", "\x48\x8D\x04\x00"),
    H("movsd string, not rebased", "\xA5"),
    H("lea rsi, [r15+rsi]; jmp", "\x49\x8D\x34\x37\xEB\0"),
    H("lea rsi, [r9+rsi]; lodsd, r9 unknown", "\x49\x8D\x34\x31\xAD\x89\xF6"),
    H("mov r9, [r13]; lea rsi, [r9+rsi]; lodsd", "\x4D\x8B\x4D\x00\x49\x8D\x34\x31\xAD\x89\xF6"),
    H("mov r10d, [r13+r10*4+584], r10 unknown", "\x47\x8B\x94\x95\x48\x02\0\0"),
    H("lea rsi twice", "\x49\x8D\x34\x37\x49\x8D\x34\x37"),
    H("lea rsi; mov eax, [r15+rsi]", "\x49\x8D\x34\x37\x41\x8B\x04\x37"),
    H("loop with 64-bit count", "\xE2\0"),
    H("xlatb", "\xD7"),
    H("maskmovdqu", "\x66\x0F\xF7\xC1"),
    H("fxsave", "\x41\x0F\xAE\x07"),
    H("xrstor", "\x41\x0F\xAE\x2F"),
    H("fnsave", "\x41\xDD\x37"),
    H("vmovups ymm", "\xC5\xFC\x10\xC1"),
    H("jump into an instruction", "\xEB\x01\xB8\0\0\0\0"),
    H("jump out of the code", "\xE9\0\0\0\x10"),
    H("mov rax, [moffs]", "\xA1\0\0\0\0\0\0\0\0"),
    H("cmpxchg16b", "\x49\x0F\xC7\x0F"),
    H("bts [m], r64", "\x49\x0F\xAB\x07"),
    H("rdtscp", "\x0F\x01\xF9"),
    H("add [67h]", "\x67\x41\x8B\x07"),
    H("rdrand", "\x0F\xC7\xF0"),
    H("lgdt", "\x41\x0F\x01\x17"),
    H("sgdt", "\x41\x0F\x01\x07"),
    H("str", "\x0F\x00\xC8"),
    H("mov cr0", "\x0F\x22\xC0"),
    H("clac", "\x0F\x01\xCA")};

static bool validate_bytes(const char *bytes, size_t len, char *why, size_t why_size)
{
    static struct unwind_writer w;
    uint8_t code[64], unwind[64];
    struct unwind_rec first = {.entry = true};
    struct xlat_verso v = {.code = code, .unwind = unwind};

    memcpy(code, bytes, len);
    memcpy(code + len, "\x41\xFF\x65\x30", 4); /* jmp [r13+48], the first stub: a proper end */
    v.code_len = (uint32_t)len + 4;
    unwind_begin(&w);
    (void)unwind_put(&w, unwind, &first);
    v.unwind_len = unwind_finish(&w, unwind, 0, v.code_len);
    return xlat_validate(&v, why, why_size);
}

START_TEST(validator_on_hostile_code_refuses)
{
    char why[200];

    ck_assert_msg(!validate_bytes(hostile[_i].bytes, hostile[_i].len, why, sizeof why), "%s accepted",
                  hostile[_i].what);
    ck_assert_uint_gt(strlen(why), 0);
}
END_TEST

START_TEST(validator_on_harmless_code_accepts)
{
    static const struct hostile fine[] = {
        H("nothing", ""),
        H("mov eax, [r15+rax]", "\x41\x8B\x04\x07"),
        H("mov eax, [r12-4]", "\x41\x8B\x44\x24\xFC"),
        H("mov r8d, eax; mov eax, [r15+r8]", "\x41\x89\xC0\x43\x8B\x04\x07"),
        H("pushfq; pop r8", "\x9C\x41\x58"),
        H("lea rsi; lodsd; mov esi, esi", "\x49\x8D\x34\x37\xAD\x89\xF6"),
        H("lock cmpxchg8b", "\xF0\x41\x0F\xC7\x0F")};
    char why[200];

    for (size_t n = 0; n < sizeof fine / sizeof fine[0]; n++)
        ck_assert_msg(validate_bytes(fine[n].bytes, fine[n].len, why, sizeof why), "%s: %s", fine[n].what,
                      why);
}
END_TEST

/* --- links, tails, units
 * ------------------------------------------------------------------------------------------- */

static void translate_bytes(const void *bytes, size_t len, unsigned at, struct xlat_verso *v)
{
    uint8_t recto[4096];
    uint16_t entry = (uint16_t)at;

    memset(recto, 0xFF, sizeof recto);
    memcpy(recto + at, bytes, len);
    scan_page(recto, 32, &entry, 1, &page);
    ck_assert_int_eq(xlat_translate(&page, 0, 0, v), XLAT_OK);
}

START_TEST(branch_out_of_the_page_becomes_a_link_to_a_tail)
{
    struct xlat_verso v;

    xlat_verso_init(&v);
    translate_bytes("\xE9\xFB\x1F\0\0", 5, 0, &v); /* jmp 2000h */
    ck_assert_uint_eq(v.link_count, 1);
    ck_assert_int_eq(v.links[0].target, 0x2000);
    ck_assert_uint_eq(v.links[0].field_off, 1);
    ck_assert_uint_eq(v.links[0].tail_off, 5);
    translate_bytes("\xE9\xFB\xCF\xFF\xFF", 5, 0, &v); /* jmp -3000h */
    ck_assert_int_eq(v.links[0].target, -0x3000);
    xlat_verso_free(&v);
}
END_TEST

/* An interrupt between the load and what follows it must not show the new register in front of the instruction. */
START_TEST(pop_that_has_loaded_its_register_is_no_longer_before_the_instruction)
{
    static const struct {
        const char *bytes;
        size_t len;
        unsigned loads; /* instructions that read the stack and change no guest register, then one that does */
    } pops[] = {{"\x5A\xF4", 2, 0}, {"\x61\xF4", 2, 1}, {"\x8F\xC2\xF4", 3, 0}};

    for (unsigned n = 0; n < sizeof pops / sizeof pops[0]; n++) {
        struct xlat_verso v;
        struct xlat_unwound u;
        char text[64];
        uint32_t at = 0;

        xlat_verso_init(&v);
        translate_bytes(pops[n].bytes, pops[n].len, 0, &v);
        for (unsigned k = 0; k <= pops[n].loads; k++) {
            EXPECT(xlat_unwind(v.unwind, v.unwind_len, at, &u) && u.state == XLAT_AT && u.guest_rel == 0);
            at += scan_disassemble(v.code + at, v.code_len - at, 64, 0, text, sizeof text);
        }
        EXPECT(xlat_unwind(v.unwind, v.unwind_len, at, &u));
        EXPECT(!(u.state == XLAT_AT && u.guest_rel == 0));
        xlat_verso_free(&v);
    }
}
END_TEST

/* STD; REP MOVSB; CLD: on the way from the STD the host's DF stays clear, and every byte of host code in between says that the guest's is set.
 * What interrupts the repeat behind an element finds it begun, so that the image of EFLAGS has RF. */
START_TEST(moves_between_std_and_cld_leave_df_to_the_unwind_records)
{
    struct xlat_verso v;
    struct xlat_unwound u;
    char text[64];
    unsigned stores = 0, begun = 0, behind = 0;

    xlat_verso_init(&v);
    translate_bytes("\xFD\xF3\xA4\xFC\xF4", 5, 0, &v);
    uint32_t end = (uint32_t)xlat_entry(v.unwind, v.unwind_len, 1);
    ck_assert_uint_gt(end, 20);
    for (uint32_t at = 0; at < end; at += scan_disassemble(v.code + at, v.code_len - at, 64, 0, text, sizeof text)) {
        EXPECT(v.code[at] != 0xFD && (v.code[at] != 0xFC || !at) && v.code[at] != 0xF3 && v.code[at] != 0xA4);
        EXPECT(xlat_unwind(v.unwind, v.unwind_len, at, &u));
        behind += u.state == XLAT_AT && u.guest_rel == 4;
        if (u.state != XLAT_RETRY && u.guest_rel == 1) {
            EXPECT(u.state == XLAT_STRING && u.arg == (XLAT_ARG_DF | (stores ? XLAT_ARG_BEGUN : 0)));
            begun += u.arg & XLAT_ARG_BEGUN;
        }
        stores += v.code[at] == 0x45 && v.code[at + 1] == 0x88; /* mov [r15 + rdi], r8b */
    }
    ck_assert_uint_ge(stores, 2);
    ck_assert_uint_ge(begun, 6);
    ck_assert_uint_ge(behind, 1);
    xlat_verso_free(&v);
}
END_TEST

/* Where it ends otherwise than by a CLD, the host's DF is set on the way out. */
START_TEST(moves_behind_std_set_df_where_they_end_without_cld)
{
    static const char *const code[] = {"\xFD\xF3\xA4\x9C\xF4", "\xFD\x75\x02\xF3\xA4\xF4", "\xFD\xF3\xA4\x75\x7F\xFC"};

    for (unsigned n = 0; n < sizeof code / sizeof code[0]; n++) {
        struct xlat_verso v;
        struct xlat_unwound u;
        unsigned found = 0;

        xlat_verso_init(&v);
        translate_bytes(code[n], strlen(code[n]), 0, &v);
        uint32_t end = (uint32_t)xlat_entry(v.unwind, v.unwind_len, 1);
        for (uint32_t at = 0; at < end; at++)
            if (v.code[at] == 0xFD && xlat_unwind(v.unwind, v.unwind_len, at, &u) && u.state == XLAT_STRING && u.arg == XLAT_ARG_DF &&
                xlat_unwind(v.unwind, v.unwind_len, at + 1, &u) && u.state == XLAT_AT)
                found++;
        ck_assert_uint_eq(found, 1);
        xlat_verso_free(&v);
    }
}
END_TEST

START_TEST(falling_off_the_page_links_to_offset_4096)
{
    struct xlat_verso v;
    struct xlat_unwound u;

    xlat_verso_init(&v);
    translate_bytes("\x40", 1, 4095, &v);
    ck_assert_uint_eq(v.link_count, 1);
    ck_assert_int_eq(v.links[0].target, 4096);
    ck_assert(xlat_unwind(v.unwind, v.unwind_len, v.links[0].field_off - 1, &u));
    ck_assert_int_eq(u.guest_rel, 4096);
    xlat_verso_free(&v);
}
END_TEST

START_TEST(straddling_instruction_has_an_entry_that_is_a_link)
{
    struct xlat_verso v;
    int32_t at;

    xlat_verso_init(&v);
    translate_bytes("\x40\xE8\0\0", 4, 4092, &v);
    at = xlat_entry(v.unwind, v.unwind_len, 4093);
    ck_assert_int_ge(at, 0);
    ck_assert_uint_eq(v.code[at], 0xE9);
    ck_assert_uint_eq(v.link_count, 1);
    ck_assert_uint_eq(v.links[0].field_off, (uint32_t)at + 1);
    ck_assert_int_eq(v.links[0].target, 4093);
    ck_assert_uint_eq(v.code[v.links[0].tail_off], 0x41);
    ck_assert_uint_eq(v.code[v.links[0].tail_off + 9], offsetof(struct cpu, stub) + 8 * XLAT_STUB_STRADDLE);
    xlat_verso_free(&v);
}
END_TEST

START_TEST(unit_of_a_straddling_call_links_target_and_successor)
{
    static const uint8_t bytes[15] = {0xE8, 0x10, 0, 0, 0};
    struct xlat_verso v;

    xlat_verso_init(&v);
    ck_assert_int_eq(scan_unit(bytes, 15, 4094, 32, &page), SCAN_OK);
    ck_assert_int_eq(xlat_translate(&page, 0, 0, &v), XLAT_OK);
    ck_assert_uint_eq(v.link_count, 2);
    ck_assert_int_eq(v.links[0].target, 4094 + 5 + 0x10);
    ck_assert_int_eq(v.links[1].target, 4094 + 5);
    ck_assert_int_eq(xlat_entry(v.unwind, v.unwind_len, 4094), 0);
    xlat_verso_free(&v);
}
END_TEST

START_TEST(unit_branching_back_into_its_page_links_instead_of_rescan)
{
    static const uint8_t bytes[15] = {0x0F, 0x84, 0, 0xFF, 0xFF, 0xFF};
    struct xlat_verso v;

    xlat_verso_init(&v);
    ck_assert_int_eq(scan_unit(bytes, 15, 4091, 32, &page), SCAN_OK);
    ck_assert_int_eq(xlat_translate(&page, 0, 0, &v), XLAT_OK);
    ck_assert_uint_eq(v.link_count, 2);
    ck_assert_int_eq(v.links[0].target, 4091 + 6 - 0x100);
    xlat_verso_free(&v);
}
END_TEST

START_TEST(overlapping_instructions_each_fall_through_to_their_own_successor)
{
    /* jmp +1 into the immediate of mov eax, imm32: both decodings have entries. */
    struct xlat_verso v;
    char why[200];

    xlat_verso_init(&v);
    translate_bytes("\x74\x01\xB8\x40\x41\x42\xF4\xF4\xF4", 9, 0, &v);
    for (unsigned off = 2; off < 6; off++)
        ck_assert_int_ge(xlat_entry(v.unwind, v.unwind_len, off), 0);
    ck_assert_msg(xlat_validate(&v, why, sizeof why), "%s", why);
    xlat_verso_free(&v);
}
END_TEST

START_TEST(fpu_trap_mode_emulates_every_fpu_instruction)
{
    struct xlat_verso v;
    uint8_t recto[4096];
    uint16_t entry = 0;

    xlat_verso_init(&v);
    memset(recto, 0xFF, sizeof recto);
    memcpy(recto, "\xD9\xE8\x0F\x58\xC1\x9B\x0F\x77\xC3", 9); /* fld1; addps; fwait; emms; ret */
    scan_page(recto, 32, &entry, 1, &page);
    ck_assert_int_eq(xlat_translate(&page, XLAT_MODE_FPU_TRAP, 0, &v), XLAT_OK);
    ck_assert_uint_eq(v.emulated_count, 4);
    ck_assert_int_eq(xlat_translate(&page, 0, 0, &v), XLAT_OK);
    ck_assert_uint_eq(v.emulated_count, 0);
    xlat_verso_free(&v);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("xlat_verso");
    TCase *t = tcase_create("tables");

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_host_instruction_of_a_page_has_a_record_and_every_instruction_an_entry_or_esp_not_in_place, 0,
                        OPTIONS);
    tcase_add_loop_test(t, marks_change_no_unwinding, 0, OPTIONS);
    tcase_add_loop_test(t, entries_and_tails_lie_on_host_instruction_boundaries, 0, OPTIONS);
    tcase_add_loop_test(t, translate_twice_into_used_verso_gives_same_bytes, 0, OPTIONS);
    tcase_add_loop_test(t, serialized_verso_read_back_is_equal, 0, OPTIONS);
    tcase_add_test(t, serialized_verso_cut_or_extended_is_refused);
    tcase_add_test(t, unwind_records_written_are_read_back_and_found);
    tcase_add_test(t, unwind_entries_twice_or_outside_are_refused);
    tcase_add_test(t, serialized_verso_damaged_never_crashes);
    tcase_add_loop_test(t, validator_on_translated_pages_accepts, 0, OPTIONS);
    tcase_add_loop_test(t, validator_on_hostile_code_refuses, 0, (int)(sizeof hostile / sizeof hostile[0]));
    tcase_add_test(t, validator_on_harmless_code_accepts);
    tcase_add_test(t, branch_out_of_the_page_becomes_a_link_to_a_tail);
    tcase_add_test(t, pop_that_has_loaded_its_register_is_no_longer_before_the_instruction);
    tcase_add_test(t, moves_between_std_and_cld_leave_df_to_the_unwind_records);
    tcase_add_test(t, moves_behind_std_set_df_where_they_end_without_cld);
    tcase_add_test(t, falling_off_the_page_links_to_offset_4096);
    tcase_add_test(t, straddling_instruction_has_an_entry_that_is_a_link);
    tcase_add_test(t, unit_of_a_straddling_call_links_target_and_successor);
    tcase_add_test(t, unit_branching_back_into_its_page_links_instead_of_rescan);
    tcase_add_test(t, overlapping_instructions_each_fall_through_to_their_own_successor);
    tcase_add_test(t, fpu_trap_mode_emulates_every_fpu_instruction);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    SRunner *r = srunner_create(suite());
    int failed;

    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
