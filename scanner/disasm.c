/* scanner/disasm.c: Zydis, for people and as a second opinion; never on the scanning path.
 *
 * Zydis 4.0.0 is asked for the length and validity only where it serves as an oracle; its flag data is not
 * used.
 */
#include "scanner/scan.h"

#include <Zydis/Zydis.h>
#include <stdio.h>

/* Widths that Zydis knows for bits; false if there is none. */
static bool decoder_init(ZydisDecoder *d, unsigned bits)
{
    ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                            : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                         : ZYDIS_MACHINE_MODE_LEGACY_16;
    ZydisStackWidth width = bits == 64   ? ZYDIS_STACK_WIDTH_64
                            : bits == 32 ? ZYDIS_STACK_WIDTH_32
                                         : ZYDIS_STACK_WIDTH_16;

    if (bits != 16 && bits != 32 && bits != 64)
        return false;
    return ZYAN_SUCCESS(ZydisDecoderInit(d, mode, width));
}

static bool disassemble(const uint8_t *p, size_t avail, unsigned bits, uint32_t eip, char *text, size_t size,
                        unsigned *len)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

    if (!decoder_init(&decoder, bits) ||
        ZYAN_FAILED(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)) ||
        ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, p, avail, &insn, operands)) ||
        ZYAN_FAILED(ZydisFormatterFormatInstruction(&formatter, &insn, operands, insn.operand_count_visible,
                                                    text, size, eip, NULL)))
        return false;
    *len = insn.length;
    return true;
}

unsigned scan_disassemble(const uint8_t *p, size_t avail, unsigned bits, uint32_t eip, char *text,
                          size_t size)
{
    unsigned len = 0;

    if (!size)
        return 0;
    if (disassemble(p, avail, bits, eip, text, size, &len))
        return len;
    snprintf(text, size, ".byte");
    return 0;
}

unsigned scan_zydis_length(const uint8_t *p, size_t avail, unsigned bits)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;

    if ((bits != 16 && bits != 32) || !decoder_init(&decoder, bits) ||
        ZYAN_FAILED(ZydisDecoderDecodeInstruction(&decoder, NULL, p, avail, &insn)))
        return 0;
    return insn.length;
}
