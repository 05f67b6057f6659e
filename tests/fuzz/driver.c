/* tests/fuzz/driver.c: see driver.h. */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A case takes about a millisecond; under the sanitizers, on a loaded machine, some tens. These are for one
 * that never ends. */
#define HANG_CPU_S  60
#define HANG_WALL_S 600

struct options {
    uint64_t from, count, seconds, seed;
    unsigned findings;
    bool one, once;
    struct fuzz_case f; /* dropped pieces and text */
};

/* Written by the child, read by the parent when it is dead. */
struct shared {
    volatile uint64_t seed, done;
    volatile bool in_case, found;
    char text[4096];
};

enum end { END_CLEAN, END_FOUND, END_CRASH, END_HANG, END_SETUP };

static struct shared *shared;
static char output[] = "/tmp/fuzz-XXXXXX"; /* the child's standard error */
static int output_fd;

static uint64_t now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

/* -- The child ---------------------------------------------------------------------------------------- */

static void run_range(const struct fuzz_target *t, const struct options *o, uint64_t from, uint64_t count,
                      uint64_t until_s)
{
    struct fuzz_case f = o->f;
    for (uint64_t i = 0; i < count; i++) {
        if (until_s && (i & 63) == 0 && now_s() >= until_s)
            break;
        f.seed = shared->seed = from + i;
        shared->in_case = true;
        if (!t->run(&f, shared->text, sizeof(shared->text))) {
            shared->found = true;
            return;
        }
        shared->in_case = false;
        shared->done++;
    }
}

static void child(const struct fuzz_target *t, const struct options *o, uint64_t from, uint64_t count,
                  uint64_t until_s)
{
    dup2(output_fd, 2);
    setvbuf(stderr, NULL, _IONBF, 0);
    if (!t->setup(from))
        _exit(3);
    run_range(t, o, from, count, until_s);
    t->teardown();
    exit(0); /* the sanitizers' checks at exit included */
}

/* -- The parent --------------------------------------------------------------------------------------- */

static uint64_t cpu_s(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
        return 0;
    return (uint64_t)t.tv_sec;
}

/* Waits for the child; kills it if a case takes for ever. */
static enum end wait_for(pid_t pid, int *how)
{
    uint64_t seed = UINT64_MAX, cpu = 0, wall = 0;
    for (unsigned nap_us = 200;; nap_us = nap_us < 100000 ? nap_us * 2 : nap_us) {
        pid_t got = waitpid(pid, how, WNOHANG);
        if (got == pid)
            break;
        if (got < 0 && errno != EINTR)
            return END_CRASH;
        if (shared->seed != seed || !shared->in_case) {
            seed = shared->seed;
            cpu = cpu_s(pid);
            wall = now_s();
        } else if (cpu_s(pid) - cpu > HANG_CPU_S || now_s() - wall > HANG_WALL_S) {
            kill(pid, SIGKILL);
            waitpid(pid, how, 0);
            return END_HANG;
        }
        usleep(nap_us);
    }
    if (WIFEXITED(*how) && WEXITSTATUS(*how) == 3)
        return END_SETUP;
    if (shared->found)
        return END_FOUND;
    return WIFEXITED(*how) && WEXITSTATUS(*how) == 0 ? END_CLEAN : END_CRASH;
}

static enum end run_child(const struct fuzz_target *t, const struct options *o, uint64_t from, uint64_t count,
                          uint64_t until_s, int *how)
{
    shared->seed = from;
    shared->found = shared->in_case = false;
    shared->text[0] = 0;
    (void)!ftruncate(output_fd, 0);
    lseek(output_fd, 0, SEEK_SET);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child(t, o, from, count, until_s);
    if (pid < 0) {
        perror("fork");
        exit(2);
    }
    return wait_for(pid, how);
}

