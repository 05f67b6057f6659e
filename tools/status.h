/* tools/status.h: the exit statuses of the verso command, one table.
 *
 * STATUS(id, number, name, meaning). Numbers are a promise to scripts: never reuse one.
 * A guest that ends through the exit device (port F4h) chooses its own status, value*2+1; it is passed on as
 * it is (modulo 256), and may equal a number below. Where that matters read "end" of `verso run
 * --stats=json`, which says "exit-port" then; nothing is renumbered, because test suites expect their own
 * value.
 */
#ifndef VERSO_TOOLS_STATUS_H
#define VERSO_TOOLS_STATUS_H

#include "cache/cache.h"
#include "monitor/run.h"
#include "scanner/image/image.h"

#define STATUS_TABLE(STATUS)                                                                                 \
    STATUS(OK, 0, "ok", "success; for run: the guest powered off")                                           \
    STATUS(USAGE, 2, "usage", "wrong command line")                                                          \
    STATUS(IO, 3, "io", "a file other than guest image and cache cannot be read or written")                 \
    STATUS(DIFFERS, 4, "differs", "cache verify: a record differs, is damaged or is not provably safe")      \
    STATUS(NOT_FOUND, 5, "not-found", "no such image, record or boot entry")                                 \
    STATUS(TRACE, 6, "trace", "trace: the file is no trace, or parts of it are damaged or missing")          \
    STATUS(RESET, 10, "reset", "the guest reset the machine")                                                \
    STATUS(TRIPLE_FAULT, 11, "triple-fault", "the guest's processor shut down (triple fault)")               \
    STATUS(QUIT, 12, "quit", "ended by the user's escape key or a termination signal")                       \
    STATUS(LOCKSTEP, 13, "lockstep", "translated code and emulator differ")                                  \
    STATUS(HOST, 14, "host", "the host lacks something the machine needs, or the machine could not start")   \
    STATUS(SANDBOX, 15, "sandbox", "internal error: a system call that is forbidden while a guest runs")     \
    STATUS(IMAGE_IO, 20, "image-io", "guest image: cannot be read")                                          \
    STATUS(IMAGE_NOT_ISO, 21, "image-not-iso", "guest image: neither an ISO nor a kernel nor an ELF file")   \
    STATUS(IMAGE_TRUNCATED, 22, "image-truncated", "guest image: truncated")                                 \
    STATUS(IMAGE_NO_KERNEL, 23, "image-no-kernel", "guest image: no boot entry names a kernel")              \
    STATUS(IMAGE_COMPRESSION, 24, "image-compression", "guest image: unknown or damaged compression")        \
    STATUS(IMAGE_ELF, 25, "image-elf", "guest image: damaged ELF file")                                      \
    STATUS(IMAGE_64BIT, 26, "image-64bit", "guest image: a 64-bit kernel")                                   \
    STATUS(IMAGE_FORMAT, 27, "image-format", "guest image: malformed otherwise")                             \
    STATUS(IMAGE_MEMORY, 28, "image-memory", "guest image: not enough memory to read it, or RAM too small")  \
    STATUS(CACHE_OPEN, 30, "cache-open", "cache: cannot be opened or created")                               \
    STATUS(CACHE_NOT_CACHE, 31, "cache-not-cache", "cache: the file is something else")                      \
    STATUS(CACHE_VERSION, 32, "cache-version", "cache: written by another format version")                   \
    STATUS(CACHE_TRUST, 33, "cache-trust", "cache: others could write it")                                   \
    STATUS(CACHE_FULL, 34, "cache-full", "cache: disk or quota full; what was reported stored stays")        \
    STATUS(CACHE_IO, 35, "cache-io", "cache: I/O or database error")                                         \
    STATUS(CACHE_BUSY, 36, "cache-busy", "cache: locked by another process for too long")                    \
    STATUS(CACHE_MEMORY, 37, "cache-memory", "cache: out of memory")

enum status {
#define STATUS(id, number, name, text) STATUS_##id = number,
    STATUS_TABLE(STATUS)
#undef STATUS
};

enum status status_of_image(enum image_code c);
enum status status_of_cache(enum cache_code c);
/* The status of an ended run; RUN_EXIT_PORT: the guest's own, modulo 256. */
int status_of_run(const struct run_result *r);
const char *run_end_name(enum run_end e);

#endif
