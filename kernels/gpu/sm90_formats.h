/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_formats.h: what the fp8 caches of the tuned NVIDIA engine differ in: how many columns are fp8, where rope and
 * scales are, and how sixteen fp8 and their scale become bf16, by SPEC section 3 to the bit, NaN as 0 (section 5).
 *
 * Both begin alike: with p = sign | seven other bits placed at bit 4 of a bf16, p is the value times 2^-120 (OCP) or
 * 2^-119 (FNUZ), subnormals included. Then there is a short way, right for nearly all scales and for all bytes but NaN
 * (FNUZ's is placed as -0, which is 0 already), and one for any. This file knows neither records nor tiles. */
#ifndef MLAR_KERNELS_GPU_SM90_FORMATS_H
#define MLAR_KERNELS_GPU_SM90_FORMATS_H

#include "kernels/gpu/sm90_work.h"

#define SM90_HALVES 0x00800080u /* a byte times this: the byte as exponent of both bf16 of a word */

/* What all lanes know of an octet: bit t says that its token t counts. */
#define SM90_OCTET_COUNTS 0xffu
#define SM90_OCTET_FNUZ   0x100u /* the encoding of its scope */
#define SM90_OCTET_EXISTS 0x200u /* its tile does */

/* Four fp8 to four bf16 at 2^-120: bytes 0 and 1, then 2 and 3. Each byte is paired with eight copies of its sign. */
MLAR_DEVICE void sm90_place(uint32_t w, uint32_t *low, uint32_t *high) {
    *low = sm90_permute(w, 0x9180u) << 4 & 0x87f087f0u;
    *high = sm90_permute(w, 0xb3a2u) << 4 & 0x87f087f0u;
}

/* Bit 7 of a byte: one of the words has an OCP NaN there. */
MLAR_DEVICE uint32_t sm90_nan_ocp(mlar_u32x4 raw) {
    return ((raw.x & 0x7f7f7f7fu) + 0x01010101u) | ((raw.y & 0x7f7f7f7fu) + 0x01010101u) |
           ((raw.z & 0x7f7f7f7fu) + 0x01010101u) | ((raw.w & 0x7f7f7f7fu) + 0x01010101u);
}

/* Four bytes, those of them that are NaN as 0. */
MLAR_DEVICE uint32_t sm90_without_nan(uint32_t w, int32_t fnuz) {
    const uint32_t nan = fnuz ? w & ~((w & 0x7f7f7f7fu) + 0x7f7f7f7fu) & 0x80808080u
                              : ((w & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
    return w & ~((nan >> 7) * 0xffu);
}

/* nope 448, an e8m0 byte for each 64; scales apart from the records. One bf16 product of what is placed with the scale
 * is exact for scale bytes 4 .. 134. */
struct sm90_format_dsv4 {
    typedef uint32_t scale;                  /* its byte */
    typedef uint32_t factor;                 /* bf16, in both halves */
    static constexpr int32_t groups = 7;     /* of 64 columns */
    static constexpr uint32_t rope_at = 448; /* bytes from the record's begin */

    /* Eight of the 16 bytes that the octet's table has for the lane's token. */
    MLAR_DEVICE void ask_scales(uint32_t tokens, int32_t lane, int32_t counts, const uint8_t *,
                                const uint8_t *from) {
        const uint32_t to = tokens + 16 * (uint32_t)lane + 8;
        if (counts)
            sm90_copy8(to, from);
        else
            sm90_store8(to, 0x7f7f7f7fu, 0x7f7f7f7fu); /* of no trouble */
    }
    MLAR_DEVICE scale scale_of(uint32_t tokens, int32_t token, int32_t group) {
        return sm90_read1(tokens + (uint32_t)(16 * token + 8 + group));
    }
    MLAR_DEVICE int32_t is_unusual(scale byte) { return byte - 4 > 130; }
    MLAR_DEVICE factor factor_of(scale byte, uint32_t octet, uint32_t counts) {
        return (byte * SM90_HALVES + (octet & SM90_OCTET_FNUZ ? 119 : 120) * SM90_HALVES) & counts;
    }
    MLAR_DEVICE uint32_t multiply(uint32_t placed, factor by) { return sm90_mul_bf16x2(placed, by); }

    /* What is placed, and no NaN, times any scale: in two steps of which only the last can round. e8m0 0 is 2^-127, a
     * subnormal bf16; 255 is NaN, whose columns are all 0. */
    MLAR_DEVICE uint32_t multiply_any(uint32_t placed, scale byte, uint32_t octet) {
        const uint32_t unplace = octet & SM90_OCTET_FNUZ ? 0x7b007b00u : 0x7b807b80u; /* 2^119, 2^120 */
        return sm90_mul_bf16x2(sm90_mul_bf16x2(placed, unplace), byte == 255 ? 0
                                                                 : byte == 0 ? 0x00400040u
                                                                             : byte * SM90_HALVES);
    }
};

/* nope 512, an f32 for each 128, behind them in the record. What is placed is the same in an f32; that times scale *
 * 2^120 (2^119) is the product of the definition, rounded once as there, subnormals included, for every scale of less
 * than 2^8, since the factor is exact; then there is the one rounding to bf16. */
struct sm90_format_v32 {
    typedef float scale;
    typedef float factor;
    static constexpr int32_t groups = 8;
    static constexpr uint32_t rope_at = 512 + 4 * 4;
    static constexpr uint32_t scales = sm90_v32::scales - SM90_AT_CONTROL; /* [8][4], so far behind a table */

    /* Zeros where nothing counts: they make zeros of whatever bytes are read in its place. */
    MLAR_DEVICE void ask_scales(uint32_t tokens, int32_t lane, int32_t counts, const uint8_t *record,
                                const uint8_t *) {
        sm90_copy16(tokens + scales + 16 * (uint32_t)lane, record + 512, counts);
    }
    MLAR_DEVICE scale scale_of(uint32_t tokens, int32_t token, int32_t group) {
        return sm90_read_f32(tokens + scales + (uint32_t)(16 * token + 4 * (group >> 1)));
    }
    /* 2^8 or more, inf, NaN */
    MLAR_DEVICE int32_t is_unusual(scale value) { return (mlar_f32_bits(value) >> 23 & 255) >= 127 + 8; }
    MLAR_DEVICE factor unplace(uint32_t octet) {
        return mlar_power_of_two(octet & SM90_OCTET_FNUZ ? 119 : 120);
    }
    MLAR_DEVICE factor factor_of(scale value, uint32_t octet, uint32_t) { return value * unplace(octet); }
    MLAR_DEVICE uint32_t multiply(uint32_t placed, factor by) {
        return mlar_bf16x2(mlar_f32_from_bits(placed << 16) * by,
                           mlar_f32_from_bits(placed & 0xffff0000u) * by);
    }

    /* The value is made before the product. */
    MLAR_DEVICE uint32_t multiply_any(uint32_t placed, scale value, uint32_t octet) {
        const uint32_t pair = mlar_bf16x2(mlar_f32_from_bits(placed << 16) * unplace(octet) * value,
                                          mlar_f32_from_bits(placed & 0xffff0000u) * unplace(octet) * value);
        return pair & sm90_ordered_bf16x2(pair); /* a scale of NaN, 0 * inf */
    }
};

/* Sixteen columns as two chunks, the short way. */
template <class format>
MLAR_DEVICE void sm90_convert(mlar_u32x4 raw, typename format::factor by, mlar_u32x4 out[2]) {
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
        sm90_place(word[2 * i], &out[i].x, &out[i].y);
        sm90_place(word[2 * i + 1], &out[i].z, &out[i].w);
        out[i].x = format::multiply(out[i].x, by), out[i].y = format::multiply(out[i].y, by);
        out[i].z = format::multiply(out[i].z, by), out[i].w = format::multiply(out[i].w, by);
    }
}

/* Four columns as half a chunk, for any bytes: NaN is taken out first. */
template <class format>
MLAR_DEVICE mlar_u32x2 sm90_convert_any(uint32_t raw, typename format::scale scale, uint32_t octet) {
    mlar_u32x2 out;
    sm90_place(sm90_without_nan(raw, (octet & SM90_OCTET_FNUZ) != 0), &out.x, &out.y);
    out.x = format::multiply_any(out.x, scale, octet), out.y = format::multiply_any(out.y, scale, octet);
    return out;
}

#endif
