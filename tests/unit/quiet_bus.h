/* tests/unit/quiet_bus.h: all devices, of a machine whose time stands still and that nobody listens to. */
#ifndef VERSO_TESTS_QUIET_BUS_H
#define VERSO_TESTS_QUIET_BUS_H

#include "devices/bus.h"

/* The caller destroys it. NULL: out of memory. */
struct dev_bus *quiet_bus(uint64_t ram_bytes);

#endif
