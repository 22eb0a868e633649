/* SPDX-License-Identifier: Apache-2.0
 *
 * wave_plain.h: the CDNA attention engine's keys where they are bf16 already: rows of the gather buffer, or records
 * of a cache of layout bf16.
 *
 * A lane has eight columns of each 64 of its token, so that the token's lanes load whole lines, and store them to LDS
 * as they are. On the way it looks for NaN. There nearly never is any, and nearly always every token of a sub-tile
 * counts; if not, zeros are stored over what was stored. */
#ifndef MLAR_KERNELS_GPU_WAVE_PLAIN_H
#define MLAR_KERNELS_GPU_WAVE_PLAIN_H
#include "kernels/gpu/dequant.h"
#include "kernels/gpu/wave_keys.h"

/* Two 16-bit words that are compared as such. */
typedef uint16_t mlar_u16_pair __attribute__((ext_vector_type(2)));

template <bool GATHERED, int WIDTH> struct mlar_wave_plain : mlar_wave_keys<WIDTH> {
    typedef mlar_wave_keys<WIDTH> common;
    enum {
        CHUNKS = WIDTH / 64,
        REPORTS = !GATHERED /* of gathered rows gather has */
    };

    mlar_u32x4 raw[CHUNKS]; /* of a token that counts, else what was there before */

    MLAR_MEMBER void begin() {
        const mlar_u32x4 zero = {0, 0, 0, 0};
        common::begin();
        MLAR_UNROLL for (int32_t k = 0; k < CHUNKS; ++k) raw[k] = zero;
    }

    MLAR_MEMBER int32_t first_column() const { return 8 * (common::lane % 8); }

    /* Of the lane's token. */
    MLAR_MEMBER const uint16_t *record_of(const mlar_stage_args *args, const mlar_wave_tile &tile,
                                          const mlar_wave_place &place) const {
        const mlar_scope_params *scope = (const mlar_scope_params *)(common::scopes + tile.scope);
        if (!GATHERED) return (const uint16_t *)place.record;
        return args->gathered[tile.scope] + mlar_gathered_offset(args, scope, tile.row, tile.entry) +
               common::own_token() * WIDTH;
    }

    MLAR_MEMBER void load(const mlar_stage_args *args, const mlar_wave_tile &tile, int32_t slot) {
        const mlar_wave_place place = mlar_wave_place_of(common::scopes + tile.scope, slot);
        const uint16_t *from = record_of(args, tile, place) + first_column();
        common::counts = place.counts;
        common::invalid += place.invalid;
        if (common::counts)
            MLAR_UNROLL for (int32_t k = 0; k < CHUNKS; ++k) raw[k] = mlar_load16(from + 64 * k);
    }

    MLAR_MEMBER uint16_t *place_in(uint16_t *keys) const {
        return keys + common::own_token() * common::STRIDE + first_column();
    }
    /* As the columns are; returns whether that was right. */
    MLAR_MEMBER bool convert_ordinary(uint16_t *to) const {
        mlar_u16_pair most = {0, 0};
        MLAR_UNROLL for (int32_t k = 0; k < CHUNKS; ++k) {
            MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) most =
                __builtin_elementwise_max(most, __builtin_bit_cast(mlar_u16_pair, raw[k][i] & 0x7fff7fffu));
            *(mlar_u32x4 *)(to + 64 * k) = raw[k];
        }
        return !mlar_any(!common::counts | (most.x > 0x7f80u) | (most.y > 0x7f80u)); /* above inf: NaN */
    }
    MLAR_MEMBER void convert_exact(uint16_t *to) const {
        MLAR_UNROLL for (int32_t k = 0; k < CHUNKS; ++k) {
            mlar_u32x4 clean = {0, 0, 0, 0};
            MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) if (common::counts) clean[i] =
                mlar_bf16x2_nan_to_zero(raw[k][i]);
            *(mlar_u32x4 *)(to + 64 * k) = clean;
        }
    }
    MLAR_MEMBER void convert(const mlar_wave_tile &, typename common::lds_keys *lds) const {
        uint16_t *to = place_in(lds->keys);
        common::store_valid(lds);
        if (!convert_ordinary(to)) convert_exact(to);
    }
};

#endif
