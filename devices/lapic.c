/* devices/lapic.c: the local APIC of a processor (SDM vol. 3, chapter 10; sections cited alone are of it).
 *
 * The version is that of a Pentium 4 or later (14h) with six LVT entries; neither x2APIC nor the TSC-deadline
 * mode exist in this CPU model. Whether the processor has an interrupt to take is known at all times
 * (`ready`), so that nothing has to be searched between two instructions; it changes only when IRR, ISR or
 * TPR do.
 */
#include "devices/chips.h"

#include <string.h>

/* Register offsets (table 10-1). */
enum {
    REG_ID = 0x020,
    REG_VERSION = 0x030,
    REG_TPR = 0x080,
    REG_APR = 0x090,
    REG_PPR = 0x0A0,
    REG_EOI = 0x0B0,
    REG_RRD = 0x0C0,
    REG_LDR = 0x0D0,
    REG_DFR = 0x0E0,
    REG_SVR = 0x0F0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR_LOW = 0x300,
    REG_ICR_HIGH = 0x310,
    REG_LVT = 0x320,
    REG_LVT_LAST = 0x370,
    REG_INITIAL_COUNT = 0x380,
    REG_CURRENT_COUNT = 0x390,
    REG_DIVIDE = 0x3E0,
};

#define VERSION 0x00050014u /* integrated; highest LVT entry 5 */

enum { SVR_ENABLED = 1 << 8, SVR_WRITABLE = 0x3FF };
enum { ESR_SEND_ILLEGAL_VECTOR = 1 << 5, ESR_RECEIVE_ILLEGAL_VECTOR = 1 << 6, ESR_ILLEGAL_REGISTER = 1 << 7 };
enum {
    LVT_VECTOR = 0xFF,
    LVT_LOW = 1 << 13,
    LVT_REMOTE_IRR = 1 << 14,
    LVT_LEVEL = 1 << 15,
    LVT_MASKED = 1 << 16,
    LVT_PERIODIC = 1 << 17,
};
#define LVT_MODE(lvt) ((lvt) >> 8 & 7)
enum {
    ICR_LOGICAL = 1 << 11,
    ICR_ASSERT = 1 << 14,
    ICR_LEVEL = 1 << 15,
    ICR_WRITABLE = 0x000CCFFF, /* not the delivery status */
};
enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };
enum { LEGAL_VECTOR = 16 }; /* those below are reserved for exceptions (10.5.2) */

/* Which bits of an LVT entry can be written (figure 10-8). */
static const uint32_t lvt_writable[LAPIC_LVTS] = {
    [LAPIC_LVT_TIMER] = LVT_VECTOR | LVT_MASKED | LVT_PERIODIC,
    [LAPIC_LVT_THERMAL] = LVT_VECTOR | 0x700 | LVT_MASKED,
    [LAPIC_LVT_PERF] = LVT_VECTOR | 0x700 | LVT_MASKED,
    [LAPIC_LVT_LINT0] = LVT_VECTOR | 0x700 | LVT_LOW | LVT_LEVEL | LVT_MASKED,
    [LAPIC_LVT_LINT1] = LVT_VECTOR | 0x700 | LVT_LOW | LVT_LEVEL | LVT_MASKED,
    [LAPIC_LVT_ERROR] = LVT_VECTOR | LVT_MASKED,
};

/* A timer that repeats faster than this interrupts this often, as the 8254 does. */
#define MIN_PERIOD_NS 20000u

static void error(struct dev_lapic *l, uint32_t bit);

/* -- Priorities (10.8.3) -----------------------------------------------------------------------------------
 */

static bool bit(const uint32_t map[8], unsigned n)
{
    return map[n >> 5] >> (n & 31) & 1;
}

static void set_bit(uint32_t map[8], unsigned n, bool value)
{
    uint32_t b = 1u << (n & 31);

    map[n >> 5] = value ? map[n >> 5] | b : map[n >> 5] & ~b;
}

