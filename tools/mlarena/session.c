/* SPDX-License-Identifier: Apache-2.0
 *
 * session.c: places and sessions. */
#define _POSIX_C_SOURCE 200809L

#include "session.h"

#include "configure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- place ---- */

static mlar_status try_device(place *p, int32_t kind, const options *o, int32_t check, mlar_diag *diag) {
    mlar_device_options device = {.struct_size = sizeof device,
                                  .device = kind,
                                  .ordinal = o->ordinal < 0 ? 0 : (int32_t)o->ordinal,
                                  .runtime_check = check};
    mlar_status status = mlar_device_open(p->memory, mlar_device_bytes(), &device, &p->device, diag);
    if (status != MLAR_OK) return status;
    p->info.struct_size = sizeof p->info;
    return mlar_device_info_of(p->device, &p->info);
}

int place_open(place *p, const options *o) {
    static const char *const devices[] = {"auto", "cpu", "gpu", NULL};
    memset(p, 0, sizeof *p);
    int choice = o->device == NULL ? 0 : option_choice(o->device, devices);
    if (choice < 0) return unusable("--device: '%s' (cpu, gpu, auto)", o->device);
    if (choice == 1) return 0;
    mlar_config checks; /* --runtime-check, by the same parser as everywhere */
    (void)mlar_config_init(&checks);
    int failed = configure_run(o, &checks);
    if (failed) return failed;
    p->memory = calloc(1, mlar_device_bytes());
    if (p->memory == NULL) return unusable("no memory");
    static const int32_t kinds[] = {MLAR_DEVICE_HIP, MLAR_DEVICE_CUDA};
    size_t used = 0;
    for (int i = 0; i < 2; i++) {
        mlar_diag diag = {.struct_size = sizeof diag};
        if (try_device(p, kinds[i], o, checks.runtime_check, &diag) == MLAR_OK) return 0;
        int n = snprintf(p->reason + used, sizeof p->reason - used, "%s%s", used ? "; " : "", diag.message);
        if (n > 0) used += (size_t)n;
        if (used >= sizeof p->reason) used = sizeof p->reason - 1;
    }
    free(p->memory);
    p->memory = NULL;
    return choice == 2 ? unusable("--device gpu: %s", p->reason) : 0;
}

void place_close(place *p) {
    if (p->device != NULL) (void)mlar_device_close(p->device);
    free(p->memory);
    p->device = NULL;
    p->memory = NULL;
}

const char *place_describe(const place *p, char text[256]) {
    if (p->device == NULL)
        snprintf(text, 256, "cpu");
    else
        snprintf(text, 256, "%s (%s, runtime %d, %s)", p->info.profile.arch, p->info.name,
                 (int)p->info.runtime_version, p->info.runtime);
    return text;
}

void *place_allocate(place *p, uint64_t bytes) {
    void *address = NULL;
    uint64_t rounded = (bytes + 63) / 64 * 64 + 64;
    if (p->device != NULL)
        return mlar_device_allocate(p->device, rounded, &address, NULL) == MLAR_OK ? address : NULL;
    address = aligned_alloc(64, (size_t)rounded);
    if (address != NULL) memset(address, 0, (size_t)rounded);
    return address;
}

void *place_upload(place *p, const void *host, uint64_t bytes) {
    if (host == NULL) return NULL;
    if (p->device == NULL) return (void *)(uintptr_t)host;
    void *address = place_allocate(p, bytes);
    if (address == NULL || place_write(p, address, host, bytes) == MLAR_OK) return address;
    place_free(p, address, NULL);
    return NULL;
}

void place_free(place *p, void *address, const void *host) {
    if (address == NULL || address == host) return;
    if (p->device != NULL)
        (void)mlar_device_free(p->device, address);
    else
        free(address);
}

mlar_status place_write(place *p, void *to, const void *host, uint64_t bytes) {
    if (p->device != NULL) return mlar_device_write(p->device, to, host, bytes);
    memcpy(to, host, (size_t)bytes);
    return MLAR_OK;
}

mlar_status place_read(place *p, void *host, const void *from, uint64_t bytes) {
    if (p->device != NULL) return mlar_device_read(p->device, host, from, bytes);
    memcpy(host, from, (size_t)bytes);
    return MLAR_OK;
}

void place_wait(place *p) {
    if (p->device != NULL) (void)mlar_device_wait(p->device, NULL);
}

/* ---- session ---- */

static mlar_status open_arena(session *s, mlar_diag *diag) {
    if (s->where->device == NULL) return mlar_arena_from_malloc(&s->arena, s->memory.device_bytes, diag);
    return mlar_arena_from_pool(&s->arena, s->where->device, s->memory.device_bytes, diag);
}

int session_open(session *s, place *where, const mlar_config *config) {
    memset(s, 0, sizeof *s);
    s->where = where;
    s->config = *config;
    if (where->device != NULL) s->config.device = where->info.profile;
    s->memory.struct_size = sizeof s->memory;
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_status status = mlar_memory_query(&s->config, &s->memory, &diag);
    if (status == MLAR_OK) status = open_arena(s, &diag);
    if (status != MLAR_OK) return unusable_diag(&diag, status);
    uint64_t align = s->memory.host_align_bytes;
    s->host_block =
        aligned_alloc((size_t)align, (size_t)((s->memory.host_bytes + align - 1) / align * align));
    status = s->host_block == NULL ? MLAR_ERROR_OUT_OF_MEMORY
                                   : mlar_engine_init(&s->config, where->device, &s->arena, s->host_block,
                                                      s->memory.host_bytes, &s->engine, &diag);
    if (status == MLAR_OK) return 0;
    int code = unusable_diag(&diag, status);
    session_close(s);
    return code;
}

void session_close(session *s) {
    if (s->engine != NULL) (void)mlar_engine_deinit(s->engine);
    (void)mlar_arena_release(&s->arena, NULL);
    free(s->host_block);
    s->engine = NULL;
    s->host_block = NULL;
}

/* ---- time ---- */

double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double percentile(double *values, int count, double fraction) {
    if (count <= 0) return 0;
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[(int)(fraction * (count - 1) + 0.5)];
}
