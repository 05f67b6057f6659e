/* tests/fuzz/gen.c: see gen.h.
 *
 * The guest has working descriptor tables, page tables, a handler that survives most of what chunks do
 * (guest.S), and up to LAY_CHUNKS chunks of code that are entered one after the other, each with registers,
 * flags, segments and privilege of its own. Some of the state is then spoiled.
 */
#include "gen.h"
#include "layout.h"

#include <string.h>

#include "scanner/scan.h"

extern const uint8_t fuzz_guest[], fuzz_guest_end[], fuzz_guest_df[], fuzz_guest_go[];

#define CHUNK_BYTES 192u

struct gen {
    const struct fuzz_case *f;
    uint8_t *ram;
    uint64_t ram_bytes;
    struct cpu *c;
    FILE *list;
    uint64_t state; /* of the piece being made */
    unsigned piece;
    bool paging, pae, pse;
    bool aliases; /* pages are mapped several times; without, an INVLPG is the last word about its page */
    /* Code being written */
    uint8_t *code;
    unsigned n, cap;
    uint32_t eip; /* of code[0] */
    bool user, bits16;
};

/* -- Random numbers ---------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

static uint32_t rnd(struct gen *g)
{
    g->state += 0x9E3779B97F4A7C15ull;
    return (uint32_t)(mix(g->state) >> 16);
}

static uint32_t below(struct gen *g, uint32_t n)
{
    return (uint32_t)((uint64_t)rnd(g) * n >> 32);
}

static bool chance(struct gen *g, uint32_t percent)
{
    return below(g, 100) < percent;
}

#define PICK(g, ...)                                                                                         \
    (((const uint32_t[]){__VA_ARGS__})[below((g), sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))])

/* Begins a piece: numbers from its own source. False: it is to be left out. */
static bool piece(struct gen *g, const char *what)
{
    unsigned p = g->piece++;
    g->state = mix(g->f->seed * 0x2545F4914F6CDD1Dull + p) ^ p;
    bool keep = !fuzz_is_dropped(g->f, p);
    if (g->list && keep && g->code)
        fprintf(g->list, "%4u %-10s %08x\n", p, what, g->eip + g->n);
    else if (g->list && keep)
        fprintf(g->list, "%4u %s\n", p, what);
    return keep;
}

static uint32_t selector(struct gen *g)
{
    return (below(g, LAY_GDT_COUNT + 4) << 3) | (rnd(g) & 7);
}

static uint32_t near_address(struct gen *g)
{
    static const uint32_t base[] = {LAY_DATA,   LAY_DATA + 0xFFE, LAY_STACK,  LAY_CODE,    LAY_CODE + 0xFFF,
                                    LAY_GDT,    LAY_IDT,          LAY_TSS,    LAY_PT,      LAY_PD,
                                    LAY_PAE_PD, LAY_PAE_PT,       LAY_FRAMES, LAY_HANDLER, LAY_FREE,
                                    LAY_WILD,   LAY_SMALL,        0xA0000,    0xBFFFE,     0xC0000,
                                    0xF0000,    0x100000,         0xFEE00000, 0xFEC00000,  0xFFFFFFFC,
                                    0,          0xFFFFF000,       0x7FFFFFFE, 0x80000000,  0x00800000,
                                    0x00C00000, 0x01000000,       0x01400000, 0xFFFC0000};
    uint32_t a = base[below(g, sizeof(base) / sizeof(base[0]))];
    a += chance(g, 70) ? rnd(g) & 0x3F : rnd(g) & 0xFFF;
    if (g->aliases && a < 0x400000 && chance(g, 30))
        a += chance(g, 50) ? LAY_ALIAS_1 : LAY_ALIAS_2;
    return a - (chance(g, 20) ? 8 : 0);
}

static uint32_t data_address(struct gen *g)
{
    uint32_t a = LAY_DATA + (chance(g, 80) ? rnd(g) % 0x1FE0 : 0xFF0 + (rnd(g) & 15));
    bool alias = g->paging && g->aliases;
    return a + PICK(g, 0, 0, 0, alias ? LAY_ALIAS_1 : 0, alias ? LAY_ALIAS_2 : 0);
}

static uint32_t value(struct gen *g)
{
    switch (below(g, 8)) {
    case 0:
        return near_address(g);
    case 1:
        return selector(g);
    case 2:
        return PICK(g, 0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFF, 0x80, 0xFFFF, 0x8000, 31, 32, 33);
    case 3:
        return rnd(g) & 0xFF;
    case 4:
        return rnd(g);
    default:
        return data_address(g);
    }
}

/* -- Writing RAM ------------------------------------------------------------------------------------- */

static void put(struct gen *g, uint64_t at, unsigned size, uint64_t v)
{
    if (at + size <= g->ram_bytes)
        memcpy(g->ram + at, &v, size);
}

static void descriptor(struct gen *g, unsigned sel, uint32_t base, uint32_t limit, unsigned attr)
{
    uint32_t at = (sel & 4 ? LAY_LDT : LAY_GDT) + (sel & ~7u);
    if (attr & 0x8000)
        limit >>= 12;
    put(g, at, 4, (limit & 0xFFFF) | base << 16);
    put(g, at + 4, 4, (base >> 16 & 0xFF) | (attr & 0xF0FF) << 8 | (limit & 0xF0000) | (base & 0xFF000000u));
}

static void gate(struct gen *g, uint32_t at, uint32_t sel, uint32_t off, uint32_t attr)
{
    put(g, at, 4, (sel & 0xFFFF) << 16 | (off & 0xFFFF));
    put(g, at + 4, 4, (off & 0xFFFF0000u) | (attr & 0xFF) << 8 | (attr >> 8 & 0x1F));
}

static void tss32(struct gen *g, uint32_t at, uint32_t eip, uint32_t esp)
{
    put(g, at + 4, 4, LAY_KSTACK);
    put(g, at + 8, 4, SEL_DATA0);
    put(g, at + 0x1C, 4, g->c->cr3);
    put(g, at + 0x20, 4, eip);
    put(g, at + 0x24, 4, 2);
    put(g, at + 0x38, 4, esp);
    for (unsigned s = 0; s < 6; s++)
        put(g, at + 0x48 + 4 * s, 4, s == 1 ? SEL_CODE0 : SEL_DATA0);
}

#define HANDLER(symbol) (LAY_HANDLER + (uint32_t)((symbol)-fuzz_guest))

