/* tools/console.h: the user's terminal as the guest's serial line: raw mode, escape key, restoring on every
 * way out. */
#ifndef VERSO_TOOLS_CONSOLE_H
#define VERSO_TOOLS_CONSOLE_H

#include <stdbool.h>

/* Starts a thread that passes standard input on to a pipe; returns the pipe's end for the guest, -1 on
 * failure. On a terminal: raw mode, and escape (a byte, -1: none) followed by 'x' calls run_quit(), by 'h'
 * prints help, by itself sends itself. The terminal is restored by console_end(), and by a watching process
 * if this one dies without calling it. */
int console_start(int escape);
void console_end(void);

#endif
