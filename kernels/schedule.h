/* SPDX-License-Identifier: Apache-2.0
 *
 * schedule.h: who does what in a step: live rows, row lengths, key tiles, slots, and how rows are cut into
 * parts. Pure functions, the same source for the CPU and every GPU kernel, so that all agree to the bit.
 *
 * The chain: args -> layer, live rows -> lists of a row -> tiles of a row -> units (worker x head group) ->
 * parts (tiles of one row) -> workspace slots. Vocabulary: params.h. Under policy `balanced` (shape.splits ==
 * 0) the cuts come from the schedule that `prepare` wrote; under `batch_invariant` everything follows from
 * the row's own length. This file knows no number format, no thread and no memory but what the args point to.
 */
#ifndef MLAR_KERNELS_SCHEDULE_H
#define MLAR_KERNELS_SCHEDULE_H

#include "kernels/numeric.h" /* MLAR_FN */
#include "kernels/params.h"
#include "mlarena/kv_cache.h"

MLAR_FN int32_t mlar_min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}
MLAR_FN int32_t mlar_max_i32(int32_t a, int32_t b) {
    return a > b ? a : b;
}
MLAR_FN int32_t mlar_ceil_div(int32_t a, int32_t b) {
    return a / b + (a % b != 0);
}

/* ---- args -> layer and live rows ---- */

MLAR_FN const mlar_layer_params *mlar_layer_of(const mlar_stage_args *args) {
    return args->layer_block ? args->layer_block : &args->layer;
}

/* Live rows of the step. Device data is not trusted: clamped to the capacity. */
MLAR_FN int32_t mlar_live_rows(const mlar_stage_args *args) {
    const int32_t *device = args->step_block ? args->step_block->rows_device : args->rows_device;
    int32_t rows = device ? *device : args->step_block ? args->step_block->rows : args->rows;
    return mlar_max_i32(0, mlar_min_i32(rows, args->capacity_rows));
}

/* Of `live` rows, how many are among `count` rows from row `begin` on (a row tile: args->row_begin,
 * row_count). */
MLAR_FN int32_t mlar_live_rows_within(int32_t live, int32_t begin, int32_t count) {
    return mlar_max_i32(0, mlar_min_i32(live - begin, count));
}

/* ---- lists of a row ---- */

/* What a row may read: per scope, its entries of the index list and how many count by length. */
typedef struct mlar_row_lists {
    const int32_t *entries[MLAR_MAX_SCOPES]; /* may be null where length is 0 */
    int32_t length[MLAR_MAX_SCOPES];         /* 0 .. width; 0 for a scope that is absent */
    int32_t tiles;                           /* key tiles of the row, at least 1 */
} mlar_row_lists;

/* What a list's length follows from, as it stands in memory. */
typedef struct mlar_length_words {
    int32_t begin, end;
} mlar_length_words;

MLAR_FN mlar_length_words mlar_length_words_of(const mlar_scope_params *scope, int32_t row) {
    mlar_length_words words = {0, scope->width};
    if (scope->list_form == MLAR_LIST_RAGGED) {
        words.begin = scope->lens[row];
        words.end = scope->lens[row + 1];
    } else if (scope->lens) {
        words.end = scope->lens[scope->rows_per_len == 1 ? row : row / scope->rows_per_len];
    }
    return words;
}

/* Length of a row's list, clamped to the width; *first is where it begins in scope->indices. A ragged list
 * whose indptr decreases or is negative is empty. */
MLAR_FN int32_t mlar_row_length(const mlar_scope_params *scope, int32_t row, mlar_length_words words,
                                int64_t *first) {
    if (scope->list_form == MLAR_LIST_RAGGED) {
        int32_t empty = words.begin < 0 || words.end <= words.begin;
        *first = empty ? 0 : words.begin;
        return empty ? 0 : mlar_min_i32(words.end - words.begin, scope->width);
    }
    *first = row * scope->index_row_stride;
    return mlar_max_i32(0, mlar_min_i32(words.end, scope->width));
}

MLAR_FN int32_t mlar_tiles_of_lists(const mlar_row_lists *lists) {
    return mlar_max_i32(1, mlar_ceil_div(lists->length[0], MLAR_KEY_TILE) +
                               mlar_ceil_div(lists->length[1], MLAR_KEY_TILE));
}

