/* monitor/lockstep.c: translated code against the emulator, one instruction at a time.
 *
 * In a stretch each instruction runs twice on the same state: first translated (code made with XLAT_OPT_STEP,
 * which leaves after every instruction), then in the emulator, whose result is kept. Everything of struct cpu
 * that a guest can see must agree, and so must memory, all of it: the emulator has guest RAM of its own. A
 * page is in common until translated code may write it (windows are read-only when a stretch begins) or the
 * emulator does; from then on the emulator has a copy. What the emulator stores is noted and compared after
 * each instruction; that translated code has written nothing else is seen by comparing all copies with their
 * pages, every `check` instructions and at the end.
 *
 * Instructions that leave to the emulator, and those that fault, run there only and store in both; their
 * unwound state must be the state before the instruction. They are counted by reason and class.
 *
 * Between stretches the machine runs at full speed with the code of any other run. The guest must not notice
 * the stretches: while one lasts, its clock and its time-stamp counter go by instructions, and jump to the
 * next deadline when it is idle. (A single stretch goes by real time: there is nothing to be in step with,
 * and signals come where they will.)
 */
#include "monitor/lockstep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include "monitor/light.h"
#include "monitor/signals.h"

#define STORES_MAX    4096u
#define CHECK_DEFAULT 100000u
#define CLOCK_STEPS   256u /* instructions between two looks at the guest's clock */
#define NS_PER_INSN   2u
#define PUSHED_MAX    64u /* bytes below ESP; PUSHA stores 32 */
#define DECODED       8192u
/* What a guest can see beyond the first part of struct cpu: from the registers up to the host's side. */
#define STATE_AT    offsetof(struct cpu, gpr)
#define STATE_BYTES (offsetof(struct cpu, host_rsp) - STATE_AT)
#define FX_BYTES    288u /* x87 and XMM0-7 of the image; what follows is no state of the guest */

struct store {
    uint64_t gpa;
    uint32_t before;
    uint8_t size;
};

struct decoded {
    uint64_t at; /* where the bytes were; 0: nowhere */
    uint8_t bytes[16];
    struct scan_insn insn;
};

struct lockstep {
    struct run_lockstep cfg;
    /* The stretch */
    uint64_t begun, done; /* stretches so far; instructions compared in this one */
    uint64_t checked_at;  /* `done` when all copies were last compared */
    uint64_t due_ns;      /* processor time at which the next one begins */
    /* Memory */
    uint8_t *mirror, *mirrored;
    uint32_t *copies; /* frames with mirrored[] set */
    uint32_t copy_count;
    struct store store[STORES_MAX];
    uint32_t store_count;
    bool store_lost; /* there were more: all copies have to be compared */
    /* The guest's time: at the beginning of the stretch, jumps since, instructions since */
    uint64_t ns0, jumped_ns, tsc0, steps;
    struct cpu before, translated;
    const struct scan_insn *last; /* what ran from `before` */
    struct decoded decoded[DECODED];
    struct run_difference *difference;
};

const char *run_alone_name(enum run_alone a)
{
    static const char *const names[] = {
#define X(id, name, text) name,
        RUN_ALONE(X)
#undef X
    };
    return names[a];
}

const char *run_alone_text(enum run_alone a)
{
    static const char *const texts[] = {
#define X(id, name, text) text,
        RUN_ALONE(X)
#undef X
    };
    return texts[a];
}

void run_difference_free(struct run_difference *d)
{
    if (d) {
        free(d->code);
        free(d->unwind);
        free(d);
    }
}

/* Reserved at their greatest size, touched as they fill. */
static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

bool lockstep_init(struct machine *m, char *err, size_t size)
{
    if (!m->cfg->lockstep)
        return true;
    struct lockstep *l = m->lockstep = reserve(sizeof(*l));
    if (l) {
        l->cfg = m->cfg->lock;
        if (!l->cfg.check)
            l->cfg.check = CHECK_DEFAULT;
        l->mirror = reserve((uint64_t)m->frames * PAGE_SIZE_);
        l->mirrored = reserve(m->frames);
        l->copies = reserve(m->frames * sizeof(*l->copies));
        l->difference = calloc(1, sizeof(*l->difference));
    }
    if (!l || !l->mirror || !l->mirrored || !l->copies || !l->difference) {
        snprintf(err, size, "out of memory for lockstep");
        return false;
    }
    return true;
}