/* What the child said last, without what a guest may have printed. */
static void print_output(void)
{
    static char text[6001];
    off_t end = lseek(output_fd, 0, SEEK_END), from = end > 6000 ? end - 6000 : 0;
    ssize_t n = pread(output_fd, text, 6000, from);
    for (ssize_t i = 0; i < n; i++)
        if (text[i] == '\n' || (text[i] >= ' ' && text[i] < 127))
            putchar(text[i]);
    if (n > 0)
        putchar('\n');
}

static void describe(const struct fuzz_target *t, enum end end, int how, uint64_t seed)
{
    printf("%s: seed %llu: ", t->name, (unsigned long long)seed);
    if (end == END_FOUND)
        printf("%s\n", shared->text);
    else if (end == END_HANG)
        printf("does not come back\n");
    else if (WIFSIGNALED(how))
        printf("killed by signal %d (%s)\n", WTERMSIG(how), strsignal(WTERMSIG(how)));
    else
        printf("ended the process with status %d\n", WEXITSTATUS(how));
    print_output();
    fflush(stdout);
}

/* -- Reducing a case ---------------------------------------------------------------------------------- */

static bool fails(const struct fuzz_target *t, const struct options *o, uint64_t seed, enum end like)
{
    int how;
    enum end e = run_child(t, o, seed, 1, 0, &how);
    return e == like;
}

static void set_dropped(struct fuzz_case *f, unsigned from, unsigned n, bool v)
{
    for (unsigned i = from; i < from + n && i < FUZZ_PIECES; i++)
        f->dropped[i / 8] = (uint8_t)((f->dropped[i / 8] & ~(1u << i % 8)) | (unsigned)v << i % 8);
}

static void print_command(const struct fuzz_target *t, const struct fuzz_case *f)
{
    int last = (int)sizeof(f->dropped) - 1;
    while (last >= 0 && !f->dropped[last])
        last--;
    printf("%s: again: %s --seed %llu", t->name, t->name, (unsigned long long)f->seed);
    if (last >= 0)
        printf(" --drop ");
    for (int i = 0; i <= last; i++)
        printf("%02x", f->dropped[i]);
    printf("\n");
}

/* Leaves out blocks of pieces, then smaller ones, as long as it still fails alike. */
static void reduce(const struct fuzz_target *t, const struct options *o, uint64_t seed, enum end like)
{
    struct options r = *o;
    r.f.seed = seed;
    if (like == END_HANG || !fails(t, &r, seed, like)) {
        if (like != END_HANG)
            printf("%s: does not happen alone: try --from %llu --count %llu\n", t->name,
                   (unsigned long long)(seed - seed % 500), (unsigned long long)(seed % 500 + 1));
        print_command(t, &r.f);
        return;
    }
    unsigned pieces = t->pieces(&r.f, NULL);
    for (unsigned block = pieces / 2; block; block /= 2)
        for (unsigned at = 0; at < pieces; at += block) {
            struct options s = r;
            set_dropped(&s.f, at, block, true);
            if (memcmp(s.f.dropped, r.f.dropped, sizeof(s.f.dropped)) && fails(t, &s, seed, like))
                r = s;
        }
    int how;
    printf("%s: reduced:\n", t->name);
    t->pieces(&r.f, stdout);
    enum end e = run_child(t, &r, seed, 1, 0, &how);
    describe(t, e, how, seed);
    print_command(t, &r.f);
    fflush(stdout);
}

/* -- Command line ------------------------------------------------------------------------------------- */

static bool read_text(const char *name, struct fuzz_case *f)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) || st.st_size < 64) {
        fprintf(stderr, "%s: %s\n", name, errno ? strerror(errno) : "too short");
        return false;
    }
    f->text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    f->text_len = (size_t)st.st_size;
    close(fd);
    return f->text != MAP_FAILED;
}

static bool read_dropped(const char *hex, struct fuzz_case *f)
{
    for (unsigned i = 0; hex[0] && hex[1] && i < sizeof(f->dropped); i++, hex += 2) {
        unsigned v;
        if (sscanf(hex, "%2x", &v) != 1)
            return false;
        f->dropped[i] = (uint8_t)v;
    }
    return !*hex;
}

