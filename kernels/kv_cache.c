/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_cache.c: cache layouts for hosts, over numeric.h. One table row per layout, arithmetic from it; then a
 * token's encoding and decoding. It must not know how kernels read caches: they have their own arithmetic,
 * and the tests hold the two against each other. */
#include "mlarena/kv_cache.h"

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "kernels/numeric.h"

enum {
    NOPE_MAX = 512,
    ROPE_MAX = 128,
    BLOCK_SIZE_MAX = 65536,
    DSV4_SCALE_RECORD_BYTES = 8,
    VLLM_STRIDE_BYTES = 576, /* vLLM's block strides are a multiple of this */
};

/* fp8 elements that share a scale, also the unit of nope; 0: the layout has no fp8. */
static const int32_t scale_tile[] = {
    [MLAR_LAYOUT_DSV4] = 64,
    [MLAR_LAYOUT_V32] = 128,
    [MLAR_LAYOUT_BF16] = 0,
};

static bool sizes_ok(int32_t layout, int32_t nope, int32_t rope) {
    int32_t unit;
    if (layout < MLAR_LAYOUT_DSV4 || layout > MLAR_LAYOUT_BF16) return false;
    unit = layout == MLAR_LAYOUT_V32 ? 128 : 64;
    return nope >= unit && nope <= NOPE_MAX && nope % unit == 0 && rope >= 0 && rope <= ROPE_MAX &&
           rope % 2 == 0;
}

static bool block_ok(int32_t layout, int32_t nope, int32_t rope, int32_t block_size) {
    return sizes_ok(layout, nope, rope) && block_size >= 1 && block_size <= BLOCK_SIZE_MAX;
}

static uint64_t record_bytes(int32_t layout, int32_t nope, int32_t rope) {
    int32_t rope_bytes = 2 * rope;
    switch (layout) {
    case MLAR_LAYOUT_DSV4:
        return (uint64_t)(nope + rope_bytes);
    case MLAR_LAYOUT_V32:
        return (uint64_t)(nope + nope / 128 * 4 + rope_bytes);
    default:
        return (uint64_t)(2 * nope + rope_bytes);
    }
}

static uint64_t scale_offset(int32_t layout, int32_t nope, int32_t rope, int32_t block_size) {
    switch (layout) {
    case MLAR_LAYOUT_DSV4:
        return record_bytes(layout, nope, rope) * (uint64_t)block_size;
    case MLAR_LAYOUT_V32:
        return (uint64_t)nope;
    default:
        return 0;
    }
}

mlar_status mlar_kv_head_dims(int32_t layout, int32_t nope, int32_t rope, int32_t *d_qk, int32_t *d_v) {
    if (!sizes_ok(layout, nope, rope)) return MLAR_ERROR_ARGUMENT;
    if (d_qk) *d_qk = nope + rope;
    if (d_v) *d_v = layout == MLAR_LAYOUT_V32 ? nope : nope + rope;
    return MLAR_OK;
}

mlar_status mlar_kv_record_bytes(int32_t layout, int32_t nope, int32_t rope, uint64_t *bytes) {
    if (!bytes || !sizes_ok(layout, nope, rope)) return MLAR_ERROR_ARGUMENT;
    *bytes = record_bytes(layout, nope, rope);
    return MLAR_OK;
}

mlar_status mlar_kv_scale_offset(int32_t layout, int32_t nope, int32_t rope, int32_t block_size,
                                 uint64_t *bytes) {
    if (!bytes || !block_ok(layout, nope, rope, block_size)) return MLAR_ERROR_ARGUMENT;
    *bytes = scale_offset(layout, nope, rope, block_size);
    return MLAR_OK;
}

mlar_status mlar_kv_block_stride_min(int32_t layout, int32_t nope, int32_t rope, int32_t block_size,
                                     uint64_t *bytes) {
    uint64_t token;
    if (!bytes || !block_ok(layout, nope, rope, block_size)) return MLAR_ERROR_ARGUMENT;
    token = record_bytes(layout, nope, rope) + (layout == MLAR_LAYOUT_DSV4 ? DSV4_SCALE_RECORD_BYTES : 0);
    *bytes = token * (uint64_t)block_size;
    return MLAR_OK;
}

