/* SPDX-License-Identifier: Apache-2.0
 *
 * test_compare.c: the comparer accepts what SPEC accepts and nothing more. Small tensors made here put one
 * value on either side of each bound; the shipped files show that rounding the expected result is always
 * accepted. */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/stepfile/compare.h"

#define ROWS      2
#define HEADS     3
#define DIM       100
#define COUNT     (ROWS * HEADS * DIM)
#define QUERY_DIM 4

static double expected[COUNT], computed[COUNT];
static float lse_expected[ROWS * HEADS], lse_computed[ROWS * HEADS];
static uint16_t query[ROWS * HEADS * QUERY_DIM];
static const compare_shape shape = {.rows = ROWS, .heads = HEADS, .d_v = DIM, .d_qk = QUERY_DIM, .q = query};
static compare_result result;

static uint64_t at(uint32_t row, uint32_t head, uint32_t element) {
    return ((uint64_t)row * HEADS + head) * DIM + element;
}

static bool compare_doubles(void) {
    const compare_array a = {computed, COMPARE_F64}, b = {expected, COMPARE_F64};
    return compare_out(&shape, a, b, &result);
}

/* Every head holds 1 and halves: 1 is its largest magnitude. */
static int reset(void **state) {
    (void)state;
    for (int i = 0; i < COUNT; i++) computed[i] = expected[i] = i % DIM == 0 ? 1 : i % 2 ? 0.5 : -0.5;
    for (int i = 0; i < ROWS * HEADS; i++) lse_computed[i] = lse_expected[i] = (float)i;
    memset(query, 0, sizeof query);
    return 0;
}

static void expect_place(uint32_t row, int64_t head, int64_t entry, int64_t element, const char *rule) {
    assert_false(result.pass);
    assert_string_equal(result.rule, rule);
    assert_int_equal(result.row, row);
    assert_int_equal(result.head, head);
    assert_int_equal(result.entry, entry);
    assert_int_equal(result.element, element);
}

/* -- out. -------------------------------------------------------------------------------------------- */

static void equal_tensors_pass(void **state) {
    (void)state;
    assert_true(compare_doubles());
    assert_true(result.checked && result.pass);
    assert_int_equal(result.compared, COUNT);
    assert_int_equal(result.unspecified, 0);
    assert_true(result.relative_l2 == 0 && result.max_abs == 0 && result.cosine_difference == 0);

    memset(expected, 0, sizeof expected); /* no division by the norm of nothing */
    memset(computed, 0, sizeof computed);
    assert_true(compare_doubles());
    computed[5] = 2e-3;
    assert_false(compare_doubles());
}

/* One element moved by `step` from `value` in a head whose largest magnitude is `largest`. */
static bool one_element(double largest, double value, double step) {
    reset(NULL);
    for (uint32_t d = 0; d < DIM; d++) expected[at(1, 2, d)] = computed[at(1, 2, d)] = 0;
    expected[at(1, 2, 0)] = computed[at(1, 2, 0)] = largest;
    expected[at(1, 2, 7)] = value;
    computed[at(1, 2, 7)] = value + step;
    return compare_doubles();
}

static void each_element_has_its_tolerance(void **state) {
    (void)state;
    static const struct {
        double largest, value, tolerance;
    } bounds[] = {
        {0.01, 0, 1e-3},            /* absolute */
        {0.01, -0.01, 1e-3},        /* the relative bound is smaller here */
        {0.3, 0, 1.8e-3},           /* 6e-3 of the head's largest */
        {1, 0.9, 0.9 * 2.01 / 128}, /* relative */
        {0.5, -0.45, 0.45 * 2.01 / 128},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            assert_true(one_element(bounds[i].largest, bounds[i].value, sign * 0.99 * bounds[i].tolerance));
            assert_false(one_element(bounds[i].largest, bounds[i].value, sign * 1.01 * bounds[i].tolerance));
            expect_place(1, 2, -1, 7, "element");
            assert_int_equal(result.mismatches, 1);
            assert_true(result.expected == bounds[i].value);
        }
    }
}

