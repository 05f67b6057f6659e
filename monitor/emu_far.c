/* monitor/emu_far.c: far jumps, calls and returns, gates, interrupts, IRET, hardware tasks (SDM vol. 3,
 * chapters 5 to 7; vol. 2, the pseudo-code of CALL, JMP, RET, INT n and IRET).
 *
 * Everything is checked in the order of the manual; stack frames are probed in full before their first word
 * is written, so a fault leaves no trace. The snapshot that callers take covers the registers changed on the
 * way.
 */
#include "monitor/emu_internal.h"

/* -- Stack frames ------------------------------------------------------------------------------------ */

/* A frame to be pushed on a stack that is perhaps not yet SS:ESP. */
struct frame {
    struct cpu_seg *ss;
    uint32_t sp;
    uint16_t fault_sel; /* in #SS of a stack being switched to; 0 otherwise */
    bool user;
    unsigned size, n;
    uint32_t v[44];
};

static void frame_add(struct frame *f, uint32_t v)
{
    f->v[f->n++] = v;
}

static uint32_t stack_mask(const struct cpu_seg *ss)
{
    return ss->attr & SEG_DB ? 0xFFFFFFFFu : 0xFFFFu;
}

static bool stack_room(const struct emu *e, const struct cpu_seg *s, uint32_t off, unsigned size)
{
    uint64_t last = (uint64_t)off + size - 1;
    if (e->pe && s->unusable)
        return false;
    if ((s->attr & (SEG_CODE | SEG_CE)) == SEG_CE)
        return off > s->limit && last <= (s->attr & SEG_DB ? 0xFFFFFFFFu : 0xFFFFu);
    return last <= s->limit || s->limit == 0xFFFFFFFFu;
}

/* #SS if the frame does not fit: before EIP is compared with the limit of the new code segment (SDM vol. 2,
 * CALL and INT n). */
static void frame_check(struct emu *e, const struct frame *f)
{
    uint32_t mask = stack_mask(f->ss);
    for (unsigned i = 1; i <= f->n; i++)
        if (!stack_room(e, f->ss, (f->sp - i * f->size) & mask, f->size))
            emu_sel_fault(e, CPU_EXC_SS, f->fault_sel);
}

/* Checks and writes the frame; returns the new stack pointer. */
static uint32_t frame_write(struct emu *e, const struct frame *f)
{
    uint32_t mask = stack_mask(f->ss);
    frame_check(e, f);
    for (unsigned i = 1; i <= f->n; i++) {
        uint32_t lin = f->ss->base + ((f->sp - i * f->size) & mask);
        if (f->user && e->align)
            emu_check_align(e, lin, f->size);
        emu_lin_probe(e, lin, f->size, true, f->user);
    }
    for (unsigned i = 1; i <= f->n; i++)
        emu_lin_write(e, f->ss->base + ((f->sp - i * f->size) & mask), f->size, f->v[i - 1], f->user);
    return (f->sp & ~mask) | ((f->sp - f->n * f->size) & mask);
}

static struct frame frame_here(struct emu *e, unsigned size)
{
    return (struct frame){.ss = &e->c->seg[SCAN_SS], .sp = e->c->gpr[CPU_ESP], .user = e->user, .size = size};
}

/* -- Code segments ----------------------------------------------------------------------------------- */

static bool is_code(unsigned attr)
{
    return (attr & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE);
}

static uint32_t desc_limit(const struct emu_desc *d)
{
    struct cpu_seg s;
    emu_seg_from_desc(&s, 0, d);
    return s.limit;
}

static void set_cpl(struct emu *e, unsigned cpl)
{
    e->c->cpl = cpl;
    e->segs = true;
    emu_refresh(e);
}

static void set_cs(struct emu *e, uint16_t sel, struct emu_desc *d, unsigned cpl, uint32_t eip)
{
    emu_mark_accessed(e, sel, d);
    emu_set_seg(e, SCAN_CS, (uint16_t)((sel & ~3u) | cpl), d);
    set_cpl(e, cpl);
    e->next = eip;
}

/* Real and virtual-8086 mode. */
static void set_cs_real(struct emu *e, uint16_t sel, uint32_t eip)
{
    if (e->v86)
        emu_set_seg_v86(e, SCAN_CS, sel);
    else
        emu_set_seg_real(e, SCAN_CS, sel);
    e->next = eip;
}

static void limit_real(struct emu *e, uint32_t eip)
{
    uint32_t limit = e->v86 ? 0xFFFF : e->c->seg[SCAN_CS].limit;
    if (eip > limit)
        emu_gp0(e);
}

/* Direct transfer to a code segment: rights for JMP and CALL alike. */
static void check_direct(struct emu *e, uint16_t sel, const struct emu_desc *d)
{
    unsigned attr = desc_attr(d), dpl = seg_dpl(attr), cpl = e->c->cpl;
    if (attr & SEG_CE ? dpl > cpl : ((sel & 3u) > cpl || dpl != cpl))
        emu_sel_fault(e, CPU_EXC_GP, sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, sel);
}

