/* devices/bus.h: how chips meet the machine.
 *
 * Every chip's state is a plain struct (a snapshot is a copy). Chips run on the vCPU's thread only, never allocate after creation, and reach
 * up only through the callbacks here. Times are nanoseconds of guest time: monotonic, 0 at power-on.
 */
#ifndef VERSO_DEVICES_BUS_H
#define VERSO_DEVICES_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dev_bus;

/* What the machine provides to chips. All called on the vCPU's thread. */
struct dev_host_ops {
    uint64_t (*now_ns)(void *opaque);
    /* The next point of time at which dev_bus_run_timers() must be called; UINT64_MAX for never. The bus calls it when
     * its earliest deadline changed. */
    void (*set_deadline)(void *opaque, uint64_t at_ns);
    /* The level of the interrupt request of the 8259 pair to the CPU changed. */
    void (*intr)(void *opaque, bool level);
    void (*a20)(void *opaque, bool enabled);
    /* The guest asked for one of these; the machine acts when the current instruction is complete. */
    void (*power_off)(void *opaque);
    /* Soft: INIT# of the processor, which is what the 8042, port 92h and CF9h can drive; else everything is reset, the bus by the machine. */
    void (*reset)(void *opaque, bool soft);
    void (*exit_code)(void *opaque, int status); /* port F4h: value*2+1 */
    /* Serial output of COM1 (one byte), debug console output (port E9h). */
    void (*serial_out)(void *opaque, uint8_t byte);
    void (*debug_out)(void *opaque, uint8_t byte);
    /* A non-maskable interrupt arrived: an edge. */
    void (*nmi)(void *opaque);
    /* INIT to the processor: it starts anew as SDM vol. 3, 9.1 says, while the devices go on; the machine calls dev_apic_init(). */
    void (*init)(void *opaque);
    /* The test device wants the next access to this page to find no mapping of it (of whatever kind the machine keeps). */
    void (*flush_page)(void *opaque, uint64_t gpa);
    /* Copies from and to guest RAM. False: not all of [gpa, gpa + len) is RAM; nothing was copied. */
    bool (*dma_read)(void *opaque, uint64_t gpa, void *buf, size_t len);
    bool (*dma_write)(void *opaque, uint64_t gpa, const void *buf, size_t len);
    /* Port B2h was written: firmware's system management mode is called, if there is one. */
    void (*firmware_call)(void *opaque, uint8_t command);
    /* PAM registers 59h to 5Fh of the host bridge: which parts of C0000h to FFFFFh are RAM. Called when they change. */
    void (*shadow)(void *opaque, const uint8_t pam[7]);
};

/* What a machine has only if it is asked for: DEV_EXTRA(id, "name", "meaning"). */
#define DEV_EXTRAS(X)                                                                                                  \
    X(TESTDEV, "testdev", "ports and memory that kvm-unit-tests use: interrupt lines 2000h, data E0h, flush E4h, FF000000h") \
    X(PCI_TESTDEV, "pci-testdev", "PCI device that counts accesses to its memory and ports")                                 \
    X(DEBUGCON, "debugcon", "firmware's debug console at port 402h, to standard error")
enum dev_extra {
#define X(id, name, text) DEV_EXTRA_##id,
    DEV_EXTRAS(X)
#undef X
    DEV_EXTRA_COUNT
};
const char *dev_extra_name(enum dev_extra e);
const char *dev_extra_text(enum dev_extra e);

/* A handler of a range of ports or of memory-mapped registers. size is 1, 2 or 4; addr is the port or the offset in the range. */
struct dev_io_ops {
    uint32_t (*read)(void *dev, uint32_t addr, unsigned size);
    void (*write)(void *dev, uint32_t addr, unsigned size, uint32_t value);
};

/* Creates a PC: local APIC and I/O APIC, 8259 pair, 8254 with speaker gate (port 61h), MC146818 with CMOS, 16550 at COM1, 8042, PCI
 * configuration mechanism 1 with a host bridge, ACPI PM block (power-off, PM timer), ports 92h, CF9h, F4h, E9h, 80h. ram_bytes goes to CMOS. epoch_s: the wall-clock time
 * at power-on in seconds since 1970, UTC. NULL when out of memory. */
struct dev_bus *dev_bus_create(const struct dev_host_ops *ops, void *opaque, uint64_t ram_bytes, int64_t epoch_s);
void dev_bus_destroy(struct dev_bus *b);
/* Power-up state of everything, as a PC's firmware leaves it. */
void dev_bus_reset(struct dev_bus *b);
/* The same, but for what tells firmware that only the processor was reset (port 92h): a firmware sets its devices up again. */
void dev_bus_setup(struct dev_bus *b);
/* Adds a device, before the machine starts. */
void dev_bus_add(struct dev_bus *b, enum dev_extra e);
/* All of C0000h to FFFFFh is RAM, as firmware leaves it. */
void dev_shadow_open(struct dev_bus *b);

