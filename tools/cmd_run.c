/* tools/cmd_run.c: `verso run`: start a machine, its serial line on standard input and output. */
#include "devices/bus.h"
#include "tools/console.h"
#include "tools/gdb_listen.h"
#include "tools/json.h"
#include "tools/load.h"
#include "tools/lockstep_report.h"
#include "tools/profile_report.h"
#include "monitor/vm.h"
#include "tools/tools.h"
#include "tools/trace_select.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RAM_DEFAULT_MIB = 512, RAM_MIN_MIB = 16, RAM_MAX_MIB = 3072, ESCAPE_DEFAULT = 1 };

struct options {
    const char *kernel, *append, *append_extra, *entry, *cache, *stats, *stats_to, *lockstep, *trace,
        *trace_format, *gdb, *escape, *profile, *perf_map, *bios, *reset, *debugcon, *cpu;
    struct opt_list initrd, device;
    struct trace_select select;
    uint64_t ram, stop_after, trace_ring;
    FILE *stats_file, *profile_file;
    bool gdb_run, no_sandbox, no_cache, cache_readonly, emulate, no_stdin;
};

#define AT(field) offsetof(struct options, field)
static const struct opt options[] = {
    {"memory", 'm', OPT_SIZE, AT(ram), "SIZE", "guest RAM, in MiB or with suffix K, M, G (512M)"},
    {"kernel", 0, OPT_STRING, AT(kernel), "FILE", "start this kernel (bzImage, Multiboot, ELF) instead of an ISO"},
    {"initrd", 0, OPT_LIST, AT(initrd), "FILE", "its initrd; several are joined (Multiboot: each is a module)"},
    {"append", 0, OPT_STRING, AT(append), "TEXT",
     "the kernel command line (an ISO: instead of the boot entry's)"},
    {"append-extra", 0, OPT_STRING, AT(append_extra), "TEXT", "added to the kernel command line"},
    {"cpu", 0, OPT_STRING, AT(cpu), "MODEL", "atom-d510, and features added to it: atom-d510,+umip,+smap"},
    {"bios", 0, OPT_STRING, AT(bios), "FILE", "start at the reset vector of this ROM image instead"},
    {"reset", 0, OPT_STRING, AT(reset), "WHAT", "what a reset of the machine does: exit or restart (exit)"},
    {"entry", 0, OPT_STRING, AT(entry), "LABEL", "boot entry of the ISO (its default)"},
    {"device", 0, OPT_LIST, AT(device), "NAME", "a device that not every machine has: testdev, pci-testdev, debugcon"},
    {"debugcon", 0, OPT_STRING, AT(debugcon), "FILE", "what firmware writes to its debug console, port 402h; - is standard error"},
    {"cache", 0, OPT_STRING, AT(cache), "FILE", "the cache ($XDG_CACHE_HOME/verso/cache.db)"},
    {"no-cache", 0, OPT_FLAG, AT(no_cache), NULL, "run without a cache: everything is translated live"},
    {"cache-readonly", 0, OPT_FLAG, AT(cache_readonly), NULL, "use the cache, add nothing to it"},
    {"stats", 0, OPT_OPTIONAL, AT(stats), "json",
     "print counters at the end, as text or JSON, to standard error"},
    {"stats-to", 0, OPT_STRING, AT(stats_to), "FILE", "print them to a file instead"},
    {"emulate", 0, OPT_FLAG, AT(emulate), NULL,
     "no translated code: the single-instruction emulator runs everything"},
    {"lockstep", 0, OPT_OPTIONAL, AT(lockstep), "WHICH",
     "compare translated code with the emulator; SKIP,COUNT or every:MS,for:COUNT[,check:N]"},
    {"stop-after", 0, OPT_UINT, AT(stop_after), "N",
     "stop after N instructions (with --emulate or --lockstep)"},
    {"trace", 0, OPT_STRING, AT(trace), "FILE", "write events to a file; -: standard error"},
    {"trace-events", 0, OPT_STRING, AT(select.events), "LIST",
     "groups or kinds of events; \"list\" shows them (exc,irq,io)"},
    {"trace-format", 0, OPT_STRING, AT(trace_format), "FORM", "text, or binary: see verso trace (text)"},
    {"trace-ring", 0, OPT_UINT, AT(trace_ring), "N", "only the last N events, written at the end however it comes"},
    {"trace-eip", 0, OPT_STRING, AT(select.eip), "RANGES", "only events in, or leading to, FIRST-LAST,... (hexadecimal)"},
    {"trace-cpl", 0, OPT_STRING, AT(select.cpl), "LIST", "only events at these privilege levels"},
    {"trace-skip", 0, OPT_UINT, AT(select.skip), "N", "begin after N events"},
    {"trace-count", 0, OPT_UINT, AT(select.count), "N", "end after N events"},
    {"gdb", 0, OPT_OPTIONAL, AT(gdb), "WHERE",
     "wait for gdb at PORT, tcp:HOST:PORT or unix:PATH (127.0.0.1:1234) before the first instruction"},
    {"gdb-run", 0, OPT_FLAG, AT(gdb_run), NULL, "do not wait for it: it may come at any time"},
    {"profile", 0, OPT_OPTIONAL, AT(profile), "FILE",
     "sample where time goes; a report at the end, to standard error or a file"},
    {"perf-map", 0, OPT_OPTIONAL, AT(perf_map), "FILE",
     "names of translated code for perf (/tmp/perf-PID.map)"},
    {"no-sandbox", 0, OPT_FLAG, AT(no_sandbox), NULL,
     "keep every system call of the process while the guest runs (to look into verso)"},
    {"no-stdin", 0, OPT_FLAG, AT(no_stdin), NULL, "nothing is typed into the serial line"},
    {"escape", 0, OPT_STRING, AT(escape), "KEY", "escape key: a letter for Ctrl-letter, or none (a)"},
    {0},
};

