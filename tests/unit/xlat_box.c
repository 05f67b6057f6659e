/* tests/unit/xlat_box.c: see xlat_box.h. */
#include "xlat_box.h"

#include <Zydis/Zydis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <ucontext.h>

#define CODE_BYTES 0x400000u /* of each piece */
#define PD         0x3F0000u /* page tables follow */
enum { STOP_SIGNAL = 100, STOP_BREAK = 101 };

struct box box;
#define HOT_MAX BOX_LOW_BYTES
static uint64_t ibtc[16];
static uint8_t saved_low[2][HOT_MAX];
static struct cpu saved_cpu[2];
static uint8_t saved_break;

uint64_t box_host_rsp;
extern char box_exit_emulate[], box_exit_lookup[], box_exit_miss[], box_exit_rescan[], box_exit_straddle[],
    box_exit_sti[], box_exit_poll[], box_exit_step[], box_exit_called[], box_leave[], box_retmiss[];
uint32_t box_enter(struct cpu *c, const uint8_t *entry, uint64_t window);

/* The offsets are checked below. The shadow stack is the caller's own, with box_retmiss at its bottom. */
__asm__(
    ".pushsection .text\n.intel_syntax noprefix\n"
    "box_enter:\n"
    " push rbx\n push rbp\n push r12\n push r13\n push r14\n push r15\n sub rsp, 8\n"
    " mov box_host_rsp[rip], rsp\n mov r13, rdi\n mov r11, rsi\n mov r15, rdx\n"
    " mov r12d, 1\n shl r12, 32\n add r12, r15\n"
    " lea rax, box_retmiss[rip]\n push rax\n"
    " lea rax, box_fx_offset[rip]\n mov eax, [rax]\n fxrstor64 [r13 + rax]\n"
    " lea rax, box_gpr_offset[rip]\n mov eax, [rax]\n lea r10, [r13 + rax]\n"
    " mov r8d, [r10 + 32]\n mov eax, [r10 + 36]\n or eax, 2\n push rax\n popfq\n"
    " mov eax, [r10]\n mov ecx, [r10 + 4]\n mov edx, [r10 + 8]\n mov ebx, [r10 + 12]\n mov r14d, [r10 + 16]\n"
    " mov ebp, [r10 + 20]\n mov esi, [r10 + 24]\n mov edi, [r10 + 28]\n jmp r11\n"
    "box_retmiss:\n lea rsp, [rsp - 8]\n"
    "box_exit_lookup:\n mov r9d, 1\n jmp box_leave\n"
    "box_exit_called:\n lea rsp, [rsp + 8]\n"
    "box_exit_emulate:\n mov r9d, 0\n jmp box_leave\n"
    "box_exit_miss:\n mov r9d, 2\n jmp box_leave\n"
    "box_exit_rescan:\n mov r9d, 3\n jmp box_leave\n"
    "box_exit_straddle:\n mov r9d, 4\n jmp box_leave\n"
    "box_exit_sti:\n mov r9d, 5\n jmp box_leave\n"
    "box_exit_poll:\n mov r9d, 6\n jmp box_leave\n"
    "box_exit_step:\n mov r9d, 7\n"
    "box_leave:\n mov rsp, box_host_rsp[rip]\n push rax\n push rax\n"
    " lea rax, box_gpr_offset[rip]\n mov eax, [rax]\n lea r10, [r13 + rax]\n"
    " mov [r10 + 4], ecx\n mov [r10 + 8], edx\n mov [r10 + 12], ebx\n mov [r10 + 16], r14d\n"
    " mov [r10 + 20], ebp\n mov [r10 + 24], esi\n mov [r10 + 28], edi\n mov [r10 + 32], r8d\n"
    " pop rax\n mov [r10], eax\n mov [rsp], r9\n pushfq\n pop rcx\n and ecx, 0xcd5\n mov [r10 + 36], ecx\n"
    " lea rax, box_fx_offset[rip]\n mov eax, [rax]\n fxsave64 [r13 + rax]\n fninit\n cld\n"
    " push 0x1f80\n ldmxcsr [rsp]\n pop rax\n pop rax\n"
    " add rsp, 8\n pop r15\n pop r14\n pop r13\n pop r12\n pop rbp\n pop rbx\n ret\n"
    ".att_syntax\n.popsection\n");
