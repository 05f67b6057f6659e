/* monitor/debug.h: a debugger's view of the machine: why it stopped, breakpoints, watchpoints, memory. Internal to monitor/;
 * the vCPU's thread only. The protocol is gdb.c's.
 *
 * Breakpoints and watchpoints are by linear address, in whatever address space. Nothing in guest memory is changed for
 * them. Code of a page with a breakpoint is run by the emulator, which looks before each instruction; a page with a
 * watchpoint is mapped in no window, and the emulator looks at each access. All else runs translated.
 */
#ifndef VERSO_MONITOR_DEBUG_H
#define VERSO_MONITOR_DEBUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine;
struct gdb;

#define DEBUG_POINTS      256u
#define DEBUG_WATCH_BYTES 65536u /* of one watchpoint at most */

/* In the order of the protocol's Z packets. */
enum debug_kind { DEBUG_SOFT, DEBUG_HARD, DEBUG_WRITE, DEBUG_READ, DEBUG_ACCESS };

struct debug_point {
    uint32_t lin, len; /* of a breakpoint: 1 */
    uint8_t kind;
};

enum debug_why {
    DEBUG_WHY_ASKED,    /* by the debugger, or because one has come */
    DEBUG_WHY_STEP,     /* one instruction, or interrupt, is done */
    DEBUG_WHY_BREAK,    /* an instruction with a breakpoint is next */
    DEBUG_WHY_WATCH,    /* the last instruction touched watched memory */
    DEBUG_WHY_SHUTDOWN, /* triple fault: the run ends afterwards */
};
struct debug_stop {
    enum debug_why why;
    struct debug_point point; /* BREAK, WATCH */
    uint32_t lin;             /* WATCH: what was touched */
};

/* How the protocol's step is done; values of QEMU's "sstep". */
enum { DEBUG_STEP_ENABLE = 1, DEBUG_STEP_NO_IRQ = 2, DEBUG_STEP_NO_TIMER = 4 };

struct debug {
    struct gdb *gdb;
    struct trace *trace; /* our own, if the run has none: a ring in memory, off until the debugger's user wants it */
    struct debug_point point[DEBUG_POINTS];
    unsigned points, breaks, watches;
    uint8_t break_page[1u << 17], watch_page[1u << 17]; /* in force: bit per linear page */
    unsigned step_flags;
    bool stepping;
    uint64_t stopped_ns; /* the guest's time when it was stopped */
    bool ran; /* the guest has run since power-on */
    bool resumed; /* the breakpoint at resumed_lin has been reported: its instruction runs now */
    uint32_t resumed_lin;
    bool hit; /* a watchpoint was */
    struct debug_stop hit_stop;
};

static inline bool debug_page_bit(const uint8_t *map, uint32_t lin)
{
    return map[lin >> 15] >> (lin >> 12 & 7) & 1;
}
/* Async-signal-safe. */
static inline bool debug_breaks_in_page(const struct debug *d, uint32_t lin)
{
    return d && d->breaks && debug_page_bit(d->break_page, lin);
}
static inline bool debug_watches_page(const struct debug *d, uint32_t lin)
{
    return d && d->watches && debug_page_bit(d->watch_page, lin);
}

/* Starts a debugger's service if the configuration wants one. */
bool debug_init(struct machine *m, char *err, size_t err_size);
void debug_end(struct machine *m);
/* Before the first instruction: waits for a debugger if the configuration says so. */
void debug_begin(struct machine *m);
/* Between two instructions. True: the guest was stopped and state may be any other now. */
bool debug_attend(struct machine *m);
/* The same, for a breakpoint at the next instruction. */
bool debug_break_here(struct machine *m);
/* One step is done. */
void debug_stepped(struct machine *m);
/* The run has ended: a triple fault can be looked at, then the debugger is told. */
void debug_finish(struct machine *m);
/* The debugger wants to come in (the idle loop asks). */
bool debug_called(const struct machine *m);
/* No interrupt is to be delivered now. */
bool debug_holds_interrupts(const struct machine *m);

/* -- For the protocol, while the guest is stopped ---------------------------------------------------------- */

/* False: no room, or a length that makes no sense. */
bool debug_insert(struct machine *m, enum debug_kind kind, uint32_t lin, uint64_t len);
bool debug_remove(struct machine *m, enum debug_kind kind, uint32_t lin, uint64_t len);
void debug_remove_all(struct machine *m);
/* Linear addresses through the guest's page tables as they are now, nothing of them changed (or physical ones): RAM, and ROM for
 * reading; no MMIO. Returns how many bytes could be. Writing drops patched pages; the tables' rights are not looked at. */
size_t debug_read(struct machine *m, bool physical, uint64_t address, void *buf, size_t len);
size_t debug_write(struct machine *m, bool physical, uint64_t address, const void *buf, size_t len);
/* The linear address of the next instruction. */
uint32_t debug_pc(const struct machine *m);
/* Where to go on. */
void debug_set_eip(struct machine *m, uint32_t eip);

#endif
