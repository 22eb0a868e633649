/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.c: an arena in a device memory pool of its own: one pool, one allocation, nothing given back until
 * release.
 *
 * The pool's attributes then prove that nothing was allocated afterwards: reserved and used stay what they
 * were. */
#include "engine/gpu/pool.h"

#include "arena/fail.h"
#include "engine/arena_api.h"
#include "engine/gpu/device.h"

#include <string.h>

static mlar_status fill_pool(mlar_device *device, void *pool, uint64_t bytes, void **base, mlar_diag *diag) {
    const mlar_runtime *runtime = &device->runtime;
    uint64_t keep_all = UINT64_MAX;
    int error = runtime->pool_set(pool, MLAR_GPU_POOL_RELEASE_THRESHOLD, &keep_all);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipMemPoolSetAttribute", diag);
    error = runtime->pool_malloc(base, bytes, pool, NULL);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipMallocFromPoolAsync", diag);
    error = runtime->stream_synchronize(NULL);
    if (error == MLAR_GPU_SUCCESS) return MLAR_OK;
    (void)runtime->pool_free(*base, NULL);
    return mlar_runtime_status(runtime, error, "hipStreamSynchronize", diag);
}

static mlar_status make_pool(mlar_device *device, uint64_t bytes, void **pool, mlar_diag *diag) {
    uint64_t granule = device->profile.pool_granularity_bytes;
    mlar_gpu_pool_properties properties = {.allocation_type = 1,
                                           .location_type = 1,
                                           .location_id = device->ordinal,
                                           .max_bytes = (bytes + granule - 1) / granule * granule};
    int error = device->runtime.pool_create(pool, &properties);
    if (error != MLAR_GPU_SUCCESS) { /* runtimes that know no limit want zeros there */
        properties.max_bytes = 0;
        error = device->runtime.pool_create(pool, &properties);
    }
    return mlar_runtime_status(&device->runtime, error, "hipMemPoolCreate", diag);
}

/* The arena's source: context is the device; the pool itself is kept beside the arena. */
static mlar_status pool_allocate(void *context, uint64_t bytes, uint64_t align, void **base,
                                 mlar_diag *diag) {
    mlar_arena_body *body = context;
    (void)align; /* a pool's allocations start at multiples of 256 at least; the engine checks */
    mlar_device_scope scope = mlar_device_enter(body->device);
    void *pool = NULL;
    mlar_status status = make_pool(body->device, bytes, &pool, diag);
    if (status == MLAR_OK) {
        status = fill_pool(body->device, pool, bytes, base, diag);
        if (status != MLAR_OK)
            (void)body->device->runtime.pool_destroy(pool);
        else
            body->pool = pool;
    }
    mlar_device_leave(body->device, &scope);
    return status;
}

static void pool_release(void *context, void *base, uint64_t bytes) {
    (void)bytes;
    mlar_arena_body *body = context;
    const mlar_runtime *runtime = &body->device->runtime;
    mlar_device_scope scope = mlar_device_enter(body->device);
    (void)runtime->pool_free(base, NULL);
    (void)runtime->stream_synchronize(NULL);
    (void)runtime->pool_destroy(body->pool);
    mlar_device_leave(body->device, &scope);
    body->pool = NULL;
}

mlar_status mlar_arena_from_pool(mlar_arena *arena, mlar_device *device, uint64_t bytes, mlar_diag *diag) {
    if (arena == NULL || device == NULL)
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, arena == NULL ? "arena" : "device", 0, 0, "null");
    memset(arena, 0, sizeof *arena);
    if (!device->has_pools)
        return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "device", 0, 0,
                         "device: no memory pools here; give the engine memory of your own");
    if (mlar_device_capturing(device, NULL))
        return mlar_fail(diag, MLAR_ERROR_CAPTURING, "device", 0, 0, "device: a stream is being captured");
    mlar_arena_body *body = mlar_arena_body_of(arena);
    body->device = device;
    mlar_arena_source source = {.name = "pool",
                                .allocate = pool_allocate,
                                .release = pool_release,
                                .context = body,
                                .host_visible = false};
    return mlar_arena_open(&body->core, &source, bytes, 1, diag);
}

void mlar_pool_attributes(const mlar_arena_core *core, mlar_device *device, mlar_backend_stats *stats) {
    const mlar_arena_body *body = (const mlar_arena_body *)(const void *)core;
    if (core->source.allocate != pool_allocate) return;
    uint64_t *const fields[] = {&stats->pool_reserved_bytes, &stats->pool_used_bytes,
                                &stats->pool_used_high_bytes};
    static const int attributes[] = {MLAR_GPU_POOL_RESERVED, MLAR_GPU_POOL_USED, MLAR_GPU_POOL_USED_HIGH};
    for (int i = 0; i < 3; i++)
        if (device->runtime.pool_get(body->pool, attributes[i], fields[i]) != MLAR_GPU_SUCCESS)
            *fields[i] = 0;
}
