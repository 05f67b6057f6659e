/* devices/uart.c: one 16550A, COM1.
 *
 * The transmitter has no baud rate: a byte written is out, and the holding register is empty again. Received
 * bytes wait with the caller while the FIFO is full, so an overrun is possible in loopback only. Rules from
 * National's PC16550D data sheet, cited by section.
 */
#include "devices/chips.h"

#include <string.h>

enum { U_DATA, U_IER, U_IIR, U_LCR, U_MCR, U_LSR, U_MSR, U_SCRATCH, U_FCR = U_IIR };
enum { IER_RDA = 0x01, IER_THRE = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08 };
enum {
    IIR_NONE = 0x01,
    IIR_MODEM = 0x00,
    IIR_THRE = 0x02,
    IIR_RDA = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0C,
    IIR_FIFO = 0xC0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04, FCR_DMA = 0x08, FCR_TRIGGER = 0xC0 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10 };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

/* -- Interrupt ------------------------------------------------------------------------------------------- */

static unsigned trigger_level(const struct dev_uart *u)
{
    static const uint8_t level[4] = {1, 4, 8, 14};

    return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* "Interrupt Identification Register", table IV: the pending source of highest priority. The character
 * time-out has no delay here, as time on the line has none. */
static uint8_t source(const struct dev_uart *u)
{
    if ((u->ier & IER_LINE) && u->lsr_errors)
        return IIR_LINE;
    if ((u->ier & IER_RDA) && u->rx_count >= trigger_level(u))
        return IIR_RDA;
    if ((u->ier & IER_RDA) && u->rx_count)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THRE) && u->thr_empty_event)
        return IIR_THRE;
    if ((u->ier & IER_MODEM) && u->msr_deltas)
        return IIR_MODEM;
    return IIR_NONE;
}

/* On a PC the pin reaches the 8259 through a gate that OUT2 opens; loopback forces OUT2 inactive. */
static void update(struct dev_uart *u)
{
    bool gate = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

    bus_irq(u->bus, u->irq, gate && source(u) != IIR_NONE);
}

/* -- Modem lines ----------------------------------------------------------------------------------------- */

/* "Modem Control Register", loopback: DTR, RTS, OUT1, OUT2 appear as DSR, CTS, RI, DCD. Else a ready peer
 * with carrier. */