/* Checks the options of the trace; trace_fd is opened later. */
static bool parse_trace(const struct options *o, struct trace_config *t)
{
    bool binary = o->trace_format && !strcmp(o->trace_format, "binary");
    if (!trace_select_parse("run", "trace-", &o->select, "exc,irq,io", &t->filter))
        return false;
    if (o->trace_format && !binary && strcmp(o->trace_format, "text")) {
        fprintf(stderr, "verso run: --trace-format is text or binary\n");
        return false;
    }
    if (o->trace_ring > TRACE_RING_MAX) {
        fprintf(stderr, "verso run: --trace-ring takes at most %u\n", TRACE_RING_MAX);
        return false;
    }
    if (binary && !o->trace) {
        fprintf(stderr, "verso run: --trace-format binary needs --trace FILE\n");
        return false;
    }
    t->fd = -1;
    t->binary = binary;
    t->ring = o->trace_ring;
    return true;
}

/* Parts of --lockstep=every:MS,for:COUNT,check:N. */
static const struct {
    const char *name;
    size_t at;
} lockstep_parts[] = {{"every:", offsetof(struct run_lockstep, every_ms)},
                      {"for:", offsetof(struct run_lockstep, count)},
                      {"skip:", offsetof(struct run_lockstep, skip)},
                      {"check:", offsetof(struct run_lockstep, check)}};

static bool parse_number(const char *text, uint64_t *v)
{
    char *end;
    errno = 0;
    *v = strtoull(text, &end, 0);
    return !errno && !*end && isdigit((unsigned char)text[0]);
}

