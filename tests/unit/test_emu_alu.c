/* tests/unit/test_emu_alu.c: the emulator's integer instructions against the host's own execution of the same
 * bytes.
 *
 * Each form is put into a host function that loads registers and flags, runs it and stores them; the emulator
 * runs it on a bare machine with the same values. All six arithmetic flags are compared, those the manual
 * leaves undefined too: the emulator lets the host compute them. Memory operands are at [esi] / [rsi].
 * Division faults are taken on the host as SIGFPE.
 */
#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "emu_box.h"

struct state {
    uint64_t gpr[8], flags; /* offsets 0..56, 64 */
};

static struct box box;
static uint8_t *host_code;
static uint64_t seed = 0x243F6A8885A308D3ull;
static sigjmp_buf trap;

static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

/* Boundary values often. */
static uint32_t value(void)
{
    static const uint32_t edge[] = {0,           1,           2,           0x7F,      0x80,
                                    0xFF,        0x7FFF,      0x8000,      0xFFFF,    0x7FFFFFFF,
                                    0x80000000u, 0xFFFFFFFFu, 0x80008000u, 0x00FF00FF};
    uint32_t r = rnd();
    return r & 3 ? rnd() : edge[r / 4 % (sizeof(edge) / sizeof(edge[0]))];
}

static void on_fpe(int n)
{
    (void)n;
    siglongjmp(trap, 1);
}

static void setup(void)
{
    box = box_new();
    host_code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    signal(SIGFPE, on_fpe);
}

static void teardown(void)
{
    munmap(host_code, 4096);
    box_free(&box);
}

/* void f(struct state *rdi): rdi is kept on the stack; esp is not loaded. */
static void build(const uint8_t *insn, unsigned len)
{
    static const uint8_t order[7] = {0, 1, 2, 3, 5, 6, 7};
    uint8_t *p = host_code;
    *p++ = 0x53;                         /* push rbx */
    *p++ = 0x55;                         /* push rbp */
    *p++ = 0x57;                         /* push rdi */
    *p++ = 0xFF, *p++ = 0x77, *p++ = 64; /* push [rdi+64] */
    *p++ = 0x9D;
    for (unsigned i = 0; i < 7; i++) { /* mov r64, [rdi+8r], rdi last */
        *p++ = 0x48, *p++ = 0x8B, *p++ = (uint8_t)(0x47 | order[i] << 3), *p++ = (uint8_t)(order[i] * 8);
    }
    memcpy(p, insn, len);
    p += len;
    *p++ = 0x9C;                                                   /* pushfq */
    *p++ = 0x57;                                                   /* push rdi */
    *p++ = 0x48, *p++ = 0x8B, *p++ = 0x7C, *p++ = 0x24, *p++ = 16; /* mov rdi, [rsp+16] */
    *p++ = 0x8F, *p++ = 0x47, *p++ = 56;                           /* pop [rdi+56] */
    *p++ = 0x8F, *p++ = 0x47, *p++ = 64;                           /* pop [rdi+64] */
    for (unsigned i = 0; i < 6; i++) {
        *p++ = 0x48, *p++ = 0x89, *p++ = (uint8_t)(0x47 | order[i] << 3), *p++ = (uint8_t)(order[i] * 8);
    }
    *p++ = 0x5F, *p++ = 0x5D, *p++ = 0x5B, *p++ = 0xC3;
}

static bool run_host(struct state *s)
{
    if (sigsetjmp(trap, 1))
        return false;
    ((void (*)(struct state *))(void *)host_code)(s);
    return true;
}

static const char *text(const uint8_t *insn, unsigned len)
{
    static char out[80];
    char name[60];
    if (!scan_disassemble(insn, len, 32, 0, name, sizeof(name)))
        strcpy(name, "?");
    snprintf(out, sizeof(out), "%s", name);
    return out;
}

static unsigned cases;

/* Runs one form n times. mem: the operand is at [esi]. mask: registers to be compared as they are (bit set).
 */
