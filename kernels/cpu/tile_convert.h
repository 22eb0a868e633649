/* SPDX-License-Identifier: Apache-2.0
 *
 * tile_convert.h: cached tokens -> the key tile of tile_math.h (NaN as 0), and -> rows of the gather buffer
 * (NaN kept). Conversion is exact: SPEC section 3 bit for bit, but that the key tile may take subnormals as
 * zero.
 *
 * fp8 goes through f16, which holds every e4m3 value, to f32 and is multiplied by its scale there. The
 * product has few enough digits to be exact, or is rounded once where the scale is no power of two, as long
 * as it is a normal number: scales outside 2^-116 .. 2^119 take the integer path of numeric.h. Included after
 * tile_math.h. The file must not know which tokens count, or what becomes of the keys. */
#ifndef MLAR_KERNELS_CPU_TILE_CONVERT_H
#define MLAR_KERNELS_CPU_TILE_CONVERT_H

#include "kernels/numeric.h"
#include "kernels/schedule.h"

/* Where the elements of a token stand in its record, and what they are. */
typedef struct tile_format {
    ptrdiff_t bf16_at;      /* element d, if it is a bf16, stands at record + bf16_at + 2 * d ... */
    int32_t fp8_columns;    /* ... and if it is below this, it is an fp8 at record + d */
    int32_t columns;        /* d_qk */
    int32_t value_columns;  /* d_v: values are the first of the key's elements */
    int32_t scale_is_f32;   /* one f32 for each 128 fp8, else one e8m0 for each 64 */
    int32_t fp8;            /* MLAR_FP8_* */
    uint8_t nan_or, nan_is; /* an fp8 byte is NaN if (byte | nan_or) == nan_is */
} tile_format;

static tile_format tile_format_of(const mlar_scope_params *scope, const mlar_shape *shape, int32_t gathered) {
    const int32_t fnuz = scope->fp8 == MLAR_FP8_E4M3FNUZ;
    const int32_t v32 = scope->layout == MLAR_LAYOUT_V32;
    tile_format format = {
        .columns = shape->d_qk,
        .value_columns = shape->d_v,
        .scale_is_f32 = v32,
        .fp8 = scope->fp8,
        .nan_or = fnuz ? 0 : 0x80,
        .nan_is = fnuz ? 0x80 : 0xff,
    };
    if (!gathered && scope->layout != MLAR_LAYOUT_BF16) {
        format.fp8_columns = shape->nope;
        format.bf16_at = (v32 ? shape->nope / 128 * 4 : 0) - shape->nope;
    }
    return format;
}

/* The counting entries of one tile. */
typedef struct tile_tokens {
    tile_format format;
    int32_t count;
    const uint8_t *record[MLAR_KEY_TILE];
    const uint8_t *scales[MLAR_KEY_TILE];
} tile_tokens;

/* How far a token's record reaches. */
VFN int32_t tile_record_bytes(const tile_format *format) {
    return (int32_t)format->bf16_at + 2 * format->columns;
}

VFN uint32_t tile_scale_bits(const tile_format *format, const uint8_t *scales, int32_t column) {
    uint32_t bits;
    if (!format->scale_is_f32) return mlar_e8m0_to_f32_bits(scales[column / 64]);
    memcpy(&bits, scales + column / 128 * 4, sizeof bits); /* caches may be aligned to 2 bytes only */
    return bits;
}

/* The scale as v_load_fp8() wants it, unless products may be subnormal or the scale is not a finite number.
 */
VFN int32_t tile_fast_scale(const tile_format *format, uint32_t scale_bits, v_f32 *multiplier) {
    const uint32_t exponent = (scale_bits >> 23) & 255;
    const uint32_t more = format->fp8 == MLAR_FP8_E4M3FNUZ ? 7 : 8;
    *multiplier = v_from_bits(v_set_u32(scale_bits + (more << 23)));
    return exponent >= 11 && exponent <= 246;
}

/* 64 fp8 under one scale, by the definition. NaN stays NaN. */
static void tile_exact_panel(const tile_format *format, const uint8_t *from, uint32_t scale_bits,
                             uint16_t *to) {
    for (int32_t i = 0; i < TILE_PANEL; ++i) to[i] = mlar_bf16_dequantise(from[i], format->fp8, scale_bits);
}

