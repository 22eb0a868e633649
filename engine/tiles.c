/* SPDX-License-Identifier: Apache-2.0
 *
 * tiles.c: the choice of row tiles and splits under a budget.
 *
 * A kind's scratch is a non-increasing function of its number of row tiles n, and for a given n of the cut
 * granule g (rows are cut at multiples of g key tiles, or of more; a granule as long as the longest row means no
 * splits and no workspace). Kinds share their scratch bytes, but each keeps its own schedule, which grows a little
 * with n. So, with a cap S on scratch, every kind takes the smallest n that fits S, and the whole arena needs
 *
 *     total(S) = fixed + schedules(n(S)) + largest scratch(n(S)).
 *
 * F(S) = budget - fixed - schedules(n(S)) never decreases in S nor in the budget, hence its greatest fixed
 * point, reached by iterating from the top, gives the largest tiles that the budget allows, and a larger
 * budget never gives a smaller tile. The smallest total(S) over all S that some kind's scratch can take is
 * the minimum budget. */
#include "engine/tiles.h"

#include "arena/fail.h"
#include "engine/buffers.h"
#include "engine/stages.h"
#include "kernels/schedule.h"

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Workspace slots that a row tile can need when rows are cut at multiples of `granule` tiles. */
static int64_t slots_needed(const mlar_kind_dims *kind, int32_t row_tile, int32_t granule) {
    if (kind->shape.splits > 0) return kind->shape.splits > 1 ? (int64_t)row_tile * kind->shape.splits : 0;
    return mlar_balanced_slot_bound(kind->shape.workers, granule, row_tile, kind->max_tiles);
}

/* SPEC section 8's ceiling for policy balanced, which counts tiles as if scopes could share one. */
static int64_t slots_allowed(const mlar_kind_dims *kind, int32_t row_tile) {
    int64_t keys = 0, units = kind->shape.workers;
    for (int s = 0; s < kind->scope_count; s++) keys += kind->width[s];
    return least(row_tile * ((keys + MLAR_KEY_TILE - 1) / MLAR_KEY_TILE), units + least(row_tile, units));
}

static void set_tiles(mlar_kind_dims *kind, int32_t row_tiles, int32_t granule) {
    int32_t max_rows = kind->shape.max_rows;
    kind->shape.row_tile = mlar_ceil_div(max_rows, row_tiles);
    kind->row_tiles = mlar_ceil_div(max_rows, kind->shape.row_tile);
    kind->shape.cut_granule = granule;
    kind->shape.slot_limit = (int32_t)slots_needed(kind, kind->shape.row_tile, granule);
}

static int32_t coarsest(const mlar_kind_dims *kind) {
    return kind->shape.splits > 0 ? 1 : kind->max_tiles;
}

/* Most row tiles: what the node limit allows; direct + balanced shrinks its splits instead and needs one. */
static int32_t most_row_tiles(const mlar_dims *dims, mlar_kind_dims *kind) {
    if (dims->strategy == MLAR_STRATEGY_DIRECT && dims->balanced) return 1;
    set_tiles(kind, 1, 1);
    int32_t tiles = dims->config.max_nodes / mlar_stages_per_tile(dims, kind);
    return tiles < kind->shape.max_rows ? tiles : kind->shape.max_rows;
}

static uint64_t scratch_at(const mlar_dims *dims, mlar_kind_dims *kind, int32_t row_tiles, int32_t granule,
                           mlar_checked *check) {
    set_tiles(kind, row_tiles, granule);
    return mlar_scratch_bytes(dims, kind, check);
}

