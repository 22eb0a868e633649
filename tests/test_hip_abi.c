/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hip_abi.c: engine/gpu/runtime.h and runtime.def against the vendors' own headers, where this machine has them:
 * Debian's hip/hip_runtime_api.h (libamdhip64-dev) and cuda.h (NVIDIA's toolkit).
 *
 * Nearly all of it is proved by the compiler: that a struct of ours is theirs, byte for byte, that a constant is
 * theirs, that a function has the parameters that we believe it has (written out here, once as ours and once as
 * theirs) and that each pair is passed alike. A field of runtime.def that is not mentioned here does not compile. What
 * runs is the rest: symbol names, and the numbers that runtime.c keeps to itself. A header that is not there is
 * reported as skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <stdio.h>

#ifdef MLAR_HAVE_HIP_HEADER
#define __HIP_PLATFORM_AMD__
#include <hip/hip_runtime_api.h>
#endif
#ifdef MLAR_HAVE_CUDA_HEADER
#include <cuda.h>
#endif

#include "engine/gpu/runtime.h"

/* ---- how two things are found equal ---- */

#define SAME_VALUE(ours, theirs)                                                                             \
    _Static_assert((long long)(ours) == (long long)(theirs), #ours " is " #theirs)
#define SAME_SIZE(ours, theirs)                                                                              \
    _Static_assert(sizeof(ours) == sizeof(theirs), #ours " is as large as " #theirs)
#define SAME_FIELD(ours, field, theirs, name)                                                                \
    _Static_assert(offsetof(ours, field) == offsetof(theirs, name) &&                                        \
                       sizeof(((ours *)0)->field) == sizeof(((theirs *)0)->name),                            \
                   #ours "." #field " is " #theirs "." #name)

/* Integers, enums and pointers of one size travel in one kind of register on every platform this builds for; floating
 * point would not. */
#define PASSED_ALIKE(a, b)                                                                                   \
    _Static_assert(sizeof(a) == sizeof(b) && _Generic((a)0, float : 0, double : 0, default : 1) &&           \
                       _Generic((b)0, float : 0, double : 0, default : 1),                                   \
                   #a " is passed like " #b)
#define OURS(field, ...)                                                                                     \
    _Static_assert(_Generic(((mlar_runtime *)0)->field, int (*)(__VA_ARGS__) : 1, default : 0),              \
                   "runtime.def: " #field)
#define THEIRS(result, symbol, ...)                                                                          \
    _Static_assert(_Generic(&symbol, result(*)(__VA_ARGS__) : 1, default : 0), "the header: " #symbol)

/* CALLn(vendor, vendor's result, field, symbol, our type, their type, ...) leaves the symbol's name behind, for the
 * table below: a field that is not mentioned does not compile. */
#define CALL1(v, r, field, symbol, a1, b1)                                                                   \
    static const char v##_##field[] = #symbol;                                                               \
    OURS(field, a1);                                                                                         \
    THEIRS(r, symbol, b1);                                                                                   \
    PASSED_ALIKE(a1, b1)
#define CALL2(v, r, field, symbol, a1, b1, a2, b2)                                                           \
    static const char v##_##field[] = #symbol;                                                               \
    OURS(field, a1, a2);                                                                                     \
    THEIRS(r, symbol, b1, b2);                                                                               \
    PASSED_ALIKE(a1, b1);                                                                                    \
    PASSED_ALIKE(a2, b2)
#define CALL3(v, r, field, symbol, a1, b1, a2, b2, a3, b3)                                                   \
    static const char v##_##field[] = #symbol;                                                               \
    OURS(field, a1, a2, a3);                                                                                 \
    THEIRS(r, symbol, b1, b2, b3);                                                                           \
    PASSED_ALIKE(a1, b1);                                                                                    \
    PASSED_ALIKE(a2, b2);                                                                                    \
    PASSED_ALIKE(a3, b3)
#define CALL4(v, r, field, symbol, a1, b1, a2, b2, a3, b3, a4, b4)                                           \
    static const char v##_##field[] = #symbol;                                                               \
    OURS(field, a1, a2, a3, a4);                                                                             \
    THEIRS(r, symbol, b1, b2, b3, b4);                                                                       \
    PASSED_ALIKE(a1, b1);                                                                                    \
    PASSED_ALIKE(a2, b2);                                                                                    \
    PASSED_ALIKE(a3, b3);                                                                                    \
    PASSED_ALIKE(a4, b4)
/* The launch: grid, block and bytes are unsigned on both sides. */
#define CALL_LAUNCH(v, r, field, symbol, function, stream)                                                   \
    static const char v##_##field[] = #symbol;                                                               \
    OURS(field, void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,        \
         void **, void **);                                                                                  \
    THEIRS(r, symbol, function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,        \
           stream, void **, void **);                                                                        \
    PASSED_ALIKE(void *, function);                                                                          \
    PASSED_ALIKE(void *, stream)
/* Not this vendor's, or younger than the header. */
#define NOT_HERE(v, field) static const char *const v##_##field = NULL

#if defined MLAR_HAVE_HIP_HEADER || defined MLAR_HAVE_CUDA_HEADER

/* Names in runtime.def and names checked here, in runtime.def's order. */
typedef struct symbol_pair {
    const char *field, *defined, *checked;
} symbol_pair;

static void same_symbols(const symbol_pair *pairs, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (pairs[i].checked == NULL) continue; /* not this vendor's, or younger than the header */
        if (pairs[i].defined == NULL) fail_msg("%s: runtime.def has no symbol", pairs[i].field);
        assert_string_equal(pairs[i].defined, pairs[i].checked);
    }
}

/* runtime.c's own numbers: a library without the functions fills in the vendor and nothing else. */
static const mlar_vendor *vendor_of(int32_t device) {
    static mlar_runtime runtime;
    void *library = dlopen(NULL, RTLD_NOW);
    assert_non_null(library);
    assert_int_not_equal(mlar_runtime_open(device, library, &runtime, NULL), MLAR_OK);
    dlclose(library);
    assert_non_null(runtime.vendor);
    return runtime.vendor;
}

/* `codes`: 0-terminated, every one of which ends the device; a code that is not there must not. */
static void same_codes(const int32_t *lost, const int32_t *codes) {
    for (; *codes != 0; codes++, lost++) assert_int_equal(*lost, *codes);
    assert_int_equal(*lost, 0);
}

#endif

/* ---- HIP ---- */

#ifdef MLAR_HAVE_HIP_HEADER

SAME_VALUE(MLAR_GPU_SUCCESS, hipSuccess);
SAME_VALUE(MLAR_GPU_ERROR_INVALID_VALUE, hipErrorInvalidValue);
SAME_VALUE(MLAR_GPU_ERROR_OUT_OF_MEMORY, hipErrorOutOfMemory);
SAME_VALUE(MLAR_GPU_ERROR_NO_DEVICE, hipErrorNoDevice);
SAME_VALUE(MLAR_GPU_ERROR_INVALID_DEVICE, hipErrorInvalidDevice);
SAME_VALUE(MLAR_GPU_ERROR_CAPTURE_FIRST, hipErrorStreamCaptureUnsupported);
SAME_VALUE(MLAR_GPU_ERROR_CAPTURE_LAST, hipErrorStreamCaptureWrongThread);
SAME_VALUE(MLAR_GPU_STREAM_NON_BLOCKING, hipStreamNonBlocking);
SAME_VALUE(MLAR_GPU_CAPTURE_THREAD_LOCAL, hipStreamCaptureModeThreadLocal);
SAME_VALUE(MLAR_GPU_POOL_RELEASE_THRESHOLD, hipMemPoolAttrReleaseThreshold);
SAME_VALUE(MLAR_GPU_POOL_RESERVED, hipMemPoolAttrReservedMemCurrent);
SAME_VALUE(MLAR_GPU_POOL_USED, hipMemPoolAttrUsedMemCurrent);
SAME_VALUE(MLAR_GPU_POOL_USED_HIGH, hipMemPoolAttrUsedMemHigh);
SAME_VALUE(MLAR_GPU_POINTER_MEMORY_TYPE, HIP_POINTER_ATTRIBUTE_MEMORY_TYPE);
SAME_VALUE(MLAR_GPU_POINTER_DEVICE, HIP_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
SAME_VALUE(MLAR_GPU_POINTER_RANGE_START, HIP_POINTER_ATTRIBUTE_RANGE_START_ADDR);
SAME_VALUE(MLAR_GPU_POINTER_RANGE_BYTES, HIP_POINTER_ATTRIBUTE_RANGE_SIZE);
#if HIP_VERSION_MAJOR < 6
SAME_VALUE(MLAR_HIP5_MEMORY_HOST, hipMemoryTypeHost);
#else
SAME_VALUE(MLAR_GPU_MEMORY_HOST, hipMemoryTypeHost);
#endif
/* capturing: anything but this */
SAME_VALUE(0, hipStreamCaptureStatusNone);

SAME_SIZE(mlar_gpu_pool_properties, hipMemPoolProps);
SAME_FIELD(mlar_gpu_pool_properties, allocation_type, hipMemPoolProps, allocType);
SAME_FIELD(mlar_gpu_pool_properties, handle_types, hipMemPoolProps, handleTypes);
SAME_FIELD(mlar_gpu_pool_properties, location_type, hipMemPoolProps, location.type);
SAME_FIELD(mlar_gpu_pool_properties, location_id, hipMemPoolProps, location.id);
SAME_FIELD(mlar_gpu_pool_properties, win32_security, hipMemPoolProps, win32SecurityAttributes);
#if HIP_VERSION_MAJOR < 6
_Static_assert(offsetof(mlar_gpu_pool_properties, max_bytes) == offsetof(hipMemPoolProps, reserved),
               "what became maxSize was reserved");
#else
SAME_FIELD(mlar_gpu_pool_properties, max_bytes, hipMemPoolProps, maxSize);
#endif
SAME_VALUE(1, hipMemAllocationTypePinned);
SAME_VALUE(0, hipMemHandleTypeNone);
SAME_VALUE(1, hipMemLocationTypeDevice);

SAME_SIZE(mlar_hip_node_params, hipKernelNodeParams);
SAME_FIELD(mlar_hip_node_params, block, hipKernelNodeParams, blockDim);
SAME_FIELD(mlar_hip_node_params, extra, hipKernelNodeParams, extra);
SAME_FIELD(mlar_hip_node_params, function, hipKernelNodeParams, func);
SAME_FIELD(mlar_hip_node_params, grid, hipKernelNodeParams, gridDim);
SAME_FIELD(mlar_hip_node_params, arguments, hipKernelNodeParams, kernelParams);
SAME_FIELD(mlar_hip_node_params, lds_bytes, hipKernelNodeParams, sharedMemBytes);

CALL1(hip, hipError_t, init, hipInit, unsigned, unsigned);
CALL1(hip, hipError_t, get_driver_version, hipDriverGetVersion, int *, int *);
CALL1(hip, hipError_t, get_runtime_version, hipRuntimeGetVersion, int *, int *);
CALL1(hip, hipError_t, device_count, hipGetDeviceCount, int *, int *);
CALL3(hip, hipError_t, device_attribute, hipDeviceGetAttribute, int *, int *, int, hipDeviceAttribute_t, int,
      int);
CALL3(hip, hipError_t, device_name, hipDeviceGetName, char *, char *, int, int, int, hipDevice_t);
CALL2(hip, hipError_t, device_memory, hipDeviceTotalMem, size_t *, size_t *, int, hipDevice_t);
#ifdef hipGetDeviceProperties /* a name for the younger layout, since 6.0 */
CALL2(hip, hipError_t, device_properties, hipGetDevicePropertiesR0600, void *, hipDeviceProp_tR0600 *, int,
      int);
NOT_HERE(hip, device_properties_old);
#else
NOT_HERE(hip, device_properties);
CALL2(hip, hipError_t, device_properties_old, hipGetDeviceProperties, void *, hipDeviceProp_t *, int, int);
#endif
CALL1(hip, hipError_t, get_device, hipGetDevice, int *, int *);
CALL1(hip, hipError_t, set_device, hipSetDevice, int, int);
NOT_HERE(hip, context_retain);
NOT_HERE(hip, context_release);
NOT_HERE(hip, context_current);
NOT_HERE(hip, context_set);
CALL3(hip, hipError_t, pointer_attribute, hipPointerGetAttribute, void *, void *, int, hipPointer_attribute,
      void *, hipDeviceptr_t);
CALL2(hip, hipError_t, pool_create, hipMemPoolCreate, void **, hipMemPool_t *, const void *,
      const hipMemPoolProps *);
CALL1(hip, hipError_t, pool_destroy, hipMemPoolDestroy, void *, hipMemPool_t);
CALL3(hip, hipError_t, pool_set, hipMemPoolSetAttribute, void *, hipMemPool_t, int, hipMemPoolAttr, void *,
      void *);
CALL3(hip, hipError_t, pool_get, hipMemPoolGetAttribute, void *, hipMemPool_t, int, hipMemPoolAttr, void *,
      void *);
CALL4(hip, hipError_t, pool_malloc, hipMallocFromPoolAsync, void **, void **, size_t, size_t, void *,
      hipMemPool_t, void *, hipStream_t);
CALL2(hip, hipError_t, pool_free, hipFreeAsync, void *, void *, void *, hipStream_t);
CALL2(hip, hipError_t, module_load, hipModuleLoadData, void **, hipModule_t *, const void *, const void *);
CALL1(hip, hipError_t, module_unload, hipModuleUnload, void *, hipModule_t);
CALL3(hip, hipError_t, module_function, hipModuleGetFunction, void **, hipFunction_t *, void *, hipModule_t,
      const char *, const char *);
NOT_HERE(hip, function_set);
NOT_HERE(hip, launch_extended);
CALL_LAUNCH(hip, hipError_t, launch, hipModuleLaunchKernel, hipFunction_t, hipStream_t);
CALL2(hip, hipError_t, stream_create, hipStreamCreateWithFlags, void **, hipStream_t *, unsigned, unsigned);
CALL1(hip, hipError_t, stream_destroy, hipStreamDestroy, void *, hipStream_t);
CALL1(hip, hipError_t, stream_synchronize, hipStreamSynchronize, void *, hipStream_t);
CALL2(hip, hipError_t, stream_capturing, hipStreamIsCapturing, void *, hipStream_t, int *,
      hipStreamCaptureStatus *);
CALL2(hip, hipError_t, capture_begin, hipStreamBeginCapture, void *, hipStream_t, int, hipStreamCaptureMode);
CALL2(hip, hipError_t, capture_end, hipStreamEndCapture, void *, hipStream_t, void **, hipGraph_t *);
CALL3(hip, hipError_t, graph_instantiate, hipGraphInstantiateWithFlags, void **, hipGraphExec_t *, void *,
      hipGraph_t, unsigned long long, unsigned long long);
#if HIP_VERSION_MAJOR < 6
NOT_HERE(hip, graph_upload);
#else
CALL2(hip, hipError_t, graph_upload, hipGraphUpload, void *, hipGraphExec_t, void *, hipStream_t);
#endif
CALL2(hip, hipError_t, graph_launch, hipGraphLaunch, void *, hipGraphExec_t, void *, hipStream_t);
CALL1(hip, hipError_t, graph_exec_destroy, hipGraphExecDestroy, void *, hipGraphExec_t);
CALL1(hip, hipError_t, graph_destroy, hipGraphDestroy, void *, hipGraph_t);
CALL3(hip, hipError_t, graph_nodes, hipGraphGetNodes, void *, hipGraph_t, void **, hipGraphNode_t *, size_t *,
      size_t *);
CALL3(hip, hipError_t, graph_node_params, hipGraphExecKernelNodeSetParams, void *, hipGraphExec_t, void *,
      hipGraphNode_t, const void *, const hipKernelNodeParams *);
#if HIP_VERSION_MAJOR < 7
CALL4(hip, hipError_t, copy_in, hipMemcpyHtoDAsync, void *, hipDeviceptr_t, const void *, void *, size_t,
      size_t, void *, hipStream_t);
#else
CALL4(hip, hipError_t, copy_in, hipMemcpyHtoDAsync, void *, hipDeviceptr_t, const void *, const void *,
      size_t, size_t, void *, hipStream_t);
#endif
CALL4(hip, hipError_t, copy_out, hipMemcpyDtoHAsync, void *, void *, void *, hipDeviceptr_t, size_t, size_t,
      void *, hipStream_t);
CALL4(hip, hipError_t, fill, hipMemsetD32Async, void *, hipDeviceptr_t, unsigned, int, size_t, size_t, void *,
      hipStream_t);
CALL2(hip, hipError_t, allocate, hipMalloc, void **, void **, size_t, size_t);
CALL1(hip, hipError_t, free, hipFree, void *, void *);
_Static_assert(_Generic(&hipGetErrorName, const char *(*)(hipError_t) : 1, default : 0), "hipGetErrorName");
PASSED_ALIKE(int, hipError_t);

static void test_hip(void **state) {
    (void)state;
    const symbol_pair pairs[] = {
#define X(field, required, arguments, hip, cuda) {#field, hip, hip_##field},
#include "engine/gpu/runtime.def"
#undef X
    };
    same_symbols(pairs, sizeof pairs / sizeof *pairs);
    const mlar_vendor *vendor = vendor_of(MLAR_DEVICE_HIP);
    assert_int_equal(vendor->attribute_compute_units, hipDeviceAttributeMultiprocessorCount);
    assert_int_equal(vendor->attribute_wave, hipDeviceAttributeWarpSize);
#if HIP_VERSION >= 50300000
    assert_int_equal(vendor->attribute_pools, hipDeviceAttributeMemoryPoolsSupported);
#endif
    const int32_t lost[] = {hipErrorDeinitialized, hipErrorECCNotCorrectable, hipErrorIllegalAddress,
                            hipErrorAssert,        hipErrorLaunchFailure,     0};
    same_codes(vendor->lost, lost);
}
#else
static void test_hip(void **state) {
    (void)state;
    puts("hip/hip_runtime_api.h was not found (Debian: libamdhip64-dev): nothing of HIP was checked");
    skip();
}
#endif

/* ---- CUDA ---- */

#ifdef MLAR_HAVE_CUDA_HEADER

SAME_VALUE(MLAR_GPU_SUCCESS, CUDA_SUCCESS);
SAME_VALUE(MLAR_GPU_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_VALUE);
SAME_VALUE(MLAR_GPU_ERROR_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
SAME_VALUE(MLAR_GPU_ERROR_NO_DEVICE, CUDA_ERROR_NO_DEVICE);
SAME_VALUE(MLAR_GPU_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_DEVICE);
SAME_VALUE(MLAR_GPU_ERROR_CAPTURE_FIRST, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
SAME_VALUE(MLAR_GPU_ERROR_CAPTURE_LAST, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
SAME_VALUE(MLAR_GPU_STREAM_NON_BLOCKING, CU_STREAM_NON_BLOCKING);
SAME_VALUE(MLAR_GPU_CAPTURE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME_VALUE(MLAR_GPU_POOL_RELEASE_THRESHOLD, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD);
SAME_VALUE(MLAR_GPU_POOL_RESERVED, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
SAME_VALUE(MLAR_GPU_POOL_USED, CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
SAME_VALUE(MLAR_GPU_POOL_USED_HIGH, CU_MEMPOOL_ATTR_USED_MEM_HIGH);
SAME_VALUE(MLAR_GPU_POINTER_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
SAME_VALUE(MLAR_GPU_POINTER_DEVICE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
SAME_VALUE(MLAR_GPU_POINTER_RANGE_START, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
SAME_VALUE(MLAR_GPU_POINTER_RANGE_BYTES, CU_POINTER_ATTRIBUTE_RANGE_SIZE);
SAME_VALUE(MLAR_GPU_MEMORY_HOST, CU_MEMORYTYPE_HOST);
SAME_VALUE(MLAR_CUDA_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME_VALUE(MLAR_CUDA_CAPABILITY_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME_VALUE(0, CU_STREAM_CAPTURE_STATUS_NONE);

SAME_SIZE(mlar_gpu_pool_properties, CUmemPoolProps);
SAME_FIELD(mlar_gpu_pool_properties, allocation_type, CUmemPoolProps, allocType);
SAME_FIELD(mlar_gpu_pool_properties, handle_types, CUmemPoolProps, handleTypes);
SAME_FIELD(mlar_gpu_pool_properties, location_type, CUmemPoolProps, location.type);
SAME_FIELD(mlar_gpu_pool_properties, location_id, CUmemPoolProps, location.id);
SAME_FIELD(mlar_gpu_pool_properties, win32_security, CUmemPoolProps, win32SecurityAttributes);
#if CUDA_VERSION >= 12020
SAME_FIELD(mlar_gpu_pool_properties, max_bytes, CUmemPoolProps, maxSize);
#endif
SAME_VALUE(1, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME_VALUE(0, CU_MEM_HANDLE_TYPE_NONE);
SAME_VALUE(1, CU_MEM_LOCATION_TYPE_DEVICE);

#define SAME_START(ours, field, theirs, name)                                                                \
    _Static_assert(offsetof(ours, field) == offsetof(theirs, name), #ours "." #field " is " #theirs "." #name)
SAME_SIZE(mlar_cuda_node_params, CUDA_KERNEL_NODE_PARAMS_v2);
SAME_FIELD(mlar_cuda_node_params, function, CUDA_KERNEL_NODE_PARAMS_v2, func);
SAME_START(mlar_cuda_node_params, grid, CUDA_KERNEL_NODE_PARAMS_v2, gridDimX);
SAME_START(mlar_cuda_node_params, block, CUDA_KERNEL_NODE_PARAMS_v2, blockDimX);
SAME_FIELD(mlar_cuda_node_params, lds_bytes, CUDA_KERNEL_NODE_PARAMS_v2, sharedMemBytes);
SAME_FIELD(mlar_cuda_node_params, arguments, CUDA_KERNEL_NODE_PARAMS_v2, kernelParams);
SAME_FIELD(mlar_cuda_node_params, extra, CUDA_KERNEL_NODE_PARAMS_v2, extra);
SAME_FIELD(mlar_cuda_node_params, kernel, CUDA_KERNEL_NODE_PARAMS_v2, kern);
SAME_FIELD(mlar_cuda_node_params, context, CUDA_KERNEL_NODE_PARAMS_v2, ctx);
SAME_SIZE(mlar_cuda_launch_config, CUlaunchConfig);
SAME_START(mlar_cuda_launch_config, grid, CUlaunchConfig, gridDimX);
SAME_START(mlar_cuda_launch_config, block, CUlaunchConfig, blockDimX);
SAME_FIELD(mlar_cuda_launch_config, lds_bytes, CUlaunchConfig, sharedMemBytes);
SAME_FIELD(mlar_cuda_launch_config, stream, CUlaunchConfig, hStream);
SAME_FIELD(mlar_cuda_launch_config, attributes, CUlaunchConfig, attrs);
SAME_FIELD(mlar_cuda_launch_config, attribute_count, CUlaunchConfig, numAttrs);
SAME_SIZE(mlar_cuda_launch_attribute, CUlaunchAttribute);
SAME_FIELD(mlar_cuda_launch_attribute, id, CUlaunchAttribute, id);
SAME_START(mlar_cuda_launch_attribute, value, CUlaunchAttribute, value);

CALL1(cuda, CUresult, init, cuInit, unsigned, unsigned);
CALL1(cuda, CUresult, get_driver_version, cuDriverGetVersion, int *, int *);
NOT_HERE(cuda, get_runtime_version);
CALL1(cuda, CUresult, device_count, cuDeviceGetCount, int *, int *);
CALL3(cuda, CUresult, device_attribute, cuDeviceGetAttribute, int *, int *, int, CUdevice_attribute, int,
      CUdevice);
CALL3(cuda, CUresult, device_name, cuDeviceGetName, char *, char *, int, int, int, CUdevice);
CALL2(cuda, CUresult, device_memory, cuDeviceTotalMem_v2, size_t *, size_t *, int, CUdevice);
NOT_HERE(cuda, device_properties);
NOT_HERE(cuda, device_properties_old);
NOT_HERE(cuda, get_device);
NOT_HERE(cuda, set_device);
CALL2(cuda, CUresult, context_retain, cuDevicePrimaryCtxRetain, void **, CUcontext *, int, CUdevice);
CALL1(cuda, CUresult, context_release, cuDevicePrimaryCtxRelease_v2, int, CUdevice);
CALL1(cuda, CUresult, context_current, cuCtxGetCurrent, void **, CUcontext *);
CALL1(cuda, CUresult, context_set, cuCtxSetCurrent, void *, CUcontext);
CALL3(cuda, CUresult, pointer_attribute, cuPointerGetAttribute, void *, void *, int, CUpointer_attribute,
      void *, CUdeviceptr);
CALL2(cuda, CUresult, pool_create, cuMemPoolCreate, void **, CUmemoryPool *, const void *,
      const CUmemPoolProps *);
CALL1(cuda, CUresult, pool_destroy, cuMemPoolDestroy, void *, CUmemoryPool);
CALL3(cuda, CUresult, pool_set, cuMemPoolSetAttribute, void *, CUmemoryPool, int, CUmemPool_attribute, void *,
      void *);
CALL3(cuda, CUresult, pool_get, cuMemPoolGetAttribute, void *, CUmemoryPool, int, CUmemPool_attribute, void *,
      void *);
CALL4(cuda, CUresult, pool_malloc, cuMemAllocFromPoolAsync, void **, CUdeviceptr *, size_t, size_t, void *,
      CUmemoryPool, void *, CUstream);
CALL2(cuda, CUresult, pool_free, cuMemFreeAsync, void *, CUdeviceptr, void *, CUstream);
CALL2(cuda, CUresult, module_load, cuModuleLoadData, void **, CUmodule *, const void *, const void *);
CALL1(cuda, CUresult, module_unload, cuModuleUnload, void *, CUmodule);
CALL3(cuda, CUresult, module_function, cuModuleGetFunction, void **, CUfunction *, void *, CUmodule,
      const char *, const char *);
CALL3(cuda, CUresult, function_set, cuFuncSetAttribute, void *, CUfunction, int, CUfunction_attribute, int,
      int);
CALL_LAUNCH(cuda, CUresult, launch, cuLaunchKernel, CUfunction, CUstream);
CALL2(cuda, CUresult, stream_create, cuStreamCreate, void **, CUstream *, unsigned, unsigned);
CALL1(cuda, CUresult, stream_destroy, cuStreamDestroy_v2, void *, CUstream);
CALL1(cuda, CUresult, stream_synchronize, cuStreamSynchronize, void *, CUstream);
CALL2(cuda, CUresult, stream_capturing, cuStreamIsCapturing, void *, CUstream, int *,
      CUstreamCaptureStatus *);
CALL2(cuda, CUresult, capture_begin, cuStreamBeginCapture_v2, void *, CUstream, int, CUstreamCaptureMode);
CALL2(cuda, CUresult, capture_end, cuStreamEndCapture, void *, CUstream, void **, CUgraph *);
CALL3(cuda, CUresult, graph_instantiate, cuGraphInstantiateWithFlags, void **, CUgraphExec *, void *, CUgraph,
      unsigned long long, unsigned long long);
CALL2(cuda, CUresult, graph_upload, cuGraphUpload, void *, CUgraphExec, void *, CUstream);
CALL2(cuda, CUresult, graph_launch, cuGraphLaunch, void *, CUgraphExec, void *, CUstream);
CALL1(cuda, CUresult, graph_exec_destroy, cuGraphExecDestroy, void *, CUgraphExec);
CALL1(cuda, CUresult, graph_destroy, cuGraphDestroy, void *, CUgraph);
CALL3(cuda, CUresult, graph_nodes, cuGraphGetNodes, void *, CUgraph, void **, CUgraphNode *, size_t *,
      size_t *);
CALL3(cuda, CUresult, graph_node_params, cuGraphExecKernelNodeSetParams_v2, void *, CUgraphExec, void *,
      CUgraphNode, const void *, const CUDA_KERNEL_NODE_PARAMS_v2 *);
CALL4(cuda, CUresult, launch_extended, cuLaunchKernelEx, const void *, const CUlaunchConfig *, void *,
      CUfunction, void **, void **, void **, void **);
CALL4(cuda, CUresult, copy_in, cuMemcpyHtoDAsync_v2, void *, CUdeviceptr, const void *, const void *, size_t,
      size_t, void *, CUstream);
CALL4(cuda, CUresult, copy_out, cuMemcpyDtoHAsync_v2, void *, void *, void *, CUdeviceptr, size_t, size_t,
      void *, CUstream);
CALL4(cuda, CUresult, fill, cuMemsetD32Async, void *, CUdeviceptr, unsigned, unsigned, size_t, size_t, void *,
      CUstream);
CALL2(cuda, CUresult, allocate, cuMemAlloc_v2, void **, CUdeviceptr *, size_t, size_t);
CALL1(cuda, CUresult, free, cuMemFree_v2, void *, CUdeviceptr);
_Static_assert(_Generic(&cuGetErrorName, CUresult (*)(CUresult, const char **) : 1, default : 0),
               "cuGetErrorName");
PASSED_ALIKE(int, CUresult);

static void test_cuda(void **state) {
    (void)state;
    const symbol_pair pairs[] = {
#define X(field, required, arguments, hip, cuda) {#field, cuda, cuda_##field},
#include "engine/gpu/runtime.def"
#undef X
    };
    same_symbols(pairs, sizeof pairs / sizeof *pairs);
    const mlar_vendor *vendor = vendor_of(MLAR_DEVICE_CUDA);
    assert_int_equal(MLAR_CUDA_ATTRIBUTE_CLUSTER, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
    assert_int_equal(MLAR_CUDA_ATTRIBUTE_OVERLAP, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
    assert_int_equal(vendor->attribute_compute_units, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    assert_int_equal(vendor->attribute_wave, CU_DEVICE_ATTRIBUTE_WARP_SIZE);
    assert_int_equal(vendor->attribute_pools, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED);
    const int32_t lost[] = {CUDA_ERROR_DEINITIALIZED,
                            CUDA_ERROR_ECC_UNCORRECTABLE,
                            CUDA_ERROR_ILLEGAL_ADDRESS,
                            CUDA_ERROR_LAUNCH_TIMEOUT,
                            CUDA_ERROR_CONTEXT_IS_DESTROYED,
                            CUDA_ERROR_ASSERT,
                            CUDA_ERROR_HARDWARE_STACK_ERROR,
                            CUDA_ERROR_ILLEGAL_INSTRUCTION,
                            CUDA_ERROR_MISALIGNED_ADDRESS,
                            CUDA_ERROR_INVALID_ADDRESS_SPACE,
                            CUDA_ERROR_INVALID_PC,
                            CUDA_ERROR_LAUNCH_FAILED,
                            0};
    same_codes(vendor->lost, lost);
}
#else
static void test_cuda(void **state) {
    (void)state;
    puts("cuda.h was not found (NVIDIA's CUDA toolkit): nothing of CUDA was checked");
    skip();
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hip), cmocka_unit_test(test_cuda)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
