/* SPDX-License-Identifier: Apache-2.0
 *
 * amx.c: the CPU back end on AMX tiles (TDPBF16PS), with AVX-512 BF16 for all that is no product.
 *
 * A tile is 16 rows of 64 bytes. One product of tiles takes A [16 rows][32 bf16], B [16][16 columns][2 bf16]
 * and adds to C [16][16] f32. tile_math.h's layouts are such operands already:
 *
 *     scores:     A = 16 keys x 32 elements, B = 16 pairs of elements x 16 heads of the transposed queries
 *     accumulate: A = 16 heads x 32 keys,    B = 16 pairs of keys x 16 columns of the values
 *
 * but for the weights, which are transposed here, 32 heads at a time. Panels that are no full 64 columns wide
 * are left to tile_math.h. select.c has asked the operating system for the tile registers. */
#include "kernels/cpu/vector_avx512.h"

#define TILE_PACK 2
#define TILE_VALUE_KEYS                                                                                      \
    32 /* the keys of an A tile; those beyond the count must be zeros, not just any bits */
#define TILE_OWN_PRODUCTS
#define TILE_ENTER() amx_enter()
#define TILE_LEAVE() _tile_release()
#include "kernels/cpu/tile_math.h"
#include "kernels/cpu/tile_queries.h"
#include "kernels/cpu/tile_convert.h"

enum {
    AMX_ROWS = 16,        /* of a tile, and f32 or pairs in one of its rows */
    AMX_KEYS = 32,        /* bf16 in a row */
    AMX_TILE_WORDS = 256, /* in a tile */
    AMX_BLOCK_LINES = 24, /* fetched ahead after each block */
};

/* All eight tiles are whole: what is ragged is padded. */
static void amx_enter(void) {
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS},
    };
    _Static_assert(sizeof config == 64, "what LDTILECFG reads");
    _tile_loadconfig(&config);
}

/* gcc does not know that a tile load reads memory: stores before it must not be put off, or dropped. */
VFN void amx_stores_done(void) {
    __asm__ volatile("" ::: "memory");
}

