/* SPDX-License-Identifier: Apache-2.0
 *
 * vector_avx512.h: sixteen f32 lanes, in the words that the tile_*.h files use.
 *
 * vector_avx2.h says the same with eight lanes; a variant includes one of the two first. Needs AVX2, FMA,
 * F16C and AVX-512 F, BW, DQ and VL. This file knows no attention and no layout of caches or scratch. */
#ifndef MLAR_KERNELS_CPU_VECTOR_AVX512_H
#define MLAR_KERNELS_CPU_VECTOR_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define VFN static inline __attribute__((always_inline))

enum { V_LANES = 16 };

typedef __m512 v_f32;
typedef __m512i v_u32;

VFN v_f32 v_zero(void) {
    return _mm512_setzero_ps();
}
VFN v_f32 v_set(float x) {
    return _mm512_set1_ps(x);
}
VFN v_f32 v_load(const float *from) {
    return _mm512_loadu_ps(from);
}
VFN void v_store(float *to, v_f32 x) {
    _mm512_storeu_ps(to, x);
}
VFN v_f32 v_add(v_f32 a, v_f32 b) {
    return _mm512_add_ps(a, b);
}
VFN v_f32 v_sub(v_f32 a, v_f32 b) {
    return _mm512_sub_ps(a, b);
}
VFN v_f32 v_mul(v_f32 a, v_f32 b) {
    return _mm512_mul_ps(a, b);
}
VFN v_f32 v_fma(v_f32 a, v_f32 b, v_f32 c) {
    return _mm512_fmadd_ps(a, b, c);
} /* a * b + c */
VFN v_f32 v_minus_product(v_f32 c, v_f32 a, v_f32 b) {
    return _mm512_fnmadd_ps(a, b, c);
} /* c - a * b */
VFN v_f32 v_max(v_f32 a, v_f32 b) {
    return _mm512_max_ps(a, b);
} /* one is NaN: b */
VFN v_f32 v_nearest(v_f32 x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* fraction * 2^power (a whole number) where x >= least, 0 below; a NaN fraction stays one where x is NaN. */
VFN v_f32 v_scale_if(v_f32 x, v_f32 least, v_f32 fraction, v_f32 power) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ), fraction, power);
}

VFN v_u32 v_bits(v_f32 x) {
    return _mm512_castps_si512(x);
}
VFN v_f32 v_from_bits(v_u32 x) {
    return _mm512_castsi512_ps(x);
}
VFN v_u32 v_set_u32(uint32_t x) {
    return _mm512_set1_epi32((int32_t)x);
}
VFN v_u32 v_load_u32(const void *from) {
    return _mm512_loadu_si512(from);
}
VFN v_u32 v_add_u32(v_u32 a, v_u32 b) {
    return _mm512_add_epi32(a, b);
}
VFN v_u32 v_and(v_u32 a, v_u32 b) {
    return _mm512_and_si512(a, b);
}
VFN v_u32 v_or(v_u32 a, v_u32 b) {
    return _mm512_or_si512(a, b);
}
VFN v_u32 v_shift_left(v_u32 x, unsigned by) {
    return _mm512_slli_epi32(x, by);
}
VFN v_u32 v_shift_right(v_u32 x, unsigned by) {
    return _mm512_srli_epi32(x, by);
}

/* Two vectors from 2 * V_LANES fp8 values: value * 2^-8 (FNUZ: 2^-7), NaN as 0. An e4m3 byte spread over an
 * f16 (which has one exponent bit more and a bias greater by 8, 7) is such a value, subnormals included, and
 * the conversion of f16 to f32 is exact. `nan_or` and `nan_is`: the byte is NaN if byte | nan_or == nan_is.
 */
VFN void v_load_fp8(const uint8_t *from, uint8_t nan_or, uint8_t nan_is, v_f32 *low, v_f32 *high) {
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)from);
    const __m256i test = _mm256_or_si256(bytes, _mm256_set1_epi8((char)nan_or));
    const __mmask32 numbers = _mm256_cmpneq_epi8_mask(test, _mm256_set1_epi8((char)nan_is));
    __m512i words = _mm512_cvtepi8_epi16(_mm256_maskz_mov_epi8(numbers, bytes));
    words = _mm512_and_si512(_mm512_slli_epi16(words, 7), _mm512_set1_epi16((int16_t)0xbf80));
    *low = _mm512_cvtph_ps(_mm512_castsi512_si256(words));
    *high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1));
}

