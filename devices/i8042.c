/* devices/i8042.c: the keyboard controller with a PS/2 keyboard and mouse that nobody touches.
 *
 * Every byte arrives at once: the next one waits in its device until the output buffer was read. What drivers
 * probe for (self-test, interface tests, AUX loop, reset, identify) gets the answers of IBM's PS/2 Technical
 * Reference ("Keyboard and Auxiliary Device Controller").
 */
#include "devices/chips.h"

#include <string.h>

#define KEYBOARD_IRQ 1u
#define MOUSE_IRQ    12u

enum {
    STATUS_FULL = 0x01,
    STATUS_SYSTEM = 0x04,
    STATUS_COMMAND = 0x08,
    STATUS_UNLOCKED = 0x10,
    STATUS_AUX = 0x20
};
enum {
    CB_KEYBOARD_INT = 0x01,
    CB_MOUSE_INT = 0x02,
    CB_SYSTEM = 0x04,
    CB_KEYBOARD_OFF = 0x10,
    CB_MOUSE_OFF = 0x20,
    CB_TRANSLATE = 0x40,
};
enum { OUT_RUN = 0x01, OUT_A20 = 0x02, OUT_MOUSE_IRQ = 0x20, OUT_KEYBOARD_IRQ = 0x10 };
enum { DEV_ACK = 0xFA, DEV_RESEND = 0xFE, DEV_TEST_OK = 0xAA };

/* -- Queues ---------------------------------------------------------------------------------------------- */

/* A queue that is full drops: a device that is not read overruns, it does not stop the machine. */
static void put(struct i8042_queue *q, uint8_t v)
{
    if (q->count < I8042_QUEUE)
        q->byte[(q->head + q->count++) % I8042_QUEUE] = v;
}

static uint8_t get(struct i8042_queue *q)
{
    uint8_t v = q->byte[q->head];

    q->head = (q->head + 1) % I8042_QUEUE;
    q->count--;
    return v;
}

static void clear(struct i8042_queue *q)
{
    q->head = q->count = 0;
}

/* -- Output buffer --------------------------------------------------------------------------------------- */

/* Scan-code translation, as far as it meets answers of the keyboard: the second byte of its identity and the
 * number of its code set. */
static uint8_t translate(const struct dev_i8042 *k, uint8_t v)
{
    if (!(k->ram[0] & CB_TRANSLATE))
        return v;
    switch (v) {
    case 0x01:
        return 0x43;
    case 0x02:
    case 0x83:
        return 0x41;
    case 0x03:
        return 0x3F;
    default:
        return v;
    }
}

static void update_irq(struct dev_i8042 *k)
{
    bool mouse = (k->status & STATUS_AUX) != 0;

    bus_irq(k->bus, KEYBOARD_IRQ, k->full && !mouse && (k->ram[0] & CB_KEYBOARD_INT));
    bus_irq(k->bus, MOUSE_IRQ, k->full && mouse && (k->ram[0] & CB_MOUSE_INT));
}

static void show(struct dev_i8042 *k, uint8_t v, bool mouse)
{
    k->data = v;
    k->full = true;
    k->status = (uint8_t)((k->status & ~STATUS_AUX) | (mouse ? STATUS_AUX : 0));
}

static void pump(struct dev_i8042 *k)
{
    if (!k->full) {
        if (k->own.count)
            show(k, get(&k->own), false);
        else if (k->own_aux.count)
            show(k, get(&k->own_aux), true);
        else if (k->keyboard.out.count && !(k->ram[0] & CB_KEYBOARD_OFF))
            show(k, translate(k, get(&k->keyboard.out)), false);
        else if (k->mouse.out.count && !(k->ram[0] & CB_MOUSE_OFF))
            show(k, get(&k->mouse.out), true);
    }
    update_irq(k);
}

/* -- The two devices ------------------------------------------------------------------------------------- */

static void device_defaults(struct i8042_device *d)
{
    d->set = 2;
    d->leds = 0;
    d->rate = 100;
    d->resolution = 2;
    d->reporting = d->scaling = d->remote = false;
    d->wants_param = 0;
}

static void answer(struct i8042_device *d, uint8_t v)
{
    d->last = v;
    put(&d->out, v);
}

static void keyboard_param(struct i8042_device *d, uint8_t command, uint8_t v)
{
    answer(d, DEV_ACK);
    if (command == 0xED)
        d->leds = v & 7;
    else if (command == 0xF3)
        d->rate = v;
    else if (command == 0xF0 && v == 0)
        answer(d, d->set);
    else if (command == 0xF0 && v <= 3)
        d->set = v;
}

