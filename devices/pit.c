/* devices/pit.c: the 8254 and the system control port B (61h).
 *
 * Nothing ticks: a channel is the tick at which its count was loaded, and everything else is computed from
 * guest time when somebody looks, so a counter read agrees with guest time to the tick. Rules from Intel's
 * 82C54 data sheet (231244-006), cited by section.
 */
#include "devices/chips.h"

#include <string.h>

enum { RW_LATCH = 0, RW_LOW = 1, RW_HIGH = 2, RW_BOTH = 3 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
enum { P61_GATE2 = 0x01, P61_WRITABLE = 0x0F, P61_REFRESH = 0x10, P61_OUT2 = 0x20 };

#define TICK_NEVER INT64_MAX
/* A channel 0 programmed faster than this interrupts this often: the host could not follow, and the guest
 * would never progress. */
#define MIN_PERIOD_NS 20000u
/* DRAM refresh: one request in 18 ticks toggles bit 4 of port 61h. */
#define REFRESH_TICKS 18

static int64_t tick_now(const struct dev_pit *p)
{
    return (int64_t)bus_ticks(bus_now(p->bus), PIT_HZ);
}

static uint32_t modulus(const struct pit_channel *c)
{
    return c->control & 1 ? 10000 : 65536;
}

static unsigned access_mode(const struct pit_channel *c)
{
    return c->control >> 4 & 3;
}

/* -- What a channel shows at a tick -----------------------------------------------------------------------
 */

static uint32_t high_ticks(uint32_t count)
{
    return (count + 1) / 2;
}

/* Modes 2 and 3, "Mode Definitions": a new count is used from the end of the current cycle (mode 2) or half
 * cycle (mode 3). */
static void sync_channel(struct pit_channel *c, int64_t tick)
{
    if ((c->mode == 2 || c->mode == 3) && c->running && c->next_count && tick >= c->switch_tick) {
        c->start = c->switch_start;
        c->count = c->next_count;
        c->next_count = 0;
    }
}

static uint64_t elapsed(const struct pit_channel *c, int64_t tick)
{
    if (c->paused)
        return (uint64_t)c->held;
    return tick > c->start ? (uint64_t)(tick - c->start) : 0;
}

static bool output(const struct pit_channel *c, int64_t tick)
{
    uint64_t e = elapsed(c, tick);

    if (!c->loaded || !c->running)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
    case 1:
        return e >= c->count;
    case 2:
        return c->count == 1 || e % c->count != c->count - 1;
    case 3:
        return e % c->count < high_ticks(c->count);
    default:
        return e != c->count;
    }
}

/* Mode 3: two counts a tick. An odd count is loaded as count-1, and OUT stays high one tick longer than low.
 */
static uint32_t square_counter(const struct pit_channel *c, uint64_t e)
{
    uint32_t phase = (uint32_t)(e % c->count), high = high_ticks(c->count);

    if (phase >= high)
        phase -= high;
    return (c->count & ~1u) - 2 * phase;
}

static uint16_t counter(const struct pit_channel *c, int64_t tick)
{
    uint32_t m = modulus(c), value = c->count;
    uint64_t e = elapsed(c, tick);

    if (c->running) {
        if (c->mode == 2)
            value = c->count - (uint32_t)(e % c->count);
        else if (c->mode == 3)
            value = square_counter(c, e);
        else
            value = c->count + m - (uint32_t)(e % m);
    }
    value %= m;
    if (c->control & 1)
        value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10;
    return (uint16_t)value;
}

/* -- Channel 0 is IRQ 0 -----------------------------------------------------------------------------------
 */

/* The first rising edge of OUT after the tick, as programmed now. */
static int64_t next_edge(const struct pit_channel *c, int64_t after)
{
    int64_t at, period = c->count;

    if (!c->loaded || !c->running || c->paused)
        return TICK_NEVER;
    switch (c->mode) {
    case 0:
        at = c->start + period;
        return at > after ? at : TICK_NEVER;
    case 4:
        at = c->start + period + 1;
        return at > after ? at : TICK_NEVER;
    case 2:
    case 3:
        if (period < 2) /* "a count of 1 is illegal" */
            return TICK_NEVER;
        if (after < c->start)
            return c->start;
        return c->start + ((after - c->start) / period + 1) * period;
    default: /* modes 1 and 5 need a trigger; channel 0's gate is tied high */
        return TICK_NEVER;
    }
}

static void schedule(struct dev_pit *p)
{
    const struct pit_channel *c = &p->channel[0];
    int64_t at = next_edge(c, p->edge_after);
    uint64_t ns;

    if (c->next_count && c->running && (c->mode == 2 || c->mode == 3) && c->switch_tick < at)
        at = c->switch_tick;
    if (at == TICK_NEVER) {
        bus_timer(p->bus, TIMER_PIT, DEV_NEVER);
        return;
    }
    ns = bus_ticks_to_ns(at < 0 ? 0 : (uint64_t)at, PIT_HZ);
    if (p->edge_ns && ns < p->edge_ns + MIN_PERIOD_NS)
        ns = p->edge_ns + MIN_PERIOD_NS;
    bus_timer(p->bus, TIMER_PIT, ns);
}

