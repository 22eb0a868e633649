/* SPDX-License-Identifier: Apache-2.0
 *
 * stages.h: the fixed sequence as data. A stage has a name, its place, the buffers it reads and writes, and a
 * condition under which a kind's sequence has it; lifetimes (memory.c), launches (sequence.c) and sanitizer
 * shadows (the CPU back end) all follow from this one table. */
#ifndef MLAR_ENGINE_STAGES_H
#define MLAR_ENGINE_STAGES_H

#include "engine/dims.h"

typedef struct mlar_stage {
    const char *name;
    enum mlar_stage_id id;  /* which kernel */
    enum mlar_position at;  /* where in the sequence */
    uint32_t reads, writes; /* bit masks of enum mlar_buffer_id */
    int (*when)(const mlar_dims *dims, const mlar_kind_dims *kind);
} mlar_stage;

extern const mlar_stage mlar_stages[];
extern const int32_t mlar_stage_count;

/* "prepare", "gather", "attend", "combine" */
const char *mlar_position_name(enum mlar_position at);

/* Kernels that one layer of this kind takes for one row tile (prepare is launched once a step, not here). */
int32_t mlar_stages_per_tile(const mlar_dims *dims, const mlar_kind_dims *kind);

#endif