static void the_first_mismatch_is_reported(void **state) {
    (void)state;
    computed[at(1, 0, 99)] = 3;
    computed[at(0, 2, 41)] = 2;
    computed[at(0, 2, 42)] = 9;
    assert_false(compare_doubles());
    expect_place(0, 2, -1, 41, "element");
    assert_int_equal(result.mismatches, 3);
    assert_true(result.computed == 2 && result.expected == 0.5 && result.max_abs == 9.5);
}

/* Every element off by the same factor: each within its own tolerance, the tensor not. */
static void the_whole_tensor_has_a_bound(void **state) {
    (void)state;
    for (int i = 0; i < COUNT; i++) computed[i] = expected[i] * 1.0025;
    assert_true(compare_doubles());
    assert_true(fabs(result.relative_l2 - 2.5e-3) < 1e-9);
    assert_true(fabs(result.cosine_difference - 2.5e-3 * 2.5e-3 / 2.005) < 1e-9);
    for (int i = 0; i < COUNT; i++) computed[i] = expected[i] * 1.0027;
    computed[at(1, 1, 0)] = 1.004;
    assert_false(compare_doubles());
    expect_place(1, 1, -1, 0, "relative L2");
    assert_int_equal(result.mismatches, 0);

    /* Against another bf16 result there is more room. */
    uint16_t rounded[COUNT];
    for (int i = 0; i < COUNT; i++)
        rounded[i] = expected[i] == 1 ? 0x3f80 : expected[i] > 0 ? 0x3f00 : 0xbf00;
    const compare_array a = {computed, COMPARE_F64}, b = {rounded, COMPARE_BF16};
    assert_true(compare_out(&shape, a, b, &result));
    for (int i = 0; i < COUNT; i++) computed[i] = expected[i] * 1.0031;
    assert_false(compare_out(&shape, a, b, &result));
    assert_string_equal(result.rule, "relative L2");
}

/* No bf16 is nearer than a result that has been rounded, so it is right, however far that is. */
static void rounding_is_no_mistake(void **state) {
    (void)state;
    static uint16_t rounded[COUNT];
    const compare_array a = {rounded, COMPARE_BF16}, b = {expected, COMPARE_F64};
    const double halfway = 1 + 0x1p-8, tiny = 1e-129;
    for (int i = 0; i < COUNT; i++) expected[i] = halfway, rounded[i] = i % 2 ? 0x3f80 : 0x3f81;
    assert_true(compare_out(&shape, a, b, &result));
    assert_true(result.relative_l2 > COMPARE_OUT_RELATIVE_L2 &&
                result.cosine_difference > COMPARE_OUT_COSINE);
    for (int i = 0; i < COUNT / 4; i++) rounded[i] = i % 2 ? 0x3f82 : 0x3f7f; /* next but one */
    assert_false(compare_out(&shape, a, b, &result));
    assert_string_equal(result.rule, "relative L2");
    for (int i = 0; i < COUNT; i++) computed[i] = (float)halfway * 1.0027; /* f32 has room for it */
    const compare_array f32 = {lse_computed, COMPARE_F32};
    const compare_shape one = {.rows = 1, .heads = 1, .d_v = ROWS * HEADS};
    for (int i = 0; i < ROWS * HEADS; i++) lse_computed[i] = (float)computed[i];
    assert_false(compare_out(&one, f32, b, &result));
    for (int i = 0; i < COUNT; i++) expected[i] = tiny, rounded[i] = 0;
    assert_true(compare_out(&shape, a, b, &result));
    rounded[7] = 0x3a00; /* 4.9e-4 is allowed for an element, but not there */
    assert_false(compare_out(&shape, a, b, &result));
    rounded[7] = 0x7fc0;
    assert_false(compare_out(&shape, a, b, &result));

    /* A value that rounds to infinity excuses nothing: its neighbour in bf16 is 0.31 % off. */
    reset(state);
    expected[at(0, 0, 0)] = 3.4e38;
    for (int i = 0; i < COUNT; i++) rounded[i] = i % DIM == 0 ? 0x3f80 : i % 2 ? 0x3f00 : 0xbf00;
    rounded[at(0, 0, 0)] = 0x7f7f;
    assert_false(compare_out(&shape, a, b, &result));
    assert_string_equal(result.rule, "relative L2");
    rounded[at(0, 0, 0)] = 0x7f80;
    assert_false(compare_out(&shape, a, b, &result));
    assert_string_equal(result.rule, "element");
}