/* Edges that became due together are one interrupt, as the chip's request latch would merge them; the phase
 * is kept. */
static void deliver(struct dev_pit *p, uint64_t now_ns, int64_t tick)
{
    struct pit_channel *c = &p->channel[0];
    bool edge = next_edge(c, p->edge_after) <= tick;

    sync_channel(c, tick);
    if (!edge)
        return;
    p->edge_after = tick;
    p->edge_ns = now_ns;
    bus_irq_pulse(p->bus, 0);
}

void dev_pit_run(struct dev_pit *p, uint64_t now_ns)
{
    deliver(p, now_ns, (int64_t)bus_ticks(now_ns, PIT_HZ));
    schedule(p);
}

/* Channel 0 was reprogrammed: OUT as it is at once. The low half of mode 3 and the low ticks of modes 2 and 4
 * are not shown to the 8259: a host that is late would withdraw requests which a real CPU had long taken. */
static void reprogrammed(struct dev_pit *p, unsigned n, int64_t tick)
{
    const struct pit_channel *c = &p->channel[0];

    if (n != 0)
        return;
    bus_irq(p->bus, 0, c->mode != 0 || output(c, tick));
    p->edge_after = c->next_count ? p->edge_after : tick + 1;
    p->edge_ns = 0;
    schedule(p);
}

/* -- Programming ----------------------------------------------------------------------------------------- */

static void write_control_word(struct dev_pit *p, unsigned n, uint8_t v, int64_t tick)
{
    struct pit_channel *c = &p->channel[n];
    unsigned mode = v >> 1 & 7;

    c->control = v & 0x3F;
    c->mode =
        (uint8_t)(mode > 5 ? mode - 4
                           : mode); /* "Control Word Format": bit 2 of the mode is don't care for 2 and 3 */
    c->loaded = c->running = c->paused = false;
    c->next_count = 0;
    c->write_high_next = c->read_high_next = false;
    c->latch_bytes = 0;
    c->status_latched = false;
    reprogrammed(p, n, tick);
}

static void latch_count(struct pit_channel *c, int64_t tick)
{
    if (c->latch_bytes) /* "Counter Latch Command": a second latch is ignored until the first was read */
        return;
    c->latch = counter(c, tick);
    c->latch_bytes = access_mode(c) == RW_BOTH ? 2 : 1;
    if (access_mode(c) == RW_BOTH && c->read_high_next)
        c->latch_bytes = 1;
}

static void latch_status(struct pit_channel *c, int64_t tick)
{
    bool null = !c->loaded || !c->running || c->next_count || (!c->paused && tick < c->start);

    if (c->status_latched)
        return;
    c->status = (uint8_t)((output(c, tick) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) | c->control);
    c->status_latched = true;
}

/* "Read-Back Command": bits 5 and 4 are active low. */
static void read_back(struct dev_pit *p, uint8_t v, int64_t tick)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(v >> (n + 1) & 1))
            continue;
        if (!(v & 0x20))
            latch_count(&p->channel[n], tick);
        if (!(v & 0x10))
            latch_status(&p->channel[n], tick);
    }
}

static uint32_t decode_count(const struct pit_channel *c, uint16_t raw)
{
    uint32_t n = raw;

    if (c->control & 1)
        n = (uint32_t)((raw >> 12) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15)) %
            10000;
    return n ? n : modulus(c);
}

/* Modes 2 and 3 with a count in use. */
static void queue_count(struct pit_channel *c, uint32_t count, int64_t tick)
{
    int64_t e = (int64_t)elapsed(c, tick), n = c->count;
    int64_t cycle = c->start + e / n * n;

    c->next_count = count;
    if (c->mode == 3 && e % n < (int64_t)high_ticks(c->count)) {
        c->switch_tick = cycle + high_ticks(c->count);
        c->switch_start = c->switch_tick - high_ticks(count);
    } else {
        c->switch_tick = c->switch_start = cycle + n;
    }
}

static void load_count(struct dev_pit *p, unsigned n, uint16_t raw, int64_t tick)
{
    struct pit_channel *c = &p->channel[n];
    uint32_t count = decode_count(c, raw);

    if (c->running && c->mode != 0 && c->mode != 4) {
        if (c->mode == 2 || c->mode == 3)
            queue_count(c, count, tick);
        else
            c->next_count = count;
    } else {
        c->count = count;
        c->start = tick + 1; /* the CLK pulse after the write loads it */
        c->held = 0;
        c->running = c->mode == 0 || c->mode == 4 || ((c->mode == 2 || c->mode == 3) && c->gate);
        c->paused = (c->mode == 0 || c->mode == 4) && !c->gate;
    }
    c->loaded = true;
    reprogrammed(p, n, tick);
}

