/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_wide.h: the consuming warpgroups of the tuned NVIDIA engine for 33 to 64 heads at a time, on wgmma.
 *
 * Queries [64 heads] and the key tile [64 tokens] lie in shared memory, 512 or 576 columns wide. The left warpgroup
 * makes the scores S[64 x 64] = Q K^T, their softmax, and the bf16 probabilities P in shared memory; then each
 * warpgroup adds P V for its half of V's 512 columns, V being the key tile read the other way. While the left one's
 * P V is under way it issues the next tile's scores behind it. A head's probabilities are summed in f32, before they
 * are rounded. */
#ifndef MLAR_KERNELS_GPU_SM90_WIDE_H
#define MLAR_KERNELS_GPU_SM90_WIDE_H

#include "kernels/gpu/sm90_finish.h"

/* A thread's queries are 16-byte chunks: one of the first 64 of every fourth head, and of what lies behind them, if
 * anything does, one of eight of every 32nd head. All is asked for at once; heads that do not exist are zeros. */
template <int heads_apart>
MLAR_DEVICE void sm90_wide_queries_ask(const sm90_block *b, const sm90_share *share, int32_t row,
                                       int32_t chunk, int32_t first) {
    const int32_t heads = share->head_end - share->head_begin;
    const int64_t head_stride = b->layer->q_head_stride;
    const uint16_t *from =
        b->layer->q + row * b->layer->q_row_stride + share->head_begin * head_stride + 8 * chunk;
    const uint32_t to = b->base + SM90_AT_QUERIES + (uint32_t)(chunk >> 3) * SM90_PANEL_BYTES;
    MLAR_NO_UNROLL for (int32_t local = first; local < SM90_WIDE_HEADS; local += heads_apart) {
        const int32_t exists = local < heads;
        sm90_copy16(to + (uint32_t)local * 128 + (uint32_t)((chunk ^ local) & 7) * 16,
                    exists ? from + local * head_stride : from, exists);
    }
}
template <class cache>
MLAR_DEVICE void sm90_wide_queries(const sm90_block *b, const sm90_share *share, int32_t row) {
    const int32_t thread = (int32_t)sm90_keep((uint32_t)mlar_thread());
    sm90_wide_queries_ask<SM90_CONSUMERS / 64>(b, share, row, thread & 63, thread >> 6);
    if (cache::panels > 8)
        sm90_wide_queries_ask<SM90_CONSUMERS / 8>(b, share, row, 64 + (thread & 7), thread >> 3);
}

/* Waits for what this thread has asked for, and shifts it (mlar_query_shift). */
template <uint32_t heads_apart>
MLAR_DEVICE void sm90_wide_queries_shift(const sm90_block *b, uint32_t chunk, uint32_t first) {
    const uint32_t factor = sm90_read4(SM90_CONTROL(b, query_factor));
    const uint32_t at = b->base + SM90_AT_QUERIES + (chunk >> 3) * SM90_PANEL_BYTES;
    const uint32_t at_once = heads_apart < 16 ? 16 : SM90_WIDE_HEADS;
    MLAR_NO_UNROLL for (uint32_t base = first; base < SM90_WIDE_HEADS; base += at_once) {
        MLAR_UNROLL for (uint32_t local = base; local < base + at_once; local += heads_apart) {
            const uint32_t place = at + local * 128 + ((chunk ^ local) & 7) * 16;
            const mlar_u32x4 q = sm90_read16(place);
            const mlar_u32x4 shifted = {sm90_mul_bf16x2(q.x, factor), sm90_mul_bf16x2(q.y, factor),
                                        sm90_mul_bf16x2(q.z, factor), sm90_mul_bf16x2(q.w, factor)};
            sm90_store16(place, shifted);
        }
    }
}
template <class cache> MLAR_DEVICE void sm90_wide_queries_arrived(const sm90_block *b) {
    const uint32_t thread = sm90_keep((uint32_t)mlar_thread());
    sm90_copy_wait();
    sm90_wide_queries_shift<SM90_CONSUMERS / 64>(b, thread & 63, thread >> 6);
    if (cache::panels > 8) sm90_wide_queries_shift<SM90_CONSUMERS / 8>(b, 64 + (thread & 7), thread >> 3);
    sm90_fence_async();
}

