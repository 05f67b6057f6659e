/* monitor/run.c: the run loop: enter translated code, find out why it came back, act.
 *
 * Everything that is not a plain instruction comes back here: sensitive instructions for the emulator,
 * unresolved branches, host faults that are the guest's or nobody's, signals. Host faults that only needed a
 * mapping are settled inside the signal handler (signals.c) and never seen here.
 */
#include <cpuid.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

#include "monitor/boot.h"
#include "monitor/light.h"
#include "monitor/lockstep.h"
#include "monitor/machine.h"
#include "monitor/profile.h"
#include "monitor/sandbox.h"
#include "monitor/signals.h"

#define SHADOW_BYTES (256u << 10)
/* Emulated in one go when the state is not one that translated code is made for (segments, real mode, ...).
 */
#define EMULATE_BURST 1024u
#define SITE_PATIENCE 3u /* faults of one instruction before it is made to leave to the emulator */

static volatile sig_atomic_t quit_asked; /* of the run that is being made or running */
static struct machine *running; /* for run_quit() only */

uint64_t machine_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t machine_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* -- The time-stamp counter's rate: guests see the host's counter
 * ------------------------------------------------------------------------------------------------------------------
 */

#define TSC_SPAN_NS 5000000u /* at least so long between the two readings: then 50 ns of error are 10 ppm */

struct tsc_reading {
    uint64_t tsc, ns;
};

/* Both clocks at the same time: the closest of a few tries, since the host may take the processor away
 * between. */
static struct tsc_reading tsc_read(void)
{
    struct tsc_reading best = {0, 0};
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t before = __rdtsc(), ns = machine_now_ns(), after = __rdtsc();
        if (after - before < least) {
            least = after - before;
            best = (struct tsc_reading){before + (after - before) / 2, ns};
        }
    }
    return best;
}

static bool host_tsc_invariant(void) /* SDM vol. 3, 17.17.1 */
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & 1u << 8);
}

static uint64_t tsc_rate(struct tsc_reading from)
{
    while (machine_now_ns() - from.ns < TSC_SPAN_NS)
        ;
    struct tsc_reading to = tsc_read();
    return (uint64_t)((__uint128_t)(to.tsc - from.tsc) * 1000000000u / (to.ns - from.ns));
}

/* -- Counters' names
 * ----------------------------------------------------------------------------------------------------- */

const char *run_counter_name(enum run_counter c)
{
    static const char *const names[] = {
#define RUN_COUNTER(id, name, text) name,
#include "monitor/counter.def"
#undef RUN_COUNTER
    };
    return names[c];
}

const char *run_counter_text(enum run_counter c)
{
    static const char *const texts[] = {
#define RUN_COUNTER(id, name, text) text,
#include "monitor/counter.def"
#undef RUN_COUNTER
    };
    return texts[c];
}

void machine_flush_output(struct machine *m)
{
    for (unsigned done = 0; done < m->out_len;) {
        ssize_t n = write(m->cfg->serial_out, m->out + done, m->out_len - done);
        if (n > 0)
            done += (unsigned)n;
        else if (errno == EAGAIN) {
            struct pollfd p = {m->cfg->serial_out, POLLOUT, 0};
            poll(&p, 1, 100);
        } else if (errno != EINTR)
            break;
    }
    m->out_len = 0;
}

/* -- Hooks of emulator and MMU. They tolerate a bare struct vm (unit tests): run is set by run_machine()
 * only. ---------------- */

/* A local APIC that was moved over RAM hides it from the processor (SDM vol. 3, 10.4.5). */
void vm_apic_base_changed(struct vm *vm)
{
    const struct cpu *c = vm->cpu;
    uint64_t page = c->apic_base & ~(uint64_t)PAGE_MASK_;
    bool hides = (c->apic_base & 1u << 11) && page + PAGE_SIZE_ <= vm->ram_bytes;
    uint64_t hidden = hides ? page | 1 : 0;
    cpu_fx_save(vm->cpu);
    dev_apic_set_base(vm->bus, c->apic_base);
    if (hidden == vm->apic_page)
        return;
    vm->apic_page = hidden;
    mmu_flush_tlb(vm);
    if (vm->run) {
        if (hides)
            code_drop_page(machine_of(vm), (uint32_t)(page >> 12));
        window_reset_all(machine_of(vm));
    }
}