/* `row` must be live: the lists of other rows are not there to be read. Both scopes' words are read before either is
 * used: on a GPU that is one trip to memory instead of two. */
MLAR_FN mlar_row_lists mlar_row_lists_of(const mlar_layer_params *layer, int32_t row) {
    const mlar_length_words none = {0, 0};
    const mlar_length_words window = mlar_length_words_of(&layer->scope[0], row);
    const mlar_length_words extra =
        layer->scope_count > 1 ? mlar_length_words_of(&layer->scope[1], row) : none;
    mlar_row_lists lists;
    int64_t first = 0;
    lists.length[0] = mlar_row_length(&layer->scope[0], row, window, &first);
    lists.entries[0] = lists.length[0] ? layer->scope[0].indices + first : layer->scope[0].indices;
    lists.length[1] = 0;
    lists.entries[1] = lists.entries[0];
    if (layer->scope_count > 1) {
        lists.length[1] = mlar_row_length(&layer->scope[1], row, extra, &first);
        lists.entries[1] = lists.length[1] ? layer->scope[1].indices + first : layer->scope[1].indices;
    }
    lists.tiles = mlar_tiles_of_lists(&lists);
    return lists;
}

/* The same without a look at their lengths, if these are known and every list is dense. They are those that prepare
 * found, in a layer of the same kind: clamped to this one's widths. */
MLAR_FN int32_t mlar_lists_are_dense(const mlar_layer_params *layer) {
    return layer->scope[0].list_form == MLAR_LIST_DENSE &&
           (layer->scope_count < 2 || layer->scope[1].list_form == MLAR_LIST_DENSE);
}
MLAR_FN mlar_row_lists mlar_row_lists_known(const mlar_layer_params *layer, int32_t row,
                                            const int32_t length[2]) {
    mlar_row_lists lists;
    for (int32_t s = 0; s < 2; ++s) {
        const int32_t exists = s < layer->scope_count;
        const mlar_scope_params *scope = &layer->scope[exists ? s : 0];
        lists.length[s] = exists ? mlar_max_i32(0, mlar_min_i32(length[s], scope->width)) : 0;
        lists.entries[s] = scope->indices + row * scope->index_row_stride;
    }
    lists.tiles = mlar_tiles_of_lists(&lists);
    return lists;
}

/* ---- key tiles ---- */

/* `count` entries of one scope's list from entry `first` on. count is 0 only in the one tile of an empty row.
 */
typedef struct mlar_tile {
    int32_t scope;
    int32_t first;
    int32_t count;
} mlar_tile;

MLAR_FN mlar_tile mlar_tile_of(const mlar_row_lists *lists, int32_t tile) {
    int32_t window_tiles = mlar_ceil_div(lists->length[0], MLAR_KEY_TILE);
    int32_t scope = tile >= window_tiles && lists->length[1] > 0;
    int32_t length = scope ? lists->length[1] : lists->length[0];
    mlar_tile result;
    result.scope = scope;
    result.first = (scope ? tile - window_tiles : tile) * MLAR_KEY_TILE;
    result.count = mlar_max_i32(0, mlar_min_i32(length - result.first, MLAR_KEY_TILE));
    return result;
}

/* ---- slots ---- */

/* Does the entry count (its place j < length is the caller's to know)? */
MLAR_FN int32_t mlar_slot_counts(const mlar_scope_params *scope, int32_t slot) {
    return (uint32_t)slot < scope->num_slots; /* num_slots < 2^31: a negative slot is too large */
}

/* Is it one of those that the counter invalid_indices counts: not -1, and not in the pool? */
MLAR_FN int32_t mlar_slot_is_invalid(const mlar_scope_params *scope, int32_t slot) {
    return slot != -1 && !mlar_slot_counts(scope, slot);
}

/* The pair that divides a slot (< 2^31) by block_size (1 .. 65536) without a division. For l = ceil(log2 d):
 * shift = 31 + l and magic = ceil(2^shift / d), which is below 2^32; magic * d exceeds 2^shift by less than
 * d <= 2^l, so slot * magic / 2^shift exceeds slot / d by less than 1 / d. The product is below 2^63. */
