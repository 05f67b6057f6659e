/* tests/diff/model.c: what 64-bit user code cannot do on the host, after the operation sections of SDM vol. 2
 * and vol. 3, chapters 5 to 7: the stack, decimal adjustment, segments, far transfers, interrupts, system
 * instructions, and string instructions and bit strings where segments are not flat. Task switches are not
 * modelled.
 *
 * Short functions in the order of the manual's text; nothing here is fast, and nothing is taken from the
 * emulator.
 */
#include "ref.h"

#include <string.h>

#define FLAGS_ARITH (CPU_CF | CPU_PF | CPU_AF | CPU_ZF | CPU_SF | CPU_OF)

static uint32_t flags(void)
{
    return cpu_eflags(ref.c);
}

static void set_flag(uint32_t bits, bool on)
{
    cpu_set_eflags(ref.c, on ? flags() | bits : flags() & ~bits);
}

static bool v86(void)
{
    return (ref.c->cr0 & CPU_CR0_PE) && (flags() & CPU_VM);
}

static bool real_like(void) /* real or virtual-8086 mode */
{
    return !(ref.c->cr0 & CPU_CR0_PE) || v86();
}

static unsigned iopl(void)
{
    return flags() >> 12 & 3;
}

static _Noreturn void gp(uint32_t error)
{
    ref_raise(CPU_EXC_GP, true, error);
}

static _Noreturn void ud(void)
{
    ref_raise(CPU_EXC_UD, false, 0);
}

static void privileged(void)
{
    if (ref.c->cpl != 0)
        gp(0);
}

static void align_check(uint32_t lin, unsigned size)
{
    if (ref_aligns() && size > 1 && !(size & (size - 1)) && (lin & (size - 1)))
        ref_raise(CPU_EXC_AC, true, 0);
}

/* -- Memory of the program
 * ------------------------------------------------------------------------------------------- */

static uint32_t load(unsigned seg, uint32_t off, unsigned size)
{
    uint32_t lin = ref_segment(seg, off, size, false);

    align_check(lin, size);
    return ref_read(lin, size, ref.c->cpl == 3);
}

static void store(unsigned seg, uint32_t off, unsigned size, uint32_t v)
{
    uint32_t lin = ref_segment(seg, off, size, true);

    align_check(lin, size);
    ref_write(lin, size, v, ref.c->cpl == 3);
}

/* Raises what a store would. */
static void probe(unsigned seg, uint32_t off, unsigned size)
{
    uint32_t lin = ref_segment(seg, off, size, true);

    align_check(lin, size);
    ref_touch(lin, size, true, ref.c->cpl == 3);
}

static uint32_t amask(void)
{
    return ref.asz == 2 ? 0xFFFF : 0xFFFFFFFFu;
}

static uint32_t rm_read(unsigned size)
{
    return ref.mem ? load(ref_seg(), ref_ea(), size) : ref_get(ref.rm, size);
}

static void rm_write(unsigned size, uint32_t v)
{
    if (ref.mem)
        store(ref_seg(), ref_ea(), size, v);
    else
        ref_put(ref.rm, size, v);
}

/* -- The stack
 * ---------------------------------------------------------------------------------------------------------
 */

static uint32_t stack_mask(void)
{
    return ref.c->seg[SCAN_SS].attr & 0x4000 ? 0xFFFFFFFFu : 0xFFFFu;
}

static void set_sp(uint32_t v)
{
    uint32_t m = stack_mask(), *sp = &ref.c->gpr[CPU_ESP];

    *sp = (*sp & ~m) | (v & m);
}

static uint32_t stack_slot(unsigned n, unsigned size) /* n-th from the top */
{
    return load(SCAN_SS, (ref.c->gpr[CPU_ESP] + n * size) & stack_mask(), size);
}

static void push(unsigned size, uint32_t v)
{
    uint32_t sp = ref.c->gpr[CPU_ESP] - size;

    store(SCAN_SS, sp & stack_mask(), size, v);
    set_sp(sp);
}

static uint32_t pop(unsigned size)
{
    uint32_t v = stack_slot(0, size);

    set_sp(ref.c->gpr[CPU_ESP] + size);
    return v;
}

static void pusha(void)
{
    uint32_t sp = ref.c->gpr[CPU_ESP], m = stack_mask();

    for (unsigned r = 0; r < 8; r++)
        probe(SCAN_SS, (sp - (r + 1) * ref.osz) & m, ref.osz);
    for (unsigned r = 0; r < 8; r++)
        store(SCAN_SS, (sp - (r + 1) * ref.osz) & m, ref.osz, ref_get(r, ref.osz));
    set_sp(sp - 8 * ref.osz);
}

static void popa(void)
{
    uint32_t v[8];

    for (unsigned n = 0; n < 8; n++)
        v[n] = stack_slot(n, ref.osz);
    for (unsigned r = 0; r < 8; r++)
        if (r != CPU_ESP)
            ref_put(r, ref.osz, v[7 - r]);
    set_sp(ref.c->gpr[CPU_ESP] + 8 * ref.osz);
}

/* The frame pointers are copied one by one, so that those pushed may be among those read; first everything
 * that may fault. */
static void enter(void)
{
    struct cpu *c = ref.c;
    uint32_t m = stack_mask(), sp = c->gpr[CPU_ESP], bp = c->gpr[CPU_EBP],
             frame = (sp & ~m) | ((sp - ref.osz) & m);
    unsigned level = ref.imm2 & 31, n = level ? level + 1 : 1;
    uint32_t end = sp - n * ref.osz - ref.imm;

    for (unsigned k = 1; k < level; k++)
        load(SCAN_SS, (bp - k * ref.osz) & m, ref.osz);
    for (unsigned k = 1; k <= n; k++)
        probe(SCAN_SS, (sp - k * ref.osz) & m, ref.osz);
    ref_touch(ref_segment(SCAN_SS, end & m, 1, true), 1, true, c->cpl == 3);
    store(SCAN_SS, (sp - ref.osz) & m, ref.osz, bp);
    for (unsigned k = 1; k < level; k++)
        store(SCAN_SS, (sp - (k + 1) * ref.osz) & m, ref.osz, load(SCAN_SS, (bp - k * ref.osz) & m, ref.osz));
    if (level)
        store(SCAN_SS, (sp - n * ref.osz) & m, ref.osz, frame);
    ref_put(CPU_EBP, ref.osz, frame);
    set_sp(end);
}

static void leave(void)
{
    uint32_t bp = ref.c->gpr[CPU_EBP], v = load(SCAN_SS, bp & stack_mask(), ref.osz);

    set_sp(bp + ref.osz);
    ref_put(CPU_EBP, ref.osz, v);
}

/* -- Decimal adjustment (SDM vol. 2, AAA to DAS). What is undefined is not compared.
 * ------------------------------------- */

static void result_flags(uint8_t v)
{
    bool parity = !(__builtin_popcount(v) & 1);

    set_flag(CPU_SF | CPU_ZF | CPU_PF | CPU_OF, false);
    set_flag((v & 0x80 ? CPU_SF : 0) | (v ? 0 : CPU_ZF) | (parity ? CPU_PF : 0), true);
}

static void daa_das(bool sub)
{
    uint8_t old = (uint8_t)ref_get(0, 1), al = old;
    bool old_cf = flags() & CPU_CF, cf = false, af = false;

    if ((old & 15) > 9 || (flags() & CPU_AF)) {
        unsigned sum = sub ? (unsigned)al - 6 : al + 6u;

        cf = old_cf || sum > 0xFF;
        al = (uint8_t)sum;
        af = true;
    }
    if (old > 0x99 || old_cf) {
        al = (uint8_t)(sub ? al - 0x60 : al + 0x60);
        cf = true;
    }
    ref_put(0, 1, al);
    result_flags(al);
    set_flag(CPU_CF, cf);
    set_flag(CPU_AF, af);
}

static void aaa_aas(bool sub)
{
    bool adjust = (ref_get(0, 1) & 15) > 9 || (flags() & CPU_AF);

    if (adjust)
        ref_put(0, 2, sub ? ref_get(0, 2) - 0x106 : ref_get(0, 2) + 0x106);
    ref_put(0, 1, ref_get(0, 1) & 15);
    set_flag(CPU_AF | CPU_CF, adjust);
}

static void aam(void)
{
    uint32_t al = ref_get(0, 1), base = ref.imm & 0xFF;

    if (!base)
        ref_raise(CPU_EXC_DE, false, 0);
    ref_put(0, 2, al / base << 8 | al % base);
    result_flags((uint8_t)(al % base));
}

