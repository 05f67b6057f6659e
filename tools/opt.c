/* tools/opt.c: the option parser. Written by hand because getopt_long knows neither the help text nor the
 * fields. */
#include "tools/opt.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool opt_size(const char *text, uint64_t unit, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno)
        return false;
    switch (toupper((unsigned char)*end)) {
    case 'K':
        unit = 1ull << 10;
        end++;
        break;
    case 'M':
        unit = 1ull << 20;
        end++;
        break;
    case 'G':
        unit = 1ull << 30;
        end++;
        break;
    case 0:
        break;
    default:
        return false;
    }
    if (*end || (v && unit > (uint64_t)INT64_MAX / v))
        return false;
    *out = v * unit;
    return true;
}

static bool parse_uint(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 0);
    if (errno || *end)
        return false;
    *out = v;
    return true;
}

static const struct opt *find_long(const struct opt *table, const char *name, size_t len)
{
    for (const struct opt *o = table; o && o->kind != OPT_END; o++)
        if (strlen(o->name) == len && !memcmp(o->name, name, len))
            return o;
    return NULL;
}

static const struct opt *find_letter(const struct opt *table, char letter)
{
    for (const struct opt *o = table; o && o->kind != OPT_END; o++)
        if (o->letter && o->letter == letter)
            return o;
    return NULL;
}

/* Stores one option's value; value NULL for OPT_FLAG and OPT_OPTIONAL alone. */
static bool store(const struct cmd *cmd, const struct opt *o, void *dest, const char *value)
{
    void *field = (char *)dest + o->offset;
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)field = true;
        return true;
    case OPT_STRING:
        *(const char **)field = value;
        return true;
    case OPT_OPTIONAL:
        *(const char **)field = value ? value : "";
        return true;
    case OPT_UINT:
        if (parse_uint(value, field))
            return true;
        break;
    case OPT_SIZE:
        if (opt_size(value, 1ull << 20, field))
            return true;
        break;
    case OPT_LIST: {
        struct opt_list *l = field;
        if (l->count < sizeof(l->item) / sizeof(l->item[0])) {
            l->item[l->count++] = value;
            return true;
        }
        break;
    }
    case OPT_END:
        break;
    }
    fprintf(stderr, "verso %s: --%s: \"%s\" is not a valid %s\n", cmd->name, o->name, value,
            o->arg ? o->arg : "value");
    return false;
}

static bool takes_value(const struct opt *o)
{
    return o->kind != OPT_FLAG && o->kind != OPT_OPTIONAL;
}

/* Handles argv[i] (an option) and perhaps argv[i+1]; returns the number of words used, 0 on error. */
static int one(const struct cmd *cmd, void *dest, int argc, char **argv, int i)
{
    const char *w = argv[i], *value = NULL;
    const struct opt *o;
    if (w[1] == '-') {
        const char *eq = strchr(w, '=');
        o = find_long(cmd->opts, w + 2, eq ? (size_t)(eq - w - 2) : strlen(w + 2));
        value = eq ? eq + 1 : NULL;
    } else {
        o = find_letter(cmd->opts, w[1]);
        value = w[2] ? w + 2 : NULL;
    }
    if (!o) {
        fprintf(stderr, "verso %s: unknown option %s (verso %s --help lists them)\n", cmd->name, w,
                cmd->name);
        return 0;
    }
    if (value && o->kind == OPT_FLAG) {
        fprintf(stderr, "verso %s: --%s takes no value\n", cmd->name, o->name);
        return 0;
    }
    int used = 1;
    if (!value && takes_value(o)) {
        if (i + 1 >= argc) {
            fprintf(stderr, "verso %s: --%s needs a value (%s)\n", cmd->name, o->name, o->arg);
            return 0;
        }
        value = argv[i + 1];
        used = 2;
    }
    return store(cmd, o, dest, value) ? used : 0;
}

enum opt_result opt_parse(const struct cmd *cmd, void *dest, int *argc, char **argv)
{
    int kept = 0, n = *argc;
    for (int i = 0; i < n;) {
        char *w = argv[i];
        if (!strcmp(w, "--")) {
            for (i++; i < n; i++)
                argv[kept++] = argv[i];
            break;
        }
        if (w[0] != '-' || !w[1]) {
            argv[kept++] = w;
            i++;
            continue;
        }
        if (!strcmp(w, "--help")) {
            opt_help(cmd, stdout);
            return OPT_HELP;
        }
        int used = one(cmd, dest, n, argv, i);
        if (!used)
            return OPT_BAD;
        i += used;
    }
    *argc = kept;
    return OPT_DONE;
}

void opt_help(const struct cmd *cmd, FILE *to)
{
    fprintf(to, "usage: verso %s [options] %s\n%s\n", cmd->name, cmd->args, cmd->summary);
    if (cmd->opts && cmd->opts->kind != OPT_END)
        fprintf(to, "\noptions:\n");
    for (const struct opt *o = cmd->opts; o && o->kind != OPT_END; o++) {
        char left[80];
        char letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof(letter), "-%c, ", o->letter);
        if (o->kind == OPT_FLAG)
            snprintf(left, sizeof(left), "%s--%s", letter, o->name);
        else if (o->kind == OPT_OPTIONAL)
            snprintf(left, sizeof(left), "%s--%s[=%s]", letter, o->name, o->arg);
        else
            snprintf(left, sizeof(left), "%s--%s %s", letter, o->name, o->arg);
        fprintf(to, "  %-28s %s\n", left, o->help);
    }
    fprintf(to, "  %-28s %s\n", "    --help", "show this text");
    if (cmd->notes)
        fprintf(to, "\n%s\n", cmd->notes);
}