static void compare(const uint8_t *insn, unsigned len, bool mem, unsigned n)
{
    uint8_t buffer[64] __attribute__((aligned(64)));
    build(insn, len);
    box_flat(&box, 0);
    box_code(&box, insn, len);
    for (unsigned k = 0; k < n; k++, cases++) {
        struct state s;
        uint32_t before[8], flags = rnd() & CPU_ARITH;
        struct cpu *c = box.c;
        for (unsigned i = 0; i < 8; i++)
            before[i] = i == CPU_ESP ? BOX_STACK : value();
        if (rnd() & 1)
            before[CPU_ECX] = (before[CPU_ECX] & ~0xFFu) | (rnd() & 63);
        for (unsigned i = 0; i < 16; i++)
            ((uint32_t *)(void *)buffer)[i] = value();
        if (mem)
            before[CPU_ESI] = BOX_DATA;
        for (unsigned i = 0; i < 8; i++) {
            c->gpr[i] = before[i];
            s.gpr[i] = before[i];
        }
        memcpy(box.ram + BOX_DATA, buffer, sizeof(buffer));
        if (mem)
            s.gpr[CPU_ESI] = (uint64_t)(uintptr_t)buffer;
        s.flags = flags | CPU_FLAG1 | CPU_IF;
        cpu_set_eflags(c, flags);
        c->eip = BOX_CODE;
        ck_assert_int_eq(emu_step(box.vm), EMU_OK);
        if (!run_host(&s)) {
            ck_assert_msg(box_vector(&box) == CPU_EXC_DE, "%s: #DE on the host only", text(insn, len));
            for (unsigned i = 0; i < 8; i++)
                ck_assert_msg(i == CPU_ESP || c->gpr[i] == before[i], "%s: #DE changed register %u",
                              text(insn, len), i);
            c->seg[SCAN_CS].sel = BOX_SEL_CODE0;
            continue;
        }
        ck_assert_msg(c->eip == BOX_CODE + len, "%s: eip %08x", text(insn, len), c->eip);
        for (unsigned i = 0; i < 8; i++) {
            if (i == CPU_ESP || (mem && i == CPU_ESI))
                continue;
            ck_assert_msg(c->gpr[i] == (uint32_t)s.gpr[i],
                          "%s: register %u is %08x, host has %08x (before %08x, flags %03x)", text(insn, len),
                          i, c->gpr[i], (uint32_t)s.gpr[i], before[i], flags);
        }
        ck_assert_msg((cpu_eflags(c) & CPU_ARITH) == (s.flags & CPU_ARITH),
                      "%s: flags %03x, host has %03x (before %03x; a=%08x c=%08x d=%08x)", text(insn, len),
                      cpu_eflags(c) & CPU_ARITH, (unsigned)(s.flags & CPU_ARITH), flags, before[0], before[1],
                      before[2]);
        ck_assert_msg(!mem || !memcmp(buffer, box.ram + BOX_DATA, sizeof(buffer)), "%s: memory differs",
                      text(insn, len));
    }
}

/* All of: register form with random registers (never ESP), memory form at [esi]; with and without 66h. */
static void forms(bool wide, const uint8_t *opcode, unsigned opcode_len, int ext, unsigned imm8, bool immz,
                  unsigned n)
{
    for (unsigned variant = 0; variant < 24; variant++) {
        uint8_t insn[16];
        unsigned len = 0, rm, reg, opsize = variant & 1 && wide ? 2 : 4;
        bool mem = variant % 3 == 0;
        if (opsize == 2)
            insn[len++] = 0x66;
        memcpy(insn + len, opcode, opcode_len);
        len += opcode_len;
        do {
            reg = ext >= 0 ? (unsigned)ext : rnd() & 7;
            rm = rnd() & 7;
            /* ESP is not loaded on the host; AH..BH (4..7 of byte forms) are fine. ESI is the pointer of
             * memory forms. */
        } while ((wide && ((ext < 0 && reg == 4) || (!mem && rm == 4))) ||
                 (mem && ext < 0 && (wide ? reg == 6 : false)));
        insn[len++] = (uint8_t)(mem ? reg << 3 | 6 : 0xC0 | reg << 3 | rm);
        for (unsigned i = 0; i < (immz ? opsize : imm8); i++)
            insn[len++] = (uint8_t)rnd();
        if (immz && !wide)
            len -= opsize - 1;
        compare(insn, len, mem, n);
    }
}
#define FORMS(wide, ext, imm8, immz, n, ...)                                                                 \
    forms(wide, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), ext, imm8, immz, n)

