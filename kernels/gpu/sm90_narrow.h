/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_narrow.h: the consuming warps of the tuned NVIDIA engine for up to 32 heads at a time, on mma.
 *
 * Eight warps. For the scores, warp 4 h + c has tokens 32 h .. 32 h + 31 and columns 128 c .. 128 c + 127 of the
 * queries (in registers) and keys, and of a ninth panel a quarter: its scores are partial. The four parts meet in
 * shared memory, where each thread sums, in order, four tokens of one head (of two with 32 heads), makes them
 * probabilities, and leaves those for all. For P V a warp has all tokens and 64 columns, one panel. Two barriers a
 * tile. A head's probabilities are summed in f32, before they are rounded. */
#ifndef MLAR_KERNELS_GPU_SM90_NARROW_H
#define MLAR_KERNELS_GPU_SM90_NARROW_H

#include "kernels/gpu/sm90_finish.h"
#include "kernels/gpu/sm90_merge.h"

#define SM90_SCORE_PARTS 4
#define SM90_SCORE_STEPS 8 /* of 16 columns in a part; the ninth is apart */

/* Kept from the compiler, which else holds every address that follows from it, and there are no registers for that. */
MLAR_DEVICE int32_t sm90_narrow_thread(void) {
    return (int32_t)sm90_keep((uint32_t)mlar_thread());
}

/* Where a thread keeps its ninth step of the queries, [16-head tile]: there are no registers for it. */
MLAR_DEVICE uint32_t sm90_narrow_ninth(const sm90_block *b, int32_t m) {
    return b->base + SM90_AT_NINTH + (uint32_t)(m * SM90_CONSUMERS + sm90_narrow_thread()) * 16;
}

/* The warp's queries as the a operand, shifted: a[16-head tile][16 columns]. Heads that do not exist are zeros. */
template <class cache, int m_tiles>
MLAR_DEVICE void sm90_narrow_queries(const sm90_block *b, const sm90_share *share, int32_t row,
                                     uint32_t a[m_tiles][SM90_SCORE_STEPS][4]) {
    const int32_t thread = sm90_narrow_thread(), lane = thread & 31, part = thread >> 5 & 3;
    const int32_t steps = cache::panels > 8 ? 9 : 8, ninth = 512 - 112 * part; /* from the part's begin */
    uint32_t q[m_tiles][9][4];
    MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) MLAR_UNROLL for (int32_t r = 0; r < 2; ++r) {
        const int32_t head = share->head_begin + 16 * m + 8 * r + lane / 4;
        const uint16_t *from = b->layer->q + row * b->layer->q_row_stride + head * b->layer->q_head_stride +
                               128 * part + 2 * (lane & 3);
        MLAR_UNROLL for (int32_t k = 0; k < steps; ++k) MLAR_UNROLL for (int32_t c = 0; c < 2; ++c) {
            const int32_t column = k < SM90_SCORE_STEPS ? 16 * k : ninth;
            q[m][k][2 * c + r] = head < share->head_end ? mlar_load4(from + column + 8 * c) : 0;
        }
    }
    const uint32_t factor = sm90_read4(SM90_CONTROL(b, query_factor));
    MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
        MLAR_UNROLL for (int32_t k = 0; k < steps; ++k) MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) {
            q[m][k][i] = sm90_mul_bf16x2(q[m][k][i], factor);
            if (k < SM90_SCORE_STEPS) a[m][k][i] = q[m][k][i];
        }
        if (steps > SM90_SCORE_STEPS) {
            const mlar_u32x4 last = {q[m][8][0], q[m][8][1], q[m][8][2], q[m][8][3]};
            sm90_store16(sm90_narrow_ninth(b, m), last);
        }
    }
}