static void aad(void)
{
    uint8_t v = (uint8_t)(ref_get(0, 1) + ref_get(4, 1) * ref.imm);

    ref_put(0, 2, v);
    result_flags(v);
}

static void bound(void)
{
    uint32_t ea = ref_ea();
    unsigned seg = ref_seg();
    int32_t low = (int32_t)load(seg, ea, ref.osz),
            high = (int32_t)load(seg, (ea + ref.osz) & amask(), ref.osz);
    int32_t v = (int32_t)ref_get(ref.reg, ref.osz);

    if (ref.osz == 2) {
        low = (int16_t)low;
        high = (int16_t)high;
        v = (int16_t)v;
    }
    if (v < low || v > high)
        ref_raise(CPU_EXC_BR, false, 0);
}

/* -- Near branches
 * ----------------------------------------------------------------------------------------------------- */

static bool condition(unsigned cc)
{
    uint32_t f = flags();
    bool c = f & CPU_CF, z = f & CPU_ZF, s = f & CPU_SF, o = f & CPU_OF, p = f & CPU_PF;
    const bool is[8] = {o, c, z, c || z, s, p, s != o, z || s != o};

    return is[cc >> 1] != (cc & 1);
}

static void go(uint32_t eip)
{
    if (ref.osz == 2)
        eip &= 0xFFFF;
    if (eip > ref.c->seg[SCAN_CS].limit)
        gp(0);
    ref.next = eip;
}

static void loop(void)
{
    uint32_t n = ref_get(CPU_ECX, ref.asz);
    bool z = flags() & CPU_ZF;

    if (ref.opcode == 0xE3) {
        if (!n)
            go(ref.next + ref.imm);
        return;
    }
    n = (n - 1) & amask();
    if (n && (ref.opcode == 0xE2 || z == (ref.opcode == 0xE1)))
        go(ref.next + ref.imm);
    ref_put(CPU_ECX, ref.asz, n);
}

static void near_call(uint32_t to)
{
    uint32_t back = ref.next;

    go(to);
    push(ref.osz, back);
}

static void near_return(void)
{
    go(stack_slot(0, ref.osz));
    set_sp(ref.c->gpr[CPU_ESP] + ref.osz + (ref.opcode == 0xC2 ? ref.imm : 0));
}

/* -- Descriptors (SDM vol. 3, 3.4.5, 3.5)
 * -------------------------------------------------------------------------------- */

struct descriptor {
    uint32_t lo, hi, lin;
    unsigned type, dpl; /* type: S and type bits */
    bool present;
};

static bool read_descriptor(uint16_t sel, struct descriptor *d)
{
    const struct cpu *c = ref.c;
    uint32_t base = sel & 4 ? c->ldtr.base : c->gdtr.base, limit = sel & 4 ? c->ldtr.limit : c->gdtr.limit;

    if ((sel & 4 && c->ldtr.unusable) || (sel | 7u) > limit)
        return false;
    d->lin = base + (sel & ~7u);
    d->lo = ref_read(d->lin, 4, false);
    d->hi = ref_read(d->lin + 4, 4, false);
    d->type = d->hi >> 8 & 31;
    d->dpl = d->hi >> 13 & 3;
    d->present = d->hi >> 15 & 1;
    return true;
}

static uint32_t descriptor_limit(const struct descriptor *d)
{
    uint32_t l = (d->lo & 0xFFFF) | (d->hi & 0xF0000);

    return d->hi & 1u << 23 ? l << 12 | 0xFFF : l;
}

static struct cpu_seg as_segment(uint16_t sel, const struct descriptor *d)
{
    return (struct cpu_seg){(d->hi & 0xFF000000u) | (d->hi & 0xFF) << 16 | d->lo >> 16, descriptor_limit(d),
                            sel, (uint16_t)(d->hi >> 8 & 0xF0FF), 0};
}

static uint32_t sel_error(uint16_t sel)
{
    return sel & 0xFFFCu;
}

static bool null(uint16_t sel)
{
    return !(sel & 0xFFFC);
}

static bool is_code(const struct descriptor *d)
{
    return (d->type & 0x18) == 0x18;
}

static bool is_writable_data(const struct descriptor *d)
{
    return (d->type & 0x1A) == 0x12;
}

static void need_descriptor(uint16_t sel, struct descriptor *d, unsigned vector, unsigned ext)
{
    if (!read_descriptor(sel, d))
        ref_raise(vector, true, sel_error(sel) | ext);
}

static void mark_accessed(struct descriptor *d)
{
    if (!(d->hi & 0x100))
        ref_write(d->lin + 5, 1, d->hi >> 8 | 1, false);
    d->hi |= 0x100;
}

/* MOV, POP and LxS to a segment register (SDM vol. 2, MOV). */
static void load_segment(unsigned seg, uint16_t sel)
{
    struct cpu *c = ref.c;
    struct descriptor d;
    unsigned rpl = sel & 3;

    if (real_like()) {
        c->seg[seg].sel = sel;
        c->seg[seg].base = (uint32_t)sel << 4;
        return;
    }
    if (null(sel)) {
        if (seg == SCAN_SS)
            gp(0);
        c->seg[seg].sel = sel;
        c->seg[seg].unusable = 1;
        return;
    }
    need_descriptor(sel, &d, CPU_EXC_GP, 0);
    if (seg == SCAN_SS) {
        if (rpl != c->cpl || !is_writable_data(&d) || d.dpl != c->cpl)
            gp(sel_error(sel));
        if (!d.present)
            ref_raise(CPU_EXC_SS, true, sel_error(sel));
    } else {
        bool conforming = (d.type & 0x1C) == 0x1C;

        if (!(d.type & 0x10) || (is_code(&d) && !(d.type & 2)))
            gp(sel_error(sel));
        if (!conforming && (rpl > d.dpl || c->cpl > d.dpl))
            gp(sel_error(sel));
        if (!d.present)
            ref_raise(CPU_EXC_NP, true, sel_error(sel));
    }
    mark_accessed(&d);
    c->seg[seg] = as_segment(sel, &d);
}

static void load_pointer(unsigned seg)
{
    uint32_t ea = ref_ea();
    unsigned from = ref_seg();
    uint32_t off = load(from, ea, ref.osz);
    uint16_t sel = (uint16_t)load(from, (ea + ref.osz) & amask(), 2);

    load_segment(seg, sel);
    ref_put(ref.reg, ref.osz, off);
}

static void arpl(void)
{
    uint32_t dst, src = ref_get(ref.reg, 2);

    if (real_like())
        ud();
    if (ref.mem)
        probe(ref_seg(), ref_ea(), 2);
    dst = rm_read(2);
    set_flag(CPU_ZF, (dst & 3) < (src & 3));
    if ((dst & 3) < (src & 3))
        rm_write(2, (dst & ~3u) | (src & 3));
}

static bool visible(uint16_t sel, struct descriptor *d)
{
    if (null(sel) || !read_descriptor(sel, d))
        return false;
    return (d->type & 0x1C) == 0x1C || (d->dpl >= ref.c->cpl && d->dpl >= (sel & 3u));
}

static void lar_lsl(bool lsl)
{
    static const uint32_t lar_types = 0x1A3E,
                          lsl_types = 0x0A0E; /* system descriptors (tables of LAR and LSL) */
    struct descriptor d;
    uint16_t sel;
    bool ok;

    if (real_like())
        ud();
    sel = (uint16_t)rm_read(2);
    ok = visible(sel, &d) && (d.type & 0x10 || (lsl ? lsl_types : lar_types) >> d.type & 1);
    if (ok)
        ref_put(ref.reg, ref.osz, lsl ? descriptor_limit(&d) : d.hi & (ref.osz == 4 ? 0x00F0FF00u : 0xFF00u));
    set_flag(CPU_ZF, ok);
}

static void verify(bool write)
{
    struct descriptor d;
    uint16_t sel = (uint16_t)rm_read(2);
    bool ok = visible(sel, &d) && (d.type & 0x10);

    if (write)
        ok = ok && is_writable_data(&d);
    else
        ok = ok && (!is_code(&d) || (d.type & 2));
    set_flag(CPU_ZF, ok);
}

