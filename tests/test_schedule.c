/* SPDX-License-Identifier: Apache-2.0
 *
 * test_schedule.c: who does what. Random rows, sizes and policies: every key tile of every live row is done
 * once for every head, in order, in slots that suffice; and nothing depends on the capacity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/schedule.h"
#include "tests/support/cases.h"

enum { MAX_ROWS = 40, MAX_TILES = 64, MAX_WORKERS = 300, MAX_HEADS = 64, MAX_SLOTS = MAX_ROWS * MAX_TILES };

/* A layer without caches: lists only, whose entries nobody looks at. */
typedef struct plan {
    mlar_stage_args args;
    int32_t lens[2][MAX_ROWS + 1];
    int32_t entries[1];
    mlar_schedule_head heads[MAX_ROWS];
    mlar_schedule_cut cuts[MAX_ROWS * (MAX_WORKERS + 1)];
    mlar_schedule_row rows[MAX_ROWS];
    int32_t live;
} plan;

static plan *draw_plan(uint64_t *random) {
    plan *p = calloc(1, sizeof *p);
    mlar_stage_args *args = &p->args;
    mlar_shape *shape = &args->shape;
    assert_non_null(p);
    memset(p->heads, 0xff, sizeof p->heads);
    memset(p->cuts, 0xff, sizeof p->cuts);
    memset(p->rows, 0xff, sizeof p->rows);
    args->schedule = p->heads;
    args->cuts = p->cuts;
    args->schedule_rows = p->rows;
    args->capacity_rows = 1 + case_random_below(random, MAX_ROWS);
    p->live = args->rows = case_random_below(random, args->capacity_rows + 1);
    args->layer.scope_count = 1 + case_random_below(random, 2);
    for (int32_t s = 0; s < args->layer.scope_count; ++s) {
        mlar_scope_params *scope = &args->layer.scope[s];
        const bool ragged = case_random_below(random, 2) != 0;
        const int32_t widths[] = {0, 1, 63, 64, 65, 128, 700, 1900};
        scope->width = widths[case_random_below(random, 8)];
        scope->indices = p->entries;
        scope->index_row_stride = 0;
        scope->rows_per_len = 1;
        scope->list_form = ragged ? MLAR_LIST_RAGGED : MLAR_LIST_DENSE;
        scope->lens = p->lens[s];
        for (int32_t row = 0; row < MAX_ROWS; ++row) {
            const int32_t kind = case_random_below(random, 4);
            const int32_t length = kind == 0   ? 0
                                   : kind == 1 ? scope->width
                                               : case_random_below(random, scope->width + 1);
            p->lens[s][row + ragged] = (ragged ? p->lens[s][row] : 0) + length;
        }
    }
    shape->heads = 1 + case_random_below(random, MAX_HEADS);
    shape->workers = 1 + case_random_below(random, case_random_below(random, 2) ? 12 : MAX_WORKERS);
    shape->cut_granule = 1 + case_random_below(random, 2) * case_random_below(random, 6);
    shape->splits = case_random_below(random, 3) ? 0 : 1 + case_random_below(random, 9);
    shape->heads_per_group_max = shape->heads;
    shape->heads_per_group_min = case_random_below(random, 2) ? shape->heads : 8;
    if (case_random_below(random, 2)) shape->heads_per_group_max = 32;
    if (shape->heads_per_group_min > shape->heads_per_group_max)
        shape->heads_per_group_min = shape->heads_per_group_max;
    shape->row_tile = case_random_below(random, 2) ? args->capacity_rows
                                                   : 1 + case_random_below(random, args->capacity_rows);
    shape->max_rows = MAX_ROWS;
    shape->d_v = 512;
    shape->merged_elements_per_tile =
        case_random_below(random, 2) ? 0 : 1 + case_random_below(random, 100000);
    if (case_random_below(random, 2)) {
        shape->cluster_blocks = 2 + case_random_below(random, 7);
        shape->cluster_rows = 1 + case_random_below(random, MAX_ROWS);
    }
    args->row_begin = 0;
    args->row_count = args->capacity_rows;
    return p;
}

static int32_t tiles_of_row(const plan *p, int32_t row) {
    return mlar_row_lists_of(&p->args.layer, row).tiles;
}