MLAR_FN void mlar_block_division(uint32_t block_size, uint64_t *magic, uint32_t *shift) {
    uint32_t log2 = 0;
    while ((1u << log2) < block_size) ++log2;
    *shift = 31 + log2;
    *magic = (((uint64_t)1 << *shift) + block_size - 1) / block_size;
}

MLAR_FN uint32_t mlar_slot_block(const mlar_scope_params *scope, uint32_t slot) {
    return (uint32_t)((slot * scope->block_magic) >> scope->block_shift);
}

/* Where a counting slot's record and its scales begin, in bytes from scope->cache. The scales are one e8m0
 * byte for each 64 fp8 (dsv4) or one f32 for each 128 (v32); bf16 has none. */
typedef struct mlar_slot_place {
    uint64_t record;
    uint64_t scales;
} mlar_slot_place;

MLAR_FN mlar_slot_place mlar_slot_place_of(const mlar_scope_params *scope, uint32_t slot) {
    uint32_t block = mlar_slot_block(scope, slot);
    uint32_t offset = slot - block * scope->block_size;
    uint64_t begin = block * scope->block_stride_bytes;
    mlar_slot_place place;
    place.record = begin + (uint64_t)offset * scope->record_bytes;
    place.scales = scope->layout == MLAR_LAYOUT_DSV4
                       ? begin + scope->scale_offset_bytes + (uint64_t)offset * 8
                       : place.record + scope->scale_offset_bytes;
    return place;
}

/* Gather buffer: d_qk bf16 for each entry of each row of the row tile. In elements from
 * args->gathered[scope]. */
MLAR_FN uint64_t mlar_gathered_offset(const mlar_stage_args *args, const mlar_scope_params *scope,
                                      int32_t row, int32_t entry) {
    uint64_t place = (uint64_t)(row - args->row_begin) * (uint32_t)scope->width + (uint32_t)entry;
    return place * (uint32_t)args->shape.d_qk;
}

/* ---- head groups ---- */

MLAR_FN int32_t mlar_head_groups(const mlar_shape *shape, int32_t heads_per_group) {
    return mlar_ceil_div(shape->heads, heads_per_group);
}

/* ---- clusters ----
 *
 * Where blocks can form clusters, whose blocks read each other's shared memory, the parts of a row can be merged by
 * those who made them, and no combine need be launched: one cluster for a row and a head group, a block for each part.
 * Steps of few rows are cut for that: heads in groups of the least size, whose sums fit, and no row into more parts
 * than a cluster has blocks. Who executes the step, clusters or (in a program for more rows) workers and combine,
 * shows in no bit, as long as there are no more rows than the program is for. */

/* Parts that a row can have in a step of `rows` rows, if it is one for clusters, else 0. */
MLAR_FN int32_t mlar_cluster_parts(const mlar_shape *shape, int32_t rows) {
    return rows <= shape->cluster_rows ? shape->cluster_blocks : 0;
}

/* ---- policy balanced: head groups ---- */

/* The largest group that still gives every worker a tile, else the least that is allowed. Keys are converted once for
 * a group, so few large groups are cheaper, unless workers idle. */
MLAR_FN int32_t mlar_heads_per_group(const mlar_shape *shape, int32_t rows, int64_t total_tiles) {
    int32_t group = mlar_cluster_parts(shape, rows) ? shape->heads_per_group_min : shape->heads_per_group_max;
    while (group > shape->heads_per_group_min &&
           total_tiles * mlar_head_groups(shape, group) < shape->workers) {
        int32_t lesser = 1; /* the next power of two below */
        while (lesser * 2 < group) lesser *= 2;
        group = mlar_max_i32(lesser, shape->heads_per_group_min);
    }
    return group;
}

