/* monitor/host.c: what devices ask of the machine. Compiled as light.c is, since devices run in light exits
 * too. */
#include <stdio.h>

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

const struct dev_host_ops machine_host_ops = {
    now_ns, set_deadline, intr, a20, power_off, reset, exit_code, serial_out, debug_out,
};
