/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime.h: the device runtime as a table of functions, found at run time: libamdhip64 of any major version,
 * or the CUDA driver library. Nothing is linked, nothing is looked for before mlar_device_open, and nothing
 * is ever dlclosed: a host that uses the same copy goes on using it.
 *
 * CUDA poses as HIP here: fields have HIP's meaning, constants are the ones both share, and the few that
 * differ are in mlar_vendor. */
#ifndef MLAR_ENGINE_GPU_RUNTIME_H
#define MLAR_ENGINE_GPU_RUNTIME_H

#include <mlarena/mlarena.h>
#include <stddef.h>
#include <stdint.h>

/* Constants of both runtimes (checked against Debian's HIP header in tests/test_hip_abi.c). */
enum {
    MLAR_GPU_SUCCESS = 0,
    MLAR_GPU_ERROR_INVALID_VALUE = 1,
    MLAR_GPU_ERROR_OUT_OF_MEMORY = 2,
    MLAR_GPU_ERROR_NO_DEVICE = 100,
    MLAR_GPU_ERROR_INVALID_DEVICE = 101,
    MLAR_GPU_ERROR_CAPTURE_FIRST = 900, /* 900 .. 908: not allowed while capturing */
    MLAR_GPU_ERROR_CAPTURE_LAST = 908,
    MLAR_GPU_STREAM_NON_BLOCKING = 1,
    MLAR_GPU_CAPTURE_THREAD_LOCAL = 1,
    MLAR_GPU_POOL_RELEASE_THRESHOLD = 4,
    MLAR_GPU_POOL_RESERVED = 5,
    MLAR_GPU_POOL_USED = 7,
    MLAR_GPU_POOL_USED_HIGH = 8,
    MLAR_GPU_POINTER_MEMORY_TYPE = 2,
    MLAR_GPU_POINTER_DEVICE = 9,
    MLAR_GPU_POINTER_RANGE_START = 11,
    MLAR_GPU_POINTER_RANGE_BYTES = 12,
    MLAR_GPU_MEMORY_HOST = 1, /* memory type; HIP before 6.0 counted from 0 */
    MLAR_HIP5_MEMORY_HOST = 0,
    MLAR_CUDA_ATTRIBUTE_CLUSTER = 4,   /* launch attribute: blocks of a cluster in x, y, z */
    MLAR_CUDA_ATTRIBUTE_OVERLAP = 6,   /* launch attribute: programmatic stream serialization */
    MLAR_CUDA_VERSION_OVERLAP = 12040, /* graphs keep it from 12.3 on */
    MLAR_CUDA_CAPABILITY_MAJOR = 75,   /* device attributes that only CUDA has */
    MLAR_CUDA_CAPABILITY_MINOR = 76
};

/* hipMemPoolProps / CUmemPoolProps: 88 bytes in both. */
typedef struct mlar_gpu_pool_properties {
    int32_t allocation_type; /* 1: pinned */
    int32_t handle_types;    /* 0: none */
    int32_t location_type;   /* 1: device */
    int32_t location_id;
    void *win32_security;
    size_t max_bytes; /* 0: no limit; HIP before 6.1 has reserved bytes here and ignores it */
    unsigned char reserved[56];
} mlar_gpu_pool_properties;

/* hipKernelNodeParams, 64 bytes. */
typedef struct mlar_hip_node_params {
    uint32_t block[3];
    void **extra;
    void *function;
    uint32_t grid[3];
    void **arguments;
    uint32_t lds_bytes;
} mlar_hip_node_params;

/* CUDA_KERNEL_NODE_PARAMS_v2, 72 bytes. */
typedef struct mlar_cuda_node_params {
    void *function;
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t lds_bytes;
    void **arguments;
    void **extra;
    void *kernel;
    void *context;
} mlar_cuda_node_params;

/* CUlaunchConfig, 56 bytes, and CUlaunchAttribute, 72. */
typedef struct mlar_cuda_launch_attribute {
    int32_t id;
    int32_t padding;
    int32_t value[16];
} mlar_cuda_launch_attribute;

typedef struct mlar_cuda_launch_config {
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t lds_bytes;
    void *stream;
    mlar_cuda_launch_attribute *attributes;
    uint32_t attribute_count;
} mlar_cuda_launch_config;

/* What the vendors number differently. */
typedef struct mlar_vendor {
    const char *name; /* "hip", "cuda" */
    const char *const *libraries;
    int32_t device; /* MLAR_DEVICE_* */
    int32_t required_bit;
    int32_t attribute_compute_units, attribute_wave, attribute_pools;
    const int32_t *lost; /* error codes after which the device is gone, 0-terminated */
} mlar_vendor;

typedef struct mlar_runtime {
    const mlar_vendor *vendor;
    void *library;
#define X(field, required, arguments, hip, cuda) int(*field) arguments;
#include "engine/gpu/runtime.def"
#undef X
    const char *(*hip_error_name)(int error);
    int (*cuda_error_name)(int error, const char **name);
    int32_t version; /* hipRuntimeGetVersion, cuDriverGetVersion */
    int32_t driver_version;
    _Atomic int32_t lost; /* the error after which the device was gone, 0 while it lives; engines share it */
    char found[96];       /* the library's name, and how it was found */
} mlar_runtime;

/* Fills the table. MLAR_ERROR_NO_DEVICE: no library (diag.message says which names were tried), or one that
 * lacks a required function (diag.field names it). */
mlar_status mlar_runtime_open(int32_t device_kind, void *library, mlar_runtime *runtime, mlar_diag *diag);

/* Why there is no device to open: returns MLAR_ERROR_NO_DEVICE, diag as below. */
mlar_status mlar_runtime_no_device(const mlar_runtime *runtime, int error, const char *what, mlar_diag *diag);

/* "hipErrorOutOfMemory"; never NULL. */
const char *mlar_runtime_error_name(const mlar_runtime *runtime, int error);

/* A runtime's error as a status; diag gets the function, the code and its name. One that means the end of the
 * device is kept in runtime->lost. */
mlar_status mlar_runtime_status(mlar_runtime *runtime, int error, const char *what, mlar_diag *diag);

#endif
