/* tests/diff/diff.h: generated instructions run in up to three ways and compared.
 *
 *   translated  the translator's code for the page (unit/xlat_box.h), where the mode is one that is
 * translated emulated    monitor/emu*.c reference   the host processor runs the instruction, re-encoded by
 * native.c; what does not exist in 64-bit mode, or needs what a process has not, is done by model.c, which is
 * written after the manual and shares no code with the emulator or the scanner (it decodes with Zydis)
 *
 * A case is plain data, complete, and has a one-line text form (diff_print(), diff_parse()): registers,
 * selectors, code and the bytes of memory that differ from the world's base pattern. Memory and descriptors
 * are those of world.c, the same for all cases.
 */
#ifndef VERSO_TESTS_DIFF_H
#define VERSO_TESTS_DIFF_H

#include <stdio.h>

#include "tests/unit/xlat_box.h"

/* -- The world (world.c). Physical addresses; the comment of world_range[] has the linear ones.
 * ---------------------- */
#define W_GDT       0x1C000u
#define W_LDT       0x1C800u
#define W_IDT       0x1D000u
#define W_TSS       0x1E000u
#define W_STACK0    0x20000u /* top of the stack for exceptions from outer rings: the page below is compared */
#define W_HOT       0x20000u /* 64 KiB of data */
#define W_HOT_SIZE  0x10000u
#define W_CODE16    0x10000u    /* code of 16-bit modes; CS base */
#define W_HANDLER   0x104000u   /* + 16 * vector; never executed */
#define W_HANDLER16 0x9000u     /* the same as offset from W_CODE16 */
#define W_MIXED     0x01000000u /* linear: the hot pages with mixed rights */
#define W_HIGH      0xC0000000u
#define W_TOP       0xFFFF0000u

#define DIFF_MODES(X)                                                                                        \
    X(FLAT0, "flat0", "32-bit flat, CPL 0", 1)                                                               \
    X(FLAT3, "flat3", "32-bit flat, CPL 3", 1)                                                               \
    X(SEG0, "seg0", "32-bit, segments with bases and limits, CPL 0", 0)                                      \
    X(SEG3, "seg3", "32-bit, segments with bases and limits, CPL 3", 0)                                      \
    X(PROT16_0, "prot16-0", "16-bit protected, CPL 0", 0)                                                    \
    X(PROT16_3, "prot16-3", "16-bit protected, CPL 3", 0)                                                    \
    X(REAL, "real", "real mode", 0)                                                                          \
    X(V86, "v86", "virtual-8086", 0)
enum diff_mode {
#define X(id, name, text, translated) DIFF_##id,
    DIFF_MODES(X)
#undef X
        DIFF_MODE_COUNT
};
extern const char *const diff_mode_name[DIFF_MODE_COUNT];
bool diff_mode_translated(enum diff_mode m);
unsigned diff_mode_cpl(enum diff_mode m);
static inline bool diff_mode_real(enum diff_mode m)
{
    return m == DIFF_REAL || m == DIFF_V86;
}
static inline unsigned diff_mode_bits(enum diff_mode m)
{
    return m <= DIFF_SEG3 ? 32 : 16;
}
/* Where code is: linear address of CS:0, and offset of the code page. */
uint32_t diff_code_base(enum diff_mode m);
uint32_t diff_code_page(enum diff_mode m);

enum { DIFF_PLANTS = 6, DIFF_PLANT_MAX = 64, DIFF_CODE_MAX = 80 };
struct diff_plant {
    uint32_t at; /* physical, inside the compared part */
    uint8_t len, bytes[DIFF_PLANT_MAX];
};
struct diff_case {
    enum diff_mode mode;
    uint8_t insns; /* instructions in code[] */
    uint8_t len, code[DIFF_CODE_MAX];
    uint32_t eip;    /* the code stands there */
    uint32_t target; /* where a branch may go: a HLT is put there; 0: none */
    uint32_t gpr[8], eflags, cr0, cr4;
    uint16_t sel[6];
    uint8_t fx[288]; /* FXSAVE image: control words, registers, MXCSR */
    unsigned plants;
    struct diff_plant plant[DIFF_PLANTS];
};

/* What an instruction stream came to. */
enum diff_stop { DIFF_END, DIFF_HALT, DIFF_EXCEPTION, DIFF_SHUTDOWN, DIFF_SKIP, DIFF_BROKEN };

/* The XLAT_MODE_* that the case's state asks for. */
uint32_t diff_xlat_mode(const struct diff_case *d);
/* Is this case's state one that translated code runs in, and is the page translated for it? */
bool diff_translates(const struct diff_case *d);

void world_init(void);
/* Puts the code bytes at eip (on every way) with a HLT behind them and at the target. */
void world_code(const struct diff_case *d);
void world_uncode(const struct diff_case *d); /* takes the bytes of the case away again */
/* The page as it was: bytes that decode to nothing. */
void world_clear_code(enum diff_mode mode);
/* Registers, segments and memory of a case for the ways; the code is in place. */
void world_start(const struct diff_case *d);
/* Memory back to the base pattern. */
void world_end(const struct diff_case *d);
void world_set_mode(enum diff_mode mode);
bool world_ends_at(const struct diff_case *d, const uint8_t *ram, uint32_t eip, const struct cpu *c);
/* Rights of a linear page for the mode: BOX_P, BOX_W, BOX_U; *phys the RAM address of lin. Paging off: all of
 * RAM. */
