/* devices/chips.h: the chips' state and the few functions the bus and the chips call on each other.
 *
 * Private to this folder: bus.h is what others see. Every chip's state is a plain struct inside struct
 * dev_bus; the only pointers in it go back to the bus. State at reset is what a PC's firmware leaves behind,
 * because kernels are started without one.
 */
#ifndef VERSO_DEVICES_CHIPS_H
#define VERSO_DEVICES_CHIPS_H

#include "devices/bus.h"

#define NS_PER_S  1000000000ull
#define DEV_NEVER UINT64_MAX

/* -- 8259A pair (pic.c) ---------------------------------------------------------------------------------- */
enum { PIC_MASTER, PIC_SLAVE };

struct pic_chip {
    uint8_t irr;        /* requests latched (edge) or present (level) */
    uint8_t isr;        /* in service */
    uint8_t imr;        /* masked */
    uint8_t line;       /* levels of IR0-IR7 */
    uint8_t elcr;       /* bit set: level-triggered */
    uint8_t elcr_mask;  /* which bits of elcr can be set */
    uint8_t base;       /* vector of IR0 */
    uint8_t lowest;     /* the input of lowest priority (rotation) */
    uint8_t init_state; /* 0: ready; 2-4: which ICW comes next */
    uint8_t icw1, icw3;
    bool read_isr; /* OCW3: which register the command port shows */
    bool poll;     /* OCW3: the next read is an acknowledge */
    bool special_mask;
    bool auto_eoi, rotate_on_auto_eoi;
    bool fully_nested_special;
};

struct dev_pic {
    struct dev_bus *bus;
    struct pic_chip chip[2];
    bool intr; /* level of the master's INT pin */
};

void dev_pic_reset(struct dev_pic *p);
void dev_pic_set(struct dev_pic *p, unsigned irq, bool level);
/* A rising edge: the line is low for an instant, then high. */
void dev_pic_pulse(struct dev_pic *p, unsigned irq);
uint8_t dev_pic_ack(struct dev_pic *p);
extern const struct dev_io_ops dev_pic_ops, dev_elcr_ops;

/* -- 8254 and port 61h (pit.c) --------------------------------------------------------------------------- */
#define PIT_HZ 1193182ull

struct pit_channel {
    uint8_t control; /* RW, mode and BCD of the last control word (bits 5-0, as the status byte shows them) */
    uint8_t mode;    /* 0-5 */
    bool gate;
    bool loaded;         /* a whole count was written since the control word */
    bool running;        /* the counting element was started: by a count, or by the gate in modes 1 and 5 */
    bool paused;         /* modes 0 and 4: gate low, or half a count written */
    uint32_t count;      /* 1-65536 (1-10000 in BCD): the count in use */
    uint32_t next_count; /* a count written while another is in use, 0 if none; taken over at switch_tick or
                            by a trigger */
    int64_t switch_tick; /* modes 2 and 3 */
    int64_t switch_start;
    int64_t start;     /* tick at which the counting element held `count` */
    int64_t held;      /* ticks elapsed when it paused */
    uint8_t write_low; /* first byte of a two-byte write */
    bool write_high_next, read_high_next;
    uint8_t latch_bytes; /* bytes of latch still to be read */
    uint16_t latch;
    bool status_latched;
    uint8_t status;
};

struct dev_pit {
    struct dev_bus *bus;
    struct pit_channel channel[3];
    uint8_t port61;     /* bits 0-3 as written */
    int64_t edge_after; /* channel 0: rising edges up to this tick were delivered */
    uint64_t edge_ns;   /* when the last one was delivered */
};

void dev_pit_reset(struct dev_pit *p);
void dev_pit_run(struct dev_pit *p, uint64_t now_ns);
extern const struct dev_io_ops dev_pit_ops, dev_port61_ops;

/* -- Local APIC (lapic.c) -------------------------------------------------------------------------------- */
enum apic_mode { APIC_FIXED, APIC_LOWEST, APIC_SMI, APIC_NMI = 4, APIC_INIT, APIC_STARTUP, APIC_EXTINT };
enum {
    LAPIC_LVT_TIMER,
    LAPIC_LVT_THERMAL,
    LAPIC_LVT_PERF,
    LAPIC_LVT_LINT0,
    LAPIC_LVT_LINT1,
    LAPIC_LVT_ERROR,
    LAPIC_LVTS
};
/* IA32_APIC_BASE (SDM vol. 3, 10.4.4). */
#define LAPIC_BASE_DEFAULT 0xFEE00000ull
#define LAPIC_BASE_BSP     (1ull << 8)
#define LAPIC_BASE_ENABLED (1ull << 11)

