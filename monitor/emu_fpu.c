/* monitor/emu_fpu.c: x87, MMX and SSE, executed by the host.
 *
 * The instruction is re-encoded with its memory operand at [rsi] and a general register operand in eax, put
 * into a thunk fxrstor64 [rdi]; load flags and eax; INSTRUCTION; store eax and flags; fxsave64 [rdi]; fninit;
 * ldmxcsr; ret and called on the guest's state. Thunks live in a memfd mapped twice (written through one
 * view, executed through the other) and are found by the re-encoded bytes. Memory operands go through a
 * buffer; the guest's rights are checked before anything executes.
 *
 * Exceptions: x87 ones stay pending in FSW.ES as on hardware (no host trap: the thunk ends with FNINIT, which
 * does not wait) and are checked before each waiting instruction. SIMD ones that the guest leaves unmasked trap on the
 * host too, whose flags are then the guest's: which of them are set depends on the processor in ways that a masked run does not
 * show (an underflow that is exact, an overflow that would be). emu_fpu_trap() goes on behind the instruction. Where nobody
 * catches the signal (emu_fpu_catch()), they are masked and the flags looked at afterwards, which is right but for those.
 *
 * The last instruction and data pointers are cpu->x87. What translated code runs shows in the host's own
 * pointers; they are mapped back when somebody asks (emu_x87_settle()).
 */
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/emu_internal.h"

/* -- Thunks ------------------------------------------------------------------------------------------ */

#define SLOT_SIZE  96u
#define SLOT_COUNT 2048u
#define INSN_AT    17u /* in a slot: behind what loads the state */

struct call {
    uint8_t fx[512] __attribute__((aligned(64)));
    uint64_t eax, flags; /* at 512 and 520 */
    uint32_t host_mxcsr; /* at 528 */
};
typedef void thunk_fn(struct call *c, void *mem);

struct thunks {
    uint8_t *rw, *rx;
    uint64_t key[SLOT_COUNT];
    uint8_t insn_len[SLOT_COUNT];
    bool caught;           /* somebody takes the signal of an unmasked SIMD exception to emu_fpu_trap() */
    volatile bool trapped; /* it came */
};
static _Thread_local struct thunks thunks;