static void working_tables(struct gen *g)
{
    memcpy(g->ram + LAY_HANDLER, fuzz_guest, (size_t)(fuzz_guest_end - fuzz_guest));
    bool df_task = mix(g->f->seed ^ 0xDF) % 4 != 0;
    for (unsigned v = 0; v < 256; v++) {
        /* INT n is open to CPL 3 for every other vector above the exceptions, and for the usual three. */
        bool open = v == 3 || v == 4 || v == 5 || (v >= 32 && (v & 1));
        gate(g, LAY_IDT + 8 * v, SEL_CODE0, LAY_HANDLER + 16 * (v < 32 ? v : 32),
             (v & 2 ? 0x8F : 0x8E) | (open ? 0x60 : 0));
    }
    if (df_task)
        gate(g, LAY_IDT + 8 * 8, SEL_TSS_DF, 0, 0x85);
    descriptor(g, SEL_CODE0, 0, 0xFFFFFFFFu, 0xC09B);
    descriptor(g, SEL_DATA0, 0, 0xFFFFFFFFu, 0xC093);
    descriptor(g, SEL_CODE3, 0, 0xFFFFFFFFu, 0xC0FB);
    descriptor(g, SEL_DATA3, 0, 0xFFFFFFFFu, 0xC0F3);
    descriptor(g, SEL_TSS, LAY_TSS, 0x0AF, 0x008B);
    descriptor(g, SEL_LDT, LAY_LDT, 0x07F, 0x0082);
    descriptor(g, SEL_TSS_DF, LAY_TSS_DF, 0x067, 0x0089);
    descriptor(g, SEL_CONFORMING, 0, 0xFFFFFFFFu, 0xC09F);
    descriptor(g, SEL_CODE16, 0, 0xFFFF, 0x009B);
    descriptor(g, SEL_DATA16, 0, 0xFFFF, 0x0093);
    descriptor(g, SEL_SMALL, LAY_DATA, 0x0FF, 0x40F3);
    descriptor(g, SEL_DOWN, 0, LAY_DATA + 0x7FF, 0x40F7);
    descriptor(g, SEL_ABSENT, 0, 0xFFFFFFFFu, 0xC073);
    descriptor(g, SEL_TSS2, LAY_TSS2, 0x067, 0x0089);
    descriptor(g, SEL_TSS16, LAY_TSS16, 0x02B, 0x0081);
    descriptor(g, SEL_CODE1, 0, 0xFFFFFFFFu, 0xC0BB);
    descriptor(g, SEL_DATA1, 0, 0xFFFFFFFFu, 0xC0B3);
    descriptor(g, SEL_BASED, LAY_DATA, 0xFFFFFFFFu, 0xC0F3);
    descriptor(g, SEL_READONLY, 0, 0xFFFFFFFFu, 0xC0F1);
    tss32(g, LAY_TSS, 0, 0);
    put(g, LAY_TSS + 0x66, 2, 0x68);
    tss32(g, LAY_TSS_DF, HANDLER(fuzz_guest_df), LAY_KSTACK - 0x800);
    tss32(g, LAY_TSS2, HANDLER(fuzz_guest_go), LAY_KSTACK - 0x400);
    put(g, LAY_VAR_NEXT, 4, LAY_FRAMES);
    put(g, LAY_VAR_LOG, 4, LAY_LOG);
}

/* -- Paging ------------------------------------------------------------------------------------------ */

/* The kernel's own pages are the supervisor's; what chunks use is open to all. */
static uint64_t entry_of(uint32_t page)
{
    bool open =
        page >= LAY_CODE && page != LAY_PD && page != LAY_PT && !(page >= LAY_PDPT && page < LAY_WILD);
    return page | (open ? 7 : 3);
}

static void page_tables(struct gen *g)
{
    uint32_t pages = g->pae ? 512 : 1024;
    for (uint32_t i = 0; i < 1024; i++) {
        uint32_t lin = i * 4096;
        if (!g->pae)
            put(g, LAY_PT + i * 4, 4, entry_of(lin));
        else
            put(g, LAY_PAE_PT + i / pages * 4096u + i % pages * 8, 8, entry_of(lin));
    }
    if (!g->pae) {
        put(g, LAY_PD, 4, LAY_PT | 7);
        put(g, LAY_PD + 4 * (LAY_ALIAS_1 >> 22), 4, g->aliases ? LAY_PT | 7 : 0);
        put(g, LAY_PD + 4 * (LAY_ALIAS_2 >> 22), 4, g->aliases ? LAY_PT | 7 : 0);
        put(g, LAY_PD + 4 * 2, 4, LAY_WILD | 7);
        put(g, LAY_PD + 4 * 3, 4, 0x87);           /* 4 MiB page, if PSE */
        put(g, LAY_PD + 4 * 4, 4, 0x40000000 | 7); /* a table outside RAM */
        put(g, LAY_PD + 4 * 5, 4, 0xFEC00000 | 7); /* a table that is MMIO */
        put(g, LAY_PD + 4 * 0x3FB, 4, LAY_WILD | 7);
        put(g, LAY_PD + 4 * 0x3FF, 4, LAY_PD | 3); /* itself */
        return;
    }
    for (uint32_t i = 0; i < (g->aliases ? 4 : 1); i++)
        put(g, LAY_PDPT + 8 * i, 8, LAY_PAE_PD | 1); /* one directory four times */
    put(g, LAY_PAE_PD, 8, LAY_PAE_PT | 7);
    put(g, LAY_PAE_PD + 8, 8, (LAY_PAE_PT + 4096) | 7);
    if (g->aliases) { /* LAY_ALIAS_1 */
        put(g, LAY_PAE_PD + 8 * 2, 8, LAY_PAE_PT | 7);
        put(g, LAY_PAE_PD + 8 * 3, 8, (LAY_PAE_PT + 4096) | 7);
    }
    put(g, LAY_PAE_PD + 8 * 4, 8, LAY_WILD | 7);
    put(g, LAY_PAE_PD + 8 * 6, 8, 0x87);
    put(g, LAY_PAE_PD + 8 * 8, 8, 0x40000000 | 7);
    put(g, LAY_PAE_PD + 8 * 10, 8, 0xFEC00000 | 7);
    put(g, LAY_PAE_PD + 8 * 0x1F6, 8, LAY_WILD | 7);
    put(g, LAY_PAE_PD + 8 * 0x1FF, 8, LAY_PAE_PD | 3);
}

/* A paging entry, right or wrong. */
static uint64_t wild_entry(struct gen *g)
{
    uint64_t frame = PICK(g, LAY_DATA, LAY_DATA + 0x1000, LAY_CODE, LAY_CODE + 0x1000, LAY_PT, LAY_PD,
                          LAY_PAE_PT, LAY_PAE_PD, LAY_WILD, LAY_FREE, 0, 0xA0000, 0xF0000, 0x100000,
                          0xFEE00000, 0xFEC00000, 0x40000000, 0xFFFFF000);
    uint64_t v = frame | (rnd(g) & (chance(g, 80) ? 0x67u : 0xFFFu)) | (chance(g, 80) ? 1 : 0);
    if (g->pae && chance(g, 20))
        v |= (uint64_t)(chance(g, 70) ? 0x80000000u : rnd(g)) << 32;
    return chance(g, 5) ? (uint64_t)rnd(g) << 32 | rnd(g) : v;
}

static void spoil_paging(struct gen *g)
{
    unsigned size = g->pae ? 8 : 4;
    if (piece(g, "wild table"))
        for (unsigned i = 0; i < 24; i++)
            put(g, LAY_WILD + (chance(g, 50) ? i : below(g, 4096 / size)) * size, size, wild_entry(g));
    for (unsigned i = 0; i < 3; i++)
        if (piece(g, "spoil a page-table entry") && chance(g, 60)) {
            uint32_t table = g->pae ? LAY_PAE_PT : LAY_PT;
            put(g, table + below(g, chance(g, 70) ? 32 : 512) * size, size, wild_entry(g));
        }
    if (piece(g, "spoil a directory entry") && chance(g, 30))
        put(g, (g->pae ? LAY_PAE_PD : LAY_PD) + below(g, 4096 / size) * size, size, wild_entry(g));
    if (piece(g, "spoil a PDPTE") && chance(g, 10) && g->pae)
        put(g, LAY_PDPT + 8 * below(g, 4), 8, wild_entry(g));
}