static bool parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(a, "--once")) {
            o->once = true;
            continue;
        }
        if (!v)
            return false;
        i++;
        uint64_t n = strtoull(v, NULL, 0);
        if (!strcmp(a, "--from"))
            o->from = n;
        else if (!strcmp(a, "--count"))
            o->count = n;
        else if (!strcmp(a, "--seconds"))
            o->seconds = n, o->count = UINT64_MAX / 2;
        else if (!strcmp(a, "--findings"))
            o->findings = (unsigned)n;
        else if (!strcmp(a, "--seed"))
            o->one = true, o->seed = n;
        else if (!strcmp(a, "--text")) {
            if (!read_text(v, &o->f))
                return false;
        } else if (!strcmp(a, "--drop")) {
            if (!read_dropped(v, &o->f))
                return false;
        } else
            return false;
    }
    return true;
}

static int run_one(const struct fuzz_target *t, struct options *o)
{
    int how;
    o->f.seed = o->seed;
    t->pieces(&o->f, stdout);
    if (o->once) {
        fflush(stdout);
        if (!t->setup(o->seed))
            return 2;
        bool ok = t->run(&o->f, shared->text, sizeof(shared->text));
        printf("%s: seed %llu: %s\n", t->name, (unsigned long long)o->seed,
               ok ? "nothing found" : shared->text);
        return !ok;
    }
    enum end e = run_child(t, o, o->seed, 1, 0, &how);
    if (e == END_CLEAN) {
        printf("%s: seed %llu: nothing found\n", t->name, (unsigned long long)o->seed);
        print_output();
        return 0;
    }
    describe(t, e, how, o->seed);
    if (e != END_SETUP)
        reduce(t, o, o->seed, e);
    return 1;
}

static uint64_t batch_end(const struct fuzz_target *t, uint64_t at, uint64_t end)
{
    uint64_t next = t->batch ? at - at % t->batch + t->batch : end;
    return next < end ? next : end;
}

static int run_many(const struct fuzz_target *t, const struct options *o)
{
    uint64_t at = o->from, end = o->from + o->count, until_s = o->seconds ? now_s() + o->seconds : 0;
    unsigned found = 0;
    char covered[1000];
    int how;
    while (at < end && found < o->findings && !(until_s && now_s() >= until_s)) {
        uint64_t next = batch_end(t, at, end);
        enum end e = run_child(t, o, at, next - at, until_s, &how);
        if (e == END_SETUP) {
            print_output();
            return 2;
        }
        at = next;
        if (e == END_CLEAN)
            continue;
        found++;
        uint64_t seed = shared->seed, done = shared->done;
        describe(t, e, how, seed);
        reduce(t, o, seed, e);
        shared->done = done;
        at = seed + 1;
    }
    bool enough = t->finish(shared->done, covered, sizeof(covered));
    printf("%s: %llu cases from seed %llu, %u findings; %s%s\n", t->name, (unsigned long long)shared->done,
           (unsigned long long)o->from, found, covered,
           enough ? "" : ": too little of something to mean anything");
    return found || !enough;
}

int fuzz_main(const struct fuzz_target *t, int argc, char **argv)
{
    static struct options o = {.from = 1, .findings = 5};
    o.count = t->default_count;
    if (!parse(&o, argc, argv)) {
        fprintf(stderr,
                "usage: %s [--from N] [--count N | --seconds N] [--findings N] [--text FILE]\n"
                "       %s --seed N [--drop HEX] [--once] [--text FILE]\n",
                t->name, t->name);
        return 2;
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    output_fd = mkstemp(output);
    if (shared == MAP_FAILED || output_fd < 0) {
        perror(output);
        return 2;
    }
    unlink(output);
    return o.one ? run_one(t, &o) : run_many(t, &o);
}
