/* tests/unit/dev_machine.h: a bus whose clock the test moves, and which notes what the chips ask of the
 * machine. */
#ifndef VERSO_TESTS_DEV_MACHINE_H
#define VERSO_TESTS_DEV_MACHINE_H

#include "devices/bus.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS  1000000ull
#define NS_PER_SEC 1000000000ull
#define EPOCH      1704067199 /* 2023-12-31 23:59:59 UTC, a Sunday */

struct machine {
    struct dev_bus *bus;
    uint64_t now, deadline;
    bool intr, a20;
    unsigned rises, power_offs, resets, softs, exits, deadlines, nmis, inits, flushes, calls, shadows;
    uint8_t pam[7], command;
    uint64_t flushed;
    int exit_code;
    uint8_t ram[65536]; /* what chips reach by DMA */
    char serial[256], debug[64];
    size_t serial_n, debug_n;
};

static inline uint64_t m_now(void *o)
{
    return ((struct machine *)o)->now;
}
static inline void m_deadline(void *o, uint64_t at)
{
    ((struct machine *)o)->deadline = at;
    ((struct machine *)o)->deadlines++;
}
static inline void m_intr(void *o, bool level)
{
    struct machine *m = o;

    m->rises += level && !m->intr;
    m->intr = level;
}
static inline void m_a20(void *o, bool on)
{
    ((struct machine *)o)->a20 = on;
}
static inline void m_off(void *o)
{
    ((struct machine *)o)->power_offs++;
}
static inline void m_reset(void *o, bool soft)
{
    ((struct machine *)o)->resets++;
    ((struct machine *)o)->softs += soft;
}
static inline void m_call(void *o, uint8_t command)
{
    ((struct machine *)o)->calls++;
    ((struct machine *)o)->command = command;
}
static inline void m_shadow(void *o, const uint8_t pam[7])
{
    ((struct machine *)o)->shadows++;
    memcpy(((struct machine *)o)->pam, pam, 7);
}
static inline void m_exit(void *o, int status)
{
    ((struct machine *)o)->exits++;
    ((struct machine *)o)->exit_code = status;
}
static inline void m_serial(void *o, uint8_t byte)
{
    struct machine *m = o;

    m->serial[m->serial_n++ % sizeof m->serial] = (char)byte;
}
static inline void m_debug(void *o, uint8_t byte)
{
    struct machine *m = o;

    m->debug[m->debug_n++ % sizeof m->debug] = (char)byte;
}

static inline void m_nmi(void *o)
{
    ((struct machine *)o)->nmis++;
}
static inline void m_init(void *o)
{
    dev_apic_init(((struct machine *)o)->bus);
    ((struct machine *)o)->inits++;
}
static inline void m_flush(void *o, uint64_t gpa)
{
    ((struct machine *)o)->flushes++;
    ((struct machine *)o)->flushed = gpa;
}
static inline bool m_dma_read(void *o, uint64_t gpa, void *buf, size_t len)
{
    const struct machine *mm = o;

    if (gpa > sizeof mm->ram || len > sizeof mm->ram - gpa)
        return false;
    memcpy(buf, mm->ram + gpa, len);
    return true;
}
static inline bool m_dma_write(void *o, uint64_t gpa, const void *buf, size_t len)
{
    struct machine *mm = o;

    if (gpa > sizeof mm->ram || len > sizeof mm->ram - gpa)
        return false;
    memcpy(mm->ram + gpa, buf, len);
    return true;
}

static struct machine m;

static inline void machine_setup(void)
{
    static const struct dev_host_ops ops = {m_now,   m_deadline, m_intr,   m_a20,  m_off,
                                            m_reset, m_exit,     m_serial, m_debug, m_nmi, m_init,
                                            m_flush, m_dma_read, m_dma_write, m_call, m_shadow};

    memset(&m, 0, sizeof m);
    m.a20 = true;
    m.bus = dev_bus_create(&ops, &m, 512ull << 20, EPOCH);
    ck_assert_ptr_nonnull(m.bus);
}

static inline void machine_teardown(void)
{
    dev_bus_destroy(m.bus);
}

static inline uint8_t in8(uint16_t port)
{
    return (uint8_t)dev_port_read(m.bus, port, 1);
}
static inline void out8(uint16_t port, uint8_t v)
{
    dev_port_write(m.bus, port, 1, v);
}

/* Moves the clock, running timers at each deadline as the machine would. */
static inline void run_until(uint64_t at)
{
    for (unsigned n = 0; m.deadline <= at; n++) {
        ck_assert_uint_lt(n, 1000000);
        if (m.deadline > m.now)
            m.now = m.deadline;
        dev_bus_run_timers(m.bus);
    }
    m.now = at;
}
static inline void run_for(uint64_t ns)
{
    run_until(m.now + ns);
}

/* Linux 6.1, init_8259A(): vectors 30h and 38h, everything masked afterwards. */
static inline void linux_init_8259(bool auto_eoi)
{
    out8(0x21, 0xFF);
    out8(0x20, 0x11);
    out8(0x21, 0x30);
    out8(0x21, 0x04);
    out8(0x21, auto_eoi ? 0x03 : 0x01);
    out8(0xA0, 0x11);
    out8(0xA1, 0x38);
    out8(0xA1, 0x02);
    out8(0xA1, 0x01);
    out8(0x21, 0xFF);
    out8(0xA1, 0xFF);
}

static inline int run_suite(const char *name, void (*add)(TCase *t))
{
    Suite *s = suite_create(name);
    TCase *t = tcase_create(name);
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, machine_setup, machine_teardown);
    add(t);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
