/* SPDX-License-Identifier: Apache-2.0
 *
 * reference.c: SPEC in float64. Section numbers below are SPEC's. Runs in the default floating-point mode. */
#include "tests/support/reference.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- section 3: formats ---- */

double reference_fp8_value(uint8_t byte, int32_t fp8) {
    const bool fnuz = fp8 == 1;
    const int exponent = byte >> 3 & 15, fraction = byte & 7, bias = fnuz ? 8 : 7;
    const double sign = byte & 0x80 ? -1.0 : 1.0;
    if (fnuz ? byte == 0x80 : (exponent == 15 && fraction == 7)) return NAN;
    if (exponent == 0) return sign * ldexp(fraction / 8.0, 1 - bias);
    return sign * ldexp(1.0 + fraction / 8.0, exponent - bias);
}

double reference_e8m0_value(uint8_t byte) {
    return byte == 255 ? NAN : ldexp(1.0, byte - 127);
}

double reference_bf16_value(uint16_t bits) {
    const int exponent = bits >> 7 & 255, fraction = bits & 127;
    const double sign = bits & 0x8000 ? -1.0 : 1.0;
    if (exponent == 255) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction / 128.0, -126);
    return sign * ldexp(1.0 + fraction / 128.0, exponent - 127);
}

/* Rounds to a format of `digits` digits whose least place is 2^least and whose values stay below 2^limit. */
static double round_to(double value, int digits, int least, int limit) {
    int exponent, place;
    double rounded;
    if (value == 0 || !isfinite(value)) return value;
    frexp(value, &exponent); /* 2^(exponent - 1) <= |value| < 2^exponent */
    place = exponent - digits < least ? least : exponent - digits;
    rounded = ldexp(nearbyint(ldexp(value, -place)), place);
    return fabs(rounded) >= ldexp(1.0, limit) ? copysign(INFINITY, value) : rounded;
}

static double round_to_f32(double value) {
    return round_to(value, 24, -149, 128);
}

uint16_t reference_bf16_round(double value) {
    const double rounded = round_to(value, 8, -133, 128);
    const uint16_t sign = signbit(value) ? 0x8000 : 0;
    const double magnitude = fabs(rounded);
    int exponent;
    if (isnan(value)) return 0x7fc0;
    if (isinf(rounded)) return (uint16_t)(sign | 0x7f80);
    if (magnitude < ldexp(1.0, -126)) return (uint16_t)(sign | (uint16_t)ldexp(magnitude, 133));
    frexp(magnitude, &exponent);
    return (uint16_t)(sign | (exponent + 126) << 7 | ((uint16_t)ldexp(magnitude, 8 - exponent) & 127));
}

uint16_t reference_dequantise(uint8_t byte, int32_t fp8, double scale) {
    /* The double product of 4 by 24 digits is exact, so this rounds to f32 and then to bf16. */
    return reference_bf16_round(round_to_f32(reference_fp8_value(byte, fp8) * scale));
}

/* ---- section 2: where a token lies, and its d_qk values ---- */

static void decode_token(const mlar_scope_params *scope, const mlar_shape *shape, int32_t slot,
                         uint16_t *key) {
    const uint64_t nope = (uint64_t)shape->nope, rope = (uint64_t)shape->rope;
    const uint64_t block_size = scope->block_size;
    const uint64_t block = (uint64_t)slot / block_size, offset = (uint64_t)slot % block_size;
    const uint8_t *begin = scope->cache + block * scope->block_stride_bytes;
    if (scope->layout == 0) { /* dsv4 */
        const uint8_t *token = begin + offset * (nope + 2 * rope);
        const uint8_t *scales = begin + block_size * (nope + 2 * rope) + offset * 8;
        for (uint64_t d = 0; d < nope; ++d)
            key[d] = reference_dequantise(token[d], scope->fp8, reference_e8m0_value(scales[d / 64]));
        memcpy(key + nope, token + nope, 2 * rope);
    } else if (scope->layout == 1) { /* v32 */
        const uint8_t *token = begin + offset * (nope + nope / 128 * 4 + 2 * rope);
        for (uint64_t d = 0; d < nope; ++d) {
            float scale;
            memcpy(&scale, token + nope + d / 128 * 4, sizeof scale);
            key[d] = reference_dequantise(token[d], scope->fp8, scale);
        }
        memcpy(key + nope, token + nope + nope / 128 * 4, 2 * rope);
    } else { /* bf16 */
        memcpy(key, begin + offset * 2 * (nope + rope), 2 * (nope + rope));
    }
}

/* ---- section 4: which entries count ---- */

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* The row's list in one scope, and its length. */
static int32_t row_list(const mlar_scope_params *scope, int32_t row, const int32_t **entries) {
    if (scope->list_form == 1) { /* ragged */
        const int64_t begin = scope->lens[row], end = scope->lens[row + 1];
        if (begin < 0 || end <= begin) return 0;
        *entries = scope->indices + begin;
        return (int32_t)clamp(end - begin, 0, scope->width);
    }
    *entries = scope->width ? scope->indices + row * scope->index_row_stride : NULL;
    return scope->lens ? (int32_t)clamp(scope->lens[row / scope->rows_per_len], 0, scope->width)
                       : scope->width;
}

/* ---- section 5: attention ---- */

