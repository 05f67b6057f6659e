/* tools/json.h: a JSON writer of a few functions; strings are escaped, commas placed. */
#ifndef VERSO_TOOLS_JSON_H
#define VERSO_TOOLS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
    FILE *to;
    bool comma; /* the next element needs one in front */
};

/* key NULL: an element of an array, or the outermost value. */
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_end_object(struct json *j);
void json_end_array(struct json *j);
void json_string(struct json *j, const char *key, const char *value);
void json_u64(struct json *j, const char *key, uint64_t value);
void json_i64(struct json *j, const char *key, int64_t value);
void json_real(struct json *j, const char *key, double value);
void json_bool(struct json *j, const char *key, bool value);
void json_newline(struct json *j); /* ends a document or a line of JSON lines; flushes */

#endif