static void load_system(bool task)
{
    struct descriptor d;
    uint16_t sel = (uint16_t)rm_read(2);

    if (null(sel)) {
        if (task)
            gp(0);
        ref.c->ldtr.sel = sel;
        ref.c->ldtr.unusable = 1;
        return;
    }
    if (sel & 4)
        gp(sel_error(sel));
    need_descriptor(sel, &d, CPU_EXC_GP, 0);
    if (task ? d.type != 1 && d.type != 9 : d.type != 2)
        gp(sel_error(sel));
    if (!d.present)
        ref_raise(CPU_EXC_NP, true, sel_error(sel));
    if (task) {
        d.hi |= 0x200;
        ref_write(d.lin + 5, 1, d.hi >> 8, false);
    }
    *(task ? &ref.c->tr : &ref.c->ldtr) = as_segment(sel, &d);
}

/* -- Far transfers
 * ------------------------------------------------------------------------------------------------------- */

static void set_cs(uint16_t sel, struct descriptor *d, unsigned cpl, uint32_t eip)
{
    mark_accessed(d);
    ref.c->seg[SCAN_CS] = as_segment((uint16_t)((sel & ~3u) | cpl), d);
    ref.c->cpl = cpl;
    ref.next = eip;
}

static void set_cs_real(uint16_t sel, uint32_t eip)
{
    if (eip > ref.c->seg[SCAN_CS].limit)
        gp(0);
    ref.c->seg[SCAN_CS].sel = sel;
    ref.c->seg[SCAN_CS].base = (uint32_t)sel << 4;
    ref.next = eip;
}

/* A frame on a stack that may not be SS:ESP yet: its room is checked, then that the EIP to go to (past the
 * limit: by how much does not matter) is in its segment, then it is written. Returns the new stack pointer.
 */
static uint32_t push_frame(const struct cpu_seg *ss, uint32_t sp, unsigned size, const uint32_t *v,
                           unsigned n, bool user, uint32_t error, bool past, uint32_t past_error)
{
    uint32_t m = ss->attr & 0x4000 ? 0xFFFFFFFFu : 0xFFFFu, lin[48];
    bool down = ss->attr & 4;

    for (unsigned k = 0; k < n; k++) {
        uint32_t off = (sp - (k + 1) * size) & m;
        uint64_t last = (uint64_t)off + size - 1;

        if (down ? off <= ss->limit || last > m : last > ss->limit && ss->limit != 0xFFFFFFFFu)
            ref_raise(CPU_EXC_SS, true, error);
        lin[k] = ss->base + off;
    }
    if (past)
        gp(past_error);
    for (unsigned k = 0; k < n; k++) {
        if (user)
            align_check(lin[k], size);
        ref_touch(lin[k], size, true, user);
    }
    for (unsigned k = 0; k < n; k++)
        ref_write(lin[k], size, v[k], user);
    return (sp & ~m) | ((sp - n * size) & m);
}

struct inner {
    uint16_t sel;
    uint32_t sp;
    struct descriptor d;
    struct cpu_seg seg;
};

static void inner_stack(unsigned level, struct inner *s, unsigned ext) /* SDM vol. 3, 5.8.5 */
{
    const struct cpu_seg *tr = &ref.c->tr;
    uint32_t at = 4 + 8 * level;

    if (!(tr->attr & 8))
        ref_skip();
    if (at + 5 > tr->limit)
        ref_raise(CPU_EXC_TS, true, sel_error(tr->sel) | ext);
    s->sp = ref_read(tr->base + at, 4, false);
    s->sel = (uint16_t)ref_read(tr->base + at + 4, 2, false);
    if (null(s->sel))
        ref_raise(CPU_EXC_TS, true, ext);
    need_descriptor(s->sel, &s->d, CPU_EXC_TS, ext);
    if ((s->sel & 3u) != level || s->d.dpl != level || !is_writable_data(&s->d))
        ref_raise(CPU_EXC_TS, true, sel_error(s->sel) | ext);
    if (!s->d.present)
        ref_raise(CPU_EXC_SS, true, sel_error(s->sel) | ext);
    s->seg = as_segment(s->sel, &s->d);
}

static void enter_inner(struct inner *s, uint32_t sp)
{
    mark_accessed(&s->d);
    ref.c->seg[SCAN_SS] = as_segment(s->sel, &s->d);
    if (s->seg.attr & 0x4000)
        ref.c->gpr[CPU_ESP] = sp;
    else
        ref_put(CPU_ESP, 2, sp);
}

static void call_gate(uint16_t sel, const struct descriptor *gate, bool call)
{
    struct cpu *c = ref.c;
    unsigned size = gate->type & 8 ? 4 : 2, params = gate->hi & 31, n = 0;
    uint16_t cs = (uint16_t)(gate->lo >> 16);
    uint32_t eip = (gate->lo & 0xFFFF) | (size == 4 ? gate->hi & 0xFFFF0000u : 0), v[40], arg[32], sp;
    struct descriptor d;

    if (gate->dpl < c->cpl || (sel & 3u) > gate->dpl)
        gp(sel_error(sel));
    if (!gate->present)
        ref_raise(CPU_EXC_NP, true, sel_error(sel));
    if (null(cs))
        gp(0);
    need_descriptor(cs, &d, CPU_EXC_GP, 0);
    bool conforming = d.type & 4;

    if (!is_code(&d) || d.dpl > c->cpl || (!call && !conforming && d.dpl != c->cpl))
        gp(sel_error(cs));
    if (!d.present)
        ref_raise(CPU_EXC_NP, true, sel_error(cs));
    if (!call || conforming || d.dpl == c->cpl) {
        sp = c->gpr[CPU_ESP];
        if (call) {
            v[0] = c->seg[SCAN_CS].sel;
            v[1] = ref.next;
            sp = push_frame(&c->seg[SCAN_SS], sp, size, v, 2, c->cpl == 3, 0, eip > descriptor_limit(&d), 0);
        }
        if (eip > descriptor_limit(&d))
            gp(0);
        set_cs(cs, &d, c->cpl, eip);
        c->gpr[CPU_ESP] = sp;
        return;
    }
    struct inner s;

    inner_stack(d.dpl, &s, 0);
    for (unsigned k = 0; k < params; k++)
        arg[k] = stack_slot(k, size);
    v[n++] = c->seg[SCAN_SS].sel;
    v[n++] = c->gpr[CPU_ESP];
    for (unsigned k = params; k; k--)
        v[n++] = arg[k - 1];
    v[n++] = c->seg[SCAN_CS].sel;
    v[n++] = ref.next;
    sp = push_frame(&s.seg, s.sp, size, v, n, false, sel_error(s.sel), eip > descriptor_limit(&d), 0);
    c->cpl = d.dpl;
    enter_inner(&s, sp);
    set_cs(cs, &d, d.dpl, eip);
}

static void far_transfer(uint16_t sel, uint32_t off, bool call)
{
    struct cpu *c = ref.c;
    struct descriptor d = {0};
    uint32_t v[2] = {c->seg[SCAN_CS].sel, ref.next}, sp = c->gpr[CPU_ESP];

    if (!real_like()) {
        if (null(sel))
            gp(0);
        need_descriptor(sel, &d, CPU_EXC_GP, 0);
        if (d.type == 4 || d.type == 12) {
            call_gate(sel, &d, call);
            return;
        }
        if (d.type == 1 || d.type == 5 || d.type == 9)
            ref_skip(); /* a task switch */
        if (!is_code(&d))
            gp(sel_error(sel));
        if (d.type & 4 ? d.dpl > c->cpl : (sel & 3u) > c->cpl || d.dpl != c->cpl)
            gp(sel_error(sel));
        if (!d.present)
            ref_raise(CPU_EXC_NP, true, sel_error(sel));
    }
    bool past = off > (real_like() ? c->seg[SCAN_CS].limit : descriptor_limit(&d));

    if (call)
        sp = push_frame(&c->seg[SCAN_SS], sp, ref.osz, v, 2, c->cpl == 3, 0, past, 0);
    if (real_like()) {
        set_cs_real(sel, off);
    } else {
        if (past)
            gp(0);
        set_cs(sel, &d, c->cpl, off);
    }
    c->gpr[CPU_ESP] = sp;
}

static void far_memory(bool call)
{
    uint32_t ea = ref_ea();
    unsigned seg = ref_seg();
    uint32_t off = load(seg, ea, ref.osz);

    far_transfer((uint16_t)load(seg, (ea + ref.osz) & amask(), 2), off, call);
}

static void check_return_cs(uint16_t cs, struct descriptor *d)
{
    unsigned rpl = cs & 3;

    if (null(cs))
        gp(0);
    need_descriptor(cs, d, CPU_EXC_GP, 0);
    if (!is_code(d) || rpl < ref.c->cpl || (d->type & 4 ? d->dpl > rpl : d->dpl != rpl))
        gp(sel_error(cs));
    if (!d->present)
        ref_raise(CPU_EXC_NP, true, sel_error(cs));
}