/* S (+)= Q K^T over one panel, 64 columns. */
template <int panel> MLAR_DEVICE void sm90_wide_scores_panel(float s[32], uint32_t q, uint32_t k) {
    sm90_wgmma_64<panel * SM90_PANEL_BYTES + 0, panel * SM90_PANEL_BYTES + 0>(s, q, k, panel > 0);
    sm90_wgmma_64<panel * SM90_PANEL_BYTES + 32, panel * SM90_PANEL_BYTES + 32>(s, q, k, 1);
    sm90_wgmma_64<panel * SM90_PANEL_BYTES + 64, panel * SM90_PANEL_BYTES + 64>(s, q, k, 1);
    sm90_wgmma_64<panel * SM90_PANEL_BYTES + 96, panel * SM90_PANEL_BYTES + 96>(s, q, k, 1);
}

/* Where tile n's probabilities are. */
template <class cache> MLAR_DEVICE uint32_t sm90_wide_probs(const sm90_block *b, int32_t n) {
    return b->base + cache::probs + (uint32_t)(n & 1) * cache::probs_stride;
}

/* Issues S = Q K^T of tile n. */
template <class cache> MLAR_DEVICE void sm90_wide_scores(const sm90_block *b, int32_t n, float s[32]) {
    const uint32_t q = sm90_descriptor_rows(b->base + SM90_AT_QUERIES);
    const uint32_t k = sm90_descriptor_rows(sm90_keys<cache>(b, n));
    sm90_wgmma_begin();
    sm90_wide_scores_panel<0>(s, q, k);
    sm90_wide_scores_panel<1>(s, q, k);
    sm90_wide_scores_panel<2>(s, q, k);
    sm90_wide_scores_panel<3>(s, q, k);
    sm90_wide_scores_panel<4>(s, q, k);
    sm90_wide_scores_panel<5>(s, q, k);
    sm90_wide_scores_panel<6>(s, q, k);
    sm90_wide_scores_panel<7>(s, q, k);
    if (cache::panels > 8) sm90_wide_scores_panel<8>(s, q, k);
    sm90_wgmma_commit();
}

/* O (+)= P V over 16 tokens. */
template <int step>
MLAR_DEVICE void sm90_wide_values_step(float o[128], uint32_t p, uint32_t v, int32_t accumulate) {
    sm90_wgmma_128<step * 32, step * 2048>(o, p, v, accumulate);
    sm90_wgmma_128<step * 32, step * 2048 + 2 * SM90_PANEL_BYTES>(o + 64, p, v, accumulate);
}

/* Issues O (+)= P V for this warpgroup's 256 columns, in two groups of 32 tokens each. */
template <class cache>
MLAR_DEVICE void sm90_wide_values(const sm90_block *b, int32_t n, int32_t right, float o[128],
                                  int32_t accumulate) {
    const uint32_t p = sm90_descriptor_rows(sm90_wide_probs<cache>(b, n));
    const uint32_t v = sm90_descriptor_columns(
        sm90_keys<cache>(b, n) + (uint32_t)right * 4 * SM90_PANEL_BYTES, SM90_PANEL_BYTES);
    sm90_wgmma_begin();
    sm90_wide_values_step<0>(o, p, v, accumulate);
    sm90_wide_values_step<1>(o, p, v, 1);
    sm90_wgmma_commit();
    sm90_wide_values_step<2>(o, p, v, 1);
    sm90_wide_values_step<3>(o, p, v, 1);
    sm90_wgmma_commit();
}

/* Multiplies the sums of this lane's two heads, unless nothing in the warp changes. */
MLAR_DEVICE void sm90_wide_rescale(float o[128], float alpha0, float alpha1) {
    if (!mlar_any(alpha0 != 1.0f || alpha1 != 1.0f)) return;
    MLAR_UNROLL for (int32_t i = 0; i < 128; i += 4) {
        o[i] *= alpha0, o[i + 1] *= alpha0;
        o[i + 2] *= alpha1, o[i + 3] *= alpha1;
    }
}

/* By how many powers of two a score may exceed the maximum that sums are kept relative to. Then the sums need not be
 * rescaled for every little step of the maximum; f32 and bf16 lose nothing by numbers up to 2^8 times as large. */
#define SM90_SLACK2 8.0f

/* What the left warpgroup knows of a lane's two heads. */
typedef struct sm90_heads {
    float max2[2]; /* of the scores so far, times log2(e), or a little less: SM90_SLACK2 */
    float sum[2];  /* this lane's tokens only */
    float alpha[2];
} sm90_heads;