START_TEST(alu_register_and_memory_as_host)
{
    for (unsigned op = 0; op < 8; op++) {
        for (unsigned form = 0; form < 4; form++)
            FORMS(form & 1, -1, 0, false, 60, (uint8_t)(op * 8 + form));
        FORMS(false, (int)op, 1, false, 60, 0x80);
        FORMS(true, (int)op, 1, false, 60, 0x83);
        FORMS(true, (int)op, 0, true, 60, 0x81);
        for (unsigned k = 0; k < 20; k++) {
            compare((const uint8_t[]){(uint8_t)(op * 8 + 4), (uint8_t)rnd()}, 2, false, 20);
            compare(
                (const uint8_t[]){(uint8_t)(op * 8 + 5), (uint8_t)rnd(), (uint8_t)rnd(), 0, (uint8_t)rnd()},
                5, false, 20);
            compare((const uint8_t[]){0x66, (uint8_t)(op * 8 + 5), (uint8_t)rnd(), (uint8_t)rnd()}, 4, false,
                    20);
        }
    }
}
END_TEST

START_TEST(unary_test_exchange_as_host)
{
    for (int w = 0; w < 2; w++) {
        FORMS(w, 0, 1, w, 60, (uint8_t)(0xF6 + w)); /* TEST imm */
        FORMS(w, 2, 0, false, 60, (uint8_t)(0xF6 + w));
        FORMS(w, 3, 0, false, 60, (uint8_t)(0xF6 + w));
        FORMS(w, 0, 0, false, 60, (uint8_t)(0xFE + w));
        FORMS(w, 1, 0, false, 60, (uint8_t)(0xFE + w));
        FORMS(w, -1, 0, false, 60, (uint8_t)(0x84 + w));
        FORMS(w, -1, 0, false, 60, (uint8_t)(0x86 + w));
        FORMS(w, -1, 0, false, 60, (uint8_t)(0x88 + w));
        FORMS(w, -1, 0, false, 60, (uint8_t)(0x8A + w));
        FORMS(w, -1, 0, false, 60, 0x0F, (uint8_t)(0xB0 + w)); /* CMPXCHG */
        FORMS(w, -1, 0, false, 60, 0x0F, (uint8_t)(0xC0 + w)); /* XADD */
    }
    for (unsigned r = 0; r < 8; r++) {
        if (r == CPU_ESP)
            continue;
        compare((const uint8_t[]){0x0F, (uint8_t)(0xC8 + r)}, 2, false, 50);
        compare((const uint8_t[]){(uint8_t)(0x90 + r)}, 1, false, 50);
        compare((const uint8_t[]){0x66, (uint8_t)(0x90 + r)}, 2, false, 50);
    }
}
END_TEST

START_TEST(shifts_and_rotates_as_host)
{
    for (int op = 0; op < 8; op++)
        for (int w = 0; w < 2; w++) {
            FORMS(w, op, 1, false, 50, (uint8_t)(0xC0 + w));
            FORMS(w, op, 0, false, 50, (uint8_t)(0xD0 + w));
            FORMS(w, op, 0, false, 50, (uint8_t)(0xD2 + w));
        }
    static const uint8_t shd[4] = {0xA4, 0xA5, 0xAC, 0xAD};
    for (unsigned i = 0; i < 4; i++)
        FORMS(true, -1, i & 1 ? 0 : 1, false, 100, 0x0F, shd[i]);
}
END_TEST