static int32_t width_tiles(const plan *p) {
    int32_t tiles = 0;
    for (int32_t s = 0; s < p->args.layer.scope_count; ++s)
        tiles += mlar_ceil_div(p->args.layer.scope[s].width, MLAR_KEY_TILE);
    return mlar_max_i32(tiles, 1);
}

/* Marks what a unit does; `done` counts heads per (row, tile). */
typedef struct ledger {
    int32_t done[MAX_ROWS][MAX_TILES];
    int32_t parts[MAX_ROWS];              /* by the first head group */
    int32_t slot_of[MAX_ROWS][MAX_TILES]; /* slot of the part that begins at this tile, or -1 */
    int32_t slot_heads[MAX_SLOTS];
} ledger;

/* What the cuts of a row tile are multiples of: the shape's granule, or a worker's share of the tiles, or, in clusters,
 * a block's share of the longest row; or that row, so that none is cut. */
static int32_t granule_of(const plan *p) {
    const mlar_stage_args *args = &p->args;
    const mlar_schedule_head *head = mlar_schedule_head_of(args, args->row_begin);
    const int32_t end = args->row_begin + mlar_live_rows_within(p->live, args->row_begin, args->row_count);
    int32_t total = 0, longest = 0, share;
    for (int32_t row = args->row_begin; row < end; ++row) {
        total += tiles_of_row(p, row);
        longest = mlar_max_i32(longest, tiles_of_row(p, row));
    }
    share =
        mlar_max_i32((total + head->workers - 1) / mlar_max_i32(head->workers, 1), args->shape.cut_granule);
    const int32_t in_clusters =
        args->shape.cluster_blocks && end - args->row_begin <= args->shape.cluster_rows;
    if (in_clusters)
        share = mlar_max_i32(share, (longest + args->shape.cluster_blocks - 1) / args->shape.cluster_blocks);
    if (head->granule != share) {
        assert_true(args->shape.merged_elements_per_tile != 0 || (in_clusters && share + 1 >= longest));
        assert_int_equal(head->granule, mlar_max_i32(share, longest));
    }
    return head->granule;
}

static void walk_units(plan *p, ledger *book) {
    mlar_stage_args *args = &p->args;
    const int64_t units = mlar_attend_units(args, p->live);
    assert_true(units <= mlar_attend_grid(&args->shape, args->row_count));
    for (int64_t u = 0; u < units; ++u) {
        const mlar_unit unit = mlar_unit_of(args, u);
        const int32_t heads = unit.head_end - unit.head_begin;
        mlar_span span = mlar_worker_span(args, &args->layer, unit.worker);
        mlar_part part;
        int32_t last_row = -1;
        assert_true(heads > 0 && unit.head_end <= args->shape.heads);
        while (mlar_next_part(args, &args->layer, &span, &part)) {
            const int32_t tiles = tiles_of_row(p, part.row);
            assert_true(part.row > last_row && part.row < args->row_begin + args->row_count &&
                        part.row < p->live);
            assert_true(part.tile_begin < part.tile_end && part.tile_end <= tiles);
            assert_true((part.slot < 0) == (part.tile_begin == 0 && part.tile_end == tiles));
            if (args->shape.splits == 0) assert_int_equal(part.tile_begin % granule_of(p), 0);
            for (int32_t t = part.tile_begin; t < part.tile_end; ++t) book->done[part.row][t] += heads;
            if (part.slot >= 0) {
                assert_true(part.slot < MAX_SLOTS);
                book->slot_heads[part.slot] += heads;
            }
            if (unit.head_begin == 0) {
                book->parts[part.row] += 1;
                book->slot_of[part.row][part.tile_begin] = part.slot;
            }
            last_row = part.row;
        }
    }
}

/* What clusters rely on: a block for each part, and part p begins at p granules. */
static void check_clusters(const plan *p, const ledger *book, int32_t end) {
    const mlar_stage_args *args = &p->args;
    const mlar_schedule_head *head = mlar_schedule_head_of(args, args->row_begin);
    if (args->shape.splits || mlar_cluster_parts(&args->shape, end - args->row_begin) == 0) return;
    assert_int_equal(head->heads_per_group, args->shape.heads_per_group_min);
    for (int32_t row = args->row_begin; row < end; ++row) {
        const mlar_row_parts parts = mlar_row_parts_of(args, &args->layer, row);
        assert_true(parts.parts <= args->shape.cluster_blocks);
        for (int32_t part = 0; parts.parts > 1 && part < parts.parts; ++part)
            assert_int_equal(book->slot_of[row][part * head->granule], parts.first_slot + part);
    }
}