/* -- State that decides how to run
 * -------------------------------------------------------------------------------------------- */

/* Before each entry: mode and window for the present state. */
void machine_prepare(struct machine *m)
{
    uint32_t mode = machine_mode(m);
    if ((mode ^ m->mode) & ~(uint32_t)XLAT_MODE_USER)
        window_forget_branches(m); /* code made for other trap settings must not be found any more */
    m->mode = mode;
    window_select(m);
}

/* -- Events
 * ----------------------------------------------------------------------------------------------------------------------
 */

static void take_input(struct machine *m)
{
    pthread_mutex_lock(&m->input_lock);
    while (m->input_head != m->input_tail) {
        size_t n =
            m->input_tail > m->input_head ? m->input_tail - m->input_head : sizeof(m->input) - m->input_head;
        size_t took = dev_serial_in(m->vm.bus, m->input + m->input_head, n);
        if (!took)
            break;
        m->input_head = (unsigned)((m->input_head + took) % sizeof(m->input));
    }
    pthread_mutex_unlock(&m->input_lock);
}

/* A triple fault: the chipset answers the shutdown cycle with INIT# (82371AB data sheet, 5.1.7). */
static void shutdown(struct machine *m)
{
    if (m->cfg->restart)
        firmware_request(m, RESTART_INIT);
    else
        machine_end(m, RUN_TRIPLE_FAULT);
}

static void service_events(struct machine *m)
{
    m->vm.cpu->host_event = 0;
    if (m->restart && !m->ended) {
        firmware_restart(m);
        if (m->stepping)
            lockstep_resync(m);
    }
    uint8_t was = vm_doing(&m->vm, RUN_DOING_DEVICES);
    if (m->out_len)
        machine_flush_output(m);
    if (m->quit)
        machine_end(m, RUN_QUIT);
    bool expired = __atomic_exchange_n(&m->timer_expired, 0, __ATOMIC_RELAXED); /* one instruction: the handler may come between two */
    if (m->deadline_ns != UINT64_MAX && machine_guest_ns(m) >= m->deadline_ns) {
        m->deadline_ns = UINT64_MAX;
        dev_bus_run_timers(m->vm.bus);
    } else if (expired && !m->slow_clock) {
        machine_arm_timer(m); /* the host's clock runs ahead of the guest's */
    }
    take_input(m);
    vm_doing(&m->vm, was);
    if (m->ended)
        m->vm.cpu->host_event = 1;
}

static bool nmi_due(const struct cpu *c)
{
    return c->nmi_pending && !c->nmi_blocked;
}

/* HLT: sleep until an interrupt can be delivered. */
static void idle(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    uint64_t from = machine_now_ns();
    uint8_t was = vm_doing(&m->vm, RUN_DOING_IDLE);
    if (m->cfg->clock_stopped && !(c->irq_pending && c->vif) && !nmi_due(c))
        machine_end(m, RUN_QUIT);
    TRACE(m, HLT, 0);
    if (m->tracing)
        trace_show(m->trace);
    while (!m->ended && c->halted && !(c->irq_pending && c->vif) && !nmi_due(c) && !debug_called(m)) {
        if (m->out_len)
            machine_flush_output(m);
        if (!m->slow_clock || m->vm.cpu->host_event || !lockstep_idle(m))
            signals_wait(m);
        service_events(m);
    }
    vm_doing(&m->vm, was);
    COUNT_ADD(m, HALT_NS, machine_now_ns() - from);
    /* At the machine's end, or when a debugger comes in, it sleeps on: the run may be continued. */
    c->halted = c->halted && !(c->irq_pending && c->vif) && !nmi_due(c);
}

