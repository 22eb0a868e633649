/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_merge.h: the tuned NVIDIA engine in clusters: which part of which row a block has, and how the blocks of a row
 * merge its parts in their shared memory, so that no combine is launched. The cuts are those of schedule.h, the
 * arithmetic is that of merge.h: workers and combine would write the same bits.
 *
 * A cluster has one row, and a group of up to 16 heads; its block p has the row's part p. When a block's last tile is
 * done it leaves its sums in shared memory, where the scores were; when all have, each takes every so many-th stretch
 * of 128 columns of a head, reads it in all of them, and finishes it. What that costs is the reading, at some 10 bytes
 * a cycle and block: so the launch makes groups as small as there are clusters for (a head's bits do not depend on the
 * others). Blocks that have no part, or a row's only one, just end, and so do the fetching warps: for threads that
 * have ended the cluster's barrier does not wait. */
#ifndef MLAR_KERNELS_GPU_SM90_MERGE_H
#define MLAR_KERNELS_GPU_SM90_MERGE_H

#include "kernels/gpu/merge.h"
#include "kernels/gpu/sm90_work.h"

#define SM90_MERGE_HEADS 16
#define SM90_MERGE_PARTS 8 /* blocks of a cluster, at most */
#define SM90_MERGE_STRIDE                                                                                    \
    (SM90_D_V + 8) /* floats between two heads' sums: what a warp writes falls on all banks */
#define SM90_AT_SUMS    SM90_AT_SCORES /* f32 [16 heads][SM90_MERGE_STRIDE] */
#define SM90_AT_SUMS_ML (SM90_AT_SUMS + SM90_MERGE_HEADS * SM90_MERGE_STRIDE * 4) /* f32 [16 heads][m, l] */
static_assert(SM90_AT_SUMS_ML + SM90_MERGE_HEADS * 8 <= SM90_AT_NARROW_PROBS, "others may still read those");

/* ---- who has what ---- */

/* A row's cut, if the schedule was made for this program's rows. It may have been made for more (device data is not
 * trusted, and prepare does not know the capacity), and the row have more parts than there are blocks: then some parts
 * are one. */
MLAR_DEVICE void sm90_merge_cut(int32_t *parts, int32_t *granule) {
    const int32_t together = mlar_ceil_div(*parts, sm90_cluster_blocks());
    if (together > 1) {
        *parts = mlar_ceil_div(*parts, together);
        *granule *= together;
    }
}

/* The block's share, by one thread. What the schedule says is asked for before it is known whether the row is live. */
MLAR_DEVICE void sm90_merge_share_of(const mlar_stage_args *args, sm90_control *control) {
    const int32_t groups = sm90_clusters() / args->row_count,
                  heads = mlar_ceil_div(args->shape.heads, groups);
    const int32_t row = sm90_cluster() / groups, group = sm90_cluster() - row * groups;
    const int32_t part = sm90_cluster_rank();
    const mlar_u32x4 head = sm90_load16((uint64_t)mlar_schedule_head_of(args, args->row_begin));
    const mlar_schedule_row scheduled = args->schedule_rows[args->row_begin + row];
    int32_t parts = scheduled.parts, granule = (int32_t)head.w;
    const int32_t live = mlar_live_rows_within(mlar_live_rows(args), args->row_begin, args->row_count);
    sm90_share share = {0, 0, {0, 0, -1, 0, 0}}; /* nothing to do */
    if (row < live) {
        sm90_merge_cut(&parts, &granule);
        if (part < parts) {
            const int32_t is_last = part == parts - 1;
            share.head_begin = group * heads;
            share.head_end = mlar_min_i32(share.head_begin + heads, args->shape.heads);
            share.span.row = args->row_begin + row;
            share.span.tile = part * granule;
            share.span.end_row = share.span.row + is_last;
            share.span.end_tile = is_last ? 0 : share.span.tile + granule;
        }
    }
    control->share = share;
    control->row_parts = parts;
    control->length[0] = scheduled.length[0];
    control->length[1] = scheduled.length[1];
}

/* ---- merging ---- */

