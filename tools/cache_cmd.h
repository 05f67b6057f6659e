/* tools/cache_cmd.h: what the actions of `verso cache` share. */
#ifndef VERSO_TOOLS_CACHE_CMD_H
#define VERSO_TOOLS_CACHE_CMD_H

#include "tools/json.h"
#include "tools/tools.h"

/* Options of every action; an action's own options struct starts with it. */
struct cache_options {
    const char *cache;
    bool json;
};
#define CACHE_OPTIONS                                                                                        \
    {"cache",    0,                                                                                          \
     OPT_STRING, offsetof(struct cache_options, cache),                                                      \
     "FILE",     "the cache ($XDG_CACHE_HOME/verso/cache.db)"},                                              \
    {                                                                                                        \
        "json", 0, OPT_FLAG, offsetof(struct cache_options, json), NULL, "JSON on standard output"           \
    }

/* Parses the options and opens the cache; NULL: *status is the exit status (help shown, or failed). */
struct cache *cache_cmd_open(const struct cmd *self, void *options, unsigned flags, int *argc, char **argv,
                             int *status);

/* An image by number, exact name, or the only one whose name ends in it; 0 if none (a message has been
 * printed). */
int64_t cache_cmd_image(struct cache *c, const char *what, struct cache_image *out, int *status);
/* Records matching what: a hash (or the first 4 or more digits of it), or IMAGE:VADDR. At most max keys;
 * returns the number. */
size_t cache_cmd_keys(struct cache *c, const char *what, struct cache_key *keys, size_t max, int *status);

/* A key's fields, inside an object. */
void cache_cmd_json_key(struct json *j, const struct cache_key *k);

/* The translator's options a record of this fingerprint was made with; false if this build makes no such
 * records. */
bool cache_cmd_xlat_options(uint64_t fingerprint, uint32_t *options);

#endif
