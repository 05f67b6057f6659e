/* devices/dsdt.asl: what a guest cannot find by probing. Compiled by iasl at build time; acpi.c hands it out. */
DefinitionBlock ("dsdt.aml", "DSDT", 1, "VERSO ", "VERSOPC ", 0x00000001)
{
    /* Power-off: SLP_TYP 5 (acpi.c, SLP_TYP_S5). */
    Name (\_S5, Package (4) { 0x05, 0x05, 0x00, 0x00 })

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, 0x00)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0x0000, 0x0000, 0x0000, 0x0000, 0x0001)
                IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0000, 0x0CF7, 0x0000, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0D00, 0xFFFF, 0x0000, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0x00000000, 0xE0000000, 0xFEBFFFFF, 0x00000000, 0x1EC00000)
            })

            Device (RTC0)
            {
                Name (_HID, EisaId ("PNP0B00"))
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
                    IRQNoFlags () {8}
                })
            }

            Device (TIMR)
            {
                Name (_HID, EisaId ("PNP0100"))
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0040, 0x0040, 0x01, 0x04)
                    IRQNoFlags () {0}
                })
            }

            Device (KBD0)
            {
                Name (_HID, EisaId ("PNP0303"))
                Name (_STA, 0x0F)
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0060, 0x0060, 0x01, 0x01)
                    IO (Decode16, 0x0064, 0x0064, 0x01, 0x01)
                    IRQNoFlags () {1}
                })
            }

            Device (MOU0)
            {
                Name (_HID, EisaId ("PNP0F13"))
                Name (_STA, 0x0F)
                Name (_CRS, ResourceTemplate ()
                {
                    IRQNoFlags () {12}
                })
            }

            Device (COM1)
            {
                Name (_HID, EisaId ("PNP0501"))
                Name (_UID, 0x01)
                Name (_STA, 0x0F)
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
                    IRQNoFlags () {4}
                })
            }

            /* Firmware configuration (fw_cfg.c) */
            Device (FWCF)
            {
                Name (_HID, "QEMU0002")
                Name (_STA, 0x0B)
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0510, 0x0510, 0x01, 0x0C)
                })
            }

            /* Ports that belong to no other device: A20 and reset, debug console, exit, ELCR, PM block. */
            Device (SYSR)
            {
                Name (_HID, EisaId ("PNP0C02"))
                Name (_UID, 0x01)
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0092, 0x0092, 0x01, 0x01)
                    IO (Decode16, 0x00E9, 0x00E9, 0x01, 0x01)
                    IO (Decode16, 0x00F4, 0x00F4, 0x01, 0x04)
                    IO (Decode16, 0x04D0, 0x04D0, 0x01, 0x02)
                    IO (Decode16, 0x0600, 0x0600, 0x01, 0x0C)
                })
            }
        }
    }
}
