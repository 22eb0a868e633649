/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plan_check.c: a checker is worth what it catches. Every kind of violation is planted in a good plan
 * and must be found, by name. */
#include "arena/plan_check.h"

#include <mlarena/status.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

enum { A, B, C, P, EMPTY, COUNT };
#define TOP ((uint64_t)1 << 63)

/* Written by hand, not by the planner. Guards of 64: P at 64, then A beside B, and C where A was. */
static const mlar_plan_request requests[COUNT] = {
    [A] = {"a", 100, 64, 0, 1},         [B] = {"b", 256, 64, 1, 2},
    [C] = {"c", 128, 64, 2, 3},         [P] = {"p", 64, 256, 0, MLAR_STAGE_FOREVER},
    [EMPTY] = {"empty", 0, 4096, 0, 9},
};

static mlar_plan good_plan(void) {
    mlar_plan plan = {
        .total_bytes = 1152,
        .lower_bound_bytes = 256 + 384,
        .sum_bytes = 128 + 256 + 128 + 256,
        .guard_bytes = 512,
        .guard_zone_bytes = 64,
        .align = 256,
        .count = COUNT,
        .stage_count = 10,
        .offsets = {[A] = 576, [B] = 832, [C] = 576, [P] = 256, [EMPTY] = 0},
    };
    memcpy(plan.requests, requests, sizeof requests);
    return plan;
}

static void expect_verdict(const mlar_plan *plan, const char *field, const char *word) {
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_status status = mlar_plan_check(requests, COUNT, plan, &diag);
    if (status != MLAR_ERROR_PLAN || strcmp(diag.field, field) != 0 || strstr(diag.message, word) == NULL) {
        print_error("expected %s ... %s, got %d %s: %s\n", field, word, status, diag.field, diag.message);
    }
    assert_int_equal(status, MLAR_ERROR_PLAN);
    assert_string_equal(diag.field, field);
    assert_non_null(strstr(diag.message, word));
    assert_int_equal(mlar_plan_check(requests, COUNT, plan, NULL), MLAR_ERROR_PLAN);
}

static void test_good_plan_passes(void **state) {
    (void)state;
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_plan plan = good_plan();
    mlar_status status = mlar_plan_check(requests, COUNT, &plan, &diag);
    if (status != MLAR_OK) print_error("%s\n", diag.message);
    assert_int_equal(status, MLAR_OK);
}

typedef struct offset_case {
    const char *why;
    int32_t buffer;
    uint64_t offset;
    const char *field, *word;
} offset_case;

static const offset_case offset_cases[] = {
    {"misaligned by one", A, 577, "a", "misaligned"},
    {"misaligned for P, fine for others", P, 320, "p", "misaligned"},
    {"the same place", B, 576, "b", "stage 1"},
    {"in the lower buffer's guard zone", B, 704, "b", "guard zone"},
    {"over the tail of the upper one", A, 768, "b", "stage 1"},
    {"no guard zone before the first", P, 0, "p", "in front"},
    {"past the end", B, 960, "b", "past the end"},
    {"far past the end", B, (TOP - 64), "b", "past the end"},
    {"end wraps around", B, UINT64_MAX - 63, "b", "past the end"},
    {"under a persistent buffer", C, 256, "p", "stage 2"},
    {"an empty buffer somewhere", EMPTY, 4096, "empty", "empty"},
};

static void test_planted_offsets(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof offset_cases / sizeof offset_cases[0]; i++) {
        mlar_plan plan = good_plan();
        plan.offsets[offset_cases[i].buffer] = offset_cases[i].offset;
        expect_verdict(&plan, offset_cases[i].field, offset_cases[i].word);
    }
}

static void test_one_byte_of_overlap(void **state) {
    (void)state;
    /* Alignment 1 and no guards: a single shared byte, on each side of the neighbour. */
    const mlar_plan_request pair[] = {{"low", 10, 1, 4, 4}, {"high", 10, 1, 4, 5}};
    mlar_plan plan = {.total_bytes = 20,
                      .lower_bound_bytes = 20,
                      .sum_bytes = 20,
                      .align = 1,
                      .count = 2,
                      .stage_count = 6,
                      .requests = {pair[0], pair[1]},
                      .offsets = {0, 10}};
    mlar_diag diag = {.struct_size = sizeof diag};
    assert_int_equal(mlar_plan_check(pair, 2, &plan, &diag), MLAR_OK);
    plan.offsets[1] = 9;
    plan.total_bytes = 19;
    assert_int_equal(mlar_plan_check(pair, 2, &plan, &diag), MLAR_ERROR_PLAN);
    assert_string_equal(diag.field, "high");
    plan.offsets[1] = 10;
    plan.offsets[0] = 1;
    plan.total_bytes = 20;
    assert_int_equal(mlar_plan_check(pair, 2, &plan, &diag), MLAR_ERROR_PLAN);
    assert_string_equal(diag.field, "high");
    assert_int_equal(diag.given, 10);
    assert_int_equal(diag.needed, 11);
}

