/* SPDX-License-Identifier: Apache-2.0
 *
 * device.c: which back end serves which device kind. */
#include "engine/backend.h"

#include <stddef.h>

const mlar_backend *mlar_backend_of(int32_t device) { return device == MLAR_DEVICE_CPU ? &mlar_backend_cpu : NULL; }