/* One a processor. */
struct dev_lapic {
    struct dev_bus *bus;
    uint64_t base; /* IA32_APIC_BASE */
    uint8_t initial_id;
    uint32_t id, ldr, dfr, svr, tpr, esr, icr_low, icr_high; /* as read */
    uint32_t esr_new;                                        /* errors since ESR was written */
    uint32_t lvt[LAPIC_LVTS];
    uint32_t isr[8], tmr[8], irr[8];
    bool pin[2]; /* levels of LINT0 and LINT1 */
    bool ready;  /* a request in IRR is above the processor's priority */
    /* The timer: at tick `start` of its clock the counter held `initial`. */
    uint32_t hz;
    uint32_t initial;
    uint8_t divide;
    bool running;
    uint64_t start;
    uint64_t expired;    /* periods since start that were noticed */
    uint64_t expired_ns; /* when the last one was, 0: none */
    struct dev_apic_counts counts;
};

void dev_lapic_reset(struct dev_lapic *l);
void dev_lapic_init(struct dev_lapic *l);
void dev_lapic_run(struct dev_lapic *l, uint64_t now_ns);
void dev_lapic_set_base(struct dev_lapic *l, uint64_t base);
bool dev_lapic_enabled(const struct dev_lapic *l);
/* Is the processor meant by an APIC message's destination? */
bool dev_lapic_matches(const struct dev_lapic *l, uint8_t destination, bool logical);
/* An APIC message arrives. False: it was not taken. */
bool dev_lapic_accept(struct dev_lapic *l, enum apic_mode mode, unsigned vector, bool level);
/* The level at LINT0 (0, the 8259's INTR) or LINT1 (1, NMI) changes. */
void dev_lapic_pin(struct dev_lapic *l, unsigned pin, bool level);
/* Does INTR of the 8259 reach the processor by LINT0, or without an APIC? */
bool dev_lapic_takes_extint(const struct dev_lapic *l);
uint8_t dev_lapic_ack(struct dev_lapic *l);
extern const struct dev_io_ops dev_lapic_ops;

/* -- I/O APIC (ioapic.c) --------------------------------------------------------------------------------- */
#define IOAPIC_BASE 0xFEC00000ull
#define IOAPIC_PINS 24u

struct dev_ioapic {
    struct dev_bus *bus;
    uint32_t id;
    uint8_t select;
    uint32_t line;   /* levels of the pins */
    uint32_t extint; /* pins that ask the processor to fetch a vector from the 8259 */
    uint64_t entry[IOAPIC_PINS];
};

void dev_ioapic_reset(struct dev_ioapic *a);
void dev_ioapic_set(struct dev_ioapic *a, unsigned pin, bool level);
/* A rising edge, as dev_pic_pulse(). */
void dev_ioapic_pulse(struct dev_ioapic *a, unsigned pin);
void dev_ioapic_eoi(struct dev_ioapic *a, uint8_t vector);
/* Something changed about who takes interrupts: levels that nobody took are offered again. */
void dev_ioapic_service(struct dev_ioapic *a);
bool dev_ioapic_extint(const struct dev_ioapic *a);
void dev_ioapic_extint_ack(struct dev_ioapic *a);
extern const struct dev_io_ops dev_ioapic_ops;

/* -- Coprocessor error logic of the PC/AT (ferr.c) ------------------------------------------------------- */
struct dev_ferr {
    struct dev_bus *bus;
    bool ferr;  /* FERR# is asserted */
    bool irq;   /* IRQ 13 is latched */
    bool ignne; /* IGNNE# is asserted */
};

void dev_ferr_reset(struct dev_ferr *f);
void dev_ferr_pin(struct dev_ferr *f, bool asserted);
extern const struct dev_io_ops dev_ferr_ops;