static uint8_t modem_inputs(const struct dev_uart *u)
{
    uint8_t m = 0;

    if (!(u->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    m |= u->mcr & MCR_DTR ? MSR_DSR : 0;
    m |= u->mcr & MCR_RTS ? MSR_CTS : 0;
    m |= u->mcr & MCR_OUT1 ? MSR_RI : 0;
    m |= u->mcr & MCR_OUT2 ? MSR_DCD : 0;
    return m;
}

/* Delta bits: any change, but for RI only the end of the ring. */
static void update_modem(struct dev_uart *u)
{
    uint8_t now = modem_inputs(u), changed = now ^ u->msr_levels;

    if (now & MSR_RI)
        changed &= (uint8_t)~MSR_RI;
    u->msr_deltas |= changed >> 4;
    u->msr_levels = now;
}

/* -- Receiver -------------------------------------------------------------------------------------------- */

static unsigned rx_capacity(const struct dev_uart *u)
{
    return u->fcr & FCR_ENABLE ? UART_FIFO : 1;
}

static void rx_clear(struct dev_uart *u)
{
    u->rx_head = u->rx_count = 0;
}

static void rx_put(struct dev_uart *u, uint8_t byte)
{
    u->rx[(u->rx_head + u->rx_count) % UART_FIFO] = byte;
    u->rx_count++;
}

static uint8_t rx_get(struct dev_uart *u)
{
    uint8_t byte = u->rx[u->rx_head];

    if (!u->rx_count)
        return 0;
    u->rx_head = (u->rx_head + 1) % UART_FIFO;
    u->rx_count--;
    return byte;
}

/* "Line Status Register", OE: without FIFO the new character replaces the old; with FIFO the new one is lost.
 */
static void rx_loop(struct dev_uart *u, uint8_t byte)
{
    if (u->rx_count >= rx_capacity(u)) {
        u->lsr_errors |= LSR_OE;
        if (u->fcr & FCR_ENABLE)
            return;
        rx_clear(u);
    }
    rx_put(u, byte);
}

size_t dev_uart_room(const struct dev_uart *u)
{
    if (u->mcr & MCR_LOOP) /* the line is disconnected: keep the bytes for later */
        return 0;
    return rx_capacity(u) - u->rx_count;
}

size_t dev_uart_in(struct dev_uart *u, const uint8_t *data, size_t n)
{
    size_t room = dev_uart_room(u), taken = n < room ? n : room;

    for (size_t i = 0; i < taken; i++)
        rx_put(u, data[i]);
    if (taken)
        update(u);
    return taken;
}

/* -- Registers ------------------------------------------------------------------------------------------- */

static void write_thr(struct dev_uart *u, uint8_t v)
{
    /* Writing THR ends the THRE interrupt, and as the byte is gone at once THR becomes empty again: the line
     * must fall in between, or an edge-triggered 8259 would see nothing. */
    u->thr_empty_event = false;
    update(u);
    if (u->mcr & MCR_LOOP)
        rx_loop(u, v);
    else
        u->bus->host.serial_out(u->bus->opaque, v);
    u->thr_empty_event = true;
}

static void write_ier(struct dev_uart *u, uint8_t v)
{
    /* Enabling the THRE interrupt while THR is empty raises it; Linux tests for that. */
    if ((v & IER_THRE) && !(u->ier & IER_THRE))
        u->thr_empty_event = true;
    u->ier = v & 0x0F;
}

/* "FIFO Control Register": a change of bit 0 clears both FIFOs; other bits count only with bit 0 set. */
static void write_fcr(struct dev_uart *u, uint8_t v)
{
    if ((v ^ u->fcr) & FCR_ENABLE)
        rx_clear(u);
    if (!(v & FCR_ENABLE)) {
        u->fcr = 0;
        return;
    }
    if (v & FCR_CLEAR_RX)
        rx_clear(u);
    u->fcr = v & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER);
}

static void uart_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_uart *u = dev;
    uint8_t v = (uint8_t)value;

    (void)size;
    switch (port & 7) {
    case U_DATA:
        if (u->lcr & LCR_DLAB)
            u->dll = v;
        else
            write_thr(u, v);
        break;
    case U_IER:
        if (u->lcr & LCR_DLAB)
            u->dlm = v;
        else
            write_ier(u, v);
        break;
    case U_FCR:
        write_fcr(u, v);
        break;
    case U_LCR:
        u->lcr = v;
        break;
    case U_MCR:
        u->mcr = v & 0x1F;
        update_modem(u);
        break;
    case U_SCRATCH:
        u->scratch = v;
        break;
    default: /* LSR and MSR: factory tests only */
        break;
    }
    update(u);
}

/* Reading IIR clears the THRE interrupt if that is what it shows ("Interrupt Identification Register"). */
static uint8_t read_iir(struct dev_uart *u)
{
    uint8_t id = source(u);

    if (id == IIR_THRE)
        u->thr_empty_event = false;
    return id | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct dev_uart *u)
{
    uint8_t v = (uint8_t)(LSR_THRE | LSR_TEMT | u->lsr_errors | (u->rx_count ? LSR_DR : 0));

    u->lsr_errors = 0;
    return v;
}

static uint8_t read_msr(struct dev_uart *u)
{
    uint8_t v = u->msr_levels | u->msr_deltas;

    u->msr_deltas = 0;
    return v;
}

static uint32_t uart_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_uart *u = dev;
    uint8_t v;

    (void)size;
    switch (port & 7) {
    case U_DATA:
        v = u->lcr & LCR_DLAB ? u->dll : rx_get(u);
        break;
    case U_IER:
        return u->lcr & LCR_DLAB ? u->dlm : u->ier;
    case U_IIR:
        v = read_iir(u);
        break;
    case U_LCR:
        return u->lcr;
    case U_MCR:
        return u->mcr;
    case U_LSR: /* the register that is polled: no source changes unless an error was pending */
        if (!u->lsr_errors)
            return (uint32_t)(LSR_THRE | LSR_TEMT | (u->rx_count ? LSR_DR : 0));
        v = read_lsr(u);
        break;
    case U_MSR:
        v = read_msr(u);
        break;
    default:
        return u->scratch;
    }
    update(u);
    return v;
}

const struct dev_io_ops dev_uart_ops = {uart_read, uart_write};

/* "Master Reset": 9600 baud 8n1 is what firmware adds. */
void dev_uart_reset(struct dev_uart *u)
{
    u->irq = 4;
    u->ier = u->fcr = u->mcr = u->scratch = u->lsr_errors = 0;
    u->lcr = 3;
    u->dll = 12;
    u->dlm = 0;
    u->thr_empty_event = false;
    rx_clear(u);
    u->msr_levels = modem_inputs(u);
    u->msr_deltas = 0;
    update(u);
}
