/* monitor/light.h: the light exit: an instruction emulated while the guest's x87/SSE state stays in the
 * host's registers.
 *
 * Saving and restoring that state (FXSAVE, FXRSTOR) costs more than emulating a segment load or a port
 * access. So everything on the way of a light exit is compiled for general registers only (LIGHT_SOURCES in
 * CMakeLists.txt), and whatever is not (the C library, devices, windows, code memory, x87 instructions
 * themselves) is called only after cpu_fx_save(). tests/unit/light.sh checks the objects.
 */
#ifndef VERSO_MONITOR_LIGHT_H
#define VERSO_MONITOR_LIGHT_H

#include "monitor/machine.h"

/* Called by stub_emulate and stub_sti (stubs.S), on the run loop's stack, with the guest's general registers
 * in cpu. why: XLAT_STUB_STI, or an exit for which
 * xlat_stub_emulates(); operand: r10d then. STUB_GO_ON: go on at cpu->eip. Otherwise what stub_enter()
 * is to return: `why` if nothing has been done (but STI's shadow is noted), STUB_EXIT_LIGHT if the
 * instruction is done, m->light_result its result, and the run loop is wanted. */
uint32_t light_emulate(struct machine *m, uint32_t why, uint32_t operand);
/* A segment register was loaded after an XLAT_STUB_SREG exit with this r10d. */
void light_remember_segment(struct machine *m, uint32_t operand);

/* May translated code run in the present state? */
bool machine_translatable(const struct machine *m);
/* XLAT_MODE_* of the present state. */
uint32_t machine_mode(const struct machine *m);

#endif
