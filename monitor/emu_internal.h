/* monitor/emu_internal.h: what the parts of the emulator share. Internal to monitor/emu*.c.
 *
 * One struct emu lives on the stack of a run of instructions. Handlers work on struct cpu directly; a fault
 * leaves through emu_raise() (a long jump to the run loop), so the rule for every handler is: do whatever can
 * fault first, change state after it. What cannot be ordered so (far transfers, task switches) takes a
 * snapshot that the run loop puts back. ESP is put back always.
 */
#ifndef VERSO_MONITOR_EMU_INTERNAL_H
#define VERSO_MONITOR_EMU_INTERNAL_H

#include <string.h>

#include "monitor/vm.h"
#include "scanner/scan.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct emu;
struct dinsn;
typedef void emu_fn(struct emu *e, const struct dinsn *d);

/* A decoded instruction in the cache: valid for the same physical address and code size as long as the bytes
 * are the same. */
struct dinsn {
    uint64_t raw[2], mask[2];
    uint64_t key;
    emu_fn *fn;
    uint8_t base, index, scale,
        seg; /* base, index: 8 for none; seg: override or default of the memory operand */
    uint8_t reg, rm;
    bool mem;
    bool fpu; /* works on cpu->fx */
    uint8_t mov; /* MOV between a register, or from an immediate, and memory: the operand's size; otherwise 0 */
    bool store;
    uint32_t amask;
    struct scan_insn i;
};

/* Everything a far transfer may change. */
struct emu_snapshot {
    uint32_t gpr[8], eip, arith, vif, eflags_sys, cpl, cr0, cr3, shadow;
    uint64_t pdpte[4];
    struct cpu_seg seg[6], ldtr, tr;
};

struct emu {
    struct vm *vm;
    struct cpu *c;
    struct tlb_entry *tlb;  /* of the current privilege */
    uint32_t next;          /* EIP after this instruction */
    uint32_t esp0;          /* ESP before it */
    uint32_t smask;         /* stack-pointer mask: FFFFh or FFFFFFFFh */
    uint8_t seg_rd, seg_wr; /* by segment: needs no check beyond adding the base */
    bool code32, flat_cs, user, align;
    bool pe, v86;
    /* Told to the run loop by a handler */
    bool attn;    /* look at the following */
    bool stop;    /* leave the run */
    bool segs;    /* seg[], cpl or mode changed */
    bool keep_rf; /* RF was loaded, or the instruction is not complete */
    bool no_trap; /* no single-step trap after this instruction */
    bool mid_rep; /* a repeat has elements left */
    bool breakpoint; /* the fault is an instruction breakpoint */
    uint8_t new_shadow;
    uint32_t db_bits; /* DR6 bits of a data or I/O breakpoint hit, to be reported after the instruction */
    uint8_t implicit; /* MMU_IMPLICIT during accesses to descriptor tables and TSS */
    bool bp_data;     /* data breakpoints are armed */
    bool bp_port;     /* port breakpoints are */
    bool flow;        /* control transfers are reported: */
    struct vm_place from;
    bool before;      /* there is something to do before each instruction */
    unsigned watched; /* by the instruction: as vm_watched() said */
    uint32_t watched_at;
    enum emu_result result;
    /* Fault */
    unsigned vector;
    bool has_error;
    uint32_t error;
    uint32_t ext; /* EXT bit of error codes */
    bool snap_on;
    struct emu_snapshot snap;
    bool fpu_hidden; /* a pending x87 error is hidden from the host; the guest's control word is kept here */
    uint16_t fpu_fcw;
    unsigned count;
    struct dinsn slow; /* for instructions that are not cached */
    void *jb[5]; /* GCC's __builtin_setjmp(): four times as quick as the C library's */
};

/* Instead of a vector: the processor waits for an interrupt in front of the instruction. */
#define EMU_FROZEN 256u

/* -- emu.c ------------------------------------------------------------------------------------------- */
_Noreturn void emu_raise(struct emu *e, unsigned vector, bool has_error, uint32_t error);
static inline _Noreturn void emu_gp0(struct emu *e)
{
    emu_raise(e, CPU_EXC_GP, true, e->ext);
}
static inline _Noreturn void emu_ud(struct emu *e)
{
    emu_raise(e, CPU_EXC_UD, false, 0);
}
void emu_refresh(struct emu *e); /* after changes to segments, CPL, CR0, EFLAGS.VM or AC */
void emu_snap(struct emu *e);
static inline void emu_stop(struct emu *e)
{
    e->attn = e->stop = true;
}

