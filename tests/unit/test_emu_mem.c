/* tests/unit/test_emu_mem.c: paging and the emulator's memory accesses: rights, error codes, A and D, TLB,
 * page crossings, restartability, string instructions.
 */
#include <check.h>
#include <string.h>

#include "emu_box.h"

static struct box box;
static struct cpu *c;

static void setup(void)
{
    box = box_new();
    c = box.c;
}
static void teardown(void)
{
    box_free(&box);
}
static void start(unsigned cpl)
{
    box_flat(&box, cpl);
    box_paging(&box);
}
static void page_fault_is(uint32_t addr, uint32_t error)
{
    ck_assert_msg(box_vector(&box) == CPU_EXC_PF, "vector %d", box_vector(&box));
    ck_assert_msg(c->cr2 == addr, "cr2 %08x, expected %08x", c->cr2, addr);
    ck_assert_msg(box_stack(&box, 0) == error, "error %x, expected %x", box_stack(&box, 0), error);
    ck_assert_uint_eq(box_stack(&box, 1), BOX_CODE);
}
static uint32_t pte(uint32_t lin)
{
    return box_get(&box, BOX_PT + (lin >> 12) * 4, 4) & PAGE_MASK_;
}

/* -- Walker ------------------------------------------------------------------------------------------ */

START_TEST(walk_rights_by_level_wp_and_access)
{
    static const struct {
        uint32_t flags;
        unsigned access;
        bool wp, ok;
        uint32_t error;
    } t[] = {
        {7, MMU_USER | MMU_WRITE, true, true, 0},
        {5, MMU_USER, true, true, 0},
        {5, MMU_USER | MMU_WRITE, true, false, 7},
        {3, MMU_USER, true, false, 5},
        {3, MMU_WRITE, true, true, 0},
        {1, MMU_WRITE, true, false, 3},
        {1, MMU_WRITE, false, true, 0},
        {5, MMU_USER | MMU_WRITE, false, false, 7},
        {6, 0, true, false, 0},
        {6, MMU_USER | MMU_WRITE, true, false, 6},
        {6, MMU_USER | MMU_EXEC, true, false, 4}, /* no I/D without NX */
        {0x87, 0, true, false, 9},                /* bit 7 of a PTE is reserved without PAT */
    };
    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct mmu_page p;
        struct mmu_fault f = {0};
        start(0);
        if (!t[i].wp)
            c->cr0 &= ~(uint32_t)CPU_CR0_WP;
        box_pte(&box, BOX_DATA, t[i].flags);
        bool ok = mmu_walk(box.vm, gva(BOX_DATA + 5), t[i].access, &p, &f);
        ck_assert_msg(ok == t[i].ok, "row %u", i);
        if (!ok) {
            ck_assert_msg(f.error_code == t[i].error, "row %u: error %x", i, f.error_code);
            ck_assert_uint_eq(f.addr.v, BOX_DATA + 5);
            ck_assert_msg(pte(BOX_DATA) == t[i].flags, "row %u: A or D set by a fault", i);
            continue;
        }
        ck_assert_uint_eq(p.page.v, BOX_DATA);
        ck_assert_uint_eq(pte(BOX_DATA), t[i].flags | 0x20 | (t[i].access & MMU_WRITE ? 0x40 : 0));
        ck_assert_uint_eq(box_get(&box, BOX_PD, 4) & 0x20, 0x20);
    }
}
END_TEST

START_TEST(walk_large_pages)
{
    struct mmu_page p;
    struct mmu_fault f;
    start(0);
    c->cr4 = CPU_CR4_PSE;
    box_set(&box, BOX_PD + 4, 4, 0x00000083);
    ck_assert(mmu_walk(box.vm, gva(0x400000 + BOX_DATA), MMU_WRITE, &p, &f));
    ck_assert_uint_eq(p.page.v, BOX_DATA);
    ck_assert_uint_eq(p.size_log2, 22);
    ck_assert_uint_eq(box_get(&box, BOX_PD + 4, 4), 0x000000E3);
    box_set(&box, BOX_PD + 4, 4, 0x00002083);
    ck_assert(!mmu_walk(box.vm, gva(0x400000), 0, &p, &f));
    ck_assert_uint_eq(f.error_code, 9);
    c->cr4 = 0; /* without PSE, bit 7 of a PDE is ignored */
    box_set(&box, BOX_PD + 4, 4, BOX_PT | 0x83);
    ck_assert(mmu_walk(box.vm, gva(0x400000 + BOX_DATA), 0, &p, &f));
    ck_assert_uint_eq(p.size_log2, 12);
}
END_TEST