extern const uint32_t box_fx_offset, box_gpr_offset;
const uint32_t box_fx_offset = offsetof(struct cpu, fx), box_gpr_offset = offsetof(struct cpu, gpr);
_Static_assert(offsetof(struct cpu, eip) == offsetof(struct cpu, gpr) + 32, "box_enter");
_Static_assert(offsetof(struct cpu, arith) == offsetof(struct cpu, gpr) + 36, "box_enter");
_Static_assert(CPU_HOST_FLAGS == 0xCD5, "box_leave");

/* --- signals
 * ------------------------------------------------------------------------------------------------------- */

static void exchange_halves(greg_t *r)
{
    uint64_t v = (uint64_t)*r;

    *r = (greg_t)((v & ~0xFFFFull) | (v & 0xFF) << 8 | (v >> 8 & 0xFF));
}

/* Undoes what the record says, so that the registers are those of a boundary; returns the EIP. */
static uint32_t apply(const struct xlat_unwound *u, greg_t *g, uint32_t lin)
{
    static const int low[4] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX};
    uint32_t eip = lin + (uint32_t)u->guest_rel;

    switch (u->state) {
    case XLAT_AT_R8_RCX9:
        g[REG_RCX] = g[REG_R9];
        /* fall through */
    case XLAT_AT_R8:
        eip = (uint32_t)g[REG_R8];
        break;
    case XLAT_AT_RCX9:
        g[REG_RCX] = g[REG_R9];
        break;
    case XLAT_XCHG:
        exchange_halves(&g[low[u->arg]]);
        break;
    case XLAT_STRING:
        g[REG_RSI] &= 0xFFFFFFFF;
        g[REG_RDI] &= 0xFFFFFFFF;
        if (u->arg & XLAT_ARG_DF)
            g[REG_EFL] |= CPU_DF;
        break;
    case XLAT_AT_ESP:
        g[REG_R14] = (uint32_t)g[REG_R14] + 4u * (uint32_t)(int8_t)u->arg;
        break;
    default:
        break;
    }
    return eip;
}

static struct box_piece *piece_of(uint64_t rip)
{
    for (unsigned n = 0; n < BOX_PIECES; n++)
        if (box.piece[n].live && rip - (uint64_t)(uintptr_t)box.piece[n].code < box.piece[n].verso.code_len)
            return &box.piece[n];
    return NULL;
}

/* Host instructions are let run one by one (TF) while their record says RETRY. */
static void on_signal(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)g[REG_RIP];
    bool stepping = sig == SIGTRAP && box.break_retry, at_break = sig == SIGTRAP && !stepping;
    struct box_piece *p;
    uint64_t next;
    uint32_t off;

    if (sig == SIGFPE && emu_fpu_trap(rip, &next)) {
        g[REG_RIP] = (greg_t)next;
        return;
    }
    if (at_break && box.break_at && rip == (uint64_t)(uintptr_t)box.break_at + 1) {
        rip--;
        g[REG_RIP] = (greg_t)rip;
        *box.break_at = saved_break;
        box.break_hit = true;
    }
    p = piece_of(rip);
    if (!p) { /* stepped into an exit stub: that is as good */
        if (stepping) {
            g[REG_EFL] &= ~0x100;
            box.break_retry = false;
            return;
        }
        signal(sig, SIG_DFL);
        return;
    }
    off = (uint32_t)(rip - (uint64_t)(uintptr_t)p->code);
    box.fault =
        (struct box_fault){.signal = sig, .address = (uint64_t)(uintptr_t)si->si_addr, .host_off = off};
    box.fault.guard = box.fault.address - (uint64_t)(uintptr_t)box.window >= 1ull << 32;
    if (!xlat_unwind(p->verso.unwind, p->verso.unwind_len, off, &box.fault.at)) {
        g[REG_R9] = 200;
        g[REG_RIP] = (greg_t)(uintptr_t)box_leave;
        return;
    }
    if (sig == SIGTRAP && box.fault.at.state == XLAT_RETRY) {
        box.break_retry = true;
        g[REG_EFL] |= 0x100;
        return;
    }
    g[REG_EFL] &= ~0x100;
    box.break_retry = false;
    g[REG_R8] = apply(&box.fault.at, g, p->lin);
    g[REG_R9] = sig == SIGTRAP ? STOP_BREAK : STOP_SIGNAL;
    g[REG_RIP] = (greg_t)(uintptr_t)box_leave;
}