/* -- emu_mem.c --------------------------------------------------------------------------------------- */
/* Linear addresses, checked for paging only. user: CPL 3 rights; system structures are read as supervisor
 * whatever the CPL. */
uint32_t emu_lin_read(struct emu *e, uint32_t lin, unsigned size, bool user);
void emu_lin_write(struct emu *e, uint32_t lin, unsigned size, uint32_t v, bool user);
/* A device's memory, whoever found that gpa is: traced, and accounted for. */
uint32_t emu_mmio_read(struct vm *vm, uint64_t gpa, unsigned size);
void emu_mmio_write(struct vm *vm, uint64_t gpa, unsigned size, uint32_t v);
void emu_lin_probe(struct emu *e, uint32_t lin, unsigned len, bool write,
                   bool user); /* raises what an access would */
uint32_t emu_seg_check(struct emu *e, unsigned seg, uint32_t off, unsigned size,
                       bool write); /* returns the linear address */
void emu_check_align(struct emu *e, uint32_t lin, unsigned size);
void emu_data_watch(struct emu *e, uint32_t lin, unsigned size, bool write);
/* #AC for operands whose alignment does not follow from their size (SDM vol. 3, table 6-7); before the access. */
void emu_buf_align(struct emu *e, unsigned seg, uint32_t off, unsigned len, bool write, unsigned align);
void emu_ld_buf(struct emu *e, unsigned seg, uint32_t off, unsigned len, void *buf);
void emu_st_buf(struct emu *e, unsigned seg, uint32_t off, unsigned len, const void *buf);
void emu_st_probe(struct emu *e, unsigned seg, uint32_t off, unsigned len);
/* Makes the TLB hold the page of lin for access MMU_*; raises #PF. Returns its host address or NULL for MMIO;
 * *page_gpa always. */
uint8_t *emu_tlb_fill(struct emu *e, uint32_t lin, unsigned access, uint64_t *page_gpa);
uint32_t emu_sys_read(struct emu *e, uint32_t lin, unsigned size);
void emu_sys_write(struct emu *e, uint32_t lin, unsigned size, uint32_t v);

static inline uint8_t *tlb_read(struct emu *e, uint32_t lin, unsigned size)
{
    const struct tlb_entry *t = &e->tlb[lin >> 12 & (TLB_SIZE - 1)];
    if (likely(t->read_tag == ((lin & ~PAGE_MASK_) | 1) && (lin & PAGE_MASK_) + size <= PAGE_SIZE_))
        return t->hva + (lin & PAGE_MASK_);
    return NULL;
}
static inline uint8_t *tlb_write(struct emu *e, uint32_t lin, unsigned size)
{
    const struct tlb_entry *t = &e->tlb[lin >> 12 & (TLB_SIZE - 1)];
    if (likely(t->write_tag == ((lin & ~PAGE_MASK_) | 1) && (lin & PAGE_MASK_) + size <= PAGE_SIZE_))
        return t->hva + (lin & PAGE_MASK_);
    return NULL;
}
static inline uint32_t host_load(const uint8_t *p, unsigned size)
{
    if (size == 4) {
        uint32_t v;
        memcpy(&v, p, 4);
        return v;
    }
    if (size == 2) {
        uint16_t v;
        memcpy(&v, p, 2);
        return v;
    }
    return *p;
}
static inline void host_store(uint8_t *p, unsigned size, uint32_t v)
{
    if (size == 4)
        memcpy(p, &v, 4);
    else if (size == 2)
        memcpy(p, &(uint16_t){(uint16_t)v}, 2);
    else
        *p = (uint8_t)v;
}
static inline uint32_t emu_lin(struct emu *e, unsigned seg, uint32_t off, unsigned size, bool write)
{
    uint32_t lin;
    if (likely((write ? e->seg_wr : e->seg_rd) >> seg & 1))
        lin = e->c->seg[seg].base + off;
    else
        lin = emu_seg_check(e, seg, off, size, write);
    if (unlikely(e->align))
        emu_check_align(e, lin, size);
    return lin;
}
static inline uint32_t emu_ld(struct emu *e, unsigned seg, uint32_t off, unsigned size)
{
    uint32_t lin = emu_lin(e, seg, off, size, false);
    const uint8_t *p = tlb_read(e, lin, size);
    return likely(p) ? host_load(p, size) : emu_lin_read(e, lin, size, e->user);
}
static inline void emu_st(struct emu *e, unsigned seg, uint32_t off, unsigned size, uint32_t v)
{
    uint32_t lin = emu_lin(e, seg, off, size, true);
    uint8_t *p = tlb_write(e, lin, size);
    if (likely(p))
        host_store(p, size, v);
    else
        emu_lin_write(e, lin, size, v, e->user);
}
/* Read-modify-write: write rights are checked before anything is read. */
struct emu_ref {
    uint8_t *p;
    uint32_t lin;
};
static inline uint32_t emu_rmw(struct emu *e, unsigned seg, uint32_t off, unsigned size, struct emu_ref *r)
{
    r->lin = emu_lin(e, seg, off, size, true);
    /* A segment that may be written may be read: only data segments are writable. */
    r->p = tlb_write(e, r->lin, size);
    if (likely(r->p))
        return host_load(r->p, size);
    emu_lin_probe(e, r->lin, size, true, e->user);
    return emu_lin_read(e, r->lin, size, e->user);
}
static inline void emu_rmw_store(struct emu *e, const struct emu_ref *r, unsigned size, uint32_t v)
{
    if (likely(r->p))
        host_store(r->p, size, v);
    else
        emu_lin_write(e, r->lin, size, v, e->user);
}