mlar_status mlar_kv_block_stride_padded(int32_t layout, int32_t nope, int32_t rope, int32_t block_size,
                                        uint64_t *bytes) {
    mlar_status status = mlar_kv_block_stride_min(layout, nope, rope, block_size, bytes);
    if (status == MLAR_OK && layout == MLAR_LAYOUT_DSV4)
        *bytes = (*bytes + VLLM_STRIDE_BYTES - 1) / VLLM_STRIDE_BYTES * VLLM_STRIDE_BYTES;
    return status;
}

mlar_status mlar_kv_token_offsets(int32_t layout, int32_t nope, int32_t rope, int32_t block_size,
                                  int32_t offset, uint64_t *record, uint64_t *scales) {
    uint64_t token, base;
    if (!block_ok(layout, nope, rope, block_size) || offset < 0 || offset >= block_size)
        return MLAR_ERROR_ARGUMENT;
    token = record_bytes(layout, nope, rope) * (uint64_t)offset;
    base = scale_offset(layout, nope, rope, block_size);
    if (record) *record = token;
    if (scales) {
        switch (layout) {
        case MLAR_LAYOUT_DSV4:
            *scales = base + DSV4_SCALE_RECORD_BYTES * (uint64_t)offset;
            break;
        case MLAR_LAYOUT_V32:
            *scales = token + base;
            break;
        default:
            *scales = 0;
        }
    }
    return MLAR_OK;
}

/* ---- encoding ---- */

/* A token's values as f32 bits, from either of the two types. */
typedef struct source {
    const float *f32; /* or NULL: bf16 */
    const uint16_t *bf16;
} source;

static uint32_t source_bits(const source *from, int32_t i) {
    return from->f32 ? mlar_f32_bits(from->f32[i]) : mlar_bf16_to_f32_bits(from->bf16[i]);
}

/* bf16 values are copied, NaN payloads and all. */
static uint16_t source_bf16(const source *from, int32_t i) {
    return from->f32 ? mlar_bf16_from_f32(from->f32[i]) : from->bf16[i];
}

static void store_bf16(const source *from, int32_t begin, int32_t count, uint8_t *to) {
    for (int32_t i = 0; i < count; ++i) {
        uint16_t value = source_bf16(from, begin + i);
        memcpy(to + 2 * i, &value, sizeof value);
    }
}

/* Largest magnitude, by bits: NaN left out, inf as the largest f32. */
static uint32_t amax_bits(const source *from, int32_t begin, int32_t count) {
    uint32_t largest = 0;
    for (int32_t i = begin; i < begin + count; ++i) {
        uint32_t magnitude = source_bits(from, i) & ~MLAR_F32_SIGN_BIT;
        if (magnitude == MLAR_F32_INF_BITS) magnitude = MLAR_F32_INF_BITS - 1;
        if (magnitude < MLAR_F32_INF_BITS && magnitude > largest) largest = magnitude;
    }
    return largest;
}

/* value / 2^(byte - 127) on the bits. What falls below the f32 normals is below half of fp8's least value,
 * and what rises above them is beyond its largest, so 0 and inf serve. */
static uint32_t divide_by_e8m0(uint32_t bits, uint8_t byte) {
    int32_t field = (int32_t)((bits >> 23) & 255u);
    uint32_t sign = bits & MLAR_F32_SIGN_BIT;
    if (field == 0) return sign;   /* the e8m0 that cache writers choose is at least 2^-22 (amax >= 1e-4) */
    if (field == 255) return bits; /* inf, NaN */
    field -= byte - 127;
    if (field <= 0) return sign;
    if (field >= 255) return sign | MLAR_F32_INF_BITS;
    return sign | (uint32_t)field << 23 | (bits & 0x7fffffu);
}

static void encode_dsv4(int32_t fp8, int32_t nope, int32_t rope, const source *from, uint8_t *record,
                        uint8_t *scales) {
    const uint32_t least = mlar_f32_bits(1e-4f);
    const int32_t tile = scale_tile[MLAR_LAYOUT_DSV4];
    memset(scales, 0, DSV4_SCALE_RECORD_BYTES);
    for (int32_t begin = 0; begin < nope; begin += tile) {
        uint32_t amax = amax_bits(from, begin, tile);
        uint8_t scale = mlar_e8m0_for_amax(amax > least ? amax : least, fp8);
        scales[begin / tile] = scale;
        for (int32_t i = begin; i < begin + tile; ++i)
            record[i] = mlar_fp8_from_f32_bits(divide_by_e8m0(source_bits(from, i), scale), fp8);
    }
    store_bf16(from, nope, rope, record + nope);
}