static void release(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

void lockstep_destroy(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    if (!l)
        return;
    release(l->mirror, (uint64_t)m->frames * PAGE_SIZE_);
    release(l->mirrored, m->frames);
    release(l->copies, m->frames * sizeof(*l->copies));
    run_difference_free(l->difference);
    release(l, sizeof(*l));
    m->lockstep = NULL;
}

/* -- The guest's time
 * ------------------------------------------------------------------------------------------------------ */

uint64_t lockstep_guest_ns(const struct machine *m)
{
    const struct lockstep *l = m->lockstep;
    return l->ns0 + l->jumped_ns + l->steps * NS_PER_INSN;
}

static void show_clock(struct machine *m)
{
    const struct lockstep *l = m->lockstep;
    struct cpu *c = m->vm.cpu;
    if (!m->slow_clock)
        return;
    uint64_t ns = lockstep_guest_ns(m);
    c->host_tsc_at = l->tsc0 + (uint64_t)((__uint128_t)(ns - l->ns0) * c->tsc_hz / 1000000000u);
    if (ns >= m->deadline_ns)
        c->host_event = 1;
}

/* n more instructions have been run. */
static void tick(struct machine *m, uint64_t n)
{
    struct lockstep *l = m->lockstep;
    uint64_t was = l->steps / CLOCK_STEPS;
    l->steps += n;
    if (l->steps / CLOCK_STEPS != was)
        show_clock(m);
}

bool lockstep_idle(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    uint64_t ns = lockstep_guest_ns(m);
    if (!m->slow_clock || m->deadline_ns == UINT64_MAX)
        return false;
    if (m->deadline_ns > ns)
        l->jumped_ns += m->deadline_ns - ns;
    show_clock(m);
    return true;
}

static void stop_clock(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    struct cpu *c = m->vm.cpu;
    if (!l->cfg.every_ms)
        return;
    l->ns0 = machine_guest_ns(m);
    l->tsc0 = __rdtsc() - c->host_tsc_lost;
    l->jumped_ns = l->steps = 0;
    signals_set_timer(m, 0);
    c->host_tsc_at = l->tsc0;
    c->host_tsc_stopped = 1;
    m->slow_clock = true;
}

static void start_clock(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    if (!m->slow_clock)
        return;
    show_clock(m);
    machine_set_guest_ns(m, lockstep_guest_ns(m));
    m->slow_clock = false;
    c->host_tsc_lost = __rdtsc() - c->host_tsc_at;
    c->host_tsc_stopped = 0;
    if (m->deadline_ns != UINT64_MAX)
        machine_arm_timer(m);
    c->host_event = 1;
}

/* -- Memory
 * -----------------------------------------------------------------------------------------------------------------
 */

/* Async-signal-safe: the fault handler calls it when it makes a page writable. */
void vm_mirror_page(struct vm *vm, uint64_t frame)
{
    struct lockstep *l = machine_of(vm)->lockstep;
    if (vm->mirrored[frame])
        return;
    memcpy(vm->mirror + frame * PAGE_SIZE_, vm->ram + frame * PAGE_SIZE_, PAGE_SIZE_);
    vm->mirrored[frame] = 1;
    l->copies[l->copy_count++] = (uint32_t)frame;
    mmu_flush_tlb(vm); /* it has host addresses of the page */
}

void lockstep_resync(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    for (uint32_t n = 0; n < l->copy_count; n++) {
        uint64_t at = (uint64_t)l->copies[n] * PAGE_SIZE_;
        memcpy(l->mirror + at, m->vm.ram + at, PAGE_SIZE_);
    }
}

void vm_mirror_store(struct vm *vm, gpa_t a, unsigned size, uint32_t v)
{
    struct lockstep *l = machine_of(vm)->lockstep;
    uint8_t *p = vm_view(vm, a.v);
    if (!vm->mirror_log) {
        memcpy(vm->ram + a.v, &v, size);
    } else if (l->store_count < STORES_MAX) {
        struct store *s = &l->store[l->store_count++];
        s->gpa = a.v;
        s->size = (uint8_t)size;
        s->before = 0;
        memcpy(&s->before, p, size);
    } else {
        l->store_lost = true;
    }
    memcpy(p, &v, size);
}

/* -- Reporting
 * ----------------------------------------------------------------------------------------------------------------
 */

static uint32_t operand_address(const struct cpu *c, const struct scan_insn *i)
{
    uint32_t ea = (uint32_t)i->disp;
    if (scan_has_mem(i)) {
        unsigned mod = scan_modrm_mod(i), rm = scan_modrm_rm(i);
        if (rm == 4 && i->has_sib) {
            unsigned base = i->sib & 7, index = i->sib >> 3 & 7;
            ea += base == 5 && mod == 0 ? 0 : c->gpr[base];
            ea += index == 4 ? 0 : c->gpr[index] << (i->sib >> 6);
        } else if (!(rm == 5 && mod == 0)) {
            ea += c->gpr[rm];
        }
    }
    return ea + (i->seg <= SCAN_GS ? c->seg[i->seg].base : 0);
}

/* The linear address that an instruction in state c is likely to have reached guest-physical address gpa by.
 */
static bool linear_of(struct machine *m, const struct cpu *c, const struct scan_insn *i, uint64_t gpa,
                      uint32_t *lin)
{
    const uint32_t guess[] = {operand_address(c, i), c->gpr[CPU_ESP] - 4, c->gpr[CPU_EDI], c->gpr[CPU_ESP]};
    for (unsigned n = 0; n < sizeof(guess) / sizeof(guess[0]); n++)
        for (unsigned next = 0; next < 2; next++) {
            struct mmu_page p;
            uint32_t page = (guess[n] & ~PAGE_MASK_) + next * PAGE_SIZE_;
            if (mmu_probe(&m->vm, gva(page), &p) && p.page.v >> 12 == gpa >> 12) {
                *lin = page | ((uint32_t)gpa & PAGE_MASK_);
                return true;
            }
        }
    return false;
}

static void note_byte(struct machine *m, uint64_t gpa, const uint8_t *before)
{
    struct run_difference *d = m->lockstep->difference;
    if (d->memory_count == RUN_DIFF_MEMORY) {
        d->memory_more++;
        return;
    }
    struct run_diff_byte *b = &d->memory[d->memory_count++];
    b->gpa = gpa;
    b->lin_known = linear_of(m, &m->lockstep->before, &d->insn, gpa, &b->lin);
    b->before_known = before != NULL;
    b->before = before ? *before : 0;
    b->translated = m->vm.ram[gpa];
    b->emulated = *vm_view(&m->vm, gpa);
}

static uint8_t *copy_of(const uint8_t *p, uint32_t len)
{
    uint8_t *c = malloc(len ? len : 1);
    if (c)
        memcpy(c, p, len);
    return c;
}

/* The code that ran, for the listing. */
static void note_code(struct machine *m, uint32_t eip)
{
    struct run_difference *d = m->lockstep->difference;
    const struct page_code *pc = code_for(m, eip);
    if (!pc)
        return;
    d->lin = eip & ~PAGE_MASK_;
    d->offset = eip & PAGE_MASK_;
    memcpy(d->recto, m->vm.ram + (uint64_t)pc->pfn * PAGE_SIZE_, PAGE_SIZE_);
    d->code = code_of_page(m, pc);
    d->unwind = copy_of(pc->verso.unwind, pc->verso.unwind_len);
    d->code_len = pc->verso.code_len;
    d->unwind_len = pc->verso.unwind_len;
    d->has_code = d->code && d->unwind;
}

static enum lockstep_result differ(struct machine *m, const char *what)
{
    struct lockstep *l = m->lockstep;
    struct run_difference *d = l->difference;
    d->what = what;
    d->before = l->before;
    d->translated = l->translated;
    d->emulated = *m->vm.cpu;
    d->compared = m->counter[RUN_COUNTER_LOCKSTEP_INSNS];
    d->stretch = l->begun;
    d->in_stretch = l->done;
    note_code(m, l->before.eip);
    m->res->difference = d;
    l->difference = NULL;
    machine_end(m, RUN_LOCKSTEP_DIFF);
    return LOCKSTEP_DIFFER;
}

/* -- Comparing
 * ----------------------------------------------------------------------------------------------------------------
 */

/* Flags that the manual leaves undefined for an instruction (SDM vol. 1, table A-1). */
static uint32_t undefined_flags(const struct scan_insn *i, const struct cpu *before)
{
    unsigned reg = scan_modrm_reg(i), op = i->opcode;
    const uint32_t sziap = CPU_SF | CPU_ZF | CPU_AF | CPU_PF;
    if (i->map == SCAN_MAP_1B) {
        if ((op & 0xFE) == 0xF6 && reg >= 6)
            return CPU_ARITH;
        if (((op & 0xFE) == 0xF6 && reg >= 4) || op == 0x69 || op == 0x6B)
            return sziap;
        if (op == 0xC0 || op == 0xC1 || (op >= 0xD0 && op <= 0xD3)) {
            unsigned count = op <= 0xC1 ? i->imm & 31 : op <= 0xD1 ? 1 : before->gpr[CPU_ECX] & 31;
            unsigned bits = op & 1 ? i->opsize * 8u : 8;
            if (count == 0)
                return 0;
            uint32_t f = count == 1 ? 0 : CPU_OF;
            if (reg >= 4)
                f |= CPU_AF | (count >= bits ? CPU_CF : 0);
            return f;
        }
        if ((op < 0x40 && ((op >> 3 & 7) == 1 || (op >> 3 & 7) == 4 || (op >> 3 & 7) == 6)) ||
            ((op & 0xFC) == 0x80 && (reg == 1 || reg == 4 || reg == 6)) || op == 0x84 || op == 0x85 ||
            op == 0xA8 || op == 0xA9 || ((op & 0xFE) == 0xF6 && reg < 2))
            return CPU_AF;
        if (op == 0xD4 || op == 0xD5)
            return CPU_OF | CPU_AF | CPU_CF;
        if (op == 0x27 || op == 0x2F || op == 0x37 || op == 0x3F)
            return CPU_OF | CPU_SF | CPU_ZF | CPU_PF;
    } else if (i->map == SCAN_MAP_0F) {
        if (op == 0xA4 || op == 0xA5 || op == 0xAC || op == 0xAD)
            return CPU_AF | CPU_OF | (i->opsize == 2 ? CPU_ARITH : 0);
        if (op == 0xAF)
            return sziap;
        if (op == 0xBC || op == 0xBD)
            return CPU_ARITH & ~(uint32_t)CPU_ZF;
        if (op == 0xA3 || op == 0xAB || op == 0xB3 || op == 0xBB || op == 0xBA)
            return CPU_OF | CPU_SF | CPU_AF | CPU_PF;
    }
    return 0;
}

/* FCW FSW FTW, then ST0-7 (10 of 16 bytes each), MXCSR, XMM0-7; not the instruction and data pointers and the
 * opcode, which the host has its own of. (The image has abridged tags; the full ones follow from the
 * registers: SDM vol. 1, 10.5.1.1.) */
static bool fpu_equal(const uint8_t *a, const uint8_t *b)
{
    if (!memcmp(a, b, FX_BYTES))
        return true;
    if (memcmp(a, b, 5) || memcmp(a + 24, b + 24, 4) || memcmp(a + 160, b + 160, 128))
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a + 32 + 16 * i, b + 32 + 16 * i, 10))
            return false;
    return true;
}