#if TILE_PACK == 1

/* ---- key tile, f32 ---- */

/* `count` bf16, then zeros up to `width`. */
VFN void tile_load_bf16(const uint8_t *from, int32_t count, int32_t width, float *to) {
    for (int32_t i = 0; i < width; i += 2 * V_LANES) {
        uint16_t rest[2 * V_LANES] = {0};
        v_f32 low, high;
        if (i + 2 * V_LANES <= count) {
            v_load_bf16(from + 2 * i, &low, &high);
        } else {
            if (i < count) memcpy(rest, from + 2 * i, (size_t)(count - i) * sizeof *rest);
            v_load_bf16(rest, &low, &high);
        }
        v_store(to + i, low);
        if (i + V_LANES < width) v_store(to + i + V_LANES, high);
    }
}

VFN void tile_load_fp8(const tile_format *format, const uint8_t *from, uint32_t scale_bits, float *to) {
    v_f32 scale, low, high;
    if (!tile_fast_scale(format, scale_bits, &scale)) {
        uint16_t exact[TILE_PANEL];
        tile_exact_panel(format, from, scale_bits, exact);
        tile_load_bf16((const uint8_t *)exact, TILE_PANEL, TILE_PANEL, to);
        return;
    }
    for (int32_t i = 0; i < TILE_PANEL; i += 2 * V_LANES) {
        v_load_fp8(from + i, format->nan_or, format->nan_is, &low, &high);
        low = v_mul(low, scale);
        high = v_mul(high, scale);
        if (format->scale_is_f32) {
            low = v_from_bits(v_and(v_round_bf16(low), v_set_u32(0xffff0000u)));
            high = v_from_bits(v_and(v_round_bf16(high), v_set_u32(0xffff0000u)));
        }
        v_store(to + i, low);
        v_store(to + i + V_LANES, high);
    }
}

static void tile_convert(const tile_tokens *tokens, float *keys, float *values) {
    const tile_format *format = &tokens->format;
    const int32_t padded = tile_padded(format->columns);
    (void)values; /* the same */
    for (int32_t key = 0; key < tokens->count; ++key) {
        const uint8_t *record = tokens->record[key];
        for (int32_t column = 0; column < padded; column += TILE_PANEL) {
            const int32_t width = tile_panel_width(padded, column);
            float *to = keys + column * MLAR_KEY_TILE + key * width;
            if (column < format->fp8_columns)
                tile_load_fp8(format, record + column, tile_scale_bits(format, tokens->scales[key], column),
                              to);
            else
                tile_load_bf16(record + format->bf16_at + 2 * column, format->columns - column, width, to);
        }
    }
}

#else

/* ---- key tile, bf16 ---- */

typedef struct tile_half { /* one panel of one token: 64 bf16 */
    __m512i low, high;
} tile_half;

VFN __m512i tile_without_nan(__m512i words) {
    const __m512i size = _mm512_and_si512(words, _mm512_set1_epi16(0x7fff));
    return _mm512_maskz_mov_epi16(_mm512_cmple_epi16_mask(size, _mm512_set1_epi16(0x7f80)), words);
}

VFN tile_half tile_load_bf16(const uint8_t *from, int32_t count) {
    const uint64_t wanted = count < TILE_PANEL ? ((uint64_t)1 << count) - 1 : UINT64_MAX;
    tile_half result;
    result.low = tile_without_nan(_mm512_maskz_loadu_epi16((__mmask32)wanted, from));
    result.high = tile_without_nan(_mm512_maskz_loadu_epi16((__mmask32)(wanted >> 32), from + 64));
    return result;
}

VFN tile_half tile_load_fp8(const tile_format *format, const uint8_t *from, uint32_t scale_bits) {
    v_f32 scale, a, b, c, d;
    tile_half result;
    if (!tile_fast_scale(format, scale_bits, &scale)) {
        uint16_t exact[TILE_PANEL];
        tile_exact_panel(format, from, scale_bits, exact);
        return tile_load_bf16((const uint8_t *)exact, TILE_PANEL);
    }
    v_load_fp8(from, format->nan_or, format->nan_is, &a, &b);
    v_load_fp8(from + 32, format->nan_or, format->nan_is, &c, &d);
    result.low = (__m512i)_mm512_cvtne2ps_pbh(v_mul(b, scale), v_mul(a, scale));
    result.high = (__m512i)_mm512_cvtne2ps_pbh(v_mul(d, scale), v_mul(c, scale));
    return result;
}

