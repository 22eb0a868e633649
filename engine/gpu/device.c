/* SPDX-License-Identifier: Apache-2.0
 *
 * device.c: opening and closing a GPU, and what it says of itself. */
#include "engine/gpu/device.h"

#include "arena/checked_size.h"
#include "arena/fail.h"
#include "engine/gpu/quirks.h"
#include "engine/structs.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

size_t mlar_device_bytes(void) {
    return sizeof(mlar_device);
}

/* ---- current device ---- */

void mlar_device_count_calls(mlar_device *device, int32_t calls) {
    atomic_fetch_add_explicit(&device->calls, (uint64_t)calls, memory_order_relaxed);
}

mlar_status mlar_device_enter(mlar_device *device, mlar_device_scope *scope, mlar_diag *diag) {
    mlar_runtime *runtime = &device->runtime;
    int hip = runtime->vendor->device == MLAR_DEVICE_HIP, ordinal = -1;
    *scope = (mlar_device_scope){0};
    int error = hip ? runtime->get_device(&ordinal) : runtime->context_current(&scope->context);
    mlar_device_count_calls(device, 1);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipGetDevice", diag);
    scope->ordinal = ordinal;
    scope->changed = hip ? ordinal != device->ordinal : scope->context != device->context;
    if (!scope->changed) return MLAR_OK;
    error = hip ? runtime->set_device(device->ordinal) : runtime->context_set(device->context);
    mlar_device_count_calls(device, 1);
    return mlar_runtime_status(runtime, error, "hipSetDevice", diag);
}

mlar_status mlar_device_leave(mlar_device *device, const mlar_device_scope *scope, mlar_status status,
                              mlar_diag *diag) {
    if (!scope->changed) return status;
    mlar_runtime *runtime = &device->runtime;
    int error = runtime->vendor->device == MLAR_DEVICE_HIP ? runtime->set_device(scope->ordinal)
                                                           : runtime->context_set(scope->context);
    mlar_device_count_calls(device, 1);
    return status != MLAR_OK ? status : mlar_runtime_status(runtime, error, "hipSetDevice", diag);
}

mlar_status mlar_device_idle(mlar_device *device, void *stream, mlar_diag *diag) {
    mlar_device_scope scope = {0};
    mlar_status status = MLAR_OK;
    /* The default stream is the current device's; any other says itself whose it is. */
    if (stream == NULL) status = mlar_device_enter(device, &scope, diag);
    if (status != MLAR_OK) return status;
    int capturing = 0;
    int error = device->runtime.stream_capturing(stream, &capturing);
    mlar_device_count_calls(device, 1);
    status = mlar_runtime_status(&device->runtime, error, "hipStreamIsCapturing", diag);
    if (status == MLAR_OK && capturing)
        status = mlar_fail(diag, MLAR_ERROR_CAPTURING, "stream", 0, 0, "stream: %s",
                           mlar_status_string(MLAR_ERROR_CAPTURING));
    return stream == NULL ? mlar_device_leave(device, &scope, status, diag) : status;
}

/* ---- architecture ---- */

/* The layout of hipDeviceProp_t has changed between versions, the spelling of gcnArchName has not: look for
 * "gfx" and hexadecimal digits in what the runtime writes. It stands behind the name, so the last one counts.
 */
static void find_gfx(const char *bytes, size_t count, char *arch, size_t size) {
    for (size_t i = 0; i + 6 < count; i++) {
        if (memcmp(bytes + i, "gfx", 3) != 0) continue;
        size_t length = 3;
        while (i + length < count && length < size - 1 &&
               strchr("0123456789abcdef", bytes[i + length]) != NULL && bytes[i + length] != 0)
            length++;
        if (length < 6) continue;
        memcpy(arch, bytes + i, length);
        arch[length] = 0;
    }
}

static mlar_status read_arch(mlar_runtime *runtime, int32_t ordinal, char *arch, size_t size,
                             mlar_diag *diag) {
    char properties[8192] = {0}; /* far more than any version writes (792 and 1472 bytes) */
    int error = MLAR_GPU_SUCCESS;
    if (runtime->vendor->device == MLAR_DEVICE_CUDA) {
        int major = 0, minor = 0;
        error = runtime->device_attribute(&major, MLAR_CUDA_CAPABILITY_MAJOR, ordinal);
        if (error == MLAR_GPU_SUCCESS)
            error = runtime->device_attribute(&minor, MLAR_CUDA_CAPABILITY_MINOR, ordinal);
        snprintf(arch, size, "sm_%d%d", major, minor);
    } else if (runtime->device_properties != NULL) {
        error = runtime->device_properties(properties, ordinal);
    } else if (runtime->device_properties_old != NULL) {
        error = runtime->device_properties_old(properties, ordinal);
    }
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipGetDeviceProperties", diag);
    if (runtime->vendor->device == MLAR_DEVICE_HIP) find_gfx(properties, sizeof properties, arch, size);
    return MLAR_OK;
}