/* Every part of the guest-visible state but what compare_state() looks at by itself. */
#define PART(field, text)                                                                                    \
    {                                                                                                        \
        offsetof(struct cpu, field), sizeof(((struct cpu *)0)->field), text                                  \
    }
static const struct part {
    size_t at, bytes;
    const char *text;
} parts[] = {
    PART(vif, "IF"),
    PART(eflags_sys, "the system flags"),
    PART(seg, "a segment register"),
    PART(seg_sel, "a selector"),
    PART(seg_base, "a segment base"),
    PART(ldtr, "LDTR"),
    PART(tr, "TR"),
    PART(gdtr, "GDTR"),
    PART(idtr, "IDTR"),
    PART(cr0, "CR0"),
    PART(cr2, "CR2"),
    PART(cr3, "CR3"),
    PART(cr4, "CR4"),
    PART(dr, "a debug register"),
    PART(pdpte, "a PDPTE"),
    PART(cpl, "CPL"),
    PART(a20_mask, "A20"),
    PART(nmi_blocked, "NMI blocking"),
    PART(halted, "the halted state"),
    PART(efer, "EFER"),
    PART(apic_base, "IA32_APIC_BASE"),
    PART(pat, "IA32_PAT"),
    PART(misc_enable, "IA32_MISC_ENABLE"),
    PART(tsc_offset, "the TSC's offset"),
    PART(bios_sign, "IA32_BIOS_SIGN_ID"),
    PART(sysenter_cs, "SYSENTER_CS"),
    PART(sysenter_esp, "SYSENTER_ESP"),
    PART(sysenter_eip, "SYSENTER_EIP"),
    PART(mtrr, "an MTRR"),
};

