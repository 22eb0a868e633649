/* SPDX-License-Identifier: Apache-2.0
 *
 * dequant.h: sixteen columns of one cached token, from the cache's bytes to bf16, exactly as SPEC section 3
 * says.
 *
 * A chunk is 16 columns from a multiple of 16 on: 16 fp8 bytes under one scale, or 16 bf16 values. There are
 * two ways from bytes to bf16, which agree to the bit wherever both apply:
 *
 *     ordinary  what real data is made of, few instructions and no branch: 16-byte loads, no NaN byte, a
 *               scale that keeps every product in range. It says of each chunk whether it applied.
 *     exact     the definition, for any alignment, byte and scale.
 *
 * Loading and converting are apart, so that a kernel can load ahead. This file knows no lists and no
 * attention. */
#ifndef MLAR_KERNELS_GPU_DEQUANT_H
#define MLAR_KERNELS_GPU_DEQUANT_H

#include "kernels/gpu/gpu.h"

#define MLAR_CHUNK 16 /* columns */

/* ---- what a scope's tokens look like ---- */

typedef struct mlar_record_form {
    int32_t fp8_columns;  /* columns before this one are fp8 */
    int32_t columns;      /* d_qk */
    int32_t bf16_offset;  /* bf16 column c stands at byte bf16_offset + 2 c of the record */
    int32_t scale_shift;  /* log2 of the columns under one scale */
    int32_t scale_is_f32; /* else e8m0 */
    int32_t fnuz;
    int32_t wide; /* 16-byte loads are allowed */
} mlar_record_form;

MLAR_DEVICE mlar_record_form mlar_record_form_of(const mlar_scope_params *scope, const mlar_shape *shape) {
    mlar_record_form form;
    const int32_t nope = shape->nope, v32 = scope->layout == MLAR_LAYOUT_V32;
    form.fp8_columns = scope->layout == MLAR_LAYOUT_BF16 ? 0 : nope;
    form.columns = shape->d_qk;
    form.bf16_offset = scope->layout == MLAR_LAYOUT_BF16 ? 0 : (v32 ? nope / 128 * 4 : 0) - nope;
    form.scale_shift = v32 ? 7 : 6;
    form.scale_is_f32 = v32;
    form.fnuz = scope->fp8 == MLAR_FP8_E4M3FNUZ;
    form.wide = scope->wide && shape->d_qk % 8 == 0;
    return form;
}

/* Rows of the gather buffer: plain bf16; the buffer itself is aligned. */
MLAR_DEVICE mlar_record_form mlar_record_form_gathered(const mlar_shape *shape) {
    mlar_record_form form;
    form.fp8_columns = 0;
    form.columns = shape->d_qk;
    form.bf16_offset = 0;
    form.scale_shift = 6;
    form.scale_is_f32 = 0;
    form.fnuz = 0;
    form.wide = shape->d_qk % 8 == 0;
    return form;
}

/* Where the chunk at one column of any token stands: one lane's part of a form. */
typedef struct mlar_chunk_place {
    int32_t fp8;
    int32_t offset; /* bytes from the record's begin */
    int32_t bytes;  /* that exist: 0 beyond the last column, at most 16 for fp8, 32 for bf16 */
    int32_t scale;  /* number of the scale */
} mlar_chunk_place;

MLAR_DEVICE mlar_chunk_place mlar_chunk_place_of(const mlar_record_form *form, int32_t column) {
    mlar_chunk_place place;
    const int32_t there = form->columns - column;
    place.fp8 = column < form->fp8_columns;
    place.offset = place.fp8 ? column : form->bf16_offset + 2 * column;
    place.bytes = place.fp8 ? 16 : there <= 0 ? 0 : there < MLAR_CHUNK ? 2 * there : 2 * MLAR_CHUNK;
    place.scale = place.fp8 ? column >> form->scale_shift : 0;
    return place;
}

/* ---- loads ---- */

/* The bytes of a chunk. fp8: word[0 .. 3] and the scale, as its e8m0 byte or the bits of its f32; bf16:
 * word[0 .. 7]. */
typedef struct mlar_chunk {
    uint32_t word[8];
    uint32_t scale;
} mlar_chunk;

