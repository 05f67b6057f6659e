/* tools/profile_report.h: the profile of a run as text and JSON. */
#ifndef VERSO_TOOLS_PROFILE_REPORT_H
#define VERSO_TOOLS_PROFILE_REPORT_H

#include <stdio.h>

#include "monitor/run.h"
#include "tools/json.h"

/* Shares by what the thread was at, then the pages and the instructions of the guest most time was spent at
 * or for. */
void profile_text(FILE *to, const struct run_profile *p);
/* The same as an object "profile" of the document. */
void profile_json(struct json *j, const struct run_profile *p);

#endif
