/* SPDX-License-Identifier: Apache-2.0
 *
 * numeric.h: the number formats of the caches, bit for bit: bf16, fp8 e4m3 (OCP and FNUZ), e8m0.
 *
 * One source for C11, HIP and CUDA. Every conversion works on the bits with integer arithmetic, so it gives
 * the same result whatever the caller's floating-point mode is (flush-to-zero, directed rounding) and
 * whatever the compiler contracts. Nothing here rounds in any way but to nearest, ties to even. The file
 * knows no cache, no row and no attention.
 *
 * Formats, with x the fraction bits:
 *     bf16     sign 1, exponent 8 (bias 127), fraction 7: the upper half of an f32
 *     e4m3fn   sign 1, exponent 4 (bias 7), fraction 3; largest 448, no inf, NaN = s.1111.111, has -0
 *     e4m3fnuz sign 1, exponent 4 (bias 8), fraction 3; largest 240, no inf, NaN = 0x80, no -0
 *     e8m0     exponent 8 (bias 127): 2^(b - 127), b = 0 is 2^-127, b = 255 is NaN
 */
#ifndef MLAR_KERNELS_NUMERIC_H
#define MLAR_KERNELS_NUMERIC_H

#include <stdint.h>

#include "mlarena/kv_cache.h" /* MLAR_FP8_* */

/* How a function of this folder's shared headers is spelled. HIP comes first: its sources are compiled
 * without any HIP header, where only the attribute exists. */
#ifndef MLAR_FN
#if defined(__HIP__)
#define MLAR_FN static inline __attribute__((device))
#elif defined(__CUDACC__)
#define MLAR_FN static inline __device__
#else
#define MLAR_FN static inline
#endif
#endif

#define MLAR_F32_INF_BITS 0x7f800000u
#define MLAR_F32_NAN_BITS 0x7fc00000u
#define MLAR_F32_SIGN_BIT 0x80000000u

/* ---- f32 and its bits ---- */

