/* SPDX-License-Identifier: Apache-2.0
 *
 * launch.h: which kernel a stage is, and with which grid, for one architecture. Host side, plain C, pure: it
 * reads the sizes in the arguments and nothing that they point to.
 *
 * Grids come from the shape and from row_count (which comes from the capacity), never from live rows; a
 * kernel finds out on the device what there is to do. This file knows no runtime: who loads images and
 * launches is engine/gpu's business. */
#ifndef MLAR_KERNELS_GPU_LAUNCH_H
#define MLAR_KERNELS_GPU_LAUNCH_H

#include "kernels/params.h"

typedef struct mlar_gpu_launch {
    const char *unit; /* the image that holds the kernel: images.h */
    const char
        *kernel; /* its name there; its argument is a mlar_stage_args (set_block: mlar_set_block_args) */
    uint32_t grid_blocks; /* one-dimensional */
    uint32_t block_threads;
    /* May begin while the kernel before it still runs, and waits for its end by itself (gpu.h): where the runtime
     * offers that, it spares most of a launch's latency. */
    int32_t overlaps;
    uint32_t dynamic_lds_bytes; /* above 48 KB NVIDIA wants the kernel's limit raised first; 0 on AMD */
    /* That many neighbours run at once and reach each other's shared memory (Hopper's thread-block clusters); the
     * grid is a multiple of it; 1: each by itself. */
    uint32_t cluster_blocks;
} mlar_gpu_launch;

/* `arch` as devices and profiles name it: "gfx942", "gfx90a:sramecc+:xnack-", "sm_90", "sm_90a". Returns 1,
 * or 0 if there is no kernel for it. `layer` is the host's copy of the bindings that args refer to; both may
 * be null for set_block. The strings are launch.c's own: equal names have equal addresses. */
int32_t mlar_gpu_launch_of(const char *arch, int32_t stage, const mlar_stage_args *args,
                           const mlar_layer_params *layer, mlar_gpu_launch *launch);

/* The kernels of an architecture, one by one: unit, name and dynamic LDS. 0 past the last. */
int32_t mlar_gpu_kernel_at(const char *arch, int32_t index, mlar_gpu_launch *kernel);

/* What shape.heads_per_group_min and _max are to be; workers are the device's compute units. 0: no such
 * architecture. */
int32_t mlar_gpu_traits(const char *arch, int32_t heads, int32_t *heads_per_group_min,
                        int32_t *heads_per_group_max);
/* Does the launch of this attention stage merge the parts of its rows by itself, in clusters? Then no combine is to
 * follow it. */
int32_t mlar_gpu_merges(const char *arch, int32_t stage, const mlar_stage_args *args,
                        const mlar_layer_params *layer);

/* shape->cluster_rows and cluster_blocks, by everything else in the shape and the tiles of its longest row. */
void mlar_gpu_cluster_traits(const char *arch, mlar_shape *shape, int32_t max_tiles);
/* What shape.merged_elements_per_tile is to be for the direct strategy, by the models' head dimensions alone; for
 * others 0. */
int32_t mlar_gpu_merged_elements_per_tile(const char *arch, int32_t nope, int32_t rope);

#endif