/* Everything that attend and combine rely on, for one row tile. */
static void check_row_tile(plan *p, ledger *book) {
    mlar_stage_args *args = &p->args;
    const int32_t end = args->row_begin + mlar_live_rows_within(p->live, args->row_begin, args->row_count);
    const int64_t bound = args->shape.splits
                              ? (int64_t)args->row_count * args->shape.splits
                              : mlar_balanced_slot_bound(args->shape.workers, args->shape.cut_granule,
                                                         args->row_count, width_tiles(p));
    int32_t used = 0;
    memset(book, 0, sizeof *book);
    walk_units(p, book);
    for (int32_t row = args->row_begin; row < end; ++row) {
        const mlar_row_parts parts = mlar_row_parts_of(args, &args->layer, row);
        int32_t next = parts.first_slot;
        for (int32_t t = 0; t < tiles_of_row(p, row); ++t)
            assert_int_equal(book->done[row][t], args->shape.heads);
        assert_int_equal(parts.parts, book->parts[row]);
        if (parts.parts == 1) {
            assert_int_equal(book->slot_of[row][0], -1); /* whoever does it finishes the row */
            continue;
        }
        for (int32_t t = 0, seen = 0; seen < parts.parts; ++t) { /* slots follow the order of the tiles */
            if (t > 0 && book->slot_of[row][t] == 0)
                continue; /* no part begins here (slot 0 is a first part) */
            assert_int_equal(book->slot_of[row][t], next++);
            ++seen;
        }
        used += parts.parts;
        assert_true(next <= bound);
    }
    check_clusters(p, book, end);
    if (args->shape.splits == 0) {
        const mlar_schedule_head *head = mlar_schedule_head_of(args, args->row_begin);
        assert_int_equal(head->slots, used);
        assert_true(used <= bound);
        assert_true(head->workers * mlar_head_groups(&args->shape, head->heads_per_group) <=
                    mlar_attend_grid(&args->shape, args->row_count));
    }
    for (int32_t slot = 0; slot < MAX_SLOTS; ++slot) /* nobody shares */
        assert_true(book->slot_heads[slot] == 0 || book->slot_heads[slot] == args->shape.heads);
}

/* From the lengths that prepare left follow the lists that are found by looking them up; wrong ones stay within. */
static void check_lengths(const plan *p) {
    const mlar_layer_params *layer = &p->args.layer;
    for (int32_t row = 0; row < p->live && mlar_lists_are_dense(layer); ++row) {
        const mlar_row_lists lists = mlar_row_lists_of(layer, row);
        const mlar_row_lists known = mlar_row_lists_known(layer, row, p->rows[row].length);
        const mlar_row_lists wrong = mlar_row_lists_known(layer, row, (const int32_t[]){-5, 1 << 30});
        assert_int_equal(known.tiles, lists.tiles);
        for (int32_t s = 0; s < layer->scope_count; ++s) {
            assert_int_equal(known.length[s], lists.length[s]);
            if (lists.length[s]) assert_ptr_equal(known.entries[s], lists.entries[s]);
            assert_int_equal(wrong.length[s], s ? layer->scope[s].width : 0);
        }
    }
}

static void every_tile_once(void **state) {
    ledger *book = malloc(sizeof *book);
    uint64_t random = 10;
    int32_t split_rows = 0;
    (void)state;
    assert_non_null(book);
    for (int32_t pass = 0; pass < 1500; ++pass) {
        plan *p = draw_plan(&random);
        mlar_stage_args *args = &p->args;
        const int32_t capacity = args->capacity_rows, row_tile = args->shape.row_tile;
        mlar_cpu_prepare(args);
        if (args->shape.splits == 0) check_lengths(p);
        for (int32_t begin = 0; begin < capacity; begin += row_tile) {
            args->row_begin = begin;
            args->row_count = mlar_min_i32(row_tile, capacity - begin);
            check_row_tile(p, book);
            for (int32_t row = 0; row < MAX_ROWS; ++row) split_rows += book->parts[row] > 1;
        }
        free(p);
    }
    assert_true(split_rows > 1000); /* the cases were worth it */
    free(book);
}

