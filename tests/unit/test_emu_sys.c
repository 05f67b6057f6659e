/* tests/unit/test_emu_sys.c: protection: sensitive instructions in ring 0 and 3, segments, gates, IRET,
 * exceptions, tasks, real and virtual-8086 mode. Each test builds a bare machine, runs an instruction or two,
 * and looks at state and frames.
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

#define RUN(cpl, ...) (box_flat(&box, cpl), BOX_CODE_BYTES(&box, __VA_ARGS__), (void)emu_step(box.vm))

/* A fault at BOX_CODE with this vector and error code (-1: none), on a stack of CPL 0. */
static void fault_is(int vector, int64_t error)
{
    unsigned n = 0;
    ck_assert_msg(box_vector(&box) == vector, "vector %d, expected %d (eip %08x)", box_vector(&box), vector,
                  c->eip);
    ck_assert_uint_eq(c->cpl, 0);
    if (error >= 0)
        ck_assert_msg(box_stack(&box, n++) == (uint32_t)error, "error code %x, expected %x",
                      box_stack(&box, 0), (uint32_t)error);
    ck_assert_uint_eq(box_stack(&box, n), BOX_CODE);
    ck_assert_msg(box_stack(&box, n + 2) & CPU_RF, "RF not set in the image of a fault");
}
static void no_fault(void)
{
    ck_assert_msg(box_vector(&box) == -1, "unexpected vector %d, error %x", box_vector(&box),
                  box_stack(&box, 0));
}

/* -- Sensitive instructions -------------------------------------------------------------------------- */

struct row {
    const char *name;
    uint8_t bytes[8];
    unsigned len;
    int ring3; /* vector in ring 3 with IOPL 0, -1: runs */
};
static const struct row rows[] = {
    {"cli", {0xFA}, 1, 13},
    {"sti", {0xFB}, 1, 13},
    {"hlt", {0xF4}, 1, 13},
    {"clts", {0x0F, 0x06}, 2, 13},
    {"mov cr0", {0x0F, 0x22, 0xC0}, 3, 13},
    {"mov from cr0", {0x0F, 0x20, 0xC0}, 3, 13},
    {"mov cr2", {0x0F, 0x22, 0xD0}, 3, 13},
    {"mov cr3", {0x0F, 0x22, 0xD8}, 3, 13},
    {"mov cr4", {0x0F, 0x22, 0xE1}, 3, 13},
    {"mov dr0", {0x0F, 0x23, 0xC0}, 3, 13},
    {"mov from dr7", {0x0F, 0x21, 0xF8}, 3, 13},
    {"invlpg", {0x0F, 0x01, 0x3E}, 3, 13},
    {"invd", {0x0F, 0x08}, 2, 13},
    {"wbinvd", {0x0F, 0x09}, 2, 13},
    {"rdmsr", {0x0F, 0x32}, 2, 13},
    {"wrmsr", {0x0F, 0x30}, 2, 13},
    {"lgdt", {0x0F, 0x01, 0x16}, 3, 13},
    {"lidt", {0x0F, 0x01, 0x1E}, 3, 13},
    {"lldt", {0x0F, 0x00, 0xD1}, 3, 13},
    {"ltr", {0x0F, 0x00, 0xDB}, 3, 13},
    {"lmsw", {0x0F, 0x01, 0xF0}, 3, 13},
    {"in al, dx", {0xEC}, 1, 13},
    {"out 80, al", {0xE6, 0x80}, 2, 13},
    {"insb", {0x6C}, 1, 13},
    {"outsb", {0x6E}, 1, 13},
    {"sysexit", {0x0F, 0x35}, 2, 13},
    {"sgdt", {0x0F, 0x01, 0x06}, 3, -1},
    {"sidt", {0x0F, 0x01, 0x0E}, 3, -1},
    {"sldt", {0x0F, 0x00, 0xC0}, 3, -1},
    {"str", {0x0F, 0x00, 0xC8}, 3, -1},
    {"smsw", {0x0F, 0x01, 0xE0}, 3, -1},
    {"pushf", {0x9C}, 1, -1},
    {"popf", {0x9D}, 1, -1},
    {"cpuid", {0x0F, 0xA2}, 2, -1},
    {"rdtsc", {0x0F, 0x31}, 2, -1},
    {"verr", {0x0F, 0x00, 0xE0}, 3, -1},
    {"verw", {0x0F, 0x00, 0xE8}, 3, -1},
    {"lar", {0x0F, 0x02, 0xC0}, 3, -1},
    {"lsl", {0x0F, 0x03, 0xC0}, 3, -1},
    {"arpl", {0x63, 0xC0}, 2, -1},
    {"mov from ds", {0x8C, 0xD8}, 2, -1},
    {"sysenter", {0x0F, 0x34}, 2, -1},
};

START_TEST(sensitive_instruction_by_ring)
{
    const struct row *r = &rows[_i];
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        box_flat(&box, cpl);
        box_code(&box, r->bytes, r->len);
        c->gpr[CPU_EAX] = CPU_CR0_PE | CPU_CR0_NE | CPU_CR0_ET;
        c->gpr[CPU_EBX] = BOX_SEL_TSS2;
        c->gpr[CPU_ECX] = 0x174; /* SYSENTER_CS, and CR4: bit 4, 5, 6, 8 */
        c->gpr[CPU_ESI] = c->gpr[CPU_EDI] = BOX_DATA;
        c->gpr[CPU_EDX] = 0x80;
        c->sysenter_cs = BOX_SEL_CODE0;
        c->sysenter_eip = 0x7000;
        if (!strcmp(r->name, "mov cr4"))
            c->gpr[CPU_ECX] = CPU_CR4_PSE | CPU_CR4_PGE;
        if (!strcmp(r->name, "lldt"))
            c->gpr[CPU_ECX] = BOX_SEL_LDT;
        if (!strcmp(r->name, "sysexit"))
            c->gpr[CPU_EDX] = 0x7000;
        enum emu_result res = emu_step(box.vm);
        if (cpl == 3 && r->ring3 >= 0) {
            fault_is(r->ring3, 0);
            ck_assert_uint_eq(c->seg[SCAN_SS].sel, BOX_SEL_DATA0);
            ck_assert_uint_eq(box_stack(&box, 4), BOX_STACK);
        } else {
            ck_assert_msg(box_vector(&box) == -1, "%s: vector %d in ring %u", r->name, box_vector(&box), cpl);
            ck_assert_int_eq(res, !strcmp(r->name, "hlt") ? EMU_HALT : EMU_OK);
            ck_assert_uint_ne(c->eip, BOX_CODE);
        }
    }
}
END_TEST

START_TEST(popf_changes_if_and_iopl_only_with_right)
{
    RUN(3, 0x9D);
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0x9D);
    cpu_set_eflags(c, CPU_IF);
    box_set(&box, BOX_STACK, 4, CPU_IOPL | CPU_CF | CPU_ID | CPU_VM | CPU_RF);
    emu_step(box.vm);
    ck_assert_uint_eq(cpu_eflags(c), CPU_IF | CPU_CF | CPU_ID | CPU_FLAG1);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x9D);
    box_set(&box, BOX_STACK, 4, CPU_IOPL | CPU_IF | CPU_NT);
    emu_step(box.vm);
    ck_assert_uint_eq(cpu_eflags(c), CPU_IF | CPU_IOPL | CPU_NT | CPU_FLAG1);
}
END_TEST

START_TEST(popf_16_keeps_upper_half)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x66, 0x9D);
    cpu_set_eflags(c, CPU_AC | CPU_ID);
    box_set(&box, BOX_STACK, 4, CPU_CF);
    emu_step(box.vm);
    ck_assert_uint_eq(cpu_eflags(c), CPU_AC | CPU_ID | CPU_CF | CPU_FLAG1);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK + 2);
}
END_TEST

START_TEST(sti_shadows_one_instruction)
{
    unsigned done;
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xFB, 0x90, 0x90, 0x90);
    c->irq_pending = 1;
    ck_assert_int_eq(emu_step(box.vm), EMU_OK);
    ck_assert_uint_eq(c->vif, CPU_IF);
    ck_assert_uint_eq(c->shadow, CPU_SHADOW_STI);
    emu_step(box.vm);
    ck_assert_uint_eq(c->shadow, 0);
    c->eip = BOX_CODE;
    c->vif = 0;
    emu_run(box.vm, 100, NULL, &done);
    ck_assert_uint_le(done, 2);
    ck_assert_uint_eq(c->shadow, done == 2 ? 0 : CPU_SHADOW_STI);
}
END_TEST

