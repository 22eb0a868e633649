/* SPDX-License-Identifier: Apache-2.0
 *
 * wave_fp8.h: the CDNA attention engine's keys from caches that DeepSeek-V4 has: 448 fp8 columns under a scale for
 * each 64, then 64 of bf16.
 *
 * A lane loads four chunks of 16 fp8 columns of its token (the lanes of the upper half three), eight columns of
 * rope, and the token's eight scales. The ordinary conversion looks at every byte and scale on its way and says
 * whether it was right; if not, the exact one does it again from the same registers. */
#ifndef MLAR_KERNELS_GPU_WAVE_FP8_H
#define MLAR_KERNELS_GPU_WAVE_FP8_H
#include "kernels/gpu/dequant.h"
#include "kernels/gpu/wave_keys.h"

enum {
    MLAR_WAVE_NOPE = 448,
    MLAR_WAVE_CHUNKS = 4 /* fp8 chunks of a lane; the last: half of the lanes */
};

struct mlar_wave_fp8 : mlar_wave_keys<512> {
    enum { REPORTS = 1 };
    mlar_u32x4 raw[MLAR_WAVE_CHUNKS], rope;
    mlar_u32x2 scales;

    MLAR_MEMBER int32_t chunk_column(int32_t k) const { return 128 * k + MLAR_CHUNK * (lane % 8); }
    /* Lanes whose last chunk would lie beyond the fp8 columns have none. */
    MLAR_MEMBER bool chunk_exists(int32_t k) const { return k < MLAR_WAVE_CHUNKS - 1 || lane % 8 < 4; }
    MLAR_MEMBER uint32_t chunk_scale(int32_t k) const {
        const uint32_t byte = scales[k / 2] >> (16 * (k % 2) + 8 * (lane % 8 / 4)) & 255u;
        return chunk_exists(k) ? byte : 127u;
    }

    MLAR_MEMBER void load(const mlar_stage_args *, const mlar_wave_tile &tile, int32_t slot) {
        const mlar_wave_place place = mlar_wave_place_of(scopes + tile.scope, slot);
        const uint8_t *from = place.record + MLAR_CHUNK * (lane % 8);
        const mlar_u32x4 zero = {0, 0, 0, 0};
        counts = place.counts;
        invalid += place.invalid;
        MLAR_UNROLL for (int32_t k = 0; k < MLAR_WAVE_CHUNKS; ++k) raw[k] = zero;
        rope = zero;
        scales.x = scales.y = 0x7f7f7f7fu;
        if (counts) {
            MLAR_UNROLL for (int32_t k = 0; k < MLAR_WAVE_CHUNKS - 1; ++k) raw[k] =
                mlar_load16(from + 128 * k);
            rope = mlar_load16(from + MLAR_WAVE_NOPE);
            scales = MLAR_LOAD(mlar_u32x2, place.scales);
            if (chunk_exists(MLAR_WAVE_CHUNKS - 1))
                raw[MLAR_WAVE_CHUNKS - 1] = mlar_load16(from + 128 * (MLAR_WAVE_CHUNKS - 1));
        }
    }

    MLAR_MEMBER mlar_chunk chunk_of(int32_t k) const {
        mlar_chunk chunk;
        MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) chunk.word[i] = raw[k][i];
        chunk.scale = chunk_scale(k);
        return chunk;
    }
    MLAR_MEMBER void chunk_store(uint16_t *keys, int32_t k, const uint32_t words[8]) const {
        const mlar_u32x4 low = {words[0], words[1], words[2], words[3]},
                         high = {words[4], words[5], words[6], words[7]};
        uint16_t *to = keys + own_token() * STRIDE + chunk_column(k);
        if (!chunk_exists(k)) return;
        *(mlar_u32x4 *)to = low;
        *(mlar_u32x4 *)(to + 8) = high;
    }
    MLAR_MEMBER void rope_store(uint16_t *keys, mlar_u32x4 words) const {
        *(mlar_u32x4 *)(keys + own_token() * STRIDE + MLAR_WAVE_NOPE + 8 * (lane % 8)) = words;
    }

    /* In the ordinary way (dequant.h), columns of rope unchanged; returns whether that was right. */
    template <int FNUZ> MLAR_MEMBER bool convert_ordinary(uint16_t *keys) const {
        const uint32_t least = MLAR_E8M0_ORDINARY_LEAST + FNUZ;
        uint32_t nan = 0, rope_nan = 0, wrong = 0;
        MLAR_UNROLL for (int32_t k = 0; k < MLAR_WAVE_CHUNKS; ++k) {
            const mlar_chunk chunk = chunk_of(k);
            uint32_t words[8];
            MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) nan |= mlar_fp8_nan_bits(chunk.word[i], FNUZ);
            mlar_fp8x16_times_e8m0(words, chunk.word, chunk.scale, FNUZ, 0);
            wrong |= chunk.scale - least > MLAR_E8M0_ORDINARY_MOST - MLAR_E8M0_ORDINARY_LEAST;
            chunk_store(keys, k, words);
        }
        MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) rope_nan |= (rope[i] & 0x7fff7fffu) + 0x007f007fu;
        rope_store(keys, rope);
        return !mlar_any(wrong | (nan & 0x80808080u) | (rope_nan & 0x80008000u));
    }
    MLAR_MEMBER void convert_exact(uint16_t *keys, int32_t fnuz) const {
        mlar_record_form form = {};
        mlar_u32x4 clean;
        form.fnuz = fnuz;
        MLAR_UNROLL for (int32_t k = 0; k < MLAR_WAVE_CHUNKS; ++k) {
            const mlar_chunk chunk = chunk_of(k);
            uint32_t words[8];
            mlar_chunk_convert_exact(words, &form, &chunk, 1, 1);
            chunk_store(keys, k, words);
        }
        MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) clean[i] = mlar_bf16x2_nan_to_zero(rope[i]);
        rope_store(keys, clean);
    }
    MLAR_MEMBER void convert(const mlar_wave_tile &tile, lds_keys *lds) const {
        uint16_t *keys = lds->keys;
        const int32_t fnuz = scopes[tile.scope].fp8 == MLAR_FP8_E4M3FNUZ;
        store_valid(lds);
        if (!(fnuz ? convert_ordinary<1>(keys) : convert_ordinary<0>(keys))) convert_exact(keys, fnuz);
    }
};

#endif
