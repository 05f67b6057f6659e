/* monitor/emu_sys.c: sensitive instructions: segment registers, flags, far transfers, tables, control and
 * debug registers, MSRs, ports; and the CPU model (CPUID), a family 6 model 28 processor without MTRR, PAT,
 * MCE and VME.
 */
#include <x86intrin.h>

#include "monitor/emu_internal.h"

static void need_cpl0(struct emu *e)
{
    if (e->c->cpl != 0)
        emu_gp0(e);
}

static void need_protected(struct emu *e)
{
    if (emu_real(e))
        emu_ud(e);
}

/* IOPL-sensitive in virtual-8086 mode (SDM vol. 3, 20.2.7). */
static void v86_iopl(struct emu *e)
{
    if (e->v86 && (e->c->eflags_sys & CPU_IOPL) != CPU_IOPL)
        emu_gp0(e);
}

/* -- Segment registers ------------------------------------------------------------------------------- */

static unsigned seg_of_opcode(const struct scan_insn *i)
{
    return i->opcode >> 3 & 7; /* 06 0E 16 1E, 0F A0, 0F A8: 4 and 5 */
}

static void op_push_seg(struct emu *e, const struct dinsn *d)
{
    emu_push(e, d->i.opsize, e->c->seg[seg_of_opcode(&d->i)].sel);
}

static void op_pop_seg(struct emu *e, const struct dinsn *d)
{
    unsigned seg = seg_of_opcode(&d->i);
    uint16_t sel = (uint16_t)emu_peek(e, d->i.opsize, 0);
    uint32_t sp = e->c->gpr[CPU_ESP] + d->i.opsize, mask = e->smask;
    emu_load_sreg(e, seg, sel);
    e->c->gpr[CPU_ESP] = (e->c->gpr[CPU_ESP] & ~mask) | (sp & mask);
    if (seg == SCAN_SS) {
        e->new_shadow = CPU_SHADOW_MOVSS;
        e->attn = true;
    }
}

static void op_mov_from_seg(struct emu *e, const struct dinsn *d)
{
    uint32_t sel = e->c->seg[d->reg].sel;
    rm_set(e, d, d->mem ? 2 : d->i.opsize, sel);
}

static void op_mov_to_seg(struct emu *e, const struct dinsn *d)
{
    uint16_t sel = (uint16_t)rm_get(e, d, 2);
    emu_load_sreg(e, d->reg, sel);
    if (d->reg == SCAN_SS) {
        e->new_shadow = CPU_SHADOW_MOVSS;
        e->attn = true;
    }
}

static void op_load_far(struct emu *e, const struct dinsn *d)
{
    static const uint8_t by_opcode[4] = {[0] = SCAN_ES, [1] = SCAN_DS};
    unsigned op = d->i.opcode, size = d->i.opsize, seg;
    if (d->i.map == SCAN_MAP_1B)
        seg = by_opcode[op & 1];
    else
        seg = op == 0xB2 ? SCAN_SS : op == 0xB4 ? SCAN_FS : SCAN_GS;
    uint32_t ea = emu_ea(e, d), off = emu_ld(e, d->seg, ea, size);
    uint16_t sel = (uint16_t)emu_ld(e, d->seg, (ea + size) & d->amask, 2);
    emu_load_sreg(e, seg, sel);
    reg_set(e->c, d->reg, size, off);
}

/* -- Far transfers ----------------------------------------------------------------------------------- */

static void op_far_imm(struct emu *e, const struct dinsn *d)
{
    uint16_t sel = (uint16_t)emu_imm2(d);
    if (d->i.opcode == 0x9A)
        emu_far_call(e, sel, d->i.imm, d->i.opsize);
    else
        emu_far_jump(e, sel, d->i.imm);
}

static void op_far_mem(struct emu *e, const struct dinsn *d)
{
    unsigned size = d->i.opsize;
    uint32_t ea = emu_ea(e, d), off = emu_ld(e, d->seg, ea, size);
    uint16_t sel = (uint16_t)emu_ld(e, d->seg, (ea + size) & d->amask, 2);
    if (d->reg == 3)
        emu_far_call(e, sel, off, size);
    else
        emu_far_jump(e, sel, off);
}

static void op_retf(struct emu *e, const struct dinsn *d)
{
    emu_far_return(e, d->i.opsize, d->i.opcode == 0xCA ? d->i.imm : 0);
}

static void op_iret(struct emu *e, const struct dinsn *d)
{
    emu_iret(e, d->i.opsize);
}

