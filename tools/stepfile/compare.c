/* SPDX-License-Identifier: Apache-2.0
 *
 * compare.c: the accuracy rules of compare.h, one function per kind of tensor. Every bound is tested as
 * `!(difference <= bound)`, which a NaN fails. */
#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* -- Reading values. ------------------------------------------------------------------------------------ */

static double from_bf16(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return (double)value;
}

static bool is_nan_bf16(uint16_t bits) {
    return (bits & 0x7fff) > 0x7f80;
}
static bool is_finite_bf16(uint16_t bits) {
    return (bits & 0x7fff) < 0x7f80;
}

static double value_at(compare_array array, uint64_t i) {
    switch (array.type) {
    case COMPARE_BF16:
        return from_bf16(((const uint16_t *)array.data)[i]);
    case COMPARE_F32:
        return (double)((const float *)array.data)[i];
    case COMPARE_F64:
        return ((const double *)array.data)[i];
    }
    return NAN;
}

/* -- Heads that are unspecified, or must be NaN. -------------------------------------------------------- */

typedef enum head_query { QUERY_FINITE, QUERY_NOT_FINITE, QUERY_NAN } head_query;

/* `head` counts over rows and heads. */
static head_query query_of(const compare_shape *shape, uint64_t head) {
    head_query found = QUERY_FINITE;
    if (!shape->q) return found;
    const uint16_t *q = shape->q + head * shape->d_qk;
    for (uint32_t d = 0; d < shape->d_qk; d++) {
        if (is_nan_bf16(q[d])) return QUERY_NAN;
        if (!is_finite_bf16(q[d])) found = QUERY_NOT_FINITE;
    }
    return found;
}

/* -- Verdicts. ------------------------------------------------------------------------------------------ */

typedef struct place {
    uint32_t row;
    int64_t head, entry, element;
    double computed, expected;
} place;

static void point_at(compare_result *result, const place *at) {
    result->row = at->row;
    result->head = at->head;
    result->entry = at->entry;
    result->element = at->element;
    result->computed = at->computed;
    result->expected = at->expected;
}

/* Counts one element; the first that is out of bounds gives the result its place and its rule. */
static void judge(compare_result *result, bool within, const char *rule, const place *at) {
    result->compared++;
    if (within) return;
    if (result->mismatches++ > 0) return;
    result->rule = rule;
    point_at(result, at);
}

/* A whole-tensor rule is blamed only where every element passed on its own. */
static void judge_whole(compare_result *result, bool within, const char *rule, const place *worst) {
    if (within || result->rule) return;
    result->rule = rule;
    point_at(result, worst);
}

static bool finish(compare_result *result) {
    result->pass = result->rule == NULL;
    return result->pass;
}

/* -- out. ----------------------------------------------------------------------------------------------- */

typedef struct out_sums {
    compare_type computed_type;
    double difference_squared, computed_squared, expected_squared;
    double lost_squared, rounded_squared; /* by rounding what is expected, and what is left of it */
    double largest_difference;            /* NaN once a NaN was seen */
    place worst;
} out_sums;

static double rounded_to(compare_type type, double value) {
    float narrow = (float)value;
    uint32_t word;
    if (type == COMPARE_F64) return value;
    if (type == COMPARE_F32) return (double)narrow;
    if (!isfinite(narrow)) return (double)narrow;
    memcpy(&word, &narrow, sizeof word);
    return from_bf16((uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16)); /* to nearest, ties to even */
}

static void add_to_sums(out_sums *sums, double apart, const place *at) {
    const double rounded = rounded_to(sums->computed_type, at->expected);
    if (isfinite(rounded)) { /* an overflow is its own element's matter, and loosens no bound on the others */
        sums->lost_squared += (rounded - at->expected) * (rounded - at->expected);
        sums->rounded_squared += rounded * rounded;
    }
    sums->difference_squared += apart * apart;
    sums->computed_squared += at->computed * at->computed;
    sums->expected_squared += at->expected * at->expected;
    if (isnan(sums->largest_difference) || apart <= sums->largest_difference) return;
    sums->largest_difference = apart;
    sums->worst = *at;
}

/* The largest magnitude, or NaN if some value is not finite. */
static double largest_of(compare_array array, uint64_t first, uint32_t count) {
    double largest = 0;
    for (uint32_t d = 0; d < count; d++) {
        double magnitude = fabs(value_at(array, first + d));
        if (!isfinite(magnitude)) return NAN;
        if (magnitude > largest) largest = magnitude;
    }
    return largest;
}

