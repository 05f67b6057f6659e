/* monitor/light.c: light exits, and the hooks of the emulator that every instruction may pass. See light.h:
 * general registers only. */
#include "monitor/emu_internal.h"
#include "monitor/light.h"
#include "monitor/quick.h"
#include "monitor/stubs.h"

static bool flat_data(const struct cpu_seg *s)
{
    return s->base == 0 && cpu_seg_free(s) == (SEG_FREE_READ | SEG_FREE_WRITE);
}

static bool flat_code(const struct cpu_seg *s)
{
    return s->base == 0 && (s->attr & SEG_CODE) && (cpu_seg_free(s) & SEG_FREE_READ);
}

void vm_segments_changed(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    for (unsigned i = 0; i < 6; i++) {
        c->seg_sel[i] = c->seg[i].sel;
        c->seg_base[i] = c->seg[i].base;
    }
    if (!vm->run)
        return;
    struct machine *m = machine_of(vm);
    const struct cpu_seg *cs = &c->seg[SCAN_CS], *ss = &c->seg[SCAN_SS];
    m->flat = flat_code(cs) && flat_data(ss) && (cs->attr & ss->attr & SEG_DB) &&
              flat_data(&c->seg[SCAN_DS]) && flat_data(&c->seg[SCAN_ES]);
}

/* Has the window nothing that INVLPG of this page takes away? Pages from the same page table need one each, those of a large page go together
 * (SDM vol. 3, 4.10.4.1). */
static bool shows_nothing(const struct machine *m, const struct window *w, gva_t page)
{
    const struct region *r = w->live ? w->region[page.v >> 22] : NULL;
    bool pae = m->vm.cpu->cr4 & CPU_CR4_PAE;
    return !r || (!r->state[page.v / PAGE_SIZE_ % REGION_PAGES] && !(r->pde[pae ? page.v >> 21 & 1 : 0] & 0x80));
}

/* Temporary mappings that were never mapped in a window: their invalidation is most of what they cost. */
static bool invlpg_of_nothing(struct machine *m, gva_t page)
{
    const struct cpu *c = m->vm.cpu;
    if (!(c->cr0 & CPU_CR0_PG) || !shows_nothing(m, &m->window[0], page) || (m->data && (m->data->cr3 != c->cr3 || !shows_nothing(m, m->data, page))))
        return false;
    COUNT(m, INVLPG);
    window_volatile_begin(m, page.v);
    return true;
}

void vm_paging_changed(struct vm *vm, enum vm_flush what, gva_t page)
{
    if (!vm->run)
        return;
    struct machine *m = machine_of(vm);
    const struct cpu *c = vm->cpu;
    if (what == VM_FLUSH_PAGE)
        TRACE(m, INVLPG, page.v);
    else
        TRACE(m, PAGING, c->cr0, c->cr3, c->cr4, c->efer);
    if (what == VM_FLUSH_PAGE && invlpg_of_nothing(m, page))
        return;
    cpu_fx_save(vm->cpu);
    window_paging_changed(m, what, page);
}

void vm_exception(struct vm *vm, unsigned vector, bool has_error, uint32_t error)
{
    if (!vm->run)
        return;
    struct machine *m = machine_of(vm);
    COUNT(m, EXCEPTIONS);
    if (vector == CPU_EXC_PF)
        COUNT(m, PAGE_FAULTS);
    TRACE(m, EXCEPTION, vector, has_error ? (uint64_t)error + 1 : 0, vm->cpu->cr2);
}

void vm_port_access(struct vm *vm, uint16_t port, unsigned size, uint32_t value, bool write)
{
    if (!vm->run)
        return;
    struct machine *m = machine_of(vm);
    if (write)
        TRACE(m, OUT, port, size, value);
    else
        TRACE(m, IN, port, size, value);
}

void vm_mmio_access(struct vm *vm, uint64_t gpa_, unsigned size, uint32_t value, bool write)
{
    if (!vm->run)
        return;
    struct machine *m = machine_of(vm);
    if (write)
        TRACE(m, MMIO_WRITE, gpa_, size, value);
    else
        TRACE(m, MMIO_READ, gpa_, size, value);
}