/* --- set-up
 * -------------------------------------------------------------------------------------------------------- */

static void *map(void *at, size_t size, int prot, int flags)
{
    void *p = mmap(at, size, prot, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return p;
}

static const struct box_range plain_range[] = {
#define BOX_ALIAS(base)                                                                                      \
    {base, 0, BOX_LOW_BYTES / 4096, BOX_P | BOX_W | BOX_U},                                                  \
        {base + BOX_CODE, BOX_CODE, 1, BOX_P | BOX_W | BOX_U},                                               \
    {                                                                                                        \
        base + 0x3FF000, BOX_LOW_BYTES - 4096, 1, BOX_P | BOX_W | BOX_U                                      \
    }
    BOX_ALIAS(0), BOX_ALIAS(0xC0000000u), BOX_ALIAS(0xFFC00000u)};
static const struct box_map plain_map = {plain_range, sizeof plain_range / sizeof plain_range[0], 0,
                                         BOX_LOW_BYTES};

static int host_rights(uint32_t rights, bool user)
{
    if (!(rights & BOX_P) || (user && !(rights & BOX_U)))
        return PROT_NONE;
    return rights & BOX_W ? PROT_READ | PROT_WRITE : PROT_READ;
}

static void map_window(void)
{
    for (unsigned n = 0; n < box.map->count; n++) {
        const struct box_range *r = &box.map->range[n];
        void *p = mmap(box.window + r->linear, r->pages * 4096, host_rights(r->rights, false),
                       MAP_SHARED | MAP_FIXED, box.ram_fd, r->ram);

        if (p == MAP_FAILED) {
            perror("mmap");
            exit(2);
        }
    }
}

void box_set_user(bool user)
{
    for (unsigned n = 0; n < box.map->count; n++) {
        const struct box_range *r = &box.map->range[n];

        if (!(r->rights & BOX_U) &&
            mprotect(box.window + r->linear, r->pages * 4096, host_rights(r->rights, user)))
            perror("mprotect");
    }
}

static void put_32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

static void page_tables(uint8_t *ram)
{
    uint32_t next = PD + 4096;

    for (unsigned n = 0; n < box.map->count; n++) {
        const struct box_range *r = &box.map->range[n];

        for (uint32_t page = 0; page < r->pages; page++) {
            uint32_t lin = r->linear + page * 4096, pde;

            memcpy(&pde, ram + PD + (lin >> 22) * 4, 4);
            if (!pde) {
                pde = next | 0x67;
                next += 4096;
                put_32(ram + PD + (lin >> 22) * 4, pde);
            }
            put_32(ram + (pde & ~0xFFFu) + (lin >> 12 & 0x3FF) * 4,
                   (r->ram + page * 4096) | 0x60 | r->rights);
        }
    }
}

static struct vm *make_vm(uint8_t *ram)
{
    struct vm *vm = calloc(1, sizeof *vm);

    vm->cpu = aligned_alloc(64, (sizeof *vm->cpu + 63) & ~(size_t)63);
    memset(vm->cpu, 0, sizeof *vm->cpu);
    vm->ram = ram;
    vm->ram_bytes = BOX_RAM_BYTES;
    vm->code_pages = calloc(BOX_RAM_BYTES >> 12, 1);
    return vm;
}

static void install(int sig)
{
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    sigemptyset(&sa.sa_mask);
    sigaction(sig, &sa, NULL);
}

void box_init(void)
{
    box_init_with(&plain_map);
}

void box_init_with(const struct box_map *box_map)
{
    stack_t alt = {.ss_size = 1 << 16};
    uint8_t *area = map(NULL, 64ull << 30, PROT_NONE, MAP_NORESERVE);

    box.map = box_map;
    box.ram_fd = memfd_create("box", 0);
    alt.ss_sp = map(NULL, alt.ss_size, PROT_READ | PROT_WRITE, 0);
    if (box.ram_fd < 0 || ftruncate(box.ram_fd, BOX_RAM_BYTES) || sigaltstack(&alt, NULL) ||
        box_map->hot_bytes > HOT_MAX)
        exit(2);
    box.window = (uint8_t *)(((uintptr_t)area + (6ull << 30) - 1) & ~((1ull << 32) - 1));
    map_window();
    box.ram = mmap(NULL, BOX_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, box.ram_fd, 0);
    box.oracle_ram = map(NULL, BOX_RAM_BYTES, PROT_READ | PROT_WRITE, 0);
    for (unsigned n = 0; n < BOX_PIECES; n++) {
        box.piece[n].code = map(NULL, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, 0);
        xlat_verso_init(&box.piece[n].verso);
    }
    page_tables(box.ram);
    page_tables(box.oracle_ram);
    box.vm = make_vm(box.ram);
    box.oracle = make_vm(box.oracle_ram);
    box.cpu = box.vm->cpu;
    box.page = calloc(1, sizeof *box.page);
    box.options = xlat_host_options();
    install(SIGSEGV);
    install(SIGTRAP);
    install(SIGFPE);
    install(SIGILL);
    install(SIGBUS);
    emu_fpu_catch(true);
}

static uint32_t seed_state;

uint32_t box_random(void) /* xorshift32 */
{
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 17;
    seed_state ^= seed_state << 5;
    return seed_state;
}

void box_segments(struct cpu *c)
{
    for (unsigned s = 0; s < 6; s++) {
        const struct cpu_seg *g = &c->seg[s];
        bool plain = !g->unusable && g->limit == 0xFFFFFFFFu && (g->attr & 0x1E) == 0x12;

        c->seg_base[s] = g->base;
        c->seg_sel[s] = g->sel;
        c->seg_window[s] = (uint64_t)(uintptr_t)(plain ? box.window : box.window + (40ull << 30));
    }
}

static void flat_segments(struct cpu *c)
{
    for (unsigned s = 0; s < 6; s++) {
        c->seg[s] = (struct cpu_seg){0, 0xFFFFFFFFu, (uint16_t)(0x10 + 8 * s), 0xC093, 0};
    }
    c->seg[SCAN_CS].attr = 0xC09B;
    c->seg[SCAN_FS].base = BOX_FS;
    c->seg[SCAN_GS].base = 0xC0000000u + BOX_DATA;
    box_segments(c);
}

static void plain_fx(struct cpu *c)
{
    static const uint8_t head[] = {0x7F, 0x03, 0, 0, 0, 0, 0, 0};

    memset(c->fx, 0, sizeof c->fx);
    memcpy(c->fx, head, sizeof head);
    put_32(c->fx + 24, 0x1F80);
    put_32(c->fx + 28, 0xFFFF);
    for (unsigned n = 0; n < 8 * 16; n++)
        c->fx[160 + n] = (uint8_t)box_random();
}

void box_connect(struct cpu *c)
{
    static void *const stub[] = {box_exit_emulate,  box_exit_lookup, box_exit_miss, box_exit_rescan,
                                 box_exit_straddle, box_exit_sti,    box_exit_poll, box_exit_step};

    for (unsigned n = 0; n < XLAT_STUB_COUNT; n++)
        c->stub[n] =
            (uint64_t)(uintptr_t)(n <= XLAT_STUB_STEP                           ? stub[n]
                                  : n == XLAT_STUB_SREG || n == XLAT_STUB_CPUID ? (void *)box_exit_called
                                                                                : box_exit_emulate);
    for (unsigned n = 0; n < 16; n++)
        ibtc[n] = (uint64_t)(uintptr_t)box_exit_lookup;
    c->ibtc = (uint64_t)(uintptr_t)ibtc;
    c->ibtc_mask = 15;
    c->mask_host_flags = CPU_HOST_FLAGS;
    c->mask_if = CPU_IF;
    c->mask_chunk = ~0u << CPU_CHUNK_SHIFT;
    c->mask_page = ~PAGE_MASK_;
    c->mask_volatile = (CPU_VOLATILE - 1) * PAGE_SIZE_;
    for (unsigned n = 0; n < CPU_CHUNKS; n++)
        c->user_window[n] = (uint64_t)(uintptr_t)box.window;
}

void box_reset(uint32_t seed)
{
    struct cpu *c = box.cpu;

    seed_state = seed * 2654435761u | 1;
    for (unsigned n = 0; n < box.map->hot_bytes; n += 4)
        put_32(box.ram + box.map->hot + n, box_random());
    memset(c, 0, sizeof *c);
    box_connect(c);
    c->a20_mask = 0xFFFFFFFFu;
    c->cr0 = CPU_CR0_PE | CPU_CR0_PG | CPU_CR0_NE | CPU_CR0_WP | CPU_CR0_ET | CPU_CR0_MP;
    c->cr3 = PD;
    c->cr4 = CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT;
    flat_segments(c);
    plain_fx(c);
    cpu_set_eflags(c, CPU_FLAG1);
    c->gpr[CPU_ESP] = BOX_STACK;
    c->eip = BOX_CODE;
    memcpy(box.oracle_ram + box.map->hot, box.ram + box.map->hot, box.map->hot_bytes);
    box_copy_cpu();
}

void box_copy_cpu(void)
{
    memcpy(box.oracle->cpu, box.cpu, sizeof *box.cpu);
    mmu_flush_tlb(box.vm);
    mmu_flush_tlb(box.oracle);
}

bool box_differs_elsewhere(bool level)
{
    uint32_t hot = box.map->hot, end = hot + box.map->hot_bytes;
    bool differs = false;

    for (unsigned n = 0; n < box.map->count; n++) {
        const struct box_range *r = &box.map->range[n];
        uint32_t last = r->ram + r->pages * 4096;

        if ((last > hot && r->ram < end) || !memcmp(box.ram + r->ram, box.oracle_ram + r->ram, last - r->ram))
            continue;
        differs = true;
        if (level)
            memcpy(box.ram + r->ram, box.oracle_ram + r->ram, last - r->ram);
    }
    return differs;
}

void box_save(void)
{
    memcpy(saved_low[0], box.ram + box.map->hot, box.map->hot_bytes);
    memcpy(saved_low[1], box.oracle_ram + box.map->hot, box.map->hot_bytes);
    saved_cpu[0] = *box.cpu;
    saved_cpu[1] = *box.oracle->cpu;
}

void box_restore(void)
{
    memcpy(box.ram + box.map->hot, saved_low[0], box.map->hot_bytes);
    memcpy(box.oracle_ram + box.map->hot, saved_low[1], box.map->hot_bytes);
    *box.cpu = saved_cpu[0];
    *box.oracle->cpu = saved_cpu[1];
    mmu_flush_tlb(box.vm);
    mmu_flush_tlb(box.oracle);
}

/* The scanned page into piece n. */
static bool place(unsigned n, uint32_t lin)
{
    struct box_piece *p = &box.piece[n];

    p->live = false;
    if (xlat_translate(box.page, box.mode, box.options, &p->verso) != XLAT_OK ||
        p->verso.code_len > CODE_BYTES)
        return false;
    memcpy(p->code, p->verso.code, p->verso.code_len);
    for (uint32_t k = 0; k < p->verso.reloc_count; k++) {
        uint8_t *field = p->code + p->verso.relocs[k].host_off;
        uint32_t v;

        memcpy(&v, field, 4);
        put_32(field, v + lin);
    }
    p->lin = lin;
    p->live = true;
    return true;
}

/* For XLAT_HINT_VOLATILE: every other page, where there is a place for it. */
static void tell_pages(struct cpu *c)
{
    for (unsigned n = 0; n < CPU_VOLATILE; n++)
        c->volatile_page[n] = CPU_NO_PAGE;
    for (unsigned r = 0; r < box.map->count; r++)
        for (uint32_t n = box.map->range[r].linear >> 12, left = box.map->range[r].pages; left; left--, n++)
            if (n % 2 == 0 && c->volatile_page[n % CPU_VOLATILE] == CPU_NO_PAGE)
                c->volatile_page[n % CPU_VOLATILE] = 0u - n;
}

bool box_translate(const uint16_t *entries, size_t n_entries)
{
    tell_pages(box.cpu);
    box.piece[1].live = box.piece[2].live = false;
    scan_page(box.ram + BOX_CODE, 32, entries, n_entries, box.page);
    for (unsigned n = 0; n < box.page->count; n++)
        if (box.hint && xlat_takes_hint(&box.page->insn[n], box.hint))
            box.page->insn[n].hint = (uint8_t)box.hint;
    return place(0, BOX_CODE);
}

bool box_load(const uint8_t *code, size_t len, const uint16_t *entries, size_t n_entries)
{
    static const uint16_t zero = 0;

    if (len > 4096)
        return false;
    memset(box.ram + BOX_CODE, 0xFF, 4096); /* FF FF is undefined: a sweep ends there */
    memcpy(box.ram + BOX_CODE, code, len);
    if (len < 4096)
        box.ram[BOX_CODE + len] = 0xF4;
    memcpy(box.oracle_ram + BOX_CODE, box.ram + BOX_CODE, 4096);
    return box_translate(n_entries ? entries : &zero, n_entries ? n_entries : 1);
}

/* --- running
 * ------------------------------------------------------------------------------------------------------- */

static bool step_emulator(struct vm *vm)
{
    return emu_step(vm) == EMU_OK;
}

static int32_t entry_in(const struct box_piece *p, uint32_t eip)
{
    return p->live && eip - p->lin < 4096 ? xlat_entry(p->verso.unwind, p->verso.unwind_len, eip - p->lin)
                                          : -1;
}

/* The page behind the code page, as far as the map has one. */
static bool is_second(uint32_t eip)
{
    for (unsigned n = 0; n < box.map->count; n++) {
        const struct box_range *r = &box.map->range[n];

        if (r->linear <= BOX_CODE && r->linear + r->pages * 4096 > BOX_CODE + 4096)
            return eip - (BOX_CODE + 4096) < 4096;
    }
    return false;
}

static const uint8_t *host_entry(uint32_t eip)
{
    unsigned n = is_second(eip);
    uint16_t off = eip & 0xFFF;
    int32_t at = entry_in(&box.piece[n], eip);

    if (at < 0 && n) {
        scan_page(box.ram + BOX_CODE + 4096, 32, &off, 1, box.page);
        if (place(n, BOX_CODE + 4096))
            at = entry_in(&box.piece[n], eip);
    }
    return at < 0 ? NULL : box.piece[n].code + at;
}

/* An instruction that runs into the page behind the code page. */
static const uint8_t *unit_entry(uint32_t eip)
{
    int32_t at;

    if (!is_second(eip + SCAN_INSN_MAX_LEN) ||
        scan_unit(box.ram + eip, SCAN_INSN_MAX_LEN, eip & 0xFFF, 32, box.page) != SCAN_OK ||
        !place(2, eip & ~0xFFFu))
        return NULL;
    at = entry_in(&box.piece[2], eip);
    return at < 0 ? NULL : box.piece[2].code + at;
}

static bool inside_page(uint32_t eip)
{
    return eip - BOX_CODE < 4096 && box.page->index[eip - BOX_CODE] >= 0;
}

static bool at_hlt(const uint8_t *ram, uint32_t eip)
{
    return eip - BOX_CODE < 2 * 4096 && ram[eip] == 0xF4 && eip != box.stop_not;
}

static void plant(void)
{
    if (!box.break_at)
        return;
    saved_break = *box.break_at;
    *box.break_at = 0xCC;
}

enum box_stop box_run(unsigned limit)
{
    struct cpu *c = box.cpu;
    const uint8_t *entry = NULL;

    box.break_hit = box.break_retry = false;
    plant();
    for (unsigned n = 0; n < limit; n++) {
        uint32_t why;

        if (!entry)
            entry = host_entry(c->eip);
        if (!entry && at_hlt(box.ram, c->eip))
            return BOX_HLT;
        if (!entry && inside_page(c->eip)) { /* ESP is not in place there: as the monitor does it */
            if (!step_emulator(box.vm))
                return BOX_SHUTDOWN;
            box.emulated++;
            continue;
        }
        if (!entry)
            return BOX_OUTSIDE;
        box.entered++;
        c->eflags_sys &= ~(uint32_t)CPU_RF; /* as the monitor's machine_prepare() does */
        why = box_enter(c, entry, (uint64_t)(uintptr_t)box.window);
        entry = NULL;
        if (why == STOP_SIGNAL && box.fault.signal == SIGSEGV && box.fault.guard &&
            box.fault.at.state != XLAT_RETRY) {
            if (!step_emulator(box.vm)) /* an address sum that left the window: as the monitor does it */
                return BOX_SHUTDOWN;
            box.emulated++;
            continue;
        }
        if (why == STOP_SIGNAL)
            return BOX_FAULT;
        if (why == 200)
            return BOX_NO_RECORD;
        if (why == XLAT_STUB_STRADDLE && !(entry = unit_entry(c->eip)))
            why = XLAT_STUB_EMULATE;
        if (why != XLAT_STUB_EMULATE)
            continue;
        if (at_hlt(box.ram, c->eip))
            return BOX_HLT;
        box.emulated++;
        if (!step_emulator(box.vm))
            return BOX_SHUTDOWN;
    }
    return BOX_LIMIT;
}

enum box_stop box_run_oracle(unsigned limit)
{
    struct cpu *c = box.oracle->cpu;

    for (unsigned n = 0; n < limit; n++) {
        if (at_hlt(box.oracle_ram, c->eip))
            return BOX_HLT;
        if (!step_emulator(box.oracle))
            return BOX_SHUTDOWN;
    }
    return BOX_LIMIT;
}

const char *box_compare_before(void)
{
    static char text[100];
    const struct cpu *a = box.cpu, *b = &saved_cpu[0];

    for (unsigned n = 0; n < 8; n++)
        if (a->gpr[n] != b->gpr[n]) {
            snprintf(text, sizeof text, "gpr %u is %08x, was %08x", n, a->gpr[n], b->gpr[n]);
            return text;
        }
    if (a->eip == b->eip && cpu_eflags(a) == cpu_eflags(b))
        return NULL;
    snprintf(text, sizeof text, "eip %08x flags %08x, were %08x %08x", a->eip, cpu_eflags(a), b->eip,
             cpu_eflags(b));
    return text;
}

static const char *compare_fx(const struct cpu *a, const struct cpu *b)
{
    if (memcmp(a->fx, b->fx, 5)) /* control, status, tags */
        return "x87 control, status or tags";
    if (memcmp(a->fx + 24, b->fx + 24, 4))
        return "MXCSR";
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(a->fx + 32 + 16 * n, b->fx + 32 + 16 * n, 10))
            return "x87 register";
    return memcmp(a->fx + 160, b->fx + 160, 128) ? "XMM register" : NULL;
}