static bool thunks_ready(void)
{
    struct thunks *t = &thunks;
    size_t size = SLOT_SIZE * SLOT_COUNT;
    if (t->rx)
        return true;
    int fd = memfd_create("verso-fpu", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    if (ftruncate(fd, (off_t)size) == 0) {
        void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        void *rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
        if (rw != MAP_FAILED && rx != MAP_FAILED) {
            t->rw = rw;
            t->rx = rx;
        }
    }
    close(fd);
    return t->rx;
}

/* Called at reset: no system call may be needed once the guest runs. */
void emu_fpu_prepare(void)
{
    (void)thunks_ready();
}

void emu_fpu_catch(bool caught)
{
    thunks.caught = caught;
}

bool emu_fpu_trap(uint64_t rip, uint64_t *next)
{
    struct thunks *t = &thunks;
    uint64_t off = rip - (uint64_t)(uintptr_t)t->rx;
    if (!t->rx || off >= SLOT_SIZE * SLOT_COUNT || off % SLOT_SIZE != INSN_AT)
        return false;
    t->trapped = true;
    *next = rip + t->insn_len[off / SLOT_SIZE];
    return true;
}

static uint8_t *emit(uint8_t *p, const void *bytes, unsigned n)
{
    memcpy(p, bytes, n);
    return p + n;
}
#define EMIT(p, ...) emit(p, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void write_thunk(uint8_t *p, const uint8_t *insn, unsigned len)
{
    p = EMIT(p, 0x48, 0x0F, 0xAE, 0x0F);             /* fxrstor64 [rdi] */
    p = EMIT(p, 0xFF, 0xB7, 0x08, 0x02, 0x00, 0x00); /* push qword [rdi+520] */
    p = EMIT(p, 0x9D);                               /* popfq */
    p = EMIT(p, 0x8B, 0x87, 0x00, 0x02, 0x00, 0x00); /* mov eax, [rdi+512] */
    p = emit(p, insn, len);
    p = EMIT(p, 0x89, 0x87, 0x00, 0x02, 0x00, 0x00); /* mov [rdi+512], eax */
    p = EMIT(p, 0x9C);                               /* pushfq */
    p = EMIT(p, 0x8F, 0x87, 0x08, 0x02, 0x00, 0x00); /* pop qword [rdi+520] */
    p = EMIT(p, 0x48, 0x0F, 0xAE, 0x07);             /* fxsave64 [rdi] */
    p = EMIT(p, 0xDB, 0xE3);                         /* fninit */
    p = EMIT(p, 0x0F, 0xAE, 0x97, 0x10, 0x02, 0, 0); /* ldmxcsr [rdi+528] */
    EMIT(p, 0xC3);
}

static thunk_fn *thunk_for(const uint8_t *insn, unsigned len)
{
    struct thunks *t = &thunks;
    uint64_t key = 0;
    if (!thunks_ready())
        return NULL;
    memcpy(&key, insn, len); /* len <= 7; the top byte holds it, so no key is zero */
    key |= (uint64_t)len << 56;
    unsigned slot = (unsigned)((key * 0x9E3779B97F4A7C15ull) >> 32) % SLOT_COUNT;
    if (t->key[slot] != key) {
        write_thunk(t->rw + slot * SLOT_SIZE, insn, len);
        t->key[slot] = key;
        t->insn_len[slot] = (uint8_t)len;
    }
    return (thunk_fn *)(void *)(t->rx + slot * SLOT_SIZE);
}

/* -- The image (SDM vol. 1, table 10-2, 64-bit form) ------------------------------------------------- */

enum {
    FX_FCW = 0,
    FX_FSW = 2,
    FX_FTW = 4,
    FX_FOP = 6,
    FX_FIP = 8,
    FX_FDP = 16,
    FX_MXCSR = 24,
    FX_ST = 32,
    FX_XMM = 160,
};
#define FSW_ES      0x80u
#define FSW_B       0x8000u
#define MXCSR_VALID 0xFFFFu
#define MX_FLAGS    0x3Fu
#define MX_PRE      7u /* invalid, denormal, divide by zero: found before the computation */

static uint16_t fx16(const struct cpu *c, unsigned off)
{
    return (uint16_t)host_load(c->fx + off, 2);
}
static uint32_t fx32(const struct cpu *c, unsigned off)
{
    return host_load(c->fx + off, 4);
}
static void fx_put(struct cpu *c, unsigned off, unsigned size, uint32_t v)
{
    host_store(c->fx + off, size, v);
}

void emu_x87_settle(struct vm *vm)
{
    struct cpu *c = vm->cpu;
    struct vm_x87_origin o;
    uint32_t ip = c->host_fpu_ip, dp = c->host_fpu_dp;
    if (!ip)
        return;
    c->host_fpu_ip = c->host_fpu_dp = 0;
    if (!vm_x87_origin(vm, ip, &o))
        return;
    const struct cpu_fpu_segments *s = &c->host_fpu_seg[o.user];
    c->x87.ip = o.eip;
    c->x87.op = o.opcode;
    c->x87.cs = (uint16_t)s->sel[SCAN_CS];
    if (!dp)
        return;
    /* Windows begin at multiples of 4 GiB: the low half is the linear address. An operand that was not the last
     * instruction's is taken to be in DS. */
    unsigned seg = o.seg == SCAN_SEG_NONE ? SCAN_DS : o.seg;
    c->x87.dp = dp - (seg >= SCAN_FS ? s->base[seg - SCAN_FS] : 0);
    c->x87.ds = (uint16_t)s->sel[seg];
}

static struct cpu_x87 get_pointers(struct emu *e)
{
    if (e->vm->x87_blind)
        return (struct cpu_x87){0};
    emu_x87_settle(e->vm);
    return e->c->x87;
}

static void set_pointers(struct emu *e, struct cpu_x87 p)
{
    emu_x87_settle(e->vm);
    p.op &= 0x7FF;
    e->c->x87 = p;
}

/* The registers stay where they are when TOP changes; the image has them in the order of the stack. */
static void set_top(struct cpu *c, unsigned top)
{
    unsigned fsw = fx16(c, FX_FSW), old = fsw >> 11 & 7;
    uint8_t st[128];
    for (unsigned i = 0; i < 8; i++)
        memcpy(st + 16 * i, c->fx + FX_ST + 16 * ((i + top - old) & 7), 16);
    memcpy(c->fx + FX_ST, st, sizeof(st));
    fx_put(c, FX_FSW, 2, (fsw & ~0x3800u) | top << 11);
}

/* ES and B follow from flags and masks (SDM vol. 1, 8.1.3.3). */
static void update_es(struct cpu *c)
{
    uint16_t fsw = fx16(c, FX_FSW) & 0x7F7F;
    if (fsw & ~fx16(c, FX_FCW) & 0x3F)
        fsw |= FSW_ES | FSW_B;
    fx_put(c, FX_FSW, 2, fsw);
}

/* -- What is due before an instruction --------------------------------------------------------------- */

/* In front of a waiting instruction: a pending error is #MF, or with CR0.NE clear FERR#, from which the board
 * makes IRQ 13. The processor then waits for an interrupt, unless IGNNE# says that the error is being dealt
 * with (SDM vol. 1, 8.7 and D.2.1). */
static void wait_error(struct emu *e)
{
    struct cpu *c = e->c;
    if (!(fx16(c, FX_FSW) & FSW_ES))
        return;
    if (c->cr0 & CPU_CR0_NE)
        emu_raise(e, CPU_EXC_MF, false, 0);
    c->ferr = 1;
    dev_ferr(e->vm->bus, true);
    if (!dev_ignne(e->vm->bus))
        emu_raise(e, EMU_FROZEN, false, 0);
}

/* After an instruction that may have cleared the error. While FERR# is asserted nothing of the x87 is run by
 * translated code, so that this is not missed. */
static void drop_ferr(struct emu *e)
{
    struct cpu *c = e->c;
    if (likely(!c->ferr) || (fx16(c, FX_FSW) & FSW_ES))
        return;
    c->ferr = 0;
    dev_ferr(e->vm->bus, false);
    emu_stop(e);
}

static void need_x87(struct emu *e, bool waits)
{
    if (e->c->cr0 & (CPU_CR0_EM | CPU_CR0_TS))
        emu_raise(e, CPU_EXC_NM, false, 0);
    if (waits)
        wait_error(e);
}

static void need_simd(struct emu *e, bool xmm, bool mmx)
{
    const struct cpu *c = e->c;
    if ((c->cr0 & CPU_CR0_EM) || (xmm && !(c->cr4 & CPU_CR4_OSFXSR)))
        emu_ud(e);
    if (c->cr0 & CPU_CR0_TS)
        emu_raise(e, CPU_EXC_NM, false, 0);
    if (mmx)
        wait_error(e);
}

/* -- Execution --------------------------------------------------------------------------------------- */

struct operand {
    uint8_t size; /* of the memory operand, 0 if none */
    bool store;
    bool aligned; /* 16-byte rule */
    uint8_t gpr;  /* 1: ModRM.rm names a general register, 2: ModRM.reg does */
    bool gpr_out; /* it is written */
};

static unsigned encode(const struct dinsn *d, const struct operand *o, uint8_t *out)
{
    const uint8_t *raw = (const uint8_t *)d->raw;
    unsigned n = 0;
    uint8_t modrm = d->mem ? (uint8_t)((d->i.modrm & 0x38) | 6) : d->i.modrm;
    if (o->gpr == 1 && !d->mem)
        modrm &= 0xF8;
    if (o->gpr == 2)
        modrm &= 0xC7;
    if ((d->i.prefixes & SCAN_PFX_OPSIZE) && d->i.map != SCAN_MAP_1B)
        out[n++] = 0x66;
    if (d->i.map != SCAN_MAP_1B && (d->i.prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE)))
        out[n++] = d->i.prefixes & SCAN_PFX_REP ? 0xF3 : 0xF2;
    if (d->i.map != SCAN_MAP_1B)
        out[n++] = 0x0F;
    if (d->i.map == SCAN_MAP_0F38)
        out[n++] = 0x38;
    if (d->i.map == SCAN_MAP_0F3A)
        out[n++] = 0x3A;
    out[n++] = d->i.opcode;
    if (d->i.has_modrm)
        out[n++] = modrm;
    if (d->i.imm_len)
        out[n++] = raw[d->i.imm_off];
    return n;
}

