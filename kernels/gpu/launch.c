/* SPDX-License-Identifier: Apache-2.0
 *
 * launch.c: the tables behind launch.h. */
#include "kernels/gpu/launch.h"

#include <stddef.h>
#include <string.h>

#include "kernels/gpu/attend_sizes.h"
#include "kernels/schedule.h"

/* ---- architectures ---- */

/* An engine made for one family and one source of keys of the models' sizes. */
typedef struct tuned_engine {
    const char *unit, *kernel;
    const char *merged; /* the same in clusters (schedule.h), or null */
    uint32_t threads, lds_bytes;
    int32_t block_for_each_unit; /* else a block for each compute unit, which takes units in turns */
    int32_t stage;
    int32_t layout;     /* of every scope */
    int32_t nope, d_qk; /* and d_v 512 */
} tuned_engine;

enum { ANY = -1 };

/* Of a family, ended by one without a name. Attention over gathered rows does not see what they were made from, and
 * bf16 is the same on either side of the boundary between nope and rope. */
static const tuned_engine sm90_engines[] = {
    {"attend_sm90", "mlar_attend_direct_sm90", "mlar_attend_direct_sm90_merged", MLAR_SM90_THREADS,
     MLAR_SM90_LDS_BYTES, 1, MLAR_STAGE_ATTEND_DIRECT, MLAR_LAYOUT_DSV4, 448, 512},
    {"attend_sm90", "mlar_attend_direct_sm90_v32", "mlar_attend_direct_sm90_v32_merged", MLAR_SM90_THREADS,
     MLAR_SM90_V32_LDS_BYTES, 1, MLAR_STAGE_ATTEND_DIRECT, MLAR_LAYOUT_V32, 512, 576},
    {"attend_sm90", "mlar_attend_direct_sm90_bf16", "mlar_attend_direct_sm90_bf16_merged", MLAR_SM90_THREADS,
     MLAR_SM90_LDS_BYTES, 1, MLAR_STAGE_ATTEND_DIRECT, MLAR_LAYOUT_BF16, ANY, 512},
    {"attend_sm90", "mlar_attend_gathered_sm90", "mlar_attend_gathered_sm90_merged", MLAR_SM90_THREADS,
     MLAR_SM90_LDS_BYTES, 1, MLAR_STAGE_ATTEND_GATHERED, ANY, ANY, 512},
    {"attend_sm90", "mlar_attend_gathered_sm90_v32", "mlar_attend_gathered_sm90_v32_merged",
     MLAR_SM90_THREADS, MLAR_SM90_V32_LDS_BYTES, 1, MLAR_STAGE_ATTEND_GATHERED, ANY, ANY, 576},
    {0},
};
static const tuned_engine wave_engines[] = {
    {"attend_wave", "mlar_attend_direct_wave", NULL, MLAR_BLOCK_THREADS, 0, 0, MLAR_STAGE_ATTEND_DIRECT,
     MLAR_LAYOUT_DSV4, 448, 512},
    {"attend_wave", "mlar_attend_direct_wave_bf16", NULL, MLAR_BLOCK_THREADS, 0, 0, MLAR_STAGE_ATTEND_DIRECT,
     MLAR_LAYOUT_BF16, ANY, 512},
    {"attend_wave", "mlar_attend_gathered_wave", NULL, MLAR_BLOCK_THREADS, 0, 0, MLAR_STAGE_ATTEND_GATHERED,
     ANY, ANY, 512},
    {"attend_wave", "mlar_attend_gathered_wave_v32", NULL, MLAR_BLOCK_THREADS, 0, 0,
     MLAR_STAGE_ATTEND_GATHERED, ANY, ANY, 576},
    {0},
};

typedef struct gpu_arch {
    const char *name;
    int32_t largest_group; /* heads that one attend kernel serves at once, keys up to 512 wide */
    int32_t nvidia;
    const tuned_engine *tuned;        /* some, or null */
    int32_t merged_elements_per_tile; /* with tuned engines; 0: never measured */
} gpu_arch;

