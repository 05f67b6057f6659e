/* monitor/host.c: what devices ask of the machine. Compiled as light.c is, since devices run in light exits
 * too. */
#include <stdio.h>
#include <string.h>

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

static uint64_t now_ns(void *opaque)
{
    const struct machine *m = heavy(opaque);
    return machine_now_ns() - m->t0_ns;
}

static void set_deadline(void *opaque, uint64_t at)
{
    struct machine *m = heavy(opaque);
    m->deadline_ns = at;
    signals_set_timer(m, at == UINT64_MAX ? 0 : at + m->t0_ns);
}

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

static void reset(void *opaque)
{
    machine_end(opaque, RUN_RESET);
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
    heavy(opaque);
    fputc(byte, stderr);
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
    machine_end(opaque, RUN_RESET);
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
    }
    return true;
}

const struct dev_host_ops machine_host_ops = {
    now_ns, set_deadline, intr, a20, power_off, reset, exit_code, serial_out, debug_out,
    nmi, init, flush_page, dma_read, dma_write,
};