static void nan_and_infinity_fail(void **state) {
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (int place = 0; place < COUNT; place += 37) {
            reset(state);
            computed[place] = bad[i];
            assert_false(compare_doubles());
            assert_int_equal(((int64_t)result.row * HEADS + result.head) * DIM + result.element, place);
            assert_int_equal(result.mismatches, 1);
            assert_false(result.max_abs <= 1e300); /* NaN stays NaN whatever follows it */
        }
    }
}

static void unspecified_heads_are_left_out(void **state) {
    (void)state;
    expected[at(0, 1, 50)] = NAN;
    expected[at(1, 2, 0)] = INFINITY;
    for (uint32_t d = 0; d < DIM; d++) computed[at(0, 1, d)] = 1e30, computed[at(1, 2, d)] = NAN;
    assert_true(compare_doubles());
    assert_int_equal(result.unspecified, 2);
    assert_int_equal(result.compared, 4 * DIM);
    computed[at(0, 0, 1)] = 0.6;
    assert_false(compare_doubles()); /* the others are still looked at */
}

static void a_nan_query_must_give_nan(void **state) {
    (void)state;
    for (uint32_t d = 0; d < DIM; d++) expected[at(1, 1, d)] = computed[at(1, 1, d)] = NAN;
    lse_expected[4] = lse_computed[4] = NAN;
    query[4 * QUERY_DIM + 3] = 0xffc0;
    const compare_array a = {lse_computed, COMPARE_F32}, b = {lse_expected, COMPARE_F32};
    assert_true(compare_doubles());
    assert_int_equal(result.unspecified, 0);
    assert_true(compare_lse(&shape, a, b, &result));

    computed[at(1, 1, 9)] = 0;
    assert_false(compare_doubles());
    expect_place(1, 1, -1, 9, "NaN in q");
    lse_computed[4] = INFINITY;
    assert_false(compare_lse(&shape, a, b, &result));
    expect_place(1, 1, -1, -1, "NaN in q");

    query[4 * QUERY_DIM + 3] = 0x7f80; /* with an infinite query, or none given, it is only unspecified */
    assert_true(compare_doubles());
    assert_true(compare_lse(&shape, a, b, &result));
    compare_shape no_query = shape;
    no_query.q = NULL;
    assert_true(compare_lse(&no_query, a, b, &result));
}

/* -- lse. -------------------------------------------------------------------------------------------- */

static bool one_lse(double wanted, double got) {
    reset(NULL);
    lse_expected[4] = (float)wanted;
    lse_computed[4] = (float)got;
    const compare_array a = {lse_computed, COMPARE_F32}, b = {lse_expected, COMPARE_F32};
    return compare_lse(&shape, a, b, &result);
}

static void lse_has_its_tolerance(void **state) {
    (void)state;
    assert_true(one_lse(0, 0.9e-6));
    assert_false(one_lse(0, 1.1e-6));
    expect_place(1, 1, -1, -1, "element");
    assert_true(one_lse(-8, -8 * (1 - 8.0 / 65536)));
    assert_false(one_lse(-8, -8 * (1 - 8.1 / 65536)));
    assert_true(one_lse(1e30, 1.0001e30));
    assert_false(one_lse(1, NAN));
    assert_false(one_lse(1, INFINITY));
    assert_false(one_lse(1, -INFINITY));
}