/* Port I/O. Ports nobody owns read as all ones and ignore writes. size 1, 2 or 4; wider accesses to byte chips are split. */
uint32_t dev_port_read(struct dev_bus *b, uint16_t port, unsigned size);
void dev_port_write(struct dev_bus *b, uint16_t port, unsigned size, uint32_t value);

/* Memory-mapped I/O outside RAM, at any alignment; unowned addresses read as all ones. An access that lies in two ranges, or partly
 * in one, is split into bytes. */
uint32_t dev_mmio_read(struct dev_bus *b, uint64_t gpa, unsigned size);
void dev_mmio_write(struct dev_bus *b, uint64_t gpa, unsigned size, uint32_t value);

/* The CPU acknowledges the interrupt: returns the vector, of the 8259 pair (two INTA cycles) or of the local APIC. */
uint8_t dev_intr_ack(struct dev_bus *b);
bool dev_intr_level(const struct dev_bus *b);
/* The level of the NMI line (LINT1 of the local APIC). */
void dev_nmi_line(struct dev_bus *b, bool level);

/* The processor gets INIT: so does its local APIC (SDM vol. 3, 10.4.7.3). */
void dev_apic_init(struct dev_bus *b);
/* IA32_APIC_BASE was written; the processor has refused reserved bits (SDM vol. 3, 10.4.4). */
void dev_apic_set_base(struct dev_bus *b, uint64_t value);
/* The clock of the local APIC's timer, in Hz (1 to 2^32 - 1): that of CPUID leaf 15h, if the processor has it (SDM vol. 3, 10.5.4). To be set
 * before the machine starts. */
void dev_apic_set_clock(struct dev_bus *b, uint32_t hz);
/* Writes to registers of the local APIC since power-on. */
struct dev_apic_counts {
    uint64_t eoi, tpr, icr, timer;
};
struct dev_apic_counts dev_apic_counts(const struct dev_bus *b);

/* The processor's FERR# pin (x87 errors with CR0.NE clear; SDM vol. 1, D.2.1): while asserted, IRQ 13 is latched until the guest writes port
 * F0h. */
void dev_ferr(struct dev_bus *b, bool asserted);
/* Its IGNNE# pin: asserted from the write to port F0h until FERR# goes away. x87 instructions then ignore the pending error. */
bool dev_ignne(const struct dev_bus *b);

/* Runs whatever is due at now_ns() and announces the next deadline. */
void dev_bus_run_timers(struct dev_bus *b);

/* Input for COM1. Returns how many of the n bytes were taken (the FIFO's room); call again when the guest read some: serial_room() > 0. */
size_t dev_serial_in(struct dev_bus *b, const uint8_t *data, size_t n);
size_t dev_serial_room(const struct dev_bus *b);

/* ACPI tables for this machine, position-dependent: written to buf (at most cap bytes) for guest-physical address gpa below 1 MiB, RSDP first,
 * 16-byte aligned. Returns the size, 0 if cap is too small. */
size_t dev_acpi_tables(const struct dev_bus *b, uint32_t gpa, uint8_t *buf, size_t cap);

/* Items of firmware configuration (fw_cfg), before the machine starts: keys as QEMU numbers them. The bytes are not copied and must outlive the
 * bus. An item added again replaces the old one. False: no room, or the name has more than 55 bytes. */
enum dev_fw_cfg_key {
    DEV_FW_CFG_SIGNATURE = 0x00, DEV_FW_CFG_ID, DEV_FW_CFG_UUID, DEV_FW_CFG_RAM_SIZE, DEV_FW_CFG_NOGRAPHIC, DEV_FW_CFG_NB_CPUS,
    DEV_FW_CFG_KERNEL_ADDR = 0x07, DEV_FW_CFG_KERNEL_SIZE, DEV_FW_CFG_KERNEL_CMDLINE, DEV_FW_CFG_INITRD_ADDR, DEV_FW_CFG_INITRD_SIZE,
    DEV_FW_CFG_BOOT_MENU = 0x0E, DEV_FW_CFG_MAX_CPUS, DEV_FW_CFG_KERNEL_ENTRY, DEV_FW_CFG_KERNEL_DATA, DEV_FW_CFG_INITRD_DATA,
    DEV_FW_CFG_CMDLINE_ADDR, DEV_FW_CFG_CMDLINE_SIZE, DEV_FW_CFG_CMDLINE_DATA, DEV_FW_CFG_SETUP_ADDR, DEV_FW_CFG_SETUP_SIZE,
    DEV_FW_CFG_SETUP_DATA, DEV_FW_CFG_FILE_DIR,
    DEV_FW_CFG_IRQ0_OVERRIDE = 0x8002,
};
bool dev_fw_cfg_add(struct dev_bus *b, uint16_t key, const void *data, size_t len);
/* A little-endian number of size bytes (1 to 8), which is copied. */
bool dev_fw_cfg_add_number(struct dev_bus *b, uint16_t key, uint64_t value, unsigned size);
bool dev_fw_cfg_add_file(struct dev_bus *b, const char *name, const void *data, size_t len);

/* One line per chip state for diagnostics. */
void dev_bus_dump(const struct dev_bus *b, void (*line)(void *opaque, const char *text), void *opaque);

#endif
