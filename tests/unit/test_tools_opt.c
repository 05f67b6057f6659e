/* Options, sizes, JSON and exit statuses of the command. */
#include "tools/json.h"
#include "tools/opt.h"
#include "tools/status.h"
#include "tools/tools.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

struct dest {
    bool flag;
    const char *text, *maybe;
    uint64_t number, size;
    struct opt_list list;
};
static const struct opt table[] = {
    {"flag", 'f', OPT_FLAG, offsetof(struct dest, flag), NULL, "a flag"},
    {"text", 't', OPT_STRING, offsetof(struct dest, text), "T", "a text"},
    {"maybe", 0, OPT_OPTIONAL, offsetof(struct dest, maybe), "M", "may have a value"},
    {"number", 'n', OPT_UINT, offsetof(struct dest, number), "N", "a number"},
    {"size", 'm', OPT_SIZE, offsetof(struct dest, size), "S", "a size"},
    {"list", 0, OPT_LIST, offsetof(struct dest, list), "L", "several"},
    {0},
};
static const struct cmd cmd = {.name = "test", .args = "", .summary = "a test", .opts = table};

static enum opt_result parse(struct dest *d, int *argc, const char *const words[], char *argv[])
{
    memset(d, 0, sizeof(*d));
    for (*argc = 0; words[*argc]; (*argc)++)
        argv[*argc] = (char *)(uintptr_t)words[*argc];
    return opt_parse(&cmd, d, argc, argv);
}
#define PARSE(d, argc, argv, ...) parse(d, argc, (const char *const[]){__VA_ARGS__, NULL}, argv)

START_TEST(opt_parse_mixed_words_keeps_positionals_in_order)
{
    struct dest d;
    int argc;
    char *argv[16];
    ck_assert_int_eq(PARSE(&d, &argc, argv, "a", "--flag", "b", "-t", "x", "--number=7", "--", "--c"),
                     OPT_DONE);
    ck_assert_int_eq(argc, 3);
    ck_assert_str_eq(argv[0], "a");
    ck_assert_str_eq(argv[1], "b");
    ck_assert_str_eq(argv[2], "--c");
    ck_assert(d.flag);
    ck_assert_str_eq(d.text, "x");
    ck_assert_uint_eq(d.number, 7);
}
END_TEST

START_TEST(opt_parse_optional_value_only_with_equals_sign)
{
    struct dest d;
    int argc;
    char *argv[16];
    ck_assert_int_eq(PARSE(&d, &argc, argv, "--maybe", "word"), OPT_DONE);
    ck_assert_str_eq(d.maybe, "");
    ck_assert_int_eq(argc, 1);
    ck_assert_int_eq(PARSE(&d, &argc, argv, "--maybe=json"), OPT_DONE);
    ck_assert_str_eq(d.maybe, "json");
}
END_TEST

START_TEST(opt_parse_short_option_takes_joined_value)
{
    struct dest d;
    int argc;
    char *argv[16];
    ck_assert_int_eq(PARSE(&d, &argc, argv, "-n12", "-m2G"), OPT_DONE);
    ck_assert_uint_eq(d.number, 12);
    ck_assert_uint_eq(d.size, 2ull << 30);
}
END_TEST

START_TEST(opt_parse_wrong_words_are_refused)
{
    static const char *const wrong[][3] = {
        {"--nothing"},   {"-z"},        {"--number"}, {"--number=x"}, {"--number=-1"},
        {"--flag=1"},    {"--size=1T"}, {"--size=G"}, {"--text"},     {"--size=99999999999G"},
        {"--number=7x"}, {"--flags"},   {"--fla"}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct dest d;
        int argc;
        char *argv[16];
        ck_assert_msg(parse(&d, &argc, wrong[i], argv) == OPT_BAD, "%s was taken", wrong[i][0]);
    }
}
END_TEST

START_TEST(opt_parse_list_beyond_its_room_is_refused)
{
    struct dest d;
    int argc;
    char *argv[16];
    ck_assert_int_eq(PARSE(&d, &argc, argv, "--list=1", "--list=2"), OPT_DONE);
    ck_assert_uint_eq(d.list.count, 2);
    ck_assert_str_eq(d.list.item[1], "2");
    ck_assert_int_eq(PARSE(&d, &argc, argv, "--list=1", "--list=2", "--list=3", "--list=4", "--list=5",
                           "--list=6", "--list=7", "--list=8", "--list=9"),
                     OPT_BAD);
}
END_TEST