/* Empty: from start to end. SKIP,COUNT, or named parts. */
static bool parse_lockstep(const char *text, struct run_config *cfg)
{
    if (!text)
        return true;
    cfg->lockstep = true;
    char word[64];
    bool good = true;
    uint64_t *const by_place[] = {&cfg->lock.skip, &cfg->lock.count};
    for (unsigned place = 0; good && *text && (text = tools_next_path(text, word, sizeof(word))); place++) {
        uint64_t *at = place < 2 ? by_place[place] : NULL;
        const char *value = word;
        for (size_t i = 0; i < sizeof(lockstep_parts) / sizeof(lockstep_parts[0]); i++)
            if (!strncmp(word, lockstep_parts[i].name, strlen(lockstep_parts[i].name))) {
                at = (uint64_t *)(void *)((char *)&cfg->lock + lockstep_parts[i].at);
                value = word + strlen(lockstep_parts[i].name);
            }
        good = at && parse_number(value, at);
    }
    if (good && !(cfg->lock.every_ms && (!cfg->lock.count || cfg->lock.skip)) && cfg->lock.every_ms < 1000000)
        return true;
    fprintf(stderr, "verso run: --lockstep takes SKIP,COUNT or every:MS,for:COUNT, and check:N\n");
    return false;
}

static bool parse_devices(const struct opt_list *list, unsigned *extras)
{
    for (unsigned i = 0; i < list->count; i++) {
        unsigned d = 0;
        while (d < DEV_EXTRA_COUNT && strcmp(list->item[i], dev_extra_name((enum dev_extra)d)))
            d++;
        if (d == DEV_EXTRA_COUNT) {
            fprintf(stderr, "verso run: unknown device \"%s\"; there are:\n", list->item[i]);
            for (d = 0; d < DEV_EXTRA_COUNT; d++)
                fprintf(stderr, "  %-12s %s\n", dev_extra_name((enum dev_extra)d), dev_extra_text((enum dev_extra)d));
            return false;
        }
        *extras |= 1u << d;
    }
    return true;
}

static const struct {
    const char *name, *text;
} cpu_features[CPU_FEATURE_COUNT] = {
#define X(id, name, leaf, reg, bit, text) {name, text},
    CPU_FEATURES(X)
#undef X
};

static bool parse_cpu(const char *list, uint32_t *features)
{
    char word[64];
    bool model = true;
    *features = 0;
    while (list && (list = tools_next_path(list, word, sizeof(word)))) {
        unsigned f = 0;
        while (f < CPU_FEATURE_COUNT && (word[0] != '+' || strcmp(word + 1, cpu_features[f].name)))
            f++;
        if (model ? strcmp(word, EMU_CPU_MODEL) : f == CPU_FEATURE_COUNT) {
            fprintf(stderr, "verso run: unknown CPU model or feature \"%s\"; the model is " EMU_CPU_MODEL ", the features:\n", word);
            for (f = 0; f < CPU_FEATURE_COUNT; f++)
                fprintf(stderr, "  +%-12s %s\n", cpu_features[f].name, cpu_features[f].text);
            return false;
        }
        *features |= model ? 0 : 1u << f;
        model = false;
    }
    return true;
}

static bool parse_reset(const char *text, bool *restart)
{
    *restart = text && !strcmp(text, "restart");
    if (!text || *restart || !strcmp(text, "exit"))
        return true;
    fprintf(stderr, "verso run: --reset takes exit or restart\n");
    return false;
}

static bool parse_escape(const char *text, int *escape)
{
    *escape = ESCAPE_DEFAULT;
    if (!text)
        return true;
    if (!strcmp(text, "none")) {
        *escape = -1;
        return true;
    }
    if (isalpha((unsigned char)text[0]) && !text[1]) {
        *escape = toupper((unsigned char)text[0]) - '@';
        return true;
    }
    fprintf(stderr, "verso run: --escape takes a letter or \"none\"\n");
    return false;
}

/* -- Statistics
 * ---------------------------------------------------------------------------------------------------- */

/* Executed pages by where their code came from; PAGE_REUSED are no look-ups. */
struct hits {
    uint64_t hit, total;
};