/* The flags of a masked run that are reported when some of them are not masked for the guest: one found before the computation
 * keeps it from being done, and its own flags from being set (SDM vol. 1, 11.5.3.2). */
static uint32_t reported(uint32_t raised, uint32_t unmasked)
{
    return raised & unmasked & MX_PRE ? raised & MX_PRE : raised;
}

/* Runs the thunk on a copy of the state. Returns the unmasked SIMD flags raised; then nothing is to be kept of *k but what
 * simd_fault() takes. */
static uint32_t host_run(struct emu *e, const struct dinsn *d, const struct operand *o, struct call *k,
                         void *mem)
{
    struct cpu *c = e->c;
    struct thunks *t = &thunks;
    uint8_t bytes[8];
    unsigned gpr = o->gpr == 1 ? d->rm : d->reg, len = encode(d, o, bytes);
    thunk_fn *fn = thunk_for(bytes, len);
    uint32_t mxcsr = fx32(c, FX_MXCSR) & MXCSR_VALID, unmasked = ~(mxcsr >> 7) & MX_FLAGS;
    if (!fn)
        emu_ud(e);
    memcpy(k->fx, c->fx, sizeof(k->fx));
    memset(k->fx + FX_FIP, 0, 16);
    host_store(k->fx + FX_MXCSR, 4, t->caught ? mxcsr : (mxcsr & ~MX_FLAGS) | 0x1F80);
    k->eax = o->gpr ? c->gpr[gpr] : 0;
    k->flags = (c->arith & CPU_ARITH) | CPU_FLAG1;
    k->host_mxcsr = 0x1F80;
    t->trapped = false;
    fn(k, mem);
    if (t->caught)
        return t->trapped ? unmasked : 0;
    uint32_t raised = reported(host_load(k->fx + FX_MXCSR, 4) & MX_FLAGS, unmasked);
    host_store(k->fx + FX_MXCSR, 4, mxcsr | raised);
    return raised & unmasked;
}

