/* SPDX-License-Identifier: Apache-2.0
 *
 * modules.c: loads the images of one architecture and finds the kernels in them. */
#include "engine/gpu/modules.h"

#include "arena/fail.h"
#include "kernels/gpu/images.h"

#include <stdio.h>
#include <string.h>

/* CUfunction_attribute MAX_DYNAMIC_SHARED_SIZE_BYTES: above 48 KB it has to be asked for. */
#define CUDA_FUNCTION_DYNAMIC_LDS 8

/* An image for "sm_90a" serves an "sm_90" device: "a" marks instructions of that very generation. */
static int serves(const char *target, const char *arch) {
    size_t length = strlen(arch);
    return strncmp(target, arch, length) == 0 && (target[length] == 0 || strcmp(target + length, "a") == 0);
}

static void *module_of(const mlar_modules *modules, const char *unit) {
    for (int32_t i = 0; i < modules->module_count; i++)
        if (strcmp(modules->module[i].unit, unit) == 0) return modules->module[i].handle;
    return NULL;
}

static mlar_status resolve(mlar_modules *modules, mlar_runtime *runtime, const mlar_gpu_launch *kernel,
                           mlar_diag *diag) {
    void *module = module_of(modules, kernel->unit), *function = NULL;
    if (module == NULL || modules->function_count == MLAR_FUNCTIONS_MAX)
        return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, kernel->unit, 0, 0,
                         "%s: no image for %s in this build", kernel->unit, modules->arch);
    if (kernel->cluster_blocks > 1 && runtime->launch_extended == NULL)
        return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, kernel->kernel, 0, 0,
                         "%s: this driver cannot launch clusters", kernel->kernel);
    int error = runtime->module_function(&function, module, kernel->kernel);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, kernel->kernel, diag);
    if (runtime->function_set != NULL && kernel->dynamic_lds_bytes > 48u * 1024) {
        error = runtime->function_set(function, CUDA_FUNCTION_DYNAMIC_LDS, (int)kernel->dynamic_lds_bytes);
        if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "cuFuncSetAttribute", diag);
    }
    modules->function[modules->function_count].kernel = kernel->kernel;
    modules->function[modules->function_count++].handle = function;
    return MLAR_OK;
}

static mlar_status load_images(mlar_modules *modules, mlar_runtime *runtime, mlar_diag *diag) {
    for (const mlar_gpu_image *image = mlar_gpu_images; image->unit != NULL; image++) {
        if (!serves(image->target, modules->arch) || modules->module_count == MLAR_MODULES_MAX) continue;
        void *handle = NULL;
        int error = runtime->module_load(&handle, image->data);
        if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, image->unit, diag);
        modules->module[modules->module_count].unit = image->unit;
        modules->module[modules->module_count++].handle = handle;
    }
    if (modules->module_count > 0) return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "device.arch", 0, 0,
                     "device.arch: this build carries no kernels for %s", modules->arch);
}

mlar_status mlar_modules_load(mlar_modules *modules, mlar_runtime *runtime, const char *arch,
                              mlar_diag *diag) {
    memset(modules, 0, sizeof *modules);
    snprintf(modules->arch, sizeof modules->arch, "%s", arch);
    mlar_status status = load_images(modules, runtime, diag);
    mlar_gpu_launch kernel;
    for (int32_t i = 0; status == MLAR_OK && mlar_gpu_kernel_at(arch, i, &kernel); i++)
        status = resolve(modules, runtime, &kernel, diag);
    if (status != MLAR_OK) (void)mlar_modules_unload(modules, runtime);
    return status;
}

mlar_status mlar_modules_unload(mlar_modules *modules, mlar_runtime *runtime) {
    int error = MLAR_GPU_SUCCESS;
    for (int32_t i = 0; i < modules->module_count; i++) {
        int now = runtime->module_unload(modules->module[i].handle);
        if (error == MLAR_GPU_SUCCESS) error = now;
    }
    modules->module_count = modules->function_count = 0;
    return mlar_runtime_status(runtime, error, "hipModuleUnload", NULL);
}

mlar_status mlar_modules_call(const mlar_modules *modules, int32_t stage, const mlar_stage_args *args,
                              const mlar_layer_params *layer, mlar_kernel_call *call, mlar_diag *diag) {
    mlar_gpu_launch launch;
    if (mlar_gpu_launch_of(modules->arch, stage, args, layer, &launch))
        for (int32_t i = 0; i < modules->function_count; i++)
            if (modules->function[i].kernel == launch.kernel) {
                *call = (mlar_kernel_call){.function = modules->function[i].handle,
                                           .grid = launch.grid_blocks,
                                           .block = launch.block_threads,
                                           .lds_bytes = launch.dynamic_lds_bytes,
                                           .cluster = launch.cluster_blocks,
                                           .overlaps = launch.overlaps};
                return MLAR_OK;
            }
    return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "stage", stage, 0, "stage %d: no kernel for %s",
                     (int)stage, modules->arch);
}
