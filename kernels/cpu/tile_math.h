/* SPDX-License-Identifier: Apache-2.0
 *
 * tile_math.h: the arithmetic of one key tile: register-blocked products and the online softmax.
 *
 * Included by a variant after vector_avx2.h or vector_avx512.h and after it has set TILE_PACK, the elements
 * in a 32-bit word of keys, queries and values: 1 (f32, multiplied by FMA) or 2 (bf16 pairs, multiplied by
 * VDPBF16PS). The file knows no cache layout, no list, no row and no memory but what it is given.
 *
 * Everything wide is kept in panels of 64 columns, each panel contiguous, the last as wide as it must be (a
 * multiple of 16). A 64 x 64 panel of f32 takes 16 KB: it stays in L1 while all rows pass over it.
 *
 *     keys     [panel of d][key][columns / PACK]             words of PACK neighbouring elements
 *     values   [panel of d][key / PACK][columns]             words of PACK neighbouring keys
 *     queries  [panel of d][panel of heads][d / PACK][heads] words, transposed: heads are the lanes
 *     scores   [key][heads]                                  f32: no shuffle anywhere in the softmax
 *     weights  [key / PACK][PACK][heads]                     in the place of the scores: tile_weights()
 *     out      [head][columns]                               f32, unnormalised
 *
 * With PACK 1 the keys are the values. */
#ifndef MLAR_KERNELS_CPU_TILE_MATH_H
#define MLAR_KERNELS_CPU_TILE_MATH_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/params.h"

#if defined(__clang__)
#define TILE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TILE_UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    TILE_PANEL = 64,
    TILE_LANES = 16, /* head counts and widths are padded to so many */
    TILE_MAX_LANES = (MLAR_MAX_HEADS + TILE_LANES - 1) / TILE_LANES * TILE_LANES,
};

VFN int32_t tile_padded(int32_t count) {
    return (count + TILE_LANES - 1) / TILE_LANES * TILE_LANES;
}

/* Width of the panel that begins at `column`; `padded` columns in all. */
VFN int32_t tile_panel_width(int32_t padded, int32_t column) {
    return padded - column < TILE_PANEL ? padded - column : TILE_PANEL;
}

/* Memory that will be wanted next, fetched a few cache lines at a time between blocks of arithmetic: asked
 * for all at once, it would keep the arithmetic from its own operands. */
typedef struct tile_ahead {
    const uint8_t *const *at; /* [count] */
    int32_t count, bytes;     /* of each */
    int32_t next, line;
} tile_ahead;

/* Inline, for gcc drops a call whose only effect is a prefetch. */
VFN void tile_fetch(tile_ahead *ahead, int32_t lines) {
    for (; lines > 0 && ahead->next < ahead->count; --lines) {
        const int32_t offset = 64 * ahead->line++;
        const int32_t last = offset >= ahead->bytes - 1; /* what begins inside a line ends in one more */
        __builtin_prefetch(ahead->at[ahead->next] + (last ? ahead->bytes - 1 : offset), 0, 2);
        if (last) {
            ahead->line = 0;
            ahead->next += 1;
        }
    }
}

/* What the tiles of one part work on; the wide pointers as laid out above. */
typedef struct tile_state {
    float *keys, *values, *queries, *scores, *out;
    float *max, *sum;               /* [lanes]; the maximum begins at -FLT_MAX */
    float moved[TILE_MAX_LANES];    /* by what this tile's maximum multiplies the sums so far */
    float fraction[TILE_MAX_LANES]; /* score = product * fraction * 2^power */
    float power[TILE_MAX_LANES];    /* PACK 2 only */
    int32_t heads, lanes;           /* of the unit, and padded */
    int32_t columns, value_columns; /* d_qk and d_v, padded */
    int32_t out_row;                /* elements from one head's out to the next's */
    int32_t started;                /* a tile has been added to out, which before holds nothing */
    tile_ahead ahead;
} tile_state;

/* ---- products ----
 *
 * c[rows][width] = c * factor + a[rows][steps] * b[steps][width], where a's elements are words read one by
 * one from anywhere, b's rows are contiguous words, and c is f32. */

enum tile_start { TILE_FROM_ZERO, TILE_ADD, TILE_RESCALE };

typedef struct tile_product {
    const float *a;      /* words, whatever they hold */
    const float *b;      /* [steps][width] */
    float *c;            /* [rows], c_row apart */
    const float *factor; /* [rows], TILE_RESCALE only */
    ptrdiff_t a_row, a_step, c_row;
    int32_t rows, steps, width;
    enum tile_start start;
    tile_ahead *ahead;
} tile_product;

#if TILE_PACK == 1
VFN v_f32 tile_multiply_add(v_f32 a, v_f32 b, v_f32 c) {
    return v_fma(a, b, c);
}
#else
VFN v_f32 tile_multiply_add(v_f32 a, v_f32 b, v_f32 c) {
    return _mm512_dpbf16_ps(c, (__m512bh)v_bits(b), (__m512bh)v_bits(a));
}
#endif

