/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.c: device memory and pools.
 *
 * All device memory lies in one reserved range of addresses, handed out upwards and never twice, so that an address
 * says what it is and a freed one faults. An allocation ends as close to the end of its last page as its alignment of
 * 256 allows; what is left beside it in its pages holds a canary. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "tests/standin/state.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define RANGE_BYTES ((size_t)64 << 30)
#define PAGE        ((size_t)4096)
#define GRANULE     ((uint64_t)2 << 20) /* what pools reserve in */

enum { CANARY = 0xc5, GARBAGE = 0xee, ALIGNMENT = 256, MAX_PINNED = 8 };

static unsigned char *range, *next_page;
static standin_allocation allocations[MAX_ALLOCATIONS];
static standin_pool pools[MAX_POOLS];
static struct {
    const unsigned char *base;
    size_t bytes;
} pinned[MAX_PINNED];

static size_t round_up(size_t value, size_t to) {
    return (value + to - 1) / to * to;
}

void standin_memory_reset(void) {
    if (range == NULL) {
        range = mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED) standin_violate("no address space"), range = NULL;
    } else {
        madvise(range, (size_t)(next_page - range), MADV_DONTNEED);
        mprotect(range, (size_t)(next_page - range), PROT_NONE);
    }
    next_page = range;
    memset(allocations, 0, sizeof allocations);
    memset(pools, 0, sizeof pools);
    memset(pinned, 0, sizeof pinned);
}

uint64_t standin_memory_alive(char *text, size_t bytes) {
    uint64_t blocks = 0, pool_count = 0;
    for (int i = 0; i < MAX_ALLOCATIONS; i++) blocks += allocations[i].alive != 0;
    for (int i = 0; i < MAX_POOLS; i++) pool_count += pools[i].alive != 0;
    snprintf(text, bytes, "%d pools, %d allocations", (int)pool_count, (int)blocks);
    return blocks + pool_count;
}

void standin_pin(void *memory, size_t bytes) {
    for (int i = 0; i < MAX_PINNED; i++)
        if (pinned[i].base == NULL) {
            pinned[i].base = memory;
            pinned[i].bytes = bytes;
            return;
        }
}

int standin_is_device_address(const void *address) {
    return (const unsigned char *)address >= range && (const unsigned char *)address < range + RANGE_BYTES;
}

standin_allocation *standin_allocation_at(const void *address, size_t bytes) {
    const unsigned char *at = address;
    for (int i = 0; i < MAX_ALLOCATIONS; i++) {
        standin_allocation *a = &allocations[i];
        if (a->alive && at >= a->base && at < a->base + a->bytes)
            return bytes <= (size_t)(a->base + a->bytes - at) ? a : NULL;
    }
    return NULL;
}

static void protect(const standin_allocation *allocation, int protection) {
    mprotect(allocation->pages, allocation->page_bytes, protection);
}

static void for_device(int32_t device, int protection) {
    for (int i = 0; i < MAX_ALLOCATIONS; i++)
        if (allocations[i].alive && allocations[i].ready && allocations[i].device == device)
            protect(&allocations[i], protection);
}

void standin_memory_show(int32_t device) {
    for_device(device, PROT_READ | PROT_WRITE);
}

void standin_memory_hide(int32_t device) {
    for_device(device, PROT_NONE);
}

/* ---- one allocation ---- */

static uint64_t in_use(int32_t device) {
    uint64_t bytes = 0;
    for (int i = 0; i < MAX_ALLOCATIONS; i++)
        if (allocations[i].alive && allocations[i].device == device) bytes += allocations[i].bytes;
    return bytes;
}

static standin_allocation *new_allocation(size_t bytes, int32_t device) {
    if (bytes > standin_now.settings.memory_bytes - in_use(device)) return NULL;
    for (int i = 0; i < MAX_ALLOCATIONS; i++) {
        standin_allocation *a = &allocations[i];
        if (a->alive) continue;
        size_t page_bytes = round_up(bytes, PAGE);
        *a = (standin_allocation){.alive = 1, .device = device, .bytes = bytes, .page_bytes = page_bytes};
        a->pages = next_page + PAGE; /* one page before it and one after it stay out of reach */
        a->base = a->pages + (page_bytes - round_up(bytes, ALIGNMENT));
        next_page = a->pages + page_bytes;
        return a;
    }
    return NULL;
}

void standin_allocation_ready(standin_allocation *allocation) {
    allocation->ready = 1;
    protect(allocation, PROT_READ | PROT_WRITE);
    memset(allocation->pages, CANARY, allocation->page_bytes);
    memset(allocation->base, GARBAGE, allocation->bytes);
}

