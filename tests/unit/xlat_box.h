/* tests/unit/xlat_box.h: a small machine to run translated code in, beside the emulator with its own memory.
 *
 * Both sides see the same linear address space: pages 0..3Fh of RAM, the code page at BOX_CODE, and RAM page
 * 3Fh at 3FF000h; the whole of it again at C0000000h and FFC00000h, so that the highest linear page is
 * mapped. FS has base BOX_FS. Paging is on (4 KiB pages), CPL 0. Suites with other needs give a map of their
 * own (box_init_with()).
 */
#ifndef VERSO_TESTS_XLAT_BOX_H
#define VERSO_TESTS_XLAT_BOX_H

#include "monitor/vm.h"
#include "translator/xlat.h"

#define BOX_LOW_BYTES 0x40000u /* RAM mapped from address 0 */
#define BOX_CODE      0x100000u
#define BOX_DATA      0x10000u
#define BOX_STACK     0x30000u /* initial ESP */
#define BOX_FS        0x3000u
#define BOX_RAM_BYTES 0x400000u

/* Why translated code stopped. */
enum box_stop { BOX_HLT, BOX_FAULT, BOX_OUTSIDE, BOX_SHUTDOWN, BOX_LIMIT, BOX_NO_RECORD, BOX_TRANSLATE };

struct box_fault {
    int signal;
    uint64_t address;  /* si_addr */
    uint32_t host_off; /* in the verso of its piece */
    bool guard;        /* address is outside the 4 GiB of the window */
    struct xlat_unwound at;
};

/* Linear pages and the RAM they show. */
enum { BOX_P = 1, BOX_W = 2, BOX_U = 4 }; /* as in a paging entry */
struct box_range {
    uint32_t linear, ram, pages, rights;
};
struct box_map {
    const struct box_range *range;
    unsigned count;
    uint32_t hot, hot_bytes; /* the part of RAM that tests change and box_compare() compares */
};

/* A translated page, or an instruction that runs into the next one. */
#define BOX_PIECES 3u /* the code page, the page behind it, a unit */
struct box_piece {
    struct xlat_verso verso;
    uint8_t *code;
    uint32_t lin;
    bool live;
};

struct box {
    const struct box_map *map;
    uint8_t *window, *ram, *oracle_ram;
    int ram_fd;
    struct cpu *cpu;   /* of translated code */
    struct vm *vm;     /* the same, for instructions that it leaves to the emulator */
    struct vm *oracle; /* emulator only; own cpu, own memory */
    struct box_piece piece[BOX_PIECES];
    struct scan_page *page; /* of what was translated last */
    uint32_t mode, options;
    enum xlat_hint hint; /* of every instruction of the code page that takes it */
    uint64_t emulated, entered;
    struct box_fault fault;
    uint8_t *break_at; /* breakpoint on a host instruction: taken once, then removed. NULL: none */
    bool break_hit, break_retry;
    uint32_t stop_not; /* a HLT here is an instruction like others, not the end */
};

extern struct box box;

/* Once per process. */
void box_init(void);
void box_init_with(const struct box_map *map);
/* What the window lets through: supervisor pages too, or not. */
void box_set_user(bool user);
/* All that translated code needs beside the guest's state: stubs, masks, tables. */
void box_connect(struct cpu *c);
/* The window of a segment, as the monitor chooses it; after any change of seg[]. */
void box_segments(struct cpu *c);
/* Same memory contents, registers and flags on both sides: bytes from a generator seeded with seed. Registers
 * are the caller's to set. */
void box_reset(uint32_t seed);
uint32_t box_random(void);
/* Puts code at BOX_CODE on both sides and translates it, entry points at offset 0 (and more). */
bool box_load(const uint8_t *code, size_t len, const uint16_t *entries, size_t n_entries);
/* Translates what stands at BOX_CODE of translated code's RAM. The page behind it, and an instruction that
 * runs into it, are translated when control gets there. */
bool box_translate(const uint16_t *entries, size_t n_entries);
/* Gives both sides the registers (box.cpu is the source). */
void box_copy_cpu(void);
/* Runs translated code from cpu->eip until HLT, a fault of its own, or `limit` entries. BOX_SHUTDOWN: the
 * emulator had an exception to deliver and could not. */
enum box_stop box_run(unsigned limit);
/* Runs the emulator alike, at most limit instructions. */
enum box_stop box_run_oracle(unsigned limit);
/* NULL if both sides agree in registers, flags, x87/SSE state and memory; otherwise what differs (static
 * buffer). */
const char *box_compare(void);
/* The same for registers and flags of translated code against those at box_save(). */
const char *box_compare_before(void);
/* From the saved state: stops at each host instruction in turn, unwinds, starts again at that guest
 * instruction; the end must be the emulator's. NULL or what is wrong. *points counts the stops. */
const char *box_interrupt_everywhere(unsigned *points);
/* The same for the host code of the instructions from guest offset `from` up to the one at `to`, and of a
 * unit. */
const char *box_interrupt_range(uint32_t from, uint32_t to, unsigned *points);
/* From the saved state with every data page revoked: each fault must unwind to a state the emulator goes
 * through (repeats excepted); then that page is given back. */
const char *box_page_in_on_demand(unsigned *faults);
/* Linear page to PROT_NONE in the window, or back. */
void box_revoke(uint32_t linear, bool revoke);
/* A point in time of both sides, to go back to. */
void box_save(void);
/* Does memory that box_restore() leaves as it is differ between translated code and emulator? level: from then on it has what the
 * emulator's has. */
bool box_differs_elsewhere(bool level);
void box_restore(void);

/* 32-bit code by the assembler: BOX_PROGRAM(name, "text"); then name, name_end. Ends with HLT. */
#define BOX_PROGRAM(name, text)                                                                              \
    __asm__(".pushsection .rodata\n.code32\n.intel_syntax noprefix\n" #name ":\n" text "\nhlt\n" #name       \
            "_end:\n.att_syntax\n.code64\n.popsection\n");                                                   \
    extern const uint8_t name[], name##_end[]

#endif
