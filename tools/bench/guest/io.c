/* tools/bench/guest/io.c: what leaves for a device or for the processor's identity. Ports and MMIO in the
 * guest only. */
#include "bench.h"

#include <fcntl.h>
#include <sys/io.h>
#include <sys/mman.h>

#ifdef __i386__
enum { PORT_DELAY = 0x80, PORT_SPEAKER = 0x61, VGA = 0xA0000 };

static uint32_t port_out(uint32_t n)
{
    if (iopl(3))
        return BENCH_UNAVAILABLE;
    while (n--)
        outb(0, PORT_DELAY);
    return 0;
}

static uint32_t port_in(uint32_t n)
{
    if (iopl(3))
        return BENCH_UNAVAILABLE;
    while (n--)
        (void)inb(PORT_SPEAKER);
    return 0;
}

/* A write to the legacy video aperture, which is no RAM on either machine. */
static uint32_t mmio(uint32_t n)
{
    static volatile uint32_t *vga;
    if (!vga) {
        int fd = open("/dev/mem", O_RDWR | O_SYNC);
        void *p = fd < 0 ? MAP_FAILED : mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, VGA);
        if (p == MAP_FAILED)
            return BENCH_UNAVAILABLE;
        vga = p;
    }
    while (n--)
        vga[16] = n;
    return 0;
}
#else
static uint32_t unavailable(uint32_t n)
{
    (void)n;
    return BENCH_UNAVAILABLE;
}
#define port_out unavailable
#define port_in  unavailable
#define mmio     unavailable
#endif

static uint32_t cpuid(uint32_t n)
{
    while (n--) {
        uint32_t a = 1, b, c = 0, d;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    }
    return 0;
}

static uint32_t rdtsc(uint32_t n)
{
    while (n--) {
        uint32_t lo, hi;
        __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    }
    return 0;
}

const struct bench bench_io[] = {{"io.port_out", port_out}, {"io.port_in", port_in}, {"io.mmio", mmio},
                                 {"io.cpuid", cpuid},       {"io.rdtsc", rdtsc},     {0}};