/* ---- policy balanced: cuts ----
 *
 * The tiles of a row tile's live rows stand in (row, tile) order, `total` of them. Cut w of 0 .. workers is
 * at position w * total / workers, which falls on some tile x of some row; the cut that counts is x lowered
 * to a multiple of the granule. Stored is x as it fell: with it the row's first position is known, and from
 * that every part's number follows without looking at other cuts.
 *
 * The granule is the shape's, or a worker's fair share where that is more: a cut nearer to a row's begin than
 * one share spares no worker anything, and costs a part to be written, read and merged. (128 rows of 10 tiles
 * on 132 units: nearly every row would be cut in two; so none is.) And where all those parts cost more time
 * than the longest row can be spared, no row is cut (64 such rows of 64 heads: in halves, each worker would
 * have 5 tiles fewer, and 16 MB be written and read again). Cuts therefore never lie further apart than a
 * granule, and every multiple of it that a cut passes begins a part. In a step for clusters merging costs about a tile
 * and no more, but the longest row has to do with so many parts as its blocks can make. */

/* What the granule would be if merging were free. `longest`: tiles of the longest row. */
MLAR_FN int32_t mlar_share_now(const mlar_shape *shape, int32_t rows, int64_t total, int32_t workers,
                               int32_t longest) {
    const int32_t parts = mlar_cluster_parts(shape, rows);
    const int32_t share = mlar_max_i32(mlar_ceil_div((int32_t)total, workers), shape->cut_granule);
    return parts ? mlar_max_i32(share, mlar_ceil_div(longest, parts)) : share;
}

/* `in_parts`: tiles of all rows that are longer than a share and would be cut. */
MLAR_FN int32_t mlar_granule_now(const mlar_shape *shape, int32_t rows, int32_t share, int32_t longest,
                                 int32_t in_parts) {
    int64_t merged = (int64_t)mlar_ceil_div(in_parts, share) * shape->heads * shape->d_v;
    int64_t spared = longest - share - 1; /* the merge's own launch is worth a tile */
    int32_t is_worth_it =
        mlar_cluster_parts(shape, rows)
            ? spared > 0
            : spared * shape->merged_elements_per_tile >= merged || !shape->merged_elements_per_tile;
    return is_worth_it ? share : mlar_max_i32(share, longest);
}

MLAR_FN int32_t mlar_balanced_workers(const mlar_shape *shape, int32_t heads_per_group, int64_t total) {
    int64_t workers = mlar_max_i32(1, shape->workers / mlar_head_groups(shape, heads_per_group));
    return (int32_t)(workers < total ? workers : total);
}

MLAR_FN int64_t mlar_cut_position(int64_t total, int32_t workers, int32_t cut) {
    return cut * total / workers;
}

/* The first cut at `position` or after it. */
MLAR_FN int32_t mlar_cut_from(int64_t total, int32_t workers, int64_t position) {
    return (int32_t)((position * workers + total - 1) / total);
}

/* How many parts a row of `tiles` tiles has whose first tile stands at `row_position`. */
MLAR_FN int32_t mlar_balanced_parts(int64_t total, int32_t workers, int32_t granule, int64_t row_position,
                                    int32_t tiles) {
    int32_t last =
        mlar_cut_from(total, workers, row_position + tiles) - 1; /* last cut before the row's end */
    int64_t fell_on = mlar_cut_position(total, workers, last) - row_position;
    return fell_on < 0 ? 1 : 1 + (int32_t)fell_on / granule;
}

/* Workspace slots that a row tile of `rows` rows can need, each of at most max_tiles tiles: what the engine
 * provides as shape.slot_limit. Each of workers - 1 inner cuts adds a part, and each split row one more. */
MLAR_FN int64_t mlar_balanced_slot_bound(int32_t workers, int32_t granule, int32_t rows, int32_t max_tiles) {
    int64_t by_cuts = (int64_t)(workers - 1) + mlar_min_i32(rows, workers - 1);
    int64_t by_rows = (int64_t)rows * mlar_ceil_div(max_tiles, granule);
    if (max_tiles <= granule) return 0; /* no row can be cut */
    return by_cuts < by_rows ? by_cuts : by_rows;
}

/* Where prepare put the schedule of the row tile that begins at row_begin. A kernel can do nothing until it has read
 * that; so the first row tile, often the only one, costs no division. */
MLAR_FN int32_t mlar_row_tile_at(const mlar_stage_args *args, int32_t row_begin) {
    return row_begin ? row_begin / args->shape.row_tile : 0;
}

