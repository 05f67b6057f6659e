/* tests/fuzz/ambiguous.c: see ambiguous.h. */
#include "ambiguous.h"

#include <string.h>

#include "scanner/scan.h"

#define PS        0x80u
#define HARDWARE  0x60u /* A and D: set by the processor, cleared by software only */
#define FRAME(e)  ((e)&0xFFFFFF000ull)
#define NOT_TABLE UINT64_MAX

#define TABLES_MAX 64u

struct view {
    struct vm *vm;
    uint8_t *ref; /* RAM as of the last invalidation */
    bool pae;
    /* Pages of paging entries in use then; too many: some are not looked at. */
    uint64_t table[TABLES_MAX];
    unsigned tables;
};

static uint64_t entry_at(const struct view *v, const uint8_t *ram, uint64_t at)
{
    uint64_t e = 0;
    if (at + 8 > v->vm->ram_bytes)
        return 0;
    memcpy(&e, ram + at, v->pae ? 8 : 4);
    return e;
}

/* Is one page of paging entries as it was, but for what the processor itself sets? */
static bool table_same(const struct view *v, uint64_t table)
{
    unsigned size = v->pae ? 8 : 4;
    if (table + PAGE_SIZE_ > v->vm->ram_bytes || !memcmp(v->vm->ram + table, v->ref + table, PAGE_SIZE_))
        return true;
    for (unsigned i = 0; i < PAGE_SIZE_; i += size) {
        uint64_t was = entry_at(v, v->ref, table + i), is = entry_at(v, v->vm->ram, table + i);
        if ((was ^ is) & ~(uint64_t)(HARDWARE & is))
            return false;
    }
    return true;
}

static uint64_t table_of(const struct view *v, uint64_t pde)
{
    bool large = (pde & PS) && (v->pae || (v->vm->cpu->cr4 & CPU_CR4_PSE));
    return (pde & 1) && !large ? FRAME(pde) : NOT_TABLE;
}

static void add_table(struct view *v, uint64_t table)
{
    for (unsigned i = 0; i < v->tables; i++)
        if (v->table[i] == table)
            return;
    if (v->tables < TABLES_MAX && table + PAGE_SIZE_ <= v->vm->ram_bytes)
        v->table[v->tables++] = table;
}

static void add_directory(struct view *v, uint64_t dir)
{
    add_table(v, dir);
    for (unsigned i = 0; i < PAGE_SIZE_; i += v->pae ? 8 : 4) {
        uint64_t table = table_of(v, entry_at(v, v->ref, dir + i));
        if (table != NOT_TABLE)
            add_table(v, table);
    }
}

/* ref has changed: which tables are in use? As long as the directories stay as they are, these are. */
static void find_tables(struct view *v)
{
    const struct cpu *c = v->vm->cpu;
    v->pae = c->cr4 & CPU_CR4_PAE;
    v->tables = 0;
    if (!(c->cr0 & CPU_CR0_PG))
        return;
    if (!v->pae)
        add_directory(v, c->cr3 & ~PAGE_MASK_);
    for (unsigned i = 0; i < 4 && v->pae; i++)
        if (c->pdpte[i] & 1)
            add_directory(v, FRAME(c->pdpte[i]));
}

/* Are all paging structures in use what they were? */
static bool all_same(const struct view *v)
{
    for (unsigned i = 0; i < v->tables; i++)
        if (!table_same(v, v->table[i]))
            return false;
    return true;
}

/* Setting A and D may change an instruction there while it runs. */
static bool is_table(const struct view *v, uint64_t page)
{
    for (unsigned i = 0; i < v->tables; i++)
        if (v->table[i] == page)
            return true;
    return false;
}

static void accept_all(struct view *v)
{
    memcpy(v->ref, v->vm->ram, v->vm->ram_bytes);
    find_tables(v);
}

static void accept_entry(struct view *v, uint64_t at)
{
    if (at + 8 <= v->vm->ram_bytes)
        memcpy(v->ref + at, v->vm->ram + at, v->pae ? 8 : 4);
}

static unsigned references_in(const struct view *v, uint64_t dir, uint64_t table)
{
    unsigned n = 0;
    for (unsigned i = 0; i < PAGE_SIZE_; i += v->pae ? 8 : 4)
        n += table_of(v, entry_at(v, v->vm->ram, dir + i)) == table;
    return n;
}

static unsigned references(const struct view *v, uint64_t table)
{
    const struct cpu *c = v->vm->cpu;
    unsigned n = 0;
    if (!v->pae)
        return references_in(v, c->cr3 & ~PAGE_MASK_, table);
    for (unsigned i = 0; i < 4; i++)
        n += c->pdpte[i] & 1 ? references_in(v, FRAME(c->pdpte[i]), table) : 0;
    return n;
}

/* INVLPG a: the entry of the page is taken as it is now, unless its table maps other pages with it that were
 * not named. */