static void start_paging(struct gen *g)
{
    struct cpu *c = g->c;
    page_tables(g);
    spoil_paging(g);
    c->cr3 = g->pae ? LAY_PDPT : LAY_PD;
    c->cr4 |= (g->pae ? CPU_CR4_PAE : 0) | (g->pse ? CPU_CR4_PSE : 0);
    c->cr0 |= CPU_CR0_PG;
    for (unsigned i = 0; i < 4 && g->pae; i++) {
        memcpy(&c->pdpte[i], g->ram + LAY_PDPT + 8 * i, 8);
        c->pdpte[i] &= 0xFFFFFF019ull; /* reserved bits cannot be there */
    }
    if (piece(g, "WP") && chance(g, 60))
        c->cr0 |= CPU_CR0_WP;
    if (piece(g, "PGE, NXE")) {
        c->cr4 |= chance(g, 50) ? CPU_CR4_PGE : 0;
        c->efer |= chance(g, 60) ? CPU_EFER_NXE : 0;
    }
}

/* -- Code: building blocks --------------------------------------------------------------------------- */

static void b(struct gen *g, uint32_t byte)
{
    if (g->n < g->cap)
        g->code[g->n++] = (uint8_t)byte;
}

static void w(struct gen *g, uint32_t v)
{
    b(g, v);
    b(g, v >> 8);
}

static void d(struct gen *g, uint32_t v)
{
    w(g, v);
    w(g, v >> 16);
}

/* An immediate of the operand size of the code. */
static void z(struct gen *g, uint32_t v)
{
    if (g->bits16)
        w(g, v);
    else
        d(g, v);
}

static void mov_reg(struct gen *g, unsigned reg, uint32_t v)
{
    b(g, 0xB8 + reg);
    z(g, v);
}

/* MOV dword [address], value. */
static void mov_mem(struct gen *g, uint32_t address, uint32_t v)
{
    if (g->bits16)
        w(g, 0x6667);
    b(g, 0xC7);
    b(g, 0x05);
    d(g, address);
    d(g, v);
}

/* ModRM with a memory or register operand, and what follows it. */
static void modrm(struct gen *g, unsigned reg, bool memory)
{
    if (!memory && chance(g, 50)) {
        b(g, 0xC0 | reg << 3 | below(g, 8));
        return;
    }
    if (g->bits16) {
        b(g, reg << 3 | 6 | below(g, 2) << 7);
        w(g, value(g));
        return;
    }
    switch (below(g, 6)) {
    case 0: /* [disp32] */
    case 1:
        b(g, reg << 3 | 5);
        d(g, value(g));
        break;
    case 2: /* [reg + disp8] */
        b(g, 0x40 | reg << 3 | PICK(g, 0, 1, 2, 3, 5, 6, 7));
        b(g, rnd(g));
        break;
    case 3: /* [reg + disp32] */
        b(g, 0x80 | reg << 3 | PICK(g, 0, 1, 2, 3, 5, 6, 7));
        d(g, chance(g, 50) ? rnd(g) : (uint32_t)(int8_t)rnd(g) * 64);
        break;
    case 4: /* SIB */
        b(g, below(g, 3) << 6 | reg << 3 | 4);
        b(g, rnd(g));
        d(g, value(g)); /* if it is not a displacement it is something else */
        break;
    default:
        b(g, reg << 3 | PICK(g, 0, 1, 2, 3, 6, 7));
        break;
    }
}

/* -- Code: pieces ------------------------------------------------------------------------------------ */

static void p_noise(struct gen *g)
{
    for (unsigned i = 3 + below(g, 12); i; i--)
        b(g, rnd(g));
}

static void p_text(struct gen *g)
{
    unsigned len = 6 + below(g, 26);
    if (g->f->text_len < 64) {
        p_noise(g);
        return;
    }
    const uint8_t *from = g->f->text + below(g, (uint32_t)(g->f->text_len - 48));
    unsigned hurt = chance(g, 50) ? below(g, len) : len;
    for (unsigned i = 0; i < len; i++)
        b(g, i == hurt ? rnd(g) : from[i]);
}

static void p_alu(struct gen *g)
{
    for (unsigned i = 1 + below(g, 3); i; i--) {
        if (chance(g, 15))
            b(g, 0x66);
        switch (below(g, 8)) {
        case 0: /* op r/m, r and r, r/m, all sizes */
        case 1:
            b(g, below(g, 8) << 3 | below(g, 4));
            modrm(g, below(g, 8), false);
            break;
        case 2:
            b(g, 0x88 + below(g, 4));
            modrm(g, below(g, 8), true);
            break;
        case 3: /* shifts */
            b(g, PICK(g, 0xC0, 0xC1));
            modrm(g, below(g, 8), false);
            b(g, rnd(g));
            break;
        case 4: /* TEST, NOT, NEG, MUL, DIV; INC, DEC, PUSH */
            b(g, PICK(g, 0xF6, 0xF7, 0xF7, 0xFE, 0xFF));
            modrm(g, PICK(g, 0, 1, 2, 3, 4, 5, 6, 7), false);
            if (chance(g, 30))
                d(g, value(g));
            break;
        case 5:
            b(g, 0x0F);
            b(g, PICK(g, 0xA3, 0xAB, 0xB3, 0xBB, 0xA5, 0xAD, 0xAF, 0xB0, 0xB1, 0xB6, 0xB7, 0xBC, 0xBD, 0xBE,
                      0xBF, 0xC0, 0xC1, 0xC7, 0x44, 0x95));
            modrm(g, below(g, 8), false);
            break;
        case 6:
            b(g, PICK(g, 0x27, 0x2F, 0x37, 0x3F, 0x98, 0x99, 0x9E, 0x9F, 0xF5, 0xF8, 0xF9, 0x40, 0x4C, 0x90,
                      0x93, 0xD7));
            break;
        default:
            b(g, PICK(g, 0x62, 0x63, 0x69, 0x6B, 0x81, 0x83, 0x84, 0x86, 0x87, 0x8D, 0x8F, 0xC4, 0xC5, 0xC6,
                      0xC7));
            modrm(g, below(g, 8), false);
            if (chance(g, 60))
                d(g, value(g));
            break;
        }
    }
}

static void p_stack(struct gen *g)
{
    switch (below(g, 7)) {
    case 0:
        mov_reg(g, CPU_ESP, near_address(g));
        b(g, 0x50 + below(g, 8));
        break;
    case 1:
        b(g, 0xC8);
        w(g, below(g, 3) ? rnd(g) & 0xFF : rnd(g));
        b(g, rnd(g));
        break;
    case 2:
        b(g, PICK(g, 0x60, 0x61, 0xC9, 0x60));
        break;
    case 3:
        b(g, 0x68);
        z(g, value(g));
        b(g, PICK(g, 0x58, 0x5C, 0x9D, 0x07, 0x1F, 0x17, 0xC3));
        break;
    case 4:
        b(g, 0x8F);
        modrm(g, 0, true);
        break;
    case 5:
        b(g, 0x50 + below(g, 16));
        break;
    default:
        b(g, PICK(g, 0x06, 0x0E, 0x16, 0x1E, 0x9C));
        b(g, 0x58 + below(g, 8));
        break;
    }
}

