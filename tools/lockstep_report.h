/* tools/lockstep_report.h: what lockstep found, for people. */
#ifndef VERSO_TOOLS_LOCKSTEP_REPORT_H
#define VERSO_TOOLS_LOCKSTEP_REPORT_H

#include <stdio.h>

#include "monitor/run.h"
#include "tools/json.h"

/* The first difference: the states, memory, and the code around the instruction. */
void lockstep_difference(FILE *to, const struct run_difference *d);
/* How many instructions were compared, and by class and reason those that were not. */
void lockstep_text(FILE *to, const struct run_result *r);
/* The same as an object "lockstep" inside an object. */
void lockstep_json(struct json *j, const struct run_result *r);

#endif
