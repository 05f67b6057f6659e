/* monitor/smc.c: stores to pages that versos were made from, and pages that are written while they run.
 *
 * A verso costs some microseconds to make and some to drop (a host fault by the store, a mapping call when the page is protected again).
 * That is lost where a page is written again before its verso has run for long: a just-in-time compiler that writes function after
 * function, code that patches itself on every call. Such a page gets a level, raised by each verso that was dropped young, lowered by each
 * that grew old. From SMC_LEVEL on its code is emulated for a number of instructions that doubles with each level before the next verso is
 * made; meanwhile the page is ordinary memory, its writes cost nothing, and the emulator sees every byte as it is. So the verso is
 * made at last wherever the code stays, and at a cost bounded by that of running it.
 *
 * Runs in light exits too: general registers only (light.h).
 */
#include "monitor/light.h"
#include "monitor/machine.h"

#define SMC_LEVEL     2u
#define SMC_LEVEL_MAX 12u
#define SMC_BUDGET    64u              /* instructions at level 0, were it emulated */
#define SMC_YOUNG_NS  (20u * 1000000u) /* a verso that lived shorter than this was not worth making */

static bool covered(const struct page_code *pc, unsigned off, unsigned len)
{
    if (pc->unit)
        return off + len > pc->unit_off;
    for (unsigned i = off; i < off + len && i < SCAN_PAGE_SIZE; i++)
        if (pc->covered[i >> 3] >> (i & 7) & 1)
            return true;
    return false;
}

/* Does a verso depend on these bytes? A unit's first page is known by its offset; what it has of its second lies within 14 bytes. A page
 * that is marked and has no verso lost it in a way that kept the mark: to be cleared. */
static bool hits_code(const struct machine *m, uint32_t pfn, unsigned off, unsigned len)
{
    bool any = false;
    if ((m->vm.code_pages[pfn] & CODE_PAGE_UNIT) && off < SCAN_INSN_MAX_LEN)
        return true;
    for (const struct page_code *pc = m->page_hash[code_page_bucket(pfn)]; pc; pc = pc->next) {
        if (pc->pfn != pfn)
            continue;
        any = true;
        if (covered(pc, off, len))
            return true;
    }
    return !any;
}

void vm_code_written(struct vm *vm, gpa_t a, unsigned len)
{
    if (!vm->run) { /* a bare struct vm (unit tests) */
        vm->code_pages[a.v >> 12] = 0;
        return;
    }
    struct machine *m = machine_of(vm);
    uint32_t pfn = (uint32_t)(a.v >> 12);
    if (!hits_code(m, pfn, (unsigned)a.v & PAGE_MASK_, len))
        return;
    cpu_fx_save(vm->cpu);
    code_drop_page(m, pfn);
}

void smc_dropped(struct machine *m, uint32_t pfn, uint64_t made_ns)
{
    struct smc_page *s = &m->smc[pfn];
    if (m->stepping) /* there everything is to be translated */
        return;
    bool young = machine_now_ns() - made_ns < SMC_YOUNG_NS;
    if (young && s->level < SMC_LEVEL_MAX)
        s->level++;
    else if (!young && s->level)
        s->level--;
    s->left = s->level >= SMC_LEVEL ? SMC_BUDGET << s->level : 0;
}

enum emu_result smc_run(struct machine *m, uint32_t pfn)
{
    struct cpu *c = m->vm.cpu;
    struct smc_page *s = &m->smc[pfn];
    uint32_t page = c->eip & ~PAGE_MASK_, esp = c->gpr[CPU_ESP], n = 0;
    enum emu_result r;
    do {
        r = emu_step(&m->vm);
        n++;
    } while (r == EMU_OK && (c->shadow || ((c->eip & ~PAGE_MASK_) == page && n < s->left)) && !c->host_event &&
             !(c->irq_pending && c->vif));
    COUNT_ADD(m, EMULATED, n);
    COUNT_ADD(m, EMULATED_SMC, n);
    s->left -= n < s->left ? n : s->left;
    /* Came by CALL and went by RET: the host's return address is used up too. Landings check, so a wrong guess only costs time. */
    if ((c->eip & ~PAGE_MASK_) != page && c->gpr[CPU_ESP] == esp + 4 && c->host_shadow < m->shadow_top)
        c->host_shadow += 8;
    return r;
}
