/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime.c: finds a device runtime and resolves its functions.
 *
 * The order: the handle that the host gives; a copy that is already mapped in the process, because
 * frameworks carry their own and a second copy would not know their pointers; then the usual names, newest
 * major version first. */
#define _GNU_SOURCE /* RTLD_NOLOAD is POSIX nowhere, and glibc and musl have it */

#include "engine/gpu/runtime.h"

#include "arena/fail.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static const char *const hip_libraries[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5",
                                            "libamdhip64.so", NULL};
static const char *const cuda_libraries[] = {"libcuda.so.1", "libcuda.so", NULL};

/* Illegal address, launch failure, assertion, hardware errors: the context does not recover. 709, a destroyed
 * context, is not among HIP's: it is what HIP says of a stream that it does not know. */
static const int32_t hip_lost[] = {4, 214, 700, 710, 719, 0};
static const int32_t cuda_lost[] = {4, 214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 0};

static const mlar_vendor vendors[] = {{.name = "hip",
                                       .libraries = hip_libraries,
                                       .device = MLAR_DEVICE_HIP,
                                       .required_bit = 1,
                                       .attribute_compute_units = 63,
                                       .attribute_wave = 87,
                                       .attribute_pools = 88,
                                       .lost = hip_lost},
                                      {.name = "cuda",
                                       .libraries = cuda_libraries,
                                       .device = MLAR_DEVICE_CUDA,
                                       .required_bit = 2,
                                       .attribute_compute_units = 16,
                                       .attribute_wave = 10,
                                       .attribute_pools = 115,
                                       .lost = cuda_lost}};

static void *find_library(const mlar_vendor *vendor, void *given, char *found, size_t bytes) {
    if (given != NULL) {
        snprintf(found, bytes, "given by the host");
        return given;
    }
    for (const char *const *name = vendor->libraries; *name != NULL; name++) {
        void *library = dlopen(*name, RTLD_NOW | RTLD_NOLOAD);
        if (library == NULL) continue;
        snprintf(found, bytes, "%s (already in the process)", *name);
        return library;
    }
    for (const char *const *name = vendor->libraries; *name != NULL; name++) {
        void *library = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) continue;
        snprintf(found, bytes, "%s", *name);
        return library;
    }
    return NULL;
}

/* Object and function pointers have one size on every platform this builds for (POSIX asks for it). */
static void resolve(void *library, const char *symbol, void *field) {
    void *address = symbol != NULL ? dlsym(library, symbol) : NULL;
    memcpy(field, &address, sizeof address);
}

static mlar_status resolve_all(mlar_runtime *runtime, mlar_diag *diag) {
    int hip = runtime->vendor->device == MLAR_DEVICE_HIP;
    const char *missing = NULL;
#define X(name, required, arguments, hip_symbol, cuda_symbol)                                                \
    resolve(runtime->library, hip ? hip_symbol : cuda_symbol, &runtime->name);                               \
    if (runtime->name == NULL && ((required)&runtime->vendor->required_bit) != 0)                            \
        missing = hip ? hip_symbol : cuda_symbol;
#include "engine/gpu/runtime.def"
#undef X
    resolve(runtime->library, hip ? "hipGetErrorName" : NULL, &runtime->hip_error_name);
    resolve(runtime->library, hip ? NULL : "cuGetErrorName", &runtime->cuda_error_name);
    if (missing == NULL) return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_NO_DEVICE, missing, 0, 0, "%s (%s) has no %s", runtime->vendor->name,
                     runtime->found, missing);
}

mlar_status mlar_runtime_no_device(const mlar_runtime *runtime, int error, const char *what,
                                   mlar_diag *diag) {
    (void)mlar_fail(diag, MLAR_ERROR_NO_DEVICE, what, error, 0, "%s (%s) found no device: %s (%d)",
                    runtime->vendor->name, runtime->found, mlar_runtime_error_name(runtime, error), error);
    mlar_fail_device_error(diag, error);
    return MLAR_ERROR_NO_DEVICE;
}

mlar_status mlar_runtime_open(int32_t device_kind, void *library, mlar_runtime *runtime, mlar_diag *diag) {
    const mlar_vendor *vendor = NULL;
    for (size_t i = 0; i < sizeof vendors / sizeof *vendors; i++)
        if (vendors[i].device == device_kind) vendor = &vendors[i];
    if (vendor == NULL)
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "device", device_kind, MLAR_DEVICE_CUDA,
                         "device: %d given, must be HIP (1) or CUDA (2)", (int)device_kind);
    *runtime = (mlar_runtime){.vendor = vendor};
    runtime->library = find_library(vendor, library, runtime->found, sizeof runtime->found);
    if (runtime->library == NULL)
        return mlar_fail(diag, MLAR_ERROR_NO_DEVICE, "library", 0, 0,
                         "no runtime library for %s: tried %s to %s", vendor->name, vendor->libraries[0],
                         device_kind == MLAR_DEVICE_HIP ? "libamdhip64.so" : "libcuda.so");
    mlar_status status = resolve_all(runtime, diag);
    if (status != MLAR_OK) return status;
    int error = runtime->init(0);
    if (error == MLAR_GPU_SUCCESS) error = runtime->get_driver_version(&runtime->driver_version);
    runtime->version = runtime->driver_version;
    if (error == MLAR_GPU_SUCCESS && runtime->get_runtime_version != NULL)
        error = runtime->get_runtime_version(&runtime->version);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_no_device(runtime, error, "init", diag);
    return MLAR_OK;
}

const char *mlar_runtime_error_name(const mlar_runtime *runtime, int error) {
    const char *name = NULL;
    if (runtime->hip_error_name != NULL) name = runtime->hip_error_name(error);
    if (runtime->cuda_error_name != NULL && runtime->cuda_error_name(error, &name) != MLAR_GPU_SUCCESS)
        name = NULL;
    return name != NULL ? name : "unknown error";
}

mlar_status mlar_runtime_status(mlar_runtime *runtime, int error, const char *what, mlar_diag *diag) {
    if (error == MLAR_GPU_SUCCESS) return MLAR_OK;
    mlar_status status = MLAR_ERROR_DEVICE;
    if (error >= MLAR_GPU_ERROR_CAPTURE_FIRST && error <= MLAR_GPU_ERROR_CAPTURE_LAST)
        status = MLAR_ERROR_CAPTURING;
    if (error == MLAR_GPU_ERROR_OUT_OF_MEMORY) status = MLAR_ERROR_OUT_OF_MEMORY;
    for (const int32_t *lost = runtime->vendor->lost; *lost != 0; lost++)
        if (*lost == error) status = MLAR_ERROR_DEVICE_LOST;
    if (status == MLAR_ERROR_DEVICE_LOST) atomic_store(&runtime->lost, error);
    (void)mlar_fail(diag, status, what, 0, 0, "%s: %s (%d)", what, mlar_runtime_error_name(runtime, error),
                    error);
    mlar_fail_device_error(diag, error);
    return status;
}
