/* tools/load.h: a guest as plain data, parsed in a process of its own.
 *
 * The parsers of ISO, kernel and compression formats handle hostile input; they run in a child process that
 * hands plain data over in a memfd and is gone before the first guest instruction. The parent checks every
 * size and offset and parses nothing.
 */
#ifndef VERSO_TOOLS_LOAD_H
#define VERSO_TOOLS_LOAD_H

#include "monitor/run.h"
#include "tools/opt.h"

struct load_request {
    const char *iso;    /* or NULL */
    const char *entry;  /* boot entry of the ISO, NULL: the default one */
    const char *bios;   /* a ROM image: nothing else then; or NULL */
    const char *kernel; /* used if iso is NULL */
    struct opt_list initrd;
    const char *append;       /* for kernel; replaces that of the boot entry if given with an ISO */
    const char *append_extra; /* or NULL: added at the end */
    uint64_t ram_bytes;
};

enum { LOAD_SEGMENTS = 16, LOAD_CMDLINE = 2048, LOAD_MODULES = 16, LOAD_NAME = 256 };
struct load_guest {
    enum run_boot boot;
    const uint8_t *rom;
    size_t rom_len;
    struct run_segment segment[LOAD_SEGMENTS];
    unsigned segment_count;
    uint32_t entry;
    const uint8_t *setup_header, *initrd;
    size_t setup_header_len, initrd_len;
    struct run_module module[LOAD_MODULES]; /* the initrds, each for itself */
    unsigned module_count;
    const uint8_t *sections; /* as run_config.sections */
    size_t sections_len;
    uint32_t section_count, section_names;
    const char *cmdline;
    char title[256]; /* what was chosen, for messages */
    void *map;
    size_t map_len;
};

/* STATUS_OK or an exit status; a message has been printed then. */
int load_guest(const struct load_request *r, struct load_guest *out);
void load_guest_free(struct load_guest *g);

#endif