/* Scores of tile n to probabilities in shared memory. */
template <class cache>
MLAR_DEVICE void sm90_wide_softmax(const sm90_block *b, int32_t n, float s[32], sm90_heads *heads) {
    const int32_t lane = mlar_lane(), column = 2 * (lane & 3), row = (mlar_thread() >> 5) * 16 + lane / 4;
    const uint64_t counts = sm90_read_u64(SM90_CONTROL(b, counts) + 8 * (uint32_t)(n & 1));
    const float scale2 = sm90_read_f32(SM90_CONTROL(b, scale2));
    /* those of tile n - 2 have been read: else its stage were not this one's */
    const uint32_t to = sm90_wide_probs<cache>(b, n) + (uint32_t)(row * 128 + 2 * column);
    MLAR_UNROLL for (int32_t i = 0; i < 32; ++i) s[i] *= scale2;
    if (counts !=
        ~0ull) { /* whatever a masked token's score is, NaN too, it becomes one whose probability is 0 */
        const uint32_t low = (uint32_t)(counts >> column), high = (uint32_t)(counts >> 32 >> column);
        MLAR_UNROLL for (int32_t i = 0; i < 32;
                         ++i) if (!((i < 16 ? low : high) >> (i / 4 % 4 * 8 + i % 2) & 1)) s[i] = -MLAR_INF;
    }
    MLAR_UNROLL for (int32_t r = 0; r < 2; ++r) {
        float max2 = -MLAR_INF, base, sum = 0.0f;
        MLAR_UNROLL for (int32_t k = 0; k < 32; k += 4) max2 =
            mlar_max(max2, mlar_max(s[k + 2 * r], s[k + 2 * r + 1]));
        max2 = mlar_lanes_max(max2, 4);
        heads->alpha[r] = 1.0f;
        if (max2 > heads->max2[r] + SM90_SLACK2) {
            heads->alpha[r] = sm90_exp2(heads->max2[r] - max2);
            heads->max2[r] = max2;
        }
        base = heads->max2[r] == -MLAR_INF ? 0.0f : heads->max2[r];
        MLAR_UNROLL for (int32_t k = 0; k < 8; ++k) {
            const float p0 = sm90_exp2(s[4 * k + 2 * r] - base), p1 = sm90_exp2(s[4 * k + 2 * r + 1] - base);
            sum += p0 + p1;
            /* row & 7 is lane / 4 for both r */
            sm90_store4(to + (uint32_t)(r * 8 * 128) + (uint32_t)((k ^ lane / 4) * 16), mlar_bf16x2(p0, p1));
        }
        heads->sum[r] = heads->sum[r] * heads->alpha[r] + sum;
        if ((lane & 3) == 0)
            sm90_store_f32(SM90_CONTROL(b, alpha) + 4 * (uint32_t)((n & 1) * SM90_WIDE_HEADS + row + 8 * r),
                           heads->alpha[r]);
    }
}

/* By all consuming threads: returns when each has done its tiles of part number `index` and written what the others
 * read at its end. A barrier object, not a named barrier, which is 1 to 2 % slower here; and racecheck loses track of
 * named ones that not all warps of the block take part in, and then sees a race over `factor`. */
MLAR_DEVICE void sm90_wide_part_ended(const sm90_block *b, int32_t index) {
    sm90_barrier_arrive(SM90_CONTROL(b, ended));
    sm90_barrier_wait(SM90_CONTROL(b, ended), (uint32_t)index & 1);
}

