/* SPDX-License-Identifier: Apache-2.0
 *
 * prepare.c: the parts of the CPU back end that no instruction set changes: the schedule of policy balanced,
 * the cutting of stages into items, the rows beyond the live ones, each thread's scratch. It must not know
 * how keys are converted or scores computed. */
#include "kernels/cpu/kernels.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/schedule.h"

/* ---- prepare ---- */

/* Tiles of the rows that have more than `share`. */
static int32_t tiles_in_parts(const mlar_layer_params *layer, int32_t row, int32_t row_end, int32_t share) {
    int32_t sum = 0;
    for (; row < row_end; ++row) {
        const int32_t tiles = mlar_row_lists_of(layer, row).tiles;
        if (tiles > share) sum += tiles;
    }
    return sum;
}

static void prepare_row_tile(const mlar_stage_args *args, int32_t row_begin, int32_t row_count) {
    const mlar_shape *shape = &args->shape;
    const mlar_layer_params *layer = mlar_layer_of(args);
    const int32_t row_end = row_begin + mlar_live_rows_within(mlar_live_rows(args), row_begin, row_count);
    mlar_schedule_head *head = mlar_schedule_head_of(args, row_begin);
    mlar_schedule_cut *cuts = mlar_schedule_cuts_of(args, row_begin);
    int64_t total = 0, position = 0;
    int32_t slots = 0, longest = 0, rows = row_end - row_begin;

    for (int32_t row = row_begin; row < row_end; ++row) {
        const int32_t tiles = mlar_row_lists_of(layer, row).tiles;
        total += tiles;
        longest = mlar_max_i32(longest, tiles);
    }
    head->heads_per_group = mlar_heads_per_group(shape, rows, total);
    head->workers = mlar_balanced_workers(shape, head->heads_per_group, total);
    head->granule = 1;
    if (total) {
        const int32_t share = mlar_share_now(shape, rows, total, head->workers, longest);
        head->granule =
            mlar_granule_now(shape, rows, share, longest, tiles_in_parts(layer, row_begin, row_end, share));
    }

    for (int32_t row = row_begin; row < row_end; ++row) {
        const mlar_row_lists lists = mlar_row_lists_of(layer, row);
        const int32_t tiles = lists.tiles;
        const int32_t cut_end = mlar_cut_from(total, head->workers, position + tiles);
        const int32_t parts = mlar_balanced_parts(total, head->workers, head->granule, position, tiles);
        for (int32_t cut = mlar_cut_from(total, head->workers, position); cut < cut_end; ++cut) {
            cuts[cut].row = row;
            cuts[cut].tile = (int32_t)(mlar_cut_position(total, head->workers, cut) - position);
        }
        args->schedule_rows[row].first_slot = parts > 1 ? slots : -1;
        args->schedule_rows[row].parts = parts;
        args->schedule_rows[row].length[0] = lists.length[0];
        args->schedule_rows[row].length[1] = lists.length[1];
        if (parts > 1) slots += parts;
        position += tiles;
    }
    cuts[head->workers].row = row_end;
    cuts[head->workers].tile = 0;
    head->slots = slots;
}

void mlar_cpu_prepare(const mlar_stage_args *args) {
    const int32_t row_end = args->row_begin + args->row_count;
    if (args->shape.splits) return;
    for (int32_t begin = args->row_begin; begin < row_end; begin += args->shape.row_tile)
        prepare_row_tile(args, begin, mlar_min_i32(args->shape.row_tile, row_end - begin));
}

void mlar_cpu_set_block(const mlar_set_block_args *args) {
    memcpy(args->to, args->payload, (size_t)args->bytes);
}

/* ---- items ---- */

static int32_t live_rows_here(const mlar_stage_args *args) {
    return mlar_live_rows_within(mlar_live_rows(args), args->row_begin, args->row_count);
}

/* Gather items of a row in one scope: from the width, so that an item's number says where it belongs. */
static int32_t gather_items(const mlar_layer_params *layer, int32_t scope) {
    return scope < layer->scope_count ? mlar_ceil_div(layer->scope[scope].width, MLAR_KEY_TILE) : 0;
}

int64_t mlar_cpu_items(int32_t stage, const mlar_stage_args *args) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const int32_t rows = live_rows_here(args);
    switch (stage) {
    case MLAR_STAGE_GATHER:
        return (int64_t)rows * (gather_items(layer, 0) + gather_items(layer, 1));
    case MLAR_STAGE_ATTEND_GATHERED:
    case MLAR_STAGE_ATTEND_DIRECT:
        return mlar_attend_units(args, mlar_live_rows(args)) +
               (layer->tail_zero ? args->row_count - rows : 0);
    case MLAR_STAGE_COMBINE:
        return rows;
    default:
        return 1;
    }
}