static void commit(struct emu *e, const struct dinsn *d, const struct operand *o, const struct call *k)
{
    struct cpu *c = e->c;
    memcpy(c->fx, k->fx, FX_XMM + 128);
    memset(c->fx + FX_FIP, 0, 16);
    if (o->gpr && o->gpr_out)
        c->gpr[o->gpr == 1 ? d->rm : d->reg] = (uint32_t)k->eax;
    c->arith = (c->arith & CPU_DF) | (k->flags & CPU_ARITH);
}

/* An MMX instruction: TOP becomes 0, all tags valid; the registers keep their places (SDM vol. 1, 9.6.2). */
static void enter_mmx(struct cpu *c)
{
    set_top(c, 0);
    c->fx[FX_FTW] = 0xFF;
}

/* What the host has done of the instruction stays: the flags in MXCSR, and the change from x87 to MMX. */
static void simd_fault(struct emu *e, const struct call *k)
{
    struct cpu *c = e->c;
    memcpy(c->fx, k->fx, FX_XMM);
    memset(c->fx + FX_FIP, 0, 16);
    emu_raise(e, c->cr4 & CPU_CR4_OSXMMEXCPT ? CPU_EXC_XM : CPU_EXC_UD, false, 0);
}

static void run(struct emu *e, const struct dinsn *d, const struct operand *o)
{
    struct call k;
    uint8_t mem[64] __attribute__((aligned(64))) = {0};
    uint32_t ea = 0;
    if (d->mem) {
        ea = emu_ea(e, d);
        uint32_t lin = emu_seg_check(e, d->seg, ea, o->size, o->store);
        if (o->aligned && (lin & 15))
            emu_gp0(e);
        if (unlikely(e->align) && !o->aligned && o->size < 16)
            emu_check_align(e, lin, o->size);
        /* What is stored may be read: a store that an unmasked exception suppresses writes the old bytes
         * back. */
        if (o->store)
            emu_st_probe(e, d->seg, ea, o->size);
        emu_ld_buf(e, d->seg, ea, o->size, mem);
    }
    if (host_run(e, d, o, &k, mem))
        simd_fault(e, &k);
    if (d->mem && o->store)
        emu_st_buf(e, d->seg, ea, o->size, mem);
    commit(e, d, o, &k);
}

/* With CR0.NE clear a pending x87 error does not stop the guest, but it would stop the host: it is hidden
 * while the thunk runs. */
static void run_past_pending(struct emu *e, const struct dinsn *d, const struct operand *o)
{
    struct cpu *c = e->c;
    uint16_t fcw = fx16(c, FX_FCW), fsw = fx16(c, FX_FSW);
    if (!(fsw & FSW_ES)) {
        run(e, d, o);
        return;
    }
    e->fpu_hidden = true;
    e->fpu_fcw = fcw;
    fx_put(c, FX_FCW, 2, fcw | 0x3F);
    fx_put(c, FX_FSW, 2, fsw & ~(FSW_ES | FSW_B));
    run(e, d, o);
    emu_fpu_unhide(e);
}

void emu_fpu_unhide(struct emu *e)
{
    e->fpu_hidden = false;
    fx_put(e->c, FX_FCW, 2, e->fpu_fcw);
    update_es(e->c);
}

/* -- x87 --------------------------------------------------------------------------------------------- */

/* Sizes of memory operands by opcode and reg; bit 7: stored. 0: done by hand. */
#define ST_(n) (0x80 | (n))
static const uint8_t x87_size[8][8] = {
    {4, 4, 4, 4, 4, 4, 4, 4}, {4, 0, ST_(4), ST_(4), 0, 2, 0, ST_(2)},
    {4, 4, 4, 4, 4, 4, 4, 4}, {4, ST_(4), ST_(4), ST_(4), 0, 10, 0, ST_(10)},
    {8, 8, 8, 8, 8, 8, 8, 8}, {8, ST_(8), ST_(8), ST_(8), 0, 0, 0, ST_(2)},
    {2, 2, 2, 2, 2, 2, 2, 2}, {2, ST_(2), ST_(2), ST_(2), 10, 8, ST_(10), ST_(8)},
};

static bool is_control(const struct dinsn *d)
{
    unsigned op = d->i.opcode, m = d->i.modrm;
    if (d->mem)
        return (op == 0xD9 && d->reg >= 4) || (op == 0xDD && (d->reg == 4 || d->reg >= 6));
    return (op == 0xDB && m >= 0xE0 && m <= 0xE7) || (op == 0xDF && m == 0xE0);
}