/* -- Stacks from the TSS (SDM vol. 3, 7.2.1) --------------------------------------------------------- */

struct inner_stack {
    uint16_t sel;
    uint32_t sp;
    struct emu_desc d;
    struct cpu_seg seg;
};

static void inner_stack(struct emu *e, unsigned dpl, struct inner_stack *s)
{
    const struct cpu_seg *tr = &e->c->tr;
    bool wide = tr->attr & 8;
    uint32_t off = wide ? 4 + dpl * 8 : 2 + dpl * 4;
    if (tr->unusable || off + (wide ? 5 : 3) > tr->limit)
        emu_sel_fault(e, CPU_EXC_TS, tr->sel);
    s->sp = emu_sys_read(e, tr->base + off, wide ? 4 : 2);
    s->sel = (uint16_t)emu_sys_read(e, tr->base + off + (wide ? 4 : 2), 2);
    if (!(s->sel & ~3u))
        emu_sel_fault(e, CPU_EXC_TS, 0);
    emu_need_desc(e, s->sel, &s->d, CPU_EXC_TS);
    unsigned attr = desc_attr(&s->d);
    if (!seg_fits_stack(attr, s->sel, dpl))
        emu_sel_fault(e, CPU_EXC_TS, s->sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_SS, s->sel);
    emu_seg_from_desc(&s->seg, s->sel, &s->d);
}

static void enter_inner(struct emu *e, struct inner_stack *s, uint32_t sp, unsigned cpl)
{
    set_cpl(e, cpl);
    emu_mark_accessed(e, s->sel, &s->d);
    emu_set_seg(e, SCAN_SS, s->sel, &s->d);
    uint32_t mask = stack_mask(&s->seg);
    e->c->gpr[CPU_ESP] = mask == 0xFFFF ? (e->c->gpr[CPU_ESP] & ~mask) | (sp & mask) : sp;
}

/* -- Gates (SDM vol. 3, 5.8.3) ----------------------------------------------------------------------- */

enum {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL16 = 4,
    SYS_TASK = 5,
    SYS_INT16 = 6,
    SYS_TRAP16 = 7,
    SYS_TSS32 = 9,
    SYS_TSS32_BUSY = 11,
    SYS_CALL32 = 12,
    SYS_INT32 = 14,
    SYS_TRAP32 = 15,
};

static void check_gate(struct emu *e, uint16_t sel, const struct emu_desc *d)
{
    unsigned attr = desc_attr(d), dpl = seg_dpl(attr);
    if (dpl < e->c->cpl || (sel & 3u) > dpl)
        emu_sel_fault(e, CPU_EXC_GP, sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, sel);
}

static void task_gate(struct emu *e, const struct emu_desc *gate, enum emu_task_why why, uint32_t old_eip,
                      bool has_error, uint32_t error)
{
    uint16_t tss = (uint16_t)(gate->lo >> 16);
    struct emu_desc d;
    if (tss & 4)
        emu_sel_fault(e, CPU_EXC_GP, tss);
    emu_need_desc(e, tss, &d, CPU_EXC_GP);
    unsigned type = desc_attr(&d) & 0x1F;
    if (type != SYS_TSS16 && type != SYS_TSS32)
        emu_sel_fault(e, CPU_EXC_GP, tss);
    if (!(desc_attr(&d) & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, tss);
    emu_task_switch(e, tss, &d, why, old_eip, has_error, error);
}

static void call_gate_inner(struct emu *e, const struct emu_desc *gate, uint16_t cs, struct emu_desc *code,
                            uint32_t eip)
{
    struct cpu *c = e->c;
    unsigned dpl = seg_dpl(desc_attr(code)), params = gate->hi & 31, size = gate->hi & 0x800 ? 4 : 2;
    struct inner_stack s;
    uint32_t args[31];
    inner_stack(e, dpl, &s);
    for (unsigned i = 0; i < params; i++)
        args[i] = emu_peek(e, size, i);
    struct frame f = {.ss = &s.seg, .sp = s.sp, .fault_sel = s.sel, .user = dpl == 3, .size = size};
    frame_add(&f, c->seg[SCAN_SS].sel);
    frame_add(&f, c->gpr[CPU_ESP]);
    for (unsigned i = params; i > 0; i--)
        frame_add(&f, args[i - 1]);
    frame_add(&f, c->seg[SCAN_CS].sel);
    frame_add(&f, e->next);
    frame_check(e, &f);
    if (eip > desc_limit(code))
        emu_gp0(e);
    uint32_t sp = frame_write(e, &f);
    enter_inner(e, &s, sp, dpl);
    set_cs(e, cs, code, dpl, eip);
}

static void call_gate(struct emu *e, const struct emu_desc *gate, bool call)
{
    struct cpu *c = e->c;
    bool wide = gate->hi & 0x800;
    uint16_t cs = (uint16_t)(gate->lo >> 16);
    uint32_t eip = (gate->lo & 0xFFFF) | (wide ? gate->hi & 0xFFFF0000u : 0);
    struct emu_desc d;
    if (!(cs & ~3u))
        emu_gp0(e);
    emu_need_desc(e, cs, &d, CPU_EXC_GP);
    unsigned attr = desc_attr(&d), dpl = seg_dpl(attr);
    if (!is_code(attr) || dpl > c->cpl || (!call && !(attr & SEG_CE) && dpl != c->cpl))
        emu_sel_fault(e, CPU_EXC_GP, cs);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, cs);
    if (call && !(attr & SEG_CE) && dpl < c->cpl) {
        call_gate_inner(e, gate, cs, &d, eip);
        return;
    }
    uint32_t sp = c->gpr[CPU_ESP];
    struct frame f = frame_here(e, wide ? 4 : 2);
    frame_add(&f, c->seg[SCAN_CS].sel);
    frame_add(&f, e->next);
    if (call)
        frame_check(e, &f);
    if (eip > desc_limit(&d))
        emu_gp0(e);
    if (call)
        sp = frame_write(e, &f);
    set_cs(e, cs, &d, c->cpl, eip);
    c->gpr[CPU_ESP] = sp;
}

