/* tools/main.c: the verso command: a table of subcommands. */
#include "tools/tools.h"

#include <stdlib.h>
#include <string.h>

#ifndef VERSO_VERSION
#define VERSO_VERSION "0"
#endif

static const struct cmd *const commands[] = {&cmd_prewarm, &cmd_run, &cmd_cache, &cmd_trace};

static void help(FILE *to)
{
    fprintf(
        to,
        "usage: verso COMMAND [options] ...\n"
        "Runs 32-bit x86 guests inside an ordinary process, from a cache of patched pages.\n\ncommands:\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(
        to,
        "\nverso COMMAND --help shows the options of one; verso --version the version.\n\nexit statuses:\n");
#define STATUS(id, number, name, text) fprintf(to, "  %3d  %-18s %s\n", number, name, text);
    STATUS_TABLE(STATUS)
#undef STATUS
    fprintf(
        to,
        "  A guest that writes the exit device (port F4h) chooses its own status, value*2+1 modulo 256.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return STATUS_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        help(stdout);
        return STATUS_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("verso %s\n", VERSO_VERSION);
        return STATUS_OK;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(argv[1], commands[i]->name))
            return commands[i]->run(commands[i], argc - 2, argv + 2);
    fprintf(stderr, "verso: unknown command \"%s\" (verso --help lists them)\n", argv[1]);
    return STATUS_USAGE;
}