START_TEST(mov_ss_shadows_and_holds_back_single_step)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x8E, 0xD0, 0x90, 0x90);
    c->gpr[CPU_EAX] = BOX_SEL_DATA0;
    cpu_set_eflags(c, CPU_TF);
    emu_step(box.vm);
    ck_assert_uint_eq(c->shadow, CPU_SHADOW_MOVSS);
    ck_assert_uint_eq(c->eip, BOX_CODE + 2);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DB);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 3);
    ck_assert_uint_eq(c->dr[6] & 0x4000, 0x4000);
}
END_TEST

START_TEST(tf_traps_after_instruction_with_tf_in_image)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x90);
    cpu_set_eflags(c, CPU_TF);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DB);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 1);
    ck_assert(box_stack(&box, 2) & CPU_TF);
    ck_assert(!(box_stack(&box, 2) & CPU_RF));
    ck_assert(!(c->eflags_sys & CPU_TF));
}
END_TEST

START_TEST(io_bitmap_grants_ports)
{
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0xE4, 0x80, 0xE5, 0x80);
    box_set(&box, BOX_TSS + 0x66, 2, 0x68);
    memset(box.ram + BOX_TSS + 0x68, 0xFF, 0x20);
    box.ram[BOX_TSS + 0x68 + 16] = 0xF8; /* ports 80h to 82h */
    emu_step(box.vm);
    no_fault();
    emu_step(box.vm); /* four bytes: port 83h is not granted */
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
}
END_TEST

START_TEST(unknown_msr_reserved_cr_bits_fault)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x32);
    c->gpr[CPU_ECX] = 0x12345;
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x22, 0xE0);
    c->gpr[CPU_EAX] = 1u << 20;
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x22, 0xC0);
    c->gpr[CPU_EAX] = CPU_CR0_PG; /* without PE */
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0);
}
END_TEST

START_TEST(rdtsc_with_tsd_faults_in_ring_3)
{
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0x0F, 0x31);
    c->cr4 = CPU_CR4_TSD;
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0);
}
END_TEST

START_TEST(undefined_and_locked_opcodes_raise_ud)
{
    RUN(0, 0x0F, 0x0B);
    fault_is(CPU_EXC_UD, -1);
    RUN(0, 0xF0, 0x90);
    fault_is(CPU_EXC_UD, -1);
    RUN(0, 0x0F, 0x05);
    fault_is(CPU_EXC_UD, -1);
    RUN(0, 0x0F, 0xFF, 0xC0);
    fault_is(CPU_EXC_UD, -1);
    RUN(0, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90);
    fault_is(CPU_EXC_GP, 0);
}
END_TEST

/* -- Segment registers ------------------------------------------------------------------------------- */

struct load {
    unsigned seg;
    uint16_t sel;
    unsigned cpl;
    int vector;
};
static const struct load loads[] = {
    {SCAN_DS, BOX_SEL_DATA0, 0, -1},
    {SCAN_DS, 0, 0, -1},
    {SCAN_DS, 3, 3, -1},
    {SCAN_DS, BOX_SEL_DATA0, 3, 13},
    {SCAN_DS, BOX_SEL_DATA3 | 3, 0, -1},
    {SCAN_DS, BOX_SEL_DATA0 | 3, 0, 13},
    {SCAN_DS, BOX_SEL_CODE0, 0, -1},
    {SCAN_DS, BOX_SEL_CONF0, 3, -1},
    {SCAN_DS, BOX_SEL_XONLY, 0, 13},
    {SCAN_DS, BOX_SEL_ABSENT, 0, 11},
    {SCAN_DS, BOX_SEL_TSS, 0, 13},
    {SCAN_DS, BOX_SEL_LAST + 8, 0, 13},
    {SCAN_DS, 0x104, 0, 13},
    {SCAN_SS, BOX_SEL_DATA0, 0, -1},
    {SCAN_SS, 0, 0, 13},
    {SCAN_SS, BOX_SEL_DATA3 | 3, 0, 13},
    {SCAN_SS, BOX_SEL_DATA3 | 3, 3, -1},
    {SCAN_SS, BOX_SEL_RO, 0, 13},
    {SCAN_SS, BOX_SEL_CODE0, 0, 13},
    {SCAN_SS, BOX_SEL_ABSENT, 0, 12},
};

START_TEST(segment_load_checks)
{
    const struct load *l = &loads[_i];
    unsigned vector = 99;
    uint32_t error = 0;
    box_flat(&box, l->cpl);
    struct cpu_seg before = c->seg[l->seg];
    bool ok = emu_load_segment(box.vm, l->seg, l->sel, &vector, &error);
    ck_assert_msg(ok == (l->vector < 0), "row %d: vector %u", _i, vector);
    if (ok) {
        ck_assert_uint_eq(c->seg[l->seg].sel, l->sel);
        ck_assert_uint_eq(c->seg_sel[l->seg], l->sel);
        return;
    }
    ck_assert_int_eq((int)vector, l->vector);
    ck_assert_uint_eq(error, l->sel & 0xFFFC);
    ck_assert(!memcmp(&before, &c->seg[l->seg], sizeof(before)));
}
END_TEST

START_TEST(segment_load_sets_accessed)
{
    unsigned v;
    uint32_t err;
    box_flat(&box, 0);
    box_desc(&box, BOX_SEL_BASE, BOX_DATA, 0xFFFF, 0x4092);
    ck_assert(emu_load_segment(box.vm, SCAN_FS, BOX_SEL_BASE, &v, &err));
    ck_assert_uint_eq(box_get(&box, BOX_GDT + BOX_SEL_BASE + 5, 1), 0x93);
    ck_assert_uint_eq(c->seg[SCAN_FS].base, BOX_DATA);
    ck_assert_uint_eq(c->seg[SCAN_FS].limit, 0xFFFF);
}
END_TEST

static void with_fs(unsigned sel, uint32_t off, unsigned opcode)
{
    unsigned v;
    uint32_t err;
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x64, (uint8_t)opcode, 0x06); /* mov eax, fs:[esi] or back */
    emu_load_segment(box.vm, SCAN_FS, (uint16_t)sel, &v, &err);
    c->gpr[CPU_ESI] = off;
    emu_step(box.vm);
}

START_TEST(segment_limits_and_types_checked)
{
    with_fs(BOX_SEL_SMALL, 0xFC, 0x8B);
    no_fault();
    with_fs(BOX_SEL_SMALL, 0xFD, 0x8B);
    fault_is(CPU_EXC_GP, 0);
    with_fs(BOX_SEL_SMALL, 0xFFFFFFFE, 0x8B);
    fault_is(CPU_EXC_GP, 0);
    with_fs(BOX_SEL_DOWN, 0x100, 0x8B); /* expand-down: above the limit is valid */
    no_fault();
    with_fs(BOX_SEL_DOWN, 0xFF, 0x8B);
    fault_is(CPU_EXC_GP, 0);
    with_fs(BOX_SEL_RO, BOX_DATA, 0x8B);
    no_fault();
    with_fs(BOX_SEL_RO, BOX_DATA, 0x89);
    fault_is(CPU_EXC_GP, 0);
    with_fs(BOX_SEL_CODE0, BOX_DATA, 0x89);
    fault_is(CPU_EXC_GP, 0);
    with_fs(0, BOX_DATA, 0x8B);
    fault_is(CPU_EXC_GP, 0);
}
END_TEST

