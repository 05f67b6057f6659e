/* monitor/firmware.h: the ROM, and what happens at a reset. Internal to monitor/; included by rom.S too. */
#ifndef VERSO_MONITOR_FIRMWARE_H
#define VERSO_MONITOR_FIRMWARE_H

#define FIRMWARE_ROM_SIZE 4096 /* of the built-in ROM */
/* The built-in ROM asks for the boot at the port by which firmware is called (82371AB data sheet, 5.1.1: APM control). */
#define FIRMWARE_PORT 0xB2
#define FIRMWARE_BOOT 0x42

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine;

/* rom.S; the handlers lie in the ROM. */
extern const uint8_t firmware_rom[FIRMWARE_ROM_SIZE];
extern const uint8_t firmware_tick[], firmware_irq_low[], firmware_irq_high[], firmware_iret[];

/* The ROM of this machine, as configured or built in. */
const uint8_t *firmware_image(const struct machine *m, uint64_t *bytes);

/* What a firmware leaves that is no longer used: shadow RAM with the ROM in it and writable, interrupt vectors that lead there. */
void firmware_leave(struct machine *m);

/* Kinds of restart, the more thorough the greater. */
enum restart {
    RESTART_NONE,
    RESTART_INIT,  /* the processor alone, as by INIT# */
    RESTART_RESET, /* and all devices */
    RESTART_BOOT,  /* the built-in ROM asks for the kernel to be loaded and started */
};
/* Before the next guest instruction. Callable from devices, in light exits too (host.c). */
void firmware_request(struct machine *m, enum restart what);
/* Does what was requested. */
void firmware_restart(struct machine *m);

#endif
#endif
