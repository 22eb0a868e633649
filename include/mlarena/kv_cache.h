/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_cache.h: the byte layouts of the KV caches, for hosts that write or inspect them.
 *
 * The engine only reads caches. A host that owns one finds here how many bytes a token takes, where its
 * record and its scales stand, and how a token is encoded and decoded. Everything is a pure function of its
 * arguments; there is no state, no allocation and no struct. C99 and C++ can include it.
 *
 * A cache is `num_blocks` blocks, `block_stride_bytes` apart. Token `offset` (0 .. block_size - 1) of a
 * block:
 *
 *     layout  record, at offset * record_bytes       scales                               d_qk         d_v
 *     dsv4    nope fp8, rope bf16                     8 bytes (one e8m0 per 64 fp8, rest   nope + rope  same
 *                                                     ignored), behind the last record
 *     v32     nope fp8, nope/128 f32, rope bf16       inside the record, behind the fp8    nope + rope  nope
 *     bf16    nope + rope bf16                        none                                 nope + rope  same
 *
 * Defaults: dsv4 448 + 64 (584 bytes a token), v32 512 + 64 (656 bytes), bf16 512 values (1024 bytes). `nope`
 * is a multiple of 64 in 64..512 (v32: of 128), `rope` even in 0..128, a block holds 1..65536 tokens. The
 * bf16 layout asks the same of nope and rope, of which only the sum matters.
 *
 * How a host writes token `slot`:
 *
 *     uint64_t stride, record, scales;
 *     mlar_kv_block_stride_padded(MLAR_LAYOUT_DSV4, 448, 64, 64, &stride);           37440 bytes
 *     mlar_kv_token_offsets(MLAR_LAYOUT_DSV4, 448, 64, 64, slot % 64, &record, &scales);
 *     uint8_t *block = cache + slot / 64 * stride;
 *     mlar_kv_encode_f32(MLAR_LAYOUT_DSV4, MLAR_FP8_E4M3FN, 448, 64, values, block + record, block + scales);
 *
 * Every function returns MLAR_OK, or MLAR_ERROR_ARGUMENT for a null pointer or a size outside the limits
 * above, and then writes nothing. */
#ifndef MLARENA_KV_CACHE_H
#define MLARENA_KV_CACHE_H

#include <stdint.h>

#include "mlarena/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Passed as int32_t. */
enum {
    MLAR_LAYOUT_DSV4 = 0, /* DeepSeek-V4; vLLM fp8_ds_mla of that model, FlashMLA MODEL1 */
    MLAR_LAYOUT_V32 = 1,  /* DeepSeek-V3.2, GLM-5 */
    MLAR_LAYOUT_BF16 = 2  /* plain bf16 */
};

/* Which e4m3 the fp8 bytes are, per cache. On gfx942 vLLM writes the window cache as FNUZ, the other as OCP.
 */
enum {
    MLAR_FP8_E4M3FN = 0,  /* OCP: bias 7, largest 448, NaN 0x7f and 0xff */
    MLAR_FP8_E4M3FNUZ = 1 /* AMD: bias 8, largest 240, NaN 0x80, no -0 */
};

/* How the index list that selects tokens is laid out. */
enum {
    MLAR_LIST_DENSE = 0, /* int32 [rows][row stride] and optional lengths */
    MLAR_LIST_RAGGED = 1 /* int32 indices and indptr [rows + 1] */
};

/* Elements of a key and of a value (the first d_v elements of the key). Either pointer may be NULL. */
MLAR_API mlar_status mlar_kv_head_dims(int32_t layout, int32_t nope, int32_t rope, int32_t *d_qk,
                                       int32_t *d_v);

/* Distance of two tokens' records inside a block: dsv4 576, v32 656, bf16 1024 at the default sizes. */
MLAR_API mlar_status mlar_kv_record_bytes(int32_t layout, int32_t nope, int32_t rope, uint64_t *bytes);

/* dsv4: where a block's scale records begin (block_size * record bytes). v32: where the scales begin inside a
 * token's record (nope). bf16: 0. */
MLAR_API mlar_status mlar_kv_scale_offset(int32_t layout, int32_t nope, int32_t rope, int32_t block_size,
                                          uint64_t *bytes);

/* The least block stride that holds block_size tokens. */
MLAR_API mlar_status mlar_kv_block_stride_min(int32_t layout, int32_t nope, int32_t rope, int32_t block_size,
                                              uint64_t *bytes);

/* The block stride that vLLM uses: dsv4 rounds the least one up to a multiple of 576; the others do not. */
MLAR_API mlar_status mlar_kv_block_stride_padded(int32_t layout, int32_t nope, int32_t rope,
                                                 int32_t block_size, uint64_t *bytes);

/* Where token `offset` of a block has its record and its scales, in bytes from the block's begin. bf16 has no
 * scales and gives 0. Either pointer may be NULL. */
MLAR_API mlar_status mlar_kv_token_offsets(int32_t layout, int32_t nope, int32_t rope, int32_t block_size,
                                           int32_t offset, uint64_t *record, uint64_t *scales);

/* Encode one token from nope + rope values. The nope values of each tile (dsv4 64, v32 128) are divided by
 * the tile's scale and rounded to fp8, to nearest even, saturating; the rope values are rounded to bf16. The
 * scale is amax / L, L the largest fp8 value (448, FNUZ 240):
 *     dsv4   rounded up to a power of two, amax taken as 1e-4 at least; padding scale bytes are written as 0
 *     v32    as it is, FLT_MIN at least
 * A NaN value becomes a NaN byte and does not take part in amax; an infinite one saturates, and beside it the rest
 * of its tile is lost. `scales` is not used by bf16 and may be NULL there; v32 needs record + nope. No alignment is
 * asked for. The quotients of v32 are rounded in the calling thread's floating-point mode. */
MLAR_API mlar_status mlar_kv_encode_f32(int32_t layout, int32_t fp8, int32_t nope, int32_t rope,
                                        const float *values, uint8_t *record, uint8_t *scales);

/* The same from bf16 values; rope is then copied bit for bit. */
MLAR_API mlar_status mlar_kv_encode_bf16(int32_t layout, int32_t fp8, int32_t nope, int32_t rope,
                                         const uint16_t *values, uint8_t *record, uint8_t *scales);

/* Decode one token to nope + rope bf16 values: exactly the values that the engine works with,
 * bf16(f32(fp8) * f32(scale)), whatever the floating-point mode of the calling thread. NaN stays NaN. */
MLAR_API mlar_status mlar_kv_decode_bf16(int32_t layout, int32_t fp8, int32_t nope, int32_t rope,
                                         const uint8_t *record, const uint8_t *scales, uint16_t *values);

#ifdef __cplusplus
}
#endif
#endif
