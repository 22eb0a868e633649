/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.h: configuration -> everything an engine's memory consists of. mlar_memory_query and
 * mlar_engine_init both call mlar_layout_make and nothing else, so what was promised is what is used. */
#ifndef MLAR_ENGINE_MEMORY_H
#define MLAR_ENGINE_MEMORY_H

#include "arena/plan.h"
#include "engine/buffers.h"
#include "engine/dims.h"

/* Index into the plan of each buffer, -1 where the configuration needs none of it. */
typedef struct mlar_layout {
    mlar_dims dims;
    mlar_plan plan;
    int32_t index[MLAR_BUFFER_COUNT][MLAR_KINDS_MAX]; /* engine-wide buffers: the same in every column */
    uint64_t host_bytes;
    uint64_t fingerprint;
} mlar_layout;

mlar_status mlar_layout_make(const mlar_config *config, mlar_layout *layout, mlar_diag *diag);

#endif
