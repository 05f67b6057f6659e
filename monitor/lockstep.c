/* monitor/lockstep.c: translated code against the emulator, one instruction at a time.
 *
 * Each instruction runs twice on the same state: first translated (code made with XLAT_OPT_STEP, which leaves
 * after every instruction), then, with registers and the memory it can have written put back, in the
 * emulator, whose result is kept. Registers, defined flags, x87/SSE state and that memory must agree.
 * Instructions that leave to the emulator, and those that fault, run there only; their unwound state must be
 * the state before the instruction.
 *
 * Memory compared: 64 bytes at the explicit operand, the stack from 96 bytes below ESP to 96 above it, 32
 * bytes at EDI and EDI's run of a repeated string instruction up to 4 KiB.
 */
#include <stdio.h>
#include <string.h>

#include "monitor/machine.h"
#include "monitor/lockstep.h"

#define AREA_MAX   5u
#define AREA_BYTES 8192u

struct area {
    uint32_t lin, len;
    uint8_t before[AREA_BYTES], translated[AREA_BYTES];
    uint8_t *hva[AREA_BYTES / PAGE_SIZE_ + 2]; /* per page, NULL where not RAM */
};

static struct area areas[AREA_MAX];
static unsigned area_count;

static void area_copy(struct area *a, uint8_t *buf, bool to_guest)
{
    for (uint32_t i = 0; i < a->len;) {
        uint32_t lin = a->lin + i, in_page = PAGE_SIZE_ - (lin & PAGE_MASK_);
        uint32_t n = a->len - i < in_page ? a->len - i : in_page;
        uint8_t *p = a->hva[((a->lin & PAGE_MASK_) + i) / PAGE_SIZE_];
        if (p && to_guest)
            memcpy(p + (lin & PAGE_MASK_), buf + i, n);
        else if (p)
            memcpy(buf + i, p + (lin & PAGE_MASK_), n);
        i += n;
    }
}

static void area_add(struct machine *m, uint32_t lin, uint32_t len)
{
    struct area *a = &areas[area_count++];
    a->lin = lin;
    a->len = len;
    for (uint32_t i = 0; i * PAGE_SIZE_ < (lin & PAGE_MASK_) + len; i++) {
        struct mmu_page p;
        uint32_t page = (lin & ~PAGE_MASK_) + i * PAGE_SIZE_;
        a->hva[i] = NULL;
        if (mmu_probe(&m->vm, gva(page), &p))
            a->hva[i] = vm_readable(&m->vm, p.page.v);
    }
    area_copy(a, a->before, false);
}

static uint32_t operand_address(const struct cpu *c, const struct scan_insn *i)
{
    uint32_t ea = (uint32_t)i->disp;
    if (i->has_modrm && i->modrm < 0xC0) {
        unsigned mod = scan_modrm_mod(i), rm = scan_modrm_rm(i);
        if (rm == 4 && i->has_sib) {
            unsigned base = i->sib & 7, index = i->sib >> 3 & 7;
            if (!(base == 5 && mod == 0))
                ea += c->gpr[base];
            if (index != 4)
                ea += c->gpr[index] << (i->sib >> 6);
        } else if (!(rm == 5 && mod == 0)) {
            ea += c->gpr[rm];
        }
    }
    unsigned seg = i->seg;
    return ea + (seg <= SCAN_GS ? c->seg[seg].base : 0);
}

static void gather(struct machine *m, const struct scan_insn *i)
{
    const struct cpu *c = m->vm.cpu;
    area_count = 0;
    area_add(m, c->gpr[CPU_ESP] - 96, 192);
    uint32_t ea = operand_address(c, i);
    /* Bit strings reach beyond their operand by the register's value. */
    if (i->map == SCAN_MAP_0F &&
        (i->opcode == 0xAB || i->opcode == 0xB3 || i->opcode == 0xBB || i->opcode == 0xA3))
        ea += (uint32_t)((int32_t)c->gpr[scan_modrm_reg(i)] >> 5) * 4;
    if (i->disp_len || i->has_modrm)
        area_add(m, ea, 64);
    /* POP [esp+x] computes its address after the increment. */
    if (i->cls == SCAN_CLASS_STRING) {
        uint32_t run = 32;
        if (i->prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE))
            run = c->gpr[CPU_ECX] < 1000 ? c->gpr[CPU_ECX] * 4 + 4 : 4096;
        if (c->arith & CPU_DF)
            area_add(m, c->gpr[CPU_EDI] - run + 4, run);
        else
            area_add(m, c->gpr[CPU_EDI], run);
    }
}