MLAR_FN mlar_schedule_head *mlar_schedule_head_of(const mlar_stage_args *args, int32_t row_begin) {
    return args->schedule + mlar_row_tile_at(args, row_begin);
}

MLAR_FN mlar_schedule_cut *mlar_schedule_cuts_of(const mlar_stage_args *args, int32_t row_begin) {
    return args->cuts + (int64_t)mlar_row_tile_at(args, row_begin) * (args->shape.workers + 1);
}

/* ---- policy batch_invariant: parts of a row from its own length ---- */

MLAR_FN int32_t mlar_invariant_parts(const mlar_shape *shape, int32_t tiles) {
    return mlar_min_i32(shape->splits, tiles);
}

MLAR_FN int32_t mlar_invariant_tile(int32_t tiles, int32_t parts, int32_t part) {
    return (int32_t)((int64_t)part * tiles / parts);
}

/* ---- parts of a row, either policy: what combine reads ---- */

typedef struct mlar_row_parts {
    int32_t first_slot; /* the parts' workspace slots follow one another; of no meaning if parts == 1 */
    int32_t parts;      /* 1: attend finished the row */
} mlar_row_parts;

MLAR_FN mlar_row_parts mlar_row_parts_of(const mlar_stage_args *args, const mlar_layer_params *layer,
                                         int32_t row) {
    mlar_row_parts result;
    if (args->shape.splits == 0) {
        result.first_slot = args->schedule_rows[row].first_slot;
        result.parts = args->schedule_rows[row].parts;
    } else {
        result.first_slot = (row - args->row_begin) * args->shape.splits;
        result.parts = args->shape.splits == 1
                           ? 1
                           : mlar_invariant_parts(&args->shape, mlar_row_lists_of(layer, row).tiles);
    }
    return result;
}

/* ---- units: one worker for one head group ---- */

/* Units that a launch must offer, from the sizes alone: the grid. Those past mlar_attend_units() idle. */
MLAR_FN int64_t mlar_attend_grid(const mlar_shape *shape, int32_t row_count) {
    if (shape->splits)
        return (int64_t)row_count * shape->splits * mlar_head_groups(shape, shape->heads_per_group_max);
    return mlar_max_i32(shape->workers, mlar_head_groups(shape, shape->heads_per_group_min));
}

typedef struct mlar_unit {
    int32_t worker;
    int32_t head_begin;
    int32_t head_end;
} mlar_unit;

MLAR_FN int32_t mlar_heads_per_group_now(const mlar_stage_args *args) {
    return args->shape.splits ? args->shape.heads_per_group_max
                              : mlar_schedule_head_of(args, args->row_begin)->heads_per_group;
}

/* Units with something to do now; `live` is mlar_live_rows(). */
MLAR_FN int64_t mlar_attend_units(const mlar_stage_args *args, int32_t live) {
    int64_t workers =
        args->shape.splits
            ? (int64_t)mlar_live_rows_within(live, args->row_begin, args->row_count) * args->shape.splits
            : mlar_schedule_head_of(args, args->row_begin)->workers;
    return workers * mlar_head_groups(&args->shape, mlar_heads_per_group_now(args));
}

/* The groups of one worker are neighbours: they read the same keys. */
MLAR_FN mlar_unit mlar_unit_of(const mlar_stage_args *args, int64_t unit) {
    int32_t heads_per_group = mlar_heads_per_group_now(args);
    int32_t groups = mlar_head_groups(&args->shape, heads_per_group);
    int32_t group = (int32_t)(unit % groups);
    mlar_unit result;
    result.worker = (int32_t)(unit / groups);
    result.head_begin = group * heads_per_group;
    result.head_end = mlar_min_i32(result.head_begin + heads_per_group, args->shape.heads);
    return result;
}

/* ---- parts of a worker ---- */

/* What is left of a worker's share. Starts at mlar_worker_span(), shrinks by mlar_next_part(). */
typedef struct mlar_span {
    int32_t row, tile;         /* next tile to do */
    int32_t end_row, end_tile; /* first tile not to do */
    int32_t slot;              /* of the part that begins in the middle of `row` */
} mlar_span;

