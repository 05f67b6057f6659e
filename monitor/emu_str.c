/* monitor/emu_str.c: string instructions, with and without repeat, and their port forms.
 *
 * A repeat ends after BURST elements with EIP still on it, so that interrupts are not held off. Registers are
 * updated after every element, so a fault in the middle restarts where it happened. Runs inside one page of
 * plain RAM are done at once; a forward copy onto itself replicates as element-by-element copying does.
 */
#include "monitor/emu_internal.h"

#define BURST 4096u

struct run {
    unsigned size;
    unsigned src; /* segment of the source */
    int32_t step;
    uint32_t mask;
    uint32_t count; /* elements to do now */
    bool rep;
};

static struct run begin(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct run r = {.size = d->i.opcode & 1 ? d->i.opsize : 1};
    r.src = d->i.seg == SCAN_SEG_NONE ? SCAN_DS : d->i.seg;
    r.step = c->arith & CPU_DF ? -(int32_t)r.size : (int32_t)r.size;
    r.mask = d->amask;
    r.rep = d->i.prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE);
    r.count = r.rep ? c->gpr[CPU_ECX] & r.mask : 1;
    /* Single-stepping and data breakpoints see every element (SDM vol. 3, 17.3.1.4). */
    uint32_t most = (c->eflags_sys & CPU_TF) || e->bp_data || e->bp_port || (e->vm->observe & VM_OBSERVE_ONE) ? 1 : BURST;
    if (r.count > most)
        r.count = most;
    return r;
}

static void put(struct cpu *c, unsigned r, uint32_t mask, uint32_t v)
{
    c->gpr[r] = (c->gpr[r] & ~mask) | (v & mask);
}

/* n elements are done. */
static void advance(struct emu *e, const struct run *r, bool si, bool di, uint32_t n)
{
    struct cpu *c = e->c;
    if (si)
        put(c, CPU_ESI, r->mask, c->gpr[CPU_ESI] + n * (uint32_t)r->step);
    if (di)
        put(c, CPU_EDI, r->mask, c->gpr[CPU_EDI] + n * (uint32_t)r->step);
    if (r->rep)
        put(c, CPU_ECX, r->mask, c->gpr[CPU_ECX] - n);
}

/* The instruction goes on at the next step if elements are left. */
static void end(struct emu *e, const struct run *r)
{
    if (r->rep && (e->c->gpr[CPU_ECX] & r->mask)) {
        e->next = e->c->eip;
        e->keep_rf = e->mid_rep = true;
        e->attn = true;
        e->new_shadow = 0;
    }
}

/* How many elements from off on lie in one page of RAM reachable without checks, moving upwards; *p is where.
 */
static uint32_t bulk(struct emu *e, const struct run *r, unsigned seg, uint32_t off, bool write,
                     uint32_t most, uint8_t **p)
{
    uint32_t lin = e->c->seg[seg].base + off, room = (PAGE_SIZE_ - (lin & PAGE_MASK_)) / r->size;
    if (r->step < 0 || r->mask != 0xFFFFFFFFu || e->align || !((write ? e->seg_wr : e->seg_rd) >> seg & 1))
        return 0;
    *p = write ? tlb_write(e, lin, 1) : tlb_read(e, lin, 1);
    return !*p ? 0 : room < most ? room : most;
}

