/* monitor/emu_seg.c: descriptors and segment registers (SDM vol. 3, chapters 3 and 5).
 *
 * Descriptor tables are read and written as the supervisor whatever the CPL (vol. 3, 4.6.1: implicit
 * accesses).
 */
#include "monitor/emu_internal.h"

_Noreturn void emu_sel_fault(struct emu *e, unsigned vector, uint16_t sel)
{
    emu_raise(e, vector, true, (sel & 0xFFFCu) | e->ext);
}

uint32_t emu_desc_addr(struct emu *e, uint16_t sel)
{
    return (sel & 4 ? e->c->ldtr.base : e->c->gdtr.base) + (sel & ~7u);
}

bool emu_read_desc(struct emu *e, uint16_t sel, struct emu_desc *d)
{
    const struct cpu *c = e->c;
    uint32_t limit = sel & 4 ? c->ldtr.limit : c->gdtr.limit;
    if ((sel & 4) && c->ldtr.unusable)
        return false;
    if ((sel | 7u) > limit)
        return false;
    d->lo = emu_sys_read(e, emu_desc_addr(e, sel), 4);
    d->hi = emu_sys_read(e, emu_desc_addr(e, sel) + 4, 4);
    return true;
}

void emu_need_desc(struct emu *e, uint16_t sel, struct emu_desc *d, unsigned vector)
{
    if (!emu_read_desc(e, sel, d))
        emu_sel_fault(e, vector, sel);
}

void emu_mark_accessed(struct emu *e, uint16_t sel, struct emu_desc *d)
{
    if (d->hi & 0x100)
        return;
    d->hi |= 0x100;
    emu_sys_write(e, emu_desc_addr(e, sel) + 5, 1, d->hi >> 8 & 0xFF);
}

void emu_seg_from_desc(struct cpu_seg *s, uint16_t sel, const struct emu_desc *d)
{
    uint32_t limit = (d->hi & 0xF0000) | (d->lo & 0xFFFF);
    s->base = (d->hi & 0xFF000000u) | (d->hi & 0xFF) << 16 | d->lo >> 16;
    s->limit = d->hi & 1u << 23 ? limit << 12 | 0xFFF : limit;
    s->sel = sel;
    s->attr = (uint16_t)desc_attr(d);
    s->unusable = 0;
}

static void changed(struct emu *e)
{
    e->segs = true;
    emu_refresh(e);
    /* Translated code may be possible now. */
    if (!emu_real(e))
        emu_stop(e);
}

void emu_set_seg(struct emu *e, unsigned seg, uint16_t sel, const struct emu_desc *d)
{
    emu_seg_from_desc(&e->c->seg[seg], sel, d);
    changed(e);
}

/* Real mode changes selector and base only: limit and rights stay as protected mode left them ("unreal"
 * mode). */
void emu_set_seg_real(struct emu *e, unsigned seg, uint16_t sel)
{
    struct cpu_seg *s = &e->c->seg[seg];
    if (s->unusable)
        *s = (struct cpu_seg){.limit = 0xFFFF, .attr = 0x93};
    s->sel = sel;
    s->base = (uint32_t)sel << 4;
    changed(e);
}

void emu_set_seg_v86(struct emu *e, unsigned seg, uint16_t sel)
{
    e->c->seg[seg] = (struct cpu_seg){.base = (uint32_t)sel << 4, .limit = 0xFFFF, .sel = sel, .attr = 0xF3};
    changed(e);
}

void emu_set_seg_null(struct emu *e, unsigned seg, uint16_t sel)
{
    struct cpu_seg *s = &e->c->seg[seg];
    s->sel = sel;
    s->unusable = 1;
    changed(e);
}

static void load_ss(struct emu *e, uint16_t sel)
{
    struct emu_desc d;
    unsigned attr;
    if (!(sel & ~3u))
        emu_gp0(e);
    emu_need_desc(e, sel, &d, CPU_EXC_GP);
    attr = desc_attr(&d);
    if (!seg_fits_stack(attr, sel, e->c->cpl))
        emu_sel_fault(e, CPU_EXC_GP, sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_SS, sel);
    emu_mark_accessed(e, sel, &d);
    emu_set_seg(e, SCAN_SS, sel, &d);
}

static void load_data(struct emu *e, unsigned seg, uint16_t sel)
{
    struct emu_desc d;
    if (!(sel & ~3u)) {
        emu_set_seg_null(e, seg, sel);
        return;
    }
    emu_need_desc(e, sel, &d, CPU_EXC_GP);
    unsigned attr = desc_attr(&d);
    if (!seg_fits_data(attr, sel, e->c->cpl))
        emu_sel_fault(e, CPU_EXC_GP, sel);
    if (!(attr & SEG_P))
        emu_sel_fault(e, CPU_EXC_NP, sel);
    emu_mark_accessed(e, sel, &d);
    emu_set_seg(e, seg, sel, &d);
}

void emu_load_sreg(struct emu *e, unsigned seg, uint16_t sel)
{
    if (!e->pe)
        emu_set_seg_real(e, seg, sel);
    else if (e->v86)
        emu_set_seg_v86(e, seg, sel);
    else if (seg == SCAN_SS)
        load_ss(e, sel);
    else
        load_data(e, seg, sel);
}

/* -- PDPTEs (SDM vol. 3, 4.4.1) ---------------------------------------------------------------------- */

bool emu_load_pdptes(struct emu *e, uint32_t cr3)
{
    uint64_t v[4];
    uint32_t at = cr3 & ~31u & e->c->a20_mask;
    for (unsigned i = 0; i < 4; i++) {
        v[i] = UINT64_MAX;
        const uint8_t *p = vm_readable(e->vm, at);
        if (p)
            memcpy(&v[i], p + 8 * i, 8);
        if ((v[i] & 1) && (v[i] & 0xFFFFFFF0000001E6ull)) /* bits 2:1, 8:5, 63:36 */
            return false;
    }
    memcpy(e->c->pdpte, v, sizeof(v));
    return true;
}
