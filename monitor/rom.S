/* monitor/rom.S: the ROM of machines that have no firmware image: 4 KiB at the end of the address space and, as shadow, at F000:F000.
 *
 * It does what a PC's firmware does to programs that use no firmware: it answers interrupts, and after a reset it goes on where the shutdown
 * status of the CMOS says (IBM PC/AT Technical Reference, "Shutdown status byte"), or asks for the boot again (firmware.c).
 */
#include "monitor/firmware.h"

        .section .rodata
        .globl  firmware_rom, firmware_tick, firmware_irq_low, firmware_irq_high, firmware_iret
        .balign 16
        .code16
firmware_rom:
        .fill   0xE00, 1, 0xFF

/* IRQ 0: the tick count at 40:6C, in which a day has 1,573,040 ticks; INT 1Ch for whoever wants them. */
firmware_tick:
        pushw   %ax
        pushw   %ds
        xorw    %ax, %ax
        movw    %ax, %ds
        incl    0x46C
        cmpl    $1573040, 0x46C
        jb      1f
        movl    $0, 0x46C
        incb    0x470
1:      int     $0x1C
        popw    %ds
        jmp     2f
firmware_irq_low:
        pushw   %ax
2:      movb    $0x20, %al
        outb    %al, $0x20
        popw    %ax
firmware_iret:
        iretw
firmware_irq_high:
        pushw   %ax
        movb    $0x20, %al
        outb    %al, $0xA0
        outb    %al, $0x20
        popw    %ax
        iretw

/* The shutdown status counts once. 5: end of interrupt, then on at the address at 40:67; 0Ah: on at that address. */
reset:
        cli
        cld
        movb    $0x0F, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movb    %al, %ah
        movb    $0x0F, %al
        outb    %al, $0x70
        xorb    %al, %al
        outb    %al, $0x71
        cmpb    $0x0A, %ah
        je      2f
        cmpb    $0x05, %ah
        je      1f
        movb    $FIRMWARE_BOOT, %al
        outb    %al, $FIRMWARE_PORT
3:      hlt
        jmp     3b
1:      movb    $0x20, %al
        outb    %al, $0xA0
        outb    %al, $0x20
2:      xorw    %ax, %ax
        movw    %ax, %ds
        ljmpw   *0x467

        .org    firmware_rom + 0xFF0
        ljmpw   $0xF000, $0xF000 + (reset - firmware_rom)
        .org    firmware_rom + FIRMWARE_ROM_SIZE

        .section .note.GNU-stack, "", @progbits