/* `exact`, where there is one beside `expected`, says which heads are specified. */
static void compare_head(const compare_shape *shape, uint64_t head, compare_array computed,
                         compare_array expected, compare_array exact, out_sums *sums,
                         compare_result *result) {
    uint64_t first = head * shape->d_v;
    double largest = largest_of(expected, first, shape->d_v);
    if (exact.data && isnan(largest_of(exact, first, shape->d_v))) largest = NAN;
    bool must_be_nan = isnan(largest) && query_of(shape, head) == QUERY_NAN;
    if (isnan(largest) && !must_be_nan) {
        result->unspecified++;
        return;
    }
    for (uint32_t d = 0; d < shape->d_v; d++) {
        const place at = {.row = (uint32_t)(head / shape->heads),
                          .head = (int64_t)(head % shape->heads),
                          .entry = -1,
                          .element = d,
                          .computed = value_at(computed, first + d),
                          .expected = value_at(expected, first + d)};
        if (must_be_nan) {
            judge(result, isnan(at.computed), "NaN in q", &at);
            continue;
        }
        double apart = fabs(at.computed - at.expected);
        double absolute = fmax(COMPARE_OUT_ABSOLUTE, COMPARE_OUT_OF_LARGEST * largest);
        double relative = COMPARE_OUT_RELATIVE * fabs(at.expected);
        judge(result, apart <= absolute || apart <= relative, "element", &at);
        add_to_sums(sums, apart, &at);
    }
}

/* 0/0 is 0: two tensors of zeros do not differ. */
static double ratio(double part, double whole) {
    return part == 0 ? 0 : part / whole;
}

static bool compare_heads(const compare_shape *shape, compare_array computed, compare_array expected,
                          compare_array exact, compare_result *result) {
    *result = (compare_result){.checked = true, .has_figures = true};
    out_sums sums = {.computed_type = computed.type};
    uint64_t heads = (uint64_t)shape->rows * shape->heads;
    for (uint64_t head = 0; head < heads; head++)
        compare_head(shape, head, computed, expected, exact, &sums, result);

    double bound = expected.type == COMPARE_BF16 ? COMPARE_OUT_RELATIVE_L2_BF16 : COMPARE_OUT_RELATIVE_L2;
    result->relative_l2 = sqrt(ratio(sums.difference_squared, sums.expected_squared));
    result->cosine_difference = ratio(sums.difference_squared, sums.computed_squared + sums.expected_squared);
    result->max_abs = sums.largest_difference;
    const double lost_l2 = sqrt(ratio(sums.lost_squared, sums.expected_squared));
    const double lost_cosine = ratio(sums.lost_squared, sums.rounded_squared + sums.expected_squared);
    judge_whole(result, result->relative_l2 <= fmax(bound, COMPARE_OUT_ROUNDING * lost_l2), "relative L2",
                &sums.worst);
    judge_whole(result,
                result->cosine_difference <=
                    fmax(COMPARE_OUT_COSINE, COMPARE_OUT_ROUNDING * COMPARE_OUT_ROUNDING * lost_cosine),
                "cosine difference", &sums.worst);
    return finish(result);
}

bool compare_out(const compare_shape *shape, compare_array computed, compare_array expected,
                 compare_result *result) {
    return compare_heads(shape, computed, expected, (compare_array){NULL, COMPARE_F64}, result);
}

/* -- lse. ----------------------------------------------------------------------------------------------- */

/* -inf says that no entry counts, which is specified; but with an infinite q it may also be what the scores
 * add up to, which is not. */
static bool lse_is_unspecified(double expected, head_query query) {
    if (isnan(expected)) return query != QUERY_NAN;
    return isinf(expected) && (expected > 0 || query != QUERY_FINITE);
}

bool compare_lse(const compare_shape *shape, compare_array computed, compare_array expected,
                 compare_result *result) {
    *result = (compare_result){.checked = true};
    uint64_t heads = (uint64_t)shape->rows * shape->heads;
    for (uint64_t head = 0; head < heads; head++) {
        const place at = {.row = (uint32_t)(head / shape->heads),
                          .head = (int64_t)(head % shape->heads),
                          .entry = -1,
                          .element = -1,
                          .computed = value_at(computed, head),
                          .expected = value_at(expected, head)};
        if (lse_is_unspecified(at.expected, query_of(shape, head))) {
            result->unspecified++;
        } else if (isnan(at.expected)) {
            judge(result, isnan(at.computed), "NaN in q", &at);
        } else if (isinf(at.expected)) {
            judge(result, at.computed == at.expected, "element", &at);
        } else {
            double apart = fabs(at.computed - at.expected);
            double relative = COMPARE_LSE_RELATIVE * fabs(at.expected);
            judge(result, apart <= COMPARE_LSE_ABSOLUTE || apart <= relative, "element", &at);
        }
    }
    return finish(result);
}

