/* SPDX-License-Identifier: Apache-2.0
 *
 * device_case.h: the cases of cases.h in device memory, and an engine on an opened device around them: what
 * engine_case.h is for the CPU. It knows nothing but the public API, so any device serves. */
#ifndef TESTS_SUPPORT_DEVICE_CASE_H
#define TESTS_SUPPORT_DEVICE_CASE_H

#include "tests/support/engine_case.h"

/* A case whose buffers were copied to a device. */
typedef struct device_case {
    mlar_device *device;
    step_case *made; /* outputs come back here */
    void *on_device[CASE_MAX_BUFFERS];
    mlar_bindings bindings;
} device_case;

device_case device_case_new(mlar_device *device, step_case *made);
void device_case_free(device_case *moved);
/* Fills out and lse on the device with CASE_PATTERN. */
void device_case_poison(device_case *moved);
/* Waits for the stream, then reads out and lse back into the case. */
void device_case_fetch(device_case *moved, void *stream);

typedef struct device_engine {
    mlar_device *device;
    mlar_config config;
    mlar_memory memory;
    mlar_arena arena;
    void *host_memory;
    mlar_engine *engine;
} device_engine;

/* `config` for that device's profile. */
mlar_config device_engine_config(mlar_device *device, const step_case *const *cases, int32_t count);
/* Queries, takes a pool of exactly those bytes, inits in a host block of exactly those bytes, dirty. */
device_engine *device_engine_open(mlar_device *device, const mlar_config *config);
void device_engine_close(device_engine *run);

mlar_program *device_engine_capture(device_engine *run, int32_t kind, const device_case *moved,
                                    int32_t capacity_rows);
/* prepare and enqueue at the case's own rows and capacity, fetched. */
void device_engine_eager(device_engine *run, int32_t kind, device_case *moved, void *stream);
/* step, prepare and replay, fetched. */
void device_engine_replay(device_engine *run, mlar_program *program, int32_t kind, device_case *moved,
                          int32_t rows, void *stream);
mlar_stats device_engine_stats(device_engine *run, void *stream);

#endif
