/* tests/diff/world.c: memory, descriptors and page tables that all cases share, and the ways that run Verso's
 * own code. */
#include "diff.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/quiet_bus.h"

/* Linear ranges with paging on. 1C000h..1FFFFh are the system's; the hot pages are shown at their own
 * address, with mixed rights at 16 MiB, high, and at the top, from where linear 0 goes on with them. */
#define ALL (BOX_P | BOX_W | BOX_U)
const struct box_range world_range[] = {
    {0, W_HOT, 1, ALL},
    {W_CODE16, W_CODE16, 12, ALL},
    {W_GDT, W_GDT, 4, BOX_P | BOX_W},
    {W_HOT, W_HOT, 16, ALL},
    {BOX_CODE, BOX_CODE, 5, ALL},
    {W_MIXED, W_HOT, 2, ALL},
    {W_MIXED + 0x3000, W_HOT + 0x3000, 2, BOX_P | BOX_U},
    {W_MIXED + 0x6000, W_HOT + 0x6000, 1, BOX_P | BOX_W},
    {W_MIXED + 0x7000, W_HOT + 0x7000, 1, BOX_P},
    {W_MIXED + 0x8000, W_HOT + 0x8000, 8, ALL},
    {W_HIGH, W_HOT, 16, ALL},
    {W_TOP, W_HOT, 16, ALL},
};
const unsigned world_ranges = sizeof world_range / sizeof world_range[0];
/* Compared: code of 16-bit modes, which real mode may write to, system tables, data. */
static const struct box_map world_map = {world_range, sizeof world_range / sizeof world_range[0], W_CODE16,
                                         W_HOT + W_HOT_SIZE - W_CODE16};

const char *const diff_mode_name[DIFF_MODE_COUNT] = {
#define X(id, name, text, translated) name,
    DIFF_MODES(X)
#undef X
};

bool diff_mode_translated(enum diff_mode m)
{
    static const bool yes[DIFF_MODE_COUNT] = {
#define X(id, name, text, translated) translated,
        DIFF_MODES(X)
#undef X
    };
    return yes[m];
}

uint32_t diff_xlat_mode(const struct diff_case *d)
{
    bool user = diff_mode_cpl(d->mode) == 3;

    return (user ? XLAT_MODE_USER : 0) |
           ((d->cr0 & (CPU_CR0_EM | CPU_CR0_TS)) || !(d->cr4 & CPU_CR4_OSFXSR) ? XLAT_MODE_FPU_TRAP : 0) |
           (user && (d->cr4 & CPU_CR4_TSD) ? XLAT_MODE_TSC_TRAP : 0);
}

bool diff_translates(const struct diff_case *d)
{
    bool align = (d->eflags & CPU_AC) && (d->cr0 & CPU_CR0_AM) && diff_mode_cpl(d->mode) == 3;

    return diff_mode_translated(d->mode) && !align && !(d->eflags & CPU_TF) && d->eip - BOX_CODE < 4096 &&
           diff_xlat_mode(d) == box.mode;
}

unsigned diff_mode_cpl(enum diff_mode m)
{
    return m == DIFF_FLAT3 || m == DIFF_SEG3 || m == DIFF_PROT16_3 || m == DIFF_V86 ? 3 : 0;
}

uint32_t diff_code_base(enum diff_mode m)
{
    return diff_mode_bits(m) == 16 ? W_CODE16 : 0;
}

uint32_t diff_code_page(enum diff_mode m)
{
    return diff_mode_bits(m) == 16 ? 0 : BOX_CODE;
}

/* -- Descriptors
 * ------------------------------------------------------------------------------------------------- */

/* Of the GDT, from selector 8 on: base, limit (bytes), rights as in cpu_seg.attr. Gates: limit is the
 * selector, base the offset, bit 16 of attr marks them. */