/* To an outer level: SS:ESP come from the stack, segments of the inner level are emptied. */
static void return_outwards(uint16_t cs, struct descriptor *code, uint32_t eip, uint16_t ss, uint32_t sp)
{
    static const uint8_t which[4] = {SCAN_ES, SCAN_FS, SCAN_GS, SCAN_DS};
    struct cpu *c = ref.c;
    struct descriptor d;
    unsigned rpl = cs & 3;

    if (null(ss))
        gp(0);
    need_descriptor(ss, &d, CPU_EXC_GP, 0);
    if ((ss & 3u) != rpl || !is_writable_data(&d) || d.dpl != rpl)
        gp(sel_error(ss));
    if (!d.present)
        ref_raise(CPU_EXC_SS, true, sel_error(ss));
    if (eip > descriptor_limit(code))
        gp(0);
    mark_accessed(&d);
    set_cs(cs, code, rpl, eip);
    c->seg[SCAN_SS] = as_segment(ss, &d);
    set_sp(sp);
    for (unsigned k = 0; k < 4; k++) {
        struct cpu_seg *s = &c->seg[which[k]];

        if (!s->unusable && (s->attr & 0x1C) != 0x1C && (s->attr >> 5 & 3u) < rpl) {
            s->sel = 0;
            s->unusable = 1;
        }
    }
}

static void far_return(void)
{
    struct cpu *c = ref.c;
    uint32_t eip = stack_slot(0, ref.osz), extra = ref.opcode == 0xCA ? ref.imm : 0;
    uint16_t cs = (uint16_t)stack_slot(1, ref.osz);
    struct descriptor d;

    if (real_like()) {
        set_cs_real(cs, eip);
        set_sp(c->gpr[CPU_ESP] + 2 * ref.osz + extra);
        return;
    }
    check_return_cs(cs, &d);
    if ((cs & 3u) == c->cpl) {
        if (eip > descriptor_limit(&d))
            gp(0);
        set_cs(cs, &d, c->cpl, eip);
        set_sp(c->gpr[CPU_ESP] + 2 * ref.osz + extra);
        return;
    }
    uint32_t at = c->gpr[CPU_ESP] + 2 * ref.osz + extra, m = stack_mask();
    uint32_t sp = load(SCAN_SS, at & m, ref.osz);
    uint16_t ss = (uint16_t)load(SCAN_SS, (at + ref.osz) & m, ref.osz);

    return_outwards(cs, &d, eip, ss, sp);
    set_sp(c->gpr[CPU_ESP] + extra);
}

static void put_flags(uint32_t v, uint32_t mask)
{
    if (ref.osz == 2)
        mask &= 0xFFFF;
    cpu_set_eflags(ref.c, (flags() & ~mask) | (v & mask));
}

#define FLAGS_ANY (FLAGS_ARITH | CPU_TF | CPU_DF | CPU_NT | CPU_AC | CPU_ID)

static void return_to_v86(uint32_t eip, uint16_t cs, uint32_t f)
{
    static const uint8_t which[4] = {SCAN_ES, SCAN_DS, SCAN_FS, SCAN_GS};
    struct cpu *c = ref.c;
    uint32_t v[9];

    for (unsigned n = 3; n < 9; n++)
        v[n] = stack_slot(n, 4);
    if (eip > 0xFFFF)
        gp(0);
    c->seg[SCAN_CS] = (struct cpu_seg){(uint32_t)cs << 4, 0xFFFF, cs, 0xF3, 0};
    c->seg[SCAN_SS] = (struct cpu_seg){(v[4] & 0xFFFF) << 4, 0xFFFF, (uint16_t)v[4], 0xF3, 0};
    for (unsigned n = 0; n < 4; n++)
        c->seg[which[n]] = (struct cpu_seg){(v[5 + n] & 0xFFFF) << 4, 0xFFFF, (uint16_t)v[5 + n], 0xF3, 0};
    c->gpr[CPU_ESP] = v[3];
    c->cpl = 3;
    cpu_set_eflags(c, f);
    ref.next = eip;
}

static void interrupt_return(void)
{
    struct cpu *c = ref.c;
    struct descriptor d;

    if (v86() && iopl() != 3)
        gp(0);
    if (!real_like() && (flags() & CPU_NT))
        ref_skip(); /* a task switch */
    uint32_t eip = stack_slot(0, ref.osz), f = stack_slot(2, ref.osz);
    uint16_t cs = (uint16_t)stack_slot(1, ref.osz);

    c->nmi_blocked = 0;
    if (real_like()) {
        set_cs_real(cs, eip);
        set_sp(c->gpr[CPU_ESP] + 3 * ref.osz);
        put_flags(f, FLAGS_ANY | CPU_RF | CPU_IF | (v86() ? 0 : CPU_IOPL));
        return;
    }
    if (ref.osz == 4 && (f & CPU_VM) && c->cpl == 0) {
        return_to_v86(eip, cs, f);
        return;
    }
    check_return_cs(cs, &d);
    uint32_t mask = FLAGS_ANY | CPU_RF | (c->cpl <= iopl() ? CPU_IF : 0) |
                    (c->cpl == 0 ? CPU_IOPL | CPU_VIF | CPU_VIP : 0);

    if ((cs & 3u) == c->cpl) {
        if (eip > descriptor_limit(&d))
            gp(0);
        set_cs(cs, &d, c->cpl, eip);
        set_sp(c->gpr[CPU_ESP] + 3 * ref.osz);
    } else {
        uint32_t sp = stack_slot(3, ref.osz);

        return_outwards(cs, &d, eip, (uint16_t)stack_slot(4, ref.osz), sp);
    }
    put_flags(f, mask);
}

/* -- Interrupts and exceptions (SDM vol. 2, INT n; vol. 3, 6.12)
 * --------------------------------------------------------- */

static void deliver_real(unsigned vector, uint32_t eip)
{
    struct cpu *c = ref.c;
    uint32_t v[3] = {flags(), c->seg[SCAN_CS].sel, eip}, to = ref_read(c->idtr.base + 4 * vector, 4, false);

    if (4 * vector + 3 > c->idtr.limit)
        gp(0);
    c->gpr[CPU_ESP] = push_frame(&c->seg[SCAN_SS], c->gpr[CPU_ESP], 2, v, 3, false, 0,
                                 (to & 0xFFFF) > c->seg[SCAN_CS].limit, 0);
    set_cs_real((uint16_t)(to >> 16), to & 0xFFFF);
    set_flag(CPU_IF | CPU_TF | CPU_AC | CPU_RF, false);
    c->eip = ref.next;
}

void ref_deliver(unsigned vector, unsigned kind, bool has_error, uint32_t error, uint32_t eip, unsigned ext)
{
    struct cpu *c = ref.c;
    uint32_t gate_error = vector * 8 + 2 + ext, v[16], image = flags() | (kind == KIND_FAULT ? CPU_RF : 0),
             clear, sp;
    struct descriptor gate, d;
    unsigned n = 0, size;
    uint16_t cs;

    ref.next = eip;
    if (!(c->cr0 & CPU_CR0_PE)) {
        deliver_real(vector, eip);
        return;
    }
    if (vector * 8 + 7 > c->idtr.limit)
        gp(gate_error);
    gate.lo = ref_read(c->idtr.base + 8 * vector, 4, false);
    gate.hi = ref_read(c->idtr.base + 8 * vector + 4, 4, false);
    gate.type = gate.hi >> 8 & 31;
    gate.dpl = gate.hi >> 13 & 3;
    if (gate.type != 5 && gate.type != 6 && gate.type != 7 && gate.type != 14 && gate.type != 15)
        gp(gate_error);
    if (kind == KIND_SOFT && gate.dpl < c->cpl)
        gp(gate_error);
    if (!(gate.hi & 0x8000))
        ref_raise(CPU_EXC_NP, true, gate_error);
    if (gate.type == 5)
        ref_skip();
    size = gate.type & 8 ? 4 : 2;
    cs = (uint16_t)(gate.lo >> 16);
    uint32_t to = (gate.lo & 0xFFFF) | (size == 4 ? gate.hi & 0xFFFF0000u : 0);

    if (null(cs))
        gp(ext);
    need_descriptor(cs, &d, CPU_EXC_GP, ext);
    if (!is_code(&d) || d.dpl > c->cpl)
        gp(sel_error(cs) | ext);
    if (!d.present)
        ref_raise(CPU_EXC_NP, true, sel_error(cs) | ext);
    bool inner = !(d.type & 4) && d.dpl < c->cpl, from_v86 = v86();

    if (from_v86 && (!inner || d.dpl != 0))
        gp(sel_error(cs) | ext);
    struct inner s = {0};

    if (inner)
        inner_stack(d.dpl, &s, ext);
    static const uint8_t data[4] = {SCAN_GS, SCAN_FS, SCAN_DS, SCAN_ES};

    for (unsigned k = 0; from_v86 && k < 4; k++)
        v[n++] = c->seg[data[k]].sel;
    if (inner) {
        v[n++] = c->seg[SCAN_SS].sel;
        v[n++] = c->gpr[CPU_ESP];
    }
    v[n++] = image;
    v[n++] = c->seg[SCAN_CS].sel;
    v[n++] = eip;
    if (has_error)
        v[n++] = error;
    bool past = to > descriptor_limit(&d);

    if (inner)
        sp = push_frame(&s.seg, s.sp, size, v, n, false, sel_error(s.sel) | ext, past, ext);
    else
        sp = push_frame(&c->seg[SCAN_SS], c->gpr[CPU_ESP], size, v, n, c->cpl == 3, ext, past, ext);
    clear = CPU_TF | CPU_VM | CPU_RF | CPU_NT | (gate.type & 1 ? 0 : CPU_IF);
    cpu_set_eflags(c, flags() & ~clear);
    if (inner) {
        c->cpl = d.dpl;
        enter_inner(&s, sp);
    } else {
        c->gpr[CPU_ESP] = sp;
    }
    set_cs(cs, &d, c->cpl, to);
    for (unsigned k = 0; from_v86 && k < 4; k++) {
        c->seg[data[k]].sel = 0;
        c->seg[data[k]].unusable = 1;
    }
    c->eip = ref.next;
}

