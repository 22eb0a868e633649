/* SPDX-License-Identifier: Apache-2.0
 *
 * wave_keys.h: the keys of the CDNA attention engine on their way from device memory to LDS: what is the same
 * wherever they come from.
 *
 * Of each sub-tile a wave loads 8 tokens, 8 lanes each. The bytes wait in registers while the sub-tile before is
 * worked on; then they go to LDS as bf16, with NaN as 0. Tokens that do not count are not read and become zeros.
 * A source of keys is a struct that begins with mlar_wave_keys and adds
 *
 *     begin()                  when a unit begins
 *     load(args, tile, slot)   asks for the lane's part of its token of a sub-tile
 *     convert(tile, lds)       what it has asked for, into LDS
 *     REPORTS                  whether the entries that it meets are to be counted if they are invalid
 *
 * (wave_fp8.h, wave_plain.h). These files know no matrix instruction and no heads. */
#ifndef MLAR_KERNELS_GPU_WAVE_KEYS_H
#define MLAR_KERNELS_GPU_WAVE_KEYS_H
#include "kernels/gpu/attend_sizes.h"
#include "kernels/gpu/wave_walk.h"

enum {
    MLAR_WAVE_TOKENS = 32, /* of a sub-tile */
    MLAR_WAVE_COUNT = MLAR_BLOCK_THREADS / 64,
    MLAR_WAVE_OWN_TOKENS = MLAR_WAVE_TOKENS / MLAR_WAVE_COUNT /* that a wave loads; 8 lanes share one */
};

/* WIDTH: columns of a key. */
template <int WIDTH> struct mlar_wave_keys {
    enum {
        COLUMNS = WIDTH,
        STRIDE = COLUMNS + 8 /* 16 bytes off a multiple of the banks */
    };

    /* A sub-tile's keys in LDS. `valid` has a byte for each token: 0xff if it counts. */
    typedef struct lds_keys {
        alignas(16) uint16_t keys[MLAR_WAVE_TOKENS * STRIDE];
        alignas(16) uint8_t valid[MLAR_WAVE_TOKENS];
    } lds_keys;

    mlar_scalar_scope scopes;
    int32_t lane, wave;
    bool counts;
    int32_t invalid; /* entries that this lane has met and SPEC section 4 calls so */

    MLAR_MEMBER void begin() { invalid = 0; }

    MLAR_MEMBER int32_t own_token() const { return MLAR_WAVE_OWN_TOKENS * wave + lane / 8; }

    MLAR_MEMBER int32_t entry_of(const mlar_wave_tile &tile) const {
        return own_token() < tile.count ? (int32_t)mlar_load4(tile.entries + own_token()) : -1;
    }

    MLAR_MEMBER void store_valid(lds_keys *lds) const {
        if (lane % 8 == 0) lds->valid[own_token()] = counts ? 0xff : 0;
    }

    /* One of eight lanes speaks for a token. */
    MLAR_MEMBER void count_invalid(const mlar_stage_args *args) const {
        int32_t sum = lane % 8 == 0 ? invalid : 0;
        MLAR_UNROLL for (int32_t mask = 8; mask < 64; mask *= 2) sum += mlar_lane_get_i32(sum, lane ^ mask);
        mlar_count_invalid(args, sum);
    }
};

#endif
