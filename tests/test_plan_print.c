/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plan_print.c: the table and the JSON of a plan, character by character. */
#include "arena/plan_print.h"

#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

enum { TEXT_BYTES = 1 << 16 };

typedef struct text {
    size_t length;
    char chars[TEXT_BYTES];
} text;

static void append(void *context, const char *chars, size_t bytes) {
    text *t = context;
    assert_true(t->length + bytes < TEXT_BYTES);
    memcpy(t->chars + t->length, chars, bytes);
    t->length += bytes;
    t->chars[t->length] = '\0';
}

static const mlar_plan_request requests[] = {
    {"partial.out", 1572864, 256, 1, 2},
    {"counters", 64, 256, 0, MLAR_STAGE_FOREVER},
    {"gather.window", 1048600, 256, 0, 1},
    {"unused", 0, 256, 0, 0},
};
static const char *const stages[] = {"gather", "attend", "combine"};
static const char *const shapes[] = {"f32 [slots 96][heads 8][d_v 512]", "u64 invalid_indices", NULL, NULL};

static mlar_plan_view make_view(mlar_plan *plan, uint64_t guard) {
    assert_int_equal(mlar_plan_make(requests, 4, guard, plan, NULL), MLAR_OK);
    return (mlar_plan_view){.plan = plan, .stage_names = stages, .stage_name_count = 3, .shapes = shapes};
}

static void test_table(void **state) {
    (void)state;
    static text t;
    static mlar_plan plan;
    mlar_plan_view view = make_view(&plan, 0);
    t.length = 0;
    mlar_plan_print_table(&view, append, &t);
    assert_string_equal(
        t.chars,
        "buffer            offset      bytes        size  live             shape\n"
        "counters               0         64        64 B  always           u64 invalid_indices\n"
        "unused                 0          0         0 B  gather\n"
        "partial.out          256  1,572,864     1.5 MiB  attend..combine  f32 [slots 96][heads 8][d_v 512]\n"
        "gather.window  1,573,120  1,048,600     1.0 MiB  gather..attend\n"
        "total 2,621,952 bytes (2.5 MiB); lower bound 2,621,952 (reached); without sharing 2,621,952; guards "
        "0; "
        "base aligned to 256\n");
}

static void test_table_without_names(void **state) {
    (void)state;
    static text t;
    static mlar_plan plan;
    mlar_plan_view view = make_view(&plan, 256);
    view.stage_names = NULL;
    view.shapes = NULL;
    t.length = 0;
    mlar_plan_print_table(&view, append, &t);
    assert_non_null(strstr(t.chars, "  live\n"));
    assert_non_null(strstr(t.chars, "  1..2\n"));
    assert_non_null(strstr(t.chars, "; guards 1,024; "));
    assert_null(strstr(t.chars, "f32"));
    /* A stage past the names given is shown by its number. */
    view.stage_names = stages;
    view.stage_name_count = 2;
    t.length = 0;
    mlar_plan_print_table(&view, append, &t);
    assert_non_null(strstr(t.chars, "  attend..2\n"));
}

static void test_totals_above_the_bound(void **state) {
    (void)state;
    static text t;
    static mlar_plan plan;
    mlar_plan_view view = make_view(&plan, 0);
    plan.lower_bound_bytes -= 1000;
    t.length = 0;
    mlar_plan_print_table(&view, append, &t);
    assert_non_null(strstr(t.chars, "; lower bound 2,620,952 (passed by 1,000); "));
}