static void software_interrupt(unsigned vector)
{
    ref.traps =
        false; /* TF is clear in the handler, which is where the step would be taken (SDM vol. 3, 17.3.1.4) */
    if (ref.opcode == 0xCD && v86() && iopl() != 3)
        gp(0);
    ref_deliver(vector, ref.opcode == 0xF1 ? KIND_TRAP : KIND_SOFT, false, 0, ref.next, ref.opcode == 0xF1);
}

/* -- Flags
 * -------------------------------------------------------------------------------------------------------------
 */

static void pushf(void)
{
    if (v86() && iopl() != 3)
        gp(0);
    push(ref.osz, flags() & ~(uint32_t)(CPU_VM | CPU_RF));
}

static void popf(void)
{
    uint32_t mask = FLAGS_ANY | CPU_RF, v;

    if (v86() && iopl() != 3)
        gp(0);
    v = pop(ref.osz) & ~(uint32_t)(CPU_RF | CPU_VIP | CPU_VIF);
    if (real_like() || ref.c->cpl <= iopl())
        mask |= CPU_IF;
    if (!v86() && ref.c->cpl == 0)
        mask |= CPU_IOPL | CPU_VIP | CPU_VIF;
    put_flags(v, mask);
}

static void cli_sti(bool on)
{
    if ((ref.c->cr0 & CPU_CR0_PE) && ref.c->cpl > iopl())
        gp(0);
    set_flag(CPU_IF, on);
}

/* -- System instructions
 * ------------------------------------------------------------------------------------------------ */

static void system_group6(void)
{
    if (real_like())
        ud();
    switch (ref.reg) {
    case 0:
    case 1:
        rm_write(ref.mem ? 2 : ref.osz, ref.reg ? ref.c->tr.sel : ref.c->ldtr.sel);
        break;
    case 2:
    case 3:
        privileged();
        load_system(ref.reg == 3);
        break;
    default:
        verify(ref.reg == 5);
        break;
    }
}

static void write_cr0(uint32_t v)
{
    uint32_t known = CPU_CR0_PE | CPU_CR0_MP | CPU_CR0_EM | CPU_CR0_TS | CPU_CR0_NE | CPU_CR0_WP |
                     CPU_CR0_AM | CPU_CR0_NW | CPU_CR0_CD | CPU_CR0_PG;

    if (((v & CPU_CR0_PG) && !(v & CPU_CR0_PE)) || ((v & CPU_CR0_NW) && !(v & CPU_CR0_CD)))
        gp(0);
    ref.c->cr0 = (v & known) | CPU_CR0_ET;
}

static void table_register(void)
{
    struct cpu_table *t = ref.reg & 1 ? &ref.c->idtr : &ref.c->gdtr;
    uint32_t ea = ref_ea();
    unsigned seg = ref_seg();

    if (ref.reg < 2) {
        uint32_t lin = ref_segment(seg, ea, 6, true);

        align_check(lin, ref.osz); /* SDM vol. 3, table 6-7 */
        ref_touch(lin, 6, true, ref.c->cpl == 3);
        ref_write(lin, 2, t->limit, ref.c->cpl == 3);
        ref_write(lin + 2, 4, t->base, ref.c->cpl == 3);
        return;
    }
    privileged();
    uint32_t limit = load(seg, ea, 2), base = load(seg, (ea + 2) & amask(), 4);

    t->limit = (uint16_t)limit;
    t->base = ref.osz == 2 ? base & 0xFFFFFF : base;
}

static void system_group7(void)
{
    if (!ref.mem && ref.reg != 4 && ref.reg != 6)
        ud(); /* VMX, MONITOR, SVM and the like */
    switch (ref.reg) {
    case 4:
        rm_write(ref.mem ? 2 : ref.osz, ref.c->cr0);
        break;
    case 6:
        privileged();
        write_cr0((ref.c->cr0 & ~14u) | (rm_read(2) & 15) | (ref.c->cr0 & CPU_CR0_PE));
        break;
    case 7:
        privileged();
        break;
    default:
        table_register();
        break;
    }
}

static void move_cr(void)
{
    struct cpu *c = ref.c;
    uint32_t v = c->gpr[ref.rm];
    static const uint32_t cr4_known = CPU_CR4_TSD | CPU_CR4_DE | CPU_CR4_PSE | CPU_CR4_PAE | CPU_CR4_PGE |
                                      CPU_CR4_PCE | CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT;
    uint32_t *const reg[5] = {&c->cr0, NULL, &c->cr2, &c->cr3, &c->cr4};

    privileged();
    if (ref.opcode == 0x22 &&
        ref.traps) /* the step would be delivered through page tables that are not the world's */
        ref_skip();
    if (ref.opcode == 0x20)
        c->gpr[ref.rm] = *reg[ref.reg];
    else if (ref.reg == 0)
        write_cr0(v);
    else if (ref.reg == 4 && (v & ~cr4_known))
        gp(0);
    else
        *reg[ref.reg] = v;
}

static void move_dr(void)
{
    struct cpu *c = ref.c;
    unsigned n = ref.reg;

    if (n == 4 || n == 5) {
        if (c->cr4 & CPU_CR4_DE)
            ud();
        n += 2;
    }
    privileged();
    if (ref.opcode != 0x21 && n == 7 && (c->gpr[ref.rm] & 0xFF) && (cpu_eflags(c) & CPU_TF))
        ref_skip(); /* the trap behind it may write its frame where a breakpoint is now */
    if (ref.opcode == 0x21)
        c->gpr[ref.rm] = c->dr[n];
    else if (n == 6) /* SDM vol. 3, 17.2.3: bits 4..11 and 16..31 read as one, 12 as zero */
        c->dr[6] = (c->gpr[ref.rm] & 0xE00F) | 0xFFFF0FF0u;
    else if (n == 7) /* bit 10 one; 11, 12, 14, 15 zero */
        c->dr[7] = (c->gpr[ref.rm] & 0xFFFF23FFu) | 0x400;
    else
        c->dr[n] = c->gpr[ref.rm];
}

static void msr(void)
{
    struct cpu *c = ref.c;
    uint32_t *reg;

    if (ref.opcode == 0x33) /* RDPMC: there are no counters */
        gp(0);
    privileged();
    switch (c->gpr[CPU_ECX]) {
    case 0x174:
        reg = &c->sysenter_cs;
        break;
    case 0x175:
        reg = &c->sysenter_esp;
        break;
    case 0x176:
        reg = &c->sysenter_eip;
        break;
    case 0x12345678:
        gp(0);
    default:
        ref_skip();
    }
    if (ref.opcode == 0x30) {
        *reg = c->gpr[CPU_EAX];
        return;
    }
    c->gpr[CPU_EAX] = *reg;
    c->gpr[CPU_EDX] = 0;
}