enum { TILE_BLOCK_LINES = 4 }; /* fetched ahead after each block */

/* One block of c, in registers from first to last. `planes` words of a, a_step apart, meet each row of b. */
VFN void tile_block(const tile_product *x, int32_t row, int32_t column, const int planes, const int rows,
                    const int vectors) {
    const float *a = x->a + row * x->a_row;
    const float *b = x->b + column;
    float *c = x->c + row * x->c_row + column;
    v_f32 sum[12][4];
    TILE_UNROLL for (int r = 0; r < rows; ++r) {
        const v_f32 factor = v_set(x->start == TILE_RESCALE ? x->factor[row + r] : 1.0f);
        TILE_UNROLL for (int v = 0; v < vectors; ++v) {
            const float *from = c + r * x->c_row + v * V_LANES;
            sum[r][v] = x->start == TILE_FROM_ZERO ? v_zero() : v_mul(v_load(from), factor);
        }
    }
    for (int32_t step = 0; step < x->steps; ++step, b += x->width) {
        v_f32 right[4];
        TILE_UNROLL for (int v = 0; v < vectors; ++v) {
            right[v] = v_load(b + v * V_LANES);
        }
        TILE_UNROLL for (int plane = 0; plane < planes; ++plane, a += x->a_step) {
            TILE_UNROLL for (int r = 0; r < rows; ++r) {
                const v_f32 left = v_set(a[r * x->a_row]);
                TILE_UNROLL for (int v = 0; v < vectors; ++v) {
                    sum[r][v] = tile_multiply_add(left, right[v], sum[r][v]);
                }
            }
        }
    }
    TILE_UNROLL for (int r = 0; r < rows; ++r) {
        TILE_UNROLL for (int v = 0; v < vectors; ++v) {
            v_store(c + r * x->c_row + v * V_LANES, sum[r][v]);
        }
    }
    tile_fetch(x->ahead, TILE_BLOCK_LINES);
}

VFN void tile_all_rows(const tile_product *x, int32_t column, const int planes, const int rows,
                       const int vectors) {
    int32_t row = 0;
    for (; row + rows <= x->rows; row += rows) tile_block(x, row, column, planes, rows, vectors);
    for (; row + 4 <= x->rows; row += 4) tile_block(x, row, column, planes, 4, vectors);
    for (; row < x->rows; ++row) tile_block(x, row, column, planes, 1, vectors);
}

/* Blocks of 24 sums in 32 registers, or of 12 in 16: enough to hide the latency of the units. */
VFN void tile_multiply(const tile_product *x, const int planes) {
    int32_t column = 0;
    if (V_LANES == 16) {
        for (; column + 64 <= x->width; column += 64) tile_all_rows(x, column, planes, 6, 4);
        for (; column + 32 <= x->width; column += 32) tile_all_rows(x, column, planes, 12, 2);
        for (; column < x->width; column += 16) tile_all_rows(x, column, planes, 12, 1);
    } else {
        for (; column < x->width; column += 16) tile_all_rows(x, column, planes, 6, 2);
    }
}

/* The words of `head` and its neighbours that hold element `from`; those of the next elements follow *stride
 * words away, to the end of the panel of d. */
VFN float *tile_queries_at(const tile_state *state, int32_t from, int32_t head, int32_t *stride) {
    const int32_t column = from / TILE_PANEL * TILE_PANEL, group = head / TILE_PANEL * TILE_PANEL;
    const int32_t width = tile_panel_width(state->columns, column);
    *stride = tile_panel_width(state->lanes, group);
    return state->queries + (state->lanes * column + group * width + (from - column) * *stride) / TILE_PACK +
           head - group;
}

/* Products of the part's queries with `count` keys, in the panel of d that begins at `column`. */
static void tile_scores_panel(tile_state *state, int32_t count, int32_t column) {
    const int32_t width = tile_panel_width(state->columns, column);
    for (int32_t head = 0; head < state->lanes; head += TILE_PANEL) {
        int32_t heads;
        const float *queries = tile_queries_at(state, column, head, &heads);
        const tile_product product = {
            .a = state->keys + column * MLAR_KEY_TILE / TILE_PACK,
            .a_row = width / TILE_PACK,
            .a_step = 1,
            .b = queries,
            .c = state->scores + head,
            .c_row = state->lanes,
            .rows = count,
            .steps = width / TILE_PACK,
            .width = heads,
            .start = column ? TILE_ADD : TILE_FROM_ZERO,
            .ahead = &state->ahead,
        };
        tile_multiply(&product, 1);
    }
}