static void op_int(struct emu *e, const struct dinsn *d)
{
    unsigned vector = d->i.opcode == 0xCC   ? CPU_EXC_BP
                      : d->i.opcode == 0xCD ? d->i.imm
                      : d->i.opcode == 0xF1 ? CPU_EXC_DB
                                            : CPU_EXC_OF;
    if (d->i.opcode == 0xCE && !(e->c->arith & CPU_OF))
        return;
    /* INT n in virtual-8086 mode without VME needs IOPL 3; INT3, INTO and INT1 do not (SDM vol. 3, 20.2.7).
     */
    if (d->i.opcode == 0xCD)
        v86_iopl(e);
    emu_snap(e);
    if (d->i.opcode == 0xF1)
        e->ext = 1;
    emu_int(e, vector, d->i.opcode == 0xF1 ? EMU_INT_TRAP : EMU_INT_SOFT, false, 0, e->next);
    e->ext = 0;
    e->no_trap = true;
    e->segs = true;
    emu_stop(e);
}

/* SDM vol. 2, SYSENTER and SYSEXIT. */
static void flat_segments(struct emu *e, unsigned cs, unsigned cpl)
{
    cs &= 0xFFFC;
    seg_set_flat(e->c, (uint16_t)(cs | cpl), (uint16_t)((cs + 8) | cpl), cpl);
    e->segs = true;
    emu_refresh(e);
    emu_stop(e);
}

static void op_sysenter(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    (void)d;
    if (!e->pe || !(c->sysenter_cs & 0xFFFC))
        emu_gp0(e);
    c->eflags_sys &= ~(uint32_t)(CPU_VM | CPU_RF);
    c->vif = 0;
    flat_segments(e, c->sysenter_cs, 0);
    c->gpr[CPU_ESP] = c->sysenter_esp;
    e->next = c->sysenter_eip;
}

static void op_sysexit(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    (void)d;
    if (!e->pe || !(c->sysenter_cs & 0xFFFC) || c->cpl != 0 || e->v86)
        emu_gp0(e);
    flat_segments(e, (c->sysenter_cs & 0xFFFC) + 16, 3);
    c->gpr[CPU_ESP] = c->gpr[CPU_ECX];
    e->next = c->gpr[CPU_EDX];
}

/* -- Flags ------------------------------------------------------------------------------------------- */

static void op_pushf(struct emu *e, const struct dinsn *d)
{
    v86_iopl(e);
    emu_push(e, d->i.opsize, cpu_eflags(e->c) & ~(uint32_t)(CPU_VM | CPU_RF));
}

static void op_popf(struct emu *e, const struct dinsn *d)
{
    v86_iopl(e);
    uint32_t mask = emu_flags_writable(e, d->i.opsize);
    if (e->c->cpl == 0 && d->i.opsize == 4)
        mask |= CPU_VIF | CPU_VIP;
    /* RF, VIF and VIP are cleared (SDM vol. 2, POPF). */
    emu_put_flags(e, emu_pop(e, d->i.opsize) & ~(uint32_t)(CPU_RF | CPU_VIF | CPU_VIP), mask);
}

static void need_iopl(struct emu *e)
{
    if (e->pe && e->c->cpl > (e->c->eflags_sys >> 12 & 3))
        emu_gp0(e);
}

static void op_cli(struct emu *e, const struct dinsn *d)
{
    (void)d;
    need_iopl(e);
    e->c->vif = 0;
}

static void op_sti(struct emu *e, const struct dinsn *d)
{
    (void)d;
    need_iopl(e);
    if (e->c->vif)
        return;
    e->c->vif = CPU_IF;
    e->new_shadow = CPU_SHADOW_STI;
    e->attn = true;
}

static void op_hlt(struct emu *e, const struct dinsn *d)
{
    (void)d;
    need_cpl0(e);
    e->c->halted = 1;
    e->result = EMU_HALT;
    emu_stop(e);
}

/* -- Descriptor tables ------------------------------------------------------------------------------- */

/* User-mode instruction prevention (SDM vol. 3, 2.5, CR4.UMIP). */
static void need_umip(struct emu *e)
{
    if ((e->c->cr4 & CPU_CR4_UMIP) && e->c->cpl)
        emu_gp0(e);
}