/* Flags that the manual leaves undefined for an instruction (SDM vol. 1, table A-1). */
static uint32_t undefined_flags(const struct scan_insn *i, const struct cpu *before)
{
    unsigned reg = scan_modrm_reg(i), op = i->opcode;
    const uint32_t sziap = CPU_SF | CPU_ZF | CPU_AF | CPU_PF;
    if (i->map == SCAN_MAP_1B) {
        if ((op & 0xFE) == 0xF6 && reg >= 6)
            return CPU_ARITH;
        if (((op & 0xFE) == 0xF6 && reg >= 4) || op == 0x69 || op == 0x6B)
            return sziap;
        if (op == 0xC0 || op == 0xC1 || (op >= 0xD0 && op <= 0xD3)) {
            unsigned count = op <= 0xC1 ? i->imm & 31 : op <= 0xD1 ? 1 : before->gpr[CPU_ECX] & 31;
            unsigned bits = op & 1 ? i->opsize * 8u : 8;
            if (count == 0)
                return 0;
            uint32_t f = count == 1 ? 0 : CPU_OF;
            if (reg >= 4)
                f |= CPU_AF | (count >= bits ? CPU_CF : 0);
            return f;
        }
        if ((op < 0x40 && ((op >> 3 & 7) == 1 || (op >> 3 & 7) == 4 || (op >> 3 & 7) == 6)) ||
            ((op & 0xFC) == 0x80 && (reg == 1 || reg == 4 || reg == 6)) || op == 0x84 || op == 0x85 ||
            op == 0xA8 || op == 0xA9 || ((op & 0xFE) == 0xF6 && reg < 2))
            return CPU_AF;
        if (op == 0xD4 || op == 0xD5)
            return CPU_OF | CPU_AF | CPU_CF;
        if (op == 0x27 || op == 0x2F || op == 0x37 || op == 0x3F)
            return CPU_OF | CPU_SF | CPU_ZF | CPU_PF;
    } else if (i->map == SCAN_MAP_0F) {
        if (op == 0xA4 || op == 0xA5 || op == 0xAC || op == 0xAD)
            return CPU_AF | CPU_OF | (i->opsize == 2 ? CPU_ARITH : 0);
        if (op == 0xAF)
            return sziap;
        if (op == 0xBC || op == 0xBD)
            return CPU_ARITH & ~(uint32_t)CPU_ZF;
        if (op == 0xA3 || op == 0xAB || op == 0xB3 || op == 0xBB || op == 0xBA)
            return CPU_OF | CPU_SF | CPU_AF | CPU_PF;
    }
    return 0;
}

static void print_state(const char *title, const struct cpu *c)
{
    fprintf(stderr,
            "  %-10s eip=%08x eax=%08x ecx=%08x edx=%08x ebx=%08x esp=%08x ebp=%08x esi=%08x edi=%08x "
            "flags=%08x\n",
            title, c->eip, c->gpr[0], c->gpr[1], c->gpr[2], c->gpr[3], c->gpr[4], c->gpr[5], c->gpr[6],
            c->gpr[7], cpu_eflags(c));
}

static enum lockstep_result differ(struct machine *m, const char *what, const struct cpu *before,
                                   const struct cpu *translated, const struct scan_insn *i)
{
    uint8_t bytes[16] = {0};
    char text[96] = "?";
    struct mmu_page p;
    const uint8_t *page = mmu_probe(&m->vm, gva(before->eip), &p) ? vm_readable(&m->vm, p.page.v) : NULL;
    if (page) {
        memcpy(bytes, page + (before->eip & PAGE_MASK_), 15);
        scan_disassemble(bytes, 15, 32, before->eip, text, sizeof(text));
    }
    fprintf(stderr,
            "verso: lockstep: %s differs after %llu instructions at %08x: %s (cpl %u)\n  bytes:", what,
            (unsigned long long)m->counter[RUN_COUNTER_LOCKSTEP_INSNS], before->eip, text, before->cpl);
    for (unsigned n = 0; n < i->len; n++)
        fprintf(stderr, " %02x", bytes[n]);
    fputc('\n', stderr);
    print_state("before", before);
    print_state("translated", translated);
    print_state("emulated", m->vm.cpu);
    m->ended = true;
    m->end = RUN_LOCKSTEP_DIFF;
    return LOCKSTEP_DIFFER;
}

static bool fpu_equal(const struct cpu *a, const struct cpu *b)
{
    /* FCW FSW FTW, then ST0-7 (10 of 16 bytes each), MXCSR, XMM0-7; not the instruction and data pointers and
     * the opcode. */
    if (memcmp(a->fx, b->fx, 5) || memcmp(a->fx + 24, b->fx + 24, 4) || memcmp(a->fx + 160, b->fx + 160, 128))
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a->fx + 32 + 16 * i, b->fx + 32 + 16 * i, 10))
            return false;
    return true;
}

/* An instruction that writes the paging entry that maps what it writes: whether A and D of the new entry are
 * set at once or with the next walk is the TLB's choice (SDM vol. 3, 4.8). */
static bool own_entry(struct machine *m, uint32_t lin, uint8_t a, uint8_t b)
{
    struct mmu_page p;
    if ((a ^ b) & ~0x60 || !mmu_probe(&m->vm, gva(lin), &p))
        return false;
    return (p.pde.v ^ p.page.v) >> 12 == 0 || (p.pte.v ^ p.page.v) >> 12 == 0;
}

