/* tools/listing.h: a patched page as people read it: guest and host code side by side. */
#ifndef VERSO_TOOLS_LISTING_H
#define VERSO_TOOLS_LISTING_H

#include "scanner/scan.h"
#include "tools/json.h"

#include <stdint.h>
#include <stdio.h>

/* Where a page is shown from. Borrows all it points to. Large. */
struct listing {
    const uint8_t *recto; /* SCAN_PAGE_SIZE bytes */
    const uint8_t *code, *unwind;
    uint32_t code_len, unwind_len;
    uint32_t base; /* linear address of the page the listing is for */
    int32_t entries[SCAN_PAGE_SIZE]; /* filled by listing_init(), from unwind */
};
void listing_init(struct listing *l);

enum { LISTING_ALL = -1 };
/* mark: offset of a guest instruction; it is marked with '>', and only `around` guest instructions before and after it (in order of host
 * code) are shown. LISTING_ALL: the whole page. */
void listing_code(FILE *to, const struct listing *s, int mark, unsigned around);
/* An array "instructions" inside an object. */
void listing_json(struct json *j, const struct listing *s);

/* The most telling property of a byte of the attribute map as a character; the whole map. */
char listing_attr_char(uint8_t attr);
void listing_map(FILE *to, const uint8_t attr[SCAN_PAGE_SIZE]);

/* n bytes as digits into out (2 * max + 1 bytes); a '+' ends it where there are more than max. */
void listing_hex(const uint8_t *p, unsigned n, unsigned max, char *out);

#endif