/* The highest vector in the map, 0 if there is none. */
static unsigned highest(const uint32_t map[8])
{
    for (unsigned i = 8; i-- > 0;) {
        if (map[i])
            return i * 32 + 31 - (unsigned)__builtin_clz(map[i]);
    }
    return 0;
}

static uint32_t processor_priority(const struct dev_lapic *l)
{
    unsigned in_service = highest(l->isr);

    return l->tpr >> 4 >= in_service >> 4 ? l->tpr : in_service & 0xF0;
}

static void update(struct dev_lapic *l)
{
    bool ready = highest(l->irr) >> 4 > processor_priority(l) >> 4;

    if (ready == l->ready)
        return;
    l->ready = ready;
    bus_update_intr(l->bus);
}

/* -- Accepting interrupts ----------------------------------------------------------------------------------
 */

bool dev_lapic_enabled(const struct dev_lapic *l)
{
    return (l->base & LAPIC_BASE_ENABLED) != 0;
}

static bool software_enabled(const struct dev_lapic *l)
{
    return dev_lapic_enabled(l) && (l->svr & SVR_ENABLED);
}

/* "Interrupt Acceptance for Fixed Interrupts" (10.8.4): TMR is written when a vector is accepted. */
static bool accept_vector(struct dev_lapic *l, unsigned vector, bool level)
{
    if (!software_enabled(l))
        return false;
    if (vector < LEGAL_VECTOR) {
        error(l, ESR_RECEIVE_ILLEGAL_VECTOR);
        return false;
    }
    set_bit(l->irr, vector, true);
    set_bit(l->tmr, vector, level);
    update(l);
    return true;
}

bool dev_lapic_accept(struct dev_lapic *l, enum apic_mode mode, unsigned vector, bool level)
{
    switch (mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return accept_vector(l, vector, level);
    case APIC_NMI:
        if (!dev_lapic_enabled(l))
            return false;
        l->bus->host.nmi(l->bus->opaque);
        return true;
    case APIC_INIT:
        if (!dev_lapic_enabled(l))
            return false;
        bus_init_request(l->bus);
        return true;
    default: /* SMI: there is no system management mode. Start-up: the processor does not wait for one
                (8.4.3). */
        return dev_lapic_enabled(l);
    }
}

/* "Determining IPI Destination" (10.6.2). */
bool dev_lapic_matches(const struct dev_lapic *l, uint8_t destination, bool logical)
{
    uint8_t id = (uint8_t)(l->id >> 24), mda = destination, ldr = (uint8_t)(l->ldr >> 24);

    if (!dev_lapic_enabled(l))
        return false;
    if (mda == 0xFF) /* broadcast in every mode */
        return true;
    if (!logical)
        return mda == id;
    if (l->dfr >> 28 == 0xF) /* flat */
        return (mda & ldr) != 0;
    return mda >> 4 == ldr >> 4 && (mda & ldr & 0xF) != 0; /* cluster */
}

/* -- The local vector table (10.5.1) -----------------------------------------------------------------------
 */

static void local_interrupt(struct dev_lapic *l, unsigned n)
{
    uint32_t lvt = l->lvt[n];

    if (!(lvt & LVT_MASKED))
        (void)dev_lapic_accept(l, (enum apic_mode)LVT_MODE(lvt), lvt & LVT_VECTOR, false);
}

static void error(struct dev_lapic *l, uint32_t b)
{
    bool reported = (l->esr_new & b) != 0;

    l->esr_new |= b;
    if (!reported)
        local_interrupt(l, LAPIC_LVT_ERROR);
}

static bool asserted(const struct dev_lapic *l, unsigned pin)
{
    return l->pin[pin] != ((l->lvt[LAPIC_LVT_LINT0 + pin] & LVT_LOW) != 0);
}

