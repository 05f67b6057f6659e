/* tests/unit/dev_apic.h: registers of the APICs as a guest reaches them, for the suites of both. */
#ifndef VERSO_TESTS_DEV_APIC_H
#define VERSO_TESTS_DEV_APIC_H

#include "dev_machine.h"

#define LAPIC  0xFEE00000ull
#define IOAPIC 0xFEC00000ull

enum {
    A_ID = 0x20, A_VERSION = 0x30, A_TPR = 0x80, A_PPR = 0xA0, A_EOI = 0xB0, A_LDR = 0xD0, A_DFR = 0xE0, A_SVR = 0xF0,
    A_ISR = 0x100, A_TMR = 0x180, A_IRR = 0x200, A_ESR = 0x280, A_ICR = 0x300, A_ICR2 = 0x310, A_TIMER = 0x320,
    A_THERMAL = 0x330, A_PERF = 0x340, A_LINT0 = 0x350, A_LINT1 = 0x360, A_ERROR = 0x370, A_INITIAL = 0x380,
    A_CURRENT = 0x390, A_DIVIDE = 0x3E0,
};

static inline uint32_t a_read(unsigned reg)
{
    return dev_mmio_read(m.bus, LAPIC + reg, 4);
}
static inline void a_write(unsigned reg, uint32_t v)
{
    dev_mmio_write(m.bus, LAPIC + reg, 4, v);
}
/* Is the vector's bit set in a 256-bit register? */
static inline bool a_bit(unsigned reg, unsigned vector)
{
    return a_read(reg + (vector >> 5) * 16) >> (vector & 31) & 1;
}
/* Symmetric mode: software-enabled, nothing from the 8259 pair. */
static inline void a_symmetric(void)
{
    a_write(A_SVR, 0x1FF);
    a_write(A_LINT0, 0x10000);
}
static inline void a_self(unsigned vector)
{
    a_write(A_ICR, 0x40000 | vector);
}

static inline uint32_t io_read(unsigned index)
{
    dev_mmio_write(m.bus, IOAPIC, 4, index);
    return dev_mmio_read(m.bus, IOAPIC + 0x10, 4);
}
static inline void io_write(unsigned index, uint32_t v)
{
    dev_mmio_write(m.bus, IOAPIC, 4, index);
    dev_mmio_write(m.bus, IOAPIC + 0x10, 4, v);
}
static inline void io_entry(unsigned pin, uint32_t high, uint32_t low)
{
    io_write(0x11 + 2 * pin, high);
    io_write(0x10 + 2 * pin, low);
}
/* Takes the interrupt that must be there and ends it. */
static inline unsigned take(void)
{
    unsigned vector;

    ck_assert(m.intr);
    vector = dev_intr_ack(m.bus);
    a_write(A_EOI, 0);
    return vector;
}

#endif
