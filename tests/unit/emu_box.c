/* tests/unit/emu_box.c: see emu_box.h. */
#include "emu_box.h"
#include "quiet_bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct box box_new(void)
{
    struct box b;
    b.vm = calloc(1, sizeof(*b.vm));
    b.c = aligned_alloc(64, (sizeof(*b.c) + 63) & ~(size_t)63);
    b.ram = mmap(NULL, BOX_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!b.vm || !b.c || b.ram == MAP_FAILED) {
        perror("box_new");
        exit(2);
    }
    memset(b.c, 0, sizeof(*b.c));
    b.vm->cpu = b.c;
    b.vm->ram = b.ram;
    b.vm->ram_bytes = BOX_RAM;
    b.vm->code_pages = calloc(1, BOX_RAM / PAGE_SIZE_);
    b.vm->bus = quiet_bus(BOX_RAM);
    emu_reset(b.vm);
    return b;
}

void box_free(struct box *b)
{
    dev_bus_destroy(b->vm->bus);
    munmap(b->ram, BOX_RAM);
    free(b->vm->code_pages);
    free(b->c);
    free(b->vm);
}

uint32_t box_get(const struct box *b, uint32_t at, unsigned size)
{
    uint32_t v = 0;
    memcpy(&v, b->ram + at, size);
    return v;
}

void box_set(struct box *b, uint32_t at, unsigned size, uint32_t v)
{
    memcpy(b->ram + at, &v, size);
}

void box_desc(struct box *b, unsigned sel, uint32_t base, uint32_t limit, unsigned attr)
{
    uint32_t at = (sel & 4 ? BOX_LDT : BOX_GDT) + (sel & ~7u);
    if (attr & 0x8000)
        limit >>= 12;
    box_set(b, at, 4, (limit & 0xFFFF) | base << 16);
    box_set(b, at + 4, 4,
            (base >> 16 & 0xFF) | (attr & 0xF0FF) << 8 | (limit & 0xF0000) | (base & 0xFF000000u));
}

void box_gate(struct box *b, uint32_t at, uint16_t sel, uint32_t off, unsigned attr)
{
    box_set(b, at, 4, (uint32_t)sel << 16 | (off & 0xFFFF));
    box_set(b, at + 4, 4, (off & 0xFFFF0000u) | (attr & 0xFF) << 8);
}

/* All that suites use; clearing 2 MiB for each case would be most of their time. */
static void clear(struct box *b)
{
    memset(b->ram, 0, 0x70000);
    memset(b->ram + BOX_PD, 0, 0x30000);
}

static void tables(struct box *b)
{
    for (unsigned v = 0; v < 256; v++) {
        box_gate(b, BOX_IDT + v * 8, BOX_SEL_CODE0, BOX_HANDLER + v * 16, 0x8E);
        b->ram[BOX_HANDLER + v * 16] = 0xF4;
    }
    box_desc(b, BOX_SEL_CODE0, 0, 0xFFFFFFFFu, 0xC09B);
    box_desc(b, BOX_SEL_DATA0, 0, 0xFFFFFFFFu, 0xC093);
    box_desc(b, BOX_SEL_CODE3, 0, 0xFFFFFFFFu, 0xC0FB);
    box_desc(b, BOX_SEL_DATA3, 0, 0xFFFFFFFFu, 0xC0F3);
    box_desc(b, BOX_SEL_TSS, BOX_TSS, 0x0FF, 0x0089);
    box_desc(b, BOX_SEL_LDT, BOX_LDT, 0x0FF, 0x0082);
    box_desc(b, BOX_SEL_CONF0, 0, 0xFFFFFFFFu, 0xC09F);
    box_desc(b, BOX_SEL_CODE16, 0, 0xFFFF, 0x009B);
    box_desc(b, BOX_SEL_DATA16, 0, 0xFFFF, 0x0093);
    box_desc(b, BOX_SEL_SMALL, BOX_DATA, 0x0FF, 0x4093);
    box_desc(b, BOX_SEL_ABSENT, 0, 0xFFFFFFFFu, 0xC013);
    box_desc(b, BOX_SEL_XONLY, 0, 0xFFFFFFFFu, 0xC099);
    box_desc(b, BOX_SEL_TSS2, BOX_TSS2, 0x0FF, 0x0089);
    box_desc(b, BOX_SEL_TSS16, BOX_TSS16, 0x02B, 0x0081);
    box_gate(b, BOX_GDT + BOX_SEL_TASK, BOX_SEL_TSS2, 0, 0x85);
    box_desc(b, BOX_SEL_CODE_ABSENT, 0, 0xFFFFFFFFu, 0xC01B);
    box_desc(b, BOX_SEL_DOWN, BOX_DATA, 0x0FF, 0x4097);
    box_desc(b, BOX_SEL_CODE1, 0, 0xFFFFFFFFu, 0xC0BB);
    box_desc(b, BOX_SEL_DATA1, 0, 0xFFFFFFFFu, 0xC0B3);
    box_desc(b, BOX_SEL_RO, 0, 0xFFFFFFFFu, 0xC091);
    box_desc(b, BOX_SEL_BASE, BOX_DATA, 0xFFFF, 0x4093);
    box_set(b, BOX_TSS + 4, 4, BOX_STACK0);
    box_set(b, BOX_TSS + 8, 2, BOX_SEL_DATA0);
    box_set(b, BOX_TSS + 0x66, 2, 0x100); /* no I/O bitmap */
}