/* REP MOVSB, not memmove(), which is the C library's and uses SSE registers (light.h). */
static void copy_forward(uint8_t *to, const uint8_t *from, uint32_t n, unsigned size)
{
    if (to <= from || to >= from + (size_t)n * size) {
        size_t bytes = (size_t)n * size;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        host_store(to + (size_t)i * size, size, host_load(from + (size_t)i * size, size));
}

static void op_movs(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct run r = begin(e, d);
    while (r.count) {
        uint8_t *to = NULL, *from = NULL;
        uint32_t si = c->gpr[CPU_ESI] & r.mask, di = c->gpr[CPU_EDI] & r.mask;
        uint32_t n = r.count > 1 ? bulk(e, &r, r.src, si, false, r.count, &from) : 0;
        n = n > 1 ? bulk(e, &r, SCAN_ES, di, true, n, &to) : 0;
        if (n > 1) {
            copy_forward(to, from, n, r.size);
        } else {
            uint32_t v = emu_ld(e, r.src, si, r.size);
            emu_st(e, SCAN_ES, di, r.size, v);
            n = 1;
        }
        advance(e, &r, true, true, n);
        r.count -= n;
        if (e->stop)
            break;
    }
    end(e, &r);
}

static void op_stos(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct run r = begin(e, d);
    uint32_t v = c->gpr[CPU_EAX];
    while (r.count) {
        uint8_t *to = NULL;
        uint32_t di = c->gpr[CPU_EDI] & r.mask;
        uint32_t n = r.count > 1 ? bulk(e, &r, SCAN_ES, di, true, r.count, &to) : 0;
        if (n > 1) {
            if (r.size == 1 || v == (v & 0xFF) * 0x01010101u)
                memset(to, (int)(v & 0xFF), (size_t)n * r.size);
            else
                for (uint32_t i = 0; i < n; i++)
                    host_store(to + (size_t)i * r.size, r.size, v);
        } else {
            emu_st(e, SCAN_ES, di, r.size, v);
            n = 1;
        }
        advance(e, &r, false, true, n);
        r.count -= n;
        if (e->stop)
            break;
    }
    end(e, &r);
}

static void op_lods(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct run r = begin(e, d);
    for (; r.count; r.count--) {
        reg_set(c, CPU_EAX, r.size, emu_ld(e, r.src, c->gpr[CPU_ESI] & r.mask, r.size));
        advance(e, &r, true, false, 1);
    }
    end(e, &r);
}

static void compare(struct cpu *c, unsigned size, uint32_t a, uint32_t b)
{
    uint32_t ax = 0;
    if (size == 4)
        __asm__("cmpl %[b],%[a]\n\tlahf\n\tseto %%al" : "+&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
    else if (size == 2)
        __asm__("cmpw %w[b],%w[a]\n\tlahf\n\tseto %%al" : "+&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
    else
        __asm__("cmpb %b[b],%b[a]\n\tlahf\n\tseto %%al" : "+&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
    c->arith = (c->arith & CPU_DF) | (ax >> 8 & 0xD5) | (ax & 1) << 11;
}

/* CMPS and SCAS; the repeat goes on while ZF is as the prefix says. */
static void op_compare(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct run r = begin(e, d);
    bool scas = d->i.opcode >= 0xAE, while_equal = d->i.prefixes & SCAN_PFX_REP;
    while (r.count) {
        uint32_t a = scas ? reg_get(c, CPU_EAX, r.size) : emu_ld(e, r.src, c->gpr[CPU_ESI] & r.mask, r.size);
        uint32_t b = emu_ld(e, SCAN_ES, c->gpr[CPU_EDI] & r.mask, r.size);
        compare(c, r.size, a, b);
        advance(e, &r, !scas, true, 1);
        r.count--;
        if (r.rep && !!(c->arith & CPU_ZF) != while_equal)
            return;
    }
    end(e, &r);
}

static void op_ins(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct run r = begin(e, d);
    uint16_t port = (uint16_t)c->gpr[CPU_EDX];
    if (r.count) /* a repeat of zero times does nothing at all */
        emu_io_check(e, port, r.size);
    for (; r.count; r.count--) {
        uint32_t di = c->gpr[CPU_EDI] & r.mask;
        emu_st_probe(e, SCAN_ES, di, r.size); /* nothing is taken from the port if the store would fault */
        uint8_t was = vm_doing(e->vm, RUN_DOING_DEVICES);
        uint32_t v = dev_port_read(e->vm->bus, port, r.size);
        vm_doing(e->vm, was);
        vm_port_access(e->vm, port, r.size, v, false);
        emu_st(e, SCAN_ES, di, r.size, v);
        advance(e, &r, false, true, 1);
    }
    end(e, &r);
    emu_stop(e);
}

static void op_outs(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    struct run r = begin(e, d);
    uint16_t port = (uint16_t)c->gpr[CPU_EDX];
    if (r.count)
        emu_io_check(e, port, r.size);
    for (; r.count; r.count--) {
        uint32_t v = emu_ld(e, r.src, c->gpr[CPU_ESI] & r.mask, r.size);
        vm_port_access(e->vm, port, r.size, v, true);
        uint8_t was = vm_doing(e->vm, RUN_DOING_DEVICES);
        dev_port_write(e->vm->bus, port, r.size, v);
        vm_doing(e->vm, was);
        advance(e, &r, true, false, 1);
    }
    end(e, &r);
    emu_stop(e);
}

emu_fn *emu_pick_string(const struct scan_insn *i)
{
    switch (i->opcode & 0xFE) {
    case 0xA4:
        return op_movs;
    case 0xA6:
    case 0xAE:
        return op_compare;
    case 0xAA:
        return op_stos;
    case 0xAC:
        return op_lods;
    case 0x6C:
        return op_ins;
    case 0x6E:
        return op_outs;
    default:
        return emu_op_ud;
    }
}
