/* SPDX-License-Identifier: Apache-2.0
 *
 * backends.c: which back end serves which device kind. */
#include "engine/backend.h"

#include "arena/fail.h"

const mlar_backend *mlar_backend_of(int32_t device) {
    return device == MLAR_DEVICE_CPU ? &mlar_backend_cpu : NULL;
}

/* ---- builds without a GPU back end ---- */

static mlar_status none(mlar_diag *diag) {
    return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "device", 0, 0, "device: this build has no GPU back end");
}

size_t mlar_device_bytes(void) {
    return 16;
}

mlar_status mlar_device_open(void *memory, size_t bytes, const mlar_device_options *options,
                             mlar_device **device, mlar_diag *diag) {
    (void)memory, (void)bytes, (void)options, (void)device;
    return none(diag);
}
mlar_status mlar_device_info_of(const mlar_device *device, mlar_device_info *info) {
    (void)device, (void)info;
    return MLAR_ERROR_ARGUMENT;
}
mlar_status mlar_device_close(mlar_device *device) {
    (void)device;
    return MLAR_ERROR_ARGUMENT;
}
mlar_status mlar_arena_from_pool(mlar_arena *arena, mlar_device *device, uint64_t bytes, mlar_diag *diag) {
    (void)arena, (void)device, (void)bytes;
    return none(diag);
}
mlar_status mlar_device_allocate(mlar_device *device, uint64_t bytes, void **address, mlar_diag *diag) {
    (void)device, (void)bytes, (void)address;
    return none(diag);
}
mlar_status mlar_device_free(mlar_device *device, void *address) {
    (void)device, (void)address;
    return MLAR_ERROR_ARGUMENT;
}
mlar_status mlar_device_write(mlar_device *device, void *to, const void *from_host, uint64_t bytes) {
    (void)device, (void)to, (void)from_host, (void)bytes;
    return MLAR_ERROR_ARGUMENT;
}
mlar_status mlar_device_read(mlar_device *device, void *to_host, const void *from, uint64_t bytes) {
    (void)device, (void)to_host, (void)from, (void)bytes;
    return MLAR_ERROR_ARGUMENT;
}
mlar_status mlar_device_wait(mlar_device *device, void *stream) {
    (void)device, (void)stream;
    return MLAR_ERROR_ARGUMENT;
}