static void test_units(void **state) {
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *shown;
    } cases[] = {
        {0, " 0 B "},
        {1023, " 1023 B "},
        {1024, " 1.0 KiB "},
        {1536, " 1.5 KiB "},
        {1587, " 1.5 KiB "},
        {1588, " 1.6 KiB "},
        {2047, " 2.0 KiB "},
        {1048524, " 1023.9 KiB "},
        {1048525, " 1.0 MiB "}, /* not 1024.0 KiB */
        {(uint64_t)27 << 29, " 13.5 GiB "},
        {(uint64_t)1 << 40, " 1.0 TiB "},
        {INT64_MAX, " 8.0 EiB "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static text t;
        static mlar_plan plan;
        const mlar_plan_request request = {"b", cases[i].bytes, 1, 0, 0};
        assert_int_equal(mlar_plan_make(&request, 1, 0, &plan, NULL), MLAR_OK);
        const mlar_plan_view view = {.plan = &plan};
        t.length = 0;
        mlar_plan_print_table(&view, append, &t);
        if (strstr(t.chars, cases[i].shown) == NULL) print_error("%s", t.chars);
        assert_non_null(strstr(t.chars, cases[i].shown));
    }
}

static void test_json(void **state) {
    (void)state;
    static text t;
    static mlar_plan plan;
    mlar_plan_view view = make_view(&plan, 0);
    t.length = 0;
    mlar_plan_print_json(&view, append, &t);
    assert_string_equal(
        t.chars,
        "{\n"
        "  \"plan_schema\": 1,\n"
        "  \"total_bytes\": 2621952,\n"
        "  \"lower_bound_bytes\": 2621952,\n"
        "  \"sum_bytes\": 2621952,\n"
        "  \"guard_bytes\": 0,\n"
        "  \"guard_zone_bytes\": 0,\n"
        "  \"align_bytes\": 256,\n"
        "  \"stage_count\": 3,\n"
        "  \"stages\": [\"gather\", \"attend\", \"combine\"],\n"
        "  \"buffers\": [\n"
        "    {\"name\": \"partial.out\", \"offset_bytes\": 256, \"bytes\": 1572864, \"align_bytes\": 256, "
        "\"first_stage\": 1, \"last_stage\": 2, \"persistent\": false, "
        "\"shape\": \"f32 [slots 96][heads 8][d_v 512]\"},\n"
        "    {\"name\": \"counters\", \"offset_bytes\": 0, \"bytes\": 64, \"align_bytes\": 256, "
        "\"first_stage\": 0, \"last_stage\": 2, \"persistent\": true, \"shape\": \"u64 invalid_indices\"},\n"
        "    {\"name\": \"gather.window\", \"offset_bytes\": 1573120, \"bytes\": 1048600, \"align_bytes\": "
        "256, "
        "\"first_stage\": 0, \"last_stage\": 1, \"persistent\": false},\n"
        "    {\"name\": \"unused\", \"offset_bytes\": 0, \"bytes\": 0, \"align_bytes\": 256, "
        "\"first_stage\": 0, \"last_stage\": 0, \"persistent\": false}\n"
        "  ]\n"
        "}");
}

static void test_json_escapes(void **state) {
    (void)state;
    static text t;
    static mlar_plan plan;
    const mlar_plan_request request = {"a\"b\\c\n\x1f\xc3\xa9", 1, 1, 0, 0};
    assert_int_equal(mlar_plan_make(&request, 1, 0, &plan, NULL), MLAR_OK);
    const mlar_plan_view view = {.plan = &plan};
    t.length = 0;
    mlar_plan_print_json(&view, append, &t);
    assert_non_null(strstr(t.chars, "{\"name\": \"a\\\"b\\\\c\\u000a\\u001f\xc3\xa9\", "));
    assert_non_null(strstr(t.chars, "\"stages\": [],"));
}

static void test_empty_plan(void **state) {
    (void)state;
    static text t;
    static mlar_plan plan;
    assert_int_equal(mlar_plan_make(NULL, 0, 0, &plan, NULL), MLAR_OK);
    const mlar_plan_view view = {.plan = &plan};
    t.length = 0;
    mlar_plan_print_table(&view, append, &t);
    assert_non_null(strstr(t.chars, "total 0 bytes (0 B); lower bound 0 (reached)"));
    t.length = 0;
    mlar_plan_print_json(&view, append, &t);
    assert_non_null(strstr(t.chars, "\"buffers\": []\n}"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_without_names),
        cmocka_unit_test(test_totals_above_the_bound),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_escapes),
        cmocka_unit_test(test_empty_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