static int is_canary(const unsigned char *from, const unsigned char *to) {
    for (; from < to; from++)
        if (*from != CANARY) return 0;
    return 1;
}

void standin_allocation_end(standin_allocation *a) {
    protect(a, PROT_READ);
    if (!is_canary(a->pages, a->base) || !is_canary(a->base + a->bytes, a->pages + a->page_bytes))
        standin_violate("something wrote beside an allocation of %zu bytes", a->bytes);
    protect(a, PROT_NONE);
    madvise(a->pages, a->page_bytes, MADV_DONTNEED);
    a->alive = 0;
    if (a->pool == NULL) return;
    a->pool->used -= a->bytes;
    uint64_t kept = round_up(a->pool->used, GRANULE);
    if (a->pool->reserved > a->pool->threshold) a->pool->reserved = kept;
}

static int allocate(void **address, size_t bytes) {
    int error = standin_unsafe();
    if (error != 0) return error;
    if (address == NULL || bytes == 0) return HIP_INVALID_VALUE;
    standin_allocation *a = new_allocation(bytes, standin_current());
    if (a == NULL) return HIP_OUT_OF_MEMORY;
    standin_allocation_ready(a);
    protect(a, PROT_NONE);
    *address = a->base;
    return 0;
}

static int release(void *address) {
    int error = standin_unsafe();
    if (error != 0) return error;
    standin_allocation *a = standin_allocation_at(address, 0);
    if (a == NULL || a->base != address || a->pool != NULL) return HIP_INVALID_VALUE;
    standin_drain_device(a->device); /* it waits */
    standin_allocation_end(a);
    return 0;
}

HIP(hipMalloc, (void **address, size_t bytes), allocate(address, bytes))
HIP_RELEASE(hipFree, (void *address), release(address))

/* ---- what an address is ---- */

static int about(void *value, int attribute, const void *start, size_t bytes, int32_t device, uint32_t type) {
    switch (attribute) {
    case MLAR_GPU_POINTER_MEMORY_TYPE:
        memcpy(value, &type, sizeof type);
        return 0;
    case MLAR_GPU_POINTER_DEVICE:
        memcpy(value, &device, sizeof device);
        return 0;
    case MLAR_GPU_POINTER_RANGE_START:
        memcpy(value, &start, sizeof start);
        return 0;
    case MLAR_GPU_POINTER_RANGE_BYTES:
        memcpy(value, &bytes, sizeof bytes);
        return 0;
    default:
        return HIP_INVALID_VALUE;
    }
}

static int pointer_attribute(void *value, int attribute, const void *address) {
    uint32_t host = standin_now.settings.version < 60000000 ? 0 : 1;
    const standin_allocation *a = standin_allocation_at(address, 0);
    if (value == NULL) return HIP_INVALID_VALUE;
    if (a != NULL) return about(value, attribute, a->base, a->bytes, a->device, host + 1);
    for (int i = 0; i < MAX_PINNED; i++) {
        const unsigned char *at = address, *base = pinned[i].base;
        if (base != NULL && at >= base && at < base + pinned[i].bytes)
            return about(value, attribute, base, pinned[i].bytes, 0, host);
    }
    return HIP_INVALID_VALUE;
}

HIP(hipPointerGetAttribute, (void *value, int attribute, void *address),
    pointer_attribute(value, attribute, address))

/* ---- pools ---- */

#ifndef STANDIN_OLD
static int pool_create(void **handle, const mlar_gpu_pool_properties *properties) {
    static const unsigned char zeros[sizeof properties->reserved];
    int error = standin_unsafe();
    if (error != 0) return error;
    if (handle == NULL || properties == NULL || properties->allocation_type != 1 ||
        properties->handle_types != 0 || properties->location_type != 1 || properties->win32_security != NULL)
        return HIP_INVALID_VALUE;
    if (properties->location_id < 0 || properties->location_id >= standin_now.settings.devices)
        return HIP_INVALID_DEVICE;
    if (memcmp(properties->reserved, zeros, sizeof zeros) != 0) return HIP_INVALID_VALUE;
    if (properties->max_bytes != 0 && !standin_now.settings.pool_limit) return HIP_INVALID_VALUE;
    for (int i = 0; i < MAX_POOLS; i++) {
        if (pools[i].alive) continue;
        pools[i] =
            (standin_pool){.alive = 1, .device = properties->location_id, .limit = properties->max_bytes};
        *handle = &pools[i];
        return 0;
    }
    return HIP_OUT_OF_MEMORY;
}