static void to_system(struct emu *e, uint16_t sel, struct emu_desc *d, bool call)
{
    unsigned type = desc_attr(d) & 0xF;
    enum emu_task_why why = call ? EMU_TASK_CALL : EMU_TASK_JUMP;
    switch (type) {
    case SYS_CALL16:
    case SYS_CALL32:
        check_gate(e, sel, d);
        call_gate(e, d, call);
        break;
    case SYS_TASK:
        check_gate(e, sel, d);
        task_gate(e, d, why, e->next, false, 0);
        break;
    case SYS_TSS16:
    case SYS_TSS32:
        if (sel & 4)
            emu_sel_fault(e, CPU_EXC_GP, sel);
        check_gate(e, sel, d);
        emu_task_switch(e, sel, d, why, e->next, false, 0);
        break;
    default:
        emu_sel_fault(e, CPU_EXC_GP, sel);
    }
}

/* The target of a far jump or call in protected mode. True: a code segment, checked, in *d. False: a gate or
 * TSS took it. */
static bool to_code(struct emu *e, uint16_t sel, struct emu_desc *d, bool call)
{
    if (!(sel & ~3u))
        emu_gp0(e);
    emu_need_desc(e, sel, d, CPU_EXC_GP);
    if (!(desc_attr(d) & SEG_S)) {
        to_system(e, sel, d, call);
        return false;
    }
    if (!is_code(desc_attr(d)))
        emu_sel_fault(e, CPU_EXC_GP, sel);
    check_direct(e, sel, d);
    return true;
}

void emu_far_jump(struct emu *e, uint16_t sel, uint32_t off)
{
    struct emu_desc d;
    emu_snap(e);
    if (emu_real(e)) {
        limit_real(e, off);
        set_cs_real(e, sel, off);
        return;
    }
    if (!to_code(e, sel, &d, false))
        return;
    if (off > desc_limit(&d))
        emu_gp0(e);
    set_cs(e, sel, &d, e->c->cpl, off);
}

void emu_far_call(struct emu *e, uint16_t sel, uint32_t off, unsigned opsize)
{
    struct cpu *c = e->c;
    struct emu_desc d = {0};
    emu_snap(e);
    if (!emu_real(e) && !to_code(e, sel, &d, true))
        return;
    struct frame f = frame_here(e, opsize);
    frame_add(&f, c->seg[SCAN_CS].sel);
    frame_add(&f, e->next);
    frame_check(e, &f);
    if (emu_real(e)) {
        limit_real(e, off);
        c->gpr[CPU_ESP] = frame_write(e, &f);
        set_cs_real(e, sel, off);
        return;
    }
    if (off > desc_limit(&d))
        emu_gp0(e);
    uint32_t sp = frame_write(e, &f);
    set_cs(e, sel, &d, c->cpl, off);
    c->gpr[CPU_ESP] = sp;
}

/* -- Returns to an outer level ----------------------------------------------------------------------- */

/* After a return outwards, segments the outer level may not use are emptied (SDM vol. 3, 5.8.6). */
static void drop_segments(struct emu *e)
{
    static const uint8_t which[4] = {SCAN_ES, SCAN_DS, SCAN_FS, SCAN_GS};
    for (unsigned i = 0; i < 4; i++) {
        if (seg_is_lost(&e->c->seg[which[i]], e->c->cpl))
            emu_set_seg_null(e, which[i], 0);
    }
}