START_TEST(stack_limit_raises_ss)
{
    unsigned v;
    uint32_t err;
    for (uint32_t esp = 0x1004; esp <= 0x1008; esp += 4) {
        box_flat(&box, 3);
        box_desc(&box, BOX_SEL_DATA16, BOX_STACK, 0x1003, 0x40F3);
        BOX_CODE_BYTES(&box, 0x50);
        ck_assert(emu_load_segment(box.vm, SCAN_SS, BOX_SEL_DATA16 | 3, &v, &err));
        c->gpr[CPU_ESP] = esp;
        emu_step(box.vm);
        if (esp == 0x1004)
            no_fault();
        else
            fault_is(CPU_EXC_SS, 0);
    }
    box_flat(&box, 3); /* an explicit operand on the stack too */
    box_desc(&box, BOX_SEL_DATA16, BOX_STACK, 0x1003, 0x40F3);
    BOX_CODE_BYTES(&box, 0x8B, 0x45, 0x02);
    ck_assert(emu_load_segment(box.vm, SCAN_SS, BOX_SEL_DATA16 | 3, &v, &err));
    c->gpr[CPU_EBP] = 0x1000;
    emu_step(box.vm);
    fault_is(CPU_EXC_SS, 0);
}
END_TEST

START_TEST(lar_lsl_verr_verw_arpl_results)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x02, 0xC1, 0x0F, 0x03, 0xC1, 0x0F, 0x00, 0xE1, 0x0F, 0x00, 0xE9, 0x63, 0xCA);
    c->gpr[CPU_ECX] = BOX_SEL_SMALL;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0x00409300);
    ck_assert(c->arith & CPU_ZF);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0xFF);
    c->gpr[CPU_ECX] = BOX_SEL_RO;
    emu_step(box.vm);
    ck_assert(c->arith & CPU_ZF);
    emu_step(box.vm);
    ck_assert(!(c->arith & CPU_ZF));
    c->gpr[CPU_ECX] = 3;
    c->gpr[CPU_EDX] = 0x10;
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EDX], 0x13);
    ck_assert(c->arith & CPU_ZF);
    c->eip = BOX_CODE;
    c->gpr[CPU_ECX] = BOX_SEL_LAST + 8;
    c->gpr[CPU_EAX] = 0x55;
    emu_step(box.vm);
    ck_assert(!(c->arith & CPU_ZF));
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0x55);
}
END_TEST

START_TEST(ltr_marks_busy_and_refuses_busy)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x00, 0xD8, 0x0F, 0x00, 0xD8);
    c->gpr[CPU_EAX] = BOX_SEL_TSS2;
    emu_step(box.vm);
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS2);
    ck_assert_uint_eq(c->tr.attr & 15, 11);
    ck_assert_uint_eq(box_get(&box, BOX_GDT + BOX_SEL_TSS2 + 5, 1), 0x8B);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_SEL_TSS2);
}
END_TEST

/* -- Interrupts, exceptions, IRET -------------------------------------------------------------------- */

START_TEST(int80_from_ring_3_switches_stack)
{
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0xCD, 0x80);
    box_gate(&box, BOX_IDT + 0x80 * 8, BOX_SEL_CODE0, BOX_HANDLER + 0x80 * 16, 0xEF);
    cpu_set_eflags(c, CPU_IF | CPU_CF);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), 0x80);
    ck_assert_uint_eq(c->cpl, 0);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK0 - 20);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 2);
    ck_assert_uint_eq(box_stack(&box, 1), BOX_SEL_CODE3 | 3);
    ck_assert_uint_eq(box_stack(&box, 2), CPU_IF | CPU_CF | CPU_FLAG1);
    ck_assert_uint_eq(box_stack(&box, 3), BOX_STACK);
    ck_assert_uint_eq(box_stack(&box, 4), BOX_SEL_DATA3 | 3);
    ck_assert_uint_eq(c->vif, CPU_IF); /* trap gate */
    box.ram[BOX_HANDLER + 0x80 * 16] = 0xCF;
    emu_step(box.vm);
    ck_assert_uint_eq(c->cpl, 3);
    ck_assert_uint_eq(c->eip, BOX_CODE + 2);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK);
    ck_assert_uint_eq(c->seg[SCAN_SS].sel, BOX_SEL_DATA3 | 3);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, BOX_SEL_CODE3 | 3);
}
END_TEST

START_TEST(int_n_gate_faults)
{
    RUN(3, 0xCD, 0x80); /* DPL 0 */
    fault_is(CPU_EXC_GP, 0x80 * 8 + 2);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xCD, 0x80);
    box_gate(&box, BOX_IDT + 0x80 * 8, BOX_SEL_CODE0, 0, 0x0E);
    emu_step(box.vm);
    fault_is(CPU_EXC_NP, 0x80 * 8 + 2);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xCD, 0x80);
    c->idtr.limit = 0x80 * 8 - 1;
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0x80 * 8 + 2);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xCD, 0x80);
    box_gate(&box, BOX_IDT + 0x80 * 8, BOX_SEL_DATA0, 0, 0x8E);
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, BOX_SEL_DATA0);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xCD, 0x80);
    box_gate(&box, BOX_IDT + 0x80 * 8, BOX_SEL_CODE_ABSENT, 0, 0x8E);
    emu_step(box.vm);
    fault_is(CPU_EXC_NP, BOX_SEL_CODE_ABSENT);
}
END_TEST

START_TEST(external_interrupt_error_codes_carry_ext)
{
    box_flat(&box, 0);
    box_gate(&box, BOX_IDT + 0x30 * 8, BOX_SEL_CODE0, 0, 0x0E);
    emu_interrupt(box.vm, 0x30);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_NP);
    ck_assert_uint_eq(box_stack(&box, 0), 0x30 * 8 + 3);
    box_flat(&box, 0);
    cpu_set_eflags(c, CPU_IF | CPU_NT | CPU_TF);
    emu_interrupt(box.vm, 0x31);
    ck_assert_int_eq(box_vector(&box), 0x31);
    ck_assert_uint_eq(cpu_eflags(c), CPU_FLAG1);
    ck_assert_uint_eq(box_stack(&box, 2), CPU_IF | CPU_NT | CPU_TF | CPU_FLAG1);
}
END_TEST

START_TEST(int3_into_push_next_eip)
{
    RUN(0, 0xCC);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_BP);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 1);
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xCE, 0xCE);
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE + 1);
    c->arith = CPU_OF;
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_OF);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 2);
}
END_TEST

START_TEST(contributory_pair_makes_double_fault)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x8E, 0xD8);
    c->gpr[CPU_EAX] = BOX_SEL_ABSENT;
    box_gate(&box, BOX_IDT + CPU_EXC_NP * 8, BOX_SEL_DATA0, 0, 0x8E); /* #GP on delivery of #NP */
    ck_assert_int_eq(emu_step(box.vm), EMU_OK);
    fault_is(CPU_EXC_DF, 0);
}
END_TEST

START_TEST(benign_then_contributory_is_serial)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x0B);
    box_gate(&box, BOX_IDT + CPU_EXC_UD * 8, BOX_SEL_DATA0, 0, 0x8E);
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, BOX_SEL_DATA0 | 1);
}
END_TEST

START_TEST(fault_during_double_fault_shuts_down)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x8E, 0xD8);
    c->gpr[CPU_EAX] = BOX_SEL_ABSENT;
    c->idtr.limit = 0;
    ck_assert_int_eq(emu_step(box.vm), EMU_SHUTDOWN);
    ck_assert_uint_eq(c->eip, BOX_CODE);
}
END_TEST

static void iret_frame(uint32_t eip, uint32_t cs, uint32_t flags, uint32_t esp, uint32_t ss)
{
    const uint32_t v[5] = {eip, cs, flags, esp, ss};
    for (unsigned i = 0; i < 5; i++)
        box_set(&box, BOX_STACK + 4 * i, 4, v[i]);
}

START_TEST(iret_checks_selectors)
{
    static const struct {
        uint16_t cs, ss;
        int vector;
        uint16_t error;
    } t[] = {
        {0, 0, 13, 0},
        {BOX_SEL_DATA0, 0, 13, BOX_SEL_DATA0},
        {BOX_SEL_CODE_ABSENT, 0, 11, BOX_SEL_CODE_ABSENT},
        {BOX_SEL_CODE0 | 3, BOX_SEL_DATA3 | 3, 13, BOX_SEL_CODE0},
        {BOX_SEL_CODE3 | 3, 0, 13, 0},
        {BOX_SEL_CODE3 | 3, BOX_SEL_DATA0, 13, BOX_SEL_DATA0},
        {BOX_SEL_CODE3 | 3, BOX_SEL_DATA0 | 3, 13, BOX_SEL_DATA0},
        {BOX_SEL_LAST + 8, 0, 13, BOX_SEL_LAST + 8},
    };
    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        box_flat(&box, 0);
        BOX_CODE_BYTES(&box, 0xCF);
        iret_frame(0x9000, t[i].cs, CPU_IF, BOX_DATA, t[i].ss);
        emu_step(box.vm);
        fault_is(t[i].vector, t[i].error);
        ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK - 16);
    }
}
END_TEST

