/* SPDX-License-Identifier: Apache-2.0
 *
 * test_status.c: every status has a name and a meaning of its own; numbers are part of the ABI. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <mlarena/status.h>
#include <string.h>

static const struct {
    mlar_status value;
    const char *name;
} statuses[] = {
#define X(name, value, text) {value, #name},
    MLAR_STATUS_TABLE(X)
#undef X
};
enum { COUNT = sizeof statuses / sizeof *statuses };

static void test_numbers(void **state) {
    (void)state;
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(statuses[i].value, i); /* none is ever given away or skipped */
    assert_int_equal(MLAR_OK, 0);
    assert_int_equal(MLAR_ERROR_STATE, 14);
    assert_int_equal(MLAR_ERROR_PLAN, 27);
}

static void test_names_and_meanings(void **state) {
    (void)state;
    for (int i = 0; i < COUNT; i++) {
        assert_string_equal(mlar_status_name(statuses[i].value), statuses[i].name);
        assert_true(strlen(mlar_status_string(statuses[i].value)) > 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(mlar_status_string(statuses[i].value),
                                    mlar_status_string(statuses[j].value));
    }
}

static void test_numbers_that_mean_nothing(void **state) {
    (void)state;
    static const mlar_status unknown[] = {-1, COUNT, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_string_equal(mlar_status_name(unknown[i]), "MLAR_STATUS_UNKNOWN");
        assert_string_equal(mlar_status_string(unknown[i]), "unknown status");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers),
                                       cmocka_unit_test(test_names_and_meanings),
                                       cmocka_unit_test(test_numbers_that_mean_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
