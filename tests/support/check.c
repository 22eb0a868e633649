/* SPDX-License-Identifier: Apache-2.0
 *
 * check.c: see check.h. */
#include "tests/support/check.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const check_limits check_spec = {
    .relative_l2 = 2.6e-3,
    .absolute = 1e-3,
    .of_largest = 6e-3,
    .relative = 2.01 / 128,
    .cosine = 5e-6,
    .lse_absolute = 1e-6,
    .lse_relative = 8.01 / 65536,
    .lse_of_products = 0x1p-20,
    .rounding = 1.1,
};

const check_limits check_spec_cpu = {
    .relative_l2 = 2.0e-3,
    .absolute = 1e-3,
    .of_largest = 6e-3,
    .relative = 2.01 / 128,
    .cosine = 5e-6,
    .lse_absolute = 1e-6,
    .lse_relative = 8.01 / 65536,
    .lse_of_products = 0x1p-20,
    .rounding = 1.1,
};

static int64_t out_at(const step_case *made, int32_t row, int32_t head, int32_t d) {
    return row * made->layer.out_row_stride + head * made->layer.out_head_stride + d;
}

static int64_t lse_at(const step_case *made, int32_t row, int32_t head) {
    return row * made->layer.lse_row_stride + head * made->layer.lse_head_stride;
}

double check_out(const step_case *made, int32_t row, int32_t head, int32_t d) {
    const int64_t at = out_at(made, row, head, d);
    if (made->layer.out_f32) return ((const float *)made->layer.out)[at];
    return reference_bf16_value(((const uint16_t *)made->layer.out)[at]);
}

double check_lse(const step_case *made, int32_t row, int32_t head) {
    return made->layer.lse[lse_at(made, row, head)];
}

/* ---- accuracy ---- */

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static void
fail(check_result *result, const char *format, ...) {
    va_list arguments;
    if (!result->pass) return; /* the first failure is the one to read */
    result->pass = false;
    va_start(arguments, format);
    vsnprintf(result->message, sizeof result->message, format, arguments);
    va_end(arguments);
}

static void check_nan_head(const step_case *made, int32_t row, int32_t head, check_result *result) {
    for (int32_t d = 0; d < made->shape.d_v; ++d)
        if (!isnan(check_out(made, row, head, d)))
            fail(result, "out row %d head %d element %d: NaN in q, but not in out", row, head, d);
    if (made->layer.lse && !isnan(check_lse(made, row, head)))
        fail(result, "lse row %d head %d: NaN in q, but not in lse", row, head);
}

static void check_head(const step_case *made, const double *expected, int32_t row, int32_t head,
                       const check_limits *limits, check_result *result) {
    double largest = 0, tolerance;
    for (int32_t d = 0; d < made->shape.d_v; ++d) largest = fmax(largest, fabs(expected[d]));
    tolerance = fmax(limits->absolute, limits->of_largest * largest);
    for (int32_t d = 0; d < made->shape.d_v; ++d) {
        const double computed = check_out(made, row, head, d), difference = fabs(computed - expected[d]);
        const bool negative_zero =
            largest == 0 && computed == 0 && signbit(computed) && !signbit(expected[d]);
        if ((!(difference <= tolerance) && !(difference <= limits->relative * fabs(expected[d]))) ||
            negative_zero)
            fail(result, "out row %d head %d element %d: %.9g, expected %.9g", row, head, d, computed,
                 expected[d]);
        result->max_abs = fmax(result->max_abs, difference);
        const double rounded = made->layer.out_f32 ? (double)(float)expected[d]
                                                   : reference_bf16_value(reference_bf16_round(expected[d]));
        if (isfinite(
                rounded)) { /* an overflow is its own element's matter, and loosens no bound on the others */
            result->lost2 += (rounded - expected[d]) * (rounded - expected[d]);
            result->rounded2 += rounded * rounded;
        }
        result->difference2 += difference * difference;
        result->sum2 += expected[d] * expected[d];
        result->computed2 += computed * computed;
    }
}

static void check_head_lse(const step_case *made, double expected, double products, int32_t row, int32_t head,
                           const check_limits *limits, check_result *result) {
    const double computed = check_lse(made, row, head), difference = fabs(computed - expected);
    if (isinf(expected)) {
        if (computed != expected)
            fail(result, "lse row %d head %d: %.9g, expected %.9g", row, head, computed, expected);
        return;
    }
    if (!(difference <= limits->lse_absolute) && !(difference <= limits->lse_relative * fabs(expected)) &&
        !(difference <= limits->lse_of_products * products))
        fail(result, "lse row %d head %d: %.9g, expected %.9g", row, head, computed, expected);
    result->max_lse = fmax(result->max_lse, difference);
}