static bool waits(const struct dinsn *d)
{
    unsigned op = d->i.opcode, m = d->i.modrm;
    if (d->mem)
        return !((op == 0xD9 && d->reg >= 6) || (op == 0xDD && d->reg >= 6));
    return !((op == 0xDB && m >= 0xE0 && m <= 0xE4) || (op == 0xDF && m == 0xE0));
}

static void op_x87(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint8_t s = d->mem ? x87_size[d->i.opcode & 7][d->reg] : 0;
    struct operand o = {.size = s & 0x7F, .store = s & 0x80};
    uint16_t fcw = fx16(c, FX_FCW), fsw = fx16(c, FX_FSW);
    need_x87(e, waits(d));
    if (d->mem && d->i.opcode == 0xD9 &&
        d->reg == 5) { /* FLDCW: by hand, the host must not see masks it would trap on */
        fx_put(c, FX_FCW, 2, (emu_ld(e, d->seg, emu_ea(e, d), 2) & 0x1F3F) | 0x40);
        update_es(c);
        drop_ferr(e);
        return;
    }
    if (d->mem && o.store && o.size == 2 && is_control(d)) { /* FNSTCW, FNSTSW */
        emu_st(e, d->seg, emu_ea(e, d), 2, d->i.opcode == 0xD9 ? fcw : fsw);
        return;
    }
    if (!d->mem && d->i.opcode == 0xDF && d->i.modrm == 0xE0)
        reg_set(c, CPU_EAX, 2, fsw);
    else if (waits(d))
        run_past_pending(e, d, &o);
    else
        run(e, d, &o);
    if (!is_control(d)) {
        struct cpu_x87 p = get_pointers(e);
        p.op = (uint16_t)((d->i.opcode & 7) << 8 | d->i.modrm);
        p.cs = c->seg[SCAN_CS].sel;
        p.ip = c->eip;
        if (d->mem) { /* without an operand the data pointer stays: the manual leaves it open */
            p.dp = emu_ea(e, d);
            p.ds = c->seg[d->seg].sel;
        }
        set_pointers(e, p);
    } else if (!d->mem && d->i.opcode == 0xDB && d->i.modrm == 0xE3) {
        set_pointers(e, (struct cpu_x87){0}); /* FNINIT */
    }
    drop_ferr(e);
}

static void op_fwait(struct emu *e, const struct dinsn *d)
{
    const struct cpu *c = e->c;
    (void)d;
    if ((c->cr0 & (CPU_CR0_MP | CPU_CR0_TS)) == (CPU_CR0_MP | CPU_CR0_TS))
        emu_raise(e, CPU_EXC_NM, false, 0);
    wait_error(e);
}

/* -- Environments (SDM vol. 1, figures 8-9 to 8-12) -------------------------------------------------- */

static unsigned full_tag(const struct cpu *c)
{
    unsigned tag = 0, top = fx16(c, FX_FSW) >> 11 & 7;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *st = c->fx + FX_ST + 16 * ((i - top) & 7);
        uint64_t mantissa;
        unsigned exponent = host_load(st + 8, 2) & 0x7FFF, t = 2;
        memcpy(&mantissa, st, 8);
        if (!(c->fx[FX_FTW] >> i & 1))
            t = 3;
        else if (exponent == 0 && mantissa == 0)
            t = 1;
        else if (exponent != 0 && exponent != 0x7FFF && mantissa >> 63)
            t = 0;
        tag |= t << 2 * i;
    }
    return tag;
}

static unsigned env_size(unsigned opsize)
{
    return opsize == 4 ? 28 : 14;
}

static void build_env(struct emu *e, unsigned opsize, uint8_t *out)
{
    const struct cpu *c = e->c;
    struct cpu_x87 p = get_pointers(e);
    uint32_t w[7] = {fx16(c, FX_FCW), fx16(c, FX_FSW), full_tag(c)};
    if (emu_real(e)) { /* linear addresses */
        uint32_t ip = p.ip + ((uint32_t)p.cs << 4), dp = p.dp + ((uint32_t)p.ds << 4);
        w[3] = ip & 0xFFFF;
        w[4] = opsize == 4 ? (ip >> 16) << 12 | p.op : (ip >> 16 & 15) << 12 | p.op;
        w[5] = dp & 0xFFFF;
        w[6] = opsize == 4 ? (dp >> 16) << 12 : (dp >> 16 & 15) << 12;
    } else {
        w[3] = p.ip;
        w[4] = p.cs | (opsize == 4 ? (uint32_t)p.op << 16 : 0);
        w[5] = p.dp;
        w[6] = p.ds;
    }
    for (unsigned i = 0; i < 7; i++) {
        if (opsize == 4 && (i < 3 || (i == 6 && !emu_real(e)) || (emu_real(e) && (i == 3 || i == 5))))
            w[i] |= 0xFFFF0000u; /* reserved halves read as ones */
        host_store(out + i * opsize, opsize, w[i]);
    }
}

