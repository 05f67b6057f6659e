/* scanner/image/unwind.c: where functions start, from .eh_frame (Linux Standard Base core 5.0, section 10.6).
 *
 * The best source there is for stripped programs: the compiler writes one record for each function.
 */
#include "scanner/image/elf.h"

enum { ENC_ABSPTR = 0, ENC_UDATA4 = 3, ENC_SDATA4 = 0x0B, ENC_PCREL = 0x10, ENC_OMIT = 0xFF };

static bool skip_leb(struct span s, uint64_t *off)
{
    uint8_t byte;

    do {
        if (!span_u8(s, (*off)++, &byte)) {
            return false;
        }
    } while (byte & 0x80);
    return true;
}

static unsigned encoded_size(uint8_t enc)
{
    static const uint8_t size[8] = {4, 0, 2, 4, 8, 0, 0, 0};

    return enc == ENC_OMIT ? 0 : size[enc & 7];
}

/* Reads the augmentation of the CIE in s: the encoding of its records' pointers, and whether it is of a
 * signal frame. */
static bool read_cie(struct span s, uint8_t *enc, bool *signal)
{
    uint8_t version, c, personality;
    uint64_t letters = 9, off;

    *enc = ENC_ABSPTR;
    *signal = false;
    if (!span_u8(s, 8, &version) || (version != 1 && version != 3)) {
        return false;
    }
    for (off = letters; span_u8(s, off, &c) && c != 0; off++) {
    }
    off++;
    for (unsigned i = 0; i < 2; i++) { /* alignment factors of code and data */
        if (!skip_leb(s, &off)) {
            return false;
        }
    }
    if (version == 1 ? !span_u8(s, off++, &c) : !skip_leb(s, &off)) {
        return false;
    }
    if (!span_u8(s, letters, &c) || c != 'z' || !skip_leb(s, &off)) {
        return c == 0;
    }
    while (span_u8(s, ++letters, &c) && c != 0) {
        if (c == 'R' && !span_u8(s, off++, enc)) {
            return false;
        } else if (c == 'L') {
            off++;
        } else if (c == 'P') {
            if (!span_u8(s, off, &personality)) {
                return false;
            }
            off += 1 + encoded_size(personality);
        } else if (c == 'S') {
            *signal = true;
        }
    }
    return true;
}

void elf_unwind_starts(struct span frames, uint32_t addr, struct code_map *m)
{
    uint32_t len, id, begin;
    uint64_t off = 0, known_cie = UINT64_MAX;
    uint8_t enc = 0;
    bool signal = false, usable = false;

    while (span_u32(frames, off, &len) && len != 0 && len != UINT32_MAX) {
        struct span record;
        if (!span_sub(frames, off, (uint64_t)len + 4, &record) || !span_u32(record, 4, &id)) {
            return;
        }
        if (id != 0 && id <= off + 4) { /* a record of one function; id is the distance back to its CIE */
            uint64_t cie = off + 4 - id;
            if (cie != known_cie) {
                uint32_t cie_len;
                struct span s;
                known_cie = cie;
                usable = span_u32(frames, cie, &cie_len) &&
                         span_sub(frames, cie, (uint64_t)cie_len + 4, &s) && read_cie(s, &enc, &signal) &&
                         encoded_size(enc) == 4 && (enc & 0x60) == 0;
            }
            if (usable && span_u32(record, 8, &begin)) {
                begin += (enc & 0x70) == ENC_PCREL ? addr + (uint32_t)off + 8 : 0;
                if (signal) { /* starts one byte early so that a return address in front of it is covered */
                    code_map_hint(m, begin);
                } else {
                    code_map_entry(m, begin);
                }
            }
        }
        off += (uint64_t)len + 4;
    }
}