static standin_pool *pool_of(void *handle) {
    for (int i = 0; i < MAX_POOLS; i++)
        if (&pools[i] == handle && pools[i].alive) return handle;
    return NULL;
}

static int pool_destroy(void *handle) {
    standin_pool *pool = pool_of(handle);
    int error = standin_unsafe();
    if (error != 0) return error;
    if (pool == NULL) return HIP_INVALID_VALUE;
    for (int i = 0; i < MAX_ALLOCATIONS; i++)
        if (allocations[i].alive && allocations[i].pool == pool)
            standin_violate("hipMemPoolDestroy: %zu bytes are still in use", allocations[i].bytes);
    pool->alive = 0;
    return 0;
}

static uint64_t *pool_value(void *handle, int attribute) {
    standin_pool *pool = pool_of(handle);
    if (pool == NULL) return NULL;
    switch (attribute) {
    case MLAR_GPU_POOL_RELEASE_THRESHOLD:
        return &pool->threshold;
    case MLAR_GPU_POOL_RESERVED:
        return &pool->reserved;
    case MLAR_GPU_POOL_USED:
        return &pool->used;
    case MLAR_GPU_POOL_USED_HIGH:
        return &pool->used_high;
    default:
        return NULL;
    }
}

static int pool_get(void *handle, int attribute, void *value) {
    const uint64_t *from = pool_value(handle, attribute);
    if (from == NULL || value == NULL) return HIP_INVALID_VALUE;
    memcpy(value, from, sizeof *from);
    return 0;
}

static int pool_set(void *handle, int attribute, const void *value) {
    uint64_t *to = pool_value(handle, attribute), wanted;
    if (to == NULL || value == NULL) return HIP_INVALID_VALUE;
    memcpy(&wanted, value, sizeof wanted);
    if (attribute != MLAR_GPU_POOL_RELEASE_THRESHOLD && wanted != 0) return HIP_INVALID_VALUE;
    *to = wanted;
    return 0;
}

/* Refused on any stream while this thread, or anybody globally, captures: the stricter of the runtimes. */
static int pool_malloc(void **address, size_t bytes, void *handle, void *stream_handle) {
    standin_pool *pool = pool_of(handle);
    standin_stream *stream = standin_stream_of(stream_handle);
    int error = standin_unsafe();
    if (error == 0) error = standin_default_use(stream);
    if (error != 0) return error;
    if (pool == NULL || stream == NULL || address == NULL || bytes == 0) return HIP_INVALID_VALUE;
    if (pool->device != stream->device) return HIP_INVALID_DEVICE;
    uint64_t reserved = round_up(pool->used + bytes, GRANULE);
    if (pool->limit != 0 && reserved > pool->limit) return HIP_OUT_OF_MEMORY;
    standin_allocation *a = new_allocation(bytes, pool->device);
    if (a == NULL) return HIP_OUT_OF_MEMORY;
    a->pool = pool;
    pool->used += bytes;
    if (pool->used > pool->used_high) pool->used_high = pool->used;
    if (reserved > pool->reserved) pool->reserved = reserved;
    standin_queue(stream, OP_ALLOCATE)->allocation = a;
    standin_queued(stream);
    *address = a->base;
    return 0;
}

static int pool_free(void *address, void *stream_handle) {
    standin_stream *stream = standin_stream_of(stream_handle);
    standin_allocation *a = standin_allocation_at(address, 0);
    int error = standin_unsafe();
    if (error == 0) error = standin_default_use(stream);
    if (error != 0) return error;
    if (stream == NULL || a == NULL || a->base != address || a->pool == NULL || a->freeing)
        return HIP_INVALID_VALUE;
    a->freeing = 1;
    standin_queue(stream, OP_FREE)->allocation = a;
    standin_queued(stream);
    return 0;
}

HIP(hipMemPoolCreate, (void **pool, const void *properties), pool_create(pool, properties))
HIP_RELEASE(hipMemPoolDestroy, (void *pool), pool_destroy(pool))
HIP(hipMemPoolGetAttribute, (void *pool, int attribute, void *value), pool_get(pool, attribute, value))
HIP(hipMemPoolSetAttribute, (void *pool, int attribute, void *value), pool_set(pool, attribute, value))
HIP(hipMallocFromPoolAsync, (void **address, size_t bytes, void *pool, void *stream),
    pool_malloc(address, bytes, pool, stream))
HIP(hipFreeAsync, (void *address, void *stream), pool_free(address, stream))
#endif