static void flat_pair(unsigned cs, unsigned cpl)
{
    struct cpu *c = ref.c;
    uint16_t dpl = (uint16_t)(cpl << 5);

    c->seg[SCAN_CS] = (struct cpu_seg){0, 0xFFFFFFFFu, (uint16_t)(cs | cpl), 0xC09B | dpl, 0};
    c->seg[SCAN_SS] = (struct cpu_seg){0, 0xFFFFFFFFu, (uint16_t)((cs + 8) | cpl), 0xC093 | dpl, 0};
    c->cpl = cpl;
}

static void sysenter(bool out)
{
    struct cpu *c = ref.c;
    unsigned cs = c->sysenter_cs & 0xFFFC;

    if (!(c->cr0 & CPU_CR0_PE) || !cs || (out && (c->cpl != 0 || v86())))
        gp(0);
    if (out) {
        flat_pair(cs + 16, 3);
        c->gpr[CPU_ESP] = c->gpr[CPU_ECX];
        ref.next = c->gpr[CPU_EDX];
        return;
    }
    set_flag(CPU_VM | CPU_IF | CPU_RF, false);
    flat_pair(cs, 0);
    c->gpr[CPU_ESP] = c->sysenter_esp;
    ref.next = c->sysenter_eip;
}

/* -- Ports (SDM vol. 1, 19.5): nothing answers at the ports that are generated.
 * ------------------------------------------ */

static void port_rights(uint16_t port, unsigned size)
{
    const struct cpu *c = ref.c;
    uint32_t map, bits;

    if (!(c->cr0 & CPU_CR0_PE) || (!v86() && c->cpl <= iopl()))
        return;
    if (!(c->tr.attr & 8) || c->tr.limit < 0x67)
        gp(0);
    map = ref_read(c->tr.base + 0x66, 2, false) + port / 8;
    if (map + 1 > c->tr.limit)
        gp(0);
    bits = ref_read(c->tr.base + map, 2, false) >> (port & 7);
    if (bits & ((1u << size) - 1))
        gp(0);
}

static void port(void)
{
    unsigned size = ref.opcode & 1 ? ref.osz : 1;
    uint16_t at = ref.opcode & 8 ? (uint16_t)ref.c->gpr[CPU_EDX] : (uint16_t)(ref.imm & 0xFF);

    port_rights(at, size);
    if (!(ref.opcode & 2))
        ref_put(CPU_EAX, size, 0xFFFFFFFFu);
}

/* -- Strings and bit strings behind segments
 * ----------------------------------------------------------------------------- */

static void compare_flags(uint32_t a, uint32_t b, unsigned size)
{
    uint32_t top = 1u << (8 * size - 1), r = (a - b) & (top | (top - 1));

    result_flags((uint8_t)r);
    set_flag(CPU_SF | CPU_ZF, false);
    set_flag((r & top ? CPU_SF : 0) | (r ? 0 : CPU_ZF), true);
    set_flag(CPU_CF, a < b);
    set_flag(CPU_AF, (a & 15) < (b & 15));
    set_flag(CPU_OF, (a ^ b) & (a ^ r) & top);
}

static void advance(unsigned reg, unsigned size)
{
    uint32_t m = amask(), v = ref.c->gpr[reg], by = flags() & CPU_DF ? 0u - size : size;

    ref.c->gpr[reg] = (v & ~m) | ((v + by) & m);
}

/* One element; false: the repeat ends here by its condition. */
static bool string_element(unsigned size)
{
    struct cpu *c = ref.c;
    unsigned src = ref.seg == SCAN_SEG_NONE ? SCAN_DS : ref.seg, op = ref.opcode & 0xFE;
    uint32_t si = c->gpr[CPU_ESI] & amask(), di = c->gpr[CPU_EDI] & amask(), a;
    uint16_t dx = (uint16_t)c->gpr[CPU_EDX];

    switch (op) {
    case 0xA4:
        a = load(src, si, size);
        store(SCAN_ES, di, size, a);
        break;
    case 0xA6:
        a = load(src, si, size);
        compare_flags(a, load(SCAN_ES, di, size), size);
        break;
    case 0xAA:
        store(SCAN_ES, di, size, ref_get(CPU_EAX, size));
        break;
    case 0xAC:
        ref_put(CPU_EAX, size, load(src, si, size));
        break;
    case 0xAE:
        compare_flags(ref_get(CPU_EAX, size), load(SCAN_ES, di, size), size);
        break;
    case 0x6C:
        port_rights(dx, size);
        store(SCAN_ES, di, size, 0xFFFFFFFFu);
        break;
    default:
        port_rights(dx, size);
        load(src, si, size);
        break;
    }
    if (op == 0xA4 || op == 0xA6 || op == 0xAC || op == 0x6E)
        advance(CPU_ESI, size);
    if (op != 0xAC && op != 0x6E)
        advance(CPU_EDI, size);
    return !(op == 0xA6 || op == 0xAE) || !!(flags() & CPU_ZF) == (ref.rep == 0xF3);
}

static void string(void)
{
    struct cpu *c = ref.c;
    unsigned size = ref.opcode & 1 ? ref.osz : 1;
    bool more = true;

    if (!ref.rep) {
        string_element(size);
        return;
    }
    while (more && (c->gpr[CPU_ECX] & amask())) {
        more = string_element(size);
        ref_put(CPU_ECX, ref.asz, c->gpr[CPU_ECX] - 1);
        if (ref.traps && more && (c->gpr[CPU_ECX] & amask())) { /* each repetition is a step */
            ref.next = c->eip;
            break;
        }
    }
}

/* BT and its kin on memory: the bit offset reaches beyond the operand. */
static void bit_string(void)
{
    unsigned size = ref.osz, kind = ref.opcode >> 3 & 3, seg = ref_seg();
    int32_t n = size == 4 ? (int32_t)ref_get(ref.reg, 4) : (int16_t)ref_get(ref.reg, 2);
    uint32_t ea = (ref_ea() + (uint32_t)(n >> (size == 4 ? 5 : 4)) * size) & amask();
    uint32_t bit = 1u << (n & (int32_t)(8 * size - 1)), v;

    if (kind)
        probe(seg, ea, size);
    v = load(seg, ea, size);
    set_flag(CPU_CF, v & bit);
    if (kind)
        store(seg, ea, size, kind == 1 ? v | bit : kind == 2 ? v & ~bit : v ^ bit);
}

static void masked_store(void)
{
    struct cpu *c = ref.c;
    bool xmm = ref.p66;
    unsigned n = xmm ? 16 : 8, seg = ref.seg == SCAN_SEG_NONE ? SCAN_DS : ref.seg;
    uint32_t at = c->gpr[CPU_EDI];
    uint16_t fsw;
    uint8_t *fx = c->fx, st[128];

    memcpy(&fsw, fx + 2, 2);
    unsigned top = fsw >> 11 & 7;
    const uint8_t *src = xmm ? fx + 160 + 16 * ref.reg : fx + 32 + 16 * ((ref.reg - top) & 7);
    const uint8_t *mask = xmm ? fx + 160 + 16 * ref.rm : fx + 32 + 16 * ((ref.rm - top) & 7);

    ref_need(xmm ? UNIT_SSE : UNIT_MMX);
    for (unsigned k = 0; k < n; k++)
        if (mask[k] & 0x80)
            probe(seg, (at + k) & amask(), 1);
    for (unsigned k = 0; k < n; k++)
        if (mask[k] & 0x80)
            store(seg, (at + k) & amask(), 1, src[k]);
    if (xmm)
        return;
    for (unsigned k = 0; k < 8; k++) /* TOP becomes 0; the registers stay where they are */
        memcpy(st + 16 * k, fx + 32 + 16 * ((k - top) & 7), 16);
    memcpy(fx + 32, st, sizeof st);
    fsw &= 0xC7FF;
    memcpy(fx + 2, &fsw, 2);
    fx[4] = 0xFF;
}

/* -- x87 images (SDM vol. 1, 8.1.10, figures 8-9 to 8-12), FXSAVE (vol. 1, 10.5.1), MXCSR
 * ---------------------------------- */

static uint32_t word(const uint8_t *p, unsigned size)
{
    uint32_t v = 0;

    memcpy(&v, p, size);
    return v;
}

static unsigned tag_of(unsigned phys)
{
    const uint8_t *fx = ref.c->fx, *st = fx + 32 + 16 * ((phys - (word(fx + 2, 2) >> 11 & 7)) & 7);
    unsigned exponent = word(st + 8, 2) & 0x7FFF;
    bool zero = !word(st, 4) && !word(st + 4, 4);

    if (!(fx[4] >> phys & 1))
        return 3;
    if (!exponent && zero)
        return 1;
    return exponent && exponent != 0x7FFF && st[7] & 0x80 ? 0 : 2;
}