/* Is the instruction in front of EIP an STI? Any byte that looks like one will do. */
static bool behind_sti(struct machine *m)
{
    const struct cpu *c = m->vm.cpu;
    gva_t at = gva(c->seg[SCAN_CS].base + c->eip - 1);
    struct mmu_page p;
    const uint8_t *page = mmu_probe(&m->vm, at, &p) ? vm_readable(&m->vm, p.page.v) : NULL;
    return page && page[at.v & PAGE_MASK_] == 0xFB;
}

/* May an external interrupt be taken now? Translated code keeps no account of STI's shadow (SDM vol. 2, STI)
 * where the next instruction is translated too, so whatever stands behind an STI is run first: an interrupt
 * may always come one instruction later. Once only, so that a jump to itself is left in the end. */
static bool interrupts_open(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    if (!c->irq_pending || !c->vif || c->shadow)
        return false;
    m->sti_seen = !m->sti_seen && behind_sti(m);
    if (m->sti_seen)
        c->shadow = CPU_SHADOW_STI;
    return !m->sti_seen;
}

static void deliver_nmi(struct machine *m)
{
    COUNT(m, NMIS);
    TRACE(m, NMI, 0);
    m->vm.cpu->nmi_pending = 0;
    if (emu_interrupt(&m->vm, CPU_EXC_NMI) == EMU_SHUTDOWN)
        machine_end(m, RUN_TRIPLE_FAULT);
}

static void deliver(struct machine *m)
{
    uint8_t vector = dev_intr_ack(m->vm.bus);
    COUNT(m, IRQS);
    TRACE(m, IRQ, vector);
    if (emu_interrupt(&m->vm, vector) == EMU_SHUTDOWN)
        shutdown(m);
}

/* -- Emulation
 * -------------------------------------------------------------------------------------------------------------------
 */

static void after_emulation(struct machine *m, enum emu_result r)
{
    if (r == EMU_SHUTDOWN)
        shutdown(m);
    else if (r == EMU_HALT)
        idle(m);
}

/* The guest's page-fault handler returns to user code: what it mapped is wanted now. Saves the second host
 * fault. */
static void map_ahead(struct machine *m)
{
    m->pf_pending = false;
    if (!machine_translatable(m))
        return;
    /* The handler may have gone on elsewhere, so that A and D are not set on its behalf; kernels set both themselves. */
    struct mmu_page p;
    if (!mmu_probe(&m->vm, m->pf_addr, &p) || !p.accessed || (m->pf_write && !p.dirty))
        return;
    uint8_t was = vm_doing(&m->vm, RUN_DOING_FAULT);
    machine_prepare(m);
    if (!m->ended && !window_allows(m, m->pf_addr, m->pf_write) &&
        window_fault(m, m->current, m->pf_addr, m->pf_write) == WINDOW_MAPPED)
        COUNT(m, MAP_AHEAD);
    vm_doing(&m->vm, was);
}

static void emulate_one(struct machine *m, uint32_t why)
{
    struct cpu *c = m->vm.cpu;
    uint32_t cpl = c->cpl;
    bool sample = m->counter[RUN_COUNTER_EMULATED] % EMULATE_SAMPLE == 0;
    uint64_t t = sample ? machine_now_ns() : 0;
    enum emu_result r = emu_step(&m->vm);
    if (sample)
        COUNT_ADD(m, EMULATE_NS, (machine_now_ns() - t) * EMULATE_SAMPLE);
    COUNT(m, EMULATED);
    if (cpl == 0 && c->cpl == 3 && m->pf_pending && r == EMU_OK)
        map_ahead(m);
    if (why == XLAT_STUB_SREG && r == EMU_OK)
        light_remember_segment(m, m->operand);
    after_emulation(m, r);
}

/* An instruction whose access is legal, but not mapped (MMIO, user memory from the supervisor, code page, temporary mapping): one that does it
 * often gets its own exit. */