static void accept_page(struct view *v, uint32_t a)
{
    const struct cpu *c = v->vm->cpu;
    uint64_t pde =
        v->pae ? FRAME(c->pdpte[a >> 30]) + (a >> 21 & 511) * 8 : (c->cr3 & ~PAGE_MASK_) + (a >> 22) * 4;
    uint64_t table = table_of(v, entry_at(v, v->vm->ram, pde));
    if (table != NOT_TABLE && references(v, table) == 1)
        accept_entry(v, table + (v->pae ? (a >> 12 & 511) * 8 : (a >> 12 & 1023) * 4));
}

/* The bytes at EIP as far as they are RAM, and the page of the first. */
static unsigned fetch(struct vm *vm, uint8_t bytes[SCAN_INSN_MAX_LEN], uint64_t *page)
{
    unsigned n = 0;
    *page = NOT_TABLE;
    for (; n < SCAN_INSN_MAX_LEN; n++) {
        struct mmu_page p;
        uint32_t at = vm->cpu->seg[SCAN_CS].base + vm->cpu->eip + n;
        if (!mmu_probe(vm, gva(at), &p) || p.page.v + PAGE_SIZE_ > vm->ram_bytes)
            break;
        if (!n)
            *page = p.page.v;
        bytes[n] = vm->ram[p.page.v + (at & PAGE_MASK_)];
    }
    return n;
}

struct step {
    bool invlpg, harmless, flush, repeats, x87_image;
    unsigned len;
    uint8_t bytes[SCAN_INSN_MAX_LEN];
    uint64_t page, source; /* of the instruction; of what a repeated one reads by ESI, if that is flat */
    uint32_t address;
};

static uint64_t data_page(struct vm *vm, uint32_t lin)
{
    struct mmu_page p;
    return mmu_probe(vm, gva(lin), &p) ? p.page.v : NOT_TABLE;
}

static struct step look(struct vm *vm)
{
    const struct cpu *c = vm->cpu;
    struct scan_insn i;
    struct step s = {.source = NOT_TABLE};
    if (scan_decode(s.bytes, fetch(vm, s.bytes, &s.page), c->seg[SCAN_CS].attr & 0x4000 ? 32 : 16, &i) !=
        SCAN_OK)
        return s;
    s.len = i.len;
    s.repeats = i.cls == SCAN_CLASS_STRING && (i.prefixes & (SCAN_PFX_REP | SCAN_PFX_REPNE));
    s.source = s.repeats && i.seg != SCAN_FS && i.seg != SCAN_GS ? data_page(vm, c->gpr[CPU_ESI]) : NOT_TABLE;
    /* Pointers of the last x87 instruction: processors that keep them only with an error pending lose them
     * whenever the host's kernel comes in between. */
    s.x87_image =
        i.has_modrm && i.modrm < 0xC0 &&
        ((i.map == SCAN_MAP_1B && (i.opcode == 0xD9 || i.opcode == 0xDD) && scan_modrm_reg(&i) == 6) ||
         (i.map == SCAN_MAP_0F && i.opcode == 0xAE && scan_modrm_reg(&i) == 0));
    if (i.map != SCAN_MAP_0F)
        return s;
    s.harmless = i.opcode == 0x20 || i.opcode == 0x22; /* MOV to and from control registers */
    s.flush = i.opcode == 0x22 && c->cpl == 0;
    s.invlpg = i.opcode == 0x01 && scan_modrm_reg(&i) == 7 && i.modrm < 0xC0 && c->cpl == 0;
    s.address = (uint32_t)i.disp; /* the generator's form; of another, which page it was stays open */
    return s;
}

/* A repeated string instruction that overwrites itself goes on as it was until something interrupts it. */
static bool wrote_itself(struct vm *vm, const struct step *s)
{
    uint8_t now[SCAN_INSN_MAX_LEN];
    uint64_t page;
    unsigned n = fetch(vm, now, &page);
    return n < s->len || memcmp(now, s->bytes, s->len) != 0;
}

bool fuzz_ambiguous(struct vm *vm, uint8_t *ref, uint64_t limit, const bool *stop)
{
    struct cpu *c = vm->cpu;
    struct view v = {.vm = vm, .ref = ref};
    accept_all(&v);
    for (uint64_t n = 0; n < limit && !*stop; n++) {
        struct step s = look(vm);
        /* A and D of pages that later elements reach may be set before the entry is read. */
        if (s.x87_image || is_table(&v, s.page) || is_table(&v, s.source))
            return true;
        if (!s.harmless && !s.invlpg && !all_same(&v))
            return true;
        uint32_t eip = c->eip, cr0 = c->cr0, cr3 = c->cr3, cr4 = c->cr4;
        uint64_t efer = c->efer;
        if (emu_step(vm) != EMU_OK)
            return !all_same(&v);
        if (s.repeats && c->eip == eip && wrote_itself(vm, &s))
            return true;
        if (cr0 != c->cr0 || cr3 != c->cr3 || cr4 != c->cr4 || efer != c->efer ||
            (s.flush && c->eip == eip + s.len))
            accept_all(&v);
        else if (s.invlpg)
            accept_page(&v, s.address);
        if ((c->irq_pending && c->vif && !c->shadow) &&
            emu_interrupt(vm, dev_intr_ack(vm->bus)) == EMU_SHUTDOWN)
            return false;
    }
    return false;
}