static void an_empty_row_has_minus_infinity(void **state) {
    (void)state;
    assert_true(one_lse(-INFINITY, -INFINITY));
    assert_int_equal(result.unspecified, 0);
    assert_false(one_lse(-INFINITY, INFINITY)); /* what another engine gives */
    assert_false(one_lse(-INFINITY, -1e38));
    assert_false(one_lse(-INFINITY, NAN));
    expect_place(1, 1, -1, -1, "element");
    assert_true(one_lse(INFINITY, 3)); /* not finite and not empty: unspecified */
    assert_int_equal(result.unspecified, 1);
    assert_true(one_lse(NAN, 3));
}

/* -- gathered. --------------------------------------------------------------------------------------- */

static void gathered_entries_that_count_must_agree_bit_for_bit(void **state) {
    (void)state;
    enum { WIDTH = 4 };
    int32_t indices[ROWS * WIDTH] = {0, -1, 5, 3, 7, 8, -9, 2}, lens[ROWS] = {3, 4};
    const bool counts[ROWS * WIDTH] = {true, false, true, false, true, false, false, true};
    const stepfile_scope scope = {.present = true,
                                  .num_blocks = 2,
                                  .block_size_tokens = 4,
                                  .width = WIDTH,
                                  .rows_per_len = 1,
                                  .indices = indices,
                                  .lens = lens};
    uint16_t wanted[ROWS * WIDTH * DIM], got[ROWS * WIDTH * DIM];
    for (int i = 0; i < ROWS * WIDTH * DIM; i++) wanted[i] = (uint16_t)(i * 77);
    wanted[0] = 0x7f81, wanted[1] = 0x8000;
    for (int i = 0; i < ROWS * WIDTH * DIM; i += 13) {
        memcpy(got, wanted, sizeof got);
        got[0] = 0xffc0; /* any NaN for any NaN */
        if (i > 0) got[i] ^= 1;
        bool both_nan = (got[i] & 0x7fff) > 0x7f80 && (wanted[i] & 0x7fff) > 0x7f80;
        bool same = compare_gathered(&scope, ROWS, DIM, got, wanted, &result);
        assert_int_equal(same, i == 0 || both_nan || !counts[i / DIM]);
        assert_int_equal(result.compared, 4 * DIM);
        assert_int_equal(result.unspecified, 4);
        if (!same) expect_place((uint32_t)(i / DIM / WIDTH), -1, i / DIM % WIDTH, i % DIM, "bits");
    }
    memcpy(got, wanted, sizeof got);
    got[1] = 0; /* +0 for -0 */
    assert_false(compare_gathered(&scope, ROWS, DIM, got, wanted, &result));
    got[1] = wanted[1];
    got[0] = 0x7f80; /* infinity for NaN */
    assert_false(compare_gathered(&scope, ROWS, DIM, got, wanted, &result));
}

/* -- A whole step. ----------------------------------------------------------------------------------- */

static uint16_t to_bf16(double value) {
    float narrow = (float)value;
    uint32_t word;
    memcpy(&word, &narrow, sizeof word);
    if (isnan(narrow)) return 0x7fc0;
    return (uint16_t)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

static uint16_t *round_expected(const stepfile *step) {
    uint64_t count = (uint64_t)step->rows * step->heads * step->d_v;
    uint16_t *out = stepfile_allocate(count * 2);
    assert_non_null(out);
    for (uint64_t i = 0; i < count; i++) out[i] = to_bf16(step->expected.out_f64[i]);
    return out;
}

/* For every shipped file the rounded out_f64, and everything else as expected, is within all bounds; any
 * member spoilt in one bit that matters is not. */
static void shipped_files_accept_their_own_results(void **state) {
    (void)state;
    DIR *folder = opendir(MLAR_TEST_DATA_DIR);
    int files = 0;
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[1024];
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".safetensors") != 0) continue;
        snprintf(path, sizeof path, "%s/%s", MLAR_TEST_DATA_DIR, entry->d_name);
        stepfile step;
        step_error error;
        if (!stepfile_read(path, &step, &error)) fail_msg("%s", error.text);
        stepfile_results results = step.expected;
        compare_report report;
        results.out = round_expected(&step);
        if (!compare_step(&step, &results, &report)) fail_msg("%s: %s", path, report.out.rule);
        assert_true(report.out.checked && report.out.relative_l2 <= 2.0e-3);
        if (report.out.compared > 0) { /* not a file of zero rows or unspecified heads only */
            results.out[step.d_v / 2] = 0x7fc0;
            assert_false(compare_step(&step, &results, &report));
            assert_int_equal(report.out.element, step.d_v / 2);
        }
        free(results.out);
        stepfile_free(&step);
        files++;
    }
    closedir(folder);
    assert_true(files >= 25);
}