static void note_site(struct machine *m, struct inst *in, uint32_t eip)
{
    unsigned s = (eip ^ eip >> 12) % SITE_TABLE;
    if (m->site[s].eip != eip) {
        m->site[s].eip = eip;
        m->site[s].count = 0;
    }
    if (++m->site[s].count < SITE_PATIENCE)
        return;
    m->site[s].count = 0;
    if (!in || in->dead)
        return;
    if (m->fault_volatile)
        (void)code_force_hint(m, in, eip, XLAT_HINT_VOLATILE); /* the page may be mapped at other times: never the emulator for good */
    else if (m->fault_user && !(m->vm.cpu->cr4 & CPU_CR4_SMAP) && code_force_hint(m, in, eip, XLAT_HINT_USER))
        window_mark_chunk(m, m->fault_addr, true);
    else if (!m->fault_wrap || !code_force_hint(m, in, eip, XLAT_HINT_WRAP))
        code_force_emulation(m, in, eip);
}

/* A host fault that the handler could not settle: run the instruction in the emulator, which raises whatever
 * the guest must see. */
static void emulate_faulting(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    uint32_t eip = c->eip;
    if (m->stepping)
        lockstep_alone(m, RUN_ALONE_FAULT);
    struct inst *faulted = code_find(m, m->fault_rip);
    if (faulted)
        code_mark(faulted);
    COUNT(m, FAULT_EMULATED);
    TRACE(m, PAGE_FAULT, m->fault_addr.v, m->fault_write, m->fault_site,
          m->fault_rip - (uint64_t)(uintptr_t)m->code_rx);
    /* From now on in the other window; this time emulated, since a repeated string instruction may be under way: an interrupt taken here would
     * find it as if not begun. */
    bool settled = m->fault_chunk && window_mark_chunk(m, m->fault_addr, m->fault_user);
    if (m->fault_volatile || (m->fault_site && !settled))
        note_site(m, faulted, eip);
    bool user = c->cpl == 3;
    uint64_t faults = m->counter[RUN_COUNTER_PAGE_FAULTS];
    emulate_one(m, XLAT_STUB_EMULATE);
    if (m->counter[RUN_COUNTER_PAGE_FAULTS] != faults)
        COUNT(m, FAULT_GUEST);
    if (user && c->cpl == 0 && c->cr2 == m->fault_addr.v) {
        m->pf_pending = true;
        m->pf_addr = m->fault_addr;
        m->pf_write = m->fault_write;
    }
}

static void page_fault(struct machine *m, const struct mmu_fault *f)
{
    if (emu_page_fault(&m->vm, f) == EMU_SHUTDOWN)
        shutdown(m);
}

static void resolve(struct machine *m)
{
    struct mmu_fault f;
    COUNT(m, IBTC_MISSES);
    if (debug_breaks_in_page(m->debug, m->vm.cpu->eip))
        return; /* the loop looks first */
    uint8_t was = vm_doing(&m->vm, RUN_DOING_PLACE);
    enum code_result found = code_resolve(m, m->vm.cpu->eip, &f);
    vm_doing(&m->vm, was);
    switch (found) {
    case CODE_OK:
        break;
    case CODE_PAGE_FAULT:
        page_fault(m, &f);
        break;
    case CODE_EMULATE:
        if (m->stepping)
            lockstep_alone(m, RUN_ALONE_CODE);
        emulate_one(m, XLAT_STUB_EMULATE);
        break;
    case CODE_RUN:
        if (m->debug && m->debug->points) /* one at a time: any of them may be one to stop at */
            emulate_one(m, XLAT_STUB_EMULATE);
        else
            after_emulation(m, smc_run(m, m->operand));
        break;
    }
}