/* -- Firmware configuration (fw_cfg.c) ------------------------------------------------------------------- */
#define FW_CFG_ITEMS      48u
#define FW_CFG_FILES      16u
#define FW_CFG_NAME_SIZE  56u
#define FW_CFG_ENTRY_SIZE (8u + FW_CFG_NAME_SIZE)
#define FW_CFG_FILE_FIRST 0x20u

struct fw_cfg_item {
    uint16_t key;
    uint32_t len;
    const uint8_t *data; /* the machine's, or in struct dev_fw_cfg */
};

struct dev_fw_cfg {
    struct dev_bus *bus;
    uint16_t key; /* selected */
    uint32_t offset;
    uint64_t dma; /* address register */
    /* Configuration, fixed once the machine runs. */
    unsigned items, numbers, files;
    struct fw_cfg_item item[FW_CFG_ITEMS];
    uint8_t number[FW_CFG_ITEMS][8]; /* values of small items */
    uint16_t number_key[FW_CFG_ITEMS];
    uint8_t directory[4 + FW_CFG_FILES * FW_CFG_ENTRY_SIZE];
    uint8_t e820[20];
};

void dev_fw_cfg_init(struct dev_fw_cfg *f, uint64_t ram_bytes);
void dev_fw_cfg_reset(struct dev_fw_cfg *f);
extern const struct dev_io_ops dev_fw_cfg_ops, dev_fw_cfg_dma_ops;

/* -- Test device of kvm-unit-tests (testdev.c), only if asked for ---------------------------------------- */
#define TESTDEV_IOMEM      0xFF000000ull
#define TESTDEV_IOMEM_SIZE 0x10000u

struct dev_testdev {
    struct dev_bus *bus;
    bool present;
    uint32_t data;
    uint8_t iomem[TESTDEV_IOMEM_SIZE];
};

void dev_testdev_reset(struct dev_testdev *t);
extern const struct dev_io_ops dev_testdev_data_ops, dev_testdev_flush_ops, dev_testdev_irq_ops, dev_testdev_iomem_ops;

/* -- MC146818 (rtc.c) ------------------------------------------------------------------------------------ */
struct dev_rtc {
    struct dev_bus *bus;
    uint8_t index;
    bool nmi_masked;
    uint8_t cmos[128]; /* 0-9 and 32h hold the time only while updates are off (register B, SET) */
    /* The time is base_s + (guest time + phase_ns) / 1 s; frozen_s while the divider is held in reset. */
    int64_t base_s, frozen_s;
    uint64_t phase_ns;
    bool divider_reset;
    uint8_t weekday_shift; /* guest's weekday minus the calendar's, modulo 7 */
    int64_t seen_s;        /* updates up to this second are in register C */
    uint64_t seen_tick;    /* so are periodic ticks (32,768 Hz) up to this one */
};

void dev_rtc_init(struct dev_rtc *r, uint64_t ram_bytes, int64_t epoch_s);
void dev_rtc_reset(struct dev_rtc *r);
void dev_rtc_run(struct dev_rtc *r, uint64_t now_ns);
extern const struct dev_io_ops dev_rtc_ops;

/* -- 16550A (uart.c) ------------------------------------------------------------------------------------- */
#define UART_FIFO 16u

struct dev_uart {
    struct dev_bus *bus;
    uint8_t irq;
    uint8_t ier, fcr, lcr, mcr, scratch;
    uint8_t lsr_errors; /* OE; cleared by reading LSR */
    uint8_t msr_levels, msr_deltas;
    uint8_t dll, dlm;
    bool thr_empty_event; /* the THRE interrupt's latch: set when THR becomes empty or IER enables it, cleared
                             by reading IIR */
    uint8_t rx[UART_FIFO];
    uint8_t rx_head, rx_count;
};

void dev_uart_reset(struct dev_uart *u);
size_t dev_uart_in(struct dev_uart *u, const uint8_t *data, size_t n);
size_t dev_uart_room(const struct dev_uart *u);
extern const struct dev_io_ops dev_uart_ops;

/* -- 8042 with keyboard and mouse (i8042.c) -------------------------------------------------------------- */
#define I8042_QUEUE 16u

struct i8042_queue {
    uint8_t byte[I8042_QUEUE];
    uint8_t head, count;
};

