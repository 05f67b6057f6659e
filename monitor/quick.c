/* monitor/quick.c: see quick.h. The rules are those of emu_sys.c, emu_far.c and emu_internal.h. What gates, stacks and
 * returns need is repeated here for descriptors of one value only (is_descriptor()), for which every check of SDM
 * vol. 3, 5.8 and 6.12 is known to pass; tests/isa/quick.S, gates.S, io.S and irq.S meet both forms and compare. */
#include <string.h>

#include "monitor/emu_internal.h"
#include "monitor/quick.h"

/* Descriptors of flat segments, accessed, with AVL clear (SDM vol. 3, 3.4.5); the DPL goes into bits 45
 * and 46. */
#define FLAT_CODE   0x00CF9B000000FFFFull
#define FLAT_DATA   0x00CF93000000FFFFull
#define DESC_DPL(n) ((uint64_t)(n) << 45)
#define CPUID_KINDS (sizeof(((struct cpu *)0)->host_cpuid) / sizeof(struct cpu_cpuid_memo))
#define NO_SELECTOR UINT32_MAX

/* Supervisor's view of [lin, lin + size), or NULL: not in the emulator's TLB, or in two pages. */
static uint8_t *system_memory(struct vm *vm, uint32_t lin, unsigned size, bool write)
{
    const struct tlb_entry *t = &vm->tlb[0][lin >> 12 & (TLB_SIZE - 1)];
    uint32_t tag = write ? t->write_tag : t->read_tag;
    if (tag != ((lin & ~PAGE_MASK_) | 1) || (lin & PAGE_MASK_) + size > PAGE_SIZE_)
        return NULL;
    return t->hva + (lin & PAGE_MASK_);
}

static inline uint32_t load_32(const uint8_t *p)
{
    return host_load(p, 4);
}

static inline uint64_t load_64(const uint8_t *p)
{
    return load_32(p) | (uint64_t)load_32(p + 4) << 32;
}

/* Does sel name this very descriptor in the GDT? */
static bool is_descriptor(struct vm *vm, uint16_t sel, uint64_t want)
{
    const struct cpu *c = vm->cpu;
    if ((sel & 4) || !(sel & ~3u) || (sel | 7u) > c->gdtr.limit)
        return false;
    const uint8_t *p = system_memory(vm, c->gdtr.base + (sel & ~7u), 8, false);
    return p && load_64(p) == want;
}

/* SDM vol. 2, SYSENTER and SYSEXIT: the segments are flat whatever the tables say. */
bool quick_sysenter(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    uint16_t cs = c->sysenter_cs & 0xFFFC;
    if (!cs)
        return false;
    seg_set_flat(c, cs, (uint16_t)(cs + 8), 0);
    c->vif = 0;
    c->gpr[CPU_ESP] = c->sysenter_esp;
    c->eip = c->sysenter_eip;
    vm_segments_changed(vm);
    return true;
}

bool quick_sysexit(struct vm *vm, bool sti)
{
    struct cpu *c = vm->cpu;
    uint16_t cs = c->sysenter_cs & 0xFFFC;
    if (!cs || c->cpl != 0)
        return false;
    seg_set_flat(c, (uint16_t)((cs + 16) | 3), (uint16_t)((cs + 24) | 3), 3);
    if (sti) /* its shadow covers SYSEXIT and is over */
        c->vif = CPU_IF;
    c->gpr[CPU_ESP] = c->gpr[CPU_ECX];
    c->eip = c->gpr[CPU_EDX];
    vm_segments_changed(vm);
    return true;
}

/* The stack for CPL 0 out of a 32-bit TSS (SDM vol. 3, 7.2.1). */
static bool kernel_stack(struct vm *vm, uint32_t *sp, uint16_t *ss)
{
    const struct cpu *c = vm->cpu;
    if (c->tr.unusable || (c->tr.attr & 0x1F) != 0x0B || c->tr.limit < 11)
        return false;
    const uint8_t *p = system_memory(vm, c->tr.base + 4, 6, false);
    if (!p)
        return false;
    *sp = load_32(p);
    *ss = (uint16_t)host_load(p + 4, 2);
    return (*ss & 3) == 0 && is_descriptor(vm, *ss, FLAT_DATA);
}