static void run_translated(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    machine_prepare(m);
    if (m->ended)
        return;
    uint32_t why = stub_enter(c);
    if (why != STUB_EXIT_LIGHT)
        COUNT(m, EXITS);
    if (why == XLAT_STUB_VOLATILE) { /* where light exits are off */
        if (!window_volatile_yet(m, m->operand * PAGE_SIZE_, 1)) {
            window_map_volatile(m, gva(m->operand * PAGE_SIZE_));
            return;
        }
        COUNT(m, EMULATED_VOLATILE);
    }
    if (xlat_stub_emulates(why)) {
        emulate_one(m, why);
        return;
    }
    switch (why) {
    case XLAT_STUB_MISS:
        resolve(m);
        break;
    case XLAT_STUB_STI: /* the shadow is noted */
        emulate_one(m, why);
        break;
    case STUB_EXIT_LIGHT:
        if (c->cpl == 3 && m->pf_pending && m->light_result == EMU_OK)
            map_ahead(m);
        after_emulation(m, m->light_result);
        break;
    case STUB_EXIT_FAULT:
        emulate_faulting(m);
        break;
    default: /* POLL, SIGNAL, ABORTED: the loop looks at the world */
        break;
    }
}

static void run_lockstep(struct machine *m)
{
    machine_prepare(m);
    if (m->ended)
        return;
    switch (lockstep_step(m)) {
    case LOCKSTEP_RESOLVE:
        resolve(m);
        break;
    case LOCKSTEP_EMULATE:
        lockstep_alone(m, RUN_ALONE_EXIT);
        emulate_one(m, m->why);
        break;
    case LOCKSTEP_FAULT:
        emulate_faulting(m);
        break;
    default:
        break;
    }
    m->insns++;
}

static void run_emulated(struct machine *m)
{
    unsigned done = 0;
    enum emu_result r = emu_run(&m->vm, EMULATE_BURST, (volatile int *)&m->vm.cpu->host_event, &done);
    m->insns += done;
    COUNT_ADD(m, EMULATED, done);
    if (!lockstep_skipping(m) && !m->cfg->emulate_only)
        COUNT_ADD(m, EMULATED_STATE, done);
    if (m->stepping)
        lockstep_alone_state(m, done);
    after_emulation(m, r);
}

/* The instruction after STI, a load of SS, or an IRET that set RF. */
static void emulate_shadowed(struct machine *m)
{
    if (m->stepping)
        lockstep_alone(m, RUN_ALONE_SHADOW);
    emulate_one(m, XLAT_STUB_EMULATE);
}

static bool take_interrupt(struct machine *m)
{
    const struct cpu *c = m->vm.cpu;
    if (debug_holds_interrupts(m))
        return false;
    /* An interrupt shadow holds back NMIs too: SDM vol. 3, 6.8.3 demands it after MOV SS and allows it after STI. */
    if (nmi_due(c) && !c->shadow)
        deliver_nmi(m);
    else if (interrupts_open(m))
        deliver(m);
    else
        return false;
    return true;
}

/* A debugger's step: one instruction, one element of a repeated one, or, where they are not held back, the way into an interrupt's
 * handler. From HLT always into a handler. */
static void run_step(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    if (c->halted) {
        idle(m);
        if (m->ended || m->restart || c->halted)
            return;
        if (nmi_due(c))
            deliver_nmi(m);
        else
            deliver(m);
    } else if (!take_interrupt(m)) {
        if (m->stepping)
            lockstep_alone(m, RUN_ALONE_DEBUGGER);
        enum emu_result r = emu_step(&m->vm);
        COUNT(m, EMULATED);
        m->insns++;
        if (r == EMU_SHUTDOWN)
            shutdown(m);
    }
    debug_stepped(m);
}

/* What a debugger has set comes first. True: the loop begins anew. */
static bool run_debugged(struct machine *m)
{
    if (debug_attend(m))
        return true;
    if (m->debug->stepping)
        run_step(m);
    else if (take_interrupt(m) || debug_break_here(m))
        ;
    else if (!m->vm.cpu->halted && !m->vm.cpu->shadow && debug_breaks_in_page(m->debug, debug_pc(m)))
        run_emulated(m);
    else
        return false;
    return true;
}

