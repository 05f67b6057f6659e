/* tools/trace_select.c: see trace_select.h. */
#include "tools/trace_select.h"

#include <stdio.h>
#include <string.h>

bool trace_select_parse(const char *cmd, const char *prefix, const struct trace_select *s, const char *default_events,
                        struct trace_filter *f)
{
    char bad[32];
    *f = (struct trace_filter){.skip = s->skip, .count = s->count};
    if (!trace_parse_kinds(s->events ? s->events : default_events, &f->kinds, bad)) {
        fprintf(stderr, "verso %s: --%sevents: unknown trace event \"%s\" (--%sevents list shows them)\n", cmd, prefix,
                bad, prefix);
        return false;
    }
    if (s->eip && !trace_parse_ranges(s->eip, f)) {
        fprintf(stderr, "verso %s: --%seip takes up to %u ranges FIRST-LAST, FIRST+BYTES or ADDRESS, hexadecimal\n", cmd,
                prefix, TRACE_RANGES);
        return false;
    }
    if (s->cpl && !trace_parse_cpls(s->cpl, &f->cpls)) {
        fprintf(stderr, "verso %s: --%scpl takes numbers from 0 to 3\n", cmd, prefix);
        return false;
    }
    return true;
}

void trace_select_list(void)
{
    for (unsigned g = 0; g < TRACE_GROUP_COUNT; g++) {
        printf("%-10s %s\n", trace_group_name((enum trace_group)g), trace_group_text((enum trace_group)g));
        for (unsigned k = 0; k < TRACE_KIND_COUNT; k++)
            if (trace_kind_group((enum trace_kind)k) == g)
                printf("  %-10s %s\n", trace_kind_name((enum trace_kind)k), trace_kind_text((enum trace_kind)k));
    }
}