static void check_return_cs(struct emu *e, uint16_t cs, struct emu_desc *d)
{
    if (!(cs & ~3u))
        emu_gp0(e);
    emu_need_desc(e, cs, d, CPU_EXC_GP);
    unsigned attr = desc_attr(d), dpl = seg_dpl(attr), rpl = cs & 3;
    if (!is_code(attr) || rpl < e->c->cpl || (attr & SEG_CE ? dpl > rpl : dpl != rpl))
        emu_sel_fault(e, CPU_EXC_GP, cs);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, cs);
}

static void check_return_ss(struct emu *e, uint16_t ss, unsigned rpl, struct emu_desc *d)
{
    if (!(ss & ~3u))
        emu_gp0(e);
    emu_need_desc(e, ss, d, CPU_EXC_GP);
    unsigned attr = desc_attr(d);
    if (!seg_fits_stack(attr, ss, rpl))
        emu_sel_fault(e, CPU_EXC_GP, ss);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_SS, ss);
}

static void return_outer(struct emu *e, uint16_t cs, struct emu_desc *code, uint32_t eip, uint16_t ss,
                         uint32_t sp)
{
    struct cpu *c = e->c;
    struct emu_desc d;
    unsigned rpl = cs & 3;
    check_return_ss(e, ss, rpl, &d);
    if (eip > desc_limit(code))
        emu_gp0(e);
    emu_mark_accessed(e, ss, &d);
    set_cs(e, cs, code, rpl, eip);
    emu_set_seg(e, SCAN_SS, ss, &d);
    c->gpr[CPU_ESP] = e->smask == 0xFFFF ? (c->gpr[CPU_ESP] & 0xFFFF0000u) | (sp & 0xFFFF) : sp;
    drop_segments(e);
}

void emu_far_return(struct emu *e, unsigned opsize, unsigned extra)
{
    struct cpu *c = e->c;
    struct emu_desc d;
    emu_snap(e);
    uint32_t eip = emu_peek(e, opsize, 0);
    uint16_t cs = (uint16_t)emu_peek(e, opsize, 1);
    if (emu_real(e)) {
        limit_real(e, eip);
        sp_set(e, c->gpr[CPU_ESP] + 2 * opsize + extra);
        set_cs_real(e, cs, eip);
        return;
    }
    check_return_cs(e, cs, &d);
    if ((cs & 3u) == c->cpl) {
        if (eip > desc_limit(&d))
            emu_gp0(e);
        set_cs(e, cs, &d, c->cpl, eip);
        sp_set(e, c->gpr[CPU_ESP] + 2 * opsize + extra);
        return;
    }
    uint32_t at = c->gpr[CPU_ESP] + 2 * opsize + extra;
    uint32_t sp = emu_ld(e, SCAN_SS, at & e->smask, opsize);
    uint16_t ss = (uint16_t)emu_ld(e, SCAN_SS, (at + opsize) & e->smask, opsize);
    return_outer(e, cs, &d, eip, ss, sp);
    sp_set(e, c->gpr[CPU_ESP] + extra);
}

/* -- EFLAGS ------------------------------------------------------------------------------------------ */

void emu_put_flags(struct emu *e, uint32_t v, uint32_t mask)
{
    struct cpu *c = e->c;
    uint32_t old = cpu_eflags(c), now = (old & ~mask) | (v & mask);
    cpu_set_eflags(c, now);
    if ((now & ~old & CPU_IF) || ((now ^ old) & (CPU_TF | CPU_VM | CPU_AC | CPU_RF)))
        emu_stop(e);
    if ((now ^ old) & (CPU_VM | CPU_AC)) {
        e->segs = true;
        emu_refresh(e);
    }
    e->keep_rf = true;
    e->attn = true;
}

/* -- IRET -------------------------------------------------------------------------------------------- */

static void iret_to_v86(struct emu *e, uint32_t eip, uint16_t cs, uint32_t flags)
{
    struct cpu *c = e->c;
    static const uint8_t which[5] = {SCAN_SS, SCAN_ES, SCAN_DS, SCAN_FS, SCAN_GS};
    uint32_t v[9];
    for (unsigned i = 3; i < 9; i++)
        v[i] = emu_peek(e, 4, i);
    if (eip > 0xFFFF)
        emu_gp0(e);
    cpu_set_eflags(c, flags);
    set_cpl(e, 3);
    emu_set_seg_v86(e, SCAN_CS, cs);
    for (unsigned i = 0; i < 5; i++)
        emu_set_seg_v86(e, which[i], (uint16_t)v[4 + i]);
    c->gpr[CPU_ESP] = v[3];
    e->next = eip;
    e->keep_rf = true;
    emu_stop(e);
}