static enum lockstep_result compare(struct machine *m, const struct cpu *before, const struct cpu *t,
                                    const struct scan_insn *i)
{
    const struct cpu *e = m->vm.cpu;
    uint32_t undefined = undefined_flags(i, before);
    bool tsc = i->cls == SCAN_CLASS_RDTSC;
    for (unsigned r = 0; r < 8; r++)
        if (t->gpr[r] != e->gpr[r] && !(tsc && (r == CPU_EAX || r == CPU_EDX)) &&
            !((i->opcode == 0xBC || i->opcode == 0xBD) && i->map == SCAN_MAP_0F && (e->arith & CPU_ZF)))
            return differ(m, "a register", before, t, i);
    if (t->eip != e->eip)
        return differ(m, "EIP", before, t, i);
    if ((cpu_eflags(t) ^ cpu_eflags(e)) & ~undefined)
        return differ(m, "EFLAGS", before, t, i);
    if ((i->cls == SCAN_CLASS_FPU || i->cls == SCAN_CLASS_SIMD) && !fpu_equal(t, e))
        return differ(m, "the x87/SSE state", before, t, i);
    static uint8_t now[AREA_BYTES];
    for (unsigned n = 0; n < area_count; n++) {
        struct area *a = &areas[n];
        memcpy(now, a->translated, a->len); /* where not RAM */
        area_copy(a, now, false);
        if (memcmp(now, a->translated, a->len)) {
            uint32_t at = 0;
            while (at < a->len &&
                   (now[at] == a->translated[at] || own_entry(m, a->lin + at, now[at], a->translated[at])))
                at++;
            if (at == a->len)
                continue;
            fprintf(stderr, "verso: lockstep: byte at %08x: before %02x, translated %02x, emulated %02x\n",
                    a->lin + at, a->before[at], a->translated[at], now[at]);
            return differ(m, "memory", before, t, i);
        }
    }
    m->counter[RUN_COUNTER_LOCKSTEP_INSNS]++;
    return LOCKSTEP_EQUAL;
}

/* Reads the instruction at EIP. False: not all of it is readable RAM. */
static bool fetch(struct machine *m, struct scan_insn *i)
{
    uint8_t bytes[SCAN_INSN_MAX_LEN];
    uint32_t eip = m->vm.cpu->eip;
    unsigned n = 0;
    struct mmu_page p;
    while (n < sizeof(bytes)) {
        uint32_t at = eip + n, room = PAGE_SIZE_ - (at & PAGE_MASK_);
        const uint8_t *page = mmu_probe(&m->vm, gva(at), &p) ? vm_readable(&m->vm, p.page.v) : NULL;
        if (!page)
            break;
        unsigned take = room < sizeof(bytes) - n ? room : (unsigned)sizeof(bytes) - n;
        memcpy(bytes + n, page + (at & PAGE_MASK_), take);
        n += take;
    }
    return scan_decode(bytes, n, 32, i) == SCAN_OK;
}

enum lockstep_result lockstep_step(struct machine *m)
{
    static struct cpu before, translated;
    struct cpu *c = m->vm.cpu;
    struct scan_insn insn;
    bool readable = fetch(m, &insn);
    uint32_t events = m->events;
    before = *c;
    if (readable)
        gather(m, &insn);
    else
        area_count = 0;
    m->why = XLAT_STUB_EMULATE;
    uint32_t why = stub_enter(c);
    COUNT(m, EXITS);
    translated = *c;
    if (why == XLAT_STUB_MISS && c->eip == before.eip)
        return LOCKSTEP_RESOLVE;
    if (why == STUB_EXIT_ABORTED || why == STUB_EXIT_SIGNAL) {
        if (c->eip == before.eip)
            return LOCKSTEP_SIGNAL;
        why = XLAT_STUB_STEP; /* interrupted after the instruction: as good as a step */
    }
    if (xlat_stub_emulates(why) || why == STUB_EXIT_FAULT) {
        if (c->eip != before.eip || memcmp(c->gpr, before.gpr, sizeof(c->gpr)) ||
            cpu_eflags(c) != cpu_eflags(&before))
            /* A repeated string instruction may have got some way; all else must be as before. */
            if (!(readable && insn.cls == SCAN_CLASS_STRING && c->eip == before.eip))
                return differ(m, "the unwound state", &before, &translated, &insn);
        return LOCKSTEP_EMULATE;
    }
    if (!readable)
        return LOCKSTEP_EQUAL;
    /* Areas may overlap: all are read before the first is put back. */
    for (unsigned n = 0; n < area_count; n++)
        area_copy(&areas[n], areas[n].translated, false);
    for (unsigned n = 0; n < area_count; n++)
        area_copy(&areas[n], areas[n].before, true);
    uint64_t shadow = c->host_shadow;
    uint32_t pending = c->irq_pending;
    *c = before;
    c->host_shadow = shadow;
    c->irq_pending = pending;
    if (m->events != events) /* while the state was copied, perhaps */
        c->host_event = 1;
    do { /* the emulator does a long repeat in parts */
        (void)emu_step(&m->vm);
    } while (insn.cls == SCAN_CLASS_STRING && c->eip == before.eip && translated.eip != before.eip &&
             c->gpr[CPU_ECX] != translated.gpr[CPU_ECX]);
    /* The stub reports STI's shadow by its reason; the emulator in the state. */
    return compare(m, &before, &translated, &insn);
}