/* This warp's part of the scores of tile n, to shared memory. */
template <class cache, int m_tiles>
MLAR_DEVICE void sm90_narrow_scores(const sm90_block *b, int32_t n,
                                    const uint32_t a[m_tiles][SM90_SCORE_STEPS][4]) {
    const int32_t thread = sm90_narrow_thread(), lane = thread & 31, part = thread >> 5 & 3,
                  half = thread >> 7;
    const uint32_t keys = sm90_keys<cache>(b, n) + (uint32_t)(2 * part) * SM90_PANEL_BYTES +
                          (uint32_t)(32 * half + (lane & 7)) * 128;
    const uint32_t chunk = (uint32_t)((lane >> 3) ^ (lane & 7)) * 16;
    /* matrices 0 and 1 are the two chunks of eight tokens, 2 and 3 those of the next eight */
    const uint32_t ninth = sm90_keys<cache>(b, n) + 8 * SM90_PANEL_BYTES +
                           (uint32_t)(32 * half + (lane >> 4) * 8 + (lane & 7)) * 128 +
                           (uint32_t)((2 * part + (lane >> 3 & 1)) ^ (lane & 7)) * 16;
    const uint32_t to =
        b->base + SM90_AT_SCORES +
        (uint32_t)((part * SM90_NARROW_HEADS + lane / 4) * SM90_SCORE_STRIDE + 32 * half + 2 * (lane & 3)) *
            4;
    const int32_t wide =
        m_tiles == 1 ? 4 : 2; /* blocks of 8 tokens at a time: enough chains, not too many registers */
    MLAR_UNROLL for (int32_t first = 0; first < 4; first += wide) {
        float s[m_tiles][4][4]; /* [16-head tile][block] */
        MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) MLAR_UNROLL for (int32_t i = 0; i < 16; ++i)
            s[m][i >> 2][i & 3] = 0.0f;
        MLAR_UNROLL for (int32_t k = 0; k < SM90_SCORE_STEPS; k += 2)
            MLAR_UNROLL for (int32_t t = 0; t < wide; ++t) {
            uint32_t v[4];
            sm90_load_matrices(v, keys + (uint32_t)(k / 4) * SM90_PANEL_BYTES + (uint32_t)(first + t) * 1024 +
                                      (chunk ^ (uint32_t)(k & 2) * 32));
            MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
                sm90_mma(s[m][t], a[m][k], v[0], v[1]);
                sm90_mma(s[m][t], a[m][k + 1], v[2], v[3]);
            }
        }
        if (cache::panels > 8) {
            uint32_t q[m_tiles][4];
            MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
                const mlar_u32x4 last = sm90_read16(sm90_narrow_ninth(b, m));
                q[m][0] = last.x, q[m][1] = last.y, q[m][2] = last.z, q[m][3] = last.w;
            }
            MLAR_UNROLL for (int32_t t = 0; t < wide; t += 2) { /* two blocks at a time */
                uint32_t v[4];
                sm90_load_matrices(v, ninth + (uint32_t)(first + t) * 1024);
                MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
                    sm90_mma(s[m][t], q[m], v[0], v[1]);
                    sm90_mma(s[m][t + 1], q[m], v[2], v[3]);
                }
            }
        }
        MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) MLAR_UNROLL for (int32_t t = 0; t < wide; ++t)
            MLAR_UNROLL for (int32_t r = 0; r < 2; ++r)
                sm90_store8(to + (uint32_t)((16 * m + 8 * r) * SM90_SCORE_STRIDE + 8 * (first + t)) * 4,
                            mlar_f32_bits(s[m][t][2 * r]), mlar_f32_bits(s[m][t][2 * r + 1]));
    }
}

/* Four tokens of one head: sums the parts, makes probabilities. max2 and sum are the head's so far (sum: of
 * this thread's tokens). */
MLAR_DEVICE void sm90_narrow_softmax(const sm90_block *b, int32_t n, int32_t head, float *max2, float *sum) {
    const int32_t place = sm90_narrow_thread() & 15; /* of 4 tokens */
    const uint32_t parts = b->base + SM90_AT_SCORES + (uint32_t)(head * SM90_SCORE_STRIDE + 4 * place) * 4;
    const uint32_t counts =
        sm90_read1(SM90_CONTROL(b, counts) + 8 * (uint32_t)(n & 1) + (uint32_t)(place >> 1)) >>
        4 * (place & 1);
    const float scale2 = sm90_read_f32(SM90_CONTROL(b, scale2));
    float s[4] = {0.0f, 0.0f, 0.0f, 0.0f}, p[4], max = -MLAR_INF, base, alpha;
    MLAR_UNROLL for (int32_t w = 0; w < SM90_SCORE_PARTS; ++w) {
        const mlar_u32x4 part =
            sm90_read16(parts + (uint32_t)(w * SM90_NARROW_HEADS * SM90_SCORE_STRIDE) * 4);
        s[0] += mlar_f32_from_bits(part.x), s[1] += mlar_f32_from_bits(part.y);
        s[2] += mlar_f32_from_bits(part.z), s[3] += mlar_f32_from_bits(part.w);
    }
    MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) {
        s[i] *= scale2;
        if (counts >> i & 1) max = mlar_max(max, s[i]);
    }
    max = mlar_max(*max2, mlar_lanes_max(max, 16));
    base = max == -MLAR_INF ? 0.0f : max;
    alpha = sm90_exp2(*max2 - base);
    *max2 = max;
    MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) p[i] = counts >> i & 1 ? sm90_exp2(s[i] - base) : 0.0f;
    *sum = *sum * alpha + ((p[0] + p[1]) + (p[2] + p[3]));
    sm90_store8(b->base + SM90_AT_NARROW_PROBS +
                    (uint32_t)(head * 128 + ((place >> 1) ^ (head & 7)) * 16 + (place & 1) * 8),
                mlar_bf16x2(p[0], p[1]), mlar_bf16x2(p[2], p[3]));
    if (place == 0) sm90_store_f32(SM90_CONTROL(b, alpha) + 4 * (uint32_t)head, alpha);
}