/* H100, 128 + 512 entries: with 64 heads, rows in halves lose to whole ones at 64 rows (41.9 us against 39.1) and rows
 * in quarters win at 32 (35.6 against 37.4); with 16 heads halves win at 64 rows (30.4 against 34.9). */
enum { SM90_MERGED_ELEMENTS_PER_TILE = 700000 };

static const gpu_arch archs[] = {
    {"gfx90a", 64, 0, wave_engines, 0},
    {"gfx942", 64, 0, wave_engines, 0},
    {"gfx950", 64, 0, wave_engines, 0},
    {"gfx1100", 32, 0, NULL, 0},
    {"sm_90", 64, 1, sm90_engines, SM90_MERGED_ELEMENTS_PER_TILE},
    {"sm_90a", 64, 1, sm90_engines, SM90_MERGED_ELEMENTS_PER_TILE},
};

/* The least group: what a matrix instruction works on anyway. */
enum { SMALLEST_GROUP = 16 };

static const gpu_arch *arch_of(const char *name) {
    const size_t length = name ? strcspn(name, ":") : 0;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strlen(archs[i].name) == length && strncmp(archs[i].name, name, length) == 0) return &archs[i];
    return NULL;
}

int32_t mlar_gpu_traits(const char *arch, int32_t heads, int32_t *heads_per_group_min,
                        int32_t *heads_per_group_max) {
    const gpu_arch *known = arch_of(arch);
    if (known == NULL) return 0;
    *heads_per_group_min = mlar_min_i32(heads, SMALLEST_GROUP);
    *heads_per_group_max = mlar_min_i32(heads, known->largest_group);
    return 1;
}

int32_t mlar_gpu_merged_elements_per_tile(const char *arch, int32_t nope, int32_t rope) {
    const gpu_arch *known = arch_of(arch);
    return known && rope == 64 && (nope == 448 || nope == 512) ? known->merged_elements_per_tile : 0;
}

/* ---- clusters ---- */

/* Blocks of a cluster, at most (what every device with clusters can); heads of a group, at least, for what fewer would
 * spare of the merge they cost in products; tiles that a row may take longer in clusters, for what combine would. */
enum { CLUSTER_BLOCKS = 8, CLUSTER_HEADS = 2, CLUSTER_TILES_MORE = 1 };

/* Clusters of so many blocks, one of which fills a multiprocessor, that surely run at once. They lie within a group of
 * at least 16 multiprocessors, of which some may be missing in one; of a device with fewer (a part of
 * one) nothing is sure. (An H100 of 132 takes 66, 39, 30, 22, 17, 15, 15 of 2 to 8.) */
static int32_t clusters_at_once(int32_t units, int32_t blocks) {
    return units < 16 ? 0 : units < 32 ? 1 : (units / 16 - 1) * (16 / blocks) + 1;
}

/* Is there a tuned engine for these sizes that merges? */
static int32_t may_merge(const gpu_arch *arch, const mlar_shape *shape) {
    for (const tuned_engine *tuned = arch->tuned; tuned && tuned->unit; tuned++)
        if (tuned->merged && tuned->d_qk == shape->d_qk && shape->d_v == 512) return 1;
    return 0;
}

/* Tiles in a row's longest part, in a step of `rows` rows of max_tiles tiles, by the policy's own choices. */
static int32_t tiles_taken(const mlar_shape *shape, int32_t rows, int32_t max_tiles) {
    const int64_t total = (int64_t)rows * max_tiles;
    const int32_t group = mlar_heads_per_group(shape, rows, total);
    const int32_t workers = mlar_balanced_workers(shape, group, total);
    const int32_t share = mlar_share_now(shape, rows, total, workers, max_tiles);
    return mlar_granule_now(shape, rows, share, max_tiles, max_tiles > share ? (int32_t)total : 0);
}

