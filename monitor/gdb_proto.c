/* monitor/gdb_proto.c: see gdb_proto.h. */
#include "monitor/gdb_proto.h"

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static enum gdb_input between(struct gdb_reader *r, uint8_t byte)
{
    switch (byte) {
    case '$':
        r->state = GDB_CONTENT;
        r->len = 0;
        r->sum = 0;
        r->lost = r->bad_digit = false;
        return GDB_INPUT_NONE;
    case 3:
        return GDB_INPUT_BREAK;
    case '+':
        return GDB_INPUT_ACK;
    case '-':
        return GDB_INPUT_NAK;
    default: /* line noise */
        return GDB_INPUT_NONE;
    }
}

static void keep(struct gdb_reader *r, uint8_t byte)
{
    if (r->len == GDB_PACKET_MAX)
        r->lost = true;
    else
        r->buf[r->len++] = byte;
}

static void sum_digit(struct gdb_reader *r, uint8_t byte)
{
    int d = digit((char)byte);
    r->bad_digit |= d < 0;
    r->told = (uint8_t)(r->told << 4 | (d & 15));
}

enum gdb_input gdb_feed(struct gdb_reader *r, uint8_t byte)
{
    switch (r->state) {
    case GDB_BETWEEN:
        return between(r, byte);
    case GDB_CONTENT:
        if (byte == '$') /* the frame before was broken off */
            return between(r, byte);
        if (byte == '#') {
            r->state = GDB_SUM_1;
            break;
        }
        r->sum = (uint8_t)(r->sum + byte);
        if (byte == '}')
            r->state = GDB_ESCAPE;
        else
            keep(r, byte);
        break;
    case GDB_ESCAPE:
        r->sum = (uint8_t)(r->sum + byte);
        keep(r, byte ^ 0x20);
        r->state = GDB_CONTENT;
        break;
    case GDB_SUM_1:
        sum_digit(r, byte);
        r->state = GDB_SUM_2;
        break;
    case GDB_SUM_2:
        sum_digit(r, byte);
        r->state = GDB_BETWEEN;
        r->buf[r->len] = 0;
        if (r->bad_digit || r->told != r->sum)
            return GDB_INPUT_DAMAGED;
        return r->lost ? GDB_INPUT_TOO_LONG : GDB_INPUT_PACKET;
    }
    return GDB_INPUT_NONE;
}

size_t gdb_frame(const void *content, size_t len, uint8_t out[GDB_FRAME_MAX])
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = content;
    uint8_t sum = 0, *p = out;
    *p++ = '$';
    for (size_t i = 0; i < len; i++) {
        uint8_t c = in[i];
        if (c == '$' || c == '#' || c == '}' || c == '*') {
            *p++ = '}';
            sum = (uint8_t)(sum + '}');
            c ^= 0x20;
        }
        *p++ = c;
        sum = (uint8_t)(sum + c);
    }
    *p++ = '#';
    *p++ = (uint8_t)digits[sum >> 4];
    *p++ = (uint8_t)digits[sum & 15];
    return (size_t)(p - out);
}

void gdb_put_hex(char *out, const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = bytes;
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[in[i] >> 4];
        *out++ = digits[in[i] & 15];
    }
    *out = 0;
}

bool gdb_get_hex(void *out, const char *text, size_t n)
{
    uint8_t *to = out;
    for (size_t i = 0; i < n; i++) {
        int high = digit(text[2 * i]), low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool gdb_get_number(const char **text, uint64_t *out)
{
    unsigned n = 0;
    int d;
    for (*out = 0; (d = digit(**text)) >= 0; ++*text, n++) {
        if (*out >> 60)
            return false;
        *out = *out << 4 | (unsigned)d;
    }
    return n != 0;
}

bool gdb_get_field(const char **text, char separator, uint64_t *out)
{
    return gdb_get_number(text, out) && *(*text)++ == separator;
}
