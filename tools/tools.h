/* tools/tools.h: what the subcommands share. */
#ifndef VERSO_TOOLS_TOOLS_H
#define VERSO_TOOLS_TOOLS_H

#include "cache/cache.h"
#include "tools/opt.h"
#include "tools/status.h"

#include <stdint.h>

extern const struct cmd cmd_prewarm, cmd_run, cmd_cache, cmd_trace;
/* Actions of `verso cache` that have a file of their own. */
extern const struct cmd cmd_cache_show, cmd_cache_verify;

/* Opens the cache at path, or the default one (its folder is made with mode 0700) if path is NULL. On failure
 * the message has been printed and *status set. */
struct cache *tools_cache_open(const char *path, unsigned flags, int *status)
    __attribute__((warn_unused_result));
/* Prints a cache error once; returns its exit status. */
int tools_cache_failed(const struct cache_error *err);
/* Closes c; a failure to write what was queued turns status 0 into the error's. */
int tools_cache_close(struct cache *c, int status);

/* "1.5 MiB" into buf (at least 16 bytes); returns buf. */
const char *tools_bytes(uint64_t n, char *buf);
uint64_t tools_now_ns(void);
unsigned tools_cpus(void);

/* A key as text: 32 hex digits of the hash, '/' mode ("s"/"u" with flags), at least TOOLS_KEY_TEXT bytes. */
enum { TOOLS_KEY_TEXT = 56 };
const char *tools_key_text(const struct cache_key *k, char *buf);
const char *tools_mode_text(uint32_t mode, char *buf); /* at least 16 bytes */

/* All images known to the cache, copied; free() the array. */
struct cache_image *tools_images(struct cache *c, size_t *count, struct cache_error *err);

/* "install" etc.: the boot entry called label, or the default one for NULL; NULL if there is none. */
const struct image_boot_entry *tools_boot_entry(const struct image_boot *b, const char *label);
/* Splits the comma-separated list of initrds: copies the next path into out and returns what follows, NULL at
 * the end. */
const char *tools_next_path(const char *list, char *out, size_t size);

#endif