static void p_flags(struct gen *g)
{
    if (chance(g, 40)) {
        b(g, PICK(g, 0xFA, 0xFB, 0xFC, 0xFD, 0xF4, 0xF1, 0xCE, 0xCC, 0xFB));
        return;
    }
    b(g, 0x68);
    z(g, chance(g, 70)
             ? (rnd(g) & 0x247FD7) | 2
             : PICK(g, CPU_TF | 2, CPU_NT | 2, CPU_RF | 2, CPU_AC | 2, CPU_IF | 2, CPU_IOPL | 2, CPU_VM | 2));
    b(g, 0x9D);
}

static void p_control(struct gen *g)
{
    static const uint32_t cr0[] = {CPU_CR0_PE | CPU_CR0_ET,
                                   CPU_CR0_PE | CPU_CR0_PG,
                                   CPU_CR0_PE | CPU_CR0_PG | CPU_CR0_WP,
                                   CPU_CR0_PE | CPU_CR0_TS,
                                   CPU_CR0_PE | CPU_CR0_EM | CPU_CR0_NE,
                                   CPU_CR0_PE | CPU_CR0_AM,
                                   CPU_CR0_PG,
                                   CPU_CR0_ET,
                                   CPU_CR0_PE | CPU_CR0_CD | CPU_CR0_NW};
    static const uint32_t cr3[] = {LAY_PD,        LAY_PDPT, LAY_WILD,   LAY_PDPT | 0x20,
                                   LAY_CODE,      0xA0000,  0xFFFFF000, 0xFEE00000,
                                   LAY_PD | 0x18, 0,        LAY_PT,     LAY_PAE_PD};
    unsigned which = PICK(g, 0, 0, 3, 3, 3, 4, 4, 2, 8, 5), reg = below(g, 8);
    uint32_t v;
    if (chance(g, 40)) { /* change some bits of what is there */
        b(g, 0x0F);
        b(g, 0x20);
        b(g, 0xC0 | (which & 7) << 3);
        b(g, PICK(g, 0x0D, 0x25, 0x35));
        z(g, chance(g, 70) ? 1u << below(g, 32) : ~(1u << below(g, 32)));
        b(g, 0x0F);
        b(g, 0x22);
        b(g, 0xC0 | (which & 7) << 3);
        return;
    }
    switch (which) {
    case 0:
        v = cr0[below(g, sizeof(cr0) / sizeof(cr0[0]))] | (chance(g, 60) && g->paging ? CPU_CR0_PG : 0);
        break;
    case 3:
        v = chance(g, 60) ? g->c->cr3 : cr3[below(g, sizeof(cr3) / sizeof(cr3[0]))];
        break;
    case 4:
        v = (rnd(g) & 0x6F1) | (g->c->cr4 & (CPU_CR4_PAE | CPU_CR4_PSE));
        break;
    default:
        v = value(g);
        break;
    }
    mov_reg(g, reg, chance(g, 8) ? rnd(g) : v);
    b(g, 0x0F);
    b(g, 0x22);
    b(g, 0xC0 | (which & 7) << 3 | reg);
}

static void p_debug(struct gen *g)
{
    unsigned n = below(g, 8);
    mov_reg(g, CPU_EAX, n >= 6 ? (rnd(g) & (chance(g, 50) ? 0xFFFF27FF : 0x000F0003)) : near_address(g));
    b(g, 0x0F);
    b(g, PICK(g, 0x23, 0x23, 0x23, 0x21));
    b(g, 0xC0 | n << 3);
}

static void p_msr(struct gen *g)
{
    mov_reg(g, CPU_ECX,
            PICK(g, 0x10, 0x17, 0x1B, 0x3A, 0x3B, 0x8B, 0xFE, 0x174, 0x175, 0x176, 0x1A0, 0x1D9, 0x200, 0x20F,
                 0x250, 0x277, 0x2FF, 0x400, 0xC0000080, 0xC0000081, 0xC0000102, 0x1234, 0x79, 0x800, 0x80B,
                 0x830));
    mov_reg(g, CPU_EAX, chance(g, 50) ? near_address(g) : value(g));
    mov_reg(g, CPU_EDX, chance(g, 80) ? 0 : rnd(g));
    b(g, 0x0F);
    b(g, PICK(g, 0x30, 0x30, 0x32, 0x33, 0x31));
}

static void p_descriptor_tables(struct gen *g)
{
    uint32_t at = data_address(g);
    switch (below(g, 5)) {
    case 0: /* LGDT, LIDT, SGDT, ... with a table that mostly works */
    case 1: {
        bool idt = chance(g, 50);
        mov_mem(g, at, (idt ? LAY_IDT : LAY_GDT) << 16 | (chance(g, 60) ? 0x7FF : rnd(g) & 0xFFFF));
        if (chance(g, 40))
            mov_mem(g, at + 2, near_address(g));
        else
            mov_mem(g, at + 4, 0);
        b(g, 0x0F);
        b(g, 0x01);
        b(g, (idt ? 3 : 2) << 3 | 5);
        z(g, at);
        break;
    }
    case 2:
        b(g, 0x0F);
        b(g, PICK(g, 0x00, 0x01));
        modrm(g, below(g, 8), false);
        break;
    case 3: /* LTR, LLDT, VERR, VERW, LAR, LSL */
        mov_reg(g, CPU_EAX,
                chance(g, 50) ? PICK(g, SEL_TSS, SEL_TSS2, SEL_LDT, SEL_TSS16, SEL_GATE, 0) : selector(g));
        b(g, 0x0F);
        b(g, PICK(g, 0x00, 0x00, 0x02, 0x03));
        b(g, 0xC0 | below(g, 6) << 3);
        break;
    default: /* a descriptor or gate of the tables */
        mov_mem(g, PICK(g, LAY_GDT, LAY_LDT, LAY_IDT, LAY_TSS) + (rnd(g) & 0x1FC),
                chance(g, 50) ? rnd(g) : value(g));
        break;
    }
}

static void p_segment(struct gen *g)
{
    static const uint8_t pops[] = {0x07, 0x17, 0x1F};
    uint32_t sel =
        chance(g, 60) ? PICK(g, SEL_DATA0, SEL_DATA3 | 3, SEL_SMALL | 3, SEL_DOWN | 3, SEL_BASED | 3,
                             SEL_READONLY | 3, 0, 3, SEL_CODE0, SEL_DATA16, SEL_ABSENT, SEL_CONFORMING, 4, 12)
                      : selector(g);
    if (chance(g, 60)) {
        mov_reg(g, CPU_EAX, sel);
        b(g, 0x8E);
        b(g, 0xC0 | PICK(g, 0, 2, 3, 4, 5, 4, 5, 1) << 3);
    } else if (chance(g, 50)) {
        b(g, 0x68);
        z(g, sel);
        if (chance(g, 60)) {
            b(g, pops[below(g, 3)]);
        } else {
            b(g, 0x0F);
            b(g, PICK(g, 0xA1, 0xA9));
        }
    } else {
        mov_mem(g, data_address(g), value(g));
        b(g, 0x0F);
        b(g, PICK(g, 0xB2, 0xB4, 0xB5));
        modrm(g, below(g, 8), true);
    }
    if (chance(g, 60)) { /* use it */
        b(g, PICK(g, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65));
        b(g, PICK(g, 0x8B, 0x89, 0x01, 0x8A, 0x87));
        modrm(g, below(g, 8), true);
    }
}