/* What stands for a token that does not count: zero, and ordinary. */
MLAR_DEVICE mlar_chunk mlar_chunk_none(const mlar_record_form *form) {
    mlar_chunk chunk;
    MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) chunk.word[i] = 0;
    chunk.scale = form->scale_is_f32 ? 0x3f800000u : 127;
    return chunk;
}

MLAR_DEVICE void mlar_words_load16(uint32_t *word, const uint8_t *from) {
    const mlar_u32x4 words = mlar_load16(from);
    word[0] = words.x, word[1] = words.y, word[2] = words.z, word[3] = words.w;
}

/* For a `wide` form, whose columns come in eights. */
MLAR_DEVICE mlar_chunk mlar_chunk_load_wide(const mlar_record_form *form, const mlar_chunk_place *place,
                                            const uint8_t *record, const uint8_t *scales) {
    mlar_chunk chunk = mlar_chunk_none(form);
    if (place->bytes >= 16) mlar_words_load16(chunk.word, record + place->offset);
    if (place->bytes >= 32) mlar_words_load16(chunk.word + 4, record + place->offset + 16);
    if (place->fp8)
        chunk.scale =
            form->scale_is_f32 ? mlar_load4(scales + 4 * place->scale) : mlar_load1(scales + place->scale);
    return chunk;
}

/* Eight columns from a multiple of 8 on, as the first of a chunk; the scale is left to the caller. For a `wide`
 * form; not `present`: nothing is read. Two loads, not one of this or that width: those would have to wait for one
 * another. */
MLAR_DEVICE mlar_chunk mlar_chunk_load_eight(const mlar_record_form *form, const mlar_chunk_place *place,
                                             const uint8_t *record, int32_t present) {
    mlar_chunk chunk = mlar_chunk_none(form);
    if (present && place->bytes) {
        const mlar_u32x2 words = mlar_load8(record + place->offset);
        chunk.word[0] = words.x, chunk.word[1] = words.y;
    }
    if (present && place->bytes && !place->fp8) {
        const mlar_u32x2 words = mlar_load8(record + place->offset + 8);
        chunk.word[2] = words.x, chunk.word[3] = words.y;
    }
    return chunk;
}

/* For any form: two bytes at a time. */
MLAR_DEVICE mlar_chunk mlar_chunk_load_any(const mlar_record_form *form, const mlar_chunk_place *place,
                                           const uint8_t *record, const uint8_t *scales) {
    mlar_chunk chunk = mlar_chunk_none(form);
    const uint8_t *from = record + place->offset;
    MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) if (4 * i < place->bytes) chunk.word[i] =
        mlar_load2(from + 4 * i) | mlar_load2(from + 4 * i + 2) << 16;
    if (place->fp8 && form->scale_is_f32)
        chunk.scale = mlar_load2(scales + 4 * place->scale) | mlar_load2(scales + 4 * place->scale + 2) << 16;
    else if (place->fp8)
        chunk.scale = mlar_load1(scales + place->scale);
    return chunk;
}

/* ---- bf16 ---- */

MLAR_DEVICE uint32_t mlar_bf16x2_nan_to_zero(uint32_t pair) {
    const uint32_t nan =
        ((pair & 0x7fff7fffu) + 0x007f007fu) & 0x80008000u; /* exponent all ones and a fraction */
    return pair & ~((nan >> 15) * 0xffffu);
}

/* ---- fp8, ordinary ---- */

/* Byte `i` of the word as an f32 that is 2^-120 (FNUZ 2^-119) times its value. */
MLAR_DEVICE float mlar_fp8_placed(uint32_t word, int32_t i) {
    const uint32_t top = word << (24 - 8 * i);
    return mlar_f32_from_bits((top & 0x80000000u) | (top >> 4 & 0x07f00000u));
}

/* Has bits of 0x80808080 where bytes are NaN: 0x7f, 0xff; FNUZ: 0x80. */
MLAR_DEVICE uint32_t mlar_fp8_nan_bits(uint32_t word, int32_t fnuz) {
    const uint32_t sum = (word & 0x7f7f7f7fu) + (fnuz ? 0x7f7f7f7fu : 0x01010101u);
    return fnuz ? word & ~sum : sum;
}

#if defined(__HIP__)

/* A normal f32 times a power of two that leaves it normal is exact, and so is cutting off the zeros below a
 * bf16. */
