/* monitor/host.c: what devices ask of the machine. Compiled as light.c is, since devices run in light exits
 * too. */
#include <stdio.h>
#include <string.h>
#include <x86intrin.h>

#include "monitor/lockstep.h"
#include "monitor/machine.h"
#include "monitor/signals.h"

static struct machine *heavy(void *opaque)
{
    struct machine *m = opaque;
    cpu_fx_save(m->vm.cpu);
    return m;
}

void machine_end(struct machine *m, enum run_end end)
{
    if (!m->ended) {
        if (end == RUN_TRIPLE_FAULT)
            TRACE(m, SHUTDOWN, m->vm.cpu->cr2);
        m->ended = true;
        m->end = end;
    }
    m->vm.cpu->host_event = 1;
}

/* -- The guest's clock: the time-stamp counter, scaled, where it runs at one rate. It is read without the C library (which may use x87/SSE
 * registers), and a guest that compares devices' time with its own counter finds them in step. */

void machine_start_clock(struct machine *m)
{
    const struct cpu *c = m->vm.cpu;
    uint64_t ns = machine_guest_ns(m);
    m->clock_scale = c->tsc_invariant && c->tsc_hz ? (uint64_t)((1000000000ull << 32) / c->tsc_hz) : 0;
    machine_set_guest_ns(m, ns);
}

static uint64_t clock_ns(const struct machine *m)
{
    return m->clock_ns0 + (uint64_t)((unsigned __int128)(__rdtsc() - m->clock_tsc0) * m->clock_scale >> 32);
}

uint64_t machine_guest_ns(const struct machine *m)
{
    if (m->cfg->clock_stopped)
        return 0;
    if (m->slow_clock)
        return lockstep_guest_ns(m);
    return m->clock_scale ? clock_ns(m) : machine_now_ns() - m->t0_ns;
}

void machine_set_guest_ns(struct machine *m, uint64_t ns)
{
    m->t0_ns = machine_now_ns() - ns;
    m->clock_tsc0 = __rdtsc();
    m->clock_ns0 = ns;
}

void machine_arm_timer(struct machine *m)
{
    uint64_t now = machine_guest_ns(m), at = m->deadline_ns;
    signals_set_timer(m, at == UINT64_MAX ? 0 : machine_now_ns() + (at > now ? at - now : 0));
}

static uint64_t now_ns(void *opaque)
{
    struct machine *m = opaque;
    return m->clock_scale && !m->slow_clock && !m->cfg->clock_stopped ? clock_ns(m) : machine_guest_ns(heavy(m));
}

static void set_deadline(void *opaque, uint64_t at)
{
    struct machine *m = heavy(opaque);
    if (m->cfg->clock_stopped)
        return;
    m->deadline_ns = at;
    if (!m->slow_clock) /* then lockstep looks at the clock */
        machine_arm_timer(m);
}

/* -- */

static void intr(void *opaque, bool level)
{
    struct machine *m = opaque;
    m->intr = level;
    m->vm.cpu->irq_pending = level;
}

static void a20(void *opaque, bool on)
{
    struct machine *m = heavy(opaque);
    uint32_t mask = on ? 0xFFFFFFFFu : 0xFFEFFFFFu;
    if (m->vm.cpu->a20_mask == mask)
        return;
    m->vm.cpu->a20_mask = mask;
    m->vm.cpu->host_event = 1;
    mmu_flush_tlb(&m->vm);
    if (m->window)
        window_reset_all(m);
}

static void power_off(void *opaque)
{
    machine_end(opaque, RUN_POWER_OFF);
}

void firmware_request(struct machine *m, enum restart what)
{
    if (m->restart < what)
        m->restart = what;
    m->vm.cpu->host_event = 1;
}

static void reset(void *opaque, bool soft)
{
    struct machine *m = opaque;
    if (m->cfg->restart)
        firmware_request(m, soft ? RESTART_INIT : RESTART_RESET);
    else
        machine_end(m, RUN_RESET);
}

