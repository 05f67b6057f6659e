/* test_code.c: code memory. The code of a verso from the cache is nowhere but in its first instance, where branches get linked, addresses
 * relocated and jumps written over it: what is copied from there must be as it was made. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/machine.h"
#include "cache_support.h"

#define DIRECTORY 0x1000u
#define TABLE     0x2000u
#define CODE      0x100000u /* two pages, at each of these linear addresses as well: */
#define FIRST     0x800000u
#define SECOND    0xC00000u
#define THIRD     0x1000000u
#define CALLED    0x1010u /* offsets from the first page: in the second */
#define JUMPED    0x1020u

static struct run_config cfg;
static struct run_result res;
static struct machine *m;

static void put32(uint64_t at, uint32_t v)
{
    memcpy(m->vm.ram + at, &v, 4);
}

/* mov [12345678h],eax; call CALLED; jmp JUMPED */
static void put_guest(void)
{
    uint8_t *a = m->vm.ram + CODE;
    memset(m->vm.ram + DIRECTORY, 0, 2 * PAGE_SIZE_);
    for (uint32_t lin = FIRST; lin <= THIRD; lin += 4u << 20)
        put32(DIRECTORY + (lin >> 22) * 4, TABLE | 0x63);
    put32(TABLE, CODE | 0x63);
    put32(TABLE + 4, (CODE + PAGE_SIZE_) | 0x63);
    memcpy(a, "\xA3\x78\x56\x34\x12\xE8\0\0\0\0\xE9\0\0\0\0", 15);
    put32(CODE + 6, CALLED - 10);
    put32(CODE + 11, JUMPED - 15);
    memcpy(a + CALLED, "\xC3", 1);
    memcpy(a + JUMPED, "\x90\xC3", 2);
}

static void flat(struct cpu_seg *s, uint16_t sel, uint32_t attr)
{
    *s = (struct cpu_seg){.sel = sel, .limit = 0xFFFFFFFF, .attr = attr};
}

static void open_machine(struct cache *c)
{
    cfg = (struct run_config){.ram_bytes = 16 << 20, .serial_in = -1, .serial_out = -1, .escape = -1, .cache = c};
    m = machine_open(&cfg, &res);
    ck_assert_ptr_nonnull(m);
    put_guest();
    struct cpu *cpu = m->vm.cpu;
    for (unsigned s = 0; s < 6; s++)
        flat(&cpu->seg[s], 0x18, 0xC093);
    flat(&cpu->seg[SCAN_CS], 0x10, 0xC09B);
    cpu->cr0 = CPU_CR0_PE | CPU_CR0_ET | CPU_CR0_PG;
    cpu->cr3 = DIRECTORY;
    cpu->cpl = 0;
    vm_segments_changed(&m->vm);
    mmu_flush_tlb(&m->vm);
    vm_paging_changed(&m->vm, VM_FLUSH_ALL, gva(0));
    machine_prepare(m);
}

static const struct page_code *resolve(uint32_t eip)
{
    struct mmu_fault f;
    ck_assert_int_eq(code_resolve(m, eip, &f), CODE_OK);
    const struct page_code *pc = code_for(m, eip);
    ck_assert_ptr_nonnull(pc);
    return pc;
}

/* Its code as the translator made it. */
static uint8_t made[65536];
static uint32_t made_len;

static void fill_cache(void)
{
    struct cache *c = cs_open(CACHE_CREATE);
    open_machine(c);
    const struct page_code *pc = resolve(FIRST);
    made_len = pc->verso.code_len;
    ck_assert_uint_le(made_len, sizeof(made));
    ck_assert(!pc->stored);
    uint8_t *code = code_of_page(m, pc);
    ck_assert_ptr_nonnull(code);
    memcpy(made, code, made_len);
    free(code);
    resolve(FIRST + CALLED);
    machine_close(m);
    cs_close(c);
}

static void expect_made(const struct page_code *pc)
{
    uint8_t *code = code_of_page(m, pc);
    ck_assert_ptr_nonnull(code);
    ck_assert_uint_eq(pc->verso.code_len, made_len);
    ck_assert_int_eq(memcmp(code, made, made_len), 0);
    free(code);
}