void vm_transfer(struct vm *vm, enum trace_kind kind, struct vm_place from, unsigned vector)
{
    if (!vm->run)
        return;
    struct machine *m = machine_of(vm);
    struct vm_place to = vm_place(vm->cpu);
    const uint64_t field[TRACE_FIELDS] = {to.eip, to.cs, to.context, vector};
    if (!(m->tracing >> kind & 1))
        return;
    cpu_fx_save(vm->cpu);
    machine_trace(m, kind, from, field);
}

/* In the middle of a run outside the pages that have breakpoints: back to translated code, where that is possible. */
bool vm_break_at(struct vm *vm, uint32_t lin)
{
    const struct machine *m = machine_of(vm);
    const struct debug *d = m->debug;
    if (!debug_breaks_in_page(d, lin))
        return machine_translatable(m);
    for (unsigned i = 0; i < d->points; i++)
        if (d->point[i].kind <= DEBUG_HARD && d->point[i].lin == lin)
            return true;
    return false;
}

unsigned vm_watched(struct vm *vm, uint32_t lin, unsigned size, bool write, uint32_t *at)
{
    const struct debug *d = machine_of(vm)->debug;
    for (unsigned i = 0; i < d->points; i++) {
        const struct debug_point *p = &d->point[i];
        if (p->kind != DEBUG_ACCESS && p->kind != (write ? DEBUG_WRITE : DEBUG_READ))
            continue;
        if (lin <= p->lin + (p->len - 1) && p->lin <= lin + (size - 1)) {
            *at = lin > p->lin ? lin : p->lin;
            return i + 1;
        }
    }
    return 0;
}

void vm_watch_hit(struct vm *vm, unsigned watched, uint32_t at)
{
    struct debug *d = machine_of(vm)->debug;
    if (!d->hit)
        d->hit_stop = (struct debug_stop){DEBUG_WHY_WATCH, d->point[watched - 1], at};
    d->hit = true;
}

bool machine_translatable(const struct machine *m)
{
    const struct cpu *c = m->vm.cpu;
    return m->flat && (c->cr0 & CPU_CR0_PE) && !(c->eflags_sys & (CPU_VM | CPU_TF)) &&
           (c->cpl == 0 || c->cpl == 3) && c->shadow == 0 && c->a20_mask == 0xFFFFFFFFu &&
           (c->dr[7] & 0xFF) == 0 && !((c->eflags_sys & CPU_AC) && (c->cr0 & CPU_CR0_AM) && c->cpl == 3) &&
           !m->cfg->emulate_only && (!(m->vm.observe & VM_OBSERVE_FLOW) || m->stepping);
}

uint32_t machine_mode(const struct machine *m)
{
    const struct cpu *c = m->vm.cpu;
    uint32_t mode = c->cpl == 3 ? XLAT_MODE_USER : 0;
    if (m->lockstep) /* the guest's time is not the host's */
        mode |= XLAT_MODE_TSC_TRAP;
    if ((c->cr0 & (CPU_CR0_EM | CPU_CR0_TS)) || !(c->cr4 & CPU_CR4_OSFXSR) || c->ferr)
        mode |= XLAT_MODE_FPU_TRAP;
    if (c->tsc_offset || c->host_tsc_stopped || c->host_tsc_lost || ((c->cr4 & CPU_CR4_TSD) && c->cpl == 3))
        mode |= XLAT_MODE_TSC_TRAP;
    return mode;
}

/* The part of machine_prepare() that needs no more than registers: true if the window for the present state
 * is there and up to date. */
