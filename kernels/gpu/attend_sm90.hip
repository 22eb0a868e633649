/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_sm90.hip: attention for sm_90a, tuned: values of 512 columns, keys of 512 or 576, up to 64 heads a group.
 * There is a kernel for each source of keys: dsv4 caches of nope 448, v32 caches of nope 512, both of rope 64, bf16
 * caches of 512 columns (of all, records that allow 16-byte loads), and the gather buffer, of 512 or 576. The launch
 * table keeps everything else to the portable engine.
 *
 * One block of 16 warps a multiprocessor, one launch for all head counts: eight warps fetch key tiles (and convert
 * them: sm90_fetch.h, or for few heads sm90_batch.h; or need not: sm90_plain.h); the other eight attend, by one of two
 * ways that the schedule's head group decides: more than 32 heads on wgmma (sm90_wide.h), up to 32 on mma
 * (sm90_narrow.h). Kernels differ in who fetches, and in how tiles lie in shared memory (sm90_work.h). Of each there is
 * a second one for steps of few rows, in clusters that merge the parts of a row by themselves (sm90_merge.h), on mma
 * alone. The registers of a multiprocessor are dealt out by role: 128 each at launch, then 512 to four threads, one of
 * each warpgroup. */
#include "kernels/gpu/attend_sizes.h"
#include "kernels/gpu/sm90_batch.h"
#include "kernels/gpu/sm90_fetch.h"
#include "kernels/gpu/sm90_narrow.h"
#include "kernels/gpu/sm90_plain.h"
#include "kernels/gpu/sm90_wide.h"

static_assert(sm90_dsv4::shared_bytes <= MLAR_SM90_LDS_BYTES, "the launch provides what the layout needs");
static_assert(sm90_v32::shared_bytes <= MLAR_SM90_V32_LDS_BYTES, "the same");
static_assert(SM90_THREADS == MLAR_SM90_THREADS, "the launch and the roles agree");

extern __shared__ __align__(1024) uint8_t sm90_shared[];

/* `merged`: in clusters, which merge the parts of rows; else alone, and combine does. `fetch_narrow`: the fetching role
 * for up to 32 heads at a time. */
template <class cache, bool merged, void (*fetch)(const sm90_block *),
          void (*fetch_narrow)(const sm90_block *) = fetch>
MLAR_DEVICE void sm90_attend(const mlar_stage_args *args) {
    sm90_control *control = (sm90_control *)(sm90_shared + SM90_AT_CONTROL);
    const int32_t thread = mlar_thread(), group = mlar_uniform(thread / SM90_GROUP);
    const int32_t heads_per_group = merged ? SM90_MERGE_HEADS : mlar_heads_per_group_now(args);
    sm90_block b;
    b.args = args;
    b.layer = &control->layer;
    b.control = control;
    b.base = sm90_keep(sm90_address(sm90_shared));

    if (thread < (int32_t)(sizeof(mlar_layer_params) / 8))
        ((uint64_t *)&control->layer)[thread] = ((const uint64_t *)mlar_layer_of(args))[thread];
    if (merged && thread == SM90_CONSUMERS) sm90_merge_share_of(args, control);
    if (!merged && thread / 32 == SM90_CONSUMERS / 32) sm90_share_of(args, &control->share);
    if (thread == SM90_CONSUMERS - 1) {
        const float scale = mlar_layer_of(args)->scale;
        const int32_t shift = mlar_query_shift(scale);
        if (!merged) control->length[0] = -1;
        control->query_factor = (uint32_t)(127 - shift) * 0x00800080u; /* 2^-shift */
        control->scale2 = scale * mlar_power_of_two(shift) * MLAR_LOG2E;
    }
    if (thread == SM90_GROUP) {
        MLAR_UNROLL for (int32_t stage = 0; stage < 2; ++stage) {
            sm90_barrier_init(sm90_full(&b, stage), SM90_FETCHERS);
            sm90_barrier_init(sm90_empty(&b, stage, 0), SM90_CONSUMERS);
            sm90_barrier_init(sm90_empty(&b, stage, 1), SM90_CONSUMERS);
            sm90_barrier_init(sm90_probs(&b, stage), SM90_GROUP);
        }
        sm90_barrier_init(SM90_CONTROL(&b, ended), SM90_CONSUMERS);
        sm90_barrier_init_done();
    }
    mlar_block_sync();
    mlar_let_next_begin();

    if (group >= 2) {
        SM90_REGISTERS_LESS(80);
        if (fetch != fetch_narrow && heads_per_group <= SM90_NARROW_HEADS)
            fetch_narrow(&b);
        else
            fetch(&b);
        if (control->layer.tail_zero) sm90_zero_tail(&b, thread - SM90_CONSUMERS, SM90_FETCHERS);
    } else if (merged) {
        SM90_REGISTERS_MORE(176);
        sm90_narrow<cache, 1, true>(&b);
    } else if (heads_per_group <= SM90_NARROW_HEADS) {
        SM90_REGISTERS_MORE(176);
        if (heads_per_group <= 16)
            sm90_narrow<cache, 1>(&b);
        else
            sm90_narrow<cache, 2>(&b);
    } else if (group == 0) {
        SM90_REGISTERS_MORE(192);
        sm90_wide_left<cache>(&b);
    } else {
        SM90_REGISTERS_MORE(160);
        sm90_wide_right<cache>(&b);
    }
}

#define SM90_KERNEL(name, cache, ...)                                                                        \
    MLAR_KERNEL MLAR_BLOCK(SM90_THREADS) void name(MLAR_BY_VALUE(mlar_stage_args) by_value) {                \
        sm90_attend<cache, __VA_ARGS__>(MLAR_ARGS(mlar_stage_args, by_value));                               \
    }
/* Alone and in clusters. */
#define SM90_KERNELS(name, cache, fetch)                                                                     \
    SM90_KERNEL(name, cache, false, fetch)                                                                   \
    SM90_KERNEL(name##_merged, cache, true, fetch)
SM90_KERNEL(mlar_attend_direct_sm90, sm90_dsv4, false, (sm90_fetch<sm90_format_dsv4, sm90_dsv4>),
            sm90_fetch_batches)
SM90_KERNEL(mlar_attend_direct_sm90_merged, sm90_dsv4, true, sm90_fetch_batches)
SM90_KERNELS(mlar_attend_direct_sm90_v32, sm90_v32, (sm90_fetch<sm90_format_v32, sm90_v32>))
SM90_KERNELS(mlar_attend_direct_sm90_bf16, sm90_dsv4, (sm90_fetch_plain<sm90_dsv4, false>))
SM90_KERNELS(mlar_attend_gathered_sm90, sm90_dsv4, (sm90_fetch_plain<sm90_dsv4, true>))
SM90_KERNELS(mlar_attend_gathered_sm90_v32, sm90_v32, (sm90_fetch_plain<sm90_v32, true>))
