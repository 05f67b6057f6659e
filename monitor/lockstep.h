/* monitor/lockstep.h: one instruction both ways. Internal to monitor/. */
#ifndef VERSO_MONITOR_LOCKSTEP_H
#define VERSO_MONITOR_LOCKSTEP_H

#include "monitor/machine.h"

/* The state at entry must be prepared (mode, window). Returns RUN_POWER_OFF: compared and equal; RUN_RESET: the branch table has no entry
 * for EIP; RUN_EXIT_PORT: to be emulated only; RUN_QUIT: a signal came first; RUN_LOCKSTEP_DIFF: reported, the machine has ended. */
enum run_end lockstep_step(struct machine *m);

#endif
