/* monitor/trace.h: one line per event, for people and diff(1). */
#ifndef VERSO_MONITOR_TRACE_H
#define VERSO_MONITOR_TRACE_H

#include <stdio.h>

#define TRACE(m, event, ...)                                                                                                       \
    do {                                                                                                                           \
        if ((m)->cfg->trace && ((m)->cfg->trace_mask & (event))) {                                                                 \
            fprintf((m)->cfg->trace, __VA_ARGS__);                                                                                 \
            fputc('\n', (m)->cfg->trace);                                                                                          \
        }                                                                                                                          \
    } while (0)

#endif