START_TEST(multiply_and_divide_as_host)
{
    for (int op = 4; op < 8; op++)
        for (int w = 0; w < 2; w++)
            FORMS(w, op, 0, false, 200, (uint8_t)(0xF6 + w));
    FORMS(true, -1, 0, false, 100, 0x0F, 0xAF);
    FORMS(true, -1, 1, false, 100, 0x6B);
    FORMS(true, -1, 0, true, 100, 0x69);
}
END_TEST

START_TEST(small_dividends_divide_as_host)
{
    /* Quotients that just fit and just do not. */
    for (unsigned k = 0; k < 4000; k++) {
        struct state s = {.flags = CPU_FLAG1 | CPU_IF};
        uint32_t edx = rnd() & 3, eax = value(), ecx = value() & (rnd() & 1 ? 7 : 0xFFFFFFFFu);
        uint8_t insn[2] = {0xF7, (uint8_t)(rnd() & 1 ? 0xF1 : 0xF9)};
        if (rnd() & 1)
            edx = 0u - edx;
        build(insn, 2);
        box_flat(&box, 0);
        box_code(&box, insn, 2);
        box.c->gpr[CPU_EAX] = eax, box.c->gpr[CPU_EDX] = edx, box.c->gpr[CPU_ECX] = ecx;
        s.gpr[CPU_EAX] = eax, s.gpr[CPU_EDX] = edx, s.gpr[CPU_ECX] = ecx;
        emu_step(box.vm);
        if (!run_host(&s)) {
            ck_assert_int_eq(box_vector(&box), CPU_EXC_DE);
            continue;
        }
        ck_assert_int_eq(box_vector(&box), -1);
        ck_assert_uint_eq(box.c->gpr[CPU_EAX], (uint32_t)s.gpr[CPU_EAX]);
        ck_assert_uint_eq(box.c->gpr[CPU_EDX], (uint32_t)s.gpr[CPU_EDX]);
    }
}
END_TEST

START_TEST(bits_moves_conditions_as_host)
{
    static const uint8_t bit[4] = {0xA3, 0xAB, 0xB3, 0xBB};
    for (int op = 4; op < 8; op++)
        FORMS(true, op, 1, false, 60, 0x0F, 0xBA);
    for (unsigned i = 0; i < 4; i++) /* register destinations: memory ones reach beyond the buffer */
        for (unsigned k = 0; k < 20; k++) {
            unsigned reg = rnd() & 3, rm = rnd() & 3;
            compare((const uint8_t[]){0x0F, bit[i], (uint8_t)(0xC0 | reg << 3 | rm)}, 3, false, 60);
            compare((const uint8_t[]){0x66, 0x0F, bit[i], (uint8_t)(0xC0 | reg << 3 | rm)}, 4, false, 60);
        }
    FORMS(true, -1, 0, false, 100, 0x0F, 0xBC);
    FORMS(true, -1, 0, false, 100, 0x0F, 0xBD);
    static const uint8_t extend[4] = {0xB6, 0xB7, 0xBE, 0xBF};
    for (unsigned i = 0; i < 4; i++)
        FORMS(true, -1, 0, false, 60, 0x0F, extend[i]);
    for (unsigned cc = 0; cc < 16; cc++) {
        FORMS(false, 0, 0, false, 20, 0x0F, (uint8_t)(0x90 + cc));
        FORMS(true, -1, 0, false, 20, 0x0F, (uint8_t)(0x40 + cc));
    }
    static const uint8_t plain[] = {0x98, 0x99, 0x9E, 0x9F, 0xF5, 0xF8, 0xF9};
    for (unsigned i = 0; i < sizeof(plain); i++) {
        compare(&plain[i], 1, false, 200);
        compare((const uint8_t[]){0x66, plain[i]}, 2, false, 200);
    }
}
END_TEST

