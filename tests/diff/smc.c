/* tests/diff/smc.c: programs that change their own code, run by the whole machine and by the reference.
 *
 * A program is a row of streams. Each loads registers and flags, changes the code that it is about to run (in
 * one of the ways of SMC_KINDS), runs it, and adds up registers, flags, x87/SSE registers and the data it
 * works on into a sum of its own. In the end the sums are sent to the serial port. run_machine() runs it
 * translated, translated under a storm of signals, and emulated; the reference executes every instruction
 * from memory, so that it cannot be out of date.
 *
 * The program lies in the code pages and the hot pages of world.c, paging off; exceptions lead to the
 * stream's end.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "diff.h"
#include "monitor/run.h"

#define DATA   (W_HOT + 0x1000) /* what the streams work on */
#define DATA_N 0x140u
#define SAVE   (W_HOT + 0x9000) /* registers, flags, vector; MMX; XMM */
#define SAVE_N (10 * 4 + 8 * 8 + 8 * 16u)
#define NOW    (W_HOT + 0x9200) /* where the running stream ends */
#define COUNT_ (W_HOT + 0x9204)
#define LOG    (W_HOT + 0xA000)
#define STACK  (W_HOT + 0xF000)
#define LOW_IMAGE                                                                                            \
    0x200000u /* from where the program copies the world's low memory: kernels are loaded from 1 MiB on */
#define LOW_BYTES (W_HOT + W_HOT_SIZE - W_CODE16)
#define CODE_END  0x4000u /* the handlers follow */
enum { STREAM_MAX = 64, BODY_MAX = 40 };

#define SMC_KINDS(X)                                                                                         \
    X(NONE, "unchanged")                                                                                     \
    X(AHEAD, "rewritten just ahead")                                                                         \
    X(TWICE, "run, rewritten, run again")                                                                    \
    X(NEXT, "each instruction changes the next")                                                             \
    X(COPY, "copied over with REP MOVSB")                                                                    \
    X(BYTES, "rewritten byte by byte, last byte first")                                                      \
    X(SPLIT, "rewritten across a page end")
enum smc_kind {
#define X(id, text) SMC_##id,
    SMC_KINDS(X)
#undef X
        SMC_KIND_COUNT
};

static struct {
    uint8_t code[0x5000];
    uint32_t at; /* offset of the next byte */
    unsigned streams;
    uint32_t start, end; /* EIP behind the copying, EIP where the sums are complete */
    struct {
        uint32_t eip;
        enum smc_kind kind;
    } stream[STREAM_MAX];
} prog;
uint64_t smc_runs[SMC_KIND_COUNT];

static void e1(unsigned v)
{
    prog.code[prog.at++] = (uint8_t)v;
}

static void e4(uint32_t v)
{
    memcpy(prog.code + prog.at, &v, 4);
    prog.at += 4;
}

static uint32_t here(void)
{
    return BOX_CODE + prog.at;
}

static void mov_reg(unsigned reg, uint32_t v)
{
    e1(0xB8 | reg);
    e4(v);
}

static void mov_mem(uint32_t at, uint32_t v) /* mov dword [at], v */
{
    e1(0xC7);
    e1(0x05);
    e4(at);
    e4(v);
}

static void mov_mem_1(uint32_t at, uint8_t v)
{
    e1(0xC6);
    e1(0x05);
    e4(at);
    e1(v);
}

static void jump(unsigned opcode, uint32_t to)
{
    e1(opcode);
    e4(to - (here() + 4));
}

/* -- Bodies
 * -----------------------------------------------------------------------------------------------------------
 */

/* Exceptions are delivered on the stack: ESP must not be changed. Byte registers of that number are left out
 * with it. */
