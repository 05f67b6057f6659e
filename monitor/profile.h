/* monitor/profile.h: where time goes, by sampling. Internal to monitor/; the result is struct run_profile
 * (run.h).
 *
 * A timer interrupts the vCPU's thread at a steady rate of real time. The handler looks at the host address:
 * translated code and stubs are known by it, everything else by what the thread last said it was at
 * (vm_doing(), one byte stored, which is all that a run without a profile pays). */
#ifndef VERSO_MONITOR_PROFILE_H
#define VERSO_MONITOR_PROFILE_H

#include <ucontext.h>

#include "monitor/machine.h"

/* Starts and stops the timer; nothing without cfg->profile. */
bool profile_start(struct machine *m, char *err, size_t err_size);
void profile_stop(struct machine *m);

/* The map file for `perf` (cfg->perf_map, else nothing): an instance was placed; code memory was emptied. */
void profile_placed(struct machine *m, const struct inst *in);
void profile_flushed(struct machine *m);

#endif
