/* devices/pic.c: the two 8259A of a PC and the edge/level registers of the PIIX.
 *
 * Rules are those of Intel's 8259A data sheet (231468-003), cited by section title. A request line that falls
 * before it was acknowledged withdraws its request, as on the chip ("the IR inputs must remain high until
 * after the falling edge of the first INTA").
 */
#include "devices/chips.h"

#include <string.h>

#define CASCADE_IR 2u

enum { ICW1_IC4 = 0x01, ICW1_SINGLE = 0x02, ICW1_INIT = 0x10 };
enum { ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum { OCW3_RIS = 0x01, OCW3_RR = 0x02, OCW3_POLL = 0x04, OCW3 = 0x08, OCW3_SMM = 0x20, OCW3_ESMM = 0x40 };
enum { OCW2_EOI = 0x20, OCW2_SPECIFIC = 0x40, OCW2_ROTATE = 0x80 };

/* Rank of the highest request in bits, 0 is the highest priority; 8 if none. */
static unsigned highest_rank(const struct pic_chip *c, uint8_t bits)
{
    for (unsigned rank = 0; rank < 8; rank++) {
        if (bits >> ((c->lowest + 1 + rank) & 7) & 1)
            return rank;
    }
    return 8;
}

static unsigned rank_to_input(const struct pic_chip *c, unsigned rank)
{
    return (c->lowest + 1 + rank) & 7;
}

/* The input to be served next, or -1: INT is high exactly when there is one. */
static int next_input(const struct pic_chip *c, bool master)
{
    uint8_t busy = c->isr;
    unsigned rank = highest_rank(c, c->irr & (uint8_t)~c->imr), busy_rank;

    if (rank == 8)
        return -1;
    /* Special Mask Mode: a level that is masked does not block others. */
    if (c->special_mask)
        busy &= (uint8_t)~c->imr;
    busy_rank = highest_rank(c, busy);
    /* Special Fully Nested Mode: a slave in service is not locked out, so it can report a request of higher
     * priority; what is below the slave still is. */
    if (c->fully_nested_special && master && rank == busy_rank && rank_to_input(c, rank) == CASCADE_IR)
        return (int)CASCADE_IR;
    return rank < busy_rank ? (int)rank_to_input(c, rank) : -1;
}

static void set_line(struct pic_chip *c, unsigned ir, bool level)
{
    uint8_t bit = (uint8_t)(1u << ir);

    if (!level) {
        c->line &= (uint8_t)~bit;
        c->irr &= (uint8_t)~bit;
        return;
    }
    if (!(c->line & bit) || (c->elcr & bit))
        c->irr |= bit;
    c->line |= bit;
}

/* Recomputes both INT pins. */
static void update(struct dev_pic *p)
{
    bool intr;

    set_line(&p->chip[PIC_MASTER], CASCADE_IR, next_input(&p->chip[PIC_SLAVE], false) >= 0);
    intr = next_input(&p->chip[PIC_MASTER], true) >= 0;
    if (intr != p->intr) {
        p->intr = intr;
        bus_pic_intr(p->bus, intr);
    }
}

void dev_pic_set(struct dev_pic *p, unsigned irq, bool level)
{
    struct pic_chip *c = &p->chip[irq >> 3 & 1];

    if ((c->line >> (irq & 7) & 1) == level)
        return;
    set_line(c, irq & 7, level);
    update(p);
}

void dev_pic_pulse(struct dev_pic *p, unsigned irq)
{
    uint8_t bit = (uint8_t)(1u << (irq & 7));
    struct pic_chip *c = &p->chip[irq >> 3 & 1];

    /* Not set_line(false): that would withdraw a request not yet served, and lose this tick instead of
     * merging it with the last. */
    c->line |= bit;
    c->irr |= bit;
    update(p);
}

/* -- Acknowledge and end of interrupt -------------------------------------------------------------------- */

static void take(struct pic_chip *c, unsigned ir)
{
    uint8_t bit = (uint8_t)(1u << ir);

    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_on_auto_eoi)
        c->lowest = (uint8_t)ir;
}

/* A slave whose INT stays high after its acknowledge (automatic EOI) must still show the master a new edge.
 */
static void drop_cascade(struct dev_pic *p)
{
    set_line(&p->chip[PIC_MASTER], CASCADE_IR, false);
}

static uint8_t ack_slave(struct dev_pic *p)
{
    struct pic_chip *s = &p->chip[PIC_SLAVE];
    int ir = next_input(s, false);

    if (ir < 0)
        return (uint8_t)(s->base + 7); /* "default IR7"; its ISR bit stays clear */
    take(s, (unsigned)ir);
    return (uint8_t)(s->base + ir);
}

uint8_t dev_pic_ack(struct dev_pic *p)
{
    struct pic_chip *m = &p->chip[PIC_MASTER];
    int ir = next_input(m, true);
    uint8_t vector;

    if (ir < 0)
        return (uint8_t)(m->base + 7);
    take(m, (unsigned)ir);
    vector = (uint8_t)(m->base + ir);
    if (ir == (int)CASCADE_IR && !(m->icw1 & ICW1_SINGLE)) {
        vector = ack_slave(p);
        drop_cascade(p);
    }
    update(p);
    return vector;
}

