/* SPDX-License-Identifier: Apache-2.0
 *
 * prepare.hip: live lengths -> schedule of a row tile (policy balanced), the same as the CPU's prepare to the
 * bit.
 *
 * One block, a row a thread and round. The first pass counts key tiles and leaves each row's position among all
 * tiles in schedule_rows; then the total is known, and with it the number of workers and their share. The second
 * counts the tiles of rows longer than that, which the granule depends on. The third counts parts, numbers the
 * workspace slots, and places the cuts that fall on these rows, one thread for each cut. What a cut, a part and a
 * slot are is schedule.h's business. */
#include "kernels/gpu/attend_sizes.h"
#include "kernels/gpu/layer.h"

#define THREADS MLAR_BLOCK_THREADS
#define WAVES   (THREADS / MLAR_WAVE)

typedef struct prepare_shared {
    int32_t wave_sum[WAVES];
    int32_t wave_longest[WAVES];
    int32_t position[THREADS]; /* of the rows at hand ... */
    int32_t end;               /* ... and of what follows them */
} prepare_shared;

/* Sum of the values of all threads before this one; *total is the sum of all. */
MLAR_DEVICE int32_t sum_before(prepare_shared *shared, int32_t value, int32_t *total) {
    const int32_t lane = mlar_lane(), wave = mlar_wave();
    int32_t sum = value, before = 0;
    MLAR_UNROLL for (int32_t step = 1; step < MLAR_WAVE; step *= 2) {
        const int32_t other = mlar_lane_get_i32(sum, lane >= step ? lane - step : lane);
        if (lane >= step) sum += other;
    }
    mlar_block_sync();
    if (lane == MLAR_WAVE - 1) shared->wave_sum[wave] = sum;
    mlar_block_sync();
    *total = 0;
    for (int32_t i = 0; i < WAVES; ++i) {
        if (i < wave) before += shared->wave_sum[i];
        *total += shared->wave_sum[i];
    }
    return before + sum - value;
}

/* Which of the `count` rows at hand the tile at `position` belongs to: the last one that begins at it or
 * before. */
