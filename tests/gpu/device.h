/* SPDX-License-Identifier: Apache-2.0
 *
 * device.h: the few calls that the kernel test needs of a GPU runtime, found when the program runs: the CUDA
 * driver, or any library that speaks HIP. It knows nothing of the engine's runtime code, which has tests of its own,
 * but how a launch with attributes is described. A failing call ends the program with the call's name. */
#ifndef TESTS_GPU_DEVICE_H
#define TESTS_GPU_DEVICE_H

#include "kernels/gpu/launch.h"

#include <stddef.h>
#include <stdint.h>

typedef struct device_function device_function;

/* library: a path or NULL for the usual names. Returns 0 if there is none, or no device. */
int device_open(const char *library);
const char *device_name(void); /* as the runtime gives it */

void *device_new(size_t bytes); /* at least 256-byte aligned */
void device_free(void *memory);
void device_fill(void *memory, int byte, size_t bytes);
void device_write(void *memory, const void *from, size_t bytes);
void device_read(void *to, const void *memory, size_t bytes);
void device_copy(void *to, const void *from, size_t bytes); /* on the device, queued behind the launches */

/* The launch's kernel, from the image of its unit for `arch` in the folder `images`, by the names that
 * kernels/gpu/CMakeLists.txt gives; an image is loaded once. */
device_function *device_function_of(const char *images, const char *arch, const mlar_gpu_launch *launch);
/* As the engine launches: in clusters, and ahead of the end of what was launched before, where `launch` says so and the
 * device can (device_overlaps). All launches go to one stream. */
void device_launch(const device_function *function, const mlar_gpu_launch *launch, const void *args);
int device_overlaps(void);
void device_wait(void);

#endif