static void loop(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    if (m->debug)
        debug_begin(m);
    while (!m->ended) {
        if (c->host_event)
            service_events(m);
        if (m->lockstep)
            lockstep_poll(m);
        if (m->debug && run_debugged(m))
            continue;
        (void)take_interrupt(m);
        if (m->ended || m->restart)
            continue;
        if (c->halted)
            idle(m);
        else if (c->shadow || (c->eflags_sys & CPU_RF)) /* translated code does not know them; both last for one instruction */
            emulate_shadowed(m);
        else if (!machine_translatable(m) || lockstep_skipping(m))
            run_emulated(m);
        else if (m->stepping)
            run_lockstep(m);
        else
            run_translated(m);
        if (m->cfg->stop_after_insns && m->insns >= m->cfg->stop_after_insns)
            machine_end(m, RUN_QUIT);
    }
    if (m->out_len)
        machine_flush_output(m);
    if (m->debug)
        debug_finish(m);
}

/* -- Start and end
 * --------------------------------------------------------------------------------------------------------------------
 */

static bool make_ram(struct machine *m, char *err, size_t size)
{
    uint64_t rom_bytes, bytes = m->cfg->ram_bytes;
    const uint8_t *rom = firmware_image(m, &rom_bytes);
    m->vm.ram_bytes = bytes;
    m->vm.rom_bytes = rom_bytes;
    bytes += rom_bytes;
    m->frames = (uint32_t)(bytes / PAGE_SIZE_);
    m->ram_fd = memfd_create("verso-ram", MFD_CLOEXEC);
    if (m->ram_fd < 0 || ftruncate(m->ram_fd, (off_t)bytes) != 0)
        goto fail;
    m->vm.ram =
        mmap(NULL, bytes + PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->ram_fd, 0);
    if (m->vm.ram == MAP_FAILED) {
        m->vm.ram = NULL;
        goto fail;
    }
    memcpy(m->vm.ram + m->vm.ram_bytes, rom, rom_bytes);
    m->vm.code_pages = calloc(m->frames + 1, 1);
    if (!m->vm.code_pages)
        goto fail;
    return true;
fail:
    snprintf(err, size, "cannot allocate %llu MiB of guest memory: %s", (unsigned long long)(bytes >> 20),
             strerror(errno));
    return false;
}

/* All of the vCPU that is not guest state. */
static void wire_cpu(struct machine *m)
{
    struct cpu *c = m->vm.cpu;
    memset(c, 0, sizeof(*c));
    /* The bottom entry is the return-miss stub; a free slot above it is where that stub looks after popping.
     */
    m->shadow_top = (uint64_t)(uintptr_t)m->shadow_stack + PAGE_SIZE_ + SHADOW_BYTES - 64;
    *(uint64_t *)(uintptr_t)m->shadow_top = (uint64_t)(uintptr_t)stub_retmiss;
    c->host_shadow = m->shadow_top;
    bool bmi2 = xlat_host_options() & XLAT_OPT_BMI2;
    const char *lookup = bmi2 ? stub_lookup_bmi2 : stub_lookup_plain;
    c->stub[XLAT_STUB_EMULATE] = (uint64_t)(uintptr_t)stub_emulate;
    c->stub[XLAT_STUB_LOOKUP] = (uint64_t)(uintptr_t)lookup;
    c->stub[XLAT_STUB_MISS] = (uint64_t)(uintptr_t)stub_miss;
    c->stub[XLAT_STUB_RESCAN] = (uint64_t)(uintptr_t)stub_miss;
    c->stub[XLAT_STUB_STRADDLE] = (uint64_t)(uintptr_t)lookup; /* the table leads to the unit */
    c->stub[XLAT_STUB_STI] = (uint64_t)(uintptr_t)stub_sti;
    c->stub[XLAT_STUB_POLL] = (uint64_t)(uintptr_t)stub_poll;
    c->stub[XLAT_STUB_STEP] = (uint64_t)(uintptr_t)stub_step;
    c->stub[XLAT_STUB_SREG] = (uint64_t)(uintptr_t)stub_sreg;
    c->stub[XLAT_STUB_CPUID] = (uint64_t)(uintptr_t)stub_cpuid;
    c->stub[XLAT_STUB_SYSENTER] = (uint64_t)(uintptr_t)stub_sysenter;
    c->stub[XLAT_STUB_SYSEXIT] = (uint64_t)(uintptr_t)stub_sysexit;
    c->stub[XLAT_STUB_INT] = (uint64_t)(uintptr_t)stub_int;
    c->stub[XLAT_STUB_IRET] = (uint64_t)(uintptr_t)stub_iret;
    c->stub[XLAT_STUB_IN] = (uint64_t)(uintptr_t)stub_in;
    c->stub[XLAT_STUB_OUT] = (uint64_t)(uintptr_t)stub_out;
    c->stub[XLAT_STUB_VOLATILE] = (uint64_t)(uintptr_t)stub_volatile;
    c->stub[XLAT_STUB_RUN] = (uint64_t)(uintptr_t)stub_run;
    c->host_self = (uint64_t)(uintptr_t)m;
    c->host_avx = __builtin_cpu_supports("avx") != 0;
    c->mask_host_flags = CPU_HOST_FLAGS;
    c->mask_if = CPU_IF;
    c->mask_chunk = ~0u << CPU_CHUNK_SHIFT;
    c->mask_page = ~PAGE_MASK_;
    c->mask_volatile = (CPU_VOLATILE - 1) * PAGE_SIZE_;
    for (unsigned i = 0; i < CPU_VOLATILE; i++)
        c->volatile_page[i] = CPU_NO_PAGE;
    c->host_tsc_stopped = m->vm.x87_blind = m->cfg->clock_stopped;
}