/* -- Operands ---------------------------------------------------------------------------------------- */
static inline uint32_t dinsn_ea(const struct cpu *c, const struct dinsn *d)
{
    uint32_t a = (uint32_t)d->i.disp;
    if (d->base < 8)
        a += c->gpr[d->base];
    if (d->index < 8)
        a += c->gpr[d->index] << d->scale;
    return a & d->amask;
}
static inline uint32_t emu_ea(const struct emu *e, const struct dinsn *d)
{
    return dinsn_ea(e->c, d);
}
static inline uint32_t reg_get(const struct cpu *c, unsigned r, unsigned size)
{
    if (size == 4)
        return c->gpr[r];
    if (size == 2)
        return (uint16_t)c->gpr[r];
    return (uint8_t)(c->gpr[r & 3] >> (r >> 2) * 8);
}
static inline void reg_set(struct cpu *c, unsigned r, unsigned size, uint32_t v)
{
    /* All 32 bits are stored: a load of them right after a store of some would wait for the cache. */
    if (size == 4) {
        c->gpr[r] = v;
    } else if (size == 2) {
        c->gpr[r] = (c->gpr[r] & 0xFFFF0000u) | (v & 0xFFFF);
    } else {
        unsigned shift = (r >> 2) * 8;
        c->gpr[r & 3] = (c->gpr[r & 3] & ~(0xFFu << shift)) | (v & 0xFF) << shift;
    }
}
static inline uint32_t rm_get(struct emu *e, const struct dinsn *d, unsigned size)
{
    return d->mem ? emu_ld(e, d->seg, emu_ea(e, d), size) : reg_get(e->c, d->rm, size);
}
/* What follows the first immediate: ENTER's level, the selector of a far pointer. */
static inline uint32_t emu_imm2(const struct dinsn *d)
{
    const uint8_t *p = (const uint8_t *)d->raw + d->i.imm_off + d->i.imm_len;
    return d->i.imm2_len == 2 ? host_load(p, 2) : *p;
}
static inline void rm_set(struct emu *e, const struct dinsn *d, unsigned size, uint32_t v)
{
    if (d->mem)
        emu_st(e, d->seg, emu_ea(e, d), size, v);
    else
        reg_set(e->c, d->rm, size, v);
}

/* -- Stack ------------------------------------------------------------------------------------------- */
static inline void sp_set(struct emu *e, uint32_t sp)
{
    e->c->gpr[CPU_ESP] = (e->c->gpr[CPU_ESP] & ~e->smask) | (sp & e->smask);
}
static inline void emu_push(struct emu *e, unsigned size, uint32_t v)
{
    uint32_t sp = (e->c->gpr[CPU_ESP] - size) & e->smask;
    emu_st(e, SCAN_SS, sp, size, v);
    sp_set(e, sp);
}
/* The n-th slot from the top; sp_set() follows when all is read. */
static inline uint32_t emu_peek(struct emu *e, unsigned size, unsigned n)
{
    return emu_ld(e, SCAN_SS, (e->c->gpr[CPU_ESP] + n * size) & e->smask, size);
}
static inline uint32_t emu_pop(struct emu *e, unsigned size)
{
    uint32_t v = emu_peek(e, size, 0);
    sp_set(e, e->c->gpr[CPU_ESP] + size);
    return v;
}