static mlar_status read_profile(mlar_device *device, mlar_diag *diag) {
    mlar_runtime *runtime = &device->runtime;
    mlar_device_profile *profile = &device->profile;
    profile->device = runtime->vendor->device;
    profile->pool_granularity_bytes = 2u << 20;
    int units = 0, wave = 0, pools = 0;
    int error = runtime->device_attribute(&units, runtime->vendor->attribute_compute_units, device->ordinal);
    if (error == MLAR_GPU_SUCCESS)
        error = runtime->device_attribute(&wave, runtime->vendor->attribute_wave, device->ordinal);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipDeviceGetAttribute", diag);
    error = runtime->device_attribute(&pools, runtime->vendor->attribute_pools, device->ordinal);
    if (error == MLAR_GPU_ERROR_INVALID_VALUE)
        pools = 0; /* one that does not know the question has none */
    else if (error != MLAR_GPU_SUCCESS)
        return mlar_runtime_status(runtime, error, "hipDeviceGetAttribute", diag);
    device->has_pools = pools != 0 && runtime->pool_create != NULL && runtime->pool_malloc != NULL &&
                        runtime->pool_free != NULL && runtime->pool_destroy != NULL &&
                        runtime->pool_set != NULL && runtime->pool_get != NULL;
    profile->compute_units = units;
    profile->wave_size = wave;
    return read_arch(runtime, device->ordinal, profile->arch, sizeof profile->arch, diag);
}

/* ---- open and close ---- */

mlar_status mlar_device_judge(const mlar_device *device, int32_t check, mlar_diag *diag) {
    const mlar_quirk *quirk =
        mlar_quirk_of(device->profile.device, device->runtime.version, device->profile.arch);
    if (quirk == NULL || check == MLAR_RUNTIME_ACCEPT) return MLAR_OK;
    return mlar_fail(diag, check == MLAR_RUNTIME_REFUSE ? MLAR_ERROR_RUNTIME_BLOCKED : MLAR_OK,
                     "runtime_check", device->runtime.version, 0,
                     "runtime %d on %s is known to be bad: %s (%s)", (int)device->runtime.version,
                     device->profile.arch, quirk->what, quirk->source);
}

static mlar_status take_device(mlar_device *device, int32_t ordinal, mlar_diag *diag) {
    mlar_runtime *runtime = &device->runtime;
    int count = 0;
    int error = runtime->device_count(&count);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_no_device(runtime, error, "hipGetDeviceCount", diag);
    if (ordinal < 0 || ordinal >= count)
        return mlar_fail(diag, MLAR_ERROR_NO_DEVICE, "ordinal", ordinal, count - 1,
                         "%s (%s): device %d of %d", runtime->vendor->name, runtime->found, (int)ordinal,
                         count);
    device->ordinal = ordinal;
    if (runtime->context_retain == NULL) return MLAR_OK;
    return mlar_runtime_status(runtime, runtime->context_retain(&device->context, ordinal),
                               "cuDevicePrimaryCtxRetain", diag);
}

mlar_status mlar_device_open(void *memory, size_t bytes, const mlar_device_options *given,
                             mlar_device **result, mlar_diag *diag) {
    if (memory == NULL || given == NULL || result == NULL)
        return mlar_fail_null(diag, memory == NULL ? "memory" : given == NULL ? "options" : "device");
    *result = NULL;
    mlar_device_options options;
    mlar_status status = MLAR_STRUCT_READ(&options, given);
    if (status != MLAR_OK)
        return mlar_fail(diag, status, "options.struct_size", given->struct_size, sizeof options,
                         "options.struct_size: %u given", given->struct_size);
    if (bytes < sizeof(mlar_device) || (uintptr_t)memory % 16 != 0)
        return mlar_fail(diag,
                         bytes < sizeof(mlar_device) ? MLAR_ERROR_MEMORY_SIZE : MLAR_ERROR_MEMORY_ALIGNMENT,
                         "memory", (int64_t)bytes, sizeof(mlar_device),
                         "memory: %zu bytes given, %zu needed at 16", bytes, sizeof(mlar_device));
    mlar_device *device = memory;
    memset(device, 0, sizeof *device);
    status = mlar_runtime_open(options.device, options.library, &device->runtime, diag);
    if (status == MLAR_OK) status = take_device(device, options.ordinal, diag);
    if (status != MLAR_OK) return status;
    mlar_device_scope scope;
    status = mlar_device_enter(device, &scope, diag);
    if (status == MLAR_OK) {
        status = read_profile(device, diag);
        if (status == MLAR_OK)
            status = mlar_modules_load(&device->modules, &device->runtime, device->profile.arch, diag);
        if (status == MLAR_OK) status = mlar_device_judge(device, options.runtime_check, diag);
        status = mlar_device_leave(device, &scope, status, diag);
        if (status != MLAR_OK) (void)mlar_modules_unload(&device->modules, &device->runtime);
    }
    if (status != MLAR_OK) {
        if (device->context != NULL) (void)device->runtime.context_release(options.ordinal);
        return status;
    }
    *result = device;
    return MLAR_OK;
}

