/* monitor/run.h: start a machine and run it to its end. What tools/ calls. */
#ifndef VERSO_MONITOR_RUN_H
#define VERSO_MONITOR_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct cache;
struct trace;

/* How a run ended. The process exit statuses follow from these in tools/. */
enum run_end {
    RUN_POWER_OFF,
    RUN_RESET,
    RUN_TRIPLE_FAULT,
    RUN_EXIT_PORT,  /* run_stats.exit_status says which */
    RUN_QUIT,       /* the user's escape key, or a termination signal */
    RUN_LOCKSTEP_DIFF,
    RUN_FAILED,     /* the host lacks something; run_result.error says what */
};

/* How the machine starts. */
enum run_boot {
    RUN_BOOT_LINUX,     /* a 32-bit kernel by its 32-bit entry (bzImage boot protocol, paging off) */
    RUN_BOOT_MULTIBOOT, /* a kernel with a Multiboot header (version 1) */
    RUN_BOOT_FIRMWARE,  /* at the reset vector of a ROM image */
};

/* A kernel, already parsed (plain data; the parsers do not run here). */
struct run_segment {
    uint32_t paddr, memsz, filesz;
    const uint8_t *bytes;
};
/* A file handed to a Multiboot kernel, and its string. */
struct run_module {
    const uint8_t *bytes;
    uint32_t len;
    const char *name;
};
#define RUN_SECTION_HEADER 40u /* bytes of an ELF section header */
/* A profile (doing.def, profile.h): samples by what the vCPU's thread was at, and by guest instruction. */
enum run_doing {
#define RUN_DOING(id, name, text) RUN_DOING_##id,
#include "monitor/doing.def"
#undef RUN_DOING
    RUN_DOING_COUNT
};
const char *run_doing_name(enum run_doing d);
const char *run_doing_text(enum run_doing d);
#define RUN_PROFILE_HZ 1000
#define RUN_SPOT_MAX   65536u
#define RUN_SPOT_TRIES 64u
struct run_spot {
    uint32_t eip, samples; /* no samples: the place is free */
    bool user;
    uint8_t doing;
};
struct run_profile {
    unsigned hz; /* samples of a second of real time */
    uint64_t by[RUN_DOING_COUNT];
    uint64_t spots_lost; /* samples counted in by[] only */
    struct run_spot spot[RUN_SPOT_MAX];
};

struct run_config {
    uint64_t ram_bytes;            /* 16 MiB .. 3 GiB, multiple of 4 KiB */
    enum run_boot boot;
    FILE *debug_console;           /* what the guest writes to ports E9h and 402h; NULL: standard error */
    bool restart;                  /* a reset starts the machine again; otherwise it ends the run */
    const uint8_t *rom;            /* firmware: 64 KiB to 16 MiB, a multiple of 4 KiB; ends at 4 GiB */
    size_t rom_len;
    const struct run_segment *segment;
    unsigned segment_count;
    uint32_t entry;                /* physical */
    const uint8_t *setup_header;   /* as image_kernel.setup_header */
    size_t setup_header_len;
    const uint8_t *initrd;
    size_t initrd_len;
    const char *cmdline;           /* Multiboot: with the kernel's name in front */
    const struct run_module *module; /* Multiboot: what the initrd consists of */
    unsigned module_count;
    /* Multiboot: ELF section headers and behind them what no segment loads; its sh_addr is the offset in sections. Empty: none. */
    const uint8_t *sections;
    size_t sections_len;
    uint32_t section_count, section_names;
    struct cache *cache;           /* NULL: run without */
    bool cache_readonly;           /* do not write behind */
    int serial_in, serial_out;     /* file descriptors, -1: none. serial_in is read by a thread of its own */
    int escape;                    /* byte that quits when followed by 'x' (1 = Ctrl-A), -1: none */
    bool emulate_only;             /* no translation at all (oracle, debugging) */
    bool lockstep;                 /* translate one instruction at a time and compare each with the emulator */
    uint64_t lockstep_skip, lockstep_count; /* instructions to run before, and in, lockstep (count 0: to the end) */
    struct trace *trace;           /* events go there (trace.h); the caller flushes and closes it; NULL: none */
    struct run_profile *profile;   /* filled during the run; NULL: none */
    FILE *perf_map;                /* names of code memory for perf; NULL: none */
    unsigned extras;               /* bit per enum dev_extra (devices/bus.h): devices not every machine has */
    uint64_t stop_after_insns;     /* emulated-only/lockstep runs: stop after that many (0: never) */
};

/* Counters: RUN_COUNTER(id, "name", "meaning") in counter.def; all of them in run_result.counter[]. */
enum run_counter {
#define RUN_COUNTER(id, name, text) RUN_COUNTER_##id,
#include "monitor/counter.def"
#undef RUN_COUNTER
    RUN_COUNTER_COUNT
};
const char *run_counter_name(enum run_counter c);
const char *run_counter_text(enum run_counter c);

struct run_result {
    enum run_end end;
    int exit_status; /* RUN_EXIT_PORT */
    char error[400];
    uint64_t counter[RUN_COUNTER_COUNT];
    uint64_t wall_ns, cpu_ns;
};

/* Runs on the calling thread until the end; blocks signals it needs, restores them. One machine per process at a time (signal handlers). */
void run_machine(const struct run_config *cfg, struct run_result *out);

/* Asks a running machine to stop (RUN_QUIT); async-signal-safe. */
void run_quit(void);

#endif