static void start_pae(void)
{
    box_flat(&box, 0);
    for (unsigned i = 0; i < 512; i++)
        box_set(&box, BOX_PT + i * 8, 4, (i << 12) | 7);
    box_set(&box, BOX_PD, 4, 0x103001);     /* PDPTE 0 */
    box_set(&box, 0x103000, 4, BOX_PT | 7); /* PDE 0: 4 KiB pages */
    box_set(&box, 0x103008, 4, 0x00000087); /* PDE 1: 2 MiB */
    BOX_CODE_BYTES(&box, 0x0F, 0x22, 0xD8, 0x0F, 0x22, 0xE1, 0x0F, 0x22, 0xC2);
    c->gpr[CPU_EAX] = BOX_PD;
    c->gpr[CPU_ECX] = CPU_CR4_PAE;
    c->gpr[CPU_EDX] = c->cr0 | CPU_CR0_PG | CPU_CR0_WP;
    for (unsigned i = 0; i < 3; i++)
        emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE + 9);
    c->eip = BOX_CODE;
}

START_TEST(walk_pae_and_nx)
{
    struct mmu_page p;
    struct mmu_fault f;
    start_pae();
    ck_assert(mmu_walk(box.vm, gva(BOX_DATA), MMU_WRITE, &p, &f));
    ck_assert_uint_eq(p.page.v, BOX_DATA);
    ck_assert(mmu_walk(box.vm, gva(0x200000 + BOX_DATA), MMU_USER, &p, &f));
    ck_assert_uint_eq(p.page.v, BOX_DATA);
    ck_assert_uint_eq(p.size_log2, 21);
    ck_assert(!mmu_walk(box.vm, gva(0x40000000), 0, &p, &f));
    ck_assert_uint_eq(f.error_code, 0);
    box_set(&box, BOX_PT + (BOX_DATA >> 12) * 8 + 4, 4, 0x80000000u);
    ck_assert(!mmu_walk(box.vm, gva(BOX_DATA), 0, &p, &f)); /* bit 63 is reserved without NXE */
    ck_assert_uint_eq(f.error_code, 9);
    c->efer = CPU_EFER_NXE;
    ck_assert(mmu_walk(box.vm, gva(BOX_DATA), 0, &p, &f));
    ck_assert(!p.executable);
    ck_assert(!mmu_walk(box.vm, gva(BOX_DATA), MMU_EXEC | MMU_USER, &p, &f));
    ck_assert_uint_eq(f.error_code, 0x15);
    box_set(&box, BOX_PT + (BOX_DATA >> 12) * 8 + 4, 4, 0x10); /* bit 36: beyond MAXPHYADDR */
    ck_assert(!mmu_walk(box.vm, gva(BOX_DATA), 0, &p, &f));
    ck_assert_uint_eq(f.error_code, 9);
}
END_TEST

START_TEST(cr3_with_reserved_pdpte_bits_faults)
{
    start_pae();
    box_set(&box, 0x104000, 4, 0x103003);
    c->gpr[CPU_EAX] = 0x104000;
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
    ck_assert_uint_eq(c->cr3, BOX_PD);
}
END_TEST