/* Warpgroup 0. */
template <class cache> MLAR_DEVICE void sm90_wide_left(const sm90_block *block) {
    sm90_block here = *block;
    const sm90_block *const b = &here;
    const int32_t lane = mlar_lane(), first = (mlar_thread() >> 5) * 16;
    const sm90_share *share = &b->control->share;
    float o[128], s[32];
    int32_t n = 0, index = 0;
    if (mlar_span_has_tiles(&share->span)) sm90_wide_queries<cache>(b, share, share->span.row);
    if (mlar_thread() == 0) sm90_find_part(b, 0);
    sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
    while (b->control->part[index & 1].tiles) {
        const int32_t end = n + b->control->part[index & 1].tiles;
        sm90_heads heads = {{-MLAR_INF, -MLAR_INF}, {0.0f, 0.0f}, {0.0f, 0.0f}};
        int32_t accumulate = 0;
        sm90_wide_queries_arrived<cache>(b);
        sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
        if (mlar_thread() == 0) sm90_find_part(b, index + 1);
        sm90_barrier_wait(sm90_full(b, n), sm90_parity(n));
        sm90_wide_scores<cache>(b, n, s);
        SM90_WGMMA_WAIT(0);
        for (; n < end; ++n) {
            here.base = sm90_keep(here.base);
            SM90_PIN(s, 32);
            /* what it writes over must have been read by all four warps */
            if (cache::probs_in_keys) sm90_group_sync(SM90_BARRIER_LEFT, SM90_GROUP);
            sm90_wide_softmax<cache>(b, n, s, &heads);
            sm90_fence_async();
            sm90_group_sync(SM90_BARRIER_LEFT, SM90_GROUP);
            sm90_barrier_arrive(sm90_probs(b, n));
            if (accumulate) sm90_wide_rescale(o, heads.alpha[0], heads.alpha[1]);
            SM90_PIN(o, 128);
            sm90_wide_values<cache>(b, n, 0, o, accumulate);
            accumulate = 1;
            if (n + 1 < end) {
                sm90_barrier_wait(sm90_full(b, n + 1), sm90_parity(n + 1));
                SM90_PIN(s, 32);
                sm90_wide_scores<cache>(b, n + 1, s);
                SM90_WGMMA_WAIT(2);
                sm90_release<cache>(b, n, 0);
                SM90_WGMMA_WAIT(1);
                sm90_release<cache>(b, n, 1);
                SM90_WGMMA_WAIT(0);
            } else {
                SM90_WGMMA_WAIT(1);
                sm90_release<cache>(b, n, 0);
                SM90_WGMMA_WAIT(0);
                sm90_release<cache>(b, n, 1);
            }
            SM90_PIN(o, 128);
        }
        SM90_PIN(o, 128);
        MLAR_UNROLL for (int32_t r = 0; r < 2; ++r) {
            const int32_t local = first + lane / 4 + 8 * r, head = share->head_begin + local;
            const float sum = mlar_lanes_sum(heads.sum[r], 4);
            if ((lane & 3) == 0 && head < share->head_end)
                sm90_store_f32(SM90_CONTROL(b, factor) + 4 * (uint32_t)local,
                               sm90_finish_head(b, &b->control->part[index & 1], head, heads.max2[r], sum));
        }
        sm90_wide_part_ended(b, index);
        if (b->control->part[(index + 1) & 1].tiles)
            sm90_wide_queries<cache>(b, share, b->control->part[(index + 1) & 1].row);
        sm90_finish_store<32>(b, &b->control->part[index & 1], o, first, share->head_begin, share->head_end,
                              0);
        ++index;
    }
}

/* Warpgroup 1. */
template <class cache> MLAR_DEVICE void sm90_wide_right(const sm90_block *block) {
    sm90_block here = *block;
    const sm90_block *const b = &here;
    const int32_t lane = mlar_lane(), first = (mlar_thread() >> 5 & 3) * 16;
    const sm90_share *share = &b->control->share;
    float o[128];
    int32_t n = 0, index = 0;
    if (mlar_span_has_tiles(&share->span)) sm90_wide_queries<cache>(b, share, share->span.row);
    sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
    while (b->control->part[index & 1].tiles) {
        const int32_t end = n + b->control->part[index & 1].tiles;
        int32_t accumulate = 0;
        sm90_wide_queries_arrived<cache>(b);
        sm90_group_sync(SM90_BARRIER_CONSUMERS, SM90_CONSUMERS);
        for (; n < end; ++n) {
            here.base = sm90_keep(here.base);
            sm90_barrier_wait(sm90_full(b, n), sm90_parity(n));
            sm90_barrier_wait(sm90_probs(b, n), sm90_parity(n));
            if (accumulate) {
                const uint32_t alpha =
                    SM90_CONTROL(b, alpha) + 4 * (uint32_t)((n & 1) * SM90_WIDE_HEADS + first + lane / 4);
                sm90_wide_rescale(o, sm90_read_f32(alpha), sm90_read_f32(alpha + 32));
            }
            SM90_PIN(o, 128);
            sm90_wide_values<cache>(b, n, 1, o, accumulate);
            accumulate = 1;
            SM90_WGMMA_WAIT(1);
            sm90_release<cache>(b, n, 0);
            SM90_WGMMA_WAIT(0);
            sm90_release<cache>(b, n, 1);
            SM90_PIN(o, 128);
        }
        sm90_wide_part_ended(b, index);
        if (b->control->part[(index + 1) & 1].tiles)
            sm90_wide_queries<cache>(b, share, b->control->part[(index + 1) & 1].row);
        sm90_finish_store<32>(b, &b->control->part[index & 1], o, first, share->head_begin, share->head_end,
                              256);
        ++index;
    }
}

#endif