#define MLAR_E8M0_ORDINARY_LEAST 3

typedef float mlar_f32_pair __attribute__((ext_vector_type(2)));
MLAR_DEVICE uint32_t mlar_pack_f32_pair(mlar_f32_pair pair) {
    return mlar_pack_high(mlar_f32_bits(pair.x), mlar_f32_bits(pair.y));
}

MLAR_DEVICE void mlar_fp8_times_e8m0_placed(uint32_t *out, uint32_t word, uint32_t scale, int32_t fnuz) {
    const float factor = mlar_f32_from_bits((scale + 120 - (uint32_t)fnuz) << 23);
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
        const mlar_f32_pair placed = {mlar_fp8_placed(word, 2 * i), mlar_fp8_placed(word, 2 * i + 1)};
        out[i] = mlar_pack_f32_pair(placed * factor);
    }
}

/* Four words under one scale. */
MLAR_DEVICE void mlar_fp8x16_times_e8m0(uint32_t out[8], const uint32_t word[4], uint32_t scale, int32_t fnuz,
                                        int32_t keep_sign_of_zero) {
    (void)keep_sign_of_zero;
#if defined(__gfx942__)
    /* The instruction reads FNUZ, which makes half of an OCP byte; OCP's -0 is FNUZ's NaN and becomes 0. */
    if (keep_sign_of_zero) {
        MLAR_UNROLL for (int32_t i = 0; i < 4; ++i)
            mlar_fp8_times_e8m0_placed(out + 2 * i, word[i], scale, fnuz);
        return;
    }
    const float factor = mlar_f32_from_bits((scale + !fnuz) << 23);
    MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) {
        const uint32_t size = word[i] & 0x7f7f7f7fu;
        const int32_t bytes = (int32_t)(fnuz ? word[i] : (word[i] & (size + 0x7f7f7f7fu)) | size);
        out[2 * i] = mlar_pack_f32_pair(__builtin_amdgcn_cvt_pk_f32_fp8(bytes, false) * factor);
        out[2 * i + 1] = mlar_pack_f32_pair(__builtin_amdgcn_cvt_pk_f32_fp8(bytes, true) * factor);
    }
#else
#if defined(__gfx950__)
    if (!fnuz) { /* this one reads OCP, and makes bf16 at once */
        const float power = mlar_f32_from_bits(scale << 23);
        MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) {
            const int32_t bytes = (int32_t)word[i];
            out[2 * i] =
                __builtin_bit_cast(uint32_t, __builtin_amdgcn_cvt_scalef32_pk_bf16_fp8(bytes, power, false));
            out[2 * i + 1] =
                __builtin_bit_cast(uint32_t, __builtin_amdgcn_cvt_scalef32_pk_bf16_fp8(bytes, power, true));
        }
        return;
    }
#endif
    MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) mlar_fp8_times_e8m0_placed(out + 2 * i, word[i], scale, fnuz);
#endif
}

#else

MLAR_DEVICE uint32_t mlar_bf16x2_multiply(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

/* Two at a time: the byte placed in a bf16, as in an f32 above, times a power of two. It rounds once, at
 * most. */
#define MLAR_E8M0_ORDINARY_LEAST 0
MLAR_DEVICE void mlar_fp8_times_e8m0(uint32_t *out, uint32_t word, uint32_t scale, int32_t fnuz) {
    const uint32_t factor = ((scale + 120 - (uint32_t)fnuz) << 7) * 0x00010001u;
    uint32_t low,
        high; /* a byte, and eight copies of its sign above it: the selector's 8 asks for the copies */
    asm("prmt.b32 %0, %1, %1, 0x9180;" : "=r"(low) : "r"(word));
    asm("prmt.b32 %0, %1, %1, 0xb3a2;" : "=r"(high) : "r"(word));
    out[0] = mlar_bf16x2_multiply(low << 4 & 0x87f087f0u, factor);
    out[1] = mlar_bf16x2_multiply(high << 4 & 0x87f087f0u, factor);
}

/* Four words under one scale. */
MLAR_DEVICE void mlar_fp8x16_times_e8m0(uint32_t out[8], const uint32_t word[4], uint32_t scale, int32_t fnuz,
                                        int32_t keep_sign_of_zero) {
    (void)keep_sign_of_zero; /* it always is */
    MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) mlar_fp8_times_e8m0(out + 2 * i, word[i], scale, fnuz);
}