static void p_far(struct gen *g)
{
    uint32_t sel = chance(g, 50) ? PICK(g, SEL_CODE0, SEL_CODE3 | 3, SEL_CONFORMING, SEL_CONFORMING | 3,
                                        SEL_GATE, SEL_GATE + 8, SEL_GATE + 16, SEL_TSS2, SEL_TSS16,
                                        SEL_TSS_DF, SEL_CODE16, SEL_CODE1 | 1, SEL_TSS, SEL_DATA0, 0)
                                 : selector(g);
    uint32_t off = chance(g, 70) ? g->eip + g->n + 7 : near_address(g);
    switch (below(g, 6)) {
    case 0:
        b(g, 0x9A);
        z(g, off);
        w(g, sel);
        break;
    case 1:
        b(g, 0xEA);
        z(g, off);
        w(g, sel);
        break;
    case 2: /* RETF */
        b(g, 0x68);
        z(g, sel);
        b(g, 0x68);
        z(g, off);
        b(g, PICK(g, 0xCB, 0xCB, 0xCA));
        w(g, rnd(g) & 0xFF);
        break;
    case 3: { /* IRET to anywhere */
        uint32_t flags =
            chance(g, 60) ? PICK(g, 2, CPU_IF | 2, CPU_NT | 2, CPU_VM | 2, CPU_TF | 2) : rnd(g) & 0x3FFFFF;
        if (chance(g, 40)) {
            b(g, 0x68);
            z(g, SEL_DATA3 | 3);
            b(g, 0x68);
            z(g, LAY_STACK - 0x100);
        }
        b(g, 0x68);
        z(g, flags);
        b(g, 0x68);
        z(g, sel);
        b(g, 0x68);
        z(g, off);
        b(g, 0xCF);
        break;
    }
    case 4:
        b(g, 0xFF);
        modrm(g, PICK(g, 3, 5), true);
        break;
    default:
        b(g, 0xCD);
        b(g, chance(g, 40) ? PICK(g, 3, 4, 0x21, 0x80, 0x81, 8, 13, 14, 2) : rnd(g));
        break;
    }
}

static uint32_t port(struct gen *g)
{
    static const uint16_t known[] = {0x20,  0x21,  0x40,   0x42,  0x43,  0x60,  0x61,  0x64,   0x70,  0x71,
                                     0x80,  0x92,  0xA0,   0xA1,  0xB2,  0xE9,  0xF4,  0x170,  0x1F0, 0x1F7,
                                     0x3F6, 0x2F8, 0x3F8,  0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD,  0x3FF, 0x402,
                                     0x4D0, 0x510, 0x511,  0x514, 0x600, 0x604, 0x608, 0xB000, 0xCF8, 0xCF9,
                                     0xCFC, 0xCFE, 0xC000, 0xE0,  0x3D4, 0x3C0};
    return chance(g, 70)
               ? known[below(g, sizeof(known) / sizeof(known[0]))] + (chance(g, 80) ? 0 : below(g, 8))
               : rnd(g) & 0xFFFF;
}

static void p_port(struct gen *g)
{
    static const uint8_t io[] = {0xE4, 0xE5, 0xE6, 0xE7, 0xEC, 0xED, 0xEE, 0xEF, 0xEE, 0xEF};
    if (chance(g, 20)) { /* INS, OUTS */
        mov_reg(g, CPU_EDX, port(g));
        mov_reg(g, CPU_ECX, rnd(g) & 0x3F);
        if (chance(g, 50))
            b(g, 0xF3);
        b(g, 0x6C + below(g, 4));
        return;
    }
    uint8_t op = io[below(g, sizeof(io))];
    if (chance(g, 60))
        mov_reg(g, CPU_EAX, chance(g, 50) ? rnd(g) : rnd(g) & 0xFF);
    if (op >= 0xEC)
        mov_reg(g, CPU_EDX, port(g));
    if (chance(g, 20))
        b(g, 0x66);
    b(g, op);
    if (op < 0xEC)
        b(g, port(g));
}

static void p_mmio(struct gen *g)
{
    uint32_t at = PICK(g, 0xFEE00000, 0xFEC00000, 0xFEC00010, 0xA0000, 0xB8000, 0xBFFFE, 0xF0000, 0xFFFFFFF0,
                       0xFED00000, 0x40000000, LAY_SMALL, 0xE0000000) +
                  (chance(g, 60) ? (rnd(g) & 0x3F) * 16 : rnd(g) & 0xFFF);
    mov_reg(g, CPU_EDI, at);
    mov_reg(g, CPU_EAX, rnd(g));
    switch (below(g, 5)) {
    case 0:
        b(g, PICK(g, 0x8B, 0x89, 0x8A, 0x88, 0x01, 0x03, 0x87, 0xFF));
        b(g, 0x07);
        break;
    case 1:
        b(g, 0x0F);
        b(g, PICK(g, 0xB1, 0xC1, 0xBB, 0xA3, 0xC7, 0xAE, 0x6F, 0x7F, 0x10, 0x11));
        b(g, chance(g, 50) ? 0x07 : 0x0F);
        break;
    case 2:
        b(g, 0xD8 + below(g, 8));
        b(g, below(g, 8) << 3 | 7);
        break;
    case 3:
        mov_reg(g, CPU_ECX, rnd(g) & 0x3F);
        b(g, PICK(g, 0xF3, 0xF2, 0x90));
        b(g, PICK(g, 0xAA, 0xAB, 0xA4, 0xA5, 0xA6, 0xAE));
        break;
    default: /* run there */
        b(g, 0xFF);
        b(g, PICK(g, 0xE7, 0xD7));
        break;
    }
}

static void p_paging(struct gen *g)
{
    unsigned size = g->pae ? 8 : 4;
    uint32_t table = g->pae ? PICK(g, LAY_PAE_PT, LAY_PAE_PT, LAY_PAE_PD, LAY_WILD, LAY_PDPT)
                            : PICK(g, LAY_PT, LAY_PT, LAY_PD, LAY_WILD);
    unsigned slot = below(g, chance(g, 70) ? 32 : 4096 / size);
    uint64_t e = wild_entry(g);
    if (chance(g, 50)) /* the data pages are the most used */
        slot = (LAY_DATA >> 12) + below(g, 2), table = g->pae ? LAY_PAE_PT : LAY_PT;
    if (e >> 32)
        mov_mem(g, table + slot * size + 4, (uint32_t)(e >> 32));
    mov_mem(g, table + slot * size, (uint32_t)e);
    if (chance(g, 50)) {
        b(g, 0x0F); /* INVLPG */
        b(g, 0x01);
        b(g, 0x3D);
        z(g, chance(g, 80) ? slot << 12 : near_address(g));
    } else if (chance(g, 80)) { /* MOV EAX, CR3; MOV CR3, EAX */
        w(g, 0x200F);
        b(g, 0xD8);
        w(g, 0x220F);
        b(g, 0xD8);
    }
    if (chance(g, 60)) {
        b(g, PICK(g, 0x8B, 0x89, 0x01));
        b(g, 0x05);
        z(g, (slot << 12) + (chance(g, 70) ? rnd(g) & 0xFFC : 0xFFE));
    }
}

