/* tools/gdb_listen.c: see gdb_listen.h. */
#include "tools/gdb_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_PORT "1234"
#define LOCAL_HOST   "127.0.0.1"
enum { BACKLOG = 4, NAME_MAX_ = 256 };

static int failed(const char *where, const char *why, int fd)
{
    fprintf(stderr, "verso: --gdb=%s: %s\n", where, why);
    if (fd >= 0)
        close(fd);
    return -1;
}

/* A socket left behind by a process that was killed is in the way; anything else of that name is not ours to remove. */
static void remove_socket(const char *path)
{
    struct stat st;
    if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
        unlink(path);
}

static int listen_unix(const char *where, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a.sun_path))
        return failed(where, "the path is too long for a socket", -1);
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return failed(where, strerror(errno), fd);
    remove_socket(path);
    if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) || listen(fd, BACKLOG))
        return failed(where, strerror(errno), fd);
    fprintf(stderr, "verso: waiting for gdb: target remote %s\n", path);
    return fd;
}

static void announce(int fd, const char *host)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    char port[32] = "?";
    if (!getsockname(fd, (struct sockaddr *)&a, &len))
        getnameinfo((const struct sockaddr *)&a, len, NULL, 0, port, sizeof(port), NI_NUMERICSERV);
    fprintf(stderr, "verso: waiting for gdb: target remote %s:%s\n", host, port);
}

static int listen_tcp(const char *where, const char *host, const char *port)
{
    const struct addrinfo hint = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list;
    int on = 1, fd = -1, error = getaddrinfo(host, port, &hint, &list);
    if (error)
        return failed(where, gai_strerror(error), -1);
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        error = errno;
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* what is accepted inherits it: answers are short */
        if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, BACKLOG)) {
            error = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return failed(where, strerror(error), fd);
    announce(fd, host);
    return fd;
}

static bool is_port(const char *text)
{
    return *text && strlen(text) <= 5 && strspn(text, "0123456789") == strlen(text);
}

int gdb_listen(const char *where, bool *usage)
{
    *usage = false;
    if (!*where)
        return listen_tcp(where, LOCAL_HOST, DEFAULT_PORT);
    if (is_port(where))
        return listen_tcp(where, LOCAL_HOST, where);
    if (!strncmp(where, "unix:", 5) && where[5])
        return listen_unix(where, where + 5);
    const char *colon = strrchr(where, ':');
    if (!strncmp(where, "tcp:", 4) && colon > where + 3 && colon - where - 4 < NAME_MAX_ && is_port(colon + 1)) {
        char host[NAME_MAX_ + 1];
        size_t n = (size_t)(colon - where - 4);
        memcpy(host, where + 4, n);
        host[n] = 0;
        return listen_tcp(where, n ? host : LOCAL_HOST, colon + 1);
    }
    *usage = true;
    return failed(where, "takes PORT, tcp:HOST:PORT or unix:PATH", -1);
}

void gdb_listen_close(const char *where, int fd)
{
    if (fd < 0)
        return;
    close(fd);
    if (!strncmp(where, "unix:", 5))
        remove_socket(where + 5);
}
