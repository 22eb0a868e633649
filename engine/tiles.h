/* SPDX-License-Identifier: Apache-2.0
 *
 * tiles.h: how many rows a round of the sequence handles and how finely rows are split, under a memory
 * budget. */
#ifndef MLAR_ENGINE_TILES_H
#define MLAR_ENGINE_TILES_H

#include "engine/dims.h"

/* Fills row_tile, row_tiles, cut_granule, slot_limit of every kind and minimum_budget_bytes.
 * MLAR_ERROR_BUDGET (given: the budget, needed: the minimum), MLAR_ERROR_OVERFLOW, MLAR_ERROR_CONFIG
 * (max_nodes). */
mlar_status mlar_tiles_choose(mlar_dims *dims, mlar_diag *diag);

#endif