MLAR_FN uint32_t mlar_f32_bits(float value) {
#if defined(__CUDACC__) && !defined(__HIP__)
    return __float_as_uint(value);
#else
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

MLAR_FN float mlar_f32_from_bits(uint32_t bits) {
#if defined(__CUDACC__) && !defined(__HIP__)
    return __uint_as_float(bits);
#else
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

/* Bits needed to write `value` (1..2^32-1); 0 is not asked for. */
MLAR_FN int32_t mlar_bit_length(uint32_t value) {
#if defined(__CUDACC__) && !defined(__HIP__)
    return 32 - __clz((int)value);
#else
    return 32 - __builtin_clz(value);
#endif
}

MLAR_FN int32_t mlar_f32_bits_is_nan(uint32_t bits) {
    return (bits & ~MLAR_F32_SIGN_BIT) > MLAR_F32_INF_BITS;
}

/* value / 2^shift, to nearest, ties to even. Any shift >= 0. */
MLAR_FN uint32_t mlar_shift_right_even(uint32_t value, int32_t shift) {
    uint32_t kept, rest, half;
    if (shift <= 0) return value;
    if (shift > 31) return 0; /* callers pass less than 2^31: below one half */
    kept = value >> shift;
    rest = value & ((1u << shift) - 1);
    half = 1u << (shift - 1);
    return kept + (uint32_t)(rest > half || (rest == half && (kept & 1)));
}

/* f32 bits of mantissa * 2^exponent (mantissa < 2^31), rounded once: subnormals kept, overflow to inf. */
MLAR_FN uint32_t mlar_f32_bits_from_scaled(uint32_t mantissa, int32_t exponent) {
    int32_t unit, shift;
    uint32_t digits;
    if (mantissa == 0) return 0;
    /* 2^unit is the place of the last digit kept: 24 digits, or down to the last subnormal place. */
    unit = exponent + mlar_bit_length(mantissa) - 24;
    if (unit < -149) unit = -149;
    if (unit > 104) return MLAR_F32_INF_BITS;
    shift = unit - exponent;
    digits = shift > 0 ? mlar_shift_right_even(mantissa, shift) : mantissa << -shift;
    /* The leading digit adds 1 to the exponent field; so does a carry out of the rounding, up to inf. */
    return ((uint32_t)(unit + 149) << 23) + digits;
}

/* ---- bf16 ---- */

MLAR_FN int32_t mlar_bf16_is_nan(uint16_t bits) {
    return (bits & 0x7fffu) > 0x7f80u;
}

/* Attention takes NaN elements of K and V as 0 (SPEC section 5). */
MLAR_FN uint16_t mlar_bf16_nan_to_zero(uint16_t bits) {
    return mlar_bf16_is_nan(bits) ? (uint16_t)0 : bits;
}

/* Exact. */
MLAR_FN uint32_t mlar_bf16_to_f32_bits(uint16_t bits) {
    return (uint32_t)bits << 16;
}
MLAR_FN float mlar_bf16_to_f32(uint16_t bits) {
    return mlar_f32_from_bits((uint32_t)bits << 16);
}

/* A NaN keeps its sign and becomes quiet, so that it cannot round to inf. */
MLAR_FN uint16_t mlar_bf16_from_f32_bits(uint32_t bits) {
    if (mlar_f32_bits_is_nan(bits)) return (uint16_t)((bits >> 16) | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

MLAR_FN uint16_t mlar_bf16_from_f32(float value) {
    return mlar_bf16_from_f32_bits(mlar_f32_bits(value));
}

/* ---- e8m0 ---- */

/* Exact; 0 is the f32 subnormal 2^-127, 255 is NaN. */
MLAR_FN uint32_t mlar_e8m0_to_f32_bits(uint8_t byte) {
    if (byte == 0) return 0x00400000u;
    if (byte == 255) return MLAR_F32_NAN_BITS;
    return (uint32_t)byte << 23;
}

/* ---- fp8 ---- */

MLAR_FN int32_t mlar_fp8_is_nan(uint8_t byte, int32_t fp8) {
    return fp8 == MLAR_FP8_E4M3FNUZ ? byte == 0x80 : (byte & 0x7f) == 0x7f;
}

/* |fp8 value| = mlar_fp8_mantissa * 2^mlar_fp8_exponent, for a byte that is not NaN. */
MLAR_FN uint32_t mlar_fp8_mantissa(uint8_t byte) {
    return (byte & 0x78) ? (byte & 7u) | 8u : (byte & 7u);
}

MLAR_FN int32_t mlar_fp8_exponent(uint8_t byte, int32_t fp8) {
    int32_t field = (byte >> 3) & 15;
    return (field ? field : 1) - (fp8 == MLAR_FP8_E4M3FNUZ ? 11 : 10); /* bias + 3 fraction bits */
}

/* Exact; NaN gives NaN. */
MLAR_FN uint32_t mlar_fp8_to_f32_bits(uint8_t byte, int32_t fp8) {
    if (mlar_fp8_is_nan(byte, fp8)) return MLAR_F32_NAN_BITS;
    return ((uint32_t)(byte & 0x80) << 24) |
           mlar_f32_bits_from_scaled(mlar_fp8_mantissa(byte), mlar_fp8_exponent(byte, fp8));
}

/* f32(fp8) * f32(scale), the scale given by its bits: the IEEE product, inf and NaN included. The product of
 * 4 by 24 digits has 28, so the integer product is exact and is rounded once. */
MLAR_FN uint32_t mlar_fp8_times_f32_bits(uint8_t byte, int32_t fp8, uint32_t scale_bits) {
    uint32_t sign = (((uint32_t)byte << 24) ^ scale_bits) & MLAR_F32_SIGN_BIT;
    uint32_t field = (scale_bits >> 23) & 255u;
    uint32_t fraction = scale_bits & 0x7fffffu;
    uint32_t mantissa = mlar_fp8_mantissa(byte);
    int32_t exponent = mlar_fp8_exponent(byte, fp8);
    if (mlar_fp8_is_nan(byte, fp8) || mlar_f32_bits_is_nan(scale_bits)) return MLAR_F32_NAN_BITS;
    if (field == 255u) return mantissa ? sign | MLAR_F32_INF_BITS : MLAR_F32_NAN_BITS; /* 0 * inf */
    if (field) fraction |= 0x800000u;
    return sign |
           mlar_f32_bits_from_scaled(mantissa * fraction, exponent + (int32_t)(field ? field : 1u) - 150);
}

/* SPEC section 3: k = bf16(f32(fp8) * f32(scale)). Two roundings where the first is not exact (f32 scales),
 * as the definition says; for e8m0 scales the product is exact or inf. */
MLAR_FN uint16_t mlar_bf16_dequantise(uint8_t byte, int32_t fp8, uint32_t scale_bits) {
    return mlar_bf16_from_f32_bits(mlar_fp8_times_f32_bits(byte, fp8, scale_bits));
}

/* To nearest, ties to even; what is too large (inf included) becomes the largest value of its sign, NaN
 * becomes NaN: what the hosts' cache writers do. FNUZ has no -0, so what rounds to it becomes 0. */
MLAR_FN uint8_t mlar_fp8_from_f32_bits(uint32_t bits, int32_t fp8) {
    int32_t fnuz = fp8 == MLAR_FP8_E4M3FNUZ;
    uint32_t sign = (bits >> 24) & 0x80u;
    uint32_t magnitude = bits & ~MLAR_F32_SIGN_BIT;
    uint32_t largest = fnuz ? 0x7fu : 0x7eu;
    uint32_t field = magnitude >> 23;
    int32_t last_place = fnuz ? -10 : -9; /* 2^last_place is the smallest subnormal */
    int32_t exponent, unit;
    uint32_t code;
    if (magnitude > MLAR_F32_INF_BITS) return fnuz ? (uint8_t)0x80 : (uint8_t)(sign | 0x7fu);
    if (field == 0) return fnuz ? (uint8_t)0 : (uint8_t)sign; /* an f32 subnormal is far below fp8's */
    exponent = (int32_t)field - 150;                          /* value = (fraction + 2^23) * 2^exponent */
    unit = exponent + 20;                                     /* keep 4 digits ... */
    if (unit < last_place) unit = last_place;                 /* ... or down to the last subnormal place */
    if (unit > 10) return (uint8_t)(sign | largest);
    code = mlar_shift_right_even((magnitude & 0x7fffffu) | 0x800000u, unit - exponent) +
           ((uint32_t)(unit - last_place) << 3); /* the leading digit and a carry add to the exponent field */
    if (code > largest) code = largest;
    return (uint8_t)(fnuz && code == 0 ? 0 : sign | code);
}

/* The least e8m0 scale byte with amax <= 2^(byte - 127) * largest fp8 value, or 0: what "UE8M0" cache writers
 * mean by a power of two rounded up. `amax_bits` are the bits of a finite, non-negative f32. */
MLAR_FN uint8_t mlar_e8m0_for_amax(uint32_t amax_bits, int32_t fp8) {
    int32_t fnuz = fp8 == MLAR_FP8_E4M3FNUZ;
    uint32_t fraction = amax_bits & 0x7fffffu;
    /* 448 = 1.75 * 2^8, 240 = 1.875 * 2^7. */
    int32_t byte = (int32_t)(amax_bits >> 23) - (fnuz ? 7 : 8);
    if (fraction > (fnuz ? 0x700000u : 0x600000u)) byte += 1;
    return (uint8_t)(byte < 0 ? 0 : byte);
}

#endif