/* The share of a worker is even: no cut is more than a granule away from its place. */
static void cuts_are_even(void **state) {
    uint64_t random = 11;
    (void)state;
    for (int32_t pass = 0; pass < 300; ++pass) {
        plan *p = draw_plan(&random);
        mlar_stage_args *args = &p->args;
        args->shape.splits = 0;
        args->shape.row_tile = args->capacity_rows;
        mlar_cpu_prepare(args);
        int64_t total = 0;
        for (int32_t row = 0; row < p->live; ++row) total += tiles_of_row(p, row);
        for (int32_t w = 0; w < p->heads[0].workers; ++w) {
            const int64_t ideal = w * total / p->heads[0].workers;
            const mlar_span span = mlar_worker_span(args, &args->layer, w);
            int64_t position = span.tile;
            for (int32_t row = 0; row < span.row; ++row) position += tiles_of_row(p, row);
            assert_true(position <= ideal && position > ideal - granule_of(p));
        }
        free(p);
    }
}

/* Rows, lists and sizes alike, capacity not: the schedule is the same, byte for byte. */
static void capacity_is_not_felt(void **state) {
    uint64_t random = 12;
    (void)state;
    for (int32_t pass = 0; pass < 300; ++pass) {
        plan *small = draw_plan(&random), *large = calloc(1, sizeof *large);
        assert_non_null(large);
        small->args.shape.splits = 0;
        small->args.shape.row_tile = 1 + case_random_below(&random, MAX_ROWS);
        small->args.capacity_rows = small->args.row_count = mlar_max_i32(small->live, 1);
        memcpy(large, small, sizeof *large);
        large->args.schedule = large->heads;
        large->args.cuts = large->cuts;
        large->args.schedule_rows = large->rows;
        for (int32_t s = 0; s < 2; ++s) large->args.layer.scope[s].lens = large->lens[s];
        large->args.capacity_rows = large->args.row_count = MAX_ROWS;
        mlar_cpu_prepare(&small->args);
        mlar_cpu_prepare(&large->args);
        for (int32_t begin = 0; begin < small->live; begin += small->args.shape.row_tile) {
            const mlar_schedule_head *head = mlar_schedule_head_of(&small->args, begin);
            assert_memory_equal(head, mlar_schedule_head_of(&large->args, begin), sizeof *head);
            assert_memory_equal(mlar_schedule_cuts_of(&small->args, begin),
                                mlar_schedule_cuts_of(&large->args, begin),
                                (size_t)(head->workers + 1) * sizeof(mlar_schedule_cut));
        }
        assert_memory_equal(small->rows, large->rows, (size_t)small->live * sizeof *small->rows);
        free(small);
        free(large);
    }
}

/* The largest allowed group with enough units, by looking at all of them. */
static void heads_per_group(void **state) {
    static const int32_t heads[] = {1, 5, 8, 16, 24, 40, 64, 128};
    (void)state;
    for (size_t h = 0; h < sizeof heads / sizeof *heads; ++h)
        for (int32_t least = 1; least <= 32; least *= 2)
            for (int32_t most = least; most <= 128; most *= 2)
                for (int64_t tiles = 0; tiles < 400; tiles += 1 + tiles / 3) {
                    const mlar_shape shape = {.heads = heads[h],
                                              .workers = 132,
                                              .heads_per_group_min = least,
                                              .heads_per_group_max = most};
                    const int32_t group = mlar_heads_per_group(&shape, 1, tiles);
                    int32_t expected = least;
                    for (int32_t g = most; g >= least; g /= 2)
                        if (tiles * ((heads[h] + g - 1) / g) >= 132) {
                            expected = g;
                            break;
                        }
                    assert_int_equal(group, expected);
                }
    { /* all heads or eight, with 24 heads: 24, 16, 8 */
        const mlar_shape shape = {
            .heads = 24, .workers = 100, .heads_per_group_min = 8, .heads_per_group_max = 24};
        assert_int_equal(mlar_heads_per_group(&shape, 1, 100), 24);
        assert_int_equal(mlar_heads_per_group(&shape, 1, 50), 16);
        assert_int_equal(mlar_heads_per_group(&shape, 1, 34), 8);
        assert_int_equal(mlar_heads_per_group(&shape, 1, 3), 8);
    }
}

