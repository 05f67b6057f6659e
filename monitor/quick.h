/* monitor/quick.h: the system instructions that ordinary kernels live on, in the form they have there: flat
 * segments, 32-bit gates and stacks, page tables that the emulator has looked through before. Whatever is
 * otherwise is left to the emulator: each function does all of the instruction or, returning false, nothing.
 *
 * Called in light exits only (light.h): general registers, and the state machine_translatable() allows, that
 * is protected mode, flat CS, SS, DS and ES, no virtual-8086 mode, no breakpoints, no single step, no
 * interrupt shadow.
 */
#ifndef VERSO_MONITOR_QUICK_H
#define VERSO_MONITOR_QUICK_H

#include "monitor/vm.h"

bool quick_sysenter(struct vm *vm);
/* sti: EIP is at an STI, followed by the SYSEXIT. */
bool quick_sysexit(struct vm *vm, bool sti);
/* INT n, two bytes long, from CPL 3. */
bool quick_int(struct vm *vm, unsigned vector);
/* IRETD at CPL 0. */
bool quick_iret(struct vm *vm);
/* IN or OUT; operand: XLAT_PORT_* (translator/cpu.h). */
bool quick_port(struct vm *vm, uint32_t operand, bool write);
/* MOV to or from a device's memory (emu.c: by the emulator's decoded instructions). */
bool quick_mmio(struct vm *vm);
/* CPUID, two bytes long; the answer is kept for stub_cpuid. */
bool quick_cpuid(struct vm *vm);

/* After the segment register number seg was loaded at CPL 0: keeps what came out for stub_sreg, if it can be
 * repeated. window: for seg_window[]. */
void quick_remember_segment(struct vm *vm, unsigned seg, uint64_t window);
/* Before each entry into translated code: drops what was remembered under other tables or another CPU state.
 */
void quick_check_memory(struct cpu *c);

#endif