static void evaluate_head(const mlar_layer_params *layer, reference *result, int32_t row, int32_t head,
                          const double *keys, int64_t count, double *scores) {
    const int64_t at = (int64_t)row * result->heads + head;
    const uint16_t *q = layer->q + row * layer->q_row_stride + head * layer->q_head_stride;
    double *out = result->out + at * result->d_v;
    double query[MLAR_MAX_D_QK], max = -INFINITY, sum = 0, lse, factor = 1;
    bool q_is_nan = false, too_large = false, finite = true;
    memset(out, 0, (size_t)result->d_v * sizeof *out);
    result->lse[at] = -INFINITY;
    result->verdict[at] = REFERENCE_SPECIFIED;
    if (count == 0) return;

    for (int32_t d = 0; d < result->d_qk; ++d) {
        query[d] = reference_bf16_value(q[d]);
        q_is_nan |= isnan(query[d]) != 0;
    }
    for (int64_t j = 0; j < count; ++j) {
        double dot = 0, magnitude = 0;
        for (int32_t d = 0; d < result->d_qk; ++d) {
            dot += query[d] * keys[j * result->d_qk + d];
            magnitude += fabs(query[d] * keys[j * result->d_qk + d]);
        }
        scores[j] = layer->scale * dot;
        result->products[at] = fmax(result->products[at], fabs((double)layer->scale) * magnitude);
        too_large |= !(fabs(scores[j]) < ldexp(1.0, 126));
        if (scores[j] > max) max = scores[j];
    }
    for (int64_t j = 0; j < count; ++j) sum += exp(scores[j] - max);
    lse = max + log(sum);
    /* exp(s - lse) = exp(s - max) / sum, without the digits that lse loses where the scores are huge. */
    for (int64_t j = 0; j < count; ++j) {
        const double p = exp(scores[j] - max) / sum;
        for (int32_t d = 0; d < result->d_v; ++d) out[d] += p * keys[j * result->d_qk + d];
    }
    if (layer->sink) factor = 1 / (1 + exp(layer->sink[head] - max) / sum);
    for (int32_t d = 0; d < result->d_v; ++d) {
        out[d] *= factor;
        finite &= isfinite(out[d]) != 0;
    }
    result->lse[at] = lse;
    if (q_is_nan)
        result->verdict[at] = REFERENCE_NAN;
    else if (too_large || !finite || !isfinite(lse))
        result->verdict[at] = REFERENCE_UNSPECIFIED;
}

static void *need(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) abort();
    return memory;
}

static void evaluate_row(const mlar_layer_params *layer, const mlar_shape *shape, reference *result,
                         int32_t row, double *keys, double *scores) {
    const int32_t d_qk = result->d_qk;
    int64_t count = 0;
    for (int32_t s = 0; s < layer->scope_count; ++s) {
        const mlar_scope_params *scope = &layer->scope[s];
        const int32_t *entries = NULL;
        const int32_t length = row_list(scope, row, &entries);
        for (int32_t j = 0; j < length; ++j) {
            const int64_t place = (int64_t)row * scope->width + j;
            uint16_t *key = result->gathered[s] + place * d_qk;
            if (entries[j] < 0 || entries[j] >= (int64_t)scope->num_slots) {
                result->invalid += entries[j] != -1;
                continue;
            }
            decode_token(scope, shape, entries[j], key);
            result->counts[s][place] = 1;
            for (int32_t d = 0; d < d_qk; ++d) {
                const double value = reference_bf16_value(key[d]);
                keys[count * d_qk + d] = isnan(value) ? 0 : value;
            }
            ++count;
        }
    }
    for (int32_t head = 0; head < result->heads; ++head)
        evaluate_head(layer, result, row, head, keys, count, scores);
}

reference *reference_new(const mlar_layer_params *layer, const mlar_shape *shape, int32_t rows) {
    reference *result = need(1, sizeof *result);
    const size_t heads = (size_t)rows * (size_t)shape->heads;
    size_t keys_max = 0;
    double *keys, *scores;
    result->rows = rows;
    result->heads = shape->heads;
    result->d_qk = shape->d_qk;
    result->d_v = shape->d_v;
    result->out = need(heads * (size_t)shape->d_v, sizeof *result->out);
    result->lse = need(heads, sizeof *result->lse);
    result->products = need(heads, sizeof *result->products);
    result->verdict = need(heads, sizeof *result->verdict);
    for (int32_t s = 0; s < layer->scope_count; ++s) {
        const size_t width = (size_t)layer->scope[s].width;
        result->width[s] = layer->scope[s].width;
        result->gathered[s] = need((size_t)rows * width * (size_t)shape->d_qk, sizeof **result->gathered);
        result->counts[s] = need((size_t)rows * width, sizeof **result->counts);
        keys_max += width;
    }
    keys = need(keys_max * (size_t)shape->d_qk, sizeof *keys);
    scores = need(keys_max, sizeof *scores);
    for (int32_t row = 0; row < rows; ++row) evaluate_row(layer, shape, result, row, keys, scores);
    free(keys);
    free(scores);
    return result;
}

void reference_free(reference *result) {
    if (!result) return;
    for (int32_t s = 0; s < MLAR_MAX_SCOPES; ++s) {
        free(result->gathered[s]);
        free(result->counts[s]);
    }
    free(result->out);
    free(result->lse);
    free(result->products);
    free(result->verdict);
    free(result);
}