/* O = alpha O + P V for the warp's 64 columns. */
template <class cache, int m_tiles>
MLAR_DEVICE void sm90_narrow_values(const sm90_block *b, int32_t n, float o[m_tiles][32]) {
    const int32_t thread = sm90_narrow_thread(), lane = thread & 31, warp = thread >> 5;
    const uint32_t panel = sm90_keys<cache>(b, n) + (uint32_t)warp * SM90_PANEL_BYTES;
    /* both operands: matrices 0 and 1 are rows 0 .. 7 and 8 .. 15, 2 and 3 the next chunk of 8 columns */
    const uint32_t row = (uint32_t)(lane & 15) * 128;
    const uint32_t chunk = (uint32_t)((lane >> 4) ^ (lane & 7)) * 16;
    MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
        const uint32_t alpha = SM90_CONTROL(b, alpha) + 4 * (uint32_t)(16 * m + lane / 4);
        const float alpha0 = sm90_read_f32(alpha), alpha1 = sm90_read_f32(alpha + 32);
        MLAR_UNROLL for (int32_t i = 0; i < 32; i += 4) {
            o[m][i] *= alpha0, o[m][i + 1] *= alpha0;
            o[m][i + 2] *= alpha1, o[m][i + 3] *= alpha1;
        }
    }
    MLAR_UNROLL for (int32_t t = 0; t < 4; ++t) { /* 16 tokens */
        uint32_t p[m_tiles][4];
        MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) sm90_load_matrices(
            p[m], b->base + SM90_AT_NARROW_PROBS + (uint32_t)m * 2048 + row + (chunk ^ (uint32_t)t * 32));
        MLAR_UNROLL for (int32_t c = 0; c < 4; ++c) { /* 16 columns */
            uint32_t v[4];
            sm90_load_matrices_transposed(v, panel + (uint32_t)t * 2048 + row + (chunk ^ (uint32_t)c * 32));
            MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
                sm90_mma(o[m] + 8 * c, p[m], v[0], v[1]);
                sm90_mma(o[m] + 8 * c + 4, p[m], v[2], v[3]);
            }
        }
    }
}

/* `merged`: the block is of a cluster that merges rows, of up to 16 heads. */
template <class cache, int m_tiles, bool merged = false>
MLAR_DEVICE void sm90_narrow(const sm90_block *block) {
    sm90_block here = *block;
    const sm90_block *const b = &here;
    const sm90_share *share = &b->control->share;
    int32_t n = 0, index = 0;
    if (mlar_thread() == 0) sm90_find_part<merged>(b, 0);
    sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
    while (b->control->part[index & 1].tiles) {
        const int32_t end = n + b->control->part[index & 1].tiles;
        uint32_t a[m_tiles][SM90_SCORE_STEPS][4];
        float o[m_tiles][32], max2[m_tiles], sum[m_tiles];
        sm90_narrow_queries<cache, m_tiles>(b, share, b->control->part[index & 1].row, a);
        MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
            max2[m] = -MLAR_INF, sum[m] = 0.0f;
            MLAR_UNROLL for (int32_t i = 0; i < 32; ++i) o[m][i] = 0.0f;
        }
        sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS); /* nobody needs the part before any more */
        if (mlar_thread() == 0) sm90_find_part<merged>(b, index + 1);
        for (; n < end; ++n) {
            here.base = sm90_keep(here.base);
            sm90_barrier_wait(sm90_full(b, n), sm90_parity(n));
            sm90_narrow_scores<cache, m_tiles>(b, n, a);
            sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
            MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m)
                sm90_narrow_softmax(b, n, 16 * m + (sm90_narrow_thread() >> 4), &max2[m], &sum[m]);
            sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
            sm90_narrow_values<cache, m_tiles>(b, n, o);
            sm90_release<cache>(b, n, 0);
            sm90_release<cache>(b, n, 1);
        }
        if (merged && b->control->row_parts > 1) {
            sm90_merge_leave(b, o[0], max2[0], mlar_lanes_sum(sum[0], 16));
            sm90_merge(b);
            return; /* the only part */
        }
        MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m) {
            const int32_t local = 16 * m + (sm90_narrow_thread() >> 4), head = share->head_begin + local;
            const float total = mlar_lanes_sum(sum[m], 16);
            if ((mlar_thread() & 15) == 0 && head < share->head_end)
                sm90_store_f32(SM90_CONTROL(b, factor) + 4 * (uint32_t)local,
                               sm90_finish_head(b, &b->control->part[index & 1], head, max2[m], total));
        }
        sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
        MLAR_UNROLL for (int32_t m = 0; m < m_tiles; ++m)
            sm90_finish_store<8>(b, &b->control->part[index & 1], o[m], 16 * m, share->head_begin,
                                 share->head_end, 64 * (sm90_narrow_thread() >> 5));
        ++index;
    }
}

#endif
