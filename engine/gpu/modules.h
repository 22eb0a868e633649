/* SPDX-License-Identifier: Apache-2.0
 *
 * modules.h: the embedded kernels of one device, loaded once, and which of them a launch needs. */
#ifndef MLAR_ENGINE_GPU_MODULES_H
#define MLAR_ENGINE_GPU_MODULES_H

#include "engine/gpu/runtime.h"
#include "kernels/gpu/launch.h"
#include "kernels/params.h"

enum { MLAR_MODULES_MAX = 16, MLAR_FUNCTIONS_MAX = 48 };

typedef struct mlar_modules {
    char arch[24]; /* as the device names it */
    int32_t module_count, function_count;
    struct {
        const char *unit;
        void *handle;
    } module[MLAR_MODULES_MAX];
    struct {
        const char *kernel; /* launch.c's own string: compared by address */
        void *handle;
    } function[MLAR_FUNCTIONS_MAX];
} mlar_modules;

/* A kernel with its grid: everything a launch needs but its arguments. */
typedef struct mlar_kernel_call {
    void *function;
    uint32_t grid, block, lds_bytes, cluster; /* launch.h */
    int32_t overlaps;                         /* launch.h */
} mlar_kernel_call;

/* Loads every image for `arch` and resolves every kernel in it: nothing is looked up later.
 * MLAR_ERROR_UNSUPPORTED: this build carries none; MLAR_ERROR_DEVICE. */
mlar_status mlar_modules_load(mlar_modules *modules, mlar_runtime *runtime, const char *arch,
                              mlar_diag *diag);
/* All of them, whatever the runtime says; its first error is returned. */
mlar_status mlar_modules_unload(mlar_modules *modules, mlar_runtime *runtime);

/* MLAR_ERROR_UNSUPPORTED if no kernel serves the stage. `layer` is the host's copy of what args refer to. */
mlar_status mlar_modules_call(const mlar_modules *modules, int32_t stage, const mlar_stage_args *args,
                              const mlar_layer_params *layer, mlar_kernel_call *call, mlar_diag *diag);

#endif