static bool names_esp(const struct scan_insn *i)
{
    bool in_opcode = (i->map == SCAN_MAP_1B && ((i->opcode & 0xF0) == 0x40 || (i->opcode & 0xF8) == 0x90 ||
                                                (i->opcode & 0xF0) == 0xB0)) ||
                     (i->map == SCAN_MAP_0F && (i->opcode & 0xF8) == 0xC8);

    if (in_opcode)
        return (i->opcode & 7) == CPU_ESP;
    return i->has_modrm &&
           (scan_modrm_reg(i) == CPU_ESP || (!scan_has_mem(i) && scan_modrm_rm(i) == CPU_ESP));
}

/* SIMD instructions that may have a general register. */
static bool has_gpr(const struct scan_insn *i)
{
    return i->map == SCAN_MAP_0F && strchr("\x2A\x2C\x2D\x50\x6E\x7E\xC4\xC5\xD7", i->opcode);
}

/* Instructions without implied memory: registers, and memory at an absolute address among the data. What
 * unmasks x87 exceptions is left out: they would be raised wherever the next x87 instruction is. */
static bool suits(const struct diff_form *f, const struct scan_insn *i)
{
    unsigned op = i->opcode;

    if ((i->cls == SCAN_CLASS_PLAIN || (i->cls == SCAN_CLASS_SIMD && has_gpr(i))) && names_esp(i))
        return false;
    if (i->cls == SCAN_CLASS_FPU && op == 0xD9 && scan_has_mem(i) && scan_modrm_reg(i) == 5)
        return false;

    if (f->no_reference ||
        (i->cls != SCAN_CLASS_PLAIN && i->cls != SCAN_CLASS_FPU && i->cls != SCAN_CLASS_SIMD))
        return false;
    if (i->map == SCAN_MAP_1B)
        return !(op >= 0x50 && op <= 0x5F) && op != 0x68 && op != 0x6A && op != 0x8F && op != 0xC8 &&
               op != 0xC9 && op != 0xD7 && !(op == 0xFF && scan_modrm_reg(i) >= 2) && op != 0x9B;
    if (i->map != SCAN_MAP_0F)
        return true;
    return op != 0xF7 && op != 0xAE &&
           !(scan_has_mem(i) && (op == 0xA3 || op == 0xAB || op == 0xB3 || op == 0xBB));
}

static unsigned body_insn(uint8_t *p)
{
    for (;;) {
        const struct diff_form *f = &forms[gen_random() % form_count];
        struct scan_insn i;
        unsigned len =
            gen_at(f, DATA + (gen_random() & 0xF0) + (gen_random() % 4 ? 0 : gen_random() & 15), p, &i);

        if (len && suits(f, &i))
            return len;
    }
}

static unsigned body(uint8_t *p, unsigned insns, unsigned max)
{
    unsigned n = 0;

    while (insns--) {
        uint8_t one[16];
        unsigned len = body_insn(one);

        if (n + len > max)
            break;
        memcpy(p + n, one, len);
        n += len;
    }
    return n;
}

/* Another body of the same length. */
static void other(uint8_t *p, unsigned len)
{
    unsigned n = body(p, 8, len);

    memset(p + n, 0x90, len - n);
}

/* -- Ways to change it
 * -------------------------------------------------------------------------------------------------- */

static void rewrite(uint32_t at, const uint8_t *bytes, unsigned len)
{
    unsigned k = 0;

    for (; k + 4 <= len; k += 4) {
        uint32_t v;

        memcpy(&v, bytes + k, 4);
        mov_mem(at + k, v);
    }
    for (; k < len; k++)
        mov_mem_1(at + k, bytes[k]);
}

static void put_body(const uint8_t *bytes, unsigned len)
{
    memcpy(prog.code + prog.at, bytes, len);
    prog.at += len;
}

static unsigned rewrite_length(unsigned len)
{
    return len / 4 * 10 + len % 4 * 7;
}

static void run_rewritten(void)
{
    uint8_t a[BODY_MAX], b[BODY_MAX];
    unsigned len = body(b, 1 + gen_random() % 4, BODY_MAX);

    other(a, len);
    rewrite(here() + rewrite_length(len), b, len);
    put_body(a, len);
}