/* Differences that are none (undefined, or told otherwise); NULL, or what differs. */
static const char *state_difference(const struct cpu *before, const struct cpu *t, const struct cpu *e,
                                    const struct scan_insn *i)
{
    bool bit_scan = i->map == SCAN_MAP_0F && (i->opcode == 0xBC || i->opcode == 0xBD);
    for (unsigned r = 0; r < 8; r++)
        if (t->gpr[r] != e->gpr[r] && !(bit_scan && r == scan_modrm_reg(i) && (e->arith & CPU_ZF)))
            return "a register";
    if (t->eip != e->eip)
        return "EIP";
    if ((t->arith ^ e->arith) & ~undefined_flags(i, before))
        return "EFLAGS";
    /* Translated code notes STI's shadow only where an interrupt is pending. */
    if (t->shadow != e->shadow && !(i->cls == SCAN_CLASS_STI && !t->shadow))
        return "the interrupt shadow";
    for (unsigned n = 0; n < sizeof(parts) / sizeof(parts[0]); n++)
        if (memcmp((const uint8_t *)t + parts[n].at, (const uint8_t *)e + parts[n].at, parts[n].bytes))
            return parts[n].text;
    return fpu_equal(t->fx, e->fx) ? NULL : "the x87/SSE state";
}

static bool part1_equal(const struct cpu *a, const struct cpu *b)
{
    return a->vif == b->vif && a->eflags_sys == b->eflags_sys &&
           !memcmp(a->seg_base, b->seg_base, sizeof(a->seg_base)) &&
           !memcmp(a->seg_sel, b->seg_sel, sizeof(a->seg_sel));
}

