/* monitor/boot.h: the memory of a machine that starts without a firmware, as a firmware would leave it. Internal to monitor/. */
#ifndef VERSO_MONITOR_BOOT_H
#define VERSO_MONITOR_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "monitor/run.h"

struct machine;

/* What INT 15h, AX=E820h would say of the first 4 GiB. Types: 1 usable, 2 reserved. */
struct boot_range {
    uint64_t base, len;
    uint32_t type;
};
enum { BOOT_RANGES = 4 };
void boot_memory_map(uint64_t ram_bytes, struct boot_range map[BOOT_RANGES]);

/* Places what cfg describes in RAM and sets the vCPU to its start. Called at power-on and when the boot is asked for again after a reset.
 * False: *err says why; RAM may have been written. */
bool boot_start(struct machine *m, char *err, size_t err_size);

/* multiboot.c: places kernel, modules, section headers and the information block (Multiboot 0.6.96, 3.3) in ram; *info receives the
 * block's physical address. Pure: depends on its arguments only. */
bool multiboot_place(const struct run_config *cfg, uint8_t *ram, uint64_t ram_bytes, uint32_t *info, char *err, size_t err_size);

#endif