/* The warp's sums of 16 heads, columns 64 warp .. 64 warp + 63, and a head's maximum and sum, which 16 threads hold. */
MLAR_DEVICE void sm90_merge_leave(const sm90_block *b, const float o[32], float max2, float sum) {
    const int32_t thread = (int32_t)sm90_keep((uint32_t)mlar_thread()), lane = thread & 31,
                  warp = thread >> 5;
    const int32_t heads = b->control->share.head_end - b->control->share.head_begin;
    const uint32_t to =
        b->base + SM90_AT_SUMS + (uint32_t)(lane / 4 * SM90_MERGE_STRIDE + 64 * warp + 2 * (lane & 3)) * 4;
    MLAR_UNROLL for (int32_t r = 0; r < 2; ++r) if (lane / 4 + 8 * r < heads)
        MLAR_UNROLL for (int32_t k = 0; k < 8; ++k)
            sm90_store8(to + (uint32_t)(8 * r * SM90_MERGE_STRIDE + 8 * k) * 4,
                        mlar_f32_bits(o[4 * k + 2 * r]), mlar_f32_bits(o[4 * k + 2 * r + 1]));
    if ((thread & 15) == 0)
        sm90_store8(b->base + SM90_AT_SUMS_ML + (uint32_t)(thread >> 4) * 8, mlar_f32_bits(max2 * MLAR_LN2),
                    mlar_f32_bits(sum));
}

#define SM90_STRETCHES (SM90_D_V / (4 * MLAR_WAVE)) /* of a head: 128 columns each */

/* A stretch of head `local` of the group: a lane has four columns, and of part `lane` the (m, l). What the parts weigh
 * is worked out while their columns are on the way. */
MLAR_DEVICE void sm90_merge_stretch(const sm90_block *b, int32_t parts, int32_t local, int32_t stretch,
                                    float sink) {
    const int32_t lane = mlar_lane(), column = (stretch * MLAR_WAVE + lane) * 4;
    const uint32_t ml = b->base + SM90_AT_SUMS_ML + (uint32_t)local * 8;
    const uint32_t from = b->base + SM90_AT_SUMS + (uint32_t)(local * SM90_MERGE_STRIDE + column) * 4;
    mlar_merged sums = {{0.0f, 0.0f, 0.0f, 0.0f}, -MLAR_INF, 0.0f};
    float pair[2], weight[SM90_MERGE_PARTS], part[SM90_MERGE_PARTS][4], factor;
    sm90_cluster_read(pair, sm90_cluster_address(ml, lane), lane < parts);
    MLAR_UNROLL for (int32_t p = 0; p < SM90_MERGE_PARTS; ++p)
        sm90_cluster_read(part[p], sm90_cluster_address(from, p), p < parts);
    sums.m = mlar_lanes_max(lane < parts ? pair[0] : -MLAR_INF, MLAR_WAVE);
    const mlar_weights weights = mlar_merge_weights(&sums, pair);
    MLAR_UNROLL for (int32_t p = 0; p < SM90_MERGE_PARTS; ++p) if (p < parts) weight[p] =
        mlar_merge_weigh(&sums, weights, p);
    factor = mlar_factor_of(b->layer, sink, sums.m, sums.l);
    MLAR_UNROLL for (int32_t p = 0; p < SM90_MERGE_PARTS; ++p) if (p < parts)
        mlar_merge_add(&sums, weight[p], part[p]);
    mlar_merge_store<4>(b->layer, b->control->share.span.row, b->control->share.head_begin + local, column, 1,
                        &sums, factor);
}

/* By the consuming warps of a row's blocks, each of which has left its sums. */
MLAR_DEVICE void sm90_merge(const sm90_block *b) {
    const sm90_share *share = &b->control->share;
    const int32_t heads = share->head_end - share->head_begin, parts = b->control->row_parts;
    sm90_cluster_release();
    sm90_cluster_arrive();
    const float sinks =
        mlar_lane() < heads ? mlar_sink_of(b->layer, share->head_begin + mlar_lane()) : -MLAR_INF;
    sm90_cluster_wait();
    sm90_cluster_acquire();
    MLAR_NO_UNROLL for (int32_t i = mlar_wave() * parts + sm90_cluster_rank(); i < heads * SM90_STRETCHES;
                        i += SM90_CONSUMERS / MLAR_WAVE * parts)
        sm90_merge_stretch(b, parts, i / SM90_STRETCHES, i % SM90_STRETCHES,
                           mlar_lane_get_f32(sinks, i / SM90_STRETCHES));
    sm90_cluster_arrive(); /* nobody ends while others read */
    sm90_cluster_wait();
}

#endif