static void settle_x87(void) /* ES and B follow from flags and masks */
{
    uint8_t *fx = ref.c->fx;
    uint16_t fcw = (uint16_t)((word(fx, 2) & 0x1F3F) | 0x40), fsw = (uint16_t)(word(fx + 2, 2) & 0x7F7F);

    if (fsw & ~fcw & 0x3F)
        fsw |= 0x8080;
    memcpy(fx, &fcw, 2);
    memcpy(fx + 2, &fsw, 2);
}

static void store_environment(uint8_t *out)
{
    const uint8_t *fx = ref.c->fx;
    uint32_t w[7] = {word(fx, 2), word(fx + 2, 2), 0}, fop = word(fx + 6, 2) & 0x7FF,
             ones = ref.osz == 4 ? 0xFFFF0000u : 0;
    uint32_t ip = word(fx + 8, 4), dp = word(fx + 16, 4), cs = word(fx + 12, 2), ds = word(fx + 20, 2);

    for (unsigned n = 0; n < 8; n++)
        w[2] |= tag_of(n) << 2 * n;
    for (unsigned n = 0; n < 3; n++)
        w[n] |= ones;
    if (real_like()) {
        ip += cs << 4;
        dp += ds << 4;
        w[3] = (ip & 0xFFFF) | ones;
        w[4] = (ip >> 16) << 12 | fop;
        w[5] = (dp & 0xFFFF) | ones;
        w[6] = (dp >> 16) << 12;
    } else {
        w[3] = ip;
        w[4] = cs | (ones ? fop << 16 : 0);
        w[5] = dp;
        w[6] = ds | ones;
    }
    for (unsigned n = 0; n < 7; n++)
        memcpy(out + n * ref.osz, &w[n], ref.osz);
}

/* Another TOP: the registers stay, so the image, which has them by their distance from it, changes. */
static void move_top(unsigned top)
{
    uint8_t *fx = ref.c->fx, st[8][16];
    unsigned by = top - (fx[3] >> 3 & 7);

    for (unsigned n = 0; n < 8; n++)
        memcpy(st[n], fx + 32 + 16 * ((n + by) & 7), 16);
    memcpy(fx + 32, st, sizeof st);
}

static void load_environment(const uint8_t *in)
{
    uint8_t *fx = ref.c->fx, tags = 0;
    uint32_t w[7], ip, dp, zero = 0;
    uint16_t fop = 0, cs = 0, ds = 0;

    for (unsigned n = 0; n < 7; n++)
        w[n] = word(in + n * ref.osz, ref.osz);
    for (unsigned n = 0; n < 8; n++)
        tags |= (uint8_t)(((w[2] >> 2 * n & 3) != 3) << n);
    ip = w[3];
    dp = w[5];
    if (real_like()) {
        ip = (w[3] & 0xFFFF) | w[4] >> 12 << 16;
        dp = (w[5] & 0xFFFF) | w[6] >> 12 << 16;
        fop = w[4] & 0x7FF;
    } else {
        cs = (uint16_t)w[4];
        ds = (uint16_t)w[6];
        fop = ref.osz == 4 ? w[4] >> 16 & 0x7FF : 0;
    }
    move_top(w[1] >> 11 & 7);
    memcpy(fx, &w[0], 2);
    memcpy(fx + 2, &w[1], 2);
    fx[4] = tags;
    memcpy(fx + 6, &fop, 2);
    memcpy(fx + 8, &ip, 4);
    memcpy(fx + 12, &cs, 2);
    memcpy(fx + 14, &zero, 2);
    memcpy(fx + 16, &dp, 4);
    memcpy(fx + 20, &ds, 2);
    memcpy(fx + 22, &zero, 2);
    settle_x87();
}

/* align: what the whole is checked for (SDM vol. 3, table 6-7); 1: nothing. */
static void read_block(uint8_t *buf, unsigned n, unsigned align)
{
    uint32_t lin = ref_segment(ref_seg(), ref_ea(), n, false);

    align_check(lin, align);
    ref_touch(lin, n, false, ref.c->cpl == 3);
    for (unsigned k = 0; k < n; k++)
        buf[k] = (uint8_t)ref_read(lin + k, 1, ref.c->cpl == 3);
}

static void write_block(const uint8_t *buf, unsigned n, unsigned align)
{
    uint32_t lin = ref_segment(ref_seg(), ref_ea(), n, true);

    align_check(lin, align);
    ref_touch(lin, n, true, ref.c->cpl == 3);
    for (unsigned k = 0; k < n; k++)
        ref_write(lin + k, 1, buf[k], ref.c->cpl == 3);
}

static void x87_environment(void)
{
    uint8_t *fx = ref.c->fx, buf[108];
    unsigned env = ref.osz == 4 ? 28 : 14, size = ref.opcode == 0xDD ? env + 80 : env;
    uint16_t fcw;

    ref_need(UNIT_X87);
    if (ref.reg == 4 && (fx[2] & 0x80))
        ref_raise(CPU_EXC_MF, false, 0);
    if (ref.reg == 4) {
        read_block(buf, size, ref.osz);
        load_environment(buf);
        for (unsigned n = 0; size > env && n < 8; n++)
            memcpy(fx + 32 + 16 * n, buf + env + 10 * n, 10);
        return;
    }
    store_environment(buf);
    for (unsigned n = 0; size > env && n < 8; n++)
        memcpy(buf + env + 10 * n, fx + 32 + 16 * n, 10);
    write_block(buf, size, ref.osz);
    if (size == env) {
        fcw = (uint16_t)(word(fx, 2) | 0x3F);
        memcpy(fx, &fcw, 2);
        settle_x87();
        return;
    }
    move_top(0);
    memset(fx, 0, 24);
    fcw = 0x37F;
    memcpy(fx, &fcw, 2);
}

static void fx_state(void)
{
    uint8_t *fx = ref.c->fx, buf[512] = {0};
    uint32_t mask = 0xFFFF;

    if (ref.c->cr0 & (CPU_CR0_EM | CPU_CR0_TS))
        ref_raise(CPU_EXC_NM, false, 0);
    if ((ref.c->seg[ref_seg()].base + ref_ea()) & 15)
        gp(0);
    if (ref.reg == 0) {
        memcpy(buf, fx, 288);
        memcpy(buf + 28, &mask, 4);
        memset(buf + 14, 0, 2);
        memset(buf + 22, 0, 2);
        buf[5] = 0;
        for (unsigned n = 0; n < 8; n++)
            memset(buf + 32 + 16 * n + 10, 0, 6);
        write_block(buf, 288, 1);
        return;
    }
    read_block(buf, 288, 1);
    if (word(buf + 24, 4) & ~mask)
        gp(0);
    memcpy(fx, buf, 288);
    fx[5] = 0;
    fx[7] &= 7;
    memset(fx + 14, 0, 2);
    memset(fx + 22, 0, 2);
    for (unsigned n = 0; n < 8; n++)
        memset(fx + 32 + 16 * n + 10, 0, 6);
    settle_x87();
}

static void mxcsr(void)
{
    uint32_t v;

    ref_need(UNIT_SSE);
    if (ref.reg == 3) {
        store(ref_seg(), ref_ea(), 4, word(ref.c->fx + 24, 4));
        return;
    }
    v = load(ref_seg(), ref_ea(), 4);
    if (v & ~0xFFFFu)
        gp(0);
    memcpy(ref.c->fx + 24, &v, 4);
}

static bool group15(void)
{
    if (ref.p66)
        ud(); /* CLFLUSHOPT, CLWB, PCOMMIT: not on this model unless added */
    if (!ref.mem)
        return true; /* fences */
    if (ref.reg < 2)
        fx_state();
    else if (ref.reg < 4)
        mxcsr();
    else if (ref.reg == 7) /* CLFLUSH: faults like a load of a byte (SDM vol. 2, CLFLUSH) */
        ref_touch(ref_segment(ref_seg(), ref_ea(), 1, false), 1, false, ref.c->cpl == 3);
    else
        ud();
    return true;
}

/* -- Which
 * ---------------------------------------------------------------------------------------------------------------
 */

static bool flat_data(unsigned seg)
{
    const struct cpu_seg *s = &ref.c->seg[seg];

    return !s->unusable && s->base == 0 && s->limit == 0xFFFFFFFFu && (s->attr & 0xA) == 2;
}

