/* The framing of GDB's remote protocol: what is sent comes back, what is damaged is told, and nothing overruns. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/gdb_proto.h"

static uint64_t random_state = 0x6DB;
static uint64_t random_64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static struct gdb_reader reader;

/* Feeds a text; returns what its last byte completed. What is completed before is counted. */
static unsigned completed;
static enum gdb_input feed(const void *bytes, size_t n)
{
    enum gdb_input got = GDB_INPUT_NONE;
    completed = 0;
    for (size_t i = 0; i < n; i++) {
        got = gdb_feed(&reader, ((const uint8_t *)bytes)[i]);
        completed += got != GDB_INPUT_NONE;
    }
    return got;
}
#define FEED(text) feed(text, sizeof(text) - 1)

static void setup(void)
{
    memset(&reader, 0, sizeof(reader));
}

START_TEST(a_frame_gives_back_its_content)
{
    static uint8_t frame[GDB_FRAME_MAX], content[GDB_PACKET_MAX];
    for (unsigned round = 0; round < 300; round++) {
        size_t n = round == 0 ? 0 : round == 1 ? GDB_PACKET_MAX : random_64() % GDB_PACKET_MAX;
        for (size_t i = 0; i < n; i++)
            content[i] = round & 1 ? (uint8_t)"$#}*"[random_64() & 3] : (uint8_t)random_64();
        size_t len = gdb_frame(content, n, frame);
        ck_assert_uint_le(len, sizeof(frame));
        ck_assert_int_eq(feed(frame, len), GDB_INPUT_PACKET);
        ck_assert_uint_eq(completed, 1);
        ck_assert_uint_eq(reader.len, n);
        ck_assert_mem_eq(reader.buf, content, n);
        ck_assert_uint_eq(reader.buf[n], 0);
    }
}
END_TEST

START_TEST(what_lies_between_frames_has_its_meaning)
{
    ck_assert_int_eq(FEED("\3"), GDB_INPUT_BREAK);
    ck_assert_int_eq(FEED("+"), GDB_INPUT_ACK);
    ck_assert_int_eq(FEED("-"), GDB_INPUT_NAK);
    ck_assert_int_eq(FEED("noise#00}"), GDB_INPUT_NONE);
    ck_assert_uint_eq(completed, 0);
    ck_assert_int_eq(FEED("$a\3+-#bc"), GDB_INPUT_PACKET); /* inside they are content */
    ck_assert_uint_eq(completed, 1);
    ck_assert_mem_eq(reader.buf, "a\3+-", 4);
}
END_TEST

START_TEST(damage_is_told)
{
    ck_assert_int_eq(FEED("$g#67"), GDB_INPUT_PACKET);
    ck_assert_int_eq(FEED("$g#68"), GDB_INPUT_DAMAGED);
    ck_assert_int_eq(FEED("$g#6x"), GDB_INPUT_DAMAGED);
    ck_assert_int_eq(FEED("$g#x7"), GDB_INPUT_DAMAGED);
    ck_assert_int_eq(FEED("$g#67"), GDB_INPUT_PACKET); /* and forgotten */
    ck_assert_int_eq(FEED("$broken$g#67"), GDB_INPUT_PACKET);
    ck_assert_uint_eq(completed, 1);
    ck_assert_uint_eq(reader.len, 1);
}
END_TEST

START_TEST(a_packet_too_long_is_told_and_kept_out)
{
    static uint8_t text[3 * GDB_PACKET_MAX];
    for (size_t n = GDB_PACKET_MAX; n < sizeof(text) - 8; n += 5001) {
        uint8_t sum = 0;
        text[0] = '$';
        for (size_t i = 1; i <= n; i++)
            sum = (uint8_t)(sum + (text[i] = (uint8_t)('a' + i % 20)));
        text[n + 1] = '#';
        text[n + 2] = (uint8_t)"0123456789abcdef"[sum >> 4];
        text[n + 3] = (uint8_t)"0123456789abcdef"[sum & 15];
        ck_assert_int_eq(feed(text, n + 4), n == GDB_PACKET_MAX ? GDB_INPUT_PACKET : GDB_INPUT_TOO_LONG);
        ck_assert_uint_le(reader.len, GDB_PACKET_MAX);
    }
    ck_assert_int_eq(FEED("$g#67"), GDB_INPUT_PACKET);
}
END_TEST

START_TEST(random_bytes_do_no_harm)
{
    for (unsigned i = 0; i < 3000000; i++) {
        static const uint8_t likely[8] = "$#}*0a+\3";
        uint64_t r = random_64();
        (void)gdb_feed(&reader, r & 0x100 ? (uint8_t)r : likely[r & 7]);
        ck_assert_uint_le(reader.len, GDB_PACKET_MAX);
    }
}
END_TEST

START_TEST(hexadecimal_both_ways)
{
    char text[9];
    uint8_t bytes[4];
    gdb_put_hex(text, "\x01\xAB\x00\xFF", 4);
    ck_assert_str_eq(text, "01ab00ff");
    ck_assert(gdb_get_hex(bytes, "01AB00ff", 4));
    ck_assert_mem_eq(bytes, "\x01\xAB\x00\xFF", 4);
    ck_assert(!gdb_get_hex(bytes, "01ab00f", 4)); /* ends in the middle of a byte */
    ck_assert(!gdb_get_hex(bytes, "0g", 1));
    ck_assert(!gdb_get_hex(bytes, "", 1));
}
END_TEST

START_TEST(numbers)
{
    uint64_t n;
    const char *p = "c0de,4:xyz";
    ck_assert(gdb_get_field(&p, ',', &n));
    ck_assert_uint_eq(n, 0xC0DE);
    ck_assert(gdb_get_field(&p, ':', &n));
    ck_assert_uint_eq(n, 4);
    ck_assert_str_eq(p, "xyz");
    ck_assert(!gdb_get_number(&p, &n));
    p = "ffffffffffffffff";
    ck_assert(gdb_get_number(&p, &n));
    ck_assert_uint_eq(n, UINT64_MAX);
    p = "10000000000000000";
    ck_assert(!gdb_get_number(&p, &n));
    p = "12";
    ck_assert(!gdb_get_field(&p, ',', &n));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gdb_proto");
    TCase *t = tcase_create("framing");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_frame_gives_back_its_content);
    tcase_add_test(t, what_lies_between_frames_has_its_meaning);
    tcase_add_test(t, damage_is_told);
    tcase_add_test(t, a_packet_too_long_is_told_and_kept_out);
    tcase_add_test(t, random_bytes_do_no_harm);
    tcase_add_test(t, hexadecimal_both_ways);
    tcase_add_test(t, numbers);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
