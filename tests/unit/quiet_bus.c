/* tests/unit/quiet_bus.c: see quiet_bus.h. */
#include "quiet_bus.h"

#include <stddef.h>

static uint64_t now(void *o)
{
    (void)o;
    return 0;
}
static void ignore_time(void *o, uint64_t t)
{
    (void)o, (void)t;
}
static void ignore_bool(void *o, bool v)
{
    (void)o, (void)v;
}
static void ignore(void *o)
{
    (void)o;
}
static void ignore_shadow(void *o, const uint8_t pam[7])
{
    (void)o, (void)pam;
}
static void ignore_int(void *o, int v)
{
    (void)o, (void)v;
}
static void ignore_byte(void *o, uint8_t v)
{
    (void)o, (void)v;
}
static void ignore_address(void *o, uint64_t a)
{
    (void)o, (void)a;
}
static bool no_read(void *o, uint64_t a, void *buf, size_t n)
{
    (void)o, (void)a, (void)buf, (void)n;
    return false;
}
static bool no_write(void *o, uint64_t a, const void *buf, size_t n)
{
    (void)o, (void)a, (void)buf, (void)n;
    return false;
}
static const struct dev_host_ops ops = {now,        ignore_time, ignore_bool, ignore_bool, ignore, ignore_bool,
                                        ignore_int, ignore_byte, ignore_byte, ignore,      ignore, ignore_address,
                                        no_read,    no_write, ignore_byte, ignore_shadow};

struct dev_bus *quiet_bus(uint64_t ram_bytes)
{
    return dev_bus_create(&ops, NULL, ram_bytes, 0);
}
