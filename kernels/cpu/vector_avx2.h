/* SPDX-License-Identifier: Apache-2.0
 *
 * vector_avx2.h: eight f32 lanes, in the words that the tile_*.h files use.
 *
 * vector_avx512.h says the same with sixteen lanes; a variant includes one of the two first. Needs AVX2, FMA
 * and F16C. This file knows no attention and no layout of caches or scratch. */
#ifndef MLAR_KERNELS_CPU_VECTOR_AVX2_H
#define MLAR_KERNELS_CPU_VECTOR_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define VFN static inline __attribute__((always_inline))

enum { V_LANES = 8 };

typedef __m256 v_f32;
typedef __m256i v_u32;

VFN v_f32 v_zero(void) {
    return _mm256_setzero_ps();
}
VFN v_f32 v_set(float x) {
    return _mm256_set1_ps(x);
}
VFN v_f32 v_load(const float *from) {
    return _mm256_loadu_ps(from);
}
VFN void v_store(float *to, v_f32 x) {
    _mm256_storeu_ps(to, x);
}
VFN v_f32 v_add(v_f32 a, v_f32 b) {
    return _mm256_add_ps(a, b);
}
VFN v_f32 v_sub(v_f32 a, v_f32 b) {
    return _mm256_sub_ps(a, b);
}
VFN v_f32 v_mul(v_f32 a, v_f32 b) {
    return _mm256_mul_ps(a, b);
}
VFN v_f32 v_fma(v_f32 a, v_f32 b, v_f32 c) {
    return _mm256_fmadd_ps(a, b, c);
} /* a * b + c */
VFN v_f32 v_minus_product(v_f32 c, v_f32 a, v_f32 b) {
    return _mm256_fnmadd_ps(a, b, c);
} /* c - a * b */
VFN v_f32 v_max(v_f32 a, v_f32 b) {
    return _mm256_max_ps(a, b);
} /* one is NaN: b */
VFN v_f32 v_nearest(v_f32 x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

VFN v_u32 v_bits(v_f32 x) {
    return _mm256_castps_si256(x);
}
VFN v_f32 v_from_bits(v_u32 x) {
    return _mm256_castsi256_ps(x);
}
VFN v_u32 v_set_u32(uint32_t x) {
    return _mm256_set1_epi32((int32_t)x);
}
VFN v_u32 v_load_u32(const void *from) {
    return _mm256_loadu_si256(from);
}
VFN v_u32 v_add_u32(v_u32 a, v_u32 b) {
    return _mm256_add_epi32(a, b);
}
VFN v_u32 v_and(v_u32 a, v_u32 b) {
    return _mm256_and_si256(a, b);
}
VFN v_u32 v_or(v_u32 a, v_u32 b) {
    return _mm256_or_si256(a, b);
}
VFN v_u32 v_shift_left(v_u32 x, unsigned by) {
    return _mm256_slli_epi32(x, (int)by);
}
VFN v_u32 v_shift_right(v_u32 x, unsigned by) {
    return _mm256_srli_epi32(x, (int)by);
}

/* fraction * 2^power (a whole number) where x >= least, 0 below; a NaN fraction stays one where x is NaN. The
 * power is added to the exponent field, so the product must be a normal number. */
VFN v_f32 v_scale_if(v_f32 x, v_f32 least, v_f32 fraction, v_f32 power) {
    const v_u32 scaled = v_add_u32(v_bits(fraction), v_shift_left(_mm256_cvtps_epi32(power), 23));
    return _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_NLT_UQ), v_from_bits(scaled));
}

/* Two vectors from 2 * V_LANES fp8 values: value * 2^-8 (FNUZ: 2^-7), NaN as 0. An e4m3 byte spread over an
 * f16 (which has one exponent bit more and a bias greater by 8, 7) is such a value, subnormals included, and
 * the conversion of f16 to f32 is exact. `nan_or` and `nan_is`: the byte is NaN if byte | nan_or == nan_is.
 */
