/* monitor/gdb_monitor.c: what a debugger's user asks Verso itself: `monitor COMMAND`. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/gdb.h"
#include "monitor/machine.h"

struct command {
    const char *name, *args, *text;
    void (*run)(struct gdb *g, struct machine *m, char *args);
};

/* The next word of a line, NULL at its end. */
static char *next_word(char **line)
{
    char *word = *line + strspn(*line, " \t\n");
    size_t n = strcspn(word, " \t\n");
    if (!n)
        return NULL;
    *line = word + n + (word[n] != 0);
    word[n] = 0;
    return word;
}

static bool parse_number(const char *text, int base, uint64_t *out)
{
    char *end;
    if (!text)
        return false;
    *out = strtoull(text, &end, base);
    return !*end && end != text;
}

/* -- info ------------------------------------------------------------------------------------------------- */

static void say_segment(struct gdb *g, const char *name, const struct cpu_seg *s)
{
    gdb_say(g, "%-4s %04x base=%08x limit=%08x attr=%04x%s\n", name, s->sel, s->base, s->limit, s->attr,
            s->unusable ? " unusable" : "");
}

static void say_line(void *opaque, const char *text)
{
    gdb_say(opaque, "%s\n", text);
}

static const char *mode_name(const struct cpu *c)
{
    static const char *const names[] = {"real mode", "virtual-8086 mode", "protected mode, 16-bit code", "protected mode, 32-bit code"};
    return names[TRACE_MODE(vm_place(c).context)];
}

static void run_info(struct gdb *g, struct machine *m, char *args)
{
    static const char *const name[6] = {"es", "cs", "ss", "ds", "fs", "gs"};
    const struct cpu *c = m->vm.cpu;
    char *what = next_word(&args);
    if (what && !strcmp(what, "devices")) {
        dev_bus_dump(m->vm.bus, say_line, g);
        return;
    }
    gdb_say(g, "%s, CPL %u, next instruction at linear %08x%s%s\n", mode_name(c), c->cpl, debug_pc(m), c->halted ? ", halted" : "",
            c->shadow ? ", interrupts held back" : "");
    for (unsigned i = 0; i < 6; i++)
        say_segment(g, name[i], &c->seg[i]);
    say_segment(g, "ldtr", &c->ldtr);
    say_segment(g, "tr", &c->tr);
    gdb_say(g, "gdtr base=%08x limit=%04x  idtr base=%08x limit=%04x\n", c->gdtr.base, c->gdtr.limit, c->idtr.base, c->idtr.limit);
    gdb_say(g, "cr0=%08x cr2=%08x cr3=%08x cr4=%08x efer=%" PRIx64 "\n", c->cr0, c->cr2, c->cr3, c->cr4, c->efer);
    gdb_say(g, "dr0=%08x dr1=%08x dr2=%08x dr3=%08x dr6=%08x dr7=%08x\n", c->dr[0], c->dr[1], c->dr[2], c->dr[3], c->dr[6], c->dr[7]);
    gdb_say(g, "guest time %" PRIu64 ".%06u s, ", m->debug->stopped_ns / 1000000000u, (unsigned)(m->debug->stopped_ns / 1000 % 1000000));
    gdb_say(g, "eflags=%08x interrupt requested: %s, A20 %s\n", cpu_eflags(c), c->irq_pending ? "yes" : "no",
            c->a20_mask == UINT32_MAX ? "on" : "off");
}

/* -- Others ----------------------------------------------------------------------------------------------- */

static void run_translate(struct gdb *g, struct machine *m, char *args)
{
    uint64_t a;
    struct mmu_page p;
    uint32_t frame;
    if (!parse_number(next_word(&args), 16, &a) || a > UINT32_MAX) {
        gdb_say(g, "which linear address, in hexadecimal?\n");
    } else if (!mmu_probe(&m->vm, gva((uint32_t)a), &p)) {
        gdb_say(g, "%08x is not mapped\n", (unsigned)a);
    } else {
        frame = vm_frame(&m->vm, p.page.v, false);
        gdb_say(g, "%08x is at physical %" PRIx64 ": %s, %s, %s, page of %u KiB%s%s\n", (unsigned)a, p.page.v | (a & PAGE_MASK_),
                p.user ? "user" : "supervisor", p.writable ? "writable" : "read-only", p.executable ? "executable" : "no code",
                1u << (p.size_log2 - 10), frame == VM_NO_FRAME ? ", no memory" : "",
                frame != VM_NO_FRAME && m->vm.code_pages[frame] ? ", translated code" : "");
    }
}

static void run_phys(struct gdb *g, struct machine *m, char *args)
{
    const char *word = next_word(&args);
    (void)m;
    if (word)
        gdb_set_physical(g, !strcmp(word, "on"));
    gdb_say(g, "memory addresses are %s\n", gdb_physical(g) ? "physical" : "linear");
}

