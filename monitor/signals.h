/* monitor/signals.h: host signals: faults of translated code, timer, input. Internal to monitor/. */
#ifndef VERSO_MONITOR_SIGNALS_H
#define VERSO_MONITOR_SIGNALS_H

#include "monitor/machine.h"

bool signals_init(struct machine *m, char *err, size_t err_size);
void signals_end(struct machine *m);
/* Asks for a timer signal at the absolute CLOCK_MONOTONIC time at_ns; 0: none. */
void signals_set_timer(struct machine *m, uint64_t at_ns);
/* Sleeps until a signal arrives (or has arrived since they were last looked at). */
void signals_wait(struct machine *m);
/* Interrupts the vCPU thread; any thread. Async-signal-safe. */
void signals_kick(struct machine *m);

#endif