VFN tile_half tile_load_half(const tile_tokens *tokens, int32_t key, int32_t column) {
    const tile_format *format = &tokens->format;
    if (key >= tokens->count) return (tile_half){_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (column < format->fp8_columns)
        return tile_load_fp8(format, tokens->record[key] + column,
                             tile_scale_bits(format, tokens->scales[key], column));
    return tile_load_bf16(tokens->record[key] + format->bf16_at + 2 * column, format->columns - column);
}

VFN void tile_store_keys(float *to, int32_t width, tile_half half) {
    const uint64_t wanted = width < TILE_PANEL ? ((uint64_t)1 << width) - 1 : UINT64_MAX;
    _mm512_mask_storeu_epi16(to, (__mmask32)wanted, half.low);
    _mm512_mask_storeu_epi16(to + 16, (__mmask32)(wanted >> 32), half.high);
}

/* Two tokens' elements side by side. Unpacking works inside 128 bits: exchanging the inner 64-bit pieces
 * first makes the columns come out in order. */
VFN void tile_store_values(float *to, int32_t width, __m512i first, __m512i second) {
    const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    const __m512i a = _mm512_permutexvar_epi64(order, first), b = _mm512_permutexvar_epi64(order, second);
    _mm512_storeu_si512(to, _mm512_unpacklo_epi16(a, b));
    if (width > 16) _mm512_storeu_si512(to + 16, _mm512_unpackhi_epi16(a, b));
}

/* Values go on with zeros up to a multiple of TILE_VALUE_KEYS keys. */
static void tile_convert(const tile_tokens *tokens, float *keys, float *values) {
    const int32_t padded = tile_padded(tokens->format.columns);
    const int32_t value_padded = tile_padded(tokens->format.value_columns);
    for (int32_t key = 0; key < tokens->count || key % TILE_VALUE_KEYS; key += 2) {
        for (int32_t column = 0; column < padded; column += TILE_PANEL) {
            const int32_t width = tile_panel_width(padded, column);
            float *to = keys + (column * MLAR_KEY_TILE + key * width) / 2;
            const tile_half first = tile_load_half(tokens, key, column);
            const tile_half second = tile_load_half(tokens, key + 1, column);
            tile_store_keys(to, width, first);
            tile_store_keys(to + width / 2, width, second);
            if (column >= value_padded) continue;
            to = values + (column * MLAR_KEY_TILE + key * width) / 2;
            tile_store_values(to, width, first.low, second.low);
            if (width > 32) tile_store_values(to + 32, width - 32, first.high, second.high);
        }
    }
}

#endif

/* ---- gather buffer ---- */

/* One token -> bf16 [d_qk], bit for bit. */
static void tile_decode(const tile_format *format, const uint8_t *record, const uint8_t *scales,
                        uint16_t *to) {
    for (int32_t column = 0; column < format->fp8_columns; column += TILE_PANEL) {
        const uint8_t *from = record + column;
        const uint32_t scale_bits = tile_scale_bits(format, scales, column);
        v_f32 scale, low, high;
        if (!tile_fast_scale(format, scale_bits, &scale) ||
            v_any_nan_fp8(from, format->nan_or, format->nan_is)) {
            tile_exact_panel(format, from, scale_bits, to + column);
            continue;
        }
        for (int32_t i = 0; i < TILE_PANEL; i += 2 * V_LANES) {
            v_load_fp8(from + i, format->nan_or, format->nan_is, &low, &high);
            v_store_bf16(to + column + i, v_mul(low, scale), v_mul(high, scale));
        }
    }
    memcpy(to + format->fp8_columns, record + format->bf16_at + 2 * format->fp8_columns,
           (size_t)(format->columns - format->fp8_columns) * sizeof *to);
}

#endif
