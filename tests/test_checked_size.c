/* SPDX-License-Identifier: Apache-2.0
 *
 * test_checked_size.c: size arithmetic at its edges. */
#include "arena/checked_size.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#define TOP ((uint64_t)1 << 63)

typedef struct operation_case {
    uint64_t a, b, expected;
    bool fails;
} operation_case;

static void test_add(void **state) {
    (void)state;
    static const operation_case cases[] = {
        {0, 0, 0, false},
        {1, 2, 3, false},
        {UINT64_MAX, 0, UINT64_MAX, false},
        {0, UINT64_MAX, UINT64_MAX, false},
        {UINT64_MAX - 1, 1, UINT64_MAX, false},
        {UINT64_MAX, 1, UINT64_MAX, true},
        {1, UINT64_MAX, UINT64_MAX, true},
        {TOP, TOP, UINT64_MAX, true},
        {TOP, TOP - 1, UINT64_MAX, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mlar_checked check = {0};
        assert_true(mlar_checked_add(&check, cases[i].a, cases[i].b) == cases[i].expected);
        assert_int_equal(check.failed, cases[i].fails);
    }
}

static void test_mul(void **state) {
    (void)state;
    static const operation_case cases[] = {
        {0, UINT64_MAX, 0, false},
        {UINT64_MAX, 0, 0, false},
        {UINT64_MAX, 1, UINT64_MAX, false},
        {(uint64_t)1 << 32, ((uint64_t)1 << 32) - 1, UINT64_MAX - 0xffffffffu, false},
        {(uint64_t)1 << 32, (uint64_t)1 << 32, UINT64_MAX, true},
        {TOP, 2, UINT64_MAX, true},
        {2, TOP, UINT64_MAX, true},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, true},
        {3, UINT64_MAX / 3, UINT64_MAX, false}, /* 2^64 - 1 is a multiple of 3 */
        {3, UINT64_MAX / 3 + 1, UINT64_MAX, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mlar_checked check = {0};
        assert_true(mlar_checked_mul(&check, cases[i].a, cases[i].b) == cases[i].expected);
        assert_int_equal(check.failed, cases[i].fails);
    }
}

static void test_mul3(void **state) {
    (void)state;
    mlar_checked check = {0};
    assert_true(mlar_checked_mul3(&check, 64, 640, 1024) == (uint64_t)64 * 640 * 1024);
    assert_false(check.failed);
    assert_true(mlar_checked_mul3(&check, 0, UINT64_MAX, UINT64_MAX) == 0);
    assert_false(check.failed);
    /* A late zero does not hide an earlier overflow. */
    mlar_checked_mul3(&check, UINT64_MAX, 2, 0);
    assert_true(check.failed);
}

static void test_align_up(void **state) {
    (void)state;
    static const operation_case cases[] = {
        {0, 256, 0, false},
        {1, 256, 256, false},
        {256, 256, 256, false},
        {257, 256, 512, false},
        {7, 1, 7, false},
        {UINT64_MAX, 1, UINT64_MAX, false},
        {UINT64_MAX, 2, UINT64_MAX, true},
        {UINT64_MAX - 255, 256, UINT64_MAX - 255, false},
        {UINT64_MAX - 254, 256, UINT64_MAX, true},
        {1, TOP, TOP, false},
        {TOP + 1, TOP, UINT64_MAX, true},
        {5, 0, UINT64_MAX, true}, /* not powers of two */
        {5, 3, UINT64_MAX, true},
        {5, UINT64_MAX, UINT64_MAX, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mlar_checked check = {0};
        assert_true(mlar_checked_align_up(&check, cases[i].a, cases[i].b) == cases[i].expected);
        assert_int_equal(check.failed, cases[i].fails);
    }
}

static void test_failure_is_sticky(void **state) {
    (void)state;
    mlar_checked check = {0};
    mlar_checked_add(&check, UINT64_MAX, 1);
    assert_true(check.failed);
    assert_true(mlar_checked_add(&check, 1, 1) == 2);
    assert_true(mlar_checked_align_up(&check, 1, 16) == 16);
    assert_true(check.failed);
}

static void test_powers_and_diag(void **state) {
    (void)state;
    assert_false(mlar_is_power_of_two(0));
    assert_true(mlar_is_power_of_two(1));
    assert_true(mlar_is_power_of_two(TOP));
    assert_false(mlar_is_power_of_two(TOP + 1));
    assert_true(mlar_size_for_diag(0) == 0);
    assert_true(mlar_size_for_diag(TOP - 1) == INT64_MAX);
    assert_true(mlar_size_for_diag(TOP) == INT64_MAX);
    assert_true(mlar_size_for_diag(UINT64_MAX) == INT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_mul),
        cmocka_unit_test(test_mul3),
        cmocka_unit_test(test_align_up),
        cmocka_unit_test(test_failure_is_sticky),
        cmocka_unit_test(test_powers_and_diag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
