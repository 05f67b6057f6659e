/* monitor/lockstep.h: one instruction both ways. Internal to monitor/. */
#ifndef VERSO_MONITOR_LOCKSTEP_H
#define VERSO_MONITOR_LOCKSTEP_H

#include "monitor/machine.h"

enum lockstep_result {
    LOCKSTEP_EQUAL,   /* compared (or, where its bytes could not be read beforehand, only run) */
    LOCKSTEP_RESOLVE, /* the branch table has no entry for EIP: resolve and come again */
    LOCKSTEP_EMULATE, /* the emulator's alone: run it there */
    LOCKSTEP_SIGNAL,  /* a signal came first: nothing ran */
    LOCKSTEP_DIFFER,  /* reported; the machine has ended */
};
/* The state at entry must be prepared (mode, window). */
enum lockstep_result lockstep_step(struct machine *m);

#endif
