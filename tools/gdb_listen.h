/* tools/gdb_listen.h: the socket a debugger comes to. */
#ifndef VERSO_TOOLS_GDB_LISTEN_H
#define VERSO_TOOLS_GDB_LISTEN_H

#include <stdbool.h>

/* Opens a listening socket: "tcp:HOST:PORT", "PORT" or "" (the local host, port 1234), "unix:PATH". Port 0 takes any; where it listens is
 * printed. Returns the descriptor, or -1 after a message; *usage: what was wrong was the text. */
int gdb_listen(const char *where, bool *usage);
/* Closes it; takes the name of a Unix socket away. */
void gdb_listen_close(const char *where, int fd);

#endif