/* Up to 2 x 2 tiles of sums, `rows` x `columns`: tiles 0 1 over 2 3. Strides in bytes. */
VFN void amx_begin_zero(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

VFN void amx_begin_load(const float *c, int64_t stride, const int rows, const int columns) {
    _tile_loadd(0, c, stride);
    if (columns > 1) _tile_loadd(1, c + AMX_ROWS, stride);
    if (rows > 1) _tile_loadd(2, c + AMX_ROWS * stride / 4, stride);
    if (rows > 1 && columns > 1) _tile_loadd(3, c + AMX_ROWS * stride / 4 + AMX_ROWS, stride);
}

VFN void amx_end(float *c, int64_t stride, const int rows, const int columns) {
    _tile_stored(0, c, stride);
    if (columns > 1) _tile_stored(1, c + AMX_ROWS, stride);
    if (rows > 1) _tile_stored(2, c + AMX_ROWS * stride / 4, stride);
    if (rows > 1 && columns > 1) _tile_stored(3, c + AMX_ROWS * stride / 4 + AMX_ROWS, stride);
}

VFN void amx_load_b(const float *b, int64_t stride, const int columns) {
    _tile_loadd(6, b, stride);
    if (columns > 1) _tile_loadd(7, b + AMX_ROWS, stride);
}

/* A's second tile is `next` words behind the first. */
VFN void amx_multiply(const float *a, int64_t stride, int64_t next, const int rows, const int columns) {
    _tile_loadd(4, a, stride);
    if (rows > 1) _tile_loadd(5, a + next, stride);
    _tile_dpbf16ps(0, 4, 6);
    if (columns > 1) _tile_dpbf16ps(1, 4, 7);
    if (rows > 1) _tile_dpbf16ps(2, 5, 6);
    if (rows > 1 && columns > 1) _tile_dpbf16ps(3, 5, 7);
}

/* ---- scores ---- */

/* 16 or 32 keys from `key` on, 16 or 32 heads from `head` on, in all full panels. */
VFN void amx_scores_block(tile_state *state, int32_t key, int32_t head, const int rows, const int columns) {
    const int64_t scores_stride = 4 * state->lanes, a_stride = 4 * TILE_PANEL / 2;
    amx_begin_zero();
    for (int32_t column = 0; column + TILE_PANEL <= state->columns; column += TILE_PANEL) {
        int32_t lanes;
        const float *b = tile_queries_at(state, column, head, &lanes);
        const float *a = state->keys + (column * MLAR_KEY_TILE + key * TILE_PANEL) / 2;
        for (int32_t step = 0; step < TILE_PANEL / AMX_KEYS; ++step) {
            amx_load_b(b + step * AMX_ROWS * lanes, 4 * lanes, columns);
            amx_multiply(a + step * AMX_ROWS, a_stride, AMX_ROWS * TILE_PANEL / 2, rows, columns);
        }
    }
    amx_end(state->scores + key * state->lanes + head, scores_stride, rows, columns);
    tile_fetch(&state->ahead, AMX_BLOCK_LINES);
}

static void tile_scores(tile_state *state, int32_t count) {
    amx_stores_done();
    for (int32_t key = 0; key < count; key += 2 * AMX_ROWS) {
        const int two_rows = key + AMX_ROWS < count;
        for (int32_t head = 0; head < state->lanes; head += 2 * AMX_ROWS) {
            const int two_columns = head + AMX_ROWS < state->lanes;
            if (two_rows && two_columns)
                amx_scores_block(state, key, head, 2, 2);
            else if (two_rows)
                amx_scores_block(state, key, head, 2, 1);
            else if (two_columns)
                amx_scores_block(state, key, head, 1, 2);
            else
                amx_scores_block(state, key, head, 1, 1);
        }
    }
    if (state->columns % TILE_PANEL)
        tile_scores_panel(state, count, state->columns / TILE_PANEL * TILE_PANEL);
}

/* ---- values ---- */

/* The weights of 16 heads as A tiles: to[key / 32][cut off, remainder][16 heads][32 keys], zeros past
 * `count`. */
static void amx_transpose_weights(const tile_state *state, int32_t count, int32_t head, float *to) {
    const int32_t pairs = (count + 1) / 2;
    for (int32_t pair = 0; pair < pairs; pair += AMX_ROWS) {
        for (int32_t plane = 0; plane < 2; ++plane, to += AMX_TILE_WORDS) {
            const float *from = state->scores + (2 * pair + plane) * state->lanes + head;
            v_u32 words[V_LANES];
            for (int32_t i = 0; i < V_LANES; ++i)
                words[i] = pair + i < pairs ? v_load_u32(from + 2 * i * state->lanes) : v_set_u32(0);
            v_transpose(words);
            for (int32_t i = 0; i < V_LANES; ++i) v_store(to + i * AMX_ROWS, v_from_bits(words[i]));
        }
    }
}

/* What this tile's maximum does to the sums so far, in a full panel; nothing for most heads of most tiles. */
VFN void amx_rescale(float *out, int32_t out_row, const float *moved, int32_t heads) {
    for (int32_t i = 0; i < heads; ++i, out += out_row) {
        if (moved[i] == 1.0f) continue;
        for (int32_t d = 0; d < TILE_PANEL; d += V_LANES)
            v_store(out + d, v_mul(v_load(out + d), v_set(moved[i])));
    }
}

/* 16 or 32 heads from `head` on, in one full panel. `weights` as amx_transpose_weights() makes them, one head
 * block after the other. */
VFN void amx_accumulate_block(tile_state *state, int32_t count, int32_t head, int32_t column,
                              const float *weights, const int rows) {
    const int64_t stride = 4 * state->out_row;
    const int64_t next = 2 * AMX_TILE_WORDS * (MLAR_KEY_TILE / AMX_KEYS);
    float *out = state->out + head * state->out_row + column;
    if (state->started) amx_rescale(out, state->out_row, state->moved + head, rows * AMX_ROWS);
    amx_stores_done();
    for (int32_t half = 0; half < TILE_PANEL; half += 2 * AMX_ROWS) {
        const float *b = state->values + column * MLAR_KEY_TILE / 2 + half;
        if (state->started)
            amx_begin_load(out + half, stride, rows, 2);
        else
            amx_begin_zero();
        for (int32_t key = 0; key < count; key += AMX_KEYS) {
            const float *a = weights + key / AMX_KEYS * 2 * AMX_TILE_WORDS;
            amx_load_b(b + key / 2 * TILE_PANEL, 4 * TILE_PANEL, 2);
            amx_multiply(a, 4 * AMX_ROWS, next, rows, 2);
            amx_multiply(a + AMX_TILE_WORDS, 4 * AMX_ROWS, next, rows, 2);
        }
        amx_end(out + half, stride, rows, 2);
    }
    tile_fetch(&state->ahead, AMX_BLOCK_LINES);
}

static void tile_accumulate(tile_state *state, int32_t count) {
    enum { BLOCK_WORDS = 2 * AMX_TILE_WORDS * (MLAR_KEY_TILE / AMX_KEYS) };
    _Alignas(64) float weights[2 * BLOCK_WORDS];
    for (int32_t head = 0; head < state->lanes; head += 2 * AMX_ROWS) {
        const int two_rows = head + AMX_ROWS < state->lanes;
        amx_transpose_weights(state, count, head, weights);
        if (two_rows) amx_transpose_weights(state, count, head + AMX_ROWS, weights + BLOCK_WORDS);
        for (int32_t column = 0; column + TILE_PANEL <= state->value_columns; column += TILE_PANEL) {
            if (two_rows)
                amx_accumulate_block(state, count, head, column, weights, 2);
            else
                amx_accumulate_block(state, count, head, column, weights, 1);
        }
    }
    if (state->value_columns % TILE_PANEL)
        tile_accumulate_panel(state, count, state->value_columns / TILE_PANEL * TILE_PANEL);
}

#include "kernels/cpu/tile_simd.h"

const mlar_cpu_kernels mlar_cpu_kernels_amx = {
    .isa = "amx",
    .gather = tile_gather,
    .attend_gathered = tile_attend_gathered,
    .attend_direct = tile_attend_direct,
    .combine = tile_combine,
};
