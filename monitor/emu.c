/* monitor/emu.c: the emulator's loop: fetch, decode cache, faults, traps, and delivery of exceptions with the
 * double-fault rules.
 *
 * The decode cache is keyed by physical address and code size and each hit compares the instruction's bytes,
 * so code that is modified by anybody needs no invalidation. Its content depends on nothing but those bytes:
 * one per thread serves all machines.
 */
#include "monitor/emu_internal.h"
#include "monitor/quick.h"

#define CACHE_SIZE  8192u
#define KEY_INVALID UINT64_MAX

static _Thread_local struct dinsn cache[CACHE_SIZE];
/* Used in place of the TLB while data breakpoints are armed: every access then takes the slow path, which
 * looks at them. */
static struct tlb_entry no_tlb[TLB_SIZE];

_Noreturn void emu_raise(struct emu *e, unsigned vector, bool has_error, uint32_t error)
{
    e->vector = vector;
    e->has_error = has_error;
    e->error = error;
    e->implicit = 0;
    __builtin_longjmp(e->jb, 1);
}

/* -- Derived state ----------------------------------------------------------------------------------- */

/* In real mode everything may be done, but types that expand down keep their limit (unreal mode). */
static unsigned free_access(const struct cpu_seg *s, bool real)
{
    if (!real)
        return cpu_seg_free(s);
    bool down = (s->attr & (SEG_CODE | SEG_CE)) == SEG_CE;
    return s->limit == 0xFFFFFFFFu && !down ? SEG_FREE_READ | SEG_FREE_WRITE : 0;
}

void emu_refresh(struct emu *e)
{
    struct cpu *c = e->c;
    e->pe = c->cr0 & CPU_CR0_PE;
    e->v86 = e->pe && (c->eflags_sys & CPU_VM);
    e->seg_rd = e->seg_wr = 0;
    for (unsigned i = 0; i < 6; i++) {
        unsigned fast = free_access(&c->seg[i], emu_real(e));
        e->seg_rd |= (uint8_t)((fast & SEG_FREE_READ) << i);
        e->seg_wr |= (uint8_t)(fast >> 1 << i);
    }
    e->code32 = c->seg[SCAN_CS].attr & SEG_DB;
    e->flat_cs = c->seg[SCAN_CS].limit == 0xFFFFFFFFu;
    e->smask = c->seg[SCAN_SS].attr & SEG_DB ? 0xFFFFFFFFu : 0xFFFFu;
    e->user = c->cpl == 3;
    e->align = e->user && (c->cr0 & CPU_CR0_AM) && (c->eflags_sys & CPU_AC);
    e->bp_data = e->bp_port = false;
    for (unsigned i = 0; i < 4 && (c->dr[7] & 0xFF); i++) {
        bool on = c->dr[7] >> 2 * i & 3;
        unsigned kind = c->dr[7] >> (16 + 4 * i) & 3;
        e->bp_data |= on && (kind & 1);
        e->bp_port |= on && kind == 2 && (c->cr4 & CPU_CR4_DE);
    }
    e->bp_data |= !!(e->vm->observe & VM_OBSERVE_WATCH);
    e->tlb = e->bp_data ? no_tlb : e->vm->tlb[e->user];
    e->flow = e->vm->observe & VM_OBSERVE_FLOW;
    e->before = e->flow || (c->dr[7] & 0xFF) || (e->vm->observe & VM_OBSERVE_BREAK);
}

static void init(struct emu *e, struct vm *vm)
{
    e->vm = vm;
    e->c = vm->cpu;
    e->attn = e->stop = e->segs = e->keep_rf = e->no_trap = e->mid_rep = false;
    e->new_shadow = e->implicit = 0;
    e->db_bits = e->watched = 0;
    e->result = EMU_OK;
    e->ext = 0;
    e->snap_on = e->fpu_hidden = e->breakpoint = false;
    e->count = 0;
    e->esp0 = vm->cpu->gpr[CPU_ESP];
    emu_refresh(e);
}

