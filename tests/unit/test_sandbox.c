/* A process that runs a guest has given up the system calls it does not need: each of these tries one in a
 * process of its own. */
#include "monitor/sandbox.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOPPED 15 /* the status given to sandbox_enter() */
#define REFUSED 77 /* this kernel has no such filters */

static char *page; /* anonymous, writable */

static void run_a_program(void)
{
    char *argv[] = {NULL};
    execve("/bin/true", argv, argv);
}
static void make_a_process(void)
{
    syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}
static void open_a_socket(void)
{
    (void)!socket(AF_INET, SOCK_STREAM, 0);
}
static void make_executable(void)
{
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
}
static void map_executable(void)
{
    (void)!mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void write_a_file(void)
{
    (void)!open("/tmp/verso-sandbox-test", O_WRONLY | O_CREAT, 0600);
}
static void remove_a_file(void)
{
    unlink("/tmp/verso-sandbox-test");
}
static void signal_another(void)
{
    kill(getppid(), 0);
}
static void trace_another(void)
{
    syscall(SYS_ptrace, 16, getppid(), 0, 0);
}
static void type_into_terminal(void)
{
    syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x");
}
static void make_an_io_ring(void)
{
    syscall(SYS_io_uring_setup, 1, NULL);
}
static void call_as_32_bit_program(void)
{
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
}
static void call_by_x32_number(void)
{
    syscall(0x40000000 | SYS_getpid);
}

static void compute_and_write(void)
{
    char *p = malloc(1 << 20);
    memset(p, 1, 1 << 20);
    free(p);
    (void)!write(2, "", 0);
}
static void map_and_protect(void)
{
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ) || munmap(p, 8192))
        _exit(1);
}
static void read_a_file(void)
{
    int fd = open("/proc/self/status", O_RDONLY);
    if (fd < 0)
        _exit(1);
    close(fd);
}
static void signal_itself(void)
{
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
}

static const struct {
    const char *name;
    void (*try)(void);
    unsigned when;
    int status; /* -1: killed by SIGSYS */
} cases[] = {
    {"run a program", run_a_program, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"make a process", make_a_process, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"open a socket", open_a_socket, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"make memory executable", make_executable, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"map executable memory", map_executable, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"write a file without a cache", write_a_file, SANDBOX_ALWAYS, STOPPED},
    {"write a file with a cache", write_a_file, SANDBOX_CACHE, 0},
    {"remove a file without a cache", remove_a_file, SANDBOX_ALWAYS, STOPPED},
    {"signal another process", signal_another, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"trace another process", trace_another, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"type into the terminal", type_into_terminal, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"make an I/O ring", make_an_io_ring, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"call as a 32-bit program", call_as_32_bit_program, SANDBOX_CACHE | SANDBOX_GDB, -1},
    {"call by an x32 number", call_by_x32_number, SANDBOX_CACHE | SANDBOX_GDB, STOPPED},
    {"compute and write", compute_and_write, SANDBOX_ALWAYS, 0},
    {"map and protect", map_and_protect, SANDBOX_ALWAYS, 0},
    {"read a file", read_a_file, SANDBOX_ALWAYS, 0},
    {"signal itself", signal_itself, SANDBOX_ALWAYS, 0},
};
#define CASES ((int)(sizeof(cases) / sizeof(cases[0])))

/* Runs fn confined, its standard error in text. */
static int confined(void (*fn)(void), unsigned when, char *text, size_t size)
{
    int p[2], how;
    ck_assert_int_eq(pipe(p), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char why[100];
        dup2(p[1], 2);
        if (!sandbox_enter(when, STOPPED, why, sizeof(why)))
            _exit(REFUSED);
        fn();
        _exit(0);
    }
    close(p[1]);
    ssize_t n, have = 0;
    while ((n = read(p[0], text + have, size - 1 - (size_t)have)) > 0)
        have += n;
    text[have] = 0;
    close(p[0]);
    ck_assert_int_eq(waitpid(pid, &how, 0), pid);
    if (WIFSIGNALED(how))
        return WTERMSIG(how) == SIGSYS ? -1 : -2;
    return WEXITSTATUS(how);
}

START_TEST(call_is_made_or_ends_the_process)
{
    char text[400];
    int got = confined(cases[_i].try, cases[_i].when, text, sizeof(text));
    if (got == REFUSED)
        return;
    ck_assert_msg(got == cases[_i].status, "%s: status %d, expected %d: %s", cases[_i].name, got,
                  cases[_i].status, text);
    if (got == STOPPED)
        ck_assert_msg(strstr(text, "is not allowed while a guest runs"), "%s: says \"%s\"", cases[_i].name,
                      text);
}
END_TEST

static int go_pipe[2];

static void *other_thread(void *arg)
{
    char c;
    (void)arg;
    (void)!read(go_pipe[0], &c, 1);
    open_a_socket();
    return NULL;
}

START_TEST(thread_made_before_is_confined_too)
{
    pthread_t t;
    int how;
    pid_t pid = fork();
    if (pid == 0) {
        char why[100];
        if (pipe(go_pipe) || pthread_create(&t, NULL, other_thread, NULL))
            _exit(1);
        if (!sandbox_enter(SANDBOX_ALWAYS, STOPPED, why, sizeof(why)))
            _exit(REFUSED);
        (void)!write(go_pipe[1], "", 1);
        pthread_join(t, NULL);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &how, 0), pid);
    ck_assert(WIFEXITED(how) && (WEXITSTATUS(how) == STOPPED || WEXITSTATUS(how) == REFUSED));
}
END_TEST

START_TEST(names_are_known)
{
    ck_assert_str_eq(sandbox_call_name(SYS_mmap), "mmap");
    ck_assert_ptr_null(sandbox_call_name(SYS_execve));
}
END_TEST

int main(void)
{
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Suite *s = suite_create("sandbox");
    TCase *t = tcase_create("sandbox");
    tcase_add_loop_test(t, call_is_made_or_ends_the_process, 0, CASES);
    tcase_add_test(t, thread_made_before_is_confined_too);
    tcase_add_test(t, names_are_known);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    unlink("/tmp/verso-sandbox-test");
    return failed != 0;
}