static bool state_same(const struct cpu *a, const struct cpu *b)
{
    return part1_equal(a, b) &&
           !memcmp((const uint8_t *)a + STATE_AT, (const uint8_t *)b + STATE_AT,
                   offsetof(struct cpu, fx) - STATE_AT) &&
           fpu_equal(a->fx, b->fx);
}

static void state_copy(struct cpu *to, const struct cpu *from)
{
    to->vif = from->vif;
    to->eflags_sys = from->eflags_sys;
    memcpy(to->seg_base, from->seg_base, sizeof(to->seg_base));
    memcpy(to->seg_sel, from->seg_sel, sizeof(to->seg_sel));
    memcpy((uint8_t *)to + STATE_AT, (const uint8_t *)from + STATE_AT, STATE_BYTES);
}

/* Where translated code would go through FS and GS now is not guest state, but follows from it. */
static bool windows_equal(const struct machine *m, const struct cpu *t)
{
    return t->seg_window[SCAN_FS] == window_for(m, m->current, SCAN_FS) &&
           t->seg_window[SCAN_GS] == window_for(m, m->current, SCAN_GS);
}

static bool loads_segment(const struct scan_insn *i)
{
    return i->cls == SCAN_CLASS_MOVTOSEG || i->cls == SCAN_CLASS_POPSEG || i->cls == SCAN_CLASS_LOADSEG;
}

/* All copies against their pages. False: a difference is noted. */
static bool compare_copies(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    bool same = true;
    COUNT_ADD(m, LOCKSTEP_PAGES, l->copy_count);
    for (uint32_t n = 0; n < l->copy_count; n++) {
        uint64_t at = (uint64_t)l->copies[n] * PAGE_SIZE_;
        if (!memcmp(m->vm.ram + at, l->mirror + at, PAGE_SIZE_))
            continue;
        same = false;
        for (unsigned i = 0; i < PAGE_SIZE_; i++)
            if (m->vm.ram[at + i] != l->mirror[at + i])
                note_byte(m, at + i, NULL);
    }
    return same;
}

/* What the emulator stored last against what is in the same place after translated code ran. */
static bool stores_equal(const struct machine *m)
{
    const struct lockstep *l = m->lockstep;
    for (uint32_t n = 0; n < l->store_count; n++) {
        const struct store *s = &l->store[n];
        if (memcmp(m->vm.ram + s->gpa, vm_view(&m->vm, s->gpa), s->size))
            return false;
    }
    return true;
}