static void finish(struct emu *e)
{
    if (e->segs)
        vm_segments_changed(e->vm);
}

void emu_snap(struct emu *e)
{
    const struct cpu *c = e->c;
    struct emu_snapshot *s = &e->snap;
    memcpy(s->gpr, c->gpr, sizeof(s->gpr));
    memcpy(s->pdpte, c->pdpte, sizeof(s->pdpte));
    memcpy(s->seg, c->seg, sizeof(s->seg));
    s->eip = c->eip;
    s->arith = c->arith;
    s->vif = c->vif;
    s->eflags_sys = c->eflags_sys;
    s->cpl = c->cpl;
    s->cr0 = c->cr0;
    s->cr3 = c->cr3;
    s->shadow = c->shadow;
    s->ldtr = c->ldtr;
    s->tr = c->tr;
    e->snap_on = true;
}

static void restore(struct emu *e)
{
    struct cpu *c = e->c;
    const struct emu_snapshot *s = &e->snap;
    memcpy(c->gpr, s->gpr, sizeof(s->gpr));
    memcpy(c->pdpte, s->pdpte, sizeof(s->pdpte));
    memcpy(c->seg, s->seg, sizeof(s->seg));
    c->eip = s->eip;
    c->arith = s->arith;
    c->vif = s->vif;
    c->eflags_sys = s->eflags_sys;
    c->cpl = s->cpl;
    c->cr0 = s->cr0;
    c->cr3 = s->cr3;
    c->shadow = s->shadow;
    c->ldtr = s->ldtr;
    c->tr = s->tr;
    e->snap_on = false;
    emu_refresh(e);
}

/* -- Fetch and decode -------------------------------------------------------------------------------- */

static const uint8_t base16[8] = {CPU_EBX, CPU_EBX, CPU_EBP, CPU_EBP, CPU_ESI, CPU_EDI, CPU_EBP, CPU_EBX};
static const uint8_t index16[8] = {CPU_ESI, CPU_EDI, CPU_ESI, CPU_EDI, 8, 8, 8, 8};

/* The base register, 8 for none. */
static unsigned base_of(const struct scan_insn *i)
{
    unsigned mod = scan_modrm_mod(i), rm = scan_modrm_rm(i);
    if (!scan_has_mem(i))
        return 8;
    if (i->adsize == 2)
        return mod == 0 && rm == 6 ? 8 : base16[rm];
    if (i->has_sib)
        return (i->sib & 7) == 5 && mod == 0 ? 8 : i->sib & 7;
    return mod == 0 && rm == 5 ? 8 : rm;
}

unsigned emu_default_seg(const struct scan_insn *i)
{
    unsigned base = base_of(i);
    return base == CPU_EBP || base == CPU_ESP ? SCAN_SS : SCAN_DS;
}

static void address_form(struct dinsn *d)
{
    const struct scan_insn *i = &d->i;
    unsigned mod = scan_modrm_mod(i), rm = scan_modrm_rm(i);
    d->base = (uint8_t)base_of(i);
    d->index = 8;
    d->scale = 0;
    d->amask = i->adsize == 4 ? 0xFFFFFFFFu : 0xFFFFu;
    if (d->mem && i->adsize == 2) {
        d->index = mod == 0 && rm == 6 ? 8 : index16[rm];
    } else if (d->mem && i->has_sib) {
        unsigned index = i->sib >> 3 & 7;
        d->index = (uint8_t)(index == 4 ? 8 : index);
        d->scale = i->sib >> 6;
    }
    d->seg = i->seg == SCAN_SEG_NONE ? (uint8_t)emu_default_seg(i) : i->seg;
}

