/* monitor/run.h: start a machine and run it to its end. What tools/ calls. */
#ifndef VERSO_MONITOR_RUN_H
#define VERSO_MONITOR_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "scanner/scan.h"
#include "translator/cpu.h"

struct cache;
struct trace;
struct run_gdb;
struct run_result;

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

/* Which instructions are compared in lockstep. */
struct run_lockstep {
    uint64_t every_ms;  /* a stretch at the start and whenever so much processor time has been spent at full speed since the last one;
                         * 0: one stretch */
    uint64_t skip;      /* instructions to emulate before (every_ms 0) */
    uint64_t count;     /* instructions compared in a stretch; 0: to the guest's end */
    uint64_t check;     /* memory that nothing was to write is compared after so many instructions, and at the end of a stretch; 0: 100000 */
};
/* Why an instruction was not compared but run by the emulator alone. */
#define RUN_ALONE(X) \
    X(EXIT, "exit", "translated code leaves it to the emulator") \
    X(FAULT, "fault", "host fault: the guest's own page fault, MMIO, a write to a code page") \
    X(SHADOW, "shadow", "in an interrupt shadow") \
    X(STATE, "state", "in a state that no code is translated for") \
    X(CODE, "code", "its bytes are not in RAM, or on a page with a debugger's breakpoint") \
    X(DEBUGGER, "debugger", "a debugger's step")
enum run_alone {
#define X(id, name, text) RUN_ALONE_##id,
    RUN_ALONE(X)
#undef X
    RUN_ALONE_COUNT
};
const char *run_alone_name(enum run_alone a);
const char *run_alone_text(enum run_alone a);

/* The first difference between translated code and emulator. */
enum { RUN_DIFF_MEMORY = 8 };
struct run_difference {
    const char *what;             /* static text: what differs */
    struct cpu before, translated, emulated;
    uint8_t bytes[SCAN_INSN_MAX_LEN];
    struct scan_insn insn;        /* len 0: the bytes could not be read */
    uint64_t compared, stretch, in_stretch; /* instructions compared before it; number of the stretch, from 1; compared in it */
    /* Memory: bytes that differ (not of a difference in registers alone). */
    unsigned memory_count;
    struct run_diff_byte {
        uint64_t gpa;
        uint32_t lin;             /* where the instruction reached it, if lin_known */
        bool lin_known, before_known;
        uint8_t before, translated, emulated;
    } memory[RUN_DIFF_MEMORY];
    uint64_t memory_more;         /* bytes that differ beyond these */
    /* Not zero: found after this many instructions, any of which may have written there; the state is that of the last one. */
    uint64_t since_check;
    /* The code that ran, if it could be found: host code, unwind records and the page, as in a record of the cache. */
    bool has_code;
    uint32_t lin, offset;         /* linear address of the page, offset of the instruction in it */
    uint8_t recto[SCAN_PAGE_SIZE];
    uint8_t *code, *unwind;       /* malloc() */
    uint32_t code_len, unwind_len;
};

struct run_config {
    uint64_t ram_bytes;            /* 16 MiB .. 3 GiB, multiple of 4 KiB */
    enum run_boot boot;
    uint32_t cpu_features;         /* CPU_FEATURE_* (cpu.h) added to the model, as bits */
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
    struct run_lockstep lock;
    struct trace *trace;           /* events go there (trace.h); the caller flushes and closes it; NULL: none */
    const struct run_gdb *gdb;     /* NULL: no debugger may come */
    struct run_profile *profile;   /* filled during the run; NULL: none */
    FILE *perf_map;                /* names of code memory for perf; NULL: none */
    unsigned extras;               /* bit per enum dev_extra (devices/bus.h): devices not every machine has */
    uint64_t stop_after_insns;     /* emulated-only/lockstep runs: stop after that many (0: never) */
    int sandbox_status;            /* before the first guest instruction the process gives up every system call that it does not need
                                      (sandbox.def), for good; one of those ends it with this exit status. 0: it keeps them */
    bool clock_stopped;            /* time stands still, x87 pointers are zero: equal guests run equally. No timer fires, the TSC counts nothing, and a machine
                                      that waits for an interrupt nothing can raise ends with RUN_QUIT */
};

/* A debugger's service (gdb.h). */
struct run_gdb {
    int listen_fd; /* a listening stream socket that does not block, the caller's */
    bool wait;     /* stop before the first instruction until a debugger says go on */
    int (*exit_status)(const struct run_result *res); /* what a debugger is told when the run has ended: 0..255 */
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
    /* Lockstep: instructions compared, and run by the emulator alone, by class (SCAN_CLASS_COUNT: unknown). */
    uint64_t lock_compared[SCAN_CLASS_COUNT + 1], lock_alone[RUN_ALONE_COUNT][SCAN_CLASS_COUNT + 1];
    struct run_difference *difference; /* RUN_LOCKSTEP_DIFF; run_difference_free() */
};

/* Runs on the calling thread until the end; blocks signals it needs, restores them. One machine per process at a time (signal handlers). */
void run_machine(const struct run_config *cfg, struct run_result *out);

void run_difference_free(struct run_difference *d); /* NULL is none */

/* Asks a machine that runs or is being made to stop (RUN_QUIT); async-signal-safe. */
void run_quit(void);

#endif
