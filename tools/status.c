/* tools/status.c: from error codes of the libraries to exit statuses. */
#include "tools/status.h"

enum status status_of_image(enum image_code c)
{
    switch (c) {
    case IMAGE_OK:
        return STATUS_OK;
    case IMAGE_ERR_IO:
        return STATUS_IMAGE_IO;
    case IMAGE_ERR_NOT_ISO:
        return STATUS_IMAGE_NOT_ISO;
    case IMAGE_ERR_TRUNCATED:
        return STATUS_IMAGE_TRUNCATED;
    case IMAGE_ERR_NO_KERNEL:
        return STATUS_IMAGE_NO_KERNEL;
    case IMAGE_ERR_COMPRESSION:
        return STATUS_IMAGE_COMPRESSION;
    case IMAGE_ERR_ELF:
        return STATUS_IMAGE_ELF;
    case IMAGE_ERR_64BIT:
        return STATUS_IMAGE_64BIT;
    case IMAGE_ERR_FORMAT:
        return STATUS_IMAGE_FORMAT;
    case IMAGE_ERR_MEMORY:
        return STATUS_IMAGE_MEMORY;
    }
    return STATUS_IMAGE_FORMAT;
}

enum status status_of_cache(enum cache_code c)
{
    switch (c) {
    case CACHE_OK:
        return STATUS_OK;
    case CACHE_MISS:
        return STATUS_NOT_FOUND;
    case CACHE_REFUSED:
        return STATUS_DIFFERS;
    case CACHE_ERR_OPEN:
        return STATUS_CACHE_OPEN;
    case CACHE_ERR_NOT_CACHE:
        return STATUS_CACHE_NOT_CACHE;
    case CACHE_ERR_VERSION:
        return STATUS_CACHE_VERSION;
    case CACHE_ERR_TRUST:
        return STATUS_CACHE_TRUST;
    case CACHE_ERR_FULL:
        return STATUS_CACHE_FULL;
    case CACHE_ERR_IO:
        return STATUS_CACHE_IO;
    case CACHE_ERR_BUSY:
        return STATUS_CACHE_BUSY;
    case CACHE_ERR_MEMORY:
        return STATUS_CACHE_MEMORY;
    }
    return STATUS_CACHE_IO;
}

int status_of_run(const struct run_result *r)
{
    switch (r->end) {
    case RUN_POWER_OFF:
        return STATUS_OK;
    case RUN_RESET:
        return STATUS_RESET;
    case RUN_TRIPLE_FAULT:
        return STATUS_TRIPLE_FAULT;
    case RUN_EXIT_PORT:
        return r->exit_status & 0xFF;
    case RUN_QUIT:
        return STATUS_QUIT;
    case RUN_LOCKSTEP_DIFF:
        return STATUS_LOCKSTEP;
    case RUN_FAILED:
        return STATUS_HOST;
    }
    return STATUS_HOST;
}

const char *run_end_name(enum run_end e)
{
    switch (e) {
    case RUN_POWER_OFF:
        return "power-off";
    case RUN_RESET:
        return "reset";
    case RUN_TRIPLE_FAULT:
        return "triple-fault";
    case RUN_EXIT_PORT:
        return "exit-port";
    case RUN_QUIT:
        return "quit";
    case RUN_LOCKSTEP_DIFF:
        return "lockstep-difference";
    case RUN_FAILED:
        return "failed";
    }
    return "?";
}