static void p_self(struct gen *g)
{
    uint32_t here = g->eip + g->n;
    uint32_t at = chance(g, 60) ? here + 8 + below(g, 24) : LAY_CODE + below(g, LAY_CODE_END - LAY_CODE);
    if (chance(g, 25) && g->paging && g->aliases)
        at = (at & 0x3FFFFF) + PICK(g, 0, LAY_ALIAS_1, LAY_ALIAS_2);
    switch (below(g, 4)) {
    case 0:
        mov_mem(g, at, chance(g, 50) ? 0x90909090 : rnd(g));
        break;
    case 1:
        b(g, 0xC6);
        b(g, 0x05);
        z(g, at);
        b(g, rnd(g));
        break;
    case 2: /* XOR, ADD, LOCK INC of code */
        b(g, 0x80);
        b(g, 0x35);
        z(g, at);
        b(g, rnd(g));
        break;
    default:
        mov_reg(g, CPU_EDI, at);
        mov_reg(g, CPU_ESI, LAY_CODE + below(g, LAY_CODE_END - LAY_CODE));
        mov_reg(g, CPU_ECX, below(g, 64));
        b(g, 0xF3);
        b(g, PICK(g, 0xA4, 0xA5, 0xAA));
        break;
    }
}

static void p_jump(struct gen *g)
{
    uint32_t here = g->eip + g->n, to = here + 2 + below(g, 24);
    if (chance(g, 20))
        to = LAY_CODE + below(g, LAY_CODE_END - LAY_CODE);
    if (chance(g, 8))
        to = near_address(g);
    switch (below(g, 7)) {
    case 0:
        b(g, 0x70 + below(g, 16));
        b(g, below(g, 20));
        break;
    case 1:
        b(g, 0xE9);
        z(g, to - (here + 5));
        break;
    case 2: /* call, and the return address is used */
        b(g, 0xE8);
        z(g, to - (here + 5));
        b(g, PICK(g, 0x58, 0xC3, 0x90, 0xC3));
        break;
    case 3:
        mov_reg(g, CPU_EDX, to);
        b(g, 0xFF);
        b(g, PICK(g, 0xE2, 0xD2));
        break;
    case 4:
        b(g, 0x68);
        z(g, to);
        b(g, PICK(g, 0xC3, 0xC2));
        w(g, below(g, 16));
        break;
    case 5:
        b(g, 0x0F);
        b(g, 0x80 + below(g, 16));
        z(g, chance(g, 80) ? below(g, 24) : rnd(g));
        break;
    default:
        b(g, PICK(g, 0xE0, 0xE1, 0xE2, 0xE3));
        b(g, below(g, 12));
        break;
    }
}

/* A loop, so that branches are linked and sites get hot. */
static void p_loop(struct gen *g)
{
    mov_reg(g, CPU_ECX, 2 + below(g, 40));
    unsigned top = g->n;
    switch (below(g, 4)) {
    case 0:
        b(g, PICK(g, 0x01, 0x03, 0x31, 0x29, 0x89, 0x8B));
        b(g, 0x05);
        z(g, chance(g, 60) ? data_address(g) : near_address(g));
        break;
    case 1: /* a call of the next line */
        b(g, 0xE8);
        z(g, 1);
        b(g, 0x90);
        b(g, 0x58);
        break;
    case 2:
        b(g, PICK(g, 0x50, 0x51, 0x9C, 0x06));
        b(g, PICK(g, 0x58, 0x5A, 0x5B));
        break;
    default:
        b(g, 0x0F);
        b(g, PICK(g, 0xA2, 0x31, 0xC8, 0x06, 0x77));
        break;
    }
    b(g, 0x49);
    b(g, 0x75);
    b(g, top - (g->n + 1));
}

static void p_string(struct gen *g)
{
    mov_reg(g, CPU_ESI, chance(g, 60) ? data_address(g) : near_address(g));
    mov_reg(g, CPU_EDI, chance(g, 60) ? data_address(g) : near_address(g));
    mov_reg(g, CPU_ECX, chance(g, 85) ? below(g, 80) : below(g, 3000));
    if (chance(g, 30))
        b(g, PICK(g, 0xFC, 0xFD));
    if (chance(g, 10))
        b(g, PICK(g, 0x66, 0x67, 0x26, 0x64));
    if (chance(g, 80))
        b(g, PICK(g, 0xF3, 0xF2));
    b(g, PICK(g, 0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF));
}

static void p_fpu(struct gen *g)
{
    for (unsigned i = 1 + below(g, 3); i; i--) {
        if (chance(g, 55)) {
            b(g, 0xD8 + below(g, 8));
            modrm(g, below(g, 8), false);
            continue;
        }
        if (chance(g, 40))
            b(g, PICK(g, 0x66, 0xF3, 0xF2));
        b(g, 0x0F);
        if (chance(g, 15)) {
            b(g, PICK(g, 0xAE, 0xAE, 0x18, 0x77, 0x0D, 0x0E));
            modrm(g, below(g, 8), false);
            continue;
        }
        b(g, PICK(g, 0x10, 0x11, 0x12, 0x14, 0x16, 0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x2E, 0x2F, 0x50, 0x51,
                  0x54, 0x57, 0x58, 0x59, 0x5A, 0x5E, 0x60, 0x64, 0x6E, 0x6F, 0x70, 0x71, 0x73, 0x74, 0x7E,
                  0x7F, 0xC2, 0xC4, 0xC5, 0xC6, 0xD4, 0xD6, 0xD7, 0xE7, 0xEF, 0xF7, 0xFC, 0x38, 0x3A));
        modrm(g, below(g, 8), false);
    }
}

static void p_prefixes(struct gen *g)
{
    unsigned n = chance(g, 60) ? below(g, 5) : 10 + below(g, 7);
    while (n--)
        b(g, PICK(g, 0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65));
    if (chance(g, 40))
        b(g, 0x0F);
    b(g, rnd(g));
    modrm(g, below(g, 8), false);
}

static void p_lock(struct gen *g)
{
    b(g, 0xF0);
    switch (below(g, 3)) {
    case 0:
        b(g, below(g, 8) << 3 | below(g, 4));
        break;
    case 1:
        b(g, 0x0F);
        b(g, PICK(g, 0xB1, 0xC1, 0xC7, 0xAB, 0xBA, 0xA3));
        break;
    default:
        b(g, rnd(g));
        break;
    }
    modrm(g, below(g, 8), false);
}

static void p_fast_system(struct gen *g)
{
    switch (below(g, 5)) {
    case 0:
        w(g, 0x340F); /* SYSENTER */
        break;
    case 1:
        mov_reg(g, CPU_ECX, LAY_STACK - 0x80);
        mov_reg(g, CPU_EDX, chance(g, 70) ? g->eip + g->n + 7 : near_address(g));
        if (chance(g, 30))
            b(g, 0xFB);
        w(g, 0x350F); /* SYSEXIT */
        break;
    case 2:
        mov_reg(g, CPU_EAX,
                chance(g, 70) ? PICK(g, 0, 1, 2, 4, 7, 0xD, 0x15, 0x16, 0x80000000, 0x80000004, 0x80000008)
                              : rnd(g));
        w(g, 0xA20F); /* CPUID */
        break;
    case 3: /* UD2, WBINVD, INVD, CLTS, RDPMC, RSM, WAIT, GETSEC, BSWAP */
        b(g, 0x0F);
        b(g, PICK(g, 0x0B, 0x09, 0x08, 0x06, 0x33, 0xAA, 0x37, 0xFF, 0xB9, 0xC8));
        break;
    default:
        b(g, 0xFB); /* STI; HLT, STI; something */
        b(g, PICK(g, 0xF4, 0x90, 0xFA, 0xFB, 0x9C));
        break;
    }
}