START_TEST(walk_tables_outside_ram_do_not_crash)
{
    struct mmu_page p;
    struct mmu_fault f;
    start(0);
    c->cr3 = 0xFFFFF000u;
    ck_assert(!mmu_walk(box.vm, gva(0x1234), 0, &p, &f));
    c->cr3 = 0xA0000;
    ck_assert(!mmu_walk(box.vm, gva(0x1234), 0, &p, &f));
    box_set(&box, BOX_PD, 4, 0xFFFFF007u);
    c->cr3 = BOX_PD;
    ck_assert(!mmu_walk(box.vm, gva(0x1234), 0, &p, &f));
}
END_TEST

START_TEST(a20_off_masks_bit_20)
{
    struct mmu_page p;
    struct mmu_fault f;
    box_flat(&box, 0);
    c->a20_mask = 0xFFEFFFFFu;
    ck_assert(mmu_walk(box.vm, gva(0x100000 + BOX_DATA), 0, &p, &f));
    ck_assert_uint_eq(p.page.v, BOX_DATA);
}
END_TEST

/* -- Faults through the emulator --------------------------------------------------------------------- */

START_TEST(page_fault_codes_of_instructions)
{
    start(3);
    BOX_CODE_BYTES(&box, 0x89, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA + 8;
    box_pte(&box, BOX_DATA, 5);
    emu_step(box.vm);
    page_fault_is(BOX_DATA + 8, 7);
    start(3);
    BOX_CODE_BYTES(&box, 0x01, 0x06); /* read-modify-write reports a write */
    c->gpr[CPU_ESI] = BOX_DATA + 8;
    box_pte(&box, BOX_DATA, 6);
    emu_step(box.vm);
    page_fault_is(BOX_DATA + 8, 6);
    start(3);
    box_pte(&box, BOX_CODE, 3);
    emu_step(box.vm);
    page_fault_is(BOX_CODE, 5);
}
END_TEST

START_TEST(crossing_store_faulting_on_second_page_leaves_memory)
{
    static const uint8_t stores[][3] = {{0x89, 0x06}, {0x01, 0x06}, {0x87, 0x06}, {0xFF, 0x06}, {0xD3, 0x06}};
    for (unsigned i = 0; i < sizeof(stores) / sizeof(stores[0]); i++) {
        start(0);
        box_code(&box, stores[i], 3);
        box_set(&box, BOX_DATA + 0xFFC, 4, 0x11223344);
        box_set(&box, BOX_DATA + 0x1000, 4, 0x55667788);
        c->gpr[CPU_EAX] = 0xAAAAAAAA;
        c->gpr[CPU_ECX] = 3;
        c->gpr[CPU_ESI] = BOX_DATA + 0xFFE;
        box_pte(&box, BOX_DATA + 0x1000, 1);
        emu_step(box.vm);
        page_fault_is(BOX_DATA + 0x1000, 3);
        ck_assert_uint_eq(box_get(&box, BOX_DATA + 0xFFC, 4), 0x11223344);
        ck_assert_uint_eq(box_get(&box, BOX_DATA + 0x1000, 4), 0x55667788);
        ck_assert_uint_eq(c->gpr[CPU_EAX], 0xAAAAAAAA);
    }
}
END_TEST

START_TEST(crossing_accesses_work)
{
    start(0);
    BOX_CODE_BYTES(&box, 0x89, 0x06, 0x8B, 0x1E);
    c->gpr[CPU_EAX] = 0x12345678;
    c->gpr[CPU_ESI] = BOX_DATA + 0xFFD;
    emu_step(box.vm);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EBX], 0x12345678);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0x1000, 1), 0x12);
}
END_TEST

START_TEST(instruction_across_pages_faults_at_second_page)
{
    start(0);
    c->eip = BOX_CODE + 0xFFE;
    memcpy(box.ram + BOX_CODE + 0xFFE, (const uint8_t[]){0xB8, 1, 2, 3, 4}, 5);
    box_pte(&box, BOX_CODE + 0x1000, 6);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_PF);
    ck_assert_uint_eq(c->cr2, BOX_CODE + 0x1000);
    ck_assert_uint_eq(box_stack(&box, 1), BOX_CODE + 0xFFE);
    start(0);
    c->eip = BOX_CODE + 0xFFE;
    memcpy(box.ram + BOX_CODE + 0xFFE, (const uint8_t[]){0xB8, 1, 2, 3, 4}, 5);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0x04030201);
}
END_TEST