bool check_step(const step_case *made, const reference *expected, const check_limits *limits,
                check_result *result) {
    *result = (check_result){.pass = true};
    for (int32_t row = 0; row < expected->rows; ++row) {
        for (int32_t head = 0; head < expected->heads; ++head) {
            const int64_t at = (int64_t)row * expected->heads + head;
            if (expected->verdict[at] == REFERENCE_UNSPECIFIED) continue;
            if (expected->verdict[at] == REFERENCE_NAN) {
                check_nan_head(made, row, head, result);
                continue;
            }
            result->specified_heads += 1;
            check_head(made, expected->out + at * expected->d_v, row, head, limits, result);
            if (made->layer.lse)
                check_head_lse(made, expected->lse[at], expected->products[at], row, head, limits, result);
        }
    }
    result->relative_l2 =
        result->sum2 > 0 ? sqrt(result->difference2 / result->sum2) : sqrt(result->difference2);
    const double lost = limits->rounding * sqrt(result->sum2 > 0 ? result->lost2 / result->sum2 : 0);
    const double relative_l2 = fmax(limits->relative_l2, lost);
    const double cosine = fmax(limits->cosine, limits->rounding * limits->rounding * result->lost2 /
                                                   fmax(result->rounded2 + result->sum2, DBL_MIN));
    if (!(result->relative_l2 <= relative_l2))
        fail(result, "out: relative L2 %.3e, at most %.3e", result->relative_l2, relative_l2);
    if (!(result->difference2 <= cosine * (result->sum2 + result->computed2)))
        fail(result, "out: cosine difference above %.3e", cosine);
    return result->pass;
}

/* ---- bits ---- */

static bool is_nan_bf16(uint16_t bits) {
    return (bits & 0x7fff) > 0x7f80;
}

bool check_gathered(const reference *expected, int32_t scope, const uint16_t *gathered, int untouched_pattern,
                    char *message, size_t message_bytes) {
    const int32_t width = expected->width[scope], d_qk = expected->d_qk;
    for (int32_t row = 0; row < expected->rows; ++row) {
        for (int32_t j = 0; j < width; ++j) {
            const int64_t place = (int64_t)row * width + j;
            for (int32_t d = 0; d < d_qk; ++d) {
                const uint16_t computed = gathered[place * d_qk + d];
                const uint16_t pattern = (uint16_t)(untouched_pattern * 0x101);
                const uint16_t wanted =
                    expected->counts[scope][place] ? expected->gathered[scope][place * d_qk + d] : pattern;
                if (!expected->counts[scope][place] && untouched_pattern < 0) continue;
                if (computed == wanted) continue;
                if (expected->counts[scope][place] && is_nan_bf16(computed) && is_nan_bf16(wanted)) continue;
                if (message)
                    snprintf(message, message_bytes,
                             "gathered scope %d row %d entry %d element %d: %04x, expected %04x", scope, row,
                             j, d, computed, wanted);
                return false;
            }
        }
    }
    return true;
}

bool check_untouched_beyond(const step_case *made, int32_t rows) {
    const size_t element = made->layer.out_f32 ? sizeof(float) : sizeof(uint16_t);
    bool untouched = true;
    for (int32_t i = 0; i < made->buffer_count; ++i) {
        const case_buffer *buffer = &made->buffers[i];
        uint8_t *copy;
        if (!buffer->is_output) continue;
        copy = malloc(buffer->bytes ? buffer->bytes : 1);
        if (!copy) abort();
        memcpy(copy, buffer->memory, buffer->bytes);
        for (int32_t row = 0; row < rows; ++row) /* paint over what may have been written */
            for (int32_t head = 0; head < made->shape.heads; ++head) {
                if (buffer->pointer_at == offsetof(mlar_layer_params, out))
                    memset(copy + (size_t)out_at(made, row, head, 0) * element, CASE_PATTERN,
                           (size_t)made->shape.d_v * element);
                else
                    memset(copy + (size_t)lse_at(made, row, head) * sizeof(float), CASE_PATTERN,
                           sizeof(float));
            }
        for (size_t byte = 0; byte < buffer->bytes; ++byte) untouched &= copy[byte] == CASE_PATTERN;
        free(copy);
    }
    return untouched;
}

bool check_tail_is_zero(const step_case *made) {
    bool zero = true;
    for (int32_t row = made->spec.rows; row < made->spec.capacity_rows; ++row)
        for (int32_t head = 0; head < made->shape.heads; ++head) {
            for (int32_t d = 0; d < made->shape.d_v; ++d) {
                const double value = check_out(made, row, head, d);
                zero &= value == 0 && !signbit(value);
            }
            if (made->layer.lse) zero &= check_lse(made, row, head) == -INFINITY;
        }
    return zero;
}