static void keyboard_command(struct i8042_device *d, uint8_t v)
{
    switch (v) {
    case 0xED: /* LEDs */
    case 0xF0: /* scan code set */
    case 0xF3: /* typematic rate */
    case 0xFB: /* per-key settings of set 3 */
    case 0xFC:
    case 0xFD:
        d->wants_param = v;
        answer(d, DEV_ACK);
        break;
    case 0xEE: /* echo */
        answer(d, 0xEE);
        break;
    case 0xF2: /* identify: MF2 keyboard */
        answer(d, DEV_ACK);
        answer(d, 0xAB);
        answer(d, 0x83);
        break;
    case 0xF4:
    case 0xF5:
    case 0xF6:
        if (v != 0xF4)
            device_defaults(d);
        d->reporting = v != 0xF5;
        answer(d, DEV_ACK);
        break;
    case 0xF7:
    case 0xF8:
    case 0xF9:
    case 0xFA:
        answer(d, DEV_ACK);
        break;
    case 0xFE:
        put(&d->out, d->last);
        break;
    case 0xFF: /* reset, and the result of its self-test */
        device_defaults(d);
        d->reporting = true;
        clear(&d->out);
        answer(d, DEV_ACK);
        answer(d, DEV_TEST_OK);
        break;
    default:
        answer(d, DEV_RESEND);
        break;
    }
}

static void mouse_param(struct i8042_device *d, uint8_t command, uint8_t v)
{
    if (command == 0xE8)
        d->resolution = v & 3;
    else
        d->rate = v;
    answer(d, DEV_ACK);
}

static void mouse_status(struct i8042_device *d)
{
    answer(d, (uint8_t)((d->remote ? 0x40 : 0) | (d->reporting ? 0x20 : 0) | (d->scaling ? 0x10 : 0)));
    answer(d, d->resolution);
    answer(d, d->rate);
}

static void mouse_command(struct i8042_device *d, uint8_t v)
{
    if (v == 0xFE) {
        put(&d->out, d->last);
        return;
    }
    if (v != 0xFF && (v < 0xE6 || v == 0xED || v == 0xEF || v == 0xF1 || v > 0xF6 || v == 0xF7)) {
        answer(d, DEV_RESEND);
        return;
    }
    if (v == 0xFF)
        clear(&d->out);
    answer(d, DEV_ACK);
    switch (v) {
    case 0xE6:
    case 0xE7: /* scaling 1:1, 2:1 */
        d->scaling = v == 0xE7;
        break;
    case 0xE8: /* resolution */
    case 0xF3: /* sample rate */
        d->wants_param = v;
        break;
    case 0xE9:
        mouse_status(d);
        break;
    case 0xEA:
    case 0xF0: /* stream and remote mode */
        d->remote = v == 0xF0;
        break;
    case 0xEB: /* read data: no buttons, no movement */
        answer(d, 0x08);
        answer(d, 0x00);
        answer(d, 0x00);
        break;
    case 0xF2: /* identify: standard mouse */
        answer(d, 0x00);
        break;
    case 0xF4:
    case 0xF5:
        d->reporting = v == 0xF4;
        break;
    case 0xF6:
        device_defaults(d);
        break;
    case 0xFF:
        device_defaults(d);
        answer(d, DEV_TEST_OK);
        answer(d, 0x00);
        break;
    default: /* wrap mode */
        break;
    }
}

static void device_send(struct i8042_device *d, uint8_t v)
{
    uint8_t command = d->wants_param;

    if (command && v < 0xE0) {
        d->wants_param = 0;
        if (d->mouse)
            mouse_param(d, command, v);
        else
            keyboard_param(d, command, v);
        return;
    }
    d->wants_param = 0;
    if (d->mouse)
        mouse_command(d, v);
    else
        keyboard_command(d, v);
}

/* -- Controller ------------------------------------------------------------------------------------------ */

static void write_output_port(struct dev_i8042 *k, uint8_t v)
{
    k->outport = v & (uint8_t) ~(OUT_A20 | OUT_KEYBOARD_IRQ | OUT_MOUSE_IRQ);
    bus_a20(k->bus, (v & OUT_A20) != 0);
    if (!(v & OUT_RUN))
        bus_reset_request(k->bus, true);
}

static uint8_t read_output_port(const struct dev_i8042 *k)
{
    uint8_t v = k->outport | OUT_RUN;

    if (k->bus->a20)
        v |= OUT_A20;
    if (k->full)
        v |= k->status & STATUS_AUX ? OUT_MOUSE_IRQ : OUT_KEYBOARD_IRQ;
    return v;
}