static bool make_cpu(struct machine *m, char *err, size_t size)
{
    struct cpu *c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);
    uint64_t bytes = SHADOW_BYTES + 2 * PAGE_SIZE_;
    m->shadow_stack = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!c || m->shadow_stack == MAP_FAILED ||
        mprotect(m->shadow_stack + PAGE_SIZE_, SHADOW_BYTES, PROT_READ | PROT_WRITE) != 0) {
        snprintf(err, size, "cannot allocate the vCPU: %s", strerror(errno));
        free(c);
        return false;
    }
    m->vm.cpu = c;
    m->shadow_size = bytes;
    wire_cpu(m);
    return true;
}

/* Devices and vCPU as after power-on. */
static bool power_on(struct machine *m)
{
    int64_t epoch_s = m->cfg->clock_stopped ? 0 : (int64_t)time(NULL);
    machine_set_guest_ns(m, 0);
    m->deadline_ns = UINT64_MAX;
    m->vm.bus = dev_bus_create(&machine_host_ops, m, m->cfg->ram_bytes, epoch_s);
    if (!m->vm.bus)
        return false;
    for (unsigned i = 0; i < DEV_EXTRA_COUNT; i++)
        if (m->cfg->extras >> i & 1)
            dev_bus_add(m->vm.bus, (enum dev_extra)i);
    dev_apic_set_clock(m->vm.bus, 62500000); /* until the real rate is known */
    m->vm.cpu->features = m->cfg->cpu_features;
    emu_reset(&m->vm);
    return true;
}

static bool start(struct machine *m, char *err, size_t size)
{
    if (!make_ram(m, err, size) || !make_cpu(m, err, size))
        return false;
    m->vm.run = m;
    m->trace = m->cfg->trace;
    machine_observe(m);
    if (!window_init(m, err, size) || !code_init(m, err, size) || !lockstep_init(m, err, size) || !signals_init(m, err, size))
        return false;
    if (!debug_init(m, err, size))
        return false;
    if (!power_on(m)) {
        snprintf(err, size, "out of memory for the devices");
        return false;
    }
    return true;
}

void machine_close(struct machine *m)
{
    debug_end(m);
    signals_end(m);
    if (m->vm.bus) {
        struct dev_apic_counts n = dev_apic_counts(m->vm.bus);
        COUNT_ADD(m, APIC_EOI, n.eoi);
        COUNT_ADD(m, APIC_TPR, n.tpr);
        COUNT_ADD(m, APIC_ICR, n.icr);
        COUNT_ADD(m, APIC_TIMER, n.timer);
    }
    if (m->window)
        window_destroy(m);
    if (m->scan)
        code_destroy(m);
    lockstep_destroy(m);
    if (m->vm.bus)
        dev_bus_destroy(m->vm.bus);
    if (m->vm.ram)
        munmap(m->vm.ram, m->vm.ram_bytes + m->vm.rom_bytes + PAGE_SIZE_);
    if (m->ram_fd >= 0)
        close(m->ram_fd);
    if (m->shadow_stack && m->shadow_stack != MAP_FAILED)
        munmap(m->shadow_stack, m->shadow_size);
    free(m->vm.code_pages);
    free(m->vm.cpu);
    free(m);
}