/* SDM vol. 3, 6.12.1: present 32-bit interrupt or trap gate with DPL 3, to flat code of DPL 0. */
bool quick_int(struct vm *vm, unsigned vector)
{
    struct cpu *c = vm->cpu;
    uint32_t sp;
    uint16_t ss;
    if (c->cpl != 3 || vector * 8 + 7 > c->idtr.limit)
        return false;
    const uint8_t *gate = system_memory(vm, c->idtr.base + vector * 8, 8, false);
    if (!gate)
        return false;
    uint32_t lo = load_32(gate), hi = load_32(gate + 4);
    if ((hi & 0xFE00) != 0xEE00 || !is_descriptor(vm, (uint16_t)(lo >> 16), FLAT_CODE) ||
        !kernel_stack(vm, &sp, &ss))
        return false;
    uint8_t *frame = system_memory(vm, sp - 20, 20, true);
    if (!frame)
        return false;
    const uint32_t image[5] = {c->eip + 2, c->seg[SCAN_CS].sel, cpu_eflags(c), c->gpr[CPU_ESP],
                               c->seg[SCAN_SS].sel};
    memcpy(frame, image, sizeof(image));
    seg_set_flat(c, (uint16_t)(lo >> 16 & ~3u), ss, 0);
    c->eflags_sys &= ~(uint32_t)(CPU_TF | CPU_NT | CPU_RF);
    if (!(hi & 0x100))
        c->vif = 0;
    c->gpr[CPU_ESP] = sp - 20;
    c->eip = (lo & 0xFFFF) | (hi & 0xFFFF0000u);
    vm_segments_changed(vm);
    return true;
}

/* Data segments that CPL 3 may not use are lost on the way there (SDM vol. 2, IRET). */
static bool segments_stay(const struct cpu *c)
{
    static const uint8_t seg[] = {SCAN_ES, SCAN_DS, SCAN_FS, SCAN_GS};
    for (unsigned i = 0; i < sizeof(seg); i++) {
        const struct cpu_seg *s = &c->seg[seg[i]];
        if (seg_is_lost(s, 3))
            return false;
    }
    return true;
}

bool quick_iret(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    uint32_t esp = c->gpr[CPU_ESP];
    if (c->cpl != 0 || (c->eflags_sys & CPU_NT))
        return false;
    const uint8_t *frame = system_memory(vm, esp, 20, false);
    if (!frame)
        return false;
    uint32_t eip = load_32(frame), flags = load_32(frame + 8);
    uint16_t cs = (uint16_t)load_32(frame + 4);
    if (flags & (CPU_VM | CPU_TF))
        return false;
    if ((cs & 3) == 3) {
        uint16_t ss = (uint16_t)load_32(frame + 16);
        if ((ss & 3) != 3 || !is_descriptor(vm, cs, FLAT_CODE | DESC_DPL(3)) ||
            !is_descriptor(vm, ss, FLAT_DATA | DESC_DPL(3)) || !segments_stay(c))
            return false;
        c->gpr[CPU_ESP] = load_32(frame + 12);
        seg_set_flat(c, cs, ss, 3);
    } else {
        if ((cs & 3) != 0 || !is_descriptor(vm, cs, FLAT_CODE))
            return false;
        c->seg[SCAN_CS] = (struct cpu_seg){.limit = 0xFFFFFFFFu, .sel = cs, .attr = 0xC09B};
        c->gpr[CPU_ESP] = esp + 12;
    }
    c->eip = eip;
    cpu_unblock_nmi(c);
    cpu_set_eflags(c, flags);
    vm_segments_changed(vm);
    return true;
}

static bool read_tss(void *from, uint32_t lin, uint32_t *word)
{
    const uint8_t *p = system_memory(from, lin, 2, false);
    *word = p ? host_load(p, 2) : 0;
    return p;
}