struct i8042_device {
    struct i8042_queue out; /* waiting to go to the controller */
    uint8_t wants_param;    /* command that waits for its parameter byte, or 0 */
    uint8_t last;           /* last byte sent, for Resend */
    bool mouse;
    uint8_t leds, set, rate, resolution;
    bool reporting, scaling, remote;
};

struct dev_i8042 {
    struct dev_bus *bus;
    uint8_t ram[32]; /* [0] is the command byte */
    uint8_t outport;
    uint8_t status; /* SYS, CMD and AUX bits; the rest is computed */
    bool full;      /* output buffer */
    uint8_t data;
    uint8_t wants_param; /* controller command that waits for its byte at port 60h, or 0 */
    struct i8042_queue own,
        own_aux; /* the controller's answers, and what it loops back as if from the mouse */
    struct i8042_device keyboard, mouse;
};

void dev_i8042_reset(struct dev_i8042 *k);
extern const struct dev_io_ops dev_i8042_ops;

/* -- PCI mechanism 1 (pci.c) ----------------------------------------------------------------------------- */
#define PCI_FUNCTIONS 8u
#define PCI_BARS      6u

/* A base address register. Its registers answer where the guest put them, while the command register lets them; ports only where nobody
 * else does. */
struct pci_bar {
    uint32_t size; /* a power of 2, 16 at least; 0: there is none */
    bool io;
    unsigned range; /* of the bus */
};

struct pci_function {
    uint8_t slot; /* device number on bus 0; function 0 of it */
    uint8_t config[256], initial[256]; /* as it is; as firmware left it */
    struct pci_bar bar[PCI_BARS];
};

struct dev_pci {
    struct dev_bus *bus;
    uint32_t address;
    uint8_t host_bridge[256];
    uint8_t low_bits;      /* of the last address written; they read as zero */
    uint8_t reset_control; /* CF9h */
    uint8_t shadow[7];     /* PAM registers as last told to the machine */
    bool shadow_told;
    unsigned functions;    /* beside the host bridge */
    struct pci_function function[PCI_FUNCTIONS];
};

void dev_pci_reset(struct dev_pci *p);
void dev_pci_shadow_open(struct dev_pci *p);
/* Adds a device before the machine starts. class_code: base class, subclass, interface. NULL: no room. */
struct pci_function *dev_pci_add(struct dev_pci *p, unsigned slot, uint16_t vendor, uint16_t device, uint32_t class_code);
/* Gives it a base address register, mapped at `at` as firmware would. Handlers get the offset for memory, the port for ports: BARs are
 * aligned to their size. */
void dev_pci_add_bar(struct dev_pci *p, struct pci_function *f, unsigned n, bool io, uint32_t size, uint32_t at,
                     const struct dev_io_ops *ops, void *dev);
extern const struct dev_io_ops dev_pci_ops;

/* -- QEMU's PCI test device (pci_testdev.c), only if asked for -------------------------------------------- */
enum { PCI_TESTDEV_MEMORY, PCI_TESTDEV_PORTS, PCI_TESTDEV_BARS };

struct dev_pci_testdev {
    bool present;
    struct pci_testdev_bar {
        bool ports;
        int test; /* -1: none */
        uint32_t count;
    } bar[PCI_TESTDEV_BARS];
};

void dev_pci_testdev_add(struct dev_pci_testdev *t, struct dev_pci *pci);
void dev_pci_testdev_reset(struct dev_pci_testdev *t);

/* -- ACPI PM block and tables (acpi.c) ------------------------------------------------------------------- */
#define ACPI_PM_BASE 0x600u
#define ACPI_SCI_IRQ 9u
#define ACPI_RSDP_SIZE       20u
#define ACPI_LOADER_COMMAND  128u
#define ACPI_LOADER_COMMANDS 11u

struct dev_acpi {
    struct dev_bus *bus;
    uint16_t status, enable, control;
    uint64_t seen_half; /* turns of the timer's highest bit already in status */
    /* Tables for a firmware; fixed once the machine runs. */
    uint8_t rsdp[ACPI_RSDP_SIZE], tables[4096], loader[ACPI_LOADER_COMMAND * ACPI_LOADER_COMMANDS];
    uint32_t loader_size;
};