static struct cpu_seg segment(uint16_t sel, uint32_t base, uint32_t limit, unsigned attr)
{
    return (struct cpu_seg){.base = base, .limit = limit, .sel = sel, .attr = (uint16_t)attr};
}

void box_flat(struct box *b, unsigned cpl)
{
    struct cpu *c = b->c;
    unsigned dpl = cpl << 5;
    emu_reset(b->vm);
    clear(b);
    tables(b);
    c->cr0 = CPU_CR0_PE | CPU_CR0_ET | CPU_CR0_NE;
    c->cpl = cpl;
    c->gdtr = (struct cpu_table){BOX_GDT, BOX_SEL_LAST + 7};
    c->idtr = (struct cpu_table){BOX_IDT, 0x7FF};
    c->tr = segment(BOX_SEL_TSS, BOX_TSS, 0x0FF, 0x8B);
    box_set(b, BOX_GDT + BOX_SEL_TSS + 5, 1, 0x8B);
    c->ldtr = segment(BOX_SEL_LDT, BOX_LDT, 0x0FF, 0x82);
    for (unsigned i = 0; i < 6; i++)
        c->seg[i] =
            segment((uint16_t)((cpl ? BOX_SEL_DATA3 : BOX_SEL_DATA0) | cpl), 0, 0xFFFFFFFFu, 0xC093 | dpl);
    c->seg[SCAN_CS] =
        segment((uint16_t)((cpl ? BOX_SEL_CODE3 : BOX_SEL_CODE0) | cpl), 0, 0xFFFFFFFFu, 0xC09B | dpl);
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[CPU_ESP] = BOX_STACK;
    c->eip = BOX_CODE;
    cpu_set_eflags(c, 0);
    mmu_flush_tlb(b->vm);
}

void box_pte(struct box *b, uint32_t lin, uint32_t flags)
{
    box_set(b, BOX_PT + (lin >> 12) * 4, 4, (lin & ~PAGE_MASK_) | flags);
    mmu_flush_tlb(b->vm);
}

void box_paging(struct box *b)
{
    box_set(b, BOX_PD, 4, BOX_PT | 7);
    for (uint32_t lin = 0; lin < BOX_RAM; lin += PAGE_SIZE_)
        box_pte(b, lin, 7);
    b->c->cr3 = BOX_PD;
    b->c->cr0 |= CPU_CR0_PG | CPU_CR0_WP;
    mmu_flush_tlb(b->vm);
}

void box_real(struct box *b)
{
    struct cpu *c = b->c;
    emu_reset(b->vm);
    clear(b);
    for (unsigned v = 0; v < 256; v++)
        box_set(b, v * 4, 4, BOX_HANDLER + v * 16);
    c->seg[SCAN_CS] = segment(0, 0, 0xFFFF, 0x93);
    c->seg[SCAN_SS] = segment(0x3000, 0x30000, 0xFFFF, 0x93);
    c->seg[SCAN_DS] = c->seg[SCAN_ES] = segment(0x4000, 0x40000, 0xFFFF, 0x93);
    c->idtr = (struct cpu_table){0, 0x3FF};
    c->eip = BOX_CODE;
    c->gpr[CPU_ESP] = 0;
    mmu_flush_tlb(b->vm);
}

void box_v86(struct box *b, unsigned iopl)
{
    struct cpu *c = b->c;
    static const uint16_t sels[6] = {0x4000, 0, 0x3000, 0x4000, 0x1111, 0x2222};
    box_flat(b, 3);
    cpu_set_eflags(c, CPU_VM | iopl << 12 | CPU_IF);
    for (unsigned i = 0; i < 6; i++)
        c->seg[i] = segment(sels[i], (uint32_t)sels[i] << 4, 0xFFFF, 0xF3);
    c->gpr[CPU_ESP] = 0x1000;
}

void box_code(struct box *b, const void *bytes, unsigned n)
{
    memcpy(b->ram + BOX_CODE, bytes, n);
}

int box_vector(const struct box *b)
{
    uint32_t off = b->c->eip - BOX_HANDLER;
    return off < 256 * 16 && off % 16 == 0 ? (int)(off / 16) : -1;
}

uint32_t box_stack(const struct box *b, unsigned n)
{
    return box_get(b, b->c->seg[SCAN_SS].base + b->c->gpr[CPU_ESP] + n * 4, 4);
}
