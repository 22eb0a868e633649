/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hip_abi.c: engine/gpu/runtime.h and runtime.def against the vendors' own headers, where this machine has them:
 * Debian's hip/hip_runtime_api.h (libamdhip64-dev) and cuda.h (NVIDIA's toolkit).
 *
 * Nearly all of it is proved by the compiler: that a struct of ours is theirs, byte for byte, that a constant is
 * theirs, that a function has the parameters that we believe it has (written out here, once as ours and once as
 * theirs) and that each pair is passed alike. A field of runtime.def that is not mentioned here does not compile. What
 * runs is the rest: symbol names, and the numbers that runtime.c keeps to itself. A header that is not there is reported
 * as skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

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

/* CALLn(vendor prefix, vendor's result, field, symbol, our type, their type, ...). The constant says that the field was
 * looked at; the enumerator is what runtime.def is held against below. */
#define CALL1(v, r, field, symbol, a1, b1)                                                                   \
    enum { v##_has_##field = 1 };                                                                            \
    OURS(field, a1);                                                                                         \
    THEIRS(r, symbol, b1);                                                                                   \
    PASSED_ALIKE(a1, b1)
#define CALL2(v, r, field, symbol, a1, b1, a2, b2)                                                           \
    enum { v##_has_##field = 1 };                                                                            \
    OURS(field, a1, a2);                                                                                     \
    THEIRS(r, symbol, b1, b2);                                                                               \
    PASSED_ALIKE(a1, b1);                                                                                    \
    PASSED_ALIKE(a2, b2)
#define CALL3(v, r, field, symbol, a1, b1, a2, b2, a3, b3)                                                   \
    enum { v##_has_##field = 1 };                                                                            \
    OURS(field, a1, a2, a3);                                                                                 \
    THEIRS(r, symbol, b1, b2, b3);                                                                           \
    PASSED_ALIKE(a1, b1);                                                                                    \
    PASSED_ALIKE(a2, b2);                                                                                    \
    PASSED_ALIKE(a3, b3)
#define CALL4(v, r, field, symbol, a1, b1, a2, b2, a3, b3, a4, b4)                                           \
    enum { v##_has_##field = 1 };                                                                            \
    OURS(field, a1, a2, a3, a4);                                                                             \
    THEIRS(r, symbol, b1, b2, b3, b4);                                                                       \
    PASSED_ALIKE(a1, b1);                                                                                    \
    PASSED_ALIKE(a2, b2);                                                                                    \
    PASSED_ALIKE(a3, b3);                                                                                    \
    PASSED_ALIKE(a4, b4)
/* The launch: grid, block and bytes are unsigned on both sides. */
#define CALL_LAUNCH(v, r, field, symbol, function, stream)                                                   \
    enum { v##_has_##field = 1 };                                                                            \
    OURS(field, void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,        \
         void **, void **);                                                                                  \
    THEIRS(r, symbol, function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,        \
           stream, void **, void **);                                                                        \
    PASSED_ALIKE(void *, function);                                                                          \
    PASSED_ALIKE(void *, stream)
/* Not this vendor's, or younger than the header. */
#define NOT_HERE(v, field) enum { v##_has_##field = 0 }

typedef const char *text;

/* What runtime.def and this file say of every field, to be compared when the test runs. */
typedef struct named {
    const char *field, *symbol;
} named;

static void same_names(const named *defined, const named *checked, size_t count) {
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(defined[i].field, checked[i].field);
        assert_int_equal(defined[i].symbol == NULL, checked[i].symbol == NULL);
        if (checked[i].symbol != NULL) assert_string_equal(defined[i].symbol, checked[i].symbol);
    }
}

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
CALL2(hip, hipError_t, allocate, hipMalloc, void **, void **, size_t, size_t);
CALL1(hip, hipError_t, free, hipFree, void *, void *);
_Static_assert(_Generic(&hipGetErrorName, text (*)(hipError_t) : 1, default : 0), "hipGetErrorName");
PASSED_ALIKE(int, hipError_t);

/* Every field of runtime.def is one of the above. */
#define X(field, required, arguments, hip, cuda) _Static_assert(hip_has_##field >= 0, #field);
#include "engine/gpu/runtime.def"
#undef X

/* Written out once more: the symbols whose signatures stand above. */
static void test_hip_symbols(void **state) {
    (void)state;
    static const named defined[] = {
#define X(field, required, arguments, hip, cuda) {#field, hip},
#include "engine/gpu/runtime.def"
#undef X
    };
    static const named checked[] = {
        {"init", "hipInit"},
        {"get_driver_version", "hipDriverGetVersion"},
        {"get_runtime_version", "hipRuntimeGetVersion"},
        {"device_count", "hipGetDeviceCount"},
        {"device_attribute", "hipDeviceGetAttribute"},
        {"device_name", "hipDeviceGetName"},
        {"device_memory", "hipDeviceTotalMem"},
        {"device_properties", "hipGetDevicePropertiesR0600"},
        {"device_properties_old", "hipGetDeviceProperties"},
        {"get_device", "hipGetDevice"},
        {"set_device", "hipSetDevice"},
        {"context_retain", NULL},
        {"context_release", NULL},
        {"context_current", NULL},
        {"context_set", NULL},
        {"pointer_attribute", "hipPointerGetAttribute"},
        {"pool_create", "hipMemPoolCreate"},
        {"pool_destroy", "hipMemPoolDestroy"},
        {"pool_set", "hipMemPoolSetAttribute"},
        {"pool_get", "hipMemPoolGetAttribute"},
        {"pool_malloc", "hipMallocFromPoolAsync"},
        {"pool_free", "hipFreeAsync"},
        {"module_load", "hipModuleLoadData"},
        {"module_unload", "hipModuleUnload"},
        {"module_function", "hipModuleGetFunction"},
        {"function_set", NULL},
        {"launch", "hipModuleLaunchKernel"},
        {"stream_create", "hipStreamCreateWithFlags"},
        {"stream_destroy", "hipStreamDestroy"},
        {"stream_synchronize", "hipStreamSynchronize"},
        {"stream_capturing", "hipStreamIsCapturing"},
        {"capture_begin", "hipStreamBeginCapture"},
        {"capture_end", "hipStreamEndCapture"},
        {"graph_instantiate", "hipGraphInstantiateWithFlags"},
        {"graph_upload", "hipGraphUpload"},
        {"graph_launch", "hipGraphLaunch"},
        {"graph_exec_destroy", "hipGraphExecDestroy"},
        {"graph_destroy", "hipGraphDestroy"},
        {"graph_nodes", "hipGraphGetNodes"},
        {"graph_node_params", "hipGraphExecKernelNodeSetParams"},
        {"copy_in", "hipMemcpyHtoDAsync"},
        {"copy_out", "hipMemcpyDtoHAsync"},
        {"allocate", "hipMalloc"},
        {"free", "hipFree"},
    };
    _Static_assert(sizeof defined == sizeof checked, "every field is checked");
    same_names(defined, checked, sizeof checked / sizeof *checked);
}
#endif

int main(void) {
#ifdef MLAR_HAVE_HIP_HEADER
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hip_symbols)};
    return cmocka_run_group_tests(tests, NULL, NULL);
#else
    print_message("skipped: no hip/hip_runtime_api.h\n");
    return 0;
#endif
}