#define GATE 0x10000u
static const struct {
    uint32_t base, limit, attr;
} gdt[] = {
    {0, 0xFFFFFFFF, 0xC09B},                         /* 08: code, CPL 0 */
    {0, 0xFFFFFFFF, 0xC093},                         /* 10: data, CPL 0 */
    {0, 0xFFFFFFFF, 0xC0FB},                         /* 18: code, CPL 3 */
    {0, 0xFFFFFFFF, 0xC0F3},                         /* 20: data, CPL 3 */
    {W_TSS, 0xE8, 0x008B},                           /* 28: the TSS in use */
    {W_LDT, 0x1F, 0x0082},                           /* 30: the LDT in use */
    {W_HOT, 0xFFFF, 0x4093},                         /* 38: the hot pages, CPL 0 */
    {W_HOT, 0xFFFF, 0x40F3},                         /* 40: CPL 3 */
    {W_HOT - 0x8000, 0x7FFF, 0x4097},                /* 48: expand-down, CPL 0 */
    {W_HOT - 0x8000, 0x7FFF, 0x40F7},                /* 50: CPL 3 */
    {W_HOT, 0x0FFF, 0x0097},                         /* 58: expand-down to 64 KiB, CPL 0 */
    {W_HOT, 0x0FFF, 0x00F7},                         /* 60: CPL 3 */
    {W_HOT, 0xFFFF, 0x4091},                         /* 68: read-only, CPL 0 */
    {W_HOT, 0xFFFF, 0x40F1},                         /* 70: CPL 3 */
    {0, 0xFFFFFFFF, 0xC0F9},                         /* 78: execute-only, CPL 3 */
    {0, 0x103FFF, 0xC09B},                           /* 80: limited code, CPL 0 */
    {0, 0x103FFF, 0xC0FB},                           /* 88: CPL 3 */
    {W_CODE16, 0x8FFF, 0x009B},                      /* 90: 16-bit code, CPL 0 */
    {W_CODE16, 0x8FFF, 0x00FB},                      /* 98: CPL 3 */
    {W_HOT, 0xFFFF, 0x0093},                         /* A0: 16-bit data, CPL 0 */
    {W_HOT, 0xFFFF, 0x00F3},                         /* A8: CPL 3 */
    {W_HOT, 0x00FF, 0x40F3},                         /* B0: 256 bytes */
    {W_HOT, 0xFFFF, 0x4073},                         /* B8: not present */
    {0, 0xFFFFFFFF, 0xC09F},                         /* C0: conforming code, CPL 0 */
    {0, 0xFFFFFFFF, 0xC07B},                         /* C8: code, not present */
    {W_HANDLER + 0x800, 0x08, GATE | 0xEC | 2 << 8}, /* D0: call gate, two parameters */
    {0x8000, 0x90, GATE | 0xE4 | 1 << 8},            /* D8: 16-bit call gate */
    {W_HANDLER + 0x810, 0x08, GATE | 0x8C},          /* E0: call gate, DPL 0 */
    {0, 0xFFFFFFFF, 0xC0FF},                         /* E8: conforming code, CPL 3 */
    {W_HIGH, 0xFFFFFFFF, 0xC0F3},                    /* F0: data that wraps */
    {W_TSS, 0x67, 0x0089},                           /* F8: a free TSS */
    {W_HOT, 0xFFFF, 0x40F2},                         /* 100: not accessed yet */
    {W_HANDLER + 0x820, 0x18, GATE | 0xEC},          /* 108: call gate to CPL 3 */
};
#define GDT_LIMIT (8 + sizeof gdt / sizeof gdt[0] * 8 - 1)
static const struct {
    uint32_t base, limit, attr;
} ldt[] = {{W_HOT, 0xFFFF, 0x40F3}, {W_HOT, 0xFFFF, 0x40F1}, {0, 0xFFFFFFFF, 0xC0F9}}; /* 0F, 17, 1F */