static void run_step(struct gdb *g, struct machine *m, char *args)
{
    const char *word = next_word(&args);
    if (word && !strcmp(word, "irq"))
        m->debug->step_flags &= ~(unsigned)DEBUG_STEP_NO_IRQ;
    else if (word)
        m->debug->step_flags |= DEBUG_STEP_NO_IRQ;
    gdb_say(g, "interrupts are %s while stepping\n", m->debug->step_flags & DEBUG_STEP_NO_IRQ ? "held back" : "delivered");
}

static void run_stats(struct gdb *g, struct machine *m, char *args)
{
    const char *word = next_word(&args);
    for (unsigned i = 0; i < RUN_COUNTER_COUNT; i++) {
        const char *name = run_counter_name((enum run_counter)i);
        if (word ? strstr(name, word) != NULL : m->counter[i] != 0)
            gdb_say(g, "%-18s %14" PRIu64 "  %s\n", name, m->counter[i], run_counter_text((enum run_counter)i));
    }
}

static void show_events(struct gdb *g, struct machine *m, const char *number)
{
    uint64_t held = trace_held(m->trace), n = 20;
    char text[TRACE_TEXT_MAX];
    if (number && !parse_number(number, 0, &n)) {
        gdb_say(g, "how many events?\n");
        return;
    }
    if (!held)
        gdb_say(g, "no events are held in memory\n");
    for (uint64_t i = held > n ? held - n : 0; i < held; i++) {
        trace_text(trace_get(m->trace, i), text);
        gdb_say(g, "%s\n", text);
    }
}

static void trace_list(struct gdb *g)
{
    for (unsigned i = 0; i < TRACE_GROUP_COUNT; i++)
        gdb_say(g, "%-6s %s\n", trace_group_name((enum trace_group)i), trace_group_text((enum trace_group)i));
}

static void run_trace(struct gdb *g, struct machine *m, char *args)
{
    const char *word = next_word(&args), *what = next_word(&args);
    uint64_t kinds;
    char bad[32];
    if (word && !strcmp(word, "list")) {
        trace_list(g);
    } else if (!m->trace) {
        gdb_say(g, "out of memory: no trace\n");
    } else if (word && !strcmp(word, "show")) {
        show_events(g, m, what);
    } else if (word && !strcmp(word, "off")) {
        trace_select(m->trace, 0);
    } else if (word && !strcmp(word, "on")) {
        if (trace_parse_kinds(what ? what : "exc,irq,io", &kinds, bad))
            trace_select(m->trace, kinds);
        else
            gdb_say(g, "unknown event \"%s\" (monitor trace list)\n", bad);
    } else if (word) {
        gdb_say(g, "monitor trace on LIST | off | show N | list\n");
    } else {
        gdb_say(g, "%s; %" PRIu64 " events so far, %" PRIu64 " held in memory\n", trace_wanted(m->trace) ? "on" : "off",
                trace_seen(m->trace), trace_held(m->trace));
    }
    machine_observe(m);
}

static void run_lockstep(struct gdb *g, struct machine *m, char *args)
{
    (void)args;
    if (!m->lockstep)
        gdb_say(g, "this run is not in lockstep (verso run --lockstep)\n");
    else
        gdb_say(g, "lockstep: %s a stretch; %" PRIu64 " instructions compared in %" PRIu64 " stretches, no difference\n",
                m->stepping ? "in" : "outside", m->counter[RUN_COUNTER_LOCKSTEP_INSNS], m->counter[RUN_COUNTER_LOCKSTEP_STRETCHES]);
}

static void run_quit_machine(struct gdb *g, struct machine *m, char *args)
{
    (void)args;
    gdb_say(g, "the run ends when it goes on\n");
    machine_end(m, RUN_QUIT);
}

static void run_help(struct gdb *g, struct machine *m, char *args);

static const struct command commands[] = {
    {"help", "", "this text", run_help},
    {"info", "[devices]", "mode, segments, tables, control and debug registers; or the devices", run_info},
    {"lockstep", "", "how far translated code and emulator have been compared", run_lockstep},
    {"phys", "[on|off]", "memory is read and written by physical address", run_phys},
    {"quit", "", "end the run", run_quit_machine},
    {"stats", "[NAME]", "counters; those whose name contains NAME", run_stats},
    {"step", "[irq|noirq]", "whether interrupts are delivered while stepping", run_step},
    {"trace", "[on LIST|off|show N|list]", "events: switch on (exc,irq,io), off, show the last held in memory", run_trace},
    {"translate", "ADDRESS", "what the page tables say of a linear address", run_translate},
};

static void run_help(struct gdb *g, struct machine *m, char *args)
{
    (void)m;
    (void)args;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        gdb_say(g, "monitor %s %-*s %s\n", commands[i].name, (int)(35 - strlen(commands[i].name)), commands[i].args, commands[i].text);
    gdb_say(g, "In 16-bit code $eip is an offset: breakpoints and memory take linear addresses; the next instruction's is $pc_linear.\n");
}

void gdb_monitor(struct gdb *g, struct machine *m, char *command)
{
    const char *word = next_word(&command);
    for (size_t i = 0; word && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(word, commands[i].name)) {
            commands[i].run(g, m, command);
            return;
        }
    gdb_say(g, "unknown command (monitor help)\n");
}