const char *box_compare(void)
{
    static char text[200];
    const struct cpu *a = box.cpu, *b = box.oracle->cpu;
    const char *fx;

    for (unsigned n = 0; n < 8; n++)
        if (a->gpr[n] != b->gpr[n]) {
            snprintf(text, sizeof text, "gpr %u is %08x, should be %08x", n, a->gpr[n], b->gpr[n]);
            return text;
        }
    if (a->eip != b->eip || cpu_eflags(a) != cpu_eflags(b)) {
        snprintf(text, sizeof text, "eip %08x flags %08x, should be %08x %08x", a->eip, cpu_eflags(a), b->eip,
                 cpu_eflags(b));
        return text;
    }
    uint32_t from = box.map->hot, to = from + box.map->hot_bytes;
    for (uint32_t n = memcmp(box.ram + from, box.oracle_ram + from, to - from) ? from : to; n < to; n++)
        if (box.ram[n] != box.oracle_ram[n]) {
            snprintf(text, sizeof text, "memory at %05x is %02x, should be %02x", n, box.ram[n],
                     box.oracle_ram[n]);
            return text;
        }
    fx = compare_fx(a, b);
    if (fx)
        snprintf(text, sizeof text, "%s differs", fx);
    return fx ? text : NULL;
}

void box_revoke(uint32_t linear, bool revoke)
{
    uint32_t page = linear & ~0xFFFu;

    for (unsigned n = 0; n < box.map->count; n++) {
        const struct box_range *r = &box.map->range[n];

        if (page - r->linear < r->pages * 4096 &&
            mprotect(box.window + page, 4096,
                     revoke ? PROT_NONE : host_rights(r->rights, box.mode & XLAT_MODE_USER)))
            perror("mprotect");
    }
}