static void op_group6(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct emu_desc desc;
    need_protected(e);
    if (d->reg < 2) { /* SLDT, STR */
        need_umip(e);
        rm_set(e, d, d->mem ? 2 : d->i.opsize, d->reg ? c->tr.sel : c->ldtr.sel);
        return;
    }
    if (d->reg < 4)
        need_cpl0(e);
    uint16_t sel = (uint16_t)rm_get(e, d, 2);
    if (d->reg == 2) { /* LLDT */
        if (!(sel & ~3u)) {
            c->ldtr.sel = sel;
            c->ldtr.unusable = 1;
            return;
        }
        if (sel & 4)
            emu_sel_fault(e, CPU_EXC_GP, sel);
        emu_need_desc(e, sel, &desc, CPU_EXC_GP);
        if ((desc_attr(&desc) & 0x1F) != 2)
            emu_sel_fault(e, CPU_EXC_GP, sel);
        if (!(desc_attr(&desc) & SEG_P))
            emu_sel_fault(e, CPU_EXC_NP, sel);
        emu_seg_from_desc(&c->ldtr, sel, &desc);
        return;
    }
    if (d->reg == 3) { /* LTR */
        if (!(sel & ~3u))
            emu_gp0(e);
        if (sel & 4)
            emu_sel_fault(e, CPU_EXC_GP, sel);
        emu_need_desc(e, sel, &desc, CPU_EXC_GP);
        if ((desc_attr(&desc) & 0x1F) != 1 && (desc_attr(&desc) & 0x1F) != 9)
            emu_sel_fault(e, CPU_EXC_GP, sel);
        if (!(desc_attr(&desc) & SEG_P))
            emu_sel_fault(e, CPU_EXC_NP, sel);
        desc.hi |= 0x200;
        emu_sys_write(e, emu_desc_addr(e, sel) + 5, 1, desc.hi >> 8 & 0xFF);
        emu_seg_from_desc(&c->tr, sel, &desc);
        return;
    }
    /* VERR, VERW */
    bool ok = (sel & ~3u) && emu_read_desc(e, sel, &desc);
    if (ok) {
        unsigned attr = desc_attr(&desc);
        ok = seg_fits_data(attr, sel, c->cpl);
        if (d->reg == 5)
            ok = ok && !(attr & SEG_CODE) && (attr & SEG_RW);
    }
    c->arith = ok ? c->arith | CPU_ZF : c->arith & ~(uint32_t)CPU_ZF;
}

static void store_table(struct emu *e, const struct dinsn *d, const struct cpu_table *t)
{
    uint32_t ea = emu_ea(e, d);
    uint8_t buf[6];
    memcpy(buf, &t->limit, 2);
    memcpy(buf + 2, &t->base,
           4); /* all four bytes with 16-bit operands too: processors do, whatever the manual says */
    emu_buf_align(e, d->seg, ea, 6, true, d->i.opsize); /* SDM vol. 3, table 6-7 */
    emu_st_buf(e, d->seg, ea, 6, buf);
}

static void load_table(struct emu *e, const struct dinsn *d, struct cpu_table *t)
{
    need_cpl0(e);
    uint32_t ea = emu_ea(e, d), limit = emu_ld(e, d->seg, ea, 2),
             base = emu_ld(e, d->seg, (ea + 2) & d->amask, 4);
    t->limit = (uint16_t)limit;
    t->base = d->i.opsize == 2 ? base & 0xFFFFFF : base;
}

static void set_cr0(struct emu *e, uint32_t v);

static void op_group7(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    switch (d->reg) {
    case 0:
        need_umip(e);
        store_table(e, d, &c->gdtr);
        return;
    case 1:
        need_umip(e);
        store_table(e, d, &c->idtr);
        return;
    case 2:
        load_table(e, d, &c->gdtr);
        return;
    case 3:
        load_table(e, d, &c->idtr);
        return;
    case 4: /* SMSW */
        need_umip(e);
        rm_set(e, d, d->mem ? 2 : d->i.opsize, c->cr0);
        return;
    case 6: { /* LMSW: PE can be set, not cleared */
        need_cpl0(e);
        uint32_t v = rm_get(e, d, 2);
        set_cr0(e, (c->cr0 & ~14u) | (v & 15));
        return;
    }
    default:
        break;
    }
    if (!d->mem)
        emu_ud(e);
    need_cpl0(e); /* INVLPG; the address is not checked against the segment's limit */
    gva_t a = gva(c->seg[d->seg].base + emu_ea(e, d));
    mmu_flush_tlb_page(e->vm, a);
    vm_paging_changed(e->vm, VM_FLUSH_PAGE, a);
    emu_stop(e);
}

static void op_lar_lsl(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct emu_desc desc;
    bool lsl = d->i.opcode == 3;
    need_protected(e);
    uint16_t sel = (uint16_t)rm_get(e, d, 2);
    bool readable = (sel & ~3u) && emu_read_desc(e, sel, &desc); /* may fault: the flag comes after it */
    c->arith &= ~(uint32_t)CPU_ZF;
    if (!readable)
        return;
    unsigned attr = desc_attr(&desc), type = attr & 0x1F;
    /* System types that LAR and LSL accept (SDM vol. 2, tables 3-54 and 3-63). */
    static const uint32_t lar_ok =
                              1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 9 | 1u << 11 | 1u << 12,
                          lsl_ok = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 9 | 1u << 11;
    if (!(attr & SEG_S) && !((lsl ? lsl_ok : lar_ok) >> type & 1))
        return;
    if (!seg_is_reachable(attr, sel, c->cpl))
        return;
    if (lsl) {
        struct cpu_seg s;
        emu_seg_from_desc(&s, sel, &desc);
        reg_set(c, d->reg, d->i.opsize, s.limit);
    } else {
        reg_set(c, d->reg, d->i.opsize, desc.hi & (d->i.opsize == 4 ? 0x00F0FF00u : 0xFF00u));
    }
    c->arith |= CPU_ZF;
}