START_TEST(iret_to_ring_3_empties_supervisor_segments)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xCF);
    iret_frame(0x9000, BOX_SEL_CODE3 | 3, CPU_IF | CPU_IOPL, BOX_DATA, BOX_SEL_DATA3 | 3);
    unsigned v;
    uint32_t err;
    emu_load_segment(box.vm, SCAN_ES, BOX_SEL_DATA3 | 3, &v, &err);
    emu_step(box.vm);
    ck_assert_uint_eq(c->cpl, 3);
    ck_assert_uint_eq(c->eip, 0x9000);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_DATA);
    ck_assert_uint_eq(cpu_eflags(c), CPU_IF | CPU_IOPL | CPU_FLAG1);
    ck_assert(c->seg[SCAN_DS].unusable);
    ck_assert_uint_eq(c->seg[SCAN_DS].sel, 0);
    ck_assert(!c->seg[SCAN_ES].unusable);
}
END_TEST

START_TEST(iret_in_ring_3_keeps_if_and_iopl)
{
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0xCF);
    cpu_set_eflags(c, CPU_IF);
    iret_frame(0x9000, BOX_SEL_CODE3 | 3, CPU_IOPL | CPU_CF, 0, 0);
    emu_step(box.vm);
    ck_assert_uint_eq(cpu_eflags(c), CPU_IF | CPU_CF | CPU_FLAG1);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK + 12);
}
END_TEST

START_TEST(sysenter_sysexit_round_trip)
{
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0x0F, 0x34);
    cpu_set_eflags(c, CPU_IF);
    c->sysenter_cs = BOX_SEL_CODE0;
    c->sysenter_esp = 0x12340;
    c->sysenter_eip = 0x9000;
    box.ram[0x9000] = 0x0F;
    box.ram[0x9001] = 0x35;
    emu_step(box.vm);
    ck_assert_uint_eq(c->cpl, 0);
    ck_assert_uint_eq(c->eip, 0x9000);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0x12340);
    ck_assert_uint_eq(c->vif, 0);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, BOX_SEL_CODE0);
    ck_assert_uint_eq(c->seg[SCAN_SS].sel, BOX_SEL_CODE0 + 8);
    c->gpr[CPU_EDX] = 0x9100;
    c->gpr[CPU_ECX] = 0x15000;
    emu_step(box.vm);
    ck_assert_uint_eq(c->cpl, 3);
    ck_assert_uint_eq(c->eip, 0x9100);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0x15000);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, (BOX_SEL_CODE0 + 16) | 3);
    ck_assert_uint_eq(c->seg[SCAN_SS].sel, (BOX_SEL_CODE0 + 24) | 3);
    c->sysenter_cs = 3;
    c->eip = BOX_CODE;
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0);
}
END_TEST

/* -- Far transfers and call gates -------------------------------------------------------------------- */

START_TEST(far_call_and_return_same_level)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x9A, 0x00, 0x90, 0x00, 0x00, BOX_SEL_CONF0, 0x00);
    box.ram[0x9000] = 0xCA;
    box.ram[0x9001] = 0x08;
    emu_step(box.vm);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, BOX_SEL_CONF0);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 7);
    ck_assert_uint_eq(box_stack(&box, 1), BOX_SEL_CODE0);
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE + 7);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK + 8);
}
END_TEST

START_TEST(call_gate_copies_parameters_to_inner_stack)
{
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0x9A, 0, 0, 0, 0, BOX_SEL_GATE | 3, 0);
    box_gate(&box, BOX_GDT + BOX_SEL_GATE, BOX_SEL_CODE0, 0x9000, 0xEC);
    box.ram[BOX_GDT + BOX_SEL_GATE + 4] = 2;
    box_set(&box, BOX_STACK, 4, 0x11);
    box_set(&box, BOX_STACK + 4, 4, 0x22);
    box.ram[0x9000] = 0xCA;
    box.ram[0x9001] = 0x08;
    emu_step(box.vm);
    ck_assert_uint_eq(c->cpl, 0);
    ck_assert_uint_eq(c->eip, 0x9000);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK0 - 24);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 7);
    ck_assert_uint_eq(box_stack(&box, 1), BOX_SEL_CODE3 | 3);
    ck_assert_uint_eq(box_stack(&box, 2), 0x11);
    ck_assert_uint_eq(box_stack(&box, 3), 0x22);
    ck_assert_uint_eq(box_stack(&box, 4), BOX_STACK);
    ck_assert_uint_eq(box_stack(&box, 5), BOX_SEL_DATA3 | 3);
    emu_step(box.vm); /* ret 8 */
    ck_assert_uint_eq(c->cpl, 3);
    ck_assert_uint_eq(c->eip, BOX_CODE + 7);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK + 8);
}
END_TEST

START_TEST(call_gate_with_bad_inner_stack_raises_ts)
{
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0x9A, 0, 0, 0, 0, BOX_SEL_GATE | 3, 0);
    box_gate(&box, BOX_GDT + BOX_SEL_GATE, BOX_SEL_CODE1, 0x9000, 0xEC); /* ring 1: SS1 is null */
    emu_step(box.vm);
    fault_is(CPU_EXC_TS, 0);
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0x9A, 0, 0, 0, 0, BOX_SEL_GATE | 3, 0);
    box_gate(&box, BOX_GDT + BOX_SEL_GATE, BOX_SEL_CODE1, 0x9000, 0xEC);
    box_set(&box, BOX_TSS + 12, 4, 0x25000);
    box_set(&box, BOX_TSS + 16, 2, BOX_SEL_DATA0);
    emu_step(box.vm);
    fault_is(CPU_EXC_TS, BOX_SEL_DATA0);
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0x9A, 0, 0, 0, 0, BOX_SEL_GATE | 3, 0);
    box_gate(&box, BOX_GDT + BOX_SEL_GATE, BOX_SEL_CODE1, 0x9000, 0xEC);
    box_set(&box, BOX_TSS + 12, 4, 0x25000);
    box_set(&box, BOX_TSS + 16, 2, BOX_SEL_DATA1 | 1);
    emu_step(box.vm);
    ck_assert_uint_eq(c->cpl, 1);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, BOX_SEL_CODE1 | 1);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0x25000 - 16);
}
END_TEST

START_TEST(far_jump_checks)
{
    static const struct {
        uint16_t sel;
        unsigned cpl;
        int vector;
        uint16_t error;
    } t[] = {
        {0, 0, 13, 0},
        {BOX_SEL_DATA0, 0, 13, BOX_SEL_DATA0},
        {BOX_SEL_CODE_ABSENT, 0, 11, BOX_SEL_CODE_ABSENT},
        {BOX_SEL_CODE0, 3, 13, BOX_SEL_CODE0},
        {BOX_SEL_CODE3 | 3, 0, 13, BOX_SEL_CODE3},
        {BOX_SEL_CODE16, 0, 13, 0}, /* 9000h is fine, 19000h below is beyond its limit */
        {BOX_SEL_TSS, 0, 13, BOX_SEL_TSS},
    };
    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        box_flat(&box, t[i].cpl);
        BOX_CODE_BYTES(&box, 0xEA, 0x00, 0x90, 0x01, 0x00, (uint8_t)t[i].sel, 0x00);
        emu_step(box.vm);
        fault_is(t[i].vector, t[i].error);
    }
    box_flat(&box, 3);
    BOX_CODE_BYTES(&box, 0xEA, 0x00, 0x90, 0x00, 0x00, BOX_SEL_CONF0, 0x00);
    emu_step(box.vm);
    ck_assert_uint_eq(c->cpl, 3);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, BOX_SEL_CONF0 | 3);
}
END_TEST