MLAR_DEVICE int32_t row_of(const prepare_shared *shared, int32_t count, int32_t position) {
    int32_t low = 0, high = count;
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        if (shared->position[middle] <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The largest of all threads' values. */
MLAR_DEVICE int32_t longest_of_all(prepare_shared *shared, int32_t value) {
    MLAR_UNROLL for (int32_t step = 1; step < MLAR_WAVE; step *= 2) value =
        mlar_max_i32(value, mlar_lane_get_i32(value, mlar_lane() ^ step));
    if (mlar_lane() == 0) shared->wave_longest[mlar_wave()] = value;
    mlar_block_sync();
    for (int32_t i = 0; i < WAVES; ++i) value = mlar_max_i32(value, shared->wave_longest[i]);
    mlar_block_sync();
    return value;
}

/* Lengths, positions and tiles of the rows into schedule_rows (as first_slot and parts); returns the sum of tiles. */
MLAR_DEVICE int32_t count_tiles(const mlar_stage_args *args, const mlar_layer_params *layer,
                                prepare_shared *shared, int32_t begin, int32_t rows, int32_t *longest) {
    int32_t total = 0, most = 0;
    for (int32_t base = 0; base < rows; base += THREADS) {
        const int32_t row = begin + base + mlar_thread();
        int32_t tiles = 0, sum;
        if (row < begin + rows) {
            const mlar_row_lists lists = mlar_row_lists_of(layer, row);
            tiles = lists.tiles;
            args->schedule_rows[row].length[0] = lists.length[0];
            args->schedule_rows[row].length[1] = lists.length[1];
        }
        const int32_t position = total + sum_before(shared, tiles, &sum);
        if (row < begin + rows) {
            args->schedule_rows[row].first_slot = position;
            args->schedule_rows[row].parts = tiles;
        }
        total += sum;
        most = mlar_max_i32(most, tiles);
    }
    *longest = longest_of_all(shared, most);
    return total;
}

/* Tiles of the rows that have more than `share`. A thread reads what it wrote in count_tiles. */
MLAR_DEVICE int32_t tiles_in_parts(const mlar_stage_args *args, prepare_shared *shared, int32_t begin,
                                   int32_t rows, int32_t share) {
    int32_t mine = 0, sum;
    for (int32_t row = begin + mlar_thread(); row < begin + rows; row += THREADS) {
        const int32_t tiles = args->schedule_rows[row].parts;
        if (tiles > share) mine += tiles;
    }
    (void)sum_before(shared, mine, &sum);
    return sum;
}

/* Parts and slots of the rows, and the cuts; returns the sum of slots. `total` > 0. */
MLAR_DEVICE int32_t cut_rows(const mlar_stage_args *args, prepare_shared *shared, int32_t begin, int32_t rows,
                             int32_t total, int32_t workers, int32_t granule) {
    mlar_schedule_cut *cuts = mlar_schedule_cuts_of(args, begin);
    int32_t slots = 0;
    for (int32_t base = 0; base < rows; base += THREADS) {
        const int32_t here = mlar_min_i32(rows - base, THREADS), row = begin + base + mlar_thread();
        const int32_t live = mlar_thread() < here;
        const int32_t position = live ? args->schedule_rows[row].first_slot : total;
        const int32_t tiles = live ? args->schedule_rows[row].parts : 0;
        const int32_t parts = live ? mlar_balanced_parts(total, workers, granule, position, tiles) : 0;
        int32_t sum, end;
        const int32_t first_slot = slots + sum_before(shared, parts > 1 ? parts : 0, &sum);
        if (live) {
            args->schedule_rows[row].first_slot = parts > 1 ? first_slot : -1;
            args->schedule_rows[row].parts = parts;
        }
        slots += sum;
        shared->position[mlar_thread()] = position;
        if (mlar_thread() == here - 1) shared->end = position + tiles;
        mlar_block_sync();
        end = mlar_cut_from(total, workers, shared->end);
        for (int32_t cut = mlar_cut_from(total, workers, shared->position[0]) + mlar_thread(); cut < end;
             cut += THREADS) {
            const int32_t at = (int32_t)mlar_cut_position(total, workers, cut);
            const int32_t of = row_of(shared, here, at);
            cuts[cut].row = begin + base + of;
            cuts[cut].tile = at - shared->position[of];
        }
        mlar_block_sync();
    }
    return slots;
}

MLAR_KERNEL MLAR_BLOCK(THREADS) void mlar_prepare(MLAR_BY_VALUE(mlar_stage_args) by_value) {
    MLAR_SHARED static prepare_shared shared;
    MLAR_SHARED static mlar_layer_params layer;
    const mlar_stage_args *args = MLAR_ARGS(mlar_stage_args, by_value);
    const int32_t row_end = args->row_begin + args->row_count, live = mlar_live_rows(args);
    mlar_layer_to_lds(args, &layer, THREADS);
    for (int32_t begin = args->row_begin; begin < row_end; begin += args->shape.row_tile) {
        const int32_t count = mlar_min_i32(args->shape.row_tile, row_end - begin);
        const int32_t rows = mlar_live_rows_within(live, begin, count);
        int32_t longest;
        const int32_t total = count_tiles(args, &layer, &shared, begin, rows, &longest);
        const int32_t heads_per_group = mlar_heads_per_group(&args->shape, rows, total);
        const int32_t workers = mlar_balanced_workers(&args->shape, heads_per_group, total);
        int32_t granule = 1, slots = 0;
        if (total) {
            const int32_t share = mlar_share_now(&args->shape, rows, total, workers, longest);
            granule = mlar_granule_now(&args->shape, rows, share, longest,
                                       tiles_in_parts(args, &shared, begin, rows, share));
            slots = cut_rows(args, &shared, begin, rows, total, workers, granule);
        }
        if (mlar_thread() == 0) {
            mlar_schedule_head *head = mlar_schedule_head_of(args, begin);
            mlar_schedule_cut *end = mlar_schedule_cuts_of(args, begin) + workers;
            head->workers = workers;
            head->heads_per_group = heads_per_group;
            head->slots = slots;
            head->granule = granule;
            end->row = begin + rows;
            end->tile = 0;
        }
    }
}