static uint8_t base_bytes[W_HOT + W_HOT_SIZE - W_CODE16];
static uint8_t flat_code[5 * 4096]; /* the pages at BOX_CODE as they should be */
static enum diff_mode mode_now = DIFF_MODE_COUNT;

const uint8_t *world_low(void)
{
    return base_bytes;
}

static void put(uint8_t *p, unsigned size, uint32_t v)
{
    memcpy(p, &v, size);
}

static void descriptor(uint8_t *p, uint32_t base, uint32_t limit, uint32_t attr)
{
    if (attr & GATE) { /* attr: rights in bits 0..7, parameters from bit 8 */
        put(p, 4, limit << 16 | (base & 0xFFFF));
        put(p + 4, 4, (base & 0xFFFF0000u) | (attr & 0xFF) << 8 | (attr >> 8 & 31));
        return;
    }
    if (attr & 0x8000)
        limit >>= 12;
    put(p, 4, base << 16 | (limit & 0xFFFF));
    put(p + 4, 4, (base & 0xFF000000u) | (base >> 16 & 0xFF) | (attr & 0xF0FF) << 8 | (limit & 0xF0000));
}

/* Gates that INT n may meet, from vector 20h on: rights and selector. */
static const struct {
    uint8_t rights, sel;
} odd_gate[] = {{0xEF, 0x08}, {0xE6, 0x90}, {0x6E, 0x08}, {0xE2, 0x08}, {0xEE, 0xC0}, {0xEE, 0x00},
                {0xEE, 0x10}, {0xEE, 0xC8}, {0xEE, 0xF8}, {0x8F, 0x08}, {0xE7, 0x90}};

static void interrupt_table(uint8_t *idt)
{
    for (unsigned v = 0; v < 256; v++) {
        unsigned rights = v == 3 || v == 4 || v == 0x80 ? 0xEE : 0x8E, sel = 8;
        uint32_t at = W_HANDLER + 16 * v;

        if (v >= 0x20 && v - 0x20 < sizeof odd_gate / sizeof odd_gate[0]) {
            rights = odd_gate[v - 0x20].rights;
            sel = odd_gate[v - 0x20].sel;
        }
        if (sel == 0x90)
            at = 0x8000;
        put(idt + 8 * v, 4, sel << 16 | (at & 0xFFFF));
        put(idt + 8 * v + 4, 4, (at & 0xFFFF0000u) | rights << 8);
    }
}

/* Values that instructions like to meet lie about in the data: integers at their ends, floating-point special
 * values. */
static void base_pattern(void)
{
    uint64_t s = 0x9E3779B97F4A7C15u;
    uint8_t *const base = base_bytes - W_CODE16;

    memset(flat_code, 0xFF, sizeof flat_code);
    memset(base + W_CODE16, 0xFF, W_GDT - W_CODE16);
    for (uint32_t a = W_HOT; a < W_HOT + W_HOT_SIZE; a += 4) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        put(base + a, 4, (uint32_t)(s >> 16));
    }
    for (unsigned n = 0; n < sizeof gdt / sizeof gdt[0]; n++)
        descriptor(base + W_GDT + 8 + 8 * n, gdt[n].base, gdt[n].limit, gdt[n].attr);
    for (unsigned n = 0; n < sizeof ldt / sizeof ldt[0]; n++)
        descriptor(base + W_LDT + 8 + 8 * n, ldt[n].base, ldt[n].limit, ldt[n].attr);
    interrupt_table(base + W_IDT);
    put(base + W_TSS + 4, 4, W_STACK0);
    put(base + W_TSS + 8, 2, 0x10);
    put(base + W_TSS + 0x66, 2, 0x68);
    for (unsigned n = 0; n < 0x80; n++) /* ports 0..3FFh */
        base[W_TSS + 0x68 + n] = n % 3 ? 0 : 0x5A;
    base[W_TSS + 0xE8] = 0xFF;
}

static uint32_t real_vector[256];