uint32_t world_rights(bool paging, uint32_t lin, uint32_t *phys);
extern const struct box_range world_range[];
extern const unsigned world_ranges;
/* The segment a selector of world.c names, as loaded; for real and V86 mode too. */
struct cpu_seg world_segment(enum diff_mode mode, unsigned seg, uint16_t sel);
/* Selectors of interest to code of the mode, valid and not. */
uint16_t world_selector(enum diff_mode mode, uint32_t random);

/* The base pattern of what is compared, as it stands in RAM from W_CODE16 on. */
const uint8_t *world_low(void);
enum diff_stop run_translated(const struct diff_case *d);
enum diff_stop run_emulated(const struct diff_case *d, unsigned limit);

/* -- The reference (ref.c, native.c, model.c)
 * -------------------------------------------------------------------- */
extern struct cpu *ref_cpu;
extern uint8_t *ref_ram;
extern int ref_ram_fd;
enum ref_how { REF_NATIVE = 1, REF_MODEL = 2 };
extern unsigned ref_how; /* REF_*: what the last run used */
extern int ref_vector;   /* of the exception that ended it, or -1 */
void ref_init(void);
bool ref_native_possible(void);
void ref_set_mode(enum diff_mode mode);
enum diff_stop ref_run(const struct diff_case *d, unsigned limit);
/* Until EIP is there. False: not within limit instructions, or not possible. */
bool ref_run_to(uint32_t eip, unsigned limit);

/* One instruction on the host. bytes: 64-bit code of n bytes that names guest registers by their numbers and
 * no REX. Loads and stores the general registers, flags (AC for the instruction if align) and x87/SSE state
 * of *c; returns -1, or the vector with *error and *cr2. */
void native_init(void);
int native_run(struct cpu *c, const uint8_t *bytes, unsigned n, bool align, bool fx, uint32_t *error,
               uint32_t *cr2);

/* -- Opcode forms (forms.c)
 * --------------------------------------------------------------------------------------- */
struct diff_form {
    uint8_t map, opcode, prefix;            /* mandatory or repeat prefix: 0, 66h, F3h, F2h */
    bool has_modrm, mem, lock, whole_modrm; /* whole_modrm: all of the register form is opcode */
    uint8_t modrm;                          /* reg field, or all of it */
    uint8_t cls;
    uint8_t no_reference;                                      /* emulated and translated only: see forms.c */
    uint32_t made[DIFF_MODE_COUNT], compared[DIFF_MODE_COUNT]; /* compared: with the reference */
};
extern struct diff_form *forms;
extern unsigned form_count;
void forms_init(void);
void form_name(const struct diff_form *f, char *text, size_t size);
const char *form_reason(const struct diff_form *f); /* why it has no reference */

/* -- Generation (gen.c)
 * ------------------------------------------------------------------------------------------- */
/* xorshift64*; a seed gives the same cases everywhere. */
extern uint64_t gen_state;
uint32_t gen_random(void);
extern bool gen_traps; /* x87 and SSE instructions trap, RDTSC at CPL 3 too: the flat modes have code of its
                          own for that */
/* One instruction of the form at code[]; registers and memory that suit it. False: the mode has no such form.
 */
bool gen_case(struct diff_case *d, enum diff_mode mode, const struct diff_form *f);
/* New values for the same code. */
void gen_values(struct diff_case *d);
/* What is no instruction, and instructions that the end of a page or segment cuts off: emulator and reference
 * only. */
bool gen_bad(struct diff_case *d, enum diff_mode mode);
bool gen_cut(struct diff_case *d, enum diff_mode mode);
/* Several instructions in a row. */
void gen_stream(struct diff_case *d, enum diff_mode mode, unsigned insns);
/* An instruction of the form for 32-bit code whose memory operand, if any, has that address. Its length, or
 * 0. */
unsigned gen_at(const struct diff_form *f, uint32_t address, uint8_t p[16], struct scan_insn *i);
/* Which operand kinds were generated. */
struct gen_coverage {
    uint64_t modrm32[256], sib[3][256], modrm16[256], segment[7], moffs, imm[5];
};
extern struct gen_coverage gen_coverage;

/* -- Text and comparison (case.c)
 * ----------------------------------------------------------------------------------- */
void diff_print(FILE *f, const struct diff_case *d);
bool diff_parse(const char *line, struct diff_case *d, char *why, size_t size);
/* All ways; NULL or what differs (static buffer). */
const char *diff_check(const struct diff_case *d);
bool diff_reads_time(const struct diff_case *d); /* RDTSC: no two runs are alike */
struct diff_counts {
    uint64_t cases, translated, native, modelled, unreferenced, vector[32], shutdown, halted;
};
extern struct diff_counts diff_counts;
/* -- Programs that change themselves (smc.c) ---------------------------------------------------------- */
/* The program of that seed. NULL or what differs; *streams: how many it has. */
const char *smc_check(uint64_t seed, unsigned *streams);
extern uint64_t smc_runs[];
const char *smc_kind_name(unsigned kind); /* NULL behind the last */

/* Makes the case smaller as long as it fails. */
void diff_minimise(struct diff_case *d);

#endif