/* Every page that shows what tests change. */
static void revoke_all(bool revoke)
{
    for (unsigned n = 0; n < box.map->count; n++) {
        const struct box_range *r = &box.map->range[n];
        bool user = box.mode & XLAT_MODE_USER;

        if (r->ram + r->pages * 4096 > box.map->hot && r->ram < box.map->hot + box.map->hot_bytes &&
            mprotect(box.window + r->linear, r->pages * 4096,
                     revoke ? PROT_NONE : host_rights(r->rights, user)))
            perror("mprotect");
    }
}

/* --- whole programs under disturbance
 * -------------------------------------------------------------------------------- */

static char trouble[400];

static const char *interrupt_at(uint8_t *at)
{
    enum box_stop stop;
    const char *diff;
    long off = at - box.piece[0].code;

    box_restore();
    box.break_at = at;
    stop = box_run(100000);
    box.break_at = NULL;
    if (!box.break_hit) {
        *at = saved_break;
        return NULL;
    }
    if (stop == BOX_FAULT && box.fault.signal == SIGTRAP)
        stop = box_run(100000);
    if (stop != BOX_HLT) {
        snprintf(trouble, sizeof trouble, "stopped at host %ld, then: stop %d signal %d at host %u", off,
                 stop, box.fault.signal, box.fault.host_off);
        return trouble;
    }
    if (box_run_oracle(100000) != BOX_HLT)
        return "the emulator does not reach the end";
    diff = box_compare();
    if (diff)
        snprintf(trouble, sizeof trouble, "stopped at host %ld (state %d, guest %d): %s", off,
                 box.fault.at.state, box.fault.at.guest_rel, diff);
    return diff ? trouble : NULL;
}