#endif

/* 2^120 times the scale is exact in the range that is ordinary; then there is the one f32 rounding of the
 * definition, and one to bf16. */
MLAR_DEVICE void mlar_fp8_times_f32(uint32_t *out, uint32_t word, uint32_t scale, int32_t fnuz) {
    const float factor = mlar_f32_from_bits(scale) * mlar_f32_from_bits(fnuz ? 0x7b000000u : 0x7b800000u);
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) out[i] =
        mlar_bf16x2(mlar_fp8_placed(word, 2 * i) * factor, mlar_fp8_placed(word, 2 * i + 1) * factor);
}

/* Largest e8m0 byte whose factor above is finite, and the range of |f32 scale|: 2^-64 .. 2^6. */
#define MLAR_E8M0_ORDINARY_MOST 134

MLAR_DEVICE int32_t mlar_chunk_is_ordinary(const mlar_record_form *form, const mlar_chunk *chunk) {
    const uint32_t low = form->scale_is_f32 ? 63u : MLAR_E8M0_ORDINARY_LEAST + (uint32_t)form->fnuz;
    const uint32_t range = form->scale_is_f32 ? 69u : MLAR_E8M0_ORDINARY_MOST - MLAR_E8M0_ORDINARY_LEAST;
    const uint32_t exponent = form->scale_is_f32 ? chunk->scale >> 23 & 255u : chunk->scale;
    uint32_t nan = 0;
    MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) nan |= mlar_fp8_nan_bits(chunk->word[i], form->fnuz);
    return (nan & 0x80808080u) == 0 && exponent - low <= range;
}

/* Sixteen bf16, two to a word; an fp8 chunk must be ordinary. nan_to_zero: as attention takes them; else as
 * the gather buffer holds them. */
MLAR_DEVICE void mlar_chunk_convert(uint32_t out[8], const mlar_record_form *form, const mlar_chunk *chunk,
                                    int32_t fp8, int32_t nan_to_zero) {
    if (fp8 && form->scale_is_f32) {
        MLAR_UNROLL for (int32_t i = 0; i < 4; ++i)
            mlar_fp8_times_f32(out + 2 * i, chunk->word[i], chunk->scale, form->fnuz);
    } else if (fp8) {
        mlar_fp8x16_times_e8m0(out, chunk->word, chunk->scale, form->fnuz, !nan_to_zero);
    } else {
        MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) out[i] =
            nan_to_zero ? mlar_bf16x2_nan_to_zero(chunk->word[i]) : chunk->word[i];
    }
}

/* ---- exact ---- */

/* One byte times the scale: f32(fp8) * f32(scale), rounded to f32, then to bf16, which is the upper half of
 * the result. */
MLAR_DEVICE uint32_t mlar_fp8_exact(uint32_t word, int32_t i, uint32_t scale, int32_t fnuz) {
    const float unplace = mlar_f32_from_bits(fnuz ? 0x7b000000u : 0x7b800000u); /* 2^119, 2^120 */
    return mlar_fp8_nan_bits(word, fnuz) & 0x80u << 8 * i
               ? MLAR_F32_NAN_BITS
               : mlar_bf16_above(mlar_fp8_placed(word, i) * unplace * mlar_f32_from_bits(scale));
}

/* The same for any bytes and scale. */
MLAR_DEVICE void mlar_chunk_convert_exact(uint32_t out[8], const mlar_record_form *form,
                                          const mlar_chunk *chunk, int32_t fp8, int32_t nan_to_zero) {
    MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) out[i] = chunk->word[i];
    if (fp8) {
        const uint32_t scale =
            form->scale_is_f32 ? chunk->scale : mlar_e8m0_to_f32_bits((uint8_t)chunk->scale);
        MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) out[i] =
            mlar_pack_high(mlar_fp8_exact(chunk->word[i / 2], i % 2 * 2, scale, form->fnuz),
                           mlar_fp8_exact(chunk->word[i / 2], i % 2 * 2 + 1, scale, form->fnuz));
    }
    if (nan_to_zero) {
        MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) out[i] = mlar_bf16x2_nan_to_zero(out[i]);
    }
}

#endif
