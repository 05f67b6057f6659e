/* monitor/sandbox.h: the system calls that are left while a guest runs (sandbox.def).
 *
 * The second line of defence: a guest reaches nothing but its window in the first place. What would come of a
 * mistake there is a process that can compute, write to the files it has open, and end. */
#ifndef VERSO_MONITOR_SANDBOX_H
#define VERSO_MONITOR_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

enum { SANDBOX_ALWAYS = 1, SANDBOX_CACHE = 2, SANDBOX_GDB = 4 };

/* From now on, for good, no thread of this process makes a call that sandbox.def does not list for one of the
 * reasons `when` (SANDBOX_*). Another call is not made: SIGSYS ends the process with a line on standard error
 * and the given exit status. Once per process; any thread; threads that block SIGSYS are killed without the
 * line. False: the kernel refuses, why says it; nothing has changed. */
bool sandbox_enter(unsigned when, int status, char *why, size_t why_size);
/* The name of a system call of sandbox.def, or NULL. */
const char *sandbox_call_name(long number);

#endif