static void real_vectors(uint8_t *ram)
{
    for (unsigned v = 0; v < 256; v++)
        real_vector[v] = W_CODE16 >> 4 << 16 | (W_HANDLER16 + 16 * v);
    memcpy(ram, real_vector, sizeof real_vector);
}

static void fill(uint8_t *ram)
{
    memcpy(ram + W_CODE16, base_bytes, sizeof base_bytes);
    real_vectors(ram);
    memcpy(ram + BOX_CODE, flat_code, sizeof flat_code);
}

void world_init(void)
{
    base_pattern();
    box_init_with(&world_map);
    box.vm->bus = quiet_bus(BOX_RAM_BYTES);
    box.oracle->bus = quiet_bus(BOX_RAM_BYTES);
    box_reset(1);
    ref_init();
    fill(box.ram);
    fill(box.oracle_ram);
    fill(ref_ram);
}

uint32_t world_rights(bool paging, uint32_t lin, uint32_t *phys)
{
    *phys = lin;
    if (!paging)
        return lin < BOX_RAM_BYTES && !(lin >= 0xA0000 && lin < 0xC0000) ? ALL : 0;
    for (unsigned n = 0; n < world_ranges; n++)
        if (lin - world_range[n].linear < world_range[n].pages * 4096) {
            *phys = world_range[n].ram + (lin - world_range[n].linear);
            return world_range[n].rights;
        }
    return 0;
}

struct cpu_seg world_segment(enum diff_mode mode, unsigned seg, uint16_t sel)
{
    struct cpu_seg s = {.sel = sel, .unusable = 1};
    unsigned n = (sel >> 3) - 1;

    (void)seg;
    if (diff_mode_real(mode))
        return (struct cpu_seg){(uint32_t)sel << 4, 0xFFFF, sel, mode == DIFF_V86 ? 0xF3 : 0x93, 0};
    if (sel & 4 && n < sizeof ldt / sizeof ldt[0])
        s = (struct cpu_seg){ldt[n].base, ldt[n].limit, sel, (uint16_t)ldt[n].attr, 0};
    else if (!(sel & 4) && n < sizeof gdt / sizeof gdt[0] && !(gdt[n].attr & GATE))
        s = (struct cpu_seg){gdt[n].base, gdt[n].limit, sel, (uint16_t)gdt[n].attr, 0};
    return s;
}

uint16_t world_selector(enum diff_mode mode, uint32_t r)
{
    static const uint16_t real[] = {0x2000, 0x2000, 0x1FFF,
                                    0x1F00, 0x1E80, 0x1C00}; /* they end inside the hot pages */

    if (diff_mode_real(mode))
        return real[r % (sizeof real / sizeof real[0])];
    switch (r >> 16 & 15) {
    case 0:
        return (uint16_t)(r & 3);
    case 1:
        return (uint16_t)(r & 0xFFFF);
    case 2:
        return (uint16_t)((r % 5 + 1) << 3 | 4 | (r >> 8 & 3));
    default:
        return (uint16_t)((r % (sizeof gdt / sizeof gdt[0] + 1) + 1) << 3 |
                          (r >> 8 & 7 ? diff_mode_cpl(mode) : r >> 12 & 3));
    }
}

/* -- Cases
 * ---------------------------------------------------------------------------------------------------------
 */

static void all_rams(uint8_t *out[3])
{
    out[0] = box.ram;
    out[1] = box.oracle_ram;
    out[2] = ref_ram;
}

/* Everywhere, and in what world_end() puts back. */
static void put_everywhere(uint32_t at, const void *bytes, unsigned n)
{
    uint8_t *ram[3];

    all_rams(ram);
    for (unsigned k = 0; k < 3; k++)
        memcpy(ram[k] + at, bytes, n);
    memcpy(at >= BOX_CODE ? flat_code + (at - BOX_CODE) : base_bytes + (at - W_CODE16), bytes, n);
}