START_TEST(opt_size_units)
{
    uint64_t v = 0;
    ck_assert(opt_size("512", 1 << 20, &v));
    ck_assert_uint_eq(v, 512ull << 20);
    ck_assert(opt_size("64k", 1 << 20, &v));
    ck_assert_uint_eq(v, 64 << 10);
    ck_assert(opt_size("0", 1 << 20, &v));
    ck_assert_uint_eq(v, 0);
    ck_assert(!opt_size("", 1, &v));
    ck_assert(!opt_size("-1", 1, &v));
    ck_assert(!opt_size("1KK", 1, &v));
}
END_TEST

START_TEST(json_strings_are_escaped)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    struct json j = {.to = f};
    json_object(&j, NULL);
    json_string(&j, "a\"b", "c\\d\n\xff");
    json_array(&j, "n");
    json_u64(&j, NULL, UINT64_MAX);
    json_i64(&j, NULL, -1);
    json_end_array(&j);
    json_bool(&j, "t", true);
    json_end_object(&j);
    json_newline(&j);
    fclose(f);
    ck_assert_str_eq(text,
                     "{\"a\\\"b\":\"c\\\\d\\u000a\\u00ff\",\"n\":[18446744073709551615,-1],\"t\":true}\n");
    free(text);
}
END_TEST

START_TEST(status_numbers_are_distinct_bytes)
{
    static const int numbers[] = {
#define STATUS(id, number, name, text) number,
        STATUS_TABLE(STATUS)
#undef STATUS
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        ck_assert_int_ge(numbers[i], 0);
        ck_assert_int_lt(numbers[i], 126); /* from 126 on they are the shell's */
        for (size_t k = 0; k < i; k++)
            ck_assert_int_ne(numbers[i], numbers[k]);
    }
}
END_TEST

START_TEST(status_of_every_library_error_is_its_own)
{
    bool seen[256] = {false};
    for (int c = IMAGE_ERR_IO; c <= IMAGE_ERR_MEMORY; c++) {
        int s = status_of_image((enum image_code)c);
        ck_assert_msg(s >= 20 && s < 30 && !seen[s], "image code %d gives %d", c, s);
        seen[s] = true;
    }
    for (int c = CACHE_ERR_OPEN; c <= CACHE_ERR_MEMORY; c++) {
        int s = status_of_cache((enum cache_code)c);
        ck_assert_msg(s >= 30 && s < 40 && !seen[s], "cache code %d gives %d", c, s);
        seen[s] = true;
    }
}
END_TEST

START_TEST(status_of_run_exit_port_is_passed_on)
{
    struct run_result r = {.end = RUN_EXIT_PORT, .exit_status = 33};
    ck_assert_int_eq(status_of_run(&r), 33);
    r.end = RUN_POWER_OFF;
    ck_assert_int_eq(status_of_run(&r), 0);
    r.end = RUN_TRIPLE_FAULT;
    ck_assert_int_eq(status_of_run(&r), 11);
}
END_TEST

START_TEST(tools_next_path_splits_and_ends)
{
    char out[8];
    const char *p = tools_next_path(",a,,/bc", out, sizeof(out));
    ck_assert_str_eq(out, "a");
    p = tools_next_path(p, out, sizeof(out));
    ck_assert_str_eq(out, "/bc");
    ck_assert_ptr_null(tools_next_path(p, out, sizeof(out)));
    ck_assert_ptr_nonnull(tools_next_path("0123456789", out, sizeof(out))); /* cut, not overrun */
    ck_assert_str_eq(out, "0123456");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tools");
    TCase *t = tcase_create("options");
    tcase_add_test(t, opt_parse_mixed_words_keeps_positionals_in_order);
    tcase_add_test(t, opt_parse_optional_value_only_with_equals_sign);
    tcase_add_test(t, opt_parse_short_option_takes_joined_value);
    tcase_add_test(t, opt_parse_wrong_words_are_refused);
    tcase_add_test(t, opt_parse_list_beyond_its_room_is_refused);
    tcase_add_test(t, opt_size_units);
    tcase_add_test(t, json_strings_are_escaped);
    tcase_add_test(t, status_numbers_are_distinct_bytes);
    tcase_add_test(t, status_of_every_library_error_is_its_own);
    tcase_add_test(t, status_of_run_exit_port_is_passed_on);
    tcase_add_test(t, tools_next_path_splits_and_ends);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