struct machine *machine_open(const struct run_config *cfg, struct run_result *res)
{
    memset(res, 0, sizeof(*res));
    struct machine *m = calloc(1, sizeof(*m));
    if (!m) {
        snprintf(res->error, sizeof(res->error), "out of memory");
        return NULL;
    }
    m->cfg = cfg;
    m->res = res;
    m->counter = res->counter;
    m->ram_fd = m->code_fd = -1;
    if (!start(m, res->error, sizeof(res->error))) {
        machine_close(m);
        return NULL;
    }
    return m;
}

bool machine_power_cycle(struct machine *m)
{
    window_power_cycle(m);
    code_reset(m);
    dev_bus_destroy(m->vm.bus);
    memset(m->res, 0, sizeof(*m->res));
    memset(m->site, 0, sizeof(m->site));
    wire_cpu(m);
    m->why = m->operand = m->mode = 0;
    m->vm.apic_page = 0;
    m->intr = m->pf_pending = m->ended = m->sti_seen = false;
    m->quit = 0;
    m->end = RUN_POWER_OFF;
    m->restart = RESTART_NONE;
    m->insns = 0;
    m->input_head = m->input_tail = m->out_len = 0;
    signals_set_timer(m, 0);
    return power_on(m);
}

static void run(struct machine *m)
{
    m->vm.cpu->host_event = 1;
    if (profile_start(m, m->res->error, sizeof(m->res->error)))
        loop(m);
    else
        machine_end(m, RUN_FAILED);
    profile_stop(m);
    running = NULL;
    m->res->end = m->end;
}

void machine_run(struct machine *m)
{
    running = m;
    run(m);
}

void run_quit(void)
{
    struct machine *m = running;
    quit_asked = 1;
    if (m) {
        m->quit = 1;
        m->vm.cpu->host_event = 1;
        signals_kick(m);
    }
}

static void confine(const struct run_config *cfg)
{
    char why[100];
    unsigned when = (cfg->cache && !cfg->cache_readonly ? SANDBOX_CACHE : 0u) | (cfg->gdb ? SANDBOX_GDB : 0u);
    if (cfg->sandbox_status && !sandbox_enter(when, cfg->sandbox_status, why, sizeof(why)))
        fprintf(stderr, "verso: no filter of system calls: %s\n", why);
}

void run_machine(const struct run_config *cfg, struct run_result *out)
{
    struct timespec cpu0, cpu1;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu0);
    uint64_t wall0 = machine_now_ns();
    struct tsc_reading from = tsc_read();
    struct machine *m = machine_open(cfg, out);
    if (m && boot_start(m, out->error, sizeof(out->error))) {
        m->vm.cpu->tsc_hz = tsc_rate(from);
        m->vm.cpu->tsc_invariant = host_tsc_invariant();
        machine_start_clock(m);
        dev_apic_set_clock(m->vm.bus, (uint32_t)(m->vm.cpu->tsc_hz / 16)); /* as CPUID leaf 15h says */
        confine(cfg);
        running = m;
        if (quit_asked) /* while it was being made */
            m->quit = 1;
        run(m);
    } else {
        out->end = RUN_FAILED;
    }
    out->wall_ns = machine_now_ns() - wall0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu1);
    out->cpu_ns =
        (uint64_t)(cpu1.tv_sec - cpu0.tv_sec) * 1000000000u + (uint64_t)cpu1.tv_nsec - (uint64_t)cpu0.tv_nsec;
    if (m)
        machine_close(m);
    quit_asked = 0;
}
