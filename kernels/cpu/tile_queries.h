/* SPDX-License-Identifier: Apache-2.0
 *
 * tile_queries.h: a row's queries -> the transposed words of tile_math.h, once per part. Included after
 * tile_math.h. The softmax scale is worked in here as far as it can be; what is left of it comes out with the
 * scores, in tile_scaled(). It must not know keys. */
#ifndef MLAR_KERNELS_CPU_TILE_QUERIES_H
#define MLAR_KERNELS_CPU_TILE_QUERIES_H

/* bf16 [heads][elements] of one row. */
typedef struct tile_row {
    const uint16_t *q;
    int64_t head_stride;
    int32_t elements;
} tile_row;

/* V_LANES words of a head, from element `from` on; zeros past its end. */
VFN v_u32 tile_query_words(const tile_row *row, int32_t head, int32_t from) {
    const uint16_t *elements = row->q + head * row->head_stride + from;
    uint16_t rest[2 * V_LANES] = {0};
    if (from + 2 * V_LANES <= row->elements) return v_load_u32(elements);
    if (from < row->elements) memcpy(rest, elements, (size_t)(row->elements - from) * sizeof *rest);
    return v_load_u32(rest);
}

/* Word i, of V_LANES neighbouring heads: their elements from + 2 * i and the next. Heads that are not there
 * are zeros. Returns how many words the columns have room for. */
VFN int32_t tile_transposed_words(const tile_state *state, const tile_row *row, int32_t head, int32_t from,
                                  v_u32 words[V_LANES]) {
    const int32_t room = (state->columns - from) / 2;
    for (int32_t i = 0; i < V_LANES; ++i)
        words[i] = head + i < state->heads ? tile_query_words(row, head + i, from) : v_set_u32(0);
    v_transpose(words);
    return room < V_LANES ? room : V_LANES;
}

#if TILE_PACK == 1

/* The scale goes into the queries, where no sum overflows that the scaled score does not; a scale above 1,
 * which could take the queries themselves out of range, comes after. */
static void tile_load_queries(tile_state *state, const tile_row *row, float scale) {
    const int32_t before = scale >= -1.0f && scale <= 1.0f;
    const v_f32 factor = v_set(before ? scale : 1.0f);
    for (int32_t head = 0; head < state->lanes; head += V_LANES) {
        for (int32_t from = 0; from < state->columns; from += 2 * V_LANES) {
            v_u32 words[V_LANES];
            const int32_t count = tile_transposed_words(state, row, head, from, words);
            int32_t stride;
            float *at = tile_queries_at(state, from, head, &stride);
            for (int32_t i = 0; i < count; ++i, at += 2 * stride) {
                const v_f32 even = v_from_bits(v_shift_left(words[i], 16));
                const v_f32 odd = v_from_bits(v_and(words[i], v_set_u32(0xffff0000u)));
                v_store(at, v_mul(even, factor));
                v_store(at + stride, v_mul(odd, factor));
            }
        }
        v_store(state->fraction + head, v_set(before ? 1.0f : scale));
    }
}

#else

/* Multiplies V_LANES heads' queries by 2^power, each head by its own. */
VFN void tile_shift_queries(tile_state *state, int32_t head, v_f32 power) {
    const v_u32 upper = v_set_u32(0xffff0000u);
    for (int32_t column = 0; column < state->columns; column += TILE_PANEL) {
        const int32_t steps = tile_panel_width(state->columns, column) / 2;
        int32_t stride;
        float *at = tile_queries_at(state, column, head, &stride);
        for (int32_t i = 0; i < steps; ++i, at += stride) {
            const v_u32 words = v_load_u32(at);
            const v_f32 even = _mm512_scalef_ps(v_from_bits(v_shift_left(words, 16)), power);
            const v_f32 odd = _mm512_scalef_ps(v_from_bits(v_and(words, upper)), power);
            v_store(at, v_from_bits(v_or(v_shift_right(v_bits(even), 16), v_and(v_bits(odd), upper))));
        }
    }
}

/* The units take subnormal operands as zero, and sums in f32 can overflow though the scaled score would not.
 * So each head's largest |q| is brought below 2^-10 by a power of two, which is exact (but for elements 2^116
 * times smaller) and leaves 640 products with bf16 no way to overflow; the power comes out with the scale. */
static void tile_load_queries(tile_state *state, const tile_row *row, float scale) {
    const int32_t is_zero = scale == 0; /* its power would be -inf, which makes 0 of a NaN */
    const v_f32 fraction =
        is_zero ? v_set(scale) : _mm512_getmant_ps(v_set(scale), _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_src);
    const v_f32 scale_power = is_zero ? v_set(0.0f) : v_add(_mm512_getexp_ps(v_set(scale)), v_set(1.0f));
    for (int32_t head = 0; head < state->lanes; head += V_LANES) {
        v_u32 largest = v_set_u32(0x00800000); /* what a head of zeros is taken for */
        v_f32 power;
        for (int32_t from = 0; from < state->columns; from += 2 * V_LANES) {
            v_u32 words[V_LANES];
            const int32_t count = tile_transposed_words(state, row, head, from, words);
            int32_t stride;
            float *at = tile_queries_at(state, from, head, &stride);
            for (int32_t i = 0; i < count; ++i, at += stride) {
                const v_u32 even = v_shift_left(v_and(words[i], v_set_u32(0x7fff)), 16);
                const v_u32 odd = v_and(words[i], v_set_u32(0x7fff0000u));
                largest = _mm512_max_epu32(largest, _mm512_max_epu32(even, odd));
                v_store(at, v_from_bits(words[i]));
            }
        }
        /* Infinity and NaN, which no power mends, stay what they are. */
        largest = _mm512_min_epu32(largest, v_set_u32(0x7f7fffff));
        power = v_sub(v_set(-11.0f), _mm512_getexp_ps(v_from_bits(largest)));
        tile_shift_queries(state, head, power);
        v_store(state->fraction + head, fraction);
        v_store(state->power + head, v_sub(scale_power, power));
    }
}

#endif

#endif