void world_clear_code(enum diff_mode mode)
{
    uint8_t filler[2 * 4096];

    memset(filler, 0xFF, sizeof filler);
    put_everywhere(diff_code_base(mode) + diff_code_page(mode), filler, sizeof filler);
}

void world_uncode(const struct diff_case *d)
{
    uint8_t filler[DIFF_CODE_MAX];

    memset(filler, 0xFF, sizeof filler);
    put_everywhere(diff_code_base(d->mode) + d->eip, filler, d->len);
}

void world_code(const struct diff_case *d)
{
    uint32_t base = diff_code_base(d->mode);

    put_everywhere(base + d->eip, d->code, d->len);
    if ((d->eip + d->len) % 4096 || d->eip + d->len < diff_code_page(d->mode) + 2 * 4096)
        put_everywhere(base + d->eip + d->len, "\xF4", 1);
    if (d->target)
        put_everywhere(base + d->target, "\xF4", 1);
}

void world_set_mode(enum diff_mode mode)
{
    if (mode == mode_now)
        return;
    mode_now = mode;
    if (diff_mode_translated(mode))
        box_set_user(diff_mode_cpl(mode) == 3);
    ref_set_mode(mode);
    mmu_flush_tlb(box.vm);
    mmu_flush_tlb(box.oracle);
}

static void start_cpu(struct cpu *c, const struct diff_case *d)
{
    static const uint8_t reserved[512 - 288] = {0};
    bool real = d->mode == DIFF_REAL;

    memcpy(c->gpr, d->gpr, sizeof c->gpr);
    c->eip = d->eip;
    cpu_set_eflags(c, d->eflags);
    c->cr0 = d->cr0;
    c->cr2 = 0;
    c->cr4 = d->cr4;
    c->cpl = diff_mode_cpl(d->mode);
    for (unsigned s = 0; s < 6; s++)
        c->seg[s] = world_segment(d->mode, s, d->sel[s]);
    c->gdtr = (struct cpu_table){W_GDT, GDT_LIMIT};
    c->idtr = real ? (struct cpu_table){0, 0x3FF} : (struct cpu_table){W_IDT, 0x7FF};
    c->tr = (struct cpu_seg){W_TSS, 0xE8, 0x28, 0x8B, 0};
    c->ldtr = (struct cpu_seg){W_LDT, 0x1F, 0x30, 0x82, 0};
    memset(c->dr, 0, sizeof c->dr);
    c->dr[6] = 0xFFFF0FF0u;
    c->dr[7] = 0x400;
    c->shadow = c->halted = c->nmi_blocked = 0;
    c->irq_pending = 0;
    c->sysenter_cs = 8;
    c->sysenter_esp = W_HOT + 0x800;
    c->sysenter_eip = W_HANDLER + 0x900;
    c->tsc_offset = 0;
    c->efer = 0;
    c->host_fx_live = 0;
    memcpy(c->fx, d->fx, sizeof d->fx);
    memcpy(c->fx + sizeof d->fx, reserved, sizeof reserved);
    box_segments(c);
}

void world_start(const struct diff_case *d)
{
    uint8_t *ram[3];

    world_set_mode(d->mode);
    all_rams(ram);
    for (unsigned p = 0; p < d->plants; p++)
        for (unsigned n = 0; n < 3; n++)
            memcpy(ram[n] + d->plant[p].at, d->plant[p].bytes, d->plant[p].len);
    start_cpu(box.cpu, d);
    start_cpu(box.oracle->cpu, d);
    start_cpu(ref_cpu, d);
    box.cpu->cr3 = box.oracle->cpu->cr3 = ref_cpu->cr3 = 0x3F0000;
    mmu_flush_tlb(box.vm);
    mmu_flush_tlb(box.oracle);
}

static void put_back(uint8_t *ram, const uint8_t *right, uint32_t n)
{
    for (uint32_t at = 0; at < n; at += 4096)
        if (memcmp(ram + at, right + at, 4096))
            memcpy(ram + at, right + at, 4096);
}