/* The host does strings and XLAT by itself where memory is flat. */
static bool host_strings(void)
{
    unsigned src = ref.seg == SCAN_SEG_NONE ? SCAN_DS : ref.seg;

    return ref_native_possible() && ref.asz == 4 && flat_data(src) && flat_data(SCAN_ES) &&
           !(ref.traps && ref.rep);
}

static bool group5(void)
{
    switch (ref.reg) {
    case 0:
    case 1:
        return false;
    case 2:
        near_call(rm_read(ref.osz));
        break;
    case 3:
        far_memory(true);
        break;
    case 4:
        go(rm_read(ref.osz));
        break;
    case 5:
        far_memory(false);
        break;
    case 6:
        push(ref.osz, rm_read(ref.osz));
        break;
    default:
        ud();
    }
    return true;
}

static void pop_rm(void)
{
    uint32_t v = stack_slot(0, ref.osz);

    set_sp(ref.c->gpr[CPU_ESP] + ref.osz); /* before the address is computed */
    rm_write(ref.osz, v);
}

static void pop_segment(unsigned seg)
{
    uint32_t sp = ref.c->gpr[CPU_ESP] + ref.osz, m = stack_mask(), old = ref.c->gpr[CPU_ESP];

    load_segment(seg, (uint16_t)stack_slot(0, ref.osz));
    ref.c->gpr[CPU_ESP] = (old & ~m) | (sp & m);
}

static void xlat(void)
{
    unsigned seg = ref.seg == SCAN_SEG_NONE ? SCAN_DS : ref.seg;

    ref_put(0, 1, load(seg, (ref.c->gpr[CPU_EBX] + ref_get(0, 1)) & amask(), 1));
}

static bool one_byte(void)
{
    struct cpu *c = ref.c;
    unsigned op = ref.opcode;

    switch (op) {
    case 0x06:
    case 0x0E:
    case 0x16:
    case 0x1E:
        push(ref.osz, c->seg[op >> 3].sel);
        break;
    case 0x07:
    case 0x17:
    case 0x1F:
        pop_segment(op >> 3);
        ref.traps &= op != 0x17;
        break;
    case 0x27:
    case 0x2F:
        daa_das(op == 0x2F);
        break;
    case 0x37:
    case 0x3F:
        aaa_aas(op == 0x3F);
        break;
    case 0x50 ... 0x57:
        push(ref.osz, c->gpr[op & 7]);
        break;
    case 0x58 ... 0x5F:
        ref_put(op & 7, ref.osz, pop(ref.osz));
        break;
    case 0x60:
        pusha();
        break;
    case 0x61:
        popa();
        break;
    case 0x62:
        bound();
        break;
    case 0x63:
        arpl();
        break;
    case 0x68:
        push(ref.osz, ref.imm);
        break;
    case 0x6A:
        push(ref.osz, (uint32_t)(int8_t)ref.imm);
        break;
    case 0x6C ... 0x6F:
        string();
        break;
    case 0xA4 ... 0xA7:
    case 0xAA ... 0xAF:
        if (host_strings())
            return false;
        string();
        break;
    case 0x70 ... 0x7F:
        if (condition(op & 15))
            go(ref.next + ref.imm);
        break;
    case 0x8C:
        rm_write(ref.mem ? 2 : ref.osz, c->seg[ref.reg].sel);
        break;
    case 0x8D:
        ref_put(ref.reg, ref.osz, ref_ea());
        break;
    case 0x8E:
        load_segment(ref.reg, (uint16_t)rm_read(2));
        ref.traps &= ref.reg != SCAN_SS; /* SDM vol. 3, 6.8.3 */
        break;
    case 0x8F:
        pop_rm();
        break;
    case 0x9A:
        far_transfer((uint16_t)ref.imm2, ref.imm, true);
        break;
    case 0x9C:
        pushf();
        break;
    case 0x9D:
        popf();
        break;
    case 0xC2:
    case 0xC3:
        near_return();
        break;
    case 0xC4:
    case 0xC5:
        load_pointer(op == 0xC4 ? SCAN_ES : SCAN_DS);
        break;
    case 0xC8:
        enter();
        break;
    case 0xC9:
        leave();
        break;
    case 0xCA:
    case 0xCB:
        far_return();
        break;
    case 0xCC:
        software_interrupt(CPU_EXC_BP);
        break;
    case 0xCD:
        software_interrupt(ref.imm & 0xFF);
        break;
    case 0xCE:
        if (flags() & CPU_OF)
            software_interrupt(CPU_EXC_OF);
        break;
    case 0xCF:
        interrupt_return();
        break;
    case 0xD4:
        aam();
        break;
    case 0xD5:
        aad();
        break;
    case 0xD6:
        ref_put(0, 1, flags() & CPU_CF ? 0xFF : 0);
        break;
    case 0xD7:
        if (host_strings())
            return false;
        xlat();
        break;
    case 0xD9:
    case 0xDD:
        if (!ref.mem || !(ref.reg == 4 || ref.reg == 6))
            return false;
        x87_environment();
        break;
    case 0xE0 ... 0xE3:
        loop();
        break;
    case 0xE4 ... 0xE7:
    case 0xEC ... 0xEF:
        port();
        break;
    case 0xE8:
        near_call(ref.next + ref.imm);
        break;
    case 0xE9:
    case 0xEB:
        go(ref.next + ref.imm);
        break;
    case 0xEA:
        far_transfer((uint16_t)ref.imm2, ref.imm, false);
        break;
    case 0xF1:
        software_interrupt(CPU_EXC_DB);
        break;
    case 0xF4:
        privileged();
        ref.halted = true;
        break;
    case 0xFA:
    case 0xFB:
        cli_sti(op == 0xFB);
        break;
    case 0xFF:
        return group5();
    default:
        return false;
    }
    return true;
}

static bool two_byte(void)
{
    struct cpu *c = ref.c;
    unsigned op = ref.opcode;

    switch (op) {
    case 0x00:
        system_group6();
        break;
    case 0x01:
        system_group7();
        break;
    case 0x02:
    case 0x03:
        lar_lsl(op == 3);
        break;
    case 0x05: /* SYSCALL, SYSRET: not on this processor */
    case 0x07:
    case 0x0B:
    case 0x37:
    case 0x78:
    case 0x79:
    case 0xAA:
    case 0xB9:
    case 0xFF:
        ud();
    case 0x06:
        privileged();
        c->cr0 &= ~(uint32_t)CPU_CR0_TS;
        break;
    case 0x08:
    case 0x09:
        privileged();
        break;
    case 0x0D: /* the register form is undefined here */
        if (!ref.mem)
            ud();
        break;
    case 0x18 ... 0x1F:
        break;
    case 0x20:
    case 0x22:
        move_cr();
        break;
    case 0x21:
    case 0x23:
        move_dr();
        break;
    case 0x30:
    case 0x32:
    case 0x33:
        msr();
        break;
    case 0x31: /* the time: only that it may be read */
        if ((c->cr4 & CPU_CR4_TSD) && c->cpl != 0)
            gp(0);
        break;
    case 0x34:
    case 0x35:
        sysenter(op == 0x35);
        break;
    case 0x80 ... 0x8F:
        if (condition(op & 15))
            go(ref.next + ref.imm);
        break;
    case 0xA0:
    case 0xA8:
        push(ref.osz, c->seg[op >> 3 & 7].sel);
        break;
    case 0xA1:
    case 0xA9:
        pop_segment(op >> 3 & 7);
        break;
    case 0xA2:
        ref_skip(); /* CPUID is what emu_sys.c says */
    case 0xA3:
    case 0xAB:
    case 0xB3:
    case 0xBB:
        if (!ref.mem || (ref_native_possible() && ref.asz == 4 && flat_data(ref_seg())))
            return false;
        bit_string();
        break;
    case 0xAE:
        return group15();
    case 0xB2:
    case 0xB4:
    case 0xB5:
        load_pointer(op == 0xB2 ? SCAN_SS : op == 0xB4 ? SCAN_FS : SCAN_GS);
        break;
    case 0xC7:
        if (ref.reg != 1)
            ud();
        return false;
    case 0xF7:
        if (ref_native_possible() && ref.asz == 4 && flat_data(ref.seg == SCAN_SEG_NONE ? SCAN_DS : ref.seg))
            return false;
        masked_store();
        break;
    default:
        return false;
    }
    return true;
}

bool model_instruction(void)
{
    if (ref.in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
        return one_byte();
    return ref.in.opcode_map == ZYDIS_OPCODE_MAP_0F && two_byte();
}