START_TEST(near_branch_beyond_limit_faults_at_branch)
{
    box_flat(&box, 0);
    box_desc(&box, BOX_SEL_CODE0, 0, 0xFFFF, 0x409B);
    BOX_CODE_BYTES(&box, 0xE8, 0x00, 0x00, 0x01, 0x00);
    c->seg[SCAN_CS].limit = 0xFFFF;
    emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK - 16);
}
END_TEST

START_TEST(fetch_beyond_limit_faults)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xB8, 1, 2, 3, 4);
    c->seg[SCAN_CS].limit = BOX_CODE + 3;
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0);
}
END_TEST

/* -- Tasks ------------------------------------------------------------------------------------------- */

static void fill_tss2(void)
{
    box_set(&box, BOX_TSS2 + 0x20, 4, 0x9000);
    box_set(&box, BOX_TSS2 + 0x24, 4, CPU_FLAG1 | CPU_CF);
    for (unsigned i = 0; i < 8; i++)
        box_set(&box, BOX_TSS2 + 0x28 + 4 * i, 4, 0x1000 + i);
    box_set(&box, BOX_TSS2 + 0x38, 4, 0x28000); /* ESP */
    for (unsigned i = 0; i < 6; i++)
        box_set(&box, BOX_TSS2 + 0x48 + 4 * i, 2, i == SCAN_CS ? BOX_SEL_CODE0 : BOX_SEL_DATA0);
    box_set(&box, BOX_TSS2 + 0x60, 2, BOX_SEL_LDT);
    box.ram[0x9000] = 0xCF;
}

START_TEST(task_call_and_iret_return)
{
    box_flat(&box, 0);
    fill_tss2();
    BOX_CODE_BYTES(&box, 0x9A, 0, 0, 0, 0, BOX_SEL_TASK, 0);
    c->gpr[CPU_EBX] = 0x77;
    emu_step(box.vm);
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS2);
    ck_assert_uint_eq(c->eip, 0x9000);
    ck_assert_uint_eq(c->gpr[CPU_EBX], 0x1003);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0x28000);
    ck_assert_uint_eq(cpu_eflags(c), CPU_FLAG1 | CPU_CF | CPU_NT);
    ck_assert(c->cr0 & CPU_CR0_TS);
    ck_assert_uint_eq(box_get(&box, BOX_TSS2, 2), BOX_SEL_TSS);
    ck_assert_uint_eq(box_get(&box, BOX_TSS + 0x20, 4), BOX_CODE + 7);
    ck_assert_uint_eq(box_get(&box, BOX_TSS + 0x34, 4), 0x77);
    ck_assert_uint_eq(box_get(&box, BOX_GDT + BOX_SEL_TSS + 5, 1), 0x8B);
    ck_assert_uint_eq(box_get(&box, BOX_GDT + BOX_SEL_TSS2 + 5, 1), 0x8B);
    emu_step(box.vm);
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS);
    ck_assert_uint_eq(c->eip, BOX_CODE + 7);
    ck_assert_uint_eq(c->gpr[CPU_EBX], 0x77);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK);
    ck_assert_uint_eq(box_get(&box, BOX_GDT + BOX_SEL_TSS2 + 5, 1), 0x89);
    ck_assert(!(box_get(&box, BOX_TSS2 + 0x24, 4) & CPU_NT));
}
END_TEST

START_TEST(task_jump_leaves_old_task_available)
{
    box_flat(&box, 0);
    fill_tss2();
    BOX_CODE_BYTES(&box, 0xEA, 0, 0, 0, 0, BOX_SEL_TSS2, 0);
    emu_step(box.vm);
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS2);
    ck_assert_uint_eq(cpu_eflags(c), CPU_FLAG1 | CPU_CF);
    ck_assert_uint_eq(box_get(&box, BOX_GDT + BOX_SEL_TSS + 5, 1), 0x89);
}
END_TEST

START_TEST(exception_through_task_gate_pushes_error)
{
    box_flat(&box, 0);
    fill_tss2();
    box_gate(&box, BOX_IDT + CPU_EXC_NP * 8, BOX_SEL_TSS2, 0, 0x85);
    BOX_CODE_BYTES(&box, 0x8E, 0xD8);
    c->gpr[CPU_EAX] = BOX_SEL_ABSENT;
    emu_step(box.vm);
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS2);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0x28000 - 4);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_SEL_ABSENT);
    ck_assert_uint_eq(box_get(&box, BOX_TSS + 0x20, 4), BOX_CODE);
}
END_TEST

START_TEST(task_with_bad_segment_faults_in_new_task)
{
    box_flat(&box, 0);
    fill_tss2();
    box_set(&box, BOX_TSS2 + 0x54, 2,
            BOX_SEL_CODE3); /* DS: not accessible... DPL 3, but execute/read: fine; ES is bad */
    box_set(&box, BOX_TSS2 + 0x48, 2, BOX_SEL_TSS);
    BOX_CODE_BYTES(&box, 0xEA, 0, 0, 0, 0, BOX_SEL_TSS2, 0);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_TS);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_SEL_TSS);
    ck_assert_uint_eq(box_stack(&box, 1), 0x9000); /* the new task's EIP */
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS2);
}
END_TEST

START_TEST(task_switch_to_16_bit_tss)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xEA, 0, 0, 0, 0, BOX_SEL_TSS16, 0);
    box_set(&box, BOX_TSS16 + 0x0E, 2, 0x9000);
    box_set(&box, BOX_TSS16 + 0x10, 2, 2);
    box_set(&box, BOX_TSS16 + 0x12, 2, 0x1234);
    box_set(&box, BOX_TSS16 + 0x1A, 2, 0x8000);
    for (unsigned i = 0; i < 4; i++)
        box_set(&box, BOX_TSS16 + 0x22 + 2 * i, 2, i == SCAN_CS ? BOX_SEL_CODE16 : BOX_SEL_DATA16);
    emu_step(box.vm);
    ck_assert_uint_eq(c->tr.sel, BOX_SEL_TSS16);
    ck_assert_uint_eq(c->eip, 0x9000);
    ck_assert_uint_eq(c->gpr[CPU_EAX] & 0xFFFF, 0x1234);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, BOX_SEL_CODE16);
    ck_assert(c->seg[SCAN_FS].unusable);
}
END_TEST

/* -- Real mode, 16-bit segments, virtual-8086 mode --------------------------------------------------- */

START_TEST(real_mode_interrupt_and_iret)
{
    box_real(&box);
    BOX_CODE_BYTES(&box, 0xCD, 0x21);
    cpu_set_eflags(c, CPU_IF | CPU_CF);
    box.ram[BOX_HANDLER + 0x21 * 16] = 0xCF;
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_HANDLER + 0x21 * 16);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0xFFFA);
    ck_assert_uint_eq(box_get(&box, 0x3FFFA, 2), BOX_CODE + 2);
    ck_assert_uint_eq(box_get(&box, 0x3FFFE, 2), CPU_IF | CPU_CF | CPU_FLAG1);
    ck_assert_uint_eq(cpu_eflags(c), CPU_CF | CPU_FLAG1);
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE + 2);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0);
    ck_assert_uint_eq(cpu_eflags(c), CPU_IF | CPU_CF | CPU_FLAG1);
}
END_TEST

START_TEST(real_mode_wraps_offsets_and_checks_limit)
{
    box_real(&box);
    BOX_CODE_BYTES(&box, 0x8B, 0x40, 0x10, 0x8B, 0x00); /* mov ax, [bx+si+10h]; mov ax, [bx+si] */
    c->gpr[CPU_EBX] = 0xFFF0;
    c->gpr[CPU_ESI] = 0x0004;
    box_set(&box, 0x40004, 2, 0xBEEF);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0xBEEF);
    c->gpr[CPU_EBX] = 0xFFFF;
    c->gpr[CPU_ESI] = 0;
    emu_step(box.vm); /* word at FFFFh */
    ck_assert_uint_eq(c->eip, BOX_HANDLER + 13 * 16);
    ck_assert_uint_eq(box_get(&box, 0x3FFFA, 2), BOX_CODE + 3);
}
END_TEST

START_TEST(unreal_mode_keeps_limits)
{
    box_real(&box);
    BOX_CODE_BYTES(&box, 0x8E, 0xD8, 0x66, 0x67, 0x8B, 0x03); /* mov ds, ax; mov eax, [ebx] */
    c->seg[SCAN_DS].limit = 0xFFFFFFFFu;
    c->gpr[CPU_EAX] = 0x10;
    c->gpr[CPU_EBX] = 0x120000;
    box_set(&box, 0x120100, 4, 0xCAFEF00D);
    emu_step(box.vm);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_EAX], 0xCAFEF00D);
}
END_TEST