/* Every counter of a reason for a miss, whichever the monitor has. */
static bool is_miss(unsigned counter)
{
    return !strncmp(run_counter_name((enum run_counter)counter), "page_miss_", strlen("page_miss_"));
}

static struct hits count_hits(const struct run_result *r)
{
    struct hits h = {r->counter[RUN_COUNTER_PAGE_HIT], r->counter[RUN_COUNTER_PAGE_HIT]};
    for (unsigned i = 0; i < RUN_COUNTER_COUNT; i++)
        h.total += is_miss(i) ? r->counter[i] : 0;
    return h;
}

static void stats_text(FILE *to, const struct run_result *r, const struct cache_stats *cs)
{
    struct hits h = count_hits(r);
    fprintf(to, "end               %s\n", run_end_name(r->end));
    fprintf(to, "wall time         %.3f s, processor time %.3f s\n", (double)r->wall_ns / 1e9,
            (double)r->cpu_ns / 1e9);
    if (h.total)
        fprintf(to, "executed pages    %" PRIu64 " looked up, %" PRIu64 " exact hits (%.2f %%)\n", h.total,
                h.hit, 100.0 * (double)h.hit / (double)h.total);
    for (unsigned i = 0; i < RUN_COUNTER_COUNT; i++)
        if (h.total && is_miss(i))
            fprintf(to, "  miss            %8" PRIu64 "  %s\n", r->counter[i],
                    run_counter_text((enum run_counter)i));
    for (unsigned i = 1; cs && i < CACHE_REFUSAL_COUNT; i++)
        if (cs->refused[i])
            fprintf(to, "  refused         %8" PRIu64 "  %s\n", cs->refused[i],
                    cache_refusal_text((enum cache_refusal)i));
    if (cs)
        fprintf(to, "written behind    %" PRIu64 " queued, %" PRIu64 " stored, %" PRIu64 " replaced before they were, %" PRIu64 " dropped\n",
                cs->queued, cs->stored, cs->replaced, cs->dropped);
    if (r->counter[RUN_COUNTER_LOCKSTEP_STRETCHES])
        lockstep_text(to, r);
    fprintf(to, "counters\n");
    for (unsigned i = 0; i < RUN_COUNTER_COUNT; i++)
        fprintf(to, "  %-18s %14" PRIu64 "  %s\n", run_counter_name((enum run_counter)i), r->counter[i],
                run_counter_text((enum run_counter)i));
}

static void stats_json(FILE *to, const struct run_result *r, const struct cache_stats *cs,
                       const struct run_profile *p)
{
    struct hits h = count_hits(r);
    struct json j = {.to = to};
    json_object(&j, NULL);
    json_string(&j, "end", run_end_name(r->end));
    json_i64(&j, "exit_status", r->exit_status);
    json_u64(&j, "wall_ns", r->wall_ns);
    json_u64(&j, "cpu_ns", r->cpu_ns);
    json_u64(&j, "pages_looked_up", h.total);
    json_real(&j, "hit_ratio", h.total ? (double)h.hit / (double)h.total : 0);
    json_object(&j, "counters");
    for (unsigned i = 0; i < RUN_COUNTER_COUNT; i++)
        json_u64(&j, run_counter_name((enum run_counter)i), r->counter[i]);
    json_end_object(&j);
    if (cs) {
        json_object(&j, "cache");
        json_u64(&j, "gets", cs->gets);
        json_u64(&j, "get_hits", cs->get_hits);
        json_u64(&j, "get_ns", cs->get_ns);
        json_u64(&j, "queued", cs->queued);
        json_u64(&j, "stored", cs->stored);
        json_u64(&j, "replaced", cs->replaced);
        json_u64(&j, "dropped", cs->dropped);
        json_object(&j, "refused");
        for (unsigned i = 1; i < CACHE_REFUSAL_COUNT; i++)
            json_u64(&j, cache_refusal_name((enum cache_refusal)i), cs->refused[i]);
        json_end_object(&j);
        json_end_object(&j);
    }
    if (r->counter[RUN_COUNTER_LOCKSTEP_STRETCHES])
        lockstep_json(&j, r);
    if (p)
        profile_json(&j, p);
    json_end_object(&j);
    json_newline(&j);
}