static bool window_ready(struct machine *m)
{
    const struct cpu *c = m->vm.cpu;
    struct window *w = m->current;
    bool user = c->cpl == 3;
    uint32_t mode = machine_mode(m);
    if ((mode ^ m->mode) & ~(uint32_t)XLAT_MODE_USER)
        return false;
    if (w->user != user || (user && w->cr3 != c->cr3)) {
        w = user ? m->last_user : &m->window[0];
        if (!w || !w->live || (user && w->cr3 != c->cr3))
            return false;
        window_enter(m, w);
    }
    if (w->stale)
        return false;
    m->mode = mode;
    window_publish(m, w);
    return true;
}

/* What the translator said beforehand. */
static bool quick(struct machine *m, uint32_t why, uint32_t operand)
{
    struct vm *vm = &m->vm;
    switch (why) {
    case XLAT_STUB_SYSENTER:
        return quick_sysenter(vm);
    case XLAT_STUB_SYSEXIT:
        return quick_sysexit(vm, operand == 1);
    case XLAT_STUB_INT:
        return quick_int(vm, operand);
    case XLAT_STUB_IRET:
        return quick_iret(vm);
    case XLAT_STUB_IN:
        return quick_port(vm, operand, false);
    case XLAT_STUB_OUT:
        return quick_port(vm, operand, true);
    case XLAT_STUB_CPUID:
        return quick_cpuid(vm);
    case XLAT_STUB_EMULATE:
        return quick_mmio(vm);
    default:
        return false;
    }
}

void light_remember_segment(struct machine *m, uint32_t operand)
{
    unsigned seg = operand / CPU_MEMO_STRIDE;
    if (seg >= 6 || !m->flat || m->current != &m->window[0])
        return;
    bool far_seg = seg == SCAN_FS || seg == SCAN_GS;
    quick_remember_segment(&m->vm, seg, window_for(m, m->current, far_seg ? seg : SCAN_DS));
}

uint32_t light_emulate(struct machine *m, uint32_t why, uint32_t operand)
{
    struct cpu *c = m->vm.cpu;
    m->why = why;
    m->operand = operand;
    if (why == XLAT_STUB_STI && !m->stepping)
        c->shadow = CPU_SHADOW_STI;
    if (!m->light)
        return why;
    if (why == XLAT_STUB_RUN && !smc_emulates(m, operand))
        return XLAT_STUB_MISS; /* its turn is over: a verso is to be made */
    if (why == XLAT_STUB_VOLATILE && !window_volatile_yet(m, operand * PAGE_SIZE_, 1)) {
        cpu_fx_save(c);
        window_map_volatile(m, gva(operand * PAGE_SIZE_));
        return STUB_GO_ON; /* again, as any access */
    }
    uint32_t cpl = c->cpl;
    COUNT(m, EXITS);
    COUNT(m, EXITS_LIGHT);
    if (why == XLAT_STUB_VOLATILE)
        COUNT(m, EMULATED_VOLATILE);
    m->light_result = EMU_OK;
    if (quick(m, why, operand)) {
        COUNT(m, EMULATED);
        if ((why >= XLAT_STUB_IN || why == XLAT_STUB_EMULATE) && !c->host_event && !(c->irq_pending && c->vif))
            return STUB_GO_ON; /* a device; what changes modes sets host_event */
    } else {
        if (why == XLAT_STUB_RUN)
            m->light_result = smc_run(m, operand);
        else
            do { /* on, while an interrupt shadow lasts */
                m->light_result = emu_step(&m->vm);
                COUNT(m, EMULATED);
            } while (c->shadow && m->light_result == EMU_OK && !c->host_event);
        if (why == XLAT_STUB_SREG && m->light_result == EMU_OK)
            light_remember_segment(m, operand);
    }
    if (m->light_result != EMU_OK || c->host_event || (c->eflags_sys & CPU_RF) || (c->irq_pending && c->vif) ||
        (cpl == 0 && c->cpl == 3 && m->pf_pending) || !machine_translatable(m))
        return STUB_EXIT_LIGHT;
    if (!window_ready(m)) {
        cpu_fx_save(c);
        machine_prepare(m);
        if (m->ended)
            return STUB_EXIT_LIGHT;
    }
    return STUB_GO_ON;
}