void mlar_gpu_cluster_traits(const char *arch, mlar_shape *shape, int32_t max_tiles) {
    const gpu_arch *known = arch_of(arch);
    const int32_t tiles = mlar_ceil_div(max_tiles, CLUSTER_BLOCKS), blocks = mlar_ceil_div(max_tiles, tiles);
    const int32_t groups = mlar_head_groups(shape, shape->heads_per_group_min);
    mlar_shape clusters = *shape;
    shape->cluster_rows = shape->cluster_blocks = 0;
    if (known == NULL || !may_merge(known, shape) || tiles == max_tiles) return;
    clusters.cluster_blocks = blocks;
    clusters.cluster_rows = mlar_min_i32(shape->max_rows, clusters_at_once(shape->workers, blocks) / groups);
    for (int32_t rows = 1; rows <= clusters.cluster_rows; rows++)
        if (tiles_taken(&clusters, rows, max_tiles) >
            tiles_taken(shape, rows, max_tiles) + CLUSTER_TILES_MORE)
            clusters.cluster_rows = rows - 1;
    if (clusters.cluster_rows == 0) return;
    shape->cluster_rows = clusters.cluster_rows;
    shape->cluster_blocks = blocks;
}

/* Head groups of a row: the more the better, if only all run at once. */
static int32_t cluster_groups(const mlar_shape *shape, int32_t rows) {
    int32_t heads = CLUSTER_HEADS;
    while (heads < shape->heads_per_group_min &&
           rows * mlar_head_groups(shape, heads) > clusters_at_once(shape->workers, shape->cluster_blocks))
        heads *= 2;
    return mlar_head_groups(shape, mlar_min_i32(heads, shape->heads_per_group_min));
}

/* ---- attention ---- */

typedef struct attend_kernel {
    const char *direct, *gathered;
    int32_t heads, columns;
    uint32_t lds_bytes;
    int32_t large;
} attend_kernel;

static const attend_kernel attend_kernels[] = {
#define ROW(name, heads, units, lds_bytes, large)                                                            \
    {"mlar_attend_direct_" #name,                                                                            \
     "mlar_attend_gathered_" #name,                                                                          \
     heads,                                                                                                  \
     (units)*MLAR_UNIT_COLUMNS,                                                                              \
     lds_bytes,                                                                                              \
     large},
#define X(name, heads, units, lds_bytes)     ROW(name, heads, units, lds_bytes, 0)
#define LARGE(name, heads, units, lds_bytes) ROW(name, heads, units, lds_bytes, 1)
#include "kernels/gpu/attend_kernels.def"
};

/* The smallest kernel that takes the largest group at once, or else the largest there is (which takes it in
 * turns). */
static const attend_kernel *attend_kernel_of(const gpu_arch *arch, const mlar_shape *shape) {
    const attend_kernel *chosen = NULL;
    for (size_t i = 0; i < sizeof attend_kernels / sizeof *attend_kernels; i++) {
        const attend_kernel *kernel = &attend_kernels[i];
        const int32_t narrow = shape->d_qk <= MLAR_UNITS_NARROW * MLAR_UNIT_COLUMNS;
        if (narrow != (kernel->columns == MLAR_UNITS_NARROW * MLAR_UNIT_COLUMNS)) continue;
        if (kernel->large && arch->largest_group < 64) continue;
        if (chosen == NULL || kernel->heads >= shape->heads_per_group_max) chosen = kernel;
    }
    return chosen;
}

/* ---- grids ---- */

/* The small kernels get no more blocks than compute units hold at once; more would wait, and each takes items in
 * turns. */
enum { COMBINE_HEADS_PER_BLOCK = 2 };

static uint32_t at_most(int64_t wanted, int64_t limit) {
    const int64_t blocks = wanted < limit ? wanted : limit;
    return blocks > 1 ? (uint32_t)blocks : 1;
}

