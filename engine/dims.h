/* SPDX-License-Identifier: Apache-2.0
 *
 * dims.h: a configuration, validated and resolved: every size that the rest of the engine works with.
 *
 * dims are a pure function of the configuration (engine/dims.c); nothing after it looks at budgets, policies
 * or presets again. This file knows no memory and no back end beyond the traits that sizes depend on. */
#ifndef MLAR_ENGINE_DIMS_H
#define MLAR_ENGINE_DIMS_H

#include <mlarena/mlarena.h>

#include "kernels/params.h"

/* Positions of the sequence, which are also the stages of the plan: kind k has [k * COUNT, (k + 1) * COUNT).
 */
enum mlar_position {
    MLAR_AT_PREPARE = 0,
    MLAR_AT_GATHER = 1,
    MLAR_AT_ATTEND = 2,
    MLAR_AT_COMBINE = 3,
    MLAR_POSITION_COUNT = 4
};

/* What a back end says about itself before it exists: pure, from the device profile. */
typedef struct mlar_traits {
    int32_t heads_per_group_min;
    int32_t heads_per_group_max;
    int32_t merged_elements_per_tile; /* what splitting a row costs: params.h */
    uint64_t thread_scratch_bytes;    /* CPU: scratch of one worker; 0 elsewhere */
    int32_t threads;                  /* CPU: workers; 0 elsewhere */
} mlar_traits;

/* One layer kind, resolved. */
typedef struct mlar_kind_dims {
    mlar_shape shape; /* what kernels see: heads, head dims, workers, slots, row tile ... */
    int32_t scope_count;
    int32_t width[MLAR_SCOPES];
    int32_t layout[MLAR_SCOPES];
    int32_t fp8[MLAR_SCOPES];
    int32_t max_tiles; /* key tiles of the longest row */
    int32_t row_tiles; /* rounds of the sequence at max_rows */
} mlar_kind_dims;

typedef struct mlar_dims {
    mlar_config config; /* normalised copy */
    int32_t strategy;   /* gather or direct */
    int32_t balanced;
    mlar_traits traits;
    uint64_t minimum_budget_bytes;
    mlar_kind_dims kind[MLAR_KINDS_MAX];
} mlar_dims;

/* Layer blocks beyond config.max_layers that the self-test captures for itself. */
#define MLAR_SELFTEST_LAYERS 1 /* each in a program of its own */

/* Validated config -> dims. MLAR_ERROR_STRUCT_SIZE, _CONFIG, _UNSUPPORTED, _OVERFLOW, _BUDGET. */
mlar_status mlar_dims_resolve(const mlar_config *config, mlar_dims *dims, mlar_diag *diag);

/* Programs, and layers over all programs, that the host and the self-test can have open. */
static inline int32_t mlar_program_slots(const mlar_dims *dims) {
    return dims->config.max_programs + (dims->config.selftest ? MLAR_SELFTEST_LAYERS : 0);
}
static inline int32_t mlar_layer_slots(const mlar_dims *dims) {
    return dims->config.max_layers + (dims->config.selftest ? MLAR_SELFTEST_LAYERS : 0);
}

#endif