/* OCW2, "End of Interrupt" and "Rotation". */
static void command_ocw2(struct pic_chip *c, uint8_t v)
{
    unsigned ir = v & 7;
    bool rotate = (v & OCW2_ROTATE) != 0;

    switch (v & (OCW2_EOI | OCW2_SPECIFIC)) {
    case 0: /* rotate in automatic EOI mode, set or clear */
        c->rotate_on_auto_eoi = rotate;
        return;
    case OCW2_SPECIFIC: /* set priority (with R), else no operation */
        if (rotate)
            c->lowest = (uint8_t)ir;
        return;
    case OCW2_EOI: { /* non-specific: the highest in service; in special mask mode not one that is masked */
        uint8_t busy = c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr;
        unsigned rank = highest_rank(c, busy);

        if (rank == 8)
            return;
        ir = rank_to_input(c, rank);
        break;
    }
    default: /* specific */
        break;
    }
    c->isr &= (uint8_t) ~(1u << ir);
    if (rotate)
        c->lowest = (uint8_t)ir;
}

static void command_ocw3(struct pic_chip *c, uint8_t v)
{
    if (v & OCW3_ESMM)
        c->special_mask = (v & OCW3_SMM) != 0;
    if (v & OCW3_POLL)
        c->poll = true;
    if (v & OCW3_RR)
        c->read_isr = (v & OCW3_RIS) != 0;
}

/* -- Initialisation -------------------------------------------------------------------------------------- */

/* "Initialization Command Words 1 and 2": what ICW1 sets besides its own bits. LTIM is ignored: the PIIX has
 * ELCR instead. */
static void command_icw1(struct pic_chip *c, uint8_t v)
{
    c->icw1 = v;
    c->imr = 0;
    c->isr = 0;
    c->irr = c->line & c->elcr; /* edge sense is reset: a line already high makes no request */
    c->lowest = 7;
    c->special_mask = false;
    c->read_isr = false;
    c->poll = false;
    c->auto_eoi = c->rotate_on_auto_eoi = c->fully_nested_special = false;
    c->init_state = 2;
}

static void write_data(struct pic_chip *c, uint8_t v)
{
    switch (c->init_state) {
    case 2:
        c->base = v & 0xF8;
        c->init_state = c->icw1 & ICW1_SINGLE ? (c->icw1 & ICW1_IC4 ? 4 : 0) : 3;
        break;
    case 3:
        c->icw3 = v;
        c->init_state = c->icw1 & ICW1_IC4 ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = (v & ICW4_AEOI) != 0;
        c->fully_nested_special = (v & ICW4_SFNM) != 0;
        c->init_state = 0;
        break;
    default:
        c->imr = v;
        break;
    }
}

static void pic_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_pic *p = dev;
    struct pic_chip *c = &p->chip[port >= 0xA0 ? PIC_SLAVE : PIC_MASTER];
    uint8_t v = (uint8_t)value;

    (void)size;
    if (port & 1)
        write_data(c, v);
    else if (v & ICW1_INIT)
        command_icw1(c, v);
    else if (v & OCW3)
        command_ocw3(c, v);
    else
        command_ocw2(c, v);
    update(p);
}

/* "Poll Command": the read acts as the acknowledge; bit 7 says whether there was a request. */
static uint8_t poll_read(struct dev_pic *p, struct pic_chip *c)
{
    int ir = next_input(c, c == &p->chip[PIC_MASTER]);

    c->poll = false;
    if (ir < 0)
        return 0;
    take(c, (unsigned)ir);
    if (c == &p->chip[PIC_SLAVE])
        drop_cascade(p);
    update(p);
    return (uint8_t)(0x80 | ir);
}

static uint32_t pic_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_pic *p = dev;
    struct pic_chip *c = &p->chip[port >= 0xA0 ? PIC_SLAVE : PIC_MASTER];

    (void)size;
    if (c->poll)
        return poll_read(p, c);
    if (port & 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

const struct dev_io_ops dev_pic_ops = {pic_read, pic_write};

/* -- ELCR (82371AB data sheet, 4.2.5.7): IRQ 0, 1, 2, 8 and 13 are always edge-triggered. ------------------
 */

static uint32_t elcr_read(void *dev, uint32_t port, unsigned size)
{
    const struct dev_pic *p = dev;

    (void)size;
    return p->chip[port & 1].elcr;
}

static void elcr_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_pic *p = dev;
    struct pic_chip *c = &p->chip[port & 1];

    (void)size;
    c->elcr = (uint8_t)value & c->elcr_mask;
    c->irr = (uint8_t)((c->irr & ~c->elcr) | (c->line & c->elcr));
    update(p);
}

const struct dev_io_ops dev_elcr_ops = {elcr_read, elcr_write};

/* As a PC's firmware leaves it: vectors 08h and 70h, everything masked, the SCI level-triggered. */
void dev_pic_reset(struct dev_pic *p)
{
    memset(p->chip, 0, sizeof p->chip);
    for (unsigned i = 0; i < 2; i++) {
        p->chip[i].imr = 0xFF;
        p->chip[i].lowest = 7;
        p->chip[i].icw1 = ICW1_INIT | ICW1_IC4;
    }
    p->chip[PIC_MASTER].base = 0x08;
    p->chip[PIC_SLAVE].base = 0x70;
    p->chip[PIC_MASTER].elcr_mask = 0xF8;
    p->chip[PIC_SLAVE].elcr_mask = 0xDE;
    p->chip[PIC_SLAVE].elcr = 1u << (ACPI_SCI_IRQ - 8);
    update(p);
}