static void op_arpl(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    need_protected(e);
    struct emu_ref r = {0};
    uint32_t src = reg_get(c, d->reg, 2), dst;
    dst = d->mem ? emu_rmw(e, d->seg, emu_ea(e, d), 2, &r) : reg_get(c, d->rm, 2);
    if ((dst & 3) < (src & 3)) {
        dst = (dst & ~3u) | (src & 3);
        if (d->mem)
            emu_rmw_store(e, &r, 2, dst);
        else
            reg_set(c, d->rm, 2, dst);
        c->arith |= CPU_ZF;
    } else {
        c->arith &= ~(uint32_t)CPU_ZF;
    }
}

/* -- Control registers (SDM vol. 3, 2.5) ------------------------------------------------------------- */

#define CR0_WRITABLE                                                                                         \
    (CPU_CR0_PE | CPU_CR0_MP | CPU_CR0_EM | CPU_CR0_TS | CPU_CR0_NE | CPU_CR0_WP | CPU_CR0_AM | CPU_CR0_NW | \
     CPU_CR0_CD | CPU_CR0_PG)
#define CR4_WRITABLE                                                                                         \
    (CPU_CR4_TSD | CPU_CR4_DE | CPU_CR4_PSE | CPU_CR4_PAE | CPU_CR4_PGE | CPU_CR4_PCE | CPU_CR4_OSFXSR |     \
     CPU_CR4_OSXMMEXCPT)

static bool has(const struct emu *e, enum cpu_feature f)
{
    return cpu_feature_in(e->c->features, f);
}

static uint32_t cr4_writable(const struct emu *e)
{
    return CR4_WRITABLE | (has(e, CPU_FEATURE_UMIP) ? CPU_CR4_UMIP : 0) | (has(e, CPU_FEATURE_SMAP) ? CPU_CR4_SMAP : 0);
}

static void flush(struct emu *e, enum vm_flush what)
{
    mmu_flush_tlb(e->vm);
    vm_paging_changed(e->vm, what, gva(0));
    e->segs = true;
    emu_refresh(e);
    emu_stop(e);
}

static void set_cr0(struct emu *e, uint32_t v)
{
    struct cpu *c = e->c;
    uint32_t now = (v & CR0_WRITABLE) | CPU_CR0_ET, changed = now ^ c->cr0;
    if (((now & CPU_CR0_PG) && !(now & CPU_CR0_PE)) || ((now & CPU_CR0_NW) && !(now & CPU_CR0_CD)))
        emu_gp0(e);
    /* SDM vol. 3, 4.4.1: the PDPTEs are loaded by these changes too, not by CR3 alone. */
    if ((now & CPU_CR0_PG) && (changed & (CPU_CR0_PG | CPU_CR0_CD | CPU_CR0_NW)) && (c->cr4 & CPU_CR4_PAE) &&
        !emu_load_pdptes(e, c->cr3))
        emu_gp0(e);
    c->cr0 = now;
    if (changed & (CPU_CR0_PG | CPU_CR0_WP | CPU_CR0_PE))
        flush(e, VM_FLUSH_ALL);
    e->segs = true;
    emu_refresh(e);
    emu_stop(e);
}

static void set_cr3(struct emu *e, uint32_t v)
{
    struct cpu *c = e->c;
    if ((c->cr0 & CPU_CR0_PG) && (c->cr4 & CPU_CR4_PAE) && !emu_load_pdptes(e, v))
        emu_gp0(e);
    c->cr3 = v;
    flush(e, VM_FLUSH_CR3);
}

static void set_cr4(struct emu *e, uint32_t v)
{
    struct cpu *c = e->c;
    uint32_t changed = v ^ c->cr4;
    if (v & ~cr4_writable(e))
        emu_gp0(e);
    if ((v & CPU_CR4_PAE) && (changed & (CPU_CR4_PAE | CPU_CR4_PGE | CPU_CR4_PSE)) && (c->cr0 & CPU_CR0_PG) &&
        !emu_load_pdptes(e, c->cr3))
        emu_gp0(e);
    c->cr4 = v;
    if (changed & (CPU_CR4_PSE | CPU_CR4_PAE | CPU_CR4_PGE | CPU_CR4_SMAP))
        flush(e, VM_FLUSH_ALL);
    emu_refresh(e); /* DE */
    emu_stop(e);
}