static void run_bytes(void)
{
    uint8_t a[BODY_MAX], b[BODY_MAX];
    unsigned len = body(b, 2, BODY_MAX);

    other(a, len);
    for (unsigned k = len; k; k--)
        mov_mem_1(here() + 7 * k + k - 1, b[k - 1]);
    put_body(a, len);
}

static void run_twice(void)
{
    uint8_t a[BODY_MAX], b[BODY_MAX];
    unsigned len = body(b, 1 + gen_random() % 3, BODY_MAX);
    uint32_t start;

    other(a, len);
    mov_mem(COUNT_, 2 + gen_random() % 3);
    start = here();
    put_body(a, len);
    e1(0xFF), e1(0x0D), e4(COUNT_); /* dec dword [COUNT_] */
    e1(0x74), e1((uint8_t)(rewrite_length(len) + 5));
    rewrite(start, b, len);
    jump(0xE9, start);
}

/* mov byte [the immediate, or the opcode, of what follows]. */
static void run_next(void)
{
    for (unsigned n = 1 + gen_random() % 3; n; n--) {
        if (gen_random() & 1) {
            mov_mem_1(here() + 7 + 1 + gen_random() % 4, (uint8_t)gen_random());
            mov_reg(gen_random() & 3, gen_random());
        } else {
            mov_mem_1(here() + 7, (uint8_t)(0x40 | (gen_random() & 15)));
            e1(0x90);
        }
    }
}

static void run_copied(void)
{
    uint8_t a[BODY_MAX], b[BODY_MAX];
    unsigned len = body(b, 1 + gen_random() % 4, BODY_MAX);
    uint32_t from;

    other(a, len);
    jump(0xE9, here() + 5 + len);
    from = here();
    put_body(b, len);
    mov_reg(CPU_ESI, from);
    mov_reg(CPU_ECX, len);
    mov_reg(CPU_EDI, here() + 5 + 1 + 2);
    e1(0xFC), e1(0xF3), e1(0xA4);
    put_body(a, len);
}

/* The body lies across a page end; the rewriting is done on the first page. */
static void run_split(void)
{
    uint8_t a[BODY_MAX], b[BODY_MAX];
    unsigned len = body(b, 4, BODY_MAX), before = rewrite_length(len);
    uint32_t start = (prog.at + before + 32 + 0xFFF) & ~0xFFFu;

    start -= 1 + gen_random() % (len > 1 ? len - 1 : 1);
    if (start + len + 0x200 > CODE_END)
        return;
    other(a, len);
    jump(0xE9, BOX_CODE + start - before);
    prog.at = start - before;
    rewrite(BOX_CODE + start, b, len);
    put_body(a, len);
}

static void unchanged(void)
{
    uint8_t b[BODY_MAX];

    put_body(b, body(b, 1 + gen_random() % 4, BODY_MAX));
}

/* -- The program
 * -----------------------------------------------------------------------------------------------------------
 */

static uint32_t common; /* takes the sum and returns to EBX */

static void hash_block(uint32_t at, uint32_t dwords)
{
    mov_reg(CPU_ECX, dwords);
    e1(0xC1), e1(0xC0), e1(5);                /* rol eax, 5 */
    e1(0x33), e1(0x04), e1(0x8D), e4(at - 4); /* xor eax, [at - 4 + ecx*4] */
    e1(0x49);                                 /* dec ecx */
    e1(0x75), e1((uint8_t)-13);               /* jnz */
}

