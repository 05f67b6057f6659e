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
    void (*reset)(void *opaque);
    void (*exit_code)(void *opaque, int status); /* port F4h: value*2+1 */
    /* Serial output of COM1 (one byte), debug console output (port E9h). */
    void (*serial_out)(void *opaque, uint8_t byte);
    void (*debug_out)(void *opaque, uint8_t byte);
};

/* A handler of a range of ports or of memory-mapped registers. size is 1, 2 or 4; addr is the port or the offset in the range. */
struct dev_io_ops {
    uint32_t (*read)(void *dev, uint32_t addr, unsigned size);
    void (*write)(void *dev, uint32_t addr, unsigned size, uint32_t value);
};

/* Creates a PC: 8259 pair, 8254 with speaker gate (port 61h), MC146818 with CMOS, 16550 at COM1, 8042, PCI configuration mechanism 1 with a
 * host bridge, ACPI PM block (power-off, PM timer), ports 92h, CF9h, F4h, E9h, 80h. ram_bytes goes to CMOS. epoch_s: the wall-clock time
 * at power-on in seconds since 1970, UTC. NULL when out of memory. */
struct dev_bus *dev_bus_create(const struct dev_host_ops *ops, void *opaque, uint64_t ram_bytes, int64_t epoch_s);
void dev_bus_destroy(struct dev_bus *b);
void dev_bus_reset(struct dev_bus *b);

/* Port I/O. Ports nobody owns read as all ones and ignore writes. size 1, 2 or 4; wider accesses to byte chips are split. */
uint32_t dev_port_read(struct dev_bus *b, uint16_t port, unsigned size);
void dev_port_write(struct dev_bus *b, uint16_t port, unsigned size, uint32_t value);

/* Memory-mapped I/O outside RAM; unowned addresses read as all ones. */
uint32_t dev_mmio_read(struct dev_bus *b, uint64_t gpa, unsigned size);
void dev_mmio_write(struct dev_bus *b, uint64_t gpa, unsigned size, uint32_t value);

/* The CPU acknowledges the interrupt (two INTA cycles): returns the vector. */
uint8_t dev_intr_ack(struct dev_bus *b);
bool dev_intr_level(const struct dev_bus *b);

/* Runs whatever is due at now_ns() and announces the next deadline. */
void dev_bus_run_timers(struct dev_bus *b);

/* Input for COM1. Returns how many of the n bytes were taken (the FIFO's room); call again when the guest read some: serial_room() > 0. */
size_t dev_serial_in(struct dev_bus *b, const uint8_t *data, size_t n);
size_t dev_serial_room(const struct dev_bus *b);

/* ACPI tables for this machine, position-dependent: written to buf (at most cap bytes) for guest-physical address gpa below 1 MiB, RSDP first,
 * 16-byte aligned. Returns the size, 0 if cap is too small. */
size_t dev_acpi_tables(const struct dev_bus *b, uint32_t gpa, uint8_t *buf, size_t cap);

/* One line per chip state for diagnostics. */
void dev_bus_dump(const struct dev_bus *b, void (*line)(void *opaque, const char *text), void *opaque);

#endif