/* Instructions that push or pop, each with the stack's next page missing: nothing may change. */
START_TEST(stack_instructions_are_atomic)
{
    static const struct {
        uint8_t bytes[8];
        unsigned len;
        int32_t esp; /* from the page boundary BOX_STACK */
    } t[] = {
        {{0x50}, 1, 2}, /* push eax: crosses */
        {{0x50}, 1, 0},
        {{0x60}, 1, 16},                     /* pusha: half of it fits */
        {{0xE8, 0, 0, 0, 0}, 5, 0},          /* call */
        {{0xFF, 0x16}, 2, 0},                /* call [esi] */
        {{0x9A, 0, 0x90, 0, 0, 8, 0}, 7, 4}, /* far call: one word fits */
        {{0xC8, 0x10, 0, 2}, 4, 4},          /* enter */
        {{0x9C}, 1, 0},
        {{0x0E}, 1, 2},
        {{0x68, 1, 2, 3, 4}, 5, 0},
        {{0xFF, 0x36}, 2, 0},   /* push [esi] */
        {{0x58}, 1, -4096 - 2}, /* pop from the missing page */
        {{0xC3}, 1, -4096},
        {{0x61}, 1, -4096 - 16},
        {{0xCF}, 1, -4096 - 8},
        {{0xCB}, 1, -4096 - 4},
        {{0x9D}, 1, -4096},
        {{0x1F}, 1, -4096},
        {{0x8F, 0x06}, 2, -4096},
        {{0xC9}, 1, 0}, /* leave: EBP points there */
    };
    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        uint32_t before[8];
        uint8_t memory[0x40];
        start(3);
        box_gate(&box, BOX_IDT + 0x80 * 8, BOX_SEL_CODE0, BOX_HANDLER, 0xEE);
        box_desc(&box, 8, 0, 0xFFFFFFFFu, 0xC0FB); /* far call target */
        box_gate(&box, BOX_IDT + CPU_EXC_PF * 8, 0x40, BOX_HANDLER + CPU_EXC_PF * 16, 0x8E);
        box_desc(&box, 0x40, 0, 0xFFFFFFFFu, 0xC09B);
        box_code(&box, t[i].bytes, t[i].len);
        for (unsigned r = 0; r < 8; r++)
            c->gpr[r] = 0x1000 + r;
        c->gpr[CPU_ESI] = BOX_DATA;
        c->gpr[CPU_EBP] = BOX_STACK - 0x800;
        c->gpr[CPU_ESP] = BOX_STACK + (uint32_t)t[i].esp;
        memset(box.ram + BOX_STACK - 0x20, 0x5A, 0x40);
        memcpy(memory, box.ram + BOX_STACK - 0x20, sizeof(memory));
        memcpy(before, c->gpr, sizeof(before));
        box_pte(&box, BOX_STACK - 0x1000, 6);
        emu_step(box.vm);
        ck_assert_msg(box_vector(&box) == CPU_EXC_PF, "row %u: vector %d", i, box_vector(&box));
        ck_assert_uint_eq(box_stack(&box, 1), BOX_CODE);
        ck_assert_msg(box_stack(&box, 4) == before[CPU_ESP], "row %u: esp %08x", i, box_stack(&box, 4));
        for (unsigned r = 0; r < 8; r++)
            ck_assert_msg(r == CPU_ESP || c->gpr[r] == before[r], "row %u: register %u changed", i, r);
        ck_assert_msg(!memcmp(memory, box.ram + BOX_STACK - 0x20, sizeof(memory)), "row %u: memory changed",
                      i);
    }
}
END_TEST