void emu_set_cr(struct emu *e, unsigned n, uint32_t v)
{
    switch (n) {
    case 0:
        set_cr0(e, v);
        break;
    case 2:
        e->c->cr2 = v;
        break;
    case 3:
        set_cr3(e, v);
        break;
    default:
        set_cr4(e, v);
        break;
    }
}

static void op_mov_cr(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    need_cpl0(e);
    uint32_t *const cr[5] = {&c->cr0, NULL, &c->cr2, &c->cr3, &c->cr4};
    if (d->i.opcode == 0x20) {
        c->gpr[d->rm] = *cr[d->reg];
        return;
    }
    emu_set_cr(e, d->reg, c->gpr[d->rm]);
}

static void op_clts(struct emu *e, const struct dinsn *d)
{
    (void)d;
    need_cpl0(e);
    e->c->cr0 &= ~(uint32_t)CPU_CR0_TS;
    emu_stop(e);
}

static void op_wbinvd(struct emu *e, const struct dinsn *d)
{
    (void)d;
    need_cpl0(e);
}

/* Debug registers (SDM vol. 3, 17.2). */
static void op_mov_dr(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned n = d->reg;
    if (n == 4 || n == 5) {
        if (c->cr4 & CPU_CR4_DE)
            emu_ud(e);
        n += 2;
    }
    need_cpl0(e);
    if (c->dr[7] & DR7_GD) {
        c->dr[6] |= 1u << 13; /* BD */
        emu_raise(e, CPU_EXC_DB, false, 0);
    }
    if (d->i.opcode == 0x21) {
        c->gpr[d->rm] = c->dr[n];
        return;
    }
    uint32_t v = c->gpr[d->rm];
    if (n == 6)
        v = (v & 0xE00F) | 0xFFFF0FF0u;
    else if (n == 7)
        v = (v & 0xFFFF23FFu) | 0x400; /* bits 11, 12, 14 and 15 are zero, 10 is one (SDM vol. 3, 17.2.4) */
    c->dr[n] = v;
    emu_refresh(e);
    emu_stop(e);
}

/* -- MSRs -------------------------------------------------------------------------------------------- */

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1B,
    MSR_FEATURE_CONTROL = 0x3A,
    MSR_BIOS_SIGN = 0x8B,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP,
    MSR_SYSENTER_EIP,
    MSR_TSC_ADJUST = 0x3B,
    MSR_MISC_ENABLE = 0x1A0,
    MSR_EFER = 0xC0000080u,
    MSR_TSC_AUX = 0xC0000103u,
};

/* The counter without what the guest has added. */
static uint64_t plain_tsc(const struct cpu *c)
{
    return c->host_tsc_stopped ? c->host_tsc_at : __rdtsc() - c->host_tsc_lost;
}

static uint64_t guest_tsc(const struct cpu *c)
{
    return plain_tsc(c) + c->tsc_offset;
}

static bool read_msr(const struct cpu *c, uint32_t n, uint64_t *v)
{
    switch (n) {
    case MSR_TSC:
        *v = guest_tsc(c);
        return true;
    case MSR_TSC_ADJUST: /* moves together with the counter (SDM vol. 3, 17.17.3) */
        *v = c->tsc_offset;
        return c->tsc_invariant;
    case MSR_PLATFORM_ID:
    case MSR_FEATURE_CONTROL:
        *v = n == MSR_FEATURE_CONTROL; /* locked, VMX off */
        return true;
    case MSR_APIC_BASE:
        *v = c->apic_base;
        return true;
    case MSR_BIOS_SIGN:
        *v = c->bios_sign;
        return true;
    case MSR_SYSENTER_CS:
        *v = c->sysenter_cs;
        return true;
    case MSR_SYSENTER_ESP:
        *v = c->sysenter_esp;
        return true;
    case MSR_SYSENTER_EIP:
        *v = c->sysenter_eip;
        return true;
    case MSR_MISC_ENABLE:
        *v = c->misc_enable;
        return true;
    case MSR_EFER:
        *v = c->efer;
        return true;
    case MSR_TSC_AUX:
        *v = c->tsc_aux;
        return cpu_feature_in(c->features, CPU_FEATURE_RDTSCP);
    default:
        return false;
    }
}