/* -- gathered. ------------------------------------------------------------------------------------------ */

bool compare_gathered(const stepfile_scope *scope, uint32_t rows, uint32_t head_dim, const uint16_t *computed,
                      const uint16_t *expected, compare_result *result) {
    *result = (compare_result){.checked = true};
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t j = 0; j < scope->width; j++) {
            if (!stepfile_entry_counts(scope, row, j)) {
                result->unspecified++;
                continue;
            }
            uint64_t first = ((uint64_t)row * scope->width + j) * head_dim;
            for (uint32_t d = 0; d < head_dim; d++) {
                uint16_t a = computed[first + d], b = expected[first + d];
                const place at = {.row = row,
                                  .head = -1,
                                  .entry = j,
                                  .element = d,
                                  .computed = from_bf16(a),
                                  .expected = from_bf16(b)};
                judge(result, a == b || (is_nan_bf16(a) && is_nan_bf16(b)), "bits", &at);
            }
        }
    }
    return finish(result);
}

/* -- A whole step. -------------------------------------------------------------------------------------- */

bool compare_step(const stepfile *step, const stepfile_results *computed, compare_report *report) {
    const stepfile_results *expected = &step->expected;
    const compare_shape shape = {
        .rows = step->rows, .heads = step->heads, .d_v = step->d_v, .d_qk = step->d_qk, .q = step->q};
    *report = (compare_report){.pass = true};
    const compare_array out = {computed->out, COMPARE_BF16}, exact = {expected->out_f64, COMPARE_F64};
    const compare_array rounded = {expected->out, COMPARE_BF16}, none = {NULL, COMPARE_F64};
    if (computed->out && (expected->out_f64 || expected->out))
        report->pass &= compare_heads(&shape, out, expected->out_f64 ? exact : rounded, none, &report->out);
    if (computed->out && expected->out_f64 && expected->out)
        report->pass &= compare_heads(&shape, out, rounded, exact, &report->out_bf16);
    if (computed->lse && expected->lse) {
        const compare_array lse = {computed->lse, COMPARE_F32}, wanted = {expected->lse, COMPARE_F32};
        report->pass &= compare_lse(&shape, lse, wanted, &report->lse);
    }
    if (computed->gathered_window && expected->gathered_window)
        report->pass &= compare_gathered(&step->window, step->rows, step->d_qk, computed->gathered_window,
                                         expected->gathered_window, &report->gathered_window);
    if (computed->gathered_extra && expected->gathered_extra)
        report->pass &= compare_gathered(&step->extra, step->rows, step->d_qk, computed->gathered_extra,
                                         expected->gathered_extra, &report->gathered_extra);
    return report->pass;
}

/* -- Text. ---------------------------------------------------------------------------------------------- */

static void describe_place(const compare_result *result, char *text, size_t text_bytes) {
    size_t used = (size_t)snprintf(text, text_bytes, "row %u", result->row);
    const struct {
        const char *name;
        int64_t value;
    } parts[] = {{"head", result->head}, {"entry", result->entry}, {"element", result->element}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && used < text_bytes; i++)
        if (parts[i].value >= 0)
            used += (size_t)snprintf(text + used, text_bytes - used, ", %s %lld", parts[i].name,
                                     (long long)parts[i].value);
}

const char *compare_describe(const char *name, const compare_result *result, char *line, size_t line_bytes) {
    char figures[160] = "", at[96];
    if (!result->checked) {
        snprintf(line, line_bytes, "%s: nothing to compare with", name);
        return line;
    }
    if (result->has_figures)
        snprintf(figures, sizeof figures, ", relative L2 %.2e, max abs %.2e, cosine difference %.1e",
                 result->relative_l2, result->max_abs, result->cosine_difference);
    describe_place(result, at, sizeof at);
    if (result->pass)
        snprintf(line, line_bytes, "%s: ok, %llu elements%s", name, (unsigned long long)result->compared,
                 figures);
    else
        snprintf(
            line, line_bytes,
            "%s: MISMATCH (%s) at %s: computed %.9g, expected %.9g; %llu of %llu elements out of bounds%s",
            name, result->rule, at, result->computed, result->expected,
            (unsigned long long)result->mismatches, (unsigned long long)result->compared, figures);
    return line;
}
