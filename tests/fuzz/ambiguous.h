/* tests/fuzz/ambiguous.h: did a guest depend on what the architecture leaves open?
 *
 * After a change of paging entries the processor may use the old ones or the new ones until they are
 * invalidated (SDM vol. 3, 4.10.2.3, 4.10.4.3), so two right machines may go different ways. */
#ifndef VERSO_TESTS_FUZZ_AMBIGUOUS_H
#define VERSO_TESTS_FUZZ_AMBIGUOUS_H

#include "monitor/vm.h"

/* Runs the machine that is set up in vm by single emulated instructions, at most `limit`, until it halts,
 * shuts down or *stop is set. ref: as large as RAM, for use here. True: an instruction ran between a change
 * of an entry in use and its invalidation. */
bool fuzz_ambiguous(struct vm *vm, uint8_t *ref, uint64_t limit, const bool *stop);

#endif
