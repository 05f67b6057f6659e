/* monitor/gdb_proto.h: the framing of GDB's remote serial protocol (GDB manual, appendix E.1). Pure; knows no machine. */
#ifndef VERSO_MONITOR_GDB_PROTO_H
#define VERSO_MONITOR_GDB_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_PACKET_MAX 16384u                   /* bytes of a packet's content, in either direction */
#define GDB_FRAME_MAX  (2u * GDB_PACKET_MAX + 4u) /* the same with every byte escaped */

/* What a byte completed. */
enum gdb_input {
    GDB_INPUT_NONE,
    GDB_INPUT_PACKET, /* r->len bytes in r->buf, unescaped, a zero behind them */
    GDB_INPUT_DAMAGED, /* a packet with a wrong sum: to be asked for again */
    GDB_INPUT_TOO_LONG, /* a sound packet of more than GDB_PACKET_MAX bytes; its content is lost */
    GDB_INPUT_BREAK,  /* 03h between packets: stop the target */
    GDB_INPUT_ACK,
    GDB_INPUT_NAK, /* the last frame is wanted again */
};

struct gdb_reader {
    enum { GDB_BETWEEN, GDB_CONTENT, GDB_ESCAPE, GDB_SUM_1, GDB_SUM_2 } state;
    uint8_t buf[GDB_PACKET_MAX + 1];
    size_t len;
    uint8_t sum, told;
    bool bad_digit, lost;
};

/* Zeroed before the first byte. */
enum gdb_input gdb_feed(struct gdb_reader *r, uint8_t byte);
/* Content (at most GDB_PACKET_MAX bytes) as a frame; returns its length. */
size_t gdb_frame(const void *content, size_t len, uint8_t out[GDB_FRAME_MAX]);

/* 2n digits and a zero. */
void gdb_put_hex(char *out, const void *bytes, size_t n);
/* n bytes from 2n digits. False: no digits. */
bool gdb_get_hex(void *out, const char *text, size_t n);
/* A number of hexadecimal digits; moves *text behind it. False: none there, or above 64 bits. */
bool gdb_get_number(const char **text, uint64_t *out);
/* The number, and then that separator. */
bool gdb_get_field(const char **text, char separator, uint64_t *out);

#endif
