/* SPDX-License-Identifier: Apache-2.0
 *
 * backends.c: which back end serves which device kind. Both are part of every build: planning for a GPU needs
 * no GPU, and whether kernels for it are embedded is found out when one is opened. */
#include "engine/backend.h"
#include "engine/gpu/backend.h"

const mlar_backend *mlar_backend_of(int32_t device) {
    return device == MLAR_DEVICE_CPU ? &mlar_backend_cpu : &mlar_backend_gpu;
}