START_TEST(real_to_protected_by_far_jump)
{
    box_real(&box);
    BOX_CODE_BYTES(&box, 0x0F, 0x01, 0x16, 0x00, 0x01, /* lgdt [0100h] */
                   0x0F, 0x20, 0xC0, 0x0C, 0x01, 0x0F, 0x22, 0xC0, 0xEA, 0x00, 0x90, 0x08, 0x00);
    box_desc(&box, BOX_SEL_CODE0, 0, 0xFFFFFFFFu, 0xC09B);
    box_set(&box, 0x40100, 2, 0x7F);
    box_set(&box, 0x40102, 4, 0xAB000000u | BOX_GDT); /* 24 bits count with 16-bit operands */
    for (unsigned i = 0; i < 5; i++)
        emu_step(box.vm);
    ck_assert_uint_eq(c->gdtr.base, BOX_GDT);
    ck_assert_uint_eq(c->eip, 0x9000);
    ck_assert_uint_eq(c->seg[SCAN_CS].sel, BOX_SEL_CODE0);
    ck_assert(c->cr0 & CPU_CR0_PE);
}
END_TEST

START_TEST(real_mode_undefined_system_instructions)
{
    box_real(&box);
    BOX_CODE_BYTES(&box, 0x0F, 0x00, 0xC0); /* sldt */
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_HANDLER + 6 * 16);
}
END_TEST

START_TEST(v86_interrupt_pushes_segments_and_returns)
{
    box_v86(&box, 0);
    BOX_CODE_BYTES(&box, 0x90);
    emu_interrupt(box.vm, 0x30);
    ck_assert_int_eq(box_vector(&box), 0x30);
    ck_assert_uint_eq(c->cpl, 0);
    ck_assert_uint_eq(c->gpr[CPU_ESP], BOX_STACK0 - 36);
    static const uint32_t frame[9] = {
        BOX_CODE, 0, CPU_VM | CPU_IF | CPU_FLAG1, 0x1000, 0x3000, 0x4000, 0x4000, 0x1111, 0x2222};
    for (unsigned i = 0; i < 9; i++)
        ck_assert_uint_eq(box_stack(&box, i), frame[i]);
    ck_assert(c->seg[SCAN_GS].unusable && c->seg[SCAN_DS].unusable);
    ck_assert(!(c->eflags_sys & CPU_VM));
    box.ram[BOX_HANDLER + 0x30 * 16] = 0xCF;
    emu_step(box.vm);
    ck_assert(c->eflags_sys & CPU_VM);
    ck_assert_uint_eq(c->cpl, 3);
    ck_assert_uint_eq(c->seg[SCAN_GS].base, 0x22220);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0x1000);
}
END_TEST

START_TEST(v86_iopl_sensitive_instructions)
{
    static const struct {
        uint8_t bytes[2];
        unsigned len;
    } t[] = {{{0xFA}, 1}, {{0xFB}, 1}, {{0x9C}, 1}, {{0x9D}, 1}, {{0xCD, 0x21}, 2}, {{0xCF}, 1}};
    for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        box_v86(&box, 0);
        box_code(&box, t[i].bytes, t[i].len);
        emu_step(box.vm);
        ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
        ck_assert_uint_eq(box_stack(&box, 0), 0);
        box_v86(&box, 3);
        box_code(&box, t[i].bytes, t[i].len);
        box_gate(&box, BOX_IDT + 0x21 * 8, BOX_SEL_CODE0, BOX_HANDLER + 0x21 * 16, 0xEE);
        emu_step(box.vm);
        ck_assert_int_ne(box_vector(&box), CPU_EXC_GP);
    }
    box_v86(&box, 3);
    BOX_CODE_BYTES(&box, 0xF4); /* HLT is privileged all the same */
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
}
END_TEST

START_TEST(code16_uses_16_bit_operands_and_stack)
{
    unsigned v;
    uint32_t err;
    box_flat(&box, 0);
    emu_load_segment(box.vm, SCAN_SS, BOX_SEL_DATA16, &v, &err);
    emu_load_segment(box.vm, SCAN_DS, BOX_SEL_DATA16, &v, &err);
    c->gpr[CPU_ESP] = 0xABCD0002;
    c->seg[SCAN_CS].attr &= (uint16_t)~0x4000u;
    BOX_CODE_BYTES(&box, 0x68, 0x34, 0x12, 0x66, 0x68, 0x78, 0x56, 0x34, 0x12);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0xABCD0000);
    ck_assert_uint_eq(box_get(&box, 0, 2), 0x1234);
    emu_step(box.vm);
    ck_assert_uint_eq(c->gpr[CPU_ESP], 0xABCDFFFC);
    ck_assert_uint_eq(box_get(&box, 0xFFFC, 4), 0x12345678);
}
END_TEST

/* -- Debug registers --------------------------------------------------------------------------------- */

START_TEST(instruction_breakpoint_and_rf)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x90, 0x90);
    c->dr[0] = BOX_CODE;
    c->dr[7] = 0x401;
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DB);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE);
    ck_assert_uint_eq(c->dr[6] & 15, 1);
    /* The one fault that pushes RF as it was (SDM vol. 3, 17.3.1.1): the handler sets it. */
    ck_assert(!(box_stack(&box, 2) & CPU_RF));
    box_set(&box, c->gpr[CPU_ESP] + 8, 4, box_stack(&box, 2) | CPU_RF);
    box.ram[BOX_HANDLER + 16] = 0xCF;
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE);
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE + 1);
    ck_assert(!(c->eflags_sys & CPU_RF));
}
END_TEST

START_TEST(data_breakpoint_traps_after_write)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x8B, 0x06, 0x89, 0x06); /* mov eax, [esi]; mov [esi], eax */
    c->gpr[CPU_ESI] = BOX_DATA;
    c->dr[1] = BOX_DATA + 2;
    c->dr[7] = 0x404 | 5u << 20; /* DR1: writes, two bytes */
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE + 2);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DB);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 4);
    ck_assert_uint_eq(c->dr[6] & 15, 2);
}
END_TEST

START_TEST(data_breakpoint_on_mov_ss_waits_one_instruction)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x8E, 0x16, 0x90); /* mov ss, [esi]; nop */
    box_set(&box, BOX_DATA, 2, BOX_SEL_DATA0);
    c->gpr[CPU_ESI] = BOX_DATA;
    c->dr[0] = BOX_DATA;
    c->dr[7] = 0x401 | 7u << 16; /* reads and writes of two bytes */
    emu_step(box.vm);
    ck_assert_uint_eq(c->eip, BOX_CODE + 2);
    emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DB);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 3);
    ck_assert_uint_eq(c->dr[6] & 0x400F, 1);
}
END_TEST

START_TEST(single_step_over_hlt_wakes)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0xF4);
    cpu_set_eflags(c, CPU_TF);
    ck_assert_int_eq(emu_step(box.vm), EMU_OK);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_DB);
    ck_assert_uint_eq(c->halted, 0);
    ck_assert_uint_eq(box_stack(&box, 0), BOX_CODE + 1);
}
END_TEST

START_TEST(general_detect_faults_on_dr_access)
{
    box_flat(&box, 0);
    BOX_CODE_BYTES(&box, 0x0F, 0x21, 0xC0);
    c->dr[7] = 0x2400;
    emu_step(box.vm);
    fault_is(CPU_EXC_DB, -1);
    ck_assert(c->dr[6] & 1u << 13);
    ck_assert(!(c->dr[7] & 1u << 13));
}
END_TEST

/* -- The CPU model ----------------------------------------------------------------------------------- */

/* -- Features added to the model --------------------------------------------------------------------- */

#define FEATURE(id) (1u << CPU_FEATURE_##id)