static void emit_common(void)
{
    common = here();
    for (unsigned n = 0; n < 8; n++)
        e1(0x0F), e1(0x7F), e1(5 | n << 3), e4(SAVE + 40 + 8 * n); /* movq [..], mmN */
    for (unsigned n = 0; n < 8; n++)
        e1(0x0F), e1(0x11), e1(5 | n << 3), e4(SAVE + 104 + 16 * n); /* movups */
    e1(0x31), e1(0xC0);
    hash_block(SAVE, SAVE_N / 4);
    hash_block(DATA, DATA_N / 4);
    e1(0x89), e1(0x02); /* mov [edx], eax */
    mov_mem(SAVE + 36, 0xFFFFFFFFu);
    e1(0xDB), e1(0xE3);
    e1(0xFF), e1(0xE3);
}

static void emit_stream(enum smc_kind kind)
{
    static void (*const make[SMC_KIND_COUNT])(void) = {unchanged,  run_rewritten, run_twice, run_next,
                                                       run_copied, run_bytes,     run_split};
    uint32_t patch_at;

    prog.stream[prog.streams].eip = here();
    prog.stream[prog.streams].kind = kind;
    mov_reg(CPU_ESP, STACK);
    patch_at = prog.at + 6;
    mov_mem(NOW, 0);
    e1(0x68), e4((gen_random() & 0xCD5) | 2), e1(0x9D); /* push, popfd */
    for (unsigned r = 0; r < 8; r++)
        if (r != CPU_ESP)
            mov_reg(r, gen_random() % 3 ? gen_random() : gen_random() & 0xFF);
    make[kind]();
    smc_runs[kind]++;
    uint32_t finish = here();

    memcpy(prog.code + patch_at, &finish, 4);
    for (unsigned r = 0; r < 8; r++)
        e1(0x89), e1(5 | r << 3), e4(SAVE + 4 * r);
    mov_reg(CPU_ESP, STACK);
    e1(0x9C), e1(0x8F), e1(0x05), e4(SAVE + 32); /* pushfd, pop [..] */
    mov_reg(CPU_EDX, LOG + 4 * prog.streams);
    mov_reg(CPU_EBX, here() + 10);
    jump(0xE9, common);
    prog.streams++;
}

/* Sends the sums: eight digits and a newline each, then leaves by the exit port. */
static void emit_print(void)
{
    static const uint8_t one[] = {
        0x8B, 0x1E,             /* mov ebx, [esi] */
        0xB1, 0x08,             /* mov cl, 8 */
        0xC1, 0xC3, 0x04,       /* 1: rol ebx, 4 */
        0x88, 0xD8, 0x24, 0x0F, /* mov al, bl; and al, 15 */
        0x04, 0x41, 0xEE,       /* add al, 'A'; out dx, al */
        0xFE, 0xC9, 0x75, 0xF2, /* dec cl; jnz 1 */
        0xB0, 0x0A, 0xEE,       /* newline */
        0x83, 0xC6, 0x04,       /* add esi, 4 */
        0x4F,                   /* dec edi */
    };

    prog.end = here();
    mov_reg(CPU_ESI, LOG);
    mov_reg(CPU_EDI, prog.streams);
    mov_reg(CPU_EDX, 0x3F8);
    put_body(one, sizeof one);
    e1(0x75), e1((uint8_t) - (int)(sizeof one + 2));
    e1(0xB0), e1(0), e1(0xE6), e1(0xF4);
    e1(0xEB), e1(0xFE);
}

static void emit_handlers(void)
{
    for (unsigned v = 0; v < 256; v++) {
        prog.at = W_HANDLER - BOX_CODE + 16 * v;
        e1(0x6A), e1(v); /* push v: 5 + 2 bytes are left for the jump */
        jump(0xE9, W_HANDLER + 16 * 255 - 0x40);
    }
    prog.at = W_HANDLER + 16 * 255 - 0x40 - BOX_CODE; /* in the place of vectors that do not come */
    e1(0x8F), e1(0x05), e4(SAVE + 36);                /* pop [vector] */
    mov_reg(CPU_ESP, STACK);
    e1(0xFF), e1(0x25), e4(NOW);
}