START_TEST(pop_to_memory_fault_restores_esp)
{
    start(3);
    BOX_CODE_BYTES(&box, 0x8F, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA;
    box_pte(&box, BOX_DATA, 5);
    emu_step(box.vm);
    page_fault_is(BOX_DATA, 7);
    ck_assert_uint_eq(box_stack(&box, 4), BOX_STACK);
}
END_TEST

START_TEST(pop_esp_relative_uses_incremented_esp)
{
    start(0);
    BOX_CODE_BYTES(&box, 0x8F, 0x04, 0x24); /* pop [esp] */
    box_set(&box, BOX_STACK, 4, 0x1234);
    emu_step(box.vm);
    ck_assert_uint_eq(box_get(&box, BOX_STACK + 4, 4), 0x1234);
}
END_TEST

START_TEST(interrupt_with_missing_kernel_stack_double_faults)
{
    start(3);
    BOX_CODE_BYTES(&box, 0x0F, 0x0B);
    box_pte(&box, BOX_STACK0 - 0x1000, 2);
    box_gate(&box, BOX_IDT + CPU_EXC_DF * 8, BOX_SEL_TASK, 0, 0x85);
    box_gate(&box, BOX_IDT + CPU_EXC_DF * 8, BOX_SEL_TSS2, 0, 0x85);
    box_set(&box, BOX_TSS2 + 0x1C, 4, BOX_PD);
    box_set(&box, BOX_TSS2 + 0x20, 4, 0x9000);
    box_set(&box, BOX_TSS2 + 0x38, 4, 0x28000);
    for (unsigned i = 0; i < 6; i++)
        box_set(&box, BOX_TSS2 + 0x48 + 4 * i, 2, i == SCAN_CS ? BOX_SEL_CODE0 : BOX_SEL_DATA0);
    emu_step(box.vm); /* #UD: #PF pushing: #PF again: #DF through a task gate */
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS2);
    ck_assert_uint_eq(c->eip, 0x9000);
    ck_assert_uint_eq(box_stack(&box, 0), 0);
    ck_assert_uint_eq(box_get(&box, BOX_TSS + 0x20, 4), BOX_CODE);
}
END_TEST

/* -- TLB --------------------------------------------------------------------------------------------- */

START_TEST(tlb_keeps_until_invlpg)
{
    start(0);
    BOX_CODE_BYTES(&box, 0x8B, 0x06, 0x8B, 0x06, 0x0F, 0x01, 0x3E, 0x8B, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA;
    box_set(&box, BOX_DATA, 4, 1);
    box_set(&box, BOX_DATA + 0x1000, 4, 2);
    emu_step(box.vm);
    box_set(&box, BOX_PT + (BOX_DATA >> 12) * 4, 4, (BOX_DATA + 0x1000) | 7);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 1);
    emu_step(box.vm);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 2);
}
END_TEST

START_TEST(invlpg_drops_every_piece_of_a_large_page)
{
    start(0);
    c->cr4 = CPU_CR4_PSE;
    box_set(&box, BOX_PD + 4, 4, 0x00000083);
    BOX_CODE_BYTES(&box, 0x8B, 0x06, 0x0F, 0x01, 0x3F, 0x8B, 0x06);
    c->gpr[CPU_ESI] = 0x400000 + BOX_DATA;
    c->gpr[CPU_EDI] = 0x400000; /* another address of the page */
    box_set(&box, BOX_DATA, 4, 1);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 1);
    box_set(&box, BOX_PD + 4, 4, 0);
    emu_step(box.vm);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_PF);
}
END_TEST

START_TEST(first_write_after_read_sets_dirty)
{
    start(0);
    BOX_CODE_BYTES(&box, 0x8B, 0x06, 0x89, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA;
    emu_step(box.vm);
    ck_assert_uint_eq(pte(BOX_DATA), 0x27);
    emu_step(box.vm);
    ck_assert_uint_eq(pte(BOX_DATA), 0x67);
}
END_TEST

START_TEST(store_to_code_page_is_announced)
{
    start(0);
    BOX_CODE_BYTES(&box, 0x89, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA;
    box.vm->code_pages[BOX_DATA >> 12] = 1;
    emu_step(box.vm);
    ck_assert_uint_eq(box.vm->code_pages[BOX_DATA >> 12], 0); /* the hook of a bare machine clears it */
    box.vm->code_pages[BOX_DATA >> 12] = 1;
    mmu_flush_tlb_writes(box.vm, gpa(BOX_DATA));
    c->eip = BOX_CODE;
    emu_step(box.vm);
    ck_assert_uint_eq(box.vm->code_pages[BOX_DATA >> 12], 0);
}
END_TEST

START_TEST(code_that_changes_itself_runs_changed)
{
    start(0);
    BOX_CODE_BYTES(&box, 0xB0, 0x01, 0xC6, 0x05, 0x01, 0x80, 0x00, 0x00, 0x02, 0xEB, 0xF5);
    unsigned done;
    emu_run(box.vm, 3, NULL, &done);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 1);
    emu_run(box.vm, 1, NULL, &done);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 2);
}
END_TEST

