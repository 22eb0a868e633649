/* SPDX-License-Identifier: Apache-2.0
 *
 * sequence.h: issues the stages of one layer. The same code runs eagerly, under capture and in a host's
 * stream: only where the bindings and the live row count travel differs. */
#ifndef MLAR_ENGINE_SEQUENCE_H
#define MLAR_ENGINE_SEQUENCE_H

#include "engine/engine.h"

/* Where a launch finds its bindings and its live rows. */
typedef struct mlar_carriers {
    const mlar_layer_params *layer;       /* the host's copy: travels by value unless ... */
    const mlar_layer_params *layer_block; /* ... it stands in the arena */
    const mlar_step_params *step;         /* by value, or null: the arena's step block */
} mlar_carriers;

/* gather, attend, combine, row tile by row tile, for up to capacity_rows rows. */
mlar_status mlar_sequence_issue(mlar_engine *engine, int32_t kind, const mlar_carriers *carriers,
                                int32_t capacity_rows, void *stream, mlar_diag *diag);

/* prepare, for every row tile of max_rows. */
mlar_status mlar_sequence_prepare(mlar_engine *engine, int32_t kind, const mlar_carriers *carriers,
                                  void *stream, mlar_diag *diag);

/* Write `bytes` of the host's to the arena in stream order: one set_block. */
mlar_status mlar_sequence_set_block(mlar_engine *engine, void *to, const void *from, uint64_t bytes,
                                    void *stream, mlar_diag *diag);

/* Launches that mlar_sequence_issue makes for one layer. */
int32_t mlar_sequence_nodes(const mlar_dims *dims, int32_t kind, int32_t capacity_rows);

#endif
