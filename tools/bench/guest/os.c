/* tools/bench/guest/os.c: what the guest's operating system does, one operation a unit. */
#include "bench.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

/* -- System calls
 * -------------------------------------------------------------------------------------------------------- */

#ifdef __i386__
static uint32_t null_sysenter(uint32_t n)
{
    unsigned long entry =
        getauxval(AT_SYSINFO); /* the vDSO's __kernel_vsyscall: SYSENTER where the CPU has it */
    if (!entry)
        return BENCH_UNAVAILABLE;
    while (n--) {
        long r = SYS_getppid;
        __asm__ volatile("call *%1" : "+a"(r) : "r"(entry) : "memory", "cc");
    }
    return 0;
}

static uint32_t null_int80(uint32_t n)
{
    while (n--) {
        long r = SYS_getppid;
        __asm__ volatile("int $0x80" : "+a"(r) : : "memory", "cc");
    }
    return 0;
}
#else
/* Natively both are the one way there is. */
static uint32_t null_sysenter(uint32_t n)
{
    while (n--)
        (void)syscall(SYS_getppid);
    return 0;
}
#define null_int80 null_sysenter
#endif

static uint32_t read_1b(uint32_t n)
{
    int fd = open("/dev/zero", O_RDONLY);
    char c;
    if (fd < 0)
        return BENCH_UNAVAILABLE;
    while (n--)
        if (read(fd, &c, 1) != 1)
            return BENCH_UNAVAILABLE;
    close(fd);
    return 0;
}

static uint32_t write_1b(uint32_t n)
{
    int fd = open("/dev/null", O_WRONLY);
    if (fd < 0)
        return BENCH_UNAVAILABLE;
    while (n--)
        if (write(fd, "x", 1) != 1)
            return BENCH_UNAVAILABLE;
    close(fd);
    return 0;
}

static uint32_t stat_file(uint32_t n)
{
    struct stat st;
    while (n--)
        if (stat("/proc/self", &st))
            return BENCH_UNAVAILABLE;
    return 0;
}

static uint32_t open_close(uint32_t n)
{
    while (n--) {
        int fd = open("/dev/null", O_RDONLY);
        if (fd < 0)
            return BENCH_UNAVAILABLE;
        close(fd);
    }
    return 0;
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
    (void)sig;
    signals++;
}

static uint32_t signal_self(uint32_t n)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &sa, NULL);
    pid_t self = getpid();
    while (n--)
        kill(self, SIGUSR1);
    return 0;
}

/* -- Processes
 * -----------------------------------------------------------------------------------------------------------
 */

static void echo(int in, int out)
{
    char c;
    while (read(in, &c, 1) == 1)
        if (write(out, &c, 1) != 1)
            break;
    _exit(0);
}

/* A byte there and back between two processes: two context switches. */
static uint32_t pingpong(uint32_t n)
{
    int a[2], b[2];
    char c = 0;
    uint64_t t0 = bench_now_ns();
    if (pipe(a) || pipe(b))
        return BENCH_UNAVAILABLE;
    pid_t pid = fork();
    if (pid == 0) {
        close(a[1]), close(b[0]);
        echo(a[0], b[1]);
    }
    close(a[0]), close(b[1]);
    bench_excluded_ns += bench_now_ns() - t0;
    while (n--)
        if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
            return BENCH_UNAVAILABLE;
    t0 = bench_now_ns();
    close(a[1]), close(b[0]);
    waitpid(pid, NULL, 0);
    bench_excluded_ns += bench_now_ns() - t0;
    return 0;
}

static uint32_t fork_exit(uint32_t n)
{
    while (n--) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        waitpid(pid, NULL, 0);
    }
    return 0;
}

static uint32_t fork_exec(uint32_t n)
{
    while (n--) {
        pid_t pid = fork();
        if (pid == 0) {
            execl(bench_program, bench_program, BENCH_NOTHING, (char *)NULL);
            _exit(127);
        }
        int status;
        waitpid(pid, &status, 0);
        if (status)
            return BENCH_UNAVAILABLE;
    }
    return 0;
}