static const struct {
    const char *name;
    uint32_t feature;
    uint8_t bytes[4];
    unsigned len;
} optional[] = {
    {"clac", FEATURE(SMAP), {0x0F, 0x01, 0xCA}, 3},
    {"stac", FEATURE(SMAP), {0x0F, 0x01, 0xCB}, 3},
    {"rdtscp", FEATURE(RDTSCP), {0x0F, 0x01, 0xF9}, 3},
    {"clflushopt", FEATURE(CLFLUSHOPT), {0x66, 0x0F, 0xAE, 0x38}, 4},
    {"clwb", FEATURE(CLWB), {0x66, 0x0F, 0xAE, 0x30}, 4},
    {"pcommit", FEATURE(PCOMMIT), {0x66, 0x0F, 0xAE, 0xF8}, 4},
};

START_TEST(instructions_of_features_exist_only_with_them)
{
    for (size_t i = 0; i < sizeof(optional) / sizeof(optional[0]); i++) {
        for (unsigned with = 0; with < 2; with++) {
            box_flat(&box, 0);
            box_code(&box, optional[i].bytes, optional[i].len);
            c->features = with ? optional[i].feature : ~optional[i].feature & ((1u << CPU_FEATURE_COUNT) - 1);
            c->gpr[CPU_EAX] = BOX_DATA;
            (void)emu_step(box.vm);
            ck_assert_msg(box_vector(&box) == (with ? -1 : CPU_EXC_UD), "%s, with feature: %u", optional[i].name, with);
        }
    }
}
END_TEST

START_TEST(clac_stac_are_for_ring_0_and_change_ac)
{
    c->features = FEATURE(SMAP);
    RUN(3, 0x0F, 0x01, 0xCB);
    fault_is(CPU_EXC_UD, -1);
    RUN(0, 0x0F, 0x01, 0xCB, 0x0F, 0x01, 0xCA);
    ck_assert(c->eflags_sys & CPU_AC);
    (void)emu_step(box.vm);
    ck_assert(!(c->eflags_sys & CPU_AC));
}
END_TEST

START_TEST(cr4_bits_of_features_fault_without_them)
{
    static const struct {
        uint32_t feature, bit;
    } bits[] = {{FEATURE(UMIP), CPU_CR4_UMIP}, {FEATURE(SMAP), CPU_CR4_SMAP}};
    for (unsigned i = 0; i < 2; i++) {
        box_flat(&box, 0);
        BOX_CODE_BYTES(&box, 0x0F, 0x22, 0xE0); /* mov cr4, eax */
        c->features = bits[!i].feature;
        c->gpr[CPU_EAX] = bits[i].bit;
        (void)emu_step(box.vm);
        fault_is(CPU_EXC_GP, 0);
        box_flat(&box, 0);
        BOX_CODE_BYTES(&box, 0x0F, 0x22, 0xE0);
        c->features = bits[i].feature;
        c->gpr[CPU_EAX] = bits[i].bit;
        (void)emu_step(box.vm);
        no_fault();
        ck_assert_uint_eq(c->cr4, bits[i].bit);
    }
}
END_TEST

START_TEST(umip_keeps_tables_from_ring_3)
{
    static const uint8_t code[][3] = {
        {0x0F, 0x01, 0x00}, {0x0F, 0x01, 0x08}, {0x0F, 0x00, 0xC0}, {0x0F, 0x00, 0xC8}, {0x0F, 0x01, 0xE0},
    }; /* sgdt, sidt [eax]; sldt, str, smsw eax */
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned how = 0; how < 3; how++) {
            box_flat(&box, how == 2 ? 0 : 3);
            c->cr4 = how ? CPU_CR4_UMIP : 0;
            c->gpr[CPU_EAX] = BOX_DATA;
            box_code(&box, code[i], 3);
            (void)emu_step(box.vm);
            if (how == 1)
                fault_is(CPU_EXC_GP, 0);
            else
                no_fault();
        }
    }
    box_v86(&box, 3); /* there SLDT and STR are undefined whatever UMIP says */
    c->cr4 = CPU_CR4_UMIP;
    BOX_CODE_BYTES(&box, 0x0F, 0x00, 0xC0);
    (void)emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_UD);
    box_v86(&box, 3);
    c->cr4 = CPU_CR4_UMIP;
    BOX_CODE_BYTES(&box, 0x0F, 0x01, 0xE0);
    (void)emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_GP);
}
END_TEST

/* Paging with the page of BOX_DATA the user's, all else the supervisor's. */
static void smap_box(unsigned cpl, bool ac)
{
    box_flat(&box, cpl);
    box_paging(&box);
    for (uint32_t lin = 0; lin < BOX_RAM; lin += PAGE_SIZE_)
        if (cpl == 0 && lin != BOX_DATA)
            box_pte(&box, lin, 3);
    c->cr4 |= CPU_CR4_SMAP;
    if (ac)
        c->eflags_sys |= CPU_AC;
    c->gpr[CPU_EAX] = BOX_DATA;
}

START_TEST(smap_keeps_supervisor_from_user_pages)
{
    static const uint8_t code[][2] = {{0x8B, 0x18}, {0x89, 0x18}, {0xFF, 0x00}}; /* mov ebx,[eax]; mov [eax],ebx; inc [eax] */
    static const unsigned errors[] = {1, 3, 3};
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned ac = 0; ac < 2; ac++) {
            smap_box(0, ac);
            box_code(&box, code[i], 2);
            (void)emu_step(box.vm);
            if (ac) {
                no_fault();
                /* What was allowed with AC must not be remembered without. */
                c->eip = BOX_CODE;
                c->eflags_sys &= ~(uint32_t)CPU_AC;
                (void)emu_step(box.vm);
            }
            fault_is(CPU_EXC_PF, errors[i]);
            ck_assert_uint_eq(c->cr2, BOX_DATA);
        }
    }
    smap_box(3, false); /* ring 3 is not concerned */
    BOX_CODE_BYTES(&box, 0x8B, 0x18);
    (void)emu_step(box.vm);
    no_fault();
}
END_TEST

START_TEST(smap_allows_fetches_and_forgets_nothing)
{
    /* From a user page: mov ebx, [eax], whose data lies in the same page. */
    smap_box(0, false);
    box_set(&box, BOX_DATA + 0x100, 4, 0x9090188B);
    c->eip = BOX_DATA + 0x100;
    (void)emu_step(box.vm);
    ck_assert_int_eq(box_vector(&box), CPU_EXC_PF);
    ck_assert_uint_eq(box_stack(&box, 0), 1);
    smap_box(0, true);
    box_set(&box, BOX_DATA + 0x100, 4, 0x9090188B);
    c->eip = BOX_DATA + 0x100;
    (void)emu_step(box.vm);
    no_fault();
}
END_TEST

START_TEST(smap_of_implicit_accesses_asks_no_ac)
{
    smap_box(0, true);
    c->gdtr.base = BOX_DATA; /* the table in the user's page */
    box_set(&box, BOX_DATA + BOX_SEL_DATA0, 4, 0x0000FFFF);
    box_set(&box, BOX_DATA + BOX_SEL_DATA0 + 4, 4, 0x00CF9300);
    c->gpr[CPU_EAX] = BOX_SEL_DATA0;
    BOX_CODE_BYTES(&box, 0x8E, 0xD8); /* mov ds, eax */
    ck_assert_int_eq(emu_step(box.vm), EMU_SHUTDOWN); /* #PF, and no handler's selector can be read either */
    ck_assert_uint_eq(c->cr2 & ~7u, BOX_DATA + BOX_SEL_CODE0);
    c->cr4 = 0;
    smap_box(0, true);
    c->cr4 = 0;
    c->gdtr.base = BOX_DATA;
    box_set(&box, BOX_DATA + BOX_SEL_DATA0, 4, 0x0000FFFF);
    box_set(&box, BOX_DATA + BOX_SEL_DATA0 + 4, 4, 0x00CF9300);
    c->gpr[CPU_EAX] = BOX_SEL_DATA0;
    BOX_CODE_BYTES(&box, 0x8E, 0xD8);
    ck_assert_int_eq(emu_step(box.vm), EMU_OK);
    ck_assert_uint_eq(c->eip, BOX_CODE + 2);
}
END_TEST

