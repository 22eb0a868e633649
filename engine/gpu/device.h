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
    _Atomic uint64_t calls; /* into the runtime, by steady-state functions; engines share the device */
    _Atomic int32_t users;  /* engines and pool arenas: close refuses while there are any */
    int32_t reserved;
};

/* What was current before, to be put back: entry points never change the caller's device. */
typedef struct mlar_device_scope {
    void *context;
    int32_t ordinal;
    int32_t changed;
} mlar_device_scope;

/* Makes the device current; on failure nothing has changed, and there is nothing to leave. */
mlar_status mlar_device_enter(mlar_device *device, mlar_device_scope *scope, mlar_diag *diag);
/* Puts back what was current. Returns `status`, what was done meanwhile; if that is MLAR_OK, how this went. */
mlar_status mlar_device_leave(mlar_device *device, const mlar_device_scope *scope, mlar_status status,
                              mlar_diag *diag);

void mlar_device_count_calls(mlar_device *device, int32_t calls);

/* MLAR_OK; MLAR_ERROR_CAPTURING while `stream` is being captured, or is the default stream and may not be asked
 * about because a stream that waits for it is; or what the runtime said. */
mlar_status mlar_device_idle(mlar_device *device, void *stream, mlar_diag *diag);

/* What `check` (MLAR_RUNTIME_*) makes of a runtime that is known to be bad: MLAR_ERROR_RUNTIME_BLOCKED; a warning
 * in diag, whose status is then MLAR_OK; or nothing. */
mlar_status mlar_device_judge(const mlar_device *device, int32_t check, mlar_diag *diag);

/* The pointer is memory of this device, and `bytes` from it are one allocation. MLAR_ERROR_MEMORY_KIND,
 * _SIZE. */
mlar_status mlar_device_check_memory(mlar_device *device, const void *base, uint64_t bytes, const char *field,
                                     mlar_diag *diag);

/* A blocking copy in stream order; in = 1: host to device. The device must be current. */
mlar_status mlar_device_transfer(mlar_device *device, int in, void *to, const void *from, uint64_t bytes,
                                 void *stream, mlar_diag *diag);
/* `word` again and again; `to` and `bytes` are multiples of 4. Blocking, too. */
mlar_status mlar_device_fill(mlar_device *device, void *to, uint32_t word, uint64_t bytes, void *stream,
                             mlar_diag *diag);

#endif