START_TEST(alignment_check_in_ring_3_only)
{
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        start(cpl);
        BOX_CODE_BYTES(&box, 0x8B, 0x06);
        c->gpr[CPU_ESI] = BOX_DATA + 1;
        c->cr0 |= CPU_CR0_AM;
        cpu_set_eflags(c, CPU_AC);
        emu_step(box.vm);
        ck_assert_int_eq(box_vector(&box), cpl == 3 ? CPU_EXC_AC : -1);
    }
}
END_TEST

START_TEST(null_selector_and_supervisor_page_of_ring_3)
{
    start(3);
    BOX_CODE_BYTES(&box, 0x8B, 0x06);
    c->gpr[CPU_ESI] = BOX_DATA;
    box_pte(&box, BOX_DATA, 3);
    emu_step(box.vm);
    page_fault_is(BOX_DATA, 5);
    start(3);
    BOX_CODE_BYTES(&box, 0xCD, 0x80); /* tables are read as the supervisor */
    box_gate(&box, BOX_IDT + 0x80 * 8, BOX_SEL_CODE0, BOX_HANDLER + 0x80 * 16, 0xEE);
    box_pte(&box, 0, 3);
    box_pte(&box, BOX_TSS, 3);
    box_pte(&box, BOX_STACK0 - 0x1000, 3);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), 0x80);
}
END_TEST

/* -- Strings ----------------------------------------------------------------------------------------- */

START_TEST(rep_movs_forward_overlap_replicates)
{
    start(0);
    BOX_CODE_BYTES(&box, 0xF3, 0xA4);
    memcpy(box.ram + BOX_DATA, "abc", 3);
    c->gpr[CPU_ESI] = BOX_DATA;
    c->gpr[CPU_EDI] = BOX_DATA + 3;
    c->gpr[CPU_ECX] = 9;
    emu_step(box.vm);
    ck_assert(!memcmp(box.ram + BOX_DATA, "abcabcabcabc", 12));
    ck_assert_uint_eq(c->gpr[CPU_ECX], 0);
    ck_assert_uint_eq(c->gpr[CPU_ESI], BOX_DATA + 9);
    ck_assert_uint_eq(c->gpr[CPU_EDI], BOX_DATA + 12);
}
END_TEST

START_TEST(rep_movs_overlap_through_alias_replicates)
{
    start(0);
    BOX_CODE_BYTES(&box, 0xF3, 0xA4);
    box_set(&box, BOX_PT + 0x50 * 4, 4, BOX_DATA | 7); /* 50000h is another name of the data page */
    mmu_flush_tlb(box.vm);
    memcpy(box.ram + BOX_DATA, "xy", 2);
    c->gpr[CPU_ESI] = BOX_DATA;
    c->gpr[CPU_EDI] = 0x50002;
    c->gpr[CPU_ECX] = 6;
    emu_step(box.vm);
    ck_assert(!memcmp(box.ram + BOX_DATA, "xyxyxyxy", 8));
}
END_TEST

