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

#include <stdatomic.h>
#include <string.h>

static mlar_status fill_pool(mlar_device *device, void *pool, uint64_t bytes, void **base, mlar_diag *diag) {
    mlar_runtime *runtime = &device->runtime;
    uint64_t keep_all = UINT64_MAX;
    int error = runtime->pool_set(pool, MLAR_GPU_POOL_RELEASE_THRESHOLD, &keep_all);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipMemPoolSetAttribute", diag);
    error = runtime->pool_malloc(base, bytes, pool, NULL);
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipMallocFromPoolAsync", diag);
    error = runtime->stream_synchronize(NULL);
    if (error == MLAR_GPU_SUCCESS) return MLAR_OK;
    (void)runtime->pool_free(*base, NULL);
    (void)runtime->stream_synchronize(NULL); /* a pool is not destroyed before what it gave is back */
    return mlar_runtime_status(runtime, error, "hipStreamSynchronize", diag);
}

static mlar_status make_pool(mlar_device *device, uint64_t bytes, void **pool, mlar_diag *diag) {
    uint64_t granule = device->profile.pool_granularity_bytes;
    mlar_gpu_pool_properties properties = {.allocation_type = 1,
                                           .location_type = 1,
                                           .location_id = device->ordinal,
                                           .max_bytes = (bytes + granule - 1) / granule * granule};
    int error = device->runtime.pool_create(pool, &properties);
    if (error == MLAR_GPU_ERROR_INVALID_VALUE) { /* runtimes that know no limit want zeros there */
        properties.max_bytes = 0;
        error = device->runtime.pool_create(pool, &properties);
    }
    return mlar_runtime_status(&device->runtime, error, "hipMemPoolCreate", diag);
}

/* The arena's source. Its context is the arena's own body, which remembers the pool. */
static mlar_status pool_allocate(void *context, uint64_t bytes, uint64_t align, void **base,
                                 mlar_diag *diag) {
    mlar_arena_body *body = context;
    mlar_device *device = body->device;
    (void)align; /* a pool's allocations start at multiples of 256 at least; the engine checks */
    mlar_status status = make_pool(device, bytes, &body->pool, diag);
    if (status != MLAR_OK) return status;
    status = fill_pool(device, body->pool, bytes, base, diag);
    if (status != MLAR_OK)
        (void)device->runtime.pool_destroy(body->pool);
    else
        atomic_fetch_add(&device->users, 1);
    return status;
}

static mlar_status empty_pool(mlar_arena_body *body, void *base, mlar_diag *diag) {
    mlar_runtime *runtime = &body->device->runtime;
    if (!body->pool_emptied) {
        int error = runtime->pool_free(base, NULL);
        if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipFreeAsync", diag);
        body->pool_emptied = 1;
    }
    int error = runtime->stream_synchronize(NULL); /* it is not destroyed before what it gave is back */
    if (error != MLAR_GPU_SUCCESS) return mlar_runtime_status(runtime, error, "hipStreamSynchronize", diag);
    /* A capture puts this off. What else it reports is about something earlier: the pool exists and is empty. */
    error = runtime->pool_destroy(body->pool);
    if (mlar_runtime_status(runtime, error, "hipMemPoolDestroy", NULL) != MLAR_ERROR_CAPTURING)
        return MLAR_OK;
    return mlar_runtime_status(runtime, error, "hipMemPoolDestroy", diag);
}

static mlar_status pool_release(void *context, void *base, uint64_t bytes, mlar_diag *diag) {
    mlar_arena_body *body = context;
    mlar_device *device = body->device;
    (void)bytes;
    mlar_status status = mlar_device_idle(device, NULL, diag);
    mlar_device_scope scope;
    if (status == MLAR_OK) status = mlar_device_enter(device, &scope, diag);
    if (status == MLAR_OK) {
        status = empty_pool(body, base, diag);
        /* Not reported: what was given back cannot be given back again. */
        (void)mlar_device_leave(device, &scope, status, NULL);
    }
    /* A lost device took its memory with it. */
    if (status != MLAR_OK && device->runtime.lost == 0) return status;
    body->pool = NULL;
    atomic_fetch_sub(&device->users, 1);
    return MLAR_OK;
}

static const mlar_arena_source pool_source = {
    .name = "pool", .allocate = pool_allocate, .release = pool_release, .host_visible = false};

mlar_status mlar_arena_from_pool(mlar_arena *arena, mlar_device *device, uint64_t bytes, mlar_diag *diag) {
    if (arena == NULL || device == NULL) return mlar_fail_null(diag, arena == NULL ? "arena" : "device");
    memset(arena, 0, sizeof *arena);
    if (!device->has_pools)
        return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "device", 0, 0,
                         "device: no memory pools here; give the engine memory of your own");
    mlar_status status = mlar_device_idle(device, NULL, diag);
    mlar_device_scope scope;
    if (status == MLAR_OK) status = mlar_device_enter(device, &scope, diag);
    if (status != MLAR_OK) return status;
    mlar_arena_body *body = mlar_arena_body_of(arena);
    body->device = device;
    mlar_arena_source source = pool_source;
    source.context = body;
    status = mlar_arena_open(&body->core, &source, bytes, 1, diag);
    int opened = status == MLAR_OK;
    status = mlar_device_leave(device, &scope, status, diag);
    if (opened && status != MLAR_OK) (void)mlar_arena_release(arena, NULL);
    return status;
}

mlar_status mlar_pool_attributes(const mlar_arena_core *core, mlar_device *device,
                                 mlar_backend_stats *stats) {
    const mlar_arena_body *body = (const mlar_arena_body *)(const void *)core;
    if (core->source.allocate != pool_allocate) return MLAR_OK;
    uint64_t *const fields[] = {&stats->pool_reserved_bytes, &stats->pool_used_bytes,
                                &stats->pool_used_high_bytes};
    static const int attributes[] = {MLAR_GPU_POOL_RESERVED, MLAR_GPU_POOL_USED, MLAR_GPU_POOL_USED_HIGH};
    for (int i = 0; i < 3; i++) {
        int error = device->runtime.pool_get(body->pool, attributes[i], fields[i]);
        if (error != MLAR_GPU_SUCCESS)
            return mlar_runtime_status(&device->runtime, error, "hipMemPoolGetAttribute", NULL);
    }
    return MLAR_OK;
}
