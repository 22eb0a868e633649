/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.h: what a pool says about itself, for stats. The arena itself is opened by mlar_arena_from_pool. */
#ifndef MLAR_ENGINE_GPU_POOL_H
#define MLAR_ENGINE_GPU_POOL_H

#include "arena/arena.h"
#include "engine/backend.h"

/* Reads the pool's attributes if the arena came from one; else leaves zeros. The device must be current. */
mlar_status mlar_pool_attributes(const mlar_arena_core *core, mlar_device *device, mlar_backend_stats *stats);

#endif