static void complete(struct dinsn *d, const uint8_t bytes[16], enum scan_decode_status s)
{
    const struct scan_insn *i = &d->i;
    uint8_t mask[16] = {0};
    memcpy(d->raw, bytes, 16);
    for (unsigned n = 0; n < i->len && n < 16; n++)
        mask[n] = 0xFF;
    memcpy(d->mask, mask, 16);
    d->raw[0] &= d->mask[0];
    d->raw[1] &= d->mask[1];
    d->mem = scan_has_mem(i);
    d->fpu = i->cls == SCAN_CLASS_FPU || i->cls == SCAN_CLASS_FPU_ENV || i->cls == SCAN_CLASS_SIMD ||
             i->cls == SCAN_CLASS_FXSAVE;
    d->reg = (uint8_t)scan_modrm_reg(i);
    d->rm = (uint8_t)scan_modrm_rm(i);
    address_form(d);
    d->fn = s == SCAN_OK ? emu_pick(i) : emu_op_ud;
    d->mov = 0;
    if (s == SCAN_OK && i->cls == SCAN_CLASS_PLAIN && i->map == SCAN_MAP_1B && d->mem && !(i->prefixes & SCAN_PFX_LOCK) &&
        ((i->opcode >= 0x88 && i->opcode <= 0x8B) || ((i->opcode & 0xFE) == 0xC6 && d->reg == 0))) {
        d->mov = i->opcode & 1 ? i->opsize : 1;
        d->store = !(i->opcode & 2) || i->opcode >= 0xC0;
    }
}

static uint8_t fetch_byte(struct emu *e, uint32_t lin)
{
    uint64_t page;
    const uint8_t *p = emu_tlb_fill(e, lin, MMU_EXEC | (e->user ? MMU_USER : 0), &page);
    if (p)
        return p[lin & PAGE_MASK_];
    return (uint8_t)dev_mmio_read(e->vm->bus, page + (lin & PAGE_MASK_), 1);
}

/* Bytes one by one, so that the second page and the bytes beyond CS's limit are touched only if the
 * instruction reaches there. */