static void encode_v32(int32_t fp8, int32_t nope, int32_t rope, const source *from, uint8_t *record,
                       uint8_t *scales) {
    const float largest = fp8 == MLAR_FP8_E4M3FNUZ ? 240.0f : 448.0f;
    const int32_t tile = scale_tile[MLAR_LAYOUT_V32];
    for (int32_t begin = 0; begin < nope; begin += tile) {
        float scale = mlar_f32_from_bits(amax_bits(from, begin, tile)) / largest;
        if (!(scale >= FLT_MIN)) scale = FLT_MIN;
        memcpy(scales + begin / tile * 4, &scale, sizeof scale);
        for (int32_t i = begin; i < begin + tile; ++i) {
            float quotient = mlar_f32_from_bits(source_bits(from, i)) / scale;
            record[i] = mlar_fp8_from_f32_bits(mlar_f32_bits(quotient), fp8);
        }
    }
    store_bf16(from, nope, rope, record + nope + nope / tile * 4);
}

static mlar_status encode(int32_t layout, int32_t fp8, int32_t nope, int32_t rope, const source *from,
                          uint8_t *record, uint8_t *scales) {
    if (!sizes_ok(layout, nope, rope) || fp8 < MLAR_FP8_E4M3FN || fp8 > MLAR_FP8_E4M3FNUZ)
        return MLAR_ERROR_ARGUMENT;
    if ((!from->f32 && !from->bf16) || !record || (!scales && scale_tile[layout])) return MLAR_ERROR_ARGUMENT;
    switch (layout) {
    case MLAR_LAYOUT_DSV4:
        encode_dsv4(fp8, nope, rope, from, record, scales);
        break;
    case MLAR_LAYOUT_V32:
        encode_v32(fp8, nope, rope, from, record, scales);
        break;
    default:
        store_bf16(from, 0, nope + rope, record);
    }
    return MLAR_OK;
}

mlar_status mlar_kv_encode_f32(int32_t layout, int32_t fp8, int32_t nope, int32_t rope, const float *values,
                               uint8_t *record, uint8_t *scales) {
    const source from = {.f32 = values};
    return encode(layout, fp8, nope, rope, &from, record, scales);
}

mlar_status mlar_kv_encode_bf16(int32_t layout, int32_t fp8, int32_t nope, int32_t rope,
                                const uint16_t *values, uint8_t *record, uint8_t *scales) {
    const source from = {.bf16 = values};
    return encode(layout, fp8, nope, rope, &from, record, scales);
}

/* ---- decoding ---- */

mlar_status mlar_kv_decode_bf16(int32_t layout, int32_t fp8, int32_t nope, int32_t rope,
                                const uint8_t *record, const uint8_t *scales, uint16_t *values) {
    const uint8_t *tail = record;
    int32_t decoded = 0;
    if (!sizes_ok(layout, nope, rope) || fp8 < MLAR_FP8_E4M3FN || fp8 > MLAR_FP8_E4M3FNUZ)
        return MLAR_ERROR_ARGUMENT;
    if (!record || !values || (!scales && scale_tile[layout])) return MLAR_ERROR_ARGUMENT;
    if (scale_tile[layout]) {
        for (; decoded < nope; ++decoded) {
            int32_t tile = decoded / scale_tile[layout];
            uint32_t scale;
            if (layout == MLAR_LAYOUT_DSV4)
                scale = mlar_e8m0_to_f32_bits(scales[tile]);
            else
                memcpy(&scale, scales + 4 * tile, sizeof scale);
            values[decoded] = mlar_bf16_dequantise(record[decoded], fp8, scale);
        }
        tail += record_bytes(layout, nope, rope) - (uint64_t)(2 * rope);
    }
    memcpy(values + decoded, tail, (size_t)(nope + rope - decoded) * sizeof *values);
    return MLAR_OK;
}