START_TEST(rdtscp_returns_aux_and_honours_tsd)
{
    c->features = FEATURE(RDTSCP);
    RUN(0, 0xB9, 0x03, 0x01, 0x00, 0xC0, 0x0F, 0x30, 0x0F, 0x01, 0xF9); /* mov ecx, C0000103h; wrmsr; rdtscp */
    c->gpr[CPU_EAX] = 0x1234;
    c->gpr[CPU_EDX] = 0;
    (void)emu_step(box.vm);
    (void)emu_step(box.vm);
    no_fault();
    ck_assert_uint_eq(c->gpr[CPU_ECX], 0x1234);
    box_flat(&box, 3);
    c->cr4 = CPU_CR4_TSD;
    BOX_CODE_BYTES(&box, 0x0F, 0x01, 0xF9);
    (void)emu_step(box.vm);
    fault_is(CPU_EXC_GP, 0);
}
END_TEST

START_TEST(cpuid_tells_added_features)
{
    uint32_t out[4];
    c->features = 0;
    emu_cpuid(c, 7, 0, out);
    ck_assert_uint_eq(out[1] & (1u << 20 | 1u << 22 | 1u << 23 | 1u << 24), 0);
    ck_assert_uint_eq(out[2], 0);
    c->features = (1u << CPU_FEATURE_COUNT) - 1;
    emu_cpuid(c, 0, 0, out);
    ck_assert_uint_ge(out[0], 7);
    emu_cpuid(c, 7, 0, out);
    ck_assert_uint_eq(out[1] & (1u << 20 | 1u << 22 | 1u << 23 | 1u << 24), 1u << 20 | 1u << 22 | 1u << 23 | 1u << 24);
    ck_assert_uint_eq(out[2], 1u << 2);
    emu_cpuid(c, 7, 1, out);
    ck_assert_uint_eq(out[1] | out[2], 0);
    emu_cpuid(c, 0x80000001u, 0, out);
    ck_assert_uint_eq(out[3], 1u << 20 | 1u << 27);
}
END_TEST

START_TEST(cpuid_names_the_model)
{
    uint32_t v[4];
    emu_cpuid(c, 0, 0, v);
    ck_assert(!memcmp(&v[1], "Genu", 4) && !memcmp(&v[3], "ineI", 4) && !memcmp(&v[2], "ntel", 4));
    emu_cpuid(c, 1, 0, v);
    ck_assert_uint_eq(v[0], 0x106CA);
    ck_assert_uint_eq(v[3] >> 9 & 1, 1); /* APIC */
    ck_assert_uint_eq(v[1] >> 24, 0);    /* its initial ID */
    c->apic_base &= ~0x800ull;
    emu_cpuid(c, 1, 0, v);
    ck_assert_uint_eq(v[3] >> 9 & 1, 0); /* switched off */
    c->apic_base |= 0x800;
    ck_assert_uint_eq(v[2] >> 31, 0);    /* no hypervisor */
    ck_assert_uint_eq(c->tsc_hz, 0);
    emu_cpuid(c, 0x15, 0, v); /* beyond the last: as leaf 2 */
    ck_assert_uint_eq(v[0], 0x4FBA0E01);
    c->tsc_hz = 2500000000u;
    emu_cpuid(c, 0, 0, v);
    ck_assert_uint_eq(v[0], 0x16);
    emu_cpuid(c, 0x15, 0, v);
    ck_assert_uint_eq((uint64_t)v[2] * v[1] / v[0], c->tsc_hz);
    emu_cpuid(c, 0x16, 0, v);
    ck_assert_uint_eq(v[0], 2500);
    emu_cpuid(c, 7, 0, v);
    ck_assert_uint_eq(v[1], 0);
    c->tsc_invariant = 1;
    emu_cpuid(c, 7, 0, v);
    ck_assert_uint_eq(v[1], 2);
    emu_cpuid(c, 0x80000007u, 0, v);
    ck_assert_uint_eq(v[3], 0x100);
    c->tsc_hz = c->tsc_invariant = 0;
    emu_cpuid(c, 0x80000001u, 0, v);
    ck_assert_uint_eq(v[3], 1u << 20);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("emu_sys");
    TCase *t = tcase_create("sys");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, sensitive_instruction_by_ring, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, popf_changes_if_and_iopl_only_with_right);
    tcase_add_test(t, popf_16_keeps_upper_half);
    tcase_add_test(t, sti_shadows_one_instruction);
    tcase_add_test(t, mov_ss_shadows_and_holds_back_single_step);
    tcase_add_test(t, tf_traps_after_instruction_with_tf_in_image);
    tcase_add_test(t, io_bitmap_grants_ports);
    tcase_add_test(t, unknown_msr_reserved_cr_bits_fault);
    tcase_add_test(t, rdtsc_with_tsd_faults_in_ring_3);
    tcase_add_test(t, undefined_and_locked_opcodes_raise_ud);
    tcase_add_loop_test(t, segment_load_checks, 0, sizeof(loads) / sizeof(loads[0]));
    tcase_add_test(t, segment_load_sets_accessed);
    tcase_add_test(t, segment_limits_and_types_checked);
    tcase_add_test(t, stack_limit_raises_ss);
    tcase_add_test(t, lar_lsl_verr_verw_arpl_results);
    tcase_add_test(t, ltr_marks_busy_and_refuses_busy);
    tcase_add_test(t, int80_from_ring_3_switches_stack);
    tcase_add_test(t, int_n_gate_faults);
    tcase_add_test(t, external_interrupt_error_codes_carry_ext);
    tcase_add_test(t, int3_into_push_next_eip);
    tcase_add_test(t, contributory_pair_makes_double_fault);
    tcase_add_test(t, benign_then_contributory_is_serial);
    tcase_add_test(t, fault_during_double_fault_shuts_down);
    tcase_add_test(t, iret_checks_selectors);
    tcase_add_test(t, iret_to_ring_3_empties_supervisor_segments);
    tcase_add_test(t, iret_in_ring_3_keeps_if_and_iopl);
    tcase_add_test(t, sysenter_sysexit_round_trip);
    tcase_add_test(t, far_call_and_return_same_level);
    tcase_add_test(t, call_gate_copies_parameters_to_inner_stack);
    tcase_add_test(t, call_gate_with_bad_inner_stack_raises_ts);
    tcase_add_test(t, far_jump_checks);
    tcase_add_test(t, near_branch_beyond_limit_faults_at_branch);
    tcase_add_test(t, fetch_beyond_limit_faults);
    tcase_add_test(t, task_call_and_iret_return);
    tcase_add_test(t, task_jump_leaves_old_task_available);
    tcase_add_test(t, exception_through_task_gate_pushes_error);
    tcase_add_test(t, task_with_bad_segment_faults_in_new_task);
    tcase_add_test(t, task_switch_to_16_bit_tss);
    tcase_add_test(t, real_mode_interrupt_and_iret);
    tcase_add_test(t, real_mode_wraps_offsets_and_checks_limit);
    tcase_add_test(t, unreal_mode_keeps_limits);
    tcase_add_test(t, real_to_protected_by_far_jump);
    tcase_add_test(t, real_mode_undefined_system_instructions);
    tcase_add_test(t, v86_interrupt_pushes_segments_and_returns);
    tcase_add_test(t, v86_iopl_sensitive_instructions);
    tcase_add_test(t, code16_uses_16_bit_operands_and_stack);
    tcase_add_test(t, instruction_breakpoint_and_rf);
    tcase_add_test(t, data_breakpoint_traps_after_write);
    tcase_add_test(t, data_breakpoint_on_mov_ss_waits_one_instruction);
    tcase_add_test(t, single_step_over_hlt_wakes);
    tcase_add_test(t, general_detect_faults_on_dr_access);
    tcase_add_test(t, instructions_of_features_exist_only_with_them);
    tcase_add_test(t, clac_stac_are_for_ring_0_and_change_ac);
    tcase_add_test(t, cr4_bits_of_features_fault_without_them);
    tcase_add_test(t, umip_keeps_tables_from_ring_3);
    tcase_add_test(t, smap_keeps_supervisor_from_user_pages);
    tcase_add_test(t, smap_allows_fetches_and_forgets_nothing);
    tcase_add_test(t, smap_of_implicit_accesses_asks_no_ac);
    tcase_add_test(t, rdtscp_returns_aux_and_honours_tsd);
    tcase_add_test(t, cpuid_tells_added_features);
    tcase_add_test(t, cpuid_names_the_model);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