static const char *interrupt_piece(struct box_piece *p, uint32_t from, uint32_t to, unsigned *points)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    const char *why = NULL;

    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (uint32_t off = from; off < to && off < p->verso.code_len && !why; off += insn.length) {
        if (!ZYAN_SUCCESS(
                ZydisDecoderDecodeInstruction(&decoder, NULL, p->code + off, p->verso.code_len - off, &insn)))
            return "host code does not decode";
        why = interrupt_at(p->code + off);
        *points += box.break_hit;
    }
    return why;
}

const char *box_interrupt_everywhere(unsigned *points)
{
    const char *why = NULL;

    for (unsigned n = 0; n < BOX_PIECES && !why; n++)
        if (box.piece[n].live)
            why = interrupt_piece(&box.piece[n], 0, UINT32_MAX, points);
    return why;
}

const char *box_interrupt_range(uint32_t from, uint32_t to, unsigned *points)
{
    struct box_piece *p = &box.piece[0];
    int32_t first = xlat_entry(p->verso.unwind, p->verso.unwind_len, from);
    int32_t last = xlat_entry(p->verso.unwind, p->verso.unwind_len, to);
    const char *why = NULL;

    if (first >= 0)
        why =
            interrupt_piece(p, (uint32_t)first, last > first ? (uint32_t)last : (uint32_t)first + 64, points);
    if (!why && box.piece[2].live)
        why = interrupt_piece(&box.piece[2], 0, UINT32_MAX, points);
    return why;
}