/* A run of tiles of one row. */
typedef struct mlar_part {
    mlar_row_lists lists;
    int32_t row;
    int32_t tile_begin, tile_end;
    int32_t slot; /* workspace slot, or -1: the row's only part; whoever does it finishes the row */
} mlar_part;

/* Policy balanced: the share between two neighbouring cuts. Its slot still counts from the row's first one. */
MLAR_FN mlar_span mlar_span_between(const mlar_stage_args *args, const mlar_schedule_head *head,
                                    mlar_schedule_cut from, mlar_schedule_cut to) {
    const int32_t rows_end = args->row_begin + args->row_count;
    mlar_span span;
    span.slot = from.tile / head->granule;
    span.row = from.row;
    span.tile = span.slot * head->granule;
    span.end_row = to.row;
    span.end_tile = to.tile - to.tile % head->granule;
    /* prepare served max_rows; a program's capacity may be less than a row count read on the device */
    if (span.end_row >= rows_end) {
        span.end_row = rows_end;
        span.end_tile = 0;
    }
    return span;
}

MLAR_FN mlar_span mlar_worker_span(const mlar_stage_args *args, const mlar_layer_params *layer,
                                   int32_t worker) {
    const mlar_shape *shape = &args->shape;
    mlar_span span;
    if (shape->splits) {
        int32_t part = worker % shape->splits;
        int32_t tiles, parts;
        span.row = args->row_begin + worker / shape->splits;
        tiles = mlar_row_lists_of(layer, span.row).tiles;
        parts = mlar_invariant_parts(shape, tiles);
        span.end_row = span.row;
        span.tile = part < parts ? mlar_invariant_tile(tiles, parts, part) : tiles;
        span.end_tile = part < parts ? mlar_invariant_tile(tiles, parts, part + 1) : tiles;
        span.slot = worker;
    } else {
        const mlar_schedule_cut *cut = mlar_schedule_cuts_of(args, args->row_begin) + worker;
        span = mlar_span_between(args, mlar_schedule_head_of(args, args->row_begin), cut[0], cut[1]);
        if (span.tile > 0 && span.row < args->row_begin + args->row_count)
            span.slot += args->schedule_rows[span.row].first_slot;
    }
    return span;
}

MLAR_FN int32_t mlar_span_has_tiles(const mlar_span *span) {
    return span->row < span->end_row || (span->row == span->end_row && span->tile < span->end_tile);
}

/* First tile behind what a span has of a row from `tile` on, and at least one more: where a list has lost tiles since
 * the cuts were made, the parts' number and the workspace's slots are still theirs. */
MLAR_FN int32_t mlar_span_end_in(const mlar_span *span, int32_t row, int32_t tile,
                                 const mlar_row_lists *lists) {
    return row == span->end_row ? span->end_tile : mlar_max_i32(lists->tiles, tile + 1);
}

/* The next part of a span that has tiles; `lists` are those of span->row. Whether it is the row's only one, says who
 * cut the row: prepare, or by policy batch_invariant the lists. So combine reads no part that nobody has written. */
MLAR_FN mlar_part mlar_part_of(const mlar_stage_args *args, mlar_span *span, mlar_row_lists lists) {
    mlar_part part;
    part.lists = lists;
    part.row = span->row;
    part.tile_begin = span->tile;
    part.tile_end = mlar_span_end_in(span, span->row, span->tile, &lists);
    if (part.tile_begin > 0)
        part.slot = span->slot;
    else if (args->shape.splits == 0)
        part.slot = args->schedule_rows[part.row].first_slot;
    else
        part.slot = part.tile_end == lists.tiles ? -1 : span->slot;
    span->row += 1;
    span->tile = 0;
    return part;
}

/* The worker's next part; 0 when there is none. `worker` must be below the units' workers. */
MLAR_FN int32_t mlar_next_part(const mlar_stage_args *args, const mlar_layer_params *layer, mlar_span *span,
                               mlar_part *part) {
    if (!mlar_span_has_tiles(span)) return 0;
    *part = mlar_part_of(args, span, mlar_row_lists_of(layer, span->row));
    return 1;
}

#endif
