/* SPDX-License-Identifier: Apache-2.0
 *
 * device.h: one opened GPU: its runtime, its profile, its kernels. Knows no engine. */
#ifndef MLAR_ENGINE_GPU_DEVICE_H
#define MLAR_ENGINE_GPU_DEVICE_H

#include "engine/gpu/modules.h"
#include "engine/gpu/runtime.h"

#include <mlarena/mlarena.h>

struct mlar_device {
    mlar_runtime runtime;
    int32_t ordinal;
    int32_t has_pools;
    void *context; /* CUDA: the device's primary context, which frameworks use too */
    mlar_device_profile profile;
    mlar_modules modules;
    uint64_t calls;  /* into the runtime, by steady-state functions */
    int32_t engines; /* that run on it: close refuses while there are any */
    int32_t reserved;
};

/* What was current before, to be put back: entry points never change the caller's device. */
typedef struct mlar_device_scope {
    void *context;
    int32_t ordinal;
    int32_t changed;
} mlar_device_scope;

mlar_device_scope mlar_device_enter(mlar_device *device);
void mlar_device_leave(mlar_device *device, const mlar_device_scope *scope);

/* 1 while `stream` is being captured (or must not be asked about because another stream is). */
int mlar_device_capturing(mlar_device *device, void *stream);

/* The pointer is memory of this device, and `bytes` from it are one allocation. MLAR_ERROR_MEMORY_KIND,
 * _SIZE. */
mlar_status mlar_device_check_memory(mlar_device *device, const void *base, uint64_t bytes, const char *field,
                                     mlar_diag *diag);

/* A blocking copy in stream order; in = 1: host to device. The device must be current. */
mlar_status mlar_device_transfer(mlar_device *device, int in, void *to, const void *from, uint64_t bytes,
                                 void *stream);

#endif