/* The granule that prepare chooses on 132 workers for `rows` rows of `tiles` tiles and `more` of `more_tiles`. */
static int32_t granule_for(int32_t heads, int32_t merged_elements_per_tile, int32_t rows, int32_t tiles,
                           int32_t more, int32_t more_tiles) {
    enum { WORKERS = 132, ROWS = 256 };
    static int32_t lens[ROWS];
    static mlar_schedule_head head;
    static mlar_schedule_cut cuts[WORKERS + 1];
    static mlar_schedule_row schedule_rows[ROWS];
    mlar_stage_args args = {.schedule = &head, .cuts = cuts, .schedule_rows = schedule_rows};
    assert_true(rows + more <= ROWS);
    for (int32_t row = 0; row < rows + more; ++row)
        lens[row] = (row < rows ? tiles : more_tiles) * MLAR_KEY_TILE;
    args.layer.scope_count = 1;
    args.layer.scope[0] = (mlar_scope_params){.width = 130 * MLAR_KEY_TILE, .lens = lens, .rows_per_len = 1};
    args.shape = (mlar_shape){.heads = heads,
                              .d_v = 512,
                              .workers = WORKERS,
                              .cut_granule = 1,
                              .heads_per_group_min = heads,
                              .heads_per_group_max = heads,
                              .row_tile = ROWS,
                              .merged_elements_per_tile = merged_elements_per_tile};
    args.rows = args.row_count = args.capacity_rows = rows + more;
    mlar_cpu_prepare(&args);
    return head.granule;
}

/* A row is cut only if that spares more than the merge costs; the longest row is what counts for the one, and for the
 * other what would be cut. */
static void splits_are_worth_their_merge(void **state) {
    static const struct {
        int32_t heads, rows, tiles, more, more_tiles, granule;
    } cases[] = {
        {64, 1, 10, 0, 0, 1},   {64, 16, 10, 0, 0, 2},   {64, 32, 10, 0, 0, 3},  {64, 64, 10, 0, 0, 10},
        {64, 96, 10, 0, 0, 10}, {64, 200, 10, 0, 0, 16}, /* a share is more than a row */
        {16, 64, 10, 0, 0, 5},  {64, 64, 2, 0, 0, 2},    {64, 63, 2, 1, 130, 2}, {128, 20, 10, 0, 0, 10},
        {128, 60, 2, 8, 10, 2}, /* as many tiles, most of them in rows that stay whole */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
        assert_int_equal(granule_for(cases[i].heads, 700000, cases[i].rows, cases[i].tiles, cases[i].more,
                                     cases[i].more_tiles),
                         cases[i].granule);
    assert_int_equal(granule_for(64, 0, 64, 10, 0, 0), 5);
}

/* Steps of few rows are cut for clusters: into no more parts than those have blocks, whatever a merge in memory costs,
 * but not for the sake of one tile. */
static void clusters_bound_the_parts(void **state) {
    static const struct {
        int32_t rows, total, longest, granule;
    } cases[] = {
        {1, 10, 10, 2},   {1, 7, 7, 2},    {1, 4, 4, 1},      {1, 2, 2, 2}, {16, 160, 10, 2},
        {22, 220, 10, 2}, {22, 60, 18, 4}, {23, 230, 10, 10}, /* not for clusters any more: the merge costs too much */
    };
    const mlar_shape shape = {.heads = 64,
                              .heads_per_group_min = 16,
                              .heads_per_group_max = 64,
                              .workers = 132,
                              .d_v = 512,
                              .cut_granule = 1,
                              .merged_elements_per_tile = 1,
                              .cluster_rows = 22,
                              .cluster_blocks = 5};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        const int32_t workers = mlar_min_i32(cases[i].total, 132);
        assert_int_equal(mlar_cluster_parts(&shape, cases[i].rows), cases[i].rows <= 22 ? 5 : 0);
        const int32_t share =
            mlar_share_now(&shape, cases[i].rows, cases[i].total, workers, cases[i].longest);
        assert_int_equal(mlar_granule_now(&shape, cases[i].rows, share, cases[i].longest, cases[i].total),
                         cases[i].granule);
        assert_int_equal(mlar_heads_per_group(&shape, cases[i].rows, 1000), cases[i].rows <= 22 ? 16 : 64);
    }
}

