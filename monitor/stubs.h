/* monitor/stubs.h: the world switch between the run loop and translated code (stubs.S). */
#ifndef VERSO_MONITOR_STUBS_H
#define VERSO_MONITOR_STUBS_H

#include "translator/cpu.h"

/* Why translated code came back: an enum xlat_stub, or one of these. */
enum {
    STUB_EXIT_ABORTED = 32,
    STUB_EXIT_SIGNAL = 33,
    STUB_EXIT_FAULT = 34,
    STUB_EXIT_LIGHT = 35,
    STUB_GO_ON = 36
};

/* Loads the guest's registers and goes on at cpu->eip through the indirect-branch table. Comes back with the
 * guest's state in cpu and the reason. STUB_EXIT_ABORTED: nothing ran, host_event was set. STUB_EXIT_LIGHT:
 * light_emulate() ran an instruction and wants the loop to look at the world. */
uint32_t stub_enter(struct cpu *cpu);

/* Entry points by enum xlat_stub, and others; never called from C. Each expects r8d = guest EIP, r13 = cpu.
 */
extern const char stub_emulate[], stub_lookup_bmi2[], stub_lookup_plain[], stub_miss[], stub_sti[],
    stub_poll[], stub_step[];
extern const char stub_sreg[], stub_cpuid[], stub_sysenter[], stub_sysexit[], stub_int[], stub_iret[], stub_in[],
    stub_out[], stub_volatile[], stub_run[];
extern const char stub_sreg_load[], stub_sreg_miss[]; /* a fault at the first goes on at the second */
extern const char stub_retmiss[];              /* bottom of the shadow stack */
extern const char stub_signal[], stub_fault[]; /* where the signal handlers resume to leave translated code */
extern const char stub_enter_begin[], stub_enter_end[]; /* inside stub_enter, guest state still in cpu */
extern const char stub_enter_abort[];
extern const char stub_code_begin[],
    stub_code_end[]; /* all of it: state is AT_R8 inside but outside the ranges below */
extern const char stub_exit_begin[],
    stub_exit_end[]; /* leaving: the run loop will look at host_event anyway */

#endif