/* The emulator is driven to the instruction that faulted: registers and flags must agree there. */
static const char *agree_at_fault(void)
{
    for (unsigned n = 0; n < 100000; n++) {
        const struct cpu *a = box.cpu, *b = box.oracle->cpu;

        if (a->eip == b->eip && !memcmp(a->gpr, b->gpr, sizeof a->gpr) && cpu_eflags(a) == cpu_eflags(b))
            return NULL;
        if (at_hlt(box.oracle_ram, b->eip) || !step_emulator(box.oracle))
            break;
    }
    snprintf(trouble, sizeof trouble,
             "state at the fault (host %u, guest %d) is none the emulator goes through", box.fault.host_off,
             box.fault.at.guest_rel);
    return trouble;
}

static bool in_string_instruction(void)
{
    uint32_t off = box.cpu->eip - BOX_CODE;
    int n = off < 4096 ? box.page->index[off] : -1;

    return n >= 0 && box.page->insn[n].cls == SCAN_CLASS_STRING;
}

static const char *page_in(unsigned *faults)
{
    for (unsigned n = 0; n < 200; n++) {
        enum box_stop stop = box_run(100000);
        const char *why = NULL;

        if (stop == BOX_HLT)
            return box_run_oracle(100000) == BOX_HLT ? box_compare() : "the emulator does not reach the end";
        if (stop != BOX_FAULT || box.fault.guard || box.fault.at.state == XLAT_RETRY)
            return "stopped by something else than a fault on a page";
        ++*faults;
        if (!in_string_instruction()) /* an unfinished repeat is no state of the emulator's */
            why = agree_at_fault();
        if (why)
            return why;
        box_revoke((uint32_t)box.fault.address, false);
    }
    return "no progress";
}

const char *box_page_in_on_demand(unsigned *faults)
{
    const char *why;

    box_restore();
    revoke_all(true);
    why = page_in(faults);
    revoke_all(false);
    return why;
}