void dev_acpi_init(struct dev_acpi *a);
void dev_acpi_reset(struct dev_acpi *a);
void dev_acpi_run(struct dev_acpi *a, uint64_t now_ns);
extern const struct dev_io_ops dev_acpi_ops;

/* -- The bus --------------------------------------------------------------------------------------------- */
enum dev_timer { TIMER_PIT, TIMER_RTC, TIMER_ACPI, TIMER_LAPIC, DEV_TIMERS };

struct dev_range {
    const struct dev_io_ops *ops;
    void *dev;
    uint32_t first, last; /* ports, inclusive */
    bool wide;            /* takes accesses of 2 and 4 bytes; else they are split */
};

struct dev_mmio_range {
    const struct dev_io_ops *ops;
    void *dev;
    uint64_t first, last; /* first > last: not mapped at present */
};

#define DEV_RANGES      48u
#define DEV_MMIO_RANGES 16u

struct dev_bus {
    struct dev_host_ops host;
    void *opaque;
    uint8_t port_map[65536]; /* port -> index into range[]; 0 is the open bus */
    struct dev_range range[DEV_RANGES];
    unsigned ranges;
    struct dev_mmio_range mmio[DEV_MMIO_RANGES];
    unsigned mmio_ranges;
    uint64_t due[DEV_TIMERS];
    uint64_t announced;
    bool in_timers;
    bool a20;
    bool intr; /* level of the request to the processor */
    bool nmi;  /* level of the NMI line */
    uint8_t post_code;
    struct dev_lapic lapic; /* of the one processor there is */
    struct dev_ioapic ioapic;
    struct dev_ferr ferr;
    uint8_t port92, apm[2]; /* port 92h but for A20; B2h, B3h */
    struct dev_pic pic;
    struct dev_pit pit;
    struct dev_rtc rtc;
    struct dev_uart uart;
    struct dev_i8042 i8042;
    struct dev_pci pci;
    struct dev_acpi acpi;
    struct dev_fw_cfg fw_cfg;
    struct dev_testdev testdev;
    struct dev_pci_testdev pci_testdev;
};

/* Ranges whose place changes; not mapped until bus_move_*(). They return the number to move them by. */
unsigned bus_add_ports(struct dev_bus *b, const struct dev_io_ops *ops, void *dev);
unsigned bus_add_mmio(struct dev_bus *b, const struct dev_io_ops *ops, void *dev);
/* size 0: nowhere. Ports that somebody has stay his. */
void bus_move_ports(struct dev_bus *b, unsigned range, uint32_t first, uint32_t size);
void bus_move_mmio(struct dev_bus *b, unsigned range, uint64_t first, uint64_t size);

uint64_t bus_now(const struct dev_bus *b);
void bus_timer(struct dev_bus *b, enum dev_timer which, uint64_t at_ns);
/* An ISA interrupt line, 0-15: to the 8259 pair and to the I/O APIC, where interrupt 0 is pin 2. */
void bus_irq(struct dev_bus *b, unsigned irq, bool level);
/* A rising edge; a request not yet served is not withdrawn (dev_pic_pulse()). */
void bus_irq_pulse(struct dev_bus *b, unsigned irq);
/* INTR of the 8259 pair changed. */
void bus_pic_intr(struct dev_bus *b, bool level);
/* Something that the request to the processor follows from may have changed. */
void bus_update_intr(struct dev_bus *b);
/* A message to local APICs. False: none took it. */
bool bus_apic_message(struct dev_bus *b, enum apic_mode mode, unsigned vector, uint8_t destination, bool logical,
                      bool level);
bool bus_apic_reaches(const struct dev_bus *b, uint8_t destination, bool logical);
void bus_a20(struct dev_bus *b, bool enabled);
void bus_reset_request(struct dev_bus *b, bool soft); /* of the whole machine; soft: INIT# from the chipset */
void bus_init_request(struct dev_bus *b);  /* of the processor (INIT) */

/* floor(ns * hz / 1e9) and the first ns at which it is reached; exact, without 128-bit arithmetic, for hz
 * below 2^32. */
uint64_t bus_ticks(uint64_t ns, uint64_t hz);
uint64_t bus_ticks_to_ns(uint64_t ticks, uint64_t hz);

#endif