/* out = out * moved + weights * values, in the panel of d that begins at `column`. */
static void tile_accumulate_panel(tile_state *state, int32_t count, int32_t column) {
    const int32_t width = tile_panel_width(state->value_columns, column);
    const tile_product product = {
        .a = state->scores,
        .a_row = 1,
        .a_step = state->lanes,
        .b = state->values + column * MLAR_KEY_TILE / TILE_PACK,
        .c = state->out + column,
        .c_row = state->out_row,
        .factor = state->moved,
        .rows = state->heads,
        .steps = (count + TILE_PACK - 1) / TILE_PACK,
        .width = width,
        .start = state->started ? TILE_RESCALE : TILE_FROM_ZERO,
        .ahead = &state->ahead,
    };
    tile_multiply(&product, TILE_PACK);
}

/* ---- softmax ---- */

/* e^x for x <= 0, within 1 ulp; 0 where that would be subnormal, NaN for NaN. x is n * ln 2 + r with |r| at
 * most half of ln 2; the polynomial is a minimax fit of e^r to 3e-9. */
VFN v_f32 tile_exp(v_f32 x) {
    const v_f32 n = v_nearest(v_mul(x, v_set(0x1.715476p+0f)));
    const v_f32 r = v_minus_product(v_minus_product(x, n, v_set(0x1.62e43p-1f)), n, v_set(-0x1.05c61p-29f));
    v_f32 fit = v_fma(v_set(0x1.6a2434p-10f), r, v_set(0x1.1239e2p-7f));
    fit = v_fma(fit, r, v_set(0x1.5558f2p-5f));
    fit = v_fma(fit, r, v_set(0x1.555492p-3f));
    fit = v_fma(fit, r, v_set(0x1.fffffcp-2f));
    fit = v_fma(fit, v_mul(r, r), r);
    return v_scale_if(x, v_set(-87.0f), v_add(fit, v_set(1.0f)), n);
}

/* A score from its product: tile_queries.h says why the scale comes in two pieces. */
VFN v_f32 tile_scaled(const tile_state *state, int32_t head, v_f32 product) {
#if TILE_PACK == 1
    return v_mul(product, v_load(state->fraction + head));
#else
    return _mm512_scalef_ps(v_mul(product, v_load(state->fraction + head)), v_load(state->power + head));
#endif
}

/* The weights of one pair of keys as products want them. PACK 2: each f32 weight is the sum of two bf16, cut
 * off and remainder, so that what is lost is below 2^-16 of it. */
VFN void tile_store_weights(float *to, int32_t lanes, v_f32 first, v_f32 second) {
#if TILE_PACK == 1
    v_store(to, first);
    v_store(to + lanes, second);
#else
    const v_u32 upper = v_set_u32(0xffff0000u), half = v_set_u32(0x8000);
    const v_u32 a = v_and(v_bits(first), upper), b = v_and(v_bits(second), upper);
    const v_u32 a_rest = v_add_u32(v_bits(v_sub(first, v_from_bits(a))), half);
    const v_u32 b_rest = v_add_u32(v_bits(v_sub(second, v_from_bits(b))), half);
    v_store(to, v_from_bits(v_or(v_shift_right(a, 16), b)));
    v_store(to + lanes, v_from_bits(v_or(v_shift_right(a_rest, 16), v_and(b_rest, upper))));
#endif
}

/* Products of `count` keys -> weights exp(score - max), in place, an odd count made even by a weight of 0;
 * the maximum and the sum (of the unrounded weights) carry on. A NaN score does not touch the maximum and
 * lives on in the sum and the weights. */
static void tile_weights(tile_state *state, int32_t count) {
    const int32_t lanes = state->lanes;
    for (int32_t head = 0; head < lanes; head += V_LANES) {
        float *const scores = state->scores + head;
        const v_f32 before = v_load(state->max + head);
        v_f32 even = before, odd = before, max, moved, sum;
        for (int32_t key = 0; key < count; key += 2) {
            float *at = scores + key * lanes;
            const v_f32 a = tile_scaled(state, head, v_load(at));
            const v_f32 b = key + 1 < count ? tile_scaled(state, head, v_load(at + lanes)) : v_set(-INFINITY);
            v_store(at, a);
            v_store(at + lanes, b);
            even = v_max(a, even);
            odd = v_max(b, odd);
        }
        max = v_max(even, odd);
        moved = tile_exp(v_sub(before, max));
        sum = v_mul(v_load(state->sum + head), moved);
        for (int32_t key = 0; key < count; key += 2) {
            float *at = scores + key * lanes;
            const v_f32 a = tile_exp(v_sub(v_load(at), max)), b = tile_exp(v_sub(v_load(at + lanes), max));
            sum = v_add(sum, v_add(a, b));
            tile_store_weights(at, lanes, a, b);
        }
        v_store(state->max + head, max);
        v_store(state->sum + head, sum);
        v_store(state->moved + head, moved);
    }
}

#endif
