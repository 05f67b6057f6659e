/* tools/console.c: see console.h.
 *
 * A process that runs guest code can die by a signal nobody can catch; so the terminal's settings are kept by
 * a watching child as well. It holds the reading end of a pipe whose other end only we have: end of file
 * means we are gone, whatever the reason, and it puts the settings back.
 */
#include "tools/console.h"
#include "monitor/run.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static struct {
    struct termios saved;
    bool raw;
    int watch_fd; /* closed: the watcher wakes */
    pid_t watcher;
    int pipe_fd, escape;
} con = {.watch_fd = -1};

static void watch(int fd, const struct termios *saved)
{
    char c;
    signal(SIGTTOU, SIG_IGN); /* by then we may be in a background process group */
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    while (read(fd, &c, 1) < 0 && errno == EINTR)
        ;
    tcsetattr(0, TCSANOW, saved);
    _exit(0);
}

static bool start_watcher(void)
{
    int p[2];
    if (pipe(p))
        return false;
    con.watcher = fork();
    if (con.watcher < 0) {
        close(p[0]);
        close(p[1]);
        return false;
    }
    if (!con.watcher) {
        close(p[1]);
        watch(p[0], &con.saved);
    }
    close(p[0]);
    con.watch_fd = p[1];
    return true;
}

static void say(const char *text)
{
    ssize_t n = write(2, text, strlen(text));
    (void)n;
}

static void help(void)
{
    char key[8];
    char text[200];
    if (con.escape < 32)
        snprintf(key, sizeof(key), "Ctrl-%c", con.escape + '@');
    else
        snprintf(key, sizeof(key), "%c", con.escape);
    snprintf(text, sizeof(text), "\r\n[verso: %s x quits, %s h shows this, %s %s sends it to the guest]\r\n",
             key, key, key, key);
    say(text);
}

static bool send_byte(uint8_t c)
{
    for (;;) {
        ssize_t n = write(con.pipe_fd, &c, 1);
        if (n == 1)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
    }
}

/* One byte of input; false: stop reading. */
static bool input(uint8_t c, bool *escaped)
{
    if (con.escape < 0)
        return send_byte(c);
    if (!*escaped) {
        *escaped = c == con.escape;
        return *escaped || send_byte(c);
    }
    *escaped = false;
    if (c == 'x' || c == 'X') {
        run_quit();
        return false;
    }
    if (c == con.escape)
        return send_byte(c);
    help();
    return true;
}

static void *reader(void *arg)
{
    (void)arg;
    uint8_t buf[256];
    bool escaped = false, going = true;
    while (going) {
        ssize_t n = read(0, buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        for (ssize_t i = 0; going && i < n; i++)
            going = input(buf[i], &escaped);
    }
    close(con.pipe_fd);
    return NULL;
}

static void raw_mode(void)
{
    struct termios t = con.saved;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    con.raw = !tcsetattr(0, TCSANOW, &t);
}

int console_start(int escape)
{
    int p[2];
    bool terminal = isatty(0) && !tcgetattr(0, &con.saved);
    con.escape = escape;
    if (terminal && start_watcher())
        raw_mode();
    if (pipe(p)) {
        console_end();
        return -1;
    }
    con.pipe_fd = p[1];
    signal(SIGPIPE, SIG_IGN);
    /* The guest's signals belong to the thread that runs it. */
    sigset_t all, old;
    pthread_t t;
    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* which says that a system call is forbidden */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&t, NULL, reader, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        close(p[0]);
        close(p[1]);
        console_end();
        return -1;
    }
    pthread_detach(t);
    return p[0];
}

void console_end(void)
{
    if (con.raw)
        tcsetattr(0, TCSADRAIN, &con.saved);
    con.raw = false;
    if (con.watch_fd >= 0) {
        close(con.watch_fd);
        con.watch_fd = -1;
        waitpid(con.watcher, NULL, 0);
    }
}