static bool write_msr(struct emu *e, uint32_t n, uint64_t v)
{
    struct cpu *c = e->c;
    switch (n) {
    case MSR_TSC:
        c->tsc_offset = v - plain_tsc(c);
        emu_stop(e);
        return true;
    case MSR_TSC_ADJUST:
        if (!c->tsc_invariant)
            return false;
        c->tsc_offset = v;
        emu_stop(e);
        return true;
    case MSR_PLATFORM_ID:
    case MSR_FEATURE_CONTROL:
        return false;
    case MSR_APIC_BASE: /* SDM vol. 3, 10.4.4: bits 7:0, 9, 10 (no x2APIC) and those beyond MAXPHYADDR are reserved */
        if (v & ~0xFFFFFF900ull)
            return false;
        c->apic_base = v;
        vm_apic_base_changed(e->vm);
        e->segs = true;
        emu_stop(e);
        return true;
    case MSR_BIOS_SIGN:
        c->bios_sign = v;
        return true;
    case MSR_SYSENTER_CS:
        c->sysenter_cs = (uint32_t)v;
        return true;
    case MSR_SYSENTER_ESP:
        c->sysenter_esp = (uint32_t)v;
        return true;
    case MSR_SYSENTER_EIP:
        c->sysenter_eip = (uint32_t)v;
        return true;
    case MSR_MISC_ENABLE:
        c->misc_enable = v;
        return true;
    case MSR_TSC_AUX:
        if (!has(e, CPU_FEATURE_RDTSCP) || v >> 32)
            return false;
        c->tsc_aux = (uint32_t)v;
        return true;
    case MSR_EFER:
        if (v & ~(uint64_t)CPU_EFER_NXE)
            return false;
        if (c->efer != v) {
            c->efer = v;
            flush(e, VM_FLUSH_ALL);
        }
        return true;
    default:
        return false;
    }
}

static void op_msr(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint64_t v = 0;
    if (d->i.opcode == 0x33) { /* RDPMC: no counters */
        emu_gp0(e);
    }
    need_cpl0(e);
    if (d->i.opcode == 0x32) {
        if (!read_msr(c, c->gpr[CPU_ECX], &v))
            emu_gp0(e);
        c->gpr[CPU_EAX] = (uint32_t)v;
        c->gpr[CPU_EDX] = (uint32_t)(v >> 32);
        return;
    }
    v = (uint64_t)c->gpr[CPU_EDX] << 32 | c->gpr[CPU_EAX];
    if (!write_msr(e, c->gpr[CPU_ECX], v))
        emu_gp0(e);
}

static void op_rdtsc(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    (void)d;
    if ((c->cr4 & CPU_CR4_TSD) && c->cpl != 0)
        emu_gp0(e);
    uint64_t v = guest_tsc(c);
    c->gpr[CPU_EAX] = (uint32_t)v;
    c->gpr[CPU_EDX] = (uint32_t)(v >> 32);
}

/* Instructions that the CPU model has only where their feature was added: VIRT is the scanner's class for whatever it knows by name and
 * leaves to the monitor. */
static void op_clac_stac(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    if (!has(e, CPU_FEATURE_SMAP) || c->cpl)
        emu_ud(e);
    c->eflags_sys = d->i.modrm & 1 ? c->eflags_sys | CPU_AC : c->eflags_sys & ~(uint32_t)CPU_AC;
}

static void op_rdtscp(struct emu *e, const struct dinsn *d)
{
    if (!has(e, CPU_FEATURE_RDTSCP))
        emu_ud(e);
    op_rdtsc(e, d);
    e->c->gpr[CPU_ECX] = e->c->tsc_aux;
}

/* There is no cache to write back; the address is checked as for a load of a byte. */
static void op_cache_line(struct emu *e, const struct dinsn *d)
{
    enum cpu_feature f = !d->mem ? CPU_FEATURE_PCOMMIT : d->reg == 6 ? CPU_FEATURE_CLWB : CPU_FEATURE_CLFLUSHOPT;
    if (!has(e, f))
        emu_ud(e);
    if (d->mem)
        (void)emu_ld(e, d->seg, emu_ea(e, d), 1);
}

emu_fn *emu_pick_optional(const struct scan_insn *i)
{
    if (i->map != SCAN_MAP_0F)
        return emu_op_ud;
    if (i->opcode == 0xAE)
        return op_cache_line;
    if (i->opcode == 0x01 && (i->modrm == 0xCA || i->modrm == 0xCB))
        return op_clac_stac;
    return i->opcode == 0x01 && i->modrm == 0xF9 ? op_rdtscp : emu_op_ud;
}

/* -- CPUID ------------------------------------------------------------------------------------------- */