static void iret_task(struct emu *e)
{
    struct cpu *c = e->c;
    struct emu_desc d;
    uint16_t link = (uint16_t)emu_sys_read(e, c->tr.base, 2);
    if ((link & 4) || !emu_read_desc(e, link, &d))
        emu_sel_fault(e, CPU_EXC_TS, link);
    unsigned type = desc_attr(&d) & 0x1F;
    if (type != SYS_TSS16_BUSY && type != SYS_TSS32_BUSY)
        emu_sel_fault(e, CPU_EXC_TS, link);
    if (!(desc_attr(&d) & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, link);
    emu_task_switch(e, link, &d, EMU_TASK_IRET, e->next, false, 0);
}

static void iret_real(struct emu *e, unsigned opsize)
{
    struct cpu *c = e->c;
    if (e->v86 && (c->eflags_sys & CPU_IOPL) != CPU_IOPL)
        emu_gp0(e);
    uint32_t eip = emu_peek(e, opsize, 0), flags = emu_peek(e, opsize, 2);
    uint16_t cs = (uint16_t)emu_peek(e, opsize, 1);
    limit_real(e, eip);
    sp_set(e, c->gpr[CPU_ESP] + 3 * opsize);
    set_cs_real(e, cs, eip);
    emu_put_flags(e, flags, emu_flags_writable(e, opsize));
}

void emu_iret(struct emu *e, unsigned opsize)
{
    struct cpu *c = e->c;
    struct emu_desc d;
    emu_snap(e);
    cpu_unblock_nmi(c);
    if (emu_real(e)) {
        iret_real(e, opsize);
        return;
    }
    if (c->eflags_sys & CPU_NT) {
        iret_task(e);
        return;
    }
    uint32_t eip = emu_peek(e, opsize, 0), flags = emu_peek(e, opsize, 2);
    uint16_t cs = (uint16_t)emu_peek(e, opsize, 1);
    if (opsize == 4 && (flags & CPU_VM) && c->cpl == 0) {
        iret_to_v86(e, eip, cs, flags);
        return;
    }
    check_return_cs(e, cs, &d);
    uint32_t mask = emu_flags_writable(e, opsize); /* by the old CPL */
    if (c->cpl == 0 && opsize == 4)
        mask |= CPU_VIF | CPU_VIP;
    if ((cs & 3u) != c->cpl) {
        uint32_t sp = emu_peek(e, opsize, 3);
        uint16_t ss = (uint16_t)emu_peek(e, opsize, 4);
        return_outer(e, cs, &d, eip, ss, sp);
    } else {
        if (eip > desc_limit(&d))
            emu_gp0(e);
        set_cs(e, cs, &d, c->cpl, eip);
        sp_set(e, c->gpr[CPU_ESP] + 3 * opsize);
    }
    emu_put_flags(e, flags, mask);
}

/* -- Interrupts and exceptions (SDM vol. 3, 6.12; vol. 2, INT n) ------------------------------------- */

static uint32_t flags_image(const struct emu *e, enum emu_int_kind kind)
{
    /* RF in the image: set by faults so that an instruction breakpoint does not hit again (vol. 3, 17.3.1.1).
     */
    uint32_t f = cpu_eflags(e->c);
    return kind == EMU_INT_EXCEPTION ? f | CPU_RF : f;
}

static void int_real(struct emu *e, unsigned vector, uint32_t return_eip)
{
    struct cpu *c = e->c;
    if (vector * 4 + 3 > c->idtr.limit)
        emu_raise(e, CPU_EXC_GP, false, 0);
    uint32_t v = emu_sys_read(e, c->idtr.base + vector * 4, 4);
    struct frame f = frame_here(e, 2);
    frame_add(&f, cpu_eflags(c));
    frame_add(&f, c->seg[SCAN_CS].sel);
    frame_add(&f, return_eip);
    frame_check(e, &f);
    limit_real(e, v & 0xFFFF);
    c->gpr[CPU_ESP] = frame_write(e, &f);
    set_cs_real(e, (uint16_t)(v >> 16), v & 0xFFFF);
    cpu_set_eflags(c, cpu_eflags(c) & ~(uint32_t)(CPU_IF | CPU_TF | CPU_AC | CPU_RF));
    emu_refresh(e);
}

struct gate {
    struct emu_desc d, code;
    uint16_t cs;
    uint32_t eip;
    unsigned size, type;
};

static void finish_int(struct emu *e, const struct gate *g)
{
    struct cpu *c = e->c;
    uint32_t clear = CPU_TF | CPU_VM | CPU_RF | CPU_NT;
    if (g->type == SYS_INT16 || g->type == SYS_INT32)
        clear |= CPU_IF;
    cpu_set_eflags(c, cpu_eflags(c) & ~clear);
    emu_refresh(e);
}

static void int_inner(struct emu *e, struct gate *g, uint32_t flags, bool has_error, uint32_t error,
                      uint32_t return_eip)
{
    struct cpu *c = e->c;
    unsigned dpl = seg_dpl(desc_attr(&g->code));
    bool from_v86 = e->v86;
    struct inner_stack s;
    if (from_v86 && dpl != 0)
        emu_sel_fault(e, CPU_EXC_GP, g->cs);
    inner_stack(e, dpl, &s);
    struct frame f = {.ss = &s.seg, .sp = s.sp, .fault_sel = s.sel, .user = false, .size = g->size};
    if (from_v86) {
        frame_add(&f, c->seg[SCAN_GS].sel);
        frame_add(&f, c->seg[SCAN_FS].sel);
        frame_add(&f, c->seg[SCAN_DS].sel);
        frame_add(&f, c->seg[SCAN_ES].sel);
    }
    frame_add(&f, c->seg[SCAN_SS].sel);
    frame_add(&f, c->gpr[CPU_ESP]);
    frame_add(&f, flags);
    frame_add(&f, c->seg[SCAN_CS].sel);
    frame_add(&f, return_eip);
    if (has_error)
        frame_add(&f, error);
    frame_check(e, &f);
    if (g->eip > desc_limit(&g->code))
        emu_sel_fault(e, CPU_EXC_GP, 0);
    uint32_t sp = frame_write(e, &f);
    c->eflags_sys &= ~(uint32_t)CPU_VM;
    emu_refresh(e);
    enter_inner(e, &s, sp, dpl);
    set_cs(e, g->cs, &g->code, dpl, g->eip);
    if (from_v86) {
        emu_set_seg_null(e, SCAN_ES, 0);
        emu_set_seg_null(e, SCAN_DS, 0);
        emu_set_seg_null(e, SCAN_FS, 0);
        emu_set_seg_null(e, SCAN_GS, 0);
    }
}

static void int_same(struct emu *e, struct gate *g, uint32_t flags, bool has_error, uint32_t error,
                     uint32_t return_eip)
{
    struct cpu *c = e->c;
    struct frame f = frame_here(e, g->size);
    frame_add(&f, flags);
    frame_add(&f, c->seg[SCAN_CS].sel);
    frame_add(&f, return_eip);
    if (has_error)
        frame_add(&f, error);
    frame_check(e, &f);
    if (g->eip > desc_limit(&g->code))
        emu_sel_fault(e, CPU_EXC_GP, 0);
    uint32_t sp = frame_write(e, &f);
    set_cs(e, g->cs, &g->code, c->cpl, g->eip);
    c->gpr[CPU_ESP] = sp;
}

static void read_gate(struct emu *e, unsigned vector, enum emu_int_kind kind, bool soft, struct gate *g)
{
    struct cpu *c = e->c;
    uint32_t code = vector * 8 + 2 + e->ext;
    (void)kind;
    if (vector * 8 + 7 > c->idtr.limit)
        emu_raise(e, CPU_EXC_GP, true, code);
    g->d.lo = emu_sys_read(e, c->idtr.base + vector * 8, 4);
    g->d.hi = emu_sys_read(e, c->idtr.base + vector * 8 + 4, 4);
    unsigned attr = desc_attr(&g->d);
    g->type = attr & 0x1F;
    if (g->type < SYS_TASK || g->type == 8 || (g->type > SYS_TRAP16 && g->type < SYS_INT32) ||
        g->type > SYS_TRAP32)
        emu_raise(e, CPU_EXC_GP, true, code);
    if (soft && seg_dpl(attr) < c->cpl)
        emu_raise(e, CPU_EXC_GP, true, code);
    if (!(attr & SEG_P))
        emu_raise(e, CPU_EXC_NP, true, code);
    g->size = g->type >= SYS_INT32 ? 4 : 2;
    g->cs = (uint16_t)(g->d.lo >> 16);
    g->eip = (g->d.lo & 0xFFFF) | (g->size == 4 ? g->d.hi & 0xFFFF0000u : 0);
}

void emu_int(struct emu *e, unsigned vector, enum emu_int_kind kind, bool has_error, uint32_t error,
             uint32_t return_eip)
{
    struct cpu *c = e->c;
    struct gate g;
    if (!e->pe) {
        int_real(e, vector, return_eip);
        return;
    }
    read_gate(e, vector, kind, kind == EMU_INT_SOFT, &g);
    if (g.type == SYS_TASK) {
        if (kind == EMU_INT_EXCEPTION)
            c->eflags_sys |= CPU_RF; /* saved in the old TSS */
        task_gate(e, &g.d, EMU_TASK_CALL, return_eip, has_error, error);
        return;
    }
    if (!(g.cs & ~3u))
        emu_gp0(e);
    emu_need_desc(e, g.cs, &g.code, CPU_EXC_GP);
    unsigned attr = desc_attr(&g.code), dpl = seg_dpl(attr);
    if (!is_code(attr) || dpl > c->cpl)
        emu_sel_fault(e, CPU_EXC_GP, g.cs);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, g.cs);
    uint32_t flags = flags_image(e, kind);
    if (!(attr & SEG_CE) && dpl < c->cpl)
        int_inner(e, &g, flags, has_error, error, return_eip);
    else if (e->v86)
        emu_sel_fault(e, CPU_EXC_GP, g.cs);
    else
        int_same(e, &g, flags, has_error, error, return_eip);
    finish_int(e, &g);
}