/* Loads the first page, links it to the second and has the store in it emulated. */
static struct page_code *load_and_change(void)
{
    const struct page_code *pc = resolve(FIRST);
    ck_assert(pc->stored);
    ck_assert_ptr_null(pc->verso.code);
    expect_made(pc);
    uint64_t links = m->counter[RUN_COUNTER_LINKS];
    resolve(FIRST + CALLED);
    ck_assert_uint_gt(m->counter[RUN_COUNTER_LINKS], links);
    struct inst *in = pc->insts;
    uint8_t *before = malloc(made_len);
    memcpy(before, m->code_rw + in->code_off, made_len);
    ck_assert_int_ne(memcmp(before, made, made_len), 0);
    code_force_emulation(m, in, FIRST);
    ck_assert_ptr_eq(code_for(m, FIRST), pc); /* it was not made anew */
    ck_assert_int_ne(memcmp(before, m->code_rw + in->code_off, made_len), 0);
    free(before);
    return in->page;
}

START_TEST(changed_code_of_loaded_page_is_told_as_made)
{
    fill_cache();
    struct cache *c = cs_open(0);
    open_machine(c);
    expect_made(load_and_change());
    machine_close(m);
    cs_close(c);
}
END_TEST

START_TEST(loaded_page_at_another_address_is_placed_as_made)
{
    fill_cache();
    struct cache *c = cs_open(0);
    open_machine(c);
    const struct page_code *pc = load_and_change();
    ck_assert_ptr_eq(resolve(SECOND), pc);
    const struct inst *in = pc->insts;
    ck_assert_uint_eq(in->lin, SECOND);
    uint8_t *want = malloc(made_len);
    memcpy(want, made, made_len);
    ck_assert_uint_ne(pc->verso.reloc_count, 0);
    for (uint32_t i = 0; i < pc->verso.reloc_count; i++) {
        uint32_t field;
        memcpy(&field, want + pc->verso.relocs[i].host_off, 4);
        field += SECOND;
        memcpy(want + pc->verso.relocs[i].host_off, &field, 4);
    }
    ck_assert_int_eq(memcmp(m->code_rw + in->code_off, want, made_len), 0);
    free(want);
    machine_close(m);
    cs_close(c);
}
END_TEST

START_TEST(full_code_memory_keeps_the_page_in_hand_and_forgets_loaded_ones)
{
    fill_cache();
    struct cache *c = cs_open(0);
    open_machine(c);
    const struct page_code *pc = load_and_change();
    uint64_t hits = m->counter[RUN_COUNTER_PAGE_HIT];
    ck_assert_uint_eq(hits, 2);
    m->code_used = CODE_SIZE - CODE_GRANULE;
    ck_assert_ptr_eq(resolve(SECOND), pc);
    ck_assert_uint_eq(m->counter[RUN_COUNTER_CODE_FLUSHES], 1);
    ck_assert_uint_eq(m->counter[RUN_COUNTER_PAGE_HIT], hits);
    expect_made(pc);
    ck_assert_ptr_null(code_for(m, FIRST + CALLED));
    ck_assert(resolve(FIRST + CALLED)->stored);
    ck_assert_uint_eq(m->counter[RUN_COUNTER_PAGE_HIT], hits + 1);
    /* Full again: now the one that is loaded for this. */
    m->code_used = CODE_SIZE - CODE_GRANULE;
    code_drop_page(m, CODE / PAGE_SIZE_);
    pc = resolve(THIRD);
    ck_assert_uint_eq(m->counter[RUN_COUNTER_CODE_FLUSHES], 2);
    ck_assert(pc->stored);
    expect_made(pc);
    machine_close(m);
    cs_close(c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("code");
    TCase *t = tcase_create("code");
    tcase_add_checked_fixture(t, cs_setup, cs_teardown);
    tcase_add_test(t, changed_code_of_loaded_page_is_told_as_made);
    tcase_add_test(t, loaded_page_at_another_address_is_placed_as_made);
    tcase_add_test(t, full_code_memory_keeps_the_page_in_hand_and_forgets_loaded_ones);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
