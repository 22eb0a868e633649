/* SPDX-License-Identifier: Apache-2.0
 *
 * check.h: is what a step wrote what SPEC asks for? Accuracy against the float64 reference (SPEC section 5),
 * the gather buffer bit for bit (section 3), and the bytes that a step must leave alone.
 *
 * Every comparison is written so that NaN fails it. Heads that SPEC leaves unspecified are left out; heads
 * with a NaN in q must be NaN throughout; +0 is asked for where nothing counts. */
#ifndef TESTS_SUPPORT_CHECK_H
#define TESTS_SUPPORT_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/cases.h"
#include "tests/support/reference.h"

typedef struct check_limits {
    double relative_l2; /* of out, all specified heads of the step together */
    double absolute;    /* an element may be off by max(absolute, of_largest * its head's largest), or ... */
    double of_largest;
    double relative; /* ... by this share of itself */
    double cosine;   /* |x - y|^2 / (|x|^2 + |y|^2), which is at least 1 - cos(x, y) */
    double lse_absolute, lse_relative;
    double lse_of_products; /* of reference.products */
    double
        rounding; /* times what rounding alone costs: relative_l2 is no less, nor cosine than by its square */
} check_limits;

extern const check_limits check_spec;     /* SPEC section 5 */
extern const check_limits check_spec_cpu; /* the same with relative L2 2.0e-3 */

typedef struct check_result {
    bool pass;
    double relative_l2;      /* of out */
    double difference2;      /* |computed - expected|^2, with the next two to pool over steps */
    double sum2;             /* |expected|^2 */
    double computed2;        /* |computed|^2 */
    double lost2, rounded2;  /* |rounded - expected|^2 and |rounded|^2, expected rounded to out's type */
    double max_abs;          /* of out */
    double max_lse;          /* largest |difference| of a finite lse */
    int64_t specified_heads; /* heads that were compared */
    char message[200];       /* the first thing that failed; empty if pass */
} check_result;

/* out and lse (where the case has it) of the live rows. Returns result->pass. */
bool check_step(const step_case *made, const reference *expected, const check_limits *limits,
                check_result *result);

/* A scope's gather buffer, bf16 [rows][width][d_qk]: the entries that count bit for bit, any NaN as good as
 * any other. With untouched_pattern >= 0, every byte of the others must be that value. Fills `message` (may
 * be NULL) where it returns false. */
bool check_gathered(const reference *expected, int32_t scope, const uint16_t *gathered, int untouched_pattern,
                    char *message, size_t message_bytes);

/* True if everything in out's and lse's memory that is not an element of rows [0, rows) still holds
 * CASE_PATTERN. After a step, rows = tail_zero ? capacity_rows : spec.rows. */
bool check_untouched_beyond(const step_case *made, int32_t rows);

/* True if rows [spec.rows, capacity_rows) hold out = +0 and lse = -inf. */
bool check_tail_is_zero(const step_case *made);

/* An element of out as a double, whatever its type; an element of lse. */
double check_out(const step_case *made, int32_t row, int32_t head, int32_t d);
double check_lse(const step_case *made, int32_t row, int32_t head);

#endif