mlar_status mlar_device_info_of(const mlar_device *device, mlar_device_info *given) {
    if (device == NULL || given == NULL) return MLAR_ERROR_ARGUMENT;
    const mlar_runtime *runtime = &device->runtime;
    const mlar_quirk *quirk = mlar_quirk_of(device->profile.device, runtime->version, device->profile.arch);
    mlar_device_info info = {.struct_size = sizeof info,
                             .runtime_version = runtime->version,
                             .driver_version = runtime->driver_version,
                             .known_bad = quirk != NULL,
                             .has_pools = device->has_pools,
                             .profile = device->profile};
    size_t memory = 0;
    if (runtime->device_memory(&memory, device->ordinal) == MLAR_GPU_SUCCESS) info.memory_bytes = memory;
    if (runtime->device_name(info.name, (int)sizeof info.name, device->ordinal) != MLAR_GPU_SUCCESS)
        info.name[0] = 0;
    info.name[sizeof info.name - 1] = 0;
    snprintf(info.runtime, sizeof info.runtime, "%s", runtime->found);
    if (quirk != NULL) snprintf(info.quirk, sizeof info.quirk, "%s (%s)", quirk->what, quirk->source);
    return MLAR_STRUCT_WRITE(given, &info);
}

mlar_status mlar_device_close(mlar_device *device) {
    if (device == NULL) return MLAR_ERROR_ARGUMENT;
    if (device->runtime.vendor == NULL) return MLAR_ERROR_STATE; /* closed already */
    if (device->users != 0) return MLAR_ERROR_BUSY;
    mlar_device_scope scope;
    mlar_status entered = mlar_device_enter(device, &scope, NULL);
    mlar_status status = mlar_modules_unload(&device->modules, &device->runtime); /* without, if need be */
    status = entered == MLAR_OK ? mlar_device_leave(device, &scope, status, NULL) : entered;
    if (device->context != NULL) {
        int error = device->runtime.context_release(device->ordinal);
        if (status == MLAR_OK) status = mlar_runtime_status(&device->runtime, error, "close", NULL);
    }
    memset(device, 0, sizeof *device);
    return status;
}

/* ---- memory ---- */

#define HIP_6 60000000

static int32_t memory_type_host(const mlar_runtime *runtime) {
    int old = runtime->vendor->device == MLAR_DEVICE_HIP && runtime->version < HIP_6;
    return old ? MLAR_HIP5_MEMORY_HOST : MLAR_GPU_MEMORY_HOST;
}

mlar_status mlar_device_check_memory(mlar_device *device, const void *base, uint64_t bytes, const char *field,
                                     mlar_diag *diag) {
    mlar_runtime *runtime = &device->runtime;
    int32_t ordinal = -1, type = 0;
    uintptr_t start = 0;
    size_t range = 0;
    struct {
        void *value;
        int32_t attribute;
    } questions[] = {{&type, MLAR_GPU_POINTER_MEMORY_TYPE},
                     {&start, MLAR_GPU_POINTER_RANGE_START},
                     {&range, MLAR_GPU_POINTER_RANGE_BYTES},
                     {&ordinal, MLAR_GPU_POINTER_DEVICE}};
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        int error =
            runtime->pointer_attribute(questions[i].value, questions[i].attribute, (void *)(uintptr_t)base);
        if (error == MLAR_GPU_ERROR_INVALID_VALUE)
            return mlar_fail(diag, MLAR_ERROR_MEMORY_KIND, field, 0, 0, "%s: not memory of a device", field);
        mlar_status status = mlar_runtime_status(runtime, error, "hipPointerGetAttribute", diag);
        if (status != MLAR_OK) return status;
    }
    if (type == memory_type_host(runtime))
        return mlar_fail(diag, MLAR_ERROR_MEMORY_KIND, field, 0, 0, "%s: pinned host memory, not a device's",
                         field);
    if (ordinal != device->ordinal)
        return mlar_fail(diag, MLAR_ERROR_MEMORY_KIND, field, ordinal, device->ordinal,
                         "%s: memory of device %d, the engine runs on %d", field, (int)ordinal,
                         (int)device->ordinal);
    uint64_t left = start + range - (uintptr_t)base;
    if (bytes > left)
        return mlar_fail(diag, MLAR_ERROR_MEMORY_SIZE, field, mlar_size_for_diag(left),
                         mlar_size_for_diag(bytes), "%s: the allocation ends after %llu bytes, %llu needed",
                         field, (unsigned long long)left, (unsigned long long)bytes);
    return MLAR_OK;
}