static const struct dinsn *fetch_slow(struct emu *e)
{
    const struct cpu_seg *cs = &e->c->seg[SCAN_CS];
    struct dinsn *d = &e->slow;
    uint8_t bytes[16] = {0};
    uint32_t eip = e->c->eip;
    for (unsigned n = 0; n < SCAN_INSN_MAX_LEN;) {
        if (eip + n > cs->limit || (n && eip + n == 0 && !e->flat_cs))
            emu_gp0(e);
        bytes[n] = fetch_byte(e, cs->base + eip + n);
        n++;
        enum scan_decode_status s = scan_decode(bytes, n, e->code32 ? 32 : 16, &d->i);
        if (s == SCAN_TRUNCATED)
            continue;
        if (s == SCAN_TOO_LONG)
            emu_gp0(e);
        complete(d, bytes, s);
        return d;
    }
    emu_gp0(e);
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static const struct dinsn *decode_miss(struct emu *e, struct dinsn *d, const uint8_t *p, uint64_t key)
{
    d->key = KEY_INVALID;
    enum scan_decode_status s = scan_decode(p, 16, e->code32 ? 32 : 16, &d->i);
    if (s == SCAN_TOO_LONG || s == SCAN_TRUNCATED)
        emu_gp0(e); /* SDM vol. 3, 6.15, #GP: longer than 15 bytes */
    complete(d, p, s);
    d->key = key;
    return d;
}

static inline struct dinsn *cache_slot(uint64_t key)
{
    return &cache[(key >> 1 ^ key >> 14) & (CACHE_SIZE - 1)];
}

static inline bool holds(const struct dinsn *d, uint64_t key, const uint8_t *p)
{
    return d->key == key &&
           !(((load64(p) ^ d->raw[0]) & d->mask[0]) | ((load64(p + 8) ^ d->raw[1]) & d->mask[1])) && d->fn;
}

static inline const struct dinsn *fetch(struct emu *e)
{
    struct cpu *c = e->c;
    uint32_t lin = c->seg[SCAN_CS].base + c->eip;
    const struct tlb_entry *t = &e->vm->tlb[e->user][lin >> 12 & (TLB_SIZE - 1)];
    if (unlikely(t->exec_tag != ((lin & ~PAGE_MASK_) | 1))) {
        uint64_t page;
        if (c->eip > c->seg[SCAN_CS].limit)
            emu_gp0(e);
        if (!emu_tlb_fill(e, lin, MMU_EXEC | (e->user ? MMU_USER : 0), &page))
            return fetch_slow(e);
    }
    /* Near a page's or the segment's end, byte by byte. */
    if (unlikely((lin & PAGE_MASK_) > PAGE_SIZE_ - 16) ||
        (unlikely(!e->flat_cs) && (uint64_t)c->eip + 15 > c->seg[SCAN_CS].limit))
        return fetch_slow(e);
    const uint8_t *p = t->hva + (lin & PAGE_MASK_);
    uint64_t key = (uint64_t)(p - e->vm->ram) << 1 | e->code32;
    struct dinsn *d = cache_slot(key);
    return likely(holds(d, key, p)) ? d : decode_miss(e, d, p, key);
}

/* -- A device's register --------------------------------------------------------------------------- */

/* The instruction at EIP (32-bit code, flat CS), if it has been decoded before. */
static const struct dinsn *decoded(const struct vm *vm)
{
    uint32_t lin = vm->cpu->eip;
    const struct tlb_entry *t = &vm->tlb[vm->cpu->cpl == 3][lin >> 12 & (TLB_SIZE - 1)];
    if (t->exec_tag != ((lin & ~PAGE_MASK_) | 1) || (lin & PAGE_MASK_) > PAGE_SIZE_ - 16)
        return NULL;
    const uint8_t *p = t->hva + (lin & PAGE_MASK_);
    uint64_t key = (uint64_t)(p - vm->ram) << 1 | 1;
    const struct dinsn *d = cache_slot(key);
    return holds(d, key, p) ? d : NULL;
}

bool quick_mmio(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    const struct dinsn *d = vm->observe || (c->eflags_sys & CPU_RF) ? NULL : decoded(vm);
    if (!d || !d->mov || d->seg == SCAN_CS || d->seg == SCAN_FS || d->seg == SCAN_GS)
        return false;
    unsigned size = d->mov, access = (c->cpl == 3 ? MMU_USER : 0) | (d->store ? MMU_WRITE : 0);
    uint32_t lin = dinsn_ea(c, d), off = lin & PAGE_MASK_;
    struct mmu_page page;
    struct mmu_fault f;
    if (off + size > PAGE_SIZE_ || !mmu_walk(vm, gva(lin), access, &page, &f) ||
        vm_frame(vm, page.page.v, d->store) != VM_NO_FRAME)
        return false;
    uint64_t at = page.page.v + off;
    if (d->store) {
        uint32_t v = d->i.opcode >= 0xC0 ? (uint32_t)d->i.imm : reg_get(c, d->reg, size);
        emu_mmio_write(vm, at, size, v & 0xFFFFFFFFu >> (32 - 8 * size));
    } else {
        reg_set(c, d->reg, size, emu_mmio_read(vm, at, size));
    }
    c->eip += d->i.len;
    return true;
}

/* -- Delivery ---------------------------------------------------------------------------------------- */

enum fault_class { BENIGN, CONTRIBUTORY, PAGE };

static enum fault_class class_of(unsigned vector, bool exception)
{
    if (!exception)
        return BENIGN;
    switch (vector) { /* SDM vol. 3, table 6-4 */
    case CPU_EXC_DE:
    case CPU_EXC_TS:
    case CPU_EXC_NP:
    case CPU_EXC_SS:
    case CPU_EXC_GP:
        return CONTRIBUTORY;
    case CPU_EXC_PF:
        return PAGE;
    default:
        return BENIGN;
    }
}

static void deliver_once(struct emu *e, unsigned vector, enum emu_int_kind kind, bool has_error,
                         uint32_t error)
{
    e->esp0 = e->c->gpr[CPU_ESP];
    emu_snap(e);
    e->next = e->c->eip;
    e->ext = 1;
    if (vector == CPU_EXC_DB && kind != EMU_INT_EXTERNAL)
        e->c->dr[7] &= ~DR7_GD; /* so that the handler may use the registers (SDM vol. 3, 17.2.4) */
    emu_int(e, vector, kind, has_error, error, e->c->eip);
    e->snap_on = false;
    e->ext = 0;
    e->c->eip = e->next;
}

struct event {
    unsigned vector;
    enum emu_int_kind kind;
    bool has_error;
    uint32_t error;
};

static bool try_deliver(struct emu *e, const struct event *ev)
{
    e->snap_on = false;
    if (__builtin_setjmp(e->jb))
        return false;
    deliver_once(e, ev->vector, ev->kind, ev->has_error, ev->error);
    return true;
}

/* The pending bits of a data breakpoint hit by MOV SS or POP SS wait in the shadow word for the instruction
 * after it. */
#define SHADOW_DB(shadow) ((shadow) >> 8 & 15)

/* What debug exceptions leave in DR6 (SDM vol. 3, 17.2.3): bits 0 to 3 anew, the others stay until software
 * clears them. */
static void note_debug(struct emu *e)
{
    struct cpu *c = e->c;
    c->dr[6] = (c->dr[6] & ~15u) | e->db_bits;
    e->db_bits = 0;
}

/* An instruction, or a delivery, that touched watched memory is complete. */
static void report_watched(struct emu *e)
{
    if (!e->watched)
        return;
    vm_watch_hit(e->vm, e->watched, e->watched_at);
    e->watched = 0;
}

/* Delivers, and what comes up while delivering, until something arrives or nothing is left (SDM vol. 3, table
 * 6-5). */
static enum emu_result deliver(struct emu *e, unsigned vector, enum emu_int_kind kind, bool has_error,
                               uint32_t error)
{
    report_watched(e);
    struct event ev = {vector, kind, has_error, error};
    struct vm_place from = vm_place(e->c);
    /* What MOV SS held back comes after the transfer, if the next instruction makes one (vol. 3, 6.8.3). */
    e->db_bits |= SHADOW_DB(e->c->shadow);
    e->segs = true;
    e->c->halted = 0;
    if (kind == EMU_INT_EXCEPTION || kind == EMU_INT_TRAP)
        vm_exception(e->vm, vector, has_error, error);
    for (;;) {
        if (try_deliver(e, &ev)) {
            report_watched(e);
            if (unlikely(e->flow))
                vm_transfer(e->vm, TRACE_ENTER, from, ev.vector);
            if (!e->db_bits)
                break;
            from = vm_place(e->c);
            /* The T bit of a task entered, or a data breakpoint on the stack used: reported in front of the
             * handler (SDM vol. 3, 17.3.1.2 and 17.3.1.5). */
            note_debug(e);
            ev = (struct event){CPU_EXC_DB, EMU_INT_TRAP, false, 0};
            vm_exception(e->vm, ev.vector, ev.has_error, ev.error);
            continue;
        }
        bool exception = ev.kind == EMU_INT_EXCEPTION || ev.kind == EMU_INT_TRAP;
        e->ext = 0;
        if (e->snap_on)
            restore(e);
        if (exception && ev.vector == CPU_EXC_DF)
            return EMU_SHUTDOWN;
        enum fault_class first = class_of(ev.vector, exception), second = class_of(e->vector, true);
        if ((first == CONTRIBUTORY && second == CONTRIBUTORY) || (first == PAGE && second != BENIGN))
            ev = (struct event){CPU_EXC_DF, EMU_INT_EXCEPTION, true, 0};
        else
            ev = (struct event){e->vector, EMU_INT_EXCEPTION, e->has_error, e->error};
        vm_exception(e->vm, ev.vector, ev.has_error, ev.error);
    }
    e->c->shadow = 0;
    emu_refresh(e);
    return EMU_OK;
}

static bool is_trap(unsigned vector)
{
    return vector == CPU_EXC_BP || vector == CPU_EXC_OF;
}

static enum emu_result outside(struct vm *vm, unsigned vector, enum emu_int_kind kind, bool has_error,
                               uint32_t error)
{
    struct emu e;
    init(&e, vm);
    enum emu_result r = deliver(&e, vector, kind, has_error, error);
    finish(&e);
    return r;
}

enum emu_result emu_exception(struct vm *vm, unsigned vector, bool has_error, uint32_t error)
{
    return outside(vm, vector, is_trap(vector) ? EMU_INT_TRAP : EMU_INT_EXCEPTION, has_error, error);
}

enum emu_result emu_page_fault(struct vm *vm, const struct mmu_fault *f)
{
    vm->cpu->cr2 = f->addr.v;
    mmu_flush_tlb_page(vm, f->addr);
    return outside(vm, CPU_EXC_PF, EMU_INT_EXCEPTION, true, f->error_code);
}

enum emu_result emu_interrupt(struct vm *vm, unsigned vector)
{
    vm->cpu->halted = 0;
    if (vector == CPU_EXC_NMI)
        vm->cpu->nmi_blocked = 1;
    return outside(vm, vector, EMU_INT_EXTERNAL, false, 0);
}

bool emu_load_segment(struct vm *vm, unsigned seg, uint16_t sel, unsigned *vector, uint32_t *error)
{
    struct emu e;
    init(&e, vm);
    e.segs = true;
    if (__builtin_setjmp(e.jb)) {
        *vector = e.vector;
        *error = e.error;
        return false;
    }
    emu_load_sreg(&e, seg, sel);
    finish(&e);
    return true;
}

bool emu_load_control(struct vm *vm, unsigned n, uint32_t v, unsigned *vector, uint32_t *error)
{
    struct emu e;
    init(&e, vm);
    if (__builtin_setjmp(e.jb)) {
        *vector = e.vector;
        *error = e.error;
        return false;
    }
    emu_set_cr(&e, n, v);
    finish(&e);
    return true;
}

/* -- The loop ---------------------------------------------------------------------------------------- */

/* Instruction breakpoints (SDM vol. 3, 17.3.1.1): before the instruction, unless RF. Faults, but the image of
 * EFLAGS has RF as it was: the handler is to set it. */
static void check_breakpoints(struct emu *e)
{
    struct cpu *c = e->c;
    uint32_t lin = c->seg[SCAN_CS].base + c->eip, hit = 0;
    for (unsigned i = 0; i < 4; i++)
        if ((c->dr[7] >> 2 * i & 3) && !(c->dr[7] >> (16 + 4 * i) & 3) && c->dr[i] == lin)
            hit |= 1u << i;
    if (hit && !(c->eflags_sys & CPU_RF) && !(c->shadow & CPU_SHADOW_MOVSS)) {
        e->db_bits = hit;
        note_debug(e);
        e->breakpoint = true;
        emu_raise(e, CPU_EXC_DB, false, 0);
    }
}

/* After an instruction: interrupt shadows, RF, data breakpoints, single step. True: a trap is to be
 * delivered. */
static bool after(struct emu *e, uint32_t flags_before)
{
    struct cpu *c = e->c;
    e->db_bits |= SHADOW_DB(c->shadow);
    if (c->shadow || e->new_shadow) {
        c->shadow = e->new_shadow;
        if (!c->shadow)
            e->stop = true;
    }
    if (!e->keep_rf)
        c->eflags_sys &= ~(uint32_t)CPU_RF;
    else if (e->mid_rep) /* between two elements of a repeat (SDM vol. 3, 17.3.1.1) */
        c->eflags_sys |= CPU_RF;
    if (c->shadow &
        CPU_SHADOW_MOVSS) /* SDM vol. 3, 6.8.3: data breakpoints are held back, the single step is lost */
        c->shadow |= (e->db_bits & 15) << 8, e->db_bits = 0;
    else if ((flags_before & CPU_TF) && !e->no_trap)
        e->db_bits |= 1u << 14;
    bool trap = e->db_bits != 0;
    if (trap)
        note_debug(e);
    e->attn = e->keep_rf = e->no_trap = e->mid_rep = false;
    e->new_shadow = e->implicit = 0;
    return trap;
}

static enum trace_kind far_kind(const struct scan_insn *i)
{
    if (i->map == SCAN_MAP_0F)
        return i->opcode == 0x34 ? TRACE_SYSENTER : TRACE_SYSEXIT;
    switch (i->opcode) {
    case 0x9A:
        return TRACE_FAR_CALL;
    case 0xEA:
        return TRACE_FAR_JUMP;
    case 0xCA:
    case 0xCB:
        return TRACE_FAR_RET;
    case 0xCF:
        return TRACE_IRET;
    case 0xFF:
        return scan_modrm_reg(i) == 3 ? TRACE_FAR_CALL : TRACE_FAR_JUMP;
    default:
        return TRACE_INT;
    }
}

/* The instruction just done, if control did not simply go on behind it. */
static void report_transfer(struct emu *e, const struct scan_insn *i)
{
    static const uint8_t near_kind[] = {[SCAN_FLOW_JCC] = TRACE_JUMP,   [SCAN_FLOW_JMP] = TRACE_JUMP,
                                        [SCAN_FLOW_CALL] = TRACE_CALL,  [SCAN_FLOW_IJMP] = TRACE_JUMP,
                                        [SCAN_FLOW_ICALL] = TRACE_CALL, [SCAN_FLOW_RET] = TRACE_RET};
    bool on = e->c->eip == e->from.eip + i->len, may_go_on = i->flow == SCAN_FLOW_JCC || i->opcode == 0xCE;
    if (i->flow == SCAN_FLOW_NEXT || i->flow == SCAN_FLOW_STOP || (on && may_go_on))
        return;
    vm_transfer(e->vm, i->flow == SCAN_FLOW_FAR ? far_kind(i) : (enum trace_kind)near_kind[i->flow], e->from, 0);
}

/* Out of the way of ordinary instructions, which test one bool. True: the run ends in front of this one. */
static bool before(struct emu *e)
{
    if (e->count && (e->vm->observe & VM_OBSERVE_BREAK) && vm_break_at(e->vm, e->c->seg[SCAN_CS].base + e->c->eip))
        return true;
    if (e->c->dr[7] & 0xFF)
        check_breakpoints(e);
    if (e->flow) {
        e->from = vm_place(e->c);
        e->attn = true;
    }
    return false;
}

static enum emu_result loop(struct emu *e, unsigned n, volatile int *stop)
{
    struct cpu *c = e->c;
    if (__builtin_setjmp(e->jb)) {
        if (e->fpu_hidden)
            emu_fpu_unhide(e);
        if (e->snap_on)
            restore(e);
        else
            c->gpr[CPU_ESP] = e->esp0;
        e->count++;
        emu_refresh(e);
        e->db_bits = e->watched = 0; /* of accesses that come again */
        if (e->vector == EMU_FROZEN) { /* SDM vol. 1, D.2.1: in front of the instruction, until an interrupt */
            c->halted = 1;
            c->shadow = 0;
            return EMU_HALT;
        }
        return deliver(e, e->vector,
                       is_trap(e->vector) || e->breakpoint ? EMU_INT_TRAP : EMU_INT_EXCEPTION, e->has_error,
                       e->error);
    }
    for (;;) {
        e->esp0 = c->gpr[CPU_ESP];
        if (unlikely(e->before) && before(e))
            break;
        const struct dinsn *d = fetch(e);
        uint32_t flags = c->eflags_sys;
        e->next = c->eip + d->i.len;
        if (unlikely(d->fpu))
            cpu_fx_save(c);
        d->fn(e, d);
        c->eip = e->next;
        e->snap_on = false;
        e->count++;
        if (unlikely(e->attn || c->shadow || (flags & (CPU_TF | CPU_RF)))) {
            if (e->flow)
                report_transfer(e, &d->i);
            report_watched(e);
            if (after(e, flags))
                return deliver(e, CPU_EXC_DB, EMU_INT_TRAP, false, 0);
            if (e->stop)
                break;
        }
        if (e->count >= n || unlikely(c->irq_pending && c->vif) || unlikely(stop && *stop))
            break;
    }
    return e->result;
}

enum emu_result emu_run(struct vm *vm, unsigned n, volatile int *stop, unsigned *done)
{
    struct emu e;
    init(&e, vm);
    enum emu_result r = loop(&e, n, stop);
    finish(&e);
    *done = e.count;
    return r;
}

enum emu_result emu_step(struct vm *vm)
{
    unsigned done;
    return emu_run(vm, 1, NULL, &done);
}

/* -- Reset (SDM vol. 3, table 9-1) ------------------------------------------------------------------- */

/* What RESET and INIT have in common (SDM vol. 3, table 9-1). CD and NW of CR0 stay at INIT. */
void emu_init(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    memset(c->gpr, 0, sizeof(c->gpr));
    memset(c->dr, 0, sizeof(c->dr));
    memset(c->pdpte, 0, sizeof(c->pdpte));
    c->gpr[CPU_EDX] = 0x000106CA; /* the CPUID signature */
    c->eip = 0xFFF0;
    cpu_set_eflags(c, 0);
    for (unsigned i = 0; i < 6; i++)
        c->seg[i] = (struct cpu_seg){.limit = 0xFFFF, .attr = 0x93};
    c->seg[SCAN_CS] = (struct cpu_seg){.base = 0xFFFF0000u, .limit = 0xFFFF, .sel = 0xF000, .attr = 0x93};
    c->ldtr = (struct cpu_seg){.limit = 0xFFFF, .attr = 0x82};
    c->tr = (struct cpu_seg){.limit = 0xFFFF, .attr = 0x8B};
    c->gdtr = c->idtr = (struct cpu_table){.limit = 0xFFFF};
    c->cr0 = (c->cr0 & (CPU_CR0_CD | CPU_CR0_NW)) | CPU_CR0_ET;
    c->cr2 = c->cr3 = c->cr4 = 0;
    c->dr[6] = 0xFFFF0FF0u;
    c->dr[7] = 0x400;
    c->cpl = c->shadow = c->nmi_blocked = c->nmi_pending = c->halted = 0;
    c->efer = 0;
    mmu_flush_tlb(vm);
    vm_segments_changed(vm);
}

void emu_reset(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    c->cr0 = CPU_CR0_CD | CPU_CR0_NW;
    emu_init(vm);
    memset(c->fx, 0, sizeof(c->fx));
    c->x87 = (struct cpu_x87){0};
    c->ferr = c->host_fpu_ip = c->host_fpu_dp = 0;
    c->a20_mask = 0xFFFFFFFFu;
    c->apic_base = 0xFEE00900u; /* enabled; the bootstrap processor */
    c->pat = 0x0007040600070406ull;
    c->misc_enable = 1;
    c->bios_sign = 0;
    c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
    c->fx[0] = 0x40; /* FCW 0040h after RESET, tags: all registers hold zero */
    c->fx[4] = 0xFF;
    c->fx[24] = 0x80; /* MXCSR 1F80h */
    c->fx[25] = 0x1F;
    emu_fpu_prepare();
}