/* Control, status and full tag word. */
static void put_words(struct cpu *c, uint32_t control, uint32_t status, uint32_t tags)
{
    uint32_t tag = 0;
    fx_put(c, FX_FCW, 2, (control & 0x1F3F) | 0x40);
    set_top(c, status >> 11 & 7);
    fx_put(c, FX_FSW, 2, status);
    for (unsigned i = 0; i < 8; i++)
        tag |= (uint32_t)((tags >> 2 * i & 3) != 3) << i;
    fx_put(c, FX_FTW, 2, tag);
    update_es(c);
}

void emu_fpu_get_env(struct vm *vm, struct emu_fpu_env *out)
{
    const struct cpu *c = vm->cpu;
    emu_x87_settle(vm);
    *out = (struct emu_fpu_env){fx16(c, FX_FCW), fx16(c, FX_FSW), (uint16_t)full_tag(c), c->x87};
}

void emu_fpu_set_env(struct vm *vm, const struct emu_fpu_env *env)
{
    emu_x87_settle(vm);
    put_words(vm->cpu, env->control, env->status, env->tags);
    vm->cpu->x87 = env->last;
    vm->cpu->x87.op &= 0x7FF;
}

static void take_env(struct emu *e, unsigned opsize, const uint8_t *in)
{
    struct cpu *c = e->c;
    struct cpu_x87 p;
    uint32_t w[7];
    for (unsigned i = 0; i < 7; i++)
        w[i] = host_load(in + i * opsize, opsize);
    put_words(c, w[0], w[1], w[2]);
    if (emu_real(e)) {
        p = (struct cpu_x87){.op = w[4] & 0x7FF,
                             .ip = (w[3] & 0xFFFF) | (w[4] >> 12) << 16,
                             .dp = (w[5] & 0xFFFF) | (w[6] >> 12) << 16};
    } else {
        p = (struct cpu_x87){.op = opsize == 4 ? w[4] >> 16 & 0x7FF : 0,
                             .cs = (uint16_t)w[4],
                             .ds = (uint16_t)w[6],
                             .ip = w[3],
                             .dp = w[5]};
    }
    set_pointers(e, p);
}

static void init_x87(struct emu *e)
{
    struct cpu *c = e->c;
    set_top(c, 0);
    fx_put(c, FX_FCW, 2, 0x37F);
    fx_put(c, FX_FSW, 2, 0);
    fx_put(c, FX_FTW, 2, 0);
    set_pointers(e, (struct cpu_x87){0});
}

static void op_x87_env(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    unsigned opsize = d->i.opsize, env = env_size(opsize), size = d->i.opcode == 0xDD ? env + 80 : env;
    bool store = d->reg == 6;
    uint8_t buf[108];
    need_x87(e, !store);
    uint32_t ea = emu_ea(e, d);
    emu_buf_align(e, d->seg, ea, size, store, opsize);
    if (!store) {
        emu_ld_buf(e, d->seg, ea, size, buf);
        take_env(e, opsize, buf);
        for (unsigned i = 0; size > env && i < 8; i++)
            memcpy(c->fx + FX_ST + 16 * i, buf + env + 10 * i, 10);
        drop_ferr(e);
        return;
    }
    build_env(e, opsize, buf);
    for (unsigned i = 0; size > env && i < 8; i++)
        memcpy(buf + env + 10 * i, c->fx + FX_ST + 16 * i, 10);
    emu_st_buf(e, d->seg, ea, size, buf);
    if (size > env) {
        init_x87(e);
        drop_ferr(e);
        return;
    }
    fx_put(c, FX_FCW, 2, fx16(c, FX_FCW) | 0x3F); /* FNSTENV masks all exceptions */
    update_es(c);
    drop_ferr(e);
}

/* -- FXSAVE, FXRSTOR, MXCSR -------------------------------------------------------------------------- */