/* Level-triggered pins: only in fixed mode, and not again before the EOI. */
static void level_pin(struct dev_lapic *l, unsigned pin)
{
    uint32_t *lvt = &l->lvt[LAPIC_LVT_LINT0 + pin];

    if ((*lvt & (LVT_MASKED | LVT_LEVEL | LVT_REMOTE_IRR)) == LVT_LEVEL && LVT_MODE(*lvt) == APIC_FIXED &&
        asserted(l, pin) && accept_vector(l, *lvt & LVT_VECTOR, true))
        *lvt |= LVT_REMOTE_IRR;
}

/* NMI, SMI and INIT are edges whatever the trigger mode says; ExtINT is looked at by its level (bus.c). */
void dev_lapic_pin(struct dev_lapic *l, unsigned pin, bool level)
{
    uint32_t lvt = l->lvt[LAPIC_LVT_LINT0 + pin];
    bool before = asserted(l, pin);

    l->pin[pin] = level;
    if (!asserted(l, pin) || before || !dev_lapic_enabled(l) || LVT_MODE(lvt) == APIC_EXTINT)
        return;
    if (LVT_MODE(lvt) == APIC_FIXED && (lvt & LVT_LEVEL))
        level_pin(l, pin);
    else
        local_interrupt(l, LAPIC_LVT_LINT0 + pin);
}

bool dev_lapic_takes_extint(const struct dev_lapic *l)
{
    uint32_t lvt = l->lvt[LAPIC_LVT_LINT0];

    return !dev_lapic_enabled(l) || (!(lvt & LVT_MASKED) && LVT_MODE(lvt) == APIC_EXTINT);
}

/* -- The processor's side ----------------------------------------------------------------------------------
 */

uint8_t dev_lapic_ack(struct dev_lapic *l)
{
    unsigned vector = highest(l->irr);

    if (!l->ready) /* "Spurious Interrupt" (10.9): no bit in ISR */
        return (uint8_t)l->svr;
    set_bit(l->irr, vector, false);
    set_bit(l->isr, vector, true);
    update(l);
    return (uint8_t)vector;
}

/* 10.8.5. */
static void end_of_interrupt(struct dev_lapic *l)
{
    unsigned vector = highest(l->isr);

    l->counts.eoi++;
    if (!vector)
        return;
    set_bit(l->isr, vector, false);
    update(l);
    if (!bit(l->tmr, vector))
        return;
    for (unsigned pin = 0; pin < 2; pin++) {
        uint32_t *lvt = &l->lvt[LAPIC_LVT_LINT0 + pin];

        if ((*lvt & LVT_REMOTE_IRR) && (*lvt & LVT_VECTOR) == vector) {
            *lvt &= ~(uint32_t)LVT_REMOTE_IRR;
            level_pin(l, pin);
        }
    }
    dev_ioapic_eoi(&l->bus->ioapic, (uint8_t)vector);
}

/* -- Interprocessor interrupts (10.6) ----------------------------------------------------------------------
 */