static void note_stores(struct machine *m)
{
    const struct lockstep *l = m->lockstep;
    for (uint32_t n = 0; n < l->store_count; n++) {
        const struct store *s = &l->store[n];
        for (unsigned i = 0; i < s->size; i++)
            if (m->vm.ram[s->gpa + i] != *vm_view(&m->vm, s->gpa + i))
                note_byte(m, s->gpa + i, (const uint8_t *)&s->before + i);
    }
}

static const struct scan_insn unknown = {.cls = SCAN_CLASS_COUNT};

static void note_insn(struct machine *m, const struct scan_insn *i)
{
    struct run_difference *d = m->lockstep->difference;
    const struct decoded *from =
        (const struct decoded *)(const void *)((const uint8_t *)i - offsetof(struct decoded, insn));
    d->insn = *i;
    if (i != &unknown)
        memcpy(d->bytes, from->bytes, sizeof(d->bytes));
    else
        d->insn.len = 0;
}

static enum lockstep_result check_memory(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    uint64_t since = l->done - l->checked_at;
    l->checked_at = l->done;
    note_insn(m, l->last ? l->last : &unknown);
    if (compare_copies(m))
        return LOCKSTEP_EQUAL;
    l->difference->since_check = since ? since : 1;
    return differ(m, "memory that the instruction does not write");
}

/* -- One instruction
 * -------------------------------------------------------------------------------------------------------------
 */

/* The page of guest memory that instructions at lin come from, or NULL. */
static const uint8_t *code_page(struct machine *m, uint32_t lin)
{
    const struct tlb_entry *t = &m->vm.tlb[m->vm.cpu->cpl == 3][lin >> 12 & (TLB_SIZE - 1)];
    if (t->exec_tag == ((lin & ~PAGE_MASK_) | 1))
        return t->hva;
    struct mmu_page p;
    return mmu_probe(&m->vm, gva(lin), &p) ? vm_readable(&m->vm, p.page.v) : NULL;
}

/* The instruction at EIP; unknown: not all of it is readable RAM, or it is no instruction. */
static const struct scan_insn *fetch(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    uint8_t bytes[16] = {0};
    uint32_t eip = m->vm.cpu->eip, first = PAGE_SIZE_ - (eip & PAGE_MASK_), n = SCAN_INSN_MAX_LEN;
    const uint8_t *p = code_page(m, eip), *q = NULL;
    if (!p)
        return &unknown;
    p += eip & PAGE_MASK_;
    if (first >= n) {
        memcpy(bytes, p, n);
    } else {
        q = code_page(m, eip + first);
        memcpy(bytes, p, first);
        if (q)
            memcpy(bytes + first, q, n - first);
        else
            n = first;
    }
    struct decoded *d = &l->decoded[(eip ^ eip >> 13) % DECODED];
    uint64_t at = (uint64_t)(uintptr_t)p;
    if (d->at == at && !memcmp(d->bytes, bytes, sizeof(bytes)))
        return &d->insn;
    d->at = 0;
    if (scan_decode(bytes, n, 32, &d->insn) != SCAN_OK)
        return &unknown;
    d->at = at;
    memcpy(d->bytes, bytes, sizeof(bytes));
    return &d->insn;
}

/* Runs the emulator from the state before, on its own memory, until it has done what translated code has. */
static void emulate(struct machine *m, const struct scan_insn *i, uint32_t count)
{
    struct lockstep *l = m->lockstep;
    struct cpu *c = m->vm.cpu;
    state_copy(c, &l->before);
    c->gpr[CPU_ECX] = count;
    l->store_count = 0;
    l->store_lost = false;
    m->vm.mirror_log = true;
    do /* a long repeat is done in parts */
        (void)emu_step(&m->vm);
    while (i->cls == SCAN_CLASS_STRING && c->eip == l->before.eip && l->translated.eip != l->before.eip);
    m->vm.mirror_log = false;
}

static enum lockstep_result compare(struct machine *m, const struct scan_insn *i)
{
    struct lockstep *l = m->lockstep;
    const char *what = NULL;
    if (!state_same(&l->translated, m->vm.cpu))
        what = state_difference(&l->before, &l->translated, m->vm.cpu, i);
    if (!what && loads_segment(i) && !windows_equal(m, &l->translated))
        what = "the window of FS or GS";
    bool memory = stores_equal(m);
    if (!what && memory && !l->store_lost)
        return LOCKSTEP_EQUAL;
    note_insn(m, i);
    if (!l->store_lost)
        note_stores(m);
    else if (compare_copies(m) && !what)
        return LOCKSTEP_EQUAL;
    else if (!what) /* or an instruction before it has written there, which would be noticed only now */
        l->difference->since_check = l->done - l->checked_at + 1;
    return differ(m, what ? what : "memory");
}