static void op_fxsave(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    uint32_t ea = emu_ea(e, d);
    uint8_t buf[288];
    if (c->cr0 & (CPU_CR0_EM | CPU_CR0_TS))
        emu_raise(e, CPU_EXC_NM, false, 0);
    if ((c->seg[d->seg].base + ea) & 15)
        emu_gp0(e);
    if (d->reg == 0) {
        struct cpu_x87 p = get_pointers(e);
        memcpy(buf, c->fx, sizeof(buf));
        memset(buf + 5, 0, 1);
        host_store(buf + FX_FOP, 2, p.op);
        host_store(buf + FX_FIP, 4, p.ip);
        host_store(buf + FX_FIP + 4, 4, p.cs);
        host_store(buf + FX_FDP, 4, p.dp);
        host_store(buf + FX_FDP + 4, 4, p.ds);
        host_store(buf + FX_MXCSR + 4, 4, MXCSR_VALID);
        for (unsigned i = 0; i < 8; i++)
            memset(buf + FX_ST + 16 * i + 10, 0, 6);
        emu_st_buf(e, d->seg, ea, sizeof(buf), buf);
        return;
    }
    emu_ld_buf(e, d->seg, ea, sizeof(buf), buf);
    if (host_load(buf + FX_MXCSR, 4) & ~MXCSR_VALID)
        emu_gp0(e);
    struct cpu_x87 p = {.op = (uint16_t)host_load(buf + FX_FOP, 2),
                        .cs = (uint16_t)host_load(buf + FX_FIP + 4, 2),
                        .ds = (uint16_t)host_load(buf + FX_FDP + 4, 2),
                        .ip = host_load(buf + FX_FIP, 4),
                        .dp = host_load(buf + FX_FDP, 4)};
    memcpy(c->fx, buf, sizeof(buf));
    memset(c->fx + FX_FOP, 0, 18);
    c->fx[5] = 0;
    fx_put(c, FX_FCW, 2, (fx16(c, FX_FCW) & 0x1F3F) | 0x40);
    for (unsigned i = 0; i < 8; i++)
        memset(c->fx + FX_ST + 16 * i + 10, 0, 6);
    update_es(c);
    set_pointers(e, p);
    drop_ferr(e);
}

static void op_mxcsr(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    need_simd(e, true, false);
    if (d->reg == 3) {
        emu_st(e, d->seg, emu_ea(e, d), 4, fx32(c, FX_MXCSR));
        return;
    }
    uint32_t v = emu_ld(e, d->seg, emu_ea(e, d), 4);
    if (v & ~MXCSR_VALID)
        emu_gp0(e);
    fx_put(c, FX_MXCSR, 4, v);
}

/* -- MMX and SSE ------------------------------------------------------------------------------------- */

enum { P_NO, P_66, P_F3, P_F2 };

static unsigned prefix_of(const struct scan_insn *i)
{
    if (i->prefixes & SCAN_PFX_REPNE)
        return P_F2;
    if (i->prefixes & SCAN_PFX_REP)
        return P_F3;
    return i->prefixes & SCAN_PFX_OPSIZE ? P_66 : P_NO;
}

/* Memory operand sizes of rows that are not 8 (MMX) or 16 (XMM), by mandatory prefix; bit 7: stored. */
static bool odd_size(unsigned op, unsigned p, uint8_t *size)
{
    static const struct {
        uint8_t op, size[4]; /* no prefix, 66, F3, F2 */
    } rows[] = {
        {0x10, {16, 16, 4, 8}},
        {0x11, {ST_(16), ST_(16), ST_(4), ST_(8)}},
        {0x12, {8, 8, 16, 8}},
        {0x13, {ST_(8), ST_(8), 0, 0}},
        {0x16, {8, 8, 16, 0}},
        {0x17, {ST_(8), ST_(8), 0, 0}},
        {0x29, {ST_(16), ST_(16), 0, 0}},
        {0x2A, {8, 8, 4, 4}},
        {0x2B, {ST_(16), ST_(16), 0, 0}},
        {0x2C, {8, 16, 4, 8}},
        {0x2D, {8, 16, 4, 8}},
        {0x2E, {4, 8, 0, 0}},
        {0x2F, {4, 8, 0, 0}},
        {0x5A, {8, 16, 4, 8}},
        {0x60, {4, 16, 0, 0}},
        {0x61, {4, 16, 0, 0}},
        {0x62, {4, 16, 0, 0}},
        {0x6E, {4, 4, 0, 0}},
        {0x6F, {8, 16, 16, 0}},
        {0x70, {8, 16, 16, 16}},
        {0x7E, {ST_(4), ST_(4), 8, 0}},
        {0x7F, {ST_(8), ST_(16), ST_(16), 0}},
        {0xC4, {2, 2, 0, 0}},
        {0xD6, {0, ST_(8), 0, 0}},
        {0xE6, {0, 16, 8, 16}},
        {0xE7, {ST_(8), ST_(16), 0, 0}},
        {0xF0, {0, 0, 0, 16}},
        {0x5B, {16, 16, 16, 0}},
        {0x7C, {0, 16, 0, 16}},
        {0x7D, {0, 16, 0, 16}},
        {0xD0, {0, 16, 0, 16}},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].op == op) {
            *size = rows[i].size[p];
            return true;
        }
    return false;
}

/* Rows 50..5F, 10..17, 28..2F, C2, C6 work on XMM whatever the prefix; others without prefix on MMX
 * registers. */
