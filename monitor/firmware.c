/* monitor/firmware.c: the ROM, shadow RAM, resets.
 *
 * A machine started from a ROM image is reset like the real one. One that starts a kernel directly has a small ROM of its own (rom.S), so that
 * a reset ends somewhere: programs that go back to real mode by a reset find the way the PC/AT has for that, everything else is started
 * again.
 */
#include <string.h>

#include "monitor/boot.h"
#include "monitor/firmware.h"
#include "monitor/machine.h"
#include "monitor/trace.h"

#define ROM_SEGMENT 0xF000u
#define ROM_LOW     0xFF000u /* where the built-in ROM lies below 1 MiB */

const uint8_t *firmware_image(const struct machine *m, uint64_t *bytes)
{
    bool own = m->cfg->boot == RUN_BOOT_FIRMWARE;
    *bytes = own ? m->cfg->rom_len : FIRMWARE_ROM_SIZE;
    return own ? m->cfg->rom : firmware_rom;
}

static void vector(struct machine *m, unsigned n, const uint8_t *handler)
{
    uint16_t at[2] = {(uint16_t)(ROM_SEGMENT + (handler - firmware_rom)), ROM_SEGMENT};
    memcpy(m->vm.ram + 4 * n, at, sizeof(at));
}

void firmware_leave(struct machine *m)
{
    dev_shadow_open(m->vm.bus);
    memcpy(m->vm.ram + ROM_LOW, firmware_rom, FIRMWARE_ROM_SIZE);
    for (unsigned i = 0; i < 256; i++)
        vector(m, i, firmware_iret);
    for (unsigned i = 0; i < 8; i++) {
        vector(m, 0x08 + i, i ? firmware_irq_low : firmware_tick);
        vector(m, 0x70 + i, firmware_irq_high);
    }
}

static void forget_translations(struct machine *m)
{
    for (uint32_t pfn = 0; pfn < m->frames; pfn++)
        if (m->vm.code_pages[pfn])
            code_drop_page(m, pfn);
    window_reset_all(m);
    m->pf_pending = false;
}

void firmware_restart(struct machine *m)
{
    enum restart what = m->restart;
    m->restart = RESTART_NONE;
    COUNT(m, RESETS);
    TRACE(m, RESET, what);
    forget_translations(m);
    if (what == RESTART_RESET) {
        emu_reset(&m->vm);
        dev_bus_reset(m->vm.bus);
        vm_apic_base_changed(&m->vm);
    } else if (what == RESTART_INIT) {
        emu_init(&m->vm);
        dev_apic_init(m->vm.bus);
    } else {
        emu_init(&m->vm);
        dev_bus_setup(m->vm.bus);
        if (!boot_start(m, m->res->error, sizeof(m->res->error)))
            machine_end(m, RUN_FAILED);
    }
    vm_paging_changed(&m->vm, VM_FLUSH_ALL, gva(0));
}
