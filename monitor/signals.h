/* monitor/signals.h: host signals: faults of translated code, timer, input. Internal to monitor/. */
#ifndef VERSO_MONITOR_SIGNALS_H
#define VERSO_MONITOR_SIGNALS_H

#include <ucontext.h>

#include "monitor/machine.h"

bool signals_init(struct machine *m, char *err, size_t err_size);
void signals_end(struct machine *m);
/* Asks for a timer signal at the absolute CLOCK_MONOTONIC time at_ns; 0: none. */
void signals_set_timer(struct machine *m, uint64_t at_ns);
/* The vCPU thread is kicked, with m->pace set, in so many ns. Only with cfg->lockstep. */
void signals_set_pace(struct machine *m, uint64_t in_ns);
/* Sleeps until a signal arrives (or has arrived since they were last looked at). */
void signals_wait(struct machine *m);
/* For the profile; async-signal-safe. The guest EIP that host registers stand for, left alone where it cannot be told; the one
 * of the host fault being handled; is the address in the stubs, or where the fault handler begins? */
void signals_guest_eip(struct machine *m, const greg_t *g, uint32_t *eip);
void signals_fault_eip(struct machine *m, uint32_t *eip);
bool signals_in_stubs(uint64_t rip);
bool signals_fault_begins(uint64_t rip);
/* Adds the signals that make translated code leave. */
void signals_block_events(sigset_t *set);
/* Interrupts the vCPU thread; any thread. Async-signal-safe. */
void signals_kick(struct machine *m);

#endif
