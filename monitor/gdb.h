/* monitor/gdb.h: the service for debuggers: GDB's remote serial protocol over a socket. Internal to monitor/.
 *
 * One client at a time. A thread of its own watches the socket while the guest runs, and kicks the vCPU's thread,
 * which does all reading and writing. What is not documented in GDB's manual (appendix E) is QEMU's: the packets
 * Qqemu.PhyMemMode, Qqemu.sstep, and that any client stops the guest when it comes.
 */
#ifndef VERSO_MONITOR_GDB_H
#define VERSO_MONITOR_GDB_H

#include <stdarg.h>

#include "monitor/debug.h"
#include "monitor/run.h"

struct gdb;

/* NULL: out of memory, threads or descriptors. */
struct gdb *gdb_open(struct machine *m);
void gdb_close(struct gdb *g);
/* Waits for a client. False: the run is to end instead. */
bool gdb_wait(struct gdb *g);
/* Something arrived since the guest last went on. Any thread. */
bool gdb_calls(const struct gdb *g);
/* Looks at what it was. True: the guest is to be stopped. */
bool gdb_answer(struct gdb *g);
/* Tells the client why the guest stopped, and does what it asks until the guest is to go on. Without a client: nothing. */
void gdb_stopped(struct gdb *g, const struct debug_stop *why);
/* Tells the client that the run has ended. */
void gdb_exited(struct gdb *g, const struct run_result *res);

/* -- gdb_regs.c: registers by number, in the target's byte order -------------------------------------------- */

#define GDB_REG_BYTES 16u /* of one register at most */
unsigned gdb_reg_count(void);
/* Those that the packets g and G hold; the others are asked for one by one. */
unsigned gdb_reg_count_general(void);
unsigned gdb_reg_size(unsigned n);
/* Its size. */
unsigned gdb_reg_get(struct machine *m, unsigned n, uint8_t out[GDB_REG_BYTES]);
/* False: it cannot be written, or not so. */
bool gdb_reg_set(struct machine *m, unsigned n, const uint8_t *in);
/* target.xml; its length. */
const char *gdb_target_xml(size_t *len);

/* -- gdb_monitor.c: `monitor ...` -------------------------------------------------------------------------- */

void gdb_monitor(struct gdb *g, struct machine *m, char *command);
/* What it says to the user. */
void gdb_say(struct gdb *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gdb_set_physical(struct gdb *g, bool on);
bool gdb_physical(const struct gdb *g);

#endif