static void send(struct dev_lapic *l)
{
    enum apic_mode mode = (enum apic_mode)(l->icr_low >> 8 & 7);
    unsigned vector = l->icr_low & 0xFF, shorthand = l->icr_low >> 18 & 3;
    uint8_t destination = (uint8_t)(l->icr_high >> 24);

    l->counts.icr++;
    /* "INIT level de-assert" only synchronised arbitration IDs, which later processors have not. */
    if (mode == APIC_INIT && (l->icr_low & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
        return;
    if ((mode == APIC_FIXED || mode == APIC_LOWEST) && vector < LEGAL_VECTOR) {
        error(l, ESR_SEND_ILLEGAL_VECTOR);
        return;
    }
    switch (shorthand) {
    case SHORTHAND_NONE:
        bus_apic_message(l->bus, mode, vector, destination, (l->icr_low & ICR_LOGICAL) != 0, false);
        return;
    case SHORTHAND_SELF: /* the manual has fixed interrupts only; processors do the others too, and tests rely
                            on it */
    case SHORTHAND_ALL:
        bus_apic_message(l->bus, mode, vector, 0xFF, false, false);
        return;
    default: /* there are no others */
        return;
    }
}

/* -- The timer (10.5.4) ------------------------------------------------------------------------------------
 */

static uint64_t ticks_now(const struct dev_lapic *l)
{
    return bus_ticks(bus_now(l->bus), l->hz);
}

static bool periodic(const struct dev_lapic *l)
{
    return (l->lvt[LAPIC_LVT_TIMER] & LVT_PERIODIC) != 0;
}

static unsigned divide_shift(const struct dev_lapic *l)
{
    return (((l->divide & 3) | (l->divide >> 1 & 4)) + 1) &
           7; /* figure 10-10: 000 is 2, 110 is 128, 111 is 1 */
}

/* Counts since the initial count was written, at tick. */
static uint64_t elapsed(const struct dev_lapic *l, uint64_t tick)
{
    return (tick - l->start) >> divide_shift(l);
}

static uint32_t current_count(const struct dev_lapic *l, uint64_t tick)
{
    uint64_t e;

    if (!l->running)
        return 0;
    e = elapsed(l, tick);
    if (periodic(l))
        return l->initial - (uint32_t)(e % l->initial);
    return e >= l->initial ? 0 : l->initial - (uint32_t)e;
}

static void schedule(struct dev_lapic *l)
{
    uint64_t at;

    if (!l->running || (l->lvt[LAPIC_LVT_TIMER] & LVT_MASKED)) {
        bus_timer(l->bus, TIMER_LAPIC, DEV_NEVER);
        return;
    }
    at = bus_ticks_to_ns(l->start + ((l->expired + 1) * l->initial << divide_shift(l)), l->hz);
    if (periodic(l) && l->expired_ns && at < l->expired_ns + MIN_PERIOD_NS)
        at = l->expired_ns + MIN_PERIOD_NS;
    bus_timer(l->bus, TIMER_LAPIC, at);
}

/* Interrupts for what expired up to now: one, however many periods they were. A one-shot count stops at 0. */
static void expire(struct dev_lapic *l, uint64_t now_ns, uint64_t tick)
{
    uint64_t n;

    if (!l->running)
        return;
    n = elapsed(l, tick) / l->initial;
    if (n == l->expired)
        return;
    l->expired = n;
    l->expired_ns = now_ns;
    if (!periodic(l))
        l->running = false;
    local_interrupt(l, LAPIC_LVT_TIMER);
}

void dev_lapic_run(struct dev_lapic *l, uint64_t now_ns)
{
    expire(l, now_ns, bus_ticks(now_ns, l->hz));
    schedule(l);
}

/* Counting goes on with what is left, under a new divider or mode: the present period starts anew in the
 * past. */
static void rebase(struct dev_lapic *l, uint64_t tick, uint32_t divide, uint32_t lvt)
{
    uint64_t in_period = 0;

    if (l->running)
        in_period = elapsed(l, tick) % l->initial;
    l->divide = (uint8_t)divide;
    l->lvt[LAPIC_LVT_TIMER] = lvt;
    l->start = tick - (in_period << divide_shift(l));
    l->expired = 0;
}

static void timer_write(struct dev_lapic *l, unsigned reg, uint32_t v)
{
    uint64_t now = bus_now(l->bus), tick = bus_ticks(now, l->hz);

    expire(l, now, tick); /* what was due before this write must not be lost by it */
    switch (reg) {
    case REG_INITIAL_COUNT:
        l->counts.timer++;
        l->initial = v;
        l->start = tick;
        l->expired = l->expired_ns = 0;
        l->running = v != 0;
        break;
    case REG_DIVIDE:
        if ((v & 0xB) != l->divide)
            rebase(l, tick, v & 0xB, l->lvt[LAPIC_LVT_TIMER]);
        break;
    default:
        if ((v ^ l->lvt[LAPIC_LVT_TIMER]) & LVT_PERIODIC)
            rebase(l, tick, l->divide, v);
        else
            l->lvt[LAPIC_LVT_TIMER] = v;
        break;
    }
    schedule(l);
}

/* -- Registers ---------------------------------------------------------------------------------------------
 */

/* 10.4.7.2: while the APIC is disabled by software, the mask bits of the LVT are set and stay so. */
static void write_lvt(struct dev_lapic *l, unsigned n, uint32_t v)
{
    uint32_t status = l->lvt[n] & LVT_REMOTE_IRR;

    v = (v & lvt_writable[n]) | (l->svr & SVR_ENABLED ? 0 : LVT_MASKED);
    if (n == LAPIC_LVT_TIMER) {
        timer_write(l, REG_LVT, v);
        return;
    }
    l->lvt[n] = v | (v & LVT_LEVEL ? status : 0);
    if (n == LAPIC_LVT_LINT0 || n == LAPIC_LVT_LINT1)
        level_pin(l, n - LAPIC_LVT_LINT0);
    bus_update_intr(l->bus);
}

static void write_svr(struct dev_lapic *l, uint32_t v)
{
    l->svr = v & SVR_WRITABLE;
    if (!(l->svr & SVR_ENABLED)) {
        for (unsigned n = 0; n < LAPIC_LVTS; n++)
            write_lvt(l, n, l->lvt[n]);
    } else {
        dev_ioapic_service(&l->bus->ioapic); /* levels that nobody took */
    }
}

static uint32_t read_map(const uint32_t map[8], unsigned reg)
{
    return map[reg >> 4 & 7];
}

static uint32_t read_register(struct dev_lapic *l, unsigned reg)
{
    switch (reg) {
    case REG_ID:
        return l->id;
    case REG_VERSION:
        return VERSION;
    case REG_TPR:
        return l->tpr;
    case REG_APR:
    case REG_EOI:
    case REG_RRD:
        return 0;
    case REG_PPR:
        return processor_priority(l);
    case REG_LDR:
        return l->ldr;
    case REG_DFR:
        return l->dfr;
    case REG_SVR:
        return l->svr;
    case REG_ISR ... REG_ISR + 0x70:
        return read_map(l->isr, reg);
    case REG_TMR ... REG_TMR + 0x70:
        return read_map(l->tmr, reg);
    case REG_IRR ... REG_IRR + 0x70:
        return read_map(l->irr, reg);
    case REG_ESR:
        return l->esr;
    case REG_ICR_LOW:
        return l->icr_low;
    case REG_ICR_HIGH:
        return l->icr_high;
    case REG_LVT ... REG_LVT_LAST:
        return l->lvt[(reg - REG_LVT) >> 4];
    case REG_INITIAL_COUNT:
        return l->initial;
    case REG_CURRENT_COUNT:
        return current_count(l, ticks_now(l));
    case REG_DIVIDE:
        return l->divide;
    default:
        error(l, ESR_ILLEGAL_REGISTER);
        return 0;
    }
}

static void write_register(struct dev_lapic *l, unsigned reg, uint32_t v)
{
    switch (reg) {
    case REG_ID:
        l->id = v & 0xFF000000u;
        dev_ioapic_service(&l->bus->ioapic);
        return;
    case REG_TPR:
        l->counts.tpr++;
        l->tpr = v & 0xFF;
        update(l);
        return;
    case REG_EOI:
        end_of_interrupt(l);
        return;
    case REG_LDR:
        l->ldr = v & 0xFF000000u;
        dev_ioapic_service(&l->bus->ioapic);
        return;
    case REG_DFR:
        l->dfr = v | 0x0FFFFFFFu;
        dev_ioapic_service(&l->bus->ioapic);
        return;
    case REG_SVR:
        write_svr(l, v);
        return;
    case REG_ESR: /* 10.5.3: a write brings up what was noted since the last one */
        l->esr = l->esr_new;
        l->esr_new = 0;
        return;
    case REG_ICR_LOW:
        l->icr_low = v & ICR_WRITABLE;
        send(l);
        return;
    case REG_ICR_HIGH:
        l->icr_high = v & 0xFF000000u;
        return;
    case REG_LVT ... REG_LVT_LAST:
        write_lvt(l, (reg - REG_LVT) >> 4, v);
        return;
    case REG_INITIAL_COUNT:
    case REG_DIVIDE:
        timer_write(l, reg, v);
        return;
    case REG_VERSION:
    case REG_APR:
    case REG_PPR:
    case REG_RRD:
    case REG_ISR ... REG_IRR + 0x70:
    case REG_CURRENT_COUNT:
        return; /* read-only */
    default:
        error(l, ESR_ILLEGAL_REGISTER);
        return;
    }
}

/* 10.4.1: registers are 32 bits wide on 128-bit boundaries, anything else is undefined. Here other reads give
 * the bytes of the register and zeros behind them, other writes do nothing. */
static uint32_t lapic_read(void *dev, uint32_t addr, unsigned size)
{
    unsigned at = addr & 15;
    uint64_t v;

    if (at >= 4)
        return 0;
    v = read_register(dev, addr & 0xFF0);
    return (uint32_t)(v >> 8 * at) & (0xFFFFFFFFu >> (32 - 8 * size));
}

static void lapic_write(void *dev, uint32_t addr, unsigned size, uint32_t value)
{
    if (size == 4 && !(addr & 15))
        write_register(dev, addr & 0xFF0, value);
}

const struct dev_io_ops dev_lapic_ops = {lapic_read, lapic_write};

/* -- States ------------------------------------------------------------------------------------------------
 */

/* 10.4.7.3: what INIT leaves; the ID and the base stay. */
void dev_lapic_init(struct dev_lapic *l)
{
    memset(l->isr, 0, sizeof l->isr);
    memset(l->irr, 0, sizeof l->irr);
    memset(l->tmr, 0, sizeof l->tmr);
    l->icr_low = l->icr_high = l->ldr = l->tpr = 0;
    l->initial = 0;
    l->divide = 0;
    l->running = false;
    l->dfr = 0xFFFFFFFFu;
    l->svr = 0xFF;
    l->esr = l->esr_new = 0;
    for (unsigned n = 0; n < LAPIC_LVTS; n++)
        l->lvt[n] = LVT_MASKED;
    schedule(l);
    update(l);
    bus_update_intr(l->bus);
}

/* Power-up, and after IA32_APIC_BASE switched it off (10.4.3, 10.4.7.1). */
static void power_up(struct dev_lapic *l)
{
    l->id = (uint32_t)l->initial_id << 24;
    dev_lapic_init(l);
}

void dev_lapic_set_base(struct dev_lapic *l, uint64_t base)
{
    bool was = dev_lapic_enabled(l);

    l->base = base;
    if (was && !dev_lapic_enabled(l))
        power_up(l);
    bus_update_intr(l->bus);
}

/* As a PC's firmware leaves it: "Virtual Wire Mode" (MultiProcessor Specification 1.4, 3.6.2.2), so that a
 * guest that knows the 8259 only never sees a difference. */
void dev_lapic_reset(struct dev_lapic *l)
{
    l->base = LAPIC_BASE_DEFAULT | LAPIC_BASE_BSP | LAPIC_BASE_ENABLED;
    power_up(l);
    l->svr = SVR_ENABLED | 0x0F;
    l->lvt[LAPIC_LVT_LINT0] = APIC_EXTINT << 8;
    l->lvt[LAPIC_LVT_LINT1] = APIC_NMI << 8;
    bus_update_intr(l->bus);
}