/* Near branch: #GP(0) beyond the limit of CS, with EIP of the branch. */
static inline void emu_branch(struct emu *e, uint32_t eip)
{
    if (unlikely(!e->flat_cs) && eip > e->c->seg[SCAN_CS].limit)
        emu_gp0(e);
    e->next = eip;
}

/* -- emu_insn.c, emu_str.c, emu_sys.c, emu_fpu.c: handlers ------------------------------------------- */
emu_fn *emu_pick(const struct scan_insn *i);
emu_fn *emu_pick_string(const struct scan_insn *i);
emu_fn *emu_pick_sys(const struct scan_insn *i);
emu_fn *emu_pick_optional(const struct scan_insn *i);
emu_fn *emu_pick_fpu(const struct scan_insn *i);
void emu_fpu_prepare(void);
void emu_fpu_unhide(struct emu *e);
void emu_io_check(struct emu *e, uint16_t port,
                  unsigned size); /* #GP(0) without the right (SDM vol. 1, 19.5) */
void emu_op_ud(struct emu *e, const struct dinsn *d);

/* -- emu_seg.c, emu_far.c: segments and control transfers -------------------------------------------- */
struct emu_desc {
    uint32_t lo, hi;
};
enum { /* bits of cpu_seg.attr */
       SEG_A = 1,
       SEG_RW = 2, /* writable data, readable code */
       SEG_CE = 4, /* expand-down data, conforming code */
       SEG_CODE = 8,
       SEG_S = 0x10,
       SEG_DPL = 0x60,
       SEG_P = 0x80,
       SEG_DB = 0x4000,
       SEG_G = 0x8000,
};
static inline unsigned seg_dpl(unsigned attr)
{
    return attr >> 5 & 3;
}
static inline unsigned desc_attr(const struct emu_desc *d)
{
    return d->hi >> 8 & 0xF0FF;
}
/* -- Rules that more than one place applies: emulator, tasks, quick.c -------------------------------- */

/* SS: writable data, RPL and DPL equal to the CPL (SDM vol. 3, 5.7). */
static inline bool seg_fits_stack(unsigned attr, uint16_t sel, unsigned cpl)
{
    return (sel & 3u) == cpl && (attr & (SEG_S | SEG_CODE | SEG_RW)) == (SEG_S | SEG_RW) &&
           seg_dpl(attr) == cpl;
}
static inline bool seg_is_conforming(unsigned attr)
{
    return (attr & (SEG_S | SEG_CODE | SEG_CE)) == (SEG_S | SEG_CODE | SEG_CE);
}
/* Neither CPL nor RPL may be weaker than the DPL, but for conforming code (SDM vol. 3, 5.6). */
static inline bool seg_is_reachable(unsigned attr, uint16_t sel, unsigned cpl)
{
    return seg_is_conforming(attr) || (seg_dpl(attr) >= cpl && seg_dpl(attr) >= (sel & 3u));
}
/* ES, DS, FS, GS: data or readable code (SDM vol. 3, 5.6). */
static inline bool seg_fits_data(unsigned attr, uint16_t sel, unsigned cpl)
{
    return (attr & SEG_S) && (!(attr & SEG_CODE) || (attr & SEG_RW)) && seg_is_reachable(attr, sel, cpl);
}
/* Is a loaded data segment emptied by a return to cpl, which may not use it (SDM vol. 3, 5.8.6)? */
static inline bool seg_is_lost(const struct cpu_seg *s, unsigned cpl)
{
    return !s->unusable && !seg_is_conforming(s->attr) && seg_dpl(s->attr) < cpl;
}
/* CS and SS of SYSENTER and SYSEXIT: flat, whatever the tables say (SDM vol. 2). The selectors have their RPL. */
static inline void seg_set_flat(struct cpu *c, uint16_t cs, uint16_t ss, unsigned cpl)
{
    uint16_t dpl = (uint16_t)(cpl << 5);
    c->seg[SCAN_CS] = (struct cpu_seg){.limit = 0xFFFFFFFFu, .sel = cs, .attr = (uint16_t)(0xC09B | dpl)};
    c->seg[SCAN_SS] = (struct cpu_seg){.limit = 0xFFFFFFFFu, .sel = ss, .attr = (uint16_t)(0xC093 | dpl)};
    c->cpl = cpl;
}

/* May the port be accessed (SDM vol. 1, 19.5)? By IOPL, or by the bitmap of a 32-bit TSS, of which two bytes are
 * always read. read: the two bytes at a linear address, as the supervisor; false if it cannot tell. */
