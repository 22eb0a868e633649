/* SPDX-License-Identifier: Apache-2.0
 *
 * tile_queries.h: a row's queries -> the transposed words of tile_math.h, once per part. Included after
 * tile_math.h. The softmax scale is worked in here as far as it can be; what is left of it comes out with the
 * scores, in tile_scaled(). It must not know keys. */
#ifndef MLAR_KERNELS_CPU_TILE_QUERIES_H
#define MLAR_KERNELS_CPU_TILE_QUERIES_H

/* V_LANES words of a row of `elements` bf16, from element `from` on; zeros past its end. */
VFN v_u32 tile_query_words(const uint16_t *row, int32_t from, int32_t elements) {
    uint16_t rest[2 * V_LANES] = {0};
    if (from + 2 * V_LANES <= elements) return v_load_u32(row + from);
    if (from < elements) memcpy(rest, row + from, (size_t)(elements - from) * sizeof *rest);
    return v_load_u32(rest);
}

#if TILE_PACK == 1

/* The scale goes into the queries, where no sum overflows that the scaled score does not; a scale above 1,
 * which could take the queries themselves out of range, comes after. */
static void tile_scale_queries(tile_state *state, float scale) {
    const int32_t before = scale >= -1.0f && scale <= 1.0f;
    const v_f32 factor = v_set(before ? scale : 1.0f);
    for (int32_t i = 0; i < state->lanes * state->columns; i += V_LANES)
        v_store(state->queries + i, v_mul(v_load(state->queries + i), factor));
    for (int32_t head = 0; head < state->lanes; ++head) state->fraction[head] = before ? 1.0f : scale;
}

#else

/* The units take subnormal operands as zero, and sums in f32 can overflow though the scaled score would not.
 * So each head's largest |q| is brought below 2^-10 by a power of two, which is exact (but for elements 2^116
 * times smaller) and leaves 640 products with bf16 no way to overflow; the power comes out with the scale. */
static void tile_scale_queries(tile_state *state, float scale) {
    const v_u32 upper = v_set_u32(0xffff0000u);
    const v_f32 fraction = _mm512_getmant_ps(v_set(scale), _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_src);
    const v_f32 scale_power = v_add(_mm512_getexp_ps(v_set(scale)), v_set(1.0f));
    for (int32_t head = 0; head < state->lanes; head += V_LANES) {
        v_u32 largest = v_set_u32(0x00800000); /* a head of zeros */
        v_f32 power;
        int32_t stride;
        for (int32_t column = 0; column < state->columns; column += TILE_PANEL) {
            const float *at = tile_queries_at(state, column, head, &stride);
            for (int32_t i = 0; i < tile_panel_width(state->columns, column) / 2; ++i) {
                const v_u32 words = v_load_u32(at + i * stride);
                const v_u32 even = v_shift_left(v_and(words, v_set_u32(0x7fff)), 16);
                const v_u32 odd = v_and(words, v_set_u32(0x7fff0000u));
                largest = _mm512_max_epu32(largest, _mm512_max_epu32(even, odd));
            }
        }
        /* Infinity and NaN, which no power mends, stay what they are. */
        largest = _mm512_min_epu32(largest, v_set_u32(0x7f7fffff));
        power = v_sub(v_set(-11.0f), _mm512_getexp_ps(v_from_bits(largest)));
        for (int32_t column = 0; column < state->columns; column += TILE_PANEL) {
            float *at = tile_queries_at(state, column, head, &stride);
            for (int32_t i = 0; i < tile_panel_width(state->columns, column) / 2; ++i) {
                const v_u32 words = v_load_u32(at + i * stride);
                const v_f32 even = _mm512_scalef_ps(v_from_bits(v_shift_left(words, 16)), power);
                const v_f32 odd = _mm512_scalef_ps(v_from_bits(v_and(words, upper)), power);
                const v_u32 scaled = v_or(v_shift_right(v_bits(even), 16), v_and(v_bits(odd), upper));
                v_store(at + i * stride, v_from_bits(scaled));
            }
        }
        v_store(state->fraction + head, fraction);
        v_store(state->power + head, v_sub(scale_power, power));
    }
}

#endif

/* bf16 q[state->heads][elements], heads q_stride apart -> transposed words, padded with zeros both ways. */
static void tile_load_queries(tile_state *state, const uint16_t *q, int64_t q_stride, int32_t elements,
                              float scale) {
    for (int32_t head = 0; head < state->lanes; head += V_LANES) {
        for (int32_t from = 0; from < state->columns; from += 2 * V_LANES) {
            const int32_t column = from / TILE_PANEL * TILE_PANEL, rest = state->columns - from;
            int32_t stride;
            float *at = tile_queries_at(state, column, head, &stride) + (from - column) / TILE_PACK * stride;
            v_u32 words[V_LANES];
            for (int32_t i = 0; i < V_LANES; ++i)
                words[i] = head + i < state->heads
                               ? tile_query_words(q + (head + i) * q_stride, from, elements)
                               : v_set_u32(0);
            v_transpose(words);
            for (int32_t i = 0; i < V_LANES && 2 * i < rest; ++i) {
#if TILE_PACK == 1
                v_store(at + 2 * i * stride, v_from_bits(v_shift_left(words[i], 16)));
                v_store(at + (2 * i + 1) * stride, v_from_bits(v_and(words[i], v_set_u32(0xffff0000u))));
#else
                v_store(at + i * stride, v_from_bits(words[i]));
#endif
            }
        }
    }
    tile_scale_queries(state, scale);
}

#endif
