/* SPDX-License-Identifier: Apache-2.0
 *
 * traits.c: per device kind, what the kernels can be asked for. */
#include "engine/traits.h"

#include "arena/fail.h"
#include "kernels/cpu/kernels.h"
#include "kernels/gpu/launch.h"

#include <string.h>

static void cpu_traits(const mlar_config *config, mlar_traits *traits) {
    /* A worker converts each key once and serves every head with it. */
    mlar_shape shape = {
        .heads = config->heads, .d_qk = config->nope + config->rope, .d_v = config->nope + config->rope};
    traits->heads_per_group_min = traits->heads_per_group_max = config->heads;
    traits->threads = config->threads;
    traits->thread_scratch_bytes = mlar_cpu_scratch_bytes(&shape);
}

mlar_status mlar_traits_of(const mlar_config *config, mlar_traits *traits, mlar_diag *diag) {
    *traits = (mlar_traits){0};
    if (config->device.device == MLAR_DEVICE_CPU) {
        cpu_traits(config, traits);
        return MLAR_OK;
    }
    const int is_nvidia = strncmp(config->device.arch, "sm_", 3) == 0;
    if (is_nvidia == (config->device.device == MLAR_DEVICE_CUDA) &&
        mlar_gpu_traits(config->device.arch, config->heads, &traits->heads_per_group_min,
                        &traits->heads_per_group_max)) {
        if (config->strategy != MLAR_STRATEGY_GATHER)
            traits->merged_elements_per_tile =
                mlar_gpu_merged_elements_per_tile(config->device.arch, config->nope, config->rope);
        return MLAR_OK;
    }
    return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "device.arch", 0, 0,
                     "device.arch: no kernels for '%s' (HIP: gfx90a, gfx942, gfx950, gfx1100; CUDA: sm_90)",
                     config->device.arch);
}

void mlar_traits_clusters(const mlar_config *config, mlar_shape *shape, int32_t max_tiles) {
    if (config->device.device != MLAR_DEVICE_CPU && config->policy == MLAR_POLICY_BALANCED)
        mlar_gpu_cluster_traits(config->device.arch, shape, max_tiles);
}

int32_t mlar_traits_merges(const mlar_config *config, int32_t stage, const mlar_stage_args *args,
                           const mlar_layer_params *layer) {
    if (config->device.device == MLAR_DEVICE_CPU) return 0;
    return mlar_gpu_merges(config->device.arch, stage, args, layer);
}