/* -- Hardware tasks (SDM vol. 3, 7.3) ---------------------------------------------------------------- */

struct tss {
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t seg[6], ldt;
    bool trap;
};

static const uint8_t seg32[6] = {0x48, 0x4C, 0x50, 0x54, 0x58, 0x5C}, seg16[4] = {0x22, 0x24, 0x26, 0x28};

static void read_tss(struct emu *e, uint32_t base, bool wide, struct tss *t)
{
    *t = (struct tss){0};
    if (wide) {
        t->cr3 = emu_sys_read(e, base + 0x1C, 4);
        t->eip = emu_sys_read(e, base + 0x20, 4);
        t->eflags = emu_sys_read(e, base + 0x24, 4);
        for (unsigned i = 0; i < 8; i++)
            t->gpr[i] = emu_sys_read(e, base + 0x28 + 4 * i, 4);
        for (unsigned i = 0; i < 6; i++)
            t->seg[i] = (uint16_t)emu_sys_read(e, base + seg32[i], 2);
        t->ldt = (uint16_t)emu_sys_read(e, base + 0x60, 2);
        t->trap = emu_sys_read(e, base + 0x64, 2) & 1;
        return;
    }
    t->eip = emu_sys_read(e, base + 0x0E, 2);
    t->eflags = emu_sys_read(e, base + 0x10, 2);
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = emu_sys_read(e, base + 0x12 + 2 * i, 2) | 0xFFFF0000u;
    for (unsigned i = 0; i < 4; i++)
        t->seg[i] = (uint16_t)emu_sys_read(e, base + seg16[i], 2);
    t->ldt = (uint16_t)emu_sys_read(e, base + 0x2A, 2);
}