static const struct {
    void (*fn)(struct gen *);
    const char *name;
    unsigned weight, weight_user; /* in code of CPL 0, and of others */
} kinds[] = {
    {p_noise, "noise", 6, 6},      {p_text, "text", 8, 10},        {p_alu, "alu", 14, 16},
    {p_stack, "stack", 6, 6},      {p_flags, "flags", 4, 3},       {p_control, "control", 6, 1},
    {p_debug, "debug", 2, 1},      {p_msr, "msr", 3, 1},           {p_descriptor_tables, "tables", 4, 1},
    {p_segment, "segment", 5, 5},  {p_far, "far", 6, 5},           {p_port, "port", 5, 1},
    {p_mmio, "mmio", 3, 2},        {p_paging, "paging", 8, 1},     {p_self, "self", 5, 6},
    {p_jump, "jump", 8, 10},       {p_loop, "loop", 5, 6},         {p_string, "string", 5, 6},
    {p_fpu, "fpu", 5, 8},          {p_prefixes, "prefixes", 2, 3}, {p_lock, "lock", 2, 2},
    {p_fast_system, "fast", 4, 3},
};

static void list_code(struct gen *g, unsigned p, const char *name, unsigned at)
{
    fprintf(g->list, "%4u %s\n", p, name);
    while (at < g->n) {
        char text[96] = "?";
        unsigned len =
            scan_disassemble(g->code + at, g->n - at, g->bits16 ? 16 : 32, g->eip + at, text, sizeof(text));
        fprintf(g->list, "       %08x  %-40s", g->eip + at, text);
        len = len ? len : 1;
        for (; len && at < g->n; len--)
            fprintf(g->list, " %02x", g->code[at++]);
        fprintf(g->list, "\n");
    }
}

static void code_piece(struct gen *g)
{
    unsigned total = 0, at = g->n, i = 0;
    unsigned p = g->piece;
    FILE *list = g->list;
    g->list = NULL;
    bool keep = piece(g, "");
    g->list = list;
    for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        total += g->user ? kinds[k].weight_user : kinds[k].weight;
    uint32_t pick = below(g, total);
    for (;; i++) {
        unsigned weight = g->user ? kinds[i].weight_user : kinds[i].weight;
        if (pick < weight)
            break;
        pick -= weight;
    }
    kinds[i].fn(g);
    if (!keep)
        memset(g->code + at, 0x90, g->n - at);
    else if (list)
        list_code(g, p, kinds[i].name, at);
}

/* -- Chunks ------------------------------------------------------------------------------------------ */

/* What a chunk is entered with; the order of guest.S. */
struct frame {
    uint32_t gs, fs, es, ds, edi, esi, ebp, unused, ebx, edx, ecx, eax, eip, cs, eflags, esp, ss;
    uint32_t more[3];
};

enum enter { ENTER_KERNEL, ENTER_USER, ENTER_V86, ENTER_RING1, ENTER_16, ENTER_ODD };

static void chunk(struct gen *g, unsigned n, uint32_t at)
{
    struct frame fr = {0};
    static const uint8_t ways[] = {ENTER_KERNEL, ENTER_KERNEL, ENTER_KERNEL, ENTER_KERNEL, ENTER_KERNEL,
                                   ENTER_KERNEL, ENTER_KERNEL, ENTER_KERNEL, ENTER_USER,   ENTER_USER,
                                   ENTER_USER,   ENTER_USER,   ENTER_USER,   ENTER_V86,    ENTER_RING1,
                                   ENTER_16,     ENTER_ODD};
    bool keep = piece(g, "registers");
    enum enter how = ways[below(g, sizeof(ways))];
    fr.eip = at + (g->aliases && g->paging ? PICK(g, 0, 0, LAY_ALIAS_1, LAY_ALIAS_2) : 0);
    fr.cs = SEL_CODE0;
    fr.ds = fr.es = fr.fs = fr.gs = fr.ss = SEL_DATA0;
    fr.eflags = 2;
    fr.esp = LAY_STACK - 0x40;
    if (keep) {
        uint32_t *gpr[] = {&fr.edi, &fr.esi, &fr.ebp, &fr.ebx, &fr.edx, &fr.ecx, &fr.eax};
        for (unsigned i = 0; i < 7; i++)
            *gpr[i] = value(g);
        fr.eflags |= rnd(g) & (CPU_ARITH | (chance(g, 20) ? CPU_DF : 0));
        if (chance(g, 10))
            fr.eflags |= rnd(g) & (CPU_TF | CPU_NT | CPU_AC | CPU_IOPL | CPU_RF | CPU_IF | CPU_ID);
        if (chance(g, 10))
            fr.fs = selector(g), fr.gs = selector(g);
        if (chance(g, 10))
            fr.fs = SEL_BASED | 3, fr.gs = SEL_SMALL | 3;
    }
    g->user = how != ENTER_KERNEL && how != ENTER_16;
    g->bits16 = how == ENTER_V86 || how == ENTER_16;
    if (how == ENTER_USER || how == ENTER_ODD) {
        fr.cs = SEL_CODE3 | 3;
        fr.ds = fr.es = fr.ss = SEL_DATA3 | 3;
    }
    if (how == ENTER_RING1) {
        fr.cs = SEL_CODE1 | 1;
        fr.ds = fr.es = fr.ss = SEL_DATA1 | 1;
    }
    if (how == ENTER_16)
        fr.cs = SEL_CODE16, fr.eip = at;
    if (how == ENTER_V86) {
        fr.eflags |= CPU_VM | (chance(g, 50) ? CPU_IOPL : 0);
        fr.cs = (at >> 4) & 0xF000, fr.eip = at & 0xFFFF, fr.ss = 0;
        fr.more[0] = fr.more[1] = fr.more[2] = LAY_DATA >> 4;
    }
    if (how == ENTER_ODD) {
        uint32_t *odd[] = {&fr.cs, &fr.ss, &fr.ds, &fr.eflags, &fr.esp, &fr.eip, &fr.es};
        *odd[below(g, 7)] = chance(g, 50) ? selector(g) : rnd(g);
    }
    memcpy(g->ram + LAY_FRAMES + n * LAY_FRAME, &fr, sizeof(fr));

    g->code = g->ram + at;
    g->n = 0;
    g->cap = CHUNK_BYTES;
    g->eip = fr.eip;
    if (how == ENTER_KERNEL) /* IRET without a change of level leaves ESP at the frames */
        mov_reg(g, CPU_ESP, LAY_STACK - 0x40);
    for (unsigned i = 1 + (mix(g->f->seed + n) & 7); i; i--)
        code_piece(g);
    /* On to the next: CPL 3 may do this, too. */
    b(g, 0xCD);
    b(g, 0x81);
    g->code = NULL;
}

static void chunks(struct gen *g)
{
    uint64_t r = mix(g->f->seed ^ 0xC0DE);
    unsigned n = 2 + (unsigned)(r & 7);
    uint32_t at =
        LAY_CODE + (r & 0x100 ? 0x1000 - 40 - (r >> 9 & 63) : (r >> 9 & 0xFF)); /* often across a page */
    for (unsigned i = 0; i < n; i++) {
        chunk(g, i, at);
        at += 200 + (uint32_t)(mix(r + i) & 0x1FF);
        if (at + CHUNK_BYTES > LAY_CODE_END)
            at = LAY_CODE + (uint32_t)(mix(r + i) >> 10 & 0x3F);
    }
    put(g, LAY_VAR_LAST, 4, LAY_FRAMES + n * LAY_FRAME);
}