/* ---- stages ---- */

/* The kernels that every architecture has under one name. */
static const struct small_kernel {
    const char *unit, *kernel;
    uint32_t threads;
} small_kernels[] = {
    [MLAR_STAGE_SET_BLOCK] = {"set_block", "mlar_set_block", 64},
    [MLAR_STAGE_PREPARE] = {"prepare", "mlar_prepare", MLAR_BLOCK_THREADS},
    [MLAR_STAGE_GATHER] = {"gather", "mlar_gather", MLAR_GATHER_THREADS},
    [MLAR_STAGE_COMBINE] = {"combine", "mlar_combine", MLAR_BLOCK_THREADS},
};
#define SMALL_KERNELS  ((int32_t)(sizeof small_kernels / sizeof *small_kernels))
#define ATTEND_KERNELS ((int32_t)(sizeof attend_kernels / sizeof *attend_kernels))

static int32_t small_launch(int32_t stage, uint32_t blocks, mlar_gpu_launch *launch) {
    launch->unit = small_kernels[stage].unit;
    launch->kernel = small_kernels[stage].kernel;
    launch->grid_blocks = blocks;
    launch->block_threads = small_kernels[stage].threads;
    launch->overlaps = stage == MLAR_STAGE_COMBINE;
    launch->dynamic_lds_bytes = 0;
    launch->cluster_blocks = 1;
    return 1;
}

static int32_t attend_launch(const gpu_arch *arch, const attend_kernel *attend, int32_t direct,
                             uint32_t blocks, mlar_gpu_launch *launch) {
    launch->unit = "attend_block";
    launch->kernel = direct ? attend->direct : attend->gathered;
    launch->grid_blocks = blocks;
    launch->block_threads = MLAR_BLOCK_THREADS;
    launch->overlaps = 0;
    launch->dynamic_lds_bytes = arch->nvidia ? attend->lds_bytes : 0;
    launch->cluster_blocks = 1;
    return 1;
}

/* ---- tuned engines ---- */

static int32_t tuned_serves(const tuned_engine *tuned, int32_t stage, const mlar_shape *shape,
                            const mlar_layer_params *layer) {
    if (tuned->stage != stage || tuned->d_qk != shape->d_qk || shape->d_v != 512) return 0;
    if (tuned->nope != ANY && tuned->nope != shape->nope) return 0;
    for (int32_t s = 0; stage == MLAR_STAGE_ATTEND_DIRECT && s < layer->scope_count; s++)
        if (layer->scope[s].layout != tuned->layout || !layer->scope[s].wide) return 0;
    return 1;
}

/* The one that serves the stage of this layer, or null. */
static const tuned_engine *tuned_for(const gpu_arch *arch, int32_t stage, const mlar_shape *shape,
                                     const mlar_layer_params *layer) {
    for (const tuned_engine *tuned = arch->tuned; tuned && layer && tuned->unit; tuned++)
        if (tuned_serves(tuned, stage, shape, layer)) return tuned;
    return NULL;
}

static int32_t tuned_launch(const tuned_engine *tuned, uint32_t blocks, mlar_gpu_launch *launch) {
    launch->unit = tuned->unit;
    launch->kernel = tuned->kernel;
    launch->grid_blocks = blocks;
    launch->block_threads = tuned->threads;
    launch->overlaps = tuned->stage == MLAR_STAGE_ATTEND_GATHERED; /* it waits for gather: sm90_plain.h */
    launch->dynamic_lds_bytes = tuned->lds_bytes;
    launch->cluster_blocks = 1;
    return 1;
}

/* The one whose clusters serve the launch, or null. */
static const tuned_engine *merging(const gpu_arch *arch, int32_t stage, const mlar_stage_args *args,
                                   const mlar_layer_params *layer) {
    const tuned_engine *tuned = tuned_for(arch, stage, &args->shape, layer);
    const int32_t is_small = args->shape.splits == 0 && mlar_cluster_parts(&args->shape, args->row_count) > 0;
    return tuned && tuned->merged && is_small ? tuned : NULL;
}

