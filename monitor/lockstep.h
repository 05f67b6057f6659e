/* monitor/lockstep.h: translated code against the emulator, one instruction at a time. Internal to monitor/; vCPU thread. */
#ifndef VERSO_MONITOR_LOCKSTEP_H
#define VERSO_MONITOR_LOCKSTEP_H

#include "monitor/machine.h"

enum lockstep_result {
    LOCKSTEP_EQUAL,   /* compared */
    LOCKSTEP_RESOLVE, /* the branch table has no entry for EIP: resolve and come again */
    LOCKSTEP_EMULATE, /* the emulator's alone (m->why says which exit): run it there */
    LOCKSTEP_FAULT,   /* the same after a host fault */
    LOCKSTEP_SIGNAL,  /* a signal came first: nothing, or a part of a repeat, has been run */
    LOCKSTEP_DIFFER,  /* reported; the machine has ended */
};

bool lockstep_init(struct machine *m, char *err, size_t size);
void lockstep_destroy(struct machine *m);
/* Between two guest instructions, before anything else of the run loop: begins or ends a stretch that is due (m->stepping says
 * what is the case then), compares memory, and lets the guest's clock go on. */
void lockstep_poll(struct machine *m);
/* Instructions are to be emulated for now, before the only stretch (run_lockstep.skip)? */
bool lockstep_skipping(const struct machine *m);
/* While m->stepping, with the state prepared (mode, window): runs the instruction at EIP both ways. */
enum lockstep_result lockstep_step(struct machine *m);
/* While m->stepping: n instructions have been, or the one at EIP will be, run by the emulator alone. lockstep_alone() is to be called
 * before it runs. */
void lockstep_alone(struct machine *m, enum run_alone why);
void lockstep_alone_state(struct machine *m, uint64_t n);
/* The guest is idle: if its clock goes by instructions, it jumps to the next deadline. False: it does not, or there is none. */
bool lockstep_idle(struct machine *m);
/* While m->stepping: RAM has been written by others than the emulator (a restart). */
void lockstep_resync(struct machine *m);
/* While m->slow_clock. */
uint64_t lockstep_guest_ns(const struct machine *m);

#endif