/* The parameter of a controller command, written to port 60h. */
static void controller_param(struct dev_i8042 *k, uint8_t command, uint8_t v)
{
    if (command >= 0x60 && command < 0x80) {
        k->ram[command & 0x1F] = command == 0x60 ? v & 0x7F : v;
        return;
    }
    switch (command) {
    case 0xD1:
        write_output_port(k, v);
        break;
    case 0xD2:
        put(&k->own, v);
        break;
    case 0xD3:
        put(&k->own_aux, v);
        break;
    case 0xD4: /* a byte for a device starts its clock */
        k->ram[0] &= (uint8_t)~CB_MOUSE_OFF;
        device_send(&k->mouse, v);
        break;
    default:
        break;
    }
}

static void controller_command(struct dev_i8042 *k, uint8_t v)
{
    k->wants_param = 0;
    if (v >= 0x20 && v < 0x40) {
        put(&k->own, k->ram[v & 0x1F]);
        return;
    }
    if (v >= 0xF0) { /* pulse output port bits that are 0 in the command; bit 0 is the CPU's reset */
        if (!(v & OUT_RUN))
            bus_reset_request(k->bus, true);
        return;
    }
    switch (v) {
    case 0xA4: /* no password installed */
        put(&k->own, 0xF1);
        break;
    case 0xA7:
        k->ram[0] |= CB_MOUSE_OFF;
        break;
    case 0xA8:
        k->ram[0] &= (uint8_t)~CB_MOUSE_OFF;
        break;
    case 0xA9: /* interface tests: no error */
    case 0xAB:
        put(&k->own, 0x00);
        break;
    case 0xAA: /* self-test; it flushes what was under way */
        clear(&k->own);
        clear(&k->own_aux);
        k->full = false;
        k->ram[0] |= CB_SYSTEM;
        put(&k->own, 0x55);
        break;
    case 0xAD:
        k->ram[0] |= CB_KEYBOARD_OFF;
        break;
    case 0xAE:
        k->ram[0] &= (uint8_t)~CB_KEYBOARD_OFF;
        break;
    case 0xC0: /* input port: not locked, no manufacturing jumper */
        put(&k->own, 0xA0);
        break;
    case 0xD0:
        put(&k->own, read_output_port(k));
        break;
    case 0xDD:
    case 0xDF:
        bus_a20(k->bus, v == 0xDF);
        break;
    case 0xE0: /* test inputs: both clocks low */
        put(&k->own, 0x00);
        break;
    default:
        if ((v >= 0x60 && v < 0x80) || (v >= 0xD1 && v <= 0xD4))
            k->wants_param = v;
        break;
    }
}

static void i8042_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_i8042 *k = dev;
    uint8_t v = (uint8_t)value, command = k->wants_param;

    (void)size;
    if (port == 0x64) {
        k->status |= STATUS_COMMAND;
        controller_command(k, v);
    } else {
        k->status &= (uint8_t)~STATUS_COMMAND;
        k->wants_param = 0;
        if (command) {
            controller_param(k, command, v);
        } else {
            k->ram[0] &= (uint8_t)~CB_KEYBOARD_OFF;
            device_send(&k->keyboard, v);
        }
    }
    pump(k);
}

static uint32_t i8042_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_i8042 *k = dev;
    uint8_t v = k->data;

    (void)size;
    if (port == 0x64)
        return (uint32_t)(k->status | STATUS_UNLOCKED | (k->full ? STATUS_FULL : 0) |
                          (k->ram[0] & CB_SYSTEM));
    if (k->full) {
        k->full = false;
        update_irq(k); /* the line falls between two bytes */
        pump(k);
    }
    return v;
}

const struct dev_io_ops dev_i8042_ops = {i8042_read, i8042_write};

/* As firmware leaves it: tested, keyboard on with interrupt and translation, mouse off. */
void dev_i8042_reset(struct dev_i8042 *k)
{
    struct dev_bus *bus = k->bus;

    memset(k, 0, sizeof *k);
    k->bus = bus;
    k->ram[0] = CB_KEYBOARD_INT | CB_SYSTEM | CB_MOUSE_OFF | CB_TRANSLATE;
    k->outport = 0xCC;
    k->mouse.mouse = true;
    device_defaults(&k->keyboard);
    device_defaults(&k->mouse);
    k->keyboard.reporting = true;
    update_irq(k);
}