enum {
    F_FPU = 1u << 0,
    F_DE = 1u << 2,
    F_PSE = 1u << 3,
    F_TSC = 1u << 4,
    F_MSR = 1u << 5,
    F_PAE = 1u << 6,
    F_CX8 = 1u << 8,
    F_APIC = 1u << 9,
    F_SEP = 1u << 11,
    F_PGE = 1u << 13,
    F_CMOV = 1u << 15,
    F_CLFLUSH = 1u << 19,
    F_MMX = 1u << 23,
    F_FXSR = 1u << 24,
    F_SSE = 1u << 25,
    F_SSE2 = 1u << 26,
    F_SSE3 = 1u << 0,
    F_SSSE3 = 1u << 9,
    F_MOVBE = 1u << 22,
    F6_ARAT = 1u << 2,       /* leaf 6 */
    F7_TSC_ADJUST = 1u << 1, /* leaf 7 */
};

static const struct {
    uint32_t leaf;
    uint8_t reg, bit;
} feature_at[CPU_FEATURE_COUNT] = {
#define X(id, name, leaf, reg, bit, text) {leaf, reg, bit},
    CPU_FEATURES(X)
#undef X
};

void emu_cpuid(const struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    static const char brand[48] = "Intel(R) Atom(TM) CPU D510 (Verso virtual CPU)";
    /* An Atom ends at leaf Ah. The ones that tell the time-stamp counter's rate are added, so that a guest on a busy host need not
     * measure it; those between say "none". */
    uint32_t last = c->tsc_hz ? 0x16 : c->features ? 7 : 2;
    memset(out, 0, 16);
    if (leaf > last && leaf < 0x80000000u)
        leaf = last; /* out of range: the highest basic leaf (SDM vol. 2, CPUID) */
    switch (leaf) {
    case 0:
        out[0] = last;
        memcpy(&out[1], "Genu", 4);
        memcpy(&out[3], "ineI", 4);
        memcpy(&out[2], "ntel", 4);
        break;
    case 1:
        out[0] = 0x000106CA;
        out[1] = 8 << 8; /* CLFLUSH: 64 bytes; initial APIC ID: 0 */
        out[2] = F_SSE3 | F_SSSE3 | F_MOVBE;
        out[3] = F_FPU | F_DE | F_PSE | F_TSC | F_MSR | F_PAE | F_CX8 | F_SEP | F_PGE | F_CMOV | F_CLFLUSH |
                 F_MMX | F_FXSR | F_SSE | F_SSE2;
        if (c->apic_base & 1u << 11) /* SDM vol. 3, 10.4.3 */
            out[3] |= F_APIC;
        break;
    case 2: /* 24 KiB L1d, 32 KiB L1i, 512 KiB L2, TLBs: as an Atom tells */
        out[0] = 0x4FBA0E01;
        out[3] = 0x7F003080;
        break;
    case 6:
        out[0] = F6_ARAT; /* the local APIC's timer runs whatever the processor sleeps */
        break;
    case 7:
        out[1] = c->tsc_invariant && !subleaf ? F7_TSC_ADJUST : 0;
        break;
    case 0x15: /* the counter runs at ECX * EBX / EAX; guests compute that in 32 bits of kHz */
        out[0] = 1;
        out[1] = 16;
        out[2] = (uint32_t)(c->tsc_hz / 16);
        break;
    case 0x16: /* base, greatest and bus frequency, MHz */
        out[0] = out[1] = (uint32_t)(c->tsc_hz / 1000000);
        out[2] = (uint32_t)(c->tsc_hz / 16000000);
        break;
    case 0x80000000u:
        out[0] = 0x80000008u;
        break;
    case 0x80000001u:
        out[3] = 1u << 20; /* NX */
        break;
    case 0x80000002u ... 0x80000004u:
        memcpy(out, brand + (leaf - 0x80000002u) * 16, 16);
        break;
    case 0x80000006u:
        out[2] = 512u << 16 | 6 << 12 | 64; /* L2: 512 KiB, 8-way, 64-byte lines */
        break;
    case 0x80000007u:
        out[3] = c->tsc_invariant ? 1u << 8 : 0;
        break;
    case 0x80000008u:
        out[0] = 32 << 8 | 36;
        break;
    default:
        break;
    }
    for (unsigned f = 0; f < CPU_FEATURE_COUNT; f++)
        if (cpu_feature_in(c->features, (enum cpu_feature)f) && leaf == feature_at[f].leaf && (leaf != 7 || !subleaf))
            out[feature_at[f].reg] |= 1u << feature_at[f].bit;
}

static void op_cpuid(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint32_t out[4];
    (void)d;
    emu_cpuid(c, c->gpr[CPU_EAX], c->gpr[CPU_ECX], out);
    c->gpr[CPU_EAX] = out[0];
    c->gpr[CPU_EBX] = out[1];
    c->gpr[CPU_ECX] = out[2];
    c->gpr[CPU_EDX] = out[3];
}

/* -- Ports ------------------------------------------------------------------------------------------- */