/* Is there a NaN among 64 fp8? */
VFN int v_any_nan_fp8(const uint8_t *from, uint8_t nan_or, uint8_t nan_is) {
    const __m512i test = _mm512_or_si512(_mm512_loadu_si512(from), _mm512_set1_epi8((char)nan_or));
    return _mm512_cmpeq_epi8_mask(test, _mm512_set1_epi8((char)nan_is)) != 0;
}

/* Two vectors from 2 * V_LANES bf16 values, NaN as 0. */
VFN void v_load_bf16(const void *from, v_f32 *low, v_f32 *high) {
    const __m512i words = _mm512_loadu_si512(from);
    const __m512i size = _mm512_and_si512(words, _mm512_set1_epi16(0x7fff));
    const __mmask32 numbers = _mm512_cmple_epi16_mask(size, _mm512_set1_epi16(0x7f80));
    const __m512i clean = _mm512_maskz_mov_epi16(numbers, words);
    *low = v_from_bits(v_shift_left(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(clean)), 16));
    *high = v_from_bits(v_shift_left(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(clean, 1)), 16));
}

/* bf16 in the upper half of each lane, to nearest even; what becomes of NaN is the caller's to know. */
VFN v_u32 v_round_bf16(v_f32 x) {
    const v_u32 odd = v_and(v_shift_right(v_bits(x), 16), v_set_u32(1));
    return v_add_u32(v_add_u32(v_bits(x), v_set_u32(0x7fff)), odd);
}

/* 2 * V_LANES bf16 values, to nearest even, NaN as NaN. */
VFN void v_store_bf16(uint16_t *to, v_f32 low, v_f32 high) {
    const v_u32 nan = v_set_u32(0x7fc00000);
    const v_u32 a = _mm512_mask_mov_epi32(v_round_bf16(low), _mm512_cmp_ps_mask(low, low, _CMP_UNORD_Q), nan);
    const v_u32 b =
        _mm512_mask_mov_epi32(v_round_bf16(high), _mm512_cmp_ps_mask(high, high, _CMP_UNORD_Q), nan);
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(v_shift_right(a, 16)));
    _mm256_storeu_si256((__m256i *)(void *)(to + V_LANES), _mm512_cvtepi32_epi16(v_shift_right(b, 16)));
}

/* rows[i] lane j <-> rows[j] lane i. */
VFN void v_transpose(v_u32 rows[V_LANES]) {
    v_u32 pair[V_LANES];
    for (int i = 0; i < V_LANES; i += 2) {
        pair[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pair[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < V_LANES; i += 4) {
        rows[i] = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
        rows[i + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
        rows[i + 2] = _mm512_unpacklo_epi64(pair[i + 1], pair[i + 3]);
        rows[i + 3] = _mm512_unpackhi_epi64(pair[i + 1], pair[i + 3]);
    }
    for (int i = 0; i < 4; ++i) { /* now 4 x 4 of 128-bit lanes: rows i, 4 + i, 8 + i, 12 + i */
        const v_u32 a = _mm512_shuffle_i32x4(rows[i], rows[4 + i], 0x88);
        const v_u32 b = _mm512_shuffle_i32x4(rows[i], rows[4 + i], 0xdd);
        const v_u32 c = _mm512_shuffle_i32x4(rows[8 + i], rows[12 + i], 0x88);
        const v_u32 d = _mm512_shuffle_i32x4(rows[8 + i], rows[12 + i], 0xdd);
        pair[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        pair[4 + i] = _mm512_shuffle_i32x4(b, d, 0x88);
        pair[8 + i] = _mm512_shuffle_i32x4(a, c, 0xdd);
        pair[12 + i] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int i = 0; i < V_LANES; ++i) rows[i] = pair[i];
}

#endif