static void emit_prologue(void)
{
    uint8_t gdtr[6], idtr[6];
    uint32_t v = W_GDT;

    memcpy(gdtr, "\x1F\0", 2);
    memcpy(gdtr + 2, &v, 4);
    v = W_IDT;
    memcpy(idtr, "\xFF\x07", 2);
    memcpy(idtr + 2, &v, 4);
    jump(0xE9, here() + 5 + 12);
    put_body(gdtr, 6);
    put_body(idtr, 6);
    mov_reg(CPU_ESI, LOW_IMAGE);
    mov_reg(CPU_EDI, W_CODE16);
    mov_reg(CPU_ECX, LOW_BYTES / 4);
    e1(0xFC), e1(0xF3), e1(0xA5);
    prog.start = here();
    e1(0x0F), e1(0x01), e1(0x15), e4(BOX_CODE + 5);
    e1(0x0F), e1(0x01), e1(0x1D), e4(BOX_CODE + 11);
    e1(0xEA), e4(here() + 6), e1(8), e1(0);
    mov_reg(CPU_EAX, 0x10);
    for (unsigned s = 0; s < 6; s++)
        if (s != SCAN_CS)
            e1(0x8E), e1(0xC0 | s << 3);
    e1(0x0F), e1(0x20), e1(0xE0), e1(0x0D), e4(CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT), e1(0x0F), e1(0x22),
        e1(0xE0);
    mov_mem(SAVE + 36, 0xFFFFFFFFu);
    e1(0xDB), e1(0xE3);
    jump(0xE9, 0); /* over the common part; put right below */
    uint32_t field = prog.at - 4;

    emit_common();
    v = here() - (BOX_CODE + field + 4);
    memcpy(prog.code + field, &v, 4);
}

static void make_program(void)
{
    memset(&prog, 0, sizeof prog);
    memset(prog.code, 0xCC, sizeof prog.code);
    emit_prologue();
    while (prog.streams < STREAM_MAX && prog.at + 0x400 < CODE_END)
        emit_stream((enum smc_kind)(gen_random() % SMC_KIND_COUNT));
    emit_print();
    emit_handlers();
}

/* -- Running it
 * -------------------------------------------------------------------------------------------------------------
 */

static volatile bool storm_on;
static pthread_t storm_target;