START_TEST(rep_movs_backward_and_sizes)
{
    static const uint8_t codes[3][3] = {{0xF3, 0xA4}, {0x66, 0xF3, 0xA5}, {0xF3, 0xA5}};
    for (unsigned k = 0; k < 3; k++)
        for (unsigned df = 0; df < 2; df++) {
            unsigned size = k == 2 ? 4 : k + 1;
            start(0);
            box_code(&box, codes[k], 3);
            for (unsigned i = 0; i < 0x3000; i++)
                box.ram[BOX_DATA + i] = (uint8_t)(i * 7 + i / 256);
            uint32_t n = 0x1800 / size, from = BOX_DATA + 0x123, to = 0x60000 + 0x456;
            c->arith = df ? CPU_DF : 0;
            c->gpr[CPU_ESI] = df ? from + (n - 1) * size : from;
            c->gpr[CPU_EDI] = df ? to + (n - 1) * size : to;
            c->gpr[CPU_ECX] = n;
            for (unsigned i = 0; i < 10 && c->gpr[CPU_ECX]; i++)
                emu_step(box.vm);
            ck_assert_uint_eq(c->gpr[CPU_ECX], 0);
            ck_assert(!memcmp(box.ram + from, box.ram + to, n * size));
            ck_assert_uint_eq(box.ram[to + n * size], 0);
            ck_assert_uint_eq(box.ram[to - 1], 0);
            ck_assert_uint_eq(c->gpr[CPU_EDI], df ? to - size : to + n * size);
        }
}
END_TEST

START_TEST(rep_stops_at_a_fault_and_restarts)
{
    start(0);
    BOX_CODE_BYTES(&box, 0xF3, 0xAB);
    c->gpr[CPU_EAX] = 0xA5A5A5A5;
    c->gpr[CPU_EDI] = BOX_DATA + 0xFF2; /* the fourth element crosses into the missing page */
    c->gpr[CPU_ECX] = 8;
    box_pte(&box, BOX_DATA + 0x1000, 6);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_PF);
    ck_assert_uint_eq(c->cr2, BOX_DATA + 0x1000);
    ck_assert_uint_eq(c->gpr[CPU_ECX], 5);
    ck_assert_uint_eq(c->gpr[CPU_EDI], BOX_DATA + 0xFFE);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0xFFC, 4), 0x0000A5A5);
    box_pte(&box, BOX_DATA + 0x1000, 7);
    box.ram[BOX_HANDLER + CPU_EXC_PF * 16] = 0x58; /* pop eax drops the code; then iret */
    box.ram[BOX_HANDLER + CPU_EXC_PF * 16 + 1] = 0xCF;
    emu_step(box.vm);
    c->gpr[CPU_EAX] = 0xA5A5A5A5;
    emu_step(box.vm);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_ECX], 0);
    ck_assert_uint_eq(box_get(&box, BOX_DATA + 0xFF2 + 28, 4), 0xA5A5A5A5);
}
END_TEST

START_TEST(long_rep_yields_and_goes_on)
{
    unsigned done, steps = 0;
    start(0);
    BOX_CODE_BYTES(&box, 0xF3, 0xAA);
    c->gpr[CPU_EAX] = 0x77;
    c->gpr[CPU_EDI] = BOX_DATA;
    c->gpr[CPU_ECX] = 20000;
    while (c->eip == BOX_CODE && steps++ < 100)
        emu_run(box.vm, 1, NULL, &done);
    ck_assert_uint_eq(c->gpr[CPU_ECX], 0);
    ck_assert_uint_gt(steps, 4);
    ck_assert_uint_eq(box.ram[BOX_DATA + 19999], 0x77);
    ck_assert_uint_eq(box.ram[BOX_DATA + 20000], 0);
}
END_TEST

START_TEST(compare_strings_end_on_condition)
{
    start(0);
    BOX_CODE_BYTES(&box, 0xF3, 0xA6, 0xF2, 0xAE, 0xF3, 0xA6);
    memcpy(box.ram + BOX_DATA, "same prefix A", 13);
    memcpy(box.ram + 0x50000, "same prefix B", 13);
    c->gpr[CPU_ESI] = BOX_DATA;
    c->gpr[CPU_EDI] = 0x50000;
    c->gpr[CPU_ECX] = 100;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_ECX], 87);
    ck_assert(c->arith & CPU_CF);
    c->gpr[CPU_EAX] = 'B';
    c->gpr[CPU_EDI] = 0x50000;
    c->gpr[CPU_ECX] = 100;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EDI], 0x50000 + 13);
    ck_assert(c->arith & CPU_ZF);
    c->gpr[CPU_ECX] = 0;
    c->arith = CPU_CF;
    emu_step(box.vm);
    ck_assert_uint_eq(c->arith, CPU_CF); /* no element, no flags */
}
END_TEST