static void io_watch(struct emu *e, uint16_t port, unsigned size)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    const struct cpu *c = e->c;
    for (unsigned i = 0; i < 4; i++) {
        unsigned len = lengths[c->dr[7] >> (18 + 4 * i) & 3];
        if ((c->dr[7] >> 2 * i & 3) && (c->dr[7] >> (16 + 4 * i) & 3) == 2 &&
            port <= (c->dr[i] & 0xFFFF) + len - 1 && (c->dr[i] & 0xFFFF) <= port + size - 1) {
            e->db_bits |= 1u << i;
            e->attn = true;
        }
    }
}

static bool read_tss(void *from, uint32_t lin, uint32_t *word)
{
    *word = emu_sys_read(from, lin, 2);
    return true;
}

void emu_io_check(struct emu *e, uint16_t port, unsigned size)
{
    if (io_permission(e->c, port, size, read_tss, e) != IO_ALLOWED)
        emu_gp0(e);
    if (unlikely(e->bp_port))
        io_watch(e, port, size);
}

static void op_in(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opcode & 1 ? d->i.opsize : 1;
    uint16_t port = d->i.imm_len ? (uint16_t)d->i.imm : (uint16_t)c->gpr[CPU_EDX];
    emu_io_check(e, port, size);
    uint8_t was = vm_doing(e->vm, RUN_DOING_DEVICES);
    uint32_t v = dev_port_read(e->vm->bus, port, size);
    vm_doing(e->vm, was);
    vm_port_access(e->vm, port, size, v, false);
    reg_set(c, CPU_EAX, size, v);
    emu_stop(e);
}

static void op_out(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned size = d->i.opcode & 1 ? d->i.opsize : 1;
    uint16_t port = d->i.imm_len ? (uint16_t)d->i.imm : (uint16_t)c->gpr[CPU_EDX];
    emu_io_check(e, port, size);
    uint32_t v = reg_get(c, CPU_EAX, size);
    vm_port_access(e->vm, port, size, v, true);
    uint8_t was = vm_doing(e->vm, RUN_DOING_DEVICES);
    dev_port_write(e->vm->bus, port, size, v);
    vm_doing(e->vm, was);
    emu_stop(e);
}

/* -- Which handler ----------------------------------------------------------------------------------- */

static emu_fn *pick_0f(const struct scan_insn *i)
{
    switch (i->opcode) {
    case 0x00:
        return op_group6;
    case 0x01:
        return op_group7;
    case 0x02:
    case 0x03:
        return op_lar_lsl;
    case 0x06:
        return op_clts;
    case 0x08:
    case 0x09:
        return op_wbinvd;
    case 0x20:
    case 0x22:
        return op_mov_cr;
    case 0x21:
    case 0x23:
        return op_mov_dr;
    case 0x30:
    case 0x32:
    case 0x33:
        return op_msr;
    case 0x31:
        return op_rdtsc;
    case 0x34:
        return op_sysenter;
    case 0x35:
        return op_sysexit;
    case 0xA0:
    case 0xA8:
        return op_push_seg;
    case 0xA1:
    case 0xA9:
        return op_pop_seg;
    case 0xA2:
        return op_cpuid;
    case 0xB2:
    case 0xB4:
    case 0xB5:
        return op_load_far;
    default: /* SYSCALL and SYSRET among them: not on this CPU model in 32-bit code */
        return emu_op_ud;
    }
}

emu_fn *emu_pick_sys(const struct scan_insn *i)
{
    if (i->map == SCAN_MAP_0F)
        return pick_0f(i);
    switch (i->opcode) {
    case 0x06:
    case 0x0E:
    case 0x16:
    case 0x1E:
        return op_push_seg;
    case 0x07:
    case 0x17:
    case 0x1F:
        return op_pop_seg;
    case 0x63:
        return op_arpl;
    case 0x6C ... 0x6F:
        return emu_pick_string(i);
    case 0x8C:
        return op_mov_from_seg;
    case 0x8E:
        return op_mov_to_seg;
    case 0x9A:
    case 0xEA:
        return op_far_imm;
    case 0x9C:
        return op_pushf;
    case 0x9D:
        return op_popf;
    case 0xC4:
    case 0xC5:
        return op_load_far;
    case 0xCA:
    case 0xCB:
        return op_retf;
    case 0xCC:
    case 0xCD:
    case 0xCE:
    case 0xF1:
        return op_int;
    case 0xCF:
        return op_iret;
    case 0xE4:
    case 0xE5:
    case 0xEC:
    case 0xED:
        return op_in;
    case 0xE6:
    case 0xE7:
    case 0xEE:
    case 0xEF:
        return op_out;
    case 0xF4:
        return op_hlt;
    case 0xFA:
        return op_cli;
    case 0xFB:
        return op_sti;
    case 0xFF:
        return op_far_mem;
    default:
        return emu_op_ud;
    }
}
