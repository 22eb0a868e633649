/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli.c: the `mlarena` command from outside: its four commands, help, JSON, drawings, bad arguments, and
 * how long a plan takes. What `run` makes of a step file is test_cli_run.c. */
#define _XOPEN_SOURCE 700

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <mlarena/mlarena.h>

#include "tests/support/command.h"

#define STEP MLAR_TEST_DATA_DIR "/dsv4-seed.safetensors"

/* The least that bench can do: one point of one kind. */
#define BRIEF_BENCH                                                                                          \
    "bench", "--device", "cpu", "--window", "16", "--heads", "2", "--batches", "2", "--replays", "1",        \
        "--strategy", "direct", "--bandwidth", "100"

static char directory[] = "/tmp/test_cli.XXXXXX";
static char path[256];

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(path, sizeof path, "%s/drawing.svg", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static json_t *read_json(const char *command) {
    json_error_t reason;
    json_t *root = json_loads(command_said.out, JSON_REJECT_DUPLICATES, &reason);
    if (root == NULL) fail_msg("%s: not JSON: %s\n%s", command_said.line, reason.text, command_said.out);
    assert_int_equal(json_integer_value(json_object_get(root, "schema")), 1);
    assert_string_equal(json_string_value(json_object_get(root, "command")), command);
    return root;
}

static void help_lists_what_there_is(void **state) {
    (void)state;
    static const struct {
        const char *command, *option, *not ;
    } rows[] = {{"plan", "--svg FILE", "--replays"},
                {"run", "--output FILE", "--preset"},
                {"bench", "--batches LIST", "--output"},
                {"doctor", "--isa NAME", "--budget"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int k = 0; k < 2; k++) {
            command_run(rows[i].command, k ? "-h" : "--help", NULL);
            command_must_exit(0);
            assert_non_null(strstr(command_said.out, rows[i].option));
            assert_non_null(strstr(command_said.out, "--json"));
            assert_null(strstr(command_said.out, rows[i].not ));
            assert_string_equal(command_said.err, "");
        }
    }
    command_run("--help", NULL);
    command_must_exit(0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_non_null(strstr(command_said.out, rows[i].command));
    command_run("--version", NULL);
    command_must_exit(0);
    assert_string_equal(command_said.out, "mlarena 0.1.0\n");
    command_run(NULL, NULL);
    command_must_exit(2); /* nothing was asked for: the usage, and a failure for scripts */
}

static void plan_answers_with_the_query(void **state) {
    (void)state;
    mlar_config config;
    mlar_memory memory = {.struct_size = sizeof memory};
    assert_int_equal(mlar_config_preset(&config, "dsv4-flash", 8, NULL), MLAR_OK);
    config.max_rows = 64;
    config.budget_bytes = 64u << 20;
    config.strategy = MLAR_STRATEGY_GATHER;
    assert_int_equal(mlar_memory_query(&config, &memory, NULL), MLAR_OK);

    command_run("plan", "--preset", "dsv4-flash", "--tp=8", "--rows", "64", "--budget", "64MiB", "--strategy",
                "gather", "--json", NULL);
    command_must_exit(0);
    json_t *root = read_json("plan");
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {{"device_bytes", memory.device_bytes},
                {"host_bytes", memory.host_bytes},
                {"lower_bound_bytes", memory.lower_bound_bytes},
                {"minimum_budget_bytes", memory.minimum_budget_bytes},
                {"max_rows", 64},
                {"heads", 8}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(json_integer_value(json_object_get(root, rows[i].key)), rows[i].value);
    assert_int_equal(json_array_size(json_object_get(root, "row_tile")), config.kind_count);
    for (size_t k = 0; k < (size_t)config.kind_count; k++)
        assert_int_equal(json_integer_value(json_array_get(json_object_get(root, "row_tile"), k)),
                         memory.row_tile[k]);
    assert_true(json_is_object(json_object_get(root, "plan")));
    json_decref(root);

    command_run("plan", "--preset", "dsv4-flash", "--tp", "8", "--rows", "64", "--budget", "64MiB",
                "--strategy", "gather", NULL);
    command_must_exit(0);
    assert_int_equal(command_number("arena      "), memory.device_bytes >> 20); /* in MiB, to people */
    char bytes[32];
    snprintf(bytes, sizeof bytes, "(%llu bytes)", (unsigned long long)memory.device_bytes);
    assert_non_null(strstr(command_said.out, bytes));

    char minimum[32];
    snprintf(minimum, sizeof minimum, "%llu", (unsigned long long)memory.minimum_budget_bytes - 1);
    command_refuses("needs at least", "plan", "--tp", "8", "--rows", "64", "--budget", minimum, "--strategy",
                    "gather", NULL);
    assert_int_equal(command_number("at least "), memory.minimum_budget_bytes);
}

/* The other three; bench says nothing in a pipe and shows where it is on a terminal. */
static void every_command_speaks_json(void **state) {
    (void)state;
    command_run("run", STEP, "--device", "cpu", "--json", NULL);
    command_must_exit(0);
    assert_string_equal(command_said.err, "");
    json_t *root = read_json("run");
    json_t *results = json_object_get(root, "results");
    assert_int_equal(json_array_size(results), 2);
    for (size_t i = 0; i < 2; i++) {
        json_t *one = json_array_get(results, i), *checks = json_object_get(one, "checks");
        assert_true(json_is_true(json_object_get(one, "pass")));
        assert_true(json_is_true(json_object_get(json_object_get(checks, "out"), "pass")));
        assert_true(json_is_true(json_object_get(json_object_get(checks, "out_bf16"), "pass")));
    }
    json_decref(root);

    command_run(BRIEF_BENCH, "--json", NULL);
    command_must_exit(0);
    assert_string_equal(command_said.err, "");
    root = read_json("bench");
    json_t *point = json_array_get(json_object_get(root, "points"), 0);
    assert_int_equal(json_integer_value(json_object_get(point, "rows")), 2);
    assert_true(json_real_value(json_object_get(point, "us")) > 0);
    assert_true(json_real_value(json_object_get(point, "relative_l2")) < 3e-3);
    json_decref(root);

    command_run("doctor", "--device", "cpu", "--json", NULL);
    command_must_exit(0);
    root = read_json("doctor");
    json_t *tests = json_object_get(root, "selftest");
    assert_int_equal(json_array_size(tests), 2);
    for (size_t i = 0; i < 2; i++)
        assert_true(json_is_true(json_object_get(json_array_get(tests, i), "pass")));
    json_t *offered = json_object_get(root, "cpu_kernels");
    assert_string_equal(json_string_value(json_array_get(offered, json_array_size(offered) - 1)), "scalar");
    json_decref(root);
}

static void progress_is_for_terminals(void **state) {
    (void)state;
    command_under.terminal = true;
    command_run(BRIEF_BENCH, NULL);
    command_under.terminal = false;
    command_must_exit(0);
    assert_non_null(strstr(command_said.err, "2 rows, direct"));
    assert_null(strstr(command_said.out, "\r"));
    command_run(BRIEF_BENCH, NULL);
    command_must_exit(0);
    assert_string_equal(command_said.err, "");
    assert_null(strstr(command_said.out, "\r"));
}

/* A drawing is a whole SVG document. */
static void check_drawing(void) {
    static char text[1 << 17];
    command_must_exit(0);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    text[bytes] = '\0';
    fclose(file);
    assert_true(strncmp(text, "<svg ", 5) == 0);
    assert_true(bytes > 500 && strcmp(text + bytes - 7, "</svg>\n") == 0);
    assert_null(strstr(text, "nan"));
    unlink(path);
}

static void drawings_are_whole(void **state) {
    (void)state;
    command_run("plan", "--rows", "8", "--svg", path, NULL);
    check_drawing();
    command_run(BRIEF_BENCH, "--svg", path, NULL);
    check_drawing();
    command_refuses("/nowhere/x.svg: ", "plan", "--svg", "/nowhere/x.svg", NULL);
}

static void bad_arguments_are_named(void **state) {
    (void)state;
    static const struct {
        const char *needle, *arguments[5];
    } rows[] = {
        {"'dance' is no command", {"dance"}},
        {"'--dance': no such option of 'plan'", {"plan", "--dance"}},
        {"'-o': no such option of 'plan'", {"plan", "-o", "x"}},
        {"'-x': no such option", {"run", STEP, "-x"}},
        {"--rows needs N", {"plan", "--rows"}},
        {"--rows: 'many' is not a whole number", {"plan", "--rows", "many"}},
        {"--rows: '-1' is not a whole number", {"plan", "--rows", "-1"}},
        {"--rows: '2147483648' is not a whole number", {"plan", "--rows", "2147483648"}},
        {"--rows: '1e3' is not a whole number", {"plan", "--rows=1e3"}},
        {"max_rows: 0 given, must be 1..65536", {"plan", "--rows", "0"}},
        {"max_rows: 65537 given, must be 1..65536", {"plan", "--rows", "65537"}},
        {"heads: 0 given, must be 1..128", {"plan", "--heads", "0"}},
        {"nope: 100 given", {"plan", "--nope", "100"}},
        {"width: 65537 given, must be 0..65536", {"plan", "--window", "65537"}},
        {"tp: 3 given, must be 1, 2, 4 or 8", {"plan", "--tp", "3"}},
        {"none is named 'gpt'", {"plan", "--preset", "gpt"}},
        {"no profile is named 'abacus'", {"plan", "--profile", "abacus"}},
        {"--layout: 'fp4'", {"plan", "--layout", "fp4"}},
        {"--budget: '12 apples' is not a size", {"plan", "--budget", "12 apples"}},
        {"--budget: '99999999999TiB' is not a size", {"plan", "--budget", "99999999999TiB"}},
        {"--budget: '-5' is not a size", {"plan", "--budget", "-5"}},
        {"guard_bytes: 100 given", {"plan", "--guard", "100"}},
        {"--json takes no value", {"plan", "--json=yes"}},
        {"plan takes no file ('x')", {"plan", "x"}},
        {"doctor takes no file", {"doctor", "x"}},
        {"bench takes no file", {"bench", "x"}},
        {"'b': one file is enough", {"run", "a", "b"}},
        {"run needs a step file", {"run"}},
        {"--strategy: 'luck'", {"run", STEP, "--strategy", "luck"}},
        {"--policy: 'random'", {"run", STEP, "--policy", "random"}},
        {"--device: 'abacus'", {"run", STEP, "--device", "abacus"}},
        {"--graph: 'maybe'", {"run", STEP, "--graph", "maybe"}},
        {"--update: 'never'", {"run", STEP, "--update", "never"}},
        {"--replays: 0 given", {"run", STEP, "--replays", "0"}},
        {"threads: 0 given, must be 1..256", {"run", STEP, "--threads", "0"}},
        {"cpu_isa: 'mmx' is unknown", {"run", STEP, "--device=cpu", "--isa", "mmx"}},
        {"splits: 65 given, must be 0..64", {"run", STEP, "--policy=invariant", "--splits", "65"}},
        {"--splits: needs --policy invariant", {"run", STEP, "--splits", "2"}},
        {"--isa: 'an-instruction-set-too-long' is unknown",
         {"doctor", "--device=cpu", "--isa", "an-instruction-set-too-long"}},
        {"--batches: '1,x'", {"bench", "--batches", "1,x"}},
        {"--batches: '4,'", {"bench", "--batches", "4,"}},
        {"--batches: '0'", {"bench", "--batches", "0"}},
        {"--queries: 0 given", {"bench", "--queries", "0"}},
        {"heads: 2147483647 given, must be 1..128", {"bench", "--heads", "2147483647"}},
        {"width: 2147483647 given", {"bench", "--window", "2147483647"}},
        {"a?b?[2J: cannot open", {"run", "a\nb\033[2J"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *const *a = rows[i].arguments;
        command_refuses(rows[i].needle, a[0], a[1], a[2], a[3], a[4], NULL);
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void a_full_disk_is_a_failure(void **state) {
    (void)state;
    static const char *const all[][3] = {
        {"--help"}, {"--version"}, {"run", "--help"}, {"plan"}, {"plan", "--json"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        command_under.full_disk = true;
        command_run(all[i][0], all[i][1], all[i][2], NULL);
        command_under.full_disk = false;
        command_must_exit(2);
        assert_string_equal(command_said.err, "mlarena: standard output: cannot be written\n");
    }
}

/* Processor time, so that a busy machine changes nothing: the whole process, its start included. */
static void plan_takes_less_than_10_ms(void **state) {
    (void)state;
    enum { RUNS = 9 };
    double times[RUNS];
    if (command_is_sanitized) skip();
    for (int i = 0; i < RUNS; i++) {
        command_run("plan", "--preset", "dsv4-pro", "--rows", "256", "--strategy", "gather", "--budget",
                    "64MiB", NULL);
        command_must_exit(0);
        times[i] = command_said.cpu_seconds;
    }
    qsort(times, RUNS, sizeof times[0], by_value);
    if (!(times[RUNS / 2] < 10e-3)) fail_msg("a plan takes %.1f ms", 1e3 * times[RUNS / 2]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_what_there_is),  cmocka_unit_test(plan_answers_with_the_query),
        cmocka_unit_test(every_command_speaks_json), cmocka_unit_test(progress_is_for_terminals),
        cmocka_unit_test(drawings_are_whole),        cmocka_unit_test(bad_arguments_are_named),
        cmocka_unit_test(a_full_disk_is_a_failure),  cmocka_unit_test(plan_takes_less_than_10_ms)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
