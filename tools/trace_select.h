/* tools/trace_select.h: which events of a trace: the options that `verso run` and `verso trace` share. */
#ifndef VERSO_TOOLS_TRACE_SELECT_H
#define VERSO_TOOLS_TRACE_SELECT_H

#include "monitor/trace.h"

struct trace_select {
    const char *events, *eip, *cpl; /* NULL: not given */
    uint64_t skip, count;
};

/* Fills f. prefix: what the options' names begin with ("trace-" or ""). False: a message has been printed. */
bool trace_select_parse(const char *cmd, const char *prefix, const struct trace_select *s, const char *default_events,
                        struct trace_filter *f);
/* The groups and kinds with their meanings. */
void trace_select_list(void);

#endif