static void test_planted_totals(void **state) {
    (void)state;
#define PLANT(member, value, word)                                                                           \
    do {                                                                                                     \
        mlar_plan plan = good_plan();                                                                        \
        plan.member = (value);                                                                               \
        expect_verdict(&plan, #member, word);                                                                \
    } while (0)
    PLANT(total_bytes, 1153, "size");
    PLANT(total_bytes, 1151, "size"); /* the guard zone behind the last buffer is one byte short */
    PLANT(total_bytes, TOP, "size");
    PLANT(total_bytes, UINT64_MAX, "size");
    PLANT(lower_bound_bytes, 639, "lower bound");
    PLANT(lower_bound_bytes, 641, "lower bound");
    PLANT(sum_bytes, 767, "sum");
    PLANT(guard_bytes, 513, "smaller than the lower bound");
    PLANT(guard_bytes, 383, "larger than the sum");
    PLANT(guard_bytes, 1153, "guard bytes");
    PLANT(align, 64, "alignment");
    PLANT(align, 4096, "alignment"); /* an empty buffer's alignment does not count */
    PLANT(stage_count, 9, "stages");
    PLANT(count, COUNT - 1, "buffers");
    PLANT(count, -1, "buffers");
    PLANT(count, INT32_MAX, "buffers");
#undef PLANT
    mlar_plan plan = good_plan();
    plan.guard_zone_bytes = 63;
    expect_verdict(&plan, "total_bytes", "size");
    plan.guard_zone_bytes = 65; /* one more than there is between p and what lies above it */
    expect_verdict(&plan, "a", "guard zone");
    plan.guard_zone_bytes = UINT64_MAX;
    expect_verdict(&plan, "a", "in front");
    plan.guard_zone_bytes = 0; /* then nothing may be called a guard */
    plan.total_bytes = 1088;
    expect_verdict(&plan, "guard_bytes", "guard bytes");
}

static void test_other_requests(void **state) {
    (void)state;
    mlar_plan plan = good_plan();
    plan.requests[B].bytes--;
    expect_verdict(&plan, "b", "another request");
    plan = good_plan();
    plan.requests[A].align = 32;
    expect_verdict(&plan, "a", "another request");
    plan = good_plan();
    plan.requests[C].first_stage = 1;
    expect_verdict(&plan, "c", "another request");
    plan = good_plan();
    plan.requests[P].last_stage = 3;
    expect_verdict(&plan, "p", "another request");
    plan = good_plan();
    plan.requests[P].name = "q";
    expect_verdict(&plan, "p", "another request");
}

static void test_invalid_requests(void **state) {
    (void)state;
    static const mlar_plan_request invalid[] = {
        {NULL, 1, 1, 0, 0},  {"x", 1, 0, 0, 0},   {"x", 1, 3, 0, 0},
        {"x", TOP, 1, 0, 0}, {"x", 1, TOP, 0, 0}, {"x", UINT64_MAX, 2, 0, 0},
        {"x", 1, 1, -1, 0},  {"x", 1, 1, 2, 1},   {"x", 1, 1, 1, MLAR_STAGE_FOREVER},
    };
    mlar_diag diag = {.struct_size = sizeof diag};
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++) {
        mlar_plan plan = {.count = 1, .align = 1, .requests = {invalid[i]}};
        assert_int_equal(mlar_plan_check(&invalid[i], 1, &plan, &diag), MLAR_ERROR_PLAN);
        assert_string_equal(diag.field, "requests");
    }
}

static void test_bad_calls(void **state) {
    (void)state;
    mlar_plan plan = good_plan();
    assert_int_equal(mlar_plan_check(requests, COUNT, NULL, NULL), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_plan_check(NULL, COUNT, &plan, NULL), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_plan_check(requests, -1, &plan, NULL), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_plan_check(requests, MLAR_PLAN_MAX_REQUESTS + 1, &plan, NULL), MLAR_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_plan_passes),    cmocka_unit_test(test_planted_offsets),
        cmocka_unit_test(test_one_byte_of_overlap), cmocka_unit_test(test_planted_totals),
        cmocka_unit_test(test_other_requests),      cmocka_unit_test(test_invalid_requests),
        cmocka_unit_test(test_bad_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