static void write_tss(struct emu *e, bool wide, uint32_t eip, uint32_t eflags)
{
    const struct cpu *c = e->c;
    uint32_t base = c->tr.base;
    if (wide) {
        emu_sys_write(e, base + 0x20, 4, eip);
        emu_sys_write(e, base + 0x24, 4, eflags);
        for (unsigned i = 0; i < 8; i++)
            emu_sys_write(e, base + 0x28 + 4 * i, 4, c->gpr[i]);
        for (unsigned i = 0; i < 6; i++)
            emu_sys_write(e, base + seg32[i], 2, c->seg[i].sel);
        return;
    }
    emu_sys_write(e, base + 0x0E, 2, eip);
    emu_sys_write(e, base + 0x10, 2, eflags);
    for (unsigned i = 0; i < 8; i++)
        emu_sys_write(e, base + 0x12 + 2 * i, 2, c->gpr[i]);
    for (unsigned i = 0; i < 4; i++)
        emu_sys_write(e, base + seg16[i], 2, c->seg[i].sel);
}

static void set_busy(struct emu *e, uint16_t sel, bool busy)
{
    uint32_t at = emu_desc_addr(e, (uint16_t)(sel & ~4u)) + 5, v = emu_sys_read(e, at, 1);
    emu_sys_write(e, at, 1, busy ? v | 2 : v & ~2u);
}

/* DPL and RPL of CS are compared before SS is looked at, the rest of CS after it (SDM vol. 3, table 7-1). */
static void check_task_cs(struct emu *e, uint16_t sel)
{
    struct emu_desc d;
    unsigned rpl = sel & 3;
    if (!(sel & ~3u) || !emu_read_desc(e, sel, &d) || !is_code(desc_attr(&d)))
        return;
    unsigned attr = desc_attr(&d), dpl = seg_dpl(attr);
    if (attr & SEG_CE ? dpl > rpl : dpl != rpl)
        emu_sel_fault(e, CPU_EXC_TS, sel);
}

static void load_task_cs(struct emu *e, uint16_t sel)
{
    struct emu_desc d;
    if (!(sel & ~3u) || !emu_read_desc(e, sel, &d))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    unsigned attr = desc_attr(&d);
    if (!is_code(attr))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, sel);
    emu_mark_accessed(e, sel, &d);
    emu_set_seg(e, SCAN_CS, sel, &d);
}

static void load_task_ss(struct emu *e, uint16_t sel)
{
    struct emu_desc d;
    unsigned cpl = e->c->cpl;
    if (!(sel & ~3u) || !emu_read_desc(e, sel, &d))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    unsigned attr = desc_attr(&d);
    if (!seg_fits_stack(attr, sel, cpl))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_SS, sel);
    emu_mark_accessed(e, sel, &d);
    emu_set_seg(e, SCAN_SS, sel, &d);
}

static void load_task_data(struct emu *e, unsigned seg, uint16_t sel)
{
    struct emu_desc d;
    if (!(sel & ~3u)) {
        emu_set_seg_null(e, seg, sel);
        return;
    }
    if (!emu_read_desc(e, sel, &d))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    unsigned attr = desc_attr(&d);
    if (!seg_fits_data(attr, sel, e->c->cpl))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, sel);
    emu_mark_accessed(e, sel, &d);
    emu_set_seg(e, seg, sel, &d);
}