/* Signals that the machine takes for news from its threads: each meets translated code somewhere. */
static void *storm(void *arg)
{
    struct timespec pause = {0, 20000};

    (void)arg;
    while (storm_on) {
        pthread_kill(storm_target, SIGUSR2);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

enum { MACHINE_TRANSLATED, MACHINE_STORM, MACHINE_EMULATED, MACHINE_WAYS };
static const char *const way_name[MACHINE_WAYS] = {"translated", "translated, under a storm of signals",
                                                   "emulated"};

static bool run_whole(unsigned way, const uint8_t *low, char *out, size_t size, char *why, size_t why_size)
{
    struct run_segment seg[2] = {{BOX_CODE, sizeof prog.code, sizeof prog.code, prog.code},
                                 {LOW_IMAGE, LOW_BYTES, LOW_BYTES, low}};
    int fd = memfd_create("serial", 0);
    struct run_config cfg = {.ram_bytes = 16u << 20,
                             .segment = seg,
                             .segment_count = 2,
                             .entry = BOX_CODE,
                             .serial_in = -1,
                             .serial_out = fd,
                             .escape = -1,
                             .emulate_only = way == MACHINE_EMULATED};
    struct run_result res;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    stack_t stack;
    pthread_t thread;

    if (fd < 0)
        return false;
    sigaltstack(NULL, &stack);
    sigaction(SIGUSR2, &ignore, &old); /* one may come before the machine is ready for it, or after */
    storm_target = pthread_self();
    storm_on = way == MACHINE_STORM;
    if (storm_on && pthread_create(&thread, NULL, storm, NULL))
        return false;
    run_machine(&cfg, &res);
    if (storm_on) {
        storm_on = false;
        pthread_join(thread, NULL);
    }
    sigaction(SIGUSR2, &old, NULL);
    sigaltstack(&stack, NULL);
    emu_fpu_catch(true);
    ssize_t n = pread(fd, out, size - 1, 0);

    close(fd);
    out[n > 0 ? n : 0] = 0;
    if (res.end != RUN_EXIT_PORT)
        snprintf(why, why_size, "%s: ended by %d (%s) after \"%.60s\"", way_name[way], res.end, res.error,
                 out);
    return res.end == RUN_EXIT_PORT;
}

/* The sums by the reference, in the form of the serial output. */
static bool run_reference(const uint8_t *low, char *out, char *why, size_t why_size)
{
    struct diff_case d = {.mode = DIFF_FLAT0,
                          .insns = 1,
                          .len = 1,
                          .eip = prog.start,
                          .cr0 = CPU_CR0_PE | CPU_CR0_ET | CPU_CR0_NE,
                          .cr4 = CPU_CR4_OSFXSR | CPU_CR4_OSXMMEXCPT,
                          .sel = {0x10, 8, 0x10, 0x10, 0x10, 0x10}};

    memcpy(d.fx, "\x7F\x03", 2);
    memcpy(d.fx + 24, "\x80\x1F", 2);
    world_start(&d);
    memcpy(ref_ram + W_CODE16, low, LOW_BYTES);
    memcpy(ref_ram + BOX_CODE, prog.code, sizeof prog.code);
    if (!ref_run_to(prog.end, 200000)) {
        char insn[100] = "";

        if (ref_cpu->eip - BOX_CODE < sizeof prog.code)
            scan_disassemble(ref_ram + ref_cpu->eip, 15, 32, ref_cpu->eip, insn, sizeof insn);
        snprintf(why, why_size, "the reference does not get beyond %08x: %s", ref_cpu->eip, insn);
        return false;
    }
    for (unsigned n = 0; n < prog.streams; n++) {
        uint32_t v;

        memcpy(&v, ref_ram + LOG + 4 * n, 4);
        for (int k = 28; k >= 0; k -= 4)
            *out++ = (char)('A' + (v >> k & 15));
        *out++ = '\n';
    }
    *out = 0;
    world_end(&d);
    return true;
}

static const char *first_difference(const char *a, const char *b, unsigned *stream)
{
    for (*stream = 0; *a || *b; ++*stream) {
        if (strncmp(a, b, 9))
            return a;
        a += 9;
        b += 9;
    }
    return NULL;
}

const char *smc_check(uint64_t seed, unsigned *streams)
{
    static char why[600], want[STREAM_MAX * 9 + 16], got[STREAM_MAX * 9 + 16];
    const uint8_t *low;
    bool known;
    unsigned at;

    gen_state = seed * 0x9E3779B97F4A7C15u | 1;
    make_program();
    low = world_low();
    *streams = prog.streams;
    known = ref_native_possible();
    if (known && !run_reference(low, want, why, sizeof why))
        return why;
    for (unsigned way = 0; way < MACHINE_WAYS; way++) {
        if (!run_whole(way, low, got, sizeof got, why, sizeof why))
            return why;
        if (!known) /* then against each other */
            strcpy(want, got);
        known = true;
        if (first_difference(got, want, &at)) {
            snprintf(why, sizeof why, "%s: stream %u at %08x (%s) has sum %.8s, should have %.8s",
                     way_name[way], at, prog.stream[at].eip, smc_kind_name(prog.stream[at].kind),
                     got + 9 * at, want + 9 * at);
            return why;
        }
    }
    return NULL;
}

const char *smc_kind_name(unsigned kind)
{
    static const char *const name[SMC_KIND_COUNT] = {
#define X(id, text) text,
        SMC_KINDS(X)
#undef X
    };

    return kind < SMC_KIND_COUNT ? name[kind] : NULL;
}