void world_end(const struct diff_case *d)
{
    uint8_t *ram[3];

    all_rams(ram);
    for (unsigned n = 0; n < 3; n++) {
        if (d->mode == DIFF_REAL) /* a single step behind LSS is delivered on whatever stack that is */
            memcpy(ram[n], real_vector, sizeof real_vector);
        put_back(ram[n] + W_CODE16, base_bytes, sizeof base_bytes);
        put_back(ram[n] + BOX_CODE, flat_code, sizeof flat_code);
    }
}

/* One instruction, or all of a stream that falls through: whatever does not go on there has ended. */
static bool is_string(const struct diff_case *d)
{
    unsigned n = 0;

    while (n < d->len && strchr("\x66\x67\xF0\xF2\xF3\x26\x2E\x36\x3E\x64\x65", d->code[n]))
        n++;
    return n < d->len &&
           ((d->code[n] >= 0xA4 && d->code[n] <= 0xAF) || (d->code[n] >= 0x6C && d->code[n] <= 0x6F));
}

bool world_ends_at(const struct diff_case *d, const uint8_t *ram, uint32_t eip, const struct cpu *c)
{
    uint32_t off = eip - d->eip;

    if (c->seg[SCAN_CS].base != diff_code_base(d->mode) || off >= d->len)
        return true;
    if (d->insns == 1)
        return off != 0 || !is_string(d); /* zero: a repeat that goes on, or a jump to itself */
    return ram[c->seg[SCAN_CS].base + eip] == 0xF4;
}

static enum diff_stop ended(const struct vm *vm, const struct diff_case *d, enum emu_result r)
{
    const struct cpu *c = vm->cpu;

    if (r == EMU_SHUTDOWN)
        return DIFF_SHUTDOWN;
    if (r == EMU_HALT)
        return DIFF_HALT;
    return world_ends_at(d, vm->ram, c->eip, c) ? DIFF_END : DIFF_BROKEN;
}

enum diff_stop run_emulated(const struct diff_case *d, unsigned limit)
{
    enum emu_result r = EMU_OK;
    const struct cpu *c = box.oracle->cpu;

    for (unsigned n = 0; n < limit && r == EMU_OK; n++) {
        r = emu_step(box.oracle);
        if (world_ends_at(d, box.oracle->ram, c->eip, c))
            break;
    }
    return ended(box.oracle, d, r);
}

/* What must hold when the first instruction faults on the host: nothing of it has happened. */
static bool undone(const struct diff_case *d)
{
    const struct cpu *c = box.cpu;
    uint32_t off = c->eip - BOX_CODE;
    int n = off < 4096 ? box.page->index[off] : -1;

    if (c->eip != d->eip || (n >= 0 && box.page->insn[n].cls == SCAN_CLASS_STRING))
        return true;
    return !memcmp(c->gpr, d->gpr, sizeof c->gpr) && cpu_eflags(c) == (d->eflags | CPU_FLAG1);
}

enum diff_stop run_translated(const struct diff_case *d)
{
    const struct cpu *c = box.cpu;

    box.stop_not = d->eip;
    for (unsigned n = 0; n < 64; n++) {
        enum box_stop stop = box_run(200);
        enum emu_result r;

        if (stop == BOX_HLT || stop == BOX_OUTSIDE)
            return DIFF_END;
        if (stop == BOX_SHUTDOWN)
            return c->halted ? DIFF_HALT : DIFF_SHUTDOWN;
        if (stop != BOX_FAULT || box.fault.at.state == XLAT_RETRY || !undone(d))
            return DIFF_BROKEN;
        r = emu_step(box.vm); /* raises what the guest must see */
        if (r != EMU_OK || world_ends_at(d, box.vm->ram, c->eip, c))
            return ended(box.vm, d, r);
    }
    return DIFF_BROKEN;
}
