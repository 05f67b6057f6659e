/* tests/fuzz/ambiguous.h: did a guest depend on what the architecture leaves open?
 *
 * After a change of paging entries the processor may use the old ones or the new ones until they are
 * invalidated (SDM vol. 3, 4.10.2.3, 4.10.4.3); a repeated string instruction that overwrites itself may go
 * on or be fetched anew; accessed and dirty flags may be set in what is being executed or copied; and what FNSTENV,
 * FNSAVE and FXSAVE tell of the last x87 instruction may be lost. So two right machines may go different
 * ways. */
#ifndef VERSO_TESTS_FUZZ_AMBIGUOUS_H
#define VERSO_TESTS_FUZZ_AMBIGUOUS_H

#include "monitor/vm.h"

/* Runs the machine that is set up in vm by single emulated instructions, at most `limit`, until it halts,
 * shuts down or *stop is set. ref: as large as RAM, for use here. True: it did. */
bool fuzz_ambiguous(struct vm *vm, uint8_t *ref, uint64_t limit, const bool *stop);

#endif