static bool xmm_row(unsigned op)
{
    return op < 0x60 || op == 0xC2 || op == 0xC6 || op == 0x7C || op == 0x7D;
}

static struct operand simd_operand(const struct scan_insn *i)
{
    struct operand o = {0};
    unsigned op = i->opcode, p = prefix_of(i);
    bool map0f = i->map == SCAN_MAP_0F, scalar = map0f && (op == 0x51 || (op >= 0x52 && op <= 0x53) ||
                                                           (op >= 0x58 && op <= 0x5F) || op == 0xC2);
    uint8_t s;
    if (map0f && odd_size(op, p, &s)) {
        o.size = s & 0x7F;
        o.store = s & 0x80;
    } else if (scalar && op != 0x5B && p >= P_F3) {
        o.size = p == P_F3 ? 4 : 8;
    } else {
        o.size = (map0f && xmm_row(op)) || p != P_NO ? 16 : 8;
    }
    bool unaligned = map0f && (((op == 0x10 || op == 0x11) && p < P_F3) ||
                               ((op == 0x6F || op == 0x7F) && p == P_F3) || op == 0xF0);
    o.aligned = o.size == 16 && !unaligned;
    if (!map0f)
        return o;
    bool reg = i->modrm >= 0xC0;
    if (op == 0x50 || op == 0xC5 || op == 0xD7 || ((op == 0x2C || op == 0x2D) && p >= P_F3)) {
        o.gpr = 2;
        o.gpr_out = true;
    } else if (reg && (op == 0x6E || op == 0xC4 || (op == 0x2A && p >= P_F3))) {
        o.gpr = 1;
    } else if (reg && op == 0x7E && p != P_F3) {
        o.gpr = 1;
        o.gpr_out = true;
    }
    return o;
}

/* Does the instruction touch XMM registers, MMX registers? */
static void simd_files(const struct scan_insn *i, bool *xmm, bool *mmx)
{
    unsigned op = i->opcode, p = prefix_of(i);
    bool map0f = i->map == SCAN_MAP_0F;
    if (map0f && ((op >= 0x2A && op <= 0x2D && p < P_F3 && op != 0x2B) || (op == 0xD6 && p >= P_F3))) {
        *xmm = true; /* conversions and moves between the files */
        *mmx = op != 0x2A || i->modrm >= 0xC0; /* no MMX register in CVTPI2PS and CVTPI2PD from memory */
        return;
    }
    *xmm = (map0f && xmm_row(op)) || p != P_NO;
    *mmx = !*xmm;
}

static void op_simd(struct emu *e, const struct dinsn *d)
{
    bool xmm, mmx;
    struct operand o = simd_operand(&d->i);
    simd_files(&d->i, &xmm, &mmx);
    need_simd(e, xmm, mmx);
    run_past_pending(e, d, &o);
}

/* MASKMOVQ, MASKMOVDQU: bytes of the first operand whose mask bit 7 is set go to DS:EDI. */
static void op_maskmov(struct emu *e, const struct dinsn *d)
{
    struct cpu *c = e->c;
    bool xmm = d->i.prefixes & SCAN_PFX_OPSIZE;
    unsigned n = xmm ? 16 : 8, seg = d->i.seg == SCAN_SEG_NONE ? SCAN_DS : d->i.seg;
    need_simd(e, xmm, !xmm);
    unsigned top = fx16(c, FX_FSW) >> 11 & 7;
    const uint8_t *src = c->fx + (xmm ? FX_XMM + 16u * d->reg : FX_ST + 16u * ((d->reg - top) & 7u));
    const uint8_t *mask = c->fx + (xmm ? FX_XMM + 16u * d->rm : FX_ST + 16u * ((d->rm - top) & 7u));
    uint32_t at = c->gpr[CPU_EDI];
    for (unsigned i = 0; i < n; i++)
        if (mask[i] & 0x80)
            emu_st_probe(e, seg, (at + i) & d->amask, 1);
    for (unsigned i = 0; i < n; i++)
        if (mask[i] & 0x80)
            emu_st(e, seg, (at + i) & d->amask, 1, src[i]);
    if (!xmm)
        enter_mmx(c);
}

emu_fn *emu_pick_fpu(const struct scan_insn *i)
{
    switch (i->cls) {
    case SCAN_CLASS_FPU:
        return i->opcode == 0x9B ? op_fwait : op_x87;
    case SCAN_CLASS_FPU_ENV:
        return op_x87_env;
    case SCAN_CLASS_FXSAVE:
        return op_fxsave;
    default:
        break;
    }
    if (i->map == SCAN_MAP_0F && i->opcode == 0xAE)
        return op_mxcsr;
    if (i->map == SCAN_MAP_0F && i->opcode == 0xF7)
        return op_maskmov;
    return op_simd;
}