static int32_t merged_launch(const tuned_engine *tuned, int32_t clusters, int32_t blocks,
                             mlar_gpu_launch *launch) {
    (void)tuned_launch(tuned, (uint32_t)(clusters * blocks), launch);
    launch->kernel = tuned->merged;
    launch->cluster_blocks = (uint32_t)blocks;
    return 1;
}

int32_t mlar_gpu_merges(const char *arch, int32_t stage, const mlar_stage_args *args,
                        const mlar_layer_params *layer) {
    const gpu_arch *known = arch_of(arch);
    return known && merging(known, stage, args, layer);
}

int32_t mlar_gpu_launch_of(const char *arch, int32_t stage, const mlar_stage_args *args,
                           const mlar_layer_params *layer, mlar_gpu_launch *launch) {
    const gpu_arch *known = arch_of(arch);
    const tuned_engine *tuned;
    if (known == NULL) return 0;
    switch (stage) {
    case MLAR_STAGE_SET_BLOCK:
    case MLAR_STAGE_PREPARE:
        return small_launch(stage, 1, launch);
    case MLAR_STAGE_GATHER:
        return small_launch(stage,
                            at_most((int64_t)args->row_count * (2 * 65536 / MLAR_KEY_TILE),
                                    (int64_t)args->shape.workers * MLAR_GATHER_BLOCKS),
                            launch);
    case MLAR_STAGE_ATTEND_GATHERED:
    case MLAR_STAGE_ATTEND_DIRECT:
        tuned = merging(known, stage, args, layer);
        if (tuned)
            return merged_launch(tuned, args->row_count * cluster_groups(&args->shape, args->row_count),
                                 args->shape.cluster_blocks, launch);
        tuned = tuned_for(known, stage, &args->shape, layer);
        if (tuned)
            return tuned_launch(tuned,
                                at_most(mlar_attend_grid(&args->shape, args->row_count),
                                        tuned->block_for_each_unit ? INT32_MAX : args->shape.workers),
                                launch);
        return attend_launch(known, attend_kernel_of(known, &args->shape), stage == MLAR_STAGE_ATTEND_DIRECT,
                             at_most(mlar_attend_grid(&args->shape, args->row_count), args->shape.workers),
                             launch);
    case MLAR_STAGE_COMBINE:
        return small_launch(
            stage,
            at_most(((int64_t)args->row_count * args->shape.heads + COMBINE_HEADS_PER_BLOCK - 1) /
                        COMBINE_HEADS_PER_BLOCK,
                    (int64_t)args->shape.workers * MLAR_COMBINE_BLOCKS),
            launch);
    default:
        return 0;
    }
}

int32_t mlar_gpu_kernel_at(const char *arch, int32_t index, mlar_gpu_launch *kernel) {
    const gpu_arch *known = arch_of(arch);
    if (known == NULL) return 0;
    for (int32_t stage = 0; stage < SMALL_KERNELS; stage++)
        if (small_kernels[stage].kernel != NULL && index-- == 0) return small_launch(stage, 1, kernel);
    for (int32_t i = 0; i < ATTEND_KERNELS; i++) {
        if (attend_kernels[i].large && known->largest_group < 64) continue;
        for (int32_t direct = 0; direct < 2; direct++)
            if (index-- == 0) return attend_launch(known, &attend_kernels[i], direct, 1, kernel);
    }
    for (const tuned_engine *tuned = known->tuned; tuned && tuned->unit; tuned++) {
        if (index-- == 0) return tuned_launch(tuned, 1, kernel);
        if (tuned->merged && index-- == 0) return merged_launch(tuned, 1, CLUSTER_BLOCKS, kernel);
    }
    return 0;
}