/* -- Not in 64-bit mode: by hand (SDM vol. 2) -------------------------------------------------------- */

static uint32_t bcd(uint8_t op, uint32_t ax, uint32_t flags, uint32_t *out)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, op);
    box.c->gpr[CPU_EAX] = ax;
    cpu_set_eflags(box.c, flags);
    emu_step(box.vm);
    *out = cpu_eflags(box.c) & (CPU_CF | CPU_AF);
    return box.c->gpr[CPU_EAX] & 0xFFFF;
}

START_TEST(daa_das_every_input_as_defined)
{
    for (unsigned al = 0; al < 256; al++)
        for (unsigned f = 0; f < 4; f++) {
            bool cf = f & 1, af = f & 2, low = (al & 15) > 9 || af, high = al > 0x99 || cf;
            uint32_t flags, got = bcd(0x27, al, (cf ? CPU_CF : 0) | (af ? CPU_AF : 0), &flags);
            unsigned want = (al + (low ? 6 : 0) + (high ? 0x60 : 0)) & 0xFF;
            ck_assert_uint_eq(got, want);
            ck_assert_uint_eq(flags, (high ? CPU_CF : 0u) | (low ? CPU_AF : 0u));
            got = bcd(0x2F, al, (cf ? CPU_CF : 0) | (af ? CPU_AF : 0), &flags);
            want = (al - (low ? 6 : 0) - (high ? 0x60 : 0)) & 0xFF;
            ck_assert_uint_eq(got, want);
            ck_assert_uint_eq(flags, (high || (low && al < 6) ? CPU_CF : 0u) | (low ? CPU_AF : 0u));
        }
}
END_TEST

START_TEST(aaa_aas_adjust_both_halves)
{
    uint32_t f;
    ck_assert_uint_eq(bcd(0x37, 0x000B, 0, &f), 0x0101);
    ck_assert_uint_eq(f, CPU_CF | CPU_AF);
    ck_assert_uint_eq(bcd(0x37, 0x0035, 0, &f), 0x0005);
    ck_assert_uint_eq(f, 0);
    ck_assert_uint_eq(bcd(0x37, 0x00FA, 0, &f), 0x0200); /* the carry out of AL counts */
    ck_assert_uint_eq(bcd(0x3F, 0x020B, 0, &f), 0x0105);
    ck_assert_uint_eq(bcd(0x3F, 0x0203, CPU_AF, &f), 0x000D); /* AX - 106h, AL and 0Fh */
}
END_TEST

START_TEST(aam_aad_by_ten_and_others)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xD4, 10, 0xD5, 10, 0xD4, 0);
    box.c->gpr[CPU_EAX] = 0xFFFF0047;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EAX], 0xFFFF0701);
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EAX], 0xFFFF0047);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DE);
}
END_TEST

START_TEST(bit_string_offsets_reach_beyond_operand)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0xAB, 0x0E, 0x66, 0x0F, 0xAB, 0x0E); /* bts [esi], ecx; bts [esi], cx */
    box.c->gpr[CPU_ESI] = BOX_DATA;
    box.c->gpr[CPU_ECX] = (uint32_t)-33;
    emu_step(box.vm);
    ck_assert_uint_eq(box_get(&box, BOX_DATA - 8, 4), 1u << 31);
    box.c->gpr[CPU_ECX] = 0x12340000 | 37;
    emu_step(box.vm);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 4, 2), 1u << 5);
}
END_TEST

START_TEST(enter_nested_copies_frame_pointers)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xC8, 0x10, 0x00, 0x03, 0xC9);
    box.c->gpr[CPU_EBP] = BOX_DATA;
    box_set(&box, BOX_DATA - 4, 4, 0x11111111);
    box_set(&box, BOX_DATA - 8, 4, 0x22222222);
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EBP], BOX_STACK - 4);
    ck_assert_uint_eq(box.c->gpr[CPU_ESP], BOX_STACK - 16 - 16);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 4, 4), BOX_DATA);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 8, 4), 0x11111111);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 12, 4), 0x22222222);
    ck_assert_uint_eq(box_get(&box, BOX_STACK - 16, 4), BOX_STACK - 4);
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_EBP], BOX_DATA);
    ck_assert_uint_eq(box.c->gpr[CPU_ESP], BOX_STACK);
}
END_TEST