static void *thread_body(void *arg)
{
    return arg;
}

static uint32_t thread_create(uint32_t n)
{
    while (n--) {
        pthread_t t;
        if (pthread_create(&t, NULL, thread_body, NULL))
            return BENCH_UNAVAILABLE;
        pthread_join(t, NULL);
    }
    return 0;
}

/* -- Memory
 * --------------------------------------------------------------------------------------------------------------
 */

static uint8_t *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static uint32_t mmap_munmap(uint32_t n)
{
    while (n--) {
        uint8_t *p = map(4 * PAGE);
        if (!p)
            return BENCH_UNAVAILABLE;
        munmap(p, 4 * PAGE);
    }
    return 0;
}

/* First touches of anonymous pages, 256 at a time. */
static uint32_t page_fault(uint32_t n)
{
    while (n) {
        uint32_t part = n < 256 ? n : 256;
        uint64_t t0 = bench_now_ns();
        volatile uint8_t *p = map(256 * PAGE);
        if (!p)
            return BENCH_UNAVAILABLE;
        bench_excluded_ns += bench_now_ns() - t0;
        for (uint32_t i = 0; i < part && !bench_empty; i++)
            p[i * PAGE] = 1;
        t0 = bench_now_ns();
        munmap((void *)(uintptr_t)p, 256 * PAGE);
        bench_excluded_ns += bench_now_ns() - t0;
        n -= part;
    }
    return 0;
}

/* Writes to pages shared with a child since fork(), 256 at a time. */
static uint32_t cow_fault(uint32_t n)
{
    uint64_t t0 = bench_now_ns();
    volatile uint8_t *p = map(256 * PAGE);
    if (!p)
        return BENCH_UNAVAILABLE;
    for (int i = 0; i < 256; i++)
        p[i * PAGE] = 1;
    while (n) {
        int hold[2];
        char c;
        uint32_t part = n < 256 ? n : 256;
        if (pipe(hold))
            return BENCH_UNAVAILABLE;
        pid_t pid = fork();
        if (pid == 0) {
            close(hold[1]);
            _exit(read(hold[0], &c, 1) != 0);
        }
        close(hold[0]);
        bench_excluded_ns += bench_now_ns() - t0;
        for (uint32_t i = 0; i < part && !bench_empty; i++)
            p[i * PAGE] = 2;
        t0 = bench_now_ns();
        close(hold[1]);
        waitpid(pid, NULL, 0);
        n -= part;
    }
    munmap((void *)(uintptr_t)p, 256 * PAGE);
    bench_excluded_ns += bench_now_ns() - t0;
    return 0;
}

/* Protection taken and given back, with a write after each return. */
static uint32_t mprotect_pair(uint32_t n)
{
    volatile uint8_t *p = map(16 * PAGE);
    if (!p)
        return BENCH_UNAVAILABLE;
    p[0] = 1;
    while (!bench_empty && n--) {
        mprotect((void *)(uintptr_t)p, PAGE, PROT_READ);
        mprotect((void *)(uintptr_t)p, PAGE, PROT_READ | PROT_WRITE);
        p[0] = 2;
    }
    munmap((void *)(uintptr_t)p, 16 * PAGE);
    return 0;
}

const struct bench bench_os[] = {{"os.sysenter", null_sysenter},
                                 {"os.int80", null_int80},
                                 {"os.read_1b", read_1b},
                                 {"os.write_1b", write_1b},
                                 {"os.stat", stat_file},
                                 {"os.open_close", open_close},
                                 {"os.signal", signal_self},
                                 {"os.pingpong", pingpong},
                                 {"os.page_fault", page_fault},
                                 {"os.cow_fault", cow_fault},
                                 {"os.mprotect_pair", mprotect_pair},
                                 {"os.mmap_munmap", mmap_munmap},
                                 {"os.fork_exit", fork_exit},
                                 {"os.fork_exec", fork_exec},
                                 {"os.thread", thread_create},
                                 {0}};
