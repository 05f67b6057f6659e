/* tools/json.c: the JSON writer (RFC 8259). */
#include "tools/json.h"

#include <inttypes.h>

static void quoted(FILE *to, const char *s)
{
    fputc('"', to);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20 ||
                 c >= 0x7F) /* names come from guest images in any encoding: bytes as U+0080..U+00FF */
            fprintf(to, "\\u%04x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

static void element(struct json *j, const char *key)
{
    if (j->comma)
        fputc(',', j->to);
    j->comma = true;
    if (key) {
        quoted(j->to, key);
        fputc(':', j->to);
    }
}

void json_object(struct json *j, const char *key)
{
    element(j, key);
    fputc('{', j->to);
    j->comma = false;
}

void json_array(struct json *j, const char *key)
{
    element(j, key);
    fputc('[', j->to);
    j->comma = false;
}

void json_end_object(struct json *j)
{
    fputc('}', j->to);
    j->comma = true;
}

void json_end_array(struct json *j)
{
    fputc(']', j->to);
    j->comma = true;
}

void json_string(struct json *j, const char *key, const char *value)
{
    element(j, key);
    quoted(j->to, value);
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
    element(j, key);
    fprintf(j->to, "%" PRIu64, value);
}

void json_i64(struct json *j, const char *key, int64_t value)
{
    element(j, key);
    fprintf(j->to, "%" PRId64, value);
}

void json_real(struct json *j, const char *key, double value)
{
    element(j, key);
    fprintf(j->to, "%.6g", value);
}

void json_bool(struct json *j, const char *key, bool value)
{
    element(j, key);
    fputs(value ? "true" : "false", j->to);
}

void json_newline(struct json *j)
{
    fputc('\n', j->to);
    fflush(j->to);
    j->comma = false;
}
