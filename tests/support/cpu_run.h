/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_run.h: runs one step of a case through the CPU kernels, without an engine: the memory that an engine
 * would carve from its arena, dirty, and the sequence of stages. Included by tests that use all of it, whence
 * the definitions; it asserts with cmocka, which must be included before. */
#ifndef TESTS_SUPPORT_CPU_RUN_H
#define TESTS_SUPPORT_CPU_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/schedule.h"
#include "tests/support/cases.h"

/* How a step is run: what results may depend on, and `backwards` and `through_blocks`, on which they may not.
 */
typedef struct way {
    const char *name;
    bool gather;              /* strategy */
    int32_t splits;           /* 0: policy balanced */
    int32_t workers, granule; /* balanced */
    int32_t row_tile;         /* 0: all rows at once */
    int32_t heads_per_group;  /* 0: all heads; variants other than scalar are only promised that */
    bool through_blocks;      /* layer and rows stand in memory, as in a captured program */
    bool backwards;           /* items in reverse */
} way;

/* The memory that an engine would carve from its arena; every byte 0xff before the step. */
typedef struct workspace {
    mlar_stage_args args;
    mlar_layer_params layer_block;
    mlar_step_params step_block;
    uint64_t invalid;
    void *scratch;
    size_t gathered_bytes[MLAR_MAX_SCOPES];
} workspace;

static void *dirty(size_t bytes, size_t align) {
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, align, bytes ? bytes : align), 0);
    memset(memory, 0xff, bytes ? bytes : align);
    return memory;
}

static int32_t most_tiles(const mlar_layer_params *layer) {
    int32_t tiles = 0;
    for (int32_t s = 0; s < layer->scope_count; ++s)
        tiles += mlar_ceil_div(layer->scope[s].width, MLAR_KEY_TILE);
    return tiles ? tiles : 1;
}

static void open_workspace(workspace *space, const step_case *made, const way *how) {
    const int32_t capacity = made->spec.capacity_rows;
    mlar_stage_args *args = &space->args;
    mlar_shape *shape = &args->shape;
    size_t slots, row_tiles;
    memset(space, 0, sizeof *space);
    *shape = made->shape;
    shape->workers = how->workers ? how->workers : 1;
    shape->cut_granule = how->granule ? how->granule : 1;
    shape->splits = how->splits;
    shape->row_tile = how->row_tile && how->row_tile < capacity ? how->row_tile : capacity;
    shape->heads_per_group_min = shape->heads_per_group_max =
        how->heads_per_group && how->heads_per_group < shape->heads ? how->heads_per_group : shape->heads;
    shape->slot_limit =
        (int32_t)(how->splits ? (how->splits > 1 ? shape->row_tile * how->splits : 0)
                              : mlar_balanced_slot_bound(shape->workers, shape->cut_granule, shape->row_tile,
                                                         most_tiles(&made->layer)));
    slots = (size_t)shape->slot_limit * (size_t)shape->heads;
    row_tiles = (size_t)mlar_ceil_div(capacity, shape->row_tile);
    for (int32_t s = 0; s < made->layer.scope_count; ++s) {
        space->gathered_bytes[s] = (size_t)shape->row_tile * (size_t)made->layer.scope[s].width *
                                   (size_t)shape->d_qk * sizeof(uint16_t);
        args->gathered[s] = how->gather ? dirty(space->gathered_bytes[s], 64) : NULL;
    }
    args->partial_out = dirty(slots * (size_t)shape->d_v * sizeof(float), 64);
    args->partial_ml = dirty(slots * 2 * sizeof(float), 64);
    args->schedule = dirty(row_tiles * sizeof *args->schedule, 64);
    args->cuts = dirty(row_tiles * (size_t)(shape->workers + 1) * sizeof *args->cuts, 64);
    args->schedule_rows = dirty((size_t)shape->max_rows * sizeof *args->schedule_rows, 64);
    args->invalid_indices = &space->invalid;
    args->capacity_rows = capacity;
    space->scratch = dirty((size_t)mlar_cpu_scratch_bytes(shape), MLAR_CPU_SCRATCH_ALIGN);
    space->layer_block = made->layer;
    space->step_block.rows_device = &made->spec.rows;
    space->step_block.rows = -1;
    if (how->through_blocks) {
        args->layer_block = &space->layer_block;
        args->step_block = &space->step_block;
        args->rows = -1;
    } else {
        args->layer = made->layer;
        args->rows = made->spec.rows;
    }
}

static void close_workspace(workspace *space) {
    for (int32_t s = 0; s < MLAR_MAX_SCOPES; ++s) free(space->args.gathered[s]);
    free(space->args.partial_out);
    free(space->args.partial_ml);
    free(space->args.schedule);
    free(space->args.cuts);
    free(space->args.schedule_rows);
    free(space->scratch);
}

static void run_stage(const mlar_cpu_kernels *kernels, workspace *space, int32_t stage, bool backwards) {
    const int64_t items = mlar_cpu_items(stage, &space->args);
    for (int64_t i = 0; i < items; ++i)
        mlar_cpu_run(kernels, stage, &space->args, backwards ? items - 1 - i : i, space->scratch);
}

/* The sequence that engine/stages.c describes. */
static void run_step(const mlar_cpu_kernels *kernels, workspace *space, const way *how) {
    mlar_stage_args *args = &space->args;
    const int32_t row_tile = args->shape.row_tile;
    args->row_begin = 0;
    args->row_count = args->capacity_rows;
    run_stage(kernels, space, MLAR_STAGE_PREPARE, false);
    for (args->row_begin = 0; args->row_begin < args->capacity_rows; args->row_begin += row_tile) {
        args->row_count = mlar_min_i32(row_tile, args->capacity_rows - args->row_begin);
        if (how->gather) run_stage(kernels, space, MLAR_STAGE_GATHER, how->backwards);
        run_stage(kernels, space, how->gather ? MLAR_STAGE_ATTEND_GATHERED : MLAR_STAGE_ATTEND_DIRECT,
                  how->backwards);
        run_stage(kernels, space, MLAR_STAGE_COMBINE, how->backwards);
    }
}

#endif