/* Translated code was interrupted, by a fault or a signal, in the middle of a repeated string instruction:
 * the part it has done is compared as an instruction of its own. */
static enum lockstep_result compare_part(struct machine *m, const struct scan_insn *i)
{
    struct lockstep *l = m->lockstep;
    struct cpu *c = m->vm.cpu;
    uint32_t part = l->before.gpr[CPU_ECX] - l->translated.gpr[CPU_ECX], eip = l->before.eip;
    l->translated.eip = eip + i->len;
    emulate(m, i, part);
    c->gpr[CPU_ECX] += l->before.gpr[CPU_ECX] - part;
    if ((i->opcode & 0xF6) == 0xA6) /* CMPS, SCAS: their flags are those of an instruction that goes on */
        l->translated.arith = c->arith;
    enum lockstep_result r = compare(m, i);
    c->eip = eip;
    return r;
}

static bool is_repeat(const struct scan_insn *i)
{
    return i->cls == SCAN_CLASS_STRING && (i->prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE));
}

/* An instruction that pushes may have stored already when it is interrupted; it will store the same again
 * (op.c). Takes that back. */
static void undo_pushes(struct machine *m)
{
    uint32_t esp = m->lockstep->before.gpr[CPU_ESP];
    for (uint32_t n = 1; n <= PUSHED_MAX; n++) {
        struct mmu_page p;
        uint32_t frame = mmu_probe(&m->vm, gva(esp - n), &p) ? vm_frame(&m->vm, p.page.v, true) : VM_NO_FRAME;
        uint64_t at = ((uint64_t)frame << 12) + ((esp - n) & PAGE_MASK_);
        if (frame == VM_NO_FRAME)
            continue;
        m->vm.ram[at] = *vm_view(&m->vm, at);
    }
}

/* Translated code came back with EIP on the same instruction: all else must be as it was. */
static enum lockstep_result compare_unwound(struct machine *m, const struct scan_insn *i, bool interrupted)
{
    struct lockstep *l = m->lockstep;
    uint32_t rf = l->translated.eflags_sys & CPU_RF; /* a signal in a repeat sets it (signals.c) */
    l->translated.eflags_sys &= ~rf;
    /* An unmasked SIMD exception has set its flags in MXCSR when it is raised (SDM vol. 1, 11.5.2). */
    if (i->cls == SCAN_CLASS_SIMD)
        l->translated.fx[24] = (uint8_t)((l->translated.fx[24] & ~0x3Fu) | (l->before.fx[24] & 0x3F));
    if (state_same(&l->translated, &l->before)) {
        if (interrupted)
            undo_pushes(m);
        return LOCKSTEP_EQUAL;
    }
    if (l->translated.eip == l->before.eip && is_repeat(i) &&
        l->translated.gpr[CPU_ECX] != l->before.gpr[CPU_ECX]) {
        enum lockstep_result r = compare_part(m, i);
        m->vm.cpu->eflags_sys |= rf;
        return r;
    }
    note_insn(m, i);
    return differ(m, "the unwound state");
}

static enum lockstep_result finish(struct machine *m, const struct scan_insn *i)
{
    struct lockstep *l = m->lockstep;
    emulate(m, i, l->before.gpr[CPU_ECX]);
    if (compare(m, i) == LOCKSTEP_DIFFER)
        return LOCKSTEP_DIFFER;
    COUNT(m, LOCKSTEP_INSNS);
    m->res->lock_compared[i->cls]++;
    l->done++;
    return LOCKSTEP_EQUAL;
}

