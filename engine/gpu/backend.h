/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.h: the GPU back end, for engine/backends.c. */
#ifndef MLAR_ENGINE_GPU_BACKEND_H
#define MLAR_ENGINE_GPU_BACKEND_H

#include "engine/backend.h"

extern const mlar_backend mlar_backend_gpu;

#endif