/* Opened before the guest runs: afterwards the process may open nothing any more. */
static bool open_report(const char *name, FILE **to)
{
    *to = name && *name ? fopen(name, "we") : stderr;
    if (!*to)
        fprintf(stderr, "verso: %s: %s\n", name, strerror(errno));
    return *to != NULL;
}

static int close_report(const char *name, FILE *to)
{
    if (to == stderr || !fclose(to))
        return STATUS_OK;
    fprintf(stderr, "verso: %s: %s\n", name, strerror(errno));
    return STATUS_IO;
}

static int print_stats(const struct options *o, const struct run_result *r, struct cache *cache,
                       const struct run_profile *p)
{
    struct cache_error err = {0};
    struct cache_stats cs = {0};
    bool have = cache && cache_stats(cache, &cs, &err) == CACHE_OK;
    if (o->stats && !strcmp(o->stats, "json"))
        stats_json(o->stats_file, r, have ? &cs : NULL, p);
    else
        stats_text(o->stats_file, r, have ? &cs : NULL);
    return close_report(o->stats_to, o->stats_file);
}

static int print_profile(const struct options *o, const struct run_profile *p)
{
    profile_text(o->profile_file, p);
    return close_report(o->profile, o->profile_file);
}

/* The name perf looks for may be left over from an older process with our number, or be somebody's trap. */
static FILE *open_perf_map(const char *name)
{
    char standard[64];
    if (!*name) {
        snprintf(standard, sizeof(standard), "/tmp/perf-%ld.map", (long)getpid());
        name = standard;
        unlink(name);
    }
    int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC | (name == standard ? O_EXCL : O_TRUNC), 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f)
        fprintf(stderr, "verso: %s: %s\n", name, strerror(errno));
    return f;
}

/* A socket for debuggers, opened before the guest's first instruction. */
static int open_gdb(const struct options *o, struct run_config *cfg)
{
    static struct run_gdb gdb;
    bool usage;
    if (!o->gdb)
        return STATUS_OK;
    gdb = (struct run_gdb){.listen_fd = gdb_listen(o->gdb, &usage), .wait = !o->gdb_run, .exit_status = status_of_run};
    if (gdb.listen_fd < 0)
        return usage ? STATUS_USAGE : STATUS_IO;
    cfg->gdb = &gdb;
    return STATUS_OK;
}

/* -- The command
 * ---------------------------------------------------------------------------------------------------- */

static void on_signal(int sig)
{
    (void)sig;
    run_quit();
}

static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigfillset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &sa, NULL);
}

static void announce(const struct run_result *r)
{
    if (r->end == RUN_EXIT_PORT)
        fprintf(stderr, "verso: the guest ended with status %d\n", r->exit_status);
    else if (r->error[0])
        fprintf(stderr, "verso: %s: %s\n", run_end_name(r->end), r->error);
    else if (r->end != RUN_POWER_OFF)
        fprintf(stderr, "verso: ended by %s\n", run_end_name(r->end));
}

