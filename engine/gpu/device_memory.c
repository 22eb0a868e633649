/* SPDX-License-Identifier: Apache-2.0
 *
 * device_memory.c: plain device memory, blocking copies and waiting: for tools and tests, and for what the
 * engine copies during setup and inspection. */
#include "arena/fail.h"
#include "engine/gpu/device.h"

/* What was queued has happened, or will never. */
static mlar_status settle(mlar_device *device, int error, const char *what, void *stream, mlar_diag *diag) {
    mlar_runtime *runtime = &device->runtime;
    mlar_status status = mlar_runtime_status(runtime, error, what, diag);
    if (status != MLAR_OK) return status;
    error = runtime->stream_synchronize(stream);
    /* A copy may still be waiting, and its host memory is the caller's to give back: once more. */
    if (error != MLAR_GPU_SUCCESS) (void)runtime->stream_synchronize(stream);
    return mlar_runtime_status(runtime, error, "hipStreamSynchronize", diag);
}

mlar_status mlar_device_transfer(mlar_device *device, int in, void *to, const void *from, uint64_t bytes,
                                 void *stream, mlar_diag *diag) {
    mlar_runtime *runtime = &device->runtime;
    if (bytes == 0) return MLAR_OK;
    int error = in ? runtime->copy_in(to, from, bytes, stream)
                   : runtime->copy_out(to, (void *)(uintptr_t)from, bytes, stream);
    return settle(device, error, in ? "hipMemcpyHtoDAsync" : "hipMemcpyDtoHAsync", stream, diag);
}

mlar_status mlar_device_fill(mlar_device *device, void *to, uint32_t word, uint64_t bytes, void *stream,
                             mlar_diag *diag) {
    if (bytes == 0) return MLAR_OK;
    int error = device->runtime.fill(to, word, bytes / sizeof word, stream);
    return settle(device, error, "hipMemsetD32Async", stream, diag);
}

mlar_status mlar_device_allocate(mlar_device *device, uint64_t bytes, void **address, mlar_diag *diag) {
    if (device == NULL || address == NULL) return mlar_fail_null(diag, device == NULL ? "device" : "address");
    *address = NULL;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(device, &scope, diag);
    if (status != MLAR_OK) return status;
    int error = device->runtime.allocate(address, bytes > 0 ? bytes : 1);
    status = mlar_runtime_status(&device->runtime, error, "hipMalloc", diag);
    int allocated = status == MLAR_OK;
    status = mlar_device_leave(device, &scope, status, diag);
    if (allocated && status != MLAR_OK) (void)device->runtime.free(*address);
    if (status != MLAR_OK) *address = NULL;
    return status;
}

mlar_status mlar_device_free(mlar_device *device, void *address) {
    if (device == NULL) return MLAR_ERROR_ARGUMENT;
    if (address == NULL) return MLAR_OK;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(device, &scope, NULL);
    if (status != MLAR_OK) return status;
    status = mlar_runtime_status(&device->runtime, device->runtime.free(address), "hipFree", NULL);
    return mlar_device_leave(device, &scope, status, NULL);
}

static mlar_status transfer(mlar_device *device, int in, void *to, const void *from, uint64_t bytes) {
    if (device == NULL || (bytes > 0 && (to == NULL || from == NULL))) return MLAR_ERROR_ARGUMENT;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(device, &scope, NULL);
    if (status != MLAR_OK) return status;
    status = mlar_device_transfer(device, in, to, from, bytes, NULL, NULL);
    return mlar_device_leave(device, &scope, status, NULL);
}

mlar_status mlar_device_write(mlar_device *device, void *to, const void *from_host, uint64_t bytes) {
    return transfer(device, 1, to, from_host, bytes);
}

mlar_status mlar_device_read(mlar_device *device, void *to_host, const void *from, uint64_t bytes) {
    return transfer(device, 0, to_host, from, bytes);
}

mlar_status mlar_device_wait(mlar_device *device, void *stream) {
    if (device == NULL) return MLAR_ERROR_ARGUMENT;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(device, &scope, NULL);
    if (status != MLAR_OK) return status;
    int error = device->runtime.stream_synchronize(stream);
    status = mlar_runtime_status(&device->runtime, error, "hipStreamSynchronize", NULL);
    return mlar_device_leave(device, &scope, status, NULL);
}