enum lockstep_result lockstep_step(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    struct cpu *c = m->vm.cpu;
    const struct scan_insn *i = l->last = fetch(m);
    state_copy(&l->before, c);
    m->why = XLAT_STUB_EMULATE;
    uint32_t why = stub_enter(c);
    COUNT(m, EXITS);
    state_copy(&l->translated, c);
    memcpy(l->translated.seg_window, c->seg_window, sizeof(c->seg_window));
    /* A branch to itself (LOOP) that a signal came behind has been run; where none was run, comparing says
     * the same. */
    bool same = c->eip == l->before.eip &&
                !(why == STUB_EXIT_SIGNAL && i->cls == SCAN_CLASS_BRANCH && !state_same(c, &l->before));
    if (why == XLAT_STUB_MISS && same)
        return LOCKSTEP_RESOLVE;
    tick(m, 1);
    enum lockstep_result instead = xlat_stub_emulates(why)           ? LOCKSTEP_EMULATE
                                   : why == STUB_EXIT_FAULT          ? LOCKSTEP_FAULT
                                   : why == STUB_EXIT_ABORTED        ? LOCKSTEP_SIGNAL
                                   : why == STUB_EXIT_SIGNAL && same ? LOCKSTEP_SIGNAL
                                                                     : LOCKSTEP_EQUAL;
    if (instead != LOCKSTEP_EQUAL)
        return compare_unwound(m, i, instead != LOCKSTEP_EMULATE) == LOCKSTEP_DIFFER ? LOCKSTEP_DIFFER
                                                                                     : instead;
    if (i == &unknown) { /* cannot have run */
        note_insn(m, i);
        return differ(m, "whether there is an instruction");
    }
    return finish(m, i);
}

void lockstep_alone(struct machine *m, enum run_alone why)
{
    m->res->lock_alone[why][why == RUN_ALONE_CODE ? SCAN_CLASS_COUNT : fetch(m)->cls]++;
    COUNT(m, LOCKSTEP_ALONE);
    if (why != RUN_ALONE_EXIT && why != RUN_ALONE_FAULT)
        tick(m, 1);
}

void lockstep_alone_state(struct machine *m, uint64_t n)
{
    m->res->lock_alone[RUN_ALONE_STATE][SCAN_CLASS_COUNT] += n;
    COUNT_ADD(m, LOCKSTEP_ALONE, n);
    tick(m, n);
}

/* -- Stretches
 * -------------------------------------------------------------------------------------------------------------------
 */

/* Code of the other kind from now on, found anew; the emulator's host addresses are outdated too. */
static void change_code(struct machine *m, uint32_t options)
{
    m->options = options;
    window_forget_branches(m);
    mmu_flush_tlb(&m->vm);
}

static void begin(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    COUNT(m, LOCKSTEP_STRETCHES);
    l->begun++;
    l->done = l->checked_at = 0;
    stop_clock(m);
    m->stepping = true;
    machine_observe(m);
    window_hold_writes(m);
    m->vm.mirrored = l->mirrored;
    m->vm.mirror = l->mirror;
    change_code(m, m->options | XLAT_OPT_STEP);
}

static void end(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    if (check_memory(m) == LOCKSTEP_DIFFER)
        return;
    m->vm.mirror = NULL;
    for (uint32_t n = 0; n < l->copy_count; n++)
        l->mirrored[l->copies[n]] = 0;
    l->copy_count = 0;
    window_give_writes(m);
    change_code(m, m->options & ~(uint32_t)XLAT_OPT_STEP);
    start_clock(m);
    m->stepping = false;
    machine_observe(m);
    if (l->cfg.every_ms) {
        l->due_ns = machine_cpu_ns() + l->cfg.every_ms * 1000000u;
        signals_set_pace(m, l->cfg.every_ms * 1000000u);
    } else {
        machine_end(m, RUN_QUIT);
    }
}

/* The timer goes by real time; what counts is processor time. */
static bool due(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    if (!l->cfg.every_ms)
        return m->insns >= l->cfg.skip;
    if (l->begun && !m->pace)
        return false;
    m->pace = 0;
    uint64_t now = machine_cpu_ns();
    if (now >= l->due_ns)
        return true;
    signals_set_pace(m, l->due_ns - now);
    return false;
}

void lockstep_poll(struct machine *m)
{
    struct lockstep *l = m->lockstep;
    if (!m->stepping) {
        if (due(m))
            begin(m);
        return;
    }
    if (l->done - l->checked_at >= l->cfg.check && check_memory(m) == LOCKSTEP_DIFFER)
        return;
    if (l->cfg.count && l->done >= l->cfg.count)
        end(m);
}

bool lockstep_skipping(const struct machine *m)
{
    return m->lockstep && !m->stepping && !m->lockstep->cfg.every_ms;
}
