/* SPDX-License-Identifier: Apache-2.0
 *
 * dims.c: configuration -> dimensions, all but the choice of row tiles and splits, which tiles.c makes. */
#include "engine/dims.h"

#include "arena/fail.h"
#include "engine/structs.h"
#include "engine/tiles.h"
#include "engine/traits.h"
#include "kernels/schedule.h"

/* Enough parts for every unit to get work when the batch is full, no more than a row has tiles. */
static int32_t default_splits(const mlar_config *config, int32_t max_tiles, int32_t workers) {
    return mlar_min_i32(mlar_ceil_div(workers, config->max_rows), mlar_min_i32(max_tiles, 64));
}

static void resolve_kind(const mlar_dims *dims, int32_t index, mlar_kind_dims *kind) {
    const mlar_config *config = &dims->config;
    const mlar_kind_config *from = &config->kinds[index];
    int32_t tiles = 0;
    kind->scope_count = from->scope_count;
    for (int s = 0; s < from->scope_count; s++) {
        kind->width[s] = from->scope[s].width;
        kind->layout[s] = from->scope[s].layout;
        kind->fp8[s] = from->scope[s].fp8;
        tiles += mlar_ceil_div(kind->width[s], MLAR_KEY_TILE);
    }
    kind->max_tiles = tiles > 0 ? tiles : 1;
    int32_t groups = mlar_ceil_div(config->heads, dims->traits.heads_per_group_max);
    kind->shape = (mlar_shape){
        .heads = config->heads,
        .d_qk = config->nope + config->rope,
        .d_v = from->scope[0].layout == MLAR_LAYOUT_V32 ? config->nope : config->nope + config->rope,
        .nope = config->nope,
        .rope = config->rope,
        .workers = config->device.compute_units,
        .cut_granule = 1,
        .heads_per_group_min = dims->traits.heads_per_group_min,
        .heads_per_group_max = dims->traits.heads_per_group_max,
        .row_tile = config->max_rows,
        .max_rows = config->max_rows,
        .merged_elements_per_tile = dims->traits.merged_elements_per_tile,
    };
    if (!dims->balanced)
        kind->shape.splits = config->splits > 0 ? config->splits
                                                : default_splits(config, kind->max_tiles,
                                                                 mlar_ceil_div(kind->shape.workers, groups));
    mlar_traits_clusters(config, &kind->shape, kind->max_tiles);
    kind->row_tiles = 1;
}

mlar_status mlar_dims_resolve(const mlar_config *config, mlar_dims *dims, mlar_diag *diag) {
    mlar_status status = mlar_config_validate(config, diag);
    if (status != MLAR_OK) return status;
    memset(dims, 0, sizeof *dims);
    (void)MLAR_STRUCT_READ(&dims->config, config);
    dims->strategy =
        dims->config.strategy == MLAR_STRATEGY_GATHER ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT;
    dims->balanced = dims->config.policy == MLAR_POLICY_BALANCED;
    if ((status = mlar_traits_of(&dims->config, &dims->traits, diag)) != MLAR_OK) return status;
    for (int32_t k = 0; k < dims->config.kind_count; k++) resolve_kind(dims, k, &dims->kind[k]);
    return mlar_tiles_choose(dims, diag);
}
