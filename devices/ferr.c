/* devices/ferr.c: how a PC/AT tells the processor about x87 errors when CR0.NE is clear (SDM vol. 1, appendix
 * D.2.1): FERR# latches IRQ 13; the handler's write to port F0h clears the latch and has IGNNE# asserted, so
 * that it can read the x87's state, until FERR# goes away.
 */
#include "devices/chips.h"

#define IRQ_FPU 13u

static void set_irq(struct dev_ferr *f, bool level)
{
    f->irq = level;
    bus_irq(f->bus, IRQ_FPU, level);
}

void dev_ferr_pin(struct dev_ferr *f, bool asserted)
{
    if (asserted == f->ferr)
        return;
    f->ferr = asserted;
    if (asserted)
        set_irq(f, true);
    else
        f->ignne = false;
}

void dev_ferr(struct dev_bus *b, bool asserted)
{
    dev_ferr_pin(&b->ferr, asserted);
}

bool dev_ignne(const struct dev_bus *b)
{
    return b->ferr.ignne;
}

static uint32_t ferr_read(void *dev, uint32_t port, unsigned size)
{
    (void)dev;
    (void)port;
    (void)size;
    return 0xFF; /* write-only */
}

static void ferr_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_ferr *f = dev;

    (void)port;
    (void)size;
    (void)value;
    f->ignne = f->ferr;
    set_irq(f, false);
}

const struct dev_io_ops dev_ferr_ops = {ferr_read, ferr_write};

void dev_ferr_reset(struct dev_ferr *f)
{
    f->ferr = f->ignne = false;
    set_irq(f, false);
}