void mlar_cpu_run(const mlar_cpu_kernels *kernels, int32_t stage, const mlar_stage_args *args, int64_t item,
                  void *scratch) {
    switch (stage) {
    case MLAR_STAGE_PREPARE:
        mlar_cpu_prepare(args);
        break;
    case MLAR_STAGE_GATHER:
        kernels->gather(args, item, scratch);
        break;
    case MLAR_STAGE_ATTEND_GATHERED:
        kernels->attend_gathered(args, item, scratch);
        break;
    case MLAR_STAGE_ATTEND_DIRECT:
        kernels->attend_direct(args, item, scratch);
        break;
    case MLAR_STAGE_COMBINE:
        kernels->combine(args, item, scratch);
        break;
    default:
        break;
    }
}

mlar_cpu_gather_work mlar_cpu_gather_work_of(const mlar_stage_args *args, int64_t item) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const int32_t window_items = gather_items(layer, 0);
    const int32_t row_items = window_items + gather_items(layer, 1);
    const int32_t row = args->row_begin + (int32_t)(item / row_items);
    const int32_t place = (int32_t)(item % row_items);
    const int32_t scope = place >= window_items;
    const int32_t first = (scope ? place - window_items : place) * MLAR_KEY_TILE;
    const mlar_row_lists lists = mlar_row_lists_of(layer, row);
    mlar_cpu_gather_work work = {.scope = &layer->scope[scope]};
    work.count = mlar_min_i32(lists.length[scope] - first, MLAR_KEY_TILE);
    if (work.count <= 0) return (mlar_cpu_gather_work){0};
    work.entries = lists.entries[scope] + first;
    work.to = args->gathered[scope] + mlar_gathered_offset(args, work.scope, row, first);
    return work;
}

int32_t mlar_cpu_tail_item(const mlar_stage_args *args, int64_t item) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const int32_t live = mlar_live_rows(args);
    const int64_t tail = item - mlar_attend_units(args, live);
    int64_t row;
    if (tail < 0) return 0;
    row = args->row_begin + live_rows_here(args) + tail;
    for (int32_t head = 0; head < args->shape.heads; ++head) {
        const int64_t at = row * layer->out_row_stride + head * layer->out_head_stride;
        const size_t elements = (size_t)args->shape.d_v;
        if (layer->out_f32)
            memset((float *)layer->out + at, 0, elements * sizeof(float));
        else
            memset((uint16_t *)layer->out + at, 0, elements * sizeof(uint16_t));
        if (layer->lse) layer->lse[row * layer->lse_row_stride + head * layer->lse_head_stride] = -INFINITY;
    }
    return 1;
}

void mlar_cpu_count_invalid(const mlar_stage_args *args, uint64_t entries) {
    if (entries) __atomic_fetch_add(args->invalid_indices, entries, __ATOMIC_RELAXED);
}

/* ---- scratch ---- */

enum { REGIONS = 6 };

static uint64_t round_up_16(int32_t value) {
    return ((uint64_t)value + 15) / 16 * 16;
}

/* Floats of each region, in the order of mlar_cpu_scratch. All are multiples of 16: 64 bytes. */
static void region_floats(const mlar_shape *shape, uint64_t floats[REGIONS]) {
    const uint64_t heads = round_up_16(shape->heads);
    floats[0] = MLAR_KEY_TILE * round_up_16(shape->d_qk);
    floats[1] = heads * round_up_16(shape->d_qk);
    floats[2] = heads * round_up_16(shape->d_v);
    floats[3] = heads * MLAR_KEY_TILE;
    floats[4] = heads;
    floats[5] = heads;
}

uint64_t mlar_cpu_scratch_bytes(const mlar_shape *shape) {
    uint64_t floats[REGIONS], sum = 0;
    region_floats(shape, floats);
    for (int32_t i = 0; i < REGIONS; ++i) sum += floats[i];
    return sum * sizeof(float);
}

mlar_cpu_scratch mlar_cpu_scratch_carve(const mlar_shape *shape, void *scratch) {
    mlar_cpu_scratch result;
    float **const region[REGIONS] = {&result.keys,   &result.queries, &result.out,
                                     &result.scores, &result.max,     &result.sum};
    uint64_t floats[REGIONS];
    float *at = scratch;
    region_floats(shape, floats);
    for (int32_t i = 0; i < REGIONS; ++i) {
        *region[i] = at;
        at += floats[i];
    }
    return result;
}