START_TEST(movbe_cmpxchg8b_bound_salc)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x38, 0xF0, 0x06,       /* movbe eax, [esi] */
                   0x66, 0x0F, 0x38, 0xF1, 0x46, 0x04, /* movbe [esi+4], ax */
                   0x0F, 0xC7, 0x4E, 0x08,             /* cmpxchg8b [esi+8] */
                   0x0F, 0xC7, 0x4E, 0x08, 0xF9, 0xD6, /* again; stc; salc */
                   0x62, 0x46, 0x10);                  /* bound eax, [esi+16] */
    struct cpu *c = box.c;
    c->gpr[CPU_ESI] = BOX_DATA;
    box_set(&box, BOX_DATA, 4, 0x12345678);
    box_set(&box, BOX_DATA + 8, 4, 7);
    box_set(&box, BOX_DATA + 12, 4, 9);
    c->gpr[CPU_EBX] = 0xAAAA;
    c->gpr[CPU_ECX] = 0xBBBB;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0x78563412);
    emu_step(box.vm);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 4, 2), 0x1234);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 7);
    ck_assert_uint_eq(c->gpr[CPU_EDX], 9);
    ck_assert(!(c->arith & CPU_ZF));
    emu_step(box.vm);
    ck_assert(c->arith & CPU_ZF);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 8, 4), 0xAAAA);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 12, 4), 0xBBBB);
    emu_step(box.vm);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX] & 0xFF, 0xFF);
    box_set(&box, BOX_DATA + 16, 4, 0);
    box_set(&box, BOX_DATA + 20, 4, 5);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_BR);
}
END_TEST

START_TEST(loop_jcxz_count_by_address_size)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x67, 0xE2, 0x10); /* loop with CX */
    box.c->gpr[CPU_ECX] = 0x00010000;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->gpr[CPU_ECX], 0x0001FFFF);
    ck_assert_uint_eq(box.c->eip, BOX_CODE + 3 + 0x10);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xE0, 0x10); /* loopne */
    box.c->gpr[CPU_ECX] = 5;
    box.c->arith = CPU_ZF;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->eip, BOX_CODE + 2);
    ck_assert_uint_eq(box.c->gpr[CPU_ECX], 4);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x67, 0xE3, 0xF0); /* jcxz */
    box.c->gpr[CPU_ECX] = 0x00010000;
    emu_step(box.vm);
    ck_assert_uint_eq(box.c->eip, BOX_CODE + 3 - 0x10);
}
END_TEST

START_TEST(enough_cases_were_compared)
{
    ck_assert_uint_gt(cases, 100000);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("emu_alu");
    TCase *t = tcase_create("alu");
    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 100);
    tcase_add_test(t, alu_register_and_memory_as_host);
    tcase_add_test(t, unary_test_exchange_as_host);
    tcase_add_test(t, shifts_and_rotates_as_host);
    tcase_add_test(t, multiply_and_divide_as_host);
    tcase_add_test(t, small_dividends_divide_as_host);
    tcase_add_test(t, bits_moves_conditions_as_host);
    tcase_add_test(t, daa_das_every_input_as_defined);
    tcase_add_test(t, aaa_aas_adjust_both_halves);
    tcase_add_test(t, aam_aad_by_ten_and_others);
    tcase_add_test(t, bit_string_offsets_reach_beyond_operand);
    tcase_add_test(t, enter_nested_copies_frame_pointers);
    tcase_add_test(t, movbe_cmpxchg8b_bound_salc);
    tcase_add_test(t, loop_jcxz_count_by_address_size);
    tcase_add_test(t, enough_cases_were_compared);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK); /* the cases are counted across tests */
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