static void load_task_ldt(struct emu *e, uint16_t sel)
{
    struct emu_desc d;
    struct cpu_seg *l = &e->c->ldtr;
    l->sel = sel;
    l->unusable = 1;
    if (!(sel & ~3u))
        return;
    if ((sel & 4) || !emu_read_desc(e, sel, &d) || (desc_attr(&d) & 0x1F) != SYS_LDT ||
        !(desc_attr(&d) & SEG_P))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    emu_seg_from_desc(l, sel, &d);
}

/* The part of the new task that may fault in the new task's context. */
static void enter_task(struct emu *e, const struct tss *t, bool has_error, uint32_t error)
{
    static const uint8_t data[4] = {SCAN_ES, SCAN_DS, SCAN_FS, SCAN_GS};
    struct cpu *c = e->c;
    load_task_ldt(e, t->ldt);
    if (c->eflags_sys & CPU_VM) {
        set_cpl(e, 3);
        for (unsigned i = 0; i < 6; i++)
            emu_set_seg_v86(e, i, t->seg[i]);
    } else {
        set_cpl(e, t->seg[SCAN_CS] & 3);
        check_task_cs(e, t->seg[SCAN_CS]);
        load_task_ss(e, t->seg[SCAN_SS]);
        load_task_cs(e, t->seg[SCAN_CS]);
        for (unsigned i = 0; i < 4; i++)
            load_task_data(e, data[i], t->seg[data[i]]);
    }
    if (has_error) {
        struct frame f = frame_here(e, c->tr.attr & 8 ? 4 : 2);
        frame_add(&f, error);
        c->gpr[CPU_ESP] = frame_write(e, &f);
    }
    if (t->eip > c->seg[SCAN_CS].limit)
        emu_gp0(e);
    if (t->trap) {
        e->db_bits |= 1u << 15; /* DR6.BT */
        e->attn = true;
    }
}

void emu_task_switch(struct emu *e, uint16_t sel, struct emu_desc *d, enum emu_task_why why, uint32_t old_eip,
                     bool has_error, uint32_t error)
{
    struct cpu *c = e->c;
    struct cpu_seg seg;
    struct tss t;
    bool wide = desc_attr(d) & 8, old_wide = c->tr.attr & 8;
    uint32_t old_flags = cpu_eflags(c);
    emu_seg_from_desc(&seg, sel, d);
    if (seg.limit < (wide ? 0x67u : 0x2Bu))
        emu_sel_fault(e, CPU_EXC_TS, sel);
    if (c->tr.unusable || c->tr.limit < (old_wide ? 0x5Fu : 0x29u))
        emu_sel_fault(e, CPU_EXC_TS, c->tr.sel);
    emu_lin_probe(e, c->tr.base, old_wide ? 0x60 : 0x2A, true, false);
    emu_lin_probe(e, seg.base, wide ? 0x68 : 0x2C, why == EMU_TASK_CALL, false);
    read_tss(e, seg.base, wide, &t);
    if (why == EMU_TASK_IRET)
        old_flags &= ~(uint32_t)CPU_NT;
    if (why != EMU_TASK_CALL)
        set_busy(e, c->tr.sel, false);
    write_tss(e, old_wide, old_eip, old_flags);
    if (why == EMU_TASK_CALL) {
        emu_sys_write(e, seg.base, 2, c->tr.sel);
        t.eflags |= CPU_NT;
    }
    if (why != EMU_TASK_IRET)
        set_busy(e, sel, true);
    /* The point of commitment: from here on faults belong to the new task (SDM vol. 3, 7.3, step 12). */
    e->snap_on = false;
    seg.attr |= 2;
    c->tr = seg;
    c->cr0 |= CPU_CR0_TS;
    if (wide && (c->cr0 & CPU_CR0_PG)) {
        c->cr3 = t.cr3;
        if ((c->cr4 & CPU_CR4_PAE) && !emu_load_pdptes(e, t.cr3))
            emu_gp0(e);
        mmu_flush_tlb(e->vm);
        vm_paging_changed(e->vm, VM_FLUSH_CR3, gva(0));
    }
    c->eip = e->next = t.eip;
    memcpy(c->gpr, t.gpr, sizeof(c->gpr));
    e->esp0 = c->gpr[CPU_ESP];
    cpu_set_eflags(c, wide ? t.eflags : t.eflags & 0xFFFF);
    for (unsigned i = 0; i < 6; i++) { /* selectors first; descriptors follow one by one */
        c->seg[i].sel = t.seg[i];
        c->seg[i].unusable = 1;
    }
    c->dr[7] &= ~0x155u; /* local breakpoints */
    e->keep_rf = true;
    e->no_trap = true;
    e->segs = true;
    emu_stop(e);
    enter_task(e, &t, has_error, error);
}