/* Only the built-in ROM is listened to. */
static void firmware_call(void *opaque, uint8_t command)
{
    struct machine *m = opaque;
    const struct cpu *c = m->vm.cpu;
    bool in_rom = !(c->cr0 & CPU_CR0_PE) && (c->seg[SCAN_CS].base | 0xFFF00000u) == 0xFFFF0000u &&
                  c->eip >= 0x10000 - FIRMWARE_ROM_SIZE;
    if (command == FIRMWARE_BOOT && in_rom && m->cfg->boot != RUN_BOOT_FIRMWARE) {
        if (m->cfg->restart)
            firmware_request(m, RESTART_BOOT);
        else
            machine_end(m, RUN_RESET);
    }
}

/* 82441FX data sheet, 3.2.18: PAM0 has F0000h to FFFFFh in its high half, PAM1 to PAM6 16 KiB in each half from C0000h up. Bit 0 of a
 * half lets reads, bit 1 writes reach RAM. */
static void shadow(void *opaque, const uint8_t pam[7])
{
    struct machine *m = heavy(opaque);
    for (unsigned i = 0; i < VM_SHADOW_UNITS; i++) {
        unsigned open = i < 12 ? pam[1 + i / 2] >> (i % 2 * 4) : pam[0] >> 4;
        m->vm.hidden[i] = (uint8_t)((open & 1 ? 0 : VM_HIDDEN_READ) | (open & 2 ? 0 : VM_HIDDEN_WRITE));
    }
    m->vm.cpu->host_event = 1;
    mmu_flush_tlb(&m->vm);
    window_reset_all(m);
}

static void exit_code(void *opaque, int status)
{
    struct machine *m = opaque;
    m->res->exit_status = status;
    machine_end(m, RUN_EXIT_PORT);
}

static void serial_out(void *opaque, uint8_t byte)
{
    struct machine *m = heavy(opaque);
    if (m->cfg->serial_out < 0)
        return;
    m->out[m->out_len++] = (char)byte;
    if (byte == '\n' || m->out_len == sizeof(m->out))
        machine_flush_output(m);
}

static void debug_out(void *opaque, uint8_t byte)
{
    const struct machine *m = heavy(opaque);
    fputc(byte, m->cfg->debug_console ? m->cfg->debug_console : stderr);
}

/* Looked at by the run loop before the next instruction. One NMI can wait while another is handled (SDM vol. 3, 6.7.1). */
static void nmi(void *opaque)
{
    struct machine *m = opaque;
    m->vm.cpu->nmi_pending = 1;
    m->vm.cpu->host_event = 1;
}

static void init(void *opaque)
{
    firmware_request(opaque, RESTART_INIT);
}

static void flush_page(void *opaque, uint64_t page)
{
    struct machine *m = heavy(opaque);
    (void)page; /* whoever maps it */
    mmu_flush_tlb(&m->vm);
    m->vm.cpu->host_event = 1;
    if (m->window)
        window_reset_all(m);
}

static bool in_ram(const struct machine *m, uint64_t a, size_t len)
{
    uint64_t end = a + len;
    return end >= a && end <= m->vm.ram_bytes && (end <= 0xA0000 || a >= 0xC0000);
}

static bool dma_read(void *opaque, uint64_t a, void *buf, size_t len)
{
    struct machine *m = heavy(opaque);
    if (!in_ram(m, a, len))
        return false;
    memcpy(buf, m->vm.ram + a, len);
    return true;
}

static bool dma_write(void *opaque, uint64_t a, const void *buf, size_t len)
{
    struct machine *m = heavy(opaque);
    if (!in_ram(m, a, len))
        return false;
    for (size_t done = 0, n; done < len; done += n) {
        size_t room = PAGE_SIZE_ - ((a + done) & PAGE_MASK_);
        n = len - done < room ? len - done : room;
        if (m->vm.code_pages[(a + done) >> 12])
            vm_code_written(&m->vm, gpa(a + done), (unsigned)n);
        memcpy(m->vm.ram + a + done, (const uint8_t *)buf + done, n);
        if (m->vm.mirror)
            memcpy(vm_view(&m->vm, a + done), (const uint8_t *)buf + done, n);
    }
    return true;
}

const struct dev_host_ops machine_host_ops = {
    now_ns, set_deadline, intr, a20, power_off, reset, exit_code, serial_out, debug_out,
    nmi, init, flush_page, dma_read, dma_write,
    firmware_call, shadow,
};