bool quick_port(struct vm *vm, uint32_t operand, bool write)
{
    struct cpu *c = vm->cpu;
    uint16_t port = (uint16_t)(operand & XLAT_PORT_DX ? c->gpr[CPU_EDX] : XLAT_PORT(operand));
    unsigned size = XLAT_PORT_SIZE(operand);
    if (io_permission(c, port, size, read_tss, vm) != IO_ALLOWED)
        return false;
    uint8_t was = vm_doing(vm, RUN_DOING_DEVICES);
    if (write) {
        uint32_t v = reg_get(c, CPU_EAX, size);
        vm_port_access(vm, port, size, v, true);
        dev_port_write(vm->bus, port, size, v);
    } else {
        uint32_t v = dev_port_read(vm->bus, port, size);
        vm_port_access(vm, port, size, v, false);
        reg_set(c, CPU_EAX, size, v);
    }
    vm_doing(vm, was);
    c->eip += XLAT_PORT_LEN(operand);
    return true;
}

bool quick_cpuid(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    uint32_t leaf = c->gpr[CPU_EAX], subleaf = c->gpr[CPU_ECX], out[4];
    emu_cpuid(c, leaf, subleaf, out);
    /* The place of this leaf, or one that nobody has asked for under its low byte. */
    uint8_t *at = &c->host_cpuid_of[leaf & 0xFF];
    struct cpu_cpuid_memo *memo = &c->host_cpuid[*at];
    if (memo->invalid || (memo->leaf & 0xFF) != (leaf & 0xFF)) {
        *at = (uint8_t)(c->host_cpuid_key[2]++ % CPUID_KINDS);
        memo = &c->host_cpuid[*at];
    }
    *memo = (struct cpu_cpuid_memo){leaf, subleaf, 0, out[0], out[2], out[3], out[1], 0};
    c->gpr[CPU_EAX] = out[0];
    c->gpr[CPU_EBX] = out[1];
    c->gpr[CPU_ECX] = out[2];
    c->gpr[CPU_EDX] = out[3];
    c->eip += 2;
    return true;
}

/* -- Memory of the stubs -----------------------------------------------------------------------------------
 */

void quick_remember_segment(struct vm *vm, unsigned seg, uint64_t window)
{
    struct cpu *c = vm->cpu;
    const struct cpu_seg *s = &c->seg[seg];
    struct cpu_sreg_memo *m = c->host_sreg[seg],
                         memo = {.sel = s->sel, .seg_number = seg, .window = window, .seg = *s};
    if (c->cpl != 0)
        return;
    if (!s->unusable) {
        memo.lin = (s->sel & 4 ? c->ldtr.base : c->gdtr.base) + (s->sel & ~7u);
        const uint8_t *p = system_memory(vm, memo.lin, 8, false);
        if (!p || !(s->attr & SEG_A))
            return;
        memo.raw = load_64(p);
        struct cpu_seg now; /* the table may have been written after the load, if this was not the load */
        emu_seg_from_desc(&now, s->sel, &(struct emu_desc){(uint32_t)memo.raw, (uint32_t)(memo.raw >> 32)});
        if (now.base != s->base || now.limit != s->limit || now.attr != s->attr)
            return;
    } else if (s->sel & ~3u) {
        return;
    }
    if (m[0].sel != memo.sel)
        m[1] = m[0];
    m[0] = memo;
}

static void forget_segments(struct cpu *c)
{
    for (unsigned s = 0; s < 6; s++)
        c->host_sreg[s][0].sel = c->host_sreg[s][1].sel = NO_SELECTOR;
    c->host_sreg_gdtr = c->gdtr;
    c->host_sreg_ldtr = (struct cpu_table){c->ldtr.base, c->ldtr.sel};
}

static void forget_cpuid(struct cpu *c)
{
    for (unsigned i = 0; i < CPUID_KINDS; i++)
        c->host_cpuid[i].invalid = 1;
    c->host_cpuid_key[0] = (uint64_t)c->cr4 << 32 | 1;
    c->host_cpuid_key[1] = c->apic_base;
}

void quick_check_memory(struct cpu *c)
{
    if (c->host_sreg_gdtr.base != c->gdtr.base || c->host_sreg_gdtr.limit != c->gdtr.limit ||
        c->host_sreg_ldtr.base != c->ldtr.base || c->host_sreg_ldtr.limit != c->ldtr.sel)
        forget_segments(c);
    if (c->host_cpuid_key[0] != ((uint64_t)c->cr4 << 32 | 1) || c->host_cpuid_key[1] != c->apic_base)
        forget_cpuid(c);
}
