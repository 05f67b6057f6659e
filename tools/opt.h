/* tools/opt.h: command-line options from one declarative table per command; help text comes from the same
 * table. */
#ifndef VERSO_TOOLS_OPT_H
#define VERSO_TOOLS_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum opt_kind {
    OPT_END = 0,
    OPT_FLAG,     /* bool */
    OPT_STRING,   /* const char * */
    OPT_UINT,     /* uint64_t */
    OPT_SIZE,     /* uint64_t, with suffix K, M or G; a plain number is MiB where the help says so */
    OPT_OPTIONAL, /* const char *: "" for --name alone, the value for --name=VALUE */
    OPT_LIST,     /* struct opt_list: may be given several times */
};

struct opt_list {
    const char *item[8];
    unsigned count;
};

/* One option. offset is that of its field in the command's options struct. letter 0: no short form. */
struct opt {
    const char *name;
    char letter;
    enum opt_kind kind;
    size_t offset;
    const char *arg; /* name of the argument in the help text */
    const char *help;
};

/* A command or a subcommand of one. run gets the words after the command's name. */
struct cmd {
    const char *name;
    const char *args; /* synopsis of what is no option */
    const char *summary;
    const struct opt *opts;
    int (*run)(const struct cmd *self, int argc, char **argv);
    const char *notes; /* more help, may be NULL */
};

enum opt_result { OPT_DONE, OPT_HELP, OPT_BAD };

/* Parses argv[0..*argc) into dest; what is no option is moved to the front of argv and *argc is set to its
 * number. "--" ends the options. OPT_HELP: the help has been printed; OPT_BAD: a message has been printed. */
enum opt_result opt_parse(const struct cmd *cmd, void *dest, int *argc, char **argv);
void opt_help(const struct cmd *cmd, FILE *to);
/* 1024-based size; false if malformed or beyond 2^63. Without suffix the number is multiplied by unit. */
bool opt_size(const char *text, uint64_t unit, uint64_t *out);

#endif