static int run_loaded(const struct options *o, struct run_config *cfg, const struct load_guest *g)
{
    cfg->segment = g->segment;
    cfg->segment_count = g->segment_count;
    cfg->entry = g->entry;
    cfg->setup_header = g->setup_header;
    cfg->setup_header_len = g->setup_header_len;
    cfg->initrd = g->initrd;
    cfg->initrd_len = g->initrd_len;
    cfg->cmdline = g->cmdline;
    cfg->boot = g->boot;
    cfg->rom = g->rom;
    cfg->rom_len = g->rom_len;
    cfg->module = g->module;
    cfg->module_count = g->module_count;
    cfg->sections = g->sections;
    cfg->sections_len = g->sections_len;
    cfg->section_count = g->section_count;
    cfg->section_names = g->section_names;
    cfg->serial_in = -1;
    cfg->serial_out = 1;
    int escape = cfg->escape;
    cfg->escape = -1; /* the console thread handles it */
    if (!o->no_stdin)
        cfg->serial_in = console_start(isatty(0) || o->escape ? escape : -1);
    static struct run_result r; /* large; one machine per process */
    run_machine(cfg, &r);
    console_end();
    if (r.difference)
        lockstep_difference(stderr, r.difference);
    run_difference_free(r.difference);
    announce(&r);
    int status = status_of_run(&r);
    if (o->stats || o->stats_to) {
        int s = print_stats(o, &r, cfg->cache, cfg->profile);
        status = status ? status : s;
    }
    if (cfg->profile) {
        int s = print_profile(o, cfg->profile);
        status = status ? status : s;
    }
    return status;
}

static int configure(const struct options *o, int argc, struct run_config *cfg, struct trace_config *trace)
{
    if (argc + (o->kernel != NULL) + (o->bios != NULL) != 1) {
        fprintf(stderr, "verso run: give one ISO, or --kernel FILE, or --bios FILE (verso run --help)\n");
        return STATUS_USAGE;
    }
    if (o->bios && (o->initrd.count || o->append || o->append_extra || o->entry)) {
        fprintf(stderr, "verso run: --bios goes without kernel, initrd, command line and boot entry\n");
        return STATUS_USAGE;
    }
    if (o->ram < (uint64_t)RAM_MIN_MIB << 20 || o->ram > (uint64_t)RAM_MAX_MIB << 20 || o->ram % 4096) {
        fprintf(stderr, "verso run: -m takes 16M to 3G\n");
        return STATUS_USAGE;
    }
    if (o->stats && *o->stats && strcmp(o->stats, "json") && strcmp(o->stats, "text")) {
        fprintf(stderr, "verso run: --stats is text or json\n");
        return STATUS_USAGE;
    }
    if (!parse_lockstep(o->lockstep, cfg) || !parse_trace(o, trace) || !parse_escape(o->escape, &cfg->escape) ||
        !parse_devices(&o->device, &cfg->extras) || !parse_reset(o->reset, &cfg->restart) || !parse_cpu(o->cpu, &cfg->cpu_features))
        return STATUS_USAGE;
    static struct run_profile profile; /* large; one machine per process */
    cfg->profile = o->profile ? &profile : NULL;
    cfg->ram_bytes = o->ram;
    cfg->emulate_only = o->emulate;
    cfg->sandbox_status = o->no_sandbox ? 0 : STATUS_SANDBOX;
    cfg->cache_readonly = o->cache_readonly;
    cfg->stop_after_insns = o->stop_after;
    return STATUS_OK;
}