/* -- State ------------------------------------------------------------------------------------------- */

static void spoil_tables(struct gen *g)
{
    for (unsigned i = 0; i < 2; i++)
        if (piece(g, "spoil a descriptor") && chance(g, 25))
            put(g, LAY_GDT + below(g, LAY_GDT_COUNT * 8), 1, rnd(g));
    if (piece(g, "garbage descriptors"))
        for (unsigned s = SEL_WILD; s < LAY_GDT_COUNT * 8; s += 8)
            put(g, LAY_GDT + s, 8, (uint64_t)rnd(g) << 32 | rnd(g));
    if (piece(g, "gates"))
        for (unsigned s = SEL_GATE; s <= SEL_GATE_LAST; s += 8)
            gate(g, LAY_GDT + s,
                 chance(g, 60) ? PICK(g, SEL_CODE0, SEL_CONFORMING, SEL_TSS2, SEL_CODE16, SEL_CODE3)
                               : selector(g),
                 chance(g, 60) ? HANDLER(fuzz_guest_go) : near_address(g),
                 PICK(g, 0xEC, 0x8C, 0xE5, 0x85, 0xE4, 0x6C) | (chance(g, 30) ? rnd(g) & 0x1F00 : 0));
    if (piece(g, "spoil the IDT") && chance(g, 25))
        for (unsigned i = 1 + below(g, 4); i; i--)
            put(g, LAY_IDT + below(g, 8 * (chance(g, 50) ? 32 : 256)), 1, rnd(g));
    if (piece(g, "task and trap gates in the IDT") && chance(g, 25))
        gate(g, LAY_IDT + 8 * below(g, 34),
             PICK(g, SEL_TSS2, SEL_TSS16, SEL_CODE0, SEL_CODE16, SEL_CONFORMING, SEL_TSS),
             HANDLER(fuzz_guest_go), PICK(g, 0xE5, 0x85, 0x86, 0x87, 0xEE, 0xEF));
    if (piece(g, "spoil a TSS") && chance(g, 25))
        for (unsigned i = 1 + below(g, 6); i; i--)
            put(g, LAY_TSS + below(g, 0x300), 1, rnd(g));
    if (piece(g, "the LDT"))
        for (unsigned i = 0; i < 16; i++)
            descriptor(g, i * 8 | 4, chance(g, 60) ? 0 : near_address(g),
                       chance(g, 60) ? 0xFFFFFFFFu : rnd(g), rnd(g) | 0x90);
}

static void spoil_registers(struct gen *g)
{
    struct cpu *c = g->c;
    if (piece(g, "data"))
        for (unsigned i = 0; i < 0x2000; i += 4)
            if ((i & 0x1C) == 0 || (i & 0xFFF) > 0xFC0)
                put(g, LAY_DATA + i, 4, value(g));
    if (piece(g, "stack"))
        for (unsigned i = 0; i < 64; i++)
            put(g, LAY_STACK - 0x40 + 4 * i - 64, 4, value(g));
    if (piece(g, "x87 and SSE")) {
        c->cr4 |= chance(g, 80) ? CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT : 0;
        if (chance(g, 60))
            for (unsigned i = 32; i < 288; i++)
                c->fx[i] = (uint8_t)rnd(g);
        c->fx[0] = (uint8_t)(chance(g, 70) ? 0x7F : 0x40 | (rnd(g) & 0x3F)), c->fx[1] = 3;
        c->fx[4] = (uint8_t)(chance(g, 50) ? 0 : rnd(g));
        c->fx[3] = (uint8_t)(chance(g, 50) ? 0 : rnd(g) & 0x38);
        c->fx[24] = 0x80, c->fx[25] = (uint8_t)(chance(g, 70) ? 0x1F : rnd(g) & 0x7F);
    } else {
        c->fx[0] = 0x7F, c->fx[1] = 3, c->fx[4] = 0;
    }
    if (piece(g, "control register bits") && chance(g, 25)) {
        c->cr0 ^= rnd(g) & (CPU_CR0_TS | CPU_CR0_EM | CPU_CR0_MP | CPU_CR0_NE | CPU_CR0_AM);
        c->cr4 |= rnd(g) & (CPU_CR4_DE | CPU_CR4_TSD | CPU_CR4_PCE);
    }
    if (piece(g, "debug registers") && chance(g, 5)) {
        c->dr[7] = (rnd(g) & 0xFFFF00FF) | 0x400;
        for (unsigned i = 0; i < 4; i++)
            c->dr[i] = near_address(g);
    }
    if (piece(g, "SYSENTER")) {
        c->sysenter_cs = chance(g, 80) ? SEL_CODE0 : selector(g);
        c->sysenter_esp = LAY_KSTACK - 0x200;
        c->sysenter_eip = chance(g, 70) ? HANDLER(fuzz_guest_go) : near_address(g);
    }
    if (piece(g, "no IOPL") && chance(g, 50))
        cpu_set_eflags(c, 2);
}

static struct cpu_seg flat(uint16_t sel, uint16_t attr)
{
    return (struct cpu_seg){.base = 0, .limit = 0xFFFFFFFFu, .sel = sel, .attr = attr};
}

static void start_state(struct gen *g)
{
    struct cpu *c = g->c;
    c->cr0 = CPU_CR0_PE | CPU_CR0_ET | CPU_CR0_NE;
    c->gdtr = (struct cpu_table){LAY_GDT, LAY_GDT_COUNT * 8 - 1};
    c->idtr = (struct cpu_table){LAY_IDT, 0x7FF};
    c->ldtr = (struct cpu_seg){LAY_LDT, 0x7F, SEL_LDT, 0x82, 0};
    c->tr = (struct cpu_seg){LAY_TSS, 0xAF, SEL_TSS, 0x8B, 0};
    for (unsigned s = 0; s < 6; s++)
        c->seg[s] = flat(SEL_DATA0, 0xC093);
    c->seg[SCAN_CS] = flat(SEL_CODE0, 0xC09B);
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[CPU_ESP] = LAY_KSTACK;
    cpu_set_eflags(c, 2);
    c->eip = HANDLER(fuzz_guest_go);
}

uint64_t fuzz_ram_bytes(const struct fuzz_case *f)
{
    /* Mostly small; RAM that ends in the video hole; RAM on both sides of it. */
    switch (f->seed / FUZZ_BATCH % 16) {
    case 4:
        return 704u << 10;
    case 11:
        return 1152u << 10;
    default:
        return LAY_SMALL;
    }
}

unsigned fuzz_build(const struct fuzz_case *f, struct vm *vm, FILE *list)
{
    struct gen g = {.f = f, .ram = vm->ram, .ram_bytes = vm->ram_bytes, .c = vm->cpu, .list = list};
    uint64_t r = mix(f->seed ^ 0x9A6E);
    memset(vm->ram, 0, vm->ram_bytes);
    start_state(&g);
    g.paging = r % 4 != 0;
    g.pae = g.paging && (r >> 8) % 2;
    g.pse = r >> 16 & 1;
    g.aliases = r >> 20 & 1;
    if (g.paging)
        start_paging(&g);
    working_tables(&g);
    chunks(&g);
    spoil_tables(&g);
    spoil_registers(&g);
    return g.piece;
}