START_TEST(string_with_16_bit_addresses_wraps)
{
    start(0);
    BOX_CODE_BYTES(&box, 0x67, 0xF3, 0xAA);
    c->gpr[CPU_EAX] = 0x5C;
    c->gpr[CPU_EDI] = 0xABCD0000 | 0xFFFE;
    c->gpr[CPU_ECX] = 0x12340004;
    box.ram[0] = 0;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EDI], 0xABCD0002);
    ck_assert_uint_eq(c->gpr[CPU_ECX], 0x12340000);
    ck_assert_uint_eq(box.ram[0xFFFF], 0x5C);
    ck_assert_uint_eq(box.ram[1], 0x5C);
}
END_TEST

START_TEST(mmio_and_absent_ram_read_ones)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x8B, 0x06, 0x89, 0x06, 0x8B, 0x06);
    c->gpr[CPU_ESI] = 0xE0000000u;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0xFFFFFFFFu);
    emu_step(box.vm);
    c->gpr[CPU_ESI] = BOX_RAM - 2; /* half RAM, half nothing */
    box_set(&box, BOX_RAM - 2, 2, 0x1234);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0xFFFF1234u);
}
END_TEST

START_TEST(code_outside_ram_does_not_crash)
{
    box_flat(&box, 0);
    c->eip = 0xE0000000u;
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_UD); /* FF FF: undefined */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("emu_mem");
    TCase *t = tcase_create("mem");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, walk_rights_by_level_wp_and_access);
    tcase_add_test(t, walk_large_pages);
    tcase_add_test(t, walk_pae_and_nx);
    tcase_add_test(t, cr3_with_reserved_pdpte_bits_faults);
    tcase_add_test(t, walk_tables_outside_ram_do_not_crash);
    tcase_add_test(t, a20_off_masks_bit_20);
    tcase_add_test(t, page_fault_codes_of_instructions);
    tcase_add_test(t, crossing_store_faulting_on_second_page_leaves_memory);
    tcase_add_test(t, crossing_accesses_work);
    tcase_add_test(t, instruction_across_pages_faults_at_second_page);
    tcase_add_test(t, stack_instructions_are_atomic);
    tcase_add_test(t, pop_to_memory_fault_restores_esp);
    tcase_add_test(t, pop_esp_relative_uses_incremented_esp);
    tcase_add_test(t, interrupt_with_missing_kernel_stack_double_faults);
    tcase_add_test(t, tlb_keeps_until_invlpg);
    tcase_add_test(t, invlpg_drops_every_piece_of_a_large_page);
    tcase_add_test(t, first_write_after_read_sets_dirty);
    tcase_add_test(t, store_to_code_page_is_announced);
    tcase_add_test(t, code_that_changes_itself_runs_changed);
    tcase_add_test(t, alignment_check_in_ring_3_only);
    tcase_add_test(t, null_selector_and_supervisor_page_of_ring_3);
    tcase_add_test(t, rep_movs_forward_overlap_replicates);
    tcase_add_test(t, rep_movs_overlap_through_alias_replicates);
    tcase_add_test(t, rep_movs_backward_and_sizes);
    tcase_add_test(t, rep_stops_at_a_fault_and_restarts);
    tcase_add_test(t, long_rep_yields_and_goes_on);
    tcase_add_test(t, compare_strings_end_on_condition);
    tcase_add_test(t, string_with_16_bit_addresses_wraps);
    tcase_add_test(t, mmio_and_absent_ram_read_ones);
    tcase_add_test(t, code_outside_ram_does_not_crash);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