/* A ring without a file goes to standard error. */
static int open_trace(const struct options *o, struct run_config *cfg, struct trace_config *t)
{
    if (!o->trace && !o->trace_ring)
        return STATUS_OK;
    if (!o->trace || !strcmp(o->trace, "-"))
        t->fd = dup(2);
    else
        t->fd = open(o->trace, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (t->fd < 0 || !(cfg->trace = trace_open(t))) {
        fprintf(stderr, "verso: %s: %s\n", o->trace ? o->trace : "the trace", strerror(errno));
        return STATUS_IO;
    }
    return STATUS_OK;
}

static int close_trace(const struct options *o, const struct run_config *cfg, struct trace_config *t, int status)
{
    if (!cfg->trace)
        return status;
    int error = trace_flush(cfg->trace);
    if (close(t->fd) && !error)
        error = errno;
    trace_close(cfg->trace);
    if (!error)
        return status;
    fprintf(stderr, "verso: %s: %s\n", o->trace ? o->trace : "the trace", strerror(error));
    return status ? status : STATUS_IO;
}

static int open_outputs(struct options *o, struct run_config *cfg, struct trace_config *trace)
{
    int status = open_trace(o, cfg, trace);
    if (!status)
        status = open_gdb(o, cfg);
    if (status)
        return status;
    if (o->debugcon) {
        cfg->extras |= 1u << DEV_EXTRA_DEBUGCON;
        if (strcmp(o->debugcon, "-") && !(cfg->debug_console = fopen(o->debugcon, "we"))) {
            fprintf(stderr, "verso: %s: %s\n", o->debugcon, strerror(errno));
            return STATUS_IO;
        }
        if (cfg->debug_console)
            setvbuf(cfg->debug_console, NULL, _IOLBF, BUFSIZ);
    }
    if (!open_report(o->stats_to, &o->stats_file) || !open_report(o->profile, &o->profile_file))
        return STATUS_IO;
    if (o->perf_map && !(cfg->perf_map = open_perf_map(o->perf_map)))
        return STATUS_IO;
    if (!o->no_cache && !o->emulate) {
        cfg->cache = tools_cache_open(o->cache, o->cache_readonly ? CACHE_READONLY : CACHE_CREATE, &status);
        if (!cfg->cache)
            fprintf(stderr, "verso: --no-cache runs without one\n");
    }
    return status;
}

static int run(const struct cmd *self, int argc, char **argv)
{
    struct options o = {.ram = (uint64_t)RAM_DEFAULT_MIB << 20};
    struct run_config cfg = {0};
    struct trace_config trace = {.fd = -1};
    switch (opt_parse(self, &o, &argc, argv)) {
    case OPT_HELP:
        return STATUS_OK;
    case OPT_BAD:
        return STATUS_USAGE;
    case OPT_DONE:
        break;
    }
    if (o.select.events && !strcmp(o.select.events, "list")) {
        trace_select_list();
        return STATUS_OK;
    }
    int status = configure(&o, argc, &cfg, &trace);
    if (status)
        return status;
    struct load_request req = {.iso = argc ? argv[0] : NULL,
                               .entry = o.entry,
                               .bios = o.bios,
                               .kernel = o.kernel,
                               .initrd = o.initrd,
                               .append = o.append,
                               .append_extra = o.append_extra,
                               .ram_bytes = o.ram};
    struct load_guest guest;
    /* Before anything else: the parsers' process should inherit no cache and no terminal setting. */
    if ((status = load_guest(&req, &guest)))
        return status;
    catch_signals(); /* from here on there is something to put in order at the end */
    status = open_outputs(&o, &cfg, &trace);
    if (!status)
        status = run_loaded(&o, &cfg, &guest);
    status = close_trace(&o, &cfg, &trace, status);
    if (cfg.debug_console && fclose(cfg.debug_console)) {
        fprintf(stderr, "verso: %s: %s\n", o.debugcon, strerror(errno));
        status = status ? status : STATUS_IO;
    }
    if (cfg.gdb)
        gdb_listen_close(o.gdb, cfg.gdb->listen_fd);
    if (cfg.perf_map && fclose(cfg.perf_map)) {
        fprintf(stderr, "verso: the map for perf: %s\n", strerror(errno));
        status = status ? status : STATUS_IO;
    }
    /* Said, but no reason to call the guest's own end a failure: what could not be stored is translated again
     * next time. */
    (void)tools_cache_close(cfg.cache, status);
    load_guest_free(&guest);
    return status;
}

const struct cmd cmd_run = {
    .name = "run",
    .args = "GUEST.iso | --kernel FILE [--initrd FILE] [--append TEXT] | --bios FILE",
    .summary = "run a guest, its serial line on standard input and output",
    .opts = options,
    .run = run,
    .notes = "On a terminal Ctrl-A x quits, Ctrl-A h shows the keys. verso --help lists the exit statuses.",
};