/* A row's tiles cover its lists: each entry once, window first, never both scopes. */
static void tiles_cover_the_lists(void **state) {
    (void)state;
    for (int32_t window = 0; window < 200; window += 7)
        for (int32_t extra = 0; extra < 200; extra += 9) {
            const int32_t entries[1] = {0};
            const mlar_layer_params layer = {
                .scope = {{.width = window, .indices = entries}, {.width = extra, .indices = entries}},
                .scope_count = 2};
            const mlar_row_lists lists = mlar_row_lists_of(&layer, 0);
            int32_t done[2] = {0, 0}, scope = 0;
            for (int32_t t = 0; t < lists.tiles; ++t) {
                const mlar_tile tile = mlar_tile_of(&lists, t);
                assert_true(tile.scope >= scope && tile.count <= MLAR_KEY_TILE);
                assert_true(tile.count > 0 || (window == 0 && extra == 0));
                assert_int_equal(tile.first, done[tile.scope]);
                done[tile.scope] += tile.count;
                scope = tile.scope;
            }
            assert_true(done[0] == window && done[1] == extra && lists.tiles >= 1);
        }
}

/* Lengths and rows come from device memory and are not believed. */
static void wild_numbers_are_clamped(void **state) {
    static const int32_t wild[] = {INT_MIN, -1, 0, 5, 100, 101, INT_MAX};
    static const int32_t clamped[] = {0, 0, 0, 5, 100, 100, 100};
    static const int32_t indptr[] = {-5, 10, 7, 7, 400, INT_MAX, INT_MIN};
    static const int32_t lengths[] = {0, 0, 0, 100, 100, 0};
    (void)state;
    for (int32_t row = 0; row < 7; ++row) {
        const mlar_scope_params dense = {
            .width = 100, .lens = wild, .rows_per_len = 1, .index_row_stride = 1 << 30};
        mlar_stage_args args = {.rows = wild[row], .capacity_rows = 100};
        const mlar_step_params step = {.rows_device = &wild[row]}, by_value = {.rows = wild[row]};
        int64_t first;
        assert_int_equal(mlar_row_length(&dense, row, mlar_length_words_of(&dense, row), &first),
                         clamped[row]);
        assert_true(first == (int64_t)row << 30);
        assert_int_equal(mlar_live_rows(&args), clamped[row]);
        args.rows = 50;
        args.rows_device = &wild[row];
        assert_int_equal(mlar_live_rows(&args), clamped[row]);
        args.rows_device = NULL;
        args.step_block = &step;
        assert_int_equal(mlar_live_rows(&args), clamped[row]);
        args.step_block = &by_value;
        assert_int_equal(mlar_live_rows(&args), clamped[row]);
    }
    for (int32_t row = 0; row < 6; ++row) {
        const mlar_scope_params ragged = {.width = 100, .lens = indptr, .list_form = MLAR_LIST_RAGGED};
        int64_t first;
        assert_int_equal(mlar_row_length(&ragged, row, mlar_length_words_of(&ragged, row), &first),
                         lengths[row]);
        if (lengths[row]) assert_true(first == indptr[row]);
    }
    {
        const mlar_scope_params pool = {.num_slots = 640};
        assert_true(mlar_slot_counts(&pool, 0) && mlar_slot_counts(&pool, 639));
        assert_true(!mlar_slot_counts(&pool, 640) && !mlar_slot_counts(&pool, -1) &&
                    !mlar_slot_counts(&pool, INT_MIN));
        assert_true(!mlar_slot_is_invalid(&pool, -1) && !mlar_slot_is_invalid(&pool, 5));
        assert_true(mlar_slot_is_invalid(&pool, -2) && mlar_slot_is_invalid(&pool, 640));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_once),
        cmocka_unit_test(cuts_are_even),
        cmocka_unit_test(splits_are_worth_their_merge),
        cmocka_unit_test(clusters_bound_the_parts),
        cmocka_unit_test(capacity_is_not_felt),
        cmocka_unit_test(heads_per_group),
        cmocka_unit_test(tiles_cover_the_lists),
        cmocka_unit_test(wild_numbers_are_clamped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