enum io_right { IO_DENIED, IO_ALLOWED, IO_UNKNOWN };
typedef bool io_read_fn(void *from, uint32_t lin, uint32_t *word);
static inline enum io_right io_permission(const struct cpu *c, uint16_t port, unsigned size, io_read_fn *read,
                                          void *from)
{
    uint32_t base, bits;
    bool v86 = c->eflags_sys & CPU_VM;
    if (!(c->cr0 & CPU_CR0_PE) || (!v86 && c->cpl <= (c->eflags_sys >> 12 & 3)))
        return IO_ALLOWED;
    if (c->tr.unusable || !(c->tr.attr & 8) || c->tr.limit < 0x67)
        return IO_DENIED;
    if (!read(from, c->tr.base + 0x66, &base))
        return IO_UNKNOWN;
    if (base + port / 8 + 1 > c->tr.limit)
        return IO_DENIED;
    if (!read(from, c->tr.base + base + port / 8, &bits))
        return IO_UNKNOWN;
    return bits >> (port & 7) & ((1u << size) - 1) ? IO_DENIED : IO_ALLOWED;
}

/* The bits of EFLAGS that POPF and IRET change at the present CPL and IOPL (SDM vol. 2, POPF, table 4-16; virtual-8086
 * mode gets here with IOPL 3 only). IRET at CPL 0 changes VIF and VIP too. */
static inline uint32_t emu_flags_writable(const struct emu *e, unsigned opsize)
{
    const struct cpu *c = e->c;
    uint32_t mask = CPU_ARITH | CPU_DF | CPU_TF | CPU_NT | CPU_AC | CPU_ID | CPU_RF;
    if (c->cpl <= (c->eflags_sys >> 12 & 3))
        mask |= CPU_IF;
    if (c->cpl == 0)
        mask |= CPU_IOPL;
    return opsize == 2 ? mask & 0xFFFF : mask;
}

void emu_set_seg(struct emu *e, unsigned seg, uint16_t sel, const struct emu_desc *d);
void emu_set_seg_real(struct emu *e, unsigned seg, uint16_t sel);
void emu_set_seg_v86(struct emu *e, unsigned seg, uint16_t sel);
void emu_set_seg_null(struct emu *e, unsigned seg, uint16_t sel);
void emu_seg_from_desc(struct cpu_seg *s, uint16_t sel, const struct emu_desc *d);
bool emu_read_desc(struct emu *e, uint16_t sel, struct emu_desc *d); /* false: outside its table */
void emu_need_desc(struct emu *e, uint16_t sel, struct emu_desc *d, unsigned vector); /* raises vector(sel) */
void emu_mark_accessed(struct emu *e, uint16_t sel, struct emu_desc *d);
void emu_set_cr(struct emu *e, unsigned n, uint32_t v); /* MOV CR */
uint32_t emu_desc_addr(struct emu *e, uint16_t sel);
_Noreturn void emu_sel_fault(struct emu *e, unsigned vector, uint16_t sel);
void emu_load_sreg(struct emu *e, unsigned seg, uint16_t sel); /* MOV Sreg in any mode */
/* Control-flow transfers of emu_far.c set e->next. */
void emu_far_jump(struct emu *e, uint16_t sel, uint32_t off);
void emu_far_call(struct emu *e, uint16_t sel, uint32_t off, unsigned opsize);
void emu_far_return(struct emu *e, unsigned opsize, unsigned extra);
void emu_iret(struct emu *e, unsigned opsize);
enum emu_int_kind { EMU_INT_SOFT, EMU_INT_EXCEPTION, EMU_INT_TRAP, EMU_INT_EXTERNAL };
void emu_int(struct emu *e, unsigned vector, enum emu_int_kind kind, bool has_error, uint32_t error,
             uint32_t return_eip);
enum emu_task_why { EMU_TASK_JUMP, EMU_TASK_CALL, EMU_TASK_IRET };
void emu_task_switch(struct emu *e, uint16_t sel, struct emu_desc *d, enum emu_task_why why, uint32_t old_eip,
                     bool has_error, uint32_t error);
/* POPF and IRET: stores the bits of v that mask lets through. */
void emu_put_flags(struct emu *e, uint32_t v, uint32_t mask);
bool emu_load_pdptes(struct emu *e, uint32_t cr3); /* false: reserved bits */

#define DR7_GD (1u << 13)

static inline bool emu_real(const struct emu *e)
{
    return !e->pe || e->v86;
}

#endif