/* Smallest number of row tiles at which the kind's least scratch fits the cap; 0 if none does. */
static int32_t row_tiles_under(const mlar_dims *dims, mlar_kind_dims *kind, uint64_t cap,
                               mlar_checked *check) {
    int32_t low = 1, high = most_row_tiles(dims, kind), granule = coarsest(kind);
    if (scratch_at(dims, kind, high, granule, check) > cap) return 0;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (scratch_at(dims, kind, middle, granule, check) <= cap)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Finest granule whose scratch fits the cap at this number of row tiles (the coarsest is known to fit). */
static void refine_splits(const mlar_dims *dims, mlar_kind_dims *kind, int32_t row_tiles, uint64_t cap,
                          mlar_checked *check) {
    if (kind->shape.splits > 0) {
        set_tiles(kind, row_tiles, 1);
        return;
    }
    for (int32_t granule = 1; granule < kind->max_tiles; granule *= 2) {
        uint64_t bytes = scratch_at(dims, kind, row_tiles, granule, check);
        if (bytes <= cap && kind->shape.slot_limit <= slots_allowed(kind, kind->shape.row_tile)) return;
    }
    set_tiles(kind, row_tiles, kind->max_tiles);
}

/* Applies a cap to every kind. Returns 0 if some kind cannot meet it; else sets *persistent and *scratch. */
static int apply_cap(mlar_dims *dims, uint64_t cap, int refine, uint64_t *persistent, uint64_t *scratch,
                     mlar_checked *check) {
    *scratch = 0;
    for (int32_t k = 0; k < dims->config.kind_count; k++) {
        mlar_kind_dims *kind = &dims->kind[k];
        int32_t row_tiles = row_tiles_under(dims, kind, cap, check);
        if (row_tiles == 0) return 0;
        if (refine)
            refine_splits(dims, kind, row_tiles, cap, check);
        else
            set_tiles(kind, row_tiles, coarsest(kind));
        uint64_t bytes = mlar_scratch_bytes(dims, kind, check);
        if (bytes > *scratch) *scratch = bytes;
    }
    *persistent = mlar_persistent_bytes(dims, check);
    return 1;
}

/* The least total over every cap worth trying: the scratch sizes that some kind can have. */
static uint64_t minimum_budget(mlar_dims *dims, mlar_checked *check) {
    uint64_t minimum = UINT64_MAX, persistent, scratch;
    for (int32_t k = 0; k < dims->config.kind_count; k++) {
        int32_t most = most_row_tiles(dims, &dims->kind[k]);
        for (int32_t n = 1, last_tile = 0; n <= most; n++) {
            uint64_t cap = scratch_at(dims, &dims->kind[k], n, coarsest(&dims->kind[k]), check);
            if (dims->kind[k].shape.row_tile == last_tile) continue; /* the same rounds as the n before */
            last_tile = dims->kind[k].shape.row_tile;
            if (!apply_cap(dims, cap, 0, &persistent, &scratch, check)) break; /* smaller caps fail as well */
            uint64_t total = mlar_checked_add(check, persistent, scratch);
            if (total < minimum) minimum = total;
        }
    }
    return minimum;
}

mlar_status mlar_tiles_choose(mlar_dims *dims, mlar_diag *diag) {
    mlar_checked check = {0};
    dims->minimum_budget_bytes = minimum_budget(dims, &check);
    if (check.failed || dims->minimum_budget_bytes > MLAR_SIZE_LIMIT)
        return mlar_fail(diag, MLAR_ERROR_OVERFLOW, "device_bytes", 0, 0,
                         "device_bytes: this configuration's arena does not fit in 63 bits");
    uint64_t budget = dims->config.budget_bytes;
    if (budget != 0 && budget < dims->minimum_budget_bytes)
        return mlar_fail(
            diag, MLAR_ERROR_BUDGET, "budget_bytes", mlar_size_for_diag(budget),
            mlar_size_for_diag(dims->minimum_budget_bytes),
            "budget_bytes: %llu given, this configuration needs at least %llu (max_rows %d in at most "
            "%d kernels)",
            (unsigned long long)budget, (unsigned long long)dims->minimum_budget_bytes,
            (int)dims->config.max_rows, (int)dims->config.max_nodes);
    uint64_t cap = budget == 0 ? UINT64_MAX : budget, persistent, scratch;
    for (;;) {
        if (!apply_cap(dims, cap, 1, &persistent, &scratch, &check) || check.failed)
            return mlar_fail(diag, MLAR_ERROR_PLAN, "budget_bytes", mlar_size_for_diag(budget), 0,
                             "budget_bytes: no row tile fits although the minimum says so");
        if (budget == 0 || persistent + scratch <= budget) return MLAR_OK;
        cap = persistent < budget ? budget - persistent : 0;
    }
}