static void write_count(struct dev_pit *p, unsigned n, uint8_t v, int64_t tick)
{
    struct pit_channel *c = &p->channel[n];

    switch (access_mode(c)) {
    case RW_LOW:
        load_count(p, n, v, tick);
        return;
    case RW_HIGH:
        load_count(p, n, (uint16_t)(v << 8), tick);
        return;
    default:
        break;
    }
    if (c->write_high_next) {
        c->write_high_next = false;
        load_count(p, n, (uint16_t)(v << 8 | c->write_low), tick);
        return;
    }
    c->write_low = v;
    c->write_high_next = true;
    if (c->mode == 0) { /* "Mode 0": writing the first byte disables counting and sets OUT low at once */
        c->held = (int64_t)elapsed(c, tick);
        c->paused = true;
        c->loaded = false;
        reprogrammed(p, n, tick);
    }
}

static uint8_t read_count(struct pit_channel *c, int64_t tick)
{
    uint16_t value;
    bool high;

    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    value = c->latch_bytes ? c->latch : counter(c, tick);
    if (c->latch_bytes)
        c->latch_bytes--;
    high = access_mode(c) == RW_HIGH;
    if (access_mode(c) == RW_BOTH) {
        high = c->read_high_next;
        c->read_high_next = !high;
    }
    return (uint8_t)(high ? value >> 8 : value);
}

/* "Gate": a level in modes 0 and 4, an edge in 1 and 5, both in 2 and 3. */
static void set_gate(struct pit_channel *c, bool gate, int64_t tick)
{
    if (gate == c->gate)
        return;
    c->gate = gate;
    if (!c->loaded)
        return;
    switch (c->mode) {
    case 0:
    case 4:
        if (gate)
            c->start = tick - c->held;
        else
            c->held = (int64_t)elapsed(c, tick);
        c->paused = !gate;
        return;
    case 2:
    case 3:
        if (!gate) {
            c->running = false;
            return;
        }
        break;
    default:
        if (!gate)
            return;
        break;
    }
    if (c->next_count)
        c->count = c->next_count;
    c->next_count = 0;
    c->start = tick + 1;
    c->running = true;
}

/* -- Ports ----------------------------------------------------------------------------------------------- */

static uint32_t pit_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_pit *p = dev;
    unsigned n = port & 3;
    int64_t tick;

    (void)size;
    if (n == 3)
        return 0xFF; /* "Read Operations": no operation, the bus floats */
    tick = tick_now(p);
    sync_channel(&p->channel[n], tick);
    return read_count(&p->channel[n], tick);
}

static void pit_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_pit *p = dev;
    uint8_t v = (uint8_t)value;
    uint64_t now = bus_now(p->bus);
    int64_t tick = (int64_t)bus_ticks(now, PIT_HZ);

    (void)size;
    deliver(p, now, tick); /* what was due before this write must not be lost by it */
    sync_channel(&p->channel[1], tick);
    sync_channel(&p->channel[2], tick);
    if ((port & 3) != 3)
        write_count(p, port & 3, v, tick);
    else if (v >> 6 == 3)
        read_back(p, v, tick);
    else if ((v >> 4 & 3) == RW_LATCH)
        latch_count(&p->channel[v >> 6], tick);
    else
        write_control_word(p, v >> 6, v, tick);
}

const struct dev_io_ops dev_pit_ops = {pit_read, pit_write};

static uint32_t port61_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_pit *p = dev;
    int64_t tick = tick_now(p);
    uint32_t v = p->port61;

    (void)port;
    (void)size;
    sync_channel(&p->channel[2], tick);
    if (tick / REFRESH_TICKS & 1)
        v |= P61_REFRESH;
    if (output(&p->channel[2], tick))
        v |= P61_OUT2;
    return v;
}

static void port61_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_pit *p = dev;
    int64_t tick = tick_now(p);

    (void)port;
    (void)size;
    sync_channel(&p->channel[2], tick);
    p->port61 = value & P61_WRITABLE;
    set_gate(&p->channel[2], (value & P61_GATE2) != 0, tick);
}

const struct dev_io_ops dev_port61_ops = {port61_read, port61_write};

/* As firmware leaves it: 18.2 interrupts a second, refresh, and the speaker's channel ready but gated off. */
void dev_pit_reset(struct dev_pit *p)
{
    int64_t tick = tick_now(p);

    memset(p->channel, 0, sizeof p->channel);
    p->port61 = 0;
    p->edge_ns = 0;
    p->channel[0].gate = p->channel[1].gate = true;
    for (unsigned n = 0; n < 3; n++)
        p->channel[n].count = 65536;
    write_control_word(p, 0, 0x36, tick);
    load_count(p, 0, 0, tick);
    write_control_word(p, 1, 0x54, tick);
    load_count(p, 1, REFRESH_TICKS, tick);
    write_control_word(p, 2, 0xB6, tick);
    load_count(p, 2, 0, tick);
}