static void a_step_prefers_f64_and_skips_what_is_absent(void **state) {
    (void)state;
    stepfile step;
    compare_report report;
    assert_true(stepfile_read(MLAR_TEST_DATA_DIR "/dsv4-seed.safetensors", &step, NULL));
    stepfile_results results = {.out = round_expected(&step)};
    assert_true(compare_step(&step, &results, &report));
    assert_true(report.out.checked && report.out.relative_l2 > 1e-3);
    assert_false(report.lse.checked || report.gathered_window.checked || report.gathered_extra.checked);

    free(step.expected.out_f64);
    step.expected.out_f64 = NULL;
    assert_true(compare_step(&step, &results, &report)); /* against the file's own bf16 `out` */
    assert_true(report.out.checked && report.out.relative_l2 < 1e-3);
    free(step.expected.out);
    step.expected.out = NULL;
    results.out[0] ^= 0x4000;
    assert_true(compare_step(&step, &results, &report));
    assert_false(report.out.checked);
    free(results.out);
    stepfile_free(&step);
}

static void results_are_described_in_one_line(void **state) {
    (void)state;
    char line[400], little[8];
    assert_true(compare_doubles());
    assert_string_equal(
        compare_describe("out", &result, line, sizeof line),
        "out: ok, 600 elements, relative L2 0.00e+00, max abs 0.00e+00, cosine difference 0.0e+00");
    computed[at(1, 2, 7)] = 0.25;
    assert_false(compare_doubles());
    compare_describe("out", &result, line, sizeof line);
    assert_non_null(
        strstr(line, "out: MISMATCH (element) at row 1, head 2, element 7: computed 0.25, expected 0.5; "
                     "1 of 600 elements out of bounds"));
    assert_false(one_lse(-8, 8));
    compare_describe("lse", &result, line, sizeof line);
    assert_string_equal(line, "lse: MISMATCH (element) at row 1, head 1: computed 8, expected -8; "
                              "1 of 6 elements out of bounds");
    assert_int_equal(strlen(compare_describe("lse", &result, little, sizeof little)), sizeof little - 1);
    result = (compare_result){0};
    assert_string_equal(compare_describe("lse", &result, line, sizeof line), "lse: nothing to compare with");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(equal_tensors_pass, reset),
        cmocka_unit_test(each_element_has_its_tolerance),
        cmocka_unit_test_setup(the_first_mismatch_is_reported, reset),
        cmocka_unit_test_setup(the_whole_tensor_has_a_bound, reset),
        cmocka_unit_test_setup(rounding_is_no_mistake, reset),
        cmocka_unit_test(nan_and_infinity_fail),
        cmocka_unit_test_setup(unspecified_heads_are_left_out, reset),
        cmocka_unit_test_setup(a_nan_query_must_give_nan, reset),
        cmocka_unit_test(lse_has_its_tolerance),
        cmocka_unit_test(an_empty_row_has_minus_infinity),
        cmocka_unit_test(gathered_entries_that_count_must_agree_bit_for_bit),
        cmocka_unit_test(shipped_files_accept_their_own_results),
        cmocka_unit_test_setup(a_step_prefers_f64_and_skips_what_is_absent, reset),
        cmocka_unit_test_setup(results_are_described_in_one_line, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