VFN void v_load_fp8(const uint8_t *from, uint8_t nan_or, uint8_t nan_is, v_f32 *low, v_f32 *high) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)from);
    const __m128i test = _mm_or_si128(bytes, _mm_set1_epi8((char)nan_or));
    const __m128i nan = _mm_cmpeq_epi8(test, _mm_set1_epi8((char)nan_is));
    __m256i words = _mm256_cvtepi8_epi16(_mm_andnot_si128(nan, bytes));
    words = _mm256_and_si256(_mm256_slli_epi16(words, 7), _mm256_set1_epi16((int16_t)0xbf80));
    *low = _mm256_cvtph_ps(_mm256_castsi256_si128(words));
    *high = _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1));
}

/* Is there a NaN among 64 fp8? */
VFN int v_any_nan_fp8(const uint8_t *from, uint8_t nan_or, uint8_t nan_is) {
    const __m256i either = _mm256_set1_epi8((char)nan_or), nan = _mm256_set1_epi8((char)nan_is);
    const __m256i low = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(const void *)from), either);
    const __m256i high =
        _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(const void *)(from + 32)), either);
    return _mm256_movemask_epi8(_mm256_or_si256(_mm256_cmpeq_epi8(low, nan), _mm256_cmpeq_epi8(high, nan))) !=
           0;
}

/* Two vectors from 2 * V_LANES bf16 values, NaN as 0. */
VFN void v_load_bf16(const void *from, v_f32 *low, v_f32 *high) {
    const __m256i words = _mm256_loadu_si256((const __m256i *)from);
    const __m256i size = _mm256_and_si256(words, _mm256_set1_epi16(0x7fff));
    const __m256i nan = _mm256_cmpgt_epi16(size, _mm256_set1_epi16(0x7f80));
    const __m256i clean = _mm256_andnot_si256(nan, words);
    *low = v_from_bits(v_shift_left(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(clean)), 16));
    *high = v_from_bits(v_shift_left(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(clean, 1)), 16));
}

/* bf16 in the upper half of each lane, to nearest even; what becomes of NaN is the caller's to know. */
VFN v_u32 v_round_bf16(v_f32 x) {
    const v_u32 odd = v_and(v_shift_right(v_bits(x), 16), v_set_u32(1));
    return v_add_u32(v_add_u32(v_bits(x), v_set_u32(0x7fff)), odd);
}

/* 2 * V_LANES bf16 values, to nearest even, NaN as NaN. */
VFN void v_store_bf16(uint16_t *to, v_f32 low, v_f32 high) {
    const v_f32 nan = v_from_bits(v_set_u32(0x7fc00000));
    const v_f32 a =
        _mm256_blendv_ps(v_from_bits(v_round_bf16(low)), nan, _mm256_cmp_ps(low, low, _CMP_UNORD_Q));
    const v_f32 b =
        _mm256_blendv_ps(v_from_bits(v_round_bf16(high)), nan, _mm256_cmp_ps(high, high, _CMP_UNORD_Q));
    const __m256i mixed = _mm256_packus_epi32(v_shift_right(v_bits(a), 16), v_shift_right(v_bits(b), 16));
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_permute4x64_epi64(mixed, 0xd8)); /* a, b per 128 bits */
}

/* rows[i] lane j <-> rows[j] lane i. */
VFN void v_transpose(v_u32 rows[V_LANES]) {
    v_u32 pair[V_LANES];
    for (int i = 0; i < V_LANES; i += 2) {
        pair[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        pair[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < V_LANES; i += 4) {
        rows[i] = _mm256_unpacklo_epi64(pair[i], pair[i + 2]);
        rows[i + 1] = _mm256_unpackhi_epi64(pair[i], pair[i + 2]);
        rows[i + 2] = _mm256_unpacklo_epi64(pair[i + 1], pair[i + 3]);
        rows[i + 3] = _mm256_unpackhi_epi64(pair[i + 1], pair[i + 3]);
    }
    for (int i = 0; i < 4; ++i) { /* now 2 x 2 of 128-bit lanes: rows i, 4 + i */
        pair[i] = _mm256_permute2x128_si256(rows[i], rows[4 + i], 0x20);
        pair[4 + i] = _mm256_permute2x128_si256(rows[i], rows[4 + i], 0x31);
    }
    for (int i = 0; i < V_LANES; ++i) rows[i] = pair[i];
}

#endif
